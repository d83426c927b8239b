//! The ledger: every action with its plan, its reasons and what came of it.
//!
//! A file that is only appended to, one JSON object per line, each line made to last before the
//! next step. Each line names the digest of the one before it, so a line that is changed or taken out
//! is noticed ([`chain`]). It is for auditors. Nothing is planned from it, with one exception: how many images
//! an engine held in the last round, which a guard compares.

pub(super) mod chain;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::Outcome;
use crate::apply::Ending;
use crate::inventory::Via;
use crate::name::step_name;
use crate::plan::guard::Approval;
use crate::plan::{Action, Change, Plan};

/// So much of what others have appended is searched first for its last line.
const TAIL_FIRST: u64 = 64 << 10;
/// A file that is another one at each look (some file systems say so) is written all the same.
const LOOKS: usize = 3;
/// So much of the end of a ledger is searched for the last round, then so much.
const TAILS: [u64; 3] = [64 << 10, 4 << 20, 64 << 20];

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
    open: Mutex<Option<Open>>,
    /// The last rounds of this process, by engine: the file may be gone, or may not have taken them.
    rounds: Mutex<BTreeMap<String, LastRound>>,
}

/// The last round of an engine.
#[derive(Debug, Clone, Copy)]
struct LastRound {
    images: u64,
    is_written: bool,
}

impl Ledger {
    /// The ledger in a file, which is made when the first line is written.
    pub fn new(path: PathBuf) -> Self {
        Self { path, open: Mutex::default(), rounds: Mutex::default() }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn round_began(
        &self,
        plan: &Plan,
        approvals: &[Approval],
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let approvals: Vec<Value> = approvals
            .iter()
            .map(|one| {
                json!({"class": one.class, "by": one.by, "at": one.at, "items": one.items.len()})
            })
            .collect();
        let engines: Vec<Value> = plan
            .engines
            .iter()
            .map(|engine| {
                // Of what was not seen whole nobody knows how many images there are.
                let images = engine.complete.then_some(engine.images);
                json!({"name": engine.name, "identity": engine.identity, "images": images})
            })
            .collect();
        let written = self.append(&json!({
            "event": "round-began",
            "at": now,
            "plan": plan.id,
            "policies": plan.policies_digest,
            "engines": engines,
            "summary": plan.summary,
            "refusals": plan.refusals,
            "approvals": approvals,
        }));
        let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        for engine in plan.engines.iter().filter(|engine| engine.complete) {
            let (images, is_written) = (engine.images as u64, written.is_ok());
            let before =
                rounds.get(&engine.name).filter(|before| !before.is_written && !is_written);
            // The most there were since the file has taken one, so that nothing shrinks unnoticed.
            let images = before.map_or(images, |before| before.images.max(images));
            rounds.insert(engine.name.clone(), LastRound { images, is_written });
        }
        written
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
            "underWay": count("under way"),
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
        let mut line = json!({
            "event": "change-ended",
            "at": now,
            "plan": plan,
            "action": change.action,
            "engine": change.engine,
            "image": change.image.name,
            "id": change.image.id,
            "copy": change.copy.as_ref().map(|copy| json!({"name": copy.name, "location": copy.location})),
            "drill": change.drill,
            "outcome": ending,
        });
        if change.action == Action::Delete && ending.is_done() {
            let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(last) = rounds.get_mut(&change.engine) {
                last.images = last.images.saturating_sub(1);
            }
        }
        // The snapshot of which it was made, which goes once the image is READY.
        let is_via = change.create.as_ref().is_some_and(|create| create.via == Via::Snapshot);
        if is_via && ending.is_done() {
            line["step"] = json!(step_name(&change.image.name));
        }
        self.append(&line)
    }

    /// How many images an engine held when it was last seen whole, less those that runs have deleted
    /// since, as far as the ledger says, or this process knows where the ledger has not taken it or is
    /// another one since.
    pub fn images_seen(&self, engine: &str) -> Option<u64> {
        let written = self.images_written(engine);
        let rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        match (written, rounds.get(engine)) {
            (Some(written), Some(last)) if !last.is_written => Some(written.max(last.images)),
            (None, Some(last)) => Some(last.images),
            (written, _) => written,
        }
    }

    fn images_written(&self, engine: &str) -> Option<u64> {
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

    /// Appends a line that names the one before it. Runs of other processes append as well, so the
    /// file is locked from the look at its end to the end of the write.
    fn append(&self, line: &impl Serialize) -> Result<(), LedgerError> {
        let error = |source| LedgerError { path: self.path.clone(), source };
        let mut line = serde_json::to_value(line).map_err(io::Error::other).map_err(error)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        Open::append(&mut open, &self.path, &mut line).map_err(error)
    }
}

/// The file while it is written.
#[derive(Debug)]
struct Open {
    file: File,
    /// How long it was when it was last written here.
    length: u64,
    /// The digest of the last line that was whole then.
    last: String,
}

impl Open {
    fn new(path: &Path) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = File::options().create(true).append(true).read(true).open(path)?;
        Ok(Self { file, length: 0, last: chain::BEGINNING.to_owned() })
    }

    /// Appends to the file that is at the path. The one that is open may have been moved away or
    /// removed, as whoever keeps logs short does: what is written there nobody would find.
    fn append(open: &mut Option<Self>, path: &Path, line: &mut Value) -> io::Result<()> {
        let mut own = match open.take() {
            Some(own) => own,
            None => Self::new(path)?,
        };
        own.file.lock()?;
        for _ in 0..LOOKS {
            if own.is_at(path) {
                break;
            }
            own = Self::new(path)?;
            own.file.lock()?;
        }
        let written = own.append_locked(line);
        // An error of the write says more.
        let unlocked = own.file.unlock();
        *open = Some(own);
        written.and(unlocked)
    }

    /// Whether it still is the file at the path.
    fn is_at(&self, path: &Path) -> bool {
        let which = |of: Metadata| (of.dev(), of.ino());
        let own = self.file.metadata().map(which);
        let there = fs::metadata(path).map(which);
        own.is_ok_and(|own| there.is_ok_and(|there| own == there))
    }

    fn append_locked(&mut self, line: &mut Value) -> io::Result<()> {
        self.catch_up()?;
        line["previous"] = Value::from(self.last.as_str());
        let mut text = serde_json::to_vec(line).map_err(io::Error::other)?;
        let digest = chain::digest(&text);
        text.push(b'\n');
        self.file.write_all(&text)?;
        self.file.sync_data()?;
        self.length += text.len() as u64;
        self.last = digest;
        Ok(())
    }

    /// The digest of the last whole line that others have appended, and whether what they wrote ends
    /// with a line.
    fn last_line(&mut self, length: u64) -> io::Result<(Option<String>, bool)> {
        let mut back = TAIL_FIRST;
        loop {
            let from = length.saturating_sub(back).max(self.length);
            self.file.seek(SeekFrom::Start(from))?;
            let mut tail = Vec::new();
            (&self.file).take(length - from).read_to_end(&mut tail)?;
            let ends = tail.last().is_none_or(|last| *last == b'\n');
            // What stands before the first newline is whole only at the beginning.
            let is_whole = |at: usize| at > 0 || from == self.length;
            let lines = chain::lines(&tail).into_iter().filter(|(at, _)| is_whole(*at));
            let last = lines.rev().find(|(_, line)| chain::is_line(line));
            if last.is_some() || from == self.length {
                return Ok((last.map(|(_, line)| chain::digest(line)), ends));
            }
            back *= 4;
        }
    }

    /// Reads what others have appended, and ends a line that a killed process left half written.
    fn catch_up(&mut self) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        if length == self.length {
            return Ok(());
        }
        if length < self.length {
            // Another file was put in its place.
            chain::BEGINNING.clone_into(&mut self.last);
            self.length = 0;
        }
        let (found, ends) = self.last_line(length)?;
        if let Some(digest) = found {
            self.last = digest;
        }
        self.length = length;
        if !ends {
            self.file.write_all(b"\n")?;
            self.length += 1;
        }
        Ok(())
    }
}

/// What the end of a ledger says of how many images an engine holds: those of the last round that saw
/// it whole, less those that are known to be deleted since.
fn last_seen(tail: &[u8], engine: &str) -> Option<u64> {
    // Two runs may say it of one image.
    let mut deleted = BTreeSet::new();
    tail.rsplit(|byte| *byte == b'\n').find_map(|line| {
        let line: Value = serde_json::from_slice(line).ok()?;
        if line["event"] == "change-ended" {
            let is_gone = line["action"] == "delete"
                && line["engine"] == engine
                && matches!(line["outcome"]["result"].as_str(), Some("done" | "found"));
            deleted.extend(is_gone.then(|| line["id"].as_str().map(str::to_owned)).flatten());
        }
        if line["event"] != "round-began" {
            return None;
        }
        let engines = line["engines"].as_array()?;
        let images = engines.iter().find(|one| one["name"] == engine)?["images"].as_u64()?;
        Some(images.saturating_sub(deleted.len() as u64))
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
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert_eq!(lines[1], "{\"half");
        let last: Value = serde_json::from_str(lines[2]).unwrap();
        assert_eq!(
            (&last["b"], &last["previous"]),
            (&json!(2), &json!(chain::digest(lines[0].as_bytes())))
        );
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

    #[test]
    fn an_engine_holds_what_it_held_when_it_was_seen_whole_less_what_was_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::new(directory.path().join("ledger.ndjson"));
        let round = |images: Option<u64>| {
            let engines = json!([{"name": "a", "images": images}, {"name": "b", "images": 7}]);
            ledger.append(&json!({"event": "round-began", "engines": engines})).unwrap();
        };
        let ended = |engine: &str, action: &str, id: &str, result: &str| {
            let line = json!({
                "event": "change-ended", "engine": engine, "action": action, "id": id,
                "outcome": {"result": result},
            });
            ledger.append(&line).unwrap();
        };
        round(Some(100));
        ended("a", "delete", "one", "done");
        round(Some(60));
        ended("a", "delete", "one", "done");
        ended("a", "delete", "two", "done");
        ended("a", "delete", "two", "found");
        ended("a", "delete", "three", "found");
        ended("a", "delete", "four", "failed");
        ended("a", "deprecate", "five", "done");
        ended("b", "delete", "six", "done");
        assert_eq!((ledger.images_seen("a"), ledger.images_seen("b")), (Some(57), Some(6)));
        // Of a round that did not see it whole nothing follows.
        round(None);
        ended("a", "delete", "seven", "done");
        assert_eq!((ledger.images_seen("a"), ledger.images_seen("b")), (Some(56), Some(7)));
    }

    /// As programs do that keep logs short; another process writes beside.
    #[test]
    fn what_was_moved_away_or_removed_is_begun_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.ndjson");
        let (one, other) = (Ledger::new(path.clone()), Ledger::new(path.clone()));
        let both = |number: u32| {
            one.append(&json!({"number": number, "by": 1})).unwrap();
            other.append(&json!({"number": number, "by": 2})).unwrap();
        };
        both(0);
        fs::rename(&path, directory.path().join("ledger.ndjson.1")).unwrap();
        both(1);
        fs::remove_file(&path).unwrap();
        both(2);
        fs::write(directory.path().join("new"), "").unwrap();
        fs::rename(directory.path().join("new"), &path).unwrap();
        both(3);
        for (name, number) in [("ledger.ndjson.1", 0), ("ledger.ndjson", 3)] {
            let text = fs::read(directory.path().join(name)).unwrap();
            let checked = chain::check(&text);
            assert_eq!((checked.lines, checked.breaks.len()), (2, 0), "{name}: {checked:?}");
            let text = String::from_utf8(text).unwrap();
            assert_eq!(text.matches(&format!("\"number\":{number}")).count(), 2, "{text}");
        }
    }

    #[test]
    fn several_writers_make_one_chain() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.ndjson");
        let (one, other) = (Ledger::new(path.clone()), Ledger::new(path.clone()));
        for number in 0..20 {
            let ledger = if number % 3 == 0 { &one } else { &other };
            // Longer than what is read of the end at once.
            let filler = "x".repeat(if number == 7 { 5 << 20 } else { 10 });
            ledger.append(&json!({"number": number, "filler": filler})).unwrap();
        }
        let checked = chain::check(&fs::read(&path).unwrap());
        assert_eq!((checked.lines, checked.breaks.len()), (20, 0), "{:?}", checked.breaks);
    }
}
