//! What comes of requests, and when they are sent again.

use std::time::Duration;

use serde_json::Value;

use crate::engine::EngineError;
use crate::engine::http::{Answer, HttpError, shortened};

/// How often a request is sent again that the service could not take or whose answer was lost.
const REPEATS_MAX: u32 = 5;
/// How often a request is sent again for which there were too many.
const WAITS_MAX: u32 = 10;
/// The first pause before a request is sent again.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// How long is waited where there were too many requests and the service does not say.
const WAIT: Duration = Duration::from_secs(30);

/// Why a request brought no answer that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The service has refused it.
    #[error("{message} (HTTP {status})")]
    Answered {
        /// The HTTP status.
        status: u16,
        /// For people.
        message: String,
        /// How long the service asks to wait.
        retry_after: Option<Duration>,
    },
    /// No answer came. It may have been carried out.
    #[error("no answer: {0}")]
    Unanswered(String),
    /// An answer came that is not what was asked for.
    #[error("the answer cannot be read: {0}")]
    Unreadable(String),
    /// There is no key to send.
    #[error("{0}")]
    Key(String),
}

impl CallError {
    /// What an answer says that is not a success. It is JSON of one of several shapes, or a page of
    /// HTML, of which nothing is passed on.
    pub fn from_answer(answer: &Answer) -> Self {
        let said = serde_json::from_slice::<Value>(&answer.body).ok().and_then(|body| said(&body));
        let message = said.unwrap_or_else(|| "the service refused the request".to_owned());
        Self::Answered {
            status: answer.status,
            message: shortened(message.trim()),
            retry_after: answer.retry_after,
        }
    }

    fn status(&self) -> u16 {
        match self {
            Self::Answered { status, .. } => *status,
            _ => 0,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Answered { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the resource is not there.
    pub fn is_gone(&self) -> bool {
        self.status() == 404
    }

    /// Whether the key is not taken.
    pub fn is_unknown_to(&self) -> bool {
        self.status() == 401
    }

    /// Whether who asks may not do that.
    pub fn is_forbidden(&self) -> bool {
        self.status() == 403
    }

    /// Whether it is not known if the request was carried out.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Unanswered(_) | Self::Unreadable(_)) || self.status() >= 500
    }

    fn is_passing(&self) -> bool {
        matches!(self, Self::Unanswered(_)) || matches!(self.status(), 500 | 502 | 503 | 504)
    }
}

/// `{"detail": …}`, `{"message": …}`, or fields with what is wrong with each.
fn said(body: &Value) -> Option<String> {
    for field in ["detail", "message"] {
        if let Some(text) = body.get(field).and_then(Value::as_str) {
            return Some(text.to_owned()).filter(|text| !text.is_empty());
        }
    }
    let fields = body.as_object()?.iter().filter_map(|(field, wrong)| {
        let wrong: Vec<&str> = match wrong {
            Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
            Value::String(one) => vec![one],
            _ => return None,
        };
        Some(format!("{field}: {}", wrong.join(" ")))
    });
    let fields: Vec<String> = fields.collect();
    (!fields.is_empty()).then(|| fields.join("; "))
}

/// How often a request was sent again, and why.
#[derive(Debug, Clone, Copy, Default)]
pub struct Repeats {
    passing: u32,
    waits: u32,
}

impl Repeats {
    /// How long to wait before something is asked for again that may be asked for twice; `None` where
    /// it is given up. What changes something may only where it was looked again in between.
    pub fn pause(&mut self, error: &CallError) -> Option<Duration> {
        let refused = self.pause_of_refused(error);
        if refused.is_none() && error.is_passing() && self.passing < REPEATS_MAX {
            self.passing += 1;
            let growing = PAUSE_FIRST * 2u32.pow(self.passing - 1);
            return Some(error.retry_after().unwrap_or(growing));
        }
        refused
    }

    /// The same where twice would be one too many: only what was too much was not carried out.
    pub fn pause_of_refused(&mut self, error: &CallError) -> Option<Duration> {
        if error.status() != 429 || self.waits >= WAITS_MAX {
            return None;
        }
        self.waits += 1;
        Some(error.retry_after().unwrap_or(WAIT).max(PAUSE_FIRST))
    }
}

impl From<CallError> for EngineError {
    fn from(error: CallError) -> Self {
        let text = error.to_string();
        match error.status() {
            429 => Self::Busy(format!("{text}; the next run tries again")),
            401 => Self::Failed(format!(
                "{text}; the API key is not taken: `stillframe doctor` says where it comes from"
            )),
            403 => Self::Refused(format!(
                "{text}; what other users have made only they or a tenant administrator may change"
            )),
            400 => Self::Refused(text),
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

    fn answered(status: u16, body: &str) -> CallError {
        CallError::from_answer(&Answer {
            status,
            retry_after: None,
            body: body.as_bytes().to_vec(),
        })
    }

    #[test]
    fn all_shapes_of_refusals_are_read() {
        for (body, message) in [
            (r#"{"message": "Your request is unauthorized"}"#, "Your request is unauthorized"),
            (r#"{"detail": "40401: not found"}"#, "40401: not found"),
            (
                r#"{"os": ["This field is required."], "name": "too long"}"#,
                "name: too long; os: This field is required.",
            ),
            ("<html><body>502</body></html>", "the service refused the request"),
            ("", "the service refused the request"),
            ("[]", "the service refused the request"),
            (r#"{"detail": ""}"#, "the service refused the request"),
        ] {
            assert_eq!(answered(400, body).to_string(), format!("{message} (HTTP 400)"), "{body}");
        }
    }

    #[test]
    fn an_image_is_never_asked_for_twice_by_itself() {
        type Pause = fn(&mut Repeats, &CallError) -> Option<Duration>;
        let tried = |pause: Pause, error: &CallError| {
            let mut repeats = Repeats::default();
            std::iter::from_fn(|| pause(&mut repeats, error)).count()
        };
        let lost = CallError::Unanswered("cut off".to_owned());
        for (error, again, in_order) in [
            (lost, 5, 0),
            (answered(502, "<html>"), 5, 0),
            (answered(404, ""), 0, 0),
            (answered(429, ""), 10, 10),
            (CallError::Unreadable("a redirection".to_owned()), 0, 0),
        ] {
            assert_eq!(tried(Repeats::pause, &error), again, "{error}");
            assert_eq!(tried(Repeats::pause_of_refused, &error), in_order, "{error}");
        }
    }

    #[test]
    fn the_service_says_how_long_to_wait() {
        let mut repeats = Repeats::default();
        let error = CallError::Answered {
            status: 429,
            message: String::new(),
            retry_after: Some(Duration::from_secs(7)),
        };
        assert_eq!(repeats.pause(&error), Some(Duration::from_secs(7)));
        assert_eq!(repeats.pause_of_refused(&answered(429, "")), Some(WAIT));
    }
}
