//! Guards: what no plan may do unasked, whoever made it.
//!
//! The guards read the plan and the inventory by themselves and share no judgement with the
//! planner: ownership is parsed again, READY points are counted again. `plan` shows what they
//! refuse, `apply` runs them again and withholds it. What is refused is the deleting; creating
//! goes on, because a backup that is not made is lost as well.

pub mod approval;
mod consent;
mod kind;
mod remainder;
mod share;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use approval::{Approval, Class};
pub use consent::{Override, unused};
pub use kind::Guard;
pub(crate) use share::is_over;

use super::action::Action;
use super::document::{Change, ImageRef, Plan};
use super::seen::id_twice;
use crate::elapsed::Elapsed;
use crate::inventory::{EngineInventory, Image, ImageState, Instance, Inventory, Stage};
use crate::name::{Key, Ownership, PolicyName, Slot, SourceId};
use crate::policy::Policies;
use crate::policy::meant::OnSourceGone;
use crate::policy::select::Decision;
use crate::retention::CLOCK_SKEW;

/// An inventory that has shrunk by more than one part in this many deletes nothing.
const SHRUNKEN_PART: u64 = 3;
/// A plan is carried out within this time or made anew.
pub const VALIDITY: Elapsed = Elapsed::hours(1);

/// What a guard refuses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// The guard.
    pub guard: Guard,
    /// On which engine.
    pub engine: String,
    /// Why, and what to do.
    pub message: String,
    /// The ids of the images that nothing is taken from because of it.
    pub images: Vec<String>,
    /// The flag that says that it is meant, bound to this plan and this number of images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub override_flag: Option<String>,
    /// The classes whose approval says the same.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub classes: BTreeSet<Class>,
    /// Whether that flag was given, or all of it approved.
    #[serde(default)]
    pub overridden: bool,
}

/// So many characters of a plan's id are shown and must be given in an override.
pub const SHORT_ID: usize = 12;

/// Holds a plan against the guards. The refusals come back with what each keeps from happening.
pub fn guard(
    plan: &Plan,
    inventory: &Inventory,
    policies: &Policies,
    overrides: &[Override],
    now: Timestamp,
) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    for engine in &inventory.engines {
        let checks = EngineChecks::new(plan, engine, policies, now);
        refusals.extend(checks.run(now));
    }
    for refusal in &mut refusals {
        if refusal.guard.can_be_overridden() {
            let short = plan.id.get(..SHORT_ID).unwrap_or(&plan.id);
            let count = refusal.images.len();
            // Where there are several engines, the flag says which is meant.
            let engine = (inventory.engines.len() > 1).then(|| refusal.engine.clone());
            let at = engine.as_ref().map(|engine| format!("@{engine}")).unwrap_or_default();
            refusal.override_flag =
                Some(format!("--override {}{at}={short}:{count}", refusal.guard.word()));
            refusal.classes = approval::classes(refusal, plan);
            let is_given = |given: &Override| match given {
                Override::Flag { guard, engine: of, plan: short, count: images } => {
                    guard == refusal.guard.word()
                        && *of == engine
                        && plan.id.starts_with(short)
                        && *images == count
                }
                Override::Approved(_) => false,
            };
            refusal.overridden =
                overrides.iter().any(is_given) || approval::is_approved(refusal, plan, overrides);
        }
    }
    refusals
}

/// Whether anything is refused.
pub fn refuses(refusals: &[Refusal]) -> bool {
    refusals.iter().any(|refusal| !refusal.overridden)
}

/// The ids of the images that nothing may be taken from, engine by engine.
pub fn withheld(refusals: &[Refusal]) -> BTreeSet<(&str, &str)> {
    refusals
        .iter()
        .filter(|refusal| !refusal.overridden)
        .flat_map(|refusal| {
            refusal.images.iter().map(|image| (refusal.engine.as_str(), image.as_str()))
        })
        .collect()
}

/// The policy that a restore point belongs to, its source, and the location of copies.
type SeriesName = (PolicyName, SourceId, Option<String>);

/// The deletes of one engine, and what they would be taken from.
struct EngineChecks<'a> {
    engine: &'a EngineInventory,
    policies: &'a Policies,
    deletes: Vec<(&'a Change, Option<&'a Image>)>,
    /// Creates that take the place of an image, and that image.
    replaces: Vec<(&'a Change, &'a ImageRef, Option<&'a Image>)>,
    /// The READY points of each series that something is deleted from, read from the inventory anew.
    /// Points from the future protect nobody, and an image that is listed twice is one. Copies in
    /// another location are a series of their own.
    series: BTreeMap<SeriesName, Vec<(Key, &'a Image)>>,
    /// How many READY points there are of policies that there are.
    managed: usize,
}

impl<'a> EngineChecks<'a> {
    fn new(
        plan: &'a Plan,
        engine: &'a EngineInventory,
        policies: &'a Policies,
        now: Timestamp,
    ) -> Self {
        // An engine may have a million images, and a plan says something of a few.
        let named: BTreeSet<&str> = plan.changes.iter().flat_map(Change::image_ids).collect();
        let by_id: BTreeMap<&str, &Image> = engine
            .images
            .iter()
            .filter(|image| named.contains(image.id.as_str()))
            .map(|image| (image.id.as_str(), image))
            .collect();
        let image_of = |id: Option<&String>| id.and_then(|id| by_id.get(id.as_str()).copied());
        let deletes: Vec<_> = plan
            .changes
            .iter()
            .filter(|change| change.engine == engine.name && change.action == Action::Delete)
            .map(|change| (change, image_of(change.image.id.as_ref())))
            .collect();
        let replaces = plan
            .changes
            .iter()
            .filter(|change| change.engine == engine.name)
            .filter_map(|change| {
                let create = change.create.as_ref().map(|create| &create.replaces);
                let copy = change.copy.as_ref().map(|copy| &copy.replaces);
                Some((change, create.or(copy)?.as_ref()?))
            })
            .map(|(change, replaced)| (change, replaced, image_of(replaced.id.as_ref())))
            .collect();
        let mut checks =
            Self { engine, policies, deletes, replaces, series: BTreeMap::new(), managed: 0 };
        if !checks.deletes.is_empty() {
            checks.count_ready(now);
        }
        checks
    }

    /// Reads the READY points of the inventory: those of the series that something is taken from,
    /// and how many there are in all.
    fn count_ready(&mut self, now: Timestamp) {
        let horizon = CLOCK_SKEW.after(now);
        for (change, image) in &self.deletes {
            if let Some(image) = image {
                let name = series_name(self.policies, &change.key, image);
                self.series.entry(name).or_default();
            }
        }
        let twice = id_twice(&self.engine.images).is_some();
        let mut seen = BTreeSet::new();
        for image in &self.engine.images {
            if let Ownership::Ours(key) = image.ownership()
                && image.state == ImageState::Ready
                && !image.is_step()
                && key.slot.instant() <= horizon
                && (!twice || seen.insert(image.id.as_str()))
            {
                self.managed += usize::from(self.policies.keeper(&key.policy).is_some());
                if let Some(points) = self.series.get_mut(&series_name(self.policies, &key, image))
                {
                    points.push((key, image));
                }
            }
        }
    }

    fn run(&self, now: Timestamp) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        refusals.extend(self.replaced(now));
        if self.deletes.is_empty() {
            return refusals;
        }
        refusals.extend(self.gaps());
        refusals.extend(self.listed_twice());
        refusals.extend(self.shrunken());
        refusals.extend(self.ownership());
        refusals.extend(self.in_use());
        refusals.extend(self.held(now));
        refusals.extend(self.deprecate_first(now));
        refusals.extend(self.floor(now));
        refusals.extend(self.last_of_disks(now));
        refusals.extend(self.series_share());
        refusals.extend(self.engine_share());
        refusals.extend(self.engine_count());
        refusals.extend(self.risk_classes());
        refusals
    }

    fn refuse<'c>(
        &self,
        guard: Guard,
        changes: impl IntoIterator<Item = &'c Change>,
        message: impl Into<String>,
    ) -> Option<Refusal> {
        let mut images: Vec<String> =
            changes.into_iter().map(|change| change.image.id.clone().unwrap_or_default()).collect();
        images.sort();
        (!images.is_empty()).then(|| Refusal {
            guard,
            engine: self.engine.name.clone(),
            message: message.into(),
            images,
            override_flag: None,
            classes: BTreeSet::new(),
            overridden: false,
        })
    }

    fn changes(&self) -> impl Iterator<Item = &'a Change> + '_ {
        self.deletes.iter().map(|(change, _)| *change)
    }

    /// Deletes of what something can be restored from: clearing away a failed attempt takes nothing
    /// from anybody.
    fn data_deletes(&self) -> impl Iterator<Item = (&'a Change, &'a Image)> + '_ {
        self.deletes.iter().filter_map(|(change, image)| {
            image.filter(|image| image.state.holds_data()).map(|image| (*change, image))
        })
    }

    /// Deletes of restore points.
    fn ready_deletes(&self) -> impl Iterator<Item = (&'a Change, &'a Image)> + '_ {
        self.data_deletes().filter(|(_, image)| image.state == ImageState::Ready)
    }

    fn gaps(&self) -> Option<Refusal> {
        let gap = self.engine.gaps.first()?;
        let message =
            format!("{} was not seen whole ({}): nothing is deleted", self.engine.name, gap.place);
        self.refuse(Guard::InventoryGap, self.changes(), message)
    }

    /// An image that is listed twice was listed while things changed: what else is wrong with the
    /// listing cannot be known.
    fn listed_twice(&self) -> Option<Refusal> {
        id_twice(&self.engine.images)?;
        let message = format!("{} lists an image twice: nothing is deleted", self.engine.name);
        self.refuse(Guard::InventoryGap, self.changes(), message)
    }

    /// Only a failed attempt at the same restore point makes room for another.
    fn replaced(&self, now: Timestamp) -> Option<Refusal> {
        let wrong = self.replaces.iter().filter(|(change, replaced, image)| {
            !image.is_some_and(|image| {
                image.state.is_failed_attempt()
                    && !image.is_step()
                    && image.ownership() == Ownership::Ours(change.key.clone())
                    && Some(&image.fingerprint) == replaced.fingerprint.as_ref()
                    && image.in_use_by.is_empty()
                    && !self.is_held(&change.key, image, now)
            })
        });
        let mut images: Vec<String> =
            wrong.filter_map(|(_, replaced, _)| replaced.id.clone()).collect();
        images.sort();
        (!images.is_empty()).then(|| Refusal {
            guard: Guard::Ownership,
            engine: self.engine.name.clone(),
            message: "these images are not failed attempts at the restore points that would take their place".to_owned(),
            images,
            override_flag: None,
            classes: BTreeSet::new(),
            overridden: false,
        })
    }

    fn shrunken(&self) -> Option<Refusal> {
        let before = self.engine.images_seen_before?;
        let now = self.engine.images.len() as u64;
        let limit = before - before / SHRUNKEN_PART;
        if now >= limit {
            return None;
        }
        let message = format!(
            "{} held {before} images in the last round and {now} now: nothing is deleted",
            self.engine.name
        );
        self.refuse(Guard::Shrunken, self.changes(), message)
    }

    /// Only images that carry our key, that key, and are what the plan was made over.
    fn ownership(&self) -> Option<Refusal> {
        let wrong = self.deletes.iter().filter(|(change, image)| {
            !image.is_some_and(|image| {
                image.ownership() == Ownership::Ours(change.key.clone())
                    && image.is_step() == image.step_to().is_some()
                    && image.name == change.image.name
                    && Some(&image.fingerprint) == change.image.fingerprint.as_ref()
            })
        });
        let message = "these images do not carry the key the plan says, or have changed since";
        self.refuse(Guard::Ownership, wrong.map(|(change, _)| *change), message)
    }

    fn in_use(&self) -> Option<Refusal> {
        let used = self
            .deletes
            .iter()
            .filter(|(_, image)| image.is_some_and(|image| !image.in_use_by.is_empty()));
        self.refuse(Guard::InUse, used.map(|(change, _)| *change), "these images are in use")
    }

    fn held(&self, now: Timestamp) -> Option<Refusal> {
        let held = self.deletes.iter().filter(|(change, image)| {
            image.is_some_and(|image| self.is_held(&change.key, image, now))
        });
        self.refuse(Guard::Held, held.map(|(change, _)| *change), "these images are held")
    }

    /// Whether a label or the policy holds an image.
    fn is_held(&self, key: &Key, image: &Image, now: Timestamp) -> bool {
        let name = || {
            let is_source = |instance: &&Instance| instance.id == key.source;
            self.engine.instances.iter().find(is_source).map(|instance| instance.name.as_str())
        };
        image.is_held(now)
            || self.policies.keeper(&key.policy).is_some_and(|policy| {
                !policy.holds.is_empty() && policy.hold_on(key, image, name(), now).is_some()
            })
    }

    /// How many of the newest READY points of a series are always kept.
    fn always_kept(&self, key: &Key) -> u32 {
        let Some(policy) = self.policies.keeper(&key.policy) else { return 1 };
        let is_there = self.engine.instances.iter().any(|instance| {
            instance.id == key.source
                && matches!(policy.selection.decide(instance), Decision::Selected(_))
        });
        if policy.lifecycle.on_source_gone == OnSourceGone::Expire && !is_there {
            return 1;
        }
        policy.retention.at_least.max(1)
    }

    /// What holds data is deleted only if its label says that it was let go at least the grace ago, since it
    /// is there, and nobody has made it active again since.
    fn deprecate_first(&self, now: Timestamp) -> Option<Refusal> {
        let too_soon = self.data_deletes().filter(|(change, image)| {
            let policy = self.policies.keeper(&change.key.policy);
            let grace = policy.map(|policy| policy.lifecycle.grace);
            let made = CLOCK_SKEW.before(image.created_at);
            let since = image.let_go_at().filter(|since| *since >= made);
            image.stage == Stage::Active
                || !matches!((since, grace), (Some(since), Some(grace)) if grace.after(since) <= now)
        });
        let message = "these images were not deprecated for the whole grace of their policy";
        self.refuse(Guard::DeprecateFirst, too_soon.map(|(change, _)| change), message)
    }

    /// The newest READY points of a series, as many as its policy always keeps.
    fn floor(&self, now: Timestamp) -> Option<Refusal> {
        let deleted: BTreeSet<&str> =
            self.ready_deletes().map(|(_, image)| image.id.as_str()).collect();
        let mut below = Vec::new();
        for (change, image) in self.ready_deletes() {
            let floor = self.always_kept(&change.key);
            let name = series_name(self.policies, &change.key, image);
            let points = self.series.get(&name).into_iter().flatten();
            let left: Vec<&(Key, &Image)> = points
                .filter(|(key, other)| {
                    !deleted.contains(other.id.as_str()) && !self.is_held(key, other, now)
                })
                .collect();
            let slot = change.key.slot;
            // Slots, each once, whatever number of images it has.
            let newer: BTreeSet<Slot> =
                left.iter().map(|(key, _)| key.slot).filter(|other| *other > slot).collect();
            let stands_in = |(key, other): &&(Key, &Image)| {
                key.slot == slot && other.content().has_all_of(&image.content())
            };
            if newer.len() < floor as usize && !left.iter().copied().any(|other| stands_in(&other))
            {
                below.push(change);
            }
        }
        let message = "these are among the newest READY restore points of their source, which are always kept; change `atLeast` if that is meant";
        self.refuse(Guard::Floor, below, message)
    }
}

/// The series that an image belongs to.
fn series_name(policies: &Policies, key: &Key, image: &Image) -> SeriesName {
    let policy = policies.keeper(&key.policy).map_or(&key.policy, |policy| &policy.name);
    let location = image.is_copy().then(|| image.location.clone());
    (policy.clone(), key.source.clone(), location)
}

/// Whether a plan may still be carried out.
pub fn stale(plan: &Plan, policies: &Policies, now: Timestamp) -> Option<String> {
    if plan.policies_digest != policies.digest {
        return Some("the policies have changed since the plan was made; plan again".to_owned());
    }
    let age = Elapsed::between(plan.now, now);
    (age > VALIDITY).then(|| {
        format!("the plan is {} old; plans are carried out within {VALIDITY}", age.rough())
    })
}
