//! Objectives that the schedule cannot keep to.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::about;
use super::rhythm::{BEGIN, Rhythm};
use super::schedules::cron_place;
use crate::elapsed::Elapsed;
use crate::policy::finding::{Code, Finding};
use crate::policy::meant::{Blackout, Policy, Window, free_from};
use crate::schedule::Zone;

/// At most so many slots are held against blackouts.
const SLOTS_MAX: usize = 2_000;
/// Clock changes move slots by so much, which is nobody's mistake.
const CLOCKS: Elapsed = Elapsed::hours(1);

/// How old restore points grow under blackouts, each schedule with its blackouts looked at once.
#[derive(Default)]
pub(super) struct Objectives {
    known: BTreeMap<String, Option<Elapsed>>,
}

impl Objectives {
    pub(super) fn lint(&mut self, policy: &Policy, rhythm: &Rhythm) -> Option<Finding> {
        let objective = policy.rpo?;
        let jitter = policy.schedule.jitter;
        let message = if rhythm.longest > objective {
            format!(
                "up to {} pass between two runs, so restore points of `{}` grow older than {objective}",
                rhythm.longest, policy.name
            )
        } else {
            let jittered = Elapsed::seconds(rhythm.longest.as_seconds() + jitter.as_seconds());
            let mut causes = Vec::new();
            let delayed =
                self.under_blackouts(policy, rhythm).filter(|delayed| *delayed > jittered);
            causes.extend(delayed.map(|_| "its blackouts".to_owned()));
            if jitter > Elapsed::ZERO {
                causes.push(format!("the jitter of {jitter}"));
            }
            let oldest = delayed.unwrap_or(jittered);
            if oldest <= objective {
                return None;
            }
            format!(
                "with {} up to {oldest} pass from a slot to the beginning of the next run, so restore points of `{}` grow older than {objective}",
                causes.join(" and "),
                policy.name
            )
        };
        Some(
            about(policy, Code::ObjectiveNotMet, "objectives.rpo", message)
                .hint("let the schedule run more often, or promise less")
                .related(cron_place(policy), "the schedule"),
        )
    }

    /// The longest time from a slot that is created to the beginning of the next run, where
    /// blackouts that return delay runs or leave slots out.
    fn under_blackouts(&mut self, policy: &Policy, rhythm: &Rhythm) -> Option<Elapsed> {
        let returning: Vec<&Blackout> = policy
            .blackouts
            .iter()
            .filter(|blackout| {
                blackout.creates && matches!(blackout.window, Window::Returning { .. })
            })
            .collect();
        if returning.is_empty() {
            return None;
        }
        let key = key(policy, &returning);
        *self.known.entry(key).or_insert_with(|| oldest(policy, rhythm, &returning))
    }
}

fn key(policy: &Policy, blackouts: &[&Blackout]) -> String {
    let schedule = &policy.schedule;
    let mut key = format!(
        "{} {} {:?} {}",
        schedule.text(),
        schedule.zone.name(),
        schedule.deadline,
        schedule.jitter
    );
    for blackout in blackouts {
        if let Window::Returning { begins, zone, duration } = &blackout.window {
            let _ = write!(key, "\n{} {duration}", zone.name());
            for crontab in begins {
                let _ = write!(key, " {};", crontab.as_str());
            }
        }
    }
    key
}

fn oldest(policy: &Policy, rhythm: &Rhythm, blackouts: &[&Blackout]) -> Option<Elapsed> {
    let schedule = &policy.schedule;
    let days = match rhythm.longest {
        longest if longest <= Elapsed::days(2) => 62,
        longest if longest <= Elapsed::days(14) => 366,
        _ => 9 * 366,
    };
    let slots = schedule.slots(BEGIN, Elapsed::days(days).after(BEGIN)).take(SLOTS_MAX);
    let blackouts = blackouts.iter().copied();
    // The last of the sources that jitter spreads; none begins a whole jitter late.
    let last = Elapsed::seconds((schedule.jitter.as_seconds() - 1).max(0));
    let mut before = None;
    let mut oldest = None;
    for slot in slots {
        let deadline = schedule.deadline_of(slot);
        let Ok(begins) = free_from(&blackouts, last.after(slot.instant()), deadline) else {
            continue;
        };
        if let Some(before) = before {
            oldest = oldest.max(Some(Elapsed::between(before, begins)));
        }
        before = Some(slot.instant());
    }
    let has_changes = schedule.zone != Zone::UTC && days > 62;
    let clocks = if has_changes { CLOCKS.as_seconds() } else { 0 };
    oldest.map(|oldest| Elapsed::seconds((oldest.as_seconds() - clocks).max(0)))
}
