//! Days that no list of numbers names: the last of a month, the weekday nearest to the 15th, the
//! first Monday.
//!
//! In goes one item of a day field, like `L`, `LW`, `15W`, `5L` or `1#1`; out comes a rule that can
//! be asked about any day. Weekdays count as everywhere in a crontab: 0 and 7 are Sunday.

use super::crontab::{CrontabError, FieldRule, error, read_number, read_value};

/// The largest number behind `L-`: only months of 31 days have a day that far from their last.
const BEFORE_LAST_MAX: u32 = 30;
/// No weekday comes more often in a month.
const WEEKS_MAX: u32 = 5;

/// A day as far as rules look at it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Day {
    /// Its number in its month, from 1.
    pub(super) number: u8,
    /// The number of the last day of its month.
    pub(super) last: u8,
    /// Its weekday, Sunday as 0.
    pub(super) weekday: u8,
}

impl Day {
    /// The weekday of another day of its month.
    fn weekday_of(self, number: u8) -> u8 {
        (self.weekday + number + 35 - self.number) % 7
    }

    /// The day from Monday to Friday that is nearest to day `number`, inside the month.
    fn nearest_weekday(self, number: u8) -> u8 {
        match self.weekday_of(number) {
            6 if number == 1 => 3,
            6 => number - 1,
            0 if number == self.last => number - 2,
            0 => number + 1,
            _ => number,
        }
    }
}

/// What a day field says beyond numbers; nothing by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct SpecialDays {
    /// Bit `n`: the day that is `n` days before the last one.
    before_last: u32,
    /// Bit `n`: the weekday nearest to day `n`.
    nearest: u32,
    /// The last day from Monday to Friday.
    last_weekday: bool,
    /// Bit `8 * weekday + n`: the `n`th such weekday; `n` = 0 is the last one.
    nth: u64,
}

impl SpecialDays {
    /// Whether anything is said.
    pub(super) fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// What either says.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            before_last: self.before_last | other.before_last,
            nearest: self.nearest | other.nearest,
            last_weekday: self.last_weekday || other.last_weekday,
            nth: self.nth | other.nth,
        }
    }

    /// Whether a day is one of them.
    pub(super) fn holds(self, day: Day) -> bool {
        let week = (day.number - 1) / 7 + 1;
        let is_last_week = day.number + 7 > day.last;
        self.before_last & (1 << (day.last - day.number)) != 0
            || self.nth & (1 << (8 * day.weekday + week)) != 0
            || (is_last_week && self.nth & (1 << (8 * day.weekday)) != 0)
            || (self.last_weekday && last_weekday(day) == day.number)
            || (1..=day.last).any(|number| {
                self.nearest & (1 << number) != 0 && day.nearest_weekday(number) == day.number
            })
    }
}

fn last_weekday(day: Day) -> u8 {
    match day.weekday_of(day.last) {
        6 => day.last - 1,
        0 => day.last - 2,
        _ => day.last,
    }
}

/// Reads an item of a day field that is no plain value; `None` where it is one, or where the field
/// is no day field.
pub(super) fn read(
    rule: &FieldRule,
    item: &str,
    column: usize,
) -> Option<Result<SpecialDays, CrontabError>> {
    let lower = item.to_ascii_lowercase();
    let is_special = |letters: &[char]| {
        lower.contains('#') || lower.starts_with('l') || lower.ends_with(letters)
    };
    match rule.name {
        "day of month" if is_special(&['l', 'w']) => Some(day_of_month(rule, item, &lower, column)),
        // Both `wed` and `15w` hold a `w`.
        "day of week" if is_special(&['l', 'w']) && lower != "w" => {
            Some(day_of_week(rule, item, &lower, column))
        }
        _ => None,
    }
}

fn day_of_month(
    rule: &FieldRule,
    item: &str,
    lower: &str,
    column: usize,
) -> Result<SpecialDays, CrontabError> {
    let none = SpecialDays::default();
    if lower == "l" {
        return Ok(SpecialDays { before_last: 1, ..none });
    }
    if lower == "lw" {
        return Ok(SpecialDays { last_weekday: true, ..none });
    }
    if let Some(number) = lower.strip_prefix("l-") {
        return match read_number(number) {
            Some(days @ 1..=BEFORE_LAST_MAX) => Ok(SpecialDays { before_last: 1 << days, ..none }),
            _ => Err(error(
                column,
                item,
                format!("`{item}` is no day: `L-` takes a number from 1 to {BEFORE_LAST_MAX}"),
                Some("the last day is `L`, the day before it `L-1`".to_owned()),
            )),
        };
    }
    if let Some(number) = lower.strip_suffix('w').filter(|number| !number.is_empty()) {
        if number.contains(['-', '/', '*', 'l']) {
            let hint = "write the days one by one, like `14W,15W`; the last weekday is `LW`";
            return Err(error(column, item, "`W` takes one day", Some(hint.to_owned())));
        }
        let day = read_value(rule, &item[..number.len()], column)?;
        return Ok(SpecialDays { nearest: 1 << day, ..none });
    }
    let (message, hint) = if lower.contains('#') || lower.ends_with('l') {
        (
            format!("`{item}` belongs to the field day of week"),
            "here `L` is the last day of the month, `L-1` the day before it",
        )
    } else {
        (
            format!("`{item}` means nothing in the field {}", rule.name),
            "write `L` for the last day, `L-1` for the day before it, `LW` for the last weekday, \
             `15W` for the weekday nearest to the 15th",
        )
    };
    Err(error(column, item, message, Some(hint.to_owned())))
}

fn day_of_week(
    rule: &FieldRule,
    item: &str,
    lower: &str,
    column: usize,
) -> Result<SpecialDays, CrontabError> {
    let of_week = |weekday: u8, week: u32| SpecialDays {
        nth: 1 << (8 * u32::from(weekday % 7) + week),
        ..SpecialDays::default()
    };
    if let Some((weekday, week)) = item.split_once('#') {
        one_weekday(item, weekday, column)?;
        let day = read_value(rule, weekday, column)?;
        let week_column = column + weekday.chars().count() + 1;
        return match read_number(week) {
            Some(number @ 1..=WEEKS_MAX) => Ok(of_week(day, number)),
            _ => Err(error(
                week_column,
                week,
                format!("`{week}` is no week of a month: 1 to {WEEKS_MAX}"),
                Some(format!("the first is `{weekday}#1`, the last `{weekday}L`")),
            )),
        };
    }
    let last = item.strip_suffix(['l', 'L']).filter(|weekday| !weekday.is_empty());
    if let Some(weekday) = last {
        one_weekday(item, weekday, column)?;
        return read_value(rule, weekday, column).map(|day| of_week(day, 0));
    }
    let (message, hint) = if lower == "l" {
        (
            "`L` needs a weekday before it".to_owned(),
            "the last Friday of the month is `5L`; every Saturday is `6`".to_owned(),
        )
    } else if lower.ends_with('w') || lower.starts_with("l-") {
        (
            format!("`{item}` belongs to the field day of month"),
            "here `5L` is the last Friday of the month, `1#1` the first Monday".to_owned(),
        )
    } else {
        let weekday = &item[1..];
        (
            format!("`{item}` means nothing in the field {}", rule.name),
            match read_value(rule, weekday, column) {
                Ok(_) => format!("write `{weekday}L`"),
                Err(_) => "the last Friday of the month is `5L`".to_owned(),
            },
        )
    };
    Err(error(column, item, message, Some(hint)))
}

/// Only one weekday may stand before `#` or `L`.
fn one_weekday(item: &str, weekday: &str, column: usize) -> Result<(), CrontabError> {
    if weekday.contains(['-', '/', '*']) {
        let hint = "write the weekdays one by one, like `1#1,2#1`".to_owned();
        return Err(error(column, item, "`#` and `L` take one weekday", Some(hint)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Crontab;

    fn mistake(field: usize, item: &str) -> (usize, String, String) {
        let mut words = ["0", "2", "*", "*", "*"];
        words[field] = item;
        let start: usize = words[..field].iter().map(|word| word.len() + 1).sum();
        let errors = Crontab::parse(&words.join(" ")).unwrap_err();
        assert_eq!(errors.len(), 1, "{item}: {errors:?}");
        let error = errors[0].clone();
        (error.column - start, error.message, error.hint.unwrap_or_default())
    }

    #[test]
    fn special_days_stand_beside_ordinary_ones() {
        for text in [
            "0 2 L * *",
            "0 2 l-3,LW,15w,1 * *",
            "0 2 1,L * mon#1,FRIl,7#5,0L,wed",
            "0 2 31W * *",
            "0 2 * 2 mon#5",
            "0 2 L-28 2 *",
            "0 2 29W 2 *",
            "0 2 */2,L 1-3 */7,5L",
        ] {
            assert!(Crontab::parse(text).is_ok(), "{text}: {:?}", Crontab::parse(text));
        }
    }

    #[test]
    fn what_no_day_field_means_is_an_error_at_its_column() {
        for (field, item, column, message, hint) in [
            (2, "32W", 0, "32 is outside the field day of month: 1 to 31", ""),
            (2, "0W", 0, "0 is outside", ""),
            (2, "L-0", 0, "takes a number from 1 to 30", "`L-1`"),
            (2, "1,L-31", 2, "takes a number from 1 to 30", "`L-1`"),
            (2, "L5", 0, "`L5` means nothing", "`L-1`"),
            (2, "L/2", 0, "`L/2` means nothing", "`LW`"),
            (2, "1-15W", 0, "`W` takes one day", "`14W,15W`"),
            (2, "L-3W", 0, "takes a number", ""),
            (2, "5L", 0, "`5L` belongs to the field day of week", "`L-1`"),
            (2, "1,5#1", 2, "`5#1` belongs to the field day of week", "`L`"),
            (2, "W", 0, "`W` means nothing", "`15W`"),
            (2, "wed", 0, "`wed` means nothing", ""),
            (4, "L5", 0, "`L5` means nothing", "write `5L`"),
            (4, "Lé", 0, "`Lé` means nothing", "`5L`"),
            (4, "Lx", 0, "`Lx` means nothing", "`5L`"),
            (4, "L", 0, "`L` needs a weekday", "every Saturday is `6`"),
            (4, "LW", 0, "`LW` belongs to the field day of month", "`5L`"),
            (4, "15W", 0, "`15W` belongs to the field day of month", "`5L`"),
            (4, "1#0", 2, "`0` is no week of a month: 1 to 5", "`1#1`"),
            (4, "7#6", 2, "`6` is no week of a month: 1 to 5", "`7L`"),
            (4, "0#", 2, "`` is no week", "`0#1`"),
            (4, "8#1", 0, "8 is outside the field day of week: 0 to 7", ""),
            (4, "#1", 0, "`` means nothing", "missing"),
            (4, "8L", 0, "8 is outside the field day of week", ""),
            (4, "mon-fri#1", 0, "`#` and `L` take one weekday", "`1#1,2#1`"),
            (4, "1-5L", 0, "`#` and `L` take one weekday", "one by one"),
            (4, "mon,?", 4, "`?` means nothing", "write `*`"),
            (1, "L", 0, "`L` means nothing in the field hour", "the day fields"),
            (3, "1#1", 0, "`1#1` means nothing in the field month", "the day fields"),
        ] {
            let found = mistake(field, item);
            assert!(
                found.0 == column && found.1.contains(message) && found.2.contains(hint),
                "{item} in field {field}: {found:?}"
            );
        }
    }

    #[test]
    fn what_can_never_fire_is_an_error() {
        for text in [
            "0 2 30W 2 *",
            "0 2 31W 4,6 *",
            "0 2 L-29 2 *",
            "0 2 L-30 4 *",
            "0 2 */30 2 mon#2",
            "0 2 */30 * mon#2",
            "0 2 8 * */7,mon#1",
        ] {
            let errors = Crontab::parse(text).err().unwrap_or_default();
            let never = errors.first().is_some_and(|error| error.message.contains("never fires"));
            // The 8th can be a Sunday.
            assert_eq!(never, text != "0 2 8 * */7,mon#1", "{text}: {errors:?}");
        }
    }
}
