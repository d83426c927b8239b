//! What the point that a plan creates means for those that are there.

use super::SeriesPlan;
use crate::desired::{Due, SeriesPoint};
use crate::name::Slot;

use crate::retention::Fate;

impl SeriesPlan<'_> {
    /// The slot of the point that this plan creates.
    pub(super) fn coming_slot(&self) -> Option<Slot> {
        let Due::Create { slot, .. } = &self.series.due else { return None };
        self.created.as_ref().map(|_| *slot)
    }

    /// Whether this plan makes a newer one where a point is: an original, or a copy in its location.
    pub(super) fn is_overtaken(&self, point: &SeriesPoint<'_>) -> bool {
        let location = point.image.location.as_str();
        let is_made = !point.image.is_copy() || self.coming_copies.contains_key(location);
        is_made && self.coming_slot() >= Some(point.key.slot)
    }

    /// What retention says of a point: once what is coming is READY, where this plan makes it.
    pub(super) fn fate<'p>(&self, point: &'p SeriesPoint<'_>) -> &'p Fate {
        let is_coming = if point.image.is_copy() {
            self.coming_beside(point).is_some()
        } else {
            self.created.is_some()
        };
        if is_coming { &point.fate_after } else { &point.fate }
    }
}
