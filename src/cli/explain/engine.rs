//! What an engine can do, as a table with a column per kind of image.

use serde_json::{Value, json};

use crate::elapsed::Elapsed;
use crate::inventory::{
    Capabilities, DeleteRule, Deprecation, DisksHeld, Idempotency, KeyChoice, KindCapabilities,
    LocationChoice, RecordPlace, Via,
};
use crate::report::{bytes, clean, table};

/// What is written where nothing is known to set a bound.
const UNBOUND: &str = "no limit known";

/// An engine of the configuration, or a kind of engine with the settings it has by default.
pub(super) struct Subject<'a> {
    /// Its name in the configuration, where it is there.
    pub(super) name: Option<&'a str>,
    /// Its kind.
    pub(super) kind: &'a str,
    /// What it can do.
    pub(super) capabilities: &'a Capabilities,
}

impl Subject<'_> {
    pub(super) fn json(&self) -> Value {
        json!({
            "format_version": "1.0",
            "engine": self.name,
            "kind": self.kind,
            "images": self.capabilities.of_kinds(),
        })
    }

    pub(super) fn text(&self) -> String {
        let kinds = self.capabilities.of_kinds();
        let mut rows = vec![row("", &kinds, |kind| kind.kind.word().to_owned())];
        rows.extend(ROWS.iter().map(|(title, cell)| row(title, &kinds, cell)));
        let head = match self.name {
            Some(name) => format!("engine {}, kind {}", clean(name), self.kind),
            None => format!("kind of engine {}, with the settings it has by default", self.kind),
        };
        let lines = table(&rows).into_iter().map(|line| format!("  {line}"));
        let lines: Vec<String> = lines.map(|line| line.trim_end().to_owned()).collect();
        format!("{head}\n\n{}\n", lines.join("\n"))
    }
}

/// What a property is called, and how a cell of it reads.
type Row = (&'static str, fn(&KindCapabilities) -> String);

const ROWS: [Row; 25] = [
    ("disks of a restore point", disks),
    ("made from", made_from),
    ("imported from", imports),
    ("consistency", |kind| words(&kind.consistencies)),
    ("ownership record in", record),
    ("labels of a policy", |kind| kind.labels_room.to_string()),
    ("characters of a description", |kind| kind.description_length_max.to_string()),
    ("deprecated by", deprecation),
    ("encryption key", key),
    ("storage location", location),
    ("copies", copies),
    ("tiers", |kind| words(&kind.tiers)),
    ("families", families),
    ("sharing", |kind| yes(kind.sharing)),
    ("drills", drills),
    ("asked for twice, made once by", idempotency),
    ("captures at once", |kind| kind.captures_max.to_string()),
    ("captures that begin in a minute", |kind| limit(kind.captures_per_minute)),
    ("captures at once of a source", |kind| limit(kind.source_captures)),
    ("operations at once", |kind| limit(kind.operations)),
    ("between images of a source", interval),
    ("quota", quota),
    ("size of an image", size),
    ("a later image stores", |kind| {
        if kind.whole { "all of its disk" } else { "what has changed" }.to_owned()
    }),
    ("delete", delete),
];

fn families(kind: &KindCapabilities) -> String {
    match kind.family_length_min {
        least if kind.families && least > 1 => format!("yes, of {least} characters or more"),
        _ => yes(kind.families),
    }
}

fn made_from(kind: &KindCapabilities) -> String {
    let of = if kind.disks == DisksHeld::Together { "the machine" } else { "the disk" };
    let other = if kind.vias.contains(&Via::Snapshot) { ", a snapshot of it" } else { "" };
    format!("{of}{other}")
}

fn imports(kind: &KindCapabilities) -> String {
    if kind.imports.is_empty() { "nothing".to_owned() } else { words(&kind.imports) }
}

fn row(
    title: &str,
    kinds: &[KindCapabilities],
    cell: impl Fn(&KindCapabilities) -> String,
) -> Vec<String> {
    [title.to_owned()].into_iter().chain(kinds.iter().map(cell)).collect()
}

/// The words that a policy uses for these.
fn words(values: &[impl serde::Serialize]) -> String {
    let words = values.iter().filter_map(|value| Some(json!(value).as_str()?.to_owned()));
    words.collect::<Vec<_>>().join(", ")
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

fn limit(most: Option<u64>) -> String {
    most.map_or_else(|| UNBOUND.to_owned(), |most| most.to_string())
}

/// What becomes of the disks of a set whose images are of two kinds.
fn companions(kind: &KindCapabilities) -> String {
    let others = kind.companion.map_or("image", |companion| companion.word());
    format!("all: the boot disk as {}, each other as {others}", kind.kind.word())
}

fn disks(kind: &KindCapabilities) -> String {
    let disks = match kind.disks {
        DisksHeld::Together => "all, of one instant",
        DisksHeld::OneImageEach if kind.companion.is_some() => {
            return companions(kind);
        }
        DisksHeld::OneImageEach => "all, an image each",
        DisksHeld::One => "one",
    };
    let boot = if kind.boot_disk { ", the boot disk among them" } else { "" };
    format!("{disks}{boot}")
}

fn record(kind: &KindCapabilities) -> String {
    match kind.record {
        RecordPlace::Labels => "labels",
        RecordPlace::Text => "the description",
    }
    .to_owned()
}

fn deprecation(kind: &KindCapabilities) -> String {
    match (kind.deprecation, kind.record) {
        (Deprecation::Native, _) => "a state",
        (Deprecation::Label, RecordPlace::Labels) => "a label",
        (Deprecation::Label, RecordPlace::Text) => "the record",
    }
    .to_owned()
}

fn key(kind: &KindCapabilities) -> String {
    match kind.key {
        KeyChoice::Settable => "the policy's",
        KeyChoice::Inherited => "that of the disk",
        KeyChoice::None => "none",
    }
    .to_owned()
}

fn location(kind: &KindCapabilities) -> String {
    match kind.location_choice {
        LocationChoice::Fixed => "the engine's".to_owned(),
        LocationChoice::Settable if kind.locations.is_empty() => "the policy's".to_owned(),
        LocationChoice::Settable => format!("one of {}", names(&kind.locations)),
    }
}

fn names(locations: &[String]) -> String {
    locations.iter().map(|name| clean(name)).collect::<Vec<_>>().join(", ")
}

fn copies(kind: &KindCapabilities) -> String {
    if kind.copy_locations.is_empty() {
        return yes(kind.copies);
    }
    format!("to {}", names(&kind.copy_locations))
}

fn drills(kind: &KindCapabilities) -> String {
    if kind.drills.is_empty() { "none".to_owned() } else { words(&kind.drills) }
}

fn idempotency(kind: &KindCapabilities) -> String {
    match kind.idempotency {
        Idempotency::Name => "its name",
        Idempotency::RequestId => "a request id",
        Idempotency::Search => "looking first",
    }
    .to_owned()
}

fn interval(kind: &KindCapabilities) -> String {
    let shortest = kind
        .source_interval_seconds
        .and_then(|seconds| i64::try_from(seconds).ok())
        .map(|seconds| Elapsed::seconds(seconds).to_string());
    let hourly = kind.source_hourly.map(|most| format!("{most} an hour"));
    joined([shortest, hourly])
}

fn quota(kind: &KindCapabilities) -> String {
    joined([kind.images.map(|most| most.to_string()), kind.stored_bytes.map(bytes)])
}

fn size(kind: &KindCapabilities) -> String {
    joined([kind.image_disks.map(|most| format!("{most} disks")), kind.image_bytes.map(bytes)])
}

fn joined(parts: [Option<String>; 2]) -> String {
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { UNBOUND.to_owned() } else { parts.join(", ") }
}

fn delete(kind: &KindCapabilities) -> String {
    let rules = kind.delete_rules.iter().map(|rule| match rule {
        DeleteRule::Operation => "with its operation",
        DeleteRule::Vanished => "until it is not found",
        DeleteRule::Unused => "not while used",
        DeleteRule::RecordLast => "the record last",
    });
    let rules: Vec<&str> = rules.collect();
    if rules.is_empty() { "at once".to_owned() } else { rules.join(", ") }
}
