//! Snapshots that are steps on the way to disk images: what plans, guards and the check do about them.

use jiff::SignedDuration;
use stillframe::inventory::{
    Gap, GapScope, Image, ImageKind, ImageState, Inventory, LABEL_HOLD, LABEL_STEP, Limits,
};
use stillframe::name::{Key, Ownership, Slot, step_name};
use stillframe::plan::check::{CheckRule, check};
use stillframe::plan::guard::{Guard, guard};
use stillframe::plan::{Action, Change, ImageRef, Plan, ReasonCode, plan};
use stillframe::policy::Policies;
use stillframe::report::plan_text;
use stillframe::simulate::expense::budget;

use super::engines::policies;
use super::guards::{ago, image, inventory, now};
use super::worlds::step_to;

const VIA: &str = "  capture: {kind: disk-image, via: snapshot, disks: boot}\n";

fn via(spec: &str) -> Policies {
    policies(&format!("{VIA}{spec}"))
}

/// The image of `web-1` of a night: of two in the morning, ten hours before now.
fn night(days: i64) -> Image {
    let slot = ago(days) - SignedDuration::from_hours(10);
    let mut image = image("web-1", days, None);
    let Ownership::Ours(key) = image.ownership() else { panic!("it is ours") };
    let key = Key { slot: Slot::at(slot), ..key };
    image.labels.extend(key.labels());
    image.name = key.image_name(&key.default_prefix());
    image.kind = ImageKind::DiskImage;
    image.created_at = slot;
    image
}

fn step(days: i64, state: ImageState) -> Image {
    step_to(&Image { state, ..night(days) })
}

/// A plan that nobody has anything against.
fn planned(policies: &Policies, seen: &Inventory) -> Plan {
    let plan = plan(policies, seen, now());
    assert_eq!(check(&plan, seen, policies, now()), []);
    assert_eq!(guard(&plan, seen, policies, &[], now()), []);
    plan
}

/// The ids of what goes, of `web-1`.
fn deleted(plan: &Plan) -> Vec<&str> {
    let deletes = plan.changes.iter().filter(|change| change.action == Action::Delete);
    deletes.filter_map(|change| change.image.id.as_deref()).collect()
}

fn created(plan: &Plan) -> Vec<&Change> {
    plan.changes
        .iter()
        .filter(|change| change.action == Action::Create && change.source_name == "web-1")
        .collect()
}

#[test]
fn a_step_is_taken_up_by_the_capture_that_is_due() {
    let policies = via("  retention: {last: 3}\n");
    for state in [ImageState::Creating, ImageState::Failed] {
        let seen = inventory(vec![night(1), step(0, state)]);
        let plan = planned(&policies, &seen);
        let [create] = created(&plan)[..] else { panic!("{:#?}", plan.changes) };
        assert_eq!(create.create.as_ref().unwrap().replaces, None);
        assert!(deleted(&plan).is_empty(), "{state:?}");
    }
    // Where images are made from the disk again it is no use to anybody, and goes once there is one.
    let direct = policies_direct();
    let seen = inventory(vec![night(1), step(0, ImageState::Failed)]);
    assert!(deleted(&planned(&direct, &seen)).is_empty());
    let seen = inventory(vec![night(0), step(0, ImageState::Failed)]);
    assert_eq!(deleted(&planned(&direct, &seen)), ["step-web-1-0"]);
}

fn policies_direct() -> Policies {
    policies("  capture: {kind: disk-image, disks: boot}\n  retention: {last: 3}\n")
}

#[test]
fn what_a_step_has_left_goes_once_something_as_new_is_ready() {
    let policies = via("  retention: {last: 3}\n");
    for days in [0, 3] {
        let seen = inventory(vec![night(0), step(days, ImageState::Failed)]);
        let plan = planned(&policies, &seen);
        assert_eq!(deleted(&plan), [format!("step-web-1-{days}")]);
        let change = plan.changes.iter().find(|one| one.action == Action::Delete).unwrap();
        assert_eq!(change.reasons[0].code, ReasonCode::FailedAttempt);
    }
    // Somebody may be at it, or it is of use, or nobody may take anything away.
    let keeps = |image: Image, spec: &str, has_gap: bool| {
        let mut seen = inventory(vec![night(0), image]);
        if has_gap {
            let (place, message) = ("p".to_owned(), "m".to_owned());
            seen.engines[0].gaps = vec![Gap { scope: GapScope::Images, place, message }];
        }
        assert!(deleted(&planned(&via(spec), &seen)).is_empty());
    };
    let rules = "  retention: {last: 3}\n";
    keeps(step(0, ImageState::Creating), rules, false);
    keeps(step(0, ImageState::Unknown), rules, false);
    keeps(step(0, ImageState::Failed), rules, true);
    keeps(
        step(0, ImageState::Failed),
        "  retention: {last: 3}\n  paused: {deletes: true}\n",
        false,
    );
    keeps(step(0, ImageState::Failed), "", false);
    let used = Image { in_use_by: vec!["disk d".to_owned()], ..step(0, ImageState::Failed) };
    keeps(used, rules, false);
    let mut held = step(0, ImageState::Failed);
    held.labels.insert(LABEL_HOLD.to_owned(), "yes".to_owned());
    keeps(held, rules, false);
}

#[test]
fn a_step_is_no_restore_point_and_moves_none() {
    let policies = via("  retention: {last: 2}\n  lifecycle: {grace: 0}\n");
    let nights = || (1..4).map(night).collect::<Vec<_>>();
    let without = planned(&policies, &inventory(nights()));
    let of_points = |plan: &Plan| {
        let is_step = |change: &&Change| {
            !change.image.id.as_deref().is_some_and(|id| id.starts_with("step-"))
        };
        plan.changes.iter().filter(is_step).cloned().collect::<Vec<_>>()
    };
    assert!(without.changes.iter().any(|change| change.action == Action::Deprecate));
    for day in 0..5 {
        for state in [ImageState::Creating, ImageState::Failed, ImageState::Ready] {
            let mut images = nights();
            // Whoever writes an inventory may say what no engine does.
            images.push(Image { state, ..step(day, ImageState::Failed) });
            let seen = inventory(images);
            let plan = plan(&policies, &seen, now());
            assert_eq!(of_points(&plan), of_points(&without), "{day} {state:?}");
            assert_eq!(check(&plan, &seen, &policies, now()), []);
        }
    }
    // It does not keep the last of a source from being that.
    let mut seen = inventory(vec![night(9)]);
    seen.engines[0].images.push(Image { state: ImageState::Ready, ..step(1, ImageState::Failed) });
    let plan = plan(&policies, &seen, now());
    assert!(plan.changes.iter().all(|change| change.action == Action::Create), "{plan:#?}");
}

/// A plan that deletes this image as well, whoever would want that.
fn deleting(plan: &Plan, image: &Image) -> Plan {
    let mut plan = plan.clone();
    let Ownership::Ours(key) = image.ownership() else { panic!("it is ours") };
    let mut change = plan.changes[0].clone();
    change.action = Action::Delete;
    change.key = key;
    change.create = None;
    change.image = ImageRef::of(image);
    change.reasons =
        vec![stillframe::plan::Reason { code: ReasonCode::FailedAttempt, detail: String::new() }];
    plan.changes.push(change);
    plan.summary.delete += 1;
    plan
}

#[test]
fn a_planner_that_deletes_the_wrong_step_is_refused() {
    let policies = via("  retention: {last: 3}\n");
    let found = |images: Vec<Image>, victim: &Image| {
        let seen = inventory(images);
        let wrong = deleting(&plan(&policies, &seen, now()), victim);
        let rules = check(&wrong, &seen, &policies, now()).into_iter().map(|one| one.rule);
        let guards = guard(&wrong, &seen, &policies, &[], now()).into_iter().map(|one| one.guard);
        (rules.collect::<Vec<_>>(), guards.collect::<Vec<_>>())
    };
    // What the plan makes is made of it.
    let taken_up = step(0, ImageState::Failed);
    let (rules, _) = found(vec![night(1), taken_up.clone()], &taken_up);
    assert!(rules.contains(&CheckRule::State), "{rules:?}");
    // Somebody is at it.
    let busy = step(1, ImageState::Creating);
    let (rules, _) = found(vec![night(0), busy.clone()], &busy);
    assert!(rules.contains(&CheckRule::State), "{rules:?}");
    // A backup that has the label of a step, and an engine that believed it.
    let mut backup = Image { state: ImageState::Failed, ..night(2) };
    backup.labels.insert(LABEL_STEP.to_owned(), "another".to_owned());
    backup.kind = ImageKind::Snapshot;
    let (rules, guards) = found(vec![night(0), backup.clone()], &backup);
    assert!(rules.contains(&CheckRule::State), "{rules:?}");
    assert!(guards.contains(&Guard::Ownership), "{guards:?}");
    // The planner itself leaves it alone.
    let seen = inventory(vec![night(0), backup]);
    assert!(deleted(&planned(&policies, &seen)).is_empty());
}

#[test]
fn what_takes_up_a_step_waits_for_no_turn() {
    let mut young = step(0, ImageState::Creating);
    young.created_at = now() - SignedDuration::from_mins(1);
    let mut seen = inventory(vec![night(1), young]);
    seen.engines[0].capabilities.limits =
        Limits { source_interval_seconds: Some(600), source_hourly: Some(6), ..Limits::default() };
    assert_eq!(created(&planned(&via("  retention: {last: 3}\n"), &seen)).len(), 1);
    // A capture of the disk does.
    let plan = planned(&policies_direct(), &seen);
    assert_eq!((created(&plan).len(), plan.waiting.len()), (0, 1));
}

#[test]
fn a_plan_says_that_there_is_a_snapshot_for_a_while_and_counts_it() {
    let policies = via("  retention: {last: 3}\n");
    let mut seen = inventory(vec![night(1)]);
    let capabilities = &mut seen.engines[0].capabilities;
    capabilities.captures_max = 1;
    capabilities.limits.images.insert(ImageKind::Snapshot, 1);
    let mut plan = planned(&policies, &seen);
    plan.budget = budget(&policies, &seen, &plan, now());
    let quota = &plan.budget.as_ref().unwrap().quotas[0];
    assert_eq!((quota.now, quota.after, quota.on_the_way), (0, 0, 1));
    let text = plan_text(&plan);
    assert!(text.contains("from a snapshot, which is made for it and deleted"), "{text}");
    assert!(text.contains("and up to 1 for a while, of which disk images are made"), "{text}");
    assert!(!text.contains("! memory"), "{text}");
    // What is taken up is there already, and goes.
    let mut left = seen.clone();
    left.engines[0].images.push(step(0, ImageState::Failed));
    let of_left = planned(&policies, &left);
    let quota = budget(&policies, &left, &of_left, now()).unwrap().quotas.remove(0);
    assert_eq!((quota.now, quota.after, quota.on_the_way), (1, 0, 1));
    // There is no room for it.
    let capabilities = &mut seen.engines[0].capabilities;
    capabilities.limits.images.insert(ImageKind::Snapshot, 0);
    plan.budget = budget(&policies, &seen, &plan, now());
    assert!(plan_text(&plan).contains("! memory"));
}

#[test]
fn the_name_of_a_step_fits_only_its_image() {
    let long = "a".repeat(63);
    for image in ["web-1-20261121-0200z-abcdefgh", "a", &long, "ends-with-"] {
        let name = step_name(image);
        assert!(stillframe::name::is_rfc1035_label(&name), "{name}");
        assert_ne!(name, step_name(&format!("{}b", &image[..image.len() - 1])));
    }
    let step = step(0, ImageState::Failed);
    assert_eq!(step.step_to(), Some(night(0).name.as_str()));
    let renamed = Image { name: "else".to_owned(), ..step.clone() };
    assert!(renamed.is_step() && renamed.step_to().is_none());
    let other_kind = Image { kind: ImageKind::DiskImage, ..step };
    assert!(other_kind.is_step() && other_kind.step_to().is_none());
}
