//! What a policy holds of one source in the long run, when every capture succeeds.
//!
//! The real `retain` answers it over the slots that can matter, which are few however often the
//! schedule fires. [`bound`] is a cheaper number that is never too small: who checks many policies
//! against a quota asks it first.
//!
//! Blackouts that return leave slots out. Those with dates are over in the long run, and so are
//! pauses: neither is looked at.

use std::borrow::Cow;
use std::collections::BTreeSet;

use jiff::Timestamp;

use super::outlook::{history, within};
use crate::elapsed::Elapsed;
use crate::inventory::Content;
use crate::name::Slot;
use crate::policy::Policy;
use crate::policy::meant::Window;
use crate::policy::sizes::Sizes;
use crate::retention::{Point, retain};

/// What a series holds in the long run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SteadyState {
    /// Restore points that a rule keeps.
    pub kept: u64,
    /// Restore points that were let go and whose grace has not passed.
    pub in_grace: u64,
    /// How many more there are for a while: what is captured is there before anything goes for it.
    pub captured: u64,
    /// How far back the kept ones reach.
    pub reach: Elapsed,
}

impl SteadyState {
    /// All images of the series.
    pub fn images(self) -> u64 {
        self.kept + self.in_grace
    }

    /// Bytes of all images of the series.
    pub fn bytes(self, sizes: Sizes) -> u64 {
        sizes.of_points(self.images())
    }
}

/// What a series that never missed a slot holds at an instant; `None` where nothing is ever let go.
pub fn steady_state(policy: &Policy, at: Timestamp) -> Option<SteadyState> {
    policy.retention.effective().next()?;
    let policy = &*in_the_long_run(policy);
    let (kept, in_grace, reach) = counted(policy, at);
    // Just before a slot what has served its time is gone, and what comes with it is not there yet.
    let next = policy.schedule.next_slot(at).map(|slot| Elapsed::seconds(1).before(slot.instant()));
    let most = next.map_or(0, |next| {
        let (kept, in_grace, _) = counted(policy, next);
        kept + in_grace + 1
    });
    let captured = most.saturating_sub(kept + in_grace);
    Some(SteadyState { kept, in_grace, captured, reach })
}

/// How many are kept at an instant and how many in their grace, and how far back those reach.
fn counted(policy: &Policy, at: Timestamp) -> (u64, u64, Elapsed) {
    let grace = policy.lifecycle.grace;
    let before = grace.before(at);
    let recent: BTreeSet<Slot> =
        within(policy, before, at).into_iter().filter(|slot| slot.instant() > before).collect();
    let mut slots = history(policy, at);
    slots.extend(&recent);
    slots.extend(history(policy, before));
    let kept = kept_of(policy, &slots, at);
    let old: BTreeSet<Slot> =
        slots.iter().copied().filter(|slot| slot.instant() <= before).collect();
    let were_kept = kept_of(policy, &old, before);
    let in_grace = were_kept.union(&recent).filter(|slot| !kept.contains(slot)).count();
    let oldest = kept.first().copied();
    let reach = oldest.map_or(Elapsed::ZERO, |slot| Elapsed::between(slot.instant(), at));
    (kept.len() as u64, in_grace as u64, reach)
}

/// The policy without the blackouts that come once.
fn in_the_long_run(policy: &Policy) -> Cow<'_, Policy> {
    let is_dated = |window: &Window| matches!(window, Window::Once { .. });
    if !policy.blackouts.iter().any(|blackout| is_dated(&blackout.window)) {
        return Cow::Borrowed(policy);
    }
    let mut policy = policy.clone();
    policy.blackouts.retain(|blackout| !is_dated(&blackout.window));
    Cow::Owned(policy)
}

fn kept_of(policy: &Policy, slots: &BTreeSet<Slot>, at: Timestamp) -> BTreeSet<Slot> {
    let points: Vec<Point<'_>> = slots
        .iter()
        .map(|slot| Point {
            slot: *slot,
            id: "",
            content: Content::default(),
            ready: true,
            held: false,
        })
        .collect();
    let fates = retain(&points, &policy.retention, &policy.schedule.zone, at);
    slots
        .iter()
        .copied()
        .zip(fates)
        .filter(|(_, fate)| fate.is_kept())
        .map(|(slot, _)| slot)
        .collect()
}

/// At least as many images as a series ever holds in the long run; `None` where nothing is ever let
/// go. It looks at no calendar beyond the shortest time between two slots, and takes blackouts that
/// return not to follow one another without a gap.
pub fn bound(policy: &Policy) -> Option<u64> {
    policy.retention.effective().next()?;
    let period = policy.schedule.shortest_period().as_seconds().max(1);
    let fitting = |length: Elapsed| (length.as_seconds() / period + 1).unsigned_abs();
    // These all keep the newest so many: the largest of them keeps what the others do.
    let mut newest = u64::from(policy.retention.at_least.max(1));
    let mut of_periods = 0;
    for (rule, count) in policy.retention.effective() {
        match (rule.age_limit(count), rule.period()) {
            (Some(limit), _) => newest = newest.max(fitting(limit)),
            (None, None) => newest = newest.max(u64::from(count)),
            (None, Some(_)) => of_periods += u64::from(count),
        }
    }
    let kept = newest + of_periods;
    // What is let go waits for the grace, and then for a round: for both, blackouts let it wait.
    let waits = policy.blackouts.iter().filter(|blackout| blackout.deletes);
    let waits = waits.map(|blackout| match &blackout.window {
        Window::Returning { duration, .. } => 2 * fitting(*duration),
        Window::Once { .. } => 0,
    });
    Some(kept + fitting(policy.lifecycle.grace) + waits.sum::<u64>() + 1)
}
