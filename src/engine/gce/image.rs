//! Images of all three kinds, as the API has them and as the inventory does.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::wire::{DiskImage, EncryptionKey, MachineImage, Snapshot, last_segment, resource_path};
use crate::engine::{Author, step};
use crate::inventory::{Image, ImageKind, ImageSource, ImageState, LABEL_STAGE, Stage};
use crate::name::{Ownership, SourceId};

/// Bytes of a gigabyte, as the API counts disks.
pub(super) const GIB: u64 = 1 << 30;

/// Where images of a kind are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Collection {
    MachineImages,
    Images,
    Snapshots,
}

impl Collection {
    pub(super) fn of(kind: ImageKind) -> Self {
        match kind {
            ImageKind::MachineImage => Self::MachineImages,
            ImageKind::DiskImage => Self::Images,
            ImageKind::Snapshot => Self::Snapshots,
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::MachineImages, Self::Images, Self::Snapshots]
            .into_iter()
            .find(|collection| collection.word() == word)
    }

    pub(super) fn kind(self) -> ImageKind {
        match self {
            Self::MachineImages => ImageKind::MachineImage,
            Self::Images => ImageKind::DiskImage,
            Self::Snapshots => ImageKind::Snapshot,
        }
    }

    /// The word in paths.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::MachineImages => "machineImages",
            Self::Images => "images",
            Self::Snapshots => "snapshots",
        }
    }

    /// What the API calls a list of them.
    pub(super) fn list_kind(self) -> &'static str {
        match self {
            Self::MachineImages => "compute#machineImageList",
            Self::Images => "compute#imageList",
            Self::Snapshots => "compute#snapshotList",
        }
    }

    /// The quota that counts them.
    pub(super) fn metric(self) -> &'static str {
        match self {
            Self::MachineImages => "MACHINE_IMAGES",
            Self::Images => "IMAGES",
            Self::Snapshots => "SNAPSHOTS",
        }
    }

    /// What is asked for of each: all that the wire structs read, and no more.
    pub(super) fn fields(self) -> &'static str {
        match self {
            Self::MachineImages => {
                "id,name,creationTimestamp,status,labels,labelFingerprint,sourceInstance,storageLocations,\
                 totalStorageBytes,machineImageEncryptionKey/kmsKeyName,instanceProperties/disks/diskSizeGb,\
                 savedDisks/sourceDisk"
            }
            Self::Images => {
                "id,name,creationTimestamp,status,labels,labelFingerprint,family,deprecated,sourceDisk,\
                 sourceSnapshot,sourceImageId,storageLocations,archiveSizeBytes,diskSizeGb,imageEncryptionKey/kmsKeyName"
            }
            Self::Snapshots => {
                "id,name,creationTimestamp,status,labels,labelFingerprint,sourceDisk,region,storageLocations,\
                 storageBytes,diskSizeGb,snapshotEncryptionKey/kmsKeyName"
            }
        }
    }

    /// The path of all of a project.
    pub(super) fn path(self, project: &str) -> String {
        format!("projects/{project}/global/{}", self.word())
    }
}

/// Where one image is: what the inventory has as its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) project: String,
    pub(super) collection: Collection,
    /// The region, where it is one of a region.
    pub(super) region: Option<String>,
    /// The number that the service has given it, never twice.
    pub(super) number: String,
}

impl Place {
    /// Reads `PROJECT/COLLECTION/NUMBER` or `PROJECT/regions/REGION/COLLECTION/NUMBER`.
    pub(super) fn parse(id: &str) -> Option<Self> {
        let parts: Vec<&str> = id.split('/').collect();
        let (project, region, collection, number) = match parts[..] {
            [project, collection, number] => (project, None, collection, number),
            [project, "regions", region, collection, number] => {
                (project, Some(region.to_owned()), collection, number)
            }
            _ => return None,
        };
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then_some(())?;
        Some(Self {
            project: project.to_owned(),
            collection: Collection::parse(collection)?,
            region,
            number: number.to_owned(),
        })
    }

    /// What [`Self::parse`] reads.
    pub(super) fn id(&self) -> String {
        let region = self.region.as_ref().map(|region| format!("regions/{region}/"));
        let region = region.unwrap_or_default();
        format!("{}/{region}{}/{}", self.project, self.collection.word(), self.number)
    }

    /// The path of all that are where it is.
    pub(super) fn all(&self) -> String {
        match &self.region {
            Some(region) => {
                format!("projects/{}/regions/{region}/{}", self.project, self.collection.word())
            }
            None => self.collection.path(&self.project),
        }
    }

    /// The path. By its number, so that another one of the same name is never meant.
    pub(super) fn path(&self) -> String {
        format!("{}/{}", self.all(), self.number)
    }
}

/// An image as it was found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) place: Place,
    /// What the inventory says of it.
    pub(super) image: Image,
    /// The fingerprint of its labels, which is only a part of that of the image.
    pub(super) label_fingerprint: String,
    /// The path of the instance, disk or snapshot it was made of; the number of the image it is a copy
    /// of.
    pub(super) made_of: String,
    /// Whether the service is done with it. It may be no restore point all the same.
    pub(super) is_made: bool,
    /// The paths of the disks that a machine image holds.
    pub(super) saved_disks: Vec<String>,
    /// Who has made it, where that was asked for and it says so.
    pub(super) by: Option<Author>,
}

impl Found {
    /// The paths of what it was made of.
    pub(super) fn paths(&self) -> impl Iterator<Item = &String> {
        self.saved_disks.iter().chain([&self.made_of])
    }

    /// The same, to be changed.
    pub(super) fn paths_mut(&mut self) -> impl Iterator<Item = &mut String> {
        self.saved_disks.iter_mut().chain([&mut self.made_of])
    }
}

/// An image of the API.
pub(super) trait Wire: DeserializeOwned + Send {
    /// What it is to the inventory.
    fn found(self, project: &str) -> Result<Found, String>;
}

/// What all three kinds have in common.
struct Common {
    id: String,
    name: String,
    status: String,
    creation_timestamp: String,
    labels: BTreeMap<String, String>,
    label_fingerprint: String,
    storage_locations: Vec<String>,
    key: EncryptionKey,
    made_of: String,
    region: Option<String>,
    description: String,
}

/// What an image of the API has in common with the others: it calls its key otherwise than they do.
macro_rules! common {
    ($image:ident, $key:ident, $made_of:expr) => {
        Common {
            id: $image.id,
            name: $image.name,
            status: $image.status,
            creation_timestamp: $image.creation_timestamp,
            labels: $image.labels,
            label_fingerprint: $image.label_fingerprint,
            storage_locations: $image.storage_locations,
            key: $image.$key,
            made_of: $made_of,
            region: None,
            description: $image.description,
        }
    };
}

/// The state that the service says, each kind in words of its own.
fn state_of(status: &str) -> ImageState {
    match status {
        "CREATING" | "PENDING" | "UPLOADING" => ImageState::Creating,
        "READY" => ImageState::Ready,
        "FAILED" | "INVALID" => ImageState::Failed,
        "DELETING" => ImageState::Deleting,
        _ => ImageState::Unknown,
    }
}

impl Common {
    fn found(self, project: &str, collection: Collection) -> Result<Found, String> {
        if self.id.is_empty() || self.name.is_empty() {
            return Err(format!("one of the {} has no id or name", collection.word()));
        }
        let created_at: Timestamp = self
            .creation_timestamp
            .parse()
            .map_err(|_| format!("{} does not say when it was made", self.name))?;
        let place =
            Place { project: project.to_owned(), collection, region: self.region, number: self.id };
        let mut image = Image {
            id: place.id(),
            name: self.name,
            kind: collection.kind(),
            state: state_of(&self.status),
            stage: stage_of(&self.labels),
            created_at,
            location: self.storage_locations.join(","),
            kms_key: self.key.kms_key_name,
            family: None,
            sharing: None,
            labels: self.labels,
            source: None,
            stored_bytes: None,
            disk_bytes: None,
            fingerprint: self.label_fingerprint.clone(),
            disks: None,
            project: project.to_owned(),
            in_use_by: Vec::new(),
            message: None,
        };
        let is_made = image.state == ImageState::Ready;
        step::read(&mut image);
        // The service remembers the name of the instance; its id is in our own record.
        if let (Collection::MachineImages, Ownership::Ours(key)) = (collection, image.ownership()) {
            let name = last_segment(&self.made_of).to_owned();
            image.source = Some(ImageSource { id: key.source, name });
        }
        let made_of = resource_path(&self.made_of).to_owned();
        Ok(Found {
            place,
            image,
            label_fingerprint: self.label_fingerprint,
            made_of,
            is_made,
            saved_disks: Vec::new(),
            by: Author::read(&self.description),
        })
    }
}

impl Found {
    /// Fills in the source of an image that is nobody's: the instance that is where it was made of
    /// one, or that has the disk that it was made of.
    pub(super) fn find_source(&mut self, source_of: impl Fn(&str) -> Option<ImageSource>) {
        if self.image.source.is_none() && self.image.ownership() == Ownership::Foreign {
            self.image.source = source_of(&self.made_of);
        }
    }

    /// The source of an image that was made of a snapshot, as its record says: the snapshot is gone.
    pub(super) fn source_by_record(&self) -> Option<SourceId> {
        match self.image.ownership() {
            Ownership::Ours(key) if self.made_of.contains("/snapshots/") => Some(key.source),
            _ => None,
        }
    }

    /// Fills in the name of the source of a disk's image, which the service does not remember.
    pub(super) fn name_source(&mut self, name_of: impl Fn(&SourceId) -> Option<String>) {
        if self.image.source.is_some() {
            return;
        }
        if let Ownership::Ours(key) = self.image.ownership() {
            self.image.source =
                name_of(&key.source).map(|name| ImageSource { id: key.source, name });
        }
    }
}

/// The stage that labels hold, where there is no other place for it. What cannot be read is no
/// stage: such an image has to be deprecated before anything else becomes of it.
fn stage_of(labels: &BTreeMap<String, String>) -> Stage {
    match labels.get(LABEL_STAGE).map(String::as_str) {
        Some("deprecated") => Stage::Deprecated,
        Some("obsolete") => Stage::Obsolete,
        _ => Stage::Active,
    }
}

/// The label that holds a stage.
pub(super) fn stage_label(stage: Stage) -> Option<&'static str> {
    match stage {
        Stage::Active => None,
        Stage::Deprecated => Some("deprecated"),
        Stage::Obsolete => Some("obsolete"),
    }
}

/// The word of the API for a stage of a disk image.
pub(super) fn stage_word(stage: Stage) -> &'static str {
    match stage {
        Stage::Active => "ACTIVE",
        Stage::Deprecated => "DEPRECATED",
        Stage::Obsolete => "OBSOLETE",
    }
}

impl Wire for MachineImage {
    fn found(self, project: &str) -> Result<Found, String> {
        let sizes = self.instance_properties.disks.iter().map(|disk| disk.disk_size_gb);
        let disk_gb: Option<u64> = sizes.sum();
        let common = common!(self, machine_image_encryption_key, self.source_instance);
        let mut found = common.found(project, Collection::MachineImages)?;
        let saved = self.saved_disks.iter().map(|disk| resource_path(&disk.source_disk));
        found.saved_disks = saved.map(str::to_owned).collect();
        found.image.stored_bytes = self.total_storage_bytes;
        found.image.disk_bytes = disk_gb.filter(|size| *size > 0).map(|size| size * GIB);
        Ok(found)
    }
}

impl Wire for DiskImage {
    fn found(self, project: &str) -> Result<Found, String> {
        let made_of = [self.source_disk, self.source_snapshot, self.source_image_id];
        let made_of = made_of.into_iter().find(|of| !of.is_empty()).unwrap_or_default();
        let common = common!(self, image_encryption_key, made_of);
        let mut found = common.found(project, Collection::Images)?;
        let deprecated = self.deprecated;
        let replacement = deprecated.replacement.as_deref().map_or("", last_segment);
        let image = &mut found.image;
        image.stage = match deprecated.state.as_str() {
            "DEPRECATED" => Stage::Deprecated,
            "OBSOLETE" | "DELETED" => Stage::Obsolete,
            _ => Stage::Active,
        };
        // Labels and state are two things to the service, and one to whoever judges.
        image.fingerprint =
            format!("{}:{}:{replacement}", found.label_fingerprint, deprecated.state);
        image.family = self.family;
        image.stored_bytes = self.archive_size_bytes;
        image.disk_bytes = self.disk_size_gb.map(|size| size * GIB);
        Ok(found)
    }
}

impl Wire for Snapshot {
    fn found(self, project: &str) -> Result<Found, String> {
        let region = last_segment(&self.region).to_owned();
        let mut common = common!(self, snapshot_encryption_key, self.source_disk);
        common.region = Some(region).filter(|region| !region.is_empty());
        let mut found = common.found(project, Collection::Snapshots)?;
        found.image.stored_bytes = self.storage_bytes;
        found.image.disk_bytes = self.disk_size_gb.map(|size| size * GIB);
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_where_an_image_is() {
        let place = Place::parse("p-1/machineImages/42").unwrap();
        assert_eq!(place.path(), "projects/p-1/global/machineImages/42");
        let place = Place::parse("p-1/regions/us-a/snapshots/42").unwrap();
        assert_eq!(place.path(), "projects/p-1/regions/us-a/snapshots/42");
        assert_eq!(place.id(), "p-1/regions/us-a/snapshots/42");
        for text in ["42", "p/machineImages/name", "p/disks/42", "p/images/42/x", "p/images/"] {
            assert_eq!(Place::parse(text), None, "{text}");
        }
    }

    fn image(text: &str) -> Found {
        let mut value: serde_json::Value = serde_json::from_str(text).unwrap();
        value["id"] = "7".into();
        value["name"] = "n".into();
        value["creationTimestamp"] = "2026-11-21T04:00:00.123-08:00".into();
        serde_json::from_value::<DiskImage>(value).unwrap().found("p").unwrap()
    }

    #[test]
    fn every_change_of_stage_changes_the_fingerprint() {
        let active = image(r#"{"status": "READY", "labelFingerprint": "a"}"#);
        assert_eq!(active.image.stage, Stage::Active);
        assert_eq!(active.image.created_at.to_string(), "2026-11-21T12:00:00.123Z");
        let old = image(
            r#"{"status": "READY", "labelFingerprint": "a", "deprecated": {"state": "DEPRECATED"}}"#,
        );
        assert_eq!(old.image.stage, Stage::Deprecated);
        assert_ne!(active.image.fingerprint, old.image.fingerprint);
        assert_eq!(image(r#"{"deprecated": {"state": "DELETED"}}"#).image.stage, Stage::Obsolete);
    }

    #[test]
    fn a_state_that_is_not_known_is_left_alone() {
        assert_eq!(image(r#"{"status": "RESTING"}"#).image.state, ImageState::Unknown);
        assert_eq!(image("{}").image.state, ImageState::Unknown);
    }

    #[test]
    fn what_does_not_say_when_it_was_made_is_no_image() {
        let wire =
            MachineImage { id: "1".to_owned(), name: "n".to_owned(), ..MachineImage::default() };
        assert!(wire.found("p").is_err());
    }
}
