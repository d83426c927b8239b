//! Makes restore points: looks first, asks once for each image, waits for the operation and then
//! for the image. The images of a set are asked for at once, and what a run before has made of it
//! is taken as it is.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::GceEngine;
use super::call::CallError;
use super::http::{OPERATION_TIME_MAX, WaitError};
use super::image::{Collection, Found, Wire};
use super::insertion::{self, Wanted};
use super::settings::CREATIONS_MAX;
use super::wire::{self, DiskImage, MachineImage, Snapshot};
use super::{SET_PATIENCE, Source};
use crate::engine::http::{Call, Limit, Looks, Within};
use crate::engine::set::{self, APART};
use crate::engine::{Author, CopyRequest, CreateRequest, Created, EngineError, Progress, Watcher};
use crate::inventory::{Image, ImageState, LABEL_SET, Via};
use crate::name::{Ownership, SourceId, is_rfc1035_label};
use crate::plan::ImageRef;

/// How often an image may not be there yet though the operation that made it is done.
const UNSEEN_MAX: u32 = 5;

/// So often something is asked for anew that was made before and is gone again.
const ANEW_MAX: u32 = 20;

/// What came of asking for one image.
pub(super) struct Member {
    pub(super) found: Found,
    pub(super) is_made: bool,
}

/// How far images are that are made side by side, or one from the other.
pub(super) struct Shares<'a> {
    watcher: &'a dyn Watcher,
    percents: Vec<AtomicU64>,
    bytes: u64,
    /// Whether the service may have begun any of them.
    was_begun: AtomicBool,
}

impl<'a> Shares<'a> {
    pub(super) fn new(watcher: &'a dyn Watcher, count: usize, bytes: u64) -> Self {
        let percents = (0..count).map(|_| AtomicU64::new(0)).collect();
        Self { watcher, percents, bytes, was_begun: AtomicBool::new(false) }
    }

    /// Whether the service may have begun any of them.
    pub(super) fn was_begun(&self) -> bool {
        self.was_begun.load(Ordering::Relaxed)
    }

    pub(super) fn tell(&self, index: usize, percent: u64) {
        self.percents[index].store(percent, Ordering::Relaxed);
        let sum: u64 = self.percents.iter().map(|percent| percent.load(Ordering::Relaxed)).sum();
        let whole = self.percents.len() as u64 * 100;
        let done = self.bytes / whole.max(1) * sum;
        self.watcher.progress(Progress { done, total: self.bytes });
    }
}

impl GceEngine {
    pub(super) async fn make(
        &self,
        request: &CreateRequest,
        watcher: &dyn Watcher,
    ) -> Result<Created, EngineError> {
        if !is_rfc1035_label(&request.name) {
            return Err(EngineError::Refused(format!("{} is no name of an image", request.name)));
        }
        let (source, instance) = self.instance(&request.key.source).await?;
        let project = self.images_made_in(&source.project);
        let wanted = insertion::wanted(project, &source.project, &instance, request)?;
        let planned = insertion::refuse_unplanned(&instance, &request.create);
        // What is there already is found, whatever was attached since.
        if planned.is_err() && self.all_named(&wanted).await?.iter().any(Option::is_none) {
            planned?;
        }
        let created = match (request.create.via, wanted.as_slice()) {
            (Via::Snapshot, [image]) => {
                self.make_via_snapshot(&source, image, request, watcher).await?
            }
            _ => self.make_all(&source, &wanted, request, watcher).await?,
        };
        match &request.create.sharing {
            Some(sharing) => self.shared(created, sharing).await,
            None => Ok(created),
        }
    }

    /// Makes all images of a restore point from what they are of.
    async fn make_all(
        &self,
        source: &Source,
        wanted: &[Wanted],
        request: &CreateRequest,
        watcher: &dyn Watcher,
    ) -> Result<Created, EngineError> {
        let found = self.all_named(wanted).await?;
        let missing = found.iter().filter(|found| found.is_none()).count();
        if missing > 0 && missing < found.len() {
            self.refuse_old(&found)?;
        }
        let deadline = request.create.deadline;
        let is_part = missing > 0 && missing < found.len();
        let mut room = None;
        let mut turn = None;
        if is_part {
            // Its turn was taken when it was begun: a disk that is missing was not captured since, and
            // another turn would be too late for the others.
            room = Some(self.place_in(source, missing, deadline, watcher).await?);
        } else if missing > 0 {
            let (place, start) = self.begin(source, request, missing, deadline, watcher).await?;
            (room, turn) = (Some(place), Some(start));
        }
        let shares = Shares::new(watcher, wanted.len(), request.create.disk_bytes);
        // To wait may have taken long.
        let created = match if is_part { self.refuse_old(&found) } else { Ok(()) } {
            Ok(()) => self.all(wanted, found, deadline, &shares, request.by.as_ref()).await,
            Err(error) => Err(error),
        };
        if let (Err(_), Some(start), false) = (&created, turn, shares.was_begun()) {
            self.rhythm.give_back(&request.key.source, start);
        }
        drop(room);
        created
    }

    /// All that has to be waited for before anything is asked for: a place in the region, and the time
    /// that is taken in the rhythm of the source.
    pub(super) async fn begin(
        &self,
        source: &Source,
        request: &CreateRequest,
        missing: usize,
        deadline: Timestamp,
        watcher: &dyn Watcher,
    ) -> Result<(OwnedSemaphorePermit, Timestamp), EngineError> {
        if watcher.is_cancelled() {
            return Err(EngineError::Interrupted);
        }
        let start = self.wait_for_source(&request.key.source, deadline, watcher).await?;
        let room = self.place_in(source, missing, deadline, watcher).await;
        if room.is_err() {
            self.rhythm.give_back(&request.key.source, start);
        }
        room.map(|room| (room, start))
    }

    async fn place_in(
        &self,
        source: &Source,
        missing: usize,
        deadline: Timestamp,
        watcher: &dyn Watcher,
    ) -> Result<OwnedSemaphorePermit, EngineError> {
        let room = self.room_in(&source.zone, missing).await?;
        if self.clock.now() > deadline {
            let message = "its deadline has passed while it waited; the next slot is the next one";
            return Err(EngineError::Busy(message.to_owned()));
        }
        if watcher.is_cancelled() { Err(EngineError::Interrupted) } else { Ok(room) }
    }

    /// Copies a disk image to another location.
    pub(super) async fn copy_to(
        &self,
        request: &CopyRequest,
        watcher: &dyn Watcher,
    ) -> Result<Created, EngineError> {
        let place = super::image::Place::parse(request.image.id.as_deref().unwrap_or_default());
        let place =
            place.filter(|place| self.holds(&place.project)).ok_or(EngineError::NotFound)?;
        if place.collection != Collection::Images {
            let kind = place.collection.kind().word();
            return Err(EngineError::Refused(format!("the service copies no {kind}")));
        }
        self.know_sources().await;
        let wanted = [insertion::copy(&place, request)?];
        let mut found = self.all_named(&wanted).await?;
        let mut bytes = 0;
        if found.iter().all(Option::is_none) {
            // What is copied is what the plan was made over; a copy that is there needs no original.
            let original = self.bound(&request.image).await?;
            bytes = original.disk_bytes.unwrap_or_default();
            found = vec![None];
        }
        if watcher.is_cancelled() {
            return Err(EngineError::Interrupted);
        }
        let (shares, by) = (Shares::new(watcher, 1, bytes), request.by.as_ref());
        let created = self.all(&wanted, found, Timestamp::MAX, &shares, by).await?;
        match &request.copy.sharing {
            Some(sharing) => self.shared(created, sharing).await,
            None => Ok(created),
        }
    }

    /// Sets who may use what was made, and says who may.
    async fn shared(
        &self,
        created: Created,
        sharing: &[crate::inventory::Grant],
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
    async fn all_named(&self, wanted: &[Wanted]) -> Result<Vec<Option<Found>>, EngineError> {
        let looks = join_all(wanted.iter().map(|wanted| self.named(wanted))).await;
        let mut found = Vec::with_capacity(wanted.len());
        for (wanted, look) in wanted.iter().zip(looks) {
            let look = look?;
            if let Some(look) = &look {
                is_wanted(wanted, look)?;
            }
            found.push(look);
        }
        Ok(found)
    }

    /// What an earlier run has left of a set is of no use to a capture of now: the disks would be
    /// of two times.
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
    async fn all(
        &self,
        wanted: &[Wanted],
        found: Vec<Option<Found>>,
        deadline: Timestamp,
        shares: &Shares<'_>,
        own: Option<&Author>,
    ) -> Result<Created, EngineError> {
        // What is more than a region takes waits until another one has ended.
        let places = &Semaphore::new(CREATIONS_MAX);
        let members =
            wanted.iter().zip(found).enumerate().map(|(index, (wanted, found))| async move {
                let _place = places.acquire().await;
                self.member(wanted, found, deadline, shares, index).await
            });
        let members: Vec<Member> = join_all(members).await.into_iter().collect::<Result<_, _>>()?;
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

    pub(super) async fn member(
        &self,
        wanted: &Wanted,
        found: Option<Found>,
        deadline: Timestamp,
        shares: &Shares<'_>,
        index: usize,
    ) -> Result<Member, EngineError> {
        let watcher = shares.watcher;
        let progress = |percent| shares.tell(index, percent);
        if let Some(found) = found {
            let found = self.until_ready(wanted, found, watcher).await?;
            return Ok(Member { found, is_made: false });
        }
        let after = "its deadline has passed; the next slot is the next one";
        let limit = Limit { until: deadline, after, watcher };
        let leave = Within { limit, clock: self.clock.as_ref() };
        let mut attempt = 0;
        let mut has_waited = false;
        loop {
            let (project, call) = (&wanted.project, &wanted.call);
            let ended = self.carry_out(project, call, "", attempt, &leave, &progress).await;
            let was_refused =
                matches!(&ended.result, Err(WaitError::Call(error)) if error.is_refusal());
            let was_begun = ended.was_begun();
            if was_begun || !was_refused {
                shares.was_begun.store(true, Ordering::Relaxed);
            }
            match ended.result {
                Ok(()) => match self.appeared(wanted).await? {
                    Some(found) => {
                        let found = self.until_ready(wanted, found, watcher).await?;
                        return Ok(Member { found, is_made: true });
                    }
                    // What was made under this id is gone again: it is asked for anew.
                    None if ended.was_done && attempt < ANEW_MAX => attempt = ended.attempt + 1,
                    None => {
                        return Err(EngineError::Failed(format!(
                            "{}: it is not there though the operation is done",
                            wanted.name
                        )));
                    }
                },
                Err(WaitError::Interrupted) => return Err(EngineError::Interrupted),
                Err(WaitError::Call(error)) => {
                    if let Some(found) = self.made_by_another(wanted, &error).await? {
                        let found = self.until_ready(wanted, found, watcher).await?;
                        return Ok(Member { found, is_made: false });
                    }
                    // The other disks of a set do not wait: it would be of two times.
                    if !error.is_too_soon() || has_waited || wanted.members > 1 {
                        return Err(error.into());
                    }
                    has_waited = true;
                    attempt = ended.attempt + 1;
                    self.wait_once(deadline, watcher).await?;
                }
            }
        }
    }

    /// What is there although it was not made for this request: another run was faster, whatever the
    /// service has refused this one for, or what told of it was lost.
    async fn made_by_another(
        &self,
        wanted: &Wanted,
        error: &CallError,
    ) -> Result<Option<Found>, EngineError> {
        let found = if error.is_taken() {
            self.appeared(wanted).await?
        } else if error.is_open() || error.is_gone() {
            self.named(wanted).await?
        } else {
            // Why it was refused says more than why nobody can look.
            self.named(wanted).await.unwrap_or_default()
        };
        if let Some(found) = &found {
            is_wanted(wanted, found)?;
        }
        Ok(found)
    }

    /// The source as it is now.
    async fn instance(&self, id: &SourceId) -> Result<(Source, wire::Instance), EngineError> {
        for fresh in [false, true] {
            let source = self.locate(id, fresh).await.map_err(EngineError::Failed)?;
            // By its id, so that it is not another one under its name.
            let path = format!("projects/{}/zones/{}/instances/{id}", source.project, source.zone);
            let fields = "id,name,zone,status,disks(deviceName,boot,source,type)";
            match self.http.send::<wire::Instance>(&Call::get(&path).with("fields", fields)).await {
                Ok(mut instance) if instance.id == id.as_str() => {
                    for disk in &mut instance.disks {
                        disk.source = wire::resource_path(&disk.source).to_owned();
                    }
                    let disks = instance.disks.iter().map(|disk| &disk.source);
                    let numbers = self.numbers(disks).await;
                    let disks = instance.disks.iter_mut().map(|disk| &mut disk.source);
                    disks.for_each(|path| numbers.by_id(path));
                    return Ok((source, instance));
                }
                Ok(_) => {}
                Err(error) if error.is_gone() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(EngineError::Failed(format!("there is no instance with the id {id}")))
    }

    /// The image that has the name, if there is one.
    pub(super) async fn named(&self, wanted: &Wanted) -> Result<Option<Found>, EngineError> {
        let path = format!("{}/{}", wanted.collection.path(&wanted.project), wanted.name);
        self.find(&wanted.project, wanted.collection, &path).await
    }

    /// The image at a path, by name or number, if there is one.
    pub(super) async fn find(
        &self,
        project: &str,
        collection: Collection,
        path: &str,
    ) -> Result<Option<Found>, EngineError> {
        // Who has made it is asked of the one that is in question, and not in lists of thousands.
        let fields = format!("{},description", collection.fields());
        let call = Call::get(path).with("fields", fields);
        let found = match collection {
            Collection::MachineImages => self.read::<MachineImage>(project, &call).await,
            Collection::Images => self.read::<DiskImage>(project, &call).await,
            Collection::Snapshots => self.read::<Snapshot>(project, &call).await,
        };
        match found {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_gone() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn read<T: Wire>(&self, project: &str, call: &Call) -> Result<Found, CallError> {
        let image = self.http.send::<T>(call).await?;
        let mut found = image.found(project).map_err(CallError::Unreadable)?;
        let numbers = self.numbers(found.paths()).await;
        found.paths_mut().for_each(|path| numbers.by_id(path));
        found.name_source(|id| self.known_source(id).map(|source| source.name));
        Ok(found)
    }

    /// The image that an operation has made. It may show a little later.
    async fn appeared(&self, wanted: &Wanted) -> Result<Option<Found>, EngineError> {
        let mut looks = Looks::within(OPERATION_TIME_MAX);
        for _ in 0..UNSEEN_MAX {
            if let Some(found) = self.named(wanted).await? {
                return Ok(Some(found));
            }
            let Some(time) = looks.pause() else { break };
            self.http.pause.pause(time).await;
        }
        self.named(wanted).await
    }

    /// Waits until an image is READY. It goes on being made after its operation is done.
    pub(super) async fn until_ready(
        &self,
        wanted: &Wanted,
        found: Found,
        watcher: &dyn Watcher,
    ) -> Result<Found, EngineError> {
        let failed = |why: &str| Err(EngineError::Failed(format!("{}: {why}", wanted.name)));
        let mut looks = Looks::within(OPERATION_TIME_MAX);
        let mut found = Some(found);
        loop {
            let Some(now) = found.take() else { return failed("it is gone again") };
            is_wanted(wanted, &now)?;
            if now.is_made {
                return Ok(now);
            }
            match now.image.state {
                ImageState::Ready | ImageState::Creating | ImageState::Begun => {}
                ImageState::Failed | ImageState::Partial => {
                    return failed("the service could not make it");
                }
                ImageState::Deleting => return failed("it is being deleted"),
                ImageState::Unknown => return failed("it is in a state that is not known"),
            }
            if watcher.is_cancelled() {
                return Err(EngineError::Interrupted);
            }
            let Some(time) = looks.pause() else {
                return failed("it does not become READY");
            };
            self.http.pause.pause(time).await;
            found = self.named(wanted).await?;
        }
    }
}

/// Whether an image that has the name is what is wanted: its key, its source, its part of a set.
pub(super) fn is_wanted(wanted: &Wanted, found: &Found) -> Result<(), EngineError> {
    let image = &found.image;
    let is_ours = image.ownership() == Ownership::Ours(wanted.key.clone());
    let is_part = (wanted.members > 1) == set::is_member(image);
    let is_same_source =
        found.made_of == wanted.made_of || wanted.through.as_ref() == Some(&found.made_of);
    let is_step = image.is_step() == wanted.is_step;
    let is_kind = image.is_copy() == wanted.is_copy && is_part && is_step;
    if !is_ours || !is_same_source || !is_kind {
        return Err(EngineError::NameTaken(wanted.point.clone()));
    }
    let count = wanted.members.to_string();
    if wanted.members > 1 && image.labels.get(LABEL_SET) != Some(&count) {
        let disk = wanted.disk.as_deref().unwrap_or_default();
        return Err(EngineError::Failed(format!(
            "a run before has made {disk} as one of another number of disks; the next plan clears that away and makes it anew"
        )));
    }
    Ok(())
}
