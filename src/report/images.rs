//! Images as lists and one by one.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::text::{bytes, clean, minute, table};
use crate::elapsed::Elapsed;
use crate::inventory::{Image, ImageState, Inventory, Stage};
use crate::name::{Key, Ownership};

/// An image in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageRow {
    /// The engine.
    pub engine: String,
    /// Its identity, where it is one of ours.
    pub key: Option<Key>,
    /// The name of its source.
    pub source: String,
    /// The image itself.
    pub image: Image,
}

/// All images of an inventory, by engine, source and slot.
pub fn image_rows(inventory: &Inventory) -> Vec<ImageRow> {
    let mut rows = Vec::new();
    for engine in &inventory.engines {
        for image in &engine.images {
            let key = match image.ownership() {
                Ownership::Ours(key) => Some(key),
                Ownership::Foreign | Ownership::Broken(_) => None,
            };
            let id = key.as_ref().map(|key| &key.source);
            let instance = engine.instances.iter().find(|instance| Some(&instance.id) == id);
            let source = instance
                .map(|instance| instance.name.clone())
                .or_else(|| image.source.as_ref().map(|source| source.name.clone()))
                .unwrap_or_default();
            rows.push(ImageRow { engine: engine.name.clone(), key, source, image: image.clone() });
        }
    }
    rows.sort_by(|one, other| {
        (&one.engine, &one.source, &one.key, &one.image.name).cmp(&(
            &other.engine,
            &other.source,
            &other.key,
            &other.image.name,
        ))
    });
    rows
}

fn state(image: &Image) -> &'static str {
    match (image.state, image.stage) {
        (ImageState::Ready, Stage::Active) => "READY",
        (ImageState::Ready, Stage::Deprecated) => "READY, deprecated",
        (ImageState::Ready, Stage::Obsolete) => "READY, obsolete",
        (ImageState::Creating, _) => "CREATING",
        (ImageState::Failed, _) => "FAILED",
        (ImageState::Deleting, _) => "DELETING",
        (ImageState::Unknown, _) => "UNKNOWN",
    }
}

/// A table of images.
pub fn list(rows: &[ImageRow], now: Timestamp) -> String {
    let mut cells = vec![
        ["NAME", "SOURCE", "POLICY", "SLOT", "AGE", "STATE", "STORED", "LOCATION"]
            .map(str::to_owned)
            .to_vec(),
    ];
    cells.extend(rows.iter().map(|row| {
        let slot = row.key.as_ref().map(|key| key.slot.instant());
        vec![
            clean(&row.image.name),
            clean(&row.source),
            row.key.as_ref().map(|key| key.policy.to_string()).unwrap_or_default(),
            slot.map(minute).unwrap_or_default(),
            Elapsed::between(slot.unwrap_or(row.image.created_at), now).rough(),
            state(&row.image).to_owned(),
            row.image.stored_bytes.map(bytes).unwrap_or_default(),
            clean(&row.image.location),
        ]
    }));
    table(&cells).iter().map(|line| format!("{line}\n")).collect()
}

/// Everything that an image records, for people: as YAML, which quotes what is not plain text.
pub fn show(record: &Value) -> String {
    serde_yaml::to_string(record).unwrap_or_else(|error| format!("{error}\n"))
}
