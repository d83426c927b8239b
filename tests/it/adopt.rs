//! Adoption: which images are taken and why others are not, through the core, a round, and the
//! program over the embedded engine.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use stillframe::adopt::{AdoptError, Adoption, DEFAULT, Pattern, Wanted, adopt, guard};
use stillframe::apply::{Ledger, Stop};
use stillframe::clock::{Clock, FixedClock};
use stillframe::engine::{CreateRequest, Engine, Unwatched};
use stillframe::inventory::{
    Gap, GapScope, Image, ImageKind, ImageSource, ImageState, Inventory, LABEL_HOLD, LABEL_LET_GO,
    OWN_LABELS, Stage,
};
use stillframe::name::{Key, Ownership, PolicyName, Slot, SourceId};
use stillframe::plan::guard::Guard;
use stillframe::plan::{Action, Plan, plan};
use stillframe::policy::Policies;
use stillframe::reconcile::Room;
use stillframe::schedule::Zone;

use super::engines::{Yes, policies};
use super::guards::{ago, image, inventory, now};
use super::memory::{MemoryEngine, instance};
use super::support::{Datacenter, NOW, golden, transcript};
use super::worlds::carry_out;

const SPEC: &str = "  retention: {last: 3}\n  lifecycle: {grace: 0h}\n";

fn wanted(pattern: Option<&str>, labels: &[(&str, &str)], zone: &str) -> Wanted {
    Wanted {
        policy: PolicyName::parse("nightly").unwrap(),
        pattern: pattern.map(|text| Pattern::parse(text).unwrap()),
        labels: labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        zone: Zone::find(zone).unwrap(),
    }
}

fn by_name() -> Wanted {
    wanted(Some(DEFAULT), &[], "UTC")
}

/// An image as a script makes it, at two in the morning of a day.
fn scripted(source: &str, days: i64) -> Image {
    let at = ago(days) - SignedDuration::from_hours(10);
    let mut made = image(source, days, None);
    made.labels.clear();
    made.created_at = at + SignedDuration::from_secs(3);
    made.name = format!("{source}-backup-{}", at.strftime("%Y%m%d-%H%M%S"));
    made
}

fn adopted(spec: &str, images: Vec<Image>, wanted: &Wanted) -> (Adoption, Policies, Inventory) {
    let (policies, inventory) = (policies(spec), inventory(images));
    let adoption = adopt(&policies, &inventory, wanted, now()).unwrap();
    assert_eq!(guard(&adoption.plan, &policies, &inventory), []);
    (adoption, policies, inventory)
}

fn after(inventory: &Inventory, adoption: &Adoption) -> Inventory {
    let mut after = inventory.clone();
    adoption.plan.changes.iter().for_each(|change| carry_out(&mut after, change));
    after
}

fn count(plan: &Plan, action: Action) -> usize {
    plan.changes.iter().filter(|change| change.action == action).count()
}

#[test]
fn what_a_script_made_is_taken_with_the_time_in_its_name() {
    let images = (1..4).map(|day| scripted("web-1", day)).collect();
    let (adoption, ..) = adopted(SPEC, images, &by_name());
    assert_eq!(adoption.left_alone, []);
    assert_eq!((adoption.plan.summary.relabel, adoption.plan.summary.delete), (3, 0));
    for (change, day) in adoption.plan.changes.iter().zip([3, 2, 1]) {
        let at = ago(day) - SignedDuration::from_hours(10);
        assert_eq!(change.key.slot, Slot::at(at));
        assert_eq!((change.key.source.as_str(), change.source_name.as_str()), ("web-1", "web-1"));
        let update = change.update.as_ref().unwrap();
        assert_eq!(Key::from_labels(&update.set_labels), Ownership::Ours(change.key.clone()));
        assert!(change.reasons[0].detail.ends_with("(from its name, in UTC)"));
    }
}

/// What is said of one image.
fn reason(image: Image, others: &[Image], wanted: &Wanted) -> String {
    let id = image.id.clone();
    let images = [vec![image], others.to_vec()].concat();
    let (adoption, ..) = adopted(SPEC, images, wanted);
    assert!(adoption.plan.changes.iter().all(|change| change.image.id.as_ref() != Some(&id)));
    let found = adoption.left_alone.into_iter().find(|one| one.id == id);
    found.map(|one| one.reason).unwrap_or_default()
}

#[test]
fn what_is_not_certain_is_left_alone_with_the_reason() {
    let with = |change: fn(&mut Image)| {
        let mut image = scripted("web-1", 1);
        change(&mut image);
        reason(image, &[], &by_name())
    };
    assert_eq!(
        with(|image| image.name = "web-9-backup-20261120-020000".to_owned()),
        "there is no instance named web-9"
    );
    assert_eq!(with(|image| image.state = ImageState::Creating), "it is CREATING");
    assert_eq!(with(|image| image.state = ImageState::Failed), "it is FAILED");
    assert_eq!(
        with(|image| image.kind = ImageKind::Snapshot),
        "it is a snapshot, and nightly makes machine-images"
    );
    assert_eq!(
        with(|image| image.name = "web-1-backup-20261331-020000".to_owned()),
        "its name holds no time that there is"
    );
    assert!(
        with(|image| image.name = "web-1-backup-20261120-070000".to_owned())
            .contains("is --time-zone right?")
    );
    let future = with(|image| {
        image.name = "web-1-backup-20261122-020000".to_owned();
        image.created_at = "2026-11-22T02:00:00Z".parse().unwrap();
    });
    assert_eq!(future, "it is dated in the future (2026-11-22T02:00:00Z)");
    let recorded = |name: &str| {
        Some(ImageSource { id: SourceId::parse(name).unwrap(), name: name.to_owned() })
    };
    let mut other = scripted("web-1", 1);
    other.source = recorded("web-2");
    assert_eq!(
        reason(other, &[], &by_name()),
        "its name says that it is of web-1, and it was made of web-2"
    );
    let mut gone = scripted("web-1", 1);
    gone.source =
        Some(ImageSource { id: SourceId::parse("another").unwrap(), name: "web-1".to_owned() });
    assert!(reason(gone, &[], &by_name()).ends_with("is not there any more"));
}

#[test]
fn an_image_of_one_disk_is_not_taken_for_all_of_several() {
    let snapshots =
        policies("  capture: {kind: snapshot, disks: [data]}\n  retention: {last: 3}\n");
    let mut made = scripted("web-1", 1);
    made.kind = ImageKind::Snapshot;
    let mut seen = inventory(vec![made]);
    let taken = |seen: &Inventory| adopt(&snapshots, seen, &by_name(), now()).unwrap();
    assert_eq!(taken(&seen).plan.summary.relabel, 1);
    for one_disk in [true, false] {
        let can = &mut seen.engines[0].capabilities;
        let kinds = [Vec::new(), vec![ImageKind::Snapshot]];
        can.one_disk_kinds.clone_from(&kinds[usize::from(one_disk)]);
        can.per_disk_kinds.clone_from(&kinds[usize::from(!one_disk)]);
        let adoption = taken(&seen);
        assert_eq!(adoption.plan.changes, []);
        assert_eq!(
            adoption.left_alone[0].reason,
            "a snapshot holds one disk, web-1 has 2, and nothing says which one it is of"
        );
    }
    // Nothing else than the disk that the machine starts from, as far as the engine is concerned.
    seen.engines[0].capabilities.boot_disk_kinds = vec![ImageKind::Snapshot];
    let reason = taken(&seen).left_alone[0].reason.clone();
    assert_eq!(reason, "it holds of web-1 the disk boot, and nightly captures the disk data");
    let of_boot = policies("  capture: {kind: snapshot, disks: boot}\n  retention: {last: 3}\n");
    assert_eq!(adopt(&of_boot, &seen, &by_name(), now()).unwrap().plan.summary.relabel, 1);
    seen.engines[0].capabilities.boot_disk_kinds.clear();
    // Where it is known which, that decides.
    for (held, reason) in [
        (vec!["data"], None),
        (vec!["boot"], Some("it holds of web-1 the disk boot, and nightly captures the disk data")),
        (
            vec!["boot", "data"],
            Some("it holds of web-1 the disks boot, data, and nightly captures the disk data"),
        ),
    ] {
        let held = held.into_iter().map(str::to_owned).collect();
        seen.engines[0].images[0].disks = Some(held);
        let adoption = taken(&seen);
        assert_eq!(adoption.left_alone.first().map(|left| left.reason.as_str()), reason);
        assert_eq!(adoption.plan.summary.relabel, usize::from(reason.is_none()));
    }
    seen.engines[0].images[0].disks = None;
    seen.engines[0].instances[0].disks.truncate(1);
    assert_eq!(taken(&seen).plan.summary.relabel, 1);
}

#[test]
fn a_machine_image_without_all_disks_is_not_taken_for_a_whole_one() {
    let mut made = scripted("web-1", 1);
    made.disks = Some(vec!["boot".to_owned()]);
    let left = reason(made.clone(), &[], &by_name());
    assert_eq!(left, "it holds of web-1 the disk boot, and nightly captures the disks boot, data");
    let boot = policies("  capture: {disks: boot}\n  retention: {last: 3}\n");
    let seen = inventory(vec![made]);
    assert_eq!(adopt(&boot, &seen, &by_name(), now()).unwrap().plan.summary.relabel, 1);
}

#[test]
fn what_is_somebodys_is_never_touched() {
    let with = |labels: &[(&str, &str)]| {
        let mut image = scripted("web-1", 1);
        image.labels =
            labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        reason(image, &[], &by_name())
    };
    let key = Key {
        policy: PolicyName::parse("another").unwrap(),
        source: SourceId::parse("web-1").unwrap(),
        slot: Slot::at(ago(1)),
    };
    let labels = key.labels();
    let own: Vec<(&str, &str)> =
        labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(with(&own), "it belongs to the policy another");
    assert!(with(&own[..3]).starts_with("it has labels of stillframe that are broken"));
    assert!(
        with(&[(LABEL_LET_GO, "20260101t000000z")])
            .starts_with("it has the label stillframe-let-go")
    );
    let theirs = with(&[("managed-by", "terraform")]);
    assert!(theirs.ends_with("add --label managed-by=terraform"), "{theirs}");
    // Who names the label means it. A hold stays, and holds.
    let mut image = scripted("web-1", 1);
    image.labels.insert("managed-by".to_owned(), "old-script".to_owned());
    image.labels.insert(LABEL_HOLD.to_owned(), "audit".to_owned());
    let meant = wanted(Some(DEFAULT), &[("managed-by", "old-script")], "UTC");
    let (adoption, _, inventory) = adopted(SPEC, vec![image], &meant);
    assert_eq!(adoption.plan.summary.relabel, 1);
    assert!(after(&inventory, &adoption).engines[0].images[0].is_held(now()));
}

/// Marks that are written on it later need room as well, or it could never be let go.
#[test]
fn what_has_no_room_for_all_labels_is_left_alone() {
    let with = |others: usize| {
        let mut image = scripted("web-1", 1);
        image.labels = (0..others).map(|one| (format!("l-{one}"), "x".to_owned())).collect();
        image.labels.insert(LABEL_HOLD.to_owned(), "audit".to_owned());
        image
    };
    let labels_max = inventory(Vec::new()).engines[0].capabilities.labels_max;
    let room = labels_max - OWN_LABELS;
    let (adoption, ..) = adopted(SPEC, vec![with(room)], &by_name());
    assert_eq!((adoption.plan.summary.relabel, adoption.left_alone), (1, Vec::new()));
    for others in [room + 1, labels_max - 4, labels_max] {
        let told = reason(with(others), &[], &by_name());
        let why = "and no room for the 14 that stillframe may put on it";
        assert_eq!(told, format!("it has {others} labels, {why}"));
    }
}

#[test]
fn no_slot_gets_two_images() {
    let mut twin = scripted("web-1", 1);
    twin.id = "twin".to_owned();
    let told = reason(scripted("web-1", 1), &[twin], &by_name());
    assert_eq!(
        told,
        "it would stand for the slot 20261120t020000z of web-1 beside web-1-backup-20261120-020000"
    );
    let mut ours = image("web-1", 1, None);
    let key = Key {
        policy: PolicyName::parse("nightly").unwrap(),
        source: SourceId::parse("web-1").unwrap(),
        slot: Slot::at(ago(1) - SignedDuration::from_hours(10)),
    };
    ours.labels = key.labels();
    "ours".clone_into(&mut ours.id);
    "known".clone_into(&mut ours.name);
    assert!(reason(scripted("web-1", 1), &[ours], &by_name()).ends_with("beside known"));
}

#[test]
fn labels_alone_take_what_the_engine_knows_the_source_of() {
    let mut labelled = scripted("web-2", 2);
    labelled.labels.insert("backup".to_owned(), "nightly".to_owned());
    labelled.name = "whatever".to_owned();
    let by_label = wanted(None, &[("backup", "nightly")], "UTC");
    assert!(reason(labelled.clone(), &[], &by_label).starts_with("nothing says which instance"));
    labelled.source =
        Some(ImageSource { id: SourceId::parse("web-2").unwrap(), name: "web-2".to_owned() });
    let (adoption, ..) = adopted(SPEC, vec![labelled.clone(), scripted("web-1", 1)], &by_label);
    let [change] = &adoption.plan.changes[..] else { panic!("{:?}", adoption.plan.changes) };
    assert_eq!(change.key.slot, Slot::at(labelled.created_at));
    assert_eq!(adoption.left_alone, []);
}

#[test]
fn times_in_names_are_those_of_a_place() {
    let named = |name: &str, made: &str, zone: &str| -> Result<Slot, String> {
        let mut image = scripted("web-1", 1);
        image.name = format!("web-1-backup-{name}");
        image.created_at = made.parse().unwrap();
        let wanted = wanted(Some(DEFAULT), &[], zone);
        let (adoption, ..) = adopted(SPEC, vec![image], &wanted);
        match &adoption.plan.changes[..] {
            [change] => Ok(change.key.slot),
            _ => Err(adoption.left_alone[0].reason.clone()),
        }
    };
    let slot = |text: &str| Ok(Slot::at(text.parse::<Timestamp>().unwrap()));
    assert_eq!(
        named("20261119-210000", "2026-11-20T02:00:10Z", "America/New_York"),
        slot("2026-11-20T02:00:00Z")
    );
    // An hour that comes twice is the one in which the image was made.
    for instant in ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"] {
        assert_eq!(named("20261025-023000", instant, "Europe/Berlin"), slot(instant));
    }
    // One that the clocks left out is no time.
    let told = named("20260329-023000", "2026-03-29T01:30:00Z", "Europe/Berlin").unwrap_err();
    assert!(told.contains("was left out by the clocks in Europe/Berlin"), "{told}");
}

#[test]
fn without_a_grace_the_first_plan_deletes_nothing_either() {
    let mut images: Vec<Image> = (1..12).map(|day| scripted("web-1", day)).collect();
    // What somebody has deprecated by hand was let go by nobody.
    images[9].stage = Stage::Deprecated;
    images[10].stage = Stage::Obsolete;
    let (adoption, policies, inventory) = adopted(SPEC, images, &by_name());
    assert_eq!(adoption.plan.summary.relabel, 11);
    let mut there = after(&inventory, &adoption);
    let next = plan(&policies, &there, now());
    assert_eq!(count(&next, Action::Delete), 0);
    assert_eq!((count(&next, Action::Deprecate), adoption.let_go), (9, 9));
    // Only what that plan has let go of is ever deleted.
    for change in &next.changes {
        carry_out(&mut there, change);
    }
    let later = plan(&policies, &there, now() + SignedDuration::from_hours(1));
    assert_eq!(count(&later, Action::Delete), 9);
}

#[test]
fn what_would_have_others_deleted_is_left_alone() {
    // Of a series without a new image for weeks nothing is deleted, until there is a new one.
    let images: Vec<Image> =
        (20..28).map(|day| image("web-1", day, (day > 22).then_some(19))).collect();
    let (stalled, policies, inventory) = adopted(SPEC, images.clone(), &by_name());
    assert_eq!(stalled.plan.changes, []);
    assert_eq!(count(&plan(&policies, &inventory, now()), Action::Delete), 0);
    let told = reason(scripted("web-1", 1), &images, &by_name());
    assert!(
        told.starts_with("with it, the next plan would let go of nightly-web-1-2026"),
        "{told}"
    );
    // Another series has nothing to do with that.
    let both = [images, vec![scripted("web-1", 1), scripted("web-2", 1)]].concat();
    let (adoption, ..) = adopted(SPEC, both, &by_name());
    assert_eq!((adoption.plan.summary.relabel, adoption.left_alone.len()), (1, 1));
}

/// A restore point of the policy that an adopted image would take the place of: it would be let go, and
/// deleted a grace later.
#[test]
fn what_would_take_the_place_of_what_is_kept_is_left_alone() {
    let daily = "  retention: {daily: 4}\n  lifecycle: {grace: 0h}\n";
    let own = || (1..4).map(|day| image("web-1", day, None)).collect::<Vec<Image>>();
    let (before, policies, inventory) = adopted(daily, own(), &by_name());
    assert_eq!(before.plan.changes, []);
    let next = plan(&policies, &inventory, now());
    assert_eq!(count(&next, Action::Deprecate) + count(&next, Action::Delete), 0);
    // Later on the same day than the restore point there is: it would stand for the day.
    let named = |id: &str, image: Image| Image { id: id.to_owned(), ..image };
    let mut later = named("later", scripted("web-1", 2));
    let at = ago(2) + SignedDuration::from_hours(6);
    later.created_at = at + SignedDuration::from_secs(3);
    later.name = format!("web-1-backup-{}", at.strftime("%Y%m%d-%H%M%S"));
    let told = reason(later.clone(), &own(), &by_name());
    assert!(
        told.starts_with("with it, the next plan would let go of nightly-web-1-20261119-1200z-"),
        "{told}"
    );
    // What is older takes no place of what is newer, nor does what is of another source.
    let others = vec![
        later,
        named("early-2", scripted("web-1", 2)),
        named("early-3", scripted("web-1", 3)),
        scripted("web-2", 1),
    ];
    let (adoption, policies, inventory) = adopted(daily, [own(), others].concat(), &by_name());
    assert_eq!(
        (adoption.plan.summary.relabel, adoption.left_alone.len(), adoption.let_go),
        (3, 1, 2)
    );
    let next = plan(&policies, &after(&inventory, &adoption), now());
    let gone = next.changes.iter().filter(|change| change.action == Action::Deprecate);
    let gone: Vec<&str> = gone.map(|change| change.image.name.as_str()).collect();
    assert!(gone.iter().all(|name| name.contains("-backup-")), "{gone:?}");
}

#[test]
fn over_half_a_listing_nothing_is_adopted() {
    let (policies, mut inventory) = (policies(SPEC), inventory(vec![scripted("web-1", 1)]));
    inventory.engines[0].gaps.push(Gap {
        scope: GapScope::Instances,
        place: "zone-b".to_owned(),
        message: "silent".to_owned(),
    });
    let adoption = adopt(&policies, &inventory, &by_name(), now()).unwrap();
    assert_eq!(adoption.plan.changes, []);
    assert!(!adoption.plan.engines[0].complete);
    let unknown = Wanted { policy: PolicyName::parse("unknown").unwrap(), ..by_name() };
    let refused = adopt(&policies, &inventory, &unknown, now()).unwrap_err();
    assert_eq!(refused, AdoptError::Policy(unknown.policy));
}

#[test]
fn the_guard_refuses_what_no_adoption_may_do() {
    let (adoption, policies, inventory) =
        adopted(SPEC, vec![scripted("web-1", 1), scripted("web-1", 2)], &by_name());
    let refused = |plan: &Plan, inventory: &Inventory| {
        let refusals = guard(plan, &policies, inventory);
        assert!(refusals.iter().all(|refusal| refusal.guard == Guard::Ownership));
        refusals.len()
    };
    let mut wrong: Vec<(&str, Plan, Inventory)> = Vec::new();
    let mut plant = |what, change: &dyn Fn(&mut Plan, &mut Inventory)| {
        let (mut plan, mut inventory) = (adoption.plan.clone(), inventory.clone());
        change(&mut plan, &mut inventory);
        wrong.push((what, plan, inventory));
    };
    plant("a delete", &|plan, _| plan.changes[0].action = Action::Delete);
    plant("nothing to change", &|plan, _| plan.changes[0].update = None);
    plant("the key of another", &|plan, _| plan.changes[0].key.slot = Slot::at(ago(9)));
    plant("a stage", &|plan, _| {
        plan.changes[0].update.as_mut().unwrap().stage_after = Stage::Deprecated;
    });
    plant("one label more", &|plan, _| {
        let labels = &mut plan.changes[0].update.as_mut().unwrap().set_labels;
        labels.insert(LABEL_LET_GO.to_owned(), "20260101t000000z".to_owned());
    });
    plant("a label less", &|plan, _| {
        plan.changes[0].update.as_mut().unwrap().remove_labels.push("team".to_owned());
    });
    plant("another policy", &|plan, _| {
        let change = &mut plan.changes[0];
        change.key.policy = PolicyName::parse("unknown").unwrap();
        change.update.as_mut().unwrap().set_labels = change.key.labels();
    });
    plant("a slot twice", &|plan, _| {
        let key = plan.changes[1].key.clone();
        plan.changes[0].update.as_mut().unwrap().set_labels = key.labels();
        plan.changes[0].key = key;
    });
    plant("no such image", &|plan, _| plan.changes[0].image.id = Some("none".to_owned()));
    plant("a changed image", &|_, inventory| {
        "g".clone_into(&mut inventory.engines[0].images[1].fingerprint);
    });
    plant("one that is not READY", &|_, inventory| {
        inventory.engines[0].images[1].state = ImageState::Creating;
    });
    plant("one that is somebody's", &|_, inventory| {
        inventory.engines[0].images[1].labels = image("web-1", 3, None).labels;
    });
    plant("half a listing", &|_, inventory| {
        inventory.engines[0].gaps.push(Gap {
            scope: GapScope::Images,
            place: String::new(),
            message: String::new(),
        });
    });
    plant("a slot that is taken", &|plan, inventory| {
        let mut taken = image("web-1", 3, None);
        taken.labels = plan.changes[0].key.labels();
        inventory.engines[0].images.push(taken);
    });
    for (what, plan, inventory) in &wrong {
        assert!(refused(plan, inventory) >= 1, "{what}");
    }
    assert_eq!(refused(&adoption.plan, &inventory), 0);
}

#[tokio::test]
async fn a_round_adopts_and_the_next_finds_nothing() {
    let clock: Arc<dyn Clock> = Arc::new(FixedClock(now()));
    let engine = MemoryEngine::new(Arc::clone(&clock));
    engine.add(instance("web-1", &[]));
    let images = (1..4).map(|day| scripted("web-1", day)).map(|image| (image.id.clone(), image));
    engine.world.lock().unwrap().images = images.collect();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.ndjson");
    let room = Room {
        policies: Arc::new(policies("  retention: {last: 5}\n")),
        engines: vec![engine],
        clock,
        ledger: Arc::new(Ledger::new(path.clone())),
        overrides: Vec::new(),
        caution: None,
        recurrence: None,
        author: None,
    };
    let planned = |inventory: &Inventory, now: Timestamp, _: Option<&Plan>| {
        let mut adoption = adopt(&room.policies, inventory, &by_name(), now).unwrap();
        adoption.plan.refusals = guard(&adoption.plan, &room.policies, inventory);
        adoption.plan
    };
    let silent = || Arc::new(super::engines::Quiet);
    let round = room.round_of(&planned, &Yes, silent(), &Stop::default()).await;
    assert_eq!(round.outcomes.iter().filter(|outcome| outcome.ending.is_done()).count(), 3);
    let ledger = fs::read_to_string(path).unwrap();
    assert_eq!(ledger.matches("\"change-ended\"").count(), 3);
    assert!(ledger.contains("\"adopted\""));
    let again = room.round_of(&planned, &Yes, silent(), &Stop::default()).await;
    assert_eq!(again.plan.changes, []);
    let next = room.round(&Yes, silent(), &Stop::default()).await;
    assert_eq!((next.plan.summary.delete, next.plan.summary.create), (0, 1));
}

/// An image of the example data centre as a script would have made it.
async fn foreign(engine: &dyn Engine, source: &str, name: &str, labels: &[(&str, &str)]) {
    let inventory = engine.observe().await;
    let instance = inventory.instances.iter().find(|one| one.name == source).unwrap();
    let key = Key {
        policy: PolicyName::parse("nobody").unwrap(),
        source: instance.id.clone(),
        slot: Slot::at(now()),
    };
    let labels: BTreeMap<String, String> =
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let create = stillframe::plan::Create {
        kind: ImageKind::MachineImage,
        consistency: stillframe::inventory::Consistency::Crash,
        kms_key: None,
        disks: instance.disks.iter().map(|disk| disk.name.clone()).collect(),
        disk_by_disk: false,
        one_instant: Vec::new(),
        companion: None,
        tier: None,
        via: stillframe::inventory::Via::Disk,
        excluded_disks: Vec::new(),
        disk_bytes: 0,
        labels,
        description: String::new(),
        deadline: now(),
        replaces: None,
        problems: Vec::new(),
        family: None,
        sharing: None,
    };
    let location = inventory.capabilities.locations[0].clone();
    let request = CreateRequest { key, name: name.to_owned(), location, create, by: None };
    engine.create(request, Arc::new(Unwatched)).await.unwrap();
}

#[tokio::test]
async fn the_embedded_engine_adopts_what_a_script_made() {
    let datacenter = Datacenter::new();
    let at: Timestamp = NOW.parse().unwrap();
    let open = |at: Timestamp| {
        let text = fs::read_to_string(datacenter.path("policies/stillframe.yaml")).unwrap();
        let config: serde_json::Value =
            serde_yaml::from_str(text.split("\n---\n").next().unwrap()).unwrap();
        let settings = &config["spec"]["engines"]["datacenter"]["local"];
        let base = datacenter.path("policies").canonicalize().unwrap();
        let base: &Path = &base;
        stillframe::engine::local::open("datacenter", settings, base, Arc::new(FixedClock(at)))
            .unwrap()
    };
    for (days, source) in [(3, "web-1"), (2, "web-1"), (1, "web-1"), (1, "lab-1")] {
        let day = at - SignedDuration::from_hours(24 * days);
        let name = format!("{source}-backup-{}", day.strftime("%Y%m%d-%H%M%S"));
        foreign(open(day).as_ref(), source, &name, &[("made-by", "cron")]).await;
    }
    let day = at - SignedDuration::from_hours(30);
    foreign(
        open(day).as_ref(),
        "web-2",
        "by-hand",
        &[("backup", "web"), ("managed-by", "ansible")],
    )
    .await;
    let adopting = ["adopt", "--policy", "web-nightly"];
    let with = |more: &[&'static str]| [&adopting[..], more].concat();
    golden(
        "adopt.txt",
        &transcript(
            &datacenter,
            &[
                &with(&["--dry-run", "--now", NOW]),
                &with(&["--now", NOW]),
                &with(&["--now", NOW, "--auto-approve", "--out", "plan.json"]),
                &with(&["--now", NOW, "--auto-approve"]),
                &with(&["--now", NOW, "--dry-run", "--label", "backup=web"]),
                &with(&[
                    "--now",
                    NOW,
                    "--auto-approve",
                    "--label",
                    "backup=web",
                    "--label",
                    "managed-by=ansible",
                ]),
                &["plan", "--now", NOW],
                &with(&["--name-pattern", "{name}-{date}"]),
                &with(&["--time-zone", "Europe/Berln"]),
                &["adopt", "--policy", "web-nightli", "--dry-run"],
            ],
        ),
    );
    let written = fs::read_to_string(datacenter.path("plan.json")).unwrap();
    let written: serde_json::Value = serde_json::from_str(&written).unwrap();
    super::schemas::assert_holds(&super::schemas::validator("plan"), &written, "plan.json");
    // The same over a document, without any engine.
    let inventory = datacenter.json(0, &["inventory"]);
    fs::write(datacenter.path("seen.json"), inventory.to_string()).unwrap();
    let over = datacenter.json(0, &with(&["--inventory", "seen.json"]));
    assert_eq!((&over["already"], &over["plan"]["summary"]["relabel"]), (&3.into(), &0.into()));
}
