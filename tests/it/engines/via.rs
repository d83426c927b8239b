//! Disk images that are made from a snapshot, over whole rounds: what killed runs leave is taken up or
//! cleared away, and counted.

use super::*;

impl Bench for Arc<Gce> {
    fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Engine> {
        self.as_ref().open(clock)
    }

    fn damage(&self, _: &Image) {}

    fn capture(&self) -> &'static str {
        self.as_ref().capture()
    }

    fn disks(&self) -> &'static [&'static str] {
        self.as_ref().disks()
    }
}

/// One machine whose boot disk becomes an image.
fn one_machine() -> (Arc<Gce>, Case) {
    let fake = super::super::gce::checked(noon(0));
    fake.state().add_instance("p", "zone-a", "web-1", "web-1");
    let gce = Arc::new(Gce(fake, ImageKind::DiskImage, Via::Snapshot));
    let case = Case {
        bench: Box::new(Arc::clone(&gce)),
        directory: tempfile::tempdir().unwrap(),
        spec: "  retention: {last: 3}\n",
    };
    (gce, case)
}

/// How many images and snapshots there are.
fn counts(gce: &Gce) -> (usize, usize) {
    let state = gce.0.state();
    let count = |collection: &str| state.images.get(collection).map_or(0, BTreeMap::len);
    (count("images"), count("snapshots"))
}

#[tokio::test]
async fn a_run_that_is_killed_anywhere_is_ended_by_the_next() {
    let mut kills = 0;
    for request in 1.. {
        let (gce, case) = one_machine();
        gce.0.state().frozen_at = Some(request);
        let room = case.room(0);
        let work = tokio::spawn(async move {
            room.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
        });
        while !work.is_finished() && !gce.0.state().is_frozen {
            tokio::task::yield_now().await;
        }
        let was_killed = gce.0.state().is_frozen;
        work.abort();
        drop(work.await);
        gce.0.state().frozen_at = None;
        let (images, snapshots) = counts(&gce);
        assert!(images <= 1 && snapshots <= 1, "{request}: {images} images, {snapshots} snapshots");
        for _ in 0..2 {
            let round = case.round(0).await;
            let is_done = |outcome: &stillframe::apply::Outcome| outcome.ending.is_done();
            assert!(round.outcomes.iter().all(is_done), "{request}: {:?}", round.outcomes);
        }
        case.nothing_to_do(0).await;
        assert_eq!(counts(&gce), (1, 0), "killed at request {request}");
        // Where it was begun, what it holds was captured once.
        assert_eq!(gce.0.state().asked("POST projects/p/zones/zone-a/disks/web-1-boot/create"), 1);
        if !was_killed {
            break;
        }
        kills += 1;
    }
    assert!(kills > 25, "killed {kills} times");
}

#[tokio::test]
async fn what_nobody_can_take_up_any_more_is_deleted_by_a_plan() {
    let (gce, case) = one_machine();
    gce.0.state().changes_left = Some(1);
    case.round(0).await;
    gce.0.state().changes_left = None;
    assert_eq!(counts(&gce), (0, 1));
    let left = case.observe(1).await.images;
    assert_eq!((left[0].state, left[0].is_step()), (ImageState::Failed, true));
    // Of the next day there is a snapshot and an image of its own.
    let round = case.round(1).await;
    assert_eq!((round.plan.summary.create, round.plan.summary.delete), (1, 0));
    assert_eq!(counts(&gce), (1, 1));
    assert_eq!(case.observe(1).await.images.iter().find(|image| image.is_step()), left.first());
    // The ledger names what was made and cleared away with the image.
    let ledger = std::fs::read_to_string(case.directory.path().join("ledger.ndjson")).unwrap();
    let ended = ledger.lines().rfind(|line| line.contains("\"change-ended\"")).unwrap();
    let name = &round.plan.changes[0].image.name;
    assert!(
        ended.contains(&format!("\"step\":\"{}\"", stillframe::name::step_name(name))),
        "{ended}"
    );
    // A guard that refuses deletes refuses this one.
    let mut strict = case.room(1);
    Arc::make_mut(&mut strict.policies).config.guards.engine_count = 0;
    let round = strict.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
    assert_eq!((round.plan.summary.delete, &round.outcomes[0].ending), (1, &Ending::Refused));
    assert_eq!(counts(&gce), (1, 1));
    let round = case.round(1).await;
    assert_eq!(round.plan.changes[0].image.id, Some(left[0].id.clone()));
    case.nothing_to_do(1).await;
    assert_eq!(counts(&gce), (1, 0));
}

#[tokio::test]
async fn an_image_that_has_failed_is_made_anew_of_another_snapshot() {
    let (gce, case) = one_machine();
    gce.0.state().wrong = vec![super::super::gce::Wrong::ImageBroken];
    case.round(0).await;
    assert_eq!(counts(&gce), (1, 0));
    // The source is captured twice: not within ten minutes.
    let later = noon(0) + jiff::SignedDuration::from_mins(15);
    let clock: Arc<dyn Clock> = Arc::new(FixedClock(later));
    let room = room(case.bench.open(Arc::clone(&clock)), clock, case.policies(), &case.directory);
    let round = room.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
    let create = round.plan.changes[0].create.as_ref().unwrap();
    assert!(create.replaces.is_some());
    let inventory = room.observe().await;
    assert_eq!(room.plan(&inventory, later).changes, []);
    assert_eq!(counts(&gce), (1, 0));
}
