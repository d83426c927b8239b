//! The plan as a document: what a reviewer sees, what `plan --json` writes, what apply carries out.
//!
//! This is a frozen form with a version of its own. The JSON Schema is `schemas/plan.schema.json`.

mod budget;
mod outside;
mod schedule;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use budget::{Budget, Costs, QuotaUse};
pub use outside::{BrokenLabels, Exempt, Orphans, Unprotected, Waiting};
pub use schedule::PolicySchedule;

use super::action::{Action, Reason};
use super::guard::Refusal;
use crate::inventory::{
    Consistency, DrillCheck, Gap, Grant, Image, ImageKind, OneInstant, Stage, Tier, Via,
};
use crate::name::{Key, PolicyName, Slot, SourceId};
use crate::policy::Risk;

/// What reasons say of an image that is being made.
pub(super) const BEING_MADE: &str = "is being made";

/// The same of one of which nobody knows what it is.
pub(super) const NOT_KNOWN: &str = "is in a state this version does not know";

/// The version of the plan document. The first number changes when a reader must change.
pub const FORMAT_VERSION: &str = "1.1";

/// The ordered actions that bring an inventory to what the policies ask for, each with its reasons.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The version of this document.
    pub format_version: String,
    /// A digest over the changes and the policies; the time of planning is not part of it.
    pub id: String,
    /// The digest of the policies it was made from.
    pub policies_digest: String,
    /// The instant it was made for.
    pub now: Timestamp,
    /// The engines it was made over.
    pub engines: Vec<EngineSummary>,
    /// How much of what.
    pub summary: Summary,
    /// What is to be done, in this order.
    pub changes: Vec<Change>,
    /// Images that would be deprecated or deleted, and what keeps that from happening.
    pub held_back: Vec<HeldBack>,
    /// Images of ours that stay as they are.
    pub kept: Vec<Kept>,
    /// Slots without a restore point whose deadline has passed, one entry per series.
    pub missed: Vec<Missed>,
    /// Sources of which no restore point can be made, though one is due.
    pub blocked: Vec<Blocked>,
    /// Restore points that are due and wait for the turn of their source.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<Waiting>,
    /// Series without a new READY restore point for too long: nothing of them is deleted.
    pub stalled: Vec<Stalled>,
    /// Instances that no policy protects.
    pub unprotected: Vec<Unprotected>,
    /// Instances that are meant to be without protection.
    #[serde(default)]
    pub exempt: Vec<Exempt>,
    /// Images of policies that are not in the files: reported and left alone.
    pub orphans: Vec<Orphans>,
    /// Images with some of our labels that do not parse back to a key: reported and left alone.
    pub broken: Vec<BrokenLabels>,
    /// When each policy runs next.
    pub schedules: Vec<PolicySchedule>,
    /// What the guards refuse.
    #[serde(default)]
    pub refusals: Vec<Refusal>,
    /// What it costs and how much of the quotas it takes, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
}

/// An engine as the plan saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EngineSummary {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Which world it is.
    pub identity: String,
    /// Whether everything was seen.
    pub complete: bool,
    /// What was not seen.
    pub gaps: Vec<Gap>,
    /// How many instances it has.
    pub instances: usize,
    /// How many images it has, ours or not.
    pub images: usize,
    /// How many of them are ours.
    pub managed: usize,
    /// Machines that were stopped for a capture, stand still and should run again by now, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overdue: Vec<String>,
}

/// How much of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Images to be created.
    pub create: usize,
    /// Images to be deprecated.
    pub deprecate: usize,
    /// Images to be marked obsolete.
    pub obsolete: usize,
    /// Images to be reactivated.
    pub reactivate: usize,
    /// Images to be relabelled.
    pub relabel: usize,
    /// Images to be copied.
    pub copy: usize,
    /// Images to be proven restorable.
    #[serde(default)]
    pub drill: usize,
    /// Images to be deleted.
    pub delete: usize,
    /// Images of ours that stay, those that are changed but not deleted among them.
    pub keep: usize,
    /// Images that would go if nothing held them.
    pub held_back: usize,
    /// Instances that no policy protects.
    pub unprotected: usize,
    /// Instances that are meant to be without protection.
    #[serde(default)]
    pub exempt: usize,
    /// Slots that were missed.
    pub missed: usize,
    /// Images of ours that are being made, by another run or one that has ended.
    pub creating: usize,
    /// Policies that are paused in part or whole.
    pub paused: usize,
    /// Series without a new READY restore point for too long.
    pub stalled: usize,
    /// Images that are dated in the future: kept, and they move no other.
    pub quarantined: usize,
    /// Sources of which no restore point can be made.
    pub blocked: usize,
    /// Restore points that wait for the turn of their source.
    #[serde(default, skip_serializing_if = "is_none")]
    pub waiting: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_none(number: &usize) -> bool {
    *number == 0
}

impl Summary {
    /// Whether anything is to be done, now or later, or cannot be.
    pub fn is_pending(&self) -> bool {
        self.has_changes() || self.blocked + self.waiting > 0
    }

    /// Whether anything is to be done.
    pub fn has_changes(&self) -> bool {
        self.create
            + self.deprecate
            + self.obsolete
            + self.reactivate
            + self.relabel
            + self.copy
            + self.drill
            + self.delete
            > 0
    }
}

/// Something to be done to one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// What is to be done.
    pub action: Action,
    /// On which engine.
    pub engine: String,
    /// The identity of the restore point.
    pub key: Key,
    /// The name of the source.
    pub source_name: String,
    /// The image; one that is to be created has no id yet.
    pub image: ImageRef,
    /// Why.
    pub reasons: Vec<Reason>,
    /// What deleting it costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk: Option<Risk>,
    /// The newest READY restore point that its source has without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_ready: Option<Slot>,
    /// The name of the image that must be READY first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// The name of the image that makes it needless: it is done only where that does not become READY.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unless: Option<String>,
    /// What to capture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create: Option<Create>,
    /// What to change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<Update>,
    /// The copy to make.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<Copy>,
    /// How to try it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<DrillCheck>,
}

impl Change {
    /// The ids of the images that it is about: its own, and that of one that makes room.
    pub fn image_ids(&self) -> impl Iterator<Item = &str> {
        let replaced = self.create.as_ref().and_then(|create| create.replaces.as_ref());
        let copied_over = self.copy.as_ref().and_then(|copy| copy.replaces.as_ref());
        let images = [Some(&self.image), replaced, copied_over];
        images.into_iter().flatten().filter_map(|image| image.id.as_deref())
    }
}

/// An image as the plan saw it: an action is bound to all of this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageRef {
    /// Its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its name.
    pub name: String,
    /// Where it is stored.
    pub location: String,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// Its fingerprint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Bytes it takes in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<u64>,
}

impl ImageRef {
    /// An image as it is seen now.
    pub fn of(image: &Image) -> Self {
        Self {
            id: Some(image.id.clone()),
            name: image.name.clone(),
            location: image.location.clone(),
            created_at: Some(image.created_at),
            fingerprint: Some(image.fingerprint.clone()),
            stored_bytes: image.stored_bytes,
        }
    }
}

/// What to capture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// The kind of image.
    pub kind: ImageKind,
    /// What a disk image is made from. A snapshot on the way to it is made with it, and deleted once
    /// it is READY.
    #[serde(default, skip_serializing_if = "Via::is_disk")]
    pub via: Via,
    /// In which state.
    pub consistency: Consistency,
    /// How cheap it is to keep; absent means the engine's own way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    /// The encryption key; absent means the engine's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key: Option<String>,
    /// The disks to capture.
    pub disks: Vec<String>,
    /// Whether each disk is captured by itself, at an instant of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disk_by_disk: bool,
    /// Where each disk is captured by itself, what the engine offers for all of them at one instant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub one_instant: Vec<OneInstant>,
    /// What the disks become that the machine does not start from, where that is another kind of image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub companion: Option<ImageKind>,
    /// The disks that are left out.
    pub excluded_disks: Vec<String>,
    /// Bytes of the disks, as far as they are known.
    pub disk_bytes: u64,
    /// The labels it gets, the ownership record among them.
    pub labels: BTreeMap<String, String>,
    /// Its description.
    pub description: String,
    /// When the capture may begin at the latest.
    pub deadline: Timestamp,
    /// The failed attempt whose name it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<ImageRef>,
    /// What is known to be in the way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// The image family it becomes the newest of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// Who else may use it; absent where nobody has said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharing: Option<Vec<Grant>>,
}

/// A copy to be made in another location.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Copy {
    /// The name of the copy.
    pub name: String,
    /// Where it is stored.
    pub location: String,
    /// The encryption key; absent means the engine's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key: Option<String>,
    /// The labels it gets, the ownership record among them.
    pub labels: BTreeMap<String, String>,
    /// Who else may use it; absent where nobody has said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharing: Option<Vec<Grant>>,
    /// The failed attempt whose name it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<ImageRef>,
}

/// What to change on an image, without touching its data.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Update {
    /// The stage before.
    pub stage_before: Stage,
    /// The stage after.
    pub stage_after: Stage,
    /// Labels to set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set_labels: BTreeMap<String, String>,
    /// Labels to take away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove_labels: Vec<String>,
    /// The image that people are told to take instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replacement: Option<String>,
    /// Who else may use it from now on; absent where that does not change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharing: Option<Vec<Grant>>,
}

/// An image that would go if nothing held it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeldBack {
    /// What would be done.
    pub action: Action,
    /// On which engine.
    pub engine: String,
    /// The identity of the restore point.
    pub key: Key,
    /// The name of the source.
    pub source_name: String,
    /// The image.
    pub image: ImageRef,
    /// What holds it, first, and why it would go.
    pub reasons: Vec<Reason>,
}

/// An image of ours that stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// On which engine.
    // Shared: there may be a million of these.
    #[serde(with = "shared_text")]
    #[schemars(with = "String")]
    pub engine: Arc<str>,
    /// The identity of the restore point.
    pub key: Key,
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Why it stays.
    pub reasons: Vec<Reason>,
}

impl Kept {
    /// What is to be said of an image that is being made: it is not as it should be, or not whole yet.
    pub fn being_made(&self) -> Option<&str> {
        self.said(BEING_MADE)
    }

    /// What is to be said of an image of which nobody knows what it is.
    pub fn not_known(&self) -> Option<&str> {
        self.said(NOT_KNOWN)
    }

    fn said(&self, state: &str) -> Option<&str> {
        let detail = self.reasons.first().map(|reason| reason.detail.as_str())?;
        detail.strip_prefix(state)?.strip_prefix(": ")
    }
}

/// A text that many hold, as JSON.
mod shared_text {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<str>, D::Error> {
        String::deserialize(from).map(Arc::from)
    }
}

/// Slots in a row without a restore point, whose deadlines have passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Missed {
    /// On which engine.
    pub engine: String,
    /// The newest restore point there should have been.
    pub key: Key,
    /// The name of the source.
    pub source_name: String,
    /// The oldest of these slots.
    pub first: Slot,
    /// How many there are; 10,000 stands for that many or more.
    pub slots: usize,
}

/// A source of which no restore point can be made, though one is due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Blocked {
    /// On which engine.
    pub engine: String,
    /// The restore point there should be.
    pub key: Key,
    /// The name of the source.
    pub source_name: String,
    /// What is in the way, and what to do.
    pub message: String,
}

/// A series without a new READY restore point for too long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stalled {
    /// On which engine.
    pub engine: String,
    /// The policy.
    pub policy: PolicyName,
    /// The id of the source.
    pub source: SourceId,
    /// The name of the source.
    pub source_name: String,
    /// The slot of its newest READY restore point; absent where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_ready: Option<Slot>,
    /// What it is waiting for, or what became of the last attempt.
    pub message: String,
}
