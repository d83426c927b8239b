//! Finding one's way in a schema: what may stand where, and where something would stand.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Reader;
use crate::policy::yaml::unescape;

impl Reader<'_> {
    /// The part of the schema that a pointer into a document falls under.
    pub(super) fn schema_at(&self, pointer: &str) -> Option<&Value> {
        let mut schema = self.resolve(self.schema)?;
        for token in pointer.split('/').skip(1) {
            schema = self.schema_under(schema, &unescape(token))?;
        }
        Some(schema)
    }

    /// The part of the schema for a key or an item of what a part is for.
    pub(super) fn schema_under<'s>(&'s self, schema: &'s Value, token: &str) -> Option<&'s Value> {
        let property = schema.get("properties").and_then(|properties| properties.get(token));
        let next = property
            .or_else(|| schema.get("additionalProperties").filter(|more| more.is_object()))
            .or_else(|| schema.get("items"))?;
        self.resolve(next)
    }

    pub(super) fn resolve<'s>(&'s self, schema: &'s Value) -> Option<&'s Value> {
        match schema.get("$ref").and_then(Value::as_str) {
            Some(reference) => self.schema.pointer(reference.strip_prefix('#')?),
            None => Some(schema),
        }
    }

    pub(super) fn known_keys(&self, pointer: &str) -> Vec<String> {
        let properties =
            self.schema_at(pointer).and_then(|schema| schema.get("properties")?.as_object());
        properties.map(|properties| properties.keys().cloned().collect()).unwrap_or_default()
    }

    pub(super) fn describe(&self, pointer: &str) -> Option<String> {
        let (parent, token) = pointer.rsplit_once('/')?;
        let text =
            self.schema_at(parent)?.get("properties")?.get(token)?.get("description")?.as_str()?;
        let first = text.split(". ").next()?.trim_end_matches('.');
        Some(format!("`{token}`: {}", first.replace('\n', " ")))
    }

    /// Where in the language a key has a meaning, and how it is written there, if that is one
    /// place.
    pub(super) fn elsewhere(&self, key: &str) -> Option<(String, String)> {
        let mut found = BTreeSet::new();
        self.search(self.schema, &folded(key), &mut Vec::new(), &mut found);
        if found.len() == 1 { found.pop_first() } else { None }
    }

    pub(super) fn search(
        &self,
        schema: &Value,
        key: &str,
        path: &mut Vec<String>,
        found: &mut BTreeSet<(String, String)>,
    ) {
        let Some(schema) = self.resolve(schema) else { return };
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
        for (name, inner) in properties {
            if folded(name) == key && !path.is_empty() {
                found.insert((path.join("."), name.clone()));
            }
            path.push(name.clone());
            self.search(inner, key, path, found);
            path.pop();
        }
    }
}

/// A key without what people vary: case, hyphens and underscores.
pub(super) fn folded(key: &str) -> String {
    key.replace(['_', '-'], "").to_ascii_lowercase()
}
