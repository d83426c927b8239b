//! The civil calendar behind a crontab: which wall-clock minutes match, without any zone.
//!
//! `cron` does the calendar arithmetic. Raw it reads crontabs otherwise than cron does (seconds
//! first, 1 = Sunday, both day fields must match), so it is given explicit numbers and weekday
//! names only, one schedule for each way in which a day can match, and always UTC as the name for
//! civil time.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use cron::Schedule;
use jiff::civil;
use jiff::tz::TimeZone;

use super::crontab::Field;

const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

/// The wall-clock minutes that match.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Calendar {
    /// Their union matches.
    ways: Vec<Schedule>,
}

impl Calendar {
    /// `fields` are minute, hour, day of month, month and day of week, Sunday as 0.
    pub(super) fn new(fields: &[Field; 5]) -> Result<Self, String> {
        let [minutes, hours, days, months, weekdays] = fields;
        let list = |field: &Field| {
            field.numbers().map(|number| number.to_string()).collect::<Vec<_>>().join(",")
        };
        let names = weekdays
            .numbers()
            .filter_map(|number| WEEKDAYS.get(usize::from(number)).copied())
            .collect::<Vec<_>>()
            .join(",");
        let way = |days: &str, weekdays: &str| {
            let text =
                format!("0 {} {} {days} {} {weekdays}", list(minutes), list(hours), list(months));
            Schedule::from_str(&text).map_err(|error| format!("not a schedule: {error}"))
        };
        // Vixie cron: where both day fields are restricted and neither begins with `*`, either
        // may match; otherwise both must.
        let ways = if days.star || weekdays.star {
            vec![way(&list(days), &names)?]
        } else {
            vec![way(&list(days), "*")?, way("*", &names)?]
        };
        Ok(Self { ways })
    }

    /// All matching minutes in `[from, until)`, in order, each once.
    pub(super) fn between(
        &self,
        from: civil::DateTime,
        until: civil::DateTime,
    ) -> impl Iterator<Item = civil::DateTime> + '_ {
        let (from, until) = (seconds_of(from), seconds_of(until));
        // `after` excludes its own instant.
        let start = DateTime::<Utc>::from_timestamp(from - 1, 0);
        let mut ways: Vec<_> = self
            .ways
            .iter()
            .filter_map(|way| start.map(|start| way.after(&start).map(|time| time.timestamp())))
            .map(Iterator::peekable)
            .collect();
        std::iter::from_fn(move || {
            let next = ways.iter_mut().filter_map(|way| way.peek().copied()).min()?;
            if next >= until {
                return None;
            }
            for way in &mut ways {
                if way.peek() == Some(&next) {
                    way.next();
                }
            }
            civil_of(next)
        })
    }
}

/// Civil time as seconds, as if it were UTC.
fn seconds_of(time: civil::DateTime) -> i64 {
    TimeZone::UTC.to_timestamp(time).map_or(i64::MAX, jiff::Timestamp::as_second)
}

fn civil_of(seconds: i64) -> Option<civil::DateTime> {
    jiff::Timestamp::from_second(seconds).ok().map(|instant| TimeZone::UTC.to_datetime(instant))
}
