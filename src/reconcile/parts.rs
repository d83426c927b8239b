//! Deletes that have waited go in parts, as many at once as the guards let pass.
//!
//! While deletes wait (`Caution`) others come to wait beside them, and each is let pass by the guards
//! as it comes. All in one plan they may be more than a guard lets pass, and as every slot adds one,
//! that would not end. So they go with several plans, each of which is held against the guards as any
//! plan is: nothing is let pass that was not.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::Room;
use crate::inventory::Inventory;
use crate::plan::guard::{Guard, Refusal, guard, withheld};
use crate::plan::{Action, Change, Plan};

/// Images, by engine and id.
pub type Images = BTreeSet<(String, String)>;

impl Room {
    /// What is refused of a plan where it takes of what has waited as much as the guards let pass; the
    /// rest waits on. `refused` is what they refuse of all of it, and `waits` what has to wait anyway.
    pub(super) fn in_parts(
        &self,
        plan: &Plan,
        mut refused: Vec<Refusal>,
        waits: &[Refusal],
        inventory: &Inventory,
        now: Timestamp,
    ) -> Vec<Refusal> {
        let is_too_many = |one: &Refusal| one.guard.is_of_numbers() && !one.overridden;
        let waited = self.caution.as_ref().map(|caution| caution.let_pass(plan));
        let waited = waited.unwrap_or_default();
        if waited.is_empty() || !refused.iter().any(is_too_many) {
            return refused;
        }
        let mut part = waited.clone();
        let of_numbers = loop {
            let later: Images = waited.difference(&part).cloned().collect();
            let plan = without(plan, &later);
            let mut found = guard(&plan, inventory, &self.policies, &self.overrides, now);
            found.retain(|one| one.guard.is_of_numbers());
            let kept = withheld(&found);
            let over = |one: &(String, String)| kept.contains(&(one.0.as_str(), one.1.as_str()));
            let over: Images = part.iter().filter(|one| over(one)).cloned().collect();
            if over.is_empty() {
                break found;
            }
            part.retain(|one| !over.contains(one));
            part.extend(older_half(&plan, &over));
        };
        // Where not even one of them may go, people have to say so.
        if part.is_empty() {
            return refused;
        }
        refused.retain(|one| !one.guard.is_of_numbers());
        refused.extend(of_numbers);
        let waits = withheld(waits);
        let later = waited.into_iter().filter(|one| {
            !part.contains(one) && !waits.contains(&(one.0.as_str(), one.1.as_str()))
        });
        let mut by_engine: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (engine, image) in later {
            by_engine.entry(engine).or_default().push(image);
        }
        refused.extend(by_engine.into_iter().map(|(engine, images)| {
            Refusal {
                guard: Guard::DeleteDelay,
                engine,
                message:
                    "of the deletes that have waited so many go at once as the guards let pass; \
                      the rest goes with the next rounds"
                        .to_owned(),
                images,
                override_flag: None,
                classes: BTreeSet::new(),
                overridden: false,
            }
        }));
        refused
    }
}

/// A plan without the deletes of some images.
pub(crate) fn without(plan: &Plan, images: &Images) -> Plan {
    let mut plan = plan.clone();
    plan.changes.retain(|change| image_of(change).is_none_or(|image| !images.contains(&image)));
    plan
}

/// The image that a change deletes.
pub(crate) fn image_of(change: &Change) -> Option<(String, String)> {
    let id = change.image.id.clone().filter(|_| change.action == Action::Delete)?;
    Some((change.engine.clone(), id))
}

/// Of each series the older half of some images; where no series has more than one of them, the older half
/// of them all.
fn older_half(plan: &Plan, images: &Images) -> Images {
    let mut series: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for change in &plan.changes {
        if let Some(image) = image_of(change).filter(|image| images.contains(image)) {
            let of = (&change.key.policy, &change.key.source);
            series.entry(of).or_default().push((change.key.slot, image));
        }
    }
    let mut groups: Vec<_> = series.into_values().collect();
    if groups.iter().all(|points| points.len() < 2) {
        groups = vec![groups.concat()];
    }
    let halves = groups.into_iter().flat_map(|mut points| {
        points.sort();
        points.truncate(points.len() / 2);
        points.into_iter().map(|(_, image)| image)
    });
    halves.collect()
}
