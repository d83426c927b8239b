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
/// So many missed slots are counted one by one.
pub const MISSED_MAX: usize = 10_000;

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

/// Slots in a row without a restore point, whose deadlines have passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissedSlots {
    /// The oldest of them.
    pub first: Slot,
    /// The newest of them.
    pub last: Slot,
    /// How many there are; [`MISSED_MAX`] stands for that many or more.
    pub count: usize,
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

    /// Slots after the newest point that have no point and can have none any more: reported, never
    /// filled.
    pub(super) fn missed(
        &self,
        schedule: &Schedule,
        due: &Due,
        images: &[(Key, &Image)],
    ) -> Option<MissedSlots> {
        let (due_slot, is_missed) = match due {
            Due::Create { slot, .. } | Due::Paused { slot } => (*slot, false),
            Due::Missed { slot, .. } => (*slot, true),
            Due::Done | Due::Nothing => return None,
        };
        let itself = is_missed.then_some(MissedSlots { first: due_slot, last: due_slot, count: 1 });
        let newest = images
            .iter()
            .filter(|(key, image)| key.slot < due_slot && image.state != ImageState::Failed)
            .map(|(key, _)| key.slot)
            .max();
        // A new series has missed nothing.
        let Some(newest) = newest else {
            return itself.filter(|_| !images.is_empty());
        };
        let is_before = |slot: &Slot| *slot > newest && *slot < due_slot;
        let reaches_back = self.past.iter().any(|(slot, _)| *slot <= newest);
        let before: Vec<Slot> = if reaches_back {
            self.past.iter().rev().map(|(slot, _)| *slot).filter(is_before).collect()
        } else {
            let slots = schedule.slots(newest.instant(), due_slot.instant());
            slots.filter(is_before).take(MISSED_MAX - 1).collect()
        };
        let last = self.past.iter().map(|(slot, _)| *slot).find(is_before);
        let (Some(first), Some(last)) = (before.first(), last) else { return itself };
        Some(match itself {
            Some(itself) => MissedSlots { first: *first, count: before.len() + 1, ..itself },
            None => MissedSlots { first: *first, last, count: before.len() },
        })
    }
}

/// How long after a slot its capture begins: the jitter of this source.
pub(super) fn start_of(policy: &Policy, source: &SourceId) -> Elapsed {
    let jitter = policy.schedule.jitter.as_seconds().unsigned_abs();
    Elapsed::seconds(i64::try_from(spread(&policy.name, source, jitter)).unwrap_or(0))
}
