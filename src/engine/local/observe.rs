//! What is there: instances, images, attempts, and what could not be seen.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jiff::Timestamp;
use rustic_core::{IndexedFullStatus, Repository};
use serde_json::{Value, json};

use super::home::Home;
use super::instance::{self, LocalInstance};
use super::repository::{Opened, RepositoryError, Stored};
use super::{Described, Inner, KIND, disk, image_of, lock, restore};
use crate::engine::EngineError;
use crate::inventory::{Disk, EngineInventory, Gap, GapScope, Image, Instance};
use crate::plan::ImageRef;

/// An image that was found. Its data stays as long as this lives.
pub(super) struct Found {
    pub(super) opened: Opened,
    pub(super) stored: Stored,
    pub(super) data: lock::Lock,
}

impl Inner {
    pub(super) fn empty_inventory(&self) -> EngineInventory {
        EngineInventory {
            name: self.name.clone(),
            kind: KIND.to_owned(),
            identity: self.paths.store.display().to_string(),
            gaps: Vec::new(),
            images_seen_before: None,
            capabilities: self.settings.capabilities(),
            instances: Vec::new(),
            images: Vec::new(),
        }
    }

    pub(super) fn observe(&self) -> EngineInventory {
        let mut inventory = self.empty_inventory();
        let (instances, gaps) = instance::read_directory(&self.paths.instances);
        inventory.gaps = gaps;
        inventory.instances = instances.iter().map(observe_instance).collect();
        let mut gap = |place: String, message: String| {
            inventory.gaps.push(Gap { scope: GapScope::Images, place, message });
        };
        let mut images = Vec::new();
        let (homes, errors) = self.homes();
        for error in errors {
            gap(self.paths.store.display().to_string(), error.to_string());
        }
        for home in homes {
            match self.images_of(&home) {
                Ok((found, damaged)) => {
                    images.extend(found);
                    for error in damaged {
                        gap(home.label(), error);
                    }
                }
                Err(error) => gap(home.label(), error.to_string()),
            }
        }
        match self.attempts.list() {
            Ok(attempts) => {
                let ready: BTreeSet<String> =
                    images.iter().map(|image| image.name.clone()).collect();
                images.extend(
                    attempts
                        .into_iter()
                        // What a killed run has left is nothing; the next round clears it away.
                        .filter(|(attempt, is_held)| *is_held || attempt.failure.is_some())
                        .filter(|(attempt, _)| !ready.contains(&attempt.name))
                        .map(|(attempt, _)| attempt.image()),
                );
            }
            Err(error) => gap(self.paths.store.display().to_string(), error.to_string()),
        }
        images.sort_by(|one, other| (&one.name, &one.id).cmp(&(&other.name, &other.id)));
        inventory.images = images;
        inventory
    }

    /// The instances as they are described, each with what is seen of it.
    pub(super) fn described(&self) -> (Vec<Described>, Vec<Gap>) {
        let (instances, gaps) = instance::read_directory(&self.paths.instances);
        let described = instances.into_iter().map(|instance| {
            let disks = &instance.document.spec.disks;
            Described {
                seen: observe_instance(&instance),
                created_at: created_at(&instance.file),
                disks_created_at: disks
                    .iter()
                    .map(|disk| created_at(&instance.disk_path(disk)))
                    .collect(),
                local: instance,
            }
        });
        (described.collect(), gaps)
    }

    /// What images record, by their ids: of all that are READY and asked for, those that can be
    /// read. Each repository is opened once.
    pub(super) fn records(&self, ids: &BTreeSet<String>) -> BTreeMap<String, Value> {
        let mut records = BTreeMap::new();
        for home in self.homes().0 {
            let Ok(_data) = home.share_data() else { continue };
            let Ok(opened) = home.open(&self.keys) else { continue };
            let Ok(listing) = opened.images() else { continue };
            let mut wanted = listing.images;
            wanted.retain(|stored| ids.contains(&stored.record.id));
            if wanted.is_empty() {
                continue;
            }
            let Ok(reader) = opened.to_reader() else { continue };
            for stored in wanted {
                if let Ok(record) = record_of(&reader, &home, &stored) {
                    records.insert(stored.record.id, record);
                }
            }
        }
        records
    }

    /// The images of a repository, and what is said of those that are damaged.
    fn images_of(&self, home: &Home) -> Result<(Vec<Image>, Vec<String>), RepositoryError> {
        let listing = home.open(&self.keys)?.images()?;
        Ok((
            listing.images.iter().map(|stored| image_of(home, stored)).collect(),
            listing.damaged.iter().map(ToString::to_string).collect(),
        ))
    }

    /// The repository and the stored image of a name or an id.
    pub(super) fn find(&self, image: &str) -> Result<Found, EngineError> {
        let (homes, errors) = self.homes();
        let mut unseen: Vec<String> = errors.iter().map(ToString::to_string).collect();
        for home in homes {
            let data = match home.share_data() {
                Ok(data) => data,
                Err(error) => {
                    unseen.push(error.to_string());
                    continue;
                }
            };
            let opened = match home.open(&self.keys) {
                Ok(opened) => opened,
                Err(error) => {
                    unseen.push(error.to_string());
                    continue;
                }
            };
            let is_it =
                |stored: &Stored| stored.record.id == image || stored.snapshot.label == image;
            match opened.images() {
                Ok(listing) => {
                    if let Some(stored) = listing.images.into_iter().find(is_it) {
                        return Ok(Found { opened, stored, data });
                    }
                    unseen.extend(listing.damaged.iter().map(ToString::to_string));
                }
                Err(error) => unseen.push(error.to_string()),
            }
        }
        // Where a repository could not be read, the image may be in it.
        if unseen.is_empty() {
            Err(EngineError::NotFound)
        } else {
            Err(EngineError::Failed(unseen.join("; ")))
        }
    }

    /// The same, bound to what the plan was made over. As long as the lock is held, nobody else
    /// changes an image of that repository.
    pub(super) fn find_bound(
        &self,
        image: &ImageRef,
    ) -> Result<(lock::Lock, Opened, Stored), EngineError> {
        let id = image.id.as_deref().ok_or(EngineError::NotFound)?;
        let Found { opened, .. } = self.find(id)?;
        let lock = opened.home.lock()?;
        let stored = opened.newest_generation(id)?.ok_or(EngineError::NotFound)?;
        if is_same(image, &stored) { Ok((lock, opened, stored)) } else { Err(EngineError::Changed) }
    }

    /// The same to be read: its data stays as long as what comes back lives.
    pub(super) fn find_unchanged(&self, image: &ImageRef) -> Result<Found, EngineError> {
        let found = self.find(image.id.as_deref().ok_or(EngineError::NotFound)?)?;
        if is_same(image, &found.stored) { Ok(found) } else { Err(EngineError::Changed) }
    }
}

/// Whether an image is still what a plan was made over.
fn is_same(image: &ImageRef, stored: &Stored) -> bool {
    stored.snapshot.label == image.name
        && Some(stored.record.fingerprint()) == image.fingerprint
        && image.created_at.is_none_or(|created_at| created_at == stored.record.created_at)
}

/// The earlier one of the times that a file system knows of a file: one of them outlives a copy, the
/// other one outlives a write.
pub(super) fn created_at(path: &Path) -> Option<Timestamp> {
    let metadata = std::fs::metadata(path).ok()?;
    let times = [metadata.created().ok(), metadata.modified().ok()];
    times.into_iter().flatten().filter_map(|time| Timestamp::try_from(time).ok()).min()
}

/// Everything that an image records.
pub(super) fn record_of(
    reader: &Repository<IndexedFullStatus>,
    home: &Home,
    stored: &Stored,
) -> Result<Value, String> {
    let manifest = restore::manifest(reader, stored)?;
    let record = &stored.record;
    Ok(json!({
        "image": image_of(home, stored),
        "description": record.description,
        "captured_at": manifest.captured_at,
        "captured_as": manifest.name,
        "consistency": manifest.consistency,
        "made_by": manifest.made_by,
        "source_instance": manifest.instance,
        "source_id": manifest.source_id,
        "disks": manifest.disks,
        "added_by_disk": record.added_by_disk,
        "excluded_disks": manifest.excluded_disks,
        "repository": home.path,
        "snapshot": stored.snapshot.id.to_hex().as_str(),
    }))
}

fn observe_instance(instance: &LocalInstance) -> Instance {
    let metadata = &instance.document.metadata;
    let spec = &instance.document.spec;
    let disks = spec.disks.iter().map(|disk| {
        let size = disk::size_of(instance, disk);
        Disk {
            name: disk.device_name.clone(),
            boot: disk.boot,
            size_bytes: size.as_ref().ok().copied(),
            kms_key: None,
            problem: size.err().map(|error| error.to_string()),
        }
    });
    Instance {
        id: instance.id.clone(),
        name: metadata.name.clone(),
        zone: spec.zone.clone(),
        labels: metadata.labels.clone(),
        status: spec.status.word().to_owned(),
        project: String::new(),
        machine_type: spec.machine_type.clone(),
        disks: disks.collect(),
    }
}
