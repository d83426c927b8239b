//! YAML 1.2 text into a tree that remembers where everything stands.
//!
//! One reading of the text: the JSON that the schema sees and the typed values both come from this
//! tree. Duplicate keys are findings, aliases are put in place under a limit, `<<` merges.

mod merge;
mod offsets;
mod scalar;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::finding::{Code, Finding, Place, SourceFile};
use merge::merged;
pub(super) use offsets::ByteOffsets;
use scalar::core_schema;

/// The most values a document may have once aliases are in place.
const VALUES_MAX: usize = 100_000;
/// The deepest a document may be nested.
const DEPTH_MAX: usize = 64;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Bytes of the file.
    pub span: Range<usize>,
    /// What it is.
    pub value: Value,
}

/// What a YAML value is.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A number, a boolean, a text or null.
    Scalar(Scalar),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the text.
    Map(Vec<Entry>),
}

/// A scalar as the YAML 1.2 core schema reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct Scalar {
    /// Its meaning.
    pub json: serde_json::Value,
    written: Written,
}

/// How a scalar was written.
#[derive(Debug, Clone, PartialEq)]
enum Written {
    /// With quotes, or with a tag.
    Marked,
    /// Without quotes; its meaning is these characters.
    Plain,
    /// Without quotes, in these characters, which mean something else.
    PlainAs(Box<str>),
}

impl Scalar {
    /// Its characters, where it was written without quotes.
    pub fn plain(&self) -> Option<&str> {
        match &self.written {
            Written::Marked => None,
            Written::Plain => self.json.as_str(),
            Written::PlainAs(text) => Some(text),
        }
    }

    /// Its text as a key: numbers and booleans count as the text they were written as.
    fn into_key(self) -> Option<String> {
        match (self.written, self.json) {
            (Written::PlainAs(text), _) => Some(text.into()),
            (_, serde_json::Value::String(text)) => Some(text),
            _ => None,
        }
    }
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key as text.
    pub key: String,
    /// Where the key stands.
    pub key_span: Range<usize>,
    /// The value.
    pub value: Node,
}

impl Node {
    /// The value of a key of a mapping.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The entry of a key of a mapping.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// The text of a scalar that is text.
    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) => scalar.json.as_str(),
            _ => None,
        }
    }

    /// The value at a JSON pointer (RFC 6901).
    pub fn at(&self, pointer: &str) -> Option<&Self> {
        let mut node = self;
        for token in pointer.split('/').skip(1) {
            let token = unescaped(token);
            node = match &node.value {
                Value::Map(_) => node.get(&token)?,
                Value::List(items) => items.get(token.parse::<usize>().ok()?)?,
                Value::Scalar(_) => return None,
            };
        }
        Some(node)
    }

    /// Whether nothing is written.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.json.is_null())
    }

    /// The same value as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Scalar(scalar) => scalar.json.clone(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => {
                // One by one: to collect a map sorts a list first, and most are small.
                let mut map = serde_json::Map::new();
                for entry in entries {
                    map.insert(entry.key.clone(), entry.value.to_json());
                }
                serde_json::Value::Object(map)
            }
        }
    }
}

/// A key as a token of a JSON pointer (RFC 6901).
pub fn escape(key: &str) -> String {
    if key.contains(['~', '/']) {
        key.replace('~', "~0").replace('/', "~1")
    } else {
        key.to_owned()
    }
}

/// A token of a JSON pointer as a key.
pub fn unescape(token: &str) -> String {
    unescaped(token).into_owned()
}

fn unescaped(token: &str) -> Cow<'_, str> {
    if token.contains('~') {
        Cow::Owned(token.replace("~1", "/").replace("~0", "~"))
    } else {
        Cow::Borrowed(token)
    }
}

/// Whether a scalar without quotes is text.
pub(super) fn is_text(plain: &str) -> bool {
    core_schema(plain).is_none()
}

/// Reads all documents of a file. A document with mistakes is still returned as far as it could be
/// read, so that all of its mistakes are found at once.
pub fn read(file: &Arc<SourceFile>) -> (Vec<Node>, Vec<Finding>) {
    let mut builder = Builder::new(file);
    for event in Parser::new_from_str(&file.text) {
        match event {
            Ok((event, span)) => {
                if builder.take(event, span).is_err() {
                    break;
                }
            }
            Err(error) => {
                let at = builder.bytes.of(error.marker().index());
                builder.syntax_error(at, error.info());
                break;
            }
        }
    }
    (builder.documents, builder.findings)
}

/// What is most often behind a line that is not YAML.
fn syntax_hint(line: &str, info: &str) -> Option<&'static str> {
    let value = line.split_once(": ").map_or("", |(_, value)| value.trim_start());
    if value.starts_with(['*', '&', '!', '%', '@', '`']) {
        return Some("quote the value: it begins with a character that means something in YAML");
    }
    if value.contains(": ") {
        return Some("quote the value: it has a colon in it");
    }
    let is_layout =
        ["expected", "indent", "mapping", "block"].iter().any(|word| info.contains(word));
    is_layout
        .then_some("keys of one mapping begin in the same column, and `key: value` has a space")
}

/// Reading cannot go on.
struct Stop;

/// Turns events into nodes.
struct Builder<'a> {
    file: &'a Arc<SourceFile>,
    bytes: ByteOffsets,
    documents: Vec<Node>,
    findings: Vec<Finding>,
    open: Vec<Open>,
    anchors: BTreeMap<usize, Node>,
    values: usize,
}

/// A collection that has begun and not ended.
struct Open {
    start: usize,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, key: Option<Node> },
}

impl<'a> Builder<'a> {
    fn new(file: &'a Arc<SourceFile>) -> Self {
        Self {
            file,
            bytes: ByteOffsets::new(&file.text),
            documents: Vec::new(),
            findings: Vec::new(),
            open: Vec::new(),
            anchors: BTreeMap::new(),
            values: 0,
        }
    }

    fn place(&self, span: Range<usize>) -> Place {
        Place { file: Arc::clone(self.file), span }
    }

    fn find(&mut self, code: Code, span: Range<usize>, message: impl Into<String>) -> &mut Finding {
        let finding = Finding::new(code, self.place(span), message);
        self.findings.push(finding);
        let last = self.findings.len() - 1;
        &mut self.findings[last]
    }

    fn syntax_error(&mut self, at: usize, info: &str) {
        let text = &self.file.text;
        let at = at.min(text.len());
        let line_start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let has_tab =
            text[line_start..].chars().take_while(|c| c.is_whitespace()).any(|c| c == '\t');
        let line = text[line_start..].lines().next().unwrap_or_default();
        let end = text[at..].char_indices().nth(1).map_or(text.len(), |(length, _)| at + length);
        let finding = self.find(Code::SyntaxError, at..end, format!("this is not YAML: {info}"));
        finding.hint = if has_tab {
            Some("indent with spaces: YAML does not take tabs".to_owned())
        } else {
            syntax_hint(line, info).map(str::to_owned)
        };
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Stop> {
        let range = self.bytes.range(span);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.anchors.clear();
                self.values = 0;
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let value = self.scalar(text, style, tag.as_deref(), &range);
                self.add(Node { span: range, value }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), &["seq"], &range);
                self.begin(range.start, anchor, Content::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), &["map"], &range);
                self.begin(range.start, anchor, Content::Map { entries: Vec::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(range.end),
            Event::Alias(anchor) => {
                if let Some(node) = self.anchors.get(&anchor) {
                    let node = node.clone();
                    self.values += count(&node) - 1;
                    self.add(node, 0)
                } else {
                    self.find(
                        Code::AnchorLimit,
                        range,
                        "this alias is inside the value it refers to",
                    );
                    Err(Stop)
                }
            }
        }
    }

    fn begin(&mut self, start: usize, anchor: usize, content: Content) -> Result<(), Stop> {
        if self.open.len() >= DEPTH_MAX {
            self.find(
                Code::AnchorLimit,
                start..start + 1,
                format!("nested more than {DEPTH_MAX} levels deep"),
            );
            return Err(Stop);
        }
        self.open.push(Open { start, anchor, content });
        Ok(())
    }

    fn end(&mut self, end: usize) -> Result<(), Stop> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let (last, value) = match open.content {
            Content::List(items) => (items.last().map(|item| item.span.end), Value::List(items)),
            Content::Map { entries, .. } => {
                let last = entries.iter().map(|entry| entry.value.span.end.max(entry.key_span.end));
                (last.max(), Value::Map(merged(entries)))
            }
        };
        // A block collection "ends" where the next thing begins; what it holds says more.
        let closed =
            self.file.text.as_bytes().get(open.start).is_some_and(|b| matches!(b, b'[' | b'{'));
        let end = if closed { end } else { last.unwrap_or(open.start) };
        self.add(Node { span: open.start..end.max(open.start), value }, open.anchor)
    }

    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Stop> {
        // What a collection holds was counted when it was read.
        self.values += 1;
        if self.values > VALUES_MAX {
            self.find(
                Code::AnchorLimit,
                node.span,
                format!(
                    "the document has more than {VALUES_MAX} values once its aliases are in place"
                ),
            );
            return Err(Stop);
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let refused = match self.open.last_mut().map(|open| &mut open.content) {
            None => {
                self.documents.push(node);
                None
            }
            Some(Content::List(items)) => {
                items.push(node);
                None
            }
            Some(Content::Map { entries, key }) => match key.take() {
                None => {
                    *key = Some(node);
                    None
                }
                Some(key) => insert(entries, key, node),
            },
        };
        match refused {
            None => {}
            Some(Refused::NotText(span)) => {
                self.find(Code::WrongType, span, "a key must be text");
            }
            Some(Refused::Twice { key, span, first }) => {
                let first = self.place(first);
                let finding = self.find(
                    Code::DuplicateKey,
                    span,
                    format!("the key `{key}` is written twice"),
                );
                finding.related = Some((first, "first written here".to_owned()));
            }
        }
        Ok(())
    }

    fn check_tag(
        &mut self,
        tag: Option<&Tag>,
        allowed: &[&str],
        span: &Range<usize>,
    ) -> Option<String> {
        let tag = tag?;
        if tag.is_yaml_core_schema() && allowed.contains(&tag.suffix.as_str()) {
            return Some(tag.suffix.clone());
        }
        let name = format!("{}{}", tag.handle, tag.suffix);
        self.find(Code::UnknownTag, span.clone(), format!("the tag `{name}` has no meaning here"));
        None
    }

    fn scalar(
        &mut self,
        text: Cow<'_, str>,
        style: ScalarStyle,
        tag: Option<&Tag>,
        span: &Range<usize>,
    ) -> Value {
        let tag = self.check_tag(tag, &["str", "int", "bool", "float", "null"], span);
        let is_plain = style == ScalarStyle::Plain;
        let meaning = match tag.as_deref() {
            Some("str") => None,
            None if !is_plain => None,
            _ => core_schema(&text),
        };
        let written = match &meaning {
            _ if !is_plain || tag.is_some() => Written::Marked,
            None => Written::Plain,
            Some(_) => Written::PlainAs(text.as_ref().into()),
        };
        let json = meaning.unwrap_or_else(|| serde_json::Value::String(text.into_owned()));
        Value::Scalar(Scalar { json, written })
    }
}

/// Why an entry is not part of its mapping.
enum Refused {
    NotText(Range<usize>),
    Twice { key: String, span: Range<usize>, first: Range<usize> },
}

fn insert(entries: &mut Vec<Entry>, key: Node, value: Node) -> Option<Refused> {
    let text = match key.value {
        Value::Scalar(scalar) => scalar.into_key(),
        Value::List(_) | Value::Map(_) => None,
    };
    let Some(text) = text else {
        return Some(Refused::NotText(key.span));
    };
    if let Some(earlier) = entries.iter().find(|entry| entry.key == text) {
        return Some(Refused::Twice { key: text, span: key.span, first: earlier.key_span.clone() });
    }
    entries.push(Entry { key: text, key_span: key.span, value });
    None
}

fn count(node: &Node) -> usize {
    1 + match &node.value {
        Value::Scalar(_) => 0,
        Value::List(items) => items.iter().map(count).sum(),
        Value::Map(entries) => entries.iter().map(|entry| count(&entry.value)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read_text(text: &str) -> (Vec<Node>, Vec<Finding>) {
        read(&Arc::new(SourceFile { path: "test.yaml".into(), text: text.into() }))
    }

    fn json_of(text: &str) -> serde_json::Value {
        let (documents, findings) = read_text(text);
        assert_eq!(findings, []);
        documents[0].to_json()
    }

    fn codes(text: &str) -> Vec<(&'static str, String)> {
        let (_, findings) = read_text(text);
        findings
            .iter()
            .map(|finding| {
                let place = finding.place.as_ref().unwrap();
                (finding.code.word(), place.file.text[place.span.clone()].to_owned())
            })
            .collect()
    }

    #[test]
    fn scalars_follow_the_core_schema() {
        assert_eq!(
            json_of(
                "[a, 1, -1, 0x1f, 0o17, 1.5, 1e3, true, null, ~, no, 02:00, '1', 007, 1_000, 12h, .5, 2026-11-21, \"é\"]"
            ),
            json!([
                "a",
                1,
                -1,
                31,
                15,
                1.5,
                1000.0,
                true,
                null,
                null,
                "no",
                "02:00",
                "1",
                7,
                "1_000",
                "12h",
                0.5,
                "2026-11-21",
                "é"
            ])
        );
        assert_eq!(json_of("!!str 12"), json!("12"));
    }

    #[test]
    fn spans_are_bytes_of_the_text() {
        let text = "ä: [ö, b]\nc:\n  d: 'x y'\n";
        let (documents, _) = read_text(text);
        let at = |pointer: &str| &text[documents[0].at(pointer).unwrap().span.clone()];
        assert_eq!(at("/ä"), "[ö, b]");
        assert_eq!(at("/ä/0"), "ö");
        assert_eq!(at("/c/d"), "'x y'");
        assert_eq!(at("/c"), "d: 'x y'");
        assert_eq!(&text[documents[0].entry("c").unwrap().key_span.clone()], "c");
    }

    #[test]
    fn duplicate_keys_are_found_and_the_first_stays() {
        assert_eq!(codes("a: 1\nb: 2\na: 3\n"), [("duplicate-key", "a".to_owned())]);
    }

    #[test]
    fn aliases_are_put_in_place_and_merged() {
        assert_eq!(
            json_of("base: &b {x: 1, y: 2}\none: {<<: *b, y: 3}\ntwo: *b\n"),
            json!({"base": {"x": 1, "y": 2}, "one": {"x": 1, "y": 3}, "two": {"x": 1, "y": 2}})
        );
    }

    #[test]
    fn anchors_that_explode_are_stopped() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..10 {
            let refs = vec![format!("*a{}", level - 1); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{refs}]\n"));
        }
        assert_eq!(codes(&text).first().map(|(code, _)| *code), Some("anchor-limit"));
        assert_eq!(codes("a: &a [*a]")[0].0, "anchor-limit");
        assert_eq!(codes(&"[".repeat(100))[0].0, "anchor-limit");
    }

    #[test]
    fn every_value_counts_once_however_deep_it_lies() {
        let line = |depth: usize| format!("- {}x{}\n", "[".repeat(depth), "]".repeat(depth));
        let (documents, findings) = read_text(&line(9).repeat(9_000));
        assert_eq!((documents.len(), findings), (1, Vec::new()));
        let (_, findings) = read_text(&line(9).repeat(11_000));
        assert_eq!(findings[0].code, Code::AnchorLimit);
    }

    #[test]
    fn several_documents_and_what_is_not_yaml() {
        let (documents, findings) = read_text("a: 1\n---\nb: 2\n");
        assert_eq!((documents.len(), findings.len()), (2, 0));
        for text in ["a: [1\n", "a: 'x\n", "a:\n\tb: 1\n", "a: *nowhere\n", "a: b: c\n"] {
            assert_eq!(codes(text).first().map(|code| code.0), Some("syntax-error"), "{text}");
        }
        assert_eq!(codes("a: !secret x\n")[0].0, "unknown-tag");
    }
}
