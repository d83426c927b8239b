//! What can go wrong on purpose.

use serde::Deserialize;
use serde_json::Value;

use super::answer::Refusal;
use super::place::metric;
use super::request::Request;
use crate::inventory::ImageKind;

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
    /// A deprecation cannot be taken back.
    FinalDeprecation,
    /// An operation that is looked at is still running, whatever has become of it.
    SlowOperation,
    /// A page of a list ends after its first item.
    ShortPage,
    /// A page of a list that a token was given out for is not there any more.
    VanishedPage,
}

impl Fault {
    /// Whether it can befall a request.
    pub fn is_for(self, request: &Request) -> bool {
        match self {
            Self::StaleFingerprint => {
                matches!(request.verb.as_deref(), Some("setLabels" | "setIamPolicy"))
                    || request.method == "PATCH" && request.body.contains_key("labelFingerprint")
            }
            Self::FinalDeprecation => {
                let is_active = |state: &Value| matches!(state.as_str(), None | Some("ACTIVE"));
                match (request.method.as_str(), request.verb.as_deref()) {
                    // What a patch does not have stays as it is.
                    ("PATCH", _) => request.body.get("deprecated").is_some_and(|deprecated| {
                        deprecated.is_null() || deprecated.get("state").is_some_and(is_active)
                    }),
                    (_, Some("deprecate")) => request.body.get("state").is_none_or(is_active),
                    _ => false,
                }
            }
            Self::SlowOperation => request.collection == "operations" && request.name.is_some(),
            Self::ShortPage => request.method == "GET" && request.name.is_none(),
            Self::VanishedPage => request.method == "GET" && request.query("pageToken").is_some(),
            _ => true,
        }
    }

    /// Whether it befalls what was begun, and not the request.
    pub fn is_in_operation(self) -> bool {
        matches!(self, Self::QuotaInOperation | Self::RateInOperation)
    }

    /// Whether it befalls a request, which is not answered as it would be.
    pub fn is_of_request(self) -> bool {
        !self.is_in_operation() && self != Self::ShortPage
    }

    /// What the operation of a new image of a kind ends with.
    pub fn ending(self, kind: ImageKind) -> Refusal {
        let mut refusal = self.refusal();
        if self == Self::QuotaInOperation {
            refusal.message = format!("Quota '{}' exceeded. Limit: 0.0 globally.", metric(kind));
        }
        refusal
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
                (403, "quotaExceeded", "Quota exceeded. Limit: 0.0 globally.")
            }
            Self::RateInOperation => (
                403,
                "operationRateExceeded",
                "Operation rate exceeded for resource. Too frequent operations from the source resource.",
            ),
            Self::FinalDeprecation => (
                400,
                "invalid",
                "Invalid value for field 'resource.state': 'ACTIVE'. It cannot be set again.",
            ),
            Self::SlowOperation => (400, "resourceNotReady", "The operation has not ended."),
            Self::ShortPage | Self::VanishedPage => {
                (400, "invalid", "Invalid value for field 'pageToken'. It has expired.")
            }
        };
        Refusal { status, reason, message: message.to_owned() }
    }
}
