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
    /// Whether it is a copy of a restore point in another location.
    pub copy: bool,
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
            rows.push(ImageRow {
                engine: engine.name.clone(),
                key,
                source,
                copy: image.is_copy(),
                image: image.clone(),
            });
        }
    }
    rows.sort_by(|one, other| {
        let order = |row: &ImageRow| (row.copy, row.image.name.clone());
        (&one.engine, &one.source, &one.key)
            .cmp(&(&other.engine, &other.source, &other.key))
            .then_with(|| order(one).cmp(&order(other)))
    });
    rows
}

/// The state of an image, and its stage where that is another than the first.
pub fn state(image: &Image) -> &'static str {
    match (image.state, image.stage) {
        (ImageState::Creating, _) if image.is_step() => "CREATING, a step",
        (ImageState::Failed, _) if image.is_step() => "FAILED, a step",
        (ImageState::Ready, Stage::Active) => "READY",
        (ImageState::Ready, Stage::Deprecated) => "READY, deprecated",
        (ImageState::Ready, Stage::Obsolete) => "READY, obsolete",
        (ImageState::Partial, Stage::Deprecated) => "PARTIAL, deprecated",
        (ImageState::Partial, Stage::Obsolete) => "PARTIAL, obsolete",
        (other, _) => other.word(),
    }
}

/// Where an image is stored, and whether it is the copy there.
fn place(row: &ImageRow) -> String {
    let location = clean(&row.image.location);
    if row.copy { format!("{location} (copy)") } else { location }
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
            match row.image.ownership() {
                Ownership::Broken(_) => format!("{}, broken", state(&row.image)),
                Ownership::Ours(_) | Ownership::Foreign => state(&row.image).to_owned(),
            },
            row.image.stored_bytes.map(bytes).unwrap_or_default(),
            place(row),
        ]
    }));
    table(&cells).iter().map(|line| format!("{line}\n")).collect()
}

/// Everything that an image records, for people: what one looks for first, then all of it as YAML,
/// which quotes what is not plain text.
pub fn show(row: &ImageRow, record: &Value) -> String {
    let image = &row.image;
    let mut lines = vec![("state", state(image).to_owned())];
    lines.extend(image.message.as_deref().map(|message| ("reason", clean(message))));
    lines.push(("source", clean(&row.source)));
    if let Some(key) = &row.key {
        lines.push(("policy", key.policy.to_string()));
        lines.push(("slot", minute(key.slot.instant())));
    }
    lines.push(("created", minute(image.created_at)));
    let key = image.kms_key.as_deref().map(|key| format!(", under key {}", clean(key)));
    lines.push(("stored in", format!("{}{}", clean(&image.location), key.unwrap_or_default())));
    if row.copy {
        let original = record.get("captured_as").and_then(Value::as_str).map(clean);
        lines.push(("copy of", original.unwrap_or_else(|| "an image elsewhere".to_owned())));
    }
    lines.extend(image.drilled_at().map(|at| ("drilled", minute(at))));
    let size = |bytes_of: Option<u64>| bytes_of.map_or_else(|| "?".to_owned(), bytes);
    lines.push((
        "size",
        format!("{} of disks, {} stored", size(image.disk_bytes), size(image.stored_bytes)),
    ));
    let cells: Vec<Vec<String>> =
        lines.into_iter().map(|(what, text)| vec![format!("  {what}"), text]).collect();
    let head: String = table(&cells).iter().map(|line| format!("{line}\n")).collect();
    let all = serde_yaml::to_string(record).unwrap_or_else(|error| format!("{error}\n"));
    format!("{}\n{head}\n{all}", clean(&image.name))
}
