//! Labels and their fingerprints.

use std::collections::BTreeMap;

use data_encoding::BASE64URL;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::answer::Refusal;
use super::request::Request;

/// The most labels something may have.
const LABELS_MAX: usize = 64;
/// The longest key or value, in characters and in bytes.
const LENGTH_MAX: (usize, usize) = (63, 128);

/// Labels.
pub type Labels = BTreeMap<String, String>;

/// Changes with every change of the labels.
pub fn fingerprint(labels: &Labels) -> String {
    let mut hash = Sha256::new();
    for (key, value) in labels {
        hash.update(format!("{key}={value}\n"));
    }
    BASE64URL.encode(&hash.finalize()[..8])
}

/// Whether a client sends back a fingerprint that it was given. Clients read it as bytes, and write
/// those in either alphabet of base64.
pub fn is_same(sent: &str, given: &str) -> bool {
    let plain = |text: &str| text.replace('+', "-").replace('/', "_");
    plain(sent) == plain(given)
}

/// Reads the labels of a body; none where it has none.
pub fn read(body: &Map<String, Value>) -> Result<Labels, Refusal> {
    let labels = match body.get("labels") {
        None | Some(Value::Null) => return Ok(Labels::new()),
        Some(Value::Object(labels)) => labels,
        Some(other) => {
            let why = "It must be an object.";
            return Err(Refusal::invalid("resource.labels", &other.to_string(), why));
        }
    };
    if labels.len() > LABELS_MAX {
        let why = format!("There are at most {LABELS_MAX} labels.");
        return Err(Refusal::invalid("resource.labels", &labels.len().to_string(), &why));
    }
    let mut read = Labels::new();
    for (key, value) in labels {
        let field = format!("resource.labels.{key}");
        let Some(value) = value.as_str() else {
            return Err(Refusal::invalid(&field, &value.to_string(), "It must be a text."));
        };
        let begins_well =
            key.chars().next().is_some_and(|first| first.is_alphabetic() && !first.is_uppercase());
        if !begins_well || !is_well_formed(key) {
            let why = "A key is 1 to 63 of lower-case letters, digits, `_` and `-`, and begins with a letter.";
            return Err(Refusal::invalid("resource.labels", key, why));
        }
        if !is_well_formed(value) {
            let why = "A value is at most 63 of lower-case letters, digits, `_` and `-`.";
            return Err(Refusal::invalid(&field, value, why));
        }
        read.insert(key.clone(), value.to_owned());
    }
    Ok(read)
}

fn is_well_formed(text: &str) -> bool {
    text.chars().count() <= LENGTH_MAX.0
        && text.len() <= LENGTH_MAX.1
        && text.chars().all(|c| (c.is_alphanumeric() && !c.is_uppercase()) || c == '_' || c == '-')
}

/// The labels that a request sets, if it was made over those that are there.
pub fn replace(request: &Request, current: &Labels) -> Result<Labels, Refusal> {
    let labels = read(&request.body)?;
    match request.text("labelFingerprint")? {
        Some(made_over) if is_same(made_over, &fingerprint(current)) => Ok(labels),
        _ => Err(Refusal::stale_labels()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_hold_to_the_rules() {
        let read = |labels: Value| read(json!({"labels": labels}).as_object().unwrap());
        assert_eq!(read(json!(null)).unwrap(), Labels::new());
        assert!(read(json!({"env": "", "größe": "2-m_x"})).is_ok());
        for wrong in [
            json!({"Env": "a"}),
            json!({"1a": "a"}),
            json!({"": "a"}),
            json!({"a": "B"}),
            json!({"a": "x.y"}),
            json!({"a": "x".repeat(64)}),
            json!({"a": 1}),
            json!([]),
        ] {
            assert_eq!(read(wrong.clone()).unwrap_err().status, 400, "{wrong}");
        }
        let many: Map<String, Value> =
            (0..65).map(|number| (format!("k{number}"), json!("v"))).collect();
        assert!(read(Value::Object(many)).is_err());
    }

    #[test]
    fn a_fingerprint_is_that_of_its_labels() {
        let one = Labels::from([("a".to_owned(), "b".to_owned())]);
        assert_eq!(fingerprint(&one), fingerprint(&one.clone()));
        assert_ne!(fingerprint(&one), fingerprint(&Labels::new()));
        assert!(BASE64URL.decode(fingerprint(&one).as_bytes()).is_ok());
        assert!(is_same("d+fOd8/HqBQ=", "d-fOd8_HqBQ=") && !is_same("d+fO", "d-fP"));
    }
}
