//! Lengths of time as people write them: `4h`, `7d`, `1d12h`.
//!
//! Elapsed time, never calendar time: a day is 24 hours here. What depends on a calendar (a month
//! of retention, a night with a clock change) is decided in `retention` and `schedule`.

use std::borrow::Cow;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The regular expression of the written form, for the JSON Schemas.
pub const PATTERN: &str = r"^(0|([0-9]+[wdhms])+)$";

const UNITS: [(char, i64); 5] = [('w', 604_800), ('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];
/// A thousand years: far above any sensible policy, far below what an instant can hold.
const SECONDS_MAX: i64 = 1_000 * 366 * 86_400;

/// A length of elapsed time in whole seconds, at least zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Elapsed(i64);

/// Why a text is not a length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ElapsedError {
    /// No unit behind a number.
    #[error("a number without a unit; write `{0}h` for hours or `{0}d` for days")]
    NoUnit(String),
    /// Not numbers and units.
    #[error(
        "not a length of time; write numbers with the units w, d, h, m or s, like `7d` or `1d12h`"
    )]
    Form,
    /// A unit twice or out of order.
    #[error("units go from large to small and each comes once, like `1d12h`")]
    Order,
    /// Over a thousand years.
    #[error("longer than a thousand years")]
    TooLong,
}

/// The whole second that an instant lies in.
pub fn whole_second(instant: Timestamp) -> Timestamp {
    let second = instant.as_second() - i64::from(instant.subsec_nanosecond() < 0);
    Timestamp::from_second(second).unwrap_or(instant)
}

impl Elapsed {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// Whole hours.
    pub const fn hours(hours: u32) -> Self {
        Self(hours as i64 * 3_600)
    }

    /// Days of 24 hours.
    pub const fn days(days: u32) -> Self {
        Self(days as i64 * 86_400)
    }

    /// Whole minutes.
    pub const fn minutes(minutes: u32) -> Self {
        Self(minutes as i64 * 60)
    }

    /// Whole seconds; below zero counts as zero.
    pub const fn seconds(seconds: i64) -> Self {
        Self(if seconds < 0 {
            0
        } else if seconds > SECONDS_MAX {
            SECONDS_MAX
        } else {
            seconds
        })
    }

    /// Both one after the other.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self::seconds(self.0 + other.0)
    }

    /// What is left of it after another one; zero where that is longer.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self::seconds(self.0 - other.0)
    }

    /// From `from` to `to`, zero where `to` comes first.
    pub fn between(from: Timestamp, to: Timestamp) -> Self {
        Self::seconds(to.as_second() - from.as_second())
    }

    /// The length in seconds.
    pub const fn as_seconds(self) -> i64 {
        self.0
    }

    /// `instant` plus this length, or the last instant there is.
    pub fn after(self, instant: Timestamp) -> Timestamp {
        instant.saturating_add(SignedDuration::from_secs(self.0)).unwrap_or(Timestamp::MAX)
    }

    /// `instant` minus this length, or the first instant there is.
    pub fn before(self, instant: Timestamp) -> Timestamp {
        instant.saturating_sub(SignedDuration::from_secs(self.0)).unwrap_or(Timestamp::MIN)
    }

    /// Reads `0`, `90s`, `7d`, `1d12h`.
    pub fn parse(text: &str) -> Result<Self, ElapsedError> {
        if text == "0" {
            return Ok(Self::ZERO);
        }
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ElapsedError::NoUnit(text.to_owned()));
        }
        let mut rest = text;
        let mut total: i64 = 0;
        let mut units = UNITS.iter();
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let unit = rest[digits..].chars().next().ok_or(ElapsedError::Form)?;
            if digits == 0 || !UNITS.iter().any(|(letter, _)| *letter == unit) {
                return Err(ElapsedError::Form);
            }
            let (_, seconds) =
                units.find(|(letter, _)| *letter == unit).ok_or(ElapsedError::Order)?;
            total = rest[..digits]
                .parse::<i64>()
                .ok()
                .and_then(|number| number.checked_mul(*seconds))
                .and_then(|part| part.checked_add(total))
                .filter(|sum| *sum <= SECONDS_MAX)
                .ok_or(ElapsedError::TooLong)?;
            rest = &rest[digits + 1..];
        }
        if text.is_empty() { Err(ElapsedError::Form) } else { Ok(Self(total)) }
    }

    /// For people and plans: the two largest units that are not zero, `25d`, `9h40m`, `3d2h`.
    pub fn rough(self) -> String {
        let numbers = UNITS.iter().skip(1).scan(self.0, |rest, (letter, seconds)| {
            let number = *rest / seconds;
            *rest %= seconds;
            Some((number, letter))
        });
        let mut shown = numbers.skip_while(|(number, _)| *number == 0).take(2);
        let Some((number, letter)) = shown.next() else {
            return "0s".to_owned();
        };
        match shown.next().filter(|(number, _)| *number > 0) {
            Some((second, smaller)) => format!("{number}{letter}{second}{smaller}"),
            None => format!("{number}{letter}"),
        }
    }
}

impl fmt::Display for Elapsed {
    /// Exact, in days, hours, minutes and seconds; reads back to the same length.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return formatter.write_str("0");
        }
        let mut rest = self.0;
        for (letter, seconds) in UNITS.iter().skip(1) {
            if rest / seconds > 0 {
                write!(formatter, "{}{letter}", rest / seconds)?;
            }
            rest %= seconds;
        }
        Ok(())
    }
}

impl Serialize for Elapsed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Elapsed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

impl JsonSchema for Elapsed {
    fn schema_name() -> Cow<'static, str> {
        "Elapsed".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": PATTERN,
            "description": "A length of time: numbers with the units w, d, h, m or s, from large to small, like 4h, 7d or 1d12h.",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes() {
        for (text, seconds, back) in [
            ("0", 0, "0"),
            ("90s", 90, "1m30s"),
            ("4h", 14_400, "4h"),
            ("1w", 604_800, "7d"),
            ("1d12h", 129_600, "1d12h"),
        ] {
            let length = Elapsed::parse(text).unwrap();
            assert_eq!(
                (length.as_seconds(), length.to_string().as_str()),
                (seconds, back),
                "{text}"
            );
            assert_eq!(Elapsed::parse(back), Ok(length));
        }
    }

    #[test]
    fn refuses_with_what_would_be_right() {
        assert_eq!(Elapsed::parse("24"), Err(ElapsedError::NoUnit("24".to_owned())));
        assert_eq!(Elapsed::parse("12h1d"), Err(ElapsedError::Order));
        assert_eq!(Elapsed::parse("1h1h"), Err(ElapsedError::Order));
        for text in ["", "h", "7 d", "1.5h", "-1d", "7D", "1y", "1d2"] {
            assert_eq!(Elapsed::parse(text), Err(ElapsedError::Form), "{text}");
        }
        assert_eq!(Elapsed::parse("99999999999w"), Err(ElapsedError::TooLong));
        assert_eq!(Elapsed::parse("99999999999999999999999w"), Err(ElapsedError::TooLong));
    }

    #[test]
    fn rough_keeps_two_units() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (3_661, "1h1m"), (2_592_000 + 60, "30d"), (90_000, "1d1h")]
        {
            assert_eq!(Elapsed::seconds(seconds).rough(), text);
        }
    }
}
