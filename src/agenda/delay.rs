//! Which deletes wait because the policies have changed.
//!
//! A delete goes ahead when all policies that were in force lately want it: then no change of them
//! has caused it. Of what was in force before a start nothing is known, so after a start all wait.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::elapsed::Elapsed;
use crate::plan::{Action, Change, Plan};

/// So many former policies are asked. Where they change more often than that, all deletes wait.
pub const FORMER_MAX: usize = 4;

/// What was in force lately, each with the instant at which it was superseded.
#[derive(Debug, Clone)]
pub struct Lately<T> {
    former: Vec<(Timestamp, T)>,
    /// What was in force before is not known.
    unknown_before: Timestamp,
}

/// Which deletes wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waits<T> {
    /// None.
    None,
    /// Those that one of these would not do, until the given instant at the latest.
    Unless(Vec<T>, Timestamp),
    /// All, until the given instant.
    All(Timestamp),
}

impl<T: Clone> Lately<T> {
    /// Nothing is known of what was in force before.
    pub fn new(now: Timestamp) -> Self {
        Self { former: Vec::new(), unknown_before: now }
    }

    /// What was in force until now no longer is.
    pub fn superseded(&mut self, former: T, delay: Elapsed, now: Timestamp) {
        self.former.retain(|(until, _)| now < delay.after(*until));
        if self.former.len() >= FORMER_MAX {
            let (until, _) = self.former.remove(0);
            self.unknown_before = self.unknown_before.max(until);
        }
        self.former.push((now, former));
    }

    /// Which deletes wait now.
    pub fn waits(&self, delay: Elapsed, now: Timestamp) -> Waits<T> {
        if delay == Elapsed::ZERO {
            return Waits::None;
        }
        let known_at = delay.after(self.unknown_before);
        if now < known_at {
            return Waits::All(known_at);
        }
        let counted = self.former.iter().filter(|(until, _)| now < delay.after(*until));
        let (untils, former): (Vec<Timestamp>, Vec<T>) = counted.cloned().unzip();
        match untils.into_iter().max() {
            Some(last) => Waits::Unless(former, delay.after(last)),
            None => Waits::None,
        }
    }
}

/// The deletes of a plan that not all of these have, made over the same inventory for the same
/// instant by policies that were in force before.
pub fn premature<'p>(plan: &'p Plan, former: &[Plan]) -> Vec<&'p Change> {
    let deletes = |plan: &'p Plan| plan.changes.iter().filter(|one| one.action == Action::Delete);
    let wanted: Vec<BTreeSet<(&str, Option<&String>)>> = former
        .iter()
        .map(|plan| {
            let deletes = plan.changes.iter().filter(|one| one.action == Action::Delete);
            deletes.map(|one| (one.engine.as_str(), one.image.id.as_ref())).collect()
        })
        .collect();
    deletes(plan)
        .filter(|one| {
            let is_it = (one.engine.as_str(), one.image.id.as_ref());
            !wanted.iter().all(|wanted| wanted.contains(&is_it))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + minute * 60).unwrap()
    }

    const DELAY: Elapsed = Elapsed::minutes(10);

    #[test]
    fn after_a_start_everything_waits_and_after_a_change_what_it_causes() {
        let mut lately = Lately::new(at(0));
        assert_eq!(lately.waits(DELAY, at(9)), Waits::All(at(10)));
        assert_eq!(lately.waits(Elapsed::ZERO, at(0)), Waits::None);
        assert_eq!(lately.waits(DELAY, at(10)), Waits::None);
        lately.superseded("first", DELAY, at(20));
        lately.superseded("second", DELAY, at(25));
        assert_eq!(lately.waits(DELAY, at(29)), Waits::Unless(vec!["first", "second"], at(35)));
        assert_eq!(lately.waits(DELAY, at(30)), Waits::Unless(vec!["second"], at(35)));
        assert_eq!(lately.waits(DELAY, at(35)), Waits::None);
    }

    #[test]
    fn where_policies_change_all_the_time_everything_waits() {
        let mut lately = Lately::new(at(0));
        for minute in 20..25 {
            lately.superseded(minute, DELAY, at(minute));
        }
        assert_eq!(lately.waits(DELAY, at(25)), Waits::All(at(30)));
        assert_eq!(lately.waits(DELAY, at(30)), Waits::Unless(vec![21, 22, 23, 24], at(34)));
    }

    #[test]
    fn a_clock_that_goes_back_makes_nothing_go_sooner() {
        let mut lately = Lately::new(at(0));
        lately.superseded("first", DELAY, at(20));
        assert_eq!(lately.waits(DELAY, at(12)), Waits::Unless(vec!["first"], at(30)));
        assert_eq!(lately.waits(DELAY, at(-60)), Waits::All(at(10)));
    }
}
