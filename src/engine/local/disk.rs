//! Disks of an instance: opened all at one point in time, read with their holes.
//!
//! How the point in time is kept, for each kind of disk:
//!
//! - *raw file on a file system with reflinks*: a copy-on-write clone is taken of each file before
//!   anything is read; if no file changed from before the first clone to after the last, the
//!   clones are of one instant, and they are what is read;
//! - *raw file elsewhere, qcow2 file*: size, times, and for qcow2 the header of every file of the
//!   chain are noted before the first byte and compared after the last byte of all disks. Anything
//!   that changed fails the capture;
//! - *block device*: claimed exclusively, which the kernel refuses while it is mounted.

mod qcow2;
mod raw;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use qcow2::{Qcow2Writer, write_qcow2};

use super::instance::{DiskFormat, DiskSpec, LocalInstance};
use super::record::PointInTime;

/// How often clones are tried where the files keep changing.
const CLONE_ATTEMPTS: usize = 3;

/// Why a disk cannot be captured.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The file is not there.
    #[error("disk {disk}: there is no file {}; put it back or mend `path` in the instance file", path.display())]
    Missing {
        /// The device name.
        disk: String,
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("disk {disk}: cannot read {}: {source}", path.display())]
    Unreadable {
        /// The device name.
        disk: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what the instance file says.
    #[error("disk {disk}: {} {message}", path.display())]
    NotADisk {
        /// The device name.
        disk: String,
        /// The file.
        path: PathBuf,
        /// What it is instead, and what to do.
        message: String,
    },
    /// The file changed while it was read.
    #[error(
        "{} changed while it was read: stop the machine, or keep its disks on a file system with reflinks (XFS, Btrfs)",
        .0.display()
    )]
    Changed(PathBuf),
}

/// A disk that is open for reading.
pub struct OpenDisk {
    /// What the instance file says of it.
    pub spec: DiskSpec,
    /// Bytes the machine sees.
    pub size: u64,
    /// How it is kept at one point in time.
    pub point_in_time: PointInTime,
    /// Its bytes.
    pub bytes: Arc<dyn DiskBytes>,
}

/// The bytes of a disk as the machine sees them.
pub trait DiskBytes: Send + Sync {
    /// Fills the buffer from an offset; the range lies within the disk.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// From where on there may be data: bytes from `offset` up to there are zero. `None` where
    /// only zeros follow.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>>;
}

/// All chosen disks of an instance, at one point in time.
pub struct OpenDisks {
    /// The disks, in the order of the instance file.
    pub disks: Vec<OpenDisk>,
    /// Files that must not have changed when the last byte was read.
    guarded: Vec<Mark>,
}

impl OpenDisks {
    /// Opens the chosen disks of an instance.
    pub fn open(instance: &LocalInstance, chosen: &[String]) -> Result<Self, DiskError> {
        let specs: Vec<&DiskSpec> = instance
            .document
            .spec
            .disks
            .iter()
            .filter(|disk| chosen.contains(&disk.device_name))
            .collect();
        let mut attempt = 1;
        loop {
            let opened = Self::open_once(instance, &specs)?;
            match opened.check() {
                // Clones are of one instant if nothing changed meanwhile: the files themselves
                // may change from here on.
                Ok(()) if opened.is_all_cloned() => {
                    return Ok(Self { disks: opened.disks, guarded: Vec::new() });
                }
                Err(_) if attempt < CLONE_ATTEMPTS && opened.is_all_cloned() => attempt += 1,
                Ok(()) => return Ok(opened),
                Err(error) => return Err(error),
            }
        }
    }

    fn open_once(instance: &LocalInstance, specs: &[&DiskSpec]) -> Result<Self, DiskError> {
        let mut guarded = Vec::new();
        for spec in specs {
            for path in files_of(instance, spec)? {
                guarded.push(Mark::of(&spec.device_name, path)?);
            }
        }
        let disks = specs.iter().map(|spec| open_disk(instance, spec)).collect::<Result<_, _>>()?;
        Ok(Self { disks, guarded })
    }

    fn is_all_cloned(&self) -> bool {
        self.disks.iter().all(|disk| disk.point_in_time == PointInTime::Reflink)
    }

    /// Fails if any file changed since the disks were opened.
    pub fn check(&self) -> Result<(), DiskError> {
        self.guarded.iter().try_for_each(Mark::check)
    }

    /// Bytes of all disks.
    pub fn total(&self) -> u64 {
        self.disks.iter().map(|disk| disk.size).sum()
    }
}

/// What the machine sees of a disk, without reading it; for listings.
pub fn size_of(instance: &LocalInstance, spec: &DiskSpec) -> Result<u64, DiskError> {
    let path = instance.disk_path(spec);
    match spec.format {
        DiskFormat::Qcow2 => Ok(qcow2::Header::read(&spec.device_name, &path)?.size),
        DiskFormat::Raw => Ok(metadata(&spec.device_name, &path)?.len()),
        DiskFormat::Block => raw::device_size(&spec.device_name, &path),
    }
}

/// Every file that the bytes of a disk come from.
fn files_of(instance: &LocalInstance, spec: &DiskSpec) -> Result<Vec<PathBuf>, DiskError> {
    let path = instance.disk_path(spec);
    match spec.format {
        DiskFormat::Qcow2 => qcow2::chain(&spec.device_name, &path),
        DiskFormat::Raw | DiskFormat::Block => Ok(vec![path]),
    }
}

fn open_disk(instance: &LocalInstance, spec: &DiskSpec) -> Result<OpenDisk, DiskError> {
    let path = instance.disk_path(spec);
    let (size, point_in_time, bytes) = match spec.format {
        DiskFormat::Raw => raw::open_file(&spec.device_name, &path)?,
        DiskFormat::Block => raw::open_device(&spec.device_name, &path)?,
        DiskFormat::Qcow2 => qcow2::open(&spec.device_name, &path)?,
    };
    Ok(OpenDisk { spec: spec.clone(), size, point_in_time, bytes })
}

fn open_file(disk: &str, path: &Path) -> Result<File, DiskError> {
    File::open(path).map_err(|source| file_error(disk, path, source))
}

fn metadata(disk: &str, path: &Path) -> Result<fs::Metadata, DiskError> {
    let metadata = fs::metadata(path).map_err(|source| file_error(disk, path, source))?;
    if metadata.is_file() {
        return Ok(metadata);
    }
    let message = if metadata.file_type().is_block_device() {
        "is a block device; write `format: block`"
    } else {
        "is not a file"
    };
    Err(DiskError::NotADisk {
        disk: disk.to_owned(),
        path: path.to_owned(),
        message: message.to_owned(),
    })
}

fn file_error(disk: &str, path: &Path, source: io::Error) -> DiskError {
    let (disk, path) = (disk.to_owned(), path.to_owned());
    match source.kind() {
        io::ErrorKind::NotFound => DiskError::Missing { disk, path },
        _ => DiskError::Unreadable { disk, path, source },
    }
}

/// What changes when a file is written.
#[derive(Debug, PartialEq, Eq)]
struct Mark {
    path: PathBuf,
    /// Device, inode, size, and the times of the last change of content and of attributes.
    state: Option<[i128; 5]>,
}

impl Mark {
    fn of(disk: &str, path: PathBuf) -> Result<Self, DiskError> {
        match fs::metadata(&path) {
            Ok(metadata) => Ok(Self { state: Some(Self::state(&metadata)), path }),
            Err(source) => Err(file_error(disk, &path, source)),
        }
    }

    fn state(metadata: &fs::Metadata) -> [i128; 5] {
        if metadata.file_type().is_block_device() {
            // A device node says nothing about its content.
            return [i128::from(metadata.rdev()), 0, 0, 0, 0];
        }
        let time = |seconds: i64, nanoseconds: i64| {
            i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
        };
        [
            i128::from(metadata.dev()),
            i128::from(metadata.ino()),
            i128::from(metadata.len()),
            time(metadata.mtime(), metadata.mtime_nsec()),
            time(metadata.ctime(), metadata.ctime_nsec()),
        ]
    }

    fn check(&self) -> Result<(), DiskError> {
        let now = fs::metadata(&self.path).ok().map(|metadata| Self::state(&metadata));
        if now == self.state { Ok(()) } else { Err(DiskError::Changed(self.path.clone())) }
    }
}
