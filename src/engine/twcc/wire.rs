//! The structs of the VCS API, named and cased as it has them. Fields that are not needed are left
//! out, words of enumerations are text: the service has more of them than its document.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// A project, under its code.
#[derive(Debug, Clone, Deserialize)]
pub struct Project {
    /// Its number on this platform.
    pub id: u64,
    /// Its code: `GOV000001`.
    #[serde(default)]
    pub name: String,
}

/// What users know as their instance.
#[derive(Debug, Clone, Deserialize)]
pub struct Site {
    pub id: u64,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub status: Option<String>,
}

/// The machine in a site.
#[derive(Debug, Clone, Deserialize)]
pub struct Server {
    pub id: u64,
    /// The site that it is in.
    #[serde(default)]
    pub site: Option<u64>,
    #[serde(default)]
    pub availability_zone: Option<String>,
    #[serde(default)]
    pub flavor: Option<String>,
    /// The name of the image it was made of.
    #[serde(default)]
    pub image: Option<String>,
    #[serde(default)]
    pub os: Option<String>,
    #[serde(default)]
    pub os_version: Option<String>,
}

/// A disk.
#[derive(Debug, Clone, Deserialize)]
pub struct Volume {
    pub id: u64,
    #[serde(default)]
    pub name: String,
    /// Gigabytes.
    #[serde(default)]
    pub size: Option<u64>,
    #[serde(default)]
    pub is_bootable: bool,
    #[serde(default)]
    pub is_attached: bool,
    /// The server that it is attached to.
    #[serde(default, deserialize_with = "reference")]
    pub attached_host: Option<u64>,
    /// Its names in the server: `/dev/vdb`.
    #[serde(default, deserialize_with = "texts")]
    pub mountpoint: Vec<String>,
}

/// The number of something that is named in something else: by itself or as `{"id": …}`, as a
/// number or as text. Anything else is none.
fn reference<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let number = |value: &Value| match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let value = Value::deserialize(deserializer)?;
    Ok(number(value.get("id").unwrap_or(&value)))
}

/// One text or several; anything else is none.
fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(one) => vec![one],
        Value::Array(all) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    })
}

/// An image, as lists have it and, with more, when it is asked for by itself.
#[derive(Debug, Clone, Deserialize)]
pub struct Image {
    pub id: u64,
    #[serde(default)]
    pub name: String,
    /// It may be empty, but where it is missing nobody knows whose the image is.
    #[serde(deserialize_with = "Option::deserialize")]
    pub desc: Option<String>,
    #[serde(default)]
    pub status: Option<String>,
    #[serde(default)]
    pub status_reason: Option<String>,
    pub create_time: String,
    /// Bytes.
    #[serde(default)]
    pub size: Option<u64>,
    #[serde(default)]
    pub is_public: bool,
    #[serde(default)]
    pub is_deleted: bool,
    #[serde(default, deserialize_with = "reference")]
    pub server: Option<u64>,
    /// The number of its project.
    #[serde(default, deserialize_with = "reference")]
    pub project: Option<u64>,
}

/// A snapshot of a volume.
#[derive(Debug, Clone, Deserialize)]
pub struct Snapshot {
    pub id: u64,
    #[serde(default)]
    pub name: String,
    /// It may be empty, but where it is missing nobody knows whose the image is.
    #[serde(deserialize_with = "Option::deserialize")]
    pub desc: Option<String>,
    #[serde(default)]
    pub status: Option<String>,
    #[serde(default)]
    pub status_reason: Option<String>,
    pub create_time: String,
    #[serde(default, deserialize_with = "reference")]
    pub volume: Option<u64>,
    /// The number of its project.
    #[serde(default, deserialize_with = "reference")]
    pub project: Option<u64>,
}

/// What is asked for to make an image of a server. `os` and `os_version` must be there, whatever
/// the document says.
#[derive(Debug, Serialize)]
pub struct SaveRequest<'a> {
    pub name: &'a str,
    pub desc: &'a str,
    pub os: &'a str,
    pub os_version: &'a str,
}

/// What is asked for to make a snapshot of a volume.
#[derive(Debug, Serialize)]
pub struct SnapshotRequest<'a> {
    pub name: &'a str,
    pub desc: &'a str,
    pub volume: u64,
}

/// The only thing of an image that can be changed.
#[derive(Debug, Serialize)]
pub struct PatchRequest<'a> {
    pub desc: &'a str,
}

/// What is said of something that was begun.
#[derive(Debug, Clone, Deserialize)]
pub struct Begun {
    pub id: u64,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The API as its document has it.
    fn api() -> Value {
        let text =
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/twcc/vcs.schema.json"));
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn requests_are_those_of_the_api() {
        let save = SaveRequest { name: "n", desc: "d", os: "Linux", os_version: "Ubuntu 22.04" };
        let snapshot = SnapshotRequest { name: "n", desc: "d", volume: 7 };
        let patch = PatchRequest { desc: "d" };
        let api = api();
        for (method, path, body) in [
            ("PUT", "/images/{server_id}/save/", json!(save)),
            ("POST", "/snapshots/", json!(snapshot)),
            ("PATCH", "/images/{image_id}/", json!(patch)),
        ] {
            let methods = api["methods"].as_array().unwrap();
            let is_it = |one: &&Value| one["method"] == method && one["path"] == path;
            let schema = &methods.iter().find(is_it).unwrap()["request"];
            let validator = jsonschema::validator_for(schema).unwrap();
            assert!(validator.is_valid(&body), "{method} {path}: {body}");
            assert!(!validator.is_valid(&json!({"labels": {}})), "{method} {path}");
        }
    }

    #[test]
    fn what_is_named_in_something_else_is_read_in_all_its_forms() {
        for (host, number) in [
            (json!({"id": 7, "hostname": "web01"}), Some(7)),
            (json!({"id": "7"}), Some(7)),
            (json!(7), Some(7)),
            (json!("7"), Some(7)),
            (json!({"id": null}), None),
            (json!({}), None),
            (json!(null), None),
            (json!([{"id": 7}]), None),
            (json!("web01"), None),
        ] {
            let volume = json!({"id": 9, "attached_host": host});
            let read: Volume = serde_json::from_value(volume).unwrap();
            assert_eq!(read.attached_host, number, "{host}");
        }
    }

    #[test]
    fn a_volume_has_one_name_in_its_server_or_several() {
        for (names, read) in [
            (json!(["/dev/vda"]), vec!["/dev/vda"]),
            (json!("/dev/vda"), vec!["/dev/vda"]),
            (json!([]), vec![]),
            (json!(null), vec![]),
        ] {
            let volume: Volume =
                serde_json::from_value(json!({"id": 9, "mountpoint": names})).unwrap();
            assert_eq!(volume.mountpoint, read, "{names}");
        }
    }
}
