//! Where to look for changes of files that are reached through links.
//!
//! A link is changed in the directory that it lies in, so each directory with a link on the way to a
//! file counts, and the one that the file itself lies in. What is not there yet is waited for in the
//! nearest directory there is.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// So many links are followed on the way to one file.
const LINKS_MAX: usize = 40;

/// The directories to look at for changes of these files and directories, each with whether
/// everything below it counts.
pub fn points(paths: &[PathBuf]) -> BTreeMap<PathBuf, bool> {
    let mut points = BTreeMap::new();
    for path in paths {
        let mut links = 0;
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        walk(&path, &mut links, &mut points);
    }
    points
}

fn add(points: &mut BTreeMap<PathBuf, bool>, directory: &Path, is_deep: bool) {
    *points.entry(directory.to_owned()).or_default() |= is_deep;
}

/// Goes along a path component by component.
fn walk(path: &Path, links: &mut usize, points: &mut BTreeMap<PathBuf, bool>) {
    let mut reached = PathBuf::from("/");
    let mut rest = path.components();
    while let Some(component) = rest.next() {
        match component {
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir => {
                reached.pop();
            }
            Component::Normal(name) => {
                let parent = reached.clone();
                reached.push(name);
                let Ok(metadata) = std::fs::symlink_metadata(&reached) else {
                    // Nothing there: it would appear in this directory.
                    add(points, &parent, false);
                    return;
                };
                if !metadata.is_symlink() {
                    continue;
                }
                add(points, &parent, false);
                *links += 1;
                let Ok(target) = std::fs::read_link(&reached) else { return };
                if *links > LINKS_MAX {
                    return;
                }
                walk(&parent.join(target).join(rest.as_path()), links, points);
                return;
            }
        }
    }
    if reached.is_dir() {
        add(points, &reached, true);
    } else if let Some(parent) = reached.parent() {
        add(points, parent, false);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_directory_with_a_link_on_the_way_counts() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("trees/one/policies")).unwrap();
        fs::create_dir_all(root.join("elsewhere")).unwrap();
        fs::write(root.join("elsewhere/web.yaml"), "").unwrap();
        symlink("trees/one", root.join("current")).unwrap();
        symlink("../../../elsewhere/web.yaml", root.join("trees/one/policies/web.yaml")).unwrap();
        let found =
            points(&[root.join("current/policies"), root.join("current/policies/web.yaml")]);
        let wanted = [
            (root.clone(), false),
            (root.join("elsewhere"), false),
            (root.join("trees/one/policies"), true),
        ];
        assert_eq!(found, wanted.into());
    }

    #[test]
    fn what_is_not_there_is_waited_for_and_loops_end() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        assert_eq!(points(&[root.join("a/b/c")]), [(root.clone(), false)].into());
        symlink("loop", root.join("loop")).unwrap();
        assert_eq!(points(&[root.join("loop/a")]), [(root.clone(), false)].into());
    }
}
