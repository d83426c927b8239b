//! The order of keys: the one in which the types of the language declare their fields.
//!
//! A schema as JSON has its keys in the order of the alphabet, so the types are asked in another
//! way: reading a value of a type tells the reader the names of the fields, in order. A reader that
//! walks down a path and stops there learns the names at that place, and reads nothing.

use std::cell::Cell;

use serde::de::value::Error;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    Visitor,
};
use serde::forward_to_deserialize_any;

use crate::policy::written::{ConfigDocument, PolicyDocument};

/// A step into a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Into the value of a key.
    Key(String),
    /// Into an item of a sequence.
    Item,
}

/// The keys of the mapping at a path of a document of some kind, in the order of the language;
/// none where the language does not say.
pub(super) fn keys_at(kind: Option<&str>, path: &[Step]) -> &'static [&'static str] {
    match kind {
        Some("BackupPolicy") => fields_at::<PolicyDocument>(path),
        Some("Config") => fields_at::<ConfigDocument>(path),
        _ if path.is_empty() => &["apiVersion", "kind", "metadata", "spec"],
        _ => &[],
    }
}

fn fields_at<'de, T: Deserialize<'de>>(path: &[Step]) -> &'static [&'static str] {
    let found = Cell::new(&[] as &'static [&'static str]);
    // Nothing can be read from a reader that only asks, so this never is a value.
    let _ = T::deserialize(Asker { path, found: &found });
    found.get()
}

/// Walks down a path of types.
#[derive(Clone, Copy)]
struct Asker<'a> {
    path: &'a [Step],
    found: &'a Cell<&'static [&'static str]>,
}

impl<'de> Deserializer<'de> for Asker<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("there is no value"))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if self.path.is_empty() {
            self.found.set(fields);
        }
        self.deserialize_map(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.path.split_first() {
            Some((Step::Key(key), path)) => {
                visitor.visit_map(One { key, asker: Asker { path, ..self } })
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.path.split_first() {
            Some((Step::Item, path)) => {
                visitor.visit_seq(One { key: "", asker: Asker { path, ..self } })
            }
            _ => self.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct tuple tuple_struct enum identifier ignored_any
    }
}

/// A collection of the one thing that the path leads to.
struct One<'a> {
    key: &'a str,
    asker: Asker<'a>,
}

impl<'de> MapAccess<'de> for One<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        seed.deserialize(self.key.into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        // Always an error, so there is no second key.
        seed.deserialize(self.asker)
    }
}

impl<'de> SeqAccess<'de> for One<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        seed.deserialize(self.asker).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{config_schema, policy_schema};
    use serde_json::Value;
    use std::collections::BTreeSet;

    fn path(keys: &[&str]) -> Vec<Step> {
        let step = |key: &&str| if *key == "-" { Step::Item } else { Step::Key((*key).to_owned()) };
        keys.iter().map(step).collect()
    }

    #[test]
    fn the_order_is_the_one_of_the_types() {
        let policy = |keys: &[&str]| keys_at(Some("BackupPolicy"), &path(keys));
        assert_eq!(policy(&[]), ["apiVersion", "kind", "metadata", "spec"]);
        assert_eq!(policy(&["metadata"])[..2], ["name", "owner"]);
        assert_eq!(policy(&["spec"])[..3], ["engine", "source", "capture"]);
        assert_eq!(policy(&["spec", "source", "match", "-"]), ["names", "labels", "zones"]);
        assert!(policy(&["spec", "labels"]).is_empty());
        assert!(policy(&["spec", "nothing", "such"]).is_empty());
        let config = |keys: &[&str]| keys_at(Some("Config"), &path(keys));
        assert_eq!(config(&["spec", "defaults", "retention"])[..2], ["hours", "days"]);
        assert!(config(&["spec", "engines", "any", "local"]).is_empty());
    }

    /// Every mapping that the schema describes has an order, with the same keys.
    #[test]
    fn the_order_knows_every_key_of_the_schema() {
        let mut count = 0;
        for (kind, schema) in [("BackupPolicy", policy_schema()), ("Config", config_schema(&[]))] {
            walk(kind, &schema, &schema, &mut Vec::new(), &mut count);
        }
        assert!(count > 20, "{count}");
    }

    fn walk(kind: &str, whole: &Value, part: &Value, path: &mut Vec<Step>, count: &mut usize) {
        if path.len() > 12 {
            return;
        }
        if let Some(reference) = part.get("$ref").and_then(Value::as_str) {
            let target = whole.pointer(reference.strip_prefix('#').unwrap()).unwrap();
            walk(kind, whole, target, path, count);
        }
        for one in part.get("anyOf").and_then(Value::as_array).into_iter().flatten() {
            walk(kind, whole, one, path, count);
        }
        if let Some(items) = part.get("items") {
            path.push(Step::Item);
            walk(kind, whole, items, path, count);
            path.pop();
        }
        if let Some(more) = part.get("additionalProperties").filter(|more| more.is_object()) {
            path.push(Step::Key("any".to_owned()));
            walk(kind, whole, more, path, count);
            path.pop();
        }
        let Some(properties) = part.get("properties").and_then(Value::as_object) else { return };
        if !properties.is_empty() {
            let known: BTreeSet<&str> = keys_at(Some(kind), path).iter().copied().collect();
            let keys: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
            assert_eq!(known, keys, "{kind} {path:?}");
            *count += 1;
        }
        for (key, inner) in properties {
            path.push(Step::Key(key.clone()));
            walk(kind, whole, inner, path, count);
            path.pop();
        }
    }
}
