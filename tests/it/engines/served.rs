//! The engine for Compute Engine against the server of this program, over an embedded engine in a
//! directory of its own: what one of them misunderstands, the other does not say.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use serde_json::{Value, json};
use stillframe::apply::Stop;
use stillframe::clock::Clock;
use stillframe::engine::Engine;
use stillframe::engine::gce::GceEngine;
use stillframe::engine::local::LocalEngine;
use stillframe::inventory::{Image, ImageState};
use stillframe::reconcile::Round;
use stillframe::serve::access::Access;
use stillframe::serve::{self, Dialect};
use tokio::sync::watch;

use super::super::gce::Swift;
use super::super::support::Datacenter;
use super::{Bench, Case, Quiet, Yes, noon};

/// A clock that is set.
struct Set(Mutex<Timestamp>);

impl Clock for Set {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

/// A server on a port of its own. It ends with the test.
pub struct Served {
    /// Where it is.
    pub address: SocketAddr,
    clock: Arc<Set>,
    stop: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
    _datacenter: Datacenter,
}

impl Served {
    pub fn new() -> Self {
        let datacenter = Datacenter::new();
        for (name, id) in [("web-1", "7001"), ("web-2", "7002")] {
            // The API has numbers for ids.
            datacenter.edit(&format!("examples/datacenter/instances/{name}.yaml"), |text| {
                text.replacen(
                    &format!("name: {name}\n"),
                    &format!("name: {name}\n  id: \"{id}\"\n"),
                    1,
                )
            });
        }
        let clock = Arc::new(Set(Mutex::new(noon(0))));
        let settings = json!({
            "instances": "examples/datacenter/instances",
            "store": "store",
            "locations": {"local": {}, "vault": {}},
            "createKeys": true,
        });
        let base = datacenter.path("").canonicalize().unwrap();
        let engine = LocalEngine::open("memory", &settings, &base, clock.clone()).unwrap();
        let service = serve::open(Dialect::Gce, engine, "p", clock.clone(), true).unwrap();
        let (stop, stopped) = watch::channel(false);
        let (told, address) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            let runtime = builder.worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let any = "127.0.0.1:0".parse().unwrap();
                let door = serve::listen(any, Access::default()).await.unwrap();
                told.send(door.address().unwrap()).unwrap();
                serve::serve(door, service, stopped).await.unwrap();
            });
        });
        let address = address.recv().unwrap();
        Self { address, clock, stop, thread: Some(thread), _datacenter: datacenter }
    }

    /// Asks for something to go wrong.
    async fn fault(&self, script: Value) {
        let url = format!("http://{}/faults", self.address);
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = client.post(url).json(&script).send().await.unwrap();
        assert_eq!(answer.status(), 204, "{script}");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the server has stopped badly");
        }
    }
}

impl Bench for Served {
    fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Engine> {
        *self.clock.0.lock().unwrap() = clock.now();
        let settings = json!({"projects": ["p"], "endpoint": format!("http://{}", self.address)});
        let pause = Arc::new(Swift::default());
        let engine = GceEngine::open("memory", &settings, Path::new("/nowhere"), clock, pause);
        Arc::new(engine.unwrap())
    }

    fn damage(&self, _: &Image) {}

    fn tells_runs_apart(&self) -> bool {
        false
    }

    fn id(&self, name: &str) -> String {
        name.replace("web-", "700")
    }
}

/// Keeps one point for each of two machines, over days on which something goes wrong.
struct Trouble {
    case: Case,
    served: Arc<Served>,
}

impl Bench for Arc<Served> {
    fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Engine> {
        self.as_ref().open(clock)
    }

    fn damage(&self, _: &Image) {}

    fn id(&self, name: &str) -> String {
        self.as_ref().id(name)
    }
}

impl Trouble {
    /// Two days go well: there is a point to lose, and one to let go.
    async fn after_two_days() -> Self {
        let served = Arc::new(Served::new());
        let case = Case {
            bench: Box::new(Arc::clone(&served)),
            directory: tempfile::tempdir().unwrap(),
            spec: "  retention: {last: 2}\n  lifecycle: {grace: 1d}\n",
        };
        for day in 0..2 {
            case.round(day).await;
            case.nothing_to_do(day).await;
        }
        Self { case, served }
    }

    /// A day on which something goes wrong, and nothing is given up for it.
    async fn day(&self, day: i64, scripts: &[Value]) -> Round {
        let before = self.case.observe(day).await.images;
        for script in scripts {
            self.served.fault(script.clone()).await;
        }
        let room = self.case.room(day);
        let round = room.round(&Yes, Arc::new(Quiet), &Stop::default()).await.unwrap();
        let after = self.case.observe(day).await.images;
        // Whatever is gone was let go a day before.
        for image in before.iter().filter(|image| !after.iter().any(|other| other.id == image.id)) {
            assert!(image.let_go_at().is_some_and(|at| at <= noon(day - 1)), "{}", image.name);
        }
        round
    }

    /// All is well: two points of each machine, one more that was let go, and nothing to do.
    async fn ends_well(&self, day: i64) {
        for _ in 0..2 {
            self.case.round(day).await;
        }
        self.case.nothing_to_do(day).await;
        let images = self.case.observe(day).await.images;
        assert!(images.iter().all(|image| image.state == ImageState::Ready));
        let kept = images.iter().filter(|image| image.let_go_at().is_none());
        assert_eq!((images.len(), kept.count()), (6, 4), "{images:#?}");
    }
}

/// What goes wrong, each on a day on which two points are made, two let go and two deleted.
macro_rules! troubles {
    ($($name:ident($script:expr))*) => {
        $(
            #[tokio::test]
            async fn $name() {
                let trouble = Trouble::after_two_days().await;
                trouble.case.round(2).await;
                trouble.day(3, &[$script]).await;
                trouble.ends_well(3).await;
            }
        )*
    };
}

troubles! {
    an_answer_about_a_new_image_is_lost(json!({"fault": "reply-lost", "method": "POST", "collection": "machineImages", "times": 2}))
    answers_about_deleted_images_are_lost(json!({"fault": "reply-lost", "method": "DELETE", "times": 2}))
    the_service_is_away_and_comes_back(json!({"fault": "unavailable", "times": 3}))
    new_images_come_too_fast(json!({"fault": "rate-in-operation", "times": 2}))
    a_storm_of_refusals_for_the_rate(json!({"fault": "rate-limit", "times": 6}))
    labels_are_changed_meanwhile(json!({"fault": "stale-fingerprint", "times": 2}))
    operations_take_their_time(json!({"fault": "slow-operation", "times": 20}))
}

/// A run within the same moment is answered with what became of the first; a later one asks anew.
#[tokio::test]
async fn new_images_fail_in_their_operations() {
    let trouble = Trouble::after_two_days().await;
    trouble.case.round(2).await;
    trouble.day(3, &[json!({"fault": "quota-in-operation", "times": 2})]).await;
    trouble.ends_well(4).await;
}

#[tokio::test]
async fn a_page_that_is_lost_is_a_gap_and_deletes_nothing() {
    let trouble = Trouble::after_two_days().await;
    trouble.case.round(2).await;
    let short = json!({"fault": "short-page", "collection": "machineImages", "times": 4});
    let lost = json!({"fault": "vanished-page", "times": 1});
    trouble.served.fault(short.clone()).await;
    trouble.served.fault(lost.clone()).await;
    let inventory = trouble.case.observe(3).await;
    assert!(!inventory.is_complete(), "a page was lost and nobody says so");
    let round = trouble.day(3, &[short, lost]).await;
    assert_eq!((round.plan.summary.deprecate, round.plan.summary.delete), (0, 0));
    trouble.ends_well(3).await;
}

#[tokio::test]
async fn short_pages_are_read_to_the_end() {
    let trouble = Trouble::after_two_days().await;
    trouble.served.fault(json!({"fault": "short-page", "times": 40})).await;
    let inventory = trouble.case.observe(1).await;
    assert!(inventory.is_complete(), "{:?}", inventory.gaps);
    assert_eq!(inventory.images.len(), 4);
    assert!(inventory.instances.len() > 2);
}
