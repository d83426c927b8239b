//! How much of what an image has added to its repository is of which of its disks.

use std::collections::{BTreeMap, BTreeSet};

use rustic_core::repofile::{IndexFile, Node};
use rustic_core::{BlobId, FileType, Id, ReadBackend};

use super::objects::ObjectDirectory;
use super::repository::{Opened, RepositoryError};

impl Opened {
    /// The packs that are there.
    pub fn packs(&self) -> Result<BTreeSet<Id>, RepositoryError> {
        let packs = ObjectDirectory::new(self.home.path.clone())
            .list_with_size(FileType::Pack)
            .map_err(|error| self.home.error(&error))?;
        Ok(packs.into_iter().map(|(id, _)| id).collect())
    }

    /// The pieces that were stored since these packs were there, each with its bytes in a pack.
    pub fn stored_since(
        &self,
        before: &BTreeSet<Id>,
    ) -> Result<BTreeMap<BlobId, u64>, RepositoryError> {
        let mut stored = BTreeMap::new();
        let files =
            self.repository.stream_files::<IndexFile>().map_err(|error| self.home.error(&error))?;
        for file in files {
            let (_, index) = file.map_err(|error| self.home.error(&error))?;
            let new = index.packs.into_iter().filter(|pack| !before.contains(&*pack.id));
            stored.extend(
                new.flat_map(|pack| pack.blobs)
                    .map(|blob| (blob.id, u64::from(blob.location.length))),
            );
        }
        Ok(stored)
    }
}

/// What each disk has added; what two of them share counts for the first.
pub fn by_disk<'a>(
    disks: impl Iterator<Item = (&'a str, &'a Node)>,
    mut stored: BTreeMap<BlobId, u64>,
) -> BTreeMap<String, u64> {
    let mut shares = BTreeMap::new();
    for (name, node) in disks {
        let pieces = node.content.iter().flatten();
        let bytes = pieces.filter_map(|id| stored.remove(&BlobId::from(*id))).sum();
        shares.insert(name.to_owned(), bytes);
    }
    shares
}
