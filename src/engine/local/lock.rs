//! File locks between processes and between the captures of one process.
//!
//! Locks are the operating system's own: they are gone with the process that holds them, however
//! it ends. The order in which they are taken is always data of a repository, name of an image,
//! snapshots of a repository. They lie beside what they protect, so that two stores that share a
//! location hold to the same ones.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

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
    which: Option<Which>,
}

/// Which file it is: device and number.
type Which = (u64, u64);

/// The locks that this process holds, and how often: its captures wait for each other.
static OWN: Mutex<BTreeMap<Which, usize>> = Mutex::new(BTreeMap::new());

impl Lock {
    fn on(file: File) -> io::Result<Self> {
        let which = which(&file.metadata()?);
        *OWN.lock().unwrap_or_else(PoisonError::into_inner).entry(which).or_default() += 1;
        Ok(Self { _file: Some(file), which: Some(which) })
    }

    fn on_nothing() -> Self {
        Self { _file: None, which: None }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let Some(which) = self.which else { return };
        let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = own.get_mut(&which) {
            *count -= 1;
            if *count == 0 {
                own.remove(&which);
            }
        }
    }
}

fn which(of: &Metadata) -> Which {
    (of.dev(), of.ino())
}

/// Whether this process holds a lock on a file.
fn is_own(file: &File) -> bool {
    let own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    file.metadata().is_ok_and(|metadata| own.contains_key(&which(&metadata)))
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
            Ok(Lock::on_nothing())
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
            Lock::on(file).map(Some).map_err(error)
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
                if is_own(file) {
                    tracing::debug!("waiting for another capture, which holds {}", path.display());
                } else {
                    tracing::info!("waiting for another run, which holds {}", path.display());
                }
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
            Ok(named) if which(&named) == which(&held) => {
                return Lock::on(file).map(Some).map_err(error);
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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;
    use std::thread;

    use super::*;

    #[derive(Clone, Default)]
    struct Said(Arc<Mutex<String>>);

    impl Write for Said {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push_str(&String::from_utf8_lossy(bytes));
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is said while it is waited for a lock that is held until then.
    fn said_while<T>(path: &Path, held: T) -> String {
        let said = Said::default();
        let writer = said.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_writer(move || writer.clone())
            .finish();
        let path = path.to_owned();
        let waiter = thread::spawn(move || {
            tracing::subscriber::with_default(subscriber, || exclusive(&path).map(drop).unwrap());
        });
        while said.0.lock().unwrap().is_empty() {
            thread::yield_now();
        }
        drop(held);
        waiter.join().unwrap();
        said.0.lock().unwrap().clone()
    }

    #[test]
    fn a_capture_that_waits_for_another_one_does_not_speak_of_another_run() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("default.lock");
        let own = said_while(&path, exclusive(&path).unwrap());
        assert!(own.contains("DEBUG") && own.contains("another capture"), "{own}");
        let shared_by_all = said_while(&path, (shared(&path).unwrap(), shared(&path).unwrap()));
        assert!(shared_by_all.contains("another capture"), "{shared_by_all}");
        // Nothing of this process knows of that one.
        let file = File::open(&path).unwrap();
        file.lock().unwrap();
        let other = said_while(&path, file);
        assert!(other.contains("INFO") && other.contains("another run"), "{other}");
    }
}
