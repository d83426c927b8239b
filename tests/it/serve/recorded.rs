//! What machine images record of their instances: all that the reference has, field by field.

use std::fs;

use serde_json::{Map, Value, json};

use super::super::conform::definition;
use super::super::support::Datacenter;
use super::Server;

/// What the server says by itself; files have no place for it.
const TOLD: [&str; 14] = [
    "disks/diskSizeGb",
    "disks/index",
    "disks/kind",
    "disks/source",
    "disks/storageBytes",
    "disks/storageBytesStatus",
    "disks/type",
    "metadata/fingerprint",
    "metadata/kind",
    "networkInterfaces/accessConfigs/kind",
    "networkInterfaces/fingerprint",
    "networkInterfaces/ipv6AccessConfigs/kind",
    "networkInterfaces/kind",
    "tags/fingerprint",
];
/// What opens a disk: requests have it, answers never do, and no image records it.
const SECRET: [&str; 2] =
    ["disks/diskEncryptionKey/rawKey", "disks/diskEncryptionKey/rsaEncryptedKey"];

fn is_told(path: &str) -> bool {
    TOLD.contains(&path)
}

/// The fields of a schema, those of what it refers to among them, each with a value that it may have.
fn leaves(schema: &Value, path: &str, found: &mut Vec<(String, Value)>) {
    if let Some(name) = schema["$ref"].as_str() {
        return leaves(definition(name.strip_prefix("#/$defs/").unwrap()), path, found);
    }
    let last = path.rsplit('/').next().unwrap_or_default().to_lowercase();
    let value = match schema["type"].as_str().unwrap() {
        "object" if schema["properties"].is_object() => {
            for (name, field) in schema["properties"].as_object().unwrap() {
                leaves(field, format!("{path}/{name}").trim_start_matches('/'), found);
            }
            return;
        }
        "object" => json!({"one": "two"}),
        "array" if schema["items"]["type"] == "string" => json!([format!("{last}-1")]),
        "array" => return leaves(&schema["items"], path, found),
        "string" => match (schema["enum"].get(0), schema["pattern"].as_str()) {
            (Some(word), _) => word.clone(),
            (None, Some("^[0-9]+$")) => json!("3600"),
            (None, _) => json!(format!("{last}-1")),
        },
        "integer" => json!(2),
        "boolean" => json!(true),
        other => panic!("{path}: nobody knows a value for {other}"),
    };
    found.push((path.to_owned(), value));
}

/// The fields of `sourceInstanceProperties`.
fn fields() -> Vec<(String, Value)> {
    let mut found = Vec::new();
    leaves(definition("SourceInstanceProperties"), "", &mut found);
    found
}

/// Puts a value at a path; a list has one entry.
fn put(whole: &mut Map<String, Value>, schema: &Value, path: &str, value: Value) {
    let schema = match schema["$ref"].as_str() {
        Some(name) => definition(name.strip_prefix("#/$defs/").unwrap()),
        None => schema,
    };
    let Some((first, rest)) = path.split_once('/') else {
        whole.insert(path.to_owned(), value);
        return;
    };
    let field = &schema["properties"][first];
    let is_list = field["type"] == "array";
    let empty = if is_list { json!([{}]) } else { json!({}) };
    let entry = whole.entry(first).or_insert(empty);
    let entry = if is_list { &mut entry[0] } else { entry };
    let below = if is_list { &field["items"] } else { field };
    put(entry.as_object_mut().unwrap(), below, rest, value);
}

/// What is at a path, in the first entry of each list on the way.
fn at<'a>(whole: &'a Value, path: &str) -> &'a Value {
    path.split('/').fold(whole, |value, name| {
        let value = if value.is_array() { &value[0] } else { value };
        &value[name]
    })
}

/// Whether a value came back; a name may have become a link.
fn is_same(given: &Value, meant: &Value) -> bool {
    let is_link = match (given.as_str(), meant.as_str()) {
        (Some(given), Some(meant)) => {
            given.starts_with("https://") && given.ends_with(&format!("/{meant}"))
        }
        _ => false,
    };
    given == meant || is_link
}

/// All that can be described, as the API has it.
fn described() -> Map<String, Value> {
    let mut whole = Map::new();
    for (path, value) in fields() {
        if !is_told(&path) && !SECRET.contains(&path.as_str()) {
            put(&mut whole, definition("SourceInstanceProperties"), &path, value);
        }
    }
    whole
}

/// The same as an instance file has it.
fn instance_file() -> Value {
    let mut spec = described();
    let labels = spec.remove("labels").unwrap();
    let item = spec["metadata"]["items"][0].clone();
    spec.insert("metadata".to_owned(), json!({item["key"].as_str().unwrap(): item["value"]}));
    let tags = spec["tags"]["items"].clone();
    spec.insert("tags".to_owned(), tags);
    spec.insert("zone".to_owned(), json!("hall-b"));
    let disk = &mut spec["disks"][0];
    disk["path"] = json!("../disks/whole.raw");
    disk["guestOsFeatures"] = json!([disk["guestOsFeatures"][0]["type"]]);
    json!({
        "apiVersion": "stillframe/v1",
        "kind": "Instance",
        "metadata": {"name": "whole", "labels": labels},
        "spec": spec,
    })
}

#[test]
fn every_field_of_the_reference_can_be_described_and_comes_back() {
    let datacenter = Datacenter::new();
    let path = |path: &str| datacenter.path(&format!("examples/datacenter/{path}"));
    let bytes: Vec<u8> =
        (0..1_u32 << 18).flat_map(|word| word.wrapping_mul(0x9E37_79B1).to_le_bytes()).collect();
    fs::write(path("disks/whole.raw"), bytes).unwrap();
    let file = instance_file();
    fs::write(path("instances/whole.yaml"), serde_json::to_string_pretty(&file).unwrap()).unwrap();
    let server = Server::start(&datacenter, &[]);
    let body = json!({"name": "image", "sourceInstance": "zones/hall-b/instances/whole"});
    let ended = server.change("POST", "/global/machineImages", &body);
    assert_eq!(ended["error"], Value::Null, "{ended}");
    let image = server.get("/global/machineImages/image");
    let source = &image["sourceInstanceProperties"];
    let all = fields();
    assert!(all.len() > 90, "{}", all.len());
    for (path, meant) in &all {
        let given = at(source, path);
        let is_well = match path {
            path if SECRET.contains(&path.as_str()) => given.is_null(),
            path if is_told(path) => !given.is_null(),
            _ => is_same(given, meant),
        };
        assert!(is_well, "{path}: {given}, not {meant}: {source:#}");
    }
    assert_ne!(at(source, "disks/storageBytes"), "0");
    assert_eq!(at(source, "disks/storageBytes"), at(&image, "savedDisks/storageBytes"));
    server.stop();

    // Of an image that another program has made, the image itself says the same.
    fs::remove_dir_all(datacenter.path(".stillframe/store/serve/gce/images")).unwrap();
    let server = Server::start(&datacenter, &[]);
    assert_eq!(server.get("/global/machineImages/image")["sourceInstanceProperties"], *source);
    server.stop();
}

#[test]
fn every_field_of_the_reference_may_be_asked_for_otherwise() {
    let datacenter = Datacenter::new();
    let server = Server::start(&datacenter, &[]);
    server.insert("golden");
    let mut body = described();
    // Disks are those of the image, and what only records have cannot be asked for.
    for field in ["disks", "postKeyRevocationActionType"] {
        body.remove(field).unwrap();
    }
    for (name, given_up) in [("one", [].as_slice()), ("two", &["networkIP", "ipv6Address"])] {
        body.insert("name".to_owned(), json!(name));
        body.insert("sourceMachineImage".to_owned(), json!("global/machineImages/golden"));
        let ended = server.change("POST", "/zones/hall-b/instances", &json!(body));
        assert_eq!(ended["error"], Value::Null, "{ended}");
        // Two cannot have one address.
        let warnings = ended["warnings"].as_array().map_or(0, Vec::len);
        assert_eq!(warnings, given_up.len(), "{ended}");
        let made = server.get(&format!("/zones/hall-b/instances/{name}"));
        for (path, meant) in fields() {
            let first = path.split('/').next().unwrap();
            if !body.contains_key(first) || is_told(&path) {
                continue;
            }
            let given = at(&made, &path);
            let is_given_up =
                given_up.iter().any(|field| path == format!("networkInterfaces/{field}"));
            let is_well = if is_given_up { given.is_null() } else { is_same(given, &meant) };
            assert!(is_well, "{path}: {given}, not {meant}: {made:#}");
        }
    }
    server.stop();
}
