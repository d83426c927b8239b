//! Copies of images in folders of their own: an image that is made of an image.
//!
//! It is looked for first, once there is room for it in its folder, so that what another run has made
//! meanwhile is seen. Only then the original is looked at: what is copied is what the plan was made
//! over, and a copy that is there needs no original.

use jiff::Timestamp;

use super::YandexEngine;
use super::image::{Collection, Found, Place};
use super::insertion::{self, Wanted};
use super::member::{Asking, Member, Until};
use super::room::Turn;
use super::sharing;
use super::wait::Pace;
use crate::engine::bound::is_same;
use crate::engine::{CopyRequest, Created, EngineError, Progress, Watcher};
use crate::inventory::{Image, ImageState};
use crate::name::is_rfc1035_label;
use crate::plan::ImageRef;

impl YandexEngine {
    pub(super) async fn copy_to(
        &self,
        request: &CopyRequest,
        watcher: &dyn Watcher,
    ) -> Result<Created, EngineError> {
        let copy = &request.copy;
        let original = self.copied(request)?;
        sharing::check(copy.sharing.as_deref().unwrap_or_default())?;
        self.know_names().await;
        let wanted = insertion::copy(&original, request)?;
        let turn = self.rooms.all(&wanted.folder, 1, watcher).await.into_iter().next();
        let found = self.named(&wanted).await?;
        let created = self.copied_once(&wanted, found, turn, request, watcher).await?;
        let created = match &copy.sharing {
            Some(sharing) => self.shared(created, sharing).await?,
            None => created,
        };
        match &copy.kms_key {
            Some(key) => has_key(created.image(), key).map(|()| created),
            None => Ok(created),
        }
    }

    /// Where the original is, where there is a way from there to the folder of the copy.
    fn copied(&self, request: &CopyRequest) -> Result<Place, EngineError> {
        let (copy, id) = (&request.copy, request.image.id.as_deref().unwrap_or_default());
        let refused = |message: String| Err(EngineError::Refused(message));
        if id.contains(&format!("/{}/", Collection::Snapshots.word())) {
            return refused("the service copies no snapshot; take disk images".to_owned());
        }
        let Some(place) = Place::parse(id) else { return Err(EngineError::NotFound) };
        if !self.settings.is_of_copies(&copy.location) {
            return refused(format!("{} is none of `copyFolders`", copy.location));
        }
        if place.folder == copy.location {
            return refused(format!(
                "{} is in {} already: a copy beside it would protect from nothing",
                request.image.name, copy.location
            ));
        }
        if !is_rfc1035_label(&copy.name) {
            return refused(format!("{} is no name of an image", copy.name));
        }
        Ok(place)
    }

    /// Asks for a copy where there is none, and waits until it is READY.
    async fn copied_once(
        &self,
        wanted: &Wanted,
        found: Option<Found>,
        turn: Option<Turn>,
        request: &CopyRequest,
        watcher: &dyn Watcher,
    ) -> Result<Created, EngineError> {
        let mut wanted = wanted.clone();
        let (mut turn, mut bytes) = (turn, 0);
        if found.is_none() {
            let original = self.original(&request.image).await?;
            bytes = original.image.disk_bytes.unwrap_or_default();
            wanted = wanted.like(&original);
            if watcher.is_cancelled() {
                return Err(EngineError::Interrupted);
            }
        } else {
            turn = None;
        }
        // What it holds was captured long ago: nothing of it is late.
        let pace = Pace::of(Timestamp::MAX, &[]);
        let asking = Asking { pace: &pace, until: Until::Done, watcher, still: None };
        let Member { found, is_made, turn, .. } = self.member(&wanted, found, turn, asking).await?;
        drop(turn);
        let found = self.until_ready(&wanted, found, watcher).await?;
        watcher.progress(Progress { done: bytes, total: bytes });
        Ok(Created::of(found.image, is_made, found.by, request.by.as_ref()))
    }

    /// The original, which is what the plan was made over.
    async fn original(&self, image: &ImageRef) -> Result<Found, EngineError> {
        let meant = self.meant(image).await?;
        if !is_same(image, &meant.image) || meant.image.state != ImageState::Ready {
            return Err(EngineError::Changed);
        }
        meant.members.into_iter().next().ok_or(EngineError::NotFound)
    }
}

/// Whether a copy is encrypted under a key. The service decides that and takes no wish, so it shows
/// in the copy only. The copy stays: it holds what it is to hold.
fn has_key(copy: &Image, key: &str) -> Result<(), EngineError> {
    match copy.kms_key.as_deref() {
        Some(its) if its == key => Ok(()),
        its => Err(EngineError::Refused(format!(
            "the copy {} was made and is encrypted under {} and not under {key}, and a copy has the key that the service gives it",
            copy.name,
            its.unwrap_or("a key of the service"),
        ))),
    }
}
