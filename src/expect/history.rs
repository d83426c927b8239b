//! Restore points that a schedule has made: round by round with the planner and the guards, or
//! plainly one for each slot.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::case::{History, Source};
use super::world::{Attempt, NewImage, World};
use super::written::How;
use crate::elapsed::Elapsed;
use crate::inventory::ImageState;
use crate::name::{Key, PolicyName, Slot};
use crate::plan::guard::{guard, withheld};
use crate::plan::{Action, Change, plan};
use crate::policy::{Policies, Policy};

/// A history of more slots than this is more than a test can mean.
const SLOTS_MAX: usize = 20_000;
/// Where slots are further apart, a round is made at least so often: graces pass between slots too.
const ROUND: Elapsed = Elapsed::days(1);

/// A history with its policy and the sources it is of.
pub(super) struct Stretch<'a> {
    pub(super) history: &'a History,
    pub(super) policy: &'a Policy,
    pub(super) engine: &'a str,
    pub(super) sources: Vec<Source>,
    slots: Vec<Slot>,
}

impl<'a> Stretch<'a> {
    /// What is wrong with it, where something is: the key it stands under and the message.
    pub(super) fn new(
        history: &'a History,
        policy: &'a Policy,
        sources: Vec<Source>,
    ) -> Result<Self, Vec<(&'static str, String)>> {
        let slots = policy.schedule.slots(history.from, history.until).take(SLOTS_MAX + 1);
        let slots: Vec<Slot> = slots.collect();
        let name = &policy.name;
        if slots.is_empty() {
            return Err(vec![("from", format!("no slot of {name} lies in this time"))]);
        }
        if slots.len() > SLOTS_MAX {
            return Err(vec![(
                "from",
                format!("over {SLOTS_MAX} slots of {name} lie in this time"),
            )]);
        }
        let mut idle = Vec::new();
        for (key, patterns) in [("missing", &history.missing), ("failed", &history.failed)] {
            for pattern in patterns {
                if !slots.iter().any(|slot| pattern.matches(*slot)) {
                    let message = format!("no slot of {name} in this time is `{}`", pattern.text);
                    idle.push((key, message));
                }
            }
        }
        if !idle.is_empty() {
            return Err(idle);
        }
        Ok(Self { history, policy, engine: &policy.engine, sources, slots })
    }

    fn attempt(&self, slot: Slot) -> Attempt {
        if self.history.missing.iter().any(|pattern| pattern.matches(slot)) {
            Attempt::IsNotMade
        } else if self.history.failed.iter().any(|pattern| pattern.matches(slot)) {
            Attempt::Fails
        } else {
            Attempt::Succeeds
        }
    }

    /// Whether a change belongs to it, at the instant of a round.
    fn covers(&self, change: &Change, owner: &PolicyName, now: Timestamp) -> bool {
        self.history.from <= now
            && now < self.history.until
            && *owner == self.policy.name
            && change.engine == self.engine
            && self.sources.iter().any(|source| source.id == change.key.source)
    }

    /// A READY image for each slot, where the source was there.
    fn plain(&self, world: &mut World) {
        for slot in &self.slots {
            let state = match self.attempt(*slot) {
                Attempt::Succeeds => ImageState::Ready,
                Attempt::Fails => ImageState::Failed,
                Attempt::IsNotMade => continue,
            };
            let was_there = |source: &&Source| source.gone.is_none_or(|gone| slot.instant() < gone);
            for source in self.sources.iter().filter(was_there) {
                let key = Key {
                    policy: self.policy.name.clone(),
                    source: source.id.clone(),
                    slot: *slot,
                };
                let new = NewImage {
                    engine: self.engine,
                    key: &key,
                    policy: self.policy,
                    created_at: slot.instant(),
                    state,
                    location: None,
                    copy: false,
                };
                world.add(&new, |_| {});
            }
        }
    }

    /// The instants of its rounds: each slot, once the jitter of all sources has passed, and every
    /// day.
    fn rounds(&self) -> BTreeSet<Timestamp> {
        let (from, until) = (self.history.from, self.history.until);
        let jitter = self.policy.schedule.jitter;
        let mut rounds: BTreeSet<Timestamp> =
            self.slots.iter().map(|slot| jitter.after(slot.instant())).collect();
        let mut last = from;
        for at in rounds.clone().into_iter().chain([until]) {
            while ROUND.after(last) < at {
                last = ROUND.after(last);
                rounds.insert(last);
            }
            last = at;
        }
        rounds.retain(|at| *at < until);
        rounds
    }
}

/// Carries out histories in a world.
pub(super) fn carry_out(stretches: &[Stretch<'_>], policies: &Policies, world: &mut World) {
    let (plain, planned): (Vec<_>, Vec<_>) =
        stretches.iter().partition(|stretch| stretch.history.how == How::Plain);
    for stretch in &plain {
        stretch.plain(world);
    }
    // What other policies would do is no part of it, and costs time.
    let concerned: BTreeSet<&PolicyName> =
        stretches.iter().map(|stretch| &stretch.policy.name).collect();
    let mut policies = policies.clone();
    policies.policies.retain(|policy| concerned.contains(&policy.name));
    policies.removed.retain(|policy| concerned.contains(&policy.name));
    let rounds: BTreeSet<Timestamp> = planned.iter().flat_map(|one| one.rounds()).collect();
    // Copies are made of what is READY: they come with the round after.
    let copies = planned.iter().any(|stretch| !stretch.policy.copies.is_empty());
    for now in rounds {
        round(&planned, &policies, world, now);
        if copies {
            round(&planned, &policies, world, now);
        }
    }
}

/// One round: what guards refuse is withheld, the rest of each stretch is carried out.
fn round(stretches: &[&Stretch<'_>], policies: &Policies, world: &mut World, now: Timestamp) {
    let inventory = world.at(now);
    let plan = plan(policies, inventory, now);
    if plan.changes.is_empty() {
        return;
    }
    let refusals = guard(&plan, inventory, policies, &[], now);
    let withheld = withheld(&refusals);
    let owners: BTreeMap<&PolicyName, &PolicyName> = plan
        .changes
        .iter()
        .filter_map(|change| Some((&change.key.policy, &policies.keeper(&change.key.policy)?.name)))
        .collect();
    for change in &plan.changes {
        let Some(owner) = owners.get(&change.key.policy) else { continue };
        let Some(stretch) = stretches.iter().find(|one| one.covers(change, owner, now)) else {
            continue;
        };
        let replaced = change.create.as_ref().and_then(|create| create.replaces.as_ref());
        let taken = if change.action == Action::Delete { Some(&change.image) } else { replaced };
        let id = taken.and_then(|image| image.id.as_deref());
        if id.is_some_and(|id| withheld.contains(&(change.engine.as_str(), id))) {
            continue;
        }
        let attempt = match change.action {
            Action::Create => stretch.attempt(change.key.slot),
            _ => Attempt::Succeeds,
        };
        world.carry_out(change, policies, attempt, now);
    }
}
