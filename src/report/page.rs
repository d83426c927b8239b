//! A report that is read in several places: a terminal, a pull request, a browser.
//!
//! One page of words, and a writer for each place. What comes from outside (names, labels, messages)
//! is a cell of its own kind, and each writer makes it harmless in its own way: a name may hold `|`,
//! `<script>`, letters that turn the direction of writing, or what moves a cursor.

mod html;
mod markdown;
mod terminal;

pub use markdown::MARKER;

/// How much of a reader's attention something needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// Something is lost: never folded away.
    Danger,
    /// Somebody should look: not folded away.
    Notice,
    /// What is done or different.
    Change,
    /// What else there is to know.
    Aside,
}

/// A piece of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Words {
    /// Our own words.
    Own(String),
    /// A name, a label, a message: whatever somebody has written.
    Foreign(String),
}

/// Pieces one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Text(pub Vec<Words>);

impl Text {
    /// Our own words.
    pub fn own(text: impl Into<String>) -> Self {
        Self(vec![Words::Own(text.into())])
    }

    /// What somebody has written.
    pub fn foreign(text: impl Into<String>) -> Self {
        Self(vec![Words::Foreign(text.into())])
    }

    /// The same with our own words behind it.
    #[must_use]
    pub fn and(mut self, text: impl Into<String>) -> Self {
        self.0.push(Words::Own(text.into()));
        self
    }

    /// The same with a name behind it.
    #[must_use]
    pub fn name(mut self, text: impl Into<String>) -> Self {
        self.0.push(Words::Foreign(text.into()));
        self
    }
}

/// A part of a page: a table, and what is said below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its heading.
    pub title: String,
    /// How much attention it needs.
    pub weight: Weight,
    /// The headings of its columns; empty where it has no table.
    pub columns: Vec<&'static str>,
    /// Its rows, the most important first.
    pub rows: Vec<Vec<Text>>,
    /// What is said below it.
    pub notes: Vec<Text>,
}

impl Part {
    /// A part with a table.
    pub fn table(title: impl Into<String>, weight: Weight, columns: &[&'static str]) -> Self {
        let columns = columns.to_vec();
        Self { title: title.into(), weight, columns, rows: Vec::new(), notes: Vec::new() }
    }

    /// A part without a table.
    pub fn notes(title: impl Into<String>, weight: Weight, notes: Vec<Text>) -> Self {
        Self { title: title.into(), weight, columns: Vec::new(), rows: Vec::new(), notes }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.notes.is_empty()
    }
}

/// A report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its heading.
    pub title: String,
    /// The verdict, the worst first.
    pub verdict: Vec<(Weight, Text)>,
    /// Its parts, in order.
    pub parts: Vec<Part>,
    /// What it was made of, for who has doubts.
    pub footer: Vec<Text>,
}

impl Page {
    /// For a terminal.
    pub fn to_terminal(&self) -> String {
        terminal::write(self)
    }

    /// For a pull request: no longer than a comment may be.
    pub fn to_markdown(&self) -> String {
        markdown::write(self)
    }

    /// The same however long it is.
    pub fn to_long_markdown(&self) -> String {
        markdown::write_whole(self)
    }

    /// A whole HTML document without anything from elsewhere.
    pub fn to_html(&self) -> String {
        html::write(self)
    }
}

#[cfg(test)]
mod tests;
