//! What of one image another one holds as well, and whether its marks are its own.

use jiff::Timestamp;

use super::{Image, Stage};
use crate::elapsed::Elapsed;

/// The clock that marks an image may be this much behind the one that says when it was made.
const SKEW: Elapsed = Elapsed::minutes(5);

/// What an image holds, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Content<'a> {
    /// The word for its kind; empty where that is not known.
    pub kind: &'a str,
    /// The disks of its source that it holds; `None` where they are not known.
    pub disks: Option<&'a [String]>,
}

impl Content<'_> {
    /// Whether this has, in the same form, all that another one has. Nobody knows that of disks that are
    /// known of one of the two alone.
    pub fn has_all_of(&self, other: &Content<'_>) -> bool {
        self.kind == other.kind
            && match (self.disks, other.disks) {
                (Some(own), Some(others)) => others.iter().all(|disk| own.contains(disk)),
                (own, others) => own == others,
            }
    }
}

impl Image {
    /// Since when it is on its way out: no rule kept it any more, and nobody has taken its deprecation
    /// back since. A mark that is older than the image is that of another one, whose labels it was given.
    pub fn going_since(&self) -> Option<Timestamp> {
        let counts = self.stage > Stage::Active && !self.has_old_mark();
        self.let_go_at().filter(|_| counts)
    }

    /// Whether it says that it was let go before it was made.
    pub fn has_old_mark(&self) -> bool {
        self.let_go_at().is_some_and(|at| at < SKEW.before(self.created_at))
    }

    /// What it holds, as retention looks at it.
    pub fn content(&self) -> Content<'_> {
        Content { kind: self.kind.word(), disks: self.disks.as_deref() }
    }
}
