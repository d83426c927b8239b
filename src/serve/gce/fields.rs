//! Partial answers: `fields=items(name,labels/env),nextPageToken`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::answer::Refusal;

/// Fields may be nested so deep.
const DEPTH_MAX: usize = 32;

/// What of an answer is wanted; nothing below means everything below.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Fields {
    wanted: BTreeMap<String, Fields>,
}

impl Fields {
    /// Reads what is wanted.
    pub fn read(text: &str) -> Result<Self, Refusal> {
        let mut fields = Self::default();
        let wrong = || Refusal::invalid("fields", text, "Write it like a,b(c,d),e/f.");
        let rest = fields.read_list(text, 0).ok_or_else(wrong)?;
        if rest.is_empty() { Ok(fields) } else { Err(wrong()) }
    }

    fn read_list<'a>(&mut self, mut text: &'a str, depth: usize) -> Option<&'a str> {
        if depth > DEPTH_MAX {
            return None;
        }
        loop {
            text = self.read_one(text.trim_start(), depth)?.trim_start();
            match text.strip_prefix(',') {
                Some(rest) => text = rest,
                None => return Some(text),
            }
        }
    }

    fn read_one<'a>(&mut self, text: &'a str, depth: usize) -> Option<&'a str> {
        let end = text.find([',', '(', ')', '/']).unwrap_or(text.len());
        let (name, rest) = (text[..end].trim(), &text[end..]);
        if name.is_empty() || depth > DEPTH_MAX {
            return None;
        }
        let is_new = !self.wanted.contains_key(name);
        let below = self.wanted.entry(name.to_owned()).or_default();
        // What was wanted whole stays so.
        let is_whole = !is_new && below.wanted.is_empty();
        let rest = if let Some(rest) = rest.strip_prefix('/') {
            below.read_one(rest, depth + 1)?
        } else if let Some(rest) = rest.strip_prefix('(') {
            below.read_list(rest, depth + 1)?.strip_prefix(')')?
        } else {
            below.wanted.clear();
            rest
        };
        if is_whole {
            below.wanted.clear();
        }
        Some(rest)
    }

    /// Whether anything at a path is wanted.
    pub fn want(&self, path: &[&str]) -> bool {
        let Some((first, rest)) = path.split_first() else { return true };
        let mut below = [self.wanted.get(*first), self.wanted.get("*")].into_iter().flatten();
        self.wanted.is_empty() || below.any(|below| below.want(rest))
    }

    /// What is wanted of a value. In a list it is looked for in each element.
    pub fn of(&self, value: Value) -> Value {
        if self.wanted.is_empty() || self.wanted.contains_key("*") && self.wanted.len() == 1 {
            let below = self.wanted.get("*");
            return match below {
                Some(below) if !below.wanted.is_empty() => below.of_all(value),
                _ => value,
            };
        }
        match value {
            Value::Array(elements) => {
                elements.into_iter().map(|element| self.of(element)).collect()
            }
            Value::Object(object) => {
                let kept = object.into_iter().filter_map(|(name, value)| {
                    let below = self.wanted.get(&name)?;
                    Some((name, below.of(value)))
                });
                Value::Object(kept.collect::<Map<_, _>>())
            }
            // Something plain has nothing below it.
            value => value,
        }
    }

    /// The same for everything in an object, whatever it is called.
    fn of_all(&self, value: Value) -> Value {
        match value {
            Value::Array(elements) => {
                elements.into_iter().map(|element| self.of_all(element)).collect()
            }
            Value::Object(object) => {
                object.into_iter().map(|(name, value)| (name, self.of(value))).collect()
            }
            value => value,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(fields: &str) -> Value {
        let value = json!({
            "kind": "list",
            "items": [{"name": "a", "labels": {"env": "prod", "x": "y"}, "id": "1"}],
            "zones": {"zones/a": {"disks": [{"name": "d", "id": "2"}]}},
            "next": "token",
        });
        Fields::read(fields).unwrap().of(value)
    }

    #[test]
    fn only_what_is_wanted_is_given() {
        assert_eq!(
            of("items(name,labels/env),next"),
            json!({"items": [{"name": "a", "labels": {"env": "prod"}}], "next": "token"})
        );
        assert_eq!(of("items/id"), json!({"items": [{"id": "1"}]}));
        assert_eq!(of("items/id, items/name"), json!({"items": [{"id": "1", "name": "a"}]}));
        assert_eq!(of("kind,gone"), json!({"kind": "list"}));
        assert_eq!(
            of("zones/*/disks/name"),
            json!({"zones": {"zones/a": {"disks": [{"name": "d"}]}}})
        );
        assert_eq!(of("*"), of("kind,items,zones,next"));
        assert_eq!(of("items(name),items"), of("items"));
    }

    #[test]
    fn what_is_wanted_is_known_beforehand() {
        let wants = |fields: &str| Fields::read(fields).unwrap().want(&["items", "name"]);
        for fields in
            ["items", "items(id,name)", "items/name", "*", "items/*", "items/name/x", "*/name"]
        {
            assert!(wants(fields), "{fields}");
        }
        for fields in ["kind", "items/id", "items(id)", "names", "kind,next", "*/id"] {
            assert!(!wants(fields), "{fields}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for fields in ["", "a(", "a)", "a,,b", "a(b", "/a", &"a(".repeat(50), &"a/".repeat(50)] {
            assert_eq!(Fields::read(fields).unwrap_err().status, 400, "{fields}");
        }
    }
}
