//! Machine images, disk images and snapshots: what the engine's images are in this API.
//!
//! The engine's own record has name, labels, stage and sizes. What else the API gives back of an
//! image was written down when it was asked for, and lies beside the repositories.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Inner;
use super::answer::{Answer, Refusal};
use super::instance::Machine;
use super::label;
use super::link::{Links, Scope};
use super::operation::Begun;
use super::page;
use super::request::Request;
use crate::engine::local::instance::{InstanceDocument, LocalInstance};
use crate::engine::{Engine, Store};
use crate::inventory::{Disk, EngineInventory, Image, ImageKind, ImageState, Instance};
use crate::name::SourceId;
use crate::plan::{ImageRef, Update};

/// Bytes of the unit that sizes of disks are told in.
const GIB: u64 = 1 << 30;

/// What is remembered of an image beyond what it records itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// The operation that made it, which tells two of the same second apart.
    pub sequence: u64,
    /// Fields that never change.
    pub shown: Map<String, Value>,
    /// How it is deprecated.
    #[serde(default)]
    pub deprecated: Option<Value>,
    /// Who may use it, as the API shows that.
    #[serde(default)]
    pub bindings: Value,
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
        (ImageKind::DiskImage, ImageState::Creating) => "PENDING",
        (_, ImageState::Creating) => "CREATING",
        (ImageKind::MachineImage, ImageState::Failed | ImageState::Unknown) => "INVALID",
        (_, ImageState::Failed | ImageState::Unknown) => "FAILED",
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
    set("selfLink", json!(links.link(&Scope::Global, collection, &image.name)));
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

/// The image of a name or an id among those of a kind.
pub fn find<'a>(
    seen: &'a EngineInventory,
    kind: ImageKind,
    name: &str,
    links: &Links,
) -> Result<&'a Image, Refusal> {
    let is_it = |image: &&Image| image.kind == kind && (image.name == name || image.id == name);
    seen.images
        .iter()
        .find(is_it)
        .ok_or_else(|| Refusal::not_found(&links.path(&Scope::Global, collection_of(kind), name)))
}

impl Inner {
    /// Answers a request for images of a kind.
    pub(super) async fn answer_images(&self, request: &Request, kind: ImageKind) -> Answer {
        match (request.parts(), kind) {
            (("GET", None, None), _) => {
                let seen = self.seen().await?;
                let of_kind = seen.images.iter().filter(|image| image.kind == kind);
                let shown = of_kind.map(|image| json(image, &self.kept(image, &seen), &self.links));
                page::list(request, &self.links, word_of(kind), shown.collect())
            }
            (("GET", Some("family"), Some(family)), ImageKind::DiskImage) => {
                self.newest_of_family(family).await
            }
            (("GET", Some(name), None), _) => self.image(kind, name).await,
            (("POST", None, None), _) => self.insert(request, kind).await,
            (("DELETE", Some(name), None), _) => self.delete(request, kind, name).await,
            (("POST", Some(name), Some("setLabels")), _) => {
                self.set_labels(request, kind, name).await
            }
            (("POST", Some(name), Some("deprecate")), ImageKind::DiskImage) => {
                self.deprecate(request, name).await
            }
            (("GET", Some(name), Some("getIamPolicy")), _) => self.policy(kind, name).await,
            (("POST", Some(name), Some("setIamPolicy")), _) => {
                self.set_policy(request, kind, name).await
            }
            (("POST", Some(name), Some("testIamPermissions")), _) => {
                self.permissions(request, kind, name).await
            }
            _ => Err(request.not_done()),
        }
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

    async fn image(&self, kind: ImageKind, name: &str) -> Answer {
        let seen = self.seen().await?;
        let image = find(&seen, kind, name, &self.links)?;
        let kept = self.whole(image, &seen).await?;
        Ok(json(image, &kept, &self.links))
    }

    /// All that can be told of an image, from the image itself where this server did not make it.
    pub(super) async fn whole(
        &self,
        image: &Image,
        seen: &EngineInventory,
    ) -> Result<Kept, Refusal> {
        let mut kept = self.kept(image, seen);
        if self.shelf.get(&image.id).is_none() && image.state == ImageState::Ready {
            let record = self.engine.record(&image.id).await?;
            kept.shown.extend(recorded(&record, &self.links));
        }
        Ok(kept)
    }

    async fn delete(&self, request: &Request, kind: ImageKind, name: &str) -> Answer {
        let _gate = self.gate.lock().await;
        if let Some(operation) = self.operations.replayed(request)? {
            return Ok(operation.json(&self.links));
        }
        let seen = self.seen().await?;
        let image = find(&seen, kind, name, &self.links)?.clone();
        let target = self.links.link(&Scope::Global, collection_of(kind), &image.name);
        if self.operations.is_busy(&target) || image.state == ImageState::Creating {
            return Err(Refusal::not_ready(format!("The resource '{target}' is not ready")));
        }
        let begun = Begun {
            scope: Scope::Global,
            kind: "delete",
            target,
            target_id: Some(image.id.clone()),
        };
        let operation = self.operations.begin(request, begun, self.clock.now())?;
        let id = operation.id;
        self.spawn(move |inner| async move {
            let came = match inner.engine.delete(&ImageRef::of(&image)).await {
                Ok(()) => inner.shelf.remove(&image.id),
                Err(error) => Err(error.into()),
            };
            inner.operations.end(id, came.map(|()| None).map_err(Into::into), inner.clock.now());
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
    }

    async fn set_labels(&self, request: &Request, kind: ImageKind, name: &str) -> Answer {
        let _gate = self.gate.lock().await;
        if let Some(operation) = self.operations.replayed(request)? {
            return Ok(operation.json(&self.links));
        }
        let seen = self.seen().await?;
        let image = find(&seen, kind, name, &self.links)?;
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
        let begun = Begun {
            scope: Scope::Global,
            kind: what,
            target: self.links.link(&Scope::Global, collection_of(kind), &image.name),
            target_id: Some(image.id.clone()),
        };
        let now = self.clock.now();
        let operation = self.operations.begin(request, begun, now)?;
        self.operations.end(operation.id, Ok(None), now);
        Ok(operation.json(&self.links))
    }
}

/// What an image says of itself that this server did not make.
fn recorded(record: &Value, links: &Links) -> Map<String, Value> {
    let mut shown = Map::new();
    if let Some(description) = record["description"].as_str().filter(|text| !text.is_empty()) {
        shown.insert("description".to_owned(), json!(description));
    }
    let is_machine_image = record["image"]["kind"] == json!(ImageKind::MachineImage);
    if let (true, Some((machine, disks))) = (is_machine_image, recorded_machine(record)) {
        machine_fields(&machine, &disks, links, &mut shown);
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
    let disks = machine.disks();
    let chosen = disks.iter().filter(|disk| captured.contains(&disk.spec.device_name));
    let saved: Value = chosen
        .map(|disk| json!({"kind": "compute#savedDisk", "sourceDisk": disk.link(links)}))
        .collect();
    shown.insert("sourceInstance".to_owned(), json!(machine.link(links)));
    shown.insert("instanceProperties".to_owned(), properties);
    shown.insert("sourceInstanceProperties".to_owned(), source);
    shown.insert("savedDisks".to_owned(), saved);
}

/// The instance that an image records, and its disks that were captured.
fn recorded_machine(record: &Value) -> Option<(Machine, Vec<String>)> {
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
        machine_type: document.spec.machine_type.clone(),
        disks,
    };
    let nowhere = std::path::PathBuf::new;
    let local = LocalInstance { id, document, directory: nowhere(), file: nowhere() };
    Some((Machine { local, seen }, captured))
}
