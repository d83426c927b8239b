//! Runs in an hour that a clock change skips or repeats.

use std::collections::BTreeMap;

use jiff::{Timestamp, civil};

use super::rhythm::{BEGIN, Rhythm};
use super::schedules::cron_place;
use crate::elapsed::Elapsed;
use crate::policy::finding::{Code, Finding, Place};
use crate::policy::meant::Policy;
use crate::schedule::{Crontab, Firings, Schedule, Zone};

/// Schedules that run more often in a day lose nothing where a run is moved.
const DAY_PEAK_MAX: u64 = 4;

/// A clock change.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    at: Timestamp,
    /// The wall-clock times that are skipped or come twice.
    from: civil::DateTime,
    until: civil::DateTime,
    is_skipped: bool,
}

/// Clock changes of a year, each zone looked at once, and each schedule at them.
#[derive(Default)]
pub(super) struct Changes {
    of_zones: BTreeMap<String, Vec<Change>>,
    gaps: BTreeMap<String, Option<Elapsed>>,
}

impl Changes {
    pub(super) fn lint(&mut self, policy: &Policy, rhythm: &Rhythm) -> Vec<Finding> {
        let schedule = &policy.schedule;
        let zone = &schedule.zone;
        if *zone == Zone::UTC {
            return Vec::new();
        }
        let changes = self.of_zones.entry(zone.name().to_owned()).or_insert_with(|| changes(zone));
        let mut findings = Vec::new();
        for crontab in &schedule.crontabs {
            if crontab.is_wildcard() {
                let key = format!("{} {}", zone.name(), schedule.text());
                let gap = self.gaps.entry(key).or_insert_with(|| gap(schedule, changes));
                let gap = gap.filter(|gap| rhythm.is_whole && *gap > rhythm.longest);
                findings.extend(gap.and_then(|gap| lost(policy, crontab, changes, gap, rhythm)));
            } else if rhythm.day_peak <= DAY_PEAK_MAX {
                let met: Vec<&Change> =
                    changes.iter().filter(|change| change.is_met_by(crontab)).collect();
                if !met.is_empty() {
                    findings.push(clock_change(policy, crontab, &met));
                }
            }
        }
        findings
    }
}

fn changes(zone: &Zone) -> Vec<Change> {
    let until = Elapsed::days(366).after(BEGIN);
    let following = zone.time_zone().following(BEGIN);
    following
        .take_while(|change| change.timestamp() < until)
        .map(|change| {
            let at = change.timestamp();
            let before = zone.time_zone().to_offset(Elapsed::seconds(1).before(at));
            let (old, new) = (before.to_datetime(at), change.offset().to_datetime(at));
            Change { at, from: old.min(new), until: old.max(new), is_skipped: old < new }
        })
        .collect()
}

/// The most time that passes from a slot to the next where clocks go forward between them.
fn gap(schedule: &Schedule, changes: &[Change]) -> Option<Elapsed> {
    let skipping = changes.iter().filter(|change| change.is_skipped);
    let gaps = skipping.filter_map(|change| {
        let before = Elapsed::seconds(1).before(change.at);
        let (last, next) = (schedule.last_slot(before)?, schedule.next_slot(before)?);
        Some(Elapsed::between(last.instant(), next.instant()))
    });
    gaps.max()
}

impl Change {
    fn is_met_by(&self, crontab: &Crontab) -> bool {
        // Most run at one time, which shows at once.
        let mut fields = crontab.as_str().split_whitespace().map(str::parse::<i8>);
        if let (Some(Ok(minute)), Some(Ok(hour)), true) =
            (fields.next(), fields.next(), self.from.date() == self.until.date())
        {
            let is_outside = |time| time < self.from.time() || self.until.time() <= time;
            if civil::Time::new(hour, minute, 0, 0).is_ok_and(is_outside) {
                return false;
            }
        }
        // Wall-clock times are read as if they were UTC.
        let as_utc = |time: civil::DateTime| Zone::UTC.time_zone().to_timestamp(time).ok();
        let (Some(from), Some(until)) = (as_utc(self.from), as_utc(self.until)) else {
            return false;
        };
        Firings::new(crontab, &Zone::UTC, from, until).next().is_some()
    }
}

/// What is skipped and what comes twice. The day is another one each year, so that it would soon be
/// wrong.
fn says(changes: &[&Change]) -> String {
    let says: Vec<String> = changes
        .iter()
        .map(|change| {
            let (from, until) = (change.from.strftime("%H:%M"), change.until.strftime("%H:%M"));
            let what = if change.is_skipped { "skipped" } else { "repeated" };
            format!("{from} to {until} is {what} in {}", change.from.strftime("%B"))
        })
        .collect();
    says.join("; ")
}

/// Runs that follow the wall clock, which skips them, so that a longer time passes without any.
fn lost(
    policy: &Policy,
    crontab: &Crontab,
    changes: &[Change],
    gap: Elapsed,
    rhythm: &Rhythm,
) -> Option<Finding> {
    let met: Vec<&Change> = changes.iter().filter(|change| change.is_met_by(crontab)).collect();
    if !met.iter().any(|change| change.is_skipped) {
        return None;
    }
    let twice = if met.iter().any(|change| !change.is_skipped) {
        ", and where the hour is repeated they come twice"
    } else {
        ""
    };
    let (text, zone) = (crontab.as_str(), policy.schedule.zone.name());
    let message = format!(
        "runs of `{text}` are left out where a clock change skips their hour in {zone}: {gap} pass without one, not {}",
        rhythm.longest
    );
    let hint = format!(
        "with `*` in minute or hour nothing is caught up{twice}; write fixed times, choose another hour, or UTC"
    );
    Some(
        Finding::new(Code::ClockChange, expression_place(policy, text), message)
            .of(&policy.name)
            .label(says(&met))
            .hint(hint),
    )
}

fn clock_change(policy: &Policy, crontab: &Crontab, changes: &[&Change]) -> Finding {
    let (text, zone) = (crontab.as_str(), policy.schedule.zone.name());
    let skipped = changes.iter().find(|change| change.is_skipped);
    let happens = match (skipped, changes.iter().any(|change| !change.is_skipped)) {
        (Some(change), false) => {
            format!("that day the run comes at {}", change.until.strftime("%H:%M"))
        }
        (Some(change), true) => format!(
            "the run comes at {} where the hour is skipped, and once, the first time, where it is repeated",
            change.until.strftime("%H:%M")
        ),
        (None, _) => "that day the run comes once, the first time".to_owned(),
    };
    let message = format!("`{text}` runs in an hour that clock changes touch in {zone}");
    Finding::new(Code::ClockChange, expression_place(policy, text), message)
        .of(&policy.name)
        .label(says(changes))
        .hint(format!("{happens}; choose another hour, or UTC, where that matters"))
}

/// Where one of several expressions stands.
fn expression_place(policy: &Policy, text: &str) -> Place {
    let place = cron_place(policy);
    let rest = place.file.text.get(place.span.start..).unwrap_or_default();
    // Behind the key, and before anything that could be another schedule.
    match rest.find(text).filter(|at| *at < 1_000) {
        Some(at) => {
            let start = place.span.start + at;
            Place { file: place.file, span: start..start + text.len() }
        }
        None => place,
    }
}
