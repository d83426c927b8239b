//! Plain words that YAML readers disagree about.

use serde_json::Value;

use super::Reader;
use crate::policy::finding::{Code, Finding};
use crate::policy::yaml::{self, Node, escape};

impl Reader<'_> {
    /// Plain words that other YAML readers take for something else, where text is meant.
    pub(super) fn find_traps(&self, node: &Node, pointer: &str, findings: &mut Vec<Finding>) {
        match &node.value {
            yaml::Value::Scalar(scalar) => {
                let Some(word) = scalar.plain.as_deref().filter(|_| scalar.json.is_string()) else {
                    return;
                };
                let Some(other) = trap(word) else { return };
                if !self.schema_at(pointer).is_some_and(|schema| takes(schema, "string")) {
                    return;
                }
                findings.push(
                    Finding::new(
                        Code::YamlTrap,
                        self.place(node.span.clone()),
                        format!("other YAML readers take `{word}` for {other}"),
                    )
                    .hint(format!("quote it: \"{word}\"")),
                );
            }
            yaml::Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.find_traps(item, &format!("{pointer}/{index}"), findings);
                }
            }
            yaml::Value::Map(entries) => {
                for entry in entries {
                    self.find_traps(
                        &entry.value,
                        &format!("{pointer}/{}", escape(&entry.key)),
                        findings,
                    );
                }
            }
        }
    }
}

/// What YAML 1.1 makes of a plain word that YAML 1.2 reads as text.
pub(super) fn trap(word: &str) -> Option<&'static str> {
    let lower = word.to_ascii_lowercase();
    if matches!(lower.as_str(), "yes" | "no" | "on" | "off" | "y" | "n") {
        return Some("a boolean");
    }
    let mut parts = word.split(':');
    let first = parts.next()?;
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let mut rest = parts.peekable();
    let sexagesimal = rest.peek().is_some()
        && is_number(first)
        && rest.all(|part| part.len() <= 2 && is_number(part) && part < "60");
    sexagesimal.then_some("a number in base 60")
}

fn takes(schema: &Value, kind: &str) -> bool {
    match schema.get("type") {
        Some(Value::String(only)) => only == kind,
        Some(Value::Array(kinds)) => kinds.iter().any(|one| one == kind),
        _ => false,
    }
}
