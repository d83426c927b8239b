//! Who holds a lease that is a record which others can read: its holder renews it, and who sees that
//! it was not renewed for as long as it says takes it.
//!
//! As clients of Kubernetes elect a leader: that a record has changed is what shows that its holder
//! is alive, and how long it has not is measured by the own clock that only goes forward. The times in
//! the record are for people.
#![cfg_attr(not(feature = "kubernetes"), allow(dead_code))]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::LeaseError;
use super::file::stand_by;
use crate::clock::Clock;
use crate::engine::author::host;
use crate::watch::{Bell, Role, Status, System};

/// What a lease says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Who holds it; empty where nobody does.
    pub holder: String,
    /// How long it lasts after it was renewed.
    pub duration: Duration,
    /// When its holder took it.
    pub acquired: Option<Timestamp>,
    /// When it was renewed.
    pub renewed: Option<Timestamp>,
    /// How often it went from one holder to another.
    pub transitions: u32,
}

/// Where a record is kept.
#[async_trait]
pub trait Store: Send + Sync {
    /// The record; `None` where there is none.
    async fn read(&self) -> Result<Option<Record>, String>;

    /// Writes a record in the place of the one that was read last. Whether it was written: where
    /// somebody else has written since, it was not.
    async fn replace(&self, record: &Record) -> Result<bool, String>;
}

/// How long a lease lasts, and how often it is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// How long it lasts after it was renewed.
    pub duration: Duration,
    /// The holder gives up where it could not renew for this time, which is shorter.
    pub renewed_within: Duration,
    /// How often it is renewed, or looked at. An answer may take as long.
    pub every: Duration,
}

impl Default for Times {
    /// Those of clients of Kubernetes.
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renewed_within: Duration::from_secs(10),
            every: Duration::from_secs(2),
        }
    }
}

/// What is to be done about a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Nobody holds it any more.
    Take,
    /// It is ours.
    Renew,
    /// Another one holds it.
    Wait,
}

/// What one of several has seen of a record.
#[derive(Debug, Default)]
struct Election {
    seen: Option<(Record, Instant)>,
}

impl Election {
    fn step(&mut self, identity: &str, record: Option<&Record>, now: Instant) -> Step {
        let Some(record) = record.filter(|record| !record.holder.is_empty()) else {
            return Step::Take;
        };
        if record.holder == identity {
            return Step::Renew;
        }
        let since = match &self.seen {
            Some((seen, since)) if seen == record => *since,
            _ => {
                self.seen = Some((record.clone(), now));
                now
            }
        };
        if now >= since + record.duration { Step::Take } else { Step::Wait }
    }
}

/// Who this process is among those that watch: host, number and start.
pub fn identity() -> String {
    let host = host();
    let started = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
    format!("{host}_{}_{started:x}", std::process::id())
}

/// Somebody who wants a lease.
pub struct Candidate {
    /// What the lease is called.
    pub place: String,
    /// Who wants it: nobody else has the same.
    pub identity: String,
    /// Where it is.
    pub store: Arc<dyn Store>,
    /// What time it is for people.
    pub clock: Arc<dyn Clock>,
    /// How long it lasts.
    pub times: Times,
}

/// What came of a try.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Tried {
    /// It is ours now.
    Held,
    /// Another one holds it.
    Other(String),
    /// Somebody has written it between the look and the try.
    Overtaken,
    /// It is not known: it could not be read or written.
    Unknown(String),
}

impl Candidate {
    /// Waits until nobody else holds it; `None` where watching ends before.
    pub(super) async fn wait(
        self,
        bell: &Bell,
        status: &Status,
        system: System,
    ) -> Option<Elected> {
        let mut election = Election::default();
        let mut told: Option<Tried> = None;
        while !bell.is_stopping() {
            let asked = Instant::now();
            let tried = self.attempt(&mut election).await;
            if tried == Tried::Held {
                tracing::info!("holding the lease {}", self.place);
                return Some(self.keep(asked, bell.clone()));
            }
            if told.as_ref() != Some(&tried) {
                status.role(Role::Standby);
                system.standby();
                match &tried {
                    Tried::Other(holder) => {
                        tracing::info!("standing by: {holder} holds the lease {}", self.place);
                    }
                    Tried::Unknown(why) => {
                        tracing::warn!("cannot ask for the lease {}: {why}", self.place);
                    }
                    Tried::Held | Tried::Overtaken => {}
                }
                told = Some(tried);
            }
            stand_by(self.times.every, bell, status, system).await;
        }
        None
    }

    /// Looks at it, and takes or renews it where that may be done.
    async fn attempt(&self, election: &mut Election) -> Tried {
        let seen = match self.answer(self.store.read()).await {
            Ok(seen) => seen,
            Err(why) => return Tried::Unknown(why),
        };
        let step = election.step(&self.identity, seen.as_ref(), Instant::now());
        let now = Some(self.clock.now());
        let seen = seen.unwrap_or_default();
        let record = match step {
            Step::Wait => return Tried::Other(seen.holder),
            Step::Renew => Record { renewed: now, duration: self.times.duration, ..seen },
            Step::Take => Record {
                holder: self.identity.clone(),
                duration: self.times.duration,
                acquired: now,
                renewed: now,
                transitions: seen.transitions.saturating_add(1),
            },
        };
        match self.answer(self.store.replace(&record)).await {
            Ok(true) => Tried::Held,
            Ok(false) => Tried::Overtaken,
            Err(why) => Tried::Unknown(why),
        }
    }

    /// What comes within the time that an answer may take.
    async fn answer<T>(&self, asked: impl Future<Output = Result<T, String>>) -> Result<T, String> {
        let late = |_| Err("no answer in time".to_owned());
        timeout(self.times.every, asked).await.unwrap_or_else(late)
    }

    /// Renews it, which was asked for at that time last, as long as what comes back lives.
    fn keep(self, asked: Instant, bell: Bell) -> Elected {
        let lost = Arc::new(AtomicBool::new(false));
        let candidate = Arc::new(self);
        let keeper = tokio::spawn({
            let (candidate, lost) = (Arc::clone(&candidate), Arc::clone(&lost));
            async move {
                candidate.renew(asked, &bell).await;
                lost.store(true, Ordering::SeqCst);
                bell.lose();
            }
        });
        Elected { candidate, keeper, lost }
    }

    /// Comes back when it is lost.
    async fn renew(&self, mut renewed: Instant, bell: &Bell) {
        let mut election = Election::default();
        loop {
            // No answer is waited for beyond the time at which it is to be given up.
            let until = renewed + self.times.renewed_within;
            tokio::select! {
                () = bell.reloaded() => {}
                () = sleep_until(until.min(Instant::now() + self.times.every)) => {}
            }
            let asked = Instant::now();
            let late = |_| Tried::Unknown("no answer in time".to_owned());
            let tried = timeout_at(until, self.attempt(&mut election)).await.unwrap_or_else(late);
            let why = match tried {
                Tried::Held => {
                    renewed = asked;
                    continue;
                }
                Tried::Other(holder) => {
                    tracing::error!("the lease {} is lost: {holder} holds it", self.place);
                    return;
                }
                Tried::Overtaken => "somebody else has written it".to_owned(),
                Tried::Unknown(why) => why,
            };
            if Instant::now() >= until {
                tracing::error!("the lease {} is lost: not renewed in time: {why}", self.place);
                return;
            }
            tracing::warn!("the lease {} was not renewed: {why}", self.place);
        }
    }

    async fn give_back(&self) {
        let Ok(Some(seen)) = self.answer(self.store.read()).await else { return };
        if seen.holder == self.identity {
            let free = Record { holder: String::new(), duration: Duration::from_secs(1), ..seen };
            if let Err(why) = self.answer(self.store.replace(&free)).await {
                tracing::debug!("the lease {} was not given back: {why}", self.place);
            }
        }
    }
}

/// A lease that is renewed as long as this lives.
pub struct Elected {
    candidate: Arc<Candidate>,
    keeper: JoinHandle<()>,
    lost: Arc<AtomicBool>,
}

impl std::fmt::Debug for Elected {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Elected({} as {})", self.candidate.place, self.candidate.identity)
    }
}

impl Elected {
    pub(super) async fn release(self) -> Result<(), LeaseError> {
        self.keeper.abort();
        if self.lost.load(Ordering::SeqCst) {
            return Err(LeaseError::Lost(self.candidate.place.clone()));
        }
        self.candidate.give_back().await;
        Ok(())
    }
}

impl Drop for Elected {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    /// A clock that goes with the paused one of the tests.
    struct Ticking(Instant);

    impl Clock for Ticking {
        fn now(&self) -> Timestamp {
            let seconds = i64::try_from(self.0.elapsed().as_secs()).unwrap();
            Timestamp::from_second(seconds).unwrap()
        }
    }

    /// A record in memory, which may be out of reach.
    #[derive(Default)]
    struct Memory {
        state: Mutex<State>,
    }

    #[derive(Default)]
    struct State {
        record: Option<Record>,
        version: u32,
        is_away: bool,
        /// It does not answer at all.
        is_silent: bool,
    }

    impl Memory {
        fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
            change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
        }

        fn holder(&self) -> String {
            self.with(|state| state.record.clone().unwrap_or_default().holder)
        }
    }

    /// What one of several sees of it.
    struct View {
        memory: Arc<Memory>,
        read: Mutex<u32>,
    }

    #[async_trait]
    impl Store for View {
        async fn read(&self) -> Result<Option<Record>, String> {
            if self.memory.with(|state| state.is_silent) {
                std::future::pending::<()>().await;
            }
            self.memory.with(|state| {
                if state.is_away {
                    return Err("away".to_owned());
                }
                *self.read.lock().unwrap_or_else(PoisonError::into_inner) = state.version;
                Ok(state.record.clone())
            })
        }

        async fn replace(&self, record: &Record) -> Result<bool, String> {
            let read = *self.read.lock().unwrap_or_else(PoisonError::into_inner);
            self.memory.with(|state| {
                if state.is_away {
                    return Err("away".to_owned());
                }
                if state.version != read {
                    return Ok(false);
                }
                state.version += 1;
                state.record = Some(record.clone());
                Ok(true)
            })
        }
    }

    fn candidate(memory: &Arc<Memory>, identity: &str) -> Candidate {
        let view = View { memory: Arc::clone(memory), read: Mutex::new(0) };
        Candidate {
            place: "test".to_owned(),
            identity: identity.to_owned(),
            store: Arc::new(view),
            clock: Arc::new(Ticking(Instant::now())),
            times: Times::default(),
        }
    }

    async fn wait(candidate: Candidate, bell: &Bell) -> Option<Elected> {
        candidate.wait(bell, &Status::default(), System::new()).await
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_second_waits_until_it_is_given_back() {
        let memory = Arc::new(Memory::default());
        let first = wait(candidate(&memory, "a"), &Bell::default()).await.unwrap();
        let bell = Bell::default();
        let second = {
            let (memory, bell) = (Arc::clone(&memory), bell.clone());
            tokio::spawn(async move { wait(candidate(&memory, "b"), &bell).await })
        };
        // It is renewed all the time, so that a minute changes nothing.
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert_eq!(memory.holder(), "a");
        let before = Instant::now();
        first.release().await.unwrap();
        let second = second.await.unwrap().unwrap();
        assert!(before.elapsed() <= Times::default().every * 2);
        assert_eq!(memory.holder(), "b");
        assert_eq!(memory.with(|state| state.record.clone().unwrap().transitions), 2);
        assert!(!bell.is_stopping());
        second.release().await.unwrap();
        assert_eq!(memory.holder(), "");
    }

    #[tokio::test(start_paused = true)]
    async fn who_dies_is_followed_when_its_lease_has_ended_and_not_before() {
        let memory = Arc::new(Memory::default());
        drop(wait(candidate(&memory, "a"), &Bell::default()).await.unwrap());
        let before = Instant::now();
        let second = wait(candidate(&memory, "b"), &Bell::default()).await.unwrap();
        let (passed, times) = (before.elapsed(), Times::default());
        assert!(passed >= times.duration && passed <= times.duration + times.every * 2);
        drop(second);
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_renew_ends_before_another_one_begins() {
        let memory = Arc::new(Memory::default());
        let bell = Bell::default();
        let first = wait(candidate(&memory, "a"), &bell).await.unwrap();
        memory.with(|state| state.is_away = true);
        let times = Times::default();
        tokio::time::sleep(times.every * 3).await;
        assert!(!bell.is_stopping(), "a short absence is nothing");
        memory.with(|state| state.is_away = false);
        tokio::time::sleep(times.duration).await;
        assert!(!bell.is_stopping() && memory.holder() == "a");
        memory.with(|state| state.is_away = true);
        tokio::time::sleep(Duration::from_millis(14_999)).await;
        assert!(bell.is_stopping());
        bell.stop();
        assert!(!bell.is_urgent(), "nobody has asked for that");
        assert!(matches!(first.release().await, Err(LeaseError::Lost(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn who_gets_no_answer_ends_in_time_and_does_not_wait_for_one() {
        let memory = Arc::new(Memory::default());
        let bell = Bell::default();
        let lease = wait(candidate(&memory, "a"), &bell).await.unwrap();
        let times = Times::default();
        // Nothing is renewed after this.
        let renewed = Instant::now();
        memory.with(|state| state.is_silent = true);
        let sleep = |until| tokio::time::sleep_until(until);
        sleep(renewed + times.renewed_within - Duration::from_millis(10)).await;
        assert!(!bell.is_stopping());
        sleep(renewed + times.renewed_within + Duration::from_millis(10)).await;
        assert!(bell.is_stopping(), "it may last no longer than that");
        assert!(matches!(lease.release().await, Err(LeaseError::Lost(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn what_another_one_has_taken_is_lost() {
        let memory = Arc::new(Memory::default());
        let bell = Bell::default();
        let first = wait(candidate(&memory, "a"), &bell).await.unwrap();
        memory.with(|state| {
            state.version += 1;
            state.record.as_mut().unwrap().holder = "b".to_owned();
        });
        // Whoever asks for a look at everything hears of it at once.
        bell.reload();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(bell.is_stopping() && memory.holder() == "b");
        assert!(matches!(first.release().await, Err(LeaseError::Lost(_))));
        assert_eq!(memory.holder(), "b", "what is not ours is not given back");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_told_to_stop_waits_no_longer() {
        let memory = Arc::new(Memory::default());
        let first = wait(candidate(&memory, "a"), &Bell::default()).await.unwrap();
        let bell = Bell::default();
        bell.stop();
        assert!(wait(candidate(&memory, "b"), &bell).await.is_none());
        drop(first);
    }
}
