//! Making machines out of images where the engine itself holds the machines: in the cloud that has them.
//! Engines whose images are read back into files have a [`Store`](super::Store) instead.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Serialize;

use super::{EngineError, Watcher};
use crate::plan::ImageRef;

/// What to make of an image.
#[derive(Debug, Clone)]
pub struct RebuildRequest {
    /// The image, as it was seen.
    pub image: ImageRef,
    /// The name of the new machine; disks are named after it.
    pub name: String,
    /// Only these disks; all where this is empty.
    pub disks: Vec<String>,
    /// Whether only the disks are made, and no machine.
    pub disks_only: bool,
    /// The name or id of the instance that the machine is to be like; the source where this is absent.
    pub like: Option<String>,
    /// Another zone than that of the instance it is like.
    pub zone: Option<String>,
    /// Another machine type.
    pub machine_type: Option<String>,
    /// Labels to set on the machine.
    pub labels: BTreeMap<String, String>,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rebuilt {
    /// The name of the image.
    pub image: String,
    /// The zone that it is in.
    pub zone: String,
    /// The id of the machine, where one was made. It runs.
    pub instance: Option<String>,
    /// Each disk, the one it starts from first.
    pub disks: Vec<RebuiltDisk>,
}

/// A disk that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RebuiltDisk {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub size_bytes: u64,
    /// When it was made, where a run before has made it for the same restore, which had not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken_up: Option<Timestamp>,
}

/// Making machines out of images.
#[async_trait]
pub trait Rebuild: Send + Sync {
    /// Makes disks of an image, and a machine over them. What a run before has begun of the same restore
    /// is taken up, as long as that has not ended; anything else of that name is in the way, since what is
    /// on a disk that a machine had is not what is in the image.
    async fn rebuild(
        &self,
        request: RebuildRequest,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Rebuilt, EngineError>;
}
