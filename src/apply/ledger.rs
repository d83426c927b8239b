//! The ledger: every action with its plan, its reasons and what came of it.
//!
//! A file that is only appended to, one JSON object per line, each line made to last before the
//! next step. It is for auditors. Nothing is planned from it, with one exception: how many images
//! an engine held in the last round, which a guard compares.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::Outcome;
use crate::apply::Ending;
use crate::plan::{Change, Plan};

/// So much of the end of a ledger is searched for the last round, then so much.
const TAILS: [u64; 2] = [64 << 10, 4 << 20];

/// Why the ledger could not be used.
#[derive(Debug, thiserror::Error)]
#[error("ledger {}: {source}", path.display())]
pub struct LedgerError {
    path: PathBuf,
    source: io::Error,
}

/// An append-only file of what was done.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: Mutex<Option<File>>,
}

impl Ledger {
    /// The ledger in a file, which is made when the first line is written.
    pub fn new(path: PathBuf) -> Self {
        Self { path, file: Mutex::new(None) }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn round_began(&self, plan: &Plan, now: Timestamp) -> Result<(), LedgerError> {
        let engines: Vec<Value> = plan
            .engines
            .iter()
            .map(|engine| json!({"name": engine.name, "identity": engine.identity, "images": engine.images}))
            .collect();
        self.append(&json!({
            "event": "round-began",
            "at": now,
            "plan": plan.id,
            "policies": plan.policies_digest,
            "engines": engines,
            "summary": plan.summary,
            "refusals": plan.refusals,
        }))
    }

    pub(super) fn round_ended(
        &self,
        plan: &Plan,
        outcomes: &[Outcome],
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let count =
            |word: &str| outcomes.iter().filter(|outcome| outcome.ending.word() == word).count();
        self.append(&json!({
            "event": "round-ended",
            "at": now,
            "plan": plan.id,
            "done": count("done"),
            "found": count("found"),
            "failed": count("failed"),
            "skipped": count("skipped"),
            "refused": count("refused"),
            "left": count("left"),
        }))
    }

    pub(super) fn change_began(
        &self,
        plan: &str,
        change: &Change,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        self.append(&json!({"event": "change-began", "at": now, "plan": plan, "change": change}))
    }

    pub(super) fn change_ended(
        &self,
        plan: &str,
        change: &Change,
        ending: &Ending,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        self.append(&json!({
            "event": "change-ended",
            "at": now,
            "plan": plan,
            "action": change.action,
            "engine": change.engine,
            "image": change.image.name,
            "copy": change.copy.as_ref().map(|copy| json!({"name": copy.name, "location": copy.location})),
            "drill": change.drill,
            "outcome": ending,
        }))
    }

    /// How many images an engine held in the last round, as far as the ledger says.
    pub fn images_seen(&self, engine: &str) -> Option<u64> {
        let mut file = File::open(&self.path).ok()?;
        let length = file.metadata().ok()?.len();
        // Most often the last few lines say it.
        TAILS.into_iter().find_map(|bytes| {
            file.seek(SeekFrom::Start(length.saturating_sub(bytes))).ok()?;
            let mut tail = Vec::new();
            file.read_to_end(&mut tail).ok()?;
            last_seen(&tail, engine)
        })
    }

    fn append(&self, line: &impl Serialize) -> Result<(), LedgerError> {
        let error = |source| LedgerError { path: self.path.clone(), source };
        let mut text = serde_json::to_vec(line).map_err(io::Error::other).map_err(error)?;
        text.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let open = match &mut *file {
            Some(open) => open,
            none => none.insert(self.open().map_err(error)?),
        };
        // One write per line: lines of two processes do not run into each other.
        open.write_all(&text).and_then(|()| open.sync_data()).map_err(error)
    }

    /// Opens for appending. A line that a killed process left half written is ended first.
    fn open(&self) -> io::Result<File> {
        if let Some(parent) = self.path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut file = File::options().create(true).append(true).read(true).open(&self.path)?;
        let length = file.metadata()?.len();
        if length > 0 {
            let mut last = [0];
            file.seek(SeekFrom::Start(length - 1))?;
            file.read_exact(&mut last)?;
            if last != [b'\n'] {
                file.write_all(b"\n")?;
            }
        }
        Ok(file)
    }
}

/// The last round of an engine in the end of a ledger.
fn last_seen(tail: &[u8], engine: &str) -> Option<u64> {
    tail.rsplit(|byte| *byte == b'\n').find_map(|line| {
        let line: Value = serde_json::from_slice(line).ok()?;
        if line["event"] != "round-began" {
            return None;
        }
        let engines = line["engines"].as_array()?;
        engines.iter().find(|one| one["name"] == engine)?["images"].as_u64()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_written_line_is_ended_before_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/ledger.ndjson");
        Ledger::new(path.clone()).append(&json!({"a": 1})).unwrap();
        File::options().append(true).open(&path).unwrap().write_all(b"{\"half").unwrap();
        Ledger::new(path.clone()).append(&json!({"b": 2})).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"a\":1}\n{\"half\n{\"b\":2}\n");
    }

    #[test]
    fn the_last_round_of_an_engine_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::new(directory.path().join("ledger.ndjson"));
        assert_eq!(ledger.images_seen("a"), None);
        for images in [3, 5] {
            ledger
                .append(
                    &json!({"event": "round-began", "engines": [{"name": "a", "images": images}]}),
                )
                .unwrap();
            ledger.append(&json!({"event": "change-ended"})).unwrap();
        }
        assert_eq!(ledger.images_seen("a"), Some(5));
        assert_eq!(ledger.images_seen("b"), None);
    }
}
