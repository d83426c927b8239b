//! Deletes and changes are made only where all is as it was seen, whatever happens while they wait.

use jiff::SignedDuration;
use stillframe::inventory::{Image, LABEL_HOLD};

use super::*;

type Deed = Box<dyn FnOnce(&mut fake::State) + Send>;

/// Time passes in pauses, at each of which somebody may do something.
struct Meddling {
    state: Arc<Mutex<fake::State>>,
    clock: Arc<Passing>,
    deeds: Mutex<Vec<Deed>>,
}

/// A clock that is set on.
struct Passing(Mutex<Timestamp>);

impl Clock for Passing {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

#[async_trait]
impl Pause for Meddling {
    async fn pause(&self, time: Duration) {
        if let Some(deed) = self.deeds.lock().unwrap().pop() {
            deed(&mut self.state.lock().unwrap());
        }
        *self.clock.0.lock().unwrap() += time;
        tokio::task::yield_now().await;
    }
}

impl Case {
    /// An engine at whose first pause somebody does something.
    fn while_waiting(&self, deed: impl FnOnce(&mut fake::State) + Send + 'static) -> GceEngine {
        let clock = Arc::new(Passing(Mutex::new(now())));
        let pause = Arc::new(Meddling {
            state: self.fake.shared(),
            clock: Arc::clone(&clock),
            deeds: Mutex::new(vec![Box::new(deed)]),
        });
        open(&self.fake, "cloud", clock, pause, json!({"projects": ["p"]})).unwrap()
    }
}

/// Somebody sets a label of an image, as others do: the fingerprint is another one then.
fn label(state: &mut fake::State, collection: &str, index: usize, label: &str) {
    let image = state.images.get_mut(collection).unwrap().values_mut().nth(index).unwrap();
    image["labels"][label] = json!("yes");
    image["labelFingerprint"] = json!("theirs");
}

fn collection(kind: ImageKind) -> &'static str {
    match kind {
        ImageKind::MachineImage => "machineImages",
        ImageKind::DiskImage => "images",
        ImageKind::Snapshot => "snapshots",
    }
}

/// A restore point of that kind; a snapshot is one of two disks.
async fn made(case: &Case, kind: ImageKind) -> Image {
    let mut wanted = request(kind, 2);
    if kind == ImageKind::Snapshot {
        wanted.create.disks = vec!["boot".to_owned(), "data".to_owned()];
        wanted.create.disk_by_disk = true;
    }
    case.create(wanted).await.unwrap().image().clone()
}

const KINDS: [ImageKind; 3] = [ImageKind::MachineImage, ImageKind::DiskImage, ImageKind::Snapshot];

#[tokio::test]
async fn a_hold_that_is_set_while_a_delete_waits_is_heard() {
    for (kind, index) in KINDS.map(|kind| (kind, 0)).into_iter().chain([(ImageKind::Snapshot, 1)]) {
        let case = Case::new();
        let image = made(&case, kind).await;
        let count = case.count(collection(kind));
        let engine =
            case.while_waiting(move |state| label(state, collection(kind), index, LABEL_HOLD));
        case.wrong(&[Wrong::RateAtChange]);
        let ended = engine.delete(&ImageRef::of(&image)).await;
        assert_eq!(ended, Err(EngineError::Changed), "{kind:?} {index}");
        assert_eq!(case.count(collection(kind)), count);
        let seen = case.engine().observe().await.images;
        assert!(seen.len() == 1 && seen[0].is_held(now()), "{seen:#?}");
    }
}

/// Another run that deletes the same, before this one or beside it.
#[tokio::test]
async fn what_another_run_deletes_of_a_set_at_the_same_time_is_gone() {
    for wrong in [&[][..], &[Wrong::RateAtChange]] {
        let case = Case::new();
        let image = made(&case, ImageKind::Snapshot).await;
        let engine = case.while_waiting(|state| state.images.get_mut("snapshots").unwrap().clear());
        case.wrong(wrong);
        assert_eq!(engine.delete(&ImageRef::of(&image)).await, Ok(()), "{wrong:?}");
        assert_eq!(case.count("snapshots"), 0);
    }
}

#[tokio::test]
async fn what_is_used_since_a_delete_waits_is_not_deleted() {
    let case = Case::new();
    let image = made(&case, ImageKind::DiskImage).await;
    let name = image.name.clone();
    let engine = case.while_waiting(move |state| {
        let source =
            format!("https://www.googleapis.com/compute/v1/projects/p/global/images/{name}");
        let disks = json!([{"initializeParams": {"sourceImage": source}}]);
        state.templates = vec![json!({"name": "web", "properties": {"disks": disks}})];
    });
    case.wrong(&[Wrong::RateAtChange]);
    let ended = engine.delete(&ImageRef::of(&image)).await;
    let Err(EngineError::Refused(why)) = &ended else { panic!("{ended:?}") };
    assert!(why.ends_with("instance template web"), "{why}");
    assert_eq!(case.count("images"), 1);
}

#[tokio::test]
async fn a_hold_that_is_set_while_a_deprecation_waits_is_heard() {
    for (set_meanwhile, is_heard) in [(LABEL_HOLD, true), ("colour", false)] {
        let case = Case::new();
        let image = made(&case, ImageKind::DiskImage).await;
        let engine = case.while_waiting(move |state| label(state, "images", 0, set_meanwhile));
        case.wrong(&[Wrong::RateAtChange]);
        let deprecate = Update {
            stage_after: Stage::Deprecated,
            ..set("stillframe-let-go", "20261121t000000z")
        };
        let ended = engine.update(&ImageRef::of(&image), &deprecate).await;
        let seen = case.engine().observe().await.images.remove(0);
        assert_eq!(seen.labels[set_meanwhile], "yes");
        if is_heard {
            assert_eq!(ended, Err(EngineError::Changed));
            assert_eq!((seen.stage, seen.let_go_at()), (Stage::Active, None));
        } else {
            assert_eq!(ended.unwrap().stage, Stage::Deprecated);
            assert!(seen.let_go_at().is_some());
        }
    }
}

/// The stage is set, and before the mark that goes with it is, somebody sets a hold.
#[tokio::test]
async fn a_hold_that_is_set_between_stage_and_mark_is_heard() {
    let case = Case::new();
    let image = made(&case, ImageKind::DiskImage).await;
    let engine = case.while_waiting(|state| label(state, "images", 0, LABEL_HOLD));
    let deprecate =
        Update { stage_after: Stage::Deprecated, ..set("stillframe-let-go", "20261121t000000z") };
    let ended = engine.update(&ImageRef::of(&image), &deprecate).await;
    assert_eq!(ended, Err(EngineError::Changed));
    let seen = case.engine().observe().await.images.remove(0);
    assert!(seen.is_held(now()) && seen.let_go_at().is_none(), "{seen:#?}");
}

#[tokio::test]
async fn what_is_over_the_rate_is_asked_for_until_the_deadline_and_not_after_it() {
    // Forty seconds are left of the minute.
    for (seconds, is_made) in [(30, false), (50, true)] {
        let case = Case::new();
        let engine = case.while_waiting(|_| ());
        let mut wanted = machine_image(2);
        wanted.create.deadline = now() + SignedDuration::from_secs(seconds);
        case.wrong(&[Wrong::RateAtChange]);
        let made = engine.create(wanted, Arc::new(Unwatched)).await;
        if is_made {
            assert!(matches!(made, Ok(Created::Made(_))), "{made:?}");
        } else {
            let Err(EngineError::Busy(why)) = &made else { panic!("{made:?}") };
            assert!(why.contains("rateLimitExceeded") && why.contains("deadline"), "{why}");
            assert_eq!(case.count("machineImages"), 0);
        }
    }
}

/// Asks to stop as soon as it is told that something waits.
#[derive(Default)]
struct Impatient(std::sync::atomic::AtomicBool);

impl Watcher for Impatient {
    fn progress(&self, _: Progress) {}

    fn waits(&self, _: &str) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }

    fn is_cancelled(&self) -> bool {
        self.0.load(std::sync::atomic::Ordering::SeqCst)
    }
}

#[tokio::test]
async fn who_is_interrupted_does_not_wait_for_the_minute() {
    let case = Case::new();
    case.wrong(&[Wrong::RateAtChange]);
    let made = case.engine().create(machine_image(2), Arc::new(Impatient::default())).await;
    assert_eq!(made, Err(EngineError::Interrupted));
    assert!(case.pause.sum() < Duration::from_secs(6), "{:?}", case.pause.sum());
    assert_eq!(case.count("machineImages"), 0);
}
