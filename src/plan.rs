//! Plans: what brings an inventory to what the policies ask for.
//!
//! [`plan`] is a pure function of (policies, inventory, now): the same inputs give the same bytes.
//! It decides everything; apply carries out and decides nothing. `guard` and `check` hold every plan
//! against rules of their own and share no judgement with the planner.

mod action;
mod agree;
pub mod check;
mod decide;
mod document;
pub mod going;
pub mod guard;
pub mod pace;
mod risk;
mod seen;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::json;
use sha2::{Digest, Sha256};

pub use action::{Action, Reason, ReasonCode};
pub(crate) use agree::is_as;
pub use agree::{Overtaken, changed_since, in_both, overtaken, still_wanted};
pub(crate) use decide::name_taken;
pub use document::{
    Blocked, BrokenLabels, Budget, Change, Copy, Costs, Create, EngineSummary, Exempt,
    FORMAT_VERSION, HeldBack, ImageRef, Kept, Missed, Orphans, Plan, PolicySchedule, QuotaUse,
    Stalled, Summary, Unprotected, Update, Waiting,
};

use crate::desired::{Desired, EngineDesired, STALLED_PERIODS, Series, desired};
use crate::elapsed::{Elapsed, whole_second};
use crate::inventory::{EngineInventory, Gap, GapScope, ImageState, Inventory};
use crate::name::{Key, PolicyName};
use crate::policy::{Policies, Policy};
use decide::SeriesPlan;
use seen::Names;

/// How many coming slots of a policy are shown.
const NEXT_SLOTS: usize = 3;
/// How many names of orphans are listed.
const ORPHAN_NAMES: usize = 10;

/// Plans for an instant, in whole seconds.
pub fn plan(policies: &Policies, inventory: &Inventory, now: Timestamp) -> Plan {
    plan_after(policies, inventory, now, None)
}

/// The same where a plan was approved before, which is carried out as far as it is in this one as well:
/// what that plan makes of a source comes first, so that nothing else takes its turn.
pub fn plan_after(
    policies: &Policies,
    inventory: &Inventory,
    now: Timestamp,
    approved: Option<&Plan>,
) -> Plan {
    let now = whole_second(now);
    let inventory = &listed_once(inventory);
    let mut desired = desired(policies, inventory, now);
    let sources = sources_by_policy(&desired);
    let mut plan = Plan {
        format_version: FORMAT_VERSION.to_owned(),
        id: String::new(),
        policies_digest: policies.digest.clone(),
        now,
        engines: desired.engines.iter().map(|engine| engine_summary(engine, now)).collect(),
        summary: Summary::default(),
        changes: Vec::new(),
        held_back: Vec::new(),
        kept: Vec::new(),
        missed: Vec::new(),
        blocked: Vec::new(),
        waiting: Vec::new(),
        stalled: Vec::new(),
        unprotected: Vec::new(),
        exempt: Vec::new(),
        orphans: Vec::new(),
        broken: Vec::new(),
        schedules: policies
            .policies
            .iter()
            .map(|policy| {
                schedule(policy, sources.get(&policy.name).copied().unwrap_or_default(), now)
            })
            .collect(),
        refusals: Vec::new(),
        budget: None,
    };
    for engine in &mut desired.engines {
        let creates = approved.iter().flat_map(|approved| &approved.changes).filter(|change| {
            change.action == Action::Create && change.engine == engine.engine.name
        });
        let approved = creates.map(|change| &change.key).collect();
        plan_engine(engine, &approved, now, &mut plan);
    }
    plan.engines.extend(desired.unseen.iter().map(|name| unseen_engine(name)));
    plan.changes.sort_by(|one, other| order(one).cmp(&order(other)));
    plan.kept.sort_by(|one, other| {
        (&one.engine, &one.key, &one.id).cmp(&(&other.engine, &other.key, &other.id))
    });
    plan.broken.sort_by(|one, other| (&one.engine, &one.id).cmp(&(&other.engine, &other.id)));
    plan.summary = summary(&plan);
    plan.id = id(&plan);
    plan
}

/// A plan that does these changes and nothing else, over what another plan saw.
pub fn of_changes(seen: Plan, changes: Vec<Change>) -> Plan {
    let mut plan = Plan {
        changes,
        held_back: Vec::new(),
        kept: Vec::new(),
        missed: Vec::new(),
        blocked: Vec::new(),
        waiting: Vec::new(),
        stalled: Vec::new(),
        unprotected: Vec::new(),
        exempt: Vec::new(),
        orphans: Vec::new(),
        broken: Vec::new(),
        schedules: Vec::new(),
        refusals: Vec::new(),
        budget: None,
        ..seen
    };
    plan.changes.sort_by(|one, other| order(one).cmp(&order(other)));
    plan.summary = summary(&plan);
    plan.id = id(&plan);
    plan
}

/// A plan from which changes were taken out, counted again.
pub fn narrowed(mut plan: Plan) -> Plan {
    plan.summary = summary(&plan);
    plan.id = id(&plan);
    plan
}

/// An image that a listing holds twice was listed while things changed: it counts once, and the
/// listing as incomplete.
fn listed_once(inventory: &Inventory) -> Cow<'_, Inventory> {
    let found: Vec<Option<String>> =
        inventory.engines.iter().map(|engine| seen::id_twice(&engine.images)).collect();
    if found.iter().all(Option::is_none) {
        return Cow::Borrowed(inventory);
    }
    let mut once = inventory.clone();
    for (engine, id) in once.engines.iter_mut().zip(found) {
        let Some(id) = id else { continue };
        let mut seen = BTreeSet::new();
        engine.images.retain(|image| seen.insert(image.id.clone()));
        engine.gaps.push(Gap {
            scope: GapScope::Images,
            place: engine.name.clone(),
            message: format!("the image {id} is listed twice"),
        });
    }
    Cow::Owned(once)
}

/// The part of a plan that is about one series: nothing of it depends on any other.
#[derive(Debug)]
pub struct SeriesPart {
    /// What is to be done.
    pub changes: Vec<Change>,
    /// What would be done if nothing held it.
    pub held_back: Vec<HeldBack>,
    /// What stays as it is.
    pub kept: Vec<Kept>,
    /// Slots that can have no restore point any more.
    pub missed: Vec<Missed>,
    /// Why no restore point can be made.
    pub blocked: Vec<Blocked>,
    /// The restore point that waits for the turn of its source.
    pub waiting: Option<Waiting>,
    /// Whether it has no new READY restore point for too long.
    pub stalled: Option<Stalled>,
    /// Whether nothing keeps all of it from being deprecated or deleted.
    pub is_free: bool,
}

/// How much a plan says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// Everything.
    All,
    /// Nothing of what stays as it is, nor why something is kept again.
    Changes,
}

/// Plans one series of an engine; `is_taken` says whether it holds an image of a name, and `turn` when
/// the source can be captured, where that is not now.
pub fn plan_series(
    engine: &EngineInventory,
    series: &Series<'_>,
    is_taken: &dyn Fn(&str) -> bool,
    turn: Option<Timestamp>,
    now: Timestamp,
    telling: Telling,
) -> SeriesPart {
    let mut part = SeriesPlan::new(engine, series, is_taken, now, telling);
    part.turn = turn;
    let mut part = part.decide();
    risk::classify(series, &mut part.changes, now);
    SeriesPart {
        is_free: part.obstacle.is_none(),
        changes: part.changes,
        held_back: part.held_back,
        kept: part.kept,
        missed: part.missed,
        blocked: part.blocked,
        waiting: part.waiting,
        stalled: stalled(&engine.name, series, now),
    }
}

fn plan_engine(
    desired: &mut EngineDesired<'_>,
    approved: &BTreeSet<&Key>,
    now: Timestamp,
    plan: &mut Plan,
) {
    let engine = &desired.engine.name;
    let names = Names::of(&desired.engine.images);
    let is_taken = |name: &str| names.contains(name);
    let can_be_made = |series: &Series<'_>| {
        SeriesPlan::new(desired.engine, series, &is_taken, now, Telling::Changes).can_create()
    };
    let waits = pace::waits(desired.engine, &desired.series, approved, can_be_made, now);
    plan.kept.reserve(desired.series.iter().map(|series| series.points.len()).sum());
    // What is planned for a series takes the place of what was desired of it. The list of what it
    // keeps is emptied and used again.
    let mut spare = Vec::new();
    for (index, series) in std::mem::take(&mut desired.series).into_iter().enumerate() {
        let series = &series;
        let mut part = SeriesPlan::new(desired.engine, series, &is_taken, now, Telling::All);
        part.kept = spare;
        part.turn = waits.get(&index).copied();
        let mut part = part.decide();
        risk::classify(series, &mut part.changes, now);
        plan.changes.append(&mut part.changes);
        plan.held_back.append(&mut part.held_back);
        plan.kept.append(&mut part.kept);
        spare = part.kept;
        plan.missed.append(&mut part.missed);
        plan.blocked.append(&mut part.blocked);
        plan.waiting.extend(part.waiting);
        plan.stalled.extend(stalled(engine, series, now));
        let states = series.points.iter().map(|point| point.image.state);
        plan.summary.creating += states.filter(|state| *state == ImageState::Creating).count();
    }
    plan.unprotected.extend(desired.unprotected.iter().map(|(instance, excluded)| Unprotected {
        engine: engine.clone(),
        id: instance.id.clone(),
        name: instance.name.clone(),
        excluded_by: excluded.as_ref().map(|(policy, _)| policy.name.clone()),
        condition: excluded.as_ref().map(|(_, condition)| condition.clone()),
    }));
    plan.exempt.extend(desired.exempt.iter().map(|(instance, exemption)| Exempt {
        engine: engine.clone(),
        id: instance.id.clone(),
        name: instance.name.clone(),
        owner: exemption.owner.clone(),
        reason: exemption.reason.clone(),
        until: exemption.until,
    }));
    for (policy, images) in &desired.orphans {
        let mut names: Vec<String> = images.iter().map(|image| image.name.clone()).collect();
        names.sort();
        names.truncate(ORPHAN_NAMES);
        plan.orphans.push(Orphans {
            engine: engine.clone(),
            policy: policy.clone(),
            images: images.len(),
            names,
        });
    }
    plan.broken.extend(desired.broken.iter().map(|(image, error)| BrokenLabels {
        engine: engine.clone(),
        id: image.id.clone(),
        name: image.name.clone(),
        // Who keeps the record elsewhere than in labels says what is wrong with it.
        message: match &image.message {
            Some(message) if image.state != ImageState::Failed => message.clone(),
            _ => error.to_string(),
        },
    }));
}

/// A series that is stalled, unless it has only just begun.
fn stalled(engine: &str, series: &Series<'_>, now: Timestamp) -> Option<Stalled> {
    if !series.stalled {
        return None;
    }
    let newest_ready = series.newest_ready(now).map(|point| point.key.slot);
    let slots: BTreeSet<_> = series.points.iter().map(|point| point.key.slot).collect();
    let has_begun = newest_ready.is_some() || slots.len() >= STALLED_PERIODS;
    if !has_begun {
        return None;
    }
    let newest = series.points.last().map(|point| point.image)?;
    let message = match (newest.state, &newest.message) {
        (ImageState::Ready, _) => "no attempt since".to_owned(),
        (state, Some(message)) => format!("last attempt {}: {message}", state.word()),
        (state, None) => format!("last attempt {}", state.word()),
    };
    Some(Stalled {
        engine: engine.to_owned(),
        policy: series.policy.name.clone(),
        source: series.source.clone(),
        source_name: series.source_name().to_owned(),
        newest_ready,
        message,
    })
}

/// Creates first, what takes nothing away next, deletes last and the oldest first: any beginning
/// of a plan that is carried out leaves everything protected that was.
fn order(change: &Change) -> impl Ord + '_ {
    let oldest_first = (change.action == Action::Delete).then_some(change.key.slot);
    (change.action, oldest_first, &change.engine, &change.key, &change.image.id)
}

fn engine_summary(desired: &EngineDesired<'_>, now: Timestamp) -> EngineSummary {
    let engine = desired.engine;
    let overdue = engine.instances.iter().filter(|instance| instance.is_overdue(now));
    let mut overdue: Vec<String> = overdue.map(|instance| instance.name.clone()).collect();
    overdue.sort();
    EngineSummary {
        name: engine.name.clone(),
        kind: engine.kind.clone(),
        identity: engine.identity.clone(),
        complete: engine.is_complete(),
        gaps: engine.gaps.clone(),
        instances: engine.instances.len(),
        images: engine.images.len(),
        managed: engine.images.len() - desired.foreign - desired.broken.len(),
        overdue,
    }
}

/// An engine that policies name and nobody observed: all of it is a gap.
fn unseen_engine(name: &str) -> EngineSummary {
    let message = "policies name this engine, but the inventory does not hold it".to_owned();
    EngineSummary {
        name: name.to_owned(),
        kind: String::new(),
        identity: String::new(),
        complete: false,
        gaps: vec![Gap { scope: GapScope::Images, place: name.to_owned(), message }],
        instances: 0,
        images: 0,
        managed: 0,
        overdue: Vec::new(),
    }
}

/// How many sources each policy has.
fn sources_by_policy<'a>(desired: &Desired<'a>) -> BTreeMap<&'a PolicyName, usize> {
    let mut sources = BTreeMap::new();
    let series = desired.engines.iter().flat_map(|engine| &engine.series);
    for series in series.filter(|series| !series.state.is_gone()) {
        *sources.entry(&series.policy.name).or_default() += 1;
    }
    sources
}

fn schedule(policy: &Policy, sources: usize, now: Timestamp) -> PolicySchedule {
    let zone = policy.schedule.zone.time_zone();
    let week = Elapsed::days(7).after(now);
    let clock_change = zone
        .following(now)
        .take_while(|change| change.timestamp() < week)
        .find(|change| {
            let before = Elapsed::seconds(1).before(change.timestamp());
            zone.to_offset(before) != change.offset()
        })
        .map(|change| change.timestamp());
    PolicySchedule {
        policy: policy.name.clone(),
        engine: policy.engine.clone(),
        cron: policy.schedule.text(),
        time_zone: policy.schedule.zone.name().to_owned(),
        next: policy.schedule.next_slots(now, NEXT_SLOTS),
        sources,
        clock_change,
        paused: describe_pauses(policy, now),
    }
}

/// What a policy does not do at present, for people.
fn describe_pauses(policy: &Policy, now: Timestamp) -> Option<String> {
    let pauses: Vec<String> = policy.pauses_at(now).iter().map(decide::describe_pause).collect();
    (!pauses.is_empty()).then(|| pauses.join("; "))
}

fn summary(plan: &Plan) -> Summary {
    let count =
        |action: Action| plan.changes.iter().filter(|change| change.action == action).count();
    let replaced = plan.changes.iter().filter(|change| {
        let create = change.create.as_ref().map(|create| &create.replaces);
        let copy = change.copy.as_ref().map(|copy| &copy.replaces);
        create.or(copy).is_some_and(Option::is_some)
    });
    let managed: usize = plan.engines.iter().map(|engine| engine.managed).sum();
    Summary {
        create: count(Action::Create),
        deprecate: count(Action::Deprecate),
        obsolete: count(Action::Obsolete),
        reactivate: count(Action::Reactivate),
        relabel: count(Action::Relabel),
        copy: count(Action::Copy),
        drill: count(Action::Drill),
        delete: count(Action::Delete),
        keep: managed.saturating_sub(count(Action::Delete) + replaced.count()),
        held_back: plan.held_back.len(),
        unprotected: plan.unprotected.len(),
        exempt: plan.exempt.len(),
        missed: plan.missed.iter().map(|missed| missed.slots).sum(),
        creating: plan.summary.creating,
        stalled: plan.stalled.len(),
        quarantined: plan
            .kept
            .iter()
            .filter(|kept| kept.reasons.iter().any(|reason| reason.code == ReasonCode::Quarantined))
            .count(),
        paused: plan.schedules.iter().filter(|schedule| schedule.paused.is_some()).count(),
        blocked: plan.blocked.len(),
        waiting: plan.waiting.len(),
    }
}

/// A SHA-256 over what is to be done and under which policies. Times are left out, so that the
/// same plan made a minute later has the same id.
fn id(plan: &Plan) -> String {
    let changes: Vec<_> = plan
        .changes
        .iter()
        .map(|change| {
            let stages =
                change.update.as_ref().map(|update| (update.stage_before, update.stage_after));
            json!([
                change.action,
                change.engine,
                change.key,
                change.image.id,
                change.image.name,
                change.image.fingerprint,
                stages,
                change.copy.as_ref().map(|copy| &copy.name),
            ])
        })
        .collect();
    let text = json!([plan.policies_digest, changes]).to_string();
    data_encoding::HEXLOWER.encode(&Sha256::digest(text.as_bytes()))
}
