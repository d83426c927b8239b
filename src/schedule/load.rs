//! What comes together: schedules that fire in the same minute, and captures that run at once.
//!
//! In go the firings of several schedules, or the starts of captures; out come groups and a peak.
//! How long a capture takes is not known here: the caller assumes a length and says so.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;

use crate::elapsed::Elapsed;

/// Schedules that fire in the same minute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collision {
    /// Which, by their position in what was given.
    pub members: Vec<usize>,
    /// How many times exactly these come together.
    pub times: usize,
    /// The first time.
    pub first: Timestamp,
}

/// Finds all groups of schedules that fire in the same minute, the largest and most frequent first.
pub fn collisions(firings: &[Vec<Timestamp>]) -> Vec<Collision> {
    let mut minutes: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    for (member, instants) in firings.iter().enumerate() {
        for instant in instants {
            let members = minutes.entry(instant.as_second().div_euclid(60)).or_default();
            if members.last() != Some(&member) {
                members.push(member);
            }
        }
    }
    let mut groups: BTreeMap<Vec<usize>, (usize, i64)> = BTreeMap::new();
    for (minute, members) in minutes.into_iter().filter(|(_, members)| members.len() > 1) {
        groups.entry(members).or_insert((0, minute)).0 += 1;
    }
    let mut found: Vec<Collision> = groups
        .into_iter()
        .map(|(members, (times, minute))| Collision {
            members,
            times,
            first: Timestamp::from_second(minute * 60).unwrap_or(Timestamp::MIN),
        })
        .collect();
    found.sort_by_key(|group| {
        (usize::MAX - group.members.len(), usize::MAX - group.times, group.first)
    });
    found
}

/// The starts of captures on one engine, second by second.
#[derive(Debug, Clone)]
pub struct Starts {
    begin: Timestamp,
    counts: Vec<u32>,
}

/// How many captures come together at the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peak {
    /// How many would run at once if none had to wait.
    pub captures: u64,
    /// When that is so for the first time.
    pub instant: Timestamp,
    /// The longest that one waits where only so many may run at once.
    pub wait: Elapsed,
}

impl Starts {
    /// None yet, of a time that begins here and has this length.
    pub fn new(begin: Timestamp, length: Elapsed) -> Self {
        let seconds = usize::try_from(length.as_seconds()).unwrap_or(0);
        Self { begin, counts: vec![0; seconds] }
    }

    /// One more; a start outside of the time is left out.
    pub fn add(&mut self, start: Timestamp) {
        let second = usize::try_from(start.as_second() - self.begin.as_second()).ok();
        if let Some(count) = second.and_then(|second| self.counts.get_mut(second)) {
            *count = count.saturating_add(1);
        }
    }

    /// The peak, where each capture takes `length`, `limit` may run at once and `per_minute` may begin
    /// within a minute; `None` where nothing starts.
    pub fn peak(&self, length: Elapsed, limit: usize, per_minute: Option<u64>) -> Option<Peak> {
        let instant =
            |second: usize| Elapsed::seconds(i64::try_from(second).unwrap_or(0)).after(self.begin);
        let length = usize::try_from(length.as_seconds()).unwrap_or(0).max(1);
        let mut peak: Option<Peak> = None;
        let mut running = 0;
        let mut wait = 0;
        let mut next = 0;
        // When the newest `limit` captures end, the earliest first: they all take the same time,
        // so each begins when the one `limit` places before it has ended.
        let mut ends: VecDeque<usize> = VecDeque::new();
        for (second, count) in self.counts.iter().enumerate() {
            if second >= length {
                running -= u64::from(self.counts[second - length]);
            }
            running += u64::from(*count);
            if *count > 0 && peak.is_none_or(|peak| running > peak.captures) {
                peak =
                    Some(Peak { captures: running, instant: instant(second), wait: Elapsed::ZERO });
            }
            for _ in 0..*count {
                let free = if ends.len() < limit.max(1) { None } else { ends.pop_front() };
                let mut begins = free.unwrap_or(second).max(second);
                if let Some(rate) = per_minute.and_then(|rate| usize::try_from(rate).ok()) {
                    // In parts of a second of which `rate` are one.
                    next = next.max(begins * rate);
                    begins = next.div_ceil(rate.max(1));
                    next += 60;
                }
                wait = wait.max(begins - second);
                ends.push_back(begins + length);
            }
        }
        peak.map(|peak| Peak { wait: Elapsed::seconds(i64::try_from(wait).unwrap_or(0)), ..peak })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(minute * 60).unwrap()
    }

    #[test]
    fn schedules_of_the_same_minute_are_grouped() {
        let found = collisions(&[
            vec![at(0), at(10), at(20), at(30)],
            vec![at(0), at(20), at(30)],
            vec![at(5), at(20)],
            vec![at(6)],
        ]);
        let told: Vec<_> =
            found.iter().map(|group| (group.members.clone(), group.times, group.first)).collect();
        assert_eq!(told, [(vec![0, 1, 2], 1, at(20)), (vec![0, 1], 2, at(0))]);
    }

    #[test]
    fn what_begins_too_soon_waits() {
        let mut starts = Starts::new(at(0), Elapsed::hours(1));
        for _ in 0..7 {
            starts.add(at(5));
        }
        let wait = |limit, rate| {
            starts.peak(Elapsed::seconds(1), limit, Some(rate)).unwrap().wait.as_seconds()
        };
        assert_eq!((wait(9, 1), wait(9, 2), wait(9, 60), wait(9, 120)), (360, 180, 6, 3));
        // What takes long is waited for all the same.
        assert_eq!(wait(1, 6_000), 6);
    }

    #[test]
    fn the_peak_is_what_would_run_at_once() {
        let mut starts = Starts::new(at(0), Elapsed::hours(2));
        for minute in [0, 5, 9, 10, 60, 60, 119, 500] {
            starts.add(at(minute));
        }
        let peak = |length, limit| starts.peak(Elapsed::minutes(length), limit, None).unwrap();
        // 0, 5 and 9 run together; at 10 the first has ended.
        assert_eq!((peak(10, 4).captures, peak(10, 4).instant), (3, at(9)));
        assert_eq!(peak(10, 4).wait, Elapsed::ZERO);
        // One after the other: 0, 10, 20, 30; the last waits from 10 on.
        assert_eq!(peak(10, 1).wait, Elapsed::minutes(20));
        // 0 and 5; 9 waits for 10, 10 for 15.
        assert_eq!(peak(10, 2).wait, Elapsed::minutes(5));
        assert!(Starts::new(at(0), Elapsed::hours(1)).peak(Elapsed::minutes(1), 1, None).is_none());
    }
}
