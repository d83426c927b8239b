//! What is left of restore points that are not whole: the last of a disk stays.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{EngineChecks, Guard, Refusal, SeriesName, series_name};
use crate::inventory::{Image, ImageState};
use crate::name::{Ownership, Slot};
use crate::plan::document::Change;
use crate::retention::CLOCK_SKEW;

/// What a plan leaves of a series.
#[derive(Default)]
struct Left<'a> {
    /// The newest restore point that is READY.
    ready: Option<Slot>,
    /// What holds disks and is no restore point.
    parts: Vec<(Slot, &'a Image)>,
}

impl EngineChecks<'_> {
    /// What is PARTIAL goes where a restore point as new is left, or a newer part that holds each of its
    /// disks. What makes room for a capture is not left.
    pub(super) fn last_of_disks(&self, now: Timestamp) -> Option<Refusal> {
        let parts: Vec<(&Change, &Image)> =
            self.data_deletes().filter(|(_, image)| image.state == ImageState::Partial).collect();
        let left = self.left(parts.iter().copied(), now);
        let is_last = |change: &Change, image: &Image| {
            let (slot, own) = (change.key.slot, held(image));
            left.get(&self.original(change, image)).is_none_or(|left| {
                let is_over = |(other, part): &(Slot, &Image)| {
                    let is_newer = (*other, &part.id) > (slot, &image.id);
                    is_newer && !own.is_empty() && own.is_subset(&held(part))
                };
                left.ready < Some(slot) && (image.is_copy() || !left.parts.iter().any(is_over))
            })
        };
        let last = parts.iter().filter(|(change, image)| is_last(change, image));
        let message =
            "nothing that is newer holds all disks of what is left of these restore points";
        self.refuse(Guard::Floor, last.map(|(change, _)| *change), message)
    }

    /// What is left of the series of some deletes once the plan is carried out.
    fn left<'c>(
        &self,
        parts: impl Iterator<Item = (&'c Change, &'c Image)>,
        now: Timestamp,
    ) -> BTreeMap<SeriesName, Left<'_>> {
        let mut left: BTreeMap<SeriesName, Left<'_>> =
            parts.map(|(change, image)| (self.original(change, image), Left::default())).collect();
        if left.is_empty() {
            return left;
        }
        let deleted = self.changes().filter_map(|change| change.image.id.as_deref());
        let replaced = self.replaces.iter().filter_map(|(_, replaced, _)| replaced.id.as_deref());
        let gone: BTreeSet<&str> = deleted.chain(replaced).collect();
        let horizon = CLOCK_SKEW.after(now);
        for image in &self.engine.images {
            let is_data = image.state.holds_data() && !image.is_step() && !image.is_copy();
            if !is_data || gone.contains(image.id.as_str()) {
                continue;
            }
            let Ownership::Ours(key) = image.ownership() else { continue };
            let series = left.get_mut(&series_name(self.policies, &key, image));
            let Some(series) = series.filter(|_| key.slot.instant() <= horizon) else { continue };
            if image.state == ImageState::Ready {
                series.ready = series.ready.max(Some(key.slot));
            } else {
                series.parts.push((key.slot, image));
            }
        }
        left
    }

    /// The series of originals that an image or a copy of it belongs to.
    fn original(&self, change: &Change, image: &Image) -> SeriesName {
        let (policy, source, _) = series_name(self.policies, &change.key, image);
        (policy, source, None)
    }
}

/// The disks that are known to be in an image.
fn held(image: &Image) -> BTreeSet<&str> {
    image.disks.iter().flatten().map(String::as_str).collect()
}
