//! Several folders, what may not be looked into, and what keys and labels come to.

use stillframe::engine::{Author, CreateRequest, Created, Topic, Unwatched, Verdict, Wanted, set};
use stillframe::inventory::Inventory;
use stillframe::plan::{ImageRef, Update};

use super::super::*;
use super::gate::Gate;
use super::world::{World, try_ask};
use crate::engines::{policies, room};

fn unwatched() -> Arc<Unwatched> {
    Arc::new(Unwatched)
}

/// A world of two folders: `web-2` is in the second.
fn two_folders(world: &World) -> Gate {
    let gate = Gate::new(world.served.address);
    gate.state().homes.insert("7002".to_owned(), "q".to_owned());
    gate
}

#[tokio::test]
async fn images_are_beside_their_instances_or_in_a_folder_of_their_own() {
    let world = World::new();
    let gate = two_folders(&world);
    let settings = json!({"folders": ["p", "q"], "endpoint": gate.url(), "endpoints": {"compute": gate.url()}});
    let engine = world.engine_with(settings.clone());
    let inventory = engine.observe().await;
    assert!(inventory.is_complete(), "{:?}", inventory.gaps);
    assert!(inventory.instances.iter().any(|one| one.id.as_str() == "7002"));
    let mut request = world.request(0);
    request.key.source = stillframe::name::SourceId::parse("7002").unwrap();
    request.create.labels = request.key.labels();
    request.name = request.key.image_name(&request.key.default_prefix());
    let created = engine.create(request, unwatched()).await.unwrap();
    assert!(created.image().id.starts_with("q/snapshots/"), "{}", created.image().id);
    assert!(
        engine.create(world.request(0), unwatched()).await.unwrap().image().id.starts_with("p/")
    );
    // All of the others go into one, whatever folder their instance is in.
    let mut other = settings;
    other["imagesFolder"] = json!("r");
    let engine = world.engine_with(other);
    let mut request = world.request(-1);
    request.create.deadline = noon(1);
    let created = engine.create(request, unwatched()).await.unwrap();
    assert!(created.image().id.starts_with("r/snapshots/"), "{}", created.image().id);
    assert_eq!(engine.observe().await.images.len(), 3);
    engine.delete(&ImageRef::of(created.image())).await.unwrap();
    assert_eq!(engine.observe().await.images.len(), 2);
}

#[tokio::test]
async fn a_folder_that_nobody_may_look_into_is_a_gap() {
    let world = World::new();
    let gate = two_folders(&world);
    gate.state().forbidden.insert("q".to_owned());
    let settings = json!({"folders": ["p", "q"], "endpoint": gate.url(), "endpoints": {"compute": gate.url()}});
    let inventory = world.engine_with(settings).observe().await;
    assert!(!inventory.is_complete());
    assert!(inventory.gaps.iter().all(|gap| gap.place == "q"), "{:?}", inventory.gaps);
    assert!(inventory.instances.iter().any(|one| one.name == "web-1"));
}

#[tokio::test]
async fn doctor_says_what_is_in_the_way() {
    let world = World::new();
    let gate = two_folders(&world);
    gate.state().forbidden.insert("q".to_owned());
    let endpoints = json!({"compute": gate.url()});
    let settings = json!({
        "folders": ["p", "q"], "endpoint": gate.url(), "endpoints": endpoints,
        "quota": {"snapshots": 2, "images": 10},
    });
    let engine = world.engine_with(settings);
    engine.create(world.request(0), unwatched()).await.unwrap();
    let examined = engine.examine(&Wanted::default()).await;
    let of = |topic: Topic, part: &str| {
        let found = examined.iter().find(|one| one.topic == topic && one.message.contains(part));
        found.unwrap_or_else(|| panic!("nothing is said of {part}: {examined:#?}")).clone()
    };
    assert_eq!(of(Topic::Endpoint, "compute is at").verdict, Verdict::Well);
    assert_eq!(of(Topic::Endpoint, "p answers").verdict, Verdict::Well);
    let forbidden = of(Topic::Permissions, "q: ");
    assert_eq!(forbidden.verdict, Verdict::Wrong);
    assert!(forbidden.remedy.unwrap().contains("add-access-binding q"));
    assert_eq!(of(Topic::Quota, "p: 2 of 2 snapshots").verdict, Verdict::Wrong);
    assert_eq!(of(Topic::Quota, "p: 0 of 10 images").verdict, Verdict::Well);
    // A folder that is not there, and a token that is not taken.
    let examined =
        world.engine_with(json!({"folders": ["elsewhere"]})).examine(&Wanted::default()).await;
    let wrong = examined.iter().find(|one| one.verdict == Verdict::Wrong).unwrap();
    assert!(
        wrong.topic == Topic::Settings && wrong.remedy.as_ref().unwrap().contains("id of a folder")
    );
    world.fault(json!({"fault": "unauthenticated", "collection": "instances", "times": 5})).await;
    let examined = world.engine().examine(&Wanted::default()).await;
    assert!(
        examined.iter().any(|one| one.topic == Topic::Credentials && one.verdict == Verdict::Wrong),
        "{examined:#?}"
    );
}

#[tokio::test]
async fn an_image_under_another_key_is_not_made() {
    let world = World::new();
    let mut request = world.request(0);
    request.create.kms_key = Some("key-1".to_owned());
    let refused = world.create(request).await;
    let Err(EngineError::Refused(why)) = &refused else { panic!("{refused:?}") };
    assert!(why.contains("a key of the service") && why.contains("key-1"), "{why}");
    assert_eq!(world.snapshots().await, 0);
}

#[tokio::test]
async fn an_image_under_the_key_of_its_disk_is_made() {
    let world = World::new();
    let gate = Gate::new(world.served.address);
    gate.state().key = Some("key-1".to_owned());
    let engine = world.engine_behind(&gate.url());
    for (key, is_made) in [("key-2", false), ("key-1", true)] {
        let mut request = world.request(0);
        request.create.kms_key = Some(key.to_owned());
        let created = engine.create(request, unwatched()).await;
        assert_eq!(created.is_ok(), is_made, "{created:?}");
        assert_eq!(world.snapshots().await, if is_made { 2 } else { 0 });
    }
}

/// Which key a disk has that was not seen nobody knows.
#[tokio::test]
async fn disks_that_are_not_seen_are_told_once_and_not_said_to_have_no_key() {
    let world = World::new();
    let spec = "  capture: {kind: snapshot}\n  encryption: {kmsKey: key-1}\n";
    let clock = world.served.clock.clone();
    let room = room(Arc::new(world.engine()), clock, policies(spec), &world.case.directory);
    let told = |inventory: &Inventory| {
        let plan = room.plan(inventory, world.now());
        let blocked: Vec<String> = plan.blocked.iter().map(|one| one.message.clone()).collect();
        (stillframe::report::plan_text(&plan), blocked.join("\n"))
    };
    let (_, seen) = told(&room.observe().await);
    assert!(seen.contains("boot under no key of yours, content under no key of yours"), "{seen}");
    world.fault(json!({"fault": "forbidden", "collection": "disks"})).await;
    let inventory = room.observe().await;
    let gaps = &inventory.engines[0].gaps;
    assert_eq!(gaps.len(), 2, "of instances and of images: {gaps:?}");
    let (plan, unseen) = told(&inventory);
    assert!(unseen.contains("boot under a key that was not seen, content under"), "{unseen}");
    assert!(!unseen.contains("no key of yours"), "{unseen}");
    assert!(plan.contains("nothing is deleted there (1)"), "{plan}");
    assert_eq!(plan.matches(&gaps[0].message).count(), 1, "{plan}");
}

/// A disk that is attached between a plan and what is asked for.
#[tokio::test]
async fn a_disk_that_the_plan_did_not_see_is_not_left_out() {
    let world = World::new();
    let whole = world.create(world.request(0)).await.unwrap();
    let data = world.served.datacenter.path("examples/datacenter/disks");
    std::fs::copy(data.join("web-1-content.raw"), data.join("web-1-more.raw")).unwrap();
    world.served.datacenter.edit("examples/datacenter/instances/web-1.yaml", |text| {
        let content = "    - {deviceName: content, path: ../disks/web-1-content.raw}\n";
        text.replace(content, &format!("{content}{}", content.replace("content", "more")))
    });
    let mut stopped = world.stopped(1);
    for request in [world.request(1), stopped.clone()] {
        let ended = world.create(request).await;
        let Err(EngineError::Busy(message)) = ended else { panic!("{ended:?}") };
        let said = "web-1 has a disk more that the plan did not see; the next run tries again";
        assert_eq!(message, said);
    }
    assert_eq!(world.snapshots().await, 2);
    assert!(world.runs().await);
    // What is there is found, and what is left out is left out.
    assert_eq!(world.create(world.request(0)).await.unwrap().image(), whole.image());
    stopped.create.excluded_disks = vec!["more".to_owned()];
    assert_eq!(world.create(stopped).await.unwrap().image().members(), 2);
}

/// A set of more disks than may be asked for at once.
#[tokio::test]
async fn a_machine_of_many_disks_is_captured_in_several_goes() {
    let world = World::new();
    world.served.datacenter.edit("examples/datacenter/instances/web-1.yaml", |text| {
        let disk = |number: usize| {
            format!("    - {{deviceName: more-{number}, path: ../disks/more-{number}.raw}}\n")
        };
        let more: String = (0..14).map(disk).collect();
        text.replace("  tags: [http-server]\n", &format!("{more}  tags: [http-server]\n"))
    });
    for number in 0..14 {
        let path =
            world.served.datacenter.path(&format!("examples/datacenter/disks/more-{number}.raw"));
        std::fs::write(path, vec![1; 512]).unwrap();
    }
    let mut request = world.request(0);
    request.create.disks.extend((0..14).map(|number| format!("more-{number}")));
    let created = world.create(request).await.unwrap();
    let image = created.image();
    assert_eq!((image.state, image.members()), (ImageState::Ready, 16));
    assert_eq!(world.states().await, [ImageState::Ready]);
}

#[tokio::test]
async fn a_change_of_labels_resets_nothing_else() {
    let world = World::new();
    let created = world.create(world.request(0)).await.unwrap();
    let of_all = |listed: &Value, field: &str| -> Vec<String> {
        let all = listed["snapshots"].as_array().unwrap();
        all.iter().map(|one| one[field].as_str().unwrap_or_default().to_owned()).collect()
    };
    let update = Update {
        set_labels: [("colour".to_owned(), "red".to_owned())].into(),
        ..Update::default()
    };
    world.engine().update(&ImageRef::of(created.image()), &update).await.unwrap();
    let listed = world.ask("GET", "compute/v1/snapshots?folderId=p", None).await;
    assert_eq!(of_all(&listed, "description"), ["a description (by here)"; 2]);
    // The service does as its manual says where nobody names what is meant.
    let id = of_all(&listed, "id").remove(0);
    let body = json!({"labels": {"a": "b"}});
    world.ask("PATCH", &format!("compute/v1/snapshots/{id}"), Some(body)).await;
    let bare = world.ask("GET", &format!("compute/v1/snapshots/{id}"), None).await;
    assert!(bare["description"].is_null() && bare["name"].is_null(), "{bare}");
    assert_eq!(bare["labels"], json!({"a": "b"}));
}

#[tokio::test]
async fn a_request_that_is_sent_again_is_carried_out_once() {
    let world = World::new();
    let machine = world.ask("GET", super::world::WEB_1, None).await;
    let mut body =
        json!({"folderId": "p", "diskId": machine["bootDisk"]["diskId"], "name": "once"});
    let send = async |body: &Value| {
        try_ask(world.served.address, "POST", "compute/v1/snapshots", Some(body), Some("k-1")).await
    };
    let (_, first) = send(&body).await;
    let (status, second) = send(&body).await;
    assert_eq!((status, &first["id"]), (200, &second["id"]));
    assert_eq!(world.snapshots().await, 1);
    body["name"] = json!("twice");
    assert_eq!(send(&body).await.0, 400);
}

/// So that the service answers another run with what it has begun for this one.
#[tokio::test]
async fn another_run_asks_for_the_same_under_the_same_key() {
    let world = World::new();
    let gate = Gate::new(world.served.address);
    let refused =
        json!({"fault": "forbidden", "method": "POST", "collection": "snapshots", "times": 2});
    world.fault(refused).await;
    let failed = world.engine_behind(&gate.url()).create(world.request(0), unwatched()).await;
    assert!(failed.is_err());
    world.fault(json!({"fault": "slow-operation", "times": 3})).await;
    let of_another = CreateRequest { by: Author::new("ci-7"), ..world.request(0) };
    let created = world.engine_behind(&gate.url()).create(of_another, unwatched()).await;
    assert!(created.is_ok(), "{created:?}");
    let mut keys: std::collections::BTreeMap<String, std::collections::BTreeSet<String>> =
        [].into();
    let asked = gate.asked("POST /compute/v1/snapshots");
    for one in &asked {
        let disk = one.body["diskId"].as_str().unwrap().to_owned();
        keys.entry(disk).or_default().insert(one.headers["idempotency-key"].clone());
    }
    assert!(asked.len() >= 4 && keys.len() == 2, "{asked:?}");
    assert!(keys.values().all(|keys| keys.len() == 1), "{keys:?}");
}

/// Both have looked before anything was there, and ask under one key with descriptions of their own. Whatever the
/// service makes of that, there is one image, and it says whose it is.
#[tokio::test]
async fn a_host_that_was_faster_is_named_by_what_it_has_made() {
    for is_strict in [false, true] {
        let world = World::new();
        let gate = Gate::new(world.served.address);
        gate.state().is_strict = is_strict;
        let create = async |host: &str| {
            let request = CreateRequest { by: Author::new(host), ..world.request(0) };
            world.engine_behind(&gate.url()).create(request, unwatched()).await
        };
        let made = create("ci-7").await.unwrap();
        assert!(matches!(made, Created::Made(_)), "{made:?}");
        let asked = gate.asked("POST /compute/v1/snapshots").len();
        gate.state().blind = 2;
        let found = create("watch").await;
        let by = Author::new("ci-7");
        assert_eq!(found, Ok(Created::Found { image: made.image().clone(), by }));
        assert_eq!(world.snapshots().await, 2);
        assert_eq!(gate.state().blind, 0);
        assert_eq!(gate.asked("POST /compute/v1/snapshots").len(), asked + 2);
    }
}

#[tokio::test]
async fn a_set_that_has_grown_is_another_one() {
    let world = World::new();
    world.fault(json!({"fault": "quota-in-operation", "times": 1})).await;
    let request = world.request(0);
    assert!(world.create(request.clone()).await.is_err());
    world.pass(61);
    let seen = world.engine().observe().await.images.remove(0);
    assert_eq!(seen.state, ImageState::Partial);
    // What was left out is there after all.
    let there = world.ask("GET", "compute/v1/snapshots?folderId=p", None).await;
    let parts = set::parts(&request.name, &request.create.labels, &request.create.disks);
    let part =
        parts.iter().find(|part| there["snapshots"][0]["name"] != part.name.as_str()).unwrap();
    let disk = &there["snapshots"][0]["sourceDiskId"];
    let body = json!({"folderId": "p", "diskId": disk, "name": part.name, "labels": part.labels});
    world.ask("POST", "compute/v1/snapshots", Some(body)).await;
    let changed = world.engine().delete(&ImageRef::of(&seen)).await;
    assert_eq!(changed, Err(EngineError::Changed));
    assert_eq!(world.snapshots().await, 2);
}

#[tokio::test]
async fn a_set_that_a_killed_run_has_deleted_in_part_is_cleared_away() {
    let world = World::new();
    let created = world.create(world.request(0)).await.unwrap();
    assert!(matches!(created, Created::Made(_)));
    let listed = world.ask("GET", "compute/v1/snapshots?folderId=p", None).await;
    let id = listed["snapshots"][0]["id"].as_str().unwrap();
    world.ask("DELETE", &format!("compute/v1/snapshots/{id}"), None).await;
    while world.snapshots().await == 2 {
        tokio::task::yield_now().await;
    }
    // It is half a set, and never a restore point again.
    assert_ne!(world.states().await, [ImageState::Ready]);
    world.pass(61);
    let left = world.engine().observe().await.images.remove(0);
    assert_eq!(left.state, ImageState::Partial);
    world.engine().delete(&ImageRef::of(&left)).await.unwrap();
    assert_eq!(world.snapshots().await, 0);
}

#[tokio::test]
async fn who_may_use_images_goes_back_to_what_the_policy_says() {
    let served = Arc::new(Served::yandex());
    let case = Case {
        bench: Box::new(Arc::clone(&served)),
        directory: tempfile::tempdir().unwrap(),
        spec: "  sharing: [{role: compute.images.user, members: [allAuthenticatedUsers]}]\n",
    };
    case.round(0).await;
    case.nothing_to_do(0).await;
    let ask = async |method, path: &str, body: Option<Value>| {
        super::world::ask(served.address, method, path, body.as_ref()).await
    };
    let listed = ask("GET", "compute/v1/snapshots?folderId=p", None).await;
    let path = format!("compute/v1/snapshots/{}", listed["snapshots"][0]["id"].as_str().unwrap());
    let delta = |action: &str, role: &str, id: &str, kind: &str| {
        let binding = json!({"roleId": role, "subject": {"id": id, "type": kind}});
        json!({"action": action, "accessBinding": binding})
    };
    let deltas = [
        delta("ADD", "compute.images.user", "somebody", "userAccount"),
        delta("REMOVE", "compute.images.user", "allAuthenticatedUsers", "system"),
        delta("ADD", "viewer", "auditor", "serviceAccount"),
    ];
    let body = json!({"accessBindingDeltas": deltas});
    ask("POST", &format!("{path}:updateAccessBindings"), Some(body)).await;
    let round = case.round(0).await;
    assert_eq!(round.plan.summary.relabel, 1);
    assert!(round.outcomes.iter().all(|one| one.ending.is_done()), "{:?}", round.outcomes);
    case.nothing_to_do(0).await;
    let bindings = ask("GET", &format!("{path}:listAccessBindings"), None).await;
    let mut who: Vec<&str> = bindings["accessBindings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|binding| binding["subject"]["id"].as_str().unwrap())
        .collect();
    who.sort_unstable();
    // What the policy says nothing of is left alone.
    assert_eq!(who, ["allAuthenticatedUsers", "auditor"]);
}

/// It would be shared with all, and be a difference for ever.
#[tokio::test]
async fn who_cannot_be_meant_is_refused_before_anything_is_made() {
    let world = World::new();
    for nobody in ["system:allAuthenticatedUsers", "everybody"] {
        let mut request = world.request(0);
        request.create.sharing = Some(vec![stillframe::inventory::Grant {
            role: "compute.images.user".to_owned(),
            members: vec![nobody.to_owned()],
        }]);
        let refused = world.create(request).await;
        assert!(
            matches!(&refused, Err(EngineError::Refused(why)) if why.contains("allAuthenticatedUsers")),
            "{refused:?}"
        );
    }
    assert_eq!(world.snapshots().await, 0);
}

/// What is half done would be done again, and refused again, in each round.
#[tokio::test]
async fn who_cannot_be_meant_is_refused_before_a_label_changes() {
    let world = World::new();
    let created = world.create(world.request(0)).await.unwrap();
    let listed = "compute/v1/snapshots?folderId=p";
    let before = world.ask("GET", listed, None).await;
    let gate = Gate::new(world.served.address);
    let engine = world.engine_behind(&gate.url());
    let update = |member: &str| Update {
        set_labels: [("stillframe-let-go".to_owned(), "20261121t120000z".to_owned())].into(),
        sharing: Some(vec![stillframe::inventory::Grant {
            role: "compute.images.user".to_owned(),
            members: vec![member.to_owned()],
        }]),
        ..Update::default()
    };
    let image = ImageRef::of(created.image());
    let refused = engine.update(&image, &update("everybody")).await;
    assert!(matches!(refused, Err(EngineError::Refused(_))), "{refused:?}");
    let asked = gate.state().asked.clone();
    assert!(asked.iter().all(|asked| asked.line.starts_with("GET ")), "{asked:?}");
    assert_eq!(world.ask("GET", listed, None).await, before);
    let updated = engine.update(&image, &update("allAuthenticatedUsers")).await.unwrap();
    assert_eq!(updated.labels["stillframe-let-go"], "20261121t120000z");
}

#[tokio::test]
async fn doctor_counts_bytes_as_well() {
    let world = World::new();
    world.create(world.request(0)).await.unwrap();
    let gate = Gate::new(world.served.address);
    gate.state().stored = Some((3 << 30) - 5);
    for (most, verdict) in
        [(5, Verdict::Wrong), (6, Verdict::Note), (7, Verdict::Well), (1000, Verdict::Well)]
    {
        let endpoints = json!({"compute": gate.url(), "operation": gate.url()});
        let quota = json!({"snapshotsGib": most, "imagesGib": 100});
        let settings = json!({"folders": ["p"], "endpoints": endpoints, "quota": quota});
        let examined = world.engine_with(settings).examine(&Wanted::default()).await;
        let quotas: Vec<(String, Verdict)> = examined
            .into_iter()
            .filter(|one| one.topic == Topic::Quota && one.message.contains("GiB"))
            .map(|one| (one.message, one.verdict))
            .collect();
        let wanted = [
            ("p: 0 of 100 GiB of images of the cloud".to_owned(), Verdict::Well),
            (format!("p: 6 of {most} GiB of snapshots of the cloud"), verdict),
        ];
        assert_eq!(quotas, wanted);
    }
}
