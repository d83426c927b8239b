//! One series in a simulated world: its points, what they sum up to, and what carrying out does.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::Timestamp;

use super::decision::{self, Creation, Decision, Removal};
use super::size::{Growth, Sizes};
use super::track::{Totals, Track};
use crate::cost::{Amount, Prices};
use crate::desired::{Presence, Series};
use crate::elapsed::Elapsed;
use crate::inventory::{Image, ImageKind, ImageState, Stage};
use crate::name::{Key, LABEL_KEY, LABEL_POLICY, LABEL_SLOT, LABEL_SOURCE, Slot, SourceId};
use crate::plan::guard::Guard;
use crate::plan::{Action, Update};
use crate::policy::Policy;
use crate::retention::CLOCK_SKEW;

/// A restore point of a simulated series.
#[derive(Debug, Clone)]
pub(super) struct Point {
    pub(super) key: Key,
    pub(super) image: Image,
    /// Bytes counted for it; `None` where they are unknown.
    bytes: Option<u64>,
    /// Millionths of the currency for a GiB and month.
    rate: Option<u64>,
    /// What the planner sees of it.
    hash: u128,
}

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
    /// The oldest first.
    pub(super) points: Vec<Point>,
    pub(super) sizes: Sizes,
    /// What the planner sees of the series beside its points.
    base: u128,
    /// What it sees of the points, in any order.
    seen: u128,
    pub(super) ready: u64,
    deprecated: u64,
    bytes: u64,
    amount: Amount,
    uncounted: u64,
    pub(super) missed: Option<MissedBefore>,
    pub(super) stalled: bool,
    /// Guards of single series that have refused something of it.
    pub(super) refused_before: BTreeSet<Guard>,
    pub(super) track: Track,
    pub(super) totals: Totals,
}

/// What the guards of an engine refuse in a round.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct EngineRefusal {
    /// All deletes.
    pub(super) all: bool,
    /// Deletes of READY points.
    pub(super) ready: bool,
}

impl EngineRefusal {
    /// Whether a delete is refused.
    pub(super) fn covers(self, removal: &Removal) -> bool {
        self.all || (self.ready && removal.is_ready)
    }
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
        engine_name: &'a str,
        prices: Option<&Prices>,
    ) -> Self {
        let policy = series.policy;
        let images = series.points.iter().map(|point| point.image);
        let mut world = Self {
            policy,
            policy_index,
            engine,
            engine_name,
            source: series.source.clone(),
            name: series.source_name().to_owned(),
            presence: series.state.presence,
            points: Vec::with_capacity(series.points.len() + 1),
            sizes: Sizes::of(images, policy, series.state.instance()),
            base: 0,
            seen: 0,
            ready: 0,
            deprecated: 0,
            bytes: 0,
            amount: Amount::default(),
            uncounted: 0,
            missed: None,
            stalled: series.stalled,
            refused_before: BTreeSet::new(),
            track: Track::default(),
            totals: Totals::default(),
        };
        world.base = world.base_hash();
        for point in &series.points {
            let bytes = point.image.stored_bytes;
            world.insert(point.key.clone(), point.image.clone(), bytes, prices);
        }
        world.totals.peak_ready = world.ready;
        world
    }

    /// What the planner sees: two series of a policy with equal states are planned alike.
    pub(super) fn state(&self) -> u128 {
        self.base.wrapping_add(self.seen)
    }

    /// All that a plan for a series takes from its source: whether it is there, which of its disks
    /// are captured, and when its captures begin.
    fn base_hash(&self) -> u128 {
        let presence = match self.presence {
            Presence::Present(_) => 0_u8,
            Presence::Unselected(_) => 1,
            Presence::Missing => 2,
            Presence::Unknown => 3,
        };
        let has_disks = self.instance_disks();
        let jitter = self.policy.schedule.jitter.as_seconds().unsigned_abs();
        let start = crate::name::spread(&self.policy.name, &self.source, jitter);
        digest(|hasher| (presence, has_disks, start, self.engine).hash(hasher))
    }

    fn instance_disks(&self) -> bool {
        let Presence::Present(instance) = self.presence else { return false };
        instance.disks.iter().any(|disk| self.policy.capture.disks.takes(&disk.name, disk.boot))
    }

    fn insert(&mut self, key: Key, image: Image, bytes: Option<u64>, prices: Option<&Prices>) {
        let rate =
            prices.and_then(|prices| prices.rate(self.engine_name, &image.location, image.kind));
        let at = self
            .points
            .partition_point(|point| (point.key.slot, &point.image.id) <= (key.slot, &image.id));
        let twins = self.twins_before(at, key.slot);
        let hash = point_hash(&key, &image, twins);
        let point = Point { key, image, bytes, rate, hash };
        self.count(&point, true, prices.is_some());
        self.points.insert(at, point);
    }

    /// How many points of this slot stand before a position.
    fn twins_before(&self, index: usize, slot: Slot) -> usize {
        self.points[..index].iter().rev().take_while(|other| other.key.slot == slot).count()
    }

    /// Takes a point into the sums or out of them.
    fn count(&mut self, point: &Point, is_in: bool, has_prices: bool) {
        let ready = u64::from(point.image.state == ImageState::Ready);
        let deprecated = u64::from(ready == 1 && point.image.stage >= Stage::Deprecated);
        let is_uncounted = point.bytes.is_none() || (has_prices && point.rate.is_none());
        let bytes = point.bytes.unwrap_or(0);
        let amount = Amount::of(bytes, point.rate.unwrap_or(0));
        if is_in {
            self.seen = self.seen.wrapping_add(point.hash);
            self.ready += ready;
            self.deprecated += deprecated;
            self.bytes = self.bytes.saturating_add(bytes);
            self.amount = self.amount.plus(amount);
            self.uncounted += u64::from(is_uncounted);
        } else {
            self.seen = self.seen.wrapping_sub(point.hash);
            self.ready -= ready;
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
            point.image.state == ImageState::Ready && point.key.slot.instant() <= horizon
        });
        newest.map(|point| point.key.slot)
    }

    /// READY points that are not in the future: what guards count shares of.
    pub(super) fn managed(&self, now: Timestamp) -> u64 {
        let horizon = CLOCK_SKEW.after(now);
        let future =
            self.points.iter().rev().take_while(|point| point.key.slot.instant() > horizon);
        let ready = future.filter(|point| point.image.state == ImageState::Ready).count();
        self.ready - ready as u64
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
        let oldest = self.points.iter().find(|point| point.image.state == ImageState::Ready);
        self.track.oldest_seconds.push(oldest.map(|point| age(point.key.slot)));
        self.track.newest_seconds.push(self.newest_ready(now).map(age));
        self.track.ready.push(self.ready);
        self.track.deprecated.push(self.deprecated);
        self.track.stored_bytes.push(self.bytes);
        self.track.uncounted.push(self.uncounted);
        if has_prices {
            self.track.cost_micros.push(self.amount.micros());
        }
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
        refusal: EngineRefusal,
        step: &Step<'_>,
        tell: &mut dyn FnMut(&Key, &str, Action),
    ) {
        let is_ready = captured.is_some_and(|captured| captured.is_ready);
        for decision::Step { index, action, update, if_ready, otherwise } in &decision.updates {
            if !(if is_ready { *if_ready } else { *otherwise }) {
                continue;
            }
            self.update(*index, update, step);
            match action {
                Action::Deprecate => self.totals.deprecated += 1,
                Action::Reactivate => self.totals.reactivated += 1,
                _ => {}
            }
            let point = &self.points[*index];
            tell(&point.key, &point.image.id, *action);
        }
        let replaced = captured.and_then(|captured| captured.creation.replaces);
        let mut removed: Vec<(usize, bool)> =
            replaced.map(|index| (index, false)).into_iter().collect();
        let deletes = decision.deletes.iter();
        removed.extend(
            deletes
                .filter(|removal| removal.refused(is_ready).is_none() && !refusal.covers(removal))
                .map(|removal| (removal.index, true)),
        );
        removed.sort_unstable();
        for (index, is_delete) in removed.into_iter().rev() {
            let point = self.remove(index, step);
            if is_delete {
                self.totals.deleted += 1;
                tell(&point.key, &point.image.id, Action::Delete);
            }
        }
        if let Some(captured) = captured {
            self.capture(captured, step);
            let key = self.key(captured.creation.slot);
            tell(&key, "", Action::Create);
        }
    }

    fn update(&mut self, index: usize, update: &Update, step: &Step<'_>) {
        let mut point = self.points[index].clone();
        self.count(&point, false, step.prices.is_some());
        point.image.stage = update.stage_after;
        point.image.labels.retain(|label, _| !update.remove_labels.contains(label));
        point.image.labels.extend(update.set_labels.clone());
        let twins = self.twins_before(index, point.key.slot);
        point.hash = point_hash(&point.key, &point.image, twins);
        self.count(&point, true, step.prices.is_some());
        self.points[index] = point;
    }

    /// What the oldest point holds beyond an ordinary one is what later ones share: it stays.
    fn remove(&mut self, index: usize, step: &Step<'_>) -> Point {
        let point = self.points.remove(index);
        self.count(&point, false, step.prices.is_some());
        let ordinary = step.growth.grown(self.sizes.increment, step.day);
        let shared = point.bytes.map_or(0, |bytes| bytes.saturating_sub(ordinary));
        let is_ready = |point: &Point| point.image.state == ImageState::Ready;
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

    fn capture(&mut self, captured: &Captured<'_>, step: &Step<'_>) {
        let Captured { creation, is_ready } = captured;
        let size = if self.ready == 0 { self.sizes.first } else { self.sizes.increment };
        let bytes = if *is_ready { step.growth.grown(size, step.day) } else { 0 };
        let key = self.key(creation.slot);
        let state = if *is_ready { ImageState::Ready } else { ImageState::Failed };
        let image =
            simulated(creation.kind, creation.location.clone(), state, creation.slot, step.now);
        self.insert(key, image, Some(bytes), step.prices);
        if *is_ready {
            self.totals.created += 1;
            self.totals.peak_ready = self.totals.peak_ready.max(self.ready);
        } else {
            self.totals.failed += 1;
        }
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
}

/// An image that only the simulation has. Its ownership labels are left out: the key stands beside
/// it, and a million of them would be needed.
pub(super) fn simulated(
    kind: ImageKind,
    location: String,
    state: ImageState,
    slot: Slot,
    now: Timestamp,
) -> Image {
    Image {
        id: format!("simulated-{slot}-{}", now.as_second()),
        name: String::new(),
        kind,
        state,
        stage: Stage::Active,
        created_at: now,
        location,
        kms_key: None,
        family: None,
        sharing: None,
        labels: BTreeMap::new(),
        source: None,
        stored_bytes: None,
        disk_bytes: None,
        fingerprint: String::new(),
        in_use_by: Vec::new(),
        message: None,
    }
}

/// Everything of a point that a plan may depend on but whose it is: names, ids and sizes are left
/// out, of the labels all that are no part of the key are in.
fn point_hash(key: &Key, image: &Image, twins: usize) -> u128 {
    const OWNERSHIP: [&str; 4] = [LABEL_POLICY, LABEL_SOURCE, LABEL_SLOT, LABEL_KEY];
    digest(|hasher| {
        (key.slot, image.state, image.stage, twins, &image.location, image.kind).hash(hasher);
        if image.state != ImageState::Ready {
            image.created_at.hash(hasher);
        }
        image.in_use_by.hash(hasher);
        for (label, value) in &image.labels {
            if label.starts_with(crate::name::LABEL_PREFIX) && !OWNERSHIP.contains(&label.as_str())
            {
                (label, value).hash(hasher);
            }
        }
    })
}

/// A hash of 128 bits. It never leaves the process: it only tells equal states.
fn digest(write: impl Fn(&mut DefaultHasher)) -> u128 {
    let lane = |number: u8| {
        let mut hasher = DefaultHasher::new();
        number.hash(&mut hasher);
        write(&mut hasher);
        u128::from(hasher.finish())
    };
    (lane(0) << 64) | lane(1)
}
