//! Reloads: what they hold back, what they leave as it was; and engines that are slow or broken.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use stillframe::agenda::BROKEN_MAX;
use stillframe::engine::{CreateRequest, Created, Engine, EngineError, Settled, Watcher};
use stillframe::inventory::{EngineInventory, Gap, GapScope, Image};
use stillframe::plan::guard::Guard;
use stillframe::plan::{ImageRef, Update};
use stillframe::report::overview::PolicyRow;
use stillframe::watch::{Pace, Post, Role};
use tempfile::TempDir;

use super::super::memory::{MemoryEngine, instance};
use super::{Running, Script, VirtualClock, slots, text};

const HOUR: Duration = Duration::from_hours(1);
const MINUTE: Duration = Duration::from_mins(1);

pub fn hourly(retention: &str) -> String {
    format!(
        "  source: {{match: [{{names: [\"web-*\"]}}]}}\n  schedule: {{cron: \"0 * * * *\"}}\n  retention: \
         {retention}\n  lifecycle: {{grace: 0}}\n"
    )
}

/// What is to be deleted is gone after two minutes, where nothing holds it.
pub const SETTINGS: &str = "  watch: {reconcileEvery: 1m}\n";

pub struct World {
    pub clock: Arc<VirtualClock>,
    pub engine: Arc<MemoryEngine>,
    pub script: Arc<Script>,
    _directory: TempDir,
}

/// A day of hourly restore points of one machine.
pub async fn day(retention: &str) -> (World, Running) {
    let clock = VirtualClock::from("2026-11-20T00:10:00Z");
    let engine = MemoryEngine::named("one", clock.clone());
    engine.add(instance("web-1", &[]));
    let text = text(&["one"], SETTINGS, &[("hourly", "one", &hourly(retention))]);
    let (world, running) = World::begin(clock, engine, &text);
    tokio::time::sleep(HOUR * 20).await;
    (world, running)
}

impl World {
    /// A watch over one engine.
    pub fn begin(
        clock: Arc<VirtualClock>,
        engine: Arc<MemoryEngine>,
        text: &str,
    ) -> (Self, Running) {
        let directory = tempfile::tempdir().unwrap();
        let script = Script::new(text, vec![engine.clone()], directory.path());
        let running = Running::start(script.clone(), clock.clone(), MINUTE);
        (Self { clock, engine, script, _directory: directory }, running)
    }

    pub fn images(&self) -> usize {
        self.engine.world.lock().unwrap().images.len()
    }

    pub fn write(&self, running: &Running, retention: &str) {
        self.script.write(&text(&["one"], SETTINGS, &[("hourly", "one", &hourly(retention))]));
        running.bell.files_changed();
    }
}

#[tokio::test(start_paused = true)]
async fn deletes_of_a_reload_wait_and_a_change_taken_back_in_time_deletes_nothing() {
    let (world, running) = day("{last: 8}").await;
    let before = world.images();
    assert!((8..=10).contains(&before), "{before}");
    world.write(&running, "{last: 6}");
    tokio::time::sleep(MINUTE * 9).await;
    assert_eq!(world.images(), before, "the delay has not passed");
    let held = running.status.snapshot().engines["one"].facts.as_ref().unwrap().round.held.clone();
    assert_eq!(held.keys().collect::<Vec<_>>(), [&Guard::DeleteDelay], "{held:?}");
    world.write(&running, "{last: 8}");
    tokio::time::sleep(MINUTE * 30).await;
    assert_eq!(world.images(), before, "it was taken back");
    world.write(&running, "{last: 6}");
    tokio::time::sleep(HOUR * 2).await;
    assert!(world.images() < before, "the delay has passed: {}", world.images());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_anyway_does_not_wait_for_a_reload() {
    let (world, running) = day("{last: 6}").await;
    let deleted = || world.engine.world.lock().unwrap().deleted.len();
    // Shortly before the next run, something that changes nothing about what is kept.
    let next = world.clock.base + jiff::SignedDuration::from_mins(20 * 60 + 50);
    world.clock.reach(next - jiff::SignedDuration::from_mins(2)).await;
    world.write(&running, "{last: 6, atLeast: 2}");
    tokio::time::sleep(MINUTE).await;
    let before = deleted();
    tokio::time::sleep(MINUTE * 4).await;
    assert_eq!(deleted(), before + 1);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_start_deletes_wait() {
    let (world, running) = day("{last: 8}").await;
    let before = world.images();
    running.kill().await;
    world.script.write(&text(&["one"], SETTINGS, &[("hourly", "one", &hourly("{last: 6}"))]));
    let running = Running::start(world.script.clone(), world.clock.clone(), MINUTE);
    tokio::time::sleep(MINUTE * 9).await;
    assert_eq!(world.images(), before);
    tokio::time::sleep(HOUR * 2).await;
    assert!(world.images() < before);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_invalid_change_leaves_in_force_what_was() {
    let (world, running) = day("{last: 8}").await;
    let digest = running.status.snapshot().digest;
    world.write(&running, "{lst: 8}");
    tokio::time::sleep(HOUR * 3).await;
    let snapshot = running.status.snapshot();
    assert_eq!((&snapshot.digest, snapshot.validity.is_valid), (&digest, false));
    let mistakes = snapshot.validity.mistakes.join("\n");
    assert!(mistakes.contains("stillframe.yaml:14:") && mistakes.contains("lst"), "{mistakes}");
    assert_eq!(snapshot.role, Role::Running);
    let made = slots(&world.engine);
    assert_eq!(made[&("hourly".to_owned(), "web-1".to_owned())].len(), 24, "{made:?}");
    world.write(&running, "{last: 8}");
    tokio::time::sleep(MINUTE).await;
    let validity = running.status.snapshot().validity;
    assert!(validity.is_valid && validity.mistakes.is_empty(), "{validity:?}");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_in_the_way_of_a_change_is_tried_again_and_told_once() {
    let (world, running) = day("{last: 8}").await;
    let before = running.status.snapshot();
    *world.script.fault.lock().unwrap() = Some("the key cannot be read".to_owned());
    world.write(&running, "{last: 9}");
    tokio::time::sleep(MINUTE * 10).await;
    let snapshot = running.status.snapshot();
    assert_eq!((&snapshot.digest, snapshot.validity.is_valid), (&before.digest, false));
    assert!(snapshot.validity.mistakes[0].contains("the key cannot be read"), "{snapshot:?}");
    let (valid, refused) = snapshot.validity.readings;
    assert_eq!(valid, before.validity.readings.0, "it was never valid in between");
    // After 30 s, and then after twice as long each time, up to what it says otherwise: a minute.
    let again = refused - before.validity.readings.1;
    assert!((9..13).contains(&again), "{again}");
    *world.script.fault.lock().unwrap() = None;
    tokio::time::sleep(MINUTE + MINUTE / 2).await;
    let after = running.status.snapshot();
    assert!(after.validity.is_valid && after.digest != before.digest, "nobody had to say so");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_that_nobody_tells_of_is_seen_all_the_same() {
    let (world, running) = day("{last: 8}").await;
    let before = running.status.snapshot().digest;
    let text = text(&["one"], SETTINGS, &[("hourly", "one", &hourly("{last: 9}"))]);
    world.script.write(&text.replace("  watch: {reconcileEvery: 1m}\n", ""));
    tokio::time::sleep(MINUTE * 2).await;
    let changed = running.status.snapshot().digest;
    assert_ne!(changed, before);
    // From now on every hour.
    world.script.write(&text);
    tokio::time::sleep(MINUTE * 50).await;
    assert_eq!(running.status.snapshot().validity.readings.1, 0);
    world.script.write(&text.replace("last: 9", "last: 10"));
    tokio::time::sleep(MINUTE * 20).await;
    assert_ne!(running.status.snapshot().digest, changed);
    running.stop().await;
}

/// The page, the messages and what images are called say them.
#[tokio::test(start_paused = true)]
async fn names_and_owners_are_followed_though_the_policies_mean_the_same() {
    let (world, running) = day("{last: 8}").await;
    running.status.keep_page();
    let digest = running.status.snapshot().digest;
    let plain = text(&["one"], SETTINGS, &[("hourly", "one", &hourly("{last: 8}"))]);
    let named = plain.replace("kind: Config\n", "kind: Config\nmetadata: {name: renamed}\n");
    let owned = named.replace("{name: hourly}", "{name: hourly, owner: ops}");
    let mut since = None;
    for (written, name, owner) in
        [(&plain, "", ""), (&named, "renamed", ""), (&owned, "renamed", "ops")]
    {
        world.script.write(written);
        running.bell.files_changed();
        tokio::time::sleep(MINUTE).await;
        let now = running.status.snapshot();
        let is_owner = |row: &PolicyRow| row.owner == owner;
        assert_eq!((now.name.as_str(), now.policy_rows.iter().all(is_owner)), (name, true));
        assert_eq!(now.digest, digest, "nothing else has changed");
        since = now.since;
    }
    // Where nobody could see a difference, nothing is put in force anew.
    world.script.write(&format!("# A comment moves every line.\n{owned}"));
    running.bell.files_changed();
    tokio::time::sleep(MINUTE).await;
    assert_eq!(running.status.snapshot().since, since);
    running.stop().await;
}

/// An engine whose creates never end, or that cannot be seen.
struct Bad {
    inner: Arc<MemoryEngine>,
    is_stuck: bool,
    observed: AtomicUsize,
    creating: AtomicUsize,
}

impl Bad {
    fn new(inner: Arc<MemoryEngine>, is_stuck: bool) -> Arc<Self> {
        Arc::new(Self {
            inner,
            is_stuck,
            observed: AtomicUsize::new(0),
            creating: AtomicUsize::new(0),
        })
    }
}

#[async_trait]
impl Engine for Bad {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn observe(&self) -> EngineInventory {
        self.observed.fetch_add(1, Ordering::SeqCst);
        let mut seen = self.inner.observe().await;
        if !self.is_stuck {
            (seen.instances, seen.images) = (Vec::new(), Vec::new());
            let message = "it does not answer".to_owned();
            seen.gaps = vec![Gap { scope: GapScope::Instances, place: "all".to_owned(), message }];
        }
        seen
    }

    async fn create(&self, _: CreateRequest, _: Arc<dyn Watcher>) -> Result<Created, EngineError> {
        self.creating.fetch_add(1, Ordering::SeqCst);
        std::future::pending().await
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

/// Two engines, of which one is bad, for a day.
async fn beside(is_stuck: bool) -> (Arc<MemoryEngine>, Arc<Bad>, Running) {
    let clock = VirtualClock::from("2026-11-20T00:00:10Z");
    let good = MemoryEngine::named("good", clock.clone());
    let bad = MemoryEngine::named("bad", clock.clone());
    for engine in [&good, &bad] {
        engine.add(instance("web-1", &[]));
    }
    let bad = Bad::new(bad, is_stuck);
    let directory = tempfile::tempdir().unwrap();
    let rest = hourly("{last: 30}");
    let text = text(&["good", "bad"], "", &[("of-good", "good", &rest), ("of-bad", "bad", &rest)]);
    let script = Script::new(&text, vec![good.clone(), bad.clone()], directory.path());
    let running = Running::start(script, clock, MINUTE);
    tokio::time::sleep(HOUR * 24).await;
    (good, bad, running)
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_cannot_be_seen_stops_no_other_and_is_asked_less() {
    let (good, bad, running) = beside(false).await;
    let made = slots(&good);
    assert_eq!(made[&("of-good".to_owned(), "web-1".to_owned())].len(), 25);
    let snapshot = running.status.snapshot();
    assert!(snapshot.engines["bad"].is_open && !snapshot.engines["good"].is_open);
    let rounds = snapshot.engines["bad"].rounds["broken"];
    // Every quarter of an hour at the latest, half of that at the soonest.
    assert!((24 * 4..24 * 8 + u64::from(BROKEN_MAX)).contains(&rounds), "{rounds}");
    assert_eq!(bad.observed.load(Ordering::SeqCst) as u64, rounds);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn watches_of_one_engine_do_not_try_it_again_in_step() {
    let clock = VirtualClock::from("2026-11-20T00:00:10Z");
    let directory = tempfile::tempdir().unwrap();
    let written = text(&["bad"], "", &[("of-bad", "bad", &hourly("{last: 30}"))]);
    let watch = |identity: &str| {
        let bad = Bad::new(MemoryEngine::named("bad", clock.clone()), false);
        let script = Script::new(&written, vec![bad], directory.path());
        let courier = Arc::new(Post::new(|_| None));
        Running::of(identity, script, clock.clone(), Pace::default(), courier)
    };
    let all = ["here", "there", "there"].map(watch);
    tokio::time::sleep(HOUR * 3).await;
    let retry = |running: &Running| running.status.snapshot().engines["bad"].retry_at.unwrap();
    let [here, there, too] = all.each_ref().map(retry);
    assert!(here != there && there == too, "{here} {there} {too}");
    for running in all {
        running.stop().await;
    }
}
