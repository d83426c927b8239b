//! A plan as a page: for pull requests and browsers.

use super::super::page::{Page, Part, Text, Weight};
use super::super::text::{bytes, count, grouped, minute, second, withheld};
use super::{title, verdict};
use crate::elapsed::Elapsed;
use crate::inventory::told;
use crate::plan::{Action, Change, Plan};
use crate::policy::Risk;

/// A plan for people who do not sit at the terminal.
pub fn plan_page(plan: &Plan) -> Page {
    let mut parts = vec![gaps(plan), guards(plan)];
    for risk in [Risk::LastPoint, Risk::ShortensReach, Risk::SourceGone, Risk::Rotation] {
        parts.push(deletes(plan, risk));
    }
    for action in [
        Action::Obsolete,
        Action::Deprecate,
        Action::Relabel,
        Action::Reactivate,
        Action::Create,
        Action::Copy,
        Action::Drill,
    ] {
        parts.push(changes(plan, action));
    }
    parts.extend([held_back(plan), blocked(plan), waiting(plan), unprotected(plan)]);
    parts.retain(|part| !part.is_empty());
    let counts = verdict(plan).into_iter().map(|row| {
        let weight = match row.style {
            "delete" => Weight::Danger,
            "held" => Weight::Notice,
            _ => Weight::Change,
        };
        (weight, Text::own(row.text))
    });
    Page { title: title(plan), verdict: counts.collect(), parts, footer: footer(plan) }
}

fn footer(plan: &Plan) -> Vec<Text> {
    let text = format!("Plan {} of policies {}.", plan.id, plan.policies_digest);
    vec![Text::own(text)]
}

fn gaps(plan: &Plan) -> Part {
    let columns = ["engine", "place", "why"];
    let mut part = Part::table("Not seen, so nothing is deleted there", Weight::Notice, &columns);
    for engine in &plan.engines {
        part.rows.extend(told(&engine.gaps).map(|gap| {
            vec![
                Text::foreign(&engine.name),
                Text::foreign(&gap.place),
                Text::foreign(&gap.message),
            ]
        }));
    }
    part
}

fn guards(plan: &Plan) -> Part {
    let columns = ["guard", "", "why", "if that is meant"];
    let mut part = Part::table("Guards", Weight::Notice, &columns);
    part.rows = plan
        .refusals
        .iter()
        .map(|refusal| {
            let what = if refusal.overridden { "overridden".to_owned() } else { withheld(refusal) };
            vec![
                Text::own(refusal.guard.word()),
                Text::own(what),
                Text::foreign(&refusal.message),
                refusal.override_flag.as_ref().map(Text::foreign).unwrap_or_default(),
            ]
        })
        .collect();
    part
}

fn deletes(plan: &Plan, risk: Risk) -> Part {
    let consequence = match risk {
        Risk::LastPoint => "last point of a source",
        Risk::ShortensReach => "shortens the reach",
        Risk::SourceGone => "source gone",
        Risk::Rotation => "rotation",
    };
    let is_such = |change: &&Change| change.action == Action::Delete && change.risk == Some(risk);
    let weight = if risk == Risk::Rotation { Weight::Change } else { Weight::Danger };
    table(plan, &format!("Delete, {consequence}"), weight, is_such)
}

fn changes(plan: &Plan, action: Action) -> Part {
    let word = action.word();
    let title = format!("{}{}", word[..1].to_uppercase(), &word[1..]);
    table(plan, &title, Weight::Change, |change| change.action == action)
}

fn table(plan: &Plan, title: &str, weight: Weight, is_such: impl Fn(&&Change) -> bool) -> Part {
    let columns = ["source", "image", "age", "size", "location", "why"];
    let mut part = Part::table(title, weight, &columns);
    part.rows = plan
        .changes
        .iter()
        .filter(is_such)
        .map(|change| {
            let size = match (&change.create, change.image.stored_bytes) {
                (Some(create), _) => {
                    format!("{} in {}", bytes(create.disk_bytes), count(create.disks.len(), "disk"))
                }
                (None, Some(stored)) => bytes(stored),
                (None, None) => String::new(),
            };
            let location =
                change.copy.as_ref().map_or(&change.image.location, |copy| &copy.location);
            vec![
                Text::foreign(&change.source_name),
                Text::foreign(&change.image.name),
                Text::own(Elapsed::between(change.key.slot.instant(), plan.now).rough()),
                Text::own(size),
                Text::foreign(location),
                details(change.reasons.iter().map(|reason| reason.detail.as_str())),
            ]
        })
        .collect();
    part.title = format!("{title} ({})", grouped(part.rows.len()));
    part
}

fn details<'t>(texts: impl Iterator<Item = &'t str>) -> Text {
    let texts: Vec<&str> = texts.collect();
    Text::foreign(texts.join("; "))
}

fn held_back(plan: &Plan) -> Part {
    let columns = ["source", "image", "would", "why not"];
    let mut part = Part::table("Held back", Weight::Aside, &columns);
    part.rows = plan
        .held_back
        .iter()
        .map(|held| {
            vec![
                Text::foreign(&held.source_name),
                Text::foreign(&held.image.name),
                Text::own(held.action.word()),
                details(held.reasons.iter().map(|reason| reason.detail.as_str())),
            ]
        })
        .collect();
    part
}

fn blocked(plan: &Plan) -> Part {
    let columns = ["source", "policy", "slot", "why"];
    let mut part = Part::table("No restore point can be made", Weight::Notice, &columns);
    part.rows = plan
        .blocked
        .iter()
        .map(|blocked| {
            vec![
                Text::foreign(&blocked.source_name),
                Text::foreign(blocked.key.policy.as_str()),
                Text::own(minute(blocked.key.slot.instant())),
                Text::foreign(&blocked.message),
            ]
        })
        .collect();
    part
}

fn waiting(plan: &Plan) -> Part {
    let columns = ["source", "policy", "slot", "not before", "why"];
    let mut part = Part::table("Waiting for the turn of their source", Weight::Aside, &columns);
    part.rows = plan
        .waiting
        .iter()
        .map(|waiting| {
            vec![
                Text::foreign(&waiting.source_name),
                Text::foreign(waiting.key.policy.as_str()),
                Text::own(minute(waiting.key.slot.instant())),
                Text::own(second(waiting.until)),
                Text::foreign(&waiting.message),
            ]
        })
        .collect();
    part
}

fn unprotected(plan: &Plan) -> Part {
    let columns = ["source", "engine"];
    let mut part = Part::table("Sources without protection", Weight::Notice, &columns);
    part.rows = plan
        .unprotected
        .iter()
        .map(|source| vec![Text::foreign(&source.name), Text::foreign(&source.engine)])
        .collect();
    part
}
