//! The changes of one engine in one phase: side by side where they take time, else one by one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::others::overtaken;
use super::underway::{Entry, Lane};
use super::{Doer, Ending, LONG, Lasting, Ledger, Listener, Made, Outcome, Stop, timer};
use tracing::{Instrument, Span};

use crate::clock::Clock;
use crate::elapsed::Elapsed;
use crate::engine::{
    Author, CopyRequest, CreateRequest, Created, Engine, EngineError, Progress, Watcher,
};
use crate::inventory::ImageState;
use crate::plan::check::takes_away;
use crate::plan::{Action, Change, Copy, Create, ImageRef, Overtaken};

/// How often the clock is looked at while captures are waited for.
const LOOK: Duration = Duration::from_mins(1);
/// What takes no time is given up after this at the latest, where rounds are repeated.
const SHORT_LIMIT: Elapsed = Elapsed::minutes(30);
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
    /// Where captures wait for their turn.
    pub(super) lane: Lane,
    pub(super) lasting: Lasting,
    pub(super) withheld: BTreeSet<(String, String)>,
    /// What a second look has confirmed; `None` where there was none.
    pub(super) confirmed: Option<BTreeSet<usize>>,
    /// Of what nothing is left to do.
    pub(super) overtaken: BTreeMap<usize, Overtaken>,
    /// What this run has made so far.
    pub(super) made: Made,
    /// What it leaves to what is under way, by engine and name.
    pub(super) postponed: BTreeSet<(String, String)>,
    pub(super) ledger: Arc<Ledger>,
    /// Why the round is not in the ledger, where it is not.
    pub(super) unwritten: Option<String>,
    pub(super) clock: Arc<dyn Clock>,
    /// Who makes images.
    pub(super) author: Option<Author>,
    pub(super) listener: Arc<dyn Listener>,
    pub(super) stop: Stop,
    /// Something that takes no time was given up: the engine does not answer.
    pub(super) is_stuck: AtomicBool,
    /// How often it was looked whether another run has done something.
    pub(super) looks: AtomicUsize,
}

impl EngineRun {
    pub(super) async fn run(self: Arc<Self>, changes: Vec<(usize, Change)>) -> Vec<Outcome> {
        let (long, short): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|(_, change)| LONG.contains(&change.action));
        let mut outcomes =
            if long.is_empty() { Vec::new() } else { Arc::clone(&self).run_long(long).await };
        for (index, change) in short {
            let ending = self.one(index, &change, false).await;
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
        let task = feed.spawn(Arc::clone(&self).feed(works, Arc::clone(&board)).in_current_span());
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

    /// Begins one after the other in the order of the plan, as many at once and as fast as the engine
    /// takes them.
    async fn feed(self: Arc<Self>, works: Vec<(usize, Change, Entry)>, board: Arc<Mutex<Board>>) {
        let mut running = JoinSet::new();
        let mut works = VecDeque::from(works);
        while !works.is_empty() {
            // What waits for its source holds up nothing else.
            let (position, of_source) = tokio::select! {
                biased;
                () = self.stop.asked() => (0, None),
                first = self.lane.first_with_room(works.iter().map(|(_, change, _)| change)) => first,
            };
            let Some((index, change, entry)) = works.remove(position) else { break };
            // Who is asked to stop leaves what waits, and what will not begin takes nobody's turn.
            let place = tokio::select! {
                biased;
                () = self.stop.asked() => None,
                place = self.lane.place() => place,
            };
            let left = change.create.as_ref().map(|create| self.time_left(create));
            let is_late = self.why_not(index, &change).is_none()
                && tokio::select! {
                    biased;
                    () = self.stop.asked() => false,
                    is_in_time = self.lane.turn(left) => !is_in_time,
                };
            let (run, board) = (Arc::clone(&self), Arc::clone(&board));
            let work = async move {
                let ending = run.one(index, &change, is_late).await;
                let mut board = board.lock().unwrap_or_else(PoisonError::into_inner);
                match &mut *board {
                    Board::Round(outcomes) => outcomes.push(Outcome { change: index, ending }),
                    Board::HandedOver => run.lasting.underway.ended_late(&change, ending),
                }
                // Who hears that it has ended finds what came of it.
                drop((board, entry, place, of_source));
            };
            running.spawn(work.in_current_span());
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

    /// Holds a change to its limit. The next round looks at what has come of one that was given up.
    async fn limited(&self, change: &Change, work: impl Future<Output = Ending>) -> Ending {
        let Some(limit) = self.lasting.limit else { return work.await };
        let is_long = LONG.contains(&change.action);
        let limit = if is_long { limit } else { limit.min(SHORT_LIMIT) };
        let mut work = std::pin::pin!(work);
        if let Ok(ending) = tokio::time::timeout(timer(limit), &mut work).await {
            return ending;
        }
        if !is_long {
            self.is_stuck.store(true, Ordering::Relaxed);
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
            by: self.author.clone(),
        };
        self.made(engine.create(request, self.watcher(index, change)).await)
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
        let by = self.author.clone();
        let request = CopyRequest { key: change.key.clone(), image, copy: copy.clone(), by };
        self.made(engine.copy(request, self.watcher(index, change)).await)
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

    /// What becomes of a change that is not to be carried out.
    fn why_not(&self, index: usize, change: &Change) -> Option<Ending> {
        if let Some(ready) = change.unless.as_ref().filter(|name| self.is_made(change, name)) {
            return Some(Ending::Needless { message: format!("{ready} is READY") });
        }
        let overtaken = self.overtaken.get(&index);
        if overtaken == Some(&Overtaken::Done) {
            return Some(Ending::Found { image: None, by: None });
        }
        if takes_away(change.action) && self.is_withheld(change, &change.image) {
            return Some(Ending::Refused);
        }
        if self.stop.is_asked() || self.is_stuck.load(Ordering::Relaxed) {
            return Some(Ending::Left);
        }
        if self.lasting.underway.holds(change) {
            return Some(Ending::UnderWay);
        }
        let missing = change.waits_for.as_ref().filter(|name| !self.is_made(change, name));
        if let Some(missing) = missing {
            let is_postponed = self.postponed.contains(&(change.engine.clone(), missing.clone()));
            return Some(if is_postponed || self.lasting.underway.delays(change, missing) {
                Ending::UnderWay
            } else {
                Ending::Skipped { message: format!("{missing} did not become READY") }
            });
        }
        let is_confirmed =
            self.confirmed.as_ref().is_none_or(|confirmed| confirmed.contains(&index));
        if is_confirmed {
            return None;
        }
        let message = "looked at again after the captures, it is not wanted any more".to_owned();
        Some(match overtaken {
            Some(_) => Ending::Needless { message },
            None => Ending::Skipped { message },
        })
    }

    /// How long a capture may still begin.
    fn time_left(&self, create: &Create) -> Duration {
        let left = create.deadline.duration_since(self.clock.now());
        if left.is_negative() { Duration::ZERO } else { left.unsigned_abs() }
    }

    /// One change, if it is to be carried out at all.
    #[tracing::instrument(name = "change", skip_all, fields(
        engine = change.engine,
        action = change.action.word(),
        policy = %change.key.policy,
        source = change.source_name,
        image = change.image.name,
        outcome,
        otel.status_code,
    ))]
    async fn one(self: &Arc<Self>, index: usize, change: &Change, is_late: bool) -> Ending {
        let ending = if let Some(ending) = self.why_not(index, change) {
            ending
        } else if is_late {
            Ending::Skipped { message: "its turn would come after its deadline".to_owned() }
        } else {
            let limit = self.limited(change, self.carry_out(index, change));
            self.recorded(index, change, limit).await
        };
        let span = Span::current();
        span.record("outcome", ending.word());
        if matches!(ending, Ending::Failed { .. }) {
            span.record("otel.status_code", "ERROR");
        }
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
                Err(EngineError::Changed) => {
                    return overtaken(engine, change, &image, &self.looks).await;
                }
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
            (Action::Delete, Err(EngineError::NotFound)) => Ending::Found { image: None, by: None },
            (_, Err(EngineError::Changed)) => overtaken(engine, change, &image, &self.looks).await,
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
        // What makes an image is worth more than the line about it. What takes away can wait.
        let takes_away = takes_away(change.action) || replaces(change);
        let began = match &self.unwritten {
            Some(why) if takes_away => Err(why.clone()),
            _ => {
                let began = self.ledger.change_began(&self.plan, change, self.clock.now());
                began.map_err(|error| error.to_string())
            }
        };
        match began {
            Err(why) if takes_away => {
                return failed(format!("not begun, because the ledger cannot be written: {why}"));
            }
            Err(why) => {
                let Change { source_name, action, .. } = change;
                let action = action.word();
                self.listener.note(&format!(
                    "{source_name}: {action} goes on though the ledger cannot be written: {why}"
                ));
            }
            Ok(()) => {}
        }
        self.listener.began(index);
        let ending = work.await;
        if let Err(error) = self.ledger.change_ended(&self.plan, change, &ending, self.clock.now())
        {
            tracing::error!("the ledger could not be written: {error}");
        }
        ending
    }

    /// What came of making an image.
    fn made(&self, result: Result<Created, EngineError>) -> Ending {
        match result {
            // What an engine hands over is only what it can be relied on for.
            Ok(created) if created.image().state != ImageState::Ready => {
                let image = created.image();
                let why = image.message.as_ref().map(|message| format!(": {message}"));
                let why = why.unwrap_or_default();
                failed(format!("what was made is {}{why}", image.state.word()))
            }
            Ok(Created::Made(image)) => Ending::Done { image: Some(Box::new(image)) },
            Ok(Created::Found { image, by }) => {
                let is_here = by.is_some() && by == self.author;
                let by = by.map(|by| Doer { host: by.host().to_owned(), is_here });
                Ending::Found { image: Some(Box::new(image)), by }
            }
            Err(EngineError::Interrupted) => Ending::GivenUp,
            Err(error) => failed(error.to_string()),
        }
    }
}

/// Whether a failed attempt is cleared away for it.
fn replaces(change: &Change) -> bool {
    change.create.as_ref().is_some_and(|create| create.replaces.is_some())
        || change.copy.as_ref().is_some_and(|copy| copy.replaces.is_some())
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
