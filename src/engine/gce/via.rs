//! Disk images that are made from a snapshot: the snapshot, the image from it, and the snapshot goes.
//!
//! What is in the image was decided when the snapshot was begun, so a disk that is written meanwhile
//! changes nothing. The snapshot has a name that follows from that of the image: a run after one that
//! was killed, or beside another one, finds it and takes it up. It is deleted by its number, after a
//! look whether it is what was made for this image and nobody needs it; what cannot be deleted then
//! is a failed attempt to the next plan.

use jiff::Timestamp;

use super::bind::Removal;
use super::create::{Member, Shares, is_wanted};
use super::image::{Collection, Found};
use super::insertion::{self, Wanted};
use super::{GceEngine, Source};
use crate::engine::bound::Looked;
use crate::engine::step::{self, Ends, Use};
use crate::engine::{Author, CreateRequest, Created, EngineError, Watcher};
use crate::inventory::{ImageState, LABEL_STEP};

impl GceEngine {
    /// Makes a disk image from a snapshot.
    pub(super) async fn make_via_snapshot(
        &self,
        source: &Source,
        image: &Wanted,
        request: &CreateRequest,
        watcher: &dyn Watcher,
    ) -> Result<Created, EngineError> {
        let snapshot = insertion::step(image, request)?;
        let shares = Shares::new(watcher, 2, request.create.disk_bytes);
        let own = request.by.as_ref();
        if let Some(found) = self.named(image).await? {
            let found = self.until_ready(image, found, watcher).await?;
            return Ok(self
                .arrived(&snapshot, Member { found, is_made: false }, own, watcher)
                .await);
        }
        let taken_up = self.step_to_take_up(&snapshot, request).await?;
        let deadline = request.create.deadline;
        let (_room, start) = if taken_up.is_none() {
            let (room, start) = self.begin(source, request, 1, deadline, watcher).await?;
            (room, Some(start))
        } else {
            // What it holds was captured in time.
            let room = self.room_in(&source.zone, 1).await?;
            if watcher.is_cancelled() {
                return Err(EngineError::Interrupted);
            }
            (room, None)
        };
        let made = self.member(&snapshot, taken_up, deadline, &shares, 0).await;
        if let (Err(_), Some(start), false) = (&made, start, shares.was_begun()) {
            self.rhythm.give_back(&request.key.source, start);
        }
        // Another run may have come to the end of it meanwhile, and cleared it away.
        let found = self.named(image).await?;
        let found = match (made, found) {
            (Err(error), None) => return Err(error),
            (_, found) => found,
        };
        shares.tell(0, 100);
        if let Some(found) = &found {
            is_wanted(image, found)?;
        }
        // What it holds was captured in time.
        match self.member(image, found, Timestamp::MAX, &shares, 1).await {
            Ok(member) => Ok(self.arrived(&snapshot, member, own, watcher).await),
            Err(error) => {
                self.came_to_nothing(image, &snapshot).await;
                Err(error)
            }
        }
    }

    /// The image is READY: the step to it goes. That it cannot be deleted now costs nobody the image.
    async fn arrived(
        &self,
        snapshot: &Wanted,
        member: Member,
        own: Option<&Author>,
        watcher: &dyn Watcher,
    ) -> Created {
        if let Err(error) = self.clear_step(snapshot).await {
            let name = &snapshot.name;
            tracing::warn!("{name}: {error}");
            watcher.waits(&format!(
                "the snapshot {name}, of which the image was made, stays until a plan deletes it: {error}"
            ));
        }
        let Member { found, is_made } = member;
        Created::of(found.image, is_made, found.by, own)
    }

    /// Clears the step away where the image of it has failed. Otherwise it stays for the next run: an
    /// image that is not seen may be being made by another one.
    async fn came_to_nothing(&self, image: &Wanted, snapshot: &Wanted) {
        let found = self.named(image).await;
        let has_failed =
            found.is_ok_and(|found| found.is_some_and(|it| it.image.state == ImageState::Failed));
        if has_failed && let Err(error) = self.clear_step(snapshot).await {
            tracing::warn!("{}: {error}", snapshot.name);
        }
    }

    /// The step that an earlier run has left, or another one is at. One that is of no use goes.
    async fn step_to_take_up(
        &self,
        snapshot: &Wanted,
        request: &CreateRequest,
    ) -> Result<Option<Found>, EngineError> {
        let Some(found) = self.named(snapshot).await? else { return Ok(None) };
        if !is_step_to(snapshot, &found) {
            return Err(EngineError::NameTaken(snapshot.name.clone()));
        }
        let fits = found.made_of == snapshot.made_of && is_stored(&found, request);
        let now = self.clock.now();
        match step::use_of(&found.image, found.is_made, fits, now).map_err(EngineError::Busy)? {
            Use::TakeUp => Ok(Some(found)),
            Use::Replace => self.delete_step(&found).await.map(|()| None),
        }
    }

    /// Deletes the step, if it is there.
    async fn clear_step(&self, snapshot: &Wanted) -> Result<(), EngineError> {
        match self.named(snapshot).await? {
            Some(found) if is_step_to(snapshot, &found) => self.delete_step(&found).await,
            // What has the name and is not ours is nobody's step.
            _ => Ok(()),
        }
    }

    async fn delete_step(&self, found: &Found) -> Result<(), EngineError> {
        if found.image.is_held(self.clock.now()) {
            let name = &found.image.name;
            return Err(EngineError::Refused(format!("the snapshot {name} is held")));
        }
        let (members, looked) = (std::slice::from_ref(found), Looked::default());
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
        let project = &found.place.project;
        let path = format!("{}/{to}", Collection::Images.path(project));
        let image = self.find(project, Collection::Images, &path).await?;
        match image.map(|image| image.image.state) {
            Some(ImageState::Creating) => {
                Err(EngineError::Refused(format!("the image {to} is made of it")))
            }
            _ => Ok(()),
        }
    }
}

/// Says of the steps among images whether somebody may be at them.
pub(super) fn judge_steps(images: &mut [Found], now: Timestamp) {
    let ends = Ends::of(images.iter().map(|found| &found.image));
    for step in images.iter_mut().filter(|found| found.is_made) {
        ends.judge(&mut step.image, now);
    }
}

/// Whether a snapshot is what was made, by whatever run, on the way to the image.
fn is_step_to(wanted: &Wanted, found: &Found) -> bool {
    let image = found.image.labels.get(LABEL_STEP).map(String::as_str).unwrap_or_default();
    image == wanted.point && step::is_step_to(&found.image, image, &wanted.key)
}

/// Whether it is stored where, and encrypted as, the image is to be.
fn is_stored(found: &Found, request: &CreateRequest) -> bool {
    let image = &found.image;
    let is_there = request.location.is_empty() || image.location == request.location;
    // The service adds the version of the key.
    let has_key = request.create.kms_key.as_ref().is_none_or(|key| {
        let version = image.kms_key.as_deref().and_then(|found| found.strip_prefix(key.as_str()));
        version.is_some_and(|version| version.is_empty() || version.starts_with('/'))
    });
    is_there && has_key
}
