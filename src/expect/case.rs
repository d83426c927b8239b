//! What test documents mean: cases whose values are read, in the order of the text.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::slots::SlotPattern;
use super::written::How;
use crate::inventory::{ImageState, Stage};
use crate::name::{Slot, SourceId};
use crate::plan::ReasonCode;
use crate::plan::guard::Guard;
use crate::policy::SourceFile;
use crate::policy::finding::Place;
use crate::policy::yaml::{Node, Value, unescape};

/// A test document whose form is right.
#[derive(Debug)]
pub struct Suite {
    pub(super) text: Text,
    /// Its name.
    pub name: String,
    /// Files and directories of policies, relative to the file; `None` means what the caller
    /// reads.
    pub policies: Option<Vec<String>>,
    /// The environment whose overlay holds; `None` means the one of the caller.
    pub environment: Option<String>,
    pub(super) engine: Option<Named>,
    /// Its cases.
    pub cases: Vec<Case>,
}

impl Suite {
    /// The path of its file.
    pub fn path(&self) -> &str {
        &self.text.file.path
    }
}

/// The text of a document, which knows where its values stand.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) file: Arc<SourceFile>,
    pub(super) node: Node,
}

impl Text {
    /// Where the value of a JSON pointer stands, or what it would stand in: a scalar itself, a
    /// collection by its key.
    pub(super) fn place(&self, pointer: &str) -> Place {
        let mut pointer = pointer;
        loop {
            if let Some(node) = self.node.at(pointer) {
                return self.place_of(pointer, node);
            }
            pointer = pointer.rsplit_once('/').map_or("", |(parent, _)| parent);
        }
    }

    fn place_of(&self, pointer: &str, node: &Node) -> Place {
        let (parent, token) = pointer.rsplit_once('/').unwrap_or(("", ""));
        let key = self.node.at(parent).and_then(|parent| parent.entry(&unescape(token)));
        let span = match (&node.value, key) {
            // A pattern or a reason as a key: what is said of it may be wrong, or it itself.
            (_, Some(key)) if is_word(parent) => key.key_span.clone(),
            (Value::Scalar(_), _) if !node.span.is_empty() => node.span.clone(),
            (_, Some(key)) => key.key_span.clone(),
            // An item of a list: what it begins with.
            (Value::Map(entries), None) => {
                entries.first().map_or(node.span.clone(), |first| first.key_span.clone())
            }
            _ => node.span.start..node.span.start,
        };
        Place { file: Arc::clone(&self.file), span }
    }
}

/// Whether keys under a pointer are words of the user.
fn is_word(pointer: &str) -> bool {
    pointer.ends_with("/reasons") || pointer.ends_with("/byReason")
}

/// A world, an instant, and what the plan must be.
#[derive(Debug)]
pub struct Case {
    pub(super) pointer: String,
    /// What it says.
    pub name: String,
    /// Where its name stands.
    pub place: Place,
    pub(super) now: Timestamp,
    pub(super) policy: Option<Named>,
    pub(super) source: Option<Named>,
    pub(super) sources: Vec<Source>,
    pub(super) histories: Vec<History>,
    pub(super) images: Vec<Images>,
    pub(super) expect: Expect,
}

/// The name of a policy, a source or an engine, and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) pointer: String,
}

/// An instance.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) id: SourceId,
    pub(super) zone: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) disks: Vec<String>,
    pub(super) engine: Option<Named>,
    pub(super) gone: Option<Timestamp>,
}

/// Restore points that a schedule has made.
#[derive(Debug, Clone)]
pub(super) struct History {
    pub(super) pointer: String,
    pub(super) policy: Option<Named>,
    pub(super) source: Option<Named>,
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
    pub(super) how: How,
    pub(super) missing: Vec<SlotPattern>,
    pub(super) failed: Vec<SlotPattern>,
}

/// Restore points that differ only in their slot.
#[derive(Debug)]
pub(super) struct Images {
    pub(super) pointer: String,
    pub(super) policy: Option<Named>,
    pub(super) source: Option<Named>,
    pub(super) slots: Vec<Slot>,
    pub(super) state: ImageState,
    pub(super) stage: Stage,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) in_use_by: Vec<String>,
    pub(super) location: Option<String>,
    pub(super) copy: bool,
}

/// What becomes of a restore point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    Created,
    Kept,
    Deprecated,
    Obsoleted,
    InGrace,
    Reactivated,
    Deleted,
    HeldBack,
    Copied,
    Drilled,
}

impl Fate {
    /// The key in a test document.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Kept => "kept",
            Self::Deprecated => "deprecated",
            Self::Obsoleted => "obsoleted",
            Self::InGrace => "inGrace",
            Self::Reactivated => "reactivated",
            Self::Deleted => "deleted",
            Self::HeldBack => "heldBack",
            Self::Copied => "copied",
            Self::Drilled => "drilled",
        }
    }

    /// In a sentence: `35 restore points are …`.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::InGrace => "in their grace",
            Self::HeldBack => "held back",
            other => other.key(),
        }
    }
}

/// What is expected of a set of restore points.
#[derive(Debug, Default)]
pub(super) struct Points {
    pub(super) location: Option<String>,
    pub(super) count: Option<u32>,
    pub(super) at_least: Option<u32>,
    pub(super) at_most: Option<u32>,
    pub(super) slots: Option<Vec<SlotPattern>>,
    pub(super) has: Vec<SlotPattern>,
    pub(super) lacks: Vec<SlotPattern>,
    pub(super) oldest: Option<SlotPattern>,
    pub(super) newest: Option<SlotPattern>,
    pub(super) reasons: Vec<(SlotPattern, ReasonCode)>,
    pub(super) by_reason: Vec<(ReasonCode, u32)>,
}

/// What the plan must be.
#[derive(Debug, Default)]
pub(super) struct Expect {
    pub(super) points: BTreeMap<Fate, Points>,
    pub(super) missed: Option<u32>,
    pub(super) refused: Option<Vec<Guard>>,
    pub(super) nothing: Option<bool>,
    /// Names of sources, by the key that they stand under.
    pub(super) sources: BTreeMap<&'static str, Vec<String>>,
    pub(super) next: Option<Vec<Slot>>,
    pub(super) findings: Option<Vec<String>>,
    /// Whether it says nothing but which findings there are, so that policies with mistakes can be
    /// tested as well.
    pub(super) only_findings: bool,
}
