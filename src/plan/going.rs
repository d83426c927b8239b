//! What a plan takes away or lets go of: asked by those who make images a policy's, which must cost none
//! that it has.

use std::collections::{BTreeMap, BTreeSet};

use super::action::{Action, Reason, ReasonCode};
use super::document::{Change, ImageRef, Plan};
use crate::inventory::{EngineInventory, Image, ImageState, LABEL_LET_GO};
use crate::name::Key;

/// An image that goes.
#[derive(Debug, Clone)]
pub struct Goes<'p> {
    /// Its key.
    pub key: &'p Key,
    /// Its name.
    pub name: &'p str,
    /// The last of the reasons.
    pub why: String,
}

impl<'p> Goes<'p> {
    /// The image of a change.
    pub fn of(change: &'p Change) -> Self {
        let why = change.reasons.last().map(|reason| reason.detail.clone()).unwrap_or_default();
        Self { key: &change.key, name: &change.image.name, why }
    }
}

/// Images that go, by their ids.
pub type Going<'p> = BTreeMap<&'p str, Goes<'p>>;

/// What a plan takes away or lets go of, or has let go of: what it brings back is none of these, and an
/// image with which it would not be brought back costs it. A failed attempt is nothing to lose, and a stage
/// by age is no loss.
pub fn going<'p>(plan: &'p Plan, engine: &EngineInventory) -> Going<'p> {
    let lets_go = |change: &&Change| {
        let update = change.update.as_ref();
        change.action == Action::Delete
            || update.is_some_and(|update| update.set_labels.contains_key(LABEL_LET_GO))
    };
    let changes = plan.changes.iter().filter(|change| change.engine == engine.name).filter(lets_go);
    let mut going =
        of(engine, changes.map(|change| (&change.image, &change.key, &change.reasons[..])));
    let in_grace = |reason: &&Reason| reason.code == ReasonCode::InGrace;
    going.extend(plan.kept.iter().filter(|kept| *kept.engine == engine.name).filter_map(|kept| {
        let why = kept.reasons.iter().find(in_grace)?.detail.clone();
        Some((&*kept.id, Goes { key: &kept.key, name: &kept.name, why }))
    }));
    going
}

/// What would go if nothing held it.
pub fn held_back<'p>(plan: &'p Plan, engine: &EngineInventory) -> Going<'p> {
    let held = plan.held_back.iter().filter(|held| held.engine == engine.name);
    of(engine, held.map(|held| (&held.image, &held.key, &held.reasons[..])))
}

fn of<'p>(
    engine: &EngineInventory,
    images: impl Iterator<Item = (&'p ImageRef, &'p Key, &'p [Reason])>,
) -> Going<'p> {
    let is_failed = |image: &&Image| image.state == ImageState::Failed;
    let nothing: BTreeSet<&str> =
        engine.images.iter().filter(is_failed).map(|image| image.id.as_str()).collect();
    images
        .filter_map(|(image, key, reasons)| Some((image.id.as_deref()?, image, key, reasons)))
        .filter(|(id, ..)| !nothing.contains(id))
        .map(|(id, image, key, reasons)| {
            let why = reasons.last().map(|reason| reason.detail.clone()).unwrap_or_default();
            (id, Goes { key, name: &image.name, why })
        })
        .collect()
}
