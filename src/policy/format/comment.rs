//! To what a comment belongs.
//!
//! A comment in a line of its own belongs to what it stands above, or ends the collection whose
//! column it stands in; one behind something belongs to that. A comment in the middle of something
//! (between a key and its scalar) goes above the whole.

use super::tree::{Collection, Comment, Document, Node, Shape};

impl Document {
    pub(super) fn new(
        is_explicit: bool,
        has_blank: bool,
        preamble: Vec<Comment>,
        root: Node,
    ) -> Self {
        Self {
            is_explicit,
            has_blank,
            preamble,
            separator: Vec::new(),
            header: Vec::new(),
            has_header_blank: false,
            root,
            foot: Vec::new(),
        }
    }

    /// Puts comments, which are in order, where they belong.
    pub(super) fn place_all(&mut self, comments: Vec<Comment>) {
        for comment in comments {
            let is_before = comment.at < self.root.start || self.root.start == self.root.end;
            if !comment.is_own_line && is_before {
                self.separator.push(comment);
                continue;
            }
            let left = match self.root.filled_mut() {
                Some(root) => place(root, comment),
                None => Some(comment),
            };
            match left {
                Some(comment) if is_before => self.header.push(comment),
                Some(comment) => self.foot.push(comment),
                None => {}
            }
        }
    }
}

/// Puts a comment into a collection; one that has no place there is given back.
fn place(collection: &mut Collection, comment: Comment) -> Option<Comment> {
    let index = collection.items.partition_point(|item| item.start < comment.at);
    let column = collection.column;
    // Where one comment has left what is deeper, those below it do not go back.
    let is_left = match collection.items.get(index) {
        Some(next) => !next.leading.is_empty(),
        None => !collection.foot.is_empty(),
    };
    if let Some(item) = index.checked_sub(1).and_then(|before| collection.items.get_mut(before)) {
        let end = item.value.end;
        let column = if is_left { usize::MAX } else { column };
        if let Some(inner) = item.value.filled_mut()
            && belongs(inner, &comment, end, column)
        {
            return place(inner, comment);
        }
        if !comment.is_own_line {
            item.trailing.push(comment);
            return None;
        }
        let is_empty = matches!(item.value.shape, Shape::Empty) && !collection.is_flow;
        if is_empty && comment.column > column {
            item.below.push(comment);
            return None;
        }
        if comment.at < end && item.value.filled().is_none() {
            item.hoist(comment);
            return None;
        }
    }
    match collection.items.get_mut(index) {
        Some(next) => next.leading.push(comment),
        None => collection.foot.push(comment),
    }
    None
}

/// Whether a comment behind the beginning of an item belongs into the collection that is its
/// value, which ends at `end`. In the last place it does only if it is deeper than `column`.
fn belongs(inner: &Collection, comment: &Comment, end: usize, column: usize) -> bool {
    let (Some(first), Some(last)) = (inner.items.first(), inner.items.last()) else {
        return false;
    };
    if comment.at < first.start {
        return comment.is_own_line;
    }
    if inner.is_flow {
        return comment.at < end;
    }
    let is_deeper = comment.column > column && comment.column >= inner.column;
    !comment.is_own_line || comment.at < last.start || is_deeper
}
