//! Walks a directory, through links to others.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::io;
use std::path::{Path, PathBuf};

/// What was found under a directory.
#[derive(Debug, Default)]
pub struct Found {
    /// The files, in the order of their paths.
    pub files: Vec<PathBuf>,
    /// The links to directories that were followed.
    pub links: Vec<PathBuf>,
    /// The links that cannot be followed and what is no regular file, in the order of their paths.
    pub strays: Vec<Stray>,
}

/// A link that cannot be followed, or what is named like a file and is none.
#[derive(Debug)]
pub struct Stray {
    /// Where it lies.
    pub path: PathBuf,
    /// Where it leads, and why that is nowhere; or what it is.
    pub why: String,
}

impl Found {
    fn file(&mut self, path: PathBuf, is_file: bool) {
        if is_file {
            self.files.push(path);
        } else {
            self.strays.push(Stray { path, why: NO_FILE.to_owned() });
        }
    }
}

pub(super) fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

/// Why it is not read: who reads a pipe may wait for ever.
pub(super) const NO_FILE: &str = "it is no regular file";

/// A directory on the way: its path, and the real ones that lead to it, itself the last.
struct Step {
    path: PathBuf,
    trail: Vec<PathBuf>,
}

/// The files under a directory that are wanted. Each real directory is looked into once; where it is
/// reached in several ways, not by a link if that can be.
pub(super) fn walk(directory: &Path, is_wanted: impl Fn(&Path) -> bool) -> io::Result<Found> {
    let mut found = Found::default();
    let mut seen: BTreeSet<PathBuf> = BTreeSet::new();
    let real = directory.canonicalize()?;
    let mut steps = vec![Step { path: directory.to_owned(), trail: vec![real] }];
    let mut links: BinaryHeap<Reverse<(PathBuf, Vec<PathBuf>)>> = BinaryHeap::new();
    loop {
        while let Some(step) = steps.pop() {
            if step.trail.last().is_some_and(|real| !seen.insert(real.clone())) {
                continue;
            }
            for entry in std::fs::read_dir(&step.path)? {
                let entry = entry?;
                let (name, path) = (entry.file_name(), entry.path());
                if name.as_encoded_bytes().starts_with(b".") {
                    continue;
                }
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    let real = step.trail.last().map(|real| real.join(&name));
                    let trail = step.trail.iter().cloned().chain(real).collect();
                    steps.push(Step { path, trail });
                } else if kind.is_symlink() {
                    links.push(Reverse((path, step.trail.clone())));
                } else if is_wanted(&path) {
                    found.file(path, kind.is_file());
                }
            }
        }
        let Some(Reverse((path, trail))) = links.pop() else { break };
        match target(&path, &trail) {
            Ok(Some(real)) => {
                let trail = trail.into_iter().chain([real]).collect();
                found.links.push(path.clone());
                steps.push(Step { path, trail });
            }
            Ok(None) if is_wanted(&path) => {
                let is_file = path.is_file();
                found.file(path, is_file);
            }
            Ok(None) => {}
            Err(why) => found.strays.push(Stray { path, why }),
        }
    }
    found.files.sort();
    found.strays.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

/// The real directory that a link leads to, `None` where that is a file; the error says why it leads
/// nowhere.
fn target(link: &Path, trail: &[PathBuf]) -> Result<Option<PathBuf>, String> {
    let written = std::fs::read_link(link).unwrap_or_default();
    let written = written.display();
    let real = link.canonicalize().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("the link leads to {written}, which is not there"),
        _ => format!("the link to {written} cannot be followed: {error}"),
    })?;
    if !real.is_dir() {
        return Ok(None);
    }
    // What lies above a directory on the way leads back to it as well.
    if trail.iter().any(|passed| passed.starts_with(&real)) {
        return Err(format!("the link leads to {written}, which it lies in itself"));
    }
    Ok(Some(real))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// What is found under `policies`: files, followed links and what is said of the others.
    fn found(directory: &tempfile::TempDir) -> (Vec<String>, Vec<String>, Vec<String>) {
        let root = directory.path().join("policies");
        let found = walk(&root, is_yaml).unwrap();
        let short = |path: &PathBuf| path.strip_prefix(&root).unwrap().display().to_string();
        let strays = found.strays.iter();
        (
            found.files.iter().map(short).collect(),
            found.links.iter().map(short).collect(),
            strays.map(|stray| format!("{}: {}", short(&stray.path), stray.why)).collect(),
        )
    }

    /// Links, each from where to what, and files.
    fn tree(files: &[&str], links: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for file in files {
            let path = directory.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        for (link, to) in links {
            symlink(to, directory.path().join(link)).unwrap();
        }
        directory
    }

    #[test]
    fn links_to_directories_are_followed_and_hidden_names_are_left_out() {
        let directory = tree(
            &["policies/..d1/stillframe.yaml", "policies/..d1/teams/web.yaml", "far/a/.b.yaml"],
            &[
                ("policies/..data", "..d1"),
                ("policies/stillframe.yaml", "..data/stillframe.yaml"),
                ("policies/teams", "..data/teams"),
                ("policies/far", "../far"),
                ("far/a/deep", "../../deeper"),
            ],
        );
        fs::create_dir(directory.path().join("deeper")).unwrap();
        fs::write(directory.path().join("deeper/db.yaml"), "").unwrap();
        let (files, links, strays) = found(&directory);
        assert_eq!(files, ["far/a/deep/db.yaml", "stillframe.yaml", "teams/web.yaml"]);
        assert_eq!(
            (links.as_slice(), strays.len()),
            (&["far", "far/a/deep", "teams"].map(str::to_owned)[..], 0)
        );
    }

    #[test]
    fn a_directory_that_is_reached_twice_is_read_once_and_not_by_its_link() {
        let directory = tree(
            &["policies/teams/web.yaml", "far/db.yaml"],
            &[("policies/again", "teams"), ("policies/one", "../far"), ("policies/two", "../far")],
        );
        let (files, _, strays) = found(&directory);
        assert_eq!(
            (files.as_slice(), strays.len()),
            (&["one/db.yaml", "teams/web.yaml"].map(str::to_owned)[..], 0)
        );
    }

    #[test]
    fn a_pipe_is_not_read() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let directory = tree(&["policies/a.yaml"], &[("policies/c.yaml", "b.yaml")]);
        for pipe in ["policies/b.yaml", "policies/other"] {
            let path = directory.path().join(pipe);
            mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap();
        }
        let (files, _, strays) = found(&directory);
        assert_eq!(files, ["a.yaml"]);
        let told = ["b.yaml: it is no regular file", "c.yaml: it is no regular file"];
        assert_eq!(strays, told);
    }

    #[test]
    fn what_leads_back_or_nowhere_is_told() {
        let directory = tree(
            &["policies/teams/web.yaml", "far/db.yaml"],
            &[
                ("policies/teams/up", ".."),
                ("policies/above", "../.."),
                ("policies/far", "../far"),
                ("far/back", "../policies/far"),
                ("policies/gone", "..data/gone"),
                ("policies/gone.yaml", "nowhere.yaml"),
                ("policies/.hidden", "nowhere"),
                ("policies/self", "self"),
            ],
        );
        let (files, _, strays) = found(&directory);
        assert_eq!(files, ["far/db.yaml", "teams/web.yaml"]);
        let told = [
            "above: the link leads to ../.., which it lies in itself",
            "far/back: the link leads to ../policies/far, which it lies in itself",
            "gone: the link leads to ..data/gone, which is not there",
            "gone.yaml: the link leads to nowhere.yaml, which is not there",
            "self: the link to self cannot be followed: ",
            "teams/up: the link leads to .., which it lies in itself",
        ];
        assert_eq!(strays.len(), told.len(), "{strays:?}");
        for (stray, told) in strays.iter().zip(told) {
            assert!(stray.starts_with(told), "{stray}");
        }
    }
}
