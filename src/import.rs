//! Import: a disk that lies elsewhere, in object storage, is made a restore point of a policy.
//!
//! In go the policies, what an engine was seen to hold, what is wanted and the instant; out comes a
//! plan that makes one image and does nothing else, and what becomes of that image. Nothing is imported
//! that the next plan would let go of, or for which it would let go of something else or leave out a
//! capture: that is held against the planner itself. Where the disk lies is known here without the
//! secret by which it is read.

mod cost;
mod guard;
mod source;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

pub use guard::guard;

use crate::elapsed::{Elapsed, whole_second};
use crate::inventory::{
    Consistency, EngineInventory, Image, ImageKind, ImageState, Inventory, LABEL_COPY,
    LABEL_IMPORTED, Stage, Via,
};
use crate::name::{Key, Ownership, PolicyName, Slot};
use crate::plan::{
    Action, Change, Create, ImageRef, Plan, Reason, ReasonCode, name_taken, of_changes, plan,
};
use crate::policy::meant::OnSourceGone;
use crate::policy::{Policies, Policy};
use crate::simulate::forecast::{Forecast, of_image};
use source::Source;

/// So long after it was planned an import may begin.
const BEGIN_WITHIN: Elapsed = Elapsed::days(1);
/// What stands for the id of the image while it is not made.
const COMING: &str = "(imported)";

/// Hexadecimal digits of the hash of a place.
const PLACE_LENGTH: usize = 16;

/// How files are called that hold a disk in another format, or packed.
const OTHER_FORMATS: [&str; 13] =
    ["iso", "vhd", "vhdx", "vdi", "ova", "ovf", "gz", "bz2", "xz", "zst", "zip", "7z", "tar"];

/// What an image says of the place that it was imported from, which is without what was signed: the
/// same disk under another signature is the same. A label has no room for a URL.
pub fn place_label(from: &str) -> String {
    let digest = Sha256::digest(format!("imported from\n{from}").as_bytes());
    let mut text = data_encoding::HEXLOWER.encode(&digest);
    text.truncate(PLACE_LENGTH);
    text
}

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The policy that gets it.
    pub policy: PolicyName,
    /// The name or the id of the instance that it is of.
    pub source: String,
    /// Whether that instance is said to be gone, or never to have been on this engine.
    pub is_gone: bool,
    /// The disk of the instance that it is of, where that is not plain.
    pub device: Option<String>,
    /// The instant that it stands for.
    pub at: Timestamp,
    /// Where it lies, for people: nothing secret.
    pub from: String,
}

/// Why nothing is imported: all that is in the way, as far as it can be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", listed(.0))]
pub struct ImportError(Vec<String>);

impl ImportError {
    /// Of what was found.
    pub fn of(found: Vec<String>) -> Self {
        Self(found)
    }
}

fn listed(found: &[String]) -> String {
    match found {
        [one] => one.clone(),
        all => {
            let lines: String = all.iter().map(|one| format!("\n  - {one}")).collect();
            format!("{} things are in the way:{lines}", all.len())
        }
    }
}

fn refused<T>(message: impl Into<String>) -> Result<T, ImportError> {
    Err(ImportError(vec![message.into()]))
}

/// Both, or what is in the way of either.
fn both<A, B>(
    one: Result<A, ImportError>,
    other: Result<B, ImportError>,
) -> Result<(A, B), ImportError> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (Err(ImportError(mut found)), Err(ImportError(more))) => {
            found.extend(more);
            Err(ImportError(found))
        }
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
    }
}

/// What is imported where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The identity of the restore point.
    pub key: Key,
    /// Whether its source was not seen.
    pub is_gone: bool,
    /// Whether the machine starts from the disk.
    pub is_boot: bool,
}

/// What comes of importing.
#[derive(Debug, Clone)]
pub struct Importing {
    /// What is to be done: one image is made, and nothing else.
    pub plan: Plan,
    /// What it is.
    pub placed: Placed,
    /// What becomes of it if nothing changes.
    pub forecast: Option<Forecast>,
    /// What people should know beside that.
    pub notes: Vec<String>,
}

/// All that is wrong with what is wanted, as far as the policies alone can say: nothing is asked for
/// that. `importers` are the kinds of engine that can import.
pub fn examine<'p>(
    policies: &'p Policies,
    wanted: &Wanted,
    importers: &[String],
    now: Timestamp,
) -> Result<&'p Policy, ImportError> {
    let mut found = Vec::new();
    let slot = Slot::at(wanted.at).instant();
    if slot > whole_second(now) {
        found.push(format!(
            "--at {slot} is in the future; it is the time at which the disk was as it is in the file"
        ));
    }
    let policy = policies.get(&wanted.policy);
    match policy {
        Some(policy) => found.extend(unfit(policies, policy, importers)),
        None => found.push(format!(
            "there is no policy `{}`; an image goes to a policy that is in the files",
            wanted.policy
        )),
    }
    policy.filter(|_| found.is_empty()).ok_or(ImportError(found))
}

/// Why a policy cannot have what is imported.
fn unfit(policies: &Policies, policy: &Policy, importers: &[String]) -> Vec<String> {
    let (name, kind) = (&policy.name, policy.capture.kind);
    let Some(engine) = policies.config.engines.get(&policy.engine) else {
        return vec![format!("there is no engine {}, which {name} names", policy.engine)];
    };
    let mut found = Vec::new();
    if engine.capabilities.imports.is_empty() {
        let can = if importers.is_empty() { "none".to_owned() } else { importers.join(", ") };
        found.push(format!(
            "the engine {} is of the kind {}, which imports nothing; kinds of engine that do: {can} (`stillframe explain engine`)",
            policy.engine, engine.kind
        ));
    } else if kind != ImageKind::DiskImage || !engine.capabilities.imports.contains_key(&kind) {
        found.push(format!(
            "{name} makes {}s, and what is imported is one disk: import into a policy with `capture: {{kind: disk-image}}`",
            kind.word()
        ));
    }
    if let Some(key) = &policy.kms_key {
        found.push(format!(
            "{name} asks for the key {key}, and what is imported has no key: an image has the key of its disk, and this one has none. Make a disk of the image under that key beside stillframe, or import into a policy without `encryption.kmsKey`"
        ));
    }
    found
}

/// Works out what is imported, and what becomes of it.
pub fn import(
    policies: &Policies,
    inventory: &Inventory,
    wanted: &Wanted,
    importers: &[String],
    now: Timestamp,
) -> Result<Importing, ImportError> {
    let now = whole_second(now);
    let policy = examine(policies, wanted, importers, now)?;
    let engine = inventory.engines.iter().find(|engine| engine.name == policy.engine);
    let Some(engine) = engine else {
        return refused(format!(
            "the engine {} of the policy is not in the inventory",
            policy.engine
        ));
    };
    let mut before = plan(policies, inventory, now);
    before.engines.retain(|one| one.name == engine.name);
    // Over half a listing nobody knows what stands for the slot, and what would go for it.
    if let Some(gap) = before.engines.iter().flat_map(|engine| &engine.gaps).next() {
        return refused(format!(
            "{} was not seen whole ({}: {}), so nobody knows what the image would stand beside",
            engine.name, gap.place, gap.message
        ));
    }
    let desk = Desk { policies, policy, engine, wanted, now };
    let source = desk.source()?;
    let mut notes = Vec::from_iter(desk.other_format());
    let (change, placed) = desk.change(&source, &mut notes)?;
    if source.instance.is_none() {
        notes.push(gone_note(policy));
    }
    let after = desk.with(inventory, &change);
    desk.refuse_costs(&before, &plan(policies, &after, now), &placed.key)?;
    if source.instance.is_some() {
        desk.refuse_open_slot(&placed.key)?;
    }
    let forecast = of_image(policies, &after, &engine.name, COMING, now);
    let plan = of_changes(before, vec![change]);
    Ok(Importing { plan, placed, forecast, notes })
}

/// What everything is decided over.
struct Desk<'a> {
    policies: &'a Policies,
    policy: &'a Policy,
    engine: &'a EngineInventory,
    wanted: &'a Wanted,
    now: Timestamp,
}

impl<'a> Desk<'a> {
    /// What its name says of a disk that the service may not be able to read. Only the service looks.
    fn other_format(&self) -> Option<String> {
        let file = self.wanted.from.rsplit('/').next().unwrap_or_default();
        let (_, ending) = file.rsplit_once('.')?;
        let engine = self.policies.config.engines.get(&self.policy.engine)?;
        let formats = engine.capabilities.imports.get(&self.policy.capture.kind)?;
        let formats: Vec<&str> = formats.iter().map(|format| format.word()).collect();
        OTHER_FORMATS.contains(&ending.to_ascii_lowercase().as_str()).then(|| {
            format!(
                "{file} does not look like a disk in a format that is imported ({}); what the service cannot read becomes no image",
                formats.join(", ")
            )
        })
    }

    /// The one change.
    fn change(
        &self,
        source: &Source<'a>,
        notes: &mut Vec<String>,
    ) -> Result<(Change, Placed), ImportError> {
        let (policy, capabilities) = (self.policy, &self.engine.capabilities);
        let slot = Slot::at(self.wanted.at);
        let key = Key { policy: policy.name.clone(), source: source.id.clone(), slot };
        let name = key.image_name(&policy.naming.prefix(&key, &policy.schedule.zone));
        let (replaces, disk) = both(self.replaced(&key, &name, notes), self.disk(source))?;
        let mut labels = policy.labels.clone();
        labels.extend(key.labels());
        labels.insert(LABEL_IMPORTED.to_owned(), place_label(&self.wanted.from));
        let stand_in = source.described();
        let location = if policy.location.is_empty() {
            capabilities.default_location(&stand_in.zone).to_owned()
        } else {
            policy.location.clone()
        };
        let create = Create {
            kind: policy.capture.kind,
            via: Via::Disk,
            consistency: Consistency::Crash,
            tier: policy.tier,
            kms_key: None,
            disks: vec![disk.name],
            disk_by_disk: false,
            one_instant: Vec::new(),
            companion: None,
            excluded_disks: disk.others,
            disk_bytes: 0,
            labels,
            description: policy.naming.description(
                policy,
                &stand_in,
                slot,
                capabilities.description_length_max,
            ),
            deadline: BEGIN_WITHIN.after(self.now),
            replaces: replaces.map(ImageRef::of),
            problems: Vec::new(),
            family: self.family(slot, notes),
            sharing: policy.sharing.clone(),
        };
        let detail = format!("imported from {} as {slot}", self.wanted.from);
        let change = Change {
            action: Action::Create,
            engine: self.engine.name.clone(),
            key: key.clone(),
            source_name: source.name.clone(),
            image: ImageRef {
                id: None,
                name,
                location,
                created_at: None,
                fingerprint: None,
                stored_bytes: None,
            },
            reasons: vec![Reason::new(ReasonCode::Imported, detail)],
            risk: None,
            newest_ready: None,
            waits_for: None,
            unless: None,
            create: Some(create),
            update: None,
            copy: None,
            drill: None,
        };
        let placed = Placed { key, is_gone: source.instance.is_none(), is_boot: disk.is_boot };
        Ok((change, placed))
    }

    /// The failed attempt whose name the image takes. Anything else that stands for the slot, or has the
    /// name, is in the way; what is being made under both of the same disk is taken up.
    fn replaced(
        &self,
        key: &Key,
        name: &str,
        notes: &mut Vec<String>,
    ) -> Result<Option<&'a Image>, ImportError> {
        let is_it = |image: &Image, known: &Key| known.policy == key.policy && image.name == name;
        let mut failed = None;
        for image in &self.engine.images {
            let Ownership::Ours(known) = image.ownership() else { continue };
            let keeper = self.policies.keeper(&known.policy);
            let is_of_slot = known.source == key.source
                && known.slot == key.slot
                && keeper.is_some_and(|keeper| keeper.name == key.policy);
            if !is_of_slot || image.is_copy() || image.is_step() {
                continue;
            }
            let is_free = !image.is_held(self.now) && image.in_use_by.is_empty();
            match image.state {
                ImageState::Creating if is_it(image, &known) && self.is_of_place(image) => notes.push(format!(
                    "a run before has begun {name}, or another one is at it: it is taken up, and nothing is asked for again"
                )),
                ImageState::Creating if is_it(image, &known) => {
                    let of = match image.labels.get(LABEL_IMPORTED) {
                        Some(_) => "another file",
                        None => "a disk that is captured, not of a file",
                    };
                    return refused(format!(
                        "{name} is being made for {} of {} already, of {of}: {} is not imported in its place. Wait until it is there, and delete it if it is not wanted; or import as another time (--at)",
                        key.slot, key.source, self.wanted.from
                    ));
                }
                ImageState::Failed if is_it(image, &known) && is_free => failed = Some(image),
                state => {
                    let of = if self.is_of_place(image) { ", of the same file" } else { "" };
                    return refused(format!(
                        "{} ({}) stands for {} of {} already{of}",
                        image.name,
                        state.word(),
                        key.slot,
                        key.source
                    ));
                }
            }
        }
        let taken = self.engine.images.iter().find(|image| {
            let is_ours = matches!(image.ownership(), Ownership::Ours(known) if known == *key);
            image.name == name && !is_ours
        });
        match taken {
            Some(_) => refused(name_taken(name, taken, &self.policy.name)),
            None => Ok(failed),
        }
    }

    /// Whether an image is of the disk that is wanted, whatever its URL was signed with.
    fn is_of_place(&self, image: &Image) -> bool {
        image.labels.get(LABEL_IMPORTED) == Some(&place_label(&self.wanted.from))
    }

    /// The family, where it would not give people something older than what it has: to the service the
    /// image that was made last is the newest of its family.
    fn family(&self, slot: Slot, notes: &mut Vec<String>) -> Option<String> {
        let family = self.policy.capture.family.as_ref()?;
        let newer = self.engine.images.iter().find(|image| {
            let stands_for = match image.ownership() {
                Ownership::Ours(key) => key.slot.instant(),
                _ => image.created_at,
            };
            image.family.as_ref() == Some(family)
                && image.state == ImageState::Ready
                && stands_for > slot.instant()
        });
        let Some(newer) = newer else { return Some(family.clone()) };
        notes.push(format!(
            "it gets no family: made now, it would be the newest of {family} to whoever asks for that, though {} is of a later time",
            newer.name
        ));
        None
    }

    /// The inventory as it is once the image is there, and its copies are where the policy wants some.
    fn with(&self, inventory: &Inventory, change: &Change) -> Inventory {
        let mut after = inventory.clone();
        let Some(create) = &change.create else { return after };
        let image = Image {
            id: COMING.to_owned(),
            name: change.image.name.clone(),
            kind: create.kind,
            state: ImageState::Ready,
            stage: Stage::Active,
            created_at: self.now,
            location: change.image.location.clone(),
            kms_key: None,
            family: create.family.clone(),
            sharing: create.sharing.clone(),
            labels: create.labels.clone(),
            source: None,
            stored_bytes: None,
            disk_bytes: None,
            fingerprint: String::new(),
            disks: None,
            project: String::new(),
            in_use_by: Vec::new(),
            message: None,
        };
        let engines = after.engines.iter_mut().filter(|engine| engine.name == self.engine.name);
        for engine in engines {
            // What failed makes room for it, and what is being made becomes it.
            engine.images.retain(|other| {
                other.is_copy() || other.is_step() || other.ownership() != image.ownership()
            });
            for location in &self.policy.copies {
                let mut copy = image.clone();
                copy.id = format!("{COMING} {location}");
                copy.name = change.key.copy_name(&change.key.default_prefix(), location);
                copy.labels.insert(LABEL_COPY.to_owned(), "yes".to_owned());
                copy.location.clone_from(location);
                copy.family = None;
                let is_there = |other: &Image| {
                    other.is_copy()
                        && other.location == *location
                        && other.ownership() == copy.ownership()
                };
                if !engine.images.iter().any(is_there) {
                    engine.images.push(copy);
                }
            }
            engine.images.push(image.clone());
            engine.put_in_order();
        }
        after
    }
}

/// What becomes of the restore points of a source that is not there.
fn gone_note(policy: &Policy) -> String {
    let lifecycle = &policy.lifecycle;
    let grace = lifecycle.source_gone_grace;
    let then = match lifecycle.on_source_gone {
        OnSourceGone::Keep => return "its source is not there, and its policy keeps the restore points of such a source (`onSourceGone: keep`); no new one ever takes its place".to_owned(),
        OnSourceGone::Expire => "all but the newest of them expire (`onSourceGone: expire`)",
        OnSourceGone::Rules => "the rules go on, and `atLeast` is the floor",
    };
    format!(
        "its source is not there: the next plan marks its newest restore point with that, nothing of it changes for {grace}, and then {then}"
    )
}
