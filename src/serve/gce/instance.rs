//! Instances and disks: the data centre as the API shows it.

use data_encoding::BASE64;
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::answer::{Answer, Refusal};
use super::label;
use super::link::{Links, Named, Scope, region_of};
use super::page;
use super::request::Request;
use crate::engine::local::instance::{DiskSpec, LocalInstance};
use crate::inventory::Instance;

/// Where instances are whose description names no zone.
const ZONE_DEFAULT: &str = "local-a";
/// Bytes of the unit that sizes of disks are told in.
const GIB: u64 = 1 << 30;

/// A number for an id that is none: a hash of it.
pub fn number_of(id: &str) -> String {
    if id.parse::<u64>().is_ok_and(|number| number > 0) {
        return id.to_owned();
    }
    let hash = Sha256::digest(id.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    (u64::from_be_bytes(first) >> 1).max(1).to_string()
}

fn fingerprint(of: &Value) -> String {
    BASE64.encode(&Sha256::digest(of.to_string().as_bytes())[..8])
}

/// An instance of the data centre.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// As it is described.
    pub local: LocalInstance,
    /// As it is seen.
    pub seen: Instance,
}

/// Things under their names.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    /// Sets what is there and not empty.
    fn set(&mut self, field: &str, value: &impl Serialize) {
        let value = serde_json::to_value(value).unwrap_or_default();
        let is_empty = match &value {
            Value::Null => true,
            Value::Array(elements) => elements.is_empty(),
            Value::Object(object) => object.is_empty(),
            Value::String(text) => text.is_empty(),
            _ => false,
        };
        if !is_empty {
            self.0.insert(field.to_owned(), value);
        }
    }
}

impl Machine {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.seen.name
    }

    /// Its zone.
    pub fn zone(&self) -> &str {
        if self.seen.zone.is_empty() { ZONE_DEFAULT } else { &self.seen.zone }
    }

    /// Where it is.
    pub fn scope(&self) -> Scope {
        Scope::zone(self.zone())
    }

    /// Its id.
    pub fn number(&self) -> String {
        number_of(self.seen.id.as_str())
    }

    /// Its link.
    pub fn link(&self, links: &Links) -> String {
        links.link(&self.scope(), "instances", self.name())
    }

    /// Its disks, each with what it is called among all disks.
    pub fn disks(&self) -> Vec<MachineDisk<'_>> {
        self.local
            .document
            .spec
            .disks
            .iter()
            .map(|spec| {
                let seen = self.seen.disks.iter().find(|disk| disk.name == spec.device_name);
                let bytes = seen.and_then(|disk| disk.size_bytes);
                let problem = seen.and_then(|disk| disk.problem.clone());
                MachineDisk { machine: self, spec, bytes, problem }
            })
            .collect()
    }

    /// What instances and what an image records of them have in common.
    fn common(&self, links: &Links) -> Object {
        let spec = &self.local.document.spec;
        let region = Scope::region(region_of(self.zone()));
        let full = |scope: &Scope, collection: &str, name: &Option<String>| {
            let name = name.as_ref()?;
            Some(if name.contains('/') {
                name.clone()
            } else {
                links.link(scope, collection, name)
            })
        };
        let mut common = Object::default();
        common.set("description", &spec.description);
        common.set("labels", &self.seen.labels);
        common.set("canIpForward", &spec.can_ip_forward);
        common.set("minCpuPlatform", &spec.min_cpu_platform);
        common.set("keyRevocationActionType", &spec.key_revocation_action_type);
        common.set("scheduling", &spec.scheduling);
        common.set("serviceAccounts", &spec.service_accounts);
        let interfaces = spec.network_interfaces.iter().map(|interface| {
            let mut shown = Object::default();
            shown.set("kind", &"compute#networkInterface");
            shown.set("name", &interface.name);
            shown.set("network", &full(&Scope::Global, "networks", &interface.network));
            shown.set("subnetwork", &full(&region, "subnetworks", &interface.subnetwork));
            shown.set("networkIP", &interface.network_ip);
            Value::Object(shown.0)
        });
        common.set("networkInterfaces", &interfaces.collect::<Vec<_>>());
        let accelerators = spec.guest_accelerators.iter().map(|accelerator| {
            let kind = Some(accelerator.accelerator_type.clone());
            json!({
                "acceleratorType": full(&self.scope(), "acceleratorTypes", &kind),
                "acceleratorCount": accelerator.accelerator_count,
            })
        });
        common.set("guestAccelerators", &accelerators.collect::<Vec<_>>());
        let items: Value =
            spec.metadata.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
        let mut metadata = json!({"kind": "compute#metadata", "fingerprint": fingerprint(&items)});
        if !spec.metadata.is_empty() {
            metadata["items"] = items;
        }
        common.set("metadata", &metadata);
        let mut tags = json!({"fingerprint": fingerprint(&json!(spec.tags))});
        if !spec.tags.is_empty() {
            tags["items"] = json!(spec.tags);
        }
        common.set("tags", &tags);
        common
    }

    /// As the API shows it.
    pub fn json(&self, links: &Links) -> Value {
        let spec = &self.local.document.spec;
        let mut shown = self.common(links);
        shown.set("kind", &"compute#instance");
        shown.set("id", &self.number());
        shown.set("name", &self.name());
        shown.set("zone", &links.zone(self.zone()));
        shown.set("status", &self.seen.status);
        shown.set("selfLink", &self.link(links));
        shown.set("labelFingerprint", &label::fingerprint(&self.seen.labels));
        shown.set("deletionProtection", &spec.deletion_protection.unwrap_or(false));
        if !spec.machine_type.is_empty() {
            let machine_type = links.link(&self.scope(), "machineTypes", &spec.machine_type);
            shown.set("machineType", &machine_type);
        }
        let disks = self.disks();
        let disks = (0..).zip(&disks).map(|(index, disk)| disk.attached(links, index));
        shown.set("disks", &disks.collect::<Vec<_>>());
        let all = Value::Object(shown.0);
        let mut shown = Object(Map::new());
        shown.set("fingerprint", &fingerprint(&all));
        if let Value::Object(all) = all {
            shown.0.extend(all);
        }
        Value::Object(shown.0)
    }

    /// What an image of these disks records of it: `instanceProperties`, `sourceInstanceProperties`.
    pub fn properties(&self, links: &Links, captured: &[String]) -> (Value, Value) {
        let spec = &self.local.document.spec;
        let disks = self.disks();
        let chosen = || {
            let chosen = disks.iter().filter(|disk| captured.contains(&disk.spec.device_name));
            (0..).zip(chosen)
        };
        let mut properties = self.common(links);
        properties.set("machineType", &spec.machine_type);
        let mut source = Object(properties.0.clone());
        let attached = chosen().map(|(index, disk)| disk.attached(links, index));
        properties.set("disks", &attached.collect::<Vec<_>>());
        let saved = chosen().map(|(index, disk)| disk.saved(links, index));
        source.set("disks", &saved.collect::<Vec<_>>());
        source.set("deletionProtection", &spec.deletion_protection.unwrap_or(false));
        (Value::Object(properties.0), Value::Object(source.0))
    }
}

/// A disk of an instance.
#[derive(Debug, Clone)]
pub struct MachineDisk<'a> {
    /// Its instance.
    pub machine: &'a Machine,
    /// As it is described.
    pub spec: &'a DiskSpec,
    /// How large it is, where that can be read.
    pub bytes: Option<u64>,
    /// Why it cannot be captured.
    pub problem: Option<String>,
}

impl MachineDisk<'_> {
    /// What it is called: disks are named beyond their instances.
    pub fn name(&self) -> String {
        format!("{}-{}", self.machine.name(), self.spec.device_name)
    }

    /// Its id.
    pub fn number(&self) -> String {
        number_of(&format!("{}/{}", self.machine.seen.id, self.spec.device_name))
    }

    /// Its link.
    pub fn link(&self, links: &Links) -> String {
        links.link(&self.machine.scope(), "disks", &self.name())
    }

    /// Its size in whole GiB.
    pub fn gib(&self) -> Option<String> {
        self.bytes.map(|bytes| bytes.div_ceil(GIB).to_string())
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
        shown
    }

    fn attached(&self, links: &Links, index: u32) -> Value {
        let mut shown = self.common(links, index);
        shown.set("kind", &"compute#attachedDisk");
        Value::Object(shown.0)
    }

    fn saved(&self, links: &Links, index: u32) -> Value {
        let mut shown = self.common(links, index);
        shown.set("kind", &"compute#savedAttachedDisk");
        Value::Object(shown.0)
    }

    /// As the API shows it.
    pub fn json(&self, links: &Links) -> Value {
        let mut shown = Object::default();
        let scope = self.machine.scope();
        shown.set("kind", &"compute#disk");
        shown.set("id", &self.number());
        shown.set("name", &self.name());
        shown.set("zone", &links.zone(self.machine.zone()));
        shown.set("sizeGb", &self.gib());
        shown.set("physicalBlockSizeBytes", &"4096");
        shown.set("status", &if self.problem.is_some() { "UNAVAILABLE" } else { "READY" });
        shown.set("type", &links.link(&scope, "diskTypes", "pd-standard"));
        shown.set("labelFingerprint", &label::fingerprint(&label::Labels::new()));
        shown.set("users", &[self.machine.link(links)]);
        shown.set("selfLink", &self.link(links));
        Value::Object(shown.0)
    }
}

/// The instance that a request names.
pub fn find<'a>(
    machines: &'a [Machine],
    named: &Named,
    links: &Links,
) -> Result<&'a Machine, Refusal> {
    let is_it = |machine: &&Machine| {
        machine.scope() == named.scope
            && (machine.name() == named.name || machine.number() == named.name)
    };
    machines.iter().find(is_it).ok_or_else(|| {
        Refusal::not_found(&links.path(&named.scope, &named.collection, &named.name))
    })
}

/// The disk that a request names.
pub fn find_disk<'a>(
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

/// Answers a request for instances.
pub fn answer(request: &Request, links: &Links, machines: &[Machine]) -> Answer {
    let shown = || machines.iter().map(|machine| (machine.scope(), machine.json(links)));
    match (request.parts(), &request.scope) {
        (("GET", None, None), Scope::Aggregated) => {
            page::aggregated(request, links, "instance", shown().collect())
        }
        (("GET", None, None), scope) => {
            let here = shown().filter(|(at, _)| at == scope);
            page::list(request, links, "instance", here.map(|(_, item)| item).collect())
        }
        (("GET", Some(name), None), _) => {
            Ok(find(machines, &named(request, name), links)?.json(links))
        }
        _ => Err(request.not_done()),
    }
}

/// Answers a request that looks at disks.
pub fn answer_disks(request: &Request, links: &Links, machines: &[Machine]) -> Answer {
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
            Ok(find_disk(machines, &named(request, name), links)?.json(links))
        }
        _ => Err(request.not_done()),
    }
}

/// What a request is about.
pub fn named(request: &Request, name: &str) -> Named {
    Named {
        scope: request.scope.clone(),
        collection: request.collection.clone(),
        name: name.to_owned(),
    }
}
