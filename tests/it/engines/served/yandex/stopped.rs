//! Captures of machines that stand still, and what may come between.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use stillframe::clock::SystemClock;
use stillframe::engine::{Created, Progress, Settled, Unwatched, Watcher};
use stillframe::name::{PolicyName, parse_stamp};
use stillframe::plan::Plan;
use stillframe::reconcile::{Approval, Room};
use stillframe::report::{apply_text, plan_text};

use super::super::*;
use super::gate::Gate;
use super::world::{WEB_1, World, ask, labels, turn};
use crate::engines::{policies, room};
use crate::support::Run;

/// Has enough once it was asked so often.
struct Enough(AtomicUsize);

impl Watcher for Enough {
    fn progress(&self, _: Progress) {}

    fn is_cancelled(&self) -> bool {
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err()
    }
}

fn slow_images(times: u32) -> Value {
    json!({"fault": "slow-image", "collection": "snapshots", "times": times})
}

fn slow_operations(times: u32) -> Value {
    json!({"fault": "slow-operation", "times": times})
}

fn failure<T: std::fmt::Debug>(came: Result<T, EngineError>) -> String {
    match came {
        Err(EngineError::Failed(message)) => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_machine_that_somebody_starts_meanwhile_makes_no_restore_point() {
    let world = World::with_slow_disks();
    world.fault(slow_images(6)).await;
    world.meanwhile([turn("start")]);
    let failed = failure(world.create(world.stopped(0)).await);
    assert!(failed.contains("somebody has started web-1"), "{failed}");
    assert!(world.runs().await);
    // The service has made all of it. That does not count, today or ever.
    assert_eq!(world.snapshots().await, 2);
    assert_eq!(world.states().await, [ImageState::Creating]);
    world.pass(61);
    assert_eq!(world.states().await, [ImageState::Failed]);
    // A change of its labels says nothing about the machine.
    let image = world.engine().observe().await.images.remove(0);
    let update = stillframe::plan::Update {
        set_labels: [("colour".to_owned(), "red".to_owned())].into(),
        ..Default::default()
    };
    let reference = stillframe::plan::ImageRef::of(&image);
    world.engine().update(&reference, &update).await.unwrap();
    assert_eq!(world.states().await, [ImageState::Failed]);
}

#[tokio::test]
async fn a_capture_that_is_interrupted_starts_its_machine_and_does_not_count() {
    let world = World::with_slow_disks();
    world.fault(slow_images(40)).await;
    let came = world.watched(world.stopped(0), Arc::new(Enough(AtomicUsize::new(8)))).await;
    assert_eq!(came, Err(EngineError::Interrupted));
    assert!(world.seen().iter().any(|(status, _)| status == "STOPPED"));
    world.fault(slow_images(0)).await;
    assert!(world.runs().await);
    world.pass(61);
    assert_eq!(world.states().await, [ImageState::Failed]);
}

/// A kill is a future that nobody asks any more.
#[tokio::test]
async fn what_a_killed_run_has_left_is_no_restore_point() {
    let world = World::with_slow_disks();
    world.fault(slow_images(8)).await;
    let engine = world.engine();
    let create = engine.create(world.stopped(0), Arc::new(Unwatched));
    tokio::select! {
        biased;
        () = async { while world.seen().len() < 2 { tokio::task::yield_now().await } } => {}
        came = create => panic!("{came:?}"),
    }
    drop(engine);
    assert_eq!(world.machine().await.status, "STOPPED");
    assert_eq!(world.states().await, [ImageState::Creating]);
    // Who makes the same cannot know what the machine did, and starts it.
    let failed = failure(world.create(world.stopped(0)).await);
    assert!(failed.contains("nobody has seen its machine stand still"), "{failed}");
    assert!(world.runs().await);
    assert_eq!(world.states().await, [ImageState::Failed]);
}

#[tokio::test]
async fn a_machine_with_quick_disks_runs_while_its_snapshots_are_made() {
    let world = World::new();
    world.served.datacenter.edit("examples/datacenter/instances/web-1.yaml", |text| {
        text.replace("web-1-content.raw}", "web-1-content.raw, diskType: network-ssd}")
    });
    for script in [slow_operations(20), slow_images(20)] {
        world.fault(script).await;
    }
    let created = world.create(world.stopped(0)).await.unwrap();
    assert_eq!(created.image().state, ImageState::Ready);
    assert!(!created.image().labels.contains_key("stillframe-unproven"));
    let seen = world.seen();
    assert!(!seen.is_empty() && seen.iter().all(|(status, _)| status == "RUNNING"), "{seen:?}");
    assert_eq!(world.states().await, [ImageState::Ready]);
}

#[tokio::test]
async fn a_machine_does_not_stand_still_behind_another_one_that_does_not_stop() {
    let world = World::with_slow_disks();
    let gate = Gate::new(world.served.address);
    gate.state().endless = Some("instances/7002:stop".to_owned());
    world.fault(slow_images(6)).await;
    let engine = world.engine_behind(&gate.url());
    let mut other = world.stopped(0);
    other.key.source = stillframe::name::SourceId::parse("7002").unwrap();
    other.name = other.key.image_name(&other.key.default_prefix());
    other.create.labels = other.key.labels();
    let has_ended = std::sync::atomic::AtomicBool::new(false);
    let first = async {
        let created = engine.create(world.stopped(0), Arc::new(Unwatched)).await;
        (created, has_ended.load(Ordering::SeqCst))
    };
    let other = async {
        while !world.seen().iter().any(|(status, _)| status == "STOPPED") {
            tokio::task::yield_now().await;
        }
        let came = engine.create(other, Arc::new(Unwatched)).await;
        has_ended.store(true, Ordering::SeqCst);
        came
    };
    let ((created, came_later), failed) = tokio::join!(first, other);
    assert_eq!(created.unwrap().image().state, ImageState::Ready);
    assert!(!came_later, "the machine waited for the other one to stop");
    let failed = failure(failed);
    assert!(failed.contains("does not end"), "{failed}");
    // It is given up before long, and both run.
    let took = world.now().duration_since(noon(0));
    assert!(took < jiff::SignedDuration::from_hours(2), "{took}");
    assert!(world.runs().await);
    let instances = world.engine().observe().await.instances;
    assert!(instances.iter().all(|one| !one.labels.contains_key("stillframe-restart")));
}

#[tokio::test]
async fn a_machine_stands_still_as_long_as_its_run_is_at_it() {
    let world = World::with_slow_disks();
    world.fault(slow_images(800)).await;
    // Somebody sets a label while it stands still; what is written again and again leaves that there.
    let until = json!({"role": "web", "team": "shop", "stillframe-restart": "20261121t123000z"});
    world.meanwhile([labels(&until)]);
    let began = world.now();
    let created = world.create(world.stopped(0)).await.unwrap();
    assert_eq!(created.image().state, ImageState::Ready);
    assert_eq!(world.machine().await.labels["team"], "shop");
    let took = world.now().duration_since(began);
    assert!(took > jiff::SignedDuration::from_mins(60), "{took}");
    let still = world.seen().into_iter().filter(|(status, _)| status == "STOPPED");
    let promises: std::collections::BTreeSet<String> =
        still.map(|(_, until)| until.unwrap()).collect();
    assert!(promises.len() > 3, "{promises:?}");
    let last = parse_stamp(promises.last().unwrap()).unwrap();
    assert!(last > began + jiff::SignedDuration::from_mins(60), "{last}");
    assert!(world.runs().await);
}

#[tokio::test]
async fn the_end_of_a_round_leaves_a_machine_alone_that_is_captured() {
    let world = World::with_slow_disks();
    world.fault(slow_images(30)).await;
    let engine = world.engine();
    let create = engine.create(world.stopped(0), Arc::new(Unwatched));
    let settle = async {
        while world.seen().is_empty() || world.snapshots().await < 2 {
            tokio::task::yield_now().await;
        }
        // However busy the machine is, the capture goes on only after that, and both disks were taken
        // before it.
        world.ticking.held.send_replace(true);
        world.served.patient().pause(Duration::ZERO).await;
        world.pass(31);
        let settled = engine.settle().await;
        world.ticking.held.send_replace(false);
        settled
    };
    let (created, settled) = tokio::join!(create, settle);
    let standing = settled.unwrap().standing;
    assert!(standing[0].message.contains("is captured at present"), "{standing:?}");
    assert!(!standing[0].is_overdue);
    assert_eq!(created.unwrap().image().state, ImageState::Ready);
}

#[tokio::test]
async fn a_machine_on_its_way_is_waited_for() {
    let world = World::new();
    for (after, on_its_way) in [("stop", 3), ("start", 3)] {
        let until = json!({"role": "web", "stillframe-restart": "20261121t120000z"});
        let (method, path, body) = labels(&until);
        world.ask(method, &path, Some(body)).await;
        if after == "stop" {
            let (method, path, body) = turn("stop");
            world.ask(method, &path, Some(body)).await;
        }
        world.fault(json!({"fault": "slow-turn", "times": on_its_way})).await;
        let settled = world.engine().settle().await.unwrap();
        assert_eq!(settled, Settled::default());
        assert!(world.runs().await, "{after}");
        assert!(world.now() < noon(0) + jiff::SignedDuration::from_mins(1));
    }
}

/// Only what stands still is started: what has broken down is the affair of people.
#[tokio::test]
async fn a_machine_that_has_broken_down_is_not_started() {
    let (world, _) = left_behind().await;
    let gate = Gate::new(world.served.address);
    let engine = world.engine_behind(&gate.url());
    for status in ["ERROR", "CRASHED", "NOVEL"] {
        gate.state().status = Some(status.to_owned());
        let standing = engine.settle().await.unwrap().standing;
        assert!(standing[0].message.contains(&format!("web-1 is {status}")), "{standing:?}");
        assert!(standing[0].is_overdue);
        assert!(gate.asked(":start").is_empty());
    }
    gate.state().status = None;
    assert_eq!(engine.settle().await, Ok(Settled::default()));
    assert!(world.runs().await);
}

/// Says no; or is not even asked.
struct No {
    shows_only: bool,
}

#[async_trait]
impl Approval for No {
    async fn approve(&self, _: &Plan) -> bool {
        false
    }

    fn takes_time(&self) -> bool {
        false
    }

    fn shows_only(&self) -> bool {
        self.shows_only
    }
}

/// Somebody was killed while `web-1` stood still, and the time that was promised has passed.
async fn left_behind() -> (World, Room) {
    let world = World::new();
    let (method, path, body) =
        labels(&json!({"role": "web", "stillframe-restart": "20261121t110000z"}));
    world.ask(method, &path, Some(body)).await;
    let (method, path, body) = turn("stop");
    world.ask(method, &path, Some(body)).await;
    assert_eq!(world.machine().await.status, "STOPPED");
    let (clock, policies) = (world.served.clock.clone(), world.case.policies());
    let room = room(Arc::new(world.engine()), clock, policies, &world.case.directory);
    (world, room)
}

#[tokio::test]
async fn a_promise_is_kept_whatever_becomes_of_the_plan() {
    let (world, room) = left_behind().await;
    let stop = Stop::default();
    let round = room.round(&No { shows_only: true }, Arc::new(Quiet), &stop).await;
    assert!(!round.approved && round.settled.is_empty());
    assert!(!world.runs().await, "who only looks changes nothing");
    let round = room.round(&No { shows_only: false }, Arc::new(Quiet), &stop).await;
    assert!(!round.approved && round.outcomes.is_empty() && round.settled.len() == 1);
    assert!(world.runs().await);
    assert_eq!(world.snapshots().await, 0);
}

#[tokio::test]
async fn a_promise_is_kept_where_nothing_can_be_written_down() {
    let (world, room) = left_behind().await;
    std::fs::create_dir(world.case.directory.path().join("ledger.ndjson")).unwrap();
    let round = room.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
    assert!(round.unwritten.is_some(), "the ledger is a directory");
    assert!(world.runs().await);
}

#[tokio::test]
async fn a_machine_that_cannot_be_started_is_tried_again_by_every_round() {
    let world = World::new();
    // More rounds than there are keys for the same request.
    let rounds = 25;
    world.fault(json!({"fault": "start-fails", "times": rounds})).await;
    let failed = failure(world.create(world.stopped(0)).await);
    assert!(failed.contains("web-1 was stopped for a capture and does not run again"), "{failed}");
    for _ in 1..rounds {
        world.pass(31);
        let settled = world.engine().settle().await.unwrap();
        assert_eq!(settled.overdue().count(), 1, "{settled:?}");
        assert!(settled.standing[0].message.contains("no room in the zone"), "{settled:?}");
        assert_eq!(world.machine().await.status, "STOPPED");
    }
    world.pass(31);
    let settled = world.engine().settle().await.unwrap();
    assert_eq!(settled, Settled::default());
    assert!(world.runs().await);
}

/// That nobody is at it any more is known at once, and not when the time is over that was promised.
#[tokio::test]
async fn a_machine_that_was_not_started_again_is_overdue_at_once() {
    let world = World::new();
    world.fault(json!({"fault": "start-fails", "times": 1})).await;
    let failed = failure(world.create(world.stopped(0)).await);
    assert!(failed.contains("web-1 was stopped for a capture and does not run again"), "{failed}");
    let machine = world.machine().await;
    assert_eq!(machine.status, "STOPPED");
    assert!(machine.is_overdue(world.now()), "{:?}", machine.labels);
    world.pass(1);
    assert_eq!(world.engine().settle().await, Ok(Settled::default()));
    assert!(world.runs().await);
}

#[tokio::test]
async fn the_promise_of_another_run_stays_where_a_machine_does_not_start() {
    let world = World::with_slow_disks();
    for script in [slow_images(6), json!({"fault": "start-fails", "times": 1})] {
        world.fault(script).await;
    }
    world.meanwhile([labels(&json!({"role": "web", "stillframe-restart": "20261121t125900z"}))]);
    let failed = failure(world.create(world.stopped(0)).await);
    assert!(failed.contains("does not run again"), "{failed}");
    assert_eq!(world.machine().await.labels["stillframe-restart"], "20261121t125900z");
}

/// No round in which a machine stays behind has ended well, whatever else there was to do.
#[tokio::test]
async fn a_machine_that_stays_behind_is_told_apart_from_everything_else() {
    let (world, room) = left_behind().await;
    let inventory = room.observe().await;
    let plan = plan_text(&room.plan(&inventory, world.now()));
    assert!(plan.contains("machines that stand still (1)"), "{plan}");
    assert!(plan.contains("! web-1"), "{plan}");
    // It is tried beside the captures, and once more at the end.
    world.fault(json!({"fault": "start-fails", "times": 2})).await;
    let round = room.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
    assert_eq!(world.machine().await.status, "STOPPED");
    let settled = round.settled[0].1.as_ref().unwrap();
    assert_eq!(settled.overdue().count(), 1, "{settled:?}");
    assert!(settled.postponed.is_empty(), "{settled:?}");
    let text = apply_text(&round);
    assert!(text.contains("machines that stand still"), "{text}");
    assert!(text.contains("web-1 was stopped for a capture and does not run again"), "{text}");
    assert!(text.contains("1 machine stopped for a capture and not started again"), "{text}");
    assert!(!text.contains("space"), "{text}");
    world.pass(1);
    let round = room.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
    assert_eq!(round.settled[0].1, Ok(Settled::default()));
    assert!(world.runs().await);
    let inventory = room.observe().await;
    assert!(!plan_text(&room.plan(&inventory, world.now())).contains("stand still"));
}

#[tokio::test]
async fn a_machine_does_not_stand_still_until_all_is_captured() {
    let (world, room) = left_behind().await;
    world.fault(slow_images(60)).await;
    let round = room.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
    assert_eq!(round.plan.summary.create, 2);
    assert!(round.outcomes.iter().all(|outcome| outcome.ending.is_done()), "{:?}", round.outcomes);
    let seen = world.seen();
    let still = seen.iter().filter(|(status, _)| status == "STOPPED").count();
    assert!(seen.len() > 20 && still < seen.len() / 2, "{still} of {}", seen.len());
}

/// Only a run that has seen its machine stand still may make what is missing, and that one has ended.
#[tokio::test]
async fn a_set_of_a_machine_that_stood_still_is_not_gone_on_with() {
    let world = World::new();
    let capture = "  capture: {kind: snapshot, consistency: stopped}\n";
    let text = |capture: &str| format!("{capture}  retention: {{last: 2}}\n");
    let room_of = |text: &str| {
        let clock = world.served.clock.clone();
        room(Arc::new(world.engine()), clock, policies(text), &world.case.directory)
    };
    let created = world.create(world.stopped(0)).await.unwrap();
    let gone = stillframe::engine::set::member_ids(&created.image().id).remove(0);
    let id = gone.rsplit('/').next().unwrap();
    world.ask("DELETE", &format!("compute/v1/snapshots/{id}"), None).await;
    world.served.patient().pause(Duration::ZERO).await;
    assert_eq!(world.states().await, [ImageState::Begun]);
    let plan = |text: String, minutes: i64| {
        world.pass(minutes);
        let room = room_of(&text);
        async move {
            let inventory = room.observe().await;
            let plan = room.plan(&inventory, room.clock.now());
            let of_web_1 = |change: &&stillframe::plan::Change| {
                change.create.is_some() && change.source_name == "web-1"
            };
            plan.changes.iter().filter(of_web_1).count()
        }
    };
    let crash = "  capture: {kind: snapshot}\n";
    assert_eq!(plan(text(capture), 1).await, 0);
    assert_eq!(plan(text(crash), 0).await, 1);
    // Once nobody can be at it any more it is cleared away and made anew.
    world.pass(60);
    let room = room_of(&text(capture));
    let round = room.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
    assert!(round.outcomes.iter().all(|outcome| outcome.ending.is_done()), "{:?}", round.outcomes);
    let images = world.engine().observe().await.images;
    assert!(
        images.iter().any(|image| {
            image.state == ImageState::Ready && image.name == created.image().name
        }),
        "{images:#?}"
    );
}

/// What was answered two seconds ago says nothing of now.
#[tokio::test]
async fn what_has_just_failed_is_asked_for_anew_by_the_next_run() {
    let (world, _) = left_behind().await;
    world.fault(json!({"fault": "start-fails", "times": 1})).await;
    let settled = world.engine().settle().await.unwrap();
    assert_eq!(settled.overdue().count(), 1, "{settled:?}");
    *world.served.clock.0.lock().unwrap() += jiff::SignedDuration::from_secs(2);
    assert_eq!(world.engine().settle().await, Ok(Settled::default()));
    assert!(world.runs().await);
}

/// The program over the server, without policies: what each verb says that ends with such a code.
fn front(world: &World) -> impl Fn(i32, &[&str]) -> Run {
    let datacenter = &world.served.datacenter;
    std::fs::create_dir_all(datacenter.path("front")).unwrap();
    let endpoint = format!("http://{}", world.served.address);
    let config = json!({
        "apiVersion": "stillframe/v1", "kind": "Config",
        "spec": {"engines": {"cloud": {"yandex": {"folders": ["p"], "endpoint": endpoint}}}},
    });
    std::fs::write(datacenter.path("front/stillframe.yaml"), config.to_string()).unwrap();
    move |code, verb| datacenter.run_to(code, &[verb, &["--policies", "front"]].concat())
}

/// The program over the server, by the clock of this machine: the time that was promised is long over.
#[tokio::test]
async fn the_program_says_and_ends_what_stands_still() {
    let world = World::new();
    let long_ago = json!({"role": "web", "stillframe-restart": "20200101t000000z"});
    for (method, path, body) in [labels(&long_ago), turn("stop")] {
        world.ask(method, &path, Some(body)).await;
    }
    let run = front(&world);
    // Who applies only what is pending is told that there is something to do.
    run(2, &["plan", "--detailed-exitcode"]);
    let plan = run(0, &["plan"]);
    assert!(plan.out.contains("stopped for a capture and not started again"), "{}", plan.out);
    let doctor = world.served.datacenter.run(&["doctor", "--policies", "front"]);
    assert!(doctor.out.contains("web-1 is STOPPED"), "{}{}", doctor.out, doctor.err);
    world.fault(json!({"fault": "start-fails", "times": 2})).await;
    let apply = run(1, &["apply", "--auto-approve"]);
    assert!(apply.out.contains("does not run again"), "{}", apply.out);
    assert_eq!(world.machine().await.status, "STOPPED");
    world.pass(1);
    let apply = run(1, &["apply"]);
    assert!(apply.err.contains("nobody can be asked here"), "{}", apply.err);
    assert!(world.runs().await);
}

/// What a run could not start is not left to stand still by those after it, which have nothing else to do.
#[tokio::test]
async fn the_program_starts_a_machine_at_once_that_did_not_start() {
    let world = World::new();
    // The program has the clock of this machine: the promise of half an hour is not over by that.
    let now = SystemClock.now() - jiff::SignedDuration::from_mins(10);
    *world.served.clock.0.lock().unwrap() = now;
    let mut request = world.stopped(0);
    request.create.deadline = now + jiff::SignedDuration::from_hours(1);
    world.fault(json!({"fault": "start-fails", "times": 1})).await;
    let failed = failure(world.create(request).await);
    assert!(failed.contains("the next run tries again"), "{failed}");
    let run = front(&world);
    let plan = run(0, &["plan"]);
    assert!(plan.out.contains("stopped for a capture and not started again"), "{}", plan.out);
    let doctor = world.served.datacenter.run(&["doctor", "--policies", "front"]);
    assert!(doctor.out.contains("web-1 is STOPPED"), "{}{}", doctor.out, doctor.err);
    world.fault(json!({"fault": "start-fails", "times": 2})).await;
    let apply = run(1, &["apply", "--auto-approve"]);
    assert!(apply.out.contains("does not run again"), "{}", apply.out);
    assert_eq!(world.machine().await.status, "STOPPED");
    world.pass(1);
    run(0, &["apply", "--auto-approve"]);
    assert!(world.runs().await);
}

#[tokio::test]
async fn two_policies_stop_one_machine_one_after_the_other() {
    let world = World::with_slow_disks();
    for script in [slow_images(12), slow_operations(12)] {
        world.fault(script).await;
    }
    let mut other = world.stopped(0);
    other.key.policy = PolicyName::parse("hourly").unwrap();
    other.name = other.key.image_name(&other.key.default_prefix());
    other.create.labels = other.key.labels();
    let engine = world.engine();
    let (one, other) = tokio::join!(
        engine.create(world.stopped(0), Arc::new(Unwatched)),
        engine.create(other, Arc::new(Unwatched)),
    );
    for created in [one, other] {
        assert!(matches!(created, Ok(Created::Made(_))), "{created:?}");
    }
    assert!(world.runs().await);
    assert_eq!(world.states().await, [ImageState::Ready; 2]);
}

/// Asks to stop once it is told to, and remembers what it was told.
#[derive(Default)]
struct Still {
    is_stopped: AtomicBool,
    waits: Mutex<Vec<String>>,
}

impl Watcher for Still {
    fn progress(&self, _: Progress) {}

    fn waits(&self, why: &str) {
        self.waits.lock().unwrap().push(why.to_owned());
    }

    fn is_cancelled(&self) -> bool {
        self.is_stopped.load(Ordering::SeqCst)
    }
}

/// The service takes no snapshot for a long time, or says nothing of it.
#[tokio::test]
async fn who_is_interrupted_while_a_machine_stands_still_starts_it_at_once() {
    // The fifth look at the snapshots is one while it stands still.
    for (method, collection, after, times) in
        [("POST", "snapshots", 0, 12), ("GET", "snapshots", 4, 12)]
    {
        let world = World::with_slow_disks();
        let watcher = Arc::new(Still::default());
        let own = Arc::clone(&watcher);
        world.fault(slow_images(3)).await;
        let script = json!({"fault": "rate-limit", "method": method, "collection": collection, "times": times, "after": after});
        world.fault(script).await;
        world.while_refused(move |address| async move {
            let machine = ask(address, "GET", WEB_1, None).await;
            assert_eq!(machine["status"], "STOPPED", "{method} {collection}");
            own.is_stopped.store(true, Ordering::SeqCst);
        });
        let began = world.now();
        let came = world.watched(world.stopped(0), watcher.clone()).await;
        assert_eq!(came, Err(EngineError::Interrupted), "{method} {collection}");
        let took = world.now().duration_since(began);
        assert!(took < jiff::SignedDuration::from_secs(60), "{method} {collection}: {took}");
        let said = watcher.waits.lock().unwrap().clone();
        assert!(
            method == "GET" || said.iter().any(|why| why.contains("asked again in 7s")),
            "{said:?}"
        );
        assert!(world.runs().await, "{method} {collection}");
    }
}

/// It stands still for so long already that another round would start it soon.
#[tokio::test]
async fn the_promise_is_put_off_while_what_is_asked_for_waits() {
    for (method, after) in [("POST", 0), ("GET", 3)] {
        let world = World::with_slow_disks();
        world.fault(slow_images(3)).await;
        let script = json!({"fault": "rate-limit", "method": method, "collection": "snapshots", "times": 3, "after": after});
        world.fault(script).await;
        let clock = Arc::clone(&world.served.clock);
        world.while_refused(move |_| async move {
            *clock.0.lock().unwrap() += jiff::SignedDuration::from_mins(25);
        });
        // By the next wait for the same it was put off.
        let promised = Arc::new(Mutex::new(None));
        let own = Arc::clone(&promised);
        world.while_refused(move |address| async move {
            let machine = ask(address, "GET", WEB_1, None).await;
            let until = machine["labels"]["stillframe-restart"].as_str().map(str::to_owned);
            *own.lock().unwrap() = until;
        });
        let created = world.create(world.stopped(0)).await.unwrap();
        assert_eq!(created.image().state, ImageState::Ready, "{method}");
        let until = promised.lock().unwrap().clone().unwrap();
        let until = parse_stamp(&until).unwrap();
        assert!(until > noon(0) + jiff::SignedDuration::from_mins(50), "{method}: {until}");
        assert!(world.runs().await);
    }
}

/// A machine is not stopped for images that are not asked for any more.
#[tokio::test]
async fn a_machine_is_not_stopped_after_the_deadline() {
    for (method, collection) in [("PATCH", "instances"), ("POST", "instances")] {
        let world = World::new();
        let mut request = world.stopped(0);
        request.create.deadline = noon(0) + jiff::SignedDuration::from_secs(20);
        world.fault(json!({"fault": "rate-limit", "method": method, "collection": collection, "times": 4})).await;
        let late = world.create(request).await;
        assert!(
            matches!(&late, Err(EngineError::Busy(why)) if why.contains("deadline")),
            "{late:?}"
        );
        assert!(world.seen().iter().all(|(status, _)| status == "RUNNING"), "{method}");
        assert_eq!(world.snapshots().await, 0);
        world.fault(json!({"fault": "rate-limit", "times": 0})).await;
        assert!(world.runs().await, "{method}");
    }
}

/// What is done while the engine waits for an answer about snapshots, before it stops anything.
async fn meanwhile(world: &World, deed: super::world::Deed) -> Result<Created, EngineError> {
    let script = json!({"fault": "rate-limit", "collection": "snapshots", "method": "GET"});
    world.fault(script).await;
    world.meanwhile([deed]);
    world.create(world.stopped(0)).await
}

#[tokio::test]
async fn labels_that_are_set_meanwhile_stay() {
    let world = World::new();
    let created = meanwhile(&world, labels(&json!({"role": "web", "team": "shop"}))).await;
    assert!(created.is_ok(), "{created:?}");
    assert_eq!(world.machine().await.labels["team"], "shop");
    assert!(world.runs().await);
}

#[tokio::test]
async fn a_machine_that_somebody_stops_meanwhile_stays_so() {
    let world = World::new();
    let created = meanwhile(&world, turn("stop")).await.unwrap();
    assert_eq!(created.image().state, ImageState::Ready);
    assert_eq!(world.machine().await.status, "STOPPED");
    assert!(!world.machine().await.labels.contains_key("stillframe-restart"));
}
