//! Plain words that YAML readers disagree about.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::Reader;
use crate::policy::finding::{Code, Finding, SourceFile};
use crate::policy::yaml::{self, Node, escape};

impl Reader<'_> {
    /// Plain words that other YAML readers take for something else, where text is meant.
    pub(super) fn find_traps(&self, findings: &mut Vec<Finding>, damaged: &mut BTreeSet<String>) {
        // Most documents have none, and then the schema need not be asked.
        if !may_trap(self.document) {
            return;
        }
        let schema = self.schema_at("");
        self.find_traps_in(self.document, schema, &mut Vec::new(), findings, damaged);
    }

    /// The same for the node at a path, which falls under a part of the schema.
    fn find_traps_in<'n>(
        &self,
        node: &'n Node,
        schema: Option<&Value>,
        path: &mut Vec<Token<'n>>,
        findings: &mut Vec<Finding>,
        damaged: &mut BTreeSet<String>,
    ) {
        // Where the schema knows nothing, nothing is meant.
        let Some(schema) = schema else { return };
        match &node.value {
            yaml::Value::Scalar(scalar) => {
                let Some(word) = scalar.plain() else { return };
                let find = |code, message: String| {
                    Finding::new(code, self.place(node.span.clone()), message)
                };
                let takes_text = takes(schema, "string");
                if let (true, true, Some(other)) = (takes_text, scalar.json.is_string(), trap(word))
                {
                    let message = format!("other YAML readers take `{word}` for {other}");
                    // Where a pattern refuses the word as well, quoting would not help.
                    let finding = find(Code::YamlTrap, message);
                    findings.push(if schema.get("pattern").is_some() {
                        finding
                    } else {
                        finding.hint(format!("quote it: \"{word}\""))
                    });
                } else if let (false, Some(other), Some(value)) =
                    (takes_text, number_trap(word), scalar.json.as_u64())
                {
                    let message = format!("other YAML readers take `{word}` for {other}");
                    findings.push(find(Code::YamlTrap, message).hint(format!("write {value}")));
                } else if let (true, Some(number)) = (
                    takes(schema, "integer") && !takes(schema, "number"),
                    scalar
                        .json
                        .as_f64()
                        .filter(|number| scalar.json.is_f64() && number.fract() == 0.0),
                ) {
                    let message = format!("a whole number is meant here, not `{word}`");
                    findings.push(find(Code::WrongType, message).hint(format!("write {number}")));
                    damaged.insert(path.iter().map(Token::to_string).collect());
                }
            }
            yaml::Value::List(items) => {
                // No key is empty: every item falls under `items`.
                let under = self.schema_under(schema, "");
                for (index, item) in items.iter().enumerate() {
                    path.push(Token::Item(index));
                    self.find_traps_in(item, under, path, findings, damaged);
                    path.pop();
                }
            }
            yaml::Value::Map(entries) => {
                for entry in entries {
                    let under = self.schema_under(schema, &entry.key);
                    path.push(Token::Key(&entry.key));
                    self.find_traps_in(&entry.value, under, path, findings, damaged);
                    path.pop();
                }
            }
        }
    }
}

/// Whether anything in a node is a trap somewhere in the language.
fn may_trap(node: &Node) -> bool {
    match &node.value {
        yaml::Value::Scalar(scalar) => scalar.plain().is_some_and(|word| {
            scalar.json.is_f64() || trap(word).is_some() || number_trap(word).is_some()
        }),
        yaml::Value::List(items) => items.iter().any(may_trap),
        yaml::Value::Map(entries) => entries.iter().any(|entry| may_trap(&entry.value)),
    }
}

/// A step of a path into a document.
enum Token<'a> {
    Key(&'a str),
    Item(usize),
}

impl fmt::Display for Token<'_> {
    /// As a part of a JSON pointer.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(formatter, "/{}", escape(key)),
            Self::Item(index) => write!(formatter, "/{index}"),
        }
    }
}

/// What YAML 1.1 makes of a plain word that YAML 1.2 reads as text.
pub(in crate::policy) fn trap(word: &str) -> Option<&'static str> {
    let booleans = ["yes", "no", "on", "off", "y", "n"];
    if booleans.iter().any(|boolean| word.eq_ignore_ascii_case(boolean)) {
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

/// What other readers make of a plain number with a prefix.
fn number_trap(word: &str) -> Option<&'static str> {
    let digits = word.strip_prefix(['+', '-']).unwrap_or(word);
    if digits.starts_with("0o") || digits.starts_with("0x") || word.starts_with('+') {
        return Some("text");
    }
    let is_octal = digits.len() > 1 && digits.starts_with('0');
    (is_octal && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some("an octal number")
}

/// YAML that a library has written, with quotes around every plain word that other readers take
/// for something else.
pub fn quoted(text: String) -> String {
    let file = Arc::new(SourceFile { path: String::new(), text });
    let (documents, _) = yaml::read(&file);
    let mut spans = Vec::new();
    for document in &documents {
        find_plain_traps(document, &mut spans);
    }
    let mut text = file.text.clone();
    // From the end, so that the places before stay true.
    spans.sort_by_key(|span: &std::ops::Range<usize>| std::cmp::Reverse(span.start));
    for span in spans {
        let word = text[span.clone()].to_owned();
        text.replace_range(span, &format!("\"{word}\""));
    }
    text
}

fn find_plain_traps(node: &Node, spans: &mut Vec<std::ops::Range<usize>>) {
    match &node.value {
        yaml::Value::Scalar(scalar) => {
            let is_trap = scalar.plain().is_some_and(|word| trap(word).is_some());
            if is_trap && scalar.json.is_string() {
                spans.push(node.span.clone());
            }
        }
        yaml::Value::List(items) => {
            for item in items {
                find_plain_traps(item, spans);
            }
        }
        yaml::Value::Map(entries) => {
            for entry in entries {
                find_plain_traps(&entry.value, spans);
            }
        }
    }
}

fn takes(schema: &Value, kind: &str) -> bool {
    match schema.get("type") {
        Some(Value::String(only)) => only == kind,
        Some(Value::Array(kinds)) => kinds.iter().any(|one| one == kind),
        _ => false,
    }
}
