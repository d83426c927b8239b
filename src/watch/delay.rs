//! Holds deletes that a change of the policies would cause.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::time::Instant;

use crate::agenda::{Lately, Waits, premature};
use crate::elapsed::Elapsed;
use crate::inventory::Inventory;
use crate::plan::guard::{Guard, Refusal, guard, withheld};
use crate::plan::{Action, Change, Plan, plan};
use crate::policy::Policies;
use crate::reconcile::parts::{image_of, without};
use crate::reconcile::{Caution, Images, guarded};
use crate::report::second;

/// What was in force lately, and what is now.
#[derive(Debug)]
pub struct Delay {
    /// When it began. This goes on while the machine is awake, whatever its clock is set to.
    began: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    current: Arc<Policies>,
    lately: Lately<Arc<Policies>>,
    /// Of what has waited under these policies the images that no guard had refused when they began to.
    let_pass: Images,
}

impl Delay {
    /// Nothing is known of what was in force before these.
    pub fn new(current: Arc<Policies>) -> Self {
        let lately = Lately::new(current.config.watch.delete_delay, Elapsed::ZERO);
        let let_pass = Images::new();
        Self { began: Instant::now(), inner: Mutex::new(Inner { current, lately, let_pass }) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long it was awake by now.
    pub(super) fn awake(&self) -> Elapsed {
        Elapsed::seconds(i64::try_from(self.began.elapsed().as_secs()).unwrap_or(i64::MAX))
    }

    /// What the clock will show when it was awake for so long, if nobody sets it.
    fn shown(&self, until: Elapsed, now: Timestamp) -> Timestamp {
        // Both are in whole seconds, begun ones left out: a second later it is over by both.
        until.minus(self.awake()).plus(Elapsed::seconds(1)).after(now)
    }

    /// These are in force from now on; `others` are the engines that are not those of before.
    pub fn replace<'n>(&self, policies: Arc<Policies>, others: impl IntoIterator<Item = &'n str>) {
        let now = self.awake();
        let mut inner = self.lock();
        let Inner { current, lately, let_pass } = &mut *inner;
        lately.delays(policies.config.watch.delete_delay, now);
        // What the policies mean is the same: nothing was caused.
        if current.digest != policies.digest {
            lately.superseded(Arc::clone(current), now);
            // What one change after the other lets go is judged together.
            let_pass.clear();
        }
        for engine in others {
            lately.other(engine, now);
            let_pass.retain(|(of, _)| of != engine);
        }
        *current = policies;
    }

    /// When the first of the waits on an engine is over that was not over at a time `awake`; that may
    /// be past.
    pub(super) fn ends_at(
        &self,
        engine: &str,
        awake: Elapsed,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let until = self.lock().lately.ends_at(engine, awake)?;
        Some(self.shown(until, now))
    }

    /// Which deletes on an engine wait, and the policies that are asked about the rest.
    fn waits(&self, engine: &str) -> (Waits<Arc<Policies>>, Arc<Policies>) {
        let now = self.awake();
        let inner = self.lock();
        (inner.lately.waits(engine, now), Arc::clone(&inner.current))
    }

    /// Takes note of what begins to wait, held against the guards as if what has waited before and was
    /// let pass were gone already, as it would be had it not waited.
    fn begin_to_wait(
        &self,
        engine: &str,
        made: &Plan,
        held: &[&Change],
        inventory: &Inventory,
        now: Timestamp,
    ) {
        let current = Arc::clone(&self.lock().current);
        if made.policies_digest != current.digest {
            return;
        }
        let known = self.let_pass(made);
        let plan = without(made, &known);
        let mut inventory = inventory.clone();
        for engine in &mut inventory.engines {
            engine.images.retain(|one| !known.contains(&(engine.name.clone(), one.id.clone())));
            // Whether too little is there is judged by what is there.
            engine.images_seen_before = None;
        }
        let mut refused = guard(&plan, &inventory, &current.of_engine(engine), &[], now);
        let of_images = made.refusals.iter().filter(|one| !one.guard.is_of_numbers());
        refused.extend(of_images.cloned());
        let refused = withheld(&refused);
        let is_new = |(engine, image): &(String, String)| {
            !refused.contains(&(engine.as_str(), image.as_str()))
        };
        let new = held.iter().filter_map(|change| image_of(change)).filter(is_new);
        let mut inner = self.lock();
        // Others may be in force meanwhile, under which nothing has waited yet.
        if inner.current.digest == current.digest {
            inner.let_pass.extend(new);
        }
    }

    /// What is not let go any more, as far as that was seen, has not waited either.
    fn forget(&self, made: &Plan) {
        let known = self.let_pass(made);
        let seen = made.engines.iter().filter(|engine| engine.complete);
        let seen: BTreeSet<&str> = seen.map(|engine| engine.name.as_str()).collect();
        self.lock().let_pass.retain(|one| known.contains(one) || !seen.contains(one.0.as_str()));
    }

    /// What of a plan waits on an engine, and why.
    fn of_engine<'p>(
        &self,
        engine: &str,
        made: &'p Plan,
        inventory: &Inventory,
        now: Timestamp,
    ) -> (Vec<&'p Change>, String) {
        let (waits, current) = self.waits(engine);
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
                    second(self.shown(until, now))
                ),
            ),
            Waits::Other(until) => (
                deletes(made).collect(),
                format!(
                    "the engine is new or configured differently; its deletes wait until {}",
                    second(self.shown(until, now))
                ),
            ),
            Waits::Unless(former, until) => (
                premature(made, &asked(&former)),
                format!(
                    "the policies have changed; what that causes waits until {}",
                    second(self.shown(until, now))
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
        self.forget(made);
        let engines: BTreeSet<&str> = deletes(made).map(|change| change.engine.as_str()).collect();
        let refusals = engines.into_iter().filter_map(|engine| {
            let (held, why) = self.of_engine(engine, made, inventory, now);
            let mut images: Vec<String> =
                held.iter().filter_map(|change| change.image.id.clone()).collect();
            images.sort();
            if !held.is_empty() {
                self.begin_to_wait(engine, made, &held, inventory, now);
            }
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

    fn let_pass(&self, plan: &Plan) -> Images {
        let inner = self.lock();
        let images = plan.changes.iter().filter_map(image_of);
        images.filter(|image| inner.let_pass.contains(image)).collect()
    }
}
