//! What the real planner and the real guards decide about one series, in positions of its points
//! instead of ids, so that it holds for every series in the same state.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::series::{World, simulated};
use crate::desired::{Slots, one_series};
use crate::inventory::{
    EngineInventory, FORMAT_VERSION, Image, ImageKind, ImageState, Instance, Inventory,
};
use crate::name::{Key, Slot};
use crate::plan::guard::{Guard, guard};
use crate::plan::{
    Action, Change, Plan, SeriesPart, Telling, Update, plan, plan_series, still_wanted,
};
use crate::policy::Policies;

/// What is done to one series in one round.
#[derive(Debug, Default)]
pub(super) struct Decision {
    pub(super) creation: Option<Creation>,
    pub(super) updates: Vec<Step>,
    pub(super) deletes: Vec<Removal>,
    pub(super) missed: Option<(Slot, Slot, usize)>,
    pub(super) blocked: Option<String>,
    pub(super) stalled: bool,
}

/// A point whose labels or stage change.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) index: usize,
    pub(super) action: Action,
    pub(super) update: Update,
    /// Whether it is done where the capture of this round became READY.
    pub(super) if_ready: bool,
    /// Whether it is done where there was none or it failed.
    pub(super) otherwise: bool,
}

/// A point that goes.
#[derive(Debug)]
pub(super) struct Removal {
    pub(super) index: usize,
    pub(super) is_ready: bool,
    /// The guard of single series that refuses it.
    refused: Option<Guard>,
    /// The one that refuses it at the second look, once the capture of this round is READY.
    refused_if_ready: Option<Guard>,
}

impl Removal {
    /// The guard of single series that refuses it, by what became of the capture of this round.
    pub(super) fn refused(&self, is_ready: bool) -> Option<Guard> {
        self.refused.or(self.refused_if_ready.filter(|_| is_ready))
    }
}

/// A restore point to be made.
#[derive(Debug)]
pub(super) struct Creation {
    pub(super) slot: Slot,
    /// The failed attempt that makes room.
    pub(super) replaces: Option<usize>,
    pub(super) kind: ImageKind,
    pub(super) location: String,
}

/// What deciding needs to know of an engine.
pub(super) struct Bare<'b> {
    /// The engine without its instances and images, seen whole.
    pub(super) engine: &'b EngineInventory,
    /// Names of images that belong to no series.
    pub(super) names: &'b BTreeSet<&'b str>,
}

/// Asks the planner, and the guards wherever one that looks at single series could refuse.
pub(super) fn decide(
    world: &World<'_>,
    bare: &Bare<'_>,
    policies: &Policies,
    slots: &Slots,
    now: Timestamp,
) -> Decision {
    let images: Vec<(Key, &Image)> =
        world.points.iter().map(|point| (point.key.clone(), &point.image)).collect();
    let series = one_series(world.policy, world.source.clone(), world.presence, images, slots, now);
    let part =
        plan_series(bare.engine, &series, &|name| bare.names.contains(name), now, Telling::Changes);
    drop(series);
    let could_be_refused = could_be_refused(world, &part, policies, now);
    let mut decision = told(world, part);
    look_again(world, bare, policies, &mut decision, could_be_refused, now);
    decision
}

/// The guards that may refuse what the planner makes look at shares and classes; the others never
/// refuse it, which is a law of its own.
fn could_be_refused(
    world: &World<'_>,
    part: &SeriesPart,
    policies: &Policies,
    now: Timestamp,
) -> bool {
    let guards = &policies.config.guards;
    let deletes = || part.changes.iter().filter(|change| change.action == Action::Delete);
    let share = deletes().count() as u64 * 100;
    share > u64::from(guards.series_percent) * world.managed(now)
        || deletes().any(|change| change.risk.is_some_and(|risk| guards.refuse.contains(&risk)))
}

/// What the guards refuse of this series by itself. Those that look at a whole engine are asked
/// elsewhere.
fn refusals(
    plan: &Plan,
    inventory: &Inventory,
    policies: &Policies,
    now: Timestamp,
) -> BTreeMap<String, Guard> {
    let mut refused = BTreeMap::new();
    for refusal in guard(plan, inventory, policies, &[], now) {
        if !matches!(refusal.guard, Guard::EngineShare | Guard::EngineCount) {
            for image in refusal.images {
                refused.entry(image).or_insert(refusal.guard);
            }
        }
    }
    refused
}

/// Ids as positions.
fn told(world: &World<'_>, part: SeriesPart) -> Decision {
    let position = |slot: Slot, id: Option<&String>| -> Option<usize> {
        let first = world.points.partition_point(|point| point.key.slot < slot);
        let twins = world.points[first..].iter().take_while(|point| point.key.slot == slot);
        Some(first + twins.map(|point| &point.image.id).position(|other| Some(other) == id)?)
    };
    let mut decision = Decision {
        missed: part.missed.first().map(|missed| (missed.first, missed.key.slot, missed.slots)),
        blocked: part.blocked.into_iter().next().map(|blocked| blocked.message),
        stalled: part.stalled.is_some(),
        ..Decision::default()
    };
    for change in part.changes {
        let index = position(change.key.slot, change.image.id.as_ref());
        let Change { action, key, image, waits_for, create, update, .. } = change;
        match (action, index, create, update) {
            (Action::Create, _, Some(create), _) => {
                let replaced = create.replaces.as_ref().and_then(|image| image.id.as_ref());
                decision.creation = Some(Creation {
                    slot: key.slot,
                    replaces: position(key.slot, replaced),
                    kind: create.kind,
                    location: image.location,
                });
            }
            (Action::Delete, Some(index), ..) => {
                let is_ready = world.points[index].image.state == ImageState::Ready;
                let (refused, refused_if_ready) = (None, None);
                decision.deletes.push(Removal { index, is_ready, refused, refused_if_ready });
            }
            (_, Some(index), _, Some(update)) => {
                let otherwise = waits_for.is_none();
                decision.updates.push(Step { index, action, update, if_ready: true, otherwise });
            }
            _ => {}
        }
    }
    decision
}

/// The guards of single series, where they could refuse, and the second look of apply, where it could
/// want less than the first: letting a READY point go for the first time and deleting are still
/// wanted after a capture, whatever became of it; all else is asked.
fn look_again(
    world: &World<'_>,
    bare: &Bare<'_>,
    policies: &Policies,
    decision: &mut Decision,
    could_be_refused: bool,
    now: Timestamp,
) {
    let is_certain = |step: &Step| {
        let image = &world.points[step.index].image;
        step.action == Action::Deprecate
            && image.state == ImageState::Ready
            && image.let_go_at().is_none()
    };
    let is_certain = decision.creation.is_none() || decision.updates.iter().all(is_certain);
    if is_certain && !could_be_refused {
        return;
    }
    let id = |index: usize| &world.points[index].image.id;
    let before = inventory(world, bare, now);
    let approved = plan(policies, &before, now);
    let refused = refusals(&approved, &before, policies, now);
    for removal in &mut decision.deletes {
        removal.refused = refused.get(id(removal.index)).copied();
    }
    let Some(creation) = &decision.creation else { return };
    let after = captured(world, &before, creation, ImageState::Ready, now);
    let refused = refusals(&approved, &after, policies, now);
    for removal in &mut decision.deletes {
        removal.refused_if_ready = refused.get(id(removal.index)).copied();
    }
    let failed = captured(world, &before, creation, ImageState::Failed, now);
    let wanted = |after: &Inventory| second_look(&approved, after, policies, now);
    let (if_ready, otherwise) = (wanted(&after), wanted(&failed));
    for step in &mut decision.updates {
        step.if_ready &= if_ready.contains(id(step.index));
        step.otherwise &= otherwise.contains(id(step.index));
    }
}

/// The inventory after a capture.
fn captured(
    world: &World<'_>,
    before: &Inventory,
    creation: &Creation,
    state: ImageState,
    now: Timestamp,
) -> Inventory {
    let mut after = before.clone();
    let replaced = creation.replaces.map(|index| &world.points[index].image.id);
    for engine in &mut after.engines {
        engine.images.retain(|image| Some(&image.id) != replaced);
        let location = creation.location.clone();
        let mut image = simulated(creation.kind, location, state, creation.slot, now);
        image.labels = world.key(creation.slot).labels();
        engine.images.push(image);
    }
    after
}

/// The ids of the images for which a fresh plan after the capture still wants the same.
fn second_look(
    approved: &Plan,
    after: &Inventory,
    policies: &Policies,
    now: Timestamp,
) -> BTreeSet<String> {
    let fresh = plan(policies, after, now);
    let wanted = still_wanted(approved, &fresh, after);
    let ids = approved.changes.iter().enumerate().filter(|(index, _)| wanted.contains(index));
    ids.filter_map(|(_, change)| change.image.id.clone()).collect()
}

/// The inventory of one series.
fn inventory(world: &World<'_>, bare: &Bare<'_>, now: Timestamp) -> Inventory {
    let mut engine = bare.engine.clone();
    engine.images = world
        .points
        .iter()
        .map(|point| {
            let mut image = point.image.clone();
            image.labels.extend(point.key.labels());
            image
        })
        .collect();
    engine.instances = world.presence_instance().cloned().into_iter().collect();
    Inventory { format_version: FORMAT_VERSION.to_owned(), observed_at: now, engines: vec![engine] }
}

impl World<'_> {
    fn presence_instance(&self) -> Option<&Instance> {
        match self.presence {
            crate::desired::Presence::Present(instance)
            | crate::desired::Presence::Unselected(instance) => Some(instance),
            _ => None,
        }
    }
}
