//! What is waited for: told once in a while, for many requests wait for the same.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;

use crate::elapsed::Elapsed;

/// What is waited for shorter is no news.
const LONG: Duration = Duration::from_secs(5);
/// So many seconds pass until it is told again.
const EVERY: i64 = 30;

/// When a wait was told last, in seconds. Clones share it.
#[derive(Debug, Clone)]
pub struct Told(Arc<AtomicI64>);

impl Default for Told {
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(i64::MIN)))
    }
}

impl Told {
    /// Says that a request to a service is sent again after a time, and why. Where somebody else says so
    /// (`is_told`), the log has it for those who look for it.
    pub fn tell(
        &self,
        service: &str,
        why: &dyn Display,
        time: Duration,
        now: Timestamp,
        is_told: bool,
    ) {
        let seconds = Elapsed::seconds(i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
        if time >= LONG && !is_told && self.is_news(now.as_second()) {
            tracing::warn!("{service}: {why}; it is asked again in {seconds}");
        } else {
            tracing::debug!("{service}: {why}; sent again in {time:?}");
        }
    }

    /// Whether nothing was told for a while; of several who ask at once one hears so. A clock may be set back.
    fn is_news(&self, now: i64) -> bool {
        let is_old = |last: i64| now < last || now.saturating_sub(last) >= EVERY;
        let told = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| is_old(last).then_some(now));
        told.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_many_wait_for_is_told_once_in_a_while() {
        let told = Told::default();
        let news: Vec<i64> = [100, 100, 101, 129, 130, 159, 160, 20, 21]
            .into_iter()
            .filter(|now| told.is_news(*now))
            .collect();
        assert_eq!(news, [100, 130, 160, 20]);
    }
}
