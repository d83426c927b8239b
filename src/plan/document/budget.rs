//! What a plan costs and how much of the quotas it takes, as the document has it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cost::Money;
use crate::inventory::ImageKind;

/// What a plan costs and how much of the quotas it takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// What the images of stillframe cost, where prices are written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub costs: Option<Costs>,
    /// How much of each limit on images is taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quotas: Vec<QuotaUse>,
}

/// What images cost a month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Costs {
    /// The day of the prices.
    #[schemars(with = "String")]
    pub as_of: jiff::civil::Date,
    /// The images there are.
    pub now: Money,
    /// Those there are once the plan is carried out.
    pub after: Money,
    /// Those there are in the long run, if nothing changes.
    pub long_run: Money,
    /// What is not counted, and what else to know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// How much of a limit on images is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuotaUse {
    /// The engine.
    pub engine: String,
    /// The project that the limit is of, where it is not of all of the engine.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub project: String,
    /// The kind of image.
    pub kind: ImageKind,
    /// The most images of that kind.
    pub limit: u64,
    /// Images there are, whoever made them.
    pub now: u64,
    /// Images there are once the plan is carried out.
    pub after: u64,
    /// Images there are beside those for a while, as steps on the way to others.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub on_the_way: u64,
    /// Images there are in the long run, if nothing changes.
    pub long_run: u64,
    /// Whether some policies never let go of anything, so that the limit will be reached.
    pub is_endless: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
