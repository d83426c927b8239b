//! When restore points are due, when a policy does nothing, and what it holds.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::Meaning;
use crate::elapsed::Elapsed;
use crate::policy::finding::Code;
use crate::policy::meant::{Drill, Hold, Pause};
use crate::policy::written::{DrillSpec, HoldSpec, PausedSpec, ScheduleSpec};
use crate::schedule::{Crontab, DEADLINE_DEFAULT_MAX, Schedule, Zone};

/// The shortest time between two slots of each schedule that was asked for: it takes a while to find
/// out, and many policies have the same schedule.
#[derive(Default)]
pub(in crate::policy) struct Periods(Mutex<BTreeMap<String, Elapsed>>);

impl Periods {
    fn of(&self, schedule: &Schedule) -> Elapsed {
        let mut key: Vec<&str> = schedule.crontabs.iter().map(Crontab::as_str).collect();
        key.push(schedule.zone.name());
        let mut periods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *periods.entry(key.join("\n")).or_insert_with(|| schedule.shortest_period())
    }
}

impl Meaning<'_> {
    pub(super) fn schedule(&mut self, written: &ScheduleSpec) -> Option<Schedule> {
        let zone = written.time_zone.as_deref();
        let zone = zone.and_then(|name| self.reader.zone(name, "/schedule/timeZone"));
        let deadline = self.reader.length(written.deadline.as_ref(), "/schedule/deadline");
        let jitter =
            self.reader.length(written.jitter.as_ref(), "/schedule/jitter").unwrap_or_default();
        let crontabs = written.cron.as_ref();
        let crontabs = crontabs.and_then(|texts| self.reader.crontabs(texts, "/schedule/cron"));
        if deadline == Some(Elapsed::ZERO) {
            self.reader.find(
                Code::BadLength,
                "/schedule/deadline",
                "a deadline of 0 lets nothing be created",
            );
        }
        let schedule = Schedule { crontabs: crontabs?, zone: zone?, deadline, jitter };
        if jitter > Elapsed::ZERO && self.are_together {
            let between = self.periods.of(&schedule);
            let limit = deadline.unwrap_or(DEADLINE_DEFAULT_MAX).min(between);
            if jitter >= limit {
                let what =
                    if limit == between { "the time between two runs" } else { "the deadline" };
                self.reader.find(
                    Code::BadLength,
                    "/schedule/jitter",
                    format!(
                        "the jitter {jitter} is not shorter than {what}, {limit}: some sources would never be due"
                    ),
                );
            }
        }
        Some(schedule)
    }

    pub(super) fn pause(&mut self, written: &PausedSpec, zone: &Zone) -> Pause {
        let pause = Pause {
            creates: written.creates.unwrap_or(false),
            deletes: written.deletes.unwrap_or(false),
            until: self.reader.time(written.until.as_deref(), zone, "/paused/until"),
            reason: written.reason.clone(),
            is_blackout: false,
        };
        let says = written.creates.is_some() || written.deletes.is_some();
        if !says && !self.is_damaged("/paused") {
            self.reader.find(Code::MissingKey, "/paused", "the pause does not say of what").hint =
                Some("write `creates: true`, `deletes: true` or both".to_owned());
        }
        pause
    }

    pub(super) fn drill(&mut self, written: Option<&DrillSpec>) -> Option<Drill> {
        let written = written?;
        let check = written.check.unwrap_or_default();
        let drills = self.capabilities.map(|capabilities| &capabilities.drills);
        if let Some(drills) = drills.filter(|drills| !drills.contains(&check)) {
            let known: Vec<&str> = drills.iter().map(|check| check.word()).collect();
            let hint = match known.as_slice() {
                [] => "take `drill` out".to_owned(),
                known => format!("it can {}", known.join(", ")),
            };
            let message = format!("the engine cannot try images by `{}`", check.word());
            self.reader.find(Code::MissingCapability, "/drill/check", message).hint = Some(hint);
        }
        let crontabs = self.reader.crontabs(written.cron.as_ref()?, "/drill/cron")?;
        Some(Drill { crontabs, check })
    }

    pub(super) fn holds(&mut self, written: Option<&[HoldSpec]>, zone: &Zone) -> Vec<Hold> {
        let mut holds = Vec::new();
        for (position, spec) in written.unwrap_or_default().iter().enumerate() {
            let pointer = format!("/hold/{position}");
            let reader = &mut self.reader;
            let before = reader.findings.len();
            let reason = spec.reason.as_deref();
            reader.says_something(reason, &format!("{pointer}/reason"), "the reason");
            let hold = Hold {
                sources: reader.patterns(spec.sources.as_ref(), &format!("{pointer}/sources")),
                images: reader.patterns(spec.images.as_ref(), &format!("{pointer}/images")),
                from: reader.time(spec.from.as_deref(), zone, &format!("{pointer}/from")),
                before: reader.time(spec.before.as_deref(), zone, &format!("{pointer}/before")),
                until: reader.time(spec.until.as_deref(), zone, &format!("{pointer}/until")),
                reason: spec.reason.clone().unwrap_or_default(),
                place: reader.layers.place(&pointer).first_line(),
            };
            if let (Some(from), Some(end)) = (hold.from, hold.before)
                && end <= from
            {
                reader.find(
                    Code::BadTime,
                    &format!("{pointer}/before"),
                    "this hold is of no slot: it ends before it begins",
                );
            }
            if reader.findings.len() == before {
                holds.push(hold);
            }
        }
        holds
    }
}
