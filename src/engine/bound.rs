//! What a change is bound to: the image that the plan was made over, and no other.

use std::collections::BTreeMap;

use crate::inventory::{Image, ImageState, Stage};
use crate::name::LABEL_PREFIX;
use crate::plan::{ImageRef, Update};

/// Whether an image is still what a plan was made over.
pub fn is_same(image: &ImageRef, found: &Image) -> bool {
    found.name == image.name
        && Some(&found.fingerprint) == image.fingerprint.as_ref()
        && image.created_at.is_none_or(|created_at| created_at == found.created_at)
}

/// Whether an image already is as an update would make it.
pub fn is_done(found: &Image, update: &Update) -> bool {
    found.stage == update.stage_after
        && update.remove_labels.iter().all(|label| !found.labels.contains_key(label))
        && update.set_labels.iter().all(|(label, value)| found.labels.get(label) == Some(value))
}

/// What a plan looks at beside the age of an image: our own labels, stage and state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    labels: BTreeMap<String, String>,
    stage: Stage,
    state: ImageState,
}

impl Judged {
    /// Of an image as it is.
    pub fn of(image: &Image) -> Self {
        let is_judged = |label: &&String| label.starts_with(LABEL_PREFIX);
        let labels = image.labels.iter().filter(|(label, _)| is_judged(label));
        Self {
            labels: labels.map(|(label, value)| (label.clone(), value.clone())).collect(),
            stage: image.stage,
            state: image.state,
        }
    }
}
