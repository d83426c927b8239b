//! Schedules of other schedulers, as crontabs.
//!
//! In goes an expression in the notation of another scheduler; out comes a crontab that fires at
//! the same minutes, or a refusal that names the part that no crontab can say. Each reader keeps
//! what it has read in the terms of its own scheduler, and every translation is proven before it is
//! handed out: the one is enumerated against the other. Clock changes are apart: schedulers differ
//! there, and the translation says how.

mod numbers;
mod quartz;
mod systemd;
mod yandex;

use jiff::ToSpan;
use jiff::civil::{Date, DateTime, date};

use super::Zone;
use super::crontab::{Crontab, CrontabError, error};
use numbers::Numbers;

/// A leap year, for times of day.
const YEAR: i16 = 2028;
/// Days are compared for so many years: every length of a month with every first weekday.
const DAYS_YEARS: i16 = 28;

/// Whose notation an expression is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notation {
    /// Amazon `EventBridge`: `cron(0 2 ? * MON-FRI *)`.
    Aws,
    /// Quartz: `0 0 2 ? * MON-FRI`.
    Quartz,
    /// Snapshot schedules of Yandex Compute Cloud: `0 2 ? * 1-5`.
    Yandex,
    /// `OnCalendar` of systemd timers: `Mon..Fri 02:00`.
    Systemd,
}

/// A schedule in our words.
#[derive(Debug, Clone, PartialEq)]
pub struct Translation {
    /// What fires at the same wall-clock minutes.
    pub crontab: Crontab,
    /// The zone, where the expression or its scheduler says one.
    pub zone: Option<Zone>,
    /// What a reader of the crontab should know.
    pub notes: Vec<String>,
    /// How the two differ where clocks change; `None` where they never do.
    pub clock_changes: Option<String>,
}

/// An expression as its reader understood it.
struct Reading {
    /// The five words of the crontab.
    words: [String; 5],
    zone: Option<Zone>,
    notes: Vec<String>,
    minutes: Numbers,
    hours: Numbers,
    months: Numbers,
    /// Whether a day matches, in the terms of the other scheduler.
    is_day: Box<dyn Fn(Date) -> bool>,
}

impl Notation {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Aws, Self::Quartz, Self::Yandex, Self::Systemd];

    /// The word on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::Quartz => "quartz",
            Self::Yandex => "yandex",
            Self::Systemd => "systemd",
        }
    }

    /// The notation that a word names.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|notation| notation.word() == word)
    }

    /// Which zone is meant where an expression names none.
    pub fn zone_note(self) -> &'static str {
        match self {
            Self::Aws => {
                "rules of EventBridge run in UTC; EventBridge Scheduler has its zone beside the \
                 expression: give it with --time-zone"
            }
            Self::Quartz => {
                "Quartz takes the zone of its trigger, or of its machine: give it with --time-zone"
            }
            Self::Yandex => "Yandex Compute Cloud runs schedules in UTC",
            Self::Systemd => {
                "without a zone in the expression systemd takes that of its machine: give it with \
                 --time-zone"
            }
        }
    }

    /// What the scheduler does where clocks change.
    fn clock_changes(self) -> Option<&'static str> {
        match self {
            Self::Aws => Some(
                "EventBridge Scheduler leaves out a run whose local time is skipped, and runs once \
                 where it comes twice",
            ),
            Self::Quartz => Some(
                "Quartz leaves out a run whose local time is skipped, and runs the second time only \
                 where it comes twice",
            ),
            Self::Yandex => None,
            Self::Systemd => Some(
                "systemd leaves out a run whose local time is skipped, and runs once where it \
                 comes twice",
            ),
        }
    }
}

/// Translates an expression; on failure every mistake that could be found.
pub fn translate(notation: Notation, text: &str) -> Result<Translation, Vec<CrontabError>> {
    let reading = match notation {
        Notation::Aws => quartz::read_aws(text),
        Notation::Quartz => quartz::read(text),
        Notation::Yandex => yandex::read(text),
        Notation::Systemd => systemd::read(text),
    }?;
    let whole = |message: String| vec![error(0, text, message, None)];
    let crontab = Crontab::parse(&reading.words.join(" ")).map_err(|errors| {
        whole(errors.first().map_or_else(String::new, |error| error.message.clone()))
    })?;
    prove(&reading, &crontab).map_err(|minute| {
        whole(format!("no exact crontab was found: `{}` differs at {minute}", crontab.as_str()))
    })?;
    let ours = if crontab.is_wildcard() {
        "here `*` in minute or hour follows the wall clock: nothing for a skipped time, each of two"
    } else {
        "here it runs once either way, right after a time that is skipped"
    };
    Ok(Translation {
        zone: reading.zone,
        notes: reading.notes,
        clock_changes: notation.clock_changes().map(|theirs| format!("{theirs}; {ours}")),
        crontab,
    })
}

/// Enumerates both; the first minute at which they differ.
fn prove(reading: &Reading, crontab: &Crontab) -> Result<(), DateTime> {
    let (from, until) = (date(YEAR, 1, 1), date(YEAR + 1, 1, 1));
    let theirs = days(reading, from, until).flat_map(|day| {
        let times = reading
            .hours
            .iter()
            .flat_map(|hour| reading.minutes.iter().map(move |minute| (hour, minute)));
        times.map(move |(hour, minute)| day.at(hour, minute, 0, 0))
    });
    same(theirs, crontab.minutes(from.at(0, 0, 0, 0), until.at(0, 0, 0, 0)))?;
    let [_, _, day, month, weekday] = &reading.words;
    let (from, until) = (from, date(YEAR + DAYS_YEARS, 1, 1));
    let Ok(midnights) = Crontab::parse(&format!("0 0 {day} {month} {weekday}")) else {
        return Err(from.at(0, 0, 0, 0));
    };
    let theirs = days(reading, from, until).map(|day| day.at(0, 0, 0, 0));
    same(theirs, midnights.minutes(from.at(0, 0, 0, 0), until.at(0, 0, 0, 0)))
}

/// The days in `[from, until)` that the other scheduler means.
fn days(reading: &Reading, from: Date, until: Date) -> impl Iterator<Item = Date> + '_ {
    from.series(1.day())
        .take_while(move |day| *day < until)
        .filter(|day| reading.months.holds(day.month()) && (reading.is_day)(*day))
}

/// Whether two enumerations are the same; the first minute that only one of them has.
fn same(
    mut one: impl Iterator<Item = DateTime>,
    mut other: impl Iterator<Item = DateTime>,
) -> Result<(), DateTime> {
    loop {
        match (one.next(), other.next()) {
            (None, None) => return Ok(()),
            (Some(one), Some(other)) if one == other => {}
            (Some(one), Some(other)) => return Err(one.min(other)),
            (Some(minute), None) | (None, Some(minute)) => return Err(minute),
        }
    }
}

/// The weekdays of a crontab by name, Sunday as 0.
fn weekday_names(weekdays: Numbers) -> String {
    const NAMES: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    let name =
        |number: i8| usize::try_from(number).ok().and_then(|index| NAMES.get(index).copied());
    let runs = weekdays.runs().into_iter();
    let written = runs.filter_map(|(first, last)| {
        let (begin, end) = (name(first)?, name(last)?);
        Some(match last - first {
            0 => begin.to_owned(),
            1 => format!("{begin},{end}"),
            _ => format!("{begin}-{end}"),
        })
    });
    if weekdays == Numbers::between(0, 6) {
        return "*".to_owned();
    }
    written.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_never_handed_out() {
        let mut reading = quartz::read("0 0 2 ? * MON").unwrap();
        let right = Crontab::parse(&reading.words.join(" ")).unwrap();
        assert_eq!(prove(&reading, &right), Ok(()));
        for wrong in ["0 2 * * tue", "0 2,3 * * mon", "1 2 * * mon", "0 2 1 * mon", "0 2 * 1-11 1"]
        {
            let crontab = Crontab::parse(wrong).unwrap();
            assert!(prove(&reading, &crontab).is_err(), "{wrong}");
        }
        // The days are compared over all kinds of years: this one fires in 2044 for the first time.
        reading = quartz::read("0 0 2 ? 2 2#5").unwrap();
        assert_eq!(prove(&reading, &Crontab::parse("0 2 * 2 1#5").unwrap()), Ok(()));
        reading.words[4] = "0#5".to_owned();
        assert!(prove(&reading, &Crontab::parse("0 2 * 2 0#5").unwrap()).is_err());
    }
}
