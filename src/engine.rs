//! Engines: what holds instances and images.
//!
//! One object-safe trait, [`Engine`]: observe, create, update, delete, settle. Reading images back
//! ([`Store`]) is a part that an engine may have. What an engine can do is data
//! ([`crate::inventory::Capabilities`]), so that policies are checked before anything is called.
//! An engine decides nothing about which images should exist.
//!
//! The registry at the end of this file is the one place that knows which kinds there are.

pub mod author;
#[cfg(feature = "http")]
mod bound;
mod examine;
mod fault;
#[cfg(feature = "gce")]
pub mod gce;
#[cfg(feature = "http")]
pub mod http;
mod import;
#[cfg(feature = "local")]
pub mod local;
mod open;
mod rebuild;
pub mod set;
#[cfg(feature = "http")]
mod sharing;
pub mod step;
#[cfg(feature = "twcc")]
pub mod twcc;
#[cfg(feature = "yandex")]
pub mod yandex;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::Value;

pub use author::Author;
pub use examine::{Examined, Role, Task, Topic, Verdict, Wanted};
pub use fault::{Fault, Faulty};
pub use import::{Import, ImportRequest, ImportUri, ImportUriError, Importer};
pub use open::{OpenError, OpenErrors, open_all, shared_among, shared_place};
pub use rebuild::{Rebuild, RebuildRequest, Rebuilt, RebuiltDisk};

use crate::clock::Clock;
use crate::inventory::{DrillCheck, EngineInventory, Image};
use crate::name::{Key, PolicyName};
use crate::plan::{Copy, Create, ImageRef, Update};
use crate::policy::meant::EngineConfig;
use crate::policy::{Config, EngineKind};

/// Why an engine did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// There is no such image.
    #[error("there is no such image any more")]
    NotFound,
    /// The name is taken by an image that does not carry the key.
    #[error("an image named {0} exists and is not this restore point")]
    NameTaken(String),
    /// The image is not what the plan was made over.
    #[error("the image has changed since the plan was made")]
    Changed,
    /// Someone else is at it.
    #[error("{0}")]
    Busy(String),
    /// It cannot be done like this; trying again would not help.
    #[error("{0}")]
    Refused(String),
    /// It went wrong.
    #[error("{0}")]
    Failed(String),
    /// The run was interrupted before it was done.
    #[error("interrupted")]
    Interrupted,
}

/// How far something is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Bytes that are done.
    pub done: u64,
    /// Bytes there are in all.
    pub total: u64,
}

/// Is told how far something is, and says whether to go on.
pub trait Watcher: Send + Sync {
    /// How far it is now.
    fn progress(&self, progress: Progress);

    /// It waits before it goes on: for what, and how long.
    fn waits(&self, _why: &str) {}

    /// Whether to stop as soon as that leaves nothing half done.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// A watcher that nobody listens to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwatched;

impl Watcher for Unwatched {
    fn progress(&self, _: Progress) {}
}

/// A restore point to be made.
#[derive(Debug, Clone)]
pub struct CreateRequest {
    /// Its identity.
    pub key: Key,
    /// The name of its image.
    pub name: String,
    /// Where it is to be stored.
    pub location: String,
    /// What to capture.
    pub create: Create,
    /// Who makes it, which is written behind its description.
    pub by: Option<Author>,
}

/// A copy to be made in another location.
#[derive(Debug, Clone)]
pub struct CopyRequest {
    /// The identity of the restore point, which the copy carries too.
    pub key: Key,
    /// The original.
    pub image: ImageRef,
    /// The copy.
    pub copy: Copy,
    /// Who makes it, which is written behind its description.
    pub by: Option<Author>,
}

/// What came of making a restore point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// It was made.
    Made(Image),
    /// Another run had made it, or was at it and has finished: the image carries the same key.
    Found {
        /// The image.
        image: Image,
        /// Who has made it, where it says so.
        by: Option<Author>,
    },
}

impl Created {
    /// What came of asking for an image that says who has made it. A service may give the same answer to
    /// two runs at once that ask for the same: then the image says whose request it was.
    pub fn of(image: Image, is_made: bool, by: Option<Author>, own: Option<&Author>) -> Self {
        let is_others = matches!((&by, own), (Some(by), Some(own)) if by != own);
        if is_made && !is_others { Self::Made(image) } else { Self::Found { image, by } }
    }

    /// The image.
    pub fn image(&self) -> &Image {
        match self {
            Self::Made(image) | Self::Found { image, .. } => image,
        }
    }

    /// The same with its image changed.
    #[must_use]
    pub fn with(self, change: impl FnOnce(Image) -> Image) -> Self {
        match self {
            Self::Made(image) => Self::Made(change(image)),
            Self::Found { image, by } => Self::Found { image: change(image), by },
        }
    }
}

/// What plans look at of some images only.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attention {
    /// The policies that say who may use their images, under every name they have or had, and the
    /// roles they give.
    pub sharing: BTreeMap<PolicyName, BTreeSet<String>>,
}

/// What an engine has asked of a service since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Calls {
    /// Requests that were sent, tries again included.
    pub sent: u64,
    /// Requests that were refused because there were too many.
    pub throttled: u64,
}

/// What was cleared away at the end of a round.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Settled {
    /// Bytes that were given back.
    pub freed_bytes: u64,
    /// What could not be done yet, and when it will be.
    pub postponed: Vec<String>,
    /// Machines that stand still for a capture.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub standing: Vec<Standing>,
}

/// A machine that stands still because it was stopped for a capture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// Which one, and what becomes of it.
    pub message: String,
    /// Whether it should run and does not, or nobody can say: the next round tries again.
    pub is_overdue: bool,
}

impl Settled {
    /// What should run and does not.
    pub fn overdue(&self) -> impl Iterator<Item = &str> {
        self.standing.iter().filter(|one| one.is_overdue).map(|one| one.message.as_str())
    }
}

/// What holds instances and images.
#[async_trait]
pub trait Engine: Send + Sync {
    /// The name the configuration gives it.
    fn name(&self) -> &str;

    /// Is told what plans will look at of some images only, because looking costs a call each.
    fn attend(&self, _: &Attention) {}

    /// Looks at everything. What cannot be seen is a gap, never a short list.
    async fn observe(&self) -> EngineInventory;

    /// Makes a restore point and waits until it is READY. Called twice with the same key, by this
    /// or any other run, it makes one image.
    async fn create(
        &self,
        request: CreateRequest,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Created, EngineError>;

    /// Changes stage and labels of an image that is still what the plan was made over. One that
    /// already is as asked, because another run has done it, comes back as it is.
    async fn update(&self, image: &ImageRef, update: &Update) -> Result<Image, EngineError>;

    /// Copies an image that is still what the plan was made over to another location and waits
    /// until the copy is READY. Called twice for the same copy, it makes one.
    async fn copy(&self, _: CopyRequest, _: Arc<dyn Watcher>) -> Result<Created, EngineError> {
        Err(EngineError::Refused("this engine copies no images".to_owned()))
    }

    /// Proves an image restorable; what is in the way of restoring it is the error.
    async fn drill(
        &self,
        _: &ImageRef,
        _: DrillCheck,
        _: Arc<dyn Watcher>,
    ) -> Result<(), EngineError> {
        Err(EngineError::Refused("this engine cannot try images".to_owned()))
    }

    /// Deletes an image that is still what the plan was made over.
    async fn delete(&self, image: &ImageRef) -> Result<(), EngineError>;

    /// Ends a round: clears away what interrupted runs have left, gives space back.
    async fn settle(&self) -> Result<Settled, EngineError>;

    /// Looks whether everything is there that it needs, and changes nothing. All that is found is
    /// told, not only the first.
    async fn examine(&self, _: &Wanted) -> Vec<Examined> {
        let message = "this engine has nothing to examine itself with";
        vec![Examined::new(Topic::Settings, Verdict::Unknown, message)]
    }

    /// Whether this is an engine for trying policies out, on which a round may be carried out as
    /// if it were another time. On all others that would falsify what deleting hangs on.
    fn is_trial(&self) -> bool {
        false
    }

    /// What no other engine may share, as paths: directories of this machine, projects of a service.
    /// Two engines over it would take each other's images for their own.
    fn places(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// What was asked of a service so far, where the engine asks one and counts.
    fn calls(&self) -> Option<Calls> {
        None
    }

    /// The part that reads images back, where the engine has it.
    fn store(&self) -> Option<&dyn Store> {
        None
    }

    /// The part that makes machines out of images, where the engine holds the machines.
    fn rebuild(&self) -> Option<&dyn Rebuild> {
        None
    }

    /// The part that makes images of disks that lie elsewhere, where the engine has it.
    fn import(&self) -> Option<&dyn Import> {
        None
    }
}

/// Which disks to restore, and what the restored instance is called.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// The name or id of the image.
    pub image: String,
    /// The directory that gets the disks and the description.
    pub to: PathBuf,
    /// Only these disks; all where this is empty.
    pub disks: Vec<String>,
    /// A new name for the instance.
    pub name: Option<String>,
    /// Another machine type.
    pub machine_type: Option<String>,
    /// Labels to set on the instance.
    pub labels: BTreeMap<String, String>,
    /// Whether files that are there already may be replaced.
    pub overwrite: bool,
    /// Whether disks are written as qcow2 instead of raw.
    pub qcow2: bool,
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// The name of the image.
    pub image: String,
    /// The instance description that was written.
    pub instance: PathBuf,
    /// Each disk.
    pub disks: Vec<RestoredDisk>,
}

/// A restored disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RestoredDisk {
    /// Its device name.
    pub name: String,
    /// The file that was written.
    pub path: PathBuf,
    /// Bytes of the disk as it was captured.
    pub size_bytes: u64,
    /// Zeros behind them, where the format counts in sectors of 512 bytes.
    pub padding_bytes: u64,
    /// Bytes that are not zero and were written.
    pub written_bytes: u64,
}

/// What verifying an image found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// The name of the image.
    pub image: String,
    /// Bytes that were read back and checked.
    pub checked_bytes: u64,
    /// What is damaged; empty where everything is well.
    pub damage: Vec<String>,
}

/// What verifying found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Verification {
    /// Each image that could be looked at.
    pub images: Vec<Verified>,
    /// What could not be looked at, and why.
    pub unreadable: Vec<String>,
}

/// Reading images back.
#[async_trait]
pub trait Store: Send + Sync {
    /// Everything that an image records.
    async fn record(&self, image: &str) -> Result<Value, EngineError>;

    /// Writes disks and the instance description into a directory.
    async fn restore(
        &self,
        request: RestoreRequest,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Restored, EngineError>;

    /// Reads stored data back and checks it: one image, or all.
    async fn verify(
        &self,
        image: Option<String>,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Verification, EngineError>;
}

/// Opens an engine: its name, its settings, what their paths are relative to, the clock.
type Open = fn(&str, &Value, &Path, Arc<dyn Clock>) -> Result<Arc<dyn Engine>, String>;

/// A kind of engine, and how to open one.
struct Registered {
    kind: EngineKind,
    open: Open,
    /// The smallest roles for those who use one, where the service has roles.
    roles: fn() -> Vec<Role>,
}

/// Every kind of engine there is: one line each.
fn registry() -> Vec<Registered> {
    vec![
        #[cfg(feature = "gce")]
        Registered { kind: gce::kind(), open: gce::open, roles: gce::roles },
        #[cfg(feature = "local")]
        Registered { kind: local::kind(), open: local::open, roles: Vec::new },
        #[cfg(feature = "twcc")]
        Registered { kind: twcc::kind(), open: twcc::open, roles: Vec::new },
        #[cfg(feature = "yandex")]
        Registered { kind: yandex::kind(), open: yandex::open, roles: Vec::new },
    ]
}

/// What must be known of each kind to read a configuration.
pub fn kinds() -> Vec<EngineKind> {
    registry().into_iter().map(|registered| registered.kind).collect()
}

/// The kinds of engine that import disks, with the settings they have by default.
pub fn importers() -> Vec<String> {
    let can = |kind: &EngineKind| !(kind.capabilities)(&Value::Null).imports.is_empty();
    kinds().into_iter().filter(can).map(|kind| kind.name.to_owned()).collect()
}

/// The smallest roles for those who use an engine, for each kind whose service has roles.
pub fn roles() -> Vec<Role> {
    registry().into_iter().flat_map(|registered| (registered.roles)()).collect()
}

/// Opens each engine of a configuration by itself. Paths in settings are relative to `base`.
pub fn open_each(
    config: &Config,
    base: &Path,
    clock: &Arc<dyn Clock>,
) -> Vec<Result<Arc<dyn Engine>, OpenError>> {
    let registry = registry();
    let open = |(name, engine): (&String, &EngineConfig)| {
        let failed = |message: String| OpenError { engine: name.clone(), message };
        let registered = registry
            .iter()
            .find(|registered| registered.kind.name == engine.kind)
            .ok_or_else(|| failed(format!("this program has no engine of kind {}", engine.kind)))?;
        (registered.open)(name, &engine.settings, base, Arc::clone(clock)).map_err(failed)
    };
    config.engines.iter().map(open).collect()
}
