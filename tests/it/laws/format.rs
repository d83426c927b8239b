//! Formatting, over generated YAML with comments in odd places: what it means and every comment
//! stay, and what is formatted stays as it is.

use std::cell::Cell;
use std::sync::Arc;

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::Value;
use stillframe::policy::SourceFile;
use stillframe::policy::format::format;
use stillframe::policy::yaml;

use super::law;

/// Keys of the language in the order of the alphabet, and others.
const KEYS: [&str; 16] = [
    "apiVersion",
    "atLeast",
    "cron",
    "daily",
    "labels",
    "match",
    "metadata",
    "name",
    "names",
    "retention",
    "schedule",
    "source",
    "spec",
    "\"quoted key\"",
    "'on'",
    "ünï",
];
const SCALARS: [&str; 18] = [
    "text",
    "two words",
    "1",
    "007",
    "true",
    "no",
    "02:00",
    "'it''s'",
    "\"a # b\"",
    "'*'",
    "~",
    "\"\\u00e4 \\\\\"",
    "a#b",
    "http://x.y/z",
    "-1.5",
    "''",
    "\"\"",
    "日本",
];

/// Writes YAML by rolling dice; without any left, everything is as simple as can be.
struct Writer {
    dice: std::vec::IntoIter<u8>,
    out: String,
    comments: usize,
    anchors: usize,
    /// A comment that is indented deeper than this would be text.
    deepest: Option<usize>,
}

impl Writer {
    fn roll(&mut self, sides: usize) -> usize {
        self.dice.next().map_or(0, |die| usize::from(die) % sides)
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from[self.roll(from.len())]
    }

    fn comment(&mut self) {
        self.comments += 1;
        self.out.push_str(&format!("# c{}: x", self.comments));
    }

    /// The end of a line, perhaps with a comment.
    fn end_line(&mut self) {
        if self.roll(4) == 1 {
            let space = self.pick(&[" ", "\t", "    "]);
            self.out.push_str(space);
            self.comment();
        }
        self.out.push('\n');
    }

    /// Lines between two things: empty ones, and comments anywhere.
    fn between(&mut self, indent: usize) {
        while self.roll(3) == 1 {
            if self.roll(2) == 0 {
                self.out.push_str(self.deepest.map_or("  \n", |_| "\n"));
            } else {
                let column = match self.roll(3) {
                    0 => indent,
                    1 => self.roll(9),
                    _ => indent + self.roll(5),
                };
                let column = column.min(self.deepest.unwrap_or(usize::MAX));
                self.out.push_str(&" ".repeat(column));
                self.comment();
                self.out.push('\n');
            }
        }
    }

    fn indent(&mut self, indent: usize) {
        self.out.push_str(&" ".repeat(indent));
        self.deepest = None;
    }

    /// `is_inline`: the first key stands behind something.
    fn map(&mut self, indent: usize, depth: usize, is_inline: bool) {
        let count = 1 + self.roll(4);
        let first = self.roll(KEYS.len());
        for index in 0..count {
            if index > 0 || !is_inline {
                self.between(indent);
                self.indent(indent);
            }
            let key = KEYS[(first + index * 5) % KEYS.len()];
            self.out.push_str(key);
            self.out.push(':');
            self.value(indent, depth, true);
        }
    }

    fn list(&mut self, indent: usize, depth: usize, is_inline: bool) {
        for index in 0..=self.roll(3) {
            if index > 0 || !is_inline {
                self.between(indent);
                self.indent(indent);
            }
            self.out.push('-');
            if depth > 0 && self.roll(3) == 1 {
                let space = 1 + self.roll(3);
                self.indent(space);
                if self.roll(3) == 1 {
                    self.list(indent + 1 + space, depth - 1, true);
                } else {
                    self.map(indent + 1 + space, depth - 1, true);
                }
            } else {
                self.value(indent, depth, false);
            }
        }
    }

    fn value(&mut self, indent: usize, depth: usize, in_map: bool) {
        let kinds = if depth == 0 { 6 } else { 10 };
        match self.roll(kinds) {
            0 | 1 => {
                let scalar = self.pick(&SCALARS);
                self.out.push_str(&format!(" {scalar}"));
                self.end_line();
            }
            2 => self.end_line(),
            3 => self.lines(indent),
            4 => {
                self.out.push(' ');
                self.flow(indent, 2);
                self.end_line();
            }
            5 => self.anchored(),
            6 => {
                self.end_line();
                let deeper = indent + 1 + self.roll(4);
                self.map(deeper, depth - 1, false);
            }
            7 => {
                self.end_line();
                // In a mapping, a list may stand in the column of its key.
                let deeper = indent + usize::from(!in_map) + self.roll(4);
                self.list(deeper, depth - 1, false);
            }
            8 => {
                // A scalar below its key.
                self.end_line();
                self.between(indent + 1);
                self.indent(indent + 1 + usize::from(in_map));
                let scalar = self.pick(&SCALARS);
                self.out.push_str(scalar);
                self.end_line();
            }
            _ => {
                self.anchors += 1;
                self.out.push_str(&format!(" &a{}", self.anchors));
                self.end_line();
                self.map(indent + 2, depth - 1, false);
            }
        }
    }

    /// Scalars over several lines.
    fn lines(&mut self, indent: usize) {
        let deep = " ".repeat(indent + 1 + self.roll(4));
        match self.roll(5) {
            0 => self.out.push_str(&format!(" one\n{deep}two\n\n{deep}  three")),
            1 => self.out.push_str(&format!(" 'one\n{deep}# two'")),
            2 => self.out.push_str(&format!(" \"one \\\n{deep}\\  two\n\n{deep}three\"")),
            kind => {
                let header = match kind {
                    3 => self.pick(&[" |", " >", " |-", " >-", " |+", " >+"]),
                    _ => " |2-",
                };
                self.out.push_str(header);
                self.end_line();
                let deep = if kind == 3 { deep } else { " ".repeat(indent + 2) };
                let first = if kind == 3 { "" } else { "   " };
                self.out.push_str(&format!("{deep}{first}x\n{deep}  # text \n\n{deep}y\n"));
                if self.roll(2) == 1 {
                    self.out.push_str("\n\n");
                }
                self.deepest = Some(indent);
                return;
            }
        }
        self.end_line();
    }

    fn anchored(&mut self) {
        if self.anchors > 0 && self.roll(2) == 1 {
            let which = 1 + self.roll(self.anchors);
            // The one around this value cannot be used, and its use is no YAML: such texts are
            // left out.
            self.out.push_str(&format!(" *a{which}"));
        } else {
            self.anchors += 1;
            let scalar = self.pick(&SCALARS);
            self.out.push_str(&format!(" &a{} {scalar}", self.anchors));
        }
        self.end_line();
    }

    fn flow(&mut self, indent: usize, depth: usize) {
        let is_map = self.roll(2) == 1;
        self.out.push(if is_map { '{' } else { '[' });
        let count = self.roll(4);
        let first = self.roll(KEYS.len());
        for index in 0..count {
            self.flow_gap(indent);
            if is_map {
                self.out.push_str(KEYS[(first + index * 5) % KEYS.len()]);
                self.out.push_str(": ");
            }
            if depth > 0 && self.roll(4) == 1 {
                self.flow(indent, depth - 1);
            } else {
                let scalar = self.pick(&SCALARS);
                self.out.push_str(scalar);
            }
            self.flow_gap(indent);
            if index + 1 < count || self.roll(2) == 1 {
                self.out.push(',');
            }
        }
        self.flow_gap(indent);
        self.out.push(if is_map { '}' } else { ']' });
    }

    fn flow_gap(&mut self, indent: usize) {
        self.out.push(' ');
        if self.roll(6) == 1 {
            if self.roll(2) == 1 {
                self.comment();
            }
            self.out.push('\n');
            self.between(indent + 1);
            let deeper = indent + 1 + self.roll(3);
            self.indent(deeper);
        }
    }

    fn stream(&mut self) {
        for index in 0..=self.roll(2) {
            self.between(0);
            if index > 0 || self.roll(3) == 1 {
                self.out.push_str("---");
                self.end_line();
                self.anchors = 0;
                self.deepest = None;
            }
            if self.roll(3) == 1 {
                self.out.push_str("kind: BackupPolicy\n");
            }
            self.map(0, 3, false);
        }
        self.between(0);
        match self.roll(6) {
            1 => self.out = self.out.replace('\n', "\r\n"),
            2 => self.out.insert(0, '\u{feff}'),
            _ => {}
        }
    }
}

fn texts() -> impl Strategy<Value = (String, usize)> {
    proptest::collection::vec(any::<u8>(), 0..240).prop_map(|dice| {
        let mut writer = Writer {
            dice: dice.into_iter(),
            out: String::new(),
            comments: 0,
            anchors: 0,
            deepest: None,
        };
        writer.stream();
        (writer.out, writer.comments)
    })
}

fn read(text: &str) -> Option<Vec<Value>> {
    let file = Arc::new(SourceFile { path: String::new(), text: text.to_owned() });
    let (documents, findings) = yaml::read(&file);
    findings.is_empty().then(|| documents.iter().map(yaml::Node::to_json).collect())
}

/// The same by a reader that shares no code with ours. It counts a byte order mark as a column.
fn read_otherwise(text: &str) -> Option<Vec<serde_yaml::Value>> {
    let documents = serde_yaml::Deserializer::from_str(text.trim_start_matches('\u{feff}'));
    documents.map(serde_yaml::Value::deserialize).collect::<Result<_, _>>().ok()
}

#[test]
fn formatting_keeps_meaning_and_comments_and_is_stable() {
    let (all, valid, other) = (Cell::new(0), Cell::new(0), Cell::new(0));
    law(texts(), |(text, comments)| {
        all.set(all.get() + 1);
        let Some(meaning) = read(&text) else { return Ok(()) };
        valid.set(valid.get() + 1);
        let format = |text: &str| {
            format(&Arc::new(SourceFile { path: String::new(), text: text.to_owned() }))
                .map_err(|findings| TestCaseError::fail(format!("{findings:?}")))
        };
        let formatted = format(&text)?;
        prop_assert_eq!(read(&formatted), Some(meaning), "{}", formatted);
        if let Some(meaning) = read_otherwise(&text) {
            other.set(other.get() + 1);
            prop_assert_eq!(read_otherwise(&formatted), Some(meaning), "{}", formatted);
        }
        // Counted by their characters: the test has no reader of comments.
        for comment in 1..=comments {
            let count = formatted.matches(&format!("# c{comment}: x\n")).count();
            prop_assert_eq!(count, 1, "comment {} of\n{}", comment, formatted);
        }
        prop_assert_eq!(formatted.matches("# c").count(), comments);
        prop_assert!(!formatted.contains(['\r', '\u{feff}']), "{}", formatted);
        let again = format(&formatted)?;
        prop_assert_eq!(&again, &formatted);
        Ok(())
    });
    assert!(valid.get() * 10 > all.get() * 7, "{} of {} are YAML", valid.get(), all.get());
    assert!(other.get() * 10 > all.get() * 5, "{} of {} for the other", other.get(), all.get());
}
