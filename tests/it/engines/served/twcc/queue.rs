//! Jobs that begin late or never, and orders that wait.

use super::*;

const MINUTE: Duration = Duration::from_mins(1);

/// An engine with which time passes while it waits, and with which what is stuck begins after that.
fn until_revival(service: &Arc<Served>, begins_after: Duration) -> TwccEngine {
    let (own, begin) =
        (Arc::clone(service), noon(0) + SignedDuration::try_from(begins_after).unwrap());
    let has_begun = Arc::new(AtomicBool::new(false));
    service.engine(move |_, time| {
        let (service, has_begun) = (Arc::clone(&own), Arc::clone(&has_begun));
        async move {
            service.pass(time);
            if service.clock.now() >= begin && !has_begun.swap(true, Ordering::SeqCst) {
                assert_eq!(service.of("snapshots").await, [json!(null); 0]);
                service.fault(json!({"fault": "revival", "collection": "images"})).await;
                // What begins takes a moment; the time that is told does not hang on that.
                while service.images().await[0]["status"] == "QUEUED" {
                    tokio::task::yield_now().await;
                }
            }
        }
    })
}

#[tokio::test]
async fn a_set_waits_for_its_image_to_begin() {
    let service = Arc::new(Served::twcc());
    let case = case(&service, "");
    let request = case.request(0);
    let engine = until_revival(&service, 30 * MINUTE);
    service.fault(json!({"fault": "stuck", "method": "PUT"})).await;
    let watcher = Arc::new(Hears::default());
    let created = engine.create(request, watcher.clone()).await.unwrap();
    let Created::Made(image) = created else { panic!("{created:?}") };
    assert_eq!((image.state, image.members()), (ImageState::Ready, 2));
    assert!(watcher.heard().contains("was QUEUED for 29m"), "{}", watcher.heard());
    let snapshots = service.of("snapshots").await;
    let times: Vec<_> = snapshots.iter().map(|one| one["create_time"].as_str().unwrap()).collect();
    assert!(times.iter().all(|time| *time >= "2026-11-21T12:30:00Z"), "{times:?}");
    let seen = engine.observe().await.images;
    assert_eq!((seen.len(), seen[0].state), (1, ImageState::Ready));
}

#[tokio::test]
async fn a_lone_image_that_begins_late_is_told() {
    let service = Arc::new(Served::twcc_with_system_disks());
    let case = case(&service, "");
    let request = case.request(0);
    let engine = until_revival(&service, 30 * MINUTE);
    service.fault(json!({"fault": "stuck", "method": "PUT"})).await;
    let watcher = Arc::new(Hears::default());
    engine.create(request.clone(), watcher.clone()).await.unwrap();
    assert!(watcher.heard().contains("was QUEUED for 29m"), "{}", watcher.heard());
    // One that begins at once is not.
    let service = Arc::new(Served::twcc_with_system_disks());
    let watcher = Arc::new(Hears::default());
    service.open(clock(0)).create(request, watcher.clone()).await.unwrap();
    assert_eq!(watcher.heard(), "");
}

#[tokio::test]
async fn an_image_that_never_begins_has_no_snapshots() {
    let service = Arc::new(Served::twcc());
    let case = case(&service, "");
    service.fault(json!({"fault": "stuck", "method": "PUT"})).await;
    let ended = service.open(clock(0)).create(case.request(0), Arc::new(Unwatched)).await;
    let Err(EngineError::Failed(message)) = ended else { panic!("{ended:?}") };
    assert!(message.contains("isupport@twcc.ai"), "{message}");
    assert_eq!((service.images().await.len(), service.of("snapshots").await.len()), (1, 0));
    let seen = case.observe(0).await.images;
    assert_eq!(seen[0].state, ImageState::Begun);
    // It begins after all, and nobody is there to ask for the rest in time.
    service.fault(json!({"fault": "revival", "collection": "images"})).await;
    while service.images().await[0]["status"] != "ACTIVE" {
        tokio::task::yield_now().await;
    }
    let now = noon(0) + SignedDuration::from_mins(30);
    let engine = service.open(Arc::new(stillframe::clock::FixedClock(now)));
    let ended = engine.create(case.request(0), Arc::new(Unwatched)).await;
    let Err(EngineError::Failed(message)) = ended else { panic!("{ended:?}") };
    assert!(message.contains("a run before has begun it"), "{message}");
    assert_eq!(service.of("snapshots").await.len(), 0);
    assert_ne!(engine.observe().await.images[0].state, ImageState::Ready);
}

#[tokio::test]
async fn a_set_whose_deadline_passes_in_the_queue_has_no_snapshots() {
    let service = Arc::new(Served::twcc());
    let case = case(&service, "");
    let mut request = case.request(0);
    request.create.deadline = noon(0) + SignedDuration::from_mins(20);
    let engine = until_revival(&service, 30 * MINUTE);
    service.fault(json!({"fault": "stuck", "method": "PUT"})).await;
    let ended = engine.create(request, Arc::new(Unwatched)).await;
    let Err(EngineError::Failed(message)) = ended else { panic!("{ended:?}") };
    assert!(message.contains("while its image was QUEUED"), "{message}");
    assert_eq!(service.of("snapshots").await.len(), 0);
}

#[tokio::test]
async fn queued_minutes_of_more_than_half_a_day_take_effect() {
    let service = Arc::new(Served::twcc_with_system_disks());
    let case = case(&service, "");
    let (request, own) = (case.request(0), Arc::clone(&service));
    let pause = service.meanwhile(move |number, _| {
        let service = Arc::clone(&own);
        async move {
            service.pass(30 * MINUTE);
            if number == 40 {
                service.fault(json!({"fault": "revival", "collection": "images"})).await;
                // The hours go on only once it is done.
                while service.images().await[0]["status"] != "ACTIVE" {
                    tokio::task::yield_now().await;
                }
            }
        }
    });
    service.fault(json!({"fault": "stuck", "method": "PUT"})).await;
    let engine = service.engine_of(&json!({"queuedMinutes": 1440}), pause);
    let created = engine.create(request, Arc::new(Unwatched)).await;
    assert!(matches!(created, Ok(Created::Made(_))), "{created:?}");
}

#[tokio::test]
async fn a_job_that_does_not_end_is_given_up_after_half_a_day() {
    let service = Arc::new(Served::twcc_with_system_disks());
    let case = case(&service, "");
    let (request, own) = (case.request(0), Arc::clone(&service));
    let engine = service.engine(move |_, _| {
        let service = Arc::clone(&own);
        async move { service.pass(60 * MINUTE) }
    });
    service.fault(json!({"fault": "hung", "method": "PUT"})).await;
    let ended = engine.create(request, Arc::new(Unwatched)).await;
    let Err(EngineError::Failed(message)) = ended else { panic!("{ended:?}") };
    for part in ["is SAVING and does not become ACTIVE", "isupport@twcc.ai", "site 7001"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(service.clock.now() <= noon(0) + SignedDuration::from_hours(13));
    assert_eq!(service.images().await[0]["status"], "SAVING");
    // Who looks later reads it as well, and the next slot says why it has no image.
    service.pass(120 * MINUTE);
    let seen = engine.observe().await.images.remove(0);
    assert_eq!(seen.state, ImageState::Creating);
    assert!(seen.message.unwrap().contains("isupport@twcc.ai"));
    let ended = engine.create(case.request(1), Arc::new(Unwatched)).await;
    let Err(EngineError::Failed(message)) = ended else { panic!("{ended:?}") };
    assert!(message.contains("isupport@twcc.ai"), "{message}");
    assert_eq!(service.images().await.len(), 1);
}

#[tokio::test]
async fn a_word_that_nobody_knows_is_waited_out() {
    let service = Arc::new(Served::twcc());
    let case = case(&service, "");
    let script = json!({"fault": "odd-word", "method": "GET", "collection": "images", "after": 1, "times": 4});
    service.fault(script).await;
    let created = service.open(clock(0)).create(case.request(0), Arc::new(Unwatched)).await;
    let Ok(Created::Made(image)) = created else { panic!("{created:?}") };
    assert_eq!((image.state, image.members()), (ImageState::Ready, 2));
    assert_eq!(service.images().await.len(), 1);
}

#[tokio::test]
async fn snapshots_that_were_too_many_come_while_they_are_of_one_time() {
    for (each, is_in_time) in [(MINUTE, true), (11 * MINUTE, false)] {
        let service = Arc::new(Served::twcc());
        let case = case(&service, "");
        let (request, own) = (case.request(0), Arc::clone(&service));
        let engine = service.engine(move |_, time| {
            let service = Arc::clone(&own);
            // Only what was too much is waited for so long.
            let time = if time == Duration::from_secs(5) { each } else { time };
            async move { service.pass(time) }
        });
        service.fault(json!({"fault": "too-many-requests", "method": "POST"})).await;
        let watcher = Arc::new(Hears::default());
        let ended = engine.create(request, watcher.clone()).await;
        assert!(watcher.heard().contains("asked again in 7s"), "{}", watcher.heard());
        if is_in_time {
            let seen = engine.observe().await.images;
            assert_eq!((seen.len(), seen[0].state), (1, ImageState::Ready), "{ended:?}");
        } else {
            let Err(EngineError::Busy(message)) = ended else { panic!("{ended:?}") };
            assert!(message.contains("begun too long ago"), "{message}");
            assert_eq!(service.of("snapshots").await.len(), 0);
        }
    }
}

#[tokio::test]
async fn an_order_is_not_repeated_after_its_deadline() {
    let service = Arc::new(Served::twcc_with_system_disks());
    let case = case(&service, "");
    let mut request = case.request(0);
    request.create.deadline = noon(0) + SignedDuration::from_secs(5);
    service.fault(json!({"fault": "too-many-requests", "method": "PUT"})).await;
    let ended = service.open(clock(0)).create(request.clone(), Arc::new(Unwatched)).await;
    let Err(EngineError::Busy(message)) = ended else { panic!("{ended:?}") };
    assert!(message.contains("deadline"), "{message}");
    assert_eq!(service.images().await.len(), 0);
    let ended = service.open(clock(0)).create(request, Arc::new(Unwatched)).await;
    assert!(ended.is_ok(), "the fault was that once: {ended:?}");
}

#[tokio::test]
async fn an_order_that_waits_hears_that_it_is_to_stop() {
    let service = Arc::new(Served::twcc_with_system_disks());
    let case = case(&service, "");
    service.fault(json!({"fault": "too-many-requests", "method": "PUT"})).await;
    let watcher = Arc::new(Hears::and_has_enough());
    let ended = service.open(clock(0)).create(case.request(0), watcher.clone()).await;
    assert_eq!(ended, Err(EngineError::Interrupted));
    assert!(watcher.heard().contains("429"), "{}", watcher.heard());
    assert_eq!(service.images().await.len(), 0);
}

/// Killed or told to stop while the image is QUEUED: the next run makes the rest, of the same time.
#[tokio::test]
async fn what_a_run_leaves_in_the_queue_is_made_whole_by_the_next_one() {
    for is_killed in [true, false] {
        let service = Arc::new(Served::twcc());
        let case = case(&service, "");
        service.fault(json!({"fault": "stuck", "method": "PUT"})).await;
        let watcher = Arc::new(Hears::default());
        let (own, has_enough) = (Arc::clone(&service), Arc::clone(&watcher));
        let engine = service.engine(move |_, _| {
            let (service, watcher) = (Arc::clone(&own), Arc::clone(&has_enough));
            async move {
                let is_queued = service.images().await.iter().any(|one| one["status"] == "QUEUED");
                watcher.is_over.store(is_queued && !is_killed, Ordering::SeqCst);
                if is_queued && is_killed {
                    std::future::pending::<()>().await;
                }
            }
        });
        let request = case.request(0);
        let create = engine.create(request.clone(), watcher);
        let queued = async {
            while service.images().await.is_empty() {
                tokio::task::yield_now().await;
            }
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        };
        if is_killed {
            tokio::select! {
                ended = create => panic!("{ended:?}"),
                () = queued => {}
            }
        } else {
            assert_eq!(create.await, Err(EngineError::Interrupted));
        }
        // Many minutes later as well: what is QUEUED is of a time to come.
        service.pass(20 * MINUTE);
        let engine = Arc::new(until_revival(&service, 30 * MINUTE));
        let room = room(engine.clone(), service.clock.clone(), case.policies(), &case.directory);
        let inventory = room.observe().await;
        assert_eq!(inventory.engines[0].images[0].state, ImageState::Begun);
        let plan = room.plan(&inventory, service.clock.now());
        assert!(plan.changes.iter().any(|change| change.key == request.key), "{plan:#?}");
        let created = engine.create(request, Arc::new(Unwatched)).await;
        assert!(matches!(created, Ok(Created::Found { .. })), "{created:?}");
        let round = room.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
        assert_eq!((round.plan.summary.create, failures(&round).len()), (1, 0), "{round:#?}");
        let seen = room.observe().await.engines.remove(0).images;
        assert!(seen.iter().all(|image| image.state == ImageState::Ready), "{seen:#?}");
        assert_eq!((service.images().await.len(), service.of("snapshots").await.len()), (2, 2));
    }
}

/// Every plan says it, and what to tell whom.
#[tokio::test]
async fn a_job_that_is_stuck_is_told_by_every_plan_and_by_doctor() {
    let service = Arc::new(Served::twcc_with_system_disks());
    let case = case(&service, "");
    service.fault(json!({"fault": "stuck", "method": "PUT"})).await;
    let ended = service.open(clock(0)).create(case.request(0), Arc::new(Unwatched)).await;
    assert!(ended.is_err());
    service.pass(61 * MINUTE);
    let engine = Arc::new(service.engine(|_, _| async {}));
    let room = room(engine.clone(), service.clock.clone(), case.policies(), &case.directory);
    let inventory = room.observe().await;
    let plan = stillframe::report::plan_text(&room.plan(&inventory, service.clock.now()));
    assert!(plan.contains("» being made, with something to say of it (1)"), "{plan}");
    assert!(plan.contains("isupport@twcc.ai"), "{plan}");
    let found = engine.examine(&Wanted::default()).await;
    let stuck = found.iter().find(|one| one.message.contains("isupport@twcc.ai")).unwrap();
    assert_eq!((stuck.topic, stuck.verdict), (Topic::Instances, Verdict::Wrong));
}
