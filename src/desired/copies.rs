//! Which restore points a location still needs a copy of.

use jiff::Timestamp;

use super::{Series, SeriesPoint, expired};
use crate::inventory::{Content, Image, ImageState};
use crate::name::Slot;
use crate::retention::{Fate, Point, retain};

impl<'a> Series<'a> {
    /// The copies in a location.
    pub fn copies_in<'s>(&'s self, location: &'s str) -> impl Iterator<Item = &'s SeriesPoint<'a>> {
        self.copies.iter().filter(move |copy| copy.image.location == location)
    }

    /// The restore points that are kept and that a location holds no copy of, the newest first:
    /// those that the rules keep there too. A copy that they would let go at once would be made
    /// again and again.
    pub fn uncopied(
        &self,
        location: &str,
        coming: Option<Slot>,
        now: Timestamp,
    ) -> Vec<&SeriesPoint<'a>> {
        let is_there = |slot: Slot| {
            self.copies_in(location)
                .any(|copy| copy.key.slot == slot && !copy.image.state.is_failed_attempt())
        };
        let fate = |point: &SeriesPoint<'_>| {
            let fate = if coming.is_some() { &point.fate_after } else { &point.fate };
            matches!(fate, Fate::Kept(_))
        };
        let mut missing: Vec<&SeriesPoint<'a>> = self
            .points
            .iter()
            .rev()
            .filter(|point| {
                point.image.location != location
                    && point.is_ready(now)
                    && fate(point)
                    && !is_there(point.key.slot)
            })
            .collect();
        // Of two images of one slot the one that stands for both is copied.
        missing.dedup_by_key(|point| point.key.slot);
        if missing.is_empty() {
            return missing;
        }
        let mut there: Vec<Point<'_>> = missing
            .iter()
            .map(|point| Point {
                slot: point.key.slot,
                id: "",
                content: point.image.content(),
                ready: true,
                held: self.holds_copy(point, location, now),
            })
            .collect();
        there.extend(self.copies_in(location).map(|copy| Point {
            slot: copy.key.slot,
            id: &copy.image.id,
            content: copy.image.content(),
            ready: copy.image.state == ImageState::Ready,
            held: copy.is_held(now),
        }));
        let content = Content::default();
        there.extend(coming.map(|slot| Point { slot, id: "", content, ready: true, held: false }));
        let policy = self.policy;
        let expired = expired(policy, &self.state, now);
        let retention = expired.as_ref().unwrap_or(&policy.retention);
        let fates = retain(&there, retention, &policy.schedule.zone, now);
        let kept = missing.into_iter().zip(fates).filter(|(_, fate)| fate.is_kept());
        kept.map(|(point, _)| point).collect()
    }

    /// Whether the policy would hold the copy of a point. A label on the original holds that alone.
    fn holds_copy(&self, point: &SeriesPoint<'_>, location: &str, now: Timestamp) -> bool {
        let (policy, key) = (self.policy, &point.key);
        if point.hold.is_none() {
            return false;
        }
        let prefix = policy.naming.prefix(key, &policy.schedule.zone);
        let name = key.copy_name(&prefix, location);
        let copy = Image { id: String::new(), name, ..point.image.clone() };
        let source_name = self.state.instance().map(|instance| instance.name.as_str());
        policy.hold_on(key, &copy, source_name, now).is_some()
    }
}
