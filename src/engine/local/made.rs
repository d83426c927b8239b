//! Machines and disks that a program asked for: their files, as nobody described them by hand.
//!
//! Disks lie in the engine's own directory. A directory of disks that is not finished is marked, so
//! that what a killed process has left can be told from what somebody needs. An instance file that
//! was written here is only changed and removed as long as it is what was written: one that a
//! person has edited since is that person's.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::LocalEngine;
use super::instance::{InstanceDocument, read_text};
use super::objects::sync_directory;
use crate::engine::EngineError;
use crate::policy::schema::quoted;

/// Marks a directory of disks that is not finished.
const UNFINISHED: &str = "unfinished";

/// An instance file, and what was written into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The file.
    pub path: PathBuf,
    /// The hash of its text.
    pub digest: String,
}

impl Written {
    /// Whether the file is still what was written.
    pub fn is_unchanged(&self) -> bool {
        fs::read(&self.path).is_ok_and(|text| digest(&text) == self.digest)
    }

    fn check(&self) -> Result<(), EngineError> {
        if self.is_unchanged() {
            return Ok(());
        }
        Err(EngineError::Refused(format!(
            "{} was edited after it had been written: change or remove it by hand",
            self.path.display()
        )))
    }
}

fn digest(text: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(text))
}

/// A directory for new disks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDisks {
    /// The directory.
    pub path: PathBuf,
}

impl NewDisks {
    /// From here on, somebody needs it.
    pub fn finish(&self) -> Result<(), EngineError> {
        fs::remove_file(self.path.join(UNFINISHED)).map_err(|error| failed(&self.path, &error))
    }

    /// Removes it with all that is in it.
    pub fn remove(&self) -> Result<(), EngineError> {
        fs::remove_dir_all(&self.path).map_err(|error| failed(&self.path, &error))
    }
}

fn failed(path: &Path, error: &std::io::Error) -> EngineError {
    EngineError::Failed(format!("{}: {error}", path.display()))
}

impl LocalEngine {
    fn disks_directory(&self) -> PathBuf {
        self.directory().join("disks")
    }

    /// A directory for new disks, as an absolute path.
    pub fn new_disks(&self, id: &str) -> Result<NewDisks, EngineError> {
        let path = self.disks_directory().join(id);
        let make = || {
            fs::create_dir_all(&path)?;
            fs::write(path.join(UNFINISHED), b"")?;
            path.canonicalize()
        };
        Ok(NewDisks { path: make().map_err(|error| failed(&path, &error))? })
    }

    /// The directories of disks that were never finished.
    pub fn unfinished_disks(&self) -> Result<Vec<NewDisks>, EngineError> {
        let directory = self.disks_directory();
        let error = |error: std::io::Error| failed(&directory, &error);
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(cause) => return Err(error(cause)),
        };
        let mut unfinished = Vec::new();
        for entry in entries {
            let path = entry.map_err(error)?.path();
            if path.join(UNFINISHED).exists() {
                unfinished.push(NewDisks { path: path.canonicalize().map_err(error)? });
            }
        }
        Ok(unfinished)
    }

    /// Removes a disk that was made here, and its directory with the last one.
    pub fn remove_disk(&self, path: &Path) -> Result<(), EngineError> {
        let own = self.disks_directory().canonicalize();
        if !own.is_ok_and(|own| path.starts_with(own)) {
            return Err(EngineError::Refused(format!("{} is not a disk of ours", path.display())));
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(path, &error)),
            _ => {}
        }
        if let Some(parent) = path.parent() {
            // It stays where other disks are in it.
            let _ = fs::remove_dir(parent);
        }
        Ok(())
    }

    /// Writes the file of a new machine, under its name among the instance files.
    pub fn add_instance(
        &self,
        document: &InstanceDocument,
        comment: &str,
    ) -> Result<Written, EngineError> {
        let text = render(document, comment)?;
        let path = self.instance_files().join(format!("{}.yaml", document.metadata.name));
        write(&path, &text, false)?;
        let path = path.canonicalize().map_err(|error| failed(&path, &error))?;
        Ok(Written { digest: digest(text.as_bytes()), path })
    }

    /// Writes the file of a machine anew, as long as it is what was written before.
    pub fn rewrite_instance(
        &self,
        written: &Written,
        document: &InstanceDocument,
    ) -> Result<Written, EngineError> {
        written.check()?;
        let before = fs::read_to_string(&written.path);
        let before = before.map_err(|error| failed(&written.path, &error))?;
        let comment = before.lines().next().unwrap_or_default().trim_start_matches(['#', ' ']);
        let text = render(document, comment)?;
        write(&written.path, &text, true)?;
        Ok(Written { path: written.path.clone(), digest: digest(text.as_bytes()) })
    }

    /// Removes the file of a machine, as long as it is what was written.
    pub fn remove_instance(&self, written: &Written) -> Result<(), EngineError> {
        written.check()?;
        fs::remove_file(&written.path).map_err(|error| failed(&written.path, &error))
    }
}

/// The text of an instance file, read back before anybody else reads it.
fn render(document: &InstanceDocument, comment: &str) -> Result<String, EngineError> {
    let yaml = serde_yaml::to_string(document)
        .map_err(|error| EngineError::Failed(format!("the instance file: {error}")))?;
    let text = format!("# {comment}\n{}", quoted(yaml));
    match read_text(&text) {
        Ok(read) if read.len() == 1 && read[0].document == *document => Ok(text),
        Ok(_) => Err(EngineError::Failed("the instance file would say something else".to_owned())),
        Err(mistakes) => {
            Err(EngineError::Refused(format!("this would not be a valid instance: {mistakes}")))
        }
    }
}

fn write(path: &Path, text: &str, replace: bool) -> Result<(), EngineError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let fill = || -> std::io::Result<()> {
        let mut file =
            tempfile::Builder::new().prefix(".new.").suffix(".partial").tempfile_in(directory)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        let placed = if replace { file.persist(path) } else { file.persist_noclobber(path) };
        placed.map_err(|error| error.error)?;
        sync_directory(directory)
    };
    match fill() {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(EngineError::NameTaken(path.display().to_string()))
        }
        filled => filled.map_err(|error| failed(path, &error)),
    }
}

/// Makes a disk of zeros, or makes one longer. A disk is never cut.
pub fn extend_disk(path: &Path, bytes: u64) -> Result<(), EngineError> {
    let fill = || -> std::io::Result<()> {
        let file = File::options().write(true).create(true).truncate(false).open(path)?;
        if file.metadata()?.len() < bytes {
            file.set_len(bytes)?;
        }
        file.sync_all()
    };
    fill().map_err(|error| failed(path, &error))
}
