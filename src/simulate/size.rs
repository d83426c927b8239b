//! How many bytes a restore point will store that does not exist yet.
//!
//! A series says it by itself: the median of what its points have added so far, the oldest left out,
//! because it may hold everything the later ones share. Where there is no history, the first point is
//! taken to store every byte of its disks, and each later one [`INCREMENT_PERCENT`] of that.

use crate::inventory::{Image, ImageState, Instance};
use crate::policy::Policy;

use super::chance::{Share, WHOLE};

/// What a restore point adds where nothing is known: so much of the first one, in percent.
pub const INCREMENT_PERCENT: u64 = 3;
/// Days that growth is given for.
pub const GROWTH_DAYS: usize = 30;
/// Growth is counted in parts of this size.
const ONE: u128 = 1 << 32;

/// What the points of one series store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// The first point of an empty series.
    pub first: u64,
    /// Each later one.
    pub increment: u64,
}

impl Sizes {
    /// The sizes of a series from its images, the oldest first, and its source where that is known.
    pub fn of<'a>(
        images: impl Iterator<Item = &'a Image>,
        policy: &Policy,
        instance: Option<&Instance>,
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
        let share = first / 100 * INCREMENT_PERCENT;
        let increment = median(stored.get(1..).unwrap_or_default()).unwrap_or(share);
        Self { first, increment }
    }
}

/// The middle one; of an even number the smaller of the two in the middle.
fn median(values: &[u64]) -> Option<u64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

/// How much more is stored on each day than on the first.
#[derive(Debug, Clone)]
pub(super) struct Growth(Vec<u128>);

impl Growth {
    /// The share by which it grows every thirty days, compounded; in between it grows evenly.
    pub(super) fn new(share: Share, days: usize) -> Self {
        let mut factors = Vec::with_capacity(days + 1);
        let mut begin = ONE;
        for day in 0..=days {
            let step = day % GROWTH_DAYS;
            if day > 0 && step == 0 {
                begin += begin * u128::from(share.0) / u128::from(WHOLE);
            }
            let month = begin * u128::from(share.0) / u128::from(WHOLE);
            factors.push((begin + month * step as u128 / GROWTH_DAYS as u128).min(ONE << 32));
        }
        Self(factors)
    }

    /// Bytes of the first day as they are on another.
    pub(super) fn grown(&self, bytes: u64, day: usize) -> u64 {
        let factor = self.0.get(day).or(self.0.last()).copied().unwrap_or(ONE);
        u64::try_from(u128::from(bytes) * factor / ONE).unwrap_or(u64::MAX)
    }
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

    #[test]
    fn growth_is_compounded_every_thirty_days() {
        let growth = Growth::new(Share(100_000), 61);
        assert_eq!(growth.grown(1_000, 0), 1_000);
        assert!((1_049..=1_050).contains(&growth.grown(1_000, 15)));
        assert!((1_099..=1_100).contains(&growth.grown(1_000, 30)));
        assert!((1_209..=1_210).contains(&growth.grown(1_000, 60)));
        assert_eq!(Growth::new(Share(0), 400).grown(1_000, 400), 1_000);
    }
}
