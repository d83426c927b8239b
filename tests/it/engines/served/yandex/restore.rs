//! Machines that are made again: what is in the way, and what is taken up.

use stillframe::engine::{CreateRequest, RebuildRequest, Rebuilt, Unwatched};
use stillframe::plan::ImageRef;

use super::super::*;
use super::world::World;

/// What is asked for of a restore point that was made.
async fn of(world: &World, request: CreateRequest) -> RebuildRequest {
    let created = world.create(request).await.unwrap();
    RebuildRequest {
        image: ImageRef::of(created.image()),
        name: "web-9".to_owned(),
        disks: Vec::new(),
        disks_only: false,
        like: None,
        zone: None,
        machine_type: None,
        labels: std::collections::BTreeMap::new(),
    }
}

async fn rebuild(world: &World, request: &RebuildRequest) -> Result<Rebuilt, EngineError> {
    let engine = world.engine();
    engine.rebuild().unwrap().rebuild(request.clone(), Arc::new(Unwatched)).await
}

#[tokio::test]
async fn a_disk_of_that_name_that_is_another_one_is_in_the_way() {
    let world = World::new();
    let request = of(&world, world.request(0)).await;
    let machine = world.ask("GET", super::world::WEB_1, None).await;
    let zone = machine["zoneId"].as_str().unwrap();
    let size = (1_u64 << 30).to_string();
    let disk = json!({"folderId": "p", "name": "web-9-boot", "zoneId": zone, "size": size});
    world.ask("POST", "compute/v1/disks", Some(disk)).await;
    let taken = rebuild(&world, &request).await;
    assert_eq!(taken, Err(EngineError::NameTaken("web-9-boot".to_owned())));
}

/// The disks of the restored machine, as the service shows them.
async fn disks(world: &World) -> Vec<Value> {
    let listed = world.ask("GET", "compute/v1/disks?folderId=p", None).await;
    let all = listed["disks"].as_array().cloned().unwrap_or_default();
    let is_its = |disk: &Value| disk["name"].as_str().is_some_and(|name| name.starts_with("web-9"));
    all.into_iter().filter(is_its).collect()
}

fn is_marked(disk: &Value) -> bool {
    !disk["labels"]["stillframe-restore"].is_null()
}

/// The id of the restored machine.
async fn machine(world: &World) -> Option<String> {
    let listed = world.ask("GET", "compute/v1/instances?folderId=p", None).await;
    let all = listed["instances"].as_array().cloned().unwrap_or_default();
    let found = all.iter().find(|one| one["name"] == "web-9");
    found.map(|one| one["id"].as_str().unwrap().to_owned())
}

fn refused(came: &Result<Rebuilt, EngineError>, part: &str) {
    let Err(EngineError::Refused(why)) = came else { panic!("{came:?}") };
    assert!(why.contains(part) && why.contains("another name (--name)"), "{part}: {why}");
}

/// Once disks were handed over nobody knows what is on them.
#[tokio::test]
async fn a_disk_that_may_have_been_used_is_not_taken_up() {
    let world = World::new();
    let request = of(&world, world.request(0)).await;
    let only = RebuildRequest { disks_only: true, ..request.clone() };
    let made = rebuild(&world, &only).await.unwrap();
    assert!(made.disks.iter().all(|disk| disk.taken_up.is_none()));
    assert!(!disks(&world).await.iter().any(is_marked));
    for wanted in [&only, &request] {
        refused(&rebuild(&world, wanted).await, "by a restore that has ended");
    }
    // Somebody makes a machine over them that writes to them, and takes it away again.
    let like = world.ask("GET", super::world::WEB_1, None).await;
    let disk = |index: usize| json!({"diskId": made.disks[index].id});
    let body = json!({
        "folderId": "p", "name": "another", "zoneId": like["zoneId"],
        "bootDiskSpec": disk(0), "secondaryDiskSpecs": [disk(1)],
    });
    let operation = world.ask("POST", "compute/v1/instances", Some(body)).await;
    for wanted in [&only, &request] {
        let used = rebuild(&world, wanted).await;
        refused(&used, "was made of the image at 2026-11-21T12:0");
        refused(&used, "has it");
    }
    let id = operation["metadata"]["instanceId"].as_str().unwrap();
    world.ask("DELETE", &format!("compute/v1/instances/{id}"), None).await;
    world.served.patient().pause(Duration::ZERO).await;
    assert!(disks(&world).await.iter().all(|disk| disk["instanceIds"].is_null()));
    for wanted in [&only, &request] {
        refused(&rebuild(&world, wanted).await, "by a restore that has ended");
    }
    // What is in the way of one disk is found before another one is made.
    let name = "web-9b".to_owned();
    let boot = RebuildRequest { name, disks: vec!["boot".to_owned()], ..only };
    assert_eq!(rebuild(&world, &boot).await.unwrap().disks.len(), 1);
    let all = RebuildRequest { disks: Vec::new(), ..boot };
    refused(&rebuild(&world, &all).await, "by a restore that has ended");
    assert_eq!(disks(&world).await.len(), 3);
}

/// Wherever a restore is killed, the same again ends it, and never over disks that were used.
#[tokio::test]
async fn a_restore_that_is_killed_is_ended_by_the_same_again() {
    let (mut kills, mut over_used, mut taken_up) = (0, 0, 0);
    for is_only in [true, false] {
        for at in 1.. {
            let world = World::new();
            let wanted =
                RebuildRequest { disks_only: is_only, ..of(&world, world.request(0)).await };
            let gate = super::gate::Gate::new(world.served.address);
            gate.state().frozen_at = Some(at);
            let (engine, request) = (world.engine_behind(&gate.url()), wanted.clone());
            let work = tokio::spawn(async move {
                engine.rebuild().unwrap().rebuild(request, Arc::new(Unwatched)).await
            });
            while !work.is_finished() && !gate.state().is_frozen {
                tokio::task::yield_now().await;
            }
            let was_killed = gate.state().is_frozen;
            work.abort();
            let ended = work.await;
            gate.state().frozen_at = None;
            if !was_killed {
                assert!(matches!(ended, Ok(Ok(_))), "{ended:?}");
                break;
            }
            kills += 1;
            world.served.patient().pause(Duration::ZERO).await;
            world.pass(1);
            let left = disks(&world).await;
            let was_handed_over = !left.is_empty() && !left.iter().any(is_marked);
            let again = rebuild(&world, &wanted).await;
            if let Some(id) = machine(&world).await.filter(|_| again.is_err()) {
                // It is there: the run before had asked for it.
                refused(&again, "has it");
                let were_marked = disks(&world).await.iter().any(is_marked);
                world.ask("DELETE", &format!("compute/v1/instances/{id}"), None).await;
                world.served.patient().pause(Duration::ZERO).await;
                world.pass(1);
                let over = rebuild(&world, &wanted).await;
                let why = if were_marked {
                    "a machine was made over its disks before"
                } else {
                    "by a restore that has ended"
                };
                refused(&over, why);
                let only = RebuildRequest { disks_only: true, ..wanted.clone() };
                refused(&rebuild(&world, &only).await, "by a restore that has ended");
                assert_eq!(machine(&world).await, None);
                over_used += usize::from(were_marked);
            } else if was_handed_over && again.is_err() {
                // It had ended but for the answer: nobody knows what is on them by now.
                assert!(is_only);
                refused(&again, "by a restore that has ended");
            } else {
                let rebuilt = again.unwrap_or_else(|error| panic!("killed at {at}: {error}"));
                taken_up += rebuilt.disks.iter().filter(|disk| disk.taken_up.is_some()).count();
                assert_eq!(rebuilt.instance.is_none(), is_only);
                assert_eq!(machine(&world).await, rebuilt.instance);
                assert!(!disks(&world).await.iter().any(is_marked), "killed at {at}");
            }
            assert_eq!(disks(&world).await.len(), 2, "killed at {at}");
        }
    }
    assert!(kills >= 12 && over_used >= 1 && taken_up >= 4, "{kills} {over_used} {taken_up}");
}

/// What a killed run has left is taken up for as long as the service surely knows its requests again,
/// and by nothing but the same restore.
#[tokio::test]
async fn what_was_begun_long_ago_or_for_something_else_is_not_taken_up() {
    for (minutes, is_other, part) in [
        (13 * 60, false, "more than 12 hours ago"),
        (1, true, "by a restore that has ended or is another one"),
    ] {
        let world = World::new();
        let wanted = RebuildRequest { disks_only: true, ..of(&world, world.request(0)).await };
        let gate = super::gate::Gate::new(world.served.address);
        let (engine, request) = (world.engine_behind(&gate.url()), wanted.clone());
        let work = tokio::spawn(async move {
            engine.rebuild().unwrap().rebuild(request, Arc::new(Unwatched)).await
        });
        while gate.asked("POST /compute/v1/disks").is_empty() {
            tokio::task::yield_now().await;
        }
        work.abort();
        let _ = work.await;
        // What was asked for is carried out all the same.
        while disks(&world).await.is_empty() {
            tokio::task::yield_now().await;
        }
        world.served.patient().pause(Duration::ZERO).await;
        let left = disks(&world).await;
        assert!(left.iter().all(is_marked), "{left:?}");
        world.pass(minutes);
        let again = RebuildRequest { disks_only: !is_other, ..wanted };
        refused(&rebuild(&world, &again).await, part);
    }
}

#[tokio::test]
async fn no_machine_starts_from_a_disk_of_data() {
    let world = World::new();
    let mut data = world.request(0);
    data.create.disks = vec!["content".to_owned()];
    data.create.excluded_disks = vec!["boot".to_owned()];
    let request = of(&world, data).await;
    let refused = rebuild(&world, &request).await;
    assert!(
        matches!(&refused, Err(EngineError::Refused(why)) if why.contains("make only the disks")),
        "{refused:?}"
    );
    let only = RebuildRequest { disks_only: true, ..request };
    let rebuilt = rebuild(&world, &only).await.unwrap();
    assert_eq!(rebuilt.disks[0].name, "web-9-disk");
    // One that a machine starts from says so, and is the only one of its image.
    let mut boot = world.request(-1);
    boot.create.disks = vec!["boot".to_owned()];
    boot.create.excluded_disks = vec!["content".to_owned()];
    boot.create.deadline = noon(1);
    let request = RebuildRequest { name: "web-8".to_owned(), ..of(&world, boot).await };
    assert!(rebuild(&world, &request).await.unwrap().instance.is_some());
}

#[tokio::test]
async fn a_machine_is_like_another_one_that_is_named() {
    let world = World::new();
    let request = of(&world, world.request(0)).await;
    let like = RebuildRequest { like: Some("web-2".to_owned()), ..request.clone() };
    let rebuilt = rebuild(&world, &like).await.unwrap();
    let of = |id: &str| format!("compute/v1/instances/{id}");
    let made = world.ask("GET", &of(rebuilt.instance.as_ref().unwrap()), None).await;
    let other = world.ask("GET", &of("7002"), None).await;
    assert_eq!((&made["platformId"], &made["zoneId"]), (&other["platformId"], &other["zoneId"]));
    let nobody =
        RebuildRequest { like: Some("web-7".to_owned()), name: "web-7".to_owned(), ..request };
    let refused = rebuild(&world, &nobody).await;
    assert!(
        matches!(&refused, Err(EngineError::Refused(why)) if why.contains("web-7")),
        "{refused:?}"
    );
}
