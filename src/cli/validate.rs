//! `stillframe validate`

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde_json::json;

use super::{Console, Exit, Global, parse_instant, setup};
use crate::inventory::Inventory;
use crate::policy::{Code, Finding, Loaded, Policies, Severity, lint};
use crate::report::{clean, findings};

/// Check the policies: every mistake at once; nothing is called, unless --observe says so.
#[derive(Debug, Args)]
pub struct Validate {
    /// Print the findings as JSON; the same as `--format json`
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// The form of the findings
    #[arg(long, default_value = "text")]
    format: FindingForm,
    /// Hold dates against this instant instead of the present one
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    now: Option<Timestamp>,
    /// Hold the policies against this document too: what matches nothing, what matches twice
    #[arg(long, value_name = "FILE", conflicts_with = "observe")]
    inventory: Option<PathBuf>,
    /// Ask the engines, and hold the policies against what they hold
    #[arg(long)]
    observe: bool,
    /// End with exit code 3 where this warning is found; `warnings` stands for all of them
    #[arg(long, value_name = "CODE", value_parser = parse_denied)]
    deny: Vec<Denied>,
}

/// Warnings that end the run like errors.
#[derive(Debug, Clone, Copy)]
enum Denied {
    All,
    Only(Code),
}

impl Denied {
    fn is(self, code: Code) -> bool {
        match self {
            Self::All => code.severity() == Severity::Warning,
            Self::Only(only) => only == code,
        }
    }
}

fn parse_denied(text: &str) -> Result<Denied, String> {
    if text == "warnings" {
        return Ok(Denied::All);
    }
    let known = Code::ALL.iter().find(|code| code.word() == text);
    match known.filter(|code| code.severity() == Severity::Warning) {
        Some(code) => Ok(Denied::Only(*code)),
        None if known.is_some() => Err(format!("`{text}` is an error already")),
        None => match Code::allowable(text) {
            Err((message, Some(hint))) => Err(format!("{message}; {hint}")),
            Err((message, None)) => Err(message),
            Ok(code) => Ok(Denied::Only(code)),
        },
    }
}

/// The form of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FindingForm {
    /// For people
    Text,
    /// A JSON document
    Json,
    /// SARIF 2.1.0, for code scanning
    Sarif,
    /// Annotations of GitHub Actions, the worst ten of each kind
    Github,
    /// A code quality report of GitLab
    Gitlab,
}

impl Validate {
    pub(super) async fn run(&self, global: &Global, console: &Console) -> anyhow::Result<Exit> {
        let origins = self.inventory.is_some() || self.observe;
        let now = setup::clock(self.now).now();
        let mut loaded = setup::load_policies_at(global, origins, Some(now))?;
        if let Some(policies) = &loaded.policies
            && let Some((inventory, now)) = self.seen(policies).await?
        {
            note_gaps(&inventory, console);
            loaded.findings.extend(lint::over(policies, &inventory, now));
        }
        loaded.findings.extend(setup::read_tests(&setup::test_paths(global))?.1);
        loaded.findings.sort_by(|one, other| one.sort_key().cmp(&other.sort_key()));
        // Policies and tests are looked for in the same directories.
        loaded.findings.dedup();
        self.show(&loaded, console)?;
        let (errors, _) = findings::counts(&loaded.findings);
        let denied = self.denied(&loaded.findings);
        if denied > 0 {
            let plural = if denied == 1 { " is" } else { "s are" };
            console.note(&format!("{denied} warning{plural} denied\n"));
        }
        Ok(if errors + denied > 0 { Exit::InvalidPolicy } else { Exit::Success })
    }

    /// What the policies are held against, and the time.
    async fn seen(&self, policies: &Policies) -> anyhow::Result<Option<(Inventory, Timestamp)>> {
        if let Some(file) = &self.inventory {
            let inventory = setup::read_inventory(file)?;
            let now = self.now.unwrap_or(inventory.observed_at);
            return Ok(Some((inventory, now)));
        }
        if !self.observe {
            return Ok(None);
        }
        let room = match setup::room_of(policies.clone(), self.now, Vec::new()) {
            Ok(room) => room,
            Err(early) => return early.exit().map(|_| None),
        };
        let inventory = room.observe().await;
        Ok(Some((inventory, room.clock.now())))
    }

    fn denied(&self, found: &[Finding]) -> usize {
        let is_denied = |finding: &&Finding| self.deny.iter().any(|one| one.is(finding.code));
        found.iter().filter(is_denied).count()
    }

    fn show(&self, loaded: &Loaded, console: &Console) -> anyhow::Result<()> {
        let (errors, _) = findings::counts(&loaded.findings);
        let form = if self.json { FindingForm::Json } else { self.format };
        if form == FindingForm::Sarif {
            console.json(&findings::sarif(&loaded.findings))?;
        } else if form == FindingForm::Gitlab {
            console.json(&findings::gitlab(&loaded.findings))?;
        } else if form == FindingForm::Github {
            console.print(&findings::github(&loaded.findings));
        } else if form == FindingForm::Json {
            let mut document = findings::json(&loaded.findings);
            let policies = loaded.policies.as_ref();
            document["policies"] = json!(policies.map(|policies| {
                policies.policies.iter().map(|policy| policy.name.as_str()).collect::<Vec<_>>()
            }));
            document["denied"] = json!(self.denied(&loaded.findings));
            document["digest"] = json!(policies.map(|policies| &policies.digest));
            console.json(&document)?;
        } else {
            console.note(&findings::text(&loaded.findings));
            if let Some(policies) = loaded.policies.as_ref().filter(|_| errors == 0) {
                let plural = |number: usize| if number == 1 { "" } else { "s" };
                let (count, engines) = (policies.policies.len(), policies.config.engines.len());
                console.print(&format!(
                    "valid: {count} polic{}, {engines} engine{}, digest {}\n",
                    if count == 1 { "y" } else { "ies" },
                    plural(engines),
                    policies.digest.get(..12).unwrap_or_default(),
                ));
            }
        }
        Ok(())
    }
}

/// Says what was not seen: of that nothing is said to be missing.
fn note_gaps(inventory: &Inventory, console: &Console) {
    for engine in &inventory.engines {
        for gap in &engine.gaps {
            console.note(&format!(
                "not seen: {} in {}: {}\n",
                clean(&gap.place),
                clean(&engine.name),
                clean(&gap.message)
            ));
        }
    }
}
