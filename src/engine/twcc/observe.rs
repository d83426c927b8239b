//! What is there: sites with their servers and disks, images of servers and snapshots of volumes.
//! What was not seen is a gap: a list that fails, an entry that cannot be read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use serde::de::DeserializeOwned;

use super::call::CallError;
use super::http::Listed;
use super::image::{Found, GIB, SYSTEM, doubt_snapshots, share_records};
use super::wire::{Image, Server, Site, Snapshot, Volume};
use super::{KIND, TwccEngine};
use crate::engine::set;
use crate::inventory::{self, Disk, EngineInventory, Gap, GapScope, Instance};
use crate::name::{Ownership, SourceId};

/// What the system disk is called in its server.
const SYSTEM_DEVICES: [&str; 3] = ["/dev/vda", "/dev/sda", "/dev/xvda"];

/// A disk of a server, and the volume that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attached {
    pub(super) disk: Disk,
    /// The volume; the system disk is imaged with its server.
    pub(super) volume: Option<u64>,
}

/// What there is beside images, as the service has it.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    sites: Vec<Site>,
    servers: Vec<Server>,
    volumes: Vec<Volume>,
    /// Why volumes of any server may be missing here, where they may.
    unseen: Option<String>,
}

impl Seen {
    /// The name of a site.
    pub(super) fn name_of(&self, id: &SourceId) -> Option<String> {
        let site = self.sites.iter().find(|site| site.id.to_string() == id.as_str())?;
        Some(site.name.clone())
    }

    /// The site that a server is in.
    pub(super) fn site_of(&self, server: u64) -> Option<SourceId> {
        let server = self.servers.iter().find(|one| one.id == server)?;
        SourceId::parse(&server.site?.to_string()).ok()
    }

    /// The bytes of a volume.
    pub(super) fn bytes_of(&self, volume: u64) -> Option<u64> {
        let volume = self.volumes.iter().find(|one| one.id == volume)?;
        volume.size.and_then(|size| size.checked_mul(GIB))
    }

    /// The machines that were made of an image of that name.
    pub(super) fn users(&self, image: &str) -> Vec<String> {
        users(image, &self.servers)
    }

    /// The instance that a site is: it has one server, where all is well.
    fn instance(&self, site: &Site) -> Result<Instance, String> {
        let id = SourceId::parse(&site.id.to_string()).map_err(|error| error.to_string())?;
        let servers: Vec<&Server> =
            self.servers.iter().filter(|server| server.site == Some(site.id)).collect();
        let server = servers.first();
        let mut disks: Vec<Disk> = match server {
            Some(server) => {
                disks_of(server.id, &self.volumes).into_iter().map(|one| one.disk).collect()
            }
            None => vec![system(None)],
        };
        if servers.len() != 1 {
            let problem =
                format!("the site {} has {} servers instead of one", site.id, servers.len());
            disks[0].problem = Some(problem.clone());
            disks.push(Disk::unseen(problem));
        } else if let Some(why) = &self.unseen {
            disks.push(Disk::unseen(format!("which data disks it has was not seen: {why}")));
        }
        let text = |of: fn(&Server) -> Option<&String>| {
            server.and_then(|server| of(server)).cloned().unwrap_or_default()
        };
        Ok(Instance {
            id,
            name: site.name.clone(),
            zone: text(|server| server.availability_zone.as_ref()),
            labels: BTreeMap::new(),
            status: site.status.clone().unwrap_or_default(),
            project: String::new(),
            machine_type: text(|server| server.flavor.as_ref()),
            disks,
        })
    }
}

impl TwccEngine {
    pub(super) async fn look(&self) -> EngineInventory {
        let mut inventory = EngineInventory {
            name: self.name.clone(),
            kind: KIND.to_owned(),
            identity: self.identity.clone(),
            gaps: Vec::new(),
            images_seen_before: None,
            capabilities: self.settings.capabilities(),
            instances: Vec::new(),
            images: Vec::new(),
        };
        // Without the number of the project nothing is asked, and one message is enough.
        let project = match self.service.project().await {
            Ok(project) => project,
            Err(error) => {
                let scopes = [GapScope::Instances, GapScope::Images];
                inventory.gaps =
                    scopes.map(|scope| self.gap(scope, "projects", error.to_string())).into();
                return inventory;
            }
        };
        let (beside, images, snapshots) = tokio::join!(
            self.look_beside(),
            self.all_of::<Image>("images", GapScope::Images, &[]),
            self.all_of::<Snapshot>("snapshots", GapScope::Images, &[]),
        );
        let (seen, gaps) = beside;
        inventory.gaps.extend(gaps.into_iter().chain(images.1).chain(snapshots.1));
        for site in &seen.sites {
            match seen.instance(site) {
                Ok(instance) => inventory.instances.push(instance),
                Err(message) => {
                    inventory.gaps.push(self.gap(GapScope::Instances, "sites", message));
                }
            }
        }
        let (mut found, unread) = self.read(project, images.0, snapshots.0);
        let unread = unread.into_iter().map(|why| self.gap(GapScope::Images, "images", why));
        inventory.gaps.extend(unread);
        let now = self.service.now();
        for one in &mut found {
            one.dress(&seen);
            one.note_stuck(self.settings.queued(), now);
        }
        // What is QUEUED is of a time to come, however long ago it was asked for.
        let queued = found.iter().filter(|one| one.is_queued && one.image.message.is_none());
        let queued: BTreeSet<String> = queued.map(|one| one.image.id.clone()).collect();
        let is_queued = |image: &inventory::Image| {
            set::member_ids(&image.id).iter().any(|member| queued.contains(member))
        };
        let images = found.into_iter().map(|found| found.image).collect();
        let images = set::gathered_without_twins(images, now, self.patience()).into_iter();
        inventory.images =
            images.map(|image| if is_queued(&image) { set::begun(image) } else { image }).collect();
        inventory.put_in_order();
        inventory
    }

    /// What there is beside images, and what of it was not seen.
    async fn look_beside(&self) -> (Arc<Seen>, Vec<Gap>) {
        let all = self.settings.all_users.unwrap_or(false);
        let query: &[_] = if all { &[("all_users", "1".to_owned())] } else { &[] };
        let (sites, servers, volumes) = tokio::join!(
            self.all_of::<Site>("sites", GapScope::Instances, query),
            self.all_of::<Server>("servers", GapScope::Instances, &[]),
            self.all_of::<Volume>("volumes", GapScope::Instances, &[]),
        );
        let hosts = volumes.0.iter().filter_map(without_host);
        let hosts = hosts.map(|message| self.gap(GapScope::Instances, "volumes", message));
        let of_volumes: Vec<Gap> = volumes.1.into_iter().chain(hosts).collect();
        let unseen = of_volumes.first().map(|gap| gap.message.clone());
        let gaps = sites.1.into_iter().chain(servers.1).chain(of_volumes).collect();
        let seen =
            Arc::new(Seen { sites: sites.0, servers: servers.0, volumes: volumes.0, unseen });
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&seen));
        (seen, gaps)
    }

    /// What there was beside images when that was last looked at.
    pub(super) async fn known(&self) -> Arc<Seen> {
        let known = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match known {
            Some(known) => known,
            None => self.look_beside().await.0,
        }
    }

    /// A list, or the gap that it leaves.
    async fn all_of<T: DeserializeOwned>(
        &self,
        path: &str,
        scope: GapScope,
        query: &[(&'static str, String)],
    ) -> (Vec<T>, Vec<Gap>) {
        match self.service.list(path, query).await {
            Ok(Listed { items, unread }) => {
                (items, unread.map(|message| self.gap(scope, path, message)).into_iter().collect())
            }
            Err(error) => (Vec::new(), vec![self.gap(scope, path, error.to_string())]),
        }
    }

    /// Images of the project, without those that the service offers to all. What cannot be read is
    /// said, and so is what the service says is in another project.
    fn read(
        &self,
        number: u64,
        images: Vec<Image>,
        snapshots: Vec<Snapshot>,
    ) -> (Vec<Found>, Vec<String>) {
        let project = &self.settings.project;
        let read = images
            .into_iter()
            .map(|image| Found::image(project, image))
            .chain(snapshots.into_iter().map(|one| Found::snapshot(project, one)));
        let (mut found, mut unread) = (Vec::new(), Vec::new());
        for one in read {
            match one {
                Ok(one) => found.push(one),
                Err(message) => unread.push(message),
            }
        }
        share_records(&mut found);
        doubt_snapshots(&mut found);
        // One of ours that somebody has offered to all is still ours.
        found.retain(|one| !one.is_public || one.image.ownership() != Ownership::Foreign);
        let is_here = |one: &Found| one.project.is_none_or(|project| project == number);
        let (found, elsewhere): (Vec<_>, Vec<_>) = found.into_iter().partition(is_here);
        unread.extend(elsewhere.iter().map(|one| {
            let (collection, image) = (one.place.collection.word(), one.place.number);
            let of = one.project.unwrap_or_default();
            format!("{collection} {image} is of the project {of} and not of {number}")
        }));
        (found, unread)
    }

    /// All images and snapshots there are, or why that is not known.
    pub(super) async fn all_images(&self) -> Result<Vec<Found>, CallError> {
        let (images, snapshots) = tokio::join!(
            self.service.whole::<Image>("images", &[]),
            self.service.whole::<Snapshot>("snapshots", &[]),
        );
        self.whole(images?, snapshots?).await
    }

    /// The same, where one of them is named so and all snapshots that are AVAILABLE are asked for once
    /// more: what one answer leaves out, the other may have.
    pub(super) async fn all_images_and(&self, name: &str) -> Result<Vec<Found>, CallError> {
        let by_name = [("name", name.to_owned())];
        let by_status = [("status", "AVAILABLE".to_owned())];
        let (images, snapshots, named, available) = tokio::join!(
            self.service.whole::<Image>("images", &[]),
            self.service.whole::<Snapshot>("snapshots", &[]),
            self.service.whole::<Image>("images", &by_name),
            self.service.whole::<Snapshot>("snapshots", &by_status),
        );
        let (mut images, mut snapshots) = (images?, snapshots?);
        for one in named? {
            if images.iter().all(|known| known.id != one.id) {
                images.push(one);
            }
        }
        for one in available? {
            if snapshots.iter().all(|known| known.id != one.id) {
                snapshots.push(one);
            }
        }
        self.whole(images, snapshots).await
    }

    async fn whole(
        &self,
        images: Vec<Image>,
        snapshots: Vec<Snapshot>,
    ) -> Result<Vec<Found>, CallError> {
        let (found, unread) = self.read(self.service.project().await?, images, snapshots);
        match unread.into_iter().next() {
            None => Ok(found),
            Some(message) => Err(CallError::Unreadable(message)),
        }
    }

    fn gap(&self, scope: GapScope, path: &str, message: String) -> Gap {
        Gap { scope, place: self.place_of(path), message }
    }

    /// The place of what a list leaves unseen.
    pub(super) fn place_of(&self, path: &str) -> String {
        format!("{}/{path}", self.settings.project)
    }
}

/// The machines that were made of an image of that name.
pub(super) fn users(image: &str, servers: &[Server]) -> Vec<String> {
    let is_user = |server: &&Server| server.image.as_deref() == Some(image);
    let name = |server: &Server| match server.site {
        Some(site) => format!("site {site}"),
        None => format!("server {}", server.id),
    };
    servers.iter().filter(is_user).map(name).collect()
}

fn system(size_bytes: Option<u64>) -> Disk {
    Disk { name: SYSTEM.to_owned(), boot: true, size_bytes, kms_key: None, problem: None }
}

/// What is wrong with a volume that is attached, where it cannot be said to what.
pub(super) fn without_host(volume: &Volume) -> Option<String> {
    (volume.is_attached && volume.attached_host.is_none()).then(|| {
        format!("volume {} is attached, and the service does not say to which server", volume.id)
    })
}

/// The volume that an image of the server holds, where it is one: that the server starts from. Other
/// volumes may be bootable as well.
fn system_volume<'a>(here: &[&'a Volume]) -> Option<&'a Volume> {
    let bootable = || here.iter().copied().filter(|volume| volume.is_bootable);
    let is_first = |volume: &&Volume| {
        volume.mountpoint.iter().any(|device| SYSTEM_DEVICES.contains(&device.as_str()))
    };
    let mut unnamed = bootable().filter(|volume| volume.mountpoint.is_empty());
    bootable().find(is_first).or_else(|| unnamed.next().filter(|_| unnamed.next().is_none()))
}

/// The disks of a server: the system disk, and the volumes that are attached to it, by their names
/// and, where these are not unique, by their numbers as well.
pub(super) fn disks_of(server: u64, volumes: &[Volume]) -> Vec<Attached> {
    let mut here: Vec<&Volume> =
        volumes.iter().filter(|volume| volume.attached_host == Some(server)).collect();
    here.sort_by_key(|volume| volume.id);
    let bytes = |volume: &Volume| volume.size.and_then(|size| size.checked_mul(GIB));
    let boot = system_volume(&here);
    let mut disks = vec![Attached { disk: system(boot.and_then(bytes)), volume: None }];
    let is_data = |volume: &&Volume| boot.is_none_or(|boot| boot.id != volume.id);
    let data: Vec<&Volume> = here.iter().copied().filter(is_data).collect();
    for volume in &data {
        let is_unique = data.iter().filter(|other| other.name == volume.name).count() == 1;
        let is_other = [SYSTEM, Disk::UNSEEN].contains(&volume.name.as_str());
        let is_plain = is_unique && !volume.name.is_empty() && !is_other;
        let mut name = volume.name.clone();
        while !is_plain && !name.ends_with(&volume.id.to_string())
            || disks.iter().any(|known| known.disk.name == name)
        {
            name = if name.is_empty() {
                volume.id.to_string()
            } else {
                format!("{name}-{}", volume.id)
            };
        }
        let disk =
            Disk { name, boot: false, size_bytes: bytes(volume), kms_key: None, problem: None };
        disks.push(Attached { disk, volume: Some(volume.id) });
    }
    disks
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn disks_are_the_system_disk_and_what_is_attached() {
        let volumes: Vec<Volume> = serde_json::from_value(json!([
            {"id": 9, "name": "data", "size": 2, "attached_host": {"id": 7}},
            {"id": 8, "name": "boot", "size": 100, "is_bootable": true, "attached_host": {"id": 7}},
            {"id": 11, "name": "twice", "attached_host": {"id": 7}},
            {"id": 10, "name": "twice", "attached_host": {"id": 7}},
            {"id": 12, "name": "system", "attached_host": {"id": 7}},
            {"id": 13, "name": "free", "attached_host": {}},
            {"id": 14, "name": "other", "attached_host": {"id": 6}},
            {"id": 15, "name": "none", "attached_host": null},
        ]))
        .unwrap();
        let disks = disks_of(7, &volumes);
        let names: Vec<&str> = disks.iter().map(|one| one.disk.name.as_str()).collect();
        assert_eq!(names, ["system", "data", "twice-10", "twice-11", "system-12"]);
        assert_eq!(disks[0].disk.size_bytes, Some(100 * GIB));
        assert_eq!(disks[0].volume, None);
        assert_eq!((disks[1].volume, disks[1].disk.boot), (Some(9), false));
        assert_eq!(disks_of(5, &volumes).len(), 1);
    }

    #[test]
    fn one_bootable_volume_is_the_system_disk_and_every_other_is_data() {
        let names = |volumes: serde_json::Value| {
            let mut volumes: Vec<Volume> = serde_json::from_value(volumes).unwrap();
            for volume in &mut volumes {
                (volume.attached_host, volume.is_bootable) = (Some(7), true);
            }
            let disks = disks_of(7, &volumes);
            disks[1..].iter().map(|one| one.disk.name.clone()).collect::<Vec<_>>()
        };
        let (first, second) = (json!(["/dev/vda"]), json!(["/dev/vdb"]));
        for (one, other, data) in [
            (&first, &second, vec!["other"]),
            (&second, &first, vec!["one"]),
            (&first, &json!(null), vec!["other"]),
            (&json!(null), &second, vec!["other"]),
            // Nothing is left out where nobody knows which one it is.
            (&json!([]), &json!([]), vec!["one", "other"]),
            (&second, &json!(["/dev/vdc"]), vec!["one", "other"]),
        ] {
            let volumes = json!([
                {"id": 1, "name": "one", "mountpoint": one},
                {"id": 2, "name": "other", "mountpoint": other},
            ]);
            assert_eq!(names(volumes.clone()), data, "{volumes}");
        }
        assert_eq!(names(json!([{"id": 1, "name": "one"}])), [""; 0]);
        assert_eq!(names(json!([{"id": 1, "name": "one", "mountpoint": "/dev/vdb"}])), ["one"]);
    }

    #[test]
    fn a_volume_that_is_attached_to_nobody_knows_what_is_said() {
        let volume = |fields: serde_json::Value| {
            let volume: Volume = serde_json::from_value(fields).unwrap();
            without_host(&volume).is_some()
        };
        assert!(volume(json!({"id": 9, "is_attached": true, "attached_host": {"id": "web"}})));
        assert!(volume(json!({"id": 9, "is_attached": true, "attached_host": {}})));
        assert!(!volume(json!({"id": 9, "is_attached": true, "attached_host": {"id": "7"}})));
        assert!(!volume(json!({"id": 9, "is_attached": false, "attached_host": {}})));
    }
}
