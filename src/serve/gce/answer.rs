//! Answers: a value, or a refusal in the envelope that clients know.

use serde_json::{Value, json};

use crate::engine::EngineError;
use crate::serve::shelf::ShelfError;
use crate::serve::{Content, Reply};

impl From<ShelfError> for Refusal {
    fn from(error: ShelfError) -> Self {
        Self { status: 500, reason: "internalError", message: error.to_string() }
    }
}

/// What a request comes to.
pub type Answer = Result<Value, Refusal>;

/// Why a request is not answered with what it asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status of HTTP.
    pub status: u16,
    /// The reason, from the list of the API.
    pub reason: &'static str,
    /// What is said to people.
    pub message: String,
}

impl Refusal {
    /// A field holds what it must not hold.
    pub fn invalid(field: &str, value: &str, why: &str) -> Self {
        Self::bad(format!("Invalid value for field '{field}': '{value}'. {why}"))
    }

    /// The request cannot be understood.
    pub fn bad(message: impl Into<String>) -> Self {
        Self { status: 400, reason: "invalid", message: message.into() }
    }

    /// A field is missing.
    pub fn required(field: &str) -> Self {
        let message = format!("Required field '{field}' not specified");
        Self { status: 400, reason: "required", message }
    }

    /// There is no such thing; `path` begins with `projects/`.
    pub fn not_found(path: &str) -> Self {
        let message = format!("The resource '{path}' was not found");
        Self { status: 404, reason: "notFound", message }
    }

    /// The name is taken.
    pub fn exists(path: &str) -> Self {
        let message = format!("The resource '{path}' already exists");
        Self { status: 409, reason: "alreadyExists", message }
    }

    /// The labels are not those that the change was made over.
    pub fn stale_labels() -> Self {
        let message =
            "Labels fingerprint either invalid or resource labels have changed".to_owned();
        Self { status: 412, reason: "conditionNotMet", message }
    }

    /// Something else needs it.
    pub fn in_use(link: &str, user: &str) -> Self {
        Self {
            status: 400,
            reason: "resourceInUseByAnotherResource",
            message: format!("The resource '{link}' is already being used by '{user}'"),
        }
    }

    /// The server stops before it is done.
    pub fn stopped() -> Self {
        let message = "the server was stopped before this had ended".to_owned();
        Self { status: 503, reason: "backendError", message }
    }

    /// Something in the way that may pass.
    pub fn not_ready(message: impl Into<String>) -> Self {
        Self { status: 400, reason: "resourceNotReady", message: message.into() }
    }

    /// This server does not do that.
    pub fn not_done(what: &str) -> Self {
        let message = format!("this server does not do {what}");
        Self { status: 501, reason: "notImplemented", message }
    }

    /// Not everything can be seen, so that an answer would be wrong.
    pub fn unseen(message: impl Into<String>) -> Self {
        Self { status: 503, reason: "backendError", message: message.into() }
    }

    fn word(&self) -> &'static str {
        match (self.status, self.reason) {
            (_, "rateLimitExceeded" | "quotaExceeded") => "RESOURCE_EXHAUSTED",
            (_, "resourceNotReady" | "resourceInUseByAnotherResource") | (412, _) => {
                "FAILED_PRECONDITION"
            }
            (400, _) => "INVALID_ARGUMENT",
            (401, _) => "UNAUTHENTICATED",
            (403, _) => "PERMISSION_DENIED",
            (404, _) => "NOT_FOUND",
            (409, _) => "ALREADY_EXISTS",
            (501, _) => "UNIMPLEMENTED",
            (503, _) => "UNAVAILABLE",
            _ => "INTERNAL",
        }
    }
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        let message = error.to_string();
        match error {
            EngineError::NotFound => Self { status: 404, reason: "notFound", message },
            EngineError::NameTaken(_) => Self { status: 409, reason: "alreadyExists", message },
            EngineError::Changed => Self::stale_labels(),
            EngineError::Busy(_) => Self::not_ready(message),
            EngineError::Refused(_) => Self::bad(message),
            EngineError::Failed(_) | EngineError::Interrupted => {
                Self { status: 500, reason: "internalError", message }
            }
        }
    }
}

/// The reply to an answer. An empty value has no body.
pub fn reply(answer: Answer) -> Reply {
    match answer {
        Ok(Value::Null) => Reply::new(204, Content::None),
        Ok(body) => Reply::new(200, Content::Json(body)),
        Err(refusal) => Reply::new(
            refusal.status,
            Content::Json(json!({"error": {
                "code": refusal.status,
                "message": refusal.message,
                "status": refusal.word(),
                "errors": [{
                    "message": refusal.message,
                    "domain": "global",
                    "reason": refusal.reason,
                }],
            }})),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_all_that_clients_look_at() {
        let reply = reply(Err(Refusal::not_found("projects/p/global/images/x")));
        let Content::Json(body) = &reply.content else { panic!("it has a body") };
        let error = &body["error"];
        assert_eq!((reply.status, &error["code"]), (404, &json!(404)));
        assert_eq!(error["status"], "NOT_FOUND");
        assert_eq!(error["message"], error["errors"][0]["message"]);
        assert_eq!(error["errors"][0]["reason"], "notFound");
        assert_eq!(error["errors"][0]["domain"], "global");
    }
}
