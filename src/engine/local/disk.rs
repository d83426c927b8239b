//! Disks of an instance: opened all at one point in time, read with their holes.
//!
//! How the point in time is kept, for each kind of disk:
//!
//! - *raw file on a file system with reflinks*: a copy-on-write clone is taken of each file before
//!   anything is read; if no file changed from before the first clone to after the last, the
//!   clones are of one instant, and they are what is read;
//! - *raw file elsewhere, qcow2 file*: what is still in memory is written out, so that the next
//!   write leaves another time, also one through a memory map; size, times, and for qcow2 the header of every file of the
//!   chain are noted before the first byte and compared after the last byte of all disks. Anything
//!   that changed fails the capture. File systems that count times in whole seconds (FAT, some
//!   network file systems) can miss a write in the second before the capture;
//! - *block device*: claimed exclusively, which the kernel refuses while it is mounted; and the
//!   count of sectors that the kernel has written to it is compared, because a machine that opens
//!   it without claiming it is not kept out.

mod qcow2;
mod raw;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use qcow2::{Qcow2Writer, write_qcow2};

use rustix::fs::OFlags;

use super::instance::{DiskFormat, DiskSpec, LocalInstance};
use super::record::PointInTime;

/// How often clones are tried where the files keep changing.
const CLONE_ATTEMPTS: usize = 3;
/// Longer than the tick in which Linux file systems count the times of files (10 ms at most, with
/// `CONFIG_HZ=100`): two writes further apart than this leave different times.
const TIME_TICK: Duration = Duration::from_millis(12);

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
        // From here on a write leaves another time than the one that is noted.
        std::thread::sleep(TIME_TICK);
        let disks = specs.iter().map(|spec| open_disk(instance, spec)).collect::<Result<_, _>>()?;
        Ok(Self { disks, guarded })
    }

    fn is_all_cloned(&self) -> bool {
        self.disks.iter().all(|disk| disk.point_in_time == PointInTime::Reflink)
    }

    /// Disks whose bytes cannot change any more.
    pub fn of(disks: Vec<OpenDisk>) -> Self {
        Self { disks, guarded: Vec::new() }
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
    match spec.format() {
        DiskFormat::Qcow2 => Ok(qcow2::Header::read(&spec.device_name, &path)?.size),
        DiskFormat::Raw => {
            let size = metadata(&spec.device_name, &path)?.len();
            raw::check_magic(spec, &path)?;
            Ok(size)
        }
        DiskFormat::Block => raw::device_size(&spec.device_name, &path),
    }
}

/// Every file that the bytes of a disk come from.
fn files_of(instance: &LocalInstance, spec: &DiskSpec) -> Result<Vec<PathBuf>, DiskError> {
    let path = instance.disk_path(spec);
    match spec.format() {
        DiskFormat::Qcow2 => qcow2::chain(&spec.device_name, &path),
        DiskFormat::Raw | DiskFormat::Block => Ok(vec![path]),
    }
}

fn open_disk(instance: &LocalInstance, spec: &DiskSpec) -> Result<OpenDisk, DiskError> {
    let path = instance.disk_path(spec);
    let (size, point_in_time, bytes) = match spec.format() {
        DiskFormat::Raw => {
            raw::check_magic(spec, &path)?;
            raw::open_file(&spec.device_name, &path)?
        }
        DiskFormat::Block => raw::open_device(&spec.device_name, &path)?,
        DiskFormat::Qcow2 => qcow2::open(&spec.device_name, &path)?,
    };
    if size == 0 {
        let message = "is empty: a disk has at least one byte".to_owned();
        return Err(DiskError::NotADisk { disk: spec.device_name.clone(), path, message });
    }
    Ok(OpenDisk { spec: spec.clone(), size, point_in_time, bytes })
}

/// Opens a file or a device. Anything else that has a name (a pipe, a socket) would be waited for.
fn open_file(disk: &str, path: &Path) -> Result<File, DiskError> {
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = File::options()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)
        .map_err(|source| file_error(disk, path, source))?;
    let kind = file.metadata().map_err(|source| file_error(disk, path, source))?.file_type();
    if kind.is_file() || kind.is_block_device() {
        return Ok(file);
    }
    Err(DiskError::NotADisk {
        disk: disk.to_owned(),
        path: path.to_owned(),
        message: "is not a file".to_owned(),
    })
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
        let file = open_file(disk, &path)?;
        match Self::state(&file) {
            Ok(state) => Ok(Self { state: Some(state), path }),
            Err(source) => Err(file_error(disk, &path, source)),
        }
    }

    fn state(file: &File) -> io::Result<[i128; 5]> {
        // Pages that are dirty already take more writes without a new time; written out, they do
        // not. Where a file system cannot do it, it cannot have such pages either.
        let _ = file.sync_all();
        let metadata = file.metadata()?;
        if metadata.file_type().is_block_device() {
            // A device node says nothing about its content; the kernel's counters do.
            let rdev = metadata.rdev();
            let (major, minor) = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
            let directory = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
            let count = |name: &str, field: usize| -> i128 {
                let text = fs::read_to_string(directory.join(name)).unwrap_or_default();
                text.split_whitespace().nth(field).and_then(|word| word.parse().ok()).unwrap_or(-1)
            };
            // Field 6 of `stat`, counted from 0: sectors written (Documentation/block/stat.rst).
            return Ok([i128::from(rdev), count("stat", 6), count("size", 0), 0, 0]);
        }
        let time = |seconds: i64, nanoseconds: i64| {
            i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
        };
        Ok([
            i128::from(metadata.dev()),
            i128::from(metadata.ino()),
            i128::from(metadata.len()),
            time(metadata.mtime(), metadata.mtime_nsec()),
            time(metadata.ctime(), metadata.ctime_nsec()),
        ])
    }

    fn check(&self) -> Result<(), DiskError> {
        let now = open_file("", &self.path).ok().and_then(|file| Self::state(&file).ok());
        if now == self.state { Ok(()) } else { Err(DiskError::Changed(self.path.clone())) }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::engine::local::instance::read_directory;

    /// An instance with a raw disk and a qcow2 disk over a raw backing file.
    fn instance(directory: &Path) -> LocalInstance {
        fs::create_dir(directory.join("instances")).unwrap();
        let text = "apiVersion: stillframe/v1\nkind: Instance\nmetadata: {name: vm-1, id: \"1\"}\n\
                    spec:\n  zone: a\n  machineType: small\n  disks:\n\
                    \x20   - {deviceName: boot, path: ../boot.raw, boot: true}\n\
                    \x20   - {deviceName: data, path: ../data.qcow2, format: qcow2}\n";
        fs::write(directory.join("instances/vm-1.yaml"), text).unwrap();
        fs::write(directory.join("boot.raw"), vec![7_u8; 8192]).unwrap();
        let writer = write_qcow2(&directory.join("data.qcow2"), 65536).unwrap();
        writer.write_at(&vec![9_u8; 65536], 0).unwrap();
        writer.finish().unwrap();
        let (mut instances, gaps) = read_directory(&directory.join("instances"));
        assert!(gaps.is_empty(), "{gaps:?}");
        instances.remove(0)
    }

    fn open(instance: &LocalInstance) -> OpenDisks {
        OpenDisks::open(instance, &["boot".to_owned(), "data".to_owned()]).unwrap()
    }

    #[test]
    fn disks_that_stay_as_they_are_pass() {
        let directory = tempfile::tempdir().unwrap();
        let disks = open(&instance(directory.path()));
        let sizes: Vec<u64> = disks.disks.iter().map(|disk| disk.size).collect();
        assert_eq!(sizes, [8192, 65536]);
        assert_eq!(disks.total(), 8192 + 65536);
        let mut buffer = [0; 16];
        disks.disks[1].bytes.read_at(&mut buffer, 65520).unwrap();
        assert_eq!(buffer, [9; 16]);
        disks.check().unwrap();
    }

    #[test]
    fn any_change_to_any_disk_is_seen_at_once() {
        type Change = fn(&Path);
        let changes: [(&str, Change); 5] = [
            ("data.qcow2", |path| {
                let file = File::options().write(true).open(path).unwrap();
                file.write_all_at(&[1], 65540).unwrap();
            }),
            ("data.qcow2", |path| fs::remove_file(path).unwrap()),
            ("data.qcow2", |path| {
                let other = path.with_extension("other");
                fs::copy(path, &other).unwrap();
                fs::rename(&other, path).unwrap();
            }),
            ("data.qcow2", |path| {
                File::options().write(true).open(path).unwrap().set_len(1 << 20).unwrap();
            }),
            ("boot.raw", |path| {
                // The same bytes again: a write is a write.
                let file = File::options().write(true).open(path).unwrap();
                file.write_all_at(&[7], 4096).unwrap();
            }),
        ];
        for (name, change) in changes {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join(name);
            let disks = open(&instance(directory.path()));
            let is_cloned = disks.disks.iter().any(|disk| {
                disk.spec.path.ends_with(name) && disk.point_in_time == PointInTime::Reflink
            });
            change(&path);
            match disks.check() {
                Err(DiskError::Changed(file)) => assert!(file.ends_with(name), "{name}"),
                other => assert!(is_cloned && other.is_ok(), "{name}: {other:?}"),
            }
        }
    }
}
