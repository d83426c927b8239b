//! What no adoption may do, whoever planned it: read again from the inventory, and sharing nothing
//! with what decides which images are adopted.

use std::collections::BTreeSet;

use crate::inventory::{ImageState, Inventory};
use crate::name::{Key, Ownership};
use crate::plan::guard::{Guard, Refusal};
use crate::plan::{Action, Change, Plan};
use crate::policy::Policies;

/// Refuses what does more than set ownership labels on READY images that are nobody's, each for a
/// slot of its own.
pub fn guard(plan: &Plan, policies: &Policies, inventory: &Inventory) -> Vec<Refusal> {
    let mut refusals: Vec<Refusal> = Vec::new();
    let mut slots = BTreeSet::new();
    for change in &plan.changes {
        let message = wrong(change, policies, inventory)
            .or_else(|| (!slots.insert(&change.key)).then(|| "two images for one slot".to_owned()));
        if let Some(message) = message {
            refusals.push(Refusal {
                guard: Guard::Ownership,
                engine: change.engine.clone(),
                message: format!("{} is not adopted: {message}", change.image.name),
                images: change.image.id.iter().cloned().collect(),
                override_flag: None,
                classes: BTreeSet::new(),
                overridden: false,
            });
        }
    }
    refusals
}

/// What is wrong with a change.
fn wrong(change: &Change, policies: &Policies, inventory: &Inventory) -> Option<String> {
    let says = |text: &str| Some(text.to_owned());
    let Some(update) = change.update.as_ref().filter(|_| change.action == Action::Relabel) else {
        return says("it is to be changed otherwise than by labels");
    };
    let engine = inventory.engines.iter().find(|engine| engine.name == change.engine);
    let Some(engine) = engine.filter(|engine| engine.gaps.is_empty()) else {
        return says("its engine was not seen whole");
    };
    let keeper = |key: &Key| policies.keeper(&key.policy).map(|policy| policy.name.clone());
    if keeper(&change.key).as_ref() != Some(&change.key.policy)
        || policies.get(&change.key.policy).is_none_or(|policy| policy.engine != change.engine)
    {
        return says("the policy is not one of this engine");
    }
    let mut of_id =
        engine.images.iter().filter(|image| Some(&image.id) == change.image.id.as_ref());
    let (Some(image), None) = (of_id.next(), of_id.next()) else {
        return says("there is not one image with its id");
    };
    if image.name != change.image.name
        || Some(&image.fingerprint) != change.image.fingerprint.as_ref()
    {
        return says("it has changed since");
    }
    if image.ownership() != Ownership::Foreign || image.is_copy() || image.let_go_at().is_some() {
        return says("it is somebody's already");
    }
    if image.state != ImageState::Ready {
        return says("it is not READY");
    }
    let sets_key = Key::from_labels(&update.set_labels) == Ownership::Ours(change.key.clone());
    let is_more = update.set_labels.len() != 4
        || !update.remove_labels.is_empty()
        || update.sharing.is_some()
        || update.stage_before != image.stage
        || update.stage_after != image.stage;
    if !sets_key || is_more {
        return says("other labels than those of its key would change");
    }
    let has_slot = |other: &crate::inventory::Image| {
        let Ownership::Ours(key) = other.ownership() else { return false };
        key.source == change.key.source
            && key.slot == change.key.slot
            && keeper(&key).as_ref() == Some(&change.key.policy)
    };
    let other = engine.images.iter().find(|other| has_slot(other))?;
    Some(format!("{} stands for its slot", other.name))
}
