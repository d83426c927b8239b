//! Generated worlds: policies in the whole language, and the images they may meet.
//!
//! A world is made of small specifications that proptest can shrink; policies are written as YAML
//! and read as users' files are, so that nothing reaches a plan that no user could write.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use stillframe::inventory::{
    Capabilities, DrillCheck, EngineInventory, FORMAT_VERSION, Grant, Image, ImageKind, ImageState,
    Inventory, LABEL_COPY, LABEL_DRILLED, LABEL_HOLD, LABEL_LET_GO, LABEL_MISSING, LABEL_REMOVED,
    LABEL_STAGED, LABEL_STEP, Limits, Stage, Via,
};
use stillframe::name::{Key, Ownership, PolicyName, Slot, SourceId, stamp, step_name};
use stillframe::plan::{Action, Change, Plan, plan};
use stillframe::policy::{EngineKind, Policies, SourceFile, load};

use super::memory::{self, instance};

pub const NOW: &str = "2026-11-21T12:00:00Z";
/// The first two are selected, the third is gone, the fourth is there and not selected.
pub const SOURCES: [&str; 4] = ["web-1", "web-2", "gone-1", "db-1"];
/// The first two are in the files; `older` may be the name that the first had, and `dropped` may be
/// removed: else they are nobody's.
pub const POLICIES: [&str; 4] = ["nightly", "weekly", "older", "dropped"];
/// Where copies go.
pub const ELSEWHERE: &str = "eu";

pub fn now() -> Timestamp {
    NOW.parse().unwrap()
}

pub fn hours_ago(hours: i64) -> Timestamp {
    now() - SignedDuration::from_hours(hours)
}

/// A policy as the generator makes it.
#[derive(Debug, Clone)]
pub struct PolicySpec {
    pub retention: BTreeMap<&'static str, u32>,
    pub at_least: u32,
    pub grace_hours: u32,
    pub paused: bool,
    pub more: More,
}

/// What few policies say.
#[derive(Debug, Clone, Default)]
pub struct More {
    pub schedule: usize,
    pub hold: Option<HoldSpec>,
    pub blackout: usize,
    pub copies: bool,
    pub on_source_gone: usize,
    pub stalls_expire: bool,
    pub stalled_after_days: Option<u32>,
    pub deprecate_after_days: Option<u32>,
    pub obsolete_after_days: Option<u32>,
    pub family: bool,
    pub via_snapshot: bool,
    pub sharing: bool,
    pub drill: bool,
}

const SCHEDULES: [&str; 7] = [
    "{cron: \"0 2 * * *\"}",
    "{cron: [\"0 2 * * *\", \"0 11 * * *\"], deadline: 12h}",
    "{cron: \"0 2 * * 6\"}",
    "{cron: \"30 22 * * *\", timeZone: America/St_Johns}",
    "{cron: \"0 16 * * *\", timeZone: Pacific/Apia}",
    "{cron: \"30 11 * * *\", jitter: 1h}",
    "{cron: \"0 2 * * *\", deadline: 1h}",
];
const BLACKOUTS: [&str; 6] = [
    "",
    "{cron: \"0 11 * * *\", duration: 2h, reason: x}",
    "{cron: \"0 1 * * *\", duration: 3h, deletes: true, reason: x}",
    "{from: 2026-11-20, until: 2026-11-22, creates: false, deletes: true, reason: x}",
    "{from: 2026-11-10, until: 2026-11-20, reason: x}",
    "{from: 2026-11-10, until: 2026-11-21T13:00:00Z, deletes: true, reason: x}",
];
const GONE: [&str; 3] = ["rules", "keep", "expire"];

/// An entry that holds restore points.
#[derive(Debug, Clone)]
pub struct HoldSpec {
    all_sources: bool,
    from_days_ago: i64,
    days: i64,
    has_ended: bool,
}

/// What the configuration says of policies that are not in the files.
#[derive(Debug, Clone, Default)]
pub struct Gone {
    pub moved: bool,
    /// What becomes of the images, and the grace in days.
    pub removed: Option<(usize, u32)>,
}

/// An image as the generator makes it.
#[derive(Debug, Clone)]
pub struct ImageSpec {
    pub policy: usize,
    pub source: usize,
    pub days_ago: i64,
    pub state: u8,
    pub let_go_hours_ago: Option<i64>,
    pub held: bool,
    pub in_use: bool,
    pub marked_missing: bool,
    pub twin: bool,
    pub copy: bool,
    pub drilled: bool,
    pub step: Step,
}

/// Whether there is a snapshot that is a step on the way to an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There is none.
    None,
    /// One beside the image.
    Beside,
    /// One, and no image.
    Instead,
}

#[derive(Debug, Clone)]
pub struct World {
    pub policies: Vec<PolicySpec>,
    pub gone: Gone,
    pub images: Vec<ImageSpec>,
    pub foreign: usize,
    /// Whether its engine takes few images of a source in a time.
    pub paced: bool,
}

fn retentions() -> impl Strategy<Value = BTreeMap<&'static str, u32>> {
    let rules =
        vec!["hours", "days", "weeks", "last", "hourly", "daily", "weekly", "monthly", "yearly"];
    proptest::collection::btree_map(proptest::sample::select(rules), 1_u32..6, 0..3)
}

fn hold_specs() -> impl Strategy<Value = HoldSpec> {
    (any::<bool>(), -2_i64..30, 0_i64..20, prop::bool::weighted(0.3)).prop_map(
        |(all_sources, from_days_ago, days, has_ended)| HoldSpec {
            all_sources,
            from_days_ago,
            days,
            has_ended,
        },
    )
}

fn mores() -> impl Strategy<Value = More> {
    let rarely = |share: f64| prop::bool::weighted(share);
    let schedule = prop_oneof![6 => Just(0_usize), 4 => 1..SCHEDULES.len()];
    let blackout = prop_oneof![7 => Just(0_usize), 3 => 1..BLACKOUTS.len()];
    let when = (schedule, blackout, proptest::option::weighted(0.3, hold_specs()));
    let aging = (
        proptest::option::weighted(0.3, 1_u32..8),
        proptest::option::weighted(0.3, 1_u32..10),
        proptest::option::weighted(0.2, 10_u32..20),
    );
    let flags = (rarely(0.3), rarely(0.2), rarely(0.2), rarely(0.2), rarely(0.2));
    (when, 0..GONE.len(), aging, flags).prop_map(
        |(
            (schedule, blackout, hold),
            on_source_gone,
            (stalled_after_days, deprecate_after_days, obsolete_after_days),
            (copies, stalls_expire, family, sharing, drill),
        )| More {
            schedule,
            hold,
            blackout,
            copies,
            on_source_gone,
            stalls_expire,
            stalled_after_days,
            deprecate_after_days,
            obsolete_after_days,
            family,
            via_snapshot: on_source_gone != 1,
            sharing,
            drill,
        },
    )
}

fn policy_specs() -> impl Strategy<Value = PolicySpec> {
    let more = prop_oneof![1 => Just(More::default()), 3 => mores()];
    (retentions(), 1_u32..4, 0_u32..72, prop::bool::weighted(0.1), more).prop_map(
        |(retention, at_least, grace_hours, paused, more)| PolicySpec {
            retention,
            at_least,
            grace_hours,
            paused,
            more,
        },
    )
}

fn image_specs() -> impl Strategy<Value = ImageSpec> {
    let rarely = |share: f64| prop::bool::weighted(share);
    let flags =
        ((rarely(0.1), rarely(0.1), rarely(0.1)), (rarely(0.05), rarely(0.2), rarely(0.05)));
    let policy = prop_oneof![4 => Just(0_usize), 4 => Just(1), 1 => Just(2), 1 => Just(3)];
    let source = prop_oneof![4 => Just(0_usize), 3 => Just(1), 3 => Just(2), 1 => Just(3)];
    (policy, source, -2_i64..40, 0_u8..16, proptest::option::of(-5_i64..120), flags).prop_map(
        |(
            policy,
            source,
            days_ago,
            state,
            let_go_hours_ago,
            ((held, in_use, marked_missing), (twin, copy, drilled)),
        )| ImageSpec {
            policy,
            source,
            days_ago,
            state,
            let_go_hours_ago,
            held,
            in_use,
            marked_missing,
            twin,
            copy,
            drilled,
            // Beside what is whole and what has failed, and where there is nothing yet.
            step: match (state, days_ago.rem_euclid(3)) {
                (0..2 | 9, 1) => Step::Beside,
                (2 | 10, 1) => Step::Instead,
                _ => Step::None,
            },
        },
    )
}

/// Worlds in which anything may be.
pub fn worlds() -> impl Strategy<Value = World> {
    let removed = proptest::option::weighted(0.5, (0..GONE.len(), 0_u32..30));
    let gone = (any::<bool>(), removed).prop_map(|(moved, removed)| Gone { moved, removed });
    (
        proptest::collection::vec(policy_specs(), 2),
        gone,
        proptest::collection::vec(image_specs(), 0..50),
        0_usize..3,
        any::<bool>(),
    )
        .prop_map(|(policies, gone, images, foreign, paced)| World {
            policies,
            gone,
            images,
            foreign,
            paced,
        })
}

/// Worlds in which a slot of every source that is there is due, and some of those were missing before: the
/// newest of their images says so, as a plan would have written it.
pub fn returned() -> impl Strategy<Value = World> {
    worlds().prop_map(|mut world| {
        world.images.retain(|image| image.source > 1 || image.days_ago > 0);
        for (policy, source) in [(0, 0), (0, 1), (1, 0)] {
            let is_of = |image: &&mut ImageSpec| {
                (image.policy, image.source) == (policy, source) && image.state < 9 && !image.copy
            };
            let newest = world.images.iter_mut().filter(is_of).min_by_key(|image| image.days_ago);
            if let Some(newest) = newest {
                newest.marked_missing = true;
            }
        }
        world
    })
}

fn capable(_: &serde_json::Value) -> Capabilities {
    Capabilities {
        copies: true,
        families: true,
        via_snapshot_kinds: vec![ImageKind::DiskImage],
        sharing: true,
        drills: vec![DrillCheck::Verify],
        ..Capabilities::default()
    }
}

/// An image of a source in ten minutes, and two in an hour.
pub fn pace() -> Limits {
    Limits { source_interval_seconds: Some(600), source_hourly: Some(2), ..Limits::default() }
}

fn list(rules: &BTreeMap<&'static str, u32>) -> String {
    rules.iter().map(|(rule, count)| format!("{rule}: {count}, ")).collect()
}

impl PolicySpec {
    fn yaml(&self, name: &str) -> String {
        let more = &self.more;
        let mut text = format!(
            "---\napiVersion: stillframe/v1\nkind: BackupPolicy\nmetadata: {{name: {name}}}\nspec:\n  \
             source: {{match: [{{names: [\"web-*\"]}}], overlapsWith: [\"*\"]}}\n  schedule: {}\n",
            SCHEDULES[more.schedule]
        );
        let days = |key: &str, days: Option<u32>| {
            days.map(|days| format!("{key}: {days}d, ")).unwrap_or_default()
        };
        text.push_str(&format!(
            "  retention: {{{}{}whenStalled: {}, atLeast: {}}}\n",
            list(&self.retention),
            days("stalledAfter", more.stalled_after_days),
            if more.stalls_expire { "expire" } else { "keep" },
            self.at_least
        ));
        text.push_str("  labels: {service: web}\n");
        text.push_str(&format!(
            "  lifecycle: {{{}{}onSourceGone: {}, grace: {}h}}\n",
            days("deprecateAfter", more.deprecate_after_days),
            days("obsoleteAfter", more.obsolete_after_days),
            GONE[more.on_source_gone],
            self.grace_hours
        ));
        if let Some(hold) = &more.hold {
            let day = |ago: i64| hours_ago(24 * ago);
            text.push_str(&format!(
                "  hold: [{{sources: [\"{}\"], from: {}, before: {}, until: {}, reason: case}}]\n",
                if hold.all_sources { "*" } else { "web-1" },
                day(hold.from_days_ago),
                day(hold.from_days_ago - hold.days - 1),
                day(if hold.has_ended { 1 } else { -9 })
            ));
        }
        if more.blackout > 0 {
            text.push_str(&format!("  blackouts: [{}]\n", BLACKOUTS[more.blackout]));
        }
        if more.copies {
            text.push_str(&format!("  storage: {{copies: [{ELSEWHERE}]}}\n"));
        }
        if more.family {
            let via = if more.via_snapshot { ", via: snapshot" } else { "" };
            text.push_str(&format!("  capture: {{kind: disk-image, family: web{via}}}\n"));
        }
        if more.sharing {
            text.push_str("  sharing: [{role: user, members: [team]}]\n");
        }
        if more.drill {
            text.push_str("  drill: {cron: \"0 6 * * 0\"}\n");
        }
        if self.paused {
            text.push_str("  paused: {deletes: true}\n");
        }
        text
    }
}

impl World {
    pub fn policies(&self) -> Policies {
        self.policies_of(&POLICIES)
    }

    pub fn policies_of(&self, names: &[&str]) -> Policies {
        let kind = EngineKind {
            check: |_| Vec::new(),
            name: "memory",
            settings_schema: serde_json::json!({"type": "object"}),
            capabilities: capable,
        };
        let mut text =
            "apiVersion: stillframe/v1\nkind: Config\nspec:\n  engines: {memory: {memory: {}}}\n"
                .to_owned();
        if self.gone.moved && names.contains(&POLICIES[0]) {
            text.push_str("  moved: [{from: older, to: nightly}]\n");
        }
        if let Some((images, grace)) = self.gone.removed {
            let retention = if GONE[images] == "rules" { ", retention: {last: 2}" } else { "" };
            text.push_str(&format!(
                "  removed: [{{policy: dropped, images: {}{retention}, grace: {grace}d, reason: x}}]\n",
                GONE[images]
            ));
        }
        for (name, spec) in POLICIES.iter().zip(&self.policies) {
            if names.contains(name) {
                text.push_str(&spec.yaml(name));
            }
        }
        let loaded = load(vec![SourceFile { path: "all.yaml".to_owned(), text }], &[kind]);
        loaded.policies.unwrap_or_else(|| panic!("{:#?}", loaded.findings))
    }

    /// The same world as if nothing but the ordinary had been written.
    pub fn plain(mut self) -> Self {
        for spec in &mut self.policies {
            spec.more = More::default();
        }
        for image in &mut self.images {
            image.copy = false;
            image.step = Step::None;
        }
        self.images.retain(|image| image.policy < 2);
        self.gone = Gone::default();
        self
    }

    pub fn inventory(&self) -> Inventory {
        let mut images: BTreeMap<String, Image> = BTreeMap::new();
        for spec in &self.images {
            for image in spec.images(self) {
                images.insert(image.id.clone(), image);
            }
        }
        for number in 0..self.foreign {
            let mut image = ImageSpec::plain(0, 0, 300).images(self).remove(0);
            image.id = format!("foreign-{number}");
            image.name.clone_from(&image.id);
            image.labels.clear();
            images.insert(image.id.clone(), image);
        }
        let engine = EngineInventory {
            name: "memory".to_owned(),
            kind: "memory".to_owned(),
            identity: "here".to_owned(),
            gaps: Vec::new(),
            images_seen_before: None,
            capabilities: Capabilities {
                limits: if self.paced { pace() } else { Limits::default() },
                ..capable(&serde_json::Value::Null)
            },
            instances: [0, 1, 3].map(|number| instance(SOURCES[number], &[])).into(),
            images: images.into_values().collect(),
        };
        Inventory {
            format_version: FORMAT_VERSION.to_owned(),
            observed_at: now(),
            engines: vec![engine],
        }
    }

    pub fn plan(&self) -> Plan {
        plan(&self.policies(), &self.inventory(), now())
    }

    /// The name of the policy that looks after the images of a name, if one does.
    pub fn keeper<'n>(&self, name: &'n str) -> Option<&'n str> {
        match name {
            "older" => self.gone.moved.then_some(POLICIES[0]),
            "dropped" => self.gone.removed.is_some().then_some(name),
            name => Some(name),
        }
    }

    /// How many READY restore points of a series stay, whatever happens.
    pub fn floor(&self, keeper: &str, source: &str) -> usize {
        let Some(index) = POLICIES[..2].iter().position(|name| *name == keeper) else { return 1 };
        let spec = &self.policies[index];
        let is_there = SOURCES[..2].contains(&source);
        let expires = GONE[spec.more.on_source_gone] == "expire" && !is_there;
        if expires { 1 } else { spec.at_least as usize }
    }

    /// READY images that are not in the future, by series, the newest first. A copy is of the series
    /// of its location.
    pub fn ready(&self, inventory: &Inventory) -> BTreeMap<SeriesName, Vec<(Slot, String)>> {
        let mut series: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for image in &inventory.engines[0].images {
            let Ownership::Ours(key) = image.ownership() else { continue };
            let Some(keeper) = self.keeper(key.policy.as_str()) else { continue };
            if image.state == ImageState::Ready && key.slot.instant() <= now() {
                let name = (keeper.to_owned(), key.source.to_string(), image.is_copy());
                series.entry(name).or_default().push((key.slot, image.id.clone()));
            }
        }
        for points in series.values_mut() {
            points.sort_by(|one, other| other.cmp(one));
        }
        series
    }
}

/// Policy, source, and whether it is of copies.
pub type SeriesName = (String, String, bool);

impl ImageSpec {
    pub fn plain(policy: usize, source: usize, days_ago: i64) -> Self {
        Self {
            policy,
            source,
            days_ago,
            state: 0,
            let_go_hours_ago: None,
            held: false,
            in_use: false,
            marked_missing: false,
            twin: false,
            copy: false,
            drilled: false,
            step: Step::None,
        }
    }

    /// The state of its image. Which disks are left of what is partial is not known of all.
    fn state(&self) -> (ImageState, Option<Vec<String>>) {
        let left: &[&str] = match self.state {
            0..=8 => return (ImageState::Ready, None),
            9 => return (ImageState::Failed, None),
            10 => return (ImageState::Creating, None),
            11 => return (ImageState::Partial, None),
            12 => &["boot"],
            13 => &["data"],
            14 => &["boot", "data"],
            _ => return (ImageState::Unknown, None),
        };
        let left = left.iter().map(|disk| (*disk).to_owned()).collect();
        (ImageState::Partial, Some(left))
    }

    pub fn images(&self, world: &World) -> Vec<Image> {
        let slot = hours_ago(10 + 24 * self.days_ago);
        let key = Key {
            policy: PolicyName::parse(POLICIES[self.policy]).unwrap(),
            source: SourceId::parse(SOURCES[self.source]).unwrap(),
            slot: Slot::at(slot),
        };
        let name = if self.copy {
            key.copy_name(&key.default_prefix(), ELSEWHERE)
        } else {
            key.image_name(&key.default_prefix())
        };
        let mut image = memory::image(&name, &key);
        image.name = name;
        if world.policies.get(self.policy).is_some_and(|policy| policy.more.family) {
            image.family = Some("web".to_owned());
        }
        if world.policies.get(self.policy).is_some_and(|policy| policy.more.sharing) {
            // Some were never shared, some with another team.
            let team = Grant { role: "user".to_owned(), members: vec!["other".to_owned()] };
            image.sharing = Some(if self.days_ago % 2 == 0 { vec![team] } else { Vec::new() });
        }
        let mut set = |label: &str, value: String| image.labels.insert(label.to_owned(), value);
        if let Some(ago) = self.let_go_hours_ago {
            set(LABEL_LET_GO, stamp(hours_ago(ago)));
            if ago % 2 == 0 {
                set(LABEL_STAGED, stamp(hours_ago(ago)));
            }
        }
        if self.held {
            set(LABEL_HOLD, "yes".to_owned());
        }
        if self.marked_missing {
            // One that is not of its policy counts for nothing.
            let is_removed = self.policy == 3;
            let is_other = self.days_ago % 4 == 3;
            let mark = if is_removed == is_other { LABEL_MISSING } else { LABEL_REMOVED };
            set(mark, stamp(hours_ago(24 * 20)));
        }
        if self.drilled {
            set(LABEL_DRILLED, stamp(hours_ago(24 * self.days_ago.max(0))));
        }
        if self.copy {
            set(LABEL_COPY, "yes".to_owned());
            ELSEWHERE.clone_into(&mut image.location);
        }
        (image.state, image.disks) = self.state();
        // Of some the deprecation was taken back.
        if self.let_go_hours_ago.is_some_and(|ago| ago % 7 != 3) {
            image.stage = Stage::Deprecated;
        }
        if self.in_use {
            image.in_use_by.push("vm".to_owned());
        }
        let mut images = vec![image.clone()];
        if self.twin {
            // The listing of an engine has no name twice.
            let id = format!("{}-twin", image.id);
            images.push(Image { name: format!("{}-t", image.name), id, ..image.clone() });
        }
        if self.step != Step::None && !self.copy {
            let step = step_to(&image);
            if self.step == Step::Instead {
                images.clear();
            }
            images.push(step);
        }
        images
    }
}

/// The snapshot that a disk image is made from, as an engine shows it: never READY.
pub fn step_to(image: &Image) -> Image {
    let mut step = Image {
        id: format!("step-{}", image.id),
        name: step_name(&image.name),
        kind: ImageKind::Snapshot,
        family: None,
        stage: Stage::Active,
        ..image.clone()
    };
    step.labels.insert(LABEL_STEP.to_owned(), image.name.clone());
    if step.state == ImageState::Ready {
        step.state = ImageState::Failed;
    }
    step
}

pub fn ids(plan: &Plan, action: Action) -> BTreeSet<String> {
    plan.changes
        .iter()
        .filter(|change| change.action == action)
        .filter_map(|change| change.image.id.clone())
        .collect()
}

/// What carrying out a change leaves of an inventory.
pub fn carry_out(inventory: &mut Inventory, change: &Change) {
    let images = &mut inventory.engines[0].images;
    let is_ready = |name: &String| {
        images.iter().any(|image| image.name == *name && image.state == ImageState::Ready)
    };
    if change.unless.as_ref().is_some_and(is_ready) {
        return;
    }
    let made = |name: &str, location: &str, labels: &BTreeMap<String, String>| {
        let mut image = memory::image(name, &change.key);
        name.clone_into(&mut image.name);
        location.clone_into(&mut image.location);
        image.labels.clone_from(labels);
        image.created_at = now();
        image
    };
    if let Some(create) = &change.create {
        if let Some(replaced) = &create.replaces {
            images.retain(|image| Some(&image.id) != replaced.id.as_ref());
        }
        // What is made of a step takes it away.
        let is_step = |image: &Image| image.step_to() == Some(change.image.name.as_str());
        if create.via == Via::Snapshot {
            images.retain(|image| !is_step(image));
        }
        let mut image = made(&change.image.name, &change.image.location, &create.labels);
        image.sharing.clone_from(&create.sharing);
        image.family.clone_from(&create.family);
        return images.push(image);
    }
    if let Some(copy) = &change.copy {
        if let Some(replaced) = &copy.replaces {
            images.retain(|image| Some(&image.id) != replaced.id.as_ref());
        }
        return images.push(made(&copy.name, &copy.location, &copy.labels));
    }
    if change.action == Action::Delete {
        return images.retain(|image| Some(&image.id) != change.image.id.as_ref());
    }
    let update = change.update.as_ref().unwrap();
    let is_it = |image: &&mut Image| match &change.image.id {
        Some(id) => image.id == *id,
        // What the same plan has made.
        None => image.name == change.image.name,
    };
    let image = images.iter_mut().find(is_it).unwrap();
    image.stage = update.stage_after;
    image.labels.retain(|label, _| !update.remove_labels.contains(label));
    image.labels.extend(update.set_labels.clone());
    if update.sharing.is_some() {
        image.sharing.clone_from(&update.sharing);
    }
}
