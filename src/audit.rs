//! What an auditor asks: what was protected, what was deleted and why, and who said so.
//!
//! In go the lines of a ledger, policies, an inventory and a span of time; out comes a report. Pure,
//! like all of this level: reading the ledger and checking its chain is the affair of others.

mod document;
pub mod drift;
mod events;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

pub use document::{
    AUDIT_VERSION, Audit, Chain, Compliance, Coverage, Deletion, DrillRun, Exempted, Failure,
    GuardEvent,
};

use crate::coverage::{Cover, coverage};
use crate::elapsed::Elapsed;
use crate::inventory::{ImageState, Inventory};
use crate::name::{Ownership, Slot};
use crate::policy::Policies;
use events::Events;

/// What is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// The first instant.
    pub from: Timestamp,
    /// The instant after the last.
    pub to: Timestamp,
}

impl Span {
    fn has(&self, at: Timestamp) -> bool {
        self.from <= at && at < self.to
    }
}

/// Reports on a span of time that lies before `now`. `lines` are those of the ledger, in order.
pub fn audit(
    lines: &[Value],
    chain: Chain,
    policies: &Policies,
    inventory: &Inventory,
    span: Span,
    now: Timestamp,
) -> Audit {
    let events = Events::read(lines, span);
    let covers = coverage(policies, inventory, now);
    let slots = slots(&events, inventory);
    let compliance = covers.iter().filter_map(|cover| complies(cover, &slots, span, now)).collect();
    let mut engines: Vec<String> = Vec::new();
    for engine in inventory.engines.iter().filter(|engine| !engine.is_complete()) {
        engines.push(engine.name.clone());
    }
    Audit {
        format_version: AUDIT_VERSION.to_owned(),
        from: span.from,
        to: span.to,
        now,
        policies_digest: policies.digest.clone(),
        chain,
        not_seen_whole: engines,
        rounds: events.rounds,
        created: events.made.len(),
        coverage: covers.iter().map(|cover| covered(cover, now)).collect(),
        compliance,
        exemptions: exemptions(policies, span),
        deletions: events.deletions,
        drills: events.drills,
        guards: events.guards,
        failures: events.failures,
    }
}

/// The slots of the restore points that each series has had: those that are there, and those that the
/// ledger knows of.
type Slots = BTreeMap<(String, String, String), Vec<Slot>>;

fn slots(events: &Events, inventory: &Inventory) -> Slots {
    let mut slots: Slots = BTreeMap::new();
    for engine in &inventory.engines {
        for image in engine.images.iter().filter(|image| image.state == ImageState::Ready) {
            let is_other = image.is_copy() || image.is_step();
            if let (Ownership::Ours(key), false) = (image.ownership(), is_other) {
                let series = (engine.name.clone(), key.policy.to_string(), key.source.to_string());
                slots.entry(series).or_default().push(key.slot);
            }
        }
    }
    for (engine, key) in &events.made {
        let series = (engine.clone(), key.policy.to_string(), key.source.to_string());
        slots.entry(series).or_default().push(key.slot);
    }
    for slots in slots.values_mut() {
        slots.sort_unstable();
        slots.dedup();
    }
    slots
}

fn covered(cover: &Cover<'_>, now: Timestamp) -> Coverage {
    let age = |slot: Slot| Elapsed::between(slot.instant(), now).as_seconds();
    Coverage {
        engine: cover.engine.to_owned(),
        policy: cover.policy.name.clone(),
        source: cover.instance.id.clone(),
        source_name: cover.instance.name.clone(),
        ready: cover.ready,
        newest: cover.newest,
        newest_age_seconds: cover.newest.map(age),
        oldest: cover.oldest,
        rpo: cover.rpo.word().to_owned(),
    }
}

/// How a source stood with its objective, from restore point to restore point. Before the first one
/// that is known nothing can be said.
fn complies(cover: &Cover<'_>, slots: &Slots, span: Span, now: Timestamp) -> Option<Compliance> {
    let objective = cover.policy.rpo?;
    let series =
        (cover.engine.to_owned(), cover.policy.name.to_string(), cover.instance.id.to_string());
    let own = slots.get(&series).map(Vec::as_slice).unwrap_or_default();
    let end = span.to.min(now);
    let mut instants: Vec<Timestamp> =
        own.iter().map(|slot| slot.instant()).filter(|at| *at < end).collect();
    // From the last one before the span on.
    let begun = instants.iter().rposition(|at| *at <= span.from).unwrap_or(0);
    instants.drain(..begun);
    let known_from = instants.first().map(|first| (*first).max(span.from));
    instants.push(end);
    let (mut longest, mut broken, mut breaches) = (Elapsed::ZERO, 0, 0);
    for pair in instants.windows(2) {
        let gap = Elapsed::between(pair[0], pair[1]);
        longest = longest.max(gap);
        let breaks_at = objective.after(pair[0]).max(span.from);
        let late = Elapsed::between(breaks_at, pair[1]).as_seconds();
        if gap > objective && late > 0 {
            breaches += 1;
            broken += late;
        }
    }
    Some(Compliance {
        engine: cover.engine.to_owned(),
        policy: cover.policy.name.clone(),
        source: cover.instance.id.clone(),
        source_name: cover.instance.name.clone(),
        objective_seconds: objective.as_seconds(),
        known_from,
        longest_seconds: known_from.map(|_| longest.as_seconds()),
        breaches,
        broken_seconds: broken,
    })
}

fn exemptions(policies: &Policies, span: Span) -> Vec<Exempted> {
    let all = policies.config.exemptions.iter();
    all.map(|exemption| Exempted {
        source: exemption.source.to_string(),
        engine: exemption.engine.clone(),
        owner: exemption.owner.clone(),
        reason: exemption.reason.clone(),
        until: exemption.until,
        ended: exemption.has_ended(span.to),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn what_the_ledger_tells_is_told_in_order_and_within_the_span() {
        let change = |action: &str, image: &str| {
            json!({
                "action": action, "engine": "e",
                "key": {"policy": "p", "source": "1", "slot": "2026-11-01T02:00:00Z"},
                "source_name": "web", "risk": "shortens-reach",
                "image": {"id": "7", "name": image, "location": "us", "stored_bytes": 5},
                "reasons": [{"code": "no-rule-keeps", "detail": "monthly 13 of 12"}],
            })
        };
        let both = |action: &str, image: &str, time: &str, result: Value| {
            let mut began = json!({"event": "change-began", "at": time, "plan": "x"});
            began["change"] = change(action, image);
            let ended = json!({
                "event": "change-ended", "at": time, "plan": "x", "action": action, "engine": "e",
                "image": image, "outcome": result,
            });
            [began, ended]
        };
        let mut lines = vec![json!({
            "event": "round-began", "at": "2026-11-10T00:00:00Z", "plan": "x",
            "approvals": [{"class": "shortens-reach", "by": "anna", "at": "2026-11-09T00:00:00Z", "items": 1}],
            "refusals": [{"guard": "engine-count", "engine": "e", "message": "many", "images": ["1", "2"]}],
        })];
        lines.extend(both("delete", "a", "2026-11-10T01:00:00Z", json!({"result": "done"})));
        lines.extend(both("delete", "b", "2026-11-10T02:00:00Z", json!({"result": "refused"})));
        lines.extend(both("create", "c", "2026-11-10T03:00:00Z", json!({"result": "done"})));
        let failed = json!({"result": "failed", "message": "no space"});
        lines.extend(both("create", "d", "2026-11-10T04:00:00Z", failed));
        lines.extend(both("delete", "late", "2026-12-10T01:00:00Z", json!({"result": "done"})));
        let span = Span { from: at("2026-11-01T00:00:00Z"), to: at("2026-12-01T00:00:00Z") };
        let events = Events::read(&lines, span);
        assert_eq!(events.rounds, 1);
        let names: Vec<&str> = events.deletions.iter().map(|one| one.image.as_str()).collect();
        assert_eq!(names, ["a"]);
        assert_eq!(events.deletions[0].reasons, ["monthly 13 of 12"]);
        assert_eq!(events.deletions[0].approved_by, ["anna"]);
        assert_eq!(events.made.len(), 1);
        assert_eq!((events.guards.len(), events.guards[0].images), (1, 2));
        assert_eq!((events.failures.len(), events.failures[0].message.as_str()), (1, "no space"));
    }
}
