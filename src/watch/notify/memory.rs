//! What was told, in a file: so that a restart repeats nothing. Nothing hangs on it.

use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::alert::Told;

/// The version of the file. Another one counts as no file.
const FORMAT_VERSION: &str = "1.0";
/// A larger file is not read.
const SIZE_MAX: u64 = 256 << 20;

#[derive(Serialize, Deserialize)]
struct Memory {
    format_version: String,
    told: Vec<Told>,
}

/// What was told before; nothing, where there is no file or it is none of ours.
pub(super) fn read(path: &Path) -> Vec<Told> {
    let is_small = std::fs::metadata(path).is_ok_and(|file| file.len() <= SIZE_MAX);
    let text = if is_small { std::fs::read(path).ok() } else { None };
    let read = text.and_then(|text| serde_json::from_slice::<Memory>(&text).ok());
    read.filter(|memory| memory.format_version == FORMAT_VERSION)
        .map(|memory| memory.told)
        .unwrap_or_default()
}

/// Writes it, whole or not at all.
pub(super) fn write(path: &Path, told: Vec<Told>) {
    let written = || -> std::io::Result<()> {
        let directory = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory)?;
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        let memory = Memory { format_version: FORMAT_VERSION.to_owned(), told };
        serde_json::to_writer(std::io::BufWriter::new(&mut file), &memory)?;
        file.flush()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    if let Err(error) = written() {
        tracing::warn!("what was told is not remembered beyond a restart: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_counts_as_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deeper/ledger.told.json");
        assert_eq!(read(&path), []);
        write(&path, Vec::new());
        assert!(path.exists());
        for text in ["", "{", "{\"format_version\": \"2.0\", \"told\": []}", "[1]"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read(&path), [], "{text}");
        }
    }
}
