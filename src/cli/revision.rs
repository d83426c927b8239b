//! Policies as they were: a directory, or a revision of the git repository they lie in.

mod tree;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, anyhow, bail};
use tempfile::TempDir;

use super::Global;
use crate::files;
use crate::policy::Loaded;
use tree::{Entry, Need, Tree};

/// The policies of a base.
pub(super) struct Base {
    /// What was read.
    pub(super) loaded: Loaded,
    /// The commit, where it is a revision.
    pub(super) commit: Option<String>,
}

/// Reads the policies of a base: a directory or file where there is one of that name, otherwise the
/// same paths in that revision of git.
pub(super) fn load_base(base: &str, global: &Global, origins: bool) -> anyhow::Result<Base> {
    let given = global.given();
    if Path::new(base).exists() {
        let read = files::load(&[PathBuf::from(base)], given, origins, None)?;
        return Ok(Base { loaded: read.loaded, commit: None });
    }
    let directory = tempfile::tempdir().context("no directory for the policies of the base")?;
    let mut found = Vec::new();
    let mut commit = None;
    for path in &global.policies {
        let (at, of) = check_out(base, path, &directory)?;
        found.push(at);
        commit = Some(of);
    }
    let read = files::load_under(directory.path(), &found, given, origins)?;
    Ok(Base { loaded: read.loaded, commit })
}

/// The commit that the policies lie in, and whether they differ from it; `None` where they lie in no
/// repository.
pub(super) fn commit_of(global: &Global) -> Option<(String, bool)> {
    let path = global.policies.first()?.canonicalize().ok()?;
    let beside = if path.is_dir() { path.as_path() } else { path.parent()? };
    let commit = git(beside, ["rev-parse", "--verify", "--quiet", "HEAD"]).ok()?;
    let commit = String::from_utf8_lossy(&commit).trim().to_owned();
    let mut status = vec![OsStr::new("status").to_owned(), "--porcelain".into(), "--".into()];
    for path in &global.policies {
        status.push(path.canonicalize().ok()?.into_os_string());
    }
    let changed = git(beside, status).ok()?;
    Some((commit, !changed.is_empty()))
}

/// Writes what a path holds in a revision into a directory, and says where, and which commit it is.
fn check_out(revision: &str, path: &Path, into: &TempDir) -> anyhow::Result<(PathBuf, String)> {
    let absolute =
        path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?;
    let beside = if absolute.is_dir() {
        absolute.as_path()
    } else {
        absolute.parent().unwrap_or(Path::new("/"))
    };
    let root = git(beside, ["rev-parse", "--show-toplevel"]).map_err(|_| {
        anyhow!("`{revision}` is no directory, and {} is in no git repository", path.display())
    })?;
    let root = PathBuf::from(String::from_utf8_lossy(&root).trim_end().to_owned());
    // Resolved first: a revision that begins with `-` would be an option, and a tree has no files of
    // its own outside it.
    let spoken = format!("{revision}^{{commit}}");
    let commit = git(&root, ["rev-parse", "--verify", "--quiet", "--end-of-options", &spoken])
        .map_err(|_| {
            anyhow!("`{revision}` is neither a directory nor a revision of {}", root.display())
        })?;
    let commit = String::from_utf8_lossy(&commit).trim().to_owned();
    let inside = absolute.strip_prefix(&root).unwrap_or(&absolute);
    let mut tree = tree(&root, &commit, inside)?;
    if tree.leads_on() {
        tree = self::tree(&root, &commit, Path::new(""))?;
    }
    let target = |link: &Path| -> anyhow::Result<PathBuf> {
        Ok(PathBuf::from(OsString::from_vec(blob(&root, &commit, link)?)))
    };
    let mut count = 0;
    for (path, need) in tree.needed(inside, is_policy_file, &target)? {
        if path.to_str().is_none() {
            bail!("the revision holds a path that is not UTF-8; name a directory instead");
        }
        if !path.components().all(|part| matches!(part, Component::Normal(_))) {
            bail!("the revision holds a path that leads elsewhere: {}", path.display());
        }
        let copy = into.path().join(&path);
        if let Some(parent) = copy.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let written = match need {
            Need::Directory => std::fs::create_dir_all(&copy),
            // Another place of the same repository may have it already.
            Need::Link(_) if copy.is_symlink() => Ok(()),
            Need::Link(leads_to) => symlink(into.path().join(leads_to), &copy),
            Need::File => {
                count += 1;
                std::fs::write(&copy, blob(&root, &commit, &path)?)
            }
        };
        written.with_context(|| format!("cannot write {}", copy.display()))?;
    }
    if count == 0 {
        bail!("`{revision}` holds no policy files at {}", inside.display());
    }
    Ok((into.path().join(inside), commit))
}

/// The files and links of a commit at a path and below.
fn tree(root: &Path, commit: &str, path: &Path) -> anyhow::Result<Tree> {
    // `.` stands for the whole of it.
    let wanted = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let options = ["ls-tree", "-r", "-z", "--full-tree", commit, "--"].map(OsStr::new);
    let listed = git(root, options.into_iter().chain([wanted.as_os_str()]))?;
    let mut tree = Tree::default();
    for line in listed.split(|byte| *byte == 0) {
        // MODE TYPE OBJECT<TAB>PATH (git-ls-tree(1))
        let Some(tab) = line.iter().position(|byte| *byte == b'\t') else { continue };
        let path = PathBuf::from(OsStr::from_bytes(&line[tab + 1..]));
        match line.split(|byte| *byte == b' ').next() {
            Some(b"120000") => tree.add(path, Entry::Link),
            Some(b"100644" | b"100755") => tree.add(path, Entry::File),
            // Another repository.
            _ => {}
        }
    }
    Ok(tree)
}

fn blob(root: &Path, commit: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut object = OsString::from(format!("{commit}:"));
    object.push(path);
    git(root, [OsStr::new("cat-file"), OsStr::new("blob"), &object])
}

fn is_policy_file(path: &Path) -> bool {
    let extension = path.extension();
    extension.is_some_and(|extension| extension == "yaml" || extension == "yml")
}

/// What git prints. It is told to ask nobody.
fn git<S: AsRef<OsStr>>(
    directory: &Path,
    arguments: impl IntoIterator<Item = S>,
) -> anyhow::Result<Vec<u8>> {
    let output = Command::new("git")
        .arg("-C")
        .arg(directory)
        .args(arguments)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .output()
        .context("git cannot be run; name a directory instead of a revision")?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        bail!("git: {message}");
    }
    Ok(output.stdout)
}
