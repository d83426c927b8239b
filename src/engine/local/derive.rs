//! Images of machines that no instance file describes: of a disk that is attached to nothing, and of
//! a disk that another image holds.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rustic_core::repofile::Node;
use rustic_core::{DataId, IndexedFullStatus, Repository};

use super::Inner;
use super::attempt::Attempt;
use super::capture::{self, CaptureError, disk_nodes};
use super::disk::{DiskBytes, OpenDisk, OpenDisks};
use super::home::Home;
use super::instance::LocalInstance;
use super::observe::Found;
use super::record::Manifest;
use super::repository::CHUNK_BYTES;
use super::restore::{manifest, piece};
use crate::engine::{CreateRequest, Created, EngineError, Watcher};

/// What an image is made of.
#[derive(Debug, Clone)]
pub enum Origin {
    /// The instance of the instance files that the request names.
    Instance,
    /// A machine that only the caller knows.
    Machine(Box<LocalInstance>),
    /// A disk that another image holds.
    Image {
        /// The id or name of the image.
        image: String,
        /// The device name of the disk.
        device: String,
    },
}

impl Inner {
    /// Makes an image of that id; `None` where another run is at it.
    pub(super) fn create_of(
        &self,
        request: &CreateRequest,
        id: &str,
        origin: &Origin,
        watcher: &Arc<dyn Watcher>,
    ) -> Result<Option<Created>, EngineError> {
        match origin {
            Origin::Instance => {
                self.create_from(request, Some(id), watcher, || self.instance(request))
            }
            Origin::Machine(machine) => {
                let machine = machine.as_ref().clone();
                self.create_from(request, Some(id), watcher, || Ok(machine))
            }
            Origin::Image { image, device } => self.derive(request, id, (image, device), watcher),
        }
    }

    /// Stores a disk of an image as an image of its own. Where both lie in one repository, nothing
    /// is stored twice.
    fn derive(
        &self,
        request: &CreateRequest,
        id: &str,
        (image, device): (&str, &str),
        watcher: &Arc<dyn Watcher>,
    ) -> Result<Option<Created>, EngineError> {
        if watcher.is_cancelled() {
            return Err(EngineError::Interrupted);
        }
        let home = self.target(&request.location, request.create.kms_key.as_deref())?;
        let _data = home.share_data()?;
        // Held until the end: nothing of the original goes while it is read.
        let original = self.find(image)?;
        let Some(_name) = self.attempts.try_lock(&request.name)? else { return Ok(None) };
        let images = home.open_or_make(&self.keys)?.images()?.images;
        if let Some(found) = self.found(&home, images, &request.name, &request.key, false)? {
            return Ok(Some(found));
        }
        let source = original.stored.record.source.clone();
        let create = &request.create;
        let attempt = self.begin_attempt(
            &home,
            &request.name,
            Some(id),
            create.kind,
            source,
            &create.labels,
        )?;
        let derived = self.store_disk(request, &home, original, device, &attempt, watcher);
        self.conclude(&home, attempt, derived).map(Some)
    }

    fn store_disk(
        &self,
        request: &CreateRequest,
        home: &Home,
        original: Found,
        device: &str,
        attempt: &Attempt,
        watcher: &Arc<dyn Watcher>,
    ) -> Result<Created, CaptureError> {
        let Found { opened, stored, data: _data } = original;
        let reader = Arc::new(opened.to_reader()?);
        let from = manifest(&reader, &stored).map_err(CaptureError::Copy)?;
        let nodes = disk_nodes(&reader, &stored.snapshot, &from).map_err(CaptureError::Copy)?;
        let wanted = from.disks.iter().zip(nodes).find(|(disk, _)| disk.device_name == device);
        let Some((disk, node)) = wanted else {
            return Err(CaptureError::Copy(format!("the image has no disk {device}")));
        };
        let specs = &from.instance.spec.disks;
        let spec = specs.iter().find(|spec| spec.device_name == device).cloned();
        let open = OpenDisk {
            spec: spec.unwrap_or_default(),
            size: disk.size_bytes,
            point_in_time: disk.point_in_time,
            bytes: Arc::new(StoredDisk::new(reader, node)),
        };
        let mut derived =
            Manifest::new(&request.name, from.source_id, from.instance, from.captured_at);
        let others = from.disks.iter().map(|disk| disk.device_name.clone());
        derived.excluded_disks = others.filter(|other| other != device).collect();
        derived.consistency = from.consistency;
        let draft =
            capture::capture(home, &self.keys, derived, &OpenDisks::of(vec![open]), watcher)?;
        self.publish_new(request, home, attempt, draft)
    }
}

/// A disk that an image holds.
struct StoredDisk {
    reader: Arc<Repository<IndexedFullStatus>>,
    pieces: Vec<DataId>,
    /// The piece that was read last: a disk is read from its beginning to its end.
    last: Mutex<Option<(usize, Bytes)>>,
}

impl StoredDisk {
    fn new(reader: Arc<Repository<IndexedFullStatus>>, node: Node) -> Self {
        Self { reader, pieces: node.content.unwrap_or_default(), last: Mutex::default() }
    }

    fn piece(&self, index: usize) -> io::Result<Bytes> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, bytes)) = &*last
            && *known == index
        {
            return Ok(bytes.clone());
        }
        let id = self.pieces.get(index).ok_or_else(|| io::Error::other("it ends too early"))?;
        let bytes = piece(&self.reader, id).map_err(io::Error::other)?;
        *last = Some((index, bytes.clone()));
        Ok(bytes)
    }
}

impl DiskBytes for StoredDisk {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut at = usize::try_from(offset).map_err(io::Error::other)?;
        let mut filled = 0;
        while filled < buffer.len() {
            let bytes = self.piece(at / CHUNK_BYTES)?;
            let rest = bytes.get(at % CHUNK_BYTES..).unwrap_or_default();
            let length = rest.len().min(buffer.len() - filled);
            if length == 0 {
                return Err(io::Error::other("a piece of it is too short"));
            }
            buffer[filled..filled + length].copy_from_slice(&rest[..length]);
            (at, filled) = (at + length, filled + length);
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok(Some(offset))
    }
}
