//! Makes disks of images and snapshots, and a machine over them.
//!
//! An image has no more than the disk; the machine is made like an instance that is there: the source,
//! or another one that is named. Disks are named after the machine, so that what a run has begun is
//! found again by the next.

use futures_util::future::join_all;
use serde_json::{Map, Value, json};

use super::YandexEngine;
use super::change::Meant;
use super::image::{Collection, Found};
use super::wire::{self, Operation};
use crate::engine::http::Call;
use crate::engine::set::{LABEL_BOOT, LABEL_DISK};
use crate::engine::{EngineError, RebuildRequest, Rebuilt, RebuiltDisk, Watcher};
use crate::inventory::ImageState;
use crate::name::{Ownership, is_rfc1035_label};

/// The kind of disk where no other is known.
const TYPE_DEFAULT: &str = "network-ssd";
/// What of an instance its likeness has.
const LIKE: [&str; 6] = [
    "platformId",
    "schedulingPolicy",
    "serviceAccountId",
    "networkSettings",
    "metadataOptions",
    "metadata",
];

/// A disk to be made.
struct Part {
    found: Found,
    /// What it is called within the machine.
    device: Option<String>,
    is_boot: bool,
    name: String,
}

impl YandexEngine {
    pub(super) async fn make_again(
        &self,
        request: &RebuildRequest,
        watcher: &dyn Watcher,
    ) -> Result<Rebuilt, EngineError> {
        if !is_rfc1035_label(&request.name) {
            return Err(EngineError::Refused(format!("{} is no name of a machine", request.name)));
        }
        let Meant { image, members } = self.meant(&request.image).await?;
        if image.state != ImageState::Ready {
            return Err(EngineError::Refused(format!("{} is not READY", image.name)));
        }
        let like = self.likeness(request, &image).await?;
        let like_instance: wire::Instance = serde_json::from_value(like.clone())
            .map_err(|error| EngineError::Failed(error.to_string()))?;
        let parts = parts(request, members)?;
        let boots = parts.iter().filter(|part| part.is_boot).count();
        if !request.disks_only && boots != 1 {
            return Err(EngineError::Refused(
                "nothing says which of its disks a machine starts from; make only the disks"
                    .to_owned(),
            ));
        }
        let zone = request.zone.clone().unwrap_or_else(|| like_instance.zone_id.clone());
        let disks = parts.iter().map(|part| self.disk(part, &like_instance, &zone, watcher));
        let disks: Vec<(wire::Disk, bool)> =
            join_all(disks).await.into_iter().collect::<Result<_, _>>()?;
        let instance = if request.disks_only {
            None
        } else {
            let call = machine(request, &like, &zone, &parts, &disks)?;
            let operation = self.begin(&like_instance.folder_id, &call, watcher).await?;
            Some(operation.metadata.instance_id)
        };
        let disks = disks.into_iter().map(|(disk, is_new)| RebuiltDisk {
            taken_up: disk.created_at.parse().ok().filter(|_| !is_new),
            id: disk.id,
            name: disk.name,
            size_bytes: disk.size.unwrap_or_default(),
        });
        Ok(Rebuilt { image: image.name, zone, instance, disks: disks.collect() })
    }

    /// The instance that the machine is to be like, with all that the service says of it.
    async fn likeness(
        &self,
        request: &RebuildRequest,
        image: &crate::inventory::Image,
    ) -> Result<Value, EngineError> {
        let wanted = match (&request.like, image.ownership()) {
            (Some(like), _) => like.clone(),
            (None, Ownership::Ours(key)) => key.source.to_string(),
            (None, _) => {
                return Err(EngineError::Refused(
                    "the image does not say of which instance it is: name one that the machine is to be like"
                        .to_owned(),
                ));
            }
        };
        let call = Call::get(&format!("compute/v1/instances/{wanted}")).with("view", "FULL");
        match self.services.get::<Value>(&call).await {
            Ok(instance) => return Ok(instance),
            Err(error) if error.is_gone() => {}
            Err(error) => return Err(error.into()),
        }
        for folder in &self.settings.folders {
            let call = Call::get("compute/v1/instances")
                .with("folderId", folder.as_str())
                .with("filter", format!("name=\"{wanted}\""));
            let (pages, error) = self.services.pages(&call).await;
            if let Some(error) = error {
                return Err(error.into());
            }
            let all = pages.into_iter().flat_map(|page| page.instances);
            if let Some(found) = all.into_iter().find(|instance| instance.name == wanted) {
                let call = Call::get(&format!("compute/v1/instances/{}", found.id));
                return Ok(self.services.get::<Value>(&call.with("view", "FULL")).await?);
            }
        }
        Err(EngineError::Refused(format!(
            "there is no instance {wanted} any more: name another one that the machine is to be like"
        )))
    }

    /// A disk of an image: one that a run before has made of it and nobody has, or a new one. Tells
    /// whether it is new.
    async fn disk(
        &self,
        part: &Part,
        like: &wire::Instance,
        zone: &str,
        watcher: &dyn Watcher,
    ) -> Result<(wire::Disk, bool), EngineError> {
        let place = &part.found.place;
        let folder = &like.folder_id;
        if let Some(disk) = self.disk_named(folder, &part.name).await? {
            let is_it = match place.collection {
                Collection::Images => disk.source_image_id == place.id,
                Collection::Snapshots => disk.source_snapshot_id == place.id,
            };
            if !is_it || disk.zone_id != zone || disk.status != "READY" {
                return Err(EngineError::NameTaken(part.name.clone()));
            }
            // What is on it by now is not what is in the image.
            if let Some(user) = disk.instance_ids.first() {
                return Err(EngineError::Refused(format!(
                    "the disk {} was made of the image at {} and the instance {user} has it: choose another name",
                    part.name, disk.created_at
                )));
            }
            return Ok((disk, false));
        }
        let kind = self.type_like(part, like).await;
        let field = match place.collection {
            Collection::Images => "imageId",
            Collection::Snapshots => "snapshotId",
        };
        let size = part.found.image.disk_bytes.unwrap_or_default().to_string();
        let mut body = json!({
            "folderId": folder, "name": part.name, "zoneId": zone, "typeId": kind, "size": size,
        });
        body[field] = json!(place.id);
        let call = Call::post("compute/v1/disks").with_body(&body)?;
        let operation = self.begin(folder, &call, watcher).await?;
        let call = Call::get(&format!("compute/v1/disks/{}", operation.metadata.disk_id));
        Ok((self.services.get(&call).await?, true))
    }

    /// The kind of disk that the instance has under the same name.
    async fn type_like(&self, part: &Part, like: &wire::Instance) -> String {
        let same = like.disks().find(|(disk, boot)| match &part.device {
            Some(device) => disk.name() == device,
            None => *boot == part.is_boot,
        });
        let Some((attached, _)) = same else { return TYPE_DEFAULT.to_owned() };
        let call = Call::get(&format!("compute/v1/disks/{}", attached.disk_id));
        match self.services.get::<wire::Disk>(&call).await {
            Ok(disk) if !disk.type_id.is_empty() => disk.type_id,
            Ok(_) | Err(_) => TYPE_DEFAULT.to_owned(),
        }
    }

    async fn disk_named(
        &self,
        folder: &str,
        name: &str,
    ) -> Result<Option<wire::Disk>, EngineError> {
        let call = Call::get("compute/v1/disks")
            .with("folderId", folder)
            .with("filter", format!("name=\"{name}\""));
        let (pages, error) = self.services.pages(&call).await;
        if let Some(error) = error {
            return Err(error.into());
        }
        let mut all = pages.into_iter().flat_map(|page| page.disks);
        Ok(all.find(|disk| disk.name == name))
    }

    async fn begin(
        &self,
        folder: &str,
        call: &Call,
        watcher: &dyn Watcher,
    ) -> Result<Operation, EngineError> {
        let turn = self.rooms.one(folder).await;
        let seen = self.clock.now().to_string();
        Ok(self.carry_out(&turn, call, &seen, watcher).await.result?)
    }
}

/// The disks that are wanted, the one to start from first.
fn parts(request: &RebuildRequest, members: Vec<Found>) -> Result<Vec<Part>, EngineError> {
    let is_one = members.len() == 1;
    let mut parts: Vec<Part> = members
        .into_iter()
        .map(|found| {
            let labels = &found.image.labels;
            let device = labels.get(LABEL_DISK).cloned();
            // Ours have a label that says it; of others a single one can only be that.
            let is_ours = matches!(found.image.ownership(), Ownership::Ours(_));
            let is_boot = labels.contains_key(LABEL_BOOT) || (is_one && !is_ours);
            let unnamed = if is_boot { "boot" } else { "disk" };
            let last = device.as_deref().unwrap_or(unnamed).replace('_', "-");
            let name = format!("{}-{last}", request.name);
            Part { found, device, is_boot, name }
        })
        .collect();
    let names: Vec<String> =
        parts.iter().map(|part| part.device.clone().unwrap_or_default()).collect();
    if let Some(missing) = request.disks.iter().find(|disk| !names.contains(disk)) {
        return Err(EngineError::Refused(format!(
            "it has no disk {missing}; there are: {}",
            names.join(", ")
        )));
    }
    let is_wanted = |part: &Part| {
        request.disks.is_empty()
            || part.device.as_ref().is_some_and(|device| request.disks.contains(device))
    };
    parts.retain(is_wanted);
    parts.sort_by_key(|part| !part.is_boot);
    match parts.iter().find(|part| !is_rfc1035_label(&part.name)) {
        Some(part) => Err(EngineError::Refused(format!("{} is no name of a disk", part.name))),
        None => Ok(parts),
    }
}

/// The request for a machine like another one, over these disks.
fn machine(
    request: &RebuildRequest,
    like: &Value,
    zone: &str,
    parts: &[Part],
    disks: &[(wire::Disk, bool)],
) -> Result<Call, EngineError> {
    let mut body = Map::new();
    for field in LIKE {
        if let Some(value) = like.get(field) {
            body.insert(field.to_owned(), value.clone());
        }
    }
    if let Some(resources) = like.get("resources") {
        body.insert("resourcesSpec".to_owned(), resources.clone());
    }
    // The same networks, with addresses of its own: those of the other may be in use.
    let interfaces = like["networkInterfaces"].as_array().into_iter().flatten().map(|interface| {
        let mut spec = json!({"subnetId": interface["subnetId"], "primaryV4AddressSpec": {}});
        if let Some(groups) = interface.get("securityGroupIds") {
            spec["securityGroupIds"] = groups.clone();
        }
        spec
    });
    body.insert("networkInterfaceSpecs".to_owned(), interfaces.collect());
    if let Some(kind) = &request.machine_type {
        body.insert("platformId".to_owned(), json!(kind));
    }
    let mut specs = parts.iter().zip(disks).map(|(part, (disk, _))| {
        let mut spec = json!({"diskId": disk.id, "mode": "READ_WRITE"});
        if let Some(device) = &part.device {
            spec["deviceName"] = json!(device);
        }
        spec
    });
    let boot = specs.next().unwrap_or_default();
    for (field, value) in [
        ("folderId", like["folderId"].clone()),
        ("name", json!(request.name)),
        ("zoneId", json!(zone)),
        ("labels", json!(request.labels)),
        ("bootDiskSpec", boot),
        ("secondaryDiskSpecs", specs.collect()),
    ] {
        body.insert(field.to_owned(), value);
    }
    Ok(Call::post("compute/v1/instances").with_body(&body)?)
}
