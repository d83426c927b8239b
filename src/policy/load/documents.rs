//! From the text of files to documents that were held against their schemas.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use serde_json::Value;
use similar::get_close_matches;

use super::schemas::Schemas;
use crate::policy::effective::Layer;
use crate::policy::finding::{Code, Finding, Place, SourceFile};
use crate::policy::schema::Checked;
use crate::policy::yaml::{self, Node};

/// A document that was read and held against its schema.
pub(super) struct Document {
    pub(super) file: Arc<SourceFile>,
    pub(super) node: Node,
    pub(super) json: Value,
    pub(super) damaged: BTreeSet<String>,
    /// Where errors were found in it.
    pub(super) errors: Vec<Range<usize>>,
}

impl Document {
    pub(super) fn layer<'a>(&'a self, prefix: &'a str, nothing: &'a Value) -> Layer<'a> {
        let json = self.json.pointer(prefix).unwrap_or(nothing);
        Layer { json, document: &self.node, prefix, file: &self.file }
    }

    /// The place of the whole document, for people: its `kind` line.
    pub(super) fn place(&self) -> Place {
        let span =
            self.node.entry("kind").map_or(self.node.span.start..self.node.span.start, |entry| {
                entry.key_span.start..entry.value.span.end
            });
        Place { file: Arc::clone(&self.file), span }
    }

    /// What was taken out of a part of it, as JSON pointers into that.
    pub(super) fn damaged_in<'a>(&'a self, part: &'a str) -> impl Iterator<Item = &'a str> {
        self.damaged.iter().filter_map(move |pointer| pointer.strip_prefix(part))
    }

    /// Whether there is an error in a value of a mapping, or in its key.
    pub(super) fn has_error_in(&self, mapping: &str, key: &str) -> bool {
        let entry = self.node.at(mapping).and_then(|mapping| mapping.entry(key));
        let span = entry.map(|entry| entry.key_span.start..entry.value.span.end);
        span.is_some_and(|span| {
            self.errors.iter().any(|error| span.start <= error.start && error.start <= span.end)
        })
    }

    pub(super) fn name(&self) -> &str {
        self.json.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
    }
}

/// The documents of one file, by their kind.
#[derive(Default)]
pub(super) struct Documents {
    pub(super) configs: Vec<Document>,
    pub(super) policies: Vec<Document>,
    pub(super) overlays: Vec<Document>,
    /// What is wrong in them.
    pub(super) findings: Vec<Finding>,
}

/// Whether the documents of a file can be nothing but policies: a `kind` has the word in its text,
/// unless characters are escaped.
pub(super) fn holds_only_policies(text: &str) -> bool {
    !["Config", "Overlay", "\\"].iter().any(|word| text.contains(word))
}

/// Reads the text of a file into documents of all kinds, held against their schemas.
pub(super) fn read(file: &Arc<SourceFile>, schemas: &Schemas<'_>) -> Documents {
    let mut documents = Documents::default();
    let (nodes, findings) = yaml::read(file);
    documents.findings = findings;
    for node in nodes {
        if node.is_null() {
            continue;
        }
        let kind = node.get("kind").and_then(Node::as_text).map(str::to_owned);
        let list = match kind.as_deref() {
            Some("BackupPolicy") => &mut documents.policies,
            Some("Config") => &mut documents.configs,
            Some("Overlay") => &mut documents.overlays,
            _ => {
                documents.findings.push(unknown_kind(&node, file));
                continue;
            }
        };
        match schemas.of(kind.as_deref().unwrap_or_default()) {
            Ok(schema) => {
                let Checked { findings, json, damaged } = schema.check(&node, file);
                let is_inside = |span: &Range<usize>| {
                    node.span.start <= span.start && span.start <= node.span.end
                };
                let errors = findings.iter().chain(&documents.findings);
                let errors = errors
                    .filter(|finding| finding.is_error())
                    .filter_map(|finding| Some(finding.place.as_ref()?.span.clone()))
                    .filter(is_inside)
                    .collect();
                documents.findings.extend(findings);
                list.push(Document { file: Arc::clone(file), node, json, damaged, errors });
            }
            // The schemas are part of the program and compiled by its tests.
            Err(error) => documents.findings.push(Finding::nowhere(Code::SyntaxError, error)),
        }
    }
    documents
}

fn unknown_kind(node: &Node, file: &Arc<SourceFile>) -> Finding {
    const KINDS: [&str; 3] = ["BackupPolicy", "Config", "Overlay"];
    let place = |span| Place { file: Arc::clone(file), span };
    let Some(entry) = node.entry("kind") else {
        let end = node.span.end.min(node.span.start + 1);
        return Finding::new(
            Code::UnknownKind,
            place(node.span.start..end),
            "the document has no `kind`",
        )
        .hint("begin it with `apiVersion: stillframe/v1` and `kind: BackupPolicy`");
    };
    let word = entry.value.as_text().unwrap_or_default();
    if word == "PolicyTest" {
        let message = "a test among policies";
        return Finding::new(Code::UnknownKind, place(entry.value.span.clone()), message).hint(
            "tests stand in files named like `web.test.yaml`, and `stillframe test` reads them",
        );
    }
    let hint = match get_close_matches(word, &KINDS, 1, 0.5).first() {
        Some(close) => format!("did you mean `{close}`?"),
        None => "known are BackupPolicy, Config and Overlay".to_owned(),
    };
    Finding::new(
        Code::UnknownKind,
        place(entry.value.span.clone()),
        format!("stillframe knows no kind `{word}`"),
    )
    .hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_surely_a_policy_waits() {
        assert!(holds_only_policies("kind: BackupPolicy"));
        for text in
            ["kind: Config", "kind: 'Overlay'", "a: &x Config\nkind: *x", r#"kind: "\x43onfig""#]
        {
            assert!(!holds_only_policies(text), "{text}");
        }
    }
}
