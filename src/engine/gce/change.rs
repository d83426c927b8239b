//! Changes labels and stages, and deletes: only what still is what the plan was made over.

use std::collections::BTreeMap;

use super::GceEngine;
use super::call::{Call, CallError};
use super::http::WaitError;
use super::image::{Collection, Found, Place, stage_label, stage_word};
use super::wire::{DeprecationStatus, Operation, SetLabelsRequest};
use crate::engine::{EngineError, Unwatched};
use crate::inventory::{Image, ImageState, LABEL_STAGE, Stage};
use crate::name::LABEL_PREFIX;
use crate::plan::{ImageRef, Update};

/// How often labels are merged anew that somebody else has changed meanwhile.
const MERGES_MAX: u32 = 3;

impl GceEngine {
    /// The image that a plan means, by its number.
    async fn meant(&self, image: &ImageRef) -> Result<Found, EngineError> {
        let place = image.id.as_deref().and_then(Place::parse).ok_or(EngineError::NotFound)?;
        if !self.settings.projects.contains(&place.project) {
            return Err(EngineError::NotFound);
        }
        let found = self.find(&place.project, place.collection, &place.path()).await?;
        let found = found.ok_or(EngineError::NotFound)?;
        if found.label_fingerprint.is_empty() {
            let message =
                "the service gives no fingerprint of its labels, so nothing can be bound to it";
            return Err(EngineError::Refused(message.to_owned()));
        }
        // The number is what was asked for; an answer about anything else is none.
        if found.place == place { Ok(found) } else { Err(EngineError::Changed) }
    }

    pub(super) async fn change(
        &self,
        image: &ImageRef,
        update: &Update,
    ) -> Result<Image, EngineError> {
        if update.sharing.is_some() {
            return Err(EngineError::Refused("this engine shares no images".to_owned()));
        }
        let mut found = self.meant(image).await?;
        if !is_same(image, &found.image) {
            // Another run has done the same.
            let is_done = found.image.name == image.name && is_done(&found.image, update);
            return if is_done { Ok(found.image) } else { Err(EngineError::Changed) };
        }
        // The stage first: whoever sees only that finishes the rest, in either direction.
        if found.place.collection == Collection::Images && found.image.stage != update.stage_after {
            self.deprecate(&found, update).await?;
            found = self.meant(image).await?;
        }
        self.relabel(image, found, update).await
    }

    /// Sets the labels of an image. Those that others have changed meanwhile are kept, unless it
    /// is something that a plan looks at.
    async fn relabel(
        &self,
        image: &ImageRef,
        mut found: Found,
        update: &Update,
    ) -> Result<Image, EngineError> {
        let judged = Judged::of(&found.image);
        for _ in 0..MERGES_MAX {
            let labels = labels_after(&found, update);
            if labels == found.image.labels {
                return Ok(found.image);
            }
            let body =
                SetLabelsRequest { labels: &labels, label_fingerprint: &found.label_fingerprint };
            let call = Call::post(&format!("{}/setLabels", found.place.path())).with_body(&body)?;
            let ended = match self.http.send::<Operation>(&call).await {
                Ok(operation) => self.end(&found.place.project, operation).await,
                Err(error) => Err(error),
            };
            found = self.meant(image).await?;
            match ended {
                Ok(()) if found.image.labels == labels => return Ok(found.image),
                // The first of two attempts was carried out, and the second found it done.
                Err(error) if error.is_stale() && found.image.labels == labels => {
                    return Ok(found.image);
                }
                Err(error) if !error.is_stale() => return Err(error.into()),
                Ok(()) | Err(_) => {}
            }
            if Judged::of(&found.image) != judged {
                return Err(EngineError::Changed);
            }
        }
        Err(EngineError::Busy("its labels keep changing; the next run tries again".to_owned()))
    }

    async fn deprecate(&self, found: &Found, update: &Update) -> Result<(), EngineError> {
        let place = &found.place;
        let replacement =
            update.replacement.as_ref().filter(|_| update.stage_after > Stage::Active);
        let status = DeprecationStatus {
            state: stage_word(update.stage_after).to_owned(),
            replacement: replacement
                .map(|name| format!("{}/{name}", place.collection.path(&place.project))),
        };
        let call = Call::post(&format!("{}/deprecate", place.path()))
            .with("requestId", self.request_id(&found.image.name))
            .with_body(&status)?;
        let operation = self.http.send::<Operation>(&call).await?;
        Ok(self.end(&place.project, operation).await?)
    }

    pub(super) async fn remove(&self, image: &ImageRef) -> Result<(), EngineError> {
        let found = self.meant(image).await?;
        if !is_same(image, &found.image) {
            return Err(EngineError::Changed);
        }
        let call =
            Call::delete(&found.place.path()).with("requestId", self.request_id(&found.image.name));
        let (answer, was_open) = self.http.send_counted::<Operation>(&call).await;
        let error = match answer {
            Ok(operation) => match self.end(&found.place.project, operation).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            },
            Err(error) if error.is_gone() && !was_open => return Err(EngineError::NotFound),
            Err(error) => error,
        };
        // What is gone may be the image, or the operation that tells of it: only a look can tell.
        if error.is_gone() || error.is_open() {
            return match self.meant(image).await {
                Err(EngineError::NotFound) => Ok(()),
                Ok(_) | Err(_) => Err(error.into()),
            };
        }
        Err(error.into())
    }

    /// Waits for a short operation, which nobody interrupts.
    async fn end(&self, project: &str, operation: Operation) -> Result<(), CallError> {
        match self.http.finish(project, operation, &Unwatched, &|_| {}).await {
            Err(WaitError::Call(error)) => Err(error),
            Ok(()) | Err(WaitError::Interrupted) => Ok(()),
        }
    }
}

/// What a plan looks at beside the age of an image: our own labels, stage and state.
#[derive(PartialEq, Eq)]
struct Judged {
    labels: BTreeMap<String, String>,
    stage: Stage,
    state: ImageState,
}

impl Judged {
    fn of(image: &Image) -> Self {
        let is_judged = |label: &&String| label.starts_with(LABEL_PREFIX);
        let labels = image.labels.iter().filter(|(label, _)| is_judged(label));
        Self {
            labels: labels.map(|(label, value)| (label.clone(), value.clone())).collect(),
            stage: image.stage,
            state: image.state,
        }
    }
}

fn labels_after(found: &Found, update: &Update) -> BTreeMap<String, String> {
    let mut labels = found.image.labels.clone();
    labels.retain(|label, _| !update.remove_labels.contains(label));
    labels.extend(update.set_labels.clone());
    labels.remove(LABEL_STAGE);
    if found.place.collection != Collection::Images
        && let Some(word) = stage_label(update.stage_after)
    {
        labels.insert(LABEL_STAGE.to_owned(), word.to_owned());
    }
    labels
}

/// Whether an image is still what a plan was made over.
fn is_same(image: &ImageRef, found: &Image) -> bool {
    found.name == image.name
        && Some(&found.fingerprint) == image.fingerprint.as_ref()
        && image.created_at.is_none_or(|created_at| created_at == found.created_at)
}

/// Whether an image already is as an update would make it.
fn is_done(found: &Image, update: &Update) -> bool {
    found.stage == update.stage_after
        && update.remove_labels.iter().all(|label| !found.labels.contains_key(label))
        && update.set_labels.iter().all(|(label, value)| found.labels.get(label) == Some(value))
}
