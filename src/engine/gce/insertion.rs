//! The requests that make images, as values.

use serde_json::{Value, json};

use super::image::{Collection, Place};
use super::settings::DESCRIPTION_MAX;
use super::wire::{self, resource_path};
use crate::engine::author::signed;
use crate::engine::http::Call;
use crate::engine::set::{Part, parts};
use crate::engine::{CopyRequest, CreateRequest, EngineError, bound, step};
use crate::inventory::{Consistency, ImageKind, Tier, Via};
use crate::name::{Key, step_name};
use crate::plan::Create;

/// An image that is asked for, and how.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) collection: Collection,
    /// The project that it is made in.
    pub(super) project: String,
    pub(super) name: String,
    /// The name of the restore point.
    pub(super) point: String,
    pub(super) key: Key,
    pub(super) is_copy: bool,
    /// The path of the instance or disk it is made of; the number of the image it is a copy of.
    pub(super) made_of: String,
    /// The path of the snapshot that it is made from, where it is.
    pub(super) through: Option<String>,
    /// Whether it is such a snapshot.
    pub(super) is_step: bool,
    /// The device, where it is of one.
    pub(super) disk: Option<String>,
    /// How many images the restore point is made of.
    pub(super) members: usize,
    pub(super) call: Call,
}

/// All images that a restore point of an instance is made of: one, or one per disk. They are made
/// in `project`.
pub(super) fn wanted(
    project: &str,
    instance_project: &str,
    instance: &wire::Instance,
    request: &CreateRequest,
) -> Result<Vec<Wanted>, EngineError> {
    let create = &request.create;
    let collection = Collection::of(create.kind);
    refuse(collection, request)?;
    let asked = Asked { project, request, collection, members: create.disks.len() };
    if collection == Collection::MachineImages {
        let (name, labels) = (request.name.clone(), create.labels.clone());
        let part = Part { disk: String::new(), name, labels };
        let made_of = instance_path(instance_project, instance);
        return Ok(vec![Asked { members: 1, ..asked }.part(&part, made_of)?]);
    }
    let parts = parts(&request.name, &create.labels, &create.disks);
    parts.iter().map(|part| asked.part(part, disk_path(instance, &part.disk)?)).collect()
}

/// Refuses what would leave out a disk that the plan has not seen. A machine image of all disks has what
/// is attached by now.
pub(super) fn refuse_unplanned(
    instance: &wire::Instance,
    create: &Create,
) -> Result<(), EngineError> {
    if create.kind == ImageKind::MachineImage && create.excluded_disks.is_empty() {
        return Ok(());
    }
    let attached = instance.disks.iter().map(|disk| disk.device_name.as_str());
    bound::refuse_unplanned(create, &instance.name, attached)
}

/// What the service cannot do is said before anything is asked for.
fn refuse(collection: Collection, request: &CreateRequest) -> Result<(), EngineError> {
    let create = &request.create;
    let is_flushed = create.consistency == Consistency::Application;
    let message = match collection {
        Collection::Images if is_flushed => "disk images are as after a power failure; take snapshots or machine images for application consistency".to_owned(),
        Collection::Images if create.disks.len() > 1 => format!(
            "a disk image holds one disk and not {}; choose it with `capture.disks`, or take snapshots or machine images",
            create.disks.len()
        ),
        Collection::Images | Collection::MachineImages if create.tier == Some(Tier::Archive) => {
            "only snapshots can be archived".to_owned()
        }
        Collection::MachineImages | Collection::Snapshots if create.via == Via::Snapshot => {
            "only disk images are made from snapshots".to_owned()
        }
        Collection::Images | Collection::Snapshots if create.disks.is_empty() => {
            "there is no disk to be captured".to_owned()
        }
        _ => return Ok(()),
    };
    Err(EngineError::Refused(message))
}

/// What a restore point is asked for with.
struct Asked<'a> {
    project: &'a str,
    request: &'a CreateRequest,
    collection: Collection,
    members: usize,
}

impl Asked<'_> {
    /// The request for one image of it.
    fn part(&self, part: &Part, made_of: String) -> Result<Wanted, EngineError> {
        let (request, create) = (self.request, &self.request.create);
        let description = signed(request.by.as_ref(), &create.description, DESCRIPTION_MAX);
        let mut body = body(&part.name, &description, &part.labels, &request.location);
        let mut set = |field: &str, value: Option<Value>| {
            if let Some(value) = value {
                body[field] = value;
            }
        };
        let key = create.kms_key.as_ref().map(|key| json!({"kmsKeyName": key}));
        let through = (create.via == Via::Snapshot).then(|| {
            let snapshots = Collection::Snapshots.path(self.project);
            format!("{snapshots}/{}", step_name(&part.name))
        });
        let mut call = Call::post(&self.collection.path(self.project));
        match self.collection {
            Collection::MachineImages => {
                set("sourceInstance", Some(json!(made_of)));
                // What is attached meanwhile is not part of the plan.
                let excluded = &create.excluded_disks;
                let included = create.disks.iter().filter(|disk| !excluded.contains(disk));
                let included: Vec<&String> = included.collect();
                let leaves_out = !excluded.is_empty();
                set("params", leaves_out.then(|| json!({"includedDisks": included})));
                set("machineImageEncryptionKey", key);
            }
            Collection::Images => {
                set("family", create.family.as_ref().map(|family| json!(family)));
                set("imageEncryptionKey", key);
                if let Some(snapshot) = &through {
                    set("sourceSnapshot", Some(json!(snapshot)));
                } else {
                    set("sourceDisk", Some(json!(made_of)));
                    // The disk belongs to a machine that may run: that is what crash consistency is.
                    call = call.with("forceCreate", "true");
                }
            }
            Collection::Snapshots => {
                set("snapshotEncryptionKey", key);
                set("snapshotType", create.tier.map(|tier| json!(type_of(tier))));
                let (asked, names_disk) = snapshot_of(self.project, &made_of);
                call = asked;
                set("sourceDisk", names_disk.then(|| json!(made_of)));
            }
        }
        let is_flushed = create.consistency == Consistency::Application;
        set("guestFlush", is_flushed.then_some(Value::Bool(true)));
        Ok(Wanted {
            collection: self.collection,
            project: self.project.to_owned(),
            name: part.name.clone(),
            point: request.name.clone(),
            key: request.key.clone(),
            is_copy: false,
            made_of,
            through,
            is_step: false,
            disk: Some(part.disk.clone()).filter(|disk| !disk.is_empty()),
            members: self.members,
            call: call.with_body(&body)?,
        })
    }
}

/// The snapshot that an image of a disk is made from.
pub(super) fn step(image: &Wanted, request: &CreateRequest) -> Result<Wanted, EngineError> {
    let create = &request.create;
    let name = step_name(&image.name);
    let labels = step::labels(&image.name, &create.labels);
    let description = format!("a step on the way to the image {}", image.name);
    let mut body = body(&name, &description, &labels, &request.location);
    if let Some(key) = &create.kms_key {
        body["snapshotEncryptionKey"] = json!({"kmsKeyName": key});
    }
    let (call, names_disk) = snapshot_of(&image.project, &image.made_of);
    if names_disk {
        body["sourceDisk"] = json!(image.made_of);
    }
    Ok(Wanted {
        collection: Collection::Snapshots,
        name,
        through: None,
        is_step: true,
        call: call.with_body(&body)?,
        ..image.clone()
    })
}

/// The request for a snapshot of a disk in a project, and whether it must name the disk. Within a
/// project the disk makes it, which is counted for its region; into another project only the other way
/// leads.
fn snapshot_of(project: &str, disk: &str) -> (Call, bool) {
    if disk.starts_with(&format!("projects/{project}/")) {
        (Call::post(&format!("{disk}/createSnapshot")), false)
    } else {
        (Call::post(&Collection::Snapshots.path(project)), true)
    }
}

/// The copy of a disk image in another location.
pub(super) fn copy(original: &Place, request: &CopyRequest) -> Result<Wanted, EngineError> {
    let copy = &request.copy;
    let description = format!("copy of {}", request.image.name);
    let description = signed(request.by.as_ref(), &description, DESCRIPTION_MAX);
    let mut body = body(&copy.name, &description, &copy.labels, &copy.location);
    body["sourceImage"] = json!(original.path());
    if let Some(key) = &copy.kms_key {
        body["imageEncryptionKey"] = json!({"kmsKeyName": key});
    }
    Ok(Wanted {
        collection: Collection::Images,
        project: original.project.clone(),
        name: copy.name.clone(),
        point: copy.name.clone(),
        key: request.key.clone(),
        is_copy: true,
        made_of: original.number.clone(),
        through: None,
        is_step: false,
        disk: None,
        members: 1,
        call: Call::post(&original.all()).with_body(&body)?,
    })
}

fn body(
    name: &str,
    description: &str,
    labels: &std::collections::BTreeMap<String, String>,
    location: &str,
) -> Value {
    let mut body = json!({"name": name, "description": description, "labels": labels});
    if !location.is_empty() {
        body["storageLocations"] = json!([location]);
    }
    body
}

/// The word of the API for a tier.
fn type_of(tier: Tier) -> &'static str {
    match tier {
        Tier::Standard => "STANDARD",
        Tier::Archive => "ARCHIVE",
    }
}

fn instance_path(project: &str, instance: &wire::Instance) -> String {
    let zone = wire::last_segment(&instance.zone);
    format!("projects/{project}/zones/{zone}/instances/{}", instance.name)
}

/// The path of a disk that is to be captured.
fn disk_path(instance: &wire::Instance, wanted: &str) -> Result<String, EngineError> {
    let disk = instance.disks.iter().find(|disk| disk.device_name == wanted);
    let Some(disk) = disk else {
        return Err(EngineError::Failed(format!(
            "{} has no disk {wanted} any more",
            instance.name
        )));
    };
    if disk.source.is_empty() {
        return Err(EngineError::Refused(format!(
            "{wanted} is part of the machine and cannot be captured"
        )));
    }
    Ok(resource_path(&disk.source).to_owned())
}
