//! Instances and disks as a server sees them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::engine::local::instance::{
    DiskFormat, DiskSpec, InstanceDocument, InstanceKind, InstanceMetadata, InstanceSpec,
    InstanceStatus, LocalInstance,
};
use crate::engine::local::made::Written;
use crate::inventory::{Disk, Instance};
use crate::name::SourceId;
use crate::policy::written::ApiVersion;

/// Labels.
pub type Labels = BTreeMap<String, String>;

/// An instance that was made through an API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MadeMachine {
    /// Its instance file, and what was written into it.
    pub written: Written,
    /// Since when it is there.
    pub created: Timestamp,
    /// Fields that never change: what it was made of.
    #[serde(default)]
    pub shown: Map<String, Value>,
}

/// A disk that was made through an API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MadeDisk {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where it is.
    pub zone: String,
    /// Its file.
    pub path: PathBuf,
    /// Since when it is there.
    pub created: Timestamp,
    /// Its labels.
    pub labels: Labels,
    /// Fields that never change: what it was made of.
    pub shown: Map<String, Value>,
}

/// An instance of the data centre, or what stands for one where a disk is attached to none.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// As it is described.
    pub local: LocalInstance,
    /// As it is seen.
    pub seen: Instance,
    /// Since when it is there.
    pub created: Option<Timestamp>,
    /// Since when each of its disks is there.
    pub disks_created: Vec<Option<Timestamp>>,
    /// Those of its disks that were made through an API, by their device names.
    pub made: BTreeMap<String, MadeDisk>,
    /// Where it was made through an API, fields that never change.
    pub shown: Map<String, Value>,
    /// Whether it is no instance at all, but a disk that is attached to none.
    pub is_loose: bool,
}

impl Machine {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.seen.name
    }

    /// Its disks, each with what it is called among all disks.
    pub fn disks(&self) -> Vec<MachineDisk<'_>> {
        let specs = self.local.document.spec.disks.iter().enumerate();
        specs
            .map(|(index, spec)| {
                let seen = self.seen.disks.iter().find(|disk| disk.name == spec.device_name);
                let made = self.made.get(&spec.device_name);
                let file = self.disks_created.get(index).copied().flatten();
                MachineDisk {
                    machine: self,
                    spec,
                    made,
                    bytes: seen.and_then(|disk| disk.size_bytes),
                    created: made.map(|made| made.created).or(file),
                    problem: seen.and_then(|disk| disk.problem.clone()),
                }
            })
            .collect()
    }
}

/// A disk of an instance, or one that is attached to none.
#[derive(Debug, Clone)]
pub struct MachineDisk<'a> {
    /// Its instance, or what stands for one.
    pub machine: &'a Machine,
    /// As it is described.
    pub spec: &'a DiskSpec,
    /// As it was made, where that was done through an API.
    pub made: Option<&'a MadeDisk>,
    /// How large it is, where that can be read.
    pub bytes: Option<u64>,
    /// Since when it is there.
    pub created: Option<Timestamp>,
    /// Why it cannot be captured.
    pub problem: Option<String>,
}

impl MachineDisk<'_> {
    /// What it is called: disks of instance files are named beyond their instances.
    pub fn name(&self) -> String {
        match self.made {
            Some(made) => made.name.clone(),
            None => format!("{}-{}", self.machine.name(), self.spec.device_name),
        }
    }

    /// Its id.
    pub fn number(&self) -> String {
        match self.made {
            Some(made) => made.id.clone(),
            None => number_of(&format!("{}/{}", self.machine.seen.id, self.spec.device_name)),
        }
    }

    /// Its labels.
    pub fn labels(&self) -> &Labels {
        self.made.map_or(&self.spec.labels, |made| &made.labels)
    }
}

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

impl MadeDisk {
    /// The disk as a machine of its own, which is how what is attached to nothing is captured.
    pub(super) fn loose(&self) -> Option<Machine> {
        let spec = DiskSpec {
            device_name: self.name.clone(),
            path: self.path.display().to_string(),
            format: Some(DiskFormat::Raw),
            ..DiskSpec::default()
        };
        let size = std::fs::metadata(&self.path).map(|metadata| metadata.len());
        let seen = Disk {
            name: self.name.clone(),
            boot: false,
            size_bytes: size.as_ref().ok().copied(),
            kms_key: None,
            problem: size.err().map(|error| format!("{}: {error}", self.path.display())),
        };
        let id = SourceId::parse(&self.id).ok()?;
        let document = InstanceDocument {
            api_version: ApiVersion::V1,
            kind: InstanceKind::Instance,
            metadata: InstanceMetadata {
                name: self.name.clone(),
                id: Some(self.id.clone()),
                labels: Labels::new(),
            },
            spec: InstanceSpec {
                zone: self.zone.clone(),
                status: InstanceStatus::Terminated,
                disks: vec![spec],
                ..InstanceSpec::default()
            },
        };
        Some(Machine {
            seen: Instance {
                id: id.clone(),
                name: self.name.clone(),
                zone: self.zone.clone(),
                labels: Labels::new(),
                status: InstanceStatus::Terminated.word().to_owned(),
                project: String::new(),
                machine_type: String::new(),
                disks: vec![seen],
            },
            local: LocalInstance { id, document, directory: PathBuf::new(), file: PathBuf::new() },
            created: Some(self.created),
            disks_created: vec![Some(self.created)],
            made: BTreeMap::from([(self.name.clone(), self.clone())]),
            shown: Map::new(),
            is_loose: true,
        })
    }
}

/// Whether a file is that of a disk of an instance.
pub(super) fn is_attached(machines: &[Machine], path: &Path) -> bool {
    let files = machines.iter().flat_map(|machine| {
        machine.local.document.spec.disks.iter().map(|disk| machine.local.disk_path(disk))
    });
    files.into_iter().any(|file| file == path)
}
