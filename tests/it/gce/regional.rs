//! Disks of a region, which lie in two of its zones, and snapshots that stay in one.

use stillframe::inventory::Image;

use super::*;

const INSTANCE: &str = "projects/p/zones/us-a/instances/web-1";
const DISK: &str = "projects/p/regions/us/disks/web-1-data";

impl Case {
    /// Makes a snapshot one of a region, in the service and in what was seen of it.
    pub fn regional_snapshot(&self, image: &mut Image, region: &str) {
        let mut state = self.fake.state();
        let number: u64 = image.id.rsplit('/').next().unwrap().parse().unwrap();
        let snapshot = state.images.get_mut("snapshots").unwrap().get_mut(&number).unwrap();
        let url = format!("https://www.googleapis.com/compute/v1/projects/p/regions/{region}");
        snapshot["region"] = json!(url);
        state.regions = vec![region.to_owned()];
        image.id = format!("p/regions/{region}/snapshots/{number}");
    }
}

/// A case in which the disk `data` of the instance is one of a region.
fn case() -> Case {
    let case = Case::new();
    assert_eq!(case.fake.state().make_regional(INSTANCE, "us", "data"), DISK);
    case
}

#[tokio::test]
async fn a_disk_of_a_region_is_seen_with_its_size() {
    let case = case();
    let inventory = case.engine().observe().await;
    assert!(inventory.is_complete(), "{:?}", inventory.gaps);
    let disks = inventory.instances[0].disks.iter();
    let disks: Vec<_> = disks.map(|disk| (&*disk.name, disk.size_bytes)).collect();
    assert_eq!(disks, [("boot", Some(10 << 30)), ("data", Some(20 << 30))]);
}

#[tokio::test]
async fn a_disk_of_a_region_is_captured_by_an_operation_of_the_region() {
    let case = case();
    let made = case.create(request(ImageKind::Snapshot, 2)).await.unwrap();
    assert!(matches!(&made, Created::Made(image) if image.state == ImageState::Ready), "{made:?}");
    {
        let state = case.fake.state();
        assert_eq!(state.asked(&format!("POST {DISK}/createSnapshot")), 1);
        assert_eq!(state.asked("GET projects/p/regions/us/operations/"), 2, "{:?}", state.log);
        assert_eq!(state.asked("GET projects/p/zones/us-a/operations/"), 0);
    }
    // Whoever looks again knows what it is of, and asks for nothing more.
    let mut seen = case.engine().observe().await.images;
    let image = seen.pop().unwrap();
    assert_eq!(image.source.as_ref().unwrap().name, "web-1");
    assert_eq!(image.disks.as_deref(), Some(&["data".to_owned()][..]));
    let again = case.create(request(ImageKind::Snapshot, 2)).await.unwrap();
    assert!(matches!(again, Created::Found { .. }), "{again:?}");
    // The disk of another instance under the same name, in a zone, is another one.
    let before = std::mem::take(&mut case.fake.state().instances);
    case.fake.state().add_instance("p", "us-a", "web-1", "4201");
    let other = case.create(request(ImageKind::Snapshot, 2)).await;
    assert!(matches!(other, Err(EngineError::NameTaken(_))), "{other:?}");
    case.fake.state().instances = before;
    assert_eq!(case.engine().delete(&ImageRef::of(&image)).await, Ok(()));
    assert_eq!(case.count("snapshots"), 0);
}

#[tokio::test]
async fn a_disk_image_may_be_of_a_disk_of_a_region() {
    let case = case();
    let made = case.create(request(ImageKind::DiskImage, 2)).await.unwrap();
    assert!(matches!(made, Created::Made(_)), "{made:?}");
    let body = case.fake.state().bodies.last().unwrap().clone();
    assert_eq!(body["sourceDisk"], DISK);
    assert_eq!(case.fake.state().asked("GET projects/p/global/operations/"), 2);
    let again = case.create(request(ImageKind::DiskImage, 2)).await.unwrap();
    assert!(matches!(again, Created::Found { .. }), "{again:?}");
}

#[tokio::test]
async fn a_set_may_be_of_disks_of_a_zone_and_of_a_region() {
    let case = case();
    let mut both = request(ImageKind::Snapshot, 2);
    both.create.disks = vec!["boot".to_owned(), "data".to_owned()];
    both.create.disk_by_disk = true;
    let made = case.create(both).await.unwrap();
    let image = made.image();
    assert_eq!((image.state, image.members()), (ImageState::Ready, 2));
    let state = case.fake.state();
    assert_eq!(state.asked("GET projects/p/regions/us/operations/"), 2);
    assert_eq!(state.asked("GET projects/p/zones/us-a/operations/"), 2);
}

#[tokio::test]
async fn a_capture_of_a_region_that_fails_in_its_operation_is_a_failure() {
    let case = case();
    case.wrong(&[Wrong::QuotaFails]);
    let failed = case.create(request(ImageKind::Snapshot, 2)).await.unwrap_err();
    assert!(
        matches!(&failed, EngineError::Refused(text) if text.contains("QUOTA_EXCEEDED")),
        "{failed}"
    );
    assert_eq!(case.count("snapshots"), 0);
    // An answer that is lost makes one.
    case.wrong(&[Wrong::InsertReplyLost]);
    case.create(request(ImageKind::Snapshot, 3)).await.unwrap();
    assert_eq!(case.count("snapshots"), 1);
}

#[tokio::test]
async fn what_needs_a_snapshot_may_be_a_disk_of_a_region() {
    let case = case();
    let image = case.create(request(ImageKind::Snapshot, 2)).await.unwrap().image().clone();
    let number = image.id.rsplit('/').next().unwrap().to_owned();
    let path = "projects/p/regions/us/disks/restored".to_owned();
    let made = json!({"name": "restored", "selfLink": format!("https://x/compute/v1/{path}"), "sourceSnapshotId": number});
    case.fake.state().disks.insert(path, made);
    let seen = case.engine().observe().await.images;
    assert_eq!(seen[0].in_use_by, ["disk restored"]);
    let refused = case.engine().delete(&ImageRef::of(&image)).await;
    assert!(
        matches!(&refused, Err(EngineError::Refused(text)) if text.contains("disk restored")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_snapshot_of_a_region_is_changed_and_deleted_there() {
    let case = case();
    let mut image = case.create(request(ImageKind::Snapshot, 2)).await.unwrap().image().clone();
    case.regional_snapshot(&mut image, "us");
    let engine = case.engine();
    let seen = engine.observe().await.images.pop().unwrap();
    assert_eq!(seen.id, image.id);
    case.fake.state().log.clear();
    let changed = engine.update(&ImageRef::of(&seen), &set("team", "db")).await.unwrap();
    assert_eq!(changed.labels["team"], "db");
    assert_eq!(engine.delete(&ImageRef::of(&changed)).await, Ok(()));
    assert_eq!(case.count("snapshots"), 0);
    let state = case.fake.state();
    let number = image.id.rsplit('/').next().unwrap();
    assert_eq!(state.asked(&format!("DELETE projects/p/regions/us/snapshots/{number}")), 1);
    assert_eq!(state.asked("GET projects/p/regions/us/operations/"), 4, "{:?}", state.log);
    assert_eq!(state.asked("GET projects/p/global/operations/"), 0);
}
