//! The canonical form of policy files: text in, text out, with every comment.
//!
//! [`format()`] reads the text as it is written (`read`), arranges it (`arrange`: order of keys,
//! quotes, what stands in one line) and prints it. It then reads its own output and holds three things
//! against the original: what the documents mean, which comments there are, and how often each
//! letter occurs. Where one differs nothing is changed, and a finding says so.

mod arrange;
mod comment;
mod order;
mod print;
mod read;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::BTreeMap;
use std::sync::Arc;

use self::read::{Refused, Stream};
use super::finding::{Code, Finding, Place, SourceFile};
use super::yaml;

/// The canonical form of the text of a file. A file that is not valid YAML, or that cannot be
/// formatted, has findings instead, and stays as it is.
pub fn format(file: &Arc<SourceFile>) -> Result<String, Vec<Finding>> {
    let (documents, findings) = yaml::read(file);
    if !findings.is_empty() {
        return Err(findings);
    }
    let meaning: Vec<serde_json::Value> = documents.iter().map(yaml::Node::to_json).collect();
    let text = normal(&file.text);
    // Places are lines: line ends and a byte order mark moved the bytes.
    let place = |at: usize| {
        let line = text[..at.min(text.len())].matches('\n').count();
        let before = file.text.split_inclusive('\n').take(line).map(str::len).sum();
        Place { file: Arc::clone(file), span: before..before }
    };
    let refuse = |Refused { why, at }: Refused| {
        let message = format!("the file cannot be formatted and stays as it is: {why}");
        vec![Finding::new(Code::NotFormatted, place(at), message)]
    };
    // An alias cannot stand above its anchor: where the order would do that, keys stay.
    for orders in [true, false] {
        let stream = read::read(&text).map_err(refuse)?;
        let comments = stream.comments.clone();
        if let Some(formatted) = written(stream, orders)
            && says_the_same(&formatted, &meaning, comments)
            && tally(&formatted) == tally(&text)
        {
            return Ok(formatted);
        }
    }
    let why = "it would mean something else, or lose a comment";
    Err(refuse(Refused { why, at: 0 }))
}

/// The text with `\n` at the end of lines and without byte order mark.
fn normal(text: &str) -> String {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.replace("\r\n", "\n").replace('\r', "\n")
}

fn written(stream: Stream, orders: bool) -> Option<String> {
    let Stream { mut documents, rest, .. } = stream;
    for document in &mut documents {
        arrange::arrange(document, orders);
    }
    print::print(&documents, &rest)
}

/// How often each letter, digit and `#` occurs. Formatting moves them and changes none: this knows
/// nothing of YAML, and so notices what reading gets wrong both times.
fn tally(text: &str) -> BTreeMap<char, usize> {
    let mut tally = BTreeMap::new();
    for character in text.chars().filter(|c| c.is_alphanumeric() || *c == '#') {
        *tally.entry(character).or_default() += 1;
    }
    tally
}

/// Whether a text has this meaning and these comments.
fn says_the_same(text: &str, meaning: &[serde_json::Value], mut comments: Vec<String>) -> bool {
    let file = Arc::new(SourceFile { path: String::new(), text: text.to_owned() });
    let (documents, findings) = yaml::read(&file);
    let is_same = findings.is_empty()
        && documents.iter().map(yaml::Node::to_json).eq(meaning.iter().cloned());
    let Ok(stream) = read::read(text) else { return false };
    let mut kept = stream.comments;
    kept.sort_unstable();
    comments.sort_unstable();
    is_same && kept == comments
}
