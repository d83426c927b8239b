//! What becomes of an image if nothing changes: which rules keep it, when each lets go, when it will
//! be deprecated and deleted.
//!
//! The schedule goes on, every capture succeeds, the source stays. What is kept at a later instant is
//! asked of the real `retain`, over the points there are and the slots that can matter by then. It
//! only ever lets go more (law 13), so the instants are searched for, not walked to. Tests hold the
//! answers against what the simulation does, and against the plan of the same instant.

mod view;
mod words;

use jiff::Timestamp;

pub use words::{Forecast, HoldEnd, Influence, Never, RuleEnd};

use super::outlook::{arrivals, next_meant, resumed, runs};
use crate::desired::{Due, Presence, STALLED_PERIODS, Series, SeriesPoint, desired};
use crate::elapsed::Elapsed;
use crate::inventory::{Inventory, LABEL_HOLD};
use crate::name::{Slot, parse_stamp, spread};
use crate::policy::Policies;
use crate::policy::meant::{Hold, OnSourceGone, Pause, WhenStalled};
use view::View;

/// So many pauses in a row are waited for.
const PAUSES_MAX: usize = 1_000;

/// The forecasts of one series.
#[derive(Debug)]
pub struct Prospect<'p> {
    series: &'p Series<'p>,
    is_seen_whole: bool,
    now: Timestamp,
    /// How long after its slot a round begins.
    offset: Elapsed,
    /// Slots to come that can matter, with the instant at which each has its point.
    arrivals: Vec<(Slot, Timestamp)>,
    /// When the series begins to be stalled and when it ends, where it is or will be.
    stall: Option<(Timestamp, Option<Timestamp>)>,
    /// When all but the newest go because the source is gone, where the policy says so.
    expires_at: Option<Timestamp>,
}

/// The forecast of a restore point of ours or of a copy of one; `None` where no policy keeps it or it
/// is not there.
pub fn of_image(
    policies: &Policies,
    inventory: &Inventory,
    engine: &str,
    image: &str,
    now: Timestamp,
) -> Option<Forecast> {
    let desired = desired(policies, inventory, now);
    let engine = desired.engines.iter().find(|one| one.engine.name == engine)?;
    let is_it = |point: &SeriesPoint<'_>| point.image.id == image;
    let holds = |series: &&Series<'_>| series.points.iter().chain(&series.copies).any(is_it);
    let series = engine.series.iter().find(holds)?;
    Prospect::new(series, engine.engine.is_complete(), now).of(image)
}

/// The coming runs of a series that make a restore point, with the instant at which each does.
pub fn next_runs(series: &Series<'_>, now: Timestamp, count: usize) -> Vec<(Slot, Timestamp)> {
    runs(series, offset_of(series), now, count)
}

/// How long after a slot the turn of a series comes.
fn offset_of(series: &Series<'_>) -> Elapsed {
    let jitter = series.policy.schedule.jitter.as_seconds().unsigned_abs();
    let offset = spread(&series.policy.name, &series.source, jitter);
    Elapsed::seconds(i64::try_from(offset).unwrap_or(0))
}

impl<'p> Prospect<'p> {
    /// Looks ahead for a series. `is_seen_whole` says whether its engine has no gaps.
    pub fn new(series: &'p Series<'p>, is_seen_whole: bool, now: Timestamp) -> Self {
        let mut prospect = Self {
            series,
            is_seen_whole,
            now,
            offset: offset_of(series),
            arrivals: Vec::new(),
            stall: None,
            expires_at: None,
        };
        prospect.arrivals = prospect.coming(now);
        prospect.stall = prospect.stalled();
        prospect.expires_at = prospect.expires();
        prospect
    }

    /// The slots to come after an instant that can matter.
    fn coming(&self, after: Timestamp) -> Vec<(Slot, Timestamp)> {
        let is_there = matches!(self.series.state.presence, Presence::Present(_));
        let from = resumed(self.series.policy, self.now).filter(|_| is_there);
        from.map(|from| arrivals(self.series, from.max(after), self.offset, self.now))
            .unwrap_or_default()
    }

    /// Since when the source counts as gone: as its mark says, or from the round that can write it.
    fn gone_since(&self) -> Option<Timestamp> {
        let unpaused = || self.without(self.now, |pause| pause.deletes);
        self.series.state.marked_since.or_else(unpaused)
    }

    fn expires(&self) -> Option<Timestamp> {
        let lifecycle = &self.series.policy.lifecycle;
        if lifecycle.on_source_gone != OnSourceGone::Expire || !self.series.state.is_gone() {
            return None;
        }
        let since = self.gone_since()?;
        let passed = lifecycle.source_gone_grace.after(since).max(self.now);
        // What one round writes the next one reads.
        let is_marked = self.series.state.marked_since.is_some();
        Some(if is_marked { passed } else { passed.max(self.next_round(since)) })
    }

    /// When the series is stalled next.
    fn stalled(&self) -> Option<(Timestamp, Option<Timestamp>)> {
        if !matches!(self.series.state.presence, Presence::Present(_)) {
            return None;
        }
        let ends = self.arrivals.first().map(|(_, at)| *at);
        if self.series.stalled {
            return Some((self.now, ends));
        }
        let policy = self.series.policy;
        let newest = self.series.newest_ready(self.now)?.key.slot.instant();
        let begins = if let Some(limit) = policy.stalled_after {
            limit.after(newest)
        } else {
            let mut slot = next_meant(policy, newest)?;
            for _ in 1..STALLED_PERIODS {
                slot = next_meant(policy, slot.instant())?;
            }
            slot.instant()
        };
        ends.is_none_or(|ends| begins < ends).then_some((begins, ends))
    }

    /// The forecast of one of its images.
    pub fn of(&self, image: &str) -> Option<Forecast> {
        let mut points = self.series.points.iter().chain(&self.series.copies);
        let point = points.find(|point| point.image.id == image)?;
        Some(View::new(self, point).forecast())
    }

    fn hold_on(&self, point: &SeriesPoint<'_>, at: Timestamp) -> Option<&Hold> {
        let name = self.series.state.instance().map(|instance| instance.name.as_str());
        self.series.policy.hold_on(&point.key, point.image, name, at)
    }

    /// When the last hold on a point ends: now where there is none, `None` where one has no end.
    fn hold_end(&self, point: &SeriesPoint<'_>) -> Option<Timestamp> {
        let mut end = label_end(point, self.now)?;
        while let Some(hold) = self.hold_on(point, end) {
            end = hold.until?;
        }
        Some(end)
    }

    /// Everything that holds a point now: its label first.
    fn holds(&self, point: &SeriesPoint<'_>) -> Vec<HoldEnd> {
        let label = point.image.is_held(self.now);
        let label = label.then(|| HoldEnd { reason: None, ends_at: label_end(point, self.now) });
        let name = self.series.state.instance().map(|instance| instance.name.as_str());
        let lasts = |hold: &&Hold| hold.until.is_none_or(|until| self.now < until);
        let holds = self.series.policy.holds.iter().filter(lasts);
        let of_policy = holds.filter(|hold| hold.is_of(&point.key, point.image, name));
        let of_policy = of_policy
            .map(|hold| HoldEnd { reason: Some(hold.reason.clone()), ends_at: hold.until });
        label.into_iter().chain(of_policy).collect()
    }

    /// When a location gets the copies that it still lacks.
    fn copied_up_at(&self) -> Option<Timestamp> {
        self.without(self.now, |pause| pause.creates || pause.deletes)
    }

    /// The slots of restore points that a location has no copy of and gets one of.
    fn uncopied(&self, location: &str) -> impl Iterator<Item = Slot> {
        let coming = match &self.series.due {
            Due::Create { slot, .. } => Some(*slot),
            _ => None,
        };
        let missing = self.series.uncopied(location, coming, self.now);
        missing.into_iter().map(|point| point.key.slot)
    }

    /// From when on a round finds in every location a copy of a restore point or of a newer one;
    /// `None` where that never is so.
    fn copied_at(&self, point: &SeriesPoint<'_>) -> Option<Timestamp> {
        let series = self.series;
        let has_copy = |location: &str| {
            let copied = series
                .copies_in(location)
                .any(|copy| copy.is_ready(self.now) && copy.key.slot >= point.key.slot);
            let mut newer = series.points.iter().filter(|other| other.key.slot > point.key.slot);
            copied
                || newer.any(|newer| newer.is_ready(self.now) && newer.image.location == location)
        };
        let mut at = self.now;
        for location in series.policy.copies.iter().filter(|location| !has_copy(location)) {
            let is_copied_up = self.uncopied(location).any(|slot| slot >= point.key.slot);
            let copied_up = self.copied_up_at().filter(|_| is_copied_up);
            let copied = copied_up.or_else(|| Some(self.arrivals.first()?.1))?;
            // The round that copies does not see the copy yet.
            at = at.max(self.next_round(copied));
        }
        Some(at)
    }

    /// The first instant from `at` on at which nothing stands in the way of letting go.
    fn unhindered(&self, at: Timestamp) -> Result<Timestamp, Never> {
        let at = self.unfrozen(at)?;
        match self.stall.filter(|_| self.series.policy.when_stalled == WhenStalled::Keep) {
            Some((begins, ends)) if at >= begins => {
                self.unfrozen(at.max(ends.ok_or(Never::NoNewPoints)?))
            }
            _ => Ok(at),
        }
    }

    /// The same for what is deleted: that waits for the round after the one that ends a stall.
    fn deletable(&self, at: Timestamp) -> Result<Timestamp, Never> {
        let unhindered = self.unhindered(at)?;
        let waits = self.series.policy.when_stalled == WhenStalled::Keep;
        match self.stall.filter(|_| waits) {
            Some((begins, Some(ends))) if unhindered >= begins && unhindered <= ends => {
                self.unfrozen(self.next_round(ends))
            }
            _ => Ok(unhindered),
        }
    }

    /// The first instant from `at` on at which the stage of what is kept can change.
    fn unfrozen(&self, at: Timestamp) -> Result<Timestamp, Never> {
        if !self.is_seen_whole {
            return Err(Never::InventoryGap);
        }
        let mut at = at.max(self.now);
        let lifecycle = &self.series.policy.lifecycle;
        match self.series.state.presence {
            Presence::Missing | Presence::Unselected(_) => {
                if lifecycle.on_source_gone == OnSourceGone::Keep {
                    return Err(Never::SourceGoneKept);
                }
                let since = self.gone_since().ok_or(Never::Paused)?;
                at = at.max(lifecycle.source_gone_grace.after(since));
            }
            Presence::Unknown => return Err(Never::InventoryGap),
            Presence::Present(_) => {}
        }
        self.without(at, |pause| pause.deletes).ok_or(Never::Paused)
    }

    /// The first instant from `at` on without such a pause; `None` where there is none.
    fn without(&self, mut at: Timestamp, is_such: impl Fn(&Pause) -> bool) -> Option<Timestamp> {
        for _ in 0..PAUSES_MAX {
            let pauses = self.series.policy.pauses_at(at);
            let Some(pause) = pauses.into_iter().find(&is_such) else { return Some(at) };
            at = pause.until?;
        }
        None
    }

    /// The first round after an instant: a slot brings one, and each day does.
    fn next_round(&self, after: Timestamp) -> Timestamp {
        let within = Elapsed::days(1).after(after);
        let policy = self.series.policy;
        if policy.removed.is_some() {
            return within;
        }
        let slot = policy.schedule.next_slot(self.offset.before(after));
        slot.map_or(within, |slot| self.offset.after(slot.instant()).min(within))
    }
}

/// When the hold by a label ends: now where there is none, `None` where it has no end.
fn label_end(point: &SeriesPoint<'_>, now: Timestamp) -> Option<Timestamp> {
    if !point.image.is_held(now) {
        return Some(now);
    }
    let text = point.image.labels.get(LABEL_HOLD)?;
    text.strip_prefix("until-").and_then(parse_stamp)
}
