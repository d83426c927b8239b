//! How much is asked for at once: of a folder, and of a machine.
//!
//! A folder takes so many operations at once. One of them is kept for machines that stop, and two for
//! machines that start or get labels, so that none stands still behind the snapshots of others, nor
//! behind another one that does not stop. The images of a set have theirs together: one that waited
//! until others have ended would be of another time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use super::settings::OPERATIONS_MAX;
use crate::engine::Watcher;

/// So many of them are for machines that stop.
const FOR_STOPS: usize = 1;
/// So many are for machines that start or get labels: one that hangs is not in the way of the others.
const FOR_STARTS: usize = 2;
const FOR_OTHERS: usize = OPERATIONS_MAX - FOR_STOPS - FOR_STARTS;

/// What is done with a turn.
#[derive(Debug, Clone, Copy)]
enum Use {
    Stop,
    Start,
    Other,
}

/// Leave to begin one operation in a folder, until it has ended.
pub(super) struct Turn {
    /// Nobody closes what it is taken from.
    _permit: Option<OwnedSemaphorePermit>,
}

/// What one folder takes.
struct Folder {
    stops: Arc<Semaphore>,
    starts: Arc<Semaphore>,
    others: Arc<Semaphore>,
}

/// What is asked for at present.
#[derive(Default)]
pub(super) struct Rooms {
    folders: Mutex<BTreeMap<String, Folder>>,
    /// Who is at a machine, by its id.
    machines: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Rooms {
    fn semaphore(&self, folder: &str, wanted: Use) -> Arc<Semaphore> {
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = folders.entry(folder.to_owned()).or_insert_with(|| Folder {
            stops: Arc::new(Semaphore::new(FOR_STOPS)),
            starts: Arc::new(Semaphore::new(FOR_STARTS)),
            others: Arc::new(Semaphore::new(FOR_OTHERS)),
        });
        Arc::clone(match wanted {
            Use::Stop => &folder.stops,
            Use::Start => &folder.starts,
            Use::Other => &folder.others,
        })
    }

    async fn turn(&self, folder: &str, wanted: Use) -> Turn {
        Turn { _permit: self.semaphore(folder, wanted).acquire_owned().await.ok() }
    }

    /// Waits until a folder takes one operation more.
    pub(super) async fn one(&self, folder: &str) -> Turn {
        self.turn(folder, Use::Other).await
    }

    /// The same for a machine that is stopped.
    pub(super) async fn to_stop(&self, folder: &str) -> Turn {
        self.turn(folder, Use::Stop).await
    }

    /// The same for a machine that is started or labelled.
    pub(super) async fn to_start(&self, folder: &str) -> Turn {
        self.turn(folder, Use::Start).await
    }

    /// Waits until a folder takes so many operations more, all at once, and tells where it has to. Of
    /// more than it ever takes at once there are fewer turns than asked for.
    pub(super) async fn all(&self, folder: &str, count: usize, waits: &dyn Watcher) -> Vec<Turn> {
        let count = u32::try_from(count.min(FOR_OTHERS)).unwrap_or_default();
        let semaphore = self.semaphore(folder, Use::Other);
        let permits = if let Ok(permits) = Arc::clone(&semaphore).try_acquire_many_owned(count) {
            Ok(permits)
        } else {
            waits.waits("other operations of its folder");
            semaphore.acquire_many_owned(count).await
        };
        let Ok(mut permits) = permits else { return Vec::new() };
        (0..count).map(|_| Turn { _permit: permits.split(1) }).collect()
    }

    /// Waits until nobody else in this program stops or starts a machine.
    pub(super) async fn machine(&self, id: &str) -> OwnedMutexGuard<()> {
        self.lock_of(id).lock_owned().await
    }

    /// The same; `None` where somebody is at it.
    pub(super) fn free_machine(&self, id: &str) -> Option<OwnedMutexGuard<()>> {
        self.lock_of(id).try_lock_owned().ok()
    }

    fn lock_of(&self, id: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        // Who is at none any more is forgotten: machines come and go for months.
        machines.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(machines.entry(id.to_owned()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::engine::Unwatched;

    #[tokio::test]
    async fn a_set_has_all_its_turns_or_none() {
        let rooms = Rooms::default();
        let first = rooms.all("f", FOR_OTHERS - 1, &Unwatched).await;
        assert_eq!(first.len(), FOR_OTHERS - 1);
        let mut set = std::pin::pin!(rooms.all("f", 2, &Unwatched));
        assert!(set.as_mut().now_or_never().is_none());
        // Nobody goes ahead of it, and it holds up nothing elsewhere.
        assert!(rooms.one("f").now_or_never().is_none());
        assert_eq!(rooms.all("g", 2, &Unwatched).await.len(), 2);
        drop(first);
        assert_eq!(set.await.len(), 2);
        assert_eq!(rooms.all("h", 2 * FOR_OTHERS, &Unwatched).await.len(), FOR_OTHERS);
    }

    #[tokio::test]
    async fn a_machine_waits_for_machines_only() {
        let rooms = Rooms::default();
        let _all = rooms.all("f", FOR_OTHERS, &Unwatched).await;
        let stop = rooms.to_stop("f").now_or_never();
        assert!(stop.is_some());
        assert!(rooms.to_stop("f").now_or_never().is_none());
        // Who stands still waits neither for one that does not stop nor for one that does not start.
        let start = rooms.to_start("f").now_or_never();
        let other = rooms.to_start("f").now_or_never();
        assert!(start.is_some() && other.is_some());
        assert!(rooms.to_start("f").now_or_never().is_none());
        let _one = rooms.machine("m").await;
        assert!(rooms.free_machine("m").is_none() && rooms.free_machine("n").is_some());
    }

    #[tokio::test]
    async fn machines_that_nobody_is_at_are_forgotten() {
        let rooms = Rooms::default();
        let at_m = rooms.machine("m").await;
        for id in 0..100 {
            drop(rooms.machine(&id.to_string()).await);
        }
        assert!(rooms.free_machine("m").is_none(), "somebody is still at it");
        assert!(rooms.machines.lock().unwrap().len() <= 2);
        drop(at_m);
        assert!(rooms.free_machine("m").is_some());
    }
}
