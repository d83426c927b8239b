//! What policies mean: checked, typed, ready to plan with.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::finding::Place;
use super::naming::Naming;
use super::select::{Patterns, Selection};
use crate::elapsed::Elapsed;
use crate::inventory::{Capabilities, Consistency, ImageKind};
use crate::name::PolicyName;
use crate::retention::Retention;
use crate::schedule::Schedule;

/// All that was written, checked.
#[derive(Debug, Clone)]
pub struct Policies {
    /// Engines, guards and the ledger.
    pub config: Config,
    /// The policies, in the order of their names.
    pub policies: Vec<Policy>,
    /// A digest over their meaning: comments and formatting do not change it.
    pub digest: String,
}

impl Policies {
    /// The policy of a name.
    pub fn get(&self, name: &PolicyName) -> Option<&Policy> {
        self.policies
            .binary_search_by(|policy| policy.name.cmp(name))
            .ok()
            .and_then(|index| self.policies.get(index))
    }
}

/// The configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The engines by name.
    pub engines: BTreeMap<String, EngineConfig>,
    /// What a plan may not do unasked.
    pub guards: Guards,
    /// The ledger file, relative to the configuration file.
    pub ledger: String,
    /// The configuration file, as it was given.
    pub file: String,
}

/// An engine as configured.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Its kind: `local`, …
    pub kind: String,
    /// Its settings, which hold to its kind's schema.
    pub settings: serde_json::Value,
    /// What it can do with these settings.
    pub capabilities: Capabilities,
}

/// What a plan may not do unasked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Guards {
    /// The largest share of a series that one plan may delete, in percent.
    pub series_percent: u32,
    /// The largest share of an engine's managed images that one plan may delete, in percent.
    pub engine_percent: u32,
    /// The most images of an engine that one plan may delete.
    pub engine_count: u32,
    /// Deletes of these classes are refused.
    pub refuse: Vec<Risk>,
}

impl Default for Guards {
    fn default() -> Self {
        Self {
            series_percent: 30,
            engine_percent: 30,
            engine_count: 100,
            refuse: vec![Risk::LastPoint],
        }
    }
}

/// What deleting an image would cost, the worst first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Risk {
    /// The last READY restore point of a source.
    LastPoint,
    /// The oldest READY restore point of a series: it reaches less far back afterwards.
    ShortensReach,
    /// A restore point of a source that is gone or no longer selected.
    SourceGone,
    /// What happens on every ordinary day.
    Rotation,
}

impl Risk {
    /// The word used in plans and configurations.
    pub fn word(self) -> &'static str {
        match self {
            Self::LastPoint => "last-point",
            Self::ShortensReach => "shortens-reach",
            Self::SourceGone => "source-gone",
            Self::Rotation => "rotation",
        }
    }
}

/// A policy.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Its name.
    pub name: PolicyName,
    /// The team or person to ask.
    pub owner: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// The engine that holds its sources.
    pub engine: String,
    /// Which instances are sources.
    pub selection: Selection,
    /// What is captured.
    pub capture: Capture,
    /// When.
    pub schedule: Schedule,
    /// What is kept.
    pub retention: Retention,
    /// Without a new READY point for longer than this, nothing is deleted; `None` means three
    /// periods of the schedule.
    pub stalled_after: Option<Elapsed>,
    /// How restore points age.
    pub lifecycle: Lifecycle,
    /// The storage location; empty means the engine's own.
    pub location: String,
    /// The encryption key; `None` means the engine's own.
    pub kms_key: Option<String>,
    /// Labels of the images.
    pub labels: BTreeMap<String, String>,
    /// What images are called.
    pub naming: Naming,
    /// What it does not do at present.
    pub paused: Option<Pause>,
    /// Where it is written.
    pub place: Place,
    /// Each value that holds, with where it comes from, in the order of the language.
    pub effective: Vec<Effective>,
}

/// A value of the effective policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    /// The path of the value, like `schedule.cron`.
    pub path: String,
    /// The value.
    pub value: serde_json::Value,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a value of the effective policy comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The policy itself.
    Policy(Place),
    /// The defaults of the configuration.
    Defaults(Place),
    /// stillframe.
    BuiltIn,
}

/// What is captured of a source.
#[derive(Debug, Clone)]
pub struct Capture {
    /// The kind of image.
    pub kind: ImageKind,
    /// Which disks.
    pub disks: DiskChoice,
    /// In which state.
    pub consistency: Consistency,
}

/// Which disks of a source are captured.
#[derive(Debug, Clone)]
pub enum DiskChoice {
    /// Every disk.
    All,
    /// The boot disk.
    Boot,
    /// Those whose device name matches.
    Named(Patterns),
}

impl DiskChoice {
    /// Whether a disk is captured.
    pub fn takes(&self, name: &str, is_boot: bool) -> bool {
        match self {
            Self::All => true,
            Self::Boot => is_boot,
            Self::Named(patterns) => patterns.matches(name),
        }
    }
}

/// How restore points age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifecycle {
    /// A kept point older than this is deprecated.
    pub deprecate_after: Option<Elapsed>,
    /// A kept point older than this is obsolete.
    pub obsolete_after: Option<Elapsed>,
    /// How long a point that is let go stays before it is deleted.
    pub grace: Elapsed,
    /// How long nothing changes after a source was found missing.
    pub source_gone_grace: Elapsed,
}

/// What a policy does not do at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Nothing is created.
    pub creates: bool,
    /// Nothing is deprecated or deleted.
    pub deletes: bool,
    /// Until when; `None` means until the pause is taken out.
    pub until: Option<Timestamp>,
    /// Why.
    pub reason: Option<String>,
}

impl Policy {
    /// The pause that holds at `now`.
    pub fn pause_at(&self, now: Timestamp) -> Option<&Pause> {
        let pauses = |pause: &&Pause| pause.creates || pause.deletes;
        let lasts = |pause: &&Pause| pause.until.is_none_or(|until| now < until);
        self.paused.as_ref().filter(pauses).filter(lasts)
    }

    /// Whether restore points are created at `now`.
    pub fn creates_at(&self, now: Timestamp) -> bool {
        !self.pause_at(now).is_some_and(|pause| pause.creates)
    }

    /// Whether anything is deprecated or deleted at `now`.
    pub fn deletes_at(&self, now: Timestamp) -> bool {
        !self.pause_at(now).is_some_and(|pause| pause.deletes)
    }
}
