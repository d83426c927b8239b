//! Policies: text in, meaning out, every mistake found at once.
//!
//! [`load`] reads the files of a policy directory (their text; it never opens one), checks them
//! against the JSON Schemas and then for meaning, and returns either [`Policies`] that can be
//! planned with or the findings that say why not. A mistake in one place never hides another.
//!
//! What an engine of some kind can be told and can do comes from outside as [`EngineKind`]s: this
//! room knows no engine.

mod effective;
pub mod finding;
pub mod format;
pub mod lint;
mod load;
mod meaning;
pub mod meant;
pub mod naming;
pub mod schema;
pub mod select;
pub mod sizes;
pub mod written;
pub mod yaml;

use serde_json::{Value, json};

pub use finding::{Code, Finding, Severity, SourceFile};
pub use load::{Loaded, Reading, given_endpoint, includes, load, load_with};
pub use meant::{Config, Guards, Policies, Policy, Risk};

use crate::inventory::Capabilities;

/// What must be known of a kind of engine to read a configuration.
#[derive(Debug, Clone)]
pub struct EngineKind {
    /// Its name: `local`, …
    pub name: &'static str,
    /// The JSON Schema of its settings.
    pub settings_schema: Value,
    /// What it can do with given settings, which hold to the schema.
    pub capabilities: fn(&Value) -> Capabilities,
    /// Everything that is wrong with settings that hold to the schema: what an engine is not opened
    /// with. Nothing but the settings is looked at.
    pub check: fn(&Value) -> Vec<BadSetting>,
}

/// Something that is wrong with settings that hold to the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadSetting {
    /// What it is about, as JSON pointers into the settings. It stands at the first one, or where that
    /// would be written. No two things that are wrong at once are about the same.
    pub about: Vec<String>,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl BadSetting {
    /// What is wrong, and what it is about.
    pub fn new(about: &[&str], message: impl Into<String>) -> Self {
        let about = about.iter().map(|pointer| (*pointer).to_owned()).collect();
        Self { about, message: message.into() }
    }

    /// All that is wrong in one text, where there are no places to show it at.
    pub fn refuse(found: &[Self]) -> Result<(), String> {
        let said: Vec<&str> = found.iter().map(|bad| bad.message.as_str()).collect();
        match said[..] {
            [] => Ok(()),
            [one] => Err(one.to_owned()),
            _ => {
                let numbered =
                    said.iter().zip(1..).map(|(one, number)| format!("({number}) {one}"));
                let all: Vec<String> = numbered.collect();
                Err(format!("{} things in its settings: {}", all.len(), all.join("; ")))
            }
        }
    }
}

impl EngineKind {
    /// Whether its settings have an endpoint, instead of which another one can be given.
    pub fn has_endpoint(&self) -> bool {
        self.settings_schema["properties"].get("endpoint").is_some()
    }
}

/// The JSON Schema of policy documents.
pub fn policy_schema() -> Value {
    let mut schema = schemars::schema_for!(written::PolicyDocument).to_value();
    schema::simplify(&mut schema);
    schema
}

/// The JSON Schema of configuration documents, with the settings of these kinds of engine.
pub fn config_schema(kinds: &[EngineKind]) -> Value {
    let mut schema = schemars::schema_for!(written::ConfigDocument).to_value();
    let mut settings = serde_json::Map::new();
    for kind in kinds {
        let mut one = kind.settings_schema.clone();
        lift_definitions(&mut one, &mut schema);
        settings.insert(kind.name.to_owned(), one);
    }
    let engines = json!({
        "type": "object",
        "description": "Engines by name; each has one entry, which is its kind, with its settings.",
        "minProperties": 1,
        "additionalProperties": {
            "type": "object",
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": false,
            "properties": settings,
        },
    });
    if let Some(slot) = schema.pointer_mut("/$defs/ConfigSpec/properties/engines") {
        *slot = engines;
    }
    schema::simplify(&mut schema);
    schema
}

/// The JSON Schema of overlay documents: the same values as in the files, none of which must be
/// there.
pub fn overlay_schema(kinds: &[EngineKind]) -> Value {
    let mut schema = config_schema(kinds);
    let mut whole = schemars::schema_for!(written::OverlayDocument).to_value();
    if let Some(engines) = schema.pointer_mut("/$defs/ConfigSpec/properties/engines") {
        let engines = engines.take();
        if let Some(slot) = whole.pointer_mut("/$defs/ConfigSpec/properties/engines") {
            *slot = engines;
        }
    }
    let mut settings = json!({"$defs": schema.get("$defs")});
    if let (Some(Value::Object(from)), Some(Value::Object(to))) =
        (settings.get_mut("$defs").map(Value::take), whole.get_mut("$defs"))
    {
        for (name, definition) in from {
            to.entry(name).or_insert(definition);
        }
    }
    if let Some(Value::Object(definitions)) = whole.get_mut("$defs") {
        for (name, definition) in definitions {
            // Only what names the document itself must be there.
            if let (false, Some(definition)) =
                (name == "OverlayMetadata", definition.as_object_mut())
            {
                definition.remove("required");
                definition.remove("minProperties");
            }
        }
    }
    schema::simplify(&mut whole);
    whole
}

/// Moves the definitions of a part to the whole, where its references look for them.
fn lift_definitions(part: &mut Value, whole: &mut Value) {
    let Some(part) = part.as_object_mut() else {
        return;
    };
    part.remove("$schema");
    let lifted = part.remove("$defs");
    if let (Some(Value::Object(lifted)), Some(Value::Object(whole))) =
        (lifted, whole.get_mut("$defs"))
    {
        whole.extend(lifted);
    }
}
