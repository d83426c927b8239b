//! What engines were seen to hold: instances, images, gaps and capabilities. Data only.
//!
//! An inventory is the only thing a plan knows of the world. It can be written to a file and read
//! back (`stillframe inventory --json`, `stillframe plan --inventory FILE`), so it carries all
//! that planning needs, the capabilities of each engine included.

mod capabilities;
mod content;
mod disk;
pub mod form;
mod format;
mod instant;
mod kind;
mod limits;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use capabilities::{
    Capabilities, Consistency, DeleteRule, Deprecation, DrillCheck, Idempotency, ImageKind,
    KeyChoice, LocationChoice, OWN_LABELS, RecordPlace, Tier, Via,
};
pub use content::Content;
pub use disk::Disk;
pub use format::ImportFormat;
pub use instant::OneInstant;
pub use kind::{DisksHeld, KindCapabilities};
pub use limits::{Limits, Quota, QuotaUnit};

use crate::name::{self, Key, Ownership, SourceId, parse_stamp};

/// The version of the inventory document. The first number changes when a reader must change.
pub const FORMAT_VERSION: &str = "1.0";

/// Stands between the ids of the members in the id of a set.
pub(crate) const ID_SEPARATOR: &str = "+";

/// Label with the time at which no rule kept an image any more.
pub const LABEL_LET_GO: &str = "stillframe-let-go";
/// Label with the time at which stillframe last moved an image's stage.
pub const LABEL_STAGED: &str = "stillframe-staged";
/// Label that holds the stage where the engine has no native one.
pub const LABEL_STAGE: &str = "stillframe-stage";
/// Label that keeps an image whatever the rules say: any value, or `until-` and a time.
pub const LABEL_HOLD: &str = "stillframe-hold";
/// Label on the newest image of a series whose source was found missing, with the time.
pub const LABEL_MISSING: &str = "stillframe-source-missing";
/// Label on the newest image of a series whose policy was found removed, with the time.
pub const LABEL_REMOVED: &str = "stillframe-policy-removed";
/// Label that tells a copy from its original: any value.
pub const LABEL_COPY: &str = "stillframe-copy";
/// Label with the time at which an image was last proven restorable.
pub const LABEL_DRILLED: &str = "stillframe-drilled";
/// Label on the newest image of a series with the time of its last drill, where the image that was
/// drilled goes.
pub const LABEL_DRILLED_BEFORE: &str = "stillframe-drilled-before";
/// Label on each member of a restore point that is one image per disk: how many members it has.
pub const LABEL_SET: &str = "stillframe-set";
/// Label on an image that was imported: a hash of where its disk lay, without what was signed.
pub const LABEL_IMPORTED: &str = "stillframe-imported";
/// Label of an instance that was stopped to be captured: by when it must run again.
pub const LABEL_RESTART: &str = "stillframe-restart";
/// Label on a snapshot that is a step on the way to an image: the name of that image.
pub const LABEL_STEP: &str = "stillframe-step";

/// What all engines were seen to hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Inventory {
    /// The version of this document.
    pub format_version: String,
    /// When it was observed.
    pub observed_at: Timestamp,
    /// One entry per engine, in the order of their names.
    pub engines: Vec<EngineInventory>,
}

/// What one engine was seen to hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EngineInventory {
    /// The name the configuration gives it.
    pub name: String,
    /// What kind of engine it is: `local`, …
    pub kind: String,
    /// Which world it is: a project, a folder, a directory. Shown in the plan and pinned by it.
    pub identity: String,
    /// What could not be seen. Where this is not empty, nothing is deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
    /// How many images were seen in the last round before this one, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_seen_before: Option<u64>,
    /// What the engine can do.
    #[serde(default)]
    pub capabilities: Capabilities,
    /// All instances, in the order of their ids.
    #[serde(default)]
    pub instances: Vec<Instance>,
    /// All images, in the order of their names and ids.
    #[serde(default)]
    pub images: Vec<Image>,
}

impl EngineInventory {
    /// Of an engine nothing could be seen.
    pub fn unseen(name: &str, why: &str) -> Self {
        let gap = |scope| Gap { scope, place: "everything".to_owned(), message: why.to_owned() };
        Self {
            name: name.to_owned(),
            kind: String::new(),
            identity: String::new(),
            gaps: vec![gap(GapScope::Instances), gap(GapScope::Images)],
            images_seen_before: None,
            capabilities: Capabilities::default(),
            instances: Vec::new(),
            images: Vec::new(),
        }
    }

    /// Whether everything was seen.
    pub fn is_complete(&self) -> bool {
        self.gaps.is_empty()
    }

    /// Puts everything in order. What was listed twice, because it moved while pages were read, is
    /// there once; two instances with one id are a gap.
    pub fn put_in_order(&mut self) {
        self.images.sort_by(|one, other| (&one.name, &one.id).cmp(&(&other.name, &other.id)));
        self.images.dedup_by(|later, first| later.id == first.id);
        self.instances.sort_by(|one, other| (&one.id, &one.name).cmp(&(&other.id, &other.name)));
        self.instances.dedup();
        let mut seen = BTreeSet::new();
        let twice = self.instances.iter().find(|instance| !seen.insert(instance.id.clone()));
        if let Some(instance) = twice {
            let message = format!("the id {} was seen on two instances", instance.id);
            let place = instance.name.clone();
            self.gaps.push(Gap { scope: GapScope::Instances, place, message });
            self.instances.dedup_by(|later, first| later.id == first.id);
        }
        self.gaps.sort();
        self.gaps.dedup();
    }
}

/// Something that could not be seen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gap {
    /// What is missing from the inventory.
    pub scope: GapScope,
    /// Where: a location, a zone, a file.
    pub place: String,
    /// Why it could not be seen, and what to do.
    pub message: String,
}

/// Gaps as people are told of them: one that is a gap of two things is told once.
pub fn told(gaps: &[Gap]) -> impl Iterator<Item = &Gap> {
    let mut told = BTreeSet::new();
    gaps.iter().filter(move |gap| told.insert((&gap.place, &gap.message)))
}

/// What a gap is a gap of.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum GapScope {
    /// Some instances were not seen.
    Instances,
    /// Some images were not seen.
    Images,
}

/// A virtual machine that an engine knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// Its id, which outlives a renaming.
    pub id: SourceId,
    /// Its name.
    pub name: String,
    /// Where it runs.
    #[serde(default)]
    pub zone: String,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its state in the engine's own word: RUNNING, TERMINATED, …
    #[serde(default)]
    pub status: String,
    /// The project that images of it are made in, where an engine has several.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub project: String,
    /// Its machine type in the engine's own word.
    #[serde(default)]
    pub machine_type: String,
    /// Its disks, the boot disk first.
    #[serde(default)]
    pub disks: Vec<Disk>,
}

impl Instance {
    /// Whether it was stopped for a capture, stands still, and should run again by now.
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        let until = self.labels.get(LABEL_RESTART);
        self.status != "RUNNING" && until.is_some_and(|until| is_over(until, now))
    }
}

/// Where the image of an id is: the members of a set are side by side.
pub(crate) fn place(id: &str) -> &str {
    id.rfind('/').map_or("", |at| &id[..=at])
}

/// The ids of the members behind the id of a set; of any other image its own.
pub fn member_ids(id: &str) -> Vec<String> {
    let (place, own) = id.split_at(place(id).len());
    own.split(ID_SEPARATOR).map(|own| format!("{place}{own}")).collect()
}

/// Whether the time in a label has come. One that cannot be read has passed.
pub fn is_over(until: &str, now: Timestamp) -> bool {
    parse_stamp(until).is_none_or(|until| until <= now)
}

/// A restore point as an engine stores it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Its id, never used twice.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it is.
    #[serde(default)]
    pub kind: ImageKind,
    /// Whether it can be restored.
    pub state: ImageState,
    /// How far its life has come.
    #[serde(default)]
    pub stage: Stage,
    /// When the engine says it was made.
    pub created_at: Timestamp,
    /// Where it is stored.
    #[serde(default)]
    pub location: String,
    /// The key it is encrypted under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key: Option<String>,
    /// The image family it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// Who else may use it, in order; absent where that was not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharing: Option<Vec<Grant>>,
    /// All its labels, those of stillframe among them.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The instance it was made of, as far as the engine remembers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<ImageSource>,
    /// Bytes it takes in the store beyond what older images already held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<u64>,
    /// Bytes of all its disks as the machine saw them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// Changes with every change of its labels or stage; an action is bound to it.
    #[serde(default)]
    pub fingerprint: String,
    /// The disks of its source that it holds, by name, where the engine knows. Of what is PARTIAL those
    /// alone that something can be restored from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disks: Option<Vec<String>>,
    /// The project that it is in, where an engine has several.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub project: String,
    /// Instances, templates or families that need it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_use_by: Vec<String>,
    /// What the engine says about its state, where it says something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A role and who has it, in the engine's own words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The role.
    pub role: String,
    /// Who has it, in order.
    pub members: Vec<String>,
}

impl Grant {
    /// A member as services compare it: addresses and domains have no capital letters, whoever has
    /// written them how.
    pub fn member(written: &str) -> String {
        const OF_ADDRESSES: [&str; 4] = ["user", "group", "serviceAccount", "domain"];
        match written.split_once(':') {
            Some((kind, name)) if OF_ADDRESSES.contains(&kind) => {
                format!("{kind}:{}", name.to_ascii_lowercase())
            }
            _ => written.to_owned(),
        }
    }
}

/// The instance an image was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageSource {
    /// Its id.
    pub id: SourceId,
    /// Its name at that time.
    pub name: String,
}

/// Whether an image can be restored. What an engine calls these is its own affair.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ImageState {
    /// Being made.
    Creating,
    /// Some of its disks are there and the others were not asked for yet: whoever makes it again makes
    /// what is missing, and nothing twice.
    Begun,
    /// Restorable. Only this one counts for anything.
    Ready,
    /// It will never be restorable.
    Failed,
    /// Some of its disks are there and the others are not, or they are of different times: it is no
    /// restore point, and what there is of it may be worth something to somebody.
    Partial,
    /// Being deleted.
    Deleting,
    /// A word this version does not know; the image is left alone.
    Unknown,
}

impl ImageState {
    /// Whether it is no restore point and never becomes one: a new attempt takes its place.
    pub fn is_failed_attempt(self) -> bool {
        matches!(self, Self::Failed | Self::Partial)
    }

    /// Whether something can be restored from it: it is never deleted without having been let go, but by
    /// the new attempt that takes its place.
    pub fn holds_data(self) -> bool {
        matches!(self, Self::Ready | Self::Partial)
    }

    /// Whether it is what is left of an attempt and holds data: it is let go like what no rule keeps,
    /// and never before something newer is READY, or what is left of a newer one holds all that it does.
    pub fn is_remainder(self) -> bool {
        self.is_failed_attempt() && self.holds_data()
    }

    /// Whether nobody is at it, so that its labels can be changed.
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Ready | Self::Failed | Self::Partial)
    }

    /// The word that people see.
    pub fn word(self) -> &'static str {
        match self {
            Self::Creating => "CREATING",
            Self::Begun => "BEGUN",
            Self::Ready => "READY",
            Self::Failed => "FAILED",
            Self::Partial => "PARTIAL",
            Self::Deleting => "DELETING",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// How far an image's life has come. Deletion is an action, not a stage.
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
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Stage {
    /// In use.
    #[default]
    Active,
    /// Usable, but people are told to take a newer one.
    Deprecated,
    /// Not to be used any more.
    Obsolete,
}

impl Image {
    /// Who made it.
    pub fn ownership(&self) -> Ownership {
        Key::from_labels(&self.labels)
    }

    /// When no rule kept it any more, as its label says.
    pub fn let_go_at(&self) -> Option<Timestamp> {
        self.labels.get(LABEL_LET_GO).and_then(|text| name::parse_stamp(text))
    }

    /// Whether a hold keeps it at `now`. A hold that cannot be read holds.
    pub fn is_held(&self, now: Timestamp) -> bool {
        self.labels.get(LABEL_HOLD).is_some_and(|text| {
            text.strip_prefix("until-").and_then(name::parse_stamp).is_none_or(|until| now < until)
        })
    }

    /// Whether it is a copy of a restore point and not the restore point itself.
    pub fn is_copy(&self) -> bool {
        self.labels.contains_key(LABEL_COPY)
    }

    /// Whether it says that it is a step on the way to a restore point, and so none itself.
    pub fn is_step(&self) -> bool {
        self.labels.contains_key(LABEL_STEP)
    }

    /// The name of the image that it is a step to. A label that was copied from another step does not
    /// fit its name, and makes no step of it.
    pub fn step_to(&self) -> Option<&str> {
        let image = self.labels.get(LABEL_STEP)?;
        let is_it = self.kind == ImageKind::Snapshot && self.name == name::step_name(image);
        is_it.then_some(image.as_str())
    }

    /// How many images of the engine it is made of, once it is whole: more than one for a set.
    pub fn members(&self) -> u64 {
        let count = self.labels.get(LABEL_SET).and_then(|text| text.parse().ok());
        count.unwrap_or(1).max(1)
    }

    /// How many of them there are, where the disks are known that they hold, one each; else all.
    pub fn members_there(&self) -> u64 {
        let there = self.disks.as_ref().filter(|_| self.state != ImageState::Ready);
        let all = self.members();
        there.map_or(all, |disks| all.min(disks.len() as u64)).max(1)
    }

    /// When it was last proven restorable.
    pub fn drilled_at(&self) -> Option<Timestamp> {
        self.labels.get(LABEL_DRILLED).and_then(|text| name::parse_stamp(text))
    }

    /// The last drill of its series that it knows of: of itself, or of one that went.
    pub fn drill_known(&self) -> Option<Timestamp> {
        let before = self.labels.get(LABEL_DRILLED_BEFORE);
        self.drilled_at().max(before.and_then(|text| name::parse_stamp(text)))
    }
}
