//! Copies in other locations, and who may use the images.

use super::SeriesPlan;
use crate::desired::SeriesPoint;
use crate::inventory::LABEL_COPY;
use crate::name::Key;
use crate::plan::action::{Action, Reason, ReasonCode};
use crate::plan::document::{Blocked, Change, Copy, ImageRef};
use crate::retention::Fate;

impl<'a> SeriesPlan<'a> {
    /// The locations that get copies at present.
    fn copy_locations(&self) -> &'a [String] {
        let is_stopped =
            self.is_paused_or_unseen() || self.series.pauses.iter().any(|one| one.creates);
        if is_stopped || !self.can_copy() {
            return &[];
        }
        &self.series.policy.copies
    }

    fn can_copy(&self) -> bool {
        self.engine.capabilities.can_copy(self.series.policy.capture.kind)
    }

    /// Names the copies of the image that this plan creates: other copies may be let go for them.
    pub(super) fn name_coming_copies(&mut self) {
        let Some(create) = self.changes.iter().find(|change| change.create.is_some()) else {
            return;
        };
        let (key, stored_in) = (create.key.clone(), create.image.location.clone());
        let source_name = create.source_name.clone();
        for location in self.copy_locations() {
            let there = self.copy_of(location, &key);
            let is_there = there.is_some_and(|copy| !copy.image.state.is_failed_attempt());
            if is_there || *location == stored_in {
                continue;
            }
            let name = self.copy_name(&key, location);
            match self.check_name(&name, there) {
                Ok(()) => drop(self.coming_copies.insert(location, name)),
                Err(message) => self.block(&key, &source_name, message),
            }
        }
    }

    /// The copy that is coming where a copy is, or the restore point itself where no more are made.
    pub(super) fn coming_beside(&self, copy: &SeriesPoint<'_>) -> Option<String> {
        let location = copy.image.location.as_str();
        if self.series.policy.copies.iter().any(|copied| copied == location) {
            self.coming_copies.get(location).cloned()
        } else {
            self.created.clone()
        }
    }

    /// Copies to each location what it has none of: the image that this plan creates, and every
    /// restore point that is kept there too.
    pub(super) fn copies(&mut self) {
        let series = self.series;
        let create = self.changes.iter().find(|change| change.create.is_some()).cloned();
        for location in self.copy_locations() {
            let coming = create.as_ref().filter(|_| self.coming_copies.contains_key(&**location));
            if let Some(create) = coming {
                let mut change = Change {
                    action: Action::Copy,
                    reasons: Vec::new(),
                    create: None,
                    waits_for: Some(create.image.name.clone()),
                    ..create.clone()
                };
                let name = self.coming_copies[&**location].clone();
                self.copy(&mut change, location, name);
                self.changes.push(change);
            }
            for point in series.uncopied(location, coming.map(|create| create.key.slot), self.now) {
                let name = self.copy_name(&point.key, location);
                let failed = self.copy_of(location, &point.key);
                if let Err(message) = self.check_name(&name, failed) {
                    self.block(&point.key, &self.source_name(point), message);
                    continue;
                }
                let reason = Reason::new(ReasonCode::CopyMissing, String::new());
                let mut change = self.change(Action::Copy, point, reason);
                self.copy(&mut change, location, name);
                self.changes.push(change);
            }
        }
    }

    /// Makes a change of an original one that copies it.
    fn copy(&mut self, change: &mut Change, location: &str, name: String) {
        let policy = self.series.policy;
        let key = &change.key;
        let failed = self.copy_of(location, key).map(|copy| ImageRef::of(copy.image));
        if let Some(failed) = &failed {
            // It makes room and is not cleared away as well.
            self.changes.retain(|change| change.image.id != failed.id);
            self.kept.retain(|kept| Some(&kept.id) != failed.id.as_ref());
        }
        let mut labels = policy.labels.clone();
        labels.extend(key.labels());
        labels.insert(LABEL_COPY.to_owned(), "yes".to_owned());
        let detail = match change.waits_for {
            Some(_) => "copied as soon as it is READY".to_owned(),
            None => format!("{location} has no copy of it"),
        };
        change.reasons = vec![Reason::new(ReasonCode::CopyMissing, detail)];
        change.copy = Some(Copy {
            name,
            location: location.to_owned(),
            kms_key: policy.kms_key.clone(),
            labels,
            sharing: self.series.policy.sharing.clone(),
            replaces: failed,
        });
    }

    /// The copy of a restore point in a location; a failed attempt at it only where that is all
    /// there is. An attempt under a name that the policy had is none at this key.
    fn copy_of(&self, location: &str, key: &Key) -> Option<&'a SeriesPoint<'a>> {
        let is_failed = |copy: &SeriesPoint<'_>| copy.image.state.is_failed_attempt();
        let copies = self.series.copies.iter();
        copies
            .filter(|copy| copy.key.slot == key.slot && copy.image.location == location)
            .filter(|copy| !is_failed(copy) || copy.key == *key)
            .min_by_key(|copy| is_failed(copy))
    }

    fn copy_name(&self, key: &Key, location: &str) -> String {
        let policy = self.series.policy;
        key.copy_name(&policy.naming.prefix(key, &policy.schedule.zone), location)
    }

    fn block(&mut self, key: &Key, source_name: &str, message: String) {
        self.blocked.push(Blocked {
            engine: self.engine.name.clone(),
            key: key.clone(),
            source_name: source_name.to_owned(),
            message,
        });
    }

    /// A location of copies that holds no READY copy of an original or of a newer one, nor a newer
    /// original.
    pub(super) fn missing_copy(&self, point: &SeriesPoint<'_>) -> Option<&str> {
        if point.image.is_copy() {
            return None;
        }
        let series = self.series;
        series.policy.copies.iter().map(String::as_str).find(|location| {
            let is_there = |other: &SeriesPoint<'_>| {
                other.is_ready(self.now) && other.image.location == *location
            };
            let copies = series.copies.iter().filter(|copy| copy.key.slot >= point.key.slot);
            let newer = series.points.iter().filter(|other| other.key.slot > point.key.slot);
            !copies.chain(newer).any(is_there)
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
            if !differs || !point.is_ready(self.now) || !matches!(self.fate(point), Fate::Kept(_)) {
                continue;
            }
            let detail = "who may use it is not what the policy says";
            let reason = Reason::new(ReasonCode::SharingDiffers, detail);
            self.relabel(point, &reason, |update| update.sharing = Some(wanted.clone()));
        }
    }
}
