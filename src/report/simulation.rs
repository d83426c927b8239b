//! What simulations found, as tables and charts.

mod chart;

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{bytes, clean, count, minute, table as columns};
use crate::cost::{MAY_FREE_LESS, Money};
use crate::elapsed::Elapsed;
use crate::inventory::QuotaUnit;
use crate::simulate::{
    Comparison, Event, Figures, Happening, PolicyTrack, QuotaTrack, SeriesTrack, Simulation, Track,
};

pub use chart::chart;

/// How many sources with the longest time without a restore point are shown.
const WORST: usize = 5;
/// How many events are shown.
const EVENTS: usize = 10;

/// A simulation for people.
pub fn table(simulation: &Simulation) -> String {
    let mut text = heading(simulation);
    let mut rows = vec![cells(&[
        "POLICY",
        "SOURCES",
        "READY",
        "PEAK",
        "STORED",
        "COST",
        "REACH",
        "WORST RPO",
        "MADE",
        "FAILED",
        "MISSED",
        "DELETED",
        "REFUSED",
    ])];
    rows.extend(simulation.policies.iter().map(policy_row));
    text.push_str(&lines(&rows));
    text.push_str(&copies(simulation));
    text.push_str(&images(simulation));
    text.push_str(&quotas(simulation));
    text.push_str(&uncounted(simulation));
    text.push_str(&worst(simulation));
    text.push_str(&events(simulation));
    text.push_str("\nTaken for granted\n");
    for assumption in &simulation.assumptions {
        text.push_str(&format!("  {}\n", clean(assumption)));
    }
    text.push_str(&format!("  {MAY_FREE_LESS}\n"));
    text
}

fn heading(simulation: &Simulation) -> String {
    let end = Elapsed::days(simulation.days).after(simulation.start);
    let mut text = format!(
        "Simulated {} from {} to {}",
        count(simulation.days as usize, "day"),
        minute(simulation.start),
        minute(end)
    );
    if simulation.fail_rate.0 > 0 {
        text.push_str(&format!(
            " · {} of the captures fail (seed {})",
            simulation.fail_rate, simulation.seed
        ));
    }
    if simulation.growth.0 > 0 {
        text.push_str(&format!(" · what a capture stores grows {} a month", simulation.growth));
    }
    text + "\n\n"
}

/// A policy, and whether it was removed.
fn named(policy: &PolicyTrack) -> String {
    let removed = if policy.removed.is_some() { " (removed)" } else { "" };
    format!("{}{removed}", policy.policy)
}

fn policy_row(policy: &PolicyTrack) -> Vec<String> {
    let Track { ready, stored_bytes, oldest_seconds, .. } = &policy.track;
    let ends = |figures: &[u64]| {
        (figures.first().copied().unwrap_or(0), figures.last().copied().unwrap_or(0))
    };
    let ((ready_before, ready_after), (bytes_before, bytes_after)) =
        (ends(ready), ends(stored_bytes));
    let totals = &policy.totals;
    vec![
        named(policy),
        policy.sources.to_string(),
        format!("{ready_before} → {ready_after}"),
        totals.peak_ready.to_string(),
        format!("{} → {}", bytes(bytes_before), bytes(bytes_after)),
        policy.cost_at_end.as_ref().map_or_else(|| "–".to_owned(), ToString::to_string),
        age(oldest_seconds.last().copied().flatten()),
        age(totals.worst_newest_seconds),
        totals.created.to_string(),
        totals.failed.to_string(),
        totals.missed.to_string(),
        totals.deleted.to_string(),
        totals.refused.to_string(),
    ]
}

fn copies(simulation: &Simulation) -> String {
    let at = |end: fn(&[u64]) -> Option<&u64>| -> u64 {
        simulation.policies.iter().filter_map(|policy| end(&policy.track.copies)).sum()
    };
    let made: u64 = simulation.policies.iter().map(|policy| policy.totals.copied).sum();
    let (before, after) = (at(<[u64]>::first), at(<[u64]>::last));
    if made + before + after == 0 {
        return String::new();
    }
    format!("beside them READY copies in other locations: {before} → {after}; {made} made\n")
}

/// Where a restore point may be several images, how many these are.
fn images(simulation: &Simulation) -> String {
    let of_sets = || simulation.policies.iter().filter(|one| !one.track.images.is_empty());
    let at = |end: fn(&[u64]) -> Option<&u64>| -> u64 {
        of_sets().filter_map(|policy| end(&policy.track.images)).sum()
    };
    let names: Vec<&str> = of_sets().map(|policy| policy.policy.as_str()).collect();
    if names.is_empty() {
        return String::new();
    }
    let (before, after) = (at(<[u64]>::first), at(<[u64]>::last));
    format!(
        "restore points of {} are one image for each disk: {before} → {after} images\n",
        names.join(", ")
    )
}

/// How much of each quota is taken.
fn quotas(simulation: &Simulation) -> String {
    let row = |quota: &QuotaTrack| {
        let most = quota.peaks.iter().copied().max().unwrap_or(0);
        let first = quota.peaks.iter().position(|peak| *peak > quota.limit);
        let (mark, since) = match first {
            Some(day) => {
                ("! ", format!(", more than it takes since {}", date(simulation.start, day)))
            }
            None => ("", String::new()),
        };
        let project = match quota.project.as_str() {
            "" => String::new(),
            project => format!(" in {}", clean(project)),
        };
        let (engine, kind) = (clean(&quota.engine), quota.kind.word());
        match quota.unit {
            QuotaUnit::Images => {
                format!("{mark}{engine}{project}: up to {most} {kind}s of {}{since}\n", quota.limit)
            }
            QuotaUnit::Bytes => format!(
                "{mark}{engine}{project}: up to {} of {} for {kind}s{since}\n",
                bytes(most),
                bytes(quota.limit)
            ),
        }
    };
    simulation.quotas.iter().map(row).collect()
}

fn uncounted(simulation: &Simulation) -> String {
    let last = |policy: &PolicyTrack| policy.track.uncounted.last().copied().unwrap_or(0);
    let images: u64 = simulation.policies.iter().map(last).sum();
    if images == 0 {
        return String::new();
    }
    let images = usize::try_from(images).unwrap_or(usize::MAX);
    format!(
        "not counted in bytes or cost: {} of unknown size or without a price\n",
        count(images, "restore point")
    )
}

/// The sources that were longest without a new restore point, where that is longer than for others
/// of their policy.
fn worst(simulation: &Simulation) -> String {
    let mut least: BTreeMap<&str, i64> = BTreeMap::new();
    for series in &simulation.series {
        let Some(age) = series.totals.worst_newest_seconds else { continue };
        let known = least.entry(series.policy.as_str()).or_insert(age);
        *known = age.min(*known);
    }
    let mut late: Vec<(i64, &SeriesTrack)> = simulation
        .series
        .iter()
        .filter_map(|series| Some((series.totals.worst_newest_seconds?, series)))
        .filter(|(age, series)| least.get(series.policy.as_str()).is_some_and(|least| age > least))
        .collect();
    late.sort_by(|(one, _), (other, _)| other.cmp(one));
    if late.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<String>> = late
        .iter()
        .take(WORST)
        .map(|(seconds, series)| {
            let totals = &series.totals;
            vec![
                format!("  {}", clean(&series.source_name)),
                series.policy.to_string(),
                format!("newest restore point up to {} old", age(Some(*seconds))),
                format!("{} failed, {} missed", totals.failed, totals.missed),
            ]
        })
        .collect();
    format!("\nLongest without a new restore point\n{}", lines(&rows))
}

fn events(simulation: &Simulation) -> String {
    if simulation.events.is_empty() {
        return String::new();
    }
    let names: BTreeMap<(&str, &str), &str> = simulation
        .series
        .iter()
        .map(|series| {
            ((series.engine.as_str(), series.source.as_str()), series.source_name.as_str())
        })
        .collect();
    // What stops a whole engine first; then what happened, in order.
    let mut shown: Vec<&Event> = simulation.events.iter().collect();
    shown.sort_by_key(|event| (event.source.is_some(), !is_grave(event), event.at));
    let mut text = format!("\nWhat happened ({})\n", count(shown.len(), "event"));
    let rows: Vec<Vec<String>> =
        shown.iter().take(EVENTS).map(|event| event_row(event, &names)).collect();
    text.push_str(&lines(&rows));
    if shown.len() > EVENTS {
        text.push_str(&format!("  and {} more (--format json)\n", shown.len() - EVENTS));
    }
    text
}

fn is_grave(event: &Event) -> bool {
    matches!(event.what, Happening::Refused { .. } | Happening::Blocked { .. } | Happening::Stalled)
}

fn event_row(event: &Event, names: &BTreeMap<(&str, &str), &str>) -> Vec<String> {
    let name = event.source.as_ref().map_or_else(String::new, |source| {
        let name = names.get(&(event.engine.as_str(), source.as_str())).copied();
        clean(name.unwrap_or(source.as_str()))
    });
    let policy = event.policy.as_ref().map(ToString::to_string).unwrap_or_default();
    let place = if name.is_empty() { clean(&event.engine) } else { name };
    vec![format!("  {}", minute(event.at)), place, policy, happening(&event.what)]
}

fn happening(what: &Happening) -> String {
    let at = |slot: &crate::name::Slot| minute(slot.instant());
    match what {
        Happening::Failed { slot } => format!("the capture of {} failed", at(slot)),
        Happening::Missed { slot, slots: 1 } => format!("slot {} missed", at(slot)),
        Happening::Missed { slot, slots } => format!("{slots} slots up to {} missed", at(slot)),
        Happening::Blocked { message } => format!("nothing can be made: {}", clean(message)),
        Happening::Stalled => {
            "stalled: nothing is deleted before there is a new restore point".to_owned()
        }
        Happening::Refused { guard, images } => format!(
            "{} refuses to delete {}; see `stillframe explain {}`",
            guard.word(),
            count(*images, "restore point"),
            guard.word()
        ),
    }
}

/// What differs between two simulations, for people.
pub fn comparison(both: &Comparison) -> String {
    let mut text = heading(&both.after);
    if both.differences.is_empty() {
        text.push_str(&format!("no difference to {}\n", clean(&both.base)));
        return text;
    }
    text.push_str(&format!("from {} to the policies as they are\n", clean(&both.base)));
    let currency = |simulation: &Simulation| {
        simulation.policies.iter().find_map(|policy| Some(policy.cost_at_end.clone()?.currency))
    };
    let currency = currency(&both.after).or_else(|| currency(&both.before)).unwrap_or_default();
    for difference in &both.differences {
        text.push_str(&format!("\n{}\n", difference.policy));
        let rows = match (&difference.before, &difference.after) {
            (Some(before), Some(after)) => pairs(before, after, &currency),
            (None, Some(after)) => {
                text.push_str("  is new\n");
                pairs(
                    &Figures {
                        sources: 0,
                        ready: 0,
                        stored_bytes: 0,
                        cost_micros: after.cost_micros.map(|_| 0),
                        oldest_seconds: None,
                        worst_newest_seconds: None,
                        deleted: 0,
                    },
                    after,
                    &currency,
                )
            }
            _ => {
                text.push_str("  is not there any more: its images are left alone\n");
                continue;
            }
        };
        if rows.is_empty() {
            text.push_str("  ends the same and differs on the way\n");
        }
        text.push_str(&lines(&rows));
    }
    text.push_str(&format!("\n{MAY_FREE_LESS}\n"));
    text
}

/// The figures that differ.
fn pairs(before: &Figures, after: &Figures, currency: &str) -> Vec<Vec<String>> {
    let number = |number: u64| number.to_string();
    let money = |micros: Option<u64>| {
        micros.map_or_else(
            || "–".to_owned(),
            |micros| Money { micros, currency: currency.to_owned() }.to_string(),
        )
    };
    let all = [
        ("sources", number(before.sources), number(after.sources)),
        ("ready at the end", number(before.ready), number(after.ready)),
        ("stored at the end", bytes(before.stored_bytes), bytes(after.stored_bytes)),
        ("cost at the end", money(before.cost_micros), money(after.cost_micros)),
        ("reach at the end", age(before.oldest_seconds), age(after.oldest_seconds)),
        ("worst rpo", age(before.worst_newest_seconds), age(after.worst_newest_seconds)),
        ("deleted", number(before.deleted), number(after.deleted)),
    ];
    all.into_iter()
        .filter(|(_, before, after)| before != after)
        .map(|(what, before, after)| vec![format!("  {what}"), format!("{before} → {after}")])
        .collect()
}

fn age(seconds: Option<i64>) -> String {
    seconds.map_or_else(|| "–".to_owned(), |seconds| Elapsed::seconds(seconds).rough())
}

fn cells(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn lines(rows: &[Vec<String>]) -> String {
    columns(rows).iter().map(|line| format!("{line}\n")).collect()
}

/// The date of a day of a simulation.
fn date(start: Timestamp, day: usize) -> String {
    let day = u32::try_from(day).unwrap_or(u32::MAX);
    let instant = Elapsed::days(day).after(start);
    jiff::tz::TimeZone::UTC.to_datetime(instant).date().to_string()
}
