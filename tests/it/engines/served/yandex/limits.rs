//! What a folder takes at once, and sets of which some were made later than the others.

use futures_util::future::join_all;
use stillframe::engine::set;
use stillframe::engine::{CreateRequest, Created, Progress, Unwatched, Watcher};

use super::super::*;
use super::world::World;

fn slow_operations(times: u32) -> Value {
    json!({"fault": "slow-operation", "times": times})
}

fn crowded(fault: &str, times: u32) -> Value {
    json!({"fault": fault, "collection": "snapshots", "times": times})
}

/// Requests for slots of as many days, none of which is late.
fn many(world: &World, days: std::ops::Range<i64>) -> Vec<CreateRequest> {
    let one = |day: i64| {
        let mut request = world.request(-day);
        request.create.deadline = noon(30);
        request
    };
    days.map(one).collect()
}

#[tokio::test]
async fn on_a_busy_night_no_set_is_split() {
    let world = World::new();
    world.fault(slow_operations(250)).await;
    world.ticking.held.send_replace(true);
    let engine = world.engine();
    // One disk is captured first: of the eleven places that are left, no set can have the last.
    let mut single = world.request(-9);
    single.create.deadline = noon(30);
    single.create.excluded_disks = single.create.disks.split_off(1);
    let single = engine.create(single, Arc::new(Unwatched));
    let sets = async {
        while world.snapshots().await < 1 {
            tokio::task::yield_now().await;
        }
        world.ticking.held.send_replace(false);
        let sets = many(&world, 0..9).into_iter();
        join_all(sets.map(|request| engine.create(request, Arc::new(Unwatched)))).await
    };
    let (single, sets) = tokio::join!(single, sets);
    let took = world.now().duration_since(noon(0));
    assert!(took > jiff::SignedDuration::from_mins(10), "nothing had to wait: {took}");
    for created in sets.into_iter().chain([single]) {
        assert_eq!(created.unwrap().image().state, ImageState::Ready);
    }
    assert_eq!(world.states().await, [ImageState::Ready; 10]);
}

/// Tells that it waits.
#[derive(Default)]
struct Waits(tokio::sync::Notify);

impl Watcher for Waits {
    fn progress(&self, _: Progress) {}

    fn waits(&self, why: &str) {
        assert_eq!(why, "other operations of its folder");
        self.0.notify_one();
    }
}

#[tokio::test]
async fn what_had_to_wait_until_its_deadline_is_not_begun() {
    let world = World::new();
    world.fault(slow_operations(24)).await;
    world.ticking.held.send_replace(true);
    let engine = world.engine();
    let others = many(&world, 0..6).into_iter();
    let others = join_all(others.map(|request| engine.create(request, Arc::new(Unwatched))));
    let late = async {
        while world.snapshots().await < 12 {
            tokio::task::yield_now().await;
        }
        let mut request = world.request(-7);
        request.create.deadline = noon(0) + jiff::SignedDuration::from_mins(1);
        let waits = Arc::new(Waits::default());
        let create = engine.create(request, waits.clone());
        let release = async {
            waits.0.notified().await;
            world.pass(2);
            world.ticking.held.send_replace(false);
        };
        tokio::join!(create, release).0
    };
    let (others, late) = tokio::join!(others, late);
    assert!(matches!(&late, Err(EngineError::Busy(why)) if why.contains("deadline")), "{late:?}");
    assert!(others.iter().all(Result::is_ok));
    assert_eq!(world.snapshots().await, 12);
}

#[tokio::test]
async fn operations_of_others_are_waited_for() {
    for (fault, times) in [("operations-limit", 40), ("operations-limit-in-operation", 5)] {
        let world = World::new();
        world.fault(crowded(fault, times)).await;
        let created = world.create(world.request(0)).await;
        assert!(matches!(created, Ok(Created::Made(_))), "{fault}: {created:?}");
        assert_eq!(world.states().await, [ImageState::Ready], "{fault}");
        assert_eq!(world.snapshots().await, 2);
    }
}

/// The service takes it again soon after the deadline. Nobody waits for that.
#[tokio::test]
async fn what_is_refused_is_asked_for_until_the_deadline_and_not_after_it() {
    // So many refusals as end seconds after the deadline. For its rate the service says seven seconds; for
    // too many operations it is waited for 1 to 30 seconds, twelve times, and then for ten.
    for (fault, seconds, times) in
        [("rate-limit", 60, 9), ("operations-limit", 60, 6), ("operations-limit", 900, 48)]
    {
        let world = World::new();
        let mut request = world.request(0);
        request.create.excluded_disks = request.create.disks.split_off(1);
        let deadline = noon(0) + jiff::SignedDuration::from_secs(seconds);
        request.create.deadline = deadline;
        world.fault(json!({"fault": fault, "collection": "snapshots", "method": "POST", "times": times})).await;
        let late = world.create(request.clone()).await;
        let Err(EngineError::Busy(why)) = &late else { panic!("{fault}: {late:?}") };
        assert!(why.contains("deadline") && why.contains("limit"), "{fault}: {why}");
        let left = deadline.duration_since(world.now());
        assert!((0..=30).contains(&left.as_secs()), "{fault}: {left}");
        assert_eq!(world.snapshots().await, 0, "{fault}");
        // With a little more time it is made by the same run.
        world.fault(json!({"fault": fault, "times": 0})).await;
        let world = World::new();
        request.create.deadline = deadline + jiff::SignedDuration::from_mins(5);
        world.fault(json!({"fault": fault, "collection": "snapshots", "method": "POST", "times": times})).await;
        let created = world.create(request).await;
        assert!(matches!(created, Ok(Created::Made(_))), "{fault}: {created:?}");
        assert!(world.now() > deadline, "{fault}: the fault ends after the deadline");
    }
}

/// An answer is lost, and by the deadline nobody has said whether it was carried out: it is looked.
#[tokio::test]
async fn what_was_begun_in_time_is_found_after_the_deadline() {
    let world = World::new();
    let mut request = world.request(0);
    request.create.excluded_disks = request.create.disks.split_off(1);
    request.create.deadline = noon(0) + jiff::SignedDuration::from_millis(500);
    world.fault(json!({"fault": "reply-lost", "collection": "snapshots", "method": "POST"})).await;
    let created = world.create(request).await;
    assert!(matches!(created, Ok(Created::Found { .. })), "{created:?}");
    assert_eq!(world.states().await, [ImageState::Ready]);
}

/// A set of which a run has made one half.
async fn half(world: &World) -> CreateRequest {
    world.fault(crowded("quota-in-operation", 1)).await;
    let failed = world.create(world.request(0)).await;
    assert!(matches!(failed, Err(EngineError::Refused(_))), "{failed:?}");
    assert_eq!(world.snapshots().await, 1);
    world.request(0)
}

#[tokio::test]
async fn half_a_set_is_made_whole_within_minutes_and_not_later() {
    for (minutes, is_whole) in [(8, true), (11, false), (59, false)] {
        let world = World::new();
        let request = half(&world).await;
        world.pass(minutes);
        let came = world.create(request).await;
        if is_whole {
            assert!(matches!(came, Ok(Created::Made(_) | Created::Found { .. })), "{came:?}");
            assert_eq!(world.states().await, [ImageState::Ready]);
        } else {
            let Err(EngineError::Failed(why)) = &came else { panic!("{minutes}: {came:?}") };
            assert!(why.contains("a run before has begun it"), "{why}");
            assert_eq!(world.snapshots().await, 1);
        }
    }
}

#[tokio::test]
async fn half_a_set_that_had_to_wait_is_not_made_whole() {
    let world = World::new();
    let request = half(&world).await;
    world.pass(5);
    world.fault(crowded("operations-limit", 10_000)).await;
    let came = world.create(request).await;
    assert!(matches!(&came, Err(EngineError::Busy(_))), "{came:?}");
    let passed = world.now().duration_since(noon(0));
    assert!(passed < jiff::SignedDuration::from_mins(20), "{passed}");
    assert_eq!(world.snapshots().await, 1);
}

/// One half is eight minutes old: the other one has a minute left, and would be taken after it.
#[tokio::test]
async fn half_a_set_that_is_refused_is_not_made_whole_after_its_time() {
    for (times, is_whole) in [(7, true), (9, false)] {
        let world = World::new();
        let request = half(&world).await;
        let began = world.engine().observe().await.images[0].created_at;
        *world.served.clock.0.lock().unwrap() = began + jiff::SignedDuration::from_mins(8);
        world.fault(json!({"fault": "rate-limit", "collection": "snapshots", "method": "POST", "times": times})).await;
        let came = world.create(request).await;
        if is_whole {
            assert!(matches!(came, Ok(Created::Made(_) | Created::Found { .. })), "{came:?}");
        } else {
            assert!(
                matches!(&came, Err(EngineError::Busy(why)) if why.contains("set")),
                "{came:?}"
            );
            assert_eq!(world.snapshots().await, 1);
            assert!(world.now() <= began + jiff::SignedDuration::from_mins(9));
        }
    }
}

#[tokio::test]
async fn what_is_no_restore_point_is_not_told_as_one() {
    let world = World::new();
    let request = half(&world).await;
    world.pass(30);
    // Somebody makes the other half by hand.
    let parts = set::parts(&request.name, &request.create.labels, &request.create.disks);
    let there = world.ask("GET", "compute/v1/snapshots?folderId=p", None).await;
    let machine = world.ask("GET", super::world::WEB_1, None).await;
    let part =
        parts.iter().find(|part| there["snapshots"][0]["name"] != part.name.as_str()).unwrap();
    let disk = if machine["bootDisk"]["deviceName"] == part.disk.as_str() {
        &machine["bootDisk"]["diskId"]
    } else {
        &machine["secondaryDisks"][0]["diskId"]
    };
    let body = json!({"folderId": "p", "diskId": disk, "name": part.name, "labels": part.labels});
    world.ask("POST", "compute/v1/snapshots", Some(body)).await;
    while world.states().await == [ImageState::Creating] {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.states().await, [ImageState::Partial]);
    let came = world.create(request).await;
    assert!(matches!(&came, Err(EngineError::Failed(why)) if why.contains("apart")), "{came:?}");
}
