//! What an engine can do, as data: policies are checked against it before any call.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::format::ImportFormat;
use super::limits::Limits;

/// Labels that stillframe itself, and a person who holds an image, may put on it. A member of a set
/// carries the most: 4 of its key, 4 of its set, 3 of its stage, a hold, and one mark each of a source
/// that is gone and of a policy that was removed. What was imported is one image, and so has fewer.
pub const OWN_LABELS: usize = 14;

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
    /// The machine is stopped for it, and started again.
    Stopped,
}

impl Consistency {
    /// The word used in policies and documents.
    pub fn word(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Application => "application",
            Self::Stopped => "stopped",
        }
    }
}

/// What a disk image is made from.
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
pub enum Via {
    /// The disk itself.
    #[default]
    Disk,
    /// A snapshot of the disk, which is a step on the way and goes once the image is READY.
    Snapshot,
}

impl Via {
    /// The word used in policies and documents.
    pub fn word(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Snapshot => "snapshot",
        }
    }

    /// Whether it is the way that goes without saying.
    pub fn is_disk(&self) -> bool {
        *self == Self::Disk
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

/// Where the ownership record of an image and its marks are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RecordPlace {
    /// In labels: a policy may add some of its own, as far as there is room.
    #[default]
    Labels,
    /// In a text, before the description.
    Text,
}

/// Whether the place where images are stored can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LocationChoice {
    /// The policy names it.
    #[default]
    Settable,
    /// It is where the engine has it.
    Fixed,
}

/// What keeps a creation that is asked for twice from being two images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Idempotency {
    /// The name of an image is there once.
    #[default]
    Name,
    /// The service does once what is asked for under one request id.
    RequestId,
    /// Nothing of the service: it is looked for the image before each creation, and after each
    /// answer that was lost. Two runs at the same instant may make two.
    Search,
}

/// What a delete hangs on, beside the rules that hold on all engines.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum DeleteRule {
    /// It is done when its operation is.
    Operation,
    /// It is done when the image is not found any more.
    Vanished,
    /// Nothing is deleted that something was made of and still needs.
    Unused,
    /// Of a set, the image that carries the record goes last.
    RecordLast,
}

/// What an engine can do.
#[allow(clippy::struct_excessive_bools, reason = "each says by itself what an engine can do")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Capabilities {
    /// The kinds of image it makes, the one first that a policy gets which names none.
    pub kinds: Vec<ImageKind>,
    /// The consistencies it offers.
    pub consistencies: Vec<Consistency>,
    /// The kinds of image that are only as after a power failure, whatever it offers for others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub crash_only_kinds: Vec<ImageKind>,
    /// How it keeps the stage of an image.
    pub deprecation: Deprecation,
    /// The kinds of image whose stage is a state of its own, whatever holds for others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub native_kinds: Vec<ImageKind>,
    /// Where the ownership record of an image and its marks are written.
    pub record: RecordPlace,
    /// What keeps a creation that is asked for twice from being two images.
    pub idempotency: Idempotency,
    /// What a delete hangs on, beside the rules that hold on all engines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub delete_rules: Vec<DeleteRule>,
    /// Whether the encryption key can be chosen.
    pub key: KeyChoice,
    /// Whether the storage location can be chosen.
    pub location_choice: LocationChoice,
    /// All storage locations there are, the default one first; empty where the list is open.
    pub locations: Vec<String>,
    /// How storage locations are written where the list is open ([`super::form`]); empty where nothing is
    /// known of that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub location_forms: Vec<String>,
    /// How encryption keys are written, in the same way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key_forms: Vec<String>,
    /// What belongs to this engine alone, as far as settings say it: what holds its images. Of no other use,
    /// and no part of documents.
    #[serde(skip)]
    pub claims: Vec<String>,
    /// The most labels one image can carry, those of stillframe included.
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
    /// The locations that hold copies and nothing else; empty where copies go to any of `locations`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copy_locations: Vec<String>,
    /// The kinds of image that hold one disk, so that a source of several cannot be one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub one_disk_kinds: Vec<ImageKind>,
    /// The kinds of image of which there is one per disk, so that a restore point over several disks
    /// is a set of images, each of its own instant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub per_disk_kinds: Vec<ImageKind>,
    /// The kinds of image that can be made from a snapshot of their disk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub via_snapshot_kinds: Vec<ImageKind>,
    /// The formats that a disk can have which is imported as an image, for each kind that can be
    /// imported by a URL.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub imports: BTreeMap<ImageKind, Vec<ImportFormat>>,
    /// The kinds of image that always hold the disk that the machine starts from, so that a policy
    /// must take it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boot_disk_kinds: Vec<ImageKind>,
    /// What the disk is called that machines start from, where it is called so on all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_disk_name: Option<String>,
    /// What the other disks of a set become, where only the one that the machine starts from becomes an
    /// image of the kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub companions: BTreeMap<ImageKind, ImageKind>,
    /// The kinds of image each of which stores all of its disk, whatever older ones hold; of others a
    /// later one stores what has changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub whole_kinds: Vec<ImageKind>,
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
    /// Whether sources have labels that a policy can select them by.
    #[serde(skip_serializing_if = "is_true")]
    pub source_labels: bool,
    /// Which settings would let an engine of this kind have families that has none as it is set up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub families_need: Option<String>,
    /// The fewest characters that the name of a family has.
    pub family_length_min: usize,
    /// Whether images can be shared with others.
    #[serde(default)]
    pub sharing: bool,
    /// Whom images can be shared with: whole names, and beginnings that end with a colon, behind which
    /// anything stands. Empty where nothing is known of that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub share_with: Vec<String>,
    /// How roles are written that images are shared with; empty where nothing is known of that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub role_forms: Vec<String>,
    /// How images can be proven restorable.
    #[serde(default)]
    pub drills: Vec<DrillCheck>,
    /// What the engine takes before it refuses.
    #[serde(default)]
    pub limits: Limits,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_true(is: &bool) -> bool {
    *is
}

impl Capabilities {
    /// Labels that a policy may add to those of stillframe itself.
    pub fn labels_room(&self) -> usize {
        self.labels_max.saturating_sub(OWN_LABELS)
    }

    /// The consistencies that it offers for a kind.
    pub fn consistencies_of(&self, kind: ImageKind) -> Vec<Consistency> {
        let is_offered = |one: &&Consistency| {
            **one == Consistency::Crash || !self.crash_only_kinds.contains(&kind)
        };
        self.consistencies.iter().filter(is_offered).copied().collect()
    }

    /// What images of a kind can be made from.
    pub fn vias_of(&self, kind: ImageKind) -> Vec<Via> {
        let snapshot = self.via_snapshot_kinds.contains(&kind).then_some(Via::Snapshot);
        [Via::Disk].into_iter().chain(snapshot).collect()
    }

    /// How it keeps the stage of an image of a kind.
    pub fn deprecation_of(&self, kind: ImageKind) -> Deprecation {
        if self.native_kinds.contains(&kind) { Deprecation::Native } else { self.deprecation }
    }

    /// What the disks of a set become that the machine does not start from, where that is another kind.
    pub fn companion_of(&self, kind: ImageKind, disks: usize) -> Option<ImageKind> {
        self.companions.get(&kind).copied().filter(|_| disks > 1)
    }

    /// Whether images of a kind can be copied to other locations.
    pub fn can_copy(&self, kind: ImageKind) -> bool {
        self.copies && (self.copied_kinds.is_empty() || self.copied_kinds.contains(&kind))
    }

    /// The locations that copies can go to; empty where the list is open.
    pub fn copied_to(&self) -> &[String] {
        if self.copy_locations.is_empty() { &self.locations } else { &self.copy_locations }
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

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            kinds: vec![ImageKind::MachineImage, ImageKind::DiskImage, ImageKind::Snapshot],
            consistencies: vec![Consistency::Crash],
            crash_only_kinds: Vec::new(),
            deprecation: Deprecation::Label,
            native_kinds: Vec::new(),
            record: RecordPlace::Labels,
            idempotency: Idempotency::Name,
            delete_rules: Vec::new(),
            key: KeyChoice::Settable,
            location_choice: LocationChoice::Settable,
            locations: Vec::new(),
            location_forms: Vec::new(),
            key_forms: Vec::new(),
            claims: Vec::new(),
            labels_max: 64,
            description_length_max: 2048,
            captures_max: 4,
            copies: false,
            copied_kinds: Vec::new(),
            copy_locations: Vec::new(),
            one_disk_kinds: Vec::new(),
            per_disk_kinds: Vec::new(),
            via_snapshot_kinds: Vec::new(),
            imports: BTreeMap::new(),
            boot_disk_kinds: Vec::new(),
            boot_disk_name: None,
            companions: BTreeMap::new(),
            whole_kinds: Vec::new(),
            archived_kinds: Vec::new(),
            default_locations: BTreeMap::new(),
            families: false,
            source_labels: true,
            families_need: None,
            family_length_min: 1,
            sharing: false,
            share_with: Vec::new(),
            role_forms: Vec::new(),
            drills: Vec::new(),
            limits: Limits::default(),
        }
    }
}
