//! What is special about a firing: the clock was changed around it.
//!
//! In go a crontab, its zone and an instant at which it fires; out comes what a reader of the
//! instant would not expect from the crontab alone.

use std::fmt;

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use super::Zone;
use super::crontab::Crontab;
use super::firings::Firings;

/// What is special about a firing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// Its local time was skipped, so it runs right after.
    Moved {
        /// The local times it runs in place of.
        wanted: Vec<DateTime>,
    },
    /// Its local time comes twice.
    Doubled {
        /// The local time.
        local: DateTime,
        /// Whether this is the second time.
        second: bool,
        /// Whether it runs once only.
        once: bool,
    },
    /// A blackout or a pause holds at that time.
    Held {
        /// When it ends, if it does before the deadline: then the run begins.
        until: Option<Timestamp>,
        /// Why it holds.
        reason: String,
    },
}

/// The clock of a zone goes forward or back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockChange {
    /// When.
    pub instant: Timestamp,
    /// What the clock would show without it.
    pub before: DateTime,
    /// What it shows.
    pub after: DateTime,
}

impl Note {
    /// The word for programs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Moved { .. } => "moved",
            Self::Doubled { .. } => "doubled",
            Self::Held { until: Some(_), .. } => "delayed",
            Self::Held { until: None, .. } => "left-out",
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Moved { wanted } => {
                let (first, others) = wanted
                    .split_first()
                    .map_or((None, 0), |(first, others)| (Some(*first), others.len()));
                let first = first.map(|first| first.strftime("%H:%M").to_string());
                write!(formatter, "in place of {}", first.unwrap_or_default())?;
                match others {
                    0 => formatter.write_str(", which is skipped"),
                    others => write!(formatter, " and {others} more, which are skipped"),
                }
            }
            Self::Doubled { local, second, once } => {
                let which = match (second, once) {
                    (_, true) => "runs the first time only",
                    (false, false) => "the first time",
                    (true, false) => "the second time",
                };
                write!(formatter, "{} comes twice, {which}", local.strftime("%H:%M"))
            }
            Self::Held { until: Some(until), reason } => {
                write!(formatter, "begins {}: {reason}", until.strftime("%Y-%m-%d %H:%MZ"))
            }
            Self::Held { until: None, reason } => write!(formatter, "left out: {reason}"),
        }
    }
}

impl fmt::Display for ClockChange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = if self.after > self.before { "forward" } else { "back" };
        write!(formatter, "the clock goes {direction}, from {}", self.before.strftime("%H:%M"))
    }
}

/// What is special about a firing at `instant`; nothing where the crontab does not fire then.
pub fn notes(crontab: &Crontab, zone: &Zone, instant: Timestamp) -> Vec<Note> {
    let second = SignedDuration::from_secs(1);
    let Ok(after) = instant.checked_add(second) else {
        return Vec::new();
    };
    if Firings::new(crontab, zone, instant, after).next() != Some(instant) {
        return Vec::new();
    }
    let mut notes = Vec::new();
    if !crontab.is_wildcard()
        && let Some(change) = clock_changes(zone, instant, after).first()
    {
        let wanted: Vec<DateTime> = crontab.minutes(change.before, change.after).collect();
        if !wanted.is_empty() {
            notes.push(Note::Moved { wanted });
        }
    }
    notes.extend(doubled(crontab, zone.time_zone(), instant));
    notes
}

/// The local times of an expression that do not come at a clock change and for which nothing runs:
/// what follows the wall clock (`*` in minute or hour) is not caught up.
pub fn left_out(crontab: &Crontab, change: &ClockChange) -> Vec<DateTime> {
    if !crontab.is_wildcard() {
        return Vec::new();
    }
    crontab.minutes(change.before, change.after).collect()
}

fn doubled(crontab: &Crontab, zone: &TimeZone, instant: Timestamp) -> Option<Note> {
    let local = zone.to_datetime(instant);
    let AmbiguousOffset::Fold { before, .. } = zone.to_ambiguous_timestamp(local).offset() else {
        return None;
    };
    let is_first = before.to_timestamp(local).is_ok_and(|first| first == instant);
    Some(Note::Doubled { local, second: !is_first, once: !crontab.is_wildcard() })
}

/// All changes of a clock in `[from, until)`.
pub fn clock_changes(zone: &Zone, from: Timestamp, until: Timestamp) -> Vec<ClockChange> {
    let zone = zone.time_zone();
    // `following` excludes its own instant.
    let start = from.saturating_sub(SignedDuration::from_nanos(1)).unwrap_or(from);
    zone.following(start)
        .map(|transition| transition.timestamp())
        .take_while(|instant| *instant < until)
        .filter_map(|instant| {
            let earlier = instant.checked_sub(SignedDuration::from_secs(1)).ok()?;
            let before = zone.to_offset(earlier).to_datetime(instant);
            let after = zone.to_datetime(instant);
            (before != after).then_some(ClockChange { instant, before, after })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(crontab: &str, zone: &str, instant: &str) -> Vec<String> {
        let crontab = Crontab::parse(crontab).unwrap();
        notes(&crontab, &Zone::find(zone).unwrap(), instant.parse().unwrap())
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_run_at_a_skipped_time_says_what_it_stands_for() {
        let spring = "2026-03-29T01:00:00Z";
        assert_eq!(
            told("30 2 * * *", "Europe/Berlin", spring),
            ["in place of 02:30, which is skipped"]
        );
        assert_eq!(
            told("0,15,30 2 * * *", "Europe/Berlin", spring),
            ["in place of 02:00 and 2 more, which are skipped"]
        );
        // 03:00 is a time of its own, and `*` follows the wall clock.
        assert!(told("0 3 * * *", "Europe/Berlin", spring).is_empty());
        assert!(told("0 * * * *", "Europe/Berlin", spring).is_empty());
        // It does not fire then at all.
        assert!(told("30 4 * * *", "Europe/Berlin", spring).is_empty());
    }

    #[test]
    fn a_run_at_a_doubled_time_says_which_of_the_two_it_is() {
        let (first, second) = ("2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z");
        assert_eq!(
            told("30 2 * * *", "Europe/Berlin", first),
            ["02:30 comes twice, runs the first time only"]
        );
        assert!(told("30 2 * * *", "Europe/Berlin", second).is_empty());
        assert_eq!(
            told("30 * * * *", "Europe/Berlin", first),
            ["02:30 comes twice, the first time"]
        );
        assert_eq!(
            told("30 * * * *", "Europe/Berlin", second),
            ["02:30 comes twice, the second time"]
        );
        assert!(told("30 2 * * *", "UTC", first).is_empty());
    }

    #[test]
    fn what_follows_the_wall_clock_is_left_out_in_the_hour_that_is_skipped() {
        let berlin = Zone::find("Europe/Berlin").unwrap();
        let changes = clock_changes(
            &berlin,
            "2027-01-01T00:00:00Z".parse().unwrap(),
            "2028-01-01T00:00:00Z".parse().unwrap(),
        );
        let [spring, autumn] = changes.as_slice() else { panic!("{changes:?}") };
        let told = |text: &str, change: &ClockChange| -> Vec<String> {
            let crontab = Crontab::parse(text).unwrap();
            left_out(&crontab, change).iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            told("*/20 2 * * *", spring),
            ["2027-03-28T02:00:00", "2027-03-28T02:20:00", "2027-03-28T02:40:00"]
        );
        assert_eq!(told("30 */2 * * *", spring), ["2027-03-28T02:30:00"]);
        for (text, change) in
            [("30 2 * * *", spring), ("30 */3 * * *", spring), ("*/20 2 * * *", autumn)]
        {
            assert!(told(text, change).is_empty(), "{text}");
        }
    }

    #[test]
    fn clock_changes_are_listed_with_what_the_clock_shows() {
        let berlin = Zone::find("Europe/Berlin").unwrap();
        let found = clock_changes(
            &berlin,
            "2026-03-29T01:00:00Z".parse().unwrap(),
            "2026-10-25T01:00:00Z".parse().unwrap(),
        );
        let told: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["the clock goes forward, from 02:00"]);
    }
}
