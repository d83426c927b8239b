//! Several images of one name, which the service allows.

use crate::engines::HOST;
use stillframe::engine::Author;

use super::*;

/// A set of which every member is there twice.
async fn twice(service: &Arc<Served>, case: &Case) -> Image {
    for method in ["PUT", "POST"] {
        service.fault(json!({"fault": "duplicate", "method": method})).await;
    }
    let engine = service.open(clock(0));
    let created = engine.create(case.request(0), Arc::new(Unwatched)).await.unwrap();
    while service.images().await.iter().any(|one| one["status"] != "ACTIVE")
        || service.of("snapshots").await.iter().any(|one| one["status"] != "AVAILABLE")
    {
        tokio::task::yield_now().await;
    }
    created.image().clone()
}

#[tokio::test]
async fn a_set_whose_members_are_there_twice_is_a_restore_point() {
    let service = Arc::new(Served::twcc());
    let case = case(&service, "");
    let image = twice(&service, &case).await;
    let seen = case.observe(0).await.images;
    let (ready, rest): (Vec<_>, Vec<_>) =
        seen.iter().partition(|one| one.state == ImageState::Ready);
    assert_eq!((ready.len(), rest.len()), (1, 2), "{seen:#?}");
    assert_eq!(ready[0].id, image.id);
    assert!(rest.iter().all(|twin| twin.state == ImageState::Unknown));
    // Whoever asks again finds it.
    let engine = service.open(clock(0));
    let again = engine.create(case.request(0), Arc::new(Unwatched)).await.unwrap();
    assert_eq!(again, Created::Found { image: image.clone(), by: Author::new(HOST) });
    // It can be deleted, and nothing else goes with it: the others are a set of their own then.
    engine.delete(&ImageRef::of(&image)).await.unwrap();
    let left = case.observe(0).await.images;
    assert_eq!((left.len(), left[0].state), (1, ImageState::Ready), "{left:#?}");
    let mut twins: Vec<String> = rest.iter().flat_map(|twin| paths(&twin.id)).collect();
    twins.sort();
    assert_eq!(paths(&left[0].id), twins);
}

#[tokio::test]
async fn a_hold_in_a_second_image_holds_the_set() {
    let service = Arc::new(Served::twcc());
    let case = case(&service, "");
    let image = twice(&service, &case).await;
    let [own, _] = &paths(&image.id)[..] else { panic!("{}", image.id) };
    let mut images = service.images().await.into_iter().map(|one| format!("images/{}", one["id"]));
    let second = images.find(|path| path != own).unwrap();
    service.describe(&second, &format!("{} {LABEL_HOLD}", service.desc(&second).await)).await;
    let seen = case.observe(0).await.images;
    let set = seen.iter().find(|one| one.id == image.id).unwrap();
    assert!(set.state == ImageState::Ready && set.is_held(noon(0)), "{set:#?}");
}

/// Two runs ask at once, and the later one takes its own back; also where it cannot at first.
#[tokio::test]
async fn of_two_runs_at_once_the_later_one_steps_back() {
    for (refusals, left) in [(0, 1), (1, 1), (9, 2)] {
        let service = Arc::new(Served::twcc_with_system_disks());
        let case = case(&service, "");
        let (request, own) = (case.request(0), Arc::clone(&service));
        let (first, has_waited) = (request.clone(), Arc::new(AtomicBool::new(false)));
        let engine = service.engine(move |_, _| {
            let (service, request, has_waited) =
                (Arc::clone(&own), first.clone(), Arc::clone(&has_waited));
            async move {
                // Between the look and the order of the one, the other is there.
                if !has_waited.swap(true, Ordering::SeqCst) {
                    let other = service.open(clock(0));
                    let made = other.create(request, Arc::new(Unwatched)).await.unwrap();
                    assert!(matches!(made, Created::Made(_)));
                }
            }
        });
        service.fault(json!({"fault": "too-many-requests", "method": "PUT"})).await;
        if refusals > 0 {
            let refusal = json!({"fault": "bad-field", "method": "DELETE", "times": refusals});
            service.fault(refusal).await;
        }
        let created = engine.create(request, Arc::new(Unwatched)).await;
        let Ok(Created::Found { image, .. }) = created else { panic!("{created:?}") };
        let images = service.images().await;
        assert_eq!(images.len(), left, "{refusals}: {images:#?}");
        assert_eq!(path(&image.id), format!("images/{}", images[0]["id"]));
        assert_eq!(images[0]["status"], "ACTIVE");
    }
}
