//! What a server has beside images: instances and disks, those that people described and those that
//! were made through an API.
//!
//! A restored disk is written into the engine's own directory, and a new instance described by a file
//! beside those of people. Only what was written here is changed or removed here. A disk that was made
//! here is attached where an instance file names its file; an instance that goes without its disks
//! leaves them here. What a killed server was at is told by what is there, not by what is remembered.

mod machine;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};

pub use machine::{Labels, Machine, MachineDisk, MadeDisk, MadeMachine, number_of};

use machine::is_attached;

use super::shelf::{Shelf, ShelfError};
use crate::engine::local::LocalEngine;
use crate::engine::local::instance::{DiskFormat, InstanceDocument};
use crate::engine::local::made::{NewDisks, extend_disk};
use crate::engine::{EngineError, RestoreRequest, Store, Watcher};

/// Why something of the stock is not there, or cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum StockError {
    /// Not everything can be seen.
    #[error("{0}")]
    Unseen(String),
    /// It belongs to a person.
    #[error("{0}")]
    NotOurs(String),
    /// The engine did not do it.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// It cannot be remembered.
    #[error(transparent)]
    Shelf(#[from] ShelfError),
}

/// Instances and disks.
pub struct Stock {
    engine: LocalEngine,
    /// Instances that were made here, by their ids.
    machines: Shelf<MadeMachine>,
    /// Disks that were made here, by their ids.
    disks: Shelf<MadeDisk>,
}

impl Stock {
    /// Reads what was made here.
    pub fn open(engine: &LocalEngine, directory: &Path) -> Result<Self, String> {
        Ok(Self {
            engine: engine.clone(),
            machines: Shelf::open(&directory.join("instances"))?,
            disks: Shelf::open(&directory.join("disks"))?,
        })
    }

    /// All disks that were made here.
    pub fn made_disks(&self) -> Vec<MadeDisk> {
        self.disks.all()
    }

    /// Remembers a disk that was made here as it is now.
    pub fn note_disk(&self, disk: MadeDisk) -> Result<(), StockError> {
        Ok(self.disks.put(&disk.id.clone(), disk)?)
    }

    /// Everything that there is: the instances, and the disks that are attached to none. An error
    /// where not all instances can be seen.
    pub async fn world(&self) -> Result<Vec<Machine>, StockError> {
        let (described, gaps) = self.engine.described().await?;
        if let Some(gap) = gaps.first() {
            return Err(StockError::Unseen(format!("{}: {}", gap.place, gap.message)));
        }
        let made = self.disks.all();
        let mut machines: Vec<Machine> = described
            .into_iter()
            .map(|described| {
                let specs = described.local.document.spec.disks.iter();
                let own = specs.filter_map(|spec| {
                    let path = described.local.disk_path(spec);
                    let made = made.iter().find(|made| made.path == path)?;
                    Some((spec.device_name.clone(), made.clone()))
                });
                let made_here = self.machines.get(described.local.id.as_str());
                Machine {
                    made: own.collect(),
                    created: made_here.as_ref().map(|made| made.created).or(described.created_at),
                    shown: made_here.map(|made| made.shown).unwrap_or_default(),
                    disks_created: described.disks_created_at,
                    seen: described.seen,
                    local: described.local,
                    is_loose: false,
                }
            })
            .collect();
        let loose: Vec<MadeDisk> =
            made.into_iter().filter(|disk| !is_attached(&machines, &disk.path)).collect();
        let loose = self
            .engine
            .on_a_thread(move |_: &LocalEngine| {
                Ok(loose.iter().filter_map(MadeDisk::loose).collect::<Vec<_>>())
            })
            .await?;
        machines.extend(loose);
        Ok(machines)
    }

    /// Makes a disk: of what an image holds, named by id and device, or of zeros.
    pub async fn make_disk(
        &self,
        mut made: MadeDisk,
        source: Option<(&str, &str)>,
        bytes: u64,
        watcher: Arc<dyn Watcher>,
    ) -> Result<(), StockError> {
        let directory = self.begin_disks(&made.id).await?;
        let filled = async {
            made.path = match source {
                Some((image, device)) => {
                    let only = [device.to_owned()];
                    let files = self.restore(image, &only, &made.name, &directory, watcher).await?;
                    let file = files.into_values().next();
                    file.ok_or_else(|| StockError::Unseen("the disk was not restored".to_owned()))?
                }
                None => directory.path.join("disk.raw"),
            };
            let path = made.path.clone();
            self.engine.on_a_thread(move |_| extend_disk(&path, bytes)).await?;
            self.note_disk(made)
        };
        match filled.await {
            Ok(()) => Ok(self.engine.on_a_thread(move |_| directory.finish()).await?),
            Err(error) => {
                self.give_up(&directory).await;
                Err(error)
            }
        }
    }

    /// Makes an instance out of an image: its disks, then the file that describes it. `disks` are
    /// those of the document, in the same order; their files are filled in. `shown` are fields that
    /// never change.
    pub async fn make_instance(
        &self,
        image: (&str, &str),
        mut document: InstanceDocument,
        mut disks: Vec<MadeDisk>,
        created: Timestamp,
        shown: Map<String, Value>,
        watcher: Arc<dyn Watcher>,
    ) -> Result<(), StockError> {
        let id = document.metadata.id.clone().unwrap_or_default();
        let name = document.metadata.name.clone();
        let (image, image_name) = image;
        let directory = self.begin_disks(&id).await?;
        let made = async {
            let files = self.restore(image, &[], &name, &directory, watcher).await?;
            for (spec, disk) in document.spec.disks.iter_mut().zip(&mut disks) {
                let file = files.get(&spec.device_name).ok_or_else(|| {
                    StockError::Unseen(format!("the disk {} was not restored", spec.device_name))
                })?;
                disk.path.clone_from(file);
                spec.path = file.display().to_string();
                spec.format = Some(DiskFormat::Raw);
            }
            for disk in &disks {
                self.note_disk(disk.clone())?;
            }
            let comment = format!("made by the server out of the image {image_name}");
            self.describe(document, &comment, created, shown).await
        };
        match made.await {
            Ok(()) => Ok(self.engine.on_a_thread(move |_| directory.finish()).await?),
            Err(error) => {
                self.give_up(&directory).await;
                Err(error)
            }
        }
    }

    /// Writes the file that describes a new instance, whose disks are there. `shown` are fields that
    /// never change.
    pub async fn describe(
        &self,
        document: InstanceDocument,
        comment: &str,
        created: Timestamp,
        shown: Map<String, Value>,
    ) -> Result<(), StockError> {
        let id = document.metadata.id.clone().unwrap_or_default();
        let comment = comment.to_owned();
        let written =
            self.engine.on_a_thread(move |engine| engine.add_instance(&document, &comment));
        let written = written.await?;
        Ok(self.machines.put(&id, MadeMachine { written, created, shown })?)
    }

    /// How a machine was made, if that was done here and nobody has edited its file since.
    pub fn made(&self, machine: &Machine) -> Result<MadeMachine, StockError> {
        let file = machine.local.file.display();
        let made = self.machines.get(machine.seen.id.as_str()).ok_or_else(|| {
            StockError::NotOurs(format!(
                "The instance {} is described by {file}, which a person wrote: change it there",
                machine.name()
            ))
        })?;
        if made.written.is_unchanged() {
            return Ok(made);
        }
        Err(StockError::NotOurs(format!(
            "The file {file} of the instance {} was edited after this server had written it: change it there",
            machine.name()
        )))
    }

    /// Writes the description of a machine anew, if it was written here.
    pub async fn rewrite(
        &self,
        machine: &Machine,
        document: InstanceDocument,
    ) -> Result<(), StockError> {
        let made = self.made(machine)?;
        let before = made.written.clone();
        let written = self
            .engine
            .on_a_thread(move |engine| engine.rewrite_instance(&before, &document))
            .await?;
        let after = MadeMachine { written, ..made };
        Ok(self.machines.put(machine.seen.id.as_str(), after)?)
    }

    /// Removes an instance that was made here, and disks of it.
    pub async fn remove_instance(
        &self,
        id: &str,
        made: MadeMachine,
        disks: Vec<MadeDisk>,
    ) -> Result<(), StockError> {
        // The description first: what is left of a stopped server is disks that are attached to
        // nothing, and those can be seen and removed.
        let written = made.written;
        self.engine.on_a_thread(move |engine| engine.remove_instance(&written)).await?;
        self.machines.remove(id)?;
        for disk in disks {
            self.remove_disk(disk).await?;
        }
        Ok(())
    }

    /// Removes a disk that was made here.
    pub async fn remove_disk(&self, made: MadeDisk) -> Result<(), StockError> {
        let path = made.path.clone();
        self.engine.on_a_thread(move |engine| engine.remove_disk(&path)).await?;
        Ok(self.disks.remove(&made.id)?)
    }

    async fn begin_disks(&self, id: &str) -> Result<NewDisks, StockError> {
        let id = id.to_owned();
        Ok(self.engine.on_a_thread(move |engine| engine.new_disks(&id)).await?)
    }

    /// Writes disks of an image into a directory; their files by their device names.
    async fn restore(
        &self,
        image: &str,
        disks: &[String],
        name: &str,
        directory: &NewDisks,
        watcher: Arc<dyn Watcher>,
    ) -> Result<BTreeMap<String, PathBuf>, StockError> {
        let request = RestoreRequest {
            image: image.to_owned(),
            to: directory.path.clone(),
            disks: disks.to_vec(),
            name: Some(name.to_owned()),
            machine_type: None,
            labels: BTreeMap::new(),
            overwrite: false,
            qcow2: false,
        };
        let restored = self.engine.restore(request, watcher).await?;
        // The machine is described among the instance files, or nowhere.
        let described = restored.instance.clone();
        self.engine
            .on_a_thread(move |_| {
                std::fs::remove_file(&described).map_err(|error| {
                    EngineError::Failed(format!("{}: {error}", described.display()))
                })
            })
            .await?;
        Ok(restored.disks.into_iter().map(|disk| (disk.name, disk.path)).collect())
    }

    /// Takes away what was begun and came to nothing.
    async fn give_up(&self, directory: &NewDisks) {
        for disk in
            self.disks.all().into_iter().filter(|disk| disk.path.starts_with(&directory.path))
        {
            if let Err(error) = self.disks.remove(&disk.id) {
                tracing::warn!("{error}");
            }
        }
        let gone = directory.clone();
        if let Err(error) = self.engine.on_a_thread(move |_| gone.remove()).await {
            tracing::warn!("what was begun stays: {error}");
        }
    }

    /// What a stopped server was at comes to its end: disks that an instance file names are
    /// finished, and all other ones that are not finished go.
    pub async fn recover(&self) {
        let found = async {
            let machines = self.world().await?;
            let unfinished = self.engine.on_a_thread(LocalEngine::unfinished_disks).await?;
            Ok::<_, StockError>((machines, unfinished))
        };
        let (machines, unfinished) = match found.await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!("what was begun earlier is left alone: {error}");
                return;
            }
        };
        for directory in unfinished {
            let specs = machines.iter().filter(|machine| !machine.is_loose).flat_map(|machine| {
                machine.local.document.spec.disks.iter().map(|disk| machine.local.disk_path(disk))
            });
            if specs.into_iter().any(|path| path.starts_with(&directory.path)) {
                if let Err(error) = self.engine.on_a_thread(move |_| directory.finish()).await {
                    tracing::warn!("{error}");
                }
            } else {
                self.give_up(&directory).await;
            }
        }
        for (key, made) in self.machines.entries() {
            let is_there = made.written.path.exists();
            if !is_there && let Err(error) = self.machines.remove(&key) {
                tracing::warn!("{error}");
            }
        }
    }
}
