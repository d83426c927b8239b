//! What an import must not cost, asked of the planner: with the image and without it.

use super::{COMING, Desk, ImportError, refused};
use crate::inventory::ImageState;
use crate::name::{Key, Ownership, Slot};
use crate::plan::going::{Goes, Going, going, held_back};
use crate::plan::{Action, Plan};

/// So many slots before the time of an image are looked at for one that can still be captured.
const SLOTS_LOOKED_AT: usize = 64;

impl Desk<'_> {
    /// Refuses what the next plan would let go of, and that for which it would let go of something else
    /// or leave out a capture. Stages by age are no loss; a failed attempt is nothing to lose.
    pub(super) fn refuse_costs(
        &self,
        before: &Plan,
        after: &Plan,
        key: &Key,
    ) -> Result<(), ImportError> {
        let (goes, held) = (going(after, self.engine), held_back(after, self.engine));
        if let Some(Goes { why, .. }) = goes.get(COMING).or_else(|| held.get(COMING)) {
            return refused(format!(
                "the next plan would let go of it: {why}. A rule of {} must keep a restore point of {}",
                self.policy.name, key.slot
            ));
        }
        let (went, was_held) = (going(before, self.engine), held_back(before, self.engine));
        let is_new =
            |id: &str, known: [&Going<'_>; 2]| !known.iter().any(|one| one.contains_key(id));
        let new = goes.iter().filter(|(id, _)| is_new(id, [&went, &Going::new()]));
        let new = new.chain(held.iter().filter(|(id, _)| is_new(id, [&went, &was_held])));
        let new: Vec<_> = new.map(|(_, going)| going).collect();
        if let Some(Goes { name, why, .. }) = new.first() {
            let more = match new.len() {
                1 => String::new(),
                count => format!(" and {} more", count - 1),
            };
            return refused(format!(
                "with it, the next plan would let go of {name}{more}, which it keeps now ({why}); widen the retention, hold what is to stay, or let the policy let go of it first"
            ));
        }
        refuse_lost_capture(before, after, key)
    }

    /// Refuses what would stand for a slot of a source that is there and can still be captured: also one
    /// that begins later, because of its jitter, a pause, or what is in its way.
    pub(super) fn refuse_open_slot(&self, key: &Key) -> Result<(), ImportError> {
        let (schedule, now) = (&self.policy.schedule, self.now);
        let stands_for = |slot: Slot| {
            self.engine.images.iter().any(|image| match image.ownership() {
                Ownership::Ours(other) if other.source == key.source && !image.is_copy() => {
                    let keeper = self.policies.keeper(&other.policy);
                    let is_ours = keeper.is_some_and(|keeper| keeper.name == key.policy);
                    let is_this = other.slot == slot && !image.state.is_failed_attempt();
                    let is_newer = other.slot > slot && image.state == ImageState::Ready;
                    is_ours && !image.is_step() && (is_this || is_newer)
                }
                _ => false,
            })
        };
        let slots = schedule.last_slots(key.slot.instant(), SLOTS_LOOKED_AT);
        let open = slots.into_iter().find(|slot| {
            let deadline = schedule.deadline_of(*slot);
            deadline >= now && !self.policy.is_blacked_out(*slot, deadline) && !stands_for(*slot)
        });
        match open {
            Some(open) => refused(format!(
                "with it, the capture of {open} would not be made, which may begin until {}: {} would stand for it. `stillframe apply` first, or import it after that",
                schedule.deadline_of(open),
                key.slot
            )),
            None => Ok(()),
        }
    }
}

/// The image must not stand for a slot that is about to be captured, or be newer than that.
fn refuse_lost_capture(before: &Plan, after: &Plan, key: &Key) -> Result<(), ImportError> {
    let keys = |plan: &Plan| -> Vec<Key> {
        let creates = plan.changes.iter().filter(|change| change.action == Action::Create);
        let creates = creates.map(|change| change.key.clone());
        creates.chain(plan.waiting.iter().map(|waiting| waiting.key.clone())).collect()
    };
    let still = keys(after);
    let lost = keys(before).into_iter().find(|other| !still.contains(other));
    match lost {
        Some(lost) if lost.series() == key.series() => refused(format!(
            "with it, the capture of {} that is due would not be made: {} does not stand for that. `stillframe apply` first",
            lost.slot, key.slot
        )),
        Some(lost) => refused(format!("with it, the capture of {} would not be made", lost.slot)),
        None => Ok(()),
    }
}
