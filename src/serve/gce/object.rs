//! JSON objects that leave out what is empty, as the API does.

use data_encoding::BASE64URL;
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// Things under their names.
#[derive(Debug, Clone, Default)]
pub struct Object(pub Map<String, Value>);

impl Object {
    /// Sets what is there and not empty.
    pub fn set(&mut self, field: &str, value: &impl Serialize) {
        let value = serde_json::to_value(value).unwrap_or_default();
        let is_empty = match &value {
            Value::Null => true,
            Value::Array(elements) => elements.is_empty(),
            Value::Object(object) => object.is_empty(),
            Value::String(text) => text.is_empty(),
            _ => false,
        };
        if !is_empty {
            self.0.insert(field.to_owned(), value);
        }
    }

    /// As JSON.
    pub fn json(self) -> Value {
        Value::Object(self.0)
    }
}

/// Changes with every change of what it is of.
pub fn fingerprint(of: &Value) -> String {
    BASE64URL.encode(&Sha256::digest(of.to_string().as_bytes())[..8])
}
