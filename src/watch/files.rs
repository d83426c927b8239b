//! Tells of changed files: by what the system reports, and by looking where it reports nothing.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Config, Event, PollWatcher, RecommendedWatcher, RecursiveMode, Watcher};

use super::{Bell, points};
use crate::elapsed::Elapsed;

/// Watches files and directories, through links.
#[derive(Clone)]
pub struct FileWatcher(Arc<Mutex<Inner>>);

struct Inner {
    bell: Bell,
    /// What was named, whatever is read of it.
    named: Vec<PathBuf>,
    /// What is watched, with whether everything below counts and which directory it was then.
    watched: BTreeMap<PathBuf, (bool, Option<Which>)>,
    watcher: Option<Box<dyn Watcher + Send>>,
    /// Whether to look instead of listening.
    polls: bool,
    every: Duration,
}

impl FileWatcher {
    /// Watches what is named and rings when something changes. With `polls` it looks at the files
    /// instead of listening to the system, which for file systems of other machines reports nothing.
    pub fn new(named: Vec<PathBuf>, bell: Bell, polls: bool) -> Self {
        let every = Duration::from_secs(30);
        let watched = BTreeMap::new();
        Self(Arc::new(Mutex::new(Inner { bell, named, watched, watcher: None, polls, every })))
    }

    /// Watches what was read, too. A place that was not watched before may have changed since it was
    /// read, so everything is read once more.
    pub(super) fn follow(&self, files: &[PathBuf]) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let named = inner.named.iter().chain(files).cloned().collect::<Vec<_>>();
        let wanted = points(&named);
        if inner.watch(&wanted) {
            inner.bell.files_changed();
        }
    }

    /// How often it looks where it has to.
    pub(super) fn poll_every(&self, every: Elapsed) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let every = Duration::from_secs(every.as_seconds().unsigned_abs().max(1));
        if inner.every != every {
            inner.every = every;
            if inner.polls {
                inner.begin_anew();
            }
        }
    }
}

/// Which directory a path leads to: device and number.
type Which = (u64, u64);

fn which(path: &Path) -> Option<Which> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

impl Inner {
    /// Watches these places; back comes whether one of them is new.
    fn watch(&mut self, wanted: &BTreeMap<PathBuf, bool>) -> bool {
        // A directory that was replaced by another of its name is watched anew: the system tells of
        // the old one.
        let is_as_it_was = |path: &Path, is: &(bool, Option<Which>)| {
            wanted.get(path).is_some_and(|is_deep| *is == (*is_deep, which(path)))
        };
        let gone = self.watched.iter().filter(|(path, is)| !is_as_it_was(path, is));
        let gone: Vec<PathBuf> = gone.map(|(path, _)| path.clone()).collect();
        for path in gone {
            self.watched.remove(&path);
            if let Some(watcher) = &mut self.watcher {
                let _ = watcher.unwatch(&path);
            }
        }
        let mut is_new = false;
        for (path, is_deep) in wanted {
            if self.watched.contains_key(path) {
                continue;
            }
            is_new = true;
            self.watched.insert(path.clone(), (*is_deep, which(path)));
            if let Err(error) = self.add(path, *is_deep) {
                self.fall_back(&error);
                return true;
            }
        }
        is_new
    }

    fn add(&mut self, path: &Path, is_deep: bool) -> notify::Result<()> {
        if self.watcher.is_none() {
            self.watcher = Some(self.make()?);
        }
        let mode = if is_deep { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
        match &mut self.watcher {
            Some(watcher) => watcher.watch(path, mode),
            None => Ok(()),
        }
    }

    fn make(&self) -> notify::Result<Box<dyn Watcher + Send>> {
        let bell = self.bell.clone();
        let told = move |event: notify::Result<Event>| {
            if event.as_ref().map_or(true, changes) {
                bell.files_changed();
            }
        };
        Ok(if self.polls {
            // Times of files count in seconds there, and two changes can come in one.
            let config =
                Config::default().with_poll_interval(self.every).with_compare_contents(true);
            Box::new(PollWatcher::new(told, config)?)
        } else {
            Box::new(RecommendedWatcher::new(told, Config::default())?)
        })
    }

    /// The system cannot tell: from now on we look ourselves.
    fn fall_back(&mut self, error: &notify::Error) {
        if self.polls {
            tracing::warn!("a directory cannot be looked at: {error}");
            return;
        }
        tracing::warn!(
            "the system tells of no changes ({error}); the files are looked at every {} s",
            self.every.as_secs()
        );
        self.polls = true;
        self.begin_anew();
    }

    fn begin_anew(&mut self) {
        self.watcher = None;
        for (path, (is_deep, _)) in self.watched.clone() {
            if let Err(error) = self.add(&path, is_deep) {
                tracing::warn!("{} cannot be looked at: {error}", path.display());
            }
        }
        // What has changed meanwhile nobody has told.
        self.bell.files_changed();
    }
}

/// Whether an event may change what is read: reading it ourselves does not.
fn changes(event: &Event) -> bool {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}
