//! Copies: an image of one location stored in another, where it stands by itself.
//!
//! Only pieces that the other repository does not hold are read and written. As with a capture, the
//! data comes first, is looked at, and only then is the snapshot file written that makes it an
//! image: there are whole copies or none.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustic_core::repofile::{SnapshotFile, SnapshotId};
use rustic_core::{Progress as Bar, ProgressBars, ProgressType, RusticProgress};

use super::attempt::Attempt;
use super::capture::{CaptureError, Draft, check_whole, disk_nodes};
use super::home::Home;
use super::observe::Found;
use super::record::Record;
use super::repository::describe;
use super::settings::DESCRIPTION_MAX;
use super::{Inner, restore, share};
use crate::engine::author::signed;
use crate::engine::{Author, CopyRequest, Created, EngineError, Progress, Watcher};

impl Inner {
    /// Copies an image; `None` where another run is at it.
    pub(super) fn copy(
        &self,
        request: &CopyRequest,
        watcher: &Arc<dyn Watcher>,
    ) -> Result<Option<Created>, EngineError> {
        if watcher.is_cancelled() {
            return Err(EngineError::Interrupted);
        }
        let copy = &request.copy;
        let home = self.target(&copy.location, copy.kms_key.as_deref())?;
        let _data = home.share_data()?;
        // Held until the end: nothing of the original goes while it is read.
        let original = self.find_unchanged(&request.image);
        let Some(_name) = self.attempts.try_lock(&copy.name)? else { return Ok(None) };
        let images = home.open_or_make(&self.keys)?.images()?.images;
        if let Some(found) = self.found(&home, images, &copy.name, &request.key, true)? {
            return Ok(Some(found));
        }
        let original = original?;
        if original.opened.home.location == home.location {
            return Err(EngineError::Refused(format!(
                "{} is stored in {} already: a copy beside it would protect from nothing",
                request.image.name, home.location
            )));
        }
        let record = &original.stored.record;
        let attempt = self.begin_attempt(
            &home,
            &copy.name,
            None,
            record.kind,
            record.source.clone(),
            &copy.labels,
        )?;
        let made = self.make_copy(&original, &home, &attempt, request.by.as_ref(), watcher);
        self.conclude(&home, attempt, made).map(Some)
    }

    fn make_copy(
        &self,
        original: &Found,
        home: &Home,
        attempt: &Attempt,
        by: Option<&Author>,
        watcher: &Arc<dyn Watcher>,
    ) -> Result<Created, CaptureError> {
        let draft = self.transfer(original, home, &attempt.name, watcher)?;
        let mut record = Record::new(
            attempt.id.clone(),
            attempt.kind,
            attempt.source.clone(),
            original.stored.record.created_at,
        );
        let description = Author::without(&original.stored.record.description);
        record.description = signed(by, description, DESCRIPTION_MAX);
        record.labels.clone_from(&attempt.labels);
        record.total_storage_bytes = draft.added_bytes;
        record.disk_bytes = draft.disk_bytes;
        record.added_by_disk.clone_from(&draft.added_by_disk);
        self.publish(home, draft, &record)
    }

    /// Stores in `home` what it does not hold of an image, and looks whether all of it is there.
    fn transfer(
        &self,
        original: &Found,
        home: &Home,
        name: &str,
        watcher: &Arc<dyn Watcher>,
    ) -> Result<Draft, CaptureError> {
        let source = &original.opened.home;
        let reader = source.open_until_cancelled(&self.keys, Arc::clone(watcher))?.to_reader()?;
        let manifest = restore::manifest(&reader, &original.stored).map_err(CaptureError::Copy)?;
        let meter = Meter::new(watcher);
        let before = home.open(&self.keys)?.packs()?;
        let writer = home.open_for_copies(&self.keys, meter.clone())?.to_writer()?;
        let snapshot = SnapshotFile {
            id: SnapshotId::default(),
            parent: None,
            parents: Vec::new(),
            label: name.to_owned(),
            ..original.stored.snapshot.clone()
        };
        let copied = reader.copy(&writer, [&snapshot]);
        if watcher.is_cancelled() {
            return Err(CaptureError::Interrupted);
        }
        // Whichever of the two repositories it was, the message names the file.
        copied.map_err(|error| CaptureError::Copy(describe(&error)))?;
        drop((reader, writer));
        let holdings = home.open(&self.keys)?.holdings()?;
        let written = home.open(&self.keys)?.to_writer()?;
        check_whole(&written, &snapshot, &manifest, &holdings)?;
        let stored = home.open(&self.keys)?.stored_since(&before)?;
        let nodes = disk_nodes(&written, &snapshot, &manifest).map_err(CaptureError::Copy)?;
        let names = manifest.disks.iter().map(|disk| disk.device_name.as_str());
        Ok(Draft {
            added_by_disk: share::by_disk(names.zip(&nodes), stored),
            added_bytes: meter.done(),
            disk_bytes: original.stored.record.disk_bytes,
            snapshot,
        })
    }
}

/// Tells a watcher of what `rustic_core` copies.
#[derive(Clone)]
struct Meter(Arc<Metered>);

struct Metered {
    watcher: Arc<dyn Watcher>,
    done: AtomicU64,
    total: AtomicU64,
}

impl Meter {
    fn new(watcher: &Arc<dyn Watcher>) -> Self {
        let (done, total) = (AtomicU64::new(0), AtomicU64::new(0));
        Self(Arc::new(Metered { watcher: Arc::clone(watcher), done, total }))
    }

    /// Bytes that were stored, as they lie in packs.
    fn done(&self) -> u64 {
        self.0.done.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Meter({})", self.done())
    }
}

impl ProgressBars for Meter {
    fn progress(&self, kind: ProgressType, _: &str) -> Bar {
        match kind {
            // The data, then the trees.
            ProgressType::Bytes => Bar::new(self.clone()),
            ProgressType::Spinner | ProgressType::Counter => Bar::hidden(),
        }
    }
}

impl RusticProgress for Meter {
    fn is_hidden(&self) -> bool {
        false
    }

    fn set_length(&self, length: u64) {
        self.0.total.fetch_add(length, Ordering::Relaxed);
    }

    fn set_title(&self, _: &str) {}

    fn inc(&self, bytes: u64) {
        let done = self.0.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let total = self.0.total.load(Ordering::Relaxed);
        self.0.watcher.progress(Progress { done, total });
    }

    fn finish(&self) {}
}
