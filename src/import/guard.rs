//! What no import may do, whoever planned it: read again from the inventory, and sharing nothing with
//! what decides what is imported.

use std::collections::BTreeSet;

use crate::inventory::{Image, ImageKind, ImageState, Inventory, LABEL_IMPORTED};
use crate::name::{Key, Ownership};
use crate::plan::guard::{Guard, Refusal};
use crate::plan::{Action, Change, Plan};
use crate::policy::Policies;

/// Refuses what does more than make one image, of a slot that has passed and that nothing stands for.
pub fn guard(plan: &Plan, policies: &Policies, inventory: &Inventory) -> Vec<Refusal> {
    let refuse = |change: &Change, message: String| Refusal {
        guard: Guard::Ownership,
        engine: change.engine.clone(),
        message: format!("{} is not imported: {message}", change.image.name),
        images: change.image_ids().map(str::to_owned).collect(),
        override_flag: None,
        classes: BTreeSet::new(),
        overridden: false,
    };
    let wrong = |change: &Change| wrong(change, plan, policies, inventory);
    plan.changes.iter().filter_map(|change| Some(refuse(change, wrong(change)?))).collect()
}

/// What is wrong with a change.
fn wrong(
    change: &Change,
    plan: &Plan,
    policies: &Policies,
    inventory: &Inventory,
) -> Option<String> {
    let says = |text: &str| Some(text.to_owned());
    if plan.changes.len() != 1 {
        return says("one image is imported at a time");
    }
    let Some(create) = change.create.as_ref().filter(|_| change.action == Action::Create) else {
        return says("something else than making an image is to be done");
    };
    let engine = inventory.engines.iter().find(|engine| engine.name == change.engine);
    let Some(engine) = engine.filter(|engine| engine.gaps.is_empty()) else {
        return says("its engine was not seen whole");
    };
    let keeper = |key: &Key| policies.keeper(&key.policy).map(|policy| policy.name.clone());
    let policy = policies.get(&change.key.policy);
    let Some(policy) = policy.filter(|policy| policy.engine == change.engine) else {
        return says("the policy is not one of this engine");
    };
    if create.kind != ImageKind::DiskImage || policy.capture.kind != create.kind {
        return says("what is imported is a disk image");
    }
    if policy.kms_key.is_some() || create.kms_key.is_some() {
        return says("what is imported has no key");
    }
    if change.key.slot.instant() > plan.now {
        return says("its slot is in the future");
    }
    if Key::from_labels(&create.labels) != Ownership::Ours(change.key.clone()) {
        return says("its labels are not those of its key");
    }
    let is_update = change.update.is_some() || change.copy.is_some() || change.drill.is_some();
    if is_update || change.image.id.is_some() {
        return says("something that is there would change");
    }
    let has_slot = |other: &&Image| {
        let Ownership::Ours(key) = other.ownership() else { return false };
        key.source == change.key.source
            && key.slot == change.key.slot
            && keeper(&key).as_ref() == Some(&change.key.policy)
            && !other.is_copy()
            && !other.is_step()
    };
    let replaced = create.replaces.as_ref().and_then(|replaced| replaced.id.as_ref());
    let mut of_slot = engine.images.iter().filter(has_slot);
    let in_the_way = of_slot.clone().find(|other| match other.state {
        ImageState::Failed => Some(&other.id) != replaced,
        // What is being made under the name is taken up, if it is of the same file.
        ImageState::Creating => {
            let place = other.labels.get(LABEL_IMPORTED);
            place.is_none()
                || place != create.labels.get(LABEL_IMPORTED)
                || other.name != change.image.name
        }
        _ => true,
    });
    if let Some(other) = in_the_way {
        return Some(format!("{} stands for its slot", other.name));
    }
    let is_nothing = |other: &Image| {
        other.state == ImageState::Failed && !other.is_held(plan.now) && other.in_use_by.is_empty()
    };
    match replaced {
        Some(id) if !of_slot.any(|other| other.id == *id && is_nothing(other)) => {
            says("what makes room for it is no failed attempt at it")
        }
        _ => None,
    }
}
