//! What the guards are called, and what each refuses.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the guards are called.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Guard {
    /// The last READY point of a source, one of the points that are always kept, or the last of a disk.
    Floor,
    /// An image that is not ours, or not what the plan says it is.
    Ownership,
    /// The inventory has gaps.
    InventoryGap,
    /// The engine holds far fewer images than in the last round.
    Shrunken,
    /// An instance, a template or a family needs the image.
    InUse,
    /// A hold keeps the image.
    Held,
    /// Deleted without having been deprecated for the grace.
    DeprecateFirst,
    /// Too large a share of a series.
    SeriesShare,
    /// Too large a share of an engine.
    EngineShare,
    /// Too many images of an engine.
    EngineCount,
    /// A class of deletes that the configuration refuses.
    RiskClass,
    /// The plan is too old, or made from other policies.
    Stale,
    /// The policies have changed, and not so long ago.
    DeleteDelay,
    /// The plan breaks a rule of the independent check: a defect of stillframe.
    Check,
}

impl Guard {
    /// Every guard there is.
    pub const ALL: [Self; 14] = [
        Self::Floor,
        Self::Ownership,
        Self::InventoryGap,
        Self::Shrunken,
        Self::InUse,
        Self::Held,
        Self::DeprecateFirst,
        Self::SeriesShare,
        Self::EngineShare,
        Self::EngineCount,
        Self::RiskClass,
        Self::Stale,
        Self::DeleteDelay,
        Self::Check,
    ];

    /// What it refuses, and what to do.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Floor => {
                "refuses to delete one of the newest READY restore points of a source, as many as \
                 `atLeast` says, and at least one, and what is PARTIAL where nothing newer holds all of its \
                 disks. It cannot be overridden."
            }
            Self::Ownership => {
                "refuses to delete an image that does not carry exactly the key the plan names, or \
                 that has changed since the plan was made. It cannot be overridden."
            }
            Self::InventoryGap => {
                "refuses to delete anything of an engine that was not seen whole. It cannot be \
                 overridden: see to what could not be read."
            }
            Self::Shrunken => {
                "refuses to delete anything of an engine that holds over a third fewer images than \
                 in the last round: more likely something is not mounted than gone."
            }
            Self::InUse => {
                "refuses to delete an image that an instance, a template or a family needs. It \
                 cannot be overridden."
            }
            Self::Held => "refuses to delete an image that is held. It cannot be overridden.",
            Self::DeprecateFirst => {
                "refuses to delete a READY image that was not deprecated for the whole grace of its \
                 policy. It cannot be overridden."
            }
            Self::SeriesShare => {
                "refuses to delete more than a share of the restore points of one source and policy \
                 at once (`guards.seriesPercent`); series of under ten points are held by `atLeast`."
            }
            Self::EngineShare => {
                "refuses to delete more than a share of the images of an engine at once \
                 (`guards.enginePercent`)."
            }
            Self::EngineCount => {
                "refuses to delete more images of an engine at once than `guards.engineCount`."
            }
            Self::RiskClass => {
                "refuses deletes of the classes that `guards.refuse` lists, like the last point of \
                 a source."
            }
            Self::Check => {
                "refuses everything that takes away on an engine of which the plan breaks a rule that \
                 it is checked by, apart from the planner: that is a defect of stillframe. Creates, \
                 copies, drills and what brings back go on. It cannot be overridden: please report it \
                 with what `plan --json` and `inventory --json` print."
            }
            Self::DeleteDelay => {
                "holds deletes of `stillframe watch` that a change of the policies would cause, until \
                 `watch.deleteDelay` has passed since; after a start all deletes. It cannot be \
                 overridden: it ends by itself."
            }
            Self::Stale => {
                "refuses a plan that is too old or was made from other policies. It cannot be \
                 overridden: plan again."
            }
        }
    }

    /// The word used in flags and documents.
    pub fn word(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Ownership => "ownership",
            Self::InventoryGap => "inventory-gap",
            Self::Shrunken => "shrunken",
            Self::InUse => "in-use",
            Self::Held => "held",
            Self::DeprecateFirst => "deprecate-first",
            Self::SeriesShare => "series-share",
            Self::EngineShare => "engine-share",
            Self::EngineCount => "engine-count",
            Self::RiskClass => "risk-class",
            Self::Stale => "stale",
            Self::DeleteDelay => "delete-delay",
            Self::Check => "check",
        }
    }

    /// Whether it counts how many deletes there are, and says nothing of any one of them.
    pub fn is_of_numbers(self) -> bool {
        matches!(self, Self::SeriesShare | Self::EngineShare | Self::EngineCount)
    }

    /// What to do where nobody is asked, and what is refused is meant; empty where there is nothing.
    pub fn way_out(self) -> &'static str {
        if self.can_be_overridden() {
            "; if that is meant, `stillframe plan` names the `--override` with which `stillframe apply` \
             lets it pass once"
        } else {
            ""
        }
    }

    /// Whether a person may say that it is meant. What would break a law of the product may not
    /// be overridden: the policy has to be changed.
    pub fn can_be_overridden(self) -> bool {
        matches!(
            self,
            Self::Shrunken
                | Self::SeriesShare
                | Self::EngineShare
                | Self::EngineCount
                | Self::RiskClass
        )
    }
}
