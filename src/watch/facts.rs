//! What is kept of a round: little, whatever the size of what was seen.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::alert::Condition;
use crate::apply::Ending;
use crate::coverage::Cover;
use crate::elapsed::Elapsed;
use crate::inventory::{Gap, GapScope, Inventory, told};
use crate::name::{Ownership, PolicyName, Slot, SourceId};
use crate::plan::guard::Guard;
use crate::plan::{Action, EngineSummary, Plan, Summary};
use crate::policy::Policies;
use crate::reconcile::Round;

/// How a source stands under a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFacts {
    /// The policy.
    pub policy: PolicyName,
    /// The id of the source.
    pub id: SourceId,
    /// Its name.
    pub name: String,
    /// The newest READY restore point.
    pub newest: Option<Slot>,
    /// The recovery point objective.
    pub rpo: Option<Elapsed>,
    /// When the next restore point is made.
    pub next: Option<Timestamp>,
}

impl SourceFacts {
    /// When the objective is broken if no restore point comes; `None` where there is no objective, or
    /// no restore point from which it counts.
    pub fn breach_at(&self) -> Option<Timestamp> {
        Some(self.rpo?.after(self.newest?.instant()))
    }
}

/// Images and bytes of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stored {
    /// How many there are, by state.
    pub images: BTreeMap<&'static str, u64>,
    /// Bytes they take.
    pub bytes: u64,
}

/// What a round has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoundFacts {
    /// The plan.
    pub plan: String,
    /// The instant it was made for.
    pub now: Timestamp,
    /// When the round had ended.
    pub ended_at: Timestamp,
    /// What was to be done.
    pub summary: Summary,
    /// What came of it.
    pub results: BTreeMap<(Action, &'static str), u64>,
    /// How many images are kept from being taken from, by guard.
    pub held: BTreeMap<Guard, u64>,
    /// Slots that can have no restore point any more, the newest of each source: how many, and since
    /// which slot.
    pub missed: BTreeMap<(PolicyName, SourceId), (Slot, u64)>,
    /// What could not be seen.
    pub gaps: Vec<String>,
    /// Whether all of the engine was seen, before something was done and after.
    pub is_whole: bool,
    /// Whether all of its instances were, then.
    pub has_all_instances: bool,
}

/// How an engine was seen at the end of a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineFacts {
    /// When anything was seen of it last; `None` where nothing ever was.
    pub seen_at: Option<Timestamp>,
    /// How many instances it has; `None` where none of them was ever seen.
    pub instances: Option<u64>,
    /// Those of them that no policy protects.
    pub unprotected: BTreeSet<SourceId>,
    /// Those of them that are meant to be without protection.
    pub exempt: BTreeSet<SourceId>,
    /// Its sources, in the order of policy and name.
    pub sources: Vec<SourceFacts>,
    /// What is stored, by policy; images of nobody's are under `None`.
    pub stored: BTreeMap<Option<PolicyName>, Stored>,
    /// The round.
    pub round: RoundFacts,
}

impl EngineFacts {
    /// What is known after another look. Of what that could not see the last that was seen is known,
    /// and since when nothing is.
    pub(super) fn followed_by(
        &self,
        facts: Self,
        is_in_force: impl Fn(&PolicyName) -> bool,
    ) -> Self {
        if facts.seen_at.is_none() {
            return Self { round: facts.round, ..self.clone() };
        }
        if facts.round.is_whole {
            return facts;
        }
        let facts =
            if facts.round.has_all_instances { facts } else { facts.with_instances_of(self) };
        let key = |source: &SourceFacts| (source.policy.clone(), source.id.clone());
        let mut sources: BTreeMap<_, SourceFacts> =
            facts.sources.into_iter().map(|source| (key(&source), source)).collect();
        for before in &self.sources {
            match sources.get_mut(&key(before)) {
                // The image that it had may be what was not seen.
                Some(source) => source.newest = source.newest.max(before.newest),
                None if is_in_force(&before.policy) => {
                    sources.insert(key(before), before.clone());
                }
                None => {}
            }
        }
        let mut sources: Vec<SourceFacts> = sources.into_values().collect();
        sort(&mut sources);
        Self { sources, ..facts }
    }

    /// With the instances that were known before and could not be seen.
    fn with_instances_of(mut self, before: &Self) -> Self {
        let sources = self.sources.iter().map(|source| &source.id);
        let seen: BTreeSet<&SourceId> =
            sources.chain(&self.unprotected).chain(&self.exempt).collect();
        let unseen = |known: &BTreeSet<SourceId>| -> Vec<SourceId> {
            known.iter().filter(|id| !seen.contains(id)).cloned().collect()
        };
        let (unprotected, exempt) = (unseen(&before.unprotected), unseen(&before.exempt));
        self.unprotected.extend(unprotected);
        self.exempt.extend(exempt);
        // Which of them are the same is not known of all: there are at least so many.
        self.instances = self.instances.max(before.instances);
        self
    }

    /// What is kept of a round that was carried out.
    pub(super) fn of(
        policies: &Policies,
        round: &Round,
        covers: &[Cover<'_>],
        now: Timestamp,
    ) -> Self {
        let inventory = round.after.as_ref();
        let (plan, is_unseen) = (&round.plan, is_unseen(&round.plan));
        let instances: usize = plan.engines.iter().map(|engine| engine.instances).sum();
        let facts = RoundFacts::of(round, now);
        Self {
            seen_at: inventory.map(|seen| seen.observed_at).filter(|_| !is_unseen),
            instances: (instances > 0 || facts.has_all_instances).then(|| count(instances)),
            unprotected: plan.unprotected.iter().map(|one| one.id.clone()).collect(),
            exempt: plan.exempt.iter().map(|one| one.id.clone()).collect(),
            sources: sources(covers),
            stored: inventory.map(|seen| stored(policies, seen)).unwrap_or_default(),
            round: facts,
        }
    }
}

/// Whether nothing at all was seen.
pub(super) fn is_unseen(plan: &Plan) -> bool {
    let is_unseen =
        |engine: &EngineSummary| !engine.complete && engine.instances == 0 && engine.images == 0;
    plan.engines.iter().all(is_unseen)
}

impl RoundFacts {
    /// Slots that were missed beside those that the plan knows of.
    pub(super) fn missed_besides(&mut self, missed: &[Condition]) {
        for condition in missed {
            let policy = PolicyName::parse(&condition.subject.policy);
            let source = SourceId::parse(&condition.subject.source);
            if let (Ok(policy), Ok(source), Some(slot)) = (policy, source, condition.slot) {
                self.missed.entry((policy, source)).or_insert((Slot::at(slot), 1));
            }
        }
    }

    fn of(round: &Round, now: Timestamp) -> Self {
        let plan = &round.plan;
        let mut results = BTreeMap::new();
        for outcome in &round.outcomes {
            let Some(change) = plan.changes.get(outcome.change) else { continue };
            *results.entry((change.action, outcome.ending.word())).or_default() += 1;
        }
        let mut held: BTreeMap<Guard, u64> = BTreeMap::new();
        for refusal in plan.refusals.iter().filter(|refusal| !refusal.overridden) {
            *held.entry(refusal.guard).or_default() += count(refusal.images.len());
        }
        let missed = plan.missed.iter().map(|missed| {
            let series = (missed.key.policy.clone(), missed.key.source.clone());
            (series, (missed.first, count(missed.slots)))
        });
        let gaps = plan.engines.iter().flat_map(|engine| &engine.gaps);
        let told_once = plan.engines.iter().flat_map(|engine| told(&engine.gaps));
        let after = round.after.iter().flat_map(|seen| &seen.engines);
        let unseen: Vec<&Gap> = gaps.chain(after.flat_map(|engine| &engine.gaps)).collect();
        Self {
            plan: plan.id.clone(),
            now: plan.now,
            ended_at: now,
            summary: plan.summary,
            results,
            held,
            missed: missed.collect(),
            gaps: told_once.map(|gap| format!("{}: {}", gap.place, gap.message)).collect(),
            is_whole: unseen.is_empty(),
            has_all_instances: unseen.iter().all(|gap| gap.scope != GapScope::Instances),
        }
    }

    /// Whether something failed that may go well if it is tried again.
    pub(super) fn has_failed(round: &Round) -> bool {
        let failed =
            |ending: &Ending| matches!(ending, Ending::Failed { .. } | Ending::Skipped { .. });
        round.unwritten.is_some()
            || round.outcomes.iter().any(|outcome| failed(&outcome.ending))
            || round.settled.iter().any(|(_, settled)| match settled {
                Ok(settled) => settled.overdue().next().is_some(),
                Err(_) => true,
            })
            || round.plan.engines.iter().any(|engine| !engine.complete)
    }
}

fn sources(covers: &[Cover<'_>]) -> Vec<SourceFacts> {
    let facts = covers.iter().map(|cover| SourceFacts {
        policy: cover.policy.name.clone(),
        id: cover.instance.id.clone(),
        name: cover.instance.name.clone(),
        newest: cover.newest,
        rpo: cover.policy.rpo,
        next: cover.next.first().map(|run| run.at),
    });
    let mut facts: Vec<SourceFacts> = facts.collect();
    facts.shrink_to_fit();
    sort(&mut facts);
    facts
}

fn sort(sources: &mut [SourceFacts]) {
    sources.sort_by(|one, other| {
        (&one.policy, &one.name, &one.id).cmp(&(&other.policy, &other.name, &other.id))
    });
}

fn stored(policies: &Policies, inventory: &Inventory) -> BTreeMap<Option<PolicyName>, Stored> {
    let mut stored: BTreeMap<Option<PolicyName>, Stored> = BTreeMap::new();
    for image in inventory.engines.iter().flat_map(|engine| &engine.images) {
        let policy = match image.ownership() {
            Ownership::Ours(key) => {
                let keeper = policies.keeper(&key.policy);
                Some(keeper.map_or(key.policy.clone(), |keeper| keeper.name.clone()))
            }
            _ => None,
        };
        let entry = stored.entry(policy).or_default();
        *entry.images.entry(image.state.word()).or_default() += 1;
        entry.bytes += image.stored_bytes.unwrap_or(0);
    }
    stored
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
