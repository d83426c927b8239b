//! How much more captures store as time goes by.

use super::chance::{Share, WHOLE};

/// Days that growth is given for.
pub const GROWTH_DAYS: usize = 30;
/// Growth is counted in parts of this size.
const ONE: u128 = 1 << 32;

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
    fn growth_is_compounded_every_thirty_days() {
        let growth = Growth::new(Share(100_000), 61);
        assert_eq!(growth.grown(1_000, 0), 1_000);
        assert!((1_049..=1_050).contains(&growth.grown(1_000, 15)));
        assert!((1_099..=1_100).contains(&growth.grown(1_000, 30)));
        assert!((1_209..=1_210).contains(&growth.grown(1_000, 60)));
        assert_eq!(Growth::new(Share(0), 400).grown(1_000, 400), 1_000);
    }
}
