//! `stillframe drift`

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::list::report_gaps;
use super::report::read_ledger;
use super::{Console, Exit, Global, setup};
use crate::apply::Ledger;
use crate::audit::drift::drift;
use crate::files;
use crate::reconcile::base;
use crate::report::drift_page;

/// As what drift is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For an issue or the summary of a CI job
    Markdown,
    /// A page for a browser
    Html,
    /// For programs
    Json,
}

/// Show what changed behind our back. Exit code 6 where something did.
#[derive(Debug, Args)]
pub struct DriftCommand {
    /// As what to show it
    #[arg(long, value_name = "FORM", default_value = "text")]
    format: Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Compare with this document instead of asking the engines
    #[arg(long, value_name = "FILE")]
    inventory: Option<PathBuf>,
}

impl DriftCommand {
    pub(super) async fn run(&self, global: &Global, console: &Console) -> anyhow::Result<Exit> {
        let format = if self.json { Format::Json } else { self.format };
        let json = format == Format::Json;
        let seen = setup::seen(global, console, json, None, self.inventory.as_deref()).await;
        let seen = match seen {
            Ok(seen) => seen,
            Err(early) => return early.exit(),
        };
        let base = base(&seen.policies)?;
        let ledger = Ledger::new(files::joined(&base, &seen.policies.config.ledger));
        let (checked, lines) = read_ledger(&ledger, console)?;
        if !checked.breaks.is_empty() {
            console.error("the ledger is not whole; `stillframe ledger verify` says where");
        }
        let found = drift(&lines, &seen.policies, &seen.inventory);
        let page = drift_page(&found);
        match format {
            Format::Json => console.json(&found)?,
            Format::Text => console.print(&page.to_terminal()),
            Format::Markdown => console.print(&page.to_markdown()),
            Format::Html => console.print(&page.to_html()),
        }
        let seen_whole = report_gaps(&seen.inventory, console);
        Ok(match (found.items.is_empty(), checked.breaks.is_empty()) {
            (false, _) => Exit::Drifted,
            (true, false) => Exit::Failed,
            (true, true) => seen_whole,
        })
    }
}
