//! Drills: restores that prove images restorable.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::SeriesPlan;
use crate::desired::{Presence, SeriesPoint};
use crate::inventory::{LABEL_DRILLED, LABEL_DRILLED_BEFORE, Stage};
use crate::name::stamp;
use crate::plan::action::{Action, Reason, ReasonCode};
use crate::plan::document::{Change, Update};
use crate::retention::Fate;

use super::minute;

impl SeriesPlan<'_> {
    /// Tries the newest restore point, where a drill is due and none of the series has been tried
    /// since.
    pub(super) fn drill(&mut self) {
        let series = self.series;
        let (Some(due), Some(drill)) = (series.drill, &series.policy.drill) else { return };
        if !self.engine.capabilities.drills.contains(&drill.check)
            || !self.engine.is_complete()
            || !matches!(series.state.presence, Presence::Present(_))
        {
            return;
        }
        // A series that began after the drill fired waits for the next.
        let create = self.changes.iter().find(|change| change.create.is_some());
        let ready = series.points.iter().filter(|point| point.is_ready(self.now));
        let mut slots =
            ready.map(|point| point.key.slot).chain(create.map(|create| create.key.slot));
        let has_begun = slots.any(|slot| slot.instant() <= due);
        let last = self.last_drill();
        if let Some(last) = last.filter(|last| *last >= due) {
            return self.remember_drill(last);
        }
        if !has_begun {
            return;
        }
        let detail = format!("a drill was due {}", minute(due));
        let reason = Reason::new(ReasonCode::DrillDue, detail);
        let mut stage = Stage::Active;
        let mut change = if let Some(create) = create {
            // The one that is coming is the newest by then.
            Change {
                action: Action::Drill,
                reasons: vec![reason],
                create: None,
                waits_for: Some(create.image.name.clone()),
                ..create.clone()
            }
        } else {
            let Some(newest) = series.newest_ready(self.now) else { return };
            let id = &newest.image.id;
            let is_changed = self.changes.iter().any(|change| {
                change.image.id.as_ref() == Some(id) && change.action != Action::Copy
            });
            if is_changed {
                // Its fingerprint is about to be another: it is tried in the round after.
                return;
            }
            self.kept.retain(|kept| kept.id != *id);
            stage = newest.image.stage;
            self.change(Action::Drill, newest, reason)
        };
        change.drill = Some(drill.check);
        change.update = Some(Update {
            stage_before: stage,
            stage_after: stage,
            set_labels: BTreeMap::from([(LABEL_DRILLED.to_owned(), stamp(self.now))]),
            ..Update::default()
        });
        self.changes.push(change);
    }

    /// When the newest drill of the series was, as its images know it.
    fn last_drill(&self) -> Option<Timestamp> {
        let known = self.series.points.iter().filter_map(|point| point.image.drill_known());
        known.filter(|at| *at <= self.now).max()
    }

    /// Where nothing that stays knows of the last drill, the newest is to know, which the coming point is born
    /// with: without it the drill would be due again as soon as the one that was drilled is gone.
    fn remember_drill(&mut self, last: Timestamp) {
        let series = self.series;
        if self.is_frozen() {
            return;
        }
        let stays = |point: &&SeriesPoint<'_>| {
            point.is_ready(self.now) && matches!(self.fate(point), Fate::Kept(_))
        };
        let mut staying = series.points.iter().filter(stays);
        if staying.any(|point| point.image.drill_known() == Some(last)) {
            return;
        }
        let create = self.changes.iter_mut().find_map(|change| change.create.as_mut());
        if let Some(create) = create {
            create.labels.insert(LABEL_DRILLED_BEFORE.to_owned(), stamp(last));
            return;
        }
        let newest = series.newest_ready(self.now);
        // The one that was drilled may be the newest, which stays for now, whatever is to become of it.
        if let Some(newest) = newest.filter(|newest| newest.image.drill_known() != Some(last)) {
            let reason = Reason::new(ReasonCode::DrillRemembered, minute(last));
            self.relabel(newest, &reason, |update| {
                update.set_labels.insert(LABEL_DRILLED_BEFORE.to_owned(), stamp(last));
            });
        }
    }
}
