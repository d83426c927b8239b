//! A policy with all its values and where each comes from.

use serde_json::{Value, json};

use crate::policy::Policy;
use crate::policy::meant::{Blackout, Effective, Origin, Window};
use crate::report::clean;
use crate::schedule::Crontab;

/// The widest value that all others are aligned with.
const VALUE_WIDTH: usize = 52;

fn origin(origin: &Origin) -> String {
    match origin {
        Origin::Policy(place) => place.to_string(),
        Origin::Overlay(place) => format!("overlay, {place}"),
        Origin::Defaults(place) => format!("defaults, {place}"),
        Origin::BuiltIn => "built in".to_owned(),
    }
}

/// Every value of a policy and where it comes from, what follows from others among them.
pub(super) fn values_of(policy: &Policy) -> Vec<(String, Value, String)> {
    let mut values: Vec<(String, Value, String)> = Vec::new();
    for Effective { path, value, origin: from } in &policy.effective {
        let from = match (path.as_str(), from) {
            ("engine", Origin::BuiltIn) => "the only engine there is".to_owned(),
            ("storage.location", Origin::BuiltIn) => "the engine's default".to_owned(),
            _ => origin(from),
        };
        values.push((path.clone(), value.clone(), from));
    }
    let on_source_gone = json!(policy.lifecycle.on_source_gone);
    let when_stalled = json!(policy.when_stalled);
    let implied = [
        ("schedule.deadline", json!("until the next slot, at most 24h"), "schedule.jitter"),
        ("retention.stalledAfter", json!("three periods of the schedule"), "retention.atLeast"),
        ("retention.whenStalled", when_stalled, "retention.stalledAfter"),
        ("lifecycle.onSourceGone", on_source_gone, "lifecycle.sourceGoneGrace"),
        ("encryption.kmsKey", json!("the engine's own"), "storage.location"),
    ];
    for (path, value, behind) in implied {
        if values.iter().all(|(known, _, _)| known != path) {
            let at = values.iter().position(|(known, _, _)| known == behind);
            let row = (path.to_owned(), value, "built in".to_owned());
            values.insert(at.map_or(values.len(), |at| at + 1), row);
        }
    }
    shared_blackouts(policy, &mut values);
    values
}

/// The blackouts of the configuration, which hold for the policy beside its own.
fn shared_blackouts(policy: &Policy, values: &mut Vec<(String, Value, String)>) {
    const PATH: &str = "blackouts";
    let own = values.iter().position(|(path, ..)| path == PATH);
    let count = own.and_then(|at| values[at].1.as_array()).map_or(0, Vec::len);
    let shared: Vec<_> = policy
        .blackouts
        .iter()
        .skip(count)
        .map(|blackout| {
            let origin = format!("configuration, {}", blackout.place);
            (PATH.to_owned(), json!([blackout_value(blackout)]), origin)
        })
        .collect();
    let at = own.map_or(values.len(), |at| at + 1);
    values.splice(at..at, shared);
}

/// A blackout as it could be written.
fn blackout_value(blackout: &Blackout) -> Value {
    let mut value = match &blackout.window {
        Window::Once { from, until } => json!({"from": from, "until": until}),
        Window::Returning { begins, zone, duration } => {
            let texts: Vec<&str> = begins.iter().map(Crontab::as_str).collect();
            let cron = if let [text] = texts.as_slice() { json!(text) } else { json!(texts) };
            json!({"cron": cron, "duration": duration.to_string(), "timeZone": zone.name()})
        }
    };
    if !blackout.creates {
        value["creates"] = json!(false);
    }
    if blackout.deletes {
        value["deletes"] = json!(true);
    }
    if let Some(reason) = &blackout.reason {
        value["reason"] = json!(reason);
    }
    value
}

pub(super) fn policy_text(policy: &Policy) -> String {
    let rows: Vec<[String; 3]> = values_of(policy)
        .into_iter()
        .map(|(path, value, origin)| {
            [format!("{}:", clean(&path)), clean(&value.to_string()), format!("# {origin}")]
        })
        .collect();
    let width = |column: usize, most: usize| {
        let lengths = rows.iter().map(|row| row[column].chars().count());
        lengths.filter(|length| *length <= most).max().unwrap_or(0)
    };
    // A long value moves only its own origin to the right.
    let (path, value) = (width(0, usize::MAX), width(1, VALUE_WIDTH));
    let lines: String = rows
        .iter()
        .map(|[key, text, origin]| format!("  {key:path$}  {text:value$}  {origin}\n"))
        .collect();
    let owner =
        policy.owner.as_ref().map(|owner| format!(", owner {}", clean(owner))).unwrap_or_default();
    format!("{} ({}{owner})\n{lines}", policy.name, policy.place)
}
