//! Expressions of other schedulers against what they are translated to.
//!
//! Each language is read a second time here, by small code that shares nothing with the
//! translator: it answers for one day and one time at a time. Both are enumerated over an ordinary
//! year and a leap year in UTC, minute by minute.

use std::ops::RangeInclusive;

use jiff::Timestamp;
use stillframe::schedule::translate::{Notation, translate};
use stillframe::schedule::{Firings, Zone};

use super::support::Random;

/// A day by plain counting; weekday 0 is Monday.
#[derive(Debug, Clone, Copy)]
struct Day {
    month: u32,
    number: u32,
    last: u32,
    weekday: u32,
    /// Minutes from the epoch to its midnight.
    minutes: i64,
}

/// The days of 2027 and 2028. 1 January 2027 is a Friday, 20,819 days after the epoch.
fn days() -> Vec<Day> {
    let mut days = Vec::new();
    let (mut weekday, mut count) = (4, 20_819_i64);
    for february in [28, 29] {
        let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        for (month, last) in (1..).zip(lengths) {
            for number in 1..=last {
                days.push(Day { month, number, last, weekday, minutes: count * 1440 });
                weekday = (weekday + 1) % 7;
                count += 1;
            }
        }
    }
    assert_eq!((days.len(), weekday), (365 + 366, 0));
    days
}

impl Day {
    fn weekday_of(self, day: u32) -> u32 {
        (self.weekday + day + 70 - self.number) % 7
    }

    /// The days from Monday to Friday of its month.
    fn working(self) -> Vec<u32> {
        (1..=self.last).filter(|day| self.weekday_of(*day) < 5).collect()
    }
}

/// What an expression means: which days, and which hours and minutes.
struct Meaning {
    day: Box<dyn Fn(Day) -> bool>,
    hour: Box<dyn Fn(u32) -> bool>,
    minute: Box<dyn Fn(u32) -> bool>,
}

/// Whether a value is one of a list of Quartz, walked step by step around the field.
fn in_list(list: &str, value: u32, field: RangeInclusive<u32>, names: &str) -> bool {
    let (low, high) = (*field.start(), *field.end());
    let number = |word: &str| match word.parse::<u32>() {
        Ok(number) => number,
        Err(_) => u32::try_from(names.find(&word.to_ascii_uppercase()).unwrap() / 3).unwrap() + low,
    };
    list.split(',').any(|item| {
        let (range, step) = item.split_once('/').unwrap_or((item, "0"));
        let step: u32 = step.parse().unwrap();
        let (from, to) = match range.split_once('-') {
            Some((from, to)) => (number(from), number(to)),
            None if range == "*" => (low, high),
            None if step > 0 => (number(range), high),
            None => (number(range), number(range)),
        };
        let mut at = from;
        let mut left = (to + high + 1 - low - from) % (high + 1 - low);
        loop {
            if at == value {
                return true;
            }
            let step = step.max(1);
            if step > left {
                return false;
            }
            left -= step;
            at += step;
            if at > high {
                at -= high + 1 - low;
            }
        }
    })
}

const MONTHS: &str = "JANFEBMARAPRMAYJUNJULAUGSEPOCTNOVDEC";
const FROM_SUNDAY: &str = "SUNMONTUEWEDTHUFRISAT";
const FROM_MONDAY: &str = "MONTUEWEDTHUFRISATSUN";

fn quartz_day_of_month(field: &str, day: Day) -> bool {
    if field == "?" {
        return true;
    }
    if field == "L" {
        return day.number == day.last;
    }
    if field == "LW" {
        return day.working().last() == Some(&day.number);
    }
    if let Some(before) = field.strip_prefix("L-") {
        return day.last - day.number == before.parse::<u32>().unwrap();
    }
    if let Some(number) = field.strip_suffix('W') {
        let number: u32 = number.parse().unwrap();
        return day.working().iter().min_by_key(|day| day.abs_diff(number)) == Some(&day.number);
    }
    in_list(field, day.number, 1..=31, "")
}

fn quartz_day_of_week(field: &str, day: Day) -> bool {
    let of = |word: &str| in_list(word, (day.weekday + 1) % 7 + 1, 1..=7, FROM_SUNDAY);
    match field {
        "?" => true,
        "L" => day.weekday == 5,
        _ if field.contains('#') => {
            let (word, nth) = field.split_once('#').unwrap();
            of(word) && day.number.div_ceil(7) == nth.parse::<u32>().unwrap()
        }
        _ if field.ends_with('L') => of(&field[..field.len() - 1]) && day.number + 7 > day.last,
        _ => of(field),
    }
}

fn quartz(text: &str) -> Meaning {
    let fields: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    assert_eq!(fields[0], "0");
    let [minute, hour, day, month, weekday] =
        [1, 2, 3, 4, 5].map(|index| fields[index].to_ascii_uppercase());
    Meaning {
        day: Box::new(move |date| {
            in_list(&month, date.month, 1..=12, MONTHS)
                && quartz_day_of_month(&day, date)
                && quartz_day_of_week(&weekday, date)
        }),
        hour: Box::new(move |value| in_list(&hour, value, 0..=23, "")),
        minute: Box::new(move |value| in_list(&minute, value, 0..=59, "")),
    }
}

fn event_bridge(text: &str) -> Meaning {
    let inner = text.strip_prefix("cron(").and_then(|text| text.strip_suffix(')')).unwrap();
    quartz(&format!("0 {}", inner.strip_suffix(" *").unwrap()))
}

fn yandex(text: &str) -> Meaning {
    let fields: Vec<String> = text.split(' ').map(|field| field.replace('?', "*")).collect();
    let [minute, hour, day, month, weekday] = [0, 1, 2, 3, 4].map(|index| fields[index].clone());
    Meaning {
        day: Box::new(move |date| {
            in_list(&month, date.month, 1..=12, MONTHS)
                && in_list(&day, date.number, 1..=31, "")
                && in_list(&weekday, date.weekday + 1, 1..=7, FROM_MONDAY)
        }),
        hour: Box::new(move |value| in_list(&hour, value, 0..=23, "")),
        minute: Box::new(move |value| in_list(&minute, value, 0..=59, "")),
    }
}

/// Whether a value is one of a list of systemd.
fn in_chain(chain: &str, value: u32) -> bool {
    chain.split(',').any(|item| {
        let (range, step) = item.split_once('/').unwrap_or((item, ""));
        let (from, to) = range.split_once("..").unwrap_or((range, ""));
        if from == "*" {
            return true;
        }
        let from: u32 = from.parse().unwrap();
        let every: u32 = step.parse().unwrap_or(1);
        let to: u32 = match (to, step) {
            ("", "") => from,
            ("", _) => 99,
            _ => to.parse().unwrap(),
        };
        value >= from && value <= to && (value - from).is_multiple_of(every)
    })
}

/// Whether a day, counted from the end, is one of a list behind `~`.
fn in_tail(chain: &str, value: u32) -> bool {
    chain.split(',').any(|item| match item.split_once('/') {
        // A step alone goes towards the end.
        Some((from, step)) if !from.contains("..") => {
            let (from, step): (u32, u32) = (from.parse().unwrap(), step.parse().unwrap());
            value <= from && (from - value).is_multiple_of(step)
        }
        _ => in_chain(item, value),
    })
}

fn systemd(text: &str) -> Meaning {
    let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
    let weekdays = if words[0].starts_with(|c: char| c.is_alphabetic()) {
        words.remove(0)
    } else {
        "Mon..Sun".to_owned()
    };
    let index = |word: &str| {
        u32::try_from(FROM_MONDAY.find(&word[..3].to_ascii_uppercase()).unwrap() / 3).unwrap()
    };
    let weekdays: Vec<u32> = weekdays
        .split(',')
        .flat_map(|item| {
            let (from, to) = item.split_once("..").unwrap_or((item, item));
            index(from)..=index(to)
        })
        .collect();
    let date = if words[0].contains(':') { "*-*-*".to_owned() } else { words.remove(0) };
    let time = words.first().cloned().unwrap_or_else(|| "00:00".to_owned());
    let tail = date.contains('~');
    let parts: Vec<String> = date.split(['-', '~']).map(str::to_owned).collect();
    let (month, day) = (parts[parts.len() - 2].clone(), parts[parts.len() - 1].clone());
    let times: Vec<String> = time.split(':').map(str::to_owned).collect();
    let (hour, minute) = (times[0].clone(), times[1].clone());
    Meaning {
        day: Box::new(move |date| {
            weekdays.contains(&date.weekday)
                && in_chain(&month, date.month)
                && if tail {
                    in_tail(&day, date.last + 1 - date.number)
                } else {
                    in_chain(&day, date.number)
                }
        }),
        hour: Box::new(move |value| in_chain(&hour, value)),
        minute: Box::new(move |value| in_chain(&minute, value)),
    }
}

/// Enumerates both; panics where they differ. `false` where the translator refuses.
fn agrees(notation: Notation, text: &str, meaning: &Meaning, days: &[Day]) -> bool {
    let Ok(translation) = translate(notation, text) else {
        return false;
    };
    let times: Vec<i64> = (0..24)
        .filter(|hour| (meaning.hour)(*hour))
        .flat_map(|hour| {
            let minutes = (0..60).filter(|minute| (meaning.minute)(*minute));
            minutes.map(move |minute| i64::from(hour * 60 + minute))
        })
        .collect();
    let mut expected = days
        .iter()
        .filter(|day| (meaning.day)(**day))
        .flat_map(|day| times.iter().map(|time| (day.minutes + time) * 60));
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let (from, until) = (at("2027-01-01T00:00:00Z"), at("2029-01-01T00:00:00Z"));
    let crontab = &translation.crontab;
    for found in Firings::new(crontab, &Zone::UTC, from, until) {
        assert_eq!(Some(found.as_second()), expected.next(), "{text} as {}", crontab.as_str());
    }
    assert_eq!(expected.next(), None, "{text} as {}", crontab.as_str());
    true
}

fn pick<'a>(random: &mut Random, list: &[&'a str]) -> &'a str {
    list[random.below(list.len() as u64) as usize]
}

const MINUTES: [&str; 8] = ["0", "30", "5,50", "0/15", "50-59", "3/20", "10-20/5", "59"];
const HOURS: [&str; 9] = ["2", "*", "0/6", "8-18", "1,13", "22,23", "4-20/4", "*/8", "23"];
const MONTHS_WRITTEN: [&str; 9] =
    ["*", "*", "*", "2", "JAN,jul", "4-6", "1/3", "FEB-APR", "2,4,6,9,11"];
const DAYS: [&str; 8] = ["*", "1", "1,15", "1-7", "*/2", "5/10", "28-31", "2-20/3"];

#[test]
fn quartz_expressions_are_exact_over_two_years() {
    const OF_MONTH: [&str; 9] = ["L", "L-1", "L-3", "LW", "1W", "15W", "28w", "30-3", "25-5/2"];
    const OF_WEEK: [&str; 16] = [
        "1", "7", "MON-FRI", "2-6", "SUN,SAT", "FRI-MON", "6-2", "2/2", "*/3", "1L", "FRIL", "L",
        "1#1", "MON#2", "6#5", "7#3",
    ];
    let days = days();
    let mut random = Random::new();
    for _ in 0..150 {
        let hours = if random.below(4) == 0 { "22-3" } else { pick(&mut random, &HOURS) };
        let time = format!("0 {} {hours}", pick(&mut random, &MINUTES));
        let month =
            if random.below(6) == 0 { "NOV-FEB" } else { pick(&mut random, &MONTHS_WRITTEN) };
        let (day, weekday) = match random.below(3) {
            0 => (pick(&mut random, &DAYS), "?"),
            1 => (pick(&mut random, &OF_MONTH), "?"),
            _ => ("?", pick(&mut random, &OF_WEEK)),
        };
        let year = pick(&mut random, &["", " *"]);
        let text = format!("{time} {day} {month} {weekday}{year}");
        assert!(agrees(Notation::Quartz, &text, &quartz(&text), &days), "{text}");
    }
}

#[test]
fn event_bridge_expressions_are_exact_over_two_years() {
    const OF_MONTH: [&str; 6] = ["L", "LW", "1W", "15W", "3W", "28W"];
    const OF_WEEK: [&str; 11] =
        ["1", "7", "MON-FRI", "2-6", "SUN,SAT", "1,3-5", "1L", "6L", "L", "1#1", "3#2"];
    let days = days();
    let mut random = Random::new();
    for _ in 0..100 {
        let (day, weekday) = match random.below(3) {
            0 => (pick(&mut random, &DAYS), "?"),
            1 => (pick(&mut random, &OF_MONTH), "?"),
            _ => ("?", pick(&mut random, &OF_WEEK)),
        };
        let text = format!(
            "cron({} {} {day} {} {weekday} *)",
            pick(&mut random, &MINUTES),
            pick(&mut random, &HOURS),
            pick(&mut random, &MONTHS_WRITTEN)
        );
        assert!(agrees(Notation::Aws, &text, &event_bridge(&text), &days), "{text}");
    }
}

#[test]
fn yandex_expressions_are_exact_over_two_years() {
    const OF_WEEK: [&str; 9] =
        ["1", "7", "MON-FRI", "1-5", "SAT,SUN", "FRI-SUN", "2/2", "*/3", "*"];
    let days = days();
    let mut random = Random::new();
    for _ in 0..100 {
        let any = pick(&mut random, &["?", "*"]);
        let (day, weekday) = match random.below(2) {
            0 => (pick(&mut random, &DAYS), any),
            _ => (any, pick(&mut random, &OF_WEEK)),
        };
        let text = format!(
            "{} {} {day} {} {weekday}",
            pick(&mut random, &MINUTES),
            pick(&mut random, &HOURS),
            pick(&mut random, &MONTHS_WRITTEN)
        );
        if (day, weekday) == ("?", "?") {
            continue;
        }
        assert!(agrees(Notation::Yandex, &text, &yandex(&text), &days), "{text}");
    }
}

#[test]
fn systemd_expressions_are_exact_over_two_years_or_refused() {
    const WEEKDAYS: [&str; 11] = [
        "",
        "",
        "",
        "Mon ",
        "Sun ",
        "Mon..Fri ",
        "sat,sun ",
        "Tuesday,Fri..Sun ",
        "Mon..Sun ",
        "Wed,Thu ",
        "Fri ",
    ];
    const DATES: [&str; 24] = [
        "",
        "",
        "*-*-* ",
        "*-*-01 ",
        "*-01 ",
        "*-*-1..7 ",
        "*-*-08..14 ",
        "*-*-22..31 ",
        "*-*-29..31 ",
        "*-*-1/2 ",
        "*-*-1,31 ",
        "*-*-13 ",
        "*-02-29 ",
        "*-*~01 ",
        "*~1 ",
        "*-02~03 ",
        "*-*~07/1 ",
        "*-*~01..07 ",
        "*-*~3..10/3 ",
        "*-*~6/4 ",
        "*-1..3-05,15 ",
        "06-1/3 ",
        "*-2/3-1..28 ",
        "*-*-5/3,6 ",
    ];
    const TIMES: [&str; 11] = [
        "02:00",
        "02:00:00",
        "*:0/15",
        "1..3:00",
        "0/6:30",
        "2,3..5:0,30",
        "8..18/5:07",
        "23:59:00.000",
        "*:00",
        "00/12:5/20",
        "7:7",
    ];
    let days = days();
    let mut random = Random::new();
    let mut refused = 0;
    for _ in 0..300 {
        let (weekday, date) = (pick(&mut random, &WEEKDAYS), pick(&mut random, &DATES));
        let text = format!("{weekday}{date}{}", pick(&mut random, &TIMES));
        if !agrees(Notation::Systemd, &text, &systemd(&text), &days) {
            // Only a weekday beside a date may be beyond a crontab, and never with Sunday.
            assert!(weekday.len() > 1 && date.len() > 1, "{text}");
            assert!(!weekday.to_ascii_lowercase().contains("sun"), "{text}");
            refused += 1;
        }
    }
    assert!((20..80).contains(&refused), "{refused} of 300 refused");
}

#[test]
fn translations_read_as_a_person_would_write_them() {
    for (notation, text, crontab, zone) in [
        (Notation::Aws, "cron(0 2 ? * MON-FRI *)", "0 2 * * mon-fri", None),
        (Notation::Aws, "cron(0/15 8-17 ? * 2-6 *)", "*/15 8-17 * * mon-fri", None),
        (Notation::Aws, " cron( 5 0,12 L * ? * ) ", "5 0,12 L * *", None),
        (Notation::Aws, "0 10 ? * 6L *", "0 10 * * friL", None),
        (Notation::Aws, "cron(0 9 ? * L *)", "0 9 * * sat", None),
        (Notation::Quartz, "0 15 10 ? * 6#3", "15 10 * * fri#3", None),
        (Notation::Quartz, "0 0 22-2 LW * ? *", "0 0-2,22,23 LW * *", None),
        (Notation::Quartz, "0 0 12 1/5 * ?", "0 12 */5 * *", None),
        (Notation::Quartz, "0 0 3 15W NOV-FEB ?", "0 3 15W 1,2,11,12 *", None),
        (Notation::Quartz, "00 30 1 L-3 * ?", "30 1 L-3 * *", None),
        (Notation::Yandex, "0 9,18 ? * 1-5", "0 9,18 * * mon-fri", Some("UTC")),
        (Notation::Yandex, "@weekly", "0 0 * * sun", Some("UTC")),
        (Notation::Yandex, "0 2 * * 7", "0 2 * * sun", Some("UTC")),
        (Notation::Systemd, "daily", "0 0 * * *", None),
        (Notation::Systemd, "Weekly Europe/Berlin", "0 0 * * mon", Some("Europe/Berlin")),
        (Notation::Systemd, "Mon..Fri *-*-* 02:00:00", "0 2 * * mon-fri", None),
        (Notation::Systemd, "*-*~01 UTC", "0 0 L * *", Some("UTC")),
        (Notation::Systemd, "*:0/15", "*/15 * * * *", None),
        (Notation::Systemd, "Mon *-*-01..07 03:00", "0 3 * * mon#1", None),
        (Notation::Systemd, "Fri *-*~07/1 03:00", "0 3 * * friL", None),
        (Notation::Systemd, "*-*~06/4 01:00", "0 1 L-1,L-5 * *", None),
        (Notation::Systemd, "Sun *-*-13", "0 0 13 * */7", None),
        (Notation::Systemd, "Sun,Wed *-*~02", "0 0 L-1 * */7,wed", None),
        (Notation::Systemd, "Mon *-*-1/2", "0 0 */2 * mon", None),
        (Notation::Systemd, "quarterly", "0 0 1 */3 *", None),
    ] {
        let translation = translate(notation, text).unwrap_or_else(|errors| {
            panic!("{text}: {errors:?}");
        });
        assert_eq!(translation.crontab.as_str(), crontab, "{text}");
        assert_eq!(translation.zone.as_ref().map(Zone::name), zone, "{text}");
    }
}

#[test]
fn translations_say_what_differs() {
    let notes = |notation, text: &str| translate(notation, text).unwrap().notes.join("\n");
    let clock =
        |notation, text: &str| translate(notation, text).unwrap().clock_changes.unwrap_or_default();
    assert!(notes(Notation::Quartz, "0 0 2 15W * ?").starts_with("Quartz 2.5 leaves out"));
    assert!(notes(Notation::Quartz, "0 0 2 L * ?").starts_with("Quartz 2.5.0 leaves out"));
    assert_eq!(notes(Notation::Quartz, "0 0 2 1 * ?"), "");
    assert_eq!(notes(Notation::Aws, "cron(0 2 15W * ? *)"), "");
    assert!(notes(Notation::Systemd, "Sun *-*-13").contains("both day fields must match"));
    assert!(clock(Notation::Systemd, "02:30").contains("right after a time that is skipped"));
    assert!(clock(Notation::Systemd, "*:30").contains("follows the wall clock"));
    assert_eq!(clock(Notation::Yandex, "30 2 ? * *"), "");
}

#[test]
fn what_is_not_exact_is_refused_at_its_column() {
    for (notation, text, column, message) in [
        (Notation::Aws, "rate(1 day)", 0, "a rate"),
        (Notation::Aws, "at(2026-11-20T13:00:00)", 0, "runs once"),
        (Notation::Aws, "cron(0 2 * * * *)", 13, "exactly one"),
        (Notation::Aws, "cron(0 2 ? * ? *)", 13, "exactly one"),
        (Notation::Aws, "cron(0 2 1 * MON *)", 13, "exactly one"),
        (Notation::Aws, "cron(0 2 ? * MON-FRI 2027)", 21, "no years"),
        (Notation::Aws, "cron(0 2 ? * 0 *)", 13, "`0` means nothing"),
        (Notation::Aws, "cron(0 2 ? * FRI-MON *)", 13, "runs backwards"),
        (Notation::Aws, "cron(0 2 ? * 2/2 *)", 13, "takes no steps"),
        (Notation::Aws, "cron(0 2 L-3 * ? *)", 9, "cannot be translated"),
        (Notation::Aws, "cron(0 2 ? * 3#6 *)", 15, "no week"),
        (Notation::Aws, "cron(0 2 ? * 3#1,5 *)", 13, "one day only"),
        (Notation::Aws, "cron(0 2 31W * ? *)", 9, "no day 31"),
        (Notation::Aws, "cron(0 2 29W 2 ? *)", 9, "no day 29"),
        (Notation::Aws, "cron(0 2 31 2 ? *)", 0, "never fires"),
        (Notation::Aws, "0 2 * * *", 0, "six fields"),
        (Notation::Quartz, "0 2 ? * MON", 0, "six or seven fields"),
        (Notation::Quartz, "0/30 0 2 ? * MON", 0, "no seconds"),
        (Notation::Quartz, "* 0 2 ? * MON", 0, "no seconds"),
        (Notation::Quartz, "0 0 2 ? * MON 2026-2030", 14, "no years"),
        (Notation::Quartz, "0 0 24 ? * MON", 4, "`24` means nothing"),
        (Notation::Quartz, "0 0 2 L-3W * ?", 6, "cannot be translated"),
        (Notation::Quartz, "0 0 2 1,L * ?", 6, "one day only"),
        (Notation::Quartz, "0 0 2 ? * MON-FRI/2", 10, "a step behind a name"),
        (Notation::Quartz, "0 0/99 2 1 * ?", 4, "no step"),
        (Notation::Yandex, "0 2 1 * 1", 8, "both day fields"),
        (Notation::Yandex, "0 2 ? * ?", 8, "both day fields"),
        (Notation::Yandex, "0 2 ? * 0", 8, "`0` means nothing"),
        (Notation::Yandex, "0 2 L * ?", 4, "`L` means nothing"),
        (Notation::Yandex, "0 0 2 ? * 1", 0, "five fields"),
        (Notation::Yandex, "@reboot", 0, "five fields"),
        (Notation::Systemd, "Fri *-*-13 00:00", 0, "must both match"),
        (Notation::Systemd, "Mon..Fri *-*~01", 0, "must both match"),
        (Notation::Systemd, "2027-*-* 02:00", 0, "no years"),
        (Notation::Systemd, "*-*-* 02:00:30", 12, "no seconds"),
        (Notation::Systemd, "*-*-* 02:00:*", 12, "no seconds"),
        (Notation::Systemd, "02:00 Berlin", 6, "no time zone"),
        (Notation::Systemd, "Fri..Mon 02:00", 0, "runs backwards"),
        (Notation::Systemd, "Mon,Tues 02:00", 4, "no weekday"),
        (Notation::Systemd, "*:*/15", 2, "no minute"),
        (Notation::Systemd, "*-*~31", 4, "no day from the end"),
        (Notation::Systemd, "*-*-31/1", 4, "no room"),
        (Notation::Systemd, "22..2:00", 0, "runs backwards"),
        (Notation::Systemd, "*-02-30", 0, "never fires"),
        (Notation::Systemd, "02:00 03:00", 6, "nothing may follow"),
        (Notation::Systemd, "@0", 0, "no date"),
        (Notation::Systemd, "02", 0, "no date"),
        (Notation::Systemd, "", 0, "missing"),
    ] {
        let errors = translate(notation, text).err().unwrap_or_default();
        assert!(
            errors.first().is_some_and(|error| error.column == column
                && error.message.contains(message)
                && error.length > 0),
            "{text}: {errors:?}"
        );
    }
}
