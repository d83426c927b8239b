//! Whose turn it is: engines take only so many images of one source in a time, whatever the policy
//! and the kind.
//!
//! In go the limits, when a source was captured lately and who wants it now; out comes for each the
//! first instant at which it may. Where not all can have it at once,
//!
//! 1. what is in an approved plan goes before what is not: nobody else takes the place that was approved;
//! 2. who cannot wait for the next turn, has waited for one already or has missed slots goes before
//!    who can;
//! 3. among these, who was captured the longest time ago, then who has the earlier deadline;
//! 4. once one of them has waited for a turn they draw lots each turn, and every other time, on average,
//!    where several of them cannot wait: so that one whose captures leave no trace of having failed keeps
//!    nobody off for good.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::desired::{Due, Series, start_of};
use crate::elapsed::{Elapsed, whole_second};
use crate::inventory::{EngineInventory, Image, Limits};
use crate::name::{Key, Ownership, PolicyName, Slot, SourceId};
use crate::retention::CLOCK_SKEW;

const HOUR: Elapsed = Elapsed::hours(1);

/// When each source was captured lately, as its images say.
pub type Captures = BTreeMap<SourceId, Vec<Timestamp>>;

/// Who wants a source now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// When its source was captured last for this policy, well or not.
    pub last: Option<Timestamp>,
    /// Until when it may be captured.
    pub deadline: Timestamp,
    /// The slot.
    pub slot: Slot,
    /// The policy.
    pub policy: PolicyName,
    /// From when on it could have been captured.
    pub begins: Timestamp,
    /// Whether slots before were missed.
    pub has_missed: bool,
    /// Whether a plan that was approved captures the source for it.
    pub is_approved: bool,
}

impl Candidate {
    /// What a series wants, where it wants something. What takes up what is there had its turn.
    pub fn of(series: &Series<'_>) -> Option<Self> {
        let Due::Create { slot, deadline, .. } = series.due else { return None };
        if series.takes_up() {
            return None;
        }
        Some(Self {
            last: series.points.iter().map(|point| point.image.created_at).max(),
            deadline,
            slot,
            policy: series.policy.name.clone(),
            begins: start_of(series.policy, &series.source).after(slot.instant()),
            has_missed: series.missed.is_some(),
            is_approved: false,
        })
    }
}

/// Whether an engine limits how often a source is captured.
pub fn is_limited(limits: &Limits) -> bool {
    limits.source_interval_seconds.is_some() || limits.source_hourly.is_some()
}

/// What the limits ask for, for people.
pub fn rule(limits: &Limits) -> String {
    let interval = interval(limits).map(|interval| format!("one image in {interval}"));
    let hourly = limits.source_hourly.map(|most| format!("{most} in an hour"));
    let both: Vec<String> = [interval, hourly].into_iter().flatten().collect();
    format!("the engine makes of one source {}", both.join(" and "))
}

fn interval(limits: &Limits) -> Option<Elapsed> {
    let seconds = i64::try_from(limits.source_interval_seconds?).unwrap_or(i64::MAX);
    Some(Elapsed::seconds(seconds))
}

/// Whether a capture was so long ago that it does not matter any more.
pub fn is_over(limits: &Limits, at: Timestamp, now: Timestamp) -> bool {
    let longest = interval(limits).map_or(HOUR, |interval| interval.max(HOUR));
    longest.after(at) <= now
}

/// Whether a capture matters now: it was lately. What is dated in the future moves nothing.
fn is_late(limits: &Limits, at: Timestamp, now: Timestamp) -> bool {
    !is_over(limits, at, now) && at <= CLOCK_SKEW.after(now)
}

/// When sources were captured, as far as it is not over. Copies are made of images and not of sources.
pub fn captures(engine: &EngineInventory, now: Timestamp) -> Captures {
    let limits = &engine.capabilities.limits;
    let mut captures = Captures::new();
    if !is_limited(limits) {
        return captures;
    }
    let counts = |image: &&Image| !is_over(limits, image.created_at, now) && !image.is_copy();
    for image in engine.images.iter().filter(counts) {
        let source = image.source.as_ref().map(|source| source.id.clone());
        let source = source.or_else(|| match image.ownership() {
            Ownership::Ours(key) => Some(key.source),
            Ownership::Foreign | Ownership::Broken(_) => None,
        });
        if let Some(source) = source {
            captures.entry(source).or_default().push(image.created_at);
        }
    }
    captures
}

/// The first instant from `now` on, in whole seconds, that is far enough from captures.
fn next(limits: &Limits, captures: &[Timestamp], now: Timestamp) -> Timestamp {
    let mut captures = captures.to_vec();
    captures.sort_unstable();
    let interval = interval(limits).zip(captures.last());
    let after_last = interval.map(|(interval, last)| interval.after(*last));
    let most = limits.source_hourly.map(|most| usize::try_from(most.max(1)).unwrap_or(usize::MAX));
    let of_hour = most.and_then(|most| captures.get(captures.len().checked_sub(most)?));
    let of_hour = of_hour.map(|first| HOUR.after(*first));
    let at = [after_last, of_hour].into_iter().flatten().fold(now, Timestamp::max);
    let second = whole_second(at);
    if second < at { Elapsed::seconds(1).after(second) } else { second }
}

/// When each of those who want a source may have it, in their order. Who could have it only after its
/// deadline keeps nobody off.
pub fn turns(
    limits: &Limits,
    source: &SourceId,
    mut captures: Vec<Timestamp>,
    candidates: &[Candidate],
    now: Timestamp,
) -> Vec<Timestamp> {
    captures.retain(|at| is_late(limits, *at, now));
    let mut turns = vec![now; candidates.len()];
    for index in in_order(limits, source, &captures, candidates, now) {
        turns[index] = next(limits, &captures, now);
        if turns[index] <= candidates[index].deadline {
            captures.push(turns[index]);
        }
    }
    turns
}

/// The positions of those who want a source, in the order in which they get it.
fn in_order(
    limits: &Limits,
    source: &SourceId,
    captures: &[Timestamp],
    candidates: &[Candidate],
    now: Timestamp,
) -> Vec<usize> {
    let first = next(limits, captures, now);
    let second = next(limits, &[captures, &[first]].concat(), first);
    let turn = Elapsed::between(first, second);
    let has_waited = |one: &Candidate| turn.after(one.begins) <= now;
    let is_pressed = |one: &Candidate| one.deadline < second || one.has_missed || has_waited(one);
    let (mut approved, others): (Vec<usize>, Vec<usize>) =
        (0..candidates.len()).partition(|index| candidates[*index].is_approved);
    let (mut pressed, mut patient): (Vec<usize>, Vec<usize>) =
        others.into_iter().partition(|index| is_pressed(&candidates[*index]));
    for group in [&mut approved, &mut pressed, &mut patient] {
        group.sort_by_key(|index| &candidates[*index]);
    }
    let number = now.as_second() / turn.as_seconds().max(1);
    let cannot_wait = pressed.iter().filter(|index| candidates[**index].deadline < second).count();
    if pressed.iter().any(|index| has_waited(&candidates[*index]))
        || (cannot_wait > 1 && lot("toss", source, number, 2) == 1)
    {
        let lot = lot("turn", source, number, pressed.len());
        pressed.rotate_left(lot);
    }
    approved.append(&mut pressed);
    approved.append(&mut patient);
    approved
}

/// One of so many, the same for all of a turn.
fn lot(what: &str, source: &SourceId, turn: i64, among: usize) -> usize {
    let digest = Sha256::digest(format!("{what}\n{source}\n{turn}").as_bytes());
    usize::from(digest[0]) % among.max(1)
}

/// The series of an engine that cannot have their source now, by position, and when they can. Those
/// of which no restore point can be made anyway keep nobody off; `can_be_made` says whether one can.
/// What is `approved` comes first.
pub(super) fn waits(
    engine: &EngineInventory,
    series: &[Series<'_>],
    approved: &BTreeSet<&Key>,
    can_be_made: impl Fn(&Series<'_>) -> bool,
    now: Timestamp,
) -> BTreeMap<usize, Timestamp> {
    let limits = &engine.capabilities.limits;
    if !is_limited(limits) {
        return BTreeMap::new();
    }
    let mut wanted: BTreeMap<&SourceId, Vec<(usize, Candidate)>> = BTreeMap::new();
    for (index, one) in series.iter().enumerate() {
        if let Some(mut candidate) = Candidate::of(one) {
            let policy = candidate.policy.clone();
            let key = Key { policy, source: one.source.clone(), slot: candidate.slot };
            candidate.is_approved = approved.contains(&key);
            wanted.entry(&one.source).or_default().push((index, candidate));
        }
    }
    let mut captures = captures(engine, now);
    let mut waits = BTreeMap::new();
    for (source, mut wanted) in wanted {
        let captures = captures.remove(source).unwrap_or_default();
        if captures.is_empty() && wanted.len() == 1 {
            continue;
        }
        wanted.retain(|(index, _)| can_be_made(&series[*index]));
        let (positions, candidates): (Vec<usize>, Vec<Candidate>) = wanted.into_iter().unzip();
        let turns = turns(limits, source, captures, &candidates, now);
        waits.extend(positions.into_iter().zip(turns).filter(|(_, at)| *at > now));
    }
    waits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + 60 * minute).unwrap()
    }

    fn limits() -> Limits {
        Limits { source_interval_seconds: Some(600), source_hourly: Some(6), ..Limits::default() }
    }

    fn source() -> SourceId {
        SourceId::parse("1").unwrap()
    }

    fn wants(policy: &str, slot: i64, deadline: i64, last: Option<i64>) -> Candidate {
        Candidate {
            last: last.map(at),
            deadline: at(deadline),
            slot: Slot::at(at(slot)),
            policy: PolicyName::parse(policy).unwrap(),
            begins: at(slot),
            has_missed: false,
            is_approved: false,
        }
    }

    #[test]
    fn a_source_is_free_after_the_interval_and_where_the_hour_has_room() {
        assert_eq!(next(&limits(), &[], at(0)), at(0));
        assert_eq!(next(&limits(), &[at(0)], at(3)), at(10));
        assert_eq!(next(&limits(), &[at(0)], at(10)), at(10));
        let six: Vec<Timestamp> = [0, 10, 20, 21, 22, 23].map(at).to_vec();
        assert_eq!(next(&limits(), &six, at(34)), at(60));
        let hourly = Limits { source_interval_seconds: None, ..limits() };
        assert_eq!(next(&hourly, &six[1..], at(24)), at(24));
        let late = at(0) + jiff::SignedDuration::from_millis(400);
        let second = Elapsed::seconds(1).after(at(10));
        assert_eq!(next(&limits(), &[late], at(1)), second, "a whole second, and not before");
    }

    #[test]
    fn who_cannot_wait_goes_first_and_who_can_follows() {
        let wanted = [wants("long", 0, 240, Some(-9_000)), wants("short", 0, 9, Some(-1_440))];
        let turns = |captures, now| turns(&limits(), &source(), captures, &wanted, now);
        assert_eq!(turns(vec![], at(0)), [at(10), at(0)]);
        // Captured three minutes ago: nobody may, and one is too late, which keeps nobody off.
        assert_eq!(turns(vec![at(0)], at(3)), [at(10), at(10)]);
    }

    #[test]
    fn who_can_wait_as_well_as_another_was_captured_longer_ago() {
        let wanted = [wants("a", 0, 240, Some(-1_440)), wants("b", 0, 300, Some(-2_880))];
        assert_eq!(turns(&limits(), &source(), vec![], &wanted, at(0)), [at(10), at(0)]);
    }

    #[test]
    fn who_has_missed_slots_does_not_give_way_again() {
        let mut wanted = [wants("a", 0, 9, Some(-1_440)), wants("b", 0, 240, Some(-2_880))];
        assert_eq!(turns(&limits(), &source(), vec![], &wanted, at(0)), [at(0), at(10)]);
        wanted[1].has_missed = true;
        assert_eq!(turns(&limits(), &source(), vec![], &wanted, at(0)), [at(10), at(0)]);
    }

    #[test]
    fn nobody_takes_the_turn_of_what_was_approved() {
        let mut wanted = [
            wants("tight", 0, 9, None),
            wants("waited", -60, 240, None),
            wants("approved", 0, 240, Some(-1_440)),
        ];
        wanted[1].has_missed = true;
        for minute in 0..9 {
            wanted[2].is_approved = false;
            let before = turns(&limits(), &source(), vec![], &wanted, at(minute));
            assert!(before[2] > at(minute), "others are pressed: {before:?}");
            wanted[2].is_approved = true;
            let after = turns(&limits(), &source(), vec![], &wanted, at(minute));
            assert_eq!(after[2], at(minute));
            assert!(after[0] > at(minute) && after[1] > at(minute), "{after:?}");
        }
        // What the engine does not take yet waits all the same.
        let turns = turns(&limits(), &source(), vec![at(0)], &wanted, at(3));
        assert_eq!(turns[2], at(10));
    }

    /// Two policies of the same minute that cannot wait: neither has waited, and one of them fails without
    /// a trace each night.
    #[test]
    fn who_cannot_wait_gets_a_turn_some_nights_whatever_the_other_does() {
        let mut firsts = 0;
        for night in 1..60 {
            let now = 1_440 * night;
            let wanted =
                [wants("failing", now, now + 9, None), wants("nightly", now, now + 9, Some(0))];
            let turns = turns(&limits(), &source(), vec![], &wanted, at(now));
            firsts += usize::from(turns[1] == at(now));
        }
        assert!((5..40).contains(&firsts), "{firsts} of 59");
    }

    /// One policy asks every ten minutes and fails without a trace, another one once: lots are drawn.
    #[test]
    fn who_has_waited_gets_a_turn_whatever_the_others_do() {
        let mut firsts = 0;
        for turn in 1..24 {
            let now = at(10 * turn);
            let wanted = [wants("daily", 0, 240, Some(-1_440)), wants("failing", 0, 250, None)];
            let turns = turns(&limits(), &source(), vec![], &wanted, now);
            firsts += usize::from(turns[0] == now);
            assert!(turns.contains(&now), "somebody has it");
        }
        assert!((4..20).contains(&firsts), "{firsts} of 23");
    }
}
