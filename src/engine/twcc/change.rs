//! Changes records, and deletes: only what still is what the plan was made over.

use futures_util::future::join_all;

use super::TwccEngine;
use super::bind::Bound;
use super::image::{Collection, Found, Place, share_records};
use super::observe::users;
use super::record::Record;
use super::wire::{Image as WireImage, PatchRequest, Server, Snapshot as WireSnapshot};
use crate::engine::EngineError;
use crate::engine::bound::{is_done, is_same};
use crate::engine::http::{Looks, Method};
use crate::engine::set::{self, LABEL_POINT};
use crate::inventory::{Image, ImageState};
use crate::plan::{ImageRef, Update};

/// How long it is looked whether what was deleted is gone.
const GONE_TIME_MAX: std::time::Duration = std::time::Duration::from_mins(15);

/// An image as it is now, and what it is made of.
struct Meant {
    /// What the inventory shows.
    image: Image,
    /// The images and snapshots of the service.
    members: Vec<Found>,
}

impl TwccEngine {
    /// The image or snapshot at a place.
    pub(super) async fn at(&self, place: &Place) -> Result<Found, EngineError> {
        if place.project != self.settings.project {
            return Err(EngineError::NotFound);
        }
        let call = self.service.call(Method::Get, &place.path());
        let read = match place.collection {
            Collection::Images => self
                .service
                .read::<WireImage>(&call)
                .await
                .map(|image| Found::image(&place.project, image)),
            Collection::Snapshots => self
                .service
                .read::<WireSnapshot>(&call)
                .await
                .map(|snapshot| Found::snapshot(&place.project, snapshot)),
        };
        let found = match read {
            Err(error) if error.is_gone() => return Err(EngineError::NotFound),
            read => read?.map_err(EngineError::Failed)?,
        };
        // The number is what was asked for; an answer about anything else is none.
        let is_elsewhere = match found.project {
            Some(project) => project != self.service.project().await?,
            None => false,
        };
        if found.place == *place && !is_elsewhere { Ok(found) } else { Err(EngineError::Changed) }
    }

    /// The image that a plan means, by its numbers.
    async fn meant(&self, image: &ImageRef) -> Result<Meant, EngineError> {
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
        self.view(members, places.len()).await
    }

    /// What so many members are shown as.
    async fn view(&self, mut members: Vec<Found>, wanted: usize) -> Result<Meant, EngineError> {
        let seen = self.known().await;
        share_records(&mut members);
        for member in &mut members {
            member.dress(&seen);
        }
        let images = members.iter().map(|member| member.image.clone()).collect();
        let mut images = set::gathered(images, self.service.now(), self.patience());
        match (images.pop(), images.is_empty()) {
            (Some(image), true) if members.len() == wanted => Ok(Meant { image, members }),
            _ => Err(EngineError::Changed),
        }
    }

    pub(super) async fn change(
        &self,
        image: &ImageRef,
        update: &Update,
    ) -> Result<Image, EngineError> {
        let Meant { image: seen, members } = self.meant(image).await?;
        if !is_same(image, &seen) {
            // Another run has done the same.
            let is_done = seen.name == image.name && is_done(&seen, update);
            return if is_done { Ok(seen) } else { Err(EngineError::Changed) };
        }
        let count = members.len();
        let is_carrier = |found: &&Found| found.place.collection == Collection::Images;
        let Some(carrier) = members.iter().find(is_carrier) else {
            let message = "a snapshot of a volume cannot be changed, and the image that would carry the marks is gone; look at it and delete it by hand";
            return Err(EngineError::Refused(message.to_owned()));
        };
        let record = record_after(&carrier.record, update);
        self.describe(carrier, &record).await?;
        let mut after = Vec::with_capacity(count);
        for member in &members {
            after.push(self.at(&member.place).await?);
        }
        self.view(after, count).await.map(|meant| meant.image)
    }

    /// Writes the description of an image, and looks whether the service keeps it.
    async fn describe(&self, found: &Found, record: &Record) -> Result<(), EngineError> {
        let description = record.write(&found.image.name)?;
        let call = self
            .service
            .call(Method::Patch, &found.place.path())
            .with_body(&PatchRequest { desc: &description })?;
        let after = Record::read(&description, &found.image.name);
        let bound = Bound { image: found, carrier: None };
        self.send_bound(&bound, &call, &|now| now.record == after).await?;
        // What is there now is what counts.
        let now = self.at(&found.place).await?;
        if now.record == after {
            Ok(())
        } else {
            Err(EngineError::Failed(format!(
                "the service does not keep the description of {} that it was given",
                found.image.name
            )))
        }
    }

    pub(super) async fn remove(&self, image: &ImageRef) -> Result<(), EngineError> {
        let Meant { image: seen, mut members } = self.meant(image).await?;
        if !is_same(image, &seen) {
            return Err(EngineError::Changed);
        }
        self.refuse_other_set(&seen, &members).await?;
        self.refuse_used(&seen).await?;
        // The image carries the marks: as long as anything is there, they must be.
        members.sort_by_key(|member| std::cmp::Reverse(member.place.collection));
        let is_set = members.len() > 1;
        let carrier = members.last().filter(|last| last.place.collection == Collection::Images);
        for member in &members {
            let carrier = carrier.filter(|carrier| carrier.place != member.place);
            match self.remove_one(&Bound { image: member, carrier }).await {
                // Another run is at it as well.
                Err(EngineError::NotFound) if is_set => {}
                ended => ended?,
            }
        }
        Ok(())
    }

    /// The lists show the set as the plan has seen it, and none of it in doubt. One with more members is
    /// another one, and may be whole: what a listing once left out must not cost what it did not.
    async fn refuse_other_set(&self, seen: &Image, members: &[Found]) -> Result<(), EngineError> {
        let Some(first) = members.first().filter(|first| set::is_member(&first.image)) else {
            return Ok(());
        };
        let is_whole = members.len() as u64 == seen.members();
        let all = match first.image.labels.get(LABEL_POINT) {
            Some(point) if !is_whole => self.all_images_and(point).await,
            _ => self.all_images().await,
        };
        let all = all.map_err(|error| {
            EngineError::Failed(format!("its set cannot be looked at again: {error}"))
        })?;
        let images = all.into_iter().map(|found| found.image).collect();
        let sets = set::gathered_without_twins(images, self.service.now(), self.patience());
        let is_it = |set: &Image| set.id == seen.id && set.state != ImageState::Unknown;
        if sets.iter().any(is_it) { Ok(()) } else { Err(EngineError::Changed) }
    }

    /// A machine that was made of it may need it.
    async fn refuse_used(&self, image: &Image) -> Result<(), EngineError> {
        let servers: Vec<Server> = self.service.whole("servers", &[]).await.map_err(|error| {
            EngineError::Failed(format!("what was made of it is not known: {error}"))
        })?;
        let users = users(&image.name, &servers);
        if users.is_empty() {
            return Ok(());
        }
        Err(EngineError::Refused(format!("it is in use by {}", users.join(", "))))
    }

    /// Deletes one, and waits until it is not found any more.
    async fn remove_one(&self, bound: &Bound<'_>) -> Result<(), EngineError> {
        let found = bound.image;
        let call = self.service.call(Method::Delete, &found.place.path());
        let is_ours = self.send_bound(bound, &call, &is_going).await?;
        let had_failed = found.image.state == ImageState::Failed;
        let mut looks = Looks::within(GONE_TIME_MAX);
        loop {
            match self.at(&found.place).await {
                Err(EngineError::NotFound) if is_ours => return Ok(()),
                Err(EngineError::NotFound) => return Err(EngineError::NotFound),
                Ok(now) if now.image.state == ImageState::Failed && !had_failed => {
                    return Err(EngineError::Failed(format!(
                        "{} could not be deleted: the service says {}",
                        found.image.name,
                        now.image.message.unwrap_or_else(|| "no more".to_owned())
                    )));
                }
                Ok(_) => {}
                Err(error) => return Err(error),
            }
            let Some(time) = looks.pause() else {
                return Err(EngineError::Busy(format!(
                    "{} was deleted and is still there; the next run looks again",
                    found.image.name
                )));
            };
            self.service.pause.pause(time).await;
        }
    }
}

/// Whether it is being deleted.
pub(super) fn is_going(found: &Found) -> bool {
    found.image.state == ImageState::Deleting
}

/// What is recorded of an image after an update.
fn record_after(record: &Record, update: &Update) -> Record {
    let mut after = record.clone();
    after.labels.retain(|label, _| !update.remove_labels.contains(label));
    after.labels.extend(update.set_labels.clone());
    after.stage = update.stage_after;
    after
}
