//! Schedules that do not run as was meant.

use std::collections::BTreeMap;

use jiff::civil;

use super::rhythm::{BEGIN, Rhythm};
use super::{about, is_own, place_of};
use crate::elapsed::Elapsed;
use crate::inventory::Limits;
use crate::policy::finding::{Code, Finding, Place};
use crate::policy::meant::{Blackout, Policies, Policy, WhenStalled, Window, blacked_out_until};
use crate::schedule::{Crontab, Firings, Schedule, Zone};

/// At most so many slots are held against blackouts.
const CHECKS_MAX: usize = 2_000;
/// At most so many slots are looked at for it.
const SLOTS_MAX: usize = 20_000;
/// Schedules that run more often in a day lose nothing by a clock change that matters.
const DAY_PEAK_MAX: u64 = 4;
/// So many policies at one minute are worth a word.
const AT_ONCE: usize = 3;

pub(super) fn lint(policy: &Policy, rhythm: &Rhythm, limits: Option<&Limits>) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(never_runs(policy, rhythm));
    findings.extend(limits.and_then(|limits| too_often(policy, rhythm, limits)));
    findings.extend(deadline(policy, rhythm));
    findings.extend(objective(policy, rhythm));
    findings.extend(stalled(policy, rhythm));
    findings
}

fn cron_place(policy: &Policy) -> Place {
    place_of(policy, "schedule.cron")
}

/// Every slot lies in blackouts that return and last beyond its deadline.
fn never_runs(policy: &Policy, rhythm: &Rhythm) -> Option<Finding> {
    let returning = |blackout: &&Blackout| {
        blackout.creates && matches!(blackout.window, Window::Returning { .. })
    };
    let blackouts = policy.blackouts.iter().filter(returning);
    let first = blackouts.clone().next()?;
    let schedule = &policy.schedule;
    let span = if rhythm.shortest > Elapsed::days(27) { 9 * 366 } else { 366 };
    let mut slots = schedule.slots(BEGIN, Elapsed::days(span).after(BEGIN)).peekable();
    let mut not_before = BEGIN;
    let (mut seen, mut checks) = (0, 0);
    while let Some(slot) = slots.next() {
        seen += 1;
        let is_certain = match (schedule.deadline, slots.peek()) {
            (Some(deadline), _) => deadline.after(slot.instant()) < not_before,
            (None, Some(next)) => next.instant() <= not_before,
            (None, None) => false,
        };
        if is_certain {
            continue;
        }
        checks += 1;
        let deadline = schedule.deadline_of(slot);
        not_before = blacked_out_until(&blackouts, slot, deadline)?;
        if seen > SLOTS_MAX || checks > CHECKS_MAX {
            return None;
        }
    }
    (checks > 0).then(|| {
        Finding::new(
            Code::NeverRuns,
            cron_place(policy),
            "every slot lies in a blackout: nothing is ever created",
        )
        .of(&policy.name)
        .hint("choose another time, a shorter blackout, or a deadline that reaches beyond it")
        .related(first.place.clone(), "the blackout")
    })
}

fn too_often(policy: &Policy, rhythm: &Rhythm, limits: &Limits) -> Option<Finding> {
    let interval = limits.source_interval_seconds.and_then(|seconds| i64::try_from(seconds).ok());
    let interval = interval.map(Elapsed::seconds).filter(|limit| rhythm.shortest < *limit);
    let hourly = limits.source_hourly.filter(|limit| rhythm.hour_peak > *limit);
    let message = match (interval, hourly) {
        (Some(limit), _) => format!(
            "two runs are {} apart, but `{}` makes one image of a source in {limit}",
            rhythm.shortest, policy.engine
        ),
        (None, Some(limit)) => format!(
            "{} runs come within an hour, but `{}` makes {limit} images of a source in that time",
            rhythm.hour_peak, policy.engine
        ),
        (None, None) => return None,
    };
    Some(
        about(policy, Code::RunsTooOften, "schedule.cron", message)
            .hint("what goes beyond the limit is refused, and the slot is missed"),
    )
}

fn deadline(policy: &Policy, rhythm: &Rhythm) -> Option<Finding> {
    let path = "schedule.deadline";
    let deadline = policy.schedule.deadline.filter(|_| rhythm.is_whole && is_own(policy, path))?;
    // A day in autumn is an hour longer.
    let longest = Elapsed::seconds(rhythm.longest.as_seconds() + 3_600);
    (deadline > longest).then(|| {
        let message = format!(
            "the deadline {deadline} is longer than the time between two runs, {}",
            rhythm.longest
        );
        about(policy, Code::DeadlineBeyondPeriod, path, message)
            .hint(
                "only the newest slot that is due is created; take the deadline out, or shorten it",
            )
            .related(cron_place(policy), "the schedule")
    })
}

fn objective(policy: &Policy, rhythm: &Rhythm) -> Option<Finding> {
    let objective = policy.rpo.filter(|objective| *objective < rhythm.longest)?;
    let message = format!(
        "up to {} pass between two runs, so restore points of `{}` grow older than {objective}",
        rhythm.longest, policy.name
    );
    Some(
        about(policy, Code::ObjectiveNotMet, "objectives.rpo", message)
            .hint("let the schedule run more often, or promise less")
            .related(cron_place(policy), "the schedule"),
    )
}

fn stalled(policy: &Policy, rhythm: &Rhythm) -> Option<Finding> {
    let limit = policy.stalled_after.filter(|limit| *limit < rhythm.longest)?;
    if policy.when_stalled == WhenStalled::Expire {
        return None;
    }
    let message = format!(
        "up to {} pass between two runs of `{}`, which counts as stalled after {limit}",
        rhythm.longest, policy.name
    );
    Some(
        about(policy, Code::StalledTooSoon, "retention.stalledAfter", message)
            .hint("take it out, which means three periods of the schedule, or write a longer time")
            .related(cron_place(policy), "the schedule"),
    )
}

/// A clock change.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    /// The wall-clock times that are skipped or come twice.
    from: civil::DateTime,
    until: civil::DateTime,
    is_skipped: bool,
}

/// Clock changes of a year, each zone looked at once.
#[derive(Default)]
pub(super) struct Changes {
    of_zones: BTreeMap<String, Vec<Change>>,
}

impl Changes {
    pub(super) fn lint(&mut self, policy: &Policy, rhythm: &Rhythm) -> Vec<Finding> {
        let zone = &policy.schedule.zone;
        if *zone == Zone::UTC || rhythm.day_peak > DAY_PEAK_MAX {
            return Vec::new();
        }
        let changes = self.of_zones.entry(zone.name().to_owned()).or_insert_with(|| changes(zone));
        let mut findings = Vec::new();
        for crontab in policy.schedule.crontabs.iter().filter(|crontab| !crontab.is_wildcard()) {
            let met: Vec<&Change> =
                changes.iter().filter(|change| change.is_met_by(crontab)).collect();
            if !met.is_empty() {
                findings.push(clock_change(policy, crontab, &met));
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
            Change { from: old.min(new), until: old.max(new), is_skipped: old < new }
        })
        .collect()
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

fn clock_change(policy: &Policy, crontab: &Crontab, changes: &[&Change]) -> Finding {
    let (text, zone) = (crontab.as_str(), policy.schedule.zone.name());
    let says: Vec<String> = changes
        .iter()
        .map(|change| {
            let (from, until) = (change.from.strftime("%H:%M"), change.until.strftime("%H:%M"));
            let what = if change.is_skipped { "skipped" } else { "repeated" };
            format!("{from} to {until} is {what} on {}", change.from.date())
        })
        .collect();
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
        .label(says.join("; "))
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

/// Policies of one engine that always fire together.
pub(super) fn same_minute(policies: &Policies) -> Vec<Finding> {
    let mut together: BTreeMap<(&str, String), Vec<&Policy>> = BTreeMap::new();
    let is_plain = |schedule: &Schedule| schedule.jitter == Elapsed::ZERO;
    for policy in policies.policies.iter().filter(|policy| is_plain(&policy.schedule)) {
        let schedule = &policy.schedule;
        let key = format!("{} {}", schedule.text(), schedule.zone.name());
        together.entry((&policy.engine, key)).or_default().push(policy);
    }
    let mut findings = Vec::new();
    for ((engine, _), policies) in together {
        let [first, second, ..] = policies.as_slice() else { continue };
        if policies.len() < AT_ONCE {
            continue;
        }
        let message = format!(
            "{} policies of `{engine}` always fire at the same minute: {}",
            policies.len(),
            names(&policies)
        );
        findings.push(
            about(first, Code::SameMinute, "schedule.cron", message)
                .hint("write `jitter: 30m` to spread the starts by source, or other minutes")
                .related(cron_place(second), format!("also `{}`", second.name)),
        );
    }
    findings
}

/// The names of some policies, not more than people read.
pub(super) fn names(policies: &[&Policy]) -> String {
    const SHOWN: usize = 4;
    let shown: Vec<String> =
        policies.iter().take(SHOWN).map(|policy| format!("`{}`", policy.name)).collect();
    let left = policies.len().saturating_sub(SHOWN);
    let more = if left > 0 { format!(" and {left} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}
