//! Patterns of image names: literal text with named parts in braces, as scripts put names together.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use jiff::civil::DateTime;

/// How the common scripts name images: `web-1-backup-20261121-020000`.
pub const DEFAULT: &str = "{source}-backup-{date}-{time}";
/// Longer names are no names of images.
const NAME_LENGTH_MAX: usize = 256;

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A brace is open at the end, or closed without having been opened.
    #[error("a brace is not closed, or closes nothing")]
    Brace,
    /// A part that is not known.
    #[error(
        "there is no part `{{{0}}}`; there are {{source}}, {{date}}, {{time}}, {{year}}, {{month}}, {{day}}, {{hour}}, {{minute}}, {{second}}, {{epoch}} and *"
    )]
    Unknown(String),
    /// A part that is there twice.
    #[error("the part `{{{0}}}` is there twice")]
    Twice(&'static str),
    /// Parts that make no time.
    #[error(
        "these parts make no time: write {{date}} with or without {{time}}, {{year}}, {{month}} and {{day}} with or without {{hour}}, {{minute}} and {{second}}, or {{epoch}}"
    )]
    Time,
}

/// A part of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Field {
    Source,
    Date,
    Time,
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    Epoch,
}

impl Field {
    const ALL: [Self; 10] = [
        Self::Source,
        Self::Date,
        Self::Time,
        Self::Year,
        Self::Month,
        Self::Day,
        Self::Hour,
        Self::Minute,
        Self::Second,
        Self::Epoch,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Date => "date",
            Self::Time => "time",
            Self::Year => "year",
            Self::Month => "month",
            Self::Day => "day",
            Self::Hour => "hour",
            Self::Minute => "minute",
            Self::Second => "second",
            Self::Epoch => "epoch",
        }
    }

    /// How many digits it has; anything may be a source.
    fn digits(self) -> Option<std::ops::RangeInclusive<usize>> {
        match self {
            Self::Source => None,
            Self::Date => Some(8..=8),
            Self::Time => Some(6..=6),
            Self::Year => Some(4..=4),
            Self::Month | Self::Day | Self::Hour | Self::Minute | Self::Second => Some(2..=2),
            Self::Epoch => Some(9..=11),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Field(Field),
    Anything,
}

/// What the time in a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Time {
    /// The pattern has none.
    None,
    /// By a clock on the wall of some place.
    Civil(DateTime),
    /// Everywhere the same.
    Instant(Timestamp),
    /// There is no such time.
    Impossible,
}

/// A name as a pattern reads it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reading {
    /// The name of the source, where the pattern has it.
    pub source: Option<String>,
    /// The time.
    pub time: Time,
}

/// A pattern of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    parts: Vec<Part>,
}

impl fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl Pattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let mut parts = Vec::new();
        let mut fields = BTreeSet::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            match first {
                '}' => return Err(PatternError::Brace),
                '*' => {
                    parts.push(Part::Anything);
                    rest = &rest[1..];
                }
                '{' => {
                    let (word, behind) = rest[1..].split_once('}').ok_or(PatternError::Brace)?;
                    let field = Field::ALL.into_iter().find(|field| field.word() == word);
                    let field = field.ok_or_else(|| PatternError::Unknown(word.to_owned()))?;
                    if !fields.insert(field) {
                        return Err(PatternError::Twice(field.word()));
                    }
                    parts.push(Part::Field(field));
                    rest = behind;
                }
                _ => {
                    let end = rest.find(['{', '}', '*']).unwrap_or(rest.len());
                    parts.push(Part::Literal(rest[..end].to_owned()));
                    rest = &rest[end..];
                }
            }
        }
        fields.remove(&Field::Source);
        if is_time(&fields) {
            Ok(Self { text: text.to_owned(), parts })
        } else {
            Err(PatternError::Time)
        }
    }

    /// Every way in which the pattern reads a whole name, each once.
    pub fn read(&self, name: &str) -> Vec<Reading> {
        let mut found = BTreeSet::new();
        if name.len() <= NAME_LENGTH_MAX && name.is_ascii() {
            read(&self.parts, name, &mut BTreeMap::new(), &mut found);
        }
        found.into_iter().collect()
    }
}

/// Whether these parts make a time, or none.
fn is_time(fields: &BTreeSet<Field>) -> bool {
    let row = [Field::Year, Field::Month, Field::Day, Field::Hour, Field::Minute, Field::Second];
    let is = |wanted: &[Field]| fields.iter().eq(wanted);
    is(&[])
        || is(&[Field::Epoch])
        || is(&[Field::Date])
        || is(&[Field::Date, Field::Time])
        || (3..=row.len()).any(|length| is(&row[..length]))
}

/// Reads the rest of a name by the rest of a pattern.
fn read<'n>(
    parts: &[Part],
    rest: &'n str,
    fields: &mut BTreeMap<Field, &'n str>,
    found: &mut BTreeSet<Reading>,
) {
    let Some((part, parts)) = parts.split_first() else {
        if rest.is_empty() {
            let source = fields.get(&Field::Source).map(|source| (*source).to_owned());
            found.insert(Reading { source, time: time(fields) });
        }
        return;
    };
    match part {
        Part::Literal(text) => {
            if let Some(rest) = rest.strip_prefix(text.as_str()) {
                read(parts, rest, fields, found);
            }
        }
        // With nothing behind it, it is the whole rest.
        Part::Anything if parts.is_empty() => read(parts, "", fields, found),
        Part::Anything => (0..=rest.len()).for_each(|end| read(parts, &rest[end..], fields, found)),
        Part::Field(field) => {
            let lengths = field.digits();
            let is_digits = lengths.is_some();
            for end in lengths.unwrap_or(1..=rest.len()).filter(|end| *end <= rest.len()) {
                let (text, rest) = rest.split_at(end);
                if !is_digits || text.bytes().all(|byte| byte.is_ascii_digit()) {
                    fields.insert(*field, text);
                    read(parts, rest, fields, found);
                }
            }
            fields.remove(field);
        }
    }
}

/// The time that the parts of a name make.
fn time(fields: &BTreeMap<Field, &str>) -> Time {
    if let Some(epoch) = fields.get(&Field::Epoch) {
        let instant = epoch.parse().ok().and_then(|second| Timestamp::from_second(second).ok());
        return instant.map_or(Time::Impossible, Time::Instant);
    }
    let of = |field: Field, whole: Field, from: usize, to: usize| -> Option<&str> {
        fields
            .get(&field)
            .copied()
            .or_else(|| fields.get(&whole).and_then(|text| text.get(from..to)))
    };
    let Some(year) = of(Field::Year, Field::Date, 0, 4) else { return Time::None };
    let small = |text: Option<&str>| text.map_or(Some(0), |text| text.parse::<i8>().ok());
    let made = || {
        DateTime::new(
            year.parse().ok()?,
            small(of(Field::Month, Field::Date, 4, 6))?,
            small(of(Field::Day, Field::Date, 6, 8))?,
            small(of(Field::Hour, Field::Time, 0, 2))?,
            small(of(Field::Minute, Field::Time, 2, 4))?,
            small(of(Field::Second, Field::Time, 4, 6))?,
            0,
        )
        .ok()
    };
    made().map_or(Time::Impossible, Time::Civil)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pattern: &str, name: &str) -> Vec<(String, Time)> {
        let readings = Pattern::parse(pattern).unwrap().read(name);
        readings
            .into_iter()
            .map(|reading| (reading.source.unwrap_or_default(), reading.time))
            .collect()
    }

    fn civil(text: &str) -> Time {
        Time::Civil(text.parse().unwrap())
    }

    #[test]
    fn names_of_scripts_are_read() {
        let at = civil("2026-11-21T02:00:05");
        let web = |time| vec![("web-1".to_owned(), time)];
        assert_eq!(read(DEFAULT, "web-1-backup-20261121-020005"), web(at));
        assert_eq!(
            read("{source}-{year}{month}{day}{hour}{minute}{second}-x", "web-1-20261121020005-x"),
            web(at)
        );
        assert_eq!(
            read("*-{source}-{date}", "nightly-web-20261121"),
            [("web".to_owned(), civil("2026-11-21T00:00:00"))]
        );
        let instant = Time::Instant("2026-11-21T02:00:05Z".parse().unwrap());
        assert_eq!(read("{source}-{epoch}", "web-1-1795226405"), web(instant));
        assert_eq!(read("{source}-image*", "web-1-image-of-monday"), web(Time::None));
    }

    #[test]
    fn what_is_not_a_time_is_none() {
        for name in
            ["w-backup-20261321-020000", "w-backup-20260230-000000", "w-backup-20261121-246000"]
        {
            assert_eq!(read(DEFAULT, name), [("w".to_owned(), Time::Impossible)], "{name}");
        }
        for name in [
            "w-backup-2026112-020000",
            "w-backup-20261121-02000",
            "-backup-20261121-020000",
            "w",
            "",
        ] {
            assert_eq!(read(DEFAULT, name), [], "{name}");
        }
    }

    #[test]
    fn a_name_may_be_read_in_more_than_one_way() {
        let readings = read("{source}-*-{date}", "a-b-c-20261121");
        let sources: Vec<&str> = readings.iter().map(|(source, _)| source.as_str()).collect();
        assert_eq!(sources, ["a", "a-b"]);
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for (text, error) in [
            ("{source", PatternError::Brace),
            ("a}", PatternError::Brace),
            ("{name}", PatternError::Unknown("name".to_owned())),
            ("{source}{source}", PatternError::Twice("source")),
            ("{time}", PatternError::Time),
            ("{year}-{day}", PatternError::Time),
            ("{date}-{hour}", PatternError::Time),
            ("{date}-{epoch}", PatternError::Time),
        ] {
            assert_eq!(Pattern::parse(text), Err(error), "{text}");
        }
    }
}
