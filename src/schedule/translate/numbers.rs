//! Sets of small numbers, how schedulers write them in a field, and how a crontab does.

use super::super::crontab::{CrontabError, error, read_number};

/// A set of numbers from 0 to 63.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Numbers(u64);

impl Numbers {
    /// All from `low` to `high`.
    pub(super) fn between(low: i8, high: i8) -> Self {
        (low..=high).collect()
    }

    /// Whether a number is one of them.
    pub(super) fn holds(self, number: i8) -> bool {
        self.0 & (1 << number) != 0
    }

    /// All of them in order.
    pub(super) fn iter(self) -> impl Iterator<Item = i8> {
        (0..64).filter(move |number| self.holds(*number))
    }

    /// Whether all of these are also in `other`.
    pub(super) fn is_within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// These without those of `other`.
    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Numbers that follow each other, as their first and last.
    pub(super) fn runs(self) -> Vec<(i8, i8)> {
        let mut runs: Vec<(i8, i8)> = Vec::new();
        for number in self.iter() {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == number => *last = number,
                _ => runs.push((number, number)),
            }
        }
        runs
    }

    /// As a crontab writes them in a field from `low` to `high`, as short as is readable.
    pub(super) fn written(self, low: i8, high: i8) -> String {
        if self == Self::between(low, high) {
            return "*".to_owned();
        }
        let numbers: Vec<i8> = self.iter().collect();
        // Two values read better as they are, and stay fixed times where clocks change.
        if let [first, second, .., last] = numbers[..] {
            let step = second - first;
            let is_even = step > 1 && numbers.windows(2).all(|pair| pair[1] - pair[0] == step);
            if is_even && first == low && last + step > high {
                return format!("*/{step}");
            }
            if is_even {
                return format!("{first}-{last}/{step}");
            }
        }
        let words = self.runs().into_iter().map(|(first, last)| match last - first {
            0 => first.to_string(),
            1 => format!("{first},{last}"),
            _ => format!("{first}-{last}"),
        });
        words.collect::<Vec<_>>().join(",")
    }
}

impl FromIterator<i8> for Numbers {
    fn from_iter<I: IntoIterator<Item = i8>>(numbers: I) -> Self {
        Self(numbers.into_iter().fold(0, |bits, number| bits | 1 << number))
    }
}

/// A field of a scheduler with lists, ranges and steps.
#[derive(Debug, Clone, Copy)]
pub(super) struct ListRule {
    pub(super) name: &'static str,
    pub(super) low: i8,
    pub(super) high: i8,
    /// What the numbers from `low` on are also called, in upper case.
    pub(super) names: &'static [&'static str],
    /// Whether a range may run over the end of the field: `22-2`.
    pub(super) wraps: bool,
    /// Whether steps are known: `5/15` goes from 5 to the end.
    pub(super) steps: bool,
}

/// Reads a list like `1-5,10/2,*`.
pub(super) fn read_list(
    rule: &ListRule,
    word: &str,
    column: usize,
) -> Result<Numbers, CrontabError> {
    let mut found = Vec::new();
    let mut start = column;
    for item in word.split(',') {
        found.extend(read_item(rule, item, start)?);
        start += item.chars().count() + 1;
    }
    Ok(found.into_iter().collect())
}

fn read_item(rule: &ListRule, item: &str, column: usize) -> Result<Vec<i8>, CrontabError> {
    let (range, step) = match item.split_once('/') {
        Some((range, step)) => (range, Some(step)),
        None => (item, None),
    };
    let step_column = column + range.chars().count() + 1;
    let every = match step {
        None => 1,
        // Quartz takes the name and drops the step without a word.
        Some(_) if range.contains(|c: char| c.is_ascii_alphabetic()) => {
            let message = "a step behind a name is not read alike everywhere";
            let hint = "write numbers".to_owned();
            return Err(error(column, item, message, Some(hint)));
        }
        Some(_) if !rule.steps => {
            let hint = "write the values one by one".to_owned();
            let message = format!("the field {} takes no steps", rule.name);
            return Err(error(column, item, message, Some(hint)));
        }
        Some(text) => read_number(text)
            .and_then(|number| i8::try_from(number).ok())
            .filter(|number| (1..=rule.high).contains(number))
            .ok_or_else(|| {
                let message =
                    format!("`{text}` is no step of the field {}: 1 to {}", rule.name, rule.high);
                error(step_column, text, message, None)
            })?,
    };
    let (first, last) = match range.split_once('-') {
        _ if range == "*" => (rule.low, rule.high),
        None => {
            let value = read_value(rule, range, column)?;
            (value, if step.is_some() { rule.high } else { value })
        }
        Some((from, to)) => (
            read_value(rule, from, column)?,
            read_value(rule, to, column + from.chars().count() + 1)?,
        ),
    };
    let every = usize::from(every.unsigned_abs());
    if first <= last {
        return Ok((first..=last).step_by(every).collect());
    }
    if !rule.wraps {
        let hint = format!("write `{first}-{},{}-{last}`", rule.high, rule.low);
        return Err(error(column, range, format!("the range {range} runs backwards"), Some(hint)));
    }
    Ok((first..=rule.high).chain(rule.low..=last).step_by(every).collect())
}

/// Reads a number or a name.
pub(super) fn read_value(rule: &ListRule, word: &str, column: usize) -> Result<i8, CrontabError> {
    let upper = word.to_ascii_uppercase();
    if let Some(number) =
        (rule.low..).zip(rule.names).find_map(|(number, name)| (*name == upper).then_some(number))
    {
        return Ok(number);
    }
    let number = read_number(word).and_then(|number| i8::try_from(number).ok());
    number.filter(|number| (rule.low..=rule.high).contains(number)).ok_or_else(|| {
        let names = match rule.names {
            [first, .., last] => format!(" or {first} to {last}"),
            _ => String::new(),
        };
        error(
            column,
            word,
            format!("`{word}` means nothing in the field {}", rule.name),
            Some(format!("it takes {} to {}{names}", rule.low, rule.high)),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_a_crontab_writes_them() {
        for (numbers, text) in [
            (vec![0], "0"),
            (vec![0, 15, 30, 45], "*/15"),
            (vec![5, 20, 35, 50], "5-50/15"),
            (vec![0, 30], "0,30"),
            (vec![0, 6, 12, 18, 24, 30, 36, 42, 48, 54], "*/6"),
            (vec![0, 20], "0,20"),
            (vec![1, 2, 3, 9, 10], "1-3,9,10"),
            ((0..60).collect(), "*"),
        ] {
            assert_eq!(numbers.into_iter().collect::<Numbers>().written(0, 59), text);
        }
    }

    #[test]
    fn ranges_run_over_the_end_only_where_that_is_known() {
        let hours =
            |wraps| ListRule { name: "hour", low: 0, high: 23, names: &[], wraps, steps: true };
        let found: Vec<i8> = read_list(&hours(true), "22-3/2", 0).unwrap().iter().collect();
        assert_eq!(found, [0, 2, 22]);
        let refused = read_list(&hours(false), "1,22-2", 4).unwrap_err();
        assert_eq!((refused.column, refused.length), (6, 4));
        assert_eq!(refused.hint.as_deref(), Some("write `22-23,0-2`"));
    }
}
