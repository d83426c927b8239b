//! What other runs do to the same images at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::Ending;
use crate::engine::{Engine, EngineError};
use crate::plan::{Action, Change, ImageRef, is_as};

/// How long another run may take for its next step.
const STEP: Duration = Duration::from_secs(2);
/// So often a run looks: the disks of a machine are labelled and deleted one after the other, and who has
/// changed thousands of images is no other run.
const LOOKS_MAX: usize = 60;

/// What becomes of a change whose image is not what the plan was made over: another run may have done it, or
/// may be doing it. An image that stays as it is has been changed by somebody who wants something else.
pub(super) async fn overtaken(
    engine: &Arc<dyn Engine>,
    change: &Change,
    // One that this run has made has no id in the change.
    meant: &ImageRef,
    looks: &AtomicUsize,
) -> Ending {
    let mut before = None;
    while looks.fetch_add(1, Ordering::Relaxed) < LOOKS_MAX {
        let seen = engine.observe().await;
        let mut images = seen.images.iter();
        let image = images.find(|image| Some(&image.id) == meant.id.as_ref());
        match (image, &change.update) {
            (None, _) if !seen.gaps.is_empty() => break,
            (None, None) if change.action == Action::Delete => {
                return Ending::Found { image: None, by: None };
            }
            (None, _) => {
                let message = EngineError::NotFound.to_string();
                return Ending::Needless { message };
            }
            (Some(image), Some(update)) if is_as(image, update, meant) => {
                return Ending::Found { image: Some(Box::new(image.clone())), by: None };
            }
            (Some(image), _) if before.as_ref() == Some(&image.fingerprint) => break,
            (Some(image), _) => before = Some(image.fingerprint.clone()),
        }
        tokio::time::sleep(STEP).await;
    }
    Ending::Failed { message: EngineError::Changed.to_string() }
}
