//! What the server remembers: over a restart, after it was killed, and no longer than it needs.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::super::support::Datacenter;
use super::Server;

fn remembered(datacenter: &Datacenter, what: &str) -> Vec<PathBuf> {
    let directory = datacenter.path(&format!(".stillframe/store/serve/gce/{what}"));
    fs::read_dir(directory)
        .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
        .unwrap_or_default()
}

#[test]
fn instances_and_disks_outlive_the_server() {
    let datacenter = Datacenter::new();
    let server = Server::start(&datacenter, &[]);
    server.insert("golden");
    let body = json!({"name": "web-9", "sourceMachineImage": "global/machineImages/golden"});
    server.change("POST", "/zones/hall-b/instances", &body);
    server.change("POST", "/zones/hall-b/disks", &json!({"name": "empty", "sizeGb": "1"}));
    let paths = [
        "/zones/hall-b/instances/web-9",
        "/zones/hall-b/disks/web-9-boot",
        "/zones/hall-b/disks/empty",
        "/global/machineImages/golden",
        "/zones/hall-b/operations",
    ];
    let before = paths.map(|path| server.get(path));
    assert!(before[..3].iter().all(|one| one["creationTimestamp"].is_string()), "{before:?}");
    server.stop();
    let server = Server::start(&datacenter, &[]);
    assert_eq!(paths.map(|path| server.get(path)), before);
    server.change("DELETE", "/zones/hall-b/instances/web-9", &Value::Null);
    server.stop();
}

#[test]
fn what_a_killed_server_was_at_is_cleared_away_and_nothing_else() {
    let datacenter = Datacenter::new();
    let server = Server::start(&datacenter, &[]);
    server.insert("golden");
    let body = json!({"name": "web-9", "sourceMachineImage": "global/machineImages/golden"});
    server.change("POST", "/zones/hall-b/instances", &body);
    server.stop();
    // A disk that was begun, one that was finished but for its mark, and one of an unknown make.
    let disks = datacenter.path(".stillframe/store/disks");
    for name in ["1", "2"] {
        fs::create_dir(disks.join(name)).unwrap();
        fs::write(disks.join(name).join("disk.raw"), [1; 512]).unwrap();
    }
    fs::write(disks.join("1/unfinished"), "").unwrap();
    let made = fs::read_dir(&disks).unwrap().map(|entry| entry.unwrap().path());
    let made = made.into_iter().find(|path| path.join("boot.raw").exists()).unwrap();
    fs::write(made.join("unfinished"), "").unwrap();

    // Where not all instances can be seen, nothing is cleared away.
    let wrong = datacenter.path("examples/datacenter/instances/wrong.yaml");
    fs::write(&wrong, "kind: Nothing\n").unwrap();
    let server = Server::start(&datacenter, &[]);
    assert_eq!(server.ask("GET", "/zones", &Value::Null).0, 503);
    assert!(disks.join("1").exists());
    server.stop();
    fs::remove_file(wrong).unwrap();

    let server = Server::start(&datacenter, &[]);
    assert_eq!(server.get("/zones/hall-b/instances/web-9")["name"], "web-9");
    assert!(!disks.join("1").exists() && disks.join("2").exists());
    assert!(made.join("boot.raw").exists() && !made.join("unfinished").exists());
    server.stop();
}

#[test]
fn nothing_is_remembered_of_images_that_are_gone() {
    let datacenter = Datacenter::new();
    let server = Server::start(&datacenter, &[]);
    for name in ["one", "two", "three"] {
        server.insert(name);
    }
    assert_eq!(remembered(&datacenter, "images").len(), 3);
    server.change("DELETE", "/global/machineImages/one", &Value::Null);
    server.stop();
    let left = remembered(&datacenter, "images");
    assert_eq!(left.len(), 2);
    // One has gone while no server was there.
    fs::copy(&left[0], left[0].with_file_name("17.json")).unwrap();
    let server = Server::start(&datacenter, &[]);
    assert_eq!(server.names("/global/machineImages"), ["three", "two"]);
    server.stop();
    assert_eq!(remembered(&datacenter, "images").len(), 2);
}
