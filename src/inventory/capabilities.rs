//! What an engine can do, as data: policies are checked against it before any call.

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
        }
    }
}
