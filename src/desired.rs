//! What should be: the policies over an inventory, at one instant.
//!
//! For each series (a policy and a source) it says which slot is due, what retention thinks of
//! each point, and what stands in the way of letting points go. It compares nothing and plans
//! nothing: `plan` does. Pure, like all of this level.

mod copies;
mod due;
mod remainder;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

pub use due::{Due, MISSED_MAX, MissedSlots, Slots, start_of};
pub use source::{Presence, SourceState, is_settled, mark_of};

use crate::elapsed::Elapsed;
use crate::inventory::{Content, EngineInventory, Image, ImageState, Instance, Inventory, Via};
use crate::name::{Key, NameError, Ownership, PolicyName, Slot, SourceId};
use crate::policy::meant::{Exemption, OnSourceGone, Pause};
use crate::policy::select::{Decision, Index};
use crate::policy::{Policies, Policy};
use crate::retention::{Fate, Point, Retention, retain};

/// Without a length of its own, a series is stalled when so many slots have passed without a new
/// READY point.
pub const STALLED_PERIODS: usize = 3;

/// What should be, engine by engine.
#[derive(Debug)]
pub struct Desired<'a> {
    /// One entry per engine, in the order of the inventory.
    pub engines: Vec<EngineDesired<'a>>,
    /// Engines that policies name and the inventory does not hold.
    pub unseen: BTreeSet<&'a str>,
}

/// What should be on one engine.
#[derive(Debug)]
pub struct EngineDesired<'a> {
    /// What it was seen to hold.
    pub engine: &'a EngineInventory,
    /// In the order of policy and source.
    pub series: Vec<Series<'a>>,
    /// Images of policies that are not in the files, or that now belong to another engine.
    pub orphans: BTreeMap<PolicyName, Vec<&'a Image>>,
    /// Images with some labels of ours that do not parse back to a key.
    pub broken: Vec<(&'a Image, NameError)>,
    /// How many images carry no label of ours.
    pub foreign: usize,
    /// Instances that no policy selects, with the policy that excludes them, if one does.
    pub unprotected: Vec<(&'a Instance, Option<(&'a Policy, String)>)>,
    /// Instances that no policy selects and that are meant to be without protection.
    pub exempt: Vec<(&'a Instance, &'a Exemption)>,
}

/// A policy and a source of it.
#[derive(Debug)]
pub struct Series<'a> {
    /// The policy.
    pub policy: &'a Policy,
    /// The id of the source.
    pub source: SourceId,
    /// What is known of the source.
    pub state: SourceState<'a>,
    /// What is due.
    pub due: Due,
    /// Slots that have no point and can have none any more.
    pub missed: Option<MissedSlots>,
    /// Its points, the oldest first.
    pub points: Vec<SeriesPoint<'a>>,
    /// Copies of its points in other locations, the oldest first.
    pub copies: Vec<SeriesPoint<'a>>,
    /// Snapshots that are steps on the way to one of its points, or were: no points.
    pub steps: Vec<SeriesPoint<'a>>,
    /// What the policy does not do at present.
    pub pauses: Arc<[Pause]>,
    /// The drill that is due, if the policy has one: its last firing.
    pub drill: Option<Timestamp>,
    /// Since when there is no new READY point, where that is too long.
    pub stalled: bool,
}

/// A point of a series.
#[derive(Debug)]
pub struct SeriesPoint<'a> {
    /// Its identity.
    pub key: Key,
    /// Its image.
    pub image: &'a Image,
    /// Why the policy holds it, where it does.
    pub hold: Option<&'a str>,
    /// What retention says of it as things are.
    pub fate: Fate,
    /// What retention says of it once the due point is READY.
    pub fate_after: Fate,
}

impl<'a> Series<'a> {
    /// The newest READY point that is not in the future.
    pub fn newest_ready(&self, now: Timestamp) -> Option<&SeriesPoint<'a>> {
        self.points.iter().rev().find(|point| point.is_ready(now))
    }

    /// The newest copy in each location that is READY and not in the future.
    pub fn newest_copies(&self, now: Timestamp) -> BTreeMap<&'a str, &SeriesPoint<'a>> {
        let ready = self.copies.iter().filter(|copy| copy.is_ready(now));
        ready.map(|copy| (copy.image.location.as_str(), copy)).collect()
    }

    /// The step to the point that is due, where a run before has left one, or another is at it: what
    /// makes the point takes it up, and captures nothing anew.
    pub fn step_to_due(&self) -> Option<&SeriesPoint<'a>> {
        let Due::Create { slot, .. } = &self.due else { return None };
        if self.policy.capture.via != Via::Snapshot {
            return None;
        }
        let is_it =
            |step: &&SeriesPoint<'_>| step.key.slot == *slot && step.key.policy == self.policy.name;
        self.steps.iter().find(is_it)
    }

    /// Whether what makes the point that is due takes up what a run before has captured for it: a step to
    /// it, or a set that was begun. No disk is captured a second time then.
    pub fn takes_up(&self) -> bool {
        let Due::Create { slot, .. } = &self.due else { return false };
        let is_begun = |point: &SeriesPoint<'_>| {
            let key = &point.key;
            point.image.state == ImageState::Begun
                && key.slot == *slot
                && key.policy == self.policy.name
        };
        self.step_to_due().is_some() || self.points.iter().any(is_begun)
    }

    /// The name of the source: its own, or the one its newest image remembers.
    pub fn source_name(&self) -> &'a str {
        if let Some(instance) = self.state.instance() {
            return &instance.name;
        }
        let remembered = self.points.iter().rev().find_map(|point| point.image.source.as_ref());
        remembered.map_or("", |source| &source.name)
    }
}

impl SeriesPoint<'_> {
    /// Whether it can be restored and is not in the future.
    pub fn is_ready(&self, now: Timestamp) -> bool {
        self.image.state == ImageState::Ready
            && self.key.slot.instant() <= crate::retention::CLOCK_SKEW.after(now)
    }

    /// Whether a hold keeps it, by a label or by the policy.
    pub fn is_held(&self, now: Timestamp) -> bool {
        self.hold.is_some() || self.image.is_held(now)
    }
}

/// Says what should be.
pub fn desired<'a>(
    policies: &'a Policies,
    inventory: &'a Inventory,
    now: Timestamp,
) -> Desired<'a> {
    let engines =
        inventory.engines.iter().map(|engine| engine_desired(policies, engine, now)).collect();
    let is_seen = |name: &str| inventory.engines.iter().any(|engine| engine.name == name);
    let named = policies.policies.iter().map(|policy| policy.engine.as_str());
    let unseen = named.filter(|name| !is_seen(name)).collect();
    Desired { engines, unseen }
}

/// The images of each source of a policy.
type ImagesBySource<'a> = BTreeMap<SourceId, Vec<(Key, &'a Image)>>;

/// The images of one engine, told apart by who made them.
struct Sorted<'a> {
    series: BTreeMap<PolicyName, ImagesBySource<'a>>,
    orphans: BTreeMap<PolicyName, Vec<&'a Image>>,
    broken: Vec<(&'a Image, NameError)>,
    foreign: usize,
}

fn sort_images<'a>(policies: &'a Policies, engine: &'a EngineInventory) -> Sorted<'a> {
    let mut sorted = Sorted {
        series: BTreeMap::new(),
        orphans: BTreeMap::new(),
        broken: Vec::new(),
        foreign: 0,
    };
    for image in &engine.images {
        match image.ownership() {
            Ownership::Foreign => sorted.foreign += 1,
            Ownership::Broken(error) => sorted.broken.push((image, error)),
            Ownership::Ours(key) => {
                let keeper =
                    policies.keeper(&key.policy).filter(|policy| policy.engine == engine.name);
                if let Some(keeper) = keeper {
                    let series = sorted.series.entry(keeper.name.clone()).or_default();
                    let source = series.entry(key.source);
                    // The keys of a series share their texts.
                    let policy =
                        if keeper.name == key.policy { keeper.name.clone() } else { key.policy };
                    let key = Key { policy, source: source.key().clone(), slot: key.slot };
                    source.or_default().push((key, image));
                } else {
                    sorted.orphans.entry(key.policy).or_default().push(image);
                }
            }
        }
    }
    for images in sorted.series.values_mut().flat_map(BTreeMap::values_mut) {
        images.sort_by(|(key, image), (other_key, other)| {
            (key.slot, &image.id).cmp(&(other_key.slot, &other.id))
        });
    }
    sorted
}

fn engine_desired<'a>(
    policies: &'a Policies,
    engine: &'a EngineInventory,
    now: Timestamp,
) -> EngineDesired<'a> {
    let mut sorted = sort_images(policies, engine);
    let by_id: BTreeMap<&SourceId, &Instance> =
        engine.instances.iter().map(|instance| (&instance.id, instance)).collect();
    let mut protected = vec![false; engine.instances.len()];
    let mut excluded: Vec<Option<(&Policy, String)>> = vec![None; engine.instances.len()];
    let mut series = Vec::new();
    let own: Vec<&Policy> = policies.all().filter(|policy| policy.engine == engine.name).collect();
    let mut selected: Vec<BTreeMap<SourceId, SourceState<'a>>> = vec![BTreeMap::new(); own.len()];
    let selections = Index::new(own.iter().map(|policy| &policy.selection));
    for (index, instance) in engine.instances.iter().enumerate() {
        for (position, decision) in selections.decide(instance) {
            match decision {
                Decision::Selected(_) => {
                    protected[index] = true;
                    selected[position].insert(instance.id.clone(), SourceState::present(instance));
                }
                Decision::Excluded(by) => {
                    excluded[index].get_or_insert_with(|| (own[position], by.to_string()));
                }
                Decision::NotMatched => {}
            }
        }
    }
    for (policy, mut sources) in own.into_iter().zip(selected) {
        let slots = Slots::new(policy, now);
        // All images of the policy, whether their source is still there or not.
        let mut images = sorted.series.remove(&policy.name).unwrap_or_default();
        for source in images.keys() {
            sources
                .entry(source.clone())
                .or_insert_with(|| SourceState::absent(engine, by_id.get(source).copied()));
        }
        for (source, state) in sources {
            let own = images.remove(&source).unwrap_or_default();
            series.push(one_series(policy, source, state.presence, own, &slots, now));
        }
    }
    let (mut unprotected, mut exempt) = (Vec::new(), Vec::new());
    for ((instance, excluded), _) in
        engine.instances.iter().zip(excluded).zip(protected).filter(|(_, protected)| !protected)
    {
        let mut exemptions = policies.config.exemptions.iter();
        match exemptions.find(|one| one.covers(&engine.name, instance) && !one.has_ended(now)) {
            Some(exemption) => exempt.push((instance, exemption)),
            None => unprotected.push((instance, excluded)),
        }
    }
    EngineDesired {
        engine,
        series,
        orphans: sorted.orphans,
        broken: sorted.broken,
        foreign: sorted.foreign,
        unprotected,
        exempt,
    }
}

/// What should be of one series, given its images, the oldest first, and the slots of its policy.
pub fn one_series<'a>(
    policy: &'a Policy,
    source: SourceId,
    presence: Presence<'a>,
    images: Vec<(Key, &'a Image)>,
    slots: &Slots,
    now: Timestamp,
) -> Series<'a> {
    let (steps, images): (Vec<_>, Vec<_>) =
        images.into_iter().partition(|(_, image)| image.is_step());
    let (copies, images): (Vec<_>, Vec<_>) =
        images.into_iter().partition(|(_, image)| image.is_copy());
    let mut state = SourceState { presence, marked_since: None };
    state.read_marks(policy, &images, now);
    let due = slots.due(policy, &source, &state, &images, now);
    let missed = slots.missed(policy, &due, &images);
    let coming = match due {
        Due::Create { slot, .. } => Some(slot),
        _ => None,
    };
    let expired = expired(policy, &state, now);
    let judge = Judge {
        policy,
        source: &source,
        retention: expired.as_ref().unwrap_or(&policy.retention),
        source_name: state.instance().map(|instance| instance.name.as_str()),
        now,
    };
    let mut by_location: BTreeMap<&str, Vec<(Key, &Image)>> = BTreeMap::new();
    for (key, image) in copies {
        by_location.entry(&image.location).or_default().push((key, image));
    }
    // The coming point is copied in the same plan.
    let is_copied = |location: &str| policy.copies.iter().any(|copied| copied == location);
    let copies = by_location
        .into_iter()
        .flat_map(|(location, copies)| judge.points(copies, coming.filter(|_| is_copied(location))))
        .collect();
    let points = judge.points(images, coming);
    // Nothing is kept for their sake.
    let steps = judge.points(steps, None);
    let mut series = Series {
        policy,
        source,
        state,
        due,
        missed,
        points,
        copies,
        steps,
        pauses: slots.pauses(),
        drill: slots.drill(),
        stalled: false,
    };
    series.stalled = is_stalled(&series, slots, now);
    series
}

/// What is kept of a source that is gone for good, where the policy says that its restore points
/// expire: the newest.
fn expired(policy: &Policy, state: &SourceState<'_>, now: Timestamp) -> Option<Retention> {
    let lifecycle = &policy.lifecycle;
    let expires = lifecycle.on_source_gone == OnSourceGone::Expire && state.is_gone();
    let since = state.marked_since.filter(|_| expires)?;
    let has_passed = lifecycle.source_gone_grace.after(since) <= now;
    has_passed.then(Retention::newest)
}

/// Says what retention thinks of the points of one series.
struct Judge<'a, 'r> {
    policy: &'a Policy,
    source: &'r SourceId,
    retention: &'r Retention,
    source_name: Option<&'a str>,
    now: Timestamp,
}

impl<'a> Judge<'a, '_> {
    /// The points of images, as things are and once the coming one is READY.
    fn points(&self, images: Vec<(Key, &'a Image)>, coming: Option<Slot>) -> Vec<SeriesPoint<'a>> {
        let (policy, now) = (self.policy, self.now);
        let holds: Vec<Option<&str>> = images
            .iter()
            .map(|(key, image)| {
                let hold = policy.hold_on(key, image, self.source_name, now)?;
                Some(hold.reason.as_str())
            })
            .collect();
        let mut points: Vec<Point<'_>> = images
            .iter()
            .zip(&holds)
            .map(|((key, image), hold)| Point {
                slot: key.slot,
                id: &image.id,
                content: image.content(),
                ready: image.state == ImageState::Ready,
                held: hold.is_some() || image.is_held(now),
            })
            .collect();
        let zone = &policy.schedule.zone;
        let fates = retain(&points, self.retention, zone, now);
        let fates_after = match coming {
            Some(slot) => {
                let (name, source) = (policy.name.clone(), self.source.clone());
                let key = Key { policy: name, source, slot };
                let held = policy.will_hold(&key, self.source_name, now);
                let content = Content::default();
                points.push(Point { slot, id: "", content, ready: true, held });
                let mut fates = retain(&points, self.retention, zone, now);
                fates.truncate(images.len());
                fates
            }
            None => fates.clone(),
        };
        images
            .into_iter()
            .zip(holds)
            .zip(fates.into_iter().zip(fates_after))
            .map(|(((key, image), hold), (fate, fate_after))| SeriesPoint {
                key,
                image,
                hold,
                fate,
                fate_after,
            })
            .collect()
    }
}

/// Whether there is no new READY point for too long. A source that is gone brings no new points,
/// and nobody expects any: it is retired instead.
fn is_stalled(series: &Series<'_>, slots: &Slots, now: Timestamp) -> bool {
    if !matches!(series.state.presence, Presence::Present(_)) {
        return false;
    }
    let Some(newest) = series.newest_ready(now) else {
        return true;
    };
    let slot = newest.key.slot;
    match series.policy.stalled_after {
        Some(limit) => Elapsed::between(slot.instant(), now) > limit,
        None => slots.have_passed(STALLED_PERIODS, slot, now),
    }
}
