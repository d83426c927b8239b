//! How it should be written: order, quotes, and what stands in one line.

use super::order::{Step, keys_at};
use super::print::flow;
use super::tree::{Collection, Comment, Document, Node, Shape, Style, Text};
use crate::policy::schema::trap;
use crate::policy::yaml;

/// What is in braces or brackets stays in one line up to this column.
const WIDTH: usize = 100;

/// Brings a document into its canonical form. Without `orders`, keys stay where they are.
pub(super) fn arrange(document: &mut Document, orders: bool) {
    let kind = kind_of(&document.root);
    if let Some(root) = document.root.filled_mut() {
        // What stands above the first key is about the file, whichever key that is.
        if let Some(first) = root.items.first_mut() {
            document.header.append(&mut first.leading);
            document.has_header_blank = std::mem::take(&mut first.has_blank);
        }
        root.is_flow = false;
    }
    quote(&mut document.root);
    if orders {
        order(&mut document.root, kind.as_deref(), &mut Vec::new());
    }
    if let Some(root) = document.root.filled_mut() {
        lay_out(root, 0);
    }
}

fn kind_of(root: &Node) -> Option<String> {
    let is_kind = |key: &Option<Node>| key.as_ref().and_then(Node::meaning) == Some("kind");
    let entry = root.filled()?.items.iter().find(|item| is_kind(&item.key))?;
    entry.value.meaning().map(str::to_owned)
}

/// Puts the keys into the order of the language: what is merged first, then the known ones, then
/// the others as they are.
fn order(node: &mut Node, kind: Option<&str>, path: &mut Vec<Step>) {
    let Some(collection) = node.filled_mut() else { return };
    if collection.is_map {
        let keys = keys_at(kind, path);
        collection.items.sort_by_key(|item| match item.key.as_ref().and_then(Node::meaning) {
            Some("<<") => 0,
            Some(key) => 1 + keys.iter().position(|known| *known == key).unwrap_or(keys.len()),
            None => 1 + keys.len(),
        });
    }
    for item in &mut collection.items {
        path.push(match item.key.as_ref().and_then(Node::meaning) {
            Some(key) => Step::Key(key.to_owned()),
            None => Step::Item,
        });
        order(&mut item.value, kind, path);
        path.pop();
    }
}

/// Puts double quotes where other readers need them, and in place of single ones where both mean
/// the same. Quotes are never taken away.
fn quote(node: &mut Node) {
    let is_tagged = node.properties.iter().any(|property| property.starts_with('!'));
    match &mut node.shape {
        Shape::Text(text) if !is_tagged => quote_text(text),
        Shape::Collection(collection) => {
            for item in &mut collection.items {
                if let Some(key) = &mut item.key {
                    quote(key);
                }
                quote(&mut item.value);
            }
        }
        _ => {}
    }
}

fn quote_text(text: &mut Text) {
    let [line] = text.lines.as_mut_slice() else { return };
    if text.meaning.contains(['"', '\\']) {
        return;
    }
    let asks = match text.style {
        Style::Plain => yaml::is_text(&text.meaning) && is_mistaken(&text.meaning),
        Style::Single => true,
        Style::Double | Style::Alias => false,
    };
    if asks {
        *line = format!("\"{}\"", text.meaning);
        text.style = Style::Double;
    }
}

/// Whether other readers, or people, take a plain text for something else: words and numbers of
/// YAML 1.1, times and dates, and patterns, whose `*` would be an alias at the beginning.
fn is_mistaken(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    let is_date = word.len() > 4
        && word.bytes().take(4).all(|byte| byte.is_ascii_digit())
        && word.as_bytes().get(4) == Some(&b'-');
    let is_number_like = word.starts_with(|first: char| first.is_ascii_digit())
        && word.chars().all(|c| c.is_ascii_digit() || ":-_+.TtZz ".contains(c))
        && (word.contains([':', '_']) || is_date);
    let is_float = matches!(lower.trim_start_matches(['+', '-']), ".inf" | ".nan");
    let is_binary = lower.strip_prefix("0b").is_some_and(|digits| {
        !digits.is_empty() && digits.bytes().all(|digit| matches!(digit, b'0' | b'1' | b'_'))
    });
    trap(word).is_some() || word.contains('*') || is_number_like || is_float || is_binary
}

/// Decides what stays in one line, and moves comments that have no place in what becomes of their
/// line above it. `indent` is the column of the items.
fn lay_out(collection: &mut Collection, indent: usize) {
    let is_map = collection.is_map;
    for item in &mut collection.items {
        let before = indent + lead_width(item.key.as_ref()) + properties_width(&item.value);
        let is_compact = !is_map && item.value.properties.is_empty();
        let mut inner_leading = Vec::new();
        let mut is_block = false;
        if let Some(inner) = item.value.filled_mut() {
            if inner.is_flow {
                let fits = !inner.has_comments()
                    && flow(inner).is_some_and(|text| before + text.chars().count() <= WIDTH);
                inner.is_flow = fits;
            }
            if !inner.is_flow {
                is_block = true;
                lay_out(inner, indent + 2);
                if let (true, Some(first)) = (is_compact, inner.items.first_mut()) {
                    inner_leading = std::mem::take(&mut first.leading);
                }
            }
        }
        // Behind `-` stands the first entry itself, not a comment.
        let kept = usize::from(!(is_block && is_compact));
        let count = item.trailing.len().saturating_sub(kept);
        let hoisted: Vec<Comment> = item.trailing.drain(..count).collect();
        for comment in hoisted.into_iter().chain(inner_leading) {
            item.hoist(comment);
        }
    }
}

/// The width of `key: ` or `- `.
fn lead_width(key: Option<&Node>) -> usize {
    match key {
        None => 2,
        Some(key) => {
            let text = match &key.shape {
                Shape::Text(text) => text.lines.iter().map(|line| line.chars().count()).sum(),
                _ => 0,
            };
            properties_width(key) + text + 2
        }
    }
}

fn properties_width(node: &Node) -> usize {
    node.properties.iter().map(|property| property.chars().count() + 1).sum()
}
