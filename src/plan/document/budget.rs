//! What a plan costs and how much of the quotas it takes, as the document has it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cost::Money;
use crate::inventory::{ImageKind, QuotaUnit};

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
    /// What the limit counts: images, where nothing is said. All numbers here are of it.
    #[serde(default, skip_serializing_if = "QuotaUnit::is_images")]
    pub unit: QuotaUnit,
    /// The most there may be.
    pub limit: u64,
    /// What there is, whoever made it.
    pub now: u64,
    /// What there is once the plan is carried out.
    pub after: u64,
    /// The most there is meanwhile: what is made is there before anything goes for it.
    #[serde(default)]
    pub peak: u64,
    /// What there is beside that for a while, as steps on the way to images.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub on_the_way: u64,
    /// What there is in the long run, if nothing changes.
    pub long_run: u64,
    /// The most there is then for a while, when captures that fall due together are made.
    #[serde(default)]
    pub long_run_peak: u64,
    /// Whether some policies never let go of anything, so that the limit will be reached.
    pub is_endless: bool,
    /// Images and series that are in no number of bytes, since nothing is known of their size.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub uncounted: u64,
}

impl QuotaUse {
    /// Whether something will be refused: while the plan is carried out, after it or in the long run.
    pub fn is_over(&self) -> bool {
        // Of what is there already nothing is refused.
        let peak = if self.peak > self.now { self.peak } else { 0 };
        let peak = if self.on_the_way > 0 { peak.max(self.now) } else { peak };
        let most = peak.max(self.after).max(self.long_run).max(self.long_run_peak);
        self.is_endless || most.saturating_add(self.on_the_way) > self.limit
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
