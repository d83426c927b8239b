//! YAML as it is written: the tree that is read from the text, arranged, and printed again.

/// A comment, from its `#` to the end of its line.
#[derive(Debug, Clone)]
pub(super) struct Comment {
    /// Its characters.
    pub text: String,
    /// Where it stood, in bytes.
    pub at: usize,
    /// The column it stood in, from 0.
    pub column: usize,
    /// Whether nothing stood before it in its line.
    pub is_own_line: bool,
    /// Whether an empty line stood above it.
    pub has_blank: bool,
}

/// A document of a stream.
#[derive(Debug)]
pub(super) struct Document {
    /// Whether `---` stands before it.
    pub is_explicit: bool,
    /// Whether an empty line stood above its `---`.
    pub has_blank: bool,
    /// Comments above the `---` of the first document.
    pub preamble: Vec<Comment>,
    /// Comments behind `---`.
    pub separator: Vec<Comment>,
    /// Comments above the first thing in it, which stay there.
    pub header: Vec<Comment>,
    /// Whether an empty line stood between the header and what follows.
    pub has_header_blank: bool,
    /// What it holds.
    pub root: Node,
    /// Comments behind everything else.
    pub foot: Vec<Comment>,
}

/// A value as it is written.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Anchor and tag, as written.
    pub properties: Vec<String>,
    /// What it is.
    pub shape: Shape,
    /// Where it begins, in bytes.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    /// Nothing is written, which means null.
    Empty,
    /// A scalar in quotes or without, or an alias, as written.
    Text(Text),
    /// A scalar under `|` or `>`.
    Block(Block),
    /// A mapping or a sequence.
    Collection(Collection),
}

/// A scalar as written.
#[derive(Debug, Clone)]
pub(super) struct Text {
    /// Its lines, with quotes; those after the first without what they were indented by.
    pub lines: Vec<String>,
    /// What it says.
    pub meaning: String,
    /// How it is written.
    pub style: Style,
}

/// How a scalar is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Without quotes.
    Plain,
    /// In single quotes.
    Single,
    /// In double quotes.
    Double,
    /// `*name`
    Alias,
}

/// A scalar under `|` or `>`.
#[derive(Debug, Clone)]
pub(super) struct Block {
    /// `|`, `>-`, `|2+` …
    pub header: String,
    /// How much deeper than its parent the text is, where the header says so.
    pub indicator: Option<usize>,
    /// Whether empty lines at its end count (`+`).
    pub keeps_end: bool,
    /// Its lines without what they were indented by.
    pub lines: Vec<String>,
}

/// A mapping or a sequence.
#[derive(Debug, Clone)]
pub(super) struct Collection {
    /// A mapping, not a sequence.
    pub is_map: bool,
    /// In braces or brackets.
    pub is_flow: bool,
    /// The column of its items, from 0.
    pub column: usize,
    /// Its entries or items.
    pub items: Vec<Item>,
    /// Comments behind its last item.
    pub foot: Vec<Comment>,
}

/// An entry of a mapping or an item of a sequence.
#[derive(Debug, Clone)]
pub(super) struct Item {
    /// Comments above it.
    pub leading: Vec<Comment>,
    /// Whether an empty line stood right above it.
    pub has_blank: bool,
    /// Where it begins, in bytes.
    pub start: usize,
    /// The key; none in a sequence.
    pub key: Option<Node>,
    /// The value.
    pub value: Node,
    /// Comments behind it, in its line.
    pub trailing: Vec<Comment>,
    /// Comments below it in the place of a value, where it has none: often a value taken out.
    pub below: Vec<Comment>,
}

impl Item {
    /// Puts a comment above it, as the last of those there.
    pub fn hoist(&mut self, mut comment: Comment) {
        comment.has_blank = std::mem::take(&mut self.has_blank);
        self.leading.push(comment);
    }
}

impl Node {
    /// The collection that it is, if it has anything in it.
    pub fn filled(&self) -> Option<&Collection> {
        match &self.shape {
            Shape::Collection(collection) if !collection.items.is_empty() => Some(collection),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub fn filled_mut(&mut self) -> Option<&mut Collection> {
        match &mut self.shape {
            Shape::Collection(collection) if !collection.items.is_empty() => Some(collection),
            _ => None,
        }
    }

    /// What a scalar in one line says.
    pub fn meaning(&self) -> Option<&str> {
        match &self.shape {
            Shape::Text(text) if text.style != Style::Alias => Some(&text.meaning),
            _ => None,
        }
    }
}

impl Collection {
    /// Whether there is a comment anywhere in it.
    pub fn has_comments(&self) -> bool {
        !self.foot.is_empty()
            || self.items.iter().any(|item| {
                !item.leading.is_empty()
                    || !item.trailing.is_empty()
                    || item.value.filled().is_some_and(Self::has_comments)
            })
    }
}
