//! Tells people: what holds goes into a book, and what is to be told leaves through a queue for each
//! receiver.
//!
//! Nothing here delays a round: rounds write into the book and go on. What was told is remembered
//! in a file beside the ledger, so that a restart repeats nothing; without it everything that holds
//! is told once more, and nothing else changes.

mod courier;
mod desk;
mod mail;
mod memory;
mod ping;
mod program;
mod queue;
mod request;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::{Notify, mpsc};

pub use courier::{Courier, Post, SendError, Signal};
pub(super) use desk::{Desk, Orders};

use crate::agenda::Health;
use crate::alert::{Book, Digest, Seen, Told, Tried, Turn};
use crate::elapsed::Elapsed;
use ping::Beat;

/// What holds, and what became of messages about it.
#[derive(Debug, Default)]
pub(super) struct Notices {
    book: Mutex<Book>,
    /// Something may have to be told.
    changed: Notify,
    /// A message waits no longer.
    settled: Notify,
    tally: Mutex<Tally>,
    /// The engines that are not well, as their last rounds went.
    unwell: Mutex<BTreeSet<String>>,
    beats: Mutex<Vec<mpsc::Sender<Beat>>>,
}

/// What became of messages and pings.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// How many messages there were, by receiver and what became of them.
    pub messages: BTreeMap<(String, &'static str), u64>,
    /// How many wait, by receiver.
    pub waiting: BTreeMap<String, u64>,
    /// How many pings there were, by what became of them.
    pub pings: BTreeMap<&'static str, u64>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Notices {
    fn write<T>(&self, change: impl FnOnce(&mut Book) -> T) -> T {
        let changed = change(&mut locked(&self.book));
        self.changed.notify_one();
        changed
    }

    /// A round of an engine has ended.
    pub(super) fn round(&self, seen: Seen<'_>, now: Timestamp) -> Turn {
        self.write(|book| book.round(seen, now))
    }

    /// A round of an engine was not carried out.
    pub(super) fn round_failed(&self, engine: &str, message: String, now: Timestamp) {
        self.write(|book| book.round_failed(engine, message, now));
    }

    /// Something has ended beside the rounds of an engine.
    pub(super) fn ended(&self, engine: &str, tried: &Tried, now: Timestamp) {
        self.write(|book| book.ended(engine, tried, now));
    }

    /// The files were read.
    pub(super) fn policies(&self, mistakes: &[String], now: Timestamp) {
        self.write(|book| book.policies(mistakes, now));
    }

    /// Only these engines are there.
    pub(super) fn engines(&self, names: &BTreeSet<String>) {
        let mut unwell = locked(&self.unwell);
        unwell.retain(|engine| names.contains(engine));
        self.write(|book| book.engines(names));
    }

    /// A round begins.
    pub(super) fn begins(&self, engine: &str, now: Timestamp) {
        self.beat(&Beat { engine: engine.to_owned(), began: now, unwell: None });
    }

    /// A round that began at that time has ended.
    pub(super) fn ends(&self, engine: &str, began: Timestamp, health: Health) {
        let mut unwell = locked(&self.unwell);
        // Of an engine that was taken out meanwhile nobody hears any more.
        if !locked(&self.book).knows(engine) {
            return;
        }
        if health == Health::Well {
            unwell.remove(engine);
        } else {
            unwell.insert(engine.to_owned());
        }
        let unwell = Some(unwell.clone());
        self.beat(&Beat { engine: engine.to_owned(), began, unwell });
    }

    fn beat(&self, beat: &Beat) {
        for beats in locked(&self.beats).iter() {
            if beats.try_send(beat.clone()).is_err() {
                self.pinged("dropped");
            }
        }
    }

    fn remember(&self, told: Vec<Told>) {
        *locked(&self.book) = Book::remembering(told);
    }

    fn told(&self) -> Vec<Told> {
        locked(&self.book).told()
    }

    /// Only the messages that were written then still wait; back comes whether people have heard that
    /// something has ended.
    fn settle(&self, waiting: &BTreeSet<Timestamp>) -> bool {
        locked(&self.book).settle(waiting)
    }

    fn untell(&self, told_at: &BTreeSet<Timestamp>) {
        locked(&self.book).untell(told_at);
    }

    fn take(&self, repeat: Elapsed, now: Timestamp) -> Option<Digest> {
        locked(&self.book).take(repeat, now)
    }

    fn next(&self, repeat: Elapsed) -> Option<Timestamp> {
        locked(&self.book).next(repeat)
    }

    /// What became of a message to a receiver, where it is one still.
    fn counted(&self, receiver: &str, result: &'static str) {
        if let Some(count) = locked(&self.tally).messages.get_mut(&(receiver.to_owned(), result)) {
            *count += 1;
        }
    }

    fn pinged(&self, result: &'static str) {
        *locked(&self.tally).pings.entry(result).or_default() += 1;
    }

    fn waits(&self, receiver: &str, change: i64) {
        if let Some(waiting) = locked(&self.tally).waiting.get_mut(receiver) {
            *waiting = waiting.saturating_add_signed(change);
        }
    }

    /// Nothing of what waits for a receiver will arrive; back comes how much that is.
    fn gives_up(&self, receiver: &str) -> u64 {
        let mut tally = locked(&self.tally);
        let lost = tally.waiting.get_mut(receiver).map(std::mem::take).unwrap_or_default();
        if let Some(count) = tally.messages.get_mut(&(receiver.to_owned(), "dropped")) {
            *count += lost;
        }
        lost
    }

    /// Only these receivers are there.
    fn receivers(&self, names: &BTreeSet<&str>) {
        locked(&self.book).heard(!names.is_empty());
        let mut tally = locked(&self.tally);
        tally.messages.retain(|(name, _), _| names.contains(name.as_str()));
        tally.waiting.retain(|name, _| names.contains(name.as_str()));
    }

    /// These receivers are there, beside those that were.
    fn expect(&self, names: &BTreeSet<&str>) {
        let mut tally = locked(&self.tally);
        for name in names {
            tally.waiting.entry((*name).to_owned()).or_default();
            for result in ["sent", "failed", "dropped"] {
                tally.messages.entry(((*name).to_owned(), result)).or_default();
            }
        }
    }

    /// What became of messages so far.
    pub(super) fn tally(&self) -> Tally {
        locked(&self.tally).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_taken_out_keeps_no_ping_from_being_well() {
        let notices = Notices::default();
        let (sender, mut beats) = mpsc::channel(10);
        locked(&notices.beats).push(sender);
        let names = |names: &[&str]| -> BTreeSet<String> {
            names.iter().map(|name| (*name).to_owned()).collect()
        };
        let now = Timestamp::UNIX_EPOCH;
        notices.engines(&names(&["a", "b"]));
        notices.ends("a", now, Health::Broken);
        notices.ends("b", now, Health::Well);
        notices.engines(&names(&["b"]));
        // Its round was still under way.
        notices.ends("a", now, Health::Broken);
        notices.ends("b", now, Health::Well);
        let mut unwell = || beats.try_recv().ok().map(|beat| beat.unwell.unwrap());
        assert_eq!(unwell(), Some(names(&["a"])));
        assert_eq!(unwell(), Some(names(&["a"])));
        assert_eq!(unwell(), Some(names(&[])));
        assert_eq!(unwell(), None);
    }
}
