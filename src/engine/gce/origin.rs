//! What images are made of: instances and disks, by their paths.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::image::{Collection, Found};
use super::number::Numbers;
use super::uses::Uses;
use super::wire::{self, resource_path};
use super::{GceEngine, Source};
use crate::inventory::ImageSource;
use crate::name::SourceId;

/// Instances and their disks.
#[derive(Debug, Default)]
pub(super) struct Origins {
    /// The instance that is at a path, or that has the disk that is there.
    sources: BTreeMap<String, Origin>,
    /// What the instance of a disk calls it.
    devices: BTreeMap<String, String>,
}

/// An instance as what something is made of.
#[derive(Debug, Clone)]
struct Origin {
    id: SourceId,
    name: String,
    /// Since when it is there; what is older was made of another one under its name.
    since: Option<Timestamp>,
}

impl Origins {
    /// An instance and its disks.
    pub(super) fn add(&mut self, source: &Source, instance: &wire::Instance, id: &SourceId) {
        let since = instance.creation_timestamp.parse().ok();
        let origin = Origin { id: id.clone(), name: instance.name.clone(), since };
        self.sources.insert(source.path(), origin.clone());
        for disk in &instance.disks {
            let path = resource_path(&disk.source).to_owned();
            self.devices.insert(path.clone(), disk.device_name.clone());
            self.sources.insert(path, origin.clone());
        }
    }

    /// All paths.
    pub(super) fn paths(&self) -> impl Iterator<Item = &String> {
        self.sources.keys()
    }

    /// The same with the ids of projects.
    pub(super) fn by_id(self, numbers: &Numbers) -> Self {
        fn moved<T>(paths: BTreeMap<String, T>, numbers: &Numbers) -> BTreeMap<String, T> {
            let by_id = |(mut path, what)| {
                numbers.by_id(&mut path);
                (path, what)
            };
            paths.into_iter().map(by_id).collect()
        }
        Self { sources: moved(self.sources, numbers), devices: moved(self.devices, numbers) }
    }

    /// The instance that an image was made of, and when.
    pub(super) fn capture_of(&self, found: &Found) -> Option<(SourceId, Timestamp)> {
        let at = found.image.created_at;
        let source = self.origin(&found.made_of, at).map(|origin| origin.id.clone());
        Some((source.or_else(|| found.source_by_record())?, at))
    }

    /// The instance of now at a path, where it was there already at an instant.
    fn origin(&self, path: &str, at: Timestamp) -> Option<&Origin> {
        self.sources.get(path).filter(|origin| origin.since.is_none_or(|since| since <= at))
    }

    /// Fills in what an image was made of: its source where that is not known, and its disks.
    pub(super) fn fill_in(&self, found: &mut Found) {
        let at = found.image.created_at;
        found.find_source(|path| {
            let origin = self.origin(path, at)?;
            Some(ImageSource { id: origin.id.clone(), name: origin.name.clone() })
        });
        // A disk that no instance of now has, or had then, is called by its path: no device is.
        let device = |path: &String| {
            let device = self.origin(path, at).and_then(|_| self.devices.get(path));
            device.unwrap_or(path).clone()
        };
        let disks: Vec<String> = match found.place.collection {
            Collection::MachineImages => found.saved_disks.iter().map(device).collect(),
            Collection::Images | Collection::Snapshots => Some(&found.made_of)
                .filter(|path| path.contains("/disks/"))
                .map(device)
                .into_iter()
                .collect(),
        };
        found.image.disks = (!disks.is_empty()).then_some(disks);
    }
}

impl GceEngine {
    /// Names all projects by their ids, and fills in who needs images; with why it is not known of all
    /// of them who does.
    pub(super) async fn name_by_ids(
        &self,
        images: &mut [Found],
        origins: Origins,
        uses: Uses,
    ) -> (Origins, Option<String>) {
        let made_of = images.iter().flat_map(Found::paths);
        let numbers = self.numbers(made_of.chain(origins.paths()).chain(uses.named())).await;
        images.iter_mut().flat_map(Found::paths_mut).for_each(|path| numbers.by_id(path));
        // Whose image somebody uses is not known either, then.
        let doubt = uses.named().find_map(|path| numbers.doubt(path)).map(str::to_owned);
        uses.by_id(&numbers).fill_in(images);
        (origins.by_id(&numbers), doubt)
    }
}
