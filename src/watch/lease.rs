//! A lease: of several watches over one file, one works and the others stand by.
//!
//! Nothing depends on it: two that work at once make one image per slot as well. The lock is the
//! operating system's own and is gone with the process that holds it, however it ends.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Bell, Role, Status, System};

/// How often it is looked whether the lease is free.
const LOOK: Duration = Duration::from_secs(2);

/// Why a lease cannot be had at all.
#[derive(Debug, thiserror::Error)]
#[error("cannot lock the lease {}: {source}", path.display())]
pub struct LeaseError {
    path: PathBuf,
    source: io::Error,
}

/// Held as long as it lives.
#[derive(Debug)]
pub struct Lease {
    _file: File,
}

impl Lease {
    /// Waits until nobody else holds it; `None` where watching ends before.
    pub async fn wait(
        path: &Path,
        bell: &Bell,
        status: &Status,
        system: System,
    ) -> Result<Option<Self>, LeaseError> {
        let mut is_told = false;
        while !bell.is_stopping() {
            if let Some(lease) = Self::take(path)? {
                tracing::info!("holding the lease {}", path.display());
                return Ok(Some(lease));
            }
            if !is_told {
                tracing::info!("standing by: another one holds the lease {}", path.display());
                status.role(Role::Standby);
                system.standby();
                is_told = true;
            }
            system.alive();
            status.beat();
            let look = system.watchdog().map_or(LOOK, |every| LOOK.min(every / 2));
            tokio::select! {
                () = bell.rung() => drop(bell.heard()),
                () = tokio::time::sleep(look) => {}
            }
        }
        Ok(None)
    }

    fn take(path: &Path) -> Result<Option<Self>, LeaseError> {
        let error = |source| LeaseError { path: path.to_owned(), source };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(error)?;
        }
        let file =
            File::options().create(true).truncate(false).write(true).open(path).map_err(error)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(error(source)),
        }
    }
}
