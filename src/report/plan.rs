//! A plan as text: the verdict first, deletes never folded away and grouped by what they cost.

mod budget;
mod captures;
mod page;
mod said;
mod schedule;

pub use page::plan_page;

use serde::Serialize;

use super::text::{bytes, clean, count, grouped, minute, second, table, withheld};
use super::{Row, Section, render};
use crate::desired::MISSED_MAX;
use crate::elapsed::Elapsed;
use crate::inventory;
use crate::plan::guard::SHORT_ID;
use crate::plan::{Action, Change, Create, HeldBack, ImageRef, Kept, Plan, Reason, ReasonCode};
use crate::policy::Risk;

/// What the template sees.
#[derive(Debug, Serialize)]
struct PlanView {
    title: String,
    counts: Vec<Row>,
    sections: Vec<Section>,
}

/// A plan for people.
pub fn plan_text(plan: &Plan) -> String {
    let mut sections = Vec::new();
    sections.extend(gaps(plan));
    sections.extend(said::overdue(plan));
    sections.extend(refusals(plan));
    for risk in [Risk::LastPoint, Risk::ShortensReach, Risk::SourceGone, Risk::Rotation] {
        sections.extend(deletes(plan, risk));
    }
    sections.extend(changes(plan, Action::Obsolete, "mark obsolete", "change"));
    sections.extend(changes(plan, Action::Deprecate, "deprecate", "change"));
    sections.extend(changes(plan, Action::Relabel, "relabel", "change"));
    sections.extend(changes(plan, Action::Reactivate, "reactivate", "back"));
    sections.extend(creates(plan));
    sections.extend(copies(plan));
    sections.extend(drills(plan));
    sections.extend(said::being_made(plan));
    sections.extend(said::not_known(plan));
    sections.extend(held_back(plan));
    sections.extend(others(plan));
    sections.extend(unprotected(plan));
    sections.extend(exempt(plan));
    sections.extend(budget::budget(plan));
    sections.extend(schedule::schedules(plan));
    let view = PlanView { title: title(plan), counts: verdict(plan), sections };
    render(include_str!("templates/plan.txt.hbs"), &view)
}

fn title(plan: &Plan) -> String {
    let instances: usize = plan.engines.iter().map(|engine| engine.instances).sum();
    let images: usize = plan.engines.iter().map(|engine| engine.images).sum();
    let complete = plan.engines.iter().filter(|engine| engine.complete).count();
    let engines = if complete == plan.engines.len() {
        format!("{} seen complete", count(complete, "engine"))
    } else {
        format!("{complete} of {} seen complete", count(plan.engines.len(), "engine"))
    };
    format!(
        "Plan {} · policies {} · {engines} at {} ({}, {})",
        plan.id.get(..SHORT_ID).unwrap_or(&plan.id),
        plan.policies_digest.get(..SHORT_ID).unwrap_or(&plan.policies_digest),
        minute(plan.now),
        count(instances, "instance"),
        count(images, "image"),
    )
}

fn verdict(plan: &Plan) -> Vec<Row> {
    let summary = &plan.summary;
    if !summary.has_changes() {
        let is_sure = plan.engines.iter().all(|engine| engine.complete) && summary.blocked == 0;
        let what = match (is_sure, summary.waiting) {
            (true, 0) => "Nothing to do.",
            (true, _) => "Nothing to do yet.",
            (false, _) => "Nothing can be done.",
        };
        let mut rows = vec![Row::new("plain", format!("{what} = {} keep", grouped(summary.keep)))];
        rows.extend(attention(plan));
        return rows;
    }
    let mut rows = vec![Row::new("create", format!("+ {} create", grouped(summary.create)))];
    let mut add = |mark: char, number: usize, word: &str, style: &'static str| {
        if number > 0 {
            rows.push(Row::new(style, format!("{mark} {} {word}", grouped(number))));
        }
    };
    add('^', summary.reactivate, "reactivate", "back");
    add('≈', summary.relabel, "relabel", "change");
    add('»', summary.copy, "copy", "create");
    add('✓', summary.drill, "drill", "back");
    add('~', summary.deprecate, "deprecate", "change");
    add('~', summary.obsolete, "mark obsolete", "change");
    let managed: usize = plan.engines.iter().map(|engine| engine.managed).sum();
    let share = if summary.delete > 0 && managed > 0 {
        // Hundredths of a percent, without the rounding of floats.
        let hundredths = summary.delete * 10_000 / managed;
        format!(" ({}.{:02} %)", hundredths / 100, hundredths % 100)
    } else {
        String::new()
    };
    let style = if summary.delete > 0 { "delete" } else { "plain" };
    rows.push(Row::new(style, format!("- {} delete{share}", grouped(summary.delete))));
    rows.push(Row::new("plain", format!("= {} keep", grouped(summary.keep))));
    rows.extend(attention(plan));
    rows
}

fn attention(plan: &Plan) -> Vec<Row> {
    let summary = &plan.summary;
    [
        ('!', summary.held_back, "held back"),
        ('!', summary.missed, "missed"),
        ('!', summary.blocked, "blocked"),
        ('…', summary.waiting, "waiting for their turn"),
        ('!', summary.stalled, "stalled"),
        ('?', summary.quarantined, "dated in the future"),
        (
            '!',
            summary.paused,
            if summary.paused == 1 {
                "policy paused or blacked out"
            } else {
                "policies paused or blacked out"
            },
        ),
        ('»', summary.creating, "begun and not READY yet"),
        ('?', summary.unprotected, "unprotected"),
        ('?', summary.exempt, "exempt"),
    ]
    .into_iter()
    .filter(|(_, number, _)| *number > 0)
    .map(|(mark, number, word)| Row::new("held", format!("{mark} {} {word}", grouped(number))))
    .collect()
}

fn section(title: String, style: &'static str, rows: Vec<Row>) -> Option<Section> {
    (!rows.is_empty()).then_some(Section { title, style, rows })
}

/// Rows of aligned cells.
fn rows(style: &'static str, cells: &[Vec<String>]) -> Vec<Row> {
    table(cells).into_iter().map(|line| Row::new(style, line)).collect()
}

fn gaps(plan: &Plan) -> Option<Section> {
    let mut rows = Vec::new();
    for engine in &plan.engines {
        for gap in inventory::told(&engine.gaps) {
            rows.push(Row::new("delete", format!("! {}: {}", engine.name, clean(&gap.place))));
            if let Some(row) = rows.last_mut() {
                row.notes.push(clean(&gap.message));
            }
        }
    }
    section(format!("! not seen, so nothing is deleted there ({})", rows.len()), "delete", rows)
}

fn refusals(plan: &Plan) -> Option<Section> {
    let rows: Vec<Row> = plan
        .refusals
        .iter()
        .map(|refusal| {
            let what = if refusal.overridden { "overridden" } else { "refused" };
            let mut row = Row::new(
                "held",
                format!("! {what}: {}: {}", refusal.guard.word(), clean(&refusal.message)),
            );
            row.notes.push(withheld(refusal));
            if refusal.overridden {
                row.notes = vec![format!(
                    "{} will be deleted, because the override was given",
                    count(refusal.images.len(), "image")
                )];
            } else if let Some(flag) = &refusal.override_flag {
                row.notes.push(format!("if that is meant: {flag}"));
                row.notes.extend(refusal.classes.iter().map(|class| {
                    format!("or, of a saved plan: stillframe approve PLAN --class {}", class.word())
                }));
            }
            row
        })
        .collect();
    section("! guards".to_owned(), "held", rows)
}

fn deletes(plan: &Plan, risk: Risk) -> Option<Section> {
    let of_class: Vec<&Change> = plan
        .changes
        .iter()
        .filter(|change| change.action == Action::Delete && change.risk == Some(risk))
        .collect();
    let consequence = match risk {
        Risk::LastPoint => "last point of a source",
        Risk::ShortensReach => "shortens the reach",
        Risk::SourceGone => "source gone",
        Risk::Rotation => "rotation",
    };
    let cells: Vec<Vec<String>> = of_class
        .iter()
        .map(|change| {
            let mut cells = image_cells(plan, '-', &change.source_name, change, &change.image);
            let newest = change.newest_ready.map_or_else(
                || "; no READY restore point left".to_owned(),
                |slot| format!("; newest ready {}", minute(slot.instant())),
            );
            cells.push(format!("{}{newest}", reasons(&change.reasons)));
            cells
        })
        .collect();
    section(
        format!("- delete, {consequence} ({})", grouped(cells.len())),
        "delete",
        rows("delete", &cells),
    )
}

fn changes(plan: &Plan, action: Action, word: &str, style: &'static str) -> Option<Section> {
    let cells: Vec<Vec<String>> = plan
        .changes
        .iter()
        .filter(|change| change.action == action)
        .map(|change| {
            let mut cells =
                image_cells(plan, action.mark(), &change.source_name, change, &change.image);
            cells.push(reasons(&change.reasons));
            cells
        })
        .collect();
    section(
        format!("{} {word} ({})", action.mark(), grouped(cells.len())),
        style,
        rows(style, &cells),
    )
}

/// Mark, source, image, age of the slot, size, location.
fn image_cells(
    plan: &Plan,
    mark: char,
    source: &str,
    change: &Change,
    image: &ImageRef,
) -> Vec<String> {
    vec![
        format!("{mark} {}", clean(source)),
        clean(&image.name),
        Elapsed::between(change.key.slot.instant(), plan.now).rough(),
        image.stored_bytes.map(bytes).unwrap_or_default(),
        clean(&image.location),
    ]
}

fn reasons(reasons: &[Reason]) -> String {
    let texts: Vec<String> = reasons.iter().map(|reason| clean(&reason.detail)).collect();
    texts.join("; ")
}

fn creates(plan: &Plan) -> Option<Section> {
    let creates: Vec<_> = plan
        .changes
        .iter()
        .filter_map(|change| change.create.as_ref().map(|create| (change, create)))
        .collect();
    let cells: Vec<Vec<String>> = creates
        .iter()
        .map(|(change, create)| {
            let key = create
                .kms_key
                .as_ref()
                .map(|key| format!(" under {}", clean(key)))
                .unwrap_or_default();
            vec![
                format!("+ {}", clean(&change.source_name)),
                clean(&change.image.name),
                size_to_create(change, create),
                format!("→ {}{key}", clean(&change.image.location)),
                reasons(&change.reasons),
            ]
        })
        .collect();
    let mut rows = rows("create", &cells);
    for (row, (_, create)) in rows.iter_mut().zip(&creates) {
        row.notes.extend(captures::notes(create));
        row.notes.extend(create.problems.iter().map(|problem| format!("! {}", clean(problem))));
    }
    section(format!("+ create ({})", grouped(rows.len())), "create", rows)
}

/// How much is captured. What is imported was not looked into.
fn size_to_create(change: &Change, create: &Create) -> String {
    let disks = count(create.disks.len(), "disk");
    if change.reasons.iter().any(|reason| reason.code == ReasonCode::Imported) {
        return disks;
    }
    format!("{} in {disks}", bytes(create.disk_bytes))
}

fn copies(plan: &Plan) -> Option<Section> {
    let copies = plan.changes.iter().filter_map(|change| Some((change, change.copy.as_ref()?)));
    let cells: Vec<Vec<String>> = copies
        .map(|(change, copy)| {
            let mut cells = image_cells(plan, '»', &change.source_name, change, &change.image);
            cells.push(format!("→ {}", clean(&copy.location)));
            cells.push(reasons(&change.reasons));
            cells
        })
        .collect();
    section(format!("» copy ({})", grouped(cells.len())), "create", rows("create", &cells))
}

fn drills(plan: &Plan) -> Option<Section> {
    let drills = plan.changes.iter().filter_map(|change| Some((change, change.drill?)));
    let cells: Vec<Vec<String>> = drills
        .map(|(change, check)| {
            let mut cells = image_cells(plan, '✓', &change.source_name, change, &change.image);
            cells.push(format!("by {}", check.word()));
            cells.push(reasons(&change.reasons));
            cells
        })
        .collect();
    section(format!("✓ drill ({})", grouped(cells.len())), "back", rows("back", &cells))
}

fn held_back(plan: &Plan) -> Option<Section> {
    let cells: Vec<Vec<String>> =
        plan.held_back.iter().map(|held| held_cells(plan, held)).collect();
    section(format!("! held back ({})", grouped(cells.len())), "held", rows("held", &cells))
}

fn held_cells(plan: &Plan, held: &HeldBack) -> Vec<String> {
    vec![
        format!("! {}", clean(&held.source_name)),
        clean(&held.image.name),
        Elapsed::between(held.key.slot.instant(), plan.now).rough(),
        format!("not {}d", held.action.word().trim_end_matches('e').to_owned() + "e"),
        reasons(&held.reasons),
    ]
}

/// What was missed, is blocked, has no policy or broken labels.
fn others(plan: &Plan) -> Vec<Section> {
    let missed = plan.missed.iter().map(|missed| {
        vec![
            format!("! {}", clean(&missed.source_name)),
            missed.key.policy.to_string(),
            match missed.slots {
                1 => format!("slot {}", minute(missed.key.slot.instant())),
                slots => format!(
                    "{}{} slots, {} to {}",
                    grouped(slots),
                    if slots >= MISSED_MAX { " or more" } else { "" },
                    minute(missed.first.instant()),
                    minute(missed.key.slot.instant())
                ),
            },
        ]
    });
    let blocked = plan.blocked.iter().map(|blocked| {
        vec![
            format!("! {}", clean(&blocked.source_name)),
            blocked.key.policy.to_string(),
            format!("slot {}", minute(blocked.key.slot.instant())),
            clean(&blocked.message),
        ]
    });
    let waiting = plan.waiting.iter().map(|waiting| {
        vec![
            format!("… {}", clean(&waiting.source_name)),
            waiting.key.policy.to_string(),
            format!("slot {}", minute(waiting.key.slot.instant())),
            format!("not before {}: {}", second(waiting.until), clean(&waiting.message)),
        ]
    });
    let orphans = plan.orphans.iter().map(|orphans| {
        vec![
            format!("? {}", orphans.policy),
            orphans.engine.clone(),
            count(orphans.images, "image"),
            schedule::why_gone(plan, orphans).to_owned(),
        ]
    });
    let broken = plan.broken.iter().map(|broken| {
        vec![format!("? {}", clean(&broken.name)), broken.engine.clone(), clean(&broken.message)]
    });
    let group = |title: &str, cells: Vec<Vec<String>>| {
        section(format!("{title} ({})", grouped(cells.len())), "held", rows("held", &cells))
    };
    [
        group("! missed: the past cannot be captured", missed.collect()),
        group("! blocked", blocked.collect()),
        group("… waiting for the turn of their source", waiting.collect()),
        group("! stalled: nothing of these is deleted", stalled(plan)),
        group("? dated in the future", quarantined(plan)),
        group("? policies that are gone", orphans.collect()),
        group("? labels that do not read back; left alone", broken.collect()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn stalled(plan: &Plan) -> Vec<Vec<String>> {
    plan.stalled
        .iter()
        .map(|stalled| {
            let since = stalled.newest_ready.map_or_else(
                || "no READY restore point".to_owned(),
                |slot| format!("no READY restore point since {}", minute(slot.instant())),
            );
            vec![
                format!("! {}", clean(&stalled.source_name)),
                stalled.policy.to_string(),
                since,
                clean(&stalled.message),
            ]
        })
        .collect()
}

fn quarantined(plan: &Plan) -> Vec<Vec<String>> {
    let is_future =
        |kept: &&Kept| kept.reasons.iter().any(|reason| reason.code == ReasonCode::Quarantined);
    plan.kept
        .iter()
        .filter(is_future)
        .map(|kept| {
            vec![
                format!("? {}", clean(&kept.name)),
                kept.engine.to_string(),
                format!("slot {}", minute(kept.key.slot.instant())),
                "kept, and it moves no other".to_owned(),
            ]
        })
        .collect()
}

fn unprotected(plan: &Plan) -> Option<Section> {
    let cells: Vec<Vec<String>> = plan
        .unprotected
        .iter()
        .map(|instance| {
            let why = match (&instance.excluded_by, &instance.condition) {
                (Some(policy), Some(condition)) => {
                    format!("excluded by {policy}: {}", clean(condition))
                }
                _ => "no policy selects it".to_owned(),
            };
            vec![format!("? {}", clean(&instance.name)), instance.engine.clone(), why]
        })
        .collect();
    section(format!("? unprotected ({})", grouped(cells.len())), "held", rows("held", &cells))
}

fn exempt(plan: &Plan) -> Option<Section> {
    let cells: Vec<Vec<String>> = plan
        .exempt
        .iter()
        .map(|exempt| {
            vec![
                format!("? {}", clean(&exempt.name)),
                exempt.engine.clone(),
                format!("until {}", minute(exempt.until)),
                format!("{}: {}", clean(&exempt.owner), clean(&exempt.reason)),
            ]
        })
        .collect();
    let title = format!("? exempt: meant to be without protection ({})", grouped(cells.len()));
    section(title, "dim", rows("dim", &cells))
}
