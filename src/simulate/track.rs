//! What a simulation found, as a document: `simulate --json` writes it.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::chance::Share;
use crate::cost::Money;
use crate::inventory::{ImageKind, QuotaUnit};
use crate::name::{PolicyName, Slot, SourceId};
use crate::plan::guard::Guard;

/// The version of the document. The first number changes when a reader must change.
pub const FORMAT_VERSION: &str = "1.0";

/// What policies did over some days, from what an inventory held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Simulation {
    /// The version of this document.
    pub format_version: String,
    /// The digest of the policies.
    pub policies_digest: String,
    /// When it begins.
    pub start: Timestamp,
    /// For how many days.
    pub days: u32,
    /// The seed of its chance.
    pub seed: u64,
    /// The share of captures that fail, in millionths.
    pub fail_rate: Share,
    /// The share by which what a capture stores grows every thirty days, in millionths.
    pub growth: Share,
    /// What was taken for granted, for people.
    pub assumptions: Vec<String>,
    /// Every policy, in the order of their names, the removed ones last.
    pub policies: Vec<PolicyTrack>,
    /// Every series, in the order of engine, policy and source.
    pub series: Vec<SeriesTrack>,
    /// What went otherwise than it should, in order.
    pub events: Vec<Event>,
    /// How much of each limit on images is taken, where engines tell limits and something is counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quotas: Vec<QuotaTrack>,
}

/// How much of a limit on images, or on what they store, is taken over time. In truth nothing is made
/// beyond it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuotaTrack {
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
    /// What there is day by day, whoever made it; each disk of a set is one image.
    pub used: Vec<u64>,
    /// The most there was since the day before: what is captured is there before anything goes for it.
    pub peaks: Vec<u64>,
}

/// A policy over time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyTrack {
    /// The policy.
    pub policy: PolicyName,
    /// Its engine.
    pub engine: String,
    /// Why it was removed; absent for a policy that is in the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<String>,
    /// How many sources it has images of or selects.
    pub sources: usize,
    /// The sums over its sources, day by day; of ages the largest.
    pub track: Track,
    /// What happened to all its sources.
    pub totals: Totals,
    /// What the images cost at the end; absent without a table of prices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_at_end: Option<Money>,
}

/// A series over time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SeriesTrack {
    /// The policy.
    pub policy: PolicyName,
    /// The engine.
    pub engine: String,
    /// The id of the source.
    pub source: SourceId,
    /// The name of the source.
    pub source_name: String,
    /// Day by day.
    pub track: Track,
    /// What happened.
    pub totals: Totals,
}

/// Figures day by day: the first is what was found, before anything was done.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Track {
    /// READY restore points.
    pub ready: Vec<u64>,
    /// Those of them that are deprecated or obsolete.
    pub deprecated: Vec<u64>,
    /// READY copies in other locations; empty where there never were any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<u64>,
    /// Bytes in the store, copies and failed attempts among them.
    pub stored_bytes: Vec<u64>,
    /// Age of the oldest READY restore point in seconds: how far back it reaches.
    pub oldest_seconds: Vec<Option<i64>>,
    /// Age of the newest READY restore point in seconds: what would be lost at that moment.
    pub newest_seconds: Vec<Option<i64>>,
    /// Cost in millionths of the currency a month; empty without a table of prices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cost_micros: Vec<u64>,
    /// Restore points and copies whose size is unknown or that no price fits: not part of bytes or cost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uncounted: Vec<u64>,
    /// Images of the engine, copies and failed attempts among them; each disk of a set is one. Empty
    /// where no restore point is a set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<u64>,
}

impl Track {
    /// Leaves out copies where there never were any, and images where each restore point is one.
    pub(super) fn forget_none(&mut self, has_sets: bool) {
        if !has_sets {
            self.images = Vec::new();
        }
        if self.copies.iter().all(|copies| *copies == 0) {
            self.copies = Vec::new();
        }
    }
}

/// How often what happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Totals {
    /// Restore points that became READY.
    pub created: u64,
    /// Copies that were made; absent where there were none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub copied: u64,
    /// Restore points that were proven restorable; absent where there were none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub drilled: u64,
    /// Captures that failed.
    pub failed: u64,
    /// Slots whose deadline passed without a restore point.
    pub missed: u64,
    /// Rounds in which no restore point could be made though one was due.
    pub blocked: u64,
    /// Points that were let go.
    pub deprecated: u64,
    /// Points that were brought back.
    pub reactivated: u64,
    /// Restore points that were deleted, copies among them.
    pub deleted: u64,
    /// Deletes that guards refused, counted in each round anew.
    pub refused: u64,
    /// How often a series stalled.
    pub stalls: u64,
    /// The most READY restore points there were at once: what is captured in a round is there before
    /// anything goes for it.
    pub peak_ready: u64,
    /// The most images of the engine there were at once, each disk of a set one; absent where no restore
    /// point is a set.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub peak_images: u64,
    /// The largest age that the newest READY restore point had, in seconds; absent where there was
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst_newest_seconds: Option<i64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Totals {
    /// Leaves out images where each restore point is one.
    pub(super) fn forget_none(&mut self, has_sets: bool) {
        if !has_sets {
            self.peak_images = 0;
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.created += other.created;
        self.copied += other.copied;
        self.drilled += other.drilled;
        self.failed += other.failed;
        self.missed += other.missed;
        self.blocked += other.blocked;
        self.deprecated += other.deprecated;
        self.reactivated += other.reactivated;
        self.deleted += other.deleted;
        self.refused += other.refused;
        self.stalls += other.stalls;
        self.worst_newest_seconds = self.worst_newest_seconds.max(other.worst_newest_seconds);
    }
}

/// Something that went otherwise than it should.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// On which engine.
    pub engine: String,
    /// The policy; absent where a guard refused for a whole engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyName>,
    /// The source; absent where a guard refused for a whole engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceId>,
    /// What.
    pub what: Happening,
}

/// What went otherwise than it should.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Happening {
    /// A capture failed.
    Failed {
        /// The slot.
        slot: Slot,
    },
    /// Slots passed without a restore point.
    Missed {
        /// The last of them.
        slot: Slot,
        /// How many.
        slots: usize,
    },
    /// No restore point can be made.
    Blocked {
        /// Why, and what to do.
        message: String,
    },
    /// There is no new READY restore point for too long: nothing is deleted until there is one.
    Stalled,
    /// A guard refused deletes: told once of each series, and of an engine whenever it begins to.
    Refused {
        /// The guard.
        guard: Guard,
        /// How many restore points and copies.
        images: usize,
    },
}
