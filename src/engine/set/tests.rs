use proptest::prelude::*;

use super::*;
use crate::inventory::{ImageKind, Stage};
use crate::name::{PolicyName, Slot, SourceId, is_label_value, is_rfc1035_label};

fn key() -> Key {
    Key {
        policy: PolicyName::parse("nightly").unwrap(),
        source: SourceId::parse("4201").unwrap(),
        slot: Slot::parse("20261121t020000z").unwrap(),
    }
}

const POINT: &str = "nightly-4201-20261121-0200z-65ukvwyh";
const PATIENCE: Elapsed = Elapsed::hours(1);

fn at(minute: i64) -> Timestamp {
    key().slot.instant() + jiff::SignedDuration::from_mins(minute)
}

/// Members over these disks, all READY, the first made a minute after the slot.
fn members(disks: &[&str]) -> Vec<Image> {
    let disks: Vec<String> = disks.iter().map(|disk| (*disk).to_owned()).collect();
    let mut labels = key().labels();
    labels.insert("team".to_owned(), "web".to_owned());
    let parts = parts(POINT, &labels, &disks);
    parts
        .into_iter()
        .zip(1..)
        .map(|(part, number)| Image {
            id: format!("p/snapshots/{}", 70 + number),
            name: part.name,
            kind: ImageKind::Snapshot,
            state: ImageState::Ready,
            stage: Stage::Active,
            created_at: at(number),
            location: "us".to_owned(),
            kms_key: None,
            family: None,
            sharing: None,
            labels: part.labels,
            source: None,
            stored_bytes: Some(10),
            disk_bytes: Some(100),
            fingerprint: format!("f{number}"),
            disks: None,
            project: String::new(),
            in_use_by: Vec::new(),
            message: None,
        })
        .collect()
}

fn shown(members: Vec<Image>, minute: i64) -> Image {
    let mut images = gathered(members, at(minute), PATIENCE);
    assert_eq!(images.len(), 1, "{images:?}");
    images.remove(0)
}

#[test]
fn a_whole_set_is_one_restore_point() {
    let image = shown(members(&["boot", "data"]), 600);
    assert_eq!((image.name.as_str(), image.state), (POINT, ImageState::Ready));
    assert_eq!(image.id, "p/snapshots/71+72");
    assert_eq!(member_ids(&image.id), ["p/snapshots/71", "p/snapshots/72"]);
    assert_eq!((image.stored_bytes, image.disk_bytes), (Some(20), Some(200)));
    assert_eq!((image.created_at, image.message.as_deref()), (at(2), None));
    assert_eq!(image.ownership(), Ownership::Ours(key()));
    assert_eq!(image.members(), 2);
    assert_eq!(image.labels["team"], "web");
    assert!(!image.labels.contains_key(LABEL_DISK));
}

#[test]
fn disks_of_two_times_are_partial() {
    let mut images = members(&["boot", "data"]);
    images[1].created_at = at(11);
    assert_eq!(shown(images.clone(), 600).state, ImageState::Ready);
    images[1].created_at = at(12);
    let seen = shown(images.clone(), 600);
    assert_eq!(seen.state, ImageState::Partial);
    assert!(seen.message.unwrap().starts_with("its disks were captured 11m apart"));
    // An engine that makes one after the other says so.
    let patience = Patience { apart: Elapsed::hours(1), ..Patience::from(PATIENCE) };
    assert_eq!(gathered(images.clone(), at(600), patience)[0].state, ImageState::Ready);
    images.truncate(1);
    assert_eq!(shown(images, 600).state, ImageState::Partial);
}

#[test]
fn what_is_left_of_a_set_holds_the_disks_that_are_ready() {
    let images = members(&["boot", "data", "Big Data"]);
    assert_eq!(shown(images.clone(), 600).disks, None);
    let mut failed = images.clone();
    failed[1].state = ImageState::Failed;
    let left = shown(failed, 600).disks.unwrap();
    // A name that is no label is bent, the same way each time.
    assert!(left[0] == "boot" && left[1].starts_with("big-data-"), "{left:?}");
    let mut missing = images.clone();
    missing.remove(0);
    assert_eq!(shown(missing, 600).disks.unwrap(), ["data", left[1].as_str()]);
    // What the engine knows goes before the label, also where it knows it of some.
    let mut known = images;
    known[0].disks = Some(vec!["p/disks/boot".to_owned()]);
    known[2].state = ImageState::Failed;
    assert_eq!(shown(known, 600).disks.unwrap(), ["p/disks/boot", "data"]);
}

#[test]
fn one_disk_is_no_set() {
    let images = members(&["boot"]);
    assert_eq!(images[0].name, POINT);
    assert!(!is_member(&images[0]));
    assert_eq!(gathered(images.clone(), at(600), PATIENCE), images);
    assert_eq!(member_ids(&images[0].id), ["p/snapshots/71"]);
}

#[test]
fn what_is_not_whole_is_being_made_and_then_partial() {
    let mut some = members(&["boot", "data", "logs"]);
    some.remove(1);
    let young = shown(some.clone(), 60);
    assert_eq!(young.state, ImageState::Creating);
    let old = shown(some.clone(), 64);
    assert_eq!(old.state, ImageState::Partial);
    assert_eq!(old.message.as_deref(), Some("1 of 3 disks missing; there are only: boot, logs"));
    // Another id: what was planned over the whole is not carried out on the rest.
    assert_eq!(old.id, "p/snapshots/71+73");
    // One that is being made says so for all, however old.
    some[0].state = ImageState::Creating;
    assert_eq!(shown(some, 600).state, ImageState::Creating);
}

#[test]
fn what_an_engine_can_still_make_is_begun() {
    let patience = Patience { completed: Some(Elapsed::minutes(9)), ..Patience::from(PATIENCE) };
    let state =
        |members: &[Image], minute: i64| gathered(members.to_vec(), at(minute), patience)[0].state;
    let whole = members(&["boot", "data", "logs"]);
    let mut some = whole.clone();
    some.remove(1);
    for made in [ImageState::Ready, ImageState::Creating] {
        some[0].state = made;
        assert_eq!(state(&some, 9), ImageState::Begun, "{made:?}");
        // The oldest was made a minute after the slot, and nothing of now belongs to it later.
        assert_eq!(state(&some, 10), ImageState::Creating, "{made:?}");
    }
    assert_eq!(state(&whole, 9), ImageState::Ready);
    let message = gathered(some.clone(), at(9), patience).remove(0).message;
    assert_eq!(message.as_deref(), Some("1 of 3 disks missing; there are only: boot, logs"));
    // What has failed, is a copy, or only its own run can end, nobody else completes.
    let with = |change: &dyn Fn(&mut Image)| {
        let mut some = some.clone();
        change(&mut some[0]);
        state(&some, 9)
    };
    assert_eq!(with(&|one| one.state = ImageState::Failed), ImageState::Partial);
    assert_eq!(with(&|one| one.state = ImageState::Deleting), ImageState::Deleting);
    assert_eq!(with(&|one| one.message = Some("is stuck".to_owned())), ImageState::Creating);
    let unproven = |one: &mut Image| {
        one.labels.insert(LABEL_UNPROVEN.to_owned(), "yes".to_owned());
    };
    assert_eq!(with(&unproven), ImageState::Creating);
    let copies: Vec<Image> = some
        .iter()
        .cloned()
        .map(|mut one| {
            one.labels.insert(LABEL_COPY.to_owned(), "yes".to_owned());
            one
        })
        .collect();
    assert_ne!(state(&copies, 9), ImageState::Begun);
    // An engine that knows more says so however old it is.
    let old = gathered(some, at(50), patience).remove(0);
    assert_eq!((old.state, begun(old.clone()).state), (ImageState::Creating, ImageState::Begun));
    let ready = gathered(whole, at(50), patience).remove(0);
    assert_eq!(begun(ready.clone()), ready);
}

#[test]
fn a_member_that_failed_leaves_a_part_once_nothing_is_being_made() {
    let mut images = members(&["boot", "data"]);
    images[0].state = ImageState::Failed;
    images[1].state = ImageState::Creating;
    assert_eq!(shown(images.clone(), 1).state, ImageState::Creating);
    images[1].state = ImageState::Ready;
    let part = shown(images.clone(), 1);
    assert_eq!(part.state, ImageState::Partial);
    assert_eq!(part.message.as_deref(), Some("failed for: boot"));
    // Where there is nothing that could be restored, it has failed.
    images[1].state = ImageState::Failed;
    let failed = shown(images.clone(), 1);
    assert_eq!(failed.state, ImageState::Failed);
    assert_eq!(failed.message.as_deref(), Some("failed for: boot, data"));
    for state in [ImageState::Deleting, ImageState::Unknown] {
        images[1].state = state;
        assert_eq!(shown(images.clone(), 600).state, state);
    }
}

#[test]
fn members_that_do_not_fit_together_are_neither_ready_nor_cleared_away() {
    let mut twice = members(&["boot", "data"]);
    twice[1].labels.insert(LABEL_DISK.to_owned(), "boot".to_owned());
    assert_eq!(shown(twice, 600).state, ImageState::Unknown);
    let mut counts = members(&["boot", "data"]);
    counts[1].labels.insert(LABEL_SET.to_owned(), "3".to_owned());
    assert_eq!(shown(counts, 600).state, ImageState::Unknown);
    let mut more = members(&["boot", "data", "logs"]);
    for image in &mut more {
        image.labels.insert(LABEL_SET.to_owned(), "2".to_owned());
    }
    let more = shown(more, 600);
    assert_eq!(more.state, ImageState::Unknown);
    assert_eq!(more.message.unwrap(), "it has 3 members instead of 2: boot, data, logs");
    // A copy that somebody has made of a member, with its labels, costs nothing.
    let mut copied = members(&["boot", "data"]);
    copied.push(Image { id: "p/snapshots/90".to_owned(), ..copied[0].clone() });
    assert_eq!(shown(copied, 600).state, ImageState::Unknown);
    // A part whose labels do not say of what is no restore point.
    for label in [LABEL_SET, LABEL_DISK, LABEL_POINT] {
        let mut odd = members(&["boot", "data"]);
        odd[0].labels.remove(label);
        let images = gathered(odd, at(600), PATIENCE);
        assert!(images.iter().all(|image| image.state != ImageState::Ready), "{label}");
    }
}

#[test]
fn sets_of_other_keys_places_and_copies_are_other_sets() {
    let mut all = members(&["boot", "data"]);
    let change = |change: fn(&mut Image)| {
        let mut other = members(&["boot", "data"]);
        other.iter_mut().for_each(change);
        other
    };
    all.extend(change(|image| image.id = image.id.replace("p/", "q/")));
    all.extend(change(|image| {
        image.id = image.id.replace("/7", "/8");
        image.labels.insert(LABEL_COPY.to_owned(), "yes".to_owned());
    }));
    let images = gathered(all, at(600), PATIENCE);
    assert_eq!(images.len(), 3);
    assert!(images.iter().all(|image| image.state == ImageState::Ready));
}

#[test]
fn where_members_disagree_the_view_is_the_careful_one() {
    let mut images = members(&["boot", "data"]);
    images[0].stage = Stage::Obsolete;
    images[1].stage = Stage::Deprecated;
    images[0].labels.insert("stillframe-let-go".to_owned(), "20261121t020000z".to_owned());
    images[1].labels.insert("team".to_owned(), "db".to_owned());
    images[1].in_use_by = vec!["disk x".to_owned()];
    images[0].kms_key = Some("k".to_owned());
    let image = shown(images.clone(), 600);
    assert_eq!((image.stage, image.let_go_at()), (Stage::Deprecated, None));
    assert!(!image.labels.contains_key("team"));
    assert_eq!((image.in_use_by.len(), image.kms_key), (1, None));
    for (one, other, hold) in [
        (None, Some("until-20270101t000000z"), "until-20270101t000000z"),
        (Some("until-20280101t000000z"), Some("until-20270101t000000z"), "until-20280101t000000z"),
        (Some("audit"), Some("until-20270101t000000z"), "audit"),
        (Some("until-"), Some("until-20270101t000000z"), "until-"),
    ] {
        for (image, hold) in images.iter_mut().zip([one, other]) {
            image.labels.remove(LABEL_HOLD);
            image.labels.extend(hold.map(|hold| (LABEL_HOLD.to_owned(), hold.to_owned())));
        }
        assert_eq!(shown(images.clone(), 600).labels[LABEL_HOLD], hold);
    }
    images[1].stored_bytes = None;
    assert_eq!(shown(images, 600).stored_bytes, None);
}

#[test]
fn sharing_that_differs_is_never_what_a_policy_says() {
    let grant = |members: &[&str]| Grant {
        role: "r".to_owned(),
        members: members.iter().map(|member| (*member).to_owned()).collect(),
    };
    let mut images = members(&["boot", "data"]);
    assert_eq!(shown(images.clone(), 600).sharing, None);
    images[0].sharing = Some(vec![grant(&["a"])]);
    assert_eq!(shown(images.clone(), 600).sharing, None);
    images[1].sharing = Some(vec![grant(&["a"])]);
    assert_eq!(shown(images.clone(), 600).sharing, Some(vec![grant(&["a"])]));
    images[1].sharing = Some(vec![]);
    assert_eq!(shown(images, 600).sharing, Some(vec![grant(&[]), grant(&["a"])]));
}

#[test]
fn a_change_keeps_what_is_a_members_own_and_takes_what_was_left_behind() {
    let mut images = members(&["boot", "data"]);
    // An earlier run has marked the one and was interrupted before the other.
    images[0].labels.insert("stillframe-staged".to_owned(), "20261121t020000z".to_owned());
    images[0].labels.insert("colour".to_owned(), "blue".to_owned());
    let agreed = shown(images.clone(), 600).labels;
    let set = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    let after = labels_after(&images[0].labels, &agreed, &set, &["team".to_owned()]);
    assert!(!after.contains_key("stillframe-staged") && !after.contains_key("team"));
    assert_eq!((after["a"].as_str(), after["colour"].as_str()), ("b", "blue"));
    let own = [LABEL_SET, LABEL_DISK, LABEL_POINT];
    assert!(own.iter().all(|label| after[*label] == images[0].labels[*label]));
    assert_eq!(Key::from_labels(&after), Ownership::Ours(key()));
}

fn disks() -> impl Strategy<Value = Vec<String>> {
    prop::collection::btree_set("[-_a-zA-Z0-9 ./ü]{1,80}", 2..6)
        .prop_map(|disks| disks.into_iter().collect())
}

proptest! {
    #[test]
    fn names_are_distinct_labels_and_the_same_every_time(
        prefix in "[a-z][-a-z0-9]{0,70}", disks in disks()
    ) {
        let point = key().image_name(&prefix);
        let made = parts(&point, &key().labels(), &disks);
        let names: BTreeSet<&String> = made.iter().map(|part| &part.name).collect();
        prop_assert_eq!(names.len(), disks.len());
        prop_assert!(!names.contains(&point));
        for part in &made {
            prop_assert!(is_rfc1035_label(&part.name), "{}", part.name);
            prop_assert!(part.labels.values().all(|value| is_label_value(value)));
            prop_assert_eq!(part.labels.get(LABEL_POINT), Some(&point));
        }
        let labels: BTreeSet<&String> = made.iter().map(|part| &part.labels[LABEL_DISK]).collect();
        prop_assert_eq!(labels.len(), disks.len());
        prop_assert_eq!(parts(&point, &key().labels(), &disks), made);
    }

    #[test]
    fn no_part_of_a_set_is_ready(disks in disks(), left_out in 0_usize..5, rotate in 0_usize..5) {
        let names: Vec<&str> = disks.iter().map(String::as_str).collect();
        let mut images = members(&names);
        let whole = shown(images.clone(), 600);
        images.rotate_left(rotate % names.len());
        prop_assert_eq!(&shown(images.clone(), 600), &whole);
        images.remove(left_out % names.len());
        let part = shown(images, 600);
        prop_assert_eq!(part.state, ImageState::Partial);
        prop_assert_ne!((part.id, part.fingerprint), (whole.id, whole.fingerprint));
    }
}

#[test]
fn a_second_image_of_a_disk_stands_beside_its_set() {
    let mut images = members(&["boot", "data"]);
    let mut twin = images[1].clone();
    twin.id = "p/snapshots/99".to_owned();
    twin.created_at = at(30);
    images.insert(0, twin);
    let shown = gathered_without_twins(images.clone(), at(40), PATIENCE);
    assert_eq!(shown.len(), 2);
    assert_eq!((shown[0].id.as_str(), shown[0].state), ("p/snapshots/71+72", ImageState::Ready));
    assert_eq!((shown[1].id.as_str(), shown[1].state), ("p/snapshots/99", ImageState::Unknown));
    // Once the set is gone, what is left of it is a part.
    let left = gathered_without_twins(vec![images.remove(0)], at(600), PATIENCE);
    assert_eq!((left.len(), left[0].state), (1, ImageState::Partial));
    // What is listed twice is there once.
    let twice = members(&["boot", "data"]);
    let shown = gathered_without_twins([twice.clone(), twice].concat(), at(40), PATIENCE);
    assert_eq!(shown.len(), 1);
}

/// What a policy may add has room beside all that stillframe puts on a member in its life.
#[test]
fn a_member_has_room_for_all_that_is_put_on_it() {
    let own = |image: &Image| {
        image.labels.keys().filter(|label| label.starts_with("stillframe-")).count()
    };
    let most = members(&["boot", "data"]).iter().map(own).max().unwrap();
    // The mark of the boot disk, which engines add, and what is marked of a whole set.
    let marks = [
        LABEL_BOOT,
        crate::inventory::LABEL_STAGE,
        crate::inventory::LABEL_STAGED,
        crate::inventory::LABEL_LET_GO,
        crate::inventory::LABEL_HOLD,
        crate::inventory::LABEL_MISSING,
        crate::inventory::LABEL_REMOVED,
    ];
    let labels = &members(&["boot", "data"])[0].labels;
    let added = marks.iter().filter(|mark| !labels.contains_key(**mark)).count();
    assert_eq!(most + added, crate::inventory::OWN_LABELS);
}
