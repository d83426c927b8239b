//! What is said of instances while they cannot be listed, though everything else is seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use stillframe::clock::Clock;
use stillframe::engine::{CreateRequest, Created, Engine, EngineError, Settled, Watcher};
use stillframe::inventory::{EngineInventory, Gap, GapScope, Image};
use stillframe::plan::{ImageRef, Update};
use stillframe::report::overview::EngineOverview;
use tempfile::TempDir;

use super::super::memory::{MemoryEngine, instance};
use super::metrics::parse;
use super::{Running, Script, VirtualClock, text};

const HOUR: Duration = Duration::from_hours(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOURLY: &str = "  source: {match: [{names: [\"s*\"]}]}\n  schedule: {cron: \"0 * * * *\"}\n  \
                      retention: {last: 3}\n  objectives: {rpo: 90m}\n";

/// An engine that does not list some of its instances.
struct Veiled {
    inner: Arc<MemoryEngine>,
    hidden: Mutex<BTreeSet<&'static str>>,
}

#[async_trait]
impl Engine for Veiled {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn observe(&self) -> EngineInventory {
        let mut seen = self.inner.observe().await;
        let hidden = self.hidden.lock().unwrap();
        if !hidden.is_empty() {
            seen.instances.retain(|instance| !hidden.contains(instance.name.as_str()));
            let (place, message) = ("zone-a".to_owned(), "no answer".to_owned());
            seen.gaps.push(Gap { scope: GapScope::Instances, place, message });
        }
        seen
    }

    async fn create(
        &self,
        request: CreateRequest,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Created, EngineError> {
        self.inner.create(request, watcher).await
    }

    async fn update(&self, image: &ImageRef, update: &Update) -> Result<Image, EngineError> {
        self.inner.update(image, update).await
    }

    async fn delete(&self, image: &ImageRef) -> Result<(), EngineError> {
        self.inner.delete(image).await
    }

    async fn settle(&self) -> Result<Settled, EngineError> {
        self.inner.settle().await
    }
}

/// A watch over two sources and an instance that no policy protects.
struct Stage {
    _directory: TempDir,
    clock: Arc<VirtualClock>,
    engine: Arc<Veiled>,
    script: Arc<Script>,
    running: Running,
}

impl Stage {
    async fn new() -> Self {
        let clock = VirtualClock::from("2026-11-20T00:10:00Z");
        let inner = MemoryEngine::named("one", clock.clone());
        for name in ["s0", "s1", "alone"] {
            inner.add(instance(name, &[]));
        }
        let engine = Arc::new(Veiled { inner, hidden: Mutex::default() });
        let directory = tempfile::tempdir().unwrap();
        let written = text(&["one"], "", &[("hourly", "one", HOURLY)]);
        let script = Script::new(&written, vec![engine.clone()], directory.path());
        let running = Running::start(script.clone(), clock.clone(), MINUTE);
        running.status.keep_page();
        tokio::time::sleep(MINUTE).await;
        Self { _directory: directory, clock, engine, script, running }
    }

    /// From now on these are not listed, and a round has seen that.
    async fn hides(&self, names: &[&'static str]) {
        *self.engine.hidden.lock().unwrap() = names.iter().copied().collect();
        self.running.bell.reload();
        tokio::time::sleep(MINUTE).await;
    }

    fn page(&self) -> Arc<EngineOverview> {
        self.running.status.snapshot().engines["one"].overview.clone().unwrap()
    }

    /// The state of each source on the page.
    fn states(&self) -> BTreeMap<String, String> {
        let page = self.page();
        page.sources.iter().map(|row| (row.id.clone(), row.state.clone())).collect()
    }

    fn unprotected(&self) -> BTreeSet<String> {
        self.page().unprotected.iter().map(|row| row.id.clone()).collect()
    }

    /// How many instances there are and how many are unprotected, where that is said.
    fn counts(&self) -> Vec<f64> {
        let snapshot = self.running.status.snapshot();
        let metrics = parse(&stillframe::watch::metrics::text(&snapshot, self.clock.now()));
        let names = ["instances", "instances_unprotected"];
        let names = names.map(|name| format!("stillframe_{name}{{engine=\"one\"}}"));
        names.iter().filter_map(|name| metrics.get(name).copied()).collect()
    }
}

fn states(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    of.iter().map(|(id, state)| ((*id).to_owned(), (*state).to_owned())).collect()
}

const ALL: [&str; 3] = ["s0", "s1", "alone"];

#[tokio::test(start_paused = true)]
async fn instances_that_cannot_be_listed_are_neither_gone_nor_protected() {
    let stage = Stage::new().await;
    let before = stage.page();
    let met = states(&[("s0", "met-unless-next-fails"), ("s1", "met-unless-next-fails")]);
    assert_eq!((stage.states(), stage.counts()), (met.clone(), vec![3.0, 1.0]));
    stage.hides(&ALL).await;
    let page = stage.page();
    assert_eq!((stage.states(), stage.counts()), (met.clone(), vec![3.0, 1.0]));
    assert_eq!((page.instances, stage.unprotected()), (3, ["alone".to_owned()].into()));
    assert_eq!(page.instances_unseen_since, Some(before.seen_at));
    assert_eq!((&page.sources[0].zone, page.images), (&"zone-a".to_owned(), 2));
    // Nothing is captured, and time goes on.
    tokio::time::sleep(HOUR * 2).await;
    let page = stage.page();
    assert_eq!(stage.states(), states(&[("s0", "broken"), ("s1", "broken")]));
    assert_eq!(page.instances_unseen_since, Some(before.seen_at), "since they were seen last");
    assert_eq!((stage.counts(), page.sources[0].points.len()), (vec![3.0, 1.0], 1));
    stage.hides(&[]).await;
    assert_eq!((stage.states(), stage.page().instances_unseen_since), (met, None));
    stage.running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_seen_of_some_instances_counts_and_what_was_known_of_others_too() {
    let stage = Stage::new().await;
    stage.engine.inner.add(instance("fresh", &[]));
    stage.hides(&["s0", "alone"]).await;
    assert_eq!(stage.unprotected(), ["alone", "fresh"].map(str::to_owned).into());
    assert_eq!(stage.counts(), [3.0, 2.0]);
    // It may be among those that are not listed.
    stage.engine.inner.world.lock().unwrap().instances.remove("s1");
    stage.hides(&["s0", "alone"]).await;
    let met = "met-unless-next-fails";
    assert_eq!(stage.states(), states(&[("s0", met), ("s1", met)]));
    stage.hides(&[]).await;
    assert_eq!(stage.states(), states(&[("s0", met), ("s1", "gone")]));
    // What was gone is not back for not being seen.
    stage.hides(&ALL).await;
    assert_eq!(stage.states(), states(&[("s0", met), ("s1", "gone")]));
    // A policy that is not in force any more has no sources.
    let other = HOURLY.replace("s*", "alone");
    stage.script.write(&text(&["one"], "", &[("other", "one", &other)]));
    stage.hides(&ALL).await;
    assert_eq!(stage.states(), states(&[]));
    stage.running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_start_that_sees_no_instances_says_nothing_of_them() {
    let mut stage = Stage::new().await;
    stage.running.stop().await;
    stage.running = Running::start(stage.script.clone(), stage.clock.clone(), MINUTE);
    stage.running.status.keep_page();
    stage.hides(&ALL).await;
    assert_eq!(stage.states(), states(&[("s0", "unseen"), ("s1", "unseen")]));
    assert_eq!((stage.counts(), stage.page().instances_unseen_since), (vec![], None));
    stage.hides(&[]).await;
    assert_eq!(stage.counts(), [3.0, 1.0]);
    stage.running.stop().await;
}
