//! What is to be made, and what can no longer be.

use jiff::Timestamp;

use super::{SeriesPlan, minute};
use crate::desired::{Due, Presence, SeriesPoint};
use crate::elapsed::Elapsed;
use crate::inventory::{Capabilities, Disk, Image, ImageKind, ImageState, Instance, KeyChoice};
use crate::name::{Key, Ownership, PolicyName, Slot};
use crate::plan::action::{Action, Reason, ReasonCode};
use crate::plan::document::{Blocked, Change, Create, ImageRef, Missed, Waiting};
use crate::plan::pace;

impl SeriesPlan<'_> {
    pub(super) fn due(&mut self) {
        if let Some(missed) = self.series.missed {
            self.missed.push(Missed {
                engine: self.engine.name.clone(),
                key: self.key(missed.last),
                source_name: self.series.source_name().to_owned(),
                first: missed.first,
                slots: missed.count,
            });
        }
        let (Due::Create { slot, deadline, replaces }, Presence::Present(instance)) =
            (&self.series.due, self.series.state.presence)
        else {
            return;
        };
        let created = self.create(instance, *slot, *deadline, replaces.as_deref());
        let message = match (created, self.turn) {
            (Ok(change), None) => {
                self.created = Some(change.image.name.clone());
                self.changes.push(change);
                return;
            }
            (Ok(_), Some(turn)) if turn <= *deadline => {
                self.waiting = Some(Waiting {
                    engine: self.engine.name.clone(),
                    key: self.key(*slot),
                    source_name: instance.name.clone(),
                    until: turn,
                    deadline: *deadline,
                    message: pace::rule(&self.engine.capabilities.limits),
                });
                return;
            }
            (Ok(_), Some(turn)) => format!(
                "its turn comes at {}, after the deadline {}: {}",
                minute(turn),
                minute(*deadline),
                pace::rule(&self.engine.capabilities.limits)
            ),
            (Err(message), _) => message,
        };
        self.blocked.push(Blocked {
            engine: self.engine.name.clone(),
            key: self.key(*slot),
            source_name: instance.name.clone(),
            message,
        });
    }

    /// Whether what is due could be made, if it were its turn.
    pub(in crate::plan) fn can_create(&self) -> bool {
        let (Due::Create { slot, deadline, replaces }, Presence::Present(instance)) =
            (&self.series.due, self.series.state.presence)
        else {
            return false;
        };
        self.create(instance, *slot, *deadline, replaces.as_deref()).is_ok()
    }

    pub(super) fn create(
        &self,
        instance: &Instance,
        slot: Slot,
        deadline: Timestamp,
        replaces: Option<&str>,
    ) -> Result<Change, String> {
        let policy = self.series.policy;
        let capabilities = &self.engine.capabilities;
        let key = self.key(slot);
        let is_chosen = |disk: &&Disk| policy.capture.disks.takes(&disk.name, disk.boot);
        let (taken, left): (Vec<_>, Vec<_>) = instance.disks.iter().partition(is_chosen);
        if taken.is_empty() {
            return Err(no_disk(&left));
        }
        let kind = policy.capture.kind;
        check_disks(capabilities, kind, &taken)?;
        check_key(capabilities, policy.kms_key.as_deref(), &taken)?;
        let name = key.image_name(&policy.naming.prefix(&key, &policy.schedule.zone));
        let mut points = self.series.points.iter();
        let failed = points.find(|point| Some(point.image.id.as_str()) == replaces);
        let begun = self.begun(&key, &name, failed)?;
        let failed = failed.map(|point| point.image);
        let mut labels = policy.labels.clone();
        labels.extend(key.labels());
        let location = match policy.location.as_str() {
            "" => capabilities.default_location(&instance.zone).to_owned(),
            named => named.to_owned(),
        };
        let disk_by_disk = taken.len() > 1 && capabilities.per_disk_kinds.contains(&kind);
        let one_instant = if disk_by_disk { capabilities.at_one_instant(kind) } else { Vec::new() };
        let description =
            policy.naming.description(policy, instance, slot, capabilities.description_length_max);
        let create = Create {
            kind,
            tier: policy.tier,
            via: policy.capture.via,
            consistency: policy.capture.consistency,
            kms_key: policy.kms_key.clone(),
            disk_bytes: taken.iter().filter_map(|disk| disk.size_bytes).sum(),
            problems: taken.iter().filter_map(|disk| disk.problem.clone()).collect(),
            disk_by_disk,
            one_instant,
            companion: capabilities.companion_of(kind, taken.len()),
            disks: taken.into_iter().map(|disk| disk.name.clone()).collect(),
            excluded_disks: left.into_iter().map(|disk| disk.name.clone()).collect(),
            labels,
            description,
            deadline,
            replaces: failed.map(ImageRef::of),
            family: policy.capture.family.clone(),
            sharing: policy.sharing.clone(),
        };
        Ok(Change {
            action: Action::Create,
            engine: self.engine.name.clone(),
            key,
            source_name: instance.name.clone(),
            image: ImageRef {
                id: None,
                name,
                location,
                created_at: None,
                fingerprint: None,
                stored_bytes: None,
            },
            reasons: create_reasons(slot, deadline, failed, begun),
            risk: None,
            newest_ready: None,
            waits_for: None,
            unless: None,
            create: Some(create),
            update: None,
            copy: None,
            drill: None,
        })
    }

    /// What a run has begun and not ended of it; where there is nothing, its name is free.
    fn begun(
        &self,
        key: &Key,
        name: &str,
        failed: Option<&SeriesPoint<'_>>,
    ) -> Result<Option<&Image>, String> {
        let mut begun = self.series.points.iter().filter(|point| point.key == *key);
        match begun.find(|point| point.image.state == ImageState::Begun) {
            None => self.check_name(name, failed).map(|()| None),
            Some(point) if point.image.name == name => Ok(Some(point.image)),
            Some(other) => {
                Err(format!("a run has begun it under another name: {}", other.image.name))
            }
        }
    }

    /// Whether the name of a new image is free, or that of a failed attempt that may be replaced.
    pub(super) fn check_name(
        &self,
        name: &str,
        failed: Option<&SeriesPoint<'_>>,
    ) -> Result<(), String> {
        match failed {
            // Only the failed attempt itself may stand in the way: it makes room.
            _ if (self.is_taken)(name) && failed.is_none_or(|failed| failed.image.name != name) => {
                let mut images = self.engine.images.iter();
                let there = images.find(|image| image.name == name);
                Err(name_taken(name, there, &self.series.policy.name))
            }
            Some(failed) if failed.is_held(self.now) || !failed.image.in_use_by.is_empty() => Err(
                format!("a failed attempt named {name} is held or in use; release or delete it"),
            ),
            _ => Ok(()),
        }
    }
}

/// What is in the way where an image has the name of a new one, and what to do. It may be the very
/// restore point, whose labels somebody has taken: nobody is told to delete it.
pub(crate) fn name_taken(name: &str, there: Option<&Image>, policy: &PolicyName) -> String {
    let adopt = format!("`stillframe adopt --policy {policy}` takes it into the policy again");
    let (what, hint) = match there.map(Image::ownership) {
        Some(Ownership::Ours(key)) => (
            format!("belongs to {} of {}, source {}", key.slot, key.policy, key.source),
            "look at it with `stillframe explain image`".to_owned(),
        ),
        Some(Ownership::Broken(error)) => (
            format!("carries labels of stillframe that do not fit together ({error})"),
            format!("if it is this restore point, take those labels off it, and {adopt}"),
        ),
        Some(Ownership::Foreign) | None => (
            "carries no labels of stillframe".to_owned(),
            format!("if it is this restore point and has lost them, {adopt}"),
        ),
    };
    format!(
        "an image named {name} exists already and {what}; {hint}. It is left alone, and the next slot has a name of its own"
    )
}

/// Why there is nothing to be captured, though there may be disks.
fn no_disk(left: &[&Disk]) -> String {
    match left {
        [] => "the instance has no disk".to_owned(),
        left => format!("`capture.disks` takes none of its disks: {}", names(left)),
    }
}

/// Whether all of these disks were seen, and an image of this kind can hold them.
fn check_disks(
    capabilities: &Capabilities,
    kind: ImageKind,
    taken: &[&Disk],
) -> Result<(), String> {
    if let Some(unseen) = taken.iter().find(|disk| disk.is_unseen()) {
        let why = unseen.problem.clone();
        return Err(why.unwrap_or_else(|| "its disks were not all seen".to_owned()));
    }
    if capabilities.boot_disk_kinds.contains(&kind) && !taken.iter().any(|disk| disk.boot) {
        return Err(format!(
            "a {} of this engine always holds the disk that the machine starts from, and `capture.disks` takes only: {}",
            kind.word(),
            names(taken)
        ));
    }
    if taken.len() < 2 || !capabilities.one_disk_kinds.contains(&kind) {
        return Ok(());
    }
    Err(format!(
        "a {} holds one disk, and `capture.disks` takes {}: {}",
        kind.word(),
        taken.len(),
        names(taken)
    ))
}

/// Whether images of these disks have the key that the policy names, where they have that of their disk.
fn check_key(
    capabilities: &Capabilities,
    wanted: Option<&str>,
    taken: &[&Disk],
) -> Result<(), String> {
    let Some(wanted) = wanted.filter(|_| capabilities.key == KeyChoice::Inherited) else {
        return Ok(());
    };
    let others: Vec<String> = taken
        .iter()
        .filter(|disk| disk.kms_key.as_deref() != Some(wanted))
        .map(|disk| {
            let key = disk.kms_key.as_deref();
            let none = if disk.is_read() { "no key of yours" } else { "a key that was not seen" };
            format!("{} under {}", disk.name, key.unwrap_or(none))
        })
        .collect();
    if others.is_empty() {
        return Ok(());
    }
    Err(format!(
        "an image has the key of its disk, and the policy asks for {wanted}: {}",
        others.join(", ")
    ))
}

fn names(disks: &[&Disk]) -> String {
    let names: Vec<&str> = disks.iter().map(|disk| disk.name.as_str()).collect();
    names.join(", ")
}

fn create_reasons(
    slot: Slot,
    deadline: Timestamp,
    failed: Option<&Image>,
    begun: Option<&Image>,
) -> Vec<Reason> {
    let begun = begun.map_or_else(String::new, |begun| {
        let message = begun.message.as_deref().unwrap_or("not whole");
        format!("; a run has begun it, and what is missing is made: {message}")
    });
    let mut reasons = vec![Reason::new(
        ReasonCode::SlotDue,
        // The last second counts: 11:14:59 is before 11:15.
        format!(
            "slot {} is due until {}{begun}",
            minute(slot.instant()),
            minute(Elapsed::seconds(1).after(deadline))
        ),
    )];
    if let Some(failed) = failed {
        let message = failed.message.as_deref().unwrap_or("no reason given");
        reasons.push(Reason::new(
            ReasonCode::FailedAttempt,
            format!("in place of an attempt that failed: {message}"),
        ));
    }
    reasons
}
