//! Worlds with holds, blackouts, copies, drills, moved and removed policies, sources that are gone
//! and names that are taken.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use stillframe::inventory::{
    Capabilities, EngineInventory, FORMAT_VERSION, Image, ImageState, Inventory, LABEL_COPY,
    LABEL_LET_GO, LABEL_MISSING, Stage,
};
use stillframe::name::{Key, PolicyName, Slot, SourceId, stamp};
use stillframe::policy::{EngineKind, Policies, SourceFile, load};

use crate::memory::{self, instance};
use crate::worlds::now;

const SOURCES: [&str; 4] = ["web-1", "web-2", "web-3", "gone-1"];
/// The names that images have: `old` is called `nightly` now, and `stopped` was removed.
const NAMES: [&str; 4] = ["nightly", "weekly", "old", "stopped"];

#[derive(Debug, Clone)]
pub struct Rich {
    policies: [PolicySpec; 2],
    removed: (&'static str, u32),
    images: Vec<ImageSpec>,
    taken: Vec<(usize, i64)>,
}

#[derive(Debug, Clone)]
struct PolicySpec {
    rules: BTreeMap<&'static str, u32>,
    at_least: u32,
    grace_hours: u32,
    stalled: &'static str,
    parts: Vec<&'static str>,
}

#[derive(Debug, Clone)]
struct ImageSpec {
    name: usize,
    source: usize,
    days_ago: i64,
    state: u8,
    let_go_hours_ago: Option<i64>,
    copy: bool,
    marked_missing: bool,
}

/// What policies may have beside their rules; each key at most once.
const PARTS: [&[&str]; 5] = [
    &[
        "",
        "  hold: [{sources: [web-2], until: 2026-11-27, reason: a}]\n",
        "  hold: [{images: [\"*-202611*\"], before: 2026-11-18, reason: b}, {sources: [gone-1], reason: c}]\n",
        "  hold: [{sources: [web-3], images: [\"*-20261125-*\"], until: 2026-11-29, reason: d}]\n",
    ],
    &[
        "",
        "  blackouts: [{cron: \"0 1 * * *\", duration: 3h, reason: e}]\n",
        "  blackouts: [{cron: \"0 0 * * sun,mon\", duration: 26h, deletes: true, reason: f}]\n",
        "  blackouts: [{from: 2026-11-22, until: 2026-11-25, creates: false, deletes: true, reason: g}]\n",
        "  paused: {creates: true, until: 2026-11-24T05:00:00Z}\n",
    ],
    &["", "  storage: {copies: [vault]}\n"],
    &["", "  drill: {cron: \"0 3 * * wed\", check: verify}\n"],
    &["", "  sharing: [{role: reader, members: [auditors]}]\n"],
];

fn policy_specs() -> impl Strategy<Value = PolicySpec> {
    let rules = proptest::sample::select(vec!["days", "last", "daily", "weekly"]);
    (
        proptest::collection::btree_map(rules, 1_u32..5, 0..3),
        1_u32..3,
        0_u32..48,
        PARTS.map(|parts| proptest::sample::select(parts.to_vec())),
        proptest::sample::select(vec!["rules", "keep", "expire"]),
        proptest::sample::select(vec!["keep", "expire"]),
    )
        .prop_map(|(mut rules, at_least, grace_hours, parts, gone, stalled)| {
            let mut parts = parts.to_vec();
            parts.push(match gone {
                "keep" => "onSourceGone: keep",
                "expire" => "onSourceGone: expire, sourceGoneGrace: 24h",
                _ => "onSourceGone: rules",
            });
            // What is drilled or held must be let go at some time to tell anything.
            if rules.is_empty() && at_least == 2 {
                rules.insert("last", 3);
            }
            PolicySpec { rules, at_least, grace_hours, stalled, parts }
        })
}

fn image_specs() -> impl Strategy<Value = ImageSpec> {
    (
        0..NAMES.len(),
        0..SOURCES.len(),
        -1_i64..12,
        0_u8..15,
        proptest::option::weighted(0.3, -5_i64..120),
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(name, source, days_ago, state, let_go_hours_ago, copy, marked_missing)| {
            ImageSpec { name, source, days_ago, state, let_go_hours_ago, copy, marked_missing }
        })
}

pub fn rich() -> impl Strategy<Value = Rich> {
    let removed = proptest::sample::select(vec!["keep", "rules", "expire"]);
    (
        [policy_specs(), policy_specs()],
        (removed, 0_u32..60),
        proptest::collection::vec(image_specs(), 0..40),
        proptest::collection::vec((0_usize..3, -5_i64..0), 0..3),
    )
        .prop_map(|(policies, removed, images, taken)| Rich {
            policies,
            removed,
            images,
            taken,
        })
}

impl Rich {
    pub fn policies(&self) -> Policies {
        let kind = EngineKind {
            check: |_| Vec::new(),
            name: "memory",
            settings_schema: serde_json::json!({"type": "object"}),
            capabilities: |_| capabilities(),
        };
        let (images, grace) = self.removed;
        let retention = if images == "rules" { "retention: {last: 2}, " } else { "" };
        let mut text = format!(
            "apiVersion: stillframe/v1\nkind: Config\nspec:\n  engines: {{memory: {{memory: {{}}}}}}\n  \
             moved: [{{from: old, to: nightly}}]\n  \
             removed: [{{policy: stopped, images: {images}, {retention}grace: {grace}h, reason: over}}]\n"
        );
        for (name, spec) in NAMES.iter().zip(&self.policies) {
            let rules: String =
                spec.rules.iter().map(|(rule, count)| format!("{rule}: {count}, ")).collect();
            let (gone, parts) = spec.parts.split_last().unwrap();
            text.push_str(&format!(
                "---\napiVersion: stillframe/v1\nkind: BackupPolicy\nmetadata: {{name: {name}}}\nspec:\n  \
                 source: {{match: [{{names: [\"web-*\"]}}]}}\n  schedule: {{cron: \"0 2 * * *\"}}\n  \
                 retention: {{{rules}atLeast: {}, whenStalled: {}}}\n  lifecycle: {{grace: {}h, {gone}}}\n{}",
                spec.at_least,
                spec.stalled,
                spec.grace_hours,
                parts.concat()
            ));
        }
        let loaded = load(vec![SourceFile { path: "all.yaml".to_owned(), text }], &[kind]);
        loaded.policies.unwrap_or_else(|| {
            let messages: Vec<_> = loaded.findings.iter().map(|one| &one.message).collect();
            panic!("{messages:?}")
        })
    }

    pub fn inventory(&self) -> Inventory {
        let mut images: BTreeMap<String, Image> = BTreeMap::new();
        for image in self.images.iter().map(ImageSpec::image) {
            images.insert(image.id.clone(), image);
        }
        // Somebody else's images that have the names of restore points to come.
        for (source, days_ago) in &self.taken {
            let key = key(0, *source, *days_ago);
            let mut image = memory::image(&format!("taken-{source}{days_ago}"), &key);
            image.labels.clear();
            images.insert(image.id.clone(), image);
        }
        let engine = EngineInventory {
            name: "memory".to_owned(),
            kind: "memory".to_owned(),
            identity: "here".to_owned(),
            gaps: Vec::new(),
            images_seen_before: None,
            capabilities: capabilities(),
            instances: SOURCES[..3].iter().map(|name| instance(name, &[])).collect(),
            images: images.into_values().collect(),
        };
        let observed_at = now();
        Inventory { format_version: FORMAT_VERSION.to_owned(), observed_at, engines: vec![engine] }
    }
}

fn capabilities() -> Capabilities {
    Capabilities { sharing: true, ..memory::capabilities() }
}

fn hours_ago(hours: i64) -> Timestamp {
    now() - SignedDuration::from_hours(hours)
}

fn key(name: usize, source: usize, days_ago: i64) -> Key {
    Key {
        policy: PolicyName::parse(NAMES[name]).unwrap(),
        source: SourceId::parse(SOURCES[source]).unwrap(),
        slot: Slot::at(hours_ago(10 + 24 * days_ago)),
    }
}

impl ImageSpec {
    fn image(&self) -> Image {
        let key = key(self.name, self.source, self.days_ago);
        let prefix = key.default_prefix();
        let copied = self.copy.then(|| key.copy_name(&prefix, "vault"));
        let name = copied.unwrap_or_else(|| key.image_name(&prefix));
        let mut image = memory::image(&name, &key);
        image.name = name;
        if self.copy { "vault" } else { "local" }.clone_into(&mut image.location);
        let mut set = |label: &str, value: String| image.labels.insert(label.to_owned(), value);
        if self.copy {
            set(LABEL_COPY, "yes".to_owned());
        }
        if let Some(ago) = self.let_go_hours_ago {
            set(LABEL_LET_GO, stamp(hours_ago(ago)));
        }
        if self.marked_missing {
            set(LABEL_MISSING, stamp(hours_ago(24 * 20)));
        }
        // Of some the deprecation was taken back.
        if self.let_go_hours_ago.is_some_and(|ago| ago % 7 != 3) {
            image.stage = Stage::Deprecated;
        }
        image.state = match self.state {
            0..=9 => ImageState::Ready,
            10 => ImageState::Failed,
            11..=13 => ImageState::Partial,
            _ => ImageState::Creating,
        };
        image.disks = match self.state {
            12 => Some(vec!["data".to_owned()]),
            13 => Some(vec!["data".to_owned(), "boot".to_owned()]),
            _ => None,
        };
        image.sharing = Some(Vec::new());
        image
    }
}
