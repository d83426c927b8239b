//! JSON Schemas of what users write, and the findings that follow from them.
//!
//! The schemas are made from the types in `written`, simplified so that editors and people get
//! plain messages: no `oneOf`, no `null`. `schemas/*.json` are these same schemas, held by a test.

mod language;
mod plain;
mod trap;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{ValidationError, Validator};
use serde_json::{Map, Value};
use similar::get_close_matches;

use super::finding::{Code, Finding, Place, SourceFile};
use super::yaml::{self, Node, escape, unescape};
use language::folded;

pub use plain::simplify;
pub use trap::quoted;
pub(super) use trap::trap;

/// A schema as JSON and compiled.
#[derive(Debug)]
pub struct Schema {
    json: Value,
    validator: Validator,
}

/// A document against its schema: what is wrong, and what is left of it without that.
#[derive(Debug)]
pub struct Checked {
    /// Everything that is wrong.
    pub findings: Vec<Finding>,
    /// The document without what is wrong.
    pub json: Value,
    /// JSON pointers to what was taken out.
    pub damaged: BTreeSet<String>,
}

impl Schema {
    /// Compiles a schema that [`simplify`] has been over.
    pub fn compile(json: Value) -> Result<Self, String> {
        let validator = jsonschema::validator_for(&json).map_err(|error| error.to_string())?;
        Ok(Self { json, validator })
    }

    /// Checks a document; every mistake is found.
    pub fn check(&self, document: &Node, file: &Arc<SourceFile>) -> Checked {
        let mut json = document.to_json();
        let mut findings = Vec::new();
        let mut damaged = BTreeSet::new();
        let reader = Reader { schema: &self.json, document, file };
        for error in self.validator.iter_errors(&json) {
            reader.explain(&error, &mut findings, &mut damaged);
        }
        reader.find_traps(&mut findings, &mut damaged);
        for pointer in damaged.iter().rev() {
            take_out(&mut json, pointer);
        }
        Checked { findings, json, damaged }
    }
}

/// Where the settings of engines are.
const ENGINES: &str = "/spec/engines/";

/// Turns schema errors into findings at places of the text.
struct Reader<'a> {
    schema: &'a Value,
    document: &'a Node,
    file: &'a Arc<SourceFile>,
}

impl Reader<'_> {
    fn place(&self, span: Range<usize>) -> Place {
        Place { file: Arc::clone(self.file), span }
    }

    /// The node at a pointer, and where to point: a collection is pointed at by its key.
    fn locate(&self, pointer: &str) -> (&Node, Range<usize>) {
        let node = self.document.at(pointer).unwrap_or(self.document);
        let (parent, token) = pointer.rsplit_once('/').unwrap_or(("", ""));
        let key = self
            .document
            .at(parent)
            .and_then(|parent| parent.entry(&unescape(token)))
            .map(|entry| entry.key_span.clone());
        let is_blank = node.span.is_empty();
        match (&node.value, key) {
            (yaml::Value::Scalar(_), Some(key)) if is_blank => (node, key),
            (yaml::Value::Scalar(_), _) => (node, node.span.clone()),
            (_, Some(key)) => (node, key),
            (_, None) => (node, first_line(node, &self.file.text)),
        }
    }

    fn explain(
        &self,
        error: &ValidationError<'_>,
        findings: &mut Vec<Finding>,
        damaged: &mut BTreeSet<String>,
    ) {
        let pointer = error.instance_path().as_str().to_owned();
        let (node, span) = self.locate(&pointer);
        let found = error.instance();
        let finding = |code, message: String| Finding::new(code, self.place(span.clone()), message);
        let one = match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                for key in unexpected {
                    damaged.insert(format!("{pointer}/{}", escape(key)));
                    findings.push(self.unknown_key(node, &pointer, key));
                }
                return;
            }
            ValidationErrorKind::Required { property } => {
                let property = property.as_str().unwrap_or_default();
                // Misspelt is not missing: the unknown key says so already.
                let is_misspelt = match &node.value {
                    yaml::Value::Map(entries) => entries.iter().any(|entry| {
                        get_close_matches(entry.key.as_str(), &[property], 1, 0.7).len() == 1
                    }),
                    _ => false,
                };
                if is_misspelt {
                    return;
                }
                findings.push(
                    finding(Code::MissingKey, format!("the key `{property}` is missing"))
                        .label(format!("needs `{property}`"))
                        .maybe_hint(self.describe(&format!("{pointer}/{property}"))),
                );
                return;
            }
            // The settings of engines are read by engines, long after the policies are.
            ValidationErrorKind::Pattern { .. } if pointer.starts_with(ENGINES) => {
                finding(Code::UnknownValue, format!("`{}` cannot be meant here", plain(found)))
                    .maybe_hint(self.describe(&pointer))
            }
            // What else has a pattern gets its meaning, and a better message, where it is read.
            ValidationErrorKind::Pattern { .. } => return,
            ValidationErrorKind::Maximum { .. } | ValidationErrorKind::Minimum { .. }
                if self
                    .schema_at(&pointer)
                    .is_some_and(|schema| schema.get("pattern").is_some()) =>
            {
                return;
            }
            ValidationErrorKind::Enum { options } => {
                unknown_value(&finding, found, options.as_array().map_or(&[], Vec::as_slice))
            }
            ValidationErrorKind::Constant { expected_value } => {
                unknown_value(&finding, found, std::slice::from_ref(expected_value))
            }
            ValidationErrorKind::Type { kind } => wrong_type(&finding, node, found, kind),
            ValidationErrorKind::Maximum { limit } => {
                finding(Code::OutOfRange, format!("{found} is too large: the largest is {limit}"))
            }
            ValidationErrorKind::Minimum { limit } => {
                finding(Code::OutOfRange, format!("{found} is too small: the smallest is {limit}"))
            }
            ValidationErrorKind::MinItems { limit }
            | ValidationErrorKind::MinProperties { limit } => {
                finding(Code::OutOfRange, format!("this needs at least {limit} entry"))
            }
            _ => finding(Code::OutOfRange, error.to_string()),
        };
        damaged.insert(without_items(&pointer, self.document));
        findings.push(one);
    }

    fn unknown_key(&self, map: &Node, pointer: &str, key: &str) -> Finding {
        let span = map.entry(key).map_or(map.span.clone(), |entry| entry.key_span.clone());
        let finding = Finding::new(
            Code::UnknownKey,
            self.place(span),
            format!("the key `{key}` has no meaning here"),
        );
        let known = self.known_keys(pointer);
        let names: Vec<&str> = known.iter().map(String::as_str).collect();
        let same = known.iter().find(|name| folded(name) == folded(key));
        let close = same
            .map(String::as_str)
            .or_else(|| get_close_matches(key, &names, 1, 0.7).first().copied());
        if let Some(close) = close {
            return finding.hint(format!("did you mean `{close}`?"));
        }
        match self.elsewhere(key) {
            Some((path, name)) => finding.hint(format!("`{name}` belongs under `{path}`")),
            None => finding.hint(format!("known here are {}", known.join(", "))),
        }
    }
}

/// A word that is not among those allowed.
fn unknown_value(
    finding: &impl Fn(Code, String) -> Finding,
    found: &Value,
    options: &[Value],
) -> Finding {
    let words: Vec<&str> = options.iter().filter_map(Value::as_str).collect();
    let word = found.as_str().unwrap_or_default();
    let hint = match get_close_matches(word, &words, 1, 0.6).first() {
        Some(close) => format!("did you mean `{close}`?"),
        None => format!("allowed: {}", words.join(", ")),
    };
    finding(Code::UnknownValue, format!("`{}` is not known here", plain(found))).hint(hint)
}

fn wrong_type(
    finding: &impl Fn(Code, String) -> Finding,
    node: &Node,
    found: &Value,
    kind: &TypeKind,
) -> Finding {
    let expected = match kind {
        TypeKind::Single(kind) => type_word(&kind.to_string()).to_owned(),
        TypeKind::Multiple(kinds) => {
            let words: Vec<String> =
                kinds.iter().map(|kind| type_word(&kind.to_string()).to_owned()).collect();
            words.join(" or ")
        }
    };
    let written = match &node.value {
        yaml::Value::Scalar(scalar) => scalar.plain(),
        _ => None,
    };
    let found_word = match found {
        Value::Null => "nothing".to_owned(),
        Value::Bool(_) => format!("the boolean {found}"),
        Value::Number(_) => format!("the number {found}"),
        Value::String(text) => format!("the text `{text}`"),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
    };
    let finding = finding(Code::WrongType, format!("{expected} is meant here, not {found_word}"));
    match (found, written) {
        (Value::Bool(_) | Value::Number(_), Some(written)) if expected.contains("text") => {
            finding.hint(format!("quote it: \"{written}\""))
        }
        (Value::String(text), Some(_)) if expected.contains("boolean") && trap(text).is_some() => {
            let meant = matches!(text.to_ascii_lowercase().as_str(), "yes" | "on" | "y");
            finding.hint(format!(
                "write `{meant}`: YAML 1.2 has no other booleans than true and false"
            ))
        }
        (Value::String(text), None)
            if expected.contains("number") && text.parse::<u32>().is_ok() =>
        {
            finding.hint(format!("without quotes: {text}"))
        }
        (Value::Null, _) => finding.hint("write a value, or take the key out"),
        (Value::String(text), _)
            if expected.contains("number") && length_number(text).is_some() =>
        {
            finding
                .hint(format!("write {}: the key says the unit", length_number(text).unwrap_or(0)))
        }
        (Value::Bool(_), _) if expected.contains("mapping") => {
            finding.hint("write what is meant as a mapping, like `{creates: true, deletes: true}`")
        }
        _ => finding,
    }
}

/// The number of `7d` or `24 h`.
fn length_number(text: &str) -> Option<u32> {
    let digits = text.trim_end_matches(|last: char| last.is_ascii_alphabetic()).trim_end();
    if digits.len() < text.len() { digits.parse().ok() } else { None }
}

fn type_word(kind: &str) -> &str {
    match kind {
        "string" => "a text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "a boolean",
        "array" => "a list",
        "object" => "a mapping",
        other => other,
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The first line of a node that has no key to point at.
fn first_line(node: &Node, text: &str) -> Range<usize> {
    let inside = text.get(node.span.clone()).unwrap_or_default();
    let length = inside.find('\n').unwrap_or(inside.len());
    node.span.start..node.span.start + length
}

/// Up to the list that a pointer goes into: one bad item takes the list with it, so that the
/// positions of the others stay true.
fn without_items(pointer: &str, document: &Node) -> String {
    let mut kept = String::new();
    let mut node = Some(document);
    for token in pointer.split('/').skip(1) {
        if matches!(node.map(|node| &node.value), Some(yaml::Value::List(items)) if items.iter().all(is_scalar))
        {
            break;
        }
        kept.push('/');
        kept.push_str(token);
        node = node.and_then(|node| node.at(&format!("/{token}")));
    }
    kept
}

fn is_scalar(node: &Node) -> bool {
    matches!(node.value, yaml::Value::Scalar(_))
}

fn take_out(json: &mut Value, pointer: &str) {
    let Some((parent, token)) = pointer.rsplit_once('/') else {
        return;
    };
    match json.pointer_mut(parent) {
        Some(Value::Object(map)) => {
            map.remove(&unescape(token));
        }
        Some(Value::Array(items)) => {
            // An empty mapping keeps the positions of the others.
            if let Some(item) = token.parse::<usize>().ok().and_then(|index| items.get_mut(index)) {
                *item = Value::Object(Map::new());
            }
        }
        _ => {}
    }
}
