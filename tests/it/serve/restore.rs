//! Instances and disks that are made of images, images that are made of images, and their ends.

use std::fs;

use serde_json::{Value, json};

use super::super::support::Datacenter;
use super::Server;

const WEB: &str = "zones/hall-a/instances/web-1";

fn failed(ended: &Value) -> &str {
    ended["error"]["errors"][0]["code"].as_str().unwrap_or_default()
}

fn well(ended: &Value) {
    assert_eq!(ended["error"], Value::Null, "{ended}");
}

/// How much of a quota is taken.
fn usage(of: &Value, metric: &str) -> Value {
    let quotas = of["quotas"].as_array().unwrap();
    quotas.iter().find(|quota| quota["metric"] == metric).unwrap()["usage"].clone()
}

#[test]
fn an_instance_is_made_of_a_machine_image_with_what_is_asked_for_otherwise() {
    let datacenter = Datacenter::new();
    let server = Server::start(&datacenter, &[]);
    server.insert("golden");
    let source = server.get("/zones/hall-a/instances/web-1");
    let body = json!({
        "name": "web-9",
        "machineType": "zones/hall-b/machineTypes/large-4",
        "labels": {"env": "test"},
        "metadata": {"items": [{"key": "startup", "value": "#!/bin/sh"}]},
        "tags": {"items": ["http"]},
        "networkInterfaces": [{
            "network": "https://www.googleapis.com/compute/v1/projects/p1/global/networks/other",
            "accessConfigs": [{"type": "ONE_TO_ONE_NAT", "name": "external-nat"}],
        }],
        "shieldedInstanceConfig": {"enableSecureBoot": true},
        "unknown": "is ignored",
    });
    let insert = "/zones/hall-b/instances?sourceMachineImage=projects/p1/global/machineImages/golden&requestId=3f7f2c4c-7f9b-4f6e-9c53-0c1c5f0d9b7a";
    let ended = server.change("POST", insert, &body);
    well(&ended);
    assert!(ended["zone"].as_str().unwrap().ends_with("/zones/hall-b"), "{ended}");
    assert_eq!(server.ask("POST", insert, &body).1["name"], ended["name"]);

    let made = server.get("/zones/hall-b/instances/web-9");
    assert_eq!(made["id"], ended["targetId"]);
    assert_eq!(made["labels"], json!({"env": "test"}));
    assert!(made["machineType"].as_str().unwrap().ends_with("/zones/hall-b/machineTypes/large-4"));
    assert_eq!(made["metadata"]["items"], body["metadata"]["items"]);
    assert_eq!(made["tags"]["items"], json!(["http"]));
    assert_eq!(made["shieldedInstanceConfig"]["enableSecureBoot"], true);
    let interface = &made["networkInterfaces"][0];
    assert!(interface["network"].as_str().unwrap().ends_with("/global/networks/other"));
    assert_eq!(interface["accessConfigs"][0]["kind"], "compute#accessConfig");
    assert_eq!(made["description"], source["description"]);
    // Nothing has started it.
    assert_eq!(made["status"], "TERMINATED");
    assert_eq!(made["disks"].as_array().unwrap().len(), source["disks"].as_array().unwrap().len());
    let disk = server.get("/zones/hall-b/disks/web-9-content");
    assert_eq!(disk["users"], json!([made["selfLink"]]));
    assert!(disk["sourceMachineImage"].as_str().unwrap().ends_with("/machineImages/golden"));
    assert_eq!(made["sourceMachineImage"], disk["sourceMachineImage"]);
    assert_eq!(source["sourceMachineImage"], Value::Null);

    // It is an instance like any other: in the inventory, and to be captured, byte for byte.
    let inventory = datacenter.run_to(0, &["inventory", "--json"]);
    let inventory: Value = serde_json::from_str(&inventory.out).unwrap();
    let instances = inventory["engines"][0]["instances"].as_array().unwrap();
    let seen = instances.iter().find(|one| one["name"] == "web-9").unwrap();
    assert_eq!((&seen["zone"], &seen["status"]), (&json!("hall-b"), &json!("TERMINATED")));
    let again = json!({"name": "again", "sourceInstance": "zones/hall-b/instances/web-9"});
    well(&server.change("POST", "/global/machineImages", &again));
    datacenter.run_to(0, &["restore", "again", "--to", "back"]);
    let content = fs::read(datacenter.path("back/content.raw")).unwrap();
    let original =
        fs::read(datacenter.path("examples/datacenter/disks/web-1-content.raw")).unwrap();
    assert!(content == original, "the disk has come back otherwise");
    server.stop();
}

#[test]
fn an_address_that_is_taken_is_not_taken_twice() {
    let datacenter = Datacenter::new();
    let server = Server::start(&datacenter, &[]);
    let body = json!({"name": "golden", "sourceInstance": "zones/hall-a/instances/db-1"});
    well(&server.change("POST", "/global/machineImages", &body));
    let source = json!({"name": "db-9", "sourceMachineImage": "global/machineImages/golden"});
    let ended = server.change("POST", "/zones/hall-a/instances", &source);
    well(&ended);
    assert_eq!(ended["warnings"][0]["code"], "FIELD_VALUE_OVERRIDEN");
    assert!(ended["warnings"][0]["message"].as_str().unwrap().contains("10.0.2.11"), "{ended}");
    let made = server.get("/zones/hall-a/instances/db-9");
    assert_eq!(made["networkInterfaces"][0]["networkIP"], Value::Null);
    server.stop();
}

#[test]
fn an_instance_that_was_made_here_is_started_and_stopped_in_its_file() {
    let datacenter = Datacenter::new();
    let server = Server::start(&datacenter, &[]);
    server.insert("golden");
    let source = json!({"name": "web-9", "sourceMachineImage": "global/machineImages/golden"});
    well(&server.change("POST", "/zones/hall-b/instances", &source));
    let turn = |verb: &str| {
        let path = format!("/zones/hall-b/instances/web-9/{verb}");
        let ended = server.change("POST", &path, &Value::Null);
        well(&ended);
        assert_eq!(ended["operationType"], verb.split('?').next().unwrap());
        let inventory = datacenter.json(0, &["inventory"]);
        let instances = inventory["engines"][0]["instances"].as_array().unwrap();
        let seen = instances.iter().find(|one| one["name"] == "web-9").unwrap()["status"].clone();
        assert_eq!(server.get("/zones/hall-b/instances/web-9")["status"], seen);
        seen
    };
    let image = json!({"name": "base", "sourceDisk": "zones/hall-b/disks/web-9-boot"});
    for _ in 0..2 {
        assert_eq!(turn("start"), "RUNNING");
    }
    assert_eq!(server.ask("POST", "/global/images", &image).0, 400);
    for _ in 0..2 {
        assert_eq!(turn("stop?discardLocalSsd=true").as_str(), Some("TERMINATED"));
    }
    well(&server.change("POST", "/global/images", &image));

    // A request that is sent again does nothing anew.
    let id = "requestId=3f7f2c4c-7f9b-4f6e-9c53-0c1c5f0d9c01";
    let start = format!("/zones/hall-b/instances/web-9/start?{id}");
    well(&server.change("POST", &start, &Value::Null));
    turn("stop");
    assert_eq!(server.ask("POST", &start, &Value::Null).0, 200);
    assert_eq!(server.get("/zones/hall-b/instances/web-9")["status"], "TERMINATED");
    assert_eq!(server.ask("POST", "/zones/hall-b/instances/gone/stop", &Value::Null).0, 404);

    // What a person has described is not changed; where nothing is to be, that is no refusal.
    let file = datacenter.path("examples/datacenter/instances/web-1.yaml");
    let before = fs::read(&file).unwrap();
    let of = |verb: &str| format!("/zones/hall-a/instances/web-1/{verb}");
    assert_eq!(server.ask("POST", &of("stop"), &Value::Null).0, 403);
    well(&server.change("POST", &of("start"), &Value::Null));
    assert_eq!(fs::read(&file).unwrap(), before);
    server.stop();
}

#[test]
fn an_instance_that_was_made_here_goes_and_one_of_a_person_stays() {
    let datacenter = Datacenter::new();
    let server = Server::start(&datacenter, &[]);
    server.insert("golden");
    let source = json!({"name": "web-9", "sourceMachineImage": "global/machineImages/golden"});
    well(&server.change("POST", "/zones/hall-b/instances", &source));
    let file = datacenter.path("examples/datacenter/instances/web-9.yaml");
    assert!(file.exists());
    let made = server.get("/zones/hall-b/instances/web-9");

    // Its labels are written into its file.
    let labels = json!({"labels": {"a": "b"}, "labelFingerprint": made["labelFingerprint"]});
    server.change("POST", "/zones/hall-b/instances/web-9/setLabels", &labels);
    assert_eq!(server.ask("POST", "/zones/hall-b/instances/web-9/setLabels", &labels).0, 412);
    assert_eq!(server.get("/zones/hall-b/instances/web-9")["labels"], labels["labels"]);
    assert!(fs::read_to_string(&file).unwrap().contains("a: b"));

    // What a person wrote is that person's.
    let person = "/zones/hall-a/instances/web-1";
    let (status, refused) = server.ask("DELETE", person, &Value::Null);
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(status == 403 && message.contains("web-1.yaml"), "{refused}");
    let labels =
        json!({"labels": {"a": "b"}, "labelFingerprint": server.get(person)["labelFingerprint"]});
    assert_eq!(server.ask("POST", &format!("{person}/setLabels"), &labels).0, 403);
    let before = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{before}# mine\n")).unwrap();
    let (status, refused) = server.ask("DELETE", "/zones/hall-b/instances/web-9", &Value::Null);
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(status == 403 && message.contains("edited"), "{refused}");
    fs::write(&file, before).unwrap();

    // Disks that are not deleted with it stay, attached to nothing.
    let keep =
        "/zones/hall-b/instances/web-9/setDiskAutoDelete?deviceName=content&autoDelete=False";
    server.change("POST", keep, &Value::Null);
    let boot = "/zones/hall-b/instances/web-9/setDiskAutoDelete?deviceName=boot&autoDelete=true";
    server.change("POST", boot, &Value::Null);
    assert_eq!(server.ask("DELETE", "/zones/hall-b/disks/web-9-content", &Value::Null).0, 400);
    well(&server.change("DELETE", "/zones/hall-b/instances/web-9", &Value::Null));
    assert!(!file.exists());
    assert_eq!(server.ask("GET", "/zones/hall-b/instances/web-9", &Value::Null).0, 404);
    assert_eq!(server.ask("GET", "/zones/hall-b/disks/web-9-boot", &Value::Null).0, 404);
    let left = server.get("/zones/hall-b/disks/web-9-content");
    assert_eq!(left["users"], Value::Null);
    // The name of the disk is taken until it is gone.
    assert_eq!(server.ask("POST", "/zones/hall-b/instances", &source).0, 409);
    well(&server.change("DELETE", "/zones/hall-b/disks/web-9-content", &Value::Null));
    well(&server.change("POST", "/zones/hall-b/instances", &source));
    server.stop();
}

#[test]
fn what_no_instance_can_be_made_of_is_refused() {
    let datacenter = Datacenter::new();
    let server = Server::start(&datacenter, &[]);
    server.insert("golden");
    let of = |more: Value| {
        let mut body = json!({"name": "new", "sourceMachineImage": "global/machineImages/golden"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    for (zone, body, status) in [
        ("hall-a", of(json!({"name": "Bad"})), 400),
        ("hall-a", of(json!({"name": "web-2"})), 409),
        ("hall-a", of(json!({"name": "web-1"})), 409),
        ("nowhere", of(json!({})), 404),
        ("hall-a", of(json!({"sourceMachineImage": "global/machineImages/gone"})), 404),
        ("hall-a", of(json!({"labels": {"A": "b"}})), 400),
        ("hall-a", of(json!({"scheduling": {"preemptible": "perhaps"}})), 400),
        ("hall-a", of(json!({"disks": [{"boot": true}]})), 501),
        ("hall-a", of(json!({"metadata": {"items": [{"key": "a"}, {"key": "a"}]}})), 400),
    ] {
        let path = format!("/zones/{zone}/instances");
        assert_eq!(server.ask("POST", &path, &body).0, status, "{body}");
    }
    // A file that is in its way is nobody else's.
    let file = datacenter.path("examples/datacenter/instances/new.yaml");
    let other = datacenter.path("examples/datacenter/instances/web-2.yaml");
    fs::rename(&other, &file).unwrap();
    let before = fs::read(&file).unwrap();
    let ended = server.change("POST", "/zones/hall-a/instances", &of(json!({})));
    assert_eq!(failed(&ended), "RESOURCE_ALREADY_EXISTS", "{ended}");
    assert_eq!(fs::read(&file).unwrap(), before);
    assert_eq!(server.ask("GET", "/zones/hall-a/disks/new-boot", &Value::Null).0, 404);
    let disks = datacenter.path(".stillframe/store/disks");
    assert_eq!(fs::read_dir(disks).unwrap().count(), 0);
    server.stop();
}

#[test]
fn disks_are_made_of_all_kinds_of_images_and_of_nothing() {
    let datacenter = Datacenter::new();
    let server = Server::start(&datacenter, &[]);
    server.insert("golden");
    let zone = "/zones/hall-a/disks";
    let snapshot = json!({"name": "snap"});
    well(&server.change("POST", &format!("{zone}/web-1-content/createSnapshot"), &snapshot));
    let image =
        json!({"name": "base-1", "family": "base", "sourceSnapshot": "global/snapshots/snap"});
    well(&server.change("POST", "/global/images", &image));
    let golden = "global/machineImages/golden";
    for (body, field) in [
        (json!({"name": "d-1", "sourceSnapshot": "global/snapshots/snap"}), "sourceSnapshot"),
        (
            json!({"name": "d-2", "sourceImage": "projects/p1/global/images/family/base", "sizeGb": "2"}),
            "sourceImage",
        ),
        (
            json!({"name": "d-3", "sourceMachineImage": golden, "sourceMachineImageDiskDeviceName": "content"}),
            "sourceMachineImage",
        ),
        (
            json!({"name": "d-4", "sizeGb": 1, "labels": {"a": "b"}, "type": "zones/hall-a/diskTypes/pd-ssd"}),
            "labels",
        ),
    ] {
        let ended = server.change("POST", zone, &body);
        well(&ended);
        let disk = server.get(&format!("{zone}/{}", body["name"].as_str().unwrap()));
        assert!(!disk[field].is_null() && disk["users"].is_null(), "{disk}");
        assert_eq!(disk["id"], ended["targetId"]);
    }
    assert_eq!(server.get(&format!("{zone}/d-2"))["sizeGb"], "2");
    assert!(server.get(&format!("{zone}/d-4"))["type"].as_str().unwrap().ends_with("/pd-ssd"));
    let original =
        fs::read(datacenter.path("examples/datacenter/disks/web-1-content.raw")).unwrap();
    let disks = fs::read_dir(datacenter.path(".stillframe/store/disks")).unwrap();
    let files = disks.flat_map(|directory| fs::read_dir(directory.unwrap().path()).unwrap());
    let sizes: Vec<u64> = files
        .map(|file| {
            let path = file.unwrap().path();
            let size = fs::metadata(&path).unwrap().len();
            if size == original.len() as u64 {
                assert!(fs::read(&path).unwrap() == original, "{}", path.display());
            }
            size
        })
        .collect();
    assert_eq!(sizes.iter().filter(|size| **size == original.len() as u64).count(), 2, "{sizes:?}");
    for (body, status) in [
        (json!({"name": "d-1", "sizeGb": 1}), 409),
        (json!({"name": "d-9"}), 400),
        (json!({"name": "d-9", "sizeGb": 0}), 400),
        (json!({"name": "d-9", "sourceMachineImage": golden}), 400),
        (
            json!({"name": "d-9", "sourceMachineImage": golden, "sourceSnapshot": "global/snapshots/snap"}),
            400,
        ),
        (json!({"name": "d-9", "sourceSnapshot": "global/snapshots/gone"}), 404),
        (json!({"name": "d-9", "sourceDisk": "zones/hall-a/disks/d-1"}), 501),
    ] {
        assert_eq!(server.ask("POST", zone, &body).0, status, "{body}");
    }

    server.stop();
}

#[test]
fn a_disk_that_is_attached_to_nothing_is_captured_labelled_and_removed() {
    let datacenter = Datacenter::new();
    let server = Server::start(&datacenter, &[]);
    let zone = "/zones/hall-a/disks";
    let snapshot = json!({"name": "snap"});
    well(&server.change("POST", &format!("{zone}/web-1-content/createSnapshot"), &snapshot));
    let quotas = || [server.get("?fields=quotas"), server.get("/regions/hall?fields=quotas")];
    let before = quotas().map(|quota| usage(&quota, "INSTANCES"));
    for (name, size) in [("d-1", Value::Null), ("d-2", json!("2"))] {
        let body = json!({"name": name, "sourceSnapshot": "global/snapshots/snap", "sizeGb": size});
        well(&server.change("POST", zone, &body));
    }
    // A disk is no instance.
    assert_eq!(quotas().map(|quota| usage(&quota, "INSTANCES")), before);
    let snapshot = json!({"name": "snap-2", "sourceDisk": "zones/hall-a/disks/d-2"});
    well(&server.change("POST", "/global/snapshots", &snapshot));
    assert_eq!(server.get("/global/snapshots/snap-2")["diskSizeGb"], "2");
    let image = json!({"name": "base-2", "family": "base", "sourceDisk": "zones/hall-a/disks/d-1"});
    well(&server.change("POST", "/global/images", &image));
    let small = json!({"name": "d-9", "sourceSnapshot": "global/snapshots/snap-2", "sizeGb": "1"});
    assert_eq!(server.ask("POST", zone, &small).0, 400);

    let disk = server.get(&format!("{zone}/d-1"));
    let labels = json!({"labels": {"c": "d"}, "labelFingerprint": disk["labelFingerprint"]});
    server.change("POST", &format!("{zone}/d-1/setLabels"), &labels);
    assert_eq!(server.ask("POST", &format!("{zone}/d-1/setLabels"), &labels).0, 412);
    assert_eq!(server.get(&format!("{zone}/d-1"))["labels"], labels["labels"]);
    assert_eq!(server.ask("DELETE", &format!("{zone}/web-1-boot"), &Value::Null).0, 400);
    for name in ["d-1", "d-2"] {
        well(&server.change("DELETE", &format!("{zone}/{name}"), &Value::Null));
    }
    assert_eq!(fs::read_dir(datacenter.path(".stillframe/store/disks")).unwrap().count(), 0);
    server.stop();
}

#[test]
fn images_are_made_of_images_wherever_they_are() {
    let datacenter = Datacenter::new();
    let server = Server::start(&datacenter, &[]);
    let snapshot = json!({"name": "snap", "sourceDisk": "zones/hall-a/disks/web-1-content"});
    well(&server.change("POST", "/global/snapshots", &snapshot));
    let insert = |body: Value| server.change("POST", "/global/images", &body);
    well(&insert(json!({"name": "one", "sourceSnapshot": "global/snapshots/snap", "family": "f"})));
    well(&insert(
        json!({"name": "two", "sourceImage": "global/images/one", "family": "f", "storageLocations": ["vault"]}),
    ));
    let two = server.get("/global/images/two");
    assert_eq!(two["storageLocations"], json!(["vault"]));
    assert!(two["sourceImage"].as_str().unwrap().ends_with("/images/one"));
    let view = server.get("/zones/hall-a/imageFamilyViews/f");
    assert_eq!(view["image"]["name"], "two");
    let both = json!({"name": "x", "sourceImage": "global/images/one", "sourceDisk": "zones/hall-a/disks/web-1-boot"});
    assert_eq!(server.ask("POST", "/global/images", &both).0, 400);

    // What it was made of may go.
    well(&server.change("DELETE", "/global/snapshots/snap", &Value::Null));
    well(&server.change("DELETE", "/global/images/one", &Value::Null));
    datacenter.run_to(0, &["verify", "two"]);
    datacenter.run_to(0, &["restore", "two", "--to", "back"]);
    let content = fs::read(datacenter.path("back/content.raw")).unwrap();
    let original =
        fs::read(datacenter.path("examples/datacenter/disks/web-1-content.raw")).unwrap();
    assert!(content == original, "the disk has come back otherwise");

    // What is deprecated is used with a warning, what is obsolete is not.
    let state = |state: &str| {
        server.change("POST", "/global/images/two/deprecate", &json!({"state": state}));
    };
    let disk = |name: &str| json!({"name": name, "sourceImage": "global/images/two"});
    state("DEPRECATED");
    let ended = server.change("POST", "/zones/hall-a/disks", &disk("d-1"));
    assert_eq!(ended["warnings"][0]["code"], "DEPRECATED_RESOURCE_USED", "{ended}");
    state("OBSOLETE");
    assert_eq!(server.ask("POST", "/zones/hall-a/disks", &disk("d-2")).0, 400);
    server.stop();
}

#[test]
fn a_flush_that_no_guest_was_asked_for_is_said() {
    let datacenter = Datacenter::new();
    let server = Server::start(&datacenter, &[]);
    let body = json!({"name": "flushed", "sourceInstance": WEB, "guestFlush": true});
    let ended = server.change("POST", "/global/machineImages", &body);
    well(&ended);
    assert_eq!(ended["warnings"][0]["code"], "NOT_CRITICAL_ERROR");
    let message = ended["warnings"][0]["message"].as_str().unwrap();
    assert!(message.contains("not asked to flush"), "{message}");
    let query = "/zones/hall-a/disks/web-1-boot/createSnapshot?guestFlush=True";
    let ended = server.change("POST", query, &json!({"name": "flushed-disk"}));
    assert_eq!(ended["warnings"][0]["code"], "NOT_CRITICAL_ERROR");
    // The image itself says what it is.
    let shown = datacenter.run_to(0, &["show", "flushed", "--json"]);
    let record: Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!(record["consistency"], "crash", "{record:#}");
    // Of a machine that does not run there is nothing to flush.
    datacenter.edit("examples/datacenter/instances/db-1.yaml", |text| {
        text.replace("status: RUNNING", "status: TERMINATED")
    });
    let body = json!({"name": "still", "sourceInstance": "zones/hall-a/instances/db-1", "guestFlush": true});
    assert_eq!(server.change("POST", "/global/machineImages", &body)["warnings"], Value::Null);
    server.stop();
}

#[test]
fn snapshots_of_a_region_are_stored_in_it() {
    let datacenter = Datacenter::new();
    datacenter
        .edit("policies/stillframe.yaml", |text| text.replace("vault: {}", "hall: {}, vault: {}"));
    let server = Server::start(&datacenter, &[]);
    let snapshots = "/regions/hall/snapshots";
    let body = json!({"name": "snap", "sourceDisk": "zones/hall-a/disks/web-1-boot"});
    let ended = server.change("POST", snapshots, &body);
    well(&ended);
    assert!(ended["region"].as_str().unwrap().ends_with("/regions/hall"), "{ended}");
    let snapshot = server.get(&format!("{snapshots}/snap"));
    assert_eq!(snapshot["storageLocations"], json!(["hall"]));
    assert!(snapshot["region"].as_str().unwrap().ends_with("/regions/hall"));
    assert_eq!(server.names(snapshots), ["snap"]);
    assert_eq!(server.names("/global/snapshots"), Vec::<String>::new());
    assert_eq!(server.ask("GET", "/global/snapshots/snap", &Value::Null).0, 404);
    let labels = json!({"labels": {"a": "b"}, "labelFingerprint": snapshot["labelFingerprint"]});
    server.change("POST", &format!("{snapshots}/snap/setLabels"), &labels);
    let disk = json!({"name": "d-1", "sourceSnapshot": "regions/hall/snapshots/snap"});
    well(&server.change("POST", "/zones/hall-a/disks", &disk));
    let elsewhere = json!({"name": "x", "sourceDisk": "zones/hall-a/disks/web-1-boot", "storageLocations": ["vault"]});
    assert_eq!(server.ask("POST", snapshots, &elsewhere).0, 400);
    // A region that is no storage location has none.
    let (status, refused) = server.ask(
        "POST",
        "/regions/moon/snapshots",
        &json!({"name": "x", "sourceDisk": "zones/hall-a/disks/web-1-boot"}),
    );
    assert!(
        status == 400 && refused["error"]["message"].as_str().unwrap().contains("vault"),
        "{refused}"
    );
    well(&server.change("DELETE", &format!("{snapshots}/snap"), &Value::Null));
    assert_eq!(server.names(snapshots), Vec::<String>::new());
    server.stop();
}

/// What is being made counts as what is there: the second one is refused before anything is begun.
#[test]
fn two_instances_of_one_name_are_not_begun_in_two_zones() {
    let datacenter = Datacenter::new();
    let server = Server::start(&datacenter, &[]);
    server.insert("golden");
    let insert = |zone: &str, name: &str| {
        let body = json!({"name": name, "sourceMachineImage": "global/machineImages/golden"});
        server.ask("POST", &format!("/zones/{zone}/instances"), &body)
    };
    // They make one after the other, so that the last are still to come.
    let before: Vec<Value> =
        (0..12).map(|one| insert("hall-a", &format!("busy-{one}")).1).collect();
    let (status, first) = insert("hall-a", "twin");
    assert_eq!(status, 200, "{first}");
    let (status, second) = insert("hall-b", "twin");
    let message = second["error"]["message"].as_str().unwrap_or_default();
    assert_eq!(
        (status, message),
        (
            409,
            "The resource 'projects/p1/zones/hall-a/instances/twin' has this name; the embedded engine keeps a name for one instance of any zone"
        )
    );
    assert_eq!(insert("hall-a", "twin").0, 409);
    for operation in before.iter().chain([&first]) {
        well(&server.wait(operation));
    }
    server.stop();
}
