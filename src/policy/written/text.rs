//! Texts, lists of texts and lengths of time as they are written.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

use crate::elapsed;

/// One text or several.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Texts(pub Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let texts = match value {
            serde_json::Value::Array(items) => items,
            one => vec![one],
        };
        let text = |value: serde_json::Value| match value {
            serde_json::Value::String(text) => Ok(text),
            _ => Err(serde::de::Error::custom("not a text or a list of texts")),
        };
        texts.into_iter().map(text).collect::<Result<_, _>>().map(Self)
    }
}

impl JsonSchema for Texts {
    fn schema_name() -> Cow<'static, str> {
        "Texts".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "array"], "items": {"type": "string"}, "minItems": 1})
    }
}

/// A length of time as written: text with units, or the number 0.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct LengthText(pub String);

/// The pattern of a length of time, or of the word that switches off what is inherited.
pub(super) const LENGTH_OR_NEVER: &str = r"^(0|([0-9]+[wdhms])+|never)$";

impl LengthText {
    /// Whether it is the word that switches off what is inherited.
    pub fn is_never(&self) -> bool {
        self.0 == "never"
    }
}

impl<'de> Deserialize<'de> for LengthText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Ok(Self(text)),
            serde_json::Value::Number(number) => Ok(Self(number.to_string())),
            _ => Err(serde::de::Error::custom("not a length of time")),
        }
    }
}

impl JsonSchema for LengthText {
    fn schema_name() -> Cow<'static, str> {
        "Length".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "pattern": elapsed::PATTERN,
            "maximum": 0,
            "minimum": 0,
            "examples": ["24h", "7d", "1d12h"],
        })
    }
}
