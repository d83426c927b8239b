//! What a change of the policies does, before it does it.
//!
//! In go two sets of policies, an inventory and `now`; out comes what is different: in what they say,
//! in what the next round does, and in what becomes of every image, apart from the rotation that
//! happens either way. Both sets are planned by the same functions that plan a round, and looked
//! ahead of by the forecasts that `explain` shows. Pure, like all of this level.

mod document;
mod fates;
mod meaning;
mod saved;
mod schedules;
mod sources;
mod undo;

use std::collections::BTreeSet;

use jiff::Timestamp;

pub use document::{
    BudgetChange, Counts, FORMAT_VERSION, Fate, FateChange, Line, NextRound, Orphaned,
    PolicyChange, PolicyFate, Protection, ProtectionChange, Review, Runs, ScheduleChange, Shifted,
    SourceChange, ValueChange, Verdict,
};

pub use saved::{SAVED_VERSION, Saved};
pub use undo::{Lost, Undo, undo};

use crate::desired::{Desired, desired};
use crate::elapsed::Elapsed;
use crate::inventory::Inventory;
use crate::name::PolicyName;
use crate::plan::{Action, Change, Plan, Summary};
use crate::policy::Policies;
use meaning::Pair;
use sources::Selected;

/// Both horizons of what is lost.
pub const SOON: Elapsed = Elapsed::days(30);
/// The farther one.
pub const LATER: Elapsed = Elapsed::days(90);

/// Policies over an inventory, with their plan.
pub struct Side<'a> {
    /// The policies.
    pub policies: &'a Policies,
    /// Their plan over the inventory, with its budget and what the guards refuse.
    pub plan: &'a Plan,
}

/// What the policies are compared with.
pub struct Base<'a> {
    /// What it is called: a revision or a directory.
    pub name: String,
    /// The commit, where it is a revision.
    pub commit: Option<String>,
    /// Its policies.
    pub side: Side<'a>,
}

/// Policies, and what they desire.
struct World<'w> {
    policies: &'w Policies,
    desired: Desired<'w>,
}

/// Reviews a change: `base` is how it was, `side` how it is. Both plans are of the same inventory
/// and instant.
pub fn review(base: Base<'_>, side: &Side<'_>, inventory: &Inventory) -> Review {
    let now = side.plan.now;
    let world = |policies| World { policies, desired: desired(policies, inventory, now) };
    let (before, after) = (world(base.side.policies), world(side.policies));
    let (old, new) = (sources::selected(&before), sources::selected(&after));
    let pairs = meaning::pairs(before.policies, after.policies);
    let fates = fates::fates(&before, &after, now);
    let budgets = (&base.side.plan.budget, &side.plan.budget);
    let mut review = Review {
        format_version: FORMAT_VERSION.to_owned(),
        base: base.name,
        base_commit: base.commit,
        base_digest: before.policies.digest.clone(),
        policies_digest: after.policies.digest.clone(),
        plan: side.plan.id.clone(),
        summary: side.plan.summary,
        now,
        engines: side.plan.engines.clone(),
        verdict: Verdict::default(),
        policies: pairs
            .iter()
            .map(|pair| {
                let still_shared = meaning::still_shared(pair, before.policies, inventory);
                policy(pair, &old, &new, still_shared, now)
            })
            .collect(),
        configuration: meaning::configuration(before.policies, after.policies),
        next_round: next_round(base.side.plan, side.plan),
        losses: fates.losses,
        shifted: fates.shifted,
        gains: fates.gains,
        orphaned: fates::orphaned(&before, &after),
        sources: sources::changes(&old, &new, after.policies, now),
        protection: sources::protection(&old, &new, now),
        budget: (budgets.0 != budgets.1)
            .then(|| BudgetChange { before: budgets.0.clone(), after: budgets.1.clone() }),
        refusals: side.plan.refusals.clone(),
    };
    review.verdict = verdict(&review);
    review
}

fn policy(
    pair: &Pair<'_>,
    old: &Selected<'_>,
    new: &Selected<'_>,
    still_shared: usize,
    now: Timestamp,
) -> PolicyChange {
    let sources = |name: Option<&PolicyName>, selected: &Selected<'_>| {
        let all = selected
            .values()
            .filter(|(_, policies)| policies.iter().any(|policy| Some(&policy.name) == name));
        all.count()
    };
    let (was, is) = (pair.before.map(|one| &one.name), pair.after.map(|one| &one.name));
    PolicyChange {
        policy: pair.shown.name.clone(),
        was: was.filter(|was| is.is_some_and(|is| is != *was)).cloned(),
        fate: pair.fate,
        at: meaning::line(&pair.shown.place),
        values: meaning::values(pair),
        schedule: schedules::change(pair, now),
        sources: Counts { before: sources(was, old), after: sources(is, new) },
        still_shared,
    }
}

/// What a change does to what: the same in two plans where it comes to the same.
fn same(change: &Change) -> (&str, Action, &str, Option<&str>) {
    let copied = change.copy.as_ref().map(|copy| copy.location.as_str());
    (
        &change.engine,
        change.action,
        change.image.id.as_deref().unwrap_or(&change.image.name),
        copied,
    )
}

fn next_round(before: &Plan, after: &Plan) -> NextRound {
    let set = |plan: &'_ Plan| -> BTreeSet<(String, Action, String, Option<String>)> {
        plan.changes.iter().map(|change| owned(same(change))).collect()
    };
    let (old, new) = (set(before), set(after));
    let without = |plan: &Plan, other: &BTreeSet<_>| -> Vec<Change> {
        let changes = plan.changes.iter();
        changes.filter(|change| !other.contains(&owned(same(change)))).cloned().collect()
    };
    let mut anyway = Summary::default();
    for change in after.changes.iter().filter(|change| old.contains(&owned(same(change)))) {
        let count = match change.action {
            Action::Create => &mut anyway.create,
            Action::Deprecate => &mut anyway.deprecate,
            Action::Obsolete => &mut anyway.obsolete,
            Action::Reactivate => &mut anyway.reactivate,
            Action::Relabel => &mut anyway.relabel,
            Action::Copy => &mut anyway.copy,
            Action::Drill => &mut anyway.drill,
            Action::Delete => &mut anyway.delete,
        };
        *count += 1;
    }
    NextRound { added: without(after, &old), dropped: without(before, &new), anyway }
}

fn owned(
    (engine, action, image, copied): (&str, Action, &str, Option<&str>),
) -> (String, Action, String, Option<String>) {
    (engine.to_owned(), action, image.to_owned(), copied.map(str::to_owned))
}

fn verdict(review: &Review) -> Verdict {
    let by = |horizon: Elapsed| {
        let end = horizon.after(review.now);
        let deleted = review.losses.iter().filter_map(|loss| loss.after.deleted_at);
        deleted.filter(|at| *at <= end).count()
    };
    let lost_90 = by(LATER);
    let of = |is_such: &dyn Fn(&SourceChange) -> bool| {
        review.sources.iter().filter(|source| is_such(source)).count()
    };
    let stopped = |change: &&PolicyChange| {
        let Some(schedule) = &change.schedule else { return false };
        let ran = schedule.before.as_ref().is_some_and(|runs| !runs.next.is_empty());
        ran && schedule.after.as_ref().is_some_and(|runs| runs.next.is_empty())
    };
    let mut verdict = Verdict {
        same_meaning: review.base_digest == review.policies_digest && review.policies.is_empty(),
        has_effect: false,
        lost_30: by(SOON),
        lost_90,
        lost_later: review.losses.len() - lost_90,
        lost_only_copies: review.losses.iter().filter(|loss| loss.leaves_nothing_as_old()).count(),
        undoable_until: review.losses.iter().filter_map(|loss| loss.after.deleted_at).min(),
        gained: review.gains.len(),
        orphaned: review.orphaned.iter().map(|orphans| orphans.images).sum(),
        sources_unprotected: of(&|source| source.after.is_empty()),
        sources_protected: of(&|source| source.before.is_empty()),
        sources_doubled: of(&|source| {
            source.after.len() > 1 && source.after.len() > source.before.len()
        }),
        policies_stopped: review.policies.iter().filter(stopped).count(),
        still_shared: review.policies.iter().map(|change| change.still_shared).sum(),
    };
    verdict.has_effect = !(review.losses.is_empty()
        && review.gains.is_empty()
        && review.shifted.images == 0
        && review.orphaned.is_empty()
        && verdict.still_shared == 0
        && review.sources.is_empty()
        && review.protection.is_empty()
        && review.next_round.added.is_empty()
        && review.next_round.dropped.is_empty()
        && review.policies.iter().all(|change| change.schedule.is_none()));
    verdict
}

impl FateChange {
    /// Whether nothing as old is left of its series when it is deleted.
    pub fn leaves_nothing_as_old(&self) -> bool {
        self.is_last || self.only_older_than_seconds.is_some()
    }
}
