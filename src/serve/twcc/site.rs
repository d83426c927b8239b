//! Sites, servers and volumes: what the instances of the embedded engine are in this API.

use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::answer::Refusal;
use crate::engine::local::Described;

/// Bytes of a gigabyte.
pub const GIB: u64 = 1 << 30;
/// What runs on a machine whose metadata does not say.
const OS: &str = "Linux";
const OS_VERSION: &str = "Ubuntu 22.04";

/// An instance, and the numbers that it has here.
pub struct Machine {
    /// As the engine describes it.
    pub described: Described,
    /// The number of the site.
    pub site: u64,
    /// The number of the server in it.
    pub server: u64,
}

/// A disk of a machine.
pub struct Volume<'a> {
    /// Its machine.
    pub machine: &'a Machine,
    /// Its number.
    pub number: u64,
    /// Its device name.
    pub device: &'a str,
    /// Whether the machine starts from it.
    pub is_boot: bool,
    /// Its place among the disks of the machine.
    index: usize,
    /// Gigabytes.
    pub gigabytes: u64,
}

/// A number of nine digits for an id that is none.
fn number(id: &str) -> u64 {
    let hash = Sha256::digest(id.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    u64::from_be_bytes(first) % 900_000_000 + 100_000_000
}

/// A time as the service writes it, in whole seconds.
pub fn time(instant: Timestamp) -> String {
    Timestamp::from_second(instant.as_second()).unwrap_or(instant).to_string()
}

/// Who everything is of.
pub fn user() -> Value {
    json!({"id": "1", "username": "stillframe", "display_name": "stillframe", "email": "stillframe@localhost"})
}

impl Machine {
    /// The numbers of an instance. An id that is a number of the service's size stays.
    pub fn new(described: Described) -> Self {
        let id = described.seen.id.as_str();
        let own = id.parse::<u64>().ok().filter(|own| (1..1 << 53).contains(own));
        let site = own.unwrap_or_else(|| number(&format!("site/{id}")));
        let server = number(&format!("server/{id}"));
        Self { described, site, server }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.described.seen.name
    }

    /// Whether an image can be made of it, in the word of the service.
    pub fn status(&self) -> &'static str {
        match self.described.seen.status.as_str() {
            "RUNNING" => "Ready",
            "TERMINATED" => "NotReady",
            _ => "Suspending",
        }
    }

    fn metadata(&self, key: &str, or: &str) -> String {
        let metadata = &self.described.local.document.spec.metadata;
        metadata.get(key).cloned().unwrap_or_else(|| or.to_owned())
    }

    /// What runs on it.
    pub fn os(&self) -> (String, String) {
        (self.metadata("os", OS), self.metadata("os-version", OS_VERSION))
    }

    /// Its disks.
    pub fn volumes(&self) -> Vec<Volume<'_>> {
        let seen = &self.described.seen;
        seen.disks
            .iter()
            .enumerate()
            .map(|(index, disk)| Volume {
                machine: self,
                number: number(&format!("volume/{}/{}", seen.id, disk.name)),
                device: &disk.name,
                is_boot: disk.boot,
                index,
                gigabytes: disk.size_bytes.unwrap_or_default().div_ceil(GIB),
            })
            .collect()
    }

    /// The device name of the disk that an image of the server holds.
    pub fn boot(&self) -> Option<String> {
        let disks = &self.described.seen.disks;
        disks.iter().find(|disk| disk.boot).map(|disk| disk.name.clone())
    }

    fn created(&self) -> String {
        time(self.described.created_at.unwrap_or(Timestamp::UNIX_EPOCH))
    }

    /// As a site; `detail` says what lists leave out.
    pub fn site_json(&self, project: u64, platform: &str, detail: bool) -> Value {
        let is_up = self.status() == "Ready";
        let mut site = json!({
            "id": self.site,
            "name": self.name(),
            "status": self.status(),
            "create_time": self.created(),
            "public_ip": "",
            "project": project,
            "solution": 11,
            "callback": "",
            "is_preemptive": false,
            "progress": 100,
            "platform": platform,
            "termination_protection": self.described.local.document.spec.deletion_protection.unwrap_or(false),
            "user": user(),
            "servers": [{
                "id": self.server,
                "hostname": self.name(),
                "flavor_id": number(&self.described.seen.machine_type),
                "status": if is_up { "ACTIVE" } else { "SHUTOFF" },
            }],
        });
        if detail {
            let description = self.described.local.document.spec.description.clone();
            site["desc"] = json!(description.unwrap_or_default());
            site["status_reason"] = json!("");
        }
        site
    }

    /// As a server.
    pub fn server_json(&self, platform: &str) -> Value {
        let (os, os_version) = self.os();
        json!({
            "id": self.server,
            "site": self.site,
            "hostname": self.name(),
            "fqdn": self.name(),
            "status": if self.status() == "Ready" { "ACTIVE" } else { "SHUTOFF" },
            "status_reason": "",
            "desc": "",
            "os": os,
            "os_version": os_version,
            "image": os_version,
            "flavor": self.described.seen.machine_type,
            "availability_zone": self.described.seen.zone,
            "keypair": "",
            "platform": platform,
            "auto_scaling_policy": {},
            "private_nets": [],
            "public_nets": [],
            "security_groups": [],
        })
    }
}

impl Volume<'_> {
    /// What it is called: its device name, which is unique within its machine alone.
    pub fn name(&self) -> String {
        self.device.to_owned()
    }

    /// As the service has it.
    pub fn json(&self, project: (u64, &str), platform: &str) -> Value {
        let letter = char::from(b'a' + u8::try_from(self.index % 26).unwrap_or_default());
        json!({
            "id": self.number,
            "name": self.name(),
            "size": self.gigabytes,
            "status": "IN-USE",
            "is_bootable": self.is_boot,
            "is_attached": true,
            "is_public": false,
            "attached_host": {"id": self.machine.server, "hostname": self.machine.name()},
            "mountpoint": [format!("/dev/vd{letter}")],
            "create_time": self.machine.created(),
            "project": {"id": project.0, "name": project.1},
            "platform": platform,
            "volume_type": "hdd",
            "user": user(),
        })
    }
}

/// The machine that has a number.
pub fn find<'a>(
    world: &'a [Machine],
    what: &str,
    id: &str,
    number: impl Fn(&Machine) -> u64,
) -> Result<&'a Machine, Refusal> {
    let found = world.iter().find(|machine| number(machine).to_string() == id);
    found.ok_or_else(|| Refusal::not_found(&format!("{what} {id}")))
}
