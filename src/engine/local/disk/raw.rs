//! Raw files and block devices.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, SeekFrom as HoleSeek};

use super::{DiskBytes, DiskError, file_error, metadata, open_file as open_plain};
use crate::engine::local::instance::DiskSpec;
use crate::engine::local::record::PointInTime;

/// Size, how it is kept at one point in time, and the bytes.
type Opened = (u64, PointInTime, Arc<dyn DiskBytes>);

/// Opens a raw file, or a clone of it where the file system makes clones.
pub(super) fn open_file(disk: &str, path: &Path) -> Result<Opened, DiskError> {
    let size = metadata(disk, path)?.len();
    let file = open_plain(disk, path)?;
    match clone_of(&file, path) {
        Some(clone) => Ok((size, PointInTime::Reflink, Arc::new(RawBytes { file: clone, size }))),
        None => Ok((size, PointInTime::GuardedRead, Arc::new(RawBytes { file, size }))),
    }
}

/// The first bytes of formats that are no raw disks, and what they are called.
const MAGICS: [(&[u8], &str); 5] = [
    (b"QFI\xfb", "qcow2"),
    (b"KDMV", "VMDK"),
    (b"vhdxfile", "VHDX"),
    (b"conectix", "VHD"),
    (b"<<< Oracle VM VirtualBox Disk Image >>>", "VDI"),
];

/// Refuses a file of another format where nobody wrote that it is raw: as a raw disk it would be
/// captured without what it is based on.
pub(super) fn check_magic(spec: &DiskSpec, path: &Path) -> Result<(), DiskError> {
    if spec.format.is_some() {
        return Ok(());
    }
    let file = open_plain(&spec.device_name, path)?;
    let mut head = [0; 64];
    let length = file.read_at(&mut head, 0).map_err(|e| file_error(&spec.device_name, path, e))?;
    let found = MAGICS.iter().find(|(magic, _)| head[..length].starts_with(magic));
    let Some((_, name)) = found else { return Ok(()) };
    let message = if *name == "qcow2" {
        "is a qcow2 file; write `format: qcow2`, or `format: raw` if its bytes are the disk"
            .to_owned()
    } else {
        format!(
            "is a {name} file, which is not supported: convert it with `qemu-img convert -O qcow2`, or write `format: raw` if its bytes are the disk"
        )
    };
    Err(DiskError::NotADisk { disk: spec.device_name.clone(), path: path.to_owned(), message })
}

/// Opens a block device and claims it.
pub(super) fn open_device(disk: &str, path: &Path) -> Result<Opened, DiskError> {
    let size = device_size(disk, path)?;
    let exclusive = i32::try_from(OFlags::EXCL.bits()).unwrap_or(0);
    let file = std::fs::OpenOptions::new().read(true).custom_flags(exclusive).open(path).map_err(
        |source| {
            if source.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()) {
                let message =
                    "is in use: unmount it, or capture a snapshot of it (LVM, ZFS)".to_owned();
                DiskError::NotADisk { disk: disk.to_owned(), path: path.to_owned(), message }
            } else {
                file_error(disk, path, source)
            }
        },
    )?;
    Ok((size, PointInTime::ExclusiveDevice, Arc::new(RawBytes { file, size })))
}

/// The size of a block device.
pub(super) fn device_size(disk: &str, path: &Path) -> Result<u64, DiskError> {
    let kind =
        std::fs::metadata(path).map_err(|source| file_error(disk, path, source))?.file_type();
    if !kind.is_block_device() {
        let message = "is not a block device".to_owned();
        return Err(DiskError::NotADisk { disk: disk.to_owned(), path: path.to_owned(), message });
    }
    let mut file = open_plain(disk, path)?;
    file.seek(SeekFrom::End(0)).map_err(|source| file_error(disk, path, source))
}

/// A copy-on-write clone without a name, so that nothing is left of it after a crash.
fn clone_of(file: &File, path: &Path) -> Option<File> {
    let directory =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let clone = rustix::fs::openat(CWD, directory, flags, Mode::RUSR | Mode::WUSR).ok()?;
    rustix::fs::ioctl_ficlone(&clone, file).ok()?;
    Some(File::from(clone))
}

struct RawBytes {
    file: File,
    size: u64,
}

impl DiskBytes for RawBytes {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        match rustix::fs::seek(&self.file, HoleSeek::Data(offset)) {
            Ok(data) => Ok((data < self.size).then_some(data)),
            // Only a hole is left.
            Err(rustix::io::Errno::NXIO) => Ok(None),
            // No holes on this file system or device: everything counts as data.
            Err(_) => Ok(Some(offset)),
        }
    }
}
