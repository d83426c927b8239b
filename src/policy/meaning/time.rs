//! When restore points are due, and when a policy is paused.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;

use super::Meaning;
use crate::elapsed::Elapsed;
use crate::policy::finding::{Code, Finding, Place};
use crate::policy::meant::Pause;
use crate::policy::written::{PausedSpec, ScheduleSpec};
use crate::schedule::{Crontab, DEADLINE_DEFAULT_MAX, Schedule, Zone};

impl Meaning<'_> {
    pub(super) fn schedule(&mut self, written: &ScheduleSpec) -> Option<Schedule> {
        let zone = written.time_zone.as_deref().and_then(|name| self.zone(name));
        let deadline = self.length(written.deadline.as_ref(), "/schedule/deadline");
        let jitter = self.length(written.jitter.as_ref(), "/schedule/jitter").unwrap_or_default();
        let crontab = written.cron.as_deref().and_then(|text| self.crontab(text));
        if deadline == Some(Elapsed::ZERO) {
            self.find(
                Code::BadLength,
                "/schedule/deadline",
                "a deadline of 0 lets nothing be created",
            );
        }
        let schedule = Schedule { crontab: crontab?, zone: zone?, deadline, jitter };
        if jitter > Elapsed::ZERO {
            let between = schedule.shortest_period();
            let limit = deadline.unwrap_or(DEADLINE_DEFAULT_MAX).min(between);
            if jitter >= limit {
                let what =
                    if limit == between { "the time between two runs" } else { "the deadline" };
                self.find(
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

    pub(super) fn crontab(&mut self, text: &str) -> Option<Crontab> {
        match Crontab::parse(text) {
            Ok(crontab) => Some(crontab),
            Err(errors) => {
                let whole = self.layers.place("/schedule/cron");
                for error in errors {
                    let place = within(&whole, text, error.column, error.length);
                    self.findings.push(
                        Finding::new(Code::BadCron, place, error.message).maybe_hint(error.hint),
                    );
                }
                None
            }
        }
    }

    pub(super) fn zone(&mut self, name: &str) -> Option<Zone> {
        let zone = Zone::find(name);
        if zone.is_none() {
            self.find(
                Code::BadTimeZone,
                "/schedule/timeZone",
                format!("there is no time zone `{name}`"),
            )
            .hint = Some(Zone::hint(name));
        }
        zone
    }

    pub(super) fn pause(&mut self, written: &PausedSpec, zone: &Zone) -> Pause {
        let pause = Pause {
            creates: written.creates.unwrap_or(false),
            deletes: written.deletes.unwrap_or(false),
            until: written.until.as_deref().and_then(|text| self.time(text, zone, "/paused/until")),
            reason: written.reason.clone(),
        };
        let says = written.creates.is_some() || written.deletes.is_some();
        if !says && !self.is_damaged("/paused") {
            self.find(Code::MissingKey, "/paused", "the pause does not say of what").hint =
                Some("write `creates: true`, `deletes: true` or both".to_owned());
        }
        pause
    }

    /// A date, which is its beginning in the policy's zone, or an instant.
    pub(super) fn time(&mut self, text: &str, zone: &Zone, pointer: &str) -> Option<Timestamp> {
        let date = text.parse::<Date>().ok().filter(|_| text.len() == 10);
        let time = match date {
            Some(date) => {
                date.to_zoned(zone.time_zone().clone()).ok().map(|zoned| zoned.timestamp())
            }
            None => text.parse::<Timestamp>().ok(),
        };
        if time.is_none() {
            self.find(Code::BadTime, pointer, format!("`{text}` is not a time")).hint = Some(
                "write a date like `2026-12-01` or an instant like `2026-12-01T08:00:00Z`"
                    .to_owned(),
            );
        }
        time
    }
}

/// The part of a scalar's place that some characters of its text take, where the text stands there
/// as it is.
pub(super) fn within(whole: &Place, text: &str, column: usize, length: usize) -> Place {
    let written = whole.file.text.get(whole.span.clone()).unwrap_or_default();
    let Some(start) = written.find(text).filter(|_| !text.is_empty()) else {
        return whole.clone();
    };
    let byte = |characters: usize| {
        text.char_indices().nth(characters).map_or(text.len(), |(byte, _)| byte)
    };
    let start = whole.span.start + start;
    Place {
        file: Arc::clone(&whole.file),
        span: start + byte(column)..start + byte(column + length),
    }
}
