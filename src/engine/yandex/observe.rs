//! Looks at folders: instances with their disks, images and snapshots, and what was made of them. All
//! lists are read to their last page; what cannot be had is a gap.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;

use super::call::CallError;
use super::image::{Collection, Found};
use super::wire::{self, Page};
use super::{SET_PATIENCE, YandexEngine};
use crate::engine::http::{Call, Free, Leave};
use crate::engine::set;
use crate::engine::step::Ends;
use crate::inventory::{Disk, EngineInventory, Gap, GapScope, Instance};
use crate::name::SourceId;

/// So many users of an image are named.
const NAMED_MAX: usize = 5;

/// What a folder has.
#[derive(Default)]
struct Seen {
    instances: Vec<wire::Instance>,
    disks: Vec<wire::Disk>,
    images: Vec<Found>,
    gaps: Vec<Gap>,
}

impl YandexEngine {
    pub(super) async fn look(&self) -> EngineInventory {
        let folders: Vec<&String> = self.settings.image_folders().collect();
        let looks = folders.iter().map(|folder| self.look_at(folder));
        let mut seen = Seen::default();
        for folder in join_all(looks).await {
            seen.instances.extend(folder.instances);
            seen.disks.extend(folder.disks);
            seen.images.extend(folder.images);
            seen.gaps.extend(folder.gaps);
        }
        let mut names = BTreeMap::new();
        let disks: BTreeMap<&str, &wire::Disk> =
            seen.disks.iter().map(|disk| (disk.id.as_str(), disk)).collect();
        let mut instances = Vec::new();
        for instance in &seen.instances {
            match read_instance(instance, &disks) {
                Ok(read) => {
                    names.insert(read.id.clone(), read.name.clone());
                    instances.push(read);
                }
                Err(why) => {
                    seen.gaps.push(gap(GapScope::Instances, &instance.folder_id, why));
                }
            }
        }
        let mut images = seen.images;
        fill_in_users(&mut images, &seen.disks);
        for found in &mut images {
            found.name_source(&names);
        }
        self.remember_names(names);
        let ends = Ends::of(images.iter().map(|found| &found.image));
        for step in images.iter_mut().filter(|found| found.is_made) {
            ends.judge(&mut step.image, self.clock.now());
        }
        self.look_at_sharing(&mut images).await;
        let images = images.into_iter().map(|found| found.image).collect();
        let mut inventory = EngineInventory {
            name: self.name.clone(),
            kind: super::KIND.to_owned(),
            identity: self.identity.clone(),
            gaps: seen.gaps,
            images_seen_before: None,
            capabilities: self.settings.capabilities(),
            instances,
            images: set::gathered_without_twins(images, self.clock.now(), SET_PATIENCE),
        };
        inventory.put_in_order();
        inventory
    }

    async fn look_at(&self, folder: &str) -> Seen {
        let mut seen = Seen::default();
        let is_source = self.settings.folders.iter().any(|known| known == folder);
        let is_of_copies = self.settings.is_of_copies(folder);
        let instances = async {
            if is_source { self.list(folder, "instances").await } else { (Vec::new(), None) }
        };
        let (instances, disks, images, snapshots) = tokio::join!(
            instances,
            self.list(folder, "disks"),
            self.images_of(folder, Collection::Images, None),
            self.images_of(folder, Collection::Snapshots, None),
        );
        let (pages, error) = instances;
        seen.instances = pages.into_iter().flat_map(|page| page.instances).collect();
        let told = |what: &str, error: &CallError| format!("{what}: {error}");
        seen.gaps
            .extend(error.map(|error| gap(GapScope::Instances, folder, told("instances", &error))));
        let (pages, error) = disks;
        seen.disks = pages.into_iter().flat_map(|page| page.disks).collect();
        // How large disks are, and what was made of images: what is not known of that is in the way of
        // both.
        seen.gaps.extend(error.into_iter().flat_map(|error| {
            let scopes = [GapScope::Images, GapScope::Instances];
            // No instance that is protected has disks where copies are.
            let scopes = scopes.into_iter().take(if is_of_copies { 1 } else { 2 });
            scopes.map(move |scope| gap(scope, folder, told("disks", &error)))
        }));
        for (images, gaps) in [images, snapshots] {
            seen.images.extend(images);
            seen.gaps.extend(gaps);
        }
        seen
    }

    /// Looks at the names of sources, where nobody has yet. What is missing of them costs a name.
    pub(super) async fn know_names(&self) {
        if !self.knows_no_names() {
            return;
        }
        for folder in &self.settings.folders {
            let (pages, _) = self.list(folder, "instances").await;
            for instance in pages.iter().flat_map(|page| &page.instances) {
                if let Ok(id) = SourceId::parse(&instance.id) {
                    self.note_name(&id, instance.called());
                }
            }
        }
    }

    async fn list(&self, folder: &str, collection: &str) -> (Vec<Page>, Option<CallError>) {
        let call = Call::get(&format!("compute/v1/{collection}")).with("folderId", folder);
        self.services.pages(&call).await
    }

    /// The images or snapshots of a folder, those of one name where one is given.
    pub(super) async fn images_of(
        &self,
        folder: &str,
        collection: Collection,
        name: Option<&str>,
    ) -> (Vec<Found>, Vec<Gap>) {
        self.images_while(folder, collection, name, &Free).await
    }

    /// The same as long as there is leave.
    pub(super) async fn images_while(
        &self,
        folder: &str,
        collection: Collection,
        name: Option<&str>,
        leave: &dyn Leave,
    ) -> (Vec<Found>, Vec<Gap>) {
        let mut call = Call::get(&collection.path()).with("folderId", folder);
        if let Some(name) = name {
            call = call.with("filter", format!("name=\"{name}\""));
        }
        let (pages, error) = self.services.pages_while(&call, leave).await;
        let told = |error: CallError| {
            gap(GapScope::Images, folder, format!("{}: {error}", collection.word()))
        };
        let mut gaps: Vec<Gap> = error.map(told).into_iter().collect();
        let mut images = Vec::new();
        for image in pages.into_iter().flat_map(|page| collection.of_page(page)) {
            match self.read(collection, image) {
                // A list of one folder is about that one.
                Ok(found) if found.place.folder == folder => images.push(found),
                Ok(found) => {
                    let why = format!("{} says that it is in another folder", found.place.id);
                    gaps.push(gap(GapScope::Images, folder, why));
                }
                Err(why) => gaps.push(gap(GapScope::Images, folder, why)),
            }
        }
        (images, gaps)
    }

    /// What the inventory says of an image or snapshot. Where copies are is a location of its own.
    pub(super) fn read(&self, collection: Collection, image: wire::Image) -> Result<Found, String> {
        let now = self.clock.now();
        let mut found = Found::read(collection, image, now, |id| self.known_name(id))?;
        if self.settings.is_of_copies(&found.place.folder) {
            found.image.location.clone_from(&found.place.folder);
        }
        Ok(found)
    }

    /// The disks of all folders, to see what was made of an image.
    pub(super) async fn all_disks(&self) -> Result<Vec<wire::Disk>, CallError> {
        let mut disks = Vec::new();
        for folder in self.settings.image_folders() {
            let (pages, error) = self.list(folder, "disks").await;
            match error {
                Some(error) => return Err(error),
                None => disks.extend(pages.into_iter().flat_map(|page| page.disks)),
            }
        }
        Ok(disks)
    }
}

/// Fills in which disks were made of images.
pub(super) fn fill_in_users(images: &mut [Found], disks: &[wire::Disk]) {
    let mut users: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for disk in disks {
        let name = if disk.name.is_empty() { &disk.id } else { &disk.name };
        for source in [&disk.source_image_id, &disk.source_snapshot_id] {
            users.entry(source).or_default().insert(format!("disk {name}"));
        }
    }
    for found in images {
        let users = users.get(found.place.id.as_str()).cloned().unwrap_or_default();
        let more = users.len().saturating_sub(NAMED_MAX);
        let mut named: Vec<String> = users.into_iter().take(NAMED_MAX).collect();
        if more > 0 {
            named.push(format!("{more} more"));
        }
        found.image.in_use_by = named;
    }
}

fn gap(scope: GapScope, place: &str, message: String) -> Gap {
    Gap { scope, place: place.to_owned(), message }
}

fn read_instance(
    instance: &wire::Instance,
    disks: &BTreeMap<&str, &wire::Disk>,
) -> Result<Instance, String> {
    let id =
        SourceId::parse(&instance.id).map_err(|error| format!("{}: {error}", instance.name))?;
    let attached = instance.disks().map(|(attached, boot)| {
        let disk = disks.get(attached.disk_id.as_str());
        let key = disk.and_then(|disk| disk.kms_key.as_ref());
        Disk {
            name: attached.name().to_owned(),
            boot,
            size_bytes: disk.and_then(|disk| disk.size),
            kms_key: key.map(|key| key.key_id.clone()).filter(|key| !key.is_empty()),
            problem: None,
        }
    });
    let local = instance.local_disks.iter().enumerate().map(|(number, disk)| {
        let name = if disk.device_name.is_empty() {
            format!("local-{number}")
        } else {
            disk.device_name.clone()
        };
        let problem =
            "is a part of its host and cannot be captured; leave it out with `capture.disks`";
        Disk {
            problem: Some(format!("{name} {problem}")),
            name,
            boot: false,
            size_bytes: disk.size,
            kms_key: None,
        }
    });
    Ok(Instance {
        id,
        name: instance.called().to_owned(),
        zone: instance.zone_id.clone(),
        labels: instance.labels.clone(),
        status: instance.status.clone(),
        project: String::new(),
        machine_type: instance.platform_id.clone(),
        disks: attached.chain(local).collect(),
    })
}
