//! One restic repository: the images of one storage location under one key.
//!
//! `rustic_core` reads and writes it. The data key is random, wrapped by the key service, and lies
//! beside the repository; the repository itself is an ordinary one that the `restic` program can
//! open once a password has been added.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use rustic_core::repofile::{IndexFile, SnapshotFile, SnapshotId};
use rustic_core::{
    BlobId, FileType, Id, IndexedFullStatus, IndexedIdsStatus, KeyOptions, LimitOption, OpenStatus,
    PruneOptions, ReadBackend, RepairIndexOptions, Repository, RusticError,
};

use super::home::Home;
use super::key::KeyError;
use super::lock::{self, LockError};
use super::objects::{ObjectDirectory, TEMPORARY};
use super::record::Record;

/// The host that snapshots of ours name.
pub const HOST: &str = "stillframe";
/// Disks are cut into pieces of this size; equal pieces are stored once.
pub const CHUNK_BYTES: usize = 1 << 20;
/// Where packs that are cut short are put aside.
const DAMAGED: &str = "damaged";
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
    /// It is there, but not the file that holds its wrapped data key.
    #[error(
        "the repository {} is there, but not its data key {}: put that file back from a copy, nothing else opens these images",
        path.display(), key_file.display()
    )]
    NoDataKey {
        /// The repository.
        path: PathBuf,
        /// The file that is missing.
        key_file: PathBuf,
    },
    /// Images have gone that nobody deleted.
    #[error(
        "{count} images have gone from {} that nobody deleted: is this an old copy? What is gone for good is forgotten by removing its file, like {}",
        path.display(), mark.display()
    )]
    ImagesMissing {
        /// The repository.
        path: PathBuf,
        /// How many.
        count: usize,
        /// What remembers one of them.
        mark: PathBuf,
    },
    /// Not one of its packs is there.
    #[error("not one pack of {} is there: is its disk mounted? Nothing was changed", .0.display())]
    NoPacks(PathBuf),
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
    pub(super) repository: Repository<OpenStatus>,
}

/// A snapshot of ours.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its snapshot file.
    pub snapshot: SnapshotFile,
    /// The record in it.
    pub record: Record,
}

/// What is stored in packs.
#[derive(Debug, Default)]
pub struct Holdings {
    /// Every piece that the index has, in order.
    blobs: Vec<BlobId>,
    /// Packs that the index has and that are not there.
    missing: Vec<Id>,
    /// Packs that are shorter than the index says.
    cut_short: Vec<Id>,
    /// How many packs the index has.
    indexed: usize,
    /// How many packs are there that the index does not have.
    unknown: usize,
}

/// What a repair has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    /// How many packs that were missing are given up.
    pub missing: usize,
    /// How many packs that were cut short are put aside.
    pub cut_short: usize,
    /// How many packs were there that the index did not have.
    pub found: usize,
    /// Where the old index and packs that are cut short are.
    pub aside: PathBuf,
}

impl Holdings {
    /// How many packs are gone or cut short.
    pub fn lost(&self) -> usize {
        self.missing.len() + self.cut_short.len()
    }

    /// Whether the index has a piece.
    pub fn has(&self, id: &BlobId) -> bool {
        self.blobs.binary_search(id).is_ok()
    }
}

/// What a repository was seen to hold.
#[derive(Debug)]
pub struct Listing {
    /// The images.
    pub images: Vec<Stored>,
    /// Snapshot files that hold nonsense: each was an image, or an old generation of one.
    pub damaged: Vec<RepositoryError>,
}

/// The newest generation of each image.
fn newest(mut all: Vec<Stored>) -> Vec<Stored> {
    all.sort_by(|one, other| {
        (&one.record.id, other.record.generation).cmp(&(&other.record.id, one.record.generation))
    });
    all.dedup_by(|later, first| later.record.id == first.record.id);
    all
}

impl Opened {
    /// An open repository.
    pub(super) fn new(home: Home, repository: Repository<OpenStatus>) -> Self {
        Self { home, repository }
    }

    /// Reads all images; nobody changes one meanwhile. A snapshot file that cannot be read is an
    /// error, never a shorter list; one that can be read and holds nonsense is named.
    pub fn images(&self) -> Result<Listing, RepositoryError> {
        let _lock = lock::shared_if_there(&self.home.lock_file())?;
        let (all, mut damaged) = self.readable_generations()?;
        let images = newest(all);
        // A damaged file may be what is missing.
        if damaged.is_empty() {
            let there = images.iter().map(|stored| stored.record.id.as_str()).collect();
            damaged.extend(self.home.check_missing(&there).err());
        }
        Ok(Listing { images, damaged })
    }

    /// The present generation of an image. The caller holds the lock of the home.
    pub fn newest_generation(&self, id: &str) -> Result<Option<Stored>, RepositoryError> {
        Ok(self.generations(id)?.pop())
    }

    /// All generations of all images; a damaged snapshot file could be any of them.
    fn all_generations(&self) -> Result<Vec<Stored>, RepositoryError> {
        let (found, mut damaged) = self.readable_generations()?;
        match damaged.pop() {
            None => Ok(found),
            Some(error) => Err(error),
        }
    }

    /// What can be read, and an error for each snapshot file that is damaged.
    fn readable_generations(&self) -> Result<(Vec<Stored>, Vec<RepositoryError>), RepositoryError> {
        let files = self
            .repository
            .stream_files::<SnapshotFile>()
            .map_err(|error| self.home.error(&error))?;
        let all: Result<Vec<_>, _> = files.collect();
        let Ok(all) = all else { return self.generations_one_by_one() };
        let (mut found, mut damaged) = (Vec::new(), Vec::new());
        for (id, snapshot) in all {
            self.sort_in(id, snapshot, &mut found, &mut damaged);
        }
        Ok((found, damaged))
    }

    /// The slow way, which says which file is damaged.
    fn generations_one_by_one(
        &self,
    ) -> Result<(Vec<Stored>, Vec<RepositoryError>), RepositoryError> {
        let objects = ObjectDirectory::new(self.home.path.clone());
        let listed = objects.list(FileType::Snapshot).map_err(|error| self.home.error(&error))?;
        let (mut found, mut damaged) = (Vec::new(), Vec::new());
        for id in listed {
            // What the file system does not give may be there the next time: that is no damage.
            objects.read_full(FileType::Snapshot, &id).map_err(|error| self.home.error(&error))?;
            let hex = id.to_hex();
            match self.repository.get_snapshots(&[hex.as_str()]) {
                Ok(snapshots) => {
                    for snapshot in snapshots {
                        self.sort_in(snapshot.id, snapshot, &mut found, &mut damaged);
                    }
                }
                Err(error) => damaged.push(RepositoryError::Damaged {
                    path: self.snapshot_path(hex.as_str()),
                    message: describe(&error),
                }),
            }
        }
        Ok((found, damaged))
    }

    fn snapshot_path(&self, hex: &str) -> PathBuf {
        self.home.path.join(FileType::Snapshot.dirname()).join(hex)
    }

    /// A snapshot of ours, one of another program, or one of ours that has lost its record.
    fn sort_in(
        &self,
        id: SnapshotId,
        mut snapshot: SnapshotFile,
        found: &mut Vec<Stored>,
        damaged: &mut Vec<RepositoryError>,
    ) {
        snapshot.id = id;
        match Record::of(&snapshot) {
            Some(record) => found.push(Stored { snapshot, record }),
            None if snapshot.hostname == HOST => damaged.push(RepositoryError::Damaged {
                path: self.snapshot_path(snapshot.id.to_hex().as_str()),
                message: "it has no record that this version of stillframe reads; was it changed by another program?".to_owned(),
            }),
            None => {}
        }
    }

    /// The image that has a name, if one has. The caller holds the lock of the home.
    pub fn named(&self, name: &str) -> Result<Option<Stored>, RepositoryError> {
        let (all, _) = self.readable_generations()?;
        Ok(newest(all).into_iter().find(|stored| stored.snapshot.label == name))
    }

    /// Publishes an image; from here on it is READY. The caller holds the lock of the home.
    pub fn publish(
        &self,
        mut snapshot: SnapshotFile,
        record: &Record,
    ) -> Result<(), RepositoryError> {
        record.write(&mut snapshot).map_err(|error| self.home.damaged_key(&error))?;
        self.repository.save_snapshots(vec![snapshot]).map_err(|error| self.home.error(&error))?;
        // After the image: what is not remembered is only less well watched over.
        self.home.remember_image(&record.id)
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
        self.home.forget_image(id)?;
        self.remove_files(&self.generations(id)?)
    }

    /// Removes generations that an interrupted change has left behind. The caller holds the lock.
    pub fn remove_stale_generations(&self) -> Result<(), RepositoryError> {
        let mut stale = self.all_generations()?;
        let current: BTreeSet<_> =
            newest(stale.clone()).into_iter().map(|stored| stored.snapshot.id).collect();
        stale.retain(|stored| !current.contains(&stored.snapshot.id));
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

    /// What is stored, as the index has it, held against the packs that are there. The caller
    /// shares the data, so that no pack goes meanwhile.
    pub fn holdings(&self) -> Result<Holdings, RepositoryError> {
        let mut holdings = Holdings::default();
        let (mut packs, mut marked) = (Vec::new(), Vec::new());
        let files =
            self.repository.stream_files::<IndexFile>().map_err(|error| self.home.error(&error))?;
        for file in files {
            let (_, index) = file.map_err(|error| self.home.error(&error))?;
            for pack in index.packs_to_delete {
                marked.push(*pack.id);
            }
            for pack in index.packs {
                packs.push((*pack.id, pack.pack_size()));
                holdings.blobs.extend(pack.blobs.iter().map(|blob| blob.id));
            }
        }
        holdings.blobs.sort_unstable();
        // After the index: a pack is there before its index says so.
        let mut listed: BTreeMap<Id, u32> = ObjectDirectory::new(self.home.path.clone())
            .list_with_size(FileType::Pack)
            .map_err(|error| self.home.error(&error))?
            .into_iter()
            .collect();
        listed.retain(|id, _| !marked.contains(id));
        packs.sort_unstable();
        packs.dedup();
        holdings.indexed = packs.len();
        holdings.unknown = listed.len();
        for (id, size) in packs {
            match listed.get(&id) {
                // Longer than the index says, everything is there.
                Some(found) if *found >= size => holdings.unknown -= 1,
                Some(_) => {
                    holdings.unknown -= 1;
                    holdings.cut_short.push(id);
                }
                None => holdings.missing.push(id),
            }
        }
        Ok(holdings)
    }

    /// Takes packs that are gone or cut short out of the index, so that what they held is stored
    /// anew where it is still there to be read, and takes those in that the index does not have.
    /// The index as it was, and packs that are cut short, are put aside. The caller owns the data.
    pub fn repair(&self) -> Result<Repaired, RepositoryError> {
        let holdings = self.holdings()?;
        let repaired = Repaired {
            missing: holdings.missing.len(),
            cut_short: holdings.cut_short.len(),
            found: holdings.unknown,
            aside: self.home.path.join(DAMAGED),
        };
        if holdings.indexed > 0 && holdings.missing.len() == holdings.indexed {
            return Err(RepositoryError::NoPacks(self.home.path.clone()));
        }
        if holdings.lost() == 0 && holdings.unknown == 0 {
            return Ok(repaired);
        }
        let index = self.home.path.join(FileType::Index.dirname());
        let copy_index = || -> std::io::Result<()> {
            let aside = repaired.aside.join(FileType::Index.dirname());
            fs::create_dir_all(&aside)?;
            for entry in fs::read_dir(&index)? {
                let entry = entry?;
                fs::copy(entry.path(), aside.join(entry.file_name()))?;
            }
            Ok(())
        };
        copy_index().map_err(|source| RepositoryError::File { path: index.clone(), source })?;
        for id in &holdings.cut_short {
            let hex = id.to_hex();
            let pack = self.home.path.join("data").join(&hex.as_str()[..2]).join(hex.as_str());
            fs::rename(&pack, repaired.aside.join(hex.as_str()))
                .map_err(|source| RepositoryError::File { path: pack, source })?;
        }
        self.repository
            .repair_index(&RepairIndexOptions::default(), false)
            .map_err(|error| self.home.error(&error))?;
        Ok(repaired)
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

/// A message of `rustic_core` and its causes in one line.
pub fn describe(error: &RusticError) -> String {
    let mut parts = vec![own_line(error)];
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let boxed = inner.downcast_ref::<Box<RusticError>>().map(AsRef::as_ref);
        let line = match inner.downcast_ref::<RusticError>().or(boxed) {
            Some(error) => own_line(error),
            None => first_line(&inner.to_string()),
        };
        if !line.is_empty() && !parts.contains(&line) {
            parts.push(line);
        }
        cause = inner.source();
    }
    parts.join(": ")
}

/// What an error itself says, without its kind and its causes.
fn own_line(error: &RusticError) -> String {
    let text = error.display_log();
    let text = text.strip_prefix("Error: ").unwrap_or(&text);
    first_line(text.split(" (kind: ").next().unwrap_or(text))
}

/// The first line, without the report that `rustic_core` puts into errors that wrap one of its own.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let line = line.split("`rustic_core` experienced").next().unwrap_or(line);
    line.trim_end_matches([':', ' ', '.']).to_owned()
}
