//! The VCS API of TWCC: every answer is held against what its own document says of the method.

use std::fs;
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::super::support::{Datacenter, project};
use super::Server;

const PLATFORM: &str = "openstack-taichung-default-2";
const KEY: &str = "00000000-0000-4000-8000-000000000000";

static API: LazyLock<Value> = LazyLock::new(|| {
    let file = project().join("tests/data/twcc/vcs.schema.json");
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
});

/// Holds an answer against the method that it answers.
fn check(verb: &str, path: &str, status: u16, answer: &Value) {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let parts: Vec<&str> = path.split('/').collect();
    let is_it = |method: &&Value| {
        let template: Vec<&str> = method["path"].as_str().unwrap().split('/').collect();
        method["method"] == verb
            && template.len() == parts.len()
            && template.iter().zip(&parts).all(|(one, part)| one.starts_with('{') || one == part)
    };
    let methods = API["methods"].as_array().unwrap().iter();
    let Some(method) = methods.clone().find(is_it) else {
        panic!("the API has no method {verb} {path}")
    };
    for name in query.split('&').filter(|pair| !pair.is_empty()) {
        let name = name.split('=').next().unwrap();
        let known = method["query"].as_array().unwrap();
        assert!(known.contains(&json!(name)), "{verb} {path} has no parameter {name}");
    }
    assert_eq!(method["status"], status, "{verb} {path}");
    if method["response"].is_null() {
        assert!(answer.is_null(), "{verb} {path} answers nothing: {answer}");
        return;
    }
    let schema = json!({"$defs": API["$defs"], "allOf": [method["response"]]});
    let validator = jsonschema::validator_for(&schema).unwrap();
    let wrong: Vec<String> = validator
        .iter_errors(answer)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(wrong.is_empty(), "{verb} {path}\n{}\n{answer:#}", wrong.join("\n"));
}

struct Vcs(Server);

impl Vcs {
    fn start(datacenter: &Datacenter, more: &[&str]) -> Self {
        Self(Server::of(["twcc", "GOV000001"], datacenter, more))
    }

    fn ask(&self, verb: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let headers = format!("x-api-key: {KEY}\r\nx-api-host: {PLATFORM}\r\n");
        let (status, body) =
            self.0.send(verb, &format!("/api/v3/{PLATFORM}{path}"), &headers, &body);
        let answer = serde_json::from_str(&body).unwrap_or_default();
        if status < 300 {
            check(verb, path, status, &answer);
        }
        (status, answer)
    }

    fn get(&self, path: &str) -> Value {
        let (status, answer) = self.ask("GET", path, &Value::Null);
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    /// Looks until something is what it is to become.
    fn until(&self, path: &str, is_it: impl Fn(u16, &Value) -> bool) -> Value {
        loop {
            let (status, answer) = self.ask("GET", path, &Value::Null);
            if is_it(status, &answer) {
                return answer;
            }
            std::thread::yield_now();
        }
    }
}

fn server_of(vcs: &Vcs, name: &str) -> Value {
    let servers = vcs.get("/servers/?project=101");
    servers.as_array().unwrap().iter().find(|one| one["hostname"] == name).unwrap().clone()
}

fn save(name: &str) -> Value {
    json!({"name": name, "desc": "by hand", "os": "Linux", "os_version": "Ubuntu 22.04"})
}

#[test]
fn what_there_is_is_shown_as_the_document_says() {
    let datacenter = Datacenter::new();
    let vcs = Vcs::start(&datacenter, &[]);
    assert_eq!(vcs.get("/projects/?name=GOV000001")[0]["id"], 101);
    assert_eq!(vcs.get("/projects/?name=OTHER"), json!([]));
    let sites = vcs.get("/sites/?project=101&all_users=1");
    assert!(sites.as_array().unwrap().len() > 3);
    let stopped = sites.as_array().unwrap().iter().find(|site| site["name"] == "bastion-1");
    assert_eq!(stopped.unwrap()["status"], "NotReady");
    let server = server_of(&vcs, "db-1");
    assert_eq!(server["site"], 4201, "an id that is a number stays");
    let site = vcs.get("/sites/4201/");
    assert_eq!((&site["name"], &site["status"]), (&json!("db-1"), &json!("Ready")));
    assert_eq!(site["servers"][0]["id"], server["id"]);
    assert_eq!(vcs.get("/servers/?project=101&site=4201"), json!([server]));
    let volumes = vcs.get(&format!("/volumes/?project=101&attached_host={}", server["id"]));
    let names: Vec<&Value> =
        volumes.as_array().unwrap().iter().map(|volume| &volume["name"]).collect();
    assert_eq!(names, ["boot", "data"]);
    assert_eq!(vcs.get(&format!("/volumes/{}/", volumes[1]["id"])), volumes[1]);
    vcs.get("/project_quotas/?project=101");
    vcs.get("/projects/101/solutions/11/");
    for path in ["/sites/1/", "/servers/1/", "/volumes/1/", "/images/1/", "/snapshots/1/"] {
        let (status, answer) = vcs.ask("GET", path, &Value::Null);
        assert_eq!(status, 404, "{path}");
        assert!(answer["detail"].is_string(), "{answer}");
    }
    let (status, _) = vcs.ask("GET", "/images/?project=102", &Value::Null);
    assert_eq!(status, 403);
    // The gateway leads elsewhere where a path is none.
    for (path, status) in [("/images", 301), ("/nothing/", 302), ("/sites/1/2/", 302)] {
        assert_eq!(vcs.ask("GET", path, &Value::Null).0, status, "{path}");
    }
}

#[test]
fn an_image_is_made_changed_and_deleted() {
    let datacenter = Datacenter::new();
    let vcs = Vcs::start(&datacenter, &[]);
    let server = server_of(&vcs, "web-1")["id"].clone();
    let path = format!("/images/{server}/save/");
    for (body, field) in [
        (json!({"name": "n", "os_version": "1"}), "os"),
        (json!({"name": "n", "os": "Linux"}), "os_version"),
        (json!({"os": "Linux", "os_version": "1"}), "name"),
        (json!({"name": "n", "os": "L", "os_version": "1", "desc": "x".repeat(201)}), "desc"),
    ] {
        let (status, answer) = vcs.ask("PUT", &path, &body);
        assert_eq!(status, 400);
        assert!(answer[field][0].is_string(), "{answer}");
    }
    let (status, made) = vcs.ask("PUT", &path, &save("twice"));
    assert_eq!(status, 201);
    // A name may be there twice.
    let (_, other) = vcs.ask("PUT", &path, &save("twice"));
    assert_ne!(made["id"], other["id"]);
    let one = format!("/images/{}/", made["id"]);
    let image = vcs.until(&one, |_, image| image["status"] == "ACTIVE");
    assert_eq!(image["desc"], "by hand");
    assert!(image["size"].as_u64().unwrap() > 0);
    let (status, changed) = vcs.ask("PATCH", &one, &json!({"desc": "new"}));
    assert_eq!((status, &changed["desc"]), (200, &json!("new")));
    assert_eq!(vcs.ask("PATCH", &one, &json!({"desc": "x".repeat(201)})).0, 400);
    // What a change does not name stays.
    let (status, same) = vcs.ask("PATCH", &one, &json!({}));
    assert_eq!((status, &same["desc"]), (200, &json!("new")));
    let found = vcs.get("/images/?project=101&desc=new");
    assert_eq!(found.as_array().unwrap().len(), 1);
    // A restart keeps all of it, and no number is given out twice.
    vcs.until(&format!("/images/{}/", other["id"]), |_, image| image["status"] == "ACTIVE");
    vcs.0.stop();
    let vcs = Vcs::start(&datacenter, &[]);
    assert_eq!(vcs.get(&one)["desc"], "new");
    for image in [&made, &other] {
        let path = format!("/images/{}/", image["id"]);
        assert_eq!(vcs.ask("DELETE", &path, &Value::Null).0, 204);
        vcs.until(&path, |status, _| status == 404);
    }
    assert_eq!(vcs.get("/images/?project=101"), json!([]));
    vcs.0.stop();
    let vcs = Vcs::start(&datacenter, &[]);
    let (_, next) = vcs.ask("PUT", &path, &save("next"));
    assert!(next["id"].as_u64() > other["id"].as_u64());
}

#[test]
fn a_data_volume_has_snapshots_and_a_system_disk_has_none() {
    let datacenter = Datacenter::new();
    let vcs = Vcs::start(&datacenter, &[]);
    let server = server_of(&vcs, "db-1")["id"].clone();
    let volumes = vcs.get(&format!("/volumes/?project=101&attached_host={server}"));
    let of = |volume: &Value| json!({"name": "s", "desc": "d", "volume": volume["id"]});
    assert_eq!(vcs.ask("POST", "/snapshots/", &of(&volumes[0])).0, 400);
    assert_eq!(vcs.ask("POST", "/snapshots/", &json!({"name": "s"})).0, 400);
    let (status, made) = vcs.ask("POST", "/snapshots/", &of(&volumes[1]));
    assert_eq!(status, 200);
    let one = format!("/snapshots/{}/", made["id"]);
    let snapshot = vcs.until(&one, |_, snapshot| snapshot["status"] == "AVAILABLE");
    assert_eq!(snapshot["volume"]["name"], "data");
    // What it says of itself never changes.
    assert_eq!(vcs.ask("PATCH", &one, &json!({"desc": "new"})).0, 302);
    assert_eq!(vcs.get("/snapshots/?project=101&status=AVAILABLE").as_array().unwrap().len(), 1);
    assert_eq!(vcs.ask("DELETE", &one, &Value::Null).0, 204);
    vcs.until(&one, |status, _| status == 404);
}

#[test]
fn the_key_is_the_token_where_there_is_one() {
    let datacenter = Datacenter::new();
    fs::write(datacenter.path("token"), format!("{KEY}\n")).unwrap();
    let vcs = Vcs::start(&datacenter, &["--token-file", "token"]);
    vcs.get("/sites/?project=101");
    let path = format!("/api/v3/{PLATFORM}/sites/");
    for headers in ["", "x-api-key: 11111111-0000-4000-8000-000000000000\r\n"] {
        let (status, answer) = vcs.0.send("GET", &path, headers, "");
        assert_eq!(status, 401);
        assert!(answer.contains("unauthorized"), "{answer}");
    }
}
