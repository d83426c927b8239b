//! Files that users write, found and read: the one place that walks a policy directory.

use std::collections::BTreeSet;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::policy::{Code, Finding, SourceFile};

/// All `*.yaml` and `*.yml` files under a directory, in the order of their paths. Hidden files and
/// directories are left out.
pub fn yaml_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            // A link to a directory is not followed: it may lead back here.
            let is_directory = entry.file_type()?.is_dir();
            let path = entry.path();
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            if name.starts_with('.') {
                continue;
            }
            let is_yaml =
                path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
            if is_directory {
                directories.push(path);
            } else if is_yaml && !path.is_dir() {
                // Also a link that leads nowhere: reading it says so.
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Reads files and directories of policies; what cannot be read is a finding.
pub fn read_policies(paths: &[PathBuf]) -> (Vec<SourceFile>, Vec<Finding>) {
    let (mut files, mut findings) = (Vec::new(), Vec::new());
    let mut fail = |path: &Path, error: &io::Error| {
        let message = format!("cannot read {}: {error}", path.display());
        findings.push(Finding::nowhere(Code::UnreadableFile, message));
    };
    let mut seen = BTreeSet::new();
    for path in paths {
        let found = if path.is_dir() { yaml_files(path) } else { Ok(vec![path.clone()]) };
        let found = found.unwrap_or_else(|error| {
            fail(path, &error);
            Vec::new()
        });
        for path in found {
            // Named twice, or by a link, it is still one file.
            if !seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())) {
                continue;
            }
            match std::fs::read(&path) {
                Ok(bytes) => match String::from_utf8(bytes) {
                    Ok(text) => files.push(SourceFile { path: path.display().to_string(), text }),
                    Err(error) => {
                        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                        let line = valid.split(|byte| *byte == b'\n').count();
                        let error = format!("line {line} is not UTF-8; save the file as UTF-8");
                        fail(&path, &io::Error::other(error));
                    }
                },
                Err(error) => fail(&path, &error),
            }
        }
    }
    (files, findings)
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
