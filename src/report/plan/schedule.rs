//! When each policy runs next.

use super::super::Section;
use super::super::text::{clean, count, minute};
use super::{rows, section};
use crate::name::Slot;
use crate::plan::{Orphans, Plan};
use crate::schedule::Zone;

/// Why a policy keeps nothing of its images on an engine.
pub(super) fn why_gone(plan: &Plan, orphans: &Orphans) -> &'static str {
    if plan.schedules.iter().any(|one| one.policy == orphans.policy) {
        "the policy is on another engine now; left alone"
    } else {
        "no such policy in the files; left alone"
    }
}

/// The next slots where the policy lives, and in UTC.
fn next_slots(slots: &[Slot], zone: &Zone, is_utc: bool) -> String {
    if slots.is_empty() {
        return "never again".to_owned();
    }
    let texts: Vec<String> = slots
        .iter()
        .map(|slot| {
            if is_utc {
                return minute(slot.instant());
            }
            let local = zone.time_zone().to_datetime(slot.instant());
            let utc = Zone::UTC.time_zone().to_datetime(slot.instant());
            let day = if utc.date() == local.date() {
                String::new()
            } else {
                format!("{:02}-{:02} ", utc.month(), utc.day())
            };
            format!(
                "{} {:02}:{:02} = {day}{:02}:{:02}Z",
                local.date(),
                local.hour(),
                local.minute(),
                utc.hour(),
                utc.minute()
            )
        })
        .collect();
    format!("next {}", texts.join(", "))
}

pub(super) fn schedules(plan: &Plan) -> Option<Section> {
    let cells: Vec<Vec<String>> = plan
        .schedules
        .iter()
        .map(|schedule| {
            let zone = Zone::find(&schedule.time_zone).unwrap_or(Zone::UTC);
            let is_utc = schedule.time_zone == Zone::UTC.name();
            let next = next_slots(&schedule.next, &zone, is_utc);
            let change = match schedule.clock_change {
                Some(at) => format!("; clock change {}", minute(at)),
                None if is_utc => String::new(),
                None => "; no clock change this week".to_owned(),
            };
            let paused = schedule
                .paused
                .as_ref()
                .map(|paused| format!("; {}", clean(paused)))
                .unwrap_or_default();
            vec![
                schedule.policy.to_string(),
                clean(&schedule.cron),
                schedule.time_zone.clone(),
                count(schedule.sources, "source"),
                format!("{next}{change}{paused}"),
            ]
        })
        .collect();
    section("schedule".to_owned(), "heading", rows("plain", &cells))
}
