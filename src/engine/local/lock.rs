//! File locks between processes and between the captures of one process.
//!
//! Locks are the operating system's own: they are gone with the process that holds them, however
//! it ends. The order in which they are taken is always data of a repository, name of an image,
//! snapshots of a repository. They lie beside what they protect, so that two stores that share a
//! location hold to the same ones.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Why a lock could not be taken.
#[derive(Debug, thiserror::Error)]
#[error("cannot lock {}: {source}", path.display())]
pub struct LockError {
    path: PathBuf,
    source: io::Error,
}

/// Held as long as it lives.
#[derive(Debug)]
pub struct Lock {
    /// Absent on a file system that nobody can write to: then nobody else changes anything either.
    _file: Option<File>,
}

/// Waits until nobody else holds the lock.
pub fn exclusive(path: &Path) -> Result<Lock, LockError> {
    wait(path, File::try_lock, File::lock)
}

/// Takes the lock if nobody else holds it.
pub fn try_exclusive(path: &Path) -> Result<Option<Lock>, LockError> {
    take(path, |file| match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(source)) => Err(source),
    })
}

/// Waits until nobody holds the lock exclusively. Where the lock file may not be written, it is
/// opened to be read; where it may not be made either, there is nothing to lock.
pub fn shared(path: &Path) -> Result<Lock, LockError> {
    let refused = match wait(path, File::try_lock_shared, File::lock_shared) {
        Err(error) if is_refusal(error.source.kind()) => error,
        other => return other,
    };
    match shared_if_there(path) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) if refused.source.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            Ok(Lock { _file: None })
        }
        _ => Err(refused),
    }
}

fn is_refusal(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}

/// Waits until nobody holds the lock exclusively. Without a lock file nobody ever held it.
pub fn shared_if_there(path: &Path) -> Result<Option<Lock>, LockError> {
    let error = |source| LockError { path: path.to_owned(), source };
    match File::open(path) {
        Ok(file) => {
            file.lock_shared().map_err(error)?;
            Ok(Some(Lock { _file: Some(file) }))
        }
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(error(source)),
    }
}

/// Whether somebody holds the lock exclusively. Looks only: makes no file.
pub fn is_held(path: &Path) -> Result<bool, LockError> {
    let error = |source| LockError { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(error(source)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(source)) => Err(error(source)),
    }
}

fn wait(
    path: &Path,
    try_lock: impl Fn(&File) -> Result<(), TryLockError>,
    lock: impl Fn(&File) -> io::Result<()>,
) -> Result<Lock, LockError> {
    loop {
        let taken = take(path, |file| match try_lock(file) {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => {
                tracing::info!("waiting for another run, which holds {}", path.display());
                lock(file).map(|()| true)
            }
            Err(TryLockError::Error(source)) => Err(source),
        })?;
        if let Some(lock) = taken {
            return Ok(lock);
        }
    }
}

/// Opens and locks. A lock file may be removed by its holder, so one that is no longer under its
/// name when the lock is had is given up for the one that is.
fn take(path: &Path, lock: impl Fn(&File) -> io::Result<bool>) -> Result<Option<Lock>, LockError> {
    let error = |source| LockError { path: path.to_owned(), source };
    loop {
        let file = open(path).map_err(error)?;
        if !lock(&file).map_err(error)? {
            return Ok(None);
        }
        let held = file.metadata().map_err(error)?;
        match fs::metadata(path) {
            Ok(named) if (named.dev(), named.ino()) == (held.dev(), held.ino()) => {
                return Ok(Some(Lock { _file: Some(file) }));
            }
            Ok(_) => {}
            Err(source) if source.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(error(source)),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    File::options().create(true).truncate(false).read(true).write(true).open(path)
}
