//! Who is told of what goes wrong, when, and how often: in virtual time with a courier that only writes
//! down, and over real connections to servers on this machine.

mod post;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use stillframe::alert::{Item, Notification, Occasion};
use stillframe::apply::check_chain;
use stillframe::clock::Clock;
use stillframe::engine::{
    CopyRequest, CreateRequest, Created, Engine, EngineError, Settled, Standing, Watcher,
};
use stillframe::inventory::{DrillCheck, EngineInventory, Gap, GapScope, Image};
use stillframe::plan::{ImageRef, Update};
use stillframe::policy::meant::{Ping, Receiver, Way};
use stillframe::policy::{SourceFile, load};
use stillframe::watch::{Courier, Pace, SendError, Signal};
use tempfile::TempDir;

use super::super::memory::{MemoryEngine, instance};
use super::metrics::parse;
use super::{Running, Script, VirtualClock, kind, slots, text};

const HOUR: Duration = Duration::from_hours(1);
const MINUTE: Duration = Duration::from_mins(1);

/// An engine of which captures of some sources fail, and which cannot be seen at times.
struct Faulty {
    inner: Arc<MemoryEngine>,
    /// Sources that cannot be captured.
    broken: Mutex<BTreeSet<String>>,
    is_hidden: Mutex<bool>,
    /// Who has tried to create something does not see the next time.
    blinks: Mutex<bool>,
    /// Sources that cannot be seen, and whether their images alone cannot be.
    unseen: Mutex<Option<(String, bool)>>,
    /// It does not answer for as long.
    is_held: Mutex<bool>,
    /// A machine that was stopped for a capture does not run again.
    stands: Mutex<bool>,
    settled: Mutex<u32>,
}

impl Faulty {
    fn new(inner: Arc<MemoryEngine>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            broken: Mutex::default(),
            is_hidden: Mutex::default(),
            blinks: Mutex::default(),
            unseen: Mutex::default(),
            is_held: Mutex::default(),
            stands: Mutex::default(),
            settled: Mutex::default(),
        })
    }

    fn breaks(&self, sources: &[&str]) {
        *self.broken.lock().unwrap() = sources.iter().map(|name| (*name).to_owned()).collect();
    }

    fn hides(&self, is_hidden: bool) {
        *self.is_hidden.lock().unwrap() = is_hidden;
    }
}

#[async_trait]
impl Engine for Faulty {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn observe(&self) -> EngineInventory {
        while *self.is_held.lock().unwrap() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let mut seen = self.inner.observe().await;
        if let Some((source, only_images)) = &*self.unseen.lock().unwrap() {
            seen.images.retain(|image| image.source.as_ref().is_none_or(|of| of.name != *source));
            seen.instances.retain(|instance| *only_images || instance.name != *source);
            let (place, message) = ("zone-b".to_owned(), "no answer".to_owned());
            seen.gaps.push(Gap { scope: GapScope::Images, place, message });
        }
        if *self.is_hidden.lock().unwrap() {
            seen.instances.clear();
            seen.images.clear();
            // Who does not answer is a gap of both.
            for scope in [GapScope::Instances, GapScope::Images] {
                let (place, message) = ("zone-a".to_owned(), "no answer".to_owned());
                seen.gaps.push(Gap { scope, place, message });
            }
        }
        if *self.blinks.lock().unwrap() {
            self.hides(false);
        }
        seen
    }

    async fn create(
        &self,
        request: CreateRequest,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Created, EngineError> {
        if *self.blinks.lock().unwrap() {
            self.hides(true);
        }
        if self.broken.lock().unwrap().contains(request.key.source.as_str()) {
            return Err(EngineError::Failed("the disk is gone".to_owned()));
        }
        self.inner.create(request, watcher).await
    }

    async fn copy(
        &self,
        request: CopyRequest,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Created, EngineError> {
        self.inner.copy(request, watcher).await
    }

    async fn drill(
        &self,
        image: &ImageRef,
        check: DrillCheck,
        watcher: Arc<dyn Watcher>,
    ) -> Result<(), EngineError> {
        self.inner.drill(image, check, watcher).await
    }

    async fn update(&self, image: &ImageRef, update: &Update) -> Result<Image, EngineError> {
        self.inner.update(image, update).await
    }

    async fn delete(&self, image: &ImageRef) -> Result<(), EngineError> {
        self.inner.delete(image).await
    }

    async fn settle(&self) -> Result<Settled, EngineError> {
        *self.settled.lock().unwrap() += 1;
        let mut settled = self.inner.settle().await?;
        if *self.stands.lock().unwrap() {
            let message = "s0 was stopped for a capture and does not run again".to_owned();
            settled.standing.push(Standing { message, is_overdue: true });
        }
        Ok(settled)
    }
}

/// Writes down what it is given, and fails as long as it is told to.
#[derive(Default)]
struct Notebook {
    sent: Mutex<Vec<(String, Notification)>>,
    pings: Mutex<Vec<(Signal, String)>>,
    fault: Mutex<Option<SendError>>,
    /// A title that it cannot take.
    refuses: Mutex<Option<String>>,
    /// To whom mail was to go.
    mail: Mutex<Vec<String>>,
    attempts: Mutex<u64>,
    /// It never comes back.
    hangs: Mutex<bool>,
}

impl Notebook {
    fn fails(&self, fault: Option<SendError>) {
        *self.fault.lock().unwrap() = fault;
    }

    /// The titles of what was sent since the last time.
    fn titles(&self) -> Vec<String> {
        let sent = std::mem::take(&mut *self.sent.lock().unwrap());
        let short = |title: &str| title.trim_start_matches("stillframe: ").to_owned();
        sent.iter().map(|(receiver, sent)| format!("{receiver}: {}", short(&sent.title))).collect()
    }
}

#[async_trait]
impl Courier for Notebook {
    async fn send(
        &self,
        _: &Path,
        receiver: &Receiver,
        message: &Notification,
    ) -> Result<(), SendError> {
        *self.attempts.lock().unwrap() += 1;
        if *self.hangs.lock().unwrap() {
            std::future::pending::<()>().await;
        }
        if let Way::Email(email) = &receiver.way {
            self.mail.lock().unwrap().push(email.to.join(" "));
        }
        if let Some(fault) = self.fault.lock().unwrap().clone() {
            return Err(fault);
        }
        let refused = self.refuses.lock().unwrap().clone();
        if refused.is_some_and(|title| message.title.ends_with(&title)) {
            return Err(SendError::passing("it answered HTTP 500"));
        }
        self.sent.lock().unwrap().push((receiver.name.clone(), message.clone()));
        Ok(())
    }

    async fn ping(&self, _: &Path, _: &Ping, signal: Signal, round: &str) -> Result<(), SendError> {
        if *self.hangs.lock().unwrap() {
            std::future::pending::<()>().await;
        }
        self.pings.lock().unwrap().push((signal, round.to_owned()));
        Ok(())
    }
}

const EVERYBODY: &str =
    "  watch:\n    notify:\n      receivers:\n        ops: {exec: {command: [tell]}}\n";
const HOURLY: &str = "  source: {match: [{names: [\"*\"]}]}\n  schedule: {cron: \"0 * * * *\", deadline: \
                      30m}\n  retention: {last: 3}\n";

/// A watch over an engine with some sources, and what is told of it.
struct Stage {
    directory: TempDir,
    clock: Arc<VirtualClock>,
    engine: Arc<Faulty>,
    script: Arc<Script>,
    notebook: Arc<Notebook>,
    running: Option<Running>,
}

impl Stage {
    fn new(more: &str, policy: &str, sources: usize) -> Self {
        let clock = VirtualClock::from("2026-11-20T00:10:00Z");
        let memory = MemoryEngine::named("one", clock.clone());
        for number in 0..sources {
            memory.add(instance(&format!("s{number}"), &[]));
        }
        let engine = Faulty::new(memory);
        let directory = tempfile::tempdir().unwrap();
        let written = text(&["one"], more, &[("hourly", "one", policy)]);
        let script = Script::new(&written, vec![engine.clone()], directory.path());
        let notebook = Arc::new(Notebook::default());
        let mut stage = Self { directory, clock, engine, script, notebook, running: None };
        stage.start();
        stage
    }

    fn start(&mut self) {
        let running = Running::with(
            self.script.clone(),
            self.clock.clone(),
            Pace::default(),
            self.notebook.clone(),
        );
        self.running = Some(running);
    }

    fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    async fn stop(&mut self) {
        self.running.take().unwrap().stop().await;
    }

    async fn kill(&mut self) {
        self.running.take().unwrap().kill().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_once_and_its_end_once() {
    let mut stage = Stage::new(EVERYBODY, HOURLY, 3);
    tokio::time::sleep(HOUR).await;
    assert_eq!(stage.notebook.titles(), [""; 0], "all is well");
    stage.engine.breaks(&["s0", "s1"]);
    tokio::time::sleep(20 * MINUTE).await;
    // It was tried several times since.
    assert_eq!(stage.notebook.titles(), [""; 0], "nothing was due");
    tokio::time::sleep(40 * MINUTE).await;
    assert_eq!(stage.notebook.titles(), ["ops: 2 failures"]);
    // At half past it is too late.
    tokio::time::sleep(HOUR / 2).await;
    assert_eq!(stage.notebook.titles(), ["ops: 2 missed slots"]);
    tokio::time::sleep(20 * HOUR).await;
    assert_eq!(stage.notebook.titles(), ["ops: 2 stalled sources"]);
    tokio::time::sleep(4 * HOUR).await;
    let still = "ops: still 2 stalled sources, 2 missed slots, 2 failures";
    assert_eq!(stage.notebook.titles(), [still]);
    stage.engine.breaks(&["s1"]);
    tokio::time::sleep(HOUR).await;
    let over = "ops: no longer 1 stalled source, 1 missed slot, 1 failure";
    assert_eq!(stage.notebook.titles(), [over]);
    stage.engine.breaks(&[]);
    tokio::time::sleep(HOUR).await;
    assert_eq!(stage.notebook.titles(), [over]);
    stage.stop().await;
}

/// Without a deadline of its own a slot may be captured until the next one is due, and that is made in
/// the round that finds it missed.
#[tokio::test(start_paused = true)]
async fn each_slot_that_was_missed_is_told() {
    let policy = HOURLY.replace("    deadline: 30m\n", "").replace(", deadline: 30m", "");
    assert!(!policy.contains("deadline"), "{policy}");
    let mut stage = Stage::new(EVERYBODY, &policy, 1);
    tokio::time::sleep(HOUR).await;
    stage.engine.hides(true);
    tokio::time::sleep(2 * HOUR).await;
    assert_eq!(stage.notebook.titles(), ["ops: 1 gap in what is seen"]);
    stage.engine.hides(false);
    tokio::time::sleep(30 * MINUTE).await;
    assert_eq!(stage.notebook.titles(), ["ops: 1 missed slot; no longer 1 gap in what is seen"]);
    tokio::time::sleep(HOUR).await;
    assert_eq!(stage.notebook.titles(), ["ops: no longer 1 missed slot"]);
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_is_told_from_now_on_hears_of_nothing_that_was_made_good_before() {
    let policy = HOURLY.replace(", deadline: 30m", "");
    let mut stage = Stage::new("", &policy, 1);
    tokio::time::sleep(HOUR).await;
    stage.engine.hides(true);
    tokio::time::sleep(2 * HOUR).await;
    stage.engine.hides(false);
    tokio::time::sleep(3 * HOUR).await;
    stage.script.write(&text(&["one"], EVERYBODY, &[("hourly", "one", &policy)]));
    stage.running().bell.files_changed();
    tokio::time::sleep(2 * HOUR).await;
    assert_eq!(stage.notebook.titles(), [""; 0]);
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_objective_that_breaks_out_of_sight_is_told() {
    let policy = format!("{HOURLY}  objectives: {{rpo: 2h}}\n");
    let mut stage = Stage::new(EVERYBODY, &policy, 1);
    tokio::time::sleep(HOUR).await;
    assert_eq!(stage.notebook.titles(), [""; 0]);
    stage.engine.hides(true);
    tokio::time::sleep(4 * HOUR).await;
    let told = stage.notebook.titles();
    assert_eq!(told, ["ops: 1 gap in what is seen", "ops: 1 breach of an objective"]);
    stage.engine.hides(false);
    tokio::time::sleep(30 * MINUTE).await;
    let told = stage.notebook.titles().join(" ");
    assert!(told.contains("no longer 1 breach of an objective"), "{told}");
    stage.stop().await;
}

/// What was seen before something was tried, and not after it, has not recovered.
#[tokio::test(start_paused = true)]
async fn nothing_recovers_in_a_look_that_sees_nothing() {
    let policy = format!("{HOURLY}  objectives: {{rpo: 2h}}\n");
    let mut stage = Stage::new(EVERYBODY, &policy, 1);
    tokio::time::sleep(HOUR).await;
    stage.engine.breaks(&["s0"]);
    tokio::time::sleep(4 * HOUR).await;
    let told = stage.notebook.titles().join(" ");
    assert!(told.contains("1 breach of an objective"), "{told}");
    *stage.engine.blinks.lock().unwrap() = true;
    tokio::time::sleep(2 * HOUR).await;
    let told = stage.notebook.titles().join(" ");
    assert!(!told.contains("no longer"), "{told}");
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_had_not_arrived_when_it_was_stopped_is_told_after_the_next_start() {
    let mut stage = Stage::new(EVERYBODY, HOURLY, 1);
    stage.notebook.fails(Some(SendError::passing("it answered HTTP 503")));
    stage.engine.breaks(&["s0"]);
    tokio::time::sleep(10 * MINUTE).await;
    stage.stop().await;
    assert_eq!(stage.notebook.titles(), [""; 0]);
    stage.notebook.fails(None);
    stage.start();
    tokio::time::sleep(MINUTE).await;
    assert_eq!(stage.notebook.titles(), ["ops: 1 failure"]);
    // What has arrived is not told again.
    stage.stop().await;
    stage.start();
    tokio::time::sleep(MINUTE).await;
    assert_eq!(stage.notebook.titles(), [""; 0]);
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_recovery_that_had_not_arrived_is_told_after_the_next_start() {
    for is_killed in [false, true] {
        let mut stage = Stage::new(EVERYBODY, HOURLY, 1);
        stage.engine.breaks(&["s0"]);
        tokio::time::sleep(MINUTE).await;
        assert_eq!(stage.notebook.titles(), ["ops: 1 failure"]);
        stage.notebook.fails(Some(SendError::passing("it answered HTTP 500")));
        stage.engine.breaks(&[]);
        tokio::time::sleep(10 * MINUTE).await;
        assert_eq!(stage.notebook.titles(), [""; 0]);
        let again = async |stage: &mut Stage| {
            if is_killed {
                stage.kill().await;
            } else {
                stage.stop().await;
            }
            stage.start();
            tokio::time::sleep(10 * MINUTE).await;
            stage.notebook.titles()
        };
        // Also where it does not arrive then either.
        assert_eq!(again(&mut stage).await, [""; 0]);
        stage.notebook.fails(None);
        assert_eq!(again(&mut stage).await, ["ops: no longer 1 failure"], "killed: {is_killed}");
        // Who has heard it hears it once.
        assert_eq!(again(&mut stage).await, [""; 0]);
        stage.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_a_receiver_cannot_take_holds_up_only_what_is_about_the_same() {
    let mut stage = Stage::new(EVERYBODY, HOURLY, 1);
    tokio::time::sleep(MINUTE).await;
    *stage.notebook.refuses.lock().unwrap() = Some(": 1 failure".to_owned());
    stage.engine.breaks(&["s0"]);
    tokio::time::sleep(HOUR).await;
    assert_eq!(stage.notebook.titles(), [""; 0]);
    tokio::time::sleep(HOUR / 2).await;
    assert_eq!(stage.notebook.titles(), ["ops: 1 missed slot"]);
    // That it has ended would be heard before that it was.
    stage.engine.breaks(&[]);
    tokio::time::sleep(HOUR / 2).await;
    assert_eq!(stage.notebook.titles(), [""; 0]);
    *stage.notebook.refuses.lock().unwrap() = None;
    tokio::time::sleep(HOUR / 2).await;
    assert_eq!(
        stage.notebook.titles(),
        ["ops: 1 failure", "ops: no longer 1 missed slot, 1 failure"]
    );
    stage.stop().await;
}

/// It arrives while watching ends, or seconds before it is killed.
#[tokio::test(start_paused = true)]
async fn a_recovery_that_has_just_arrived_is_not_told_after_the_next_start() {
    for is_killed in [false, true] {
        let mut stage = Stage::new(EVERYBODY, HOURLY, 1);
        stage.engine.breaks(&["s0"]);
        tokio::time::sleep(MINUTE).await;
        assert_eq!(stage.notebook.titles(), ["ops: 1 failure"]);
        stage.engine.breaks(&[]);
        while slots(&stage.engine.inner).is_empty() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(stage.notebook.titles(), [""; 0], "what comes shortly after is told with it");
        if is_killed {
            tokio::time::sleep(Duration::from_secs(15)).await;
            stage.kill().await;
        } else {
            stage.stop().await;
        }
        assert_eq!(stage.notebook.titles(), ["ops: no longer 1 failure"]);
        stage.start();
        tokio::time::sleep(MINUTE).await;
        assert_eq!(stage.notebook.titles(), [""; 0], "killed: {is_killed}");
        stage.stop().await;
    }
}

/// Who was away for a moment hears of things in their order.
#[tokio::test(start_paused = true)]
async fn a_message_that_fails_once_is_not_overtaken() {
    let mut stage = Stage::new(EVERYBODY, HOURLY, 1);
    tokio::time::sleep(MINUTE).await;
    let after = Some(MINUTE);
    stage.notebook.fails(Some(SendError { after, ..SendError::passing("it answered HTTP 429") }));
    stage.engine.breaks(&["s0"]);
    stage.clock.reach("2026-11-20T01:00:15Z".parse().unwrap()).await;
    assert_eq!(*stage.notebook.attempts.lock().unwrap(), 1);
    stage.notebook.fails(None);
    let good = stage.script.text.lock().unwrap().clone();
    stage.script.write(&good.replace("last: 3", "lost: 3"));
    stage.running().bell.files_changed();
    tokio::time::sleep(MINUTE / 2).await;
    assert_eq!(stage.running().status.snapshot().tally.waiting["ops"], 2);
    assert_eq!(stage.notebook.titles(), [""; 0], "a minute was asked for");
    tokio::time::sleep(MINUTE).await;
    let told = ["ops: 1 failure", "ops: 1 invalid change of the policies"];
    assert_eq!(stage.notebook.titles(), told);
    stage.stop().await;
}

/// However often it has failed: what comes meanwhile is not sent either.
#[tokio::test(start_paused = true)]
async fn who_asks_for_patience_has_it_for_all_that_waits() {
    let mut stage = Stage::new(EVERYBODY, HOURLY, 1);
    tokio::time::sleep(MINUTE).await;
    let after = Some(HOUR / 4);
    stage.notebook.fails(Some(SendError { after, ..SendError::passing("it answered HTTP 429") }));
    stage.engine.breaks(&["s0"]);
    let attempts = |stage: &Stage| *stage.notebook.attempts.lock().unwrap();
    let waiting = |stage: &Stage| stage.running().status.snapshot().tally.waiting["ops"];
    stage.clock.reach("2026-11-20T01:40:00Z".parse().unwrap()).await;
    // The failure is of one o'clock, the missed slot of half past one.
    assert_eq!((attempts(&stage), waiting(&stage)), (3, 2));
    let good = stage.script.text.lock().unwrap().clone();
    stage.script.write(&good.replace("last: 3", "lost: 3"));
    stage.running().bell.files_changed();
    stage.clock.reach("2026-11-20T01:44:00Z".parse().unwrap()).await;
    assert_eq!((attempts(&stage), waiting(&stage)), (3, 3));
    stage.notebook.fails(None);
    stage.clock.reach("2026-11-20T01:46:00Z".parse().unwrap()).await;
    assert_eq!(waiting(&stage), 0);
    stage.stop().await;
}

/// The failure is of one o'clock, the missed slot of half past one.
#[tokio::test(start_paused = true)]
async fn each_message_is_dropped_a_day_after_it_was_written() {
    let mut stage = Stage::new(EVERYBODY, HOURLY, 1);
    tokio::time::sleep(MINUTE).await;
    stage.notebook.fails(Some(SendError::passing("it answered HTTP 503")));
    stage.engine.breaks(&["s0"]);
    let dropped = |stage: &Stage| {
        let tally = stage.running().status.snapshot().tally;
        tally.messages[&("ops".to_owned(), "dropped")]
    };
    let at = |text: &str| text.parse().unwrap();
    for (time, count) in
        [("2026-11-21T00:55:00Z", 0), ("2026-11-21T01:25:00Z", 1), ("2026-11-21T02:00:00Z", 2)]
    {
        stage.clock.reach(at(time)).await;
        assert_eq!(dropped(&stage), count, "{time}");
    }
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn mail_is_sent_again_only_to_those_who_do_not_have_it() {
    let more = "  watch:\n    notify:\n      receivers:\n        ops: {email: {host: mx.example.org, \
                from: b@example.org, to: [one@example.org, \"Two <two@example.org>\"]}}\n";
    let mut stage = Stage::new(more, HOURLY, 1);
    let left = vec!["two@example.org".to_owned()];
    let full = SendError { left, ..SendError::passing("no mail to two@example.org: it is full") };
    stage.notebook.fails(Some(full));
    stage.engine.breaks(&["s0"]);
    tokio::time::sleep(5 * MINUTE).await;
    stage.notebook.fails(None);
    tokio::time::sleep(15 * MINUTE).await;
    assert_eq!(stage.notebook.titles(), ["ops: 1 failure"]);
    let mail = stage.notebook.mail.lock().unwrap().clone();
    assert_eq!(mail[0], "one@example.org Two <two@example.org>");
    assert!(mail.len() > 3 && mail[1..].iter().all(|to| to == "Two <two@example.org>"), "{mail:?}");
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_stays_behind_is_told_and_tried_again_soon() {
    let mut stage = Stage::new(EVERYBODY, HOURLY, 1);
    tokio::time::sleep(HOUR).await;
    let rounds = |stage: &Stage| std::mem::take(&mut *stage.engine.settled.lock().unwrap());
    rounds(&stage);
    tokio::time::sleep(HOUR).await;
    let well = rounds(&stage);
    *stage.engine.stands.lock().unwrap() = true;
    tokio::time::sleep(HOUR).await;
    assert_eq!(stage.notebook.titles(), ["ops: 1 failure"]);
    let tried = rounds(&stage);
    assert!(tried > well, "{tried} rounds instead of {well}");
    *stage.engine.stands.lock().unwrap() = false;
    tokio::time::sleep(HOUR).await;
    assert_eq!(stage.notebook.titles(), ["ops: no longer 1 failure"]);
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_seen_has_not_recovered() {
    let mut stage = Stage::new(EVERYBODY, HOURLY, 2);
    stage.engine.breaks(&["s0"]);
    tokio::time::sleep(MINUTE).await;
    assert_eq!(stage.notebook.titles(), ["ops: 1 failure"]);
    stage.engine.hides(true);
    tokio::time::sleep(10 * MINUTE).await;
    assert_eq!(stage.notebook.titles(), ["ops: 1 gap in what is seen"]);
    stage.engine.breaks(&[]);
    stage.engine.hides(false);
    tokio::time::sleep(2 * HOUR).await;
    let told = stage.notebook.titles();
    assert_eq!(told, ["ops: no longer 1 gap in what is seen", "ops: no longer 1 failure"]);
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_seen_keeps_its_metrics_and_its_place_on_the_page() {
    let mut stage = Stage::new(EVERYBODY, HOURLY, 2);
    stage.running().status.keep_page();
    tokio::time::sleep(MINUTE).await;
    let metrics = |stage: &Stage| {
        let snapshot = stage.running().status.snapshot();
        parse(&stillframe::watch::metrics::text(&snapshot, stage.clock.now()))
    };
    let age = |metrics: &BTreeMap<String, f64>| -> Vec<f64> {
        let ages = metrics.iter().filter(|(name, _)| name.contains("newest_ready_age_seconds{"));
        ages.map(|(_, age)| *age).collect()
    };
    let seen_at = "stillframe_engine_seen_timestamp_seconds{engine=\"one\"}";
    let before = metrics(&stage);
    assert_eq!(age(&before), [660.0, 660.0]);
    stage.engine.hides(true);
    tokio::time::sleep(3 * HOUR).await;
    let after = metrics(&stage);
    assert_eq!(age(&after), [11_460.0, 11_460.0], "they grow older");
    assert!((after[seen_at] - before[seen_at]).abs() < 1.0, "when it was seen last");
    assert!(after["stillframe_engine_gaps{engine=\"one\"}"] > 0.0);
    let snapshot = stage.running().status.snapshot();
    let page = snapshot.engines["one"].overview.clone().unwrap();
    assert_eq!(
        (page.sources.len(), page.gaps.as_slice()),
        (2, &["zone-a: no answer".to_owned()][..])
    );
    stage.engine.hides(false);
    tokio::time::sleep(HOUR).await;
    assert!(metrics(&stage)[seen_at] > before[seen_at]);
    stage.stop().await;
}

impl Stage {
    fn metrics(&self) -> BTreeMap<String, f64> {
        let snapshot = self.running().status.snapshot();
        parse(&stillframe::watch::metrics::text(&snapshot, self.clock.now()))
    }
}

/// The values of the series whose names begin so.
fn of(metrics: &BTreeMap<String, f64>, begin: &str) -> Vec<f64> {
    let found = metrics.iter().filter(|(name, _)| name.starts_with(begin));
    found.map(|(_, value)| *value).collect()
}

#[tokio::test(start_paused = true)]
async fn sources_that_a_look_left_out_keep_their_metrics() {
    let policy = format!("{HOURLY}  objectives: {{rpo: 3h}}\n");
    let mut stage = Stage::new(EVERYBODY, &policy, 2);
    tokio::time::sleep(MINUTE).await;
    let age = "stillframe_source_newest_ready_age_seconds{";
    let left = "stillframe_source_rpo_breach_seconds{";
    for only_images in [false, true] {
        assert_eq!(of(&stage.metrics(), left).len(), 2);
        *stage.engine.unseen.lock().unwrap() = Some(("s0".to_owned(), only_images));
        stage.running().bell.reload();
        tokio::time::sleep(MINUTE).await;
        let metrics = stage.metrics();
        assert!(metrics["stillframe_engine_gaps{engine=\"one\"}"] > 0.0);
        let ages = of(&metrics, age);
        assert!(ages.len() == 2 && ages.iter().all(|age| *age < 3_600.0), "{ages:?}");
        assert!(of(&metrics, left).iter().all(|left| *left > 0.0), "{metrics:?}");
        *stage.engine.unseen.lock().unwrap() = None;
        stage.running().bell.reload();
        tokio::time::sleep(MINUTE).await;
    }
    // Who is gone for good goes from the metrics as well, once all is seen.
    stage.engine.inner.world.lock().unwrap().instances.remove("s0");
    stage.running().bell.reload();
    tokio::time::sleep(MINUTE).await;
    assert_eq!(of(&stage.metrics(), age).len(), 1);
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_missed_slot_is_counted_once_whatever_was_seen_in_between() {
    let mut stage = Stage::new(EVERYBODY, HOURLY, 2);
    tokio::time::sleep(HOUR).await;
    stage.engine.breaks(&["s0"]);
    // The slot of two has been missed since half past.
    tokio::time::sleep(HOUR + 30 * MINUTE).await;
    let missed = |stage: &Stage| of(&stage.metrics(), "stillframe_source_missed_slots_total{");
    assert_eq!(missed(&stage), [1.0]);
    for _ in 0..2 {
        stage.engine.hides(true);
        stage.running().bell.reload();
        tokio::time::sleep(MINUTE).await;
        assert_eq!(missed(&stage), [1.0]);
        stage.engine.hides(false);
        stage.running().bell.reload();
        tokio::time::sleep(MINUTE).await;
        assert_eq!(missed(&stage), [1.0], "it is the same one");
    }
    tokio::time::sleep(HOUR).await;
    assert_eq!(missed(&stage), [2.0]);
    stage.engine.inner.world.lock().unwrap().instances.remove("s0");
    tokio::time::sleep(HOUR).await;
    assert_eq!(missed(&stage), [0.0; 0]);
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_never_seen_is_not_said_to_have_been() {
    let mut stage = Stage::new(EVERYBODY, HOURLY, 2);
    stage.engine.hides(true);
    tokio::time::sleep(2 * HOUR).await;
    let metrics = stage.metrics();
    // The alert rules: tried, and never seen; and nothing else is made up.
    assert_eq!(of(&metrics, "stillframe_engine_circuit_open{"), [1.0]);
    for series in ["engine_seen_timestamp_seconds", "instances", "instances_unprotected"] {
        assert_eq!(of(&metrics, &format!("stillframe_{series}{{")), [0.0; 0], "{series}");
    }
    assert_eq!(of(&metrics, "stillframe_engine_gaps{"), [1.0]);
    stage.engine.hides(false);
    tokio::time::sleep(HOUR).await;
    let metrics = stage.metrics();
    assert_eq!(of(&metrics, "stillframe_engine_seen_timestamp_seconds{").len(), 1);
    assert_eq!(of(&metrics, "stillframe_instances{"), [2.0]);
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_round_of_an_engine_that_was_taken_out_leaves_nothing_behind() {
    let mut stage = Stage::new(EVERYBODY, HOURLY, 1);
    tokio::time::sleep(MINUTE).await;
    let two = MemoryEngine::named("two", stage.clock.clone());
    two.add(instance("s9", &[]));
    *stage.engine.is_held.lock().unwrap() = true;
    stage.engine.hides(true);
    stage.running().bell.reload();
    tokio::time::sleep(MINUTE).await;
    stage.script.engines.lock().unwrap().push(two);
    stage.script.write(&text(&["two"], EVERYBODY, &[("hourly", "two", HOURLY)]));
    stage.running().bell.files_changed();
    tokio::time::sleep(MINUTE).await;
    *stage.engine.is_held.lock().unwrap() = false;
    tokio::time::sleep(MINUTE).await;
    assert_eq!(stage.notebook.titles(), [""; 0], "it is nobody's matter any more");
    assert!(!stage.running().status.snapshot().engines.contains_key("one"));
    assert_eq!(of(&stage.metrics(), "stillframe_engine_gaps{"), [0.0]);
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_source_that_can_never_be_captured_is_not_looked_at_again_and_again() {
    let mut stage = Stage::new(EVERYBODY, HOURLY, 2);
    let mut odd = instance("s9", &[]);
    odd.disks.clear();
    stage.engine.inner.add(odd);
    tokio::time::sleep(5 * HOUR).await;
    let rounds: f64 = of(&stage.metrics(), "stillframe_rounds_total{").iter().sum();
    assert!(rounds < 20.0, "{rounds} in five hours");
    assert_eq!(stage.notebook.titles()[0], "ops: 1 failure", "it is told all the same");
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_that_is_not_valid_is_told_with_its_place() {
    let mut stage = Stage::new(EVERYBODY, HOURLY, 1);
    tokio::time::sleep(MINUTE).await;
    let good = stage.script.text.lock().unwrap().clone();
    stage.script.write(&good.replace("last: 3", "lost: 3"));
    stage.running().bell.files_changed();
    tokio::time::sleep(MINUTE).await;
    let sent = std::mem::take(&mut *stage.notebook.sent.lock().unwrap());
    assert_eq!(sent.len(), 1);
    let message = &sent[0].1.conditions[0].message;
    assert!(message.contains("stillframe.yaml:17:15: the key `lost`"), "{message}");
    stage.script.write(&good);
    stage.running().bell.files_changed();
    tokio::time::sleep(MINUTE).await;
    assert_eq!(stage.notebook.titles(), ["ops: no longer 1 invalid change of the policies"]);
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_objective_that_will_be_broken_is_told_before_it_is() {
    // It ran hourly; now it runs daily, and promises three hours.
    let hourly = format!("{HOURLY}  objectives: {{rpo: 3h}}\n");
    let mut stage = Stage::new(EVERYBODY, &hourly, 1);
    tokio::time::sleep(2 * HOUR).await;
    assert_eq!(stage.notebook.titles(), [""; 0]);
    let daily = stage.script.text.lock().unwrap().replace("0 * * * *", "0 0 * * *");
    stage.script.write(&daily);
    stage.running().bell.files_changed();
    tokio::time::sleep(MINUTE).await;
    let sent = std::mem::take(&mut *stage.notebook.sent.lock().unwrap());
    let said = &sent[0].1.conditions[0].message;
    assert_eq!(said, "the objective of 3h will be broken at 2026-11-20T05:00:00Z");
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_source_is_no_breach() {
    let policy = format!("{HOURLY}  objectives: {{rpo: 3h}}\n");
    let mut stage = Stage::new(EVERYBODY, &policy, 1);
    tokio::time::sleep(10 * MINUTE).await;
    stage.engine.inner.add(instance("new", &[]));
    tokio::time::sleep(5 * HOUR).await;
    assert_eq!(stage.notebook.titles(), [""; 0]);
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_repeats_nothing_unless_the_file_is_gone() {
    let mut stage = Stage::new(EVERYBODY, HOURLY, 3);
    stage.engine.breaks(&["s0", "s1"]);
    tokio::time::sleep(MINUTE).await;
    assert_eq!(stage.notebook.titles(), ["ops: 2 failures"]);
    for _ in 0..3 {
        stage.kill().await;
        stage.start();
        tokio::time::sleep(MINUTE).await;
    }
    assert_eq!(stage.notebook.titles(), [""; 0]);
    // What ended in the meantime is called off.
    stage.kill().await;
    stage.engine.breaks(&["s1"]);
    stage.start();
    tokio::time::sleep(MINUTE).await;
    assert_eq!(stage.notebook.titles(), ["ops: no longer 1 failure"]);
    stage.kill().await;
    std::fs::remove_file(stage.directory.path().join("ledger.told.json")).unwrap();
    stage.start();
    tokio::time::sleep(MINUTE).await;
    assert_eq!(stage.notebook.titles(), ["ops: 1 failure"]);
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_does_not_arrive_is_sent_again_and_holds_up_no_round() {
    let mut stage = Stage::new(EVERYBODY, HOURLY, 2);
    tokio::time::sleep(MINUTE).await;
    stage.notebook.fails(Some(SendError::passing("it answered HTTP 503")));
    stage.engine.breaks(&["s0"]);
    tokio::time::sleep(3 * HOUR).await;
    let attempts = *stage.notebook.attempts.lock().unwrap();
    assert!((10..30).contains(&attempts), "{attempts} in three hours: later each time");
    assert_eq!(slots(&stage.engine.inner)[&("hourly".to_owned(), "s1".to_owned())].len(), 4);
    stage.notebook.fails(None);
    tokio::time::sleep(HOUR).await;
    let told = stage.notebook.titles();
    let each_once = ["ops: 1 failure", "ops: 1 missed slot", "ops: 1 stalled source"];
    assert_eq!(told, each_once, "and in order");
    let tally = stage.running().status.snapshot().tally;
    let count = |result| tally.messages[&("ops".to_owned(), result)];
    assert_eq!((count("sent"), count("dropped"), tally.waiting["ops"]), (3, 0, 0));
    assert_eq!(count("failed"), *stage.notebook.attempts.lock().unwrap() - 3);
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_receiver_outlives_a_change_of_it() {
    let mut stage = Stage::new(EVERYBODY, HOURLY, 1);
    tokio::time::sleep(MINUTE).await;
    stage.notebook.fails(Some(SendError::passing("it answered HTTP 503")));
    stage.engine.breaks(&["s0"]);
    tokio::time::sleep(HOUR).await;
    let waiting = |stage: &Stage| stage.running().status.snapshot().tally.waiting.clone();
    assert_eq!(waiting(&stage)["ops"], 1);
    stage.notebook.fails(None);
    let reload = |more: &str| {
        stage.script.write(&text(&["one"], more, &[("hourly", "one", HOURLY)]));
        stage.running().bell.files_changed();
        tokio::time::sleep(Duration::from_secs(5))
    };
    // It is sent at once, to who is meant now.
    reload(&EVERYBODY.replace("[tell]", "[tell, louder]")).await;
    assert_eq!(stage.notebook.titles(), ["ops: 1 failure"]);
    assert_eq!(waiting(&stage)["ops"], 0);
    // Who is no receiver any more gets nothing, and nothing of it waits.
    stage.notebook.fails(Some(SendError::passing("it answered HTTP 503")));
    tokio::time::sleep(HOUR).await;
    assert_eq!(waiting(&stage)["ops"], 1);
    reload(&EVERYBODY.replace("ops:", "new:")).await;
    assert_eq!(waiting(&stage), [("new".to_owned(), 0)].into());
    stage.notebook.fails(None);
    reload(EVERYBODY).await;
    assert_eq!(waiting(&stage), [("ops".to_owned(), 0)].into());
    assert_eq!(stage.notebook.titles(), [""; 0]);
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_hangs_holds_up_nothing_and_what_waits_is_bounded() {
    let more = format!("{EVERYBODY}      pings: [{{url: \"https://hc.example/1\"}}]\n");
    let policy = HOURLY.replace("0 * * * *", "* * * * *").replace("deadline: 30m", "deadline: 30s");
    let mut stage = Stage::new(&more, &policy, 1);
    *stage.notebook.hangs.lock().unwrap() = true;
    for minute in 0..200 {
        stage.engine.breaks(if minute % 2 == 0 { &["s0"] } else { &[] });
        tokio::time::sleep(MINUTE).await;
    }
    let made = slots(&stage.engine.inner)[&("hourly".to_owned(), "s0".to_owned())].len();
    assert!((95..=105).contains(&made), "{made} of 100: rounds go on");
    let tally = stage.running().status.snapshot().tally;
    assert!(tally.waiting["ops"] <= 65, "{tally:?}");
    assert!(tally.messages[&("ops".to_owned(), "dropped")] > 0, "{tally:?}");
    assert!(tally.pings["dropped"] > 0, "{tally:?}");
    let before = tokio::time::Instant::now();
    stage.stop().await;
    assert!(before.elapsed() < Duration::from_secs(10), "stopping waits for none of it");
}

#[tokio::test(start_paused = true)]
async fn what_will_not_arrive_is_dropped_at_once() {
    let mut stage = Stage::new(EVERYBODY, HOURLY, 1);
    stage.notebook.fails(Some(SendError::lasting("it answered HTTP 401")));
    stage.engine.breaks(&["s0"]);
    tokio::time::sleep(10 * MINUTE).await;
    assert_eq!(*stage.notebook.attempts.lock().unwrap(), 1);
    let tally = stage.running().status.snapshot().tally;
    assert_eq!(tally.messages[&("ops".to_owned(), "dropped")], 1);
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn each_receiver_is_told_of_what_it_wants_and_a_reload_changes_who() {
    let more = "  watch:\n    notify:\n      receivers:\n        ops: {exec: {command: [tell]}}\n        \
                late: {on: [missed-slot], exec: {command: [tell]}}\n";
    let mut stage = Stage::new(more, HOURLY, 1);
    tokio::time::sleep(HOUR / 2).await;
    stage.engine.breaks(&["s0"]);
    tokio::time::sleep(HOUR).await;
    assert_eq!(
        stage.notebook.titles(),
        ["ops: 1 failure", "late: 1 missed slot", "ops: 1 missed slot"]
    );
    let other = stage.script.text.lock().unwrap().replace("late: {on", "new: {on");
    stage.script.write(&other);
    stage.running().bell.files_changed();
    tokio::time::sleep(MINUTE).await;
    stage.engine.breaks(&[]);
    tokio::time::sleep(HOUR).await;
    // `new` wants no recoveries, and what was told before is not told again.
    assert_eq!(stage.notebook.titles(), ["ops: no longer 1 missed slot, 1 failure"]);
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_to_be_told_at_the_end_still_is() {
    let mut stage = Stage::new(EVERYBODY, HOURLY, 1);
    stage.engine.breaks(&["s0"]);
    // The message would wait for more.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(stage.notebook.titles(), [""; 0]);
    stage.stop().await;
    assert_eq!(stage.notebook.titles(), ["ops: 1 failure"]);
}

#[tokio::test(start_paused = true)]
async fn a_ping_begins_and_ends_each_round() {
    let pings = "  watch: {notify: {pings: [{url: \"https://hc.example/1\"}]}}\n";
    let mut stage = Stage::new(pings, HOURLY, 1);
    tokio::time::sleep(MINUTE).await;
    let heard = std::mem::take(&mut *stage.notebook.pings.lock().unwrap());
    let signals: Vec<Signal> = heard.iter().map(|(signal, _)| *signal).collect();
    assert_eq!(signals, [Signal::Start, Signal::Success]);
    assert_eq!(heard[0].1, heard[1].1, "both of one round");
    stage.engine.breaks(&["s0"]);
    tokio::time::sleep(50 * MINUTE).await;
    let heard = std::mem::take(&mut *stage.notebook.pings.lock().unwrap());
    assert_eq!(heard.last().unwrap().0, Signal::Fail, "{heard:?}");
    let starts: BTreeMap<&String, usize> = heard.iter().map(|(_, id)| (id, 1)).collect();
    assert_eq!(starts.len() * 2, heard.len(), "each round has an id of its own");
    stage.stop().await;
}

#[test]
fn mistakes_are_found_where_they_stand_all_at_once() {
    let more = r#"  watch:
    notify:
      repeatInterval: 1m
      receivers:
        Ops: {exec: {command: [tell]}}
        none: {on: [failure]}
        two: {slack: {url: "https://a.example/"}, exec: {command: [x]}}
        plain: {slack: {url: "http://hooks.example/x"}}
        both: {slack: {url: "https://a.example/", urlFile: x}}
        missing: {teams: {}}
        odd: {webhook: {url: "https://a.example/", body: "{\"text\": \"{{titel}}\"}"}}
        raw: {webhook: {url: "https://a.example/", body: "{\"text\": \"{{{title}}}\"}"}}
        head: {webhook: {url: "https://a.example/", headers: {"a b": {value: x}}}}
        room: {matrix: {homeserver: "https://m.example", room: "ops", tokenEnv: T}}
        mail: {email: {host: mx.example, tls: none, from: nobody, to: [ops@example.org, "a b"]}}
        login: {email: {host: mx.example, username: u, from: a@example.org, to: b@example.org}}
        word: {on: [failures], exec: {command: [tell]}}
        slow: {exec: {command: [tell], timeout: 2h}}
      pings: [{engines: [two]}, {url: "ftp://a.example"}]
"#;
    let written = text(&["one"], more, &[("hourly", "one", HOURLY)]);
    let file = SourceFile { path: "stillframe.yaml".to_owned(), text: written };
    let found = load(vec![file], &[kind()]).findings;
    let lines: Vec<String> = found
        .iter()
        .map(|finding| {
            let place = finding.place.as_ref().unwrap();
            let underlined = &place.file.text[place.span.clone()];
            let line = place.line_column().0;
            format!("{line} {} `{underlined}` {}", finding.code.word(), finding.message)
        })
        .collect();
    super::super::support::golden("notify-mistakes.txt", &format!("{}\n", lines.join("\n")));
    let on: BTreeSet<usize> =
        found.iter().map(|finding| finding.place.as_ref().unwrap().line_column().0).collect();
    // Each line from `repeatInterval` on has its own, but `receivers`.
    let lines = more.lines().count();
    let all: BTreeSet<usize> = (7..=4 + lines).filter(|line| *line != 8).collect();
    assert_eq!(on, all);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_told_that_deletes_wait_as_they_always_do() {
    let mut stage = Stage::new(EVERYBODY, HOURLY, 1);
    tokio::time::sleep(30 * HOUR).await;
    stage.kill().await;
    stage.start();
    tokio::time::sleep(2 * HOUR).await;
    assert_eq!(stage.notebook.titles(), [""; 0]);
    assert!(!stage.engine.inner.world.lock().unwrap().deleted.is_empty());
    stage.stop().await;
}

const KEEPING: &str = "  guards: {seriesPercent: 100, enginePercent: 100}\n  watch:\n    deleteDelay: 0\n    \
                       notify:\n      receivers:\n        ops: {exec: {command: [tell]}}\n";

#[tokio::test(start_paused = true)]
async fn a_ledger_that_cannot_be_written_costs_no_slot_and_takes_nothing_away() {
    let policy = format!("{HOURLY}  lifecycle: {{grace: 0}}\n");
    let mut stage = Stage::new(KEEPING, &policy, 1);
    let count = |stage: &Stage| {
        let made = slots(&stage.engine.inner).values().map(Vec::len).sum::<usize>();
        (made, stage.engine.inner.world.lock().unwrap().deleted.len())
    };
    tokio::time::sleep(6 * HOUR).await;
    let (made, deleted) = count(&stage);
    assert!(made == 7 && deleted > 0, "{made} {deleted}");
    assert_eq!(stage.notebook.titles(), [""; 0]);
    let path = |name: &str| stage.directory.path().join(name);
    std::fs::rename(path("ledger.ndjson"), path("aside")).unwrap();
    std::fs::create_dir(path("ledger.ndjson")).unwrap();
    tokio::time::sleep(8 * HOUR).await;
    assert_eq!(count(&stage), (made + 8, deleted), "made all the same, and nothing is taken away");
    let told = std::mem::take(&mut *stage.notebook.sent.lock().unwrap());
    let lines = told.iter().flat_map(|(_, sent)| &sent.conditions);
    let lines: Vec<&str> = lines.map(|item| item.message.as_str()).collect();
    let says = |text: &str| lines.iter().any(|line| line.contains(text));
    assert!(says("the ledger cannot be written, images are made all the same"), "{lines:?}");
    assert!(says("not begun, because the ledger cannot be written"), "{lines:?}");
    // More has gone than anybody took away; the last line of the ledger knows of four.
    {
        let mut world = stage.engine.inner.world.lock().unwrap();
        let mut created: Vec<_> = world.images.values().map(|image| image.created_at).collect();
        created.sort_unstable();
        let fifth = created[created.len() - 5];
        let is_let_go = |image: &Image| image.stage != stillframe::inventory::Stage::Active;
        world.images.retain(|_, image| image.created_at >= fifth || is_let_go(image));
        assert!(world.images.values().any(is_let_go), "there is something to delete");
    }
    std::fs::remove_dir(path("ledger.ndjson")).unwrap();
    std::fs::rename(path("aside"), path("ledger.ndjson")).unwrap();
    tokio::time::sleep(HOUR / 2).await;
    assert_eq!(count(&stage).1, deleted, "a guard remembers how many there were");
    let told = std::mem::take(&mut *stage.notebook.sent.lock().unwrap());
    let is_refusal = |item: &Item| item.occasion == Occasion::GuardRefusal;
    let refusal = told.iter().flat_map(|(_, sent)| &sent.conditions).find(|item| is_refusal(item));
    assert!(refusal.is_some_and(|item| item.message.contains("`--override`")), "{told:?}");
    tokio::time::sleep(2 * HOUR).await;
    assert!(count(&stage).1 > deleted, "there is room again");
    let text = std::fs::read(path("ledger.ndjson")).unwrap();
    assert_eq!(check_chain(&text).breaks, []);
    stage.stop().await;
}

/// Also where there is nothing to take away.
#[tokio::test(start_paused = true)]
async fn a_round_that_is_not_in_the_ledger_does_not_count_as_well() {
    let mut stage = Stage::new(KEEPING, HOURLY, 1);
    std::fs::create_dir(stage.directory.path().join("ledger.ndjson")).unwrap();
    tokio::time::sleep(MINUTE / 2).await;
    let rounds = |stage: &Stage| stage.running().status.snapshot().engines["one"].rounds.clone();
    assert_eq!(rounds(&stage), [("partly", 1)].into());
    assert_eq!(stage.notebook.titles(), ["ops: 1 failure"]);
    std::fs::remove_dir(stage.directory.path().join("ledger.ndjson")).unwrap();
    tokio::time::sleep(HOUR).await;
    assert_eq!(rounds(&stage)["partly"], 1);
    assert_eq!(stage.notebook.titles(), ["ops: no longer 1 failure"]);
    stage.stop().await;
}
