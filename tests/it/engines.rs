//! One suite that every engine passes, written as a tour for whoever writes the next one.
//!
//! To put an engine through it, implement [`Bench`]: something that can open the engine on a world
//! with two instances, `web-1` and `web-2`. Each case ends with "plan again: nothing to do".

mod authors;
#[cfg(feature = "serve")]
mod served;
mod via;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use stillframe::apply::{Ending, Ledger, Listener, Outcome, Stop};
use stillframe::clock::{Clock, FixedClock};
use stillframe::engine::local::LocalEngine;
use stillframe::engine::{
    self, Author, CopyRequest, CreateRequest, Created, Engine, EngineError, Fault, Faulty,
    Progress, Unwatched, Watcher,
};
use stillframe::inventory::{
    DrillCheck, EngineInventory, Image, ImageKind, ImageState, LABEL_COPY, Stage, Via,
};
use stillframe::name::{Key, Ownership};
use stillframe::plan::{Action, Copy, Create, ImageRef, Plan, Update};
use stillframe::policy::{EngineKind, Policies, SourceFile, load};
use stillframe::reconcile::{Approval, Room, Round};

use super::gce::{Fake, Swift};
use super::memory::{MemoryEngine, instance};
use super::support::Datacenter;

/// A world with an engine on it. It may be opened several times, as several runs do.
trait Bench {
    fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Engine>;

    /// Damages what is stored of an image behind the engine's back.
    fn damage(&self, image: &Image);

    /// The id that an instance of that name has.
    fn id(&self, name: &str) -> String {
        name.to_owned()
    }

    /// Whether of two runs that ask for the same at once one is told that the other was faster. A
    /// service that knows requests again tells both the same.
    fn tells_runs_apart(&self) -> bool {
        true
    }

    /// What policies say of what is captured.
    fn capture(&self) -> &'static str {
        ""
    }

    /// A label that the engine has a place for.
    fn label(&self) -> &'static str {
        "colour"
    }

    /// The disks of `web-1` that are captured then.
    fn disks(&self) -> &'static [&'static str] {
        &["boot", "content", "data"]
    }

    /// The location of originals, and that of copies.
    fn locations(&self) -> [&'static str; 2] {
        ["local", "vault"]
    }
}

struct Memory(Arc<MemoryEngine>);

impl Bench for Memory {
    fn open(&self, _: Arc<dyn Clock>) -> Arc<dyn Engine> {
        self.0.clone()
    }

    fn damage(&self, image: &Image) {
        self.0.world.lock().unwrap().damaged.insert(image.id.clone());
    }
}

struct Local(Datacenter);

impl Bench for Local {
    fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Engine> {
        let settings = serde_json::json!({
            "instances": "examples/datacenter/instances",
            "store": "store",
            "locations": {"local": {}, "vault": {}},
            "createKeys": true,
        });
        let base = self.0.path("").canonicalize().unwrap();
        Arc::new(LocalEngine::open("memory", &settings, &base, clock).unwrap())
    }

    /// All images of a location share their pieces, so this damages all of them.
    fn damage(&self, image: &Image) {
        let packs = self.0.path(&format!("store/locations/{}/default/data", image.location));
        for directory in std::fs::read_dir(packs).unwrap() {
            for pack in std::fs::read_dir(directory.unwrap().path()).unwrap() {
                let pack = pack.unwrap().path();
                let mut bytes = std::fs::read(&pack).unwrap();
                // Behind the first piece's beginning; the header is at the end.
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                std::fs::write(&pack, bytes).unwrap();
            }
        }
    }
}

/// The engine for Compute Engine over a little of it, with one kind of image.
struct Gce(Fake, ImageKind, Via);

impl Bench for Gce {
    fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Engine> {
        self.0.state().now = clock.now();
        let settings = serde_json::json!({"projects": ["p"]});
        Arc::new(
            super::gce::open(&self.0, "memory", clock, Arc::new(Swift::default()), settings)
                .unwrap(),
        )
    }

    fn damage(&self, _: &Image) {}

    fn tells_runs_apart(&self) -> bool {
        false
    }

    fn capture(&self) -> &'static str {
        match self.1 {
            ImageKind::MachineImage => "",
            ImageKind::DiskImage if self.2 == Via::Snapshot => {
                "  capture: {kind: disk-image, via: snapshot, disks: boot}\n"
            }
            ImageKind::DiskImage => "  capture: {kind: disk-image, disks: boot}\n",
            ImageKind::Snapshot => "  capture: {kind: snapshot}\n",
        }
    }

    fn disks(&self) -> &'static [&'static str] {
        if self.1 == ImageKind::DiskImage { &["boot"] } else { &["boot", "data"] }
    }
}

fn gce(kind: ImageKind) -> Gce {
    let fake = super::gce::checked(noon(0));
    for name in ["web-1", "web-2"] {
        fake.state().add_instance("p", "zone-a", name, name);
    }
    Gce(fake, kind, Via::Disk)
}

fn memory() -> Memory {
    let engine = MemoryEngine::new(clock(0));
    engine.add(instance("web-1", &[("role", "web")]));
    engine.add(instance("web-2", &[("role", "web")]));
    Memory(engine)
}

/// Noon of a day in November 2026, counted from the 21st.
fn noon(day: i64) -> Timestamp {
    let first: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    first + jiff::SignedDuration::from_hours(24 * day)
}

fn clock(day: i64) -> Arc<dyn Clock> {
    Arc::new(FixedClock(noon(day)))
}

/// Policies for an engine named `memory`, whatever it really is.
pub fn policies(spec: &str) -> Policies {
    let kind = EngineKind {
        check: |_| Vec::new(),
        name: "memory",
        settings_schema: serde_json::json!({"type": "object"}),
        capabilities: |_| {
            let mut capabilities = super::memory::capabilities();
            capabilities.locations.push("p-vault".to_owned());
            capabilities
        },
    };
    let config =
        "apiVersion: stillframe/v1\nkind: Config\nspec:\n  engines: {memory: {memory: {}}}\n";
    let policy = format!(
        "apiVersion: stillframe/v1\nkind: BackupPolicy\nmetadata: {{name: nightly}}\nspec:\n  \
         source: {{match: [{{names: [\"web-*\"]}}]}}\n  schedule: {{cron: \"0 2 * * *\"}}\n{spec}"
    );
    let files = [("stillframe.yaml", config), ("nightly.yaml", policy.as_str())]
        .map(|(path, text)| SourceFile { path: path.to_owned(), text: text.to_owned() });
    let loaded = load(files.to_vec(), &[kind]);
    loaded.policies.unwrap_or_else(|| panic!("{:?}", loaded.findings))
}

pub struct Yes;

#[async_trait]
impl Approval for Yes {
    async fn approve(&self, _: &Plan) -> bool {
        true
    }

    fn takes_time(&self) -> bool {
        false
    }
}

/// Approves once another run has carried out the same plan.
struct Meanwhile(Room);

#[async_trait]
impl Approval for Meanwhile {
    async fn approve(&self, _: &Plan) -> bool {
        self.0.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
        true
    }

    fn takes_time(&self) -> bool {
        false
    }
}

pub struct Quiet;

impl Listener for Quiet {
    fn began(&self, _: usize) {}
    fn progress(&self, _: usize, _: Progress) {}
    fn ended(&self, _: usize, _: &Ending) {}
}

/// The host of all runs that do not say otherwise.
pub const HOST: &str = "here";

/// A room with one engine at one time.
pub fn room(
    engine: Arc<dyn Engine>,
    clock: Arc<dyn Clock>,
    policies: Policies,
    directory: &tempfile::TempDir,
) -> Room {
    let ledger = Arc::new(Ledger::new(directory.path().join("ledger.ndjson")));
    Room {
        policies: Arc::new(policies),
        engines: vec![engine],
        clock,
        ledger,
        overrides: Vec::new(),
        caution: None,
        recurrence: None,
        author: Author::new(HOST),
    }
}

/// What every case needs.
struct Case {
    bench: Box<dyn Bench>,
    directory: tempfile::TempDir,
    spec: &'static str,
}

impl Case {
    /// Policies that capture what the bench captures.
    fn policies_of(&self, spec: &str) -> Policies {
        let [_, vault] = self.bench.locations();
        let spec = spec.replace("[vault]", &format!("[{vault}]"));
        policies(&format!("{}{spec}", self.bench.capture()))
    }

    fn policies(&self) -> Policies {
        self.policies_of(self.spec)
    }

    fn room(&self, day: i64) -> Room {
        let clock = clock(day);
        room(self.bench.open(Arc::clone(&clock)), clock, self.policies(), &self.directory)
    }

    async fn round(&self, day: i64) -> Round {
        self.room(day).round(&Yes, Arc::new(Quiet), &Stop::default()).await
    }

    async fn observe(&self, day: i64) -> EngineInventory {
        self.bench.open(clock(day)).observe().await
    }

    /// Plan again: nothing to do.
    async fn nothing_to_do(&self, day: i64) {
        let room = self.room(day);
        let inventory = room.observe().await;
        let plan = room.plan(&inventory, noon(day));
        assert_eq!(plan.changes, [], "{:#?}", plan.changes);
        assert_eq!(plan.refusals, []);
    }

    fn request(&self, day: i64) -> CreateRequest {
        let policies = self.policies();
        let policy = &policies.policies[0];
        let key = stillframe::name::Key {
            policy: policy.name.clone(),
            source: stillframe::name::SourceId::parse(&self.bench.id("web-1")).unwrap(),
            slot: policy.schedule.last_slot(noon(day)).unwrap(),
        };
        CreateRequest {
            name: key.image_name(&key.default_prefix()),
            location: "local".to_owned(),
            create: Create {
                kind: policy.capture.kind,
                consistency: stillframe::inventory::Consistency::Crash,
                kms_key: None,
                disks: self.bench.disks().iter().map(|disk| (*disk).to_owned()).collect(),
                disk_by_disk: false,
                one_instant: Vec::new(),
                companion: None,
                // A plan that takes the one disk that `web-1` starts from leaves out the other, whatever
                // that is called here.
                excluded_disks: if self.bench.disks().len() == 1 {
                    vec!["content".to_owned(), "data".to_owned()]
                } else {
                    Vec::new()
                },
                disk_bytes: 0,
                labels: key.labels(),
                description: "a description".to_owned(),
                deadline: noon(day + 1),
                replaces: None,
                problems: Vec::new(),
                family: None,
                sharing: None,
                tier: None,
                via: policy.capture.via,
            },
            by: Author::new(HOST),
            key,
        }
    }

    /// An original, and what is asked for to copy it to the vault.
    async fn copy_request(&self) -> (Image, CopyRequest) {
        let engine = self.bench.open(clock(0));
        let created = engine.create(self.request(0), Arc::new(Unwatched)).await.unwrap();
        let original = created.image().clone();
        let Ownership::Ours(key) = original.ownership() else { panic!("it is ours") };
        let mut labels = key.labels();
        labels.insert(LABEL_COPY.to_owned(), "yes".to_owned());
        let [_, vault] = self.bench.locations();
        let copy = Copy {
            name: key.copy_name(&key.default_prefix(), vault),
            location: vault.to_owned(),
            kms_key: None,
            labels,
            sharing: None,
            replaces: None,
        };
        (
            original.clone(),
            CopyRequest { key, image: ImageRef::of(&original), copy, by: Author::new(HOST) },
        )
    }

    /// Whether the engine can do what a case is about; where it cannot, that stands in `skips.txt`, and
    /// where it can, it does not.
    async fn can(&self, what: &str, can: impl Fn(&EngineInventory) -> bool) -> bool {
        let can = can(&self.observe(0).await);
        let thread = std::thread::current();
        let bench = thread.name().and_then(|name| name.rsplit("::").next()).unwrap_or_default();
        let list = include_str!("../golden/skips.txt");
        let skips = list.lines().filter_map(|line| line.split_once(": "));
        let mut without =
            skips.filter(|(named, _)| *named == what).flat_map(|(_, benches)| benches.split(' '));
        let is_listed = without.any(|listed| listed == bench);
        // With a single thread for all tests nobody knows which one this is.
        if bench != "main" {
            assert_eq!(can, !is_listed, "{what} with {bench}: not as in tests/golden/skips.txt");
        }
        can
    }

    /// One of two runs at once has made it; that it was the only one, not all engines tell.
    fn one_made(&self, one: &Created, other: &Created) {
        let made = [one, other].map(|created| matches!(created, Created::Made(_)));
        assert!(made[0] || made[1]);
        assert!(made[0] != made[1] || !self.bench.tells_runs_apart());
    }

    /// Of two hosts at once one has made it, and the other one says which. Back comes that one.
    fn maker(came: [(&str, &Created); 2]) -> Option<Author> {
        let made = came.iter().filter(|(_, created)| matches!(created, Created::Made(_)));
        let [(maker, _)] = made.collect::<Vec<_>>()[..] else { panic!("{came:?}") };
        let maker = Author::new(maker);
        for (_, created) in came {
            if let Created::Found { by, .. } = created {
                assert_eq!(*by, maker, "{came:?}");
            }
        }
        maker
    }

    async fn can_copy(&self) -> bool {
        let kind = self.policies().policies[0].capture.kind;
        self.can("copies", |inventory| inventory.capabilities.can_copy(kind)).await
    }

    async fn can_drill(&self, check: DrillCheck) -> bool {
        let offers = |inventory: &EngineInventory| inventory.capabilities.drills.contains(&check);
        self.can(&format!("drill by {}", check.word()), offers).await
    }
}

/// Originals or copies.
fn only(images: &[Image], copies: bool) -> Vec<Image> {
    images.iter().filter(|image| image.is_copy() == copies).cloned().collect()
}

fn key_of(image: &Image) -> Key {
    match image.ownership() {
        Ownership::Ours(key) => key,
        other => panic!("{other:?}"),
    }
}

/// Writes to a disk as soon as it is read.
struct WritesMeanwhile(std::path::PathBuf);

impl Watcher for WritesMeanwhile {
    fn progress(&self, _: Progress) {
        let disk = std::fs::File::options().write(true).open(&self.0).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&disk, b"x", 4096).unwrap();
    }
}

#[tokio::test]
async fn a_disk_that_is_written_while_it_is_read_makes_no_image() {
    let bench = Local(Datacenter::new());
    let disk = bench.0.path("examples/datacenter/disks/web-1-boot.raw");
    let engine = bench.open(clock(0));
    let case = Case { bench: Box::new(bench), directory: tempfile::tempdir().unwrap(), spec: "" };
    let request = case.request(0);
    match engine.create(request, Arc::new(WritesMeanwhile(disk))).await {
        Err(EngineError::Failed(message)) => {
            assert!(message.contains("changed while it was read"), "{message}");
            let images = case.observe(0).await.images;
            assert!(images.iter().all(|image| image.state == ImageState::Failed));
        }
        // A clone was read, which nobody writes to.
        Ok(created) => {
            let store = engine.store().unwrap();
            let record = store.record(&created.image().name).await.unwrap();
            assert_eq!(record["disks"][0]["pointInTime"], "reflink");
        }
        Err(error) => panic!("{error}"),
    }
}

/// Has enough as soon as something was done.
#[derive(Default)]
struct HasEnough(std::sync::atomic::AtomicBool);

impl Watcher for HasEnough {
    fn progress(&self, _: Progress) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }

    fn is_cancelled(&self) -> bool {
        self.0.load(std::sync::atomic::Ordering::SeqCst)
    }
}

#[tokio::test]
async fn copies_and_drills_that_are_given_up_leave_nothing() {
    let bench = Box::new(Local(Datacenter::new()));
    let case = Case { bench, directory: tempfile::tempdir().unwrap(), spec: "" };
    let (original, request) = case.copy_request().await;
    let engine = case.bench.open(clock(0));
    let given_up = engine.copy(request.clone(), Arc::new(HasEnough::default())).await;
    assert_eq!(given_up, Err(EngineError::Interrupted));
    assert_eq!(case.observe(0).await.images, std::slice::from_ref(&original));
    assert!(engine.settle().await.unwrap().postponed.is_empty());
    for check in [DrillCheck::Verify, DrillCheck::Restore] {
        let has_enough = Arc::new(HasEnough::default());
        let given_up = engine.drill(&ImageRef::of(&original), check, has_enough).await;
        assert_eq!(given_up, Err(EngineError::Interrupted));
    }
    assert_eq!(case.observe(0).await.images, [original]);
    let made = engine.copy(request, Arc::new(Unwatched)).await.unwrap();
    assert!(matches!(made, Created::Made(_)));
}

/// The suite: its name, what the policy says, and the case.
macro_rules! suite {
    ($($name:ident($spec:expr, $case:ident) $body:block)*) => {
        $(
            mod $name {
                use super::*;

                async fn check($case: Case) $body

                #[tokio::test]
                async fn memory_engine() {
                    check(Case { bench: Box::new(memory()), directory: tempfile::tempdir().unwrap(), spec: $spec }).await;
                }

                #[tokio::test]
                async fn gce_engine() {
                    let bench = Box::new(gce(ImageKind::MachineImage));
                    check(Case { bench, directory: tempfile::tempdir().unwrap(), spec: $spec }).await;
                }

                #[tokio::test]
                async fn gce_engine_with_disk_images() {
                    let bench = Box::new(gce(ImageKind::DiskImage));
                    check(Case { bench, directory: tempfile::tempdir().unwrap(), spec: $spec }).await;
                }

                #[tokio::test]
                async fn gce_engine_with_disk_images_via_snapshots() {
                    let mut bench = Box::new(gce(ImageKind::DiskImage));
                    bench.2 = Via::Snapshot;
                    check(Case { bench, directory: tempfile::tempdir().unwrap(), spec: $spec }).await;
                }

                #[tokio::test]
                async fn gce_engine_with_sets_of_snapshots() {
                    let bench = Box::new(gce(ImageKind::Snapshot));
                    check(Case { bench, directory: tempfile::tempdir().unwrap(), spec: $spec }).await;
                }

                #[cfg(feature = "serve")]
                #[tokio::test]
                async fn gce_engine_and_server() {
                    let bench = Box::new(served::Served::gce());
                    check(Case { bench, directory: tempfile::tempdir().unwrap(), spec: $spec }).await;
                }

                #[cfg(feature = "serve")]
                #[tokio::test]
                async fn gce_engine_with_sets_of_snapshots_and_server() {
                    let bench = Box::new(served::Served::gce_with_sets());
                    check(Case { bench, directory: tempfile::tempdir().unwrap(), spec: $spec }).await;
                }

                #[cfg(feature = "serve")]
                #[tokio::test]
                async fn gce_engine_with_disk_images_via_snapshots_and_server() {
                    let bench = Box::new(served::Served::gce_via_snapshot());
                    check(Case { bench, directory: tempfile::tempdir().unwrap(), spec: $spec }).await;
                }

                #[cfg(feature = "serve")]
                #[tokio::test]
                async fn yandex_engine_with_sets_and_server() {
                    let bench = Box::new(served::Served::yandex());
                    check(Case { bench, directory: tempfile::tempdir().unwrap(), spec: $spec }).await;
                }

                #[cfg(feature = "serve")]
                #[tokio::test]
                async fn yandex_engine_with_disk_images_and_server() {
                    let bench = Box::new(served::Served::yandex_with_disk_images());
                    check(Case { bench, directory: tempfile::tempdir().unwrap(), spec: $spec }).await;
                }

                #[cfg(feature = "serve")]
                #[tokio::test]
                async fn yandex_engine_with_disk_images_via_snapshots_and_server() {
                    let bench = Box::new(served::Served::yandex_via_snapshot());
                    check(Case { bench, directory: tempfile::tempdir().unwrap(), spec: $spec }).await;
                }

                #[cfg(feature = "serve")]
                #[tokio::test]
                async fn twcc_engine_and_server() {
                    let bench = Box::new(served::Served::twcc_with_system_disks());
                    check(Case { bench, directory: tempfile::tempdir().unwrap(), spec: $spec }).await;
                }

                #[cfg(feature = "serve")]
                #[tokio::test]
                async fn twcc_engine_with_sets_and_server() {
                    let bench = Box::new(served::Served::twcc());
                    check(Case { bench, directory: tempfile::tempdir().unwrap(), spec: $spec }).await;
                }

                #[tokio::test]
                async fn local_engine() {
                    let bench = Box::new(Local(Datacenter::new()));
                    check(Case { bench, directory: tempfile::tempdir().unwrap(), spec: $spec }).await;
                }
            }
        )*
    };
}

suite! {
    an_engine_is_seen_whole("", case) {
        let inventory = case.observe(0).await;
        assert!(inventory.is_complete(), "{:?}", inventory.gaps);
        assert!(inventory.instances.iter().any(|instance| instance.id.as_str() == case.bench.id("web-1")));
        assert!(inventory.instances.is_sorted_by_key(|instance| instance.id.clone()));
    }

    a_round_makes_what_is_due_and_a_second_one_nothing("", case) {
        let round = case.round(0).await;
        assert_eq!(round.plan.summary.create, 2);
        let is_done = |ending: &Ending| matches!(ending, Ending::Done { .. });
        assert!(round.outcomes.iter().all(|one| is_done(&one.ending)), "{:?}", round.outcomes);
        case.nothing_to_do(0).await;
        assert_eq!(case.round(0).await.outcomes, []);
        let inventory = case.observe(0).await;
        assert!(inventory.images.iter().all(|image| image.state == ImageState::Ready));
        assert_eq!(inventory.images.len(), 2);
    }

    creating_twice_makes_one("", case) {
        let engine = case.bench.open(clock(0));
        let request = case.request(0);
        let first = engine.create(request.clone(), Arc::new(Unwatched)).await.unwrap();
        assert!(matches!(first, Created::Made(_)));
        let again = case.bench.open(clock(0)).create(request.clone(), Arc::new(Unwatched)).await.unwrap();
        assert!(matches!(&again, Created::Found { image, .. } if image.id == first.image().id));
        // What comes back carries the key that was asked for.
        assert_eq!(again.image().ownership(), stillframe::name::Ownership::Ours(request.key));
        case.round(0).await;
        case.nothing_to_do(0).await;
    }

    creating_at_the_same_time_makes_one("", case) {
        let request = case.request(0);
        let (one, other) = (case.bench.open(clock(0)), case.bench.open(clock(0)));
        let (one, other) = tokio::join!(
            one.create(request.clone(), Arc::new(Unwatched)),
            other.create(request.clone(), Arc::new(Unwatched)),
        );
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!(one.image().id, other.image().id);
        case.one_made(&one, &other);
        case.round(0).await;
        case.nothing_to_do(0).await;
    }

    of_two_hosts_at_the_same_time_one_makes_it_and_the_other_one_says_which("", case) {
        let request = |host: &str| CreateRequest { by: Author::new(host), ..case.request(0) };
        let (one, other) = (case.bench.open(clock(0)), case.bench.open(clock(0)));
        let (one, other) = tokio::join!(
            one.create(request("ci-7"), Arc::new(Unwatched)),
            other.create(request("watch.example.com"), Arc::new(Unwatched)),
        );
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!(one.image().id, other.image().id);
        let maker = Case::maker([("ci-7", &one), ("watch.example.com", &other)]);
        let again = case.bench.open(clock(0)).create(request(HOST), Arc::new(Unwatched)).await.unwrap();
        assert!(matches!(&again, Created::Found { by, .. } if *by == maker), "{again:?}");
        assert_eq!(again.image().id, one.image().id);
        case.round(0).await;
        case.nothing_to_do(0).await;
        assert_eq!(case.observe(0).await.images.len(), 2);
    }

    of_two_hosts_at_the_same_time_one_copies_and_the_other_one_says_which("", case) {
        if !case.can_copy().await {
            return;
        }
        let (_, request) = case.copy_request().await;
        let request = |host: &str| CopyRequest { by: Author::new(host), ..request.clone() };
        let (one, other) = (case.bench.open(clock(0)), case.bench.open(clock(0)));
        let (one, other) = tokio::join!(
            one.copy(request("ci-7"), Arc::new(Unwatched)),
            other.copy(request("watch.example.com"), Arc::new(Unwatched)),
        );
        let (one, other) = (one.unwrap(), other.unwrap());
        let maker = Case::maker([("ci-7", &one), ("watch.example.com", &other)]);
        let again = case.bench.open(clock(0)).copy(request(HOST), Arc::new(Unwatched)).await.unwrap();
        assert!(matches!(&again, Created::Found { by, .. } if *by == maker), "{again:?}");
        assert_eq!(only(&case.observe(0).await.images, true), [one.image().clone()]);
    }

    a_name_of_another_restore_point_is_refused("", case) {
        let engine = case.bench.open(clock(0));
        let mut request = case.request(0);
        engine.create(request.clone(), Arc::new(Unwatched)).await.unwrap();
        request.key.slot = stillframe::name::Slot::at(noon(-5));
        request.create.labels = request.key.labels();
        let refused = engine.create(request.clone(), Arc::new(Unwatched)).await;
        assert_eq!(refused, Err(EngineError::NameTaken(request.name)));
        case.round(0).await;
        case.nothing_to_do(0).await;
    }

    stage_and_labels_change_and_nothing_else("", case) {
        case.round(0).await;
        let engine = case.bench.open(clock(0));
        let before = case.observe(0).await.images[0].clone();
        let update = Update {
            stage_before: Stage::Active,
            stage_after: Stage::Deprecated,
            set_labels: BTreeMap::from([(case.bench.label().to_owned(), "blue".to_owned())]),
            ..Update::default()
        };
        let changed = engine.update(&ImageRef::of(&before), &update).await.unwrap();
        let seen = case.observe(0).await.images.into_iter().find(|image| image.id == before.id).unwrap();
        // Which disks it holds is known to whoever has looked at the machines.
        let changed = Image { disks: seen.disks.clone(), ..changed };
        assert_eq!(seen, changed);
        assert_ne!(seen.fingerprint, before.fingerprint);
        assert_eq!(seen.labels.get(case.bench.label()).map(String::as_str), Some("blue"));
        let back = Update {
            stage_before: Stage::Deprecated,
            stage_after: Stage::Active,
            set_labels: BTreeMap::new(),
            remove_labels: vec![case.bench.label().to_owned(), "never-there".to_owned()],
            ..Update::default()
        };
        let back = engine.update(&ImageRef::of(&seen), &back).await.unwrap();
        let plain = |image: Image| Image { fingerprint: String::new(), disks: None, ..image };
        assert_eq!(plain(back), plain(before));
        case.nothing_to_do(0).await;
    }

    nothing_is_done_to_an_image_that_has_changed("", case) {
        case.round(0).await;
        let engine = case.bench.open(clock(0));
        let image = case.observe(0).await.images[0].clone();
        let label = case.bench.label();
        let set = |value: &str| Update { set_labels: BTreeMap::from([(label.to_owned(), value.to_owned())]), ..Update::default() };
        let update = set("b");
        engine.update(&ImageRef::of(&image), &update).await.unwrap();
        // Another run that does the same finds it done.
        let again = engine.update(&ImageRef::of(&image), &update).await.unwrap();
        assert_eq!(again.labels[label], "b");
        let other = set("c");
        assert_eq!(engine.update(&ImageRef::of(&image), &other).await, Err(EngineError::Changed));
        assert_eq!(engine.delete(&ImageRef::of(&image)).await, Err(EngineError::Changed));
        let mut nowhere = ImageRef::of(&image);
        nowhere.id = Some("12".to_owned());
        assert_eq!(engine.delete(&nowhere).await, Err(EngineError::NotFound));
        assert_eq!(case.observe(0).await.images.len(), 2);
        case.nothing_to_do(0).await;
    }

    deleting_takes_one_image_for_good("", case) {
        case.round(0).await;
        let engine = case.bench.open(clock(0));
        let images = case.observe(0).await.images;
        engine.delete(&ImageRef::of(&images[0])).await.unwrap();
        assert_eq!(engine.delete(&ImageRef::of(&images[0])).await, Err(EngineError::NotFound));
        engine.settle().await.unwrap();
        let left = case.observe(0).await.images;
        assert_eq!(left, images[1..]);
        case.round(0).await;
        case.nothing_to_do(0).await;
    }

    points_are_deprecated_and_then_deleted("  retention: {last: 2}\n  lifecycle: {grace: 1d}\n", case) {
        for day in 0..2 {
            case.round(day).await;
            case.nothing_to_do(day).await;
        }
        let third = case.round(2).await;
        assert_eq!((third.plan.summary.create, third.plan.summary.deprecate, third.plan.summary.delete), (2, 2, 0));
        case.nothing_to_do(2).await;
        let oldest = case.observe(2).await.images[0].clone();
        assert_eq!(oldest.stage, Stage::Deprecated);
        assert_eq!(oldest.let_go_at(), Some(noon(2)));
        let fourth = case.round(3).await;
        assert_eq!((fourth.plan.summary.deprecate, fourth.plan.summary.delete), (2, 2));
        assert!(fourth.plan.changes.iter().rev().take(2).all(|change| change.action == Action::Delete));
        case.nothing_to_do(3).await;
        assert_eq!(case.observe(3).await.images.len(), 6);
    }

    a_reply_that_was_lost_makes_no_second_image("", case) {
        let faulty = Arc::new(Faulty::new(case.bench.open(clock(0)), vec![Fault::CreateReplyLost]));
        let room = room(faulty.clone(), clock(0), case.policies(), &case.directory);
        let round = room.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
        assert_eq!(faulty.happened(), 1);
        assert_eq!(round.outcomes.iter().filter(|outcome| matches!(outcome.ending, Ending::Failed { .. })).count(), 1);
        case.round(0).await;
        case.nothing_to_do(0).await;
        assert_eq!(case.observe(0).await.images.len(), 2);
    }

    a_grace_that_begins_anew_begins_after_the_captures("  retention: {last: 2}\n  lifecycle: {grace: 3d}\n", case) {
        for day in 0..3 {
            case.round(day).await;
        }
        let oldest = case.observe(2).await.images[0].clone();
        assert_eq!(oldest.let_go_at(), Some(noon(2)));
        // Widened, the point is kept until the coming one is there, long after its first grace.
        let wide = case.policies_of("  retention: {last: 3}\n  lifecycle: {grace: 3d}\n");
        let mut room = case.room(7);
        room.policies = Arc::new(wide);
        let round = room.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
        assert!(round.outcomes.iter().all(|outcome| outcome.ending.is_settled()), "{:?}", round.outcomes);
        let image = |images: Vec<Image>| images.into_iter().find(|image| image.id == oldest.id);
        assert_eq!(image(case.observe(7).await.images).unwrap().let_go_at(), Some(noon(7)));
        let again = room.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
        assert_eq!(again.plan.summary.delete, 0);
        assert!(image(case.observe(7).await.images).is_some());
    }

    what_a_guard_refuses_is_not_deleted("  retention: {last: 1}\n  lifecycle: {grace: 0}\n", case) {
        for day in 0..2 {
            case.round(day).await;
        }
        let mut strict = case.room(1);
        Arc::make_mut(&mut strict.policies).config.guards.engine_count = 0;
        let before = case.observe(1).await.images.len();
        let round = strict.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
        assert_eq!(round.plan.summary.delete, 2);
        assert!(round.outcomes.iter().filter(|outcome| outcome.ending == Ending::Refused).count() == 2);
        assert_eq!(case.observe(1).await.images.len(), before);
        let round = case.round(1).await;
        assert_eq!(round.plan.summary.delete, 2);
        assert_eq!(case.observe(1).await.images.len(), before - 2);
    }

    what_is_gone_when_captures_have_ended_deletes_nothing("  retention: {last: 1}\n  lifecycle: {grace: 0}\n", case) {
        for day in 0..2 {
            case.round(day).await;
        }
        // The first look sees everything, the second one not.
        let faulty = Arc::new(Faulty::new(case.bench.open(clock(2)), vec![Fault::SecondListingCutOff]));
        let room = room(faulty.clone(), clock(2), case.policies(), &case.directory);
        let round = room.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
        assert_eq!(faulty.happened(), 1);
        assert!(round.plan.summary.delete > 0 && round.plan.summary.create > 0);
        for outcome in &round.outcomes {
            let action = round.plan.changes[outcome.change].action;
            assert_eq!(outcome.ending.is_done(), action == Action::Create, "{outcome:?}");
        }
    }

    a_restore_point_and_its_copy_are_made_in_one_round("  storage: {copies: [vault]}\n", case) {
        if !case.can_copy().await {
            return;
        }
        let round = case.round(0).await;
        assert_eq!((round.plan.summary.create, round.plan.summary.copy), (2, 2));
        assert!(round.outcomes.iter().all(|outcome| matches!(outcome.ending, Ending::Done { .. })), "{:?}", round.outcomes);
        case.nothing_to_do(0).await;
        let images = case.observe(0).await.images;
        let (originals, copies) = (only(&images, false), only(&images, true));
        assert_eq!((originals.len(), copies.len()), (2, 2));
        for (original, copy) in originals.iter().zip(&copies) {
            assert_eq!([original.location.as_str(), copy.location.as_str()], case.bench.locations());
            assert_ne!(original.id, copy.id);
            assert_ne!(original.name, copy.name);
            assert_eq!(key_of(original), key_of(copy));
            assert_eq!(copy.state, ImageState::Ready);
            assert_eq!((&original.source, original.disk_bytes, original.created_at), (&copy.source, copy.disk_bytes, copy.created_at));
            let outcome = round.outcomes.iter().find_map(|outcome| match &outcome.ending {
                Ending::Done { image: Some(image) } if image.id == copy.id => Some(image),
                _ => None,
            });
            assert_eq!(outcome.map(|image| &**image), Some(copy));
        }
    }

    copying_twice_makes_one("", case) {
        if !case.can_copy().await {
            return;
        }
        let (original, request) = case.copy_request().await;
        let (one, other) = (case.bench.open(clock(0)), case.bench.open(clock(0)));
        let (one, other) = tokio::join!(
            one.copy(request.clone(), Arc::new(Unwatched)),
            other.copy(request.clone(), Arc::new(Unwatched)),
        );
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!(one.image(), other.image());
        case.one_made(&one, &other);
        // However much later, and whatever has become of the original.
        let engine = case.bench.open(clock(1));
        engine.delete(&ImageRef::of(&original)).await.unwrap();
        let again = engine.copy(request, Arc::new(Unwatched)).await.unwrap();
        assert_eq!(again, Created::Found { image: one.image().clone(), by: Author::new(HOST) });
        assert_eq!(case.observe(1).await.images, [one.image().clone()]);
    }

    a_copy_in_the_way_of_another_or_of_what_has_changed_is_not_made("", case) {
        if !case.can_copy().await {
            return;
        }
        let (original, request) = case.copy_request().await;
        let engine = case.bench.open(clock(0));
        let mut taken = request.clone();
        taken.copy.name.clone_from(&original.name);
        taken.copy.location.clone_from(&original.location);
        let refused = engine.copy(taken, Arc::new(Unwatched)).await;
        match original.location.as_str() {
            // Where copies are is where nothing else is.
            "" => assert!(matches!(refused, Err(EngineError::Refused(_))), "{refused:?}"),
            _ => assert_eq!(refused, Err(EngineError::NameTaken(original.name.clone()))),
        }
        let mut nowhere = request.clone();
        nowhere.image.id = Some("12".to_owned());
        assert_eq!(engine.copy(nowhere, Arc::new(Unwatched)).await, Err(EngineError::NotFound));
        let update = Update { set_labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]), ..Update::default() };
        let changed = engine.update(&ImageRef::of(&original), &update).await.unwrap();
        assert_eq!(engine.copy(request, Arc::new(Unwatched)).await, Err(EngineError::Changed));
        let seen = case.observe(0).await.images;
        let changed = Image { disks: seen[0].disks.clone(), ..changed };
        assert_eq!(seen, [changed]);
    }

    an_original_is_deleted_only_with_its_copy("  storage: {copies: [vault]}\n  retention: {last: 1}\n  lifecycle: {grace: 0}\n", case) {
        if !case.can_copy().await {
            return;
        }
        for day in 0..3 {
            let script = vec![Fault::CopyFails; 8];
            let faulty = Arc::new(Faulty::new(case.bench.open(clock(day)), script));
            let room = room(faulty, clock(day), case.policies(), &case.directory);
            for _ in 0..2 {
                let round = room.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
                assert_eq!(round.plan.summary.delete, 0);
            }
        }
        assert_eq!(case.observe(2).await.images.len(), 6);
        // Only what is kept is copied: that is newer than all that is let go.
        let round = case.round(2).await;
        assert_eq!((round.plan.summary.copy, round.plan.summary.delete), (2, 0));
        let round = case.round(2).await;
        assert_eq!((round.plan.summary.copy, round.plan.summary.delete), (0, 4));
        case.nothing_to_do(2).await;
        let images = case.observe(2).await.images;
        assert_eq!((only(&images, false).len(), only(&images, true).len()), (2, 2));
    }

    copies_follow_the_rules_of_their_originals("  storage: {copies: [vault]}\n  retention: {last: 3}\n  lifecycle: {grace: 1d}\n", case) {
        if !case.can_copy().await {
            return;
        }
        for day in 0..5 {
            let round = case.round(day).await;
            assert_eq!((round.plan.summary.create, round.plan.summary.copy), (2, 2), "day {day}");
            // A copy is let go with the coming one, as its original is.
            let (deprecate, delete) = match day { 0..3 => (0, 0), 3 => (4, 0), _ => (4, 4) };
            assert_eq!((round.plan.summary.deprecate, round.plan.summary.delete), (deprecate, delete), "day {day}");
            assert!(round.outcomes.iter().all(|outcome| outcome.ending.is_done()), "{:?}", round.outcomes);
            case.nothing_to_do(day).await;
        }
        let images = case.observe(4).await.images;
        assert_eq!((only(&images, false).len(), only(&images, true).len()), (8, 8));
    }

    a_copy_is_not_made_of_what_was_not_made("  storage: {copies: [vault]}\n", case) {
        if !case.can_copy().await {
            return;
        }
        let script = vec![Fault::CreateFails, Fault::CopyReplyLost];
        let faulty = Arc::new(Faulty::new(case.bench.open(clock(0)), script));
        let room = room(faulty.clone(), clock(0), case.policies(), &case.directory);
        let round = room.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
        assert_eq!(faulty.happened(), 2);
        let words: Vec<&str> = round.outcomes.iter().map(|outcome| outcome.ending.word()).collect();
        let count = |wanted: &str| words.iter().filter(|word| **word == wanted).count();
        // One create; the other, its copy, and the answer about the copy that was made all the same.
        assert_eq!((count("done"), count("failed"), count("skipped")), (1, 2, 1), "{words:?}");
        let round = case.round(0).await;
        assert_eq!((round.plan.summary.create, round.plan.summary.copy), (1, 1));
        case.nothing_to_do(0).await;
        assert_eq!(case.observe(0).await.images.len(), 4);
    }

    who_may_use_images_is_what_the_policy_says("  sharing: [{role: roles/compute.imageUser, members: [\"user:a@x\"]}]\n", case) {
        if !case.can("sharing", |inventory| inventory.capabilities.sharing).await {
            return;
        }
        let round = case.round(0).await;
        assert!(round.outcomes.iter().all(|outcome| outcome.ending.is_done()), "{:?}", round.outcomes);
        case.nothing_to_do(0).await;
        let seen = |inventory: stillframe::inventory::Inventory| -> Vec<String> {
            let images = inventory.engines.into_iter().flat_map(|engine| engine.images);
            images.map(|image| image.sharing.unwrap()[0].members.join(",")).collect()
        };
        assert_eq!(seen(case.room(0).observe().await), ["user:a@x", "user:a@x"]);
        let wide = "  sharing: [{role: roles/compute.imageUser, members: [\"user:a@x\", \"group:b@x\"]}]\n";
        let mut room = case.room(0);
        room.policies = Arc::new(case.policies_of(wide));
        let round = room.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
        assert_eq!(round.plan.summary.relabel, 2);
        assert!(round.outcomes.iter().all(|outcome| outcome.ending.is_done()), "{:?}", round.outcomes);
        let inventory = room.observe().await;
        assert_eq!(room.plan(&inventory, noon(0)).changes, []);
        assert_eq!(seen(inventory), ["group:b@x,user:a@x", "group:b@x,user:a@x"]);
        // Back to what it was: nobody keeps what the policy does not say.
        case.round(0).await;
        case.nothing_to_do(0).await;
    }

    a_drill_tries_the_newest_and_is_written_on_it("  drill: {cron: \"0 6 * * *\", check: restore}\n", case) {
        if !case.can_drill(DrillCheck::Restore).await {
            return;
        }
        for day in 0..2 {
            let round = case.round(day).await;
            assert_eq!((round.plan.summary.create, round.plan.summary.drill), (2, 2));
            assert!(round.outcomes.iter().all(|outcome| outcome.ending.is_done()), "{:?}", round.outcomes);
            let images = case.observe(day).await.images;
            let drilled = images.iter().filter(|image| image.drilled_at() == Some(noon(day)));
            assert_eq!(drilled.count(), 2);
            case.nothing_to_do(day).await;
        }
    }

    a_drill_of_a_damaged_image_fails_and_is_not_written_on_it("", case) {
        case.round(0).await;
        let image = case.observe(0).await.images[0].clone();
        case.bench.damage(&image);
        for check in [DrillCheck::Verify, DrillCheck::Restore] {
            if !case.can_drill(check).await {
                continue;
            }
            let engine = case.bench.open(clock(0));
            let tried = engine.drill(&ImageRef::of(&image), check, Arc::new(Unwatched)).await;
            assert!(matches!(tried, Err(EngineError::Failed(_))), "{tried:?}");
            let mut room = case.room(0);
            room.policies = Arc::new(case.policies_of(&format!("  drill: {{cron: \"0 6 * * *\", check: {}}}\n", check.word())));
            let round = room.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
            let of_image = round.outcomes.iter().find(|outcome| round.plan.changes[outcome.change].image.name == image.name);
            assert!(matches!(&of_image.unwrap().ending, Ending::Failed { message } if message.starts_with("it could not be restored: ")), "{of_image:?}");
            let now = case.observe(0).await.images.into_iter().find(|one| one.id == image.id).unwrap();
            assert_eq!(now, image);
        }
    }

    a_drill_of_what_has_changed_says_nothing_about_it("", case) {
        case.round(0).await;
        let image = case.observe(0).await.images[0].clone();
        let mut other = ImageRef::of(&image);
        other.fingerprint = Some("another".to_owned());
        for check in [DrillCheck::Verify, DrillCheck::Restore] {
            if case.can_drill(check).await {
                let engine = case.bench.open(clock(0));
                let unwatched = || Arc::new(Unwatched);
                assert_eq!(engine.drill(&other, check, unwatched()).await, Err(EngineError::Changed));
                assert_eq!(engine.drill(&ImageRef::of(&image), check, unwatched()).await, Ok(()));
            }
        }
        case.nothing_to_do(0).await;
    }

    a_listing_that_was_cut_off_deletes_nothing("  retention: {last: 1}\n  lifecycle: {grace: 0}\n", case) {
        for day in 0..3 {
            case.round(day).await;
        }
        for fault in [Fault::ImagesCutOff, Fault::InstancesCutOff] {
            let faulty = Arc::new(Faulty::new(case.bench.open(clock(3)), vec![fault]));
            let room = room(faulty.clone(), clock(3), case.policies(), &case.directory);
            let plan = room.plan(&room.observe().await, noon(3));
            assert_eq!(faulty.happened(), 1);
            assert_eq!((plan.summary.deprecate, plan.summary.delete), (0, 0), "{fault:?}");
        }
        case.round(3).await;
        // With no grace, the next round deletes what this one has deprecated.
        case.round(3).await;
        case.nothing_to_do(3).await;
    }

    what_another_run_has_done_meanwhile_is_no_failure("  retention: {last: 1}\n  lifecycle: {grace: 0}\n", case) {
        case.round(0).await;
        case.round(1).await;
        let other = Meanwhile(case.room(2));
        let round = case.room(2).round(&other, Arc::new(Quiet), &Stop::default()).await;
        let ended = |action| {
            let outcomes = round.outcomes.iter();
            let of: Vec<_> = outcomes.filter(|outcome| round.plan.changes[outcome.change].action == action).collect();
            assert_eq!(of.len(), 2, "{:#?}", round.plan.changes);
            of
        };
        assert!(ended(Action::Create).iter().all(|outcome| outcome.ending.is_done()));
        for action in [Action::Deprecate, Action::Delete] {
            let by_other = |outcome: &&&Outcome| matches!(outcome.ending, Ending::Found { .. });
            assert_eq!(ended(action).iter().filter(by_other).count(), 2, "{:#?}", round.outcomes);
        }
        case.round(2).await;
        case.nothing_to_do(2).await;
    }

    a_create_that_fails_costs_nothing_older("  retention: {last: 1}\n  lifecycle: {grace: 0}\n", case) {
        case.round(0).await;
        let faulty = Arc::new(Faulty::new(case.bench.open(clock(1)), vec![Fault::CreateFails, Fault::CreateFails]));
        let room = room(faulty.clone(), clock(1), case.policies(), &case.directory);
        let round = room.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
        assert_eq!(faulty.happened(), 2);
        // What was to be deprecated once the new point is READY waits for it.
        assert_eq!(round.outcomes.iter().filter(|outcome| matches!(outcome.ending, Ending::Skipped { .. })).count(), 2);
        assert!(case.observe(1).await.images.iter().all(|image| image.stage == Stage::Active));
        case.round(1).await;
        case.round(1).await;
        case.nothing_to_do(1).await;
        assert_eq!(case.observe(1).await.images.len(), 2);
    }
}

#[test]
fn every_kind_of_engine_says_what_it_takes_and_can() {
    for kind in engine::kinds() {
        let schema = kind.settings_schema.to_string();
        assert!(schema.contains("\"additionalProperties\":false"), "{}", kind.name);
        let capabilities = (kind.capabilities)(&serde_json::json!({}));
        assert!(!capabilities.kinds.is_empty() && !capabilities.consistencies.is_empty());
    }
}
