//! qcow2 files, read and written by `imago`; what must be known before, from the header.
//!
//! The layout of the header is the one of QEMU's `docs/interop/qcow2.txt`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use imago::file::File as ImagoFile;
use imago::qcow2::Qcow2;
use imago::{
    FormatAccess, FormatCreateBuilder, FormatDriverBuilder, PermissiveImplicitOpenGate, Storage,
    StorageCreateOptions,
};

use super::{DiskBytes, DiskError, file_error, open_file};
use crate::engine::local::record::PointInTime;

mod check;

const MAGIC: &[u8] = b"QFI\xfb";
const HEADER_LENGTH: usize = 104;
/// A chain of backing files longer than this is taken for a loop.
const CHAIN_MAX: usize = 64;
const BACKING_NAME_MAX: usize = 1023;

const INCOMPATIBLE_DIRTY: u64 = 1;
const INCOMPATIBLE_CORRUPT: u64 = 1 << 1;
const INCOMPATIBLE_EXTERNAL_DATA: u64 = 1 << 2;
const INCOMPATIBLE_COMPRESSION: u64 = 1 << 3;
const INCOMPATIBLE_KNOWN: u64 = (1 << 4) - 1;
/// Zstandard in the header's field of the compression type.
const COMPRESSION_ZSTD: u64 = 1;

/// What the header of a qcow2 file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// Bytes the machine sees.
    pub(super) size: u64,
    /// The file it is based on.
    backing: Option<PathBuf>,
}

impl Header {
    /// Reads a header and refuses what cannot be captured soundly.
    pub(super) fn read(disk: &str, path: &Path) -> Result<Self, DiskError> {
        let mut file = open_file(disk, path)?;
        let not = |message: &str| DiskError::NotADisk {
            disk: disk.to_owned(),
            path: path.to_owned(),
            message: message.to_owned(),
        };
        let mut bytes = Vec::new();
        let limit = (HEADER_LENGTH + BACKING_NAME_MAX) as u64;
        (&mut file)
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(|source| file_error(disk, path, source))?;
        if !bytes.starts_with(MAGIC) {
            return Err(not("is not a qcow2 file; write `format: raw` if it is a raw disk"));
        }
        let (Some(version), Some(size), Some(crypt)) =
            (number(&bytes, 4, 4), number(&bytes, 24, 8), number(&bytes, 32, 4))
        else {
            return Err(not("ends within its header"));
        };
        let features = if version >= 3 { number(&bytes, 72, 8).unwrap_or(0) } else { 0 };
        if !(2..=3).contains(&version) {
            return Err(not("has a qcow2 version this program does not know"));
        }
        if crypt != 0 {
            return Err(not("is encrypted by QEMU, which is not supported"));
        }
        if features & INCOMPATIBLE_CORRUPT != 0 {
            return Err(not("is marked corrupt; run `qemu-img check -r all` on it"));
        }
        if features & INCOMPATIBLE_DIRTY != 0 {
            return Err(not(
                "was not closed cleanly or is in use; stop the machine, or run `qemu-img check -r all` on it",
            ));
        }
        if features & INCOMPATIBLE_EXTERNAL_DATA != 0 {
            return Err(not("keeps its data in another file, which is not supported"));
        }
        if features & INCOMPATIBLE_COMPRESSION != 0
            && number(&bytes, 104, 1) == Some(COMPRESSION_ZSTD)
        {
            return Err(not(
                "is compressed with zstd, which is not supported; convert it with `qemu-img convert -O qcow2`",
            ));
        }
        if features & !INCOMPATIBLE_KNOWN != 0 {
            return Err(not(
                "uses a qcow2 feature this program does not know (like extended L2 entries); convert it with `qemu-img convert -O qcow2`",
            ));
        }
        check::check_tables(&file, &bytes, size).map_err(|error| match error {
            check::TableError::Read(source) => file_error(disk, path, source),
            check::TableError::Broken(what) => {
                not(&format!("is damaged or cut short: {what}; `qemu-img check` says more"))
            }
        })?;
        if check::is_open_for_writing(&file) {
            return Err(not(
                "is open for writing by another program: stop the machine, what it has not written out yet would be missing",
            ));
        }
        let backing =
            backing_name(&file, &bytes).map_err(|source| file_error(disk, path, source))?;
        let backing = backing.map(|name| path.parent().unwrap_or(Path::new("")).join(name));
        Ok(Self { size, backing })
    }
}

fn number(bytes: &[u8], offset: usize, length: usize) -> Option<u64> {
    let bytes = bytes.get(offset..offset + length)?;
    Some(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn backing_name(file: &File, header: &[u8]) -> io::Result<Option<PathBuf>> {
    use std::os::unix::ffi::OsStringExt;
    use std::os::unix::fs::FileExt;
    let offset = number(header, 8, 8).unwrap_or(0);
    let length = number(header, 16, 4).and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    if offset == 0 || length == 0 {
        return Ok(None);
    }
    let mut name = vec![0; length.min(BACKING_NAME_MAX)];
    file.read_exact_at(&mut name, offset)?;
    Ok(Some(PathBuf::from(std::ffi::OsString::from_vec(name))))
}

/// The file and all files it is based on.
pub(super) fn chain(disk: &str, path: &Path) -> Result<Vec<PathBuf>, DiskError> {
    let mut files = vec![path.to_owned()];
    let mut header = Header::read(disk, path)?;
    while let Some(backing) = header.backing.take() {
        files.push(backing.clone());
        if files.len() > CHAIN_MAX {
            let message = "is based on itself, or on too many files".to_owned();
            return Err(DiskError::NotADisk {
                disk: disk.to_owned(),
                path: path.to_owned(),
                message,
            });
        }
        // A raw file at the end of the chain has no header.
        let mut magic = [0; 4];
        let is_qcow2 = open_file(disk, &backing)?.read_exact(&mut magic).is_ok() && magic == MAGIC;
        if is_qcow2 {
            header = Header::read(disk, &backing)?;
        }
    }
    Ok(files)
}

pub(super) fn open(
    disk: &str,
    path: &Path,
) -> Result<(u64, PointInTime, Arc<dyn DiskBytes>), DiskError> {
    let header = Header::read(disk, path)?;
    let qcow2 = Qcow2::<ImagoFile>::builder_path(path)
        .open(PermissiveImplicitOpenGate::default())
        .map_err(|source| file_error(disk, path, source))?;
    let access = FormatAccess::new(qcow2);
    Ok((header.size, PointInTime::GuardedRead, Arc::new(Qcow2Bytes { access })))
}

struct Qcow2Bytes {
    access: FormatAccess<ImagoFile>,
}

impl DiskBytes for Qcow2Bytes {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.access.read(buffer, offset)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        let size = self.access.size();
        let mut offset = offset;
        while offset < size {
            let (mapping, length) = self.access.get_mapping(offset, size - offset)?;
            let is_zero = matches!(mapping, imago::Mapping::Zero { .. });
            if !is_zero {
                return Ok(Some(offset));
            }
            offset += length.max(1);
        }
        Ok(None)
    }
}

/// A new qcow2 file that is filled from the front.
pub struct Qcow2Writer {
    access: FormatAccess<ImagoFile>,
}

/// Makes a new qcow2 file of a given size; there must be no file yet.
pub fn write_qcow2(path: &Path, size: u64) -> io::Result<Qcow2Writer> {
    let file = ImagoFile::create_open(StorageCreateOptions::new().filename(path).overwrite(true))?;
    let qcow2 = Qcow2::<ImagoFile>::create_builder(file)
        .size(size)
        .create_open(PermissiveImplicitOpenGate::default(), |image| {
            Ok(Qcow2::<ImagoFile>::builder(image).write(true))
        })?;
    Ok(Qcow2Writer { access: FormatAccess::new(qcow2) })
}

impl Qcow2Writer {
    /// Writes bytes at an offset.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.access.write(bytes, offset)
    }

    /// Makes everything last.
    pub fn finish(self) -> io::Result<()> {
        self.access.flush()?;
        self.access.sync()
    }
}
