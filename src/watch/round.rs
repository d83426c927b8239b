//! One round of one engine, and what is told of it.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;

use super::{EngineFacts, RoundFacts, Status};
use crate::agenda::{Ended, Health, next_due};
use crate::apply::{Ending, Listener, Outcome, Stop};
use crate::engine::Progress;
use crate::plan::guard::refuses;
use crate::plan::{Action, Change, Plan};
use crate::policy::Finding;
use crate::reconcile::{Approval, Room, Round};

/// A round that is to be carried out.
pub(super) struct RoundTask {
    pub(super) engine: String,
    pub(super) room: Arc<Room>,
    pub(super) stop: Stop,
    pub(super) status: Arc<Status>,
}

/// A round that has ended.
pub(super) struct Finished {
    pub(super) engine: String,
    pub(super) ended: Ended,
}

impl RoundTask {
    pub(super) async fn run(self) -> Finished {
        let scribe = Arc::new(Scribe { engine: self.engine.clone(), changes: OnceLock::new() });
        let approval = Approved { scribe: Arc::clone(&scribe), status: Arc::clone(&self.status) };
        let round = self.room.round(&approval, scribe, &self.stop).await;
        let ended = match round {
            Ok(round) => self.look_back(&round),
            Err(error) => {
                tracing::error!(engine = self.engine, "the round was not carried out: {error}");
                Ended { health: Health::Broken, due: None, goes_on: false }
            }
        };
        if let Some(engine) = self.room.engines.first() {
            self.status.calls(&self.engine, engine.calls());
        }
        Finished { engine: self.engine, ended }
    }

    fn look_back(&self, round: &Round) -> Ended {
        let now = self.room.clock.now();
        let facts = EngineFacts::of(&self.room.policies, round, now);
        self.tell(&facts, round);
        let instances = round.after.iter().flat_map(|seen| &seen.engines);
        let instances = instances.flat_map(|engine| &engine.instances).cloned();
        let instances: Vec<_> = instances.collect();
        let due = next_due(&self.room.policies, &instances, round.plan.now);
        let nothing_seen = round
            .plan
            .engines
            .iter()
            .all(|engine| !engine.complete && engine.instances == 0 && engine.images == 0);
        let health = if nothing_seen {
            Health::Broken
        } else if RoundFacts::has_failed(round) {
            Health::Partly
        } else {
            Health::Well
        };
        self.status.facts(&self.engine, facts);
        let goes_on = round.outcomes.iter().any(|outcome| outcome.ending == Ending::UnderWay);
        Ended { health, due, goes_on }
    }

    /// Says what is new: gaps, refusals and what is in the way are told once, not with every round.
    fn tell(&self, facts: &EngineFacts, round: &Round) {
        let engine = &self.engine;
        let plan = &round.plan;
        let mut holds: BTreeSet<String> = BTreeSet::new();
        holds.extend(facts.round.gaps.iter().map(|gap| format!("not seen: {gap}")));
        holds.extend(plan.blocked.iter().map(|blocked| {
            format!("{} cannot be captured: {}", blocked.source_name, blocked.message)
        }));
        holds.extend(plan.missed.iter().map(|missed| {
            let (source, policy) = (&missed.source_name, &missed.key.policy);
            format!("{source} has no restore point of {policy} for {}", missed.key.slot.instant())
        }));
        holds.extend(plan.stalled.iter().map(|stalled| {
            let (source, policy) = (&stalled.source_name, &stalled.policy);
            format!(
                "{source} has had no new restore point of {policy} for too long: {}",
                stalled.message
            )
        }));
        holds.extend(plan.refusals.iter().filter(|refusal| !refusal.overridden).map(|refusal| {
            let images = refusal.images.len();
            format!("{} keeps {images} images: {}", refusal.guard.word(), refusal.message)
        }));
        let (new, over) = self.status.told(engine, holds);
        for text in new {
            tracing::warn!(engine, "{text}");
        }
        for text in over {
            tracing::info!(engine, "no longer: {text}");
        }
        let done = round.outcomes.iter().filter(|outcome| outcome.ending.is_done()).count();
        let under_way = |outcome: &&Outcome| outcome.ending == Ending::UnderWay;
        let goes_on = round.outcomes.iter().filter(under_way).count();
        let left = round.outcomes.len() - done - goes_on;
        let short = plan.id.get(..crate::plan::guard::SHORT_ID).unwrap_or(&plan.id);
        if round.outcomes.is_empty() {
            tracing::debug!(engine, plan = short, "nothing to do");
        } else {
            let refused = refuses(&plan.refusals);
            tracing::info!(
                engine,
                plan = short,
                done,
                goes_on,
                not_done = left,
                refused,
                "round ended"
            );
        }
    }
}

/// Every plan is carried out: guards decide, and nobody is asked.
struct Approved {
    scribe: Arc<Scribe>,
    status: Arc<Status>,
}

#[async_trait]
impl Approval for Approved {
    async fn approve(&self, plan: &Plan) -> bool {
        let _ = self.scribe.changes.set(plan.changes.iter().map(Title::of).collect());
        true
    }

    fn found(&self, findings: &[Finding]) {
        let engine = &self.scribe.engine;
        let holds = findings.iter().map(finding_text).collect();
        let (new, _) = self.status.told(&format!("findings of {engine}"), holds);
        for text in new {
            tracing::warn!(engine, "{text}");
        }
    }

    fn takes_time(&self) -> bool {
        false
    }
}

/// A finding in one line.
pub(super) fn finding_text(finding: &Finding) -> String {
    let place = finding.place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default();
    format!("{place}{} ({})", finding.message, finding.code)
}

/// What a change is called in log lines.
struct Title {
    action: Action,
    source: String,
    image: String,
}

impl Title {
    fn of(change: &Change) -> Self {
        let image = change.copy.as_ref().map_or(&change.image.name, |copy| &copy.name);
        let (source, image) = (change.source_name.clone(), image.clone());
        Self { action: change.action, source, image }
    }
}

/// Writes log lines about changes.
struct Scribe {
    engine: String,
    changes: OnceLock<Vec<Title>>,
}

impl Scribe {
    fn title(&self, change: usize) -> Option<&Title> {
        self.changes.get()?.get(change)
    }
}

impl Listener for Scribe {
    fn began(&self, change: usize) {
        let Some(Title { action, source, image }) = self.title(change) else { return };
        tracing::debug!(engine = self.engine, source, image, "{} begins", action.word());
    }

    fn progress(&self, _: usize, _: Progress) {}

    fn note(&self, text: &str) {
        tracing::warn!(engine = self.engine, "{text}");
    }

    fn ended(&self, change: usize, ending: &Ending) {
        let Some(Title { action, source, image }) = self.title(change) else { return };
        let (engine, action) = (&self.engine, action.word());
        match ending {
            Ending::Done { .. } => tracing::info!(engine, source, image, "{action}: done"),
            Ending::Found { .. } => {
                tracing::info!(engine, source, image, "{action}: another run has done it");
            }
            Ending::Failed { message } => {
                tracing::error!(engine, source, image, "{action}: failed: {message}");
            }
            Ending::Skipped { message } => {
                tracing::warn!(engine, source, image, "{action}: not tried: {message}");
            }
            Ending::Refused => tracing::debug!(engine, source, image, "{action}: refused"),
            Ending::Left => {
                tracing::info!(engine, source, image, "{action}: left for the next round");
            }
            Ending::UnderWay => {
                tracing::debug!(engine, source, image, "{action}: waits for what is under way");
            }
            Ending::GivenUp => {
                tracing::warn!(engine, source, image, "{action}: given up; nothing of it counts");
            }
        }
    }
}
