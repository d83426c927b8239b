//! What changes: captures, labels and stages, deletions, and clearing up after them.

use std::sync::Arc;

use super::attempt::Attempt;
use super::capture::{self, CaptureError};
use super::home::Home;
use super::instance::{self, LocalInstance};
use super::key::{KeyError, random};
use super::record::{Manifest, Record};
use super::{Inner, disk, image_of, lock};
use crate::engine::{CreateRequest, Created, EngineError, Settled, Watcher};
use crate::inventory::{Image, ImageSource, LABEL_STAGE};
use crate::plan::{ImageRef, Update};

impl Inner {
    /// Makes an image; `None` where another run is at it.
    pub(super) fn create(
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
        let existing = opened
            .images()?
            .images
            .into_iter()
            .find(|stored| stored.snapshot.label == request.name);
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
        self.clear_after(self.attempts.read(&request.name)?.as_ref())?;
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
                home.mark_dirty()?;
                Err(EngineError::Interrupted)
            }
            Err(error) => {
                attempt.failure = Some(error.to_string());
                // The reason is worth more than the record of it, where that cannot be written.
                let _ = home.mark_dirty().and_then(|()| self.attempts.write(&attempt));
                Err(EngineError::Failed(error.to_string()))
            }
        }
    }

    pub(super) fn instance(&self, request: &CreateRequest) -> Result<LocalInstance, EngineError> {
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

    pub(super) fn begin(
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

    pub(super) fn capture(
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
        let draft = capture::capture(home, &self.keys, manifest, &disks, watcher)?;
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

    pub(super) fn update(&self, image: &ImageRef, update: &Update) -> Result<Image, EngineError> {
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

    pub(super) fn delete(&self, image: &ImageRef) -> Result<(), EngineError> {
        let _store = self.share()?;
        if let Some(attempt) = self.attempts.read(&image.name)?
            && Some(&attempt.id) == image.id.as_ref()
        {
            return self.forget(&attempt);
        }
        let (_lock, opened, stored) = self.find_bound(image)?;
        opened.home.mark_dirty()?;
        Ok(opened.remove(&stored.record.id)?)
    }

    pub(super) fn forget(&self, attempt: &Attempt) -> Result<(), EngineError> {
        let Some(_lock) = self.attempts.try_lock(&attempt.name)? else {
            return Err(EngineError::Busy(format!("another run is making {}", attempt.name)));
        };
        Ok(self.attempts.remove(&attempt.name)?)
    }

    /// Forgets attempts that nobody is at, but those that failed and say why.
    fn clear_attempts(&self) -> Result<(), EngineError> {
        for name in self.attempts.names()? {
            let Some(_lock) = self.attempts.try_lock(&name)? else { continue };
            match self.attempts.read(&name)? {
                Some(attempt) if attempt.failure.is_some() => {}
                interrupted => {
                    self.clear_after(interrupted.as_ref())?;
                    self.attempts.remove(&name)?;
                }
            }
        }
        Ok(())
    }

    /// What an interrupted attempt has stored is needed by no image.
    fn clear_after(&self, interrupted: Option<&Attempt>) -> Result<(), EngineError> {
        let Some(attempt) = interrupted else { return Ok(()) };
        match self.home(&attempt.location, Some(&attempt.kms_key)) {
            Ok(home) if home.path.exists() => Ok(home.mark_dirty()?),
            _ => Ok(()),
        }
    }

    pub(super) fn settle(&self) -> Result<Settled, EngineError> {
        let mut settled = Settled::default();
        self.clear_attempts()?;
        let dirty: Vec<Home> = self.homes()?.into_iter().filter(Home::is_dirty).collect();
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
            home.mark_clean()?;
        }
        Ok(settled)
    }
}

/// A random number, never zero, as text: ids look like those of Compute Engine.
fn new_id() -> Result<String, KeyError> {
    let bytes: [u8; 8] = random()?;
    Ok((u64::from_be_bytes(bytes) >> 1).max(1).to_string())
}
