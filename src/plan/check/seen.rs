//! What was seen of the sources that a plan touches, read from the inventory anew.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::times::moved;
use crate::inventory::{
    EngineInventory, GapScope, Image, ImageState, Instance, LABEL_COPY, LABEL_DRILLED,
    LABEL_DRILLED_BEFORE, LABEL_HOLD, LABEL_MISSING, LABEL_REMOVED, LABEL_STEP,
};
use crate::name::{Key, LABEL_SLOT, LABEL_SOURCE, Ownership, PolicyName, parse_stamp};
use crate::plan::action::Action;
use crate::plan::document::Change;
use crate::policy::select::Patterns;
use crate::policy::{Policies, Policy};
use crate::retention::CLOCK_SKEW;

/// What was seen of one engine.
pub(super) struct Seen<'a> {
    pub(super) engine: &'a EngineInventory,
    pub(super) now: Timestamp,
    /// The policies, moved and removed ones among them, under every name they have or had.
    keepers: BTreeMap<&'a str, &'a Policy>,
    /// The images that changes name, by id.
    pub(super) by_id: BTreeMap<&'a str, &'a Image>,
    /// The images whose names changes name.
    pub(super) by_name: BTreeMap<&'a str, Vec<&'a Image>>,
    pub(super) series: Vec<Series<'a>>,
    /// The position of a series, by policy and source.
    index: BTreeMap<&'a str, BTreeMap<String, usize>>,
    /// The ids of the READY images of each source, whatever their policy.
    pub(super) ready: BTreeMap<&'a str, Vec<&'a str>>,
    /// Whether an image is listed twice.
    pub(super) has_doubles: bool,
}

/// Whether a source is there.
#[derive(Debug, Clone, Copy)]
pub(super) enum Presence<'a> {
    /// There and selected.
    There(&'a Instance),
    /// There, and not selected.
    Unselected,
    /// Not there.
    Missing,
    /// Nobody knows: not all instances were seen.
    Unseen,
}

/// A policy and a source of it.
pub(super) struct Series<'a> {
    pub(super) policy: &'a Policy,
    pub(super) source: String,
    pub(super) presence: Presence<'a>,
    /// The name of the source, where it is there.
    instance_name: Option<&'a str>,
    /// In the order of their ids.
    pub(super) points: Vec<Point<'a>>,
    /// The newest slot that is READY, of originals (`""`) and of the copies in each location.
    pub(super) newest: BTreeMap<&'a str, Timestamp>,
    /// The newest slot that is READY of the originals that lie in each location.
    pub(super) newest_stored: BTreeMap<&'a str, Timestamp>,
    /// The oldest slot of an original that is READY.
    pub(super) oldest: Option<Timestamp>,
    /// Since when the source is marked as missing.
    pub(super) missing_since: Option<Timestamp>,
    /// When an original was last tried.
    pub(super) drilled: Option<Timestamp>,
}

/// An image of a series.
pub(super) struct Point<'a> {
    /// The key that its labels hold under their seal.
    pub(super) key: Key,
    pub(super) slot: Timestamp,
    pub(super) image: &'a Image,
    /// The location of a copy.
    pub(super) copy_in: Option<&'a str>,
    pub(super) is_held: bool,
    /// READY and not from the future.
    pub(super) is_ready: bool,
    /// A step on the way to a restore point, and none itself.
    pub(super) is_step: bool,
}

impl<'a> Seen<'a> {
    pub(super) fn new(
        engine: &'a EngineInventory,
        policies: &'a Policies,
        changes: &[&'a Change],
        now: Timestamp,
    ) -> Self {
        let mut seen = Self {
            engine,
            now,
            keepers: keepers(policies),
            by_id: BTreeMap::new(),
            by_name: BTreeMap::new(),
            series: Vec::new(),
            index: BTreeMap::new(),
            ready: BTreeMap::new(),
            has_doubles: false,
        };
        seen.begin(changes);
        let touched = Touched::new(changes);
        for image in &engine.images {
            seen.image(image, &touched);
        }
        for series in &mut seen.series {
            series.points.sort_by(|one, other| one.image.id.cmp(&other.image.id));
        }
        if changes.iter().any(|change| change.action != Action::Create) {
            let mut ids: Vec<&str> = engine.images.iter().map(|image| image.id.as_str()).collect();
            ids.sort_unstable();
            seen.has_doubles = ids.windows(2).any(|pair| pair[0] == pair[1]);
        }
        seen
    }

    /// A series for every change, also where no image of it is there.
    fn begin(&mut self, changes: &[&'a Change]) {
        let sources: BTreeSet<&str> = changes.iter().map(|one| one.key.source.as_str()).collect();
        let instances: BTreeMap<&str, &Instance> = self
            .engine
            .instances
            .iter()
            .filter(|instance| sources.contains(instance.id.as_str()))
            .map(|instance| (instance.id.as_str(), instance))
            .collect();
        let sees_all = !self.engine.gaps.iter().any(|gap| gap.scope == GapScope::Instances);
        for change in changes {
            let Some(policy) = self.keeper(&change.key.policy) else { continue };
            let source = change.key.source.to_string();
            let sources = self.index.entry(policy.name.as_str()).or_default();
            if sources.contains_key(&source) {
                continue;
            }
            sources.insert(source.clone(), self.series.len());
            let instance = instances.get(source.as_str()).copied();
            let presence = match instance {
                Some(instance) if is_selected(policy, instance) => Presence::There(instance),
                Some(_) => Presence::Unselected,
                None if sees_all => Presence::Missing,
                None => Presence::Unseen,
            };
            self.series.push(Series {
                policy,
                source,
                presence,
                instance_name: instance.map(|instance| instance.name.as_str()),
                points: Vec::new(),
                newest: BTreeMap::new(),
                newest_stored: BTreeMap::new(),
                oldest: None,
                missing_since: None,
                drilled: None,
            });
        }
    }

    fn image(&mut self, image: &'a Image, touched: &Touched<'a>) {
        if touched.ids.contains(image.id.as_str()) {
            self.by_id.insert(&image.id, image);
        }
        if touched.names.contains(image.name.as_str()) {
            self.by_name.entry(&image.name).or_default().push(image);
        }
        if !touched.concerns(image) {
            return;
        }
        let Ownership::Ours(key) = Key::from_labels(&image.labels) else { return };
        let slot = key.slot.instant();
        let is_step = image.labels.contains_key(LABEL_STEP);
        let is_ready = image.state == ImageState::Ready && slot <= self.horizon() && !is_step;
        if let (true, Some(source)) = (is_ready, image.labels.get(LABEL_SOURCE)) {
            self.ready.entry(source).or_default().push(&image.id);
        }
        let (now, horizon) = (self.now, self.horizon());
        let Some(index) = self.index_of(&key) else { return };
        let series = &mut self.series[index];
        let is_copy = image.labels.contains_key(LABEL_COPY);
        let point = Point {
            slot,
            image,
            copy_in: is_copy.then_some(image.location.as_str()),
            is_held: is_held(series, &key, image, now),
            is_ready,
            is_step,
            key,
        };
        series.add(point, horizon, now);
    }

    /// Restore points after this are from the future.
    pub(super) fn horizon(&self) -> Timestamp {
        moved(self.now, CLOCK_SKEW.as_seconds())
    }

    /// The policy that looks after the restore points of a name, on this engine.
    pub(super) fn keeper(&self, name: &PolicyName) -> Option<&'a Policy> {
        let policy = self.keepers.get(name.as_str()).copied()?;
        (policy.engine == self.engine.name).then_some(policy)
    }

    pub(super) fn series_of(&self, key: &Key) -> Option<&Series<'a>> {
        self.series.get(self.index_of(key)?)
    }

    fn index_of(&self, key: &Key) -> Option<usize> {
        let policy = self.keeper(&key.policy)?;
        self.index.get(policy.name.as_str())?.get(key.source.as_str()).copied()
    }
}

impl<'a> Series<'a> {
    fn add(&mut self, point: Point<'a>, horizon: Timestamp, now: Timestamp) {
        let stamp = |label: &str| point.image.labels.get(label).and_then(|text| parse_stamp(text));
        let slot = point.slot;
        if point.is_ready {
            let newest = self.newest.entry(point.copy_in.unwrap_or_default()).or_insert(slot);
            *newest = slot.max(*newest);
        }
        if point.is_ready && point.copy_in.is_none() {
            let stored = self.newest_stored.entry(&point.image.location).or_insert(slot);
            *stored = slot.max(*stored);
        }
        // Copies say nothing about the source: nobody marks them, and nobody takes a mark away.
        if point.copy_in.is_none() && !point.is_step {
            let mark = if self.policy.removed.is_some() { LABEL_REMOVED } else { LABEL_MISSING };
            let counts = slot <= horizon && point.image.state.is_settled();
            if let Some(marked) = stamp(mark).filter(|_| counts) {
                let since = self.missing_since.map_or(marked, |since| since.min(marked));
                self.missing_since = Some(since);
            }
            if point.is_ready {
                self.oldest = Some(self.oldest.map_or(slot, |oldest| oldest.min(slot)));
            }
            for tried in [stamp(LABEL_DRILLED), stamp(LABEL_DRILLED_BEFORE)].into_iter().flatten() {
                if tried <= now {
                    self.drilled = Some(self.drilled.map_or(tried, |last| last.max(tried)));
                }
            }
        }
        self.points.push(point);
    }

    /// The newest slot of an original that is READY.
    pub(super) fn newest(&self) -> Option<Timestamp> {
        self.newest.get("").copied()
    }

    /// Whether a point has the greatest id of its slot: of two, that one stands for both.
    pub(super) fn stands_for_slot(&self, point: &Point<'_>) -> bool {
        !self.points.iter().any(|other| {
            other.slot == point.slot
                && other.copy_in == point.copy_in
                && other.is_ready
                && other.image.id > point.image.id
        })
    }

    /// The location of a copy, `""` for originals, where something of it is READY.
    pub(super) fn location_of(&self, point: &Point<'_>) -> &'a str {
        let location = point.copy_in.unwrap_or_default();
        self.newest.get_key_value(location).map_or("", |(known, _)| *known)
    }

    /// The point of an image.
    pub(super) fn point(&self, id: &str) -> Option<&Point<'a>> {
        let index = self.points.binary_search_by(|point| point.image.id.as_str().cmp(id)).ok()?;
        self.points.get(index)
    }
}

/// What of an engine a plan is about.
struct Touched<'a> {
    ids: BTreeSet<&'a str>,
    names: BTreeSet<&'a str>,
    /// Sources of which something is changed: all of their images count.
    changed: BTreeSet<&'a str>,
    /// Sources of which something is only made, with the slot: older images do not count.
    made: BTreeMap<&'a str, String>,
}

impl<'a> Touched<'a> {
    fn new(changes: &[&'a Change]) -> Self {
        let mut touched = Self {
            ids: BTreeSet::new(),
            names: BTreeSet::new(),
            changed: BTreeSet::new(),
            made: BTreeMap::new(),
        };
        for change in changes {
            let create = change.create.as_ref();
            let copy = change.copy.as_ref();
            let replaced = create.and_then(|create| create.replaces.as_ref());
            let replaced = replaced.or(copy.and_then(|copy| copy.replaces.as_ref()));
            touched.ids.extend(change.image.id.as_deref());
            touched.ids.extend(replaced.and_then(|replaced| replaced.id.as_deref()));
            touched.names.insert(&change.image.name);
            touched.names.extend(copy.map(|copy| copy.name.as_str()));
            let update = change.update.as_ref();
            touched.names.extend(update.and_then(|update| update.replacement.as_deref()));
            let source = change.key.source.as_str();
            if change.action == Action::Create {
                let slot = change.key.slot.to_string();
                let made = touched.made.entry(source).or_default();
                if made.is_empty() || slot < *made {
                    *made = slot;
                }
            } else {
                touched.changed.insert(source);
            }
        }
        touched
    }

    fn concerns(&self, image: &Image) -> bool {
        let Some(source) = image.labels.get(LABEL_SOURCE) else { return false };
        let slot = image.labels.get(LABEL_SLOT);
        self.changed.contains(source.as_str())
            || self.made.get(source.as_str()).is_some_and(|made| slot.is_some_and(|at| at >= made))
    }
}

fn keepers(policies: &Policies) -> BTreeMap<&str, &Policy> {
    let mut keepers: BTreeMap<&str, &Policy> = BTreeMap::new();
    keepers.extend(policies.removed.iter().map(|policy| (policy.name.as_str(), policy)));
    for (old, new) in &policies.moved {
        let policy = policies.policies.iter().find(|policy| policy.name == *new);
        keepers.extend(policy.map(|policy| (old.as_str(), policy)));
    }
    keepers.extend(policies.policies.iter().map(|policy| (policy.name.as_str(), policy)));
    keepers
}

fn is_selected(policy: &Policy, instance: &Instance) -> bool {
    policy.selection.any.iter().any(|condition| condition.holds(instance))
        && !policy.selection.except.iter().any(|condition| condition.holds(instance))
}

/// Whether a label or an entry of the policy holds an image. A hold that cannot be read holds.
fn is_held(series: &Series<'_>, key: &Key, image: &Image, now: Timestamp) -> bool {
    let by_label = image.labels.get(LABEL_HOLD).is_some_and(|text| {
        let end = text.strip_prefix("until-").and_then(parse_stamp);
        end.is_none_or(|end| end > now)
    });
    by_label || series.is_slot_held(key.slot.instant(), Some(image), now)
}

impl Series<'_> {
    /// Whether an entry of the policy holds a slot: one that is there, or one that is to come.
    pub(super) fn is_slot_held(
        &self,
        slot: Timestamp,
        image: Option<&Image>,
        now: Timestamp,
    ) -> bool {
        self.policy.holds.iter().any(|hold| {
            let has_ended = hold.until.is_some_and(|until| until <= now);
            let is_before = hold.from.is_some_and(|from| slot < from);
            let is_after = hold.before.is_some_and(|before| slot >= before);
            if has_ended || is_before || is_after {
                return false;
            }
            let mut sources = vec![self.source.as_str()];
            sources.extend(image.and_then(|image| image.source.as_ref()).map(|one| &*one.name));
            sources.extend(self.instance_name);
            let of_source = |patterns: &Patterns| sources.iter().any(|name| patterns.matches(name));
            let of_image = |patterns: &Patterns| {
                image.is_some_and(|image| {
                    patterns.matches(&image.id) || patterns.matches(&image.name)
                })
            };
            hold.sources.as_ref().is_none_or(of_source) && hold.images.as_ref().is_none_or(of_image)
        })
    }
}
