//! What policies mean: checked, typed, ready to plan with.

mod config;
mod notify;
mod time;

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use config::{Config, EngineConfig, Exemption, Guards, KubernetesLease, LeasePlace, Watch};
pub use notify::{
    BodyFormat, Email, Exec, Header, Hook, MailTls, Matrix, Notify, Occasion, Ping, Receiver,
    Secret, Way, Webhook, check_url, is_loopback,
};
pub use time::{Blackout, Pause, Window};
pub(in crate::policy) use time::{blacked_out_until, free_from};

use super::finding::{Code, Finding, Place};
use super::naming::Naming;
use super::select::{Patterns, Selection};
use crate::elapsed::Elapsed;
use crate::inventory::{
    Capabilities, Consistency, Disk, DrillCheck, Grant, ImageKind, Instance, Tier, Via,
};
use crate::name::PolicyName;
use crate::retention::Retention;
use crate::schedule::{Crontab, Schedule};

/// All that was written, checked.
#[derive(Debug, Clone)]
pub struct Policies {
    /// Engines, guards and the ledger.
    pub config: Config,
    /// The policies, in the order of their names.
    pub policies: Vec<Policy>,
    /// Policies that were taken out of the files and whose restore points are still looked after,
    /// in the order of their names. They select nothing.
    pub removed: Vec<Policy>,
    /// Names that policies had, each with the one it has now.
    pub moved: BTreeMap<PolicyName, PolicyName>,
    /// Where it is written that each of them had its name.
    pub moved_places: BTreeMap<PolicyName, Place>,
    /// A digest over their meaning: comments and formatting do not change it.
    pub digest: String,
    /// The configuration as it is written, with what is different in the environment.
    pub written_config: serde_json::Value,
}

impl Policies {
    /// The policy of a name.
    pub fn get(&self, name: &PolicyName) -> Option<&Policy> {
        find(&self.policies, name)
    }

    /// The policy that the restore points of a name belong to: the one of that name, the one that
    /// had it, or the removed one.
    pub fn keeper(&self, name: &PolicyName) -> Option<&Policy> {
        self.get(name)
            .or_else(|| self.get(self.moved.get(name)?))
            .or_else(|| find(&self.removed, name))
    }

    /// The exemptions that have ended, each an error.
    pub fn expired(&self, now: Timestamp) -> Vec<Finding> {
        let ended = self.config.exemptions.iter().filter(|exemption| exemption.has_ended(now));
        ended
            .map(|exemption| {
                let message = format!(
                    "the exemption of `{}` has ended; {} answers for it",
                    exemption.source, exemption.owner
                );
                Finding::new(Code::ExpiredExemption, exemption.place.clone(), message).hint(
                    "protect the source, or say anew until when it is meant to be without protection",
                )
            })
            .collect()
    }

    /// The part that is about one engine: what is planned for it by this part is what is planned for
    /// it by the whole.
    #[must_use]
    pub fn of_engine(&self, engine: &str) -> Self {
        let own = |policies: &[Policy]| -> Vec<Policy> {
            policies.iter().filter(|policy| policy.engine == engine).cloned().collect()
        };
        let mut config = self.config.clone();
        config.engines.retain(|name, _| name == engine);
        Self {
            config,
            policies: own(&self.policies),
            removed: own(&self.removed),
            moved: self.moved.clone(),
            moved_places: self.moved_places.clone(),
            digest: self.digest.clone(),
            written_config: self.written_config.clone(),
        }
    }

    /// Whether what stands beside the meaning is the same as in others: what is called how, who answers
    /// for it, which warnings are meant, and the configuration as it is written. Where it stands in
    /// the files does not count.
    pub fn reads_like(&self, other: &Self) -> bool {
        let mut pairs = self.policies.iter().zip(&other.policies);
        self.config.name == other.config.name
            && same_allowed(&self.config.allowed, &other.config.allowed)
            && self.written_config == other.written_config
            && self.policies.len() == other.policies.len()
            && pairs.all(|(one, other)| {
                one.owner == other.owner
                    && one.description == other.description
                    && same_allowed(&one.allowed, &other.allowed)
            })
    }

    /// All policies that have restore points, the removed ones last.
    pub fn all(&self) -> impl Iterator<Item = &Policy> {
        self.policies.iter().chain(&self.removed)
    }
}

/// Whether the same warnings are meant, wherever that is written.
fn same_allowed(one: &[Allowed], other: &[Allowed]) -> bool {
    let said = |allowed: &Allowed| (allowed.code, allowed.reason.clone());
    one.iter().map(said).eq(other.iter().map(said))
}

/// The policy of a name among policies in the order of their names.
fn find<'a>(policies: &'a [Policy], name: &PolicyName) -> Option<&'a Policy> {
    let index = policies.binary_search_by(|policy| policy.name.cmp(name)).ok()?;
    policies.get(index)
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
    /// What happens then.
    pub when_stalled: WhenStalled,
    /// How restore points age.
    pub lifecycle: Lifecycle,
    /// The storage location; empty means the engine's own.
    pub location: String,
    /// How cheap images are to keep; `None` means the engine's own way.
    pub tier: Option<Tier>,
    /// More storage locations, each of which gets a copy.
    pub copies: Vec<String>,
    /// The encryption key; `None` means the engine's own.
    pub kms_key: Option<String>,
    /// Labels of the images.
    pub labels: BTreeMap<String, String>,
    /// What images are called.
    pub naming: Naming,
    /// Who else may use the images; `None` means that nobody has said.
    pub sharing: Option<Vec<Grant>>,
    /// The newest READY restore point of a source is never older.
    pub rpo: Option<Elapsed>,
    /// Restores that prove the images restorable.
    pub drill: Option<Drill>,
    /// Times at which it does nothing, its own and those of the configuration.
    pub blackouts: Vec<Blackout>,
    /// Restore points that stay whatever the rules say.
    pub holds: Vec<Hold>,
    /// What it does not do at present.
    pub paused: Option<Pause>,
    /// Patterns for the policies that are meant to protect the same sources.
    pub overlaps_with: Option<Patterns>,
    /// Warnings that are meant.
    pub allowed: Vec<Allowed>,
    /// Why it was removed; `None` for a policy that is in the files.
    pub removed: Option<String>,
    /// Where it is written.
    pub place: Place,
    /// Each value that holds, with where it comes from, in the order of the language; empty unless
    /// the policies were read with their origins.
    pub effective: Vec<Effective>,
    /// A digest over the values that hold; empty for a policy that was removed.
    pub digest: String,
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
    /// The overlay of the environment.
    Overlay(Place),
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
    /// What a disk image is made from.
    pub via: Via,
    /// Which disks.
    pub disks: DiskChoice,
    /// In which state.
    pub consistency: Consistency,
    /// The image family.
    pub family: Option<String>,
}

impl Capture {
    /// How many images of an engine a restore point of an instance is made of.
    pub fn members(&self, instance: &Instance, capabilities: &Capabilities) -> u64 {
        if !capabilities.per_disk_kinds.contains(&self.kind) {
            return 1;
        }
        let takes = |disk: &&Disk| self.disks.takes(&disk.name, disk.boot);
        instance.disks.iter().filter(takes).count().max(1) as u64
    }
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
    /// Whether a disk is captured. What was not seen may have any name.
    pub fn takes(&self, name: &str, is_boot: bool) -> bool {
        match self {
            Self::All => true,
            Self::Boot => is_boot,
            Self::Named(patterns) => name == Disk::UNSEEN || patterns.matches(name),
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
    /// What happens then.
    pub on_source_gone: OnSourceGone,
}

/// What becomes of the restore points of a source that is gone, or of a policy that was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnSourceGone {
    /// The rules go on, with `atLeast` as the floor.
    #[default]
    Rules,
    /// They stay.
    Keep,
    /// All but the newest READY one go.
    Expire,
}

/// What becomes of the restore points of a series that is stalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WhenStalled {
    /// Nothing is deleted until a new one is READY.
    #[default]
    Keep,
    /// The rules go on.
    Expire,
}

/// Restores that prove images restorable.
#[derive(Debug, Clone)]
pub struct Drill {
    /// When. A drill never fires by itself: the next round after a firing carries it out.
    pub crontabs: Vec<Crontab>,
    /// How.
    pub check: DrillCheck,
}

/// Restore points that stay whatever the rules say: those for which everything that is there holds.
#[derive(Debug, Clone)]
pub struct Hold {
    /// Patterns for the name or the id of the source.
    pub sources: Option<Patterns>,
    /// Patterns for the name or the id of the image.
    pub images: Option<Patterns>,
    /// Slots from this instant on.
    pub from: Option<Timestamp>,
    /// Slots before this instant.
    pub before: Option<Timestamp>,
    /// Until when they are held; `None` means until the entry is taken out.
    pub until: Option<Timestamp>,
    /// Why.
    pub reason: String,
    /// Where it is written.
    pub place: Place,
}

/// A warning that is meant.
#[derive(Debug, Clone)]
pub struct Allowed {
    /// Its code.
    pub code: Code,
    /// Why.
    pub reason: String,
    /// Where that is written.
    pub place: Place,
}
