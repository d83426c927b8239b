//! Two machines in a folder, and a clock that goes on as engines wait.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use stillframe::engine::http::Pause;
use stillframe::engine::{CreateRequest, Created, Unwatched, Watcher};
use stillframe::inventory::{Consistency, Instance};

use super::super::*;

/// The id of `web-1`.
pub const WEB_1: &str = "compute/v1/instances/7001";

/// Asks the API beside the engine, whatever it answers.
pub async fn try_ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: Option<&Value>,
    key: Option<&str>,
) -> (u16, Value) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{address}/{path}");
    let mut request = client.request(method.parse().unwrap(), url);
    if let Some(body) = body {
        request = request.json(body);
    }
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// Asks the API beside the engine.
pub async fn ask(address: SocketAddr, method: &str, path: &str, body: Option<&Value>) -> Value {
    let (status, answer) = try_ask(address, method, path, body, None).await;
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

/// What somebody does beside the engine.
pub type Deed = (&'static str, String, Value);

/// The wait for which a service asks that refuses a request for its rate, and the first step of it where
/// somebody may ask to stop. No look at anything takes as long here.
const REFUSED: [Duration; 2] = [Duration::from_secs(7), Duration::from_secs(5)];

type Thunk = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// Lets the time of the clock pass in place of that of the machine. At each pause it looks at `web-1`,
/// and does what is to be done next.
pub struct Ticking {
    clock: Arc<Set>,
    patient: Arc<dyn Pause>,
    address: SocketAddr,
    deeds: Mutex<VecDeque<Deed>>,
    /// What is done at the next pauses, and what once a request is refused and waits.
    thunks: Mutex<VecDeque<Thunk>>,
    refused: Mutex<VecDeque<Thunk>>,
    /// Whether pauses last until this is taken back.
    pub held: watch::Sender<bool>,
    /// What `web-1` was at each pause, and by when it must run again.
    seen: Mutex<Vec<(String, Option<String>)>>,
}

#[async_trait::async_trait]
impl Pause for Ticking {
    async fn pause(&self, time: Duration) {
        let deed = self.deeds.lock().unwrap().pop_front();
        if let Some((method, path, body)) = deed {
            ask(self.address, method, &path, Some(&body)).await;
        }
        let thunk = self.thunks.lock().unwrap().pop_front();
        let refused =
            if REFUSED.contains(&time) { self.refused.lock().unwrap().pop_front() } else { None };
        for thunk in thunk.into_iter().chain(refused) {
            thunk().await;
        }
        let machine = ask(self.address, "GET", WEB_1, None).await;
        let until = machine["labels"]["stillframe-restart"].as_str().map(str::to_owned);
        let status = machine["status"].as_str().unwrap_or_default().to_owned();
        self.seen.lock().unwrap().push((status, until));
        let _ = self.held.subscribe().wait_for(|is_held| !is_held).await;
        self.patient.pause(time).await;
        *self.clock.0.lock().unwrap() += time;
    }
}

impl Ticking {
    /// Has somebody do something at the next pauses.
    pub fn meanwhile(&self, deeds: impl IntoIterator<Item = Deed>) {
        self.deeds.lock().unwrap().extend(deeds);
    }
}

/// The world.
pub struct World {
    pub served: Arc<Served>,
    pub case: Case,
    pub ticking: Arc<Ticking>,
}

impl World {
    pub fn new() -> Self {
        Self::over(Served::yandex())
    }

    pub fn over(served: Served) -> Self {
        let served = Arc::new(served);
        let case = Case {
            bench: Box::new(Arc::clone(&served)),
            directory: tempfile::tempdir().unwrap(),
            spec: "",
        };
        let ticking = Arc::new(Ticking {
            clock: Arc::clone(&served.clock),
            patient: served.patient(),
            address: served.address,
            deeds: Mutex::default(),
            thunks: Mutex::default(),
            refused: Mutex::default(),
            held: watch::channel(false).0,
            seen: Mutex::default(),
        });
        Self { served, case, ticking }
    }

    /// The same, and `web-1` has disks that are captured while their snapshots are made.
    pub fn with_slow_disks() -> Self {
        let world = Self::new();
        world.served.datacenter.edit("examples/datacenter/instances/web-1.yaml", |text| {
            text.replace(
                "boot: true, autoDelete",
                "diskType: network-ssd-io-m3, boot: true, autoDelete",
            )
        });
        world
    }

    /// An engine of its own, as another run has one.
    pub fn engine(&self) -> YandexEngine {
        self.engine_with(json!({"folders": ["p"]}))
    }

    pub fn engine_with(&self, mut settings: Value) -> YandexEngine {
        if settings["endpoint"].is_null() {
            settings["endpoint"] = json!(format!("http://{}", self.served.address));
        }
        let (clock, pause) = (self.served.clock.clone(), self.ticking.clone());
        YandexEngine::open(
            "memory",
            &settings,
            self.served.datacenter.path("").as_path(),
            clock,
            pause,
        )
        .unwrap()
    }

    /// An engine that asks for everything at an address of its own.
    pub fn engine_behind(&self, url: &str) -> YandexEngine {
        let endpoints = json!({"compute": url, "operation": url});
        self.engine_with(json!({"folders": ["p"], "endpoints": endpoints}))
    }

    /// Lets time pass.
    pub fn pass(&self, minutes: i64) {
        *self.served.clock.0.lock().unwrap() += jiff::SignedDuration::from_mins(minutes);
    }

    pub fn now(&self) -> Timestamp {
        self.served.clock.now()
    }

    /// Has somebody do something at the next pauses.
    pub fn meanwhile(&self, deeds: impl IntoIterator<Item = Deed>) {
        self.ticking.meanwhile(deeds);
    }

    /// Has somebody do something at the next pause.
    pub fn at_pause<F: Future<Output = ()> + Send + 'static>(
        &self,
        deed: impl FnOnce(SocketAddr) -> F + Send + 'static,
    ) {
        let address = self.served.address;
        self.ticking.thunks.lock().unwrap().push_back(Box::new(move || deed(address).boxed()));
    }

    /// Has somebody do something at the next waits of requests that were refused for their rate.
    pub fn while_refused<F: Future<Output = ()> + Send + 'static>(
        &self,
        deed: impl FnOnce(SocketAddr) -> F + Send + 'static,
    ) {
        let address = self.served.address;
        self.ticking.refused.lock().unwrap().push_back(Box::new(move || deed(address).boxed()));
    }

    /// What `web-1` was at each pause so far, and by when it must run again.
    pub fn seen(&self) -> Vec<(String, Option<String>)> {
        self.ticking.seen.lock().unwrap().clone()
    }

    pub async fn fault(&self, script: Value) {
        self.served.fault(script).await;
    }

    pub async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        ask(self.served.address, method, path, body.as_ref()).await
    }

    /// What is wanted of a slot.
    pub fn request(&self, day: i64) -> CreateRequest {
        self.case.request(day)
    }

    /// The same of a machine that stands still for it.
    pub fn stopped(&self, day: i64) -> CreateRequest {
        let mut request = self.case.request(day);
        request.create.consistency = Consistency::Stopped;
        request
    }

    pub async fn create(&self, request: CreateRequest) -> Result<Created, EngineError> {
        self.watched(request, Arc::new(Unwatched)).await
    }

    pub async fn watched(
        &self,
        request: CreateRequest,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Created, EngineError> {
        self.engine().create(request, watcher).await
    }

    /// The states of all images.
    pub async fn states(&self) -> Vec<ImageState> {
        let inventory = self.engine().observe().await;
        assert!(inventory.is_complete(), "{:?}", inventory.gaps);
        inventory.images.iter().map(|image| image.state).collect()
    }

    /// How many snapshots the folder has.
    pub async fn snapshots(&self) -> usize {
        let listed = self.ask("GET", "compute/v1/snapshots?folderId=p", None).await;
        listed["snapshots"].as_array().map_or(0, Vec::len)
    }

    /// `web-1`, as the engine sees it.
    pub async fn machine(&self) -> Instance {
        let instances = self.engine().observe().await.instances;
        instances.into_iter().find(|one| one.name == "web-1").unwrap()
    }

    pub async fn runs(&self) -> bool {
        let machine = self.machine().await;
        machine.status == "RUNNING" && !machine.labels.contains_key("stillframe-restart")
    }
}

/// Somebody adds labels to what has some.
pub async fn add_labels(address: SocketAddr, path: &str, more: &[(&str, &str)]) {
    let mut labels = ask(address, "GET", path, None).await["labels"].clone();
    for (label, value) in more {
        labels[*label] = json!(value);
    }
    let body = json!({"updateMask": "labels", "labels": labels});
    ask(address, "PATCH", path, Some(&body)).await;
}

/// Labels of `web-1`, as a whole.
pub fn labels(labels: &Value) -> Deed {
    ("PATCH", WEB_1.to_owned(), json!({"updateMask": "labels", "labels": labels}))
}

/// `web-1` is stopped or started.
pub fn turn(verb: &str) -> Deed {
    ("POST", format!("{WEB_1}:{verb}"), json!({}))
}
