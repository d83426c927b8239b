//! Restore points over several disks: one snapshot per disk, one image in the inventory.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use stillframe::engine::set::LABEL_DISK;
use stillframe::inventory::{Image, LABEL_SET};

use stillframe::apply::Stop;
use stillframe::reconcile::{Room, Round};

use super::super::engines::{Quiet, Yes, policies, room};
use super::*;

/// A snapshot of both disks.
fn both(hour: i8) -> CreateRequest {
    let mut request = request(ImageKind::Snapshot, hour);
    request.create.disks = vec!["boot".to_owned(), "data".to_owned()];
    request.create.disk_by_disk = true;
    request
}

impl Case {
    /// An engine at a time of its own; the service is at that time, too.
    fn engine_later(&self, minutes: i64) -> GceEngine {
        let later = now() + SignedDuration::from_mins(minutes);
        self.fake.state().now = later;
        let clock = Arc::new(FixedClock(later));
        open(&self.fake, "cloud", clock, self.pause.clone(), json!({"projects": ["p"]})).unwrap()
    }

    /// The only image.
    async fn seen(&self, minutes: i64) -> Image {
        let mut images = self.engine_later(minutes).observe().await.images;
        assert_eq!(images.len(), 1, "{images:?}");
        // Which disks it holds is known to whoever has looked at the machines.
        Image { disks: None, ..images.remove(0) }
    }
}

#[tokio::test]
async fn a_restore_point_over_two_disks_is_two_snapshots_and_one_image() {
    let case = Case::new();
    let made = case.create(both(2)).await.unwrap();
    let Created::Made(image) = made else { panic!("{made:?}") };
    assert_eq!((case.count("snapshots"), image.name.as_str()), (2, both(2).name.as_str()));
    assert_eq!((image.state, image.members()), (ImageState::Ready, 2));
    let seen = case.seen(0).await;
    assert_eq!(seen, image);
    assert_eq!(seen.source.unwrap().name, "web-1");
    {
        let state = case.fake.state();
        let snapshots: Vec<&Value> = state.images["snapshots"].values().collect();
        let names: BTreeSet<&str> =
            snapshots.iter().map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!(names.len(), 2);
        assert!(names.iter().all(|name| name.starts_with(&image.name) && name.len() <= 63));
        for one in &snapshots {
            assert_eq!(
                (&one["labels"][LABEL_SET], &one["labels"]["team"]),
                (&json!("2"), &json!("web"))
            );
            let disk = one["labels"][LABEL_DISK].as_str().unwrap();
            assert!(one["sourceDisk"].as_str().unwrap().ends_with(&format!("web-1-{disk}")));
        }
    }
    assert_eq!(case.create(both(2)).await, Ok(Created::Found { image, by: Author::new("here") }));
    assert_eq!(case.count("snapshots"), 2);
}

/// A disk that is attached between a plan and what is asked for.
#[tokio::test]
async fn a_disk_that_the_plan_did_not_see_is_not_left_out() {
    let case = Case::new();
    let whole = case.create(both(1)).await.unwrap();
    {
        let mut state = case.fake.state();
        let instance = state.instances.get_mut("projects/p/zones/us-a/instances/web-1").unwrap();
        let disks = instance["disks"].as_array_mut().unwrap();
        let mut more = disks[0].clone();
        more["deviceName"] = json!("more");
        disks.push(more);
    }
    let mut image = request(ImageKind::DiskImage, 2);
    let mut part = machine_image(2);
    part.create.disks.pop();
    part.create.excluded_disks = vec!["data".to_owned()];
    for request in [both(2), image.clone(), part] {
        let kind = request.create.kind;
        let ended = case.create(request).await;
        let Err(EngineError::Busy(message)) = ended else { panic!("{kind:?}: {ended:?}") };
        let said = "web-1 has a disk more that the plan did not see; the next run tries again";
        assert_eq!(message, said);
    }
    assert_eq!((case.count("snapshots"), case.count("images")), (2, 0));
    // What is there is found, what is left out is left out, and a machine image has all disks.
    let found = case.create(both(1)).await.unwrap();
    assert_eq!(found.image(), whole.image());
    image.create.excluded_disks.push("more".to_owned());
    assert!(matches!(case.create(image).await, Ok(Created::Made(_))));
    assert!(matches!(case.create(machine_image(2)).await, Ok(Created::Made(_))));
}

#[tokio::test]
async fn a_set_that_was_begun_is_completed_soon_and_cleared_away_later() {
    let case = Case::new();
    case.fake.state().changes_left = Some(1);
    let failed = case.create(both(2)).await;
    assert!(matches!(failed, Err(EngineError::Refused(_))), "{failed:?}");
    case.fake.state().changes_left = None;
    assert_eq!(case.count("snapshots"), 1);
    for (minutes, state) in [(5, ImageState::Begun), (10, ImageState::Creating)] {
        let young = case.seen(minutes).await;
        assert_eq!((young.state, young.name.as_str()), (state, both(2).name.as_str()));
    }
    let old = case.seen(90).await;
    assert_eq!(old.state, ImageState::Partial);
    assert!(old.message.as_ref().unwrap().starts_with("1 of 2 disks missing"), "{old:?}");
    // Disks of two times are no restore point.
    let late = case.engine_later(90).create(both(2), Arc::new(Unwatched)).await;
    assert!(
        matches!(&late, Err(EngineError::Failed(text)) if text.contains("has begun it")),
        "{late:?}"
    );
    // Soon after, what is missing is made: it waits for no turn of its source, which would be too late.
    let engine = case.engine_later(5);
    engine.observe().await;
    let before = case.pause.sum();
    let whole = engine.create(both(2), Arc::new(Unwatched)).await.unwrap();
    let waited = case.pause.sum().saturating_sub(before);
    assert!(waited < Duration::from_mins(1), "{waited:?}");
    assert_eq!((case.count("snapshots"), whole.image().state), (2, ImageState::Ready));
    // A plan over the part does not touch the whole.
    let engine = case.engine_later(90);
    assert_eq!(engine.delete(&ImageRef::of(&old)).await, Err(EngineError::Changed));
    assert_eq!(case.count("snapshots"), 2);
}

#[tokio::test]
async fn an_update_that_was_interrupted_is_done_by_the_next() {
    let case = Case::new();
    let image = case.create(both(2)).await.unwrap().image().clone();
    let let_go =
        Update { stage_after: Stage::Deprecated, ..set("stillframe-let-go", "20261121t120000z") };
    case.fake.state().changes_left = Some(1);
    let failed = case.engine().update(&ImageRef::of(&image), &let_go).await;
    assert!(matches!(failed, Err(EngineError::Refused(_))), "{failed:?}");
    case.fake.state().changes_left = None;
    // One of two is marked: that is nothing yet, and another image than before.
    let half = case.seen(0).await;
    assert_eq!((half.stage, half.let_go_at()), (Stage::Active, None));
    assert_ne!(half.fingerprint, image.fingerprint);
    assert_eq!(
        case.engine().update(&ImageRef::of(&image), &let_go).await,
        Err(EngineError::Changed)
    );
    let after = case.engine().update(&ImageRef::of(&half), &let_go).await.unwrap();
    assert_eq!(
        (after.stage, after.let_go_at()),
        (Stage::Deprecated, Some(now() - SignedDuration::from_secs(20)))
    );
    assert_eq!(case.seen(0).await, after);
    // Taken back in half, it is taken back; the next change clears away what was left.
    let back = Update { remove_labels: vec!["stillframe-let-go".to_owned()], ..Update::default() };
    case.fake.state().changes_left = Some(1);
    case.engine().update(&ImageRef::of(&after), &back).await.unwrap_err();
    case.fake.state().changes_left = None;
    let half = case.seen(0).await;
    assert_eq!((half.stage, half.let_go_at()), (Stage::Active, None));
    let touched = case.engine().update(&ImageRef::of(&half), &set("a", "b")).await.unwrap();
    let state = case.fake.state();
    let marks = ["stillframe-let-go", "stillframe-stage"];
    let is_left = |one: &Value| marks.iter().any(|mark| one["labels"].get(mark).is_some());
    assert!(!state.images["snapshots"].values().any(is_left), "{touched:?}");
}

#[tokio::test]
async fn a_delete_that_was_interrupted_leaves_a_part() {
    let case = Case::new();
    let image = case.create(both(2)).await.unwrap().image().clone();
    case.fake.state().changes_left = Some(1);
    let engine = case.engine_later(120);
    let failed = engine.delete(&ImageRef::of(&image)).await;
    assert!(matches!(failed, Err(EngineError::Refused(_))), "{failed:?}");
    case.fake.state().changes_left = None;
    let half = case.seen(120).await;
    assert_eq!(half.state, ImageState::Partial);
    assert_eq!(engine.delete(&ImageRef::of(&image)).await, Err(EngineError::Changed));
    assert_eq!(engine.delete(&ImageRef::of(&half)).await, Ok(()));
    assert_eq!(engine.delete(&ImageRef::of(&half)).await, Err(EngineError::NotFound));
    assert_eq!(case.count("snapshots"), 0);
}

#[tokio::test]
async fn a_member_that_a_listing_left_out_costs_nothing() {
    let case = Case::new();
    let image = case.create(both(2)).await.unwrap().image().clone();
    // What a listing that left one out would have planned over.
    let hidden = {
        let mut state = case.fake.state();
        let snapshots = state.images.get_mut("snapshots").unwrap();
        let last = *snapshots.keys().last().unwrap();
        (last, snapshots.remove(&last).unwrap())
    };
    let part = case.seen(120).await;
    assert_eq!(part.state, ImageState::Partial);
    case.fake.state().images.get_mut("snapshots").unwrap().insert(hidden.0, hidden.1);
    let refused = case.engine_later(120).delete(&ImageRef::of(&part)).await;
    assert_eq!(refused, Err(EngineError::Changed));
    assert_eq!(case.seen(120).await, image);
}

#[tokio::test]
async fn a_set_is_not_that_of_another_restore_point() {
    let case = Case::new();
    case.create(both(2)).await.unwrap();
    let mut other = both(3);
    other.name = both(2).name;
    let taken = Err(EngineError::NameTaken(other.name.clone()));
    assert_eq!(case.create(other).await, taken);
    // With a third disk meanwhile, what is there is of another number of disks.
    case.fake.state().changes_left = Some(0);
    let mut more = both(2);
    more.create.disks.push("boot-2".to_owned());
    assert!(case.create(more).await.is_err());
    assert_eq!(case.count("snapshots"), 2);
}

#[tokio::test]
async fn members_are_counted_for_the_region() {
    let case = Case::new();
    let clock = Arc::new(FixedClock(now()));
    let settings = json!({"projects": ["p"], "captures": 1});
    let engine = open(&case.fake, "cloud", clock, case.pause.clone(), settings).unwrap();
    // More members than a region takes at once are asked for when it takes nothing else.
    let made = engine.create(both(2), Arc::new(Unwatched)).await.unwrap();
    assert_eq!(made.image().members(), 2);
}

#[tokio::test]
async fn a_region_takes_no_more_members_at_once_than_it_takes() {
    let case = Case::new();
    let mut large = both(2);
    {
        let mut state = case.fake.state();
        for number in 0..23 {
            let path = format!("projects/p/zones/us-a/disks/more-{number}");
            let url = format!("https://www.googleapis.com/compute/v1/{path}");
            let device = format!("more-{number}");
            state.disks.insert(path, json!({"selfLink": url, "sizeGb": "1"}));
            let disk =
                json!({"deviceName": device, "boot": false, "source": url, "type": "PERSISTENT"});
            let instance =
                state.instances.get_mut("projects/p/zones/us-a/instances/web-1").unwrap();
            instance["disks"].as_array_mut().unwrap().push(disk);
            large.create.disks.push(device);
        }
    }
    let made = case.create(large).await.unwrap();
    assert_eq!(made.image().members(), 25);
    let state = case.fake.state();
    let captures: Vec<usize> =
        (0..state.log.len()).filter(|at| state.log[*at].ends_with("/createSnapshot")).collect();
    assert_eq!(captures.len(), 25);
    // An operation that was looked at twice has ended.
    for (begun, at) in captures.iter().enumerate() {
        let looks: Vec<&String> =
            state.log[..*at].iter().filter(|line| line.contains("/operations/")).collect();
        let distinct: BTreeSet<&&String> = looks.iter().collect();
        let ended = looks.len() - distinct.len();
        assert!(begun < 20 + ended, "{begun} were begun and {ended} had ended: {looks:?}");
    }
}

/// What is said of the engine is for all regions together, what is not said is for each.
#[tokio::test]
async fn captures_bound_the_engine_and_not_each_region() {
    let case = Case::new();
    case.fake.state().add_instance("p", "eu-a", "web-2", "4202");
    let most = async |settings: Value| {
        let clock = Arc::new(FixedClock(now()));
        let engine = open(&case.fake, "cloud", clock, case.pause.clone(), settings).unwrap();
        engine.observe().await.capabilities.captures_max
    };
    assert_eq!(most(json!({"projects": ["p"]})).await, 40);
    assert_eq!(most(json!({"projects": ["p"], "captures": 3})).await, 3);
}

/// Rounds over a service that takes so many changes and is then gone for this run.
struct Rounds {
    case: Case,
    directory: tempfile::TempDir,
}

impl Rounds {
    fn room(&self, minutes: i64) -> Room {
        let later = now() + SignedDuration::from_mins(minutes);
        self.case.fake.state().now = later;
        let clock: Arc<dyn Clock> = Arc::new(FixedClock(later));
        let settings = json!({"projects": ["p"]});
        let pause = self.case.pause.clone();
        let engine = open(&self.case.fake, "memory", Arc::clone(&clock), pause, settings).unwrap();
        let spec = "  capture: {kind: snapshot}\n  retention: {last: 1}\n  lifecycle: {grace: 0}\n";
        room(Arc::new(engine), clock, policies(spec), &self.directory)
    }

    /// One round, which may fail in part.
    async fn round(&self, minutes: i64, changes: Option<usize>) -> Round {
        self.case.fake.state().changes_left = changes;
        let room = self.room(minutes);
        let round = room.round(&Yes, Arc::new(Quiet), &Stop::default()).await;
        self.case.fake.state().changes_left = None;
        round
    }

    /// Plan again: nothing to do, and so many snapshots.
    async fn settles(&self, minutes: i64, snapshots: usize) {
        let room = self.room(minutes);
        let inventory = room.observe().await;
        let plan = room.plan(&inventory, now() + SignedDuration::from_mins(minutes));
        assert_eq!(plan.changes, [], "{:#?}", inventory.engines[0].images);
        assert_eq!(plan.refusals, []);
        assert_eq!(self.case.count("snapshots"), snapshots);
    }
}

#[tokio::test]
async fn rounds_that_end_between_two_members_are_made_good_by_the_next() {
    const DAY: i64 = 24 * 60;
    let rounds = Rounds { case: Case::new(), directory: tempfile::tempdir().unwrap() };
    // Killed between the members of the first: somebody may be at it, then it has failed and is replaced.
    let killed = rounds.round(0, Some(1)).await;
    assert!(!killed.outcomes[0].ending.is_done());
    rounds.settles(10, 1).await;
    let next = rounds.round(120, None).await;
    assert_eq!((next.plan.summary.create, next.outcomes.len()), (1, 1));
    assert!(next.plan.changes[0].create.as_ref().unwrap().replaces.is_some());
    assert!(next.outcomes[0].ending.is_done(), "{:?}", next.outcomes);
    rounds.settles(120, 2).await;
    // Killed between the members of a deprecation: two are made and one of the other is marked.
    let killed = rounds.round(DAY, Some(3)).await;
    assert_eq!(killed.outcomes.iter().filter(|outcome| outcome.ending.is_done()).count(), 1);
    let next = rounds.round(DAY, None).await;
    assert_eq!((next.plan.summary.create, next.plan.summary.deprecate), (0, 1));
    // Killed between the members of a delete: what is left is a failed attempt and goes as one.
    let killed = rounds.round(DAY + 1, Some(1)).await;
    assert_eq!(killed.plan.summary.delete, 1);
    assert_eq!(rounds.case.count("snapshots"), 3);
    let next = rounds.round(DAY + 2, None).await;
    assert_eq!(next.plan.summary.delete, 1);
    assert!(next.outcomes[0].ending.is_done(), "{:?}", next.outcomes);
    rounds.settles(DAY + 2, 2).await;
}
