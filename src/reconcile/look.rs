//! One look at an engine, and what plans will look at of some images only.

use std::collections::BTreeSet;

use crate::apply::timer;
use crate::elapsed::Elapsed;
use crate::engine::{Attention, Engine};
use crate::inventory::EngineInventory;
use crate::policy::Policies;

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
