//! What was known of the instances that an engine does not show now.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{EngineOverview, PlanRow, SourceRow};
use crate::elapsed::Elapsed;
use crate::inventory::{EngineInventory, GapScope};
use crate::policy::Policies;

/// The state of a source that is not there or selected any more.
pub(super) const GONE: &str = "gone";
/// The state of a source of which it is not known whether it is there.
pub(super) const UNSEEN: &str = "unseen";

/// Whether nothing at all was seen of an engine.
pub(super) fn is_unseen(engine: &EngineInventory) -> bool {
    !engine.is_complete() && engine.instances.is_empty() && engine.images.is_empty()
}

/// What is said of an engine of which nothing at all was seen: what was said before.
pub(super) fn nothing_seen(
    before: &EngineOverview,
    gaps: Vec<String>,
    plan: PlanRow,
) -> EngineOverview {
    let instances_unseen_since = last_seen(before);
    let instances_unseen = true;
    EngineOverview { instances_unseen, instances_unseen_since, gaps, plan, ..before.clone() }
}

/// Whether something of a kind could not be seen.
pub(super) fn misses(engine: &EngineInventory, scope: GapScope) -> bool {
    engine.gaps.iter().any(|gap| gap.scope == scope)
}

/// When all instances were seen last.
fn last_seen(before: &EngineOverview) -> Option<Timestamp> {
    if before.instances_unseen { before.instances_unseen_since } else { Some(before.seen_at) }
}

/// Says on what was known of instances that cannot be seen: of their sources how they stood, which
/// time makes worse, and that they have no protection.
pub(super) fn carry_over(
    overview: &mut EngineOverview,
    before: &EngineOverview,
    seen: &EngineInventory,
    policies: &Policies,
    now: Timestamp,
) {
    if !misses(seen, GapScope::Instances) {
        return;
    }
    let misses_images = misses(seen, GapScope::Images);
    let visible: BTreeSet<&str> =
        seen.instances.iter().map(|instance| instance.id.as_str()).collect();
    let objectives: BTreeMap<&str, Option<Elapsed>> = policies
        .policies
        .iter()
        .filter(|policy| policy.engine == overview.name)
        .map(|policy| (policy.name.as_str(), policy.rpo))
        .collect();
    let mut rows: BTreeMap<(String, String), SourceRow> =
        overview.sources.drain(..).map(|row| (key(&row), row)).collect();
    for known in before.sources.iter().filter(|row| !visible.contains(row.id.as_str())) {
        // What is said of a policy that is not in force any more would be said for ever.
        let Some(objective) = objectives.get(known.policy.as_str()) else { continue };
        let is_there = known.state != GONE && known.state != UNSEEN;
        let row = match rows.remove(&key(known)) {
            Some(row) => row,
            None if misses_images => known.clone(),
            // Without images there is nothing to say of a source that is not there.
            None if !is_there => continue,
            None => SourceRow {
                points: Vec::new(),
                deletes: Vec::new(),
                breach_at: None,
                ..known.clone()
            },
        };
        // The image that it had may be what was not seen.
        let breach_at = row.breach_at.max(known.breach_at.filter(|_| misses_images));
        let state =
            if is_there { state(known, *objective, breach_at, now) } else { known.state.as_str() };
        let row = SourceRow {
            name: known.name.clone(),
            zone: known.zone.clone(),
            state: state.to_owned(),
            breach_at,
            next: known.next.filter(|next| *next > now),
            ..row
        };
        rows.insert(key(&row), row);
    }
    overview.sources = rows.into_values().collect();
    let unprotected = before.unprotected.iter().filter(|row| !visible.contains(row.id.as_str()));
    overview.unprotected.extend(unprotected.cloned());
    let exempt = before.exempt.iter().filter(|row| !visible.contains(row.id.as_str()));
    overview.exempt.extend(exempt.cloned());
    overview.instances = overview.instances.max(before.instances);
    overview.instances_unseen_since = last_seen(before);
}

fn key(row: &SourceRow) -> (String, String) {
    (row.policy.clone(), row.id.clone())
}

/// How a source stands that cannot be seen, while nothing is captured of it.
fn state(
    known: &SourceRow,
    objective: Option<Elapsed>,
    breach_at: Option<Timestamp>,
    now: Timestamp,
) -> &str {
    match (objective, breach_at) {
        (None, _) => "none",
        (Some(_), Some(at)) if at > now && known.state.starts_with("met") => &known.state,
        (Some(_), Some(at)) if at > now => "met-until-broken",
        (Some(_), _) => "broken",
    }
}
