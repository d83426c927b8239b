//! Policies over what the engines hold: what fits nothing, what fits twice, and what is done.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{about, place_of};
use crate::inventory::{EngineInventory, GapScope, Image, Instance, Inventory};
use crate::name::{Key, Ownership, PolicyName};
use crate::policy::finding::{Code, Finding};
use crate::policy::meant::{Hold, Policies, Policy};
use crate::policy::select::{Condition, Decision};

/// So many policies of one source are held against each other pair by pair; beyond that each
/// against the next.
const PAIRS_MAX: usize = 8;

/// An engine and the policies whose sources it holds.
pub(super) struct View<'a> {
    pub(super) engine: &'a EngineInventory,
    /// In the order of their names, each with the instances it selects.
    pub(super) policies: Vec<(&'a Policy, Vec<&'a Instance>)>,
}

impl<'a> View<'a> {
    pub(super) fn all(policies: &'a Policies, inventory: &'a Inventory) -> Vec<Self> {
        let of = |engine: &'a EngineInventory| {
            let own = policies.policies.iter().filter(|policy| policy.engine == engine.name);
            let selected = |policy: &'a Policy| {
                let instances = engine.instances.iter();
                let is_source = |instance: &&Instance| {
                    matches!(policy.selection.decide(instance), Decision::Selected(_))
                };
                (policy, instances.filter(is_source).collect())
            };
            Self { engine, policies: own.map(selected).collect() }
        };
        inventory.engines.iter().map(of).collect()
    }

    fn has_gap(&self, scope: GapScope) -> bool {
        self.engine.gaps.iter().any(|gap| gap.scope == scope)
    }
}

pub(super) fn lint(policies: &Policies, views: &[View<'_>], now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    for view in views {
        if !view.has_gap(GapScope::Instances) {
            findings.extend(view.policies.iter().flat_map(|(policy, sources)| {
                without_match(policy, sources, &view.engine.instances)
            }));
        }
        findings.extend(overlaps(view));
        findings.extend(families(view));
    }
    findings.extend(exemptions(policies, views, now));
    findings.extend(old_names(policies, views));
    findings.extend(holds(policies, views, now));
    findings
}

/// What a policy asks for and nothing fits.
fn without_match(policy: &Policy, sources: &[&Instance], instances: &[Instance]) -> Vec<Finding> {
    if sources.is_empty() {
        let message = format!("`{}` selects none of {} instances", policy.name, instances.len());
        return vec![
            about(policy, Code::MatchesNothing, "source.match", message)
                .hint("see what there is: stillframe inventory"),
        ];
    }
    let fits = |condition: &Condition| instances.iter().any(|one| condition.holds(one));
    let any = policy.selection.any.iter().map(|condition| (condition, "match"));
    let except = policy.selection.except.iter().map(|condition| (condition, "exclude"));
    any.chain(except.filter(|(condition, _)| !condition.is_of_labels()))
        .filter(|(condition, _)| !fits(condition))
        .map(|(condition, list)| {
            let place = condition.place.clone();
            let place = place.unwrap_or_else(|| place_of(policy, &format!("source.{list}")));
            let message = format!("no instance fits this entry of `{list}`: {condition}");
            Finding::new(Code::EntryMatchesNothing, place, message).of(&policy.name)
        })
        .collect()
}

/// Policies that select the same sources, unless one of them says so.
fn overlaps(view: &View<'_>) -> Vec<Finding> {
    let mut by_source: BTreeMap<&str, (&Instance, Vec<&Policy>)> = BTreeMap::new();
    for (policy, sources) in &view.policies {
        for source in sources {
            let (_, policies) =
                by_source.entry(source.id.as_str()).or_insert_with(|| (source, Vec::new()));
            policies.push(policy);
        }
    }
    let mut pairs: BTreeMap<(&PolicyName, &PolicyName), (&Policy, &Policy, &str, usize)> =
        BTreeMap::new();
    for (source, policies) in by_source.values() {
        let reach = if policies.len() > PAIRS_MAX { 1 } else { policies.len() };
        for (position, one) in policies.iter().enumerate() {
            for other in policies[position + 1..].iter().take(reach) {
                let pair = pairs.entry((&one.name, &other.name));
                pair.or_insert((one, other, &source.name, 0)).3 += 1;
            }
        }
    }
    let says = |one: &Policy, other: &Policy| {
        let patterns = one.overlaps_with.as_ref();
        patterns.is_some_and(|patterns| patterns.matches(other.name.as_str()))
            || one.allowed.iter().any(|allowed| allowed.code == Code::SourcesOverlap)
    };
    pairs
        .into_values()
        .filter(|(one, other, ..)| !says(one, other) && !says(other, one))
        .map(|(one, other, source, count)| {
            let more = if count > 1 { format!(" and {} more", count - 1) } else { String::new() };
            let message =
                format!("`{}` and `{}` both protect {source}{more}", one.name, other.name);
            about(one, Code::SourcesOverlap, "source.match", message)
                .hint(format!(
                    "where that is meant, write `overlapsWith: {}` under `source`",
                    other.name
                ))
                .related(
                    place_of(other, "source.match"),
                    format!("`{}` selects it too", other.name),
                )
        })
        .collect()
}

/// Families with images of several sources.
fn families(view: &View<'_>) -> Vec<Finding> {
    let mut families: BTreeMap<&str, (&Policy, BTreeSet<&str>)> = BTreeMap::new();
    for (policy, sources) in &view.policies {
        if let Some(family) = &policy.capture.family {
            let (_, all) = families.entry(family).or_insert_with(|| (policy, BTreeSet::new()));
            all.extend(sources.iter().map(|source| source.name.as_str()));
        }
    }
    families
        .into_iter()
        .filter(|(_, (_, sources))| sources.len() > 1)
        .map(|(family, (policy, sources))| {
            let shown: Vec<&str> = sources.iter().take(3).copied().collect();
            let message = format!(
                "the family `{family}` gets images of {} sources: {}{}",
                sources.len(),
                shown.join(", "),
                if sources.len() > shown.len() { ", …" } else { "" }
            );
            about(policy, Code::FamilyOfSeveral, "capture.family", message).hint(
                "its newest image stands for all of them; give each source a family of its own",
            )
        })
        .collect()
}

/// Exemptions that exempt nothing.
fn exemptions(policies: &Policies, views: &[View<'_>], now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    let is_seen = |engine: &String| views.iter().any(|view| view.engine.name == *engine);
    for exemption in policies.config.exemptions.iter().filter(|one| !one.has_ended(now)) {
        let engines = || {
            policies
                .config
                .engines
                .keys()
                .filter(|name| exemption.engine.as_ref().is_none_or(|only| only == *name))
        };
        let of = |view: &&View<'_>| engines().any(|name| *name == view.engine.name);
        let own: Vec<&View<'_>> = views.iter().filter(of).collect();
        let is_whole =
            engines().all(is_seen) && !own.iter().any(|view| view.has_gap(GapScope::Instances));
        if !is_whole {
            continue;
        }
        let mut covered = 0;
        let mut protected: Option<&Policy> = None;
        let mut is_needed = false;
        for view in own {
            let instances = view.engine.instances.iter();
            for instance in instances.filter(|one| exemption.covers(&view.engine.name, one)) {
                covered += 1;
                let selects = |(policy, _): &&(&Policy, Vec<&Instance>)| {
                    matches!(policy.selection.decide(instance), Decision::Selected(_))
                };
                match view.policies.iter().find(selects) {
                    Some((policy, _)) => protected = Some(policy),
                    None => is_needed = true,
                }
            }
        }
        let message = match protected {
            _ if covered == 0 => {
                format!("the exemption of `{}` fits no instance", exemption.source)
            }
            Some(policy) if !is_needed => format!(
                "what the exemption of `{}` fits is protected, by `{}`",
                exemption.source, policy.name
            ),
            _ => continue,
        };
        findings.push(
            Finding::new(Code::ExemptsNothing, exemption.place.clone(), message)
                .hint("take the entry out"),
        );
    }
    findings
}

/// The images of all policies, where all engines were seen whole.
fn owned<'a>(policies: &Policies, views: &[View<'a>]) -> Option<Vec<(Key, &'a Image)>> {
    let is_whole = |name: &String| {
        views.iter().any(|view| view.engine.name == *name && !view.has_gap(GapScope::Images))
    };
    if !policies.config.engines.keys().all(is_whole) {
        return None;
    }
    let images = views.iter().flat_map(|view| &view.engine.images);
    let of = |image: &'a Image| match image.ownership() {
        Ownership::Ours(key) => Some((key, image)),
        Ownership::Foreign | Ownership::Broken(_) => None,
    };
    Some(images.filter_map(of).collect())
}

/// Entries about names that no image carries any more.
fn old_names(policies: &Policies, views: &[View<'_>]) -> Vec<Finding> {
    let moved = policies.moved_places.iter().map(|(name, place)| (name, place, "moved"));
    let removed = policies.removed.iter().map(|one| (&one.name, &one.place, "removed"));
    let entries: Vec<_> = moved.chain(removed).collect();
    if entries.is_empty() {
        return Vec::new();
    }
    let Some(images) = owned(policies, views) else { return Vec::new() };
    // Where there is nothing at all, the engines have hardly been used yet.
    if images.is_empty() {
        return Vec::new();
    }
    let used: BTreeSet<&PolicyName> = images.iter().map(|(key, _)| &key.policy).collect();
    let unused = entries.into_iter().filter(|(name, ..)| !used.contains(name));
    unused
        .map(|(name, place, list)| {
            let message = format!("no image carries the name `{name}` any more");
            Finding::new(Code::MoveIsDone, place.clone(), message)
                .hint(format!("the entry of `{list}` can be taken out"))
        })
        .collect()
}

/// Entries of `hold` that hold nothing.
fn holds(policies: &Policies, views: &[View<'_>], now: Timestamp) -> Vec<Finding> {
    let holding = policies.policies.iter().filter(|policy| !policy.holds.is_empty());
    let holding: Vec<&Policy> = holding.collect();
    if holding.is_empty() {
        return Vec::new();
    }
    let Some(images) = owned(policies, views) else { return Vec::new() };
    let names: BTreeMap<&str, &str> = views
        .iter()
        .flat_map(|view| &view.engine.instances)
        .map(|instance| (instance.id.as_str(), instance.name.as_str()))
        .collect();
    let mut findings = Vec::new();
    for policy in holding {
        let is_own =
            |key: &Key| policies.keeper(&key.policy).is_some_and(|one| one.name == policy.name);
        let own: Vec<&(Key, &Image)> = images.iter().filter(|(key, _)| is_own(key)).collect();
        let is_current = |hold: &&Hold| {
            hold.until.is_none_or(|until| now < until) && hold.from.is_none_or(|from| from <= now)
        };
        // Of a policy that is new nothing can be held yet.
        let holds_of = policy.holds.iter().filter(|_| !own.is_empty());
        for hold in holds_of.filter(is_current) {
            let holds = |(key, image): &&(Key, &Image)| {
                hold.is_of(key, image, names.get(key.source.as_str()).copied())
            };
            if own.iter().copied().any(|one| holds(&one)) {
                continue;
            }
            let message =
                format!("this holds none of the {} images of `{}`", own.len(), policy.name);
            findings.push(
                Finding::new(Code::HoldsNothing, hold.place.clone(), message)
                    .of(&policy.name)
                    .hint("see what there is: stillframe list"),
            );
        }
    }
    findings
}
