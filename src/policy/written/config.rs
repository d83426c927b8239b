//! What users write about the whole: engines, defaults, guards, exemptions, prices, and what differs
//! between environments.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    AllowSpec, ApiVersion, BlackoutSpec, CaptureSpec, DrillSpec, EncryptionSpec, GrantSpec,
    LengthText, LifecycleSpec, NamingSpec, NotifySpec, ObjectivesSpec, PolicySpec, RetentionSpec,
    StorageSpec, Texts,
};
use crate::inventory::ImageKind;
use crate::policy::meant::{OnSourceGone, Risk};

/// The kind of a configuration document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConfigKind {
    /// Engines, defaults and guards.
    Config,
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

/// A name for people.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigMetadata {
    /// A name for people.
    pub name: Option<String>,
    /// Warnings that are meant, in whichever policy they are found, each with the reason.
    pub allow: Option<Vec<AllowSpec>>,
}

/// What is different in one environment. It holds where it is named with `--environment`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OverlayDocument {
    /// Always `stillframe/v1`.
    pub api_version: ApiVersion,
    /// Always `Overlay`.
    pub kind: OverlayKind,
    /// Which environment it is for.
    pub metadata: OverlayMetadata,
    /// What is different.
    pub spec: OverlaySpec,
}

/// The kind of an overlay document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OverlayKind {
    /// What is different in one environment.
    Overlay,
}

/// Which environment an overlay is for.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OverlayMetadata {
    /// The name of the environment. There is one overlay for each.
    pub name: String,
}

/// What is different in one environment: mappings are put over those of the files entry by entry,
/// everything else replaces what stands there.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OverlaySpec {
    /// What is different in the configuration. An engine of another kind replaces the one of the
    /// same name.
    pub config: Option<ConfigSpec>,
    /// What is different in policies; later entries go over earlier ones.
    pub policies: Option<Vec<PatchSpec>>,
}

/// What is different in some policies.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatchSpec {
    /// Patterns for the names of the policies.
    pub names: Option<Texts>,
    /// What is different in them.
    pub spec: Option<PolicySpec>,
}

/// What is configured.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["engines"]))]
pub struct ConfigSpec {
    /// Engines by name; each has one entry, which is its kind, with its settings.
    #[schemars(length(min = 1))]
    pub engines: Option<BTreeMap<String, EngineSpec>>,
    /// More files and directories with policies, relative to this file.
    pub include: Option<Texts>,
    /// What policies inherit where they say nothing themselves.
    pub defaults: Option<DefaultsSpec>,
    /// Times at which all policies do nothing, beside those of each policy. Without a zone of
    /// their own they are read in UTC.
    pub blackouts: Option<Vec<BlackoutSpec>>,
    /// Sources that are meant to be without protection.
    pub exemptions: Option<Vec<ExemptionSpec>>,
    /// Policies that have a new name: their restore points belong to the new one.
    pub moved: Option<Vec<MovedSpec>>,
    /// Policies that were taken out of the files, and what becomes of their restore points.
    pub removed: Option<Vec<RemovedSpec>>,
    /// What stored bytes cost.
    pub prices: Option<PricesSpec>,
    /// What a plan may not do unasked.
    pub guards: Option<GuardsSpec>,
    /// How `stillframe watch` works.
    pub watch: Option<WatchSpec>,
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
    /// Who else may use the images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sharing: Option<Vec<GrantSpec>>,
    /// What policies promise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objectives: Option<ObjectivesSpec>,
    /// Restores that prove the images restorable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drill: Option<DrillSpec>,
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

/// How `stillframe watch` works.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WatchSpec {
    /// How often everything is looked at where nothing is due: at least 1m. The default is 1h.
    pub reconcile_every: Option<LengthText>,
    /// How long deletes wait that a change of the policies would cause, and all deletes after a
    /// start. The default is 10m; 0 switches it off.
    pub delete_delay: Option<LengthText>,
    /// How long what is under way may go on when watch is told to end. The default is 5m.
    pub grace: Option<LengthText>,
    /// How long a capture, a copy or a drill may take before it is given up: at least 1m. The
    /// default is 1d.
    pub capture_limit: Option<LengthText>,
    /// How often the files are looked at where the system tells of no changes: at least 1s. The
    /// default is 30s.
    pub poll_every: Option<LengthText>,
    /// What only one watch at a time can hold, while the others stand by: a file, relative to this
    /// one, or a Lease of Kubernetes, as `kubernetes:NAME` or `kubernetes:NAMESPACE/NAME`.
    pub lease: Option<String>,
    /// Who is told of what goes wrong.
    pub notify: Option<NotifySpec>,
}

/// Sources that are meant to be without protection.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["source", "owner", "reason", "until"]))]
pub struct ExemptionSpec {
    /// Patterns for the name or the id of the source.
    pub source: Option<Texts>,
    /// The engine, where it is meant for one only.
    pub engine: Option<String>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// Until this day (its beginning in UTC) or instant. An exemption that has ended is an error.
    pub until: Option<String>,
}

/// A policy that has a new name.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["from", "to"]))]
pub struct MovedSpec {
    /// The name it had. No policy may have it now.
    pub from: Option<String>,
    /// The name it has.
    pub to: Option<String>,
}

/// A policy that was taken out of the files.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["policy", "reason"]))]
pub struct RemovedSpec {
    /// The name it had. No policy may have it now.
    pub policy: Option<String>,
    /// The engine that holds its images. May be left out where there is only one.
    pub engine: Option<String>,
    /// What becomes of its restore points: `keep`, they stay, which is the default; `rules`, those
    /// under `retention` go on; `expire`, all but the newest READY one of each source goes.
    pub images: Option<OnSourceGone>,
    /// What is kept, for `images: rules`.
    pub retention: Option<RetentionSpec>,
    /// How long nothing changes after the first plan with this entry. The default is 14d.
    pub grace: Option<LengthText>,
    /// Why, for the people who read the plan.
    pub reason: Option<String>,
}

/// What stored bytes cost.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["currency", "asOf", "perGibMonth"]))]
pub struct PricesSpec {
    /// The currency, as ISO 4217 has it: `USD`.
    #[schemars(regex(pattern = r"^[A-Z]{3}$"))]
    pub currency: Option<String>,
    /// The day on which these prices held.
    pub as_of: Option<String>,
    /// Prices of a GiB (1,073,741,824 bytes) for a month; the first that fits counts.
    pub per_gib_month: Option<Vec<PriceSpec>>,
}

/// The price of a GiB for a month, where everything that is written holds.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["price"]))]
pub struct PriceSpec {
    /// Patterns for the name of the engine.
    pub engine: Option<Texts>,
    /// Patterns for the storage location.
    pub location: Option<Texts>,
    /// The kind of image.
    pub kind: Option<ImageKind>,
    /// The price: a number with at most six digits behind the point.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub price: Option<f64>,
}
