//! What users write, as types: the one truth from which the JSON Schemas are made.
//!
//! Every field is optional for the reader, so that one mistake does not hide the others; the
//! schema says which are required. Lengths of time, patterns and names are text here; `meant` is
//! where they get their meaning.

mod config;
mod notify;
mod text;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use config::{
    ConfigDocument, ConfigKind, ConfigMetadata, ConfigSpec, DefaultScheduleSpec, DefaultsSpec,
    EngineSpec, ExemptionSpec, GuardsSpec, MovedSpec, OverlayDocument, OverlayKind,
    OverlayMetadata, OverlaySpec, PatchSpec, PriceSpec, PricesSpec, RemovedSpec, WatchSpec,
};
pub use notify::{
    EmailSpec, ExecSpec, HeaderSpec, HookSpec, MatrixSpec, NotifySpec, PingSpec, ReceiverSpec,
    WebhookSpec,
};
use text::LENGTH_OR_NEVER;
pub use text::{LengthText, Texts};

use super::meant::{OnSourceGone, WhenStalled};
use crate::inventory::{Consistency, DrillCheck, ImageKind, Tier, Via};

/// The version of the policy language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ApiVersion {
    /// The first version.
    #[serde(rename = "stillframe/v1")]
    V1,
}

/// The kind of a policy document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PolicyKind {
    /// Which restore points should exist.
    BackupPolicy,
}

/// Which restore points should exist of which instances, and how long.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyDocument {
    /// Always `stillframe/v1`.
    pub api_version: ApiVersion,
    /// Always `BackupPolicy`.
    pub kind: PolicyKind,
    /// Who the policy is.
    pub metadata: Metadata,
    /// What the policy asks for.
    pub spec: PolicySpec,
}

/// Who a policy is.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// The name of the policy. It is part of the identity of every restore point: renaming a
    /// policy begins a new series. 1 to 63 of a-z, 0-9 and `-`, beginning with a letter.
    #[schemars(regex(pattern = r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"))]
    pub name: String,
    /// The team or person to ask.
    pub owner: Option<String>,
    /// What the policy is for.
    pub description: Option<String>,
    /// Warnings that are meant, each with the reason.
    pub allow: Option<Vec<AllowSpec>>,
}

/// A warning that is meant.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AllowSpec {
    /// The code of the warning, like `fires-too-often`.
    pub code: String,
    /// Why it is meant, for the people who read the policy.
    pub reason: String,
}

/// What a policy asks for.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["source", "schedule"]))]
pub struct PolicySpec {
    /// The engine that holds the instances, by its name in the configuration. May be left out
    /// where there is only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// Which instances are sources.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceSpec>,
    /// What is captured of a source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capture: Option<CaptureSpec>,
    /// When restore points are due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleSpec>,
    /// What is kept. Rules add up; without any, everything is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<RetentionSpec>,
    /// How a restore point ages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<LifecycleSpec>,
    /// Where images are stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageSpec>,
    /// What images are encrypted under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<EncryptionSpec>,
    /// Labels of the images, beside those of stillframe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// What images are called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub naming: Option<NamingSpec>,
    /// Who else may use the images: these grants and no others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sharing: Option<Vec<GrantSpec>>,
    /// What the policy promises, for reports and alerts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objectives: Option<ObjectivesSpec>,
    /// Restores that prove the images restorable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drill: Option<DrillSpec>,
    /// Times at which the policy does nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blackouts: Option<Vec<BlackoutSpec>>,
    /// Restore points that stay whatever the rules say. They take no place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<Vec<HoldSpec>>,
    /// What the policy does not do at present.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<PausedSpec>,
}

/// Which instances are sources.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["match"]))]
pub struct SourceSpec {
    /// An instance is a source if any of these matches.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub matches: Option<Vec<ConditionSpec>>,
    /// … unless any of these matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude: Option<Vec<ConditionSpec>>,
    /// Patterns for the names of other policies that are meant to protect the same sources. It is
    /// enough that one of the two says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlaps_with: Option<Texts>,
}

/// A condition on instances: everything that is written must hold.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConditionSpec {
    /// Patterns for the name, any of which matches: `web-*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub names: Option<Texts>,
    /// Labels that must all be there, each with a pattern or several, any of which matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, Texts>>,
    /// Patterns for the zone, any of which matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zones: Option<Texts>,
}

/// What is captured of a source.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CaptureSpec {
    /// The kind of image. The default is the engine's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<ImageKind>,
    /// What a disk image is made from: `disk`, or `snapshot`, a snapshot of the disk that goes once
    /// the image is READY. The default is `disk`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<Via>,
    /// `all`, `boot`, or patterns for device names. The default is `all`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disks: Option<Texts>,
    /// `crash`, as after a power failure, or `application`, after the guest has flushed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistency: Option<Consistency>,
    /// The image family that the images belong to; for disk images only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
}

/// When restore points are due.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["cron"]))]
pub struct ScheduleSpec {
    /// Five crontab fields, read as Vixie cron reads them, or `@daily` and its kin; or a list of
    /// such expressions. Where two of them meet, it is one slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cron: Option<Texts>,
    /// The IANA zone they are read in. The default is UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// How long after its slot a restore point may still be created. The default is until the
    /// next slot, at most 24h.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<LengthText>,
    /// Starts are spread over this length, the same for a source on every run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<LengthText>,
}

/// What is kept. A restore point stays if any rule keeps it.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetentionSpec {
    /// Everything not older than so many hours.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub hours: Option<u32>,
    /// Everything not older than so many days of 24 hours.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub days: Option<u32>,
    /// Everything not older than so many weeks.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub weeks: Option<u32>,
    /// The newest so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub last: Option<u32>,
    /// The newest of each of the newest so many hours that hold one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub hourly: Option<u32>,
    /// The newest of each of the newest so many days that hold one, in the policy's zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub daily: Option<u32>,
    /// The newest of each of the newest so many ISO weeks that hold one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub weekly: Option<u32>,
    /// The newest of each of the newest so many months that hold one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub monthly: Option<u32>,
    /// The newest of each of the newest so many years that hold one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000))]
    pub yearly: Option<u32>,
    /// The newest so many READY restore points are kept whatever the rules say. The default is 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000))]
    pub at_least: Option<u32>,
    /// Without a new READY restore point for longer than this, nothing is deleted. The default is
    /// three periods of the schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stalled_after: Option<LengthText>,
    /// What happens then: `keep`, nothing is deleted until a new one is READY, which is the
    /// default; or `expire`, the rules go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when_stalled: Option<WhenStalled>,
}

/// How a restore point ages.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LifecycleSpec {
    /// A restore point that is kept and older than this is marked deprecated. The newest never is.
    /// `never` switches off what is inherited.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = LENGTH_OR_NEVER))]
    pub deprecate_after: Option<LengthText>,
    /// A restore point that is kept and older than this is marked obsolete. The newest never is.
    /// `never` switches off what is inherited.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = LENGTH_OR_NEVER))]
    pub obsolete_after: Option<LengthText>,
    /// How long a restore point that no rule keeps stays deprecated before it is deleted. The
    /// default is 24h; 0 deletes it with the next plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace: Option<LengthText>,
    /// How long nothing changes after a source was first found missing or no longer selected.
    /// The default is 14d; after that the rules go on, with `atLeast` as the floor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_gone_grace: Option<LengthText>,
    /// What happens then: `rules`, they go on with `atLeast` as the floor, which is the default;
    /// `keep`, nothing is deleted; or `expire`, all but the newest READY restore point goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_source_gone: Option<OnSourceGone>,
}

/// Where images are stored.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StorageSpec {
    /// The storage location. The default is the engine's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// How cheap images are to keep: `archive` is cheaper, and slower and dearer to restore, where the
    /// engine has it for the kind of image. The default is the engine's own way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    /// More storage locations, each of which gets a copy of every restore point that is kept. An
    /// original is deleted only once each holds a READY copy of it or of a newer one. An empty list
    /// switches off what is inherited.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minItems" = 0))]
    pub copies: Option<Texts>,
}

/// What images are encrypted under.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EncryptionSpec {
    /// The KMS key that wraps the data key. The default is the engine's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms_key: Option<String>,
}

/// What images are called: handlebars templates.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamingSpec {
    /// The beginning of the image name; time and a hash follow. It may use `policy.name`,
    /// `source.id` and `slot`, which never change. The default is `{{policy.name}}-{{source.id}}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The description. It may use `policy`, `source`, `slot` and `engine`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// What a policy does not do at present.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PausedSpec {
    /// No restore points are created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creates: Option<bool>,
    /// Nothing is deprecated or deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletes: Option<bool>,
    /// Until this day (its beginning in the policy's zone) or instant; without it, until the pause
    /// is taken out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Why, for the people who read the plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Who may use the images.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["role", "members"]))]
pub struct GrantSpec {
    /// The role, in the engine's own word: `roles/compute.imageUser`, `compute.images.user`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Who has it, in the engine's own words: `serviceAccount:…`, `group:…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub members: Option<Texts>,
}

/// What a policy promises.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectivesSpec {
    /// The recovery point objective: the newest READY restore point of a source is never older.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rpo: Option<LengthText>,
}

/// Restores that prove the images restorable.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["cron"]))]
pub struct DrillSpec {
    /// When the newest READY restore point of each source is tried, in the zone of the schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cron: Option<Texts>,
    /// How: `verify`, all stored data is read back and checked, which is the default; `restore`,
    /// the disks are written to a scratch place and removed; `boot`, a machine starts from them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<DrillCheck>,
}

/// Times at which a policy does nothing: a window that returns (`cron` and `duration`), or a time
/// from one day to another (`from` and `until`).
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["reason"]))]
pub struct BlackoutSpec {
    /// When a window begins: five crontab fields, or a list of such expressions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cron: Option<Texts>,
    /// How long a window lasts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<LengthText>,
    /// From this day (its beginning) or instant on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Up to this day (its beginning) or instant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// The IANA zone of all this. The default is the zone of the schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// Whether restore points are not created then. The default is true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creates: Option<bool>,
    /// Whether nothing is deprecated or deleted then. The default is false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletes: Option<bool>,
    /// Why, for the people who read the plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Restore points that stay whatever the rules say: those for which everything that is written
/// holds.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["reason"]))]
pub struct HoldSpec {
    /// Patterns for the name or the id of the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sources: Option<Texts>,
    /// Patterns for the name or the id of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<Texts>,
    /// Slots from this day (its beginning in the zone of the schedule) or instant on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Slots before this day or instant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Until when they are held; without it, until the entry is taken out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Why, for the people who read the plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
