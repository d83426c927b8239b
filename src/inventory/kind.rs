//! What an engine can do with images of one kind.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    Capabilities, Consistency, DeleteRule, Deprecation, DrillCheck, Idempotency, ImageKind,
    ImportFormat, KeyChoice, LocationChoice, RecordPlace, Tier, Via,
};

/// Which disks of a source a restore point of a kind holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DisksHeld {
    /// All that the policy takes, of one instant, in one image.
    Together,
    /// All that the policy takes, in one image per disk, each of its own instant.
    OneImageEach,
    /// One.
    One,
}

/// What an engine can do with images of one kind. What is absent has no limit that is known.
#[allow(clippy::struct_excessive_bools, reason = "each says of one thing whether there is any")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KindCapabilities {
    /// The kind.
    pub kind: ImageKind,
    /// Which disks a restore point holds.
    pub disks: DisksHeld,
    /// What the other disks become, where only the one that the machine starts from becomes an image
    /// of the kind.
    pub companion: Option<ImageKind>,
    /// Whether each stores all of its disk, and not only what has changed.
    pub whole: bool,
    /// Whether the disk that the machine starts from is always among them.
    pub boot_disk: bool,
    /// What images can be made from.
    pub vias: Vec<Via>,
    /// The formats of disks that can be imported as one; empty where none can.
    pub imports: Vec<ImportFormat>,
    /// The consistencies that a policy may ask for.
    pub consistencies: Vec<Consistency>,
    /// How the stage of an image is kept.
    pub deprecation: Deprecation,
    /// Where the ownership record and its marks are written.
    pub record: RecordPlace,
    /// Labels that a policy may add.
    pub labels_room: usize,
    /// The most characters of a description.
    pub description_length_max: usize,
    /// Whether the encryption key can be chosen.
    pub key: KeyChoice,
    /// Whether the storage location can be chosen.
    pub location_choice: LocationChoice,
    /// All storage locations, the default one first; empty where the list is open.
    pub locations: Vec<String>,
    /// Whether images can be copied to other locations.
    pub copies: bool,
    /// The locations that hold copies and nothing else; empty where copies go to any of the others.
    pub copy_locations: Vec<String>,
    /// How cheap images can be to keep.
    pub tiers: Vec<Tier>,
    /// Whether images have families.
    pub families: bool,
    /// The fewest characters that the name of a family has.
    pub family_length_min: usize,
    /// Whether images can be shared with others.
    pub sharing: bool,
    /// Whom they can be shared with; empty where nothing is known of that.
    pub share_with: Vec<String>,
    /// How images can be proven restorable.
    pub drills: Vec<DrillCheck>,
    /// What keeps a creation that is asked for twice from being two images.
    pub idempotency: Idempotency,
    /// The most captures that may run at once.
    pub captures_max: usize,
    /// The most captures that may begin within a minute.
    pub captures_per_minute: Option<u64>,
    /// The most captures of one source that may run at once.
    pub source_captures: Option<u64>,
    /// The most operations of any sort that may run at once.
    pub operations: Option<u64>,
    /// The shortest time between two images of one source, in seconds.
    pub source_interval_seconds: Option<u64>,
    /// The most images of one source within an hour.
    pub source_hourly: Option<u64>,
    /// The most images.
    pub images: Option<u64>,
    /// The most bytes of all images.
    pub stored_bytes: Option<u64>,
    /// The most disks of one image.
    pub image_disks: Option<u64>,
    /// The most bytes of disks of one image.
    pub image_bytes: Option<u64>,
    /// What a delete hangs on.
    pub delete_rules: Vec<DeleteRule>,
}

impl Capabilities {
    /// What the engine can do with images of each kind that it makes.
    pub fn of_kinds(&self) -> Vec<KindCapabilities> {
        self.kinds.iter().map(|kind| self.of_kind(*kind)).collect()
    }

    fn of_kind(&self, kind: ImageKind) -> KindCapabilities {
        let of = |quota: &BTreeMap<ImageKind, u64>| quota.get(&kind).copied();
        let archive = self.archived_kinds.contains(&kind).then_some(Tier::Archive);
        let limits = &self.limits;
        KindCapabilities {
            kind,
            disks: if self.one_disk_kinds.contains(&kind) {
                DisksHeld::One
            } else if self.per_disk_kinds.contains(&kind) {
                DisksHeld::OneImageEach
            } else {
                DisksHeld::Together
            },
            companion: self.companions.get(&kind).copied(),
            whole: self.whole_kinds.contains(&kind),
            boot_disk: self.boot_disk_kinds.contains(&kind),
            vias: self.vias_of(kind),
            imports: self.imports.get(&kind).cloned().unwrap_or_default(),
            consistencies: self.consistencies_of(kind),
            deprecation: self.deprecation_of(kind),
            record: self.record,
            labels_room: match self.record {
                RecordPlace::Labels => self.labels_room(),
                RecordPlace::Text => 0,
            },
            description_length_max: self.description_length_max,
            key: self.key,
            location_choice: self.location_choice,
            locations: self.locations.clone(),
            copies: self.can_copy(kind),
            copy_locations: if self.can_copy(kind) {
                self.copy_locations.clone()
            } else {
                Vec::new()
            },
            tiers: [Tier::Standard].into_iter().chain(archive).collect(),
            families: self.families && kind == ImageKind::DiskImage,
            family_length_min: self.family_length_min,
            sharing: self.sharing,
            share_with: if self.sharing { self.share_with.clone() } else { Vec::new() },
            drills: self.drills.clone(),
            idempotency: self.idempotency,
            captures_max: self.captures_max,
            captures_per_minute: limits.captures_per_minute,
            source_captures: limits.source_captures,
            operations: limits.operations,
            source_interval_seconds: limits.source_interval_seconds,
            source_hourly: limits.source_hourly,
            images: of(&limits.images),
            stored_bytes: of(&limits.stored_bytes),
            image_disks: limits.image_disks,
            image_bytes: limits.image_bytes,
            delete_rules: self.delete_rules.clone(),
        }
    }
}
