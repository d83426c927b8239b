//! What a template names is in use, as the server lists it.

use std::fs;

use stillframe::engine::{CreateRequest, Unwatched};
use stillframe::inventory::ImageKind;
use stillframe::plan::ImageRef;

use super::super::clock;
use super::*;

const DIRECTORY: &str = "examples/datacenter/compute-engine";

/// A disk image of a family.
fn disk_image(case: &Case, day: i64) -> CreateRequest {
    let mut request = case.request(day);
    request.create.kind = ImageKind::DiskImage;
    request.create.disks = vec!["boot".to_owned()];
    request.create.excluded_disks = vec!["content".to_owned()];
    request.create.family = Some("golden".to_owned());
    request
}

#[tokio::test]
async fn an_image_that_a_template_names_is_not_deleted() {
    let served = Arc::new(Served::gce());
    let case = Case {
        bench: Box::new(Arc::clone(&served)),
        directory: tempfile::tempdir().unwrap(),
        spec: "",
    };
    let mut images = Vec::new();
    for day in 0..3 {
        let engine = served.open(clock(day));
        let made = engine.create(disk_image(&case, day), Arc::new(Unwatched)).await.unwrap();
        images.push(made.image().clone());
    }
    let [first, named, newest] = &images[..] else { panic!("{images:?}") };
    let directory = served.datacenter.path(DIRECTORY);
    let pinned = directory.join("pinned.yaml");
    let text = format!(
        "apiVersion: stillframe/v1\nkind: InstanceTemplate\nmetadata: {{name: pinned}}\nspec: {{properties: \
         {{disks: [{{boot: true, initializeParams: {{sourceImage: global/images/{}}}}}]}}}}\n",
        named.name
    );
    fs::write(&pinned, text).unwrap();
    // The example has a template that names the family.
    let engine = served.open(clock(3));
    let inventory = engine.observe().await;
    assert!(inventory.is_complete(), "{:?}", inventory.gaps);
    let used = |image: &Image| {
        let seen = inventory.images.iter().find(|seen| seen.id == image.id).unwrap();
        seen.in_use_by.clone()
    };
    assert_eq!(used(first), [""; 0]);
    assert_eq!(used(named), ["instance template pinned"]);
    assert_eq!(used(newest), ["instance template web"]);
    // Looked up again right before: the plan may be of before the template.
    let refused = engine.delete(&ImageRef::of(named)).await;
    assert!(
        matches!(&refused, Err(EngineError::Refused(text)) if text.contains("template pinned")),
        "{refused:?}"
    );
    assert_eq!(engine.delete(&ImageRef::of(first)).await, Ok(()));
    // Descriptions that cannot be read say nothing about what is in use.
    fs::write(&pinned, "kind: InstanceTemplate\n").unwrap();
    let unknown = engine.delete(&ImageRef::of(named)).await;
    assert!(
        matches!(&unknown, Err(EngineError::Failed(text)) if text.contains("is not known")),
        "{unknown:?}"
    );
    assert!(!engine.observe().await.is_complete());
    fs::remove_file(&pinned).unwrap();
    assert_eq!(engine.delete(&ImageRef::of(named)).await, Ok(()));
    let left = engine.observe().await.images;
    assert_eq!(left.iter().map(|image| &image.id).collect::<Vec<_>>(), [&newest.id]);
}
