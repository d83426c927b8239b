//! The API's own structs: the fields that are needed, named and cased as the API has them.
//!
//! Fields that are not known are passed over, words of enumerations stay text, and 64-bit numbers,
//! which the API writes as strings, are read as either. Source: the discovery document of
//! `compute/v1`, revision 20261106.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// A page of a list.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", bound = "T: Deserialize<'de>")]
pub struct List<T> {
    /// `compute#…List`: without it, the answer is something else.
    pub kind: String,
    /// What is on this page; absent where nothing is.
    #[serde(default = "Vec::new")]
    pub items: Vec<T>,
    /// Where the next page begins; absent or empty on the last one.
    #[serde(default)]
    pub next_page_token: Option<String>,
    /// What the service has to say about the page.
    #[serde(default)]
    pub warning: Option<Warning>,
}

/// A page of a list over all zones and regions.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AggregatedList {
    /// `compute#…AggregatedList`.
    pub kind: String,
    /// `zones/ZONE` or `regions/REGION` to what is there. Every one is there on every page, those
    /// without anything with a warning.
    pub items: Option<BTreeMap<String, ScopedList>>,
    /// Where the next page begins; absent or empty on the last one.
    #[serde(default)]
    pub next_page_token: Option<String>,
    /// Zones and regions that did not answer.
    #[serde(default)]
    pub unreachables: Vec<String>,
    /// What the service has to say about the page.
    #[serde(default)]
    pub warning: Option<Warning>,
}

/// What a zone or a region has.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScopedList {
    /// Its instances, where instances were asked for.
    pub instances: Option<Vec<Instance>>,
    /// Its disks, where disks were asked for.
    pub disks: Option<Vec<Disk>>,
    /// Its instance templates, where those were asked for.
    pub instance_templates: Option<Vec<InstanceTemplate>>,
    /// Why there is nothing, or not everything.
    pub warning: Option<Warning>,
}

/// What the service has to say beside its answer.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Warning {
    /// `NO_RESULTS_ON_PAGE`, `UNREACHABLE`, …
    pub code: String,
    /// For people.
    pub message: String,
}

/// An instance.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Instance {
    #[serde(deserialize_with = "identifier")]
    pub id: String,
    pub name: String,
    /// A URL.
    pub zone: String,
    pub labels: BTreeMap<String, String>,
    pub status: String,
    /// A URL.
    pub machine_type: String,
    /// RFC 3339.
    pub creation_timestamp: String,
    pub disks: Vec<AttachedDisk>,
    /// The URL of the machine image it was made of, where it was.
    pub source_machine_image: String,
}

/// A disk as an instance has it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AttachedDisk {
    pub device_name: String,
    pub boot: bool,
    /// A URL; absent for disks that are part of the machine.
    pub source: String,
    /// `PERSISTENT` or `SCRATCH`.
    pub r#type: String,
    #[serde(deserialize_with = "number")]
    pub disk_size_gb: Option<u64>,
    /// What a disk is made of that a template describes.
    pub initialize_params: InitializeParams,
}

/// What a disk is made of.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InitializeParams {
    /// A URL of an image or of a family.
    pub source_image: String,
    /// A URL.
    pub source_snapshot: String,
}

/// What instances are made from.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InstanceTemplate {
    pub name: String,
    pub properties: InstanceProperties,
}

/// A region, as far as its name.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Region {
    pub name: String,
}

/// What a project says of its snapshots.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SnapshotSettings {
    pub storage_location: StorageLocationSettings,
}

/// Where snapshots are stored that do not say where.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StorageLocationSettings {
    /// `NEAREST_MULTI_REGION`, `LOCAL_REGION`, `SPECIFIC_LOCATIONS`; empty where nobody has said.
    pub policy: String,
}

/// A disk.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Disk {
    pub name: String,
    /// A URL.
    pub self_link: String,
    /// The number of the image it was made of, where it was.
    #[serde(deserialize_with = "identifier")]
    pub source_image_id: String,
    /// The number of the snapshot it was made of, where it was.
    #[serde(deserialize_with = "identifier")]
    pub source_snapshot_id: String,
    /// The number of the machine image it was made of, where it was.
    #[serde(deserialize_with = "identifier")]
    pub source_machine_image_id: String,
    #[serde(deserialize_with = "number")]
    pub size_gb: Option<u64>,
}

/// A machine image.
#[expect(clippy::struct_field_names, reason = "the API has them so")]
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineImage {
    #[serde(deserialize_with = "identifier")]
    pub id: String,
    pub name: String,
    /// Where it was asked for.
    pub description: String,
    pub creation_timestamp: String,
    /// `CREATING`, `READY`, `UPLOADING`, `DELETING`, `INVALID`.
    pub status: String,
    pub labels: BTreeMap<String, String>,
    pub label_fingerprint: String,
    /// A URL.
    pub source_instance: String,
    pub storage_locations: Vec<String>,
    #[serde(deserialize_with = "number")]
    pub total_storage_bytes: Option<u64>,
    pub machine_image_encryption_key: EncryptionKey,
    pub instance_properties: InstanceProperties,
    pub saved_disks: Vec<SavedDisk>,
}

/// A disk that a machine image holds.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SavedDisk {
    /// A URL.
    pub source_disk: String,
}

/// What a machine image records of its instance.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InstanceProperties {
    pub disks: Vec<AttachedDisk>,
}

/// A disk image.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DiskImage {
    #[serde(deserialize_with = "identifier")]
    pub id: String,
    pub name: String,
    /// Where it was asked for.
    pub description: String,
    pub creation_timestamp: String,
    /// `PENDING`, `READY`, `FAILED`, `DELETING`.
    pub status: String,
    pub labels: BTreeMap<String, String>,
    pub label_fingerprint: String,
    pub family: Option<String>,
    pub deprecated: DeprecationStatus,
    /// A URL.
    pub source_disk: String,
    /// The URL of the snapshot it was made of, where it was.
    pub source_snapshot: String,
    /// The number of the image it is a copy of, where it is one.
    #[serde(deserialize_with = "identifier")]
    pub source_image_id: String,
    pub storage_locations: Vec<String>,
    #[serde(deserialize_with = "number")]
    pub archive_size_bytes: Option<u64>,
    #[serde(deserialize_with = "number")]
    pub disk_size_gb: Option<u64>,
    pub image_encryption_key: EncryptionKey,
}

/// A snapshot of a disk.
#[expect(clippy::struct_field_names, reason = "the API has them so")]
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Snapshot {
    #[serde(deserialize_with = "identifier")]
    pub id: String,
    pub name: String,
    /// Where it was asked for.
    pub description: String,
    pub creation_timestamp: String,
    /// `CREATING`, `UPLOADING`, `READY`, `FAILED`, `DELETING`.
    pub status: String,
    pub labels: BTreeMap<String, String>,
    pub label_fingerprint: String,
    /// A URL.
    pub source_disk: String,
    /// The URL of its region, where it is one of a region.
    pub region: String,
    pub storage_locations: Vec<String>,
    #[serde(deserialize_with = "number")]
    pub storage_bytes: Option<u64>,
    #[serde(deserialize_with = "number")]
    pub disk_size_gb: Option<u64>,
    pub snapshot_encryption_key: EncryptionKey,
}

/// The state that a disk image has been given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeprecationStatus {
    /// `ACTIVE`, `DEPRECATED`, `OBSOLETE`, `DELETED`; empty where there is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub state: String,
    /// The URL of the image to take instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replacement: Option<String>,
}

/// The key that something is encrypted under.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EncryptionKey {
    pub kms_key_name: Option<String>,
}

/// Something that takes time.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    pub name: String,
    /// `PENDING`, `RUNNING`, `DONE`.
    pub status: String,
    /// A URL, where it is one of a zone.
    #[serde(default)]
    pub zone: Option<String>,
    /// A URL, where it is one of a region.
    #[serde(default)]
    pub region: Option<String>,
    /// 0 to 100.
    #[serde(default)]
    pub progress: Option<u64>,
    /// What went wrong; an operation that is DONE may have it.
    #[serde(default)]
    pub error: Option<OperationErrors>,
    #[serde(default)]
    pub http_error_status_code: Option<u16>,
    #[serde(default)]
    pub http_error_message: Option<String>,
    /// When it was asked for.
    #[serde(default)]
    pub insert_time: Option<String>,
}

/// What went wrong in an operation.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OperationErrors {
    pub errors: Vec<OperationError>,
}

/// One thing that went wrong in an operation.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OperationError {
    /// `QUOTA_EXCEEDED`, `RESOURCE_ALREADY_EXISTS`, …
    pub code: String,
    /// For people.
    pub message: String,
}

/// A project.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Project {
    pub quotas: Vec<Quota>,
}

/// How much of something a project may have.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Quota {
    /// `MACHINE_IMAGES`, `IMAGES`, `SNAPSHOTS`, …
    pub metric: String,
    pub limit: f64,
    pub usage: f64,
}

/// Which of some permissions somebody has.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Permissions {
    pub permissions: Vec<String>,
}

/// An answer that is not what was asked for.
#[derive(Debug, Clone, Deserialize)]
pub struct ErrorEnvelope {
    pub error: ErrorBody,
}

/// Why a request was not carried out.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ErrorBody {
    /// For people.
    pub message: String,
    /// The reasons; the first one counts.
    pub errors: Vec<ErrorReason>,
    /// The same in the words of other services.
    pub details: Vec<ErrorReason>,
    /// `NOT_FOUND`, `RESOURCE_EXHAUSTED`, …
    pub status: String,
}

/// One reason.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ErrorReason {
    /// `notFound`, `rateLimitExceeded`, …
    pub reason: String,
}

/// What labels are set with. The whole set is replaced.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SetLabelsRequest<'a> {
    pub labels: &'a BTreeMap<String, String>,
    pub label_fingerprint: &'a str,
}

/// A 64-bit number, written as a string or as a number.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let read = match &value {
        Value::Null => return Ok(None),
        Value::String(text) => text.parse().ok(),
        value => value.as_u64(),
    };
    read.map(Some).ok_or_else(|| serde::de::Error::custom(format!("not a number: {value}")))
}

/// An id, written as a string or as a number.
pub(super) fn identifier<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        value => Err(serde::de::Error::custom(format!("not an id: {value}"))),
    }
}

/// The last part of a URL or path: `zones/us-central1-a` is `us-central1-a`.
pub fn last_segment(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}

/// A URL of a resource as the path from its project on: `projects/p/zones/z/disks/d`, whatever
/// host and version stand before it.
pub fn resource_path(url: &str) -> &str {
    let at = if url.starts_with("projects/") {
        Some(0)
    } else {
        url.find("/projects/").map(|at| at + 1)
    };
    at.map_or(url, |at| &url[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_strings_and_what_is_new_is_passed_over() {
        let image: MachineImage = serde_json::from_str(
            r#"{"id": "18446744073709551615", "totalStorageBytes": "9007199254740993", "status": "RESTING",
                "satisfiesPzi": true, "instanceProperties": {"disks": [{"diskSizeGb": "10", "interface": "NVME"}]}}"#,
        )
        .unwrap();
        assert_eq!(image.id, u64::MAX.to_string());
        assert_eq!(image.total_storage_bytes, Some(9_007_199_254_740_993));
        assert_eq!(image.status, "RESTING");
        assert_eq!(image.instance_properties.disks[0].disk_size_gb, Some(10));
        assert!(serde_json::from_str::<Disk>(r#"{"sizeGb": "many"}"#).is_err());
    }

    #[test]
    fn an_answer_without_its_kind_is_no_list() {
        assert!(serde_json::from_str::<List<Snapshot>>("{}").is_err());
        assert!(
            serde_json::from_str::<List<Snapshot>>(r#"{"kind": "compute#snapshotList"}"#).is_ok()
        );
    }

    #[test]
    fn a_resource_has_one_path_whatever_stands_before_it() {
        for url in [
            "https://www.googleapis.com/compute/v1/projects/p/zones/z/disks/d",
            "http://127.0.0.1:8080/compute/v1/projects/p/zones/z/disks/d",
            "projects/p/zones/z/disks/d",
        ] {
            assert_eq!(resource_path(url), "projects/p/zones/z/disks/d");
        }
    }
}
