//! A seeded simulator: months of rounds in virtual time, with faults, sources that come and go,
//! policies that change, and two runners. Whatever happens, the laws hold after every round.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use stillframe::apply::{Ending, Stop};
use stillframe::clock::Clock;
use stillframe::engine::{Engine, Fault, Faulty};
use stillframe::inventory::{Image, ImageState};
use stillframe::name::{Key, Ownership};
use stillframe::plan::guard::{Guard, Override};
use stillframe::policy::Policies;
use stillframe::reconcile::Round;

use super::engines::{Quiet, Yes, policies, room};
use super::memory::{MemoryEngine, instance};
use super::support::Random;

/// A clock that the simulator sets.
pub struct SetClock(pub Mutex<Timestamp>);

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

const FAULTS: [Fault; 10] = [
    Fault::CreateFails,
    Fault::CreateReplyLost,
    Fault::CopyFails,
    Fault::CopyReplyLost,
    Fault::DrillFails,
    Fault::UpdateFails,
    Fault::DeleteFails,
    Fault::ImageHidden,
    Fault::ImagesCutOff,
    Fault::InstancesCutOff,
];

/// Policies that are put in force one after the other.
const SPECS: [&str; 7] = [
    "  retention: {daily: 5, weekly: 3}\n  lifecycle: {grace: 1d}\n",
    "  retention: {last: 3}\n  lifecycle: {grace: 0}\n",
    "  retention: {days: 10, monthly: 2, atLeast: 2}\n  lifecycle: {grace: 2d, deprecateAfter: 4d}\n",
    "  retention: {daily: 5}\n  paused: {deletes: true}\n",
    "  retention: {daily: 4, weekly: 2}\n  lifecycle: {grace: 1d}\n  storage: {copies: [vault]}\n",
    "  retention: {last: 3}\n  lifecycle: {grace: 0}\n  storage: {copies: [vault]}\n  drill: {cron: \"0 6 * * sun\"}\n",
    "",
];

fn key(image: &Image) -> Option<Key> {
    match image.ownership() {
        Ownership::Ours(key) => Some(key),
        _ => None,
    }
}

struct Simulation {
    random: Random,
    clock: Arc<SetClock>,
    engine: Arc<MemoryEngine>,
    directory: tempfile::TempDir,
    policies: Policies,
}

impl Simulation {
    fn new() -> Self {
        let clock = Arc::new(SetClock(Mutex::new("2026-01-01T00:00:00Z".parse().unwrap())));
        let engine = MemoryEngine::new(clock.clone());
        for number in 1..5 {
            engine.add(instance(&format!("web-{number}"), &[]));
        }
        Self {
            random: Random::new(),
            clock,
            engine,
            directory: tempfile::tempdir().unwrap(),
            policies: policies(SPECS[0]),
        }
    }

    fn pass(&self, hours: i64) {
        *self.clock.0.lock().unwrap() += SignedDuration::from_hours(hours);
    }

    /// Sources come and go, policies change.
    fn disturb(&mut self) {
        if self.random.below(10) == 0 {
            let name = format!("web-{}", 1 + self.random.below(4));
            let mut world = self.engine.world.lock().unwrap();
            if world.instances.remove(&name).is_none() {
                world.instances.insert(name.clone(), instance(&name, &[]));
            }
        }
        if self.random.below(8) == 0 {
            let which = self.random.below(SPECS.len() as u64) as usize;
            self.policies = policies(SPECS[which]);
        }
    }

    fn faulty(&mut self, count: u64) -> Arc<Faulty> {
        let script =
            (0..count).map(|_| FAULTS[self.random.below(FAULTS.len() as u64) as usize]).collect();
        Arc::new(Faulty::new(self.engine.clone(), script))
    }

    /// A round by one runner or by two at once.
    async fn round(&mut self) {
        let faults = self.random.below(4);
        let engines: Vec<Arc<dyn Engine>> =
            (0..=self.random.below(2)).map(|_| self.faulty(faults) as _).collect();
        let rooms: Vec<_> = engines
            .into_iter()
            .map(|engine| room(engine, self.clock.clone(), self.policies.clone(), &self.directory))
            .collect();
        let listener = Arc::new(Quiet);
        let stop = Stop::default();
        let runs = rooms.iter().map(|room| room.round(&Yes, listener.clone(), &stop));
        let mut runs: Vec<_> = runs.map(Box::pin).collect();
        // Both begin to look before either begins to act.
        let rounds = match runs.as_mut_slice() {
            [one] => vec![one.await],
            [one, other] => {
                let (one, other) = tokio::join!(one, other);
                vec![one, other]
            }
            _ => unreachable!(),
        };
        for round in rounds {
            self.assert_unrefused(&round);
            for outcome in &round.outcomes {
                let message = outcome.ending.message().unwrap_or_default();
                let is_known = !matches!(outcome.ending, Ending::Failed { .. })
                    || message.contains("asked for")
                    || message.contains("has changed")
                    || message.contains("no such");
                assert!(is_known, "{outcome:?}; {}", self.random);
            }
        }
    }

    /// A round by a person who looks at what the guards refuse and says that it is meant.
    async fn round_with_overrides(&self) -> Round {
        let mut room =
            room(self.engine.clone(), self.clock.clone(), self.policies.clone(), &self.directory);
        let plan = room.plan(&room.observe().await, self.clock.now());
        room.overrides = plan
            .refusals
            .iter()
            .filter_map(|refusal| refusal.override_flag.as_deref())
            .map(|flag| Override::parse(flag.strip_prefix("--override ").unwrap()).unwrap())
            .collect();
        let round = room.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
        self.assert_unrefused(&round);
        round
    }

    /// The check finds nothing in what the planner makes.
    fn assert_unrefused(&self, round: &Round) {
        let found: Vec<_> =
            round.plan.refusals.iter().filter(|one| one.guard == Guard::Check).collect();
        assert!(found.is_empty(), "{found:#?}; {}", self.random);
    }

    /// What must hold after every round. `before` is what was there when it began.
    fn check(&self, before: &BTreeMap<String, Image>) {
        let world = self.engine.world.lock().unwrap();
        let mut slots = BTreeSet::new();
        for image in world.images.values() {
            let key = key(image).expect("all images are ours");
            let place = image.is_copy().then_some(&image.location);
            assert!(slots.insert((place, key.clone())), "two images of {key:?}; {}", self.random);
        }
        for image in before.values().filter(|image| !world.images.contains_key(&image.id)) {
            let gone = key(image).unwrap();
            let policy = &self.policies.policies[0];
            let since = image
                .let_go_at()
                .unwrap_or_else(|| panic!("{gone:?} was not deprecated; {}", self.random));
            assert!(
                policy.lifecycle.grace.after(since) <= self.clock.now(),
                "{gone:?}; {}",
                self.random
            );
            let newer = world
                .images
                .values()
                .filter(|other| other.state == ImageState::Ready)
                .filter(|other| {
                    other.is_copy() == image.is_copy()
                        && (!image.is_copy() || other.location == image.location)
                })
                .filter_map(key)
                .filter(|other| other.source == gone.source && other.slot > gone.slot)
                .count();
            assert!(
                newer >= policy.retention.at_least as usize,
                "{gone:?} was needed; {}",
                self.random
            );
            assert!(policy.pauses_at(self.clock.now()).iter().all(|pause| !pause.deletes));
            let is_copied = |location: &String| {
                let there = world.images.values().filter(|copy| copy.is_copy());
                there
                    .filter(|copy| copy.location == *location && copy.state == ImageState::Ready)
                    .filter_map(key)
                    .any(|copy| copy.source == gone.source && copy.slot >= gone.slot)
            };
            assert!(
                image.is_copy() || policy.copies.iter().all(is_copied),
                "{gone:?} went without a copy; {}",
                self.random
            );
        }
    }
}

#[tokio::test]
async fn months_with_faults_lose_and_double_nothing() {
    let mut deleted = 0;
    for _ in 0..4 {
        let mut simulation = Simulation::new();
        for _ in 0..180 {
            let hours = 4 + simulation.random.below(30) as i64;
            simulation.pass(hours);
            simulation.disturb();
            let before = simulation.engine.world.lock().unwrap().images.clone();
            if simulation.random.below(8) == 0 {
                simulation.round_with_overrides().await;
            } else {
                simulation.round().await;
            }
            simulation.check(&before);
        }
        deleted += simulation.engine.world.lock().unwrap().deleted.len();
        // When the faults end, three rounds bring everything to rest.
        for rest in 0..4 {
            let round = simulation.round_with_overrides().await;
            assert!(
                rest < 3 || round.outcomes.is_empty(),
                "{:#?}; {}",
                round.plan.changes,
                simulation.random
            );
        }
    }
    assert!(deleted > 40, "only {deleted} images were ever deleted");
}

#[tokio::test]
async fn a_source_that_is_gone_is_retired_after_its_grace() {
    let mut simulation = Simulation::new();
    simulation.policies =
        policies("  retention: {last: 4}\n  lifecycle: {grace: 1d, sourceGoneGrace: 14d}\n");
    let engine = simulation.engine.clone();
    let count = || {
        let world = engine.world.lock().unwrap();
        world.images.values().filter_map(key).filter(|key| key.source.as_str() == "web-1").count()
    };
    for day in 0..60 {
        simulation.pass(24);
        if day == 10 {
            simulation.engine.world.lock().unwrap().instances.remove("web-1");
        }
        let engine = simulation.engine.clone();
        let room = room(
            engine,
            simulation.clock.clone(),
            simulation.policies.clone(),
            &simulation.directory,
        );
        let round = room.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
        let of_gone = |change: &stillframe::plan::Change| change.key.source.as_str() == "web-1";
        let changes: Vec<_> = round
            .plan
            .changes
            .iter()
            .filter(|change| of_gone(change))
            .map(|change| change.action.word())
            .collect();
        match day {
            // One mark, and then nothing at all for two weeks; `last: 4` and one in its grace.
            10 => assert_eq!((changes, count()), (vec!["relabel"], 5)),
            11..=23 => assert_eq!((changes, count()), (vec![], 5), "day {day}"),
            24.. => assert!(count() >= 4, "day {day}"),
            _ => {}
        }
    }
    // The rules went on: what `last: 4` lets go is gone, and nothing else.
    assert_eq!(count(), 4);
}
