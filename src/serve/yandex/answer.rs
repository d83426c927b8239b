//! Answers: a value, or a status as `google.rpc` has them, in JSON.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::engine::EngineError;
use crate::serve::{Content, Reply};

/// What a request comes to.
pub type Answer = Result<Value, Refusal>;

/// The codes of `google.rpc.Code`, and the status of HTTP that goes with each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Code {
    /// What was asked for is not as it must be.
    InvalidArgument,
    /// There is no such thing.
    NotFound,
    /// There is one already.
    AlreadyExists,
    /// Who asks may not do that.
    PermissionDenied,
    /// A quota is used up.
    ResourceExhausted,
    /// It is not in a state for that.
    FailedPrecondition,
    /// Somebody else was at it.
    Aborted,
    /// This server does not do that.
    Unimplemented,
    /// It went wrong.
    Internal,
    /// It may go better the next time.
    Unavailable,
    /// Nobody knows who asks.
    Unauthenticated,
}

impl Code {
    /// Its number.
    pub fn number(self) -> u8 {
        match self {
            Self::InvalidArgument => 3,
            Self::NotFound => 5,
            Self::AlreadyExists => 6,
            Self::PermissionDenied => 7,
            Self::ResourceExhausted => 8,
            Self::FailedPrecondition => 9,
            Self::Aborted => 10,
            Self::Unimplemented => 12,
            Self::Internal => 13,
            Self::Unavailable => 14,
            Self::Unauthenticated => 16,
        }
    }

    /// The status of HTTP.
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidArgument | Self::FailedPrecondition => 400,
            Self::Unauthenticated => 401,
            Self::PermissionDenied => 403,
            Self::NotFound => 404,
            Self::AlreadyExists | Self::Aborted => 409,
            Self::ResourceExhausted => 429,
            Self::Internal => 500,
            Self::Unimplemented => 501,
            Self::Unavailable => 503,
        }
    }
}

/// Why a request is not answered with what it asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What kind of refusal it is.
    pub code: Code,
    /// What is said to people.
    pub message: String,
    /// When it may be asked again, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u32>,
}

impl Refusal {
    /// A refusal.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_seconds: None }
    }

    /// What was asked for is not as it must be.
    pub fn invalid(field: &str, why: &str) -> Self {
        Self::new(Code::InvalidArgument, format!("Request validation error: {field}: {why}"))
    }

    /// There is no such thing.
    pub fn not_found(what: &str, id: &str) -> Self {
        Self::new(Code::NotFound, format!("{what} {id} not found"))
    }

    /// This server does not do that.
    pub fn not_done(what: &str) -> Self {
        Self::new(Code::Unimplemented, format!("this server does not do {what}"))
    }

    /// It is not in a state for that.
    pub fn not_now(message: impl Into<String>) -> Self {
        Self::new(Code::FailedPrecondition, message)
    }

    /// Not everything can be seen, so that an answer would be wrong.
    pub fn unseen(message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, message)
    }

    /// The server stops before it is done.
    pub fn stopped() -> Self {
        Self::new(Code::Unavailable, "the server was stopped before this had ended")
    }

    /// As `google.rpc.Status`.
    pub fn json(&self) -> Value {
        json!({"code": self.code.number(), "message": self.message, "details": []})
    }
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        let code = match &error {
            EngineError::NotFound => Code::NotFound,
            EngineError::NameTaken(_) => Code::AlreadyExists,
            EngineError::Changed => Code::Aborted,
            EngineError::Busy(_) => Code::FailedPrecondition,
            EngineError::Refused(_) => Code::InvalidArgument,
            EngineError::Failed(_) | EngineError::Interrupted => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}

/// The reply to an answer.
pub fn reply(answer: Answer) -> Reply {
    match answer {
        Ok(body) => Reply::new(200, Content::Json(body)),
        Err(refusal) => {
            let mut reply = Reply::new(refusal.code.status(), Content::Json(refusal.json()));
            let after = refusal.retry_after_seconds;
            reply.headers.extend(after.map(|seconds| ("retry-after", seconds.to_string())));
            reply
        }
    }
}

/// JSON that leaves out what says nothing, as the API does: zeros, empty texts and lists.
pub fn without_defaults(fields: Map<String, Value>) -> Value {
    let says_something = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty() && text != "0",
        Value::Array(elements) => !elements.is_empty(),
        Value::Object(object) => !object.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    };
    Value::Object(fields.into_iter().filter(|(_, value)| says_something(value)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_a_status() {
        let mut refusal = Refusal::not_found("Image", "x");
        refusal.retry_after_seconds = Some(7);
        let reply = reply(Err(refusal));
        assert_eq!(reply.status, 404);
        assert_eq!(reply.headers, [("retry-after", "7".to_owned())]);
        let Content::Json(body) = reply.content else { panic!("it has a body") };
        assert_eq!(body, json!({"code": 5, "message": "Image x not found", "details": []}));
    }

    #[test]
    fn what_says_nothing_is_left_out() {
        let Value::Object(fields) = json!({"a": "", "b": "0", "c": "1", "d": [], "e": false})
        else {
            panic!("it is an object")
        };
        assert_eq!(without_defaults(fields), json!({"c": "1"}));
    }
}
