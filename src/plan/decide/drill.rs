//! Drills: restores that prove images restorable.

use std::collections::BTreeMap;

use super::SeriesPlan;
use crate::desired::Presence;
use crate::inventory::LABEL_DRILLED;
use crate::name::stamp;
use crate::plan::action::{Action, Reason, ReasonCode};
use crate::plan::document::Update;

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
        let has_begun = series
            .points
            .iter()
            .any(|point| point.is_ready(self.now) && point.key.slot.instant() <= due);
        let is_done = series
            .points
            .iter()
            .any(|point| point.image.drilled_at().is_some_and(|at| at >= due && at <= self.now));
        let Some(newest) = series.newest_ready(self.now).filter(|_| has_begun && !is_done) else {
            return;
        };
        let id = &newest.image.id;
        let is_changed = self.changes.iter().any(|change| change.image.id.as_ref() == Some(id));
        if is_changed {
            // Its fingerprint is about to be another: it is tried in the round after.
            return;
        }
        self.kept.retain(|kept| kept.id != *id);
        let detail = format!("a drill was due {}", minute(due));
        let mut change =
            self.change(Action::Drill, newest, Reason::new(ReasonCode::DrillDue, detail));
        let stage = newest.image.stage;
        change.drill = Some(drill.check);
        change.update = Some(Update {
            stage_before: stage,
            stage_after: stage,
            set_labels: BTreeMap::from([(LABEL_DRILLED.to_owned(), stamp(self.now))]),
            ..Update::default()
        });
        self.changes.push(change);
    }
}
