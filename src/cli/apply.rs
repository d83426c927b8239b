//! `stillframe apply`

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::bail;
use async_trait::async_trait;
use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::progress::{Bars, Lines, show_keys};
use super::{Console, Exit, Global, parse_instant, saved, setup};
use crate::apply::{Ending, Listener, Stop};
use crate::engine::{EngineError, Settled};
use crate::inventory::Inventory;
use crate::plan::guard::{Override, refuses, unused};
use crate::plan::{Plan, changed_since};
use crate::policy::Finding;
use crate::reconcile::{Approval, Room, Round, Within};
use crate::report::{
    apply_text, clean, findings, plan_text, protection, protection_text, settled_text,
};

use crate::review::Saved;

/// Plan, ask, carry out.
#[derive(Debug, Args)]
pub struct Apply {
    /// Carry out what is in this saved plan and still is wanted, and nothing else
    plan: Option<PathBuf>,
    /// An approval, beside those that lie with the saved plan
    #[arg(long = "approval", value_name = "FILE")]
    approvals: Vec<PathBuf>,
    #[command(flatten)]
    signed: saved::Signed,
    /// Do not ask
    #[arg(long)]
    auto_approve: bool,
    /// Show the plan and stop
    #[arg(long)]
    dry_run: bool,
    /// Print plan, outcomes and what is protected as JSON
    #[arg(long)]
    json: bool,
    /// As if it were this instant; only with --dry-run, or where every engine is for trials
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    now: Option<Timestamp>,
    /// Say that something a guard refuses is meant; the plan prints the value
    #[arg(long = "override", value_name = "GUARD=PLAN:COUNT", value_parser = Override::parse)]
    overrides: Vec<Override>,
}

impl Apply {
    pub(super) async fn run(&self, global: &Global, console: &Console) -> anyhow::Result<Exit> {
        let asks = !self.auto_approve && !self.dry_run;
        if asks && !console.is_interactive() {
            self.keep_promises(global, console).await;
            bail!("nobody can be asked here; add --auto-approve, or --dry-run to only look");
        }
        if asks && self.json {
            bail!(
                "--json goes with --auto-approve or --dry-run: a question would stand in the document"
            );
        }
        let signers = self.signed.signers()?;
        let saved = self.plan.as_deref().map(|file| saved::load(file, signers.as_ref()));
        let saved = saved.transpose()?.map(|(saved, _)| saved);
        let approvals = saved::approvals(self.plan.as_deref(), &self.approvals, signers.as_ref())?;
        let mut overrides = self.overrides.clone();
        overrides.extend(approvals.into_iter().map(Override::Approved));
        let room = match setup::room(global, console, self.json, self.now, overrides.clone()) {
            Ok(room) => room,
            Err(early) => return early.exit(),
        };
        setup::refuse_false_times(&room, self.now, self.dry_run)?;
        let stop = Stop::default();
        let listener = Arc::new(LateListener::new(*console));
        listen_for_interrupts(Arc::clone(&listener), stop.clone());
        let approval = Shown {
            console: *console,
            json: self.json,
            answer: if self.dry_run { Some(false) } else { self.auto_approve.then_some(true) },
            overrides,
            listener: Arc::clone(&listener),
        };
        let round = match &saved {
            None => room.round(&approval, listener, &stop).await,
            Some(saved) => within(&room, saved, &approval, listener, &stop, console).await?,
        };
        self.report(&room, &round, console)?;
        let exit = exit_of(&round, self.dry_run);
        Ok(setup::with_exemptions(exit, &room.policies, round.plan.now, console))
    }

    /// What engines have promised holds also where nobody approves anything.
    async fn keep_promises(&self, global: &Global, console: &Console) {
        // What is in the way of opening them is told by a run that can be carried out.
        let Ok(room) = setup::room(global, console, self.json, None, Vec::new()) else { return };
        console.note(&settled_text(&room.settle_all().await));
    }

    fn report(&self, room: &Room, round: &Round, console: &Console) -> anyhow::Result<()> {
        let now = room.clock.now();
        let protections = round.after.as_ref().map(|after| protection(&room.policies, after, now));
        if self.json {
            let settled: Vec<_> = round
                .settled
                .iter()
                .map(|(engine, settled)| match settled {
                    Ok(settled) => json!({"engine": engine, "settled": settled}),
                    Err(error) => json!({"engine": engine, "error": error.to_string()}),
                })
                .collect();
            if let Some(note) = &round.unwritten {
                console.error(note);
            }
            return console.json(&json!({
                "format_version": "1.0",
                "plan": round.plan,
                "approved": round.approved,
                "outcomes": round.outcomes,
                "not_approved": round.not_approved,
                "settled": settled,
                "protected": protections,
            }));
        }
        if !round.approved {
            for refusal in round.plan.refusals.iter().filter(|refusal| refusal.engine.is_empty()) {
                console.error(&refusal.message);
            }
            if !self.dry_run {
                console.print(&format!("Nothing was done.\n{}", settled_text(&round.settled)));
            }
            return Ok(());
        }
        for refusal in round.plan.refusals.iter().filter(|refusal| refusal.engine.is_empty()) {
            console.error(&refusal.message);
        }
        console.print(&format!("\n{}", apply_text(round)));
        if let Some(protections) = protections.filter(|protections| !protections.is_empty()) {
            console.print(&format!("\nProtected now\n{}", protection_text(&protections, now)));
        }
        Ok(())
    }
}

/// A round of what is in a saved plan.
async fn within(
    room: &Room,
    saved: &Saved,
    approval: &Shown,
    listener: Arc<LateListener>,
    stop: &Stop,
    console: &Console,
) -> anyhow::Result<Round> {
    let last: Mutex<Option<Within>> = Mutex::new(None);
    let planned = |inventory: &Inventory, now: Timestamp, _: Option<&Plan>| {
        let within = room.plan_within(saved, inventory, now);
        let plan = within.plan.clone();
        *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(within);
        plan
    };
    let mut round = room.round_of(&planned, approval, listener, stop).await;
    let within = last.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(within) = within {
        let changed = changed_since(&saved.plan, &within.new);
        for change in &within.gone {
            let id = change.image.id.clone().unwrap_or_default();
            // What is still wanted of it is said with what was not approved.
            if changed.contains(&(change.engine.clone(), id)) {
                continue;
            }
            console.note(&format!(
                "not wanted any more: {} {}\n",
                change.action.word(),
                clean(&change.image.name)
            ));
        }
        round.changed.extend(changed);
        round.not_approved.extend(within.new);
    }
    Ok(round)
}

/// Whether a machine should run and does not.
fn has_overdue(settled: &[(String, Result<Settled, EngineError>)]) -> bool {
    settled.iter().flat_map(|(_, settled)| settled).any(|one| one.overdue().next().is_some())
}

/// How a round ends the run.
pub(super) fn exit_of(round: &Round, dry_run: bool) -> Exit {
    // Also what was refused only when everything was looked at again.
    let refused = refuses(&round.plan.refusals)
        || round.outcomes.iter().any(|outcome| outcome.ending == Ending::Refused);
    if !round.approved {
        return match (dry_run, refused) {
            (_, true) => Exit::Refused,
            (true, false) => Exit::Success,
            (false, false) => Exit::Failed,
        };
    }
    let done = round.outcomes.iter().any(|outcome| outcome.ending.is_done());
    let failed = round.outcomes.iter().any(|outcome| {
        matches!(
            outcome.ending,
            Ending::Failed { .. } | Ending::Skipped { .. } | Ending::Left | Ending::GivenUp
        )
    }) || !round.plan.blocked.is_empty()
        || round.unwritten.is_some()
        || has_overdue(&round.settled);
    let unseen = round.plan.engines.iter().any(|engine| !engine.complete);
    let unsettled = round.settled.iter().any(|(_, settled)| settled.is_err());
    if failed && !done && !refused {
        return Exit::Failed;
    }
    if failed || unsettled || (unseen && done) {
        Exit::Partly
    } else if refused {
        Exit::Refused
    } else if unseen {
        Exit::Failed
    } else if !round.plan.waiting.is_empty() {
        Exit::Partly
    } else {
        Exit::Success
    }
}

/// The first Ctrl-C lets what is under way finish, the second gives it up.
pub(super) fn listen_for_interrupts(listener: Arc<LateListener>, stop: Stop) {
    tokio::spawn(async move {
        while wait_for_interrupt().await {
            if stop.is_urgent() {
                // Something does not come back. What a killed run leaves is nothing that counts.
                listener.note("ended at once");
                show_keys();
                std::process::exit(Exit::Partly as i32);
            }
            stop.ask();
            let text = if stop.is_urgent() {
                "giving up what is under way; press Ctrl-C again to end at once"
            } else {
                "finishing what is under way; press Ctrl-C again to give it up"
            };
            listener.note(text);
        }
    });
}

/// Ctrl-C, or a polite request to end.
pub(super) async fn wait_for_interrupt() -> bool {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return tokio::signal::ctrl_c().await.is_ok();
    };
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.is_ok(),
        terminated = terminate.recv() => terminated.is_some(),
    }
}

/// Shows the plan, and asks where nothing was said beforehand.
pub(super) struct Shown {
    pub(super) console: Console,
    pub(super) json: bool,
    pub(super) answer: Option<bool>,
    pub(super) overrides: Vec<Override>,
    pub(super) listener: Arc<LateListener>,
}

impl Shown {
    /// Shows what is decided about.
    pub(super) fn show(&self, text: &str) {
        if self.json {
            return;
        }
        self.console.print(text);
        if self.answer.is_none() && !self.console.prints_to_terminal() {
            // Who is asked must see what about.
            self.console.note(text);
        }
    }

    /// Asks, where nothing was said beforehand.
    pub(super) async fn decide(&self, plan: &Plan) -> bool {
        for text in unused(plan, &self.overrides) {
            self.console.note(&format!("{text}\n"));
        }
        let answer = match self.answer {
            Some(answer) => answer,
            // There is nothing to ask about.
            None if plan.changes.is_empty() => true,
            None => ask(plan).await,
        };
        let listener: Arc<dyn Listener> = if self.console.shows_progress() {
            Arc::new(Bars::new(plan))
        } else {
            Arc::new(Lines::new(self.console, plan))
        };
        self.listener.set(listener);
        answer
    }
}

#[async_trait]
impl Approval for Shown {
    async fn approve(&self, plan: &Plan) -> bool {
        self.show(&plan_text(plan));
        self.decide(plan).await
    }

    fn found(&self, found: &[Finding]) {
        if !found.is_empty() {
            self.console.note(&findings::text(found));
        }
    }

    fn takes_time(&self) -> bool {
        self.answer.is_none()
    }

    fn shows_only(&self) -> bool {
        self.answer == Some(false)
    }
}

async fn ask(plan: &Plan) -> bool {
    let deletes = plan.summary.delete;
    let question = if deletes > 0 {
        format!(
            "Carry out this plan? It deletes {deletes} image{}",
            if deletes == 1 { "" } else { "s" }
        )
    } else {
        "Carry out this plan?".to_owned()
    };
    let asked = tokio::task::spawn_blocking(move || {
        dialoguer::Confirm::new()
            .with_prompt(question)
            .default(false)
            .wait_for_newline(true)
            .interact()
    });
    matches!(asked.await, Ok(Ok(true)))
}

/// Stands for a listener that is known only when the plan is.
pub(super) struct LateListener {
    console: Console,
    listener: std::sync::OnceLock<Arc<dyn Listener>>,
}

impl LateListener {
    pub(super) fn new(console: Console) -> Self {
        Self { console, listener: std::sync::OnceLock::new() }
    }

    fn set(&self, listener: Arc<dyn Listener>) {
        let _ = self.listener.set(listener);
    }
}

impl Listener for LateListener {
    fn began(&self, change: usize) {
        if let Some(listener) = self.listener.get() {
            listener.began(change);
        }
    }

    fn progress(&self, change: usize, progress: crate::engine::Progress) {
        if let Some(listener) = self.listener.get() {
            listener.progress(change, progress);
        }
    }

    fn note(&self, text: &str) {
        match self.listener.get() {
            Some(listener) => listener.note(text),
            None => self.console.note(&format!("{text}\n")),
        }
    }

    fn ended(&self, change: usize, ending: &Ending) {
        if let Some(listener) = self.listener.get() {
            listener.ended(change, ending);
        }
    }
}
