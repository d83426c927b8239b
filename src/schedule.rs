//! Schedules: a crontab expression, a time zone, a deadline and a jitter, read into slots.
//!
//! In go five fields and an IANA zone, out come slots: nominal instants in UTC. The calendar is
//! the one of Vixie cron, clock changes included: 300 recorded firings of a real cron decide
//! (`tests/it/cron.rs`). This room must never read the time of the machine or its zone files: the
//! zone rules are compiled in.

pub mod alike;
mod calendar;
mod crontab;
mod firings;
pub mod load;
pub mod notes;
mod special;
mod together;
pub mod translate;

use std::fmt;

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use similar::get_close_matches;

pub use crontab::{Crontab, CrontabError};
pub use firings::Firings;
pub use together::most_at_once;

use crate::elapsed::{Elapsed, whole_second};
use crate::name::Slot;

/// Without a deadline of its own, a slot may be created until the next one, but at most this long.
pub const DEADLINE_DEFAULT_MAX: Elapsed = Elapsed::hours(24);

/// An ordinary year begins: where the shortest period of a schedule is looked for.
const YEAR_BEGIN: Timestamp = Timestamp::constant(1_767_225_600, 0);

/// How far back a schedule is searched for its last slot; the rarest that can fire at all
/// (29 February on a given weekday) fires within 40 years.
const SEARCH: [Elapsed; 6] = [
    Elapsed::hours(2),
    Elapsed::days(2),
    Elapsed::days(40),
    Elapsed::days(400),
    Elapsed::days(9 * 366),
    Elapsed::days(60 * 366),
];

/// An IANA time zone by name, with the rules that are compiled into this program.
#[derive(Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Zone {
    /// The zone UTC.
    pub const UTC: Self = Self(TimeZone::UTC);

    /// Finds a zone by its IANA name, in any case; `None` where there is no such zone.
    pub fn find(name: &str) -> Option<Self> {
        // Names only: `UTC+2`, POSIX strings and offsets say nothing about clock changes.
        if name.eq_ignore_ascii_case("utc") {
            return Some(Self::UTC);
        }
        TimeZoneDatabase::bundled().get(name).ok().map(Self)
    }

    /// All names there are, for suggestions.
    pub fn names() -> Vec<String> {
        TimeZoneDatabase::bundled().available().map(|name| name.as_str().to_owned()).collect()
    }

    /// What to write instead of a name that no zone has.
    pub fn hint(name: &str) -> String {
        let names = Self::names();
        let city_of = |known: &str| known.rsplit('/').next().unwrap_or_default().to_owned();
        let asked = name.replace(' ', "_");
        let by_city = names.iter().find(|known| city_of(known).eq_ignore_ascii_case(&asked));
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        let close = by_city
            .map(String::as_str)
            .or_else(|| get_close_matches(name, &known, 1, 0.6).first().copied());
        match close {
            Some(close) => format!("did you mean `{close}`?"),
            None => {
                "zones have names like `Europe/Berlin`; offsets say nothing about clock changes"
                    .to_owned()
            }
        }
    }

    /// The IANA name.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// The zone for calendar arithmetic.
    pub fn time_zone(&self) -> &TimeZone {
        &self.0
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Zone({})", self.name())
    }
}

/// When restore points are due.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// The expressions; its slots are those of all of them, each once.
    pub crontabs: Vec<Crontab>,
    /// The zone they are read in.
    pub zone: Zone,
    /// How long after its slot a restore point may still be created; `None` means until the next
    /// slot, at most [`DEADLINE_DEFAULT_MAX`].
    pub deadline: Option<Elapsed>,
    /// Starts are spread over this length by a stable hash of the source.
    pub jitter: Elapsed,
}

impl Schedule {
    /// All slots in `[from, until)`, in order.
    pub fn slots(&self, from: Timestamp, until: Timestamp) -> impl Iterator<Item = Slot> + '_ {
        let mut ways: Vec<_> = self
            .crontabs
            .iter()
            .map(|crontab| Firings::new(crontab, &self.zone, from, until).peekable())
            .collect();
        std::iter::from_fn(move || {
            let next = ways.iter_mut().filter_map(|way| way.peek().copied()).min()?;
            for way in &mut ways {
                way.next_if_eq(&next);
            }
            Some(Slot::at(next))
        })
    }

    /// Its expressions as text, for people.
    pub fn text(&self) -> String {
        let texts: Vec<&str> = self.crontabs.iter().map(Crontab::as_str).collect();
        texts.join("; ")
    }

    /// The last slot at or before `instant`.
    pub fn last_slot(&self, instant: Timestamp) -> Option<Slot> {
        let until = Elapsed::seconds(1).after(whole_second(instant));
        SEARCH.iter().find_map(|reach| self.slots(reach.before(until), until).last())
    }

    /// The first slot after `instant`.
    pub fn next_slot(&self, instant: Timestamp) -> Option<Slot> {
        let from = Elapsed::seconds(1).after(whole_second(instant));
        SEARCH.iter().find_map(|reach| self.slots(from, reach.after(from)).next())
    }

    /// The last `count` slots at or before `instant`, the newest first.
    pub fn last_slots(&self, instant: Timestamp, count: usize) -> Vec<Slot> {
        let mut slots = Vec::with_capacity(count);
        let mut before = instant;
        while slots.len() < count {
            let Some(slot) = self.last_slot(before) else {
                break;
            };
            slots.push(slot);
            before = Elapsed::seconds(1).before(slot.instant());
        }
        slots
    }

    /// The first `count` slots after `instant`, in order.
    pub fn next_slots(&self, instant: Timestamp, count: usize) -> Vec<Slot> {
        let mut slots = Vec::with_capacity(count);
        let mut after = instant;
        while slots.len() < count {
            let Some(slot) = self.next_slot(after) else {
                break;
            };
            slots.push(slot);
            after = slot.instant();
        }
        slots
    }

    /// The shortest time between two slots, as the first thousand of an ordinary year show it.
    pub fn shortest_period(&self) -> Elapsed {
        let slots: Vec<Slot> =
            self.slots(YEAR_BEGIN, Elapsed::days(366 * 9).after(YEAR_BEGIN)).take(1000).collect();
        slots
            .windows(2)
            .map(|pair| Elapsed::between(pair[0].instant(), pair[1].instant()))
            .min()
            .unwrap_or(Elapsed::days(366))
    }

    /// The last instant at which the restore point of `slot` may still be created.
    pub fn deadline_of(&self, slot: Slot) -> Timestamp {
        if let Some(deadline) = self.deadline {
            return deadline.after(slot.instant());
        }
        let latest = DEADLINE_DEFAULT_MAX.after(slot.instant());
        match self.next_slot(slot.instant()) {
            // The next slot itself is the next one's: the deadline ends one second before.
            Some(next) => latest.min(Elapsed::seconds(1).before(next.instant())),
            None => latest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(crontab: &str, zone: &str) -> Schedule {
        Schedule {
            crontabs: vec![Crontab::parse(crontab).unwrap()],
            zone: Zone::find(zone).unwrap(),
            deadline: None,
            jitter: Elapsed::ZERO,
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn last_and_next_meet_at_the_slot_itself() {
        let daily = schedule("0 2 * * *", "UTC");
        let slot = at("2026-11-21T02:00:00Z");
        assert_eq!(daily.last_slot(slot), Some(Slot::at(slot)));
        assert_eq!(daily.next_slot(slot), Some(Slot::at(at("2026-11-22T02:00:00Z"))));
        assert_eq!(
            daily.last_slot(at("2026-11-21T01:59:59Z")),
            Some(Slot::at(at("2026-11-20T02:00:00Z")))
        );
    }

    #[test]
    fn rare_schedules_are_found() {
        let leap = schedule("0 0 29 2 *", "UTC");
        assert_eq!(
            leap.last_slot(at("2027-01-01T00:00:00Z")),
            Some(Slot::at(at("2024-02-29T00:00:00Z")))
        );
        let leap_sunday = schedule("0 0 29 2 */7", "UTC");
        assert!(leap_sunday.next_slot(at("2027-01-01T00:00:00Z")).is_some());
    }

    #[test]
    fn the_default_deadline_is_the_next_slot_but_at_most_a_day() {
        let hourly = schedule("0 * * * *", "UTC");
        assert_eq!(
            hourly.deadline_of(Slot::at(at("2026-11-21T02:00:00Z"))),
            at("2026-11-21T02:59:59Z")
        );
        let monthly = schedule("0 0 1 * *", "UTC");
        assert_eq!(
            monthly.deadline_of(Slot::at(at("2026-11-01T00:00:00Z"))),
            at("2026-11-02T00:00:00Z")
        );
    }

    #[test]
    fn zones_are_iana_names() {
        assert_eq!(
            Zone::find("europe/berlin").map(|zone| zone.name().to_owned()).as_deref(),
            Some("Europe/Berlin")
        );
        for name in ["", "UTC+2", "CET-1CEST,M3.5.0,M10.5.0/3", "Mars/Olympus", "/etc/localtime"] {
            assert!(Zone::find(name).is_none(), "{name}");
        }
    }
}
