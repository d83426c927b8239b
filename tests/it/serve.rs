//! The server, asked over HTTP. Every answer is held against the schemas of the API.

mod access;
mod batch;
mod described;
mod listed;
mod patched;
mod places;
mod recorded;
mod repeated;
mod restore;
mod state;
mod types;
mod vcs;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::conform::check_answer;
use super::support::Datacenter;

const ROOT: &str = "/compute/v1/projects/p1";

/// A server over a data centre. It is killed with what it belongs to.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(datacenter: &Datacenter, more: &[&str]) -> Self {
        Self::of(["gce", "p1"], datacenter, more)
    }

    fn of([dialect, project]: [&str; 2], datacenter: &Datacenter, more: &[&str]) -> Self {
        let mut arguments =
            vec!["serve", "--dialect", dialect, "--project", project, "--listen", "127.0.0.1:0"];
        arguments.extend(more);
        let mut command: Command = datacenter.command(&arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Some((_, address)) = line.trim().split_once("://") else {
            let mut error = String::new();
            child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
            panic!("the server does not begin: {error}");
        };
        Self { address: address.to_owned(), child }
    }

    /// Tells it to stop; it must end well.
    fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }

    fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}",
            self.address
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    /// Asks, and holds the answer against the API's own schemas.
    fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, body) = self.send(method, &format!("{ROOT}{path}"), "", &body);
        let answer =
            if body.is_empty() { Value::Null } else { serde_json::from_str(&body).unwrap() };
        if status < 400 {
            let (path, query) = path.split_once('?').unwrap_or((path, ""));
            let path = format!("projects/p1{path}");
            check_answer(method, &path, &answer, query.contains("fields="));
        } else {
            let error = &answer["error"];
            assert_eq!(error["code"], status, "{answer}");
            assert_eq!(error["message"], error["errors"][0]["message"], "{answer}");
            assert!(error["status"].is_string() && error["errors"][0]["reason"].is_string());
        }
        (status, answer)
    }

    fn get(&self, path: &str) -> Value {
        let (status, answer) = self.ask("GET", path, &Value::Null);
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    /// Asks for a change and waits until its operation has ended.
    fn change(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, operation) = self.ask(method, path, body);
        assert_eq!(status, 200, "{path}: {operation}");
        assert_eq!(operation["status"], "RUNNING");
        self.wait(&operation)
    }

    fn wait(&self, operation: &Value) -> Value {
        let link = operation["selfLink"].as_str().unwrap();
        let path = link.split_once("/projects/p1").unwrap().1;
        let (status, ended) = self.ask("POST", &format!("{path}/wait"), &Value::Null);
        assert_eq!((status, &ended["status"]), (200, &json!("DONE")), "{ended}");
        ended
    }

    fn names(&self, path: &str) -> Vec<String> {
        let list = self.get(path);
        let items = list["items"].as_array().cloned().unwrap_or_default();
        items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    }

    fn insert(&self, name: &str) {
        let body = json!({"name": name, "sourceInstance": "zones/hall-a/instances/web-1"});
        let ended = self.change("POST", "/global/machineImages", &body);
        assert_eq!(ended["error"], Value::Null, "{ended}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_data_centre_is_a_project() {
    let datacenter = Datacenter::new();
    let server = Server::start(&datacenter, &[]);
    assert_eq!(server.get("")["name"], "p1");
    let aggregated = server.get("/aggregated/instances?returnPartialSuccess=True&unknown=1");
    let hall = &aggregated["items"]["zones/hall-a"]["instances"];
    assert!(hall.as_array().unwrap().iter().any(|instance| instance["name"] == "db-1"));
    let database = server.get("/zones/hall-a/instances/db-1");
    assert_eq!(database["id"], "4201");
    assert_eq!(database["labels"], json!({"env": "production", "role": "database"}));
    assert_eq!(database["networkInterfaces"][0]["networkIP"], "10.0.2.11");
    assert_eq!(server.get("/zones/hall-a/instances/4201"), database);
    let disk = database["disks"][1]["source"].as_str().unwrap();
    let disk = server.get(disk.split_once("/projects/p1").unwrap().1);
    assert_eq!(disk["users"], json!([database["selfLink"]]));
    assert!(server.names("/zones/hall-a/disks").contains(&"db-1-data".to_owned()));
    assert!(server.names("/zones").contains(&"hall-a".to_owned()));
    assert_eq!(server.names("/regions"), ["hall"]);
    let one = server.get("/aggregated/instances?filter=name%3Ddb-1");
    let empty =
        one["items"].as_object().unwrap().values().find(|scope| scope["warning"].is_object());
    assert_eq!(empty.unwrap()["warning"]["code"], "NO_RESULTS_ON_PAGE");
    server.stop();
}

#[test]
fn a_machine_image_is_made_labelled_found_after_a_restart_and_deleted() {
    let datacenter = Datacenter::new();
    let server = Server::start(&datacenter, &[]);
    let id = "4f0c0d7e-5a52-4d5f-9d0a-3f8b6b1d2a10";
    let insert = format!("/global/machineImages?requestId={id}");
    let body = json!({
        "name": "by-hand",
        "description": "before the upgrade",
        "sourceInstance": "https://compute.googleapis.com/compute/v1/projects/p1/zones/hall-a/instances/db-1",
        "labels": {"team": "orders"},
        "storageLocations": ["vault"],
        "params": {"excludedDisks": ["boot"]},
        "unknown": {"is": "ignored"},
    });
    let (_, operation) = server.ask("POST", &insert, &body);
    assert_eq!(
        (&operation["status"], &operation["clientOperationId"]),
        (&json!("RUNNING"), &json!(id))
    );
    let ended = server.wait(&operation);
    assert_eq!(ended["error"], Value::Null, "{ended}");
    // The same request again is answered with the same operation.
    assert_eq!(server.ask("POST", &insert, &body).1["name"], operation["name"]);
    let mut other = body.clone();
    other["name"] = json!("other");
    assert_eq!(server.ask("POST", &insert, &other).0, 400);
    assert_eq!(server.ask("POST", "/global/machineImages", &body).0, 409);

    let image = server.get("/global/machineImages/by-hand");
    assert_eq!((&image["status"], &image["id"]), (&json!("READY"), &ended["targetId"]));
    assert_eq!(image["description"], "before the upgrade");
    assert_eq!(image["storageLocations"], json!(["vault"]));
    assert_eq!(image["savedDisks"].as_array().unwrap().len(), 1);
    let source = &image["sourceInstanceProperties"];
    assert_eq!(source["machineType"], "memory-8");
    assert_eq!(source["disks"][0]["deviceName"], "data");
    assert_eq!(source["networkInterfaces"][0]["networkIP"], "10.0.2.11");

    let labels = json!({"labels": {"team": "orders", "keep": "yes"}, "labelFingerprint": image["labelFingerprint"]});
    server.change("POST", "/global/machineImages/by-hand/setLabels", &labels);
    let (status, stale) = server.ask("POST", "/global/machineImages/by-hand/setLabels", &labels);
    assert_eq!(status, 412);
    assert!(stale["error"]["message"].as_str().unwrap().contains("fingerprint"));
    assert_eq!(server.get("/global/machineImages/by-hand")["labels"], labels["labels"]);

    let before = server.get("/global/machineImages/by-hand");
    server.stop();
    let server = Server::start(&datacenter, &[]);
    assert_eq!(server.get("/global/machineImages/by-hand"), before);
    assert_eq!(server.ask("POST", &insert, &body).1["name"], operation["name"]);
    // It is an image of the engine like any other.
    datacenter.run_to(0, &["verify", "by-hand"]);
    datacenter.run_to(0, &["restore", "by-hand", "--to", "back"]);
    assert!(
        datacenter.path("back/data.raw").exists() && !datacenter.path("back/boot.raw").exists()
    );
    server.change("DELETE", "/global/machineImages/by-hand", &Value::Null);
    assert_eq!(server.ask("GET", "/global/machineImages/by-hand", &Value::Null).0, 404);
    assert_eq!(server.ask("DELETE", "/global/machineImages/by-hand", &Value::Null).0, 404);
    server.stop();
}

#[test]
fn what_a_capture_fails_of_stands_in_its_operation() {
    let datacenter = Datacenter::new();
    let server = Server::start(&datacenter, &[]);
    let disk = datacenter.path("examples/datacenter/disks/web-1-content.raw");
    let away = datacenter.path("away.raw");
    fs::rename(&disk, &away).unwrap();
    let body = json!({"name": "broken", "sourceInstance": "zones/hall-a/instances/web-1"});
    let ended = server.change("POST", "/global/machineImages", &body);
    let message = ended["error"]["errors"][0]["message"].as_str().unwrap();
    assert!(message.contains("content"), "{message}");
    assert_eq!(server.names("/global/machineImages"), Vec::<String>::new());
    fs::rename(&away, &disk).unwrap();
    server.insert("broken");
    assert_eq!(server.get("/global/machineImages/broken")["status"], "READY");
    server.stop();
}

#[test]
fn lists_are_filtered_in_order_and_in_pages() {
    let datacenter = Datacenter::new();
    let server = Server::start(&datacenter, &[]);
    for name in ["img-1", "img-2", "img-3", "other"] {
        server.insert(name);
    }
    let images = |query: &str| server.names(&format!("/global/machineImages?{query}"));
    assert_eq!(images("filter=name+eq+%22img-.*%22"), ["img-1", "img-2", "img-3"]);
    assert_eq!(images("filter=name+!%3D+img-2&orderBy=name"), ["img-1", "img-3", "other"]);
    assert_eq!(images("filter=labels.env:*"), Vec::<String>::new());
    for order in ["name", "creationTimestamp+desc"] {
        let mut seen = Vec::new();
        let mut token = String::new();
        loop {
            let path =
                format!("/global/machineImages?maxResults=1&orderBy={order}&pageToken={token}");
            let page = server.get(&path);
            seen.push(page["items"][0]["name"].as_str().unwrap().to_owned());
            match page["nextPageToken"].as_str() {
                Some(next) => token = next.to_owned(),
                None => break,
            }
        }
        assert_eq!(seen.len(), 4, "{order}: {seen:?}");
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 4, "{order}: {seen:?}");
    }
    let partial = server.get("/global/machineImages?fields=items/name&maxResults=1");
    assert_eq!(partial, json!({"items": [{"name": "img-1"}]}));
    for wrong in ["filter=name", "orderBy=status", "maxResults=501", "pageToken=x", "fields=a("] {
        let (status, _) =
            server.ask("GET", &format!("/global/machineImages?{wrong}"), &Value::Null);
        assert_eq!(status, 400, "{wrong}");
    }
    // A query that is too long for an address comes as a POST.
    let (status, body) = server.send(
        "POST",
        &format!("{ROOT}/global/machineImages"),
        "X-HTTP-Method-Override: GET\r\nContent-Type: application/x-www-form-urlencoded\r\n",
        "filter=name+%3D+other",
    );
    let list: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &list["items"][0]["name"]), (200, &json!("other")));
    server.stop();
}

#[test]
fn families_lead_to_the_newest_image_that_is_not_deprecated() {
    let datacenter = Datacenter::new();
    let server = Server::start(&datacenter, &[]);
    let image = |name: &str| json!({"name": name, "family": "base", "sourceDisk": "zones/hall-a/disks/web-1-boot"});
    let (status, busy) = server.ask("POST", "/global/images", &image("base-1"));
    assert_eq!(
        (status, &busy["error"]["errors"][0]["reason"]),
        (400, &json!("resourceInUseByAnotherResource"))
    );
    for name in ["base-1", "base-2"] {
        let ended = server.change("POST", "/global/images?forceCreate=true", &image(name));
        assert_eq!(ended["error"], Value::Null, "{ended}");
    }
    let newest = || server.get("/global/images/family/base")["name"].clone();
    assert_eq!(newest(), "base-2");
    let deprecation = json!({"state": "OBSOLETE", "replacement": "global/images/base-1"});
    server.change("POST", "/global/images/base-2/deprecate", &deprecation);
    assert_eq!(newest(), "base-1");
    assert_eq!(server.get("/global/images/base-2")["deprecated"]["state"], "OBSOLETE");
    server.change("POST", "/global/images/base-2/deprecate", &Value::Null);
    assert_eq!(newest(), "base-2");
    assert_eq!(server.get("/global/images/base-2")["deprecated"], Value::Null);
    assert_eq!(server.ask("GET", "/global/images/family/none", &Value::Null).0, 404);

    let snapshot = json!({"name": "s-1", "labels": {"a": "b"}, "snapshotType": "ARCHIVE"});
    let ended = server.change("POST", "/zones/hall-a/disks/web-1-boot/createSnapshot", &snapshot);
    assert!(ended["targetLink"].as_str().unwrap().ends_with("/disks/web-1-boot"), "{ended}");
    assert!(ended["zone"].as_str().unwrap().ends_with("/zones/hall-a"));
    let other = json!({"name": "s-2", "sourceDisk": "zones/hall-a/disks/web-1-content"});
    server.change("POST", "/global/snapshots", &other);
    assert_eq!(server.names("/global/snapshots"), ["s-1", "s-2"]);
    assert_eq!(server.get("/global/snapshots/s-1")["snapshotType"], "ARCHIVE");
    let policy = |verb: &str| format!("/global/images/base-1/{verb}");
    let before = server.get(&policy("getIamPolicy?optionsRequestedPolicyVersion=3"));
    let bindings = json!([{"role": "roles/compute.imageUser", "members": ["user:a@example.com"]}]);
    let change = json!({"policy": {"bindings": bindings, "etag": before["etag"]}});
    assert_eq!(server.ask("POST", &policy("setIamPolicy"), &change).0, 200);
    assert_eq!(server.ask("POST", &policy("setIamPolicy"), &change).0, 412);
    assert_eq!(server.get(&policy("getIamPolicy"))["bindings"], bindings);
    // The engine has one name for images of all kinds, and says so.
    let (status, taken) = server.ask("POST", "/global/images?forceCreate=true", &image("s-1"));
    assert_eq!(status, 409);
    assert!(taken["error"]["message"].as_str().unwrap().contains("any kind"), "{taken}");
    server.change("DELETE", "/global/snapshots/s-1", &Value::Null);
    assert_eq!(server.names("/global/snapshots"), ["s-2"]);
    server.stop();
}

#[test]
fn what_cannot_be_done_is_refused_and_leaves_nothing() {
    let datacenter = Datacenter::new();
    let server = Server::start(&datacenter, &[]);
    let source = "zones/hall-a/instances/web-1";
    for (body, status) in [
        (json!({"sourceInstance": source}), 400),
        (json!({"name": "a"}), 400),
        (json!({"name": "A", "sourceInstance": source}), 400),
        (json!({"name": "a", "sourceInstance": "web-1"}), 400),
        (json!({"name": "a", "sourceInstance": "zones/hall-a/instances/gone"}), 404),
        (json!({"name": "a", "sourceInstance": source, "storageLocations": ["moon"]}), 400),
        (json!({"name": "a", "sourceInstance": source, "labels": {"A": "b"}}), 400),
        (json!({"name": "a", "sourceInstance": source, "params": {"includedDisks": ["x"]}}), 400),
    ] {
        assert_eq!(server.ask("POST", "/global/machineImages", &body).0, status, "{body}");
    }
    let zero = "/global/machineImages?requestId=00000000-0000-0000-0000-000000000000";
    assert_eq!(server.ask("POST", zero, &json!({"name": "a", "sourceInstance": source})).0, 400);
    let image = json!({"name": "a", "sourceSnapshot": "global/snapshots/s"});
    assert_eq!(server.ask("POST", "/global/images", &image).0, 404);
    let raw = json!({"name": "a", "rawDisk": {"source": "https://example.com/a.tar.gz"}});
    assert_eq!(server.ask("POST", "/global/images", &raw).0, 501);
    assert_eq!(server.ask("POST", "/zones/hall-a/instances", &json!({"name": "a"})).0, 501);
    assert_eq!(server.ask("GET", "/global/firewalls", &Value::Null).0, 501);
    assert_eq!(server.send("GET", "/compute/v1/projects/other", "", "").0, 404);
    assert_eq!(server.send("GET", ROOT, "Origin: https://example.com\r\n", "").0, 403);
    assert_eq!(server.send("POST", "/faults", "", "{}").0, 404);
    assert_eq!(server.names("/global/machineImages"), Vec::<String>::new());
    assert_eq!(server.names("/global/operations"), Vec::<String>::new());

    // What cannot be read is not left out.
    fs::write(datacenter.path("examples/datacenter/instances/wrong.yaml"), "kind: Nothing\n")
        .unwrap();
    let (status, unseen) = server.ask("GET", "/aggregated/instances", &Value::Null);
    assert_eq!(status, 503);
    assert!(unseen["error"]["message"].as_str().unwrap().contains("wrong.yaml"), "{unseen}");

    let second = datacenter.run_to(1, &["serve", "--dialect", "gce", "--listen", "127.0.0.1:0"]);
    assert!(second.err.contains("another server"), "{}", second.err);
    let open = datacenter.run_to(1, &["serve", "--dialect", "gce", "--listen", "192.0.2.1:80"]);
    assert!(open.err.contains("token and TLS files"), "{}", open.err);
    server.stop();
}

#[test]
fn faults_come_where_they_were_asked_for() {
    let datacenter = Datacenter::new();
    let server = Server::start(&datacenter, &["--faults"]);
    let fault = |script: Value| {
        assert_eq!(server.send("POST", "/faults", "", &script.to_string()).0, 204, "{script}");
    };
    let list = || server.ask("GET", "/global/machineImages", &Value::Null);
    fault(json!({"fault": "rate-limit", "times": 2, "method": "GET"}));
    for _ in 0..2 {
        let (status, limited) = list();
        assert_eq!(
            (status, &limited["error"]["errors"][0]["reason"]),
            (403, &json!("rateLimitExceeded"))
        );
    }
    assert_eq!(list().0, 200);
    fault(json!({"fault": "unavailable"}));
    assert_eq!((list().0, list().0), (503, 200));

    let body = json!({"name": "one", "sourceInstance": "zones/hall-a/instances/web-1"});
    fault(json!({"fault": "quota-in-operation"}));
    let ended = server.change("POST", "/global/machineImages", &body);
    assert_eq!(ended["error"]["errors"][0]["code"], "QUOTA_EXCEEDED");
    let message = |quota: &str| format!("Quota '{quota}' exceeded. Limit: 0.0 globally.");
    assert_eq!(ended["error"]["errors"][0]["message"], message("MACHINE_IMAGES"));
    fault(json!({"fault": "quota-in-operation"}));
    let disk = json!({"name": "one", "sourceDisk": "zones/hall-a/disks/web-1-boot"});
    let ended = server.change("POST", "/global/images?forceCreate=true", &disk);
    assert_eq!(ended["error"]["errors"][0]["message"], message("IMAGES"));
    assert_eq!(server.names("/global/machineImages"), Vec::<String>::new());

    let id = "5e5c3cf5-9f0e-4b4c-8a58-0a4f6a5b8d11";
    let insert = format!("/global/machineImages?requestId={id}");
    fault(json!({"fault": "reply-lost", "collection": "machineImages"}));
    assert_eq!(server.ask("POST", &insert, &body).0, 503);
    // Asked again under the same id, it is the operation that was begun.
    let (status, operation) = server.ask("POST", &insert, &body);
    assert_eq!(status, 200);
    assert_eq!(server.wait(&operation)["error"], Value::Null);
    assert_eq!(server.names("/global/machineImages"), ["one"]);

    let image = server.get("/global/machineImages/one");
    let labels = json!({"labels": {"a": "b"}, "labelFingerprint": image["labelFingerprint"]});
    fault(json!({"fault": "stale-fingerprint"}));
    assert_eq!(list().0, 200);
    assert_eq!(server.ask("POST", "/global/machineImages/one/setLabels", &labels).0, 412);
    server.change("POST", "/global/machineImages/one/setLabels", &labels);
    server.stop();
}

#[test]
fn operations_are_slow_and_pages_vanish_where_that_was_asked_for() {
    let datacenter = Datacenter::new();
    let server = Server::start(&datacenter, &["--faults"]);
    let fault = |script: Value| {
        assert_eq!(server.send("POST", "/faults", "", &script.to_string()).0, 204, "{script}");
    };
    let body = json!({"name": "one", "sourceInstance": "zones/hall-a/instances/web-1"});
    server.insert("one");

    // An operation is looked at three times before it is seen to have ended.
    fault(json!({"fault": "slow-operation", "times": 3}));
    let (_, operation) = server.ask("DELETE", "/global/machineImages/one", &Value::Null);
    let path = operation["selfLink"].as_str().unwrap().split_once("/projects/p1").unwrap().1;
    for _ in 0..3 {
        let (status, seen) = server.ask("POST", &format!("{path}/wait"), &Value::Null);
        assert_eq!((status, &seen["status"]), (200, &json!("RUNNING")));
    }
    assert_eq!(server.wait(&operation)["error"], Value::Null);
    fault(json!({"fault": "rate-in-operation"}));
    let ended = server.change("POST", "/global/machineImages", &body);
    assert_eq!(ended["error"]["errors"][0]["code"], "RESOURCE_OPERATION_RATE_EXCEEDED");
    fault(json!({"fault": "short-page"}));
    let page = server.get("/zones/hall-a/instances");
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    let next =
        format!("/zones/hall-a/instances?pageToken={}", page["nextPageToken"].as_str().unwrap());
    fault(json!({"fault": "vanished-page"}));
    assert_eq!(server.ask("GET", &next, &Value::Null).0, 400);
    assert!(server.get(&next)["items"].as_array().unwrap().len() > 1);
    server.stop();
}
