//! Faults on purpose, for tests of clients: whoever starts the server with `--faults` may ask for
//! them with `POST /faults`, one after the other.

use std::sync::{Mutex, PoisonError};

use serde::Deserialize;

use super::answer::Refusal;
use super::request::Request;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The rate of requests is used up.
    RateLimit,
    /// The server is not there for a moment; nothing was done.
    Unavailable,
    /// What was asked for is done, and the answer is lost.
    ReplyLost,
    /// The labels have just been changed by somebody else.
    StaleFingerprint,
    /// The operation of a new image ends with a quota that is used up.
    QuotaInOperation,
    /// The operation of a new image ends with the rate of its source.
    RateInOperation,
    /// An operation that is looked at is still running, whatever has become of it.
    SlowOperation,
    /// A page of a list ends after its first item.
    ShortPage,
    /// A page of a list that a token was given out for is not there any more.
    VanishedPage,
}

/// Which requests go wrong, and how.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Script {
    fault: Fault,
    /// How many requests.
    #[serde(default = "once")]
    times: u32,
    /// Only those with this method.
    #[serde(default)]
    method: Option<String>,
    /// Only those for this collection.
    #[serde(default)]
    collection: Option<String>,
}

fn once() -> u32 {
    1
}

impl Script {
    fn is_for(&self, request: &Request) -> bool {
        let is_named =
            |asked: &Option<String>, is: &str| asked.as_ref().is_none_or(|one| one == is);
        let is_kind = match self.fault {
            Fault::StaleFingerprint => {
                matches!(request.verb.as_deref(), Some("setLabels" | "setIamPolicy"))
            }
            Fault::SlowOperation => request.collection == "operations" && request.name.is_some(),
            Fault::ShortPage => request.method == "GET" && request.name.is_none(),
            Fault::VanishedPage => request.method == "GET" && request.query("pageToken").is_some(),
            _ => true,
        };
        is_kind
            && is_named(&self.method, &request.method)
            && is_named(&self.collection, &request.collection)
    }
}

/// The faults that are still to come.
#[derive(Debug, Default)]
pub struct Faults {
    scripts: Mutex<Vec<Script>>,
}

impl Faults {
    /// Adds what a body asks for.
    pub fn add(&self, body: &[u8]) -> Result<(), Refusal> {
        let script: Script = serde_json::from_slice(body)
            .map_err(|error| Refusal::bad(format!("this is no fault: {error}")))?;
        self.lock().push(script);
        Ok(())
    }

    /// The fault of a request, if one is due that is among those that can befall it here.
    pub fn take(&self, request: &Request, can_be: impl Fn(Fault) -> bool) -> Option<Fault> {
        let mut scripts = self.lock();
        let due =
            |script: &Script| script.times > 0 && script.is_for(request) && can_be(script.fault);
        let found = scripts.iter().position(due)?;
        let fault = scripts[found].fault;
        scripts[found].times -= 1;
        scripts.retain(|script| script.times > 0);
        Some(fault)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Script>> {
        self.scripts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fault {
    /// Whether it befalls what was begun, and not the request.
    pub fn is_in_operation(self) -> bool {
        matches!(self, Self::QuotaInOperation | Self::RateInOperation)
    }

    /// Whether it befalls a request, which is not answered as it would be.
    pub fn is_of_request(self) -> bool {
        !self.is_in_operation() && self != Self::ShortPage
    }

    /// What the client is told.
    pub fn refusal(self) -> Refusal {
        let (status, reason, message) = match self {
            Self::RateLimit => (
                403,
                "rateLimitExceeded",
                "Quota exceeded for quota metric 'Queries' and limit 'Queries per minute'",
            ),
            Self::Unavailable | Self::ReplyLost => {
                (503, "backendError", "The service is currently unavailable.")
            }
            Self::StaleFingerprint => return Refusal::stale_labels(),
            Self::QuotaInOperation => {
                (403, "quotaExceeded", "Quota 'MACHINE_IMAGES' exceeded. Limit: 0.0 globally.")
            }
            Self::RateInOperation => (
                403,
                "operationRateExceeded",
                "Operation rate exceeded for resource. Too frequent operations from the source resource.",
            ),
            Self::SlowOperation => (400, "resourceNotReady", "The operation has not ended."),
            Self::ShortPage | Self::VanishedPage => {
                (400, "invalid", "Invalid value for field 'pageToken'. It has expired.")
            }
        };
        Refusal { status, reason, message: message.to_owned() }
    }
}
