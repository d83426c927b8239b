//! Alerts: what people are told of, once.
//!
//! In go what came of rounds and readings; out come the conditions that hold, what of them is new and
//! what has ended, and the message that says so: however much is broken, one message with counts and
//! the worst of it. Pure, like all of this level; `watch` sends.

mod body;
mod book;
mod message;
mod seen;
mod template;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use body::{matrix, slack, teams};
pub use book::{Book, Digest, Told, Turn};
pub use message::{
    Count, FORMAT_VERSION, Item, Notification, Standing, Status, WORST, digest_of, test_message,
};
pub use seen::{Seen, Tried, conditions};
pub use template::{Template, TemplateError};

use crate::plan::Action;
pub use crate::policy::meant::Occasion;

/// What a condition is about: two of the same subject are one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Subject {
    /// What kind of condition it is.
    pub occasion: Occasion,
    /// The engine; empty where it is about none.
    pub engine: String,
    /// The policy; empty where it is about none.
    pub policy: String,
    /// The id of the source; empty where it is about none.
    pub source: String,
    /// What else tells it from others: an action, a guard, a place.
    pub detail: String,
}

impl Subject {
    /// Whether it is about a restore point that could not be made.
    fn is_of_making(&self) -> bool {
        self.occasion == Occasion::Failure
            && self.detail == Action::Create.word()
            && !self.source.is_empty()
    }

    /// Whether only a newer restore point makes it good.
    fn wants_newer(&self) -> bool {
        self.is_of_making() || self.occasion == Occasion::MissedSlot
    }
}

/// Something that people should know of, for as long as it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// What it is about.
    pub subject: Subject,
    /// The name of the source; empty where it is about none.
    pub source_name: String,
    /// What is the matter.
    pub message: String,
    /// The newest restore point that there was when it began, or the slot that was missed: it is made
    /// good by a newer one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<Timestamp>,
    /// The slot of the restore point that it is about, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<Timestamp>,
}

impl Condition {
    /// Something is the matter that no restore point makes good.
    pub fn new(subject: Subject, source_name: &str, message: String) -> Self {
        Self { subject, source_name: source_name.to_owned(), message, newest: None, slot: None }
    }
}

#[cfg(test)]
mod tests;
