//! What the time says about a policy: slots, deadlines, pauses, blackouts, stalls.

use jiff::{SignedDuration, Timestamp};

use crate::policy::Policy;
use crate::policy::meant::Window;
use crate::schedule::{Crontab, DEADLINE_DEFAULT_MAX, Firings, Zone};

/// So many slots without a new restore point are a stall, where the policy gives no length.
const STALL: usize = 3;
/// So many slots are looked at before a stall is given up: blackouts may swallow any number.
const LOOKED_AT_MAX: usize = 100_000;

/// What a pause or a blackout keeps a policy from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    /// Making restore points.
    Creates,
    /// Letting them go.
    Deletes,
}

/// An instant moved by so many seconds.
pub(super) fn moved(instant: Timestamp, seconds: i64) -> Timestamp {
    let end = if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
    instant.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(end)
}

/// The first firing of any expression from one instant to another, both of them included.
pub(super) fn first_firing(
    crontabs: &[Crontab],
    zone: &Zone,
    from: Timestamp,
    to: Timestamp,
) -> Option<Timestamp> {
    let until = moved(to, 1);
    crontabs.iter().filter_map(|one| Firings::new(one, zone, from, until).next()).min()
}

fn first_slot(policy: &Policy, from: Timestamp, to: Timestamp) -> Option<Timestamp> {
    first_firing(&policy.schedule.crontabs, &policy.schedule.zone, from, to)
}

/// Whether the schedule fires at an instant.
pub(super) fn fires_at(policy: &Policy, instant: Timestamp) -> bool {
    first_slot(policy, instant, instant).is_some()
}

/// The last instant at which the restore point of a slot may be begun.
pub(super) fn deadline(policy: &Policy, slot: Timestamp) -> Timestamp {
    let latest = policy.schedule.deadline.unwrap_or(DEADLINE_DEFAULT_MAX).as_seconds();
    let latest = moved(slot, latest);
    let is_given = policy.schedule.deadline.is_some();
    match first_slot(policy, moved(slot, 1), latest).filter(|_| !is_given) {
        Some(next) => moved(next, -1),
        None => latest,
    }
}

/// Whether neither a pause nor a blackout keeps a policy from something at an instant.
pub(super) fn is_free(policy: &Policy, doing: Doing, at: Timestamp) -> bool {
    let is_paused = policy.paused.as_ref().is_some_and(|pause| {
        let stops = if doing == Doing::Creates { pause.creates } else { pause.deletes };
        stops && pause.until.is_none_or(|until| at < until)
    });
    !is_paused && is_light(policy, doing, at)
}

/// Whether no blackout keeps a policy from something at an instant.
fn is_light(policy: &Policy, doing: Doing, at: Timestamp) -> bool {
    !policy.blackouts.iter().any(|blackout| {
        let stops = if doing == Doing::Creates { blackout.creates } else { blackout.deletes };
        stops && covers(&blackout.window, at)
    })
}

fn covers(window: &Window, at: Timestamp) -> bool {
    match window {
        Window::Once { from, until } => (*from..*until).contains(&at),
        Window::Returning { begins, zone, duration } => {
            first_firing(begins, zone, moved(at, 1 - duration.as_seconds()), at).is_some()
        }
    }
}

/// Whether blackouts leave any time for the restore point of a slot: at the slot itself, or where
/// one of them ends before the deadline.
fn is_meant(policy: &Policy, slot: Timestamp) -> bool {
    if !policy.blackouts.iter().any(|blackout| blackout.creates) {
        return true;
    }
    let deadline = deadline(policy, slot);
    let is_open =
        |at: Timestamp| (slot..=deadline).contains(&at) && is_light(policy, Doing::Creates, at);
    is_open(slot)
        || policy.blackouts.iter().any(|blackout| match &blackout.window {
            Window::Once { until, .. } => is_open(*until),
            Window::Returning { begins, zone, duration } => begins.iter().any(|crontab| {
                let length = duration.as_seconds();
                let (from, until) = (moved(slot, -length), moved(deadline, 1 - length));
                Firings::new(crontab, zone, from, until).any(|begin| is_open(moved(begin, length)))
            }),
        })
}

/// Whether a newer slot has come whose restore point could be made, the start of each this much
/// later.
pub(super) fn newer_slot(
    policy: &Policy,
    slot: Timestamp,
    start: i64,
    now: Timestamp,
) -> Option<Timestamp> {
    let last = moved(now, -start);
    let mut next = first_slot(policy, moved(slot, 1), last)?;
    for _ in 0..LOOKED_AT_MAX {
        if is_meant(policy, next) {
            return Some(next);
        }
        next = first_slot(policy, moved(next, 1), last)?;
    }
    None
}

/// Whether a series whose newest READY restore point is of this slot has had no new one for too
/// long.
pub(super) fn is_stalled(policy: &Policy, newest: Option<Timestamp>, now: Timestamp) -> bool {
    let Some(newest) = newest else { return true };
    if let Some(limit) = policy.stalled_after {
        return now.as_second() - newest.as_second() > limit.as_seconds();
    }
    let before = moved(now, -1);
    let mut next = first_slot(policy, moved(newest, 1), before);
    let mut passed = 0;
    for _ in 0..LOOKED_AT_MAX {
        let Some(slot) = next else { return false };
        passed += usize::from(is_meant(policy, slot));
        if passed == STALL {
            return true;
        }
        next = first_slot(policy, moved(slot, 1), before);
    }
    false
}
