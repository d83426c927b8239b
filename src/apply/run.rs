//! The changes of one engine in one phase: side by side where they take time, else one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::underway::Entry;
use super::{Ending, LONG, Lasting, Ledger, Listener, Made, Outcome, Stop, timer};
use crate::clock::Clock;
use crate::engine::{CopyRequest, CreateRequest, Created, Engine, EngineError, Progress, Watcher};
use crate::plan::check::takes_away;
use crate::plan::{Action, Change, Copy, Create, ImageRef};

/// How often the clock is looked at while captures are waited for.
const LOOK: Duration = Duration::from_mins(1);
/// How long what has reached its limit may take to end by itself.
const LAST_WORD: Duration = Duration::from_mins(1);

/// Where outcomes go.
enum Board {
    /// To the round, which waits for them.
    Round(Vec<Outcome>),
    /// The round has ended without them.
    HandedOver,
}

/// The changes of one engine.
pub(super) struct EngineRun {
    pub(super) plan: String,
    pub(super) engine: Option<Arc<dyn Engine>>,
    /// As many captures run at once.
    pub(super) places: Arc<Semaphore>,
    pub(super) lasting: Lasting,
    pub(super) withheld: BTreeSet<(String, String)>,
    /// What a second look has confirmed; `None` where there was none.
    pub(super) confirmed: Option<BTreeSet<usize>>,
    /// What this run has made so far.
    pub(super) made: Made,
    pub(super) ledger: Arc<Ledger>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) listener: Arc<dyn Listener>,
    pub(super) stop: Stop,
}

impl EngineRun {
    pub(super) async fn run(self: Arc<Self>, changes: Vec<(usize, Change)>) -> Vec<Outcome> {
        let (long, short): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|(_, change)| LONG.contains(&change.action));
        let mut outcomes =
            if long.is_empty() { Vec::new() } else { Arc::clone(&self).run_long(long).await };
        for (index, change) in short {
            let ending = self.one(index, &change).await;
            outcomes.push(Outcome { change: index, ending });
        }
        outcomes
    }

    /// What takes time. What has not ended when the round is to go on is handed over.
    async fn run_long(self: Arc<Self>, long: Vec<(usize, Change)>) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        let (mut works, mut numbers) = (Vec::new(), BTreeMap::new());
        for (index, change) in long {
            if let Some(entry) = self.lasting.underway.enter(&change, &self.stop, self.clock.now())
            {
                numbers.insert(index, entry.number);
                works.push((index, change, entry));
            } else {
                self.listener.ended(index, &Ending::UnderWay);
                outcomes.push(Outcome { change: index, ending: Ending::UnderWay });
            }
        }
        let board = Arc::new(Mutex::new(Board::Round(Vec::new())));
        // Gone with this run, as long as it is not handed over.
        let mut feed = JoinSet::new();
        let task = feed.spawn(Arc::clone(&self).feed(works, Arc::clone(&board)));
        tokio::select! {
            _ = feed.join_next() => {}
            () = self.is_to_go_on() => {
                let numbers: Vec<u64> = numbers.values().copied().collect();
                self.lasting.underway.take_over(&numbers, &task);
                feed.detach_all();
            }
        }
        let mut board = board.lock().unwrap_or_else(PoisonError::into_inner);
        if let Board::Round(ended) = std::mem::replace(&mut *board, Board::HandedOver) {
            outcomes.extend(ended);
        }
        if !task.is_finished() {
            let ended: BTreeSet<usize> = outcomes.iter().map(|outcome| outcome.change).collect();
            let rest = numbers.into_keys().filter(|index| !ended.contains(index));
            outcomes.extend(rest.map(|change| Outcome { change, ending: Ending::UnderWay }));
        }
        outcomes
    }

    /// Begins one after the other in the order of the plan, as many at once as the engine takes.
    async fn feed(self: Arc<Self>, works: Vec<(usize, Change, Entry)>, board: Arc<Mutex<Board>>) {
        let mut running = JoinSet::new();
        for (index, change, entry) in works {
            // The semaphore is never closed; who is asked to stop leaves what waits.
            let permit = tokio::select! {
                biased;
                permit = Arc::clone(&self.places).acquire_owned() => permit.ok(),
                () = self.stop.asked() => None,
            };
            let (run, board) = (Arc::clone(&self), Arc::clone(&board));
            running.spawn(async move {
                let ending = run.one(index, &change).await;
                let mut board = board.lock().unwrap_or_else(PoisonError::into_inner);
                match &mut *board {
                    Board::Round(outcomes) => outcomes.push(Outcome { change: index, ending }),
                    Board::HandedOver => run.lasting.underway.ended_late(&change, ending),
                }
                // Who hears that it has ended finds what came of it.
                drop((board, entry, permit));
            });
        }
        while running.join_next().await.is_some() {}
    }

    /// Waits until the round is to go on without what has not ended.
    async fn is_to_go_on(&self) {
        let Some(at) = self.lasting.hand_over_at else { return std::future::pending().await };
        loop {
            let left = at.duration_since(self.clock.now());
            if !left.is_positive() || self.stop.is_asked() {
                return;
            }
            // The clock may be set meanwhile.
            let look = left.unsigned_abs().min(LOOK);
            tokio::select! {
                () = tokio::time::sleep(look) => {}
                () = self.stop.asked() => {}
            }
        }
    }

    /// Holds what takes time to its limit.
    async fn limited(&self, change: &Change, work: impl Future<Output = Ending>) -> Ending {
        let limit = self.lasting.limit.filter(|_| LONG.contains(&change.action));
        let Some(limit) = limit else { return work.await };
        let mut work = std::pin::pin!(work);
        if let Ok(ending) = tokio::time::timeout(timer(limit), &mut work).await {
            return ending;
        }
        // Its watcher says so too; what ends by itself leaves nothing half done.
        let late = format!("given up: it had not ended after {limit}");
        match tokio::time::timeout(LAST_WORD, work).await {
            Ok(ending) if ending.is_done() => ending,
            _ => failed(late),
        }
    }

    async fn create(
        &self,
        index: usize,
        engine: &Arc<dyn Engine>,
        change: &Change,
        create: &Create,
    ) -> Ending {
        if self.clock.now() > create.deadline {
            return Ending::Skipped {
                message: "its deadline has passed while it waited".to_owned(),
            };
        }
        if let Some(ending) = self.make_room(engine, change, create.replaces.as_ref()).await {
            return ending;
        }
        let request = CreateRequest {
            key: change.key.clone(),
            name: change.image.name.clone(),
            location: change.image.location.clone(),
            create: create.clone(),
        };
        made(engine.create(request, self.watcher(index, change)).await)
    }

    async fn copy(
        &self,
        index: usize,
        engine: &Arc<dyn Engine>,
        change: &Change,
        copy: &Copy,
    ) -> Ending {
        let image = self.image_of(change);
        if let Some(ending) = self.make_room(engine, change, copy.replaces.as_ref()).await {
            return ending;
        }
        let request = CopyRequest { key: change.key.clone(), image, copy: copy.clone() };
        made(engine.copy(request, self.watcher(index, change)).await)
    }

    /// The image that a change is about, as it is if this run has made it.
    fn image_of(&self, change: &Change) -> ImageRef {
        let made = self.made.get(&(change.engine.clone(), change.image.name.clone()));
        made.filter(|_| change.image.id.is_none())
            .map_or_else(|| change.image.clone(), ImageRef::of)
    }

    /// Clears away the failed attempt whose name is needed, or says why that cannot be.
    async fn make_room(
        &self,
        engine: &Arc<dyn Engine>,
        change: &Change,
        replaced: Option<&ImageRef>,
    ) -> Option<Ending> {
        let replaced = replaced?;
        if self.is_withheld(change, replaced) {
            return Some(Ending::Refused);
        }
        match engine.delete(replaced).await {
            Ok(()) | Err(EngineError::NotFound) => None,
            Err(error) => Some(failed(format!(
                "the failed attempt before could not be cleared away: {error}"
            ))),
        }
    }

    fn watcher(&self, index: usize, change: &Change) -> Arc<ChangeWatcher> {
        Arc::new(ChangeWatcher {
            change: index,
            source_name: change.source_name.clone(),
            listener: Arc::clone(&self.listener),
            stop: self.stop.clone(),
            until: self.lasting.limit.map(|limit| Instant::now() + timer(limit)),
        })
    }

    /// One change, if it is to be carried out at all.
    async fn one(self: &Arc<Self>, index: usize, change: &Change) -> Ending {
        let is_withheld = self.is_withheld(change, &change.image);
        let ending = if takes_away(change.action) && is_withheld {
            Ending::Refused
        } else if self.stop.is_asked() {
            Ending::Left
        } else if self.lasting.underway.holds(change) {
            Ending::UnderWay
        } else if let Some(missing) =
            change.waits_for.as_ref().filter(|name| !self.is_made(change, name))
        {
            if self.lasting.underway.delays(change, missing) {
                Ending::UnderWay
            } else {
                Ending::Skipped { message: format!("{missing} did not become READY") }
            }
        } else if self.confirmed.as_ref().is_some_and(|confirmed| !confirmed.contains(&index)) {
            Ending::Skipped {
                message: "looked at again after the captures, it is not wanted any more".to_owned(),
            }
        } else {
            let limit = self.limited(change, self.carry_out(index, change));
            self.recorded(index, change, limit).await
        };
        self.listener.ended(index, &ending);
        ending
    }

    fn is_made(&self, change: &Change, name: &str) -> bool {
        self.made.contains_key(&(change.engine.clone(), name.to_owned()))
    }

    fn is_withheld(&self, change: &Change, image: &ImageRef) -> bool {
        self.withheld.contains(&(change.engine.clone(), image.id.clone().unwrap_or_default()))
    }

    async fn carry_out(&self, index: usize, change: &Change) -> Ending {
        let Some(engine) = &self.engine else { return failed("the engine is not there") };
        if let Some(create) = &change.create {
            return self.create(index, engine, change, create).await;
        }
        if let Some(copy) = &change.copy {
            return self.copy(index, engine, change, copy).await;
        }
        let image = self.image_of(change);
        if let Some(check) = change.drill {
            match engine.drill(&image, check, self.watcher(index, change)).await {
                Ok(()) => {}
                Err(EngineError::Interrupted) => return Ending::GivenUp,
                Err(EngineError::Failed(message)) => {
                    return failed(format!("it could not be restored: {message}"));
                }
                // That says nothing about whether it could be.
                Err(error) => return failed(error.to_string()),
            }
        }
        let result = match (change.action, &change.update) {
            (Action::Delete, _) => engine.delete(&image).await.map(|()| None),
            (_, Some(update)) => engine.update(&image, update).await.map(Some),
            (action, None) => {
                Err(EngineError::Refused(format!("the plan does not say how to {}", action.word())))
            }
        };
        match (change.action, result) {
            (_, Ok(image)) => Ending::Done { image: image.map(Box::new) },
            // Somebody else has deleted it: it is gone, as the plan wanted.
            (Action::Delete, Err(EngineError::NotFound)) => Ending::Found { image: None },
            (_, Err(error)) => failed(error.to_string()),
        }
    }

    /// Writes a change to the ledger before and after it is carried out.
    async fn recorded(
        &self,
        index: usize,
        change: &Change,
        work: impl Future<Output = Ending>,
    ) -> Ending {
        if let Err(error) = self.ledger.change_began(&self.plan, change, self.clock.now()) {
            return failed(format!("not begun, because the ledger cannot be written: {error}"));
        }
        self.listener.began(index);
        let ending = work.await;
        if let Err(error) = self.ledger.change_ended(&self.plan, change, &ending, self.clock.now())
        {
            tracing::error!("the ledger could not be written: {error}");
        }
        ending
    }
}

fn made(result: Result<Created, EngineError>) -> Ending {
    match result {
        Ok(Created::Made(image)) => Ending::Done { image: Some(Box::new(image)) },
        Ok(Created::Found(image)) => Ending::Found { image: Some(Box::new(image)) },
        Err(EngineError::Interrupted) => Ending::GivenUp,
        Err(error) => failed(error.to_string()),
    }
}

fn failed(message: impl Into<String>) -> Ending {
    Ending::Failed { message: message.into() }
}

/// Passes on how far a capture is.
struct ChangeWatcher {
    change: usize,
    source_name: String,
    listener: Arc<dyn Listener>,
    stop: Stop,
    /// After that it is given up.
    until: Option<Instant>,
}

impl Watcher for ChangeWatcher {
    fn progress(&self, progress: Progress) {
        self.listener.progress(self.change, progress);
    }

    fn waits(&self, why: &str) {
        self.listener.note(&format!("{}: {why}", self.source_name));
    }

    fn is_cancelled(&self) -> bool {
        self.stop.is_urgent() || self.until.is_some_and(|until| until <= Instant::now())
    }
}
