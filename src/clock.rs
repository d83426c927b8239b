//! The one place that may read the time of the machine.
//!
//! Everything else is told what time it is, so that a plan can be made for any instant and years
//! of operation can be tested in seconds.

use jiff::Timestamp;

/// Where `now` comes from.
pub trait Clock: Send + Sync {
    /// The present instant, in whole seconds.
    fn now(&self) -> Timestamp;
}

/// The clock of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    fn now(&self) -> Timestamp {
        whole_second(Timestamp::now())
    }
}

/// A clock that stands still: `--now`, and tests.
#[derive(Debug, Clone, Copy)]
pub struct FixedClock(pub Timestamp);

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        whole_second(self.0)
    }
}

fn whole_second(instant: Timestamp) -> Timestamp {
    Timestamp::from_second(instant.as_second()).unwrap_or(instant)
}
