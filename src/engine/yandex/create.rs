//! Makes restore points: looks first, asks once for each image, waits for the operation and then for
//! the image. The images of a set are asked for at once, and what a run before has made of it is
//! taken as it is.

use futures_util::future::join_all;
use jiff::Timestamp;

use super::image::Found;
use super::insertion::{self, Wanted};
use super::member::{Asking, Member, Until};
use super::room::Turn;
use super::wait::Pace;
use super::{SET_PATIENCE, YandexEngine};
use super::{sharing, wire};
use crate::engine::bound::refuse_unplanned;
use crate::engine::http::{Call, Free, Leave};
use crate::engine::set::{self, APART};
use crate::engine::{Author, CreateRequest, Created, EngineError, Progress, Watcher};
use crate::inventory::{Consistency, Grant, Image, ImageState, LABEL_IMPORTED, LABEL_SET, Via};
use crate::name::{Ownership, is_rfc1035_label};
use crate::plan::ImageRef;

impl YandexEngine {
    pub(super) async fn make(
        &self,
        request: &CreateRequest,
        watcher: &dyn Watcher,
    ) -> Result<Created, EngineError> {
        if !is_rfc1035_label(&request.name) {
            return Err(EngineError::Refused(format!("{} is no name of an image", request.name)));
        }
        sharing::check(request.create.sharing.as_deref().unwrap_or_default())?;
        let is_stopped = request.create.consistency == Consistency::Stopped;
        let id = request.key.source.as_str();
        let alone = if is_stopped { Some(self.rooms.machine(id).await) } else { None };
        let instance = self.instance(id).await?;
        self.note_name(&request.key.source, instance.called());
        let folder = self.settings.images_folder_of(&instance.folder_id);
        let images = self.settings.images.clone().unwrap_or_default();
        let wanted = insertion::wanted(folder, &instance, &images, request)?;
        let attached = instance.disks().map(|(disk, _)| disk.name());
        let planned = refuse_unplanned(&request.create, instance.called(), attached);
        // What is there already is found, whatever was attached since.
        if planned.is_err() && self.all_named(&wanted).await?.iter().any(Option::is_none) {
            planned?;
        }
        let created = if let Some(alone) = alone {
            self.make_stopped(alone, instance, &wanted, request, watcher).await?
        } else if let (Via::Snapshot, [image]) = (request.create.via, wanted.as_slice()) {
            self.make_via_snapshot(image, request, watcher).await?
        } else {
            let found = self.look_for(&wanted, request, watcher).await?;
            self.all(&wanted, found, request, watcher).await?
        };
        match &request.create.sharing {
            Some(sharing) => self.shared(created, sharing).await,
            None => Ok(created),
        }
    }

    /// What there is already of what is wanted. Where something is missing, all is well for making it.
    pub(super) async fn look_for(
        &self,
        wanted: &[Wanted],
        request: &CreateRequest,
        watcher: &dyn Watcher,
    ) -> Result<Vec<Option<Found>>, EngineError> {
        let found = self.all_named(wanted).await?;
        let missing = found.iter().filter(|found| found.is_none()).count();
        if missing == 0 {
            return Ok(found);
        }
        if missing < found.len() {
            self.refuse_old(&found)?;
        }
        if let Some(key) = &request.create.kms_key {
            self.refuse_other_key(wanted, key).await?;
        }
        self.refuse_late(request.create.deadline, watcher)?;
        Ok(found)
    }

    pub(super) fn refuse_late(
        &self,
        deadline: Timestamp,
        watcher: &dyn Watcher,
    ) -> Result<(), EngineError> {
        if self.clock.now() > deadline {
            let message = "its deadline has passed while it waited; the next slot is the next one";
            return Err(EngineError::Busy(message.to_owned()));
        }
        if watcher.is_cancelled() { Err(EngineError::Interrupted) } else { Ok(()) }
    }

    /// Waits until all that is not there can be asked for at once, and looks whether it still may.
    pub(super) async fn turns(
        &self,
        wanted: &[Wanted],
        found: &[Option<Found>],
        deadline: Timestamp,
        watcher: &dyn Watcher,
    ) -> Result<Vec<Turn>, EngineError> {
        let missing = found.iter().filter(|found| found.is_none()).count();
        let Some(first) = wanted.first().filter(|_| missing > 0) else { return Ok(Vec::new()) };
        let turns = self.rooms.all(&first.folder, missing, watcher).await;
        self.refuse_old(found)?;
        self.refuse_late(deadline, watcher)?;
        Ok(turns)
    }

    /// An image has the key of its disk. Where that is not what is asked for, there is no image.
    pub(super) async fn refuse_other_key(
        &self,
        wanted: &[Wanted],
        key: &str,
    ) -> Result<(), EngineError> {
        for wanted in wanted {
            let call = Call::get(&format!("compute/v1/disks/{}", wanted.disk));
            let disk: wire::Disk = self.services.get(&call).await?;
            let its = disk.kms_key.map(|key| key.key_id).filter(|key| !key.is_empty());
            if its.as_deref() != Some(key) {
                return Err(EngineError::Refused(format!(
                    "the disk {} is encrypted under {} and not under {key}, and an image has the key of its disk",
                    wanted.device,
                    its.as_deref().unwrap_or("a key of the service"),
                )));
            }
        }
        Ok(())
    }

    /// The source as it is now.
    pub(super) async fn instance(&self, id: &str) -> Result<wire::Instance, EngineError> {
        self.instance_while(id, &Free).await
    }

    /// The same as long as there is leave.
    pub(super) async fn instance_while(
        &self,
        id: &str,
        leave: &dyn Leave,
    ) -> Result<wire::Instance, EngineError> {
        let call = Call::get(&format!("compute/v1/instances/{id}"));
        let found = match self.services.get_while::<wire::Instance>(&call, leave).await {
            Ok(instance) => Some(instance),
            Err(error) if error.is_gone() => None,
            Err(error) => return Err(error.into()),
        };
        let is_it = |instance: &wire::Instance| {
            instance.id == id && self.settings.folders.contains(&instance.folder_id)
        };
        found.filter(is_it).ok_or_else(|| {
            EngineError::Failed(format!("there is no instance with the id {id} in its folders"))
        })
    }

    /// Sets who may use what was made, and says who may.
    pub(super) async fn shared(
        &self,
        created: Created,
        sharing: &[Grant],
    ) -> Result<Created, EngineError> {
        let meant = self.meant(&ImageRef::of(created.image())).await?;
        for member in &meant.members {
            self.share(&member.place, sharing).await.map_err(|error| {
                EngineError::Failed(format!("it was made and could not be shared: {error}"))
            })?;
        }
        Ok(created.with(|image| Image { sharing: Some(sharing.to_vec()), ..image }))
    }

    /// The images that have the names already; each is what is wanted, or in its way.
    pub(super) async fn all_named(
        &self,
        wanted: &[Wanted],
    ) -> Result<Vec<Option<Found>>, EngineError> {
        let looks = join_all(wanted.iter().map(|wanted| self.named(wanted))).await;
        looks.into_iter().collect()
    }

    /// The image that has a name. Names may be there twice: what is wanted goes before anything else,
    /// and of two of it the one that is READY, then the older one.
    pub(super) async fn named(&self, wanted: &Wanted) -> Result<Option<Found>, EngineError> {
        self.named_while(wanted, &Free).await
    }

    /// The same as long as there is leave.
    pub(super) async fn named_while(
        &self,
        wanted: &Wanted,
        leave: &dyn Leave,
    ) -> Result<Option<Found>, EngineError> {
        let (folder, name) = (&wanted.folder, Some(wanted.name.as_str()));
        let looked = self.images_while(folder, wanted.collection, name, leave).await;
        let (mut found, gaps) = looked;
        if let Some(gap) = gaps.first() {
            let message = format!("whether it is there is not known: {}", gap.message);
            return Err(EngineError::Failed(message));
        }
        // A service that knows no such filter lists all.
        found.retain(|found| found.image.name == wanted.name);
        let age = |found: &Found| {
            let is_ready = found.image.state == ImageState::Ready;
            let is_ready = is_ready || (wanted.is_step && found.is_made);
            (!is_ready, found.image.created_at, found.place.id.clone())
        };
        let (ours, others): (Vec<Found>, Vec<Found>) =
            found.into_iter().partition(|found| is_wanted(wanted, found).is_ok());
        if let Some(best) = ours.into_iter().min_by_key(age) {
            return Ok(Some(best));
        }
        match others.first() {
            Some(other) => is_wanted(wanted, other).map(|()| None),
            None => Ok(None),
        }
    }

    /// What an earlier run has left of a set is of no use to a capture of now: the disks would be of
    /// two times.
    fn refuse_old(&self, found: &[Option<Found>]) -> Result<(), EngineError> {
        let made = found.iter().flatten().map(|found| found.image.created_at).min();
        match made.filter(|made| APART.after(*made) <= self.clock.now()) {
            Some(made) => Err(EngineError::Failed(format!(
                "a run before has begun it at {made} and not ended it; the next plan clears that away and makes it anew"
            ))),
            None => Ok(()),
        }
    }

    /// Makes all that is not there, and waits until all is READY.
    pub(super) async fn all(
        &self,
        wanted: &[Wanted],
        found: Vec<Option<Found>>,
        request: &CreateRequest,
        watcher: &dyn Watcher,
    ) -> Result<Created, EngineError> {
        let (deadline, bytes) = (request.create.deadline, request.create.disk_bytes);
        let turns = self.turns(wanted, &found, deadline, watcher).await?;
        let mut turns = turns.into_iter();
        let pace = Pace::of(deadline, &found);
        let asking = Asking { pace: &pace, until: Until::Done, watcher, still: None };
        let members = wanted.iter().zip(found).map(|(wanted, found)| {
            let turn = if found.is_none() { turns.next() } else { None };
            async move {
                let Member { found, is_made, turn, .. } =
                    self.member(wanted, found, turn, asking).await?;
                drop(turn);
                let found = self.until_ready(wanted, found, watcher).await?;
                Ok(Member { found, is_made, turn: None, begun: None })
            }
        });
        let members: Vec<Result<Member, EngineError>> = join_all(members).await;
        let members: Vec<Member> = members.into_iter().collect::<Result<_, _>>()?;
        watcher.progress(Progress { done: bytes, total: bytes });
        self.conclude(members, request.by.as_ref())
    }

    /// What members come to.
    pub(super) fn conclude(
        &self,
        members: Vec<Member>,
        own: Option<&Author>,
    ) -> Result<Created, EngineError> {
        // Two runs at once may each have made some of a set: the first of its disks decides.
        let is_made = members.first().is_some_and(|first| first.is_made);
        let by = members.first().and_then(|first| first.found.by.clone());
        let images = members.into_iter().map(|member| member.found.image).collect();
        let mut images = set::gathered(images, self.clock.now(), SET_PATIENCE);
        match (images.pop(), images.is_empty()) {
            (Some(image), true) if image.state != ImageState::Ready => {
                let why = image.message.unwrap_or_else(|| image.state.word().to_owned());
                Err(EngineError::Failed(format!("it was made, and is no restore point: {why}")))
            }
            (Some(image), true) => Ok(Created::of(image, is_made, by, own)),
            _ => Err(EngineError::Failed("what was made is not of one restore point".to_owned())),
        }
    }
}

/// Whether an image that has the name is what is wanted: its key, its disk, its part of a set.
pub(super) fn is_wanted(wanted: &Wanted, found: &Found) -> Result<(), EngineError> {
    let image = &found.image;
    let is_ours = image.ownership() == Ownership::Ours(wanted.key.clone());
    let is_part = (wanted.members > 1) == set::is_member(image);
    let is_same_disk = found.made_of.as_ref().is_none_or(|disk| *disk == wanted.disk);
    let is_there = found.place.folder == wanted.folder;
    let is_made_so = (image.is_step(), image.is_copy()) == (wanted.is_step, wanted.is_copy);
    let is_kind = is_part && is_made_so;
    if !is_ours || !is_same_disk || !is_kind || !is_there {
        return Err(EngineError::NameTaken(wanted.point.clone()));
    }
    if wanted.imported.is_some() && image.labels.get(LABEL_IMPORTED) != wanted.imported.as_ref() {
        return Err(EngineError::Refused(format!(
            "{} is there already or is being made, and not of this file: import it as another time, or delete that first",
            wanted.point
        )));
    }
    let count = wanted.members.to_string();
    if wanted.members > 1 && image.labels.get(LABEL_SET) != Some(&count) {
        return Err(EngineError::Failed(format!(
            "a run before has made {} as one of another number of disks; the next plan clears that away and makes it anew",
            wanted.device
        )));
    }
    Ok(())
}
