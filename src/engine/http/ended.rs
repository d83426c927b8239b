//! Requests whose operations have come to their end: what a run must not take for its own doing.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use crate::elapsed::Elapsed;

/// So long it is remembered which have ended: longer than services remember the ids of requests.
const KEPT: Elapsed = Elapsed::days(2);
/// An operation that is done and was begun so long before it was asked for is an earlier one, by the
/// clock of the service.
const EARLIER: Duration = Duration::from_secs(10);

/// The ids of requests whose operations this run has seen end.
#[derive(Debug, Default)]
pub struct Ended(Mutex<BTreeMap<String, Timestamp>>);

impl Ended {
    /// Whether the operation of a request was seen to end.
    pub fn has(&self, id: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }

    /// Takes note of an end. What has ended long ago is forgotten, so that this does not grow.
    pub fn note(&self, id: String, now: Timestamp) {
        let mut ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ended.retain(|_, at| KEPT.after(*at) > now);
        ended.insert(id, now);
    }
}

/// Whether an operation that is done, and was begun at `created`, is one of an earlier run than the
/// request that was sent at `began`. What does not say when it was begun is none.
pub fn is_earlier(created: Option<Timestamp>, began: Timestamp) -> bool {
    created.is_some_and(|created| {
        began.duration_since(created).unsigned_abs() > EARLIER && created < began
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_is_forgotten_after_two_days() {
        let start: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let at = |hours: u32| Elapsed::hours(hours).after(start);
        let ended = Ended::default();
        ended.note("first".to_owned(), at(0));
        ended.note("second".to_owned(), at(47));
        assert!(ended.has("first") && ended.has("second"));
        ended.note("third".to_owned(), at(49));
        assert!(!ended.has("first"), "the service has forgotten it long ago");
        assert!(ended.has("second") && ended.has("third"));
        assert_eq!(ended.0.lock().unwrap().len(), 2, "and what is remembered does not grow");
    }

    #[test]
    fn what_had_ended_before_is_of_an_earlier_run() {
        let at = |text: &str| text.parse::<Timestamp>().ok();
        let began = at("2026-11-21T12:00:00Z").unwrap();
        assert!(is_earlier(at("2026-11-21T11:58:00Z"), began));
        assert!(is_earlier(at("2026-11-21T03:57:59.123-08:00"), began));
        assert!(!is_earlier(at("2026-11-21T11:59:55Z"), began), "the clocks are not one");
        assert!(!is_earlier(at("2026-11-21T12:30:00Z"), began));
        assert!(!is_earlier(None, began));
    }
}
