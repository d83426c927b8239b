//! What is seen, what is not, and what goes with each request.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use stillframe::engine::shared_place;
use stillframe::inventory::Disk;
use stillframe::serve::Dialect;

use super::super::super::super::gce::Swift;
use super::*;

#[tokio::test]
async fn what_says_too_little_is_a_gap() {
    let service = Arc::new(Served::twcc());
    let case = case(&service, "");
    case.round(0).await;
    for (fault, collection, scope) in [
        ("no-description", "images", GapScope::Images),
        ("no-description", "snapshots", GapScope::Images),
        ("no-time", "images", GapScope::Images),
        ("no-time", "snapshots", GapScope::Images),
        ("elsewhere", "images", GapScope::Images),
        ("elsewhere", "snapshots", GapScope::Images),
        ("unauthorized", "images", GapScope::Images),
        ("forbidden", "snapshots", GapScope::Images),
        ("bad-field", "volumes", GapScope::Instances),
        ("unreadable-entry", "servers", GapScope::Instances),
        ("bare", "volumes", GapScope::Instances),
    ] {
        let script = json!({"fault": fault, "method": "GET", "collection": collection});
        service.fault(script).await;
        let seen = case.observe(0).await;
        assert!(!seen.gaps.is_empty(), "{fault} of {collection}");
        assert!(seen.gaps.iter().all(|gap| gap.scope == scope), "{fault}: {:?}", seen.gaps);
        // And doctor says so.
        service.fault(json!({"fault": fault, "method": "GET", "collection": collection})).await;
        let found = service.open(clock(0)).examine(&Wanted::default()).await;
        let is_wrong = found.iter().any(|one| one.verdict == Verdict::Wrong);
        assert!(is_wrong, "{fault} of {collection}: {found:?}");
    }
    assert!(case.observe(0).await.gaps.is_empty());
}

#[tokio::test]
async fn what_may_be_missing_changes_nothing() {
    let service = Arc::new(Served::twcc());
    let case = case(&service, "");
    case.round(0).await;
    let whole = case.observe(0).await;
    assert!(whole.images.iter().any(|image| image.members() == 2));
    for (fault, collection) in [
        // A site whose server has no number, an image whose server is gone.
        ("bare", "sites"),
        ("bare", "images"),
        ("bare", "servers"),
        // One of ours that somebody has offered to all.
        ("public", "images"),
        // A data disk that a machine could start from.
        ("bootable", "volumes"),
    ] {
        service.fault(json!({"fault": fault, "collection": collection})).await;
        let seen = case.observe(0).await;
        assert_eq!(seen.gaps, [], "{fault} of {collection}");
        assert_eq!(seen.images, whole.images, "{fault} of {collection}");
        assert_eq!(seen.instances, whole.instances, "{fault} of {collection}");
    }
}

/// One look that does not see all volumes.
const SHORT_LOOKS: [&str; 3] = ["forbidden", "bare", "unreadable-entry"];

/// All disks, by whatever choice.
const ALL_DISKS: [&str; 2] = [
    "  capture: {kind: disk-image}\n",
    "  capture: {kind: disk-image, disks: [system, content]}\n",
];

#[tokio::test]
async fn a_machine_whose_disks_were_not_all_seen_does_not_look_as_if_it_had_fewer() {
    for (fault, capture) in SHORT_LOOKS.into_iter().flat_map(|one| ALL_DISKS.map(|all| (one, all)))
    {
        let service = Served::new(Dialect::Twcc, (capture, &["system", "content"]));
        let service = Arc::new(service);
        let case = case(&service, "  retention: {last: 1}\n  lifecycle: {grace: 0}\n");
        case.round(0).await;
        let script = json!({"fault": fault, "method": "GET", "collection": "volumes"});
        service.fault(script).await;
        let round = case.round(1).await;
        assert_eq!(round.plan.changes, [], "{fault} {capture}");
        let [_, web] = &round.plan.blocked[..] else {
            panic!("{fault} {capture}: {:#?}", round.plan)
        };
        let said = "which data disks it has was not seen: ";
        assert!(web.message.starts_with(said), "{fault} {capture}: {}", web.message);
        let names =
            |images: Vec<Image>| images.into_iter().map(|image| image.name).collect::<Vec<_>>();
        let before = names(case.observe(1).await.images);
        assert_eq!(before.len(), 2, "{fault} {capture}: {before:?}");
        // The next run makes all of it, of the same slot.
        let round = case.round(1).await;
        let made = round.plan.changes.iter().filter(|change| change.create.is_some());
        let slots: Vec<_> = made.map(|change| change.key.slot).collect();
        assert_eq!(slots, [case.request(1).key.slot; 2], "{fault} {capture}");
        let images = case.observe(1).await.images;
        let made = images.iter().filter(|image| !before.contains(&image.name));
        let sets: Vec<_> = made.map(|image| (image.state, image.members())).collect();
        assert_eq!(sets, [(ImageState::Ready, 2); 2], "{fault} {capture}");
        case.round(1).await;
        case.nothing_to_do(1).await;
    }
}

#[tokio::test]
async fn system_disks_are_captured_whatever_else_is_not_seen() {
    for (fault, times) in SHORT_LOOKS.into_iter().flat_map(|fault| [(fault, 1), (fault, 20)]) {
        let service = Arc::new(Served::twcc_with_system_disks());
        let case = case(&service, "");
        let script =
            json!({"fault": fault, "method": "GET", "collection": "volumes", "times": times});
        service.fault(script).await;
        let round = case.round(0).await;
        assert_eq!(failures(&round), [""; 0], "{fault} {times}");
        assert_eq!(round.plan.blocked, [], "{fault} {times}");
        let created = round.plan.changes[0].create.as_ref().unwrap();
        let left_out = &created.excluded_disks;
        assert!(left_out.contains(&Disk::UNSEEN.to_owned()), "{fault} {times}: {left_out:?}");
        assert_eq!(created.disks, ["system"], "{fault} {times}");
        service
            .fault(json!({"fault": fault, "method": "GET", "collection": "volumes", "times": 0}))
            .await;
        let images = case.observe(0).await.images;
        assert_eq!(images.len(), 2, "{fault} {times}");
        assert!(images.iter().all(|image| image.state == ImageState::Ready), "{images:#?}");
        case.nothing_to_do(0).await;
    }
}

/// Between the plan and what is asked for there may be hours: somebody has to approve it.
#[tokio::test]
async fn a_disk_that_is_attached_after_the_plan_is_not_left_out() {
    let service = Arc::new(Served::twcc());
    let case = case(&service, "");
    let data = service.datacenter.path("examples/datacenter/disks");
    std::fs::copy(data.join("web-1-content.raw"), data.join("web-1-more.raw")).unwrap();
    service.datacenter.edit("examples/datacenter/instances/web-1.yaml", |text| {
        let content = "    - {deviceName: content, path: ../disks/web-1-content.raw}\n";
        text.replace(content, &format!("{content}{}", content.replace("content", "more")))
    });
    let create = |disks: &[&str], excluded: &[&str]| {
        let mut request = case.request(0);
        let named = |disks: &[&str]| disks.iter().map(|disk| (*disk).to_owned()).collect();
        (request.create.disks, request.create.excluded_disks) = (named(disks), named(excluded));
        let engine = service.open(clock(0));
        async move { engine.create(request, Arc::new(Unwatched)).await }
    };
    for (disks, excluded, fault) in [
        (["system", "content"].as_slice(), [].as_slice(), "none"),
        // One that is attached to nobody knows what may be attached here.
        (&["system"], &["content"], "bare"),
    ] {
        if fault == "bare" {
            service.fault(json!({"fault": "bare", "method": "GET", "collection": "volumes"})).await;
        }
        let ended = create(disks, excluded).await;
        let Err(EngineError::Busy(message)) = ended else { panic!("{fault}: {ended:?}") };
        assert!(
            message.ends_with("that the plan did not see; the next run tries again"),
            "{message}"
        );
        assert!(fault == "bare" || message.contains("has a disk more"), "{message}");
    }
    assert!(service.images().await.is_empty() && service.of("snapshots").await.is_empty());
    // What the plan leaves out is left out, and what is there is found.
    let all = ["system", "content"];
    assert!(matches!(create(&all, &["more"]).await, Ok(Created::Made(_))));
    assert!(matches!(create(&all, &[]).await, Ok(Created::Found { .. })));
    case.round(1).await;
    let images = case.observe(1).await.images;
    assert_eq!(images.iter().map(Image::members).max(), Some(3));
}

#[tokio::test]
async fn what_the_service_offers_to_all_is_not_ours() {
    let service = Arc::new(Served::twcc_with_system_disks());
    let case = case(&service, "");
    let server = service.ask("GET", "servers", None).await[0]["id"].to_string();
    let body = json!({"name": "ubuntu", "desc": "Ubuntu", "os": "Linux", "os_version": "1"});
    service.ask("PUT", &format!("images/{server}/save"), Some(body)).await;
    assert_eq!(case.observe(0).await.images.len(), 1);
    service.fault(json!({"fault": "public", "collection": "images"})).await;
    assert_eq!(case.observe(0).await.images, []);
}

#[tokio::test]
async fn the_case_of_a_project_makes_no_second_place() {
    let service = Served::twcc();
    let of = |project: &str| {
        let more = json!({"project": project});
        Arc::new(service.engine_of(&more, service.patient())) as Arc<dyn Engine>
    };
    let engines = [of("GOV000001"), of("gov000001")];
    assert!(shared_place(&engines).is_some());
    assert!(engines[1].observe().await.gaps.is_empty());
}

/// A server that notes what it is sent and always answers the same.
fn recorder(answer: String) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = Arc::clone(&heads);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(&stream).lines();
            let head: Vec<String> =
                lines.map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
            noted.lock().unwrap().push(head.join("\n").to_lowercase());
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    (address, heads)
}

fn json_answer(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

const KEY: &str = "12345678-1234-1234-1234-12345678901a";

fn with_key(address: &str, directory: &Path, more: &Value) -> TwccEngine {
    std::fs::write(directory.join("key"), format!("{KEY}\n")).unwrap();
    let mut settings = json!({"project": "GOV000001", "endpoint": address, "apiKeyFile": "key"});
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let pause = Arc::new(Swift::default());
    TwccEngine::open("memory", &settings, directory, clock(0), pause).unwrap()
}

#[tokio::test]
async fn the_key_goes_with_each_request_and_never_elsewhere() {
    let directory = tempfile::tempdir().unwrap();
    let (address, heads) = recorder(json_answer(r#"[{"id": 101, "name": "GOV000001"}]"#));
    let engine = with_key(&address, directory.path(), &json!({}));
    let told = format!("{:?}", engine.observe().await.gaps);
    assert!(!told.contains(KEY), "{told}");
    let heads = heads.lock().unwrap().clone();
    assert_eq!(heads.len(), 6, "{heads:#?}");
    for head in &heads {
        assert!(head.contains(&format!("\nx-api-key: {KEY}")), "{head}");
        assert!(head.contains(&format!("\nx-api-host: {PLATFORM}")), "{head}");
        let first = head.lines().next().unwrap();
        assert!(first.starts_with(&format!("get /api/v3/{PLATFORM}/")), "{head}");
        assert!(first.split(['?', ' ']).nth(1).unwrap().ends_with('/'), "{head}");
    }
    // Somewhere else is gone to by nobody.
    let (elsewhere, others) = recorder(json_answer("[]"));
    let (address, heads) = recorder(format!(
        "HTTP/1.1 302 Found\r\nlocation: {elsewhere}/login\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    ));
    let engine = with_key(&address, directory.path(), &json!({}));
    assert_eq!(engine.observe().await.gaps.len(), 2);
    assert!(heads.lock().unwrap()[0].contains(KEY));
    assert_eq!(*others.lock().unwrap(), [""; 0]);
}

#[tokio::test]
async fn sites_of_all_users_are_asked_for_where_that_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let (address, heads) = recorder(json_answer(r#"[{"id": 101, "name": "GOV000001"}]"#));
    for all in [false, true] {
        let engine = with_key(&address, directory.path(), &json!({"allUsers": all}));
        for is_doctor in [false, true] {
            heads.lock().unwrap().clear();
            if is_doctor {
                engine.examine(&Wanted::default()).await;
            } else {
                engine.observe().await;
            }
            let asked = heads.lock().unwrap().clone();
            let sites: Vec<_> = asked.iter().filter(|head| head.contains("/sites/")).collect();
            let [sites] = sites[..] else { panic!("{asked:#?}") };
            assert_eq!(sites.contains("all_users=1"), all, "{sites}");
        }
    }
}

#[tokio::test]
async fn what_a_stopped_server_has_left_is_looked_after_once_it_can_be_seen() {
    let service = Served::twcc_with_system_disks();
    let server = service.ask("GET", "servers", None).await[0]["id"].to_string();
    let body = json!({"name": "image-1", "desc": "", "os": "Linux", "os_version": "1"});
    service.fault(json!({"fault": "hung", "method": "PUT"})).await;
    service.ask("PUT", &format!("images/{server}/save"), Some(body)).await;
    let service = service.restarted();
    let (there, away) = ("store/locations/local", "store/locations/away");
    let (there, away) = (service.datacenter.path(there), service.datacenter.path(away));
    let is_there = there.exists();
    if is_there {
        std::fs::rename(&there, &away).unwrap();
    }
    std::fs::create_dir_all(there.parent().unwrap()).unwrap();
    std::fs::write(&there, "in the way").unwrap();
    assert_eq!(service.answer("GET", "images", None).await.0, 503);
    std::fs::remove_file(&there).unwrap();
    if is_there {
        std::fs::rename(&away, &there).unwrap();
    }
    assert_eq!(service.images().await[0]["status"], "ERROR");
}

/// A description that somebody has written over: what was made is there, and nobody knows whose it is.
#[tokio::test]
async fn a_set_whose_image_has_lost_its_record_is_not_said_to_be_deleted() {
    let service = Arc::new(Served::twcc());
    let case = case(&service, "");
    case.round(0).await;
    let snapshot = service.of("snapshots").await.remove(0);
    let images = service.images().await;
    let image = images.iter().find(|image| image["name"] == snapshot["name"]).unwrap();
    service.ask("PATCH", &format!("images/{}", image["id"]), Some(json!({"desc": "mine"}))).await;
    let room = case.room(0);
    let inventory = room.observe().await;
    let plan = stillframe::report::plan_text(&room.plan(&inventory, noon(0)));
    assert!(plan.contains("? no restore points as they are; left alone (1)"), "{plan}");
    assert!(plan.contains("was its description edited?"), "{plan}");
    assert!(plan.contains("there is no READY one of its source beside it"), "{plan}");
    let ledger = std::fs::read_to_string(case.directory.path().join("ledger.ndjson")).unwrap();
    let lines: Vec<Value> =
        ledger.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let drift = stillframe::audit::drift::drift(&lines, &case.policies(), &inventory);
    let kinds: Vec<_> = drift.items.iter().map(|item| (item.kind, item.image.as_str())).collect();
    let lost = stillframe::audit::drift::DriftKind::OwnershipLost;
    assert_eq!(kinds, [(lost, snapshot["name"].as_str().unwrap())]);
}

/// The program says what is damaged, which of several is meant, and that it cannot restore.
#[tokio::test]
async fn the_program_says_what_it_finds_and_what_it_cannot_do() {
    let service = Arc::new(Served::twcc_with_system_disks());
    let case = case(&service, "");
    case.round(0).await;
    let endpoint = format!("http://{}", service.address);
    let config = json!({
        "apiVersion": "stillframe/v1", "kind": "Config",
        "spec": {"engines": {"memory": {"twcc": {"project": "GOV000001", "endpoint": endpoint}}}},
    });
    std::fs::create_dir_all(service.datacenter.path("front")).unwrap();
    std::fs::write(service.datacenter.path("front/stillframe.yaml"), config.to_string()).unwrap();
    let run = |code: i32, verb: &[&str]| {
        service.datacenter.run_to(code, &[verb, &["--policies", "front"]].concat())
    };
    let image = service.images().await.remove(0);
    let (name, path) = (image["name"].as_str().unwrap(), format!("images/{}", image["id"]));
    let restore = run(1, &["restore", name, "--name", "web-9"]);
    assert!(restore.err.contains("with the tools of its service"), "{}", restore.err);
    assert!(!restore.err.contains("--to"), "{}", restore.err);
    // A record that was cut short is damaged.
    let desc = service.desc(&path).await;
    service.describe(&path, &desc[..40]).await;
    let list = run(0, &["list"]);
    let line = list.out.lines().find(|line| line.contains(name)).unwrap();
    assert!(line.contains("broken"), "{line}");
    let plan = run(0, &["plan"]);
    assert!(plan.out.contains("the record in its description is damaged"), "{}", plan.out);
    assert!(!plan.out.contains("is missing"), "{}", plan.out);
    // A name is there as often as somebody wants.
    let server = service.ask("GET", "servers", None).await[0]["id"].to_string();
    let body = json!({"name": name, "desc": "", "os": "Linux", "os_version": "1"});
    let second = service.ask("PUT", &format!("images/{server}/save"), Some(body)).await;
    let show = run(1, &["show", name]);
    for id in [&image["id"], &second["id"]] {
        assert!(show.err.contains(&format!("GOV000001/i{id}")), "{}", show.err);
    }
}
