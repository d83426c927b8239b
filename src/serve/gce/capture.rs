//! New images: what a request asks for, checked, then captured by the engine under an operation.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use serde_json::{Map, Value, json};

use super::Inner;
use super::answer::{Answer, Refusal};
use super::fault::Fault;
use super::image::{Kept, collection_of, machine_fields};
use super::instance::{self, Machine, named};
use super::label::{self, Labels};
use super::link::{Named, Scope};
use super::operation::Begun;
use super::request::Request;
use crate::engine::{CreateRequest, Created, Engine, Progress, Watcher};
use crate::inventory::{Consistency, EngineInventory, Image, ImageKind, ImageState};
use crate::name::{Key, PolicyName, Slot, is_rfc1035_label};
use crate::plan::{Create, ImageRef};

/// The longest description, in bytes.
const DESCRIPTION_MAX: usize = 2048;
/// What stands for a policy in the identity that the engine asks for. Images made through this API
/// carry the labels that they were given, and only those.
const POLICY: &str = "serve";

/// What is to be captured.
struct Order {
    kind: ImageKind,
    name: String,
    machine: Machine,
    disks: Vec<String>,
    left_out: Vec<String>,
    labels: Labels,
    description: String,
    location: String,
    kms_key: Option<String>,
    /// What the API shows of the image and the engine does not record.
    shown: Map<String, Value>,
    begun: Begun,
}

/// Tells an operation how far its capture is.
struct Watch {
    inner: Arc<Inner>,
    operation: u64,
}

impl Watcher for Watch {
    fn progress(&self, progress: Progress) {
        let percent = progress.done.saturating_mul(100) / progress.total.max(1);
        self.inner
            .operations
            .progress(self.operation, u8::try_from(percent).unwrap_or(100).min(99));
    }

    fn is_cancelled(&self) -> bool {
        *self.inner.stop.borrow()
    }
}

impl Inner {
    /// Begins a new image of a kind, as a collection is asked for one.
    pub(super) async fn insert(&self, request: &Request, kind: ImageKind) -> Answer {
        self.begin(request, kind, None).await
    }

    /// Begins a snapshot, as a disk is asked for one.
    pub(super) async fn create_snapshot(&self, request: &Request, disk: &str) -> Answer {
        self.begin(request, ImageKind::Snapshot, Some(&named(request, disk))).await
    }

    async fn begin(&self, request: &Request, kind: ImageKind, disk: Option<&Named>) -> Answer {
        let _gate = self.gate.lock().await;
        if let Some(operation) = self.operations.replayed(request)? {
            return Ok(operation.json(&self.links));
        }
        let machines = self.machines().await?;
        let seen = self.seen().await?;
        let order = self.read_order(request, kind, disk, &machines, &seen)?;
        let link = self.links.link(&Scope::Global, collection_of(kind), &order.name);
        let begun = order.begun.clone();
        let operation = self.operations.begin(request, begun, self.clock.now())?;
        let kept = Kept { sequence: operation.id, shown: order.shown.clone(), ..Kept::default() };
        self.lock_pending().insert(link.clone(), kept.clone());
        let id = operation.id;
        let fault = self.fault(request, |fault| fault == Fault::QuotaInOperation);
        self.spawn(move |inner| async move {
            let came = match fault {
                Some(fault) => Err(fault.refusal()),
                None => inner.capture(order, id, kept).await,
            };
            inner.lock_pending().remove(&link);
            inner.operations.end(id, came.map(Some).map_err(Into::into), inner.clock.now());
        });
        Ok(operation.json(&self.links))
    }

    /// Captures, and writes down what the API shows beyond what the engine records. What fails
    /// leaves nothing: the operation says why.
    async fn capture(
        self: &Arc<Self>,
        order: Order,
        id: u64,
        kept: Kept,
    ) -> Result<String, Refusal> {
        let interrupted = || Refusal {
            status: 503,
            reason: "backendError",
            message: "the server was stopped before the image was whole".to_owned(),
        };
        let _permit = self.captures.acquire().await.map_err(|_| interrupted())?;
        let now = self.clock.now();
        let policy = PolicyName::parse(POLICY).map_err(|error| Refusal::bad(error.to_string()))?;
        let key = Key { policy, source: order.machine.seen.id.clone(), slot: Slot::at(now) };
        let name = order.name.clone();
        let create = Create {
            kind: order.kind,
            consistency: Consistency::Crash,
            kms_key: order.kms_key,
            disks: order.disks,
            excluded_disks: order.left_out,
            disk_bytes: 0,
            labels: order.labels,
            description: order.description,
            deadline: now,
            replaces: None,
            problems: Vec::new(),
            family: None,
            sharing: None,
        };
        let request = CreateRequest { key, name: name.clone(), location: order.location, create };
        let watch = Arc::new(Watch { inner: Arc::clone(self), operation: id });
        match self.engine.create(request, watch).await {
            Ok(Created::Made(image)) => {
                self.shelf.put(&image.id, kept)?;
                Ok(image.id)
            }
            Ok(Created::Found(image)) => Err(Refusal::exists(&self.links.path(
                &Scope::Global,
                collection_of(image.kind),
                &image.name,
            ))),
            Err(error) => {
                self.forget_attempt(&name).await;
                Err(error.into())
            }
        }
    }

    /// Takes away what a failed capture leaves to say why.
    async fn forget_attempt(&self, name: &str) {
        let seen = self.engine.observe().await;
        let is_it = |image: &&Image| image.name == name && image.state == ImageState::Failed;
        if let Some(image) = seen.images.iter().find(is_it)
            && let Err(error) = self.engine.delete(&ImageRef::of(image)).await
        {
            tracing::warn!("the failed image {name} stays: {error}");
        }
    }

    /// What is remembered of an image that is being made.
    pub(super) fn pending(&self, image: &Image) -> Option<Kept> {
        let link = self.links.link(&Scope::Global, collection_of(image.kind), &image.name);
        self.lock_pending().get(&link).cloned()
    }

    fn lock_pending(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Kept>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_order(
        &self,
        request: &Request,
        kind: ImageKind,
        disk: Option<&Named>,
        machines: &[Machine],
        seen: &EngineInventory,
    ) -> Result<Order, Refusal> {
        let name = self.read_name(request, kind, seen)?;
        let (machine, disks, begun) = match kind {
            ImageKind::MachineImage => self.read_instance(request, &name, machines)?,
            _ => self.read_disk(request, kind, &name, disk, machines)?,
        };
        refuse_flush(request, &machine)?;
        let all = machine.local.document.spec.disks.iter().map(|disk| disk.device_name.clone());
        let left_out = all.filter(|device| !disks.contains(device)).collect();
        let description = request.text("description")?.unwrap_or_default().to_owned();
        if description.len() > DESCRIPTION_MAX {
            let why = format!("It has at most {DESCRIPTION_MAX} bytes.");
            return Err(Refusal::invalid("resource.description", &description, &why));
        }
        let (kms_key, key_field) = read_key(request, kind)?;
        let mut shown = read_shown(request, kind)?;
        if !description.is_empty() {
            shown.insert("description".to_owned(), json!(description));
        }
        if let Some(key) = &kms_key {
            shown.insert(key_field.to_owned(), json!({"kmsKeyName": key}));
        }
        match kind {
            ImageKind::MachineImage => machine_fields(&machine, &disks, &self.links, &mut shown),
            _ => self.disk_fields(&machine, &disks, &mut shown),
        }
        Ok(Order {
            kind,
            name,
            disks,
            left_out,
            labels: label::read(&request.body)?,
            description,
            location: read_location(request, seen)?,
            kms_key,
            shown,
            begun,
            machine,
        })
    }

    /// The name of a new image, if it is one and free.
    fn read_name(
        &self,
        request: &Request,
        kind: ImageKind,
        seen: &EngineInventory,
    ) -> Result<String, Refusal> {
        let name = request.text("name")?.ok_or_else(|| Refusal::required("resource.name"))?;
        if !is_rfc1035_label(name) {
            let why = "Must be a match of regex '[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?'";
            return Err(Refusal::invalid("resource.name", name, why));
        }
        let path = self.links.path(&Scope::Global, collection_of(kind), name);
        let is_pending = |kind: ImageKind| {
            let link = self.links.link(&Scope::Global, collection_of(kind), name);
            self.lock_pending().contains_key(&link)
        };
        let is_taken = |image: &&Image| image.name == name && image.state != ImageState::Failed;
        match seen.images.iter().find(is_taken) {
            _ if is_pending(kind) => Err(Refusal::exists(&path)),
            Some(image) if image.kind == kind => Err(Refusal::exists(&path)),
            Some(image) => {
                Err(other_kind(&self.links.path(&Scope::Global, collection_of(image.kind), name)))
            }
            None => {
                let kinds = [ImageKind::MachineImage, ImageKind::DiskImage, ImageKind::Snapshot];
                match kinds.into_iter().find(|kind| is_pending(*kind)) {
                    Some(other) => Err(other_kind(&self.links.path(
                        &Scope::Global,
                        collection_of(other),
                        name,
                    ))),
                    None => Ok(name.to_owned()),
                }
            }
        }
    }

    fn read_instance(
        &self,
        request: &Request,
        name: &str,
        machines: &[Machine],
    ) -> Result<(Machine, Vec<String>, Begun), Refusal> {
        let source = match request.text("sourceInstance")? {
            Some(source) => source,
            None => request
                .query("sourceInstance")
                .ok_or_else(|| Refusal::required("resource.sourceInstance"))?,
        };
        let named = self.links.reference("resource.sourceInstance", source, "instances")?;
        let machine = instance::find(machines, &named, &self.links)?.clone();
        let disks = read_disks(request, &machine)?;
        let begun = Begun {
            scope: Scope::Global,
            kind: "insert",
            target: self.links.link(&Scope::Global, "machineImages", name),
            target_id: None,
        };
        Ok((machine, disks, begun))
    }

    fn read_disk(
        &self,
        request: &Request,
        kind: ImageKind,
        name: &str,
        disk: Option<&Named>,
        machines: &[Machine],
    ) -> Result<(Machine, Vec<String>, Begun), Refusal> {
        for other in ["sourceSnapshot", "sourceImage", "sourceInstantSnapshot", "rawDisk"] {
            if request.body.contains_key(other) {
                return Err(Refusal::not_done(&format!("{} with {other}", request.collection)));
            }
        }
        let named = if let Some(named) = disk {
            named.clone()
        } else {
            let source = request.text("sourceDisk")?;
            let source = source.ok_or_else(|| Refusal::required("resource.sourceDisk"))?;
            self.links.reference("resource.sourceDisk", source, "disks")?
        };
        let disk = instance::find_disk(machines, &named, &self.links)?;
        let is_running = disk.machine.seen.status == "RUNNING";
        if kind == ImageKind::DiskImage && is_running && !request.is_on("forceCreate") {
            return Err(Refusal {
                status: 400,
                reason: "resourceInUseByAnotherResource",
                message: format!(
                    "The disk resource '{}' is already being used by '{}'",
                    disk.link(&self.links),
                    disk.machine.link(&self.links)
                ),
            });
        }
        let is_snapshot = kind == ImageKind::Snapshot;
        let begun = Begun {
            scope: if request.scope == Scope::Global { Scope::Global } else { named.scope.clone() },
            kind: if is_snapshot { "createSnapshot" } else { "insert" },
            target: if is_snapshot {
                disk.link(&self.links)
            } else {
                self.links.link(&Scope::Global, collection_of(kind), name)
            },
            target_id: is_snapshot.then(|| disk.number()),
        };
        Ok((disk.machine.clone(), vec![disk.spec.device_name.clone()], begun))
    }

    fn disk_fields(&self, machine: &Machine, devices: &[String], shown: &mut Map<String, Value>) {
        let disks = machine.disks();
        let chosen = disks.iter().find(|disk| devices.contains(&disk.spec.device_name));
        if let Some(disk) = chosen {
            shown.insert("sourceDisk".to_owned(), json!(disk.link(&self.links)));
            shown.insert("sourceDiskId".to_owned(), json!(disk.number()));
        }
    }
}

/// The disks of a machine image: all, or those that `params` leave.
fn read_disks(request: &Request, machine: &Machine) -> Result<Vec<String>, Refusal> {
    let all = machine.disks();
    let read = |field: &str| -> Result<Option<Vec<String>>, Refusal> {
        let whole = format!("resource.params.{field}");
        let value = request.body.get("params").and_then(|params| params.get(field));
        let Some(value) = value.and_then(Value::as_array) else { return Ok(None) };
        let mut devices = Vec::new();
        for named in value.iter().map(|value| value.as_str().unwrap_or_default()) {
            let disk = all.iter().find(|disk| {
                let last = named.rsplit('/').next().unwrap_or(named);
                disk.spec.device_name == named || disk.name() == last
            });
            let unknown = || Refusal::invalid(&whole, named, "The instance has no such disk.");
            devices.push(disk.ok_or_else(unknown)?.spec.device_name.clone());
        }
        Ok(Some(devices).filter(|devices| !devices.is_empty()))
    };
    let every = || all.iter().map(|disk| disk.spec.device_name.clone());
    let chosen: Vec<String> = match (read("includedDisks")?, read("excludedDisks")?) {
        (Some(_), Some(_)) => {
            return Err(Refusal::bad(
                "params.includedDisks and params.excludedDisks exclude each other",
            ));
        }
        (Some(included), None) => every().filter(|one| included.contains(one)).collect(),
        (None, Some(excluded)) => every().filter(|one| !excluded.contains(one)).collect(),
        (None, None) => every().collect(),
    };
    if chosen.is_empty() {
        return Err(Refusal::bad("there is no disk to capture"));
    }
    Ok(chosen)
}

/// What is given back as it was written.
fn read_shown(request: &Request, kind: ImageKind) -> Result<Map<String, Value>, Refusal> {
    let mut shown = Map::new();
    match kind {
        ImageKind::MachineImage => {}
        ImageKind::DiskImage => {
            shown.insert("sourceType".to_owned(), json!("RAW"));
            if let Some(family) = request.text("family")? {
                if !is_rfc1035_label(family) {
                    let why = "Must be a match of regex '[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?'";
                    return Err(Refusal::invalid("resource.family", family, why));
                }
                shown.insert("family".to_owned(), json!(family));
            }
        }
        ImageKind::Snapshot => {
            let chosen = request.text("snapshotType")?.unwrap_or("STANDARD");
            if !["STANDARD", "ARCHIVE"].contains(&chosen) {
                let why = "It is STANDARD or ARCHIVE.";
                return Err(Refusal::invalid("resource.snapshotType", chosen, why));
            }
            shown.insert("snapshotType".to_owned(), json!(chosen));
            if let Some(chain) = request.text("chainName")? {
                shown.insert("chainName".to_owned(), json!(chain));
            }
        }
    }
    Ok(shown)
}

fn other_kind(path: &str) -> Refusal {
    let message = format!(
        "The resource '{path}' has this name; the embedded engine keeps a name for one image of any kind"
    );
    Refusal { message, ..Refusal::exists(path) }
}

/// The engine asks no guest to write down what it holds in memory. Of a machine that is not
/// running there is nothing to write down.
fn refuse_flush(request: &Request, machine: &Machine) -> Result<(), Refusal> {
    let in_body = request.body.get("guestFlush").and_then(Value::as_bool).unwrap_or(false);
    if (in_body || request.is_on("guestFlush")) && machine.seen.status == "RUNNING" {
        return Err(Refusal::bad(format!(
            "guestFlush: the instance {} is running, and this server cannot ask its guest to flush; \
             stop it, or leave guestFlush out",
            machine.name()
        )));
    }
    Ok(())
}

/// The key that an image is to be encrypted under, and the field that names it.
fn read_key(request: &Request, kind: ImageKind) -> Result<(Option<String>, &'static str), Refusal> {
    let field = match kind {
        ImageKind::MachineImage => "machineImageEncryptionKey",
        ImageKind::DiskImage => "imageEncryptionKey",
        ImageKind::Snapshot => "snapshotEncryptionKey",
    };
    let Some(key) = request.body.get(field).and_then(Value::as_object) else {
        return Ok((None, field));
    };
    match key.get("kmsKeyName").and_then(Value::as_str).filter(|name| !name.is_empty()) {
        Some(name) => Ok((Some(name.to_owned()), field)),
        None if key.is_empty() => Ok((None, field)),
        None => Err(Refusal::not_done(&format!("{field} without kmsKeyName"))),
    }
}

fn read_location(request: &Request, seen: &EngineInventory) -> Result<String, Refusal> {
    const FIELD: &str = "resource.storageLocations";
    let there = &seen.capabilities.locations;
    let asked: Vec<&str> = match request.body.get("storageLocations") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(asked)) => asked.iter().map(|one| one.as_str().unwrap_or("")).collect(),
        Some(other) => {
            return Err(Refusal::invalid(FIELD, &other.to_string(), "It must be a list."));
        }
    };
    match asked.as_slice() {
        [] => there.first().cloned().ok_or_else(|| Refusal::bad("there is no storage location")),
        [one] if there.iter().any(|known| known == one) => Ok((*one).to_owned()),
        [one] => {
            let why = format!("The storage locations here are: {}.", there.join(", "));
            Err(Refusal::invalid(FIELD, one, &why))
        }
        more => Err(Refusal::invalid(FIELD, &more.join(", "), "Only one can be given.")),
    }
}
