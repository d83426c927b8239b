//! Requests under an id of the client's: the same one is carried out once, another one is refused.

use serde_json::{Value, json};

use super::super::support::Datacenter;
use super::Server;

/// Asks for a change and waits for it.
fn begin(server: &Server, path: &str, body: &Value) -> String {
    let (status, operation) = server.ask("POST", path, body);
    assert_eq!(status, 200, "{path}: {operation}");
    assert_eq!(server.wait(&operation)["error"], Value::Null, "{path}");
    operation["name"].as_str().unwrap().to_owned()
}

/// The request is taken for another one than its id stands for.
fn is_refused(server: &Server, path: &str, body: &Value) {
    let (status, refused) = server.ask("POST", path, body);
    let message = refused["error"]["message"].as_str().unwrap_or_default();
    assert!(status == 400 && message.contains("another request"), "{path}: {status} {refused}");
}

#[test]
fn what_is_asked_for_beside_the_body_makes_another_request() {
    let datacenter = Datacenter::new();
    let server = Server::start(&datacenter, &[]);
    server.insert("mm-1");
    server.insert("mm-2");
    let new = |image: &str, id: &str| {
        format!(
            "/zones/hall-b/instances?sourceMachineImage=global/machineImages/{image}&requestId={id}"
        )
    };
    let body = json!({"name": "web-9"});
    let id = "3f7f2c4c-7f9b-4f6e-9c53-0c1c5f0d9b7a";
    let name = begin(&server, &new("mm-1", id), &body);
    // A UUID is the same in either case, and how an answer is to look is of no matter.
    for path in [
        new("mm-1", id),
        new("mm-1", &id.to_uppercase()),
        format!("{}&%24alt=json&prettyPrint=false", new("mm-1", id)),
    ] {
        assert_eq!(server.ask("POST", &path, &body).1["name"], json!(name), "{path}");
    }
    is_refused(&server, &new("mm-2", id), &body);
    is_refused(&server, &new("mm-2", &id.to_uppercase()), &body);

    let instance = "/zones/hall-b/instances/web-9/setDiskAutoDelete";
    let disk = "/zones/hall-b/disks/web-9-boot/createSnapshot";
    let image = json!({"name": "base", "sourceDisk": "zones/hall-b/disks/web-9-boot"});
    for (number, first, same, others, body) in [
        (
            1,
            format!("{instance}?deviceName=boot&autoDelete=true"),
            "?autoDelete=True&deviceName=boot",
            ["?deviceName=boot&autoDelete=false", "?deviceName=content&autoDelete=true"],
            Value::Null,
        ),
        (
            2,
            format!("{disk}?guestFlush=false"),
            "",
            ["?guestFlush=true", "?guestFlush=True"],
            json!({"name": "snap"}),
        ),
        (
            3,
            "/global/images?forceCreate=true".to_owned(),
            "?forceCreate=TRUE",
            ["", "?forceCreate=false"],
            image,
        ),
    ] {
        let id = format!("requestId=3f7f2c4c-7f9b-4f6e-9c53-0c1c5f0d9b0{number}");
        let path = first.split('?').next().unwrap();
        let under = |query: &str| {
            let query = query.trim_start_matches('?');
            if query.is_empty() { format!("{path}?{id}") } else { format!("{path}?{query}&{id}") }
        };
        let name = begin(&server, &format!("{first}&{id}"), &body);
        assert_eq!(server.ask("POST", &under(same), &body).1["name"], json!(name), "{path}{same}");
        for other in others {
            is_refused(&server, &under(other), &body);
        }
    }
    server.stop();
}
