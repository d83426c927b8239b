//! The long-running mode, driven through virtual time: tokio's paused clock is the clock of the machine.

mod agenda;
#[cfg(feature = "kubernetes")]
mod cluster;
mod delay;
mod files;
mod hangs;
mod lasting;
pub mod metrics;
mod notify;
mod page;
mod program;
mod reload;
mod unseen;
mod year;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use stillframe::apply::Ledger;
use stillframe::clock::Clock;
use stillframe::engine::{Author, Engine, OpenError};
use stillframe::inventory::{Image, ImageState};
use stillframe::name::{Ownership, Slot};
use stillframe::policy::{EngineKind, Loaded, Policies, SourceFile, load};
use stillframe::reconcile::RoomError;
use stillframe::watch::{
    Bell, Courier, Opened, Pace, Post, Reading, Status, System, Watch, World, WorldError,
};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::memory::MemoryEngine;

/// The time of tokio, counted from an instant, and set forwards and back.
pub struct VirtualClock {
    base: Timestamp,
    began: Instant,
    skew_seconds: AtomicI64,
}

impl VirtualClock {
    pub fn from(base: &str) -> Arc<Self> {
        Arc::new(Self {
            base: base.parse().unwrap(),
            began: Instant::now(),
            skew_seconds: AtomicI64::new(0),
        })
    }

    pub fn step(&self, seconds: i64) {
        self.skew_seconds.fetch_add(seconds, Ordering::SeqCst);
    }

    /// Sleeps until this clock shows an instant.
    pub async fn reach(&self, instant: Timestamp) {
        let left = instant.duration_since(self.now());
        if left.is_positive() {
            tokio::time::sleep(left.unsigned_abs()).await;
        }
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.began.elapsed()).unwrap();
        let skew = SignedDuration::from_secs(self.skew_seconds.load(Ordering::SeqCst));
        let now = self.base + passed + skew;
        Timestamp::from_second(now.as_second()).unwrap()
    }
}

/// Policies as text, engines in memory.
pub struct Script {
    /// What stands in the files.
    pub text: Mutex<String>,
    read: Mutex<Option<(String, Loaded)>>,
    pub engines: Mutex<Vec<Arc<dyn Engine>>>,
    /// What is in the way of opening them.
    pub fault: Mutex<Option<String>>,
    /// Reading does not return, or opening does not.
    pub hangs: [AtomicBool; 2],
    ledger: Arc<Ledger>,
}

impl Script {
    pub fn new(text: &str, engines: Vec<Arc<dyn Engine>>, directory: &Path) -> Arc<Self> {
        let ledger = Arc::new(Ledger::new(directory.join("ledger.ndjson")));
        let (text, engines) = (Mutex::new(text.to_owned()), Mutex::new(engines));
        let (read, fault, hangs) = (Mutex::default(), Mutex::default(), Default::default());
        Arc::new(Self { text, read, engines, fault, hangs, ledger })
    }

    pub fn write(&self, text: &str) {
        text.clone_into(&mut self.text.lock().unwrap());
    }
}

#[async_trait]
impl World for Script {
    async fn read(&self) -> Reading {
        if self.hangs[0].load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let text = self.text.lock().unwrap().clone();
        // Most of the time it is what it was.
        let mut read = self.read.lock().unwrap();
        if read.as_ref().is_none_or(|(known, _)| *known != text) {
            let file = SourceFile { path: "stillframe.yaml".to_owned(), text: text.clone() };
            *read = Some((text, load(vec![file], &[kind()])));
        }
        let (_, loaded) = read.as_ref().unwrap();
        let (policies, findings) = (loaded.policies.clone(), loaded.findings.clone());
        Reading { policies, findings, files: Vec::new() }
    }

    async fn open(
        &self,
        policies: &Arc<Policies>,
        _: Option<(&Policies, &Opened)>,
    ) -> Result<Opened, WorldError> {
        if self.hangs[1].load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if let Some(message) = self.fault.lock().unwrap().clone() {
            let error = OpenError { engine: "one".to_owned(), message };
            return Err(RoomError::from(error).into());
        }
        let engines = self.engines.lock().unwrap().clone();
        let is_named =
            |engine: &Arc<dyn Engine>| policies.config.engines.contains_key(engine.name());
        Ok(Opened {
            engines: engines.into_iter().filter(is_named).collect(),
            ledger: Arc::clone(&self.ledger),
        })
    }
}

fn kind() -> EngineKind {
    EngineKind {
        check: |_| Vec::new(),
        name: "memory",
        settings_schema: serde_json::json!({"type": "object"}),
        capabilities: |_| super::memory::capabilities(),
    }
}

/// A configuration with engines and what more is said, and policies: name, engine, and the rest of
/// what each says.
pub fn text(engines: &[&str], more: &str, policies: &[(&str, &str, &str)]) -> String {
    let engines: Vec<String> =
        engines.iter().map(|name| format!("{name}: {{memory: {{}}}}")).collect();
    let mut text = format!(
        "apiVersion: stillframe/v1\nkind: Config\nspec:\n  engines: {{{}}}\n{more}",
        engines.join(", ")
    );
    for (name, engine, rest) in policies {
        text.push_str(&format!(
            "---\napiVersion: stillframe/v1\nkind: BackupPolicy\nmetadata: {{name: {name}}}\n\
             spec:\n  engine: {engine}\n{rest}"
        ));
    }
    text
}

/// A watch that runs.
pub struct Running {
    pub bell: Bell,
    pub status: Arc<Status>,
    task: JoinHandle<()>,
}

impl Running {
    pub fn start(world: Arc<dyn World>, clock: Arc<dyn Clock>, look: Duration) -> Self {
        let pace = Pace { look, ..Pace::default() };
        Self::with(world, clock, pace, Arc::new(Post::new(|_| None)))
    }

    /// One whose messages somebody else delivers.
    pub fn with(
        world: Arc<dyn World>,
        clock: Arc<dyn Clock>,
        pace: Pace,
        courier: Arc<dyn Courier>,
    ) -> Self {
        Self::of("", world, clock, pace, courier)
    }

    /// One among several.
    pub fn of(
        identity: &str,
        world: Arc<dyn World>,
        clock: Arc<dyn Clock>,
        pace: Pace,
        courier: Arc<dyn Courier>,
    ) -> Self {
        let (bell, status) = (Bell::default(), Arc::new(Status::default()));
        let watch = Watch {
            world,
            clock,
            bell: bell.clone(),
            status: Arc::clone(&status),
            system: System::default(),
            pace,
            author: Author::new(identity),
            identity: identity.to_owned(),
            grace: None,
            files: None,
            courier,
        };
        let task = tokio::spawn(async move { watch.run().await.unwrap() });
        Self { bell, status, task }
    }

    pub async fn stop(self) {
        self.bell.stop();
        self.task.await.unwrap();
    }

    /// As a power cut would end it.
    pub async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

/// Every READY image there ever was, deleted ones included: its slot, by policy and source.
pub fn slots(engine: &MemoryEngine) -> BTreeMap<(String, String), Vec<Slot>> {
    let world = engine.world.lock().unwrap();
    let mut slots: BTreeMap<(String, String), Vec<Slot>> = BTreeMap::new();
    let is_original = |image: &&Image| image.state == ImageState::Ready && !image.is_copy();
    for image in world.images.values().chain(&world.deleted).filter(is_original) {
        let Ownership::Ours(key) = image.ownership() else { panic!("{}", image.name) };
        slots.entry((key.policy.to_string(), key.source.to_string())).or_default().push(key.slot);
    }
    for slots in slots.values_mut() {
        slots.sort();
    }
    slots
}
