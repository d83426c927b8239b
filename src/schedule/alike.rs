//! Which schedules always fire together, however they are written.
//!
//! In go schedules, out come keys: two schedules with one key have the same slots. Two keys may
//! differ although the slots are the same; that is so only for what people hardly write.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use jiff::Timestamp;

use super::{Schedule, YEAR_BEGIN, Zone};
use crate::elapsed::Elapsed;

const DAY: i64 = 24 * 60;

/// Keys of schedules, each computed once.
#[derive(Default)]
pub struct Keys {
    known: BTreeMap<String, String>,
    zones: BTreeMap<String, Changes>,
}

/// What a zone adds to UTC, as seconds, and when that changes within a year.
#[derive(Clone, PartialEq, Eq)]
struct Changes {
    offset: i64,
    changes: Vec<(Timestamp, i64)>,
}

impl Changes {
    fn of(zone: &Zone) -> Self {
        let until = Elapsed::days(366).after(YEAR_BEGIN);
        let following = zone.time_zone().following(YEAR_BEGIN);
        let changes = following
            .take_while(|change| change.timestamp() < until)
            .map(|change| (change.timestamp(), i64::from(change.offset().seconds())))
            .collect();
        let offset = i64::from(zone.time_zone().to_offset(YEAR_BEGIN).seconds());
        Self { offset, changes }
    }

    /// Whole minutes to add to its wall clock for that of UTC, where its clocks never change.
    fn minutes_to_utc(&self) -> Option<i64> {
        (self.changes.is_empty() && self.offset % 60 == 0).then_some(-self.offset / 60)
    }
}

impl Keys {
    /// What a schedule has in common with all that have the same slots.
    pub fn of(&mut self, schedule: &Schedule) -> &str {
        let zone = schedule.zone.name();
        let changes =
            self.zones.entry(zone.to_owned()).or_insert_with(|| Changes::of(&schedule.zone));
        let written = format!("{zone}\n{}", schedule.text());
        self.known.entry(written).or_insert_with(|| key(schedule, changes))
    }
}

fn key(schedule: &Schedule, zone: &Changes) -> String {
    let shift = zone.minutes_to_utc();
    let mut times_of: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
    let mut is_every_day = true;
    for crontab in &schedule.crontabs {
        let days = crontab.days_key();
        is_every_day &= days.is_empty();
        // Through a clock change the two kinds of expressions go otherwise.
        let kind = if shift.is_none() && crontab.is_wildcard() { "*" } else { "" };
        let times = times_of.entry(format!("{kind}{days}")).or_default();
        times.extend(crontab.minutes_of_day().map(i64::from));
    }
    let mut key = String::new();
    let all = || times_of.values().flatten();
    match shift {
        // Moved into another day, a time is on other days of a week or a month.
        Some(shift) if is_every_day || all().all(|time| (0..DAY).contains(&(time + shift))) => {
            for times in times_of.values_mut() {
                *times = times.iter().map(|time| (time + shift).rem_euclid(DAY)).collect();
            }
        }
        _ => {
            let _ = write!(key, "{} {:?}", zone.offset, zone.changes);
        }
    }
    for (days, times) in &times_of {
        let _ = write!(key, "\n{days}: {times:?}");
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Crontab;

    fn key_of(crontabs: &[&str], zone: &str) -> String {
        let crontabs = crontabs.iter().map(|text| Crontab::parse(text).unwrap()).collect();
        let zone = Zone::find(zone).unwrap();
        let schedule = Schedule { crontabs, zone, deadline: None, jitter: Elapsed::ZERO };
        Keys::default().of(&schedule).to_owned()
    }

    #[test]
    fn schedules_with_the_same_slots_have_one_key() {
        let same = |one: (&[&str], &str), other: (&[&str], &str)| {
            assert_eq!(key_of(one.0, one.1), key_of(other.0, other.1), "{one:?} {other:?}");
        };
        same((&["0 0 * * *"], "UTC"), (&["@midnight"], "UTC"));
        same((&["0 0 * * *"], "UTC"), (&["00 0 * * 0-6"], "UTC"));
        same((&["0 0 * * *"], "UTC"), (&["0 0 1-31 1-12 mon-7"], "UTC"));
        same((&["0 2 * * *"], "UTC"), (&["0 2 * * *"], "Etc/UTC"));
        same((&["0 2 * * *"], "UTC"), (&["0 3 * * *"], "Africa/Lagos"));
        same((&["0 23 * * *"], "UTC"), (&["30 4 * * *"], "Asia/Kolkata"));
        same((&["0 2 * * 1"], "UTC"), (&["0 3 * * mon"], "Africa/Lagos"));
        same((&["0 2,3 * * *"], "UTC"), (&["0 3 * * *", "0 2 * * *"], "UTC"));
        same((&["*/20 * * * *"], "UTC"), (&["0,20,40 0-23 * * *"], "UTC"));
        same((&["0 2 * * *"], "Europe/Berlin"), (&["0 2 * * *"], "Europe/Paris"));
    }

    #[test]
    fn schedules_with_other_slots_have_another() {
        let other = |one: (&[&str], &str), other: (&[&str], &str)| {
            assert_ne!(key_of(one.0, one.1), key_of(other.0, other.1), "{one:?} {other:?}");
        };
        other((&["0 2 * * *"], "UTC"), (&["0 3 * * *"], "UTC"));
        other((&["0 2 * * *"], "UTC"), (&["0 2 * * *"], "Africa/Lagos"));
        other((&["0 2 * * *"], "UTC"), (&["0 3 * * *"], "Europe/Berlin"));
        // Another day in UTC.
        other((&["30 23 * * 1"], "UTC"), (&["30 0 * * 1"], "Africa/Lagos"));
        // Both day fields or either of them.
        other((&["0 2 13 * 5"], "UTC"), (&["0 2 */13 * 5"], "UTC"));
        other((&["0 2 L * *"], "UTC"), (&["0 2 31 * *"], "UTC"));
        // The hour that is skipped.
        other((&["*/20 2 * * *"], "Europe/Berlin"), (&["0,20,40 2 * * *"], "Europe/Berlin"));
    }
}
