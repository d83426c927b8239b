//! What requests hold, by its type, looked at before anything is done: what is no text, no list or no
//! switch is refused, and never read as if it were not there.

use serde_json::{Map, Value};

use super::answer::Refusal;
use super::request::Request;

/// What a field holds. `null` is the same as nothing, but in a list.
enum Shape {
    Text,
    Switch,
    List(&'static Shape),
    /// What else it has is of no matter.
    Object(&'static [(&'static str, Shape)]),
}

use Shape::{List, Object, Switch, Text};

const TEXTS: Shape = List(&Text);
const BINDINGS: Shape = List(&Object(&[("role", Text), ("members", TEXTS)]));
const KEY: Shape = Object(&[("kmsKeyName", Text)]);

/// The fields of all bodies that are more than a plain text ([`Request::text`]). A name means the same
/// wherever it is.
const FIELDS: &[(&str, Shape)] = &[
    ("bindings", BINDINGS),
    ("disks", List(&Object(&[]))),
    ("etag", Text),
    ("guestAccelerators", List(&Object(&[("acceleratorType", Text)]))),
    ("guestFlush", Switch),
    ("imageEncryptionKey", KEY),
    ("machineImageEncryptionKey", KEY),
    ("metadata", Object(&[("items", List(&Object(&[("key", Text), ("value", Text)])))])),
    ("networkInterfaces", List(&Object(&[]))),
    ("params", Object(&[("excludedDisks", TEXTS), ("includedDisks", TEXTS)])),
    ("permissions", TEXTS),
    ("policy", Object(&[("bindings", BINDINGS), ("etag", Text)])),
    ("snapshotEncryptionKey", KEY),
    ("storageLocations", TEXTS),
    ("tags", Object(&[("items", TEXTS)])),
];

/// What of a query is on or off.
const SWITCHES: [&str; 3] = ["autoDelete", "forceCreate", "guestFlush"];

/// Refuses what is of another type than its field has.
pub fn check(request: &Request) -> Result<(), Refusal> {
    for field in SWITCHES {
        let is_one =
            |text: &str| ["true", "false"].iter().any(|one| text.eq_ignore_ascii_case(one));
        if let Some(other) = request.query(field).filter(|text| !is_one(text)) {
            return Err(Refusal::invalid(field, other, "It must be true or false."));
        }
    }
    fields(&request.body, FIELDS, "resource")
}

fn fields(body: &Map<String, Value>, known: &[(&str, Shape)], within: &str) -> Result<(), Refusal> {
    for (field, shape) in known {
        if let Some(value) = body.get(*field).filter(|value| !value.is_null()) {
            holds(value, shape, &format!("{within}.{field}"))?;
        }
    }
    Ok(())
}

fn holds(value: &Value, shape: &Shape, field: &str) -> Result<(), Refusal> {
    let wrong = |what: &str| {
        Err(Refusal::invalid(field, &value.to_string(), &format!("It must be {what}.")))
    };
    match (shape, value) {
        (Text, Value::String(_)) | (Switch, Value::Bool(_)) => Ok(()),
        (List(of), Value::Array(elements)) => elements
            .iter()
            .enumerate()
            .try_for_each(|(at, element)| holds(element, of, &format!("{field}[{at}]"))),
        (Object(known), Value::Object(object)) => fields(object, known, field),
        (Text, _) => wrong("a text"),
        (Switch, _) => wrong("true or false"),
        (List(_), _) => wrong("a list"),
        (Object(_), _) => wrong("an object"),
    }
}
