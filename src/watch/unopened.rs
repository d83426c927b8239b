//! An engine that could not be opened when everything else began: nothing of it is seen until it can
//! be, and each look tries again.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use async_trait::async_trait;
use tokio::time::Instant;

use super::opening::{Neighbours, OPEN_MAX, Open, Opening};
use crate::engine::{
    Attention, Calls, CopyRequest, CreateRequest, Created, Engine, EngineError, Examined, Rebuild,
    Settled, Store, Topic, Verdict, Wanted, Watcher,
};
use crate::inventory::{DrillCheck, EngineInventory, Image};
use crate::plan::{ImageRef, Update};

/// Stands for an engine until it can be opened.
pub(super) struct Unopened(Arc<Inner>);

struct Inner {
    name: String,
    open: Open,
    neighbours: Weak<Neighbours>,
    attention: Mutex<Option<Attention>>,
    /// What has not returned yet.
    trying: tokio::sync::Mutex<Option<Opening>>,
    opened: OnceLock<Arc<dyn Engine>>,
}

impl Unopened {
    /// Stands for the engine of this name.
    pub(super) fn new(name: &str, open: Open, neighbours: &Arc<Neighbours>) -> Self {
        Self(Arc::new(Inner {
            name: name.to_owned(),
            open,
            neighbours: Arc::downgrade(neighbours),
            attention: Mutex::default(),
            trying: tokio::sync::Mutex::default(),
            opened: OnceLock::new(),
        }))
    }

    fn opened(&self) -> Option<&dyn Engine> {
        self.0.opened.get().map(|engine| &**engine)
    }

    /// The engine; what is in the way where there is none is told as what could not be done.
    fn engine(&self) -> Result<&dyn Engine, EngineError> {
        let unopened = || EngineError::Failed("it could not be opened yet".to_owned());
        self.opened().ok_or_else(unopened)
    }
}

impl Inner {
    fn attention(&self) -> MutexGuard<'_, Option<Attention>> {
        self.attention.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries to open it, unless that was done. One that does not return is waited for again by the
    /// next who tries.
    async fn open(&self) -> Result<(), String> {
        let Some(neighbours) = self.neighbours.upgrade() else { return Ok(()) };
        let mut trying = self.trying.lock().await;
        if self.opened.get().is_some() {
            return Ok(());
        }
        let opening = trying.take();
        let opening = opening.unwrap_or_else(|| Opening::begin(&self.name, Arc::clone(&self.open)));
        let opened = match opening.until(Instant::now() + OPEN_MAX).await {
            Ok(opened) => opened,
            Err(opening) => {
                let error = opening.hangs();
                *trying = Some(opening);
                Err(error)
            }
        };
        let (engine, places) = opened.map_err(|error| error.message)?;
        // One at a time: of two engines over the same place the second is refused.
        neighbours.joins(&self.name, places).map_err(|error| error.message)?;
        if let Some(attention) = &*self.attention() {
            engine.attend(attention);
        }
        let _ = self.opened.set(engine);
        tracing::info!(engine = self.name, "it could be opened after all");
        Ok(())
    }
}

#[async_trait]
impl Engine for Unopened {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn attend(&self, attention: &Attention) {
        *self.0.attention() = Some(attention.clone());
        if let Some(engine) = self.opened() {
            engine.attend(attention);
        }
    }

    async fn observe(&self) -> EngineInventory {
        if self.opened().is_none()
            && let Err(why) = self.0.open().await
        {
            return EngineInventory::unseen(self.name(), &format!("cannot be opened: {why}"));
        }
        match self.engine() {
            Ok(engine) => engine.observe().await,
            Err(error) => EngineInventory::unseen(self.name(), &error.to_string()),
        }
    }

    async fn create(
        &self,
        request: CreateRequest,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Created, EngineError> {
        self.engine()?.create(request, watcher).await
    }

    async fn update(&self, image: &ImageRef, update: &Update) -> Result<Image, EngineError> {
        self.engine()?.update(image, update).await
    }

    async fn copy(
        &self,
        request: CopyRequest,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Created, EngineError> {
        self.engine()?.copy(request, watcher).await
    }

    async fn drill(
        &self,
        image: &ImageRef,
        check: DrillCheck,
        watcher: Arc<dyn Watcher>,
    ) -> Result<(), EngineError> {
        self.engine()?.drill(image, check, watcher).await
    }

    async fn delete(&self, image: &ImageRef) -> Result<(), EngineError> {
        self.engine()?.delete(image).await
    }

    async fn settle(&self) -> Result<Settled, EngineError> {
        match self.opened() {
            Some(engine) => engine.settle().await,
            None => Ok(Settled::default()),
        }
    }

    async fn examine(&self, wanted: &Wanted) -> Vec<Examined> {
        match self.engine() {
            Ok(engine) => engine.examine(wanted).await,
            Err(error) => {
                vec![Examined::new(Topic::Settings, Verdict::Unknown, error.to_string())]
            }
        }
    }

    fn is_trial(&self) -> bool {
        self.opened().is_some_and(Engine::is_trial)
    }

    fn places(&self) -> Vec<PathBuf> {
        self.opened().map(Engine::places).unwrap_or_default()
    }

    fn calls(&self) -> Option<Calls> {
        self.opened()?.calls()
    }

    fn store(&self) -> Option<&dyn Store> {
        self.opened()?.store()
    }

    fn rebuild(&self) -> Option<&dyn Rebuild> {
        self.opened()?.rebuild()
    }
}

#[cfg(test)]
#[cfg(feature = "local")]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::clock::SystemClock;
    use crate::engine::{OpenError, local};
    use crate::inventory::Gap;

    fn opened(name: &str, store: &Path) -> Arc<dyn Engine> {
        std::fs::create_dir_all(store.join("instances")).unwrap();
        let settings = serde_json::json!({"instances": "instances", "store": "store"});
        local::open(name, &settings, store, Arc::new(SystemClock)).unwrap()
    }

    /// One that can be opened once that is said.
    fn unopened(
        name: &'static str,
        store: &Path,
        neighbours: &Arc<Neighbours>,
    ) -> (Arc<AtomicBool>, Unopened) {
        let (can_be, store) = (Arc::new(AtomicBool::new(false)), store.to_owned());
        let asked = Arc::clone(&can_be);
        let open = move || {
            if asked.load(Ordering::SeqCst) {
                let engine = opened(name, &store);
                let places = engine.places();
                return Ok((engine, places));
            }
            Err(OpenError { engine: name.to_owned(), message: "no key".to_owned() })
        };
        (can_be, Unopened::new(name, Arc::new(open), neighbours))
    }

    #[tokio::test]
    async fn what_could_not_be_opened_is_a_gap_until_it_can_be() {
        let directory = tempfile::tempdir().unwrap();
        let neighbours = Arc::default();
        let (can_be, engine) = unopened("late", directory.path(), &neighbours);
        for _ in 0..2 {
            let seen = engine.observe().await;
            assert!(!seen.is_complete() && seen.images.is_empty(), "{seen:?}");
            assert_eq!(seen.gaps[0].message, "cannot be opened: no key");
            assert_eq!(engine.settle().await, Ok(Settled::default()));
            assert!(engine.places().is_empty() && engine.store().is_none());
        }
        can_be.store(true, Ordering::SeqCst);
        let seen = engine.observe().await;
        assert_eq!((seen.name.as_str(), seen.kind.as_str()), ("late", "local"));
        let is_unopened = |gap: &Gap| gap.message.contains("opened");
        assert!(!seen.gaps.iter().any(is_unopened) && engine.store().is_some(), "{seen:?}");
        assert_eq!(engine.places(), opened("late", directory.path()).places());
    }

    #[tokio::test]
    async fn what_is_opened_late_shares_a_place_with_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let neighbours: Arc<Neighbours> = Arc::default();
        let (can_be, engine) = unopened("late", directory.path(), &neighbours);
        can_be.store(true, Ordering::SeqCst);
        let one = opened("one", directory.path()).places();
        neighbours.are(vec![("one".to_owned(), one)]);
        let seen = engine.observe().await;
        assert!(seen.gaps[0].message.contains("belongs to the engine one"), "{seen:?}");
        assert!(engine.places().is_empty());
        neighbours.are(Vec::new());
        assert_eq!(engine.observe().await.kind, "local");
    }
}
