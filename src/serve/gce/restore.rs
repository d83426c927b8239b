//! Restores: disks of images, written into the engine's own directory, and what becomes of them where
//! the server is stopped in the middle.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::Inner;
use super::answer::Refusal;
use super::capture::Watch;
use super::disk::MadeDisk;
use super::machine::{MadeMachine, NewMachine};
use super::origin::DiskSource;
use crate::engine::local::LocalEngine;
use crate::engine::local::instance::DiskFormat;
use crate::engine::local::made::{NewDisks, extend_disk};
use crate::engine::{EngineError, RestoreRequest, Store, Watcher};
use crate::inventory::Image;

impl Inner {
    /// Makes an instance: its disks, then the file that describes it.
    pub(super) async fn make_instance(
        self: &Arc<Self>,
        new: NewMachine,
        operation: u64,
    ) -> Result<(), Refusal> {
        let _permit = self.captures.acquire().await.map_err(|_| Refusal::stopped())?;
        let NewMachine { id, image, mut document, mut disks, .. } = new;
        let name = document.metadata.name.clone();
        let directory = self.begin_disks(&id).await?;
        let made = async {
            let files = self.restore(&image, &[], Some(&name), &directory, operation).await?;
            for (spec, disk) in document.spec.disks.iter_mut().zip(&mut disks) {
                let file = files.get(&spec.device_name).ok_or_else(|| {
                    Refusal::unseen(format!("the disk {} was not restored", spec.device_name))
                })?;
                disk.path.clone_from(file);
                spec.path = file.display().to_string();
                spec.format = Some(DiskFormat::Raw);
            }
            for disk in &disks {
                self.disks.put(&disk.id, disk.clone())?;
            }
            let comment = format!("made by the server out of the image {}", image.name);
            let written =
                self.engine.on_a_thread(move |engine| engine.add_instance(&document, &comment));
            let written = written.await?;
            self.machines.put(&id, MadeMachine { written, created: self.clock.now() })
        };
        match made.await {
            Ok(()) => Ok(self.engine.on_a_thread(move |_| directory.finish()).await?),
            Err(refusal) => {
                self.give_up(&directory).await;
                Err(refusal)
            }
        }
    }

    async fn begin_disks(&self, id: &str) -> Result<NewDisks, Refusal> {
        let id = id.to_owned();
        Ok(self.engine.on_a_thread(move |engine| engine.new_disks(&id)).await?)
    }

    /// Writes disks of an image into a directory; their files by their device names.
    async fn restore(
        self: &Arc<Self>,
        image: &Image,
        disks: &[String],
        name: Option<&str>,
        directory: &NewDisks,
        operation: u64,
    ) -> Result<BTreeMap<String, PathBuf>, Refusal> {
        let request = RestoreRequest {
            image: image.id.clone(),
            to: directory.path.clone(),
            disks: disks.to_vec(),
            name: name.map(str::to_owned),
            machine_type: None,
            labels: BTreeMap::new(),
            overwrite: false,
            qcow2: false,
        };
        let watch: Arc<dyn Watcher> = Arc::new(Watch { inner: Arc::clone(self), operation });
        let restored = self.engine.restore(request, watch).await?;
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

    /// Makes a disk: of what an image holds, or of zeros.
    pub(super) async fn make_disk(
        self: &Arc<Self>,
        mut made: MadeDisk,
        source: Option<DiskSource>,
        bytes: u64,
        operation: u64,
    ) -> Result<(), Refusal> {
        let _permit = self.captures.acquire().await.map_err(|_| Refusal::stopped())?;
        let directory = self.begin_disks(&made.id).await?;
        let filled = async {
            made.path = match &source {
                Some(DiskSource { image, device, .. }) => {
                    let only = [device.clone()];
                    let name = Some(made.name.as_str());
                    let files = self.restore(image, &only, name, &directory, operation).await?;
                    files.into_values().next().ok_or_else(Refusal::stopped)?
                }
                None => directory.path.join("disk.raw"),
            };
            let path = made.path.clone();
            self.engine.on_a_thread(move |_| extend_disk(&path, bytes)).await?;
            self.disks.put(&made.id.clone(), made)
        };
        match filled.await {
            Ok(()) => Ok(self.engine.on_a_thread(move |_| directory.finish()).await?),
            Err(refusal) => {
                self.give_up(&directory).await;
                Err(refusal)
            }
        }
    }

    /// Takes away what was begun and came to nothing.
    async fn give_up(&self, directory: &NewDisks) {
        for disk in
            self.disks.all().into_iter().filter(|disk| disk.path.starts_with(&directory.path))
        {
            if let Err(refusal) = self.disks.remove(&disk.id) {
                tracing::warn!("{}", refusal.message);
            }
        }
        let gone = directory.clone();
        if let Err(error) = self.engine.on_a_thread(move |_| gone.remove()).await {
            tracing::warn!("what was begun stays: {error}");
        }
    }

    /// What a stopped server was at comes to its end: disks that an instance file names are
    /// finished, and all other ones that are not finished go.
    pub(super) async fn recover(&self) {
        let found = async {
            let machines = self.world().await?;
            let unfinished = self.engine.on_a_thread(LocalEngine::unfinished_disks).await?;
            Ok::<_, Refusal>((machines, unfinished))
        };
        let (machines, unfinished) = match found.await {
            Ok(found) => found,
            Err(refusal) => {
                tracing::warn!("what was begun earlier is left alone: {}", refusal.message);
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
            if !is_there && let Err(refusal) = self.machines.remove(&key) {
                tracing::warn!("{}", refusal.message);
            }
        }
    }
}
