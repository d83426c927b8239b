//! Makes restore points: an image of the server, and a snapshot of each data volume beside it.
//!
//! Before anything is asked for, it is looked for what is there of the restore point.

use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use jiff::Timestamp;

use super::TwccEngine;
use super::begin::Member;
use super::image::{Collection, Found, SYSTEM, share_records};
use super::observe::{disks_of, without_host};
use super::record::Record;
use super::wait::Goal;
use super::wire::{Server, Site, Volume};
use crate::engine::bound::refuse_unplanned;
use crate::engine::http::{Limit, Method};
use crate::engine::set::{self, APART, LABEL_DISK, LABEL_POINT};
use crate::engine::{Author, CreateRequest, Created, EngineError, Progress, Watcher};
use crate::inventory::{Disk, Image, ImageSource, ImageState, LABEL_SET, Stage};
use crate::name::{Key, is_rfc1035_label};
use crate::plan::Create;

/// The source as it is now.
pub(super) struct Machine {
    pub(super) server: Server,
    site: u64,
    volumes: Vec<Volume>,
}

impl Machine {
    /// Refuses what would leave out a disk that the plan has not seen. One that is attached to nobody
    /// knows what may be attached here.
    fn refuse_unplanned(&self, create: &Create) -> Result<(), EngineError> {
        let attached = disks_of(self.server.id, &self.volumes);
        let attached = attached.iter().map(|one| one.disk.name.as_str());
        let astray = self.volumes.iter().filter(|volume| without_host(volume).is_some());
        let all = attached.chain(astray.map(|volume| volume.name.as_str()));
        refuse_unplanned(create, &format!("the site {}", self.site), all)
    }
}

/// A restore point that is being made.
pub(super) struct Capture<'a> {
    pub(super) machine: Machine,
    pub(super) request: &'a CreateRequest,
    pub(super) watcher: &'a dyn Watcher,
}

/// An image that is to be there.
pub(super) struct Wanted<'a> {
    pub(super) key: &'a Key,
    pub(super) name: &'a str,
    /// The disk as its record names it.
    disk: String,
    pub(super) description: String,
    /// The volume; the system disk is imaged with its server.
    pub(super) volume: Option<u64>,
}

/// How far all members of a restore point are.
struct Shares<'a> {
    watcher: &'a dyn Watcher,
    done: AtomicU64,
    members: u64,
    bytes: u64,
}

impl Shares<'_> {
    /// The service says nothing of how far it is: one member is done, or it is not.
    fn one_done(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        let done = self.bytes / self.members.max(1) * done;
        self.watcher.progress(Progress { done, total: self.bytes });
    }
}

impl TwccEngine {
    pub(super) async fn make(
        &self,
        request: &CreateRequest,
        watcher: &dyn Watcher,
    ) -> Result<Created, EngineError> {
        if !is_rfc1035_label(&request.name) {
            return Err(EngineError::Refused(format!("{} is no name of an image", request.name)));
        }
        if let Some(what) = self.alters.get() {
            return Err(EngineError::Refused(format!(
                "{what}; nothing more is asked for in this run"
            )));
        }
        let machine = self.machine(request).await?;
        let capture = Capture { machine, request, watcher };
        let wanted = wanted(&capture.machine, request)?;
        let there = self.there(request).await?;
        let found: Vec<Option<Found>> = wanted
            .iter()
            .map(|wanted| there.iter().find(|found| wanted.is_it(found)).cloned())
            .collect();
        if found.iter().any(Option::is_none) {
            self.may_begin(&capture, &there, &found)?;
        }
        self.all(&capture, &wanted, found).await
    }

    /// The site and its one server, as they are now, and what is attached to that. Where the plan has not
    /// seen what that is and takes none of it, nobody asks.
    async fn machine(&self, request: &CreateRequest) -> Result<Machine, EngineError> {
        let source = &request.key.source;
        let gone = || EngineError::Failed(format!("there is no site with the id {source}"));
        let site: u64 = source.as_str().parse().map_err(|_| gone())?;
        let call = self.service.call(Method::Get, &format!("sites/{site}"));
        let seen: Site = match self.service.read(&call).await {
            Err(error) if error.is_gone() => return Err(gone()),
            seen => seen?,
        };
        let status = seen.status.unwrap_or_default();
        if !["ready", "notready"].contains(&status.to_ascii_lowercase().as_str()) {
            return Err(EngineError::Busy(format!(
                "the site {site} is {status}; images can be made while it is Ready or NotReady, the next run tries again"
            )));
        }
        let mut servers: Vec<Server> =
            self.service.whole("servers", &[("site", site.to_string())]).await?;
        servers.retain(|server| server.site.is_none_or(|of| of == site));
        let (Some(server), true, true) = (servers.pop(), servers.is_empty(), seen.id == site)
        else {
            return Err(EngineError::Failed(format!("the site {site} has not one server")));
        };
        let query = [("attached_host", server.id.to_string())];
        let volumes = if request.create.excluded_disks.iter().any(|disk| disk == Disk::UNSEEN) {
            Vec::new()
        } else {
            self.service.whole("volumes", &query).await?
        };
        Ok(Machine { server, site, volumes })
    }

    /// What there is of the restore point already; anything else under its name is in its way.
    async fn there(&self, request: &CreateRequest) -> Result<Vec<Found>, EngineError> {
        let mut all = self.all_images().await?;
        let is_in_the_way =
            |found: &Found| found.image.name == request.name && !found.is_of(&request.key);
        if all.iter().any(is_in_the_way) {
            return Err(EngineError::NameTaken(request.name.clone()));
        }
        all.retain(|found| found.image.state == ImageState::Creating || found.is_of(&request.key));
        all.sort_by(|one, other| one.rank().cmp(&other.rank()));
        Ok(all)
    }

    /// All that speaks against beginning now.
    fn may_begin(
        &self,
        capture: &Capture<'_>,
        there: &[Found],
        found: &[Option<Found>],
    ) -> Result<(), EngineError> {
        let (request, server) = (capture.request, capture.machine.server.id);
        capture.machine.refuse_unplanned(&request.create)?;
        // What an earlier run has left of a set is of no use to a capture of now. What is still QUEUED
        // is of a time to come.
        let left = found.iter().flatten().filter(|found| !found.is_queued);
        let made = left.map(|found| found.image.created_at).min();
        let has_image = found.first().is_some_and(Option::is_some);
        let is_late = |made: &Timestamp| !has_image || APART.after(*made) < self.service.now();
        if let Some(made) = made.filter(is_late) {
            return Err(EngineError::Failed(format!(
                "a run before has begun it at {made} and not ended it, and disks of now are of another time"
            )));
        }
        let is_others = |other: &&Found| {
            !other.is_of(&request.key)
                && other.place.collection == Collection::Images
                && other.made_of == Some(server)
        };
        if let Some(other) = there.iter().find(is_others) {
            let (name, since) = (&other.image.name, other.image.created_at);
            let mut stuck = other.clone();
            let site = || ImageSource { id: request.key.source.clone(), name: String::new() };
            stuck.image.source.get_or_insert_with(site);
            return Err(if stuck.note_stuck(self.settings.queued(), self.service.now()) {
                EngineError::Failed(stuck.image.message.unwrap_or_default())
            } else {
                EngineError::Busy(format!(
                    "the image {name} of the same site is being made since {since}; the next run tries again"
                ))
            });
        }
        self.may_ask(&self.deadline(capture))
    }

    /// Makes all that is not there, and waits until all is READY. The image is first: as long as it is
    /// QUEUED nobody knows what time it will be of, so the snapshots wait for that.
    async fn all(
        &self,
        capture: &Capture<'_>,
        wanted: &[Wanted<'_>],
        found: Vec<Option<Found>>,
    ) -> Result<Created, EngineError> {
        let deadline = self.deadline(capture);
        let mut found = wanted.iter().zip(found);
        let none = || EngineError::Failed("the restore point has no disks".to_owned());
        let (image, there) = found.next().ok_or_else(none)?;
        let mut members = vec![match there {
            Some(there) => Member::there(there),
            None => self.begin(capture, image, &deadline).await?,
        }];
        let first = members[0].found.clone();
        let reached = self.until(capture, image, first, Goal::Begun).await?;
        reached.note_late(capture.watcher);
        let limit = Limit {
            until: APART.after(reached.queued_at),
            after: "its image was begun too long ago for snapshots of the same time, and is no restore point without them",
            watcher: capture.watcher,
        };
        for (one, there) in found {
            if there.is_none() && reached.queued_at > deadline.until {
                let message =
                    "its deadline has passed while its image was QUEUED; it has no snapshots";
                return Err(EngineError::Failed(message.to_owned()));
            }
            members.push(match there {
                Some(there) => Member::there(there),
                None => self.begin(capture, one, &limit).await?,
            });
        }
        let shares = Shares {
            watcher: capture.watcher,
            done: AtomicU64::new(0),
            members: members.len() as u64,
            bytes: capture.request.create.disk_bytes,
        };
        let ready = members.iter().zip(wanted).map(|(member, wanted)| {
            let shares = &shares;
            async move {
                let ready = self.until(capture, wanted, member.found.clone(), Goal::Ready).await;
                shares.one_done();
                ready.map(|reached| reached.found)
            }
        });
        let ready: Vec<Found> = join_all(ready).await.into_iter().collect::<Result<_, _>>()?;
        for twin in members.iter().filter_map(|member| member.twin.as_ref()) {
            self.step_back_again(capture, twin).await;
        }
        let by = ready.first().and_then(|image| Author::read(&image.record.text));
        let image = self.shown(ready).await?;
        // Two runs at once may each have made some of a set: the image decides.
        Ok(Created::of(image, members[0].is_made, by, capture.request.by.as_ref()))
    }

    /// What members that are READY are shown as: a restore point, or they are none.
    async fn shown(&self, mut members: Vec<Found>) -> Result<Image, EngineError> {
        let seen = self.known().await;
        share_records(&mut members);
        for member in &mut members {
            member.dress(&seen);
        }
        let images = members.into_iter().map(|found| found.image).collect();
        let mut images = set::gathered(images, self.service.now(), self.patience());
        let (Some(image), true) = (images.pop(), images.is_empty()) else {
            let message = "what was made is not of one restore point";
            return Err(EngineError::Failed(message.to_owned()));
        };
        if image.state == ImageState::Ready {
            return Ok(image);
        }
        let why = image.message.unwrap_or_else(|| "it is not READY".to_owned());
        Err(EngineError::Failed(format!("{}: {why}", image.name)))
    }
}

/// What the restore point is made of: the image first, since it carries the marks.
fn wanted<'a>(
    machine: &Machine,
    request: &'a CreateRequest,
) -> Result<Vec<Wanted<'a>>, EngineError> {
    let create = &request.create;
    let attached = disks_of(machine.server.id, &machine.volumes);
    let mut wanted = Vec::with_capacity(create.disks.len());
    for device in &create.disks {
        let one = attached.iter().find(|one| one.disk.name == *device).ok_or_else(|| {
            EngineError::Failed(format!("the site {} has no disk {device}", machine.site))
        })?;
        let disk = one.volume.map_or_else(|| SYSTEM.to_owned(), |volume| volume.to_string());
        let mut labels = create.labels.clone();
        if create.disks.len() > 1 {
            labels.insert(LABEL_SET.to_owned(), create.disks.len().to_string());
            labels.insert(LABEL_DISK.to_owned(), disk.clone());
            labels.insert(LABEL_POINT.to_owned(), request.name.clone());
        }
        let text = create.description.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut record = Record { labels, stage: Stage::Active, text, is_damaged: false };
        record.sign(request.by.as_ref(), &request.name)?;
        wanted.push(Wanted {
            key: &request.key,
            name: &request.name,
            disk,
            description: record.write(&request.name)?,
            volume: one.volume,
        });
    }
    wanted.sort_by_key(|wanted| wanted.volume);
    if wanted.first().is_none_or(|first| first.volume.is_some()) {
        let message = "the system disk must be taken as well: the image of it carries the record of the restore point";
        return Err(EngineError::Refused(message.to_owned()));
    }
    Ok(wanted)
}

impl Wanted<'_> {
    pub(super) fn collection(&self) -> Collection {
        match self.volume {
            Some(_) => Collection::Snapshots,
            None => Collection::Images,
        }
    }

    /// Whether an image is this member: its key and its disk.
    pub(super) fn is_it(&self, found: &Found) -> bool {
        let disk = found.image.labels.get(LABEL_DISK).map_or(SYSTEM, String::as_str);
        found.place.collection == self.collection()
            && found.is_of(self.key)
            && found.image.name == self.name
            && disk == self.disk
    }
}
