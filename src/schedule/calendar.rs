//! The civil calendar behind a crontab: which wall-clock minutes match, without any zone.
//!
//! `cron` does the calendar arithmetic. Raw it reads crontabs otherwise than cron does (seconds
//! first, 1 = Sunday, both day fields must match), so it is given explicit numbers and weekday
//! names only, one schedule for each way in which a day can match, and always UTC as the name for
//! civil time. It knows no `L`, `W` or `#`, so where a day field holds one of them, days are walked
//! and asked one by one.

use std::iter::Peekable;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use cron::Schedule;
use jiff::civil;
use jiff::tz::TimeZone;

use super::crontab::Field;
use super::special::Day;

const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

/// The wall-clock minutes that match.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Calendar {
    /// Their union matches.
    ways: Vec<Schedule>,
    /// The fields, where a day field holds what `cron` does not know.
    walked: Option<[Field; 5]>,
}

/// Whether a day matches the two day fields. Vixie cron: where both are restricted and neither
/// begins with `*`, either may match; otherwise both must.
pub(super) fn matches(days: &Field, weekdays: &Field, day: Day) -> bool {
    let by_number = days.holds(day.number) || days.special.holds(day);
    let by_weekday = weekdays.holds(day.weekday) || weekdays.special.holds(day);
    if days.star || weekdays.star { by_number && by_weekday } else { by_number || by_weekday }
}

impl Calendar {
    /// `fields` are minute, hour, day of month, month and day of week, Sunday as 0.
    pub(super) fn new(fields: &[Field; 5]) -> Result<Self, String> {
        let [minutes, hours, days, months, weekdays] = fields;
        if !days.special.is_empty() || !weekdays.special.is_empty() {
            return Ok(Self { ways: Vec::new(), walked: Some(*fields) });
        }
        let list = |field: &Field, whole: usize| {
            let numbers: Vec<String> = field.numbers().map(|number| number.to_string()).collect();
            if numbers.len() == whole { "*".to_owned() } else { numbers.join(",") }
        };
        let names: Vec<&str> = weekdays
            .numbers()
            .filter_map(|number| WEEKDAYS.get(usize::from(number)).copied())
            .collect();
        let names = if names.len() == WEEKDAYS.len() { "*".to_owned() } else { names.join(",") };
        let (minutes, hours, months) = (list(minutes, 60), list(hours, 24), list(months, 12));
        let days_of_month = list(days, 31);
        let way = |days: &str, weekdays: &str| {
            let text = format!("0 {minutes} {hours} {days} {months} {weekdays}");
            Schedule::from_str(&text).map_err(|error| format!("not a schedule: {error}"))
        };
        // The same rule as in `matches`.
        let ways = if days.star || weekdays.star {
            vec![way(&days_of_month, &names)?]
        } else {
            vec![way(&days_of_month, "*")?, way("*", &names)?]
        };
        Ok(Self { ways, walked: None })
    }

    /// All matching minutes in `[from, until)`, in order, each once.
    pub(super) fn between(
        &self,
        from: civil::DateTime,
        until: civil::DateTime,
    ) -> impl Iterator<Item = civil::DateTime> + '_ {
        let walked = self.walked.into_iter().flat_map(move |fields| walk(fields, from, until));
        let (from, until) = (seconds_of(from), seconds_of(until));
        // `after` excludes its own instant.
        let start = DateTime::<Utc>::from_timestamp(from - 1, 0);
        let mut ways: Vec<Peekable<Box<dyn Iterator<Item = i64> + '_>>> = Vec::new();
        for way in &self.ways {
            let Some(start) = start else { break };
            let times = way.after(&start).map(|time| time.timestamp());
            ways.push((Box::new(times) as Box<dyn Iterator<Item = i64>>).peekable());
        }
        ways.push((Box::new(walked) as Box<dyn Iterator<Item = i64>>).peekable());
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

/// The minutes in `[from, until)`, as seconds, of days that are looked at one by one.
fn walk(
    fields: [Field; 5],
    from: civil::DateTime,
    until: civil::DateTime,
) -> impl Iterator<Item = i64> {
    let [minutes, hours, days, months, weekdays] = fields;
    std::iter::successors(Some(from.date()), |date| date.tomorrow().ok())
        .take_while(move |date| *date <= until.date())
        .filter(move |date| {
            number(date.month()).is_some_and(|month| months.holds(month))
                && day_of(*date).is_some_and(|day| matches(&days, &weekdays, day))
        })
        .flat_map(move |date| {
            let midnight = seconds_of(date.at(0, 0, 0, 0));
            hours.numbers().flat_map(move |hour| {
                minutes
                    .numbers()
                    .map(move |minute| midnight + 3600 * i64::from(hour) + 60 * i64::from(minute))
            })
        })
        .skip_while({
            let from = seconds_of(from);
            move |seconds| *seconds < from
        })
}

fn day_of(date: civil::Date) -> Option<Day> {
    Some(Day {
        number: number(date.day())?,
        last: number(date.days_in_month())?,
        weekday: number(date.weekday().to_sunday_zero_offset())?,
    })
}

fn number(number: i8) -> Option<u8> {
    u8::try_from(number).ok()
}

/// Civil time as seconds, as if it were UTC.
fn seconds_of(time: civil::DateTime) -> i64 {
    TimeZone::UTC.to_timestamp(time).map_or(i64::MAX, jiff::Timestamp::as_second)
}

fn civil_of(seconds: i64) -> Option<civil::DateTime> {
    jiff::Timestamp::from_second(seconds).ok().map(|instant| TimeZone::UTC.to_datetime(instant))
}
