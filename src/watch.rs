//! The long-running mode: wakes into rounds.
//!
//! One loop. A wake says only that something may be due: a slot has come, a file has changed, somebody
//! has sent a signal, a round has ended, the time for a full look is over. What that means is worked
//! out by the `agenda` from what is there, and each round is the one that `apply` carries out. Rounds
//! of one engine never overlap, and no engine waits for another. Nothing that matters is remembered:
//! killed at any moment and started again, it goes on where the images say.

mod bell;
mod control;
mod delay;
mod facts;
mod files;
mod lease;
pub mod metrics;
mod notify;
mod opening;
mod outside;
mod points;
mod reading;
mod round;
mod status;
mod system;
mod unopened;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

pub use bell::Bell;
pub use delay::Delay;
pub use facts::{EngineFacts, RoundFacts, SourceFacts};
pub use files::FileWatcher;
pub use lease::{Lease, LeaseError, identity};
pub use notify::{Courier, Post, SendError, Signal, Tally};
pub use outside::{Access, OutsideError, Token, TokenError, listen, serve};
pub use points::points;
pub use status::{PolicyFacts, Role, Snapshot, Status, Validity};
pub use system::System;
pub use world::{Files, Opened, Reading, World, WorldError};

use crate::agenda::{Agenda, Circuit, Ended, LAST_RETRY};
use crate::apply::{Ending, Stop, timer};
use crate::clock::Clock;
use crate::engine::Author;
use crate::policy::meant::{LeasePlace, Watch as Settings};
use crate::reconcile::LOOK_LIMIT;
use control::InForce;
use notify::Desk;
use reading::{Follower, UnderWay};
use round::{Finished, RoundTask};

/// How the loop waits.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// The clock is looked at again after this time at the latest: it may have been set, or the
    /// machine may have slept.
    pub look: Duration,
    /// Files are read when nothing has changed for this time: what changes them may not be done.
    pub settle: Duration,
    /// Files that change all the time are read after this time all the same.
    pub settle_max: Duration,
    /// What people are to be told of waits for so long, for more of it.
    pub group: Duration,
    /// The first wait after a message or a ping that did not arrive.
    pub retry: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            look: Duration::from_mins(1),
            settle: Duration::from_millis(500),
            settle_max: Duration::from_secs(5),
            group: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// How long what is given up may take to end before it is left as it is.
const LAST_WORD: Duration = Duration::from_secs(30);

/// Why watching does not begin.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The policies have mistakes, which have been told.
    #[error("the policies are not valid, and there are no earlier ones to go on with")]
    Invalid,
    /// Engines or ledger cannot be opened.
    #[error(transparent)]
    World(#[from] WorldError),
}

/// The long-running mode.
pub struct Watch {
    /// Where policies and engines come from.
    pub world: Arc<dyn World>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Who makes images, as they say of themselves.
    pub author: Option<Author>,
    /// Wakes it.
    pub bell: Bell,
    /// What is seen of it from outside.
    pub status: Arc<Status>,
    /// The system that has started it.
    pub system: System,
    /// How it waits.
    pub pace: Pace,
    /// Which process it is among all that watch: they do not try again in step.
    pub identity: String,
    /// How long what is under way may go on after a stop, where the configuration does not count.
    pub grace: Option<Duration>,
    /// Is told after each reading which files were read.
    pub files: Option<FileWatcher>,
    /// Sends messages.
    pub courier: Arc<dyn Courier>,
}

impl Watch {
    /// Watches until it is told to stop.
    pub async fn run(self) -> Result<(), WatchError> {
        let Some(mut control) = Control::begin(self).await? else { return Ok(()) };
        control.watch.system.ready();
        control.watch.status.is_running(true);
        while !control.watch.bell.is_stopping() {
            control.turn().await;
        }
        control.end().await;
        Ok(())
    }

    /// How long it may sleep at most.
    fn look(&self) -> Duration {
        let look = self.pace.look;
        self.system.watchdog().map_or(look, |every| look.min(every / 2))
    }
}

/// The loop and what it knows.
struct Control {
    watch: Watch,
    force: InForce,
    agenda: Agenda,
    rounds: JoinSet<Finished>,
    /// Which engine each task is for, and how to stop it.
    running: BTreeMap<String, (Id, Stop)>,
    /// Since when an engine is looked at without an end, however often that was begun anew.
    unanswered: BTreeMap<String, Instant>,
    /// When files are read again: not before they have settled, and not later than that.
    read_at: Option<(Instant, Instant)>,
    /// When they are read again though nobody tells of a change: it may not have been told, and what
    /// was in the way of one may be gone.
    again_at: Instant,
    /// How long that was waited for, while what the files hold is not in force.
    retry: Option<Duration>,
    /// Whether somebody has asked for the files to be read.
    is_asked: bool,
    /// A reading of the files, which goes on beside everything else.
    reading: Option<UnderWay>,
    follower: Follower,
    desk: Desk,
}

impl Control {
    /// Reads what is to be in force; `None` where watching is to end before that is known.
    async fn begin(watch: Watch) -> Result<Option<Self>, WatchError> {
        let follower = Follower::new(watch.files.clone());
        let Some(read) = reading::first(&watch, &follower).await else { return Ok(None) };
        let now = watch.clock.now();
        watch.status.read(&read.reading, read.opened.is_some(), now);
        let force = InForce::new(&watch, read.opened.ok_or(WatchError::Invalid)??);
        watch.status.accepted(now);
        let agenda = Agenda::new(force.engines(), force.settings().reconcile_every)
            .of(watch.identity.as_str());
        let desk = Desk::open(
            Arc::clone(&watch.status),
            Arc::clone(&watch.clock),
            Arc::clone(&watch.courier),
            watch.pace,
            force.orders(),
        );
        watch.status.in_force(&force.policies, now);
        follower.poll_every(force.settings().poll_every);
        Ok(Some(Self {
            again_at: Instant::now() + timer(force.settings().reconcile_every),
            retry: None,
            watch,
            force,
            agenda,
            rounds: JoinSet::new(),
            running: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            read_at: None,
            is_asked: false,
            reading: None,
            follower,
            desk,
        }))
    }

    /// Begins what is due, then waits for something to happen.
    async fn turn(&mut self) {
        self.watch.system.alive();
        self.watch.status.beat();
        self.heed_bell();
        self.give_up_reading();
        if self.reading.is_none() && self.reads_at() <= Instant::now() {
            self.read_at = None;
            self.reload().await;
            if self.watch.bell.is_stopping() {
                return;
            }
        }
        let now = self.watch.clock.now();
        let decision = self.agenda.decide(now);
        for engine in &decision.begin {
            self.begin_round(engine);
        }
        let nap = decision.wake_at.map(|at| at.duration_since(now).unsigned_abs());
        let look = self.watch.look();
        // While a reading is under way no other one begins.
        let reads_at = self.reading.as_ref().map_or_else(|| self.reads_at(), UnderWay::until);
        let until = (Instant::now() + nap.unwrap_or(look).min(look)).min(reads_at);
        tokio::select! {
            () = self.watch.bell.rung() => {}
            () = self.force.underway.changed() => self.ended_late(),
            () = tokio::time::sleep_until(until) => {}
            read = UnderWay::ended(&mut self.reading) => self.was_read(read),
            Some(joined) = self.rounds.join_next_with_id() => self.ended(joined),
        }
    }

    /// When the files are read, if nothing happens before.
    fn reads_at(&self) -> Instant {
        self.read_at.map_or(self.again_at, |(settled, latest)| settled.min(latest))
    }

    /// Says when the files are read again: soon where they are not in force, but less and less so.
    fn read_again(&mut self, is_accepted: bool) {
        let Settings { reconcile_every, poll_every, .. } = self.force.settings();
        let longest = timer(*reconcile_every);
        let wait = match self.retry {
            _ if is_accepted => longest,
            None => timer(*poll_every).min(longest),
            Some(before) => (before * 2).min(timer(LAST_RETRY)).min(longest),
        };
        self.retry = (!is_accepted).then_some(wait);
        self.again_at = Instant::now() + wait;
    }

    fn heed_bell(&mut self) {
        let heard = self.watch.bell.heard();
        if heard.files {
            let now = Instant::now();
            let latest =
                self.read_at.map_or(now + self.watch.pace.settle_max, |(_, latest)| latest);
            self.read_at = Some((now + self.watch.pace.settle, latest));
        }
        if heard.reload {
            // Who asks does not wait for files to settle.
            self.read_at = Some((Instant::now(), Instant::now()));
            self.is_asked = true;
            self.agenda.ask_all();
            self.end_rounds();
        }
    }

    fn begin_round(&mut self, engine: &str) {
        let Some(room) = self.force.room(engine) else { return };
        let now = self.watch.clock.now();
        self.agenda.began(engine, now);
        self.watch.status.round_began(engine, now);
        self.watch.status.notices.begins(engine, now);
        let stop = Stop::default();
        let task = RoundTask {
            engine: engine.to_owned(),
            room,
            delay: Arc::clone(&self.force.delay),
            stop: stop.clone(),
            status: Arc::clone(&self.watch.status),
        };
        let id = self.rounds.spawn(task.run()).id();
        self.running.insert(engine.to_owned(), (id, stop));
        self.unanswered.entry(engine.to_owned()).or_insert_with(Instant::now);
    }

    fn ended(&mut self, joined: Result<(Id, Finished), JoinError>) {
        let now = self.watch.clock.now();
        let (engine, ended) = match joined {
            Ok((_, finished)) => (finished.engine, finished.ended),
            Err(error) => {
                let id = error.id();
                let found = self.running.iter().find(|(_, (running, _))| *running == id);
                let Some(engine) = found.map(|(engine, _)| engine.clone()) else { return };
                tracing::error!(engine, "the round ended unexpectedly: {error}");
                let message = "the round ended unexpectedly".to_owned();
                self.watch.status.notices.round_failed(&engine, message, now);
                (engine, Some(Ended::broken()))
            }
        };
        self.running.remove(&engine);
        let Some(ended) = ended.or_else(|| self.broken_off(&engine, now)) else { return };
        self.unanswered.remove(&engine);
        self.watch.status.loads(&self.force.underway);
        let before = self.agenda.circuit(&engine);
        self.agenda.ended(&engine, &ended, now);
        let (circuit, retry_at) = (self.agenda.circuit(&engine), self.agenda.retry_at(&engine));
        match (before, circuit) {
            (Circuit::Closed, Circuit::Open) => tracing::error!(
                engine,
                "it could not be seen again and again: until it can, slots begin no rounds of it"
            ),
            (Circuit::Open, Circuit::Closed) => tracing::info!(engine, "it can be seen again"),
            _ => {}
        }
        let began = self.watch.status.round_ended(&engine, ended.health, circuit, retry_at);
        self.watch.status.notices.ends(&engine, began.unwrap_or(now), ended.health);
    }

    /// A round was to stop before it had seen anything. An engine that does not answer is told of all
    /// the same when its time is over, however often it is looked at anew.
    fn broken_off(&mut self, engine: &str, now: Timestamp) -> Option<Ended> {
        let since = self.unanswered.get(engine);
        if since.is_some_and(|since| since.elapsed() >= timer(LOOK_LIMIT)) {
            let message = format!("no answer within {LOOK_LIMIT}; each look was begun anew before");
            tracing::warn!(engine, "{message}");
            self.watch.status.notices.round_failed(engine, message, now);
            return Some(Ended::broken());
        }
        self.watch.status.round_broken_off(engine);
        self.agenda.broken_off(engine);
        None
    }

    /// Rounds under way begin nothing new and end: what takes long goes on beside the next, which
    /// knows better about the rest.
    fn end_rounds(&self) {
        self.running.values().for_each(|(_, stop)| stop.finish());
        self.force.underway.finish();
    }

    /// Something has ended after its round.
    fn ended_late(&mut self) {
        let now = self.watch.clock.now();
        for late in self.force.underway.late() {
            self.watch.status.ended_late(&late, now);
            let still = self.force.underway.load(&late.engine).count;
            let is_well = !matches!(late.ending, Ending::Failed { .. });
            self.agenda.ended_late(&late.engine, is_well, still, now);
        }
        self.watch.status.loads(&self.force.underway);
    }

    fn in_force_anew(&mut self, lease: Option<&LeasePlace>, now: Timestamp) {
        self.end_rounds();
        if self.force.settings().lease.as_ref() != lease {
            tracing::warn!(
                "watch.lease is another one now: it counts from the next start, unless --lease names one"
            );
        }
        let settings: &Settings = self.force.settings();
        self.agenda.reload(self.force.engines(), settings.reconcile_every);
        for engine in self.running.keys() {
            self.agenda.still_runs(engine);
        }
        self.watch.status.in_force(&self.force.policies, now);
        self.desk.follow(self.force.orders());
        self.follower.poll_every(settings.poll_every);
    }

    /// Ends: lets what is under way finish within the grace, then gives it up.
    async fn end(&mut self) {
        self.watch.system.stopping();
        self.watch.status.is_running(false);
        self.reading = None;
        self.end_rounds();
        let grace = self.watch.grace.unwrap_or(timer(self.force.settings().grace));
        if self.is_busy() {
            let seconds = grace.as_secs();
            tracing::info!("stopping: what is under way may go on for {seconds} s");
        }
        let deadline = Instant::now() + grace;
        let mut given_up: Option<Instant> = None;
        while self.is_busy() {
            self.watch.system.alive();
            self.watch.status.beat();
            let now = Instant::now();
            if self.watch.bell.is_urgent() || now >= deadline {
                let since = *given_up.get_or_insert(now);
                self.running.values().for_each(|(_, stop)| stop.give_up());
                self.force.underway.give_up();
                if now >= since + LAST_WORD {
                    tracing::warn!("what does not end is left; the next start goes on from there");
                    break;
                }
            }
            let next = given_up.map_or(deadline, |since| since + LAST_WORD);
            let look = now + self.watch.pace.look.min(Duration::from_secs(1));
            tokio::select! {
                Some(joined) = self.rounds.join_next_with_id() => self.ended(joined),
                () = self.force.underway.changed() => self.ended_late(),
                () = self.watch.bell.rung() => drop(self.watch.bell.heard()),
                () = tokio::time::sleep_until(look.min(next)) => {}
            }
        }
        self.desk.close(self.watch.bell.is_urgent()).await;
        tracing::info!("stopped; what is left is carried out by the next start");
    }

    fn is_busy(&self) -> bool {
        !self.rounds.is_empty() || !self.force.underway.is_empty()
    }
}

impl Drop for Control {
    /// Nothing goes on without the loop, however it ends.
    fn drop(&mut self) {
        self.force.underway.abandon();
    }
}
