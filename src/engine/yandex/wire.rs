//! The structs of the API, named and cased as its JSON has them. What says nothing may be missing, and
//! numbers of 64 bits may be texts.
//!
//! Source: the protocol files of `yandex-cloud/cloudapi`, 2026-11.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// A whole number, or the text of one.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(u64),
        Text(String),
    }
    Ok(match Option::<Written>::deserialize(deserializer)? {
        None => None,
        Some(Written::Number(number)) => Some(number),
        Some(Written::Text(text)) => text.parse().ok(),
    })
}

/// The key that something is encrypted under.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KmsKey {
    /// Its id.
    pub key_id: String,
}

/// An image or a snapshot: what both have, and what one of them has.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Image {
    /// Its id.
    pub id: String,
    /// The folder that it is in.
    pub folder_id: String,
    /// When it was made.
    pub created_at: String,
    /// Its name, which may be empty.
    pub name: String,
    /// Its description.
    pub description: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The family of an image.
    pub family: String,
    /// Bytes that it takes.
    #[serde(deserialize_with = "number")]
    pub storage_size: Option<u64>,
    /// Bytes of the smallest disk that can be made of an image.
    #[serde(deserialize_with = "number")]
    pub min_disk_size: Option<u64>,
    /// Bytes of the disk that a snapshot was made of.
    #[serde(deserialize_with = "number")]
    pub disk_size: Option<u64>,
    /// CREATING, READY, ERROR or DELETING.
    pub status: String,
    /// The disk that a snapshot was made of. Of an image nobody remembers that.
    pub source_disk_id: String,
    /// The key of the disk.
    pub kms_key: Option<KmsKey>,
}

/// A disk.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Disk {
    /// Its id.
    pub id: String,
    /// The folder that it is in.
    pub folder_id: String,
    /// Its name, which may be empty.
    pub name: String,
    /// What kind of disk it is.
    pub type_id: String,
    /// The zone that it is in.
    pub zone_id: String,
    /// Its bytes.
    #[serde(deserialize_with = "number")]
    pub size: Option<u64>,
    /// CREATING, READY, ERROR or DELETING.
    pub status: String,
    /// The image that it was made of.
    pub source_image_id: String,
    /// The snapshot that it was made of.
    pub source_snapshot_id: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The instances that have it.
    pub instance_ids: Vec<String>,
    /// When it was made.
    pub created_at: String,
    /// The key that it is encrypted under.
    pub kms_key: Option<KmsKey>,
}

/// A disk as an instance has it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AttachedDisk {
    /// What the guest sees it by.
    pub device_name: String,
    /// Its id.
    pub disk_id: String,
}

impl AttachedDisk {
    /// What it is called within its instance.
    pub fn name(&self) -> &str {
        if self.device_name.is_empty() { &self.disk_id } else { &self.device_name }
    }
}

/// A disk that is a part of the host.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalDisk {
    /// What the guest sees it by.
    pub device_name: String,
    /// Its bytes.
    #[serde(deserialize_with = "number")]
    pub size: Option<u64>,
}

/// An instance.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// The folder that it is in.
    pub folder_id: String,
    /// Its name, which may be empty.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The zone that it is in.
    pub zone_id: String,
    /// What its processors are.
    pub platform_id: String,
    /// RUNNING, STOPPED, …
    pub status: String,
    /// What it starts from.
    pub boot_disk: AttachedDisk,
    /// Its other disks.
    pub secondary_disks: Vec<AttachedDisk>,
    /// Disks of its host.
    pub local_disks: Vec<LocalDisk>,
}

impl Instance {
    /// Its name, or its id where it has none.
    pub fn called(&self) -> &str {
        if self.name.is_empty() { &self.id } else { &self.name }
    }

    /// Its disks that can be captured, the one it starts from first.
    pub fn disks(&self) -> impl Iterator<Item = (&AttachedDisk, bool)> {
        let boot = Some(&self.boot_disk).filter(|disk| !disk.disk_id.is_empty());
        let others = self.secondary_disks.iter().map(|disk| (disk, false));
        boot.map(|disk| (disk, true)).into_iter().chain(others)
    }
}

/// What went wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Status {
    /// A number of `google.rpc.Code`.
    pub code: u16,
    /// For people.
    pub message: String,
}

/// What an operation is about.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(clippy::struct_field_names, reason = "the names are the API's own")]
pub struct Metadata {
    /// An image.
    pub image_id: String,
    /// A snapshot.
    pub snapshot_id: String,
    /// A disk.
    pub disk_id: String,
    /// An instance.
    pub instance_id: String,
}

impl Metadata {
    /// The id of an image or a snapshot; empty where it is about neither.
    pub fn image(&self) -> &str {
        if self.image_id.is_empty() { &self.snapshot_id } else { &self.image_id }
    }
}

/// An operation.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Operation {
    /// Its id.
    pub id: String,
    /// When it began.
    pub created_at: String,
    /// Whether it has ended. Only then anything else of it is final.
    pub done: bool,
    /// What it is about.
    pub metadata: Metadata,
    /// What went wrong. It may be there before the end, while what was begun is taken back.
    pub error: Option<Status>,
}

/// A page of a list. Only one of the lists has something.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Page {
    /// Images.
    pub images: Vec<Image>,
    /// Snapshots.
    pub snapshots: Vec<Image>,
    /// Disks.
    pub disks: Vec<Disk>,
    /// Instances.
    pub instances: Vec<Instance>,
    /// Who may use something.
    pub access_bindings: Vec<AccessBinding>,
    /// Where the next page begins.
    pub next_page_token: String,
}

/// Who has a role.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessBinding {
    /// The role.
    pub role_id: String,
    /// Who has it.
    pub subject: Subject,
}

/// Somebody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Subject {
    /// The id.
    pub id: String,
    /// `system`, `userAccount`, `serviceAccount`, …
    pub r#type: String,
}

/// Where services are.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Endpoints {
    /// Each of them.
    pub endpoints: Vec<Endpoint>,
}

/// Where a service is.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// Which service.
    pub id: String,
    /// Host and port.
    pub address: String,
}

/// A token.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IamToken {
    /// The token.
    pub iam_token: String,
    /// Until when it is good.
    pub expires_at: String,
}

/// A token of the metadata service.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct MetadataToken {
    /// The token.
    pub access_token: String,
    /// For how long it is good, in seconds.
    pub expires_in: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_nothing_may_be_missing() {
        let image: Image =
            serde_json::from_str(r#"{"id": "x", "storageSize": "7", "diskSize": 8, "new": {}}"#)
                .unwrap();
        assert_eq!(
            (image.storage_size, image.disk_size, image.min_disk_size),
            (Some(7), Some(8), None)
        );
        let page: Page = serde_json::from_str("{}").unwrap();
        assert!(page.images.is_empty() && page.next_page_token.is_empty());
    }
}
