//! What `doctor` finds out: instances and their disks, directories, space, keys and repositories.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::Inner;
use super::home::Home;
use super::key::{KeyError, KeyFiles, KeyService};
use crate::engine::{Examined, Topic, Verdict};
use crate::files::{Writable, writable};
use crate::inventory::{Gap, Instance};

/// Less free space than this is told.
const FREE_BYTES: u64 = 1 << 30;
/// A key is tried on this.
const PROBE: &[u8] = b"stillframe doctor";

impl Inner {
    pub(super) fn examine(&self) -> Vec<Examined> {
        let mut found = self.examine_instances();
        let mut seen = BTreeSet::new();
        let directories =
            self.paths.locations.iter().map(|(name, path)| (format!("the location {name}"), path));
        let directories: Vec<_> =
            [("the store".to_owned(), &self.paths.store)].into_iter().chain(directories).collect();
        for (what, path) in directories {
            let (examined, there) = examine_directory(&what, path);
            found.push(examined);
            found.extend(
                there.filter(|there| seen.insert(there.clone())).map(|there| space(&there)),
            );
        }
        let (homes, errors) = self.homes();
        found.extend(
            errors
                .iter()
                .map(|error| Examined::new(Topic::Repositories, Verdict::Wrong, error.to_string())),
        );
        found.push(self.examine_default_key(&homes));
        found.extend(homes.iter().flat_map(|home| self.examine_repository(home)));
        if homes.is_empty() && errors.is_empty() {
            let message = "there is no repository yet; the first image makes one";
            found.push(Examined::new(Topic::Repositories, Verdict::Note, message));
        }
        found
    }

    fn examine_instances(&self) -> Vec<Examined> {
        let (described, gaps) = self.described();
        let mut found: Vec<Examined> = gaps
            .iter()
            .map(|Gap { place, message, .. }| {
                Examined::new(Topic::Instances, Verdict::Wrong, format!("{place}: {message}"))
            })
            .collect();
        let instances: Vec<&Instance> = described.iter().map(|one| &one.seen).collect();
        for instance in &instances {
            let problems = instance.disks.iter().filter_map(|disk| disk.problem.as_ref());
            found.extend(problems.map(|problem| {
                let message = format!("{}: {problem}", instance.name);
                Examined::new(Topic::Instances, Verdict::Wrong, message)
            }));
        }
        if found.is_empty() {
            let path = self.paths.instances.display();
            let message = match instances.len() {
                0 => {
                    return vec![Examined::new(
                        Topic::Instances,
                        Verdict::Note,
                        format!("{path} describes no instance"),
                    )];
                }
                1 => format!("1 instance in {path}, all disks readable"),
                count => format!("{count} instances in {path}, all disks readable"),
            };
            found.push(Examined::new(Topic::Instances, Verdict::Well, message));
        }
        found
    }

    fn examine_default_key(&self, homes: &[Home]) -> Examined {
        let name = self.settings.default_key();
        let path = self.keys.path(name);
        let is_used = homes.iter().any(|home| home.key == name);
        if path.exists() || is_used {
            return self.examine_key(name);
        }
        let missing = format!("there is no key `{name}` ({})", path.display());
        if self.settings.create_keys.unwrap_or(false) {
            let message = format!("{missing}; the first image makes it");
            return Examined::new(Topic::Keys, Verdict::Note, message);
        }
        Examined::new(Topic::Keys, Verdict::Wrong, missing)
            .with_remedy(format!("stillframe key create {name}"))
    }

    fn examine_key(&self, name: &str) -> Examined {
        let path = self.keys.path(name);
        // One that may not be made: looking changes nothing.
        let keys = KeyFiles::new(self.paths.keys.clone(), false);
        match keys.wrap(name, PROBE, "doctor") {
            Ok(_) => {
                let message = format!("the key `{name}` can be used ({})", path.display());
                Examined::new(Topic::Keys, Verdict::Well, message)
            }
            Err(KeyError::Missing { .. }) => {
                let message = KeyError::Lost(path).to_string();
                Examined::new(Topic::Keys, Verdict::Wrong, message)
            }
            Err(error) => Examined::new(Topic::Keys, Verdict::Wrong, error.to_string()),
        }
    }

    fn examine_repository(&self, home: &Home) -> Vec<Examined> {
        let wrong = |message: String| {
            Examined::new(
                Topic::Repositories,
                Verdict::Wrong,
                format!("{}: {message}", home.label()),
            )
        };
        let mut found = Vec::new();
        if home.key != self.settings.default_key() {
            found.push(self.examine_key(&home.key));
        }
        if home.is_locked_by_restic() {
            let message = format!("{}: the restic program has locked it", home.label());
            let remedy = "`restic unlock` removes what a killed one left";
            found.push(
                Examined::new(Topic::Repositories, Verdict::Note, message).with_remedy(remedy),
            );
        }
        let opened = match home.open(&self.keys) {
            Ok(opened) => opened,
            Err(error) => {
                found.push(wrong(error.to_string()));
                return found;
            }
        };
        match opened.images() {
            Ok(listing) => {
                found.extend(listing.damaged.iter().map(|error| wrong(error.to_string())));
                let count = listing.images.len();
                let images = if count == 1 { "image" } else { "images" };
                let message =
                    format!("{}: {count} {images} in {}", home.label(), home.path.display());
                found.push(Examined::new(Topic::Repositories, Verdict::Well, message));
            }
            Err(error) => found.push(wrong(error.to_string())),
        }
        match opened.holdings().map(|holdings| holdings.lost()) {
            Ok(0) => {}
            Ok(lost) => found.push(wrong(format!("{lost} packs are missing or cut short")).with_remedy(
                "mount what is not mounted, or put them back; `stillframe verify` says what they cost",
            )),
            Err(error) => found.push(wrong(error.to_string())),
        }
        found
    }
}

/// How a directory is that images are kept in, and it or what it will lie in.
fn examine_directory(what: &str, path: &Path) -> (Examined, Option<PathBuf>) {
    let of = |verdict, message: String| Examined::new(Topic::Directories, verdict, message);
    match writable(path) {
        Ok(Writable::Is) => (
            of(Verdict::Well, format!("{what} can be written ({})", path.display())),
            Some(path.to_owned()),
        ),
        Ok(Writable::WillBe(parent)) => {
            let message = format!("{what} is not there yet and will be made ({})", path.display());
            (of(Verdict::Note, message), Some(parent))
        }
        Err(error) => {
            let message = format!("{what} cannot be written ({}): {error}", path.display());
            (
                of(Verdict::Wrong, message)
                    .with_remedy("let the user that runs stillframe write there"),
                None,
            )
        }
    }
}

fn space(path: &Path) -> Examined {
    match rustix::fs::statvfs(path) {
        Ok(system) => {
            let free = system.f_bavail.saturating_mul(system.f_frsize);
            let message = format!("{:.1} GiB free at {}", gib(free), path.display());
            let verdict = if free < FREE_BYTES { Verdict::Note } else { Verdict::Well };
            Examined::new(Topic::Space, verdict, message)
        }
        Err(error) => {
            let message = format!("the free space at {} cannot be read: {error}", path.display());
            Examined::new(Topic::Space, Verdict::Unknown, message)
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people, with one digit")]
fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}
