//! Instances: the data centre as the API shows it, and what images record of it.

use serde_json::{Value, json};

use super::answer::{Answer, Refusal};
use super::label;
use super::link::{Links, Named, Scope, region_of};
use super::object::{Object, fingerprint};
use super::page;
use super::request::Request;
use crate::engine::local::instance::InstanceSpec;
use crate::serve::stock::{Machine, number_of};

/// Where instances are whose description names no zone.
const ZONE_DEFAULT: &str = "local-a";

impl Machine {
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

    fn spec(&self) -> &InstanceSpec {
        &self.local.document.spec
    }

    /// What instances and all that images record of them have in common.
    fn common(&self, links: &Links) -> Object {
        let spec = self.spec();
        let mut common = Object::default();
        common.set("description", &spec.description);
        common.set("labels", &self.seen.labels);
        common.set("canIpForward", &spec.can_ip_forward);
        common.set("minCpuPlatform", &spec.min_cpu_platform);
        common.set("keyRevocationActionType", &spec.key_revocation_action_type);
        common.set("scheduling", &spec.scheduling);
        common.set("serviceAccounts", &spec.service_accounts);
        common.set("networkInterfaces", &self.network_interfaces(links));
        let accelerators = spec.guest_accelerators.iter().map(|accelerator| {
            let kind = Some(accelerator.accelerator_type.as_str());
            json!({
                "acceleratorType": full(links, &self.scope(), "acceleratorTypes", kind),
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

    fn network_interfaces(&self, links: &Links) -> Vec<Value> {
        let region = Scope::region(region_of(self.zone()));
        let shown = self.spec().network_interfaces.iter().map(|interface| {
            let mut shown = Object::default();
            if let Ok(Value::Object(written)) = serde_json::to_value(interface) {
                shown.0 = written;
            }
            shown.set("kind", &"compute#networkInterface");
            shown.set(
                "network",
                &full(links, &Scope::Global, "networks", interface.network.as_deref()),
            );
            shown.set(
                "subnetwork",
                &full(links, &region, "subnetworks", interface.subnetwork.as_deref()),
            );
            shown.set(
                "networkAttachment",
                &full(
                    links,
                    &region,
                    "networkAttachments",
                    interface.network_attachment.as_deref(),
                ),
            );
            for field in ["accessConfigs", "ipv6AccessConfigs"] {
                let addresses = shown.0.get_mut(field).and_then(Value::as_array_mut);
                for address in addresses.into_iter().flatten() {
                    address["kind"] = json!("compute#accessConfig");
                }
            }
            shown.set("fingerprint", &fingerprint(&shown.clone().json()));
            shown.json()
        });
        shown.collect()
    }

    /// What instances and the newer of the two records of them have in common.
    fn configuration(&self, links: &Links) -> Object {
        let spec = self.spec();
        let mut shown = self.common(links);
        shown.set("advancedMachineFeatures", &spec.advanced_machine_features);
        shown.set("confidentialInstanceConfig", &spec.confidential_instance_config);
        shown.set("localSsdEncryptionMode", &spec.local_ssd_encryption_mode);
        shown.set("networkPerformanceConfig", &spec.network_performance_config);
        shown.set("privateIpv6GoogleAccess", &spec.private_ipv6_access);
        shown.set("reservationAffinity", &spec.reservation_affinity);
        shown.set("resourcePolicies", &spec.resource_policies);
        shown.set("shieldedInstanceConfig", &spec.shielded_instance_config);
        shown.set("workloadIdentityConfig", &spec.workload_identity_config);
        shown
    }

    /// As the API shows it.
    pub fn json(&self, links: &Links) -> Value {
        let spec = self.spec();
        let mut shown = self.configuration(links);
        shown.0.extend(self.shown.clone());
        shown.set("kind", &"compute#instance");
        shown.set("id", &self.number());
        shown.set("name", &self.name());
        shown.set("creationTimestamp", &self.created.map(|time| time.to_string()));
        shown.set("zone", &links.zone(self.zone()));
        shown.set("status", &self.seen.status);
        shown.set("selfLink", &self.link(links));
        shown.set("hostname", &spec.hostname);
        shown.set("labelFingerprint", &label::fingerprint(&self.seen.labels));
        shown.set("deletionProtection", &spec.deletion_protection.unwrap_or(false));
        if !spec.machine_type.is_empty() {
            let machine_type = links.link(&self.scope(), "machineTypes", &spec.machine_type);
            shown.set("machineType", &machine_type);
        }
        let disks = self.disks();
        let disks = (0..).zip(&disks).map(|(index, disk)| disk.attached(links, index));
        shown.set("disks", &disks.collect::<Vec<_>>());
        let all = shown.clone().json();
        shown.set("fingerprint", &fingerprint(&all));
        shown.json()
    }

    /// What an image of these disks records of it: `instanceProperties`, `sourceInstanceProperties`.
    pub fn properties(&self, links: &Links, captured: &[String]) -> (Value, Value) {
        let spec = self.spec();
        let disks = self.disks();
        let chosen = || {
            let chosen = disks.iter().filter(|disk| captured.contains(&disk.spec.device_name));
            (0..).zip(chosen)
        };
        let mut properties = self.configuration(links);
        properties.set("machineType", &spec.machine_type);
        properties.set("resourceManagerTags", &spec.resource_manager_tags);
        let attached = chosen().map(|(index, disk)| disk.attached(links, index));
        properties.set("disks", &attached.collect::<Vec<_>>());
        let mut source = self.common(links);
        source.set("machineType", &spec.machine_type);
        source.set("deletionProtection", &spec.deletion_protection.unwrap_or(false));
        source.set("postKeyRevocationActionType", &spec.post_key_revocation_action_type);
        let saved = chosen().map(|(index, disk)| disk.saved(links, index));
        source.set("disks", &saved.collect::<Vec<_>>());
        (properties.json(), source.json())
    }
}

/// The whole link of what may be described by its name alone.
fn full(links: &Links, scope: &Scope, collection: &str, name: Option<&str>) -> Option<String> {
    let name = name?;
    let is_link = name.contains('/');
    Some(if is_link { name.to_owned() } else { links.link(scope, collection, name) })
}

/// The instance that a request names.
pub fn find<'a>(
    machines: &'a [Machine],
    named: &Named,
    links: &Links,
) -> Result<&'a Machine, Refusal> {
    let is_it = |machine: &&Machine| {
        !machine.is_loose
            && machine.scope() == named.scope
            && (machine.name() == named.name || machine.number() == named.name)
    };
    machines.iter().find(is_it).ok_or_else(|| {
        Refusal::not_found(&links.path(&named.scope, &named.collection, &named.name))
    })
}

/// Answers a request that looks at instances.
pub fn answer(request: &Request, links: &Links, machines: &[Machine]) -> Answer {
    let real = || machines.iter().filter(|machine| !machine.is_loose);
    let shown = || real().map(|machine| (machine.scope(), machine.json(links)));
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

/// What a request is about.
pub fn named(request: &Request, name: &str) -> Named {
    Named {
        scope: request.scope.clone(),
        collection: request.collection.clone(),
        name: name.to_owned(),
    }
}
