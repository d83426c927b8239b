//! Files that users write, found and read: the one place that walks a policy directory.

mod walk;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use crate::engine;
use crate::policy::finding::Place;
use crate::policy::{Code, Finding, Loaded, Reading as Options, SourceFile, includes, load_with};
pub use walk::{Found, Stray};
use walk::{NO_FILE, is_yaml, walk};

/// Why there is nothing to read.
#[derive(Debug, thiserror::Error)]
#[error("there is no {}; name the directory of the policies with --policies", .0.display())]
pub struct Missing(PathBuf);

/// Policies as their files hold them.
#[derive(Debug)]
pub struct Read {
    /// What the files mean, and every mistake in them.
    pub loaded: Loaded,
    /// The files that were read.
    pub files: Vec<PathBuf>,
    /// The links to directories on the way to them, and those that lead nowhere.
    pub links: Vec<PathBuf>,
    /// The files and directories that are included, also those that are not there.
    pub included: Vec<PathBuf>,
}

/// What is said of a configuration beside its files.
#[derive(Debug, Clone, Copy, Default)]
pub struct Given<'a> {
    /// The environment whose overlay holds.
    pub environment: Option<&'a str>,
    /// Endpoints that engines are to have instead of those of the files: `URL`, or `ENGINE=URL`.
    pub endpoints: &'a [String],
}

/// Reads policies from files and directories and finds every mistake: with what is said beside them,
/// with `origins` each value with where it comes from, with a time what that says too.
pub fn load(
    paths: &[PathBuf],
    given: Given<'_>,
    origins: bool,
    now: Option<Timestamp>,
) -> Result<Read, Missing> {
    if let Some(missing) = paths.iter().find(|path| !path.exists()) {
        return Err(Missing(missing.clone()));
    }
    Ok(loaded(read(paths, true), given, origins, now))
}

/// The same for files that were put `under` a directory, which is no part of what people call them.
pub fn load_under(
    under: &Path,
    paths: &[PathBuf],
    given: Given<'_>,
    origins: bool,
) -> Result<Read, Missing> {
    if let Some(missing) = paths.iter().find(|path| !path.exists()) {
        return Err(Missing(missing.clone()));
    }
    let mut reading = read(paths, true);
    for file in &mut reading.files {
        if let Ok(own) = Path::new(&file.path).strip_prefix(under) {
            let path = own.display().to_string();
            *file = Arc::new(SourceFile { path, text: file.text.clone() });
        }
    }
    Ok(loaded(reading, given, origins, None))
}

fn loaded(reading: Reading, given: Given<'_>, origins: bool, now: Option<Timestamp>) -> Read {
    let Reading { files, findings: unreadable, links, included, .. } = reading;
    let names = files.iter().map(|file| PathBuf::from(&file.path)).collect();
    let Given { environment, endpoints } = given;
    let unread = !unreadable.is_empty();
    let options = Options { environment, endpoints, unreadable: unread, origins, now };
    let mut loaded = load_with(files, &engine::kinds(), options);
    if !unreadable.is_empty() {
        loaded.policies = None;
        loaded.findings.extend(unreadable);
    }
    Read { loaded, files: names, links, included }
}

/// All `*.yaml` and `*.yml` files under a directory that are no tests, in the order of their paths.
/// Hidden files and directories are left out; links to directories are followed. A link that cannot
/// be is an error.
pub fn yaml_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let found = find_yaml(directory)?;
    match found.strays.into_iter().next() {
        Some(Stray { path, why }) => Err(io::Error::other(format!("{}: {why}", path.display()))),
        None => Ok(found.files),
    }
}

/// The same, where the links that cannot be followed are no error.
pub fn find_yaml(directory: &Path) -> io::Result<Found> {
    walk(directory, |path| is_yaml(path) && !is_test(path))
}

/// All tests among files and directories, `*.test.yaml` and `*.test.yml`, in the order of their
/// paths below each; what cannot be read is a finding. A file that is named is one whatever its
/// name.
pub fn read_tests(paths: &[PathBuf]) -> (Vec<Arc<SourceFile>>, Vec<Finding>) {
    let mut reading = Reading::default();
    for path in paths {
        let is_wanted = |path: &Path| is_yaml(path) && is_test(path);
        for path in reading.found(path, |directory| walk(directory, is_wanted)) {
            reading.file(&path);
        }
    }
    (reading.files, reading.findings)
}

/// Whether a file is named like a test.
pub fn is_test(path: &Path) -> bool {
    let stem = path.file_stem().map(Path::new).and_then(Path::extension);
    stem.is_some_and(|extension| extension == "test")
}

/// Reads files and directories of policies, and what their configurations include; what cannot be
/// read is a finding.
pub fn read_policies(paths: &[PathBuf]) -> (Vec<Arc<SourceFile>>, Vec<Finding>) {
    let reading = read(paths, true);
    (reading.files, reading.findings)
}

/// Reads files and directories, and nothing else.
pub fn read_files(paths: &[PathBuf]) -> (Vec<Arc<SourceFile>>, Vec<Finding>) {
    let reading = read(paths, false);
    (reading.files, reading.findings)
}

fn read(paths: &[PathBuf], follows: bool) -> Reading {
    let mut reading = Reading { follows, ..Reading::default() };
    for path in paths {
        reading.path(path, None);
    }
    reading
}

/// What has been read so far.
#[derive(Default)]
struct Reading {
    /// Whether what a configuration includes is read as well.
    follows: bool,
    files: Vec<Arc<SourceFile>>,
    findings: Vec<Finding>,
    /// Links to directories, and those that lead nowhere.
    links: Vec<PathBuf>,
    included: Vec<PathBuf>,
    seen: BTreeSet<PathBuf>,
}

impl Reading {
    /// A file or a directory, and where it is included.
    fn path(&mut self, path: &Path, place: Option<&Place>) {
        if let Some(place) = place.filter(|_| !path.exists()) {
            let message = format!("there is no {}", path.display());
            self.findings.push(
                Finding::new(Code::BadInclude, place.clone(), message)
                    .hint("paths are relative to the file they are written in"),
            );
            return;
        }
        // Who names a pipe may mean it; a file that names one does not.
        if let Some(place) = place.filter(|_| !path.is_dir() && !path.is_file()) {
            let message = format!("cannot read {}: {NO_FILE}", path.display());
            self.findings.push(Finding::new(Code::BadInclude, place.clone(), message));
            return;
        }
        for path in self.found(path, find_yaml) {
            self.policy_file(&path);
        }
    }

    /// What is found below a directory, or the file itself; what is in the way of more is told.
    fn found(
        &mut self,
        path: &Path,
        find: impl FnOnce(&Path) -> io::Result<Found>,
    ) -> Vec<PathBuf> {
        if !path.is_dir() {
            return vec![path.to_owned()];
        }
        let Found { files, links, strays } = match find(path) {
            Ok(found) => found,
            Err(error) => {
                self.fail(path, &error);
                return Vec::new();
            }
        };
        self.links.extend(links);
        for Stray { path, why } in strays {
            let message = format!("cannot read {}: {why}", path.display());
            let what =
                if path.is_symlink() { "correct the link or take it away" } else { "take it away" };
            let hint = format!("{what}; names that begin with a dot are not read");
            // Directories that are named twice have it twice.
            if !self.links.contains(&path) {
                self.findings.push(Finding::nowhere(Code::UnreadableFile, message).hint(hint));
                self.links.push(path);
            }
        }
        files
    }

    /// A file, and what it includes.
    fn policy_file(&mut self, path: &Path) {
        let Some(file) = self.file(path) else { return };
        if !self.follows {
            return;
        }
        let directory = path.parent().unwrap_or(Path::new(""));
        for (included, place) in includes(&file) {
            let included = beside(directory, &included);
            self.path(&included, Some(&place));
            self.included.push(included);
        }
    }

    fn file(&mut self, path: &Path) -> Option<Arc<SourceFile>> {
        // Named twice, or by a link, it is still one file.
        if !self.seen.insert(path.canonicalize().unwrap_or_else(|_| path.to_owned())) {
            return None;
        }
        let text = std::fs::read(path).and_then(|bytes| {
            String::from_utf8(bytes).map_err(|error| {
                let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = valid.split(|byte| *byte == b'\n').count();
                io::Error::other(format!("line {line} is not UTF-8; save the file as UTF-8"))
            })
        });
        let text = match text {
            Ok(text) => text,
            Err(error) => {
                self.fail(path, &error);
                return None;
            }
        };
        let file = Arc::new(SourceFile { path: path.display().to_string(), text });
        self.files.push(Arc::clone(&file));
        Some(file)
    }

    fn fail(&mut self, path: &Path, error: &io::Error) {
        let message = format!("cannot read {}: {error}", path.display());
        self.findings.push(Finding::nowhere(Code::UnreadableFile, message));
    }
}

/// A path relative to a directory, without `..` inside where that leads to the same place.
fn beside(directory: &Path, path: &str) -> PathBuf {
    let plain = directory.join(path);
    let mut short = PathBuf::new();
    for component in plain.components() {
        match (component, short.components().next_back()) {
            (Component::ParentDir, Some(Component::Normal(_))) => {
                short.pop();
            }
            (Component::CurDir, _) => {}
            (other, _) => short.push(other),
        }
    }
    match (short.canonicalize(), plain.canonicalize()) {
        (Ok(one), Ok(other)) if one == other => short,
        _ => plain,
    }
}

/// Puts a text in the place of a file that is there: written beside it and renamed, so that a
/// reader finds the old or the new one whole. Links are followed to the file itself, and its
/// permissions stay; so does its owner where we may set it.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let real = path.canonicalize()?;
    let metadata = std::fs::metadata(&real)?;
    let beside = real.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::Builder::new().prefix(".stillframe-").tempfile_in(beside)?;
    file.write_all(text.as_bytes())?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, fchown};
        let _ = fchown(file.as_file(), Some(metadata.uid()), Some(metadata.gid()));
    }
    file.as_file().set_permissions(metadata.permissions())?;
    file.as_file().sync_all()?;
    file.persist(&real)?;
    Ok(())
}

/// Whether a directory can be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writable {
    /// It is there and can be written.
    Is,
    /// It is not there, and can be made in this one.
    WillBe(PathBuf),
}

/// Whether a directory can be written. Nothing is.
pub fn writable(directory: &Path) -> io::Result<Writable> {
    use rustix::fs::{Access, access};
    let mut there = directory;
    while let Err(error) = std::fs::metadata(there) {
        match there.parent() {
            Some(parent) if error.kind() == io::ErrorKind::NotFound => there = parent,
            _ => return Err(error),
        }
    }
    if !there.is_dir() {
        return Err(io::Error::other(format!("{} is no directory", there.display())));
    }
    access(there, Access::WRITE_OK | Access::EXEC_OK)?;
    let is_there = there == directory;
    Ok(if is_there { Writable::Is } else { Writable::WillBe(there.to_owned()) })
}

/// A path relative to a directory without links in it, without `..` inside.
pub fn joined(base: &Path, path: &str) -> PathBuf {
    let mut joined = PathBuf::new();
    for component in base.join(path).components() {
        match component {
            Component::ParentDir => {
                joined.pop();
            }
            Component::CurDir => {}
            other => joined.push(other),
        }
    }
    joined
}
