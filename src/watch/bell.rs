//! What wakes the loop: many wakes are one, and none says more than what to look at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use tokio::sync::Notify;

/// Wakes the loop.
#[derive(Debug, Clone, Default)]
pub struct Bell(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    rung: Notify,
    /// For the one who looks at the lease beside the loop.
    reloaded: Notify,
    files: AtomicBool,
    reload: AtomicBool,
    stop: AtomicU8,
    is_lost: AtomicBool,
    has_ended: AtomicBool,
    ended: Notify,
}

/// What is to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heard {
    /// Files may have changed.
    pub(super) files: bool,
    /// Somebody wants everything to be read and looked at now.
    pub(super) reload: bool,
}

impl Bell {
    /// Files may have changed.
    pub fn files_changed(&self) {
        self.0.files.store(true, Ordering::SeqCst);
        self.0.rung.notify_one();
    }

    /// Everything is to be read and looked at now.
    pub fn reload(&self) {
        self.0.reload.store(true, Ordering::SeqCst);
        self.0.rung.notify_one();
        self.0.reloaded.notify_one();
    }

    /// Watching is to end: first what is under way may finish, asked again it is given up.
    pub fn stop(&self) {
        self.0.stop.fetch_add(1, Ordering::SeqCst);
        self.0.rung.notify_one();
    }

    /// Watching is to end because another one may work: that nobody has asked for, so what is under
    /// way may finish whatever else was or will be asked.
    pub(super) fn lose(&self) {
        self.0.is_lost.store(true, Ordering::SeqCst);
        self.0.rung.notify_one();
    }

    /// Whether watching is to end.
    pub fn is_stopping(&self) -> bool {
        self.0.is_lost.load(Ordering::SeqCst) || self.0.stop.load(Ordering::SeqCst) > 0
    }

    /// Whether what is under way is to be given up.
    pub(super) fn is_urgent(&self) -> bool {
        self.0.stop.load(Ordering::SeqCst) > 1
    }

    /// Watching has ended.
    pub fn end(&self) {
        self.0.has_ended.store(true, Ordering::SeqCst);
        self.0.ended.notify_waiters();
    }

    /// Waits until watching has ended.
    pub(super) async fn ended(&self) {
        let told = self.0.ended.notified();
        if !self.0.has_ended.load(Ordering::SeqCst) {
            told.await;
        }
    }

    /// Waits for the next wake.
    pub(super) async fn rung(&self) {
        self.0.rung.notified().await;
    }

    /// Waits until everything is to be looked at now.
    pub(super) async fn reloaded(&self) {
        self.0.reloaded.notified().await;
    }

    /// What has been heard since it was asked for.
    pub(super) fn heard(&self) -> Heard {
        Heard {
            files: self.0.files.swap(false, Ordering::SeqCst),
            reload: self.0.reload.swap(false, Ordering::SeqCst),
        }
    }
}
