//! Which slot is due.

use jiff::Timestamp;

use std::sync::Arc;

use super::source::{Presence, SourceState};
use crate::elapsed::Elapsed;
use crate::inventory::{Consistency, Image, ImageState};
use crate::name::{Key, Slot, SourceId, spread};
use crate::policy::Policy;
use crate::policy::meant::Pause;
use crate::retention::CLOCK_SKEW;
use crate::schedule::Firings;

/// How many past slots of a policy are looked at.
const PAST_SLOTS: usize = 8;
/// So many are looked at that may be blacked out: a year of every five minutes.
const BLACKED_OUT_MAX: usize = 100_000;
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

/// So far back the last firing of a drill is looked for.
const DRILL_REACH: Elapsed = Elapsed::days(400);

/// What the time says about a policy, the same for all of its sources.
#[derive(Debug, Clone)]
pub struct Slots {
    /// Its past slots with their deadlines, the newest first.
    past: Vec<(Slot, Timestamp)>,
    /// Whether all that matter were looked at.
    is_whole: bool,
    pauses: Arc<[Pause]>,
    drill: Option<Timestamp>,
}

impl Slots {
    /// What the time says about a policy at `now`. Slots that blackouts leave no time for are none.
    pub fn new(policy: &Policy, now: Timestamp) -> Self {
        let schedule = &policy.schedule;
        let mut past = Vec::with_capacity(PAST_SLOTS);
        let mut before = now;
        let mut is_whole = false;
        for _ in 0..BLACKED_OUT_MAX {
            let Some(slot) = schedule.last_slot(before).filter(|_| past.len() < PAST_SLOTS) else {
                is_whole = true;
                break;
            };
            let deadline = schedule.deadline_of(slot);
            if !policy.is_blacked_out(slot, deadline) {
                past.push((slot, deadline));
            }
            before = Elapsed::seconds(1).before(slot.instant());
        }
        let drill = policy.drill.as_ref().and_then(|drill| {
            let (from, until) = (DRILL_REACH.before(now), Elapsed::seconds(1).after(now));
            let last = |crontab| Firings::new(crontab, &schedule.zone, from, until).last();
            drill.crontabs.iter().filter_map(last).max()
        });
        Self { past, is_whole, pauses: policy.pauses_at(now).into(), drill }
    }

    /// What the policy does not do.
    pub(super) fn pauses(&self) -> Arc<[Pause]> {
        Arc::clone(&self.pauses)
    }

    /// When its drill fired last.
    pub(super) fn drill(&self) -> Option<Timestamp> {
        self.drill
    }

    /// Whether a series has had no restore point since `newest` for so many slots before `now`. Where
    /// blackouts leave more out than is looked at, nobody knows and it has not.
    pub(super) fn have_passed(&self, count: usize, newest: Slot, now: Timestamp) -> bool {
        let mut before = self.past.iter().filter(|(slot, _)| slot.instant() < now);
        before.nth(count - 1).map_or(!self.is_whole, |(slot, _)| newest < *slot)
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
            // What is begun is made by who makes it again under the same key. Of a machine that stood still
            // for it only that run knows, and it is not there any more once that has gone on.
            let can_go_on = policy.capture.consistency != Consistency::Stopped;
            let is_open =
                image.state == ImageState::Begun && key.policy == policy.name && can_go_on;
            let is_this = key.slot == slot && !image.state.is_failed_attempt() && !is_open;
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
        if self.pauses.iter().any(|pause| pause.creates) {
            return Due::Paused { slot };
        }
        // An attempt under a name that the policy had is no attempt at this key.
        let is_it = |(key, image): &&(Key, &Image)| {
            key.slot == slot && key.policy == policy.name && image.state.is_failed_attempt()
        };
        let failed = images.iter().find(is_it);
        Due::Create { slot, deadline, replaces: failed.map(|(_, image)| image.id.clone()) }
    }

    /// Slots after the newest point that have no point and can have none any more: reported, never
    /// filled.
    pub(super) fn missed(
        &self,
        policy: &Policy,
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
            .filter(|(key, image)| key.slot < due_slot && !image.state.is_failed_attempt())
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
            let schedule = &policy.schedule;
            let slots = schedule.slots(newest.instant(), due_slot.instant());
            let is_meant = |slot: &Slot| !policy.is_blacked_out(*slot, schedule.deadline_of(*slot));
            slots.filter(is_before).filter(is_meant).take(MISSED_MAX - 1).collect()
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
pub fn start_of(policy: &Policy, source: &SourceId) -> Elapsed {
    let jitter = policy.schedule.jitter.as_seconds().unsigned_abs();
    Elapsed::seconds(i64::try_from(spread(&policy.name, source, jitter)).unwrap_or(0))
}
