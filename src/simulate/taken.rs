//! What images take of quotas.

use crate::inventory::{Image, QuotaUnit};

/// Images of an engine, and what they store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Taken {
    /// Images; each disk of a set is one.
    pub images: u64,
    /// Bytes of those whose size is known.
    pub bytes: u64,
}

impl Taken {
    /// What an image takes.
    pub fn of(image: &Image) -> Self {
        Self { images: image.members_there(), bytes: image.stored_bytes.unwrap_or(0) }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            images: self.images.saturating_add(other.images),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    /// What is left without the other.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            images: self.images.saturating_sub(other.images),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    /// As a quota counts it.
    pub fn in_unit(self, unit: QuotaUnit) -> u64 {
        match unit {
            QuotaUnit::Images => self.images,
            QuotaUnit::Bytes => self.bytes,
        }
    }
}
