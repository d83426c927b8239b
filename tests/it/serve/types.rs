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

#[test]
fn nothing_is_made_of_what_is_of_another_type() {
    let datacenter = Datacenter::new();
    let server = Server::start(&datacenter, &[]);
    server.insert("golden");
    let machine_image = json!({"name": "a", "sourceInstance": SOURCE});
    let image = json!({"name": "a", "sourceDisk": "zones/hall-a/disks/web-1-boot"});
    let instance = json!({"name": "a", "sourceMachineImage": "global/machineImages/golden"});
    let disk = json!({"name": "a", "sizeGb": "1"});
    let [machine_images, images, snapshots] =
        ["/global/machineImages", "/global/images?forceCreate=true", "/global/snapshots"];
    let (instances, disks) = ("/zones/hall-b/instances", "/zones/hall-a/disks");
    let one = "/zones/hall-a/disks/web-1-boot/createSnapshot";
    for (path, body, field, value, named) in [
        (machine_images, &machine_image, "params", json!(5), "params"),
        (
            machine_images,
            &machine_image,
            "params",
            json!({"includedDisks": "boot"}),
            "params.includedDisks",
        ),
        (
            machine_images,
            &machine_image,
            "params",
            json!({"excludedDisks": {}}),
            "params.excludedDisks",
        ),
        (
            machine_images,
            &machine_image,
            "params",
            json!({"excludedDisks": ["boot", 5]}),
            "params.excludedDisks[1]",
        ),
        (machine_images, &machine_image, "guestFlush", json!("yes"), "guestFlush"),
        (machine_images, &machine_image, "labels", json!(5), "labels"),
        (machine_images, &machine_image, "labels", json!({"a": 5}), "labels.a"),
        (machine_images, &machine_image, "storageLocations", json!("vault"), "storageLocations"),
        (machine_images, &machine_image, "storageLocations", json!([5]), "storageLocations[0]"),
        (
            machine_images,
            &machine_image,
            "machineImageEncryptionKey",
            json!("k"),
            "machineImageEncryptionKey",
        ),
        (
            machine_images,
            &machine_image,
            "machineImageEncryptionKey",
            json!({"kmsKeyName": 5}),
            "machineImageEncryptionKey.kmsKeyName",
        ),
        (machine_images, &machine_image, "sourceInstance", json!(7), "sourceInstance"),
        (machine_images, &machine_image, "description", json!(["x"]), "description"),
        (images, &image, "sourceDisk", json!(7), "sourceDisk"),
        (images, &image, "family", json!(true), "family"),
        (images, &image, "imageEncryptionKey", json!([]), "imageEncryptionKey"),
        (snapshots, &image, "snapshotType", json!(1), "snapshotType"),
        (snapshots, &image, "snapshotEncryptionKey", json!("k"), "snapshotEncryptionKey"),
        (one, &json!({"name": "a"}), "guestFlush", json!(1), "guestFlush"),
        (instances, &instance, "tags", json!(5), "tags"),
        (instances, &instance, "tags", json!({"items": "http"}), "tags.items"),
        (instances, &instance, "metadata", json!("x"), "metadata"),
        (instances, &instance, "metadata", json!({"items": {"key": "a"}}), "metadata.items"),
        (
            instances,
            &instance,
            "metadata",
            json!({"items": [{"key": "a", "value": 5}]}),
            "metadata.items[0].value",
        ),
        (instances, &instance, "networkInterfaces", json!([5]), "networkInterfaces[0]"),
        (instances, &instance, "networkInterfaces", json!([null]), "networkInterfaces[0]"),
        (instances, &instance, "guestAccelerators", json!(["x"]), "guestAccelerators[0]"),
        (instances, &instance, "disks", json!(5), "disks"),
        (instances, &instance, "labels", json!("x"), "labels"),
        (instances, &instance, "scheduling", json!("x"), "resource"),
        (instances, &instance, "canIpForward", json!("yes"), "resource"),
        (disks, &disk, "sizeGb", json!(true), "sizeGb"),
        (disks, &disk, "labels", json!([]), "labels"),
        (disks, &disk, "sourceSnapshot", json!(5), "sourceSnapshot"),
    ] {
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
    server.change("POST", machine_images, &body);
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
