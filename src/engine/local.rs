//! The embedded engine: a real snapshot engine on one machine.
//!
//! Instances are described by files, disks are raw files, qcow2 files or block devices. Images are
//! kept in restic repositories, one per storage location and key. Everything that may take long
//! runs on threads of its own.

mod attempt;
mod capture;
mod change;
mod copy;
mod derive;
mod disk;
mod drill;
mod examine;
pub mod home;
pub mod instance;
pub mod key;
mod lock;
pub mod made;
mod objects;
mod observe;
mod record;
pub mod repository;
mod restore;
pub mod settings;
mod share;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;

pub use derive::Origin;

use attempt::Attempts;
use home::Home;
use instance::LocalInstance;
use key::{KeyError, KeyFiles};
use observe::Found;
use repository::{Opened, Repaired, RepositoryError, Stored};
use settings::{Paths, Settings};

use super::{
    CopyRequest, CreateRequest, Created, Engine, EngineError, Examined, RestoreRequest, Restored,
    Settled, Store, Topic, Verdict, Verification, Wanted, Watcher,
};
use crate::clock::Clock;
use crate::inventory::{DrillCheck, EngineInventory, Gap, GapScope, Image, Instance};
use crate::plan::{ImageRef, Update};
use crate::policy::EngineKind;
use crate::policy::schema::simplify;

/// The name of this kind of engine.
pub const KIND: &str = "local";
/// How often it is looked whether another run has finished an image.
const POLL: Duration = Duration::from_millis(100);

/// What must be known of this kind of engine.
pub fn kind() -> EngineKind {
    let mut settings_schema = schemars::schema_for!(Settings).to_value();
    simplify(&mut settings_schema);
    EngineKind {
        name: KIND,
        settings_schema,
        capabilities: settings::capabilities,
        check: |_| Vec::new(),
    }
}

/// Opens an engine of this kind.
pub fn open(
    name: &str,
    settings: &Value,
    base: &Path,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn Engine>, String> {
    Ok(Arc::new(LocalEngine::open(name, settings, base, clock)?))
}

/// An instance as it is described and as it is seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Described {
    /// As it is described.
    pub local: LocalInstance,
    /// As it is seen.
    pub seen: Instance,
    /// Since when its file is there.
    pub created_at: Option<Timestamp>,
    /// Since when the file of each of its disks is there.
    pub disks_created_at: Vec<Option<Timestamp>>,
}

/// An embedded engine.
#[derive(Clone)]
pub struct LocalEngine {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    settings: Settings,
    paths: Paths,
    keys: KeyFiles,
    attempts: Attempts,
    clock: Arc<dyn Clock>,
}

impl LocalEngine {
    /// Opens the engine with these settings; nothing is written yet.
    pub fn open(
        name: &str,
        settings: &Value,
        base: &Path,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, String> {
        let settings = Settings::read(settings).map_err(|error| error.to_string())?;
        let paths = settings.paths(base);
        let keys = KeyFiles::new(paths.keys.clone(), settings.create_keys.unwrap_or(false));
        let attempts = Attempts::new(&paths.store);
        let inner = Inner { name: name.to_owned(), settings, paths, keys, attempts, clock };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The key files.
    pub fn keys(&self) -> &KeyFiles {
        &self.inner.keys
    }

    /// All repositories there are.
    pub fn repositories(&self) -> (Vec<Home>, Vec<RepositoryError>) {
        self.inner.homes()
    }

    /// Gives up packs of a repository that are gone for good, and takes in those that came back.
    pub fn repair_repository(&self, home: &Home) -> Result<Repaired, EngineError> {
        self.inner.repair(home)
    }

    /// The directory that belongs to this engine alone, with all it keeps beside its repositories.
    pub fn directory(&self) -> &Path {
        &self.inner.paths.store
    }

    /// How many captures run at once.
    pub fn captures(&self) -> usize {
        self.inner.settings.capabilities().captures_max
    }

    /// The names of its locations, the default one first.
    pub fn locations(&self) -> Vec<String> {
        self.inner.settings.location_names()
    }

    /// The directory with the instance files.
    pub fn instance_files(&self) -> &Path {
        &self.inner.paths.instances
    }

    /// The instances as they are described, each with what is seen of it, and what could not be
    /// read.
    pub async fn described(&self) -> Result<(Vec<Described>, Vec<Gap>), EngineError> {
        self.blocking(|inner| Ok(inner.described())).await
    }

    /// What images record, by their ids; those that cannot be read are left out.
    pub async fn records(
        &self,
        ids: BTreeSet<String>,
    ) -> Result<BTreeMap<String, Value>, EngineError> {
        self.blocking(move |inner| Ok(inner.records(&ids))).await
    }

    /// Makes an image whose id is known beforehand, of an instance or of something else.
    pub async fn create_of(
        &self,
        request: CreateRequest,
        id: String,
        origin: Origin,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Created, EngineError> {
        self.until_made(move |inner| inner.create_of(&request, &id, &origin, &watcher)).await
    }

    /// Runs something that reads or writes files on a thread that may block.
    pub async fn on_a_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let this = self.clone();
        self.blocking(move |_| work(&this)).await
    }

    /// A random number for something new, never zero, as text.
    pub fn new_id() -> Result<String, EngineError> {
        Ok(change::new_id()?)
    }

    /// Opens a repository of this engine.
    pub fn open_repository(&self, home: &Home) -> Result<Opened, RepositoryError> {
        home.open(&self.inner.keys)
    }

    /// Makes an image. Where another run is at it, what comes of that is looked at when it has ended.
    async fn until_made(
        &self,
        make: impl Fn(&Inner) -> Result<Option<Created>, EngineError> + Clone + Send + 'static,
    ) -> Result<Created, EngineError> {
        loop {
            if let Some(created) = self.blocking(make.clone()).await? {
                return Ok(created);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Runs something that blocks on a thread that may.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let inner = Arc::clone(&self.inner);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(result) => result,
            Err(error) => {
                Err(EngineError::Failed(format!("the engine stopped unexpectedly: {error}")))
            }
        }
    }
}

impl From<RepositoryError> for EngineError {
    fn from(error: RepositoryError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<KeyError> for EngineError {
    fn from(error: KeyError) -> Self {
        Self::Failed(error.to_string())
    }
}

#[async_trait]
impl Engine for LocalEngine {
    fn name(&self) -> &str {
        &self.inner.name
    }

    async fn observe(&self) -> EngineInventory {
        let inner = Arc::clone(&self.inner);
        let observed = tokio::task::spawn_blocking(move || inner.observe()).await;
        observed.unwrap_or_else(|error| {
            let mut nothing = self.inner.empty_inventory();
            nothing.gaps.push(Gap {
                scope: GapScope::Images,
                place: self.inner.name.clone(),
                message: format!("the engine stopped unexpectedly: {error}"),
            });
            nothing
        })
    }

    async fn create(
        &self,
        request: CreateRequest,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Created, EngineError> {
        self.until_made(move |inner| inner.create(&request, &watcher)).await
    }

    async fn update(&self, image: &ImageRef, update: &Update) -> Result<Image, EngineError> {
        let (image, update) = (image.clone(), update.clone());
        self.blocking(move |inner| inner.update(&image, &update)).await
    }

    async fn copy(
        &self,
        request: CopyRequest,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Created, EngineError> {
        self.until_made(move |inner| inner.copy(&request, &watcher)).await
    }

    async fn drill(
        &self,
        image: &ImageRef,
        check: DrillCheck,
        watcher: Arc<dyn Watcher>,
    ) -> Result<(), EngineError> {
        let image = image.clone();
        self.blocking(move |inner| inner.drill(&image, check, &watcher)).await
    }

    async fn delete(&self, image: &ImageRef) -> Result<(), EngineError> {
        let image = image.clone();
        self.blocking(move |inner| inner.delete(&image)).await
    }

    async fn settle(&self) -> Result<Settled, EngineError> {
        self.blocking(Inner::settle).await
    }

    async fn examine(&self, _: &Wanted) -> Vec<Examined> {
        let examined = self.blocking(|inner| Ok(inner.examine())).await;
        examined.unwrap_or_else(|error| {
            vec![Examined::new(Topic::Repositories, Verdict::Unknown, error.to_string())]
        })
    }

    fn is_trial(&self) -> bool {
        self.inner.settings.trial.unwrap_or(false)
    }

    fn places(&self) -> Vec<PathBuf> {
        let paths = &self.inner.paths;
        let places = paths.locations.values().chain([&paths.store]);
        places.map(|path| path.canonicalize().unwrap_or_else(|_| path.clone())).collect()
    }

    fn store(&self) -> Option<&dyn Store> {
        Some(self)
    }
}

#[async_trait]
impl Store for LocalEngine {
    async fn record(&self, image: &str) -> Result<Value, EngineError> {
        let image = image.to_owned();
        self.blocking(move |inner| inner.record(&image)).await
    }

    async fn restore(
        &self,
        request: RestoreRequest,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Restored, EngineError> {
        self.blocking(move |inner| {
            let Found { opened, stored, data: _data } = inner.find(&request.image)?;
            inner.refuse_double(&request)?;
            let reader = opened.to_reader()?;
            restore::restore(&reader, &stored, &request, watcher.as_ref())
        })
        .await
    }

    async fn verify(
        &self,
        image: Option<String>,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Verification, EngineError> {
        self.blocking(move |inner| {
            let Some(image) = image else { return Ok(inner.verify_all(watcher.as_ref())) };
            let Found { opened, stored, data: _data } = inner.find(&image)?;
            let images = restore::verify(&opened.to_reader()?, &[stored], watcher.as_ref());
            Ok(Verification { images, unreadable: Vec::new() })
        })
        .await
    }
}

impl Inner {
    /// A machine that is restored among the instance files under its own name would be there twice.
    fn refuse_double(&self, request: &RestoreRequest) -> Result<(), EngineError> {
        let there = request.to.ancestors().find_map(|path| path.canonicalize().ok());
        let instances = self.paths.instances.canonicalize().ok();
        let is_inside = matches!((&there, &instances), (Some(there), Some(instances)) if there.starts_with(instances));
        if is_inside && request.name.is_none() {
            return Err(EngineError::Refused(
                "the directory lies among the instance files, where the machine would be there twice; \
                 choose another one, or give it a name with --name"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    fn homes(&self) -> (Vec<Home>, Vec<RepositoryError>) {
        Home::all(&self.paths.store, &self.paths.locations)
    }

    fn home(&self, location: &str, key: Option<&str>) -> Result<Home, EngineError> {
        let path = self.paths.locations.get(location).ok_or_else(|| {
            EngineError::Refused(format!("there is no storage location {location}"))
        })?;
        let key = key.unwrap_or_else(|| self.settings.default_key());
        Ok(Home::new(&self.paths.store, location, path, key))
    }

    fn record(&self, image: &str) -> Result<Value, EngineError> {
        let Found { opened, stored, data: _data } = self.find(image)?;
        let home = opened.home.clone();
        let reader = opened.to_reader()?;
        observe::record_of(&reader, &home, &stored).map_err(EngineError::Failed)
    }

    /// Looks at one repository after the other; one that does not open costs no other.
    fn verify_all(&self, watcher: &dyn Watcher) -> Verification {
        let (homes, errors) = self.homes();
        let unreadable = errors.iter().map(ToString::to_string).collect();
        let mut found = Verification { images: Vec::new(), unreadable };
        for home in homes {
            let verified = home.share_data().and_then(|_data| {
                let opened = home.open(&self.keys)?;
                let listing = opened.images()?;
                let images = restore::verify(&opened.to_reader()?, &listing.images, watcher);
                Ok((images, listing.damaged))
            });
            match verified {
                Ok((images, damaged)) => {
                    found.images.extend(images);
                    found.unreadable.extend(damaged.iter().map(ToString::to_string));
                }
                Err(error) => found.unreadable.push(error.to_string()),
            }
        }
        found.images.sort_by(|one, other| one.image.cmp(&other.image));
        found
    }
}

fn image_of(home: &Home, stored: &Stored) -> Image {
    stored.record.image(&stored.snapshot.label, &home.location, &home.key)
}
