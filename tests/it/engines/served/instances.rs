//! What an instance was made of is in use, as the server lists it.

use std::fs;

use stillframe::engine::Unwatched;
use stillframe::plan::ImageRef;

use super::super::clock;
use super::*;

#[tokio::test]
async fn a_machine_image_that_an_instance_was_made_of_is_not_deleted() {
    let served = Arc::new(Served::gce());
    let case = Case {
        bench: Box::new(Arc::clone(&served)),
        directory: tempfile::tempdir().unwrap(),
        spec: "",
    };
    let engine = served.open(clock(0));
    let made = engine.create(case.request(0), Arc::new(Unwatched)).await.unwrap();
    let image = made.image().clone();
    let source = format!("global/machineImages/{}", image.name);
    let body = json!({"name": "web-9", "sourceMachineImage": source});
    let operation = served.compute("POST", "zones/hall-b/instances", body).await;
    let used = async || {
        let inventory = engine.observe().await;
        assert!(inventory.is_complete(), "{:?}", inventory.gaps);
        inventory.images.into_iter().find(|seen| seen.id == image.id).unwrap().in_use_by
    };
    let disks = ["boot", "content"];
    let mut users = disks.map(|disk| format!("disk web-9-{disk}")).to_vec();
    users.push("instance web-9".to_owned());
    assert_eq!(used().await, users);

    // Its disks are taken from it by hand and deleted: that it was made of the image stays.
    let file = served.datacenter.path("examples/datacenter/instances/web-9.yaml");
    let id = operation["targetId"].as_str().unwrap();
    let text = format!(
        "apiVersion: stillframe/v1\nkind: Instance\nmetadata: {{name: web-9, id: \"{id}\"}}\nspec: {{zone: hall-b}}\n"
    );
    fs::write(&file, text).unwrap();
    for disk in disks {
        let path = format!("zones/hall-b/disks/web-9-{disk}");
        served.compute("DELETE", &path, Value::Null).await;
    }
    assert_eq!(used().await, ["instance web-9"]);
    // Looked up again right before: the plan may be of before the instance.
    let refused = engine.delete(&ImageRef::of(&image)).await;
    assert!(
        matches!(&refused, Err(EngineError::Refused(text)) if text.contains("instance web-9")),
        "{refused:?}"
    );
    fs::remove_file(&file).unwrap();
    assert_eq!(used().await, [""; 0]);
    assert_eq!(engine.delete(&ImageRef::of(&image)).await, Ok(()));
}
