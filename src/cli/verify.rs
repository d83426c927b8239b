//! `stillframe verify`

use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::list::{find_ready_image, report_gaps};
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
        // What cannot be read is said once, by verifying it.
        let exit = if self.image.is_some() || !self.json {
            Exit::Success
        } else {
            report_gaps(&inventory, console)
        };
        let mut verified: Vec<Verified> = Vec::new();
        let mut failed = Vec::new();
        match &self.image {
            Some(image) => {
                let row = find_ready_image(&inventory, image)?;
                let bar = Arc::new(Bar::new(console, &row.image.name));
                let found =
                    setup::store_of(&room, &row.engine)?.verify(Some(row.image.id), bar).await?;
                verified = found.images;
            }
            None => {
                for engine in &room.engines {
                    let Some(store) = engine.store() else { continue };
                    let bar = Arc::new(Bar::new(console, engine.name()));
                    match store.verify(None, bar).await {
                        Ok(found) => {
                            verified.extend(found.images);
                            let unreadable = found.unreadable.into_iter();
                            failed.extend(
                                unreadable.map(|error| format!("{}: {error}", engine.name())),
                            );
                        }
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
            for message in &failed {
                console.error(&clean(message));
            }
            console.print(&text(&verified, failed.len()));
        }
        // Of one image, what else could not be seen says nothing.
        let exit = if self.image.is_some() { Exit::Success } else { exit };
        Ok(if is_sound { exit } else { Exit::Failed })
    }
}

fn text(verified: &[Verified], unreadable: usize) -> String {
    let mut text = String::new();
    for one in verified {
        let verdict = if one.damage.is_empty() { "sound" } else { "DAMAGED" };
        text.push_str(&format!("{verdict}  {}  {} checked\n", one.image, bytes(one.checked_bytes)));
        for damage in &one.damage {
            text.push_str(&format!("    {}\n", clean(damage)));
        }
    }
    let damaged = verified.iter().filter(|one| !one.damage.is_empty()).count();
    let unreadable = match unreadable {
        0 => String::new(),
        count => format!(", {count} not readable"),
    };
    text.push_str(&format!("{} checked, {damaged} damaged{unreadable}\n", verified.len()));
    text
}
