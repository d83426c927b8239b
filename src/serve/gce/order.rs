//! What a request for a new image asks for, checked.

use serde_json::{Map, Value, json};

use super::Inner;
use super::answer::Refusal;
use super::disk;
use super::image::{collection_of, machine_fields};
use super::instance;
use super::label::{self, Labels};
use super::link::{Named, Scope};
use super::operation::{Begun, Notice};
use super::origin::{DiskSource, refuse_other_sources};
use super::request::Request;
use crate::engine::local::Origin;
use crate::inventory::{EngineInventory, Image, ImageKind, ImageSource, ImageState};
use crate::name::is_rfc1035_label;
use crate::serve::stock::Machine;

/// The longest description, in bytes.
const DESCRIPTION_MAX: usize = 2048;

/// The processors that a disk image may be for.
const ARCHITECTURES: [&str; 3] = ["ARCHITECTURE_UNSPECIFIED", "ARM64", "X86_64"];

/// What is to be captured.
pub struct Order {
    /// What it becomes.
    pub kind: ImageKind,
    /// Its name.
    pub name: String,
    /// The region that it is to be in, where it is to be in one.
    pub region: Option<String>,
    /// What it is made of.
    pub of: Source,
    /// The disks.
    pub disks: Vec<String>,
    /// The disks of the machine that are left out.
    pub left_out: Vec<String>,
    /// Its labels.
    pub labels: Labels,
    /// Its description.
    pub description: String,
    /// Where it is to be stored.
    pub location: String,
    /// Under which key.
    pub kms_key: Option<String>,
    /// What the API shows of the image and the engine does not record.
    pub shown: Map<String, Value>,
    /// What begins.
    pub begun: Begun,
}

/// What an image is made of.
pub enum Source {
    /// A machine, or a disk that is attached to none.
    Machine(Box<Machine>),
    /// A disk that another image holds.
    Stored(Box<DiskSource>),
}

impl Source {
    /// What the engine knows it by.
    pub fn known(&self) -> Option<ImageSource> {
        match self {
            Self::Machine(machine) => {
                Some(ImageSource { id: machine.seen.id.clone(), name: machine.seen.name.clone() })
            }
            Self::Stored(stored) => stored.image.source.clone(),
        }
    }

    /// As the engine is told.
    pub fn origin(&self) -> Origin {
        match self {
            Self::Machine(machine) if machine.is_loose => {
                Origin::Machine(Box::new(machine.local.clone()))
            }
            Self::Machine(_) => Origin::Instance,
            Self::Stored(stored) => {
                Origin::Image { image: stored.image.id.clone(), device: stored.device.clone() }
            }
        }
    }
}

/// A source, its disks, and what begins.
type Chosen = (Source, Vec<String>, Begun);

impl Inner {
    pub(super) async fn read_order(
        &self,
        request: &Request,
        kind: ImageKind,
        disk: Option<&Named>,
    ) -> Result<Order, Refusal> {
        let machines = self.world().await?;
        let seen = self.seen().await?;
        let name = self.read_free_name(request, kind, &seen)?;
        let (of, disks, mut begun) = match kind {
            ImageKind::MachineImage => self.read_instance(request, &name, &machines)?,
            _ => self.read_disk(request, kind, &name, disk, &machines).await?,
        };
        let description = read_description(request)?.unwrap_or_default().to_owned();
        let (kms_key, key_field) = read_key(request, kind)?;
        let mut shown = read_shown(request, kind)?;
        if !description.is_empty() {
            shown.insert("description".to_owned(), json!(description));
        }
        if let Some(key) = &kms_key {
            shown.insert(key_field.to_owned(), json!({"kmsKeyName": key}));
        }
        let mut left_out = Vec::new();
        match &of {
            Source::Machine(machine) => {
                begun.warnings.extend(unflushed(request, machine));
                let all = machine.disks().into_iter().map(|disk| disk.spec.device_name.clone());
                left_out = all.filter(|device| !disks.contains(device)).collect();
                match kind {
                    ImageKind::MachineImage => {
                        machine_fields(machine, &disks, &self.links, &mut shown);
                    }
                    _ => self.disk_fields(machine, &disks, &mut shown),
                }
            }
            Source::Stored(stored) => shown.extend(stored.shown.clone()),
        }
        let region = match &request.scope {
            Scope::Region(region) => Some(region.clone()),
            _ => None,
        };
        Ok(Order {
            kind,
            name,
            disks,
            left_out,
            labels: label::read(&request.body)?,
            description,
            location: read_location(request, region.as_deref(), &seen)?,
            region,
            kms_key,
            shown,
            begun,
            of,
        })
    }

    /// The name of a new image, if it is one and free.
    fn read_free_name(
        &self,
        request: &Request,
        kind: ImageKind,
        seen: &EngineInventory,
    ) -> Result<String, Refusal> {
        let name = request.name_of_new()?;
        let is_taken = |image: &&Image| image.name == name && image.state != ImageState::Failed;
        let pending = self.lock_pending().get(name).map(|pending| pending.image.kind);
        let taken = seen.images.iter().find(is_taken);
        let Some(other) = taken.map(|image| image.kind).or(pending) else {
            return Ok(name.to_owned());
        };
        let scope = match taken {
            Some(image) => super::image::scope_of(&self.kept(image, seen)),
            None => request.scope.clone(),
        };
        let path = self.links.path(&scope, collection_of(other), name);
        let is_same = other == kind && (scope == request.scope || kind != ImageKind::Snapshot);
        Err(if is_same { Refusal::exists(&path) } else { other_kind(&path) })
    }

    fn read_instance(
        &self,
        request: &Request,
        name: &str,
        machines: &[Machine],
    ) -> Result<Chosen, Refusal> {
        let source = match request.text("sourceInstance")? {
            Some(source) => source,
            None => request
                .query("sourceInstance")
                .ok_or_else(|| Refusal::required("resource.sourceInstance"))?,
        };
        let named = self.links.reference("resource.sourceInstance", source, "instances")?;
        let machine = instance::find(machines, &named, &self.links)?.clone();
        let disks = read_disks(request, &machine)?;
        let target = self.links.link(&Scope::Global, "machineImages", name);
        let begun = Begun::new(Scope::Global, "insert", target, None);
        Ok((Source::Machine(Box::new(machine)), disks, begun))
    }

    async fn read_disk(
        &self,
        request: &Request,
        kind: ImageKind,
        name: &str,
        disk: Option<&Named>,
        machines: &[Machine],
    ) -> Result<Chosen, Refusal> {
        refuse_other_sources(request, &["sourceInstantSnapshot", "rawDisk"])?;
        let target = self.links.link(&request.scope, collection_of(kind), name);
        if kind == ImageKind::DiskImage {
            let fields =
                [("sourceSnapshot", ImageKind::Snapshot), ("sourceImage", ImageKind::DiskImage)];
            for (field, of) in fields {
                let Some(text) = request.text(field)? else { continue };
                if request.text("sourceDisk")?.is_some() {
                    return Err(Refusal::bad("an image is made of one source, and two are named"));
                }
                let stored = self.disk_source(field, of, text, None).await?;
                let begun = Begun {
                    warnings: stored.warnings.clone(),
                    ..Begun::new(Scope::Global, "insert", target, None)
                };
                let disks = vec![stored.device.clone()];
                return Ok((Source::Stored(Box::new(stored)), disks, begun));
            }
        }
        let named = if let Some(named) = disk {
            named.clone()
        } else {
            let source = request.text("sourceDisk")?;
            let source = source.ok_or_else(|| Refusal::required("resource.sourceDisk"))?;
            self.links.reference("resource.sourceDisk", source, "disks")?
        };
        let disk = disk::find(machines, &named, &self.links)?;
        let is_running = disk.machine.seen.status == "RUNNING";
        if kind == ImageKind::DiskImage && is_running && !request.is_on("forceCreate") {
            return Err(Refusal::in_use(&disk.link(&self.links), &disk.machine.link(&self.links)));
        }
        let scope = match &request.scope {
            Scope::Zone(_) => named.scope.clone(),
            other => other.clone(),
        };
        let begun = if kind == ImageKind::Snapshot {
            Begun::new(scope, "createSnapshot", disk.link(&self.links), Some(disk.number()))
        } else {
            Begun::new(scope, "insert", target, None)
        };
        let disks = vec![disk.spec.device_name.clone()];
        Ok((Source::Machine(Box::new(disk.machine.clone())), disks, begun))
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

/// What an image is described as.
pub fn read_description(request: &Request) -> Result<Option<&str>, Refusal> {
    let description = request.text("description")?;
    if let Some(long) = description.filter(|text| text.len() > DESCRIPTION_MAX) {
        let why = format!("It has at most {DESCRIPTION_MAX} bytes.");
        return Err(Refusal::invalid("resource.description", long, &why));
    }
    Ok(description)
}

/// The family that a disk image is in.
pub fn read_family(request: &Request) -> Result<Option<&str>, Refusal> {
    let family = request.text("family")?;
    if let Some(wrong) = family.filter(|family| !is_rfc1035_label(family)) {
        let why = "Must be a match of regex '[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?'";
        return Err(Refusal::invalid("resource.family", wrong, why));
    }
    Ok(family)
}

/// The processors that a disk image is for.
pub fn read_architecture(request: &Request) -> Result<Option<&str>, Refusal> {
    let architecture = request.text("architecture")?;
    if let Some(other) = architecture.filter(|one| !ARCHITECTURES.contains(one)) {
        let why = format!("It is one of {}.", ARCHITECTURES.join(", "));
        return Err(Refusal::invalid("resource.architecture", other, &why));
    }
    Ok(architecture)
}

/// What is given back as it was written.
fn read_shown(request: &Request, kind: ImageKind) -> Result<Map<String, Value>, Refusal> {
    let mut shown = Map::new();
    match kind {
        ImageKind::MachineImage => {}
        ImageKind::DiskImage => {
            shown.insert("sourceType".to_owned(), json!("RAW"));
            if let Some(family) = read_family(request)? {
                shown.insert("family".to_owned(), json!(family));
            }
            if let Some(architecture) = read_architecture(request)? {
                shown.insert("architecture".to_owned(), json!(architecture));
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

/// The engine asks no guest to write down what it holds in memory, and says so where that was asked
/// for. Of a machine that is not running there is nothing to write down.
fn unflushed(request: &Request, machine: &Machine) -> Option<Notice> {
    let in_body = request.body.get("guestFlush").and_then(Value::as_bool).unwrap_or(false);
    let is_asked = in_body || request.is_on("guestFlush");
    (is_asked && machine.seen.status == "RUNNING").then(|| {
        Notice::new(
            "NOT_CRITICAL_ERROR",
            format!(
                "guestFlush: the guest of {} was not asked to flush, as this server cannot reach it; \
                 the image is crash-consistent, and records that.",
                machine.name()
            ),
        )
    })
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

/// Where an image is to be stored. One of a region is stored in the location of that name.
fn read_location(
    request: &Request,
    region: Option<&str>,
    seen: &EngineInventory,
) -> Result<String, Refusal> {
    const FIELD: &str = "resource.storageLocations";
    let there = &seen.capabilities.locations;
    let why = || format!("The storage locations here are: {}.", there.join(", "));
    let mut asked: Vec<&str> = match request.body.get("storageLocations") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(asked)) => asked.iter().map(|one| one.as_str().unwrap_or("")).collect(),
        Some(other) => {
            return Err(Refusal::invalid(FIELD, &other.to_string(), "It must be a list."));
        }
    };
    if let (Some(region), []) = (region, asked.as_slice()) {
        asked.push(region);
    }
    match asked.as_slice() {
        [one] if region.is_some_and(|region| region != *one) => {
            Err(Refusal::invalid(FIELD, one, "What is in a region is stored in it."))
        }
        [] => there.first().cloned().ok_or_else(|| Refusal::bad("there is no storage location")),
        [one] if there.iter().any(|known| known == one) => Ok((*one).to_owned()),
        [one] => Err(Refusal::invalid(FIELD, one, &why())),
        more => Err(Refusal::invalid(FIELD, &more.join(", "), "Only one can be given.")),
    }
}
