//! Where a repository is, its wrapped data key, and how it is made and opened.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustic_core::repofile::{Chunker, MasterKey};
use rustic_core::{
    ConfigOptions, Credentials, KeyOptions, NoProgressBars, ProgressBars, Repository,
    RepositoryBackends, RepositoryOptions, RusticError,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::key::{KeyService, Wrapped, file_stem};
use super::lock;
use super::objects::{ObjectDirectory, TEMPORARY, sync_directory};
use super::repository::{CHUNK_BYTES, Opened, RepositoryError, describe};
use crate::engine::Watcher;

/// What the name of the file beside a repository ends in.
const KEY_FILE_ENDING: &str = ".key.json";
/// zstd level 1: on disk images the higher levels cost time and save next to nothing.
const COMPRESSION: i32 = 1;
/// What a small file is called until it is whole.
pub const PARTIAL: &str = "partial";

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
    /// not, and those that lie in a location; and what could not be read of that.
    pub fn all(
        store: &Path,
        locations: &BTreeMap<String, PathBuf>,
    ) -> (Vec<Self>, Vec<RepositoryError>) {
        let (mut homes, mut errors) = (BTreeSet::new(), Vec::new());
        let mut files = |directory: &Path, ending: &str| {
            files_ending_in(directory, ending).unwrap_or_else(|error| {
                errors.push(error);
                Vec::new()
            })
        };
        let marks = files(&store.join("repositories"), ".json");
        let key_files: Vec<(&String, &PathBuf, PathBuf)> = locations
            .iter()
            .flat_map(|(location, directory)| {
                let found = files(directory, KEY_FILE_ENDING);
                found.into_iter().map(move |path| (location, directory, path))
            })
            .collect();
        for path in marks {
            match Self::of_mark(store, locations, path) {
                Ok(home) => drop(homes.insert(home)),
                Err(error) => errors.push(error),
            }
        }
        for (location, directory, path) in key_files {
            match Self::of_key_file(store, location, directory, path) {
                // Without a mark and without data, another run is making it or was killed at that:
                // it holds nothing yet.
                Ok(home) if home.has_data() => drop(homes.insert(home)),
                Ok(_) => {}
                Err(error) => errors.push(error),
            }
        }
        (homes.into_iter().collect(), errors)
    }

    fn of_mark(
        store: &Path,
        locations: &BTreeMap<String, PathBuf>,
        path: PathBuf,
    ) -> Result<Self, RepositoryError> {
        let mark: Mark = read_json(&path)?;
        match locations.get(&mark.location) {
            Some(location) => Ok(Self::new(store, &mark.location, location, &mark.key)),
            None => Err(RepositoryError::Damaged {
                path,
                message: format!(
                    "it names the location {}, which the configuration does not have",
                    mark.location
                ),
            }),
        }
    }

    fn of_key_file(
        store: &Path,
        location: &str,
        directory: &Path,
        path: PathBuf,
    ) -> Result<Self, RepositoryError> {
        let file: KeyFile = read_json(&path)?;
        if file.location == location {
            Ok(Self::new(store, location, directory, &file.data_key.key))
        } else {
            let message = format!("it belongs to the location {}", file.location);
            Err(RepositoryError::Damaged { path, message })
        }
    }

    /// What its images are listed under when it cannot be seen.
    pub fn label(&self) -> String {
        format!("{} under key {}", self.location, self.key)
    }

    fn key_file(&self) -> PathBuf {
        self.path.with_extension(KEY_FILE_ENDING.trim_start_matches('.'))
    }

    /// The file whose lock is taken while snapshot files are written or removed.
    pub fn lock_file(&self) -> PathBuf {
        self.path.with_extension("lock")
    }

    /// Remembers that the repository holds data that no image needs.
    pub fn mark_dirty(&self) -> Result<(), RepositoryError> {
        let path = self.dirty_file();
        fs::write(&path, b"").map_err(|source| RepositoryError::File { path, source })
    }

    /// Whether the repository holds data that no image needs, as far as is known.
    pub fn is_dirty(&self) -> bool {
        let has_leftovers = || {
            fs::read_dir(self.path.join(TEMPORARY))
                .is_ok_and(|mut entries| entries.next().is_some())
        };
        self.dirty_file().exists() || has_leftovers()
    }

    /// Forgets that it held data that no image needs.
    pub fn mark_clean(&self) -> Result<(), RepositoryError> {
        let path = self.dirty_file();
        match fs::remove_file(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                Err(RepositoryError::File { path, source })
            }
            _ => Ok(()),
        }
    }

    fn dirty_file(&self) -> PathBuf {
        self.path.with_extension("dirty")
    }

    fn data_lock_file(&self) -> PathBuf {
        self.path.with_extension("data-lock")
    }

    /// Held while data is read or added: as long as somebody does, nothing is cleared away.
    pub fn share_data(&self) -> Result<lock::Lock, RepositoryError> {
        Ok(lock::shared(&self.data_lock_file())?)
    }

    /// Held while data is cleared away; `None` while somebody reads or adds any.
    pub fn try_own_data(&self) -> Result<Option<lock::Lock>, RepositoryError> {
        Ok(lock::try_exclusive(&self.data_lock_file())?)
    }

    /// A file per image, by its id: what has gone without being deleted is noticed.
    fn images_directory(&self) -> PathBuf {
        self.path.with_extension("images")
    }

    /// Remembers that an image was published.
    pub fn remember_image(&self, id: &str) -> Result<(), RepositoryError> {
        let path = self.images_directory().join(id);
        fs::create_dir_all(self.images_directory())
            .and_then(|()| fs::write(&path, b""))
            .map_err(|source| RepositoryError::File { path, source })
    }

    /// Forgets an image that is about to be deleted.
    pub fn forget_image(&self, id: &str) -> Result<(), RepositoryError> {
        let path = self.images_directory().join(id);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                Err(RepositoryError::File { path, source })
            }
            _ => Ok(()),
        }
    }

    /// What is wrong where images are remembered that are not among those that are there.
    pub fn check_missing(&self, there: &BTreeSet<&str>) -> Result<(), RepositoryError> {
        let directory = self.images_directory();
        let error = |source| RepositoryError::File { path: directory.clone(), source };
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(source) if source.kind() == ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(error(source)),
        };
        let mut missing = Vec::new();
        for entry in entries {
            let id = entry.map_err(error)?.file_name().to_string_lossy().into_owned();
            if !there.contains(id.as_str()) {
                missing.push(id);
            }
        }
        missing.sort();
        match missing.first() {
            None => Ok(()),
            Some(first) => Err(RepositoryError::ImagesMissing {
                path: self.path.clone(),
                count: missing.len(),
                mark: directory.join(first),
            }),
        }
    }

    /// Whether another program that knows restic repositories has locked this one.
    pub fn is_locked_by_restic(&self) -> bool {
        fs::read_dir(self.path.join("locks")).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Refuses to make anything in a location whose repositories were there before and are not
    /// now: its disk is not mounted.
    pub fn check_mounted(&self, store: &Path, location_path: &Path) -> Result<(), RepositoryError> {
        let mut others = Vec::new();
        for path in files_ending_in(&store.join("repositories"), ".json")? {
            let Ok(mark) = read_json::<Mark>(&path) else { continue };
            if mark.location == self.location {
                others.push(Self::new(store, &mark.location, location_path, &mark.key));
            }
        }
        match others.first() {
            Some(first) if !others.iter().any(Self::has_data) => Err(first.missing()),
            _ => Ok(()),
        }
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
        if self.key_file().exists() && self.has_data() {
            self.remember()?;
            return self.open(keys);
        }
        if self.mark.exists() || (self.has_data() && !self.key_file().exists()) {
            return Err(self.missing());
        }
        self.make(keys)
    }

    /// Whether the repository is there.
    pub fn has_data(&self) -> bool {
        self.path.join("config").exists()
    }

    /// What to say where the repository, or what opens it, is not there.
    fn missing(&self) -> RepositoryError {
        let path = self.path.clone();
        if self.has_data() {
            RepositoryError::NoDataKey { path, key_file: self.key_file() }
        } else {
            RepositoryError::Vanished { path, mark: self.mark.clone() }
        }
    }

    /// Every step leaves something that the next run goes on from.
    fn make(&self, keys: &dyn KeyService) -> Result<Opened, RepositoryError> {
        let master_key = if let Some(file) = self.read_key_file()? {
            self.unwrap_key(&file, keys)?
        } else {
            let master_key = MasterKey::new();
            let plain =
                serde_json::to_vec(&master_key).map_err(|error| self.damaged_key(&error))?;
            let data_key = keys.wrap(&self.key, &plain, &self.context())?;
            let file = KeyFile { version: 1, location: self.location.clone(), data_key };
            write_json(&self.key_file(), &file)?;
            master_key
        };
        // Nothing of a repository that is only just made can be missing.
        match fs::remove_dir_all(self.images_directory()) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                return Err(RepositoryError::File { path: self.images_directory(), source });
            }
            _ => {}
        }
        let config = ConfigOptions::default()
            .set_chunker(Chunker::FixedSize)
            .set_chunk_size(rustic_core_size(CHUNK_BYTES))
            .set_compression(COMPRESSION);
        let repository = self
            .repository(ObjectDirectory::new(self.path.clone()), NoProgressBars)?
            .init(&Credentials::Masterkey(master_key), &KeyOptions::default(), &config)
            .map_err(|error| self.error(&error))?;
        self.remember()?;
        Ok(Opened::new(self.clone(), repository))
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

    /// The same, telling `bars` of the data that is written.
    pub fn open_for_copies(
        &self,
        keys: &dyn KeyService,
        bars: impl ProgressBars,
    ) -> Result<Opened, RepositoryError> {
        let objects = ObjectDirectory::withholding_snapshots(self.path.clone());
        self.open_showing(keys, objects, bars)
    }

    /// Opens the repository to read data until the watcher is cancelled.
    pub fn open_until_cancelled(
        &self,
        keys: &dyn KeyService,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Opened, RepositoryError> {
        self.open_with(keys, ObjectDirectory::read_until_cancelled(self.path.clone(), watcher))
    }

    fn open_with(
        &self,
        keys: &dyn KeyService,
        objects: ObjectDirectory,
    ) -> Result<Opened, RepositoryError> {
        self.open_showing(keys, objects, NoProgressBars)
    }

    fn open_showing(
        &self,
        keys: &dyn KeyService,
        objects: ObjectDirectory,
        bars: impl ProgressBars,
    ) -> Result<Opened, RepositoryError> {
        let Some(file) = self.read_key_file()? else { return Err(self.missing()) };
        let master_key = self.unwrap_key(&file, keys)?;
        let repository = self
            .repository(objects, bars)?
            .open(&Credentials::Masterkey(master_key))
            .map_err(|error| self.error(&error))?;
        Ok(Opened::new(self.clone(), repository))
    }

    fn repository(
        &self,
        objects: ObjectDirectory,
        bars: impl ProgressBars,
    ) -> Result<Repository<()>, RepositoryError> {
        let options = RepositoryOptions::default().no_cache(true);
        let backends = RepositoryBackends::new(Arc::new(objects), None);
        Repository::new_with_progress(&options, &backends, bars).map_err(|error| self.error(&error))
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

    pub(super) fn damaged_key(&self, error: &serde_json::Error) -> RepositoryError {
        RepositoryError::Damaged { path: self.key_file(), message: error.to_string() }
    }

    /// Bound into the wrapping: a key file that is moved to another location does not open it.
    fn context(&self) -> String {
        format!("stillframe data key of {}", self.location)
    }

    pub(super) fn error(&self, error: &RusticError) -> RepositoryError {
        RepositoryError::Repository { path: self.path.clone(), message: describe(error) }
    }
}

/// Remembers in the store that a repository exists.
#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    location: String,
    key: String,
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

/// `rustic_core` takes sizes in a type of its own.
fn rustic_core_size(bytes: usize) -> bytesize::ByteSize {
    bytesize::ByteSize(bytes as u64)
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

/// Writes a small file whole or not at all. The caller holds a lock on it, so that nobody else
/// writes beside it; what a killed process leaves is written over by the next.
pub fn write_json(path: &Path, content: &impl Serialize) -> Result<(), RepositoryError> {
    let parent = path.parent().unwrap_or(Path::new(""));
    let partial = path.with_extension(PARTIAL);
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(parent)?;
        let mut file = fs::File::create(&partial)?;
        file.write_all(&serde_json::to_vec_pretty(content)?)?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        sync_directory(parent)
    };
    write().map_err(|source| RepositoryError::File { path: path.to_owned(), source })
}
