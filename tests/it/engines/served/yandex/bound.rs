//! Changes and deletes are made only where all is as it was seen, whatever happens while they wait.

use std::collections::BTreeMap;

use stillframe::engine::{Created, RebuildRequest, Unwatched};
use stillframe::inventory::LABEL_LET_GO;
use stillframe::plan::{ImageRef, Update};

use super::super::*;
use super::world::{Deed, WEB_1, World, add_labels, ask, labels, turn};

/// What a request of that kind finds first, each waited for.
const FAULTS: [&str; 3] = ["rate-limit", "unavailable", "operations-limit"];

fn refused(fault: &str, method: &str, collection: &str) -> Value {
    json!({"fault": fault, "method": method, "collection": collection})
}

async fn made(world: &World) -> Image {
    world.create(world.request(0)).await.unwrap().image().clone()
}

/// The paths of the snapshots that a set is made of.
fn members(image: &Image) -> Vec<String> {
    let ids = stillframe::engine::set::member_ids(&image.id);
    ids.iter()
        .map(|id| format!("compute/v1/snapshots/{}", id.rsplit('/').next().unwrap()))
        .collect()
}

/// Has somebody add labels at the next pause.
fn adds(world: &World, path: &str, more: &'static [(&str, &str)]) {
    let path = path.to_owned();
    world.at_pause(move |address| async move { add_labels(address, &path, more).await });
}

#[tokio::test]
async fn a_hold_that_is_set_while_a_delete_waits_is_heard() {
    for fault in FAULTS {
        // On the one that is deleted, or on the other one of its set.
        for held in 0..2 {
            let world = World::new();
            let image = made(&world).await;
            adds(&world, &members(&image)[held], &[(LABEL_HOLD, "yes")]);
            world.fault(refused(fault, "DELETE", "snapshots")).await;
            let ended = world.engine().delete(&ImageRef::of(&image)).await;
            assert_eq!(ended, Err(EngineError::Changed), "{fault} {held}");
            let seen = world.engine().observe().await.images;
            assert_eq!((seen.len(), seen[0].state), (1, ImageState::Ready), "{fault} {held}");
            assert!(seen[0].id == image.id && seen[0].is_held(world.now()), "{seen:#?}");
        }
    }
}

#[tokio::test]
async fn each_of_a_set_is_looked_at_before_its_own_delete() {
    let world = World::new();
    let image = made(&world).await;
    // While it is waited for the end of the first, or for the next.
    adds(&world, &members(&image)[1], &[(LABEL_HOLD, "yes")]);
    let script =
        json!({"fault": "rate-limit", "method": "DELETE", "collection": "snapshots", "after": 1});
    world.fault(script).await;
    let ended = world.engine().delete(&ImageRef::of(&image)).await;
    assert_eq!(ended, Err(EngineError::Changed));
    let seen = world.engine().observe().await.images;
    assert!(seen.len() == 1 && seen[0].is_held(world.now()), "{seen:#?}");
}

#[tokio::test]
async fn what_is_used_since_a_delete_waits_is_not_deleted() {
    let world = World::new();
    let image = made(&world).await;
    let snapshot = members(&image)[0].rsplit('/').next().unwrap().to_owned();
    let zone = world.ask("GET", WEB_1, None).await["zoneId"].clone();
    let size = world.ask("GET", &members(&image)[0], None).await["diskSize"].clone();
    let disk = json!({"folderId": "p", "name": "rescue", "zoneId": zone, "size": size, "snapshotId": snapshot});
    world.meanwhile([("POST", "compute/v1/disks".to_owned(), disk)]);
    let script = json!({"fault": "rate-limit", "method": "DELETE", "times": 2});
    world.fault(script).await;
    let ended = world.engine().delete(&ImageRef::of(&image)).await;
    let Err(EngineError::Refused(why)) = &ended else { panic!("{ended:?}") };
    assert!(why.contains("in use by disk rescue"), "{why}");
    assert_eq!(world.states().await, [ImageState::Ready]);
}

#[tokio::test]
async fn what_is_gone_after_a_lost_answer_was_deleted() {
    let world = World::over(Served::yandex_with_disk_images());
    let image = made(&world).await;
    world.fault(json!({"fault": "reply-lost", "method": "DELETE"})).await;
    let engine = world.engine();
    assert_eq!(engine.delete(&ImageRef::of(&image)).await, Ok(()));
    assert_eq!(engine.delete(&ImageRef::of(&image)).await, Err(EngineError::NotFound));
}

fn deprecate() -> Update {
    Update {
        stage_after: Stage::Deprecated,
        set_labels: BTreeMap::from([(LABEL_LET_GO.to_owned(), "20261121t120000z".to_owned())]),
        ..Update::default()
    }
}

#[tokio::test]
async fn a_hold_that_is_set_while_a_change_waits_is_heard() {
    for fault in FAULTS {
        let world = World::new();
        let image = made(&world).await;
        adds(&world, &members(&image)[0], &[(LABEL_HOLD, "yes"), ("colour", "blue")]);
        world.fault(refused(fault, "PATCH", "snapshots")).await;
        let ended = world.engine().update(&ImageRef::of(&image), &deprecate()).await;
        assert_eq!(ended, Err(EngineError::Changed), "{fault}");
        let seen = world.engine().observe().await.images;
        assert!(seen[0].is_held(world.now()) && seen[0].let_go_at().is_none(), "{seen:#?}");
        assert_eq!(seen[0].stage, Stage::Active);
        let labels = &world.ask("GET", &members(&image)[0], None).await["labels"];
        assert_eq!(labels["colour"], "blue", "{fault}");
    }
}

#[tokio::test]
async fn labels_that_say_nothing_to_a_plan_are_kept_while_a_change_waits() {
    for fault in FAULTS {
        let world = World::over(Served::yandex_with_disk_images());
        let image = made(&world).await;
        let path = format!("compute/v1/images/{}", image.id.rsplit('/').next().unwrap());
        adds(&world, &path, &[("colour", "blue")]);
        world.fault(refused(fault, "PATCH", "images")).await;
        let after = world.engine().update(&ImageRef::of(&image), &deprecate()).await.unwrap();
        assert_eq!((after.stage, after.labels["colour"].as_str()), (Stage::Deprecated, "blue"));
        assert!(after.let_go_at().is_some());
    }
}

/// It is of a machine that stood still, and somebody wants to keep it.
#[tokio::test]
async fn a_hold_on_a_snapshot_that_is_not_proven_yet_stays() {
    let world = World::new();
    let mut request = world.stopped(0);
    request.create.excluded_disks = request.create.disks.split_off(1);
    world.fault(refused("rate-limit", "PATCH", "snapshots")).await;
    world.while_refused(|address| async move {
        let listed = ask(address, "GET", "compute/v1/snapshots?folderId=p", None).await;
        let id = listed["snapshots"][0]["id"].as_str().unwrap().to_owned();
        let path = format!("compute/v1/snapshots/{id}");
        add_labels(address, &path, &[(LABEL_HOLD, "yes"), ("team", "shop")]).await;
    });
    let created = world.create(request).await.unwrap();
    assert_eq!(
        (created.image().state, created.image().labels["team"].as_str()),
        (ImageState::Ready, "shop")
    );
    let seen = world.engine().observe().await.images;
    assert!(seen[0].is_held(world.now()), "{seen:#?}");
}

/// What is done while the engine waits to change the labels of a machine, or to stop or start it.
async fn while_waiting(world: &World, method: &str, after: u32, deed: Deed) {
    let script =
        json!({"fault": "rate-limit", "collection": "instances", "method": method, "after": after});
    world.fault(script).await;
    world.while_refused(move |address| async move {
        let (method, path, body) = deed;
        ask(address, method, &path, Some(&body)).await;
    });
}

#[tokio::test]
async fn labels_of_a_machine_that_are_set_while_its_own_wait_stay() {
    for fault in FAULTS {
        let world = World::new();
        world.fault(refused(fault, "PATCH", "instances")).await;
        world.meanwhile([labels(&json!({"role": "web", "env": "production"}))]);
        let created = world.create(world.stopped(0)).await;
        assert!(matches!(created, Ok(Created::Made(_))), "{fault}: {created:?}");
        assert_eq!(world.machine().await.labels["env"], "production", "{fault}");
        assert!(world.runs().await);
    }
}

/// The machine runs again, and before that is written down another run begins to capture it.
#[tokio::test]
async fn the_promise_of_another_run_is_not_taken_back() {
    let world = World::new();
    let theirs = json!({"role": "web", "stillframe-restart": "20261121t180000z"});
    while_waiting(&world, "PATCH", 1, labels(&theirs)).await;
    let created = world.create(world.stopped(0)).await;
    assert!(created.is_ok(), "{created:?}");
    assert_eq!(world.machine().await.labels["stillframe-restart"], "20261121t180000z");
}

#[tokio::test]
async fn a_machine_that_somebody_stops_while_its_stop_waits_is_not_started() {
    let world = World::new();
    while_waiting(&world, "POST", 0, turn("stop")).await;
    let came = world.create(world.stopped(0)).await;
    let Err(EngineError::Busy(why)) = &came else { panic!("{came:?}") };
    assert!(why.contains("web-1"), "{why}");
    let machine = world.machine().await;
    assert_eq!(machine.status, "STOPPED");
    assert!(!machine.labels.contains_key("stillframe-restart"), "{:?}", machine.labels);
    assert_eq!(world.snapshots().await, 0);
}

/// Another run has kept the promise, and then somebody has stopped the machine for good.
#[tokio::test]
async fn a_machine_whose_promise_is_gone_is_not_started_after_a_wait() {
    let world = World::new();
    while_waiting(&world, "POST", 1, labels(&json!({"role": "web"}))).await;
    let created = world.create(world.stopped(0)).await;
    assert!(created.is_ok(), "{created:?}");
    assert_eq!(world.machine().await.status, "STOPPED");
}

#[tokio::test]
async fn labels_of_a_restored_disk_that_are_set_while_its_own_wait_stay() {
    let world = World::new();
    let image = made(&world).await;
    let request = RebuildRequest {
        image: ImageRef::of(&image),
        name: "web-9".to_owned(),
        disks: vec!["boot".to_owned()],
        disks_only: true,
        like: None,
        zone: None,
        machine_type: None,
        labels: BTreeMap::new(),
    };
    world.fault(refused("rate-limit", "PATCH", "disks")).await;
    world.while_refused(|address| async move {
        let disk = restored(address).await;
        let path = format!("compute/v1/disks/{}", disk["id"].as_str().unwrap());
        add_labels(address, &path, &[("team", "shop")]).await;
    });
    let engine = world.engine();
    let rebuilt = engine.rebuild().unwrap().rebuild(request, Arc::new(Unwatched)).await;
    assert_eq!(rebuilt.unwrap().disks.len(), 1);
    let labels = &restored(world.served.address).await["labels"];
    assert!(labels["team"] == "shop" && labels["stillframe-restore"].is_null(), "{labels}");
}

/// The disk of the restored machine, as the service shows it.
async fn restored(address: std::net::SocketAddr) -> Value {
    let listed = ask(address, "GET", "compute/v1/disks?folderId=p", None).await;
    let all = listed["disks"].as_array().cloned().unwrap_or_default();
    let is_it = |disk: &Value| disk["name"].as_str().is_some_and(|it| it.starts_with("web-9"));
    all.into_iter().find(is_it).unwrap()
}
