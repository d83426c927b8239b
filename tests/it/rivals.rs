//! Another run that is at the same image at the same time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use stillframe::apply::{Ending, Stop};
use stillframe::clock::{Clock, FixedClock};
use stillframe::engine::{CreateRequest, Created, Engine, EngineError, Settled, Watcher};
use stillframe::inventory::{
    DrillCheck, EngineInventory, Gap, GapScope, LABEL_DRILLED, LABEL_HOLD, Stage,
};
use stillframe::plan::{Action, ImageRef, Plan, Update};
use stillframe::reconcile::Approval;

use super::engines::{Quiet, Yes, policies, room};
use super::memory::{MemoryEngine, instance};

/// What the other one does, while this run comes to an image.
#[derive(Clone, Copy, PartialEq)]
enum Rival {
    /// The same, in two steps.
    Same,
    /// Something else, once.
    Other,
    /// It deletes the image.
    Deletes,
    /// Nobody knows: the image is not in what is seen from then on, and not all is seen.
    Unseen,
    /// Something else to every image, again and again.
    Restless,
    /// The same, before this run comes to it.
    First,
}

/// An engine that another run uses as well.
struct Shared {
    inner: Arc<MemoryEngine>,
    rival: Rival,
    /// What this run wanted when it found the image changed.
    wanted: Mutex<Option<(ImageRef, Option<Update>)>>,
    /// Looks since then.
    looks: AtomicUsize,
}

impl Shared {
    /// The first step of the other one comes before that of this run.
    fn come_first(&self, image: &ImageRef, update: Option<&Update>) -> EngineError {
        let mut world = self.inner.world.lock().unwrap();
        let image_now = world.images.get_mut(image.id.as_ref().unwrap()).unwrap();
        "half".clone_into(&mut image_now.fingerprint);
        if update.is_some_and(|update| update.set_labels.contains_key(LABEL_DRILLED)) {
            image_now.labels.insert(LABEL_DRILLED.to_owned(), "20261101t060000z".to_owned());
        }
        *self.wanted.lock().unwrap() = Some((image.clone(), update.cloned()));
        EngineError::Changed
    }

    fn go_on(&self) {
        let wanted = self.wanted.lock().unwrap();
        let Some((image, update)) = &*wanted else { return };
        let look = self.looks.fetch_add(1, Ordering::SeqCst);
        let id = image.id.as_ref().unwrap();
        let mut world = self.inner.world.lock().unwrap();
        if self.rival == Rival::Restless {
            world.images.values_mut().for_each(|image| image.fingerprint = format!("look {look}"));
        }
        if look != 1 || !matches!(self.rival, Rival::Same | Rival::Deletes) {
            return;
        }
        let Some(update) = update.as_ref().filter(|_| self.rival == Rival::Same) else {
            world.images.remove(id);
            return;
        };
        let image_now = world.images.get_mut(id).unwrap();
        image_now.stage = update.stage_after;
        image_now.labels.extend(update.set_labels.clone());
        "whole".clone_into(&mut image_now.fingerprint);
    }
}

#[async_trait]
impl Engine for Shared {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn observe(&self) -> EngineInventory {
        self.go_on();
        let mut seen = self.inner.observe().await;
        if self.rival == Rival::Unseen
            && let Some((image, _)) = &*self.wanted.lock().unwrap()
        {
            seen.images.retain(|one| Some(&one.id) != image.id.as_ref());
            let (place, message) = ("zone-a".to_owned(), "no answer".to_owned());
            seen.gaps.push(Gap { scope: GapScope::Images, place, message });
        }
        seen
    }

    async fn create(
        &self,
        request: CreateRequest,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Created, EngineError> {
        self.inner.create(request, watcher).await
    }

    async fn update(
        &self,
        image: &ImageRef,
        update: &Update,
    ) -> Result<stillframe::inventory::Image, EngineError> {
        Err(self.come_first(image, Some(update)))
    }

    async fn delete(&self, image: &ImageRef) -> Result<(), EngineError> {
        Err(self.come_first(image, None))
    }

    async fn drill(
        &self,
        image: &ImageRef,
        check: DrillCheck,
        watcher: Arc<dyn Watcher>,
    ) -> Result<(), EngineError> {
        if self.rival != Rival::First {
            return self.inner.drill(image, check, watcher).await;
        }
        let mut world = self.inner.world.lock().unwrap();
        let image_now = world.images.get_mut(image.id.as_ref().unwrap()).unwrap();
        image_now.labels.insert(LABEL_DRILLED.to_owned(), "20261121t115958z".to_owned());
        "drilled".clone_into(&mut image_now.fingerprint);
        Err(EngineError::Changed)
    }

    async fn settle(&self) -> Result<Settled, EngineError> {
        self.inner.settle().await
    }
}

fn clock(day: i64) -> Arc<dyn Clock> {
    let first: jiff::Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    Arc::new(FixedClock(first + jiff::SignedDuration::from_hours(24 * day)))
}

/// What comes of a change that a run finds half done by another one, or changed for another purpose, and how
/// often it has looked.
async fn ended(action: Action, rival: Rival) -> (Ending, usize) {
    let inner = MemoryEngine::new(clock(0));
    inner.add(instance("web-1", &[]));
    if rival == Rival::Restless {
        inner.add(instance("web-2", &[]));
    }
    let directory = tempfile::tempdir().unwrap();
    let wanted = || policies("  retention: {last: 1}\n  lifecycle: {grace: 0}\n");
    // The second day deprecates, and the look after it deletes.
    let days = if action == Action::Delete { 2 } else { 1 };
    for day in 0..days {
        let room = room(inner.clone(), clock(day), wanted(), &directory);
        room.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
    }
    let day = if action == Action::Delete { 1 } else { days };
    let (wanted_by_run, looks) = (Mutex::new(None), AtomicUsize::new(0));
    let shared = Arc::new(Shared { inner, rival, wanted: wanted_by_run, looks });
    let room = room(shared.clone(), clock(day), wanted(), &directory);
    let (quiet, stop) = (Arc::new(Quiet), Stop::default());
    let round = tokio::time::timeout(Duration::from_hours(1), room.round(&Yes, quiet, &stop));
    let round = round.await.expect("nobody is waited for without an end");
    let is_it = |index: usize| round.plan.changes[index].action == action;
    let outcome = round.outcomes.into_iter().find(|outcome| is_it(outcome.change)).unwrap();
    (outcome.ending, shared.looks.load(Ordering::SeqCst))
}

#[tokio::test(start_paused = true)]
async fn what_another_run_is_doing_is_waited_for_and_no_failure() {
    for action in [Action::Deprecate, Action::Delete] {
        let (ending, _) = ended(action, Rival::Same).await;
        assert!(matches!(ending, Ending::Found { .. }), "{action:?}: {ending:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_has_made_of_an_image_is_left_alone() {
    for action in [Action::Deprecate, Action::Delete] {
        let (ending, looks) = ended(action, Rival::Other).await;
        let Ending::Failed { message } = &ending else { panic!("{action:?}: {ending:?}") };
        assert!(message.contains("has changed since the plan was made"), "{message}");
        // It stays as it is: nobody is at it, and the third look is that of the round after it.
        assert!((2..=3).contains(&looks), "{action:?}: {looks}");
    }
}

/// What comes of the drill of an image that this run has made.
async fn drilled(rival: Rival) -> Ending {
    let inner = MemoryEngine::new(clock(0));
    inner.add(instance("web-1", &[]));
    let directory = tempfile::tempdir().unwrap();
    let spec = "  retention: {last: 3}\n  drill: {cron: \"0 6 * * *\", check: restore}\n";
    let (wanted, looks) = (Mutex::new(None), AtomicUsize::new(0));
    let shared = Arc::new(Shared { inner, rival, wanted, looks });
    let room = room(shared, clock(0), policies(spec), &directory);
    let mut round = room.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
    let [create, drill] = &round.plan.changes[..] else { panic!("{:?}", round.plan.changes) };
    assert_eq!((create.action, drill.action), (Action::Create, Action::Drill));
    round.outcomes.pop().unwrap().ending
}

#[tokio::test(start_paused = true)]
async fn a_drill_that_another_run_has_done_is_no_failure_and_one_of_long_ago_is_none() {
    let ending = drilled(Rival::First).await;
    assert!(matches!(ending, Ending::Found { .. }), "{ending:?}");
    // Somebody has set a label; that the image was drilled is not written on it.
    let ending = drilled(Rival::Other).await;
    let Ending::Failed { message } = &ending else { panic!("{ending:?}") };
    assert!(message.contains("has changed since the plan was made"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn what_another_run_has_deleted_need_not_be_let_go() {
    let (ending, _) = ended(Action::Deprecate, Rival::Deletes).await;
    assert!(matches!(ending, Ending::Needless { .. }), "{ending:?}");
}

/// It may be there, and nobody has said that it is gone.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_seen_was_not_done_by_another_run() {
    for action in [Action::Deprecate, Action::Delete] {
        let (ending, looks) = ended(action, Rival::Unseen).await;
        assert!(matches!(ending, Ending::Failed { .. }), "{action:?}: {ending:?}");
        assert!(looks <= 2, "{action:?}: {looks}");
    }
}

/// What a round has not seen whole is no measure of what is missing in the next, whether the ledger is there
/// or not.
#[tokio::test(start_paused = true)]
async fn a_round_that_has_not_seen_all_does_not_say_how_much_there_is() {
    let inner = MemoryEngine::new(clock(0));
    inner.add(instance("web-1", &[]));
    inner.add(instance("web-2", &[]));
    let directory = tempfile::tempdir().unwrap();
    let spec = "  retention: {last: 3}\n";
    for day in 0..2 {
        let room = room(inner.clone(), clock(day), policies(spec), &directory);
        room.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
    }
    let id = inner.world.lock().unwrap().images.keys().next().unwrap().clone();
    let mut image = ImageRef::of(&inner.world.lock().unwrap().images[&id]);
    image.id = Some(id);
    let (wanted, looks) = (Mutex::new(Some((image, None))), AtomicUsize::new(0));
    let hidden = Arc::new(Shared { inner: inner.clone(), rival: Rival::Unseen, wanted, looks });
    let blind = room(hidden, clock(2), policies(spec), &directory);
    let round = blind.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
    assert_eq!((round.plan.engines[0].complete, round.plan.engines[0].images), (false, 3));
    // Before that there were two, and none of the third day.
    assert_eq!(blind.observe().await.engines[0].images_seen_before, Some(2));
    std::fs::remove_file(directory.path().join("ledger.ndjson")).unwrap();
    assert_eq!(blind.observe().await.engines[0].images_seen_before, None);
}

/// Two minutes are all there are for all images of an engine.
#[tokio::test(start_paused = true)]
async fn somebody_who_changes_images_all_the_time_is_not_waited_for() {
    for action in [Action::Deprecate, Action::Delete] {
        let (ending, looks) = ended(action, Rival::Restless).await;
        assert!(matches!(ending, Ending::Failed { .. }), "{action:?}: {ending:?}");
        assert!((60..=62).contains(&looks), "{action:?}: {looks}");
    }
}

/// Approves, and holds all that is there before anything of it is carried out.
struct Holding(Arc<MemoryEngine>);

#[async_trait]
impl Approval for Holding {
    async fn approve(&self, _: &Plan) -> bool {
        for image in self.0.world.lock().unwrap().images.values_mut() {
            image.labels.insert(LABEL_HOLD.to_owned(), "yes".to_owned());
            "held".clone_into(&mut image.fingerprint);
        }
        true
    }

    fn takes_time(&self) -> bool {
        false
    }
}

/// A look after the captures finds that nobody wants it any more, which is no failure.
#[tokio::test(start_paused = true)]
async fn what_somebody_holds_meanwhile_need_not_be_let_go() {
    let inner = MemoryEngine::new(clock(0));
    inner.add(instance("web-1", &[]));
    let directory = tempfile::tempdir().unwrap();
    let wanted = || policies("  retention: {last: 1}\n  lifecycle: {grace: 0}\n");
    let first = room(inner.clone(), clock(0), wanted(), &directory);
    first.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
    let second = room(inner.clone(), clock(1), wanted(), &directory);
    let round = second.round(&Holding(inner.clone()), Arc::new(Quiet), &Stop::default()).await;
    let outcomes = round.outcomes.iter();
    let ended: Vec<(Action, &Ending)> = outcomes
        .map(|outcome| (round.plan.changes[outcome.change].action, &outcome.ending))
        .collect();
    assert!(
        matches!(
            ended[..],
            [(Action::Create, Ending::Done { .. }), (Action::Deprecate, Ending::Needless { .. })]
        ),
        "{ended:#?}"
    );
    let world = inner.world.lock().unwrap();
    assert!(world.images.values().all(|image| image.stage == Stage::Active));
}
