//! Changes and deletes are made only where all is as it was seen, whatever happens while they wait.

use std::collections::BTreeMap;

use stillframe::inventory::{LABEL_LET_GO, Stage};
use stillframe::plan::Update;

use super::*;

/// A restore point of a service.
async fn made(service: &Arc<Served>, case: &Case) -> Image {
    let engine = service.open(clock(0));
    engine.create(case.request(0), Arc::new(Unwatched)).await.unwrap().image().clone()
}

/// An engine while whose first pause somebody writes into the description of an image.
fn while_held(service: &Arc<Served>, path: &str) -> TwccEngine {
    let (own, path) = (Arc::clone(service), path.to_owned());
    service.engine(move |number, _| {
        let (service, path) = (Arc::clone(&own), path.clone());
        async move {
            if number == 0 {
                let desc = service.desc(&path).await;
                service.describe(&path, &format!("{LABEL_HOLD} {desc}")).await;
            }
        }
    })
}

#[tokio::test]
async fn a_hold_that_is_written_while_a_delete_waits_is_heard() {
    for (served, collection) in
        [(Served::twcc_with_system_disks as fn() -> Served, "images"), (Served::twcc, "snapshots")]
    {
        for fault in ["bad-gateway", "too-many-requests"] {
            let service = Arc::new(served());
            let case = case(&service, "");
            let image = made(&service, &case).await;
            let engine = while_held(&service, &paths(&image.id)[0]);
            let script = json!({"fault": fault, "method": "DELETE", "collection": collection});
            service.fault(script).await;
            let ended = engine.delete(&ImageRef::of(&image)).await;
            assert_eq!(ended, Err(EngineError::Changed), "{collection}: {fault}");
            let seen = case.observe(0).await.images;
            assert_eq!((seen.len(), seen[0].state), (1, ImageState::Ready));
            assert!(seen[0].id == image.id && seen[0].is_held(noon(0)), "{seen:#?}");
        }
    }
}

#[tokio::test]
async fn a_hold_that_is_written_while_a_change_waits_is_heard() {
    for fault in ["bad-gateway", "too-many-requests"] {
        let service = Arc::new(Served::twcc());
        let case = case(&service, "");
        let image = made(&service, &case).await;
        let engine = while_held(&service, &paths(&image.id)[0]);
        service.fault(json!({"fault": fault, "method": "PATCH"})).await;
        let update = Update {
            stage_after: Stage::Deprecated,
            set_labels: BTreeMap::from([(LABEL_LET_GO.to_owned(), "20261121t120000z".to_owned())]),
            ..Update::default()
        };
        let ended = engine.update(&ImageRef::of(&image), &update).await;
        assert_eq!(ended, Err(EngineError::Changed), "{fault}");
        let seen = case.observe(0).await.images;
        assert!(seen[0].is_held(noon(0)) && seen[0].let_go_at().is_none(), "{seen:#?}");
    }
}

#[tokio::test]
async fn what_is_gone_after_a_lost_answer_was_deleted() {
    let service = Arc::new(Served::twcc_with_system_disks());
    let case = case(&service, "");
    let image = made(&service, &case).await;
    let own = Arc::clone(&service);
    let engine = service.engine(move |_, _| {
        let service = Arc::clone(&own);
        async move {
            while service.ask("GET", "images", None).await != json!([]) {
                tokio::task::yield_now().await;
            }
        }
    });
    service.fault(json!({"fault": "reply-lost", "method": "DELETE"})).await;
    assert_eq!(engine.delete(&ImageRef::of(&image)).await, Ok(()));
    assert_eq!(engine.delete(&ImageRef::of(&image)).await, Err(EngineError::NotFound));
}

#[tokio::test]
async fn a_delete_that_does_not_end_is_told() {
    for (fault, is_busy, said) in [
        ("failed-delete", false, "could not be deleted: the service says Image is in use"),
        ("hung-delete", true, "was deleted and is still there"),
    ] {
        let service = Arc::new(Served::twcc_with_system_disks());
        let case = case(&service, "");
        let image = made(&service, &case).await;
        service.fault(json!({"fault": fault, "method": "DELETE"})).await;
        let ended = service.open(clock(0)).delete(&ImageRef::of(&image)).await;
        let error = ended.unwrap_err();
        assert_eq!(matches!(error, EngineError::Busy(_)), is_busy, "{error}");
        assert!(error.to_string().contains(said), "{error}");
        assert_eq!(case.observe(0).await.images.len(), 1);
    }
}

#[tokio::test]
async fn what_a_list_leaves_out_costs_no_set() {
    let service = Arc::new(Served::twcc());
    let case = case(&service, "");
    let image = made(&service, &case).await;
    let engine = service.open(clock(1));
    let short =
        json!({"fault": "short-list", "method": "GET", "collection": "snapshots", "times": 2});
    service.fault(short).await;
    let seen = engine.observe().await;
    let [half] = &seen.images[..] else { panic!("{seen:#?}") };
    assert!(seen.gaps.is_empty() && half.id != image.id && half.state != ImageState::Ready);
    assert_eq!(engine.delete(&ImageRef::of(half)).await, Err(EngineError::Changed));
    let seen = case.observe(1).await.images;
    assert_eq!((seen.len(), &seen[0].id, seen[0].state), (1, &image.id, ImageState::Ready));
}

/// The description of the image of a set is edited: the snapshots stay, whatever time passes.
#[tokio::test]
async fn an_edit_of_the_image_costs_no_snapshot() {
    for edit in [
        |_: &str| "by hand".to_owned(),
        |desc: &str| desc.replacen("nightly", "nightle", 1),
        |desc: &str| format!("請保留{LABEL_HOLD}，{desc}"),
    ] {
        let service = Arc::new(Served::twcc());
        let case = case(&service, "  retention: {last: 1}\n  lifecycle: {grace: 0}\n");
        case.round(0).await;
        let before = service.of("snapshots").await;
        let images = service.images().await;
        let image = images.iter().find(|one| one["name"] == before[0]["name"]).unwrap();
        let path = format!("images/{}", image["id"]);
        service.describe(&path, &edit(image["desc"].as_str().unwrap())).await;
        let seen = case.observe(0).await.images;
        let doubted: Vec<_> = seen
            .iter()
            .filter(|one| one.state == ImageState::Unknown && one.id.contains("/s"))
            .collect();
        let [snapshot] = doubted[..] else { panic!("{seen:#?}") };
        let message = snapshot.message.as_ref().unwrap();
        assert!(message.contains(&image["id"].to_string()), "{message}");
        // Neither in the slot that it stands for nor when it would be long forgotten.
        for hours in [2, 26, 50, 9 * 24, 9 * 24 + 1] {
            let now = noon(0) + SignedDuration::from_hours(hours);
            let clock: Arc<dyn Clock> = Arc::new(stillframe::clock::FixedClock(now));
            let engine = service.open(Arc::clone(&clock));
            // Whoever asks for it is told so as well.
            let refused = engine.delete(&ImageRef::of(snapshot)).await;
            assert_eq!(refused, Err(EngineError::Changed));
            let day = room(engine, clock, case.policies(), &case.directory);
            day.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
        }
        let after = service.of("snapshots").await;
        let own = paths(&snapshot.id);
        let is_there =
            |path: &String| after.iter().any(|one| path.ends_with(&one["id"].to_string()));
        assert!(own.iter().all(is_there), "{before:#?}{after:#?}");
        assert!(service.images().await.iter().any(|one| one["id"] == image["id"]));
    }
}

#[tokio::test]
async fn a_snapshot_that_somebody_deletes_makes_its_set_a_part_of_one() {
    let service = Arc::new(Served::twcc());
    let case = case(&service, "");
    let image = made(&service, &case).await;
    let [first, second] = &paths(&image.id)[..] else { panic!("{}", image.id) };
    service.ask("DELETE", second, None).await;
    while service.ask("GET", "snapshots", None).await != json!([]) {
        tokio::task::yield_now().await;
    }
    let seen = case.observe(1).await.images;
    let [half] = &seen[..] else { panic!("{seen:#?}") };
    assert_eq!(path(&half.id), *first);
    assert_ne!(half.state, ImageState::Ready);
    assert!(half.message.as_ref().unwrap().contains("1 of 2 disks missing"), "{half:#?}");
    let engine = service.open(clock(1));
    let again = engine.create(case.request(0), Arc::new(Unwatched)).await;
    let Err(EngineError::Failed(message)) = again else { panic!("{again:?}") };
    assert!(message.contains("a run before has begun it"), "{message}");
    assert_eq!(service.of("snapshots").await, [json!(null); 0]);
}

#[tokio::test]
async fn a_hold_in_the_image_holds_its_set() {
    let service = Arc::new(Served::twcc());
    let case = case(&service, "  retention: {last: 1}\n  lifecycle: {grace: 0}\n");
    case.round(0).await;
    let seen = case.observe(0).await.images;
    let held = seen.iter().find(|one| one.members() == 2).unwrap();
    let image = &paths(&held.id)[0];
    service.describe(image, &format!("{} （{LABEL_HOLD}）", service.desc(image).await)).await;
    for day in [1, 1, 2, 2] {
        case.round(day).await;
    }
    let after = case.observe(2).await.images;
    let kept = after.iter().find(|one| one.id == held.id).unwrap();
    assert_eq!((kept.state, kept.let_go_at()), (ImageState::Ready, None));
    assert_eq!(after.len(), seen.len() + 1, "all others have gone: {after:#?}");
}
