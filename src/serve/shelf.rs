//! What the server remembers beyond what the images themselves record: one small file per thing,
//! beside the repositories, so that it outlives the server.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::engine::local::home::{read_json, write_json};

/// What the server remembers cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("what the server remembers cannot be written: {0}")]
pub struct ShelfError(String);

/// Things of one kind, by their ids.
#[derive(Debug)]
pub struct Shelf<T> {
    directory: PathBuf,
    things: Mutex<BTreeMap<String, T>>,
}

impl<T: Serialize + DeserializeOwned + Clone> Shelf<T> {
    /// Reads what is there.
    pub fn open(directory: &Path) -> Result<Self, String> {
        let failed =
            |error: std::io::Error| format!("cannot read {}: {error}", directory.display());
        let mut things = BTreeMap::new();
        match fs::read_dir(directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
            Ok(entries) => {
                for entry in entries {
                    let path = entry.map_err(failed)?.path();
                    // A file that was not finished ends otherwise.
                    if path.extension().is_none_or(|extension| extension != "json") {
                        continue;
                    }
                    let thing = read_json(&path).map_err(|error| error.to_string())?;
                    let stem = path.file_stem().unwrap_or_default();
                    things.insert(stem.to_string_lossy().into_owned(), thing);
                }
            }
        }
        Ok(Self { directory: directory.to_owned(), things: Mutex::new(things) })
    }

    /// One of them.
    pub fn get(&self, id: &str) -> Option<T> {
        self.things().get(id).cloned()
    }

    /// All of them, in the order of their ids.
    pub fn all(&self) -> Vec<T> {
        self.things().values().cloned().collect()
    }

    /// All of them with their ids.
    pub fn entries(&self) -> BTreeMap<String, T> {
        self.things().clone()
    }

    /// Keeps one.
    pub fn put(&self, id: &str, thing: T) -> Result<(), ShelfError> {
        let mut things = self.things();
        write_json(&self.path(id), &thing).map_err(|error| failed(&error.to_string()))?;
        things.insert(id.to_owned(), thing);
        Ok(())
    }

    /// Forgets one.
    pub fn remove(&self, id: &str) -> Result<(), ShelfError> {
        let mut things = self.things();
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(&error.to_string())),
            _ => {
                things.remove(id);
                Ok(())
            }
        }
    }

    /// Ids are numbers, so that no one of them leads out of the directory.
    fn path(&self, id: &str) -> PathBuf {
        let safe: String = id.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        self.directory.join(format!("{safe}.json"))
    }

    fn things(&self) -> MutexGuard<'_, BTreeMap<String, T>> {
        self.things.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(error: &str) -> ShelfError {
    ShelfError(error.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_there_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join("things");
        let shelf: Shelf<String> = Shelf::open(&at).unwrap();
        shelf.put("1", "one".to_owned()).unwrap();
        shelf.put("2", "two".to_owned()).unwrap();
        shelf.remove("1").unwrap();
        shelf.remove("1").unwrap();
        drop(shelf);
        let shelf: Shelf<String> = Shelf::open(&at).unwrap();
        assert_eq!(shelf.all(), ["two"]);
        fs::write(at.join("3.json"), "{").unwrap();
        assert!(Shelf::<String>::open(&at).unwrap_err().contains("3.json"));
    }
}
