//! What is under way, and what has ended lately: on disk as well, so that it outlives the server.
//! What a stopped server was at is over, and says so.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::shelf::{Shelf, ShelfError};

/// How long what has ended is kept.
const KEPT: SignedDuration = SignedDuration::from_hours(24);

/// Something that begins and ends.
pub trait Job: Serialize + DeserializeOwned + Clone {
    /// What it is called; rises with time.
    fn name(&self) -> String;

    /// When it ended.
    fn ended(&self) -> Option<Timestamp>;

    /// Ends it: the server that was at it is gone.
    fn give_up(&mut self, now: Timestamp);
}

/// All jobs.
#[derive(Debug)]
pub struct Jobs<J> {
    shelf: Shelf<J>,
    running: Mutex<BTreeMap<String, J>>,
    /// Counts what has ended.
    ended: watch::Sender<u64>,
}

impl<J: Job> Jobs<J> {
    /// Reads what is there. What a stopped server was at has come to nothing, as far as is known.
    pub fn open(directory: &Path, now: Timestamp) -> Result<Self, String> {
        let shelf: Shelf<J> = Shelf::open(directory)?;
        for mut job in shelf.all() {
            let left = match job.ended() {
                Some(ended) if ended.saturating_add(KEPT).is_ok_and(|until| until < now) => {
                    shelf.remove(&job.name())
                }
                Some(_) => Ok(()),
                None => {
                    job.give_up(now);
                    shelf.put(&job.name(), job)
                }
            };
            left.map_err(|error| error.to_string())?;
        }
        Ok(Self { shelf, running: Mutex::default(), ended: watch::channel(0).0 })
    }

    /// Begins one.
    pub fn begin(&self, job: J) -> Result<(), ShelfError> {
        self.shelf.put(&job.name(), job.clone())?;
        self.running().insert(job.name(), job);
        Ok(())
    }

    /// Changes one that is under way.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut J)) {
        if let Some(job) = self.running().get_mut(name) {
            change(job);
        }
    }

    /// Ends one that is under way; `end` says so in it.
    pub fn end(&self, name: &str, end: impl FnOnce(&mut J)) {
        let Some(mut job) = self.running().get(name).cloned() else { return };
        end(&mut job);
        // It is over even where that cannot be written; then a restart finds it unfinished.
        self.running().insert(name.to_owned(), job.clone());
        match self.shelf.put(name, job) {
            Ok(()) => drop(self.running().remove(name)),
            Err(error) => tracing::error!("{error}"),
        }
        self.ended.send_modify(|count| *count += 1);
    }

    /// Forgets one.
    pub fn remove(&self, name: &str) -> Result<(), ShelfError> {
        self.shelf.remove(name)
    }

    /// All of them, the oldest first; those under way as they are now.
    pub fn all(&self) -> Vec<J> {
        let mut all: BTreeMap<String, J> =
            self.shelf.all().into_iter().map(|job| (job.name(), job)).collect();
        all.extend(self.running().clone());
        all.into_values().collect()
    }

    /// Whether one is under way that is such.
    pub fn is_any_running(&self, is_such: impl Fn(&J) -> bool) -> bool {
        self.running().values().any(|job| job.ended().is_none() && is_such(job))
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        !self.is_any_running(|_| true)
    }

    /// Is told whenever one has ended.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.ended.subscribe()
    }

    /// Waits until nothing is under way.
    pub async fn until_idle(&self) {
        let mut ended = self.subscribe();
        while !self.is_idle() {
            if ended.changed().await.is_err() {
                return;
            }
        }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<String, J>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
