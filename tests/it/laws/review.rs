//! Reviews over generated worlds: a change of nothing has no effect, and what the next round deletes
//! because of a change is said to be lost.

use proptest::prelude::*;
use stillframe::inventory::{ImageState, Inventory};
use stillframe::plan::{Action, Plan, plan};
use stillframe::policy::Policies;
use stillframe::review::{Base, Review, Side, review};
use stillframe::simulate::forecast::of_image;

use super::law;
use crate::worlds::{World, now, worlds};

fn reviewed(before: &Policies, after: &Policies, inventory: &Inventory) -> (Review, Plan) {
    let (old, new) = (plan(before, inventory, now()), plan(after, inventory, now()));
    let side = Side { policies: before, plan: &old };
    let base = Base { name: "base".to_owned(), commit: None, side };
    let review = review(base, &Side { policies: after, plan: &new }, inventory);
    (review, new)
}

#[test]
fn a_change_of_nothing_has_no_effect() {
    law(worlds(), |world| {
        let (one, other) = (world.policies(), world.policies());
        let (review, _) = reviewed(&one, &other, &world.inventory());
        prop_assert!(review.verdict.same_meaning && !review.verdict.has_effect, "{review:#?}");
        prop_assert_eq!(review.losses.len() + review.gains.len() + review.orphaned.len(), 0);
        Ok(())
    });
}

#[test]
fn what_the_next_round_deletes_because_of_a_change_is_lost() {
    let told = std::sync::Mutex::new(0_usize);
    law((worlds(), worlds()), |(world, other): (World, World)| {
        let inventory = world.inventory();
        let before = world.policies();
        // The same world with the rules of another one.
        let mut changed = world.clone();
        changed.policies = other.policies;
        let after = changed.policies();
        let (review, new) = reviewed(&before, &after, &inventory);
        let engine = &inventory.engines[0];
        let added = review.next_round.added.iter();
        for change in added.filter(|change| change.action == Action::Delete) {
            let id = change.image.id.as_deref().unwrap();
            let image = engine.images.iter().find(|image| image.id == id).unwrap();
            if image.state != ImageState::Ready {
                continue;
            }
            let loss = review.losses.iter().find(|loss| loss.image.id.as_deref() == Some(id));
            // What goes soon in any case is a run earlier, and no more.
            let anyway = of_image(&before, &inventory, &engine.name, id, now());
            let soon = anyway.and_then(|anyway| anyway.deleted_at).is_some();
            prop_assert!(loss.is_some() || soon, "{id} is deleted and not said to be lost");
            if let Some(loss) = loss {
                prop_assert!(loss.after.deleted_at.is_some_and(|at| at <= now()), "{loss:#?}");
                *told.lock().unwrap() += 1;
            }
        }
        // Nothing is both, and whatever is lost is there.
        for loss in &review.losses {
            prop_assert!(review.gains.iter().all(|gain| gain.image.id != loss.image.id));
            prop_assert!(
                engine.images.iter().any(|image| Some(&image.id) == loss.image.id.as_ref())
            );
            prop_assert!(loss.after.deleted_at.is_some());
        }
        prop_assert_eq!(&review.plan, &new.id);
        Ok(())
    });
    let told = *told.lock().unwrap();
    assert!(told > 5, "the worlds lose too little to tell: {told}");
}
