//! Disks of instances, and what stands for those that were not seen.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A disk of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Its device name, unique within the instance; `(not seen)` stands for all that were not seen.
    pub name: String,
    /// Whether the machine starts from it.
    #[serde(default)]
    pub boot: bool,
    /// Bytes the machine sees; absent where the disk cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// The key it is encrypted under, where that is not one of the service's own; only where images
    /// have the key of their disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key: Option<String>,
    /// Why the disk cannot be captured, where that is known before trying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Disk {
    /// The name that stands for all disks of an instance that were not seen.
    pub const UNSEEN: &str = "(not seen)";

    /// What stands for the data disks of an instance where they were not all seen, and why: as long as it
    /// is there the instance does not look as if it had no others. A policy that takes more than the disk
    /// the machine starts from takes it, and makes nothing.
    pub fn unseen(why: String) -> Self {
        let name = Self::UNSEEN.to_owned();
        Self { name, boot: false, size_bytes: None, kms_key: None, problem: Some(why) }
    }

    /// Whether it was looked at by itself: nobody knows the key of one that was not.
    pub fn is_read(&self) -> bool {
        self.size_bytes.is_some()
    }

    /// Whether it stands for disks that were not seen.
    pub fn is_unseen(&self) -> bool {
        self.name == Self::UNSEEN
    }
}
