//! `stillframe restore`

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use clap::{Args, ValueEnum};
use serde_json::json;

use super::list::{find_ready_image, report_gaps};
use super::progress::Bar;
use super::{Console, Exit, Global, parse_label, setup};
use crate::engine::{RebuildRequest, Rebuilt, RestoreRequest};
use crate::inventory::Image;
use crate::plan::ImageRef;
use crate::report::{bytes, clean};

/// Get a machine back: its disks and description into a directory, or a new machine where a cloud
/// holds it.
#[derive(Debug, Args)]
pub struct Restore {
    /// The name or id of the image
    image: String,
    /// The directory that gets the disks and `instance.yaml`; not where a cloud holds the machine
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Only this disk; may be given several times
    #[arg(long = "disk", value_name = "NAME")]
    disks: Vec<String>,
    /// What the disks are written as
    #[arg(long, default_value = "raw")]
    format: DiskWord,
    /// A new name for the instance; needed in a cloud
    #[arg(long)]
    name: Option<String>,
    /// In a cloud: make only the disks, and no machine
    #[arg(long, conflicts_with = "to")]
    disks_only: bool,
    /// In a cloud: the instance that the machine is to be like; its source where this is left out
    #[arg(long, value_name = "INSTANCE", conflicts_with = "to")]
    like: Option<String>,
    /// In a cloud: another zone
    #[arg(long, conflicts_with = "to")]
    zone: Option<String>,
    /// Another machine type for the instance
    #[arg(long, value_name = "TYPE")]
    machine_type: Option<String>,
    /// A label for the instance; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// Replace files that are there already
    #[arg(long)]
    overwrite: bool,
    /// Print what was written as JSON
    #[arg(long)]
    json: bool,
}

/// What a disk is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DiskWord {
    /// The bytes of the disk themselves, sparse
    Raw,
    /// A qcow2 file
    Qcow2,
}

impl Restore {
    pub(super) async fn run(&self, global: &Global, console: &Console) -> anyhow::Result<Exit> {
        let room = match setup::room(global, console, self.json, None, Vec::new()) {
            Ok(room) => room,
            Err(early) => return early.exit(),
        };
        let inventory = room.observe().await;
        let row = match find_ready_image(&inventory, &self.image) {
            Ok(row) => row,
            Err(error) => {
                report_gaps(&inventory, console);
                return Err(error);
            }
        };
        let bar = Arc::new(Bar::new(console, &row.image.name));
        let engine = room.engines.iter().find(|engine| engine.name() == row.engine);
        if let Some(rebuild) = engine.and_then(|engine| engine.rebuild()) {
            let request = self.rebuild_request(&row.image)?;
            let rebuilt = rebuild.rebuild(request, bar).await?;
            return self.show_rebuilt(&rebuilt, console);
        }
        let Some(store) = engine.and_then(|engine| engine.store()) else {
            bail!(
                "the engine {} neither reads images back nor makes machines of them: restore {} with the tools of its service",
                row.engine,
                clean(&row.image.name)
            );
        };
        if self.disks_only || self.like.is_some() || self.zone.is_some() {
            bail!(
                "--disks-only, --like and --zone are for engines of a cloud; {} writes files",
                row.engine
            );
        }
        let restored = store.restore(self.restore_request(&row.image)?, bar).await?;
        if self.json {
            console.json(&json!({"format_version": "1.0", "restored": restored}))?;
            return Ok(Exit::Success);
        }
        let mut text = format!("restored {}\n", restored.image);
        for disk in &restored.disks {
            text.push_str(&format!(
                "  {}  {} ({} written)  {}\n",
                disk.name,
                bytes(disk.size_bytes),
                bytes(disk.written_bytes),
                disk.path.display()
            ));
            if disk.padding_bytes > 0 {
                text.push_str(&format!(
                    "    and {} zero bytes: qcow2 counts in sectors of 512\n",
                    disk.padding_bytes
                ));
            }
        }
        text.push_str(&format!("  instance  {}\n", restored.instance.display()));
        console.print(&text);
        Ok(Exit::Success)
    }

    fn restore_request(&self, image: &Image) -> anyhow::Result<RestoreRequest> {
        let Some(to) = self.to.clone() else {
            bail!("say where the disks are to be written: --to DIR");
        };
        Ok(RestoreRequest {
            image: image.id.clone(),
            to,
            disks: self.disks.clone(),
            name: self.name.clone(),
            machine_type: self.machine_type.clone(),
            labels: self.labels.iter().cloned().collect(),
            overwrite: self.overwrite,
            qcow2: self.format == DiskWord::Qcow2,
        })
    }

    fn rebuild_request(&self, image: &Image) -> anyhow::Result<RebuildRequest> {
        if self.to.is_some() {
            bail!("the engine holds the machines itself and writes no files: leave --to out");
        }
        if self.overwrite || self.format != DiskWord::Raw {
            bail!("--overwrite and --format are for engines that write files");
        }
        let Some(name) = self.name.clone() else {
            bail!("the new machine and its disks need a name: --name NAME");
        };
        Ok(RebuildRequest {
            image: ImageRef::of(image),
            name,
            disks: self.disks.clone(),
            disks_only: self.disks_only,
            like: self.like.clone(),
            zone: self.zone.clone(),
            machine_type: self.machine_type.clone(),
            labels: self.labels.iter().cloned().collect(),
        })
    }

    fn show_rebuilt(&self, rebuilt: &Rebuilt, console: &Console) -> anyhow::Result<Exit> {
        if self.json {
            console.json(&json!({"format_version": "1.0", "rebuilt": rebuilt}))?;
            return Ok(Exit::Success);
        }
        let mut text = format!("restored {} in {}\n", clean(&rebuilt.image), clean(&rebuilt.zone));
        for disk in &rebuilt.disks {
            let taken_up = disk.taken_up.map(|made| format!("  taken up, made at {made}"));
            text.push_str(&format!(
                "  disk  {}  {}  {}{}\n",
                clean(&disk.name),
                bytes(disk.size_bytes),
                clean(&disk.id),
                taken_up.unwrap_or_default()
            ));
        }
        if let Some(instance) = &rebuilt.instance {
            text.push_str(&format!("  instance  {}\n", clean(instance)));
        }
        console.print(&text);
        Ok(Exit::Success)
    }
}
