//! Calendar periods as keys: two instants lie in one period exactly where their keys are equal.

use jiff::civil::{Date, DateTime};
use jiff::tz::{Offset, TimeZone};
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
        self.key_on(instant, &mut WallClock::new(zone))
    }

    /// The same on a wall clock, for many instants that lie close together.
    pub(super) fn key_on(self, instant: Timestamp, clock: &mut WallClock<'_>) -> i64 {
        if self == Self::Hour {
            let civil = clock.time(instant);
            return instant.as_second()
                - i64::from(civil.minute()) * 60
                - i64::from(civil.second());
        }
        let date = clock.latest_date(instant);
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

/// The wall clock of a zone. It remembers the time between two changes that it was last asked
/// about: to look for them in the rules of a zone takes far longer than to add an offset.
pub(super) struct WallClock<'a> {
    zone: &'a TimeZone,
    stretch: Option<Stretch>,
}

/// The time between two changes of a zone.
#[derive(Clone, Copy)]
struct Stretch {
    begin: Timestamp,
    /// The next change; `None` where there is no other.
    end: Option<Timestamp>,
    offset: Offset,
    /// What the wall clock showed last before it began.
    date_before: Option<Date>,
}

impl<'a> WallClock<'a> {
    pub(super) fn new(zone: &'a Zone) -> Self {
        Self { zone: zone.time_zone(), stretch: None }
    }

    fn time(&mut self, instant: Timestamp) -> DateTime {
        self.stretch(instant).offset.to_datetime(instant)
    }

    /// The latest date the wall clock has shown up to `instant`. That is today's, except where a
    /// clock went back over midnight: then the day that had begun goes on.
    fn latest_date(&mut self, instant: Timestamp) -> Date {
        let stretch = self.stretch(instant);
        let date = stretch.offset.to_datetime(instant).date();
        stretch.date_before.map_or(date, |before| date.max(before))
    }

    fn stretch(&mut self, instant: Timestamp) -> Stretch {
        let holds = |stretch: &Stretch| {
            stretch.begin <= instant && stretch.end.is_none_or(|end| instant < end)
        };
        let stretch =
            self.stretch.filter(holds).unwrap_or_else(|| Stretch::around(instant, self.zone));
        self.stretch = Some(stretch);
        stretch
    }
}

impl Stretch {
    fn around(instant: Timestamp, zone: &TimeZone) -> Self {
        let second = SignedDuration::from_secs(1);
        let after = instant.saturating_add(second).unwrap_or(Timestamp::MAX);
        let begin = zone.preceding(after).next().map(|change| change.timestamp());
        let before = begin.and_then(|begin| begin.checked_sub(second).ok());
        Self {
            begin: begin.unwrap_or(Timestamp::MIN),
            end: zone.following(instant).next().map(|change| change.timestamp()),
            offset: zone.to_offset(instant),
            date_before: before.map(|before| zone.to_datetime(before).date()),
        }
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
    fn a_wall_clock_remembers_nothing_wrong() {
        for name in ["UTC", "America/New_York", "America/St_Johns", "Australia/Lord_Howe"] {
            let zone = Zone::find(name).unwrap();
            let mut clock = WallClock::new(&zone);
            let begin: Timestamp = "2010-10-01T00:00:00Z".parse().unwrap();
            // Forwards and back again, through clock changes.
            for step in (0..20_000).chain((0..20_000).rev()) {
                let instant = begin + SignedDuration::from_secs(step * 7_919);
                for period in [Period::Hour, Period::Day, Period::Week] {
                    let fresh = period.key(instant, &zone);
                    assert_eq!(period.key_on(instant, &mut clock), fresh, "{name} {instant}");
                }
            }
        }
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
