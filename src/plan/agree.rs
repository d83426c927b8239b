//! What two plans have in common: an approved one and the one made just before it is carried out.

use std::collections::{BTreeMap, BTreeSet};

use super::action::{Action, Reason, ReasonCode};
use super::document::{Change, Create, ImageRef, Plan, Update};
use super::guard::VALIDITY;
use crate::inventory::{Image, Inventory, LABEL_DRILLED};
use crate::name::parse_stamp;

/// The fresh plan without the changes that were not approved, and those changes, with what hangs on an image
/// that none of the rest makes. What was approved and is no longer needed is gone by itself.
pub fn in_both(approved: &Plan, mut fresh: Plan) -> (Plan, Vec<Change>) {
    let changes = std::mem::take(&mut fresh.changes);
    let (mut both, mut only_fresh): (Vec<_>, Vec<_>) = changes.into_iter().partition(|change| {
        let mut changes = approved.changes.iter();
        changes.any(|other| is_same(other, change) || has_come(other, change))
    });
    loop {
        let made: BTreeSet<(String, String)> = both.iter().filter_map(made_by).collect();
        let is_made = |change: &Change| {
            let awaited = change.waits_for.as_ref().or(change.unless.as_ref());
            awaited.is_none_or(|name| made.contains(&(change.engine.clone(), name.clone())))
        };
        let (rest, without): (Vec<_>, Vec<_>) = both.into_iter().partition(is_made);
        both = rest;
        if without.is_empty() {
            break;
        }
        // What is waited for may be a copy that waits itself.
        only_fresh.extend(without);
    }
    fresh.changes = both;
    (fresh, only_fresh)
}

/// The image that a change makes: its engine and its name.
fn made_by(change: &Change) -> Option<(String, String)> {
    let copied = change.copy.as_ref().map(|copy| &copy.name);
    let name = copied.or(change.create.as_ref().map(|_| &change.image.name))?;
    Some((change.engine.clone(), name.clone()))
}

/// Of what is new since a plan was approved that which it would have done as well, to the image as it was
/// then: engines and ids.
pub fn changed_since(approved: &Plan, new: &[Change]) -> BTreeSet<(String, String)> {
    let was_approved = |change: &&Change| {
        approved.changes.iter().any(|other| {
            other.engine == change.engine
                && other.action == change.action
                && other.image.id == change.image.id
        })
    };
    let changed = new.iter().filter(was_approved);
    changed.filter_map(|change| Some((change.engine.clone(), change.image.id.clone()?))).collect()
}

/// The positions of the changes of a plan that a fresh plan, made when its captures had ended, still
/// wants.
pub fn still_wanted(plan: &Plan, fresh: &Plan, inventory: &Inventory) -> BTreeSet<usize> {
    plan.changes
        .iter()
        .enumerate()
        .filter(|(_, change)| {
            fresh.changes.iter().any(|other| is_same(change, other) || is_part(change, other))
                || is_still_let_go(change, fresh, inventory)
        })
        .map(|(index, _)| index)
        .collect()
}

/// What has become of a change that was planned, by the time it was to be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overtaken {
    /// Another run has done it.
    Done,
    /// Nothing is to be done to the image any more.
    Needless,
}

/// The positions of the changes of a plan to images that were there of which nothing is left to do, over a later
/// inventory and the fresh plan for it. What was not seen whole says nothing.
pub fn overtaken(plan: &Plan, fresh: &Plan, inventory: &Inventory) -> BTreeMap<usize, Overtaken> {
    let of = |change: &Change| {
        let id = change.image.id.as_deref()?;
        let mut engines = inventory.engines.iter();
        let engine =
            engines.find(|engine| engine.name == change.engine && engine.gaps.is_empty())?;
        let image = engine.images.iter().find(|image| image.id == id);
        let is_done = match (change.action, image, &change.update) {
            (Action::Delete, None, _) => true,
            (Action::Delete, Some(_), _) | (_, None, _) | (_, _, None) => false,
            (_, Some(image), Some(update)) => is_as(image, update, &change.image),
        };
        if is_done {
            return Some(Overtaken::Done);
        }
        let is_it = |engine: &str, image: &ImageRef| {
            engine == change.engine && image.id.as_deref() == Some(id)
        };
        // That it is brought back is no reason to let go of it.
        let is_alike = |other: &Change| lowers(other.action) == lowers(change.action);
        let mut changes = fresh.changes.iter().filter(|other| is_alike(other));
        let is_meant = changes.any(|other| is_it(&other.engine, &other.image))
            || fresh.held_back.iter().any(|held| is_it(&held.engine, &held.image));
        (!is_meant).then_some(Overtaken::Needless)
    };
    let changes = plan.changes.iter().enumerate();
    changes.filter_map(|(index, change)| Some((index, of(change)?))).collect()
}

/// Whether an action lets go of an image.
fn lowers(action: Action) -> bool {
    matches!(action, Action::Deprecate | Action::Obsolete | Action::Delete)
}

/// Whether an image is no longer what it was, and is what a change would make of it.
pub(crate) fn is_as(image: &Image, update: &Update, before: &ImageRef) -> bool {
    let labels = &image.labels;
    before.fingerprint.as_ref() != Some(&image.fingerprint)
        && image.stage == update.stage_after
        && update.set_labels.keys().all(|label| labels.contains_key(label))
        && (!update.set_labels.contains_key(LABEL_DRILLED) || is_drilled(image, update))
        && !update.remove_labels.iter().any(|label| labels.contains_key(label))
        && (update.sharing.is_none() || update.sharing == image.sharing)
}

/// Whether an image was drilled about when a change was planned that drills it, and not long before.
fn is_drilled(image: &Image, update: &Update) -> bool {
    let planned = update.set_labels.get(LABEL_DRILLED).and_then(|text| parse_stamp(text));
    let since = planned.map(|planned| VALIDITY.before(planned));
    image.drilled_at().is_some_and(|at| since.is_some_and(|since| at >= since))
}

/// Whether a change of labels is a part of what the other one does to the same image: what was made may be a
/// reason to let go of it, which comes with the next round. What goes needs no other label and nobody else who
/// may use it, and neither is in the way.
fn is_part(change: &Change, other: &Change) -> bool {
    let (Some(update), Action::Relabel) = (&change.update, change.action) else { return false };
    let goes = matches!(other.action, Action::Deprecate | Action::Delete);
    let has_all = other.update.as_ref().map_or(goes, |wider| {
        update.remove_labels.iter().all(|label| wider.remove_labels.contains(label))
            && update.set_labels.keys().all(|label| wider.set_labels.contains_key(label))
            && (goes || update.sharing.is_none() || update.sharing == wider.sharing)
    });
    has_all && change.image.id.is_some() && is_of_same(change, other)
}

/// What waited for a point that is there now: the fresh plan lets go of the image as well, and may
/// only have more to say about it, because an older mark counts again.
fn is_still_let_go(change: &Change, fresh: &Plan, inventory: &Inventory) -> bool {
    let id = change.image.id.as_ref();
    let is_unchanged = inventory
        .engines
        .iter()
        .filter(|engine| engine.name == change.engine)
        .flat_map(|engine| &engine.images)
        .any(|image| {
            Some(&image.id) == id && Some(&image.fingerprint) == change.image.fingerprint.as_ref()
        });
    let goes = fresh.changes.iter().any(|other| {
        other.engine == change.engine
            && other.image.id.as_ref() == id
            && matches!(other.action, Action::Deprecate | Action::Delete)
    });
    // What keeps it from being deleted keeps it from nothing before that.
    let is_needed =
        |reason: &Reason| matches!(reason.code, ReasonCode::InUse | ReasonCode::CopyMissing);
    let is_held_back = fresh.held_back.iter().any(|held| {
        held.engine == change.engine
            && held.image.id.as_ref() == id
            && held.action == Action::Delete
            && held.reasons.first().is_some_and(is_needed)
    });
    let says_so =
        |reasons: &[Reason]| reasons.iter().any(|reason| reason.code == ReasonCode::InGrace);
    let is_in_grace = fresh.kept.iter().any(|kept| {
        *kept.engine == *change.engine && Some(&kept.id) == id && says_so(&kept.reasons)
    }) || fresh.changes.iter().any(|other| {
        other.engine == change.engine
            && other.image.id.as_ref() == id
            && is_part(other, change)
            && says_so(&other.reasons)
    });
    change.waits_for.is_some()
        && change.action == Action::Deprecate
        && is_unchanged
        && (goes || is_in_grace || is_held_back)
}

/// Whether a change of an image that was yet to be made is the other one, of that image as it is now.
fn has_come(coming: &Change, now: &Change) -> bool {
    let mut made = coming.clone();
    made.image.id.clone_from(&now.image.id);
    made.image.created_at = now.image.created_at;
    made.image.fingerprint.clone_from(&now.image.fingerprint);
    coming.image.id.is_none()
        && coming.waits_for.as_ref() == Some(&coming.image.name)
        && is_same(&made, now)
}

/// Whether two changes do the same to the same: what an approval is bound to.
fn is_same(one: &Change, other: &Change) -> bool {
    one.action == other.action
        && is_of_same(one, other)
        && one.copy == other.copy
        && one.drill == other.drill
        && one.create.as_ref().map(captured) == other.create.as_ref().map(captured)
        && one.update.as_ref().map(relabelled) == other.update.as_ref().map(relabelled)
}

/// Whether two changes are of one image, as it is.
fn is_of_same(one: &Change, other: &Change) -> bool {
    one.engine == other.engine
        && one.key == other.key
        && one.image.id == other.image.id
        && one.image.name == other.image.name
        && one.image.created_at == other.image.created_at
        && one.image.fingerprint == other.image.fingerprint
        && one.image.location == other.image.location
}

/// What a capture takes, what it is kept under and what makes room for it; its deadline is no part
/// of it.
fn captured(create: &Create) -> impl PartialEq + '_ {
    let replaced = create.replaces.as_ref().and_then(|image| image.id.as_ref());
    let place = (&create.kms_key, &create.family, &create.sharing, &create.tier);
    ((create.kind, create.via), create.consistency, place, &create.disks, &create.labels, replaced)
}

/// What changes on an image; labels that hold the time of the change differ from plan to plan.
fn relabelled(update: &Update) -> impl PartialEq + '_ {
    let set: Vec<&String> = update.set_labels.keys().collect();
    (update.stage_before, update.stage_after, set, &update.remove_labels, &update.sharing)
}
