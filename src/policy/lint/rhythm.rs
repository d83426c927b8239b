//! The rhythm of a schedule: how much time passes between its slots, clock changes left aside.

use std::collections::BTreeMap;
use std::rc::Rc;

use jiff::Timestamp;

use crate::elapsed::Elapsed;
use crate::retention::{Period, Rule};
use crate::schedule::{Crontab, Schedule, Zone};

/// Where slots are looked for: the beginning of 2026.
pub(super) const BEGIN: Timestamp = Timestamp::constant(1_767_225_600, 0);

/// At most so many slots are looked at.
const SLOTS_MAX: usize = 20_000;
/// With fewer slots than this, a longer time is looked at.
const SLOTS_MIN: usize = 12;

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// How much time passes between slots, read as if all days had 24 hours.
pub(super) struct Rhythm {
    /// Seconds of the slots, in order, at least two.
    slots: Vec<i64>,
    /// The shortest time between two slots.
    pub(super) shortest: Elapsed,
    /// The longest.
    pub(super) longest: Elapsed,
    /// Whether nothing is left out, so that `longest` is known and not only that much at least.
    pub(super) is_whole: bool,
    /// The most slots within an hour.
    pub(super) hour_peak: u64,
    /// The most slots of a day.
    pub(super) day_peak: u64,
}

impl Rhythm {
    fn of(crontabs: &[Crontab], days: Days) -> Option<Self> {
        let schedule = Schedule {
            crontabs: crontabs.to_vec(),
            zone: Zone::UTC,
            deadline: None,
            jitter: Elapsed::ZERO,
        };
        let mut slots = Vec::new();
        for window in days.windows() {
            let found = schedule.slots(BEGIN, window.after(BEGIN)).take(SLOTS_MAX);
            slots = found.map(|slot| slot.instant().as_second()).collect();
            if days != Days::Some || slots.len() >= SLOTS_MIN {
                break;
            }
        }
        let gaps = || slots.windows(2).map(|pair| pair[1] - pair[0]);
        let (shortest, longest) = (gaps().min()?, gaps().max()?);
        Some(Self {
            shortest: Elapsed::seconds(shortest),
            longest: Elapsed::seconds(longest),
            is_whole: slots.len() < SLOTS_MAX,
            hour_peak: peak(&slots, |first, other| other - first < HOUR),
            day_peak: peak(&slots, |first, other| other.div_euclid(DAY) == first.div_euclid(DAY)),
            slots,
        })
    }

    /// The time a rule goes back for each one that it counts, on the whole.
    pub(super) fn spacing(&self, rule: Rule) -> Elapsed {
        let (Some(first), Some(last)) = (self.slots.first(), self.slots.last()) else {
            return Elapsed::ZERO;
        };
        let length = rule.period().map_or(1, period_length);
        let mut held = 0;
        let mut before = None;
        for slot in &self.slots {
            let period = slot.div_euclid(length);
            held += i64::from(before != Some(period));
            before = Some(period);
        }
        // From a period to the same time of the next, so one less than there are.
        let between = (last - first) / (held - 1).max(1);
        Elapsed::seconds(between.max(if held > 1 { 1 } else { length }))
    }
}

/// The length of a period in seconds, on the whole.
pub(super) fn period_length(period: Period) -> i64 {
    match period {
        Period::Hour => HOUR,
        Period::Day => DAY,
        Period::Week => 7 * DAY,
        Period::Month => 2_629_746,
        Period::Year => 31_556_952,
    }
}

/// The most slots in a row that belong together with the first of them.
fn peak(slots: &[i64], belongs: impl Fn(i64, i64) -> bool) -> u64 {
    let mut begin = 0;
    let mut most = 0;
    for (end, slot) in slots.iter().enumerate() {
        while !belongs(slots[begin], *slot) {
            begin += 1;
        }
        most = most.max(end - begin + 1);
    }
    u64::try_from(most).unwrap_or(u64::MAX)
}

/// On which days a schedule runs, as its text shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Days {
    /// All days are alike.
    All,
    /// All weeks are.
    OfWeek,
    /// Neither.
    Some,
}

impl Days {
    fn of(text: &str) -> Self {
        let fields: Vec<&str> = text.split_whitespace().collect();
        match fields.as_slice() {
            [_, _, "*", "*", "*"] => Self::All,
            // `5#1` and `5L` are days of a month.
            [_, _, "*", "*", day] if !day.contains(['#', 'L', 'l']) => Self::OfWeek,
            _ => Self::Some,
        }
    }

    /// The lengths of time to look at; the next only where one shows too little.
    fn windows(self) -> &'static [Elapsed] {
        match self {
            Self::All => const { &[Elapsed::days(3)] },
            Self::OfWeek => const { &[Elapsed::days(22)] },
            Self::Some => {
                const { &[Elapsed::days(2 * 366), Elapsed::days(9 * 366), Elapsed::days(60 * 366)] }
            }
        }
    }
}

/// Rhythms, each computed once.
#[derive(Default)]
pub(super) struct Rhythms {
    known: BTreeMap<String, Option<Rc<Rhythm>>>,
}

impl Rhythms {
    /// The rhythm of a schedule; `None` where it has fewer than two slots in sixty years.
    pub(super) fn of(&mut self, schedule: &Schedule) -> Option<Rc<Rhythm>> {
        let key = key(schedule);
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let days = schedule.crontabs.iter().map(|crontab| Days::of(crontab.as_str())).max()?;
        let rhythm = Rhythm::of(&moved_back(schedule).crontabs, days);
        let rhythm = rhythm.map(Rc::new);
        self.known.insert(key, rhythm.clone());
        rhythm
    }
}

/// The same for schedules that are alike, but for the minute and the hour.
pub(super) fn key(schedule: &Schedule) -> String {
    match schedule.crontabs.as_slice() {
        [only] => at_noon(only.as_str()),
        _ => schedule.text(),
    }
}

/// A schedule moved to the full hour, and to noon if it runs once on its days. The times between
/// its slots are the same, and noon is far from clock changes.
pub(super) fn moved_back(schedule: &Schedule) -> Schedule {
    let mut moved = schedule.clone();
    if let (Ok(crontab), [only]) = (Crontab::parse(&key(schedule)), moved.crontabs.as_mut_slice()) {
        *only = crontab;
    }
    moved
}

fn at_noon(text: &str) -> String {
    let is_number = |field: &str| field.parse::<u8>().is_ok();
    let fields: Vec<&str> = text.split_whitespace().collect();
    match fields.as_slice() {
        [minute, hour, days @ ..] if is_number(minute) => {
            let hour = if is_number(hour) { "12" } else { hour };
            format!("0 {hour} {}", days.join(" "))
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rhythm(texts: &[&str]) -> Rc<Rhythm> {
        let crontabs = texts.iter().map(|text| Crontab::parse(text).unwrap()).collect();
        let schedule = Schedule {
            crontabs,
            zone: Zone::find("Europe/Berlin").unwrap(),
            deadline: None,
            jitter: Elapsed::ZERO,
        };
        Rhythms::default().of(&schedule).unwrap()
    }

    #[test]
    fn rhythms() {
        let hours = Elapsed::hours;
        for (texts, shortest, longest, hour, day) in [
            (&["30 2 * * *"][..], hours(24), hours(24), 1, 1),
            (&["@daily"], hours(24), hours(24), 1, 1),
            (&["30 2 * * 1-5"], hours(24), hours(72), 1, 1),
            (&["0 8-18 * * 1-5"], hours(1), hours(62), 1, 11),
            (&["*/15 * * * *"], Elapsed::minutes(15), Elapsed::minutes(15), 4, 96),
            (&["0 2 1 * *"], hours(28 * 24), hours(31 * 24), 1, 1),
            (&["0 2 * * *", "5 2 * * 0"], Elapsed::minutes(5), hours(24), 2, 2),
            (&["0 0 29 2 *"], hours(1461 * 24), hours(1461 * 24), 1, 1),
            (&["0 2 * * 1#1"], hours(28 * 24), hours(35 * 24), 1, 1),
            (&["0 2 * * 5L"], hours(28 * 24), hours(35 * 24), 1, 1),
            (&["0 2 L * *"], hours(28 * 24), hours(31 * 24), 1, 1),
            (&["0 2 * 6 *"], hours(24), hours(336 * 24), 1, 1),
        ] {
            let rhythm = rhythm(texts);
            assert_eq!((rhythm.shortest, rhythm.longest), (shortest, longest), "{texts:?}");
            assert_eq!((rhythm.hour_peak, rhythm.day_peak), (hour, day), "{texts:?}");
            assert!(rhythm.is_whole);
        }
        assert!(!rhythm(&["* * 1-20 * *"]).is_whole);
    }

    #[test]
    fn spacing_counts_periods_that_hold_a_slot() {
        let daily = rhythm(&["30 2 * * *"]);
        assert_eq!(daily.spacing(Rule::Last), Elapsed::days(1));
        assert_eq!(daily.spacing(Rule::Hourly), Elapsed::days(1));
        assert_eq!(daily.spacing(Rule::Daily), Elapsed::days(1));
        assert_eq!(rhythm(&["0 */6 * * *"]).spacing(Rule::Last), Elapsed::hours(6));
        assert_eq!(rhythm(&["0 2 1 * *"]).spacing(Rule::Daily).as_seconds() / DAY, 30);
    }
}
