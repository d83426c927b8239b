//! `stillframe adopt`

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};
use async_trait::async_trait;
use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::apply::{LateListener, Shown, exit_of, listen_for_interrupts};
use super::{Console, Exit, Global, parse_instant, parse_label, setup};
use crate::adopt::{Adoption, DEFAULT, Pattern, Wanted, adopt, guard};
use crate::apply::Stop;
use crate::inventory::Inventory;
use crate::name::PolicyName;
use crate::plan::Plan;
use crate::plan::guard::refuses;
use crate::policy::{Finding, Policies};
use crate::reconcile::{Approval, Room, Round};
use crate::report::{adoption_text, apply_text, plan_text};
use crate::schedule::Zone;

/// Take images into a policy.
#[derive(Debug, Args)]
pub struct Adopt {
    /// The policy that gets them
    #[arg(long, value_name = "NAME")]
    policy: String,
    /// How they are named: text with {source}, {date}, {time}, {year}, {month}, {day}, {hour},
    /// {minute}, {second}, {epoch} and * [default: {source}-backup-{date}-{time}, without --label]
    #[arg(long, value_name = "PATTERN")]
    name_pattern: Option<String>,
    /// Only images with this label; several must all be there
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label)]
    label: Vec<(String, String)>,
    /// The time zone of the times in names
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    time_zone: String,
    /// Do not ask
    #[arg(long)]
    auto_approve: bool,
    /// Show the plan and stop
    #[arg(long)]
    dry_run: bool,
    /// Print plan, outcomes and what is left alone as JSON
    #[arg(long)]
    json: bool,
    /// Write the plan into this file as well (schemas/plan.schema.json)
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Only show what would be done to this document, without asking the engines
    #[arg(long, value_name = "FILE")]
    inventory: Option<PathBuf>,
    /// As if it were this instant; only with --dry-run or --inventory, or where every engine is for
    /// trials
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    now: Option<Timestamp>,
}

impl Adopt {
    pub(super) async fn run(&self, global: &Global, console: &Console) -> anyhow::Result<Exit> {
        let wanted = self.wanted()?;
        if let Some(file) = &self.inventory {
            let policies = match setup::policies(global, console, self.json) {
                Ok(policies) => policies,
                Err(early) => return early.exit(),
            };
            let inventory = setup::read_inventory(file)?;
            let now = self.now.unwrap_or(inventory.observed_at);
            let adoption = guarded(&policies, &inventory, &wanted, now)?;
            return self.only_shown(&adoption, console);
        }
        let asks = !self.auto_approve && !self.dry_run;
        if asks && !console.is_interactive() {
            bail!("nobody can be asked here; add --auto-approve, or --dry-run to only look");
        }
        if asks && self.json {
            bail!(
                "--json goes with --auto-approve or --dry-run: a question would stand in the document"
            );
        }
        let room = match setup::room(global, console, self.json, self.now, Vec::new()) {
            Ok(room) => room,
            Err(early) => return early.exit(),
        };
        setup::refuse_false_times(&room, self.now, self.dry_run)?;
        // Said before anything is looked at.
        room.policies
            .get(&wanted.policy)
            .ok_or_else(|| crate::adopt::AdoptError::Policy(wanted.policy.clone()))?;
        self.round(&room, &wanted, console).await
    }

    fn wanted(&self) -> anyhow::Result<Wanted> {
        let pattern = match &self.name_pattern {
            Some(text) => Some(text.as_str()),
            None if self.label.is_empty() => Some(DEFAULT),
            None => None,
        };
        let pattern = pattern
            .map(|text| Pattern::parse(text).with_context(|| format!("--name-pattern {text}")))
            .transpose()?;
        let Some(zone) = Zone::find(&self.time_zone) else {
            bail!("--time-zone {}: {}", self.time_zone, Zone::hint(&self.time_zone));
        };
        let policy = PolicyName::parse(&self.policy)?;
        Ok(Wanted { policy, pattern, labels: self.label.clone(), zone })
    }

    /// One round that adopts: observe, plan, guard, ask, apply, report.
    async fn round(&self, room: &Room, wanted: &Wanted, console: &Console) -> anyhow::Result<Exit> {
        let stop = Stop::default();
        let listener = Arc::new(LateListener::new(*console));
        listen_for_interrupts(Arc::clone(&listener), stop.clone());
        let last: Mutex<Option<anyhow::Result<Adoption>>> = Mutex::new(None);
        let planned = |inventory: &Inventory, now: Timestamp, _: Option<&Plan>| {
            let adoption = guarded(&room.policies, inventory, wanted, now);
            // Where nothing can be adopted there is a plan of nothing.
            let plan = if let Ok(adoption) = &adoption {
                adoption.plan.clone()
            } else {
                let plan = crate::plan::plan(&room.policies, inventory, now);
                crate::plan::of_changes(plan, Vec::new())
            };
            *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(adoption);
            plan
        };
        let answer = if self.dry_run { Some(false) } else { self.auto_approve.then_some(true) };
        let shown = Shown {
            console: *console,
            json: self.json,
            answer,
            overrides: Vec::new(),
            listener: Arc::clone(&listener),
        };
        let told = Told { shown, last: &last, out: self.out.as_deref() };
        let round = room.round_of(&planned, &told, listener, &stop).await;
        let adoption = last.into_inner().unwrap_or_else(PoisonError::into_inner);
        let adoption = adoption.context("nothing was planned")??;
        self.report(&adoption, &round, console)?;
        Ok(exit_of(&round, self.dry_run))
    }

    fn report(&self, adoption: &Adoption, round: &Round, console: &Console) -> anyhow::Result<()> {
        if self.json {
            return console.json(&json!({
                "format_version": "1.0",
                "plan": round.plan,
                "left_alone": adoption.left_alone,
                "already": adoption.already,
                "approved": round.approved,
                "outcomes": round.outcomes,
                "not_approved": round.not_approved,
            }));
        }
        if round.approved {
            console.print(&format!("\n{}", apply_text(round)));
        } else if !self.dry_run {
            console.print("Nothing was done.\n");
        }
        Ok(())
    }

    fn only_shown(&self, adoption: &Adoption, console: &Console) -> anyhow::Result<Exit> {
        write_out(self.out.as_deref(), &adoption.plan)?;
        if self.json {
            console.json(&json!({
                "format_version": "1.0",
                "plan": adoption.plan,
                "left_alone": adoption.left_alone,
                "already": adoption.already,
                "approved": false,
                "outcomes": [],
                "not_approved": [],
            }))?;
        } else {
            console.print(&plan_text(&adoption.plan));
            console.print(&adoption_text(adoption));
        }
        Ok(if adoption.plan.engines.iter().any(|engine| !engine.complete) {
            Exit::Failed
        } else if refuses(&adoption.plan.refusals) {
            Exit::Refused
        } else {
            Exit::Success
        })
    }
}

/// What is adopted, with what the guard refuses.
fn guarded(
    policies: &Policies,
    inventory: &Inventory,
    wanted: &Wanted,
    now: Timestamp,
) -> anyhow::Result<Adoption> {
    let mut adoption = adopt(policies, inventory, wanted, now)?;
    adoption.plan.refusals = guard(&adoption.plan, policies, inventory);
    Ok(adoption)
}

fn write_out(out: Option<&std::path::Path>, plan: &Plan) -> anyhow::Result<()> {
    let Some(path) = out else { return Ok(()) };
    let mut text = serde_json::to_string_pretty(plan)?;
    text.push('\n');
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Shows the plan and what it leaves alone, and asks.
struct Told<'a> {
    shown: Shown,
    last: &'a Mutex<Option<anyhow::Result<Adoption>>>,
    out: Option<&'a std::path::Path>,
}

#[async_trait]
impl Approval for Told<'_> {
    async fn approve(&self, plan: &Plan) -> bool {
        let (text, is_there) = {
            let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            match &*last {
                Some(Ok(adoption)) => (adoption_text(adoption), true),
                _ => (String::new(), false),
            }
        };
        if !is_there {
            return false;
        }
        if let Err(error) = write_out(self.out, plan) {
            self.shown.console.error(&format!("{error:#}"));
            return false;
        }
        self.shown.show(&format!("{}{text}", plan_text(plan)));
        self.shown.decide(plan).await
    }

    fn found(&self, found: &[Finding]) {
        self.shown.found(found);
    }

    fn takes_time(&self) -> bool {
        self.shown.takes_time()
    }

    fn shows_only(&self) -> bool {
        self.shown.shows_only()
    }
}
