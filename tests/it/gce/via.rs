//! Disk images that are made from a snapshot: what is asked for, what a run before has left, and what
//! goes wrong.

use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::{Value, json};
use stillframe::clock::FixedClock;
use stillframe::engine::{CreateRequest, Created, Engine, EngineError, Unwatched};
use stillframe::inventory::{Image, ImageKind, ImageState, LABEL_STEP, Via};
use stillframe::name::step_name;
use stillframe::plan::ImageRef;

use super::{Case, Wrong, now, open, request};

const CREATE_SNAPSHOT: &str = "POST projects/p/zones/us-a/disks/web-1-data/createSnapshot";

fn via() -> CreateRequest {
    let mut wanted = request(ImageKind::DiskImage, 2);
    wanted.create.via = Via::Snapshot;
    wanted.create.family = Some("web".to_owned());
    wanted
}

/// How many images and snapshots there are.
fn counts(case: &Case) -> (usize, usize) {
    (case.count("images"), case.count("snapshots"))
}

/// The first snapshot that there is, to be changed.
fn edit_snapshot(case: &Case, edit: impl FnOnce(&mut Value)) {
    edit(case.fake.state().images.get_mut("snapshots").unwrap().values_mut().next().unwrap());
}

/// What a run leaves that can change nothing any more once the snapshot is there.
async fn left_behind(case: &Case) {
    case.fake.state().changes_left = Some(1);
    case.create(via()).await.unwrap_err();
    assert_eq!(counts(case), (0, 1));
    let mut state = case.fake.state();
    assert_eq!(state.asked(CREATE_SNAPSHOT), 1);
    state.changes_left = None;
    state.log.clear();
}

/// What is seen so many minutes later.
async fn seen(case: &Case, minutes: i64) -> Vec<Image> {
    let clock = Arc::new(FixedClock(now() + SignedDuration::from_mins(minutes)));
    let settings = json!({"projects": ["p"]});
    let engine = open(&case.fake, "cloud", clock, case.pause.clone(), settings).unwrap();
    engine.observe().await.images
}

#[tokio::test]
async fn an_image_is_made_from_a_snapshot_which_goes() {
    let case = Case::new();
    let wanted = via();
    let created = case.create(wanted.clone()).await.unwrap();
    assert!(matches!(created, Created::Made(_)), "{created:?}");
    assert_eq!(counts(&case), (1, 0));
    let image = created.image();
    assert_eq!((image.state, image.kind), (ImageState::Ready, ImageKind::DiskImage));
    assert_eq!(
        (image.family.as_deref(), image.labels.clone()),
        (Some("web"), wanted.create.labels.clone())
    );
    {
        let state = case.fake.state();
        let name = step_name(&wanted.name);
        let body = |name: &str| state.bodies.iter().find(|body| body["name"] == *name).unwrap();
        let (step, image) = (body(&name), body(&wanted.name));
        // Both lie where the policy says, under the key that it names.
        assert_eq!(step["labels"][LABEL_STEP], wanted.name);
        assert_eq!(step["labels"]["stillframe-key"], wanted.create.labels["stillframe-key"]);
        assert_eq!(step["snapshotEncryptionKey"], image["imageEncryptionKey"]);
        assert!(step["snapshotEncryptionKey"]["kmsKeyName"].is_string());
        assert_eq!(
            (&step["storageLocations"], &image["storageLocations"]),
            (&json!(["us"]), &json!(["us"]))
        );
        assert_eq!(image["sourceSnapshot"], format!("projects/p/global/snapshots/{name}"));
        assert!(image["sourceDisk"].is_null() && image["labels"][LABEL_STEP].is_null());
        let changes: Vec<&str> = state
            .log
            .iter()
            .filter(|line| !line.starts_with("GET"))
            .map(|line| line.trim_end_matches(|one: char| one.is_ascii_digit()))
            .collect();
        assert_eq!(
            changes,
            [
                CREATE_SNAPSHOT,
                "POST projects/p/global/images",
                "DELETE projects/p/global/snapshots/"
            ]
        );
    }
    let again = case.create(wanted).await.unwrap();
    assert!(
        matches!(&again, Created::Found { image: found, .. } if found.id == image.id),
        "{again:?}"
    );
    assert_eq!(case.fake.state().asked(CREATE_SNAPSHOT), 1);
}

#[tokio::test]
async fn in_a_project_of_images_the_snapshot_lies_there_too() {
    let case = Case::new();
    let clock = Arc::new(FixedClock(now()));
    let settings = json!({"projects": ["p"], "imagesProject": "vault"});
    let engine = open(&case.fake, "cloud", clock, case.pause.clone(), settings).unwrap();
    engine.create(via(), Arc::new(Unwatched)).await.unwrap();
    assert_eq!(counts(&case), (1, 0));
    let state = case.fake.state();
    assert_eq!(state.asked("POST projects/vault/global/snapshots"), 1);
    assert_eq!(state.asked("DELETE projects/vault/global/snapshots/"), 1);
    assert_eq!(state.bodies[0]["sourceDisk"], "projects/p/zones/us-a/disks/web-1-data");
}

#[tokio::test]
async fn only_disk_images_are_made_from_snapshots() {
    let case = Case::new();
    for kind in [ImageKind::MachineImage, ImageKind::Snapshot] {
        let mut wanted = request(kind, 2);
        wanted.create.via = Via::Snapshot;
        let refused = case.create(wanted).await;
        assert!(matches!(refused, Err(EngineError::Refused(_))), "{refused:?}");
    }
    assert_eq!(case.fake.state().asked("POST"), 0);
}

#[tokio::test]
async fn what_a_run_has_left_is_taken_up_and_captured_no_second_time() {
    let case = Case::new();
    left_behind(&case).await;
    let [step] = &seen(&case, 1).await[..] else { panic!("one") };
    assert_eq!((step.state, step.step_to()), (ImageState::Creating, Some(via().name.as_str())));
    let [step] = &seen(&case, 70).await[..] else { panic!("one") };
    assert_eq!(step.state, ImageState::Failed);
    // What it holds was captured in time.
    let mut late = via();
    late.create.deadline = now() - SignedDuration::from_hours(1);
    let created = case.create(late).await.unwrap();
    assert!(matches!(created, Created::Made(_)));
    assert_eq!(counts(&case), (1, 0));
    assert_eq!(case.fake.state().asked(CREATE_SNAPSHOT), 0);
    assert_eq!(seen(&case, 70).await.len(), 1);
}

fn begun_long_ago(snapshot: &mut Value) {
    snapshot["creationTimestamp"] = json!((now() - SignedDuration::from_hours(2)).to_string());
}

#[tokio::test]
async fn a_snapshot_of_no_use_is_replaced() {
    let edits: [fn(&mut Value); 4] = [
        |snapshot| snapshot["status"] = json!("FAILED"),
        |snapshot| snapshot["sourceDisk"] = json!("projects/p/zones/us-a/disks/web-1-boot"),
        |snapshot| snapshot["snapshotEncryptionKey"]["kmsKeyName"] = json!("another"),
        |snapshot| snapshot["storageLocations"] = json!(["eu"]),
    ];
    for (number, edit) in edits.into_iter().enumerate() {
        let case = Case::new();
        left_behind(&case).await;
        edit_snapshot(&case, edit);
        if number > 0 {
            // Another run, with other settings, may be about to make its image of it.
            let busy = case.create(via()).await;
            assert!(matches!(busy, Err(EngineError::Busy(_))), "{busy:?}");
            assert_eq!((counts(&case), case.fake.state().asked("DELETE")), ((0, 1), 0));
            edit_snapshot(&case, begun_long_ago);
            edit_snapshot(&case, |snapshot| snapshot["labels"]["stillframe-hold"] = json!("yes"));
            let held = case.create(via()).await;
            assert!(matches!(held, Err(EngineError::Refused(_))), "{held:?}");
            assert_eq!((counts(&case), case.fake.state().asked("DELETE")), ((0, 1), 0));
            edit_snapshot(&case, |snapshot| {
                snapshot["labels"].as_object_mut().unwrap().remove("stillframe-hold");
            });
        }
        let first = case.fake.state().images["snapshots"].keys().next().copied().unwrap();
        case.create(via()).await.unwrap();
        assert_eq!(counts(&case), (1, 0));
        let state = case.fake.state();
        assert_eq!(state.asked(&format!("DELETE projects/p/global/snapshots/{first}")), 1);
        assert_eq!(state.asked("DELETE projects/p/global/snapshots/"), 2);
    }
    // The service adds the version of the key.
    let case = Case::new();
    left_behind(&case).await;
    edit_snapshot(&case, |snapshot| {
        let key = snapshot["snapshotEncryptionKey"]["kmsKeyName"].as_str().unwrap().to_owned();
        snapshot["snapshotEncryptionKey"]["kmsKeyName"] =
            json!(format!("{key}/cryptoKeyVersions/3"));
    });
    case.create(via()).await.unwrap();
    assert_eq!(case.fake.state().asked("DELETE projects/p/global/snapshots/"), 1);
}

#[tokio::test]
async fn a_snapshot_that_is_not_ours_is_never_touched() {
    let edits: [fn(&mut Value); 4] = [
        |snapshot| drop(snapshot.as_object_mut().unwrap().remove("labels")),
        |snapshot| drop(snapshot["labels"].as_object_mut().unwrap().remove(LABEL_STEP)),
        |snapshot| snapshot["labels"][LABEL_STEP] = json!("another"),
        |snapshot| snapshot["labels"]["stillframe-slot"] = json!("20201121t020000z"),
    ];
    for edit in edits {
        let case = Case::new();
        left_behind(&case).await;
        edit_snapshot(&case, edit);
        let refused = case.create(via()).await;
        assert!(matches!(refused, Err(EngineError::NameTaken(_))), "{refused:?}");
        assert_eq!(counts(&case), (0, 1));
        assert_eq!(case.fake.state().asked("DELETE"), 0);
    }
}

#[tokio::test]
async fn replies_that_are_lost_double_nothing() {
    for wrong in [
        vec![Wrong::InsertReplyLost],
        vec![Wrong::InsertReplyLost; 2],
        vec![Wrong::DeleteReplyLost],
        vec![Wrong::OperationForgotten; 3],
        vec![Wrong::Unavailable; 3],
        vec![Wrong::Rate, Wrong::RateByStatus],
    ] {
        let case = Case::new();
        case.wrong(&wrong);
        case.create(via()).await.unwrap();
        assert_eq!(counts(&case), (1, 0), "{wrong:?}");
    }
}

#[tokio::test]
async fn what_comes_to_nothing_leaves_nothing() {
    let case = Case::new();
    case.wrong(&[Wrong::QuotaFails]);
    let failed = case.create(via()).await;
    assert!(matches!(failed, Err(EngineError::Refused(_))), "{failed:?}");
    assert_eq!(counts(&case), (0, 0));
    let case = Case::new();
    case.wrong(&[Wrong::ImageQuotaFails]);
    let failed = case.create(via()).await;
    assert!(matches!(failed, Err(EngineError::Refused(_))), "{failed:?}");
    // It is not captured anew for it: the next run takes the snapshot up, or a plan deletes it.
    assert_eq!(counts(&case), (0, 1));
    let case = Case::new();
    case.wrong(&[Wrong::ImageBroken]);
    let failed = case.create(via()).await;
    assert!(matches!(failed, Err(EngineError::Failed(_))), "{failed:?}");
    assert_eq!(counts(&case), (1, 0));
    // A plan clears away what has failed; nothing else is in the way.
    let [image] = &seen(&case, 1).await[..] else { panic!("one") };
    case.engine().delete(&ImageRef::of(image)).await.unwrap();
    case.create(via()).await.unwrap();
    assert_eq!(counts(&case), (1, 0));
}

#[tokio::test]
async fn a_snapshot_that_stays_costs_nobody_the_image_and_is_a_failed_attempt() {
    let case = Case::new();
    case.wrong(&[Wrong::DeleteIgnored]);
    let created = case.create(via()).await.unwrap();
    assert!(matches!(created, Created::Made(_)), "{created:?}");
    assert_eq!(counts(&case), (1, 1));
    let images = seen(&case, 1).await;
    let step = images.iter().find(|image| image.is_step()).unwrap();
    assert_eq!((images.len(), step.state), (2, ImageState::Failed));
    assert!(step.message.as_ref().unwrap().contains("left behind"), "{step:?}");
    case.engine().delete(&ImageRef::of(step)).await.unwrap();
    assert_eq!(counts(&case), (1, 0));
}

#[tokio::test]
async fn a_step_is_not_deleted_while_it_is_of_use() {
    let case = Case::new();
    left_behind(&case).await;
    let [step] = &seen(&case, 70).await[..] else { panic!("one") };
    let step = ImageRef::of(step);
    // Another run makes its image of it meanwhile.
    let mut image = json!({
        "id": "9001", "name": via().name, "project": "p", "status": "PENDING", "labels": via().create.labels,
        "labelFingerprint": "x", "creationTimestamp": now().to_string(),
    });
    let put = |image: &Value| {
        let mut state = case.fake.state();
        state.images.entry("images".to_owned()).or_default().insert(9001, image.clone());
    };
    put(&image);
    let states = seen(&case, 70).await;
    assert!(states.iter().all(|image| image.state == ImageState::Creating), "{states:?}");
    let refused = case.engine().delete(&step).await;
    assert!(matches!(refused, Err(EngineError::Refused(_))), "{refused:?}");
    // Somebody has made a disk of it.
    image["status"] = json!("READY");
    put(&image);
    let number = case.fake.state().images["snapshots"].keys().next().unwrap().to_string();
    let disk = json!({"name": "d", "selfLink": "projects/p/zones/us-a/disks/d", "sizeGb": "1", "sourceSnapshotId": number});
    let path = "projects/p/zones/us-a/disks/d".to_owned();
    case.fake.state().disks.insert(path.clone(), disk);
    let refused = case.engine().delete(&step).await;
    assert!(matches!(refused, Err(EngineError::Refused(_))), "{refused:?}");
    assert_eq!(counts(&case), (1, 1));
    case.fake.state().disks.remove(&path);
    case.engine().delete(&step).await.unwrap();
    assert_eq!(counts(&case), (1, 0));
}
