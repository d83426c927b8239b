//! Each guard refuses what it is there for, whatever the planner thought.
//!
//! The plans here are made by hand: they do what the planner never would.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use stillframe::apply::Stop;
use stillframe::clock::{Clock, FixedClock};
use stillframe::inventory::{
    Capabilities, EngineInventory, FORMAT_VERSION, Gap, GapScope, Image, ImageState, Inventory,
    LABEL_COPY, LABEL_HOLD, LABEL_LET_GO, Stage,
};
use stillframe::name::{Key, PolicyName, Slot, SourceId, stamp};
use stillframe::plan::guard::{Guard, Override, Refusal, guard, stale, withheld};
use stillframe::plan::{Action, Change, ImageRef, Overtaken, Plan, in_both, overtaken, plan};
use stillframe::policy::{Policies, Risk};
use stillframe::reconcile::Room;

use super::engines::{Quiet, Yes, policies, room};
use super::memory::{self, MemoryEngine, instance};

pub fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

pub fn ago(days: i64) -> Timestamp {
    now() - SignedDuration::from_hours(24 * days)
}

/// The image of a day, let go so many days ago.
pub fn image(source: &str, days: i64, let_go: Option<i64>) -> Image {
    let key = Key {
        policy: PolicyName::parse("nightly").unwrap(),
        source: SourceId::parse(source).unwrap(),
        slot: Slot::at(ago(days)),
    };
    let mut image = memory::image(&format!("{source}-{days}"), &key);
    if let Some(days) = let_go {
        image.labels.insert(LABEL_LET_GO.to_owned(), stamp(ago(days)));
        image.stage = Stage::Deprecated;
    }
    image
}

/// Thirty days of one source, all let go long ago but the newest five.
fn month() -> Vec<Image> {
    (0..30).map(|day| image("web-1", day, (day >= 5).then_some(3))).collect()
}

pub fn inventory(images: Vec<Image>) -> Inventory {
    let engine = EngineInventory {
        name: "memory".to_owned(),
        kind: "memory".to_owned(),
        identity: "here".to_owned(),
        gaps: Vec::new(),
        images_seen_before: None,
        capabilities: Capabilities::default(),
        instances: vec![instance("web-1", &[]), instance("web-2", &[])],
        images,
    };
    Inventory {
        format_version: FORMAT_VERSION.to_owned(),
        observed_at: now(),
        engines: vec![engine],
    }
}

fn standard() -> Policies {
    policies("  retention: {last: 5}\n  lifecycle: {grace: 1d}\n")
}

/// A plan that deletes these images of an inventory, whoever would want that.
fn deleting(inventory: &Inventory, policies: &Policies, ids: &[&str]) -> Plan {
    let mut plan = plan(policies, inventory, now());
    plan.changes = ids
        .iter()
        .map(|id| {
            let image = inventory.engines[0].images.iter().find(|image| image.id == *id).unwrap();
            let stillframe::name::Ownership::Ours(key) = image.ownership() else {
                panic!("{id} is not ours")
            };
            Change {
                action: Action::Delete,
                engine: "memory".to_owned(),
                key,
                source_name: "web-1".to_owned(),
                image: ImageRef {
                    id: Some(image.id.clone()),
                    name: image.name.clone(),
                    location: String::new(),
                    created_at: Some(image.created_at),
                    fingerprint: Some(image.fingerprint.clone()),
                    stored_bytes: None,
                },
                reasons: Vec::new(),
                risk: Some(Risk::Rotation),
                newest_ready: None,
                waits_for: None,
                unless: None,
                create: None,
                update: None,
                copy: None,
                drill: None,
            }
        })
        .collect();
    plan
}

fn refusals(inventory: &Inventory, policies: &Policies, plan: &Plan) -> BTreeMap<Guard, Refusal> {
    guard(plan, inventory, policies, &[], now())
        .into_iter()
        .map(|refusal| (refusal.guard, refusal))
        .collect()
}

/// The guards that refuse, when one image of the month is changed and deleted.
fn refused(day: usize, change: impl FnOnce(&mut Inventory)) -> Vec<Guard> {
    let mut inventory = inventory(month());
    let policies = standard();
    let plan = deleting(&inventory, &policies, &[&format!("web-1-{day}")]);
    change(&mut inventory);
    refusals(&inventory, &policies, &plan).into_keys().collect()
}

#[test]
fn what_is_ripe_is_not_refused() {
    assert_eq!(refused(29, |_| {}), []);
}

#[test]
fn the_newest_points_are_never_deleted() {
    // `atLeast` is 1: the newest has none newer, and was never let go.
    assert_eq!(refused(0, |_| {}), [Guard::Floor, Guard::DeprecateFirst]);
    // All of a series at once: those that go do not protect each other.
    let inventory = inventory((0..4).map(|day| image("web-1", day, Some(3))).collect());
    let policies = standard();
    let all = deleting(&inventory, &policies, &["web-1-0", "web-1-1", "web-1-2", "web-1-3"]);
    assert_eq!(refusals(&inventory, &policies, &all)[&Guard::Floor].images.len(), 4);
    // What is not READY does not count as newer.
    let only_failed_newer = |inventory: &mut Inventory| {
        inventory.engines[0].images[..29]
            .iter_mut()
            .for_each(|image| image.state = ImageState::Failed);
    };
    assert!(refused(29, only_failed_newer).contains(&Guard::Floor));
    let only_future_newer = |inventory: &mut Inventory| {
        let mut future = image("web-1", -3, None);
        future.id = "future".to_owned();
        inventory.engines[0].images.retain(|image| image.id == "web-1-29");
        inventory.engines[0].images.push(future);
    };
    assert!(refused(29, only_future_newer).contains(&Guard::Floor));
}

#[test]
fn the_floor_is_at_least_and_copies_are_no_part_of_it() {
    let policies = policies("  retention: {last: 5, atLeast: 3}\n  lifecycle: {grace: 1d}\n");
    let refused = |images: Vec<Image>, id: &str| {
        let inventory = inventory(images);
        let plan = deleting(&inventory, &policies, &[id]);
        refusals(&inventory, &policies, &plan).contains_key(&Guard::Floor)
    };
    let four = || (0..4).map(|day| image("web-1", day, Some(3))).collect::<Vec<_>>();
    assert!(!refused(four(), "web-1-3"));
    assert!(refused(four(), "web-1-2"));
    // Three newer ones, but one of them is a copy.
    let mut copied = four();
    copied[1].labels.insert(LABEL_COPY.to_owned(), "yes".to_owned());
    copied[1].location = "eu".to_owned();
    assert!(refused(copied, "web-1-3"));
}

/// What is left of the restore point of a day, let go long ago.
fn part(days: i64, disks: &[&str]) -> Image {
    let disks: Vec<String> = disks.iter().map(|disk| (*disk).to_owned()).collect();
    let disks = (!disks.is_empty()).then_some(disks);
    Image { state: ImageState::Partial, disks, ..image("web-1", days, Some(3)) }
}

#[test]
fn the_last_that_holds_a_disk_stays() {
    let policies = standard();
    let refused = |images: &[Image], ids: &[&str]| -> Vec<String> {
        let inventory = inventory(images.to_vec());
        let plan = deleting(&inventory, &policies, ids);
        let refusals = refusals(&inventory, &policies, &plan);
        assert!(refusals.keys().all(|guard| *guard == Guard::Floor), "{refusals:?}");
        refusals.into_values().flat_map(|refusal| refusal.images).collect()
    };
    let both = &["boot", "data"][..];
    let old = part(9, &["boot"]);
    assert_eq!(refused(std::slice::from_ref(&old), &["web-1-9"]), ["web-1-9"]);
    assert_eq!(refused(&[old.clone(), part(8, both)], &["web-1-9"]), [""; 0]);
    assert_eq!(refused(&[old.clone(), part(8, &["data"])], &["web-1-9"]), ["web-1-9"]);
    assert_eq!(refused(&[part(9, both), part(8, &["boot"])], &["web-1-9"]), ["web-1-9"]);
    assert_eq!(refused(&[old.clone(), part(10, both)], &["web-1-9"]), ["web-1-9"]);
    // Where it is not known what is left, only a restore point stands for it.
    assert_eq!(refused(&[part(9, &[]), part(8, both)], &["web-1-9"]), ["web-1-9"]);
    assert_eq!(refused(&[old.clone(), part(8, &[])], &["web-1-9"]), ["web-1-9"]);
    for (days, left) in [(8, &[""; 0][..]), (9, &[]), (10, &["web-1-9"])] {
        let mut ready = image("web-1", days, None);
        ready.id = "ready".to_owned();
        assert_eq!(refused(&[old.clone(), ready], &["web-1-9"]), left, "{days}");
    }
    // Those that go do not stand for each other.
    let three = [old.clone(), part(8, both), part(7, both)];
    assert_eq!(refused(&three, &["web-1-9", "web-1-8"]), [""; 0]);
    assert_eq!(refused(&three[..2], &["web-1-9", "web-1-8"]), ["web-1-8", "web-1-9"]);
    // Nor does what is of another series, a copy, or from the future.
    let mut other = part(8, both);
    other.labels = image("web-2", 8, None).labels;
    let mut copy = part(8, both);
    copy.labels.insert(LABEL_COPY.to_owned(), "yes".to_owned());
    for no in [other, copy, part(-2, both)] {
        assert_eq!(refused(&[old.clone(), no], &["web-1-9"]), ["web-1-9"]);
    }
}

/// What makes room for a capture is gone before that is READY.
#[test]
fn what_is_replaced_stands_for_no_disk() {
    let policies = standard();
    let mut due = part(0, &["boot"]);
    let key = Key {
        policy: PolicyName::parse("nightly").unwrap(),
        source: SourceId::parse("web-1").unwrap(),
        slot: Slot::at(now() - SignedDuration::from_hours(10)),
    };
    due.labels.extend(key.labels());
    due.name = key.image_name(&key.default_prefix());
    let inventory = inventory(vec![part(9, &["boot"]), due]);
    let mut plan = plan(&policies, &inventory, now());
    let is_replaced = |change: &Change| {
        let replaced = change.create.as_ref().and_then(|create| create.replaces.as_ref());
        replaced.is_some_and(|replaced| replaced.id.as_deref() == Some("web-1-0"))
    };
    assert!(plan.changes.iter().any(is_replaced));
    let deletes = deleting(&inventory, &policies, &["web-1-9"]).changes;
    let without = Plan { changes: deletes.clone(), ..plan.clone() };
    assert_eq!(refusals(&inventory, &policies, &without).len(), 0);
    plan.changes.retain(is_replaced);
    plan.changes.extend(deletes);
    assert_eq!(refusals(&inventory, &policies, &plan)[&Guard::Floor].images, ["web-1-9"]);
}

#[test]
fn what_the_policy_holds_stays() {
    let hold = "  hold: [{sources: [\"web-*\"], reason: case}]\n";
    let policies =
        policies(&format!("  retention: {{last: 5}}\n  lifecycle: {{grace: 1d}}\n{hold}"));
    let inventory = inventory(month());
    let plan = deleting(&inventory, &policies, &["web-1-29"]);
    assert!(refusals(&inventory, &policies, &plan).contains_key(&Guard::Held));
}

#[test]
fn what_is_not_ours_or_has_changed_is_not_touched() {
    let edited =
        |edit: fn(&mut Image)| refused(29, |inventory| edit(&mut inventory.engines[0].images[29]));
    assert_eq!(edited(|image| image.fingerprint = "other".to_owned()), [Guard::Ownership]);
    assert_eq!(edited(|image| image.name = "other".to_owned()), [Guard::Ownership]);
    assert!(edited(|image| image.labels.clear()).contains(&Guard::Ownership));
    let sold = |image: &mut Image| {
        image.labels.insert("stillframe-policy".to_owned(), "other".to_owned());
    };
    assert!(edited(sold).contains(&Guard::Ownership));
    let gone = |inventory: &mut Inventory| {
        inventory.engines[0].images.pop();
    };
    assert_eq!(refused(29, gone), [Guard::Ownership]);
}

#[test]
fn what_is_held_or_in_use_stays() {
    let hold = |value: String| {
        refused(29, move |inventory| {
            inventory.engines[0].images[29].labels.insert(LABEL_HOLD.to_owned(), value);
        })
    };
    assert_eq!(hold("audit".to_owned()), [Guard::Held]);
    assert_eq!(hold(format!("until-{}", stamp(ago(-1)))), [Guard::Held]);
    assert_eq!(hold(format!("until-{}", stamp(ago(1)))), []);
    let used =
        |inventory: &mut Inventory| inventory.engines[0].images[29].in_use_by.push("vm".to_owned());
    assert_eq!(refused(29, used), [Guard::InUse]);
}

#[test]
fn nothing_is_deleted_without_its_deprecation_and_its_grace() {
    let let_go = |value: Option<String>| {
        refused(29, move |inventory| {
            let labels = &mut inventory.engines[0].images[29].labels;
            match value {
                Some(value) => labels.insert(LABEL_LET_GO.to_owned(), value),
                None => labels.remove(LABEL_LET_GO),
            };
        })
    };
    assert_eq!(let_go(None), [Guard::DeprecateFirst]);
    assert_eq!(let_go(Some("yesterday".to_owned())), [Guard::DeprecateFirst]);
    assert_eq!(let_go(Some(stamp(ago(0)))), [Guard::DeprecateFirst]);
    assert_eq!(let_go(Some(stamp(ago(1)))), []);
    // The mark of a deprecation that somebody has taken back counts for nothing.
    let undone = |inventory: &mut Inventory| inventory.engines[0].images[29].stage = Stage::Active;
    assert_eq!(refused(29, undone), [Guard::DeprecateFirst]);
}

#[test]
fn nothing_is_deleted_where_not_everything_was_seen() {
    let gap = |inventory: &mut Inventory| {
        inventory.engines[0].gaps.push(Gap {
            scope: GapScope::Instances,
            place: "zone-b".to_owned(),
            message: "unreachable".to_owned(),
        });
    };
    assert_eq!(refused(29, gap), [Guard::InventoryGap]);
    let shrunken = |before| {
        refused(29, move |inventory| inventory.engines[0].images_seen_before = Some(before))
    };
    assert_eq!(shrunken(45), []);
    assert_eq!(shrunken(46), [Guard::Shrunken]);
}

/// What the guard compares with outlives the file: whoever keeps it short moves it away, and a full disk
/// takes no line.
#[tokio::test]
async fn how_many_images_there_were_is_known_without_the_ledger() {
    let clock: Arc<dyn Clock> = Arc::new(FixedClock(now()));
    let engine = MemoryEngine::new(clock.clone());
    for number in 1..=4 {
        engine.add(instance(&format!("web-{number}"), &[]));
    }
    let directory = tempfile::tempdir().unwrap();
    let open = || room(engine.clone(), clock.clone(), standard(), &directory);
    let round = async |room: &Room| drop(room.round(&Yes, Arc::new(Quiet), &Stop::default()).await);
    let known = async |room: &Room| room.observe().await.engines[0].images_seen_before;
    // The round after that makes the others anew.
    let left = |count: usize| {
        let mut world = engine.world.lock().unwrap();
        while world.images.len() > count {
            world.images.pop_first();
        }
    };
    let path = |name: &str| directory.path().join(name);
    let goes = || {
        fs::rename(path("ledger.ndjson"), path("aside")).unwrap();
        fs::create_dir(path("ledger.ndjson")).unwrap();
    };
    let is_back = || {
        fs::remove_dir(path("ledger.ndjson")).unwrap();
        fs::rename(path("aside"), path("ledger.ndjson")).unwrap();
    };
    let first = open();
    assert_eq!(known(&first).await, None);
    round(&first).await;
    assert_eq!(known(&first).await, Some(0));
    goes();
    assert_eq!(known(&first).await, Some(0));
    round(&first).await;
    assert_eq!(known(&first).await, Some(4));
    left(2);
    round(&first).await;
    assert_eq!(known(&first).await, Some(4), "the most since there was a line");
    is_back();
    assert_eq!(known(&first).await, Some(4), "the last line says that there was nothing");
    round(&first).await;
    let second = open();
    goes();
    left(1);
    round(&second).await;
    assert_eq!(known(&second).await, Some(1));
    is_back();
    assert_eq!(known(&second).await, Some(4), "the last line knows of more");
}

/// What a round has deleted itself is not missing in the next, whether the ledger says so or not.
#[tokio::test]
async fn what_was_deleted_is_not_missed() {
    for is_moved in [false, true] {
        let clock: Arc<dyn Clock> = Arc::new(FixedClock(now()));
        let engine = MemoryEngine::new(clock.clone());
        engine.add(instance("web-1", &[]));
        for image in (1..13).map(|day| image("web-1", day, (day >= 10).then_some(3))) {
            engine.world.lock().unwrap().images.insert(image.id.clone(), image);
        }
        let directory = tempfile::tempdir().unwrap();
        let room = room(engine.clone(), clock.clone(), standard(), &directory);
        room.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
        if is_moved {
            fs::rename(directory.path().join("ledger.ndjson"), directory.path().join("aside"))
                .unwrap();
        }
        let seen = room.observe().await;
        let made = seen.engines[0].images.len() - 9;
        assert!(made < 2, "three of twelve were deleted: {made}");
        assert_eq!(seen.engines[0].images_seen_before, Some(9), "moved: {is_moved}");
    }
}

#[test]
fn shares_and_counts_are_limits_of_their_own() {
    let inventory = inventory(month());
    let policies = standard();
    let days =
        |range: std::ops::Range<i64>| range.map(|day| format!("web-1-{day}")).collect::<Vec<_>>();
    let plan_of = |range| {
        let ids = days(range);
        deleting(&inventory, &policies, &ids.iter().map(String::as_str).collect::<Vec<_>>())
    };
    // 9 of 30 are 30 %, 10 are more.
    assert_eq!(refusals(&inventory, &policies, &plan_of(21..30)).len(), 0);
    let over: Vec<Guard> = refusals(&inventory, &policies, &plan_of(20..30)).into_keys().collect();
    assert_eq!(over, [Guard::SeriesShare, Guard::EngineShare]);
    let mut strict = policies.clone();
    strict.config.guards.engine_count = 2;
    assert_eq!(
        refusals(&inventory, &strict, &plan_of(27..30))[&Guard::EngineCount].images.len(),
        3
    );
    strict.config.guards.refuse = vec![Risk::Rotation];
    assert!(refusals(&inventory, &strict, &plan_of(29..30)).contains_key(&Guard::RiskClass));
}

#[test]
fn a_small_series_is_held_by_its_floor_alone() {
    let inventory = inventory((0..6).map(|day| image("web-1", day, Some(3))).collect());
    let policies = standard();
    let plan = deleting(&inventory, &policies, &["web-1-3", "web-1-4", "web-1-5"]);
    assert_eq!(refusals(&inventory, &policies, &plan).len(), 0);
}

#[test]
fn an_override_is_bound_to_plan_guard_and_count() {
    let inventory = inventory(month());
    let policies = standard();
    let ids: Vec<String> = (15..30).map(|day| format!("web-1-{day}")).collect();
    let plan = deleting(&inventory, &policies, &ids.iter().map(String::as_str).collect::<Vec<_>>());
    let found = guard(&plan, &inventory, &policies, &[], now());
    assert_eq!(withheld(&found).len(), 15);
    let flags: Vec<String> = found
        .iter()
        .map(|refusal| refusal.override_flag.clone().unwrap().replace("--override ", ""))
        .collect();
    let with = |flags: &[String]| {
        let overrides: Vec<Override> =
            flags.iter().map(|flag| Override::parse(flag).unwrap()).collect();
        let found = guard(&plan, &inventory, &policies, &overrides, now());
        withheld(&found).len()
    };
    assert_eq!(with(&flags[..1]), 15, "one of two guards still refuses");
    assert_eq!(with(&flags), 0);
    assert_eq!(with(&flags.iter().map(|flag| flag.replace(":15", ":14")).collect::<Vec<_>>()), 15);
    let other_plan = |flag: &String| {
        let (guard, rest) = flag.split_once('=').unwrap();
        let (plan, count) = rest.split_once(':').unwrap();
        let first = if plan.starts_with('0') { "1" } else { "0" };
        format!("{guard}={first}{}:{count}", &plan[1..])
    };
    assert_eq!(with(&flags.iter().map(other_plan).collect::<Vec<_>>()), 15);
    // What breaks a law has no flag.
    let newest = deleting(&inventory, &policies, &["web-1-0"]);
    assert!(
        guard(&newest, &inventory, &policies, &[], now())
            .iter()
            .all(|refusal| refusal.override_flag.is_none())
    );
    assert!(Override::parse("engine-share=9f3:31").is_err());
}

#[test]
fn an_old_plan_and_one_of_other_policies_are_stale() {
    let inventory = inventory(month());
    let policies = standard();
    let made = plan(&policies, &inventory, now());
    assert_eq!(stale(&made, &policies, now() + SignedDuration::from_mins(59)), None);
    assert!(stale(&made, &policies, now() + SignedDuration::from_mins(61)).is_some());
    assert!(stale(&made, &super::engines::policies("  retention: {last: 4}\n"), now()).is_some());
}

#[test]
fn only_what_was_approved_and_is_still_wanted_is_carried_out() {
    let policies = standard();
    let before =
        inventory((0..7).map(|day| image("web-1", day, (day >= 5).then_some(3))).collect());
    let approved = plan(&policies, &before, now());
    let deletes =
        |plan: &Plan| plan.changes.iter().filter(|change| change.action == Action::Delete).count();
    assert_eq!(deletes(&approved), 2);
    // Meanwhile one image was held, one was relabelled, and one more has become ripe.
    let mut later = before.clone();
    later.engines[0].images[5].labels.insert(LABEL_HOLD.to_owned(), "yes".to_owned());
    later.engines[0].images[6].fingerprint = "other".to_owned();
    later.engines[0].images.push(image("web-1", 9, Some(3)));
    let (both, only_fresh) = in_both(&approved, plan(&policies, &later, now()));
    assert_eq!(deletes(&both), 0);
    assert_eq!(only_fresh.iter().filter(|change| change.action == Action::Delete).count(), 2);
}

#[test]
fn what_is_left_of_an_approved_plan_is_told_apart() {
    let policies = standard();
    let before =
        inventory((0..7).map(|day| image("web-1", day, (day >= 5).then_some(3))).collect());
    let approved = plan(&policies, &before, now());
    let of = |later: &Inventory| -> Vec<(Action, Option<String>, Overtaken)> {
        let fresh = plan(&policies, later, now());
        let told = overtaken(&approved, &fresh, later).into_iter();
        let told = told.filter(|(index, _)| approved.changes[*index].action != Action::Create);
        told.map(|(index, what)| {
            let change = &approved.changes[index];
            (change.action, change.image.id.clone(), what)
        })
        .collect()
    };
    assert_eq!(of(&before), []);
    let id = |index: usize| Some(before.engines[0].images[index].id.clone());
    // One was deleted, one was held.
    let mut later = before.clone();
    later.engines[0].images[5].labels.insert(LABEL_HOLD.to_owned(), "yes".to_owned());
    later.engines[0].images[5].fingerprint = "held".to_owned();
    later.engines[0].images.remove(6);
    let told = of(&later);
    assert!(told.contains(&(Action::Delete, id(6), Overtaken::Done)), "{told:?}");
    assert!(told.contains(&(Action::Delete, id(5), Overtaken::Needless)), "{told:?}");
    // What was not seen may be there.
    later.engines[0].gaps.push(Gap {
        scope: GapScope::Images,
        place: "images".to_owned(),
        message: "cut off".to_owned(),
    });
    assert_eq!(of(&later), []);
    // What is still to go, though somebody has changed it, is not settled.
    let mut later = before.clone();
    later.engines[0].images[6].fingerprint = "other".to_owned();
    assert_eq!(of(&later), []);
    // Nor is what is to go once nobody uses it any more.
    let mut later = before.clone();
    later.engines[0].images[6].in_use_by.push("vm".to_owned());
    assert_eq!(of(&later), []);
}

/// That it looks as it is to look, as with a mark of before, is no sign that somebody was there.
#[test]
fn what_nobody_has_changed_was_not_done_by_another_run() {
    let policies = standard();
    let mut inventory = inventory((0..7).map(|day| image("web-1", day, None)).collect());
    let approved = plan(&policies, &inventory, now());
    let updates =
        approved.changes.iter().filter_map(|change| Some((change, change.update.as_ref()?)));
    let mut done = |other: Option<&str>| {
        for (change, update) in updates.clone() {
            let mut images = inventory.engines[0].images.iter_mut();
            let image = images.find(|one| Some(&one.id) == change.image.id.as_ref()).unwrap();
            image.stage = update.stage_after;
            image.labels.extend(update.set_labels.clone());
            image.fingerprint = other.unwrap_or(&image.fingerprint).to_owned();
        }
        overtaken(&approved, &approved, &inventory).len()
    };
    assert_eq!(done(None), 0);
    assert_eq!(done(Some("other")), updates.clone().count());
    assert!(updates.count() > 0);
}
