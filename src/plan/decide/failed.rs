//! Failed attempts, and what is left of those that hold data.

use super::{SeriesPlan, kept_again, minute, state_detail};
use crate::desired::SeriesPoint;
use crate::elapsed::Elapsed;
use crate::inventory::{Image, ImageState, LABEL_LET_GO, Stage};
use crate::plan::action::{Action, Reason, ReasonCode};
use crate::retention::{CLOCK_SKEW, Keep};

/// A failed attempt is cleared away after this long, also when nothing newer is READY.
const FAILED_KEPT: Elapsed = Elapsed::days(7);

impl SeriesPlan<'_> {
    /// A failed attempt: cleared away once something newer is READY, or after a week. What is partial
    /// may be a restore point that somebody has taken a part of, and the best there is: it is let go once
    /// something newer is READY, or what is left of a newer one holds all of it, like what no rule keeps.
    pub(super) fn failed(&mut self, point: &SeriesPoint<'_>, has_ready: bool) {
        if self.is_replaced(point.image) {
            return;
        }
        if point.is_held(self.now) {
            let why = point.hold.map_or_else(|| "held".to_owned(), |why| format!("held: {why}"));
            return self.spare(point, Reason::new(ReasonCode::Held, why));
        }
        if point.key.slot.instant() > CLOCK_SKEW.after(self.now) {
            let detail = Keep::Quarantined.to_string();
            return self.spare(point, Reason::new(ReasonCode::Quarantined, detail));
        }
        let has_rules = self.series.policy.retention.effective().next().is_some();
        if !has_rules && self.series.policy.removed.is_none() {
            let detail = Keep::NoRules.to_string();
            return self.spare(point, Reason::new(ReasonCode::NoRules, detail));
        }
        if !point.image.in_use_by.is_empty() {
            let users = point.image.in_use_by.join(", ");
            return self.spare(point, Reason::new(ReasonCode::InUse, format!("in use by {users}")));
        }
        let is_remainder = point.image.state.is_remainder();
        let series = self.series;
        if let Some(newer) = series.remainder_over(point, self.now) {
            return self.let_go(point, needless(point.image, newer), None);
        }
        let newest_ready = series.newest_ready(self.now).map(|point| point.key.slot);
        let is_superseded = has_ready && newest_ready >= Some(point.key.slot);
        let is_old = FAILED_KEPT.after(point.image.created_at) < self.now;
        let why = Reason::new(ReasonCode::FailedAttempt, state_detail(point.image));
        let is_needed = !is_superseded && (!is_old || is_remainder);
        let is_newer_coming = self.coming_slot() >= Some(point.key.slot);
        if is_needed && (has_ready && is_newer_coming || self.is_overtaken(point)) {
            // Something newer is READY then: nothing is brought back for as long as that takes.
            return self.keep(point, vec![Reason::new(ReasonCode::NotReady, why.detail)]);
        }
        if is_needed {
            return self.spare(point, Reason::new(ReasonCode::NotReady, why.detail));
        }
        if is_remainder {
            return self.let_go(point, why, None);
        }
        if let Some(obstacle) = self.obstacle.clone() {
            return self.hold_back(Action::Delete, point, vec![obstacle, why]);
        }
        let change = self.change(Action::Delete, point, why);
        self.changes.push(change);
    }

    /// Keeps a failed attempt. What was let go before is brought back, so that it has a grace of its own
    /// when it is let go again.
    fn spare(&mut self, point: &SeriesPoint<'_>, why: Reason) {
        let is_let_go = point.image.labels.contains_key(LABEL_LET_GO);
        if point.image.state.is_remainder() && is_let_go && !self.is_frozen() {
            self.bring_back(point, Stage::Active, kept_again(&[why]));
        } else {
            self.keep(point, vec![why]);
        }
    }

    /// A step on the way to a restore point: what this plan creates takes it up; else it is what is
    /// left of an attempt that did not end.
    pub(super) fn step(&mut self, step: &SeriesPoint<'_>, has_ready: bool) {
        let is_taken_up = self.created.is_some()
            && self.series.step_to_due().is_some_and(|due| due.image.id == step.image.id);
        let is_one = step.image.step_to().is_some();
        if is_taken_up || !is_one || step.image.state != ImageState::Failed {
            let why = Reason::new(ReasonCode::NotReady, state_detail(step.image));
            return self.keep(step, vec![why]);
        }
        self.failed(step, has_ready);
    }
}

/// Why what is left of a restore point goes: all of it is in what is left of a newer one.
fn needless(image: &Image, newer: &SeriesPoint<'_>) -> Reason {
    let disks = image.disks.as_deref().unwrap_or_default().join(", ");
    let detail = format!(
        "{}; {} of {} is newer and holds all that it does: {disks}",
        state_detail(image),
        newer.image.name,
        minute(newer.key.slot.instant())
    );
    Reason::new(ReasonCode::NewerRemainder, detail)
}
