//! What an engine takes before it refuses, as data.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::capabilities::ImageKind;

/// What an engine takes before it refuses. What is absent has no limit that is known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The most images of each kind, in all of the engine.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<ImageKind, u64>,
    /// The most images of each kind in each project that images are made in, where each has limits of
    /// its own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images_by_project: BTreeMap<String, BTreeMap<ImageKind, u64>>,
    /// The most bytes that all images of a kind may take together.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stored_bytes: BTreeMap<ImageKind, u64>,
    /// The most captures of one source that may run at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_captures: Option<u64>,
    /// The most captures that may begin within a minute: they are spread evenly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub captures_per_minute: Option<u64>,
    /// The most operations of any sort that may run at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operations: Option<u64>,
    /// The most disks that one image can hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_disks: Option<u64>,
    /// The most bytes of disks that one image can hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_bytes: Option<u64>,
    /// The shortest time between two images of one source, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_interval_seconds: Option<u64>,
    /// The most images of one source within an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_hourly: Option<u64>,
}

/// What a quota counts.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum QuotaUnit {
    /// Images; each disk of a set is one.
    #[default]
    Images,
    /// Bytes that images take.
    Bytes,
}

impl QuotaUnit {
    /// Whether it is the one that goes without saying.
    pub fn is_images(&self) -> bool {
        *self == Self::Images
    }
}

/// The most that there may be of one kind of image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota<'a> {
    /// The project that it is of; absent where it is of all of the engine.
    pub project: Option<&'a str>,
    /// The kind of image.
    pub kind: ImageKind,
    /// What it counts.
    pub unit: QuotaUnit,
    /// The most there may be.
    pub most: u64,
}

impl Quota<'_> {
    /// Whether what is in a project counts.
    pub fn is_of(&self, project: &str) -> bool {
        self.project.is_none_or(|own| own == project)
    }
}

impl Limits {
    /// The most there may be of each kind of image, by number and then by bytes: in all of the engine,
    /// and by number in each project.
    pub fn quotas(&self) -> impl Iterator<Item = Quota<'_>> {
        let all = |unit| {
            move |(kind, most): (&ImageKind, &u64)| Quota {
                project: None,
                kind: *kind,
                unit,
                most: *most,
            }
        };
        let images = self.images.iter().map(all(QuotaUnit::Images));
        let of_projects = self.images_by_project.iter().flat_map(|(project, images)| {
            images.iter().map(move |(kind, most)| {
                let project = Some(project.as_str());
                Quota { project, kind: *kind, unit: QuotaUnit::Images, most: *most }
            })
        });
        let bytes = self.stored_bytes.iter().map(all(QuotaUnit::Bytes));
        images.chain(of_projects).chain(bytes)
    }
}
