//! `stillframe restore`

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::list::{find_ready_image, report_gaps};
use super::progress::Bar;
use super::{Console, Exit, Global, parse_label, setup};
use crate::engine::RestoreRequest;
use crate::report::bytes;

/// Write the disks and the description of an image into a directory.
#[derive(Debug, Args)]
pub struct Restore {
    /// The name or id of the image
    image: String,
    /// The directory that gets the disks and `instance.yaml`
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Only this disk; may be given several times
    #[arg(long = "disk", value_name = "NAME")]
    disks: Vec<String>,
    /// What the disks are written as
    #[arg(long, default_value = "raw")]
    format: DiskWord,
    /// A new name for the instance
    #[arg(long)]
    name: Option<String>,
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
        let request = RestoreRequest {
            image: row.image.id.clone(),
            to: self.to.clone(),
            disks: self.disks.clone(),
            name: self.name.clone(),
            machine_type: self.machine_type.clone(),
            labels: self.labels.iter().cloned().collect(),
            overwrite: self.overwrite,
            qcow2: self.format == DiskWord::Qcow2,
        };
        let bar = Arc::new(Bar::new(console, &row.image.name));
        let restored = setup::store_of(&room, &row.engine)?.restore(request, bar).await?;
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
}
