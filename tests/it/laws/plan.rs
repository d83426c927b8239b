//! Laws 11 and 18 to 25 of planning, and that no plan meets a guard that cannot be overridden.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use stillframe::inventory::{
    Capabilities, EngineInventory, FORMAT_VERSION, Gap, GapScope, Image, ImageState, Inventory,
    LABEL_HOLD, LABEL_LET_GO, LABEL_MISSING, Stage,
};
use stillframe::name::{Key, Ownership, PolicyName, Slot, SourceId, stamp};
use stillframe::plan::{Action, Change, Plan, guard, plan};
use stillframe::policy::{EngineKind, Policies, SourceFile, load};

use super::law;
use crate::memory::{self, instance};

const NOW: &str = "2026-11-21T12:00:00Z";
const SOURCES: [&str; 3] = ["web-1", "web-2", "gone-1"];
const POLICIES: [&str; 2] = ["nightly", "weekly"];

pub(super) fn now() -> Timestamp {
    NOW.parse().unwrap()
}

/// A policy as the generator makes it.
#[derive(Debug, Clone)]
struct PolicySpec {
    retention: BTreeMap<&'static str, u32>,
    at_least: u32,
    grace_hours: u32,
    paused: bool,
}

/// An image as the generator makes it.
#[derive(Debug, Clone)]
struct ImageSpec {
    policy: usize,
    source: usize,
    days_ago: i64,
    state: u8,
    let_go_hours_ago: Option<i64>,
    held: bool,
    in_use: bool,
    marked_missing: bool,
    twin: bool,
}

#[derive(Debug, Clone)]
pub(super) struct World {
    policies: Vec<PolicySpec>,
    images: Vec<ImageSpec>,
    foreign: usize,
}

fn policy_specs() -> impl Strategy<Value = PolicySpec> {
    let rules = proptest::sample::select(vec!["days", "last", "daily", "weekly", "monthly"]);
    (
        proptest::collection::btree_map(rules, 1_u32..6, 0..3),
        1_u32..4,
        0_u32..72,
        prop::bool::weighted(0.1),
    )
        .prop_map(|(retention, at_least, grace_hours, paused)| PolicySpec {
            retention,
            at_least,
            grace_hours,
            paused,
        })
}

fn image_specs() -> impl Strategy<Value = ImageSpec> {
    let flags = (
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.05),
    );
    (
        0..POLICIES.len(),
        0..SOURCES.len(),
        -2_i64..40,
        0_u8..12,
        proptest::option::of(-5_i64..120),
        flags,
    )
        .prop_map(
            |(
                policy,
                source,
                days_ago,
                state,
                let_go_hours_ago,
                (held, in_use, marked_missing, twin),
            )| ImageSpec {
                policy,
                source,
                days_ago,
                state,
                let_go_hours_ago,
                held,
                in_use,
                marked_missing,
                twin,
            },
        )
}

pub(super) fn worlds() -> impl Strategy<Value = World> {
    (
        proptest::collection::vec(policy_specs(), 2),
        proptest::collection::vec(image_specs(), 0..50),
        0_usize..3,
    )
        .prop_map(|(policies, images, foreign)| World { policies, images, foreign })
}

impl World {
    pub(super) fn policies(&self) -> Policies {
        self.policies_of(&POLICIES)
    }

    fn policies_of(&self, names: &[&str]) -> Policies {
        let kind = EngineKind {
            name: "memory",
            settings_schema: serde_json::json!({"type": "object"}),
            capabilities: |_| Capabilities::default(),
        };
        let mut text =
            "apiVersion: stillframe/v1\nkind: Config\nspec:\n  engines: {memory: {memory: {}}}\n"
                .to_owned();
        for (name, spec) in POLICIES.iter().zip(&self.policies) {
            if !names.contains(name) {
                continue;
            }
            let rules: Vec<String> =
                spec.retention.iter().map(|(rule, count)| format!("{rule}: {count}")).collect();
            text.push_str(&format!(
                "---\napiVersion: stillframe/v1\nkind: BackupPolicy\nmetadata: {{name: {name}}}\nspec:\n  \
                 source: {{match: [{{names: [\"web-*\"]}}]}}\n  schedule: {{cron: \"0 2 * * *\"}}\n  \
                 retention: {{{}{}atLeast: {}}}\n  lifecycle: {{grace: {}h}}\n",
                rules.join(", "),
                if rules.is_empty() { "" } else { ", " },
                spec.at_least,
                spec.grace_hours
            ));
            if spec.paused {
                text.push_str("  paused: {deletes: true}\n");
            }
        }
        let loaded = load(vec![SourceFile { path: "all.yaml".to_owned(), text }], &[kind]);
        loaded.policies.unwrap_or_else(|| panic!("{:?}", loaded.findings))
    }

    pub(super) fn inventory(&self) -> Inventory {
        let mut images: BTreeMap<String, Image> = BTreeMap::new();
        for spec in &self.images {
            for image in spec.images() {
                images.insert(image.id.clone(), image);
            }
        }
        for number in 0..self.foreign {
            let mut image = ImageSpec::plain(0, 0, 300).images().remove(0);
            image.id = format!("foreign-{number}");
            image.name.clone_from(&image.id);
            image.labels.clear();
            images.insert(image.id.clone(), image);
        }
        let engine = EngineInventory {
            name: "memory".to_owned(),
            kind: "memory".to_owned(),
            identity: "here".to_owned(),
            gaps: Vec::new(),
            images_seen_before: None,
            capabilities: Capabilities::default(),
            instances: SOURCES[..2].iter().map(|name| instance(name, &[])).collect(),
            images: images.into_values().collect(),
        };
        Inventory {
            format_version: FORMAT_VERSION.to_owned(),
            observed_at: now(),
            engines: vec![engine],
        }
    }

    fn plan(&self) -> Plan {
        plan(&self.policies(), &self.inventory(), now())
    }
}

impl ImageSpec {
    fn plain(policy: usize, source: usize, days_ago: i64) -> Self {
        Self {
            policy,
            source,
            days_ago,
            state: 0,
            let_go_hours_ago: None,
            held: false,
            in_use: false,
            marked_missing: false,
            twin: false,
        }
    }

    fn images(&self) -> Vec<Image> {
        let hours = |hours: i64| now() - SignedDuration::from_hours(hours);
        let slot = hours(10 + 24 * self.days_ago);
        let key = Key {
            policy: PolicyName::parse(POLICIES[self.policy]).unwrap(),
            source: SourceId::parse(SOURCES[self.source]).unwrap(),
            slot: Slot::at(slot),
        };
        let name = key.image_name(&key.default_prefix());
        let mut image = memory::image(&name, &key);
        let mut set = |label: &str, value: String| image.labels.insert(label.to_owned(), value);
        if let Some(ago) = self.let_go_hours_ago {
            set(LABEL_LET_GO, stamp(hours(ago)));
        }
        if self.held {
            set(LABEL_HOLD, "yes".to_owned());
        }
        if self.marked_missing {
            set(LABEL_MISSING, stamp(hours(24 * 20)));
        }
        image.state = match self.state {
            0..=8 => ImageState::Ready,
            9 => ImageState::Failed,
            10 => ImageState::Creating,
            _ => ImageState::Unknown,
        };
        if self.let_go_hours_ago.is_some() {
            image.stage = Stage::Deprecated;
        }
        if self.in_use {
            image.in_use_by.push("vm".to_owned());
        }
        let mut images = vec![image.clone()];
        if self.twin {
            images.push(Image { id: format!("{}-twin", image.id), ..image });
        }
        images
    }
}

fn ids(plan: &Plan, action: Action) -> BTreeSet<String> {
    plan.changes
        .iter()
        .filter(|change| change.action == action)
        .filter_map(|change| change.image.id.clone())
        .collect()
}

/// What carrying out a change leaves of an inventory.
fn carry_out(inventory: &mut Inventory, change: &Change) {
    let images = &mut inventory.engines[0].images;
    match change.action {
        Action::Create => {
            let create = change.create.as_ref().unwrap();
            if let Some(replaced) = &create.replaces {
                images.retain(|image| Some(&image.id) != replaced.id.as_ref());
            }
            let mut image = ImageSpec::plain(0, 0, 0).images().remove(0);
            image.id.clone_from(&change.image.name);
            image.name.clone_from(&change.image.name);
            image.labels.clone_from(&create.labels);
            image.created_at = now();
            images.push(image);
        }
        Action::Delete => images.retain(|image| Some(&image.id) != change.image.id.as_ref()),
        _ => {
            let update = change.update.as_ref().unwrap();
            let image = images
                .iter_mut()
                .find(|image| Some(&image.id) == change.image.id.as_ref())
                .unwrap();
            image.stage = update.stage_after;
            image.labels.retain(|label, _| !update.remove_labels.contains(label));
            image.labels.extend(update.set_labels.clone());
        }
    }
}

/// READY images that are not in the future, by series, the newest first.
fn ready(inventory: &Inventory) -> BTreeMap<(PolicyName, SourceId), Vec<(Slot, String)>> {
    let mut series: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for image in &inventory.engines[0].images {
        let Ownership::Ours(key) = image.ownership() else { continue };
        if image.state == ImageState::Ready && key.slot.instant() <= now() {
            series.entry((key.policy, key.source)).or_default().push((key.slot, image.id.clone()));
        }
    }
    for points in series.values_mut() {
        points.sort_by(|one, other| other.cmp(one));
    }
    series
}

#[test]
fn law_06_no_plan_deletes_the_newest() {
    law(worlds(), |world| {
        let deleted = ids(&world.plan(), Action::Delete);
        let inventory = world.inventory();
        let newest = |points: &Vec<(Slot, String)>, count: usize| -> Vec<String> {
            let held = |id: &String| {
                let image =
                    inventory.engines[0].images.iter().find(|image| image.id == *id).unwrap();
                image.is_held(now())
            };
            // Of two images of one slot, the one with the larger id stands for both.
            let mut slots = BTreeSet::new();
            points
                .iter()
                .filter(|(slot, id)| !held(id) && slots.insert(*slot))
                .take(count)
                .map(|(_, id)| id.clone())
                .collect()
        };
        for ((policy, _), points) in ready(&inventory) {
            let index = POLICIES.iter().position(|name| *name == policy.as_str()).unwrap();
            for id in newest(&points, world.policies[index].at_least as usize) {
                prop_assert!(!deleted.contains(&id), "{id}");
            }
        }
        Ok(())
    });
}

#[test]
fn law_11_series_and_foreign_images_do_not_touch_each_other() {
    law((worlds(), 0..POLICIES.len(), 0..SOURCES.len()), |(world, policy, source)| {
        let of_series = |plan: Plan| -> Vec<Change> {
            let is_it = |change: &Change| {
                change.key.policy.as_str() == POLICIES[policy]
                    && change.key.source.as_str() == SOURCES[source]
            };
            plan.changes.into_iter().filter(is_it).collect()
        };
        let mut alone = world.clone();
        alone.images.retain(|image| (image.policy, image.source) == (policy, source));
        alone.foreign = 0;
        prop_assert_eq!(of_series(world.plan()), of_series(alone.plan()));
        let touched =
            world.plan().changes.into_iter().any(|change| change.image.name.starts_with("foreign"));
        prop_assert!(!touched);
        Ok(())
    });
}

#[test]
fn law_18_hiding_an_image_costs_no_other() {
    law((worlds(), any::<prop::sample::Index>()), |(world, which)| {
        let inventory = world.inventory();
        prop_assume!(!inventory.engines[0].images.is_empty());
        let mut hidden = inventory.clone();
        let index = which.index(hidden.engines[0].images.len());
        hidden.engines[0].images.remove(index);
        let policies = world.policies();
        let before = ids(&plan(&policies, &inventory, now()), Action::Delete);
        let after = ids(&plan(&policies, &hidden, now()), Action::Delete);
        prop_assert!(after.is_subset(&before), "{:?}", after.difference(&before));
        Ok(())
    });
}

#[test]
fn law_19_an_incomplete_listing_deletes_nothing() {
    law((worlds(), any::<bool>(), 0_usize..60), |(world, instances, kept)| {
        let mut inventory = world.inventory();
        let scope = if instances { GapScope::Instances } else { GapScope::Images };
        inventory.engines[0].gaps.push(Gap {
            scope,
            place: "page 2".into(),
            message: String::new(),
        });
        if instances {
            inventory.engines[0].instances.truncate(1);
        } else {
            inventory.engines[0].images.truncate(kept);
        }
        let plan = plan(&world.policies(), &inventory, now());
        for change in &plan.changes {
            prop_assert!(
                !matches!(change.action, Action::Delete | Action::Deprecate | Action::Obsolete),
                "{change:?}"
            );
        }
        Ok(())
    });
}

#[test]
fn law_20_a_plan_is_a_function_of_its_inputs() {
    law((worlds(), any::<prop::sample::Index>()), |(world, turn)| {
        let (policies, inventory) = (world.policies(), world.inventory());
        let mut turned = inventory.clone();
        let images = &mut turned.engines[0].images;
        if !images.is_empty() {
            let middle = turn.index(images.len());
            images.rotate_left(middle);
            images.reverse();
        }
        turned.engines[0].instances.reverse();
        let bytes = |inventory: &Inventory| {
            let mut plan = plan(&policies, inventory, now());
            plan.unprotected.sort_by(|one, other| one.id.cmp(&other.id));
            plan.held_back.sort_by(|one, other| {
                one.key.cmp(&other.key).then(one.image.id.cmp(&other.image.id))
            });
            serde_json::to_string(&plan).unwrap()
        };
        prop_assert_eq!(bytes(&inventory), bytes(&inventory));
        prop_assert_eq!(bytes(&inventory), bytes(&turned));
        Ok(())
    });
}

#[test]
fn law_21_any_beginning_of_a_plan_leaves_everything_protected() {
    law(worlds(), |world| {
        let mut inventory = world.inventory();
        let before = ready(&inventory);
        for change in world.plan().changes {
            carry_out(&mut inventory, &change);
            let after = ready(&inventory);
            for (series, points) in &before {
                let slots = |points: &Vec<(Slot, String)>| {
                    points.iter().map(|(slot, _)| *slot).collect::<BTreeSet<_>>().len()
                };
                let left = after.get(series).map_or(0, slots);
                let index = POLICIES.iter().position(|name| *name == series.0.as_str()).unwrap();
                let floor = (world.policies[index].at_least as usize).min(slots(points));
                prop_assert!(left >= floor, "{series:?}: {left} left of {}", points.len());
                prop_assert!(after[series][0].0 >= points[0].0);
            }
        }
        Ok(())
    });
}

#[test]
fn law_22_a_plan_that_was_carried_out_leaves_nothing_to_do() {
    law(worlds(), |world| {
        let policies = world.policies();
        let mut inventory = world.inventory();
        // A stalled series without grace: create, deprecate, delete.
        for _ in 0..3 {
            for change in plan(&policies, &inventory, now()).changes {
                carry_out(&mut inventory, &change);
            }
        }
        let left = plan(&policies, &inventory, now()).changes;
        prop_assert!(left.is_empty(), "{left:#?}");
        Ok(())
    });
}

#[test]
fn law_24_removing_or_pausing_a_policy_deletes_nothing() {
    law(worlds(), |mut world| {
        let removed = plan(&world.policies_of(&POLICIES[..1]), &world.inventory(), now());
        let is_of = |change: &Change| change.key.policy.as_str() == POLICIES[1];
        prop_assert!(!removed.changes.iter().any(is_of));
        world.policies[1].paused = true;
        let paused = world.plan();
        let takes = |change: &Change| {
            is_of(change)
                && matches!(change.action, Action::Deprecate | Action::Obsolete | Action::Delete)
        };
        prop_assert!(!paused.changes.iter().any(takes), "{:#?}", paused.changes);
        Ok(())
    });
}

#[test]
fn law_25_no_policy_touches_what_another_has_made() {
    law(worlds(), |world| {
        let inventory = world.inventory();
        for change in world.plan().changes {
            let Some(id) = &change.image.id else { continue };
            let image = inventory.engines[0].images.iter().find(|image| image.id == *id).unwrap();
            prop_assert_eq!(image.ownership(), Ownership::Ours(change.key.clone()));
        }
        Ok(())
    });
}

#[test]
fn a_stalled_series_loses_nothing() {
    law(worlds(), |world| {
        let ready = ready(&world.inventory());
        let limit = now() - SignedDuration::from_hours(24 * 3);
        for change in world.plan().changes {
            // What waits for a new point comes after the stall.
            let takes = change.action == Action::Delete
                || (change.action == Action::Deprecate && change.waits_for.is_none());
            let is_gone = change.key.source.as_str() == SOURCES[2];
            let points = ready
                .get(&(change.key.policy.clone(), change.key.source.clone()))
                .map_or(&[][..], Vec::as_slice);
            let is_ready = points.iter().any(|(_, id)| Some(id) == change.image.id.as_ref());
            if takes && is_ready && !is_gone {
                prop_assert!(points[0].0.instant() > limit, "{change:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn plans_and_guards_agree_on_what_may_never_be() {
    law(worlds(), |world| {
        let (policies, inventory) = (world.policies(), world.inventory());
        let plan = plan(&policies, &inventory, now());
        for refusal in guard::guard(&plan, &inventory, &policies, &[], now()) {
            prop_assert!(refusal.guard.can_be_overridden(), "{refusal:?}");
        }
        Ok(())
    });
}
