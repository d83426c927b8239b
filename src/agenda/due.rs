//! When the policies of an engine want something next.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::SPACING;
use crate::elapsed::Elapsed;
use crate::inventory::Instance;
use crate::name::{Slot, spread};
use crate::policy::select::{Decision, Index};
use crate::policy::{Policies, Policy};
use crate::schedule::Firings;

/// So many slots in a row are looked at that blackouts may leave out.
const SLOTS_MAX: usize = 50;
/// So far ahead the next firing of a drill is looked for.
const DRILL_REACH: Elapsed = Elapsed::days(400);

/// When something is due next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextDue {
    /// The first start.
    pub at: Timestamp,
    /// The last instant at which it, or what is due shortly after, may begin.
    pub latest: Timestamp,
}

impl NextDue {
    /// What may begin at any time from then on.
    pub fn without_deadline(at: Timestamp) -> Self {
        Self { at, latest: Timestamp::MAX }
    }

    /// The first of some, with the time that what is due shortly after leaves.
    pub fn first(all: impl IntoIterator<Item = Self>) -> Option<Self> {
        let all: Vec<Self> = all.into_iter().collect();
        let at = all.iter().map(|due| due.at).min()?;
        let shortly = SPACING.after(at);
        let together = all.iter().filter(|due| due.at <= shortly).map(|due| due.latest);
        Some(Self { at, latest: together.min().unwrap_or(at) })
    }

    /// When a round begins for it, if the last one began at `began`.
    pub fn begins_at(self, began: Option<Timestamp>) -> Timestamp {
        let spaced = began.map_or(self.at, |began| SPACING.after(began).max(self.at));
        spaced.min(self.latest.max(self.at))
    }
}

/// The first instant after `now` at which policies want something of these instances. A policy that
/// selects none of them is asked as if it had one: there may be one by then.
pub fn next_due<'a>(
    policies: &Policies,
    instances: impl IntoIterator<Item = &'a Instance>,
    now: Timestamp,
) -> Option<NextDue> {
    let own: Vec<&Policy> = policies.policies.iter().collect();
    let mut offsets: Vec<BTreeSet<Elapsed>> = vec![BTreeSet::new(); own.len()];
    let index = Index::new(own.iter().map(|policy| &policy.selection));
    for instance in instances {
        for (position, decision) in index.decide(instance) {
            if matches!(decision, Decision::Selected(_)) {
                offsets[position].insert(offset(own[position], instance));
            }
        }
    }
    let mut starts: Vec<NextDue> = Vec::new();
    for (policy, mut offsets) in own.into_iter().zip(offsets) {
        if offsets.is_empty() {
            offsets.insert(Elapsed::ZERO);
        }
        starts.extend(next_start(policy, &offsets, now));
        starts.extend(next_drill(policy, now));
    }
    NextDue::first(starts)
}

/// How long after its slot the turn of a source comes.
fn offset(policy: &Policy, instance: &Instance) -> Elapsed {
    let jitter = policy.schedule.jitter.as_seconds().unsigned_abs();
    let offset = spread(&policy.name, &instance.id, jitter);
    Elapsed::seconds(i64::try_from(offset).unwrap_or(0))
}

/// The first instant after `now` at which a restore point can become due: the turn of a source comes,
/// or what keeps the policy from creating ends.
fn next_start(policy: &Policy, offsets: &BTreeSet<Elapsed>, now: Timestamp) -> Option<NextDue> {
    let mut after = now;
    for _ in 0..SLOTS_MAX {
        let end = policy
            .pauses_at(after)
            .into_iter()
            .filter(|pause| pause.creates)
            .map(|pause| pause.until)
            // One without an end outlasts all others.
            .try_fold(None, |latest: Option<Timestamp>, until| {
                let until = until?;
                Some(Some(latest.map_or(until, |latest| latest.max(until))))
            })?;
        if let Some(end) = end {
            // What became due meanwhile is due then.
            let slot = policy.schedule.last_slot(end);
            let latest = slot.map_or(end, |slot| policy.schedule.deadline_of(slot));
            if policy.pauses_at(end).iter().all(|pause| !pause.creates) {
                return Some(NextDue { at: end, latest });
            }
            after = end;
            continue;
        }
        let (start, slot) = turns(policy, offsets, after)?;
        let deadline = policy.schedule.deadline_of(slot);
        if !policy.pauses_at(start).iter().any(|pause| pause.creates) {
            return Some(NextDue { at: start, latest: deadline });
        }
        after = start;
    }
    // So many pauses in a row: what matters is not to sleep through their end.
    Some(NextDue { at: after, latest: after })
}

/// The next turn of a source after an instant, and its slot.
fn turns(
    policy: &Policy,
    offsets: &BTreeSet<Elapsed>,
    after: Timestamp,
) -> Option<(Timestamp, Slot)> {
    let schedule = &policy.schedule;
    let next = schedule.next_slot(after)?;
    let first = offsets.first()?;
    let mut found = (first.after(next.instant()), next);
    if schedule.jitter > Elapsed::ZERO {
        // Slots that have come, whose turn is still ahead for some sources.
        let since = schedule.jitter.before(after);
        for slot in schedule.slots(since, Elapsed::seconds(1).after(after)) {
            let passed = Elapsed::seconds(Elapsed::between(slot.instant(), after).as_seconds() + 1);
            if let Some(offset) = offsets.range(passed..).next() {
                let turn = offset.after(slot.instant());
                found = found.min((turn, slot));
            }
        }
    }
    Some(found)
}

/// The next firing of the drill.
fn next_drill(policy: &Policy, now: Timestamp) -> Option<NextDue> {
    let drill = policy.drill.as_ref()?;
    let zone = &policy.schedule.zone;
    let (from, until) = (Elapsed::seconds(1).after(now), DRILL_REACH.after(now));
    let next = |crontab| Firings::new(crontab, zone, from, until).next();
    let at = drill.crontabs.iter().filter_map(next).min()?;
    Some(NextDue::without_deadline(at))
}
