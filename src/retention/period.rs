//! Calendar periods as keys: two instants lie in one period exactly where their keys are equal.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::schedule::Zone;

/// A calendar period, read in the zone of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Period {
    /// A wall-clock hour; an hour that is repeated in autumn is two periods.
    Hour,
    /// A date.
    Day,
    /// An ISO week, with the ISO year.
    Week,
    /// A month of a year.
    Month,
    /// A year.
    Year,
}

impl Period {
    /// What people call one of them.
    pub fn word(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// The key of the period that `instant` lies in. Keys are total and in order: a later instant
    /// never has a smaller key, through clock changes that cross midnight too.
    pub fn key(self, instant: Timestamp, zone: &Zone) -> i64 {
        let zone = zone.time_zone();
        if self == Self::Hour {
            let civil = zone.to_datetime(instant);
            return instant.as_second()
                - i64::from(civil.minute()) * 60
                - i64::from(civil.second());
        }
        let date = latest_date(instant, zone);
        match self {
            Self::Hour | Self::Day => {
                i64::from(date.year()) * 1_000 + i64::from(date.day_of_year())
            }
            Self::Week => {
                let week = date.iso_week_date();
                i64::from(week.year()) * 100 + i64::from(week.week())
            }
            Self::Month => i64::from(date.year()) * 12 + i64::from(date.month()) - 1,
            Self::Year => i64::from(date.year()),
        }
    }
}

/// The latest date the wall clock has shown up to `instant`. That is today's, except where a clock
/// went back over midnight: then the day that had begun goes on.
fn latest_date(instant: Timestamp, zone: &TimeZone) -> Date {
    let now = zone.to_datetime(instant);
    let second = SignedDuration::from_secs(1);
    let before_change = || -> Option<DateTime> {
        let change = zone.preceding(instant.checked_add(second).ok()?).next()?;
        let last = change.timestamp().checked_sub(second).ok()?;
        Some(zone.to_datetime(last))
    };
    match before_change() {
        Some(last) => now.date().max(last.date()),
        None => now.date(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(period: Period, zone: &str, instants: &[&str]) -> Vec<i64> {
        let zone = Zone::find(zone).unwrap();
        instants.iter().map(|text| period.key(text.parse().unwrap(), &zone)).collect()
    }

    #[test]
    fn a_repeated_hour_is_two_periods() {
        // New York, 2026-11-01: 01:30 EDT, 01:30 EST, 02:30 EST.
        let hours = keys(
            Period::Hour,
            "America/New_York",
            &["2026-11-01T05:30:00Z", "2026-11-01T06:30:00Z", "2026-11-01T07:30:00Z"],
        );
        assert!(hours.is_sorted() && hours[0] < hours[1] && hours[1] < hours[2], "{hours:?}");
    }

    #[test]
    fn half_an_hour_repeated_keeps_its_order() {
        // Lord Howe, 2026-04-05: 02:00 goes back to 01:30.
        let hours = keys(
            Period::Hour,
            "Australia/Lord_Howe",
            &["2026-04-04T14:45:00Z", "2026-04-04T15:15:00Z", "2026-04-04T15:45:00Z"],
        );
        assert!(hours.is_sorted() && hours[0] < hours[1], "{hours:?}");
    }

    #[test]
    fn a_clock_that_goes_back_over_midnight_does_not_bring_yesterday_back() {
        // St John's, 2010-11-07: 00:01 goes back to 23:01 of the day before.
        let days = keys(
            Period::Day,
            "America/St_Johns",
            &[
                "2010-11-07T02:29:00Z",
                "2010-11-07T02:30:30Z",
                "2010-11-07T02:40:00Z",
                "2010-11-07T03:31:00Z",
            ],
        );
        assert!(days.is_sorted(), "{days:?}");
        assert_eq!(days[1], days[2]);
        assert_eq!(days[2], days[3]);
    }

    #[test]
    fn weeks_belong_to_the_iso_year() {
        let weeks = keys(
            Period::Week,
            "UTC",
            &["2026-12-31T12:00:00Z", "2027-01-03T12:00:00Z", "2027-01-04T12:00:00Z"],
        );
        assert_eq!(weeks, [202_653, 202_653, 202_701]);
    }
}
