//! Carries changes out under keys that are functions of them, so that no run asks twice.
//!
//! A run that is started again, or another one at the same time, asks for the same under the same key,
//! and the service answers with the operation that is there: it is waited for. What must not happen
//! is that a run takes the end of an earlier operation for its own. Before anything is asked for it
//! was looked whether it is still to be done, so an operation that had ended before that is none of
//! its doing, and the next key is taken. Nothing is asked for without a turn in its folder.

use std::time::Duration;

use jiff::Timestamp;

use super::YandexEngine;
use super::call::CallError;
use super::import::asked_for;
use super::room::Turn;
use super::service::{OPERATION_TIME_MAX, Service, WaitError};
use super::wire::Operation;
use crate::engine::EngineError;
use crate::engine::http::{Call, Leave, id_of, is_earlier};

/// So many operations of earlier runs are passed over before the key is one of this moment.
const ATTEMPTS_MAX: u32 = 20;

/// An operation that has ended with an error, and was begun so long before it was asked for, is an earlier
/// one: what is asked for anew may go well now, and nothing of it is there. Two clocks may be a second apart.
const FAILED_EARLIER: Duration = Duration::from_secs(1);

/// A change that was asked for.
pub(super) struct Begun {
    /// The operation, which need not be done.
    pub(super) answer: Result<Operation, CallError>,
    /// The attempt that was answered.
    attempt: u32,
    key: String,
    /// Whether an earlier try, whose answer was lost, may have been carried out.
    was_open: bool,
    /// Whether it was carried out by an earlier run, and is not asked for again.
    is_earlier: bool,
}

/// What becomes of a change that an earlier run has carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeated {
    /// It was looked whether it is still to be done: it is asked for anew.
    Anew,
    /// It must not be done a second time, however little is left of it.
    Never,
}

/// How a change ended.
pub(super) struct Ended {
    /// The operation, which is done.
    pub(super) result: Result<Operation, WaitError>,
    /// Whether anything of it may have been carried out.
    pub(super) was_begun: bool,
    /// Whether it was done as soon as it was asked for.
    pub(super) was_done: bool,
    /// The attempt that was answered.
    pub(super) attempt: u32,
}

impl YandexEngine {
    /// Asks for a change, as long as there is leave. `seen` is what was seen of what is changed;
    /// `attempt` counts what came to its end before. The turn is kept until its end.
    pub(super) async fn ask(
        &self,
        turn: &Turn,
        call: &Call,
        seen: &str,
        attempt: u32,
        leave: &dyn Leave,
    ) -> Begun {
        self.ask_for(turn, call, seen, (attempt, Repeated::Anew), leave).await
    }

    async fn ask_for(
        &self,
        _: &Turn,
        call: &Call,
        seen: &str,
        (mut attempt, repeated): (u32, Repeated),
        leave: &dyn Leave,
    ) -> Begun {
        let began = self.services.service_now().await;
        let last = attempt + ATTEMPTS_MAX;
        let method = format!("{:?}", call.method);
        let body = asked_for(call);
        loop {
            let asked = (&self.endpoint, &method, &call.path, &call.query, &body);
            // After so many that have all ended, the key is of this moment: nothing has it.
            let is_new = attempt > last;
            let key = if is_new {
                id_of(&(asked, seen, attempt, began.to_string()))
            } else {
                id_of(&(asked, seen, attempt))
            };
            if !is_new && repeated == Repeated::Anew && self.ended.has(&key) {
                attempt += 1;
                continue;
            }
            let sent = self.services.send(Service::Compute, call, Some(&key), leave).await;
            match sent {
                (Ok(operation), false) if !is_new && is_over(&operation, began) => {
                    if repeated == Repeated::Never && operation.error.is_none() {
                        let (answer, is_earlier) = (Ok(operation), true);
                        return Begun { answer, attempt, key, was_open: false, is_earlier };
                    }
                    attempt += 1;
                }
                (answer, was_open) => {
                    return Begun { answer, attempt, key, was_open, is_earlier: false };
                }
            }
        }
    }

    /// Waits for the end of what was asked for.
    pub(super) async fn end(&self, begun: Begun, leave: &dyn Leave) -> Ended {
        self.end_within(begun, leave, OPERATION_TIME_MAX).await
    }

    /// The same, and no longer than that.
    async fn end_within(&self, begun: Begun, leave: &dyn Leave, limit: Duration) -> Ended {
        let Begun { answer, attempt, key, was_open, .. } = begun;
        let is_taken_on = answer.is_ok();
        let was_done = answer.as_ref().is_ok_and(|operation| operation.done);
        let result = match answer {
            Ok(operation) => self.services.finish(operation, leave, limit).await,
            Err(error) => Err(error.into()),
        };
        if is_taken_on && !matches!(result, Err(WaitError::Interrupted)) {
            self.ended.note(key, self.clock.now());
        }
        Ended { result, was_begun: was_open || is_taken_on, was_done, attempt }
    }

    /// Carries a change out and waits for its end.
    pub(super) async fn carry_out(
        &self,
        turn: &Turn,
        call: &Call,
        seen: &str,
        leave: &dyn Leave,
    ) -> Ended {
        let begun = self.ask(turn, call, seen, 0, leave).await;
        self.end(begun, leave).await
    }

    /// The same for what must not be done a second time under its key; nothing where an earlier run has
    /// done it, as long as the service remembers that.
    pub(super) async fn carry_out_once(
        &self,
        turn: &Turn,
        call: &Call,
        seen: &str,
        leave: &dyn Leave,
    ) -> Result<Option<Operation>, EngineError> {
        let begun = self.ask_for(turn, call, seen, (0, Repeated::Never), leave).await;
        if begun.is_earlier {
            return Ok(None);
        }
        Ok(Some(self.end(begun, leave).await.result?))
    }

    /// The same for one that is not waited for for longer than that.
    pub(super) async fn change_within(
        &self,
        turn: &Turn,
        call: &Call,
        seen: &str,
        leave: &dyn Leave,
        limit: Duration,
    ) -> Result<Operation, WaitError> {
        let begun = self.ask(turn, call, seen, 0, leave).await;
        self.end_within(begun, leave, limit).await.result
    }
}

impl From<WaitError> for EngineError {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::Interrupted => Self::Interrupted,
            WaitError::Call(error) => error.into(),
        }
    }
}

/// Whether an operation is done, and was begun by an earlier run.
fn is_over(operation: &Operation, began: Timestamp) -> bool {
    let created: Option<Timestamp> = operation.created_at.parse().ok();
    let is_before = |created: Timestamp| {
        created < began && began.duration_since(created).unsigned_abs() > FAILED_EARLIER
    };
    let has_failed_before = operation.error.is_some() && created.is_some_and(is_before);
    operation.done && (has_failed_before || is_earlier(created, began))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_had_ended_before_is_of_an_earlier_run() {
        let began: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let of = |done: bool, created: &str| {
            is_over(
                &Operation { done, created_at: created.to_owned(), ..Operation::default() },
                began,
            )
        };
        assert!(of(true, "2026-11-21T11:58:00Z"));
        assert!(!of(false, "2026-11-21T11:00:00Z"));
        assert!(!of(true, "2026-11-21T11:59:55Z"));
        assert!(!of(true, "2026-11-21T12:30:00Z"));
        assert!(!of(true, ""));
        // What has ended with an error is asked for anew a second later.
        let failed = |created: &str| {
            let error = Some(crate::engine::yandex::wire::Status::default());
            let created_at = created.to_owned();
            is_over(&Operation { done: true, created_at, error, ..Operation::default() }, began)
        };
        assert!(failed("2026-11-21T11:59:58Z"));
        assert!(!failed("2026-11-21T11:59:59Z"));
        assert!(!failed("2026-11-21T12:00:01Z"));
    }
}
