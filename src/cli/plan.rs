//! `stillframe plan`

use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;

use super::{Console, Exit, Global, parse_instant, setup};
use crate::plan::Plan;
use crate::plan::guard::{Override, refuses, unused};
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
        let seen = setup::seen(global, console, self.json, self.now, self.inventory.as_deref());
        let seen = match seen.await {
            Ok(seen) => seen,
            Err(early) => return early.exit(),
        };
        setup::note_meaning(&seen.policies, &seen.inventory, seen.now, console);
        let plan = seen.plan(&self.overrides);
        if self.json {
            console.json(&plan)?;
        } else {
            console.print(&plan_text(&plan));
        }
        for text in unused(&plan, &self.overrides) {
            console.note(&format!("{text}\n"));
        }
        let exit = exit_of(&plan, self.detailed_exitcode);
        Ok(setup::with_exemptions(exit, &seen.policies, plan.now, console))
    }
}

/// How a plan that is only shown ends the run.
fn exit_of(plan: &Plan, detailed: bool) -> Exit {
    if plan.engines.iter().any(|engine| !engine.complete) {
        Exit::Failed
    } else if refuses(&plan.refusals) {
        Exit::Refused
    } else if detailed && (plan.summary.has_changes() || plan.summary.blocked > 0) {
        Exit::Pending
    } else {
        Exit::Success
    }
}
