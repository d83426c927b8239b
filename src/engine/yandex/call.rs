//! What comes of requests, and when they are sent again.

use std::time::Duration;

use super::wire::Status;
use crate::engine::http::{Answer, HttpError, shortened};
use crate::engine::{EngineError, ImportUri};

/// How often a request is sent again that the service could not take or whose answer was lost.
const REPEATS_MAX: u32 = 5;
/// How often a request waits because there were too many.
const WAITS_MAX: u32 = 12;
/// The first and the longest pause before a request is sent again.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_LONGEST: Duration = Duration::from_secs(30);

/// Codes of `google.rpc`.
const CODE_NOT_FOUND: u16 = 5;
const CODE_ALREADY_EXISTS: u16 = 6;
const CODE_PERMISSION_DENIED: u16 = 7;
const CODE_RESOURCE_EXHAUSTED: u16 = 8;
const CODE_FAILED_PRECONDITION: u16 = 9;
const CODE_ABORTED: u16 = 10;
const CODE_INTERNAL: u16 = 13;
const CODE_UNAUTHENTICATED: u16 = 16;

/// Why a request brought no answer that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The service has refused it, or it went wrong in the operation it began.
    #[error("{message} ({})", word(*.status, *.code))]
    Answered {
        /// The HTTP status; 0 where an operation failed.
        status: u16,
        /// The code of `google.rpc`; 0 where the answer has none.
        code: u16,
        /// For people.
        message: String,
        /// When the service wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// No answer came, or one that is not what was asked for.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// There is no token to send.
    #[error("{0}")]
    Token(String),
    /// It was not sent, or not again: it may not be any more.
    #[error("{0}")]
    Withheld(EngineError),
}

fn word(status: u16, code: u16) -> String {
    let word = match code {
        3 => "INVALID_ARGUMENT",
        CODE_NOT_FOUND => "NOT_FOUND",
        CODE_ALREADY_EXISTS => "ALREADY_EXISTS",
        CODE_PERMISSION_DENIED => "PERMISSION_DENIED",
        CODE_RESOURCE_EXHAUSTED => "RESOURCE_EXHAUSTED",
        CODE_FAILED_PRECONDITION => "FAILED_PRECONDITION",
        CODE_ABORTED => "ABORTED",
        12 => "UNIMPLEMENTED",
        CODE_INTERNAL => "INTERNAL",
        14 => "UNAVAILABLE",
        CODE_UNAUTHENTICATED => "UNAUTHENTICATED",
        0 => return format!("HTTP {status}"),
        other => return format!("code {other}"),
    };
    word.to_owned()
}

impl CallError {
    /// What an answer says that is not a success.
    pub fn from_answer(answer: &Answer) -> Self {
        let status: Status = serde_json::from_slice(&answer.body).unwrap_or_default();
        let message = Some(status.message).filter(|message| !message.is_empty());
        let message = message.unwrap_or_else(|| "the service refused the request".to_owned());
        Self::Answered {
            status: answer.status,
            code: status.code,
            message: shortened(&message),
            retry_after: answer.retry_after,
        }
    }

    /// What went wrong in an operation that is done.
    pub fn from_operation(error: &Status) -> Self {
        let message = Some(&error.message).filter(|message| !message.is_empty());
        Self::Answered {
            status: 0,
            code: if error.code == 0 { CODE_INTERNAL } else { error.code },
            message: message.map_or("the service says no more".to_owned(), |text| shortened(text)),
            retry_after: None,
        }
    }

    /// The same without what is secret of a URL that was sent: services quote what they refuse.
    #[must_use]
    pub fn without_secret(self, uri: &ImportUri) -> Self {
        match self {
            Self::Answered { status, code, message, retry_after } => {
                let message = uri.without_secret(&message);
                Self::Answered { status, code, message, retry_after }
            }
            other => other,
        }
    }

    fn codes(&self) -> (u16, u16) {
        match self {
            Self::Answered { status, code, .. } => (*status, *code),
            Self::Http(_) | Self::Token(_) | Self::Withheld(_) => (0, 0),
        }
    }

    fn is(&self, status: u16, code: u16) -> bool {
        let (is_status, is_code) = self.codes();
        is_code == code || (is_code == 0 && is_status == status)
    }

    /// Whether there is no such thing.
    pub fn is_gone(&self) -> bool {
        self.is(404, CODE_NOT_FOUND)
    }

    /// Whether something of the same name is there.
    pub fn is_taken(&self) -> bool {
        self.codes().1 == CODE_ALREADY_EXISTS
    }

    /// Whether the service does not know who asks: the token has ended, or is none.
    pub fn is_unknown_to(&self) -> bool {
        self.is(401, CODE_UNAUTHENTICATED)
    }

    /// Whether who asks may not do that.
    pub fn is_forbidden(&self) -> bool {
        self.is(403, CODE_PERMISSION_DENIED)
    }

    /// Whether it is not known if the request was carried out.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Http(_)) || self.codes().0 >= 500
    }

    /// Whether there were too many requests, or too many operations at once. A quota of what there may
    /// be has the same code, and another status, or none where it stands in an operation.
    pub fn is_rate(&self) -> bool {
        self.is_crowded() || (self.codes().0 == 429 && !self.is_quota())
    }

    /// Whether as many operations are under way as may be at once, which passes: nothing was begun, or
    /// it came to nothing. Its own words tell it from a quota: `The limit on maximum number of active
    /// operations has exceeded.`
    pub fn is_crowded(&self) -> bool {
        let Self::Answered { code, message, .. } = self else { return false };
        *code == CODE_RESOURCE_EXHAUSTED && message.to_lowercase().contains("active operations")
    }

    /// Whether more than there may be was asked for, which waiting does not help. The service has one
    /// code for both, so what it says must tell.
    fn is_quota(&self) -> bool {
        let Self::Answered { status, code, message, .. } = self else { return false };
        let said = message.to_lowercase();
        let is_of_count = said.contains("quota") || said.contains("limit on");
        !self.is_crowded() && *code == CODE_RESOURCE_EXHAUSTED && (*status == 0 || is_of_count)
    }

    /// Whether it may not be sent any more.
    pub fn is_withheld(&self) -> bool {
        matches!(self, Self::Withheld(_))
    }

    fn is_passing(&self) -> bool {
        matches!(self, Self::Http(HttpError::Unanswered(_)))
            || matches!(self.codes().0, 500 | 502 | 503 | 504)
            || self.codes() == (409, CODE_ABORTED)
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Answered { retry_after, .. } => *retry_after,
            Self::Http(_) | Self::Token(_) | Self::Withheld(_) => None,
        }
    }
}

/// How often a request was sent again, and why.
#[derive(Debug, Clone, Copy, Default)]
pub struct Repeats {
    passing: u32,
    waits: u32,
}

impl Repeats {
    /// How long to wait before the request is sent again; `None` where it is given up.
    pub fn pause(&mut self, is_repeatable: bool, error: &CallError) -> Option<Duration> {
        let pause = |times: u32| (PAUSE_FIRST * 2u32.pow(times.min(10))).min(PAUSE_LONGEST);
        // What was too much was not carried out.
        if error.is_rate() && self.waits < WAITS_MAX {
            self.waits += 1;
            return Some(error.retry_after().unwrap_or_else(|| pause(self.waits - 1)));
        }
        if error.is_passing() && is_repeatable && self.passing < REPEATS_MAX {
            self.passing += 1;
            return Some(error.retry_after().unwrap_or_else(|| pause(self.passing - 1)));
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
        if error.is_quota() {
            return Self::Refused(format!("{text}; ask for more, or keep less"));
        }
        if error.is_rate() {
            return Self::Busy(text);
        }
        if error.is_unknown_to() {
            return Self::Failed(format!(
                "{text}; the token is not taken: `stillframe doctor` says where it comes from"
            ));
        }
        match error.codes() {
            (_, CODE_FAILED_PRECONDITION | CODE_ABORTED) => Self::Busy(text),
            (400 | 403, _) | (_, 3 | CODE_PERMISSION_DENIED) => Self::Refused(text),
            _ => Self::Failed(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, code: u16, message: &str) -> CallError {
        let body = serde_json::json!({"code": code, "message": message}).to_string().into_bytes();
        CallError::from_answer(&Answer { status, retry_after: None, body })
    }

    #[test]
    fn too_many_requests_are_told_from_too_many_images() {
        let rate = answered(429, 8, "The limit of requests is exceeded");
        let quota = answered(429, 8, "The limit on total number of snapshots has exceeded.");
        assert!(rate.is_rate() && !quota.is_rate());
        assert!(matches!(EngineError::from(quota), EngineError::Refused(_)));
        let failed = CallError::from_operation(&Status { code: 8, message: "full".to_owned() });
        assert!(matches!(EngineError::from(failed), EngineError::Refused(_)));
    }

    #[test]
    fn too_many_operations_at_once_are_no_quota() {
        let said = "The limit on maximum number of active operations has exceeded.";
        let failed = CallError::from_operation(&Status { code: 8, message: said.to_owned() });
        for error in [answered(429, 8, said), failed] {
            assert!(error.is_crowded() && error.is_rate(), "{error}");
            assert!(matches!(EngineError::from(error), EngineError::Busy(_)));
        }
        assert!(!answered(429, 8, "The limit on total number of snapshots").is_crowded());
        assert!(!answered(400, 9, "it has active operations").is_crowded());
    }

    #[test]
    fn the_service_says_when_to_come_back() {
        let mut error = answered(429, 8, "slow down");
        if let CallError::Answered { retry_after, .. } = &mut error {
            *retry_after = Some(Duration::from_secs(7));
        }
        let mut repeats = Repeats::default();
        assert_eq!(repeats.pause(false, &error), Some(Duration::from_secs(7)));
        let error = answered(429, 8, "slow down");
        let pauses: Vec<_> = std::iter::from_fn(|| repeats.pause(false, &error)).collect();
        assert_eq!((pauses.len(), pauses.last()), (11, Some(&PAUSE_LONGEST)));
    }

    #[test]
    fn only_what_comes_to_the_same_is_sent_again() {
        let tried = |is_repeatable: bool, error: &CallError| {
            let mut repeats = Repeats::default();
            std::iter::from_fn(|| repeats.pause(is_repeatable, error)).count()
        };
        let lost = CallError::Http(HttpError::Unanswered("cut off".to_owned()));
        assert_eq!((tried(false, &lost), tried(true, &lost)), (0, 5));
        assert_eq!(tried(true, &answered(503, 14, "away")), 5);
        for error in [
            answered(400, 3, "no"),
            answered(403, 7, "no"),
            answered(404, 5, "no"),
            answered(409, 6, "taken"),
        ] {
            assert_eq!(tried(true, &error), 0, "{error}");
        }
    }

    #[test]
    fn an_answer_that_is_not_json_has_its_status() {
        let answer = Answer { status: 502, retry_after: None, body: b"<html>".to_vec() };
        let error = CallError::from_answer(&answer);
        assert_eq!(error.to_string(), "the service refused the request (HTTP 502)");
        assert!(error.is_open());
        let gone = Answer { status: 404, retry_after: None, body: Vec::new() };
        assert!(CallError::from_answer(&gone).is_gone());
    }
}
