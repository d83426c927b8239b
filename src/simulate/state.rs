//! Images that only a simulation has, and what the planner sees of a series: two in the same state
//! are planned alike.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::Timestamp;

use super::decision::Copying;
use super::series::World;
use crate::desired::Presence;
use crate::inventory::{Disk, Image, ImageKind, ImageState, LABEL_COPY, LABEL_IMPORTED, Stage};
use crate::name::{Key, LABEL_KEY, LABEL_POLICY, LABEL_SLOT, LABEL_SOURCE, Slot};
use crate::policy::select::Patterns;

impl World<'_> {
    /// All that a plan for a series takes from its source: whether it is there, which of its disks
    /// are captured, when its captures begin, and which holds of the policy are about it.
    pub(super) fn base_hash(&self) -> u128 {
        let presence = match self.presence {
            Presence::Present(_) => 0_u8,
            Presence::Unselected(_) => 1,
            Presence::Missing => 2,
            Presence::Unknown => 3,
        };
        let disks = self.instance_disks();
        let jitter = self.policy.schedule.jitter.as_seconds().unsigned_abs();
        let start = crate::name::spread(&self.policy.name, &self.source, jitter);
        let policy = self.policy;
        let name = self.presence_instance().map(|instance| instance.name.as_str());
        let names = [Some(self.source.as_str()), name];
        digest(|hasher| {
            (presence, disks, start, self.engine).hash(hasher);
            for hold in &policy.holds {
                let sources = hold.sources.as_ref();
                let is_of =
                    |sources: &Patterns| names.iter().flatten().any(|name| sources.matches(name));
                sources.is_none_or(is_of).hash(hasher);
                // What it says of images that are yet to be made hangs on their names.
                hold.images.as_ref().map(|_| &self.source).hash(hasher);
            }
        })
    }

    /// How many disks are captured: none, one, or more, which not all kinds of image can hold.
    fn instance_disks(&self) -> usize {
        let Presence::Present(instance) = self.presence else { return 0 };
        let takes = |disk: &&Disk| self.policy.capture.disks.takes(&disk.name, disk.boot);
        instance.disks.iter().filter(takes).count().min(2)
    }

    /// Everything of a point that a plan may depend on but whose it is: of names, ids and the source,
    /// which holds of the policy are about it; of the labels all that are no part of the key.
    pub(super) fn point_hash(&self, key: &Key, image: &Image, twins: usize) -> u128 {
        let policy = self.policy;
        let name = self.presence_instance().map(|instance| instance.name.as_str());
        digest(|hasher| {
            hash_image(hasher, key, image, twins);
            if policy.sharing.is_some() {
                for grant in image.sharing.iter().flatten() {
                    (&grant.role, &grant.members).hash(hasher);
                }
                image.sharing.is_some().hash(hasher);
            }
            for hold in &policy.holds {
                hold.is_of(key, image, name).hash(hasher);
            }
        })
    }
}

/// An image that only the simulation has. Its ownership labels are left out: the key stands beside
/// it, and a million of them would be needed.
pub(super) fn simulated(
    kind: ImageKind,
    location: String,
    state: ImageState,
    slot: Slot,
    now: Timestamp,
) -> Image {
    Image {
        id: format!("simulated-{slot}-{}", now.as_second()),
        name: String::new(),
        kind,
        state,
        stage: Stage::Active,
        created_at: now,
        location,
        kms_key: None,
        family: None,
        sharing: None,
        labels: BTreeMap::new(),
        source: None,
        stored_bytes: None,
        disk_bytes: None,
        fingerprint: String::new(),
        disks: None,
        project: String::new(),
        in_use_by: Vec::new(),
        message: None,
    }
}

/// What the planner looks at in every image.
fn hash_image(hasher: &mut DefaultHasher, key: &Key, image: &Image, twins: usize) {
    // And where it was imported from, which decides nothing.
    const OWNERSHIP: [&str; 5] =
        [LABEL_POLICY, LABEL_SOURCE, LABEL_SLOT, LABEL_KEY, LABEL_IMPORTED];
    (key.slot, image.state, image.stage, twins, &image.location, image.kind).hash(hasher);
    if image.state != ImageState::Ready {
        image.created_at.hash(hasher);
    }
    if image.state.is_remainder() {
        image.disks.hash(hasher);
    }
    image.in_use_by.hash(hasher);
    for (label, value) in &image.labels {
        if label.starts_with(crate::name::LABEL_PREFIX) && !OWNERSHIP.contains(&label.as_str()) {
            (label, value).hash(hasher);
        }
    }
}

impl Copying {
    /// The copy as an image that only the simulation has.
    pub(super) fn image(&self, key: &Key, now: Timestamp) -> Image {
        let location = self.location.clone();
        let mut image = simulated(self.kind, location, ImageState::Ready, key.slot, now);
        image.id = format!("{}-{}-{}", image.id, key.policy, self.location);
        image.labels.insert(LABEL_COPY.to_owned(), "yes".to_owned());
        image
    }
}

/// A hash of 128 bits. It never leaves the process: it only tells equal states.
fn digest(write: impl Fn(&mut DefaultHasher)) -> u128 {
    let lane = |number: u8| {
        let mut hasher = DefaultHasher::new();
        number.hash(&mut hasher);
        write(&mut hasher);
        u128::from(hasher.finish())
    };
    (lane(0) << 64) | lane(1)
}
