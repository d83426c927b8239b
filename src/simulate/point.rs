//! One restore point of a simulated series.

use super::taken::Taken;
use crate::inventory::{Image, ImageState};
use crate::name::Key;

/// A restore point of a simulated series, or a copy of one.
#[derive(Debug, Clone)]
pub(super) struct Point {
    pub(super) key: Key,
    pub(super) image: Image,
    /// Bytes counted for it; `None` where they are unknown.
    pub(super) bytes: Option<u64>,
    /// Millionths of the currency for a GiB and month.
    pub(super) rate: Option<u64>,
    /// How many images of the engine it is: more than one for a set.
    pub(super) members: u64,
    /// What the planner sees of it.
    pub(super) hash: u128,
}

impl Point {
    /// What it takes of quotas.
    pub(super) fn taken(&self) -> Taken {
        Taken { images: self.members, bytes: self.bytes.unwrap_or(0) }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.image.state == ImageState::Ready
    }

    /// Where it is a copy, in which location: those are a series of their own.
    pub(super) fn copied_to(&self) -> Option<&str> {
        self.image.is_copy().then_some(self.image.location.as_str())
    }
}
