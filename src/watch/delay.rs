//! Holds deletes that a change of the policies would cause.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use crate::agenda::{Lately, Waits, premature};
use crate::elapsed::Elapsed;
use crate::inventory::Inventory;
use crate::plan::guard::{Guard, Refusal};
use crate::plan::{Action, Change, Plan, plan};
use crate::policy::Policies;
use crate::reconcile::Caution;
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
        Self(Mutex::new(Inner { current, lately: Lately::new(now) }))
    }

    /// These are in force from now on.
    pub fn replace(&self, policies: Arc<Policies>, now: Timestamp) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What the policies mean is the same: nothing was caused.
        if inner.current.digest != policies.digest {
            let former = Arc::clone(&inner.current);
            let delay = longest(&former, &policies);
            inner.lately.superseded(former, delay, now);
        }
        inner.current = policies;
    }

    /// Which deletes wait, and the policies that are asked about the rest.
    fn waits(&self, now: Timestamp) -> (Waits<Arc<Policies>>, Arc<Policies>) {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let delay = inner.current.config.watch.delete_delay;
        (inner.lately.waits(delay, now), Arc::clone(&inner.current))
    }
}

/// A change that shortens the delay is a change as well.
fn longest(one: &Policies, other: &Policies) -> Elapsed {
    one.config.watch.delete_delay.max(other.config.watch.delete_delay)
}

impl Caution for Delay {
    fn refuse(&self, made: &Plan, inventory: &Inventory, now: Timestamp) -> Vec<Refusal> {
        let deletes = || made.changes.iter().filter(|change| change.action == Action::Delete);
        if deletes().next().is_none() {
            return Vec::new();
        }
        let (waits, current) = self.waits(now);
        // A round that began under other policies deletes nothing that these would keep.
        let newer = (made.policies_digest != current.digest).then_some(current);
        let (held, why): (Vec<&Change>, String) = match waits {
            Waits::All(until) => (
                deletes().collect(),
                format!(
                    "deletes wait until {} after a start, or where policies change all the time",
                    minute(until)
                ),
            ),
            Waits::Unless(former, until) => {
                let asked: Vec<Plan> =
                    former.iter().chain(&newer).map(|one| plan(one, inventory, now)).collect();
                let why = format!(
                    "the policies have changed; what that causes waits until {}",
                    minute(until)
                );
                (premature(made, &asked), why)
            }
            Waits::None => {
                let asked: Vec<Plan> = newer.iter().map(|one| plan(one, inventory, now)).collect();
                (
                    premature(made, &asked),
                    "the policies have changed since this round began".to_owned(),
                )
            }
        };
        refusals(&held, &why)
    }
}

fn refusals(held: &[&Change], why: &str) -> Vec<Refusal> {
    let mut engines: Vec<&str> = held.iter().map(|change| change.engine.as_str()).collect();
    engines.sort_unstable();
    engines.dedup();
    let of = |engine: &str| {
        let own = held.iter().filter(|change| change.engine == engine);
        let mut images: Vec<String> = own.filter_map(|change| change.image.id.clone()).collect();
        images.sort();
        images
    };
    engines
        .into_iter()
        .map(|engine| Refusal {
            guard: Guard::DeleteDelay,
            engine: engine.to_owned(),
            message: why.to_owned(),
            images: of(engine),
            override_flag: None,
            classes: BTreeSet::new(),
            overridden: false,
        })
        .collect()
}
