//! Sources that are gone, and what else keeps a series as it is.
//!
//! Since when a source is gone is written on the newest image of its series: there is no other
//! place that lasts.

use jiff::Timestamp;

use super::{SeriesPlan, describe_pause, minute};
use crate::desired::{Presence, Series, SeriesPoint};
use crate::inventory::{EngineInventory, ImageState, LABEL_MISSING};
use crate::name::stamp;
use crate::plan::action::{Action, Reason, ReasonCode};
use crate::plan::document::Update;
use crate::policy::meant::{OnSourceGone, WhenStalled};
use crate::retention::CLOCK_SKEW;

impl SeriesPlan<'_> {
    /// Writes on the newest image that the source is missing, and takes the mark away when it is
    /// back.
    pub(super) fn source_marks(&mut self) {
        let series = self.series;
        let can_mark = !self.is_paused_or_unseen();
        match series.state.presence {
            // Taking a mark away keeps for longer, so it waits for no pause: a mark that stayed on
            // would cut the next grace short.
            Presence::Present(_) if self.engine.gaps.is_empty() => {
                let reason = Reason::new(ReasonCode::SourceBack, "the source is back");
                for point in series.points.iter().filter(|point| is_settled(point)) {
                    let is_marked = point.image.labels.contains_key(LABEL_MISSING);
                    if is_marked && !self.is_replaced(point.image) {
                        self.relabel(point, &reason, |update| {
                            update.remove_labels.push(LABEL_MISSING.to_owned());
                        });
                    }
                }
            }
            Presence::Missing | Presence::Unselected(_)
                if can_mark
                    && series.state.marked_since.is_none()
                    && series.policy.lifecycle.on_source_gone != OnSourceGone::Keep =>
            {
                let newest_ready = series.newest_ready(self.now);
                let horizon = CLOCK_SKEW.after(self.now);
                let newest_failed = || {
                    series.points.iter().rfind(|point| {
                        point.image.state == ImageState::Failed
                            && point.key.slot.instant() <= horizon
                    })
                };
                if let Some(newest) = newest_ready.or_else(newest_failed) {
                    let mark = stamp(self.now);
                    self.relabel(newest, &gone_reason(series), |update| {
                        update.set_labels.insert(LABEL_MISSING.to_owned(), mark);
                    });
                }
            }
            _ => {}
        }
    }

    /// Changes labels of a point: as a part of what is done to it anyway, or by itself.
    pub(super) fn relabel(
        &mut self,
        point: &SeriesPoint<'_>,
        reason: &Reason,
        edit: impl FnOnce(&mut Update),
    ) {
        let id = &point.image.id;
        if let Some(change) =
            self.changes.iter_mut().find(|change| change.image.id.as_ref() == Some(id))
        {
            if let Some(update) = &mut change.update {
                change.reasons.push(reason.clone());
                edit(update);
            }
            return;
        }
        self.kept.retain(|kept| kept.id != *id);
        let mut change = self.change(Action::Relabel, point, reason.clone());
        let stage = point.image.stage;
        let mut update = Update { stage_before: stage, stage_after: stage, ..Update::default() };
        edit(&mut update);
        change.update = Some(update);
        self.changes.push(change);
    }
}

/// Whether labels of an image can be changed: nobody is at it.
fn is_settled(point: &SeriesPoint<'_>) -> bool {
    matches!(point.image.state, ImageState::Ready | ImageState::Failed)
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
