//! Imports: disks that lie on a port of this machine, signed, and what may go wrong on their way.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Condvar, Mutex as StdMutex};

use stillframe::apply::{Ending, Listener};
use stillframe::engine::{
    CreateRequest, Created, Import, ImportRequest, ImportUri, Importer, Progress, RestoreRequest,
    Store, Unwatched,
};
use stillframe::import::{ImportError, Wanted, guard, import};
use stillframe::name::PolicyName;
use stillframe::plan::{Plan, of_changes, plan};

use super::*;
use crate::logged::Logged;
use crate::support::Datacenter;

/// What every signature begins with here: nothing that is written may have it.
const SIGNATURE: &str = "5ec2e75167a7u2e";

/// Object storage: one disk, for whoever brings a signature.
struct Storage {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    disk: StdMutex<Vec<u8>>,
    asked: StdMutex<Vec<String>>,
    /// Whether answers wait.
    is_held: StdMutex<bool>,
    moved: Condvar,
}

impl Shared {
    fn hold(&self, is_held: bool) {
        *self.is_held.lock().unwrap() = is_held;
        self.moved.notify_all();
    }
}

impl Storage {
    fn holding(disk: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        *shared.disk.lock().unwrap() = disk;
        let of_thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let shared = Arc::clone(&of_thread);
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    let (mut first, mut line) = (String::new(), String::new());
                    reader.read_line(&mut first).unwrap();
                    while reader.read_line(&mut line).is_ok_and(|length| length > 2) {
                        line.clear();
                    }
                    let is_signed = first.contains(SIGNATURE);
                    shared.asked.lock().unwrap().push(first);
                    shared.moved.notify_all();
                    let held = shared.is_held.lock().unwrap();
                    drop(shared.moved.wait_while(held, |is_held| *is_held).unwrap());
                    let disk = shared.disk.lock().unwrap().clone();
                    let (status, body) = if is_signed { (200, disk) } else { (403, Vec::new()) };
                    let begin =
                        format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", body.len());
                    let _ = stream.write_all(&[begin.into_bytes(), body].concat());
                });
            }
        });
        Self { address, shared }
    }

    /// Where the disk is, signed at some time.
    fn signed(&self, time: u32) -> ImportUri {
        let url = format!(
            "http://{}/backups/web-1.img?X-Amz-Date={time}&X-Amz-Signature={SIGNATURE}{time}",
            self.address
        );
        ImportUri::parse(&url).unwrap()
    }

    fn unsigned(&self) -> ImportUri {
        ImportUri::parse(&format!("http://{}/backups/web-1.img", self.address)).unwrap()
    }

    fn asked(&self) -> usize {
        self.shared.asked.lock().unwrap().len()
    }

    fn hold(&self, is_held: bool) {
        self.shared.hold(is_held);
    }

    /// Waits until somebody asks.
    async fn is_asked(&self) {
        let shared = Arc::clone(&self.shared);
        let waits = move || {
            let asked = shared.asked.lock().unwrap();
            drop(shared.moved.wait_while(asked, |asked| asked.is_empty()).unwrap());
        };
        tokio::task::spawn_blocking(waits).await.unwrap();
    }
}

/// A disk of some pieces.
fn disk() -> Vec<u8> {
    (0..3_u32 << 20).map(|at| if at % 700_000 < 4_000 { (at % 251) as u8 } else { 0 }).collect()
}

fn five_in_the_morning() -> Timestamp {
    noon(-1) - jiff::SignedDuration::from_hours(7)
}

fn wanted(uri: &ImportUri) -> Wanted {
    Wanted {
        policy: PolicyName::parse("nightly").unwrap(),
        source: "web-1".to_owned(),
        is_gone: false,
        device: None,
        at: five_in_the_morning(),
        from: uri.open().to_owned(),
    }
}

/// A folder with images of boot disks, each of a day, and object storage beside it.
struct World {
    served: Arc<Served>,
    case: Case,
    storage: Storage,
}

impl World {
    async fn new() -> Self {
        let served = Arc::new(Served::yandex_with_disk_images());
        let case = Case {
            bench: Box::new(Arc::clone(&served)),
            directory: tempfile::tempdir().unwrap(),
            spec: "  retention: {last: 3}\n",
        };
        case.round(0).await;
        case.nothing_to_do(0).await;
        Self { served, case, storage: Storage::holding(disk()) }
    }

    /// A run that imports, as the program does it.
    async fn run(&self, wanted: &Wanted, uri: ImportUri) -> Result<Round, ImportError> {
        self.run_heard(wanted, uri, Arc::new(Quiet)).await
    }

    /// The same, heard by somebody.
    async fn run_heard(
        &self,
        wanted: &Wanted,
        uri: ImportUri,
        listener: Arc<dyn Listener>,
    ) -> Result<Round, ImportError> {
        let mut room = self.case.room(0);
        let importer = Arc::new(Importer::new(Arc::clone(&room.engines[0]), uri, false));
        room.engines[0] = Arc::clone(&importer) as Arc<dyn Engine>;
        let refused = Mutex::new(None);
        let planned = |inventory: &_, now: Timestamp, _: Option<&Plan>| {
            let importers = stillframe::engine::importers();
            match import(&room.policies, inventory, wanted, &importers, now) {
                Ok(mut importing) => {
                    importing.plan.refusals = guard(&importing.plan, &room.policies, inventory);
                    assert_eq!(importing.plan.refusals, []);
                    importer.place(Some(importing.placed));
                    importing.plan
                }
                Err(error) => {
                    *refused.lock().unwrap() = Some(error);
                    of_changes(plan(&room.policies, inventory, now), Vec::new())
                }
            }
        };
        let round = room.round_of(&planned, &Yes, listener, &Stop::default()).await;
        let refused = refused.into_inner().unwrap();
        refused.map_or(Ok(round), Err)
    }

    async fn bring(&self, uri: ImportUri) -> Ending {
        let round = self.run(&wanted(&uri), uri).await.unwrap();
        let [outcome] = &round.outcomes[..] else { panic!("{:?}", round.outcomes) };
        outcome.ending.clone()
    }

    /// The images of `web-1`, the oldest slot first.
    async fn images(&self) -> Vec<Image> {
        let images = self.case.observe(0).await.images.into_iter();
        let slot = |image: &Image| image.labels.get("stillframe-slot").cloned();
        let mut images: Vec<Image> = images
            .filter(|image| image.labels.get("stillframe-source").is_some_and(|id| id == "7001"))
            .collect();
        images.sort_by_key(slot);
        images
    }

    /// There is what a day has made and what was imported, and nothing to do; nothing secret was written.
    async fn ends_well(&self) {
        self.case.nothing_to_do(0).await;
        let images = self.images().await;
        assert!(images.iter().all(|image| image.state == ImageState::Ready), "{images:#?}");
        let slots: Vec<&str> =
            images.iter().map(|image| image.labels["stillframe-slot"].as_str()).collect();
        assert_eq!(slots, ["20261120t050000z", "20261121t020000z"]);
        self.nothing_secret_is_written();
    }

    fn nothing_secret_is_written(&self) {
        let ledger = self.case.directory.path().join("ledger.ndjson");
        assert!(!std::fs::read_to_string(ledger).unwrap().contains(SIGNATURE));
        look_for_secrets(&self.served.datacenter.path("store/serve"));
    }

    /// What the request is that a plan makes of it.
    async fn request(&self, uri: ImportUri) -> ImportRequest {
        let inventory = self.case.observe(0).await;
        let inventory = stillframe::inventory::Inventory {
            format_version: stillframe::inventory::FORMAT_VERSION.to_owned(),
            observed_at: noon(0),
            engines: vec![inventory],
        };
        let importers = stillframe::engine::importers();
        let policies = self.case.policies();
        let importing = import(&policies, &inventory, &wanted(&uri), &importers, noon(0)).unwrap();
        let change = importing.plan.changes.into_iter().next().unwrap();
        let create = CreateRequest {
            key: change.key,
            name: change.image.name,
            location: change.image.location,
            create: change.create.unwrap(),
            by: None,
        };
        ImportRequest { create, uri, is_gone: false, is_boot: true, is_windows: false }
    }
}

fn look_for_secrets(path: &Path) {
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            look_for_secrets(&path);
        } else {
            let bytes = std::fs::read(&path).unwrap();
            let text = String::from_utf8_lossy(&bytes);
            assert!(!text.contains(SIGNATURE), "{}", path.display());
        }
    }
}

/// Reads an image of the embedded engine behind the server back into files.
async fn read_back(datacenter: &Datacenter, image: &str, qcow2: bool) -> Vec<u8> {
    let settings = json!({
        "instances": "examples/datacenter/instances",
        "store": "store",
        "locations": {"local": {}, "vault": {}},
        "createKeys": true,
    });
    let base = datacenter.path("").canonicalize().unwrap();
    let clock = Arc::new(Set(Mutex::new(noon(0))));
    let engine = LocalEngine::open("memory", &settings, &base, clock).unwrap();
    let to = tempfile::tempdir().unwrap();
    let request = RestoreRequest {
        image: image.rsplit('/').next().unwrap().to_owned(),
        to: to.path().join("restored"),
        disks: Vec::new(),
        name: None,
        machine_type: None,
        labels: std::collections::BTreeMap::new(),
        overwrite: false,
        qcow2,
    };
    let restored = engine.restore(request, Arc::new(Unwatched)).await.unwrap();
    std::fs::read(&restored.disks[0].path).unwrap()
}

#[tokio::test]
async fn a_disk_is_imported_byte_for_byte_and_the_next_plan_has_nothing_to_do() {
    let world = World::new().await;
    let ending = world.bring(world.storage.signed(1)).await;
    let Ending::Done { image: Some(image) } = ending else { panic!("{ending:?}") };
    assert_eq!(image.labels["stillframe-boot"], "yes");
    assert_eq!(image.disk_bytes, Some(disk().len() as u64));
    world.ends_well().await;
    assert_eq!(read_back(&world.served.datacenter, &image.id, false).await, disk());
    // The same again is refused, and nothing was asked for.
    let again = world.storage.signed(2);
    let refused = world.run(&wanted(&again), again).await.unwrap_err();
    assert!(refused.to_string().contains("(READY) stands for 20261120t050000z"), "{refused}");
    assert_eq!(world.storage.asked(), 1);
    // A machine is made of it.
    let engine = world.served.open(super::super::super::clock(0));
    let request = stillframe::engine::RebuildRequest {
        image: stillframe::plan::ImageRef::of(&image),
        name: "web-9".to_owned(),
        disks: Vec::new(),
        disks_only: false,
        like: None,
        zone: None,
        machine_type: None,
        labels: std::collections::BTreeMap::new(),
    };
    let rebuilt = engine.rebuild().unwrap().rebuild(request, Arc::new(Unwatched)).await.unwrap();
    assert_eq!(rebuilt.disks[0].size_bytes, disk().len() as u64);
}

#[tokio::test]
async fn what_the_embedded_engine_restores_as_qcow2_is_imported() {
    let world = World::new().await;
    let captured = world.images().await.remove(0);
    let qcow2 = read_back(&world.served.datacenter, &captured.id, true).await;
    *world.storage.shared.disk.lock().unwrap() = qcow2;
    let ending = world.bring(world.storage.signed(1)).await;
    let Ending::Done { image: Some(image) } = ending else { panic!("{ending:?}") };
    let datacenter = &world.served.datacenter;
    let (was, is) = (
        read_back(datacenter, &captured.id, false).await,
        read_back(datacenter, &image.id, false).await,
    );
    assert!(was == is, "{} bytes became {}", was.len(), is.len());
    world.ends_well().await;
}

/// What goes wrong, and passes.
#[tokio::test]
async fn faults_that_pass_cost_nothing() {
    for script in [
        json!({"fault": "reply-lost", "method": "POST", "collection": "images", "times": 2}),
        json!({"fault": "unavailable", "times": 3}),
        json!({"fault": "rate-limit", "times": 4}),
        json!({"fault": "slow-operation", "times": 9}),
        json!({"fault": "early-error", "times": 9}),
        json!({"fault": "slow-image", "times": 3}),
        json!({"fault": "operations-limit", "times": 3}),
        json!({"fault": "operations-limit-in-operation", "times": 2}),
        json!({"fault": "short-page", "times": 9}),
    ] {
        let world = World::new().await;
        world.served.fault(script.clone()).await;
        let ending = world.bring(world.storage.signed(1)).await;
        assert!(ending.is_done(), "{script}: {ending:?}");
        assert_eq!(world.storage.asked(), 1, "{script}");
        world.ends_well().await;
    }
}

#[tokio::test]
async fn what_comes_to_nothing_is_said_and_done_anew() {
    for (script, why) in [
        (json!({"fault": "vanishing-image", "times": 1}), "not there though the operation is done"),
        (json!({"fault": "quota-in-operation", "times": 1}), "ask for more, or keep less"),
        (json!({"fault": "forbidden", "method": "POST", "times": 1}), "Permission denied"),
    ] {
        let world = World::new().await;
        world.served.fault(script.clone()).await;
        let failed = world.bring(world.storage.signed(1)).await;
        let Ending::Failed { message } = &failed else { panic!("{script}: {failed:?}") };
        assert!(message.contains(why), "{message}");
        assert_eq!(world.images().await.len(), 1);
        let ending = world.bring(world.storage.signed(2)).await;
        assert!(matches!(ending, Ending::Done { .. }), "{script}: {ending:?}");
        world.ends_well().await;
    }
    // A disk that cannot be had, and one that is none.
    let world = World::new().await;
    let failed = world.bring(world.storage.unsigned()).await;
    assert!(failed.message().unwrap().contains("cannot be had: HTTP 403"), "{failed:?}");
    *world.storage.shared.disk.lock().unwrap() = b"KDMV and so on".to_vec();
    let failed = world.bring(world.storage.signed(1)).await;
    assert!(failed.message().unwrap().contains("VMDK"), "{failed:?}");
    *world.storage.shared.disk.lock().unwrap() = disk();
    assert!(world.bring(world.storage.signed(2)).await.is_done());
    world.ends_well().await;
}

/// Lets the storage answer when something begins.
struct Releases(Arc<Shared>);

impl Listener for Releases {
    fn began(&self, _: usize) {
        self.0.hold(false);
    }

    fn progress(&self, _: usize, _: Progress) {}
    fn ended(&self, _: usize, _: &Ending) {}
}

#[tokio::test]
async fn what_a_killed_run_has_begun_is_taken_up_under_another_signature() {
    let world = World::new().await;
    world.storage.hold(true);
    tokio::select! {
        ended = world.bring(world.storage.signed(1)) => panic!("{ended:?}"),
        () = world.storage.is_asked() => {}
    }
    assert_eq!(world.images().await[0].state, ImageState::Creating);
    let signed = world.storage.signed(2);
    let wanted = wanted(&signed);
    // What is asked for goes on once the plan is made.
    let listener = Arc::new(Releases(Arc::clone(&world.storage.shared)));
    let round = world.run_heard(&wanted, signed, listener).await;
    let ending = &round.unwrap().outcomes[0].ending;
    assert!(matches!(ending, Ending::Found { .. }), "{ending:?}");
    assert_eq!(world.storage.asked(), 1);
    world.ends_well().await;
}

/// The same bucket, and another file in it.
fn another(world: &World) -> ImportUri {
    let url = format!(
        "http://{}/backups/web-2.img?X-Amz-Date=3&X-Amz-Signature={SIGNATURE}3",
        world.storage.address
    );
    ImportUri::parse(&url).unwrap()
}

#[tokio::test]
async fn what_a_killed_run_has_begun_of_another_file_is_not_taken_up() {
    let world = World::new().await;
    world.storage.hold(true);
    let planned = world.request(another(&world)).await;
    tokio::select! {
        ended = world.bring(world.storage.signed(1)) => panic!("{ended:?}"),
        () = world.storage.is_asked() => {}
    }
    let begun = world.images().await.remove(0);
    assert_eq!(begun.labels["stillframe-imported"].len(), 16);
    // Neither by a plan, nor by a run that had planned before there was anything.
    let other = another(&world);
    let refused = world.run(&wanted(&other), other).await.unwrap_err();
    assert!(refused.to_string().contains("of another file: http://"), "{refused}");
    let engine = world.served.open(super::super::super::clock(0));
    let late = engine.import().unwrap().import(planned, Arc::new(Unwatched)).await;
    assert!(
        matches!(&late, Err(EngineError::Refused(why)) if why.contains("not of this file")),
        "{late:?}"
    );
    world.storage.hold(false);
    world.served.patient().pause(Duration::ZERO).await;
    assert_eq!((world.storage.asked(), world.images().await.len()), (1, 2));
    world.ends_well().await;
}

#[tokio::test]
async fn two_runs_at_once_make_one_however_their_urls_were_signed() {
    let world = World::new().await;
    let requests = [
        world.request(world.storage.signed(1)).await,
        world.request(world.storage.signed(2)).await,
    ];
    let open = || world.served.open(super::super::super::clock(0));
    let (one, other) = (open(), open());
    let [first, second] = requests;
    let bring = |engine: Arc<dyn Engine>, request: ImportRequest| async move {
        engine.import().unwrap().import(request, Arc::new(Unwatched)).await
    };
    let (one, other) = tokio::join!(bring(one, first), bring(other, second));
    let id = |created: Result<Created, EngineError>| created.unwrap().image().id.clone();
    assert_eq!(id(one), id(other));
    assert_eq!(world.storage.asked(), 1);
    world.ends_well().await;
}

#[tokio::test]
async fn nothing_but_what_was_planned_is_imported() {
    let world = World::new().await;
    let request = world.request(world.storage.signed(1)).await;
    let engine = world.served.open(super::super::super::clock(0));
    let importer = Importer::new(engine, world.storage.signed(1), false);
    let mut other = request.create.key.clone();
    other.slot = stillframe::name::Slot::at(noon(-2));
    let placed = |key| stillframe::import::Placed { key, is_gone: false, is_boot: true };
    for placed in [None, Some(placed(other))] {
        importer.place(placed);
        let refused = importer.create(request.create.clone(), Arc::new(Unwatched)).await;
        assert!(matches!(refused, Err(EngineError::Refused(_))), "{refused:?}");
    }
    // Nor is another file than the one that was planned.
    importer.place(Some(placed(request.create.key.clone())));
    let mut of_another = request.create.clone();
    let place = stillframe::import::place_label(another(&world).open());
    of_another.create.labels.insert("stillframe-imported".to_owned(), place);
    let refused = importer.create(of_another, Arc::new(Unwatched)).await;
    assert!(matches!(refused, Err(EngineError::Refused(_))), "{refused:?}");
    assert_eq!((world.storage.asked(), world.images().await.len()), (0, 1));
}

#[tokio::test]
async fn a_source_that_is_gone_needs_a_folder_that_is_plain() {
    let world = World::new().await;
    let mut request = world.request(world.storage.signed(1)).await;
    request.is_gone = true;
    let address = world.served.address;
    let engine = |settings: Value| {
        let mut settings = settings;
        settings["endpoint"] = json!(format!("http://{address}"));
        let (clock, pause) = (world.served.clock.clone(), world.served.patient());
        YandexEngine::open("memory", &settings, Path::new("/nowhere"), clock, pause).unwrap()
    };
    let two = engine(json!({"folders": ["p", "q"]}));
    let refused = Import::import(&two, request.clone(), Arc::new(Unwatched)).await;
    let said = refused.unwrap_err().to_string();
    assert!(said.contains("set `imagesFolder`"), "{said}");
    let other = engine(json!({"folders": ["q", "r"], "imagesFolder": "p"}));
    let made = Import::import(&other, request, Arc::new(Unwatched)).await.unwrap();
    assert!(made.image().id.starts_with("p/images/"));
}

#[tokio::test]
async fn windows_is_said_where_labels_or_people_say_so() {
    for (windows, is_windows, is_boot, os) in [
        (json!({"role": "web"}), false, true, true),
        (json!({"role": "web"}), false, false, false),
        (json!({"role": "db"}), false, true, false),
        (json!({}), false, true, false),
        (json!({}), true, true, true),
    ] {
        let world = World::new().await;
        let request = world.request(world.storage.signed(1)).await;
        let request = ImportRequest { is_windows, is_boot, ..request };
        let settings = json!({
            "folders": ["p"],
            "endpoint": format!("http://{}", world.served.address),
            "images": {"windows": windows, "minDiskGib": 3},
        });
        let (clock, pause) = (world.served.clock.clone(), world.served.patient());
        let engine =
            YandexEngine::open("memory", &settings, Path::new("/nowhere"), clock, pause).unwrap();
        let made = Import::import(&engine, request, Arc::new(Unwatched)).await.unwrap();
        let id = made.image().id.rsplit('/').next().unwrap().to_owned();
        let shown =
            ask(world.served.address, "GET", &format!("compute/v1/images/{id}"), None).await;
        assert_eq!(shown["os"]["type"] == "WINDOWS", os, "{shown}");
        assert_eq!(shown["minDiskSize"], (3_u64 << 30).to_string());
    }
}

/// A service that quotes what it refuses: at once, once it was away, and in an operation.
fn quoting(status: u16) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                loop {
                    let (mut first, mut length) = (String::new(), 0);
                    if reader.read_line(&mut first).unwrap_or(0) == 0 {
                        return;
                    }
                    loop {
                        let mut line = String::new();
                        reader.read_line(&mut line).unwrap();
                        let line = line.trim().to_ascii_lowercase();
                        if line.is_empty() {
                            break;
                        }
                        if let Some(text) = line.strip_prefix("content-length:") {
                            length = text.trim().parse().unwrap();
                        }
                    }
                    let mut body = vec![0; length];
                    std::io::Read::read_exact(&mut reader, &mut body).unwrap();
                    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                    let uri = body["uri"].as_str().unwrap_or_default();
                    let error = json!({"code": if status == 503 { 14 } else { 3 }, "message": format!("cannot read {uri} ({uri})")});
                    let (status, answer) = match first.as_str() {
                        first if first.contains("/endpoints") => {
                            let one = |id| json!({"id": id, "address": address.to_string()});
                            let all = ["compute", "iam", "operation"].map(one);
                            (200, json!({"endpoints": all}))
                        }
                        first if first.contains("/instances/7001") => {
                            (200, json!({"id": "7001", "folderId": "p", "name": "web-1"}))
                        }
                        first if first.starts_with("POST") && status == 200 => {
                            (200, json!({"id": "o", "done": true, "error": error}))
                        }
                        first if first.starts_with("POST") => (status, error),
                        _ => (200, json!({})),
                    };
                    let answer = answer.to_string();
                    let head = format!(
                        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                        answer.len()
                    );
                    if stream.write_all(&[head.as_bytes(), answer.as_bytes()].concat()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

struct Swift;

#[async_trait::async_trait]
impl Pause for Swift {
    async fn pause(&self, _: Duration) {}
}

#[tokio::test]
async fn what_the_service_quotes_is_passed_on_without_the_secret() {
    let world = World::new().await;
    let request = world.request(world.storage.signed(1)).await;
    let (logged, _guard) = Logged::begin(tracing::Level::TRACE);
    for status in [400, 503, 200] {
        let settings = json!({"folders": ["p"], "endpoint": format!("http://{}", quoting(status))});
        let clock = world.served.clock.clone();
        let engine =
            YandexEngine::open("m", &settings, Path::new("/nowhere"), clock, Arc::new(Swift));
        let failed = Import::import(&engine.unwrap(), request.clone(), Arc::new(Unwatched)).await;
        let said = failed.unwrap_err().to_string();
        assert!(said.contains("backups/web-1.img?…"), "{status}: {said}");
        assert!(!said.contains(SIGNATURE), "{status}: {said}");
    }
    let logged = logged.text();
    assert!(logged.contains("sent again in"), "{logged}");
    assert!(!logged.contains(SIGNATURE), "{logged}");
}

#[tokio::test]
async fn a_server_that_others_reach_fetches_nothing() {
    let world = World::new().await;
    let body = json!({"folderId": "p", "name": "n", "uri": world.storage.signed(1).secret()});
    let key = Some("k");
    let path = "compute/v1/images";
    world.served.service.upgrade().unwrap().reached_from_elsewhere();
    let (status, answer) =
        world::try_ask(world.served.address, "POST", path, Some(&body), key).await;
    assert_eq!((status, world.storage.asked()), (501, 0), "{answer}");
}

/// Who only looks has nothing changed, not even what an earlier run has promised.
#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let world = World::new().await;
    let address = world.served.address;
    let label = json!({"stillframe-restart": "20261121t100000z"});
    let body = json!({"updateMask": "labels", "labels": label});
    ask(address, "POST", &format!("{}:stop", world::WEB_1), Some(&json!({}))).await;
    ask(address, "PATCH", world::WEB_1, Some(&body)).await;
    let gate = super::gate::Gate::new(address);
    let directory = world.served.datacenter.path("cloud");
    std::fs::create_dir(&directory).unwrap();
    let endpoints = json!({"compute": gate.url(), "operation": gate.url()});
    let config = json!({
        "apiVersion": "stillframe/v1", "kind": "Config", "spec": {"engines": {"memory": {
            "yandex": {"folders": ["p"], "endpoint": gate.url(), "endpoints": endpoints},
        }}},
    });
    let policy = json!({
        "apiVersion": "stillframe/v1", "kind": "BackupPolicy", "metadata": {"name": "nightly"},
        "spec": {
            "source": {"match": [{"names": ["web-*"]}]},
            "capture": {"kind": "disk-image", "disks": "boot"},
            "schedule": {"cron": "0 2 * * *"}, "retention": {"last": 3},
        },
    });
    std::fs::write(directory.join("stillframe.yaml"), config.to_string()).unwrap();
    std::fs::write(directory.join("nightly.yaml"), policy.to_string()).unwrap();
    std::fs::write(directory.join("url"), world.storage.signed(1).secret()).unwrap();
    let at = five_in_the_morning().to_string();
    let run = world.served.datacenter.run(&[
        "--policies",
        "cloud",
        "import",
        "--policy",
        "nightly",
        "--source",
        "web-1",
        "--at",
        &at,
        "--uri-file",
        "cloud/url",
        "--dry-run",
        "--now",
        &noon(0).to_string(),
    ]);
    assert!(run.out.contains("imported from http://"), "{} {}", run.out, run.err);
    let asked = gate.state().asked.clone();
    assert!(asked.iter().any(|asked| asked.line.contains("/images")), "{asked:?}");
    assert!(asked.iter().all(|asked| asked.line.starts_with("GET ")), "{asked:?}");
    let machine = ask(address, "GET", world::WEB_1, None).await;
    assert_eq!((&machine["status"], &machine["labels"]), (&json!("STOPPED"), &label));
    assert_eq!((world.storage.asked(), world.images().await.len()), (0, 1));
}
