//! Which slot is due.

use jiff::Timestamp;

use super::source::{Presence, SourceState};
use crate::elapsed::Elapsed;
use crate::inventory::{Image, ImageState};
use crate::name::{Key, Slot, SourceId, spread};
use crate::policy::Policy;
use crate::retention::CLOCK_SKEW;
use crate::schedule::Schedule;

/// How many past slots of a policy are looked at.
const PAST_SLOTS: usize = 8;

/// What is due of a series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// A restore point is to be made.
    Create {
        /// The slot it stands for.
        slot: Slot,
        /// Until when it may begin.
        deadline: Timestamp,
        /// The failed attempt whose name it takes: its image id.
        replaces: Option<String>,
    },
    /// The newest due slot has its point, or it is being made.
    Done,
    /// The newest due slot has no point and its deadline has passed.
    Missed {
        /// The slot.
        slot: Slot,
        /// When its deadline passed.
        deadline: Timestamp,
    },
    /// The policy makes no restore points at present, though one would be due.
    Paused {
        /// The slot.
        slot: Slot,
    },
    /// No slot has come yet, or nothing can be due.
    Nothing,
}

/// The past slots of a policy, with their deadlines, the newest first.
#[derive(Debug, Clone)]
pub struct Slots {
    past: Vec<(Slot, Timestamp)>,
}

impl Slots {
    /// The slots of a schedule up to `now`.
    pub fn new(schedule: &Schedule, now: Timestamp) -> Self {
        let past = schedule.last_slots(now, PAST_SLOTS);
        Self { past: past.into_iter().map(|slot| (slot, schedule.deadline_of(slot))).collect() }
    }

    /// Slots before `now`, the newest first.
    pub(super) fn strictly_before(&self, now: Timestamp) -> impl Iterator<Item = Slot> + '_ {
        self.past.iter().map(|(slot, _)| *slot).filter(move |slot| slot.instant() < now)
    }

    /// What is due of one series.
    pub(super) fn due(
        &self,
        policy: &Policy,
        source: &SourceId,
        state: &SourceState<'_>,
        images: &[(Key, &Image)],
        now: Timestamp,
    ) -> Due {
        if !matches!(state.presence, Presence::Present(_)) {
            return Due::Nothing;
        }
        let start = start_of(policy, source);
        let Some((slot, deadline)) =
            self.past.iter().copied().find(|(slot, _)| start.after(slot.instant()) <= now)
        else {
            return Due::Nothing;
        };
        let horizon = CLOCK_SKEW.after(now);
        let is_done = images.iter().any(|(key, image)| {
            let is_this = key.slot == slot && image.state != ImageState::Failed;
            // After the schedule was changed, a newer point may stand for a slot it had before.
            let is_newer = key.slot > slot
                && key.slot.instant() <= horizon
                && image.state == ImageState::Ready;
            is_this || is_newer
        });
        if is_done {
            return Due::Done;
        }
        if now > deadline {
            return Due::Missed { slot, deadline };
        }
        if !policy.creates_at(now) {
            return Due::Paused { slot };
        }
        let failed = images.iter().find(|(key, _)| key.slot == slot);
        Due::Create { slot, deadline, replaces: failed.map(|(_, image)| image.id.clone()) }
    }

    /// Slots between the newest point and the due slot that have no point: reported, never filled.
    pub(super) fn missed(&self, due: &Due, images: &[(Key, &Image)]) -> Vec<Slot> {
        let due_slot = match due {
            Due::Create { slot, .. } | Due::Missed { slot, .. } | Due::Paused { slot } => *slot,
            Due::Done | Due::Nothing => return Vec::new(),
        };
        let newest = images
            .iter()
            .filter(|(key, image)| key.slot < due_slot && image.state != ImageState::Failed)
            .map(|(key, _)| key.slot)
            .max();
        // A new series has missed nothing.
        let Some(newest) = newest else {
            return Vec::new();
        };
        let mut missed: Vec<Slot> = self
            .past
            .iter()
            .map(|(slot, _)| *slot)
            .filter(|slot| *slot > newest && *slot < due_slot)
            .collect();
        missed.reverse();
        missed
    }
}

/// How long after a slot its capture begins: the jitter of this source.
pub(super) fn start_of(policy: &Policy, source: &SourceId) -> Elapsed {
    let jitter = policy.schedule.jitter.as_seconds().unsigned_abs();
    Elapsed::seconds(i64::try_from(spread(&policy.name, source, jitter)).unwrap_or(0))
}
