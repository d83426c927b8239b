//! `stillframe verify`

use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::list::{find_image, report_gaps};
use super::progress::Bar;
use super::{Console, Exit, Global, setup};
use crate::engine::Verified;
use crate::report::{bytes, clean};

/// Read stored data back and check it.
#[derive(Debug, Args)]
pub struct Verify {
    /// The name or id of an image; all images where it is left out
    image: Option<String>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(super) async fn run(&self, global: &Global, console: &Console) -> anyhow::Result<Exit> {
        let room = match setup::room(global, console, self.json, None, Vec::new()) {
            Ok(room) => room,
            Err(early) => return early.exit(),
        };
        let inventory = room.observe().await;
        let exit = report_gaps(&inventory, console);
        let mut verified: Vec<Verified> = Vec::new();
        let mut failed = Vec::new();
        match &self.image {
            Some(image) => {
                let row = find_image(&inventory, image)?;
                let bar = Arc::new(Bar::new(console, &row.image.name));
                verified =
                    setup::store_of(&room, &row.engine)?.verify(Some(row.image.id), bar).await?;
            }
            None => {
                for engine in &room.engines {
                    let Some(store) = engine.store() else { continue };
                    let bar = Arc::new(Bar::new(console, engine.name()));
                    match store.verify(None, bar).await {
                        Ok(found) => verified.extend(found),
                        Err(error) => failed.push(format!("{}: {error}", engine.name())),
                    }
                }
            }
        }
        let is_sound = verified.iter().all(|one| one.damage.is_empty()) && failed.is_empty();
        if self.json {
            console.json(&json!({
                "format_version": "1.0",
                "sound": is_sound && exit == Exit::Success,
                "images": verified,
                "errors": failed,
            }))?;
        } else {
            console.print(&text(&verified));
            for message in &failed {
                console.error(&clean(message));
            }
        }
        Ok(if is_sound { exit } else { Exit::Failed })
    }
}

fn text(verified: &[Verified]) -> String {
    let mut text = String::new();
    for one in verified {
        let verdict = if one.damage.is_empty() { "sound" } else { "DAMAGED" };
        text.push_str(&format!("{verdict}  {}  {} checked\n", one.image, bytes(one.checked_bytes)));
        for damage in &one.damage {
            text.push_str(&format!("    {}\n", clean(damage)));
        }
    }
    let damaged = verified.iter().filter(|one| !one.damage.is_empty()).count();
    text.push_str(&format!("{} checked, {damaged} damaged\n", verified.len()));
    text
}
