//! New images: what a request asks for is checked while it waits; the capture runs under its
//! operation.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};

use super::Inner;
use super::answer::{Answer, Refusal};
use super::fault::Fault;
use super::fetched::{self, DEVICE, Fetch, LENGTH_MAX};
use super::image::{
    Kept, Seen, begun, id_field, read_description, read_labels, read_name, word_of,
};
use super::operation::{Operation, typed};
use super::request::Request;
use crate::engine::local::{LocalEngine, Origin};
use crate::engine::{CreateRequest, Created, Engine, Progress, Store, Watcher};
use crate::inventory::{Consistency, Image, ImageKind, ImageSource, ImageState, Stage, Via};
use crate::name::{Key, PolicyName, Slot, is_rfc1035_label};
use crate::plan::{Create, ImageRef};
use crate::serve::stock::{Labels, MachineDisk};

/// What stands for a policy in the identity that the engine asks for. Images made through this API
/// carry the labels that they were given, and only those.
const POLICY: &str = "serve";
/// The shortest and the longest name of a family.
const FAMILY_LENGTH: std::ops::RangeInclusive<usize> = 3..=63;
/// The smallest and the largest disk that an image may ask for, in bytes.
const DISK_SIZE: std::ops::RangeInclusive<u64> = 4 << 20..=4 << 40;

/// Stops what it watches when the server stops.
pub struct Watch(pub Arc<Inner>);

impl Watcher for Watch {
    fn progress(&self, _: Progress) {}

    fn is_cancelled(&self) -> bool {
        *self.0.stop.borrow()
    }
}

/// Where the bytes of an image are from.
#[derive(Clone)]
enum Contents {
    /// What the engine has.
    Here(Origin),
    /// What is fetched first.
    There(Fetch),
}

/// What is to be captured.
#[derive(Clone)]
struct Order {
    kind: ImageKind,
    /// What the engine is to call it.
    name: String,
    contents: Contents,
    source: ImageSource,
    device: String,
    labels: Labels,
    location: String,
    kms_key: Option<String>,
    kept: Kept,
    /// The disk, where it is made of one.
    disk: Option<String>,
    bytes: Option<u64>,
}

impl Order {
    /// As it is shown until the engine shows it.
    fn pending(&self, id: &str, inner: &Inner) -> Seen {
        let image = Image {
            fingerprint: id.to_owned(),
            id: id.to_owned(),
            name: self.name.clone(),
            kind: self.kind,
            state: ImageState::Creating,
            stage: Stage::Active,
            created_at: inner.clock.now(),
            location: self.location.clone(),
            kms_key: None,
            family: None,
            sharing: None,
            labels: self.labels.clone(),
            source: Some(self.source.clone()),
            stored_bytes: None,
            disk_bytes: self.bytes,
            disks: None,
            project: String::new(),
            in_use_by: Vec::new(),
            message: None,
        };
        Seen { image, kept: self.kept.clone() }
    }
}

/// What an image is made of.
struct Source {
    contents: Contents,
    known: ImageSource,
    device: String,
    disk: Option<String>,
    bytes: Option<u64>,
    kms_key: Option<String>,
    os: Value,
}

impl Inner {
    /// Begins a new image of a kind.
    pub(super) async fn insert(&self, request: &Request, kind: ImageKind) -> Answer {
        let _gate = self.gate.lock().await;
        if let Some(operation) = self.operations.replayed(request)? {
            return Ok(operation.json());
        }
        let order = self.read_order(request, kind).await?;
        let fault = self.fault(request, Fault::is_of_capture);
        if fault == Some(Fault::Duplicate) {
            let twin = Order { name: LocalEngine::new_id()?, ..order.clone() };
            let nobody = Request { idempotency_key: None, ..request.clone() };
            self.begin(&nobody, twin, None)?;
        }
        Ok(self.begin(request, order, fault)?.json())
    }

    fn begin(
        &self,
        request: &Request,
        order: Order,
        fault: Option<Fault>,
    ) -> Result<Operation, Refusal> {
        let id = LocalEngine::new_id()?;
        let mut more = Map::new();
        if let (ImageKind::Snapshot, Some(disk)) = (order.kind, &order.disk) {
            more.insert("diskId".to_owned(), json!(disk));
        }
        let begun = begun(order.kind, "Create", &id, more);
        let operation = self.operations.begin(request, begun, self.clock.now())?;
        self.lock_pending().insert(id.clone(), order.pending(&id, self));
        let shown = operation.clone();
        self.spawn(move |inner| async move {
            let came = match fault {
                Some(fault @ (Fault::QuotaInOperation | Fault::OperationsLimitInOperation)) => {
                    Err(fault.refusal())
                }
                _ => inner.capture(order, &id).await,
            };
            if let (Ok(image), Some(Fault::VanishingImage)) = (&came, fault) {
                let gone = inner.engine.delete(&ImageRef::of(&image.image)).await;
                tracing::debug!("an image vanishes: {gone:?}");
            }
            inner.lock_pending().remove(&id);
            let response = |seen: Seen| {
                let word = format!("compute.v1.{}", word_of(seen.image.kind));
                typed(&word, inner.shown(&seen))
            };
            inner.end(&operation, came.map(response));
        });
        Ok(shown)
    }

    async fn capture(self: &Arc<Self>, order: Order, id: &str) -> Result<Seen, Refusal> {
        let _permit = self.captures.acquire().await.map_err(|_| Refusal::stopped())?;
        let now = self.clock.now();
        let policy =
            PolicyName::parse(POLICY).map_err(|error| Refusal::not_now(error.to_string()))?;
        let key = Key { policy, source: order.source.id, slot: Slot::at(now) };
        let name = order.name.clone();
        let create = Create {
            kind: order.kind,
            consistency: Consistency::Crash,
            kms_key: order.kms_key,
            disks: vec![order.device],
            disk_by_disk: false,
            one_instant: Vec::new(),
            companion: None,
            excluded_disks: Vec::new(),
            disk_bytes: 0,
            labels: order.labels,
            description: order.kept.description.clone(),
            deadline: now,
            replaces: None,
            problems: Vec::new(),
            family: None,
            sharing: None,
            tier: None,
            via: Via::Disk,
        };
        let request =
            CreateRequest { key, name: name.clone(), location: order.location, create, by: None };
        let watch = Arc::new(Watch(Arc::clone(self)));
        // The file is there until the image is made.
        let (origin, _fetched) = match order.contents {
            Contents::Here(origin) => (origin, None),
            Contents::There(fetch) => {
                let is_stopped = || watch.is_cancelled();
                let fetched = fetch.bring(&self.fetched, id, LENGTH_MAX, is_stopped).await?;
                (Origin::Machine(Box::new(fetched.machine()?)), Some(fetched))
            }
        };
        match self.engine.create_of(request, id.to_owned(), origin, watch).await {
            Ok(Created::Made(image)) => {
                self.shelf.put(&image.id, order.kept.clone())?;
                Ok(Seen { image, kept: order.kept })
            }
            Ok(Created::Found { image, .. }) => Err(Refusal::new(
                super::answer::Code::AlreadyExists,
                format!("{} with name {} already exists", word_of(image.kind), image.name),
            )),
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

    async fn read_order(&self, request: &Request, kind: ImageKind) -> Result<Order, Refusal> {
        let location = self.folders.location(request.text("folderId")?)?.to_owned();
        let name = read_name(request)?.unwrap_or_default().to_owned();
        self.refuse_taken(kind, &name, &location, None).await?;
        let source = self.read_source(request, kind).await?;
        let mut kept = Kept {
            name: Some(name.clone()),
            description: read_description(request)?,
            min_disk_size: read_min_disk_size(request, source.bytes)?,
            ..Kept::default()
        };
        let mut set = |field: &str, value: Value| kept.shown.insert(field.to_owned(), value);
        if let Some(key) = &source.kms_key {
            set("kmsKey", json!({"keyId": key, "versionId": "1"}));
        }
        if kind == ImageKind::Snapshot {
            set("sourceDiskId", json!(source.disk.clone().unwrap_or_default()));
        } else {
            if let Some(family) = read_family(request)? {
                set("family", json!(family));
            }
            if request.body.get("pooled").is_some_and(|pooled| *pooled == json!(true)) {
                set("pooled", json!(true));
            }
            set("os", read_os(request, source.os)?);
            let products = request.body.get("productIds").cloned();
            set("productIds", products.unwrap_or_else(|| json!([])));
        }
        let seen = self.seen().await?;
        // The engine has names of its own, one for images of all kinds.
        let is_free = is_rfc1035_label(&name) && !seen.images.iter().any(|one| one.name == name);
        Ok(Order {
            kind,
            name: if is_free { name } else { LocalEngine::new_id()? },
            contents: source.contents,
            source: source.known,
            device: source.device,
            labels: read_labels(&request.body)?,
            location,
            kms_key: source.kms_key,
            kept,
            disk: source.disk,
            bytes: source.bytes,
        })
    }

    async fn read_source(&self, request: &Request, kind: ImageKind) -> Result<Source, Refusal> {
        if kind == ImageKind::Snapshot {
            return self.disk_source(request.required("diskId")?).await;
        }
        let fields = ["imageId", "diskId", "snapshotId", "uri"];
        let mut named = Vec::new();
        for field in fields {
            named.extend(request.text(field)?.map(|text| (field, text)));
        }
        match named.as_slice() {
            [("diskId", id)] => self.disk_source(id).await,
            [("imageId", id)] => self.stored_source(ImageKind::DiskImage, id).await,
            [("snapshotId", id)] => self.stored_source(ImageKind::Snapshot, id).await,
            [("uri", uri)] => self.fetched_source(uri),
            [_] | [] | [_, _, ..] => Err(Refusal::invalid(
                "source",
                "exactly one of imageId, diskId, snapshotId and uri must be set",
            )),
        }
    }

    /// A disk that lies elsewhere. What comes of fetching it is said in the operation.
    fn fetched_source(&self, uri: &str) -> Result<Source, Refusal> {
        if self.is_reached.load(Ordering::Relaxed) {
            return Err(Refusal::not_done("imports where others than this machine can reach it"));
        }
        Ok(Source {
            contents: Contents::There(Fetch::read(uri)?),
            known: fetched::source()?,
            device: DEVICE.to_owned(),
            disk: None,
            bytes: None,
            kms_key: None,
            os: json!({}),
        })
    }

    async fn disk_source(&self, id: &str) -> Result<Source, Refusal> {
        let machines = self.stock.world().await?;
        let disks = machines.iter().flat_map(crate::serve::stock::Machine::disks);
        let disk: MachineDisk<'_> = disks
            .into_iter()
            .find(|disk| disk.number() == id)
            .ok_or_else(|| Refusal::not_found("Disk", id))?;
        if let Some(problem) = disk.problem {
            return Err(Refusal::not_now(problem));
        }
        let machine = disk.machine;
        let key = disk.made.and_then(|made| made.shown.get("kmsKey"));
        Ok(Source {
            contents: Contents::Here(if machine.is_loose {
                Origin::Machine(Box::new(machine.local.clone()))
            } else {
                Origin::Instance
            }),
            known: ImageSource { id: machine.seen.id.clone(), name: machine.seen.name.clone() },
            device: disk.spec.device_name.clone(),
            disk: Some(id.to_owned()),
            bytes: disk.bytes,
            kms_key: key.and_then(|key| key["keyId"].as_str()).map(str::to_owned),
            os: json!({}),
        })
    }

    /// The only disk of an image.
    pub(super) async fn stored(
        &self,
        kind: ImageKind,
        id: &str,
    ) -> Result<(Seen, String, u64), Refusal> {
        let seen = self.image(kind, id).await?;
        if seen.image.state != ImageState::Ready {
            return Err(Refusal::not_now(format!("{} {id} is not ready", word_of(kind))));
        }
        let record = self.engine.record(&seen.image.id).await?;
        let disks = record["disks"].as_array().cloned().unwrap_or_default();
        let [disk] = disks.as_slice() else {
            return Err(Refusal::invalid(
                id_field(kind),
                "it was made by another means and does not hold one disk",
            ));
        };
        let device = disk["deviceName"].as_str().unwrap_or_default().to_owned();
        Ok((seen, device, disk["sizeBytes"].as_u64().unwrap_or_default()))
    }

    async fn stored_source(&self, kind: ImageKind, id: &str) -> Result<Source, Refusal> {
        let (Seen { image, kept }, device, bytes) = self.stored(kind, id).await?;
        let source = image.source.clone();
        let key = kept.shown.get("kmsKey").and_then(|key| key["keyId"].as_str());
        Ok(Source {
            contents: Contents::Here(Origin::Image { image: image.id, device: device.clone() }),
            known: source.ok_or_else(|| Refusal::not_now("the image names no source"))?,
            device,
            disk: None,
            bytes: Some(bytes),
            kms_key: key.map(str::to_owned),
            os: kept.shown.get("os").cloned().unwrap_or_else(|| json!({})),
        })
    }

    /// What is remembered of an image that is being made.
    pub(super) fn pending_kept(&self, id: &str) -> Option<Kept> {
        self.lock_pending().get(id).map(|pending| pending.kept.clone())
    }

    /// Adds the images that are being made and that the engine does not show yet.
    pub(super) fn add_pending(&self, images: &mut Vec<Image>) {
        for (id, pending) in self.lock_pending().iter() {
            if !images.iter().any(|image| image.id == *id) {
                images.push(pending.image.clone());
            }
        }
    }

    fn lock_pending(&self) -> MutexGuard<'_, std::collections::BTreeMap<String, Seen>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_min_disk_size(request: &Request, source: Option<u64>) -> Result<Option<u64>, Refusal> {
    let Some(size) = request.number("minDiskSize")? else { return Ok(None) };
    if !DISK_SIZE.contains(&size) || source.is_some_and(|source| size < source) {
        let why =
            "it is between 4194304 and 4398046511104, and not below what the image is made of";
        return Err(Refusal::invalid("minDiskSize", why));
    }
    Ok(Some(size))
}

fn read_family(request: &Request) -> Result<Option<&str>, Refusal> {
    let Some(family) = request.text("family")? else { return Ok(None) };
    if FAMILY_LENGTH.contains(&family.len()) && is_rfc1035_label(family) {
        return Ok(Some(family));
    }
    let why = "Field does not match the pattern /|[a-z][-a-z0-9]{1,61}[a-z0-9]/";
    Err(Refusal::invalid("family", why))
}

/// The system, as it is said or as the source has it.
fn read_os(request: &Request, inherited: Value) -> Result<Value, Refusal> {
    let Some(os) = request.body.get("os").filter(|os| os.is_object()) else { return Ok(inherited) };
    match os["type"].as_str() {
        Some("LINUX" | "WINDOWS") => Ok(os.clone()),
        None => Ok(inherited),
        _ => Err(Refusal::invalid("os.type", "it is LINUX or WINDOWS")),
    }
}
