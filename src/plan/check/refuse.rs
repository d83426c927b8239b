//! What violations keep from happening, said as guards say it.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use crate::plan::action::Action;
use crate::plan::document::Plan;
use crate::plan::guard::{Guard, Refusal};

/// So many violations of an engine are told.
const TOLD: usize = 3;

/// Whether something is taken from an image, or marked for it: what a plan that breaks a rule may
/// not do. Creates, copies, drills and what brings back go on: a backup that is not made is lost as
/// well.
pub fn takes_away(action: Action) -> bool {
    matches!(action, Action::Deprecate | Action::Obsolete | Action::Relabel | Action::Delete)
}

/// Refuses everything that takes away on the engines of which a plan breaks a rule.
pub fn refusals(plan: &Plan, violations: &[Violation]) -> Vec<Refusal> {
    let mut by_engine: BTreeMap<&str, Vec<&Violation>> = BTreeMap::new();
    for violation in violations {
        by_engine.entry(&violation.engine).or_default().push(violation);
    }
    by_engine
        .into_iter()
        .map(|(engine, violations)| Refusal {
            guard: Guard::Check,
            engine: engine.to_owned(),
            message: message(engine, &violations),
            images: taken(plan, engine),
            override_flag: None,
            classes: std::collections::BTreeSet::new(),
            overridden: false,
        })
        .collect()
}

/// The ids of the images that a plan takes something from, those that make room among them.
fn taken(plan: &Plan, engine: &str) -> Vec<String> {
    let mut ids = BTreeSet::new();
    for change in plan.changes.iter().filter(|change| change.engine == engine) {
        if takes_away(change.action) {
            ids.extend(change.image.id.clone());
        }
        let create = change.create.as_ref().and_then(|create| create.replaces.as_ref());
        let copy = change.copy.as_ref().and_then(|copy| copy.replaces.as_ref());
        ids.extend(create.or(copy).and_then(|replaced| replaced.id.clone()));
    }
    ids.into_iter().collect()
}

fn message(engine: &str, violations: &[&Violation]) -> String {
    let told: Vec<String> = violations
        .iter()
        .take(TOLD)
        .map(|one| match one.image.as_str() {
            "" => format!("{}: {}", one.rule, one.message),
            image => format!("{}: {image}: {}", one.rule, one.message),
        })
        .collect();
    let more = match violations.len().saturating_sub(TOLD) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    format!(
        "the plan for {engine} breaks rules that it is checked by ({}{more}); this is a defect of stillframe \
         and not of the policies: please report it with what `plan --json` and `inventory --json` print; \
         until then nothing is taken away there, and only what makes or brings back goes on",
        told.join("; ")
    )
}
