//! Disks: those of instances, and those that were made through this API, attached or not.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::Inner;
use super::answer::{Answer, Refusal};
use super::instance::named;
use super::label;
use super::link::{Links, Named, Scope};
use super::object::Object;
use super::operation::Begun;
use super::page;
use super::request::Request;
use crate::engine::local::LocalEngine;
use crate::serve::stock::{Machine, MachineDisk, MadeDisk};

/// Bytes of the unit that sizes of disks are told in.
pub const GIB: u64 = 1 << 30;
/// The kind of disk where nothing else is said.
const TYPE_DEFAULT: &str = "pd-standard";

impl MachineDisk<'_> {
    /// Its link.
    pub fn link(&self, links: &Links) -> String {
        links.link(&self.machine.scope(), "disks", &self.name())
    }

    /// Its size in whole GiB.
    pub fn gib(&self) -> Option<String> {
        self.bytes.map(|bytes| bytes.div_ceil(GIB).to_string())
    }

    fn features(&self) -> Vec<Value> {
        self.spec.guest_os_features.iter().map(|feature| json!({"type": feature})).collect()
    }

    fn common(&self, links: &Links, index: u32) -> Object {
        let mut shown = Object::default();
        shown.set("type", &"PERSISTENT");
        shown.set("mode", &self.spec.mode.as_deref().unwrap_or("READ_WRITE"));
        shown.set("interface", &self.spec.interface.as_deref().unwrap_or("SCSI"));
        shown.set("source", &self.link(links));
        shown.set("deviceName", &self.spec.device_name);
        shown.set("index", &index);
        shown.set("boot", &self.spec.boot);
        shown.set("autoDelete", &self.spec.auto_delete.unwrap_or(false));
        shown.set("diskSizeGb", &self.gib());
        shown.set("guestOsFeatures", &self.features());
        shown.set("licenses", &self.spec.licenses);
        shown.set("diskEncryptionKey", &self.spec.disk_encryption_key);
        shown
    }

    /// As an instance has it.
    pub fn attached(&self, links: &Links, index: u32) -> Value {
        let mut shown = self.common(links, index);
        shown.set("kind", &"compute#attachedDisk");
        shown.set("architecture", &self.spec.architecture);
        shown.json()
    }

    /// As a machine image records it.
    pub fn saved(&self, links: &Links, index: u32) -> Value {
        let mut shown = self.common(links, index);
        shown.set("kind", &"compute#savedAttachedDisk");
        shown.set("diskType", &self.spec.disk_type);
        shown.json()
    }

    /// As the API shows it.
    pub fn json(&self, links: &Links) -> Value {
        let mut shown = Object::default();
        let scope = self.machine.scope();
        if let Some(made) = self.made {
            shown.0.clone_from(&made.shown);
        }
        if !shown.0.contains_key("type") {
            let kind = self.spec.disk_type.as_deref().unwrap_or(TYPE_DEFAULT);
            shown.set("type", &links.link(&scope, "diskTypes", kind));
        }
        shown.set("kind", &"compute#disk");
        shown.set("id", &self.number());
        shown.set("name", &self.name());
        shown.set("creationTimestamp", &self.created.map(|time| time.to_string()));
        shown.set("zone", &links.zone(self.machine.zone()));
        shown.set("sizeGb", &self.gib());
        shown.set("physicalBlockSizeBytes", &"4096");
        shown.set("status", &if self.problem.is_some() { "UNAVAILABLE" } else { "READY" });
        shown.set("architecture", &self.spec.architecture);
        shown.set("guestOsFeatures", &self.features());
        shown.set("licenses", &self.spec.licenses);
        shown.set("diskEncryptionKey", &self.spec.disk_encryption_key);
        shown.set("labels", self.labels());
        shown.set("labelFingerprint", &label::fingerprint(self.labels()));
        if !self.machine.is_loose {
            shown.set("users", &[self.machine.link(links)]);
        }
        shown.set("selfLink", &self.link(links));
        shown.json()
    }
}

/// The disk that a request names.
pub fn find<'a>(
    machines: &'a [Machine],
    named: &Named,
    links: &Links,
) -> Result<MachineDisk<'a>, Refusal> {
    let disks = machines.iter().flat_map(Machine::disks);
    let is_it = |disk: &MachineDisk<'_>| {
        disk.machine.scope() == named.scope
            && (disk.name() == named.name || disk.number() == named.name)
    };
    disks.into_iter().find(is_it).ok_or_else(|| {
        Refusal::not_found(&links.path(&named.scope, &named.collection, &named.name))
    })
}

/// Answers a request that looks at disks.
pub fn answer(request: &Request, links: &Links, machines: &[Machine]) -> Answer {
    let disks = machines.iter().flat_map(Machine::disks);
    let shown = disks.map(|disk| (disk.machine.scope(), disk.json(links)));
    match (request.parts(), &request.scope) {
        (("GET", None, None), Scope::Aggregated) => {
            page::aggregated(request, links, "disk", shown.collect())
        }
        (("GET", None, None), scope) => {
            let here = shown.filter(|(at, _)| at == scope);
            page::list(request, links, "disk", here.map(|(_, item)| item).collect())
        }
        (("GET", Some(name), None), _) => {
            Ok(find(machines, &named(request, name), links)?.json(links))
        }
        _ => Err(request.not_done()),
    }
}

/// The size that a body asks for, in bytes.
pub fn read_size(request: &Request) -> Result<Option<u64>, Refusal> {
    const FIELD: &str = "resource.sizeGb";
    let text = match request.body.get("sizeGb") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let gib = text.parse::<u64>().ok().filter(|gib| (1..=65_536).contains(gib));
    let why = "A disk has between 1 and 65536 GB.";
    Ok(Some(gib.ok_or_else(|| Refusal::invalid(FIELD, &text, why))? * GIB))
}

/// The kind of disk that a body asks for, as a link.
fn read_type(request: &Request, links: &Links) -> Result<String, Refusal> {
    let asked = request.text("type")?.unwrap_or(TYPE_DEFAULT);
    let name = asked.rsplit('/').next().unwrap_or(asked);
    Ok(links.link(&request.scope, "diskTypes", name))
}

impl Inner {
    /// Answers a request for disks.
    pub(super) async fn answer_disks(&self, request: &Request) -> Answer {
        match request.parts() {
            ("POST", Some(disk), Some("createSnapshot")) => {
                self.create_snapshot(request, disk).await
            }
            ("POST", None, None) => self.insert_disk(request).await,
            ("DELETE", Some(name), None) => self.delete_disk(request, name).await,
            ("POST", Some(name), Some("setLabels")) => self.set_disk_labels(request, name).await,
            _ => answer(request, &self.links, &self.world().await?),
        }
    }

    async fn insert_disk(&self, request: &Request) -> Answer {
        let _gate = self.gate.lock().await;
        if let Some(operation) = self.operations.replayed(request)? {
            return Ok(operation.json(&self.links));
        }
        let machines = self.world().await?;
        let name = request.name_of_new()?;
        self.refuse_taken_disk(&machines, &request.scope, name)?;
        let zone = self.read_zone(&machines, request)?;
        let source = self.read_disk_source(request).await?;
        let size = read_size(request)?;
        let bytes = match (&source, size) {
            (Some(source), Some(size)) if size < source.bytes => {
                let why = format!(
                    "It must not be smaller than what the disk is made of, which has {} bytes.",
                    source.bytes
                );
                return Err(Refusal::invalid("resource.sizeGb", &(size / GIB).to_string(), &why));
            }
            (_, Some(size)) => size,
            (Some(source), None) => source.bytes,
            (None, None) => return Err(Refusal::required("resource.sizeGb")),
        };
        let mut shown = source.as_ref().map(|source| source.shown.clone()).unwrap_or_default();
        shown.insert("type".to_owned(), json!(read_type(request, &self.links)?));
        if let Some(description) = request.text("description")? {
            shown.insert("description".to_owned(), json!(description));
        }
        let made = MadeDisk {
            id: LocalEngine::new_id()?,
            name: name.to_owned(),
            zone,
            path: PathBuf::new(),
            created: self.clock.now(),
            labels: label::read(&request.body)?,
            shown,
        };
        let link = self.links.link(&request.scope, "disks", name);
        let begun = Begun {
            warnings: source.as_ref().map(|source| source.warnings.clone()).unwrap_or_default(),
            ..Begun::new(request.scope.clone(), "insert", link.clone(), Some(made.id.clone()))
        };
        let operation = self.operations.begin(request, begun, self.clock.now())?;
        self.reserve([link.clone()]);
        let id = operation.id;
        self.spawn(move |inner| async move {
            let came = inner.make_disk(made, source, bytes, id).await;
            inner.free([link]);
            inner.end(id, came.map(|()| None));
        });
        Ok(operation.json(&self.links))
    }

    async fn delete_disk(&self, request: &Request, name: &str) -> Answer {
        let _gate = self.gate.lock().await;
        if let Some(operation) = self.operations.replayed(request)? {
            return Ok(operation.json(&self.links));
        }
        let machines = self.world().await?;
        let disk = find(&machines, &named(request, name), &self.links)?;
        let link = disk.link(&self.links);
        if !disk.machine.is_loose {
            return Err(Refusal::in_use(&link, &disk.machine.link(&self.links)));
        }
        let made = disk.made.cloned().ok_or_else(|| Refusal::not_found(&link))?;
        if self.operations.is_busy(&link) {
            return Err(Refusal::not_ready(format!("The resource '{link}' is not ready")));
        }
        let begun = Begun::new(request.scope.clone(), "delete", link, Some(made.id.clone()));
        let operation = self.operations.begin(request, begun, self.clock.now())?;
        let id = operation.id;
        self.spawn(move |inner| async move {
            let came = inner.stock.remove_disk(made).await.map_err(Refusal::from);
            inner.end(id, came.map(|()| None));
        });
        Ok(operation.json(&self.links))
    }

    async fn set_disk_labels(&self, request: &Request, name: &str) -> Answer {
        let _gate = self.gate.lock().await;
        let machines = self.world().await?;
        let disk = find(&machines, &named(request, name), &self.links)?;
        if let Some(operation) = self.operations.replayed(request)? {
            return Ok(operation.json(&self.links));
        }
        let labels = label::replace(request, disk.labels())?;
        if let Some(made) = disk.made.cloned() {
            self.stock.note_disk(MadeDisk { labels, ..made })?;
        } else {
            let mut document = disk.machine.local.document.clone();
            let mut specs = document.spec.disks.iter_mut();
            if let Some(spec) = specs.find(|spec| spec.device_name == disk.spec.device_name) {
                spec.labels = labels;
            }
            self.stock.rewrite(disk.machine, document).await?;
        }
        let link = disk.link(&self.links);
        let begun = Begun::new(request.scope.clone(), "setLabels", link, Some(disk.number()));
        self.done_at_once(request, begun)
    }

    /// Refuses a name that a disk of the zone has, or will have.
    pub(super) fn refuse_taken_disk(
        &self,
        machines: &[Machine],
        scope: &Scope,
        name: &str,
    ) -> Result<(), Refusal> {
        let wanted =
            Named { scope: scope.clone(), collection: "disks".to_owned(), name: name.to_owned() };
        let is_there = find(machines, &wanted, &self.links).is_ok();
        if is_there || self.is_reserved(&self.links.link(scope, "disks", name)) {
            return Err(Refusal::exists(&self.links.path(scope, "disks", name)));
        }
        Ok(())
    }
}
