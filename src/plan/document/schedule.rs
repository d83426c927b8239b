//! When a policy runs.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::name::{PolicyName, Slot};

/// When a policy runs next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicySchedule {
    /// The policy.
    pub policy: PolicyName,
    /// Its engine.
    pub engine: String,
    /// Its expression.
    pub cron: String,
    /// Its zone.
    pub time_zone: String,
    /// Its next slots.
    pub next: Vec<Slot>,
    /// How many sources it has.
    pub sources: usize,
    /// A clock change in its zone within the next seven days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_change: Option<Timestamp>,
    /// What it does not do at present, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
}
