//! Operations: what was begun, how far it is, and what came of it. A request that has a key of its
//! own and was made before is answered with the operation that it began.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::answer::{Answer, Code, Refusal, without_defaults};
use super::page;
use super::request::Request;
use crate::serve::jobs::{Job, Jobs};

/// What the types of the API are called in `@type`.
const TYPES: &str = "type.googleapis.com/yandex.cloud";
/// Operations that may begin within a second, so that their numbers rise with time.
const PER_SECOND: u64 = 1_000_000;

/// An operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// Its number, which rises with time.
    pub number: u64,
    /// What is done, for people.
    pub description: String,
    /// When it began.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// What it is about, with its type.
    pub metadata: Value,
    /// The id of what it is done to.
    pub target: String,
    /// What came of it, with its type.
    pub response: Value,
    /// What went wrong.
    pub failure: Option<Refusal>,
    /// What the client calls the request.
    pub idempotency_key: Option<String>,
    /// What was asked for.
    pub request: String,
}

impl Job for Operation {
    fn name(&self) -> String {
        format!("op{}", self.number)
    }

    fn ended(&self) -> Option<Timestamp> {
        self.ended
    }

    fn give_up(&mut self, now: Timestamp) {
        self.ended = Some(now);
        self.failure = Some(Refusal::stopped());
    }
}

impl Operation {
    /// As the API shows it.
    pub fn json(&self) -> Value {
        let mut shown = Map::new();
        shown.insert("id".to_owned(), json!(self.name()));
        shown.insert("description".to_owned(), json!(self.description));
        shown.insert("createdAt".to_owned(), json!(self.began.to_string()));
        shown.insert("createdBy".to_owned(), json!("stillframe"));
        shown.insert("modifiedAt".to_owned(), json!(self.ended.unwrap_or(self.began).to_string()));
        shown.insert("done".to_owned(), json!(self.ended.is_some()));
        shown.insert("metadata".to_owned(), self.metadata.clone());
        let mut shown = without_defaults(shown);
        match (&self.failure, self.ended) {
            (Some(failure), Some(_)) => shown["error"] = failure.json(),
            (None, Some(_)) => shown["response"] = self.response.clone(),
            (_, None) => {}
        }
        shown
    }

    /// As if it were not done and something had gone wrong already.
    pub fn failing(&self) -> Value {
        let mut shown = Self { ended: None, ..self.clone() }.json();
        shown["error"] = Refusal::new(Code::Internal, "an inner error; rolling back").json();
        shown
    }
}

/// A value with the name of its type.
pub fn typed(name: &str, mut value: Value) -> Value {
    value["@type"] = json!(format!("{TYPES}.{name}"));
    value
}

/// Nothing, with the name of its type.
pub fn empty() -> Value {
    json!({"@type": "type.googleapis.com/google.protobuf.Empty", "value": {}})
}

/// What begins.
#[derive(Debug, Clone)]
pub struct Begun {
    /// What is done, for people.
    pub description: String,
    /// What it is about, with its type.
    pub metadata: Value,
    /// The id of what it is done to.
    pub target: String,
}

/// All operations.
#[derive(Debug)]
pub struct Operations {
    pub(super) jobs: Jobs<Operation>,
    newest: AtomicU64,
}

impl Operations {
    /// Reads what is there.
    pub fn open(directory: &Path, now: Timestamp) -> Result<Self, String> {
        let jobs: Jobs<Operation> = Jobs::open(directory, now)?;
        let newest = jobs.all().last().map_or(0, |operation| operation.number);
        Ok(Self { jobs, newest: AtomicU64::new(newest) })
    }

    /// The operation that the same request has begun already.
    pub fn replayed(&self, request: &Request) -> Result<Option<Operation>, Refusal> {
        let Some(key) = &request.idempotency_key else { return Ok(None) };
        let is_it = |operation: &Operation| operation.idempotency_key.as_ref() == Some(key);
        match self.jobs.all().into_iter().find(is_it) {
            Some(operation) if operation.request == request.summary() => Ok(Some(operation)),
            Some(_) => Err(Refusal::invalid("Idempotency-Key", "it belongs to another request")),
            None => Ok(None),
        }
    }

    /// Begins an operation.
    pub fn begin(
        &self,
        request: &Request,
        begun: Begun,
        now: Timestamp,
    ) -> Result<Operation, Refusal> {
        let least = u64::try_from(now.as_second()).unwrap_or_default() * PER_SECOND;
        let next = |newest: u64| Some((newest + 1).max(least));
        let before = self.newest.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next);
        let operation = Operation {
            number: (before.unwrap_or_default() + 1).max(least),
            description: begun.description,
            began: now,
            ended: None,
            metadata: begun.metadata,
            target: begun.target,
            response: empty(),
            failure: None,
            idempotency_key: request.idempotency_key.clone(),
            request: request.summary(),
        };
        self.jobs.begin(operation.clone())?;
        Ok(operation)
    }

    /// Ends an operation: with what came of it, or why nothing did.
    pub fn end(&self, name: &str, came: Result<Value, Refusal>, now: Timestamp) {
        self.jobs.end(name, |operation| {
            operation.ended = Some(now);
            match came {
                Ok(response) => operation.response = response,
                Err(refusal) => operation.failure = Some(refusal),
            }
        });
    }

    /// An operation as it is now.
    pub fn find(&self, id: &str) -> Result<Operation, Refusal> {
        let all = self.jobs.all().into_iter();
        let found = all.into_iter().find(|operation| operation.name() == id);
        found.ok_or_else(|| Refusal::not_found("Operation", id))
    }

    /// Whether something is being done to what has this id.
    pub fn is_busy(&self, target: &str) -> bool {
        self.jobs.is_any_running(|operation| operation.target == target)
    }

    /// Answers a request for an operation.
    pub fn answer(&self, request: &Request) -> Answer {
        match request.parts() {
            ("GET", Some(id), None) => Ok(self.find(id)?.json()),
            (_, Some(id), Some("cancel")) => {
                self.find(id)?;
                Err(Refusal::not_now("the operation cannot be cancelled"))
            }
            _ => Err(request.not_done()),
        }
    }

    /// Answers with the operations on something.
    pub fn of(&self, request: &Request, target: &str) -> Answer {
        let all = self.jobs.all().into_iter();
        let of_it = all.filter(|operation| operation.target == target);
        page::list(request, "operations", of_it.map(|operation| operation.json()).collect())
    }
}
