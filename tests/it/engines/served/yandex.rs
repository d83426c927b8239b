//! What may go wrong between the engine for Yandex Cloud and the server: each fault costs nothing, and
//! the run after it has nothing to do.

mod bound;
mod copies;
mod credentials;
mod folders;
mod gate;
mod imports;
mod limits;
mod restore;
mod stopped;
mod world;

use super::*;
use world::ask;

/// What goes wrong, each on a day on which two points are made, two let go and two deleted.
macro_rules! troubles {
    ($($name:ident($($script:expr),+))*) => {
        $(
            mod $name {
                use super::*;

                #[tokio::test]
                async fn with_sets_of_snapshots() {
                    check(Served::yandex()).await;
                }

                #[tokio::test]
                async fn with_disk_images() {
                    check(Served::yandex_with_disk_images()).await;
                }

                async fn check(served: Served) {
                    let trouble = Trouble::over(served).await;
                    trouble.case.round(2).await;
                    trouble.day(3, &[$($script),+]).await;
                    trouble.ends_well(3).await;
                }
            }
        )*
    };
}

troubles! {
    an_answer_about_a_new_image_is_lost(json!({"fault": "reply-lost", "method": "POST", "times": 2}))
    answers_about_deleted_images_are_lost(json!({"fault": "reply-lost", "method": "DELETE", "times": 2}))
    answers_about_changed_labels_are_lost(json!({"fault": "reply-lost", "method": "PATCH", "times": 2}))
    the_service_is_away_and_comes_back(json!({"fault": "unavailable", "times": 3}))
    there_are_too_many_requests(json!({"fault": "rate-limit", "times": 6}))
    operations_take_their_time(json!({"fault": "slow-operation", "times": 20}))
    an_error_before_the_end_is_not_the_end(json!({"fault": "early-error", "times": 20}))
    // All of a day: half a set would count as being made for an hour.
    an_image_that_was_made_is_gone(json!({"fault": "vanishing-image", "collection": "images", "times": 2}), json!({"fault": "vanishing-image", "collection": "snapshots", "times": 4}))
}

async fn after_two_days(served: Served) -> Trouble {
    let trouble = Trouble::over(served).await;
    trouble.case.round(2).await;
    trouble
}

/// A run within the same moment is answered with what became of the first; a later one asks anew.
#[tokio::test]
async fn new_images_fail_in_their_operations() {
    let trouble = after_two_days(Served::yandex()).await;
    trouble.day(3, &[json!({"fault": "quota-in-operation", "times": 4})]).await;
    trouble.ends_well(4).await;
}

#[tokio::test]
async fn a_list_that_does_not_end_is_a_gap_and_deletes_nothing() {
    for fault in ["page-loop", "vanished-page"] {
        let trouble = after_two_days(Served::yandex()).await;
        let scripts = match fault {
            "page-loop" => vec![json!({"fault": fault, "collection": "snapshots", "times": 100})],
            _ => vec![
                json!({"fault": "short-page", "collection": "snapshots", "times": 4}),
                json!({"fault": fault, "times": 1}),
            ],
        };
        for script in &scripts {
            trouble.served.fault(script.clone()).await;
        }
        let inventory = trouble.case.observe(3).await;
        assert!(!inventory.is_complete(), "{fault}: nobody says so");
        if fault == "page-loop" {
            assert!(inventory.gaps[0].message.contains("read before"), "{:?}", inventory.gaps);
        }
        let round = trouble.day(3, &scripts).await;
        assert_eq!((round.plan.summary.deprecate, round.plan.summary.delete), (0, 0), "{fault}");
        // Until nothing is left of the fault.
        for _ in 0..if fault == "page-loop" { 200 } else { 0 } {
            ask(trouble.served.address, "GET", "compute/v1/snapshots?folderId=p", None).await;
        }
        trouble.ends_well(3).await;
    }
}

#[tokio::test]
async fn short_pages_are_read_to_the_end() {
    let trouble = after_two_days(Served::yandex()).await;
    let before = trouble.case.observe(2).await;
    trouble.served.fault(json!({"fault": "short-page", "times": 60})).await;
    let inventory = trouble.case.observe(2).await;
    assert!(inventory.is_complete(), "{:?}", inventory.gaps);
    assert_eq!(inventory.images, before.images);
}

/// A service where names may be there twice makes one snapshot too many.
#[tokio::test]
async fn a_second_snapshot_of_a_disk_stands_in_nobodys_way() {
    let trouble = after_two_days(Served::yandex()).await;
    trouble.day(3, &[json!({"fault": "duplicate", "times": 1})]).await;
    trouble.case.nothing_to_do(3).await;
    let count = |images: &[Image], state| images.iter().filter(|one| one.state == state).count();
    let images = trouble.case.observe(3).await.images;
    assert_eq!((count(&images, ImageState::Ready), count(&images, ImageState::Unknown)), (6, 1));
    // The set it stands beside is let go and deleted, and what is left then is cleared away.
    for day in 4..9 {
        for _ in 0..2 {
            trouble.case.round(day).await;
        }
        trouble.case.nothing_to_do(day).await;
    }
    let images = trouble.case.observe(8).await.images;
    assert_eq!((images.len(), count(&images, ImageState::Ready)), (6, 6), "{images:#?}");
}

#[tokio::test]
async fn of_two_images_of_one_slot_one_is_let_go() {
    let trouble = after_two_days(Served::yandex_with_disk_images()).await;
    trouble.day(3, &[json!({"fault": "duplicate", "times": 1})]).await;
    for day in 3..7 {
        trouble.case.round(day).await;
        trouble.case.nothing_to_do(day).await;
    }
    let images = trouble.case.observe(6).await.images;
    assert!(images.iter().all(|image| image.state == ImageState::Ready));
    assert_eq!(images.len(), 6, "{images:#?}");
}

/// Of a set of which one image was refused the next run makes what is missing, and nothing twice; what is
/// too old for that makes room for another attempt.
#[tokio::test]
async fn what_a_run_has_left_of_a_set_is_made_by_the_next_one() {
    for (minutes, state) in
        [(0, ImageState::Begun), (8, ImageState::Begun), (13, ImageState::Partial)]
    {
        let world = world::World::new();
        let engine = Arc::new(world.engine());
        let clock = world.served.clock.clone();
        let room = super::super::room(engine, clock, world.case.policies(), &world.case.directory);
        world.fault(json!({"fault": "forbidden", "method": "POST", "times": 1})).await;
        let round = room.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
        let ended = round.outcomes.iter().filter(|outcome| outcome.ending.is_done()).count();
        assert_eq!((round.outcomes.len(), ended), (2, 1));
        let snapshots = world.snapshots().await;
        world.pass(minutes);
        let states = world.states().await;
        assert!(states.contains(&state) && states.contains(&ImageState::Ready), "{states:?}");
        let round = room.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
        let create = round.plan.changes.iter().find_map(|change| change.create.as_ref()).unwrap();
        assert_eq!(create.replaces.is_some(), state == ImageState::Partial);
        assert!(round.outcomes.iter().all(|one| one.ending.is_done()), "{:?}", round.outcomes);
        assert_eq!(world.states().await, [ImageState::Ready; 2]);
        assert_eq!(world.snapshots().await, snapshots + 1);
        let round = room.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
        assert_eq!(round.plan.changes, []);
    }
}

/// Who is told to stop leaves what is made to the service, and the next run finds it.
#[tokio::test]
async fn what_an_interrupted_run_has_begun_is_taken_up_by_the_next_one() {
    #[derive(Default)]
    struct Enough(std::sync::atomic::AtomicBool);
    impl stillframe::engine::Watcher for Enough {
        fn progress(&self, _: stillframe::engine::Progress) {}
        fn is_cancelled(&self) -> bool {
            self.0.load(std::sync::atomic::Ordering::SeqCst)
        }
    }
    let world = world::World::new();
    world.fault(json!({"fault": "slow-image", "collection": "snapshots", "times": 60})).await;
    let engine = Arc::new(world.engine());
    let clock = world.served.clock.clone();
    let ids = |images: &[Image]| images.iter().map(|image| image.id.clone()).collect::<Vec<_>>();
    let watcher = Arc::new(Enough::default());
    let (came, ()) = tokio::join!(world.watched(world.request(0), watcher.clone()), async {
        while world.snapshots().await < 2 {
            tokio::task::yield_now().await;
        }
        watcher.0.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    assert_eq!(came, Err(EngineError::Interrupted));
    world.fault(json!({"fault": "slow-image", "collection": "snapshots", "times": 0})).await;
    let begun = world.engine().observe().await.images;
    let room = super::super::room(engine, clock, world.case.policies(), &world.case.directory);
    for _ in 0..2 {
        let round = room.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
        assert!(round.outcomes.iter().all(|one| one.ending.is_done()), "{:?}", round.outcomes);
        world.pass(1);
    }
    let after = world.engine().observe().await.images;
    assert!(after.iter().all(|image| image.state == ImageState::Ready), "{after:#?}");
    assert_eq!(after.len(), 2, "{after:#?}");
    assert!(ids(&after).iter().any(|id| ids(&begun).contains(id)), "{begun:#?} {after:#?}");
}

const STOPPED: &str = "  capture: {kind: snapshot, consistency: stopped}\n";

/// Policies that stop their machines.
fn stopping() -> Case {
    struct Stopping(Served);
    impl Bench for Stopping {
        fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Engine> {
            self.0.open(clock)
        }

        fn damage(&self, _: &Image) {}

        fn id(&self, name: &str) -> String {
            self.0.id(name)
        }

        fn capture(&self) -> &'static str {
            STOPPED
        }
    }
    let bench = Box::new(Stopping(Served::yandex()));
    Case { bench, directory: tempfile::tempdir().unwrap(), spec: "" }
}

fn is_running(instance: &stillframe::inventory::Instance) -> bool {
    instance.status == "RUNNING" && !instance.labels.contains_key("stillframe-restart")
}

#[tokio::test]
async fn a_machine_that_is_stopped_for_its_capture_runs_again() {
    let case = stopping();
    let before = case.observe(0).await.instances;
    let round = case.round(0).await;
    assert_eq!(round.plan.summary.create, 2);
    assert!(round.outcomes.iter().all(|outcome| outcome.ending.is_done()), "{:?}", round.outcomes);
    case.nothing_to_do(0).await;
    assert_eq!(case.observe(0).await.instances, before);
    assert!(before.iter().filter(|one| one.name.starts_with("web-")).all(is_running));
}

/// Stops a machine as a run does that is killed then.
async fn kill_in_the_middle(served: &Served, until: &str) {
    let labels = json!({"role": "web", "stillframe-restart": until});
    let body = json!({"updateMask": "labels", "labels": labels});
    ask(served.address, "PATCH", "compute/v1/instances/7001", Some(&body)).await;
    ask(served.address, "POST", "compute/v1/instances/7001:stop", Some(&json!({}))).await;
}

#[tokio::test]
async fn a_machine_that_a_killed_run_has_stopped_runs_again() {
    let web_1 = |inventory: EngineInventory| {
        inventory.instances.into_iter().find(|one| one.name == "web-1").unwrap()
    };
    // The next run of the same restore point takes over.
    let served = Arc::new(Served::yandex());
    let engine = served.open(super::super::clock(0));
    kill_in_the_middle(&served, "20261121t123000z").await;
    let case = Case {
        bench: Box::new(Arc::clone(&served)),
        directory: tempfile::tempdir().unwrap(),
        spec: "",
    };
    let mut request = case.request(0);
    request.create.consistency = stillframe::inventory::Consistency::Stopped;
    engine.create(request.clone(), Arc::new(stillframe::engine::Unwatched)).await.unwrap();
    assert!(is_running(&web_1(engine.observe().await)));
    // So does one that finds all of it made.
    kill_in_the_middle(&served, "20261121t123000z").await;
    engine.create(request, Arc::new(stillframe::engine::Unwatched)).await.unwrap();
    assert!(is_running(&web_1(engine.observe().await)));
    // Where there is none, the end of a round does, once the time has passed and not before.
    kill_in_the_middle(&served, "20261121t123000z").await;
    let settled = engine.settle().await.unwrap();
    assert_eq!((settled.standing.len(), settled.overdue().count()), (1, 0), "{settled:?}");
    assert_eq!(web_1(engine.observe().await).status, "STOPPED");
    let later = served.open(super::super::clock(1));
    assert_eq!(later.settle().await, Ok(stillframe::engine::Settled::default()));
    assert!(is_running(&web_1(later.observe().await)));
    // A machine that somebody else has stopped is left so.
    ask(served.address, "POST", "compute/v1/instances/7001:stop", Some(&json!({}))).await;
    assert_eq!(later.settle().await, Ok(stillframe::engine::Settled::default()));
    assert_eq!(web_1(later.observe().await).status, "STOPPED");
}

#[tokio::test]
async fn a_capture_that_fails_starts_its_machine_again() {
    let served = Arc::new(Served::yandex());
    let engine = served.open(super::super::clock(0));
    let case = Case {
        bench: Box::new(Arc::clone(&served)),
        directory: tempfile::tempdir().unwrap(),
        spec: "",
    };
    let mut request = case.request(0);
    request.create.consistency = stillframe::inventory::Consistency::Stopped;
    let script = json!({"fault": "quota-in-operation", "collection": "snapshots", "times": 2});
    served.fault(script).await;
    let failed = engine.create(request, Arc::new(stillframe::engine::Unwatched)).await;
    assert!(matches!(failed, Err(EngineError::Refused(_))), "{failed:?}");
    let instances = engine.observe().await.instances;
    assert!(instances.iter().filter(|one| one.name == "web-1").all(is_running));
}

#[tokio::test]
async fn a_machine_is_made_again_of_its_set() {
    let served = Arc::new(Served::yandex());
    let engine = served.open(super::super::clock(0));
    let case = Case {
        bench: Box::new(Arc::clone(&served)),
        directory: tempfile::tempdir().unwrap(),
        spec: "",
    };
    let unwatched = || Arc::new(stillframe::engine::Unwatched);
    let created = engine.create(case.request(0), unwatched()).await.unwrap();
    let request = stillframe::engine::RebuildRequest {
        image: stillframe::plan::ImageRef::of(created.image()),
        name: "web-9".to_owned(),
        disks: Vec::new(),
        disks_only: false,
        like: None,
        zone: None,
        machine_type: None,
        labels: [("role".to_owned(), "spare".to_owned())].into(),
    };
    let cloud = engine.rebuild().unwrap();
    let rebuilt = cloud.rebuild(request.clone(), unwatched()).await.unwrap();
    assert_eq!(rebuilt.disks.len(), 2);
    let inventory = engine.observe().await;
    let made = inventory.instances.iter().find(|one| one.name == "web-9").unwrap();
    assert_eq!(Some(made.id.to_string()), rebuilt.instance);
    let source = inventory.instances.iter().find(|one| one.name == "web-1").unwrap();
    let shape = |one: &stillframe::inventory::Instance| {
        let disks = one.disks.iter().map(|disk| (disk.name.clone(), disk.boot, disk.size_bytes));
        (disks.collect::<Vec<_>>(), one.zone.clone(), one.machine_type.clone())
    };
    assert_eq!(shape(made), shape(source));
    assert_eq!(made.labels["role"], "spare");
    // The set is in use now, and another machine has the name.
    let image = inventory.images.iter().find(|one| one.id == created.image().id).unwrap();
    assert_eq!(image.in_use_by.len(), 2);
    let image = stillframe::plan::ImageRef::of(image);
    let refused = engine.delete(&image).await;
    assert!(matches!(refused, Err(EngineError::Refused(_))), "{refused:?}");
    assert!(cloud.rebuild(request, unwatched()).await.is_err());
}
