//! Which of many selections may mean an instance, without asking each of them.
//!
//! Most conditions ask for something literal: a name or its beginning, a value of a label, a zone.
//! An instance that has none of it cannot be meant, so a selection is only asked about instances
//! that have what it is found by. What the index leaves out, [`Selection::decide`] would answer
//! with `NotMatched`; it decides nothing itself.

use std::collections::{BTreeMap, BTreeSet};

use super::{Condition, Decision, Pattern, Patterns, Selection};
use crate::inventory::Instance;

/// Something literal that an instance has and a condition asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Trait<'a> {
    Name(&'a str),
    NameBegins(&'a str),
    Label(&'a str, &'a str),
    Zone(&'a str),
}

/// Many selections, found by what instances have.
#[derive(Debug)]
pub struct Index<'a> {
    selections: Vec<&'a Selection>,
    /// The positions of the selections that are found by a trait.
    by_trait: BTreeMap<Trait<'a>, Vec<usize>>,
    /// How long the beginnings of names are, in bytes.
    beginnings: BTreeSet<usize>,
    /// The positions of the selections that may mean any instance.
    always: Vec<usize>,
}

impl<'a> Index<'a> {
    /// An index over selections, which are known by their positions from here on.
    pub fn new(selections: impl IntoIterator<Item = &'a Selection>) -> Self {
        let selections: Vec<&Selection> = selections.into_iter().collect();
        // What many ask for, like `env=production`, tells least.
        let mut uses: BTreeMap<Trait<'a>, usize> = BTreeMap::new();
        for condition in selections.iter().flat_map(|selection| &selection.any) {
            for found_by in ways(condition).into_iter().flatten() {
                *uses.entry(found_by).or_default() += 1;
            }
        }
        let common = |way: &Vec<Trait<'a>>| way.iter().filter_map(|one| uses.get(one)).max();
        let mut by_trait: BTreeMap<Trait<'a>, Vec<usize>> = BTreeMap::new();
        let mut always = Vec::new();
        for (position, selection) in selections.iter().enumerate() {
            for condition in &selection.any {
                match ways(condition)
                    .into_iter()
                    .min_by(|one, other| common(one).cmp(&common(other)))
                {
                    Some(way) => way
                        .into_iter()
                        .for_each(|one| by_trait.entry(one).or_default().push(position)),
                    None => always.push(position),
                }
            }
        }
        let beginnings = by_trait
            .keys()
            .filter_map(|one| match one {
                Trait::NameBegins(beginning) => Some(beginning.len()),
                _ => None,
            })
            .collect();
        Self { selections, by_trait, beginnings, always }
    }

    /// What every selection says of an instance, in the order of their positions; those that do not
    /// match are left out.
    pub fn decide(&self, instance: &Instance) -> Vec<(usize, Decision<'a>)> {
        let name = instance.name.as_str();
        let traits = [Trait::Name(name), Trait::Zone(&instance.zone)];
        let beginnings = self.beginnings.iter().filter_map(|length| name.get(..*length));
        let labels = instance.labels.iter().map(|(key, value)| Trait::Label(key, value));
        let mut positions = self.always.clone();
        for one in traits.into_iter().chain(beginnings.map(Trait::NameBegins)).chain(labels) {
            positions.extend(self.by_trait.get(&one).into_iter().flatten());
        }
        positions.sort_unstable();
        positions.dedup();
        positions
            .into_iter()
            .map(|position| (position, self.selections[position].decide(instance)))
            .filter(|(_, decision)| !matches!(decision, Decision::NotMatched))
            .collect()
    }
}

/// The ways to find a condition: of each, an instance must have at least one trait.
fn ways(condition: &Condition) -> Vec<Vec<Trait<'_>>> {
    let Condition { names, labels, zones, place: _ } = condition;
    let names = names.as_ref().and_then(|names| all(names, name));
    let labels = labels.iter().filter_map(|(key, values)| {
        all(values, |value| literal(value).map(|value| Trait::Label(key, value)))
    });
    let zones = zones.as_ref().and_then(|zones| all(zones, |zone| literal(zone).map(Trait::Zone)));
    names.into_iter().chain(labels).chain(zones).collect()
}

/// A trait for each pattern, or none if one of them has none.
fn all<'a>(
    patterns: &'a Patterns,
    trait_of: impl Fn(&'a Pattern) -> Option<Trait<'a>>,
) -> Option<Vec<Trait<'a>>> {
    patterns.patterns.iter().map(trait_of).collect()
}

fn name(pattern: &Pattern) -> Option<Trait<'_>> {
    match pattern {
        Pattern::Literal(literal) => Some(Trait::Name(literal)),
        Pattern::Beginning(beginning) => Some(Trait::NameBegins(beginning)),
        Pattern::Anything | Pattern::Glob(_) => None,
    }
}

fn literal(pattern: &Pattern) -> Option<&str> {
    match pattern {
        Pattern::Literal(literal) => Some(literal),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::name::SourceId;

    fn instance(name: &str, zone: &str, env: &str, service: Option<&str>) -> Instance {
        let labels = [Some(("env", env)), service.map(|service| ("service", service))];
        let labels: BTreeMap<&str, &str> = labels.into_iter().flatten().collect();
        let id = SourceId::parse("1").unwrap();
        serde_json::from_value(json!({"id": id, "name": name, "zone": zone, "labels": labels}))
            .unwrap()
    }

    fn selection(any: &[serde_json::Value], except: &[serde_json::Value]) -> Selection {
        let conditions = |specs: &[serde_json::Value]| {
            let spec = |spec: &serde_json::Value| serde_json::from_value(spec.clone()).unwrap();
            specs.iter().map(|one| Condition::new(&spec(one)).unwrap()).collect()
        };
        Selection { any: conditions(any), except: conditions(except) }
    }

    #[test]
    fn the_index_leaves_out_only_what_does_not_match() {
        let conditions = [
            json!({"names": "*"}),
            json!({"names": ["web-1", "db-*"]}),
            json!({"names": ["*-1", "web-?"]}),
            json!({"names": ["web-*", "*"]}),
            json!({"names": "w\u{e4}b*"}),
            json!({"labels": {"env": "production"}}),
            json!({"labels": {"env": ["production", "test"], "service": "a"}}),
            json!({"labels": {"service": "*"}, "zones": "eu"}),
            json!({"labels": {"service": ["a", "b*"]}}),
            json!({"zones": ["us-*", "eu"]}),
            json!({"names": "db-*", "zones": "us-1"}),
        ];
        let mut selections = vec![selection(&[], &[])];
        for one in &conditions {
            selections.push(selection(std::slice::from_ref(one), &[]));
            for other in &conditions {
                selections.push(selection(&[one.clone(), other.clone()], &[]));
                selections.push(selection(std::slice::from_ref(one), std::slice::from_ref(other)));
            }
        }
        let index = Index::new(&selections);
        let word = |decision: &Decision<'_>| format!("{decision:?}");
        for name in ["web-1", "web-22", "db-1", "db-", "db", "w\u{e4}b", "w", ""] {
            for zone in ["us-1", "us-2", "eu", ""] {
                for env in ["production", "test", ""] {
                    for service in [None, Some("a"), Some("bc"), Some("c")] {
                        let instance = instance(name, zone, env, service);
                        let all: Vec<(usize, String)> = selections
                            .iter()
                            .map(|selection| selection.decide(&instance))
                            .enumerate()
                            .filter(|(_, decision)| !matches!(decision, Decision::NotMatched))
                            .map(|(position, decision)| (position, word(&decision)))
                            .collect();
                        let found: Vec<(usize, String)> = index
                            .decide(&instance)
                            .iter()
                            .map(|(position, decision)| (*position, word(decision)))
                            .collect();
                        assert_eq!(found, all, "{instance:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_many_ask_for_is_not_what_one_is_found_by() {
        let service = |service: &str| {
            selection(&[json!({"labels": {"env": "production", "service": service}})], &[])
        };
        let selections = ["a", "b", "c"].map(service);
        let index = Index::new(&selections);
        assert!(index.always.is_empty());
        assert!(index.by_trait.keys().all(|one| matches!(one, Trait::Label("service", _))));
    }
}
