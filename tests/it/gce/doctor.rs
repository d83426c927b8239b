//! `doctor`: what is asked of the service, what is said of the answers, and the permissions that
//! requests need.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;
use stillframe::clock::FixedClock;
use stillframe::engine::{
    self, Attention, CopyRequest, Engine, Examined, Task, Topic, Unwatched, Verdict, Wanted,
};
use stillframe::inventory::{Grant, Image, ImageKind, LABEL_COPY, Stage, Via};
use stillframe::name::{Ownership, PolicyName};
use stillframe::plan::{Copy, ImageRef, Update};

use super::{Case, GceEngine, Swift, now, open, request, set};

/// Every permission that the roles have.
fn all() -> BTreeSet<String> {
    engine::roles().into_iter().flat_map(|role| role.included_permissions).collect()
}

struct House {
    case: Case,
    directory: tempfile::TempDir,
}

impl House {
    /// Everything is as it should be.
    fn new() -> Self {
        let case = Case::new();
        {
            let mut state = case.fake.state();
            "a-token".clone_into(&mut state.token);
            state.granted = all();
            state.granted.insert("serviceusage.services.use".to_owned());
            "Sat, 21 Nov 2026 12:00:23 GMT".clone_into(&mut state.date);
            state.quotas = json!([{"metric": "SNAPSHOTS", "limit": 1000.0, "usage": 7.0}]);
        }
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("token"), "a-token\n").unwrap();
        Self { case, directory }
    }

    fn engine(&self) -> GceEngine {
        self.engine_with(json!({"projects": ["p"], "quotaProject": "billed"}))
    }

    fn engine_with(&self, mut settings: serde_json::Value) -> GceEngine {
        settings["tokenFile"] = json!(self.directory.path().join("token"));
        let clock = Arc::new(FixedClock(now()));
        open(&self.case.fake, "cloud", clock, Arc::new(Swift::default()), settings).unwrap()
    }

    async fn examine(&self, tasks: &[Task]) -> Vec<Examined> {
        self.engine().examine(&Wanted { tasks: tasks.iter().copied().collect() }).await
    }
}

fn of(examined: &[Examined], topic: Topic) -> Vec<(Verdict, &str)> {
    let of = examined.iter().filter(|one| one.topic == topic);
    of.map(|one| (one.verdict, one.message.as_str())).collect()
}

#[tokio::test]
async fn what_is_well_is_said_to_be() {
    let house = House::new();
    let examined = house.examine(&Task::ALL).await;
    let wrong: Vec<_> = examined.iter().filter(|one| one.verdict != Verdict::Well).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    let topics: BTreeSet<Topic> = examined.iter().map(|one| one.topic).collect();
    let wanted =
        [Topic::Credentials, Topic::Endpoint, Topic::Clock, Topic::Permissions, Topic::Quota];
    assert_eq!(topics, BTreeSet::from(wanted));
    assert_eq!(of(&examined, Topic::Quota), [(Verdict::Well, "p: 7 of 1000 SNAPSHOTS")]);
    assert!(!format!("{examined:?}").contains("a-token"));
}

#[tokio::test]
async fn what_is_missing_is_named_by_what_it_is_for() {
    let house = House::new();
    house.case.fake.state().granted.retain(|name| !name.contains("delete"));
    let missing = "p: 3 of 12 to delete are missing: compute.images.delete, compute.machineImages.delete, compute.snapshots.delete";
    let all = house.examine(&Task::ALL).await;
    let permissions = of(&all, Topic::Permissions);
    assert!(permissions.contains(&(Verdict::Wrong, missing)), "{permissions:?}");
    assert!(permissions.contains(&(Verdict::Well, "p: all 9 to plan")), "{permissions:?}");
    // Who never deletes needs none of it.
    let plans = house.examine(&[Task::Plan, Task::Create]).await;
    assert!(of(&plans, Topic::Permissions).contains(&(Verdict::Note, missing)));
    house.case.fake.state().granted.clear();
    let plans = house.examine(&[Task::Plan]).await;
    let wrong = of(&plans, Topic::Permissions);
    assert_eq!(wrong.iter().filter(|(verdict, _)| *verdict == Verdict::Wrong).count(), 2);
    assert!(wrong.iter().any(|(_, message)| message.starts_with("billed: serviceusage.")));
}

#[tokio::test]
async fn a_project_of_images_is_asked_for_what_is_needed_there() {
    let house = House::new();
    let of_source = [
        "compute.disks.createSnapshot",
        "compute.disks.useReadOnly",
        "compute.instances.get",
        "compute.instances.useReadOnly",
        "compute.zoneOperations.get",
    ];
    house.case.fake.state().granted.retain(|name| !of_source.contains(&name.as_str()));
    let engine = house.engine_with(json!({"projects": ["p"], "imagesProject": "vault"}));
    let examined = engine.examine(&Wanted::default()).await;
    // How full a project is in which nothing is made matters to nobody.
    assert_eq!(of(&examined, Topic::Quota), [(Verdict::Well, "vault: 7 of 1000 SNAPSHOTS")]);
    let endpoints = of(&examined, Topic::Endpoint);
    assert!(endpoints[1].1.starts_with("vault answers"), "{endpoints:?}");
    let permissions = of(&examined, Topic::Permissions);
    assert!(permissions.contains(&(Verdict::Well, "vault: all 11 to create")), "{permissions:?}");
    let wrong: Vec<_> = permissions.iter().filter(|(it, _)| *it == Verdict::Wrong).collect();
    assert!(wrong[0].1.starts_with("p: 5 of 17 to create are"), "{wrong:?}");
    assert!(wrong[1].1.starts_with("p: 3 of 13 to create-via-snapshot are"), "{wrong:?}");
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    house.case.fake.state().granted.remove("compute.images.create");
    let permissions = engine.examine(&Wanted::default()).await;
    let missing = "vault: 1 of 11 to create are missing: compute.images.create";
    assert!(of(&permissions, Topic::Permissions).contains(&(Verdict::Wrong, missing)));
}

#[tokio::test]
async fn each_obstacle_has_its_remedy() {
    let house = House::new();
    let refuse = |path: &str, status: u16, body: serde_json::Value| {
        let mut state = house.case.fake.state();
        state.refusals.clear();
        state.refusals.insert(path.to_owned(), (status, json!({"error": body})));
    };
    let remedy = |examined: &[Examined], topic: Topic| -> String {
        let found = examined.iter().find(|one| one.topic == topic && one.verdict != Verdict::Well);
        let found = found.unwrap_or_else(|| panic!("{topic:?}: {examined:?}"));
        found.remedy.clone().unwrap()
    };
    refuse(
        "projects/p",
        403,
        json!({"code": 403, "message": "off", "errors": [{"reason": "accessNotConfigured"}]}),
    );
    let examined = house.examine(&Task::ALL).await;
    assert_eq!(
        remedy(&examined, Topic::Services),
        "gcloud services enable compute.googleapis.com --project=p"
    );
    refuse("projects/p", 404, json!({"code": 404, "message": "none"}));
    assert!(
        remedy(&house.examine(&Task::ALL).await, Topic::Settings).contains("the id of a project")
    );
    refuse(
        "projects/p",
        403,
        json!({"code": 403, "message": "no", "errors": [{"reason": "forbidden"}]}),
    );
    assert!(
        remedy(&house.examine(&Task::ALL).await, Topic::Permissions).contains("doctor --roles")
    );
    // Where it cannot be asked, nobody knows: that is not well.
    let off = json!({"code": 403, "message": "off", "status": "PERMISSION_DENIED", "details": [{"@type": "x", "reason": "SERVICE_DISABLED"}]});
    refuse("/v3/projects/p:testIamPermissions", 403, off);
    let examined = house.examine(&Task::ALL).await;
    assert_eq!(
        remedy(&examined, Topic::Permissions),
        "gcloud services enable cloudresourcemanager.googleapis.com --project=p"
    );
    assert_eq!(of(&examined, Topic::Permissions)[0].0, Verdict::Unknown);
    // A token that is not taken.
    house.case.fake.state().refusals.clear();
    house.case.fake.state().token = "another".to_owned();
    assert!(remedy(&house.examine(&Task::ALL).await, Topic::Credentials).contains("log in again"));
    std::fs::remove_file(house.directory.path().join("token")).unwrap();
    let examined = house.examine(&Task::ALL).await;
    assert_eq!(of(&examined, Topic::Credentials)[0].0, Verdict::Wrong);
    assert_eq!(of(&examined, Topic::Endpoint)[0].0, Verdict::Unknown);
    assert_eq!(examined.len(), 2);
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_found() {
    let house = House::new();
    for (date, verdict, message) in [
        ("Sat, 21 Nov 2026 12:00:11 GMT", Verdict::Well, "agrees"),
        ("Sat, 21 Nov 2026 12:00:40 GMT", Verdict::Note, "is 20 s behind"),
        ("Sat, 21 Nov 2026 11:58:20 GMT", Verdict::Wrong, "is 120 s ahead of"),
    ] {
        house.case.fake.state().date = date.to_owned();
        let examined = house.examine(&Task::ALL).await;
        let clock = of(&examined, Topic::Clock);
        assert_eq!(clock[0].0, verdict, "{clock:?}");
        assert!(clock[0].1.contains(message), "{clock:?}");
    }
    house.case.fake.state().date = String::new();
    assert!(of(&house.examine(&Task::ALL).await, Topic::Clock).is_empty());
}

/// What the service asks for beside the right to make an image: the right to read what it is of.
const IMPLIED: [&str; 3] =
    ["compute.disks.createSnapshot", "compute.disks.useReadOnly", "compute.instances.useReadOnly"];

/// The permissions that a request needs, by the rules of the service.
fn needed(line: &str, body: Option<&serde_json::Value>) -> Vec<String> {
    let (method, path) = line.split_once(' ').unwrap();
    let parts: Vec<&str> = path.split('/').collect();
    let one = |what: &str, verb: &str| vec![format!("compute.{what}.{verb}")];
    match (method, &parts[..]) {
        ("GET", ["projects", _]) => one("projects", "get"),
        ("GET", ["projects", _, "global", "snapshotSettings"]) => one("snapshotSettings", "get"),
        (
            "GET",
            ["projects", _, "aggregated" | "global", what]
            | ["projects", _, what @ "regions"]
            | ["projects", _, "regions", _, what],
        ) => one(what, "list"),
        ("POST", ["projects", _, "zones" | "regions", _, "disks", _, "createSnapshot"]) => {
            let mut needed = one("disks", "createSnapshot");
            needed.extend(one("snapshots", "create"));
            needed.extend(one("snapshots", "setLabels"));
            needed
        }
        ("GET", ["projects", _, "global", "operations", _]) => one("globalOperations", "get"),
        ("GET", ["projects", _, "zones", _, "operations", _]) => one("zoneOperations", "get"),
        ("GET", ["projects", _, "regions", _, "operations", _]) => one("regionOperations", "get"),
        (
            "GET",
            ["projects", _, "zones" | "regions", _, what, _] | ["projects", _, "global", what, _],
        ) => one(what, "get"),
        ("POST", ["projects", _, "global", what]) => {
            let mut needed = one(what, "create");
            if body.is_some_and(|body| body.get("sourceImage").is_some()) {
                needed.extend(one("images", "useReadOnly"));
            }
            if body.is_some_and(|body| body.get("sourceSnapshot").is_some()) {
                needed.extend(one("snapshots", "useReadOnly"));
            }
            if body.is_some_and(|body| body.get("labels").is_some()) {
                needed.extend(one(what, "setLabels"));
            }
            needed
        }
        (
            _,
            ["projects", _, "global", what, _, verb] | ["projects", _, "regions", _, what, _, verb],
        ) => one(what, verb),
        ("DELETE", ["projects", _, "global", what, _] | ["projects", _, "regions", _, what, _]) => {
            one(what, "delete")
        }
        _ => panic!(
            "no rule says what {line} needs: add it here and to the permissions of the engine"
        ),
    }
}

/// The permissions of what was asked since the last time.
fn drained(case: &Case) -> BTreeSet<String> {
    let mut state = case.fake.state();
    let mut bodies = std::mem::take(&mut state.bodies).into_iter();
    let lines = std::mem::take(&mut state.log);
    lines
        .iter()
        .flat_map(|line| {
            let body = line.starts_with("POST").then(|| bodies.next()).flatten();
            needed(line, body.as_ref())
        })
        .collect()
}

/// Copies a disk image.
async fn copied(case: &Case, original: &Image) {
    let Ownership::Ours(key) = original.ownership() else { panic!("{original:?}") };
    let mut labels = key.labels();
    labels.insert(LABEL_COPY.to_owned(), "yes".to_owned());
    let copy = Copy {
        name: key.copy_name("nightly", "eu"),
        location: "eu".to_owned(),
        kms_key: None,
        labels,
        sharing: None,
        replaces: None,
    };
    let asked = CopyRequest { key, image: ImageRef::of(original), copy, by: None };
    case.engine().copy(asked, Arc::new(Unwatched)).await.unwrap();
}

/// The permissions of changing who may use an image of each kind, and of looking at it.
async fn shares(case: &Case) -> BTreeSet<String> {
    let mut images = Vec::new();
    for (kind, hour) in
        [(ImageKind::MachineImage, 3), (ImageKind::DiskImage, 4), (ImageKind::Snapshot, 5)]
    {
        let created = case.engine().create(request(kind, hour), Arc::new(Unwatched)).await.unwrap();
        images.push(created.image().clone());
    }
    drained(case);
    let engine = case.engine();
    let policy = PolicyName::parse("nightly").unwrap();
    let roles = ["roles/compute.imageUser".to_owned()].into();
    engine.attend(&Attention { sharing: [(policy, roles)].into() });
    engine.observe().await;
    let grant =
        Grant { role: "roles/compute.imageUser".to_owned(), members: vec!["user:a@x".to_owned()] };
    for image in images {
        let given = Update { sharing: Some(vec![grant.clone()]), ..Update::default() };
        engine.update(&ImageRef::of(&image), &given).await.unwrap();
    }
    drained(case)
}

/// The permissions of making an image by way of a snapshot.
async fn vias(case: &Case) -> BTreeSet<String> {
    let mut asked = request(ImageKind::DiskImage, 6);
    asked.create.via = Via::Snapshot;
    case.engine().create(asked, Arc::new(Unwatched)).await.unwrap();
    let mut needed = drained(case);
    // Disks of a zone and of a region are captured by an operation of it.
    for scope in ["zone", "region"] {
        needed.insert(format!("compute.{scope}Operations.get"));
    }
    needed
}

#[tokio::test]
async fn the_roles_are_what_the_requests_need_and_no_more() {
    let case = Case::new();
    let engine = case.engine();
    let kinds = [ImageKind::MachineImage, ImageKind::DiskImage, ImageKind::Snapshot];
    engine.observe().await;
    let plans = drained(&case);
    let mut images = Vec::new();
    for kind in kinds {
        // Each by a run of its own: a source is not captured three times in a row.
        let created = case.engine().create(request(kind, 2), Arc::new(Unwatched)).await.unwrap();
        images.push(created.image().clone());
    }
    let original = images.iter().find(|image| image.kind == ImageKind::DiskImage).unwrap();
    copied(&case, original).await;
    // Disks of a region are captured by an operation of it.
    let instance = "projects/p/zones/us-a/instances/web-1";
    case.fake.state().make_regional(instance, "us", "data");
    let regional = case.create(request(ImageKind::Snapshot, 3)).await.unwrap().image().clone();
    images.push(regional);
    let creates = drained(&case);
    // Snapshots of a region are deleted by an operation of it; the engine makes none.
    case.regional_snapshot(images.last_mut().unwrap(), "us");
    for image in images {
        let deprecation = Update {
            stage_before: Stage::Active,
            stage_after: Stage::Deprecated,
            ..set("stillframe-let-go", "20261121t120020z")
        };
        let image = engine.update(&ImageRef::of(&image), &deprecation).await.unwrap();
        engine.delete(&ImageRef::of(&image)).await.unwrap();
    }
    let deletes = drained(&case);
    let shares = shares(&case).await;
    let via = vias(&case).await;
    let tasks = [
        (Task::Plan, plans.clone()),
        (Task::Create, creates),
        (Task::Delete, deletes),
        (Task::Share, shares),
        (Task::ViaSnapshot, via),
    ];
    for (task, mut wanted) in tasks {
        wanted.extend(plans.clone());
        if task == Task::Create {
            wanted.extend(IMPLIED.map(str::to_owned));
        }
        let role = engine::roles().into_iter().find(|role| role.task == task).unwrap();
        let has: BTreeSet<String> = role.included_permissions.into_iter().collect();
        assert_eq!(has, wanted, "{task:?}");
    }
}
