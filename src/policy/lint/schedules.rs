//! Schedules that do not run as was meant.

use std::collections::BTreeMap;

use super::rhythm::{BEGIN, Rhythm, Rhythms};
use super::seen::View;
use super::{about, is_own, place_of};
use crate::elapsed::Elapsed;
use crate::inventory::Limits;
use crate::policy::finding::{Code, Finding, Place};
use crate::policy::meant::{Blackout, Policies, Policy, WhenStalled, Window, blacked_out_until};
use crate::schedule::{Schedule, alike};

/// At most so many slots are held against blackouts.
const CHECKS_MAX: usize = 2_000;
/// At most so many slots are looked at for it.
const SLOTS_MAX: usize = 20_000;
/// So many policies at one minute are worth a word.
const AT_ONCE: usize = 3;

pub(super) fn lint(policy: &Policy, rhythm: &Rhythm, limits: Option<&Limits>) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(never_runs(policy, rhythm));
    findings.extend(limits.and_then(|limits| too_often(policy, rhythm, limits)));
    findings.extend(deadline(policy, rhythm));
    findings.extend(stalled(policy, rhythm));
    findings
}

pub(super) fn cron_place(policy: &Policy) -> Place {
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

/// Policies that run more often than the engines were seen to take. What the settings of an engine
/// let expect was said of the policies alone.
pub(super) fn beyond_limits(policies: &Policies, views: &[View<'_>]) -> Vec<Finding> {
    let mut rhythms = Rhythms::default();
    let mut findings = Vec::new();
    for view in views {
        let seen = &view.engine.capabilities.limits;
        let expected = policies.config.engines.get(&view.engine.name);
        let expected = expected.map(|engine| &engine.capabilities.limits);
        if expected == Some(seen) {
            continue;
        }
        for (policy, _) in &view.policies {
            let Some(rhythm) = rhythms.of(&policy.schedule) else { continue };
            if expected.and_then(|limits| too_often(policy, &rhythm, limits)).is_none() {
                findings.extend(too_often(policy, &rhythm, seen));
            }
        }
    }
    findings
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

/// Policies of one engine that always fire together.
pub(super) fn same_minute<'a>(policies: impl Iterator<Item = &'a Policy>) -> Vec<Finding> {
    let mut together: BTreeMap<(&str, String), Vec<&Policy>> = BTreeMap::new();
    let mut keys = alike::Keys::default();
    let is_plain = |schedule: &Schedule| schedule.jitter == Elapsed::ZERO;
    for policy in policies.filter(|policy| is_plain(&policy.schedule)) {
        let key = keys.of(&policy.schedule).to_owned();
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
