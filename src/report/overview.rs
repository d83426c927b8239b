//! The overview: what is protected and how well, as one page for a browser and as JSON.
//!
//! Each engine has a part of its own, made when it was looked at, so that who watches keeps little and
//! works out again only what has changed. The page is the same served and written into a file; it
//! loads nothing from elsewhere.

mod gather;
mod page;
mod unseen;

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use gather::{carried_out, engine_overview, planned, policy_rows, rounds_of};
pub use page::{CONTENT_POLICY, page, shell};

/// The version of the JSON form; its first number changes when a reader must change.
pub const FORMAT_VERSION: &str = "1.0";
/// So many changes of a plan are listed, the deletes first.
pub const CHANGES_MAX: usize = 200;
/// So many rounds of each engine are remembered.
pub const ROUNDS_MAX: usize = 20;

/// What is protected and how well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Overview {
    /// The version of this form.
    pub format_version: String,
    /// When it was written.
    pub at: Timestamp,
    /// The name of the configuration; empty where it has none.
    pub name: String,
    /// The digest of the policies in force.
    pub policies_digest: String,
    /// Whether the files hold what is in force; the mistakes in them.
    pub mistakes: Vec<String>,
    /// What the bits of a restore point mean, the lowest first.
    pub bits: Vec<String>,
    /// The policies in force.
    pub policies: Vec<PolicyRow>,
    /// The engines.
    pub engines: Vec<EngineOverview>,
    /// Engines of which nothing is known yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unseen: Vec<String>,
    /// The last rounds, the newest first.
    pub rounds: Vec<RoundRow>,
}

/// A policy in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyRow {
    /// Its name.
    pub name: String,
    /// Its engine.
    pub engine: String,
    /// Who answers for it; empty where that is not said.
    pub owner: String,
    /// When it runs.
    pub schedule: String,
    /// What it keeps.
    pub retention: String,
    /// Its recovery point objective; empty where it has none.
    pub objective: String,
    /// Until when it is paused; empty where it is not.
    pub paused: String,
    /// When that ends; absent where it is not paused, or without an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_until: Option<Timestamp>,
}

impl PolicyRow {
    /// As it is at a later time: a pause has ended when its time has come.
    pub fn pass(&mut self, now: Timestamp) {
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused.clear();
            self.paused_until = None;
        }
    }
}

/// An engine as it was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EngineOverview {
    /// Its name.
    pub name: String,
    /// The digest of the policies that it was looked at for.
    pub policies_digest: String,
    /// When it was seen.
    pub seen_at: Timestamp,
    /// How many instances it has, as far as that is known.
    pub instances: usize,
    /// Whether not all instances could be seen.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub instances_unseen: bool,
    /// When all of them were seen last: what is said of those that cannot be seen now was known then.
    /// Absent where all are seen, or never were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances_unseen_since: Option<Timestamp>,
    /// How many images.
    pub images: usize,
    /// What could not be seen.
    pub gaps: Vec<String>,
    /// The sources of its policies, in the order of policy and name.
    pub sources: Vec<SourceRow>,
    /// Instances that no policy protects.
    pub unprotected: Vec<UnprotectedRow>,
    /// Instances that are meant to be without protection.
    pub exempt: Vec<ExemptRow>,
    /// The plan of its last round; in a file what a run would do now.
    pub plan: PlanRow,
    /// Drills that restore points have passed, the newest first.
    pub drills: Vec<DrillRow>,
}

/// A source under a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceRow {
    /// The policy.
    pub policy: String,
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Where it is; empty where that is not known.
    pub zone: String,
    /// How it stands with its objective: `none`, `met`, `met-unless-next-fails`, `met-until-broken`,
    /// `broken`, `gone` for a source that is not there or selected any more, or `unseen` for one of which
    /// nothing is known because not all instances could be seen.
    pub state: String,
    /// When the objective was broken, or will be if no restore point comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breach_at: Option<Timestamp>,
    /// When the next restore point is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// Its restore points, the oldest first: the minute since 1970 of its slot, and its bits. Copies
    /// are not among them.
    pub points: Vec<(u32, u32)>,
    /// When restore points will be deleted if nothing changes: the minute of the slot, and the minute
    /// of the delete. Those that were let go already, and of each rule the one that it lets go next.
    pub deletes: Vec<(u32, u32)>,
}

impl SourceRow {
    /// As it is at a later time, as long as nothing else is known of it.
    pub fn pass(&mut self, now: Timestamp) {
        let is_met = self.state.starts_with("met");
        if is_met && self.breach_at.is_some_and(|at| at <= now) {
            "broken".clone_into(&mut self.state);
        }
    }
}

/// An instance that no policy protects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnprotectedRow {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// The policy that excludes it; empty where none does.
    pub excluded_by: String,
}

/// An instance that is meant to be without protection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExemptRow {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Who answers for it.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// Until when.
    pub until: Timestamp,
}

/// A plan, shortened.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct PlanRow {
    /// Its id.
    pub id: String,
    /// The instant it was made for.
    pub at: Timestamp,
    /// Whether a round has carried it out: it is over then, and what comes next is planned anew.
    pub carried_out: bool,
    /// How many changes it has.
    pub count: usize,
    /// How many of them had which result; empty where it was not carried out.
    pub results: BTreeMap<String, usize>,
    /// The first of them, deletes before everything else.
    pub changes: Vec<ChangeRow>,
    /// What guards refuse, what was missed, what is in the way: a line for each, at most two hundred.
    pub notes: Vec<String>,
}

/// A change of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChangeRow {
    /// What is done.
    pub action: String,
    /// The name of the source.
    pub source: String,
    /// The policy.
    pub policy: String,
    /// The name of the image.
    pub image: String,
    /// Why.
    pub why: String,
    /// What came of it: `done`, `found`, `failed`, `skipped`, `refused`, `left`, `given up` or `under
    /// way`; absent where that is not known, and where the plan was not carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// Why it failed or was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoundRow {
    /// The engines.
    pub engine: String,
    /// When it began.
    pub began_at: Timestamp,
    /// When it ended; absent where it is not known to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// The plan.
    pub plan: String,
    /// What was to be done.
    pub planned: String,
    /// What came of it.
    pub results: String,
}

/// A drill that a restore point has passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DrillRow {
    /// When.
    pub at: Timestamp,
    /// The name of the source.
    pub source: String,
    /// The policy.
    pub policy: String,
    /// The name of the image.
    pub image: String,
}
