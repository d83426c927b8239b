//! One series in a simulated world: its points, what they sum up to, and what carrying out does.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::decision::{self, Copying, Creation, Decision, Drilling};
use super::held::Held;
pub(super) use super::point::Point;
use super::size::Growth;
use super::state::simulated;
use super::taken::Taken;
use super::track::{Totals, Track};
use super::waiting::{Fate, Refusals, Waiting};
use crate::cost::{Amount, Prices};
use crate::desired::{Presence, Series};
use crate::elapsed::Elapsed;
use crate::inventory::{EngineInventory, Image, ImageState, Stage};
use crate::name::{Key, Slot, SourceId};
use crate::plan::guard::Guard;
use crate::plan::{Action, Update};
use crate::policy::Policy;
use crate::policy::meant::Guards;
use crate::policy::sizes::Sizes;
use crate::retention::CLOCK_SKEW;

/// What is known of the slots that a series has missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MissedBefore {
    pub(super) first: Slot,
    pub(super) count: usize,
}

/// A series of a simulated world.
#[derive(Debug)]
pub(super) struct World<'a> {
    pub(super) policy: &'a Policy,
    /// The positions of its policy and its engine.
    pub(super) policy_index: usize,
    pub(super) engine: usize,
    engine_name: &'a str,
    pub(super) source: SourceId,
    pub(super) name: String,
    pub(super) presence: Presence<'a>,
    /// Restore points and their copies, the oldest first.
    pub(super) points: Vec<Point>,
    pub(super) sizes: Sizes,
    /// How many images of the engine a restore point that is made here is, and in which project.
    members: u64,
    project: &'a str,
    /// What the planner sees of the series beside its points.
    base: u128,
    /// What it sees of the points, in any order.
    pub(super) seen: u128,
    /// Points that guards keep from being deleted; the sums count them.
    pub(super) waiting: Waiting,
    /// READY restore points, those of them that are deprecated, and READY copies.
    pub(super) ready: u64,
    deprecated: u64,
    copies: u64,
    bytes: u64,
    amount: Amount,
    uncounted: u64,
    /// Images of the engine, whatever their state, and those that the last round has made.
    held: Held,
    made: Held,
    /// Whether any of its restore points is or was a set.
    has_sets: bool,
    pub(super) missed: Option<MissedBefore>,
    /// The newest slot that was attempted in vain before there ever was a restore point.
    pub(super) attempted: Option<Slot>,
    pub(super) stalled: bool,
    /// Guards of single series that have refused something of it.
    pub(super) refused_before: BTreeSet<Guard>,
    pub(super) track: Track,
    pub(super) totals: Totals,
}

/// What a capture left.
pub(super) struct Captured<'c> {
    pub(super) creation: &'c Creation,
    pub(super) is_ready: bool,
}

impl<'a> World<'a> {
    /// The series as it was found.
    pub(super) fn new(
        series: &Series<'a>,
        (policy_index, engine): (usize, usize),
        seen: &'a EngineInventory,
        prices: Option<&Prices>,
    ) -> Self {
        let policy = series.policy;
        let instance = series.state.instance();
        let members = instance.map(|one| policy.capture.members(one, &seen.capabilities));
        let images = series.points.iter().map(|point| point.image);
        let mut world = Self {
            policy,
            policy_index,
            engine,
            engine_name: &seen.name,
            source: series.source.clone(),
            name: series.source_name().to_owned(),
            presence: series.state.presence,
            points: Vec::with_capacity(series.points.len() + 1),
            sizes: Sizes::of(images, policy, instance, &seen.capabilities),
            members: members.unwrap_or(1),
            project: instance.map_or("", |one| &one.project),
            base: 0,
            seen: 0,
            waiting: Waiting::default(),
            ready: 0,
            deprecated: 0,
            copies: 0,
            bytes: 0,
            amount: Amount::default(),
            uncounted: 0,
            held: Held::default(),
            made: Held::default(),
            has_sets: false,
            missed: None,
            attempted: None,
            stalled: series.stalled,
            refused_before: BTreeSet::new(),
            track: Track::default(),
            totals: Totals::default(),
        };
        world.base = world.base_hash();
        for point in series.points.iter().chain(&series.copies) {
            let (bytes, members) = (point.image.stored_bytes, point.image.members_there());
            world.insert(point.key.clone(), point.image.clone(), (bytes, members), prices);
        }
        world.totals.peak_ready = world.ready;
        world.totals.peak_images = world.held.all();
        world
    }

    /// What the planner sees: two series of a policy with equal states are planned alike.
    pub(super) fn state(&self) -> u128 {
        self.base.wrapping_add(self.seen)
    }

    fn insert(
        &mut self,
        key: Key,
        image: Image,
        (bytes, members): (Option<u64>, u64),
        prices: Option<&Prices>,
    ) {
        let rate =
            prices.and_then(|prices| prices.rate(self.engine_name, &image.location, image.kind));
        let at = self
            .points
            .partition_point(|point| (point.key.slot, &point.image.id) <= (key.slot, &image.id));
        let twins = self.twins_before(at, key.slot);
        let hash = self.point_hash(&key, &image, twins);
        let point = Point { key, image, bytes, rate, members, hash };
        self.has_sets |= members > 1;
        self.count(&point, true, prices.is_some());
        self.points.insert(at, point);
    }

    /// How many points of this slot stand before a position.
    fn twins_before(&self, index: usize, slot: Slot) -> usize {
        self.points[..index].iter().rev().take_while(|other| other.key.slot == slot).count()
    }

    /// Takes a point into the sums or out of them.
    fn count(&mut self, point: &Point, is_in: bool, has_prices: bool) {
        let is_copy = point.image.is_copy();
        let ready = u64::from(point.is_ready() && !is_copy);
        let copies = u64::from(point.is_ready() && is_copy);
        let deprecated = u64::from(ready == 1 && point.image.stage >= Stage::Deprecated);
        let is_uncounted = point.bytes.is_none() || (has_prices && point.rate.is_none());
        let bytes = point.bytes.unwrap_or(0);
        let amount = Amount::of(bytes, point.rate.unwrap_or(0));
        self.held.count(&point.image, point.taken(), is_in);
        if is_in {
            self.seen = self.seen.wrapping_add(point.hash);
            self.ready += ready;
            self.copies += copies;
            self.deprecated += deprecated;
            self.bytes = self.bytes.saturating_add(bytes);
            self.amount = self.amount.plus(amount);
            self.uncounted += u64::from(is_uncounted);
        } else {
            self.seen = self.seen.wrapping_sub(point.hash);
            self.ready -= ready;
            self.copies -= copies;
            self.deprecated -= deprecated;
            self.bytes = self.bytes.saturating_sub(bytes);
            self.amount = self.amount.minus(amount);
            self.uncounted -= u64::from(is_uncounted);
        }
    }

    /// The newest READY slot that is not in the future.
    pub(super) fn newest_ready(&self, now: Timestamp) -> Option<Slot> {
        let horizon = CLOCK_SKEW.after(now);
        let mut points = self.points.iter().rev();
        let newest = points.find(|point| {
            point.is_ready() && !point.image.is_copy() && point.key.slot.instant() <= horizon
        });
        newest.map(|point| point.key.slot)
    }

    /// Whether every restore point there is has failed.
    pub(super) fn has_only_failed(&self) -> bool {
        let mut originals = self.points.iter().filter(|point| !point.image.is_copy());
        originals.all(|point| point.image.state.is_failed_attempt())
    }

    /// READY images that are not in the future: what guards count shares of an engine of.
    pub(super) fn managed(&self, now: Timestamp) -> u64 {
        let horizon = CLOCK_SKEW.after(now);
        let future =
            self.points.iter().rev().take_while(|point| point.key.slot.instant() > horizon);
        let ready = future.filter(|point| point.is_ready()).count();
        self.ready + self.copies - ready as u64
    }

    /// Looks at how much would be lost at this moment.
    pub(super) fn look_at_age(&mut self, now: Timestamp) {
        if let Some(slot) = self.newest_ready(now) {
            let age = Elapsed::between(slot.instant(), now).as_seconds();
            self.totals.worst_newest_seconds = self.totals.worst_newest_seconds.max(Some(age));
        }
    }

    /// Writes down the figures of a day.
    pub(super) fn sample(&mut self, now: Timestamp, has_prices: bool) {
        self.look_at_age(now);
        let age = |slot: Slot| Elapsed::between(slot.instant(), now).as_seconds();
        let mut points = self.points.iter();
        let oldest = points.find(|point| point.is_ready() && !point.image.is_copy());
        let oldest = oldest.map(|point| point.key.slot).into_iter().chain(self.waiting.oldest);
        self.track.oldest_seconds.push(oldest.min().map(age));
        self.track.newest_seconds.push(self.newest_ready(now).map(age));
        self.track.ready.push(self.ready);
        self.track.deprecated.push(self.deprecated);
        self.track.copies.push(self.copies);
        self.track.stored_bytes.push(self.bytes);
        self.track.uncounted.push(self.uncounted);
        self.track.images.push(self.held.all());
        if has_prices {
            self.track.cost_micros.push(self.amount.micros());
        }
    }

    /// Images of the engine, by project and kind.
    pub(super) fn held(&self) -> &Held {
        &self.held
    }

    /// Those that the last round has made.
    pub(super) fn made(&self) -> &Held {
        &self.made
    }

    /// Whether restore points and images are not the same.
    pub(super) fn has_sets(&self) -> bool {
        self.has_sets
    }

    /// Leaves out of the figures what says nothing.
    pub(super) fn forget_none(&mut self) {
        self.track.forget_none(self.has_sets);
        self.totals.forget_none(self.has_sets);
    }

    /// What the images cost, exactly.
    pub(super) fn amount(&self) -> Amount {
        self.amount
    }

    /// Carries out what was decided, in the order in which apply does it. `tell` hears of each
    /// change.
    pub(super) fn carry_out(
        &mut self,
        decision: &Decision,
        captured: Option<&Captured<'_>>,
        refusals: &Refusals,
        step: &Step<'_>,
        tell: &mut dyn FnMut(&Key, &str, Action),
    ) {
        let is_ready = captured.is_some_and(|captured| captured.is_ready);
        let (before, ready_before) = (self.held.all(), self.ready);
        self.made = Held::default();
        for decision::Step { index, action, update, if_ready, otherwise } in &decision.updates {
            if !(if is_ready { *if_ready } else { *otherwise }) {
                continue;
            }
            self.update(*index, update, step);
            let point = &self.points[*index];
            match action {
                Action::Deprecate if !point.image.is_copy() => self.totals.deprecated += 1,
                Action::Reactivate if !point.image.is_copy() => self.totals.reactivated += 1,
                _ => {}
            }
            tell(&point.key, &point.image.id, *action);
        }
        let drilled = decision.drill.as_ref().filter(|drill| drill.is_done(is_ready));
        let mut drilled_key = None;
        if let Some(Drilling { of: Some(index), update }) = drilled {
            self.update(*index, update, step);
            drilled_key = Some(self.points[*index].key.clone());
        }
        let copies: Vec<&Copying> = decision.copied(is_ready).collect();
        let originals: Vec<Option<(Key, Option<u64>)>> = copies
            .iter()
            .map(|copy| copy.of.map(|index| &self.points[index]))
            .map(|point| point.map(|point| (point.key.clone(), point.bytes)))
            .collect();
        let replaced = captured.and_then(|captured| captured.creation.replaces);
        let replaced = replaced.into_iter().chain(copies.iter().filter_map(|copy| copy.replaces));
        let replaced: Vec<usize> = replaced.collect();
        let gone_first: Vec<Point> =
            replaced.iter().filter_map(|index| self.points.get(*index).cloned()).collect();
        let moved = self.sort_out(replaced.into_iter(), decision, refusals, step);
        for (index, fate) in moved {
            if fate == Fate::Waits {
                self.put_aside(index);
                continue;
            }
            let point = self.remove(index, step);
            if fate == Fate::Deleted {
                self.totals.deleted += 1;
                tell(&point.key, &point.image.id, Action::Delete);
            }
        }
        let mut made = None;
        if let Some(captured) = captured {
            let drill = drilled.filter(|drill| drill.of.is_none());
            let key = self.key(captured.creation.slot);
            made = Some((key.clone(), Some(self.capture(captured, drill, step))));
            tell(&key, "", Action::Create);
        }
        let pairs = copies.into_iter().zip(originals);
        let pairs: Vec<_> = pairs
            .filter_map(|(copy, original)| Some((copy, original.or_else(|| made.clone())?)))
            .collect();
        for (copy, (key, _)) in &pairs {
            tell(key, &copy.location, Action::Copy);
        }
        self.copy(pairs, step);
        for point in gone_first {
            self.made.count(&point.image, point.taken(), false);
        }
        // What was made was there before anything else went for it.
        self.look_at_peak(before + self.made.all(), ready_before + u64::from(is_ready));
        if drilled.is_some() {
            self.totals.drilled += 1;
            if let Some(key) = drilled_key.or(made.map(|(key, _)| key)) {
                tell(&key, "", Action::Drill);
            }
        }
    }

    fn look_at_peak(&mut self, images: u64, ready: u64) {
        self.totals.peak_images = self.totals.peak_images.max(images);
        self.totals.peak_ready = self.totals.peak_ready.max(ready);
    }

    fn update(&mut self, index: usize, update: &Update, step: &Step<'_>) {
        let mut point = self.points[index].clone();
        self.count(&point, false, step.prices.is_some());
        point.image.stage = update.stage_after;
        point.image.labels.retain(|label, _| !update.remove_labels.contains(label));
        point.image.labels.extend(update.set_labels.clone());
        if let Some(sharing) = &update.sharing {
            point.image.sharing = Some(sharing.clone());
        }
        let twins = self.twins_before(index, point.key.slot);
        point.hash = self.point_hash(&point.key, &point.image, twins);
        self.count(&point, true, step.prices.is_some());
        self.points[index] = point;
    }

    /// What the oldest point, or copy in a location, holds beyond an ordinary one is what later ones share: it stays.
    fn remove(&mut self, index: usize, step: &Step<'_>) -> Point {
        let point = self.points.remove(index);
        self.count(&point, false, step.prices.is_some());
        let ordinary = step.growth.grown(self.sizes.increment, step.day);
        let shared = point.bytes.map_or(0, |bytes| bytes.saturating_sub(ordinary));
        let copied_to = point.copied_to();
        let is_ready = |other: &Point| other.is_ready() && other.copied_to() == copied_to;
        let is_oldest = is_ready(&point) && !self.points[..index].iter().any(is_ready);
        let heir = self.points[index..].iter().position(is_ready).map(|at| index + at);
        if let (true, true, Some(heir)) = (is_oldest, shared > 0, heir) {
            let mut next = self.points[heir].clone();
            self.count(&next, false, step.prices.is_some());
            next.bytes = next.bytes.map(|bytes| bytes.saturating_add(shared));
            self.count(&next, true, step.prices.is_some());
            self.points[heir] = next;
        }
        point
    }

    /// The bytes that were captured.
    fn capture(
        &mut self,
        captured: &Captured<'_>,
        drill: Option<&Drilling>,
        step: &Step<'_>,
    ) -> u64 {
        let Captured { creation, is_ready } = captured;
        let size = if self.ready == 0 { self.sizes.first } else { self.sizes.increment };
        let bytes = if *is_ready { step.growth.grown(size, step.day) } else { 0 };
        let key = self.key(creation.slot);
        let state = if *is_ready { ImageState::Ready } else { ImageState::Failed };
        let mut image =
            simulated(creation.kind, creation.location.clone(), state, creation.slot, step.now);
        image.name = self.image_name(&key);
        image.labels.extend(creation.labels.clone());
        image.labels.extend(drill.into_iter().flat_map(|drill| drill.update.set_labels.clone()));
        self.project.clone_into(&mut image.project);
        let taken = Taken { images: self.members, bytes };
        self.made.count(&image, taken, true);
        self.insert(key, image, (Some(bytes), self.members), step.prices);
        if *is_ready {
            self.totals.created += 1;
        } else {
            self.totals.failed += 1;
        }
        bytes
    }

    /// A copy stores what its original does. The oldest of those that begin a location stores at
    /// least what the first restore point of a source does.
    fn copy(&mut self, copied: Vec<(&Copying, (Key, Option<u64>))>, step: &Step<'_>) {
        let first = step.growth.grown(self.sizes.first, step.day);
        let mut begun: BTreeMap<&str, Slot> = BTreeMap::new();
        for (copy, (key, _)) in &copied {
            let location = copy.location.as_str();
            let is_there = |point: &Point| point.is_ready() && point.copied_to() == Some(location);
            if !self.points.iter().any(is_there) {
                let slot = begun.entry(location).or_insert(key.slot);
                *slot = key.slot.min(*slot);
            }
        }
        for (copy, (key, bytes)) in copied {
            let location = copy.location.as_str();
            let is_first = begun.get(location) == Some(&key.slot);
            let bytes = bytes.map(|bytes| if is_first { bytes.max(first) } else { bytes });
            let mut image = copy.image(&key, step.now);
            image.name = self.copy_name(&key, location);
            self.project.clone_into(&mut image.project);
            let taken = Taken { images: self.members, bytes: bytes.unwrap_or(0) };
            self.made.count(&image, taken, true);
            self.insert(key, image, (bytes, self.members), step.prices);
            self.totals.copied += 1;
        }
    }

    /// The name of a restore point, where a hold looks at it.
    pub(super) fn image_name(&self, key: &Key) -> String {
        self.seen_name(|prefix| key.image_name(prefix), key)
    }

    /// The name of a copy, where a hold looks at it.
    pub(super) fn copy_name(&self, key: &Key, location: &str) -> String {
        self.seen_name(|prefix| key.copy_name(prefix, location), key)
    }

    fn seen_name(&self, name: impl Fn(&str) -> String, key: &Key) -> String {
        if self.policy.holds.iter().all(|hold| hold.images.is_none()) {
            return String::new();
        }
        name(&self.policy.naming.prefix(key, &self.policy.schedule.zone))
    }

    pub(super) fn key(&self, slot: Slot) -> Key {
        Key { policy: self.policy.name.clone(), source: self.source.clone(), slot }
    }
}

/// What carrying out needs beside the decision.
pub(super) struct Step<'s> {
    pub(super) now: Timestamp,
    /// The day of the simulation, from 0.
    pub(super) day: usize,
    pub(super) growth: &'s Growth,
    pub(super) prices: Option<&'s Prices>,
    /// The limits of the guards.
    pub(super) guards: &'s Guards,
}
