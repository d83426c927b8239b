//! Images and snapshots, as the API has them and as the inventory does.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{PROOF_PATIENCE, wire};
pub use crate::engine::set::LABEL_UNPROVEN;
use crate::engine::{Author, step};
use crate::inventory::{Image, ImageKind, ImageSource, ImageState, LABEL_STAGE, Stage};
use crate::name::{Ownership, SourceId};

/// Where images of a kind are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Collection {
    Images,
    Snapshots,
}

impl Collection {
    pub(super) const ALL: [Self; 2] = [Self::Images, Self::Snapshots];

    /// Where images of a kind are; of machines there are none.
    pub(super) fn of(kind: ImageKind) -> Option<Self> {
        match kind {
            ImageKind::DiskImage => Some(Self::Images),
            ImageKind::Snapshot => Some(Self::Snapshots),
            ImageKind::MachineImage => None,
        }
    }

    pub(super) fn kind(self) -> ImageKind {
        match self {
            Self::Images => ImageKind::DiskImage,
            Self::Snapshots => ImageKind::Snapshot,
        }
    }

    /// The word in paths.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Images => "images",
            Self::Snapshots => "snapshots",
        }
    }

    /// The images of a page.
    pub(super) fn of_page(self, page: wire::Page) -> Vec<wire::Image> {
        match self {
            Self::Images => page.images,
            Self::Snapshots => page.snapshots,
        }
    }

    /// The path of all of them.
    pub(super) fn path(self) -> String {
        format!("compute/v1/{}", self.word())
    }
}

/// Where one image is: what the inventory has as its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) folder: String,
    pub(super) collection: Collection,
    /// The id that the service has given it, never twice.
    pub(super) id: String,
}

impl Place {
    /// Reads `FOLDER/COLLECTION/ID`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let [folder, collection, id] = parts[..] else { return None };
        let is_id = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let collection = Collection::ALL.into_iter().find(|known| known.word() == collection)?;
        (is_id(folder) && is_id(id)).then(|| Self {
            folder: folder.to_owned(),
            collection,
            id: id.to_owned(),
        })
    }

    /// What [`Self::parse`] reads.
    pub(super) fn text(&self) -> String {
        format!("{}/{}/{}", self.folder, self.collection.word(), self.id)
    }

    /// The path.
    pub(super) fn path(&self) -> String {
        format!("{}/{}", self.collection.path(), self.id)
    }
}

/// An image as it was found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) place: Place,
    /// What the inventory says of it.
    pub(super) image: Image,
    /// The disk that a snapshot was made of. The service forgets what an image was made of.
    pub(super) made_of: Option<String>,
    /// Whether the service is done with it. It may be no restore point all the same.
    pub(super) is_made: bool,
    /// Who has made it, where it says so.
    pub(super) by: Option<Author>,
}

impl Found {
    /// What the inventory says of an image at `now`. `name_of` gives the names of sources: the service
    /// remembers a disk at most.
    pub(super) fn read(
        collection: Collection,
        image: wire::Image,
        now: Timestamp,
        name_of: impl Fn(&SourceId) -> Option<String>,
    ) -> Result<Self, String> {
        let place = Place { folder: image.folder_id.clone(), collection, id: image.id.clone() };
        if Place::parse(&place.text()).is_none() {
            return Err(format!("one of the {} has no id or folder", collection.word()));
        }
        let created_at: Timestamp = image
            .created_at
            .parse()
            .map_err(|_| format!("{} does not say when it was made", image.id))?;
        let state = match image.status.as_str() {
            "CREATING" => ImageState::Creating,
            "READY" => ImageState::Ready,
            "ERROR" => ImageState::Failed,
            "DELETING" => ImageState::Deleting,
            _ => ImageState::Unknown,
        };
        let is_made = state == ImageState::Ready;
        let (state, message) = match unproven(&image, created_at, now) {
            Some((state, message)) if is_made => (state, Some(message.to_owned())),
            _ => (state, None),
        };
        let fingerprint = fingerprint(&image);
        let by = Author::read(&image.description);
        let mut found = Image {
            id: place.text(),
            // An image without a name is named by its id.
            name: if image.name.is_empty() { image.id } else { image.name },
            kind: collection.kind(),
            state,
            stage: stage_of(image.labels.get(LABEL_STAGE)),
            created_at,
            location: String::new(),
            kms_key: image.kms_key.map(|key| key.key_id).filter(|key| !key.is_empty()),
            family: Some(image.family).filter(|family| !family.is_empty()),
            sharing: None,
            labels: image.labels,
            source: None,
            stored_bytes: image.storage_size,
            disk_bytes: image.disk_size.or(image.min_disk_size),
            fingerprint,
            disks: None,
            project: String::new(),
            in_use_by: Vec::new(),
            message,
        };
        step::read(&mut found);
        if let Ownership::Ours(key) = found.ownership() {
            found.source = name_of(&key.source).map(|name| ImageSource { id: key.source, name });
        }
        let made_of = Some(image.source_disk_id).filter(|disk| !disk.is_empty());
        Ok(Self { place, image: found, made_of, is_made, by })
    }

    /// Fills in the name of the source.
    pub(super) fn name_source(&mut self, names: &BTreeMap<SourceId, String>) {
        if let Ownership::Ours(key) = self.image.ownership()
            && let Some(name) = names.get(&key.source)
        {
            self.image.source = Some(ImageSource { id: key.source, name: name.clone() });
        }
    }
}

/// What an image is that the service is done with, and nobody has proven.
fn unproven(
    image: &wire::Image,
    created_at: Timestamp,
    now: Timestamp,
) -> Option<(ImageState, &'static str)> {
    image.labels.get(LABEL_UNPROVEN)?;
    Some(if PROOF_PATIENCE.after(created_at) > now {
        (ImageState::Creating, "whether its machine stands still is not known yet")
    } else {
        (ImageState::Failed, "nobody has seen its machine stand still until it was made")
    })
}

/// The stage that a label holds. What cannot be read is no stage: such an image has to be deprecated
/// before anything else becomes of it.
fn stage_of(label: Option<&String>) -> Stage {
    match label.map(String::as_str) {
        Some("deprecated") => Stage::Deprecated,
        Some("obsolete") => Stage::Obsolete,
        _ => Stage::Active,
    }
}

/// The label that holds a stage.
pub(super) fn stage_label(stage: Stage) -> Option<&'static str> {
    match stage {
        Stage::Active => None,
        Stage::Deprecated => Some("deprecated"),
        Stage::Obsolete => Some("obsolete"),
    }
}

/// Changes with every change of name and labels. The service has none of its own.
fn fingerprint(image: &wire::Image) -> String {
    let mut hash = Sha256::new();
    let labels = image.labels.iter().flat_map(|(label, value)| [label, value]);
    for text in [&image.name].into_iter().chain(labels) {
        hash.update(text.len().to_be_bytes());
        hash.update(text);
    }
    HEXLOWER.encode(&hash.finalize()[..12])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Found, String> {
        let now = "2026-11-21T00:30:00Z".parse().unwrap();
        Found::read(Collection::Snapshots, serde_json::from_str(text).unwrap(), now, |_| None)
    }

    #[test]
    fn an_id_says_where_an_image_is() {
        let place = Place::parse("b1g/snapshots/fd8").unwrap();
        assert_eq!(
            (place.path().as_str(), place.text().as_str()),
            ("compute/v1/snapshots/fd8", "b1g/snapshots/fd8")
        );
        for text in
            ["fd8", "b1g/disks/fd8", "b1g/images/", "b1g/images/a/b", "b1g/images/..", "/images/a"]
        {
            assert_eq!(Place::parse(text), None, "{text}");
        }
    }

    #[test]
    fn states_are_read_and_new_ones_are_not_guessed() {
        let of = |status: &str| {
            let text = format!(
                r#"{{"id": "i", "folderId": "f", "createdAt": "2026-11-21T00:00:00Z", "status": "{status}"}}"#
            );
            read(&text).unwrap().image.state
        };
        assert_eq!(of("READY"), ImageState::Ready);
        assert_eq!(of("ERROR"), ImageState::Failed);
        assert_eq!(of("RESTING"), ImageState::Unknown);
        assert_eq!(of("STATUS_UNSPECIFIED"), ImageState::Unknown);
    }

    #[test]
    fn what_is_not_proven_is_never_ready() {
        let of = |status: &str, created_at: &str| {
            let text = format!(
                r#"{{"id": "i", "folderId": "f", "createdAt": "{created_at}", "status": "{status}", "labels": {{"stillframe-unproven": "yes"}}}}"#
            );
            let found = read(&text).unwrap();
            (found.image.state, found.is_made)
        };
        assert_eq!(of("READY", "2026-11-21T00:00:00Z"), (ImageState::Creating, true));
        assert_eq!(of("READY", "2026-11-20T23:30:00Z"), (ImageState::Failed, true));
        // However long it takes the service.
        assert_eq!(of("CREATING", "2026-11-20T20:00:00Z"), (ImageState::Creating, false));
        assert_eq!(of("ERROR", "2026-11-21T00:00:00Z"), (ImageState::Failed, false));
    }

    #[test]
    fn every_change_of_labels_changes_the_fingerprint() {
        let of = |labels: &str| {
            let text = format!(
                r#"{{"id": "i", "folderId": "f", "createdAt": "2026-11-21T00:00:00Z", "name": "n", "labels": {labels}}}"#
            );
            read(&text).unwrap().image.fingerprint
        };
        let all = [of("{}"), of(r#"{"a": "b"}"#), of(r#"{"ab": ""}"#), of(r#"{"a": "c"}"#)];
        assert!(all.iter().enumerate().all(|(index, one)| !all[..index].contains(one)));
        assert!(read(r#"{"id": "i", "createdAt": "2026-11-21T00:00:00Z"}"#).is_err());
        assert!(read(r#"{"id": "i", "folderId": "f"}"#).is_err());
    }
}
