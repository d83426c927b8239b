//! Snapshots that are steps on the way to an image: how they are marked, and what the inventory shows
//! of them.
//!
//! A step has the key of the restore point, a label with the name of its image, and a name that only
//! fits that one. It is made, the image is made of it, and it is deleted. What a run that did not end
//! leaves of it is a failed attempt, and never a restore point: the next capture of the same point
//! takes it up, and once there is no use for it a plan deletes it. Pure: it asks nothing and knows no
//! engine.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::elapsed::Elapsed;
use crate::inventory::{Image, ImageKind, ImageState, LABEL_STEP};
use crate::name::{Key, Ownership};

/// So long after it was begun a run may still be about to make the image of it.
const PATIENCE: Elapsed = Elapsed::hours(1);

/// The labels of the step to an image with these.
pub fn labels(image: &str, labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut labels = labels.clone();
    labels.insert(LABEL_STEP.to_owned(), image.to_owned());
    labels
}

/// Whether an image is the step to another of a restore point.
pub fn is_step_to(found: &Image, image: &str, key: &Key) -> bool {
    found.step_to() == Some(image) && found.ownership() == Ownership::Ours(key.clone())
}

/// A step as it is by itself: the service may be done with it, and it is no restore point. What says
/// that it is a step and does not fit that is left alone.
pub fn read(image: &mut Image) {
    if !image.is_step() {
        return;
    }
    let Some(to) = image.step_to().filter(|_| matches!(image.ownership(), Ownership::Ours(_)))
    else {
        image.state = ImageState::Unknown;
        image.message = Some("its labels do not say which image it is a step to".to_owned());
        return;
    };
    let message = match image.state {
        ImageState::Ready => format!("a run has left it on the way to {to}"),
        _ => format!("a step on the way to {to}"),
    };
    if image.state == ImageState::Ready {
        image.state = ImageState::Failed;
    }
    image.message = Some(message);
}

/// Whether a run may still be about to make the image of it.
fn is_young(step: &Image, now: Timestamp) -> bool {
    PATIENCE.after(step.created_at) > now
}

/// What is done with a step that a capture of its restore point finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// The image is made of it.
    TakeUp,
    /// It is deleted, and another one made.
    Replace,
}

/// What is done with a step: `is_made` where the service is done with it, `fits` where it is as it
/// would be made now. Else why nothing can be done with it yet.
pub fn use_of(step: &Image, is_made: bool, fits: bool, now: Timestamp) -> Result<Use, String> {
    let name = &step.name;
    match step.state {
        _ if fits && (is_made || step.state == ImageState::Creating) => Ok(Use::TakeUp),
        ImageState::Creating | ImageState::Deleting => Err(format!(
            "the snapshot {name} is {} and cannot be used; the next run tries again",
            step.state.word()
        )),
        _ if is_made && is_young(step, now) => Err(format!(
            "the snapshot {name} was made for the same image with other settings, and another run may \
             be at it; a run that comes an hour after it was begun replaces it"
        )),
        _ => Ok(Use::Replace),
    }
}

/// What has become of the images that steps lead to.
#[derive(Debug, Default)]
pub struct Ends(BTreeMap<(Key, String), ImageState>);

impl Ends {
    /// Of all images of an engine.
    pub fn of<'a>(images: impl Iterator<Item = &'a Image> + Clone) -> Self {
        let wanted: BTreeSet<&str> = images.clone().filter_map(Image::step_to).collect();
        let is_end = |image: &&Image| {
            image.kind == ImageKind::DiskImage && wanted.contains(image.name.as_str())
        };
        let mut ends: BTreeMap<(Key, String), ImageState> = BTreeMap::new();
        for image in images.filter(is_end) {
            if let (Ownership::Ours(key), false) = (image.ownership(), image.is_step()) {
                let end = ends.entry((key, image.name.clone())).or_insert(image.state);
                // Of two of a name one that is being made counts: a step is not deleted then.
                if image.state == ImageState::Creating {
                    *end = image.state;
                }
            }
        }
        Self(ends)
    }

    /// Says of a step that the service is done with, and that [`read`] has seen, whether somebody may
    /// be at it.
    pub fn judge(&self, step: &mut Image, now: Timestamp) {
        let (Some(to), Ownership::Ours(key)) = (step.step_to(), step.ownership()) else { return };
        let to = to.to_owned();
        let is_young = is_young(step, now);
        let (state, message) = match self.0.get(&(key, to.clone())) {
            Some(ImageState::Creating) => (ImageState::Creating, format!("{to} is made of it")),
            Some(ImageState::Ready) => {
                (ImageState::Failed, format!("{to} is made of it, and it was left behind"))
            }
            _ if is_young => (ImageState::Creating, format!("a step on the way to {to}")),
            _ => (ImageState::Failed, format!("a run has left it on the way to {to}")),
        };
        step.state = state;
        step.message = Some(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Stage;
    use crate::name::{LABEL_SLOT, PolicyName, Slot, SourceId, step_name};

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + 60 * minute).unwrap()
    }

    fn key() -> Key {
        let policy = PolicyName::parse("nightly").unwrap();
        Key { policy, source: SourceId::parse("1").unwrap(), slot: Slot::at(at(0)) }
    }

    fn image(kind: ImageKind, name: &str, state: ImageState) -> Image {
        Image {
            id: name.to_owned(),
            name: name.to_owned(),
            kind,
            state,
            stage: Stage::Active,
            created_at: at(0),
            location: String::new(),
            kms_key: None,
            family: None,
            sharing: None,
            labels: key().labels(),
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

    fn step(state: ImageState) -> Image {
        let mut step = image(ImageKind::Snapshot, &step_name("point"), state);
        step.labels = labels("point", &step.labels);
        step
    }

    #[test]
    fn a_step_is_never_a_restore_point() {
        for state in [ImageState::Creating, ImageState::Ready, ImageState::Failed] {
            let mut seen = step(state);
            read(&mut seen);
            assert_ne!(seen.state, ImageState::Ready);
            let end = image(ImageKind::DiskImage, "point", ImageState::Ready);
            Ends::of([&seen, &end].into_iter()).judge(&mut seen.clone(), at(5));
            assert_ne!(seen.state, ImageState::Ready);
        }
        let mut plain = image(ImageKind::Snapshot, "point", ImageState::Ready);
        read(&mut plain);
        assert_eq!(plain.state, ImageState::Ready);
    }

    /// Minutes after it was begun, whether the service is done with it, whether it fits.
    #[test]
    fn what_fits_is_taken_up_and_what_does_not_waits_for_those_who_may_be_at_it() {
        use ImageState::{Creating, Deleting, Failed};
        let table = [
            (Creating, 0, false, true, Some(Use::TakeUp)),
            (Creating, 0, false, false, None),
            (Creating, 90, false, false, None),
            (Failed, 0, true, true, Some(Use::TakeUp)),
            (Failed, 90, true, true, Some(Use::TakeUp)),
            (Failed, 59, true, false, None),
            (Failed, 61, true, false, Some(Use::Replace)),
            (Failed, 0, false, true, Some(Use::Replace)),
            (Failed, 0, false, false, Some(Use::Replace)),
            (Deleting, 90, false, true, None),
        ];
        for (state, minute, is_made, fits, wanted) in table {
            let used = use_of(&step(state), is_made, fits, at(minute));
            assert_eq!(used.clone().ok(), wanted, "{state:?} {minute} {is_made} {fits}: {used:?}");
        }
    }

    #[test]
    fn what_only_says_that_it_is_a_step_is_left_alone() {
        // The labels of a step were copied to a backup, or its record is broken.
        let mut backup = image(ImageKind::Snapshot, "backup", ImageState::Ready);
        backup.labels = step(ImageState::Ready).labels;
        let mut other_kind = Image { kind: ImageKind::DiskImage, ..step(ImageState::Ready) };
        let mut broken = step(ImageState::Ready);
        broken.labels.remove(LABEL_SLOT);
        for image in [&mut backup, &mut other_kind, &mut broken] {
            read(image);
            assert_eq!(image.state, ImageState::Unknown);
            Ends::default().judge(image, at(600));
            assert_eq!(image.state, ImageState::Unknown);
            assert!(!is_step_to(image, "point", &key()));
        }
        assert!(is_step_to(&step(ImageState::Ready), "point", &key()));
        assert!(!is_step_to(&step(ImageState::Ready), "other", &key()));
    }

    #[test]
    fn a_step_has_failed_once_nobody_can_be_at_it() {
        let of = |end: Option<ImageState>, now: i64| {
            let mut seen = step(ImageState::Ready);
            read(&mut seen);
            let end = end.map(|state| image(ImageKind::DiskImage, "point", state));
            let images: Vec<Image> = [seen.clone()].into_iter().chain(end).collect();
            Ends::of(images.iter()).judge(&mut seen, at(now));
            seen.state
        };
        assert_eq!(of(None, 5), ImageState::Creating);
        assert_eq!(of(None, 65), ImageState::Failed);
        assert_eq!(of(Some(ImageState::Creating), 600), ImageState::Creating);
        assert_eq!(of(Some(ImageState::Ready), 5), ImageState::Failed);
        assert_eq!(of(Some(ImageState::Failed), 5), ImageState::Creating);
        // An image of that name that is not of that restore point says nothing.
        let mut seen = step(ImageState::Ready);
        let mut other = image(ImageKind::DiskImage, "point", ImageState::Ready);
        other.labels.clear();
        Ends::of([&seen.clone(), &other].into_iter()).judge(&mut seen, at(5));
        assert_eq!(seen.state, ImageState::Creating);
    }
}
