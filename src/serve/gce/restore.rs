//! Restores: instances and disks out of images, one capture's room each.

use std::sync::Arc;

use super::Inner;
use super::answer::Refusal;
use super::capture::Watch;
use super::machine::NewMachine;
use super::origin::DiskSource;
use crate::engine::Watcher;
use crate::serve::stock::MadeDisk;

impl Inner {
    /// Makes an instance: its disks, then the file that describes it.
    pub(super) async fn make_instance(
        self: &Arc<Self>,
        new: NewMachine,
        operation: u64,
    ) -> Result<(), Refusal> {
        let _permit = self.captures.acquire().await.map_err(|_| Refusal::stopped())?;
        let NewMachine { image, document, disks, shown, .. } = new;
        let (image, now) = ((&*image.id, &*image.name), self.clock.now());
        let watch = self.watch(operation);
        Ok(self.stock.make_instance(image, document, disks, now, shown, watch).await?)
    }

    /// Makes a disk: of what an image holds, or of zeros.
    pub(super) async fn make_disk(
        self: &Arc<Self>,
        made: MadeDisk,
        source: Option<DiskSource>,
        bytes: u64,
        operation: u64,
    ) -> Result<(), Refusal> {
        let _permit = self.captures.acquire().await.map_err(|_| Refusal::stopped())?;
        let source = source.as_ref().map(|source| (&*source.image.id, &*source.device));
        Ok(self.stock.make_disk(made, source, bytes, self.watch(operation)).await?)
    }

    fn watch(self: &Arc<Self>, operation: u64) -> Arc<dyn Watcher> {
        Arc::new(Watch { inner: Arc::clone(self), operation })
    }
}
