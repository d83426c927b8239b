//! Machines that were stopped for a capture, and the promise that they run again.
//!
//! The promise is written down before it is needed: a label on the instance says that it is to run
//! again, and until when at the latest it may stand still. It is set before the instance is stopped, put
//! off as long as its run is at it, and taken away once the instance runs. Whoever captures or ends a
//! round and finds the label keeps the promise: the same run after a failure, the next run after a
//! kill, another run once the time has passed. Where the run cannot keep it, its time has passed at once:
//! a time to come says that somebody is at it.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::sync::Mutex;

use super::YandexEngine;
use super::bind::AsSeen;
use super::call::CallError;
use super::room::Turn;
use super::service::WaitError;
use super::wait::{Asked, Pace, Waiting};
use super::wire;
use crate::engine::http::{Call, Free, Leave, Looks, Method, Watched};
use crate::engine::{EngineError, Settled, Standing, Watcher};
use crate::inventory::{LABEL_RESTART, is_over};
use crate::name::{parse_stamp, stamp};

/// So long an instance may stand still for a capture that nobody is at any more.
const STILL_MAX: SignedDuration = SignedDuration::from_mins(30);
/// A promise that ends sooner is put off.
const PUT_OFF_BEFORE: SignedDuration = SignedDuration::from_mins(20);
/// What an instance is on its way to running, or to standing still.
const PASSING: [&str; 5] = ["PROVISIONING", "STARTING", "STOPPING", "RESTARTING", "UPDATING"];
/// How often labels are merged anew that somebody else has changed meanwhile.
const MERGES_MAX: u32 = 3;

/// An instance that stands still.
pub(super) struct Still {
    /// The instance as it was before.
    instance: wire::Instance,
    /// By when it runs again; `None` where somebody else has stopped it, who did not want that.
    until: Option<Mutex<Timestamp>>,
}

impl Still {
    /// Its id.
    pub(super) fn id(&self) -> &str {
        &self.instance.id
    }

    /// By when it must run again, as its label says it; empty where that was not promised.
    async fn promise(&self) -> String {
        match &self.until {
            Some(until) => stamp(*until.lock().await),
            None => String::new(),
        }
    }

    /// Whether it was promised that it runs again.
    pub(super) fn is_promised(&self) -> bool {
        self.until.is_some()
    }
}

impl YandexEngine {
    /// Stops an instance that runs, and writes down first that it is to run again. One that stands
    /// still already runs again afterwards where that was promised by a run before. It is stopped only
    /// as long as images of it may be asked for. The caller is alone at the machine.
    pub(super) async fn stand_still(
        &self,
        instance: wire::Instance,
        pace: &Pace,
        watcher: &dyn Watcher,
    ) -> Result<Still, EngineError> {
        match instance.status.as_str() {
            "STOPPED" => {
                let promise = instance.labels.get(LABEL_RESTART);
                // A time that cannot be read has passed.
                let until = promise.map(|until| parse_stamp(until).unwrap_or_default());
                return Ok(Still { instance, until: until.map(Mutex::new) });
            }
            "RUNNING" => {}
            other => {
                let message =
                    format!("{} is {other}: it neither runs nor stands still", instance.name);
                return Err(EngineError::Busy(message));
            }
        }
        watcher.waits("the machine is stopped for the capture");
        let until = self.still_until()?;
        let set = |labels: &mut BTreeMap<String, String>| {
            labels.insert(LABEL_RESTART.to_owned(), stamp(until));
        };
        let waiting = Waiting { engine: self, watcher, still: None };
        self.label_instance(&instance, set, &Asked { pace, waiting }).await?;
        let still = Still { instance, until: Some(Mutex::new(until)) };
        let instance = &still.instance;
        let waiting = Waiting { still: Some(&still), ..waiting };
        match self.turn_off(instance, until, &Asked { pace, waiting }).await {
            Ok(()) => Ok(still),
            // Somebody was at it before it was stopped here: nobody has promised that it runs again.
            Err(EngineError::Changed) => {
                self.take_back(instance, &still.promise().await).await?;
                let name = &instance.name;
                Err(EngineError::Busy(format!(
                    "somebody has changed {name} before it was stopped; the next run tries again"
                )))
            }
            Err(error) => self.after(instance, &still.promise().await, Err(error)).await,
        }
    }

    fn still_until(&self) -> Result<Timestamp, EngineError> {
        let until = self.clock.now().saturating_add(STILL_MAX);
        until.map_err(|error| EngineError::Failed(error.to_string()))
    }

    async fn turn_off(
        &self,
        instance: &wire::Instance,
        until: Timestamp,
        leave: &Asked<'_>,
    ) -> Result<(), EngineError> {
        let path = format!("compute/v1/instances/{}:stop", instance.id);
        let call = Call::post(&path).with_body(&json!({}))?;
        let is_ours = |now: &wire::Instance, was_open: bool| {
            now.labels.contains_key(LABEL_RESTART) && (was_open || now.status == "RUNNING")
        };
        {
            let turn = self.rooms.to_stop(&instance.folder_id).await;
            let leave = self.as_seen(&instance.id, is_ours, leave);
            self.change_machine(&turn, &call, &stamp(until), &leave).await?;
        }
        let mut looks = Looks::within(STILL_MAX.unsigned_abs());
        loop {
            let now = self.instance_while(&instance.id, &leave.waiting).await?;
            if now.status == "STOPPED" {
                return Ok(());
            }
            let Some(time) = looks.pause() else {
                let message = format!("{} is {} and does not stop", now.name, now.status);
                return Err(EngineError::Failed(message));
            };
            leave.pass(time, self.services.pause.as_ref()).await?;
        }
    }

    fn as_seen<'a, F>(&'a self, id: &'a str, holds: F, beside: &'a dyn Leave) -> AsSeen<'a, F> {
        AsSeen { engine: self, id, holds, beside }
    }

    /// Puts the promise off while its run is still at it. Where that fails somebody else may start the
    /// instance, and that is seen at the end.
    pub(super) async fn put_off(&self, still: &Still, watcher: &dyn Watcher) {
        let Some(until) = &still.until else { return };
        let mut until = until.lock().await;
        let is_far = |left: Timestamp| left.duration_since(self.clock.now()) > PUT_OFF_BEFORE;
        let Some(later) = self.still_until().ok().filter(|_| !is_far(*until)) else { return };
        let set = |labels: &mut BTreeMap<String, String>| {
            if let Some(label) = labels.get_mut(LABEL_RESTART) {
                *label = stamp(later);
            }
        };
        match self.label_instance(&still.instance, set, &Watched(watcher)).await {
            Ok(()) => *until = later,
            Err(error) => {
                tracing::warn!("{} stands still for longer: {error}", still.instance.name);
            }
        }
    }

    /// Lets an instance run again that was stopped under a promise, and hands on what came of the capture.
    /// That it does not run is told before anything else. The caller is alone at the machine.
    pub(super) async fn after<T>(
        &self,
        instance: &wire::Instance,
        promise: &str,
        came: Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        match (self.run_again(&instance.id).await, came) {
            (Ok(()), came) => came,
            (Err(error), came) => {
                self.let_lapse(instance, promise).await;
                let beside = came.err().map(|error| format!("; before that: {error}"));
                Err(EngineError::Failed(format!(
                    "{} was stopped for a capture and does not run again: {error}{}; the next run tries again",
                    instance.name,
                    beside.unwrap_or_default()
                )))
            }
        }
    }

    /// The same for one that stands still.
    pub(super) async fn let_run<T>(
        &self,
        still: &Still,
        came: Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        if !still.is_promised() {
            return came;
        }
        self.after(&still.instance, &still.promise().await, came).await
    }

    /// Says of a promise that was not kept that its time has passed: nobody is at it any more, and whoever
    /// looks next sees that and tries again. One that another run has given since stays. Where this fails
    /// the time passes by itself.
    async fn let_lapse(&self, instance: &wire::Instance, promise: &str) {
        let now = stamp(self.clock.now());
        let set = |labels: &mut BTreeMap<String, String>| {
            if let Some(label) = labels.get_mut(LABEL_RESTART).filter(|there| *there == promise) {
                label.clone_from(&now);
            }
        };
        if let Err(error) = self.label_instance(instance, set, &Free).await {
            tracing::warn!("{} is not said to stand still for too long: {error}", instance.name);
        }
    }

    /// Starts an instance that is to run again, and takes the label away once it does. One without the
    /// label is left as it is.
    async fn run_again(&self, id: &str) -> Result<(), EngineError> {
        let mut looks = Looks::within(STILL_MAX.unsigned_abs());
        let mut is_started = false;
        loop {
            let now = self.instance(id).await?;
            let Some(promise) = now.labels.get(LABEL_RESTART) else { return Ok(()) };
            match now.status.as_str() {
                "RUNNING" => return self.take_back(&now, promise).await,
                "STOPPED" if !is_started => is_started = self.start(&now, promise).await?,
                "STOPPED" => {}
                passing if PASSING.contains(&passing) => {}
                other => {
                    let message = format!("{} is {other}, and is not started from that", now.name);
                    return Err(EngineError::Failed(message));
                }
            }
            let Some(time) = looks.pause() else {
                let message = format!("{} is {} and not RUNNING", now.name, now.status);
                return Err(EngineError::Failed(message));
            };
            self.services.pause.pause(time).await;
        }
    }

    /// Takes a promise away that was kept, or that nobody needs. One that another run has given since
    /// stays.
    async fn take_back(&self, instance: &wire::Instance, promise: &str) -> Result<(), EngineError> {
        let remove = |labels: &mut BTreeMap<String, String>| {
            if labels.get(LABEL_RESTART).is_some_and(|there| there == promise) {
                labels.remove(LABEL_RESTART);
            }
        };
        self.label_instance(instance, remove, &Free).await
    }

    /// Starts an instance for the sake of a promise, and says whether it was: where something has
    /// changed meanwhile it is to be looked at again.
    async fn start(&self, instance: &wire::Instance, promise: &str) -> Result<bool, EngineError> {
        let path = format!("compute/v1/instances/{}:start", instance.id);
        let call = Call::post(&path).with_body(&json!({}))?;
        let is_promised = |now: &wire::Instance, was_open: bool| {
            let is_same = now.labels.get(LABEL_RESTART).is_some_and(|there| there == promise);
            is_same && (was_open || now.status == "STOPPED")
        };
        let turn = self.rooms.to_start(&instance.folder_id).await;
        let leave = self.as_seen(&instance.id, is_promised, &Free);
        let error = match self.change_machine(&turn, &call, promise, &leave).await {
            Ok(()) => return Ok(true),
            Err(error) if has_changed(&error) => return Ok(false),
            Err(error) => error,
        };
        // Another run may have been faster.
        let now = self.instance(&instance.id).await?;
        if now.status == "STOPPED" { Err(error.into()) } else { Ok(true) }
    }

    /// Carries out what machines stand still for: no longer than one may.
    async fn change_machine(
        &self,
        turn: &Turn,
        call: &Call,
        seen: &str,
        leave: &dyn Leave,
    ) -> Result<(), WaitError> {
        self.change_within(turn, call, seen, leave, STILL_MAX.unsigned_abs()).await.map(drop)
    }

    /// Changes labels of an instance as it is now: they go as a whole, so they are read right before each
    /// attempt, and nothing that somebody else has set since is put back.
    async fn label_instance(
        &self,
        instance: &wire::Instance,
        change: impl Fn(&mut BTreeMap<String, String>) + Send,
        beside: &dyn Leave,
    ) -> Result<(), EngineError> {
        let turn = self.rooms.to_start(&instance.folder_id).await;
        let path = format!("compute/v1/instances/{}", instance.id);
        for _ in 0..MERGES_MAX {
            let now = self.instance(&instance.id).await?;
            let mut labels = now.labels.clone();
            change(&mut labels);
            if labels == now.labels {
                return Ok(());
            }
            let body = json!({"updateMask": "labels", "labels": labels});
            let call = Call::new(Method::Patch, &path).with_body(&body)?;
            let holds =
                |it: &wire::Instance, _: bool| it.labels == now.labels || it.labels == labels;
            let leave = self.as_seen(&instance.id, holds, beside);
            let seen = format!("{:?} {}", now.labels, now.status);
            match self.change_machine(&turn, &call, &seen, &leave).await {
                // Nothing was sent: they are merged anew.
                Err(error) if has_changed(&error) => {}
                ended => ended?,
            }
        }
        let now = self.instance(&instance.id).await?;
        let mut labels = now.labels.clone();
        change(&mut labels);
        if labels == now.labels {
            return Ok(());
        }
        let message = format!("the labels of {} keep changing", instance.name);
        Err(EngineError::Busy(message))
    }

    /// Keeps what killed runs have promised: instances that are to run again and stand still for
    /// longer than they may. What another run is at now has not stood still for so long.
    pub(super) async fn keep_promises(&self) -> Result<Settled, EngineError> {
        let mut settled = Settled::default();
        for folder in &self.settings.folders {
            let call = Call::get("compute/v1/instances").with("folderId", folder);
            let (pages, error) = self.services.pages(&call).await;
            if let Some(error) = error {
                let message = format!(
                    "{folder}: it cannot be seen which machines were stopped for a capture: {error}"
                );
                tracing::error!("{message}");
                settled.standing.push(Standing { message, is_overdue: true });
            }
            let instances = pages.iter().flat_map(|page| &page.instances);
            let promised = instances.filter(|one| one.labels.contains_key(LABEL_RESTART));
            // One that does not start keeps no other waiting.
            let kept = join_all(promised.map(|instance| self.keep_promise(instance))).await;
            settled.standing.extend(kept.into_iter().flatten());
        }
        Ok(settled)
    }

    /// What is left of one of them.
    async fn keep_promise(&self, instance: &wire::Instance) -> Option<Standing> {
        let name = &instance.name;
        let in_time = |message: String| Some(Standing { message, is_overdue: false });
        let Some(_alone) = self.rooms.free_machine(&instance.id) else {
            return in_time(format!("{name} is captured at present, and runs again afterwards"));
        };
        let failed = |error: EngineError| {
            let message = format!(
                "{name} was stopped for a capture and does not run again: {error}; the next run tries again"
            );
            tracing::error!("{message}");
            Some(Standing { message, is_overdue: true })
        };
        // Its run may have ended since the list was read.
        let now = match self.instance(&instance.id).await {
            Ok(now) => now,
            Err(error) => return failed(error),
        };
        let until = now.labels.get(LABEL_RESTART)?;
        if !is_over(until, self.clock.now()) {
            return in_time(format!(
                "{name} was stopped for a capture; it must run again by {until}, and is started by the next run after that"
            ));
        }
        if let Err(error) = self.run_again(&now.id).await {
            return failed(error);
        }
        tracing::warn!(
            "{name} was stopped for a capture by a run that did not end, and runs again"
        );
        None
    }
}

/// Whether something was not sent because it was not as it was seen any more.
fn has_changed(error: &WaitError) -> bool {
    matches!(error, WaitError::Call(CallError::Withheld(EngineError::Changed)))
}
