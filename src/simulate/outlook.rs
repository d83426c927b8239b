//! The slots of a schedule that can make a difference to retention: few, however often it fires.
//!
//! A rule that counts periods sees of each period only whether it holds a point, and which one is
//! its newest. So looking forward, the first slot of each coming period is enough, and looking back,
//! the last one of each: whatever the real `retain` says over these, it says over all. Slots that
//! blackouts leave no time for are none.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::desired::{Due, Series, SeriesPoint};
use crate::elapsed::Elapsed;
use crate::name::Slot;
use crate::policy::Policy;
use crate::retention::{CLOCK_SKEW, Period};
use crate::schedule::Zone;

/// Nothing is predicted beyond this.
pub const HORIZON: Elapsed = Elapsed::days(50 * 366);
/// The most slots that one rule makes us look at.
const SLOTS_MAX: usize = 100_000;
/// So many coming slots are looked at for the longest time between two.
const WAITS: usize = 100;
/// So many slots in a row may be blacked out.
const BLACKED_OUT_MAX: usize = 50_000;

/// Whether blackouts leave time for a slot.
pub(super) fn is_meant(policy: &Policy, slot: Slot) -> bool {
    policy.blackouts.is_empty() || !policy.is_blacked_out(slot, policy.schedule.deadline_of(slot))
}

/// The first instant from `at` on at which no blackout keeps a policy from creating.
fn after_blackouts(policy: &Policy, at: Timestamp) -> Timestamp {
    let creates = policy.blackouts.iter().filter(|blackout| blackout.creates);
    let end_at = |at| creates.clone().filter_map(|blackout| blackout.window.end_at(at)).max();
    // As many in a row as the policy itself follows.
    (0..1_000).try_fold(at, |at, _| end_at(at).ok_or(at)).unwrap_or_else(|end| end)
}

/// When the restore point of a slot is made that begins so long after it; `None` where blackouts
/// leave no time for it, or a newer slot has come by then.
fn arrival(policy: &Policy, slot: Slot, offset: Elapsed) -> Option<Timestamp> {
    let begins = offset.after(slot.instant());
    if policy.blackouts.is_empty() {
        return Some(begins);
    }
    let at = after_blackouts(policy, begins);
    if !is_meant(policy, slot) || at > policy.schedule.deadline_of(slot) {
        return None;
    }
    let newer = (at > begins).then(|| next_meant(policy, slot.instant())).flatten();
    newer.is_none_or(|newer| offset.after(newer.instant()) > at).then_some(at)
}

/// The first slot after an instant that is to have a restore point.
pub(super) fn next_meant(policy: &Policy, after: Timestamp) -> Option<Slot> {
    let next = policy.schedule.next_slot(after)?;
    if is_meant(policy, next) {
        return Some(next);
    }
    let after = Elapsed::seconds(1).after(next.instant());
    let mut slots = policy.schedule.slots(after, HORIZON.after(after)).take(BLACKED_OUT_MAX);
    slots.find(|slot| is_meant(policy, *slot))
}

/// The first slots after an instant that are to have a restore point.
pub fn meant_slots(policy: &Policy, after: Timestamp, count: usize) -> Vec<Slot> {
    let mut slots = Vec::new();
    let mut last = after;
    while slots.len() < count
        && let Some(slot) = next_meant(policy, last)
    {
        slots.push(slot);
        last = slot.instant();
    }
    slots
}

/// The longest time between two coming slots that are to have a restore point, as the next hundred
/// show it; `None` where there are not two.
pub fn longest_wait(policy: &Policy, now: Timestamp) -> Option<Elapsed> {
    let slots = meant_slots(policy, now, WAITS);
    let waits = slots.windows(2);
    waits.map(|pair| Elapsed::between(pair[0].instant(), pair[1].instant())).max()
}

/// The last slot at or before an instant that was to have a restore point.
fn last_meant(policy: &Policy, at: Timestamp) -> Option<Slot> {
    let mut before = at;
    for _ in 0..BLACKED_OUT_MAX {
        let slot = policy.schedule.last_slot(before)?;
        if is_meant(policy, slot) {
            return Some(slot);
        }
        before = Elapsed::seconds(1).before(slot.instant());
    }
    None
}

/// Slots to come that can change what is kept of the points there are.
fn coming(policy: &Policy, from: Timestamp) -> BTreeSet<Slot> {
    let schedule = &policy.schedule;
    let horizon = HORIZON.after(from);
    let mut slots = BTreeSet::new();
    let at_least = policy.retention.at_least.max(1);
    let counts = policy.retention.effective().filter(|(rule, _)| rule.age_limit(1).is_none());
    let mut nearest = at_least as usize;
    for (rule, count) in counts {
        match rule.period() {
            None => nearest = nearest.max(count as usize),
            Some(period) => {
                let mut at = from;
                // One more: the present period may have a point already.
                for _ in 0..(count as usize + 1).min(SLOTS_MAX) {
                    let Some(slot) = next_meant(policy, at) else { break };
                    if slot.instant() > horizon {
                        break;
                    }
                    slots.insert(slot);
                    let next = first_after(period, slot.instant(), &schedule.zone);
                    at = Elapsed::seconds(1).before(next);
                }
            }
        }
    }
    let after = Elapsed::seconds(1).after(from);
    let nearer = schedule.slots(after, horizon).take(nearest.min(SLOTS_MAX) + BLACKED_OUT_MAX);
    slots.extend(nearer.filter(|slot| is_meant(policy, *slot)).take(nearest.min(SLOTS_MAX)));
    slots
}

/// From when on a policy makes restore points, its blackouts aside; `None` where it never does.
pub(super) fn resumed(policy: &Policy, now: Timestamp) -> Option<Timestamp> {
    match policy.paused.as_ref().filter(|pause| pause.creates) {
        Some(pause) => pause.until.map(|until| until.max(now)),
        None => Some(now),
    }
}

/// The slots to come that can matter, with the instant at which each has its point.
pub(super) fn arrivals(
    series: &Series<'_>,
    from: Timestamp,
    offset: Elapsed,
    now: Timestamp,
) -> Vec<(Slot, Timestamp)> {
    let policy = series.policy;
    // A slot may have come and its capture still be ahead; what has its point is behind.
    let has_point = |point: &&SeriesPoint<'_>| {
        !point.image.state.is_failed_attempt() && point.key.slot.instant() <= CLOCK_SKEW.after(now)
    };
    let newest = series.points.iter().rfind(has_point).map(|point| point.key.slot);
    let mut arrivals = Vec::new();
    let resumed = after_blackouts(policy, from);
    if let Due::Create { slot, .. } = &series.due {
        arrivals.push((*slot, now));
    } else if resumed > now {
        // What is due when a pause ends is made then.
        let due = last_meant(policy, offset.before(resumed));
        let is_open = |slot: &Slot| {
            newest.is_none_or(|newest| *slot > newest)
                && policy.schedule.deadline_of(*slot) >= resumed
        };
        arrivals.extend(due.filter(is_open).map(|slot| (slot, resumed)));
    }
    let begun = offset.before(resumed);
    let begun = newest.map_or(begun, |newest| newest.instant().max(begun));
    let first = arrivals.first().map(|(slot, _)| *slot);
    arrivals.extend(
        coming(policy, begun)
            .into_iter()
            .filter_map(|slot| Some((slot, arrival(policy, slot, offset)?)))
            .filter(|(slot, at)| *at > now && first.is_none_or(|first| first < *slot)),
    );
    arrivals
}

/// The coming runs that make a restore point, one after the other, with the instant at which each
/// does: after the end of a pause, outside of blackouts.
pub(super) fn runs(
    series: &Series<'_>,
    offset: Elapsed,
    now: Timestamp,
    count: usize,
) -> Vec<(Slot, Timestamp)> {
    let policy = series.policy;
    let Some(from) = resumed(policy, now) else { return Vec::new() };
    let Some((first, at)) = arrivals(series, from, offset, now).into_iter().next() else {
        return Vec::new();
    };
    let mut runs = vec![(first, at)];
    let mut last = first;
    for _ in 0..BLACKED_OUT_MAX {
        if runs.len() >= count {
            break;
        }
        let Some(slot) = next_meant(policy, last.instant()) else { break };
        runs.extend(arrival(policy, slot, offset).map(|at| (slot, at)));
        last = slot;
    }
    runs
}

/// Slots up to `at` that retention needs to see of a series that never missed one.
pub(super) fn history(policy: &Policy, at: Timestamp) -> BTreeSet<Slot> {
    let schedule = &policy.schedule;
    let mut slots = BTreeSet::new();
    let mut newest = policy.retention.at_least.max(1) as usize;
    for (rule, count) in policy.retention.effective() {
        if let Some(limit) = rule.age_limit(count) {
            slots.extend(within(policy, limit.min(HORIZON).before(at), at));
        } else if let Some(period) = rule.period() {
            let mut before = at;
            for _ in 0..(count as usize).min(SLOTS_MAX) {
                let Some(slot) = last_meant(policy, before) else { break };
                if slot.instant() < HORIZON.before(at) {
                    break;
                }
                slots.insert(slot);
                let first = first_of(period, slot.instant(), &schedule.zone);
                before = Elapsed::seconds(1).before(first);
            }
        } else {
            newest = newest.max(count as usize);
        }
    }
    slots.extend(newest_slots(policy, at, newest.min(SLOTS_MAX)));
    slots
}

/// All slots in `[from, at]`, the newest where there are very many.
pub(super) fn within(policy: &Policy, from: Timestamp, at: Timestamp) -> Vec<Slot> {
    let mut slots = fired(policy, from, at);
    slots.retain(|slot| is_meant(policy, *slot));
    slots
}

/// The same with those that are blacked out.
fn fired(policy: &Policy, from: Timestamp, at: Timestamp) -> Vec<Slot> {
    let slots = policy.schedule.slots(from, Elapsed::seconds(1).after(at));
    let mut slots: Vec<Slot> = slots.collect();
    slots.drain(..slots.len().saturating_sub(SLOTS_MAX));
    slots
}

/// The newest slots up to `at`, found in ever longer spans.
fn newest_slots(policy: &Policy, at: Timestamp, count: usize) -> Vec<Slot> {
    let mut span = Elapsed::days(2);
    loop {
        let mut slots = fired(policy, span.before(at), at);
        let are_all = slots.len() >= SLOTS_MAX || span > HORIZON;
        slots.retain(|slot| is_meant(policy, *slot));
        if slots.len() >= count || are_all {
            slots.drain(..slots.len().saturating_sub(count));
            return slots;
        }
        span = Elapsed::seconds(span.as_seconds() * 4);
    }
}

/// Longer than any of these periods.
fn longer_than(period: Period) -> Elapsed {
    match period {
        Period::Hour => Elapsed::hours(3),
        Period::Day => Elapsed::days(3),
        Period::Week => Elapsed::days(9),
        Period::Month => Elapsed::days(33),
        Period::Year => Elapsed::days(368),
    }
}

/// The first instant after the period that `instant` lies in. Keys are in order, so it can be
/// searched for.
fn first_after(period: Period, instant: Timestamp, zone: &Zone) -> Timestamp {
    let key = period.key(instant, zone);
    boundary(instant, longer_than(period).after(instant), |at| period.key(at, zone) > key)
}

/// The first instant of the period that `instant` lies in.
fn first_of(period: Period, instant: Timestamp, zone: &Zone) -> Timestamp {
    let key = period.key(instant, zone);
    boundary(longer_than(period).before(instant), instant, |at| period.key(at, zone) >= key)
}

/// The first second in `(low, high]` at which it is so, where it is so at `high` and stays so.
fn boundary(low: Timestamp, high: Timestamp, is_so: impl Fn(Timestamp) -> bool) -> Timestamp {
    let (mut low, mut high) = (low.as_second(), high.as_second());
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        let at = Timestamp::from_second(middle).unwrap_or(Timestamp::MAX);
        if is_so(at) {
            high = middle;
        } else {
            low = middle;
        }
    }
    Timestamp::from_second(high).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_ends_of_periods_are_found_through_clock_changes() {
        let zone = Zone::find("Europe/Berlin").unwrap();
        for (period, instant, first, next) in [
            (Period::Day, "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"),
            (Period::Month, "2026-03-15T12:00:00Z", "2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z"),
            (Period::Year, "2026-03-15T12:00:00Z", "2025-12-31T23:00:00Z", "2026-12-31T23:00:00Z"),
            (Period::Week, "2027-01-02T12:00:00Z", "2026-12-27T23:00:00Z", "2027-01-03T23:00:00Z"),
        ] {
            assert_eq!(first_of(period, at(instant), &zone), at(first), "{period:?}");
            assert_eq!(first_after(period, at(instant), &zone), at(next), "{period:?}");
        }
    }
}
