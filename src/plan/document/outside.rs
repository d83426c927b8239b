//! What policies do not look after, instances without protection and images without a policy, and
//! what they cannot have yet.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::name::{Key, PolicyName, SourceId};

/// An instance that no policy protects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Unprotected {
    /// On which engine.
    pub engine: String,
    /// Its id.
    pub id: SourceId,
    /// Its name.
    pub name: String,
    /// The policy that would select it, but excludes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excluded_by: Option<PolicyName>,
    /// By which condition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
}

/// A restore point that is due and not made now: its source was captured too lately, or is for another
/// policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Waiting {
    /// On which engine.
    pub engine: String,
    /// The restore point there should be.
    pub key: Key,
    /// The name of the source.
    pub source_name: String,
    /// When it can be made.
    pub until: Timestamp,
    /// Until when it may be.
    pub deadline: Timestamp,
    /// What it waits for.
    pub message: String,
}

/// An instance that is meant to be without protection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Exempt {
    /// On which engine.
    pub engine: String,
    /// Its id.
    pub id: SourceId,
    /// Its name.
    pub name: String,
    /// Who answers for it.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// Until when.
    pub until: Timestamp,
}

/// Images of a policy that is not in the files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Orphans {
    /// On which engine.
    pub engine: String,
    /// The policy they were made for.
    pub policy: PolicyName,
    /// How many there are.
    pub images: usize,
    /// Their names, at most ten.
    pub names: Vec<String>,
}

/// An image with some of our labels that do not parse back to a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BrokenLabels {
    /// On which engine.
    pub engine: String,
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What is wrong with them.
    pub message: String,
}
