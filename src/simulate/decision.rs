//! What the real planner and the real guards decide about one series, in positions of its points
//! instead of ids, so that it holds for every series in the same state.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::bare::Bare;
use super::series::{Point, World};
use super::state::simulated;
use crate::desired::{Slots, one_series};
use crate::inventory::{FORMAT_VERSION, Image, ImageKind, ImageState, Instance, Inventory};
use crate::name::{Key, Slot};
use crate::plan::guard::{Guard, guard};
use crate::plan::{
    Action, Change, ImageRef, Plan, SeriesPart, Telling, Update, plan, plan_series, still_wanted,
};
use crate::policy::Policies;
use crate::policy::meant::Hold;
use crate::retention::CLOCK_SKEW;

/// What is done to one series in one round.
#[derive(Debug, Default)]
pub(super) struct Decision {
    pub(super) creation: Option<Creation>,
    pub(super) updates: Vec<Step>,
    pub(super) deletes: Vec<Removal>,
    copies: Vec<Copying>,
    pub(super) drill: Option<Drilling>,
    pub(super) missed: Option<(Slot, Slot, usize)>,
    pub(super) blocked: Option<String>,
    pub(super) stalled: bool,
}

impl Decision {
    /// The copies that are made, by whether the capture of this round became READY.
    pub(super) fn copied(&self, is_ready: bool) -> impl Iterator<Item = &Copying> {
        self.copies.iter().filter(move |copy| copy.of.is_some() || is_ready)
    }

    /// Whether anything is done before the second look.
    fn takes_time(&self) -> bool {
        self.creation.is_some() || !self.copies.is_empty() || self.drill.is_some()
    }
}

/// A copy to be made.
#[derive(Debug)]
pub(super) struct Copying {
    /// Its original; `None` where that is the capture of this round.
    pub(super) of: Option<usize>,
    pub(super) kind: ImageKind,
    pub(super) location: String,
    /// The failed attempt that makes room.
    pub(super) replaces: Option<usize>,
}

/// A point to be proven restorable.
#[derive(Debug)]
pub(super) struct Drilling {
    /// `None` where it is the capture of this round.
    pub(super) of: Option<usize>,
    /// What is written on it afterwards.
    pub(super) update: Update,
}

impl Drilling {
    /// Whether it takes place, by whether the capture of this round became READY.
    pub(super) fn is_done(&self, is_ready: bool) -> bool {
        self.of.is_some() || is_ready
    }
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
    /// The one that refuses it then, where there was no capture or it failed.
    refused_otherwise: Option<Guard>,
}

impl Removal {
    /// The guard of single series that refuses it, by what became of the capture of this round.
    pub(super) fn refused(&self, is_ready: bool) -> Option<Guard> {
        self.refused.or(if is_ready { self.refused_if_ready } else { self.refused_otherwise })
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
    let part = plan_series(
        &bare.engine,
        &series,
        &|name| bare.names.contains(name),
        now,
        Telling::Changes,
    );
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
    let mut groups: BTreeMap<Option<&str>, usize> = BTreeMap::new();
    for change in deletes() {
        let point = position(world, change.key.slot, change.image.id.as_ref());
        let location = point.and_then(|index| world.points[index].copied_to());
        *groups.entry(location).or_default() += 1;
    }
    let horizon = CLOCK_SKEW.after(now);
    let ready = |location: Option<&str>| {
        let counts = |point: &&Point| {
            point.is_ready() && point.copied_to() == location && point.key.slot.instant() <= horizon
        };
        world.points.iter().filter(counts).count()
    };
    let percent = guards.series_percent as usize;
    groups.iter().any(|(location, deletes)| deletes * 100 > percent * ready(*location))
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

/// The position of a point.
fn position(world: &World<'_>, slot: Slot, id: Option<&String>) -> Option<usize> {
    let first = world.points.partition_point(|point| point.key.slot < slot);
    let twins = world.points[first..].iter().take_while(|point| point.key.slot == slot);
    Some(first + twins.map(|point| &point.image.id).position(|other| Some(other) == id)?)
}

/// Ids as positions.
fn told(world: &World<'_>, part: SeriesPart) -> Decision {
    let position = |slot: Slot, id: Option<&String>| position(world, slot, id);
    let replaced = |slot: Slot, image: Option<&ImageRef>| {
        position(slot, image.and_then(|image| image.id.as_ref()))
    };
    let mut decision = Decision {
        missed: part.missed.first().map(|missed| (missed.first, missed.key.slot, missed.slots)),
        blocked: part.blocked.into_iter().next().map(|blocked| blocked.message),
        stalled: part.stalled.is_some(),
        ..Decision::default()
    };
    for change in part.changes {
        let index = position(change.key.slot, change.image.id.as_ref());
        let Change { action, key, image, waits_for, create, update, copy, .. } = change;
        match (action, index, create, update) {
            (Action::Copy, of, ..) => decision.copies.extend(copy.map(|copy| Copying {
                of,
                kind: of.map_or(world.policy.capture.kind, |of| world.points[of].image.kind),
                replaces: replaced(key.slot, copy.replaces.as_ref()),
                location: copy.location,
            })),
            (Action::Drill, of, _, Some(update)) => decision.drill = Some(Drilling { of, update }),
            (Action::Create, _, Some(create), _) => {
                decision.creation = Some(Creation {
                    slot: key.slot,
                    replaces: replaced(key.slot, create.replaces.as_ref()),
                    kind: create.kind,
                    location: image.location,
                });
            }
            (Action::Delete, Some(index), ..) => {
                let is_ready = world.points[index].image.state == ImageState::Ready;
                decision.deletes.push(Removal {
                    index,
                    is_ready,
                    refused: None,
                    refused_if_ready: None,
                    refused_otherwise: None,
                });
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
    // What a hold keeps takes no place of a rule: then others stay for which it was to come.
    let may_hold = |hold: &Hold| hold.until.is_none_or(|until| now < until);
    let holds = decision.takes_time() && world.policy.holds.iter().any(may_hold);
    let is_certain = decision.updates.iter().all(|step| !holds && is_certain(step));
    let is_certain = !decision.takes_time() || is_certain;
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
    if !decision.takes_time() {
        return;
    }
    let (ready, failed) = (
        carried_out(world, &before, decision, ImageState::Ready, now),
        carried_out(world, &before, decision, ImageState::Failed, now),
    );
    let refused_of = |after: &Inventory| refusals(&approved, after, policies, now);
    let (if_ready, otherwise) = (refused_of(&ready), refused_of(&failed));
    for removal in &mut decision.deletes {
        removal.refused_if_ready = if_ready.get(id(removal.index)).copied();
        removal.refused_otherwise = otherwise.get(id(removal.index)).copied();
    }
    let wanted = |after: &Inventory| second_look(&approved, after, policies, now);
    let (if_ready, otherwise) = (wanted(&ready), wanted(&failed));
    for step in &mut decision.updates {
        step.if_ready &= if_ready.contains(id(step.index));
        step.otherwise &= otherwise.contains(id(step.index));
    }
}

/// The inventory after what takes time: a capture that ended so, copies and a drill.
fn carried_out(
    world: &World<'_>,
    before: &Inventory,
    decision: &Decision,
    state: ImageState,
    now: Timestamp,
) -> Inventory {
    let is_ready = decision.creation.is_some() && state == ImageState::Ready;
    let drill = decision.drill.as_ref().filter(|drill| drill.is_done(is_ready));
    let drilled = |of: Option<usize>| {
        let drill = drill.filter(|drill| drill.of == of);
        drill.map(|drill| drill.update.set_labels.clone()).unwrap_or_default()
    };
    let mut after = before.clone();
    let replaced: BTreeSet<&String> = decision
        .copied(is_ready)
        .filter_map(|copy| copy.replaces)
        .chain(decision.creation.as_ref().and_then(|creation| creation.replaces))
        .map(|index| &world.points[index].image.id)
        .collect();
    for engine in &mut after.engines {
        if let Some(index) = drill.and_then(|drill| drill.of) {
            let id = &world.points[index].image.id;
            let point = engine.images.iter_mut().find(|image| image.id == *id);
            if let Some(image) = point {
                image.labels.extend(drilled(Some(index)));
            }
        }
        engine.images.retain(|image| !replaced.contains(&image.id));
        if let Some(creation) = &decision.creation {
            let location = creation.location.clone();
            let mut image = simulated(creation.kind, location, state, creation.slot, now);
            let key = world.key(creation.slot);
            image.name = world.image_name(&key);
            image.labels = key.labels();
            if is_ready {
                image.labels.extend(drilled(None));
            }
            engine.images.push(image);
        }
        let coming = decision.creation.as_ref().map(|creation| world.key(creation.slot));
        for copy in decision.copied(is_ready) {
            let original = copy.of.map(|index| &world.points[index].key);
            let Some(key) = original.or(coming.as_ref()) else { continue };
            let mut image = copy.image(key, now);
            image.name = world.copy_name(key, &copy.location);
            image.labels.extend(key.labels());
            engine.images.push(image);
        }
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
    pub(super) fn presence_instance(&self) -> Option<&Instance> {
        match self.presence {
            crate::desired::Presence::Present(instance)
            | crate::desired::Presence::Unselected(instance) => Some(instance),
            _ => None,
        }
    }
}
