//! `stillframe plan`

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use jiff::Timestamp;

use super::{Console, Exit, Global, parse_instant, setup};
use crate::inventory::{FORMAT_VERSION, Inventory};
use crate::plan::guard::{Override, unused, withheld};
use crate::plan::{Plan, plan};
use crate::reconcile::guarded;
use crate::report::plan_text;

/// Show what would be done.
#[derive(Debug, Args)]
pub struct PlanCommand {
    /// Print the plan as JSON
    #[arg(long)]
    json: bool,
    /// Exit with 2 where something is to be done
    #[arg(long)]
    detailed_exitcode: bool,
    /// Plan as if it were this instant
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    now: Option<Timestamp>,
    /// Plan over this document instead of asking the engines
    #[arg(long, value_name = "FILE")]
    inventory: Option<PathBuf>,
    /// Say that something a guard refuses is meant; the plan prints the value
    #[arg(long = "override", value_name = "GUARD=PLAN:COUNT", value_parser = Override::parse)]
    overrides: Vec<Override>,
}

impl PlanCommand {
    pub(super) async fn run(&self, global: &Global, console: &Console) -> anyhow::Result<Exit> {
        let (policies, plan) = if let Some(file) = &self.inventory {
            let policies = match setup::policies(global, console, self.json) {
                Ok(policies) => policies,
                Err(early) => return early.exit(),
            };
            let inventory = read_inventory(file)?;
            let now = self.now.unwrap_or(inventory.observed_at);
            let plan = plan(&policies, &inventory, now);
            let plan = guarded(plan, &policies, &inventory, &self.overrides, now);
            (policies, plan)
        } else {
            let room = setup::room(global, console, self.json, self.now, self.overrides.clone());
            let room = match room {
                Ok(room) => room,
                Err(early) => return early.exit(),
            };
            let inventory = room.observe().await;
            let plan = room.plan(&inventory, room.clock.now());
            (room.policies, plan)
        };
        if self.json {
            console.json(&plan)?;
        } else {
            console.print(&plan_text(&plan));
        }
        for text in unused(&plan, &self.overrides) {
            console.note(&format!("{text}\n"));
        }
        let exit = exit_of(&plan, self.detailed_exitcode);
        Ok(setup::with_exemptions(exit, &policies, plan.now, console))
    }
}

/// How a plan that is only shown ends the run.
fn exit_of(plan: &Plan, detailed: bool) -> Exit {
    if plan.engines.iter().any(|engine| !engine.complete) {
        Exit::Failed
    } else if !withheld(&plan.refusals).is_empty() {
        Exit::Refused
    } else if detailed && (plan.summary.has_changes() || plan.summary.blocked > 0) {
        Exit::Pending
    } else {
        Exit::Success
    }
}

fn read_inventory(file: &PathBuf) -> anyhow::Result<Inventory> {
    let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let inventory: Inventory = serde_json::from_slice(&text).with_context(|| {
        format!("{} is not an inventory (schemas/inventory.schema.json)", file.display())
    })?;
    let names: BTreeSet<&String> = inventory.engines.iter().map(|engine| &engine.name).collect();
    if names.len() < inventory.engines.len() {
        bail!("{} holds an engine twice", file.display());
    }
    let major = |version: &str| version.split('.').next().map(str::to_owned);
    if major(&inventory.format_version) != major(FORMAT_VERSION) {
        bail!(
            "{} has the format version {}, this program reads {FORMAT_VERSION}",
            file.display(),
            inventory.format_version
        );
    }
    Ok(inventory)
}
