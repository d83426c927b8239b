//! Which retention rules make others useless.
//!
//! What a rule keeps at an instant depends on the slots alone, not on the other rules. So one rule
//! makes another useless exactly where, at every instant, it keeps all that the other keeps. That
//! is decided by walking back from every slot of a year, or of four; a test holds the walk to
//! `retention::retain`.

use super::rhythm::{BEGIN, Rhythm, period_length};
use crate::elapsed::Elapsed;
use crate::inventory::Content;
use crate::name::Slot;
use crate::retention::{Period, Point, Retention, Rule, retain};
use crate::schedule::Schedule;

/// At most so many slots are looked at.
const SLOTS_MAX: usize = 20_000;
/// At most so many steps are walked for one pair of rules.
const STEPS_MAX: usize = 2_000_000;
/// Clock changes come round within it.
const YEAR: Elapsed = Elapsed::days(366);
/// Leap days come round within it, for what reaches back most of a year.
const LEAP_YEARS: Elapsed = Elapsed::days(4 * 366);
/// Clocks move by less than this.
const CLOCKS: i64 = 2 * 3_600;

/// What keeps restore points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Keeper {
    /// The rule; `atLeast` keeps what `last` would.
    pub(super) rule: Rule,
    /// How many it keeps.
    pub(super) count: u32,
    /// Whether it is `atLeast`.
    pub(super) is_floor: bool,
}

impl Keeper {
    pub(super) fn of_rule((rule, count): (Rule, u32)) -> Self {
        Self { rule, count, is_floor: false }
    }

    /// As it is written.
    pub(super) fn text(self) -> String {
        let word = if self.is_floor { "atLeast" } else { self.rule.word() };
        format!("{word}: {}", self.count)
    }

    fn is_age(self) -> bool {
        self.rule.age_limit(self.count).is_some()
    }

    /// How far it goes back, on the whole.
    fn reach(self, rhythm: &Rhythm) -> i64 {
        match self.rule.age_limit(self.count) {
            Some(limit) => limit.as_seconds(),
            None => i64::from(self.count) * rhythm.spacing(self.rule).as_seconds(),
        }
    }

    /// Whether it may keep everything that another keeps: it goes about as far back, and takes no
    /// longer steps.
    fn may_cover(self, other: Self, rhythm: &Rhythm) -> bool {
        if self.is_age() && other.is_age() {
            return self.reach(rhythm) >= other.reach(rhythm);
        }
        // The newest of all is kept by whatever counts.
        if !other.is_age() && other.count == 1 {
            return true;
        }
        let step = |keeper: Self| rhythm.spacing(keeper.rule).as_seconds();
        let is_fine = self.is_age() || step(self) * 100 <= step(other) * 101;
        is_fine && self.reach(rhythm) * 2 >= other.reach(rhythm)
    }

    /// The same where the times between slots decide it, whatever clocks do. Most pairs are decided
    /// here; the others take a walk through the slots.
    fn surely_covers(self, other: Self, rhythm: &Rhythm) -> Option<bool> {
        let (shortest, longest) = (rhythm.shortest.as_seconds(), rhythm.longest.as_seconds());
        let limit = |keeper: Self| keeper.rule.age_limit(keeper.count).map(Elapsed::as_seconds);
        // Each slot has its period to itself, so the rule does what `last` does.
        let is_slotwise = |keeper: Self| {
            let period = keeper.rule.period().map_or(0, period_length);
            !keeper.is_age() && shortest > period * 11 / 10 + CLOCKS
        };
        match (limit(self), limit(other)) {
            (Some(_), Some(_)) => Some(true),
            // In the long run each that counts keeps as many as it says.
            (None, None) if self.count < other.count => Some(false),
            (None, None) => (is_slotwise(self) && is_slotwise(other)).then_some(true),
            // The first instant of a slot: so many are young enough.
            (None, Some(age)) => {
                let count = i64::from(self.count);
                if rhythm.is_whole && age / (longest + CLOCKS) + 1 > count {
                    return Some(false);
                }
                let most = age / (shortest - CLOCKS).max(1) + 1;
                (rhythm.is_whole && is_slotwise(self) && most <= count).then_some(true)
            }
            // The last instant before the next slot: the oldest of them is so old.
            (Some(age), None) => {
                let count = i64::from(other.count);
                let period = other.rule.period().map(period_length);
                let least = match period {
                    Some(period) if period > shortest => (count - 1) * (period - longest) * 9 / 10,
                    _ => count * shortest,
                };
                let most = match period {
                    Some(period) => count * (period * 11 / 10 + longest),
                    None => count * longest,
                };
                if least > age + CLOCKS {
                    Some(false)
                } else {
                    (rhythm.is_whole && most + CLOCKS <= age).then_some(true)
                }
            }
        }
    }
}

/// The rules that keep nothing of their own, each with one that keeps all of it. None of them is
/// needed even when all are taken out.
pub(super) fn useless(
    schedule: &Schedule,
    retention: &Retention,
    rhythm: &Rhythm,
) -> Vec<(Keeper, Keeper)> {
    let rules: Vec<Keeper> = retention.effective().map(Keeper::of_rule).collect();
    let floor = Keeper { rule: Rule::Last, count: retention.at_least.max(1), is_floor: true };
    let mut found: Vec<(Keeper, Keeper)> = Vec::new();
    for one in &rules {
        let is_left =
            |other: &&Keeper| *other != one && !found.iter().any(|(useless, _)| useless == *other);
        let others: Vec<&Keeper> = rules.iter().filter(is_left).collect();
        // Without any rule everything would be kept.
        if others.is_empty() {
            continue;
        }
        let covers = |other: &&Keeper| covers(**other, *one, schedule, rhythm);
        if let Some(by) = others.into_iter().chain([&floor]).find(covers) {
            found.push((*one, *by));
        }
    }
    found
}

/// Whether something keeps all that `other` keeps, at every instant. Where that would take too long
/// to find out, it does not.
fn covers(keeper: Keeper, other: Keeper, schedule: &Schedule, rhythm: &Rhythm) -> bool {
    if !keeper.may_cover(other, rhythm) {
        return false;
    }
    match keeper.surely_covers(other, rhythm) {
        Some(answer) => answer,
        None => covers_everywhere(keeper, other, schedule, rhythm),
    }
}

/// Walks through a year of slots, or four.
fn covers_everywhere(keeper: Keeper, other: Keeper, schedule: &Schedule, rhythm: &Rhythm) -> bool {
    let history = Elapsed::seconds(other.reach(rhythm) + other.reach(rhythm) / 5);
    let from = rhythm.longest.before(history.before(BEGIN));
    let span = if history > Elapsed::days(300) { LEAP_YEARS } else { YEAR };
    let slots = schedule.slots(from, span.after(BEGIN)).take(SLOTS_MAX);
    let slots: Vec<_> = slots.map(Slot::instant).collect();
    let (Some(last), true) = (slots.last(), slots.len() > 1) else { return false };
    if *last <= BEGIN {
        return false;
    }
    // Over less than a year nobody knows what clock changes do: then it must be clear.
    let is_clear = keeper.reach(rhythm) * 2 >= other.reach(rhythm) * 3;
    if Elapsed::between(BEGIN, *last) < YEAR && slots.len() == SLOTS_MAX && !is_clear {
        return false;
    }
    let first = slots.partition_point(|slot| *slot < BEGIN);
    let zone = &schedule.zone;
    let keys = |keeper: Keeper| -> Vec<i64> {
        let key = |period: Period| slots.iter().map(|slot| period.key(*slot, zone)).collect();
        keeper.rule.period().map(key).unwrap_or_default()
    };
    let times: Vec<i64> = slots.iter().map(|slot| slot.as_second()).collect();
    Row { times, first }.covers((keeper, &keys(keeper)), (other, &keys(other)))
}

/// Slots in order, and the first one from which is walked back.
struct Row {
    times: Vec<i64>,
    first: usize,
}

impl Row {
    fn covers(&self, by: (Keeper, &[i64]), of: (Keeper, &[i64])) -> bool {
        let mut steps = 0;
        for newest in self.first..self.times.len().saturating_sub(1) {
            // Between two slots ages grow and nothing else changes: what keeps by age keeps most
            // at the first instant and least at the last.
            let now = if of.0.is_age() { self.times[newest] } else { self.times[newest + 1] - 1 };
            let (mut cover, mut walk) = (Walk::new(by, now), Walk::new(of, now));
            for index in (0..=newest).rev() {
                steps += 1;
                let is_covered = cover.keeps(index, self.times[index]) == Kept::Yes;
                match walk.keeps(index, self.times[index]) {
                    Kept::Yes if !is_covered => return false,
                    Kept::Yes | Kept::No => {}
                    Kept::NoMore => break,
                }
            }
            if steps > STEPS_MAX {
                return false;
            }
        }
        true
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Yes,
    No,
    /// Neither this one nor any before it.
    NoMore,
}

/// What one keeper says of slots, from the newest back.
struct Walk<'a> {
    keeper: Keeper,
    keys: &'a [i64],
    now: i64,
    limit: Option<i64>,
    place: u32,
    period: Option<i64>,
}

impl<'a> Walk<'a> {
    fn new((keeper, keys): (Keeper, &'a [i64]), now: i64) -> Self {
        let limit = keeper.rule.age_limit(keeper.count).map(Elapsed::as_seconds);
        Self { keeper, keys, now, limit, place: 0, period: None }
    }

    fn keeps(&mut self, index: usize, time: i64) -> Kept {
        if let Some(limit) = self.limit {
            return if self.now - time <= limit { Kept::Yes } else { Kept::NoMore };
        }
        if let Some(key) = self.keys.get(index) {
            if self.period == Some(*key) {
                return Kept::No;
            }
            self.period = Some(*key);
        }
        self.place += 1;
        if self.place <= self.keeper.count { Kept::Yes } else { Kept::NoMore }
    }
}

/// How many restore points of a source the rules keep in the long run, as they do at one instant of
/// a year without failures; `None` where that cannot be counted.
pub(super) fn kept_in_the_long_run(
    schedule: &Schedule,
    retention: &Retention,
    rhythm: &Rhythm,
) -> Option<u64> {
    let floor = Keeper { rule: Rule::Last, count: retention.at_least.max(1), is_floor: true };
    let rules: Vec<Keeper> = retention.effective().map(Keeper::of_rule).collect();
    rules.first()?;
    let reach = rules.iter().chain([&floor]).map(|keeper| keeper.reach(rhythm)).max()?;
    let until = Elapsed::days(200).after(BEGIN);
    let from = Elapsed::seconds(reach + reach / 5).before(rhythm.longest.before(until));
    let slots: Vec<_> = schedule.slots(from, until).take(SLOTS_MAX + 1).collect();
    if slots.len() > SLOTS_MAX {
        return None;
    }
    let point =
        |slot| Point { slot, id: "", content: Content::default(), ready: true, held: false };
    let points: Vec<Point<'_>> = slots.iter().copied().map(point).collect();
    let now = slots.last()?.instant();
    let fates = retain(&points, retention, &schedule.zone, now);
    u64::try_from(fates.iter().filter(|fate| fate.is_kept()).count()).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;

    use super::super::rhythm::Rhythms;
    use super::*;
    use crate::retention::Fate;
    use crate::schedule::{Crontab, Zone};

    const SCHEDULES: [(&str, &str); 4] = [
        ("30 2 * * *", "Europe/Berlin"),
        ("15 */6 * * *", "America/New_York"),
        ("0 0 * * 1-5", "America/Havana"),
        ("0 3 1 * *", "Australia/Lord_Howe"),
    ];

    fn schedule(crontab: &str, zone: &str) -> Schedule {
        Schedule {
            crontabs: vec![Crontab::parse(crontab).unwrap()],
            zone: Zone::find(zone).unwrap(),
            deadline: None,
            jitter: Elapsed::ZERO,
        }
    }

    fn kept(slots: &[Slot], keeper: Keeper, zone: &Zone, now: Timestamp) -> Vec<bool> {
        let point =
            |slot| Point { slot, id: "", content: Content::default(), ready: true, held: false };
        let points: Vec<Point<'_>> = slots.iter().copied().map(point).collect();
        let rules = BTreeMap::from([(keeper.rule, keeper.count)]);
        retain(&points, &Retention { rules, at_least: 1 }, zone, now)
            .iter()
            .map(Fate::is_kept)
            .collect()
    }

    /// What is said to be useless is so by the real retention, at the first and the last instant
    /// between any two of many slots.
    #[test]
    fn what_is_useless_keeps_nothing_of_its_own() {
        let counts = [1, 7, 30];
        let mut agreed = [0; 2];
        for (crontab, zone) in SCHEDULES {
            let schedule = schedule(crontab, zone);
            let rhythm = Rhythms::default().of(&schedule).unwrap();
            let keepers = || {
                Rule::ALL
                    .into_iter()
                    .flat_map(|rule| counts.map(|count| Keeper { rule, count, is_floor: false }))
            };
            let slots: Vec<Slot> =
                schedule.slots(Elapsed::days(400).before(BEGIN), LEAP_YEARS.after(BEGIN)).collect();
            let stride = (slots.len() / 12).max(1);
            for (number, one) in keepers().enumerate() {
                // A part of all pairs, so that the test is quick.
                for other in keepers().skip(number % 5).step_by(5) {
                    if other.rule == one.rule || !covers(one, other, &schedule, &rhythm) {
                        continue;
                    }
                    for newest in (0..slots.len() - 1).rev().step_by(stride).take(8) {
                        let past = &slots[newest.saturating_sub(200)..=newest];
                        let last = Elapsed::seconds(1).before(slots[newest + 1].instant());
                        for now in [slots[newest].instant(), last] {
                            let zone = &schedule.zone;
                            let by = kept(past, one, zone, now);
                            let of = kept(past, other, zone, now);
                            let is_covered = of.iter().zip(&by).all(|(of, by)| !of || *by);
                            assert!(is_covered, "{one:?} {other:?} {crontab} {zone:?} {now}");
                        }
                        agreed[0] += 1;
                    }
                    agreed[1] += 1;
                }
            }
        }
        assert!(agreed[0] > 100 && agreed[1] > 20, "{agreed:?}");
    }

    #[test]
    fn what_is_kept_in_the_long_run_is_counted() {
        let count = |crontab: &str, rules: &[(Rule, u32)], at_least| {
            let schedule = schedule(crontab, "UTC");
            let rhythm = Rhythms::default().of(&schedule).unwrap();
            let retention = Retention { rules: rules.iter().copied().collect(), at_least };
            kept_in_the_long_run(&schedule, &retention, &rhythm)
        };
        assert_eq!(count("0 2 * * *", &[(Rule::Days, 7)], 1), Some(8));
        assert_eq!(count("0 2 * * *", &[(Rule::Last, 7)], 12), Some(12));
        assert_eq!(count("0 2 * * 0", &[(Rule::Hourly, 24)], 1), Some(24));
        assert_eq!(count("0 2 * * *", &[(Rule::Daily, 7), (Rule::Yearly, 3)], 1), Some(9));
        assert_eq!(count("* * * * *", &[(Rule::Days, 90)], 1), None);
        assert_eq!(count("0 2 * * *", &[], 1), None);
    }
}
