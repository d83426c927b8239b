//! What is written differently: values that hold, policy by policy, and the configuration.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use similar::TextDiff;

use super::document::{Line, PolicyFate, ValueChange};
use crate::inventory::{Image, ImageState, Inventory};
use crate::name::{Ownership, PolicyName};
use crate::policy::finding::Place;
use crate::policy::meant::{Effective, Origin};
use crate::policy::{Policies, Policy};

/// Two policies that are alike to this share are taken for one with another name.
const ALIKE: f32 = 0.7;

/// A policy before and after.
pub(super) struct Pair<'a> {
    pub(super) fate: PolicyFate,
    pub(super) before: Option<&'a Policy>,
    pub(super) after: Option<&'a Policy>,
    /// As it is, or was if it is gone.
    pub(super) shown: &'a Policy,
}

impl<'a> Pair<'a> {
    fn both(fate: PolicyFate, before: &'a Policy, after: &'a Policy) -> Self {
        Self { fate, before: Some(before), after: Some(after), shown: after }
    }

    fn gone(fate: PolicyFate, before: &'a Policy) -> Self {
        Self { fate, before: Some(before), after: None, shown: before }
    }

    fn added(after: &'a Policy) -> Self {
        Self { fate: PolicyFate::Added, before: None, after: Some(after), shown: after }
    }
}

/// Policies that are not what they were, in the order of their names.
pub(super) fn pairs<'a>(before: &'a Policies, after: &'a Policies) -> Vec<Pair<'a>> {
    let mut pairs = Vec::new();
    let mut added: BTreeMap<&PolicyName, &Policy> = after
        .policies
        .iter()
        .filter(|policy| before.get(&policy.name).is_none())
        .map(|policy| (&policy.name, policy))
        .collect();
    let mut gone = Vec::new();
    for policy in &before.policies {
        match (after.get(&policy.name), after.keeper(&policy.name)) {
            (Some(now), _) if is_same(policy, now) => {}
            (Some(now), _) => {
                pairs.push(Pair::both(PolicyFate::Changed, policy, now));
            }
            (None, Some(now)) if now.removed.is_some() => {
                pairs.push(Pair::gone(PolicyFate::Removed, policy));
            }
            (None, Some(now)) => {
                added.remove(&now.name);
                pairs.push(Pair::both(PolicyFate::Moved, policy, now));
            }
            (None, None) => gone.push(policy),
        }
    }
    for policy in gone {
        let alike = added.values().map(|other| (likeness(policy, other), *other));
        let closest = alike.filter(|(share, _)| *share >= ALIKE);
        let closest = closest.max_by(|(one, _), (other, _)| one.total_cmp(other));
        pairs.push(match closest {
            Some((_, now)) => {
                added.remove(&now.name);
                Pair::both(PolicyFate::Renamed, policy, now)
            }
            None => Pair::gone(PolicyFate::Dropped, policy),
        });
    }
    pairs.extend(added.into_values().map(Pair::added));
    pairs.sort_by(|one, other| one.shown.name.cmp(&other.shown.name));
    pairs
}

/// Whether a policy means what it meant, what the configuration adds not counted.
pub(super) fn is_same(one: &Policy, other: &Policy) -> bool {
    one.digest == other.digest
        && one.owner == other.owner
        && one.description == other.description
        && one.removed == other.removed
}

/// How much of what two policies say is the same, from 0 to 1.
fn likeness(one: &Policy, other: &Policy) -> f32 {
    let text = |policy: &Policy| -> String {
        let lines = policy.effective.iter();
        lines.map(|value| format!("{}: {}\n", value.path, value.value)).collect()
    };
    TextDiff::from_lines(text(one), text(other)).ratio()
}

/// Each value that is different.
pub(super) fn values(pair: &Pair<'_>) -> Vec<ValueChange> {
    let read = |policy: Option<&Policy>| -> BTreeMap<String, (Value, Option<Line>)> {
        let Some(policy) = policy else { return BTreeMap::new() };
        let written = policy.effective.iter();
        let mut values: BTreeMap<String, (Value, Option<Line>)> =
            written.map(|one| (one.path.clone(), (one.value.clone(), line_of(one)))).collect();
        let metadata = [("owner", &policy.owner), ("description", &policy.description)];
        for (key, text) in metadata {
            if let Some(text) = text {
                values.insert(format!("metadata.{key}"), (text.clone().into(), None));
            }
        }
        values
    };
    let (before, after) = (read(pair.before), read(pair.after));
    // Of a policy that is new or gone, the whole of it is different: what it is called is enough.
    if before.is_empty() || after.is_empty() {
        return Vec::new();
    }
    // In the order of the language: what is in both, then what is new.
    let paths = |policy: Option<&Policy>| -> Vec<String> {
        policy.iter().flat_map(|one| &one.effective).map(|value| value.path.clone()).collect()
    };
    let mut order = paths(pair.before);
    order.extend(paths(pair.after));
    order.extend(before.keys().chain(after.keys()).cloned());
    let mut seen = BTreeSet::new();
    order.retain(|path| seen.insert(path.clone()));
    order
        .into_iter()
        .filter_map(|path| {
            let was = before.get(&path).map(|(value, _)| value.clone());
            let is = after.get(&path).map(|(value, _)| value.clone());
            let at = after.get(&path).and_then(|(_, at)| at.clone());
            (was != is).then_some(ValueChange { path, before: was, after: is, at })
        })
        .collect()
}

fn line_of(value: &Effective) -> Option<Line> {
    match &value.origin {
        Origin::Policy(place) | Origin::Overlay(place) | Origin::Defaults(place) => {
            Some(line(place))
        }
        Origin::BuiltIn => None,
    }
}

/// The line that a place begins on.
pub(super) fn line(place: &Place) -> Line {
    Line { file: place.file.path.clone(), line: place.line_column().0 }
}

/// How many images stay shared with whom they were given, because nothing says any more with whom they
/// are to be.
pub(super) fn still_shared(pair: &Pair<'_>, before: &Policies, inventory: &Inventory) -> usize {
    let sharing = |policy: &'_ Policy| policy.sharing.as_ref().map(Vec::len);
    let Some(was) = pair.before.filter(|was| sharing(was).is_some_and(|grants| grants > 0)) else {
        return 0;
    };
    if pair.after.and_then(sharing).is_some() {
        return 0;
    }
    let engines = inventory.engines.iter().filter(|engine| engine.name == was.engine);
    let is_its = |image: &&Image| {
        let Ownership::Ours(key) = image.ownership() else { return false };
        image.state == ImageState::Ready
            && before.keeper(&key.policy).is_some_and(|keeper| keeper.name == was.name)
    };
    engines.flat_map(|engine| &engine.images).filter(is_its).count()
}

/// What is different in the configuration. What policies inherit from it shows in them.
pub(super) fn configuration(before: &Policies, after: &Policies) -> Vec<ValueChange> {
    let read = |policies: &Policies| {
        let mut values = BTreeMap::new();
        if let Value::Object(entries) = &policies.written_config {
            for (key, value) in entries.iter().filter(|(key, _)| *key != "defaults") {
                flatten(value, key, &mut values);
            }
        }
        values
    };
    let (before, after) = (read(before), read(after));
    let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    paths
        .into_iter()
        .filter(|path| before.get(*path) != after.get(*path))
        .map(|path| ValueChange {
            path: path.clone(),
            before: before.get(path).cloned(),
            after: after.get(path).cloned(),
            at: None,
        })
        .collect()
}

fn flatten(value: &Value, path: &str, values: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                flatten(value, &format!("{path}.{key}"), values);
            }
        }
        _ => {
            values.insert(path.to_owned(), value.clone());
        }
    }
}
