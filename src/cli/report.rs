//! `stillframe report` and `stillframe ledger`

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use serde_json::Value;

use super::list::report_gaps;
use super::{Console, Exit, Global, parse_instant, setup};
use crate::apply::{Checked, Ledger, check_chain};
use crate::audit::{Audit, Chain, Span, audit};
use crate::elapsed::Elapsed;
use crate::files;
use crate::inventory::EngineInventory;
use crate::reconcile::base;
use crate::report::overview::{self, Overview, engine_overview, policy_rows, rounds_of};
use crate::report::{audit_page, count, deletions_csv};

/// For so long a report is where nobody says.
const SPAN_DEFAULT: Elapsed = Elapsed::days(30);

/// As what a report is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For documents
    Markdown,
    /// A page for a browser
    Html,
    /// For programs
    Json,
    /// The deletions, for spreadsheets
    Csv,
}

/// Report what was protected and deleted in a span of time.
#[derive(Debug, Args)]
pub struct ReportCommand {
    /// From this instant or day on; thirty days before the end where it is left out
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    from: Option<Timestamp>,
    /// Up to this instant, or the beginning of this day; now where it is left out
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    to: Option<Timestamp>,
    /// As what to show it
    #[arg(long, value_name = "FORM", default_value = "text")]
    format: Format,
    /// Write what is protected and how well into this file, as a page for a browser that needs nothing
    /// else, and print no report
    #[arg(long, value_name = "FILE", conflicts_with_all = ["format", "json", "from", "to"])]
    html: Option<PathBuf>,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Take coverage from this document instead of asking the engines
    #[arg(long, value_name = "FILE")]
    inventory: Option<PathBuf>,
    /// As if it were this instant
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    now: Option<Timestamp>,
}

impl ReportCommand {
    pub(super) async fn run(&self, global: &Global, console: &Console) -> anyhow::Result<Exit> {
        let format = if self.json { Format::Json } else { self.format };
        let json = format == Format::Json;
        let seen = setup::seen(global, console, json, self.now, self.inventory.as_deref());
        let seen = match seen.await {
            Ok(seen) => seen,
            Err(early) => return early.exit(),
        };
        if let Some(file) = &self.html {
            return write_page(&seen, file, console);
        }
        let to = self.to.unwrap_or(seen.now);
        let from = self.from.unwrap_or_else(|| SPAN_DEFAULT.before(to));
        if from >= to {
            bail!("the report would end before it begins: --from {from} --to {to}");
        }
        let base = base(&seen.policies)?;
        let ledger = Ledger::new(files::joined(&base, &seen.policies.config.ledger));
        let (checked, lines) = read_ledger(&ledger, console)?;
        let chain = Chain {
            lines: checked.lines,
            whole: checked.breaks.is_empty(),
            head: checked.head.clone(),
        };
        let span = Span { from, to };
        let report = audit(&lines, chain, &seen.policies, &seen.inventory, span, seen.now);
        show(&report, format, console)?;
        let seen_whole = report_gaps(&seen.inventory, console);
        Ok(if checked.breaks.is_empty() { seen_whole } else { Exit::Failed })
    }
}

/// Writes the page that watch serves, as things are now.
fn write_page(seen: &setup::Seen, file: &Path, console: &Console) -> anyhow::Result<Exit> {
    let setup::Seen { policies, inventory, now } = seen;
    let ledger = Ledger::new(files::joined(&base(policies)?, &policies.config.ledger));
    let (_, lines) = read_ledger(&ledger, console)?;
    let name = policies.config.name.as_deref().unwrap_or_default();
    let mut page = Overview::new(*now, name, &policies.digest);
    page.policies = policy_rows(policies, *now);
    page.rounds = rounds_of(&lines);
    let plan = seen.plan(&[]);
    let of = |engine: &EngineInventory| {
        engine_overview(policies, inventory, &engine.name, &plan, None, *now)
    };
    page.engines = inventory.engines.iter().filter_map(of).collect();
    let text = overview::page(&page)?;
    // A page that is there is replaced as a whole: somebody may be reading it.
    let written =
        if file.exists() { files::replace(file, &text) } else { std::fs::write(file, &text) };
    written.with_context(|| format!("cannot write {}", file.display()))?;
    let size = crate::report::bytes(u64::try_from(text.len())?);
    console.note(&format!("{}: {size}\n", file.display()));
    Ok(report_gaps(inventory, console))
}

fn show(report: &Audit, format: Format, console: &Console) -> anyhow::Result<()> {
    match format {
        Format::Json => console.json(report)?,
        Format::Text => console.print(&audit_page(report).to_terminal()),
        Format::Markdown => console.print(&audit_page(report).to_long_markdown()),
        Format::Html => console.print(&audit_page(report).to_html()),
        Format::Csv => console.verbatim(&deletions_csv(report))?,
    }
    Ok(())
}

/// Reads a ledger; one that does not exist yet is empty.
pub(super) fn read_ledger(
    ledger: &Ledger,
    console: &Console,
) -> anyhow::Result<(Checked, Vec<Value>)> {
    let path = ledger.path();
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            console.note(&format!("there is no ledger yet: {}\n", path.display()));
            Vec::new()
        }
        Err(error) => return Err(error).context(format!("cannot read {}", path.display())),
    };
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let lines = lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
    Ok((check_chain(&text), lines))
}

/// The ledger of what was done.
#[derive(Debug, Args)]
pub struct LedgerCommand {
    #[command(subcommand)]
    verb: LedgerVerb,
}

#[derive(Debug, Subcommand)]
enum LedgerVerb {
    /// Check that no line was changed or taken out
    Verify(Verify),
}

/// Check that no line was changed or taken out.
#[derive(Debug, Args)]
struct Verify {
    /// The ledger; that of the configuration where it is left out
    file: Option<PathBuf>,
    /// A digest that was printed earlier: lines cut off at the end are noticed by it
    #[arg(long, value_name = "DIGEST")]
    head: Option<String>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

impl LedgerCommand {
    pub(super) fn run(&self, global: &Global, console: &Console) -> anyhow::Result<Exit> {
        let LedgerVerb::Verify(verify) = &self.verb;
        verify.run(global, console)
    }
}

impl Verify {
    fn run(&self, global: &Global, console: &Console) -> anyhow::Result<Exit> {
        let path = if let Some(file) = &self.file {
            file.clone()
        } else {
            let policies = match setup::policies(global, console, self.json) {
                Ok(policies) => policies,
                Err(early) => return early.exit(),
            };
            files::joined(&base(&policies)?, &policies.config.ledger)
        };
        let (checked, _) = read_ledger(&Ledger::new(path.clone()), console)?;
        let is_known = self.head.as_ref().is_none_or(|head| checked.digests.contains(head));
        if self.json {
            console.json(&serde_json::json!({
                "format_version": "1.0",
                "file": path,
                "whole": checked.breaks.is_empty() && is_known,
                "head_found": self.head.as_ref().map(|_| is_known),
                "ledger": checked,
            }))?;
        } else {
            self.show(&checked, is_known, console);
        }
        Ok(if checked.breaks.is_empty() && is_known { Exit::Success } else { Exit::Failed })
    }

    fn show(&self, checked: &Checked, is_known: bool, console: &Console) {
        for one in &checked.breaks {
            console.error(&format!("line {}: {}", one.line, one.message));
        }
        if !is_known {
            let head = self.head.as_deref().unwrap_or_default();
            console.error(&format!(
                "no line has the digest {}: lines were cut off or changed",
                crate::report::clean(head)
            ));
        }
        if !checked.half_written.is_empty() {
            let lines = count(checked.half_written.len(), "line");
            console.print(&format!("{lines} half written by runs that were killed\n"));
        }
        if checked.unchained > 0 {
            let lines = count(checked.unchained, "line");
            console.print(&format!("{lines} from before there was a chain: they prove nothing\n"));
        }
        let lines = count(checked.lines, "line");
        let is_whole = checked.breaks.is_empty() && is_known;
        let word = if is_whole { "whole" } else { "not whole" };
        console.print(&format!("{lines}, {word}; the last has the digest {}\n", checked.head));
    }
}
