//! Whose disk it is.

use std::collections::BTreeMap;

use super::{Desk, ImportError, refused};
use crate::inventory::{Disk, Instance};
use crate::name::{Ownership, SourceId};
use crate::policy::meant::DiskChoice;
use crate::policy::select::Decision;

/// What a disk is called of which nobody says how.
const UNNAMED: &str = "disk";

/// The source of what is imported.
pub(super) struct Source<'a> {
    pub(super) id: SourceId,
    pub(super) name: String,
    /// Absent where the engine does not have it.
    pub(super) instance: Option<&'a Instance>,
}

impl Source<'_> {
    /// The instance as descriptions know it; of one that is gone, what is left to be known.
    pub(super) fn described(&self) -> Instance {
        self.instance.cloned().unwrap_or_else(|| Instance {
            id: self.id.clone(),
            name: self.name.clone(),
            zone: String::new(),
            labels: BTreeMap::new(),
            status: String::new(),
            project: String::new(),
            machine_type: String::new(),
            disks: Vec::new(),
        })
    }
}

/// The disk that is imported.
pub(super) struct Chosen {
    pub(super) name: String,
    pub(super) is_boot: bool,
    /// What else its source has.
    pub(super) others: Vec<String>,
}

impl<'a> Desk<'a> {
    /// The instance that is meant. One that is not there must have restore points of the policy, or be
    /// said to be gone: the identity of a restore point never changes, so a mistyped name would begin a
    /// series of a machine that never was.
    pub(super) fn source(&self) -> Result<Source<'a>, ImportError> {
        let (wanted, engine) = (self.wanted, self.engine);
        let there = engine.instances.iter();
        let of_id = there.clone().find(|instance| instance.id.as_str() == wanted.source);
        let of_name: Vec<&Instance> =
            there.filter(|instance| instance.name == wanted.source).collect();
        let instance = match (of_id, &of_name[..]) {
            (Some(instance), _) => instance,
            (None, [instance]) => *instance,
            (None, []) => return self.gone(),
            (None, several) => {
                let ids: Vec<&str> = several.iter().map(|one| one.id.as_str()).collect();
                return refused(format!(
                    "{} instances are named {}: name one by its id ({})",
                    several.len(),
                    wanted.source,
                    ids.join(", ")
                ));
            }
        };
        if wanted.is_gone {
            return refused(format!(
                "{} ({}) is there: leave --gone out, or name the id of the one that is gone",
                instance.name, instance.id
            ));
        }
        if !matches!(self.policy.selection.decide(instance), Decision::Selected(_)) {
            return refused(format!(
                "{} does not select {}, so its restore points would be those of a source that is gone",
                self.policy.name, instance.name
            ));
        }
        let (id, name) = (instance.id.clone(), instance.name.clone());
        Ok(Source { id, name, instance: Some(instance) })
    }

    fn gone(&self) -> Result<Source<'a>, ImportError> {
        let (wanted, engine) = (self.wanted, self.engine);
        let known = engine.images.iter().find_map(|image| match image.ownership() {
            Ownership::Ours(key) => {
                let keeper = self.policies.keeper(&key.policy);
                let is_it = key.source.as_str() == wanted.source
                    && keeper.is_some_and(|keeper| keeper.name == self.policy.name);
                is_it.then_some((key.source, image.source.as_ref()))
            }
            _ => None,
        });
        if let Some((id, remembered)) = known {
            let name = remembered.map_or_else(|| id.to_string(), |source| source.name.clone());
            return Ok(Source { id, name, instance: None });
        }
        if !wanted.is_gone {
            return refused(format!(
                "{} has no instance {}, and {} has no restore point of one. Where it is gone, or was never there, say so with --gone and give the id that its series is to have",
                engine.name, wanted.source, self.policy.name
            ));
        }
        match SourceId::parse(&wanted.source) {
            Ok(id) => Ok(Source { name: id.to_string(), id, instance: None }),
            Err(error) => refused(error.to_string()),
        }
    }

    /// The disk of the source.
    pub(super) fn disk(&self, source: &Source<'a>) -> Result<Chosen, ImportError> {
        let (choice, policy) = (&self.policy.capture.disks, &self.policy.name);
        let device = self.wanted.device.as_deref();
        let Some(instance) = source.instance else {
            if let (DiskChoice::Named(patterns), Some(device)) = (choice, device)
                && !patterns.matches(device)
            {
                return refused(format!("`capture.disks` of {policy} does not take {device}"));
            }
            return Ok(Chosen {
                name: device.unwrap_or(UNNAMED).to_owned(),
                is_boot: match choice {
                    DiskChoice::Boot => true,
                    DiskChoice::All => device.is_none(),
                    DiskChoice::Named(_) => false,
                },
                others: Vec::new(),
            });
        };
        let taken: Vec<&Disk> =
            instance.disks.iter().filter(|disk| choice.takes(&disk.name, disk.boot)).collect();
        let names: Vec<&str> = taken.iter().map(|disk| disk.name.as_str()).collect();
        let chosen = match (device, &taken[..]) {
            (Some(device), taken) => taken.iter().find(|disk| disk.name == device).copied(),
            (None, [disk]) => Some(*disk),
            (None, []) => None,
            (None, _) => {
                return refused(format!(
                    "what is imported is one disk, and {policy} takes {} of {}: say which one it is with --device ({})",
                    names.len(),
                    instance.name,
                    names.join(", ")
                ));
            }
        };
        let Some(chosen) = chosen else {
            let all = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            let device = device.map(|device| format!(", and not {device}")).unwrap_or_default();
            return refused(format!(
                "of the disks of {} `capture.disks` of {policy} takes {all}{device}",
                instance.name
            ));
        };
        let others = instance.disks.iter().filter(|disk| disk.name != chosen.name);
        Ok(Chosen {
            name: chosen.name.clone(),
            is_boot: chosen.boot,
            others: others.map(|disk| disk.name.clone()).collect(),
        })
    }
}
