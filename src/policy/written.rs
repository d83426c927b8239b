//! What users write, as types: the one truth from which the JSON Schemas are made.
//!
//! Every field is optional for the reader, so that one mistake does not hide the others; the
//! schema says which are required. Lengths of time, patterns and names are text here; `meant` is
//! where they get their meaning.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

use super::meant::Risk;
use crate::elapsed;
use crate::inventory::{Consistency, ImageKind};

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

/// The kind of a configuration document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConfigKind {
    /// Engines, defaults and guards.
    Config,
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

/// Engines, defaults that policies inherit, and guards.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigDocument {
    /// Always `stillframe/v1`.
    pub api_version: ApiVersion,
    /// Always `Config`.
    pub kind: ConfigKind,
    /// Optional: a name for people.
    #[serde(default)]
    pub metadata: Option<ConfigMetadata>,
    /// What is configured.
    pub spec: ConfigSpec,
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
}

/// A name for people.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigMetadata {
    /// A name for people.
    pub name: Option<String>,
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
    /// `all`, `boot`, or patterns for device names. The default is `all`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disks: Option<Texts>,
    /// `crash`, as after a power failure, or `application`, after the guest has flushed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistency: Option<Consistency>,
}

/// When restore points are due.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["cron"]))]
pub struct ScheduleSpec {
    /// Five crontab fields, read as Vixie cron reads them, or `@daily` and its kin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
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
}

/// How a restore point ages.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LifecycleSpec {
    /// A restore point that is kept and older than this is marked deprecated. The newest never is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deprecate_after: Option<LengthText>,
    /// A restore point that is kept and older than this is marked obsolete. The newest never is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub obsolete_after: Option<LengthText>,
    /// How long a restore point that no rule keeps stays deprecated before it is deleted. The
    /// default is 24h; 0 deletes it with the next plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace: Option<LengthText>,
    /// How long nothing changes after a source was first found missing or no longer selected.
    /// The default is 14d; after that the rules go on, with `atLeast` as the floor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_gone_grace: Option<LengthText>,
}

/// Where images are stored.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StorageSpec {
    /// The storage location. The default is the engine's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
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

/// What is configured.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["engines"]))]
pub struct ConfigSpec {
    /// Engines by name; each has one entry, which is its kind, with its settings.
    #[schemars(length(min = 1))]
    pub engines: Option<BTreeMap<String, EngineSpec>>,
    /// What policies inherit where they say nothing themselves.
    pub defaults: Option<DefaultsSpec>,
    /// What a plan may not do unasked.
    pub guards: Option<GuardsSpec>,
    /// The file to which every action is appended as a line of JSON, relative to this file. The
    /// default is `../.stillframe/ledger.ndjson`.
    pub ledger: Option<String>,
}

/// The settings of an engine, under its kind. The registry of engines fills in the schema.
pub type EngineSpec = BTreeMap<String, serde_json::Value>;

/// What policies inherit where they say nothing themselves. A policy that writes `retention`
/// replaces the inherited one as a whole; everything else is inherited value by value.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DefaultsSpec {
    /// The engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// What is captured of a source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capture: Option<CaptureSpec>,
    /// When restore points are due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<DefaultScheduleSpec>,
    /// What is kept.
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
    /// Labels of the images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// What images are called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub naming: Option<NamingSpec>,
}

/// What can be inherited of a schedule; the expression itself is each policy's own.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DefaultScheduleSpec {
    /// The IANA zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// How long after its slot a restore point may still be created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<LengthText>,
    /// Starts are spread over this length.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<LengthText>,
}

/// What a plan may not do unasked.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GuardsSpec {
    /// The largest share of a series that one plan may delete, in percent. The default is 30.
    /// Series of under ten restore points are held by `atLeast` alone.
    #[schemars(range(min = 0, max = 100))]
    pub series_percent: Option<u32>,
    /// The largest share of an engine's managed images that one plan may delete, in percent. The
    /// default is 30.
    #[schemars(range(min = 0, max = 100))]
    pub engine_percent: Option<u32>,
    /// The most images of an engine that one plan may delete. The default is 100.
    pub engine_count: Option<u32>,
    /// Deletes of these classes are refused. The default is `[last-point]`.
    pub refuse: Option<Vec<Risk>>,
}

/// One text or several.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Texts(pub Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let texts = match value {
            serde_json::Value::Array(items) => items,
            one => vec![one],
        };
        let text = |value: serde_json::Value| match value {
            serde_json::Value::String(text) => Ok(text),
            _ => Err(serde::de::Error::custom("not a text or a list of texts")),
        };
        texts.into_iter().map(text).collect::<Result<_, _>>().map(Self)
    }
}

impl JsonSchema for Texts {
    fn schema_name() -> Cow<'static, str> {
        "Texts".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "array"], "items": {"type": "string"}, "minItems": 1})
    }
}

/// A length of time as written: text with units, or the number 0.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct LengthText(pub String);

impl<'de> Deserialize<'de> for LengthText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Ok(Self(text)),
            serde_json::Value::Number(number) => Ok(Self(number.to_string())),
            _ => Err(serde::de::Error::custom("not a length of time")),
        }
    }
}

impl JsonSchema for LengthText {
    fn schema_name() -> Cow<'static, str> {
        "Length".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "pattern": elapsed::PATTERN,
            "maximum": 0,
            "minimum": 0,
            "examples": ["24h", "7d", "1d12h"],
        })
    }
}
