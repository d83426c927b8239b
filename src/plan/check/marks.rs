//! What changes on images that stay: labels, stages, who may use them.

use jiff::Timestamp;

use super::seen::{Point, Presence, Series};
use super::times::{self, first_firing, moved};
use super::{CheckRule, EngineCheck, let_go_since};
use crate::inventory::{
    ImageState, LABEL_DRILLED, LABEL_DRILLED_BEFORE, LABEL_LET_GO, LABEL_MISSING, LABEL_REMOVED,
    LABEL_STAGED, Stage,
};
use crate::name::stamp;
use crate::plan::action::{Action, ReasonCode};
use crate::plan::document::{Change, Update};
use crate::policy::meant::OnSourceGone;

fn has(change: &Change, code: ReasonCode) -> bool {
    change.reasons.iter().any(|reason| reason.code == code)
}

/// Whether a change lets go of an image.
fn lets_go(change: &Change) -> bool {
    let codes = [ReasonCode::NoRuleKeeps, ReasonCode::FailedAttempt, ReasonCode::NewerRemainder];
    codes.into_iter().any(|code| has(change, code))
}

fn is_gone_reason(code: ReasonCode) -> bool {
    matches!(
        code,
        ReasonCode::SourceMissing | ReasonCode::SourceUnselected | ReasonCode::PolicyRemoved
    )
}

impl<'s> EngineCheck<'s, '_> {
    pub(super) fn reactivate(
        &mut self,
        change: &Change,
        series: &'s Series<'_>,
        point: &Point<'_>,
    ) {
        if change.reasons.first().map(|reason| reason.code) != Some(ReasonCode::KeptAgain) {
            self.find(CheckRule::Reason, change, "it is not brought back for being kept again");
        }
        if point.image.state.is_remainder() {
            if self.goes(series, point) {
                self.find(CheckRule::NotKept, change, "nothing keeps what is partial");
            }
            return;
        }
        // What is only for where the capture fails is brought back as things are.
        let with_coming =
            change.unless.is_none() && self.coming_in(series, point.copy_in).is_some();
        if !self.is_kept(series, point, with_coming) {
            self.find(CheckRule::NotKept, change, "no rule keeps it");
        }
    }

    pub(super) fn drill(&mut self, change: &Change, series: &'s Series<'_>, point: &Point<'_>) {
        self.drill_due(change, series, series.oldest);
        let is_newest = point.copy_in.is_none() && series.newest() == Some(point.slot);
        if !is_newest || !point.is_ready || !matches!(series.presence, Presence::There(_)) {
            self.find(CheckRule::Drill, change, "it is not the newest of a source that is there");
        }
    }

    /// A drill of the policy is due, and can be done. A series that begins with `oldest` after the
    /// drill fired waits for the next.
    pub(super) fn drill_due(
        &mut self,
        change: &Change,
        series: &'s Series<'_>,
        oldest: Option<Timestamp>,
    ) {
        if change.reasons.first().map(|reason| reason.code) != Some(ReasonCode::DrillDue) {
            self.find(CheckRule::Reason, change, "it is not tried because a drill is due");
        }
        let Some(drill) = series.policy.drill.as_ref() else {
            return self.find(CheckRule::Drill, change, "its policy has no drill");
        };
        let can = self.seen.engine.capabilities.drills.contains(&drill.check);
        if change.drill != Some(drill.check) || !can {
            self.find(CheckRule::Drill, change, "it is not tried as the policy says, or can be");
        }
        let since = match (series.drilled, oldest) {
            (Some(tried), Some(oldest)) => moved(tried, 1).max(oldest),
            (tried, oldest) => {
                tried.map(|at| moved(at, 1)).or(oldest).unwrap_or(times::moved(self.seen.now, 1))
            }
        };
        let zone = &series.policy.schedule.zone;
        if first_firing(&drill.crontabs, zone, since, self.seen.now).is_none() {
            self.find(CheckRule::Drill, change, "none is due");
        }
    }

    /// Everything that changes on an image is asked for by a reason, and every reason holds.
    pub(super) fn marks(&mut self, change: &Change, series: &'s Series<'_>, point: &Point<'_>) {
        self.source_reasons(change, series, point);
        let Some(update) = &change.update else {
            if !matches!(change.action, Action::Delete | Action::Copy) {
                self.find(CheckRule::Mark, change, "it does not say what to change");
            }
            return;
        };
        if matches!(change.action, Action::Delete | Action::Copy) {
            return self.find(CheckRule::Mark, change, "it changes labels, which it should not");
        }
        if !self.are_labels_right(change, update, series) {
            self.find(CheckRule::Mark, change, "labels change that no reason asks for");
        }
        if update.stage_before != point.image.stage || !is_stage_right(change, update) {
            self.find(CheckRule::Mark, change, "it goes to another stage than its reason says");
        }
        if times::moved(self.plan.now, 0) > self.seen.horizon() {
            self.find(CheckRule::Mark, change, "it was planned in the future");
        }
        if lets_go(change) != update.set_labels.contains_key(LABEL_LET_GO) {
            self.find(CheckRule::Mark, change, "what is let go says since when, and nothing else");
        }
        let is_undone = let_go_since(point.image).is_some() && point.image.stage == Stage::Active;
        if has(change, ReasonCode::DeprecationUndone) != (lets_go(change) && is_undone) {
            self.find(CheckRule::Reason, change, "what it says of its deprecation is not so");
        }
        self.replacement(change, update, series, point);
        self.sharing(change, update, series, point);
        let is_idle = update.set_labels.is_empty()
            && update.remove_labels.is_empty()
            && update.sharing.is_none();
        if change.action == Action::Relabel && (is_idle || change.reasons.is_empty()) {
            self.find(CheckRule::Reason, change, "it changes nothing, or for no reason");
        }
    }

    fn are_labels_right(&self, change: &Change, update: &Update, series: &Series<'_>) -> bool {
        let action = change.action;
        let now = stamp(self.plan.now);
        let sets = |(label, value): (&String, &String)| {
            let is_asked = match label.as_str() {
                LABEL_LET_GO => action == Action::Deprecate,
                LABEL_STAGED => {
                    matches!(action, Action::Deprecate | Action::Obsolete | Action::Reactivate)
                }
                LABEL_MISSING | LABEL_REMOVED => {
                    change.reasons.iter().any(|reason| is_gone_reason(reason.code))
                }
                LABEL_DRILLED => action == Action::Drill,
                LABEL_DRILLED_BEFORE => has(change, ReasonCode::DrillRemembered),
                _ => false,
            };
            // What goes on another image says when it was, and not when it was written.
            let known = match label.as_str() {
                LABEL_MISSING | LABEL_REMOVED => series.missing_since,
                LABEL_DRILLED_BEFORE => series.drilled,
                _ => None,
            };
            is_asked && *value == known.map_or_else(|| now.clone(), stamp)
        };
        let removes = |label: &String| match label.as_str() {
            LABEL_LET_GO | LABEL_STAGED => action == Action::Reactivate,
            LABEL_MISSING => {
                has(change, ReasonCode::SourceBack) || has(change, ReasonCode::PolicyRemoved)
            }
            LABEL_REMOVED => has(change, ReasonCode::PolicyBack),
            _ => false,
        };
        update.set_labels.iter().all(sets) && update.remove_labels.iter().all(removes)
    }

    /// Since when a source is missing begins where it is, and ends where it is not.
    fn source_reasons(&mut self, change: &Change, series: &'s Series<'_>, point: &Point<'_>) {
        let is_marked = |label: &str| point.image.labels.contains_key(label);
        let sees_all = self.seen.engine.gaps.is_empty();
        let update = change.update.as_ref();
        let sets = |label: &str| update.is_some_and(|update| update.set_labels.contains_key(label));
        let removes = |label: &str| {
            let removed = update.map_or(&[][..], |update| &update.remove_labels);
            removed.iter().any(|one| one == label) && is_marked(label) && sees_all
        };
        let lets_go = series.policy.lifecycle.on_source_gone != OnSourceGone::Keep;
        // A mark that is there is written again only where it was not.
        let begins = |label: &str| sets(label) && lets_go && !is_marked(label);
        let is_removed = series.policy.removed.is_some();
        for reason in &change.reasons {
            let is_right = match reason.code {
                ReasonCode::SourceBack => {
                    removes(LABEL_MISSING) && matches!(series.presence, Presence::There(_))
                }
                ReasonCode::PolicyBack => removes(LABEL_REMOVED) && !is_removed,
                ReasonCode::PolicyRemoved => {
                    is_removed && (begins(LABEL_REMOVED) || removes(LABEL_MISSING))
                }
                ReasonCode::SourceUnselected => {
                    begins(LABEL_MISSING)
                        && !is_removed
                        && matches!(series.presence, Presence::Unselected)
                }
                ReasonCode::SourceMissing => {
                    begins(LABEL_MISSING)
                        && !is_removed
                        && matches!(series.presence, Presence::Missing)
                }
                _ => true,
            };
            if !is_right {
                self.find(CheckRule::SourceMark, change, "its source is not as the mark says");
            }
        }
    }

    /// What people are told to take instead is there, good, and of the family.
    fn replacement(
        &mut self,
        change: &Change,
        update: &Update,
        series: &Series<'_>,
        point: &Point<'_>,
    ) {
        let Some(name) = update.replacement.as_deref() else { return };
        let family = series.policy.capture.family.as_ref();
        let made_in = match series.presence {
            Presence::There(instance) => Some(&instance.project),
            Presence::Unselected | Presence::Missing | Presence::Unseen => None,
        };
        let is_coming =
            change.waits_for.as_deref() == Some(name) && made_in == Some(&point.image.project);
        let images = self.seen.by_name.get(name).map_or(&[][..], Vec::as_slice);
        let is_good = images.iter().any(|image| {
            image.id != point.image.id
                && image.family.as_ref() == family
                && image.project == point.image.project
                && image.state == ImageState::Ready
                && image.stage == Stage::Active
                && let_go_since(image).is_none()
        });
        if family.is_none() || !is_coming && !is_good {
            self.find(CheckRule::Mark, change, format!("{name} cannot stand for it"));
        }
    }

    fn sharing(
        &mut self,
        change: &Change,
        update: &Update,
        series: &'s Series<'_>,
        point: &Point<'_>,
    ) {
        let is_asked = has(change, ReasonCode::SharingDiffers);
        let is_right = match &update.sharing {
            None => !is_asked,
            Some(sharing) => {
                is_asked
                    && series.policy.sharing.as_ref() == Some(sharing)
                    && point.image.sharing.as_ref().is_some_and(|now| now != sharing)
            }
        };
        if !is_right {
            self.find(CheckRule::Sharing, change, "it is shared otherwise than the policy says");
        }
    }
}

/// The stage that an image goes to.
fn is_stage_right(change: &Change, update: &Update) -> bool {
    let (before, after) = (update.stage_before, update.stage_after);
    match change.action {
        Action::Deprecate if lets_go(change) => after == before.max(Stage::Deprecated),
        Action::Deprecate => after == Stage::Deprecated,
        Action::Obsolete => after == Stage::Obsolete,
        Action::Reactivate => after <= before,
        _ => after == before,
    }
}
