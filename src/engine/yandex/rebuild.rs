//! Makes disks of images and snapshots, and a machine over them.
//!
//! An image has no more than the disk; the machine is made like an instance that is there: the source,
//! or another one that is named. Disks are named after the machine, so that what a run has begun is
//! found again by the next.
//!
//! What is on a disk that a machine had need not be what is in the image any more, and the service does not
//! say of a disk which machines had it. So a disk carries a mark from its beginning to the end of its
//! restore, and only one with the mark of the same restore is taken up. A machine is asked for under a
//! key that is a function of its disks, so that none is made over disks that had one.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::YandexEngine;
use super::call::CallError;
use super::change::Meant;
use super::image::{Collection, Found};
use super::service::{OPERATION_TIME_MAX, WaitError};
use super::wire;
use crate::engine::http::{Call, Leave, Looks, Method, Watched, id_of};
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

/// Label on a disk whose restore has not ended: which restore that is.
const LABEL_RESTORE: &str = "stillframe-restore";
/// So long after it was made such a disk is taken up: while the service surely knows requests again.
const TAKEN_UP_WITHIN: SignedDuration = SignedDuration::from_hours(12);

/// How often labels are merged anew that somebody else has changed meanwhile.
const MERGES_MAX: u32 = 3;

/// A disk to be made.
struct Part {
    found: Found,
    /// What it is called within the machine.
    device: Option<String>,
    is_boot: bool,
    name: String,
}

/// What disks are made for.
struct Aim<'a> {
    like: &'a wire::Instance,
    zone: &'a str,
    /// The same for every run that is asked for the same.
    restore: String,
}

/// Which restore one is: the same for the same disks, and for a machine that is asked for in the same way.
/// What disks alone are made for is another one.
fn restore_id(
    request: &RebuildRequest,
    image: &str,
    like: &Value,
    zone: &str,
) -> Result<String, EngineError> {
    let shape =
        if request.disks_only { None } else { machine(request, like, zone, &[], &[])?.body };
    let disks: BTreeSet<&String> = request.disks.iter().collect();
    Ok(id_of(&("restore", image, &request.name, zone, disks, shape)))
}

/// Leave to set labels of a disk: as long as they are as they were seen, or set already.
struct DiskLabels<'a> {
    engine: &'a YandexEngine,
    id: &'a str,
    before: &'a BTreeMap<String, String>,
    after: &'a BTreeMap<String, String>,
}

#[async_trait]
impl Leave for DiskLabels<'_> {
    async fn may_send(&self, _: bool) -> Result<(), EngineError> {
        let now = self.engine.disk_of(self.id).await?.labels;
        let is_free = now == *self.before || now == *self.after;
        if is_free { Ok(()) } else { Err(EngineError::Changed) }
    }
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
        let restore = restore_id(request, &image.id, &like, &zone)?;
        let aim = Aim { like: &like_instance, zone: &zone, restore };
        // What is in the way is found before anything is made.
        let there = self.disks_there(&parts, &aim, watcher).await?;
        let disks = parts.iter().zip(there).map(|(part, there)| async {
            match there {
                Some(disk) => Ok((disk, false)),
                None => Ok((self.new_disk(part, &aim, watcher).await?, true)),
            }
        });
        let disks: Vec<(wire::Disk, bool)> =
            join_all(disks).await.into_iter().collect::<Result<_, EngineError>>()?;
        let instance = if request.disks_only {
            self.hand_over(&disks, &aim).await.map_err(|error| {
                EngineError::Failed(format!(
                    "its disks were made, and are not marked as ready for use ({LABEL_RESTORE}): {error}; run it again"
                ))
            })?;
            None
        } else {
            let call = machine(request, &like, &zone, &parts, &disks)?;
            let made = self.machine_over(&call, &disks, &aim, watcher).await?;
            // The machine has them, and no other one is made over them under the same key.
            if let Err(error) = self.hand_over(&disks, &aim).await {
                tracing::warn!("{LABEL_RESTORE} stays on the disks of {}: {error}", request.name);
            }
            Some(made)
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

    /// The disks that a run before has made for the same restore; an error where anything else has the
    /// name of one.
    async fn disks_there(
        &self,
        parts: &[Part],
        aim: &Aim<'_>,
        watcher: &dyn Watcher,
    ) -> Result<Vec<Option<wire::Disk>>, EngineError> {
        let looks = parts.iter().map(|part| self.disk_there(part, aim, watcher));
        let there: Vec<Option<wire::Disk>> =
            join_all(looks).await.into_iter().collect::<Result<_, _>>()?;
        // A run that was killed while it took the marks off had made all of them.
        let is_open =
            there.iter().flatten().any(|disk| disk.labels.get(LABEL_RESTORE) == Some(&aim.restore));
        let now = self.services.service_now().await;
        for disk in there.iter().flatten() {
            refuse_used(disk, is_open, now)?;
        }
        Ok(there)
    }

    /// What has the name of a disk, if it was made of the image.
    async fn disk_there(
        &self,
        part: &Part,
        aim: &Aim<'_>,
        watcher: &dyn Watcher,
    ) -> Result<Option<wire::Disk>, EngineError> {
        let place = &part.found.place;
        let found = self.disk_named(&aim.like.folder_id, &part.name).await?;
        let Some(disk) = found else { return Ok(None) };
        let is_it = match place.collection {
            Collection::Images => disk.source_image_id == place.id,
            Collection::Snapshots => disk.source_snapshot_id == place.id,
        };
        if !is_it || disk.zone_id != aim.zone {
            return Err(EngineError::NameTaken(part.name.clone()));
        }
        self.until_there(disk, watcher).await.map(Some)
    }

    /// A new disk of an image.
    async fn new_disk(
        &self,
        part: &Part,
        aim: &Aim<'_>,
        watcher: &dyn Watcher,
    ) -> Result<wire::Disk, EngineError> {
        let place = &part.found.place;
        let Aim { like, zone, restore } = aim;
        let folder = &like.folder_id;
        let kind = self.type_like(part, like).await;
        let field = match place.collection {
            Collection::Images => "imageId",
            Collection::Snapshots => "snapshotId",
        };
        let size = part.found.image.disk_bytes.unwrap_or_default().to_string();
        let mut body = json!({
            "folderId": folder, "name": part.name, "zoneId": zone, "typeId": kind, "size": size,
            "labels": {LABEL_RESTORE: restore},
        });
        body[field] = json!(place.id);
        let call = Call::post("compute/v1/disks").with_body(&body)?;
        let turn = self.rooms.one(folder).await;
        let operation = self.carry_out(&turn, &call, restore, &Watched(watcher)).await.result?;
        self.disk_of(&operation.metadata.disk_id).await
    }

    async fn disk_of(&self, id: &str) -> Result<wire::Disk, EngineError> {
        Ok(self.services.get(&Call::get(&format!("compute/v1/disks/{id}"))).await?)
    }

    /// A disk that another run has begun, once the service is done with it.
    async fn until_there(
        &self,
        mut disk: wire::Disk,
        watcher: &dyn Watcher,
    ) -> Result<wire::Disk, EngineError> {
        let mut looks = Looks::within(OPERATION_TIME_MAX);
        while disk.status == "CREATING" {
            if watcher.is_cancelled() {
                return Err(EngineError::Interrupted);
            }
            let Some(time) = looks.pause() else { break };
            self.services.pause.pause(time).await;
            disk = self.disk_of(&disk.id).await?;
        }
        if disk.status == "READY" {
            return Ok(disk);
        }
        Err(EngineError::Failed(format!("the disk {} is {}", disk.name, disk.status)))
    }

    /// A machine over disks of which none has had one.
    async fn machine_over(
        &self,
        call: &Call,
        disks: &[(wire::Disk, bool)],
        aim: &Aim<'_>,
        watcher: &dyn Watcher,
    ) -> Result<String, EngineError> {
        let ids: Vec<&str> = disks.iter().map(|(disk, _)| disk.id.as_str()).collect();
        let turn = self.rooms.one(&aim.like.folder_id).await;
        let made = self.carry_out_once(&turn, call, &ids.join(" "), &Watched(watcher)).await?;
        made.map(|operation| operation.metadata.instance_id).ok_or_else(|| {
            EngineError::Refused(
                "a machine was made over its disks before and is gone, so what is on them need not be what is in the image: choose another name (--name), or delete them first"
                    .to_owned(),
            )
        })
    }

    /// Takes the mark of the restore off: from now on the disks are for somebody to use.
    async fn hand_over(
        &self,
        disks: &[(wire::Disk, bool)],
        aim: &Aim<'_>,
    ) -> Result<(), EngineError> {
        for (disk, _) in disks {
            self.take_mark_off(&disk.id, aim).await?;
        }
        Ok(())
    }

    /// Labels go as a whole: those that somebody sets meanwhile stay.
    async fn take_mark_off(&self, id: &str, aim: &Aim<'_>) -> Result<(), EngineError> {
        let turn = self.rooms.one(&aim.like.folder_id).await;
        for _ in 0..MERGES_MAX {
            let before = self.disk_of(id).await?.labels;
            let mut after = before.clone();
            if after.remove(LABEL_RESTORE).is_none() {
                return Ok(());
            }
            let body = json!({"updateMask": "labels", "labels": after});
            let path = format!("compute/v1/disks/{id}");
            let call = Call::new(Method::Patch, &path).with_body(&body)?;
            let leave = DiskLabels { engine: self, id, before: &before, after: &after };
            match self.carry_out(&turn, &call, &aim.restore, &leave).await.result {
                Err(WaitError::Call(CallError::Withheld(EngineError::Changed))) => {}
                ended => return Ok(ended.map(drop)?),
            }
        }
        Err(EngineError::Busy(format!("the labels of the disk {id} keep changing")))
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
}

/// Refuses a disk that may hold something else by now than the image that it was made of. `is_open` says
/// whether the restore that is asked for has begun and not ended.
fn refuse_used(disk: &wire::Disk, is_open: bool, now: Timestamp) -> Result<(), EngineError> {
    let made: Option<Timestamp> = disk.created_at.parse().ok();
    let is_recent = made.is_some_and(|made| now.duration_since(made) <= TAKEN_UP_WITHIN);
    let why = if let Some(user) = disk.instance_ids.first() {
        format!("and the instance {user} has it")
    } else if !is_open {
        "by a restore that has ended or is another one; a machine may have had it since".to_owned()
    } else if !is_recent {
        format!("by a restore that began more than {} hours ago", TAKEN_UP_WITHIN.as_hours())
    } else {
        return Ok(());
    };
    Err(EngineError::Refused(format!(
        "the disk {} was made of the image at {}, {why}: choose another name (--name), or delete the disk if nobody needs it",
        disk.name, disk.created_at
    )))
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
