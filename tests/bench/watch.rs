//! The long-running mode while nothing is due: memory, processor time, and what it asks of engines.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{env, fs};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use stillframe::apply::Ledger;
use stillframe::clock::Clock;
use stillframe::engine::{CreateRequest, Created, Engine, EngineError, Settled, Watcher};
use stillframe::inventory::{EngineInventory, Image, ImageState, Stage};
use stillframe::plan::{ImageRef, Update};
use stillframe::policy::{self, Policies, load_with};
use stillframe::watch::{
    Bell, Opened, Pace, Post, Reading, Status, System, Watch, World, WorldError,
};

use crate::cloud::CALLS_MAX;
use crate::{MIB, all_threads, row, world};

const POLICIES: usize = 1_000;
const SOURCES: usize = 10;
/// Images of each source, while it is idle.
const IMAGES: usize = 3;
const MEMORY_LIMIT: f64 = 40.0;
/// So long it is looked at while it has nothing to do.
const IDLE_FOR: Duration = Duration::from_secs(30);
/// The arguments with which this program measures: without and with the page.
pub const IDLE: &str = "watch-idle";
pub const PAGE: &str = "page";

/// Each in a process of its own: what other parts have used would count.
pub fn run() {
    for page in ["no page", PAGE] {
        let mut measuring = Command::new(env::current_exe().unwrap());
        assert!(measuring.args([IDLE, page]).status().unwrap().success());
    }
}

/// An engine over a generated world. It makes the world anew each time it is asked, as an engine that
/// asks a service does.
struct Generated {
    images: usize,
    made: Mutex<BTreeMap<String, Image>>,
    observed: AtomicU64,
}

#[async_trait]
impl Engine for Generated {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn observe(&self) -> EngineInventory {
        self.observed.fetch_add(1, Ordering::SeqCst);
        let mut engine = world::spread(POLICIES, SOURCES, self.images).engines.remove(0);
        engine.images.extend(self.made.lock().unwrap().values().cloned());
        engine
    }

    async fn create(
        &self,
        request: CreateRequest,
        _: Arc<dyn Watcher>,
    ) -> Result<Created, EngineError> {
        let image = Image {
            id: request.name.clone(),
            name: request.name.clone(),
            kind: request.create.kind,
            state: ImageState::Ready,
            stage: Stage::Active,
            created_at: request.key.slot.instant(),
            location: request.location,
            kms_key: None,
            family: None,
            sharing: None,
            labels: request.create.labels,
            source: None,
            stored_bytes: Some(MIB),
            disk_bytes: Some(MIB),
            fingerprint: request.name.clone(),
            disks: None,
            project: String::new(),
            in_use_by: Vec::new(),
            message: None,
        };
        self.made.lock().unwrap().insert(request.name, image.clone());
        Ok(Created::Made(image))
    }

    async fn update(&self, _: &ImageRef, _: &Update) -> Result<Image, EngineError> {
        Err(EngineError::Refused("nothing is changed here".to_owned()))
    }

    async fn delete(&self, _: &ImageRef) -> Result<(), EngineError> {
        Err(EngineError::Refused("nothing is deleted here".to_owned()))
    }

    async fn settle(&self) -> Result<Settled, EngineError> {
        Ok(Settled::default())
    }
}

struct Installation {
    engine: Arc<Generated>,
    ledger: Arc<Ledger>,
}

#[async_trait]
impl World for Installation {
    async fn read(&self) -> Reading {
        let files = world::files(POLICIES).into_iter().map(Arc::new).collect();
        let loaded = load_with(files, &[world::kind()], policy::Reading::default());
        Reading { policies: loaded.policies, findings: loaded.findings, files: Vec::new() }
    }

    async fn open(
        &self,
        _: &Arc<Policies>,
        _: Option<(&Policies, &Opened)>,
    ) -> Result<Opened, WorldError> {
        Ok(Opened { engines: vec![self.engine.clone()], ledger: Arc::clone(&self.ledger) })
    }
}

/// Time that passes from an instant on, as tokio counts it.
struct Passing(tokio::time::Instant);

impl Clock for Passing {
    fn now(&self) -> Timestamp {
        let passed = SignedDuration::from_secs(self.0.elapsed().as_secs() as i64);
        world::now() + passed
    }
}

fn start(images: usize, directory: &tempfile::TempDir) -> (Arc<Generated>, Arc<Status>, Bell) {
    let engine =
        Arc::new(Generated { images, made: Mutex::default(), observed: AtomicU64::new(0) });
    let ledger = Arc::new(Ledger::new(directory.path().join("ledger.ndjson")));
    let (bell, status) = (Bell::default(), Arc::new(Status::default()));
    let watch = Watch {
        author: None,
        world: Arc::new(Installation { engine: Arc::clone(&engine), ledger }),
        clock: Arc::new(Passing(tokio::time::Instant::now())),
        bell: bell.clone(),
        status: Arc::clone(&status),
        system: System::default(),
        pace: Pace::default(),
        identity: "bench".to_owned(),
        grace: None,
        files: None,
        courier: Arc::new(Post::new(|_| None)),
    };
    tokio::spawn(watch.run());
    (engine, status, bell)
}

/// Measures an idle watch, with the page or without.
pub fn idle(has_page: bool) {
    let page = if has_page { "with the page" } else { "without the page" };
    println!("{POLICIES} policies, {} sources, {page}", POLICIES * SOURCES);
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (engine, status, _bell) = start(IMAGES, &directory);
        if has_page {
            status.keep_page();
        }
        status.until(|now| now.engines.values().any(|engine| !engine.rounds.is_empty())).await;
        let peak = status_bytes("VmHWM");
        let (began, observed) = (all_threads(), engine.observed.load(Ordering::SeqCst));
        tokio::time::sleep(IDLE_FOR).await;
        let used = all_threads().saturating_sub(began);
        let resident = status_bytes("VmRSS");
        let mebibytes = resident as f64 / MIB as f64;
        let ratio = Some(mebibytes / MEMORY_LIMIT);
        row("memory while idle", &format!("{mebibytes:.1} MiB"), ratio, Some(1.0));
        let program = status_bytes("RssFile") as f64 / MIB as f64;
        row("  of it the program itself", &format!("{program:.1} MiB"), None, None);
        row("  at the peak of a round", &format!("{} MiB", peak / MIB), None, None);
        let idle = format!("{:.1} ms", used.as_secs_f64() * 1_000.0);
        row(&format!("  processor time in {} s", IDLE_FOR.as_secs()), &idle, None, None);
        let rounds = engine.observed.load(Ordering::SeqCst) - observed;
        row("  looks at the engine meanwhile", &rounds.to_string(), None, None);
    });
    drop(runtime);
    if !has_page {
        count_a_day(&directory);
    }
}

/// Counts what a day asks for.
fn count_a_day(directory: &tempfile::TempDir) {
    let paused = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    paused.block_on(async {
        let (engine, _status, _bell) = start(0, directory);
        tokio::time::sleep(Duration::from_hours(24)).await;
        let looks = engine.observed.load(Ordering::SeqCst);
        let made = engine.made.lock().unwrap().len();
        let hourly = looks as f64 / 24.0;
        row("looks at the engine in an hour, of a day", &format!("{hourly:.1}"), None, None);
        let calls = hourly * CALLS_MAX as f64;
        row("  calls of the API, as many images as in `cloud`", &format!("{calls:.0}"), None, None);
        row("  restore points made on that day", &made.to_string(), None, None);
    });
}

/// A figure of `/proc/self/status` in bytes.
fn status_bytes(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
