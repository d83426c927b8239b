//! What people have described beside their instances, and what a data centre has nothing of.

use std::fs;

use serde_json::{Value, json};

use super::super::support::Datacenter;
use super::Server;

const FILE: &str = "examples/datacenter/compute-engine/web.yaml";

#[test]
fn templates_and_resource_policies_are_listed_as_they_are_described() {
    let datacenter = Datacenter::new();
    let server = Server::start(&datacenter, &[]);
    assert_eq!(server.names("/global/instanceTemplates"), ["web"]);
    let template = server.get("/global/instanceTemplates/web");
    let properties = &template["properties"];
    assert_eq!(properties["machineType"], "standard-2");
    assert_eq!(
        properties["disks"][0]["initializeParams"]["sourceImage"],
        "https://www.googleapis.com/compute/v1/projects/p1/global/images/family/golden"
    );
    assert!(template["creationTimestamp"].is_string() && template["region"].is_null());
    let number = template["id"].as_str().unwrap();
    assert!(number.parse::<u64>().is_ok());
    assert_eq!(server.get(&format!("/global/instanceTemplates/{number}")), template);
    let all = server.get("/aggregated/instanceTemplates");
    assert_eq!(all["items"]["global"]["instanceTemplates"], json!([template]));
    assert_eq!(server.names("/global/instanceTemplates?filter=name%3Dother"), [""; 0]);

    assert_eq!(server.names("/regions/hall/resourcePolicies"), ["nightly"]);
    let policy = server.get("/regions/hall/resourcePolicies/nightly");
    assert_eq!(policy["snapshotSchedulePolicy"]["retentionPolicy"]["maxRetentionDays"], 14);
    assert_eq!(policy["status"], "READY");
    assert!(
        policy["selfLink"].as_str().unwrap().ends_with("/regions/hall/resourcePolicies/nightly")
    );
    let all = server.get("/aggregated/resourcePolicies");
    assert_eq!(all["items"]["regions/hall"]["resourcePolicies"], json!([policy]));
    for (path, status) in [
        ("/global/instanceTemplates/other", 404),
        ("/regions/hall/instanceTemplates/web", 404),
        ("/regions/hall/resourcePolicies/web", 404),
    ] {
        assert_eq!(server.ask("GET", path, &Value::Null).0, status, "{path}");
    }
    let body = json!({"name": "made", "properties": {}});
    assert_eq!(server.ask("POST", "/global/instanceTemplates", &body).0, 501);

    // They are files, and outlive the server.
    server.stop();
    let server = Server::start(&datacenter, &[]);
    assert_eq!(server.get("/global/instanceTemplates/web"), template);
    assert_eq!(server.get("/regions/hall/resourcePolicies/nightly"), policy);
    // What is written while it runs is there, in a region as well.
    let text = fs::read_to_string(datacenter.path(FILE)).unwrap();
    let regional = text.split("---").next().unwrap().replace("spec:", "spec:\n  region: hall");
    fs::write(datacenter.path(&FILE.replace("web", "regional")), regional).unwrap();
    assert_eq!(server.names("/regions/hall/instanceTemplates"), ["web"]);
    let all = server.get("/aggregated/instanceTemplates");
    assert_eq!(all["items"]["regions/hall"]["instanceTemplates"].as_array().unwrap().len(), 1);
    // One that cannot be read hides them all: nothing would need what it names.
    datacenter.edit(FILE, |text| text.replace("properties:", "propertys:"));
    let (status, unseen) = server.ask("GET", "/aggregated/instanceTemplates", &Value::Null);
    assert_eq!(status, 503);
    let message = unseen["error"]["message"].as_str().unwrap();
    assert!(message.contains("web.yaml") && message.contains("propertys"), "{message}");
    server.stop();
}

#[test]
fn a_data_centre_without_descriptions_has_none() {
    let datacenter = Datacenter::new();
    fs::remove_dir_all(datacenter.path("examples/datacenter/compute-engine")).unwrap();
    let server = Server::start(&datacenter, &[]);
    for what in ["instanceTemplates", "resourcePolicies"] {
        let all = server.get(&format!("/aggregated/{what}"));
        assert_eq!(all["items"]["global"]["warning"]["code"], "NO_RESULTS_ON_PAGE", "{all}");
        assert_eq!(server.names(&format!("/regions/hall/{what}")), [""; 0]);
    }
    server.stop();
}

#[test]
fn there_are_no_disks_of_a_region() {
    let datacenter = Datacenter::new();
    let server = Server::start(&datacenter, &[]);
    assert_eq!(server.names("/regions/hall/disks"), [""; 0]);
    assert_eq!(server.get("/regions/hall/disks")["kind"], "compute#diskList");
    for (method, path) in [
        ("GET", "/regions/hall/disks/web-1-boot"),
        ("POST", "/regions/hall/disks/web-1-boot/createSnapshot"),
        ("GET", "/regions/hall/operations/operation-1"),
        ("POST", "/regions/hall/operations/operation-1/wait"),
    ] {
        let body = if path.ends_with("Snapshot") { json!({"name": "s"}) } else { Value::Null };
        assert_eq!(server.ask(method, path, &body).0, 404, "{method} {path}");
    }
    assert_eq!(server.names("/regions/hall/operations"), [""; 0]);
    server.stop();
}
