//! Sources that are gone, and what else keeps a series as it is.
//!
//! Since when a source is gone is written on the newest image of its series: there is no other
//! place that lasts.

use jiff::Timestamp;

use super::{SeriesPlan, describe_pause, minute};
use crate::desired::{Presence, Series, SeriesPoint, is_settled, mark_of};
use crate::inventory::{EngineInventory, LABEL_MISSING, LABEL_REMOVED};
use crate::name::stamp;
use crate::plan::action::{Action, Reason, ReasonCode};
use crate::plan::document::{Change, Update};
use crate::policy::meant::{OnSourceGone, WhenStalled};
use crate::retention::CLOCK_SKEW;

impl SeriesPlan<'_> {
    /// Writes on the newest image that the source is missing or its policy removed, and takes the mark
    /// away when that is over. The newest always has it: the image that was marked may go.
    pub(super) fn source_marks(&mut self) {
        let series = self.series;
        let mark = mark_of(series.policy);
        let can_mark = !self.is_paused_or_unseen();
        // Taking a mark away keeps for longer, so it waits for no pause: a mark that stayed on would
        // cut the next grace short.
        if self.engine.gaps.is_empty() {
            let is_back = matches!(series.state.presence, Presence::Present(_));
            if is_back {
                self.unmark(mark, &Reason::new(ReasonCode::SourceBack, "the source is back"));
            }
            if series.policy.removed.is_some() {
                self.unmark(LABEL_MISSING, &gone_reason(series));
            } else {
                let back = Reason::new(ReasonCode::PolicyBack, "the policy is back");
                self.unmark(LABEL_REMOVED, &back);
            }
        }
        let lets_go = series.policy.lifecycle.on_source_gone != OnSourceGone::Keep;
        if !series.state.is_gone() || !can_mark || !lets_go {
            return;
        }
        let newest_failed = || {
            let horizon = CLOCK_SKEW.after(self.now);
            series.points.iter().rfind(|point| {
                point.image.state.is_failed_attempt() && point.key.slot.instant() <= horizon
            })
        };
        let newest = series.newest_ready(self.now).or_else(newest_failed);
        if let Some(newest) = newest.filter(|newest| !newest.image.labels.contains_key(mark)) {
            let since = stamp(series.state.marked_since.unwrap_or(self.now));
            self.relabel(newest, &gone_reason(series), |update| {
                update.set_labels.insert(mark.to_owned(), since);
            });
        }
    }

    fn unmark(&mut self, mark: &str, reason: &Reason) {
        let series = self.series;
        for point in series.points.iter().filter(|point| is_settled(point.image)) {
            if point.image.labels.contains_key(mark) && !self.is_replaced(point.image) {
                self.relabel(point, reason, |update| update.remove_labels.push(mark.to_owned()));
            }
        }
    }

    /// Changes labels of a point: as a part of what is done to it anyway, or by itself. A copy of it
    /// changes nothing on it. What waits for a restore point may never be done: what is done otherwise is
    /// planned by itself.
    pub(super) fn relabel(
        &mut self,
        point: &SeriesPoint<'_>,
        reason: &Reason,
        edit: impl FnOnce(&mut Update),
    ) {
        let id = &point.image.id;
        let is_it =
            |change: &Change| change.image.id.as_ref() == Some(id) && change.action != Action::Copy;
        if let Some(change) = self.changes.iter_mut().find(|change| is_it(change)) {
            if let Some(update) = &mut change.update {
                change.reasons.push(reason.clone());
                edit(update);
            }
            return;
        }
        // What is let go stays so: who carries out an approved plan asks for that.
        let told = self.kept.iter().filter(|kept| kept.id == *id).flat_map(|kept| &kept.reasons);
        let in_grace = told.filter(|reason| reason.code == ReasonCode::InGrace).cloned();
        let in_grace: Vec<Reason> = in_grace.collect();
        self.kept.retain(|kept| kept.id != *id);
        let mut change = self.change(Action::Relabel, point, reason.clone());
        change.reasons.extend(in_grace);
        let stage = point.image.stage;
        let mut update = Update { stage_before: stage, stage_after: stage, ..Update::default() };
        edit(&mut update);
        change.update = Some(update);
        self.changes.push(change);
    }
}

/// What keeps everything of a series from being deprecated or deleted.
pub(super) fn obstacle(
    engine: &EngineInventory,
    series: &Series<'_>,
    now: Timestamp,
) -> Option<Reason> {
    if let Some(gap) = engine.gaps.first() {
        let detail = format!("{} was not seen whole: {}", engine.name, gap.place);
        return Some(Reason::new(ReasonCode::InventoryGap, detail));
    }
    if let Some(pause) = series.pauses.iter().find(|pause| pause.deletes) {
        let code = if pause.is_blackout { ReasonCode::Blackout } else { ReasonCode::Paused };
        return Some(Reason::new(code, describe_pause(pause)));
    }
    if series.state.is_gone() {
        if series.policy.lifecycle.on_source_gone == OnSourceGone::Keep {
            let gone = gone_reason(series).detail;
            let detail = format!("{gone}; its restore points stay");
            return Some(Reason::new(ReasonCode::SourceGoneKept, detail));
        }
        let since = series.state.marked_since.unwrap_or(now);
        let until = series.policy.lifecycle.source_gone_grace.after(since);
        let grace = gone_reason(series).detail;
        return (until > now).then(|| {
            Reason::new(
                ReasonCode::SourceGoneGrace,
                format!("{grace}; nothing changes before {}", minute(until)),
            )
        });
    }
    if series.stalled && series.policy.when_stalled == WhenStalled::Keep {
        let detail = match series.newest_ready(now) {
            Some(point) => {
                format!("no new READY restore point since {}", minute(point.key.slot.instant()))
            }
            None => "no READY restore point".to_owned(),
        };
        return Some(Reason::new(ReasonCode::Stalled, detail));
    }
    None
}

fn gone_reason(series: &Series<'_>) -> Reason {
    if let Some(reason) = &series.policy.removed {
        let detail = format!("the policy was removed: {reason}");
        return Reason::new(ReasonCode::PolicyRemoved, detail);
    }
    match series.state.presence {
        Presence::Unselected(_) => Reason::new(
            ReasonCode::SourceUnselected,
            "the policy does not select the source any more",
        ),
        _ => Reason::new(ReasonCode::SourceMissing, "the source is not there any more"),
    }
}
