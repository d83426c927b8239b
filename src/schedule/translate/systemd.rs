//! `OnCalendar` expressions of systemd timers: `Mon..Fri *-*-* 02:00:00 Europe/Berlin`.
//!
//! Source: systemd.time(7), and what `systemd-analyze calendar` of systemd 252 says. Weekday and
//! date must both match, where a crontab fires when either does: what has both is translated by
//! `#`, `L`, or a field that begins with `*`, and refused where none of them says the same.

use jiff::civil::Date;

use super::super::Zone;
use super::super::crontab::{CrontabError, error, read_number, split};
use super::numbers::Numbers;
use super::{Reading, weekday_names};

const WHOLE: [(&str, &str); 11] = [
    ("minutely", "*:*"),
    ("hourly", "*:00"),
    ("daily", "00:00"),
    ("weekly", "Mon 00:00"),
    ("monthly", "*-*-01 00:00"),
    ("quarterly", "*-01,04,07,10-01 00:00"),
    ("semiannually", "*-01,07-01 00:00"),
    ("semi-annually", "*-01,07-01 00:00"),
    ("biannually", "*-01,07-01 00:00"),
    ("annually", "*-01-01 00:00"),
    ("yearly", "*-01-01 00:00"),
];
const WEEKDAYS: [&str; 7] =
    ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
/// Only so many days are in every month, counted from its end.
const FROM_END_MAX: i8 = 28;

/// A word and its column.
type Word<'a> = (usize, &'a str);

/// The days of the month.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Days {
    /// By number.
    FromStart(Numbers),
    /// By number from the end of the month, 1 for the last day.
    FromEnd(Numbers),
}

/// A field with numbers.
struct Part {
    name: &'static str,
    low: i8,
    high: i8,
}

/// Reads `Mon..Fri *-*-* 02:00:00 Europe/Berlin` and what is short for such.
pub(super) fn read(text: &str) -> Result<Reading, Vec<CrontabError>> {
    read_one(text).map_err(|mistake| vec![mistake])
}

fn read_one(text: &str) -> Result<Reading, CrontabError> {
    let mut words = split(text);
    let zone = read_zone(&mut words)?;
    if let [(_, word)] = words[..] {
        let lower = word.to_ascii_lowercase();
        if let Some((_, meant)) = WHOLE.iter().find(|(name, _)| *name == lower) {
            words = split(meant);
        }
    }
    let mut rest = words.iter().copied().peekable();
    let mut weekdays = Numbers::between(0, 6);
    if let Some(word) = rest.next_if(|(_, word)| word.starts_with(|c: char| c.is_alphabetic())) {
        weekdays = read_weekdays(word)?;
    }
    let mut months = Numbers::between(1, 12);
    let mut days = Days::FromStart(Numbers::between(1, 31));
    let mut has_time = false;
    let (mut hours, mut minutes) = (Numbers::between(0, 0), Numbers::between(0, 0));
    if let Some(word) = rest.next_if(|(_, word)| !word.contains(':')) {
        (months, days) = read_date(word)?;
    }
    if let Some(word) = rest.next() {
        (hours, minutes) = read_time(word)?;
        has_time = true;
    }
    if let Some((column, word)) = rest.next().filter(|_| has_time) {
        let hint = "write weekdays, date, time and zone, like `Mon..Fri *-*-* 02:00 UTC`";
        return Err(error(column, word, "nothing may follow the time", Some(hint.to_owned())));
    }
    if words.is_empty() {
        let hint = "write one like `Mon..Fri 02:00`".to_owned();
        return Err(error(0, text, "an expression is missing", Some(hint)));
    }
    let (day, weekday, notes) = day_words(days, weekdays, text)?;
    Ok(Reading {
        words: [minutes.written(0, 59), hours.written(0, 23), day, months.written(1, 12), weekday],
        zone,
        notes,
        minutes,
        hours,
        months,
        is_day: Box::new(move |date| {
            weekdays.holds(date.weekday().to_monday_zero_offset()) && days.holds(date)
        }),
    })
}

/// Takes the zone off the end.
fn read_zone(words: &mut Vec<Word<'_>>) -> Result<Option<Zone>, CrontabError> {
    let Some(&(column, word)) = words.last().filter(|_| words.len() > 1) else {
        return Ok(None);
    };
    if !word.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Ok(None);
    }
    let zone = Zone::find(word).ok_or_else(|| {
        error(column, word, format!("there is no time zone `{word}`"), Some(Zone::hint(word)))
    })?;
    words.pop();
    Ok(Some(zone))
}

/// Reads `Mon,Wed..Fri`; Monday is 0.
fn read_weekdays((column, word): Word<'_>) -> Result<Numbers, CrontabError> {
    let mut found = Vec::new();
    let mut start = column;
    // A comma at the end is allowed.
    for item in word.strip_suffix(',').unwrap_or(word).split(',') {
        let (first, last) = match item.split_once("..").or_else(|| item.split_once('-')) {
            Some((first, last)) => (first, last),
            None => (item, item),
        };
        let (low, high) = (weekday(first, start)?, weekday(last, start)?);
        if low > high {
            let hint = "the week begins on Monday; write the weekdays one by one".to_owned();
            return Err(error(start, item, format!("{item} runs backwards"), Some(hint)));
        }
        found.extend(low..=high);
        start += item.chars().count() + 1;
    }
    Ok(found.into_iter().collect())
}

fn weekday(word: &str, column: usize) -> Result<i8, CrontabError> {
    let lower = word.to_ascii_lowercase();
    let is_named = |name: &str| name == lower || name[..3] == lower;
    (0..).zip(WEEKDAYS).find_map(|(number, name)| is_named(name).then_some(number)).ok_or_else(
        || {
            let hint = "weekdays are Mon, Tue, Wed, Thu, Fri, Sat and Sun".to_owned();
            error(column, word, format!("`{word}` is no weekday"), Some(hint))
        },
    )
}

/// Reads `*-*-01`, `01-31`, `*-02~03`.
fn read_date((column, word): Word<'_>) -> Result<(Numbers, Days), CrontabError> {
    let wrong = || {
        let hint = "write year-month-day like `*-*-01`, or `*-*~01` for the last day".to_owned();
        error(column, word, format!("`{word}` is no date"), Some(hint))
    };
    let (front, from_end) = match word.rsplit_once('~') {
        Some((front, _)) => (front, true),
        None => (word.rsplit_once('-').ok_or_else(wrong)?.0, false),
    };
    let day_word = &word[front.len() + 1..];
    let day_column = column + front.chars().count() + 1;
    let (year, month, month_column) = match front.split_once('-') {
        Some((year, month)) => (year, month, column + year.chars().count() + 1),
        None => ("*", front, column),
    };
    if year != "*" {
        let hint = "only `*` in place of the year can be translated".to_owned();
        return Err(error(column, year, "a crontab has no years", Some(hint)));
    }
    let months = read_chain(&Part { name: "month", low: 1, high: 12 }, month, month_column)?;
    let days = if from_end {
        Days::FromEnd(read_from_end(day_word, day_column)?)
    } else {
        Days::FromStart(read_chain(&Part { name: "day", low: 1, high: 31 }, day_word, day_column)?)
    };
    Ok((months, days))
}

/// Reads `02:00`, `*:0/15:00`.
fn read_time((column, word): Word<'_>) -> Result<(Numbers, Numbers), CrontabError> {
    let parts: Vec<&str> = word.split(':').collect();
    let (hour, minute, second) = match parts[..] {
        [hour, minute] => (hour, minute, "00"),
        [hour, minute, second] => (hour, minute, second),
        _ => {
            let hint = "write one like `02:00`".to_owned();
            return Err(error(column, word, format!("`{word}` is no time"), Some(hint)));
        }
    };
    let minute_column = column + hour.chars().count() + 1;
    let second_column = minute_column + minute.chars().count() + 1;
    let (whole, fraction) = second.split_once('.').unwrap_or((second, "0"));
    let is_zero = |digits: &str| !digits.is_empty() && digits.bytes().all(|digit| digit == b'0');
    if !is_zero(whole) || !is_zero(fraction) {
        let hint = "only `00` in place of the seconds can be translated".to_owned();
        return Err(error(second_column, second, "a crontab has no seconds", Some(hint)));
    }
    let hours = read_chain(&Part { name: "hour", low: 0, high: 23 }, hour, column)?;
    let minutes = read_chain(&Part { name: "minute", low: 0, high: 59 }, minute, minute_column)?;
    Ok((hours, minutes))
}

/// An item of a list: where it begins, where it ends, its step.
type Item = (i8, Option<i8>, Option<i8>);

/// Reads `1,3..5,10/2`, or `*`.
fn read_chain(part: &Part, word: &str, column: usize) -> Result<Numbers, CrontabError> {
    if word == "*" {
        return Ok(Numbers::between(part.low, part.high));
    }
    let mut found = Vec::new();
    let mut start = column;
    for item in word.split(',') {
        match read_item(part, item, start)? {
            (first, None, None) => found.push(first),
            (first, Some(last), every) => {
                found.extend((first..=last).step_by(step_of(every)));
            }
            (first, None, Some(every)) => {
                if first + every > part.high {
                    return Err(no_room(item, start));
                }
                found.extend((first..=part.high).step_by(step_of(Some(every))));
            }
        }
        start += item.chars().count() + 1;
    }
    Ok(found.into_iter().collect())
}

/// Days from the end: ranges count away from it, a step alone counts towards it.
fn read_from_end(word: &str, column: usize) -> Result<Numbers, CrontabError> {
    let part = Part { name: "day from the end", low: 1, high: FROM_END_MAX };
    let mut found = Vec::new();
    let mut start = column;
    for item in word.split(',') {
        match read_item(&part, item, start)? {
            (first, None, None) => found.push(first),
            (first, Some(last), every) => {
                found.extend((first..=last).step_by(step_of(every)));
            }
            (first, None, Some(every)) => {
                if first - every < part.low {
                    return Err(no_room(item, start));
                }
                found.extend((part.low..=first).rev().step_by(step_of(Some(every))));
            }
        }
        start += item.chars().count() + 1;
    }
    Ok(found.into_iter().collect())
}

fn step_of(every: Option<i8>) -> usize {
    every.map_or(1, |every| usize::from(every.unsigned_abs()))
}

fn no_room(item: &str, column: usize) -> CrontabError {
    error(column, item, format!("`{item}` has no room for a second value"), None)
}

fn read_item(part: &Part, item: &str, column: usize) -> Result<Item, CrontabError> {
    let (range, step) = match item.split_once('/') {
        Some((range, step)) => (range, Some(step)),
        None => (item, None),
    };
    let (first, last) = match range.split_once("..") {
        Some((first, last)) => (first, Some(last)),
        None => (range, None),
    };
    let number = |word: &str, low: i8, high: i8| {
        let number = read_number(word).and_then(|number| i8::try_from(number).ok());
        number.filter(|number| (low..=high).contains(number)).ok_or_else(|| {
            let hint = match word {
                "*" if step.is_some() => {
                    Some(format!("write `{}/{}`", part.low, step.unwrap_or_default()))
                }
                _ => None,
            };
            let message =
                format!("`{word}` in `{item}` is no {}: {} to {}", part.name, part.low, part.high);
            error(column, item, message, hint)
        })
    };
    let every = step.map(|step| number(step, 1, part.high - part.low)).transpose()?;
    let first = number(first, part.low, part.high)?;
    let last = last.map(|last| number(last, part.low, part.high)).transpose()?;
    if last.is_some_and(|last| last < first) {
        return Err(error(column, range, format!("the range {range} runs backwards"), None));
    }
    Ok((first, last, every))
}

impl Days {
    fn holds(self, date: Date) -> bool {
        match self {
            Self::FromStart(numbers) => numbers.holds(date.day()),
            Self::FromEnd(numbers) => numbers.holds(date.days_in_month() + 1 - date.day()),
        }
    }

    fn written(self) -> String {
        match self {
            Self::FromStart(numbers) => numbers.written(1, 31),
            Self::FromEnd(numbers) => {
                let words = numbers.iter().map(|number| match number {
                    1 => "L".to_owned(),
                    number => format!("L-{}", number - 1),
                });
                words.collect::<Vec<_>>().join(",")
            }
        }
    }

    /// What stands behind a weekday where these days are whole weeks of the month.
    fn weeks(self) -> Option<Vec<String>> {
        let numbers = match self {
            Self::FromEnd(numbers) => {
                return (numbers == Numbers::between(1, 7)).then(|| vec!["L".to_owned()]);
            }
            Self::FromStart(numbers) => numbers,
        };
        let mut rest = numbers;
        let mut words = Vec::new();
        for (week, first) in (1..).zip([1, 8, 15, 22, 29]) {
            let days = Numbers::between(first, (first + 6).min(31));
            if days.is_within(numbers) {
                rest = rest.without(days);
                words.push(format!("#{week}"));
            }
        }
        (rest == Numbers::default()).then_some(words)
    }
}

/// Day of month and day of week for days that must match both, and what to know about them.
fn day_words(
    days: Days,
    weekdays: Numbers,
    text: &str,
) -> Result<(String, String, Vec<String>), CrontabError> {
    let weekdays: Numbers = weekdays.iter().map(|from_monday| (from_monday + 1) % 7).collect();
    let plain = |day: String| Ok((day, weekday_names(weekdays), Vec::new()));
    if weekdays == Numbers::between(0, 6) || days == Days::FromStart(Numbers::between(1, 31)) {
        return plain(days.written());
    }
    if let Some(weeks) = days.weeks() {
        let words: Vec<String> = weeks
            .iter()
            .flat_map(|week| {
                weekdays
                    .iter()
                    .map(move |day| format!("{}{week}", weekday_names(Numbers::between(day, day))))
            })
            .collect();
        return Ok(("*".to_owned(), words.join(","), Vec::new()));
    }
    let note = "a day field begins with `*`, so both day fields must match".to_owned();
    if let Days::FromStart(numbers) = days
        && let Some(word) = with_star(numbers, 1, 31)
    {
        return Ok((word, weekday_names(weekdays), vec![note]));
    }
    if let Some(word) = with_star(weekdays, 0, 6) {
        return Ok((days.written(), word, vec![note]));
    }
    Err(error(
        0,
        text,
        "the weekday and the date must both match, and a crontab fires when either does",
        Some(
            "whole weeks of the month can be translated (`Mon *-*-01..07` is `mon#1`, \
             `Mon *-*~01..07` is `monL`), and so can weekdays with Sunday among them"
                .to_owned(),
        ),
    ))
}

/// The numbers as a list that begins with `*/n`, where that is possible.
fn with_star(numbers: Numbers, low: i8, high: i8) -> Option<String> {
    // In the field day of week 7 is Sunday again.
    let last = if low == 0 { 7 } else { high };
    (2..=last - low).find_map(|step: i8| {
        let starred: Numbers = (low..=last)
            .step_by(usize::from(step.unsigned_abs()))
            .map(|number| if number > high { low } else { number })
            .collect();
        if !starred.is_within(numbers) {
            return None;
        }
        let rest = numbers.without(starred);
        let rest = if rest == Numbers::default() {
            String::new()
        } else if low == 0 {
            format!(",{}", weekday_names(rest))
        } else {
            // A step of its own would begin with `*` again.
            let words = rest.iter().map(|number| number.to_string());
            format!(",{}", words.collect::<Vec<_>>().join(","))
        };
        Some(format!("*/{step}{rest}"))
    })
}
