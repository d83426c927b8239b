//! Five crontab fields, read as strictly as Vixie cron means them.
//!
//! Nothing is accepted and silently ignored: what a real cron would skip over or never run is an
//! error at its column.

use std::fmt;

use jiff::civil;
use similar::get_close_matches;

use super::calendar::{Calendar, matches};
use super::special::{self, Day, SpecialDays};

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const NICKNAMES: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// What is wrong with a crontab expression, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CrontabError {
    /// Where it begins, in characters from the start of the expression.
    pub column: usize,
    /// How many characters it spans, at least one.
    pub length: usize,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
}

/// One of the five fields: which numbers it may hold and what they are called.
pub(super) struct FieldRule {
    pub(super) name: &'static str,
    low: u8,
    high: u8,
    names: &'static [&'static str],
}

const FIELDS: [FieldRule; 5] = [
    FieldRule { name: "minute", low: 0, high: 59, names: &[] },
    FieldRule { name: "hour", low: 0, high: 23, names: &[] },
    FieldRule { name: "day of month", low: 1, high: 31, names: &[] },
    FieldRule { name: "month", low: 1, high: 12, names: &MONTHS },
    FieldRule { name: "day of week", low: 0, high: 7, names: &WEEKDAYS },
];

/// One field as read: its numbers as bits, what it says beyond numbers, and whether it began with
/// `*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Field {
    bits: u64,
    pub(super) special: SpecialDays,
    pub(super) star: bool,
}

impl Field {
    pub(super) fn numbers(self) -> impl Iterator<Item = u8> {
        (0..64).filter(move |number| self.bits & (1 << number) != 0)
    }

    pub(super) fn holds(self, number: u8) -> bool {
        self.bits & (1 << number) != 0
    }
}

/// A crontab expression: five fields, or a nickname like `@daily`.
#[derive(Clone, PartialEq)]
pub struct Crontab {
    text: String,
    fields: [Field; 5],
    calendar: Calendar,
}

impl Crontab {
    /// Reads an expression; on failure every mistake at once, in order of columns.
    pub fn parse(text: &str) -> Result<Self, Vec<CrontabError>> {
        let expanded = expand_nickname(text).map_err(|error| vec![error])?;
        let words = split(expanded.unwrap_or(text));
        if words.len() != FIELDS.len() {
            return Err(vec![wrong_count(text, &words)]);
        }
        let mut errors = Vec::new();
        let mut fields = [Field::default(); 5];
        for ((rule, field), (column, word)) in FIELDS.iter().zip(&mut fields).zip(&words) {
            *field = read_field(rule, word, *column, &mut errors);
        }
        // 0 and 7 are both Sunday.
        if fields[4].holds(7) {
            fields[4].bits = (fields[4].bits | 1) & !(1 << 7);
        }
        if errors.is_empty() && !can_fire(&fields) {
            errors.push(never_fires(&fields, &words));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let calendar = Calendar::new(&fields).map_err(|reason| {
            vec![CrontabError {
                column: 0,
                length: text.chars().count(),
                message: reason,
                hint: None,
            }]
        })?;
        Ok(Self { text: text.to_owned(), fields, calendar })
    }

    /// The expression as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it follows the wall clock through a clock change (`*` in minute or hour), or names
    /// fixed times that run exactly once.
    pub fn is_wildcard(&self) -> bool {
        self.fields[0].star || self.fields[1].star
    }

    /// The minutes of a day on which it fires, counted from midnight, whatever the day.
    pub(super) fn minutes_of_day(&self) -> impl Iterator<Item = u16> {
        let [minutes, hours, ..] = self.fields;
        hours.numbers().flat_map(move |hour| {
            minutes.numbers().map(move |minute| 60 * u16::from(hour) + u16::from(minute))
        })
    }

    /// On which days it fires, the same text for the same days as far as fields show it; nothing
    /// for every day.
    pub(super) fn days_key(&self) -> String {
        let [_, _, days, months, weekdays] = self.fields;
        let is_every = |field: &Field, rule: &FieldRule| {
            let high = if rule.high == 7 { 6 } else { rule.high };
            (rule.low..=high).all(|number| field.holds(number))
        };
        let every_day = is_every(&days, &FIELDS[2]);
        let every_month = is_every(&months, &FIELDS[3]);
        let every_weekday = is_every(&weekdays, &FIELDS[4]);
        let are_both_meant = days.star || weekdays.star;
        let is_every_day =
            if are_both_meant { every_day && every_weekday } else { every_day || every_weekday };
        let months = if every_month { 0 } else { months.bits };
        if is_every_day {
            return if every_month { String::new() } else { format!("{months:x}") };
        }
        let shown = |field: &Field| format!("{:x} {:?}", field.bits, field.special);
        format!("{months:x} {are_both_meant} {} {}", shown(&days), shown(&weekdays))
    }

    /// The wall-clock minutes in `[from, until)` that match, in order, whatever the zone.
    pub fn minutes(
        &self,
        from: civil::DateTime,
        until: civil::DateTime,
    ) -> impl Iterator<Item = civil::DateTime> + '_ {
        self.calendar.between(from, until)
    }
}

impl fmt::Debug for Crontab {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Crontab({:?})", self.text)
    }
}

pub(super) fn error(
    column: usize,
    word: &str,
    message: impl Into<String>,
    hint: Option<String>,
) -> CrontabError {
    CrontabError { column, length: word.chars().count().max(1), message: message.into(), hint }
}

fn expand_nickname(text: &str) -> Result<Option<&'static str>, CrontabError> {
    let word = text.trim();
    if !word.starts_with('@') {
        return Ok(None);
    }
    if let Some((_, fields)) = NICKNAMES.iter().find(|(name, _)| *name == word) {
        return Ok(Some(fields));
    }
    let known: Vec<&str> = NICKNAMES.iter().map(|(name, _)| *name).collect();
    let hint = match get_close_matches(word, &known, 1, 0.5).first() {
        Some(close) => format!("did you mean `{close}`?"),
        None => format!("known are {}", known.join(", ")),
    };
    Err(error(0, text, format!("no such nickname: `{word}`"), Some(hint)))
}

/// Words with the column of their first character.
pub(super) fn split(text: &str) -> Vec<(usize, &str)> {
    let mut words = Vec::new();
    let mut begun: Option<(usize, usize)> = None;
    let end = (text.chars().count(), text.len(), ' ');
    for (column, (byte, character)) in text.char_indices().enumerate() {
        match (character.is_whitespace(), begun) {
            (false, None) => begun = Some((column, byte)),
            (true, Some((start, from))) => {
                words.push((start, &text[from..byte]));
                begun = None;
            }
            _ => {}
        }
    }
    if let Some((start, from)) = begun {
        words.push((start, &text[from..end.1]));
    }
    words
}

fn wrong_count(text: &str, words: &[(usize, &str)]) -> CrontabError {
    let hint = match words.len() {
        0 => "write five fields: minute hour day-of-month month day-of-week, like `0 2 * * *`",
        6 | 7 => "there is no field for seconds or years: minute comes first, day of week last",
        _ => "the fields are minute hour day-of-month month day-of-week",
    };
    error(
        0,
        text,
        format!("a schedule has five fields, this one has {}", words.len()),
        Some(hint.to_owned()),
    )
}

fn read_field(
    rule: &FieldRule,
    word: &str,
    column: usize,
    errors: &mut Vec<CrontabError>,
) -> Field {
    let mut field = Field { star: word.starts_with('*'), ..Field::default() };
    let mut start = column;
    for item in word.split(',') {
        let read = match special::read(rule, item, start) {
            Some(days) => days.map(|days| field.special = field.special.and(days)),
            None => read_item(rule, item, start).map(|part| field.bits |= part),
        };
        errors.extend(read.err());
        start += item.chars().count() + 1;
    }
    field
}

/// One item of a list: `*`, a value or a range, the first and the last with a step.
fn read_item(rule: &FieldRule, item: &str, column: usize) -> Result<u64, CrontabError> {
    if item.is_empty() {
        let hint = "remove the comma, or write a value beside it".to_owned();
        return Err(error(column, item, "a comma with nothing beside it", Some(hint)));
    }
    let (range, step) = match item.split_once('/') {
        Some((range, step)) => (range, Some(step)),
        None => (item, None),
    };
    let (low, high, is_range) = read_range(rule, range, column)?;
    let Some(step) = step else {
        return Ok(bits(low, high, 1));
    };
    if !is_range {
        let hint = format!("write `{range}-{}/{step}`", rule.high);
        return Err(error(column, item, "a step needs a range or `*` before it", Some(hint)));
    }
    let step_column = column + range.chars().count() + 1;
    let number = read_number(step).filter(|number| *number > 0).ok_or_else(|| {
        error(
            step_column,
            step,
            format!("not a step: `{step}`"),
            Some("a step is a number from 1".to_owned()),
        )
    })?;
    match u8::try_from(number) {
        Ok(number) if number <= rule.high - rule.low => Ok(bits(low, high, number)),
        _ => Err(error(
            step_column,
            step,
            format!(
                "the step {step} is larger than the field {}, which goes from {} to {}",
                rule.name, rule.low, rule.high
            ),
            Some(format!("only its first value would be left: write `{low}`")),
        )),
    }
}

fn read_range(
    rule: &FieldRule,
    range: &str,
    column: usize,
) -> Result<(u8, u8, bool), CrontabError> {
    if range == "*" {
        return Ok((rule.low, rule.high, true));
    }
    let Some((from, to)) = range.split_once('-') else {
        let value = read_value(rule, range, column)?;
        return Ok((value, value, false));
    };
    let low = read_value(rule, from, column)?;
    let high = read_value(rule, to, column + from.chars().count() + 1)?;
    if low <= high {
        return Ok((low, high, true));
    }
    let hint = if rule.name == "day of week" && low == 7 {
        format!("Sunday is also 0: write `0-{to}`")
    } else if rule.name == "day of week" && high == 0 {
        format!("Sunday is also 7: write `{from}-7`")
    } else {
        format!(
            "write `{from}-{},{}-{to}`",
            rule.high.min(if rule.low == 0 && rule.high == 7 { 6 } else { 59 }),
            rule.low
        )
    };
    Err(error(column, range, format!("the range {range} runs backwards"), Some(hint)))
}

pub(super) fn read_value(rule: &FieldRule, word: &str, column: usize) -> Result<u8, CrontabError> {
    let lower = word.to_ascii_lowercase();
    if let Some(index) = rule.names.iter().position(|name| *name == lower) {
        // Months count from 1, weekdays from 0; both tables are shorter than 256.
        return Ok(rule.low + u8::try_from(index).unwrap_or(0));
    }
    match read_number(word) {
        Some(number) if (u32::from(rule.low)..=u32::from(rule.high)).contains(&number) => {
            Ok(u8::try_from(number).unwrap_or(rule.high))
        }
        Some(number) => Err(error(
            column,
            word,
            format!("{number} is outside the field {}: {} to {}", rule.name, rule.low, rule.high),
            None,
        )),
        None => Err(error(
            column,
            word,
            format!("`{word}` means nothing in the field {}", rule.name),
            value_hint(rule, &lower),
        )),
    }
}

fn value_hint(rule: &FieldRule, word: &str) -> Option<String> {
    if word == "?" {
        return Some("`?` belongs to other schedulers; write `*`".to_owned());
    }
    if word.is_empty() {
        return Some("a value is missing".to_owned());
    }
    if let Some(name) = rule.names.iter().find(|name| word.starts_with(**name)) {
        return Some(format!("names have three letters: `{name}`"));
    }
    let begins = |name: &&&str| name.starts_with(word);
    let close = get_close_matches(word, rule.names, 1, 0.5);
    if let Some(name) = rule.names.iter().find(begins).or_else(|| close.first()) {
        return Some(format!("did you mean `{name}`?"));
    }
    if word.contains(['l', 'w', '#']) {
        return Some("`L`, `W` and `#` are for the day fields".to_owned());
    }
    let names = rule.names;
    (!names.is_empty()).then(|| format!("names are {}", names.join(", ")))
}

/// Digits only: no sign, at most four of them.
pub(super) fn read_number(word: &str) -> Option<u32> {
    let digits = (1..=4).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| word.parse().ok())?
}

fn bits(low: u8, high: u8, step: u8) -> u64 {
    (low..=high).step_by(usize::from(step)).fold(0, |bits, number| bits | 1 << number)
}

/// Whether any day of any year matches: every month, in each of its lengths, begins on each
/// weekday in some year.
fn can_fire(fields: &[Field; 5]) -> bool {
    let [_, _, days, months, weekdays] = fields;
    let lengths = |month: u8| match month {
        2 => 28..=29,
        4 | 6 | 9 | 11 => 30..=30,
        _ => 31..=31,
    };
    months.numbers().flat_map(lengths).any(|last| {
        (1..=last).any(|number| {
            (0..7).any(|weekday| matches(days, weekdays, Day { number, last, weekday }))
        })
    })
}

fn never_fires(fields: &[Field; 5], words: &[(usize, &str)]) -> CrontabError {
    let ((column, days), (end, months), (week_end, weekdays)) = (words[2], words[3], words[4]);
    // Both day fields have a part in it only where the days alone would fire.
    let every_weekday = Field { star: true, bits: bits(0, 6, 1), ..Field::default() };
    let [minutes, hours, numbers, of_months, _] = *fields;
    if can_fire(&[minutes, hours, numbers, of_months, every_weekday]) {
        return CrontabError {
            column,
            length: week_end + weekdays.chars().count() - column,
            message: format!("this never fires: no day is `{days}` and `{weekdays}` at once"),
            hint: Some(
                "a field that begins with `*` must match together with the other; otherwise \
                 either day field may match"
                    .to_owned(),
            ),
        };
    }
    CrontabError {
        column,
        length: end + months.chars().count() - column,
        message: format!("this never fires: no month of `{months}` has a day `{days}`"),
        hint: Some("the last day of a month is `L`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(text: &str) -> Vec<(usize, usize, String)> {
        Crontab::parse(text)
            .err()
            .unwrap_or_default()
            .into_iter()
            .map(|mistake| (mistake.column, mistake.length, mistake.message))
            .collect()
    }

    #[test]
    fn accepts_what_vixie_cron_accepts() {
        for text in [
            "0 2 * * *",
            "*/15 * * * *",
            "0 0 1,15 * MON",
            "5 4 * JAN-mar sun",
            "0 22 * * 1-5",
            "@daily",
            "  0\t2 * * *  ",
            "0 0 * * 7",
            "0-59/5 * * * *",
            "0 0 29 2 *",
            "0 0 31 4 1",
            "* * * * *",
            "0 0 */2 * mon",
            "0 0 * * */7",
            "*,5 * * * *",
        ] {
            assert_eq!(mistakes(text), [], "{text}");
        }
    }

    #[test]
    fn every_mistake_is_found_at_its_column() {
        let found = mistakes("60 22-2 , foo 8");
        let columns: Vec<_> = found.iter().map(|(column, length, _)| (*column, *length)).collect();
        assert_eq!(columns, [(0, 2), (3, 4), (8, 1), (9, 1), (10, 3), (14, 1)]);
    }

    #[test]
    fn refuses_what_would_be_ignored() {
        for (text, column, word) in [
            ("0 0 30 2 *", 4, "never"),
            ("0 0 31 4,6 *", 4, "never"),
            ("*/60 * * * *", 2, "step"),
            ("0-10/60 * * * *", 5, "step"),
            ("0 0 1 */12 *", 8, "step"),
            ("*/0 * * * *", 2, "step"),
            ("5/15 * * * *", 0, "step"),
            ("0 2 ? * *", 4, "field day of month"),
            ("0,,5 * * * *", 2, "comma"),
            ("0, * * * *", 2, "comma"),
            ("0 2 * *", 0, "five fields"),
            ("0 0 2 * * *", 0, "five fields"),
            ("", 0, "five fields"),
            ("@reboot", 0, "nickname"),
            ("+1 * * * *", 0, "field minute"),
            ("1- * * * *", 2, "field minute"),
            ("0 0 0 * *", 4, "field day"),
            ("0 2 * * tues", 8, "field day of week"),
        ] {
            let found = mistakes(text);
            assert!(
                found
                    .first()
                    .is_some_and(|(at, _, message)| *at == column && message.contains(word)),
                "{text}: {found:?}"
            );
        }
    }

    #[test]
    fn hints_say_what_would_be_right() {
        let hint =
            |text: &str| Crontab::parse(text).unwrap_err()[0].hint.clone().unwrap_or_default();
        assert_eq!(hint("0 22-2 * * *"), "write `22-23,0-2`");
        assert_eq!(hint("0 2 * * fri-sun"), "Sunday is also 7: write `fri-7`");
        assert_eq!(hint("0 2 * * fri-mon"), "write `fri-6,0-mon`");
        assert_eq!(hint("@dayly"), "did you mean `@daily`?");
        assert_eq!(hint("5/15 * * * *"), "write `5-59/15`");
        assert_eq!(hint("0 2 * * tues"), "names have three letters: `tue`");
    }
}
