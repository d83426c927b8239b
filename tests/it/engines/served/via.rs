//! Images that are made from snapshots against the server of this program: what goes wrong costs
//! nothing, and the run after it has nothing to do.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use stillframe::engine::http::Pause;
use stillframe::engine::{Created, Unwatched};

use super::super::{policies, room};
use super::*;

/// What goes wrong, each on a day on which two points are made, two let go and two deleted. What may
/// be made anew only a day later ends then.
macro_rules! troubles {
    ($($name:ident($ends:expr, $($script:expr),+))*) => {
        $(
            mod $name {
                use super::*;

                #[tokio::test]
                async fn with_compute_engine() {
                    check(Served::gce_via_snapshot()).await;
                }

                #[tokio::test]
                async fn with_yandex() {
                    check(Served::yandex_via_snapshot()).await;
                }

                async fn check(served: Served) {
                    let trouble = Trouble::over(served).await;
                    trouble.case.round(2).await;
                    trouble.day(3, &[$($script),+]).await;
                    trouble.ends_well($ends).await;
                }
            }
        )*
    };
}

troubles! {
    an_answer_about_a_new_snapshot_is_lost(3, json!({"fault": "reply-lost", "method": "POST", "times": 2}))
    an_answer_about_a_new_image_is_lost(3, json!({"fault": "reply-lost", "method": "POST", "collection": "images", "times": 2}))
    answers_about_deleted_snapshots_are_lost(3, json!({"fault": "reply-lost", "method": "DELETE", "collection": "snapshots", "times": 2}))
    the_service_is_away_and_comes_back(3, json!({"fault": "unavailable", "times": 3}))
    a_storm_of_refusals_for_the_rate(3, json!({"fault": "rate-limit", "times": 6}))
    operations_take_their_time(3, json!({"fault": "slow-operation", "times": 30}))
    snapshots_fail_in_their_operations(4, json!({"fault": "quota-in-operation", "times": 2}))
    images_fail_in_their_operations(4, json!({"fault": "quota-in-operation", "collection": "images", "times": 2}))
}

/// Images and snapshots that vanish as soon as they are made, and names that are there twice.
#[tokio::test]
async fn what_yandex_may_do_beside() {
    for script in [
        json!({"fault": "vanishing-image", "collection": "snapshots", "times": 2}),
        json!({"fault": "vanishing-image", "collection": "images", "times": 2}),
        json!({"fault": "duplicate", "collection": "snapshots", "times": 1}),
    ] {
        let trouble = Trouble::over(Served::yandex_via_snapshot()).await;
        trouble.case.round(2).await;
        trouble.day(3, &[script]).await;
        trouble.ends_well(4).await;
    }
}

/// Lets a run come so far as to wait so often, and no further.
struct Killed {
    left: AtomicUsize,
    is_dead: watch::Sender<bool>,
    patient: Arc<dyn Pause>,
}

#[async_trait::async_trait]
impl Pause for Killed {
    async fn pause(&self, time: Duration) {
        if self.left.load(Ordering::SeqCst) == 0 {
            self.is_dead.send_replace(true);
            std::future::pending::<()>().await;
        }
        self.left.fetch_sub(1, Ordering::SeqCst);
        self.patient.pause(time).await;
    }
}

fn killed_engine(served: &Served, pause: Arc<dyn Pause>) -> Arc<dyn Engine> {
    let endpoint = format!("http://{}", served.address);
    let (base, clock) = (Path::new("/nowhere"), super::super::clock(0));
    served.open(clock.clone());
    if served.dialect == Dialect::Yandex {
        let settings = json!({"folders": ["p"], "endpoint": endpoint});
        return Arc::new(YandexEngine::open("memory", &settings, base, clock, pause).unwrap());
    }
    let settings = json!({"projects": ["p"], "endpoint": endpoint});
    Arc::new(GceEngine::open("memory", &settings, base, clock, pause).unwrap())
}

async fn killed_while_waiting(make: fn() -> Served, kills_at_least: usize) {
    let mut kills = 0;
    for waits in 0..40 {
        let served = Arc::new(make());
        // There is something to wait for at each step.
        served.fault(json!({"fault": "slow-operation", "times": 4})).await;
        let directory = tempfile::tempdir().unwrap();
        let case = Case {
            bench: Box::new(Arc::clone(&served)),
            directory,
            spec: "  retention: {last: 2}\n",
        };
        let (is_dead, mut died) = watch::channel(false);
        let pause =
            Arc::new(Killed { left: AtomicUsize::new(waits), is_dead, patient: served.patient() });
        let engine = killed_engine(&served, pause);
        let policies = policies(case.bench.capture());
        let dead = room(engine, super::super::clock(0), policies, &case.directory);
        let work = tokio::spawn(async move {
            dead.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
        });
        let was_killed = tokio::select! {
            _ = died.wait_for(|is_dead| *is_dead) => true,
            () = async { while !work.is_finished() { tokio::task::yield_now().await } } => false,
        };
        work.abort();
        drop(work.await);
        // The first run after it may see what the server is still at; the others see what came of that.
        for _ in 0..3 {
            case.round(0).await;
            served.patient().pause(Duration::ZERO).await;
        }
        case.nothing_to_do(0).await;
        let images = case.observe(0).await.images;
        assert!(images.iter().all(|image| image.state == ImageState::Ready), "{images:#?}");
        assert_eq!(images.len(), 2, "killed at pause {waits}: {images:#?}");
        if !was_killed {
            break;
        }
        kills += 1;
    }
    assert!(kills >= kills_at_least, "killed {kills} times");
}

#[tokio::test]
async fn a_run_that_is_killed_while_it_waits_is_ended_by_the_next_with_compute_engine() {
    killed_while_waiting(Served::gce_via_snapshot, 4).await;
}

#[tokio::test]
async fn a_run_that_is_killed_while_it_waits_is_ended_by_the_next_with_yandex() {
    killed_while_waiting(Served::yandex_via_snapshot, 4).await;
}

/// Two programs at once, each step of the one beside any of the other.
#[tokio::test]
async fn two_runs_at_once_make_one_image() {
    for make in [Served::gce_via_snapshot as fn() -> Served, Served::yandex_via_snapshot] {
        for later in 0..6 {
            let served = Arc::new(make());
            let directory = tempfile::tempdir().unwrap();
            let case = Case { bench: Box::new(Arc::clone(&served)), directory, spec: "" };
            let request = case.request(0);
            let (one, other) =
                (served.open(super::super::clock(0)), served.open(super::super::clock(0)));
            let first = one.create(request.clone(), Arc::new(Unwatched));
            let second = async {
                for _ in 0..later * 40 {
                    tokio::task::yield_now().await;
                }
                other.create(request.clone(), Arc::new(Unwatched)).await
            };
            let (first, second) = tokio::join!(first, second);
            let ids = [first, second]
                .map(|created: Result<Created, EngineError>| created.unwrap().image().id.clone());
            assert_eq!(ids[0], ids[1]);
            let images = one.observe().await.images;
            assert_eq!(images.len(), 1, "{images:#?}");
        }
    }
}
