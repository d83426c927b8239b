//! What changes: captures, labels and stages, deletions, and clearing up after them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::attempt::Attempt;
use super::capture::{self, CaptureError, Draft};
use super::home::Home;
use super::instance::{self, LocalInstance};
use super::key::{KeyError, random};
use super::record::{Manifest, Record};
use super::repository::{Repaired, Stored};
use super::settings::DESCRIPTION_MAX;
use super::{Inner, disk, image_of};
use crate::engine::author::signed;
use crate::engine::{Author, CreateRequest, Created, EngineError, Settled, Watcher};
use crate::inventory::{Image, ImageKind, ImageSource, LABEL_STAGE};
use crate::name::{Key, Ownership};
use crate::plan::{ImageRef, Update};

impl Inner {
    /// Makes an image; `None` where another run is at it.
    pub(super) fn create(
        &self,
        request: &CreateRequest,
        watcher: &Arc<dyn Watcher>,
    ) -> Result<Option<Created>, EngineError> {
        self.create_from(request, None, watcher, || self.instance(request))
    }

    /// Makes an image of a machine that is only looked for where the image is not there already.
    pub(super) fn create_from(
        &self,
        request: &CreateRequest,
        id: Option<&str>,
        watcher: &Arc<dyn Watcher>,
        machine: impl FnOnce() -> Result<LocalInstance, EngineError>,
    ) -> Result<Option<Created>, EngineError> {
        if watcher.is_cancelled() {
            return Err(EngineError::Interrupted);
        }
        let home = self.target(&request.location, request.create.kms_key.as_deref())?;
        let _data = home.share_data()?;
        let Some(_name) = self.attempts.try_lock(&request.name)? else { return Ok(None) };
        let images = home.open_or_make(&self.keys)?.images()?.images;
        if let Some(found) = self.found(&home, images, &request.name, &request.key, false)? {
            return Ok(Some(found));
        }
        let instance = machine()?;
        let attempt = self.begin(request, id, &home, &instance)?;
        let captured = self.capture(request, &home, instance, &attempt, watcher);
        self.conclude(&home, attempt, captured).map(Some)
    }

    /// Where a new image goes, if nothing is in the way of storing it there.
    pub(super) fn target(&self, location: &str, key: Option<&str>) -> Result<Home, EngineError> {
        let home = self.home(location, key)?;
        home.check_mounted(&self.paths.store, &self.paths.locations[&home.location])?;
        self.refuse_new_key(&home)?;
        self.refuse_lost(&home)?;
        Ok(home)
    }

    /// Forgets an attempt that has become an image or was given up, and remembers why one failed.
    pub(super) fn conclude(
        &self,
        home: &Home,
        mut attempt: Attempt,
        ended: Result<Created, CaptureError>,
    ) -> Result<Created, EngineError> {
        match ended {
            Ok(created) => {
                self.attempts.remove(&attempt.name)?;
                Ok(created)
            }
            Err(CaptureError::Interrupted) => {
                self.attempts.remove(&attempt.name)?;
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

    /// The image that has the name of a new one already: its own, or in its way. The caller holds
    /// the lock of the name.
    pub(super) fn found(
        &self,
        home: &Home,
        images: Vec<Stored>,
        name: &str,
        key: &Key,
        is_copy: bool,
    ) -> Result<Option<Created>, EngineError> {
        let mut images = images.into_iter();
        let Some(stored) = images.find(|stored| stored.snapshot.label == name) else {
            return Ok(None);
        };
        self.attempts.remove(name)?;
        let image = image_of(home, &stored);
        if image.ownership() == Ownership::Ours(key.clone()) && image.is_copy() == is_copy {
            let by = Author::read(&stored.record.description);
            Ok(Some(Created::Found { image, by }))
        } else {
            Err(EngineError::NameTaken(image.name))
        }
    }

    /// A key that is not there is made only where nothing was ever encrypted under it.
    fn refuse_new_key(&self, home: &Home) -> Result<(), EngineError> {
        let path = self.keys.path(&home.key);
        let is_used = self.homes().0.iter().any(|other| other.key == home.key);
        if is_used && !path.exists() { Err(KeyError::Lost(path).into()) } else { Ok(()) }
    }

    /// Where packs are gone or cut short, what they held must not be taken for stored. Whether they
    /// come back (a disk that is not mounted, a copy that is not finished) only a person knows.
    fn refuse_lost(&self, home: &Home) -> Result<(), EngineError> {
        if !home.has_data() {
            return Ok(());
        }
        let _data = home.share_data()?;
        let lost = home.open(&self.keys)?.holdings()?.lost();
        if lost == 0 {
            return Ok(());
        }
        Err(EngineError::Failed(format!(
            "{lost} packs of {} are missing or cut short: mount what is not mounted, or put them back from a copy; \
             if they are gone for good, run `stillframe repository repair --location {} --key {}`",
            home.path.display(),
            home.location,
            home.key
        )))
    }

    /// Gives up packs that are gone or cut short, and takes in those that came back.
    pub(super) fn repair(&self, home: &Home) -> Result<Repaired, EngineError> {
        let Some(_alone) = home.try_own_data()? else {
            return Err(EngineError::Busy("another run is at work in the repository".to_owned()));
        };
        if home.is_locked_by_restic() {
            return Err(EngineError::Busy(
                "the restic program has locked the repository; `restic unlock` removes what a killed one left".to_owned(),
            ));
        }
        Ok(home.open(&self.keys)?.repair()?)
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

    fn begin(
        &self,
        request: &CreateRequest,
        id: Option<&str>,
        home: &Home,
        instance: &LocalInstance,
    ) -> Result<Attempt, EngineError> {
        let source =
            ImageSource { id: instance.id.clone(), name: instance.document.metadata.name.clone() };
        let create = &request.create;
        self.begin_attempt(home, &request.name, id, create.kind, source, &create.labels)
    }

    /// Writes down that an image is being made. The caller holds the lock of its name.
    pub(super) fn begin_attempt(
        &self,
        home: &Home,
        name: &str,
        id: Option<&str>,
        kind: ImageKind,
        source: ImageSource,
        labels: &BTreeMap<String, String>,
    ) -> Result<Attempt, EngineError> {
        self.clear_after(self.attempts.read(name)?.as_ref())?;
        let attempt = Attempt {
            id: id.map_or_else(new_id, |id| Ok(id.to_owned()))?,
            name: name.to_owned(),
            kind,
            source,
            began_at: self.clock.now(),
            location: home.location.clone(),
            kms_key: home.key.clone(),
            labels: labels.clone(),
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
    ) -> Result<Created, CaptureError> {
        let disks = disk::OpenDisks::open(&instance, &request.create.disks)?;
        let mut manifest =
            Manifest::new(&request.name, instance.id.clone(), instance.document, attempt.began_at);
        manifest.excluded_disks.clone_from(&request.create.excluded_disks);
        let draft = capture::capture(home, &self.keys, manifest, &disks, watcher)?;
        self.publish_new(request, home, attempt, draft)
    }

    /// Makes an image of the draft of an attempt.
    pub(super) fn publish_new(
        &self,
        request: &CreateRequest,
        home: &Home,
        attempt: &Attempt,
        draft: Draft,
    ) -> Result<Created, CaptureError> {
        let mut record = Record::new(
            attempt.id.clone(),
            request.create.kind,
            attempt.source.clone(),
            self.clock.now(),
        );
        record.added_by_disk.clone_from(&draft.added_by_disk);
        record.description =
            signed(request.by.as_ref(), &request.create.description, DESCRIPTION_MAX);
        record.labels.clone_from(&request.create.labels);
        record.total_storage_bytes = draft.added_bytes;
        record.disk_bytes = draft.disk_bytes;
        self.publish(home, draft, &record)
    }

    /// Makes an image of a draft, unless a run over another store has made it meanwhile.
    pub(super) fn publish(
        &self,
        home: &Home,
        draft: Draft,
        record: &Record,
    ) -> Result<Created, CaptureError> {
        let opened = home.open(&self.keys)?;
        let _lock = home.lock()?;
        let name = draft.snapshot.label.clone();
        if let Some(stored) = opened.named(&name)? {
            home.mark_dirty()?;
            let by = Author::read(&stored.record.description);
            return Ok(Created::Found { image: image_of(home, &stored), by });
        }
        opened.publish(draft.snapshot, record)?;
        Ok(Created::Made(record.image(&name, &home.location, &home.key)))
    }

    pub(super) fn update(&self, image: &ImageRef, update: &Update) -> Result<Image, EngineError> {
        let (_lock, opened, stored) = match self.find_bound(image) {
            // Another run has done the same.
            Err(EngineError::Changed) => return self.found_updated(image, update),
            found => found?,
        };
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

    /// The image, if it already is as an update would make it.
    fn found_updated(&self, image: &ImageRef, update: &Update) -> Result<Image, EngineError> {
        let id = image.id.as_deref().ok_or(EngineError::NotFound)?;
        let found = self.find(id)?;
        let record = &found.stored.record;
        let is_done = found.stored.snapshot.label == image.name
            && record.stage == update.stage_after
            && update.remove_labels.iter().all(|label| !record.labels.contains_key(label))
            && update
                .set_labels
                .iter()
                .all(|(label, value)| record.labels.get(label) == Some(value));
        if is_done {
            Ok(image_of(&found.opened.home, &found.stored))
        } else {
            Err(EngineError::Changed)
        }
    }

    pub(super) fn delete(&self, image: &ImageRef) -> Result<(), EngineError> {
        let (_lock, opened, stored) = match self.find_bound(image) {
            Err(error) => {
                // What never became READY is an attempt, and that alone.
                return match self.attempts.read(&image.name)? {
                    Some(attempt) if Some(&attempt.id) == image.id.as_ref() => {
                        self.forget(&attempt)
                    }
                    _ => Err(error),
                };
            }
            Ok(found) => found,
        };
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
        self.clear_scratch()?;
        for home in self.homes().0.into_iter().filter(Home::is_dirty) {
            let mut postpone = |why: &str| {
                settled.postponed.push(format!("{}: no space is given back: {why}", home.label()));
            };
            let Some(_alone) = home.try_own_data()? else {
                postpone("another run is at work, and does it at its end");
                continue;
            };
            if home.is_locked_by_restic() {
                postpone(
                    "the restic program has locked the repository; `restic unlock` removes what a killed one left",
                );
                continue;
            }
            let opened = home.open(&self.keys)?;
            // What seems to be needed by nobody may belong to what is missing.
            if let Some(error) = opened.images()?.damaged.first() {
                postpone(&error.to_string());
                continue;
            }
            let lost = opened.holdings()?.lost();
            if lost > 0 {
                postpone(&format!("{lost} packs are missing or cut short"));
                continue;
            }
            let _lock = home.lock()?;
            opened.remove_stale_generations()?;
            settled.freed_bytes += opened.prune()?;
            home.mark_clean()?;
        }
        Ok(settled)
    }
}

/// A random number, never zero, as text: ids look like those of Compute Engine.
pub(super) fn new_id() -> Result<String, KeyError> {
    let bytes: [u8; 8] = random()?;
    Ok((u64::from_be_bytes(bytes) >> 1).max(1).to_string())
}
