//! Adoption over generated worlds: it touches only what is nobody's, twice is once, no slot has two
//! images for it, and the next plan deletes nothing for it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;
use proptest::prelude::*;
use stillframe::adopt::{DEFAULT, Pattern, Wanted, adopt, guard};
use stillframe::inventory::{ImageState, Inventory};
use stillframe::name::{LABEL_PREFIX, Ownership, PolicyName, Slot, SourceId};
use stillframe::plan::check::check;
use stillframe::plan::going::going;
use stillframe::plan::{Action, plan};
use stillframe::schedule::Zone;

use super::law;
use crate::worlds::{POLICIES, carry_out, ids, now, worlds};

fn wanted() -> Wanted {
    Wanted {
        policy: PolicyName::parse(POLICIES[0]).unwrap(),
        pattern: Some(Pattern::parse(DEFAULT).unwrap()),
        labels: Vec::new(),
        zone: Zone::UTC,
    }
}

/// Some images of the world as a script would have made them: without labels, with a name of its own.
fn scripted(inventory: &mut Inventory, which: &[bool], tidy: &[bool]) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    let images = inventory.engines[0].images.iter_mut();
    for (image, (is_scripted, is_tidy)) in images.zip(which.iter().cycle().zip(tidy.iter().cycle()))
    {
        let Ownership::Ours(key) = image.ownership() else { continue };
        if !is_scripted {
            continue;
        }
        image.labels.retain(|label, _| !is_tidy && !label.starts_with("stillframe-policy"));
        if *is_tidy {
            image.labels.clear();
        }
        let civil = TimeZone::UTC.to_datetime(key.slot.instant());
        image.name = format!("{}-backup-{}", key.source, civil.strftime("%Y%m%d-%H%M%S"));
        image.created_at = key.slot.instant();
        image.source = None;
        ids.insert(image.id.clone());
    }
    ids
}

fn scripts() -> impl Strategy<Value = (Vec<bool>, Vec<bool>)> {
    // Most of them are whole, and some have labels left.
    let tidy = prop::collection::vec(prop::bool::weighted(0.9), 7);
    (prop::collection::vec(any::<bool>(), 1..16), tidy)
}

#[test]
fn adoption_takes_only_what_is_nobodys_and_costs_nothing() {
    let adopted = std::sync::Mutex::new(0_usize);
    law((worlds(), scripts()), |(world, (which, tidy))| {
        let policies = world.policies();
        let mut inventory = world.inventory();
        let scripted = scripted(&mut inventory, &which, &tidy);
        let adoption = adopt(&policies, &inventory, &wanted(), now()).unwrap();
        prop_assert_eq!(guard(&adoption.plan, &policies, &inventory), []);
        let before = plan(&policies, &inventory, now());
        *adopted.lock().unwrap() += adoption.plan.changes.len();
        let mut after = inventory.clone();
        for change in &adoption.plan.changes {
            let id = change.image.id.clone().unwrap();
            prop_assert_eq!(change.action, Action::Relabel);
            prop_assert!(scripted.contains(&id));
            let image = inventory.engines[0].images.iter().find(|image| image.id == id).unwrap();
            prop_assert_eq!(image.ownership(), Ownership::Foreign);
            prop_assert_eq!(image.state, ImageState::Ready);
            prop_assert!(!image.labels.keys().any(|label| label.starts_with(LABEL_PREFIX)));
            prop_assert_eq!(change.key.slot, Slot::at(image.created_at));
            carry_out(&mut after, change);
        }
        // Each of the images that are meant is adopted or said why not.
        prop_assert!(
            !adoption.plan.engines[0].complete
                || adoption.plan.changes.len() + adoption.left_alone.len() + adoption.already
                    >= scripted.len()
        );
        // No slot has two images for it that had one.
        let slots = |inventory: &Inventory| -> BTreeMap<(SourceId, Slot), usize> {
            let mut slots = BTreeMap::new();
            for image in &inventory.engines[0].images {
                if let Ownership::Ours(key) = image.ownership()
                    && policies
                        .keeper(&key.policy)
                        .is_some_and(|one| one.name.as_str() == POLICIES[0])
                {
                    *slots.entry((key.source, key.slot)).or_default() += 1;
                }
            }
            slots
        };
        let known = slots(&inventory);
        for (slot, count) in slots(&after) {
            prop_assert!(count == 1 || known.get(&slot) == Some(&count), "{slot:?}");
        }
        // The next plan deletes nothing that it would not have deleted anyway, and breaks no rule.
        let next = plan(&policies, &after, now());
        let new: Vec<_> =
            ids(&next, Action::Delete).difference(&ids(&before, Action::Delete)).cloned().collect();
        prop_assert_eq!(new, Vec::<String>::new());
        // Nor does it let go of anything that it keeps, but of what is adopted.
        let meant: BTreeSet<String> =
            adoption.plan.changes.iter().filter_map(|change| change.image.id.clone()).collect();
        let known = going(&before, &inventory.engines[0]);
        let goes = going(&next, &after.engines[0]);
        let lost = |id: &&&str| !known.contains_key(**id) && !meant.contains(**id);
        prop_assert_eq!(goes.keys().find(lost), None);
        prop_assert_eq!(check(&next, &after, &policies, now()), []);
        let own: BTreeSet<String> =
            adoption.plan.changes.iter().filter_map(|change| change.image.id.clone()).collect();
        let let_go = ids(&next, Action::Deprecate).intersection(&own).count();
        prop_assert_eq!(let_go, adoption.let_go);
        // Twice is once.
        let again = adopt(&policies, &after, &wanted(), now()).unwrap();
        prop_assert!(again.plan.changes.is_empty());
        Ok(())
    });
    // A law over worlds in which nothing is adopted says nothing.
    assert!(*adopted.lock().unwrap() > 50);
}
