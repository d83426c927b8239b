//! The system that has started us: told by the protocol of `sd_notify(3)`, where it listens.

use std::time::Duration;

use sd_notify::NotifyState;

/// Tells the system how far it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct System {
    is_told: bool,
    watchdog: Option<Duration>,
}

impl System {
    /// As the environment says.
    pub fn new() -> Self {
        Self { is_told: true, watchdog: sd_notify::watchdog_enabled() }
    }

    /// How often it wants to hear that all is well.
    pub(super) fn watchdog(self) -> Option<Duration> {
        self.watchdog
    }

    pub(super) fn ready(self) {
        // Who stood by has said so.
        self.tell(&[NotifyState::Ready, NotifyState::Status("watching")]);
    }

    pub(super) fn alive(self) {
        if self.watchdog.is_some() {
            self.tell(&[NotifyState::Watchdog]);
        }
    }

    pub(super) fn reloading(self) {
        if let Ok(since) = NotifyState::monotonic_usec_now() {
            self.tell(&[NotifyState::Reloading, since]);
        }
    }

    pub(super) fn stopping(self) {
        self.tell(&[NotifyState::Stopping]);
    }

    /// Waits for the lease, and is alive all the same.
    pub(super) fn standby(self) {
        self.tell(&[
            NotifyState::Ready,
            NotifyState::Status("standing by: another one holds the lease"),
        ]);
    }

    fn tell(self, state: &[NotifyState<'_>]) {
        // Without a system that listens this does nothing.
        let told = if self.is_told { sd_notify::notify(state) } else { Ok(()) };
        if let Err(error) = told {
            tracing::debug!("the system could not be told: {error}");
        }
    }
}
