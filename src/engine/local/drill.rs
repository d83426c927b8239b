//! Drills: an image is proven restorable by reading it back, or by restoring it.
//!
//! A restore is tried into a scratch directory of the store, which nobody else can read and which is
//! gone when the drill has ended. What was written is read again and held against the digests that
//! the image records. What a killed drill has left is cleared away at the end of the next round.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustic_core::repofile::Node;
use rustic_core::{BlobId, DataId};
use sha2::{Digest, Sha256};

use super::capture::disk_nodes;
use super::observe::Found;
use super::record::CapturedDisk;
use super::repository::{CHUNK_BYTES, RepositoryError};
use super::restore::{self, for_each_piece};
use super::{Inner, lock};
use crate::engine::{EngineError, Progress, RestoreRequest, Restored, Watcher};
use crate::inventory::DrillCheck;
use crate::plan::ImageRef;

impl Inner {
    /// Tries an image; what is in the way of restoring it is the error.
    pub(super) fn drill(
        &self,
        image: &ImageRef,
        check: DrillCheck,
        watcher: &Arc<dyn Watcher>,
    ) -> Result<(), EngineError> {
        if watcher.is_cancelled() {
            return Err(EngineError::Interrupted);
        }
        let found = self.find_unchanged(image)?;
        let tried = match check {
            DrillCheck::Verify => try_reading(found, watcher.as_ref()),
            DrillCheck::Restore => self.try_restoring(found, watcher),
            DrillCheck::Boot => {
                Err(EngineError::Refused("this engine starts no machines".to_owned()))
            }
        };
        // Whatever was said of what was broken off, it says nothing about the image.
        if watcher.is_cancelled() { Err(EngineError::Interrupted) } else { tried }
    }

    fn try_restoring(&self, found: Found, watcher: &Arc<dyn Watcher>) -> Result<(), EngineError> {
        let Found { opened, stored, data: _data } = found;
        let reader = opened.to_reader()?;
        let failed = |message: String| EngineError::Failed(message);
        let manifest = restore::manifest(&reader, &stored).map_err(failed)?;
        let nodes = disk_nodes(&reader, &stored.snapshot, &manifest).map_err(failed)?;
        let disks: Vec<_> = manifest.disks.iter().zip(&nodes).collect();
        let _lock = lock::shared(&self.scratch_lock()).map_err(RepositoryError::from)?;
        let scratch = self.scratch();
        let in_scratch = |source| RepositoryError::File { path: scratch.clone(), source };
        fs::create_dir_all(&scratch).map_err(in_scratch)?;
        check_space(&scratch, disks.iter().map(|(disk, node)| needed(disk, node)).sum())?;
        // Gone with everything in it, however this ends.
        let directory = tempfile::tempdir_in(&scratch).map_err(in_scratch)?;
        let request = RestoreRequest {
            image: stored.record.id.clone(),
            to: directory.path().to_owned(),
            disks: Vec::new(),
            name: None,
            machine_type: None,
            labels: BTreeMap::new(),
            overwrite: false,
            qcow2: false,
        };
        let written = Half { watcher: watcher.as_ref(), is_second: false };
        let restored = restore::restore(&reader, &stored, &request, &written)?;
        check_written(&disks, &restored, watcher.as_ref())
    }

    /// Clears away what killed drills have left, if nobody is at one.
    pub(super) fn clear_scratch(&self) -> Result<(), EngineError> {
        let scratch = self.scratch();
        if !scratch.exists() {
            return Ok(());
        }
        let lock = lock::try_exclusive(&self.scratch_lock()).map_err(RepositoryError::from)?;
        let Some(_alone) = lock else { return Ok(()) };
        match fs::remove_dir_all(&scratch) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                Err(RepositoryError::File { path: scratch, source }.into())
            }
            _ => Ok(()),
        }
    }

    fn scratch(&self) -> PathBuf {
        self.paths.store.join("scratch")
    }

    /// Shared by drills, owned by who clears up after them.
    fn scratch_lock(&self) -> PathBuf {
        self.paths.store.join("scratch.lock")
    }
}

fn try_reading(found: Found, watcher: &dyn Watcher) -> Result<(), EngineError> {
    let Found { opened, stored, data: _data } = found;
    let verified = restore::verify(&opened.to_reader()?, &[stored], watcher);
    let damage: Vec<String> = verified.into_iter().flat_map(|one| one.damage).collect();
    match damage.as_slice() {
        [] => Ok(()),
        [one] => Err(EngineError::Failed(one.clone())),
        [first, rest @ ..] => {
            Err(EngineError::Failed(format!("{first}; and {} more places", rest.len())))
        }
    }
}

/// Bytes that a restored disk takes: pieces that are all zero are not written.
fn needed(disk: &CapturedDisk, node: &Node) -> u64 {
    let zero = data_encoding::HEXLOWER.encode(&Sha256::digest(vec![0; CHUNK_BYTES]));
    let pieces = node.content.iter().flatten().enumerate();
    pieces
        .filter(|(_, id)| BlobId::from(**id).to_hex().as_str() != zero)
        .map(|(position, _)| piece_bytes(disk, position))
        .sum()
}

fn piece_bytes(disk: &CapturedDisk, position: usize) -> u64 {
    let offset = position as u64 * CHUNK_BYTES as u64;
    disk.size_bytes.saturating_sub(offset).min(CHUNK_BYTES as u64)
}

/// Refuses what does not fit. Where free space cannot be asked for, writing finds out.
fn check_space(scratch: &Path, needed: u64) -> Result<(), EngineError> {
    let Ok(space) = rustix::fs::statvfs(scratch) else { return Ok(()) };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    if needed <= free {
        return Ok(());
    }
    // That says nothing about the image.
    Err(EngineError::Refused(format!(
        "not tried: {} has {free} bytes free and its disks need {needed}",
        scratch.display()
    )))
}

/// Holds what was written against the digests that the image records.
fn check_written(
    disks: &[(&CapturedDisk, &Node)],
    restored: &Restored,
    watcher: &dyn Watcher,
) -> Result<(), EngineError> {
    let half = Half { watcher, is_second: true };
    let total = disks.iter().map(|(disk, _)| disk.size_bytes).sum();
    let done = AtomicU64::new(0);
    for ((disk, node), written) in disks.iter().zip(&restored.disks) {
        let wrong = |message: String| {
            EngineError::Failed(format!("restored disk {}: {message}", disk.device_name))
        };
        let file = File::open(&written.path).map_err(|error| wrong(error.to_string()))?;
        let size = file.metadata().map_err(|error| wrong(error.to_string()))?.len();
        if size != disk.size_bytes {
            return Err(wrong(format!("it has {size} bytes instead of {}", disk.size_bytes)));
        }
        let pieces: Vec<&DataId> = node.content.iter().flatten().collect();
        let checked = for_each_piece(&pieces, watcher, |position, id| {
            let bytes = piece_bytes(disk, position);
            let offset = position as u64 * CHUNK_BYTES as u64;
            let mut buffer = vec![0; usize::try_from(bytes).unwrap_or(CHUNK_BYTES)];
            file.read_exact_at(&mut buffer, offset).map_err(|error| error.to_string())?;
            let found = data_encoding::HEXLOWER.encode(&Sha256::digest(&buffer));
            if found != BlobId::from(*id).to_hex().as_str() {
                return Err(format!("other bytes than the image records at byte {offset}"));
            }
            let done = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
            half.progress(Progress { done, total });
            Ok(())
        });
        checked.map_err(wrong)?;
    }
    Ok(())
}

/// One half of the work: everything is written, then everything is read again.
struct Half<'a> {
    watcher: &'a dyn Watcher,
    is_second: bool,
}

impl Watcher for Half<'_> {
    fn progress(&self, progress: Progress) {
        let done = if self.is_second { progress.total + progress.done } else { progress.done };
        self.watcher.progress(Progress { done, total: 2 * progress.total });
    }

    fn is_cancelled(&self) -> bool {
        self.watcher.is_cancelled()
    }
}
