//! A lease: of several watches, one works and the others stand by.
//!
//! Nothing depends on it: two that work at once make one image per slot as well. It is a lock on a
//! file, which the operating system gives back however its process ends, or a Lease of Kubernetes,
//! which its holder renews and which ends where it does not.

mod election;
mod file;
#[cfg(feature = "kubernetes")]
mod kubernetes;

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::{Bell, Status, System};
use crate::clock::Clock;
use crate::policy::Policies;
use crate::policy::meant::LeasePlace;
use crate::reconcile::{RoomError, base};
use election::Elected;
pub use election::identity;
use file::FileLease;

/// Why a lease cannot be had at all.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The file cannot be locked.
    #[error("cannot lock the lease {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The lease cannot be asked for.
    #[error("cannot ask for the lease {place}: {why}")]
    Unreachable {
        /// Which one.
        place: String,
        /// Why not.
        why: String,
    },
    /// The path of the file leads elsewhere whenever a link on the way to the configuration is swapped.
    #[error(
        "the lease {} is relative to {}, which a link leads to: whenever that is swapped it is another \
         file, and two would hold a lease; write an absolute path",
        lease.display(),
        base.display()
    )]
    Relative {
        /// The path as it is written.
        lease: PathBuf,
        /// The directory that it is relative to.
        base: PathBuf,
    },
    /// The configuration has gone.
    #[error(transparent)]
    NoBase(#[from] RoomError),
    /// Somebody else holds it, or it could not be renewed in time.
    #[error("the lease {0} was lost: whoever holds it now goes on")]
    Lost(String),
    /// This program was built without it.
    #[error(
        "this stillframe was built without leases of Kubernetes: build it with `--features kubernetes`, or name a file"
    )]
    NotBuilt,
}

/// Held as long as it lives.
#[derive(Debug)]
pub enum Lease {
    /// A file that is locked.
    File(FileLease),
    /// A record that is renewed.
    Elected(Elected),
}

impl Lease {
    /// The lease that policies name.
    pub fn of(policies: &Policies) -> Result<Option<LeasePlace>, LeaseError> {
        let file = match &policies.config.watch.lease {
            Some(LeasePlace::File(file)) => file,
            other => return Ok(other.clone()),
        };
        let base = base(policies)?;
        if file.is_relative() && is_behind_link(Path::new(&policies.config.file)) {
            return Err(LeaseError::Relative { lease: file.clone(), base });
        }
        Ok(Some(LeasePlace::File(base.join(file))))
    }

    /// Waits until nobody else holds it; `None` where watching ends before. Where it is lost later,
    /// watching ends.
    pub async fn wait(
        place: &LeasePlace,
        clock: &Arc<dyn Clock>,
        bell: &Bell,
        status: &Status,
        system: System,
    ) -> Result<Option<Self>, LeaseError> {
        match place {
            LeasePlace::File(path) => {
                FileLease::wait(path, bell, status, system).await.map(|held| held.map(Self::File))
            }
            #[cfg(not(feature = "kubernetes"))]
            LeasePlace::Kubernetes(_) => {
                let _ = clock;
                Err(LeaseError::NotBuilt)
            }
            #[cfg(feature = "kubernetes")]
            LeasePlace::Kubernetes(lease) => {
                let unreachable = |why| LeaseError::Unreachable { place: lease.to_string(), why };
                let store = kubernetes::Store::open(lease).await.map_err(unreachable)?;
                let candidate = election::Candidate {
                    place: lease.to_string(),
                    identity: election::identity(),
                    store: Arc::new(store),
                    clock: Arc::clone(clock),
                    times: election::Times::default(),
                };
                Ok(candidate.wait(bell, status, system).await.map(Self::Elected))
            }
        }
    }

    /// Gives it back, so that another one need not wait until it has ended. An error where it was
    /// lost before.
    pub async fn release(self) -> Result<(), LeaseError> {
        match self {
            Self::File(file) => file.release(),
            Self::Elected(elected) => elected.release().await,
        }
    }
}

/// Whether a link is on the way to a file, or the file is one.
fn is_behind_link(file: &Path) -> bool {
    let Ok(file) = std::path::absolute(file) else { return true };
    let mut reached = PathBuf::new();
    file.components().any(|component| {
        if component == Component::ParentDir {
            reached.pop();
        } else {
            reached.push(component);
        }
        reached.is_symlink()
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_on_the_way_is_found_wherever_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("trees/1")).unwrap();
        std::fs::write(root.join("trees/1/stillframe.yaml"), "").unwrap();
        symlink("trees/1", root.join("current")).unwrap();
        symlink("trees/1/stillframe.yaml", root.join("stillframe.yaml")).unwrap();
        for file in ["current/stillframe.yaml", "stillframe.yaml", "trees/../current/x"] {
            assert!(is_behind_link(&root.join(file)), "{file}");
        }
        for file in ["trees/1/stillframe.yaml", "trees/1/../1/stillframe.yaml"] {
            assert!(!is_behind_link(&root.join(file)), "{file}");
        }
    }
}
