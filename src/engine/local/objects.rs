//! The files of a restic repository in a directory.
//!
//! `rustic_core` asks for a backend; this one is stricter than the stock one, because deleting
//! hangs on it: a directory that cannot be listed is an error and never an empty list, and a file
//! is written beside its place and renamed, so that a killed process leaves no half file under a
//! final name.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind as IoErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustic_core::{
    ALL_FILE_TYPES, BytesList, ErrorKind, FileType, Id, ReadBackend, RusticError, RusticResult,
    WriteBackend,
};

use crate::engine::Watcher;

/// Where files are written before they get their name.
pub(super) const TEMPORARY: &str = "tmp";

/// A directory with the layout of a restic repository.
#[derive(Debug)]
pub struct ObjectDirectory {
    path: PathBuf,
    /// Whether snapshot files are taken and dropped. While an image is captured, `rustic_core`
    /// would publish its snapshot before anybody has looked whether it is whole.
    withholds_snapshots: bool,
    /// Nothing more is read once it says so: `rustic_core` asks nobody whether to go on.
    reader: Option<Reader>,
}

/// Who reads, and may have enough of it.
struct Reader(Arc<dyn Watcher>);

impl fmt::Debug for Reader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Reader")
    }
}

impl ObjectDirectory {
    /// The repository in `path`.
    pub fn new(path: PathBuf) -> Self {
        Self { path, withholds_snapshots: false, reader: None }
    }

    /// The same, but no snapshot is ever published through it.
    pub fn withholding_snapshots(path: PathBuf) -> Self {
        Self { withholds_snapshots: true, ..Self::new(path) }
    }

    /// The same, but reading fails once the watcher is cancelled.
    pub fn read_until_cancelled(path: PathBuf, watcher: Arc<dyn Watcher>) -> Self {
        Self { reader: Some(Reader(watcher)), ..Self::new(path) }
    }

    fn check_cancelled(&self) -> io::Result<()> {
        match &self.reader {
            Some(Reader(watcher)) if watcher.is_cancelled() => Err(io::Error::other("interrupted")),
            _ => Ok(()),
        }
    }

    fn directory(&self, kind: FileType, id: &Id) -> PathBuf {
        match kind {
            FileType::Config => self.path.clone(),
            FileType::Pack => self.path.join(kind.dirname()).join(&id.to_hex().as_str()[..2]),
            _ => self.path.join(kind.dirname()),
        }
    }

    fn file(&self, kind: FileType, id: &Id) -> PathBuf {
        match kind {
            FileType::Config => self.path.join(kind.dirname()),
            _ => self.directory(kind, id).join(id.to_hex().as_str()),
        }
    }

    fn list_in(directory: &Path, kind: FileType, found: &mut Vec<(Id, u32)>) -> io::Result<()> {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            // The subdirectories of packs come and go with them.
            Err(error) if error.kind() == IoErrorKind::NotFound && kind == FileType::Pack => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(id) = name.to_str().and_then(|name| Id::parse_some(name, kind)) else {
                continue;
            };
            let size = match entry.metadata() {
                Ok(metadata) => metadata.len(),
                // Deleted since the directory was read: it is not there.
                Err(error) if error.kind() == IoErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            found.push((id, u32::try_from(size).unwrap_or(u32::MAX)));
        }
        Ok(())
    }

    fn write(&self, kind: FileType, id: &Id, content: &BytesList) -> io::Result<()> {
        let directory = self.directory(kind, id);
        let temporary = self.path.join(TEMPORARY);
        fs::create_dir_all(&directory)?;
        fs::create_dir_all(&temporary)?;
        let mut file = tempfile::NamedTempFile::new_in(&temporary)?;
        for bytes in content.slice() {
            file.write_all(bytes)?;
        }
        file.as_file().sync_all()?;
        file.persist(self.file(kind, id)).map_err(|error| error.error)?;
        sync_directory(&directory)
    }
}

/// Makes a rename or a removal in a directory last.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn failed(what: &str, path: &Path, error: io::Error) -> Box<RusticError> {
    RusticError::with_source(ErrorKind::Backend, format!("{what} {}", path.display()), error)
}

impl ReadBackend for ObjectDirectory {
    fn location(&self) -> String {
        self.path.display().to_string()
    }

    fn list_with_size(&self, kind: FileType) -> RusticResult<Vec<(Id, u32)>> {
        let path = self.path.join(kind.dirname());
        let mut found = Vec::new();
        let listed = match kind {
            FileType::Config => match fs::metadata(&path) {
                Ok(metadata) => {
                    found.push((Id::default(), u32::try_from(metadata.len()).unwrap_or(u32::MAX)));
                    Ok(())
                }
                Err(error) if error.kind() == IoErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            },
            FileType::Pack => fs::metadata(&path).and_then(|_| {
                (0..=255_u8).try_for_each(|byte| {
                    Self::list_in(&path.join(format!("{byte:02x}")), kind, &mut found)
                })
            }),
            _ => Self::list_in(&path, kind, &mut found),
        };
        listed.map_err(|error| failed("cannot list", &path, error))?;
        Ok(found)
    }

    fn read_full(&self, kind: FileType, id: &Id) -> RusticResult<Bytes> {
        let path = self.file(kind, id);
        fs::read(&path).map(Bytes::from).map_err(|error| failed("cannot read", &path, error))
    }

    fn read_partial(
        &self,
        kind: FileType,
        id: &Id,
        _cacheable: bool,
        offset: u32,
        length: u32,
    ) -> RusticResult<Bytes> {
        let path = self.file(kind, id);
        let mut buffer = vec![0; length as usize];
        self.check_cancelled()
            .and_then(|()| File::open(&path))
            .and_then(|file| file.read_exact_at(&mut buffer, u64::from(offset)))
            .map_err(|error| failed("cannot read", &path, error))?;
        Ok(buffer.into())
    }

    fn warmup_path(&self, kind: FileType, id: &Id) -> String {
        self.file(kind, id).display().to_string()
    }
}

impl WriteBackend for ObjectDirectory {
    fn create(&self) -> RusticResult<()> {
        for kind in ALL_FILE_TYPES {
            let path = self.path.join(kind.dirname());
            fs::create_dir_all(&path).map_err(|error| failed("cannot make", &path, error))?;
        }
        // The restic program looks for its locks here.
        let locks = self.path.join("locks");
        fs::create_dir_all(&locks).map_err(|error| failed("cannot make", &locks, error))
    }

    fn write_bytes(
        &self,
        kind: FileType,
        id: &Id,
        _cacheable: bool,
        content: BytesList,
    ) -> RusticResult<()> {
        if kind == FileType::Snapshot && self.withholds_snapshots {
            return Ok(());
        }
        self.write(kind, id, &content)
            .map_err(|error| failed("cannot write", &self.file(kind, id), error))
    }

    fn remove(&self, kind: FileType, id: &Id, _cacheable: bool) -> RusticResult<()> {
        let path = self.file(kind, id);
        match fs::remove_file(&path) {
            Ok(()) => sync_directory(&self.directory(kind, id)),
            // What is to be gone is gone.
            Err(error) if error.kind() == IoErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
        .map_err(|error| failed("cannot remove", &path, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: &str) -> Id {
        byte.repeat(32).parse().unwrap()
    }

    #[test]
    fn what_cannot_be_listed_is_an_error_and_never_empty() {
        let directory = tempfile::tempdir().unwrap();
        let objects = ObjectDirectory::new(directory.path().join("repository"));
        assert!(objects.list(FileType::Snapshot).is_err());
        assert!(objects.list(FileType::Pack).is_err());
        assert!(objects.list(FileType::Config).unwrap().is_empty());
        objects.create().unwrap();
        assert!(objects.list(FileType::Snapshot).unwrap().is_empty());
        fs::remove_dir(directory.path().join("repository/snapshots")).unwrap();
        fs::write(directory.path().join("repository/snapshots"), "not a directory").unwrap();
        assert!(objects.list(FileType::Snapshot).is_err());
    }

    #[test]
    fn files_are_written_read_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let objects = ObjectDirectory::new(directory.path().to_owned());
        objects.create().unwrap();
        for kind in [FileType::Pack, FileType::Index, FileType::Snapshot] {
            objects.write_bytes(kind, &id("ab"), false, b"0123456789".to_vec().into()).unwrap();
            assert_eq!(objects.list_with_size(kind).unwrap(), [(id("ab"), 10)]);
            assert_eq!(objects.read_partial(kind, &id("ab"), false, 3, 4).unwrap(), "3456");
            objects.remove(kind, &id("ab"), false).unwrap();
            objects.remove(kind, &id("ab"), false).unwrap();
            assert!(objects.list(kind).unwrap().is_empty());
        }
        assert!(fs::read_dir(directory.path().join(TEMPORARY)).unwrap().next().is_none());
    }

    #[test]
    fn snapshots_can_be_withheld() {
        let directory = tempfile::tempdir().unwrap();
        let objects = ObjectDirectory::withholding_snapshots(directory.path().to_owned());
        objects.create().unwrap();
        objects.write_bytes(FileType::Snapshot, &id("ab"), false, b"x".to_vec().into()).unwrap();
        objects.write_bytes(FileType::Index, &id("ab"), false, b"x".to_vec().into()).unwrap();
        assert!(objects.list(FileType::Snapshot).unwrap().is_empty());
        assert_eq!(objects.list(FileType::Index).unwrap().len(), 1);
    }
}
