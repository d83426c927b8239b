//! Copies in other locations, and who may use the images.

use super::SeriesPlan;
use crate::desired::SeriesPoint;
use crate::inventory::{ImageState, LABEL_COPY};
use crate::plan::action::{Action, Reason, ReasonCode};
use crate::plan::document::{Blocked, Copy, ImageRef};
use crate::retention::Fate;

impl SeriesPlan<'_> {
    /// Copies every restore point that is kept to each location that has none of it, the newest
    /// first.
    pub(super) fn copies(&mut self) {
        let series = self.series;
        let is_stopped = self.is_paused_or_unseen() || series.pauses.iter().any(|one| one.creates);
        if is_stopped || !self.engine.capabilities.copies {
            return;
        }
        for location in &series.policy.copies {
            for point in series.points.iter().rev() {
                let is_kept = matches!(point.fate, Fate::Kept(_));
                let is_elsewhere = point.image.location != *location;
                if !is_kept || !is_elsewhere || !point.is_ready(self.now) {
                    continue;
                }
                let copies = || {
                    let of_slot = |copy: &&SeriesPoint<'_>| {
                        copy.key.slot == point.key.slot && copy.image.location == *location
                    };
                    series.copies.iter().filter(of_slot)
                };
                if copies().any(|copy| copy.image.state != ImageState::Failed) {
                    continue;
                }
                self.copy(point, location, copies().next());
            }
        }
    }

    fn copy(&mut self, point: &SeriesPoint<'_>, location: &str, failed: Option<&SeriesPoint<'_>>) {
        let policy = self.series.policy;
        let key = &point.key;
        let name = key.copy_name(&policy.naming.prefix(key, &policy.schedule.zone), location);
        if let Err(message) = self.check_name(&name, failed) {
            self.blocked.push(Blocked {
                engine: self.engine.name.clone(),
                key: key.clone(),
                source_name: self.source_name(point),
                message,
            });
            return;
        }
        let failed = failed.map(|failed| ImageRef::of(failed.image));
        if let Some(failed) = &failed {
            // It makes room and is not cleared away as well.
            self.changes.retain(|change| change.image.id != failed.id);
            self.kept.retain(|kept| Some(&kept.id) != failed.id.as_ref());
        }
        let mut labels = policy.labels.clone();
        labels.extend(key.labels());
        labels.insert(LABEL_COPY.to_owned(), "yes".to_owned());
        let detail = format!("{location} has no copy of it");
        let mut change =
            self.change(Action::Copy, point, Reason::new(ReasonCode::CopyMissing, detail));
        change.copy = Some(Copy {
            name,
            location: location.to_owned(),
            kms_key: policy.kms_key.clone(),
            labels,
            replaces: failed,
        });
        self.changes.push(change);
    }

    /// A location of copies that holds no READY copy of an original or of a newer one.
    pub(super) fn missing_copy(&self, point: &SeriesPoint<'_>) -> Option<&str> {
        if point.image.is_copy() {
            return None;
        }
        let series = self.series;
        series.policy.copies.iter().map(String::as_str).find(|location| {
            !series.copies.iter().any(|copy| {
                copy.is_ready(self.now)
                    && copy.image.location == *location
                    && copy.key.slot >= point.key.slot
            })
        })
    }

    /// Brings who may use the images to what the policy says, where an engine says who may.
    pub(super) fn sharing(&mut self) {
        let series = self.series;
        let Some(wanted) = &series.policy.sharing else { return };
        if self.is_frozen() {
            return;
        }
        for point in series.points.iter().chain(&series.copies) {
            let differs = point.image.sharing.as_ref().is_some_and(|now| now != wanted);
            if !differs || !point.is_ready(self.now) || !matches!(point.fate, Fate::Kept(_)) {
                continue;
            }
            let detail = "who may use it is not what the policy says";
            let reason = Reason::new(ReasonCode::SharingDiffers, detail);
            self.relabel(point, &reason, |update| update.sharing = Some(wanted.clone()));
        }
    }
}
