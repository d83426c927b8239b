//! The engine for Compute Engine against a little of it on a port of this machine, with faults.

mod around;
mod authority;
mod bound;
mod credentials;
mod doctor;
mod fake;
mod regional;
mod sets;
mod via;
mod waits;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Value, json};
use stillframe::clock::{Clock, FixedClock};
use stillframe::engine::gce::GceEngine;
use stillframe::engine::http::{Http, Pause, Place};
use stillframe::engine::{
    self, Author, CreateRequest, Created, Engine, EngineError, Progress, Unwatched, Watcher,
};
use stillframe::inventory::{Consistency, GapScope, ImageKind, ImageState, Stage, Via};
use stillframe::name::{Key, PolicyName, Slot, SourceId};
use stillframe::plan::{Create, ImageRef, Update};
use stillframe::policy::{Finding, SourceFile, load};

pub use fake::{Fake, Wrong};

use super::conform::check_request;
use super::logged::Logged;

/// Lets no time pass, and remembers how much was asked for.
#[derive(Default)]
pub struct Swift(Mutex<Vec<Duration>>);

#[async_trait]
impl Pause for Swift {
    async fn pause(&self, time: Duration) {
        self.0.lock().unwrap().push(time);
        tokio::task::yield_now().await;
    }
}

impl Swift {
    fn longest(&self) -> Duration {
        self.0.lock().unwrap().iter().max().copied().unwrap_or_default()
    }
}

/// Twenty seconds into a minute.
fn now() -> Timestamp {
    "2026-11-21T12:00:20Z".parse().unwrap()
}

/// A fake that holds every request against the API's own methods and schemas.
pub fn checked(now: Timestamp) -> Fake {
    let fake = Fake::new(now);
    fake.state().check = Some(check_request);
    fake
}

/// An engine over a fake.
pub fn open(
    fake: &Fake,
    name: &str,
    clock: Arc<dyn Clock>,
    pause: Arc<dyn Pause>,
    mut settings: Value,
) -> Result<GceEngine, String> {
    settings["endpoint"] = json!(format!("http://{}", fake.address));
    GceEngine::open(name, &settings, Path::new("/nowhere"), clock, pause)
}

struct Case {
    fake: Fake,
    pause: Arc<Swift>,
}

impl Case {
    fn new() -> Self {
        let fake = checked(now());
        fake.state().add_instance("p", "us-a", "web-1", "4201");
        fake.state().quotas = json!([{"metric": "SNAPSHOTS", "limit": 1000.0}, {"metric": "MACHINE_IMAGES", "limit": 100.0}]);
        Self { fake, pause: Arc::default() }
    }

    fn engine_of(&self, projects: &[&str]) -> GceEngine {
        let clock = Arc::new(FixedClock(now()));
        open(&self.fake, "cloud", clock, self.pause.clone(), json!({"projects": projects})).unwrap()
    }

    fn engine(&self) -> GceEngine {
        self.engine_of(&["p"])
    }

    fn wrong(&self, wrong: &[Wrong]) {
        self.fake.state().wrong = wrong.to_vec();
    }

    async fn create(&self, request: CreateRequest) -> Result<Created, EngineError> {
        self.engine().create(request, Arc::new(Unwatched)).await
    }

    /// How many images of a collection there are.
    fn count(&self, collection: &str) -> usize {
        self.fake.state().images.get(collection).map_or(0, BTreeMap::len)
    }
}

fn request(kind: ImageKind, hour: i8) -> CreateRequest {
    let slot = jiff::civil::date(2026, 11, 21).at(hour, 0, 0, 0);
    let key = Key {
        policy: PolicyName::parse("nightly").unwrap(),
        source: SourceId::parse("4201").unwrap(),
        slot: Slot::at(slot.to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp()),
    };
    let mut labels = key.labels();
    labels.insert("team".to_owned(), "web".to_owned());
    let (disks, excluded) = match kind {
        ImageKind::MachineImage => (vec!["boot", "data"], Vec::new()),
        _ => (vec!["data"], vec!["boot".to_owned()]),
    };
    CreateRequest {
        name: key.image_name(&key.default_prefix()),
        location: "us".to_owned(),
        create: Create {
            kind,
            consistency: Consistency::Crash,
            kms_key: Some("projects/p/locations/us/keyRings/r/cryptoKeys/k".to_owned()),
            disks: disks.into_iter().map(str::to_owned).collect(),
            disk_by_disk: false,
            one_instant: Vec::new(),
            companion: None,
            excluded_disks: excluded,
            disk_bytes: 20 << 30,
            labels,
            description: "a description".to_owned(),
            deadline: now() + jiff::SignedDuration::from_hours(4),
            replaces: None,
            problems: Vec::new(),
            family: None,
            sharing: None,
            tier: None,
            via: Via::Disk,
        },
        by: Author::new("here"),
        key,
    }
}

fn machine_image(hour: i8) -> CreateRequest {
    request(ImageKind::MachineImage, hour)
}

fn set(label: &str, value: &str) -> Update {
    Update {
        set_labels: BTreeMap::from([(label.to_owned(), value.to_owned())]),
        ..Update::default()
    }
}

#[tokio::test]
async fn everything_is_seen_over_all_projects() {
    let case = Case::new();
    case.fake.state().add_instance("q", "us-b", "db-1", "17");
    case.create(machine_image(2)).await.unwrap();
    let mut inventory = case.engine_of(&["p", "q"]).observe().await;
    assert!(inventory.is_complete(), "{:?}", inventory.gaps);
    assert_eq!(inventory.identity, format!("p, q at http://{}/compute/v1/", case.fake.address));
    let ids: Vec<&str> = inventory.instances.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(ids, ["17", "4201"]);
    let instance = &inventory.instances[1];
    assert_eq!((instance.zone.as_str(), instance.machine_type.as_str()), ("us-a", "e2-small"));
    let disks: Vec<_> = instance
        .disks
        .iter()
        .map(|disk| (disk.name.as_str(), disk.boot, disk.size_bytes))
        .collect();
    assert_eq!(disks, [("boot", true, Some(10 << 30)), ("data", false, Some(20 << 30))]);
    let image = inventory.images.pop().unwrap();
    assert_eq!((image.state, image.stage), (ImageState::Ready, Stage::Active));
    assert_eq!((image.location.as_str(), image.stored_bytes), ("us", Some(1 << 20)));
    assert_eq!(image.source.unwrap().name, "web-1");
    assert!(image.id.starts_with("p/machineImages/"));
    let limits = inventory.capabilities.limits;
    assert_eq!((limits.source_interval_seconds, limits.source_hourly), (Some(600), Some(6)));
}

#[tokio::test]
async fn each_project_that_images_are_made_in_has_quotas_of_its_own() {
    let case = Case::new();
    case.fake.state().add_instance("q", "us-b", "db-1", "17");
    case.create(machine_image(2)).await.unwrap();
    let of = |limit: f64| {
        json!([
            {"metric": "IMAGES", "limit": limit}, {"metric": "SNAPSHOTS", "limit": 10.0 * limit},
            {"metric": "MACHINE_IMAGES", "limit": limit / 10.0}, {"metric": "CPUS", "limit": 1.0},
        ])
    };
    case.fake.state().quotas = json!({"p": of(100.0), "q": of(200.0), "vault": of(300.0)});
    let kinds = [ImageKind::MachineImage, ImageKind::DiskImage, ImageKind::Snapshot];
    let limits = |numbers: [u64; 3]| kinds.into_iter().zip(numbers).collect::<BTreeMap<_, _>>();
    let inventory = case.engine_of(&["p", "q"]).observe().await;
    let seen = &inventory.capabilities.limits;
    assert!(seen.images.is_empty(), "nothing holds for both together: {:?}", seen.images);
    let expected = [("p", [10, 100, 1000]), ("q", [20, 200, 2000])];
    let expected = expected.map(|(project, numbers)| (project.to_owned(), limits(numbers)));
    assert_eq!(seen.images_by_project, BTreeMap::from(expected));
    let projects: Vec<&str> = inventory.instances.iter().map(|one| &*one.project).collect();
    assert_eq!(projects, ["q", "p"]);
    assert_eq!(inventory.images[0].project, "p");
    // In a project of instances nothing is made where another one is named for that.
    let settings = json!({"projects": ["p", "q"], "imagesProject": "vault"});
    let inventory = case.engine_with(settings).observe().await;
    let vault = [("vault".to_owned(), limits([30, 300, 3000]))];
    assert_eq!(inventory.capabilities.limits.images_by_project, BTreeMap::from(vault));
    assert!(inventory.instances.iter().all(|one| one.project == "vault"));
    assert_eq!(inventory.images[0].project, "p", "where it is");
}

#[tokio::test]
async fn a_machine_image_that_is_nobodys_has_the_instance_that_is_where_it_was_made() {
    let case = Case::new();
    let mut wanted = machine_image(2);
    wanted.create.labels.clear();
    case.create(wanted).await.unwrap_err();
    let source = || async { case.engine().observe().await.images.pop().unwrap().source };
    assert_eq!(source().await.unwrap().id.as_str(), "4201");
    case.fake.state().instances.clear();
    assert_eq!(source().await, None);
}

#[tokio::test]
async fn a_request_that_the_api_does_not_have_is_found() {
    let fake = checked(now());
    let url = format!("http://{}/compute/v1/projects/p/global/images?requestid=1", fake.address);
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let _ = client.post(url).json(&json!({"name": "a"})).send().await;
    let found = std::mem::take(&mut fake.state().against_the_api);
    assert!(found.len() == 1 && found[0].contains("no parameter requestid"), "{found:?}");
}

#[tokio::test]
async fn lists_are_read_to_the_end() {
    let case = Case::new();
    for hour in 1..8 {
        case.create(machine_image(hour)).await.unwrap();
    }
    for name in ["web-2", "web-3", "web-4", "web-5"] {
        case.fake.state().add_instance("p", "us-b", name, name);
    }
    case.fake.state().page_length = 2;
    let inventory = case.engine().observe().await;
    assert!(inventory.is_complete(), "{:?}", inventory.gaps);
    assert_eq!((inventory.images.len(), inventory.instances.len()), (7, 5));
    assert!(inventory.instances.iter().all(|one| one.disks[0].size_bytes == Some(10 << 30)));
    assert!(inventory.images.is_sorted_by_key(|image| image.name.clone()));
}

#[tokio::test]
async fn many_images_take_few_calls() {
    let case = Case::new();
    case.create(machine_image(1)).await.unwrap();
    {
        let mut state = case.fake.state();
        let images = state.images.get_mut("machineImages").unwrap();
        let first = images.values().next().unwrap().clone();
        for number in 10_000..19_999_u64 {
            let mut image = first.clone();
            image["id"] = json!(number.to_string());
            image["name"] = json!(format!("image-{number}"));
            images.insert(number, image);
        }
        for number in 0..1_999 {
            state.add_instance(
                "p",
                "us-b",
                &format!("db-{number}"),
                &format!("{}", 90_000 + number),
            );
        }
        state.log.clear();
    }
    let inventory = case.engine().observe().await;
    assert_eq!((inventory.images.len(), inventory.instances.len()), (10_000, 2_000));
    println!("10,000 images and 2,000 instances: {} calls", case.fake.state().log.len());
    // Four pages of instances, eight of disks, twenty of machine images; two empty lists, templates,
    // quotas, regions (there are none), where snapshots are stored.
    assert_eq!(case.fake.state().log.len(), 38);
}

#[tokio::test]
async fn what_was_not_seen_is_a_gap() {
    let case = Case::new();
    for hour in 1..6 {
        case.create(machine_image(hour)).await.unwrap();
    }
    case.fake.state().page_length = 2;
    for (wrong, scope, place, message, images) in [
        (
            Wrong::SecondPage,
            GapScope::Images,
            "p/machineImages",
            "Required permission (forbidden)",
            2,
        ),
        (Wrong::SamePage, GapScope::Images, "p/machineImages", "one that was read before", 4),
        (Wrong::EmptyAnswer, GapScope::Images, "p/machineImages", "missing field `kind`", 0),
        (Wrong::Redirection, GapScope::Images, "p/machineImages", "a redirection (HTTP 302)", 0),
        (Wrong::ZoneUnreachable, GapScope::Instances, "p/zones/us-a", "does not answer", 5),
        (Wrong::ZoneSilent, GapScope::Instances, "p/zones/us-a", "says nothing of it", 5),
    ] {
        case.wrong(&[wrong]);
        let inventory = case.engine().observe().await;
        let [gap] = &inventory.gaps[..] else { panic!("{wrong:?}: {:?}", inventory.gaps) };
        assert_eq!((gap.scope, gap.place.as_str()), (scope, place), "{wrong:?}");
        assert!(gap.message.contains(message), "{wrong:?}: {}", gap.message);
        assert_eq!(inventory.images.len(), images, "{wrong:?}");
    }
    case.wrong(&[]);
    assert!(case.engine().observe().await.is_complete());
}

#[tokio::test]
async fn a_list_is_not_offered_only_where_no_page_of_it_was_there() {
    let case = Case::new();
    for hour in 1..4 {
        case.create(request(ImageKind::Snapshot, hour)).await.unwrap();
    }
    {
        let mut state = case.fake.state();
        state.regions = vec!["us-b1".to_owned()];
        state.page_length = 2;
        for snapshot in state.images.get_mut("snapshots").unwrap().values_mut() {
            snapshot["region"] = json!("https://x/compute/v1/projects/p/regions/us-b1");
        }
    }
    for (wrong, scope, place) in [
        (Wrong::RegionalSecondPage, GapScope::Images, "p/regions/us-b1/snapshots"),
        (Wrong::RegionsSecondPage, GapScope::Images, "p/regions"),
        (Wrong::TemplatesSecondPage, GapScope::Instances, "p/all zones"),
        (Wrong::NoZones, GapScope::Instances, "p/all zones"),
    ] {
        case.wrong(&[wrong]);
        let inventory = case.engine().observe().await;
        let [gap] = &inventory.gaps[..] else { panic!("{wrong:?}: {:?}", inventory.gaps) };
        assert_eq!((gap.scope, gap.place.as_str()), (scope, place), "{wrong:?}");
    }
    case.wrong(&[Wrong::TemplatesUnknown]);
    let inventory = case.engine().observe().await;
    assert!(inventory.is_complete(), "{:?}", inventory.gaps);
    assert_eq!(inventory.images.len(), 3);
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_is_a_gap_and_the_others_are_seen() {
    let case = Case::new();
    for hour in [1, 2] {
        case.create(machine_image(hour)).await.unwrap();
    }
    let first = |state: &mut fake::State, field: &str, value: Value| {
        let images = state.images.get_mut("machineImages").unwrap();
        images.values_mut().next().unwrap()[field] = value;
    };
    first(&mut case.fake.state(), "creationTimestamp", json!("yesterday"));
    let inventory = case.engine().observe().await;
    assert_eq!((inventory.images.len(), inventory.gaps.len()), (1, 1));
    assert!(inventory.gaps[0].message.ends_with("does not say when it was made"));
    case.fake.state().add_instance("p", "us-a", "odd", "Not An Id");
    assert!(case.engine().observe().await.gaps.iter().any(|gap| gap.scope == GapScope::Instances));
}

#[tokio::test]
async fn two_instances_with_one_id_are_a_gap() {
    let case = Case::new();
    case.fake.state().add_instance("p", "us-b", "web-2", "4201");
    let inventory = case.engine().observe().await;
    assert_eq!(inventory.instances.len(), 1);
    assert!(inventory.gaps[0].message.contains("on two instances"), "{:?}", inventory.gaps);
}

#[tokio::test]
async fn a_machine_image_is_asked_for_with_all_that_was_planned() {
    let case = Case::new();
    let mut wanted = machine_image(2);
    wanted.create.consistency = Consistency::Application;
    wanted.create.excluded_disks = vec!["data".to_owned()];
    case.create(wanted.clone()).await.unwrap();
    let state = case.fake.state();
    assert_eq!(
        state.bodies,
        [json!({
            "name": wanted.name,
            "description": "a description (by here)",
            "labels": wanted.create.labels,
            "storageLocations": ["us"],
            "sourceInstance": "projects/p/zones/us-a/instances/web-1",
            "guestFlush": true,
            "params": {"includedDisks": ["boot"]},
            "machineImageEncryptionKey": {"kmsKeyName": "projects/p/locations/us/keyRings/r/cryptoKeys/k"},
        })]
    );
    assert_eq!(state.asked("GET projects/p/global/operations/"), 2);
}

#[tokio::test]
async fn disk_images_and_snapshots_are_of_one_disk() {
    let case = Case::new();
    for (kind, collection) in [(ImageKind::DiskImage, "images"), (ImageKind::Snapshot, "snapshots")]
    {
        let mut wanted = request(kind, 2);
        if kind == ImageKind::DiskImage {
            wanted.create.family = Some("golden".to_owned());
        }
        let made = case.create(wanted.clone()).await.unwrap();
        assert!(matches!(&made, Created::Made(image) if image.kind == kind), "{made:?}");
        let body = case.fake.state().bodies.last().unwrap().clone();
        let disk = "projects/p/zones/us-a/disks/web-1-data";
        let mut expected = json!({
            "name": wanted.name,
            "description": "a description (by here)",
            "labels": wanted.create.labels,
            "storageLocations": ["us"],
        });
        let key = json!({"kmsKeyName": wanted.create.kms_key});
        if kind == ImageKind::DiskImage {
            expected["sourceDisk"] = disk.into();
            expected["family"] = "golden".into();
            expected["imageEncryptionKey"] = key;
        } else {
            expected["snapshotEncryptionKey"] = key;
            let line = format!("POST {disk}/createSnapshot");
            assert_eq!(case.fake.state().asked(&line), 1);
        }
        assert_eq!(body, expected);
        // A round that sees it knows it again.
        assert!(matches!(case.create(wanted.clone()).await.unwrap(), Created::Found { .. }));
        assert_eq!(case.count(collection), 1);
    }
    let mut two = request(ImageKind::DiskImage, 3);
    two.create.disks.push("boot".to_owned());
    assert!(matches!(case.create(two).await, Err(EngineError::Refused(_))));
    let inventory = case.engine().observe().await;
    let image = inventory.images.iter().find(|image| image.kind == ImageKind::DiskImage).unwrap();
    assert_eq!(image.family.as_deref(), Some("golden"));
    assert_eq!(image.source.as_ref().unwrap().name, "web-1");
    let mut flushed = request(ImageKind::DiskImage, 3);
    flushed.create.consistency = Consistency::Application;
    assert!(matches!(case.create(flushed).await, Err(EngineError::Refused(_))));
}

#[tokio::test]
async fn each_snapshot_of_a_flushed_set_asks_for_the_flush() {
    let case = Case::new();
    let mut flushed = request(ImageKind::Snapshot, 3);
    flushed.create.consistency = Consistency::Application;
    flushed.create.disks.push("boot".to_owned());
    case.create(flushed).await.unwrap();
    let bodies = case.fake.state().bodies.clone();
    assert_eq!(bodies.len(), 2, "{bodies:#?}");
    assert!(bodies.iter().all(|body| body["guestFlush"] == json!(true)), "{bodies:#?}");
}

#[tokio::test]
async fn an_answer_that_was_lost_makes_one_image() {
    let case = Case::new();
    case.wrong(&[Wrong::InsertReplyLost]);
    case.create(machine_image(2)).await.unwrap();
    // The same request was sent again, and the service knew it.
    assert_eq!(case.fake.state().asked("POST projects/p/global/machineImages"), 2);
    assert_eq!(case.count("machineImages"), 1);
    assert!(matches!(case.create(machine_image(2)).await.unwrap(), Created::Found { .. }));
    assert_eq!(case.fake.state().asked("POST projects/p/global/machineImages"), 2);
}

#[tokio::test]
async fn a_service_that_is_not_there_for_a_moment_is_asked_again() {
    let case = Case::new();
    case.wrong(&[Wrong::Unavailable; 3]);
    case.create(machine_image(2)).await.unwrap();
    assert_eq!(case.pause.longest(), Duration::from_secs(4));
    // One that stays away is a failure, and makes nothing.
    case.wrong(&[Wrong::Unavailable; 40]);
    let failed = case.create(machine_image(3)).await;
    assert!(matches!(failed, Err(EngineError::Failed(_))), "{failed:?}");
    case.wrong(&[]);
    assert_eq!(case.count("machineImages"), 1);
}

#[tokio::test]
async fn a_used_up_minute_is_waited_out() {
    for wrong in [Wrong::Rate, Wrong::RateByStatus] {
        let case = Case::new();
        case.wrong(&[wrong; 4]);
        case.create(machine_image(2)).await.unwrap();
        let longest = case.pause.longest();
        assert!(
            (Duration::from_secs(40)..Duration::from_secs(45)).contains(&longest),
            "{longest:?}"
        );
        assert_eq!(case.count("machineImages"), 1);
    }
}

#[tokio::test]
async fn a_look_that_waits_says_so_once_for_all_its_requests() {
    let (logged, _guard) = Logged::begin(tracing::Level::WARN);
    let case = Case::new();
    case.wrong(&[Wrong::Unavailable; 2]);
    assert!(case.engine().observe().await.is_complete());
    assert_eq!(logged.text(), "", "what takes a moment is no news");
    case.wrong(&[Wrong::Rate; 4]);
    assert!(case.engine().observe().await.is_complete());
    let text = logged.text();
    assert_eq!(text.matches("; it is asked again in ").count(), 1, "{text}");
}

/// Hears why something waits.
#[derive(Default)]
struct Hears(Mutex<Vec<String>>);

impl Watcher for Hears {
    fn progress(&self, _: Progress) {}

    fn waits(&self, why: &str) {
        self.0.lock().unwrap().push(why.to_owned());
    }
}

/// Who makes an image hears why it waits, and the log need not say so as well.
#[tokio::test]
async fn a_wait_is_told_in_one_place() {
    let (logged, _guard) = Logged::begin(tracing::Level::WARN);
    let case = Case::new();
    let watcher = Arc::new(Hears::default());
    case.wrong(&[Wrong::RateAtChange; 2]);
    let made = case.engine().create(machine_image(2), watcher.clone()).await.unwrap();
    let heard = watcher.0.lock().unwrap().clone();
    let is_told = |line: &String| line.contains("; it is asked again in ");
    assert!(heard.len() == 2 && heard.iter().all(is_told), "{heard:?}");
    assert_eq!(logged.text(), "");
    case.wrong(&[Wrong::RateAtChange; 2]);
    case.engine().delete(&ImageRef::of(made.image())).await.unwrap();
    let text = logged.text();
    assert_eq!(text.matches("; it is asked again in ").count(), 1, "{text}");
}

#[test]
fn each_service_that_is_waited_for_is_told_of() {
    let (logged, _guard) = Logged::begin(tracing::Level::WARN);
    let place = |text: &str| Place::parse("endpoint", text).unwrap();
    let one = Http::new(&place("http://127.0.0.1"), Arc::new(FixedClock(now()))).unwrap();
    let other = one.to_place(&place("http://127.0.0.2"));
    for way in [&one, &other, &one.clone(), &other.clone()] {
        way.tell_wait(&"no answer", Duration::from_secs(9), false);
    }
    let text = logged.text();
    let hosts = ["127.0.0.1: ", "127.0.0.2: "].map(|host| text.matches(host).count());
    assert_eq!(hosts, [1, 1], "{text}");
}

#[tokio::test]
async fn an_operation_that_fails_is_a_failure() {
    let case = Case::new();
    let before = |minutes| now() - jiff::SignedDuration::from_mins(minutes);
    case.fake.state().date = "now".to_owned();
    case.fake.state().now = before(2);
    case.wrong(&[Wrong::InsertFails; 2]);
    let failed = case.create(machine_image(2)).await.unwrap_err();
    assert!(
        matches!(&failed, EngineError::Busy(message) if message.contains("one image in 10 minutes")),
        "{failed}"
    );
    case.fake.state().now = before(1);
    case.wrong(&[Wrong::QuotaFails]);
    let failed = case.create(machine_image(2)).await.unwrap_err();
    assert!(
        matches!(&failed, EngineError::Refused(message) if message.contains("QUOTA_EXCEEDED")),
        "{failed}"
    );
    assert_eq!(case.count("machineImages"), 0);
    // A later run is not answered with what became of this one.
    case.fake.state().now = now();
    assert!(matches!(case.create(machine_image(2)).await.unwrap(), Created::Made(_)));
}

#[tokio::test]
async fn a_name_that_is_taken_is_ours_only_with_key_and_source() {
    let case = Case::new();
    let wanted = machine_image(2);
    case.create(wanted.clone()).await.unwrap();
    let change = |field: &str, value: Value| {
        let mut state = case.fake.state();
        let images = state.images.get_mut("machineImages").unwrap();
        std::mem::replace(&mut images.values_mut().next().unwrap()[field], value)
    };
    let labels = change("labels", json!(machine_image(3).create.labels));
    let taken = Err(EngineError::NameTaken(wanted.name.clone()));
    assert_eq!(case.create(wanted.clone()).await, taken);
    change("labels", labels);
    // An instance of the same key that is not this one.
    let source = change(
        "sourceInstance",
        json!("https://www.googleapis.com/compute/v1/projects/p/zones/us-a/instances/web-9"),
    );
    assert_eq!(case.create(wanted.clone()).await, taken);
    change("sourceInstance", source);
    change("status", json!("INVALID"));
    assert!(matches!(case.create(wanted.clone()).await, Err(EngineError::Failed(_))));
    change("status", json!("READY"));
    assert!(matches!(case.create(wanted).await, Ok(Created::Found { .. })));
    assert_eq!(case.count("machineImages"), 1);
}

#[tokio::test]
async fn a_source_that_is_gone_makes_nothing() {
    let case = Case::new();
    let engine = case.engine();
    engine.observe().await;
    // Another instance of its name is another source.
    case.fake.state().instances.clear();
    case.fake.state().add_instance("p", "us-a", "web-1", "4202");
    let failed = engine.create(machine_image(2), Arc::new(Unwatched)).await;
    assert_eq!(
        failed,
        Err(EngineError::Failed("there is no instance with the id 4201".to_owned()))
    );
    assert_eq!(case.count("machineImages"), 0);
}

#[tokio::test]
async fn an_operation_that_is_forgotten_says_nothing() {
    let case = Case::new();
    case.wrong(&[Wrong::OperationForgotten]);
    let image = case.create(machine_image(2)).await.unwrap().image().clone();
    case.wrong(&[Wrong::DeleteIgnored, Wrong::OperationForgotten]);
    let failed = case.engine().delete(&ImageRef::of(&image)).await;
    assert!(matches!(failed, Err(EngineError::Failed(_))), "{failed:?}");
    case.wrong(&[Wrong::OperationForgotten]);
    assert_eq!(case.engine().delete(&ImageRef::of(&image)).await, Ok(()));
    assert_eq!(case.count("machineImages"), 0);
}

/// Has asked to stop.
struct Stopped;

impl Watcher for Stopped {
    fn progress(&self, _: Progress) {}

    fn is_cancelled(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn what_is_given_up_is_found_again() {
    let case = Case::new();
    let given_up = case.engine().create(machine_image(2), Arc::new(Stopped)).await;
    assert_eq!(given_up, Err(EngineError::Interrupted));
    assert_eq!(case.count("machineImages"), 0);
    case.create(machine_image(2)).await.unwrap();
    assert_eq!(case.count("machineImages"), 1);
}

#[tokio::test]
async fn labels_that_others_have_set_meanwhile_are_kept() {
    let case = Case::new();
    let image = case.create(machine_image(2)).await.unwrap().image().clone();
    case.wrong(&[Wrong::LabelChanged]);
    let changed =
        case.engine().update(&ImageRef::of(&image), &set("colour", "blue")).await.unwrap();
    assert_eq!(
        (changed.labels["colour"].as_str(), changed.labels["team"].as_str()),
        ("blue", "theirs")
    );
    assert_eq!(case.fake.state().asked("POST"), 3);
    // What a plan looks at is another matter.
    case.wrong(&[Wrong::HoldChanged]);
    let refused = case.engine().update(&ImageRef::of(&changed), &set("colour", "red")).await;
    assert_eq!(refused, Err(EngineError::Changed));
    let seen = case.engine().observe().await.images.remove(0);
    assert_eq!(
        (seen.labels["colour"].as_str(), seen.labels["stillframe-hold"].as_str()),
        ("blue", "theirs")
    );
}

#[tokio::test]
async fn the_stage_is_a_label_or_the_state_of_a_disk_image() {
    let case = Case::new();
    for kind in [ImageKind::MachineImage, ImageKind::Snapshot, ImageKind::DiskImage] {
        let image = case.create(request(kind, 2)).await.unwrap().image().clone();
        let deprecate = Update {
            stage_after: Stage::Deprecated,
            replacement: Some("newer".to_owned()),
            ..set("colour", "blue")
        };
        let old = case.engine().update(&ImageRef::of(&image), &deprecate).await.unwrap();
        assert_eq!((old.stage, old.labels["colour"].as_str()), (Stage::Deprecated, "blue"));
        assert_ne!(old.fingerprint, image.fingerprint);
        let is_native = kind == ImageKind::DiskImage;
        assert_eq!(old.labels.contains_key("stillframe-stage"), !is_native);
        if is_native {
            let state = case.fake.state();
            let deprecated = &state.images["images"].values().next().unwrap()["deprecated"];
            assert_eq!(
                *deprecated,
                json!({"state": "DEPRECATED", "replacement": "projects/p/global/images/newer"})
            );
        }
        // Done once more, it is done.
        assert_eq!(case.engine().update(&ImageRef::of(&image), &deprecate).await, Ok(old.clone()));
        let back = Update { remove_labels: vec!["colour".to_owned()], ..Update::default() };
        let back = case.engine().update(&ImageRef::of(&old), &back).await.unwrap();
        assert_eq!((back.stage, &back.labels), (Stage::Active, &image.labels));
    }
}

/// Whoever is killed between the two leaves no old mark beside a stage that makes it count.
#[tokio::test]
async fn an_overtaken_mark_is_made_anew_before_the_stage_that_it_counts_for() {
    let case = Case::new();
    let image = case.create(request(ImageKind::DiskImage, 2)).await.unwrap().image().clone();
    let let_go =
        |at: &str| Update { stage_after: Stage::Deprecated, ..set("stillframe-let-go", at) };
    let orders = |case: &Case| {
        let state = case.fake.state();
        let posts = state.log.iter().filter(|line| line.starts_with("POST "));
        let calls: Vec<String> =
            posts.filter_map(|line| Some(line.rsplit_once('/')?.1.to_owned())).collect();
        calls[calls.len() - 2..].to_vec()
    };
    let old = case.engine().update(&ImageRef::of(&image), &let_go("20261101t000000z")).await;
    let old = old.unwrap();
    assert_eq!(orders(&case), ["deprecate", "setLabels"]);
    for image in case.fake.state().images.get_mut("images").unwrap().values_mut() {
        image["deprecated"] = json!({"state": "ACTIVE"});
    }
    let undone = case.engine().observe().await.images.remove(0);
    assert_eq!((undone.stage, &undone.labels), (Stage::Active, &old.labels));
    let anew = case.engine().update(&ImageRef::of(&undone), &let_go("20261121t000000z")).await;
    let anew = anew.unwrap();
    assert_eq!(
        (anew.stage, anew.labels["stillframe-let-go"].as_str()),
        (Stage::Deprecated, "20261121t000000z")
    );
    assert_eq!(orders(&case), ["setLabels", "deprecate"]);
}

#[tokio::test]
async fn only_the_image_that_was_meant_is_deleted() {
    let case = Case::new();
    let image = case.create(machine_image(2)).await.unwrap().image().clone();
    let meant = ImageRef::of(&image);
    let mut others = [meant.clone(), meant.clone(), meant.clone()];
    others[0].fingerprint = Some("another".to_owned());
    others[1].name = "another".to_owned();
    others[2].created_at = Some(Timestamp::UNIX_EPOCH);
    for other in &others {
        assert_eq!(case.engine().delete(other).await, Err(EngineError::Changed));
    }
    for id in ["p/machineImages/1", "q/machineImages/7002", "7002", ""] {
        let nowhere = ImageRef { id: Some(id.to_owned()), ..meant.clone() };
        assert_eq!(case.engine().delete(&nowhere).await, Err(EngineError::NotFound), "{id}");
    }
    assert_eq!(case.fake.state().asked("DELETE"), 0);
    // By its number, which no other ever has.
    case.wrong(&[Wrong::DeleteReplyLost]);
    assert_eq!(case.engine().delete(&meant).await, Ok(()));
    let number = image.id.rsplit('/').next().unwrap().to_owned();
    let line = format!("DELETE projects/p/global/machineImages/{number}");
    // It is looked whether the first was carried out before it is sent again.
    assert_eq!(case.fake.state().asked(&line), 1);
    assert_eq!(case.engine().delete(&meant).await, Err(EngineError::NotFound));
}

#[test]
fn a_project_belongs_to_one_engine() {
    let opened = |endpoint: &str, of_other: &str| {
        let text = format!(
            "apiVersion: stillframe/v1\nkind: Config\nspec:\n  engines:\n    \
             one: {{gce: {{projects: [p, q], endpoint: \"http://127.0.0.1:1\"}}}}\n    \
             other: {{gce: {{projects: [{of_other}], endpoint: \"{endpoint}\"}}}}\n"
        );
        let file = SourceFile { path: "stillframe.yaml".to_owned(), text };
        let loaded = load(vec![file], &engine::kinds());
        let said = |finding: &Finding| {
            let place = finding.place.as_ref()?;
            Some((finding.code.word(), finding.message.clone(), place.line_column().0))
        };
        let findings: Vec<_> = loaded.findings.iter().filter_map(said).collect();
        let Some(policies) = loaded.policies else { return Err(findings) };
        let clock: Arc<dyn Clock> = Arc::new(FixedClock(now()));
        let engines = engine::open_all(&policies.config, Path::new("/"), &clock).unwrap();
        assert_eq!(engine::shared_place(&engines), None);
        let twice = [Arc::clone(&engines[0]), Arc::clone(&engines[0])];
        let error = engine::shared_place(&twice).unwrap().to_string();
        assert!(error.contains("projects/p belongs to the engine one as well"), "{error}");
        Ok(engines.len())
    };
    // It is found where the second one stands, before anything is opened: whatever version of the API it
    // asks, and whatever the machine is called.
    let message = "http://127.0.0.1:1/compute/projects/q belongs to the engine `one` as well";
    for endpoint in [
        "http://127.0.0.1:1",
        "http://127.0.0.1:1/compute/v1/",
        "http://127.0.0.1:1/compute/beta",
        "http://localhost:1/compute/alpha/",
    ] {
        assert_eq!(opened(endpoint, "r"), Ok(2), "{endpoint}");
        let refused = Err(vec![("bad-settings", message.to_owned(), 6)]);
        assert_eq!(opened(endpoint, "q"), refused, "{endpoint}");
    }
    for endpoint in ["http://127.0.0.1:2", "http://127.0.0.1:1/other"] {
        assert_eq!(opened(endpoint, "q"), Ok(2), "{endpoint}");
    }
}

/// What cannot be a name at the service is found at its line; what stands in for it has others.
#[test]
fn names_that_the_service_cannot_have_are_found_at_their_line() {
    let found = |engine: &str, spec: &str| {
        let text = format!(
            "apiVersion: stillframe/v1\nkind: Config\nspec:\n  engines: {{one: {{gce: {{projects: [p]{engine}}}}}}}\n---\n\
             apiVersion: stillframe/v1\nkind: BackupPolicy\nmetadata: {{name: nightly}}\nspec:\n  \
             source: {{match: [{{names: [web-1]}}]}}\n  schedule: {{cron: \"0 2 * * *\"}}\n  retention: {{last: 3}}\n  {spec}\n"
        );
        let file = SourceFile { path: "all.yaml".to_owned(), text: text.clone() };
        let found = load(vec![file], &engine::kinds()).findings;
        let at = |one: &Finding| {
            let text = &text[one.place.as_ref().unwrap().span.clone()];
            (one.code.word(), text.trim_matches('"').to_owned())
        };
        found.iter().map(at).collect::<Vec<_>>()
    };
    let key = "projects/p/locations/us/keyRings/r/cryptoKeys/k";
    let share =
        |role: &str, member: &str| format!("sharing: [{{role: {role}, members: [\"{member}\"]}}]");
    for spec in [
        "storage: {location: us}".to_owned(),
        "storage: {location: northamerica-northeast1}".to_owned(),
        format!("encryption: {{kmsKey: {key}}}"),
        share("roles/compute.imageUser", "user:a@example.com"),
        share("projects/p/roles/own", "allAuthenticatedUsers"),
    ] {
        assert_eq!(found("", &spec), [], "{spec}");
    }
    for (code, wrong) in [("unknown-location", "mars"), ("unknown-location", "us-central1-a")] {
        let spec = format!("storage: {{location: {wrong}}}");
        assert_eq!(found("", &spec), [(code, wrong.to_owned())]);
        assert_eq!(found(", endpoint: \"http://127.0.0.1:1\"", &spec), []);
    }
    for wrong in
        ["web", "projects/p/keyRings/r/cryptoKeys/k", &format!("{key}/cryptoKeyVersions/1")]
    {
        let spec = format!("encryption: {{kmsKey: {wrong}}}");
        assert_eq!(found("", &spec), [("bad-key", wrong.to_owned())]);
    }
    for (role, member, wrong) in [
        ("roles/compute.imageUser", "allUsers", "allUsers"),
        ("roles/compute.imageUser", "user:a b", "user:a b"),
        ("compute.imageUser", "user:a@example.com", "compute.imageUser"),
    ] {
        assert_eq!(found("", &share(role, member)), [("missing-capability", wrong.to_owned())]);
    }
}

/// The settings of an engine are looked at with the policies, and found where they stand.
#[test]
fn settings_that_cannot_be_meant_are_found_at_their_line() {
    for (settings, wrong) in [
        ("projects: [p], endpoint: \"http://10.0.0.1:8080\"", Some("http://10.0.0.1:8080")),
        ("projects: [p], endpoint: \"https://10.0.0.1\"", None),
        ("projects: [p], endpoint: \"http://127.0.0.1:8080\"", None),
        ("projects: [\"Not An Id\"]", Some("Not An Id")),
    ] {
        let text = format!(
            "apiVersion: stillframe/v1\nkind: Config\nspec:\n  engines:\n    one: {{gce: {{{settings}}}}}\n"
        );
        let file = SourceFile { path: "stillframe.yaml".to_owned(), text: text.clone() };
        let found = load(vec![file], &engine::kinds()).findings;
        let found: Vec<&str> = found
            .iter()
            .filter(|one| one.code.to_string() == "unknown-value")
            .map(|one| text[one.place.as_ref().unwrap().span.clone()].trim_matches('"'))
            .collect();
        let wanted: Vec<&str> = wrong.into_iter().collect();
        assert_eq!(found, wanted, "{settings}");
    }
}

#[tokio::test]
async fn a_token_is_read_afresh_and_said_nowhere() {
    let case = Case::new();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    let settings = json!({"projects": ["p"], "tokenFile": file, "quotaProject": "billing"});
    let clock = Arc::new(FixedClock(now()));
    let engine = open(&case.fake, "cloud", clock, case.pause.clone(), settings).unwrap();
    let gaps = engine.observe().await.gaps;
    assert!(
        gaps.iter().all(|gap| gap.message.contains("cannot read the access token in ")),
        "{gaps:?}"
    );
    assert_eq!(case.fake.state().log.len(), 0);
    for token in ["ya29.first", "ya29.second"] {
        std::fs::write(&file, format!("{token}\n")).unwrap();
        assert!(engine.observe().await.is_complete());
        let state = case.fake.state();
        assert_eq!(state.headers["authorization"], format!("Bearer {token}"));
        assert_eq!(state.headers["x-goog-user-project"], "billing");
    }
    std::fs::write(&file, "two words").unwrap();
    let text = format!("{:?}", engine.observe().await.gaps);
    assert!(text.contains("is no access token") && !text.contains("two words"), "{text}");
}
