//! Attempts: captures that are under way, and captures that failed.
//!
//! A capture holds the lock of its image's name from beginning to end, so that one name is never
//! made twice at once. A file under that name says that it is under way; a file that nobody holds
//! the lock of was left by a run that was killed. What failed leaves a small file with the reason,
//! which the inventory shows as a FAILED image.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::home::{PARTIAL, read_json, write_json};
use super::lock::{self, Lock};
use super::repository::RepositoryError;
use crate::inventory::{Image, ImageKind, ImageSource, ImageState, Stage};

/// A capture that is under way or failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// The id that the inventory shows.
    pub id: String,
    /// The name of the image.
    pub name: String,
    /// The kind of image.
    pub kind: ImageKind,
    /// The instance.
    pub source: ImageSource,
    /// When it began.
    pub began_at: Timestamp,
    /// Where the image is, or would have been, stored.
    pub location: String,
    /// Under which key.
    pub kms_key: String,
    /// The labels of the image.
    pub labels: BTreeMap<String, String>,
    /// Why it failed; absent while it is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl Attempt {
    /// The attempt as the inventory shows it.
    pub fn image(&self) -> Image {
        Image {
            id: self.id.clone(),
            name: self.name.clone(),
            kind: self.kind,
            state: if self.failure.is_some() { ImageState::Failed } else { ImageState::Creating },
            stage: Stage::Active,
            created_at: self.began_at,
            location: self.location.clone(),
            kms_key: Some(self.kms_key.clone()),
            family: None,
            sharing: None,
            labels: self.labels.clone(),
            source: Some(self.source.clone()),
            stored_bytes: None,
            disk_bytes: None,
            fingerprint: self.id.clone(),
            disks: None,
            project: String::new(),
            in_use_by: Vec::new(),
            message: self.failure.clone(),
        }
    }
}

/// The attempts of a store.
#[derive(Debug, Clone)]
pub struct Attempts {
    directory: PathBuf,
}

impl Attempts {
    /// The attempts of the store in `store`.
    pub fn new(store: &Path) -> Self {
        Self { directory: store.join("attempts") }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.json"))
    }

    fn lock_file(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.lock"))
    }

    /// Takes the lock of a name, if nobody else is at it.
    pub fn try_lock(&self, name: &str) -> Result<Option<Lock>, RepositoryError> {
        Ok(lock::try_exclusive(&self.lock_file(name))?)
    }

    /// Writes that a capture is under way or has failed. The caller holds the lock of its name.
    pub fn write(&self, attempt: &Attempt) -> Result<(), RepositoryError> {
        write_json(&self.file(&attempt.name), attempt)
    }

    /// Forgets an attempt. The caller holds the lock of its name.
    pub fn remove(&self, name: &str) -> Result<(), RepositoryError> {
        let partial = self.file(name).with_extension(PARTIAL);
        for path in [partial, self.file(name), self.lock_file(name)] {
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(source) => return Err(RepositoryError::File { path, source }),
            }
        }
        Ok(())
    }

    /// One attempt.
    pub fn read(&self, name: &str) -> Result<Option<Attempt>, RepositoryError> {
        match read_json(&self.file(name)) {
            Ok(attempt) => Ok(Some(attempt)),
            Err(RepositoryError::File { source, .. }) if source.kind() == ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The names of all attempts there is any file of.
    pub fn names(&self) -> Result<BTreeSet<String>, RepositoryError> {
        let error = |source| RepositoryError::File { path: self.directory.clone(), source };
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(source) if source.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
            Err(source) => return Err(error(source)),
        };
        let mut names = BTreeSet::new();
        for entry in entries {
            let name = entry.map_err(error)?.file_name().to_string_lossy().into_owned();
            // Names of images have no dot in them.
            names.extend(name.split('.').next().map(str::to_owned));
        }
        Ok(names)
    }

    /// All attempts, each with whether somebody is at it.
    pub fn list(&self) -> Result<Vec<(Attempt, bool)>, RepositoryError> {
        let mut attempts = Vec::new();
        for name in self.names()? {
            if let Some(attempt) = self.read(&name)? {
                let is_held = lock::is_held(&self.lock_file(&name))?;
                attempts.push((attempt, is_held));
            }
        }
        Ok(attempts)
    }
}
