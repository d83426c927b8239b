//! One look at an engine, and what plans will look at of some images only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tracing::Instrument;

use super::{LOOK_LIMIT, Room, owned};
use crate::apply::{Confirmed, SecondLook, Stop, timer};
use crate::elapsed::Elapsed;
use crate::engine::{Attention, Engine};
use crate::inventory::{EngineInventory, FORMAT_VERSION, Inventory};
use crate::plan::check::{check, check_rest, refusals};
use crate::plan::guard::{guard, withheld};
use crate::plan::{Plan, overtaken, still_wanted};
use crate::policy::Policies;

/// So long the look after what was done may still take once what is under way is given up: it begins
/// and changes nothing, and what it sees people are told.
const LAST_LOOK: Duration = Duration::from_secs(5);
/// And once nothing new is to begin: what comes next waits for it.
const UNHURRIED_LOOK: Duration = Duration::from_mins(1);

impl Room {
    /// Looks at all engines side by side.
    #[tracing::instrument(name = "observe", skip_all)]
    pub async fn observe(&self) -> Inventory {
        let mut looks = tokio::task::JoinSet::new();
        let attention = attention(&self.policies);
        for engine in &self.engines {
            engine.attend(&attention);
            let engine = Arc::clone(engine);
            let limit = self.recurrence.as_ref().map(|_| LOOK_LIMIT);
            looks.spawn(async move { look(&*engine, limit).await }.in_current_span());
        }
        let mut engines = looks.join_all().await;
        engines.sort_by(|one, other| one.name.cmp(&other.name));
        for engine in &mut engines {
            engine.images_seen_before = self.ledger.images_seen(&engine.name);
            tracing::info!(
                engine = engine.name,
                instances = engine.instances.len(),
                images = engine.images.len(),
                gaps = engine.gaps.len(),
                "observed"
            );
        }
        Inventory {
            format_version: FORMAT_VERSION.to_owned(),
            observed_at: self.clock.now(),
            engines,
        }
    }

    /// Looks at what is there after what was done. Where another round follows and this one is to stop,
    /// an engine that does not answer is waited for only so long, and counts as not seen.
    pub(super) async fn last_look(&self, stop: &Stop) -> Inventory {
        if self.recurrence.is_none() {
            return self.observe().await;
        }
        let hurried = async {
            tokio::select! {
                () = async { stop.given_up().await; tokio::time::sleep(LAST_LOOK).await } => {}
                () = async { stop.asked().await; tokio::time::sleep(UNHURRIED_LOOK).await } => {}
            }
        };
        tokio::select! {
            biased;
            inventory = self.observe() => inventory,
            () = hurried => self.unseen("it was not waited for: the round was to stop"),
        }
    }

    /// What is there where nothing was seen.
    fn unseen(&self, why: &str) -> Inventory {
        let engines = self.engines.iter().map(|engine| EngineInventory::unseen(engine.name(), why));
        let mut engines: Vec<EngineInventory> = engines.collect();
        engines.sort_by(|one, other| one.name.cmp(&other.name));
        Inventory {
            format_version: FORMAT_VERSION.to_owned(),
            observed_at: self.clock.now(),
            engines,
        }
    }
}

#[async_trait]
impl SecondLook for Room {
    async fn look(&self, plan: &Plan) -> Confirmed {
        let inventory = self.observe().await;
        let now = self.clock.now();
        let fresh = crate::plan::plan(&self.policies, &inventory, now);
        let changes = still_wanted(plan, &fresh, &inventory);
        // Guards and check judge the plan that was approved, over what is there now. A fresh plan
        // that breaks a rule confirms nothing.
        let refused = guard(plan, &inventory, &self.policies, &self.overrides, now);
        let waits = self.waiting(plan, &inventory, now);
        let mut refused = self.in_parts(plan, refused, &waits, &inventory, now);
        let mut violations = check_rest(plan, &changes, &inventory, &self.policies, now);
        let broken = check(&fresh, &inventory, &self.policies, now);
        let overtaken =
            if broken.is_empty() { overtaken(plan, &fresh, &inventory) } else { BTreeMap::new() };
        violations.extend(broken);
        refused.extend(refusals(plan, &violations));
        refused.extend(waits);
        Confirmed { changes, overtaken, withheld: owned(withheld(&refused)), refusals: refused }
    }
}

/// Looks at an engine. One that does not answer in time is not seen.
#[tracing::instrument(name = "look", skip_all, fields(engine = engine.name()))]
pub(super) async fn look(engine: &dyn Engine, limit: Option<Elapsed>) -> EngineInventory {
    let Some(limit) = limit else { return engine.observe().await };
    match tokio::time::timeout(timer(limit), engine.observe()).await {
        Ok(seen) => seen,
        Err(_) => EngineInventory::unseen(engine.name(), &format!("no answer within {limit}")),
    }
}

/// What plans over these policies look at of some images only.
pub(super) fn attention(policies: &Policies) -> Attention {
    let mut attention = Attention::default();
    for policy in policies.all() {
        let Some(sharing) = &policy.sharing else { continue };
        let roles: BTreeSet<String> = sharing.iter().map(|grant| grant.role.clone()).collect();
        let former = policies.moved.iter().filter(|(_, now)| **now == policy.name);
        for name in former.map(|(former, _)| former).chain([&policy.name]) {
            attention.sharing.insert(name.clone(), roles.clone());
        }
    }
    attention
}
