//! Simulation: the real planner and the real guards under a virtual clock.
//!
//! In go policies, an inventory and some days; out comes what the policies would hold, day by day,
//! and what went otherwise than it should. Nothing here decides what is kept: every round asks
//! `desired` and `plan` for each series, holds what they say against the guards and carries it out
//! on the images in memory, creates first. Chance is a function of a seed. Pure, like all of this
//! level.
//!
//! What makes years of thousands of sources quick: series never influence each other (law 11), so
//! each is planned by itself, and two series of a policy in the same state are planned alike, so it
//! is done once for both. Guards that look at a whole engine are held against the sums of a round.
//! A test compares all of it with whole plans over whole inventories.
//!
//! There is a round for a policy at the start, whenever a slot of it has come, its jitter included,
//! where a pause or a blackout ends, and where a day has gone by without one; for a series also where
//! a grace ends.

mod bare;
pub mod budget;
mod chance;
mod decision;
mod difference;
pub mod expense;
pub mod forecast;
mod held;
mod outlook;
mod peak;
mod point;
mod series;
mod size;
mod state;
pub mod steady;
mod sums;
mod taken;
mod track;
mod turns;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::rc::Rc;

use jiff::Timestamp;

pub use crate::policy::sizes::{INCREMENT_PERCENT, Sizes};
pub use chance::Share;
pub use difference::{Comparison, Figures, PolicyDifference, compare};
pub use outlook::{longest_wait, meant_slots};
pub use size::GROWTH_DAYS;
pub use taken::Taken;
pub use track::{
    Event, FORMAT_VERSION, Happening, PolicyTrack, QuotaTrack, SeriesTrack, Simulation, Totals,
    Track,
};

use crate::cost::Prices;
use crate::desired::{Slots, desired};
use crate::elapsed::{Elapsed, whole_second};
use crate::inventory::{EngineInventory, Inventory};
use crate::name::{Key, PolicyName};
use crate::plan::Action;
use crate::plan::guard::{Guard, is_over};
use crate::policy::{Policies, Policy};
use bare::Bare;
use decision::{Decision, decide};
use held::Quotas;
use peak::{Numbers, Peaks};
use series::{Captured, Step, World};
use size::Growth;
use sums::{account, assumptions, policy_track};
use turns::Lately;
use waiting::{EngineRefusal, Refusals};

/// What is simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// When it begins: the first round is at this instant.
    pub start: Timestamp,
    /// For how many days of 24 hours.
    pub days: u32,
    /// The share of captures that fail.
    pub fail_rate: Share,
    /// The share by which what a capture stores grows every thirty days.
    pub growth: Share,
    /// The seed of its chance.
    pub seed: u64,
}

/// Watches a simulation.
pub trait Watcher {
    /// So many of the days are done.
    fn progress(&mut self, _days: u32) {}

    /// In a round, series were planned that have so many images in all.
    fn planned(&mut self, _images: usize) {}

    /// A change was carried out. The image of a create has no id yet; of a copy it is the location.
    fn happened(&mut self, _at: Timestamp, _key: &Key, _image: &str, _action: Action) {}
}

/// Nobody watches.
#[derive(Debug, Clone, Copy)]
pub struct Unwatched;

impl Watcher for Unwatched {}

/// Simulates.
pub fn simulate(
    policies: &Policies,
    inventory: &Inventory,
    prices: Option<&Prices>,
    options: &Options,
    watcher: &mut dyn Watcher,
) -> Simulation {
    let options = Options { start: whole_second(options.start), ..*options };
    let seen_whole = Inventory {
        engines: inventory
            .engines
            .iter()
            .map(|engine| EngineInventory { gaps: Vec::new(), ..engine.clone() })
            .collect(),
        ..inventory.clone()
    };
    let found = desired(policies, &seen_whole, options.start);
    let all: Vec<&Policy> = policies.all().collect();
    let positions: BTreeMap<&PolicyName, usize> =
        all.iter().enumerate().map(|(position, policy)| (&policy.name, position)).collect();
    let mut worlds = Vec::new();
    for (index, engine) in found.engines.iter().enumerate() {
        for series in &engine.series {
            let Some(policy) = positions.get(&series.policy.name) else { continue };
            worlds.push(World::new(series, (*policy, index), engine.engine, prices));
        }
    }
    let bare: Vec<Bare<'_>> =
        found.engines.iter().map(|engine| Bare::new(engine, policies)).collect();
    let mut run = Run {
        last: vec![None; all.len()],
        all,
        policies,
        prices,
        options,
        bare: &bare,
        growth: Growth::new(options.growth, options.days as usize),
        due: BTreeSet::new(),
        quotas: Quotas::new(&found.engines, &worlds, policies),
        peaks: Peaks::new(&worlds, policies.all().count()),
        lately: Lately::new(&found.engines, &worlds, options.start),
        worlds,
        events: Vec::new(),
        refused_before: BTreeSet::new(),
    };
    run.days(watcher);
    run.told(inventory)
}

/// Whom a round is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    /// All series of a policy, by its position.
    Policy(usize),
    /// One series, by its position.
    Series(usize),
}

/// What is done to one series in a round.
struct Turn {
    /// The position of the series.
    index: usize,
    decision: Rc<Decision>,
    /// When the source can be captured for it, where that is not now.
    later: Option<Timestamp>,
    /// Whether its capture, where it has one, becomes READY.
    is_ready: bool,
}

/// What was decided in a round: once for all series of a policy in the same state.
struct Decided {
    now: Timestamp,
    decisions: BTreeMap<(usize, u128), Rc<Decision>>,
    slots: BTreeMap<usize, Slots>,
    /// How many images were looked at.
    images: usize,
}

impl Decided {
    fn on(&mut self, run: &Run<'_>, index: usize) -> Rc<Decision> {
        let world = &run.worlds[index];
        let policy = world.policy_index;
        let bare = &run.bare[world.engine];
        let state = (policy, world.state());
        if let Some(known) = self.decisions.get(&state).filter(|known| bare.is_shared(known, world))
        {
            return Rc::clone(known);
        }
        let now = self.now;
        let slots = self.slots.entry(policy).or_insert_with(|| Slots::new(world.policy, now));
        self.images += world.points.len();
        let decision = Rc::new(decide(world, bare, run.policies, slots, None, now));
        self.decisions.entry(state).or_insert_with(|| Rc::clone(&decision));
        decision
    }

    /// What is decided where the source can be captured only then.
    fn later(&mut self, run: &Run<'_>, index: usize, turn: Timestamp) -> Rc<Decision> {
        let (world, now) = (&run.worlds[index], self.now);
        let policy = world.policy_index;
        let slots = self.slots.entry(policy).or_insert_with(|| Slots::new(world.policy, now));
        let bare = &run.bare[world.engine];
        Rc::new(decide(world, bare, run.policies, slots, Some(turn), now))
    }
}

/// A simulation under way.
struct Run<'a> {
    policies: &'a Policies,
    /// Its policies, the removed ones last: positions are theirs.
    all: Vec<&'a Policy>,
    prices: Option<&'a Prices>,
    options: Options,
    bare: &'a [Bare<'a>],
    growth: Growth,
    /// Rounds to come.
    due: BTreeSet<(Timestamp, Who)>,
    /// When sources were captured, where that matters.
    lately: Lately,
    /// How much is taken of the limits of engines.
    quotas: Quotas,
    /// The most that each policy had at once.
    peaks: Peaks,
    /// The last round of each policy.
    last: Vec<Option<Timestamp>>,
    worlds: Vec<World<'a>>,
    events: Vec<Event>,
    /// Which guards refused for which engine in its last round with deletes.
    refused_before: BTreeSet<(usize, Guard)>,
}

impl Run<'_> {
    fn day(&self, number: u32) -> Timestamp {
        Elapsed::days(number).after(self.options.start)
    }

    /// All rounds, and the figures of each day.
    fn days(&mut self, watcher: &mut dyn Watcher) {
        let has_prices = self.prices.is_some();
        let start = self.options.start;
        let end = self.day(self.options.days);
        let all = self.all.clone();
        let mut comings: Vec<Peekable<_>> =
            all.iter().map(|policy| rounds(policy, start, end).peekable()).collect();
        self.worlds.iter_mut().for_each(|world| world.sample(start, has_prices));
        self.quotas.sample();
        for day in 0..=self.options.days {
            let tick = self.day(day);
            for (policy, coming) in comings.iter_mut().enumerate() {
                let mut last = self.last[policy];
                loop {
                    // Never more than a day without a round.
                    let daily = last.map_or(start, |last| Elapsed::days(1).after(last));
                    let next = coming.next_if(|at| *at <= tick.min(daily));
                    let Some(at) = next.or((daily <= tick).then_some(daily)) else { break };
                    self.due.insert((at, Who::Policy(policy)));
                    last = Some(at);
                }
                self.last[policy] = last;
            }
            while let Some((at, _)) = self.due.first().copied().filter(|(at, _)| *at <= tick) {
                let mut whom = BTreeSet::new();
                while self.due.first().is_some_and(|(other, _)| *other == at) {
                    whom.extend(self.due.pop_first().map(|(_, who)| who));
                }
                self.wait_for_pauses(at, &whom);
                self.lately.with_others(&mut whom, &self.worlds);
                self.round(at, &whom, watcher);
            }
            if day > 0 {
                self.worlds.iter_mut().for_each(|world| world.sample(tick, has_prices));
                self.quotas.sample();
            }
            watcher.progress(day);
        }
    }

    /// One round.
    fn round(&mut self, now: Timestamp, whom: &BTreeSet<Who>, watcher: &mut dyn Watcher) {
        let mut decided =
            Decided { now, decisions: BTreeMap::new(), slots: BTreeMap::new(), images: 0 };
        let mut taken: Vec<Turn> = Vec::new();
        for (index, world) in self.worlds.iter().enumerate() {
            let policy = world.policy_index;
            if !whom.contains(&Who::Policy(policy)) && !whom.contains(&Who::Series(index)) {
                continue;
            }
            let decision = decided.on(self, index);
            let succeeds = |slot| {
                let key = world.key(slot);
                !chance::fails(self.options.fail_rate, self.options.seed, &key, now)
            };
            let is_ready =
                decision.creation.as_ref().is_some_and(|creation| succeeds(creation.slot));
            taken.push(Turn { index, decision, later: None, is_ready });
        }
        self.take_turns(&mut taken, &mut decided);
        let refused = self.engine_guards(now, &taken);
        for mut turn in taken {
            let engine = refused.get(&self.worlds[turn.index].engine).copied().unwrap_or_default();
            let refusals = self.refusals(&turn, engine, now);
            if self.worlds[turn.index].goes(&turn.decision, &refusals) {
                self.worlds[turn.index].take_back();
                turn.decision = match turn.later {
                    Some(at) => decided.later(self, turn.index, at),
                    None => decided.on(self, turn.index),
                };
            }
            self.carry_out(&turn, &refusals, now, watcher);
        }
        self.quotas.round_ended();
        self.peaks.round_ended();
        watcher.planned(decided.images);
    }

    fn refusals(&self, turn: &Turn, engine: EngineRefusal, now: Timestamp) -> Refusals {
        let guards = &self.policies.config.guards;
        self.worlds[turn.index].refusals(&turn.decision, turn.is_ready, engine, guards, now)
    }

    /// What is paused or blacked out in a round is looked at again when that ends.
    fn wait_for_pauses(&mut self, now: Timestamp, whom: &BTreeSet<Who>) {
        for who in whom {
            let policy = match who {
                Who::Policy(policy) => self.all[*policy],
                Who::Series(series) => self.worlds[*series].policy,
            };
            for until in policy.pauses_at(now).into_iter().filter_map(|pause| pause.until) {
                let second = whole_second(until);
                let begun = if second < until { Elapsed::seconds(1) } else { Elapsed::ZERO };
                self.due.insert((begun.after(second), *who));
            }
        }
    }

    /// The guards that look at a whole engine, held against the sums of this round, before its
    /// captures and after them.
    fn engine_guards(&mut self, now: Timestamp, taken: &[Turn]) -> BTreeMap<usize, EngineRefusal> {
        let guards = &self.policies.config.guards;
        let mut sums: BTreeMap<usize, (usize, u64, u64, u64)> = BTreeMap::new();
        for turn in taken {
            let (all, data, parts, made) = sums.entry(self.worlds[turn.index].engine).or_default();
            let deletes = &turn.decision.deletes;
            *all += deletes.len();
            *data += deletes.iter().filter(|removal| removal.holds_data()).count() as u64;
            *parts += deletes.iter().filter(|removal| removal.is_remainder()).count() as u64;
            let (waiting, failed) = self.worlds[turn.index].waiting(&turn.decision);
            *all += waiting + failed;
            *data += waiting as u64;
            *made += u64::from(turn.is_ready);
            *made += turn.decision.copied(turn.is_ready).count() as u64;
        }
        sums.retain(|_, (all, ..)| *all > 0);
        let mut refused = BTreeMap::new();
        for (engine, (all, data, parts, made)) in sums {
            let worlds = self.worlds.iter().filter(|world| world.engine == engine);
            let managed: u64 = worlds.map(|world| world.managed(now)).sum();
            let managed = managed + self.bare[engine].managed(now) + parts;
            let number = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
            let is_share =
                |managed: u64| is_over(guards.engine_percent, number(data), number(managed));
            let refusal = EngineRefusal {
                all: all > guards.engine_count as usize,
                data: is_share(managed) || is_share(managed + made),
            };
            refused.insert(engine, refusal);
            let data = number(data);
            for (guard, refuses, images) in
                [(Guard::EngineCount, refusal.all, all), (Guard::EngineShare, refusal.data, data)]
            {
                if !refuses {
                    self.refused_before.remove(&(engine, guard));
                } else if self.refused_before.insert((engine, guard)) {
                    self.events.push(Event {
                        at: now,
                        engine: self.bare[engine].engine.name.clone(),
                        policy: None,
                        source: None,
                        what: Happening::Refused { guard, images },
                    });
                }
            }
        }
        refused
    }

    fn carry_out(
        &mut self,
        turn: &Turn,
        refusals: &Refusals,
        now: Timestamp,
        watcher: &mut dyn Watcher,
    ) {
        let Turn { index, decision, is_ready, .. } = turn;
        let (index, is_ready) = (*index, *is_ready);
        let before = self.events.len();
        let Some(world) = self.worlds.get_mut(index) else { return };
        world.look_at_age(now);
        account(world, turn, refusals, self.options.start, now, &mut self.events);
        if decision.creation.is_some() {
            let limits = &self.bare[world.engine].engine.capabilities.limits;
            self.lately.captured(world, limits, now);
        }
        let captured = decision.creation.as_ref().map(|creation| Captured { creation, is_ready });
        let elapsed = Elapsed::between(self.options.start, now).as_seconds();
        let day = usize::try_from(elapsed / Elapsed::days(1).as_seconds()).unwrap_or_default();
        let guards = &self.policies.config.guards;
        let step = Step { now, day, growth: &self.growth, prices: self.prices, guards };
        let mut let_go = false;
        let had = self.quotas.counts(world.engine).then(|| world.held().clone());
        let before_round = Numbers::of(world);
        world.carry_out(decision, captured.as_ref(), refusals, &step, &mut |key, id, action| {
            let_go |= action == Action::Deprecate;
            watcher.happened(now, key, id, action);
        });
        self.peaks.changed(world, before_round, is_ready);
        if let Some(had) = had {
            self.quotas.changed(world.engine, &had, world.made(), world.held());
        }
        let grace = world.policy.lifecycle.grace;
        if let_go && grace > Elapsed::ZERO {
            self.due.insert((grace.after(now), Who::Series(index)));
        }
        let engine = &self.bare[world.engine].engine.name;
        self.events[before..].iter_mut().for_each(|event| event.engine.clone_from(engine));
    }

    fn told(self, inventory: &Inventory) -> Simulation {
        let assumptions = assumptions(self.policies, inventory, &self.options);
        let policies = self
            .all
            .iter()
            .enumerate()
            .map(|(index, policy)| {
                let worlds: Vec<&World<'_>> =
                    self.worlds.iter().filter(|world| world.policy_index == index).collect();
                policy_track(policy, &worlds, self.peaks.of(index), self.prices, self.options.days)
            })
            .collect();
        let bare = self.bare;
        Simulation {
            format_version: FORMAT_VERSION.to_owned(),
            policies_digest: self.policies.digest.clone(),
            start: self.options.start,
            days: self.options.days,
            seed: self.options.seed,
            fail_rate: self.options.fail_rate,
            growth: self.options.growth,
            assumptions,
            policies,
            series: self
                .worlds
                .into_iter()
                .map(|mut world| {
                    world.forget_none();
                    world
                })
                .map(|world| SeriesTrack {
                    policy: world.policy.name.clone(),
                    engine: bare[world.engine].engine.name.clone(),
                    source: world.source,
                    source_name: world.name,
                    track: world.track,
                    totals: world.totals,
                })
                .collect(),
            events: self.events,
            quotas: self.quotas.told(),
        }
    }
}

/// The instants after `start` at which a policy has a slot for all its sources, up to `end`. One that
/// was removed has none.
fn rounds(
    policy: &Policy,
    start: Timestamp,
    end: Timestamp,
) -> impl Iterator<Item = Timestamp> + '_ {
    let schedule = &policy.schedule;
    let end = Elapsed::seconds(1).after(end);
    let from = schedule.jitter.before(start);
    schedule
        .slots(from, if policy.removed.is_some() { from } else { end })
        .map(move |slot| {
            if schedule.jitter == Elapsed::ZERO {
                slot.instant()
            } else {
                schedule.jitter.after(slot.instant()).min(schedule.deadline_of(slot))
            }
        })
        .filter(move |at| *at > start && *at < end)
}
