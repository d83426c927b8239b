//! What a simulation adds up and says beside its days.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::peak::Numbers;
use super::series::{MissedBefore, World};
use super::track::{Event, Happening, PolicyTrack, Totals, Track};
use super::waiting::Refusals;
use super::{Options, Turn};
use crate::cost::{Amount, Prices};
use crate::inventory::Inventory;
use crate::plan::guard::Guard;
use crate::policy::sizes::INCREMENT_PERCENT;
use crate::policy::{Policies, Policy};

/// Something that happened to a series. Who collects events knows the engine.
fn event(world: &World<'_>, at: Timestamp, what: Happening) -> Event {
    Event {
        at,
        engine: String::new(),
        policy: Some(world.policy.name.clone()),
        source: Some(world.source.clone()),
        what,
    }
}

/// Counts what a decision says beside its changes.
pub(super) fn account(
    world: &mut World<'_>,
    turn: &Turn,
    refusals: &Refusals,
    start: Timestamp,
    now: Timestamp,
    events: &mut Vec<Event>,
) {
    let Turn { decision, is_ready, .. } = turn;
    if let Some((first, slot, count)) = decision.missed {
        let known = world.missed.filter(|before| before.first == first);
        let new = count.saturating_sub(known.map_or(0, |before| before.count));
        world.missed = Some(MissedBefore { first, count });
        // What was missed before the simulation began is no part of it.
        if new > 0 && slot.instant() >= start {
            world.totals.missed += new as u64;
            events.push(event(world, now, Happening::Missed { slot, slots: new }));
        }
    }
    never_ready(world, turn, now, events);
    if let Some(message) = &decision.blocked {
        if world.totals.blocked == 0 {
            events.push(event(world, now, Happening::Blocked { message: message.clone() }));
        }
        world.totals.blocked += 1;
    }
    if decision.stalled && !world.stalled {
        world.totals.stalls += 1;
        events.push(event(world, now, Happening::Stalled));
    }
    world.stalled = decision.stalled;
    let mut refused: BTreeMap<Guard, usize> = BTreeMap::new();
    let (ready, failed) = world.waiting(decision);
    let deletes = decision.deletes.iter();
    let deletes = deletes.map(|removal| (refusals.of(removal), removal.holds_data(), 1));
    let waiting = [(true, ready), (false, failed)];
    let waiting = waiting
        .map(|(holds_data, images)| (refusals.of_waiting(holds_data), holds_data, images))
        .into_iter()
        .filter(|(_, _, images)| *images > 0);
    for (guard, holds_data, images) in deletes.chain(waiting) {
        match guard {
            Some(guard) => *refused.entry(guard).or_default() += images,
            None if refusals.engine.covers(holds_data) => world.totals.refused += images as u64,
            None => {}
        }
    }
    for (guard, images) in refused {
        if world.refused_before.insert(guard) {
            events.push(event(world, now, Happening::Refused { guard, images }));
        }
        world.totals.refused += images as u64;
    }
    if let (Some(creation), false) = (&decision.creation, *is_ready) {
        events.push(event(world, now, Happening::Failed { slot: creation.slot }));
    }
}

/// A plan counts missed slots from the newest restore point on, so of a series that only has failed
/// attempts it counts none: there a slot is missed once a newer one is attempted.
fn never_ready(world: &mut World<'_>, turn: &Turn, now: Timestamp, events: &mut Vec<Event>) {
    if let Some((_, last, _)) = turn.decision.missed {
        world.attempted = world.attempted.filter(|slot| *slot > last);
    }
    let Some(creation) = &turn.decision.creation else { return };
    if let Some(slot) = world.attempted.take_if(|slot| *slot < creation.slot) {
        world.totals.missed += 1;
        events.push(event(world, now, Happening::Missed { slot, slots: 1 }));
    }
    let is_first = !turn.is_ready && world.has_only_failed();
    world.attempted = is_first.then_some(creation.slot);
}

/// The sums over the series of a policy.
pub(super) fn policy_track(
    policy: &Policy,
    worlds: &[&World<'_>],
    peak: Numbers,
    prices: Option<&Prices>,
    days: u32,
) -> PolicyTrack {
    let mut track = Track::default();
    for day in 0..=days as usize {
        let sum = |figures: fn(&Track) -> &Vec<u64>| -> u64 {
            worlds.iter().filter_map(|world| figures(&world.track).get(day)).sum()
        };
        let oldest = |figures: fn(&Track) -> &Vec<Option<i64>>| -> Option<i64> {
            worlds.iter().filter_map(|world| figures(&world.track).get(day).copied()?).max()
        };
        track.ready.push(sum(|track| &track.ready));
        track.deprecated.push(sum(|track| &track.deprecated));
        track.copies.push(sum(|track| &track.copies));
        track.stored_bytes.push(sum(|track| &track.stored_bytes));
        track.uncounted.push(sum(|track| &track.uncounted));
        track.images.push(sum(|track| &track.images));
        track.oldest_seconds.push(oldest(|track| &track.oldest_seconds));
        track.newest_seconds.push(oldest(|track| &track.newest_seconds));
        if prices.is_some() {
            track.cost_micros.push(sum(|track| &track.cost_micros));
        }
    }
    let has_sets = worlds.iter().any(|world| world.has_sets());
    track.forget_none(has_sets);
    let mut totals = Totals::default();
    for world in worlds {
        totals.add(&world.totals);
    }
    totals.peak_ready = peak.ready;
    totals.peak_images = peak.images;
    totals.forget_none(has_sets);
    let amount = worlds.iter().fold(Amount::default(), |sum, world| sum.plus(world.amount()));
    PolicyTrack {
        policy: policy.name.clone(),
        engine: policy.engine.clone(),
        removed: policy.removed.clone(),
        sources: worlds.len(),
        track,
        totals,
        cost_at_end: prices.map(|prices| prices.money(amount)),
    }
}

/// What was taken for granted.
pub(super) fn assumptions(
    policies: &Policies,
    inventory: &Inventory,
    options: &Options,
) -> Vec<String> {
    let mut texts = vec![
        "sources stay as they are; nobody adds, removes or relabels one".to_owned(),
        format!(
            "a restore point stores what the earlier ones of its source did (the median); without any, the first stores its disks whole and each later one {INCREMENT_PERCENT} % of that"
        ),
        "what the oldest restore point holds beyond an ordinary one is shared by the later ones and stays when it goes".to_owned(),
    ];
    if inventory.engines.iter().any(|one| one.capabilities.limits.quotas().next().is_some()) {
        texts.push("no quota refuses anything; how much of each is taken is shown".to_owned());
    }
    if options.fail_rate.0 > 0 {
        texts.push(
            "a capture that fails is tried again at the next look within its deadline".to_owned(),
        );
    }
    if policies.all().any(|policy| !policy.copies.is_empty()) {
        texts.push("a copy stores what its original does, the first of a location what the first restore point of its source does; copies never fail".to_owned());
    }
    if policies.all().any(|policy| policy.drill.is_some()) {
        texts.push("every drill succeeds".to_owned());
    }
    for engine in inventory.engines.iter().filter(|engine| !engine.is_complete()) {
        texts.push(format!(
            "{} was not seen whole: what was seen is taken for all there is; in truth nothing of it is deleted before it is seen whole",
            engine.name
        ));
    }
    texts
}
