//! Changes labels and stages, and deletes: only what still is what the plan was made over.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use serde_json::json;

use super::bind::{Only, Relabel, Removal};
use super::call::CallError;
use super::image::{Collection, Found, LABEL_UNPROVEN, Place, stage_label};
use super::observe::fill_in_users;
use super::room::Turn;
use super::service::WaitError;
use super::sharing;
use super::wire;
use super::{SET_PATIENCE, YandexEngine};
use crate::engine::bound::{Judged, Looked, is_done, is_same};
use crate::engine::http::{Call, Free, Leave, Method, Watched};
use crate::engine::{EngineError, Watcher, set};
use crate::inventory::{Image, LABEL_STAGE};
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

impl YandexEngine {
    /// The image that a plan means, by its ids.
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
        if !self.settings.image_folders().any(|folder| *folder == place.folder) {
            return Err(EngineError::NotFound);
        }
        let found = self.find(place.collection, &place.id).await?;
        let found = found.ok_or(EngineError::NotFound)?;
        // The id is what was asked for; an answer about anything else is none.
        if found.place == *place { Ok(found) } else { Err(EngineError::Changed) }
    }

    /// The image of an id, if there is one.
    pub(super) async fn find(
        &self,
        collection: Collection,
        id: &str,
    ) -> Result<Option<Found>, EngineError> {
        self.find_while(collection, id, &Free).await
    }

    /// The same as long as there is leave.
    pub(super) async fn find_while(
        &self,
        collection: Collection,
        id: &str,
        leave: &dyn Leave,
    ) -> Result<Option<Found>, EngineError> {
        let call = Call::get(&format!("{}/{id}", collection.path()));
        match self.services.get_while::<wire::Image>(&call, leave).await {
            Ok(image) => self.read(collection, image).map(Some).map_err(EngineError::Failed),
            Err(error) if error.is_gone() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn change(
        &self,
        image: &ImageRef,
        update: &Update,
    ) -> Result<Image, EngineError> {
        self.know_names().await;
        let Meant { image: seen, members } = self.meant(image).await?;
        if !is_same(image, &seen) {
            // Another run has done the same.
            let is_done = seen.name == image.name
                && is_done(&seen, update)
                && self.is_shared(&members, update).await;
            return if is_done { Ok(seen) } else { Err(EngineError::Changed) };
        }
        // What would be refused is refused before anything has changed.
        sharing::check(update.sharing.as_deref().unwrap_or_default())?;
        let count = members.len();
        let mut after = Vec::with_capacity(count);
        for member in members {
            let turn = self.rooms.one(&member.place.folder).await;
            let labels = |found: &Found| labels_after(found, &seen.labels, update);
            let judged = Judged::of(&member.image);
            let only = Only { judged: Some(&judged), beside: &Free };
            after.push(self.relabel(&turn, member, only, labels).await?);
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

    /// Takes away that nobody has seen the machine of an image stand still. What else somebody writes on
    /// it, a hold among it, stays, and says nothing against that.
    pub(super) async fn prove(
        &self,
        turn: &Turn,
        found: Found,
        watcher: &dyn Watcher,
    ) -> Result<Found, EngineError> {
        let labels = |found: &Found| {
            let mut labels = found.image.labels.clone();
            labels.remove(LABEL_UNPROVEN);
            labels
        };
        let only = Only { judged: None, beside: &Watched(watcher) };
        self.relabel(turn, found, only, labels).await
    }

    /// Sets the labels of an image, which go as a whole. The service binds that to nothing, so they are
    /// read right before each attempt: those that others have changed are kept, unless it is something
    /// of what was judged.
    async fn relabel(
        &self,
        turn: &Turn,
        mut found: Found,
        only: Only<'_>,
        labels_of: impl Fn(&Found) -> BTreeMap<String, String> + Send,
    ) -> Result<Found, EngineError> {
        for _ in 0..MERGES_MAX {
            let labels = labels_of(&found);
            if labels == found.image.labels {
                return Ok(found);
            }
            // Without the mask all that is not said would be reset.
            let body = json!({"updateMask": "labels", "labels": labels});
            let call = Call::new(Method::Patch, &found.place.path()).with_body(&body)?;
            let ended = {
                let leave = Relabel { engine: self, found: &found, only, after: &labels };
                self.carry_out(turn, &call, &found.image.fingerprint, &leave).await.result
            };
            if matches!(ended, Err(WaitError::Interrupted)) {
                return Err(EngineError::Interrupted);
            }
            found = self.at(&found.place).await?;
            match ended {
                _ if found.image.labels == labels => return Ok(found),
                // Nothing was sent, and nothing is lost.
                Err(WaitError::Call(CallError::Withheld(EngineError::Busy(_)))) | Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
            only.check(&found.image)?;
        }
        Err(EngineError::Busy("its labels keep changing; the next run tries again".to_owned()))
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
        self.refuse_used(&mut members.to_vec()).await?;
        for member in members {
            self.refuse_step_in_use(member).await?;
        }
        Ok(())
    }

    /// A set that has more members than the plan has seen is another one, and may be whole. What a
    /// listing once left out must not cost what it did not. A second snapshot of a disk is no member.
    async fn refuse_grown(&self, members: &[Found]) -> Result<(), EngineError> {
        let Some(first) = members.first().filter(|first| set::is_member(&first.image)) else {
            return Ok(());
        };
        let (there, gaps) = self.images_of(&first.place.folder, first.place.collection, None).await;
        if let Some(gap) = gaps.first() {
            let message = format!("its set cannot be looked at again: {}", gap.message);
            return Err(EngineError::Failed(message));
        }
        let label = |found: &Found, label: &str| found.image.labels.get(label).cloned();
        let is_of_set = |found: &&Found| {
            [LABEL_KEY, set::LABEL_POINT].iter().all(|one| label(found, one) == label(first, one))
        };
        let is_known = |found: &Found| {
            let disk = label(found, set::LABEL_DISK);
            members.iter().any(|member| label(member, set::LABEL_DISK) == disk)
        };
        if there.iter().filter(is_of_set).all(is_known) {
            Ok(())
        } else {
            Err(EngineError::Changed)
        }
    }

    /// Whether disks were made of an image since the plan was made.
    async fn refuse_used(&self, members: &mut [Found]) -> Result<(), EngineError> {
        let disks = self.all_disks().await.map_err(|error| {
            EngineError::Failed(format!("what was made of it is not known: {error}"))
        })?;
        fill_in_users(members, &disks);
        match members.iter().find(|member| !member.image.in_use_by.is_empty()) {
            Some(member) => {
                let users = member.image.in_use_by.join(", ");
                Err(EngineError::Refused(format!("it is in use by {users}")))
            }
            None => Ok(()),
        }
    }

    pub(super) async fn remove_one(&self, removal: &Removal<'_>) -> Result<(), EngineError> {
        let found = removal.found();
        let (place, seen) = (&found.place, &found.image.fingerprint);
        let call = Call::delete(&place.path());
        let turn = self.rooms.one(&place.folder).await;
        let ended = self.carry_out(&turn, &call, seen, removal).await;
        let was_begun = ended.was_begun;
        let error: CallError = match ended.result {
            Ok(_) | Err(WaitError::Interrupted) => return Ok(()),
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
    // Who changes something else of it has not seen its machine stand still.
    let unproven = found.image.labels.get_key_value(LABEL_UNPROVEN);
    labels.extend(unproven.map(|(label, value)| (label.clone(), value.clone())));
    labels.remove(LABEL_STAGE);
    if let Some(word) = stage_label(update.stage_after) {
        labels.insert(LABEL_STAGE.to_owned(), word.to_owned());
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::super::wire;
    use super::*;
    use crate::engine::set::{LABEL_DISK, LABEL_POINT};
    use crate::inventory::LABEL_SET;

    /// One member was proven and the other one not when their run was killed.
    #[test]
    fn a_change_of_labels_proves_nothing() {
        let labels = [
            (LABEL_UNPROVEN, "yes"),
            (LABEL_SET, "2"),
            (LABEL_DISK, "data"),
            (LABEL_POINT, "point"),
            ("stillframe-drilled", "20261120t000000z"),
        ];
        let labels: BTreeMap<String, String> =
            labels.map(|(label, value)| (label.to_owned(), value.to_owned())).into();
        let image = wire::Image {
            id: "i".to_owned(),
            folder_id: "f".to_owned(),
            created_at: "2026-11-21T00:00:00Z".to_owned(),
            status: "READY".to_owned(),
            labels: labels.clone(),
            ..wire::Image::default()
        };
        let now = "2026-11-21T00:30:00Z".parse().unwrap();
        let found = Found::read(Collection::Snapshots, image, now, |_| None).unwrap();
        let after = labels_after(&found, &BTreeMap::new(), &Update::default());
        assert!(after.contains_key(LABEL_UNPROVEN));
        // What else the members did not agree on goes.
        assert_eq!(after.len(), labels.len() - 1, "{after:?}");
    }
}
