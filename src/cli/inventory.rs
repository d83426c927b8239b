//! `stillframe inventory`

use clap::Args;

use super::{Console, Exit, Global, setup};
use crate::inventory::told;
use crate::report::{clean, table};

/// Write what the engines hold as a document that `plan --inventory` reads.
#[derive(Debug, Args)]
pub struct InventoryCommand {
    /// Print the whole document (schemas/inventory.schema.json)
    #[arg(long)]
    json: bool,
}

impl InventoryCommand {
    pub(super) async fn run(&self, global: &Global, console: &Console) -> anyhow::Result<Exit> {
        let room = match setup::room(global, console, self.json, None, Vec::new()) {
            Ok(room) => room,
            Err(early) => return early.exit(),
        };
        let inventory = room.observe().await;
        if self.json {
            console.json(&inventory)?;
        } else {
            let mut rows = vec![
                ["ENGINE", "INSTANCE", "ID", "ZONE", "STATUS", "DISKS", "LABELS"]
                    .map(str::to_owned)
                    .to_vec(),
            ];
            for engine in &inventory.engines {
                rows.extend(engine.instances.iter().map(|instance| {
                    let disks: Vec<String> = instance
                        .disks
                        .iter()
                        .map(|disk| match (&disk.problem, disk.size_bytes) {
                            (None, Some(size)) => {
                                format!("{} {}", disk.name, crate::report::bytes(size))
                            }
                            _ => format!("{} unreadable", disk.name),
                        })
                        .collect();
                    let labels: Vec<String> = instance
                        .labels
                        .iter()
                        .map(|(key, value)| format!("{key}={value}"))
                        .collect();
                    vec![
                        engine.name.clone(),
                        clean(&instance.name),
                        instance.id.to_string(),
                        clean(&instance.zone),
                        clean(&instance.status),
                        clean(&disks.join(", ")),
                        clean(&labels.join(" ")),
                    ]
                }));
            }
            console.print(&table(&rows).iter().map(|line| format!("{line}\n")).collect::<String>());
            for engine in &inventory.engines {
                for gap in told(&engine.gaps) {
                    console.error(&format!(
                        "{}: {}: {}",
                        engine.name,
                        clean(&gap.place),
                        clean(&gap.message)
                    ));
                }
            }
        }
        let complete = inventory.engines.iter().all(|engine| engine.gaps.is_empty());
        Ok(if complete { Exit::Success } else { Exit::Failed })
    }
}
