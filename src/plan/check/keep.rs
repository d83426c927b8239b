//! Retention once more, written over sets: which slots stay, rule by rule.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::{AmbiguousOffset, TimeZone};

use crate::inventory::Image;
use crate::retention::{Retention, Rule};

/// A slot, the id of its image, and what that holds; of a coming one nobody asks.
pub(super) type Point<'a> = (Timestamp, &'a str, Option<&'a Image>);

/// The ids that some rule keeps, of points that are READY, not held and not from the future.
pub(super) fn kept<'a>(
    points: &[Point<'a>],
    retention: &Retention,
    zone: &TimeZone,
    now: Timestamp,
) -> BTreeSet<&'a str> {
    let rules: Vec<(Rule, usize)> = retention
        .rules
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(rule, count)| (*rule, *count as usize))
        .collect();
    if rules.is_empty() {
        return points.iter().map(|one| one.1).collect();
    }
    let standing: BTreeSet<Timestamp> = points.iter().map(|one| one.0).collect();
    let floor = retention.at_least.max(1) as usize;
    let mut slots: BTreeSet<Timestamp> = standing.iter().rev().take(floor).copied().collect();
    let mut ids = BTreeSet::new();
    for (rule, count) in rules {
        if let Some(oldest) = oldest_by_age(rule, count, now) {
            ids.extend(points.iter().filter(|one| one.0.as_second() >= oldest).map(|one| one.1));
        } else if rule == Rule::Last {
            slots.extend(standing.iter().rev().take(count));
        } else {
            // Slots come in order: the last of a period is what stays in the map.
            let newest: BTreeMap<(i64, i64), Timestamp> =
                standing.iter().map(|slot| (period(rule, *slot, zone), *slot)).collect();
            slots.extend(newest.into_values().rev().take(count));
        }
    }
    let of_slots = points.iter().filter(|one| slots.contains(&one.0));
    ids.extend(of_slots.filter(|one| !is_double(one, points)).map(|one| one.1));
    ids
}

/// Whether another image of the slot, of a greater id, has all that one has: it stands for both.
fn is_double((slot, id, image): &Point<'_>, points: &[Point<'_>]) -> bool {
    points.iter().filter(|other| other.0 == *slot && other.1 > *id).any(|other| {
        let (Some(image), Some(other)) = (image, other.2) else { return true };
        let disks = |image: &Image| -> Option<BTreeSet<String>> {
            image.disks.as_ref().map(|disks| disks.iter().cloned().collect())
        };
        let has_all = match (disks(image), disks(other)) {
            (None, None) => true,
            (Some(own), Some(others)) => own.is_subset(&others),
            _ => false,
        };
        image.kind == other.kind && has_all
    })
}

/// The second of the oldest slot that a rule of age keeps; `None` for other rules.
fn oldest_by_age(rule: Rule, count: usize, now: Timestamp) -> Option<i64> {
    let hours = match rule {
        Rule::Hours => 1,
        Rule::Days => 24,
        Rule::Weeks => 7 * 24,
        _ => return None,
    };
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    Some(now.as_second().saturating_sub(count.saturating_mul(hours * 3_600)))
}

/// The period that a slot lies in, as numbers that grow with time.
fn period(rule: Rule, slot: Timestamp, zone: &TimeZone) -> (i64, i64) {
    if rule == Rule::Hourly {
        let second = slot.as_second();
        let on_the_wall = second + i64::from(zone.to_offset(slot).seconds());
        return (second - on_the_wall.rem_euclid(3_600), 0);
    }
    let date = date_of(slot, zone);
    match rule {
        Rule::Weekly => {
            let week = date.iso_week_date();
            (week.year().into(), week.week().into())
        }
        Rule::Monthly => (date.year().into(), date.month().into()),
        Rule::Yearly => (date.year().into(), 0),
        _ => (date.year().into(), date.day_of_year().into()),
    }
}

/// The date on the wall. Where a clock has gone back over midnight, the day that had begun goes on.
fn date_of(slot: Timestamp, zone: &TimeZone) -> Date {
    let date = zone.to_datetime(slot).date();
    let Ok(tomorrow) = date.tomorrow() else { return date };
    let midnight = tomorrow.at(0, 0, 0, 0);
    let has_begun = match zone.to_ambiguous_timestamp(midnight).offset() {
        AmbiguousOffset::Fold { before, .. } => {
            before.to_timestamp(midnight).is_ok_and(|begin| begin <= slot)
        }
        _ => false,
    };
    if has_begun { tomorrow } else { date }
}
