//! Adoption: images that are there already and are nobody's are taken into a policy.
//!
//! In go the policies, what an engine was seen to hold, which images are meant, and the instant; out
//! comes a plan that sets ownership labels and does nothing else, and why each of the other images
//! that are meant is left alone. What is not certain is not done: an image whose source or time can
//! be read in two ways stays as it is. Nothing is adopted that would have anything deleted by the
//! next plan, which is held against the planner itself.

mod disks;
mod guard;
mod pattern;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;

pub use guard::guard;
pub use pattern::{DEFAULT, Pattern, PatternError, Reading, Time};

use crate::elapsed::whole_second;
use crate::inventory::{EngineInventory, Image, ImageState, Instance, Inventory, LABEL_HOLD};
use crate::name::{Key, LABEL_PREFIX, Ownership, PolicyName, Slot};
use crate::plan::going::{Goes, going, held_back};
use crate::plan::{Action, Change, ImageRef, Plan, Reason, ReasonCode, Update, of_changes, plan};
use crate::policy::select::Decision;
use crate::policy::{Policies, Policy};
use crate::retention::CLOCK_SKEW;
use crate::schedule::Zone;

/// A name is given when the image is made: a time in it that is further away from that is in
/// another zone, or is another time.
const NAMED_WITHIN: SignedDuration = SignedDuration::from_mins(59);
/// Labels by which other tools say that an image is theirs.
const OTHER_TOOLS: [&str; 5] =
    ["managed-by", "managed_by", "managedby", "goog-terraform-provisioned", "goog-managed-by"];

/// So many of the images are named that would lose their place.
const NAMED_MAX: usize = 3;

/// Which images are meant, and how they are read.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The policy that gets them.
    pub policy: PolicyName,
    /// How they are named; without it, only labels count.
    pub pattern: Option<Pattern>,
    /// Labels that they all have.
    pub labels: Vec<(String, String)>,
    /// Where the clock is that the times in names were read from.
    pub zone: Zone,
}

/// Why nothing at all can be adopted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdoptError {
    /// No such policy.
    #[error("there is no policy `{0}`; an image goes to a policy that is in the files")]
    Policy(PolicyName),
    /// The engine of the policy was not looked at.
    #[error("the engine {0} of the policy is not in the inventory")]
    Engine(String),
}

/// An image that is meant and left alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct LeftAlone {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Why.
    pub reason: String,
}

/// What comes of adopting.
#[derive(Debug, Clone)]
pub struct Adoption {
    /// What is to be done: labels are set, and nothing else.
    pub plan: Plan,
    /// Images that are meant and left alone, in the order of their names.
    pub left_alone: Vec<LeftAlone>,
    /// How many images that are meant belong to the policy already.
    pub already: usize,
    /// How many of the adopted images the next plan lets go of.
    pub let_go: usize,
}

/// An image that may be adopted.
struct Candidate<'a> {
    image: &'a Image,
    key: Key,
    source_name: String,
    /// Where its slot is from, for people.
    from: String,
}

/// Works out which images are adopted.
pub fn adopt(
    policies: &Policies,
    inventory: &Inventory,
    wanted: &Wanted,
    now: Timestamp,
) -> Result<Adoption, AdoptError> {
    let now = whole_second(now);
    let policy =
        policies.get(&wanted.policy).ok_or_else(|| AdoptError::Policy(wanted.policy.clone()))?;
    let engine = inventory.engines.iter().find(|engine| engine.name == policy.engine);
    let engine = engine.ok_or_else(|| AdoptError::Engine(policy.engine.clone()))?;
    let mut before = plan(policies, inventory, now);
    before.engines.retain(|one| one.name == engine.name);
    let is_whole = before.engines.iter().all(|one| one.complete);
    let reader = Reader { policies, policy, engine, wanted, now };
    let mut found = Found::default();
    // Over half a listing nobody knows what is there twice.
    if is_whole {
        for image in engine.images.iter().filter(|image| reader.is_meant(image)) {
            reader.judge(image, &mut found);
        }
        reader.leave_doubles(&mut found);
    }
    let let_go = leave_what_costs(policies, inventory, engine, &before, &mut found, now);
    let changes = found.candidates.iter().map(|one| change(&engine.name, one)).collect();
    found.left_alone.sort();
    Ok(Adoption {
        plan: of_changes(before, changes),
        left_alone: found.left_alone,
        already: found.already,
        let_go,
    })
}

#[derive(Default)]
struct Found<'a> {
    candidates: Vec<Candidate<'a>>,
    left_alone: Vec<LeftAlone>,
    already: usize,
}

impl Found<'_> {
    fn leave(&mut self, image: &Image, reason: impl Into<String>) {
        let (name, id) = (image.name.clone(), image.id.clone());
        self.left_alone.push(LeftAlone { name, id, reason: reason.into() });
    }
}

/// Reads images as one wants them read.
struct Reader<'a> {
    policies: &'a Policies,
    policy: &'a Policy,
    engine: &'a EngineInventory,
    wanted: &'a Wanted,
    now: Timestamp,
}

impl<'a> Reader<'a> {
    fn is_meant(&self, image: &Image) -> bool {
        let has = |(label, value): &(String, String)| image.labels.get(label) == Some(value);
        self.wanted.labels.iter().all(has)
            && self
                .wanted
                .pattern
                .as_ref()
                .is_none_or(|pattern| !pattern.read(&image.name).is_empty())
    }

    fn judge(&self, image: &'a Image, found: &mut Found<'a>) {
        if let Ownership::Ours(key) = image.ownership()
            && self
                .policies
                .keeper(&key.policy)
                .is_some_and(|keeper| keeper.name == self.policy.name)
        {
            found.already += 1;
            return;
        }
        match self.refusal(image).map_or_else(|| self.read(image), Err) {
            Ok(candidate) => found.candidates.push(candidate),
            Err(reason) => found.leave(image, reason),
        }
    }

    /// Why an image may not be touched, whatever its name says.
    fn refusal(&self, image: &Image) -> Option<String> {
        match image.ownership() {
            Ownership::Foreign => {}
            Ownership::Ours(key) => {
                return Some(format!("it belongs to the policy {}", key.policy));
            }
            Ownership::Broken(error) => {
                return Some(format!("it has labels of stillframe that are broken: {error}"));
            }
        }
        let own = image
            .labels
            .keys()
            .find(|label| label.starts_with(LABEL_PREFIX) && label.as_str() != LABEL_HOLD);
        if let Some(label) = own {
            return Some(format!(
                "it has the label {label} of stillframe, which an adopted image would be judged by"
            ));
        }
        let is_named = |label: &str| self.wanted.labels.iter().any(|(wanted, _)| wanted == label);
        let other = OTHER_TOOLS
            .into_iter()
            .find(|label| image.labels.contains_key(*label) && !is_named(label));
        if let Some(label) = other {
            let value = &image.labels[label];
            return Some(format!(
                "the label {label}={value} says that it is another tool's; if that tool has let go of it, add --label {label}={value}"
            ));
        }
        if image.state != ImageState::Ready {
            return Some(format!("it is {}", image.state.word()));
        }
        let policy = &self.policy.name;
        if image.kind != self.policy.capture.kind {
            return Some(format!(
                "it is a {}, and {policy} makes {}s",
                image.kind.word(),
                self.policy.capture.kind.word()
            ));
        }
        self.lack_of_room(image)
    }

    fn read(&self, image: &'a Image) -> Result<Candidate<'a>, String> {
        let readings = self.wanted.pattern.as_ref().map(|pattern| pattern.read(&image.name));
        let reading = match readings.as_deref() {
            None => None,
            Some([reading]) => Some(reading),
            Some(readings) => {
                let ways: Vec<&str> =
                    readings.iter().filter_map(|reading| reading.source.as_deref()).collect();
                return Err(format!(
                    "its name can be read in {} ways ({})",
                    readings.len(),
                    ways.join(", ")
                ));
            }
        };
        let instance = self.source(image, reading.and_then(|reading| reading.source.as_deref()))?;
        self.refuse_other_disks(image, instance)?;
        if !matches!(self.policy.selection.decide(instance), Decision::Selected(_)) {
            return Err(format!("{} does not select {}", self.policy.name, instance.name));
        }
        let (instant, from) =
            self.instant(image, reading.map_or(Time::None, |reading| reading.time))?;
        if instant > CLOCK_SKEW.after(self.now) {
            return Err(format!("it is dated in the future ({instant})"));
        }
        let key = Key {
            policy: self.policy.name.clone(),
            source: instance.id.clone(),
            slot: Slot::at(instant),
        };
        Ok(Candidate { image, key, source_name: instance.name.clone(), from })
    }

    /// The one instance that an image is of.
    fn source(&self, image: &Image, named: Option<&str>) -> Result<&'a Instance, String> {
        let recorded = image.source.as_ref();
        if let (Some(named), Some(recorded)) = (named, recorded)
            && recorded.name != named
        {
            return Err(format!(
                "its name says that it is of {named}, and it was made of {}",
                recorded.name
            ));
        }
        if let Some(recorded) = recorded {
            let mut there = self.engine.instances.iter();
            return there.find(|instance| instance.id == recorded.id).ok_or_else(|| {
                format!(
                    "the instance {} ({}) that it was made of is not there any more",
                    recorded.name, recorded.id
                )
            });
        }
        let Some(named) = named else {
            return Err("nothing says which instance it is of: the engine does not know, and the pattern has no {source}".to_owned());
        };
        let there: Vec<&Instance> =
            self.engine.instances.iter().filter(|instance| instance.name == named).collect();
        match there[..] {
            [instance] => Ok(instance),
            [] => Err(format!("there is no instance named {named}")),
            _ => Err(format!("{} instances are named {named}", there.len())),
        }
    }

    /// The instant that an image stands for, and where that is from.
    fn instant(&self, image: &Image, time: Time) -> Result<(Timestamp, String), String> {
        let made = image.created_at;
        let zone = self.wanted.zone.name();
        let (instant, from) = match time {
            Time::None => return Ok((made, "when it was made".to_owned())),
            Time::Impossible => return Err("its name holds no time that there is".to_owned()),
            Time::Instant(instant) => (instant, "from its name".to_owned()),
            Time::Civil(civil) => {
                // Of an hour that comes twice, the one in which it was made.
                let zone_of = self.wanted.zone.time_zone();
                let either = zone_of.to_ambiguous_zoned(civil);
                if is_gap(&either) {
                    return Err(format!(
                        "the time in its name ({civil}) was left out by the clocks in {zone}; is --time-zone right?"
                    ));
                }
                let ways = [either.clone().earlier(), either.later()];
                let instants =
                    ways.into_iter().filter_map(Result::ok).map(|zoned| zoned.timestamp());
                let instant = instants.min_by_key(|instant| distance(*instant, made));
                let instant = instant
                    .ok_or_else(|| format!("the time in its name ({civil}) is out of range"))?;
                (instant, format!("from its name, in {zone}"))
            }
        };
        if distance(instant, made) > NAMED_WITHIN {
            return Err(format!(
                "its name says {instant}, and it was made at {made}; is --time-zone right? Without a time in --name-pattern, when it was made counts"
            ));
        }
        Ok((instant, from))
    }

    /// Leaves alone what would stand for a slot beside another image.
    fn leave_doubles(&self, found: &mut Found<'a>) {
        let mut names: BTreeMap<Key, Vec<String>> = BTreeMap::new();
        for image in &self.engine.images {
            if let Ownership::Ours(key) = image.ownership()
                && let Some(keeper) = self.policies.keeper(&key.policy)
            {
                let key = Key { policy: keeper.name.clone(), ..key };
                names.entry(key).or_default().push(image.name.clone());
            }
        }
        for one in &found.candidates {
            names.entry(one.key.clone()).or_default().push(one.image.name.clone());
        }
        let (alone, doubles): (Vec<_>, Vec<_>) = std::mem::take(&mut found.candidates)
            .into_iter()
            .partition(|one| names[&one.key].len() == 1);
        found.candidates = alone;
        for one in doubles {
            let mut others = names[&one.key].clone();
            if let Some(own) = others.iter().position(|name| *name == one.image.name) {
                others.remove(own);
            }
            let reason = format!(
                "it would stand for the slot {} of {} beside {}",
                one.key.slot,
                one.source_name,
                others.join(", ")
            );
            found.leave(one.image, reason);
        }
    }
}

/// Whether a time was left out, and did not come twice.
fn is_gap(time: &jiff::tz::AmbiguousZoned) -> bool {
    matches!(time.offset(), jiff::tz::AmbiguousOffset::Gap { .. })
}

fn distance(one: Timestamp, other: Timestamp) -> SignedDuration {
    one.duration_since(other).abs()
}

/// Leaves alone the images of each series of which the next plan would take away or let go of something
/// for them that it keeps now; says how many of the others it would let go of. Series never influence each
/// other.
fn leave_what_costs(
    policies: &Policies,
    inventory: &Inventory,
    engine: &EngineInventory,
    before: &Plan,
    found: &mut Found<'_>,
    now: Timestamp,
) -> usize {
    let (went, was_held) = (going(before, engine), held_back(before, engine));
    let deleted_anyway = deletes(before);
    while !found.candidates.is_empty() {
        let after = plan(policies, &adopted(inventory, found), now);
        let ids: BTreeSet<&str> =
            found.candidates.iter().map(|one| one.image.id.as_str()).collect();
        let (goes, held) = (going(&after, engine), held_back(&after, engine));
        // What is adopted may be let go, by its retention; nothing is deleted at once.
        let deleted = deletes(&after);
        let is_deleted = |id: &str| deleted.contains(id) && !deleted_anyway.contains(id);
        let is_cost = |id: &str| is_deleted(id) || (!went.contains_key(id) && !ids.contains(id));
        let new = goes.iter().filter(|(id, _)| is_cost(id));
        let new_held = held.iter().filter(|(id, _)| is_cost(id) && !was_held.contains_key(*id));
        // A failed attempt is nothing to lose, but the first plan deletes nothing at all for this.
        let cleared: Vec<Goes<'_>> = after
            .changes
            .iter()
            .filter(|change| change.action == Action::Delete)
            .filter(|change| {
                let id = change.image.id.as_deref().unwrap_or_default();
                !goes.contains_key(id) && is_deleted(id)
            })
            .map(Goes::of)
            .collect();
        let costs: Vec<&Goes<'_>> =
            new.chain(new_held).map(|(_, goes)| goes).chain(&cleared).collect();
        if costs.is_empty() {
            let lets_go = |change: &&Change| {
                change.action == Action::Deprecate
                    && change.image.id.as_deref().is_some_and(|id| ids.contains(id))
            };
            return after.changes.iter().filter(lets_go).count();
        }
        leave_costly(found, &costs);
    }
    0
}

/// The ids of what a plan deletes.
fn deletes(plan: &Plan) -> BTreeSet<&str> {
    let deletes = plan.changes.iter().filter(|change| change.action == Action::Delete);
    deletes.filter_map(|change| change.image.id.as_deref()).collect()
}

/// Leaves alone what would cost these their place: of their sources what is as new as they are, since
/// nothing that is older takes the place of what is newer.
fn leave_costly(found: &mut Found<'_>, costs: &[&Goes<'_>]) {
    let costs_any = |one: &Candidate<'_>, is_all: bool| {
        let mut of_source = costs.iter().filter(|goes| goes.key.source == one.key.source);
        of_source.any(|goes| is_all || goes.key.slot <= one.key.slot)
    };
    // Where that is not it, it is one of the others of that source; else nobody knows which.
    let all = std::mem::take(&mut found.candidates);
    let is_known = |is_all: bool| all.iter().any(|one| costs_any(one, is_all));
    let (some, any) = (is_known(false), is_known(true));
    let (left, kept): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|one| !any || costs_any(one, !some));
    found.candidates = kept;
    for one in left {
        let of_source: Vec<&&Goes<'_>> =
            costs.iter().filter(|goes| goes.key.source == one.key.source).collect();
        let named = if of_source.is_empty() { costs.iter().collect() } else { of_source };
        let told: Vec<&str> = named.iter().take(NAMED_MAX).map(|goes| goes.name).collect();
        let more = match named.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let why = named.first().map(|goes| goes.why.as_str()).unwrap_or_default();
        let reason = format!(
            "with it, the next plan would let go of {}{more}, which it keeps now ({why}); widen the retention, hold what is to stay, or let the policy let go of it first",
            told.join(", ")
        );
        found.leave(one.image, reason);
    }
}

/// The inventory as it is once these images are adopted.
fn adopted(inventory: &Inventory, found: &Found<'_>) -> Inventory {
    let labels: BTreeMap<&str, &Key> =
        found.candidates.iter().map(|one| (one.image.id.as_str(), &one.key)).collect();
    let mut after = inventory.clone();
    for image in after.engines.iter_mut().flat_map(|engine| &mut engine.images) {
        if let Some(key) = labels.get(image.id.as_str()) {
            image.labels.extend(key.labels());
        }
    }
    after
}

fn change(engine: &str, candidate: &Candidate<'_>) -> Change {
    let Candidate { image, key, source_name, from } = candidate;
    Change {
        action: Action::Relabel,
        engine: engine.to_owned(),
        key: key.clone(),
        source_name: source_name.clone(),
        image: ImageRef::of(image),
        reasons: vec![Reason::new(
            ReasonCode::Adopted,
            format!("taken into {} as {} ({from})", key.policy, key.slot),
        )],
        risk: None,
        newest_ready: None,
        waits_for: None,
        unless: None,
        create: None,
        update: Some(Update {
            stage_before: image.stage,
            stage_after: image.stage,
            set_labels: key.labels(),
            ..Update::default()
        }),
        copy: None,
        drill: None,
    }
}
