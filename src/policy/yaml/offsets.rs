//! Where in the bytes of a text its characters stand.

use std::ops::Range;

use saphyr_parser::Span;

/// Byte offsets of characters: the parser counts characters, everything else bytes.
pub(in crate::policy) struct ByteOffsets {
    /// Empty where the text is ASCII and both are the same.
    offsets: Vec<usize>,
    length: usize,
}

impl ByteOffsets {
    pub(in crate::policy) fn new(text: &str) -> Self {
        let offsets = if text.is_ascii() {
            Vec::new()
        } else {
            text.char_indices().map(|(byte, _)| byte).collect()
        };
        Self { offsets, length: text.len() }
    }

    pub(in crate::policy) fn of(&self, character: usize) -> usize {
        if self.offsets.is_empty() {
            character.min(self.length)
        } else {
            self.offsets.get(character).copied().unwrap_or(self.length)
        }
    }

    pub(in crate::policy) fn range(&self, span: Span) -> Range<usize> {
        let start = self.of(span.start.index());
        start..self.of(span.end.index()).max(start)
    }
}
