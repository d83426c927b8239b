//! What is done where the point that a plan creates does not become READY.
//!
//! A plan is made for a world in which its capture succeeds, so that carrying it out leaves nothing to do.
//! What is to be done where it fails (a mark goes, a point is brought back) is told by planning once more
//! without it: of what the two plans do not share, the one waits for the capture, and the other is for where it
//! fails.

use std::collections::BTreeSet;

use super::SeriesPlan;
use crate::inventory::{Image, LABEL_LET_GO, LABEL_MISSING, LABEL_REMOVED, LABEL_STAGED};
use crate::plan::action::{Action, Reason, ReasonCode};
use crate::plan::document::{Change, ImageRef};

impl SeriesPlan<'_> {
    /// Whether anything that stays could change otherwise without the coming point.
    pub(super) fn may_be_otherwise(&self) -> bool {
        const LABELS: [&str; 4] = [LABEL_LET_GO, LABEL_STAGED, LABEL_MISSING, LABEL_REMOVED];
        let policy = self.series.policy;
        let lifecycle = &policy.lifecycle;
        let ages = lifecycle.deprecate_after.is_some() || lifecycle.obsolete_after.is_some();
        let is_marked =
            |image: &Image| LABELS.iter().any(|label| image.labels.contains_key(*label));
        let mut points = self.series.points.iter().chain(&self.series.copies);
        ages || policy.sharing.is_some()
            || policy.drill.is_some()
            || points.any(|point| is_marked(point.image))
    }

    /// Adds what is done where the coming point does not become READY, given what is planned without it.
    /// Nothing is let go or deleted for that.
    pub(super) fn add_otherwise(&mut self, without: Vec<Change>) {
        let mut waits = Vec::new();
        for change in &self.changes {
            let is_there = without.iter().any(|other| is_same(change, other));
            let waits_now = !is_there && change.waits_for.is_none() && alters(change.action);
            waits.push(waits_now.then(|| self.awaited(&change.image)).flatten());
        }
        let replaced: BTreeSet<String> =
            self.changes.iter().filter_map(replaced).filter_map(|image| image.id.clone()).collect();
        let brings =
            |change: &Change| matches!(change.action, Action::Reactivate | Action::Relabel);
        let is_replaced =
            |change: &Change| change.image.id.as_ref().is_some_and(|id| replaced.contains(id));
        let mut added = Vec::new();
        for mut change in without {
            let is_there = self.changes.iter().any(|other| is_same(&change, other));
            if is_there || !brings(&change) || is_replaced(&change) {
                continue;
            }
            let Some(name) = self.awaited(&change.image) else { continue };
            let detail = format!("only if {name} does not become READY");
            change.reasons.push(Reason::new(ReasonCode::CaptureFails, detail));
            change.unless = Some(name);
            added.push(change);
        }
        for (change, name) in self.changes.iter_mut().zip(waits) {
            if name.is_some() {
                change.waits_for = name;
            }
        }
        self.changes.append(&mut added);
    }

    /// What is coming in the place of an image: a copy of the point where it is one, else the point.
    fn awaited(&self, image: &ImageRef) -> Option<String> {
        let mut copies = self.series.copies.iter();
        let copy = copies.find(|copy| Some(&copy.image.id) == image.id.as_ref());
        copy.and_then(|copy| self.coming_beside(copy)).or_else(|| self.created.clone())
    }
}

/// Whether an action changes what is on an image that stays for now.
fn alters(action: Action) -> bool {
    matches!(action, Action::Reactivate | Action::Relabel | Action::Deprecate | Action::Obsolete)
}

/// Whether two changes are one: what lowers an image may have more to say in one of two plans.
fn is_same(one: &Change, other: &Change) -> bool {
    let lowers = matches!(one.action, Action::Deprecate | Action::Obsolete);
    one.action == other.action
        && one.image.id == other.image.id
        && (lowers || one.update == other.update)
}

/// The failed attempt that makes room.
fn replaced(change: &Change) -> Option<&ImageRef> {
    let create = change.create.as_ref().and_then(|create| create.replaces.as_ref());
    create.or(change.copy.as_ref().and_then(|copy| copy.replaces.as_ref()))
}
