//! Slots as test documents name them: an instant, a day, or a pattern of instants, in UTC.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::name::Slot;
use crate::policy::select::Patterns;
use crate::policy::written::Texts;

/// What slots are written like, for people.
pub(super) const FORMS: &str = "write an instant like `2026-12-01T02:00:00Z`, a day like `2026-12-01` or a pattern like `2026-12-*T02*`; days and patterns are in UTC";

/// Names some slots.
#[derive(Debug, Clone)]
pub(super) struct SlotPattern {
    /// As it is written.
    pub(super) text: String,
    patterns: Patterns,
}

impl SlotPattern {
    /// Reads an instant, a day or a pattern.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let is_pattern_part =
            |c: char| c.is_ascii_digit() || "-:TZ*?[]{},!".contains(c) || c.is_ascii_uppercase();
        let pattern = if let Ok(instant) = text.parse::<Timestamp>() {
            Slot::at(instant).instant().to_string()
        } else if let Some(day) = date(text) {
            format!("{day}T*")
        } else if text.contains(['*', '?', '[', '{']) && text.chars().all(is_pattern_part) {
            text.to_owned()
        } else {
            return Err(format!("`{text}` names no slot"));
        };
        match Patterns::new(&Texts(vec![pattern])) {
            Ok(patterns) => Ok(Self { text: text.to_owned(), patterns }),
            Err(mistakes) => {
                let why: Vec<String> = mistakes.into_iter().map(|(_, why)| why).collect();
                Err(format!("not a pattern: {}", why.join("; ")))
            }
        }
    }

    /// Whether it names this slot.
    pub(super) fn matches(&self, slot: Slot) -> bool {
        self.patterns.matches(&slot.instant().to_string())
    }
}

/// A day and nothing else.
fn date(text: &str) -> Option<Date> {
    text.parse::<Date>().ok().filter(|_| text.len() == 10)
}

/// An instant, or the beginning of a day in UTC.
pub(super) fn instant(text: &str) -> Option<Timestamp> {
    match date(text) {
        Some(day) => day.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp()),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_named_by_instant_day_or_pattern() {
        let slot = Slot::at("2026-03-01T01:15:00Z".parse().unwrap());
        for text in [
            "2026-03-01T01:15:00Z",
            "2026-03-01T02:15:00+01:00",
            "2026-03-01",
            "2026-03-*",
            "*T01*",
        ] {
            assert!(SlotPattern::parse(text).unwrap().matches(slot), "{text}");
        }
        for text in ["2026-03-01T02:15:00Z", "2026-03-02", "2026-0[45]-*", "*T02*"] {
            assert!(!SlotPattern::parse(text).unwrap().matches(slot), "{text}");
        }
        for text in ["", "2026-03", "yesterday", "2026-02-30", "web-*", "2026-[*"] {
            assert!(SlotPattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_day_is_its_beginning_in_utc() {
        assert_eq!(instant("2026-03-01"), Some("2026-03-01T00:00:00Z".parse().unwrap()));
        assert_eq!(
            instant("2026-03-01T00:00:00+01:00").unwrap().to_string(),
            "2026-02-28T23:00:00Z"
        );
        assert_eq!(instant("soon"), None);
    }
}
