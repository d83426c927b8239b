//! The system that has started us: told by the protocol of `sd_notify(3)`, where it listens.

use std::time::Duration;

use sd_notify::NotifyState;

/// Tells the system how far it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct System {
    watchdog: Option<Duration>,
}

impl System {
    /// As the environment says.
    pub fn new() -> Self {
        Self { watchdog: sd_notify::watchdog_enabled() }
    }

    /// How often it wants to hear that all is well.
    pub(super) fn watchdog(self) -> Option<Duration> {
        self.watchdog
    }

    pub(super) fn ready(self) {
        tell(&[NotifyState::Ready]);
    }

    pub(super) fn alive(self) {
        if self.watchdog.is_some() {
            tell(&[NotifyState::Watchdog]);
        }
    }

    pub(super) fn reloading(self) {
        if let Ok(since) = NotifyState::monotonic_usec_now() {
            tell(&[NotifyState::Reloading, since]);
        }
    }

    pub(super) fn stopping(self) {
        tell(&[NotifyState::Stopping]);
    }

    /// Waits for the lease, and is alive all the same.
    pub(super) fn standby(self) {
        tell(&[NotifyState::Ready, NotifyState::Status("standing by: another one holds the lease")]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    // Without a system that listens this does nothing.
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!("the system could not be told: {error}");
    }
}
