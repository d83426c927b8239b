//! What takes time and goes on beside rounds: captures, copies and drills.
//!
//! Who waits for everything never sees any of it. Who repeats rounds hands over to it what has not
//! ended when something else is due: the next round leaves it alone, begins nothing that is under way
//! already, and takes nothing away from an image that is being made, copied or tried.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::{Ending, LONG, Stop, Tempo};
use crate::name::{Key, SourceId};
use crate::plan::{Action, Change};

/// What is under way, across rounds.
#[derive(Debug, Clone, Default)]
pub struct Underway(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    works: BTreeMap<u64, Work>,
    /// How each engine takes it.
    lanes: BTreeMap<String, (Tempo, Lane)>,
    late: Vec<Late>,
}

/// Where what an engine takes waits until there is room for it and it is not too soon.
#[derive(Debug, Clone)]
pub(super) struct Lane {
    places: Arc<Semaphore>,
    /// When the next may begin; held by the one that waits for it.
    next: Arc<tokio::sync::Mutex<Option<Instant>>>,
    interval: Duration,
    of_source: Option<usize>,
    sources: Sources,
}

/// How many captures of each source run.
#[derive(Debug, Clone)]
struct Sources(watch::Sender<BTreeMap<SourceId, usize>>);

impl Default for Sources {
    fn default() -> Self {
        Self(watch::channel(BTreeMap::new()).0)
    }
}

/// A capture of a source that runs, until it is dropped.
#[derive(Debug)]
pub(super) struct OfSource(Sources, SourceId);

impl Drop for OfSource {
    fn drop(&mut self) {
        self.0.0.send_modify(|running| {
            let left = running.get(&self.1).map_or(0, |count| count - 1);
            if left == 0 {
                running.remove(&self.1);
            } else {
                running.insert(self.1.clone(), left);
            }
        });
    }
}

impl Lane {
    /// Waits until there is room at the source of one of these changes, and takes it. What comes back is
    /// the first of them that may begin, and what it has taken.
    pub(super) async fn first_with_room<'a>(
        &self,
        changes: impl Iterator<Item = &'a Change> + Clone,
    ) -> (usize, Option<OfSource>) {
        let Some(most) = self.of_source else { return (0, None) };
        let mut running = self.sources.0.subscribe();
        loop {
            running.mark_unchanged();
            let mut waits = changes.clone().enumerate();
            let found = waits.find_map(|(position, change)| {
                if change.action == Action::Create {
                    let room = self.at_source(&change.key.source, most)?;
                    return Some((position, Some(room)));
                }
                Some((position, None))
            });
            if let Some(found) = found {
                return found;
            }
            // The sender is ours, and never gone.
            let _ = running.changed().await;
        }
    }

    /// Room for a capture of a source, if there is some.
    fn at_source(&self, source: &SourceId, most: usize) -> Option<OfSource> {
        let takes = self.sources.0.send_if_modified(|running| {
            let count = running.entry(source.clone()).or_default();
            let has_room = *count < most.max(1);
            *count += usize::from(has_room);
            has_room
        });
        takes.then(|| OfSource(self.sources.clone(), source.clone()))
    }

    /// Waits for room, which is taken until what comes back is dropped.
    pub(super) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    /// Waits until it is not too soon; `false`, at once, where that is later than `left` from now. Who
    /// stops waiting has taken nobody's time.
    pub(super) async fn turn(&self, left: Option<Duration>) -> bool {
        if self.interval.is_zero() {
            return true;
        }
        let mut next = self.next.lock().await;
        let now = Instant::now();
        let turn = next.map_or(now, |next| next.max(now));
        if left.is_some_and(|left| turn.duration_since(now) > left) {
            return false;
        }
        sleep_until(turn).await;
        *next = Some(Instant::now() + self.interval);
        true
    }
}

/// One of what is under way.
#[derive(Debug)]
struct Work {
    engine: String,
    action: Action,
    key: Key,
    /// The image that it is about, by name and id.
    image: (String, Option<String>),
    /// The name of what it makes.
    makes: String,
    since: Timestamp,
    is_handed_over: bool,
    stop: Stop,
    task: Option<AbortHandle>,
}

/// What has ended after its round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Late {
    /// The engine.
    pub engine: String,
    /// What was done.
    pub action: Action,
    /// The identity of the restore point.
    pub key: Key,
    /// The name of the source.
    pub source_name: String,
    /// What came of it.
    pub ending: Ending,
}

/// How much of an engine goes on beside its rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// How many captures, copies and drills have begun or wait for their turn.
    pub count: usize,
    /// Since when the oldest of them.
    pub since: Option<Timestamp>,
}

impl Underway {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a change in, unless it is under way: another of the same name, or an earlier capture of
    /// the same series.
    pub(super) fn enter(&self, change: &Change, stop: &Stop, now: Timestamp) -> Option<Entry> {
        let mut state = self.lock();
        let makes = made_by(change);
        let is_at_it = |work: &&Work| {
            let is_series = change.action == Action::Create && work.captures_for(&change.key);
            work.engine == change.engine
                && (is_series || (work.action == change.action && work.makes == *makes))
        };
        if state.works.values().any(|work| is_at_it(&work)) {
            return None;
        }
        let number = state.next;
        state.next += 1;
        let work = Work {
            engine: change.engine.clone(),
            action: change.action,
            key: change.key.clone(),
            image: (change.image.name.clone(), change.image.id.clone()),
            makes: makes.clone(),
            since: now,
            is_handed_over: false,
            stop: stop.clone(),
            task: None,
        };
        state.works.insert(number, work);
        Some(Entry { underway: self.clone(), number })
    }

    /// Whether a change that does not take time must wait for what is under way.
    pub(super) fn holds(&self, change: &Change) -> bool {
        let id = change.image.id.as_ref();
        !LONG.contains(&change.action)
            && self.lock().works.values().any(|work| {
                // What is made on the way to an image has another name and the same key.
                let is_on_its_way = work.action == Action::Create && work.key == change.key;
                let is_image = is_on_its_way
                    || work.image.0 == change.image.name
                    || work.makes == change.image.name;
                work.engine == change.engine
                    && (is_image || (id.is_some() && work.image.1.as_ref() == id))
            })
    }

    /// Whether an image that a change waits for is being made, or comes after one that is.
    pub(super) fn delays(&self, change: &Change, name: &str) -> bool {
        self.lock().works.values().any(|work| {
            work.engine == change.engine && (work.makes == name || work.captures_for(&change.key))
        })
    }

    /// Where what an engine takes waits for its turn.
    pub(super) fn lane(&self, engine: &str, tempo: Tempo) -> Lane {
        let mut state = self.lock();
        let known = state.lanes.get(engine);
        if let Some((_, lane)) = known.filter(|(known, _)| *known == tempo) {
            return lane.clone();
        }
        let lane = Lane {
            places: Arc::new(Semaphore::new(tempo.places.max(1))),
            // What has begun has begun, however fast it goes from now on.
            next: known.map(|(_, lane)| Arc::clone(&lane.next)).unwrap_or_default(),
            interval: tempo.interval,
            of_source: tempo.of_source,
            sources: known.map(|(_, lane)| lane.sources.clone()).unwrap_or_default(),
        };
        state.lanes.insert(engine.to_owned(), (tempo, lane.clone()));
        lane
    }

    /// Takes over what a round no longer waits for.
    pub(super) fn take_over(&self, numbers: &[u64], task: &AbortHandle) {
        let mut state = self.lock();
        for number in numbers {
            if let Some(work) = state.works.get_mut(number) {
                work.is_handed_over = true;
                work.task = Some(task.clone());
            }
        }
    }

    /// Something has ended that its round no longer waited for.
    pub(super) fn ended_late(&self, change: &Change, ending: Ending) {
        self.lock().late.push(Late {
            engine: change.engine.clone(),
            action: change.action,
            key: change.key.clone(),
            source_name: change.source_name.clone(),
            ending,
        });
    }

    /// Waits until something has ended.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// What has ended after its round since this was asked last.
    pub fn late(&self) -> Vec<Late> {
        std::mem::take(&mut self.lock().late)
    }

    /// How much of an engine goes on beside its rounds.
    pub fn load(&self, engine: &str) -> Load {
        let state = self.lock();
        let of_engine = state.works.values().filter(|work| work.engine == engine);
        let handed_over: Vec<Timestamp> =
            of_engine.filter(|work| work.is_handed_over).map(|work| work.since).collect();
        Load { count: handed_over.len(), since: handed_over.into_iter().min() }
    }

    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.lock().works.is_empty()
    }

    /// Begins nothing of it that still waits for its turn.
    pub fn finish(&self) {
        self.lock().works.values().for_each(|work| work.stop.finish());
    }

    /// Gives it up.
    pub fn give_up(&self) {
        self.lock().works.values().for_each(|work| work.stop.give_up());
    }

    /// Leaves what was handed over where it is, as the end of the process would.
    pub fn abandon(&self) {
        let tasks: Vec<AbortHandle> =
            self.lock().works.values().filter_map(|work| work.task.clone()).collect();
        tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Work {
    /// Whether it is a capture of the series of a restore point.
    fn captures_for(&self, key: &Key) -> bool {
        self.action == Action::Create
            && (&self.key.policy, &self.key.source) == (&key.policy, &key.source)
    }
}

pub(super) fn made_by(change: &Change) -> &String {
    change.copy.as_ref().map_or(&change.image.name, |copy| &copy.name)
}

/// Under way as long as it lives.
#[derive(Debug)]
pub(super) struct Entry {
    underway: Underway,
    pub(super) number: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.underway.lock().works.remove(&self.number);
        self.underway.0.changed.notify_one();
    }
}
