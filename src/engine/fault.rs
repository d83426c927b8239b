//! An engine that fails on purpose, around a real one: what tests ask of everything above.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::{
    Attention, CopyRequest, CreateRequest, Created, Engine, EngineError, Import, Rebuild, Settled,
    Store, Watcher,
};
use crate::inventory::{DrillCheck, EngineInventory, Gap, GapScope, Image};
use crate::plan::{ImageRef, Update};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Creating fails before anything is made.
    CreateFails,
    /// Creating makes the image, but the answer is lost.
    CreateReplyLost,
    /// Copying fails before anything is made.
    CopyFails,
    /// Copying makes the copy, but the answer is lost.
    CopyReplyLost,
    /// A drill finds the image damaged.
    DrillFails,
    /// An update fails.
    UpdateFails,
    /// Deleting fails.
    DeleteFails,
    /// An image is missing from the listing, and nothing says so.
    ImageHidden,
    /// The listing of images is cut off, and says so.
    ImagesCutOff,
    /// The second listing of images is cut off, and says so.
    SecondListingCutOff,
    /// The listing of instances is cut off, and says so.
    InstancesCutOff,
}

/// An engine whose n-th calls go wrong as scripted.
pub struct Faulty {
    inner: Arc<dyn Engine>,
    script: Mutex<Vec<Fault>>,
    happened: AtomicUsize,
    observed: AtomicUsize,
}

impl Faulty {
    /// Each fault of the script happens once, at the first call it fits.
    pub fn new(inner: Arc<dyn Engine>, script: Vec<Fault>) -> Self {
        Self {
            inner,
            script: Mutex::new(script),
            happened: AtomicUsize::new(0),
            observed: AtomicUsize::new(0),
        }
    }

    /// How many faults have happened.
    pub fn happened(&self) -> usize {
        self.happened.load(Ordering::SeqCst)
    }

    fn strike(&self, fault: Fault) -> bool {
        let mut script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        let position = script.iter().position(|scripted| *scripted == fault);
        if let Some(position) = position {
            script.remove(position);
            self.happened.fetch_add(1, Ordering::SeqCst);
        }
        position.is_some()
    }
}

fn broken<T>() -> Result<T, EngineError> {
    Err(EngineError::Failed("a fault that was asked for".to_owned()))
}

#[async_trait]
impl Engine for Faulty {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn attend(&self, attention: &Attention) {
        self.inner.attend(attention);
    }

    async fn observe(&self) -> EngineInventory {
        let mut inventory = self.inner.observe().await;
        let gap = |scope| Gap { scope, place: "page 2".to_owned(), message: "cut off".to_owned() };
        if !inventory.images.is_empty() && self.strike(Fault::ImageHidden) {
            inventory.images.pop();
        }
        let is_second = self.observed.fetch_add(1, Ordering::SeqCst) == 1;
        if self.strike(Fault::ImagesCutOff)
            || (is_second && self.strike(Fault::SecondListingCutOff))
        {
            inventory.images.truncate(inventory.images.len() / 2);
            inventory.gaps.push(gap(GapScope::Images));
        }
        if self.strike(Fault::InstancesCutOff) {
            inventory.instances.truncate(inventory.instances.len() / 2);
            inventory.gaps.push(gap(GapScope::Instances));
        }
        inventory
    }

    async fn create(
        &self,
        request: CreateRequest,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Created, EngineError> {
        if self.strike(Fault::CreateFails) {
            return broken();
        }
        let created = self.inner.create(request, watcher).await?;
        if self.strike(Fault::CreateReplyLost) { broken() } else { Ok(created) }
    }

    async fn copy(
        &self,
        request: CopyRequest,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Created, EngineError> {
        if self.strike(Fault::CopyFails) {
            return broken();
        }
        let created = self.inner.copy(request, watcher).await?;
        if self.strike(Fault::CopyReplyLost) { broken() } else { Ok(created) }
    }

    async fn drill(
        &self,
        image: &ImageRef,
        check: DrillCheck,
        watcher: Arc<dyn Watcher>,
    ) -> Result<(), EngineError> {
        if self.strike(Fault::DrillFails) {
            broken()
        } else {
            self.inner.drill(image, check, watcher).await
        }
    }

    async fn update(&self, image: &ImageRef, update: &Update) -> Result<Image, EngineError> {
        if self.strike(Fault::UpdateFails) {
            broken()
        } else {
            self.inner.update(image, update).await
        }
    }

    async fn delete(&self, image: &ImageRef) -> Result<(), EngineError> {
        if self.strike(Fault::DeleteFails) { broken() } else { self.inner.delete(image).await }
    }

    async fn settle(&self) -> Result<Settled, EngineError> {
        self.inner.settle().await
    }

    fn is_trial(&self) -> bool {
        self.inner.is_trial()
    }

    fn store(&self) -> Option<&dyn Store> {
        self.inner.store()
    }

    fn rebuild(&self) -> Option<&dyn Rebuild> {
        self.inner.rebuild()
    }

    fn import(&self) -> Option<&dyn Import> {
        self.inner.import()
    }
}
