//! What is left of restore points that are not whole, and which of it a newer one makes needless.

use jiff::Timestamp;

use super::{Series, SeriesPoint};
use crate::elapsed::Elapsed;

impl<'a> Series<'a> {
    /// What is left of a newer restore point and holds every disk that is left of this one, with the
    /// instant from which on it stands for it: as long as its slot may be captured anew, that would clear
    /// it away first. The newest first.
    ///
    /// All of the disks must be in a single one: those of two were never seen together. Of a copy nothing
    /// comes: it lasts as its original does.
    pub fn remainders_over<'s>(
        &'s self,
        point: &'s SeriesPoint<'a>,
    ) -> impl Iterator<Item = (&'s SeriesPoint<'a>, Timestamp)> {
        let rank = |point: &'s SeriesPoint<'a>| (point.key.slot, point.image.id.as_str());
        let own = rank(point);
        let held = point.held_disks().filter(|_| !point.image.is_copy());
        self.points.iter().rev().take_while(move |other| rank(other) > own).filter_map(
            move |other| {
                let (held, disks) = (held?, other.held_disks()?);
                let deadline = self.policy.schedule.deadline_of(other.key.slot);
                let holds_all = held.iter().all(|disk| disks.contains(disk));
                holds_all.then(|| (other, Elapsed::seconds(1).after(deadline)))
            },
        )
    }

    /// The newest that stands for it at an instant.
    pub fn remainder_over<'s>(
        &'s self,
        point: &'s SeriesPoint<'a>,
        now: Timestamp,
    ) -> Option<&'s SeriesPoint<'a>> {
        let stands =
            |(other, from): (&'s SeriesPoint<'a>, Timestamp)| (from <= now).then_some(other);
        self.remainders_over(point).find_map(stands)
    }
}

impl SeriesPoint<'_> {
    /// The disks that are left of a restore point that is not whole, where that is known.
    fn held_disks(&self) -> Option<&[String]> {
        let disks = self.image.disks.as_deref().filter(|_| self.image.state.is_remainder());
        disks.filter(|disks| !disks.is_empty())
    }
}
