//! What a request for an instance asks for otherwise than its image records it.

use serde_json::{Map, Value, json};

use super::answer::Refusal;
use super::label;
use super::link::Links;
use super::operation::Notice;
use super::request::Request;
use crate::engine::local::instance::{InstanceDocument, InstanceSpec, NetworkInterface};
use crate::serve::stock::Machine;

/// Fields that the API and instance files have alike.
const ALIKE: [&str; 17] = [
    "advancedMachineFeatures",
    "canIpForward",
    "confidentialInstanceConfig",
    "deletionProtection",
    "description",
    "hostname",
    "keyRevocationActionType",
    "localSsdEncryptionMode",
    "minCpuPlatform",
    "networkPerformanceConfig",
    "privateIpv6GoogleAccess",
    "reservationAffinity",
    "resourcePolicies",
    "scheduling",
    "serviceAccounts",
    "shieldedInstanceConfig",
    "workloadIdentityConfig",
];

/// A description with what was asked for.
pub struct Overridden {
    /// The description.
    pub document: InstanceDocument,
    /// What was changed that nobody asked for.
    pub notices: Vec<Notice>,
}

/// Sets what the body of a request asks for. What it does not name stays as the image records it.
pub fn apply(
    request: &Request,
    links: &Links,
    mut document: InstanceDocument,
    machines: &[Machine],
) -> Result<Overridden, Refusal> {
    let body = &request.body;
    if body.get("disks").and_then(Value::as_array).is_some_and(|disks| !disks.is_empty()) {
        return Err(Refusal::not_done("instances with disks beside those of the machine image"));
    }
    let mut spec = match serde_json::to_value(&document.spec) {
        Ok(Value::Object(spec)) => spec,
        _ => Map::new(),
    };
    let asked = |field: &str| body.get(field).filter(|value| !value.is_null());
    for field in ALIKE {
        if let Some(value) = asked(field) {
            spec.insert(field.to_owned(), without_marks(value));
        }
    }
    if let Some(kind) = request.text("machineType")? {
        spec.insert("machineType".to_owned(), json!(kind.rsplit('/').next()));
    }
    if let Some(tags) = asked("tags") {
        spec.insert("tags".to_owned(), tags.get("items").cloned().unwrap_or_else(|| json!([])));
    }
    if let Some(metadata) = asked("metadata") {
        spec.insert("metadata".to_owned(), Value::Object(read_metadata(metadata)?));
    }
    if let Some(interfaces) = asked("networkInterfaces") {
        spec.insert("networkInterfaces".to_owned(), read_interfaces(interfaces, links));
    }
    if let Some(accelerators) = asked("guestAccelerators") {
        let mut accelerators = accelerators.clone();
        for accelerator in accelerators.as_array_mut().into_iter().flatten() {
            let kind = accelerator["acceleratorType"].as_str().unwrap_or_default();
            accelerator["acceleratorType"] = json!(kind.rsplit('/').next());
        }
        spec.insert("guestAccelerators".to_owned(), accelerators);
    }
    document.spec = serde_json::from_value::<InstanceSpec>(Value::Object(spec))
        .map_err(|error| Refusal::bad(format!("Invalid value for field 'resource': {error}")))?;
    if asked("labels").is_some() {
        document.metadata.labels = label::read(body)?;
    }
    let notices = free_addresses(&mut document.spec, machines);
    Ok(Overridden { document, notices })
}

/// Without what only answers have: the kind of a thing and its fingerprint.
fn without_marks(value: &Value) -> Value {
    match value {
        Value::Object(object) => object
            .iter()
            .filter(|(field, _)| !matches!(field.as_str(), "kind" | "fingerprint"))
            .map(|(field, value)| (field.clone(), without_marks(value)))
            .collect(),
        Value::Array(elements) => elements.iter().map(without_marks).collect(),
        other => other.clone(),
    }
}

fn read_metadata(metadata: &Value) -> Result<Map<String, Value>, Refusal> {
    let items = metadata.get("items").and_then(Value::as_array);
    let mut read = Map::new();
    for item in items.into_iter().flatten() {
        let key = item["key"].as_str().filter(|key| !key.is_empty());
        let key = key.ok_or_else(|| Refusal::required("resource.metadata.items.key"))?;
        let value = item["value"].as_str().unwrap_or_default();
        if read.insert(key.to_owned(), json!(value)).is_some() {
            let why = "The key is there twice.";
            return Err(Refusal::invalid("resource.metadata.items", key, why));
        }
    }
    Ok(read)
}

/// Interfaces as instance files have them: what is of this project is named without its path.
fn read_interfaces(interfaces: &Value, links: &Links) -> Value {
    let mut interfaces = without_marks(interfaces);
    let own = format!("projects/{}/", links.project);
    for (index, interface) in interfaces.as_array_mut().into_iter().flatten().enumerate() {
        for field in ["network", "subnetwork", "networkAttachment"] {
            let Some(text) = interface[field].as_str() else { continue };
            if text.contains(&own) || !text.contains("projects/") {
                interface[field] = json!(text.rsplit('/').next());
            }
        }
        if interface["name"].is_null() {
            interface["name"] = json!(format!("nic{index}"));
        }
    }
    interfaces
}

/// An internal address of an interface, in its place.
type Address = fn(&mut NetworkInterface) -> &mut Option<String>;

/// Gives up internal addresses that other machines have, as two cannot have one.
fn free_addresses(spec: &mut InstanceSpec, machines: &[Machine]) -> Vec<Notice> {
    let kinds: [Address; 2] =
        [|interface| &mut interface.network_ip, |interface| &mut interface.ipv6_address];
    let mut notices = Vec::new();
    for interface in &mut spec.network_interfaces {
        let network = interface.network.clone();
        for kind in kinds {
            let Some(address) = kind(interface).clone() else { continue };
            let has_it = |machine: &&Machine| {
                machine.local.document.spec.network_interfaces.iter().any(|other| {
                    let mut other = other.clone();
                    other.network == network && kind(&mut other).as_ref() == Some(&address)
                })
            };
            if let Some(machine) = machines.iter().find(has_it) {
                *kind(interface) = None;
                notices.push(Notice::new(
                    "FIELD_VALUE_OVERRIDEN",
                    format!(
                        "The address {address} is that of {}: the new instance has none until one is written into its file.",
                        machine.name()
                    ),
                ));
            }
        }
    }
    notices
}
