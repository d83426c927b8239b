//! The requests that make images and snapshots, as values.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde_json::{Value, json};

use super::call::CallError;
use super::image::{Collection, Found, LABEL_UNPROVEN, Place};
use super::settings::{DESCRIPTION_MAX, GIB, Images};
use super::wire;
use crate::engine::author::signed;
use crate::engine::http::Call;
use crate::engine::set::{LABEL_BOOT, Part, parts};
use crate::engine::{CopyRequest, CreateRequest, EngineError, step};
use crate::inventory::{Consistency, Via};
use crate::name::{Key, step_name};

/// The smallest disks that an image may ask for, in bytes. Source: `min_disk_size` in the protocol files.
const DISK_BYTES: RangeInclusive<u64> = 4 << 20..=4 << 40;

/// An image that is asked for, and how.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) collection: Collection,
    /// The folder that it is made in.
    pub(super) folder: String,
    pub(super) name: String,
    /// The name of the restore point.
    pub(super) point: String,
    pub(super) key: Key,
    /// The id of the disk; empty for a copy, which is made of an image.
    pub(super) disk: String,
    /// What the disk is called within its instance.
    pub(super) device: String,
    /// How many images the restore point is made of.
    pub(super) members: usize,
    /// Whether it is a snapshot on the way to an image.
    pub(super) is_step: bool,
    pub(super) is_copy: bool,
    /// What its label says of the place that it is imported from, where it is.
    pub(super) imported: Option<String>,
    pub(super) call: Call,
}

impl Wanted {
    /// The snapshot that an image of a disk is made from.
    pub(super) fn step(&self, request: &CreateRequest) -> Result<Self, CallError> {
        let name = step_name(&self.name);
        let said = Said {
            folder: &self.folder,
            name: &name,
            description: &format!("a step on the way to the image {}", self.name),
            labels: step::labels(&self.name, &request.create.labels),
            ..Said::default()
        };
        let call = snapshot(&self.disk, &said)?;
        let collection = Collection::Snapshots;
        Ok(Self { collection, name: name.clone(), is_step: true, call, ..self.clone() })
    }

    /// The same image, made from a snapshot of its disk.
    pub(super) fn of_snapshot(&self, id: &str) -> Self {
        let mut wanted = self.clone();
        if let Some(Value::Object(body)) = &mut wanted.call.body {
            body.remove("diskId");
            body.insert("snapshotId".to_owned(), json!(id));
        }
        wanted
    }

    /// The same copy with what restoring one hangs on: whether a machine starts from it, which only a
    /// label says, and how large its disk is at least.
    pub(super) fn like(&self, original: &Found) -> Self {
        let mut wanted = self.clone();
        let Some(body) = &mut wanted.call.body else { return wanted };
        if let Some(boot) = original.image.labels.get(LABEL_BOOT) {
            body["labels"][LABEL_BOOT] = json!(boot);
        }
        if let Some(bytes) = original.image.disk_bytes.filter(|bytes| DISK_BYTES.contains(bytes)) {
            body["minDiskSize"] = json!(bytes.to_string());
        }
        wanted
    }
}

/// What is said of a new image beside what it is made of.
#[derive(Debug, Clone, Default)]
pub(super) struct Said<'a> {
    pub(super) folder: &'a str,
    pub(super) name: &'a str,
    pub(super) description: &'a str,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) family: Option<&'a str>,
    /// How images are made in general.
    pub(super) images: Images,
    /// Whether Windows starts from it.
    pub(super) is_windows: bool,
    /// The size of the disk that it is made of, 0 where that is not known.
    pub(super) disk_bytes: u64,
}

/// The request for an image of a disk.
pub(super) fn image(disk: &str, said: &Said<'_>) -> Result<Call, CallError> {
    let mut body = common(said);
    body["diskId"] = json!(disk);
    if let Some(family) = said.family {
        body["family"] = json!(family);
    }
    if let Some(gib) = said.images.min_disk_gib {
        // The service takes no less than what the image is made of needs.
        body["minDiskSize"] = json!((gib * GIB).max(said.disk_bytes).to_string());
    }
    if said.images.pooled {
        body["pooled"] = json!(true);
    }
    if said.is_windows {
        body["os"] = json!({"type": "WINDOWS"});
    }
    Ok(Call::post(&Collection::Images.path()).with_body(&body)?)
}

/// The request for a snapshot.
fn snapshot(disk: &str, said: &Said<'_>) -> Result<Call, CallError> {
    let mut body = common(said);
    body["diskId"] = json!(disk);
    Ok(Call::post(&Collection::Snapshots.path()).with_body(&body)?)
}

fn common(said: &Said<'_>) -> Value {
    json!({
        "folderId": said.folder,
        "name": said.name,
        "description": said.description,
        "labels": said.labels,
    })
}

/// All images that a restore point of an instance is made of: one per disk.
pub(super) fn wanted(
    folder: &str,
    instance: &wire::Instance,
    images: &Images,
    request: &CreateRequest,
) -> Result<Vec<Wanted>, EngineError> {
    let create = &request.create;
    let refused = |message: String| Err(EngineError::Refused(message));
    let Some(collection) = Collection::of(create.kind) else {
        return refused("the service makes no images of whole machines; take snapshots".to_owned());
    };
    if collection == Collection::Snapshots && create.via == Via::Snapshot {
        return refused("only images are made from snapshots".to_owned());
    }
    if create.disks.is_empty() {
        return refused("there is no disk to be captured".to_owned());
    }
    if collection == Collection::Images && create.disks.len() > 1 {
        return refused(format!(
            "an image holds one disk and not {}; choose it with `capture.disks`, or take snapshots",
            create.disks.len()
        ));
    }
    let is_windows = !images.windows.is_empty()
        && images.windows.iter().all(|(label, value)| instance.labels.get(label) == Some(value));
    let parts = parts(&request.name, &create.labels, &create.disks);
    let members = parts.len();
    let description = signed(request.by.as_ref(), &create.description, DESCRIPTION_MAX);
    let one = |Part { disk: device, name, labels }: Part| {
        let attached = instance.disks().find(|(disk, _)| disk.name() == device);
        let Some((attached, is_boot)) = attached else {
            let message = format!("{} has no disk {device} any more", instance.name);
            return Err(EngineError::Failed(message));
        };
        let mut labels = labels;
        if is_boot {
            labels.insert(LABEL_BOOT.to_owned(), "yes".to_owned());
        }
        if create.consistency == Consistency::Stopped {
            labels.insert(LABEL_UNPROVEN.to_owned(), "yes".to_owned());
        }
        let said = Said {
            folder,
            name: &name,
            description: &description,
            labels,
            family: create.family.as_deref(),
            images: images.clone(),
            is_windows: is_windows && is_boot,
            // All disks of a snapshot, which has no such size; the one disk of an image.
            disk_bytes: create.disk_bytes,
        };
        let call = match collection {
            Collection::Images => image(&attached.disk_id, &said)?,
            Collection::Snapshots => snapshot(&attached.disk_id, &said)?,
        };
        Ok(Wanted {
            collection,
            folder: folder.to_owned(),
            name,
            point: request.name.clone(),
            key: request.key.clone(),
            disk: attached.disk_id.clone(),
            device,
            members,
            is_step: false,
            is_copy: false,
            imported: None,
            call,
        })
    };
    parts.into_iter().map(one).collect()
}

/// The copy of an image in another folder. It belongs to no family, since all images of one are in
/// one folder; it is not optimised for deployment, since it is there for the worst day; and the
/// service knows of the original which system it has.
pub(super) fn copy(original: &Place, request: &CopyRequest) -> Result<Wanted, CallError> {
    let copy = &request.copy;
    let description = format!("copy of {}", request.image.name);
    let description = signed(request.by.as_ref(), &description, DESCRIPTION_MAX);
    let said = Said {
        folder: &copy.location,
        name: &copy.name,
        description: &description,
        labels: copy.labels.clone(),
        ..Said::default()
    };
    let mut body = common(&said);
    body["imageId"] = json!(original.id);
    Ok(Wanted {
        collection: Collection::Images,
        folder: copy.location.clone(),
        name: copy.name.clone(),
        point: copy.name.clone(),
        key: request.key.clone(),
        disk: String::new(),
        device: String::new(),
        members: 1,
        is_step: false,
        is_copy: true,
        imported: None,
        call: Call::post(&Collection::Images.path()).with_body(&body)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_left_to_the_service() {
        let said = Said { folder: "f", name: "n", ..Said::default() };
        let body = image("x", &said).unwrap().body.unwrap();
        assert_eq!(body["diskId"], "x");
        assert!(body["os"].is_null() && body["pooled"].is_null() && body["family"].is_null());
        let said = Said {
            family: Some("web"),
            is_windows: true,
            images: Images { pooled: true, min_disk_gib: Some(20), ..Images::default() },
            ..said
        };
        let body = image("x", &said).unwrap().body.unwrap();
        assert_eq!(body["os"], json!({"type": "WINDOWS"}));
        assert_eq!((&body["pooled"], &body["family"]), (&json!(true), &json!("web")));
        assert_eq!(body["minDiskSize"], "21474836480");
        let larger = Said { disk_bytes: 30 << 30, ..said };
        assert_eq!(image("x", &larger).unwrap().body.unwrap()["minDiskSize"], "32212254720");
    }
}
