//! Images that are made from a snapshot: the snapshot, the image from it, and the snapshot goes.
//!
//! What is in the image was decided when the snapshot was begun. The snapshot has a name that follows
//! from that of the image: a run after one that was killed, or beside another one, finds it and takes
//! it up. Names may be there twice, so whoever is about to make the image looks once more which of the
//! snapshots of that name is taken: all choose the same, and so ask for the same image. They are
//! deleted by their ids, after a look whether they are what was made for this image and nobody needs
//! them; what cannot be deleted then is a failed attempt to the next plan.

use jiff::Timestamp;

use super::YandexEngine;
use super::bind::Removal;
use super::image::{Collection, Found};
use super::insertion::Wanted;
use super::member::{Asking, Member, Until};
use super::wait::Pace;
use crate::engine::bound::Looked;
use crate::engine::step::{self, Use};
use crate::engine::{CreateRequest, Created, EngineError, Progress, Watcher};
use crate::inventory::ImageState;

impl YandexEngine {
    /// Makes an image from a snapshot.
    pub(super) async fn make_via_snapshot(
        &self,
        image: &Wanted,
        request: &CreateRequest,
        watcher: &dyn Watcher,
    ) -> Result<Created, EngineError> {
        let snapshot = image.step(request)?;
        let found = match self.named(image).await? {
            Some(found) => Some(found),
            None => self.with_snapshot(image, &snapshot, request, watcher).await?,
        };
        let member = match found {
            Some(found) => Ok(Member { found, is_made: false, turn: None, begun: None }),
            None => self.image_of_snapshot(image, &snapshot, watcher).await,
        };
        let ended = match member {
            Ok(Member { found, is_made, .. }) => {
                self.until_ready(image, found, watcher).await.map(|found| (found, is_made))
            }
            Err(error) => Err(error),
        };
        match ended {
            Ok((found, is_made)) => {
                let bytes = request.create.disk_bytes;
                watcher.progress(Progress { done: bytes, total: bytes });
                self.arrived(&snapshot, watcher).await;
                Ok(Created::of(found.image, is_made, found.by, request.by.as_ref()))
            }
            Err(error) => {
                self.came_to_nothing(image, &snapshot).await;
                Err(error)
            }
        }
    }

    /// Waits until the snapshot is READY, which is made where there is none. The image, where another
    /// run has made it meanwhile.
    async fn with_snapshot(
        &self,
        image: &Wanted,
        snapshot: &Wanted,
        request: &CreateRequest,
        watcher: &dyn Watcher,
    ) -> Result<Option<Found>, EngineError> {
        if let Some(key) = &request.create.kms_key {
            self.refuse_other_key(std::slice::from_ref(snapshot), key).await?;
        }
        let taken_up = self.step_to_take_up(snapshot, request).await?;
        let deadline = request.create.deadline;
        if taken_up.is_none() {
            self.refuse_late(deadline, watcher)?;
        } else if watcher.is_cancelled() {
            return Err(EngineError::Interrupted);
        }
        let ended = self.made_snapshot(snapshot, taken_up, request, watcher).await;
        // Another run may have come to the end of it meanwhile, and cleared it away.
        match (ended, self.named(image).await?) {
            (Err(error), None) => Err(error),
            (_, found) => Ok(found),
        }
    }

    async fn made_snapshot(
        &self,
        snapshot: &Wanted,
        taken_up: Option<Found>,
        request: &CreateRequest,
        watcher: &dyn Watcher,
    ) -> Result<(), EngineError> {
        let there = [taken_up];
        let deadline = request.create.deadline;
        let turns = self.turns(std::slice::from_ref(snapshot), &there, deadline, watcher).await?;
        let pace = Pace::of(deadline, &there);
        let asking = Asking { pace: &pace, until: Until::Done, watcher, still: None };
        let [taken_up] = there;
        let turn = turns.into_iter().next();
        let Member { found, turn, .. } = self.member(snapshot, taken_up, turn, asking).await?;
        drop(turn);
        self.until_made(snapshot, found, None, watcher).await.map(drop)
    }

    /// Asks for the image, of the snapshot that all take who look now.
    async fn image_of_snapshot(
        &self,
        image: &Wanted,
        snapshot: &Wanted,
        watcher: &dyn Watcher,
    ) -> Result<Member, EngineError> {
        let Some(taken) = self.named(snapshot).await?.filter(|found| found.is_made) else {
            let message = format!("the snapshot {} is gone again", snapshot.name);
            return match self.named(image).await? {
                Some(found) => Ok(Member { found, is_made: false, turn: None, begun: None }),
                None => Err(EngineError::Failed(message)),
            };
        };
        let image = image.of_snapshot(&taken.place.id);
        // What it holds was captured in time.
        let pace = Pace::of(Timestamp::MAX, &[]);
        let asking = Asking { pace: &pace, until: Until::Done, watcher, still: None };
        let Member { found, is_made, turn, .. } = self.member(&image, None, None, asking).await?;
        drop(turn);
        Ok(Member { found, is_made, turn: None, begun: None })
    }

    /// The image is READY: the step to it goes. That it cannot be deleted now costs nobody the image.
    async fn arrived(&self, snapshot: &Wanted, watcher: &dyn Watcher) {
        if let Err(error) = self.clear_steps(snapshot).await {
            let name = &snapshot.name;
            tracing::warn!("{name}: {error}");
            watcher.waits(&format!(
                "the snapshot {name}, of which the image was made, stays until a plan deletes it: {error}"
            ));
        }
    }

    /// Clears the step away where the image of it has failed. Otherwise it stays for the next run: an
    /// image that is not seen may be being made by another one.
    async fn came_to_nothing(&self, image: &Wanted, snapshot: &Wanted) {
        let found = self.named(image).await;
        let has_failed =
            found.is_ok_and(|found| found.is_some_and(|it| it.image.state == ImageState::Failed));
        if has_failed && let Err(error) = self.clear_steps(snapshot).await {
            tracing::warn!("{}: {error}", snapshot.name);
        }
    }

    /// The step that an earlier run has left, or another one is at. Those that are of no use go.
    async fn step_to_take_up(
        &self,
        snapshot: &Wanted,
        request: &CreateRequest,
    ) -> Result<Option<Found>, EngineError> {
        let steps = self.steps(snapshot).await?;
        let key = request.create.kms_key.as_deref();
        for step in &steps {
            let is_of_disk = step.made_of.as_ref().is_none_or(|disk| *disk == snapshot.disk);
            let has_key = key.is_none_or(|key| step.image.kms_key.as_deref() == Some(key));
            let fits = is_of_disk && has_key;
            let now = self.clock.now();
            let what = step::use_of(&step.image, step.is_made, fits, now);
            if what.map_err(EngineError::Busy)? == Use::Replace {
                self.delete_step(step).await?;
            }
        }
        self.named(snapshot).await
    }

    /// All that was made, by whatever run, as this step. What else has its name is nobody's step.
    async fn steps(&self, snapshot: &Wanted) -> Result<Vec<Found>, EngineError> {
        let (mut found, gaps) =
            self.images_of(&snapshot.folder, snapshot.collection, Some(&snapshot.name)).await;
        if let Some(gap) = gaps.first() {
            let message = format!("whether it is there is not known: {}", gap.message);
            return Err(EngineError::Failed(message));
        }
        found.retain(|found| step::is_step_to(&found.image, &snapshot.point, &snapshot.key));
        Ok(found)
    }

    /// Deletes the step, however often it is there.
    async fn clear_steps(&self, snapshot: &Wanted) -> Result<(), EngineError> {
        for step in self.steps(snapshot).await? {
            self.delete_step(&step).await?;
        }
        Ok(())
    }

    async fn delete_step(&self, step: &Found) -> Result<(), EngineError> {
        if step.image.state == ImageState::Deleting {
            return Ok(());
        }
        if step.image.is_held(self.clock.now()) {
            let name = &step.image.name;
            return Err(EngineError::Refused(format!("the snapshot {name} is held")));
        }
        let (members, looked) = (std::slice::from_ref(step), Looked::default());
        match self.remove_one(&Removal { engine: self, members, index: 0, looked: &looked }).await {
            // Another run is at it as well.
            Err(EngineError::NotFound) => Ok(()),
            ended => ended,
        }
    }

    /// Whether a step is of use to somebody after all: the image is made of it now.
    pub(super) async fn refuse_step_in_use(&self, found: &Found) -> Result<(), EngineError> {
        if !found.image.is_step() {
            return Ok(());
        }
        let Some(to) = found.image.step_to() else { return Err(EngineError::Changed) };
        if !found.is_made && found.image.state != ImageState::Failed {
            return Err(EngineError::Changed);
        }
        let (images, gaps) =
            self.images_of(&found.place.folder, Collection::Images, Some(to)).await;
        if let Some(gap) = gaps.first() {
            let message = format!("what is made of it is not known: {}", gap.message);
            return Err(EngineError::Failed(message));
        }
        let is_at_it =
            |one: &Found| one.image.name == to && one.image.state == ImageState::Creating;
        if images.iter().any(is_at_it) {
            return Err(EngineError::Refused(format!("the image {to} is made of it")));
        }
        Ok(())
    }
}
