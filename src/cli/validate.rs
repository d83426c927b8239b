//! `stillframe validate`

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde_json::json;

use super::{Console, Exit, Global, parse_instant, setup};
use crate::report::findings;

/// Check the policies: every mistake at once, nothing is called.
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
}

impl Validate {
    pub(super) fn run(&self, global: &Global, console: &Console) -> anyhow::Result<Exit> {
        let mut loaded = setup::load_policies(global, false)?;
        if let Some(policies) = &loaded.policies {
            loaded.findings.extend(policies.expired(setup::clock(self.now).now()));
        }
        let (errors, _) = findings::counts(&loaded.findings);
        let form = if self.json { FindingForm::Json } else { self.format };
        if form == FindingForm::Sarif {
            console.json(&findings::sarif(&loaded.findings))?;
        } else if form == FindingForm::Github {
            console.print(&findings::github(&loaded.findings));
        } else if form == FindingForm::Json {
            let mut document = findings::json(&loaded.findings);
            let policies = loaded.policies.as_ref();
            document["policies"] = json!(policies.map(|policies| {
                policies.policies.iter().map(|policy| policy.name.as_str()).collect::<Vec<_>>()
            }));
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
        Ok(if errors > 0 { Exit::InvalidPolicy } else { Exit::Success })
    }
}
