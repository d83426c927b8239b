//! Copies in a folder of their own: whatever goes wrong while one is made, there is one, and a plan
//! after it has nothing to do.

use stillframe::engine::{
    Author, CopyRequest, Created, Progress, RebuildRequest, Topic, Unwatched, Verdict, Wanted,
    Watcher, yandex,
};
use stillframe::inventory::{GapScope, Grant, ImageKind, LABEL_COPY};
use stillframe::name::{Ownership, Slot};
use stillframe::plan::{Copy, ImageRef};
use stillframe::policy::{Finding, SourceFile, load};
use stillframe::reconcile::Room;

use super::super::super::{policies, room};
use super::super::*;
use super::gate::Gate;
use super::world::{Deed, Ticking, World};

const BOOT: &str = "  capture: {kind: disk-image, disks: boot}\n";
const RULES: &str = "  retention: {last: 3}\n  lifecycle: {grace: 1d}\n";
const VAULT: &str = "p-vault";
/// A day, in minutes.
const DAY: i64 = 24 * 60;

fn unwatched() -> Arc<Unwatched> {
    Arc::new(Unwatched)
}

fn settings() -> Value {
    json!({"folders": ["p"], "copyFolders": [VAULT]})
}

/// The settings for a way through a gate.
fn through(gate: &Gate) -> Value {
    let mut settings = settings();
    settings["endpoint"] = json!(gate.url());
    settings["endpoints"] = json!({"compute": gate.url()});
    settings
}

fn world() -> World {
    World::over(Served::yandex_with_disk_images())
}

/// Policies that copy, and those that do not.
fn spec(copies: bool) -> String {
    let storage = if copies { "  storage: {copies: [p-vault]}\n" } else { "" };
    format!("{BOOT}{RULES}{storage}")
}

fn room_of(world: &World, settings: Value, spec: &str) -> Room {
    let engine = Arc::new(world.engine_with(settings));
    room(engine, world.served.clock.clone(), policies(spec), &world.case.directory)
}

async fn round(room: &Room) -> Round {
    room.round(&Yes, Arc::new(Quiet), &Stop::default()).await
}

/// A round of policies that copy.
async fn run(world: &World) -> Round {
    round(&room_of(world, settings(), &spec(true))).await
}

fn is_all_done(round: &Round) -> bool {
    round.outcomes.iter().all(|outcome| outcome.ending.is_done())
}

/// Plan again: nothing to do.
async fn nothing_to_do(world: &World, spec: &str) {
    let room = room_of(world, settings(), spec);
    let inventory = room.observe().await;
    assert!(inventory.engines[0].is_complete(), "{:?}", inventory.engines[0].gaps);
    let plan = room.plan(&inventory, world.now());
    assert_eq!((plan.changes, plan.refusals), (Vec::new(), Vec::new()));
}

/// The images of a folder, as the service has them.
async fn images(world: &World, folder: &str) -> Vec<Value> {
    let listed = world.ask("GET", &format!("compute/v1/images?folderId={folder}"), None).await;
    listed["images"].as_array().cloned().unwrap_or_default()
}

/// An original of `web-1`, and what is asked for to copy it.
async fn original(world: &World) -> (Image, CopyRequest) {
    let created = world.engine_with(settings()).create(world.request(0), unwatched()).await;
    let original = created.unwrap().image().clone();
    let Ownership::Ours(key) = original.ownership() else { panic!("it is ours") };
    let mut labels = key.labels();
    labels.insert(LABEL_COPY.to_owned(), "yes".to_owned());
    let copy = Copy {
        name: key.copy_name(&key.default_prefix(), VAULT),
        location: VAULT.to_owned(),
        kms_key: None,
        labels,
        sharing: None,
        replaces: None,
    };
    (original.clone(), CopyRequest { key, image: ImageRef::of(&original), copy, by: None })
}

async fn copy(world: &World, request: &CopyRequest) -> Result<Created, EngineError> {
    world.engine_with(settings()).copy(request.clone(), unwatched()).await
}

fn of_images(fault: &str, times: u32) -> Value {
    json!({"fault": fault, "collection": "images", "times": times})
}

#[tokio::test]
async fn what_goes_wrong_while_copies_are_made_makes_none_twice() {
    let posts = |fault: &str, times: u32| json!({"fault": fault, "collection": "images", "method": "POST", "times": times});
    for (script, is_done_at_once) in [
        (posts("reply-lost", 2), true),
        (posts("unavailable", 3), true),
        (posts("rate-limit", 3), true),
        (posts("operations-limit", 4), true),
        (posts("operations-limit-in-operation", 2), true),
        (json!({"fault": "slow-operation", "times": 20}), true),
        (json!({"fault": "early-error", "times": 20}), true),
        (posts("quota-in-operation", 2), false),
        (posts("vanishing-image", 2), false),
        (posts("forbidden", 2), false),
    ] {
        let world = world();
        let first = round(&room_of(&world, settings(), &spec(false))).await;
        assert_eq!((first.plan.summary.create, is_all_done(&first)), (2, true));
        world.fault(script.clone()).await;
        let second = run(&world).await;
        assert_eq!((second.plan.summary.copy, second.plan.summary.create), (2, 0), "{script}");
        assert_eq!(is_all_done(&second), is_done_at_once, "{script}: {:?}", second.outcomes);
        world.pass(5);
        let third = run(&world).await;
        assert_eq!(third.plan.summary.copy, if is_done_at_once { 0 } else { 2 }, "{script}");
        nothing_to_do(&world, &spec(true)).await;
        let (there, copies) = (images(&world, "p").await, images(&world, VAULT).await);
        assert_eq!((there.len(), copies.len()), (2, 2), "{script}");
    }
}

/// Has another run do something once it waits for other operations.
struct Faster(Arc<Ticking>, Deed);

impl Watcher for Faster {
    fn progress(&self, _: Progress) {}

    fn waits(&self, _: &str) {
        self.0.meanwhile([self.1.clone()]);
    }
}

#[tokio::test]
async fn what_another_run_copies_while_others_are_waited_for_is_not_asked_for_again() {
    let world = world();
    let (original, request) = original(&world).await;
    let gate = Gate::new(world.served.address);
    let copy = json!({
        "folderId": VAULT, "name": request.copy.name, "labels": request.copy.labels,
        "imageId": original.id.rsplit('/').next(),
    });
    let deed = ("POST", "compute/v1/images".to_owned(), copy);
    let watcher = Arc::new(Faster(Arc::clone(&world.ticking), deed));
    world.fault(of_images("operations-limit-in-operation", 1)).await;
    let created = world.engine_with(through(&gate)).copy(request, watcher).await;
    assert!(matches!(&created, Ok(Created::Found { .. })), "{created:?}");
    assert_eq!(gate.asked("POST /compute/v1/images").len(), 1);
    assert_eq!(images(&world, VAULT).await.len(), 1);
}

/// The operation is done long before the copy is READY.
#[tokio::test]
async fn a_copy_is_waited_for_until_it_is_ready() {
    let world = world();
    let (_, request) = original(&world).await;
    // The original is looked at before.
    let slow = json!({"fault": "slow-image", "collection": "images", "after": 1, "times": 4});
    world.fault(slow).await;
    let (before, created) = (world.now(), copy(&world, &request).await.unwrap());
    assert!(matches!(&created, Created::Made(copy) if copy.state == ImageState::Ready));
    let took = world.now().duration_since(before);
    assert!(took > jiff::SignedDuration::from_secs(3), "nothing was waited for: {took}");
}

#[tokio::test]
async fn of_two_copies_of_one_slot_one_is_let_go() {
    let world = world();
    round(&room_of(&world, settings(), &spec(false))).await;
    world.fault(of_images("duplicate", 1)).await;
    run(&world).await;
    assert_eq!(images(&world, VAULT).await.len(), 3);
    for _ in 0..5 {
        for _ in 0..2 {
            let round = run(&world).await;
            assert!(is_all_done(&round), "{:?} {:?}", round.plan.refusals, round.outcomes);
        }
        nothing_to_do(&world, &spec(true)).await;
        world.pass(DAY);
    }
    run(&world).await;
    let seen = world.engine_with(settings()).observe().await.images;
    assert!(seen.iter().all(|image| image.state == ImageState::Ready), "{seen:#?}");
    let copies = seen.iter().filter(|image| image.location == VAULT).count();
    assert_eq!((seen.len(), copies), (16, 8), "{seen:#?}");
}

/// Four days went well: on the next, points and their copies are let go, and others deleted.
async fn before_the_fifth_day() -> World {
    let world = world();
    for _ in 0..4 {
        assert!(is_all_done(&run(&world).await));
        nothing_to_do(&world, &spec(true)).await;
        world.pass(DAY);
    }
    world
}

#[tokio::test]
async fn what_is_not_seen_of_the_vault_is_a_gap_and_deletes_nothing() {
    for what in ["a page", "all of it", "its disks"] {
        let world = before_the_fifth_day().await;
        let gate = Gate::new(world.served.address);
        let folders = |gate: &Gate, folder: Option<&str>| {
            let mut state = gate.state();
            let unseen = match what {
                "a page" => &mut state.torn,
                "all of it" => &mut state.forbidden,
                _ => &mut state.without_disks,
            };
            *unseen = folder.into_iter().map(str::to_owned).collect();
        };
        folders(&gate, Some(VAULT));
        let room = room_of(&world, through(&gate), &spec(true));
        let inventory = room.observe().await;
        let seen = &inventory.engines[0];
        assert!(!seen.is_complete(), "{what} was lost and nobody says so");
        let is_of_vault = |gap: &stillframe::inventory::Gap| {
            (gap.scope, &*gap.place) == (GapScope::Images, VAULT)
        };
        assert!(seen.gaps.iter().all(is_of_vault), "{:?}", seen.gaps);
        // What can be seen is captured all the same; what would be copied is not known.
        let blind = round(&room).await;
        let summary = &blind.plan.summary;
        assert_eq!((summary.create, summary.copy, is_all_done(&blind)), (2, 0, true));
        assert_eq!((summary.deprecate, summary.delete), (0, 0));
        assert_eq!((images(&world, "p").await.len(), images(&world, VAULT).await.len()), (10, 8));
        folders(&gate, None);
        for _ in 0..2 {
            assert!(is_all_done(&round(&room).await));
        }
        nothing_to_do(&world, &spec(true)).await;
        // Three that are kept of each machine, and one that waits out its grace; as many copies.
        let (there, copies) = (images(&world, "p").await, images(&world, VAULT).await);
        assert_eq!((there.len(), copies.len()), (8, 8), "{what}");
    }
}

#[tokio::test]
async fn a_run_that_is_killed_while_it_copies_is_ended_by_the_next() {
    let mut kills = 0;
    for request in 1.. {
        let world = world();
        let (_, wanted) = original(&world).await;
        let gate = Gate::new(world.served.address);
        gate.state().frozen_at = Some(request);
        let engine = world.engine_with(through(&gate));
        let work = tokio::spawn(async move { engine.copy(wanted, unwatched()).await });
        while !work.is_finished() && !gate.state().is_frozen {
            tokio::task::yield_now().await;
        }
        let was_killed = gate.state().is_frozen;
        work.abort();
        let ended = work.await;
        gate.state().frozen_at = None;
        for _ in 0..2 {
            world.served.patient().pause(Duration::ZERO).await;
            world.pass(1);
            assert!(is_all_done(&run(&world).await), "killed at request {request}");
        }
        nothing_to_do(&world, &spec(true)).await;
        let (there, copies) = (images(&world, "p").await, images(&world, VAULT).await);
        assert_eq!((there.len(), copies.len()), (2, 2), "killed at request {request}");
        if !was_killed {
            assert!(matches!(ended, Ok(Ok(Created::Made(_)))));
            break;
        }
        kills += 1;
    }
    assert!(kills >= 6, "it was killed {kills} times only");
}

#[tokio::test]
async fn a_copy_has_what_restoring_hangs_on_and_nothing_else_of_its_original() {
    let world = world();
    let images_of = json!({"pooled": true, "minDiskGib": 1});
    let mut settings = settings();
    settings["images"] = images_of;
    settings["quota"] = json!({"images": 10, "pooledImages": 3});
    let mut room = room_of(&world, settings, &spec(true));
    let policy = &mut Arc::make_mut(&mut room.policies).policies[0];
    policy.capture.family = Some("web".to_owned());
    let round = round(&room).await;
    assert!(is_all_done(&round), "{:?}", round.outcomes);
    let (there, copies) = (images(&world, "p").await, images(&world, VAULT).await);
    assert_eq!((there.len(), copies.len()), (2, 2));
    let gib = (1_u64 << 30).to_string();
    for original in &there {
        assert_eq!((&original["pooled"], &original["family"]), (&json!(true), &json!("web")));
        assert_eq!(original["minDiskSize"], gib.as_str());
    }
    for copy in &copies {
        assert_eq!((&copy["pooled"], &copy["family"]), (&Value::Null, &Value::Null), "{copy}");
        assert_eq!((&copy["minDiskSize"], &copy["folderId"]), (&json!(gib), &json!(VAULT)));
        assert_eq!(copy["labels"]["stillframe-boot"], "yes");
        let text = Author::without(copy["description"].as_str().unwrap());
        assert!(there.iter().any(|one| text.ends_with(one["name"].as_str().unwrap())), "{text}");
    }
    // Both quotas hold where images are optimised for deployment.
    let quotas = round.plan.budget.unwrap().quotas;
    let of_images = quotas.iter().find(|quota| quota.kind == ImageKind::DiskImage).unwrap();
    assert_eq!((of_images.limit, of_images.now, of_images.after), (3, 0, 4));
    assert!(of_images.long_run > of_images.limit);
}

#[tokio::test]
async fn what_cannot_be_copied_is_refused_before_anything_is_asked_for() {
    let world = world();
    let (original, request) = original(&world).await;
    let refuses = async |request: &CopyRequest, part: &str| {
        let refused = copy(&world, request).await;
        let Err(EngineError::Refused(why)) = &refused else { panic!("{part}: {refused:?}") };
        assert!(why.contains(part), "{why}");
    };
    for (location, part) in [("p", "none of `copyFolders`"), ("q", "none of `copyFolders`")] {
        let mut elsewhere = request.clone();
        elsewhere.copy.location = location.to_owned();
        refuses(&elsewhere, part).await;
    }
    let mut snapshot = request.clone();
    snapshot.image.id = Some("p/snapshots/7".to_owned());
    refuses(&snapshot, "copies no snapshot").await;
    let mut beside = request.clone();
    beside.image.id = Some(format!("{VAULT}/images/7"));
    refuses(&beside, "is in p-vault already").await;
    let mut shared = request.clone();
    shared.copy.sharing =
        Some(vec![Grant { role: "viewer".to_owned(), members: vec!["all".to_owned()] }]);
    refuses(&shared, "`all` is nobody").await;
    // Another folder of the cloud is nothing of this engine.
    let mut foreign = request.clone();
    foreign.image.id = original.id.strip_prefix('p').map(|rest| format!("q{rest}"));
    assert_eq!(copy(&world, &foreign).await, Err(EngineError::NotFound));
    assert!(images(&world, VAULT).await.is_empty());
    // What has the name there, and is another restore point or none, is in the way.
    let Created::Made(_) = copy(&world, &request).await.unwrap() else { panic!("it was there") };
    let mut other = request.clone();
    other.key.slot = Slot::at(noon(-5));
    let taken = Err(EngineError::NameTaken(request.copy.name.clone()));
    assert_eq!(copy(&world, &other).await, taken);
    let there = &images(&world, VAULT).await[0];
    let path = format!("compute/v1/images/{}", there["id"].as_str().unwrap());
    let body = json!({"updateMask": "labels", "labels": request.key.labels()});
    world.ask("PATCH", &path, Some(body)).await;
    assert_eq!(copy(&world, &request).await, taken, "it does not say that it is a copy");
    assert_eq!(images(&world, VAULT).await.len(), 1);
}

#[tokio::test]
async fn a_copy_under_another_key_than_the_policys_is_told() {
    let world = world();
    let (_, mut request) = original(&world).await;
    request.copy.kms_key = Some("key-1".to_owned());
    for _ in 0..2 {
        let told = copy(&world, &request).await;
        let Err(EngineError::Refused(why)) = &told else { panic!("{told:?}") };
        assert!(why.contains("under a key of the service and not under key-1"), "{why}");
        assert_eq!(images(&world, VAULT).await.len(), 1);
    }
    request.copy.kms_key = None;
    assert!(matches!(copy(&world, &request).await, Ok(Created::Found { .. })));
}

#[tokio::test]
async fn who_may_use_copies_is_what_the_policy_says() {
    let world = world();
    let sharing = "  sharing: [{role: compute.images.user, members: [\"userAccount:a\"]}]\n";
    let shared = format!("{}{sharing}", spec(true));
    let room = room_of(&world, settings(), &shared);
    assert!(is_all_done(&round(&room).await));
    nothing_to_do(&world, &shared).await;
    let copies = images(&world, VAULT).await;
    let path = |copy: &Value| format!("compute/v1/images/{}", copy["id"].as_str().unwrap());
    let of = async |copy: &Value| {
        let bindings = format!("{}:listAccessBindings", path(copy));
        world.ask("GET", &bindings, None).await["accessBindings"].clone()
    };
    let subject = json!({"id": "a", "type": "userAccount"});
    let wanted = json!([{"roleId": "compute.images.user", "subject": subject}]);
    for copy in &copies {
        assert_eq!(of(copy).await, wanted);
    }
    let body = json!({"accessBindings": []});
    world.ask("POST", &format!("{}:setAccessBindings", path(&copies[0])), Some(body)).await;
    let again = round(&room).await;
    assert_eq!((again.plan.summary.relabel, is_all_done(&again)), (1, true));
    assert_eq!(of(&copies[0]).await, wanted);
    nothing_to_do(&world, &shared).await;
}

#[tokio::test]
async fn a_machine_is_made_again_of_a_copy_when_its_original_is_gone() {
    let world = world();
    let (original, request) = original(&world).await;
    let created = copy(&world, &request).await.unwrap();
    let engine = world.engine_with(settings());
    engine.delete(&ImageRef::of(&original)).await.unwrap();
    let rebuild = RebuildRequest {
        image: ImageRef::of(created.image()),
        name: "web-9".to_owned(),
        disks: Vec::new(),
        disks_only: false,
        like: None,
        zone: None,
        machine_type: None,
        labels: std::collections::BTreeMap::new(),
    };
    let made = engine.rebuild().unwrap().rebuild(rebuild, unwatched()).await.unwrap();
    let machine = format!("compute/v1/instances/{}", made.instance.unwrap());
    assert_eq!(world.ask("GET", &machine, None).await["folderId"], "p");
    // What a machine was made of is in use, also across folders.
    let seen = engine.observe().await.images;
    assert_eq!((seen.len(), &seen[0].in_use_by), (1, &vec!["disk web-9-boot".to_owned()]));
    let refused = engine.delete(&ImageRef::of(&seen[0])).await;
    assert!(matches!(&refused, Err(EngineError::Refused(why)) if why.contains("web-9-boot")));
}

#[tokio::test]
async fn doctor_looks_at_the_folders_of_copies() {
    let world = world();
    let (_, request) = original(&world).await;
    copy(&world, &request).await.unwrap();
    let mut settings = settings();
    settings["copyFolders"] = json!([VAULT, "p-nowhere"]);
    let engine = world.engine_with(settings);
    let examined = engine.examine(&Wanted::default()).await;
    let of = |topic: Topic, part: &str| {
        let found = examined.iter().find(|one| one.topic == topic && one.message.contains(part));
        found.unwrap_or_else(|| panic!("nothing is said of {part}: {examined:#?}")).verdict
    };
    assert_eq!(of(Topic::Endpoint, "p-vault answers"), Verdict::Well);
    assert_eq!(of(Topic::Quota, "p-vault: 1 of 32 images"), Verdict::Well);
    assert_eq!(of(Topic::Settings, "p-nowhere"), Verdict::Wrong);
    let inventory = engine.observe().await;
    assert_eq!(inventory.identity.split(", copies in ").nth(1), Some("p-vault, p-nowhere"));
    assert_eq!(engine.places().len(), 3);
}

#[test]
fn what_has_no_copies_is_found_at_its_line() {
    let found = |spec: &str| {
        let config = "apiVersion: stillframe/v1\nkind: Config\nspec:\n  engines:\n    shop: \
                      {yandex: {folders: [b1gshop], copyFolders: [b1gvault]}}\n";
        let policy = format!(
            "apiVersion: stillframe/v1\nkind: BackupPolicy\nmetadata: {{name: nightly}}\nspec:\n  \
             source: {{match: [{{names: [web]}}]}}\n  schedule: {{cron: \"0 2 * * *\"}}\n  \
             retention: {{days: 3}}\n{spec}"
        );
        let files = [("stillframe.yaml", config), ("nightly.yaml", policy.as_str())]
            .map(|(path, text)| SourceFile { path: path.to_owned(), text: text.to_owned() });
        let loaded = load(files.to_vec(), &[yandex::kind()]);
        let found = loaded.findings.into_iter().filter(Finding::is_error).map(|finding| {
            let place = finding.place.unwrap();
            let text = place.file.text[place.span.clone()].to_owned();
            (text, finding.message, finding.hint.unwrap_or_default())
        });
        found.collect::<Vec<_>>()
    };
    let image = "  capture: {kind: disk-image, disks: boot}\n";
    assert_eq!(found(&format!("{image}  storage: {{copies: [b1gvault]}}\n")), []);
    for (spec, at, message, hint) in [
        (
            "  storage: {copies: [b1gvault]}\n".to_owned(),
            "copies",
            "the engine copies no snapshot to other locations",
            "it copies disk-image",
        ),
        (
            format!("{image}  storage: {{copies: [b1gvalut]}}\n"),
            "b1gvalut",
            "the engine copies nothing to `b1gvalut`",
            "did you mean `b1gvault`?",
        ),
        (
            format!("{image}  storage: {{copies: [b1gvault, b1gshop]}}\n"),
            "b1gshop",
            "the engine copies nothing to `b1gshop`",
            "it copies to b1gvault",
        ),
        (
            format!("{image}  storage: {{copies: [elsewhere]}}\n"),
            "elsewhere",
            "the engine copies nothing to `elsewhere`",
            "it copies to b1gvault",
        ),
        (
            format!("{image}  storage: {{location: b1gvault}}\n"),
            "b1gvault",
            "the engine does not let choose where images are stored",
            "take `location` out",
        ),
    ] {
        let found = found(&spec);
        let [(text, said, hinted)] = found.as_slice() else { panic!("{spec}: {found:?}") };
        assert!(text.contains(at), "{text}");
        assert_eq!((said.as_str(), hinted.as_str()), (message, hint), "{spec}");
    }
}
