//! The tree into text.

use super::tree::{Collection, Comment, Document, Item, Node, Shape, Style};

/// Prints documents. Something that cannot be printed is none at all.
pub(super) fn print(documents: &[Document], rest: &[Comment]) -> Option<String> {
    let mut printer = Printer { out: String::new(), holds_end: false };
    for (index, document) in documents.iter().enumerate() {
        printer.document(document, index == 0)?;
    }
    printer.comments(rest, 0);
    Some(printer.out)
}

/// A collection in one line, if it can be.
pub(super) fn flow(collection: &Collection) -> Option<String> {
    let mut text = String::new();
    flow_collection(collection, &mut text)?;
    Some(text)
}

fn flow_collection(collection: &Collection, text: &mut String) -> Option<()> {
    text.push(if collection.is_map { '{' } else { '[' });
    for (index, item) in collection.items.iter().enumerate() {
        if index > 0 {
            text.push_str(", ");
        }
        if let Some(key) = &item.key {
            text.push_str(&key_text(key)?);
            if item.value.properties.is_empty() && matches!(item.value.shape, Shape::Empty) {
                continue;
            }
            text.push_str(": ");
        }
        flow_node(&item.value, text)?;
    }
    text.push(if collection.is_map { '}' } else { ']' });
    Some(())
}

fn flow_node(node: &Node, text: &mut String) -> Option<()> {
    text.push_str(&node.properties.join(" "));
    match &node.shape {
        Shape::Empty => return Some(()),
        Shape::Block(_) => return None,
        _ if !node.properties.is_empty() => text.push(' '),
        _ => {}
    }
    match &node.shape {
        Shape::Text(scalar) => match scalar.lines.as_slice() {
            [line] => text.push_str(line),
            _ => return None,
        },
        Shape::Collection(collection) => flow_collection(collection, text)?,
        Shape::Empty | Shape::Block(_) => {}
    }
    Some(())
}

/// A key without its colon.
fn key_text(key: &Node) -> Option<String> {
    let Shape::Text(text) = &key.shape else { return None };
    let [line] = text.lines.as_slice() else { return None };
    let mut written = key.properties.join(" ");
    if !written.is_empty() {
        written.push(' ');
    }
    written.push_str(line);
    if text.style == Style::Alias {
        // `*a:` would be an alias of the name `a:`.
        written.push(' ');
    }
    Some(written)
}

struct Printer {
    out: String,
    /// Whether an empty line here would belong to the text before (`|+`).
    holds_end: bool,
}

impl Printer {
    fn push(&mut self, text: &str) {
        self.out.push_str(text);
        self.holds_end = false;
    }

    fn indent(&mut self, indent: usize) {
        self.push(&" ".repeat(indent));
    }

    fn blank(&mut self, asked: bool) {
        if asked && !self.out.is_empty() && !self.out.ends_with("\n\n") && !self.holds_end {
            self.out.push('\n');
        }
    }

    fn comments(&mut self, comments: &[Comment], indent: usize) {
        for comment in comments {
            self.blank(comment.has_blank);
            self.comment(comment, indent);
        }
    }

    fn comment(&mut self, comment: &Comment, indent: usize) {
        self.indent(indent);
        self.push(&comment.text);
        self.push("\n");
    }

    /// Comments behind what was printed, and the end of the line. All but the last were moved.
    fn end_line(&mut self, trailing: &[Comment]) {
        for comment in trailing {
            self.push("  ");
            self.push(&comment.text);
        }
        self.push("\n");
    }

    fn document(&mut self, document: &Document, is_first: bool) -> Option<()> {
        self.comments(&document.preamble, 0);
        let (separator, above) = match document.separator.split_first() {
            Some((first, above)) => (std::slice::from_ref(first), above),
            None => (&[][..], &[][..]),
        };
        if document.is_explicit || !is_first {
            self.blank(document.has_blank);
            self.push("---");
            self.end_line(separator);
        } else {
            self.comments(separator, 0);
        }
        self.comments(above, 0);
        for (index, comment) in document.header.iter().enumerate() {
            // Right behind `---` there is no empty line.
            self.blank(comment.has_blank && index > 0);
            self.comment(comment, 0);
        }
        self.blank(document.has_header_blank && !document.header.is_empty());
        self.root(&document.root)?;
        self.comments(&document.foot, 0);
        Some(())
    }

    fn root(&mut self, root: &Node) -> Option<()> {
        let mut lead = root.properties.join(" ");
        match &root.shape {
            Shape::Empty if lead.is_empty() => return Some(()),
            Shape::Collection(collection) if !collection.is_flow => {
                if !lead.is_empty() {
                    lead.push('\n');
                }
                self.push(&lead);
                return self.items(collection, 0, false);
            }
            _ => {}
        }
        self.push(&lead);
        let separator = if lead.is_empty() { "" } else { " " };
        self.value(&root.shape, separator, &[], 0)
    }

    /// `is_inline`: the first item stands behind something in its line.
    fn items(&mut self, collection: &Collection, indent: usize, is_inline: bool) -> Option<()> {
        for (index, item) in collection.items.iter().enumerate() {
            if index > 0 || !is_inline {
                self.before(item, indent, index == 0);
            }
            match &item.key {
                Some(key) => {
                    self.push(&key_text(key)?);
                    self.push(":");
                }
                None => self.push("-"),
            }
            self.item_value(item, indent)?;
            for (index, comment) in item.below.iter().enumerate() {
                self.blank(comment.has_blank && index > 0);
                self.comment(comment, indent + 2);
            }
        }
        self.comments(&collection.foot, indent);
        Some(())
    }

    /// What stands above an item; nothing stands between a collection and its first item.
    fn before(&mut self, item: &Item, indent: usize, is_first: bool) {
        for (index, comment) in item.leading.iter().enumerate() {
            self.blank(comment.has_blank && !(is_first && index == 0));
            self.comment(comment, indent);
        }
        self.blank(item.has_blank && !(is_first && item.leading.is_empty()));
        self.indent(indent);
    }

    fn item_value(&mut self, item: &Item, indent: usize) -> Option<()> {
        for property in &item.value.properties {
            self.push(" ");
            self.push(property);
        }
        if let Some(collection) = item.value.filled().filter(|collection| !collection.is_flow) {
            if item.key.is_none() && item.value.properties.is_empty() {
                self.push(" ");
                return self.items(collection, indent + 2, true);
            }
            self.end_line(&item.trailing);
            return self.items(collection, indent + 2, false);
        }
        self.value(&item.value.shape, " ", &item.trailing, indent)
    }

    /// Everything but a collection in block form; `indent` is the column of the parent.
    fn value(
        &mut self,
        shape: &Shape,
        separator: &str,
        trailing: &[Comment],
        indent: usize,
    ) -> Option<()> {
        match shape {
            Shape::Empty => self.end_line(trailing),
            Shape::Text(text) => {
                self.push(separator);
                for (index, line) in text.lines.iter().enumerate() {
                    if index > 0 {
                        self.push("\n");
                        self.indent(if line.is_empty() { 0 } else { indent + 2 });
                    }
                    self.push(line);
                }
                self.end_line(trailing);
            }
            Shape::Collection(collection) => {
                self.push(separator);
                self.push(&flow(collection)?);
                self.end_line(trailing);
            }
            Shape::Block(block) => {
                self.push(separator);
                self.push(&block.header);
                self.end_line(trailing);
                let indent = indent + block.indicator.unwrap_or(2);
                for line in &block.lines {
                    self.indent(if line.is_empty() { 0 } else { indent });
                    self.push(line);
                    self.push("\n");
                }
                self.holds_end = block.keeps_end;
            }
        }
        Some(())
    }
}
