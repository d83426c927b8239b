//! Cases that people check by eye: `+` is kept, `-` is let go, with what decided.
//!
//! Before the mark stands what is special about a point: `h` held, `f` failed.

use super::*;

fn check(table: &str) {
    let mut lines = table.lines().map(str::trim).filter(|line| !line.is_empty());
    let (mut retention, mut zone, mut now) =
        (Retention::default(), Zone::UTC, Timestamp::UNIX_EPOCH);
    for word in lines.next().unwrap().split_whitespace() {
        let (key, value) = word.split_once('=').unwrap();
        match key {
            "now" => now = value.parse().unwrap(),
            "zone" => zone = Zone::find(value).unwrap(),
            "at-least" => retention.at_least = value.parse().unwrap(),
            rule => {
                let rule = Rule::ALL.into_iter().find(|known| known.word() == rule).unwrap();
                retention.rules.insert(rule, value.parse().unwrap());
            }
        }
    }
    let rows: Vec<(&str, Slot, &str)> = lines
        .map(|line| {
            let mut words = line.splitn(3, ' ');
            let (mark, slot) = (words.next().unwrap(), words.next().unwrap());
            (mark, Slot::at(slot.parse().unwrap()), words.next().unwrap_or("").trim())
        })
        .collect();
    let points: Vec<Point<'_>> = rows
        .iter()
        .map(|(mark, slot, _)| Point {
            slot: *slot,
            id: "",
            content: Content::default(),
            ready: !mark.contains('f'),
            held: mark.contains('h'),
        })
        .collect();
    for ((mark, slot, why), fate) in rows.iter().zip(retain(&points, &retention, &zone, now)) {
        let (kept, text) = match fate {
            Fate::Kept(reasons) => {
                (true, reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
            }
            Fate::LetGo(closest) => (false, closest.to_string()),
        };
        assert_eq!((mark.contains('+'), *why), (kept, text.as_str()), "{}", slot.instant());
    }
}

#[test]
fn age_counts_elapsed_time_from_the_slot() {
    check(
        "days=2 now=2026-11-21T02:00:00Z
        + 2026-11-21T02:00:00Z  days: 0s of 2d, at least 1 of 1
        + 2026-11-20T02:00:00Z  days: 1d of 2d
        + 2026-11-19T02:00:00Z  days: 2d of 2d
        - 2026-11-19T01:59:59Z  days: 2d of 2d
        - 2026-11-18T02:00:00Z  days: 3d of 2d",
    );
}

#[test]
fn periods_that_hold_no_point_take_no_place() {
    check(
        "daily=3 now=2026-11-21T12:00:00Z
        + 2026-11-21T02:00:00Z  daily 1 of 3, at least 1 of 1
        + 2026-11-18T02:00:00Z  daily 2 of 3
        + 2026-11-11T02:00:00Z  daily 3 of 3
        - 2026-11-10T02:00:00Z  daily 4 of 3",
    );
}

#[test]
fn the_newest_point_stands_for_its_period() {
    check(
        "daily=2 weekly=2 now=2026-11-21T12:00:00Z
        + 2026-11-21T12:00:00Z  daily 1 of 2, weekly 1 of 2, at least 1 of 1
        - 2026-11-21T00:00:00Z  daily: a newer one of its day
        + 2026-11-20T12:00:00Z  daily 2 of 2
        - 2026-11-19T12:00:00Z  daily 3 of 2
        - 2026-11-16T00:00:00Z  daily 4 of 2
        + 2026-11-15T23:00:00Z  weekly 2 of 2",
    );
}

#[test]
fn grandfather_father_son() {
    check(
        "daily=2 monthly=3 yearly=2 now=2027-01-02T03:00:00Z
        + 2027-01-02T02:00:00Z  daily 1 of 2, monthly 1 of 3, yearly 1 of 2, at least 1 of 1
        + 2027-01-01T02:00:00Z  daily 2 of 2
        + 2026-12-31T02:00:00Z  monthly 2 of 3, yearly 2 of 2
        - 2026-12-30T02:00:00Z  daily 4 of 2
        + 2026-11-30T02:00:00Z  monthly 3 of 3
        - 2026-10-31T02:00:00Z  monthly 4 of 3",
    );
}

#[test]
fn days_end_where_the_policy_lives() {
    check(
        "daily=2 zone=America/New_York now=2026-11-21T12:00:00Z
        + 2026-11-21T05:00:00Z  daily 1 of 2, at least 1 of 1
        + 2026-11-21T04:59:00Z  daily 2 of 2
        - 2026-11-20T05:00:00Z  daily: a newer one of its day",
    );
}

#[test]
fn only_ready_points_fill_a_rule() {
    check(
        "last=2 now=2026-11-21T12:00:00Z
        f+ 2026-11-21T02:00:00Z  not ready
        + 2026-11-20T02:00:00Z  last 1 of 2, at least 1 of 1
        f+ 2026-11-19T02:00:00Z  not ready
        + 2026-11-18T02:00:00Z  last 2 of 2
        - 2026-11-17T02:00:00Z  last 3 of 2",
    );
}

#[test]
fn a_hold_keeps_and_takes_no_place() {
    check(
        "daily=2 now=2026-11-21T12:00:00Z
        h+ 2026-11-21T02:00:00Z  held
        + 2026-11-20T02:00:00Z  daily 1 of 2, at least 1 of 1
        h+ 2026-11-19T02:00:00Z  held
        + 2026-11-18T02:00:00Z  daily 2 of 2
        - 2026-11-17T02:00:00Z  daily 3 of 2
        h+ 2026-01-01T02:00:00Z  held",
    );
}

#[test]
fn points_in_the_future_are_quarantined() {
    check(
        "last=1 now=2026-11-21T12:00:00Z
        + 2026-11-22T02:00:00Z  dated in the future
        + 2026-11-21T12:04:00Z  last 1 of 1, at least 1 of 1
        - 2026-11-21T02:00:00Z  last 2 of 1",
    );
}

#[test]
fn at_least_holds_whatever_the_ages() {
    check(
        "days=7 at-least=2 now=2026-11-21T12:00:00Z
        + 2025-11-21T02:00:00Z  at least 1 of 2
        + 2025-11-20T02:00:00Z  at least 2 of 2
        - 2025-11-19T02:00:00Z  days: 367d10h of 7d",
    );
}

#[test]
fn one_point_is_always_left() {
    check(
        "days=7 at-least=0 now=2026-11-21T12:00:00Z
        + 2025-11-21T02:00:00Z  at least 1 of 1
        - 2025-11-20T02:00:00Z  days: 366d10h of 7d",
    );
}

#[test]
fn without_rules_nothing_is_let_go() {
    check(
        "now=2026-11-21T12:00:00Z
        + 2026-11-21T02:00:00Z  at least 1 of 1, no rule lets go of anything
        + 2020-11-20T02:00:00Z  no rule lets go of anything",
    );
    check(
        "daily=0 now=2026-11-21T12:00:00Z
        + 2026-11-21T02:00:00Z  at least 1 of 1, no rule lets go of anything
        + 2020-11-20T02:00:00Z  no rule lets go of anything",
    );
}

#[test]
fn two_points_of_one_slot_have_one_representative_in_any_order() {
    let slot = Slot::at("2026-11-21T02:00:00Z".parse().unwrap());
    let content = Content::default();
    let point = |id| Point { slot, id, content, ready: true, held: false };
    let retention = Retention { rules: BTreeMap::from([(Rule::Daily, 1)]), at_least: 1 };
    for points in [[point("a"), point("b")], [point("b"), point("a")]] {
        let fates = retain(&points, &retention, &Zone::UTC, slot.instant());
        for (point, fate) in points.iter().zip(fates) {
            assert_eq!(fate.is_kept(), point.id == "b");
        }
    }
}

#[test]
fn an_hour_that_is_repeated_in_autumn_has_two_points() {
    check(
        "hourly=3 zone=Europe/Berlin now=2026-10-25T03:00:00Z
        + 2026-10-25T02:00:00Z  hourly 1 of 3, at least 1 of 1
        + 2026-10-25T01:00:00Z  hourly 2 of 3
        + 2026-10-25T00:00:00Z  hourly 3 of 3
        - 2026-10-24T23:00:00Z  hourly 4 of 3",
    );
}
