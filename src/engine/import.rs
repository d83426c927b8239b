//! Making images of disks that lie elsewhere, where the service itself fetches them by a URL.
//!
//! Such a URL is signed: whoever has it can read the disk. So it is a type of its own that shows no
//! more of itself than where the disk lies, and that takes what it hides out of what others say of it.
//!
//! A round imports through an [`Importer`] in the place of its engine: the plan holds a create like any
//! other, so ledger, guards and reports need nothing new, and the URL is in none of them.

mod uri;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

pub use uri::{ImportUri, ImportUriError};

use super::{
    Attention, Calls, CopyRequest, CreateRequest, Created, Engine, EngineError, Examined, Rebuild,
    Settled, Store, Wanted, Watcher,
};
use crate::import::{Placed, place_label};
use crate::inventory::{DrillCheck, EngineInventory, Image, LABEL_IMPORTED};
use crate::plan::{ImageRef, Update};

/// An image to be made of a disk that lies elsewhere.
#[derive(Debug, Clone)]
pub struct ImportRequest {
    /// What is made of it: identity, name, labels, description, family.
    pub create: CreateRequest,
    /// Where the disk lies.
    pub uri: ImportUri,
    /// Whether the source was not seen: nothing is asked of it.
    pub is_gone: bool,
    /// Whether the machine starts from the disk.
    pub is_boot: bool,
    /// Whether a person says that Windows starts from it.
    pub is_windows: bool,
}

/// Making images of disks that lie elsewhere.
#[async_trait]
pub trait Import: Send + Sync {
    /// Makes an image and waits until it is READY. Called twice with the same key, by this or any other
    /// run and whatever the URL was signed with, it makes one; what is there under the key of another
    /// file is refused, and nothing is asked for. No error says what the URL hides.
    async fn import(
        &self,
        request: ImportRequest,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Created, EngineError>;
}

/// An engine that makes the one image of a round out of a disk that lies elsewhere.
pub struct Importer {
    inner: Arc<dyn Engine>,
    uri: ImportUri,
    is_windows: bool,
    placed: Mutex<Option<Placed>>,
}

impl Importer {
    /// Over an engine.
    pub fn new(inner: Arc<dyn Engine>, uri: ImportUri, is_windows: bool) -> Self {
        Self { inner, uri, is_windows, placed: Mutex::default() }
    }

    /// Says what was planned; nothing else is made.
    pub fn place(&self, placed: Option<Placed>) {
        *self.placed.lock().unwrap_or_else(PoisonError::into_inner) = placed;
    }

    fn placed(&self) -> Option<Placed> {
        self.placed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Engine for Importer {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn attend(&self, attention: &Attention) {
        self.inner.attend(attention);
    }

    async fn observe(&self) -> EngineInventory {
        self.inner.observe().await
    }

    async fn create(
        &self,
        create: CreateRequest,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Created, EngineError> {
        let place = place_label(self.uri.open());
        let is_of_place = create.create.labels.get(LABEL_IMPORTED) == Some(&place);
        let is_planned = |placed: &Placed| placed.key == create.key && is_of_place;
        let Some(placed) = self.placed().filter(is_planned) else {
            let message = "nothing but the image that was planned is imported".to_owned();
            return Err(EngineError::Refused(message));
        };
        let Some(import) = self.inner.import() else {
            return Err(EngineError::Refused("this engine imports nothing".to_owned()));
        };
        let request = ImportRequest {
            create,
            uri: self.uri.clone(),
            is_gone: placed.is_gone,
            is_boot: placed.is_boot,
            is_windows: self.is_windows,
        };
        import.import(request, watcher).await
    }

    async fn update(&self, image: &ImageRef, update: &Update) -> Result<Image, EngineError> {
        self.inner.update(image, update).await
    }

    async fn copy(
        &self,
        request: CopyRequest,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Created, EngineError> {
        self.inner.copy(request, watcher).await
    }

    async fn drill(
        &self,
        image: &ImageRef,
        check: DrillCheck,
        watcher: Arc<dyn Watcher>,
    ) -> Result<(), EngineError> {
        self.inner.drill(image, check, watcher).await
    }

    async fn delete(&self, image: &ImageRef) -> Result<(), EngineError> {
        self.inner.delete(image).await
    }

    async fn settle(&self) -> Result<Settled, EngineError> {
        self.inner.settle().await
    }

    async fn examine(&self, wanted: &Wanted) -> Vec<Examined> {
        self.inner.examine(wanted).await
    }

    fn is_trial(&self) -> bool {
        self.inner.is_trial()
    }

    fn places(&self) -> Vec<PathBuf> {
        self.inner.places()
    }

    fn calls(&self) -> Option<Calls> {
        self.inner.calls()
    }

    fn store(&self) -> Option<&dyn Store> {
        self.inner.store()
    }

    fn rebuild(&self) -> Option<&dyn Rebuild> {
        self.inner.rebuild()
    }
}
