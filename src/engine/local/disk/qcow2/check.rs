//! Whether the tables of a qcow2 file lie within it.
//!
//! A file that was cut short still has a header; what its tables refer to beyond the end would be
//! read as zeros. The layout is the one of QEMU's `docs/interop/qcow2.txt`.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};

use super::number;

/// The part of a table entry that is an offset.
const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
/// QEMU's own limit for the first table.
const L1_BYTES_MAX: u64 = 32 << 20;
/// QEMU locks this byte of an image as long as it may write to it (`block/file-posix.c`:
/// `RAW_LOCK_PERM_BASE` + the bit of `BLK_PERM_WRITE`).
const QEMU_WRITE_BYTE: u64 = 101;

/// Why the tables cannot be trusted.
pub(super) enum TableError {
    /// They could not be read.
    Read(io::Error),
    /// They refer to what is not there.
    Broken(&'static str),
}

impl From<io::Error> for TableError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Broken("a table lies beyond its end"),
            _ => Self::Read(error),
        }
    }
}

/// Reads both levels of tables; every entry must lie within the file.
pub(super) fn check_tables(file: &File, header: &[u8], size: u64) -> Result<(), TableError> {
    let broken = |what| Err(TableError::Broken(what));
    let field = |offset, length| number(header, offset, length).unwrap_or(0);
    let (cluster_bits, l1_entries, l1_offset) = (field(20, 4), field(36, 4), field(40, 8));
    if !(9..=21).contains(&cluster_bits) {
        return broken("it has clusters of a size that cannot be");
    }
    let cluster = 1_u64 << cluster_bits;
    let reach = u128::from(l1_entries) * u128::from(cluster / 8) * u128::from(cluster);
    if reach < u128::from(size) || l1_entries * 8 > L1_BYTES_MAX {
        return broken("its first table does not fit its size");
    }
    // Also of a device, which has no length of its own.
    let length = (&*file).seek(SeekFrom::End(0))?;
    let mut l1 = vec![0; usize::try_from(l1_entries * 8).unwrap_or(0)];
    file.read_exact_at(&mut l1, l1_offset)?;
    let mut l2 = vec![0; usize::try_from(cluster).unwrap_or(0)];
    for entry in entries(&l1) {
        let offset = entry & OFFSET_MASK;
        if offset == 0 {
            continue;
        }
        file.read_exact_at(&mut l2, offset)?;
        let compressed_bits = 62 - (cluster_bits - 8);
        for entry in entries(&l2) {
            let offset = if entry & COMPRESSED == 0 {
                entry & OFFSET_MASK
            } else {
                entry & ((1 << compressed_bits) - 1)
            };
            if offset >= length {
                return broken("data lies beyond its end");
            }
        }
    }
    Ok(())
}

fn entries(table: &[u8]) -> impl Iterator<Item = u64> + '_ {
    table.chunks_exact(8).map(|bytes| number(bytes, 0, 8).unwrap_or(0))
}

/// Whether QEMU, or a tool of it, has the file open for writing; as far as `/proc/locks` shows it.
pub(super) fn is_open_for_writing(file: &File) -> bool {
    let Ok(metadata) = file.metadata() else { return false };
    let (major, minor) = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    let this = format!("{major:02x}:{minor:02x}:{}", metadata.ino());
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    locks.lines().any(|line| holds_write_byte(line, &this))
}

/// `1: OFDLCK ADVISORY READ -1 fe:01:1234 100 101`.
fn holds_write_byte(line: &str, file: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, "OFDLCK", _, _, _, locked, from, to] = words.as_slice() else { return false };
    let (Ok(from), to) = (from.parse::<u64>(), to.parse::<u64>()) else { return false };
    *locked == file && from <= QEMU_WRITE_BYTE && to.unwrap_or(u64::MAX) >= QEMU_WRITE_BYTE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_of_a_writing_qemu_is_known() {
        let line = "3: OFDLCK  ADVISORY  READ -1 fe:01:1234 101 101";
        assert!(holds_write_byte(line, "fe:01:1234"));
        assert!(holds_write_byte("3: OFDLCK ADVISORY READ -1 fe:01:1234 100 EOF", "fe:01:1234"));
        assert!(!holds_write_byte(line, "fe:01:12345"));
        assert!(!holds_write_byte("3: OFDLCK ADVISORY READ -1 fe:01:1234 100 100", "fe:01:1234"));
        assert!(!holds_write_byte("3: POSIX ADVISORY WRITE 9 fe:01:1234 0 EOF", "fe:01:1234"));
    }

    #[test]
    fn a_file_that_is_cut_short_is_broken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.qcow2");
        let writer = super::super::write_qcow2(&path, 1 << 20).unwrap();
        for offset in [0, 512 << 10] {
            writer.write_at(&vec![7; 65536], offset).unwrap();
        }
        writer.finish().unwrap();
        let whole = fs::read(&path).unwrap();
        let check = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            check_tables(&File::open(&path).unwrap(), bytes, 1 << 20)
        };
        assert!(check(&whole).is_ok());
        for cut in [70_000, 200_000, 300_000] {
            assert!(matches!(check(&whole[..cut]), Err(TableError::Broken(_))), "{cut}");
        }
        let mut short_table = whole.clone();
        short_table[36..40].fill(0);
        assert!(matches!(check(&short_table), Err(TableError::Broken(_))));
    }
}
