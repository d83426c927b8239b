//! Times at which a policy does nothing, and restore points that it does not let go of.

use jiff::Timestamp;

use super::{Hold, Place, Policy};
use crate::elapsed::{Elapsed, whole_second};
use crate::inventory::Image;
use crate::name::{Key, Slot};
use crate::schedule::{Crontab, Firings, Zone};

/// How many blackouts in a row are followed to see whether one ends.
const IN_A_ROW_MAX: usize = 1_000;

/// What a policy does not do at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Nothing is created.
    pub creates: bool,
    /// Nothing is deprecated or deleted.
    pub deletes: bool,
    /// Until when; `None` means until the pause is taken out.
    pub until: Option<Timestamp>,
    /// Why.
    pub reason: Option<String>,
    /// Whether it is a blackout, which is part of the policy, and not a pause, which somebody has
    /// to take out again.
    pub is_blackout: bool,
}

/// Times at which a policy does nothing.
#[derive(Debug, Clone)]
pub struct Blackout {
    /// When.
    pub window: Window,
    /// Nothing is created.
    pub creates: bool,
    /// Nothing is deprecated or deleted.
    pub deletes: bool,
    /// Why.
    pub reason: Option<String>,
    /// Where it is written.
    pub place: Place,
}

/// When a blackout holds.
#[derive(Debug, Clone)]
pub enum Window {
    /// From one instant to another, which is not part of it.
    Once {
        /// The first instant.
        from: Timestamp,
        /// The instant after the last.
        until: Timestamp,
    },
    /// Again and again.
    Returning {
        /// When it begins.
        begins: Vec<Crontab>,
        /// In which zone.
        zone: Zone,
        /// How long it lasts.
        duration: Elapsed,
    },
}

impl Window {
    /// When it ends, if it holds at `now`.
    pub fn end_at(&self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Once { from, until } => (*from <= now && now < *until).then_some(*until),
            Self::Returning { begins, zone, duration } => {
                let now = whole_second(now);
                let after = Elapsed::seconds(1).after(now);
                let earliest = Elapsed::seconds(1).after(duration.before(now));
                begins
                    .iter()
                    .filter_map(|crontab| Firings::new(crontab, zone, earliest, after).last())
                    .max()
                    .map(|begin| duration.after(begin))
            }
        }
    }
}

impl Blackout {
    /// What does not happen at `now`, if it holds then.
    fn pause_at(&self, now: Timestamp) -> Option<Pause> {
        Some(Pause {
            creates: self.creates,
            deletes: self.deletes,
            until: Some(self.window.end_at(now)?),
            reason: self.reason.clone(),
            is_blackout: true,
        })
    }
}

/// The first instant from `at` on at which no blackout holds; where blackouts hold until after the
/// deadline, an end of theirs that is too late.
pub(in crate::policy) fn free_from<'a>(
    blackouts: &(impl Iterator<Item = &'a Blackout> + Clone),
    at: Timestamp,
    deadline: Timestamp,
) -> Result<Timestamp, Timestamp> {
    let mut at = at;
    for _ in 0..IN_A_ROW_MAX {
        let ends = blackouts.clone().filter_map(|blackout| blackout.window.end_at(at));
        match ends.max() {
            None => return Ok(at),
            Some(end) if end > deadline => return Err(end),
            Some(end) => at = end,
        }
    }
    Err(at)
}

/// Where blackouts leave no time between a slot and its deadline, an end of theirs that is too late.
pub(in crate::policy) fn blacked_out_until<'a>(
    blackouts: &(impl Iterator<Item = &'a Blackout> + Clone),
    slot: Slot,
    deadline: Timestamp,
) -> Option<Timestamp> {
    free_from(blackouts, slot.instant(), deadline).err()
}

impl Policy {
    /// Everything that keeps the policy from something at `now`: its pause first, then blackouts.
    pub fn pauses_at(&self, now: Timestamp) -> Vec<Pause> {
        let pauses = |pause: &&Pause| pause.creates || pause.deletes;
        let lasts = |pause: &&Pause| pause.until.is_none_or(|until| now < until);
        let pause = self.paused.iter().filter(pauses).filter(lasts).cloned();
        let blackouts = self.blackouts.iter().filter_map(|blackout| blackout.pause_at(now));
        pause.chain(blackouts).collect()
    }

    /// Whether blackouts leave no time between a slot and its deadline in which it could be created:
    /// such a slot is not meant to have a restore point.
    pub fn is_blacked_out(&self, slot: Slot, deadline: Timestamp) -> bool {
        let creates = self.blackouts.iter().filter(|blackout| blackout.creates);
        blacked_out_until(&creates, slot, deadline).is_some()
    }

    /// The hold of the policy that keeps a restore point at `now`, whatever its labels say. The
    /// name of the source is the one it has now, or had when the image was made.
    pub fn hold_on(
        &self,
        key: &Key,
        image: &Image,
        source_name: Option<&str>,
        now: Timestamp,
    ) -> Option<&Hold> {
        let mut holds = self.holds.iter().filter(|hold| hold.lasts(now));
        holds.find(|hold| hold.is_of(key, image, source_name))
    }

    /// Whether the policy will hold a restore point that is still to come. What names images can
    /// only mean those that are there.
    pub fn will_hold(&self, key: &Key, source_name: Option<&str>, now: Timestamp) -> bool {
        let mut holds = self.holds.iter().filter(|hold| hold.images.is_none() && hold.lasts(now));
        holds.any(|hold| hold.is_about(key, [source_name, None]))
    }
}

impl Hold {
    /// Whether it is about a restore point, whatever the time.
    pub fn is_of(&self, key: &Key, image: &Image, source_name: Option<&str>) -> bool {
        let remembered = image.source.as_ref().map(|source| source.name.as_str());
        let is_image = self
            .images
            .as_ref()
            .is_none_or(|images| images.matches(&image.name) || images.matches(&image.id));
        is_image && self.is_about(key, [source_name, remembered])
    }

    fn lasts(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// Whether it is about a source, which has these names, and a slot of it.
    fn is_about(&self, key: &Key, names: [Option<&str>; 2]) -> bool {
        let slot = key.slot.instant();
        let is_source = self.sources.as_ref().is_none_or(|sources| {
            let names = names.into_iter().flatten();
            names.chain([key.source.as_str()]).any(|name| sources.matches(name))
        });
        is_source
            && self.from.is_none_or(|from| from <= slot)
            && self.before.is_none_or(|before| slot < before)
    }
}
