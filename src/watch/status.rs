//! What is seen from outside: one snapshot, which rounds and readings write and endpoints read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::notify::{Notices, Tally};
use super::round::finding_text;
use super::{EngineFacts, Reading};
use crate::agenda::{Circuit, Health, Told};
use crate::alert::Tried;
use crate::apply::{Ending, Late, Load, Underway};
use crate::engine::Calls;
use crate::name::{PolicyName, Slot, SourceId};
use crate::plan::Action;
use crate::policy::{Finding, Policies};
use crate::report::overview::{EngineOverview, PolicyRow, ROUNDS_MAX, RoundRow, policy_rows};

/// Without a turn of the loop for this time, something holds it up.
const BEAT_MAX: Duration = Duration::from_mins(5);

/// What the process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// It has not begun or is about to end.
    #[default]
    Idle,
    /// Another one holds the lease.
    Standby,
    /// It begins rounds.
    Running,
}

/// How it stands with what is written in the files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Validity {
    /// Whether the files hold what is in force.
    pub is_valid: bool,
    /// When they were read last.
    pub read_at: Option<Timestamp>,
    /// The mistakes in them, each in a line.
    pub mistakes: Vec<String>,
    /// How often they were valid when they were read, and how often not.
    pub readings: (u64, u64),
}

/// A policy that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFacts {
    /// Its name.
    pub name: PolicyName,
    /// Its engine.
    pub engine: String,
    /// Its recovery point objective, in seconds.
    pub rpo_seconds: Option<i64>,
    /// Whether somebody has paused it, and until when; the instant is `None` where that has no end.
    pub paused: Option<Option<Timestamp>>,
}

/// An engine, as far as it is known.
#[derive(Debug, Clone, Default)]
pub struct EngineStatus {
    /// How it was seen at the end of its last round.
    pub facts: Option<Arc<EngineFacts>>,
    /// Whether rounds begin.
    pub is_open: bool,
    /// When it is tried again after a failure.
    pub retry_at: Option<Timestamp>,
    /// How many rounds there were, by how they went.
    pub rounds: BTreeMap<&'static str, u64>,
    /// How many actions there were, by what came of them.
    pub actions: BTreeMap<(Action, &'static str), u64>,
    /// How many slots were missed, by policy and source.
    pub missed: BTreeMap<(PolicyName, SourceId), u64>,
    /// Those that were counted last: since which slot, and how many.
    counted: BTreeMap<(PolicyName, SourceId), (Slot, u64)>,
    /// What was asked of its service.
    pub calls: Option<Calls>,
    /// Since when a round is under way.
    pub round_since: Option<Timestamp>,
    /// What goes on beside its rounds.
    pub load: Load,
    /// What the page says of it, where there is one.
    pub overview: Option<Arc<EngineOverview>>,
    /// Its last rounds, the newest first.
    pub history: VecDeque<RoundRow>,
}

/// Everything that is seen from outside.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// What the process does.
    pub role: Role,
    /// How it stands with the files.
    pub validity: Validity,
    /// Since when they are being read, and what they name opened; what did not return counts from
    /// when it began.
    pub reading_since: Option<Timestamp>,
    /// The digest of what is in force.
    pub digest: String,
    /// Since when that is in force.
    pub since: Option<Timestamp>,
    /// The name of the configuration.
    pub name: String,
    /// The policies in force.
    pub policies: Arc<Vec<PolicyFacts>>,
    /// The same as the page shows them, where there is one.
    pub policy_rows: Arc<Vec<PolicyRow>>,
    /// Changes with everything that the page shows.
    pub page_version: u64,
    /// The engines by name.
    pub engines: BTreeMap<String, EngineStatus>,
    /// What became of messages and pings.
    pub tally: Tally,
}

/// The snapshot, shared.
#[derive(Debug, Default)]
pub struct Status {
    snapshot: Mutex<Snapshot>,
    beat: Mutex<Option<Instant>>,
    told: Mutex<BTreeMap<String, Told<String>>>,
    changed: Notify,
    /// Whether somebody may ask for the page.
    has_page: AtomicBool,
    /// What people are told.
    pub(super) notices: Notices,
}

impl Status {
    /// Everything as it is now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { tally: self.notices.tally(), ..self.lock().clone() }
    }

    /// Somebody may ask for the page: what it shows is kept from now on.
    pub fn keep_page(&self) {
        self.has_page.store(true, Ordering::SeqCst);
    }

    /// Tells this process from the one before it.
    pub(super) fn started(&self) -> i64 {
        self.lock().since.map_or(0, Timestamp::as_second)
    }

    /// Whether what the page shows is kept.
    pub(super) fn has_page(&self) -> bool {
        self.has_page.load(Ordering::SeqCst)
    }

    /// What the page has said of an engine.
    pub(super) fn overview_of(&self, engine: &str) -> Option<Arc<EngineOverview>> {
        self.lock().engines.get(engine)?.overview.clone()
    }

    /// What the page says of an engine.
    pub(super) fn overview(&self, engine: &str, overview: EngineOverview) {
        self.change(|snapshot| {
            snapshot.page_version += 1;
            if let Some(status) = snapshot.engines.get_mut(engine) {
                status.overview = Some(Arc::new(overview));
            }
        });
    }

    /// What is known of a round that has ended.
    pub(super) fn round_row(&self, engine: &str, row: RoundRow) {
        self.change(|snapshot| {
            snapshot.page_version += 1;
            if let Some(status) = snapshot.engines.get_mut(engine) {
                status.history.push_front(row);
                status.history.truncate(ROUNDS_MAX);
            }
        });
    }

    /// Waits until something is so.
    pub async fn until(&self, is_so: impl Fn(&Snapshot) -> bool) {
        loop {
            let changed = self.changed.notified();
            if is_so(&self.lock()) {
                return;
            }
            changed.await;
        }
    }

    /// Whether the loop still turns.
    pub fn is_alive(&self) -> bool {
        let beat = *self.beat.lock().unwrap_or_else(PoisonError::into_inner);
        beat.is_none_or(|beat| beat.elapsed() < BEAT_MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Snapshot> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the snapshot, and tells who waits for that.
    fn change(&self, change: impl FnOnce(&mut Snapshot)) {
        change(&mut self.lock());
        self.changed.notify_waiters();
    }

    pub(super) fn beat(&self) {
        *self.beat.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    pub(super) fn is_running(&self, is_running: bool) {
        self.role(if is_running { Role::Running } else { Role::Idle });
    }

    /// What the process does now.
    pub fn role(&self, role: Role) {
        self.change(|snapshot| snapshot.role = role);
    }

    /// What is new of what holds, and what has ended, of a kind of message.
    pub(super) fn told(&self, kind: &str, holds: BTreeSet<String>) -> (Vec<String>, Vec<String>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.entry(kind.to_owned()).or_default().now(holds)
    }

    /// The same of what is said in words that change while it goes on.
    pub(super) fn said(
        &self,
        kind: &str,
        holds: BTreeMap<String, String>,
    ) -> (Vec<String>, Vec<String>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.entry(kind.to_owned()).or_default().said(holds)
    }

    /// A reading of the files begins.
    pub(super) fn reading_began(&self, now: Timestamp) {
        self.change(|snapshot| {
            snapshot.reading_since.get_or_insert(now);
        });
    }

    /// One has returned.
    pub(super) fn reading_ended(&self) {
        self.change(|snapshot| snapshot.reading_since = None);
    }

    /// The files were read. What they hold is valid once it could be put in force.
    pub(super) fn read(&self, reading: &Reading, has_policies: bool, now: Timestamp) {
        let is_error = |finding: &&Finding| finding.is_error();
        let mistakes: Vec<String> =
            reading.findings.iter().filter(is_error).map(finding_text).collect();
        let warnings = reading.findings.iter().filter(|finding| !finding.is_error());
        let (new, _) = self.told("warnings", warnings.map(finding_text).collect());
        for text in new {
            tracing::warn!("{text}");
        }
        if !has_policies {
            self.invalid(mistakes, now);
        }
    }

    /// What was read cannot be put in force.
    pub(super) fn refused(&self, message: &str, now: Timestamp) {
        self.invalid(vec![message.to_owned()], now);
    }

    /// What was read is in force.
    pub(super) fn accepted(&self, now: Timestamp) {
        self.notices.policies(&[], now);
        let (_, over) = self.told("policies", BTreeSet::new());
        self.change(|snapshot| {
            snapshot.page_version += u64::from(!snapshot.validity.is_valid);
            let validity = &mut snapshot.validity;
            validity.is_valid = true;
            validity.read_at = Some(now);
            validity.mistakes.clear();
            validity.readings.0 += 1;
        });
        if !over.is_empty() {
            tracing::info!("the policies are valid again");
        }
    }

    fn invalid(&self, mistakes: Vec<String>, now: Timestamp) {
        self.notices.policies(&mistakes, now);
        let (new, _) = self.told("policies", mistakes.iter().cloned().collect());
        self.change(|snapshot| {
            snapshot.page_version += u64::from(snapshot.validity.mistakes != mistakes);
            let validity = &mut snapshot.validity;
            validity.is_valid = false;
            validity.read_at = Some(now);
            validity.mistakes = mistakes;
            validity.readings.1 += 1;
        });
        for text in &new {
            tracing::error!("invalid policy: {text}");
        }
        if !new.is_empty() && self.lock().since.is_some() {
            tracing::error!("what was in force stays in force until the files are valid");
        }
    }

    /// These are in force.
    pub(super) fn in_force(&self, policies: &Policies, now: Timestamp) {
        let facts = policies.policies.iter().map(|policy| PolicyFacts {
            name: policy.name.clone(),
            engine: policy.engine.clone(),
            rpo_seconds: policy.rpo.map(crate::elapsed::Elapsed::as_seconds),
            paused: policy.paused.as_ref().map(|pause| pause.until),
        });
        let facts: Vec<PolicyFacts> = facts.collect();
        let count = facts.len();
        let rows = if self.has_page() { policy_rows(policies, now) } else { Vec::new() };
        self.notices.engines(&policies.config.engines.keys().cloned().collect());
        self.change(|snapshot| {
            snapshot.digest.clone_from(&policies.digest);
            snapshot.since = Some(now);
            snapshot.policies = Arc::new(facts);
            snapshot.name = policies.config.name.clone().unwrap_or_default();
            snapshot.page_version += 1;
            snapshot.policy_rows = Arc::new(rows);
            snapshot.engines.retain(|name, _| policies.config.engines.contains_key(name));
            for name in policies.config.engines.keys() {
                snapshot.engines.entry(name.clone()).or_default();
            }
        });
        tracing::info!(
            policies = count,
            engines = policies.config.engines.len(),
            digest = policies.digest.get(..12).unwrap_or_default(),
            "in force"
        );
    }

    /// What is known of an engine from rounds before.
    pub(super) fn known(&self, engine: &str) -> Option<Arc<EngineFacts>> {
        self.lock().engines.get(engine)?.facts.clone()
    }

    /// What a round has seen and done.
    pub(super) fn facts(&self, engine: &str, facts: EngineFacts) {
        self.change(|snapshot| {
            let policies = Arc::clone(&snapshot.policies);
            let is_in_force = |name: &PolicyName| policies.iter().any(|one| one.name == *name);
            if let Some(status) = snapshot.engines.get_mut(engine) {
                status.take_in(facts, is_in_force);
            }
        });
    }

    /// A round begins.
    pub(super) fn round_began(&self, engine: &str, now: Timestamp) {
        self.change(|snapshot| {
            if let Some(status) = snapshot.engines.get_mut(engine) {
                status.round_since = Some(now);
            }
        });
    }

    /// So much goes on beside rounds.
    pub(super) fn loads(&self, underway: &Underway) {
        self.change(|snapshot| {
            for (engine, status) in &mut snapshot.engines {
                status.load = underway.load(engine);
            }
        });
    }

    /// Something has ended beside rounds.
    pub(super) fn ended_late(&self, late: &Late, now: Timestamp) {
        let failure = match &late.ending {
            Ending::Failed { message } => Some(message.clone()),
            _ => None,
        };
        if failure.is_some() || late.ending.is_done() {
            let tried = Tried {
                action: late.action,
                policy: late.key.policy.clone(),
                source: late.key.source.clone(),
                source_name: late.source_name.clone(),
                slot: late.key.slot,
                failure,
            };
            self.notices.ended(&late.engine, &tried, now);
        }
        self.change(|snapshot| {
            let Some(status) = snapshot.engines.get_mut(&late.engine) else { return };
            *status.actions.entry((late.action, late.ending.word())).or_default() += 1;
        });
    }

    /// A round has ended; back comes when it began.
    pub(super) fn round_ended(
        &self,
        engine: &str,
        health: Health,
        circuit: Circuit,
        retry_at: Option<Timestamp>,
    ) -> Option<Timestamp> {
        let mut began = None;
        self.change(|snapshot| {
            let Some(status) = snapshot.engines.get_mut(engine) else { return };
            *status.rounds.entry(health.word()).or_default() += 1;
            status.is_open = circuit == Circuit::Open;
            status.retry_at = retry_at;
            began = status.round_since.take();
        });
        began
    }

    /// A round was broken off before anything was seen: that is no round.
    pub(super) fn round_broken_off(&self, engine: &str) {
        self.change(|snapshot| {
            if let Some(status) = snapshot.engines.get_mut(engine) {
                status.round_since = None;
            }
        });
    }

    pub(super) fn calls(&self, engine: &str, calls: Option<Calls>) {
        self.change(|snapshot| {
            if let Some(status) = snapshot.engines.get_mut(engine) {
                status.calls = calls;
            }
        });
    }
}

impl EngineStatus {
    /// What a round has seen; the policies that are not in force any more have no sources.
    fn take_in(&mut self, facts: EngineFacts, is_in_force: impl Fn(&PolicyName) -> bool) {
        for (what, count) in &facts.round.results {
            *self.actions.entry(*what).or_default() += count;
        }
        self.count_missed(&facts);
        let facts = match self.facts.take() {
            Some(before) => before.followed_by(facts, is_in_force),
            None => facts,
        };
        self.facts = Some(Arc::new(facts));
    }

    /// Counts each slot once, whatever was seen in between.
    fn count_missed(&mut self, facts: &EngineFacts) {
        for (series, (since, count)) in &facts.round.missed {
            let counted = self.counted.get(series).filter(|(slot, _)| slot == since);
            let new = count.saturating_sub(counted.map_or(0, |(_, count)| *count));
            *self.missed.entry(series.clone()).or_default() += new;
            self.counted.insert(series.clone(), (*since, *count));
        }
        if facts.round.is_whole {
            let sources: BTreeSet<(&PolicyName, &SourceId)> =
                facts.sources.iter().map(|source| (&source.policy, &source.id)).collect();
            let is_there = |series: &(PolicyName, SourceId)| {
                sources.contains(&(&series.0, &series.1)) || facts.round.missed.contains_key(series)
            };
            self.missed.retain(|series, _| is_there(series));
            self.counted.retain(|series, _| is_there(series));
        }
    }
}
