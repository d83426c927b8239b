//! How long is waited for what, and what is given back.

use jiff::SignedDuration;
use stillframe::engine::Attention;

use super::*;

fn minutes(minutes: u64) -> Duration {
    Duration::from_mins(minutes)
}

#[tokio::test]
async fn a_change_that_does_not_end_is_given_up_after_half_an_hour_and_a_capture_after_half_a_day()
{
    let case = Case::new();
    let image = case.create(machine_image(2)).await.unwrap().image().clone();
    case.wrong(&[Wrong::NeverEnds]);
    let waited = || case.pause.sum();
    let before = waited();
    let ended = case.engine().update(&ImageRef::of(&image), &set("team", "db")).await;
    assert!(
        matches!(&ended, Err(EngineError::Failed(text)) if text.contains("does not end")),
        "{ended:?}"
    );
    let change = waited().saturating_sub(before);
    assert!((minutes(30)..minutes(31)).contains(&change), "{change:?}");
    case.wrong(&[]);
    let image = case.engine().observe().await.images.pop().unwrap();
    case.wrong(&[Wrong::NeverEnds, Wrong::DeleteIgnored]);
    let before = waited();
    let ended = case.engine().delete(&ImageRef::of(&image)).await;
    assert!(matches!(&ended, Err(EngineError::Failed(_))), "{ended:?}");
    let delete = waited().saturating_sub(before);
    assert!((minutes(30)..minutes(31)).contains(&delete), "{delete:?}");
    // An image of a large machine takes hours.
    case.wrong(&[Wrong::NeverEnds]);
    let before = waited();
    let made = case.create(machine_image(3)).await;
    assert!(matches!(&made, Ok(Created::Found { .. })), "it is there all the same: {made:?}");
    let capture = waited().saturating_sub(before);
    assert!((minutes(12 * 60)..minutes(12 * 60 + 1)).contains(&capture), "{capture:?}");
}

#[tokio::test]
async fn who_looks_at_an_operation_waits_out_the_minute_and_makes_one_image() {
    let case = Case::new();
    case.wrong(&[Wrong::RateAtOperation]);
    case.create(machine_image(2)).await.unwrap();
    // Forty seconds are left of the minute, waited for in steps: somebody may ask to stop.
    let (longest, sum) = (case.pause.longest(), case.pause.sum());
    assert!((Duration::from_secs(40)..minutes(1)).contains(&sum), "and no more: {sum:?}");
    assert!(longest <= Duration::from_secs(5), "{longest:?}");
    assert_eq!(case.fake.state().asked("POST"), 1);
    assert_eq!(case.count("machineImages"), 1);
}

#[tokio::test]
async fn a_rate_that_fails_an_operation_is_waited_out_once_and_not_past_the_deadline() {
    let case = Case::new();
    case.wrong(&[Wrong::InsertFails]);
    case.create(machine_image(2)).await.unwrap();
    let waited = case.pause.sum();
    assert!((minutes(10)..minutes(11)).contains(&waited), "ten minutes, and no hour: {waited:?}");
    let ids = case.fake.state().ids.clone();
    assert!(ids.len() == 2 && ids[0] != ids[1], "the failed operation is not asked again: {ids:?}");
    // Where the deadline is sooner, the next run makes it, and nobody waits.
    let case = Case::new();
    case.wrong(&[Wrong::InsertFails]);
    let mut late = machine_image(2);
    late.create.deadline = now() + SignedDuration::from_mins(9);
    let put_off = case.create(late).await;
    assert!(matches!(&put_off, Err(EngineError::Busy(_))), "{put_off:?}");
    assert!(case.pause.sum() < minutes(1), "{:?}", case.pause.sum());
    assert_eq!(case.count("machineImages"), 0);
}

/// Each look at who may use an image takes twenty seconds.
struct Slow(Arc<Mutex<fake::State>>);

impl Clock for Slow {
    fn now(&self) -> Timestamp {
        let state = self.0.lock().unwrap();
        let looks = state.log.iter().filter(|line| line.ends_with("getIamPolicy")).count();
        now() + SignedDuration::from_secs(20 * i64::try_from(looks).unwrap())
    }
}

/// Copies of an image as whoever looks sees them, each a minute older than the one before.
fn many(case: &Case, count: u64) {
    let mut state = case.fake.state();
    let images = state.images.get_mut("machineImages").unwrap();
    let first = images.values().next().unwrap().clone();
    images.clear();
    for number in 0..count {
        let mut image = first.clone();
        let made = now() - SignedDuration::from_mins(i64::try_from(number).unwrap());
        image["id"] = json!((10_000 + number).to_string());
        image["name"] = json!(format!("image-{number:04}"));
        image["creationTimestamp"] = json!(made.to_string());
        images.insert(10_000 + number, image);
    }
}

#[tokio::test]
async fn looks_at_sharing_are_of_the_newest_images_and_have_a_budget() {
    let case = Case::new();
    case.create(machine_image(2)).await.unwrap();
    let policy = PolicyName::parse("nightly").unwrap();
    let attention =
        Attention { sharing: [(policy, ["roles/compute.imageUser".to_owned()].into())].into() };
    let known = |inventory: stillframe::inventory::EngineInventory| {
        assert!(inventory.is_complete(), "{:?}", inventory.gaps);
        let images = inventory.images.iter().filter(|image| image.sharing.is_some());
        images.map(|image| image.name.clone()).collect::<Vec<_>>()
    };
    let asked = || {
        let state = case.fake.state();
        state.log.iter().filter(|line| line.ends_with("getIamPolicy")).count()
    };
    // Ten side by side take more than three minutes here: no more looks are begun.
    many(&case, 30);
    let clock = Arc::new(Slow(case.fake.shared()));
    let settings = json!({"projects": ["p"]});
    let slow = open(&case.fake, "cloud", clock, case.pause.clone(), settings).unwrap();
    slow.attend(&attention);
    let newest: Vec<String> = (0..10).map(|number| format!("image-{number:04}")).collect();
    assert_eq!(known(slow.observe().await), newest);
    assert_eq!(asked(), 10);
    // With time, the newest five hundred.
    case.fake.state().log.clear();
    many(&case, 505);
    let engine = case.engine();
    engine.attend(&attention);
    let seen = known(engine.observe().await);
    assert_eq!((seen.len(), asked()), (500, 500));
    assert!(!seen.contains(&"image-0500".to_owned()) && seen.contains(&"image-0499".to_owned()));
}

#[tokio::test]
async fn what_needs_an_image_may_name_its_project_by_number() {
    let case = Case::new();
    let machine = case.create(machine_image(2)).await.unwrap().image().clone();
    let disk = case.create(request(ImageKind::DiskImage, 3)).await.unwrap().image().clone();
    let by_number = |project: &str, what: &str, name: &str| {
        let number = fake::number_of(project);
        format!("https://www.googleapis.com/compute/v1/projects/{number}/global/{what}/{name}")
    };
    let uses = |project: &str| {
        let mut state = case.fake.state();
        state.add_instance("p", "us-b", "made", "77");
        let instance = state.instances.get_mut("projects/p/zones/us-b/instances/made").unwrap();
        instance["sourceMachineImage"] = json!(by_number(project, "machineImages", &machine.name));
        let source = json!({"sourceImage": by_number(project, "images", &disk.name)});
        let disks = json!([{"initializeParams": source}]);
        state.templates = vec![json!({"name": "web", "properties": {"disks": disks}})];
    };
    uses("p");
    let engine = case.engine();
    let inventory = engine.observe().await;
    let needed_by = |id: &str| {
        let image = inventory.images.iter().find(|image| image.id == id).unwrap();
        image.in_use_by.clone()
    };
    assert_eq!(needed_by(&machine.id), ["instance made"]);
    assert_eq!(needed_by(&disk.id), ["instance template web"]);
    for (image, user) in [(&machine, "instance made"), (&disk, "instance template web")] {
        // By an engine that has looked at nothing before.
        let refused = case.engine().delete(&ImageRef::of(image)).await;
        assert!(
            matches!(&refused, Err(EngineError::Refused(text)) if text.ends_with(user)),
            "{refused:?}"
        );
    }
    // Of the same name in another project: that is another image.
    uses("q");
    for image in [&machine, &disk] {
        assert_eq!(case.engine().delete(&ImageRef::of(image)).await, Ok(()), "{}", image.name);
    }
}

#[tokio::test]
async fn what_was_refused_at_once_leaves_its_source_free() {
    let case = Case::new();
    let engine = case.engine();
    let create = async |hour| engine.create(machine_image(hour), Arc::new(Unwatched)).await;
    case.fake.state().changes_left = Some(0);
    for _ in 0..8 {
        let refused = create(2).await;
        assert!(matches!(refused, Err(EngineError::Refused(_))), "{refused:?}");
    }
    case.fake.state().changes_left = None;
    assert!(matches!(create(3).await, Ok(Created::Made(_))));
    assert!(case.pause.sum() < minutes(1), "nobody waited: {:?}", case.pause.sum());
    // What was made takes its ten minutes.
    create(4).await.unwrap();
    assert!(case.pause.sum() > minutes(10), "{:?}", case.pause.sum());
}

#[tokio::test]
async fn what_may_have_been_begun_keeps_its_time() {
    // No answer is a refusal; an operation that has failed was begun.
    for wrong in [&[Wrong::InsertUnavailable; 6][..], &[Wrong::QuotaFails]] {
        let case = Case::new();
        let engine = case.engine();
        case.wrong(wrong);
        engine.create(machine_image(2), Arc::new(Unwatched)).await.unwrap_err();
        assert_eq!(case.fake.state().wrong, []);
        let before = case.pause.sum();
        engine.create(machine_image(3), Arc::new(Unwatched)).await.unwrap();
        assert!(case.pause.sum() >= before + minutes(10), "{wrong:?}");
    }
    // Of a set one member was begun.
    let case = Case::new();
    let engine = case.engine();
    let mut both = request(ImageKind::Snapshot, 2);
    both.create.disks = vec!["boot".to_owned(), "data".to_owned()];
    both.create.disk_by_disk = true;
    case.fake.state().changes_left = Some(1);
    engine.create(both, Arc::new(Unwatched)).await.unwrap_err();
    case.fake.state().changes_left = None;
    let before = case.pause.sum();
    engine.create(machine_image(3), Arc::new(Unwatched)).await.unwrap();
    assert!(case.pause.sum() >= before + minutes(10));
}

/// Two hosts ask under request ids of their own: what the service knows of the other one is the image.
#[tokio::test]
async fn a_host_that_was_faster_is_found_whatever_the_service_says() {
    let mut both = request(ImageKind::Snapshot, 2);
    both.create.disks = vec!["boot".to_owned(), "data".to_owned()];
    both.create.disk_by_disk = true;
    let by = Author::new("ci-7");
    for wrong in [
        // The name is taken; by what is not shown yet.
        &[Wrong::Overtaken; 2][..],
        &[Wrong::OvertakenUnseen; 2],
        // The rate of the source, or the quota, is used up by the other one.
        &[Wrong::Overtaken, Wrong::Overtaken, Wrong::InsertFails, Wrong::InsertFails],
        &[Wrong::Overtaken, Wrong::Overtaken, Wrong::QuotaFails, Wrong::QuotaFails],
    ] {
        for request in [both.clone(), machine_image(2), request(ImageKind::DiskImage, 2)] {
            let case = Case::new();
            let count = if request.create.kind == ImageKind::Snapshot { 2 } else { 1 };
            // One for each image that is asked for.
            let wrong: Vec<Wrong> =
                wrong.chunks(2).flat_map(|one| &one[..count]).copied().collect();
            case.wrong(&wrong);
            let created = case.create(request.clone()).await;
            assert!(
                matches!(&created, Ok(Created::Found { by: found, .. }) if *found == by),
                "{wrong:?}: {created:?}"
            );
            let kind = created.unwrap().image().kind;
            assert_eq!(kind, request.create.kind);
            let collections = ["machineImages", "images", "snapshots"];
            let images: usize = collections.iter().map(|all| case.count(all)).sum();
            assert_eq!(images, count, "{wrong:?}");
            assert!(case.pause.sum() < minutes(10), "{wrong:?}: {:?}", case.pause.sum());
            // What it asked for says who asks.
            let state = case.fake.state();
            let asked = state.bodies.iter().filter_map(|body| body["description"].as_str());
            assert!(asked.into_iter().all(|text| text == "a description (by here)"));
        }
    }
}
