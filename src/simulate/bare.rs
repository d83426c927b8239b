//! What deciding needs to know of an engine beside the series that is decided on.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::decision::Decision;
use super::series::World;
use crate::desired::EngineDesired;
use crate::inventory::{EngineInventory, Image, ImageState};
use crate::name::{Key, Ownership, Slot};
use crate::policy::Policies;
use crate::retention::CLOCK_SKEW;

/// An engine without what belongs to series.
#[derive(Debug)]
pub(super) struct Bare<'a> {
    /// Without its instances and images, seen whole.
    pub(super) engine: EngineInventory,
    /// Names of images that belong to no series and could stand in the way of a restore point.
    pub(super) names: BTreeSet<&'a str>,
    /// The slots of READY images of policies that there are, but on another engine: guards count
    /// them.
    strays: Vec<Slot>,
}

impl<'a> Bare<'a> {
    pub(super) fn new(found: &EngineDesired<'a>, policies: &Policies) -> Self {
        let engine = found.engine;
        let of_series: BTreeSet<&str> = found
            .series
            .iter()
            .flat_map(|series| series.points.iter().chain(&series.copies))
            .map(|point| point.image.id.as_str())
            .collect();
        let others = engine.images.iter().filter(|image| !of_series.contains(image.id.as_str()));
        let names = others.filter(|image| is_like_ours(image)).map(|image| image.name.as_str());
        let is_stray = |image: &&Image| image.state == ImageState::Ready;
        let strays = found
            .orphans
            .iter()
            .filter(|(policy, _)| policies.keeper(policy).is_some())
            .flat_map(|(_, images)| images.iter().copied().filter(is_stray))
            .filter_map(|image| own_key(image).map(|key| key.slot));
        Self {
            names: names.collect(),
            strays: strays.collect(),
            engine: EngineInventory {
                images_seen_before: None,
                instances: Vec::new(),
                images: Vec::new(),
                name: engine.name.clone(),
                kind: engine.kind.clone(),
                identity: engine.identity.clone(),
                gaps: Vec::new(),
                capabilities: engine.capabilities.clone(),
            },
        }
    }

    /// How many images that belong to no series count as managed.
    pub(super) fn managed(&self, now: Timestamp) -> u64 {
        let horizon: Timestamp = CLOCK_SKEW.after(now);
        self.strays.iter().filter(|slot| slot.instant() <= horizon).count() as u64
    }

    /// Whether what was decided of one series holds for another in the same state. What is blocked
    /// says why, and a name may be taken for one and free for the other.
    pub(super) fn is_shared(&self, decision: &Decision, world: &World<'_>) -> bool {
        if decision.blocked.is_some() {
            return false;
        }
        if self.names.is_empty() {
            return true;
        }
        let policy = world.policy;
        let is_free = |key: &Key, name: &dyn Fn(&str) -> String| {
            !self.names.contains(name(&policy.naming.prefix(key, &policy.schedule.zone)).as_str())
        };
        let coming = decision.creation.as_ref().map(|creation| world.key(creation.slot));
        coming.iter().all(|key| is_free(key, &|prefix| key.image_name(prefix)))
            && decision.copied(true).all(|copy| {
                let original = copy.of.map(|index| &world.points[index].key);
                original
                    .or(coming.as_ref())
                    .is_none_or(|key| is_free(key, &|prefix| key.copy_name(prefix, &copy.location)))
            })
    }
}

fn own_key(image: &Image) -> Option<Key> {
    match image.ownership() {
        Ownership::Ours(key) => Some(key),
        Ownership::Foreign | Ownership::Broken(_) => None,
    }
}

/// Whether a name could be that of a restore point other than its own: `…-0200z-HASH`.
fn is_like_ours(image: &Image) -> bool {
    let mut parts = image.name.rsplit('-');
    let (hash, time) = (parts.next(), parts.next());
    let is_time = time.is_some_and(|time| time.len() == 5 && time.ends_with('z'));
    let own = own_key(image).map(|key| key.image_name("own"));
    is_time && own.is_none_or(|own| own.rsplit('-').next() != hash)
}
