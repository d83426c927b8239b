//! Operations: what changes runs under one, and whoever asked waits for it.
//!
//! An answer shows an operation as RUNNING, whatever has become of it since. Finished ones are
//! kept for a while, on disk as well; one that a stopped server was at is over and says so.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::answer::{Answer, Refusal};
use super::link::{Links, Scope};
use super::page;
use super::request::Request;
use crate::serve::jobs::{Job, Jobs};

/// How long `wait` waits.
const WAIT: Duration = Duration::from_mins(2);
/// Operations that may begin within a second, so that their numbers rise with time.
const PER_SECOND: u64 = 1_000_000;

/// What a query has that says nothing about what is to be done: what every method takes (source: the
/// discovery document), the id itself, and what older clients send along.
const OF_EVERY_METHOD: [&str; 13] = [
    "access_token",
    "alt",
    "callback",
    "fields",
    "key",
    "oauth_token",
    "prettyPrint",
    "quotaUser",
    "requestId",
    "returnPartialSuccess",
    "uploadType",
    "upload_protocol",
    "userIp",
];

/// What went wrong in an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The code, from the list of the API.
    pub code: String,
    /// What is said to people.
    pub message: String,
    /// The status of HTTP that goes with it.
    pub status: u16,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal.reason {
            "alreadyExists" => "RESOURCE_ALREADY_EXISTS",
            "notFound" => "RESOURCE_NOT_FOUND",
            "resourceNotReady" => "RESOURCE_NOT_READY",
            "conditionNotMet" => "CONDITION_NOT_MET",
            "quotaExceeded" => "QUOTA_EXCEEDED",
            "resourceInUseByAnotherResource" => "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE",
            "operationRateExceeded" => "RESOURCE_OPERATION_RATE_EXCEEDED",
            "forbidden" => "PERMISSIONS_ERROR",
            "invalid" => "INVALID_USAGE",
            _ => "INTERNAL_ERROR",
        };
        Self { code: code.to_owned(), message: refusal.message, status: refusal.status }
    }
}

/// Something to say beside what was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The code, from the list of the API.
    pub code: String,
    /// What is said to people.
    pub message: String,
}

impl Notice {
    /// A notice.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into() }
    }
}

/// An operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its number, which rises with time.
    pub id: u64,
    /// Where it is.
    pub scope: Scope,
    /// What is done.
    pub kind: String,
    /// What it is done to.
    pub target: String,
    /// The id of that, as far as it is known.
    pub target_id: Option<String>,
    /// What the client calls it.
    pub request_id: Option<String>,
    /// What was asked for under that.
    pub request: String,
    /// When it began.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// What went wrong.
    pub failure: Option<Failure>,
    /// Percent that are done.
    pub progress: u8,
    /// What there is to say beside it.
    #[serde(default)]
    pub warnings: Vec<Notice>,
}

impl Job for Operation {
    fn name(&self) -> String {
        name_of(self.id)
    }

    fn ended(&self) -> Option<Timestamp> {
        self.ended
    }

    fn give_up(&mut self, now: Timestamp) {
        self.ended = Some(now);
        self.failure = Some(Failure {
            code: "INTERNAL_ERROR".to_owned(),
            message: "the server was stopped before this had ended".to_owned(),
            status: 500,
        });
    }
}

impl Operation {
    /// As the API shows it.
    pub fn json(&self, links: &Links) -> Value {
        let mut shown = json!({
            "kind": "compute#operation",
            "id": self.id.to_string(),
            "name": self.name(),
            "operationType": self.kind,
            "targetLink": self.target,
            "status": if self.ended.is_some() { "DONE" } else { "RUNNING" },
            "user": "stillframe",
            "progress": self.progress,
            "insertTime": self.began.to_string(),
            "startTime": self.began.to_string(),
            "selfLink": links.link(&self.scope, "operations", &self.name()),
        });
        let mut set = |field: &str, value: Value| shown[field] = value;
        match &self.scope {
            Scope::Zone(zone) => set("zone", json!(links.zone(zone))),
            Scope::Region(region) => set("region", json!(links.region(region))),
            _ => {}
        }
        if let Some(id) = &self.target_id {
            set("targetId", json!(id));
        }
        if let Some(id) = &self.request_id {
            set("clientOperationId", json!(id));
        }
        if !self.warnings.is_empty() {
            set("warnings", json!(self.warnings));
        }
        if let Some(ended) = self.ended {
            set("endTime", json!(ended.to_string()));
        }
        if let Some(failure) = &self.failure {
            set("error", json!({"errors": [{"code": failure.code, "message": failure.message}]}));
            set("httpErrorStatusCode", json!(failure.status));
            set("httpErrorMessage", json!(failure.message));
        }
        shown
    }
}

/// What begins under a new operation.
#[derive(Debug, Clone)]
pub struct Begun {
    /// Where it is.
    pub scope: Scope,
    /// What is done.
    pub kind: &'static str,
    /// The link of what it is done to.
    pub target: String,
    /// The id of that, where it is known.
    pub target_id: Option<String>,
    /// What there is to say beside it.
    pub warnings: Vec<Notice>,
}

impl Begun {
    /// What begins, with nothing to say beside it.
    pub fn new(
        scope: Scope,
        kind: &'static str,
        target: String,
        target_id: Option<String>,
    ) -> Self {
        Self { scope, kind, target, target_id, warnings: Vec::new() }
    }
}

/// All operations.
#[derive(Debug)]
pub struct Operations {
    jobs: Jobs<Operation>,
}

impl Operations {
    /// Reads what is there.
    pub fn open(directory: &Path, now: Timestamp) -> Result<Self, String> {
        Ok(Self { jobs: Jobs::open(directory, now)? })
    }

    /// The operation that the same request has begun already.
    pub fn replayed(&self, request: &Request) -> Result<Option<Operation>, Refusal> {
        let Some(id) = request_id(request)? else { return Ok(None) };
        // A UUID is the same in either case.
        let same = |operation: &Operation| {
            operation.request_id.as_ref().is_some_and(|known| known.eq_ignore_ascii_case(id))
        };
        match self.all().into_iter().find(same) {
            Some(operation) if operation.request == summary(request) => Ok(Some(operation)),
            Some(_) => {
                let why = "It belongs to another request already.";
                Err(Refusal::invalid("requestId", id, why))
            }
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
        let newest = self.all().last().map_or(0, |operation| operation.id);
        let second = u64::try_from(now.as_second()).unwrap_or_default();
        let operation = Operation {
            id: (newest + 1).max(second * PER_SECOND),
            scope: begun.scope,
            kind: begun.kind.to_owned(),
            target: begun.target,
            target_id: begun.target_id,
            request_id: request_id(request)?.map(str::to_owned),
            request: summary(request),
            began: now,
            ended: None,
            failure: None,
            progress: 0,
            warnings: begun.warnings,
        };
        self.jobs.begin(operation.clone())?;
        Ok(operation)
    }

    /// Notes how far an operation is.
    pub fn progress(&self, id: u64, percent: u8) {
        self.jobs.change(&name_of(id), |operation| operation.progress = percent);
    }

    /// Ends an operation: with the id of what it was done to, where that is new, or a failure.
    pub fn end(&self, id: u64, came: Result<Option<String>, Failure>, now: Timestamp) {
        self.jobs.end(&name_of(id), |operation| {
            operation.ended = Some(now);
            operation.progress = 100;
            match came {
                Ok(target_id) => operation.target_id = target_id.or(operation.target_id.take()),
                Err(failure) => operation.failure = Some(failure),
            }
        });
    }

    /// Whether anything is under way.
    pub fn is_idle(&self) -> bool {
        self.jobs.is_idle()
    }

    /// Waits until nothing is under way.
    pub async fn until_idle(&self) {
        self.jobs.until_idle().await;
    }

    /// Whether anything was begun at a place lately.
    pub fn is_any_in(&self, scope: &Scope) -> bool {
        self.all().iter().any(|operation| operation.scope == *scope)
    }

    /// Whether something is being done to what a link names.
    pub fn is_busy(&self, target: &str) -> bool {
        self.jobs.is_any_running(|operation| operation.target == target)
    }

    /// Answers a request for operations.
    pub async fn answer(
        &self,
        request: &Request,
        links: &Links,
        stop: watch::Receiver<bool>,
    ) -> Answer {
        match request.parts() {
            ("GET", None, None) => {
                let listed: Vec<Operation> = self.all();
                if request.scope == Scope::Aggregated {
                    let scoped = listed
                        .iter()
                        .map(|operation| (operation.scope.clone(), operation.json(links)));
                    return page::aggregated(request, links, "operation", scoped.collect());
                }
                let here = listed.iter().filter(|operation| operation.scope == request.scope);
                let shown = here.map(|operation| operation.json(links)).collect();
                page::list(request, links, "operation", shown)
            }
            ("GET", Some(name), None) => Ok(self.named(request, links, name)?.json(links)),
            ("POST", Some(name), Some("wait")) => self.wait(request, links, name, stop).await,
            ("DELETE", Some(name), None) => {
                let operation = self.named(request, links, name)?;
                if operation.ended.is_none() {
                    return Err(Refusal::not_ready("the operation has not ended"));
                }
                self.jobs.remove(&operation.name())?;
                Ok(Value::Null)
            }
            _ => Err(request.not_done()),
        }
    }

    /// An operation as it is while it runs, whatever has become of it.
    pub fn still_running(&self, request: &Request, links: &Links) -> Answer {
        let name = request.name.as_deref().unwrap_or_default();
        let operation = self.named(request, links, name)?;
        Ok(Operation { ended: None, failure: None, progress: 50, ..operation }.json(links))
    }

    /// Waits until an operation has ended, for a while.
    async fn wait(
        &self,
        request: &Request,
        links: &Links,
        name: &str,
        mut stop: watch::Receiver<bool>,
    ) -> Answer {
        let mut ended = self.jobs.subscribe();
        let over = async {
            while self.named(request, links, name)?.ended.is_none() {
                if ended.changed().await.is_err() {
                    break;
                }
            }
            Ok::<(), Refusal>(())
        };
        tokio::select! {
            waited = tokio::time::timeout(WAIT, over) => waited.unwrap_or(Ok(()))?,
            _ = stop.wait_for(|stop| *stop) => {}
        }
        Ok(self.named(request, links, name)?.json(links))
    }

    fn named(&self, request: &Request, links: &Links, name: &str) -> Result<Operation, Refusal> {
        let is_it = |operation: &Operation| {
            operation.scope == request.scope
                && (operation.name() == name || operation.id.to_string() == name)
        };
        self.all()
            .into_iter()
            .find(is_it)
            .ok_or_else(|| Refusal::not_found(&links.path(&request.scope, "operations", name)))
    }

    /// All operations, the oldest first; those under way as they are now.
    fn all(&self) -> Vec<Operation> {
        self.jobs.all()
    }
}

fn name_of(id: u64) -> String {
    format!("operation-{id}")
}

/// What the client calls a request: a UUID that is not zero.
fn request_id(request: &Request) -> Result<Option<&str>, Refusal> {
    let Some(id) = request.query("requestId") else { return Ok(None) };
    let lengths = id.split('-').map(str::len);
    let is_uuid = lengths.eq([8, 4, 4, 4, 12])
        && id.chars().all(|c| c == '-' || c.is_ascii_hexdigit())
        && id.chars().any(|c| c != '-' && c != '0');
    if is_uuid {
        Ok(Some(id))
    } else {
        Err(Refusal::invalid("requestId", id, "It must be a UUID that is not zero."))
    }
}

/// What makes two requests the same: all that they ask for, in their bodies and beside them.
fn summary(request: &Request) -> String {
    let body = Value::Object(request.body.clone()).to_string();
    // It stands where it always did, so that operations of before an update are known again.
    let source = request.query("sourceInstance").unwrap_or_default();
    let name = request.name.as_deref().unwrap_or_default();
    let verb = request.verb.as_deref().unwrap_or_default();
    let beside: String =
        asked_beside(request).map(|(key, value)| format!(" {key}={value}")).collect();
    format!(
        "{} {:?} {} {name} {verb} {source} {body}{beside}",
        request.method, request.scope, request.collection
    )
}

/// What a query asks for, in the order of its names. How switches are cased is of no matter, and one
/// that is off is not there.
fn asked_beside(request: &Request) -> impl Iterator<Item = (&str, String)> {
    let keys: BTreeSet<&str> = request.query.iter().map(|(key, _)| key.as_str()).collect();
    let asked = keys.into_iter().filter(|key| {
        !key.starts_with('$') && !OF_EVERY_METHOD.contains(key) && *key != "sourceInstance"
    });
    asked.filter_map(|key| {
        let value = request.query(key)?;
        let is = |switch: &str| value.eq_ignore_ascii_case(switch);
        let value = if is("true") { "true" } else { value };
        (!is("false")).then(|| (key, value.to_owned()))
    })
}
