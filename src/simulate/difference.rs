//! Two simulations of one inventory side by side: what a change of the policies does over time.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::track::{FORMAT_VERSION, PolicyTrack, Simulation};
use crate::name::PolicyName;

/// Two simulations and what differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// The version of this document.
    pub format_version: String,
    /// What the first one is called: a revision or a directory.
    pub base: String,
    /// Policies whose figures at the end, totals or days differ.
    pub differences: Vec<PolicyDifference>,
    /// With the policies of the base.
    pub before: Simulation,
    /// With the policies as they are.
    pub after: Simulation,
}

/// A policy in both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyDifference {
    /// The policy.
    pub policy: PolicyName,
    /// Absent where it was not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Figures>,
    /// Absent where it is not there any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Figures>,
}

/// A policy at the end of a simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Figures {
    /// Its sources.
    pub sources: u64,
    /// READY restore points at the end.
    pub ready: u64,
    /// Bytes at the end.
    pub stored_bytes: u64,
    /// Cost at the end in millionths a month; absent without a table of prices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_micros: Option<u64>,
    /// Age of the oldest READY restore point at the end, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_seconds: Option<i64>,
    /// The largest age the newest READY restore point of a source had, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst_newest_seconds: Option<i64>,
    /// Restore points deleted, copies among them.
    pub deleted: u64,
}

impl Figures {
    fn of(policy: &PolicyTrack) -> Self {
        let last = |figures: &[u64]| figures.last().copied();
        Self {
            sources: policy.sources as u64,
            ready: last(&policy.track.ready).unwrap_or(0),
            stored_bytes: last(&policy.track.stored_bytes).unwrap_or(0),
            cost_micros: last(&policy.track.cost_micros),
            oldest_seconds: policy.track.oldest_seconds.last().copied().flatten(),
            worst_newest_seconds: policy.totals.worst_newest_seconds,
            deleted: policy.totals.deleted,
        }
    }
}

/// Holds two simulations against each other.
pub fn compare(base: impl Into<String>, before: Simulation, after: Simulation) -> Comparison {
    let find = |simulation: &Simulation, name: &PolicyName| {
        simulation.policies.iter().find(|policy| policy.policy == *name).cloned()
    };
    let mut names: Vec<&PolicyName> =
        before.policies.iter().chain(&after.policies).map(|policy| &policy.policy).collect();
    names.sort();
    names.dedup();
    let differences = names
        .into_iter()
        .filter_map(|name| {
            let (one, other) = (find(&before, name), find(&after, name));
            (one != other).then(|| PolicyDifference {
                policy: name.clone(),
                before: one.as_ref().map(Figures::of),
                after: other.as_ref().map(Figures::of),
            })
        })
        .collect();
    Comparison {
        format_version: FORMAT_VERSION.to_owned(),
        base: base.into(),
        differences,
        before,
        after,
    }
}
