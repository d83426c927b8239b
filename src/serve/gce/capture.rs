//! New images: what was asked for, captured by the engine under an operation.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::Inner;
use super::answer::{Answer, Refusal};
use super::fault::Fault;
use super::image::{Kept, add_saved, collection_of, scope_of};
use super::instance::named;
use super::link::Named;
use super::order::{Order, Source};
use super::request::Request;
use crate::engine::local::LocalEngine;
use crate::engine::{CreateRequest, Created, Engine, Progress, Watcher};
use crate::inventory::{Consistency, Image, ImageKind, ImageState, Stage, Via};
use crate::name::{Key, PolicyName, Slot};
use crate::plan::{Create, ImageRef};

/// What stands for a policy in the identity that the engine asks for. Images made through this API
/// carry the labels that they were given, and only those.
const POLICY: &str = "serve";

/// Tells an operation how far what it does is.
pub struct Watch {
    /// The server.
    pub inner: Arc<Inner>,
    /// The operation.
    pub operation: u64,
}

impl Watcher for Watch {
    fn progress(&self, progress: Progress) {
        let percent = progress.done.saturating_mul(100) / progress.total.max(1);
        self.inner
            .operations
            .progress(self.operation, u8::try_from(percent).unwrap_or(100).min(99));
    }

    fn is_cancelled(&self) -> bool {
        *self.inner.stop.borrow()
    }
}

/// An image that is being made.
#[derive(Debug, Clone)]
pub struct Pending {
    /// As it is shown until the engine shows it.
    pub image: Image,
    /// What will be remembered of it.
    pub kept: Kept,
}

impl Pending {
    fn new(order: &Order, id: String, operation: u64, now: Timestamp) -> Self {
        let image = Image {
            fingerprint: id.clone(),
            id,
            name: order.name.clone(),
            kind: order.kind,
            state: ImageState::Creating,
            stage: Stage::Active,
            created_at: now,
            location: order.location.clone(),
            kms_key: order.kms_key.clone(),
            family: None,
            sharing: None,
            labels: order.labels.clone(),
            source: order.of.known(),
            stored_bytes: None,
            disk_bytes: None,
            disks: None,
            project: String::new(),
            in_use_by: Vec::new(),
            message: None,
        };
        let kept = Kept {
            sequence: operation,
            shown: order.shown.clone(),
            region: order.region.clone(),
            ..Kept::default()
        };
        Self { image, kept }
    }
}

impl Inner {
    /// Begins a new image of a kind, as a collection is asked for one.
    pub(super) async fn insert(&self, request: &Request, kind: ImageKind) -> Answer {
        self.begin(request, kind, None).await
    }

    /// Begins a snapshot, as a disk is asked for one.
    pub(super) async fn create_snapshot(&self, request: &Request, disk: &str) -> Answer {
        self.begin(request, ImageKind::Snapshot, Some(&named(request, disk))).await
    }

    async fn begin(&self, request: &Request, kind: ImageKind, disk: Option<&Named>) -> Answer {
        let _gate = self.gate.lock().await;
        if let Some(operation) = self.operations.replayed(request)? {
            return Ok(operation.json(&self.links));
        }
        let mut order = self.read_order(request, kind, disk).await?;
        let now = self.clock.now();
        let image = LocalEngine::new_id()?;
        if kind != ImageKind::Snapshot {
            // What is targeted by a snapshot is the disk.
            order.begun.target_id = Some(image.clone());
        }
        let operation = self.operations.begin(request, order.begun.clone(), now)?;
        let pending = Pending::new(&order, image, operation.id, now);
        let name = order.name.clone();
        self.lock_pending().insert(name.clone(), pending.clone());
        let id = operation.id;
        let fault = self.fault(request, Fault::is_in_operation);
        self.spawn(move |inner| async move {
            let came = match fault {
                Some(fault) => Err(fault.ending(kind)),
                None => inner.capture(order, id, pending).await,
            };
            inner.lock_pending().remove(&name);
            inner.end(id, came.map(|()| None));
        });
        Ok(operation.json(&self.links))
    }

    /// Captures, and writes down what the API shows beyond what the engine records. What fails
    /// leaves nothing: the operation says why.
    async fn capture(
        self: &Arc<Self>,
        order: Order,
        operation: u64,
        Pending { image, mut kept }: Pending,
    ) -> Result<(), Refusal> {
        let _permit = self.captures.acquire().await.map_err(|_| Refusal::stopped())?;
        let now = self.clock.now();
        let policy = PolicyName::parse(POLICY).map_err(|error| Refusal::bad(error.to_string()))?;
        let source = order.of.known().ok_or_else(|| Refusal::bad("the image names no source"))?;
        let key = Key { policy, source: source.id, slot: Slot::at(now) };
        let name = order.name.clone();
        let create = Create {
            kind: order.kind,
            consistency: Consistency::Crash,
            kms_key: order.kms_key,
            disks: order.disks,
            disk_by_disk: false,
            one_instant: Vec::new(),
            companion: None,
            excluded_disks: order.left_out,
            disk_bytes: 0,
            labels: order.labels,
            description: order.description,
            deadline: now,
            replaces: None,
            problems: Vec::new(),
            family: None,
            sharing: None,
            tier: None,
            via: Via::Disk,
        };
        let request =
            CreateRequest { key, name: name.clone(), location: order.location, create, by: None };
        let watch = Arc::new(Watch { inner: Arc::clone(self), operation });
        let origin = order.of.origin();
        match self.engine.create_of(request, image.id, origin, watch).await {
            Ok(Created::Made(image)) => {
                if let (ImageKind::MachineImage, Source::Machine(machine)) = (order.kind, &order.of)
                {
                    let mut records = self.engine.records([image.id.clone()].into()).await?;
                    let record = records.remove(&image.id).unwrap_or_default();
                    add_saved(machine, &record, &self.links, &mut kept.shown);
                }
                Ok(self.shelf.put(&image.id, kept)?)
            }
            Ok(Created::Found { image, .. }) => Err(Refusal::exists(&self.links.path(
                &scope_of(&kept),
                collection_of(image.kind),
                &image.name,
            ))),
            Err(error) => {
                self.forget_attempt(&name).await;
                Err(error.into())
            }
        }
    }

    /// Takes away what a failed capture leaves to say why.
    async fn forget_attempt(&self, name: &str) {
        let seen = self.engine.observe().await;
        let is_it = |image: &&Image| image.name == name && image.state == ImageState::Failed;
        if let Some(image) = seen.images.iter().find(is_it)
            && let Err(error) = self.engine.delete(&ImageRef::of(image)).await
        {
            tracing::warn!("the failed image {name} stays: {error}");
        }
    }

    /// What is remembered of an image that is being made.
    pub(super) fn pending(&self, image: &Image) -> Option<Kept> {
        let pending = self.lock_pending();
        let found = pending.get(&image.name).filter(|found| found.image.kind == image.kind);
        found.map(|found| found.kept.clone())
    }

    /// Adds the images that are being made and that the engine does not show yet.
    pub(super) fn add_pending(&self, images: &mut Vec<Image>) {
        for (name, pending) in self.lock_pending().iter() {
            let is_it = |image: &Image| image.name == *name && image.state != ImageState::Failed;
            if !images.iter().any(is_it) {
                images.retain(|image| image.name != *name);
                images.push(pending.image.clone());
            }
        }
    }

    pub(super) fn lock_pending(&self) -> MutexGuard<'_, BTreeMap<String, Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
