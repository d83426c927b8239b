//! Carries changes out under request ids that are functions of them, so that no run asks twice.
//!
//! A run that is started again, or another one at the same time, asks for the same under the same id,
//! and the service answers with the operation that is there: it is waited for. What must not happen
//! is that a run takes the end of an earlier operation for its own. Before anything is asked for it
//! was looked whether it is still to be done, so an operation that had ended before that is none of
//! its doing, and the next id is taken.

use std::time::Duration;

use jiff::Timestamp;

use super::GceEngine;
use super::call::request_id;
use super::http::{OPERATION_TIME_MAX, WaitError};
use super::wire::Operation;
use crate::engine::http::{Call, Leave, Method, is_earlier};

/// So many operations of earlier runs are passed over.
const ATTEMPTS_MAX: u32 = 20;

/// So long an image is made at most.
const MAKING_TIME_MAX: Duration = OPERATION_TIME_MAX;
/// So long anything else takes: it is a matter of seconds.
pub(super) const CHANGE_TIME_MAX: Duration = Duration::from_mins(30);

/// Whether a request makes an image.
fn makes(call: &Call) -> bool {
    let is_of_all = |last: &String| {
        ["machineImages", "images", "snapshots", "createSnapshot"].contains(&last.as_str())
    };
    call.method == Method::Post && call.path.last().is_some_and(is_of_all)
}

/// How a change ended.
pub(super) struct Ended {
    pub(super) result: Result<(), WaitError>,
    /// Whether an attempt may have been carried out before the one that was answered.
    pub(super) was_open: bool,
    /// Whether the service has taken the request on.
    pub(super) is_taken_on: bool,
    /// Whether it was done as soon as it was asked for.
    pub(super) was_done: bool,
    /// The attempt that was answered.
    pub(super) attempt: u32,
}

impl Ended {
    /// Whether anything of it may have been carried out.
    pub(super) fn was_begun(&self) -> bool {
        self.was_open || self.is_taken_on
    }
}

impl GceEngine {
    /// Carries a change out, as long as there is leave, and waits for its end. `seen` is what was seen of
    /// what is changed; `attempt` counts what came to its end before.
    pub(super) async fn carry_out(
        &self,
        project: &str,
        call: &Call,
        seen: &str,
        mut attempt: u32,
        leave: &dyn Leave,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Ended {
        let began = self.http.service_now();
        let last = attempt + ATTEMPTS_MAX;
        loop {
            let id = request_id(call, &self.endpoint, seen, attempt);
            if self.ended.has(&id) && attempt < last {
                attempt += 1;
                continue;
            }
            let call = call.clone().with("requestId", id.clone());
            let (answer, was_open) = self.http.send_counted::<Operation>(&call, leave).await;
            let is_taken_on = answer.is_ok();
            let was_done = answer.as_ref().is_ok_and(|operation| operation.status == "DONE");
            let result = match answer {
                Ok(operation) if is_over(&operation, began) && !was_open && attempt < last => {
                    attempt += 1;
                    continue;
                }
                Ok(operation) => {
                    let most = if makes(&call) { MAKING_TIME_MAX } else { CHANGE_TIME_MAX };
                    let finish = self.http.finish(project, operation, most, leave, progress);
                    finish.await.and_then(|ended| {
                        self.ended.note(id, self.clock.now());
                        ended.map_err(WaitError::Call)
                    })
                }
                Err(error) => Err(error.into()),
            };
            return Ended { result, was_open, is_taken_on, was_done, attempt };
        }
    }
}

/// Whether an operation is done, and was begun by an earlier run.
fn is_over(operation: &Operation, began: Timestamp) -> bool {
    let inserted = operation.insert_time.as_deref().and_then(|text| text.parse().ok());
    operation.status == "DONE" && is_earlier(inserted, began)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_had_ended_before_is_of_an_earlier_run() {
        let began: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let of = |status: &str, inserted: &str| {
            let text =
                format!(r#"{{"name": "o", "status": "{status}", "insertTime": "{inserted}"}}"#);
            is_over(&serde_json::from_str(&text).unwrap(), began)
        };
        assert!(of("DONE", "2026-11-21T03:57:59.123-08:00"));
        assert!(!of("RUNNING", "2026-11-21T03:00:00-08:00"));
        assert!(!of("DONE", "2026-11-21T11:59:55Z"));
        assert!(!of("DONE", "2026-11-21T12:30:00Z"));
        assert!(!of("DONE", ""));
    }
}
