//! The changes of one engine in one phase: side by side where they take time, else one by one.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Ending, LONG, Ledger, Listener, Made, Outcome, Stop};
use crate::clock::Clock;
use crate::engine::{CopyRequest, CreateRequest, Created, Engine, EngineError, Progress, Watcher};
use crate::plan::check::takes_away;
use crate::plan::{Action, Change, Copy, Create, ImageRef};

/// The changes of one engine.
pub(super) struct EngineRun {
    pub(super) plan: String,
    pub(super) engine: Option<Arc<dyn Engine>>,
    pub(super) captures: Arc<Semaphore>,
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
        let mut outcomes = Vec::new();
        let mut running = JoinSet::new();
        for (index, change) in long {
            // In the order of the plan; the semaphore is never closed.
            let permit = Arc::clone(&self.captures).acquire_owned().await;
            let run = Arc::clone(&self);
            running.spawn(async move {
                let _permit = permit;
                let ending = run.one(index, &change).await;
                (index, ending)
            });
        }
        while let Some(finished) = running.join_next().await {
            if let Ok((change, ending)) = finished {
                outcomes.push(Outcome { change, ending });
            }
        }
        for (index, change) in short {
            let ending = self.one(index, &change).await;
            outcomes.push(Outcome { change: index, ending });
        }
        outcomes
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
        })
    }

    /// One change, if it is to be carried out at all.
    async fn one(self: &Arc<Self>, index: usize, change: &Change) -> Ending {
        let is_withheld = self.is_withheld(change, &change.image);
        let ending = if takes_away(change.action) && is_withheld {
            Ending::Refused
        } else if self.stop.is_asked() {
            Ending::Left
        } else if let Some(missing) =
            change.waits_for.as_ref().filter(|name| !self.is_made(change, name))
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
}

impl Watcher for ChangeWatcher {
    fn progress(&self, progress: Progress) {
        self.listener.progress(self.change, progress);
    }

    fn waits(&self, why: &str) {
        self.listener.note(&format!("{}: {why}", self.source_name));
    }

    fn is_cancelled(&self) -> bool {
        self.stop.is_urgent()
    }
}
