//! What can go wrong on purpose.

use serde::Deserialize;

use super::answer::{Code, Refusal};
use super::request::Request;

/// When a client that was refused for its rate may come back.
const RETRY_AFTER_SECONDS: u32 = 7;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// There were too many requests; the answer says when to come back.
    RateLimit,
    /// The server is not there for a moment; nothing was done.
    Unavailable,
    /// What was asked for is done, and the answer is lost.
    ReplyLost,
    /// The operation of a new image ends with a quota that is used up.
    QuotaInOperation,
    /// An operation that is looked at is still running, whatever has become of it.
    SlowOperation,
    /// The same, and it says already that something has gone wrong.
    EarlyError,
    /// A page of a list ends after its first item.
    ShortPage,
    /// The page that comes next is the same page again.
    PageLoop,
    /// A page of a list that a token was given out for is not there any more.
    VanishedPage,
    /// What was asked for once is made twice, under one name.
    Duplicate,
    /// An image is made, and gone again as soon as its operation is done.
    VanishingImage,
    /// As many operations are under way as may be at once; nothing was begun.
    OperationsLimit,
    /// The operation of a new image ends with that.
    OperationsLimitInOperation,
    /// An image that is looked at is still being made, whatever has become of it.
    SlowImage,
    /// An instance that is looked at is on its way to the state that it is in.
    SlowTurn,
    /// An instance is not started: its operation ends with that there is no room for it.
    StartFails,
    /// The token is not taken.
    Unauthenticated,
    /// Who asks may not do that.
    Forbidden,
}

impl Fault {
    /// Whether it can befall a request.
    pub fn is_for(self, request: &Request) -> bool {
        let is_list = request.method == "GET" && request.id.is_none() && request.verb.is_none();
        let is_instance = request.collection == "instances";
        match self {
            Self::SlowOperation | Self::EarlyError => {
                request.collection == "operations" && request.id.is_some()
            }
            Self::ShortPage | Self::PageLoop => is_list,
            Self::VanishedPage => is_list && request.query("pageToken").is_some(),
            Self::Duplicate
            | Self::VanishingImage
            | Self::QuotaInOperation
            | Self::OperationsLimitInOperation => request.method == "POST" && request.id.is_none(),
            Self::OperationsLimit => request.service == "compute" && request.method != "GET",
            Self::SlowImage | Self::SlowTurn => {
                let is_image = matches!(request.collection.as_str(), "images" | "snapshots");
                let is_it = if self == Self::SlowImage { is_image } else { is_instance };
                is_it && request.method == "GET" && request.id.is_some() && request.verb.is_none()
            }
            Self::StartFails => is_instance && request.verb.as_deref() == Some("start"),
            // Where there is nothing to be had without a token.
            Self::Unavailable if request.service == "iam" => true,
            Self::RateLimit
            | Self::Unavailable
            | Self::ReplyLost
            | Self::Unauthenticated
            | Self::Forbidden => request.service == "compute" || request.collection == "operations",
        }
    }

    /// Whether it befalls what was begun, and not the request.
    pub fn is_of_capture(self) -> bool {
        matches!(
            self,
            Self::QuotaInOperation
                | Self::OperationsLimitInOperation
                | Self::Duplicate
                | Self::VanishingImage
                | Self::StartFails
        )
    }

    /// Whether it befalls what is said of something, which is answered.
    pub fn is_of_state(self) -> bool {
        matches!(self, Self::SlowImage | Self::SlowTurn)
    }

    /// Whether it befalls the page of a list, which is answered.
    pub fn is_of_page(self) -> bool {
        matches!(self, Self::ShortPage | Self::PageLoop)
    }

    /// What the client is told.
    pub fn refusal(self) -> Refusal {
        match self {
            Self::RateLimit => Refusal {
                retry_after_seconds: Some(RETRY_AFTER_SECONDS),
                ..Refusal::new(Code::ResourceExhausted, "The limit of requests is exceeded")
            },
            Self::QuotaInOperation => Refusal::new(
                Code::ResourceExhausted,
                "The limit on total number of snapshots has exceeded.",
            ),
            Self::OperationsLimit | Self::OperationsLimitInOperation => Refusal::new(
                Code::ResourceExhausted,
                "The limit on maximum number of active operations has exceeded.",
            ),
            Self::StartFails => {
                Refusal::new(Code::FailedPrecondition, "There is no room in the zone")
            }
            Self::Unauthenticated => Refusal::new(Code::Unauthenticated, "The token has expired"),
            Self::Forbidden => Refusal::new(Code::PermissionDenied, "Permission denied"),
            Self::VanishedPage => Refusal::invalid("pageToken", "it has expired"),
            _ => Refusal::new(Code::Unavailable, "The service is currently unavailable"),
        }
    }
}
