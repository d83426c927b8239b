//! Apply: carries out a plan and decides nothing.
//!
//! In go a plan, what the guards withhold and the engines; out come outcomes, one per change.
//! Engines work side by side. Creates come first, as many at once as each engine takes; then the
//! world is looked at again, and of the rest only what is still wanted is carried out: what takes
//! nothing away, then deletes, one by one in the order of the plan. A failure is
//! reported and the rest goes on. Every change is written to the ledger before and after.

mod ledger;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub use ledger::{Ledger, LedgerError};

use crate::clock::Clock;
use crate::engine::{CopyRequest, CreateRequest, Created, Engine, EngineError, Progress, Watcher};
use crate::inventory::Image;
use crate::plan::{Action, Change, Copy, ImageRef, Plan};

/// What came of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The position of the change in the plan.
    pub change: usize,
    /// What came of it.
    pub ending: Ending,
}

/// What came of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum Ending {
    /// It was done.
    Done {
        /// The image as it is now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        image: Option<Box<Image>>,
    },
    /// Another run had done it.
    Found {
        /// The image as it is now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        image: Option<Box<Image>>,
    },
    /// It went wrong.
    Failed {
        /// Why.
        message: String,
    },
    /// It was not tried, because what it waits for did not come about or it is too late.
    Skipped {
        /// Why.
        message: String,
    },
    /// A guard refused it.
    Refused,
    /// The run was interrupted before its turn came.
    Left,
    /// The run was interrupted while it was under way; nothing of it counts.
    GivenUp,
}

impl Ending {
    /// Whether the image now is as the plan wanted it.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Found { .. })
    }

    /// The word in ledgers and reports.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Done { .. } => "done",
            Self::Found { .. } => "found",
            Self::Failed { .. } => "failed",
            Self::Skipped { .. } => "skipped",
            Self::Refused => "refused",
            Self::Left => "left",
            Self::GivenUp => "given up",
        }
    }

    /// What is said about it.
    pub fn message(&self) -> Option<&str> {
        match self {
            Self::Failed { message } | Self::Skipped { message } => Some(message),
            _ => None,
        }
    }
}

/// Is told what happens.
pub trait Listener: Send + Sync {
    /// A change begins.
    fn began(&self, change: usize);
    /// A change has come so far.
    fn progress(&self, change: usize, progress: Progress);
    /// Something else that people should know.
    fn note(&self, _text: &str) {}
    /// A change has ended.
    fn ended(&self, change: usize, ending: &Ending);
}

/// Asks a run to stop: first nothing new is begun, then what is under way is given up.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicU8>);

impl Stop {
    /// Asks once more.
    pub fn ask(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether nothing new is begun.
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 0
    }

    /// Whether what is under way is given up.
    pub fn is_urgent(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 1
    }
}

/// What carrying out needs beside the plan.
pub struct Hands<'a> {
    /// The engines.
    pub engines: &'a [Arc<dyn Engine>],
    /// How many captures each engine takes at once.
    pub captures_max: BTreeMap<String, usize>,
    /// Images that may not be deleted, by engine and id.
    pub withheld: BTreeSet<(String, String)>,
    /// The ledger.
    pub ledger: Arc<Ledger>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Is told what happens.
    pub listener: Arc<dyn Listener>,
    /// Asks to stop.
    pub stop: Stop,
}

/// Looks again once captures have taken their time.
#[async_trait]
pub trait SecondLook: Send + Sync {
    /// Which of these changes are still wanted, and what may not be deleted, by engine and id.
    async fn look(&self, plan: &Plan) -> Confirmed;
}

/// What a second look has confirmed.
#[derive(Debug, Clone, Default)]
pub struct Confirmed {
    /// The positions of the changes that a fresh plan has too.
    pub changes: BTreeSet<usize>,
    /// Images that may not be deleted, by engine and id.
    pub withheld: BTreeSet<(String, String)>,
}

/// Carries out a plan. The outcomes come back in the order of the changes.
pub async fn apply(
    plan: &Plan,
    hands: &Hands<'_>,
    second: &dyn SecondLook,
) -> Result<Vec<Outcome>, LedgerError> {
    hands.ledger.round_began(plan, hands.clock.now())?;
    let is_create = |change: &Change| change.action == Action::Create;
    let mut outcomes = run_engines(plan, hands, is_create, &BTreeSet::new(), None).await;
    let ready: BTreeSet<String> = outcomes
        .iter()
        .filter(|outcome| outcome.ending.is_done())
        .map(|outcome| plan.changes[outcome.change].image.name.clone())
        .collect();
    let has_others = plan.changes.iter().any(|change| !is_create(change));
    // Captures may have taken hours: what follows them is held against the world as it is then.
    let confirmed = if has_others && !outcomes.is_empty() && !hands.stop.is_asked() {
        Some(second.look(plan).await)
    } else {
        None
    };
    let rest = |change: &Change| !is_create(change);
    outcomes.extend(run_engines(plan, hands, rest, &ready, confirmed.as_ref()).await);
    for change in 0..plan.changes.len() {
        if !outcomes.iter().any(|outcome| outcome.change == change) {
            outcomes.push(Outcome { change, ending: Ending::Left });
        }
    }
    outcomes.sort_by_key(|outcome| outcome.change);
    hands.ledger.round_ended(plan, &outcomes, hands.clock.now())?;
    Ok(outcomes)
}

/// Carries out some of the changes, the engines side by side.
async fn run_engines(
    plan: &Plan,
    hands: &Hands<'_>,
    takes: impl Fn(&Change) -> bool,
    ready: &BTreeSet<String>,
    confirmed: Option<&Confirmed>,
) -> Vec<Outcome> {
    let mut by_engine: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, change) in plan.changes.iter().enumerate().filter(|(_, change)| takes(change)) {
        by_engine.entry(&change.engine).or_default().push(index);
    }
    let mut runs = JoinSet::new();
    for (name, indexes) in by_engine {
        let changes: Vec<(usize, Change)> =
            indexes.into_iter().map(|index| (index, plan.changes[index].clone())).collect();
        let run = EngineRun {
            plan: plan.id.clone(),
            engine: hands.engines.iter().find(|engine| engine.name() == name).cloned(),
            captures: Arc::new(Semaphore::new(
                hands.captures_max.get(name).copied().unwrap_or(1).max(1),
            )),
            withheld: hands
                .withheld
                .iter()
                .chain(confirmed.iter().flat_map(|confirmed| &confirmed.withheld))
                .cloned()
                .collect(),
            confirmed: confirmed.map(|confirmed| confirmed.changes.clone()),
            ready: ready.clone(),
            ledger: Arc::clone(&hands.ledger),
            clock: Arc::clone(&hands.clock),
            listener: Arc::clone(&hands.listener),
            stop: hands.stop.clone(),
        };
        runs.spawn(Arc::new(run).run(changes));
    }
    let mut outcomes = Vec::new();
    while let Some(finished) = runs.join_next().await {
        // A run that panicked has told its listener nothing; its changes count as left.
        outcomes.extend(finished.unwrap_or_default());
    }
    outcomes
}

/// The changes of one engine.
struct EngineRun {
    plan: String,
    engine: Option<Arc<dyn Engine>>,
    captures: Arc<Semaphore>,
    withheld: BTreeSet<(String, String)>,
    /// What a second look has confirmed; `None` where there was none.
    confirmed: Option<BTreeSet<usize>>,
    /// The names of the images that have become READY.
    ready: BTreeSet<String>,
    ledger: Arc<Ledger>,
    clock: Arc<dyn Clock>,
    listener: Arc<dyn Listener>,
    stop: Stop,
}

impl EngineRun {
    async fn run(self: Arc<Self>, changes: Vec<(usize, Change)>) -> Vec<Outcome> {
        let (creates, others): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|(_, change)| change.action == Action::Create);
        let mut outcomes = Vec::new();
        let mut captures = JoinSet::new();
        for (index, change) in creates {
            // In the order of the plan; the semaphore is never closed.
            let permit = Arc::clone(&self.captures).acquire_owned().await;
            let run = Arc::clone(&self);
            captures.spawn(async move {
                let _permit = permit;
                let ending = run.begin_create(index, &change).await;
                (index, ending)
            });
        }
        while let Some(finished) = captures.join_next().await {
            if let Ok((change, ending)) = finished {
                outcomes.push(Outcome { change, ending });
            }
        }
        for (index, change) in others {
            let ending = self.other(index, &change).await;
            outcomes.push(Outcome { change: index, ending });
        }
        outcomes
    }

    async fn begin_create(self: &Arc<Self>, index: usize, change: &Change) -> Ending {
        let ending = if self.stop.is_asked() {
            Ending::Left
        } else {
            self.recorded(index, change, self.create(index, change)).await
        };
        self.listener.ended(index, &ending);
        ending
    }

    async fn create(&self, index: usize, change: &Change) -> Ending {
        let (Some(engine), Some(create)) = (&self.engine, &change.create) else {
            return failed("the engine is not there");
        };
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
        made(engine.create(request, self.watcher(index)).await)
    }

    async fn copy(&self, index: usize, change: &Change, copy: &Copy) -> Ending {
        let Some(engine) = &self.engine else { return failed("the engine is not there") };
        if let Some(ending) = self.make_room(engine, change, copy.replaces.as_ref()).await {
            return ending;
        }
        let request = CopyRequest {
            key: change.key.clone(),
            image: change.image.clone(),
            copy: copy.clone(),
        };
        made(engine.copy(request, self.watcher(index)).await)
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

    fn watcher(&self, index: usize) -> Arc<ChangeWatcher> {
        Arc::new(ChangeWatcher {
            change: index,
            listener: Arc::clone(&self.listener),
            stop: self.stop.clone(),
        })
    }

    /// Everything but a create.
    async fn other(self: &Arc<Self>, index: usize, change: &Change) -> Ending {
        let is_withheld = self.is_withheld(change, &change.image);
        let ending = if change.action == Action::Delete && is_withheld {
            Ending::Refused
        } else if self.stop.is_asked() {
            Ending::Left
        } else if let Some(missing) =
            change.waits_for.as_ref().filter(|name| !self.ready.contains(*name))
        {
            Ending::Skipped { message: format!("{missing} did not become READY") }
        } else if self.confirmed.as_ref().is_some_and(|confirmed| !confirmed.contains(&index)) {
            Ending::Skipped {
                message: "looked at again after the captures, it is not wanted any more".to_owned(),
            }
        } else {
            self.recorded(index, change, self.carry_out(index, change)).await
        };
        self.listener.ended(index, &ending);
        ending
    }

    fn is_withheld(&self, change: &Change, image: &ImageRef) -> bool {
        self.withheld.contains(&(change.engine.clone(), image.id.clone().unwrap_or_default()))
    }

    async fn carry_out(&self, index: usize, change: &Change) -> Ending {
        let Some(engine) = &self.engine else { return failed("the engine is not there") };
        if let Some(copy) = &change.copy {
            return self.copy(index, change, copy).await;
        }
        if let Some(check) = change.drill {
            match engine.drill(&change.image, check, self.watcher(index)).await {
                Ok(()) => {}
                Err(EngineError::Interrupted) => return Ending::GivenUp,
                Err(error) => return failed(format!("it could not be restored: {error}")),
            }
        }
        let result = match (change.action, &change.update) {
            (Action::Delete, _) => engine.delete(&change.image).await.map(|()| None),
            (_, Some(update)) => engine.update(&change.image, update).await.map(Some),
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
    listener: Arc<dyn Listener>,
    stop: Stop,
}

impl Watcher for ChangeWatcher {
    fn progress(&self, progress: Progress) {
        self.listener.progress(self.change, progress);
    }

    fn is_cancelled(&self) -> bool {
        self.stop.is_urgent()
    }
}
