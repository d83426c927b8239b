//! `stillframe list` and `stillframe show`

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde_json::json;

use super::plan::Format;
use super::{Console, Exit, Global, parse_instant, parse_label, plan, saved, setup};
use crate::inventory::{Image, ImageState, Inventory, Stage};
use crate::name::Ownership;
use crate::policy::select::Patterns;
use crate::policy::written::Texts;
use crate::report::{ImageRow, clean, image_rows, list, show};
use crate::signature::Signers;

/// List images.
#[derive(Debug, Args)]
pub struct List {
    /// Only images of this policy
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// Only images of this source, by name or id; `*` stands for anything
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Only images with this label
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label)]
    label: Vec<(String, String)>,
    /// Only images in this state, or READY ones at this stage
    #[arg(long, ignore_case = true)]
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
    Partial,
    Deleting,
    Unknown,
    Active,
    Deprecated,
    Obsolete,
}

impl StateWord {
    fn takes(self, image: &Image) -> bool {
        let is_at = |stage| image.state == ImageState::Ready && image.stage == stage;
        match self {
            Self::Creating => matches!(image.state, ImageState::Creating | ImageState::Begun),
            Self::Ready => image.state == ImageState::Ready,
            Self::Failed => image.state == ImageState::Failed,
            Self::Partial => image.state == ImageState::Partial,
            Self::Deleting => image.state == ImageState::Deleting,
            Self::Unknown => image.state == ImageState::Unknown,
            Self::Active => is_at(Stage::Active),
            Self::Deprecated => is_at(Stage::Deprecated),
            Self::Obsolete => is_at(Stage::Obsolete),
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
        let source =
            match self.source.as_deref().map(|text| Patterns::new(&Texts(vec![text.to_owned()]))) {
                Some(Err(mistakes)) => {
                    let reason = mistakes.into_iter().map(|(_, reason)| reason).next();
                    bail!("--source is not a pattern: {}", reason.unwrap_or_default());
                }
                Some(Ok(patterns)) => Some(patterns),
                None => None,
            };
        if !self.json {
            self.note_unknown(&rows, source.as_ref(), console);
        }
        rows.retain(|row| self.takes(row, source.as_ref()));
        if self.json {
            console.json(&json!({
                "format_version": "1.0",
                "complete": is_complete(&inventory),
                "gaps": inventory.engines.iter().flat_map(|engine| &engine.gaps).collect::<Vec<_>>(),
                "images": rows,
            }))?;
        } else {
            console.print(&list(&rows, room.clock.now()));
        }
        Ok(report_gaps(&inventory, console))
    }

    /// An empty table says little: what is asked for may not exist at all.
    fn note_unknown(&self, rows: &[ImageRow], source: Option<&Patterns>, console: &Console) {
        let ours = || rows.iter().filter_map(|row| row.key.as_ref().map(|key| (key, row)));
        let note = |what: &str, asked: &str, known: BTreeSet<&str>| {
            let known: Vec<&str> = known.into_iter().collect();
            let hint = match similar::get_close_matches(asked, &known, 1, 0.6).first() {
                Some(close) => format!("did you mean `{close}`?"),
                None => format!("there are images of {}", clean(&known.join(", "))),
            };
            console.note(&format!("no image of the {what} `{}`; {hint}\n", clean(asked)));
        };
        if let (Some(patterns), Some(asked)) = (source, &self.source)
            && !rows.is_empty()
            && !rows.iter().any(|row| is_of(row, patterns))
        {
            note("source", asked, ours().map(|(_, row)| row.source.as_str()).collect());
        }
        if let Some(asked) = &self.policy
            && !rows.is_empty()
            && !ours().any(|(key, _)| key.policy.as_str() == asked)
        {
            note("policy", asked, ours().map(|(key, _)| key.policy.as_str()).collect());
        }
    }

    fn takes(&self, row: &ImageRow, source: Option<&Patterns>) -> bool {
        let key = row.key.as_ref();
        // What is damaged somebody must look at.
        let is_ours = !matches!(row.image.ownership(), Ownership::Foreign);
        (self.all || is_ours)
            && self
                .policy
                .as_ref()
                .is_none_or(|policy| key.is_some_and(|key| key.policy.as_str() == policy))
            && source.is_none_or(|patterns| is_of(row, patterns))
            && self.label.iter().all(|(key, value)| row.image.labels.get(key) == Some(value))
            && self.state.is_none_or(|state| state.takes(&row.image))
    }
}

fn is_of(row: &ImageRow, patterns: &Patterns) -> bool {
    patterns.matches(&row.source)
        || row.key.as_ref().is_some_and(|key| patterns.matches(key.source.as_str()))
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
            let of_source = |row: &&ImageRow| {
                let key = row.key.as_ref();
                row.image.state == ImageState::Ready
                    && (row.source == image || key.is_some_and(|key| key.source.as_str() == image))
            };
            let newest = rows
                .iter()
                .filter(of_source)
                .max_by_key(|row| (row.key.as_ref().map(|key| key.slot), !row.copy));
            let asked = clean(image);
            if let Some(newest) = newest {
                bail!("`{asked}` is a source; its newest image is {}", newest.image.name);
            }
            if !is_complete(inventory) {
                bail!("there is no image `{asked}` among those that could be seen");
            }
            match similar::get_close_matches(image, &names, 1, 0.6).first() {
                Some(close) => bail!("there is no image `{asked}`; did you mean `{close}`?"),
                None => bail!("there is no image `{asked}`; `stillframe list` shows all"),
            }
        }
        several => {
            let ids: Vec<String> = several.iter().map(|row| clean(&row.image.id)).collect();
            bail!(
                "there are several images named `{}`; give the id of one: {}",
                clean(image),
                ids.join(", ")
            )
        }
    }
}

/// The same, where the image is to be read back.
pub(super) fn find_ready_image(inventory: &Inventory, image: &str) -> anyhow::Result<ImageRow> {
    let row = find_image(inventory, image)?;
    if row.image.state != ImageState::Ready {
        let why = row.image.message.as_deref().map(|why| format!(": {}", clean(why)));
        bail!(
            "{} is not READY{}; there is nothing to read back",
            clean(&row.image.name),
            why.unwrap_or_default()
        );
    }
    Ok(row)
}

/// Show everything an image records.
#[derive(Debug, Args)]
pub struct Show {
    /// The name or id of the image, or the file of a saved plan
    #[arg(value_name = "IMAGE|PLAN")]
    image: String,
    /// Print as JSON
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// As what to show a saved plan
    #[arg(long, value_name = "FORM", default_value = "text")]
    format: Format,
    /// Show a saved plan only if one of these has signed it, as `ssh-keygen -Y verify` takes them
    #[arg(long, value_name = "FILE")]
    signers: Option<PathBuf>,
}

impl Show {
    pub(super) async fn run(&self, global: &Global, console: &Console) -> anyhow::Result<Exit> {
        if Path::new(&self.image).is_file() {
            return self.show_plan(Path::new(&self.image), console);
        }
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
        let mut record = if row.image.state == ImageState::Ready {
            setup::store_of(&room, &row.engine)?.record(&row.image.id).await?
        } else {
            json!({"image": row.image})
        };
        if self.json {
            if let Some(record) = record.as_object_mut() {
                record.insert("format_version".to_owned(), json!("1.0"));
            }
            console.json(&record)?;
        } else {
            console.print(&show(&row, &record));
        }
        Ok(Exit::Success)
    }
}

impl Show {
    fn show_plan(&self, file: &Path, console: &Console) -> anyhow::Result<Exit> {
        let signers = self.signers.as_deref().map(Signers::read).transpose()?;
        let (saved, by) = saved::load(file, signers.as_ref())?;
        if self.json {
            console.json(&saved)?;
            return Ok(Exit::Success);
        }
        plan::show(&saved.plan, saved.review.as_ref(), self.format, console)?;
        let by = by.map(|by| format!("signed by {by}; ")).unwrap_or_default();
        let commit = saved.commit.as_deref().map(|commit| {
            let changed = if saved.uncommitted { " and what was not committed" } else { "" };
            format!("made from commit {}{changed}; ", clean(commit))
        });
        let commit = commit.unwrap_or_default();
        console.note(&format!("{by}{commit}valid until {}\n", saved.valid_until));
        Ok(Exit::Success)
    }
}
