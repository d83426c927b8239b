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

#[tokio::test]
async fn a_disk_that_is_taken_up_says_so_and_is_not_one_that_was_used() {
    let world = World::new();
    let request = of(&world, world.request(0)).await;
    let only = RebuildRequest { disks_only: true, ..request.clone() };
    let made = rebuild(&world, &only).await.unwrap();
    assert!(made.disks.iter().all(|disk| disk.taken_up.is_none()));
    world.pass(5);
    let again = rebuild(&world, &only).await.unwrap();
    let is_of_before = |made: Timestamp| {
        made >= noon(0) && made < world.now() - jiff::SignedDuration::from_mins(4)
    };
    let is_taken_up = again.disks.iter().all(|disk| disk.taken_up.is_some_and(is_of_before));
    assert!(is_taken_up, "{again:?}");
    // Somebody makes a machine over them that writes to them.
    let machine = world.ask("GET", super::world::WEB_1, None).await;
    let disk = |index: usize| json!({"diskId": made.disks[index].id});
    let body = json!({
        "folderId": "p", "name": "another", "zoneId": machine["zoneId"],
        "bootDiskSpec": disk(0), "secondaryDiskSpecs": [disk(1)],
    });
    world.ask("POST", "compute/v1/instances", Some(body)).await;
    for wanted in [&only, &request] {
        let used = rebuild(&world, wanted).await;
        let Err(EngineError::Refused(why)) = &used else { panic!("{used:?}") };
        assert!(why.contains("was made of the image at 2026-11-21T12:0"), "{why}");
    }
}

#[tokio::test]
async fn no_machine_starts_from_a_disk_of_data() {
    let world = World::new();
    let mut data = world.request(0);
    data.create.disks = vec!["content".to_owned()];
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
