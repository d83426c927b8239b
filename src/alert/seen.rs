//! Which conditions hold after a round.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{Condition, Occasion, Subject};
use crate::coverage::{Cover, Rpo};
use crate::elapsed::Elapsed;
use crate::name::{PolicyName, Slot, SourceId};
use crate::plan::guard::Guard;
use crate::plan::{Action, Plan, Stalled};

/// What came of a change that was to be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// The change.
    pub action: Action,
    /// The policy.
    pub policy: PolicyName,
    /// The id of the source.
    pub source: SourceId,
    /// The name of the source.
    pub source_name: String,
    /// The slot of the restore point.
    pub slot: Slot,
    /// Why it failed; `None` where it is not known yet what comes of it.
    pub failure: Option<String>,
}

impl Tried {
    /// The condition that it has failed, or may have.
    pub fn subject(&self, engine: &str) -> Subject {
        Subject {
            occasion: Occasion::Failure,
            engine: engine.to_owned(),
            policy: self.policy.to_string(),
            source: self.source.to_string(),
            detail: self.action.word().to_owned(),
        }
    }

    /// The condition, where it has failed.
    pub fn condition(&self, engine: &str) -> Option<Condition> {
        let message = format!("{} failed: {}", self.action.word(), self.failure.as_ref()?);
        let slot = Some(self.slot.instant());
        Some(Condition { slot, ..Condition::new(self.subject(engine), &self.source_name, message) })
    }
}

/// What a round of one engine has come to.
#[derive(Debug, Clone)]
pub struct Seen<'a> {
    /// The engine.
    pub engine: String,
    /// Whether all of it was seen.
    pub is_complete: bool,
    /// What holds.
    pub conditions: Vec<Condition>,
    /// What may still fail: nothing of it has recovered.
    pub open: BTreeSet<Subject>,
    /// What the round has made good that the plan says: nobody need be told of it again, but of what
    /// nobody has heard yet people are told all the same.
    pub mended: BTreeSet<Subject>,
    /// The newest READY restore point of each series, by policy and source.
    pub newest: BTreeMap<(&'a str, &'a str), Option<Timestamp>>,
    /// The objectives of the series that have never had one.
    pub never: BTreeMap<(&'a str, &'a str), Elapsed>,
}

/// What holds after a round of an engine: of its plan, of what came of it, and of how its sources are
/// covered afterwards.
pub fn conditions<'a>(
    engine: &str,
    plan: &Plan,
    tried: &[Tried],
    covers: &'a [Cover<'_>],
    now: Timestamp,
) -> Seen<'a> {
    let subject = |occasion, detail: &str| Subject {
        occasion,
        engine: engine.to_owned(),
        policy: String::new(),
        source: String::new(),
        detail: detail.to_owned(),
    };
    let series = |occasion, policy: &PolicyName, source: &SourceId, detail: &str| Subject {
        policy: policy.to_string(),
        source: source.to_string(),
        ..subject(occasion, detail)
    };
    let newest = newest(covers);
    // The plan was made before the round: what the round has made good is not the matter any more.
    let is_newer = |policy: &PolicyName, source: &SourceId, than: Option<Slot>| {
        let found = newest.get(&(policy.as_str(), source.as_str())).copied().flatten();
        found > than.map(Slot::instant)
    };
    let mut found: Vec<Condition> = Vec::new();
    let mut mended = BTreeSet::new();
    for one in &plan.missed {
        let subject = series(Occasion::MissedSlot, &one.key.policy, &one.key.source, "");
        // A slot is missed as a rule when the next one is due, and so made good in the same round.
        if is_newer(&one.key.policy, &one.key.source, Some(one.key.slot)) {
            mended.insert(subject.clone());
        }
        let more = one.slots.saturating_sub(1);
        found.push(missed(subject, &one.source_name, one.key.slot.instant(), more));
    }
    let mut add = |subject: Subject, source_name: &str, message: String, slot: Option<Slot>| {
        let slot = slot.map(Slot::instant);
        found.push(Condition { slot, ..Condition::new(subject, source_name, message) });
    };
    for gap in plan.engines.iter().flat_map(|engine| &engine.gaps) {
        let message = format!("{}: {}", gap.place, gap.message);
        add(subject(Occasion::NotSeen, &gap.place), "", message, None);
    }
    for one in &plan.blocked {
        let subject = series(Occasion::Failure, &one.key.policy, &one.key.source, "create");
        let message = format!("cannot be captured: {}", one.message);
        add(subject, &one.source_name, message, Some(one.key.slot));
    }
    let is_stalled = |one: &&Stalled| !is_newer(&one.policy, &one.source, one.newest_ready);
    for one in plan.stalled.iter().filter(is_stalled) {
        let subject = series(Occasion::Stalled, &one.policy, &one.source, "");
        add(subject, &one.source_name, format!("no new restore point: {}", one.message), None);
    }
    for (guard, (images, message)) in refusals(plan) {
        let way_out = guard.way_out();
        let message = format!("{images} images are not deleted: {message}{way_out}");
        add(subject(Occasion::GuardRefusal, guard.word()), "", message, None);
    }
    for cover in covers {
        if let Some(message) = breach(cover, now) {
            let (policy, source) = (&cover.policy.name, &cover.instance.id);
            let subject = series(Occasion::RpoBreach, policy, source, "");
            add(subject, &cover.instance.name, message, None);
        }
    }
    found.extend(tried.iter().filter_map(|one| one.condition(engine)));
    let open = tried.iter().filter(|one| one.failure.is_none()).map(|one| one.subject(engine));
    let open = open.collect();
    let is_complete = plan.engines.iter().all(|engine| engine.complete);
    for condition in found.iter_mut().filter(|condition| condition.subject.is_of_making()) {
        let subject = &condition.subject;
        condition.newest = newest.get(&(&*subject.policy, &*subject.source)).copied().flatten();
    }
    let (engine, never) = (engine.to_owned(), never(covers));
    Seen { engine, is_complete, conditions: found, open, mended, newest, never }
}

/// The objectives of the series that have never had a restore point.
fn never<'a>(covers: &'a [Cover<'_>]) -> BTreeMap<(&'a str, &'a str), Elapsed> {
    let never = covers.iter().filter(|cover| cover.rpo == Rpo::Broken(None));
    let objectives = never.filter_map(|cover| {
        Some(((cover.policy.name.as_str(), cover.instance.id.as_str()), cover.policy.rpo?))
    });
    objectives.collect()
}

/// The newest READY restore point of each series.
fn newest<'a>(covers: &'a [Cover<'_>]) -> BTreeMap<(&'a str, &'a str), Option<Timestamp>> {
    let newest = covers.iter().map(|cover| {
        let series = (cover.policy.name.as_str(), cover.instance.id.as_str());
        (series, cover.newest.map(Slot::instant))
    });
    newest.collect()
}

/// The condition that a slot has no restore point and can have none any more, nor so many before it.
pub(super) fn missed(
    subject: Subject,
    source_name: &str,
    slot: Timestamp,
    more: usize,
) -> Condition {
    let more = match more {
        0 => String::new(),
        1 => " and the slot before it".to_owned(),
        more => format!(" and {more} slots before it"),
    };
    let message = format!("no restore point for {slot}{more}");
    let (newest, slot) = (Some(slot), Some(slot));
    Condition { newest, slot, ..Condition::new(subject, source_name, message) }
}

/// How many images each guard keeps, and the first reason. What ends by itself is not told: deletes
/// wait for a while after every start and every change of the policies.
fn refusals(plan: &Plan) -> BTreeMap<Guard, (usize, &str)> {
    let mut kept: BTreeMap<Guard, (usize, &str)> = BTreeMap::new();
    let is_told = |guard| !matches!(guard, Guard::DeleteDelay | Guard::Stale);
    let refused = plan.refusals.iter().filter(|refusal| !refusal.overridden);
    for refusal in refused.filter(|refusal| is_told(refusal.guard)) {
        kept.entry(refusal.guard).or_insert((0, &refusal.message)).0 += refusal.images.len();
    }
    kept
}

/// Whether an objective is broken, or will be even if the next run succeeds. A source that has never
/// had a restore point counts only if none comes in time: what is new is not broken.
fn breach(cover: &Cover<'_>, now: Timestamp) -> Option<String> {
    let objective = cover.policy.rpo?;
    let next = cover.next.first().map(|run| run.at);
    let is_soon = |objective: Elapsed| next.is_some_and(|at| at <= objective.after(now));
    match cover.rpo {
        Rpo::Broken(Some(at)) => Some(format!("the objective of {objective} is broken since {at}")),
        Rpo::Broken(None) if !is_soon(objective) => {
            Some(format!("there is no restore point, and none comes within {objective}"))
        }
        Rpo::WillBreak(at) => Some(format!("the objective of {objective} will be broken at {at}")),
        Rpo::Broken(None) | Rpo::AtRisk(_) | Rpo::Met | Rpo::None => None,
    }
}
