//! Which deletes wait because the policies have changed.
//!
//! A delete goes ahead when all policies that were in force lately want it and their guards let it
//! pass: then no change of them has caused it. Of what was in force before a start nothing is known,
//! so after a start all wait.
//!
//! Each instant here is how long the process was awake by then, not what a clock shows: that can be
//! set, and while the machine sleeps nobody takes a change back.

use std::collections::{BTreeMap, BTreeSet};

use crate::elapsed::Elapsed;
use crate::plan::{Action, Change, Plan};

/// So many former policies are asked. Where they change more often than that, all deletes wait.
pub const FORMER_MAX: usize = 4;

/// A wait: for what has become so, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wait {
    since: Elapsed,
    until: Elapsed,
}

impl Wait {
    fn new(since: Elapsed, delay: Elapsed) -> Self {
        Self { since, until: since.plus(delay) }
    }

    fn is_over(&self, now: Elapsed) -> bool {
        self.until <= now
    }

    /// A longer delay counts at once, a shorter one only for what comes later.
    fn lasts(&mut self, delay: Elapsed) {
        self.until = self.until.max(self.since.plus(delay));
    }

    /// The one that ends later.
    fn later(self, other: Self) -> Self {
        if other.until > self.until { other } else { self }
    }
}

/// What was in force lately, each with how long it is asked after it was superseded.
#[derive(Debug, Clone)]
pub struct Lately<T> {
    former: Vec<(Wait, T)>,
    /// What was in force before is not known.
    unknown: Wait,
    /// Engines that are others than before under the same name: what was in force says nothing of them.
    other: BTreeMap<String, Wait>,
    delay: Elapsed,
    /// A longer delay that was in force lately, and until when it counts: what shortens the delay is
    /// a change like any other.
    longer: Option<(Elapsed, Elapsed)>,
}

/// Which deletes wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waits<T> {
    /// None.
    None,
    /// Those that one of these would not do, until the given instant at the latest.
    Unless(Vec<T>, Elapsed),
    /// All, until the given instant, because the engine is another one than before.
    Other(Elapsed),
    /// All, until the given instant.
    All(Elapsed),
}

impl<T: Clone> Lately<T> {
    /// Nothing is known of what was in force before.
    pub fn new(delay: Elapsed, now: Elapsed) -> Self {
        let unknown = Wait::new(now, delay);
        Self { former: Vec::new(), unknown, other: BTreeMap::new(), delay, longer: None }
    }

    /// The delay that counts for a change that comes now.
    fn delay_at(&self, now: Elapsed) -> Elapsed {
        let longer = self.longer.filter(|(_, until)| now < *until);
        longer.map_or(self.delay, |(longer, _)| longer.max(self.delay))
    }

    /// The delay is this one from now on. What waits already waits no shorter for it.
    pub fn delays(&mut self, delay: Elapsed, now: Elapsed) {
        if delay < self.delay {
            let until = now.plus(self.delay);
            let until = self.longer.map_or(until, |(_, known)| known.max(until));
            self.longer = Some((self.delay_at(now), until));
        }
        self.delay = delay;
        self.unknown.lasts(delay);
        self.former.iter_mut().for_each(|(wait, _)| wait.lasts(delay));
        self.other.values_mut().for_each(|wait| wait.lasts(delay));
    }

    /// What was in force until now no longer is.
    pub fn superseded(&mut self, former: T, now: Elapsed) {
        self.former.retain(|(wait, _)| !wait.is_over(now));
        if self.former.len() >= FORMER_MAX {
            let (oldest, _) = self.former.remove(0);
            self.unknown = self.unknown.later(oldest);
        }
        self.former.push((Wait::new(now, self.delay_at(now)), former));
    }

    /// An engine is another one from now on, or there for the first time.
    pub fn other(&mut self, engine: &str, now: Elapsed) {
        self.other.retain(|_, wait| !wait.is_over(now));
        self.other.insert(engine.to_owned(), Wait::new(now, self.delay_at(now)));
    }

    /// Which deletes on an engine wait now.
    pub fn waits(&self, engine: &str, now: Elapsed) -> Waits<T> {
        if !self.unknown.is_over(now) {
            return Waits::All(self.unknown.until);
        }
        if let Some(wait) = self.other.get(engine).filter(|wait| !wait.is_over(now)) {
            return Waits::Other(wait.until);
        }
        let counted = self.former.iter().filter(|(wait, _)| !wait.is_over(now));
        let (untils, former): (Vec<Elapsed>, Vec<T>) =
            counted.map(|(wait, former)| (wait.until, former.clone())).unzip();
        match untils.into_iter().max() {
            Some(last) => Waits::Unless(former, last),
            None => Waits::None,
        }
    }

    /// When the first of the waits on an engine is over, after which it may delete more.
    pub fn ends_at(&self, engine: &str, now: Elapsed) -> Option<Elapsed> {
        match self.waits(engine, now) {
            Waits::None => None,
            Waits::All(until) | Waits::Other(until) => Some(until),
            Waits::Unless(..) => {
                let untils = self.former.iter().map(|(wait, _)| wait.until);
                untils.filter(|until| *until > now).min()
            }
        }
    }
}

/// The deletes of a plan that not all of these have, made over the same inventory for the same
/// instant by policies that were in force before, without what their guards would have kept.
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

    fn at(minute: u32) -> Elapsed {
        Elapsed::minutes(minute)
    }

    const DELAY: Elapsed = Elapsed::minutes(10);

    #[test]
    fn after_a_start_everything_waits_and_after_a_change_what_it_causes() {
        let mut lately = Lately::new(DELAY, at(0));
        assert_eq!(lately.waits("one", at(9)), Waits::All(at(10)));
        assert_eq!(lately.waits("one", at(10)), Waits::None);
        lately.superseded("first", at(20));
        lately.superseded("second", at(25));
        let both = vec!["first", "second"];
        assert_eq!(lately.waits("one", at(29)), Waits::Unless(both, at(35)));
        assert_eq!(lately.waits("one", at(30)), Waits::Unless(vec!["second"], at(35)));
        assert_eq!(lately.waits("one", at(35)), Waits::None);
        let ends = [9, 29, 30, 35].map(|minute| lately.ends_at("one", at(minute)));
        assert_eq!(ends, [Some(at(10)), Some(at(30)), Some(at(35)), None]);
        let mut lately = Lately::new(Elapsed::ZERO, at(0));
        assert_eq!(lately.waits("one", at(0)), Waits::None);
        lately.superseded("first", at(20));
        assert_eq!(lately.waits("one", at(20)), Waits::None);
    }

    #[test]
    fn where_policies_change_all_the_time_everything_waits() {
        let mut lately = Lately::new(DELAY, at(0));
        for minute in 20..25 {
            lately.superseded(minute, at(minute));
        }
        assert_eq!(lately.waits("one", at(25)), Waits::All(at(30)));
        assert_eq!(lately.waits("one", at(30)), Waits::Unless(vec![21, 22, 23, 24], at(34)));
    }

    #[test]
    fn a_shorter_delay_counts_for_what_comes_when_the_longer_one_is_over() {
        let mut lately = Lately::new(DELAY, at(0));
        // With the change that it comes with.
        lately.delays(Elapsed::ZERO, at(20));
        lately.superseded("first", at(20));
        assert_eq!(lately.waits("one", at(29)), Waits::Unless(vec!["first"], at(30)));
        // By itself, with what waits already, and right before the next change.
        let mut lately = Lately::new(DELAY, at(0));
        lately.superseded("first", at(20));
        lately.delays(Elapsed::minutes(1), at(22));
        assert_eq!(lately.waits("one", at(29)), Waits::Unless(vec!["first"], at(30)));
        lately.superseded("second", at(31));
        assert_eq!(lately.waits("one", at(40)), Waits::Unless(vec!["second"], at(41)));
        lately.superseded("third", at(50));
        assert_eq!(lately.waits("one", at(51)), Waits::None);
        // Also right after a start.
        let mut lately = Lately::<u8>::new(DELAY, at(0));
        lately.delays(Elapsed::ZERO, at(1));
        assert_eq!(lately.waits("one", at(9)), Waits::All(at(10)));
    }

    #[test]
    fn a_longer_delay_counts_at_once() {
        let mut lately = Lately::new(DELAY, at(0));
        lately.superseded("first", at(20));
        lately.other("two", at(20));
        lately.delays(Elapsed::minutes(30), at(25));
        assert_eq!(lately.waits("one", at(49)), Waits::Unless(vec!["first"], at(50)));
        assert_eq!(lately.waits("two", at(49)), Waits::Other(at(50)));
        // Shortened twice: the longest of them counts.
        lately.delays(DELAY, at(51));
        lately.delays(Elapsed::ZERO, at(52));
        lately.superseded("second", at(53));
        assert_eq!(lately.waits("one", at(82)), Waits::Unless(vec!["second"], at(83)));
    }

    #[test]
    fn of_an_engine_that_is_another_one_everything_waits() {
        let mut lately = Lately::<u8>::new(DELAY, at(0));
        lately.other("one", at(20));
        assert_eq!(lately.waits("one", at(29)), Waits::Other(at(30)));
        assert_eq!(lately.waits("two", at(29)), Waits::None);
        assert_eq!(lately.waits("one", at(30)), Waits::None);
    }
}
