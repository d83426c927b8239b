//! What guards refuse of one series, and points whose delete they refuse round after round.
//!
//! Nothing decides whether such a point goes but the guards and what keeps the whole series: no rule
//! keeps it again, and it takes no place of another (laws 3, 8 and 13). So it is put aside, and
//! planned again when a guard lets it go. A round costs what moves, not what waits, and series whose
//! other points are the same are in the same state again.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::decision::{Decision, Removal};
use super::series::{Point, Step, World};
use crate::inventory::{LABEL_IMPORTED, LABEL_LET_GO, LABEL_STAGE, LABEL_STAGED};
use crate::name::{LABEL_KEY, LABEL_POLICY, LABEL_PREFIX, LABEL_SLOT, LABEL_SOURCE, Slot};
use crate::plan::guard::{Guard, is_over};
use crate::policy::Risk;
use crate::policy::meant::Guards;
use crate::retention::CLOCK_SKEW;

/// What the guards of an engine refuse in a round.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct EngineRefusal {
    /// All deletes.
    pub(super) all: bool,
    /// Deletes of what holds data.
    pub(super) data: bool,
}

impl EngineRefusal {
    /// Whether a delete is refused.
    pub(super) fn covers(self, holds_data: bool) -> bool {
        self.all || (self.data && holds_data)
    }
}

/// What guards refuse of one series in a round.
#[derive(Debug, Clone, Default)]
pub(super) struct Refusals {
    pub(super) engine: EngineRefusal,
    /// The locations of copies, or none for the originals, of which too large a share would go.
    over_share: Vec<Option<String>>,
}

impl Refusals {
    /// The guard of single series that refuses a delete.
    pub(super) fn of(&self, removal: &Removal) -> Option<Guard> {
        let is_over = removal.holds_data() && self.over_share.contains(&removal.location);
        let risk = removal.is_risky.then_some(Guard::RiskClass);
        if is_over { Some(Guard::SeriesShare) } else { risk }
    }

    /// The same for what waits.
    pub(super) fn of_waiting(&self, is_ready: bool) -> Option<Guard> {
        (is_ready && self.over_share.contains(&None)).then_some(Guard::SeriesShare)
    }

    fn lets_go(&self, removal: &Removal) -> bool {
        self.of(removal).is_none() && !self.engine.covers(removal.holds_data())
    }
}

/// Points that were put aside.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    points: Vec<Point>,
    /// How many of them are READY.
    pub(super) ready: usize,
    /// The oldest of those.
    pub(super) oldest: Option<Slot>,
}

impl Waiting {
    pub(super) fn failed(&self) -> usize {
        self.points.len() - self.ready
    }

    fn add(&mut self, point: Point) {
        if point.is_ready() {
            let slot = point.key.slot;
            self.ready += 1;
            self.oldest = Some(self.oldest.map_or(slot, |oldest| oldest.min(slot)));
        }
        self.points.push(point);
    }
}

impl World<'_> {
    /// Whether what guards refuse may be put aside. A guard that refuses a class asks of each point
    /// which it is; copies, drills and grants look at more points than those that rules keep.
    fn puts_aside(&self, guards: &Guards) -> bool {
        let policy = self.policy;
        guards.refuse.iter().all(|risk| *risk == Risk::LastPoint)
            && policy.copies.is_empty()
            && policy.drill.is_none()
            && policy.sharing.is_none()
    }

    /// How many points wait, READY and failed ones, to be deleted in this round.
    pub(super) fn waiting(&self, decision: &Decision) -> (usize, usize) {
        if decision.is_free { (self.waiting.ready, self.waiting.failed()) } else { (0, 0) }
    }

    /// What guards refuse, before the captures of this round or after them.
    pub(super) fn refusals(
        &self,
        decision: &Decision,
        is_ready: bool,
        engine: EngineRefusal,
        guards: &Guards,
        now: Timestamp,
    ) -> Refusals {
        // How many go, and how many of these are no READY points.
        let mut deletes: BTreeMap<Option<&str>, (usize, usize)> = BTreeMap::new();
        for removal in decision.deletes.iter().filter(|removal| removal.holds_data()) {
            let (all, parts) = deletes.entry(removal.location.as_deref()).or_default();
            *all += 1;
            *parts += usize::from(removal.is_remainder());
        }
        let (waiting, _) = self.waiting(decision);
        if waiting > 0 {
            deletes.entry(None).or_default().0 += waiting;
        }
        let horizon = CLOCK_SKEW.after(now);
        let over = |location: Option<&str>, (deletes, parts): (usize, usize)| {
            let is_of = |point: &&Point| {
                point.is_ready()
                    && point.copied_to() == location
                    && point.key.slot.instant() <= horizon
            };
            let aside = if location.is_none() { self.waiting.ready } else { 0 };
            let before = self.points.iter().filter(is_of).count() + aside + parts;
            let made = match location {
                None => usize::from(is_ready),
                Some(_) => decision
                    .copied(is_ready)
                    .filter(|copy| Some(copy.location.as_str()) == location)
                    .count(),
            };
            is_over(guards.series_percent, deletes, before)
                || is_over(guards.series_percent, deletes, before + made)
        };
        let over_share = deletes
            .into_iter()
            .filter(|(location, deletes)| over(*location, *deletes))
            .map(|(location, _)| location.map(str::to_owned))
            .collect();
        Refusals { engine, over_share }
    }

    /// Whether guards let go of something that was put aside.
    pub(super) fn goes(&self, decision: &Decision, refusals: &Refusals) -> bool {
        let lets_go =
            |is_ready| refusals.of_waiting(is_ready).is_none() && !refusals.engine.covers(is_ready);
        let (ready, failed) = self.waiting(decision);
        (ready > 0 && lets_go(true)) || (failed > 0 && lets_go(false))
    }

    /// What becomes of the points that are to go, by their positions, the newest first. Those whose
    /// delete was refused are put aside where nothing but that keeps them.
    pub(super) fn sort_out(
        &self,
        replaced: impl Iterator<Item = usize>,
        decision: &Decision,
        refusals: &Refusals,
        step: &Step<'_>,
    ) -> Vec<(usize, Fate)> {
        let newest = self.newest_ready(step.now);
        let puts_aside = self.puts_aside(step.guards);
        let fate = |removal: &Removal| {
            if refusals.lets_go(removal) {
                return Some(Fate::Deleted);
            }
            let point = &self.points[removal.index];
            // What is left of a set may go in a way that no READY point does, and there is never more of it.
            let waits = puts_aside
                && !point.image.is_copy()
                && !removal.is_remainder()
                && newest.is_some_and(|newest| point.key.slot < newest)
                && point.image.labels.keys().all(|label| is_of_deleting(label));
            waits.then_some(Fate::Waits)
        };
        let deletes = decision.deletes.iter();
        let mut moved: Vec<(usize, Fate)> =
            deletes.filter_map(|removal| Some((removal.index, fate(removal)?))).collect();
        moved.extend(replaced.map(|index| (index, Fate::Replaced)));
        moved.sort_unstable_by_key(|(index, _)| std::cmp::Reverse(*index));
        moved
    }

    /// Puts a point aside.
    pub(super) fn put_aside(&mut self, index: usize) {
        let point = self.points.remove(index);
        self.seen = self.seen.wrapping_sub(point.hash);
        self.waiting.add(point);
    }

    /// Takes back what was put aside.
    pub(super) fn take_back(&mut self) {
        for point in std::mem::take(&mut self.waiting).points {
            self.seen = self.seen.wrapping_add(point.hash);
            self.points.push(point);
        }
        self.points.sort_by(|one, other| {
            (one.key.slot, &one.image.id).cmp(&(other.key.slot, &other.image.id))
        });
    }
}

/// What becomes of a point that was to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is deleted.
    Deleted,
    /// It makes room.
    Replaced,
    /// It is put aside.
    Waits,
}

/// Whether a label says nothing but whose a point is, where it came from and that it goes.
fn is_of_deleting(label: &str) -> bool {
    const KNOWN: [&str; 8] = [
        LABEL_IMPORTED,
        LABEL_POLICY,
        LABEL_SOURCE,
        LABEL_SLOT,
        LABEL_KEY,
        LABEL_LET_GO,
        LABEL_STAGE,
        LABEL_STAGED,
    ];
    !label.starts_with(LABEL_PREFIX) || KNOWN.contains(&label)
}
