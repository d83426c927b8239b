//! Makes images: looks first, asks once, waits for the operation and then for the image.

use serde_json::{Value, json};

use super::GceEngine;
use super::call::{Call, CallError};
use super::http::{Looks, WaitError};
use super::image::{Collection, Found, Wire};
use super::wire::{self, DiskImage, MachineImage, Operation, Snapshot, resource_path};
use crate::engine::{CreateRequest, Created, EngineError, Progress, Watcher};
use crate::inventory::{Consistency, Image, ImageState};
use crate::name::{Key, Ownership, SourceId, is_rfc1035_label};

/// How often an image may not be there yet though the operation that made it is done.
const UNSEEN_MAX: u32 = 5;

/// What is asked for, and of whom.
struct Wanted<'a> {
    collection: Collection,
    project: String,
    name: &'a str,
    key: &'a Key,
    /// The path of the instance or disk it is made of.
    made_of: String,
}

impl GceEngine {
    pub(super) async fn make(
        &self,
        request: &CreateRequest,
        watcher: &dyn Watcher,
    ) -> Result<Created, EngineError> {
        if request.create.sharing.is_some() {
            return Err(EngineError::Refused("this engine shares no images".to_owned()));
        }
        if !is_rfc1035_label(&request.name) {
            return Err(EngineError::Refused(format!("{} is no name of an image", request.name)));
        }
        let (project, instance) = self.instance(&request.key.source).await?;
        let collection = Collection::of(request.create.kind);
        let (made_of, call) = insertion(&project, &instance, request, collection)?;
        let wanted =
            Wanted { collection, project, name: &request.name, key: &request.key, made_of };
        if let Some(found) = self.named(&wanted).await? {
            return self.taken(&wanted, found, watcher).await;
        }
        if watcher.is_cancelled() {
            return Err(EngineError::Interrupted);
        }
        let call = call.with("requestId", self.request_id(&request.name));
        let bytes = request.create.disk_bytes;
        let progress = |percent: u64| {
            watcher.progress(Progress { done: bytes / 100 * percent, total: bytes });
        };
        let ended = match self.http.send::<Operation>(&call).await {
            Ok(operation) => self.http.finish(&wanted.project, operation, watcher, &progress).await,
            Err(error) => Err(WaitError::Call(error)),
        };
        match ended {
            Ok(()) => self.until_ready(&wanted, None, watcher).await.map(Created::Made),
            Err(WaitError::Interrupted) => Err(EngineError::Interrupted),
            // Another run was faster, or it was made and what told of it was lost.
            Err(WaitError::Call(error))
                if error.is_taken() || error.is_open() || error.is_gone() =>
            {
                match self.named(&wanted).await? {
                    Some(found) => self.taken(&wanted, found, watcher).await,
                    None => Err(error.into()),
                }
            }
            Err(WaitError::Call(error)) => Err(error.into()),
        }
    }

    /// The project and the instance of a source as it is now.
    async fn instance(&self, id: &SourceId) -> Result<(String, wire::Instance), EngineError> {
        for fresh in [false, true] {
            let source = self.locate(id, fresh).await.map_err(EngineError::Failed)?;
            // By its id, so that it is not another one under its name.
            let path = format!("projects/{}/zones/{}/instances/{id}", source.project, source.zone);
            let fields = "id,name,zone,status,disks(deviceName,boot,source,type)";
            match self.http.send::<wire::Instance>(&Call::get(&path).with("fields", fields)).await {
                Ok(instance) if instance.id == id.as_str() => {
                    return Ok((source.project, instance));
                }
                Ok(_) => {}
                Err(error) if error.is_gone() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(EngineError::Failed(format!("there is no instance with the id {id}")))
    }

    /// The image that has the name, if there is one.
    async fn named(&self, wanted: &Wanted<'_>) -> Result<Option<Found>, EngineError> {
        let path = format!("{}/{}", wanted.collection.path(&wanted.project), wanted.name);
        self.find(&wanted.project, wanted.collection, &path).await
    }

    /// The image at a path, by name or number, if there is one.
    pub(super) async fn find(
        &self,
        project: &str,
        collection: Collection,
        path: &str,
    ) -> Result<Option<Found>, EngineError> {
        let call = Call::get(path).with("fields", collection.fields());
        let found = match collection {
            Collection::MachineImages => self.read::<MachineImage>(project, &call).await,
            Collection::Images => self.read::<DiskImage>(project, &call).await,
            Collection::Snapshots => self.read::<Snapshot>(project, &call).await,
        };
        match found {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_gone() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn read<T: Wire>(&self, project: &str, call: &Call) -> Result<Found, CallError> {
        let image = self.http.send::<T>(call).await?;
        let mut found = image.found(project).map_err(CallError::Unreadable)?;
        found.name_source(|id| self.known_source(id).map(|source| source.name));
        Ok(found)
    }

    /// What to make of an image that has the name already.
    async fn taken(
        &self,
        wanted: &Wanted<'_>,
        found: Found,
        watcher: &dyn Watcher,
    ) -> Result<Created, EngineError> {
        let is_ours = found.image.ownership() == Ownership::Ours(wanted.key.clone());
        if !is_ours || found.image.is_copy() || found.made_of != wanted.made_of {
            return Err(EngineError::NameTaken(found.image.name));
        }
        self.until_ready(wanted, Some(found), watcher).await.map(Created::Found)
    }

    /// Waits until an image is READY. It goes on being made after its operation is done.
    async fn until_ready(
        &self,
        wanted: &Wanted<'_>,
        mut found: Option<Found>,
        watcher: &dyn Watcher,
    ) -> Result<Image, EngineError> {
        let failed = |why: &str| Err(EngineError::Failed(format!("{}: {why}", wanted.name)));
        let mut looks = Looks::new();
        let mut unseen = 0;
        loop {
            if found.is_none() {
                found = self.named(wanted).await?;
            }
            match found.take().map(|found| found.image) {
                Some(image) if image.ownership() != Ownership::Ours(wanted.key.clone()) => {
                    return Err(EngineError::NameTaken(image.name));
                }
                Some(image) => match image.state {
                    ImageState::Ready => return Ok(image),
                    ImageState::Creating => {}
                    ImageState::Failed => return failed("the service could not make it"),
                    ImageState::Deleting => return failed("it is being deleted"),
                    ImageState::Unknown => return failed("it is in a state that is not known"),
                },
                None if unseen < UNSEEN_MAX => unseen += 1,
                None => return failed("it is not there though the operation is done"),
            }
            if watcher.is_cancelled() {
                return Err(EngineError::Interrupted);
            }
            let Some(time) = looks.pause() else {
                return failed("it does not become READY");
            };
            self.http.pause.pause(time).await;
        }
    }
}

/// What an image is made of, and the request that makes it.
fn insertion(
    project: &str,
    instance: &wire::Instance,
    request: &CreateRequest,
    collection: Collection,
) -> Result<(String, Call), EngineError> {
    let create = &request.create;
    let is_flushed = create.consistency == Consistency::Application;
    let mut body = json!({
        "name": request.name,
        "description": create.description,
        "labels": create.labels,
    });
    let mut set = |field: &str, value: Value| body[field] = value;
    if !request.location.is_empty() {
        set("storageLocations", json!([request.location]));
    }
    let key = create.kms_key.as_ref().map(|key| json!({"kmsKeyName": key}));
    let mut call = Call::post(&collection.path(project));
    let made_of;
    match collection {
        Collection::MachineImages => {
            made_of = instance_path(project, instance);
            set("sourceInstance", json!(made_of));
            if is_flushed {
                set("guestFlush", json!(true));
            }
            if !create.excluded_disks.is_empty() {
                set("params", json!({"excludedDisks": create.excluded_disks}));
            }
            if let Some(key) = key {
                set("machineImageEncryptionKey", key);
            }
        }
        Collection::Images => {
            if is_flushed {
                return Err(EngineError::Refused(
                    "disk images are as after a power failure; take snapshots or machine images for application consistency".to_owned(),
                ));
            }
            made_of = disk_path(instance, &create.disks)?;
            set("sourceDisk", json!(made_of));
            if let Some(family) = &create.family {
                set("family", json!(family));
            }
            if let Some(key) = key {
                set("imageEncryptionKey", key);
            }
            // The disk belongs to a machine that may run: that is what crash consistency is.
            call = call.with("forceCreate", "true");
        }
        Collection::Snapshots => {
            made_of = disk_path(instance, &create.disks)?;
            set("sourceDisk", json!(made_of));
            if is_flushed {
                set("guestFlush", json!(true));
            }
            if let Some(key) = key {
                set("snapshotEncryptionKey", key);
            }
        }
    }
    Ok((made_of, call.with_body(&body)?))
}

fn instance_path(project: &str, instance: &wire::Instance) -> String {
    let zone = wire::last_segment(&instance.zone);
    format!("projects/{project}/zones/{zone}/instances/{}", instance.name)
}

/// The path of the one disk that is to be captured.
fn disk_path(instance: &wire::Instance, disks: &[String]) -> Result<String, EngineError> {
    let [wanted] = disks else {
        return Err(EngineError::Refused(format!(
            "disk images and snapshots hold one disk and not {}; choose it with `capture.disks`, or take machine images",
            disks.len()
        )));
    };
    let disk = instance.disks.iter().find(|disk| disk.device_name == *wanted);
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
