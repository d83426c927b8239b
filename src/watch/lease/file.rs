//! A lease that is a lock on a file. The lock is the operating system's own and is gone with the
//! process that holds it, however it ends.

use std::fs::{File, Metadata, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::LeaseError;
use crate::watch::{Bell, Role, Status, System};

/// How often it is looked whether the lease is free, and whether the one that is held still counts.
const LOOK: Duration = Duration::from_secs(2);

/// Held as long as it lives.
#[derive(Debug)]
pub struct FileLease {
    path: PathBuf,
    /// Where another file is in its place, its lock keeps nobody away any more.
    is_lost: Arc<AtomicBool>,
    keeper: JoinHandle<()>,
}

impl FileLease {
    /// Waits until nobody else holds it; `None` where watching ends before. Where it is lost later,
    /// watching ends.
    pub(super) async fn wait(
        path: &Path,
        bell: &Bell,
        status: &Status,
        system: System,
    ) -> Result<Option<Self>, LeaseError> {
        let mut is_told = false;
        while !bell.is_stopping() {
            if let Some(file) = take(path)? {
                tracing::info!("holding the lease {}", path.display());
                return Ok(Some(Self::keep(path, file, bell.clone())));
            }
            if !is_told {
                status.role(Role::Standby);
                system.standby();
                tracing::info!("standing by: another one holds the lease {}", path.display());
                is_told = true;
            }
            stand_by(LOOK, bell, status, system).await;
        }
        Ok(None)
    }

    /// Holds the lock, and looks now and then whether it still is that of the file.
    fn keep(path: &Path, file: File, bell: Bell) -> Self {
        let is_lost = Arc::new(AtomicBool::new(false));
        let (held, lost) = (Arc::new(file), Arc::clone(&is_lost));
        let place = path.to_owned();
        let keeper = tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = bell.reloaded() => {}
                    () = tokio::time::sleep(LOOK) => {}
                }
                let (held, path) = (Arc::clone(&held), place.clone());
                let looked = tokio::task::spawn_blocking(move || is_at(&held, &path)).await;
                // What cannot be looked at may be there.
                if looked.is_ok_and(|is_there| is_there == Some(false)) {
                    break;
                }
            }
            tracing::error!(
                "the lease {} is lost: the file was removed or replaced",
                place.display()
            );
            lost.store(true, Ordering::SeqCst);
            bell.lose();
        });
        Self { path: path.to_owned(), is_lost, keeper }
    }

    pub(super) fn release(self) -> Result<(), LeaseError> {
        if self.is_lost.load(Ordering::SeqCst) {
            return Err(LeaseError::Lost(self.path.display().to_string()));
        }
        Ok(())
    }
}

impl Drop for FileLease {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// Locks the file, unless another one has.
fn take(path: &Path) -> Result<Option<File>, LeaseError> {
    let error = |source| LeaseError::File { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(error)?;
    }
    let file =
        File::options().create(true).truncate(false).write(true).open(path).map_err(error)?;
    match file.try_lock() {
        // Between opening and locking it may have been replaced: it is tried again.
        Ok(()) if is_at(&file, path) == Some(false) => Ok(None),
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(error(source)),
    }
}

/// Whether an open file is the one at a path; `None` where that cannot be looked at.
fn is_at(file: &File, path: &Path) -> Option<bool> {
    let which = |of: Metadata| (of.dev(), of.ino());
    let own = which(file.metadata().ok()?);
    match std::fs::metadata(path) {
        Ok(there) => Some(which(there) == own),
        Err(error) if error.kind() == ErrorKind::NotFound => Some(false),
        Err(_) => None,
    }
}

/// Waits for some time, or until something is said, and is alive all the same.
pub(super) async fn stand_by(time: Duration, bell: &Bell, status: &Status, system: System) {
    system.alive();
    status.beat();
    let look = system.watchdog().map_or(time, |every| time.min(every / 2));
    tokio::select! {
        () = bell.rung() => {
            // There is nothing to read yet, and whoever has asked waits to hear that it is done.
            if bell.heard().reload {
                system.reloading();
                system.standby();
            }
        }
        () = tokio::time::sleep(look) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn wait(path: &Path, bell: &Bell) -> Option<FileLease> {
        FileLease::wait(path, bell, &Status::default(), System::default()).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_was_removed_or_replaced_is_a_lease_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deeper/lease");
        let remove = |path: &Path| std::fs::remove_file(path).unwrap();
        let replace = |path: &Path| {
            std::fs::write(path.with_extension("new"), "").unwrap();
            std::fs::rename(path.with_extension("new"), path).unwrap();
        };
        for change in [&remove as &dyn Fn(&Path), &replace] {
            let bell = Bell::default();
            let lease = wait(&path, &bell).await.unwrap();
            tokio::time::sleep(LOOK * 10).await;
            assert!(!bell.is_stopping());
            change(&path);
            tokio::time::sleep(LOOK * 2).await;
            assert!(bell.is_stopping(), "another one may hold it by now");
            assert!(matches!(lease.release(), Err(LeaseError::Lost(_))));
        }
        wait(&path, &Bell::default()).await.unwrap().release().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_holds_it_keeps_others_away_until_it_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lease");
        let first = wait(&path, &Bell::default()).await.unwrap();
        assert!(take(&path).unwrap().is_none());
        drop(first);
        assert!(wait(&path, &Bell::default()).await.is_some());
    }

    #[test]
    fn a_file_is_known_by_what_it_is_and_not_by_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lease");
        let file = File::create(&path).unwrap();
        assert_eq!(is_at(&file, &path), Some(true));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(is_at(&file, &path), Some(false));
        let _other = File::create(&path).unwrap();
        assert_eq!(is_at(&file, &path), Some(false));
    }
}
