//! Gathers what the overview says.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rayon::prelude::*;
use serde_json::Value;

use super::{
    CHANGES_MAX, ChangeRow, DrillRow, EngineOverview, ExemptRow, PlanRow, PolicyRow, ROUNDS_MAX,
    RoundRow, SourceRow, UnprotectedRow, unseen,
};
use crate::apply::Outcome;
use crate::coverage::{Cover, Rpo, coverage};
use crate::desired::{EngineDesired, Presence, Series, SeriesPoint, desired};
use crate::inventory::{
    self, EngineInventory, GapScope, Image, ImageState, Instance, Inventory, Stage,
};
use crate::plan::{Action, Change, Plan, Summary};
use crate::policy::{Policies, Policy};
use crate::report::text::{clean, count};
use crate::retention::{Fate, Keep, Rule};
use crate::simulate::forecast::Prospect;

/// The bits behind those of the rules.
const KEPT_ANYWAY: u32 = 1 << 9;
const HELD: u32 = 1 << 10;
const LET_GO: u32 = 1 << 11;
const NOT_READY: u32 = 1 << 12;
const DRILLED: u32 = 1 << 13;
const COPIED: u32 = 1 << 14;
const KEPT_OTHERWISE: u32 = 1 << 15;
const DEPRECATED: u32 = 1 << 16;
/// So many drills of an engine are listed.
const DRILLS_MAX: usize = 100;
/// So many lines about a plan.
const NOTES_MAX: usize = 200;

/// What the bits mean, the lowest first.
pub(super) fn bits() -> Vec<String> {
    let rules = Rule::ALL.iter().map(|rule| rule.word());
    let others = ["at-least", "held", "let-go", "not-ready", "drilled", "copied", "kept-otherwise"];
    rules.chain(others).map(str::to_owned).collect()
}

fn minutes(instant: Timestamp) -> u32 {
    u32::try_from(instant.as_second().max(0) / 60).unwrap_or(u32::MAX)
}

/// What is said of an engine; `plan` has not been carried out (see [`carried_out`]). What was predicted `before` holds as
/// long as nothing has changed, and what was known of what cannot be seen now is said on.
pub fn engine_overview(
    policies: &Policies,
    inventory: &Inventory,
    engine: &str,
    plan: &Plan,
    before: Option<&EngineOverview>,
    now: Timestamp,
) -> Option<EngineOverview> {
    let seen = inventory.engines.iter().find(|one| one.name == engine)?;
    if let Some(before) = before.filter(|_| unseen::is_unseen(seen)) {
        return Some(unseen::nothing_seen(before, gaps(seen), plan_row(plan, None, engine)));
    }
    let predicted = before.filter(|before| before.policies_digest == policies.digest);
    let predicted = predicted.into_iter().flat_map(|before| &before.sources);
    let known: BTreeMap<(&str, &str), &SourceRow> =
        predicted.map(|row| ((row.policy.as_str(), row.id.as_str()), row)).collect();
    let covers = coverage(policies, inventory, now);
    let covers: BTreeMap<(&str, &str), &Cover<'_>> = covers
        .iter()
        .filter(|cover| cover.engine == engine)
        .map(|cover| ((cover.policy.name.as_str(), cover.instance.id.as_str()), cover))
        .collect();
    let wanted = desired(policies, inventory, now);
    let own = wanted.engines.iter().find(|one| one.engine.name == engine)?;
    let is_whole = seen.is_complete();
    let sources: Vec<SourceRow> = own
        .series
        .par_iter()
        .map(|series| {
            let key = (series.policy.name.as_str(), series.source.as_str());
            let row = source_row(series, covers.get(&key).copied(), now);
            // A time that has passed was not kept to, and what was let go and is not marked yet goes
            // so long after the round that marks it: both are looked at again.
            let is_marked = |bits: u32| bits & LET_GO == 0 || bits & DEPRECATED != 0;
            let is_known = |before: &&&SourceRow| {
                before.points == row.points
                    && is_whole
                    && before.points.iter().all(|(_, bits)| is_marked(*bits))
                    && before.deletes.iter().all(|(_, at)| *at > minutes(now))
            };
            let deletes = match known.get(&key).filter(is_known) {
                Some(before) => before.deletes.clone(),
                None => deletes(series, is_whole, now),
            };
            SourceRow { deletes, ..row }
        })
        .collect();
    let mut overview = EngineOverview {
        name: seen.name.clone(),
        policies_digest: policies.digest.clone(),
        seen_at: inventory.observed_at,
        instances: seen.instances.len(),
        instances_unseen: unseen::misses(seen, GapScope::Instances),
        instances_unseen_since: None,
        images: seen.images.len(),
        gaps: gaps(seen),
        unprotected: unprotected(own),
        exempt: exempt(own),
        plan: plan_row(plan, None, engine),
        drills: drills(&own.series),
        sources,
    };
    if let Some(before) = before {
        unseen::carry_over(&mut overview, before, seen, policies, now);
    }
    overview.sources.sort_by(|one, other| {
        (&one.policy, &one.name, &one.id).cmp(&(&other.policy, &other.name, &other.id))
    });
    Some(overview)
}

fn gaps(engine: &EngineInventory) -> Vec<String> {
    let gaps = inventory::told(&engine.gaps);
    gaps.map(|gap| clean(&format!("{}: {}", gap.place, gap.message))).collect()
}

fn unprotected(engine: &EngineDesired<'_>) -> Vec<UnprotectedRow> {
    let row = |(instance, excluded): &(&Instance, Option<(&Policy, String)>)| UnprotectedRow {
        name: clean(&instance.name),
        id: instance.id.to_string(),
        excluded_by: excluded
            .as_ref()
            .map(|(policy, _)| policy.name.to_string())
            .unwrap_or_default(),
    };
    engine.unprotected.iter().map(row).collect()
}

fn exempt(engine: &EngineDesired<'_>) -> Vec<ExemptRow> {
    let rows = engine.exempt.iter().map(|(instance, exemption)| ExemptRow {
        name: clean(&instance.name),
        id: instance.id.to_string(),
        owner: clean(&exemption.owner),
        reason: clean(&exemption.reason),
        until: exemption.until,
    });
    rows.collect()
}

fn source_row(series: &Series<'_>, cover: Option<&Cover<'_>>, now: Timestamp) -> SourceRow {
    let copied: BTreeSet<_> =
        series.copies.iter().filter(|copy| copy.is_ready(now)).map(|copy| copy.key.slot).collect();
    let points = series.points.iter().map(|point| {
        let copied = if copied.contains(&point.key.slot) { COPIED } else { 0 };
        (minutes(point.key.slot.instant()), point_bits(point, now) | copied)
    });
    let state = match (series.state.presence, cover) {
        (Presence::Present(_), Some(cover)) => cover.rpo.word(),
        (Presence::Present(_), None) => Rpo::None.word(),
        (Presence::Missing | Presence::Unselected(_), _) => unseen::GONE,
        (Presence::Unknown, _) => unseen::UNSEEN,
    };
    let lasts = || Some(series.policy.rpo?.after(series.newest_ready(now)?.key.slot.instant()));
    SourceRow {
        policy: series.policy.name.to_string(),
        name: clean(series.source_name()),
        id: series.source.to_string(),
        zone: series.state.instance().map(|instance| clean(&instance.zone)).unwrap_or_default(),
        state: state.to_owned(),
        breach_at: match cover {
            Some(cover) => breach_at(cover),
            None if state == unseen::UNSEEN => lasts(),
            None => None,
        },
        next: cover.and_then(|cover| cover.next.first()).map(|run| run.at),
        points: points.collect(),
        deletes: Vec::new(),
    }
}

/// When the objective was broken, or will be if no restore point comes.
fn breach_at(cover: &Cover<'_>) -> Option<Timestamp> {
    let lasts = || Some(cover.policy.rpo?.after(cover.newest?.instant()));
    match cover.rpo {
        Rpo::Met => lasts(),
        other => other.at(),
    }
}

fn point_bits(point: &SeriesPoint<'_>, now: Timestamp) -> u32 {
    let mut bits = 0;
    match &point.fate {
        Fate::Kept(keeps) => {
            for keep in keeps.iter() {
                bits |= match keep {
                    Keep::Young { rule, .. } | Keep::Place { rule, .. } => rule_bit(*rule),
                    Keep::AtLeast { .. } => KEPT_ANYWAY,
                    Keep::NoRules | Keep::Quarantined => KEPT_OTHERWISE,
                    // Bits of their own say so.
                    Keep::Held | Keep::NotReady => 0,
                };
            }
        }
        Fate::LetGo(_) => bits |= LET_GO,
    }
    if point.image.stage != Stage::Active {
        bits |= DEPRECATED;
    }
    if point.is_held(now) {
        bits |= HELD;
    }
    if point.image.state != ImageState::Ready {
        bits |= NOT_READY;
    }
    if point.image.drilled_at().is_some() {
        bits |= DRILLED;
    }
    bits
}

fn rule_bit(rule: Rule) -> u32 {
    Rule::ALL.iter().position(|one| *one == rule).map_or(0, |position| 1 << position)
}

/// When restore points go: those that were let go, and of each rule the oldest that it alone keeps.
/// To ask of every one of them would take minutes where there are many.
fn deletes(series: &Series<'_>, is_whole: bool, now: Timestamp) -> Vec<(u32, u32)> {
    let mut asked: Vec<&SeriesPoint<'_>> = Vec::new();
    let mut rules_seen: u32 = 0;
    for point in &series.points {
        let rules = point_bits(point, now);
        let is_let_go = rules & (LET_GO | DEPRECATED) != 0;
        let rules = rules & (KEPT_ANYWAY - 1);
        let is_next = rules.is_power_of_two() && rules_seen & rules == 0;
        if is_next {
            rules_seen |= rules;
        }
        if is_let_go || is_next {
            asked.push(point);
        }
    }
    if asked.is_empty() {
        return Vec::new();
    }
    let prospect = Prospect::new(series, is_whole, now);
    let mut deletes: Vec<(u32, u32)> = asked
        .into_iter()
        .filter_map(|point| {
            let at = prospect.of(&point.image.id)?.deleted_at?;
            Some((minutes(point.key.slot.instant()), minutes(at)))
        })
        .collect();
    deletes.sort_by_key(|(slot, at)| (*at, *slot));
    deletes
}

/// What is said of the plan of a round, with what came of its changes.
pub fn carried_out(plan: &Plan, outcomes: &[Outcome], engine: &str) -> PlanRow {
    plan_row(plan, Some(outcomes), engine)
}

fn plan_row(plan: &Plan, outcomes: Option<&[Outcome]>, engine: &str) -> PlanRow {
    let endings: BTreeMap<usize, _> =
        outcomes.into_iter().flatten().map(|outcome| (outcome.change, &outcome.ending)).collect();
    let mut changes: Vec<(usize, &Change)> =
        plan.changes.iter().enumerate().filter(|(_, change)| change.engine == engine).collect();
    let count = changes.len();
    let mut results = BTreeMap::new();
    for ending in changes.iter().filter_map(|(position, _)| endings.get(position)) {
        *results.entry(ending.word().to_owned()).or_default() += 1;
    }
    changes.sort_by_key(|(_, change)| match change.action {
        Action::Delete => 0,
        Action::Obsolete | Action::Deprecate => 1,
        _ => 2,
    });
    changes.truncate(CHANGES_MAX);
    let row = |(position, change): &(usize, &Change)| ChangeRow {
        action: change.action.word().to_owned(),
        source: clean(&change.source_name),
        policy: change.key.policy.to_string(),
        image: clean(change.copy.as_ref().map_or(&change.image.name, |copy| &copy.name)),
        why: clean(
            &change
                .reasons
                .iter()
                .map(|reason| reason.detail.as_str())
                .collect::<Vec<_>>()
                .join("; "),
        ),
        result: endings.get(position).map(|ending| ending.word().to_owned()),
        message: endings.get(position).and_then(|ending| ending.message()).map(clean),
    };
    PlanRow {
        id: plan.id.clone(),
        at: plan.now,
        carried_out: outcomes.is_some(),
        count,
        results,
        changes: changes.iter().map(row).collect(),
        notes: notes(plan, engine),
    }
}

/// What else a plan says that people should know.
fn notes(plan: &Plan, engine: &str) -> Vec<String> {
    let mut notes: Vec<String> = Vec::new();
    let refusals = plan.refusals.iter().filter(|one| one.engine == engine && !one.overridden);
    notes.extend(refusals.map(|one| {
        let images = self::count(one.images.len(), "image");
        format!("guard {} keeps {images}: {}", one.guard.word(), one.message)
    }));
    let blocked = plan.blocked.iter().filter(|one| one.engine == engine);
    notes.extend(
        blocked.map(|one| format!("{} cannot be captured: {}", one.source_name, one.message)),
    );
    let stalled = plan.stalled.iter().filter(|one| one.engine == engine);
    notes.extend(stalled.map(|one| {
        format!("{} has no new restore point of {}: {}", one.source_name, one.policy, one.message)
    }));
    let missed = plan.missed.iter().filter(|one| one.engine == engine);
    notes.extend(missed.map(|one| {
        let slots = self::count(one.slots, "slot");
        let (policy, slot) = (&one.key.policy, one.key.slot.instant());
        format!("{} of {policy} missed {slots}, the last at {slot}", one.source_name)
    }));
    let more = notes.len().saturating_sub(NOTES_MAX);
    notes.truncate(NOTES_MAX);
    if more > 0 {
        notes.push(format!("and {more} more"));
    }
    notes.iter().map(|note| clean(note)).collect()
}

fn drills(series: &[Series<'_>]) -> Vec<DrillRow> {
    let mut drills: Vec<DrillRow> = Vec::new();
    for one in series {
        let drilled = |image: &Image| {
            Some(DrillRow {
                at: image.drilled_at()?,
                source: clean(one.source_name()),
                policy: one.policy.name.to_string(),
                image: clean(&image.name),
            })
        };
        drills
            .extend(one.points.iter().chain(&one.copies).filter_map(|point| drilled(point.image)));
    }
    drills.sort_by(|one, other| (other.at, &one.image).cmp(&(one.at, &other.image)));
    drills.truncate(DRILLS_MAX);
    drills
}

/// The policies in force, as they are now.
pub fn policy_rows(policies: &Policies, now: Timestamp) -> Vec<PolicyRow> {
    let row = |policy: &Policy| PolicyRow {
        name: policy.name.to_string(),
        engine: policy.engine.clone(),
        owner: clean(policy.owner.as_deref().unwrap_or_default()),
        schedule: format!(
            "{} {}",
            policy
                .schedule
                .crontabs
                .iter()
                .map(|crontab| crontab.as_str().to_owned())
                .collect::<Vec<_>>()
                .join(" and "),
            policy.schedule.zone.name()
        ),
        retention: policy
            .retention
            .effective()
            .map(|(rule, count)| format!("{}: {count}", rule.word()))
            .chain([format!("at least: {}", policy.retention.at_least)])
            .collect::<Vec<_>>()
            .join(", "),
        objective: policy.rpo.map(|rpo| rpo.to_string()).unwrap_or_default(),
        paused: match &policy.paused {
            None => String::new(),
            Some(pause) => pause
                .until
                .map_or_else(|| "without an end".to_owned(), |until| format!("until {until}")),
        },
        paused_until: policy.paused.as_ref().and_then(|pause| pause.until),
    };
    let passed = |mut row: PolicyRow| {
        row.pass(now);
        row
    };
    policies.policies.iter().map(row).map(passed).collect()
}

/// What was to be done, in words.
pub fn planned(summary: &Summary) -> String {
    let parts = [
        (summary.create, "create"),
        (summary.copy, "copy"),
        (summary.drill, "drill"),
        (summary.reactivate, "reactivate"),
        (summary.relabel, "relabel"),
        (summary.deprecate, "deprecate"),
        (summary.obsolete, "obsolete"),
        (summary.delete, "delete"),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
}

/// The last rounds that a ledger tells of, the newest first.
pub fn rounds_of(ledger: &[Value]) -> Vec<RoundRow> {
    let mut rounds: Vec<RoundRow> = Vec::new();
    let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    for line in ledger {
        let Ok(at) = text(line, "at").parse::<Timestamp>() else { continue };
        match line["event"].as_str() {
            Some("round-began") => {
                let engines = line["engines"].as_array().into_iter().flatten();
                let engines: Vec<String> =
                    engines.map(|engine| clean(&text(engine, "name"))).collect();
                let summary: Option<Summary> = serde_json::from_value(line["summary"].clone()).ok();
                rounds.push(RoundRow {
                    engine: engines.join(", "),
                    began_at: at,
                    ended_at: None,
                    plan: clean(&text(line, "plan")),
                    planned: summary.map(|summary| planned(&summary)).unwrap_or_default(),
                    results: String::new(),
                });
            }
            Some("round-ended") => {
                let plan = text(line, "plan");
                let began = rounds
                    .iter_mut()
                    .rev()
                    .find(|round| round.plan == plan && round.ended_at.is_none());
                if let Some(round) = began {
                    round.ended_at = Some(at);
                    let results = ["done", "found", "failed", "skipped", "refused", "left"];
                    let results = results.into_iter().filter_map(|word| {
                        let count = line[word].as_u64().filter(|count| *count > 0)?;
                        Some(format!("{count} {word}"))
                    });
                    round.results = results.collect::<Vec<_>>().join(", ");
                }
            }
            _ => {}
        }
    }
    rounds.reverse();
    rounds.truncate(ROUNDS_MAX);
    rounds
}
