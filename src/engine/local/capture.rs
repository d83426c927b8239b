//! A capture: all chosen disks and the configuration of an instance into one image.
//!
//! The data is written first, then looked at again, and only then is the image published: one
//! snapshot file, whole or not there. Whatever happens before leaves data that no image needs,
//! which the end of a later round clears away.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustic_core::repofile::{Metadata, Node, NodeType, SnapshotFile};
use rustic_core::{
    BackupOptions, BlobId, IndexedIdsStatus, IndexedTree, ReadSource, ReadSourceEntry, Repository,
    RusticResult,
};

use super::disk::{DiskBytes, DiskError, OpenDisk, OpenDisks};
use super::home::Home;
use super::key::KeyService;
use super::record::{CapturedDisk, MANIFEST_FILE, Manifest};
use super::repository::{CHUNK_BYTES, HOST, Holdings, RepositoryError, describe};
use super::share;
use crate::engine::{Progress, Watcher};

/// Why a capture came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// A disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// A disk could not be read to its end.
    #[error("disk {disk}: reading failed: {source}")]
    Read {
        /// The device name.
        disk: String,
        /// Why.
        source: io::Error,
    },
    /// The image could not be copied.
    #[error("copying failed: {0}")]
    Copy(String),
    /// What was stored is not what was read.
    #[error("the stored image is not whole: {0}")]
    NotWhole(String),
    /// The run was interrupted.
    #[error("interrupted")]
    Interrupted,
}

/// Data that was stored and looked at, and is not published yet.
#[derive(Debug)]
pub struct Draft {
    /// The snapshot that will make it an image.
    pub snapshot: SnapshotFile,
    /// Bytes it added to the repository.
    pub added_bytes: u64,
    /// Bytes of its disks.
    pub disk_bytes: u64,
    /// Bytes that each disk added.
    pub added_by_disk: BTreeMap<String, u64>,
}

/// Stores disks and manifest. The repository exists already.
pub fn capture(
    home: &Home,
    keys: &dyn KeyService,
    mut manifest: Manifest,
    disks: &OpenDisks,
    watcher: &Arc<dyn Watcher>,
) -> Result<Draft, CaptureError> {
    manifest.disks = disks.disks.iter().map(captured).collect();
    let disk_bytes = disks.total();
    let state = Arc::new(State {
        watcher: Arc::clone(watcher),
        total: disk_bytes,
        done: AtomicU64::new(0),
        failure: Mutex::new(None),
    });
    let directory = PathBuf::from(format!("/{}", manifest.instance.metadata.name));
    let source = Source { entries: entries(&directory, &manifest, disks, &state)? };
    let before = home.open(keys)?.packs()?;
    let repository = home.open_for_data(keys)?.to_writer()?;
    let mut options = BackupOptions::default();
    // Every byte is read: times of files say nothing about block devices and little about disks.
    options.parent_opts.force = true;
    options.no_scan = true;
    let snapshot = new_snapshot(&manifest);
    let archived = repository.archive(&options, &source, snapshot, &[directory]);
    if let Some(failure) = state.take_failure() {
        return Err(failure);
    }
    let snapshot = archived.map_err(|error| RepositoryError::Repository {
        path: home.path.clone(),
        message: describe(&error),
    })?;
    disks.check()?;
    drop(repository);
    let holdings = home.open(keys)?.holdings()?;
    let repository = home.open(keys)?.to_writer()?;
    check_whole(&repository, &snapshot, &manifest, &holdings)?;
    let added_bytes = snapshot.summary.as_ref().map_or(0, |summary| summary.data_added_packed);
    let stored = home.open(keys)?.stored_since(&before)?;
    let nodes = disk_nodes(&repository, &snapshot, &manifest).map_err(CaptureError::NotWhole)?;
    let names = manifest.disks.iter().map(|disk| disk.device_name.as_str());
    let added_by_disk = share::by_disk(names.zip(&nodes), stored);
    Ok(Draft { snapshot, added_bytes, disk_bytes, added_by_disk })
}

fn captured(disk: &OpenDisk) -> CapturedDisk {
    CapturedDisk {
        device_name: disk.spec.device_name.clone(),
        file: format!("{}.raw", disk.spec.device_name),
        format: disk.spec.format(),
        size_bytes: disk.size,
        boot: disk.spec.boot,
        point_in_time: disk.point_in_time,
    }
}

fn new_snapshot(manifest: &Manifest) -> SnapshotFile {
    SnapshotFile {
        time: manifest.captured_at.to_zoned(TimeZone::UTC),
        label: manifest.name.clone(),
        hostname: HOST.to_owned(),
        program_version: manifest.made_by.clone(),
        ..SnapshotFile::default()
    }
}

/// `rustic_core` logs what it could not store and goes on; what is in the repository decides.
pub fn check_whole(
    repository: &Repository<IndexedIdsStatus>,
    snapshot: &SnapshotFile,
    manifest: &Manifest,
    holdings: &Holdings,
) -> Result<(), CaptureError> {
    let not_whole = |message: String| CaptureError::NotWhole(message);
    if holdings.lost() > 0 {
        return Err(not_whole(format!(
            "{} packs of the repository are missing or cut short",
            holdings.lost()
        )));
    }
    let path = Path::new(&manifest.instance.metadata.name).join(MANIFEST_FILE);
    let record = repository
        .node_from_path(snapshot.tree, &path)
        .map_err(|error| not_whole(format!("{MANIFEST_FILE}: {}", describe(&error))))?;
    let is_stored =
        |node: &Node| node.content.iter().flatten().all(|id| holdings.has(&BlobId::from(*id)));
    if !is_stored(&record) {
        return Err(not_whole(format!("{MANIFEST_FILE} is not in the repository")));
    }
    let nodes = disk_nodes(repository, snapshot, manifest).map_err(not_whole)?;
    for (disk, node) in manifest.disks.iter().zip(nodes) {
        let pieces = node.content.as_ref().map_or(0, Vec::len) as u64;
        if pieces != disk.size_bytes.div_ceil(CHUNK_BYTES as u64) {
            return Err(not_whole(format!(
                "disk {} has {pieces} pieces of {} bytes",
                disk.device_name, disk.size_bytes
            )));
        }
        if !is_stored(&node) {
            return Err(not_whole(format!(
                "pieces of disk {} are not in the repository",
                disk.device_name
            )));
        }
    }
    Ok(())
}

/// The nodes of all disks of an image, in the order of its manifest.
pub fn disk_nodes<S: IndexedTree>(
    repository: &Repository<S>,
    snapshot: &SnapshotFile,
    manifest: &Manifest,
) -> Result<Vec<Node>, String> {
    let directory = Path::new(&manifest.instance.metadata.name);
    manifest
        .disks
        .iter()
        .map(|disk| {
            repository
                .node_from_path(snapshot.tree, &directory.join(&disk.file))
                .map_err(|error| format!("disk {}: {}", disk.device_name, describe(&error)))
        })
        .collect()
}

/// What the reading threads share.
struct State {
    watcher: Arc<dyn Watcher>,
    total: u64,
    done: AtomicU64,
    failure: Mutex<Option<CaptureError>>,
}

impl State {
    fn fail(&self, failure: CaptureError) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
    }

    fn take_failure(&self) -> Option<CaptureError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn has_failed(&self) -> bool {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn advance(&self, bytes: usize) {
        let done = self.done.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        self.watcher.progress(Progress { done, total: self.total });
    }
}

type Entry = ReadSourceEntry<EntryReader>;

/// All files of an image, in the order of their names, which is how restic keeps a tree.
fn entries(
    directory: &Path,
    manifest: &Manifest,
    disks: &OpenDisks,
    state: &Arc<State>,
) -> Result<Vec<Entry>, CaptureError> {
    let bytes = serde_json::to_vec_pretty(manifest)
        .map_err(|error| CaptureError::NotWhole(error.to_string()))?;
    let mut entries = vec![entry(
        directory,
        MANIFEST_FILE,
        bytes.len() as u64,
        manifest.captured_at,
        EntryReader::Memory(Cursor::new(bytes)),
    )];
    for (disk, captured) in disks.disks.iter().zip(&manifest.disks) {
        let reader = DiskReader {
            name: captured.device_name.clone(),
            bytes: Arc::clone(&disk.bytes),
            size: disk.size,
            position: 0,
            data_from: 0,
            state: Arc::clone(state),
        };
        entries.push(entry(
            directory,
            &captured.file,
            disk.size,
            manifest.captured_at,
            EntryReader::Disk(reader),
        ));
    }
    entries.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(entries)
}

fn entry(directory: &Path, name: &str, size: u64, time: Timestamp, open: EntryReader) -> Entry {
    let metadata = Metadata {
        mode: Some(0o600),
        size,
        mtime: Some(time),
        ctime: Some(time),
        ..Metadata::default()
    };
    let node = Node::new_node(name.as_ref(), NodeType::File, metadata);
    ReadSourceEntry { path: directory.join(name), node, open: Some(open) }
}

/// What `rustic_core` archives.
struct Source {
    entries: Vec<Entry>,
}

impl ReadSource for Source {
    type Open = EntryReader;
    type Iter = std::vec::IntoIter<RusticResult<Entry>>;

    fn size(&self) -> RusticResult<Option<u64>> {
        Ok(None)
    }

    fn entries(&self) -> Self::Iter {
        self.entries.iter().cloned().map(Ok).collect::<Vec<_>>().into_iter()
    }
}

/// The bytes of one file of an image.
#[derive(Clone)]
enum EntryReader {
    Memory(Cursor<Vec<u8>>),
    Disk(DiskReader),
}

impl Read for EntryReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Memory(cursor) => cursor.read(buffer),
            Self::Disk(disk) => disk.read(buffer),
        }
    }
}

/// Reads a disk from its beginning to its end; holes are not read.
#[derive(Clone)]
struct DiskReader {
    name: String,
    bytes: Arc<dyn DiskBytes>,
    size: u64,
    position: u64,
    /// Bytes before this that lie at or after `position` are zero.
    data_from: u64,
    state: Arc<State>,
}

impl DiskReader {
    fn read_next(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.size - self.position;
        let mut length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        if length == 0 {
            return Ok(0);
        }
        if self.data_from <= self.position {
            self.data_from = self.bytes.next_data(self.position)?.unwrap_or(self.size);
        }
        let hole = self.data_from.saturating_sub(self.position);
        if hole > 0 {
            length = length.min(usize::try_from(hole).unwrap_or(usize::MAX));
            buffer[..length].fill(0);
        } else {
            self.bytes.read_at(&mut buffer[..length], self.position)?;
        }
        self.position += length as u64;
        self.state.advance(length);
        Ok(length)
    }
}

impl Read for DiskReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let stop = || io::Error::other("stopped");
        if self.state.watcher.is_cancelled() {
            self.state.fail(CaptureError::Interrupted);
        }
        if self.state.has_failed() {
            return Err(stop());
        }
        self.read_next(buffer).map_err(|source| {
            self.state.fail(CaptureError::Read { disk: self.name.clone(), source });
            stop()
        })
    }
}
