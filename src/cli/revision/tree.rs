//! The files of a revision that policies are read from, through the links that it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// So many links are followed on the way to a file, as systems do.
const LINKS_MAX: usize = 40;

/// What a path of a revision is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// A file.
    File,
    /// A link.
    Link,
}

/// What is to be at a path, so that policies are read as they were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Need {
    /// The file that the revision holds there.
    File,
    /// A directory, also where nothing in it is read: a link leads to it.
    Directory,
    /// A link, and the path without links that it leads to.
    Link(PathBuf),
}

/// Says where a link leads, as it is written.
pub(super) type Target<'a> = dyn Fn(&Path) -> anyhow::Result<PathBuf> + 'a;

/// The files and links of a revision, by their paths from its root.
#[derive(Debug, Default)]
pub(super) struct Tree(BTreeMap<PathBuf, Entry>);

impl Tree {
    pub(super) fn add(&mut self, path: PathBuf, entry: Entry) {
        self.0.insert(path, entry);
    }

    fn get(&self, path: &Path) -> Option<Entry> {
        self.0.get(path).copied()
    }

    /// Whether more than what was listed may be read.
    pub(super) fn leads_on(&self) -> bool {
        self.0.is_empty() || self.0.values().any(|entry| *entry == Entry::Link)
    }

    /// The files that are read where policies lie at a path, the links on the way to them, and the directories
    /// that these lead to. What leads out of the revision is left out: it says nothing of how things were.
    pub(super) fn needed(
        &self,
        path: &Path,
        is_wanted: impl Fn(&Path) -> bool,
        target: &Target<'_>,
    ) -> anyhow::Result<BTreeMap<PathBuf, Need>> {
        let mut needed = BTreeMap::new();
        let mut looked_at = BTreeSet::new();
        let mut next = vec![path.to_owned()];
        while let Some(path) = next.pop() {
            let mut links = BTreeSet::new();
            let Some(real) = self.real(&path, &mut links, target)? else { continue };
            for link in links {
                if let Some(leads_to) = self.real(&link, &mut BTreeSet::new(), target)? {
                    needed.insert(link, Need::Link(leads_to));
                }
            }
            if !looked_at.insert(real.clone()) {
                continue;
            }
            // Whoever names a file means it, whatever it is called.
            if self.get(&real) == Some(Entry::File) {
                needed.insert(real, Need::File);
                continue;
            }
            needed.insert(real.clone(), Need::Directory);
            for (path, entry) in self.below(&real) {
                match entry {
                    Entry::File if is_wanted(path) => {
                        needed.insert(path.clone(), Need::File);
                    }
                    Entry::File => {}
                    Entry::Link => next.push(path.clone()),
                }
            }
        }
        Ok(needed)
    }

    fn below<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = (&'a PathBuf, &'a Entry)> {
        let from = self.0.range(path.to_owned()..);
        from.take_while(move |(one, _)| one.starts_with(path))
    }

    /// The path without links, and the links on the way; `None` where it leads out of the revision, to
    /// nothing, or in a circle.
    fn real(
        &self,
        path: &Path,
        links: &mut BTreeSet<PathBuf>,
        target: &Target<'_>,
    ) -> anyhow::Result<Option<PathBuf>> {
        let mut real = PathBuf::new();
        let Some(mut rest) = parts(path) else { return Ok(None) };
        let mut left = LINKS_MAX;
        while let Some(part) = rest.pop() {
            if part == Path::new("..") {
                if !real.pop() {
                    return Ok(None);
                }
                continue;
            }
            real.push(part);
            if self.get(&real) == Some(Entry::Link) {
                let Some(parts) = parts(&target(&real)?).filter(|_| left > 0) else {
                    return Ok(None);
                };
                left -= 1;
                links.insert(real.clone());
                real.pop();
                rest.extend(parts);
            }
        }
        let is_there = real.as_os_str().is_empty() || self.below(&real).next().is_some();
        Ok(is_there.then_some(real))
    }
}

/// The parts of a path, the last first; `None` where it begins at the root of the system.
fn parts(path: &Path) -> Option<Vec<PathBuf>> {
    let mut parts = Vec::new();
    for part in path.components().rev() {
        match part {
            Component::Normal(_) | Component::ParentDir => parts.push(PathBuf::from(&part)),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needed(files: &[&str], links: &[(&str, &str)], path: &str) -> Vec<String> {
        let mut tree = Tree::default();
        for file in files {
            tree.add(PathBuf::from(file), Entry::File);
        }
        for (link, _) in links {
            tree.add(PathBuf::from(link), Entry::Link);
        }
        let is_wanted = |path: &Path| path.extension().is_some_and(|one| one == "yaml");
        let target = |link: &Path| {
            let (_, target) = links.iter().find(|(one, _)| Path::new(one) == link).unwrap();
            Ok(PathBuf::from(target))
        };
        let needed = tree.needed(Path::new(path), is_wanted, &target).unwrap();
        let said = needed.iter().map(|(path, need)| match need {
            Need::File => path.display().to_string(),
            Need::Directory => format!("{}/", path.display()),
            Need::Link(to) => format!("{} -> {}", path.display(), to.display()),
        });
        said.collect()
    }

    #[test]
    fn links_are_followed_to_what_the_revision_holds() {
        let files =
            ["docs/x.md", "policies/a.yaml", "policies/n.txt", "shared/b.yaml", "shared/c.txt"];
        let cases: [(&str, &str, &[&str]); 8] = [
            (
                "policies/more",
                "../shared",
                &["policies/more -> shared", "shared/", "shared/b.yaml"],
            ),
            (
                "policies/way",
                "../docs/../shared",
                &["policies/way -> shared", "shared/", "shared/b.yaml"],
            ),
            // Nothing in it is read, and it is there.
            ("policies/docs", "../docs", &["docs/", "policies/docs -> docs"]),
            (
                "policies/c.yaml",
                "../shared/c.txt",
                &["policies/c.yaml -> shared/c.txt", "shared/c.txt"],
            ),
            ("policies/out", "../../elsewhere", &[]),
            ("policies/root", "/etc", &[]),
            ("policies/self", "self", &[]),
            ("policies/none", "nothing.yaml", &[]),
        ];
        for (link, target, wanted) in cases {
            let mut found = needed(&files, &[(link, target)], "policies");
            found.retain(|one| !["policies/", "policies/a.yaml"].contains(&one.as_str()));
            assert_eq!(found, wanted, "{link}");
        }
    }

    #[test]
    fn links_lead_through_links() {
        let files = ["v/1/a.yaml", "v/2/a.yaml", "b.yaml", "policies-old/c.yaml"];
        let links = [("current", "v/2"), ("policies", "current/"), ("v/2/up.yaml", "../../b.yaml")];
        let needed = |path: &str| needed(&files, &links, path);
        let way = ["current -> v/2", "policies -> v/2"];
        let all = ["v/2/", "v/2/a.yaml", "v/2/up.yaml -> b.yaml"];
        assert_eq!(needed("policies"), [&["b.yaml"], &way[..], &all[..]].concat());
        assert_eq!(needed("policies/a.yaml"), [&way[..], &["v/2/a.yaml"]].concat());
        // The whole of it is two directories more.
        assert_eq!(needed("").len(), files.len() + links.len() + 2);
        assert_eq!(needed("policies/x.yaml"), [""; 0]);
    }
}
