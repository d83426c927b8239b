//! What came of a round, and what is protected now.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::text::{bytes, clean, count, minute, second, table, withheld};
use super::{Row, Section, render};
use crate::apply::{Doer, Ending, Outcome};
use crate::elapsed::Elapsed;
use crate::engine::{EngineError, Settled};
use crate::inventory::{ImageState, Instance, Inventory};
use crate::name::{Ownership, PolicyName, Slot, SourceId};
use crate::plan::guard::Guard;
use crate::plan::{Action, Change};
use crate::policy::select::Decision;
use crate::policy::{Policies, Policy};
use crate::reconcile::Round;
use crate::retention::CLOCK_SKEW;

/// How well a source is protected by a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Protection {
    /// The engine.
    pub engine: String,
    /// The name of the source.
    pub source: String,
    /// Its id.
    pub source_id: SourceId,
    /// The policy.
    pub policy: PolicyName,
    /// How many READY restore points there are, copies not counted.
    pub ready: usize,
    /// How many READY copies of restore points there are in other locations.
    pub copies: usize,
    /// The newest restore point; the newest copy where there are only copies.
    pub newest: Slot,
    /// The oldest.
    pub oldest: Slot,
    /// Bytes they take in the store.
    pub stored_bytes: u64,
    /// When the next one is due.
    pub next: Option<Slot>,
    /// Whether the policy makes none at present.
    pub paused: bool,
}

/// What is protected in an inventory.
pub fn protection(policies: &Policies, inventory: &Inventory, now: Timestamp) -> Vec<Protection> {
    let mut found: BTreeMap<(String, SourceId, PolicyName), Protection> = BTreeMap::new();
    // What is dated in the future proves nothing.
    let horizon = CLOCK_SKEW.after(now);
    for engine in &inventory.engines {
        let ready = || engine.images.iter().filter(|image| image.state == ImageState::Ready);
        let copies = ready().filter(|image| image.is_copy());
        for image in ready().filter(|image| !image.is_copy()).chain(copies) {
            let Ownership::Ours(key) = image.ownership() else { continue };
            if key.slot.instant() > horizon {
                continue;
            }
            let keeper = policies.keeper(&key.policy);
            let keeper = keeper.filter(|policy| policy.engine == engine.name);
            // What a policy made under a name that it had is of the same series.
            let policy = keeper.map_or(&key.policy, |keeper| &keeper.name);
            let instance = engine.instances.iter().find(|instance| instance.id == key.source);
            let remembered = image.source.as_ref().map(|source| source.name.clone());
            let source = instance.map(|instance| instance.name.clone()).or(remembered);
            let entry = found
                .entry((engine.name.clone(), key.source.clone(), policy.clone()))
                .or_insert_with(|| Protection {
                    engine: engine.name.clone(),
                    source: source.unwrap_or_else(|| key.source.to_string()),
                    source_id: key.source.clone(),
                    policy: policy.clone(),
                    ready: 0,
                    copies: 0,
                    newest: key.slot,
                    oldest: key.slot,
                    stored_bytes: 0,
                    paused: keeper.is_some_and(|policy| {
                        policy.pauses_at(now).iter().any(|pause| pause.creates)
                    }),
                    next: keeper
                        .filter(|policy| instance.is_some_and(|one| selects(policy, one)))
                        .and_then(|policy| policy.schedule.next_slot(now)),
                });
            let is_copy = image.is_copy();
            entry.copies += usize::from(is_copy);
            entry.ready += usize::from(!is_copy);
            if !is_copy || entry.ready == 0 {
                entry.newest = entry.newest.max(key.slot);
                entry.oldest = entry.oldest.min(key.slot);
            }
            entry.stored_bytes += image.stored_bytes.unwrap_or(0);
        }
    }
    let mut protections: Vec<Protection> = found.into_values().collect();
    protections.sort_by(|one, other| {
        (&one.engine, &one.source, &one.policy).cmp(&(&other.engine, &other.source, &other.policy))
    });
    protections
}

fn selects(policy: &Policy, instance: &Instance) -> bool {
    matches!(policy.selection.decide(instance), Decision::Selected(_))
}

/// Where copies are counted, if there are any.
const COPIES_COLUMN: usize = 3;

/// What is protected, as a table.
pub fn protection_text(protections: &[Protection], now: Timestamp) -> String {
    let mut rows = vec![
        ["SOURCE", "POLICY", "READY", "COPIES", "NEWEST", "AGE", "OLDEST", "STORED", "NEXT"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(protections.iter().map(|one| {
        vec![
            clean(&one.source),
            one.policy.to_string(),
            one.ready.to_string(),
            one.copies.to_string(),
            minute(one.newest.instant()),
            Elapsed::between(one.newest.instant(), now).rough(),
            minute(one.oldest.instant()),
            bytes(one.stored_bytes),
            match one.next {
                _ if one.paused => "paused".to_owned(),
                Some(slot) => minute(slot.instant()),
                None => "never".to_owned(),
            },
        ]
    }));
    if protections.iter().all(|one| one.copies == 0) {
        for row in &mut rows {
            row.remove(COPIES_COLUMN);
        }
    }
    table(&rows).iter().map(|line| format!("  {line}\n")).collect()
}

/// What the template sees.
#[derive(Debug, Serialize)]
struct ApplyView {
    sections: Vec<Section>,
    verdict: String,
    style: &'static str,
}

/// What came of a round, for people: what went wrong first.
pub fn apply_text(round: &Round) -> String {
    let mut sections = Vec::new();
    let problems = problem_rows(round);
    if !problems.is_empty() {
        sections.push(Section { title: "! not done".to_owned(), style: "delete", rows: problems });
    }
    let found = found_rows(round);
    if !found.is_empty() {
        sections.push(Section {
            title: "= done by another run".to_owned(),
            style: "plain",
            rows: found,
        });
    }
    let needless = needless_rows(round);
    if !needless.is_empty() {
        let title = "= not needed".to_owned();
        sections.push(Section { title, style: "plain", rows: needless });
    }
    let drilled = drilled_rows(round);
    if !drilled.is_empty() {
        let title = "✓ proven restorable".to_owned();
        sections.push(Section { title, style: "back", rows: drilled });
    }
    let settled = settled_rows(&round.settled);
    if !settled.is_empty() {
        sections.push(Section { title: "space".to_owned(), style: "heading", rows: settled });
    }
    let standing = standing_rows(&round.settled);
    if !standing.is_empty() {
        let style = if overdue(&round.settled) > 0 { "delete" } else { "held" };
        let title = "machines that stand still".to_owned();
        sections.push(Section { title, style, rows: standing });
    }
    let refused = refused_rows(round);
    if !refused.is_empty() {
        let title = "! refused by guards".to_owned();
        sections.push(Section { title, style: "delete", rows: refused });
    }
    if let Some(note) = &round.unwritten {
        let rows = vec![Row::new("delete", format!("! {}", clean(note)))];
        sections.push(Section { title: "ledger".to_owned(), style: "heading", rows });
    }
    let (verdict, style) = verdict(round);
    render(include_str!("templates/apply.txt.hbs"), &ApplyView { sections, verdict, style })
}

fn change_of<'a>(round: &'a Round, outcome: &Outcome) -> Option<&'a Change> {
    round.plan.changes.get(outcome.change)
}

fn problem_rows(round: &Round) -> Vec<Row> {
    let mut rows = Vec::new();
    for outcome in round.outcomes.iter().filter(|outcome| !outcome.ending.is_settled()) {
        let Some(change) = change_of(round, outcome) else { continue };
        let what = match &outcome.ending {
            // Told guard by guard.
            Ending::Refused => continue,
            Ending::Left => "interrupted before its turn; the next run carries on".to_owned(),
            Ending::GivenUp => {
                "interrupted; a service may still finish it, and the next run takes up what is there"
                    .to_owned()
            }
            Ending::UnderWay => "under way; it goes on".to_owned(),
            ending => ending.message().map(clean).unwrap_or_default(),
        };
        let mut row = Row::new(
            "delete",
            format!(
                "! {} {}  {}",
                change.action.word(),
                clean(&change.source_name),
                clean(&change.image.name)
            ),
        );
        row.notes.push(format!("{}: {what}", outcome.ending.word()));
        rows.push(row);
    }
    for blocked in &round.plan.blocked {
        let mut row = Row::new(
            "delete",
            format!("! create {}  by {}", clean(&blocked.source_name), blocked.key.policy),
        );
        row.notes.push(format!("blocked: {}", clean(&blocked.message)));
        rows.push(row);
    }
    for waiting in &round.plan.waiting {
        let mut row = Row::new(
            "held",
            format!("… create {}  by {}", clean(&waiting.source_name), waiting.key.policy),
        );
        let until = (second(waiting.until), second(waiting.deadline));
        row.notes.push(format!("waiting: run again from {} to {}", until.0, until.1));
        rows.push(row);
    }
    for change in &round.not_approved {
        let mut row = Row::new(
            "held",
            format!(
                "! {} {}  {}",
                change.action.word(),
                clean(&change.source_name),
                clean(&change.image.name)
            ),
        );
        let id = change.image.id.clone().unwrap_or_default();
        let is_changed = round.changed.contains(&(change.engine.clone(), id));
        let awaited = change.waits_for.as_ref().or(change.unless.as_ref());
        let mut new = round.not_approved.iter().filter(|other| other.create.is_some());
        let note = if awaited.is_some_and(|name| new.any(|other| other.image.name == *name)) {
            "it hangs on a capture that was not approved; the next run shows it"
        } else if is_changed {
            "it has changed since the plan was approved, and is left alone; the next run shows it"
        } else {
            "new since the plan was approved; the next run shows it"
        };
        row.notes.push(note.to_owned());
        rows.push(row);
    }
    rows
}

/// What guards refused, and the flags that say that it is meant.
fn refused_rows(round: &Round) -> Vec<Row> {
    let refusals = round.plan.refusals.iter().filter(|refusal| !refusal.overridden);
    refusals
        .map(|refusal| {
            let text = format!("! {}: {}", refusal.guard.word(), withheld(refusal));
            let mut row = Row::new("held", text);
            if refusal.guard == Guard::Check {
                row.notes.push(clean(&refusal.message));
            }
            if let Some(flag) = &refusal.override_flag {
                row.notes.push(format!("if that is meant: {flag}"));
            }
            row
        })
        .collect()
}

fn found_rows(round: &Round) -> Vec<Row> {
    round
        .outcomes
        .iter()
        .filter_map(|outcome| {
            let Ending::Found { by, .. } = &outcome.ending else { return None };
            let change = change_of(round, outcome)?;
            let (action, image) = (change.action.word(), clean(&change.image.name));
            let on = by.as_ref().map(|by| format!(", {}", host_of(by))).unwrap_or_default();
            Some(Row::new("plain", format!("= {action} {image}{on}")))
        })
        .collect()
}

/// What is said of a change that was found done.
pub fn done_by(by: &Doer) -> String {
    let comma = if by.is_here { "" } else { "," };
    format!("done by another run{comma} {}", host_of(by))
}

/// Where a run was that has done something.
pub fn host_of(by: &Doer) -> String {
    if by.is_here { "on this host".to_owned() } else { format!("on {}", clean(&by.host)) }
}

/// Of what nothing is left to do.
fn needless_rows(round: &Round) -> Vec<Row> {
    let rows = round.outcomes.iter().filter_map(|outcome| {
        let Ending::Needless { message } = &outcome.ending else { return None };
        let change = change_of(round, outcome)?;
        let (action, image) = (change.action.word(), clean(&change.image.name));
        Some(Row::new("plain", format!("= {action} {image}: {}", clean(message))))
    });
    rows.collect()
}

fn drilled_rows(round: &Round) -> Vec<Row> {
    let done = round.outcomes.iter().filter(|outcome| outcome.ending.is_done());
    done.filter_map(|outcome| {
        let change = change_of(round, outcome)?;
        let (source, image) = (clean(&change.source_name), clean(&change.image.name));
        let how = change.drill?.word();
        Some(Row::new("back", format!("✓ {source}  {image}  by {how}")))
    })
    .collect()
}

/// What engines have kept of their promises beside a plan that nobody approved.
pub fn settled_text(settled: &[(String, Result<Settled, EngineError>)]) -> String {
    let rows = settled_rows(settled).into_iter().chain(standing_rows(settled));
    rows.map(|row| format!("{}\n", row.text)).collect()
}

/// How many machines should run and do not.
fn overdue(settled: &[(String, Result<Settled, EngineError>)]) -> usize {
    settled.iter().flat_map(|(_, settled)| settled.iter()).flat_map(Settled::overdue).count()
}

/// Machines that stand still for a capture.
fn standing_rows(settled: &[(String, Result<Settled, EngineError>)]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (engine, settled) in settled {
        for one in settled.iter().flat_map(|settled| &settled.standing) {
            let (style, mark) = if one.is_overdue { ("delete", "! ") } else { ("held", "") };
            rows.push(Row::new(style, format!("{mark}{engine}: {}", clean(&one.message))));
        }
    }
    rows
}

fn settled_rows(settled: &[(String, Result<Settled, EngineError>)]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (engine, settled) in settled {
        match settled {
            Ok(settled) => {
                if settled.freed_bytes > 0 {
                    rows.push(Row::new(
                        "plain",
                        format!("{engine}: {} given back", bytes(settled.freed_bytes)),
                    ));
                }
                rows.extend(
                    settled
                        .postponed
                        .iter()
                        .map(|text| Row::new("held", format!("{engine}: {}", clean(text)))),
                );
            }
            Err(error) => {
                rows.push(Row::new("delete", format!("! {engine}: {}", clean(&error.to_string()))));
            }
        }
    }
    rows
}

fn verdict(round: &Round) -> (String, &'static str) {
    let number = |action: Action| {
        let is_it = |outcome: &&Outcome| {
            outcome.ending.is_done()
                && change_of(round, outcome).is_some_and(|change| change.action == action)
        };
        round.outcomes.iter().filter(is_it).count()
    };
    let not_done = round.outcomes.iter().filter(|outcome| !outcome.ending.is_settled()).count();
    let parts: Vec<String> = [
        (Action::Create, "created"),
        (Action::Reactivate, "reactivated"),
        (Action::Relabel, "relabelled"),
        (Action::Copy, "copied"),
        (Action::Drill, "proven restorable"),
        (Action::Deprecate, "deprecated"),
        (Action::Obsolete, "marked obsolete"),
        (Action::Delete, "deleted"),
    ]
    .into_iter()
    .map(|(action, word)| (number(action), word))
    .filter(|(number, _)| *number > 0)
    .map(|(number, word)| format!("{number} {word}"))
    .collect();
    let not_done = not_done + round.plan.blocked.len();
    let unseen = round.plan.engines.iter().any(|engine| !engine.complete);
    let overdue = overdue(&round.settled);
    if not_done > 0 && parts.is_empty() {
        (format!("Not applied: {} not done.", count(not_done, "change")), "delete")
    } else if not_done > 0 {
        let done = parts.join(", ");
        (format!("Partly applied: {done}; {} not done.", count(not_done, "change")), "delete")
    } else if overdue > 0 {
        let done =
            if parts.is_empty() { "Nothing else to do".to_owned() } else { parts.join(", ") };
        let machines = count(overdue, "machine");
        (format!("{done}; {machines} stopped for a capture and not started again."), "delete")
    } else if round.outcomes.is_empty() && unseen {
        ("Nothing can be done: not everything was seen.".to_owned(), "delete")
    } else if round.outcomes.is_empty() && !round.plan.waiting.is_empty() {
        ("Nothing to do yet.".to_owned(), "held")
    } else if round.outcomes.is_empty() {
        ("Nothing to do.".to_owned(), "create")
    } else {
        (format!("Applied: {}.", parts.join(", ")), "create")
    }
}
