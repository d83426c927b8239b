//! When policies run, and what clock changes do to that.

use jiff::Timestamp;

use super::document::{Runs, ScheduleChange};
use super::meaning::Pair;
use crate::elapsed::Elapsed;
use crate::policy::Policy;
use crate::schedule::notes::{clock_changes, left_out, notes};
use crate::simulate::meant_slots;

/// How many coming slots are listed.
const NEXT: usize = 3;
/// For so long runs are counted.
const COUNTED: Elapsed = Elapsed::days(30);
/// For so long clock changes are looked for.
const CLOCK: Elapsed = Elapsed::days(90);
/// The most runs that are counted.
const RUNS_MAX: usize = 50_000;

/// When a policy ran and runs, where that is different.
pub(super) fn change(pair: &Pair<'_>, now: Timestamp) -> Option<ScheduleChange> {
    let before = pair.before.map(|policy| runs(policy, now));
    let after = pair.after.map(|policy| runs(policy, now));
    (before != after).then_some(ScheduleChange { before, after })
}

fn runs(policy: &Policy, now: Timestamp) -> Runs {
    let schedule = &policy.schedule;
    let pause = policy.paused.as_ref().filter(|pause| pause.creates);
    let begin = match pause {
        Some(pause) => pause.until.map(|until| until.max(now)),
        None => Some(now),
    };
    let next = begin.map(|begin| meant_slots(policy, begin, NEXT)).unwrap_or_default();
    let end = COUNTED.after(now);
    let in_30_days = begin.map_or(0, |begin| meant_until(policy, begin, end));
    let paused = pause.map(|pause| {
        let until = pause.until.map(|until| format!(" until {until}"));
        format!("paused{}", until.unwrap_or_default())
    });
    Runs {
        cron: schedule.text(),
        time_zone: schedule.zone.name().to_owned(),
        next,
        in_30_days,
        clock_notes: clock_notes(policy, now),
        paused,
    }
}

fn meant_until(policy: &Policy, from: Timestamp, end: Timestamp) -> usize {
    if from >= end {
        return 0;
    }
    let slots = policy.schedule.slots(from, end).take(RUNS_MAX);
    slots.filter(|slot| !policy.is_blacked_out(*slot, policy.schedule.deadline_of(*slot))).count()
}

/// What each clock change of the coming time does to a schedule.
fn clock_notes(policy: &Policy, now: Timestamp) -> Vec<String> {
    let schedule = &policy.schedule;
    let day = Elapsed::days(1);
    let mut texts = Vec::new();
    for change in clock_changes(&schedule.zone, now, CLOCK.after(now)) {
        for crontab in &schedule.crontabs {
            for civil in left_out(crontab, &change) {
                texts.push(format!("no run at {civil}: the clock skips it"));
            }
        }
        let around = schedule.slots(day.before(change.instant), day.after(change.instant));
        for slot in around {
            let said = schedule
                .crontabs
                .iter()
                .flat_map(|crontab| notes(crontab, &schedule.zone, slot.instant()));
            texts.extend(said.map(|note| format!("{}: {note}", slot.instant())));
        }
    }
    texts.dedup();
    texts
}
