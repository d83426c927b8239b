//! `stillframe list` and `stillframe show`

use anyhow::bail;
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde_json::json;

use super::{Console, Exit, Global, parse_instant, parse_label, setup};
use crate::inventory::{ImageState, Inventory};
use crate::report::{ImageRow, clean, image_rows, list, show};

/// List images.
#[derive(Debug, Args)]
pub struct List {
    /// Only images of this policy
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// Only images of this source, by name or id
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Only images with this label
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label)]
    label: Vec<(String, String)>,
    /// Only images in this state
    #[arg(long)]
    state: Option<StateWord>,
    /// Images that are not stillframe's too
    #[arg(long)]
    all: bool,
    /// Print as JSON
    #[arg(long)]
    json: bool,
    /// Count ages up to this instant
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    now: Option<Timestamp>,
}

/// A state on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StateWord {
    Creating,
    Ready,
    Failed,
    Deleting,
    Unknown,
}

impl From<StateWord> for ImageState {
    fn from(word: StateWord) -> Self {
        match word {
            StateWord::Creating => Self::Creating,
            StateWord::Ready => Self::Ready,
            StateWord::Failed => Self::Failed,
            StateWord::Deleting => Self::Deleting,
            StateWord::Unknown => Self::Unknown,
        }
    }
}

impl List {
    pub(super) async fn run(&self, global: &Global, console: &Console) -> anyhow::Result<Exit> {
        let room = match setup::room(global, console, self.json, self.now, Vec::new()) {
            Ok(room) => room,
            Err(early) => return early.exit(),
        };
        let inventory = room.observe().await;
        let mut rows = image_rows(&inventory);
        rows.retain(|row| self.takes(row));
        if self.json {
            console.json(&json!({
                "format_version": "1.0",
                "complete": is_complete(&inventory),
                "images": rows,
            }))?;
        } else {
            console.print(&list(&rows, room.clock.now()));
        }
        Ok(report_gaps(&inventory, console))
    }

    fn takes(&self, row: &ImageRow) -> bool {
        let key = row.key.as_ref();
        (self.all || key.is_some())
            && self
                .policy
                .as_ref()
                .is_none_or(|policy| key.is_some_and(|key| key.policy.as_str() == policy))
            && self.source.as_ref().is_none_or(|source| {
                row.source == *source || key.is_some_and(|key| key.source.as_str() == source)
            })
            && self.label.iter().all(|(key, value)| row.image.labels.get(key) == Some(value))
            && self.state.is_none_or(|state| row.image.state == state.into())
    }
}

fn is_complete(inventory: &Inventory) -> bool {
    inventory.engines.iter().all(|engine| engine.gaps.is_empty())
}

/// Says what could not be seen, and how that ends the run.
pub(super) fn report_gaps(inventory: &Inventory, console: &Console) -> Exit {
    for engine in &inventory.engines {
        for gap in &engine.gaps {
            console.error(&format!(
                "{}: {}: {}",
                engine.name,
                clean(&gap.place),
                clean(&gap.message)
            ));
        }
    }
    if is_complete(inventory) { Exit::Success } else { Exit::Failed }
}

/// The image of a name or an id: its engine and its id.
pub(super) fn find_image(inventory: &Inventory, image: &str) -> anyhow::Result<ImageRow> {
    let rows = image_rows(inventory);
    let found: Vec<ImageRow> = rows
        .iter()
        .filter(|row| row.image.name == image || row.image.id == image)
        .cloned()
        .collect();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => {
            let names: Vec<&str> = rows.iter().map(|row| row.image.name.as_str()).collect();
            match similar::get_close_matches(image, &names, 1, 0.6).first() {
                Some(close) => {
                    bail!("there is no image `{}`; did you mean `{close}`?", clean(image))
                }
                None => bail!("there is no image `{}`; `stillframe list` shows all", clean(image)),
            }
        }
        _ => bail!("there are several images named `{}`; give an id", clean(image)),
    }
}

/// Show everything an image records.
#[derive(Debug, Args)]
pub struct Show {
    /// The name or id of the image
    image: String,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

impl Show {
    pub(super) async fn run(&self, global: &Global, console: &Console) -> anyhow::Result<Exit> {
        let room = match setup::room(global, console, self.json, None, Vec::new()) {
            Ok(room) => room,
            Err(early) => return early.exit(),
        };
        let inventory = room.observe().await;
        let row = match find_image(&inventory, &self.image) {
            Ok(row) => row,
            Err(error) => {
                report_gaps(&inventory, console);
                return Err(error);
            }
        };
        let record = if row.image.state == ImageState::Ready {
            setup::store_of(&room, &row.engine)?.record(&row.image.id).await?
        } else {
            json!({"image": row.image})
        };
        if self.json {
            console.json(&record)?;
        } else {
            console.print(&show(&record));
        }
        Ok(Exit::Success)
    }
}
