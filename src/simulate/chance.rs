//! Shares, and chance that is no chance: the same seed and the same attempt always end the same way.

use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::name::Key;

/// A share in millionths: `0.02` and `2%` are 20,000.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Share(pub u32);

/// One whole.
pub(super) const WHOLE: u64 = 1_000_000;
/// Digits behind the point of a share.
const DIGITS: usize = 6;

impl Share {
    /// Reads `0.02` or `2%`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a share; write one like 0.02 or 2%");
        let (number, percent) = match text.strip_suffix('%') {
            Some(number) => (number, true),
            None => (text, false),
        };
        let (whole, rest) = number.split_once('.').unwrap_or((number, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let places = if percent { DIGITS - 2 } else { DIGITS };
        if whole.is_empty() || !digits(whole) || !digits(rest) || rest.len() > places {
            return Err(wrong());
        }
        let millionths = format!("{whole}{rest:0<places$}").parse::<u32>().map_err(|_| wrong())?;
        Ok(Self(millionths))
    }
}

impl fmt::Display for Share {
    /// In percent, without needless digits.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:04}", self.0 / 10_000, self.0 % 10_000);
        write!(formatter, "{} %", text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// Whether an attempt at a restore point fails. Another attempt at it, at another instant, has a
/// chance of its own.
pub(super) fn fails(rate: Share, seed: u64, key: &Key, at: Timestamp) -> bool {
    if rate.0 == 0 {
        return false;
    }
    let mut state = mix(seed);
    for text in [key.policy.as_str(), key.source.as_str()] {
        for byte in text.bytes() {
            state = mix(state ^ u64::from(byte));
        }
        state = mix(state);
    }
    for instant in [key.slot.instant(), at] {
        state = mix(state ^ instant.as_second().unsigned_abs());
    }
    state % WHOLE < u64::from(rate.0)
}

/// One step of splitmix64.
fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{PolicyName, Slot, SourceId};

    #[test]
    fn shares_are_read_as_people_write_them() {
        for (text, millionths, shown) in [
            ("0", 0, "0 %"),
            ("0.02", 20_000, "2 %"),
            ("2%", 20_000, "2 %"),
            ("1", 1_000_000, "100 %"),
            ("12.5%", 125_000, "12.5 %"),
            ("0.000001", 1, "0.0001 %"),
        ] {
            let share = Share::parse(text).unwrap();
            assert_eq!((share.0, share.to_string().as_str()), (millionths, shown), "{text}");
        }
        for text in ["", "-1", ".5", "1e3", "2 %", "0.0000001", "99999999999", "%"] {
            assert!(Share::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn as_many_attempts_fail_as_the_share_says() {
        let start = Timestamp::from_second(1_800_000_000).unwrap();
        let failed = |rate: u32, seed: u64| {
            let day = |number: i64| start + jiff::SignedDuration::from_hours(24 * number);
            (0..10_000)
                .filter(|number| {
                    let key = Key {
                        policy: PolicyName::parse("p").unwrap(),
                        source: SourceId::parse("s").unwrap(),
                        slot: Slot::at(day(*number)),
                    };
                    fails(Share(rate), seed, &key, day(*number))
                })
                .count()
        };
        assert_eq!(failed(0, 1), 0);
        assert_eq!(failed(1_000_000, 1), 10_000);
        let tenth = failed(100_000, 1);
        assert!((900..1_100).contains(&tenth), "{tenth}");
        assert_ne!(tenth, failed(100_000, 2));
    }
}
