//! Which sources are protected by what, and how well.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::World;
use super::document::{Protection, ProtectionChange, SourceChange};
use crate::desired::Presence;
use crate::elapsed::Elapsed;
use crate::inventory::Instance;
use crate::name::{PolicyName, SourceId};
use crate::policy::{Policies, Policy};
use crate::simulate::longest_wait;
use crate::simulate::steady::steady_state;

/// The policies that select each source, by engine and source.
pub(super) type Selected<'w> = BTreeMap<(&'w str, &'w SourceId), (&'w Instance, Vec<&'w Policy>)>;

pub(super) fn selected<'w>(world: &'w World<'_>) -> Selected<'w> {
    let mut selected: Selected<'w> = BTreeMap::new();
    for engine in &world.desired.engines {
        for series in &engine.series {
            if let Presence::Present(instance) = series.state.presence {
                let key = (engine.engine.name.as_str(), &instance.id);
                let (_, policies) = selected.entry(key).or_insert_with(|| (instance, Vec::new()));
                policies.push(series.policy);
            }
        }
    }
    selected
}

/// Sources that other policies select than before. A policy that has a new name is the same.
pub(super) fn changes(
    before: &Selected<'_>,
    after: &Selected<'_>,
    policies: &Policies,
    now: Timestamp,
) -> Vec<SourceChange> {
    let names = |selected: &Selected<'_>, key: &(&str, &SourceId)| -> Vec<PolicyName> {
        let policies = selected.get(key).map(|(_, policies)| policies.as_slice());
        policies.unwrap_or_default().iter().map(|policy| policy.name.clone()).collect()
    };
    let mut keys: Vec<&(&str, &SourceId)> = before.keys().chain(after.keys()).collect();
    keys.sort();
    keys.dedup();
    let mut changes = Vec::new();
    for key in keys {
        let (was, is) = (names(before, key), names(after, key));
        let renamed: Vec<&PolicyName> =
            was.iter().map(|name| policies.moved.get(name).unwrap_or(name)).collect();
        if renamed.len() == is.len() && is.iter().all(|name| renamed.contains(&name)) {
            continue;
        }
        let instance = after.get(key).or_else(|| before.get(key)).map(|(instance, _)| *instance);
        let Some(instance) = instance else { continue };
        let mut exemptions = policies.config.exemptions.iter();
        let exempt = exemptions.any(|one| one.covers(key.0, instance) && !one.has_ended(now));
        changes.push(SourceChange {
            engine: key.0.to_owned(),
            source: key.1.clone(),
            source_name: instance.name.clone(),
            before: was,
            exempt: exempt && is.is_empty(),
            after: is,
        });
    }
    changes
}

/// Sources for which the same changes: their engine, and how it was and is.
type Group<'e> = (&'e str, Option<Protection>, Option<Protection>);

/// How far apart restore points are and how far back they reach, where that changes.
pub(super) fn protection(
    before: &Selected<'_>,
    after: &Selected<'_>,
    now: Timestamp,
) -> Vec<ProtectionChange> {
    let (mut old, mut new) = (Measures::new(now), Measures::new(now));
    let mut groups: BTreeMap<Group<'_>, Vec<String>> = BTreeMap::new();
    let mut keys: Vec<&(&str, &SourceId)> = before.keys().chain(after.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let was = before.get(key).map(|(_, policies)| old.of(policies));
        let is = after.get(key).map(|(_, policies)| new.of(policies));
        if was == is {
            continue;
        }
        let instance = after.get(key).or_else(|| before.get(key));
        let name = instance.map(|(instance, _)| instance.name.clone()).unwrap_or_default();
        groups.entry((key.0, was, is)).or_default().push(name);
    }
    groups
        .into_iter()
        .map(|((engine, before, after), mut sources)| {
            sources.sort();
            ProtectionChange { engine: engine.to_owned(), sources, before, after }
        })
        .collect()
}

/// What policies do in the long run, each worked out once.
struct Measures<'p> {
    now: Timestamp,
    known: BTreeMap<&'p PolicyName, Protection>,
}

impl<'p> Measures<'p> {
    fn new(now: Timestamp) -> Self {
        Self { now, known: BTreeMap::new() }
    }

    fn one(&mut self, policy: &'p Policy) -> Protection {
        let now = self.now;
        *self.known.entry(&policy.name).or_insert_with(|| {
            let steady = steady_state(policy, now);
            Protection {
                apart_seconds: longest_wait(policy, now).map(Elapsed::as_seconds),
                reach_seconds: steady.map(|steady| steady.reach.as_seconds()),
                points: steady.map(|steady| steady.kept),
            }
        })
    }

    /// The best of several policies: the densest, and the one that reaches farthest.
    fn of(&mut self, policies: &[&'p Policy]) -> Protection {
        let each: Vec<Protection> = policies.iter().map(|policy| self.one(policy)).collect();
        let is_endless = each.iter().any(|one| one.reach_seconds.is_none());
        let farthest = each.iter().filter_map(|one| one.reach_seconds).max();
        let points = each.iter().filter_map(|one| one.points).sum();
        Protection {
            apart_seconds: each.iter().filter_map(|one| one.apart_seconds).min(),
            reach_seconds: farthest.filter(|_| !is_endless),
            points: (!is_endless).then_some(points),
        }
    }
}
