//! Images and snapshots: what the engine's images are in this API.
//!
//! The engine's own record has labels and sizes, and a name of its own. What else the API gives back
//! of an image was written down when it was asked for, and lies beside the repositories.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Inner;
use super::answer::{Answer, Code, Refusal, without_defaults};
use super::operation::{Begun, Operation, empty, typed};
use super::page;
use super::request::Request;
use crate::engine::Engine;
use crate::inventory::{EngineInventory, Image, ImageKind, ImageState};
use crate::plan::{ImageRef, Update};
use crate::serve::stock::Labels;

/// The most labels something may have, and the longest key, value and description.
const LABELS_MAX: usize = 64;
const LABEL_LENGTH_MAX: usize = 63;
const DESCRIPTION_MAX: usize = 256;

/// What is remembered of an image beyond what it records itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// Its name, where that is not the one that the engine knows.
    #[serde(default)]
    pub name: Option<String>,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// Fields that never change.
    #[serde(default)]
    pub shown: Map<String, Value>,
    /// The smallest disk that can be made of it, in bytes.
    #[serde(default)]
    pub min_disk_size: Option<u64>,
    /// Who may use it.
    #[serde(default)]
    pub bindings: Vec<Value>,
}

/// An image as it is, with what is remembered of it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// As the engine has it.
    pub image: Image,
    /// What is remembered.
    pub kept: Kept,
}

impl Seen {
    /// Its name.
    pub fn name(&self) -> &str {
        self.kept.name.as_deref().unwrap_or(&self.image.name)
    }

    /// As the API shows it.
    pub fn json(&self, folder: &str) -> Value {
        let Self { image, kept } = self;
        let mut shown = kept.shown.clone();
        let mut set = |field: &str, value: Value| shown.insert(field.to_owned(), value);
        let bytes = |bytes: Option<u64>| json!(bytes.unwrap_or_default().to_string());
        set("id", json!(image.id));
        set("folderId", json!(folder));
        set("createdAt", json!(image.created_at.to_string()));
        set("name", json!(self.name()));
        set("description", json!(kept.description));
        set("labels", json!(image.labels));
        set("status", json!(status(image.state)));
        set("storageSize", bytes(image.stored_bytes));
        if image.kind == ImageKind::Snapshot {
            set("diskSize", bytes(image.disk_bytes));
        } else {
            set("minDiskSize", bytes(kept.min_disk_size.or(image.disk_bytes)));
        }
        without_defaults(shown)
    }
}

/// Which images a collection holds.
pub fn kind_of(collection: &str) -> Option<ImageKind> {
    match collection {
        "images" => Some(ImageKind::DiskImage),
        "snapshots" => Some(ImageKind::Snapshot),
        _ => None,
    }
}

/// What one of them is called in the types of the API.
pub fn word_of(kind: ImageKind) -> &'static str {
    if kind == ImageKind::Snapshot { "Snapshot" } else { "Image" }
}

/// The field that names one of them.
pub fn id_field(kind: ImageKind) -> &'static str {
    if kind == ImageKind::Snapshot { "snapshotId" } else { "imageId" }
}

fn status(state: ImageState) -> &'static str {
    match state {
        ImageState::Ready => "READY",
        ImageState::Creating | ImageState::Begun => "CREATING",
        ImageState::Deleting => "DELETING",
        ImageState::Failed | ImageState::Partial | ImageState::Unknown => "ERROR",
    }
}

/// Reads labels, which hold to the rules.
pub fn read_labels(body: &Map<String, Value>) -> Result<Labels, Refusal> {
    let labels = match body.get("labels") {
        None | Some(Value::Null) => return Ok(Labels::new()),
        Some(Value::Object(labels)) => labels,
        Some(_) => return Err(Refusal::invalid("labels", "it must be an object")),
    };
    if labels.len() > LABELS_MAX {
        return Err(Refusal::invalid("labels", "there are at most 64"));
    }
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_./\\@".contains(c);
    let is_well_formed = |text: &str| text.len() <= LABEL_LENGTH_MAX && text.chars().all(is_plain);
    let mut read = Labels::new();
    for (key, value) in labels {
        let value = value.as_str().unwrap_or("!");
        let begins_well = key.starts_with(|first: char| first.is_ascii_lowercase());
        if !begins_well || !is_well_formed(key) || !is_well_formed(value) {
            let why = "Field does not match the pattern /[a-z][-_./\\@0-9a-z]*/";
            return Err(Refusal::invalid(&format!("labels.{key}"), why));
        }
        read.insert(key.clone(), value.to_owned());
    }
    Ok(read)
}

/// Reads a name, which may be left out.
pub fn read_name(request: &Request) -> Result<Option<&str>, Refusal> {
    let Some(name) = request.text("name")? else { return Ok(None) };
    let is_name = name.len() <= LABEL_LENGTH_MAX
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.ends_with(|last: char| last.is_ascii_lowercase() || last.is_ascii_digit())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_');
    let why = "Field does not match the pattern /|[a-z]([-_a-z0-9]{0,61}[a-z0-9])?/";
    if is_name { Ok(Some(name)) } else { Err(Refusal::invalid("name", why)) }
}

/// Reads a description.
pub fn read_description(request: &Request) -> Result<String, Refusal> {
    let description = request.text("description")?.unwrap_or_default();
    if description.chars().count() <= DESCRIPTION_MAX {
        return Ok(description.to_owned());
    }
    Err(Refusal::invalid("description", "it has at most 256 characters"))
}

impl Inner {
    /// Answers a request for images of a kind.
    pub(super) async fn answer_images(&self, request: &Request, kind: ImageKind) -> Answer {
        match request.parts() {
            ("GET", None, None) => {
                let location = self.folders.location(request.query("folderId"))?;
                let images = self.images(kind).await?;
                let there = images.iter().filter(|seen| seen.image.location == location);
                let shown = there.map(|seen| self.shown(seen)).collect();
                page::list(request, &request.collection, shown)
            }
            ("GET", None, Some("latestByFamily")) if kind == ImageKind::DiskImage => {
                self.latest(request).await
            }
            ("GET", Some(id), None) => Ok(self.shown(&self.image(kind, id).await?)),
            ("GET", Some(id), Some("operations")) => self.operations.of(request, id),
            ("POST", None, None) => self.insert(request, kind).await,
            ("PATCH", Some(id), None) => self.update_image(request, kind, id).await,
            ("DELETE", Some(id), None) => self.delete_image(request, kind, id).await,
            ("GET", Some(id), Some("listAccessBindings")) => {
                let seen = self.image(kind, id).await?;
                Ok(Value::Object(Map::from_iter([(
                    "accessBindings".to_owned(),
                    Value::Array(seen.kept.bindings),
                )])))
            }
            ("POST", Some(id), Some("setAccessBindings" | "updateAccessBindings")) => {
                self.change_bindings(request, kind, id).await
            }
            _ => Err(request.not_done()),
        }
    }

    /// An image as the API shows it, in the folder of its location.
    pub(super) fn shown(&self, seen: &Seen) -> Value {
        seen.json(&self.folders.of(&seen.image.location))
    }

    /// All images of a kind, in the order of their ids.
    pub(super) async fn images(&self, kind: ImageKind) -> Result<Vec<Seen>, Refusal> {
        let seen = self.seen().await?;
        Ok(self.images_in(&seen, kind))
    }

    pub(super) fn images_in(&self, seen: &EngineInventory, kind: ImageKind) -> Vec<Seen> {
        let images = seen.images.iter().filter(|image| image.kind == kind);
        images.map(|image| Seen { image: image.clone(), kept: self.kept(image) }).collect()
    }

    pub(super) async fn image(&self, kind: ImageKind, id: &str) -> Result<Seen, Refusal> {
        let images = self.images(kind).await?;
        let found = images.into_iter().find(|seen| seen.image.id == id);
        found.ok_or_else(|| Refusal::not_found(word_of(kind), id))
    }

    fn kept(&self, image: &Image) -> Kept {
        self.shelf.get(&image.id).or_else(|| self.pending_kept(&image.id)).unwrap_or_default()
    }

    async fn latest(&self, request: &Request) -> Answer {
        let location = self.folders.location(request.query("folderId"))?;
        let family = request
            .query("family")
            .ok_or_else(|| Refusal::invalid("family", "Field is required"))?;
        let images = self.images(ImageKind::DiskImage).await?;
        let of_it = images.iter().filter(|seen| {
            seen.kept.shown.get("family").is_some_and(|is| is == family)
                && seen.image.location == location
                && seen.image.state == ImageState::Ready
        });
        let newest = of_it.max_by_key(|seen| (seen.image.created_at, &seen.image.id));
        let newest = newest.ok_or_else(|| Refusal::not_found("Image with family", family))?;
        Ok(self.shown(newest))
    }

    /// Name, description, labels and the smallest disk can change: those that the mask names, and all
    /// of them where there is no mask.
    async fn update_image(&self, request: &Request, kind: ImageKind, id: &str) -> Answer {
        let _gate = self.gate.lock().await;
        if let Some(operation) = self.operations.replayed(request)? {
            return Ok(operation.json());
        }
        let Seen { image, mut kept } = self.image(kind, id).await?;
        if image.state != ImageState::Ready {
            return Err(Refusal::not_now(format!("{} {id} is not ready", word_of(kind))));
        }
        let mut known = vec!["name", "description", "labels"];
        if kind == ImageKind::DiskImage {
            known.push("minDiskSize");
        }
        let mask = request.mask()?;
        if let Some(other) = mask.iter().flatten().find(|path| !known.contains(&path.as_str())) {
            return Err(Refusal::invalid("updateMask", &format!("there is no field {other}")));
        }
        let is_meant =
            |field: &str| mask.as_ref().is_none_or(|mask| mask.iter().any(|path| path == field));
        if is_meant("name") {
            let name = read_name(request)?.unwrap_or_default();
            self.refuse_taken(kind, name, &image.location, Some(id)).await?;
            kept.name = Some(name.to_owned());
        }
        if is_meant("description") {
            kept.description = read_description(request)?;
        }
        if is_meant("minDiskSize") {
            kept.min_disk_size = request.number("minDiskSize")?;
        }
        if is_meant("labels") {
            let labels = read_labels(&request.body)?;
            let gone = image.labels.keys().filter(|label| !labels.contains_key(*label));
            let update = Update {
                stage_before: image.stage,
                stage_after: image.stage,
                remove_labels: gone.cloned().collect(),
                set_labels: labels,
                ..Update::default()
            };
            self.engine.update(&ImageRef::of(&image), &update).await?;
        }
        self.shelf.put(id, kept)?;
        let after = self.image(kind, id).await?;
        let response = typed(&format!("compute.v1.{}", word_of(kind)), self.shown(&after));
        self.done_at_once(request, begun(kind, "Update", id, Map::new()), response)
    }

    async fn delete_image(&self, request: &Request, kind: ImageKind, id: &str) -> Answer {
        let _gate = self.gate.lock().await;
        if let Some(operation) = self.operations.replayed(request)? {
            return Ok(operation.json());
        }
        let Seen { image, .. } = self.image(kind, id).await?;
        if self.operations.is_busy(id) || image.state == ImageState::Creating {
            return Err(Refusal::not_now(format!("{} {id} is busy", word_of(kind))));
        }
        let begun = begun(kind, "Delete", id, Map::new());
        let operation = self.operations.begin(request, begun, self.clock.now())?;
        let shown = operation.json();
        self.spawn(move |inner| async move {
            let came = match inner.engine.delete(&ImageRef::of(&image)).await {
                Ok(()) => inner.shelf.remove(&image.id).map_err(Refusal::from),
                Err(error) => Err(error.into()),
            };
            inner.end(&operation, came.map(|()| empty()));
            inner.give_back().await;
        });
        Ok(shown)
    }

    /// Gives back the space of what was deleted, once nothing else is under way.
    async fn give_back(&self) {
        if !self.operations.jobs.is_idle() {
            return;
        }
        match self.engine.settle().await {
            Ok(settled) => settled.postponed.iter().for_each(|why| tracing::info!("{why}")),
            Err(error) => tracing::warn!("no space is given back: {error}"),
        }
        let _gate = self.gate.lock().await;
        self.forget_gone().await;
    }

    /// Forgets what is remembered of images that are gone, whoever deleted them. The caller holds the
    /// gate; while something is under way, or where not everything can be seen, nothing is forgotten.
    pub(super) async fn forget_gone(&self) {
        let Ok(seen) = self.seen().await else { return };
        if !self.operations.jobs.is_idle() {
            return;
        }
        let is_there = |id: &String| seen.images.iter().any(|image| image.id == *id);
        for id in self.shelf.entries().into_keys().filter(|id| !is_there(id)) {
            if let Err(error) = self.shelf.remove(&id) {
                tracing::warn!("{error}");
            }
        }
    }

    /// Adds and takes away who may use an image, or says who may.
    async fn change_bindings(&self, request: &Request, kind: ImageKind, id: &str) -> Answer {
        let _gate = self.gate.lock().await;
        if let Some(operation) = self.operations.replayed(request)? {
            return Ok(operation.json());
        }
        let Seen { mut kept, .. } = self.image(kind, id).await?;
        let before = kept.bindings.clone();
        if request.verb.as_deref() == Some("setAccessBindings") {
            kept.bindings.clear();
            for binding in list(request, "accessBindings") {
                kept.bindings.push(read_binding(binding)?);
            }
        } else {
            for delta in list(request, "accessBindingDeltas") {
                let binding = read_binding(&delta["accessBinding"])?;
                kept.bindings.retain(|known| *known != binding);
                match delta["action"].as_str() {
                    Some("ADD") => kept.bindings.push(binding),
                    Some("REMOVE") => {}
                    _ => return Err(Refusal::invalid("action", "it is ADD or REMOVE")),
                }
            }
        }
        let delta =
            |action: &str, binding: &Value| json!({"action": action, "accessBinding": binding});
        let added = kept.bindings.iter().filter(|binding| !before.contains(binding));
        let gone = before.iter().filter(|binding| !kept.bindings.contains(binding));
        let deltas: Vec<Value> = added
            .map(|binding| delta("ADD", binding))
            .chain(gone.map(|binding| delta("REMOVE", binding)))
            .collect();
        self.shelf.put(id, kept)?;
        let verb = request.verb.as_deref().unwrap_or_default();
        let verb = if verb.starts_with("set") { "Set" } else { "Update" };
        let begun = Begun {
            description: format!("{verb} access bindings"),
            metadata: typed(
                &format!("access.{verb}AccessBindingsMetadata"),
                json!({"resourceId": id}),
            ),
            target: id.to_owned(),
        };
        let response = json!({"effectiveDeltas": deltas});
        self.done_at_once(request, begun, typed("access.AccessBindingsOperationResult", response))
    }

    /// Refuses a name that another image of the kind has in the same folder.
    pub(super) async fn refuse_taken(
        &self,
        kind: ImageKind,
        name: &str,
        location: &str,
        own: Option<&str>,
    ) -> Result<(), Refusal> {
        let images = self.images(kind).await?;
        let is_it = |seen: &Seen| {
            seen.name() == name
                && seen.image.location == location
                && Some(seen.image.id.as_str()) != own
                && seen.image.state != ImageState::Failed
        };
        if name.is_empty() || !images.iter().any(is_it) {
            return Ok(());
        }
        let message = format!("{} with name {name} already exists", word_of(kind));
        Err(Refusal::new(Code::AlreadyExists, message))
    }

    /// The operation of a change that is done already.
    pub(super) fn done_at_once(&self, request: &Request, begun: Begun, response: Value) -> Answer {
        let operation: Operation = self.operations.begin(request, begun, self.clock.now())?;
        let name = crate::serve::jobs::Job::name(&operation);
        self.operations.end(&name, Ok(response), self.clock.now());
        Ok(self.operations.find(&name)?.json())
    }
}

/// What begins with an image.
pub fn begun(kind: ImageKind, verb: &str, id: &str, mut more: Map<String, Value>) -> Begun {
    let word = word_of(kind);
    more.insert(id_field(kind).to_owned(), json!(id));
    Begun {
        description: format!("{verb} {}", word.to_lowercase()),
        metadata: typed(&format!("compute.v1.{verb}{word}Metadata"), Value::Object(more)),
        target: id.to_owned(),
    }
}

fn list<'a>(request: &'a Request, field: &str) -> impl Iterator<Item = &'a Value> {
    request.body.get(field).and_then(Value::as_array).into_iter().flatten()
}

/// A binding, with what it must have and nothing else.
fn read_binding(binding: &Value) -> Result<Value, Refusal> {
    let text = |value: &Value, field: &str| {
        let text = value.as_str().filter(|text| !text.is_empty());
        text.map(str::to_owned).ok_or_else(|| Refusal::invalid(field, "Field is required"))
    };
    let role = text(&binding["roleId"], "roleId")?;
    let id = text(&binding["subject"]["id"], "subject.id")?;
    let kind = text(&binding["subject"]["type"], "subject.type")?;
    Ok(json!({"roleId": role, "subject": {"id": id, "type": kind}}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_hold_to_the_rules() {
        let read = |labels: Value| read_labels(json!({"labels": labels}).as_object().unwrap());
        assert!(read(json!({"a.b/c": "20261121t030000z", "x": "a@b"})).is_ok());
        for wrong in [
            json!({"A": "a"}),
            json!({"1": "a"}),
            json!({"a": "B"}),
            json!({"a": "10:00"}),
            json!({"a": "+"}),
            json!({"a": "x".repeat(64)}),
            json!({"a": 1}),
            json!([]),
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_binding_has_a_role_and_a_subject() {
        let binding =
            json!({"roleId": "compute.images.user", "subject": {"id": "x", "type": "system"}});
        assert_eq!(read_binding(&binding).unwrap(), binding);
        assert!(read_binding(&json!({"roleId": "r", "subject": {"id": "x"}})).is_err());
    }
}
