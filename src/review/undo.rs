//! Brings back what a plan has deprecated, as long as it is there.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::inventory::{Image, Inventory, LABEL_LET_GO, LABEL_STAGED, Stage};
use crate::name::Ownership;
use crate::plan::{Action, Change, ImageRef, Plan, Reason, ReasonCode, Update, of_changes};

/// What undoing a plan comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Undo {
    /// What brings images back.
    pub plan: Plan,
    /// What cannot be brought back.
    pub lost: Vec<Lost>,
    /// How many images are as they were before, or never were changed.
    pub already: usize,
}

/// Something that cannot be undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lost {
    /// On which engine.
    pub engine: String,
    /// The name of the image.
    pub image: String,
    /// The name of its source.
    pub source_name: String,
    /// Why not.
    pub why: String,
}

/// Undoes what a plan has taken away, as far as that can be. `seen` is a plan over the inventory of
/// now, of which only what it saw counts.
pub fn undo(saved: &Plan, seen: Plan, inventory: &Inventory) -> Undo {
    let images: BTreeMap<(&str, &str), &Image> = inventory
        .engines
        .iter()
        .flat_map(|engine| {
            engine.images.iter().map(|image| ((engine.name.as_str(), image.id.as_str()), image))
        })
        .collect();
    let (mut changes, mut lost, mut already) = (Vec::new(), Vec::new(), 0);
    for change in &saved.changes {
        let takes = matches!(change.action, Action::Delete | Action::Deprecate | Action::Obsolete);
        let Some(id) = change.image.id.as_deref().filter(|_| takes) else { continue };
        let found = images.get(&(change.engine.as_str(), id)).copied();
        match (found, change.action) {
            (Some(image), Action::Delete) if image.state.holds_data() => already += 1,
            (None, _) => lost.push(gone(change, inventory)),
            (Some(image), _) => match back(change, image) {
                Some(back) => changes.push(back),
                None => already += 1,
            },
        }
    }
    Undo { plan: of_changes(seen, changes), lost, already }
}

fn gone(change: &Change, inventory: &Inventory) -> Lost {
    let engine = inventory.engines.iter().find(|engine| engine.name == change.engine);
    let why = match engine {
        Some(engine) if engine.is_complete() => "it is deleted, which is for good",
        _ => "it was not seen: its engine was not seen whole",
    };
    Lost {
        engine: change.engine.clone(),
        image: change.image.name.clone(),
        source_name: change.source_name.clone(),
        why: why.to_owned(),
    }
}

/// What brings an image back to the stage it had; nothing where it has it, or is another by now.
fn back(change: &Change, image: &Image) -> Option<Change> {
    let update = change.update.as_ref()?;
    let is_its = image.ownership() == Ownership::Ours(change.key.clone());
    let marks = [LABEL_LET_GO, LABEL_STAGED].into_iter();
    let marks: Vec<String> = marks
        .filter(|label| image.labels.contains_key(*label))
        // One that was there before the plan is left.
        .filter(|label| update.set_labels.contains_key(*label))
        .map(str::to_owned)
        .collect();
    let stage_after = update.stage_before.min(image.stage);
    let is_back = image.stage == stage_after && marks.is_empty();
    if !is_its || is_back || !image.state.holds_data() {
        return None;
    }
    let staged = stage_after > Stage::Active;
    let remove_labels =
        marks.into_iter().filter(|label| !(staged && label == LABEL_STAGED)).collect();
    Some(Change {
        action: Action::Reactivate,
        image: ImageRef::of(image),
        reasons: vec![Reason::new(ReasonCode::Undone, "a person undoes its deprecation")],
        risk: None,
        newest_ready: None,
        waits_for: None,
        unless: None,
        update: Some(Update {
            stage_before: image.stage,
            stage_after,
            remove_labels,
            ..Update::default()
        }),
        ..change.clone()
    })
}
