//! One restic repository: the images of one storage location under one key.
//!
//! `rustic_core` reads and writes it. The data key is random, wrapped by the key service, and lies
//! beside the repository; the repository itself is an ordinary one that the `restic` program can
//! open once a password has been added.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use rustic_core::repofile::SnapshotFile;
use rustic_core::{
    FileType, IndexedFullStatus, IndexedIdsStatus, KeyOptions, LimitOption, OpenStatus,
    PruneOptions, ReadBackend, Repository, RusticError,
};

use super::home::Home;
use super::key::KeyError;
use super::lock::{self, LockError};
use super::objects::{ObjectDirectory, TEMPORARY};
use super::record::Record;

/// Disks are cut into pieces of this size; equal pieces are stored once.
pub const CHUNK_BYTES: usize = 1 << 20;
/// So much of a repository may be unused after space was given back; less means rewriting packs
/// for little.
const UNUSED_PERCENT: u64 = 5;

/// Why a repository could not be used.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// Its key could not be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It was there before and is not now.
    #[error(
        "the repository {} was here before and is missing: is its disk mounted? If it is gone for good, remove {}",
        path.display(), mark.display()
    )]
    Vanished {
        /// Where it was.
        path: PathBuf,
        /// What remembers it.
        mark: PathBuf,
    },
    /// A file beside it could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file beside it is not what it should be.
    #[error("{} is damaged: {message}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The repository itself.
    #[error("repository {}: {message}", path.display())]
    Repository {
        /// The repository.
        path: PathBuf,
        /// What went wrong.
        message: String,
    },
    /// A lock could not be taken.
    #[error(transparent)]
    Lock(#[from] LockError),
}

/// A repository that is open.
pub struct Opened {
    /// Where it is.
    pub home: Home,
    repository: Repository<OpenStatus>,
}

/// A snapshot of ours.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its snapshot file.
    pub snapshot: SnapshotFile,
    /// The record in it.
    pub record: Record,
}

impl Opened {
    /// An open repository.
    pub(super) fn new(home: Home, repository: Repository<OpenStatus>) -> Self {
        Self { home, repository }
    }

    /// Reads all images. A snapshot file that cannot be read is an error, never a shorter list;
    /// nobody changes one meanwhile.
    pub fn images(&self) -> Result<Vec<Stored>, RepositoryError> {
        let _lock = lock::shared_if_there(&self.home.lock_file())?;
        self.newest_generations()
    }

    /// The present generation of an image. The caller holds the lock of the home.
    pub fn newest_generation(&self, id: &str) -> Result<Option<Stored>, RepositoryError> {
        Ok(self.generations(id)?.pop())
    }

    fn newest_generations(&self) -> Result<Vec<Stored>, RepositoryError> {
        let mut newest = self.all_generations()?;
        newest.sort_by(|one, other| {
            (&one.record.id, other.record.generation)
                .cmp(&(&other.record.id, one.record.generation))
        });
        newest.dedup_by(|later, first| later.record.id == first.record.id);
        Ok(newest)
    }

    fn all_generations(&self) -> Result<Vec<Stored>, RepositoryError> {
        let mut found = Vec::new();
        let files = self
            .repository
            .stream_files::<SnapshotFile>()
            .map_err(|error| self.home.error(&error))?;
        for file in files {
            let (id, mut snapshot) = file.map_err(|error| self.home.error(&error))?;
            snapshot.id = id;
            if let Some(record) = Record::of(&snapshot) {
                found.push(Stored { snapshot, record });
            }
        }
        Ok(found)
    }

    /// Publishes an image; from here on it is READY. The caller holds the lock of the home.
    pub fn publish(
        &self,
        mut snapshot: SnapshotFile,
        record: &Record,
    ) -> Result<(), RepositoryError> {
        record.write(&mut snapshot).map_err(|error| self.home.damaged_key(&error))?;
        self.repository.save_snapshots(vec![snapshot]).map_err(|error| self.home.error(&error))
    }

    /// Writes the next generation of a record, then removes the ones before it. The caller holds
    /// the lock of the home.
    pub fn replace(&self, id: &str, record: &Record) -> Result<(), RepositoryError> {
        let mut generations = self.generations(id)?;
        if let Some(newest) = generations.pop() {
            self.publish(newest.snapshot.clone(), record)?;
            generations.push(newest);
        }
        self.remove_files(&generations)
    }

    /// Removes an image, the newest generation last. The caller holds the lock of the home.
    pub fn remove(&self, id: &str) -> Result<(), RepositoryError> {
        self.remove_files(&self.generations(id)?)
    }

    /// Removes generations that an interrupted change has left behind. The caller holds the lock.
    pub fn remove_stale_generations(&self) -> Result<(), RepositoryError> {
        let current: BTreeSet<_> =
            self.newest_generations()?.into_iter().map(|stored| stored.snapshot.id).collect();
        let stale: Vec<Stored> = self
            .all_generations()?
            .into_iter()
            .filter(|stored| !current.contains(&stored.snapshot.id))
            .collect();
        self.remove_files(&stale)
    }

    /// All snapshot files of an image, the newest last.
    fn generations(&self, id: &str) -> Result<Vec<Stored>, RepositoryError> {
        let mut all = self.all_generations()?;
        all.retain(|stored| stored.record.id == id);
        all.sort_by_key(|stored| stored.record.generation);
        Ok(all)
    }

    fn remove_files(&self, stored: &[Stored]) -> Result<(), RepositoryError> {
        stored.iter().try_for_each(|one| {
            self.repository
                .delete_snapshots(&[one.snapshot.id])
                .map_err(|error| self.home.error(&error))
        })
    }

    /// Gives back the space of everything that no image needs. The caller has made sure that
    /// nobody else uses the repository. Returns the bytes that were given back.
    pub fn prune(&self) -> Result<u64, RepositoryError> {
        let before = self.pack_bytes()?;
        let mut options = PruneOptions::default();
        options.instant_delete = true;
        options.max_repack = LimitOption::Unlimited;
        options.max_unused = LimitOption::Percentage(UNUSED_PERCENT);
        let plan = self.repository.prune_plan(&options).map_err(|error| self.home.error(&error))?;
        self.repository.prune(&options, plan).map_err(|error| self.home.error(&error))?;
        let temporary = self.home.path.join(TEMPORARY);
        for entry in fs::read_dir(&temporary).into_iter().flatten().flatten() {
            // What a killed process was writing; whatever cannot be removed now is next time.
            let _ = fs::remove_file(entry.path());
        }
        Ok(before.saturating_sub(self.pack_bytes()?))
    }

    /// Bytes of all packs.
    pub fn pack_bytes(&self) -> Result<u64, RepositoryError> {
        let packs = ObjectDirectory::new(self.home.path.clone())
            .list_with_size(FileType::Pack)
            .map_err(|error| self.home.error(&error))?;
        Ok(packs.into_iter().map(|(_, size)| u64::from(size)).sum())
    }

    /// Adds a password, with which other programs can open the repository.
    pub fn add_password(&self, password: &str) -> Result<(), RepositoryError> {
        self.repository
            .add_key(password, &KeyOptions::default())
            .map(|_| ())
            .map_err(|error| self.home.error(&error))
    }

    /// Loads what is needed to write data.
    pub fn to_writer(self) -> Result<Repository<IndexedIdsStatus>, RepositoryError> {
        let home = self.home;
        self.repository.to_indexed_ids().map_err(|error| home.error(&error))
    }

    /// Loads what is needed to read data.
    pub fn to_reader(self) -> Result<Repository<IndexedFullStatus>, RepositoryError> {
        let home = self.home;
        self.repository.to_indexed().map_err(|error| home.error(&error))
    }
}

/// A message of `rustic_core` in one line, with its cause.
pub fn describe(error: &RusticError) -> String {
    let text = error.display_log();
    let text = text.strip_prefix("Error: ").unwrap_or(&text);
    match (text.find(" (kind: "), text.find("): caused by: ")) {
        (Some(kind), Some(cause)) if kind < cause => {
            format!("{}: {}", &text[..kind], &text[cause + "): caused by: ".len()..])
        }
        (Some(kind), _) => text[..kind].to_owned(),
        _ => text.to_owned(),
    }
}
