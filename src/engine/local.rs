//! The embedded engine: a real snapshot engine on one machine.
//!
//! Instances are described by files, disks are raw files, qcow2 files or block devices. Images are
//! kept in restic repositories, one per storage location and key. Everything that may take long
//! runs on threads of its own.

mod attempt;
mod capture;
mod disk;
pub mod instance;
pub mod key;
mod lock;
mod objects;
mod record;
pub mod repository;
mod restore;
pub mod settings;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use attempt::{Attempt, Attempts};
use capture::CaptureError;
use instance::LocalInstance;
use key::{KeyError, KeyFiles, random};
use record::{Manifest, Record};
use repository::{Home, Opened, RepositoryError, Stored};
use settings::{Paths, Settings};

use super::{
    CreateRequest, Created, Engine, EngineError, RestoreRequest, Restored, Settled, Store,
    Verified, Watcher,
};
use crate::clock::Clock;
use crate::inventory::{
    Disk, EngineInventory, Gap, GapScope, Image, ImageSource, Instance, LABEL_STAGE,
};
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
    EngineKind { name: KIND, settings_schema, capabilities: settings::capabilities }
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
    pub fn repositories(&self) -> Result<Vec<Home>, RepositoryError> {
        self.inner.homes()
    }

    /// Opens a repository of this engine.
    pub fn open_repository(&self, home: &Home) -> Result<Opened, RepositoryError> {
        home.open(&self.inner.keys)
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
        loop {
            let (request, watcher) = (request.clone(), Arc::clone(&watcher));
            let made = self.blocking(move |inner| inner.create(&request, &watcher)).await?;
            match made {
                Some(created) => return Ok(created),
                // Another run is at it: what comes of it is looked at when it has ended.
                None => tokio::time::sleep(POLL).await,
            }
        }
    }

    async fn update(&self, image: &ImageRef, update: &Update) -> Result<Image, EngineError> {
        let (image, update) = (image.clone(), update.clone());
        self.blocking(move |inner| inner.update(&image, &update)).await
    }

    async fn delete(&self, image: &ImageRef) -> Result<(), EngineError> {
        let image = image.clone();
        self.blocking(move |inner| inner.delete(&image)).await
    }

    async fn settle(&self) -> Result<Settled, EngineError> {
        self.blocking(Inner::settle).await
    }

    fn is_trial(&self) -> bool {
        self.inner.settings.trial.unwrap_or(false)
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
            let _lock = inner.share()?;
            let (opened, stored) = inner.find(&request.image)?;
            let reader = opened.to_reader()?;
            restore::restore(&reader, &stored, &request, watcher.as_ref())
        })
        .await
    }

    async fn verify(
        &self,
        image: Option<String>,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Vec<Verified>, EngineError> {
        self.blocking(move |inner| {
            let _lock = inner.share()?;
            let Some(image) = image else { return inner.verify_all(watcher.as_ref()) };
            let (opened, stored) = inner.find(&image)?;
            Ok(restore::verify(&opened.to_reader()?, &[stored], watcher.as_ref()))
        })
        .await
    }
}

impl Inner {
    fn homes(&self) -> Result<Vec<Home>, RepositoryError> {
        Home::all(&self.paths.store, &self.paths.locations)
    }

    fn home(&self, location: &str, key: Option<&str>) -> Result<Home, EngineError> {
        let path = self.paths.locations.get(location).ok_or_else(|| {
            EngineError::Refused(format!("there is no storage location {location}"))
        })?;
        let key = key.unwrap_or_else(|| self.settings.default_key());
        Ok(Home::new(&self.paths.store, location, path, key))
    }

    /// Held while anything reads or adds data: as long as somebody does, nothing is cleared away.
    fn share(&self) -> Result<lock::Lock, EngineError> {
        lock::shared(&self.paths.store.join("lock"))
            .map_err(|error| EngineError::Failed(error.to_string()))
    }

    // -- observing

    fn empty_inventory(&self) -> EngineInventory {
        EngineInventory {
            name: self.name.clone(),
            kind: KIND.to_owned(),
            identity: self.paths.store.display().to_string(),
            gaps: Vec::new(),
            images_seen_before: None,
            capabilities: self.settings.capabilities(),
            instances: Vec::new(),
            images: Vec::new(),
        }
    }

    fn observe(&self) -> EngineInventory {
        let mut inventory = self.empty_inventory();
        let (instances, gaps) = instance::read_directory(&self.paths.instances);
        inventory.gaps = gaps;
        inventory.instances = instances.iter().map(observe_instance).collect();
        let mut gap = |place: String, message: String| {
            inventory.gaps.push(Gap { scope: GapScope::Images, place, message });
        };
        let mut images = Vec::new();
        match self.homes() {
            Ok(homes) => {
                for home in homes {
                    match self.images_of(&home) {
                        Ok(found) => images.extend(found),
                        Err(error) => gap(home.label(), error.to_string()),
                    }
                }
            }
            Err(error) => gap(self.paths.store.display().to_string(), error.to_string()),
        }
        match self.attempts.list() {
            Ok(attempts) => {
                let ready: BTreeSet<String> =
                    images.iter().map(|image| image.name.clone()).collect();
                images.extend(
                    attempts
                        .into_iter()
                        // What a killed run has left is nothing; the next round clears it away.
                        .filter(|(attempt, is_held)| *is_held || attempt.failure.is_some())
                        .filter(|(attempt, _)| !ready.contains(&attempt.name))
                        .map(|(attempt, _)| attempt.image()),
                );
            }
            Err(error) => gap(self.paths.store.display().to_string(), error.to_string()),
        }
        images.sort_by(|one, other| (&one.name, &one.id).cmp(&(&other.name, &other.id)));
        inventory.images = images;
        inventory
    }

    fn images_of(&self, home: &Home) -> Result<Vec<Image>, RepositoryError> {
        let stored = home.open(&self.keys)?.images()?;
        Ok(stored.iter().map(|stored| image_of(home, stored)).collect())
    }

    /// The repository and the stored image of a name or an id.
    fn find(&self, image: &str) -> Result<(Opened, Stored), EngineError> {
        let mut unseen = Vec::new();
        for home in self.homes()? {
            let opened = match home.open(&self.keys) {
                Ok(opened) => opened,
                Err(error) => {
                    unseen.push(error.to_string());
                    continue;
                }
            };
            let is_it =
                |stored: &Stored| stored.record.id == image || stored.snapshot.label == image;
            match opened.images() {
                Ok(images) => {
                    if let Some(stored) = images.into_iter().find(is_it) {
                        return Ok((opened, stored));
                    }
                }
                Err(error) => unseen.push(error.to_string()),
            }
        }
        // Where a repository could not be read, the image may be in it.
        if unseen.is_empty() {
            Err(EngineError::NotFound)
        } else {
            Err(EngineError::Failed(unseen.join("; ")))
        }
    }

    /// The same, bound to what the plan was made over. As long as the lock is held, nobody else
    /// changes an image of that repository.
    fn find_bound(&self, image: &ImageRef) -> Result<(lock::Lock, Opened, Stored), EngineError> {
        let id = image.id.as_deref().ok_or(EngineError::NotFound)?;
        let (opened, _) = self.find(id)?;
        let lock = opened.home.lock()?;
        let stored = opened.newest_generation(id)?.ok_or(EngineError::NotFound)?;
        let is_same = stored.snapshot.label == image.name
            && Some(stored.record.fingerprint()) == image.fingerprint
            && image.created_at.is_none_or(|created_at| created_at == stored.record.created_at);
        if is_same { Ok((lock, opened, stored)) } else { Err(EngineError::Changed) }
    }

    // -- changing

    /// Makes an image; `None` where another run is at it.
    fn create(
        &self,
        request: &CreateRequest,
        watcher: &Arc<dyn Watcher>,
    ) -> Result<Option<Created>, EngineError> {
        if watcher.is_cancelled() {
            return Err(EngineError::Interrupted);
        }
        let _store = self.share()?;
        let Some(_name) = self.attempts.try_lock(&request.name)? else { return Ok(None) };
        let home = self.home(&request.location, request.create.kms_key.as_deref())?;
        let opened = home.open_or_make(&self.keys)?;
        let existing =
            opened.images()?.into_iter().find(|stored| stored.snapshot.label == request.name);
        if let Some(stored) = existing {
            self.attempts.remove(&request.name)?;
            let image = image_of(&home, &stored);
            let is_it = image.ownership() == crate::name::Ownership::Ours(request.key.clone());
            return if is_it {
                Ok(Some(Created::Found(image)))
            } else {
                Err(EngineError::NameTaken(image.name))
            };
        }
        let instance = self.instance(request)?;
        let mut attempt = self.begin(request, &home, &instance)?;
        let captured = self.capture(request, &home, instance, &attempt, watcher);
        match captured {
            Ok(image) => {
                self.attempts.remove(&request.name)?;
                Ok(Some(Created::Made(image)))
            }
            Err(CaptureError::Interrupted) => {
                self.attempts.remove(&request.name)?;
                self.mark_dirty(&home)?;
                Err(EngineError::Interrupted)
            }
            Err(error) => {
                attempt.failure = Some(error.to_string());
                // The reason is worth more than the record of it, where that cannot be written.
                let _ = self.mark_dirty(&home).and_then(|()| Ok(self.attempts.write(&attempt)?));
                Err(EngineError::Failed(error.to_string()))
            }
        }
    }

    fn instance(&self, request: &CreateRequest) -> Result<LocalInstance, EngineError> {
        let (instances, gaps) = instance::read_directory(&self.paths.instances);
        let found = instances.into_iter().find(|instance| instance.id == request.key.source);
        found.ok_or_else(|| {
            let why = gaps
                .first()
                .map(|gap| format!(" ({}: {})", gap.place, gap.message))
                .unwrap_or_default();
            EngineError::Failed(format!(
                "there is no instance with the id {}{why}",
                request.key.source
            ))
        })
    }

    fn begin(
        &self,
        request: &CreateRequest,
        home: &Home,
        instance: &LocalInstance,
    ) -> Result<Attempt, EngineError> {
        let attempt = Attempt {
            id: new_id()?,
            name: request.name.clone(),
            kind: request.create.kind,
            source: ImageSource {
                id: instance.id.clone(),
                name: instance.document.metadata.name.clone(),
            },
            began_at: self.clock.now(),
            location: home.location.clone(),
            kms_key: home.key.clone(),
            labels: request.create.labels.clone(),
            failure: None,
        };
        self.attempts.write(&attempt)?;
        Ok(attempt)
    }

    fn capture(
        &self,
        request: &CreateRequest,
        home: &Home,
        instance: LocalInstance,
        attempt: &Attempt,
        watcher: &Arc<dyn Watcher>,
    ) -> Result<Image, CaptureError> {
        let disks = disk::OpenDisks::open(&instance, &request.create.disks)?;
        let mut manifest =
            Manifest::new(&request.name, instance.id.clone(), instance.document, attempt.began_at);
        manifest.excluded_disks.clone_from(&request.create.excluded_disks);
        let draft = capture::capture(home, &self.keys, manifest, disks, watcher)?;
        let mut record = Record::new(
            attempt.id.clone(),
            request.create.kind,
            attempt.source.clone(),
            self.clock.now(),
        );
        record.description.clone_from(&request.create.description);
        record.labels.clone_from(&request.create.labels);
        record.total_storage_bytes = draft.added_bytes;
        record.disk_bytes = draft.disk_bytes;
        let opened = home.open(&self.keys)?;
        let _lock = home.lock()?;
        opened.publish(draft.snapshot, &record)?;
        Ok(record.image(&request.name, &home.location, &home.key))
    }

    fn update(&self, image: &ImageRef, update: &Update) -> Result<Image, EngineError> {
        let _store = self.share()?;
        let (_lock, opened, stored) = self.find_bound(image)?;
        let mut record = stored.record;
        record.generation += 1;
        record.stage = update.stage_after;
        for label in &update.remove_labels {
            record.labels.remove(label);
        }
        record.labels.remove(LABEL_STAGE);
        record.labels.extend(update.set_labels.clone());
        opened.replace(&record.id, &record)?;
        Ok(record.image(&image.name, &opened.home.location, &opened.home.key))
    }

    fn delete(&self, image: &ImageRef) -> Result<(), EngineError> {
        let _store = self.share()?;
        if let Some(attempt) = self.attempts.read(&image.name)? {
            if Some(&attempt.id) == image.id.as_ref() {
                return self.forget(&attempt);
            }
        }
        let (_lock, opened, stored) = self.find_bound(image)?;
        self.mark_dirty(&opened.home)?;
        Ok(opened.remove(&stored.record.id)?)
    }

    fn forget(&self, attempt: &Attempt) -> Result<(), EngineError> {
        let Some(_lock) = self.attempts.try_lock(&attempt.name)? else {
            return Err(EngineError::Busy(format!("another run is making {}", attempt.name)));
        };
        Ok(self.attempts.remove(&attempt.name)?)
    }

    // -- settling

    /// Remembers that a repository holds data that no image needs.
    fn mark_dirty(&self, home: &Home) -> Result<(), EngineError> {
        let path = home.path.with_extension("dirty");
        std::fs::write(&path, b"").map_err(|source| RepositoryError::File { path, source }.into())
    }

    fn settle(&self) -> Result<Settled, EngineError> {
        let mut settled = Settled::default();
        let interrupted: Vec<Attempt> = self
            .attempts
            .list()?
            .into_iter()
            .filter(|(attempt, is_held)| attempt.failure.is_none() && !is_held)
            .map(|(attempt, _)| attempt)
            .collect();
        for attempt in interrupted {
            if let Some(_lock) = self.attempts.try_lock(&attempt.name)? {
                if let Ok(home) = self.home(&attempt.location, Some(&attempt.kms_key)) {
                    if home.path.exists() {
                        self.mark_dirty(&home)?;
                    }
                }
                self.attempts.remove(&attempt.name)?;
            }
        }
        let dirty: Vec<Home> = self
            .homes()?
            .into_iter()
            .filter(|home| home.path.with_extension("dirty").exists())
            .collect();
        if dirty.is_empty() {
            return Ok(settled);
        }
        let Some(_alone) = lock::try_exclusive(&self.paths.store.join("lock"))
            .map_err(|error| EngineError::Failed(error.to_string()))?
        else {
            settled.postponed.push(
                "another run is at work: space is given back at the end of the next one".to_owned(),
            );
            return Ok(settled);
        };
        for home in dirty {
            let opened = home.open(&self.keys)?;
            let _lock = home.lock()?;
            opened.remove_stale_generations()?;
            settled.freed_bytes += opened.prune()?;
            let path = home.path.with_extension("dirty");
            std::fs::remove_file(&path).map_err(|source| RepositoryError::File { path, source })?;
        }
        Ok(settled)
    }

    // -- reading back

    fn record(&self, image: &str) -> Result<Value, EngineError> {
        let _lock = self.share()?;
        let (opened, stored) = self.find(image)?;
        let home = opened.home.clone();
        let reader = opened.to_reader()?;
        let manifest = restore::manifest(&reader, &stored).map_err(EngineError::Failed)?;
        let listed = image_of(&home, &stored);
        Ok(json!({
            "image": listed,
            "description": stored.record.description,
            "captured_at": manifest.captured_at,
            "made_by": manifest.made_by,
            "source_instance": manifest.instance,
            "source_id": manifest.source_id,
            "disks": manifest.disks,
            "excluded_disks": manifest.excluded_disks,
            "repository": home.path,
            "snapshot": stored.snapshot.id.to_hex().as_str(),
        }))
    }

    fn verify_all(&self, watcher: &dyn Watcher) -> Result<Vec<Verified>, EngineError> {
        let mut results = Vec::new();
        for home in self.homes()? {
            let images = home.open(&self.keys)?.images()?;
            let reader = home.open(&self.keys)?.to_reader()?;
            results.extend(restore::verify(&reader, &images, watcher));
        }
        results.sort_by(|one, other| one.image.cmp(&other.image));
        Ok(results)
    }
}

fn image_of(home: &Home, stored: &Stored) -> Image {
    stored.record.image(&stored.snapshot.label, &home.location, &home.key)
}

fn observe_instance(instance: &LocalInstance) -> Instance {
    let metadata = &instance.document.metadata;
    let spec = &instance.document.spec;
    let disks = spec.disks.iter().map(|disk| {
        let size = disk::size_of(instance, disk);
        Disk {
            name: disk.device_name.clone(),
            boot: disk.boot,
            size_bytes: size.as_ref().ok().copied(),
            problem: size.err().map(|error| error.to_string()),
        }
    });
    Instance {
        id: instance.id.clone(),
        name: metadata.name.clone(),
        zone: spec.zone.clone(),
        labels: metadata.labels.clone(),
        status: spec.status.word().to_owned(),
        machine_type: spec.machine_type.clone(),
        disks: disks.collect(),
    }
}

/// A random number, never zero, as text: ids look like those of Compute Engine.
fn new_id() -> Result<String, KeyError> {
    let bytes: [u8; 8] = random()?;
    Ok((u64::from_be_bytes(bytes) >> 1).max(1).to_string())
}
