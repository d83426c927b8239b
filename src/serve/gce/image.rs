//! Machine images, disk images and snapshots: what the engine's images are in this API.
//!
//! The engine's own record has name, labels, stage and sizes. What else the API gives back of an
//! image was written down when it was asked for, and lies beside the repositories.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Inner;
use super::answer::{Answer, Refusal};
use super::disk::GIB;
use super::fields::Fields;
use super::filter::Filter;
use super::label;
use super::link::{Links, Scope};
use super::operation::Begun;
use super::page;
use super::request::Request;
use crate::engine::Engine;
use crate::engine::local::instance::{InstanceDocument, LocalInstance};
use crate::inventory::{Disk, EngineInventory, Image, ImageKind, ImageState, Instance};
use crate::name::SourceId;
use crate::plan::{ImageRef, Update};
use crate::serve::stock::{Machine, MachineDisk, MadeDisk};

/// Fields that only the images themselves know.
const RECORDED: [&str; 5] = [
    "description",
    "instanceProperties",
    "savedDisks",
    "sourceInstance",
    "sourceInstanceProperties",
];

/// What is remembered of an image beyond what it records itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// The operation that made it, which tells two of the same second apart.
    pub sequence: u64,
    /// Fields that are given back as they are. Of a disk image some can be changed ([`super::patch`]).
    pub shown: Map<String, Value>,
    /// How it is deprecated.
    #[serde(default)]
    pub deprecated: Option<Value>,
    /// Who may use it, as the API shows that.
    #[serde(default)]
    pub bindings: Value,
    /// The region that it is in, where it is in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

/// Where an image is.
pub fn scope_of(kept: &Kept) -> Scope {
    kept.region.as_deref().map_or(Scope::Global, Scope::region)
}

/// Which images a collection holds.
pub fn kind_of(collection: &str) -> Option<ImageKind> {
    match collection {
        "machineImages" => Some(ImageKind::MachineImage),
        "images" => Some(ImageKind::DiskImage),
        "snapshots" => Some(ImageKind::Snapshot),
        _ => None,
    }
}

/// The collection that images of a kind are in.
pub fn collection_of(kind: ImageKind) -> &'static str {
    match kind {
        ImageKind::MachineImage => "machineImages",
        ImageKind::DiskImage => "images",
        ImageKind::Snapshot => "snapshots",
    }
}

/// What one of them is called in `kind`.
fn word_of(kind: ImageKind) -> &'static str {
    match kind {
        ImageKind::MachineImage => "machineImage",
        ImageKind::DiskImage => "image",
        ImageKind::Snapshot => "snapshot",
    }
}

fn status(kind: ImageKind, state: ImageState) -> &'static str {
    match (kind, state) {
        (_, ImageState::Ready) => "READY",
        (_, ImageState::Deleting) => "DELETING",
        (ImageKind::DiskImage, ImageState::Creating | ImageState::Begun) => "PENDING",
        (_, ImageState::Creating | ImageState::Begun) => "CREATING",
        (
            ImageKind::MachineImage,
            ImageState::Failed | ImageState::Partial | ImageState::Unknown,
        ) => "INVALID",
        (_, ImageState::Failed | ImageState::Partial | ImageState::Unknown) => "FAILED",
    }
}

/// An image as the API shows it.
pub fn json(image: &Image, kept: &Kept, links: &Links) -> Value {
    let collection = collection_of(image.kind);
    let mut shown = kept.shown.clone();
    let mut set = |field: &str, value: Value| shown.insert(field.to_owned(), value);
    set("kind", json!(format!("compute#{}", word_of(image.kind))));
    set("id", json!(image.id));
    set("name", json!(image.name));
    set("creationTimestamp", json!(image.created_at.to_string()));
    set("status", json!(status(image.kind, image.state)));
    let scope = scope_of(kept);
    set("selfLink", json!(links.link(&scope, collection, &image.name)));
    if let Scope::Region(region) = &scope {
        set("region", json!(links.region(region)));
    }
    set("storageLocations", json!([image.location]));
    set("labelFingerprint", json!(label::fingerprint(&image.labels)));
    if !image.labels.is_empty() {
        set("labels", json!(image.labels));
    }
    let stored = image.stored_bytes.map(|bytes| bytes.to_string());
    let gib = image.disk_bytes.map(|bytes| bytes.div_ceil(GIB).to_string());
    match (image.kind, stored, gib) {
        (ImageKind::MachineImage, Some(stored), _) => {
            set("totalStorageBytes", json!(stored));
        }
        (ImageKind::DiskImage, Some(stored), Some(gib)) => {
            set("archiveSizeBytes", json!(stored));
            set("diskSizeGb", json!(gib));
        }
        (ImageKind::Snapshot, Some(stored), Some(gib)) => {
            set("storageBytes", json!(stored));
            set("storageBytesStatus", json!("UP_TO_DATE"));
            set("diskSizeGb", json!(gib));
        }
        _ => {}
    }
    if let Some(deprecated) = &kept.deprecated {
        set("deprecated", deprecated.clone());
    }
    Value::Object(shown)
}

impl Inner {
    /// Answers a request for images of a kind.
    pub(super) async fn answer_images(&self, request: &Request, kind: ImageKind) -> Answer {
        match (request.parts(), kind) {
            (("GET", None, None), _) => self.list_images(request, kind).await,
            (("GET", Some("family"), Some(family)), ImageKind::DiskImage) => {
                let seen = self.seen().await?;
                let (image, kept) = self.newest(&seen, family)?;
                Ok(json(image, &kept, &self.links))
            }
            (("GET", Some(name), None), _) => {
                let seen = self.seen().await?;
                let image = self.find_image(&seen, kind, &request.scope, name)?;
                Ok(json(image, &self.whole(image, &seen).await?, &self.links))
            }
            (("POST", None, None), _) => self.insert(request, kind).await,
            (("PATCH", Some(name), None), ImageKind::DiskImage) => self.patch(request, name).await,
            (("DELETE", Some(name), None), _) => self.delete(request, kind, name).await,
            (("POST", Some(name), Some("setLabels")), _) => {
                self.set_labels(request, kind, name).await
            }
            (("POST", Some(name), Some("deprecate")), ImageKind::DiskImage) => {
                self.deprecate(request, name).await
            }
            (("GET", Some(name), Some("getIamPolicy")), _) => {
                self.policy(request, kind, name).await
            }
            (("POST", Some(name), Some("setIamPolicy")), _) => {
                self.set_policy(request, kind, name).await
            }
            (("POST", Some(name), Some("testIamPermissions")), _) => {
                self.permissions(request, kind, name).await
            }
            _ => Err(request.not_done()),
        }
    }

    async fn list_images(&self, request: &Request, kind: ImageKind) -> Answer {
        let seen = self.seen().await?;
        let listed: Vec<(&Image, Kept)> = seen
            .images
            .iter()
            .filter(|image| image.kind == kind)
            .map(|image| (image, self.kept(image, &seen)))
            .filter(|(_, kept)| scope_of(kept) == request.scope)
            .collect();
        if is_recorded_asked(request)? {
            self.read_records(listed.iter().map(|(image, _)| *image)).await?;
        }
        let shown = listed.into_iter().map(|(image, mut kept)| {
            self.add_recorded(image, &mut kept);
            (kept.sequence, json(image, &kept, &self.links))
        });
        page::list_in_sequence(request, &self.links, word_of(kind), shown.collect())
    }

    /// What is remembered of an image; of one that this server did not make, what can be told
    /// without opening it.
    pub(super) fn kept(&self, image: &Image, seen: &EngineInventory) -> Kept {
        if let Some(kept) = self.shelf.get(&image.id).or_else(|| self.pending(image)) {
            return kept;
        }
        let mut kept = Kept::default();
        let source = image
            .source
            .as_ref()
            .and_then(|source| seen.instances.iter().find(|instance| instance.id == source.id));
        if let (Some(instance), ImageKind::MachineImage) = (source, image.kind) {
            let link = self.links.link(&Scope::zone(&instance.zone), "instances", &instance.name);
            kept.shown.insert("sourceInstance".to_owned(), json!(link));
        }
        kept
    }

    /// All that can be told of an image, from the image itself where this server did not make it.
    pub(super) async fn whole(
        &self,
        image: &Image,
        seen: &EngineInventory,
    ) -> Result<Kept, Refusal> {
        let mut kept = self.kept(image, seen);
        self.read_records([image].into_iter()).await?;
        self.add_recorded(image, &mut kept);
        Ok(kept)
    }

    /// Reads what images record that this server did not make, once each: it never changes.
    async fn read_records(&self, images: impl Iterator<Item = &Image>) -> Result<(), Refusal> {
        let missing: BTreeSet<String> = {
            let known = self.recorded();
            let is_missing = |image: &&Image| {
                image.state == ImageState::Ready
                    && !known.contains_key(&image.id)
                    && self.shelf.get(&image.id).is_none()
            };
            images.filter(is_missing).map(|image| image.id.clone()).collect()
        };
        if missing.is_empty() {
            return Ok(());
        }
        let made = self.stock.made_disks();
        let records = self.engine.records(missing).await?;
        let read =
            records.into_iter().map(|(id, record)| (id, recorded(&record, &made, &self.links)));
        self.recorded().extend(read);
        Ok(())
    }

    /// Adds what an image records to what is remembered of it.
    fn add_recorded(&self, image: &Image, kept: &mut Kept) {
        if self.shelf.get(&image.id).is_none()
            && let Some(recorded) = self.recorded().get(&image.id)
        {
            kept.shown.extend(recorded.clone());
        }
    }

    fn recorded(&self) -> MutexGuard<'_, BTreeMap<String, Map<String, Value>>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn delete(&self, request: &Request, kind: ImageKind, name: &str) -> Answer {
        let _gate = self.gate.lock().await;
        if let Some(operation) = self.operations.replayed(request)? {
            return Ok(operation.json(&self.links));
        }
        let seen = self.seen().await?;
        let image = self.find_image(&seen, kind, &request.scope, name)?.clone();
        let target = self.links.link(&request.scope, collection_of(kind), &image.name);
        if self.operations.is_busy(&target) || image.state == ImageState::Creating {
            return Err(Refusal::not_ready(format!("The resource '{target}' is not ready")));
        }
        let begun = Begun::new(request.scope.clone(), "delete", target, Some(image.id.clone()));
        let operation = self.operations.begin(request, begun, self.clock.now())?;
        let id = operation.id;
        self.spawn(move |inner| async move {
            let came = match inner.engine.delete(&ImageRef::of(&image)).await {
                Ok(()) => inner.shelf.remove(&image.id).map_err(Refusal::from),
                Err(error) => Err(error.into()),
            };
            inner.end(id, came.map(|()| None));
            inner.give_back().await;
        });
        Ok(operation.json(&self.links))
    }

    /// Gives back the space of what was deleted, once nothing else is under way.
    async fn give_back(&self) {
        if !self.operations.is_idle() {
            return;
        }
        match self.engine.settle().await {
            Ok(settled) => settled.postponed.iter().for_each(|why| tracing::info!("{why}")),
            Err(error) => tracing::warn!("no space is given back: {error}"),
        }
        let _gate = self.gate.lock().await;
        self.forget_gone().await;
    }

    /// Forgets what is remembered of images that are gone, whoever deleted them. The caller holds
    /// the gate; while something is under way, or where not everything can be seen, nothing is
    /// forgotten.
    pub(super) async fn forget_gone(&self) {
        let Ok(seen) = self.seen().await else { return };
        if !self.operations.is_idle() {
            return;
        }
        let there: BTreeSet<&str> = seen.images.iter().map(|image| image.id.as_str()).collect();
        self.recorded().retain(|id, _| there.contains(id.as_str()));
        for id in self.shelf.entries().into_keys().filter(|id| !there.contains(id.as_str())) {
            if let Err(error) = self.shelf.remove(&id) {
                tracing::warn!("{error}");
            }
        }
    }

    async fn set_labels(&self, request: &Request, kind: ImageKind, name: &str) -> Answer {
        let _gate = self.gate.lock().await;
        if let Some(operation) = self.operations.replayed(request)? {
            return Ok(operation.json(&self.links));
        }
        let seen = self.seen().await?;
        let image = self.find_image(&seen, kind, &request.scope, name)?;
        let labels = label::replace(request, &image.labels)?;
        if image.state != ImageState::Ready {
            return Err(Refusal::not_ready(format!("The image {} is not ready", image.name)));
        }
        let gone = image.labels.keys().filter(|label| !labels.contains_key(*label));
        let update = Update {
            stage_before: image.stage,
            stage_after: image.stage,
            remove_labels: gone.cloned().collect(),
            set_labels: labels,
            replacement: None,
            sharing: None,
        };
        self.engine.update(&ImageRef::of(image), &update).await?;
        self.done(request, "setLabels", kind, image)
    }

    /// The operation of a change that is done already.
    pub(super) fn done(
        &self,
        request: &Request,
        what: &'static str,
        kind: ImageKind,
        image: &Image,
    ) -> Answer {
        let target = self.links.link(&request.scope, collection_of(kind), &image.name);
        let id = Some(image.id.clone());
        self.done_at_once(request, Begun::new(request.scope.clone(), what, target, id))
    }
}

/// Whether a list shows, or is chosen by, what only the images themselves know. Who does not ask for that does
/// not wait for it.
fn is_recorded_asked(request: &Request) -> Result<bool, Refusal> {
    let fields = request.query("fields").map(Fields::read).transpose()?;
    let filter = request.query("filter").map(Filter::read).transpose()?;
    let is_asked = |field: &&str| {
        fields.as_ref().is_none_or(|fields| fields.want(&["items", field]))
            || filter.as_ref().is_some_and(|filter| filter.is_about(field))
    };
    Ok(RECORDED.iter().any(is_asked))
}

/// What an image says of itself that this server did not make.
fn recorded(record: &Value, made: &[MadeDisk], links: &Links) -> Map<String, Value> {
    let mut shown = Map::new();
    if let Some(description) = record["description"].as_str().filter(|text| !text.is_empty()) {
        shown.insert("description".to_owned(), json!(description));
    }
    let is_machine_image = record["image"]["kind"] == json!(ImageKind::MachineImage);
    if let (true, Some((machine, disks))) = (is_machine_image, recorded_machine(record, made)) {
        machine_fields(&machine, &disks, links, &mut shown);
        add_saved(&machine, record, links, &mut shown);
    }
    shown
}

/// What a machine image shows of its instance and of the disks that were captured.
pub fn machine_fields(
    machine: &Machine,
    captured: &[String],
    links: &Links,
    shown: &mut Map<String, Value>,
) {
    let (properties, source) = machine.properties(links, captured);
    shown.insert("sourceInstance".to_owned(), json!(machine.link(links)));
    shown.insert("instanceProperties".to_owned(), properties);
    shown.insert("sourceInstanceProperties".to_owned(), source);
}

/// Adds the disks that a machine image holds, and to what it shows of its instance how much each of
/// them has added, where the record says so.
pub fn add_saved(machine: &Machine, record: &Value, links: &Links, shown: &mut Map<String, Value>) {
    let disks =
        shown.get_mut("sourceInstanceProperties").and_then(|source| source.get_mut("disks"));
    for disk in disks.and_then(Value::as_array_mut).into_iter().flatten() {
        let device = disk["deviceName"].as_str().unwrap_or_default().to_owned();
        set_stored(disk, record, &device);
    }
    shown.insert("savedDisks".to_owned(), saved_disks(machine, record, links));
}

fn set_stored(disk: &mut Value, record: &Value, device: &str) {
    if let Some(bytes) = record["added_by_disk"][device].as_u64() {
        disk["storageBytes"] = json!(bytes.to_string());
        disk["storageBytesStatus"] = json!("UP_TO_DATE");
    }
}

fn saved_disks(machine: &Machine, record: &Value, links: &Links) -> Value {
    let captured = record["disks"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_captured = |disk: &MachineDisk<'_>| {
        captured.iter().any(|one| one["deviceName"] == disk.spec.device_name.as_str())
    };
    let disks = machine.disks();
    let shown = disks.iter().filter(|disk| is_captured(disk)).map(|disk| {
        let mut saved = json!({"kind": "compute#savedDisk", "sourceDisk": disk.link(links)});
        set_stored(&mut saved, record, &disk.spec.device_name);
        if let Some(architecture) = &disk.spec.architecture {
            saved["architecture"] = json!(architecture);
        }
        saved
    });
    shown.collect()
}

/// The instance that an image records, and its disks that were captured.
fn recorded_machine(record: &Value, made: &[MadeDisk]) -> Option<(Machine, Vec<String>)> {
    let document: InstanceDocument =
        serde_json::from_value(record["source_instance"].clone()).ok()?;
    let id: SourceId = serde_json::from_value(record["source_id"].clone()).ok()?;
    let disks: Vec<Disk> = record["disks"]
        .as_array()?
        .iter()
        .filter_map(|disk| {
            Some(Disk {
                name: disk["deviceName"].as_str()?.to_owned(),
                boot: disk["boot"].as_bool().unwrap_or(false),
                size_bytes: disk["sizeBytes"].as_u64(),
                kms_key: None,
                problem: None,
            })
        })
        .collect();
    let captured = disks.iter().map(|disk| disk.name.clone()).collect();
    let seen = Instance {
        id: id.clone(),
        name: document.metadata.name.clone(),
        zone: document.spec.zone.clone(),
        labels: document.metadata.labels.clone(),
        status: document.spec.status.word().to_owned(),
        project: String::new(),
        machine_type: document.spec.machine_type.clone(),
        disks,
    };
    // Disks that were made here are called as they were, as long as they are there.
    let own = document.spec.disks.iter().filter_map(|spec| {
        let made = made.iter().find(|made| made.path == Path::new(&spec.path))?;
        Some((spec.device_name.clone(), made.clone()))
    });
    let made = own.collect();
    let local = LocalInstance { id, document, directory: PathBuf::new(), file: PathBuf::new() };
    let machine = Machine {
        local,
        seen,
        created: None,
        disks_created: Vec::new(),
        made,
        shown: Map::new(),
        is_loose: false,
    };
    Some((machine, captured))
}
