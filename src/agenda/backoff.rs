//! When an engine is tried again that failed, and when it is left alone.

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::elapsed::Elapsed;

/// The longest wait after the first failure.
pub const FIRST_RETRY: Elapsed = Elapsed::minutes(1);
/// The longest wait there is.
pub const LAST_RETRY: Elapsed = Elapsed::minutes(15);
/// After so many rounds in a row in which nothing worked, slots alone begin no rounds.
pub const BROKEN_MAX: u32 = 5;

/// How a round went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Everything was done.
    Well,
    /// Something failed, and something was done or nothing else was to do.
    Partly,
    /// Not everything was seen, or all that was tried failed.
    Broken,
}

impl Health {
    /// The word used in metrics and documents.
    pub fn word(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Partly => "partly",
            Self::Broken => "broken",
        }
    }
}

/// Whether rounds begin for an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Circuit {
    /// As its policies want.
    Closed,
    /// Only now and then, to see whether it works again.
    Open,
}

impl Circuit {
    /// The word used in metrics and documents.
    pub fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
        }
    }
}

/// The failures of an engine in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backoff {
    failed: u32,
    broken: u32,
    retry_at: Option<Timestamp>,
}

impl Backoff {
    /// A round of an engine has ended; `who` is who looks at it.
    pub(super) fn ended(&mut self, who: &str, engine: &str, health: Health, now: Timestamp) {
        self.failed = if health == Health::Well { 0 } else { self.failed.saturating_add(1) };
        self.broken = if health == Health::Broken { self.broken.saturating_add(1) } else { 0 };
        self.retry_at = (self.failed > 0).then(|| wait(who, engine, self.failed).after(now));
    }

    /// A round went well as far as it went; how the rest ends is not known.
    pub(super) fn goes_on(&mut self) {
        self.broken = 0;
        self.retry_at = None;
    }

    /// Whether rounds begin.
    pub fn circuit(&self) -> Circuit {
        if self.broken >= BROKEN_MAX { Circuit::Open } else { Circuit::Closed }
    }

    /// When it is tried again.
    pub fn retry_at(&self) -> Option<Timestamp> {
        self.retry_at
    }
}

/// How long to wait after so many failures: twice as long each time, and between half and all of it,
/// differently for each process, engine and time, so that what failed together is not tried together.
fn wait(who: &str, engine: &str, failed: u32) -> Elapsed {
    let doubled = FIRST_RETRY.as_seconds() << failed.saturating_sub(1).min(16);
    let longest = doubled.min(LAST_RETRY.as_seconds());
    let digest = Sha256::digest(format!("{who}retry\n{engine}\n{failed}").as_bytes());
    Elapsed::seconds(longest / 2 + longest * i64::from(digest[0]) / 510)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_last_and_differ() {
        let waits: Vec<i64> = (1..40).map(|failed| wait("", "a", failed).as_seconds()).collect();
        assert!((30..=60).contains(&waits[0]), "{waits:?}");
        assert!(waits.iter().all(|wait| (30..=900).contains(wait)), "{waits:?}");
        assert!(waits[10..].iter().all(|wait| *wait >= 450), "{waits:?}");
        for (who, engine) in [("", "b"), ("elsewhere", "a")] {
            let others: Vec<i64> =
                (1..40).map(|failed| wait(who, engine, failed).as_seconds()).collect();
            assert_ne!(waits, others, "{who} {engine}");
        }
    }
}
