//! `stillframe undo`

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::bail;
use async_trait::async_trait;
use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::apply::{LateListener, Shown, exit_of, listen_for_interrupts};
use super::{Console, Exit, Global, parse_instant, saved, setup};
use crate::apply::Stop;
use crate::inventory::Inventory;
use crate::plan::{Action, Plan, plan};
use crate::policy::Finding;
use crate::reconcile::{Approval, Room, Round};
use crate::report::{apply_text, clean, count, plan_text};
use crate::review::{Saved, Undo, undo};

/// Bring back what a saved plan has deprecated.
#[derive(Debug, Args)]
pub struct UndoCommand {
    /// The saved plan
    plan: PathBuf,
    /// Do not ask
    #[arg(long)]
    auto_approve: bool,
    /// Show what would be brought back and stop
    #[arg(long)]
    dry_run: bool,
    /// Print plan and outcomes as JSON
    #[arg(long)]
    json: bool,
    /// As if it were this instant; only with --dry-run, or where every engine is for trials
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    now: Option<Timestamp>,
}

impl UndoCommand {
    pub(super) async fn run(&self, global: &Global, console: &Console) -> anyhow::Result<Exit> {
        let asks = !self.auto_approve && !self.dry_run;
        if asks && !console.is_interactive() {
            bail!("nobody can be asked here; add --auto-approve, or --dry-run to only look");
        }
        if asks && self.json {
            bail!(
                "--json goes with --auto-approve or --dry-run: a question would stand in the document"
            );
        }
        let (saved, _) = saved::load(&self.plan, None)?;
        let room = match setup::room(global, console, self.json, self.now, Vec::new()) {
            Ok(room) => room,
            Err(early) => return early.exit(),
        };
        setup::refuse_false_times(&room, self.now, self.dry_run)?;
        self.round(&room, &saved, console).await
    }

    async fn round(&self, room: &Room, saved: &Saved, console: &Console) -> anyhow::Result<Exit> {
        let stop = Stop::default();
        let listener = Arc::new(LateListener::new(*console));
        listen_for_interrupts(Arc::clone(&listener), stop.clone());
        let last: Mutex<Option<Undo>> = Mutex::new(None);
        let planned = |inventory: &Inventory, now: Timestamp, _: Option<&Plan>| {
            let undo = undo(&saved.plan, plan(&room.policies, inventory, now), inventory);
            let plan = undo.plan.clone();
            *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(undo);
            plan
        };
        let shown = Shown {
            console: *console,
            json: self.json,
            answer: if self.dry_run { Some(false) } else { self.auto_approve.then_some(true) },
            overrides: Vec::new(),
            listener: Arc::clone(&listener),
        };
        let told = Told { shown, last: &last };
        let round = room.round_of(&planned, &told, listener, &stop).await;
        let undo = last.into_inner().unwrap_or_else(PoisonError::into_inner);
        let gone = undo.map(|undo| undo.lost).unwrap_or_default();
        if self.json {
            console.json(&json!({
                "format_version": "1.0",
                "plan": round.plan,
                "lost": gone,
                "approved": round.approved,
                "outcomes": round.outcomes,
            }))?;
        } else if round.approved {
            console.print(&format!("\n{}", apply_text(&round)));
        } else if !self.dry_run {
            console.print("Nothing was done.\n");
        }
        note_let_go_again(room, &round, console);
        let exit = exit_of(&round, self.dry_run);
        Ok(if exit == Exit::Success && !gone.is_empty() { Exit::Partly } else { exit })
    }
}

/// Where the policies still let go of what was brought back, the next round does so again.
fn note_let_go_again(room: &Room, round: &Round, console: &Console) {
    let Some(after) = &round.after else { return };
    let next = plan(&room.policies, after, room.clock.now());
    let is_back = |id: Option<&String>| {
        round.plan.changes.iter().any(|change| change.image.id.as_ref() == id)
    };
    let again = next
        .changes
        .iter()
        .filter(|change| matches!(change.action, Action::Deprecate | Action::Delete))
        .filter(|change| is_back(change.image.id.as_ref()))
        .count();
    if again > 0 {
        let images = count(again, "image");
        console.note(&format!(
            "the policies still let go of {images}: revert the change, or the next round does it again\n"
        ));
    }
}

/// Shows what is brought back and what cannot be, and asks.
struct Told<'a> {
    shown: Shown,
    last: &'a Mutex<Option<Undo>>,
}

#[async_trait]
impl Approval for Told<'_> {
    async fn approve(&self, plan: &Plan) -> bool {
        let mut text = plan_text(plan);
        {
            let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(undo) = &*last {
                if !undo.lost.is_empty() {
                    text.push_str("\n- cannot come back\n");
                }
                for lost in &undo.lost {
                    let (source, image) = (clean(&lost.source_name), clean(&lost.image));
                    text.push_str(&format!("  {source}  {image}  {}\n", lost.why));
                }
                if undo.already > 0 {
                    let images = count(undo.already, "image");
                    text.push_str(&format!("\n{images} as they were before, left alone\n"));
                }
            }
        }
        self.shown.show(&text);
        self.shown.decide(plan).await
    }

    fn found(&self, _: &[Finding]) {}

    fn takes_time(&self) -> bool {
        self.shown.takes_time()
    }

    fn shows_only(&self) -> bool {
        self.shown.shows_only()
    }
}
