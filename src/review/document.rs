//! The review as a document. The JSON Schema is `schemas/review.schema.json`.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::name::{PolicyName, Slot, SourceId};
use crate::plan::guard::Refusal;
use crate::plan::{Budget, Change, EngineSummary, ImageRef, Summary};
use crate::retention::Rule;
use crate::simulate::forecast::Never;

/// The version of the review document. The first number changes when a reader must change.
pub const FORMAT_VERSION: &str = "1.0";

/// What a change of the policies does: both sets planned over one inventory, at one instant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Review {
    /// The version of this document.
    pub format_version: String,
    /// What the policies are compared with: a revision or a directory.
    pub base: String,
    /// The commit of the base, where it is a revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_commit: Option<String>,
    /// The digest of the policies of the base.
    pub base_digest: String,
    /// The digest of the policies.
    pub policies_digest: String,
    /// The id of the plan that the policies make over this inventory.
    pub plan: String,
    /// How much of what that plan does, because of the change or not.
    pub summary: Summary,
    /// The instant both were planned for.
    pub now: Timestamp,
    /// The engines both were planned over.
    pub engines: Vec<EngineSummary>,
    /// How much of what.
    pub verdict: Verdict,
    /// Policies that are not what they were, in the order of their names.
    pub policies: Vec<PolicyChange>,
    /// What is different in the configuration, defaults of policies not counted.
    pub configuration: Vec<ValueChange>,
    /// What the next round does that it would not have done, and the other way round.
    pub next_round: NextRound,
    /// Images that are deleted earlier than before by more than a run, the first first.
    pub losses: Vec<FateChange>,
    /// Images that are deleted a run earlier than before, which is no loss to speak of.
    pub shifted: Shifted,
    /// Images that are deleted later than before, or not at all any more.
    pub gains: Vec<FateChange>,
    /// Images whose policy is not in the files any more: they stay, and nobody looks after them.
    pub orphaned: Vec<Orphaned>,
    /// Sources that other policies select than before.
    pub sources: Vec<SourceChange>,
    /// How far apart restore points are and how far back they reach, where that changes.
    pub protection: Vec<ProtectionChange>,
    /// What it costs and how much of the quotas it takes, before and after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetChange>,
    /// What the guards refuse of the next round.
    pub refusals: Vec<Refusal>,
}

/// How much of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// Whether the policies mean the same as before: only comments and formatting differ.
    pub same_meaning: bool,
    /// Whether anything is different for any source or image.
    pub has_effect: bool,
    /// Images deleted earlier than before, by the end of the first 30 days.
    pub lost_30: usize,
    /// The same by the end of 90 days.
    pub lost_90: usize,
    /// Images deleted earlier than before, later than that.
    pub lost_later: usize,
    /// How many of all these are the oldest of their series, so that nothing is left that old.
    pub lost_only_copies: usize,
    /// When the first of them is deleted: until then all can be undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoable_until: Option<Timestamp>,
    /// Images that are kept longer than before.
    pub gained: usize,
    /// Images that nobody looks after any more.
    pub orphaned: usize,
    /// Sources that no policy selects any more.
    pub sources_unprotected: usize,
    /// Sources that a policy selects now and none did before.
    pub sources_protected: usize,
    /// Sources that more policies select than before, two or more.
    pub sources_doubled: usize,
    /// Policies that run never again and did before.
    pub policies_stopped: usize,
    /// Images that stay shared though nothing says any more with whom.
    #[serde(default)]
    pub still_shared: usize,
}

/// What became of a policy.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyFate {
    /// It is new.
    Added,
    /// It means something else.
    Changed,
    /// It has another name, and `moved` says so: it keeps its restore points.
    Moved,
    /// It looks like one that had another name, but nothing says that it is the same.
    Renamed,
    /// It was taken out, and `removed` says what becomes of its restore points.
    Removed,
    /// It was taken out, and nothing says what becomes of its restore points.
    Dropped,
}

impl PolicyFate {
    /// The word that people see.
    pub fn word(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Moved => "moved",
            Self::Renamed => "renamed",
            Self::Removed => "removed",
            Self::Dropped => "dropped",
        }
    }
}

/// A policy that is not what it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyChange {
    /// Its name; the last it had, where it is gone.
    pub policy: PolicyName,
    /// The name it had before, where that is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<PolicyName>,
    /// What became of it.
    pub fate: PolicyFate,
    /// Where it is written now; where it was, if it is gone.
    pub at: Line,
    /// Each value that is different.
    pub values: Vec<ValueChange>,
    /// When it ran and runs, where that is different.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleChange>,
    /// How many sources it had and has.
    pub sources: Counts,
    /// Images that stay shared with whom they were given: it said who may use them, and nothing says so
    /// any more. `sharing: []` takes back what was given.
    #[serde(default)]
    pub still_shared: usize,
}

/// A number before and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Before.
    pub before: usize,
    /// After.
    pub after: usize,
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
}

/// A value that is different.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ValueChange {
    /// Its path, like `retention.days`.
    pub path: String,
    /// What it was; absent where it was not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What it is; absent where it is not there any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
    /// Where it is written now, if it is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Line>,
}

/// When a policy ran and runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleChange {
    /// Before; absent for a policy that is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Runs>,
    /// After; absent for a policy that is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Runs>,
}

/// When a policy runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Runs {
    /// The expressions.
    pub cron: String,
    /// Their zone.
    pub time_zone: String,
    /// The next slots.
    pub next: Vec<Slot>,
    /// How many runs there are in the next 30 days.
    pub in_30_days: usize,
    /// What clock changes of the next 90 days do to it, for people.
    pub clock_notes: Vec<String>,
    /// Why it does not run at present, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
}

/// What the next round does that it would not have done, and the other way round.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NextRound {
    /// What is done because of this change.
    pub added: Vec<Change>,
    /// What is not done any more because of this change.
    pub dropped: Vec<Change>,
    /// What is done either way.
    pub anyway: Summary,
}

/// What becomes of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fate {
    /// The rules that keep it now; `null` for the newest ones that `atLeast` keeps.
    pub rules: Vec<Option<Rule>>,
    /// Whether a hold keeps it now.
    pub held: bool,
    /// When it was or will be let go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecated_at: Option<Timestamp>,
    /// When it will be deleted, by the first run at or after; absent where it never is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
    /// Why it is never deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub never: Option<Never>,
}

/// Images that are deleted earlier by no more than about one run of their schedule: what rotates
/// either way rotates at another hour, or a day earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shifted {
    /// How many there are.
    pub images: usize,
    /// The most by which one is deleted earlier, in seconds.
    pub most_seconds: i64,
}

/// An image that is deleted earlier or later than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FateChange {
    /// The engine.
    pub engine: String,
    /// The policy that looks after it now.
    pub policy: PolicyName,
    /// The id of its source.
    pub source: SourceId,
    /// The name of its source.
    pub source_name: String,
    /// The instant it stands for.
    pub slot: Slot,
    /// The image.
    pub image: ImageRef,
    /// What would have become of it.
    pub before: Fate,
    /// What becomes of it.
    pub after: Fate,
    /// Where it is deleted and nothing as old is left of its series then: the age of the oldest that
    /// is, in seconds; 0 where only those are left that are made until then; absent where something
    /// as old is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_older_than_seconds: Option<i64>,
    /// Whether nothing is left of its series then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_last: bool,
}

/// Images whose policy is not in the files any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Orphaned {
    /// The engine.
    pub engine: String,
    /// The policy that they carry.
    pub policy: PolicyName,
    /// How many there are.
    pub images: usize,
    /// Bytes they take, as far as that is known.
    pub stored_bytes: u64,
    /// The engine that the policy has now, where it still is in the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_to: Option<String>,
}

/// A source that other policies select than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceChange {
    /// The engine.
    pub engine: String,
    /// Its id.
    pub source: SourceId,
    /// Its name.
    pub source_name: String,
    /// The policies that selected it.
    pub before: Vec<PolicyName>,
    /// The policies that select it.
    pub after: Vec<PolicyName>,
    /// Whether an exemption says that it is meant to be without protection.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exempt: bool,
}

/// How well sources are protected, before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProtectionChange {
    /// The engine.
    pub engine: String,
    /// The names of the sources for which it is the same.
    pub sources: Vec<String>,
    /// Before; absent where nothing protected them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Protection>,
    /// After; absent where nothing protects them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Protection>,
}

/// How well a source is protected, all its policies together.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Protection {
    /// The longest time between two runs, in seconds: what is lost at worst. Absent where no run
    /// comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apart_seconds: Option<i64>,
    /// How far back restore points reach in the long run, in seconds; absent where nothing is ever
    /// let go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reach_seconds: Option<i64>,
    /// Restore points that there are in the long run; absent where nothing is ever let go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub points: Option<u64>,
}

/// What it costs and how much of the quotas it takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BudgetChange {
    /// Before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Budget>,
    /// After.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Budget>,
}
