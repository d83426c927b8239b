//! Quartz expressions, and those of Amazon `EventBridge`, which are Quartz without seconds.
//!
//! Sources: the tutorial on `CronTrigger` and the class `CronExpression` of Quartz 2; the pages on
//! cron expressions in the user guides of `EventBridge` and its Scheduler. 1 is Sunday, exactly one
//! of the day fields is `?`, `5/15` goes from 5 to the end of the field.

use jiff::civil::{Date, Weekday};

use super::super::crontab::{CrontabError, error, read_number, split};
use super::numbers::{ListRule, Numbers, read_list, read_value};
use super::{Reading, weekday_names};

pub(super) const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

const SECOND: ListRule =
    ListRule { name: "second", low: 0, high: 59, names: &[], wraps: true, steps: true };

/// Which of the two it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Quartz,
    EventBridge,
}

/// What a day field says.
#[derive(Debug, Clone, Copy)]
enum Days {
    /// `?`
    Any,
    Numbers(Numbers),
    /// Sunday as 0.
    Weekdays(Numbers),
    /// So many days before the last.
    BeforeLast(i8),
    LastWeekday,
    /// The weekday nearest to this day.
    Nearest(i8),
    /// The nth such weekday, -1 for the last; Sunday as 0.
    Nth(i8, i8),
}

/// Reads `0 0 2 ? * MON-FRI`, with a year or without.
pub(super) fn read(text: &str) -> Result<Reading, Vec<CrontabError>> {
    let words = split(text);
    let mut errors = Vec::new();
    let (first, fields, year) = match words[..] {
        [second, minute, hour, day, month, weekday] => {
            (second, [minute, hour, day, month, weekday], None)
        }
        [second, minute, hour, day, month, weekday, year] => {
            (second, [minute, hour, day, month, weekday], Some(year))
        }
        _ => {
            let message = format!("Quartz has six or seven fields, this has {}", words.len());
            let hint = "second minute hour day-of-month month day-of-week, and a year if need be";
            return Err(vec![error(0, text, message, Some(hint.to_owned()))]);
        }
    };
    match read_list(&SECOND, first.1, first.0) {
        Ok(seconds) if seconds == Numbers::between(0, 0) => {}
        Ok(_) => errors.push(error(
            first.0,
            first.1,
            "a crontab has no seconds",
            Some("only `0` in the field second can be translated".to_owned()),
        )),
        Err(mistake) => errors.push(mistake),
    }
    if let Some((column, year)) = year {
        errors.extend(no_years(column, year));
    }
    read_fields(Dialect::Quartz, fields, errors)
}

/// Reads `cron(0 2 ? * MON-FRI *)`, or what stands between the parentheses.
pub(super) fn read_aws(text: &str) -> Result<Reading, Vec<CrontabError>> {
    let trimmed = text.trim();
    if let Some(rate) = within(trimmed, "rate") {
        let message = "a rate counts from when it was made and has no time of day";
        return Err(vec![error(0, text, message, Some(rate_hint(rate)))]);
    }
    if within(trimmed, "at").is_some() {
        let message = "this runs once; a crontab runs again and again";
        return Err(vec![error(0, text, message, None)]);
    }
    let inner = within(trimmed, "cron").unwrap_or(trimmed);
    let before = text.find(inner).map_or(0, |byte| text[..byte].chars().count());
    let words: Vec<_> =
        split(inner).into_iter().map(|(column, word)| (before + column, word)).collect();
    let [minute, hour, day, month, weekday, year] = words[..] else {
        let message = format!("EventBridge has six fields, this has {}", words.len());
        let hint = "minute hour day-of-month month day-of-week year, like cron(0 2 * * ? *)";
        return Err(vec![error(0, text, message, Some(hint.to_owned()))]);
    };
    let errors = no_years(year.0, year.1).into_iter().collect();
    read_fields(Dialect::EventBridge, [minute, hour, day, month, weekday], errors)
}

/// What stands in the parentheses of `name(…)`.
fn within<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.strip_prefix(name)?.trim_start().strip_prefix('(')?.strip_suffix(')')
}

/// What to write instead of a rate.
fn rate_hint(rate: &str) -> String {
    let (count, unit) = rate.trim().split_once(' ').unwrap_or((rate, ""));
    let count = read_number(count).unwrap_or(0);
    let crontab = match unit.trim().trim_end_matches('s') {
        "minute" if count == 1 => "* * * * *".to_owned(),
        "minute" if count > 0 && 60 % count == 0 && count < 60 => format!("*/{count} * * * *"),
        "minute" if count == 60 => "0 * * * *".to_owned(),
        "hour" if count == 1 => "0 * * * *".to_owned(),
        "hour" if count > 0 && 24 % count == 0 && count < 24 => format!("0 */{count} * * *"),
        "hour" if count == 24 => "0 2 * * *".to_owned(),
        "day" if count == 1 => "0 2 * * *".to_owned(),
        "day" if count == 7 => "0 2 * * sun".to_owned(),
        _ => {
            return "no crontab keeps this distance; write the times of day that are wanted, like \
                    `0 2 * * *`"
                .to_owned();
        }
    };
    format!("write a crontab with the times that are wanted, like `{crontab}`")
}

fn no_years(column: usize, year: &str) -> Option<CrontabError> {
    let hint = "only `*` in the field year can be translated".to_owned();
    (year != "*").then(|| error(column, year, "a crontab has no years", Some(hint)))
}

fn read_fields(
    dialect: Dialect,
    fields: [(usize, &str); 5],
    mut errors: Vec<CrontabError>,
) -> Result<Reading, Vec<CrontabError>> {
    let [minute, hour, day, month, weekday] = fields;
    let wraps = dialect == Dialect::Quartz;
    let rule = |name, low, high, names| ListRule { name, low, high, names, wraps, steps: true };
    let mut list = |rule: &ListRule, (column, word): (usize, &str)| {
        read_list(rule, word, column).map_err(|mistake| errors.push(mistake)).unwrap_or_default()
    };
    let minutes = list(&rule("minute", 0, 59, &[]), minute);
    let hours = list(&rule("hour", 0, 23, &[]), hour);
    let months = list(&rule("month", 1, 12, &MONTHS), month);
    let of_month = day_of_month(dialect, &rule("day of month", 1, 31, &[]), day, months);
    let weekday_rule =
        ListRule { steps: dialect == Dialect::Quartz, ..rule("day of week", 1, 7, &WEEKDAYS) };
    let of_week = day_of_week(&weekday_rule, weekday);
    let (of_month, of_week) = match (of_month, of_week) {
        (Ok(of_month), Ok(of_week)) => (of_month, of_week),
        (of_month, of_week) => {
            errors.extend(of_month.err().into_iter().chain(of_week.err()));
            return Err(errors);
        }
    };
    if matches!(of_month, Days::Any) == matches!(of_week, Days::Any) {
        let hint = "write `?` in the day field that does not matter".to_owned();
        errors.push(error(
            weekday.0,
            weekday.1,
            "exactly one of day of month and day of week is `?`",
            Some(hint),
        ));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(Reading {
        words: [
            minutes.written(0, 59),
            hours.written(0, 23),
            of_month.written(),
            months.written(1, 12),
            of_week.written(),
        ],
        zone: None,
        notes: notes_on(dialect, of_month),
        minutes,
        hours,
        months,
        is_day: Box::new(move |date| of_month.holds(date) && of_week.holds(date)),
    })
}

fn day_of_month(
    dialect: Dialect,
    rule: &ListRule,
    (column, word): (usize, &str),
    months: Numbers,
) -> Result<Days, CrontabError> {
    let upper = word.to_ascii_uppercase();
    if upper == "?" {
        return Ok(Days::Any);
    }
    if !upper.contains(['L', 'W']) {
        return read_list(rule, word, column).map(Days::Numbers);
    }
    no_list(word, column)?;
    match upper.as_str() {
        "L" => return Ok(Days::BeforeLast(0)),
        "LW" => return Ok(Days::LastWeekday),
        _ => {}
    }
    if let Some(days) = upper.strip_prefix("L-").filter(|_| dialect == Dialect::Quartz) {
        let number = read_number(days).and_then(|days| i8::try_from(days).ok());
        if let Some(days @ 1..=30) = number {
            return Ok(Days::BeforeLast(days));
        }
    }
    if let Some(number) = upper.strip_suffix('W').filter(|number| !number.starts_with('L')) {
        let day = read_value(rule, number, column)?;
        let shortest = months.iter().map(shortest).min().unwrap_or(31);
        if day > shortest {
            let message = format!("`{word}` in a month that has no day {day} is not defined");
            let hint = "the last weekday of the month is `LW`".to_owned();
            return Err(error(column, word, message, Some(hint)));
        }
        return Ok(Days::Nearest(day));
    }
    Err(error(column, word, format!("`{word}` cannot be translated"), None))
}

/// Quartz 2.3 and 2.4 do what all of them document; 2.5.0 and 2.5.2 were seen to miss days.
fn notes_on(dialect: Dialect, days: Days) -> Vec<String> {
    let missed = match days {
        Days::Nearest(_) => "Quartz 2.5 leaves out some of these days, against its documentation",
        Days::BeforeLast(_) | Days::LastWeekday => {
            "Quartz 2.5.0 leaves out some of these days, against its documentation"
        }
        _ => return Vec::new(),
    };
    if dialect == Dialect::Quartz { vec![format!("{missed}; here none is")] } else { Vec::new() }
}

/// The fewest days that a month has.
fn shortest(month: i8) -> i8 {
    match month {
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn day_of_week(rule: &ListRule, (column, word): (usize, &str)) -> Result<Days, CrontabError> {
    let upper = word.to_ascii_uppercase();
    match upper.as_str() {
        "?" => return Ok(Days::Any),
        // The last day of the week, not of the month.
        "L" => return Ok(Days::Weekdays(Numbers::between(6, 6))),
        _ => {}
    }
    if let Some((weekday, week)) = upper.split_once('#') {
        no_list(word, column)?;
        let weekday_read = read_value(rule, weekday, column)?;
        let number = read_number(week).and_then(|week| i8::try_from(week).ok());
        let Some(week @ 1..=5) = number else {
            let message = format!("`{week}` is no week of a month: 1 to 5");
            return Err(error(column + weekday.chars().count() + 1, week, message, None));
        };
        return Ok(Days::Nth(week, weekday_read - 1));
    }
    if let Some(weekday) = upper.strip_suffix('L') {
        no_list(word, column)?;
        return Ok(Days::Nth(-1, read_value(rule, weekday, column)? - 1));
    }
    let weekdays = read_list(rule, word, column)?;
    Ok(Days::Weekdays(weekdays.iter().map(|weekday| weekday - 1).collect()))
}

/// Versions differ in what `L`, `W` and `#` mean beside other days.
fn no_list(word: &str, column: usize) -> Result<(), CrontabError> {
    if word.contains(',') {
        let message = "`L`, `W` and `#` are defined for one day only, not in a list";
        return Err(error(column, word, message, None));
    }
    Ok(())
}

impl Days {
    fn holds(self, date: Date) -> bool {
        let weekday = |weekday: i8| Weekday::from_sunday_zero_offset(weekday);
        match self {
            Self::Any => true,
            Self::Numbers(numbers) => numbers.holds(date.day()),
            Self::Weekdays(weekdays) => weekdays.holds(date.weekday().to_sunday_zero_offset()),
            Self::BeforeLast(days) => date.day() + days == date.days_in_month(),
            Self::LastWeekday => nearest(date.days_in_month(), date, &[0, -1, -2]),
            Self::Nearest(day) => nearest(day, date, &[0, -1, 1, 2, -2]),
            Self::Nth(nth, day) => weekday(day)
                .and_then(|weekday| date.nth_weekday_of_month(nth, weekday))
                .is_ok_and(|found| found == date),
        }
    }

    fn written(self) -> String {
        const NAMES: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
        let name = |day: i8| usize::try_from(day).ok().and_then(|day| NAMES.get(day)).copied();
        match self {
            Self::Any => "*".to_owned(),
            Self::Numbers(numbers) => numbers.written(1, 31),
            Self::Weekdays(weekdays) => weekday_names(weekdays),
            Self::BeforeLast(0) => "L".to_owned(),
            Self::BeforeLast(days) => format!("L-{days}"),
            Self::LastWeekday => "LW".to_owned(),
            Self::Nearest(day) => format!("{day}W"),
            Self::Nth(-1, day) => format!("{}L", name(day).unwrap_or_default()),
            Self::Nth(nth, day) => format!("{}#{nth}", name(day).unwrap_or_default()),
        }
    }
}

/// Whether `date` is the first day from Monday to Friday among those so far from `day`.
fn nearest(day: i8, date: Date, distances: &[i8]) -> bool {
    let found = distances
        .iter()
        .map(|distance| day + distance)
        .filter(|number| (1..=date.days_in_month()).contains(number))
        .filter_map(|number| Date::new(date.year(), date.month(), number).ok())
        .find(|day| !matches!(day.weekday(), Weekday::Saturday | Weekday::Sunday));
    found == Some(date)
}
