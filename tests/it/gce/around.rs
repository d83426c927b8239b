//! What is around an image: who may use it, what needs it, where it is, when it may be made.

use jiff::SignedDuration;
use stillframe::engine::{Attention, CopyRequest};
use stillframe::inventory::{Grant, LABEL_COPY, Tier};
use stillframe::plan::Copy;

use super::*;

const ROLE: &str = "roles/compute.imageUser";

fn grant(members: &[&str]) -> Vec<Grant> {
    let members = members.iter().map(|member| (*member).to_owned()).collect();
    vec![Grant { role: ROLE.to_owned(), members }]
}

fn attention() -> Attention {
    let policy = PolicyName::parse("nightly").unwrap();
    Attention { sharing: [(policy, [ROLE.to_owned()].into())].into() }
}

impl Case {
    pub fn engine_with(&self, settings: Value) -> GceEngine {
        let clock = Arc::new(FixedClock(self.fake.state().now));
        open(&self.fake, "cloud", clock, self.pause.clone(), settings).unwrap()
    }
}

#[tokio::test]
async fn who_may_use_an_image_is_merged_into_what_others_have_said() {
    let case = Case::new();
    let mut wanted = request(ImageKind::DiskImage, 2);
    wanted.create.sharing = Some(grant(&["allAuthenticatedUsers"]));
    case.wrong(&[Wrong::PolicyAborted, Wrong::PolicyChanged]);
    let image = case.create(wanted).await.unwrap().image().clone();
    let number = image.id.rsplit('/').next().unwrap().to_owned();
    let policy = case.fake.state().policies[&number].clone();
    assert_eq!(policy["version"], 3);
    assert_eq!(
        policy["bindings"],
        json!([
            {"role": "roles/owner", "members": ["user:theirs@x"]},
            {"role": ROLE, "members": ["allAuthenticatedUsers"]},
        ])
    );
    // It is looked at only where a policy says who may.
    let engine = case.engine();
    let asked = |state: &fake::State| {
        state.log.iter().filter(|line| line.ends_with("getIamPolicy")).count()
    };
    case.fake.state().log.clear();
    assert_eq!(engine.observe().await.images[0].sharing, None);
    assert_eq!(asked(&case.fake.state()), 0);
    engine.attend(&attention());
    assert_eq!(engine.observe().await.images[0].sharing, Some(grant(&["allAuthenticatedUsers"])));
    assert_eq!(asked(&case.fake.state()), 1);
    // Nobody any more; what others have said stays.
    let nobody = Update { sharing: Some(Vec::new()), ..Update::default() };
    let after = engine.update(&ImageRef::of(&image), &nobody).await.unwrap();
    assert_eq!(after.sharing, Some(Vec::new()));
    let policy = case.fake.state().policies[&number].clone();
    assert_eq!(policy["bindings"].as_array().unwrap().len(), 1);
    // Another run that does the same finds it done, and one that has seen another image does not.
    assert!(engine.update(&ImageRef::of(&image), &nobody).await.is_ok());
    let mut other = ImageRef::of(&image);
    other.fingerprint = Some("another".to_owned());
    let given = Update { sharing: Some(grant(&["user:a@x"])), ..Update::default() };
    assert_eq!(engine.update(&other, &given).await, Err(EngineError::Changed));
}

#[tokio::test]
async fn what_needs_an_image_is_seen_and_looked_up_again() {
    let case = Case::new();
    let engine = case.engine();
    let snapshot = case.create(request(ImageKind::Snapshot, 2)).await.unwrap().image().clone();
    let mut golden = request(ImageKind::DiskImage, 3);
    golden.create.family = Some("golden".to_owned());
    let image = case.create(golden).await.unwrap().image().clone();
    let machine = case.create(machine_image(4)).await.unwrap().image().clone();
    let number = snapshot.id.rsplit('/').next().unwrap().to_owned();
    {
        let mut state = case.fake.state();
        let disk = json!({"name": "restored", "sourceSnapshotId": number});
        state.disks.insert("projects/p/zones/us-a/disks/restored".to_owned(), disk);
        let source = json!({"sourceImage": "projects/p/global/images/family/golden"});
        let template =
            json!({"name": "web", "properties": {"disks": [{"initializeParams": source}]}});
        state.templates = vec![template];
        let path = format!("https://x/compute/v1/projects/p/global/machineImages/{}", machine.name);
        let instance = state.instances.values_mut().next().unwrap();
        instance["sourceMachineImage"] = json!(path);
    }
    let users = |inventory: &stillframe::inventory::EngineInventory, id: &str| {
        let image = inventory.images.iter().find(|image| image.id == id).unwrap();
        image.in_use_by.join(", ")
    };
    let inventory = engine.observe().await;
    assert!(inventory.is_complete(), "{:?}", inventory.gaps);
    assert_eq!(users(&inventory, &snapshot.id), "disk restored");
    assert_eq!(users(&inventory, &image.id), "instance template web");
    assert_eq!(users(&inventory, &machine.id), "instance web-1");
    // A plan that was made before there was a user deletes nothing.
    for used in [&snapshot, &machine] {
        let refused = engine.delete(&ImageRef::of(used)).await;
        assert!(
            matches!(&refused, Err(EngineError::Refused(text)) if text.contains("in use by")),
            "{refused:?}"
        );
    }
    // A disk of it, in place of an instance.
    let number = machine.id.rsplit('/').next().unwrap();
    {
        let mut state = case.fake.state();
        state.instances.values_mut().next().unwrap()["sourceMachineImage"] = Value::Null;
        let disk = json!({"name": "of-a-machine", "sourceMachineImageId": number});
        state.disks.insert("projects/p/zones/us-a/disks/of-a-machine".to_owned(), disk);
    }
    assert_eq!(users(&engine.observe().await, &machine.id), "disk of-a-machine");
    let in_use = |by: &str| Err(EngineError::Refused(format!("it is in use by {by}")));
    assert_eq!(engine.delete(&ImageRef::of(&machine)).await, in_use("disk of-a-machine"));
    // A template that names it, since the plan.
    let source = json!({"sourceImage": format!("projects/p/global/images/{}", image.name)});
    case.fake.state().templates[0]["properties"]["disks"] = json!([{"initializeParams": source}]);
    assert_eq!(engine.delete(&ImageRef::of(&image)).await, in_use("instance template web"));
    case.wrong(&[Wrong::TemplatesRefused]);
    let unknown = engine.delete(&ImageRef::of(&image)).await;
    assert!(
        matches!(&unknown, Err(EngineError::Failed(text)) if text.contains("is not known")),
        "{unknown:?}"
    );
    assert_eq!(case.fake.state().asked("DELETE"), 0);
    case.fake.state().disks.remove("projects/p/zones/us-a/disks/restored");
    assert_eq!(engine.delete(&ImageRef::of(&snapshot)).await, Ok(()));
    // Nobody knows what templates need that cannot be listed.
    case.wrong(&[Wrong::TemplatesRefused]);
    let gaps = engine.observe().await.gaps;
    assert!(gaps[0].message.contains("compute.instanceTemplates.list"), "{gaps:?}");
}

/// Whoever made an image may have named its project by its number.
#[tokio::test]
async fn projects_are_known_by_their_numbers() {
    let case = Case::new();
    let mut of_all = request(ImageKind::Snapshot, 2);
    of_all.create.disks = vec!["boot".to_owned(), "data".to_owned()];
    of_all.create.disk_by_disk = true;
    case.create(of_all.clone()).await.unwrap();
    case.create(machine_image(3)).await.unwrap();
    let by_number = format!("projects/{}/", fake::number_of("p"));
    {
        let mut state = case.fake.state();
        let rename = |value: &mut Value, field: &str| {
            let text = value[field].as_str().unwrap().replace("projects/p/", &by_number);
            value[field] = json!(text);
        };
        for snapshot in state.images.get_mut("snapshots").unwrap().values_mut() {
            rename(snapshot, "sourceDisk");
        }
        for image in state.images.get_mut("machineImages").unwrap().values_mut() {
            rename(image, "sourceInstance");
            image["labels"] = json!({});
        }
        let machine = state.images["machineImages"].values().next().unwrap()["name"].clone();
        let machine = machine.as_str().unwrap();
        let instance = state.instances.values_mut().next().unwrap();
        instance["sourceMachineImage"] =
            json!(format!("https://x/compute/v1/{by_number}global/machineImages/{machine}"));
    }
    let inventory = case.engine().observe().await;
    let machine = inventory.images.iter().find(|one| one.kind == ImageKind::MachineImage).unwrap();
    assert_eq!(machine.source.as_ref().unwrap().id.as_str(), "4201");
    assert_eq!(machine.in_use_by, ["instance web-1"]);
    // And what is there is found again, and not in the way.
    assert!(matches!(case.create(of_all).await, Ok(Created::Found { .. })));
    // Another project of that name is another project.
    let named_otherwise = by_number.replace("projects/", "projects/9");
    for snapshot in case.fake.state().images.get_mut("snapshots").unwrap().values_mut() {
        let text = snapshot["sourceDisk"].as_str().unwrap().replace(&by_number, &named_otherwise);
        snapshot["sourceDisk"] = json!(text);
    }
    let mut again = request(ImageKind::Snapshot, 2);
    again.create.disks = vec!["boot".to_owned(), "data".to_owned()];
    again.create.disk_by_disk = true;
    assert!(matches!(case.create(again).await, Err(EngineError::NameTaken(_))));
}

#[tokio::test]
async fn the_disks_that_an_image_holds_are_known() {
    let case = Case::new();
    let mut without = machine_image(2);
    without.create.disks = vec!["boot".to_owned()];
    without.create.excluded_disks = vec!["data".to_owned()];
    for wanted in [without, machine_image(3), request(ImageKind::Snapshot, 4)] {
        case.create(wanted).await.unwrap();
    }
    let disks = |inventory: stillframe::inventory::EngineInventory| -> Vec<String> {
        let mut images = inventory.images;
        images.sort_by(|one, other| one.name.cmp(&other.name));
        images
            .into_iter()
            .map(|image| {
                let mut disks = image.disks.unwrap_or_else(|| vec!["not known".to_owned()]);
                disks.sort();
                disks.join(", ")
            })
            .collect()
    };
    assert_eq!(disks(case.engine().observe().await), ["boot", "boot, data", "data"]);
    // A disk that the machine has no more is called by its path: no device is.
    let instance = |state: &mut fake::State| {
        let instance = state.instances.values_mut().next().unwrap();
        instance["disks"].as_array_mut().unwrap().retain(|disk| disk["deviceName"] == "boot");
    };
    instance(&mut case.fake.state());
    let seen = disks(case.engine().observe().await);
    let gone = "projects/p/zones/us-a/disks/web-1-data";
    assert_eq!(seen, ["boot", &format!("boot, {gone}"), gone]);
}

/// Who uses an image may be named by the number of its project. Where that cannot be had nobody knows
/// whether it is this one.
#[tokio::test]
async fn without_the_number_of_a_project_nothing_is_deleted() {
    let case = Case::new();
    let image = case.create(request(ImageKind::DiskImage, 2)).await.unwrap().image().clone();
    let source = json!({"sourceImage": format!("projects/{}/global/images/{}", fake::number_of("p"), image.name)});
    let template = json!({"name": "web", "properties": {"disks": [{"initializeParams": source}]}});
    {
        let mut state = case.fake.state();
        state.templates = vec![template];
        let no =
            json!({"error": {"code": 403, "message": "no", "errors": [{"reason": "forbidden"}]}});
        state.refusals.insert("projects/p".to_owned(), (403, no));
    }
    let engine = case.engine();
    let seen = engine.observe().await;
    assert!(seen.gaps.iter().any(|gap| gap.message.contains("the number of p")), "{:?}", seen.gaps);
    let refused = engine.delete(&ImageRef::of(&image)).await;
    assert!(
        matches!(&refused, Err(EngineError::Failed(text)) if text.contains("the number of p")),
        "{refused:?}"
    );
    case.fake.state().refusals.clear();
    let seen = engine.observe().await;
    assert!(
        seen.is_complete() && seen.images[0].in_use_by == ["instance template web"],
        "{seen:?}"
    );
}

/// An image is of the instance that was there when it was made.
#[tokio::test]
async fn an_instance_takes_over_nothing_of_another_one_under_its_name() {
    let case = Case::new();
    let mut foreign = request(ImageKind::MachineImage, 2);
    foreign.create.labels.clear();
    case.engine().create(foreign, Arc::new(Unwatched)).await.unwrap_err();
    let since = |at: &str| {
        let mut state = case.fake.state();
        let instance = state.instances.values_mut().next().unwrap();
        instance["creationTimestamp"] = json!(at);
    };
    for (at, source) in
        [("2026-11-21T03:59:59.000-08:00", Some("web-1")), ("2026-11-21T05:00:00.000-08:00", None)]
    {
        since(at);
        let image = case.engine().observe().await.images.remove(0);
        assert_eq!(image.source.as_ref().map(|source| source.name.as_str()), source, "{at}");
        let disks = image.disks.unwrap();
        assert_eq!(disks.iter().any(|disk| disk.contains('/')), source.is_none(), "{disks:?}");
    }
}

#[tokio::test]
async fn a_disk_image_is_copied_and_nothing_else() {
    let case = Case::new();
    let original = case.create(request(ImageKind::DiskImage, 2)).await.unwrap().image().clone();
    let key = request(ImageKind::DiskImage, 2).key;
    let mut labels = key.labels();
    labels.insert(LABEL_COPY.to_owned(), "yes".to_owned());
    let copy = |image: &stillframe::inventory::Image| CopyRequest {
        key: key.clone(),
        image: ImageRef::of(image),
        by: Author::new("here"),
        copy: Copy {
            name: key.copy_name("nightly", "eu"),
            location: "eu".to_owned(),
            kms_key: None,
            labels: labels.clone(),
            sharing: Some(grant(&["allAuthenticatedUsers"])),
            replaces: None,
        },
    };
    let made = case.engine().copy(copy(&original), Arc::new(Unwatched)).await.unwrap();
    assert!(matches!(&made, Created::Made(image) if image.location == "eu" && image.is_copy()));
    assert_eq!(made.image().sharing, Some(grant(&["allAuthenticatedUsers"])));
    let shared = made.image().id.rsplit('/').next().unwrap().to_owned();
    assert_eq!(case.fake.state().policies[&shared]["bindings"][0]["role"], ROLE);
    let body =
        case.fake.state().bodies.iter().rfind(|body| body["sourceImage"].is_string()).cloned();
    let body = body.unwrap();
    let number = original.id.rsplit('/').next().unwrap();
    assert_eq!(body["sourceImage"], format!("projects/p/global/images/{number}"));
    assert_eq!(body["storageLocations"], json!(["eu"]));
    // A copy of another image under its name is in the way.
    let state = || case.fake.state();
    let made_number: u64 = made.image().id.rsplit('/').next().unwrap().parse().unwrap();
    let of = |number: &str| {
        state().images.get_mut("images").unwrap().get_mut(&made_number).unwrap()["sourceImageId"] =
            json!(number);
    };
    of("1");
    let taken = case.engine().copy(copy(&original), Arc::new(Unwatched)).await;
    assert!(matches!(taken, Err(EngineError::NameTaken(_))), "{taken:?}");
    of(number);
    let found = case.engine().copy(copy(&original), Arc::new(Unwatched)).await.unwrap();
    assert!(matches!(found, Created::Found { .. }));
    let snapshot = case.create(request(ImageKind::Snapshot, 3)).await.unwrap().image().clone();
    let refused = case.engine().copy(copy(&snapshot), Arc::new(Unwatched)).await;
    assert!(
        matches!(&refused, Err(EngineError::Refused(text)) if text.contains("copies no snapshot")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn images_may_be_made_in_a_project_for_backups() {
    let case = Case::new();
    let engine = case.engine_with(json!({"projects": ["p"], "imagesProject": "vault"}));
    let snapshot =
        engine.create(request(ImageKind::Snapshot, 2), Arc::new(Unwatched)).await.unwrap();
    assert!(snapshot.image().id.starts_with("vault/snapshots/"));
    // Into another project only `snapshots.insert` leads.
    assert_eq!(case.fake.state().asked("POST projects/vault/global/snapshots"), 1);
    let body = case.fake.state().bodies.last().unwrap().clone();
    assert_eq!(body["sourceDisk"], "projects/p/zones/us-a/disks/web-1-data");
    case.fake.state().now = now() + SignedDuration::from_hours(1);
    let engine = case.engine_with(json!({"projects": ["p"], "imagesProject": "vault"}));
    engine.create(machine_image(3), Arc::new(Unwatched)).await.unwrap();
    let body = case.fake.state().bodies.last().unwrap().clone();
    assert_eq!(body["sourceInstance"], "projects/p/zones/us-a/instances/web-1");
    let images = engine.observe().await.images;
    assert_eq!(images.len(), 2);
    assert_eq!(engine.delete(&ImageRef::of(&images[0])).await, Ok(()));
    // What is used beside them is not deleted either.
    let number = images[1].id.rsplit('/').next().unwrap();
    let field = match images[1].kind {
        ImageKind::MachineImage => "sourceMachineImageId",
        _ => "sourceSnapshotId",
    };
    let path = "projects/vault/zones/us-a/disks/tried".to_owned();
    case.fake.state().disks.insert(path.clone(), json!({"name": "tried", field: number}));
    assert_eq!(engine.observe().await.images[0].in_use_by, ["disk tried"]);
    assert!(matches!(
        engine.delete(&ImageRef::of(&images[1])).await,
        Err(EngineError::Refused(text)) if text == "it is in use by disk tried"
    ));
    case.fake.state().disks.remove(&path);
    let places: Vec<String> =
        engine.places().iter().map(|place| place.display().to_string()).collect();
    assert!(places.len() == 2 && places[1].ends_with("projects/vault"), "{places:?}");
    // Without the setting, nothing there is this engine's.
    let other = case.engine();
    assert_eq!(other.observe().await.images, []);
    assert_eq!(other.delete(&ImageRef::of(&images[1])).await, Err(EngineError::NotFound));
}

#[tokio::test]
async fn snapshots_can_be_archived() {
    let case = Case::new();
    let mut wanted = request(ImageKind::Snapshot, 2);
    wanted.create.tier = Some(Tier::Archive);
    case.create(wanted).await.unwrap();
    let body = case.fake.state().bodies.last().unwrap().clone();
    assert_eq!(body["snapshotType"], "ARCHIVE");
    let mut image = request(ImageKind::DiskImage, 3);
    image.create.tier = Some(Tier::Archive);
    assert!(matches!(case.create(image).await, Err(EngineError::Refused(_))));
}

#[tokio::test]
async fn snapshots_of_a_region_are_seen() {
    let case = Case::new();
    case.create(request(ImageKind::Snapshot, 2)).await.unwrap();
    {
        let mut state = case.fake.state();
        state.regions = vec!["us-a1".to_owned(), "us-b1".to_owned()];
        let snapshots = state.images.get_mut("snapshots").unwrap();
        let one = snapshots.values_mut().next().unwrap();
        one["region"] = json!("https://x/compute/v1/projects/p/regions/us-b1");
    }
    let inventory = case.engine().observe().await;
    assert!(inventory.is_complete(), "{:?}", inventory.gaps);
    let [image] = &inventory.images[..] else { panic!("{:?}", inventory.images) };
    assert!(image.id.starts_with("p/regions/us-b1/snapshots/"), "{}", image.id);
}

#[tokio::test]
async fn where_images_are_stored_is_known_unless_the_project_says_otherwise() {
    let case = Case::new();
    let location = |inventory: stillframe::inventory::EngineInventory| {
        inventory.capabilities.default_location("australia-southeast1-b").to_owned()
    };
    case.fake.state().snapshot_settings = json!({});
    assert_eq!(location(case.engine().observe().await), "asia");
    let nearest = json!({"storageLocation": {"policy": "NEAREST_MULTI_REGION"}});
    case.fake.state().snapshot_settings = nearest;
    assert_eq!(location(case.engine().observe().await), "asia");
    let local = json!({"storageLocation": {"policy": "LOCAL_REGION"}});
    case.fake.state().snapshot_settings = local;
    assert_eq!(location(case.engine().observe().await), "");
}

/// Remembers what it was told.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Watcher for Told {
    fn progress(&self, _: Progress) {}

    fn waits(&self, why: &str) {
        self.0.lock().unwrap().push(why.to_owned());
    }
}

impl Swift {
    pub fn sum(&self) -> Duration {
        self.0.lock().unwrap().iter().sum()
    }
}

#[tokio::test]
async fn a_source_is_not_captured_too_soon() {
    let case = Case::new();
    let engine = case.engine();
    let told = Arc::new(Told::default());
    engine.create(machine_image(2), told.clone()).await.unwrap();
    assert!(told.0.lock().unwrap().is_empty());
    let before = case.pause.sum();
    engine.create(machine_image(3), told.clone()).await.unwrap();
    assert!(case.pause.sum() >= before + Duration::from_mins(10));
    assert!(
        told.0.lock().unwrap()[0].contains("one image in 10 minutes"),
        "{told:?}",
        told = told.0
    );
    // Longer than a quarter of an hour nobody waits: the next run makes it.
    let put_off = engine.create(machine_image(4), told.clone()).await;
    assert!(
        matches!(&put_off, Err(EngineError::Busy(text)) if text.starts_with("put off to the next run, not before 2026-11-21T12:20:20Z")),
        "{put_off:?}"
    );
    // What was made by others, before this run, counts as well.
    let other = case.engine();
    other.observe().await;
    let before = case.pause.sum();
    other.create(machine_image(5), told.clone()).await.unwrap();
    assert!(case.pause.sum() >= before + Duration::from_mins(10));
    // Neither is a deadline waited past.
    let third = case.engine();
    third.observe().await;
    let mut late = machine_image(6);
    late.create.deadline = now() + SignedDuration::from_mins(5);
    let put_off = third.create(late, told).await;
    assert!(matches!(put_off, Err(EngineError::Busy(_))), "{put_off:?}");
}

#[tokio::test]
async fn a_capture_that_was_refused_as_too_soon_is_asked_for_once_more() {
    let case = Case::new();
    case.wrong(&[Wrong::InsertFails]);
    let told = Arc::new(Told::default());
    case.engine().create(machine_image(2), told.clone()).await.unwrap();
    assert_eq!(told.0.lock().unwrap().len(), 1);
    assert!(case.pause.sum() >= Duration::from_mins(10));
    assert_eq!(case.count("machineImages"), 1);
}

#[tokio::test]
async fn the_same_request_has_the_same_id_in_every_run() {
    let case = Case::new();
    case.wrong(&[Wrong::Unavailable; 40]);
    case.create(machine_image(2)).await.unwrap_err();
    case.wrong(&[]);
    // Two runs that are killed before an answer, and one that is not.
    case.fake.state().ids.clear();
    for _ in 0..2 {
        case.fake.state().changes_left = Some(0);
        case.create(machine_image(2)).await.unwrap_err();
    }
    case.fake.state().changes_left = None;
    let image = case.create(machine_image(2)).await.unwrap().image().clone();
    let ids = case.fake.state().ids.clone();
    assert!(ids.len() == 3 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(&ids[0][14..15], "5");
    case.fake.state().ids.clear();
    case.engine().delete(&ImageRef::of(&image)).await.unwrap();
    assert_ne!(case.fake.state().ids[0], ids[0]);
    // Made anew, the service answers with what is gone: then the next id is taken.
    case.fake.state().ids.clear();
    let again = case.create(machine_image(2)).await.unwrap();
    assert!(matches!(&again, Created::Made(anew) if anew.id != image.id), "{again:?}");
    let anew = case.fake.state().ids.clone();
    assert!(anew.len() == 2 && anew[0] == ids[0] && anew[1] != ids[0], "{anew:?}");
}
