//! Snapshot schedules of Yandex Compute Cloud: five fields in UTC, 1 is Monday.
//!
//! Source: "Creating scheduled disk snapshots" in its documentation. At most one of the day fields
//! says something, the other is `?` or `*`; `2/6` goes from 2 to the end of the field; there is no
//! `L`, `W` or `#`.

use super::super::Zone;
use super::super::crontab::{CrontabError, error, split};
use super::numbers::{ListRule, Numbers, read_list};
use super::quartz::MONTHS;
use super::{Reading, weekday_names};

const WEEKDAYS: [&str; 7] = ["MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"];
const WHOLE: [(&str, &str); 7] = [
    ("@hourly", "0 * ? * *"),
    ("@daily", "0 0 ? * *"),
    ("@midnight", "0 0 ? * *"),
    ("@weekly", "0 0 * * SUN"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// Reads `0 2 ? * 1-5`.
pub(super) fn read(text: &str) -> Result<Reading, Vec<CrontabError>> {
    let expanded = WHOLE.iter().find(|(word, _)| *word == text.trim());
    let words = split(expanded.map_or(text, |(_, fields)| fields));
    let [minute, hour, day, month, weekday] = words[..] else {
        let message =
            format!("a schedule of Yandex Compute Cloud has five fields, this has {}", words.len());
        let hint = "minute hour day-of-month month day-of-week, or @daily and its kin";
        return Err(vec![error(0, text, message, Some(hint.to_owned()))]);
    };
    let mut errors = Vec::new();
    let rule =
        |name, low, high, names| ListRule { name, low, high, names, wraps: false, steps: true };
    let mut list = |rule: &ListRule, (column, word): (usize, &str)| {
        read_list(rule, word, column).map_err(|mistake| errors.push(mistake)).unwrap_or_default()
    };
    let minutes = list(&rule("minute", 0, 59, &[]), minute);
    let hours = list(&rule("hour", 0, 23, &[]), hour);
    let any = |word: &str| matches!(word, "?" | "*");
    let mut day_list = |rule: &ListRule, field: (usize, &str)| {
        if any(field.1) { Numbers::between(rule.low, rule.high) } else { list(rule, field) }
    };
    let days = day_list(&rule("day of month", 1, 31, &[]), day);
    let weekdays = day_list(&rule("day of week", 1, 7, &WEEKDAYS), weekday);
    let months = list(&rule("month", 1, 12, &MONTHS), month);
    if (day.1 == "?" && weekday.1 == "?") || !(any(day.1) || any(weekday.1)) {
        let hint = "one of day of month and day of week says something, the other is `?`";
        errors.push(error(
            weekday.0,
            weekday.1,
            "both day fields at once are not defined",
            Some(hint.to_owned()),
        ));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let from_sunday: Numbers = weekdays.iter().map(|weekday| weekday % 7).collect();
    Ok(Reading {
        words: [
            minutes.written(0, 59),
            hours.written(0, 23),
            days.written(1, 31),
            months.written(1, 12),
            weekday_names(from_sunday),
        ],
        zone: Some(Zone::UTC),
        notes: Vec::new(),
        minutes,
        hours,
        months,
        is_day: Box::new(move |date| {
            days.holds(date.day()) && weekdays.holds(date.weekday().to_monday_one_offset())
        }),
    })
}
