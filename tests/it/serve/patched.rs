//! What of a disk image is changed by sending the image: `images.patch`.

use serde_json::{Value, json};

use super::super::conform::check_request;
use super::super::support::Datacenter;
use super::Server;

const BASE_1: &str = "/global/images/base-1";

/// A server with two images of a family, the second the newer.
fn with_a_family(datacenter: &Datacenter, more: &[&str]) -> Server {
    let server = Server::start(datacenter, more);
    for name in ["base-1", "base-2"] {
        let body = json!({"name": name, "family": "base", "description": "as it was made",
            "architecture": "ARM64", "labels": {"env": "test"}, "sourceDisk": "zones/hall-a/disks/web-1-boot"});
        server.change("POST", "/global/images?forceCreate=true", &body);
    }
    server
}

/// Changes an image as a client of the API does.
fn patch(server: &Server, path: &str, body: &Value) -> Value {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let query: Vec<(String, String)> = query
        .split_terminator('&')
        .filter_map(|one| one.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    check_request("PATCH", &format!("projects/p1{path}"), &query, &with(&json!({}), body));
    let query: String = query.iter().map(|(key, value)| format!("?{key}={value}")).collect();
    let (status, operation) = server.ask("PATCH", &format!("{path}{query}"), body);
    assert_eq!(status, 200, "{path}: {operation}");
    let ended = server.wait(&operation);
    assert_eq!((&ended["operationType"], &ended["error"]), (&json!("patch"), &Value::Null));
    ended
}

/// An image, with some of its fields as they are to be: `null` is a field that is not there. The schemas of
/// the API know no `null`, which clients send all the same.
fn with(image: &Value, fields: &Value) -> Value {
    let mut image = image.clone();
    for (field, value) in fields.as_object().unwrap() {
        match value {
            Value::Null => image.as_object_mut().unwrap().remove(field),
            Value::Object(_) => {
                image.as_object_mut().unwrap().insert(field.clone(), with(&json!({}), value))
            }
            value => image.as_object_mut().unwrap().insert(field.clone(), value.clone()),
        };
    }
    image
}

#[test]
fn what_a_patch_has_is_changed_and_the_rest_stays() {
    let datacenter = Datacenter::new();
    let server = with_a_family(&datacenter, &[]);
    let made = server.get(BASE_1);
    assert_eq!(made["architecture"], "ARM64");
    let newest = |family: &str| {
        let path = format!("/global/images/family/{family}");
        server.ask("GET", &path, &Value::Null).1["name"].clone()
    };
    let ended = patch(&server, BASE_1, &json!({"description": "tested"}));
    assert_eq!(
        (&ended["targetId"], &ended["targetLink"]),
        (&made["id"], &made["selfLink"]),
        "{ended}"
    );
    assert_eq!(server.get(BASE_1), with(&made, &json!({"description": "tested"})));

    patch(&server, "/global/images/base-2", &json!({"family": "next"}));
    assert_eq!([newest("base"), newest("next")], ["base-1", "base-2"]);
    let listed = server.get("/global/images?filter=family%3Dnext&fields=items(name,description)");
    assert_eq!(listed["items"], json!([{"name": "base-2", "description": "as it was made"}]));
    assert_eq!(server.names("/global/images?filter=description%3Dtested"), ["base-1"]);

    // By its number, and both at once; then all of it is there after a restart.
    let by_number = format!("/global/images/{}", made["id"].as_str().unwrap());
    patch(&server, &by_number, &json!({"family": "third", "architecture": "X86_64"}));
    let changed = json!({"description": "tested", "family": "third", "architecture": "X86_64"});
    assert_eq!(server.get(BASE_1), with(&made, &changed));
    server.stop();
    let server = Server::start(&datacenter, &[]);
    assert_eq!(server.get(BASE_1), with(&made, &changed));

    // What is empty or `null` is taken away, and only that.
    patch(&server, BASE_1, &json!({"family": "", "architecture": null}));
    let changed = json!({"description": "tested", "family": null, "architecture": null});
    assert_eq!(server.get(BASE_1), with(&made, &changed));
    assert_eq!(server.ask("GET", "/global/images/family/third", &Value::Null).0, 404);
    patch(&server, BASE_1, &json!({"description": null}));
    let changed = json!({"description": null, "family": null, "architecture": null});
    assert_eq!(server.get(BASE_1), with(&made, &changed));
    patch(&server, BASE_1, &json!({}));
    assert_eq!(server.get(BASE_1), with(&made, &changed));
    server.stop();
}

#[test]
fn a_whole_image_is_sent_back_with_a_change_in_it() {
    let datacenter = Datacenter::new();
    let server = with_a_family(&datacenter, &[]);
    let deprecation = json!({"state": "DEPRECATED", "replacement": "global/images/base-2"});
    server.change("POST", "/global/images/base-1/deprecate", &deprecation);
    let image = server.get(BASE_1);
    patch(&server, BASE_1, &image);
    assert_eq!(server.get(BASE_1), image);
    // As clients write fields that were never set.
    let empty = json!({"licenses": [], "rawDisk": {}, "sourceImage": "", "sourceSnapshot": null,
        "enableConfidentialCompute": false, "status": null, "family": "other"});
    patch(&server, BASE_1, &with_all(&image, &empty));
    assert_eq!(server.get(BASE_1), with(&image, &json!({"family": "other"})));

    // Labels that somebody has changed since then are not taken for those that were read.
    let labels = json!({"labels": {"env": "new"}, "labelFingerprint": image["labelFingerprint"]});
    server.change("POST", "/global/images/base-1/setLabels", &labels);
    let before = server.get(BASE_1);
    let (status, stale) = server.ask("PATCH", BASE_1, &image);
    assert_eq!((status, &stale["error"]["errors"][0]["reason"]), (412, &json!("conditionNotMet")));
    assert_eq!(server.get(BASE_1), before);
    server.stop();
}

/// A body with more fields, `null` among them.
fn with_all(body: &Value, fields: &Value) -> Value {
    let mut body = body.clone();
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

#[test]
fn what_cannot_be_changed_is_refused_and_nothing_is_changed() {
    let datacenter = Datacenter::new();
    let server = with_a_family(&datacenter, &[]);
    let before = server.get(BASE_1);
    for (body, field) in [
        (json!({"name": "other"}), "name"),
        (json!({"id": "5"}), "id"),
        (json!({"status": "FAILED"}), "status"),
        (json!({"diskSizeGb": "7"}), "diskSizeGb"),
        (json!({"storageLocations": ["vault"]}), "storageLocations"),
        (json!({"storageLocations": []}), "storageLocations"),
        (json!({"sourceDisk": "zones/hall-a/disks/web-1-content"}), "sourceDisk"),
        (json!({"sourceImage": "global/images/base-2"}), "sourceImage"),
        (json!({"licenses": ["global/licenses/l"]}), "licenses"),
        (json!({"enableConfidentialCompute": true}), "enableConfidentialCompute"),
        (json!({"labels": {"env": "other"}}), "labels"),
        (json!({"labels": {}, "labelFingerprint": before["labelFingerprint"]}), "labels"),
        (json!({"labels": 5}), "labels"),
        (json!({"labelFingerprint": 5}), "labelFingerprint"),
        (json!({"description": 5}), "description"),
        (json!({"description": "x".repeat(2049)}), "description"),
        (json!({"family": "No Family"}), "family"),
        (json!({"family": ["base"]}), "family"),
        (json!({"architecture": "VAX"}), "architecture"),
        (json!({"deprecated": "DEPRECATED"}), "deprecated"),
        (json!({"deprecated": {"state": "OLD"}}), "deprecated.state"),
        (json!({"deprecated": {"state": 5}}), "deprecated.state"),
        (json!({"deprecated": {"replacement": "base-2"}}), "deprecated.replacement"),
        (json!({"unheardOf": 1}), "unheardOf"),
    ] {
        // What could be changed beside it is not.
        let body = with_all(&json!({"description": "new"}), &body);
        let (status, refused) = server.ask("PATCH", BASE_1, &body);
        let message = refused["error"]["message"].as_str().unwrap_or_default();
        assert_eq!(status, 400, "{body}: {refused}");
        assert!(message.contains(&format!("'resource.{field}'")), "{body}: {message}");
    }
    let stale = json!({"description": "new", "labelFingerprint": "AAAAAAAAAAA="});
    assert_eq!(server.ask("PATCH", BASE_1, &stale).0, 412);
    let change = json!({"description": "new"});
    assert_eq!(server.ask("PATCH", "/global/images/gone", &change).0, 404);
    assert_eq!(server.get(BASE_1), before);
    assert_eq!(server.names("/global/operations").len(), 2);

    // The API has nothing of the sort for the other kinds.
    server.insert("golden");
    for path in ["/global/machineImages/golden", "/global/snapshots/golden"] {
        assert_eq!(server.ask("PATCH", path, &change).0, 501, "{path}");
    }
    server.stop();
}

#[test]
fn how_an_image_is_deprecated_is_changed_in_parts() {
    let datacenter = Datacenter::new();
    let server = with_a_family(&datacenter, &[]);
    let newest = || server.get("/global/images/family/base")["name"].clone();
    let base_2 = "/global/images/base-2";
    let deprecated = || server.get(base_2)["deprecated"].clone();
    patch(&server, base_2, &json!({"deprecated": {"state": "DEPRECATED"}}));
    assert_eq!((newest(), deprecated()), (json!("base-1"), json!({"state": "DEPRECATED"})));
    patch(&server, base_2, &json!({"deprecated": {"replacement": "global/images/base-1"}}));
    let replacement = server.get(BASE_1)["selfLink"].clone();
    let whole = json!({"state": "DEPRECATED", "replacement": replacement});
    assert_eq!((newest(), deprecated()), (json!("base-1"), whole.clone()));
    patch(&server, base_2, &json!({"description": "old", "deprecated": {}}));
    assert_eq!((newest(), deprecated()), (json!("base-1"), whole));
    // What is obsolete is not used, whoever has said so.
    patch(&server, base_2, &json!({"deprecated": {"state": "OBSOLETE", "replacement": null}}));
    assert_eq!(deprecated(), json!({"state": "OBSOLETE"}));
    let disk = json!({"name": "d", "sourceImage": "global/images/base-2"});
    assert_eq!(server.ask("POST", "/zones/hall-a/disks", &disk).0, 400);
    patch(&server, base_2, &json!({"deprecated": null}));
    assert_eq!((newest(), deprecated()), (json!("base-2"), Value::Null));
    server.stop();
}

#[test]
fn a_patch_is_done_once_and_goes_wrong_where_that_was_asked_for() {
    let datacenter = Datacenter::new();
    let server = with_a_family(&datacenter, &["--faults"]);
    let fault = |script: Value| {
        assert_eq!(server.send("POST", "/faults", "", &script.to_string()).0, 204, "{script}");
    };
    let description = || server.get(BASE_1)["description"].clone();
    let path = format!("{BASE_1}?requestId=8e5c3cf5-9f0e-4b4c-8a58-0a4f6a5b8d11");
    let first = json!({"description": "first"});
    fault(json!({"fault": "unavailable", "method": "PATCH"}));
    assert_eq!(server.ask("PATCH", &path, &first).0, 503);
    assert_eq!(description(), "as it was made");
    fault(json!({"fault": "reply-lost", "method": "PATCH", "collection": "images"}));
    assert_eq!(server.ask("PATCH", &path, &first).0, 503);
    assert_eq!(description(), "first");
    // What came in between stays: the lost request is not done again.
    patch(&server, BASE_1, &json!({"description": "second"}));
    let ended = patch(&server, &path, &first);
    assert_eq!(ended["clientOperationId"], path.split_once('=').unwrap().1);
    assert_eq!(description(), "second");
    let (status, refused) = server.ask("PATCH", &path, &json!({"description": "third"}));
    assert_eq!(status, 400, "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains("another request"));

    let image = server.get(BASE_1);
    fault(json!({"fault": "stale-fingerprint"}));
    patch(&server, BASE_1, &json!({"description": "third"}));
    assert_eq!(server.ask("PATCH", BASE_1, &image).0, 412);
    patch(&server, BASE_1, &image);
    fault(json!({"fault": "final-deprecation", "times": 2}));
    patch(&server, BASE_1, &json!({"deprecated": {"state": "DEPRECATED"}}));
    patch(&server, BASE_1, &json!({"deprecated": {"replacement": "global/images/base-2"}}));
    for active in [json!({"deprecated": {"state": "ACTIVE"}}), json!({"deprecated": null})] {
        assert_eq!(server.ask("PATCH", BASE_1, &active).0, 400, "{active}");
    }
    assert_eq!(server.get(BASE_1)["deprecated"]["state"], "DEPRECATED");
    server.stop();
}
