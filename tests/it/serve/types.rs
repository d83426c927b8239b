//! Bodies and switches of another type than their field has: refused, and nothing is begun or changed.

use serde_json::{Value, json};

use super::super::support::Datacenter;
use super::Server;

const SOURCE: &str = "zones/hall-a/instances/web-1";

/// The refusal names the field.
fn refused(server: &Server, path: &str, body: &Value, field: &str) {
    let (status, answer) = server.ask("POST", path, body);
    let message = answer["error"]["message"].as_str().unwrap_or_default();
    assert_eq!(status, 400, "{path} {body}: {answer}");
    assert!(message.contains(&format!("'{field}'")), "{path} {body}: {message}");
}

/// A body, and a field of it that is something else.
fn with(body: &Value, field: &str, value: &Value) -> Value {
    let mut body = body.clone();
    body[field] = value.clone();
    body
}

/// What is asked for, a field of it, what that is, and the field that is told.
const OF_ANOTHER_TYPE: &str = r#"
machine_images params 5 params
machine_images params {"includedDisks":"boot"} params.includedDisks
machine_images params {"excludedDisks":{}} params.excludedDisks
machine_images params {"excludedDisks":["boot",5]} params.excludedDisks[1]
machine_images guestFlush "yes" guestFlush
machine_images labels 5 labels
machine_images labels {"a":5} labels.a
machine_images storageLocations "vault" storageLocations
machine_images storageLocations [5] storageLocations[0]
machine_images machineImageEncryptionKey "k" machineImageEncryptionKey
machine_images machineImageEncryptionKey {"kmsKeyName":5} machineImageEncryptionKey.kmsKeyName
machine_images sourceInstance 7 sourceInstance
machine_images description ["x"] description
images sourceDisk 7 sourceDisk
images family true family
images architecture "VAX" architecture
images architecture 5 architecture
images imageEncryptionKey [] imageEncryptionKey
snapshots snapshotType 1 snapshotType
snapshots snapshotEncryptionKey "k" snapshotEncryptionKey
one guestFlush 1 guestFlush
instances tags 5 tags
instances tags {"items":"http"} tags.items
instances metadata "x" metadata
instances metadata {"items":{"key":"a"}} metadata.items
instances metadata {"items":[{"key":"a","value":5}]} metadata.items[0].value
instances networkInterfaces [5] networkInterfaces[0]
instances networkInterfaces [null] networkInterfaces[0]
instances guestAccelerators ["x"] guestAccelerators[0]
instances disks 5 disks
instances labels "x" labels
instances scheduling "x" resource
instances canIpForward "yes" resource
disks sizeGb true sizeGb
disks labels [] labels
disks sourceSnapshot 5 sourceSnapshot
"#;

#[test]
fn nothing_is_made_of_what_is_of_another_type() {
    let datacenter = Datacenter::new();
    let server = Server::start(&datacenter, &[]);
    server.insert("golden");
    let machine_image = json!({"name": "a", "sourceInstance": SOURCE});
    let image = json!({"name": "a", "sourceDisk": "zones/hall-a/disks/web-1-boot"});
    let instance = json!({"name": "a", "sourceMachineImage": "global/machineImages/golden"});
    let disk = json!({"name": "a", "sizeGb": "1"});
    let paths = [
        ("machine_images", "/global/machineImages", &machine_image),
        ("images", "/global/images?forceCreate=true", &image),
        ("snapshots", "/global/snapshots", &image),
        ("one", "/zones/hall-a/disks/web-1-boot/createSnapshot", &json!({"name": "a"})),
        ("instances", "/zones/hall-b/instances", &instance),
        ("disks", "/zones/hall-a/disks", &disk),
    ];
    for row in OF_ANOTHER_TYPE.trim().lines() {
        let [what, field, value, named] = row.split(' ').collect::<Vec<_>>().try_into().expect(row);
        let (_, path, body) = paths.iter().find(|one| one.0 == what).expect(row);
        let value = serde_json::from_str(value).expect(row);
        let named =
            if named == "resource" { named.to_owned() } else { format!("resource.{named}") };
        refused(&server, path, &with(body, field, &value), &named);
    }
    refused(&server, "/global/images?forceCreate=maybe", &image, "forceCreate");
    refused(&server, "/global/snapshots?guestFlush=1", &image, "guestFlush");
    assert_eq!(server.names("/global/machineImages"), ["golden"]);
    for nothing in ["/global/images", "/global/snapshots", "/zones/hall-b/operations"] {
        assert_eq!(server.names(nothing), Vec::<String>::new(), "{nothing}");
    }
    // What is `null` is not there, as before.
    let body = json!({"name": "b", "sourceInstance": SOURCE, "params": null, "labels": null,
        "guestFlush": null, "machineImageEncryptionKey": null, "storageLocations": null});
    server.change("POST", "/global/machineImages", &body);
    server.stop();
}

#[test]
fn nothing_is_changed_by_what_is_of_another_type() {
    let datacenter = Datacenter::new();
    let server = Server::start(&datacenter, &[]);
    server.insert("golden");
    let of = |verb: &str| format!("/global/machineImages/golden/{verb}");
    let bindings = json!([{"role": "roles/compute.imageUser", "members": ["user:a@example.com"]}]);
    let policy = json!({"policy": {"bindings": bindings}});
    assert_eq!(server.ask("POST", &of("setIamPolicy"), &policy).0, 200);
    let before = server.get(&of("getIamPolicy"));
    let image = server.get("/global/machineImages/golden");
    for (body, field) in [
        (json!({"policy": 5}), "policy"),
        (json!({"policy": []}), "policy"),
        (json!({"policy": {"etag": 5, "bindings": bindings}}), "policy.etag"),
        (json!({"policy": {"bindings": bindings}, "etag": {}}), "etag"),
        (json!({"policy": {"bindings": {}}}), "policy.bindings"),
        (json!({"policy": {"bindings": [5]}}), "policy.bindings[0]"),
        (json!({"policy": {"bindings": [{"role": 5, "members": []}]}}), "policy.bindings[0].role"),
        (json!({"bindings": [{"role": "r", "members": "x"}]}), "bindings[0].members"),
    ] {
        refused(&server, &of("setIamPolicy"), &body, &format!("resource.{field}"));
    }
    let asked = json!({"permissions": "compute.images.get"});
    refused(&server, &of("testIamPermissions"), &asked, "resource.permissions");
    for (body, field) in [
        (json!({"labels": 5, "labelFingerprint": image["labelFingerprint"]}), "labels"),
        (json!({"labels": {}, "labelFingerprint": 5}), "labelFingerprint"),
    ] {
        refused(&server, &of("setLabels"), &body, &format!("resource.{field}"));
    }
    let auto = |query: &str| format!("/zones/hall-a/instances/web-1/setDiskAutoDelete?{query}");
    refused(&server, &auto("deviceName=boot&autoDelete=maybe"), &Value::Null, "autoDelete");
    refused(&server, &auto("deviceName=boot"), &Value::Null, "autoDelete");
    assert_eq!(server.get(&of("getIamPolicy")), before);
    assert_eq!(server.get("/global/machineImages/golden"), image);
    server.stop();
}
