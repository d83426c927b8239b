//! What new disks and images are made of: images, as requests name them.

use serde_json::{Map, Value, json};

use super::Inner;
use super::answer::Refusal;
use super::image::{self, collection_of};
use super::link::{Named, Scope};
use super::operation::Notice;
use super::request::Request;
use crate::engine::Store;
use crate::inventory::{EngineInventory, Image, ImageKind, ImageState, Stage};

/// A disk that an image holds, to make something of.
#[derive(Debug, Clone)]
pub struct DiskSource {
    /// The image.
    pub image: Image,
    /// The device name that the disk has in it.
    pub device: String,
    /// Bytes of the disk.
    pub bytes: u64,
    /// What the API shows of it in what was made of it.
    pub shown: Map<String, Value>,
    /// What there is to say about it.
    pub warnings: Vec<Notice>,
}

/// The fields that may name an image, and the kind it is of.
const FIELDS: [(&str, ImageKind); 3] = [
    ("sourceSnapshot", ImageKind::Snapshot),
    ("sourceImage", ImageKind::DiskImage),
    ("sourceMachineImage", ImageKind::MachineImage),
];

impl Inner {
    /// The image that a text names, which may be used.
    pub(super) fn usable<'a>(
        &self,
        seen: &'a EngineInventory,
        kind: ImageKind,
        field: &str,
        text: &str,
    ) -> Result<(&'a Image, Vec<Notice>), Refusal> {
        let collection = collection_of(kind);
        let family = text.split_once("/images/family/").filter(|_| kind == ImageKind::DiskImage);
        let image = if let Some((before, family)) = family {
            // Read for the project that it names.
            let whole = format!("{before}/images/{family}");
            let Named { name, .. } = self.links.reference(field, &whole, collection)?;
            self.newest(seen, &name)?.0
        } else {
            let named = self.links.reference(field, text, collection)?;
            self.find_image(seen, kind, &named.scope, &named.name)?
        };
        let link = self.link_of(image, seen);
        if image.state != ImageState::Ready {
            return Err(Refusal::not_ready(format!("The resource '{link}' is not ready")));
        }
        match image.stage {
            Stage::Active => Ok((image, Vec::new())),
            Stage::Deprecated => {
                let message = format!("The resource '{link}' is deprecated.");
                Ok((image, vec![Notice::new("DEPRECATED_RESOURCE_USED", message)]))
            }
            Stage::Obsolete => {
                Err(Refusal::invalid(field, text, "The image is obsolete and cannot be used."))
            }
        }
    }

    /// What a new disk is to be made of; `None` where it is to be empty.
    pub(super) async fn read_disk_source(
        &self,
        request: &Request,
    ) -> Result<Option<DiskSource>, Refusal> {
        refuse_other_sources(
            request,
            &["sourceDisk", "sourceInstantSnapshot", "sourceStorageObject"],
        )?;
        let mut named = Vec::new();
        for (field, kind) in FIELDS {
            let in_query = request.query(field).filter(|_| kind == ImageKind::DiskImage);
            if let Some(text) = request.text(field)?.or(in_query) {
                named.push((field, kind, text));
            }
        }
        match named.as_slice() {
            [] => Ok(None),
            [(field, kind, text)] => {
                let device = request.text("sourceMachineImageDiskDeviceName")?;
                Ok(Some(self.disk_source(field, *kind, text, device).await?))
            }
            _ => Err(Refusal::bad("a disk is made of one source, and several are named")),
        }
    }

    /// The disk of an image that a request names.
    pub(super) async fn disk_source(
        &self,
        field: &str,
        kind: ImageKind,
        text: &str,
        device: Option<&str>,
    ) -> Result<DiskSource, Refusal> {
        let seen = self.seen().await?;
        let (image, warnings) = self.usable(&seen, kind, &format!("resource.{field}"), text)?;
        let record = self.engine.record(&image.id).await?;
        let disks = record["disks"].as_array().cloned().unwrap_or_default();
        let name = |disk: &Value| disk["deviceName"].as_str().unwrap_or_default().to_owned();
        let named = |wanted: &str| disks.iter().find(|disk| name(disk) == wanted);
        let disk = match (device, disks.as_slice()) {
            (Some(device), _) => named(device).ok_or_else(|| {
                let there: Vec<String> = disks.iter().map(name).collect();
                let why = format!("The image has the disks {}.", there.join(", "));
                Refusal::invalid("resource.sourceMachineImageDiskDeviceName", device, &why)
            })?,
            (None, [one]) => one,
            (None, _) => {
                return Err(Refusal::required("resource.sourceMachineImageDiskDeviceName"));
            }
        };
        let mut shown = Map::new();
        shown.insert(field.to_owned(), json!(self.link_of(image, &seen)));
        shown.insert(format!("{field}Id"), json!(image.id));
        if kind == ImageKind::MachineImage {
            shown.insert("sourceMachineImageDiskDeviceName".to_owned(), json!(name(disk)));
        }
        Ok(DiskSource {
            device: name(disk),
            bytes: disk["sizeBytes"].as_u64().unwrap_or(0),
            image: image.clone(),
            shown,
            warnings,
        })
    }

    /// The link of an image.
    pub(super) fn link_of(&self, image: &Image, seen: &EngineInventory) -> String {
        let scope = image::scope_of(&self.kept(image, seen));
        self.links.link(&scope, collection_of(image.kind), &image.name)
    }

    /// The image of a name or an id among those of a kind at a place.
    pub(super) fn find_image<'a>(
        &self,
        seen: &'a EngineInventory,
        kind: ImageKind,
        scope: &Scope,
        name: &str,
    ) -> Result<&'a Image, Refusal> {
        let is_it = |image: &&Image| {
            image.kind == kind
                && (image.name == name || image.id == name)
                && image::scope_of(&self.kept(image, seen)) == *scope
        };
        seen.images
            .iter()
            .find(is_it)
            .ok_or_else(|| Refusal::not_found(&self.links.path(scope, collection_of(kind), name)))
    }
}

/// Refuses what something could be made of elsewhere and not here.
pub fn refuse_other_sources(request: &Request, others: &[&str]) -> Result<(), Refusal> {
    for other in others {
        let is_there = request.body.get(*other).is_some_and(|value| !value.is_null());
        if is_there {
            return Err(Refusal::not_done(&format!("{} with {other}", request.collection)));
        }
    }
    Ok(())
}
