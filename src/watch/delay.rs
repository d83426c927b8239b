//! Holds deletes that a change of the policies would cause.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use crate::agenda::{Lately, Waits, premature};
use crate::inventory::Inventory;
use crate::plan::guard::{Guard, Refusal, withheld};
use crate::plan::{Action, Change, Plan, plan};
use crate::policy::Policies;
use crate::reconcile::{Caution, guarded};
use crate::report::minute;

/// What was in force lately, and what is now.
#[derive(Debug)]
pub struct Delay(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    current: Arc<Policies>,
    lately: Lately<Arc<Policies>>,
}

impl Delay {
    /// Nothing is known of what was in force before these.
    pub fn new(current: Arc<Policies>, now: Timestamp) -> Self {
        let lately = Lately::new(current.config.watch.delete_delay, now);
        Self(Mutex::new(Inner { current, lately }))
    }

    /// These are in force from now on; `others` are the engines that are not those of before.
    pub fn replace<'n>(
        &self,
        policies: Arc<Policies>,
        others: impl IntoIterator<Item = &'n str>,
        now: Timestamp,
    ) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { current, lately } = &mut *inner;
        lately.delays(policies.config.watch.delete_delay, now);
        // What the policies mean is the same: nothing was caused.
        if current.digest != policies.digest {
            lately.superseded(Arc::clone(current), now);
        }
        others.into_iter().for_each(|engine| lately.other(engine, now));
        *current = policies;
    }

    /// When the first of the waits on an engine is over.
    pub(super) fn ends_at(&self, engine: &str, now: Timestamp) -> Option<Timestamp> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.lately.ends_at(engine, now)
    }

    /// Which deletes on an engine wait, and the policies that are asked about the rest.
    fn waits(&self, engine: &str, now: Timestamp) -> (Waits<Arc<Policies>>, Arc<Policies>) {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (inner.lately.waits(engine, now), Arc::clone(&inner.current))
    }

    /// What of a plan waits on an engine, and why.
    fn of_engine<'p>(
        &self,
        engine: &str,
        made: &'p Plan,
        inventory: &Inventory,
        now: Timestamp,
    ) -> (Vec<&'p Change>, String) {
        let (waits, current) = self.waits(engine, now);
        // A round that began under other policies deletes nothing that these would keep.
        let newer = (made.policies_digest != current.digest).then_some(current);
        let asked = |former: &[Arc<Policies>]| -> Vec<Plan> {
            let asked = former.iter().chain(&newer);
            asked.map(|one| passed(&one.of_engine(engine), inventory, now)).collect()
        };
        let (mut held, why) = match waits {
            Waits::All(until) => (
                deletes(made).collect(),
                format!(
                    "deletes wait until {} after a start, or where policies change all the time",
                    minute(until)
                ),
            ),
            Waits::Other(until) => (
                deletes(made).collect(),
                format!(
                    "the engine is new or configured differently; its deletes wait until {}",
                    minute(until)
                ),
            ),
            Waits::Unless(former, until) => (
                premature(made, &asked(&former)),
                format!(
                    "the policies have changed; what that causes waits until {}",
                    minute(until)
                ),
            ),
            Waits::None => (
                premature(made, &asked(&[])),
                "the policies have changed since this round began".to_owned(),
            ),
        };
        held.retain(|change: &&Change| change.engine == engine);
        (held, why)
    }
}

/// What the round of an engine would have done under these policies: what their own guards would have
/// kept is not in it. Loosening a guard causes deletes as any other change does.
fn passed(policies: &Policies, inventory: &Inventory, now: Timestamp) -> Plan {
    let mut plan = guarded(plan(policies, inventory, now), policies, inventory, &[], now);
    let refusals = std::mem::take(&mut plan.refusals);
    let withheld = withheld(&refusals);
    plan.changes.retain(|change| {
        let is_kept = |id: &String| withheld.contains(&(change.engine.as_str(), id.as_str()));
        !change.image.id.as_ref().is_some_and(is_kept)
    });
    plan
}

fn deletes(plan: &Plan) -> impl Iterator<Item = &Change> {
    plan.changes.iter().filter(|change| change.action == Action::Delete)
}

impl Caution for Delay {
    fn refuse(&self, made: &Plan, inventory: &Inventory, now: Timestamp) -> Vec<Refusal> {
        let engines: BTreeSet<&str> = deletes(made).map(|change| change.engine.as_str()).collect();
        let refusals = engines.into_iter().filter_map(|engine| {
            let (held, why) = self.of_engine(engine, made, inventory, now);
            let mut images: Vec<String> =
                held.iter().filter_map(|change| change.image.id.clone()).collect();
            images.sort();
            (!held.is_empty()).then(|| Refusal {
                guard: Guard::DeleteDelay,
                engine: engine.to_owned(),
                message: why,
                images,
                override_flag: None,
                classes: BTreeSet::new(),
                overridden: false,
            })
        });
        refusals.collect()
    }
}
