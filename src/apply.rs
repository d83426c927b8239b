//! Apply: carries out a plan and decides nothing.
//!
//! In go a plan, what the guards withhold and the engines; out come outcomes, one per change.
//! Engines work side by side. What takes time and takes nothing away comes first: creates, then
//! copies, then drills, as many at once and as fast as each engine takes. Then the world is looked at again, and
//! of the rest only what is still wanted is carried out, one by one in the order of the plan, deletes
//! last. Who repeats rounds need not wait for what takes long: it goes on beside them (`Underway`). A failure is reported and the rest goes on. Every change is written to the ledger before and
//! after.

mod ledger;
mod others;
mod run;
mod underway;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tracing::Instrument;

pub use ledger::chain::{Break, Checked, check as check_chain};
pub use ledger::{Ledger, LedgerError};
use run::EngineRun;
use underway::made_by;
pub use underway::{Late, Load, Underway};

use crate::clock::Clock;
use crate::elapsed::Elapsed;
use crate::engine::{Author, Engine, Progress};
use crate::inventory::{Capabilities, Image};
use crate::plan::guard::{Approval, Refusal};
use crate::plan::{Action, Change, Overtaken, Plan};

const MINUTE: Duration = Duration::from_mins(1);

/// What came of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The position of the change in the plan.
    pub change: usize,
    /// What came of it.
    pub ending: Ending,
}

/// What came of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum Ending {
    /// It was done.
    Done {
        /// The image as it is now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        image: Option<Box<Image>>,
    },
    /// Another run had done it.
    Found {
        /// The image as it is now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        image: Option<Box<Image>>,
        /// Who has done it, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Doer>,
    },
    /// It went wrong.
    Failed {
        /// Why.
        message: String,
    },
    /// It was not tried, because what it waits for did not come about or it is too late.
    Skipped {
        /// Why.
        message: String,
    },
    /// Nothing of it is to be done any more: it was planned only for where a capture fails, or what it was
    /// planned for has changed since.
    Needless {
        /// What has come about.
        message: String,
    },
    /// A guard refused it.
    Refused,
    /// The run was interrupted before its turn came.
    Left,
    /// The run was interrupted while it was under way, and waits for it no longer. What an engine does
    /// itself is lost with it; a service may still bring it to its end. The next run takes up what
    /// is there.
    GivenUp,
    /// It goes on after the round, or waits for what does.
    UnderWay,
}

/// Who has done what another run had done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doer {
    /// The host that it ran on.
    pub host: String,
    /// Whether that is the host of this run.
    pub is_here: bool,
}

impl Ending {
    /// Whether the image now is as the plan wanted it.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Found { .. })
    }

    /// Whether nothing of it is left to be done.
    pub fn is_settled(&self) -> bool {
        self.is_done() || matches!(self, Self::Needless { .. })
    }

    /// The word in ledgers and reports.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Done { .. } => "done",
            Self::Found { .. } => "found",
            Self::Failed { .. } => "failed",
            Self::Skipped { .. } => "skipped",
            Self::Needless { .. } => "needless",
            Self::Refused => "refused",
            Self::Left => "left",
            Self::GivenUp => "given up",
            Self::UnderWay => "under way",
        }
    }

    /// What is said about it.
    pub fn message(&self) -> Option<&str> {
        match self {
            Self::Failed { message } | Self::Skipped { message } | Self::Needless { message } => {
                Some(message)
            }
            _ => None,
        }
    }
}

/// Is told what happens.
pub trait Listener: Send + Sync {
    /// A change begins.
    fn began(&self, change: usize);
    /// A change has come so far.
    fn progress(&self, change: usize, progress: Progress);
    /// Something else that people should know.
    fn note(&self, _text: &str) {}
    /// A change has ended.
    fn ended(&self, change: usize, ending: &Ending);
}

/// Asks a run to stop: first nothing new is begun, then what is under way is given up.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<Asked>);

#[derive(Debug, Default)]
struct Asked {
    how: AtomicU8,
    told: Notify,
}

impl Stop {
    /// Asks once more.
    pub fn ask(&self) {
        self.0.how.fetch_add(1, Ordering::SeqCst);
        self.0.told.notify_waiters();
    }

    /// Asks to begin nothing new, however often that was asked.
    pub fn finish(&self) {
        self.0.how.fetch_max(1, Ordering::SeqCst);
        self.0.told.notify_waiters();
    }

    /// Asks to give up what is under way.
    pub fn give_up(&self) {
        self.0.how.fetch_max(2, Ordering::SeqCst);
        self.0.told.notify_waiters();
    }

    /// Whether nothing new is begun.
    pub fn is_asked(&self) -> bool {
        self.0.how.load(Ordering::SeqCst) > 0
    }

    /// Whether what is under way is given up.
    pub fn is_urgent(&self) -> bool {
        self.0.how.load(Ordering::SeqCst) > 1
    }

    /// Waits until it is asked to begin nothing new.
    pub async fn asked(&self) {
        self.until(Self::is_asked).await;
    }

    /// Waits until it is asked to give up what is under way.
    pub async fn given_up(&self) {
        self.until(Self::is_urgent).await;
    }

    async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        loop {
            let mut told = std::pin::pin!(self.0.told.notified());
            told.as_mut().enable();
            if is_so(self) {
                return;
            }
            told.await;
        }
    }
}

/// A length of time as a timer takes it.
pub fn timer(length: Elapsed) -> Duration {
    Duration::from_secs(length.as_seconds().unsigned_abs())
}

/// How long a run waits for what takes time.
#[derive(Debug, Clone, Default)]
pub struct Lasting {
    /// What goes on beside rounds.
    pub underway: Underway,
    /// When the rest goes on without what has not ended by then; where it is `None`, all is waited for.
    pub hand_over_at: Option<Timestamp>,
    /// What has not ended after this time is given up.
    pub limit: Option<Elapsed>,
}

/// How fast an engine takes captures, copies and drills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tempo {
    /// So many run at once; none is one.
    pub places: usize,
    /// So much time lies between two that begin.
    pub interval: Duration,
    /// So many captures of one source run at once; `None` is as many as there are.
    pub of_source: Option<usize>,
}

impl Tempo {
    /// One after the other.
    const SINGLE: Self = Self { places: 1, interval: Duration::ZERO, of_source: None };

    /// What an engine says of itself.
    pub fn of(capabilities: &Capabilities) -> Self {
        let rate =
            capabilities.limits.captures_per_minute.and_then(|rate| u32::try_from(rate).ok());
        let interval = rate.and_then(|rate| MINUTE.checked_div(rate)).unwrap_or_default();
        let of_source = capabilities.limits.source_captures;
        let of_source = of_source.map(|most| usize::try_from(most).unwrap_or(usize::MAX));
        Self { places: capabilities.captures_max, interval, of_source }
    }
}

/// What carrying out needs beside the plan.
pub struct Hands<'a> {
    /// The engines.
    pub engines: &'a [Arc<dyn Engine>],
    /// How fast each engine takes captures.
    pub tempo: BTreeMap<String, Tempo>,
    /// What a person has approved.
    pub approvals: Vec<Approval>,
    /// Images that nothing may be taken from, by engine and id.
    pub withheld: BTreeSet<(String, String)>,
    /// The ledger.
    pub ledger: Arc<Ledger>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Who makes images.
    pub author: Option<Author>,
    /// Is told what happens.
    pub listener: Arc<dyn Listener>,
    /// Asks to stop.
    pub stop: Stop,
    /// How long it waits for what takes time.
    pub lasting: Lasting,
}

/// Looks again once captures have taken their time.
#[async_trait]
pub trait SecondLook: Send + Sync {
    /// Which of these changes are still wanted, and what is refused.
    async fn look(&self, plan: &Plan) -> Confirmed;
}

/// What a second look has confirmed.
#[derive(Debug, Clone, Default)]
pub struct Confirmed {
    /// The positions of the changes that a fresh plan has too.
    pub changes: BTreeSet<usize>,
    /// The positions of those of which nothing is left to do.
    pub overtaken: BTreeMap<usize, Overtaken>,
    /// Images that nothing may be taken from, by engine and id.
    pub withheld: BTreeSet<(String, String)>,
    /// What keeps that from happening.
    pub refusals: Vec<Refusal>,
}

/// What came of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// The outcomes, in the order of the changes.
    pub outcomes: Vec<Outcome>,
    /// That the ledger could not be written, and why: nothing was taken away without a line.
    pub unwritten: Option<String>,
}

/// Carries out a plan. Where the ledger cannot be written nothing is taken away; that there is no
/// room for a line costs no restore point.
#[tracing::instrument(name = "apply", skip_all)]
pub async fn apply(plan: &Plan, hands: &Hands<'_>, second: &dyn SecondLook) -> Applied {
    let began = hands.ledger.round_began(plan, &hands.approvals, hands.clock.now());
    let fault = began.err().map(|error| error.to_string());
    let mut outcomes: Vec<Outcome> = Vec::new();
    for action in LONG {
        let made = made_so_far(plan, &outcomes);
        let takes = |change: &Change| change.action == action;
        outcomes.extend(run_engines(plan, hands, takes, (&made, None), fault.as_ref()).await);
    }
    let rest = |change: &Change| !LONG.contains(&change.action);
    // That may have taken hours: what follows is held against the world as it is then.
    let looks = plan.changes.iter().any(rest) && !outcomes.is_empty() && !hands.stop.is_asked();
    let confirmed = if looks { Some(look_again(plan, hands, second).await) } else { None };
    tell_refused(plan, hands, confirmed.as_ref());
    let made = made_so_far(plan, &outcomes);
    let known = (&made, confirmed.as_ref());
    outcomes.extend(run_engines(plan, hands, rest, known, fault.as_ref()).await);
    for change in 0..plan.changes.len() {
        if !outcomes.iter().any(|outcome| outcome.change == change) {
            outcomes.push(Outcome { change, ending: Ending::Left });
        }
    }
    outcomes.sort_by_key(|outcome| outcome.change);
    let ended = hands.ledger.round_ended(plan, &outcomes, hands.clock.now());
    let unwritten = fault.or_else(|| ended.err().map(|error| error.to_string()));
    let means = "images are made all the same, and nothing is taken away without a line";
    let note = |why| format!("the ledger cannot be written, {means}: {why}");
    Applied { outcomes, unwritten: unwritten.map(note) }
}

/// What a second look confirms. Where it is asked to stop meanwhile that is nothing, and nothing else
/// begins: an engine that does not answer is not waited for.
async fn look_again(plan: &Plan, hands: &Hands<'_>, second: &dyn SecondLook) -> Confirmed {
    tokio::select! {
        biased;
        confirmed = second.look(plan) => confirmed,
        () = hands.stop.asked() => Confirmed::default(),
    }
}

/// What takes time, one after the other. Copies and drills are bound to what their image is in the
/// plan, so nothing else changes it before them.
const LONG: [Action; 3] = [Action::Create, Action::Copy, Action::Drill];

/// Images that have become READY, by engine and name.
type Made = BTreeMap<(String, String), Image>;

/// What has come of what takes time.
#[derive(Default)]
struct SoFar {
    images: Made,
    /// What is left to what is under way, by engine and name: that may have ended by now.
    postponed: BTreeSet<(String, String)>,
}

fn made_so_far(plan: &Plan, outcomes: &[Outcome]) -> SoFar {
    let mut so_far = SoFar::default();
    for outcome in outcomes {
        let change = &plan.changes[outcome.change];
        let engine = change.engine.clone();
        match &outcome.ending {
            Ending::Done { image: Some(image) } | Ending::Found { image: Some(image), .. } => {
                so_far.images.insert((engine, image.name.clone()), Image::clone(image));
            }
            Ending::UnderWay => drop(so_far.postponed.insert((engine, made_by(change).clone()))),
            _ => {}
        }
    }
    so_far
}

/// Carries out some of the changes, the engines side by side: with what was made so far and what a
/// second look has confirmed, and why the round is not in the ledger, if it is not.
async fn run_engines(
    plan: &Plan,
    hands: &Hands<'_>,
    takes: impl Fn(&Change) -> bool,
    (made, confirmed): (&SoFar, Option<&Confirmed>),
    unwritten: Option<&String>,
) -> Vec<Outcome> {
    let mut by_engine: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, change) in plan.changes.iter().enumerate().filter(|(_, change)| takes(change)) {
        by_engine.entry(&change.engine).or_default().push(index);
    }
    let mut runs = JoinSet::new();
    for (name, indexes) in by_engine {
        let changes: Vec<(usize, Change)> =
            indexes.into_iter().map(|index| (index, plan.changes[index].clone())).collect();
        let run = EngineRun {
            plan: plan.id.clone(),
            engine: hands.engines.iter().find(|engine| engine.name() == name).cloned(),
            lane: hands
                .lasting
                .underway
                .lane(name, hands.tempo.get(name).copied().unwrap_or(Tempo::SINGLE)),
            lasting: hands.lasting.clone(),
            withheld: hands
                .withheld
                .iter()
                .chain(confirmed.iter().flat_map(|confirmed| &confirmed.withheld))
                .cloned()
                .collect(),
            confirmed: confirmed.map(|confirmed| confirmed.changes.clone()),
            overtaken: confirmed.map(|confirmed| confirmed.overtaken.clone()).unwrap_or_default(),
            made: made.images.clone(),
            postponed: made.postponed.clone(),
            ledger: Arc::clone(&hands.ledger),
            unwritten: unwritten.cloned(),
            clock: Arc::clone(&hands.clock),
            author: hands.author.clone(),
            listener: Arc::clone(&hands.listener),
            stop: hands.stop.clone(),
            is_stuck: AtomicBool::new(false),
            looks: AtomicUsize::new(0),
        };
        runs.spawn(Arc::new(run).run(changes).in_current_span());
    }
    let mut outcomes = Vec::new();
    while let Some(finished) = runs.join_next().await {
        // A run that panicked has told its listener nothing; its changes count as left.
        outcomes.extend(finished.unwrap_or_default());
    }
    outcomes
}

/// Says what the second look has refused, beside what was refused before.
fn tell_refused(plan: &Plan, hands: &Hands<'_>, confirmed: Option<&Confirmed>) {
    for refusal in confirmed.iter().flat_map(|confirmed| &confirmed.refusals) {
        let is_it =
            |known: &Refusal| (known.guard, &known.engine) == (refusal.guard, &refusal.engine);
        if !refusal.overridden && !plan.refusals.iter().any(is_it) {
            let text = format!("refused by {}: {}", refusal.guard.word(), refusal.message);
            hands.listener.note(&text);
        }
    }
}
