//! Text into the tree of how it is written.
//!
//! The parser says what there is, in order; the text says how it is written. Both are walked
//! together, and where they do not fit, reading stops: what is not understood is not printed.

use std::ops::Range;

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::tree::{Block, Collection, Comment, Document, Item, Node, Shape, Style, Text};
use crate::policy::yaml::ByteOffsets;

/// Why a text cannot be formatted, and where.
#[derive(Debug)]
pub(super) struct Refused {
    /// What is in the way.
    pub why: &'static str,
    /// Where, in bytes.
    pub at: usize,
}

/// A text as it is written.
#[derive(Debug)]
pub(super) struct Stream {
    /// Its documents.
    pub documents: Vec<Document>,
    /// Comments of a text without any document.
    pub rest: Vec<Comment>,
    /// Every comment, in order.
    pub comments: Vec<String>,
}

/// Reads a text with `\n` at the end of its lines.
pub(super) fn read(text: &str) -> Result<Stream, Refused> {
    let offsets = ByteOffsets::new(text);
    let mut events = Vec::new();
    for event in Parser::new_from_str(text) {
        match event {
            Ok((event, span)) => events.push((event, offsets.range(span))),
            Err(error) => {
                let at = offsets.of(error.marker().index());
                return Err(Refused { why: "this is not YAML", at });
            }
        }
    }
    let events = events.into_iter();
    Reading { text, events, at: 0, last: 0, comments: Vec::new(), flow_depth: 0 }.stream()
}

struct Reading<'a> {
    text: &'a str,
    events: std::vec::IntoIter<(Event<'a>, Range<usize>)>,
    /// How far the text was read.
    at: usize,
    /// The end of what was last read that is no comment.
    last: usize,
    comments: Vec<Comment>,
    /// How many braces and brackets are open.
    flow_depth: usize,
}

impl<'a> Reading<'a> {
    fn refused<T>(&self, why: &'static str) -> Result<T, Refused> {
        Err(Refused { why, at: self.at })
    }

    fn next(&mut self) -> Result<(Event<'a>, Range<usize>), Refused> {
        let next = self.events.next();
        next.ok_or(Refused { why: "the text ends too early", at: self.at })
    }

    /// Whether the next event is the end of a collection.
    fn ends(&self) -> bool {
        matches!(
            self.events.as_slice().first(),
            None | Some((Event::SequenceEnd | Event::MappingEnd, _))
        )
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Passes over space and comments.
    fn gap(&mut self) {
        while let Some(byte) = self.byte() {
            match byte {
                b' ' | b'\t' | b'\n' => self.at += 1,
                b'#' => self.comment(),
                _ => break,
            }
        }
    }

    fn comment(&mut self) {
        let start = self.at;
        let end = self.text[start..].find('\n').map_or(self.text.len(), |length| start + length);
        let before = &self.text[line_start(self.text, start)..start];
        self.comments.push(Comment {
            text: self.text[start..end].trim_end().to_owned(),
            at: start,
            column: before.chars().count(),
            is_own_line: before.chars().all(char::is_whitespace),
            has_blank: has_blank_above(self.text, start),
        });
        self.at = end;
    }

    /// Passes over a mark that must be there.
    fn mark(&mut self, mark: &str) -> Result<(), Refused> {
        self.gap();
        if !self.text[self.at..].starts_with(mark) {
            return self.refused("the marks of this text are not understood");
        }
        self.pass(mark.len());
        Ok(())
    }

    /// Passes over a mark if it is there.
    fn maybe_mark(&mut self, mark: u8) -> bool {
        self.gap();
        let is_there = self.byte() == Some(mark);
        if is_there {
            self.pass(1);
        }
        is_there
    }

    fn pass(&mut self, length: usize) {
        self.at += length;
        self.last = self.at;
    }

    fn stream(&mut self) -> Result<Stream, Refused> {
        let mut documents: Vec<Document> = Vec::new();
        let mut rest = Vec::new();
        let mut seen = 0;
        loop {
            match self.next()?.0 {
                Event::DocumentStart(is_explicit) => {
                    if is_explicit || !documents.is_empty() {
                        self.before_document()?;
                    }
                    let before = self.comments[seen..].to_vec();
                    let preamble = match documents.last_mut() {
                        Some(earlier) => {
                            earlier.place_all(before);
                            Vec::new()
                        }
                        None => before,
                    };
                    seen = self.comments.len();
                    let has_blank = has_blank_above(self.text, self.at);
                    if is_explicit {
                        self.mark("---")?;
                    }
                    let root = self.node()?;
                    let mut document = Document::new(is_explicit, has_blank, preamble, root);
                    document.place_all(self.comments[seen..].to_vec());
                    seen = self.comments.len();
                    documents.push(document);
                }
                Event::StreamEnd => {
                    self.before_document()?;
                    if self.at < self.text.len() {
                        return self.refused("the end of this text is not understood");
                    }
                    let left = self.comments[seen..].to_vec();
                    match documents.last_mut() {
                        Some(last) => last.place_all(left),
                        None => rest = left,
                    }
                    break;
                }
                _ => {}
            }
        }
        let comments = self.comments.iter().map(|comment| comment.text.clone()).collect();
        Ok(Stream { documents, rest, comments })
    }

    /// Passes over what may stand between two documents.
    fn before_document(&mut self) -> Result<(), Refused> {
        loop {
            self.gap();
            if self.text[self.at..].starts_with("...") {
                self.pass(3);
                let from = self.comments.len();
                self.gap();
                // A comment behind `...` is behind nothing that stays.
                for comment in &mut self.comments[from..] {
                    comment.is_own_line = true;
                    comment.column = 0;
                }
            } else if self.byte() == Some(b'%') {
                return self.refused("directives like `%YAML` are not understood");
            } else {
                return Ok(());
            }
        }
    }

    fn node(&mut self) -> Result<Node, Refused> {
        let (event, span) = self.next()?;
        let (anchor, tag) = match &event {
            Event::Scalar(_, _, anchor, tag)
            | Event::SequenceStart(anchor, tag)
            | Event::MappingStart(anchor, tag) => (*anchor != 0, tag.is_some()),
            _ => (false, false),
        };
        let is_empty =
            matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, _) if text.is_empty());
        if is_empty && !anchor && !tag {
            let shape = Shape::Empty;
            return Ok(Node { properties: Vec::new(), shape, start: self.last, end: self.last });
        }
        self.gap();
        let start = self.at;
        let properties = self.properties(usize::from(anchor) + usize::from(tag))?;
        let shape = match event {
            _ if is_empty => Shape::Empty,
            Event::Scalar(meaning, style, _, _) => self.scalar(&meaning, style, span.end)?,
            Event::Alias(_) => {
                self.gap();
                let length = self.text[self.at..].find(is_end_of_name);
                let length = length.unwrap_or(self.text.len() - self.at);
                self.text(String::new(), Style::Alias, self.at + length)?
            }
            Event::SequenceStart(..) => self.collection(false)?,
            Event::MappingStart(..) => self.collection(true)?,
            _ => return self.refused("the text ends too early"),
        };
        Ok(Node { properties, shape, start, end: self.last })
    }

    /// Anchor and tag, in the order in which they are written.
    fn properties(&mut self, count: usize) -> Result<Vec<String>, Refused> {
        let mut properties = Vec::new();
        for _ in 0..count {
            self.gap();
            let rest = &self.text[self.at..];
            if !rest.starts_with(['&', '!']) {
                return self.refused("the anchors and tags of this text are not understood");
            }
            let length = rest.find(is_end_of_name).unwrap_or(rest.len());
            properties.push(rest[..length].to_owned());
            self.pass(length);
        }
        Ok(properties)
    }

    fn scalar(&mut self, meaning: &str, style: ScalarStyle, end: usize) -> Result<Shape, Refused> {
        self.gap();
        let style = match (style, self.byte()) {
            (ScalarStyle::Plain, _) => Style::Plain,
            (ScalarStyle::SingleQuoted, Some(b'\'')) => Style::Single,
            (ScalarStyle::DoubleQuoted, Some(b'"')) => Style::Double,
            (ScalarStyle::Literal, Some(b'|')) | (ScalarStyle::Folded, Some(b'>')) => {
                return self.block(meaning);
            }
            _ => return self.refused("the quotes of this text are not understood"),
        };
        self.text(meaning.to_owned(), style, end)
    }

    fn text(&mut self, meaning: String, style: Style, end: usize) -> Result<Shape, Refused> {
        let rest = &self.text[self.at..];
        // The parser's ends of scalars lie behind what follows them in places.
        let length = match style {
            Style::Single => end_of_quoted(rest, b'\''),
            Style::Double => end_of_quoted(rest, b'"'),
            Style::Plain => end.checked_sub(self.at).map(|length| end_of_plain(rest, length)),
            Style::Alias => end.checked_sub(self.at),
        };
        let raw = length.and_then(|length| rest.get(..length)).unwrap_or_default().trim_end();
        if raw.is_empty() {
            return self.refused("the end of this text is not understood");
        }
        self.pass(raw.len());
        let count = raw.split('\n').count();
        let lines = raw.split('\n').enumerate().map(|(index, line)| {
            let line = if index == 0 { line } else { line.trim_start_matches([' ', '\t']) };
            let trimmed = line.trim_end_matches([' ', '\t']);
            // Behind a backslash space counts.
            let is_whole = index + 1 == count || trimmed.ends_with('\\');
            (if is_whole { line } else { trimmed }).to_owned()
        });
        Ok(Shape::Text(Text { lines: lines.collect(), meaning, style }))
    }

    fn block(&mut self, meaning: &str) -> Result<Shape, Refused> {
        let rest = &self.text[self.at..];
        let length = rest.find([' ', '\t', '\n']).unwrap_or(rest.len());
        let header = rest[..length].to_owned();
        self.pass(length);
        while matches!(self.byte(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
        if self.byte() == Some(b'#') {
            self.comment();
        }
        let from = (self.at + 1).min(self.text.len());
        let is_space = |line: &str| line.bytes().all(|byte| byte == b' ');
        let first = meaning.split('\n').find(|line| !is_space(line));
        let raw_first = self.text[from..].split('\n').find(|line| !is_space(line));
        let indent = match (raw_first, first) {
            (Some(raw), Some(first)) => spaces(raw).checked_sub(spaces(first)),
            _ => Some(usize::MAX),
        };
        let Some(indent) = indent.filter(|indent| *indent > 0) else {
            return self.refused("the indentation of this text is not understood");
        };
        let keeps_end = header.contains('+');
        let (mut lines, mut length, mut end) = (Vec::new(), 0, from);
        let mut at = from;
        for line in self.text[from..].split_inclusive('\n') {
            at += line.len();
            let line = line.trim_end_matches('\n');
            let is_blank = is_space(line) && line.len() <= indent;
            if !is_blank && spaces(line) < indent {
                break;
            }
            lines.push(line.get(indent..).unwrap_or_default().to_owned());
            if !is_blank || keeps_end {
                (length, end) = (lines.len(), at);
            }
        }
        lines.truncate(length);
        if end > from {
            self.at = end;
            self.last = end;
        }
        let indicator =
            header.bytes().find(u8::is_ascii_digit).map(|digit| usize::from(digit - b'0'));
        Ok(Shape::Block(Block { header, indicator, keeps_end, lines }))
    }

    fn collection(&mut self, is_map: bool) -> Result<Shape, Refused> {
        self.gap();
        let (open, close) = if is_map { ('{', "}") } else { ('[', "]") };
        let is_flow = self.text[self.at..].starts_with(open);
        // The one pair of `[a: b]` has no braces of its own, and gets them.
        let is_pair = !is_flow && self.flow_depth > 0;
        // In braces columns mean nothing, and one line may have very many of them.
        let column = if is_flow || is_pair {
            0
        } else {
            self.text[line_start(self.text, self.at)..self.at].chars().count()
        };
        if is_flow {
            self.pass(1);
            self.flow_depth += 1;
        }
        let mut items = Vec::new();
        while !self.ends() {
            items.push(if is_map { self.entry()? } else { self.element(is_flow)? });
            if is_flow {
                self.maybe_mark(b',');
            }
        }
        self.next()?;
        if is_flow {
            self.mark(close)?;
            self.flow_depth -= 1;
        }
        Ok(Shape::Collection(Collection {
            is_map,
            is_flow: is_flow || is_pair,
            column,
            items,
            foot: Vec::new(),
        }))
    }

    fn element(&mut self, is_flow: bool) -> Result<Item, Refused> {
        self.gap();
        let start = self.at;
        if !is_flow {
            self.mark("-")?;
        }
        let value = self.node()?;
        Ok(self.item(start, None, value))
    }

    fn entry(&mut self) -> Result<Item, Refused> {
        self.gap();
        let start = self.at;
        let rest = &self.text.as_bytes()[start..];
        let is_explicit = rest.first() == Some(&b'?')
            && rest.get(1).is_none_or(|byte| matches!(byte, b' ' | b'\t' | b'\n'));
        if is_explicit {
            self.pass(1);
        }
        let key = self.node()?;
        self.maybe_mark(b':');
        let value = self.node()?;
        Ok(self.item(start, Some(key), value))
    }

    fn item(&self, start: usize, key: Option<Node>, value: Node) -> Item {
        Item {
            leading: Vec::new(),
            has_blank: has_blank_above(self.text, start),
            start,
            key,
            value,
            trailing: Vec::new(),
            below: Vec::new(),
        }
    }
}

fn is_end_of_name(character: char) -> bool {
    character.is_whitespace() || matches!(character, ',' | '[' | ']' | '{' | '}')
}

/// The length of a scalar in quotes, with them.
fn end_of_quoted(text: &str, quote: u8) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 1;
    while let Some(&byte) = bytes.get(at) {
        let is_pair = match quote {
            b'"' => byte == b'\\',
            _ => byte == quote && bytes.get(at + 1) == Some(&quote),
        };
        if byte == quote && !is_pair {
            return Some(at + 1);
        }
        at += if is_pair { 2 } else { 1 };
    }
    None
}

/// The length of a scalar without quotes: no comment is part of it.
fn end_of_plain(text: &str, length: usize) -> usize {
    let raw = text.get(..length).unwrap_or(text);
    let comment = raw
        .char_indices()
        .zip(raw.chars().skip(1))
        .find(|((_, before), at)| before.is_ascii_whitespace() && *at == '#');
    comment.map_or(raw.len(), |((at, _), _)| at)
}

fn spaces(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

/// Whether the line above is empty, and nothing stands before in this one.
fn has_blank_above(text: &str, at: usize) -> bool {
    let without_space = |text: &'_ str| text.trim_end_matches([' ', '\t']).len();
    let Some(above) = text[..without_space(&text[..at])].strip_suffix('\n') else {
        return false;
    };
    let above = &above[..without_space(above)];
    above.is_empty() || above.ends_with('\n')
}
