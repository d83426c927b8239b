//! Zones and regions: what is in them is listed, and those that nothing is in are not there.

use std::fs;

use serde_json::{Value, json};

use super::super::support::Datacenter;
use super::Server;

#[test]
fn a_list_of_a_place_that_is_not_there_is_not_empty() {
    let datacenter = Datacenter::new();
    let server = Server::start(&datacenter, &[]);
    for (place, collections) in [
        ("zones/nowhere", ["instances", "disks", "operations", ""].as_slice()),
        (
            "regions/nowhere",
            &["snapshots", "disks", "resourcePolicies", "instanceTemplates", "operations", ""],
        ),
        // Zones and regions are not taken for one another.
        ("zones/hall", &["instances"]),
        ("regions/hall-a", &["snapshots"]),
    ] {
        for collection in collections {
            let path = format!("/{place}/{collection}");
            let (status, refused) = server.ask("GET", path.trim_end_matches('/'), &Value::Null);
            assert_eq!(status, 404, "{path}: {refused}");
            let said = format!("The resource 'projects/p1/{place}' was not found");
            assert_eq!(refused["error"]["message"], json!(said), "{path}");
        }
    }
    for path in [
        "zones/hall-a/operations",
        "regions/hall/operations",
        "regions/hall/disks",
        "regions/hall/snapshots",
    ] {
        assert_eq!(server.names(&format!("/{path}")), [""; 0], "{path}");
    }
    server.stop();
}

#[test]
fn what_was_made_in_a_place_is_listed_when_nothing_else_is_there() {
    let datacenter = Datacenter::new();
    datacenter
        .edit("policies/stillframe.yaml", |text| text.replace("vault: {}", "attic: {}, vault: {}"));
    let instance = datacenter.path("examples/datacenter/instances/attic.yaml");
    let text = "apiVersion: stillframe/v1\nkind: Instance\nmetadata: {name: one}\nspec: {zone: attic-a, disks: \
        [{deviceName: boot, path: ../disks/web-1-boot.raw, boot: true}]}\n";
    fs::write(&instance, text).unwrap();
    let server = Server::start(&datacenter, &[]);
    let body = json!({"name": "snap", "sourceDisk": "zones/attic-a/disks/one-boot"});
    let ended = server.change("POST", "/regions/attic/snapshots", &body);
    assert_eq!(ended["error"], Value::Null, "{ended}");
    server.change("POST", "/zones/attic-a/disks", &json!({"name": "empty", "sizeGb": "1"}));
    fs::remove_file(&instance).unwrap();
    server.change("DELETE", "/zones/attic-a/disks/empty", &Value::Null);
    // Nothing is in the zone, and who has changed something there still asks what has become of it.
    assert!(!server.names("/zones").contains(&"attic-a".to_owned()));
    assert_eq!(server.names("/zones/attic-a/operations").len(), 2);
    // The region has a snapshot, and is found by whoever goes through the regions.
    assert_eq!(server.names("/regions"), ["attic", "hall"]);
    assert_eq!(server.get("/regions/attic")["zones"], json!([]));
    assert_eq!(server.names("/regions/attic/snapshots"), ["snap"]);

    let policy = datacenter.path("examples/datacenter/compute-engine/far.yaml");
    let text = "apiVersion: stillframe/v1\nkind: ResourcePolicy\nmetadata: {name: far}\nspec: {region: moon, \
        diskConsistencyGroupPolicy: {}}\n";
    fs::write(policy, text).unwrap();
    assert_eq!(server.names("/regions/moon/resourcePolicies"), ["far"]);
    assert_eq!(server.names("/regions"), ["attic", "hall", "moon"]);
    server.stop();
}
