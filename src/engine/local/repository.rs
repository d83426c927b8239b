//! One restic repository: the images of one storage location under one key.
//!
//! `rustic_core` reads and writes it. The data key is random, wrapped by the key service, and lies
//! beside the repository; the repository itself is an ordinary one that the `restic` program can
//! open once a password has been added.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustic_core::repofile::{Chunker, MasterKey, SnapshotFile};
use rustic_core::{
    ConfigOptions, Credentials, FileType, IndexedFullStatus, IndexedIdsStatus, KeyOptions,
    LimitOption, OpenStatus, PruneOptions, ReadBackend, Repository, RepositoryBackends,
    RepositoryOptions, RusticError,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::key::{KeyError, KeyService, Wrapped, file_stem};
use super::lock::{self, LockError};
use super::objects::{ObjectDirectory, TEMPORARY, sync_directory};
use super::record::Record;

/// Disks are cut into pieces of this size; equal pieces are stored once.
pub const CHUNK_BYTES: usize = 1 << 20;
/// What the name of the file beside a repository ends in.
const KEY_FILE_ENDING: &str = ".key.json";
/// zstd level 1: on disk images the higher levels cost time and save next to nothing.
const COMPRESSION: i32 = 1;
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

/// What lies beside a repository: which it is, and its wrapped data key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyFile {
    /// The version of this file.
    pub version: u32,
    /// The storage location.
    pub location: String,
    /// The data key, wrapped.
    pub data_key: Wrapped,
}

/// Where a repository is, or will be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Home {
    /// The storage location.
    pub location: String,
    /// The key its data key is wrapped by.
    pub key: String,
    /// The repository.
    pub path: PathBuf,
    /// Remembers in the store that the repository exists, so that a disk that is not mounted is
    /// not taken for an empty one.
    mark: PathBuf,
}

impl Home {
    /// The home of the images of a location under a key.
    pub fn new(store: &Path, location: &str, location_path: &Path, key: &str) -> Self {
        let stem = file_stem(key);
        Self {
            location: location.to_owned(),
            key: key.to_owned(),
            path: location_path.join(&stem),
            mark: store.join("repositories").join(format!("{}@{stem}.json", file_stem(location))),
        }
    }

    /// Every repository there is: those that the store remembers, whether they can be seen or
    /// not, and those that lie in a location.
    pub fn all(
        store: &Path,
        locations: &BTreeMap<String, PathBuf>,
    ) -> Result<Vec<Self>, RepositoryError> {
        let mut homes = BTreeSet::new();
        for path in files_ending_in(&store.join("repositories"), ".json")? {
            let mark: Mark = read_json(&path)?;
            let Some(location) = locations.get(&mark.location) else {
                let message = format!(
                    "it names the location {}, which the configuration does not have",
                    mark.location
                );
                return Err(RepositoryError::Damaged { path, message });
            };
            homes.insert(Self::new(store, &mark.location, location, &mark.key));
        }
        for (location, directory) in locations {
            for path in files_ending_in(directory, KEY_FILE_ENDING)? {
                let file: KeyFile = read_json(&path)?;
                if file.location != *location {
                    let message = format!("it belongs to the location {}", file.location);
                    return Err(RepositoryError::Damaged { path, message });
                }
                homes.insert(Self::new(store, location, directory, &file.data_key.key));
            }
        }
        Ok(homes.into_iter().collect())
    }

    /// What its images are listed under when it cannot be seen.
    pub fn label(&self) -> String {
        format!("{} under key {}", self.location, self.key)
    }

    fn key_file(&self) -> PathBuf {
        self.path.with_extension(KEY_FILE_ENDING.trim_start_matches('.'))
    }

    fn lock_file(&self) -> PathBuf {
        self.path.with_extension("lock")
    }

    /// Taken while snapshot files are written or removed.
    pub fn lock(&self) -> Result<lock::Lock, RepositoryError> {
        Ok(lock::exclusive(&self.lock_file())?)
    }

    /// Opens the repository; makes it where there is none yet.
    pub fn open_or_make(&self, keys: &dyn KeyService) -> Result<Opened, RepositoryError> {
        let parent = self.path.parent().unwrap_or(Path::new(""));
        fs::create_dir_all(parent)
            .map_err(|source| RepositoryError::File { path: parent.to_owned(), source })?;
        let _lock = self.lock()?;
        if self.key_file().exists() && self.path.join("config").exists() {
            self.remember()?;
            return self.open(keys);
        }
        if self.mark.exists() {
            return Err(RepositoryError::Vanished {
                path: self.path.clone(),
                mark: self.mark.clone(),
            });
        }
        self.make(keys)
    }

    /// Every step leaves something that the next run goes on from.
    fn make(&self, keys: &dyn KeyService) -> Result<Opened, RepositoryError> {
        let master_key = match self.read_key_file()? {
            Some(file) => self.unwrap_key(&file, keys)?,
            None => {
                let master_key = MasterKey::new();
                let plain =
                    serde_json::to_vec(&master_key).map_err(|error| self.damaged_key(&error))?;
                let data_key = keys.wrap(&self.key, &plain, &self.context())?;
                let file = KeyFile { version: 1, location: self.location.clone(), data_key };
                write_json(&self.key_file(), &file)?;
                master_key
            }
        };
        let config = ConfigOptions::default()
            .set_chunker(Chunker::FixedSize)
            .set_chunk_size(rustic_core_size(CHUNK_BYTES))
            .set_compression(COMPRESSION);
        let repository = self
            .repository(ObjectDirectory::new(self.path.clone()))?
            .init(&Credentials::Masterkey(master_key), &KeyOptions::default(), &config)
            .map_err(|error| self.error(&error))?;
        self.remember()?;
        Ok(Opened { home: self.clone(), repository })
    }

    fn remember(&self) -> Result<(), RepositoryError> {
        if self.mark.exists() {
            return Ok(());
        }
        write_json(&self.mark, &Mark { location: self.location.clone(), key: self.key.clone() })
    }

    /// Opens the repository.
    pub fn open(&self, keys: &dyn KeyService) -> Result<Opened, RepositoryError> {
        self.open_with(keys, ObjectDirectory::new(self.path.clone()))
    }

    /// Opens the repository to write data only: no snapshot is published.
    pub fn open_for_data(&self, keys: &dyn KeyService) -> Result<Opened, RepositoryError> {
        self.open_with(keys, ObjectDirectory::withholding_snapshots(self.path.clone()))
    }

    fn open_with(
        &self,
        keys: &dyn KeyService,
        objects: ObjectDirectory,
    ) -> Result<Opened, RepositoryError> {
        let Some(file) = self.read_key_file()? else {
            return Err(RepositoryError::Vanished {
                path: self.path.clone(),
                mark: self.mark.clone(),
            });
        };
        let master_key = self.unwrap_key(&file, keys)?;
        let repository = self
            .repository(objects)?
            .open(&Credentials::Masterkey(master_key))
            .map_err(|error| self.error(&error))?;
        Ok(Opened { home: self.clone(), repository })
    }

    fn repository(&self, objects: ObjectDirectory) -> Result<Repository<()>, RepositoryError> {
        let options = RepositoryOptions::default().no_cache(true);
        let backends = RepositoryBackends::new(Arc::new(objects), None);
        Repository::new(&options, &backends).map_err(|error| self.error(&error))
    }

    fn read_key_file(&self) -> Result<Option<KeyFile>, RepositoryError> {
        let path = self.key_file();
        if path
            .try_exists()
            .map_err(|source| RepositoryError::File { path: path.clone(), source })?
        {
            read_json(&path).map(Some)
        } else {
            Ok(None)
        }
    }

    fn unwrap_key(
        &self,
        file: &KeyFile,
        keys: &dyn KeyService,
    ) -> Result<MasterKey, RepositoryError> {
        let plain = keys.unwrap(&file.data_key, &self.context())?;
        serde_json::from_slice(&plain).map_err(|error| self.damaged_key(&error))
    }

    fn damaged_key(&self, error: &serde_json::Error) -> RepositoryError {
        RepositoryError::Damaged { path: self.key_file(), message: error.to_string() }
    }

    /// Bound into the wrapping: a key file that is moved to another location does not open it.
    fn context(&self) -> String {
        format!("stillframe data key of {}", self.location)
    }

    fn error(&self, error: &RusticError) -> RepositoryError {
        RepositoryError::Repository { path: self.path.clone(), message: describe(error) }
    }
}

/// Remembers in the store that a repository exists.
#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    location: String,
    key: String,
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

/// `rustic_core` takes sizes in a type of its own.
fn rustic_core_size(bytes: usize) -> bytesize::ByteSize {
    bytesize::ByteSize(bytes as u64)
}

/// The files of a directory whose names end so; none where there is no such directory.
fn files_ending_in(directory: &Path, ending: &str) -> Result<Vec<PathBuf>, RepositoryError> {
    let error = |source| RepositoryError::File { path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(source) if source.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(error(source)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(error)?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(ending)) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Reads a small file.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, RepositoryError> {
    let bytes =
        fs::read(path).map_err(|source| RepositoryError::File { path: path.to_owned(), source })?;
    serde_json::from_slice(&bytes).map_err(|error| RepositoryError::Damaged {
        path: path.to_owned(),
        message: error.to_string(),
    })
}

/// Writes a small file whole or not at all.
pub fn write_json(path: &Path, content: &impl Serialize) -> Result<(), RepositoryError> {
    let parent = path.parent().unwrap_or(Path::new(""));
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(parent)?;
        let mut file = tempfile::NamedTempFile::new_in(parent)?;
        file.write_all(&serde_json::to_vec_pretty(content)?)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        sync_directory(parent)
    };
    write().map_err(|source| RepositoryError::File { path: path.to_owned(), source })
}
