//! Laws 6, 11 and 18 to 25 of planning, and that no plan meets a guard that cannot be overridden, nor
//! a rule of the independent check.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use stillframe::inventory::{Gap, GapScope, Image, ImageState, Inventory};
use stillframe::name::{Ownership, Slot};
use stillframe::plan::check::check;
use stillframe::plan::{Action, Change, Plan, guard, plan, still_wanted};
use stillframe::policy::Policies;

use super::law;
use crate::memory;
use crate::worlds::{POLICIES, SOURCES, World, carry_out, ids, now, returned, worlds};

#[test]
fn law_06_no_plan_deletes_the_newest() {
    law(worlds(), |world| {
        let (inventory, policies) = (world.inventory(), world.policies());
        let deleted = ids(&plan(&policies, &inventory, now()), Action::Delete);
        let newest = |points: &Vec<(Slot, String)>, count: usize| -> Vec<String> {
            let held = |id: &String| {
                let image =
                    inventory.engines[0].images.iter().find(|image| image.id == *id).unwrap();
                let Ownership::Ours(key) = image.ownership() else { panic!() };
                let instances = &inventory.engines[0].instances;
                let source = instances.iter().find(|instance| instance.id == key.source);
                let source = source.map(|instance| instance.name.as_str());
                let policy = policies.keeper(&key.policy).unwrap();
                image.is_held(now()) || policy.hold_on(&key, image, source, now()).is_some()
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
        for ((policy, source, _), points) in world.ready(&inventory) {
            for id in newest(&points, world.floor(&policy, &source)) {
                prop_assert!(!deleted.contains(&id), "{id}");
            }
        }
        Ok(())
    });
}

#[test]
fn law_11_series_and_foreign_images_do_not_touch_each_other() {
    law((worlds(), 0..POLICIES.len(), 0..SOURCES.len()), |(world, policy, source)| {
        // Who has to wait for whom is said by `plan::pace`, and held by the check.
        let world = World { paced: false, ..world };
        let of_series = |plan: Plan| -> Vec<Change> {
            let is_it = |change: &Change| {
                change.key.policy.as_str() == POLICIES[policy]
                    && change.key.source.as_str() == SOURCES[source]
            };
            let mut changes: Vec<Change> = plan.changes.into_iter().filter(is_it).collect();
            // A family reaches over series: what stands for an image is a hint for people.
            for update in changes.iter_mut().filter_map(|change| change.update.as_mut()) {
                update.replacement = None;
            }
            changes
        };
        let mut alone = world.clone();
        let keeper = world.keeper(POLICIES[policy]);
        alone.images.retain(|image| {
            image.source == source
                && (image.policy == policy || world.keeper(POLICIES[image.policy]) == keeper)
        });
        alone.foreign = 0;
        let policies = world.policies();
        let all = plan(&policies, &world.inventory(), now());
        let only = plan(&policies, &alone.inventory(), now());
        let touched = all.changes.iter().any(|change| change.image.name.starts_with("foreign"));
        prop_assert_eq!(of_series(all), of_series(only));
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
        let whole = plan(&policies, &inventory, now());
        let mut before = ids(&whole, Action::Delete);
        // A failed attempt goes as well where something takes its place.
        before.extend(whole.changes.iter().filter_map(|change| {
            let create = change.create.as_ref().map(|create| &create.replaces);
            let copy = change.copy.as_ref().map(|copy| &copy.replaces);
            create.or(copy)?.as_ref()?.id.clone()
        }));
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
    law(prop_oneof![worlds(), returned()], |world| {
        let mut inventory = world.inventory();
        let before = world.ready(&inventory);
        for change in world.plan().changes {
            carry_out(&mut inventory, &change);
            let after = world.ready(&inventory);
            for (series, points) in &before {
                let slots = |points: &Vec<(Slot, String)>| {
                    points.iter().map(|(slot, _)| *slot).collect::<BTreeSet<_>>().len()
                };
                let left = after.get(series).map_or(0, slots);
                let floor = world.floor(&series.0, &series.1).min(slots(points));
                prop_assert!(left >= floor, "{series:?}: {left} left of {}", points.len());
                prop_assert!(after[series][0].0 >= points[0].0);
            }
        }
        Ok(())
    });
}

#[test]
fn law_22_a_plan_that_was_carried_out_leaves_nothing_to_do() {
    law(prop_oneof![worlds(), returned()], |world| {
        let policies = world.policies();
        let mut inventory = world.inventory();
        // A stalled series without grace: create, deprecate, delete. A copy comes in between, and
        // what it was in the way of goes after it.
        let has_copies = world.policies.iter().any(|policy| policy.more.copies);
        // When a point that was drilled goes, another one remembers it.
        let has_drills = world.policies.iter().any(|policy| policy.more.drill);
        for _ in 0..3 + 2 * usize::from(has_copies) + usize::from(has_drills) {
            for change in plan(&policies, &inventory, now()).changes {
                carry_out(&mut inventory, &change);
            }
        }
        let left = plan(&policies, &inventory, now()).changes;
        prop_assert!(left.is_empty(), "{left:#?}");
        Ok(())
    });
}

/// What of a round that was carried out comes to an end in the next only.
#[derive(Default)]
struct Pending {
    /// What was brought back and the copies that were made age in a round of their own.
    young: BTreeSet<Option<String>>,
    /// What has changed is tried in the round after.
    changed: BTreeSet<Option<String>>,
    /// Whether copies were made of what was there, which displace others or bring others into reach of the rules.
    copies: bool,
}

impl Pending {
    fn explains(&self, change: &Change, inventory: &Inventory) -> bool {
        let id = &change.image.id;
        let mut images = inventory.engines[0].images.iter();
        let image = images.find(|image| Some(&image.id) == id.as_ref());
        // Deletes, and what has failed, come in the round after the one that makes something newer.
        change.action == Action::Delete
            || image.is_some_and(|image| image.state != ImageState::Ready)
            || (self.copies && (change.action == Action::Copy || image.is_some_and(Image::is_copy)))
            || self.young.contains(id)
            || (change.action == Action::Drill && self.changed.contains(id))
    }
}

fn is_of_copy(change: &Change, inventory: &Inventory) -> bool {
    let mut images = inventory.engines[0].images.iter();
    let image = images.find(|image| Some(&image.id) == change.image.id.as_ref());
    image.is_some_and(Image::is_copy)
}

/// Carries out what takes time, where the captures become READY or nothing comes of them, and then what apply
/// would: what waits for a capture, or is for where it fails, hangs on that. The second look must want all of
/// it.
fn carry_out_whole(
    policies: &Policies,
    inventory: &mut Inventory,
    captures: bool,
) -> Result<Pending, TestCaseError> {
    let approved = plan(policies, inventory, now());
    let before = inventory.clone();
    let mut pending = Pending::default();
    let is_long =
        |change: &&Change| matches!(change.action, Action::Create | Action::Copy | Action::Drill);
    let is_made = |change: &&Change| captures || change.image.id.is_some();
    for change in approved.changes.iter().filter(is_long).filter(is_made) {
        pending.copies |= change.copy.is_some() && change.image.id.is_some();
        carry_out(inventory, change);
    }
    let fresh = plan(policies, inventory, now());
    let wanted = still_wanted(&approved, &fresh, inventory);
    for (index, change) in approved.changes.iter().enumerate() {
        let is_for_other =
            if captures { change.unless.is_some() } else { change.waits_for.is_some() };
        if is_long(&change) || is_for_other {
            continue;
        }
        let is_wanted = wanted.contains(&index);
        // Copies that were made of what was there displace others: those are for the round after.
        if !is_wanted && pending.copies && is_of_copy(change, &before) {
            pending.young.insert(change.image.id.clone());
            continue;
        }
        prop_assert!(is_wanted, "not wanted any more: {change:#?}\n{:#?}", fresh.changes);
        pending.changed.insert(change.image.id.clone());
        if change.action == Action::Reactivate {
            pending.young.insert(change.image.id.clone());
        }
        carry_out(inventory, change);
    }
    let was_there = |image: &Image| before.engines[0].images.iter().any(|one| one.id == image.id);
    let copies = inventory.engines[0].images.iter().filter(|image| image.is_copy());
    let made = copies.filter(|image| !was_there(image));
    pending.young.extend(made.map(|image| Some(image.id.clone())));
    Ok(pending)
}

#[test]
fn law_22_all_of_a_plan_is_still_wanted_when_its_captures_are_there() {
    law(prop_oneof![worlds(), returned()], |world| {
        let (policies, mut inventory) = (world.policies(), world.inventory());
        let pending = carry_out_whole(&policies, &mut inventory, true)?;
        let mut left = plan(&policies, &inventory, now()).changes;
        left.retain(|change| !pending.explains(change, &inventory));
        prop_assert!(left.is_empty(), "{left:#?}");
        Ok(())
    });
}

#[test]
fn law_22_where_captures_fail_only_what_waits_for_them_is_left() {
    law(prop_oneof![worlds(), returned()], |world| {
        let (policies, mut inventory) = (world.policies(), world.inventory());
        let approved = plan(&policies, &inventory, now());
        let pending = carry_out_whole(&policies, &mut inventory, false)?;
        let mut left = plan(&policies, &inventory, now()).changes;
        left.retain(|change| !pending.explains(change, &inventory));
        for change in &left {
            let waits = change.waits_for.is_some() || change.action == Action::Create;
            prop_assert!(waits, "{change:#?}");
        }
        // For a capture that failed nothing was let go: what waited for it waits on.
        let waits = |changes: &[Change]| -> BTreeSet<String> {
            let waits = changes.iter().filter(|change| change.waits_for.is_some());
            let waits = waits.filter(|change| !pending.explains(change, &inventory));
            waits.filter_map(|change| change.image.id.clone()).collect()
        };
        let (before, after) = (waits(&approved.changes), waits(&left));
        prop_assert!(before.is_subset(&after), "{before:?}\n{after:?}");
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
        let world = world.plain();
        let ready = world.ready(&world.inventory());
        let limit = now() - SignedDuration::from_hours(24 * 3);
        for change in world.plan().changes {
            // What waits for a new point comes after the stall.
            let takes = change.action == Action::Delete
                || (change.action == Action::Deprecate && change.waits_for.is_none());
            let is_gone = SOURCES[2..].contains(&change.key.source.as_str());
            let points = ready
                .get(&(change.key.policy.to_string(), change.key.source.to_string(), false))
                .map_or(&[][..], Vec::as_slice);
            let is_ready = points.iter().any(|(_, id)| Some(id) == change.image.id.as_ref());
            if takes && is_ready && !is_gone {
                prop_assert!(points[0].0.instant() > limit, "{change:?}");
            }
        }
        Ok(())
    });
}

/// What is partial goes where something as new is READY, or what is partial and newer holds all of its
/// disks; and that stays until the one or the other can be said of it, whatever becomes of later captures.
#[test]
fn no_disk_goes_that_nothing_newer_holds() {
    let captures = proptest::collection::vec(0_usize..4, 40);
    law((worlds(), captures), |(world, captures)| {
        let policies = world.policies();
        let mut captures = captures.into_iter().cycle();
        let mut inventory = world.inventory();
        let mut gone: Vec<Image> = Vec::new();
        for hours in [0, 1, 3, 14, 15, 38, 39, 62, 90, 91] {
            let now = now() + SignedDuration::from_hours(hours);
            let plan = plan(&policies, &inventory, now);
            let violations = check(&plan, &inventory, &policies, now);
            prop_assert!(violations.is_empty(), "{violations:#?}");
            let refusals = guard::guard(&plan, &inventory, &policies, &[], now);
            let never = refusals.iter().find(|refusal| !refusal.guard.can_be_overridden());
            prop_assert!(never.is_none(), "{never:?}");
            for change in plan.changes.iter().filter(|change| change.waits_for.is_none()) {
                let images = &mut inventory.engines[0].images;
                let is_it = |image: &&Image| Some(&image.id) == change.image.id.as_ref();
                let deleted = images.iter().find(is_it).filter(|_| change.action == Action::Delete);
                gone.extend(deleted.filter(|image| is_part(image)).cloned());
                let Some(create) = &change.create else {
                    carry_out(&mut inventory, change);
                    continue;
                };
                // Most captures leave a part at most, and clear away first what they take the place of.
                let replaced = create.replaces.as_ref().and_then(|replaced| replaced.id.as_ref());
                images.retain(|image| Some(&image.id) != replaced);
                let mut made =
                    memory::image(&format!("made-{hours}-{}", change.image.name), &change.key);
                made.name.clone_from(&change.image.name);
                let disks: &[&str] = match captures.next() {
                    Some(1) => &["boot"],
                    Some(2) => &["data"],
                    Some(3) => &["boot", "data"],
                    _ => continue,
                };
                made.state = ImageState::Partial;
                made.disks = Some(disks.iter().map(|disk| (*disk).to_owned()).collect());
                images.push(made);
            }
            for gone in &gone {
                let images = &inventory.engines[0].images;
                prop_assert!(
                    images.iter().any(|image| world.stands_for(image, gone)),
                    "{hours} hours on: {gone:#?}\n{images:#?}"
                );
            }
        }
        Ok(())
    });
}

fn is_part(image: &Image) -> bool {
    image.state == ImageState::Partial && !image.is_copy() && !image.is_step()
}

impl World {
    /// Whether an image of the series of another holds all that it did, or is a restore point as new.
    fn stands_for(&self, image: &Image, gone: &Image) -> bool {
        let key = |image: &Image| match image.ownership() {
            Ownership::Ours(key) => {
                let keeper = self.keeper(key.policy.as_str()).map(str::to_owned)?;
                Some(((keeper, key.source), key.slot))
            }
            _ => None,
        };
        let (Some((series, slot)), Some((of, at))) = (key(image), key(gone)) else { return false };
        if series != of || image.is_copy() || image.is_step() {
            return false;
        }
        let disks = |image: &Image| image.disks.clone().unwrap_or_default();
        let is_newer = (slot, &image.id) > (at, &gone.id);
        let has_all = disks(gone).iter().all(|disk| disks(image).contains(disk));
        let is_part = is_part(image) && is_newer && has_all && !disks(gone).is_empty();
        is_part || (image.state == ImageState::Ready && slot >= at)
    }
}

#[test]
fn plans_and_guards_agree_on_what_may_never_be() {
    law(prop_oneof![worlds(), returned()], |world| {
        let (policies, inventory) = (world.policies(), world.inventory());
        let plan = plan(&policies, &inventory, now());
        for refusal in guard::guard(&plan, &inventory, &policies, &[], now()) {
            prop_assert!(refusal.guard.can_be_overridden(), "{refusal:?}");
        }
        Ok(())
    });
}

#[test]
fn no_plan_breaks_a_rule_of_the_check() {
    law((prop_oneof![worlds(), returned()], 0_usize..3), |(world, gap)| {
        let (policies, mut inventory) = (world.policies(), world.inventory());
        let scope = [None, Some(GapScope::Images), Some(GapScope::Instances)][gap];
        let message = String::new();
        let gap = scope.map(|scope| Gap { scope, place: "page 2".into(), message });
        inventory.engines[0].gaps.extend(gap);
        // Round after round: what a plan leaves is what the next is made over.
        for _ in 0..4 {
            let plan = plan(&policies, &inventory, now());
            let violations = check(&plan, &inventory, &policies, now());
            prop_assert!(violations.is_empty(), "{violations:#?}");
            for change in &plan.changes {
                carry_out(&mut inventory, change);
            }
        }
        Ok(())
    });
}
