//! What a change is bound to: the image that the plan was made over, and no other; what a creation is
//! bound to: the disks that the plan has seen, and no others.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use super::EngineError;
use crate::elapsed::Elapsed;
use crate::inventory::{Disk, Image, ImageState, Stage};
use crate::name::LABEL_PREFIX;
use crate::plan::{Create, ImageRef, Update};

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

/// Whether an image that was looked at again is as it was seen. One that is being deleted has nothing
/// left that could be lost.
pub fn is_still(now: &Image, seen: &Image) -> bool {
    now.fingerprint == seen.fingerprint || now.state == ImageState::Deleting
}

/// Refuses to capture a machine that has a disk now that the plan neither takes nor leaves out: a restore
/// point of all disks would be made without it, and look whole. A plan that says itself that it has not
/// seen all disks leaves out what those are.
pub fn refuse_unplanned<'a>(
    create: &Create,
    machine: &str,
    mut attached: impl Iterator<Item = &'a str>,
) -> Result<(), EngineError> {
    let is_planned =
        |name: &str| create.disks.iter().chain(&create.excluded_disks).any(|disk| disk == name);
    match attached.find(|disk| !is_planned(disk) && !is_planned(Disk::UNSEEN)) {
        None => Ok(()),
        Some(disk) => Err(EngineError::Busy(format!(
            "{machine} has a disk {disk} that the plan did not see; the next run tries again"
        ))),
    }
}

/// So long a look holds that asks for whole lists.
const LOOK_HOLDS: Elapsed = Elapsed::seconds(10);

/// When it was looked last what needs an image: after a wait it is looked again.
#[derive(Debug, Default)]
pub struct Looked(Mutex<Option<Timestamp>>);

impl Looked {
    /// Whether that still holds.
    pub fn holds(&self, now: Timestamp) -> bool {
        let at = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        at.is_some_and(|at| at <= now && now <= LOOK_HOLDS.after(at))
    }

    /// Takes note of a look that was begun then.
    pub fn note(&self, began: Timestamp) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(began);
    }
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

    /// The same in another stage.
    #[must_use]
    pub fn at(self, stage: Stage) -> Self {
        Self { stage, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_holds_for_some_seconds() {
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        let looked = Looked::default();
        assert!(!looked.holds(at(0)), "nobody has looked yet");
        looked.note(at(0));
        assert!(looked.holds(at(0)) && looked.holds(at(10)));
        assert!(!looked.holds(at(11)));
        assert!(!looked.holds(at(-1)), "the clock was put back");
    }
}
