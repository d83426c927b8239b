//! What is seen from outside: one snapshot, which rounds and readings write and endpoints read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::round::finding_text;
use super::{EngineFacts, Reading};
use crate::agenda::{Circuit, Health, Told};
use crate::apply::{Late, Load, Underway};
use crate::engine::Calls;
use crate::name::{PolicyName, Slot, SourceId};
use crate::plan::Action;
use crate::policy::{Finding, Policies};

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
}

/// Everything that is seen from outside.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// What the process does.
    pub role: Role,
    /// How it stands with the files.
    pub validity: Validity,
    /// The digest of what is in force.
    pub digest: String,
    /// Since when that is in force.
    pub since: Option<Timestamp>,
    /// The policies in force.
    pub policies: Arc<Vec<PolicyFacts>>,
    /// The engines by name.
    pub engines: BTreeMap<String, EngineStatus>,
}

/// The snapshot, shared.
#[derive(Debug, Default)]
pub struct Status {
    snapshot: Mutex<Snapshot>,
    beat: Mutex<Option<Instant>>,
    told: Mutex<BTreeMap<String, Told<String>>>,
    changed: Notify,
}

impl Status {
    /// Everything as it is now.
    pub fn snapshot(&self) -> Snapshot {
        self.lock().clone()
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

    /// The files were read.
    pub(super) fn read(&self, reading: &Reading, now: Timestamp) {
        let is_error = |finding: &&Finding| finding.is_error();
        let mistakes: Vec<String> =
            reading.findings.iter().filter(is_error).map(finding_text).collect();
        let warnings = reading.findings.iter().filter(|finding| !finding.is_error());
        let (new, _) = self.told("warnings", warnings.map(finding_text).collect());
        for text in new {
            tracing::warn!("{text}");
        }
        if reading.policies.is_some() {
            self.valid(now);
        } else {
            self.invalid(mistakes, now);
        }
    }

    /// What was read cannot be put in force.
    pub(super) fn refused(&self, message: &str, now: Timestamp) {
        self.invalid(vec![message.to_owned()], now);
    }

    fn valid(&self, now: Timestamp) {
        let (_, over) = self.told("policies", BTreeSet::new());
        if !over.is_empty() {
            tracing::info!("the policies are valid again");
        }
        self.change(|snapshot| {
            let validity = &mut snapshot.validity;
            validity.is_valid = true;
            validity.read_at = Some(now);
            validity.mistakes.clear();
            validity.readings.0 += 1;
        });
    }

    fn invalid(&self, mistakes: Vec<String>, now: Timestamp) {
        let (new, _) = self.told("policies", mistakes.iter().cloned().collect());
        for text in &new {
            tracing::error!("invalid policy: {text}");
        }
        if !new.is_empty() && self.lock().since.is_some() {
            tracing::error!("what was in force stays in force until the files are valid");
        }
        self.change(|snapshot| {
            let validity = &mut snapshot.validity;
            validity.is_valid = false;
            validity.read_at = Some(now);
            validity.mistakes = mistakes;
            validity.readings.1 += 1;
        });
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
        tracing::info!(
            policies = facts.len(),
            engines = policies.config.engines.len(),
            digest = policies.digest.get(..12).unwrap_or_default(),
            "in force"
        );
        self.change(|snapshot| {
            snapshot.digest.clone_from(&policies.digest);
            snapshot.since = Some(now);
            snapshot.policies = Arc::new(facts);
            snapshot.engines.retain(|name, _| policies.config.engines.contains_key(name));
            for name in policies.config.engines.keys() {
                snapshot.engines.entry(name.clone()).or_default();
            }
        });
    }

    /// What a round has seen and done.
    pub(super) fn facts(&self, engine: &str, facts: EngineFacts) {
        self.change(|snapshot| {
            if let Some(status) = snapshot.engines.get_mut(engine) {
                status.take_in(facts);
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
    pub(super) fn ended_late(&self, late: &Late) {
        self.change(|snapshot| {
            let Some(status) = snapshot.engines.get_mut(&late.engine) else { return };
            *status.actions.entry((late.action, late.ending.word())).or_default() += 1;
        });
    }

    /// A round has ended.
    pub(super) fn round_ended(
        &self,
        engine: &str,
        health: Health,
        circuit: Circuit,
        retry_at: Option<Timestamp>,
    ) {
        self.change(|snapshot| {
            let Some(status) = snapshot.engines.get_mut(engine) else { return };
            *status.rounds.entry(health.word()).or_default() += 1;
            status.is_open = circuit == Circuit::Open;
            status.retry_at = retry_at;
            status.round_since = None;
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
    fn take_in(&mut self, facts: EngineFacts) {
        for (what, count) in &facts.round.results {
            *self.actions.entry(*what).or_default() += count;
        }
        for (series, (since, count)) in &facts.round.missed {
            let counted = self.counted.get(series).filter(|(slot, _)| slot == since);
            let new = count.saturating_sub(counted.map_or(0, |(_, count)| *count));
            *self.missed.entry(series.clone()).or_default() += new;
        }
        self.counted.clone_from(&facts.round.missed);
        self.facts = Some(Arc::new(facts));
    }
}
