//! Instances, their disks, zones and folders: the data centre as this API shows it.
//!
//! Labels, names and states that are set through the API of an instance that a person described are
//! kept beside its file, which stays as it is. The server runs no machines: to stop or start one
//! changes what is said of it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Inner;
use super::answer::{Answer, Code, Refusal, without_defaults};
use super::capture::Watch;
use super::fault::Fault;
use super::image::{read_description, read_labels, read_name};
use super::operation::{Begun, empty, typed};
use super::page;
use super::request::Request;
use crate::engine::local::LocalEngine;
use crate::engine::local::instance::{
    DiskFormat, DiskSpec, InstanceDocument, InstanceKind, InstanceMetadata, InstanceSpec,
    InstanceStatus,
};
use crate::inventory::ImageKind;
use crate::policy::written::ApiVersion;
use crate::serve::stock::{Labels, Machine, MachineDisk, MadeDisk};

/// Where instances are whose description names no zone.
const ZONE_DEFAULT: &str = "local-a";
/// The kind of disk where nothing else is said.
const TYPE_DEFAULT: &str = "network-hdd";

/// What was set through the API of an instance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Overlay {
    /// Its labels.
    #[serde(default)]
    pub labels: Option<Labels>,
    /// Whether it was stopped or started.
    #[serde(default)]
    pub status: Option<String>,
}

fn zone(machine: &Machine) -> &str {
    if machine.seen.zone.is_empty() { ZONE_DEFAULT } else { &machine.seen.zone }
}

fn created(time: Option<Timestamp>) -> Value {
    json!(time.map(|time| time.to_string()).unwrap_or_default())
}

fn attached(disk: &MachineDisk<'_>) -> Value {
    json!({
        "mode": disk.spec.mode.as_deref().unwrap_or("READ_WRITE"),
        "deviceName": disk.spec.device_name,
        "autoDelete": disk.spec.auto_delete.unwrap_or(false),
        "diskId": disk.number(),
    })
}

impl Inner {
    fn machine_json(&self, machine: &Machine) -> Value {
        let overlay = self.overlays.get(machine.seen.id.as_str()).unwrap_or_default();
        let spec = &machine.local.document.spec;
        let (boot, others): (Vec<_>, Vec<_>) =
            machine.disks().into_iter().partition(|disk| disk.spec.boot);
        let mut shown = Map::new();
        let mut set = |field: &str, value: Value| shown.insert(field.to_owned(), value);
        set("id", json!(machine.seen.id));
        set("folderId", json!(self.folders.home()));
        set("createdAt", created(machine.created));
        set("name", json!(machine.seen.name));
        set("description", json!(spec.description));
        set("labels", json!(overlay.labels.as_ref().unwrap_or(&machine.seen.labels)));
        set("zoneId", json!(zone(machine)));
        set("platformId", json!(machine.seen.machine_type));
        set("status", json!(overlay.status.as_deref().unwrap_or_else(|| status(machine))));
        set("fqdn", json!(format!("{}.local.internal", machine.seen.name)));
        if let Some(boot) = boot.first() {
            set("bootDisk", attached(boot));
        }
        set("secondaryDisks", others.iter().map(attached).collect());
        without_defaults(shown)
    }

    fn disk_json(&self, disk: &MachineDisk<'_>) -> Value {
        let mut shown = disk.made.map(|made| made.shown.clone()).unwrap_or_default();
        let kind = disk.spec.disk_type.as_deref().unwrap_or(TYPE_DEFAULT);
        shown.entry("typeId").or_insert_with(|| json!(kind));
        let mut set = |field: &str, value: Value| shown.insert(field.to_owned(), value);
        set("id", json!(disk.number()));
        set("folderId", json!(self.folders.home()));
        set("createdAt", created(disk.created));
        set("name", json!(disk.name()));
        set("labels", json!(disk.labels()));
        set("zoneId", json!(zone(disk.machine)));
        set("size", json!(disk.bytes.unwrap_or_default().to_string()));
        set("blockSize", json!("4096"));
        set("status", json!(if disk.problem.is_some() { "ERROR" } else { "READY" }));
        if !disk.machine.is_loose {
            set("instanceIds", json!([disk.machine.seen.id]));
        }
        without_defaults(shown)
    }

    /// Answers a request for instances.
    pub(super) async fn answer_instances(&self, request: &Request) -> Answer {
        let machines = self.stock.world().await?;
        let real = || machines.iter().filter(|machine| !machine.is_loose);
        let find = |id: &str| {
            let found = real().find(|machine| machine.seen.id.as_str() == id);
            found.ok_or_else(|| Refusal::not_found("Instance", id))
        };
        match request.parts() {
            ("GET", None, None) => {
                let is_home = self.folders.is_home(request.query("folderId"))?;
                let shown = real().filter(|_| is_home).map(|one| self.machine_json(one));
                page::list(request, "instances", shown.collect())
            }
            ("GET", Some(id), None) => Ok(self.machine_json(find(id)?)),
            ("GET", Some(id), Some("operations")) => self.operations.of(request, id),
            ("POST", None, None) => self.create_instance(request, &machines).await,
            ("PATCH", Some(id), None) => self.update_instance(request, find(id)?).await,
            ("POST", Some(id), Some("stop")) => self.turn(request, find(id)?, "Stop").await,
            ("POST", Some(id), Some("start")) => self.turn(request, find(id)?, "Start").await,
            ("DELETE", Some(id), None) => self.delete_instance(request, find(id)?).await,
            _ => Err(request.not_done()),
        }
    }

    /// Only labels can change.
    async fn update_instance(&self, request: &Request, machine: &Machine) -> Answer {
        let _gate = self.gate.lock().await;
        if let Some(operation) = self.operations.replayed(request)? {
            return Ok(operation.json());
        }
        if request.mask()?.is_none_or(|mask| mask != ["labels"]) {
            return Err(Refusal::not_done("updates of instances beyond updateMask=labels"));
        }
        let id = machine.seen.id.as_str();
        let mut overlay = self.overlays.get(id).unwrap_or_default();
        overlay.labels = Some(read_labels(&request.body)?);
        self.overlays.put(id, overlay)?;
        let response = typed("compute.v1.Instance", self.machine_json(machine));
        self.done_at_once(request, begun("Update", "Instance", id), response)
    }

    /// Says of an instance that it runs, or that it does not.
    async fn turn(&self, request: &Request, machine: &Machine, verb: &str) -> Answer {
        let _gate = self.gate.lock().await;
        if let Some(operation) = self.operations.replayed(request)? {
            return Ok(operation.json());
        }
        let id = machine.seen.id.as_str();
        let mut overlay = self.overlays.get(id).unwrap_or_default();
        let now = overlay.status.as_deref().unwrap_or_else(|| status(machine));
        let (before, after) =
            if verb == "Stop" { ("RUNNING", "STOPPED") } else { ("STOPPED", "RUNNING") };
        if now != before {
            return Err(Refusal::not_now(format!("Instance {id} is {now} and not {before}")));
        }
        if let Some(fault) = self.fault(request, |fault| fault == Fault::StartFails) {
            let begun = begun(verb, "Instance", id);
            let operation = self.operations.begin(request, begun, self.clock.now())?;
            self.end(&operation, Err(fault.refusal()));
            return Ok(operation.json());
        }
        overlay.status = Some(after.to_owned());
        self.overlays.put(id, overlay)?;
        let response = match verb {
            "Stop" => empty(),
            _ => typed("compute.v1.Instance", self.machine_json(machine)),
        };
        self.done_at_once(request, begun(verb, "Instance", id), response)
    }

    async fn delete_instance(&self, request: &Request, machine: &Machine) -> Answer {
        let _gate = self.gate.lock().await;
        if let Some(operation) = self.operations.replayed(request)? {
            return Ok(operation.json());
        }
        let made = self.stock.made(machine)?;
        let id = machine.seen.id.to_string();
        let going: Vec<MadeDisk> = machine
            .disks()
            .iter()
            .filter(|disk| disk.spec.auto_delete.unwrap_or(false))
            .filter_map(|disk| disk.made.cloned())
            .collect();
        let operation =
            self.operations.begin(request, begun("Delete", "Instance", &id), self.clock.now())?;
        let shown = operation.json();
        self.spawn(move |inner| async move {
            let came = inner.stock.remove_instance(&id, made, going).await;
            inner.end(&operation, came.map(|()| empty()).map_err(Refusal::from));
        });
        Ok(shown)
    }

    /// An instance over disks that are there, or that are made for it.
    async fn create_instance(&self, request: &Request, machines: &[Machine]) -> Answer {
        let _gate = self.gate.lock().await;
        if let Some(operation) = self.operations.replayed(request)? {
            return Ok(operation.json());
        }
        self.folders.check_home(request.text("folderId")?)?;
        let name =
            read_name(request)?.ok_or_else(|| Refusal::not_done("instances without a name"))?;
        if machines.iter().any(|machine| machine.name() == name) {
            let message = format!("Instance with name {name} already exists");
            return Err(Refusal::new(Code::AlreadyExists, message));
        }
        let zone = read_zone(request, machines)?.to_owned();
        let mut specs = vec![(request.body.get("bootDiskSpec"), true)];
        let others = request.body.get("secondaryDiskSpecs").and_then(Value::as_array);
        specs.extend(others.into_iter().flatten().map(|spec| (Some(spec), false)));
        let mut disks = Vec::new();
        for (spec, is_boot) in specs {
            let spec = spec.ok_or_else(|| Refusal::invalid("bootDiskSpec", "Field is required"))?;
            disks.push(attach(spec, is_boot, machines)?);
        }
        let id = LocalEngine::new_id()?;
        let document = InstanceDocument {
            api_version: ApiVersion::V1,
            kind: InstanceKind::Instance,
            metadata: InstanceMetadata {
                name: name.to_owned(),
                id: Some(id.clone()),
                labels: read_labels(&request.body)?,
            },
            spec: InstanceSpec {
                description: Some(read_description(request)?).filter(|text| !text.is_empty()),
                zone,
                machine_type: request.text("platformId")?.unwrap_or_default().to_owned(),
                status: InstanceStatus::Terminated,
                disks,
                ..InstanceSpec::default()
            },
        };
        let operation =
            self.operations.begin(request, begun("Create", "Instance", &id), self.clock.now())?;
        self.stock
            .describe(document, "made by the server over its disks", self.clock.now(), Map::new())
            .await?;
        let machines = self.stock.world().await?;
        let made = machines.iter().find(|machine| machine.seen.id.as_str() == id);
        let response =
            made.map_or_else(empty, |made| typed("compute.v1.Instance", self.machine_json(made)));
        self.end(&operation, Ok(response));
        Ok(operation.json())
    }

    /// Answers a request for disks.
    pub(super) async fn answer_disks(&self, request: &Request) -> Answer {
        let machines = self.stock.world().await?;
        let disks: Vec<MachineDisk<'_>> = machines.iter().flat_map(Machine::disks).collect();
        let find = |id: &str| {
            let found = disks.iter().find(|disk| disk.number() == id);
            found.ok_or_else(|| Refusal::not_found("Disk", id))
        };
        match request.parts() {
            ("GET", None, None) => {
                let is_home = self.folders.is_home(request.query("folderId"))?;
                let shown = disks.iter().filter(|_| is_home).map(|disk| self.disk_json(disk));
                page::list(request, "disks", shown.collect())
            }
            ("GET", Some(id), None) => Ok(self.disk_json(find(id)?)),
            ("GET", Some(id), Some("operations")) => self.operations.of(request, id),
            ("POST", None, None) => self.create_disk(request, &machines).await,
            ("PATCH", Some(id), None) => self.update_disk(request, find(id)?).await,
            ("DELETE", Some(id), None) => self.delete_disk(request, find(id)?).await,
            _ => Err(request.not_done()),
        }
    }

    async fn create_disk(&self, request: &Request, machines: &[Machine]) -> Answer {
        let _gate = self.gate.lock().await;
        if let Some(operation) = self.operations.replayed(request)? {
            return Ok(operation.json());
        }
        self.folders.check_home(request.text("folderId")?)?;
        let zone = read_zone(request, machines)?.to_owned();
        let size =
            request.number("size")?.ok_or_else(|| Refusal::invalid("size", "Field is required"))?;
        let mut shown = Map::new();
        let mut source = None;
        for (field, kind, word) in [
            ("imageId", ImageKind::DiskImage, "sourceImageId"),
            ("snapshotId", ImageKind::Snapshot, "sourceSnapshotId"),
        ] {
            let Some(id) = request.text(field)? else { continue };
            let (seen, device, bytes) = self.stored(kind, id).await?;
            let least = seen.kept.min_disk_size.unwrap_or(bytes).max(bytes);
            if size < least || source.is_some() {
                let why = format!("it is made of one source, and has at least {least} bytes");
                return Err(Refusal::invalid("size", &why));
            }
            shown.insert(word.to_owned(), json!(id));
            source = Some((seen.image.id, device));
        }
        if let Some(kind) = request.text("typeId")? {
            shown.insert("typeId".to_owned(), json!(kind));
        }
        if let Some(key) = request.text("kmsKeyId")? {
            shown.insert("kmsKey".to_owned(), json!({"keyId": key, "versionId": "1"}));
        }
        let id = LocalEngine::new_id()?;
        let name = read_name(request)?.map_or_else(|| format!("disk-{id}"), str::to_owned);
        if machines.iter().flat_map(Machine::disks).any(|disk| disk.name() == name) {
            let message = format!("Disk with name {name} already exists");
            return Err(Refusal::new(Code::AlreadyExists, message));
        }
        let made = MadeDisk {
            id: id.clone(),
            name,
            zone,
            path: std::path::PathBuf::new(),
            created: self.clock.now(),
            labels: read_labels(&request.body)?,
            shown,
        };
        let operation =
            self.operations.begin(request, begun("Create", "Disk", &id), self.clock.now())?;
        let answer = operation.json();
        self.spawn(move |inner| async move {
            let came = inner.fill_disk(made, source, size).await;
            inner.end(&operation, came);
        });
        Ok(answer)
    }

    async fn fill_disk(
        self: &std::sync::Arc<Self>,
        made: MadeDisk,
        source: Option<(String, String)>,
        size: u64,
    ) -> Result<Value, Refusal> {
        let _permit = self.captures.acquire().await.map_err(|_| Refusal::stopped())?;
        let id = made.id.clone();
        let source = source.as_ref().map(|(image, device)| (&**image, &**device));
        let watch = std::sync::Arc::new(Watch(std::sync::Arc::clone(self)));
        self.stock.make_disk(made, source, size, watch).await?;
        let machines = self.stock.world().await?;
        let disks = machines.iter().flat_map(Machine::disks);
        let disk = disks.into_iter().find(|disk| disk.number() == id);
        let disk = disk.ok_or_else(|| Refusal::not_found("Disk", &id))?;
        Ok(typed("compute.v1.Disk", self.disk_json(&disk)))
    }

    /// Only labels can change, of disks that were made here.
    async fn update_disk(&self, request: &Request, disk: &MachineDisk<'_>) -> Answer {
        let _gate = self.gate.lock().await;
        if let Some(operation) = self.operations.replayed(request)? {
            return Ok(operation.json());
        }
        if request.mask()?.is_none_or(|mask| mask != ["labels"]) {
            return Err(Refusal::not_done("updates of disks beyond updateMask=labels"));
        }
        let Some(made) = disk.made else {
            return Err(Refusal::not_done("updates of disks that were not made here"));
        };
        let labels = read_labels(&request.body)?;
        let made = MadeDisk { labels, ..made.clone() };
        self.stock.note_disk(made.clone())?;
        let changed = MachineDisk { made: Some(&made), ..disk.clone() };
        let response = typed("compute.v1.Disk", self.disk_json(&changed));
        self.done_at_once(request, begun("Update", "Disk", &made.id), response)
    }

    async fn delete_disk(&self, request: &Request, disk: &MachineDisk<'_>) -> Answer {
        let _gate = self.gate.lock().await;
        if let Some(operation) = self.operations.replayed(request)? {
            return Ok(operation.json());
        }
        let id = disk.number();
        if !disk.machine.is_loose {
            return Err(Refusal::not_now(format!("Disk {id} is attached to an instance")));
        }
        let made = disk.made.cloned().ok_or_else(|| Refusal::not_found("Disk", &id))?;
        let operation =
            self.operations.begin(request, begun("Delete", "Disk", &id), self.clock.now())?;
        let shown = operation.json();
        self.spawn(move |inner| async move {
            let came = inner.stock.remove_disk(made).await;
            inner.end(&operation, came.map(|()| empty()).map_err(Refusal::from));
        });
        Ok(shown)
    }

    /// Answers a request for zones.
    pub(super) async fn answer_zones(&self, request: &Request) -> Answer {
        let machines = self.stock.world().await?;
        let mut zones: Vec<&str> = machines.iter().map(zone).collect();
        zones.sort_unstable();
        zones.dedup();
        let shown = |zone: &str| json!({"id": zone, "regionId": "local", "status": "UP"});
        match request.parts() {
            ("GET", None, None) => {
                page::list(request, "zones", zones.into_iter().map(shown).collect())
            }
            ("GET", Some(id), None) if zones.contains(&id) => Ok(shown(id)),
            ("GET", Some(id), None) => Err(Refusal::not_found("Zone", id)),
            _ => Err(request.not_done()),
        }
    }
}

fn status(machine: &Machine) -> &'static str {
    match machine.local.document.spec.status {
        InstanceStatus::Running => "RUNNING",
        InstanceStatus::Terminated | InstanceStatus::Suspended => "STOPPED",
    }
}

fn begun(verb: &str, word: &str, id: &str) -> Begun {
    let field = if word == "Disk" { "diskId" } else { "instanceId" };
    Begun {
        description: format!("{verb} {}", word.to_lowercase()),
        metadata: typed(&format!("compute.v1.{verb}{word}Metadata"), json!({field: id})),
        target: id.to_owned(),
    }
}

fn read_zone<'a>(request: &'a Request, machines: &[Machine]) -> Result<&'a str, Refusal> {
    let asked = request.required("zoneId")?;
    if machines.iter().any(|machine| zone(machine) == asked) {
        return Ok(asked);
    }
    Err(Refusal::not_found("Zone", asked))
}

/// A disk of a new instance, which was made here and is attached to nothing.
fn attach(spec: &Value, is_boot: bool, machines: &[Machine]) -> Result<DiskSpec, Refusal> {
    let Some(id) = spec["diskId"].as_str() else {
        return Err(Refusal::not_done("instances over disks that are not there: make them first"));
    };
    let disks = machines.iter().flat_map(Machine::disks);
    let disk = disks.into_iter().find(|disk| disk.number() == id);
    let disk = disk.ok_or_else(|| Refusal::not_found("Disk", id))?;
    let Some(made) = disk.made.filter(|_| disk.machine.is_loose) else {
        return Err(Refusal::not_now(format!("Disk {id} is attached to an instance")));
    };
    Ok(DiskSpec {
        device_name: spec["deviceName"].as_str().unwrap_or(&made.name).to_owned(),
        path: made.path.display().to_string(),
        format: Some(DiskFormat::Raw),
        boot: is_boot,
        auto_delete: spec["autoDelete"].as_bool(),
        ..DiskSpec::default()
    })
}
