//! Captures that take longer than the next is due, and calls that never end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use stillframe::clock::Clock;
use stillframe::engine::{
    CopyRequest, CreateRequest, Created, Engine, EngineError, Settled, Watcher,
};
use stillframe::inventory::{EngineInventory, Image, Limits};
use stillframe::plan::{Action, ImageRef, Update};
use stillframe::policy::meant::LeasePlace;
use stillframe::watch::{Lease, LeaseError, System};
use tempfile::TempDir;
use tokio::time::Instant;

use super::super::memory::{MemoryEngine, instance};
use super::{Running, Script, VirtualClock, slots, text};

const HOUR: Duration = Duration::from_hours(1);
const MINUTE: Duration = Duration::from_mins(1);
const EVER: Duration = Duration::from_hours(1_000_000);

/// An engine that takes its time.
struct Slow {
    inner: Arc<MemoryEngine>,
    pace: Mutex<Pace>,
}

#[derive(Default)]
struct Pace {
    /// How long captures of a source take.
    captures: BTreeMap<String, Duration>,
    copies: Duration,
    looks: Duration,
    deletes: Duration,
    settles: Duration,
    /// Sources of which a capture is under way.
    at_it: BTreeSet<String>,
    /// Names of images that are being copied.
    copied: BTreeSet<String>,
    begun: Vec<Instant>,
    /// What must not be.
    wrong: Vec<String>,
}

impl Slow {
    fn new(inner: Arc<MemoryEngine>) -> Arc<Self> {
        Arc::new(Self { inner, pace: Mutex::default() })
    }

    fn takes(&self, source: &str, length: Duration) {
        self.pace.lock().unwrap().captures.insert(source.to_owned(), length);
    }

    fn is_free(&self, image: &ImageRef) {
        let mut pace = self.pace.lock().unwrap();
        if pace.copied.contains(&image.name) {
            pace.wrong.push(format!("{} is being copied", image.name));
        }
    }
}

/// Sleeps, unless it is given up; a sleep without an end does not hear that.
async fn work(length: Duration, watcher: &dyn Watcher) -> Result<(), EngineError> {
    let until = Instant::now() + length;
    while Instant::now() < until {
        tokio::time::sleep_until(until.min(Instant::now() + MINUTE)).await;
        if watcher.is_cancelled() && length < EVER {
            return Err(EngineError::Interrupted);
        }
    }
    Ok(())
}

#[async_trait]
impl Engine for Slow {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn observe(&self) -> EngineInventory {
        let looks = self.pace.lock().unwrap().looks;
        tokio::time::sleep(looks).await;
        self.inner.observe().await
    }

    async fn create(
        &self,
        request: CreateRequest,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Created, EngineError> {
        let source = request.key.source.to_string();
        let length = {
            let mut pace = self.pace.lock().unwrap();
            pace.begun.push(Instant::now());
            if !pace.at_it.insert(source.clone()) {
                pace.wrong.push(format!("{source} is captured twice at once"));
            }
            pace.captures.get(&source).copied().unwrap_or_default()
        };
        // However it ends, also by being dropped.
        let _gone = Gone(&self.pace, source);
        work(length, &*watcher).await?;
        self.inner.create(request, watcher).await
    }

    async fn copy(
        &self,
        request: CopyRequest,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Created, EngineError> {
        let (copies, name) = (self.pace.lock().unwrap().copies, request.image.name.clone());
        self.pace.lock().unwrap().copied.insert(name.clone());
        work(copies, &*watcher).await?;
        self.pace.lock().unwrap().copied.remove(&name);
        self.inner.copy(request, watcher).await
    }

    async fn update(&self, image: &ImageRef, update: &Update) -> Result<Image, EngineError> {
        self.is_free(image);
        self.inner.update(image, update).await
    }

    async fn delete(&self, image: &ImageRef) -> Result<(), EngineError> {
        self.is_free(image);
        let deletes = self.pace.lock().unwrap().deletes;
        tokio::time::sleep(deletes).await;
        self.inner.delete(image).await
    }

    async fn settle(&self) -> Result<Settled, EngineError> {
        let settles = self.pace.lock().unwrap().settles;
        tokio::time::sleep(settles).await;
        self.inner.settle().await
    }
}

struct Gone<'a>(&'a Mutex<Pace>, String);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.0.lock().unwrap().at_it.remove(&self.1);
    }
}

struct Fleet {
    clock: Arc<VirtualClock>,
    engine: Arc<MemoryEngine>,
    slow: Arc<Slow>,
    script: Arc<Script>,
    directory: TempDir,
}

const HOURLY: &str = "  source: {match: [{names: [\"web-*\"]}]}\n  schedule: {cron: \"0 * * * *\"}\n  \
                      retention: {last: 3}\n  lifecycle: {grace: 0}\n";
const SETTINGS: &str = "  guards: {seriesPercent: 100, enginePercent: 100}\n  watch: {deleteDelay: 0, \
                        captureLimit: 5h}\n";

/// A fleet of four with hourly restore points, of which `web-1` takes so long.
fn fleet(length: Duration, rest: &str) -> Fleet {
    let clock = VirtualClock::from("2026-11-20T00:10:00Z");
    let engine = MemoryEngine::named("one", clock.clone());
    for number in 1..=4 {
        engine.add(instance(&format!("web-{number}"), &[]));
    }
    let slow = Slow::new(engine.clone());
    slow.takes("web-1", length);
    let directory = tempfile::tempdir().unwrap();
    let text = text(&["one"], SETTINGS, &[("hourly", "one", &format!("{HOURLY}{rest}"))]);
    let script = Script::new(&text, vec![slow.clone()], directory.path());
    Fleet { clock, engine, slow, script, directory }
}

impl Fleet {
    fn start(&self) -> Running {
        Running::start(self.script.clone(), self.clock.clone(), MINUTE)
    }

    /// Ends, and nothing was wrong.
    async fn stop(&self, running: Running) {
        running.stop().await;
        let wrong = self.slow.pace.lock().unwrap().wrong.clone();
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    fn made(&self, source: &str) -> usize {
        let made = slots(&self.engine);
        made.get(&("hourly".to_owned(), source.to_owned())).map_or(0, Vec::len)
    }

    fn others_missed_nothing(&self, hours: usize) {
        for number in 2..=4 {
            assert_eq!(self.made(&format!("web-{number}")), hours, "web-{number}");
        }
    }
}

fn count(running: &Running, action: Action, word: &'static str) -> u64 {
    let snapshot = running.status.snapshot();
    snapshot.engines["one"].actions.get(&(action, word)).copied().unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn a_capture_of_three_hours_costs_no_other_source_a_slot() {
    let fleet = fleet(HOUR * 3, "");
    let running = fleet.start();
    tokio::time::sleep(HOUR * 24).await;
    fleet.others_missed_nothing(25);
    // Begun at ten past, done at ten past; the next one is the newest slot then.
    let made = slots(&fleet.engine)[&("hourly".to_owned(), "web-1".to_owned())].clone();
    let hours: Vec<i64> = made
        .windows(2)
        .map(|two| two[1].instant().duration_since(two[0].instant()).as_hours())
        .collect();
    assert_eq!((made.len(), hours), (7, vec![3; 6]), "{made:?}");
    // What is let go is let go beside it: of the others four are left, of which one is deprecated.
    let (left, deleted) = {
        let world = fleet.engine.world.lock().unwrap();
        let left = world.images.values().filter(|image| !image.name.contains("web-1"));
        (left.count(), world.deleted.len())
    };
    assert_eq!((left, deleted), (12, 63));
    let rounds = running.status.snapshot().engines["one"].rounds.clone();
    assert_eq!(rounds.keys().copied().collect::<Vec<_>>(), ["well"]);
    // One each hour, one after each capture.
    assert!(rounds["well"] <= 25 + 8, "{rounds:?}");
    assert_eq!(count(&running, Action::Create, "done"), 7 + 75);
    assert_eq!(running.status.snapshot().engines["one"].load.count, 1);
    fleet.stop(running).await;
}

/// The capture of the hour before ends while the round is still at another source: what waits for the one
/// that was put off because of it is put off as well, and has not failed.
#[tokio::test(start_paused = true)]
async fn what_waits_for_a_capture_that_was_put_off_is_put_off_with_it() {
    let fleet = fleet(Duration::ZERO, "");
    let running = fleet.start();
    tokio::time::sleep(HOUR * 5).await;
    fleet.slow.takes("web-1", MINUTE * 62);
    fleet.slow.takes("web-2", MINUTE * 4);
    tokio::time::sleep(MINUTE * 51).await;
    assert_eq!(fleet.slow.pace.lock().unwrap().at_it.len(), 2);
    fleet.slow.takes("web-1", Duration::ZERO);
    tokio::time::sleep(MINUTE * 65).await;
    // One was made at two minutes past seven, the next once the round had ended.
    fleet.others_missed_nothing(8);
    assert_eq!(fleet.made("web-1"), 8);
    let ended = |action| (count(&running, action, "under way"), count(&running, action, "skipped"));
    assert_eq!((ended(Action::Create), ended(Action::Deprecate)), ((2, 0), (2, 0)));
    let rounds = running.status.snapshot().engines["one"].rounds.clone();
    assert_eq!(rounds.keys().copied().collect::<Vec<_>>(), ["well"]);
    fleet.stop(running).await;
}

#[tokio::test(start_paused = true)]
async fn a_capture_that_never_ends_is_given_up_and_told() {
    let fleet = fleet(Duration::ZERO, "");
    let running = fleet.start();
    tokio::time::sleep(MINUTE).await;
    fleet.slow.takes("web-1", EVER);
    tokio::time::sleep(HOUR * 4).await;
    assert_eq!(count(&running, Action::Create, "failed"), 0);
    let load = running.status.snapshot().engines["one"].load;
    let since = load.since.map(|since| since.to_string());
    assert_eq!((load.count, since.as_deref()), (1, Some("2026-11-20T01:00:00Z")));
    tokio::time::sleep(HOUR * 20).await;
    fleet.others_missed_nothing(25);
    // Five hours, a minute, and what a retry waits.
    assert_eq!(count(&running, Action::Create, "failed"), 4);
    let missed = running.status.snapshot().engines["one"].missed.clone();
    assert!(missed.values().sum::<u64>() >= 20, "{missed:?}");
    fleet.slow.takes("web-1", Duration::ZERO);
    tokio::time::sleep(HOUR * 6).await;
    assert!(fleet.made("web-1") > 1, "what no longer hangs is captured again");
    fleet.stop(running).await;
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_never_ends_is_given_up_and_costs_no_slot() {
    let fleet = fleet(Duration::ZERO, "");
    let running = fleet.start();
    tokio::time::sleep(HOUR * 6).await;
    let before = fleet.engine.world.lock().unwrap().deleted.len();
    assert!(before >= 4, "{before}");
    fleet.slow.pace.lock().unwrap().deletes = EVER;
    tokio::time::sleep(HOUR * 6).await;
    assert_eq!(fleet.engine.world.lock().unwrap().deleted.len(), before);
    assert!(count(&running, Action::Delete, "failed") >= 6);
    // One is waited for in a round, the others are left for the next.
    assert!(count(&running, Action::Delete, "left") >= 6);
    fleet.others_missed_nothing(13);
    fleet.slow.pace.lock().unwrap().deletes = Duration::ZERO;
    tokio::time::sleep(HOUR * 2).await;
    assert!(fleet.engine.world.lock().unwrap().deleted.len() >= before + 24);
    fleet.stop(running).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_put_in_order_without_an_end_is_given_up() {
    let fleet = fleet(Duration::ZERO, "");
    fleet.slow.pace.lock().unwrap().settles = EVER;
    let running = fleet.start();
    tokio::time::sleep(HOUR * 24).await;
    // Five hours are what a capture may take here.
    let rounds = running.status.snapshot().engines["one"].rounds.clone();
    assert!(rounds["partly"] >= 4, "{rounds:?}");
    assert!(fleet.made("web-2") >= 4);
    fleet.stop(running).await;
}

#[tokio::test(start_paused = true)]
async fn captures_are_spread_where_an_engine_takes_so_many_in_a_minute() {
    let fleet = fleet(Duration::ZERO, "");
    fleet.engine.world.lock().unwrap().limits =
        Limits { captures_per_minute: Some(2), ..Limits::default() };
    let running = fleet.start();
    tokio::time::sleep(HOUR * 6).await;
    fleet.others_missed_nothing(7);
    let begun = fleet.slow.pace.lock().unwrap().begun.clone();
    assert_eq!(begun.len(), 7 * 4);
    let between: Vec<u64> =
        begun.windows(2).map(|two| two[1].duration_since(two[0]).as_secs()).collect();
    // Four of each hour, then the rest of it.
    for hour in between.chunks(4) {
        assert_eq!(hour[..3], [30; 3], "{between:?}");
        assert!(hour.get(3).is_none_or(|rest| *rest >= 2_900), "{between:?}");
    }
    fleet.stop(running).await;
}

/// Who stops waiting has taken nobody's time, and what will not begin takes none.
#[tokio::test(start_paused = true)]
async fn reloads_do_not_put_off_what_waits_for_its_turn() {
    let fleet = fleet(Duration::ZERO, "");
    fleet.engine.world.lock().unwrap().limits =
        Limits { captures_per_minute: Some(1), ..Limits::default() };
    let running = fleet.start();
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(5)).await;
        running.bell.reload();
    }
    tokio::time::sleep(MINUTE * 5).await;
    fleet.others_missed_nothing(1);
    let begun = fleet.slow.pace.lock().unwrap().begun.clone();
    let all = begun.last().unwrap().duration_since(begun[0]);
    assert!(begun.len() == 4 && all <= MINUTE * 4, "{begun:?}");
    assert!(begun.windows(2).all(|two| two[1].duration_since(two[0]) >= MINUTE), "{begun:?}");
    fleet.stop(running).await;
}

/// An hour is too short for all of them: who has no turn in it leaves the next hour to others.
#[tokio::test(start_paused = true)]
async fn what_has_no_turn_before_its_deadline_takes_none() {
    let late = "  schedule: {cron: \"0 * * * *\", deadline: 30m}\n";
    let fleet = fleet(Duration::ZERO, "");
    let text = text(
        &["one"],
        SETTINGS,
        &[("hourly", "one", &HOURLY.replace("  schedule: {cron: \"0 * * * *\"}\n", late))],
    );
    for number in 5..=100 {
        fleet.engine.add(instance(&format!("web-{number}"), &[]));
    }
    fleet.script.write(&text);
    fleet.engine.world.lock().unwrap().limits =
        Limits { captures_per_minute: Some(1), ..Limits::default() };
    let running = fleet.start();
    tokio::time::sleep(HOUR * 2).await;
    let begun = fleet.slow.pace.lock().unwrap().begun.clone();
    // Twenty minutes of the first hour are left, then thirty of each, and ten of the last.
    assert!((19 + 30 + 9..=21 + 31 + 12).contains(&begun.len()), "{}", begun.len());
    assert!(begun.windows(2).all(|two| two[1].duration_since(two[0]) >= MINUTE), "{begun:?}");
    let skipped = count(&running, Action::Create, "skipped");
    assert!(skipped >= 60 + 60, "{skipped}");
    fleet.stop(running).await;
}

/// Two policies on one source, of an engine that makes one image of it in ten minutes.
#[tokio::test(start_paused = true)]
async fn a_source_is_captured_in_turns_and_no_slot_is_missed() {
    let fleet = fleet(Duration::ZERO, "");
    let limits =
        Limits { source_interval_seconds: Some(600), source_hourly: Some(6), ..Limits::default() };
    fleet.engine.world.lock().unwrap().limits = limits;
    let text = text(&["one"], SETTINGS, &[("hourly", "one", HOURLY), ("other", "one", HOURLY)]);
    fleet.script.write(&text);
    let running = fleet.start();
    tokio::time::sleep(HOUR * 12 + MINUTE * 5).await;
    let made = slots(&fleet.engine);
    for policy in ["hourly", "other"] {
        for number in 1..=4 {
            let slots = &made[&(policy.to_owned(), format!("web-{number}"))];
            assert_eq!(slots.len(), 13, "{policy} web-{number}");
        }
    }
    let of = |image: &&Image| image.source.as_ref().is_some_and(|one| one.name == "web-3");
    let mut times: Vec<Timestamp> = {
        let world = fleet.engine.world.lock().unwrap();
        let images = world.images.values().chain(&world.deleted).filter(of);
        images.map(|image| image.created_at).collect()
    };
    times.sort_unstable();
    times.dedup();
    let apart = times.windows(2).map(|two| two[1].duration_since(two[0]).as_mins()).min();
    assert_eq!((times.len(), apart), (26, Some(10)));
    fleet.stop(running).await;
}

/// Two policies on one source, of an engine that takes one capture of it at once. That no two run is
/// seen by the engine.
#[tokio::test(start_paused = true)]
async fn a_source_that_takes_one_capture_at_once_is_captured_by_one_after_the_other() {
    let fleet = fleet(MINUTE * 20, "");
    fleet.engine.world.lock().unwrap().limits =
        Limits { source_captures: Some(1), ..Limits::default() };
    let text = text(&["one"], SETTINGS, &[("hourly", "one", HOURLY), ("other", "one", HOURLY)]);
    fleet.script.write(&text);
    let running = fleet.start();
    tokio::time::sleep(HOUR * 12 + MINUTE * 45).await;
    let made = slots(&fleet.engine);
    for policy in ["hourly", "other"] {
        for number in 1..=4 {
            let slots = &made[&(policy.to_owned(), format!("web-{number}"))];
            assert_eq!(slots.len(), 13, "{policy} web-{number}");
        }
    }
    assert_eq!(count(&running, Action::Create, "failed"), 0);
    // What waits for its source holds up nothing else: the others are made at once, hour by hour.
    let begun = fleet.slow.pace.lock().unwrap().begun.clone();
    let first = begun[0];
    let soon = begun.iter().filter(|at| at.duration_since(first) < MINUTE).count();
    assert_eq!(soon, 7, "{begun:?}");
    fleet.stop(running).await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_ever_for_what_hangs() {
    let fleet = fleet(EVER, "");
    let running = fleet.start();
    tokio::time::sleep(HOUR * 2).await;
    let asked = Instant::now();
    fleet.stop(running).await;
    let took = asked.elapsed();
    assert!((MINUTE * 5..MINUTE * 6).contains(&took), "{took:?}");
    assert!(fleet.slow.pace.lock().unwrap().at_it.is_empty(), "nothing goes on without the loop");
}

/// Whoever looks after the process would end it otherwise, in the middle of its grace.
#[tokio::test(start_paused = true)]
async fn the_loop_turns_while_a_stop_waits_for_a_long_grace() {
    let fleet = fleet(EVER, "");
    let settings = SETTINGS.replace("deleteDelay: 0", "deleteDelay: 0, grace: 1h");
    fleet.script.write(&text(&["one"], &settings, &[("hourly", "one", HOURLY)]));
    let running = fleet.start();
    tokio::time::sleep(HOUR * 2).await;
    running.bell.stop();
    for _ in 0..5 {
        tokio::time::sleep(MINUTE * 10).await;
        assert!(running.status.is_alive());
    }
    fleet.stop(running).await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_lets_what_goes_on_beside_rounds_finish() {
    let fleet = fleet(MINUTE * 57, "");
    let running = fleet.start();
    // Ten past until seven past; the grace is five minutes.
    tokio::time::sleep(MINUTE * 54).await;
    assert_eq!(fleet.made("web-1"), 0);
    fleet.stop(running).await;
    assert_eq!(fleet.made("web-1"), 1);
}

/// Nobody has asked twice: the lease goes and a stop comes, in whichever order.
#[tokio::test(start_paused = true)]
async fn a_lease_that_is_lost_gives_up_nothing_that_is_under_way() {
    for is_first in [true, false] {
        let fleet = fleet(MINUTE * 57, "");
        let running = fleet.start();
        let path = fleet.directory.path().join("lease");
        let (place, clock) =
            (LeasePlace::File(path.clone()), fleet.clock.clone() as Arc<dyn Clock>);
        let held = Lease::wait(&place, &clock, &running.bell, &running.status, System::default());
        let held = held.await.unwrap().unwrap();
        tokio::time::sleep(MINUTE * 54).await;
        let lose = async || {
            std::fs::remove_file(&path).unwrap();
            tokio::time::sleep(MINUTE).await;
        };
        if is_first {
            lose().await;
            assert!(running.bell.is_stopping());
        }
        running.bell.stop();
        if !is_first {
            lose().await;
        }
        running.task.await.unwrap();
        assert_eq!(fleet.made("web-1"), 1, "first: {is_first}");
        assert!(matches!(held.release().await, Err(LeaseError::Lost(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_policies_does_not_wait_for_a_capture() {
    let fleet = fleet(HOUR * 3, "");
    let running = fleet.start();
    tokio::time::sleep(MINUTE * 2).await;
    let more = "  source: {match: [{names: [db-1]}]}\n  schedule: {cron: \"0 * * * *\"}\n  retention: {last: 3}\n";
    fleet.engine.add(instance("db-1", &[]));
    let policies = [("hourly", "one", HOURLY), ("more", "one", more)];
    fleet.script.write(&text(&["one"], SETTINGS, &policies));
    running.bell.files_changed();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(slots(&fleet.engine).contains_key(&("more".to_owned(), "db-1".to_owned())));
    // And what was under way was not begun anew.
    tokio::time::sleep(HOUR * 3).await;
    assert_eq!(fleet.made("web-1"), 1);
    fleet.stop(running).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_taken_from_what_is_being_copied() {
    let fleet = fleet(Duration::ZERO, "  storage: {copies: [vault]}\n");
    for number in 2..=4 {
        fleet.engine.world.lock().unwrap().instances.remove(&format!("web-{number}"));
    }
    fleet.slow.pace.lock().unwrap().copies = HOUR * 3 + MINUTE * 30;
    let running = fleet.start();
    // With three that are kept, an original is let go while its copy is still made.
    tokio::time::sleep(HOUR * 24).await;
    assert_eq!(fleet.made("web-1"), 25);
    assert_eq!(count(&running, Action::Copy, "failed"), 0);
    assert!(count(&running, Action::Copy, "done") >= 20);
    assert!(count(&running, Action::Deprecate, "under way") >= 10);
    assert!(fleet.engine.world.lock().unwrap().deleted.len() >= 15);
    fleet.stop(running).await;
}

#[tokio::test(start_paused = true)]
async fn what_fails_beside_rounds_is_tried_again_later_each_time() {
    let fleet = fleet(MINUTE * 6, "");
    // Of a source that is there no more when it is to be written, each attempt fails.
    let running = fleet.start();
    let gone = fleet.engine.world.lock().unwrap().instances["web-1"].clone();
    for _ in 0..55 {
        fleet.engine.world.lock().unwrap().instances.insert("web-1".to_owned(), gone.clone());
        tokio::time::sleep(MINUTE).await;
        let mut world = fleet.engine.world.lock().unwrap();
        if fleet.slow.pace.lock().unwrap().at_it.contains("web-1") {
            world.instances.remove("web-1");
        }
    }
    let begun = fleet.slow.pace.lock().unwrap().begun.len() - 3;
    assert!((3..=6).contains(&begun), "{begun}");
    fleet.stop(running).await;
}

/// A watch over an engine that never answers, which looks at it.
async fn mute() -> (Arc<VirtualClock>, Arc<Slow>, Arc<Script>, Running, TempDir) {
    let clock = VirtualClock::from("2026-11-20T00:10:00Z");
    let engine = MemoryEngine::named("one", clock.clone());
    engine.add(instance("web-1", &[]));
    let slow = Slow::new(engine);
    slow.pace.lock().unwrap().looks = EVER;
    let directory = tempfile::tempdir().unwrap();
    let text = text(&["one"], SETTINGS, &[("hourly", "one", HOURLY)]);
    let script = Script::new(&text, vec![slow.clone()], directory.path());
    let running = Running::start(script.clone(), clock.clone(), MINUTE);
    tokio::time::sleep(MINUTE).await;
    (clock, slow, script, running, directory)
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_mended_while_a_look_at_it_hangs_works_within_seconds() {
    let (clock, _, script, running, _directory) = mute().await;
    let engine = MemoryEngine::named("one", clock);
    engine.add(instance("web-1", &[]));
    *script.engines.lock().unwrap() = vec![engine.clone()];
    let written = script.text.lock().unwrap().replace("{memory: {}}", "{memory: {at: there}}");
    script.write(&written);
    running.bell.files_changed();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(slots(&engine).len(), 1);
    let one = running.status.snapshot().engines["one"].clone();
    assert_eq!(one.rounds, [("well", 1)].into(), "what was broken off was no round");
    running.stop().await;
}

/// Whoever has mended the service itself says so.
#[tokio::test(start_paused = true)]
async fn a_look_that_hangs_is_begun_anew_when_somebody_asks() {
    let (_, slow, _, running, _directory) = mute().await;
    slow.pace.lock().unwrap().looks = Duration::ZERO;
    tokio::time::sleep(MINUTE * 5).await;
    assert!(slots(&slow.inner).is_empty(), "the look that hangs does not end by itself");
    running.bell.reload();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(slots(&slow.inner).len(), 1);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_look_that_is_begun_anew_all_the_time_is_told_of_when_its_time_is_over() {
    let (_, slow, _, running, _directory) = mute().await;
    for _ in 0..13 {
        assert_eq!(running.status.snapshot().engines["one"].rounds, [].into());
        tokio::time::sleep(MINUTE * 5).await;
        running.bell.reload();
        tokio::time::sleep(Duration::from_secs(5)).await;
        if running.status.snapshot().engines["one"].rounds == [("broken", 1)].into() {
            slow.pace.lock().unwrap().looks = Duration::ZERO;
            running.bell.reload();
            tokio::time::sleep(MINUTE).await;
        }
        if !slots(&slow.inner).is_empty() {
            break;
        }
    }
    assert_eq!(
        running.status.snapshot().engines["one"].rounds,
        [("broken", 1), ("well", 1)].into()
    );
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_a_look_before_which_nothing_has_begun() {
    let (_, _, _, running, _directory) = mute().await;
    let (asked, status) = (Instant::now(), Arc::clone(&running.status));
    running.stop().await;
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    let one = status.snapshot().engines["one"].clone();
    assert_eq!((one.rounds, one.round_since), ([].into(), None), "no round goes on");
}

/// One stop waits a moment for the look after what was done, and two less.
#[tokio::test(start_paused = true)]
async fn a_stop_waits_a_moment_for_the_look_after_what_was_done() {
    for (stops, longest) in [(1, 62), (2, 7)] {
        let fleet = fleet(MINUTE * 2, "");
        let running = fleet.start();
        tokio::time::sleep(MINUTE).await;
        fleet.slow.pace.lock().unwrap().looks = EVER;
        tokio::time::sleep(MINUTE * 5).await;
        assert_eq!(fleet.made("web-1"), 1);
        let asked = Instant::now();
        (0..stops).for_each(|_| running.bell.stop());
        running.task.await.unwrap();
        assert!(asked.elapsed() < Duration::from_secs(longest), "{:?}", asked.elapsed());
    }
}

/// Nothing would be begun after it anyway.
#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_the_look_before_deletes() {
    let fleet = fleet(Duration::ZERO, "");
    let running = fleet.start();
    tokio::time::sleep(HOUR * 6).await;
    fleet.slow.takes("web-1", MINUTE * 2);
    tokio::time::sleep(MINUTE * 51).await;
    assert!(fleet.slow.pace.lock().unwrap().at_it.contains("web-1"));
    fleet.slow.pace.lock().unwrap().looks = EVER;
    let deleted = || fleet.engine.world.lock().unwrap().deleted.len();
    let before = deleted();
    tokio::time::sleep(MINUTE * 3).await;
    let asked = Instant::now();
    running.bell.stop();
    running.bell.stop();
    running.task.await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(7), "{:?}", asked.elapsed());
    assert_eq!((fleet.made("web-1"), deleted()), (8, before));
}

/// A reload does not wait for it either, and what was made is known all the same.
#[tokio::test(start_paused = true)]
async fn an_engine_that_is_mended_while_the_last_look_hangs_works_soon() {
    let fleet = fleet(MINUTE * 2, "");
    let running = fleet.start();
    tokio::time::sleep(MINUTE).await;
    fleet.slow.pace.lock().unwrap().looks = EVER;
    tokio::time::sleep(MINUTE * 5).await;
    fleet.slow.pace.lock().unwrap().looks = Duration::ZERO;
    fleet.engine.add(instance("web-9", &[]));
    running.bell.reload();
    tokio::time::sleep(MINUTE * 2).await;
    assert_eq!(count(&running, Action::Create, "done"), 5);
    fleet.stop(running).await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_never_answers_stops_no_other() {
    let clock = VirtualClock::from("2026-11-20T00:10:00Z");
    let engines = ["bad", "good"].map(|name| {
        let engine = MemoryEngine::named(name, clock.clone());
        engine.add(instance("web-1", &[]));
        engine
    });
    let slow = Slow::new(engines[0].clone());
    slow.pace.lock().unwrap().looks = EVER;
    let directory = tempfile::tempdir().unwrap();
    let text =
        text(&["bad", "good"], "", &[("of-bad", "bad", HOURLY), ("of-good", "good", HOURLY)]);
    let both: Vec<Arc<dyn Engine>> = vec![slow.clone(), engines[1].clone()];
    let script = Script::new(&text, both, directory.path());
    let running = Running::start(script, clock.clone(), MINUTE);
    tokio::time::sleep(HOUR * 12).await;
    assert_eq!(slots(&engines[1])[&("of-good".to_owned(), "web-1".to_owned())].len(), 13);
    let bad = running.status.snapshot().engines["bad"].clone();
    assert!(bad.rounds["broken"] >= 4, "{:?}", bad.rounds);
    let gaps = bad.facts.unwrap().round.gaps.join("\n");
    assert!(gaps.contains("no answer within 1h"), "{gaps}");
    slow.pace.lock().unwrap().looks = Duration::ZERO;
    tokio::time::sleep(HOUR * 3).await;
    assert!(!slots(&engines[0]).is_empty(), "it is seen again, at {}", clock.now());
    running.stop().await;
}
