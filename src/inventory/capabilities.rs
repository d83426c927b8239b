//! What an engine can do, as data: policies are checked against it before any call.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an image is.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum ImageKind {
    /// The configuration and all chosen disks of an instance.
    #[default]
    MachineImage,
    /// One disk, to start machines from.
    DiskImage,
    /// One disk, or a set of disks taken one by one.
    Snapshot,
}

impl ImageKind {
    /// The word used in policies and documents.
    pub fn word(self) -> &'static str {
        match self {
            Self::MachineImage => "machine-image",
            Self::DiskImage => "disk-image",
            Self::Snapshot => "snapshot",
        }
    }
}

/// What state the disks are in when they are captured.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Consistency {
    /// As after a power failure.
    #[default]
    Crash,
    /// The guest has flushed and its applications know.
    Application,
}

impl Consistency {
    /// The word used in policies and documents.
    pub fn word(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Application => "application",
        }
    }
}

/// How an engine keeps the stage of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Deprecation {
    /// A state of its own.
    Native,
    /// A label with the time.
    Label,
}

/// Whether an image's encryption key can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KeyChoice {
    /// The policy names it.
    Settable,
    /// The image has the key of its disk.
    Inherited,
    /// There is none.
    None,
}

/// What an engine can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Capabilities {
    /// The kinds of image it makes.
    pub kinds: Vec<ImageKind>,
    /// The consistencies it offers.
    pub consistencies: Vec<Consistency>,
    /// How it keeps the stage of an image.
    pub deprecation: Deprecation,
    /// Whether the encryption key can be chosen.
    pub key: KeyChoice,
    /// All storage locations there are, the default one first; empty where the list is open.
    pub locations: Vec<String>,
    /// The most labels one image can carry.
    pub labels_max: usize,
    /// The most characters a description can have.
    pub description_length_max: usize,
    /// The most captures that may run at once.
    pub captures_max: usize,
    /// Whether images can be copied to other locations.
    #[serde(default)]
    pub copies: bool,
    /// The kinds of image that can be copied; empty where all can, if any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copied_kinds: Vec<ImageKind>,
    /// The kinds of image that hold one disk, so that a source of several cannot be one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub one_disk_kinds: Vec<ImageKind>,
    /// The kinds of image of which there is one per disk, so that a restore point over several disks
    /// is a set of images, each of its own instant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub per_disk_kinds: Vec<ImageKind>,
    /// The kinds of image that can be archived: cheaper to keep, slower to restore.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub archived_kinds: Vec<ImageKind>,
    /// Where images of a source are stored that has no location said for it, by the beginning of the
    /// name of its zone. What is not in it is the engine's own choice.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub default_locations: BTreeMap<String, String>,
    /// Whether disk images have families, in which the newest replaces older ones.
    #[serde(default)]
    pub families: bool,
    /// Whether images can be shared with others.
    #[serde(default)]
    pub sharing: bool,
    /// How images can be proven restorable.
    #[serde(default)]
    pub drills: Vec<DrillCheck>,
    /// What the engine takes before it refuses.
    #[serde(default)]
    pub limits: Limits,
}

impl Capabilities {
    /// Whether images of a kind can be copied to other locations.
    pub fn can_copy(&self, kind: ImageKind) -> bool {
        self.copies && (self.copied_kinds.is_empty() || self.copied_kinds.contains(&kind))
    }

    /// Where images of a source in a zone are stored that has no location said for it; empty where
    /// the engine chooses.
    pub fn default_location(&self, zone: &str) -> &str {
        let of_zone = self.default_locations.iter().filter(|(begin, _)| zone.starts_with(&**begin));
        let of_zone = of_zone.max_by_key(|(begin, _)| begin.len()).map(|(_, location)| location);
        self.locations.first().or(of_zone).map_or("", String::as_str)
    }
}

/// How cheap an image is to keep, and how slow to restore.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// The usual one.
    #[default]
    Standard,
    /// Cheaper to keep, slower and dearer to restore.
    Archive,
}

impl Tier {
    /// The word used in policies and documents.
    pub fn word(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Archive => "archive",
        }
    }
}

/// How an image is proven restorable.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum DrillCheck {
    /// All stored data is read back and checked.
    #[default]
    Verify,
    /// The disks are written to a scratch place and removed.
    Restore,
    /// A machine starts from them.
    Boot,
}

impl DrillCheck {
    /// The word used in policies and plans.
    pub fn word(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Restore => "restore",
            Self::Boot => "boot",
        }
    }
}

/// What an engine takes before it refuses. What is absent has no limit that is known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The most images of each kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<ImageKind, u64>,
    /// The most disks that one image can hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_disks: Option<u64>,
    /// The most bytes of disks that one image can hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_bytes: Option<u64>,
    /// The shortest time between two images of one source, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_interval_seconds: Option<u64>,
    /// The most images of one source within an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_hourly: Option<u64>,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            kinds: vec![ImageKind::MachineImage, ImageKind::DiskImage, ImageKind::Snapshot],
            consistencies: vec![Consistency::Crash],
            deprecation: Deprecation::Label,
            key: KeyChoice::Settable,
            locations: Vec::new(),
            labels_max: 64,
            description_length_max: 2048,
            captures_max: 4,
            copies: false,
            copied_kinds: Vec::new(),
            one_disk_kinds: Vec::new(),
            per_disk_kinds: Vec::new(),
            archived_kinds: Vec::new(),
            default_locations: BTreeMap::new(),
            families: false,
            sharing: false,
            drills: Vec::new(),
            limits: Limits::default(),
        }
    }
}
