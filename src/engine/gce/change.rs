//! Changes labels and stages, and deletes: only what still is what the plan was made over.

use std::collections::BTreeMap;

use futures_util::future::join_all;

use super::bind::{Deprecation, Removal};
use super::call::CallError;
use super::http::WaitError;
use super::image::{Collection, Found, Place, stage_label, stage_word};
use super::operation::CHANGE_TIME_MAX;
use super::wire::{DeprecationStatus, Operation, SetLabelsRequest};
use super::{GceEngine, SET_PATIENCE};
use crate::engine::bound::{Judged, Looked, is_done, is_same};
use crate::engine::http::{Call, Free};
use crate::engine::{EngineError, set};
use crate::inventory::{Image, LABEL_LET_GO, LABEL_STAGE, Stage};
use crate::name::LABEL_KEY;
use crate::plan::{ImageRef, Update};

/// How often labels are merged anew that somebody else has changed meanwhile.
const MERGES_MAX: u32 = 3;

/// An image as it is now, and what it is made of.
pub(super) struct Meant {
    /// What the inventory shows.
    pub(super) image: Image,
    /// The images of the service: one, or those of a set.
    pub(super) members: Vec<Found>,
}

impl GceEngine {
    /// The image that a plan means, by its numbers.
    pub(super) async fn meant(&self, image: &ImageRef) -> Result<Meant, EngineError> {
        let ids = set::member_ids(image.id.as_deref().unwrap_or_default());
        let places: Option<Vec<Place>> = ids.iter().map(|id| Place::parse(id)).collect();
        let places = places.ok_or(EngineError::NotFound)?;
        let looks = join_all(places.iter().map(|place| self.at(place))).await;
        let mut members = Vec::with_capacity(places.len());
        for look in looks {
            match look {
                Err(EngineError::NotFound) => {}
                found => members.push(found?),
            }
        }
        if members.is_empty() {
            return Err(EngineError::NotFound);
        }
        self.view(members, places.len())
    }

    /// What so many members are shown as.
    fn view(&self, members: Vec<Found>, wanted: usize) -> Result<Meant, EngineError> {
        let images = members.iter().map(|member| member.image.clone()).collect();
        let mut images = set::gathered(images, self.clock.now(), SET_PATIENCE);
        match (images.pop(), images.is_empty()) {
            (Some(image), true) if members.len() == wanted => Ok(Meant { image, members }),
            _ => Err(EngineError::Changed),
        }
    }

    /// The image at a place.
    pub(super) async fn at(&self, place: &Place) -> Result<Found, EngineError> {
        if !self.holds(&place.project) {
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
        if found.place == *place { Ok(found) } else { Err(EngineError::Changed) }
    }

    /// The image that a plan means, if it still is what the plan was made over.
    pub(super) async fn bound(&self, image: &ImageRef) -> Result<Image, EngineError> {
        let meant = self.meant(image).await?;
        if is_same(image, &meant.image) { Ok(meant.image) } else { Err(EngineError::Changed) }
    }

    pub(super) async fn change(
        &self,
        image: &ImageRef,
        update: &Update,
    ) -> Result<Image, EngineError> {
        self.know_sources().await;
        let Meant { image: seen, members } = self.meant(image).await?;
        if !is_same(image, &seen) {
            // Another run has done the same.
            let is_done = seen.name == image.name
                && is_done(&seen, update)
                && self.is_shared(&members, update).await;
            return if is_done { Ok(seen) } else { Err(EngineError::Changed) };
        }
        let count = members.len();
        let mut after = Vec::with_capacity(count);
        for member in members {
            after.push(self.change_one(member, &seen.labels, update).await?);
        }
        if let Some(sharing) = &update.sharing {
            for member in &mut after {
                self.share(&member.place, sharing).await?;
                member.image.sharing = Some(sharing.clone());
            }
        }
        self.view(after, count).map(|meant| meant.image)
    }

    /// Whether these have all that an update says of who may use them.
    async fn is_shared(&self, members: &[Found], update: &Update) -> bool {
        let Some(wanted) = &update.sharing else { return true };
        let seen = join_all(members.iter().map(|member| self.sharing_of(member))).await;
        seen.iter().all(|sharing| sharing.as_ref() == Some(wanted))
    }

    /// One of the images that a change is about. `agreed` are the labels that all of them have.
    async fn change_one(
        &self,
        mut found: Found,
        agreed: &BTreeMap<String, String>,
        update: &Update,
    ) -> Result<Found, EngineError> {
        // The stage first: whoever sees only that finishes the rest, in either direction.
        if found.place.collection == Collection::Images && found.image.stage != update.stage_after {
            // But the mark of a deprecation that somebody has taken back is made anew before there is
            // a stage with which it counts again: whoever sees only that begins anew.
            let is_marked = found.image.labels.contains_key(LABEL_LET_GO);
            if is_marked && update.set_labels.contains_key(LABEL_LET_GO) {
                found = self.relabel(found, agreed, update).await?;
            }
            let is_final = match self.deprecate(&found, update).await {
                // Then there is nothing to take back but the marks: it is kept, and shown as it is.
                Err(error) if update.stage_after < found.image.stage && error.is_invalid() => {
                    tracing::warn!(
                        "{} is kept again, and the service does not take its deprecation back: {error}",
                        found.image.name
                    );
                    true
                }
                ended => {
                    ended?;
                    false
                }
            };
            let judged = Judged::of(&found.image);
            found = self.at(&found.place).await?;
            if Judged::of(&found.image) != judged.at(found.image.stage) {
                return Err(EngineError::Changed);
            }
            if found.image.stage != update.stage_after && !is_final {
                return Err(EngineError::Busy(
                    "its stage does not change; the next run tries again".to_owned(),
                ));
            }
        }
        self.relabel(found, agreed, update).await
    }

    /// Sets the labels of an image. Those that others have changed meanwhile are kept, unless it
    /// is something that a plan looks at.
    async fn relabel(
        &self,
        mut found: Found,
        agreed: &BTreeMap<String, String>,
        update: &Update,
    ) -> Result<Found, EngineError> {
        let judged = Judged::of(&found.image);
        for _ in 0..MERGES_MAX {
            let labels = labels_after(&found, agreed, update);
            if labels == found.image.labels {
                return Ok(found);
            }
            let body =
                SetLabelsRequest { labels: &labels, label_fingerprint: &found.label_fingerprint };
            let call = Call::post(&format!("{}/setLabels", found.place.path())).with_body(&body)?;
            let ended = match self.http.send::<Operation>(&call).await {
                Ok(operation) => self.end(&found.place.project, operation).await,
                Err(error) => Err(error),
            };
            found = self.at(&found.place).await?;
            match ended {
                Ok(()) if found.image.labels == labels => return Ok(found),
                // The first of two attempts was carried out, and the second found it done.
                Err(error) if error.is_stale() && found.image.labels == labels => {
                    return Ok(found);
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

    async fn deprecate(&self, found: &Found, update: &Update) -> Result<(), CallError> {
        let place = &found.place;
        let replacement =
            update.replacement.as_ref().filter(|_| update.stage_after > Stage::Active);
        let status = DeprecationStatus {
            state: stage_word(update.stage_after).to_owned(),
            replacement: replacement
                .map(|name| format!("{}/{name}", place.collection.path(&place.project))),
        };
        let call = Call::post(&format!("{}/deprecate", place.path())).with_body(&status)?;
        let seen = &found.image.fingerprint;
        let leave = Deprecation { engine: self, found, stage: update.stage_after };
        match self.carry_out(&place.project, &call, seen, 0, &leave, &|_| {}).await.result {
            Err(WaitError::Call(error)) => Err(error),
            Ok(()) | Err(WaitError::Interrupted) => Ok(()),
        }
    }

    pub(super) async fn remove(&self, image: &ImageRef) -> Result<(), EngineError> {
        let Meant { image: seen, members } = self.meant(image).await?;
        if !is_same(image, &seen) {
            return Err(EngineError::Changed);
        }
        let is_set = members.len() > 1;
        let looked = Looked::default();
        for index in 0..members.len() {
            let removal = Removal { engine: self, members: &members, index, looked: &looked };
            match self.remove_one(&removal).await {
                // Another run is at it as well.
                Err(EngineError::NotFound) if is_set => {}
                ended => ended?,
            }
        }
        Ok(())
    }

    /// Whether the images of a restore point are all of it, and nobody needs one of them.
    pub(super) async fn refuse_needed(&self, members: &[Found]) -> Result<(), EngineError> {
        self.refuse_grown(members).await?;
        for member in members {
            self.refuse_used(member).await?;
            self.refuse_step_in_use(member).await?;
        }
        Ok(())
    }

    /// A set that has more members than the plan has seen is another one, and may be whole. What a
    /// listing once left out must not cost what it did not.
    async fn refuse_grown(&self, members: &[Found]) -> Result<(), EngineError> {
        let Some(first) = members.first().filter(|first| set::is_member(&first.image)) else {
            return Ok(());
        };
        let key = first.image.labels.get(LABEL_KEY).map_or("", String::as_str);
        let filter = format!("labels.{LABEL_KEY}={key}");
        let (there, gaps) =
            self.snapshots_at(&first.place.project, &first.place.all(), Some(&filter)).await;
        if let Some(gap) = gaps.first() {
            let message = format!("its set cannot be looked at again: {}", gap.message);
            return Err(EngineError::Failed(message));
        }
        let point = first.image.labels.get(set::LABEL_POINT);
        let is_of_set = |found: &&Found| found.image.labels.get(set::LABEL_POINT) == point;
        let is_known = |found: &Found| members.iter().any(|member| member.place == found.place);
        if there.iter().filter(is_of_set).all(is_known) {
            Ok(())
        } else {
            Err(EngineError::Changed)
        }
    }

    pub(super) async fn remove_one(&self, removal: &Removal<'_>) -> Result<(), EngineError> {
        let found = removal.found();
        let (place, seen) = (&found.place, &found.image.fingerprint);
        let call = Call::delete(&place.path());
        let ended = self.carry_out(&place.project, &call, seen, 0, removal, &|_| {}).await;
        let was_begun = ended.was_begun();
        let error = match ended.result {
            Ok(()) | Err(WaitError::Interrupted) => return Ok(()),
            Err(WaitError::Call(error)) => error,
        };
        // What is gone may be the image, or the operation that tells of it, and what is not sent again
        // may have been carried out: only a look can tell.
        if error.is_gone() || error.is_open() || (error.is_withheld() && was_begun) {
            return match self.at(place).await {
                Err(EngineError::NotFound) if error.is_gone() && !was_begun => {
                    Err(EngineError::NotFound)
                }
                Err(EngineError::NotFound) => Ok(()),
                Ok(_) | Err(_) => Err(error.into()),
            };
        }
        Err(error.into())
    }

    /// Waits for a short operation, which nobody interrupts.
    async fn end(&self, project: &str, operation: Operation) -> Result<(), CallError> {
        match self.http.finish(project, operation, CHANGE_TIME_MAX, &Free, &|_| {}).await {
            Ok(Err(error)) | Err(WaitError::Call(error)) => Err(error),
            Ok(Ok(())) | Err(WaitError::Interrupted) => Ok(()),
        }
    }
}

fn labels_after(
    found: &Found,
    agreed: &BTreeMap<String, String>,
    update: &Update,
) -> BTreeMap<String, String> {
    let (set, remove) = (&update.set_labels, &update.remove_labels);
    let mut labels = if set::is_member(&found.image) {
        set::labels_after(&found.image.labels, agreed, set, remove)
    } else {
        let mut labels = found.image.labels.clone();
        labels.retain(|label, _| !remove.contains(label));
        labels.extend(set.clone());
        labels
    };
    labels.remove(LABEL_STAGE);
    if found.place.collection != Collection::Images
        && let Some(word) = stage_label(update.stage_after)
    {
        labels.insert(LABEL_STAGE.to_owned(), word.to_owned());
    }
    labels
}
