//! What the lines of a ledger tell. Lines of other versions tell what they can.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::Span;
use super::document::{Deletion, DrillRun, Failure, GuardEvent};
use crate::name::Key;

/// What happened within a span.
#[derive(Debug, Default)]
pub(super) struct Events {
    pub(super) rounds: usize,
    pub(super) deletions: Vec<Deletion>,
    pub(super) drills: Vec<DrillRun>,
    pub(super) guards: Vec<GuardEvent>,
    pub(super) failures: Vec<Failure>,
    /// Restore points that were made, whenever: the engine and the key of each.
    pub(super) made: Vec<(String, Key)>,
}

/// Who approved which class, by plan.
type Approvals = BTreeMap<String, Vec<(String, String)>>;

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

impl Events {
    pub(super) fn read(lines: &[Value], span: Span) -> Self {
        let mut events = Self::default();
        let mut approvals: Approvals = BTreeMap::new();
        let mut begun: BTreeMap<(String, String, String), &Value> = BTreeMap::new();
        for line in lines {
            let Ok(at) = text(line, "at").parse::<Timestamp>() else { continue };
            let name = |line: &Value, action: &Value, image: String| {
                (text(line, "plan"), action.as_str().unwrap_or_default().to_owned(), image)
            };
            match line["event"].as_str() {
                Some("round-began") => events.round(line, at, span, &mut approvals),
                Some("change-began") => {
                    let change = &line["change"];
                    let image = text(&change["image"], "name");
                    begun.insert(name(line, &change["action"], image), change);
                }
                Some("change-ended") => {
                    let image = text(line, "image");
                    let change = begun.remove(&name(line, &line["action"], image));
                    events.ended(line, change, at, span, &approvals);
                }
                _ => {}
            }
        }
        events
    }

    fn round(&mut self, line: &Value, at: Timestamp, span: Span, approvals: &mut Approvals) {
        let plan = text(line, "plan");
        let given = line["approvals"].as_array().into_iter().flatten();
        let given = given.map(|one| (text(one, "class"), text(one, "by")));
        approvals.insert(plan.clone(), given.collect());
        if !span.has(at) {
            return;
        }
        self.rounds += 1;
        let refusals = line["refusals"].as_array().into_iter().flatten();
        self.guards.extend(refusals.map(|refusal| GuardEvent {
            at,
            plan: plan.clone(),
            guard: text(refusal, "guard"),
            engine: text(refusal, "engine"),
            message: text(refusal, "message"),
            images: refusal["images"].as_array().map_or(0, Vec::len),
            overridden: refusal["overridden"].as_bool().unwrap_or(false),
        }));
    }

    fn ended(
        &mut self,
        line: &Value,
        change: Option<&Value>,
        at: Timestamp,
        span: Span,
        approvals: &Approvals,
    ) {
        let outcome = &line["outcome"];
        let result = text(outcome, "result");
        let is_done = matches!(result.as_str(), "done" | "found");
        let (action, engine, image) =
            (text(line, "action"), text(line, "engine"), text(line, "image"));
        if let (true, "create", Some(change)) = (is_done, action.as_str(), change)
            && let Ok(key) = serde_json::from_value::<Key>(change["key"].clone())
        {
            self.made.push((engine.clone(), key));
        }
        if !span.has(at) {
            return;
        }
        let message = outcome["message"].as_str().map(str::to_owned);
        if action == "drill" {
            let check = line["drill"].as_str().unwrap_or_default().to_owned();
            let (engine, image) = (engine.clone(), image.clone());
            let (result, message) = (result.clone(), message.clone());
            self.drills.push(DrillRun { at, engine, image, check, result, message });
        }
        if result == "failed" {
            let message = message.unwrap_or_default();
            self.failures.push(Failure { at, engine, action, image, message });
        } else if action == "delete" && is_done {
            self.deletions.push(deletion(line, change, at, approvals));
        }
    }
}

fn deletion(
    line: &Value,
    change: Option<&Value>,
    at: Timestamp,
    approvals: &Approvals,
) -> Deletion {
    let plan = text(line, "plan");
    let nothing = Value::Null;
    let change = change.unwrap_or(&nothing);
    let risk = change["risk"].as_str().map(str::to_owned);
    // Routine is called rotation where risks are named.
    let class = risk.as_deref().map(|risk| if risk == "rotation" { "routine" } else { risk });
    let given = approvals.get(&plan).map(Vec::as_slice).unwrap_or_default();
    let of_class = given.iter().filter(|(of, _)| Some(of.as_str()) == class || of == "mass");
    let approved_by = of_class.map(|(_, by)| by.clone()).collect();
    let reasons = change["reasons"].as_array().into_iter().flatten();
    Deletion {
        at,
        engine: text(line, "engine"),
        policy: text(&change["key"], "policy"),
        source_name: text(change, "source_name"),
        image: text(line, "image"),
        id: change["image"]["id"].as_str().map(str::to_owned),
        slot: text(&change["key"], "slot"),
        stored_bytes: change["image"]["stored_bytes"].as_u64(),
        reasons: reasons.map(|reason| text(reason, "detail")).collect(),
        risk,
        plan,
        approved_by,
    }
}
