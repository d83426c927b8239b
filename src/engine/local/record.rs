//! What an image records, and how it is written into a restic snapshot.
//!
//! The data and everything that never changes lie in the snapshot's tree. What can change (labels,
//! stage) lies in the snapshot file itself, as JSON in its description: changing it writes a new
//! snapshot file and removes the old one. Of two with one id the higher generation counts.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use rustic_core::StringList;
use rustic_core::repofile::SnapshotFile;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::instance::{DiskFormat, InstanceDocument};
use crate::inventory::{Consistency, Image, ImageKind, ImageSource, ImageState, Stage};
use crate::name::{Key, Ownership, SourceId};

/// The version of the record.
const RECORD_VERSION: u32 = 1;
/// The file in an image's tree that holds the whole record of the capture.
pub const MANIFEST_FILE: &str = "instance.json";

/// What can change of an image, and what a listing needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The version of this record.
    pub version: u32,
    /// The id of the image: a random number, never used twice.
    pub id: String,
    /// Counts the changes.
    pub generation: u64,
    /// The kind of image.
    pub kind: ImageKind,
    /// When it became READY.
    pub created_at: Timestamp,
    /// The instance it was made of.
    pub source: ImageSource,
    /// Its description.
    pub description: String,
    /// How far its life has come.
    pub stage: Stage,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Bytes that it added to the repository.
    pub total_storage_bytes: u64,
    /// Bytes of its disks as the machine saw them.
    pub disk_bytes: u64,
    /// How much of what it added is of which disk. Images of earlier versions do not say.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub added_by_disk: BTreeMap<String, u64>,
}

impl Record {
    /// The first generation of a record.
    pub fn new(id: String, kind: ImageKind, source: ImageSource, created_at: Timestamp) -> Self {
        Self {
            version: RECORD_VERSION,
            id,
            generation: 1,
            kind,
            created_at,
            source,
            description: String::new(),
            stage: Stage::Active,
            labels: BTreeMap::new(),
            total_storage_bytes: 0,
            disk_bytes: 0,
            added_by_disk: BTreeMap::new(),
        }
    }

    /// Reads the record of a snapshot. A snapshot that was not made by this engine has none.
    pub fn of(snapshot: &SnapshotFile) -> Option<Self> {
        let record: Self = serde_json::from_str(snapshot.description.as_deref()?).ok()?;
        (record.version == RECORD_VERSION).then_some(record)
    }

    /// Writes the record into a snapshot, with tags for people who look with other programs.
    pub fn write(&self, snapshot: &mut SnapshotFile) -> Result<(), serde_json::Error> {
        snapshot.description = Some(serde_json::to_string(self)?);
        let mut tags = StringList::default();
        tags.add("stillframe".to_owned());
        if let Ownership::Ours(key) = Key::from_labels(&self.labels) {
            tags.add(format!("policy:{}", key.policy));
            tags.add(format!("source:{}", key.source));
            tags.add(format!("slot:{}", key.slot));
        }
        if self.stage != Stage::Active {
            tags.add("deprecated".to_owned());
        }
        snapshot.tags = tags;
        Ok(())
    }

    /// Changes with every change of labels or stage.
    pub fn fingerprint(&self) -> String {
        let labels: Vec<String> =
            self.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let text =
            format!("{}\n{}\n{:?}\n{}", self.id, self.generation, self.stage, labels.join("\n"));
        HEXLOWER.encode(&Sha256::digest(text.as_bytes())[..8])
    }

    /// The image as the inventory shows it.
    pub fn image(&self, name: &str, location: &str, kms_key: &str) -> Image {
        Image {
            id: self.id.clone(),
            name: name.to_owned(),
            kind: self.kind,
            state: ImageState::Ready,
            stage: self.stage,
            created_at: self.created_at,
            location: location.to_owned(),
            kms_key: Some(kms_key.to_owned()),
            family: None,
            sharing: None,
            labels: self.labels.clone(),
            source: Some(self.source.clone()),
            stored_bytes: Some(self.total_storage_bytes),
            disk_bytes: Some(self.disk_bytes),
            fingerprint: self.fingerprint(),
            disks: None,
            project: String::new(),
            in_use_by: Vec::new(),
            message: None,
        }
    }
}

/// Everything a machine image records of its capture: a file in the image's own tree.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// The version of this manifest.
    pub version: u32,
    /// The name of the image.
    pub name: String,
    /// The id of the source.
    pub source_id: SourceId,
    /// The instance as it was described.
    pub instance: InstanceDocument,
    /// The disks that were captured.
    pub disks: Vec<CapturedDisk>,
    /// The disks that were left out.
    pub excluded_disks: Vec<String>,
    /// When the capture began: the point in time that all disks stand for.
    pub captured_at: Timestamp,
    /// What the disks are as: nothing asks a guest to write down what it holds in memory, so they
    /// are as after a power failure. Images of earlier versions do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistency: Option<Consistency>,
    /// The program that made it.
    pub made_by: String,
}

/// A disk in an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CapturedDisk {
    /// Its device name.
    pub device_name: String,
    /// The file of the tree that holds its bytes.
    pub file: String,
    /// What it was stored as on the source.
    pub format: DiskFormat,
    /// Bytes the machine sees.
    pub size_bytes: u64,
    /// Whether the machine starts from it.
    pub boot: bool,
    /// How it was made sure that the disk did not change meanwhile.
    pub point_in_time: PointInTime,
}

/// How it was made sure that a disk did not change while it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PointInTime {
    /// A copy-on-write clone of the file was taken first and read instead.
    Reflink,
    /// Size, times and headers of all files were the same before the first and after the last
    /// byte of any disk was read.
    GuardedRead,
    /// The block device was claimed exclusively while it was read: nothing had mounted it.
    ExclusiveDevice,
}

impl Manifest {
    /// The manifest of a capture.
    pub fn new(
        name: &str,
        source_id: SourceId,
        instance: InstanceDocument,
        captured_at: Timestamp,
    ) -> Self {
        Self {
            version: RECORD_VERSION,
            name: name.to_owned(),
            source_id,
            instance,
            disks: Vec::new(),
            excluded_disks: Vec::new(),
            captured_at,
            consistency: Some(Consistency::Crash),
            made_by: concat!("stillframe ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}
