//! Answers: a value, or a refusal in one of the shapes that the service has for them.

use serde_json::{Value, json};

use crate::engine::EngineError;
use crate::serve::shelf::ShelfError;
use crate::serve::{Content, Reply};

/// What a request comes to.
pub type Answer = Result<Good, Refusal>;

/// What was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Good {
    /// The status of HTTP.
    pub status: u16,
    /// The body, where there is one.
    pub body: Option<Value>,
}

impl Good {
    /// Something that was looked at or changed.
    pub fn of(body: Value) -> Self {
        Self { status: 200, body: Some(body) }
    }
}

/// Why a request is not answered with what it asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// The status of HTTP.
    pub status: u16,
    /// What is said.
    pub said: Said,
    /// Seconds after which to come back.
    pub retry_after: Option<u32>,
}

/// What is said in a refusal.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// Something for people, as the API says it.
    Detail(String),
    /// The same, as its gateway says it.
    Message(String),
    /// What is wrong with a field.
    Field(&'static str, String),
    /// A page of HTML.
    Page(&'static str),
    /// Nothing but where to go.
    Elsewhere(String),
}

impl Refusal {
    fn new(status: u16, said: Said) -> Self {
        Self { status, said, retry_after: None }
    }

    /// There is no such thing.
    pub fn not_found(what: &str) -> Self {
        Self::new(404, Said::Detail(format!("40401: {what} is not found")))
    }

    /// Something that cannot be done as things are.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(400, Said::Detail(message.into()))
    }

    /// A field holds what it must not hold.
    pub fn field(field: &'static str, why: impl Into<String>) -> Self {
        Self::new(400, Said::Field(field, why.into()))
    }

    /// The key is none.
    pub fn unauthorized() -> Self {
        Self::new(401, Said::Message("Your request is unauthorized".to_owned()))
    }

    /// What is not of the project.
    pub fn forbidden(message: &str) -> Self {
        Self::new(403, Said::Message(format!("40301: {message}")))
    }

    /// There is no such path; the gateway sends people to the page for logging in.
    pub fn login(path: &str) -> Self {
        Self::new(302, Said::Elsewhere(format!("/login?next={path}")))
    }

    /// A path without `/` at its end; the gateway names a host of its own.
    pub fn inside(path: &str) -> Self {
        Self::new(301, Said::Elsewhere(format!("http://api.internal.invalid{path}/")))
    }

    /// There were too many requests.
    pub fn too_many(seconds: u32) -> Self {
        let said = Said::Message("API rate limit exceeded".to_owned());
        Self { retry_after: Some(seconds), ..Self::new(429, said) }
    }

    /// What stands behind the gateway does not answer.
    pub fn bad_gateway() -> Self {
        let page = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n";
        Self::new(502, Said::Page(page))
    }

    /// Not everything can be seen, so that an answer would be wrong.
    pub fn unseen(message: impl Into<String>) -> Self {
        Self::new(503, Said::Detail(message.into()))
    }
}

impl From<ShelfError> for Refusal {
    fn from(error: ShelfError) -> Self {
        Self::new(500, Said::Detail(error.to_string()))
    }
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        Self::new(500, Said::Detail(error.to_string()))
    }
}

/// An answer as HTTP has it.
pub fn reply(answer: Answer) -> Reply {
    let refusal = match answer {
        Ok(Good { status, body }) => {
            return Reply::new(status, body.map_or(Content::None, Content::Json));
        }
        Err(refusal) => refusal,
    };
    let mut headers = Vec::new();
    let content = match refusal.said {
        Said::Detail(text) => Content::Json(json!({"detail": text})),
        Said::Message(text) => Content::Json(json!({"message": text})),
        Said::Field(field, why) => Content::Json(json!({field: [why]})),
        Said::Page(text) => Content::Text { kind: "text/html".to_owned(), text: text.to_owned() },
        Said::Elsewhere(location) => {
            headers.push(("location", location));
            Content::None
        }
    };
    headers.extend(refusal.retry_after.map(|seconds| ("retry-after", seconds.to_string())));
    Reply { status: refusal.status, headers, content }
}
