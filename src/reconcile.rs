//! One round: observe, plan, guard (with the check), apply, report.
//!
//! There is no other way through the house. `plan` the command stops before apply; whatever runs
//! for long repeats rounds. Everything is read afresh each time.

mod look;
pub(crate) mod parts;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use tracing::{Span, info_span};

use crate::agenda::next_due;
use crate::apply::{
    Applied, Hands, Lasting, Ledger, Listener, Outcome, Stop, Tempo, Underway, apply, timer,
};
use crate::clock::Clock;
use crate::elapsed::Elapsed;
use crate::engine::{self, Author, Engine, EngineError, OpenError, OpenErrors, Settled};
use crate::files;
use crate::inventory::Inventory;
use crate::plan::check::{check, refusals};
use crate::plan::guard::{Guard, Override, Refusal, guard, stale, withheld};
use crate::plan::{Change, Plan, changed_since, in_both, narrowed, of_changes, plan_after};
use crate::policy::{Finding, Policies, Risk, lint};
use crate::review::Saved;
use crate::simulate::expense::budget;
pub use parts::Images;

/// Everything a round is made of.
pub struct Room {
    /// The policies.
    pub policies: Arc<Policies>,
    /// The engines.
    pub engines: Vec<Arc<dyn Engine>>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Who makes images, as they say of themselves.
    pub author: Option<Author>,
    /// The ledger.
    pub ledger: Arc<Ledger>,
    /// What a person has said is meant.
    pub overrides: Vec<Override>,
    /// What must wait beside what the guards refuse.
    pub caution: Option<Arc<dyn Caution>>,
    /// How it works where another round follows; where it is `None`, all is waited for.
    pub recurrence: Option<Recurrence>,
}

/// How rounds work that are repeated: what takes long keeps no round from ending.
#[derive(Debug, Clone)]
pub struct Recurrence {
    /// What goes on beside rounds.
    pub underway: Underway,
    /// How long a capture, a copy or a drill may take.
    pub limit: Elapsed,
}

/// So long a round waits for what takes time at the most, if nothing else is due before.
pub const PATIENCE: Elapsed = Elapsed::minutes(5);
/// What has not answered after this time is not seen.
pub const LOOK_LIMIT: Elapsed = Elapsed::hours(1);

/// Why there is no room for rounds.
#[derive(Debug, thiserror::Error)]
pub enum RoomError {
    /// The configuration file has gone.
    #[error("cannot find {}: {source}", file.display())]
    NoBase {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Engines cannot be opened.
    #[error(transparent)]
    Engines(#[from] OpenErrors),
}

impl From<OpenError> for RoomError {
    fn from(error: OpenError) -> Self {
        Self::Engines(error.into())
    }
}

/// The directory that paths in the configuration are relative to: the one that the file itself
/// lies in, whatever links lead there.
pub fn base(policies: &Policies) -> Result<PathBuf, RoomError> {
    let file = Path::new(&policies.config.file);
    let file = file
        .canonicalize()
        .map_err(|source| RoomError::NoBase { file: file.to_owned(), source })?;
    Ok(file.parent().unwrap_or(Path::new("/")).to_owned())
}

/// What keeps changes from being carried out for now, beside the guards.
pub trait Caution: Send + Sync {
    /// What of a plan must wait, and why.
    fn refuse(&self, plan: &Plan, inventory: &Inventory, now: Timestamp) -> Vec<Refusal>;

    /// Of the images that a plan deletes those that have waited, and that no guard had refused when they
    /// began to.
    fn let_pass(&self, plan: &Plan) -> Images;
}

/// Is shown a plan and says whether it is to be carried out.
#[async_trait]
pub trait Approval: Send + Sync {
    /// Whether to go on.
    async fn approve(&self, plan: &Plan) -> bool;

    /// Is told before what the policies probably do not mean, with what there is.
    fn found(&self, findings: &[Finding]) {
        let _ = findings;
    }

    /// Whether a person decides, which takes time in which the world goes on.
    fn takes_time(&self) -> bool;

    /// Whether the plan is shown and nothing else is to happen, whatever engines have promised.
    fn shows_only(&self) -> bool {
        false
    }
}

/// What is left to be done of a saved plan.
#[derive(Debug, Clone)]
pub struct Within {
    /// What is carried out.
    pub plan: Plan,
    /// What is wanted and was not in the saved plan: it is left for the next one.
    pub new: Vec<Change>,
    /// What was in the saved plan and is not wanted any more.
    pub gone: Vec<Change>,
}

/// How a round is planned; the plan that was approved, where one was, goes in the last place.
pub type Planned<'a> = dyn Fn(&Inventory, Timestamp, Option<&Plan>) -> Plan + Sync + 'a;

/// What came of a round.
#[derive(Debug)]
pub struct Round {
    /// The plan, with what the guards refuse.
    pub plan: Plan,
    /// Whether it was to be carried out.
    pub approved: bool,
    /// What was new since the approval and therefore not done.
    pub not_approved: Vec<Change>,
    /// The engines and ids of those of them whose image has changed since: as it was, it was approved.
    pub changed: BTreeSet<(String, String)>,
    /// What came of each change.
    pub outcomes: Vec<Outcome>,
    /// That the ledger could not be written, and why: nothing was taken away without a line.
    pub unwritten: Option<String>,
    /// What was cleared away, engine by engine.
    pub settled: Vec<(String, Result<Settled, EngineError>)>,
    /// What is there now.
    pub after: Option<Inventory>,
}

impl Round {
    /// A plan of which nothing is carried out.
    fn not_carried_out(plan: Plan) -> Self {
        Self {
            plan,
            approved: false,
            not_approved: Vec::new(),
            changed: BTreeSet::new(),
            outcomes: Vec::new(),
            unwritten: None,
            settled: Vec::new(),
            after: None,
        }
    }
}

impl Room {
    /// Opens the engines and the ledger of policies.
    pub fn open(
        policies: Arc<Policies>,
        clock: Arc<dyn Clock>,
        author: Option<Author>,
        overrides: Vec<Override>,
    ) -> Result<Self, RoomError> {
        let base = base(&policies)?;
        let engines = engine::open_all(&policies.config, &base, &clock)?;
        let ledger = Arc::new(Ledger::new(files::joined(&base, &policies.config.ledger)));
        let (caution, recurrence) = (None, None);
        Ok(Self { policies, engines, clock, author, ledger, overrides, caution, recurrence })
    }

    /// Plans over an inventory and holds the plan against the guards and the check.
    pub fn plan(&self, inventory: &Inventory, now: Timestamp) -> Plan {
        self.plan_after(inventory, now, None)
    }

    fn plan_after(&self, inventory: &Inventory, now: Timestamp, approved: Option<&Plan>) -> Plan {
        let plan = plan_after(&self.policies, inventory, now, approved);
        let mut plan = guarded(plan, &self.policies, inventory, &self.overrides, now);
        let waits = self.waiting(&plan, inventory, now);
        let refused = std::mem::take(&mut plan.refusals);
        plan.refusals = self.in_parts(&plan, refused, &waits, inventory, now);
        plan.refusals.extend(waits);
        plan
    }

    fn plan_with_budget(
        &self,
        inventory: &Inventory,
        now: Timestamp,
        approved: Option<&Plan>,
    ) -> Plan {
        let mut plan = self.plan_after(inventory, now, approved);
        plan.budget = budget(&self.policies, inventory, &plan, plan.now);
        plan
    }

    fn waiting(&self, plan: &Plan, inventory: &Inventory, now: Timestamp) -> Vec<Refusal> {
        let caution = self.caution.as_ref();
        caution.map(|caution| caution.refuse(plan, inventory, now)).unwrap_or_default()
    }

    /// What is left to be done of a saved plan: what is in it and still is wanted, held against guards
    /// and check as if it were all there is. Where it may not be carried out any more, that is
    /// nothing, with the reasons as a refusal.
    pub fn plan_within(&self, saved: &Saved, inventory: &Inventory, now: Timestamp) -> Within {
        let fresh = plan_after(&self.policies, inventory, now, Some(&saved.plan));
        let outdated = saved.outdated(&self.policies, inventory, now);
        if !outdated.is_empty() {
            let mut plan = of_changes(fresh, Vec::new());
            plan.id.clone_from(&saved.plan.id);
            let message = format!("the saved plan is not carried out: {}", outdated.join("; "));
            plan.refusals = vec![whole_plan(&saved.plan, message)];
            return Within { plan, new: Vec::new(), gone: Vec::new() };
        }
        let wanted = fresh.changes.clone();
        let (mut both, new) = in_both(&saved.plan, fresh);
        let gone = in_both(&Plan { changes: wanted, ..saved.plan.clone() }, saved.plan.clone()).1;
        for change in &mut both.changes {
            keep_class(change, &saved.plan);
        }
        both = narrowed(both);
        // What was shown, signed and approved is this one.
        both.id.clone_from(&saved.plan.id);
        let plan = guarded(both, &self.policies, inventory, &self.overrides, now);
        Within { plan, new, gone }
    }

    /// One round.
    pub async fn round(
        &self,
        approval: &dyn Approval,
        listener: Arc<dyn Listener>,
        stop: &Stop,
    ) -> Round {
        let planned = |inventory: &Inventory, now, approved: Option<&Plan>| {
            self.plan_with_budget(inventory, now, approved)
        };
        self.round_of(&planned, approval, listener, stop).await
    }

    /// One round of a plan that is made in another way: what a person asked for. It must not hold both
    /// what takes time and what does not: in between, everything is looked at again for what policies
    /// want.
    #[tracing::instrument(name = "round", skip_all, fields(plan, changes))]
    pub async fn round_of(
        &self,
        planned: &Planned<'_>,
        approval: &dyn Approval,
        listener: Arc<dyn Listener>,
        stop: &Stop,
    ) -> Round {
        let inventory = self.observe().await;
        self.round_over(inventory, planned, approval, listener, stop).await
    }

    /// One round of many: `None` where it is to stop before it has seen anything. A look only reads
    /// and nothing has begun, so nothing is lost but what it has seen so far, and an engine that does
    /// not answer keeps neither a stop nor what replaces it waiting.
    #[tracing::instrument(name = "round", skip_all, fields(plan, changes))]
    pub async fn round_unless_stopped(
        &self,
        approval: &dyn Approval,
        listener: Arc<dyn Listener>,
        stop: &Stop,
    ) -> Option<Round> {
        let inventory = tokio::select! {
            biased;
            inventory = self.observe() => inventory,
            () = stop.asked() => return None,
        };
        let planned = |inventory: &Inventory, now, approved: Option<&Plan>| {
            self.plan_with_budget(inventory, now, approved)
        };
        Some(self.round_over(inventory, &planned, approval, listener, stop).await)
    }

    /// One round over what was seen.
    async fn round_over(
        &self,
        inventory: Inventory,
        planned: &Planned<'_>,
        approval: &dyn Approval,
        listener: Arc<dyn Listener>,
        stop: &Stop,
    ) -> Round {
        approval.found(&lint::in_round(&self.policies, &inventory, self.clock.now()));
        // What stands still waits for nobody's approval, and for no capture.
        let overdue = if approval.shows_only() { Vec::new() } else { self.overdue(&inventory) };
        let restarted = self.settle_each(&overdue);
        let carried = self.carry_out(inventory, planned, approval, listener, stop);
        let (mut round, _) = tokio::join!(carried, restarted);
        // What was promised holds whatever has gone wrong, and above all then.
        round.settled = if approval.shows_only() { Vec::new() } else { self.settle_all().await };
        // Where nothing was carried out, what was seen still stands.
        if !round.outcomes.is_empty() {
            round.after = Some(self.last_look(stop).await);
        }
        round
    }

    /// Plans over what was seen, asks, and carries out what is approved; what engines have promised
    /// before is no part of that.
    async fn carry_out(
        &self,
        mut inventory: Inventory,
        planned: &Planned<'_>,
        approval: &dyn Approval,
        listener: Arc<dyn Listener>,
        stop: &Stop,
    ) -> Round {
        let planned = |inventory: &Inventory, now, approved: Option<&Plan>| {
            info_span!("plan").in_scope(|| planned(inventory, now, approved))
        };
        let mut plan = planned(&inventory, self.clock.now(), None);
        let approved = approval.approve(&plan).await;
        let (mut not_approved, mut changed) = (Vec::new(), BTreeSet::new());
        if approved && approval.takes_time() && !stop.is_asked() {
            let now = self.clock.now();
            if let Some(message) = stale(&plan, &self.policies, now) {
                plan.refusals.push(whole_plan(&plan, message));
                return Round::not_carried_out(plan);
            }
            inventory = self.observe().await;
            let (both, only_fresh) = in_both(&plan, planned(&inventory, now, Some(&plan)));
            changed = changed_since(&plan, &only_fresh);
            (plan, not_approved) = (both, only_fresh);
        }
        if !approved {
            return Round::not_carried_out(plan);
        }
        Span::current().record("plan", plan.id.as_str()).record("changes", plan.changes.len());
        tracing::info!(plan = plan.id, changes = plan.changes.len(), "applying");
        let applied = apply(&plan, &self.hands(&plan, &inventory, listener, stop), self).await;
        let Applied { outcomes, unwritten } = applied;
        let (settled, after) = (Vec::new(), Some(inventory));
        Round { plan, approved, not_approved, changed, outcomes, unwritten, settled, after }
    }

    /// The engines of machines that stand still and should run again by now.
    fn overdue(&self, inventory: &Inventory) -> Vec<Arc<dyn Engine>> {
        let now = self.clock.now();
        let is_overdue = |name: &str| {
            let mut seen = inventory.engines.iter().filter(|seen| seen.name == name);
            seen.any(|seen| seen.instances.iter().any(|one| one.is_overdue(now)))
        };
        self.engines.iter().filter(|engine| is_overdue(engine.name())).cloned().collect()
    }

    /// Lets all engines put things in order. What could not be is logged by who could not.
    pub async fn settle_all(&self) -> Vec<(String, Result<Settled, EngineError>)> {
        self.settle_each(&self.engines).await
    }

    async fn settle_each(
        &self,
        engines: &[Arc<dyn Engine>],
    ) -> Vec<(String, Result<Settled, EngineError>)> {
        let mut settled = Vec::new();
        for engine in engines {
            settled.push((engine.name().to_owned(), self.settle(&**engine).await));
        }
        settled
    }

    /// Lets an engine put things in order, where rounds are repeated for as long as a capture may take.
    async fn settle(&self, engine: &dyn Engine) -> Result<Settled, EngineError> {
        let Some(Recurrence { limit, .. }) = &self.recurrence else { return engine.settle().await };
        tokio::time::timeout(timer(*limit), engine.settle()).await.unwrap_or_else(|_| {
            Err(EngineError::Failed(format!("given up: it had not ended after {limit}")))
        })
    }

    fn hands<'a>(
        &'a self,
        plan: &Plan,
        inventory: &Inventory,
        listener: Arc<dyn Listener>,
        stop: &Stop,
    ) -> Hands<'a> {
        let tempo = inventory.engines.iter();
        let tempo = tempo.map(|engine| (engine.name.clone(), Tempo::of(&engine.capabilities)));
        let withheld = owned(withheld(&plan.refusals));
        let approvals = self.overrides.iter().filter_map(|given| match given {
            Override::Approved(approval) => Some(approval.clone()),
            Override::Flag { .. } => None,
        });
        Hands {
            engines: &self.engines,
            tempo: tempo.collect(),
            approvals: approvals.collect(),
            withheld,
            ledger: Arc::clone(&self.ledger),
            clock: Arc::clone(&self.clock),
            author: self.author.clone(),
            listener,
            stop: stop.clone(),
            lasting: self.lasting(plan, inventory),
        }
    }

    /// How long is waited for what takes time: until something else is due.
    fn lasting(&self, plan: &Plan, inventory: &Inventory) -> Lasting {
        let Some(recurrence) = &self.recurrence else { return Lasting::default() };
        let instances = inventory.engines.iter().flat_map(|engine| &engine.instances);
        let due = next_due(&self.policies, instances, plan.now).map(|due| due.at);
        let due = plan.waiting.iter().map(|waiting| waiting.until).chain(due).min();
        let patience = PATIENCE.after(plan.now);
        Lasting {
            underway: recurrence.underway.clone(),
            hand_over_at: Some(due.map_or(patience, |due| due.min(patience))),
            limit: Some(recurrence.limit),
        }
    }
}

fn owned(withheld: BTreeSet<(&str, &str)>) -> BTreeSet<(String, String)> {
    withheld.into_iter().map(|(engine, image)| (engine.to_owned(), image.to_owned())).collect()
}

/// Holds a plan against the guards and the check; what they refuse is written into it.
pub fn guarded(
    mut plan: Plan,
    policies: &Policies,
    inventory: &Inventory,
    overrides: &[Override],
    now: Timestamp,
) -> Plan {
    plan.refusals = guard(&plan, inventory, policies, overrides, now);
    let violations = check(&plan, inventory, policies, now);
    plan.refusals.extend(refusals(&plan, &violations));
    plan
}

/// Which of several old images shorten the reach hangs on what else is there, and a run that was
/// stopped for an approval has made newer ones since. The class is the one that was shown; one that is
/// worse for another reason stays.
fn keep_class(change: &mut Change, saved: &Plan) {
    let is_about_reach =
        |risk: Option<Risk>| matches!(risk, Some(Risk::Rotation | Risk::ShortensReach));
    let shown = saved.changes.iter().find(|shown| {
        shown.action == change.action
            && shown.engine == change.engine
            && shown.image.id == change.image.id
    });
    if let Some(shown) = shown.filter(|shown| is_about_reach(shown.risk))
        && is_about_reach(change.risk)
    {
        change.risk = shown.risk;
    }
}

/// Refuses everything that a plan would do.
fn whole_plan(plan: &Plan, message: String) -> Refusal {
    Refusal {
        guard: Guard::Stale,
        engine: String::new(),
        message,
        images: plan.changes.iter().filter_map(|change| change.image.id.clone()).collect(),
        override_flag: None,
        classes: BTreeSet::new(),
        overridden: false,
    }
}
