//! Agenda: what the long-running mode does next, and until when it may sleep.
//!
//! In go policies, what engines were seen to hold, the time and what came of earlier rounds; out
//! come the engines that a round begins for and the instant of the next look. Nothing is lost where
//! it is forgotten: an agenda that is new asks for a round of every engine. Pure, like all of this
//! level: the shell (`watch`) sleeps, listens and carries out.

mod backoff;
mod delay;
mod due;
mod told;

use std::collections::BTreeMap;

use jiff::Timestamp;

pub use backoff::{BROKEN_MAX, Backoff, Circuit, FIRST_RETRY, Health, LAST_RETRY};
pub use delay::{FORMER_MAX, Lately, Waits, premature};
pub use due::{NextDue, next_due};
pub use told::Told;

use crate::elapsed::Elapsed;

/// Starts that come so shortly one after the other share a round: an engine is looked at as a
/// whole, however little is due. No deadline is missed for it.
pub const SPACING: Elapsed = Elapsed::seconds(30);

/// What ends beside rounds begins one after this time at the latest: that what waited for it follows.
pub const FOLLOWING: Elapsed = Elapsed::minutes(5);

/// What an ended round leaves for the agenda.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// How it went.
    pub health: Health,
    /// When its policies want something next.
    pub due: Option<NextDue>,
    /// Whether something of it goes on: how that ends is not known.
    pub goes_on: bool,
    /// Whether what is not well will not be well sooner for being tried again.
    pub is_lasting: bool,
}

impl Ended {
    /// Nothing of it worked.
    pub fn broken() -> Self {
        Self { health: Health::Broken, due: None, goes_on: false, is_lasting: false }
    }
}

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// The engines that a round begins for.
    pub begin: Vec<String>,
    /// When to look again, if nothing happens before.
    pub wake_at: Option<Timestamp>,
}

/// Which engines there are and where they stand.
#[derive(Debug, Clone)]
pub struct Agenda {
    reconcile_every: Elapsed,
    engines: BTreeMap<String, Engine>,
    /// Whose it is.
    who: String,
}

/// Where an engine stands.
#[derive(Debug, Clone, Default)]
struct Engine {
    is_running: bool,
    /// Something has happened since its last round began that it must look at.
    is_asked: bool,
    /// When its last round began.
    began: Option<Timestamp>,
    /// When its last round ended.
    ended: Option<Timestamp>,
    due: Option<NextDue>,
    /// When what has ended beside rounds is followed.
    follows: Option<Timestamp>,
    backoff: Backoff,
}

impl Agenda {
    /// The agenda of engines of which nothing is known yet.
    pub fn new(engines: impl IntoIterator<Item = String>, reconcile_every: Elapsed) -> Self {
        let mut agenda = Self { reconcile_every, engines: BTreeMap::new(), who: String::new() };
        agenda.reload(engines, reconcile_every);
        agenda
    }

    /// The agenda of one process among others: what fails for all of them, as a service that they share
    /// does, is not tried again by all at once.
    #[must_use]
    pub fn of(self, who: impl Into<String>) -> Self {
        Self { who: who.into(), ..self }
    }

    /// Takes in what a reload has changed: each engine is asked for a round. What is under way stays
    /// known until it has ended.
    pub fn reload(&mut self, engines: impl IntoIterator<Item = String>, reconcile_every: Elapsed) {
        self.reconcile_every = reconcile_every;
        let mut before = std::mem::take(&mut self.engines);
        for name in engines {
            let mut engine = before.remove(&name).unwrap_or_default();
            engine.is_asked = true;
            self.engines.insert(name, engine);
        }
    }

    /// Something has happened that all engines must look at.
    pub fn ask_all(&mut self) {
        self.engines.values_mut().for_each(|engine| engine.is_asked = true);
    }

    /// Something has happened that an engine must look at.
    pub fn ask(&mut self, engine: &str) {
        if let Some(engine) = self.engines.get_mut(engine) {
            engine.is_asked = true;
        }
    }

    /// What is to be done now.
    pub fn decide(&self, now: Timestamp) -> Decision {
        let mut decision = Decision::default();
        for (name, engine) in self.engines.iter().filter(|(_, engine)| !engine.is_running) {
            let at = engine.begins_at(self.reconcile_every, now);
            if at <= now {
                decision.begin.push(name.clone());
            } else {
                let earliest = decision.wake_at.map_or(at, |known| known.min(at));
                decision.wake_at = Some(earliest);
            }
        }
        decision
    }

    /// A round begins.
    pub fn began(&mut self, engine: &str, now: Timestamp) {
        if let Some(engine) = self.engines.get_mut(engine) {
            engine.is_running = true;
            engine.is_asked = false;
            engine.follows = None;
            engine.began = Some(now);
        }
    }

    /// A round of an engine is still under way that was known before a reload.
    pub fn still_runs(&mut self, engine: &str) {
        if let Some(engine) = self.engines.get_mut(engine) {
            engine.is_running = true;
        }
    }

    /// A round has ended.
    pub fn ended(&mut self, name: &str, ended: &Ended, now: Timestamp) {
        if let Some(engine) = self.engines.get_mut(name) {
            engine.is_running = false;
            engine.due = ended.due;
            engine.ended = Some(now);
            let health = if ended.is_lasting { Health::Well } else { ended.health };
            if ended.goes_on && health == Health::Well {
                engine.backoff.goes_on();
            } else {
                engine.backoff.ended(&self.who, name, health, now);
            }
        }
    }

    /// A round was broken off before it had seen anything: another one begins.
    pub fn broken_off(&mut self, name: &str) {
        if let Some(engine) = self.engines.get_mut(name) {
            engine.is_running = false;
            engine.is_asked = true;
        }
    }

    /// Something has ended beside the rounds of an engine, well or not, and so much still goes on.
    pub fn ended_late(&mut self, name: &str, is_well: bool, still: usize, now: Timestamp) {
        let Some(engine) = self.engines.get_mut(name) else { return };
        if is_well {
            let at = if still == 0 { now } else { FOLLOWING.after(now) };
            engine.follows = Some(engine.follows.map_or(at, |known| known.min(at)));
        } else {
            // It is tried again like what fails in a round.
            engine.backoff.ended(&self.who, name, Health::Partly, now);
        }
    }

    /// The circuit of an engine.
    pub fn circuit(&self, engine: &str) -> Circuit {
        self.engines.get(engine).map_or(Circuit::Closed, |engine| engine.backoff.circuit())
    }

    /// When an engine is tried again after a failure.
    pub fn retry_at(&self, engine: &str) -> Option<Timestamp> {
        self.engines.get(engine)?.backoff.retry_at()
    }
}

impl Engine {
    /// The instant from which on a round may begin.
    fn begins_at(&self, reconcile_every: Elapsed, now: Timestamp) -> Timestamp {
        let Some(began) = self.began.filter(|_| !self.is_asked) else { return now };
        // The clock went back: what was worked out by it says nothing any more.
        if now < began || self.ended.is_some_and(|ended| now < ended) {
            return now;
        }
        let retry = self.backoff.retry_at();
        if self.backoff.circuit() == Circuit::Open {
            return retry.unwrap_or(now);
        }
        let due = self.due.map(|due| due.begins_at(self.began));
        [due, retry, self.follows]
            .into_iter()
            .flatten()
            .fold(self.reconciles_at(reconcile_every), Timestamp::min)
    }

    fn reconciles_at(&self, every: Elapsed) -> Timestamp {
        self.began.map_or(Timestamp::MIN, |began| every.after(began))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn due(second: i64) -> NextDue {
        NextDue { at: at(second), latest: at(second + 3_600) }
    }

    fn well(due: Option<NextDue>) -> Ended {
        Ended { health: Health::Well, due, ..Ended::broken() }
    }

    fn agenda() -> Agenda {
        Agenda::new(["a", "b"].map(str::to_owned), Elapsed::hours(1))
    }

    #[test]
    fn a_new_agenda_asks_for_everything_and_then_sleeps_until_something_is_due() {
        let mut agenda = agenda();
        assert_eq!(agenda.decide(at(0)).begin, ["a", "b"]);
        for engine in ["a", "b"] {
            agenda.began(engine, at(0));
        }
        assert_eq!(agenda.decide(at(1)), Decision::default());
        agenda.ended("a", &well(Some(due(600))), at(5));
        agenda.ended("b", &well(None), at(5));
        let decision = agenda.decide(at(6));
        assert_eq!((decision.begin.len(), decision.wake_at), (0, Some(at(600))));
        assert_eq!(agenda.decide(at(600)).begin, ["a"]);
        assert_eq!(agenda.decide(at(3_600)).begin, ["a", "b"]);
    }

    #[test]
    fn a_wake_while_a_round_is_under_way_leads_to_another_one() {
        let mut agenda = agenda();
        agenda.began("a", at(0));
        agenda.ask_all();
        agenda.ask_all();
        assert_eq!(agenda.decide(at(1)).begin, ["b"]);
        agenda.ended("a", &well(None), at(2));
        assert_eq!(agenda.decide(at(2)).begin, ["a", "b"]);
        agenda.began("a", at(2));
        agenda.ended("a", &well(None), at(3));
        assert_eq!(agenda.decide(at(3)).begin, ["b"], "many wakes are one");
    }

    #[test]
    fn a_round_that_was_broken_off_begins_anew_and_says_nothing_of_the_engine() {
        let mut agenda = agenda();
        for _ in 0..=BROKEN_MAX {
            assert_eq!(agenda.decide(at(0)).begin[0], "a");
            agenda.began("a", at(0));
            agenda.broken_off("a");
        }
        assert_eq!((agenda.circuit("a"), agenda.retry_at("a")), (Circuit::Closed, None));
    }

    #[test]
    fn what_lasts_is_looked_at_again_with_everything_else_and_no_sooner() {
        let mut agenda = agenda();
        let partly = Ended { health: Health::Partly, ..well(None) };
        for (is_lasting, wake) in [(true, 3_600), (false, 60)] {
            agenda.began("a", at(0));
            agenda.began("b", at(0));
            agenda.ended("b", &well(None), at(0));
            agenda.ended("a", &Ended { is_lasting, ..partly }, at(0));
            let wakes = agenda.decide(at(0)).wake_at.unwrap();
            assert!(wakes <= at(wake) && wakes >= at(wake / 2), "{wakes}");
            assert_eq!(wakes == at(3_600), is_lasting);
        }
    }

    #[test]
    fn a_clock_that_went_back_asks_for_a_round() {
        let mut agenda = agenda();
        agenda.began("a", at(0));
        agenda.ended("a", &well(Some(due(600))), at(1));
        assert!(agenda.decide(at(-5_000)).begin.contains(&"a".to_owned()));
    }

    #[test]
    fn an_open_circuit_waits_for_its_retry_and_not_for_slots() {
        let mut agenda = agenda();
        let mut now = 0;
        for _ in 0..BROKEN_MAX {
            assert!(agenda.decide(at(now)).begin.contains(&"a".to_owned()));
            agenda.began("a", at(now));
            agenda.ended("a", &Ended { due: Some(due(now + 2)), ..Ended::broken() }, at(now + 1));
            now = agenda.retry_at("a").unwrap().as_second() - at(0).as_second();
        }
        assert_eq!(agenda.circuit("a"), Circuit::Open);
        assert!(!agenda.decide(at(now - 1)).begin.contains(&"a".to_owned()));
        assert_eq!(agenda.circuit("b"), Circuit::Closed, "no other engine is concerned");
        agenda.ask("a");
        assert!(agenda.decide(at(now - 1)).begin.contains(&"a".to_owned()), "who asks is heard");
        agenda.began("a", at(now - 1));
        agenda.ended("a", &well(None), at(now));
        assert_eq!((agenda.circuit("a"), agenda.retry_at("a")), (Circuit::Closed, None));
    }

    #[test]
    fn what_ends_beside_rounds_is_followed_soon_and_a_failure_is_tried_again_later_each_time() {
        let mut agenda = agenda();
        let round = |agenda: &mut Agenda, now| {
            agenda.began("a", at(now));
            agenda.began("b", at(now));
            agenda.ended("b", &well(None), at(now));
            let goes_on = Ended { goes_on: true, ..well(None) };
            agenda.ended("a", &goes_on, at(now));
        };
        round(&mut agenda, 0);
        agenda.ended_late("a", true, 3, at(10));
        agenda.ended_late("a", true, 2, at(100));
        assert_eq!(agenda.decide(at(100)).wake_at, Some(at(310)), "many share a round");
        agenda.ended_late("a", true, 0, at(200));
        assert_eq!(agenda.decide(at(200)).begin, ["a"], "the last one is followed at once");
        let (mut now, mut waits) = (200, Vec::new());
        for _ in 0..6 {
            round(&mut agenda, now);
            assert!(agenda.decide(at(now)).begin.is_empty());
            agenda.ended_late("a", false, 0, at(now + 1));
            let retry = agenda.retry_at("a").unwrap().duration_since(at(now + 1)).as_secs();
            waits.push(retry);
            now += 1 + retry;
            assert_eq!(agenda.decide(at(now)).begin[0], "a");
        }
        assert!(waits[0] <= 60 && waits[5] >= 450, "{waits:?}");
    }

    #[test]
    fn starts_close_together_share_a_round_and_no_deadline_is_missed() {
        let began = Some(at(0));
        let next = |start, latest| NextDue { at: at(start), latest: at(latest) }.begins_at(began);
        assert_eq!(next(5, 3_600), at(30));
        assert_eq!(next(90, 3_600), at(90));
        assert_eq!(next(5, 20), at(20));
        // A deadline before the start cannot be met anyway.
        assert_eq!(next(25, 10), at(25));
    }
}
