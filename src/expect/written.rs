//! Test documents as they are written: the types from which their JSON Schema is made.
//!
//! As in policies, every field is optional for the reader, so that one mistake does not hide the
//! others; the schema says which are required.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use crate::inventory::{ImageState, Stage};
use crate::plan::ReasonCode;
use crate::plan::guard::Guard;
use crate::policy::written::{ApiVersion, Texts};

/// The kind of a test document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TestKind {
    /// What policies are expected to do.
    PolicyTest,
}

/// What policies are expected to do: worlds, instants, and what the plan for each must be.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TestDocument {
    /// Always `stillframe/v1`.
    pub api_version: ApiVersion,
    /// Always `PolicyTest`.
    pub kind: TestKind,
    /// What the test is called.
    pub metadata: TestMetadata,
    /// What is tested.
    pub spec: TestSpec,
}

/// What a test is called.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TestMetadata {
    /// Its name, in words.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
}

/// What is tested. `policy`, `source`, `engine` and `sources` hold for every case.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["cases"]))]
pub struct TestSpec {
    /// Files and directories of policies, relative to this file. The default is what
    /// `--policies` names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policies: Option<Texts>,
    /// The environment whose overlay holds. The default is what `--environment` names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// The engine that holds the sources. May be left out where there is only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// The policy that the cases are about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The source that the cases are about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The instances there are in every case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sources: Option<Vec<SourceGiven>>,
    /// The cases.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub cases: Option<Vec<CaseSpec>>,
}

/// An instance.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["name"]))]
pub struct SourceGiven {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its id. The default is its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Where it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Its labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// The names of its disks, the boot disk first. The default is one, `boot`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disks: Option<Texts>,
    /// The engine that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// From this day (its beginning in UTC) or instant on it is no longer there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gone: Option<String>,
}

/// A world, an instant, and what the plan must be.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["name", "now", "expect"]))]
pub struct CaseSpec {
    /// What is said, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The policy that the case is about: only its restore points are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The source that the case is about: only its restore points are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub given: Option<GivenSpec>,
    /// The instant that is planned for, or a day, which is its beginning in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub now: Option<String>,
    /// What the plan must be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect: Option<ExpectSpec>,
}

/// What there is.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GivenSpec {
    /// Instances beside those of `spec.sources`; one of the same name stands in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sources: Option<Vec<SourceGiven>>,
    /// Restore points that a schedule has made, in the order in which it made them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<Vec<HistorySpec>>,
    /// Restore points one by one. They are put beside those of the history.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<Vec<ImageGiven>>,
}

/// How a history comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// As it would have been: a round at each slot and at least one each day, with the planner and
    /// the guards, deprecating and deleting what they let go.
    #[default]
    Planned,
    /// A READY restore point for each slot, and nothing was ever deprecated or deleted.
    Plain,
}

/// Restore points that a schedule has made.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["from"]))]
pub struct HistorySpec {
    /// The policy. The default is the one that the case is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The source. The default is the one that the case is about, or else every source that the
    /// policy selects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// From this day (its beginning in UTC) or instant on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Up to this day or instant, which is not part of it. The default is `now` of the case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// `planned`, which is the default, or `plain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub how: Option<How>,
    /// Slots at which nothing was made: instants, days or patterns of instants in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<Texts>,
    /// Slots at which the attempt failed: instants, days or patterns of instants in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<Texts>,
}

/// A restore point, or several that differ only in their slot.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("required" = ["slot"]))]
pub struct ImageGiven {
    /// The policy that made it. The default is the one that the case is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The source it was made of. The default is the one that the case is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The instant it stands for, or several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<Texts>,
    /// Whether it can be restored. The default is READY.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<ImageState>,
    /// How far its life has come. The default is ACTIVE, or DEPRECATED where it was let go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// A hold on the image: until a day or an instant, or any other text for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
    /// Since when no rule keeps it, as its label says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub let_go: Option<String>,
    /// Since when its source is gone, as its label says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_missing: Option<String>,
    /// What needs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_use_by: Option<Texts>,
    /// Where it is stored. The default is where the policy stores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// Whether it is a copy in another location.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy: Option<bool>,
}

/// What the plan must be. What is not written is not looked at.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub struct ExpectSpec {
    /// Restore points that are created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<PointsSpec>,
    /// Restore points that stay, because a rule or a hold keeps them or they are not READY. Those
    /// that were let go and wait for their grace are not among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<PointsSpec>,
    /// Restore points that are let go by this plan, or deprecated because of their age.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deprecated: Option<PointsSpec>,
    /// Restore points that become obsolete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub obsoleted: Option<PointsSpec>,
    /// Restore points that were let go before and wait for their grace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_grace: Option<PointsSpec>,
    /// Restore points that were let go and are kept again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reactivated: Option<PointsSpec>,
    /// Restore points that are deleted. What a guard refuses is not deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted: Option<PointsSpec>,
    /// Restore points that would be deprecated or deleted, and something is in the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_back: Option<PointsSpec>,
    /// Restore points that are copied to another location.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copied: Option<PointsSpec>,
    /// Restore points that are proven restorable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drilled: Option<PointsSpec>,
    /// How many slots since the newest restore point were missed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed: Option<u32>,
    /// The guards that refuse something, all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Vec<Guard>>,
    /// Whether the plan changes nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nothing: Option<bool>,
    /// The names of all sources that the policy selects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selected: Option<Vec<String>>,
    /// The names of all sources that no policy protects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unprotected: Option<Vec<String>>,
    /// The names of all sources that are meant to be without protection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exempt: Option<Vec<String>>,
    /// The names of all sources without a new READY restore point for too long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stalled: Option<Vec<String>>,
    /// The names of all sources of which no restore point can be made, though one is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked: Option<Vec<String>>,
    /// The first slots of the policy after `now`, as many as are written.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub next: Option<Vec<String>>,
    /// The codes of everything that `validate` finds, each as often as it is found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub findings: Option<Vec<String>>,
}

/// Which restore points: a number, all of their slots, or a mapping that says more.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(transparent)]
pub struct PointsSpec(pub PointsMap);

/// What is expected of a set of restore points. Slots are instants, days in UTC, or patterns of
/// instants in UTC like `2026-*-01T*`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PointsMap {
    /// Only those that are stored there. Without it copies in other locations are not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// How many there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// At least so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_least: Option<u32>,
    /// At most so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_most: Option<u32>,
    /// These slots and no others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots: Option<Vec<String>>,
    /// These slots are among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub has: Option<Vec<String>>,
    /// These slots are not among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lacks: Option<Vec<String>>,
    /// The oldest slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest: Option<String>,
    /// The newest slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest: Option<String>,
    /// Slots, each with a reason that all restore points there must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasons: Option<BTreeMap<String, ReasonCode>>,
    /// Reasons, each with how many restore points have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_reason: Option<BTreeMap<String, u32>>,
}

impl<'de> Deserialize<'de> for PointsSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = match Value::deserialize(deserializer)? {
            Value::Number(number) => json!({"count": number}),
            Value::String(text) => json!({"slots": [text]}),
            Value::Array(items) => json!({"slots": items}),
            other => other,
        };
        serde_json::from_value(value).map(Self).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for PointsSpec {
    fn schema_name() -> Cow<'static, str> {
        "Points".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = PointsMap::json_schema(generator);
        schema.insert("type".to_owned(), json!(["integer", "string", "array", "object"]));
        schema.insert("minimum".to_owned(), json!(0));
        schema.insert("items".to_owned(), json!({"type": "string"}));
        schema.insert("minProperties".to_owned(), json!(1));
        schema
    }
}
