//! The report as a document. The JSON Schema is `schemas/audit.schema.json`.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::name::{PolicyName, Slot, SourceId};

/// The version of the report document. The first number changes when a reader must change.
pub const AUDIT_VERSION: &str = "1.0";

/// What an auditor asks about a span of time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// The version of this document.
    pub format_version: String,
    /// The first instant of the span.
    pub from: Timestamp,
    /// The instant after the last.
    pub to: Timestamp,
    /// When the engines were looked at.
    pub now: Timestamp,
    /// The digest of the policies in force then.
    pub policies_digest: String,
    /// How it stands with the ledger.
    pub chain: Chain,
    /// Engines that were not seen whole, so that coverage may be better than it says.
    pub not_seen_whole: Vec<String>,
    /// Rounds that were carried out.
    pub rounds: usize,
    /// Restore points that were made.
    pub created: usize,
    /// What protects each source now.
    pub coverage: Vec<Coverage>,
    /// How each source stood with its recovery point objective.
    pub compliance: Vec<Compliance>,
    /// Sources that were meant to be without protection.
    pub exemptions: Vec<Exempted>,
    /// What was deleted.
    pub deletions: Vec<Deletion>,
    /// Restores that were tried.
    pub drills: Vec<DrillRun>,
    /// What guards have refused.
    pub guards: Vec<GuardEvent>,
    /// What went wrong.
    pub failures: Vec<Failure>,
}

/// How it stands with the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// Its lines.
    pub lines: usize,
    /// Whether no line was changed or taken out, as far as lines name the one before them.
    pub whole: bool,
    /// The digest of its last line, to be kept elsewhere.
    pub head: String,
}

/// What a policy does for a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Coverage {
    /// The engine.
    pub engine: String,
    /// The policy.
    pub policy: PolicyName,
    /// The id of the source.
    pub source: SourceId,
    /// The name of the source.
    pub source_name: String,
    /// READY restore points.
    pub ready: usize,
    /// The newest of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<Slot>,
    /// Its age, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_age_seconds: Option<i64>,
    /// The oldest of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<Slot>,
    /// How it stands with the objective now: `none`, `met`, `broken`, …
    pub rpo: String,
}

/// How a source stood with its recovery point objective.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Compliance {
    /// The engine.
    pub engine: String,
    /// The policy.
    pub policy: PolicyName,
    /// The id of the source.
    pub source: SourceId,
    /// The name of the source.
    pub source_name: String,
    /// The objective, in seconds.
    pub objective_seconds: i64,
    /// From when on its restore points are known; absent where none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_from: Option<Timestamp>,
    /// The longest time between two restore points, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_seconds: Option<i64>,
    /// How often it was longer than the objective.
    pub breaches: usize,
    /// For how long the objective was broken within the span, in seconds.
    pub broken_seconds: i64,
}

/// A source that was meant to be without protection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Exempted {
    /// Patterns for its name or id.
    pub source: String,
    /// The engine, where it is meant for one only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// Who answers for it.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// When it ends.
    pub until: Timestamp,
    /// Whether it has ended by the end of the span.
    pub ended: bool,
}

/// An image that was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deletion {
    /// When.
    pub at: Timestamp,
    /// On which engine.
    pub engine: String,
    /// Its policy.
    pub policy: String,
    /// The name of its source.
    pub source_name: String,
    /// Its name.
    pub image: String,
    /// Its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The instant it stood for.
    pub slot: String,
    /// Bytes it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<u64>,
    /// Why.
    pub reasons: Vec<String>,
    /// What it cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk: Option<String>,
    /// The plan.
    pub plan: String,
    /// Who approved deletes of its class in that plan.
    pub approved_by: Vec<String>,
}

/// A restore that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DrillRun {
    /// When it ended.
    pub at: Timestamp,
    /// On which engine.
    pub engine: String,
    /// The image.
    pub image: String,
    /// How it was tried.
    pub check: String,
    /// What came of it.
    pub result: String,
    /// What is said about that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What a guard has refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GuardEvent {
    /// When.
    pub at: Timestamp,
    /// The plan.
    pub plan: String,
    /// The guard.
    pub guard: String,
    /// On which engine.
    pub engine: String,
    /// Why.
    pub message: String,
    /// How many images.
    pub images: usize,
    /// Whether a person said that it was meant.
    pub overridden: bool,
}

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// When.
    pub at: Timestamp,
    /// On which engine.
    pub engine: String,
    /// What was tried.
    pub action: String,
    /// The image.
    pub image: String,
    /// Why it went wrong.
    pub message: String,
}
