//! What makes something: creates and copies, and the failed attempts that make room for them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::seen::{Point, Presence, Series};
use super::times::{self, Doing, is_free};
use super::{CheckRule, EngineCheck};
use crate::inventory::{
    Consistency, Disk, Image, ImageKind, ImageState, Instance, KeyChoice, LABEL_COPY,
    LABEL_DRILLED_BEFORE, OneInstant,
};
use crate::name::{Key, Ownership, is_rfc1035_label, spread, stamp};
use crate::plan::action::{Action, ReasonCode};
use crate::plan::document::{Change, Create, ImageRef};
use crate::policy::Policy;

/// What the time says of a slot of a policy, whatever the source.
#[derive(Debug, Clone, Copy)]
pub(super) struct SlotFacts {
    fires: bool,
    deadline: Timestamp,
}

impl<'s> EngineCheck<'s, '_> {
    pub(super) fn create(&mut self, change: &Change, series: &'s Series<'_>) {
        let Some(create) = &change.create else {
            return self.find(CheckRule::Reason, change, "it does not say what to capture");
        };
        if series.policy.name != change.key.policy {
            self.find(
                CheckRule::Keeper,
                change,
                "its policy makes nothing under that name any more",
            );
        }
        self.slot(change, create, series);
        match series.presence {
            Presence::There(instance) => self.captured(change, create, instance, series.policy),
            _ => self.find(CheckRule::CreateSource, change, "its source is not there or selected"),
        }
        self.identity(change, create, series);
        self.taken(change, create, series);
        self.pace(change);
        let mut wanted = vec![ReasonCode::SlotDue];
        wanted.extend(create.replaces.as_ref().map(|_| ReasonCode::FailedAttempt));
        let codes: Vec<ReasonCode> = change.reasons.iter().map(|reason| reason.code).collect();
        if codes != wanted {
            self.find(CheckRule::Reason, change, "it is not made because a slot is due");
        }
    }

    /// The slot is one of the schedule, has come, is the newest, and its time is not over.
    fn slot(&mut self, change: &Change, create: &Create, series: &'s Series<'_>) {
        let (policy, now) = (series.policy, self.seen.now);
        let slot = change.key.slot.instant();
        let facts = *self.slots.entry((policy.name.as_str(), slot)).or_insert_with(|| SlotFacts {
            fires: times::fires_at(policy, slot),
            deadline: times::deadline(policy, slot),
        });
        if !facts.fires {
            self.find(CheckRule::CreateSlot, change, "the schedule does not fire then");
        }
        let jitter = policy.schedule.jitter.as_seconds().unsigned_abs();
        let later = spread(&policy.name, &change.key.source, jitter);
        let later = i64::try_from(later).unwrap_or_default();
        if times::moved(slot, later) > now {
            self.find(CheckRule::CreateSlot, change, "its slot has not come");
        } else if times::newer_slot(policy, slot, later, now).is_some() {
            self.find(CheckRule::CreateSlot, change, "a newer slot has come");
        }
        if create.deadline != facts.deadline || now > facts.deadline {
            self.find(CheckRule::CreateDeadline, change, "its deadline is another, or has passed");
        }
        if !is_free(policy, Doing::Creates, now) {
            self.find(CheckRule::Paused, change, "its policy makes nothing at present");
        }
    }

    fn captured(&mut self, change: &Change, create: &Create, instance: &Instance, policy: &Policy) {
        let disks = |takes: bool| -> BTreeSet<&str> {
            instance
                .disks
                .iter()
                .filter(|disk| policy.capture.disks.takes(&disk.name, disk.boot) == takes)
                .map(|disk| disk.name.as_str())
                .collect()
        };
        let is_same = |said: &[String], wanted: &BTreeSet<&str>| {
            said.len() == wanted.len() && said.iter().all(|disk| wanted.contains(disk.as_str()))
        };
        let taken = disks(true);
        let is_right = !taken.is_empty()
            && !taken.contains(Disk::UNSEEN)
            && is_same(&create.disks, &taken)
            && is_same(&create.excluded_disks, &disks(false));
        if !is_right {
            self.find(CheckRule::CreateSource, change, "its disks are not those of the policy");
        }
        let capture = &policy.capture;
        let is_right = create.kind == capture.kind
            && create.via == capture.via
            && create.consistency == capture.consistency
            && create.kms_key == policy.kms_key
            && create.tier == policy.tier
            && create.family == capture.family;
        if !is_right {
            self.find(CheckRule::CreateSource, change, "it is not captured as the policy says");
        }
        let capabilities = &self.seen.engine.capabilities;
        let by_disk = create.disks.len() > 1 && capabilities.per_disk_kinds.contains(&create.kind);
        if create.disk_by_disk != by_disk {
            self.find(
                CheckRule::CreateSource,
                change,
                "it does not say how its disks are captured",
            );
        }
        let offers = |one: &OneInstant| match one {
            OneInstant::MachineImage => capabilities.kinds.contains(&ImageKind::MachineImage),
            OneInstant::Stopped => capabilities.consistencies.contains(&Consistency::Stopped),
        };
        if !create.one_instant.iter().all(offers) {
            self.find(CheckRule::CreateSource, change, "it advises what its engine does not offer");
        }
        if capabilities.one_disk_kinds.contains(&create.kind) && create.disks.len() != 1 {
            self.find(CheckRule::CreateSource, change, "it holds one disk and is to hold others");
        }
        if capabilities.boot_disk_kinds.contains(&create.kind)
            && !instance.disks.iter().any(|disk| disk.boot && create.disks.contains(&disk.name))
        {
            self.find(CheckRule::CreateSource, change, "it leaves out the disk of the machine");
        }
        let has_key = |name: &String| {
            let disk = instance.disks.iter().find(|disk| disk.name == *name);
            disk.is_some_and(|disk| disk.kms_key == create.kms_key)
        };
        if capabilities.key == KeyChoice::Inherited
            && create.kms_key.is_some()
            && !create.disks.iter().all(has_key)
        {
            self.find(
                CheckRule::CreateSource,
                change,
                "its disks have another key than it is to have",
            );
        }
        if create.sharing != policy.sharing {
            self.find(CheckRule::Sharing, change, "it is shared otherwise than the policy says");
        }
    }

    fn identity(&mut self, change: &Change, create: &Create, series: &'s Series<'_>) {
        let policy = series.policy;
        if !is_name(&change.image.name, &change.key.image_name("x")) {
            self.find(CheckRule::CreateIdentity, change, "its name is not that of its key");
        }
        let mut labels = labels(&change.key, policy);
        // What was known of the last drill may go with the image that knew it.
        let drilled = series.drilled.filter(|_| policy.drill.is_some()).map(stamp);
        if create.labels.get(LABEL_DRILLED_BEFORE) == drilled.as_ref() {
            labels.extend(drilled.map(|at| (LABEL_DRILLED_BEFORE.to_owned(), at)));
        }
        if create.labels != labels {
            self.find(CheckRule::CreateIdentity, change, "its labels are not those of its key");
        }
        let capabilities = &self.seen.engine.capabilities;
        let of_zone = match series.presence {
            Presence::There(instance) => {
                let zones = capabilities.default_locations.iter().rev();
                // The longest beginning of the zone is the last in order.
                zones.clone().find(|(zones, _)| instance.zone.starts_with(zones.as_str()))
            }
            _ => None,
        };
        let of_zone = of_zone.map(|(_, location)| location);
        let default = capabilities.locations.first().or(of_zone).map_or("", String::as_str);
        let location = if policy.location.is_empty() { default } else { &policy.location };
        if change.image.location != location || change.image.id.is_some() {
            self.find(CheckRule::CreateIdentity, change, "it is stored where nobody said");
        }
    }

    /// Nothing stands for the slot, nothing newer is READY, and nothing has the name but what makes
    /// room.
    fn taken(&mut self, change: &Change, create: &Create, series: &'s Series<'_>) {
        let slot = change.key.slot.instant();
        let mut originals =
            series.points.iter().filter(|point| point.copy_in.is_none() && !point.is_step);
        // Who was not there cannot know that its machine has stood still.
        let can_go_on = series.policy.capture.consistency != Consistency::Stopped;
        let is_begun = |point: &Point<'_>| {
            can_go_on && point.image.state == ImageState::Begun && point.key == change.key
        };
        let stands = |point: &Point<'_>| {
            (point.slot == slot && !point.image.state.is_failed_attempt() && !is_begun(point))
                || (point.slot > slot && point.is_ready)
        };
        if originals.any(stands) {
            self.find(CheckRule::CreateTaken, change, "a restore point as new is there");
        }
        self.name_is_free(change, &change.image.name, create.replaces.as_ref());
        if let Some(replaced) = &create.replaces {
            self.replaced(change, series, replaced, None);
        }
    }

    fn name_is_free(&mut self, change: &Change, name: &str, replaced: Option<&ImageRef>) {
        let id = replaced.and_then(|replaced| replaced.id.as_ref());
        let has_name = self.seen.by_name.get(name);
        // What a run has begun is made by who asks for it again.
        let is_begun = |image: &Image| {
            change.action == Action::Create
                && image.state == ImageState::Begun
                && image.ownership() == Ownership::Ours(change.key.clone())
        };
        let is_in_the_way = |image: &&Image| Some(&image.id) != id && !is_begun(image);
        if has_name.is_some_and(|images| images.iter().any(is_in_the_way)) {
            self.find(CheckRule::CreateTaken, change, format!("an image has the name {name}"));
        }
    }

    /// What makes room is a failed attempt at the same restore point in the same place, which nobody
    /// holds or uses.
    fn replaced(
        &mut self,
        change: &Change,
        series: &'s Series<'_>,
        replaced: &ImageRef,
        copy_in: Option<&str>,
    ) {
        let point = replaced.id.as_deref().and_then(|id| series.point(id));
        let is_right = point.is_some_and(|point| {
            let image = point.image;
            image.state.is_failed_attempt()
                && !point.is_step
                && point.key == change.key
                && point.copy_in == copy_in
                && !point.is_held
                && image.in_use_by.is_empty()
                && image.name == replaced.name
                && Some(image.created_at) == replaced.created_at
                && Some(&image.fingerprint) == replaced.fingerprint.as_ref()
        });
        if !is_right {
            self.find(CheckRule::Replaces, change, "what makes room is no failed attempt at it");
        }
    }

    pub(super) fn copy(&mut self, change: &Change, series: &'s Series<'_>, point: &Point<'_>) {
        if point.copy_in.is_some() || !point.is_ready {
            self.find(CheckRule::Copy, change, "it is no READY original");
        }
        if !self.is_kept(series, point, false) {
            self.find(CheckRule::NotKept, change, "no rule keeps the original");
        }
        self.copied(change, series, point.slot, &point.image.location);
    }

    /// What holds of every copy of a slot that is stored in a location.
    pub(super) fn copied(
        &mut self,
        change: &Change,
        series: &'s Series<'_>,
        slot: Timestamp,
        stored_in: &str,
    ) {
        let Some(copy) = &change.copy else {
            return self.find(CheckRule::Copy, change, "it does not say where to");
        };
        let (policy, now) = (series.policy, self.seen.now);
        if stored_in == copy.location {
            self.find(CheckRule::Copy, change, "it is stored there already");
        }
        if !policy.copies.contains(&copy.location)
            || !self.seen.engine.capabilities.can_copy(policy.capture.kind)
        {
            self.find(CheckRule::Copy, change, "the policy wants no copy there");
        }
        let is_there = |other: &Point<'_>| {
            other.slot == slot
                && other.copy_in == Some(copy.location.as_str())
                && !other.image.state.is_failed_attempt()
                && !other.is_step
        };
        if series.points.iter().any(is_there) {
            self.find(CheckRule::Copy, change, "a copy is there");
        }
        if !is_free(policy, Doing::Creates, now) || !is_free(policy, Doing::Deletes, now) {
            self.find(CheckRule::Paused, change, "its policy copies nothing at present");
        }
        let mut wanted = labels(&change.key, policy);
        wanted.insert(LABEL_COPY.to_owned(), "yes".to_owned());
        let is_named = is_name(&copy.name, &change.key.copy_name("x", &copy.location));
        if !is_named || copy.labels != wanted || copy.kms_key != policy.kms_key {
            self.find(CheckRule::CreateIdentity, change, "name, labels or key are not its own");
        }
        if copy.sharing != policy.sharing {
            self.find(CheckRule::Sharing, change, "it is shared otherwise than the policy says");
        }
        self.name_is_free(change, &copy.name, copy.replaces.as_ref());
        if let Some(replaced) = &copy.replaces {
            self.replaced(change, series, replaced, Some(copy.location.as_str()));
        }
        if change.reasons.first().map(|reason| reason.code) != Some(ReasonCode::CopyMissing) {
            self.find(CheckRule::Reason, change, "it is not copied because a copy is missing");
        }
    }
}

/// The labels of what is made for a key.
fn labels(key: &Key, policy: &Policy) -> BTreeMap<String, String> {
    let mut labels = policy.labels.clone();
    labels.extend(key.labels());
    labels
}

/// Whether a name is that of a key, whatever stands before the time and the hash. `bare` is the name
/// behind the letter `x`.
fn is_name(name: &str, bare: &str) -> bool {
    is_rfc1035_label(name) && name.ends_with(bare.trim_start_matches('x'))
}
