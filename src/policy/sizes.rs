//! How many bytes a restore point will store that does not exist yet.
//!
//! A series says it by itself: the median of what its points have added so far, the oldest left out,
//! because it may hold everything the later ones share. Where there is no history, the first point is
//! taken to store every byte of its disks, and each later one [`INCREMENT_PERCENT`] of that; as much
//! as the first one where images of its kind share nothing.

use super::meant::Policy;
use crate::inventory::{Capabilities, Image, ImageState, Instance};

/// What a restore point adds where nothing is known: so much of the first one, in percent.
pub const INCREMENT_PERCENT: u64 = 3;

/// What the points of one series store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// The first point of an empty series.
    pub first: u64,
    /// Each later one.
    pub increment: u64,
}

impl Sizes {
    /// The sizes of a series from its images, the oldest first, its source where that is known, and
    /// what its engine does.
    pub fn of<'a>(
        images: impl Iterator<Item = &'a Image>,
        policy: &Policy,
        instance: Option<&Instance>,
        capabilities: &Capabilities,
    ) -> Self {
        let ready: Vec<&Image> = images.filter(|image| image.state == ImageState::Ready).collect();
        let stored: Vec<u64> = ready.iter().filter_map(|image| image.stored_bytes).collect();
        let disks = instance.map(|instance| {
            let taken = instance
                .disks
                .iter()
                .filter(|disk| policy.capture.disks.takes(&disk.name, disk.boot));
            taken.filter_map(|disk| disk.size_bytes).sum::<u64>()
        });
        let remembered = ready.iter().rev().find_map(|image| image.disk_bytes);
        let first = stored.first().copied().or(disks).or(remembered).unwrap_or(0);
        let is_whole = capabilities.whole_kinds.contains(&policy.capture.kind);
        let share = if is_whole { first } else { first / 100 * INCREMENT_PERCENT };
        let increment = median(stored.get(1..).unwrap_or_default()).unwrap_or(share);
        Self { first, increment }
    }

    /// Bytes of so many points together.
    pub fn of_points(self, points: u64) -> u64 {
        let later = self.increment.saturating_mul(points.saturating_sub(1));
        if points == 0 { 0 } else { self.first.saturating_add(later) }
    }
}

/// The middle one; of an even number the smaller of the two in the middle.
fn median(values: &[u64]) -> Option<u64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_one_of_the_values() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[7]), Some(7));
        assert_eq!(median(&[9, 1, 5]), Some(5));
        assert_eq!(median(&[9, 1, 5, 7]), Some(5));
    }
}
