//! An independent check: rules that every plan holds to, derived again from the inventory.
//!
//! In go a plan, the inventory it was made over, the policies and `now`; out come violations, each
//! with a rule from a closed list. It shares data types with the planner and nothing that judges:
//! retention, pauses, stalls, holds and slots are worked out here once more, in another way, and
//! `tests/it/tidy.rs` holds that. So a violation is a bug of stillframe, on one side or the other,
//! and nothing is taken away for it. What a plan leaves undone is no violation.

mod coming;
mod keep;
mod makes;
mod marks;
mod pace;
mod refuse;
mod rule;
mod seen;
mod takes;
mod times;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

pub use refuse::{refusals, takes_away};
pub use rule::CheckRule;

use super::action::Action;
use super::document::{Change, ImageRef, Plan};
use crate::elapsed::whole_second;
use crate::inventory::Inventory;
use crate::inventory::{EngineInventory, Image, ImageState, LABEL_LET_GO, Via};
use crate::name::parse_stamp;
use crate::policy::meant::OnSourceGone;
use crate::policy::{Policies, Policy};
use crate::retention::{Retention, Rule};
use coming::{AllComing, coming};
use pace::Paces;
use seen::{Point, Presence, Seen, Series};

/// A rule that a plan breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The rule.
    pub rule: CheckRule,
    /// On which engine.
    pub engine: String,
    /// The name of the image.
    pub image: String,
    /// What is wrong.
    pub message: String,
}

/// Checks a whole plan over the inventory that it was made over.
pub fn check(
    plan: &Plan,
    inventory: &Inventory,
    policies: &Policies,
    now: Timestamp,
) -> Vec<Violation> {
    let changes: Vec<&Change> = plan.changes.iter().collect();
    let mut found = whole(plan);
    found.extend(each_engine(plan, &changes, inventory, policies, now));
    found
}

/// Checks what is left of a plan once it has made what it makes: the changes at some positions,
/// over what is there now.
pub fn check_rest(
    plan: &Plan,
    positions: &BTreeSet<usize>,
    inventory: &Inventory,
    policies: &Policies,
    now: Timestamp,
) -> Vec<Violation> {
    let changes: Vec<&Change> = positions
        .iter()
        .filter_map(|position| plan.changes.get(*position))
        .filter(|change| change.action != Action::Create)
        .collect();
    each_engine(plan, &changes, inventory, policies, now)
}

fn each_engine(
    plan: &Plan,
    changes: &[&Change],
    inventory: &Inventory,
    policies: &Policies,
    now: Timestamp,
) -> Vec<Violation> {
    let now = whole_second(now);
    let mut by_engine: BTreeMap<&str, Vec<&Change>> = BTreeMap::new();
    for change in changes {
        by_engine.entry(&change.engine).or_default().push(change);
    }
    let mut found = Vec::new();
    for (name, changes) in by_engine {
        match inventory.engines.iter().find(|engine| engine.name == name) {
            Some(engine) => found.extend(one_engine(plan, &changes, engine, policies, now)),
            None => found.push(violation(CheckRule::Binding, changes[0], "nobody saw its engine")),
        }
    }
    found
}

fn one_engine(
    plan: &Plan,
    changes: &[&Change],
    engine: &EngineInventory,
    policies: &Policies,
    now: Timestamp,
) -> Vec<Violation> {
    let seen = Seen::new(engine, policies, changes, now);
    let mut check = EngineCheck {
        plan,
        seen: &seen,
        coming: coming(plan, &seen),
        kept: BTreeMap::new(),
        stalls: BTreeMap::new(),
        slots: BTreeMap::new(),
        paces: Paces::new(engine, changes, now),
        found: Vec::new(),
    };
    for change in changes {
        check.change(change);
    }
    check.left_behind(changes);
    check.found
}

fn violation(rule: CheckRule, change: &Change, message: impl Into<String>) -> Violation {
    Violation {
        rule,
        engine: change.engine.clone(),
        image: change.image.name.clone(),
        message: message.into(),
    }
}

/// Something that a change makes, by name, or changes, by id.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Touched<'p> {
    Made(&'p str),
    Changed(&'p str),
}

/// What a change makes, changes and clears away. An original is not changed by its copies.
fn touched(change: &Change) -> impl Iterator<Item = Touched<'_>> {
    let copy = change.copy.as_ref();
    let create = change.create.as_ref();
    let replaced = create.and_then(|create| create.replaces.as_ref());
    let replaced = replaced.or(copy.and_then(|copy| copy.replaces.as_ref()));
    let made = copy.map(|copy| &copy.name).or(create.map(|_| &change.image.name));
    let changed = change.image.id.as_deref().filter(|_| copy.is_none());
    let made = made.map(|name| Touched::Made(name)).into_iter();
    let ids = changed.into_iter().chain(replaced.and_then(|replaced| replaced.id.as_deref()));
    made.chain(ids.map(Touched::Changed))
}

/// Whether one of two changes is done once an image is READY, and the other only where it is not.
fn is_either(one: &Change, other: &Change) -> bool {
    let is_for = |unless: &Change, waits: &Change| {
        unless.unless.is_some() && unless.unless == waits.waits_for
    };
    is_for(one, other) || is_for(other, one)
}

/// What holds of a plan as a whole.
fn whole(plan: &Plan) -> Vec<Violation> {
    let mut found = Vec::new();
    let summary = &plan.summary;
    let counts = [
        (Action::Create, summary.create),
        (Action::Deprecate, summary.deprecate),
        (Action::Obsolete, summary.obsolete),
        (Action::Reactivate, summary.reactivate),
        (Action::Relabel, summary.relabel),
        (Action::Copy, summary.copy),
        (Action::Drill, summary.drill),
        (Action::Delete, summary.delete),
    ];
    let mut deleted: BTreeMap<_, _> = BTreeMap::new();
    let mut done: BTreeMap<_, Vec<&Change>> = BTreeMap::new();
    let (mut has_other, mut has_delete) = (false, false);
    for change in &plan.changes {
        let is_delete = change.action == Action::Delete;
        let is_create = change.action == Action::Create;
        if (is_create && has_other) || (has_delete && !is_delete) {
            let message = format!("{} in the wrong place", change.action.word());
            found.push(violation(CheckRule::Order, change, message));
        }
        has_other |= !is_create;
        has_delete |= is_delete;
        if is_delete {
            let series = (&change.engine, &change.key.policy, &change.key.source);
            let before = deleted.insert(series, change.key.slot);
            if before.is_some_and(|before| before > change.key.slot) {
                found.push(violation(CheckRule::Order, change, "an older one goes after a newer"));
            }
        }
        for one in touched(change) {
            let others = done.entry((&change.engine, one)).or_default();
            if !others.iter().all(|other| is_either(change, other)) {
                found.push(violation(CheckRule::Twice, change, "it is changed or made twice"));
            }
            others.push(change);
        }
        let takes = !matches!(change.action, Action::Reactivate | Action::Relabel);
        if change.unless.is_some() && (takes || change.waits_for.is_some()) {
            let message = "a capture that fails is no reason for it";
            found.push(violation(CheckRule::Reason, change, message));
        }
    }
    for (action, said) in counts {
        let count = plan.changes.iter().filter(|change| change.action == action).count();
        if count != said {
            let message = format!("it says {said} to {}, and there are {count}", action.word());
            // What a person approved is not what stands there: that concerns every engine.
            let engines: BTreeSet<&str> = plan.changes.iter().map(|one| &*one.engine).collect();
            found.extend(engines.into_iter().map(|engine| Violation {
                rule: CheckRule::Summary,
                engine: engine.to_owned(),
                image: String::new(),
                message: message.clone(),
            }));
        }
    }
    found
}

/// A series and a location in it, once a coming slot is READY or as things are.
type Place<'s> = (&'s str, &'s str, &'s str, bool);

/// The changes of one engine, and what was seen of what they touch.
struct EngineCheck<'s, 'a> {
    plan: &'s Plan,
    seen: &'s Seen<'a>,
    coming: AllComing<'s>,
    /// The ids that are kept, worked out once per series.
    kept: BTreeMap<Place<'s>, BTreeSet<&'s str>>,
    /// Whether a policy is stalled whose newest slot is this.
    stalls: BTreeMap<(&'s str, Option<Timestamp>), bool>,
    /// What is wrong with a slot of a policy, whatever the source.
    slots: BTreeMap<(&'s str, Timestamp), makes::SlotFacts>,
    /// How often sources are captured.
    paces: Paces<'s>,
    found: Vec<Violation>,
}

impl<'s> EngineCheck<'s, '_> {
    fn find(&mut self, rule: CheckRule, change: &Change, message: impl Into<String>) {
        self.found.push(violation(rule, change, message));
    }

    fn change(&mut self, change: &Change) {
        let Some(series) = self.seen.series_of(&change.key) else {
            return self.find(CheckRule::Keeper, change, "no policy looks after it");
        };
        if change.action == Action::Create {
            return self.create(change, series);
        }
        if !self.seen.engine.gaps.is_empty() {
            self.find(CheckRule::Gap, change, "its engine was not seen whole");
        }
        if self.seen.has_doubles {
            self.find(CheckRule::Gap, change, "its engine lists an image twice");
        }
        if change.image.id.is_none() && matches!(change.action, Action::Copy | Action::Drill) {
            return self.of_coming(change, series);
        }
        let Some(image) = self.bound(change, &change.image) else { return };
        let point = series.point(&image.id).filter(|point| point.key == change.key);
        let Some(point) = point else {
            return self.find(CheckRule::Ownership, change, "it does not carry the sealed key");
        };
        if !image.state.is_settled() {
            self.find(CheckRule::State, change, format!("it is {}", image.state.word()));
        }
        if point.is_step {
            self.of_step(change, point);
        }
        self.awaited(change, series, point);
        match change.action {
            Action::Delete => self.delete(change, series, point),
            Action::Deprecate | Action::Obsolete => self.lower(change, series, point),
            Action::Reactivate => self.reactivate(change, series, point),
            Action::Copy => self.copy(change, series, point),
            Action::Drill => self.drill(change, series, point),
            Action::Create | Action::Relabel => {}
        }
        self.marks(change, series, point);
    }

    /// A step is only deleted, once it has failed and nothing is made of it; and it is one by its name.
    fn of_step(&mut self, change: &Change, point: &Point<'_>) {
        let is_left_over = change.action == Action::Delete
            && point.image.state == ImageState::Failed
            && point.image.step_to().is_some();
        if !is_left_over {
            self.find(CheckRule::State, change, "it is no step that is left over");
        }
        let makes = |other: &Change| {
            let create = other.create.as_ref().filter(|create| create.via == Via::Snapshot);
            create.is_some() && other.key == change.key
        };
        if self.plan.changes.iter().any(|other| other.engine == change.engine && makes(other)) {
            self.find(CheckRule::State, change, "what the plan makes is made of it");
        }
    }

    /// The image that a change is bound to, where it is there and as it was.
    fn bound(&mut self, change: &Change, image: &ImageRef) -> Option<&'s Image> {
        let found = image.id.as_deref().and_then(|id| self.seen.by_id.get(id).copied());
        let Some(found) = found else {
            self.find(CheckRule::Binding, change, "no image has its id");
            return None;
        };
        let is_as_it_was = found.name == image.name
            && found.location == image.location
            && Some(found.created_at) == image.created_at
            && Some(&found.fingerprint) == image.fingerprint.as_ref();
        if !is_as_it_was {
            self.find(CheckRule::Binding, change, "the image is another, or has changed");
        }
        Some(found)
    }

    /// Whether a rule or a hold keeps a point: as things are, or once the slot that the plan makes
    /// is READY.
    fn is_kept(&mut self, series: &'s Series<'_>, point: &Point<'_>, with_coming: bool) -> bool {
        if point.is_held || !point.is_ready {
            return true;
        }
        let policy = series.policy;
        let coming = self.coming_in(series, point.copy_in).filter(|_| with_coming);
        let location = series.location_of(point);
        let place = (policy.name.as_str(), series.source.as_str(), location, coming.is_some());
        let now = self.seen.now;
        let kept = self.kept.entry(place).or_insert_with(|| {
            let of_place = |other: &&Point<'_>| {
                other.copy_in.unwrap_or_default() == location && other.is_ready && !other.is_held
            };
            let mut points: Vec<keep::Point<'s>> = series
                .points
                .iter()
                .filter(of_place)
                .map(|other| (other.slot, other.image.id.as_str(), Some(other.image)))
                .collect();
            let coming = coming.filter(|(slot, _)| !series.is_slot_held(*slot, None, now));
            points.extend(coming.map(|(slot, _)| (slot, "", None)));
            let zone = policy.schedule.zone.time_zone();
            match retention(series, now) {
                Some(retention) => keep::kept(&points, &retention, zone, now),
                None => keep::kept(&points, &policy.retention, zone, now),
            }
        });
        kept.contains(point.image.id.as_str())
    }

    fn is_stalled(&mut self, series: &'s Series<'_>) -> bool {
        let (policy, newest, now) = (series.policy, series.newest(), self.seen.now);
        *self
            .stalls
            .entry((policy.name.as_str(), newest))
            .or_insert_with(|| times::is_stalled(policy, newest, now))
    }
}

/// What is kept of a source that is gone for good and expires: the newest.
fn retention(series: &Series<'_>, now: Timestamp) -> Option<Retention> {
    has_expired(series, now)
        .then(|| Retention { rules: BTreeMap::from([(Rule::Last, 1)]), at_least: 1 })
}

fn has_expired(series: &Series<'_>, now: Timestamp) -> bool {
    series.policy.lifecycle.on_source_gone == OnSourceGone::Expire
        && matches!(series.presence, Presence::Unselected | Presence::Missing)
        && series.missing_since.is_some()
        && has_waited(series, now)
}

/// Whether the grace of a source that is gone has passed since it was marked. Where there is none,
/// nothing waits for a mark.
fn has_waited(series: &Series<'_>, now: Timestamp) -> bool {
    let grace = series.policy.lifecycle.source_gone_grace.as_seconds();
    times::moved(series.missing_since.unwrap_or(now), grace) <= now
}

/// How many of the newest restore points of a series always stay.
fn floor(series: &Series<'_>, now: Timestamp) -> usize {
    if has_expired(series, now) { 1 } else { series.policy.retention.at_least.max(1) as usize }
}

/// Whether a policy has a rule that lets go of anything.
fn has_rules(policy: &Policy) -> bool {
    policy.retention.rules.values().any(|count| *count > 0)
}

/// Since when no rule keeps an image, as its label says.
fn let_go_since(image: &Image) -> Option<Timestamp> {
    image.labels.get(LABEL_LET_GO).and_then(|text| parse_stamp(text))
}
