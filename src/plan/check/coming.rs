//! The restore point that a plan makes, and what becomes of it in the same plan: copies and drills.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::seen::{Point, Presence, Seen, Series};
use super::{CheckRule, EngineCheck};
use crate::inventory::LABEL_DRILLED;
use crate::name::stamp;
use crate::plan::action::Action;
use crate::plan::document::{Change, Plan, Update};

/// The restore point that a plan makes for a series.
#[derive(Debug, Clone, Default)]
pub(super) struct Coming<'p> {
    slot: Timestamp,
    /// The name of its image.
    name: &'p str,
    /// Where the plan copies it to, and the name of each copy.
    copies: BTreeMap<&'p str, &'p str>,
}

/// What a plan makes, by policy and source.
pub(super) type AllComing<'p> = BTreeMap<(&'p str, &'p str), Coming<'p>>;

pub(super) fn coming<'p>(plan: &'p Plan, seen: &Seen<'_>) -> AllComing<'p> {
    let mut all = AllComing::new();
    let of_engine = || plan.changes.iter().filter(|change| change.engine == seen.engine.name);
    let series = |change: &'p Change| (change.key.policy.as_str(), change.key.source.as_str());
    for change in of_engine().filter(|change| change.action == Action::Create) {
        let (slot, name) = (change.key.slot.instant(), change.image.name.as_str());
        all.insert(series(change), Coming { slot, name, copies: BTreeMap::new() });
    }
    for change in of_engine() {
        if let (Some(copy), None) = (&change.copy, &change.image.id)
            && let Some(coming) = all.get_mut(&series(change))
        {
            coming.copies.insert(&copy.location, &copy.name);
        }
    }
    all
}

impl<'s> EngineCheck<'s, '_> {
    /// What the plan makes for a series, or for a location of its copies: the slot, and the name of
    /// the image.
    pub(super) fn coming_in(
        &self,
        series: &Series<'_>,
        copy_in: Option<&str>,
    ) -> Option<(Timestamp, &'s str)> {
        let coming = self.coming.get(&(series.policy.name.as_str(), series.source.as_str()))?;
        let name = match copy_in {
            None => coming.name,
            Some(location) => coming.copies.get(location).copied()?,
        };
        Some((coming.slot, name))
    }

    /// What a change of an image that is there waits for is made: where copies are made, the copy beside it,
    /// else the restore point itself.
    pub(super) fn awaited(&mut self, change: &Change, series: &Series<'_>, point: &Point<'_>) {
        let Some(awaited) = change.waits_for.as_deref() else { return };
        let is_copied =
            |location: &&str| series.policy.copies.iter().any(|copied| copied == location);
        let copy_in = point.copy_in.filter(is_copied);
        if self.coming_in(series, copy_in).is_none_or(|(_, name)| name != awaited) {
            self.find(CheckRule::Reason, change, "what it waits for is not made");
        }
        if matches!(change.action, Action::Delete | Action::Copy | Action::Drill) {
            self.find(CheckRule::Reason, change, "it waits for what it does not hang on");
        }
    }

    /// A change of the restore point that the plan makes: it has no id yet, and is waited for.
    pub(super) fn of_coming(&mut self, change: &Change, series: &'s Series<'_>) {
        let is_it = self.coming_in(series, None).is_some_and(|(slot, name)| {
            slot == change.key.slot.instant()
                && name == change.image.name
                && change.waits_for.as_deref() == Some(name)
                && change.key.policy == series.policy.name
        });
        if !is_it || change.image.fingerprint.is_some() || change.image.created_at.is_some() {
            return self.find(CheckRule::Binding, change, "the plan makes no such image");
        }
        if change.action == Action::Copy {
            if change.update.is_some() {
                self.find(CheckRule::Mark, change, "it changes labels, which it should not");
            }
            let location = change.image.location.as_str();
            return self.copied(change, series, change.key.slot.instant(), location);
        }
        let slot = change.key.slot.instant();
        let oldest = series.oldest.map_or(slot, |oldest| oldest.min(slot));
        self.drill_due(change, series, Some(oldest));
        if !matches!(series.presence, Presence::There(_)) {
            self.find(CheckRule::Drill, change, "its source is not there");
        }
        let is_marked = |update: &Update| {
            let marks: Vec<(&str, &str)> = update
                .set_labels
                .iter()
                .map(|(label, value)| (label.as_str(), value.as_str()))
                .collect();
            marks == [(LABEL_DRILLED, stamp(self.plan.now).as_str())]
                && update.remove_labels.is_empty()
                && update.stage_before == update.stage_after
                && update.sharing.is_none()
                && update.replacement.is_none()
        };
        if !change.update.as_ref().is_some_and(is_marked) {
            self.find(CheckRule::Mark, change, "labels change that no reason asks for");
        }
    }
}
