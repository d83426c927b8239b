//! Engines of clouds against the server of this program, over an embedded engine in a directory of its
//! own: what one of them misunderstands, the other does not say.

mod families;
mod instances;
mod sets;
mod templates;
mod twcc;
mod via;
mod yandex;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use stillframe::apply::{Ending, Outcome, Stop};
use stillframe::clock::Clock;
use stillframe::engine::gce::GceEngine;
use stillframe::engine::http::Pause;
use stillframe::engine::local::LocalEngine;
use stillframe::engine::twcc::TwccEngine;
use stillframe::engine::yandex::YandexEngine;
use stillframe::engine::{Engine, EngineError};
use stillframe::inventory::{EngineInventory, Image, ImageState, LABEL_HOLD, Stage};
use stillframe::reconcile::Round;
use stillframe::serve::access::Access;
use stillframe::serve::{self, Dialect, Service};
use tokio::sync::watch;

use super::super::support::Datacenter;
use super::{Bench, Case, Quiet, Yes, noon};

/// A clock that is set.
struct Set(Mutex<Timestamp>);

impl Clock for Set {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

/// Lets no time of the machine pass but what the server takes for all that is under way: however busy
/// the machine is, a pause is long enough.
struct Patient(Weak<dyn Service>);

#[async_trait::async_trait]
impl Pause for Patient {
    async fn pause(&self, _: Duration) {
        if let Some(service) = self.0.upgrade() {
            service.settle().await;
        }
        tokio::task::yield_now().await;
    }
}

/// Images of boot disks that are made from snapshots.
const VIA_SNAPSHOT: &str = "  capture: {kind: disk-image, via: snapshot, disks: boot}\n";

/// A server on a port of its own. It ends with the test.
pub struct Served {
    /// Where it is.
    pub address: SocketAddr,
    dialect: Dialect,
    /// What policies say of what is captured, and the disks of `web-1` that this takes.
    capture: (&'static str, &'static [&'static str]),
    clock: Arc<Set>,
    /// The server has it, and ends with it.
    service: Weak<dyn Service>,
    stop: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
    datacenter: Datacenter,
}

/// What the server is called as a project.
fn project(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Gce | Dialect::Yandex => "p",
        Dialect::Twcc => "GOV000001",
    }
}

impl Served {
    /// Compute Engine.
    pub fn gce() -> Self {
        Self::new(Dialect::Gce, ("", &["boot", "content", "data"]))
    }

    /// Compute Engine, with images of boot disks.
    pub fn gce_with_disk_images() -> Self {
        let capture = "  capture: {kind: disk-image, disks: boot}\n";
        Self::new(Dialect::Gce, (capture, &["boot"]))
    }

    /// Compute Engine, with restore points of all disks: snapshots as one set.
    pub fn gce_with_sets() -> Self {
        let capture = "  capture: {kind: snapshot}\n";
        Self::new(Dialect::Gce, (capture, &["boot", "content"]))
    }

    /// VCS, with restore points of all disks: an image and snapshots as one set.
    pub fn twcc() -> Self {
        let disks = &["system", "content"];
        Self::new(Dialect::Twcc, ("  capture: {kind: disk-image}\n", disks))
    }

    /// VCS, with restore points of system disks.
    pub fn twcc_with_system_disks() -> Self {
        let capture = "  capture: {kind: disk-image, disks: boot}\n";
        Self::new(Dialect::Twcc, (capture, &["system"]))
    }

    /// Compute Cloud, with restore points of all disks: snapshots as one set.
    pub fn yandex() -> Self {
        let capture = "  capture: {kind: snapshot}\n";
        Self::new(Dialect::Yandex, (capture, &["boot", "content"]))
    }

    /// Compute Cloud, with images of boot disks.
    pub fn yandex_with_disk_images() -> Self {
        let capture = "  capture: {kind: disk-image, disks: boot}\n";
        Self::new(Dialect::Yandex, (capture, &["boot"]))
    }

    /// Compute Engine, with images of boot disks that are made from snapshots.
    pub fn gce_via_snapshot() -> Self {
        Self::new(Dialect::Gce, (VIA_SNAPSHOT, &["boot"]))
    }

    /// Compute Cloud, with images of boot disks that are made from snapshots.
    pub fn yandex_via_snapshot() -> Self {
        Self::new(Dialect::Yandex, (VIA_SNAPSHOT, &["boot"]))
    }

    fn new(dialect: Dialect, capture: (&'static str, &'static [&'static str])) -> Self {
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
        Self::over(datacenter, noon(0), dialect, capture)
    }

    /// The same data centre with another server: what it remembers is all there is.
    pub fn restarted(mut self) -> Self {
        let now = self.clock.now();
        self.end();
        let datacenter = std::mem::replace(&mut self.datacenter, Datacenter::new());
        Self::over(datacenter, now, self.dialect, self.capture)
    }

    fn over(
        datacenter: Datacenter,
        now: Timestamp,
        dialect: Dialect,
        capture: (&'static str, &'static [&'static str]),
    ) -> Self {
        let clock = Arc::new(Set(Mutex::new(now)));
        let settings = json!({
            "instances": "examples/datacenter/instances",
            "store": "store",
            "locations": {"local": {}, "vault": {}},
            "createKeys": true,
        });
        let base = datacenter.path("").canonicalize().unwrap();
        let engine = LocalEngine::open("memory", &settings, &base, clock.clone()).unwrap();
        let server = serve::open(dialect, engine, project(dialect), clock.clone(), true).unwrap();
        let service = Arc::downgrade(&server);
        let (stop, stopped) = watch::channel(false);
        let (told, address) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            let runtime = builder.worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let any = "127.0.0.1:0".parse().unwrap();
                let door = serve::listen(any, Access::default()).await.unwrap();
                told.send(door.address().unwrap()).unwrap();
                serve::serve(door, server, stopped).await.unwrap();
            });
        });
        let address = address.recv().unwrap();
        Self { address, dialect, capture, clock, service, stop, thread: Some(thread), datacenter }
    }

    fn patient(&self) -> Arc<dyn Pause> {
        Arc::new(Patient(Weak::clone(&self.service)))
    }

    fn end(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the server has stopped badly");
        }
    }

    /// Asks the Compute Engine API for something, and lets it come to its end.
    async fn compute(&self, method: &str, path: &str, body: Value) -> Value {
        let url = format!("http://{}/compute/v1/projects/p/{path}", self.address);
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let method = method.parse::<reqwest::Method>().unwrap();
        let mut request = client.request(method, url);
        if !body.is_null() {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{path}: {text}");
        self.patient().pause(Duration::ZERO).await;
        serde_json::from_str(&text).unwrap()
    }

    /// Asks for something to go wrong.
    async fn fault(&self, script: Value) {
        let url = format!("http://{}/faults", self.address);
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = client.post(url).json(&script).send().await.unwrap();
        assert!(answer.status().is_success(), "{script}");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.end();
    }
}

impl Bench for Served {
    fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Engine> {
        *self.clock.0.lock().unwrap() = clock.now();
        let endpoint = format!("http://{}", self.address);
        let project = project(self.dialect);
        let (base, pause) = (Path::new("/nowhere"), self.patient());
        match self.dialect {
            Dialect::Gce => {
                let settings = json!({"projects": [project], "endpoint": endpoint});
                Arc::new(GceEngine::open("memory", &settings, base, clock, pause).unwrap())
            }
            Dialect::Twcc => {
                let settings = json!({"project": project, "endpoint": endpoint});
                Arc::new(TwccEngine::open("memory", &settings, base, clock, pause).unwrap())
            }
            Dialect::Yandex => {
                let copies = [self.locations()[1]];
                let settings =
                    json!({"folders": [project], "copyFolders": copies, "endpoint": endpoint});
                Arc::new(YandexEngine::open("memory", &settings, base, clock, pause).unwrap())
            }
        }
    }

    fn damage(&self, _: &Image) {}

    fn tells_runs_apart(&self) -> bool {
        self.dialect == Dialect::Twcc
    }

    fn id(&self, name: &str) -> String {
        name.replace("web-", "700")
    }

    fn capture(&self) -> &'static str {
        self.capture.0
    }

    fn disks(&self) -> &'static [&'static str] {
        self.capture.1
    }

    fn label(&self) -> &'static str {
        match self.dialect {
            Dialect::Gce | Dialect::Yandex => "colour",
            Dialect::Twcc => LABEL_HOLD,
        }
    }

    fn locations(&self) -> [&'static str; 2] {
        match self.dialect {
            Dialect::Gce | Dialect::Twcc => ["local", "vault"],
            Dialect::Yandex => ["", "p-vault"],
        }
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

    fn capture(&self) -> &'static str {
        self.as_ref().capture()
    }

    fn disks(&self) -> &'static [&'static str] {
        self.as_ref().disks()
    }

    fn label(&self) -> &'static str {
        self.as_ref().label()
    }

    fn locations(&self) -> [&'static str; 2] {
        self.as_ref().locations()
    }
}

impl Trouble {
    /// Two days go well: there is a point to lose, and one to let go.
    async fn after_two_days() -> Self {
        Self::over(Served::gce()).await
    }

    async fn over(served: Served) -> Self {
        let served = Arc::new(served);
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
        let round = room.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
        let after = self.case.observe(day).await.images;
        // Whatever is gone was let go a day before, or was no restore point.
        let points = before.iter().filter(|image| !image.is_step());
        for image in points.filter(|image| !after.iter().any(|other| other.id == image.id)) {
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
        assert!(images.iter().all(|image| image.state == ImageState::Ready), "{images:#?}");
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
    a_new_image_comes_too_fast_and_waits(json!({"fault": "rate-in-operation", "times": 1}))
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

/// Each waits once. That two wait at the same time is sure only where both are refused twice.
#[tokio::test]
async fn new_images_come_too_fast_however_long_they_wait() {
    let trouble = Trouble::after_two_days().await;
    trouble.case.round(2).await;
    let round = trouble.day(3, &[json!({"fault": "rate-in-operation", "times": 4})]).await;
    let is_failed = |outcome: &&Outcome| matches!(outcome.ending, Ending::Failed { .. });
    assert_eq!(round.outcomes.iter().filter(is_failed).count(), 2, "{:#?}", round.outcomes);
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
