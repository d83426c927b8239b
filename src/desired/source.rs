//! What is known of a source: there, gone, or no longer selected.

use jiff::Timestamp;

use crate::inventory::{EngineInventory, GapScope, Image, Instance, LABEL_MISSING, LABEL_REMOVED};
use crate::name::{Key, parse_stamp};
use crate::policy::Policy;
use crate::retention::CLOCK_SKEW;

/// What is known of a source.
#[derive(Debug, Clone, Copy)]
pub struct SourceState<'a> {
    /// Whether it is there.
    pub presence: Presence<'a>,
    /// Since when its images say that it is gone, or that its policy was removed.
    pub marked_since: Option<Timestamp>,
}

/// Whether a source is there.
#[derive(Debug, Clone, Copy)]
pub enum Presence<'a> {
    /// There and selected.
    Present(&'a Instance),
    /// There, but the policy does not select it any more.
    Unselected(&'a Instance),
    /// Not in the inventory, which was seen whole.
    Missing,
    /// Not in the inventory, but some instances were not seen.
    Unknown,
}

/// The label that says since when a series is without a source: that it is missing, or that the
/// policy was removed, each with a grace of its own.
pub fn mark_of(policy: &Policy) -> &'static str {
    if policy.removed.is_some() { LABEL_REMOVED } else { LABEL_MISSING }
}

/// Whether labels of an image can be changed: nobody is at it.
pub fn is_settled(image: &Image) -> bool {
    image.state.is_settled()
}

impl<'a> SourceState<'a> {
    pub(super) fn present(instance: &'a Instance) -> Self {
        Self { presence: Presence::Present(instance), marked_since: None }
    }

    /// The state of a source that a policy has images of and does not select.
    pub(super) fn absent(engine: &EngineInventory, instance: Option<&'a Instance>) -> Self {
        let is_seen_whole = !engine.gaps.iter().any(|gap| gap.scope == GapScope::Instances);
        let presence = match instance {
            Some(instance) => Presence::Unselected(instance),
            None if is_seen_whole => Presence::Missing,
            None => Presence::Unknown,
        };
        Self { presence, marked_since: None }
    }

    /// Reads the marks on the images: the earliest counts. They are taken away as soon as the source
    /// is back, so an old one says that it never was. Images of a wrong clock say nothing, nor do
    /// those that nobody takes a mark from.
    pub(super) fn read_marks(&mut self, policy: &Policy, images: &[(Key, &Image)], now: Timestamp) {
        let horizon = CLOCK_SKEW.after(now);
        self.marked_since = images
            .iter()
            .filter(|(key, image)| key.slot.instant() <= horizon && is_settled(image))
            .filter_map(|(_, image)| parse_stamp(image.labels.get(mark_of(policy))?))
            .min();
    }

    /// The instance, where it was seen.
    pub fn instance(&self) -> Option<&'a Instance> {
        match self.presence {
            Presence::Present(instance) | Presence::Unselected(instance) => Some(instance),
            Presence::Missing | Presence::Unknown => None,
        }
    }

    /// Whether it was seen to be gone or no longer selected.
    pub fn is_gone(&self) -> bool {
        matches!(self.presence, Presence::Missing | Presence::Unselected(_))
    }
}
