//! What comes of requests, and when they are sent again.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::wire::{ErrorEnvelope, Operation};
use crate::engine::EngineError;
use crate::engine::http::{Call, HttpError, Method, id_of, shortened};

/// How often a request is sent again that the service could not take or whose answer was lost.
const REPEATS_MAX: u32 = 5;
/// How often a request waits for the next minute of its quota.
const MINUTES_MAX: u32 = 10;
/// The first pause before a request is sent again.
const PAUSE_FIRST: Duration = Duration::from_secs(1);

/// Whether it comes to the same when a request is carried out twice: it only reads, the service
/// knows it again by its request id, or it is bound to a fingerprint.
pub fn is_repeatable(call: &Call) -> bool {
    let is_bound = |body: &Value| {
        let fingerprint = body.get("labelFingerprint").or_else(|| body.pointer("/policy/etag"));
        fingerprint.and_then(Value::as_str).is_some_and(|fingerprint| !fingerprint.is_empty())
    };
    call.method == Method::Get
        || call.query.iter().any(|(name, _)| *name == "requestId")
        || call.body.as_ref().is_some_and(is_bound)
}

/// The request id of a request (UUID version 5): a function of all that is asked for, of what was
/// seen of that before, and of how many earlier requests for the same have come to their end.
/// Whoever asks for the same again, in this run or in another one, is known again by the service.
pub fn request_id(call: &Call, endpoint: &str, seen: &str, attempt: u32) -> String {
    let method = format!("{:?}", call.method);
    let asked = (endpoint, method, &call.path, &call.query, &call.body);
    id_of(&json!([asked, seen, attempt]))
}

/// Why a request brought no answer that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The service has refused it, or it went wrong in the operation it began.
    #[error("{message} ({reason})")]
    Answered {
        /// The HTTP status; 0 where an operation failed without one.
        status: u16,
        /// `notFound`, `rateLimitExceeded`, `QUOTA_EXCEEDED`, …
        reason: String,
        /// For people.
        message: String,
    },
    /// No answer came. It may have been carried out.
    #[error("no answer: {0}")]
    Unanswered(String),
    /// An answer came that is not what was asked for.
    #[error("the answer cannot be read: {0}")]
    Unreadable(String),
    /// There is no token to send.
    #[error("{0}")]
    Token(String),
    /// It was not sent, or not again: it may not be any more.
    #[error("{0}")]
    Withheld(EngineError),
}

impl CallError {
    /// What an answer says that is not a success.
    pub fn from_answer(status: u16, body: &[u8]) -> Self {
        let (reason, message) = match serde_json::from_slice::<ErrorEnvelope>(body) {
            Ok(ErrorEnvelope { error }) => {
                let mut reasons = error.errors.into_iter().chain(error.details);
                let reason = reasons.next().map(|first| first.reason);
                let reason = reason.filter(|reason| !reason.is_empty()).unwrap_or(error.status);
                (reason, error.message)
            }
            Err(_) => (String::new(), String::new()),
        };
        let or = |text: String, other: String| if text.is_empty() { other } else { text };
        Self::Answered {
            status,
            reason: or(reason, format!("HTTP {status}")),
            message: shortened(&or(message, "the service refused the request".to_owned())),
        }
    }

    /// What went wrong in an operation that is done, if something did.
    pub fn from_operation(operation: &Operation) -> Option<Self> {
        let status = operation.http_error_status_code.unwrap_or(0);
        let first = operation.error.as_ref().map(|error| error.errors.first());
        if first.is_none() && status < 400 {
            return None;
        }
        let first = first.flatten();
        let said = |text: Option<&String>| text.filter(|text| !text.is_empty()).cloned();
        let reason = said(first.map(|first| &first.code));
        let message =
            said(first.map(|first| &first.message)).or(operation.http_error_message.clone());
        Some(Self::Answered {
            status,
            reason: reason.unwrap_or_else(|| "the operation failed".to_owned()),
            message: shortened(&message.unwrap_or_else(|| "the service says no more".to_owned())),
        })
    }

    fn reason(&self) -> &str {
        match self {
            Self::Answered { reason, .. } => reason,
            _ => "",
        }
    }

    fn status(&self) -> u16 {
        match self {
            Self::Answered { status, .. } => *status,
            _ => 0,
        }
    }

    /// Whether the resource is not there.
    pub fn is_gone(&self) -> bool {
        self.status() == 404 || self.reason() == "RESOURCE_NOT_FOUND"
    }

    /// Whether the service does not know such a request: there is nothing of the kind.
    pub fn is_not_offered(&self) -> bool {
        self.is_gone() || self.status() == 501
    }

    /// Whether something of the same name is there.
    pub fn is_taken(&self) -> bool {
        matches!(self.reason(), "alreadyExists" | "ALREADY_EXISTS" | "RESOURCE_ALREADY_EXISTS")
    }

    /// Whether a fingerprint was not that of the resource any more.
    pub fn is_stale(&self) -> bool {
        self.status() == 412 || self.reason() == "CONDITION_NOT_MET"
    }

    /// Whether somebody else changed the same at the same time, so that nothing was changed.
    pub fn is_conflict(&self) -> bool {
        self.is_stale() || self.status() == 409
    }

    /// Whether the service does not know who asks: the token has ended, or is none.
    pub fn is_unknown_to(&self) -> bool {
        self.status() == 401
    }

    /// Whether the service must be switched on first.
    pub fn is_switched_off(&self) -> bool {
        matches!(self.reason(), "accessNotConfigured" | "SERVICE_DISABLED")
    }

    /// Whether who asks may not do that.
    pub fn is_forbidden(&self) -> bool {
        self.status() == 403
    }

    /// Whether it is not known if the request was carried out.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Unanswered(_) | Self::Unreadable(_)) || self.status() >= 500
    }

    /// Whether it is certain that nothing was begun: the service has refused the request at once, or it
    /// was never sent. Where something of the name is there, somebody has begun it.
    pub fn is_refusal(&self) -> bool {
        let is_refused = (400..500).contains(&self.status()) && !matches!(self.status(), 408 | 409);
        is_refused || matches!(self, Self::Token(_) | Self::Withheld(_))
    }

    /// Whether what was asked for is nothing that the service does, whoever asks and however often.
    pub fn is_invalid(&self) -> bool {
        self.status() == 400 && !self.is_passing()
    }

    /// Whether its source has had too many images taken of it lately.
    pub fn is_too_soon(&self) -> bool {
        self.reason() == "RESOURCE_OPERATION_RATE_EXCEEDED"
    }

    /// Whether the quota of the minute is used up.
    pub fn is_rate(&self) -> bool {
        let is_named = matches!(self.reason(), "rateLimitExceeded" | "userRateLimitExceeded");
        self.status() == 429 || (self.status() == 403 && is_named)
    }

    /// Whether it may not be sent any more.
    pub fn is_withheld(&self) -> bool {
        matches!(self, Self::Withheld(_))
    }

    fn is_passing(&self) -> bool {
        matches!(self, Self::Unanswered(_))
            || matches!(self.status(), 500 | 502 | 503 | 504)
            || self.reason() == "resourceNotReady"
    }
}

/// How often a request was sent again, and why.
#[derive(Debug, Clone, Copy, Default)]
pub struct Repeats {
    passing: u32,
    minutes: u32,
}

impl Repeats {
    /// How long to wait before the request is sent again; `None` where it is given up. `spread`
    /// keeps requests apart that wait for the same minute.
    pub fn pause(
        &mut self,
        call: &Call,
        error: &CallError,
        now: Timestamp,
        spread: Duration,
    ) -> Option<Duration> {
        // What the quota did not let in was not carried out.
        if error.is_rate() && self.minutes < MINUTES_MAX {
            self.minutes += 1;
            let into_minute = u64::try_from(now.as_second().rem_euclid(60)).unwrap_or(0);
            return Some(Duration::from_secs(60 - into_minute) + spread);
        }
        if error.is_passing() && is_repeatable(call) && self.passing < REPEATS_MAX {
            self.passing += 1;
            return Some(PAUSE_FIRST * 2u32.pow(self.passing - 1));
        }
        None
    }
}

impl From<CallError> for EngineError {
    fn from(error: CallError) -> Self {
        if let CallError::Withheld(why) = error {
            return why;
        }
        let text = error.to_string();
        match (error.status(), error.reason()) {
            (_, "RESOURCE_OPERATION_RATE_EXCEEDED") => Self::Busy(format!(
                "{text}; a source takes one image in 10 minutes and six in an hour, the next run tries again"
            )),
            (_, "resourceNotReady" | "RESOURCE_NOT_READY") => Self::Busy(text),
            (_, "resourceInUseByAnotherResource" | "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE") => {
                Self::Refused(text)
            }
            (_, "quotaExceeded" | "QUOTA_EXCEEDED") => {
                Self::Refused(format!("{text}; ask for more, or keep less"))
            }
            (_, _) if error.is_rate() => Self::Busy(text),
            (401, _) => Self::Failed(format!(
                "{text}; the access token is not taken: `stillframe doctor` says where it comes from"
            )),
            (400 | 403, _) => Self::Refused(text),
            _ => Self::Failed(text),
        }
    }
}

impl From<HttpError> for CallError {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Unanswered(why) => Self::Unanswered(why),
            HttpError::Unreadable(why) => Self::Unreadable(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, reason: &str) -> CallError {
        let body = serde_json::json!({"error": {"code": status, "message": "no", "errors": [{"reason": reason}]}});
        CallError::from_answer(status, body.to_string().as_bytes())
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn a_used_up_minute_is_waited_out() {
        let call = Call::post("projects/p/global/images");
        for error in [
            answered(403, "rateLimitExceeded"),
            answered(429, "x"),
            answered(403, "userRateLimitExceeded"),
        ] {
            let mut repeats = Repeats::default();
            let pause = repeats.pause(&call, &error, at(42), Duration::from_secs(1));
            assert_eq!(pause, Some(Duration::from_secs(19)));
        }
        let mut repeats = Repeats::default();
        let error = answered(403, "rateLimitExceeded");
        let pauses = std::iter::from_fn(|| repeats.pause(&call, &error, at(0), Duration::ZERO));
        assert_eq!(pauses.count(), 10);
    }

    #[test]
    fn only_what_comes_to_the_same_is_sent_again() {
        let unanswered = CallError::Unanswered("cut off".to_owned());
        let tried = |call: &Call, error: &CallError| {
            let mut repeats = Repeats::default();
            std::iter::from_fn(|| repeats.pause(call, error, at(0), Duration::ZERO)).count()
        };
        let post = Call::post("projects/p/global/images");
        assert_eq!(tried(&post, &unanswered), 0);
        assert_eq!(tried(&post.clone().with("requestId", "x"), &unanswered), 5);
        assert_eq!(tried(&Call::get("projects/p"), &unanswered), 5);
        let bound = post.clone().with_body(&serde_json::json!({"labelFingerprint": "x"})).unwrap();
        assert_eq!(tried(&bound, &answered(503, "backendError")), 5);
        for error in [
            answered(403, "quotaExceeded"),
            answered(403, "forbidden"),
            answered(404, "notFound"),
            answered(412, "conditionNotMet"),
        ] {
            assert_eq!(tried(&Call::get("projects/p"), &error), 0, "{error}");
        }
    }

    #[test]
    fn an_operation_that_is_done_may_have_failed() {
        let read = |text: &str| serde_json::from_str::<Operation>(text).unwrap();
        assert_eq!(CallError::from_operation(&read(r#"{"name": "o", "status": "DONE"}"#)), None);
        let failed = read(
            r#"{"name": "o", "status": "DONE", "error": {"errors": [{"code": "QUOTA_EXCEEDED", "message": "full"}]}}"#,
        );
        let error = CallError::from_operation(&failed).unwrap();
        assert_eq!(error.to_string(), "full (QUOTA_EXCEEDED)");
        assert!(matches!(EngineError::from(error), EngineError::Refused(_)));
        // An error without entries is an error.
        assert!(
            CallError::from_operation(&read(r#"{"name": "o", "status": "DONE", "error": {}}"#))
                .is_some()
        );
        assert!(
            CallError::from_operation(&read(
                r#"{"name": "o", "status": "DONE", "httpErrorStatusCode": 409}"#
            ))
            .is_some()
        );
    }

    #[test]
    fn only_what_was_refused_at_once_was_certainly_not_begun() {
        for (error, is_refusal) in [
            (answered(400, "invalid"), true),
            (answered(403, "quotaExceeded"), true),
            (answered(429, "rateLimitExceeded"), true),
            (CallError::Token("none".to_owned()), true),
            (CallError::Withheld(EngineError::Changed), true),
            (answered(408, "timeout"), false),
            (answered(409, "alreadyExists"), false),
            (answered(503, "backendError"), false),
            (answered(302, "x"), false),
            (answered(0, "QUOTA_EXCEEDED"), false),
            (CallError::Unanswered("cut off".to_owned()), false),
            (CallError::Unreadable("cut off".to_owned()), false),
        ] {
            assert_eq!(error.is_refusal(), is_refusal, "{error}");
        }
    }

    #[test]
    fn an_answer_that_is_not_json_has_its_status() {
        let error = CallError::from_answer(502, b"<html>bad gateway</html>");
        assert_eq!(error.to_string(), "the service refused the request (HTTP 502)");
        assert!(error.is_open());
    }
}
