//! What the real planner decides about one series, in positions of its points
//! instead of ids, so that it holds for every series in the same state.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::bare::Bare;
use super::series::World;
use super::state::simulated;
use crate::desired::{Slots, one_series};
use crate::inventory::{
    FORMAT_VERSION, Image, ImageKind, ImageSource, ImageState, Instance, Inventory,
    LABEL_DRILLED_BEFORE,
};
use crate::name::{Key, Slot};
use crate::plan::pace::{self, Candidate};
use crate::plan::{
    Action, Change, ImageRef, Plan, SeriesPart, Telling, Update, plan, plan_series, still_wanted,
};
use crate::policy::meant::Hold;
use crate::policy::{Policies, Risk};

/// Longer than a round.
const HOUR_SECONDS: u64 = 3_600;

/// What is done to one series in one round.
#[derive(Debug, Default)]
pub(super) struct Decision {
    pub(super) creation: Option<Creation>,
    /// Who wants the source for it, where the engine limits how often that may be.
    pub(super) wanted: Option<Candidate>,
    pub(super) updates: Vec<Step>,
    pub(super) deletes: Vec<Removal>,
    copies: Vec<Copying>,
    pub(super) drill: Option<Drilling>,
    pub(super) missed: Option<(Slot, Slot, usize)>,
    pub(super) blocked: Option<String>,
    pub(super) stalled: bool,
    /// Whether nothing keeps all of the series from being taken away.
    pub(super) is_free: bool,
}

impl Decision {
    /// The copies that are made, by whether the capture of this round became READY.
    pub(super) fn copied(&self, is_ready: bool) -> impl Iterator<Item = &Copying> {
        self.copies.iter().filter(move |copy| copy.of.is_some() || is_ready)
    }

    /// Whether anything is done before the second look.
    pub(super) fn takes_time(&self) -> bool {
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
    state: ImageState,
    /// Where it is a copy, in which location.
    pub(super) location: Option<String>,
    /// Whether the guards refuse its class.
    pub(super) is_risky: bool,
}

impl Removal {
    /// Whether guards count it among what something can be restored from.
    pub(super) fn holds_data(&self) -> bool {
        self.state.holds_data()
    }

    /// Whether it is what is left of a set: guards count it beside the READY points only where it goes.
    pub(super) fn is_remainder(&self) -> bool {
        self.state.is_remainder()
    }
}

/// A restore point to be made.
#[derive(Debug)]
pub(super) struct Creation {
    pub(super) slot: Slot,
    /// What it is to know beside its key.
    pub(super) labels: BTreeMap<String, String>,
    /// The failed attempt that makes room.
    pub(super) replaces: Option<usize>,
    pub(super) kind: ImageKind,
    pub(super) location: String,
}

/// Asks the planner. What guards refuse of it is asked elsewhere: all that could refuse what the planner
/// makes look at shares, numbers and classes; the others never refuse it, which is a law of its own.
pub(super) fn decide(
    world: &World<'_>,
    bare: &Bare<'_>,
    policies: &Policies,
    slots: &Slots,
    turn: Option<Timestamp>,
    now: Timestamp,
) -> Decision {
    let images: Vec<(Key, &Image)> =
        world.points.iter().map(|point| (point.key.clone(), &point.image)).collect();
    let series = one_series(world.policy, world.source.clone(), world.presence, images, slots, now);
    let part = plan_series(
        &bare.engine,
        &series,
        &|name| bare.names.contains(name),
        turn,
        now,
        Telling::Changes,
    );
    let wanted =
        Candidate::of(&series).filter(|_| pace::is_limited(&bare.engine.capabilities.limits));
    drop(series);
    let mut decision = told(world, part, &policies.config.guards.refuse);
    decision.wanted = wanted.filter(|_| decision.creation.is_some());
    look_again(world, bare, policies, &mut decision, (turn.is_some(), now));
    decision
}

/// The position of a point.
fn position(world: &World<'_>, slot: Slot, id: Option<&String>) -> Option<usize> {
    let first = world.points.partition_point(|point| point.key.slot < slot);
    let twins = world.points[first..].iter().take_while(|point| point.key.slot == slot);
    Some(first + twins.map(|point| &point.image.id).position(|other| Some(other) == id)?)
}

/// Ids as positions.
fn told(world: &World<'_>, part: SeriesPart, refused: &[Risk]) -> Decision {
    let position = |slot: Slot, id: Option<&String>| position(world, slot, id);
    let replaced = |slot: Slot, image: Option<&ImageRef>| {
        position(slot, image.and_then(|image| image.id.as_ref()))
    };
    let mut decision = Decision {
        missed: part.missed.first().map(|missed| (missed.first, missed.key.slot, missed.slots)),
        blocked: part.blocked.into_iter().next().map(|blocked| blocked.message),
        stalled: part.stalled.is_some(),
        is_free: part.is_free,
        ..Decision::default()
    };
    for change in part.changes {
        let index = position(change.key.slot, change.image.id.as_ref());
        let Change { action, key, image, waits_for, unless, create, update, copy, risk, .. } =
            change;
        match (action, index, create, update) {
            (Action::Copy, of, ..) => decision.copies.extend(copy.map(|copy| Copying {
                of,
                kind: of.map_or(world.policy.capture.kind, |of| world.points[of].image.kind),
                replaces: replaced(key.slot, copy.replaces.as_ref()),
                location: copy.location,
            })),
            (Action::Drill, of, _, Some(update)) => decision.drill = Some(Drilling { of, update }),
            (Action::Create, _, Some(mut create), _) => {
                decision.creation = Some(Creation {
                    labels: create.labels.remove_entry(LABEL_DRILLED_BEFORE).into_iter().collect(),
                    slot: key.slot,
                    replaces: replaced(key.slot, create.replaces.as_ref()),
                    kind: create.kind,
                    location: image.location,
                });
            }
            (Action::Delete, Some(index), ..) => {
                let point = &world.points[index];
                decision.deletes.push(Removal {
                    index,
                    state: point.image.state,
                    location: point.copied_to().map(str::to_owned),
                    is_risky: risk.is_some_and(|risk| refused.contains(&risk)),
                });
            }
            (_, Some(index), _, Some(update)) => {
                let (if_ready, otherwise) = (unless.is_none(), waits_for.is_none());
                decision.updates.push(Step { index, action, update, if_ready, otherwise });
            }
            _ => {}
        }
    }
    decision
}

/// The second look of apply, where it could want less than the first: letting a READY point go for the
/// first time and deleting are still wanted after a capture, whatever became of it; all else is asked.
fn look_again(
    world: &World<'_>,
    bare: &Bare<'_>,
    policies: &Policies,
    decision: &mut Decision,
    (waits, now): (bool, Timestamp),
) {
    if !decision.takes_time() {
        return;
    }
    let is_certain = |step: &Step| {
        let image = &world.points[step.index].image;
        step.action == Action::Deprecate
            && image.state == ImageState::Ready
            && image.let_go_at().is_none()
    };
    // What a hold keeps takes no place of a rule: then others stay for which it was to come.
    let may_hold = |hold: &Hold| hold.until.is_none_or(|until| now < until);
    let holds = world.policy.holds.iter().any(may_hold);
    if decision.updates.iter().all(|step| !holds && is_certain(step)) {
        return;
    }
    let id = |index: usize| &world.points[index].image.id;
    let mut before = inventory(world, bare, waits, now);
    let approved = plan(policies, &before, now);
    // What was captured just now is not captured again, also where that failed.
    let interval = bare.engine.capabilities.limits.source_interval_seconds;
    let is_captured = waits || (decision.creation.is_some() && interval.is_some());
    for engine in &mut before.engines {
        let interval = is_captured.then_some(HOUR_SECONDS);
        engine.capabilities.limits.source_interval_seconds = interval;
    }
    let (ready, failed) = (
        carried_out(world, &before, decision, ImageState::Ready, now),
        carried_out(world, &before, decision, ImageState::Failed, now),
    );
    let wanted = |after: &Inventory| second_look(&approved, after, policies, now);
    let (if_ready, otherwise) = (wanted(&ready), wanted(&failed));
    for step in &mut decision.updates {
        // Of two changes of a point, one is done if the capture is READY, and the other if not.
        let which = (id(step.index).clone(), !step.if_ready);
        step.if_ready &= if_ready.contains(&which);
        step.otherwise &= otherwise.contains(&which);
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
            image.labels.extend(creation.labels.clone());
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

/// The ids of the images for which a fresh plan after the capture still wants the same, and whether that is
/// only for where it fails.
fn second_look(
    approved: &Plan,
    after: &Inventory,
    policies: &Policies,
    now: Timestamp,
) -> BTreeSet<(String, bool)> {
    let fresh = plan(policies, after, now);
    let wanted = still_wanted(approved, &fresh, after);
    let ids = approved.changes.iter().enumerate().filter(|(index, _)| wanted.contains(index));
    ids.filter_map(|(_, change)| Some((change.image.id.clone()?, change.unless.is_some())))
        .collect()
}

/// The inventory of one series. Whose turn it is was decided over all: there is no limit, or, where it
/// waits, a capture of just now.
fn inventory(world: &World<'_>, bare: &Bare<'_>, waits: bool, now: Timestamp) -> Inventory {
    let mut engine = bare.engine.clone();
    let limits = &mut engine.capabilities.limits;
    limits.source_interval_seconds = waits.then_some(HOUR_SECONDS);
    limits.source_hourly = None;
    engine.images = world
        .points
        .iter()
        .map(|point| {
            let mut image = point.image.clone();
            image.labels.extend(point.key.labels());
            image
        })
        .collect();
    if waits {
        let (kind, source) = (world.policy.capture.kind, world.source.clone());
        let mut other = simulated(kind, String::new(), ImageState::Creating, Slot::at(now), now);
        other.source = Some(ImageSource { id: source, name: String::new() });
        engine.images.push(other);
    }
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
