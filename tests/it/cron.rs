//! The firings of a real cron, recorded: 300 rows, six zones, clock changes included; and what a
//! real cron does not know (`L`, `LW`, `15W`, `5L`, `1#1`) against days walked one by one.

use std::collections::BTreeSet;

use jiff::civil::{Date, DateTime, Weekday, date};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, ToSpan};
use stillframe::elapsed::Elapsed;
use stillframe::schedule::{Crontab, Firings, Zone};

/// The recording stops after this many firings.
const FIRINGS_MAX: usize = 40;

#[test]
fn a_real_cron_fires_as_recorded() {
    let recording = include_str!("../data/cron/vixie.tsv");
    let mut rows = 0;
    let mut wrong = Vec::new();
    for line in recording.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<&str> = line.split('\t').collect();
        let [zone, expression, from, firings, days] = columns[..] else {
            panic!("not a row of five columns: {line}");
        };
        rows += 1;
        let recorded: Vec<i64> = firings
            .split(',')
            .filter(|text| !text.is_empty())
            .map(|text| text.parse().unwrap())
            .collect();
        let crontab = match Crontab::parse(expression) {
            Ok(crontab) => crontab,
            Err(errors) => {
                wrong.push(format!("{expression}: {errors:?}"));
                continue;
            }
        };
        let zone = Zone::find(zone).unwrap();
        let from = Timestamp::from_second(from.parse().unwrap()).unwrap();
        let until = Elapsed::days(days.parse().unwrap()).after(from);
        let found: Vec<i64> = Firings::new(&crontab, &zone, from, until)
            .map(Timestamp::as_second)
            .take(FIRINGS_MAX)
            .collect();
        if found != recorded {
            wrong.push(format!("{line}\n  found    {found:?}"));
        }
    }
    assert_eq!(rows, 300);
    assert!(wrong.is_empty(), "{} of {rows} rows differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// What the day fields of an expression mean, said again with dates.
type DayRule = fn(Date) -> bool;

fn weekdays_of_month(date: Date) -> Vec<Date> {
    date.first_of_month()
        .series(1.day())
        .take_while(|day| day.month() == date.month())
        .filter(|day| !matches!(day.weekday(), Weekday::Saturday | Weekday::Sunday))
        .collect()
}

/// Of the days from Monday to Friday of its month the one with the least distance to `number`.
fn is_nearest(date: Date, number: i8) -> bool {
    let weekdays = weekdays_of_month(date);
    let nearest = weekdays.iter().min_by_key(|day| (day.day() - number).abs());
    number <= date.days_in_month() && nearest == Some(&date)
}

fn is_nth(date: Date, nth: i8, weekday: Weekday) -> bool {
    date.nth_weekday_of_month(nth, weekday).is_ok_and(|day| day == date)
}

const SPECIAL: [(&str, &[i8], DayRule); 16] = [
    ("30 2 L * *", &[30], |date| date == date.last_of_month()),
    ("30 2 l-3 * *", &[30], |date| date + 3.days() == date.last_of_month()),
    ("30 2 L-28 2 *", &[30], |date| date.month() == 2 && date.day() == 1 && date.in_leap_year()),
    ("30 2 LW * *", &[30], |date| weekdays_of_month(date).last() == Some(&date)),
    ("30 2 15W * *", &[30], |date| is_nearest(date, 15)),
    ("30 2 1w * *", &[30], |date| is_nearest(date, 1)),
    ("30 2 31W * *", &[30], |date| is_nearest(date, 31)),
    ("30 2 29W 2 *", &[30], |date| date.month() == 2 && is_nearest(date, 29)),
    ("0,30 2 * * 0L", &[0, 30], |date| is_nth(date, -1, Weekday::Sunday)),
    ("30 2 * * FRIL", &[30], |date| is_nth(date, -1, Weekday::Friday)),
    ("30 2 * * 7#2", &[30], |date| is_nth(date, 2, Weekday::Sunday)),
    ("30 2 * * mon#1", &[30], |date| is_nth(date, 1, Weekday::Monday)),
    ("30 2 * 2 1#5", &[30], |date| date.month() == 2 && is_nth(date, 5, Weekday::Monday)),
    ("30 2 1,L * 5#2,wed", &[30], |date| {
        date.day() == 1
            || date == date.last_of_month()
            || is_nth(date, 2, Weekday::Friday)
            || date.weekday() == Weekday::Wednesday
    }),
    ("30 2 */2,L * 5L,wed", &[30], |date| {
        (date.day() % 2 == 1 || date == date.last_of_month())
            && (is_nth(date, -1, Weekday::Friday) || date.weekday() == Weekday::Wednesday)
    }),
    ("30 2 L * */7", &[30], |date| {
        date == date.last_of_month() && date.weekday() == Weekday::Sunday
    }),
];

/// A zone whose clock changes at two, at midnight, by half an hour, by a whole day, or never.
const ZONES: [&str; 6] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Havana",
    "Australia/Lord_Howe",
    "Pacific/Apia",
];

/// When a job at a fixed time runs: the first of two, and right after a gap.
fn fixed(time: DateTime, zone: &TimeZone) -> Timestamp {
    match zone.to_ambiguous_timestamp(time).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(time).unwrap(),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(time).unwrap(),
        AmbiguousOffset::Gap { before, .. } => {
            let inside = before.to_timestamp(time).unwrap();
            zone.preceding(inside + SignedDuration::from_secs(1)).next().unwrap().timestamp()
        }
    }
}

#[test]
fn special_days_fire_as_forty_years_walked_day_by_day_say() {
    let (first, last) = (date(2000, 1, 1), date(2039, 12, 31));
    let days: Vec<Date> = first.series(1.day()).take_while(|day| *day <= last).collect();
    for (expression, minutes, rule) in SPECIAL {
        let crontab = Crontab::parse(expression).unwrap();
        let matching: Vec<Date> = days.iter().copied().filter(|day| rule(*day)).collect();
        assert!(!matching.is_empty(), "{expression}");
        for name in ZONES {
            let zone = Zone::find(name).unwrap();
            let expected: BTreeSet<Timestamp> = matching
                .iter()
                .flat_map(|day| minutes.iter().map(|minute| day.at(2, *minute, 0, 0)))
                .map(|time| fixed(time, zone.time_zone()))
                .collect();
            let from = fixed(first.at(0, 0, 0, 0), zone.time_zone());
            let until = fixed(last.at(23, 59, 59, 0), zone.time_zone());
            let found: Vec<Timestamp> = Firings::new(&crontab, &zone, from, until).collect();
            let expected: Vec<Timestamp> = expected.into_iter().collect();
            assert_eq!(found, expected, "{expression} in {name}");
        }
    }
}

/// With `*` in the hour every instant counts, so every quarter of an hour is looked at.
#[test]
fn special_days_follow_the_wall_clock_with_a_star() {
    let crontab = Crontab::parse("*/30 * L-1,15W * 0L").unwrap();
    for name in ["Europe/Berlin", "Australia/Lord_Howe"] {
        let zone = Zone::find(name).unwrap();
        let from: Timestamp = "2020-01-01T00:00:00Z".parse().unwrap();
        let until: Timestamp = "2025-01-01T00:00:00Z".parse().unwrap();
        let rule = |day: Date| {
            day + 1.day() == day.last_of_month()
                || is_nearest(day, 15)
                || is_nth(day, -1, Weekday::Sunday)
        };
        let mut known = (Date::MIN, false);
        let mut expected = Vec::new();
        let mut instant = from;
        while instant < until {
            let local = zone.time_zone().to_datetime(instant);
            if local.date() != known.0 {
                known = (local.date(), rule(local.date()));
            }
            if local.minute() % 30 == 0 && known.1 {
                expected.push(instant);
            }
            instant += SignedDuration::from_mins(15);
        }
        let found: Vec<Timestamp> = Firings::new(&crontab, &zone, from, until).collect();
        assert_eq!(found, expected, "{name}");
    }
}
