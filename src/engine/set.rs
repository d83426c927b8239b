//! Restore points of several members: one image per disk that the inventory shows as one.
//!
//! For engines whose snapshots hold one disk. In go a restore point's name, labels and disks; out
//! come the names and labels of its members. The other way round, images as an engine lists them
//! go in, and one [`Image`] per set comes out. Pure: it asks nothing and knows no engine.
//!
//! The view of a set is the careful one wherever its members disagree: nothing is READY, let go or
//! marked that is not so for all of them, and nothing is free to go that one of them holds.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::elapsed::Elapsed;
pub use crate::inventory::member_ids;
use crate::inventory::{
    Grant, ID_SEPARATOR, Image, ImageState, LABEL_COPY, LABEL_HOLD, LABEL_SET, place,
};
use crate::name::{Key, LABEL_PREFIX, NAME_LENGTH_MAX, Ownership, parse_stamp};

/// Label with the device that a member is of.
pub const LABEL_DISK: &str = "stillframe-disk";
/// Label with the name of the restore point that a member is part of.
pub const LABEL_POINT: &str = "stillframe-point";

/// Label of an image of the disk that its machine starts from, for services that forget that.
pub const LABEL_BOOT: &str = "stillframe-boot";

/// Label of a member that nobody but its own run can know to be whole: nobody else makes what is
/// missing beside it.
pub const LABEL_UNPROVEN: &str = "stillframe-unproven";

/// Characters of the hash at the end of a member's name: 40 bits.
const HASH_LENGTH: usize = 10;
/// Characters of time and hash at the end of a restore point's name.
const POINT_TAIL_LENGTH: usize = 24;

/// What may lie between the members of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// So long after its youngest member a set that is not whole counts as being made.
    pub unfinished: Elapsed,
    /// So far apart the members of a restore point may have been made. An engine that makes them one
    /// after the other says how long that takes.
    pub apart: Elapsed,
    /// So long after its oldest member an engine that is asked again makes what is missing of a set.
    pub completed: Option<Elapsed>,
}

/// Members that are asked for at once are made within this time.
pub const APART: Elapsed = Elapsed::minutes(10);

impl From<Elapsed> for Patience {
    fn from(unfinished: Elapsed) -> Self {
        Self { unfinished, apart: APART, completed: None }
    }
}

/// One member to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The device name of its disk.
    pub disk: String,
    /// Its name.
    pub name: String,
    /// Its labels: those of the restore point, and those of a member.
    pub labels: BTreeMap<String, String>,
}

/// What a restore point over these disks is made of: one member per disk, in the order of the
/// disks. A single one has the name and the labels of the restore point.
pub fn parts(point: &str, labels: &BTreeMap<String, String>, disks: &[String]) -> Vec<Part> {
    let is_set = disks.len() > 1;
    let part = |disk: &String| {
        let mut labels = labels.clone();
        if is_set {
            labels.insert(LABEL_SET.to_owned(), disks.len().to_string());
            labels.insert(LABEL_DISK.to_owned(), disk_label(disk));
            labels.insert(LABEL_POINT.to_owned(), point.to_owned());
        }
        let name = if is_set { member_name(point, disk) } else { point.to_owned() };
        Part { disk: disk.clone(), name, labels }
    };
    disks.iter().map(part).collect()
}

/// The name of a member: that of the restore point, cut in front of its time where it is long, and
/// a hash of the device. An RFC 1035 label where the name of the restore point is one.
fn member_name(point: &str, disk: &str) -> String {
    let hash = hash(&[point, disk]);
    let room = NAME_LENGTH_MAX - HASH_LENGTH - 1;
    if point.len() <= room {
        return format!("{point}-{hash}");
    }
    let tail_from = point.len().saturating_sub(POINT_TAIL_LENGTH);
    let (head, tail) = point.split_at_checked(tail_from).unwrap_or(("", point));
    let head = head.get(..room.saturating_sub(tail.len())).unwrap_or(head);
    format!("{}{tail}-{hash}", head.trim_end_matches('-'))
}

/// A device name as a label value: as it is where it is one, else bent into one, with a hash.
fn disk_label(disk: &str) -> String {
    if !disk.is_empty() && crate::name::is_label_value(disk) {
        return disk.to_owned();
    }
    let bent = disk.chars().map(|character| character.to_ascii_lowercase());
    let is_plain = |one: char| one.is_ascii_alphanumeric() || matches!(one, '-' | '_');
    let mut label: String = bent.map(|one| if is_plain(one) { one } else { '-' }).collect();
    label.truncate(NAME_LENGTH_MAX - HASH_LENGTH - 1);
    format!("{label}-{}", hash(&[disk]))
}

/// The beginning of a SHA-256 over texts, as small hexadecimal digits.
fn hash(texts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update(text.len().to_be_bytes());
        hash.update(text);
    }
    let mut text = data_encoding::HEXLOWER.encode(&hash.finalize());
    text.truncate(HASH_LENGTH);
    text
}

/// Whether an image is a member of a set, as its labels say.
pub fn is_member(image: &Image) -> bool {
    [LABEL_SET, LABEL_DISK, LABEL_POINT].iter().any(|label| image.labels.contains_key(*label))
}

/// What a member's labels say of its set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Belongs {
    /// Where its id is, without what is its own: the members of a set are side by side.
    place: String,
    point: String,
    key: Key,
    is_copy: bool,
}

fn belongs(image: &Image) -> Option<Belongs> {
    let Ownership::Ours(key) = image.ownership() else { return None };
    let count: usize = image.labels.get(LABEL_SET)?.parse().ok()?;
    let (point, disk) = (image.labels.get(LABEL_POINT)?, image.labels.get(LABEL_DISK)?);
    let is_read = count > 1 && !point.is_empty() && !disk.is_empty();
    is_read.then(|| Belongs {
        place: place(&image.id).to_owned(),
        point: point.clone(),
        key,
        is_copy: image.is_copy(),
    })
}

/// What an engine lists, with one image in place of the members of each set. A set that is not
/// whole is being made as long as its youngest member is younger than `patience` says, and partial
/// after that: it may be what an attempt has left, or a restore point that somebody has taken a part of.
/// Members that were made further apart than it says are no restore point either.
///
/// A member of ours whose labels do not say which set it belongs to is in a state that is not
/// known: it is a part of something, and never a restore point.
///
/// As long as an engine makes what is missing when it is asked again, the set is begun and not being made:
/// nobody knows whether anybody is at it, and who asks again is answered with what another one makes.
pub fn gathered(images: Vec<Image>, now: Timestamp, patience: impl Into<Patience>) -> Vec<Image> {
    let patience = patience.into();
    let mut sets: BTreeMap<Belongs, Vec<Image>> = BTreeMap::new();
    let mut gathered = Vec::with_capacity(images.len());
    for mut image in images {
        if let Some(set) = belongs(&image) {
            sets.entry(set).or_default().push(image);
            continue;
        }
        if is_member(&image) && matches!(image.ownership(), Ownership::Ours(_)) {
            image.state = ImageState::Unknown;
            image.message = Some("its labels do not say which set it is part of".to_owned());
        }
        gathered.push(image);
    }
    gathered.extend(sets.into_values().filter_map(|members| one(members, now, patience)));
    gathered
}

/// The same for services where a name may be there twice: of two members of one disk, the first that
/// became READY is the member. The other is in a state that is not known, so that nobody touches it, and
/// becomes a part of a set that is not whole once the set it stands beside is gone.
pub fn gathered_without_twins(
    images: Vec<Image>,
    now: Timestamp,
    patience: impl Into<Patience>,
) -> Vec<Image> {
    let mut best: BTreeMap<(Belongs, String), Image> = BTreeMap::new();
    let mut twins = Vec::new();
    let mut others = Vec::with_capacity(images.len());
    let rank =
        |image: &Image| (image.state != ImageState::Ready, image.created_at, image.id.clone());
    for image in images {
        let (Some(set), Some(disk)) = (belongs(&image), image.labels.get(LABEL_DISK).cloned())
        else {
            others.push(image);
            continue;
        };
        match best.entry((set, disk)) {
            Entry::Vacant(place) => drop(place.insert(image)),
            // What is listed twice is no twin.
            Entry::Occupied(known) if known.get().id == image.id => {}
            Entry::Occupied(mut known) => twins.push(if rank(&image) < rank(known.get()) {
                known.insert(image)
            } else {
                image
            }),
        }
    }
    others.extend(best.into_values());
    let mut gathered = gathered(others, now, patience);
    gathered.extend(twins.into_iter().map(|twin| Image {
        state: ImageState::Unknown,
        message: Some("a second image of a disk whose set is whole without it".to_owned()),
        ..twin
    }));
    gathered
}

/// The one image that members are shown as; they are of one set.
pub fn one(
    mut members: Vec<Image>,
    now: Timestamp,
    patience: impl Into<Patience>,
) -> Option<Image> {
    let patience = patience.into();
    // The members of a page that moved are listed twice.
    members.sort_by(|one, other| one.id.cmp(&other.id));
    members.dedup_by(|later, first| later.id == first.id);
    let first = members.first()?;
    let (state, message) = state(&members, now, patience);
    let name = first.labels.get(LABEL_POINT).unwrap_or(&first.name).clone();
    let sum = |bytes: fn(&Image) -> Option<u64>| members.iter().map(bytes).sum();
    let in_use: BTreeSet<&String> = members.iter().flat_map(|member| &member.in_use_by).collect();
    let locations: BTreeSet<&str> = members.iter().map(|member| &*member.location).collect();
    let agreed = |text: fn(&Image) -> Option<&String>| {
        let first = text(first);
        first.filter(|_| members.iter().all(|member| text(member) == first)).cloned()
    };
    Some(Image {
        id: id(&members),
        name,
        kind: first.kind,
        state,
        stage: members.iter().map(|member| member.stage).min().unwrap_or_default(),
        // The youngest: how long something has been failed or been made counts from the last
        // of it. What is kept counts from the slot and not from here.
        created_at: members.iter().map(|member| member.created_at).max()?,
        location: locations.into_iter().collect::<Vec<_>>().join(","),
        kms_key: agreed(|member| member.kms_key.as_ref()),
        family: None,
        sharing: sharing(&members),
        labels: labels(&members),
        source: members.iter().find_map(|member| member.source.clone()),
        stored_bytes: sum(|member| member.stored_bytes),
        disk_bytes: sum(|member| member.disk_bytes),
        fingerprint: fingerprint(&members),
        disks: disks(&members, state),
        project: first.project.clone(),
        in_use_by: in_use.into_iter().cloned().collect(),
        message,
    })
}

/// The disks that members hold, where the engine knows. Of what is left of a set those that are READY;
/// what an engine does not know of them their labels say.
fn disks(members: &[Image], state: ImageState) -> Option<Vec<String>> {
    let of = |member: &Image| {
        let label = || member.labels.get(LABEL_DISK).map(|disk| vec![disk.clone()]);
        member.disks.clone().or_else(|| if state.is_remainder() { label() } else { None })
    };
    let holds = |member: &&Image| !state.is_remainder() || member.state == ImageState::Ready;
    let disks: Option<Vec<Vec<String>>> = members.iter().filter(holds).map(of).collect();
    disks.map(|disks| disks.concat())
}

/// The place of the members, and what is their own of their ids, in order.
fn id(members: &[Image]) -> String {
    let place = members.first().map_or("", |first| place(&first.id));
    let own = members.iter().map(|member| member.id.strip_prefix(place).unwrap_or(&member.id));
    format!("{place}{}", own.collect::<Vec<_>>().join(ID_SEPARATOR))
}

/// Any change of any member changes it.
fn fingerprint(members: &[Image]) -> String {
    let mut hash = Sha256::new();
    for member in members {
        for text in [&member.id, &member.fingerprint] {
            hash.update(text.len().to_be_bytes());
            hash.update(text);
        }
    }
    data_encoding::HEXLOWER.encode(&hash.finalize()[..16])
}

/// How many members there should be. Where they do not fit together, nobody knows which of them are
/// the restore point; what is in the way.
fn wanted(members: &[Image]) -> Result<usize, String> {
    let counts: BTreeSet<&String> =
        members.iter().filter_map(|member| member.labels.get(LABEL_SET)).collect();
    let disks: BTreeSet<&String> =
        members.iter().filter_map(|member| member.labels.get(LABEL_DISK)).collect();
    let mut each = counts.iter().filter_map(|count| count.parse::<usize>().ok());
    let names = names(members);
    let (Some(wanted), None) = (each.next(), each.next()) else {
        return Err(format!("its members do not agree on how many they are: {names}"));
    };
    if disks.len() < members.len() {
        return Err(format!("two of its members are of one disk: {names}"));
    }
    if members.len() > wanted {
        return Err(format!("it has {} members instead of {wanted}: {names}", members.len()));
    }
    Ok(wanted)
}

fn names(members: &[Image]) -> String {
    let disks = members.iter().filter_map(|member| member.labels.get(LABEL_DISK));
    disks.map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// The state of a set, and what there is to say of it.
fn state(members: &[Image], now: Timestamp, patience: Patience) -> (ImageState, Option<String>) {
    let in_state = |state| members.iter().filter(move |member| member.state == state);
    let told = |state| {
        in_state(state).find_map(|member| {
            let disk = member.labels.get(LABEL_DISK).map_or(&*member.name, String::as_str);
            member.message.as_ref().map(|message| format!("{disk}: {message}"))
        })
    };
    for state in [ImageState::Unknown, ImageState::Deleting] {
        if in_state(state).next().is_some() {
            return (state, told(state));
        }
    }
    if let Some(message) = lacking(members).filter(|_| can_be_completed(members, now, patience)) {
        return (ImageState::Begun, Some(message));
    }
    if in_state(ImageState::Creating).next().is_some() {
        return (ImageState::Creating, told(ImageState::Creating));
    }
    let failed: Vec<&str> = in_state(ImageState::Failed)
        .map(|member| member.labels.get(LABEL_DISK).map_or(&*member.name, String::as_str))
        .collect();
    let failed = (!failed.is_empty()).then(|| {
        told(ImageState::Failed).unwrap_or_else(|| format!("failed for: {}", failed.join(", ")))
    });
    if failed.is_some() && in_state(ImageState::Ready).next().is_none() {
        return (ImageState::Failed, failed);
    }
    // One too many may be somebody's copy of a member, and the others a whole set: that is no failed
    // attempt, which would be cleared away.
    let wanted = match wanted(members) {
        Ok(wanted) => wanted,
        Err(message) => return (ImageState::Unknown, Some(message)),
    };
    // The disks that are there may be all that somebody has.
    if failed.is_some() {
        return (ImageState::Partial, failed);
    }
    if members.len() == wanted {
        return match too_far_apart(members, patience.apart) {
            Some(message) => (ImageState::Partial, Some(message)),
            None => (ImageState::Ready, None),
        };
    }
    let youngest = members.iter().map(|member| member.created_at).max();
    let is_young = youngest.is_some_and(|youngest| patience.unfinished.after(youngest) > now);
    (if is_young { ImageState::Creating } else { ImageState::Partial }, lacking(members))
}

/// What there is of a set that is not whole; `None` where nothing is missing, or nobody knows.
fn lacking(members: &[Image]) -> Option<String> {
    let wanted = wanted(members).ok()?;
    let missing = wanted.checked_sub(members.len()).filter(|missing| *missing > 0)?;
    Some(format!("{missing} of {wanted} disks missing; there are only: {}", names(members)))
}

/// Whether what is missing can still be made: nothing of it has failed or has something said of it, and
/// all of it is young enough.
fn can_be_completed(members: &[Image], now: Timestamp, patience: Patience) -> bool {
    let Some(completed) = patience.completed else { return false };
    let is_open = |member: &Image| {
        matches!(member.state, ImageState::Ready | ImageState::Creating)
            && member.message.is_none()
            && !member.is_copy()
            && !member.labels.contains_key(LABEL_UNPROVEN)
            && completed.after(member.created_at) > now
    };
    members.iter().all(is_open)
}

/// How a set is shown that is being made where an engine knows that what is missing of it can be made,
/// however long that takes.
pub fn begun(image: Image) -> Image {
    let count = image.labels.get(LABEL_SET).and_then(|count| count.parse::<usize>().ok());
    let there = member_ids(&image.id).len();
    let missing = count.and_then(|count| count.checked_sub(there)).filter(|missing| *missing > 0);
    match (image.state, missing) {
        (ImageState::Creating, Some(missing)) if image.message.is_none() => Image {
            state: ImageState::Begun,
            message: Some(format!("{missing} of {} disks missing", there + missing)),
            ..image
        },
        _ => image,
    }
}

/// What is said of members that were not made of one time.
fn too_far_apart(members: &[Image], most: Elapsed) -> Option<String> {
    let made = || members.iter().map(|member| member.created_at);
    let (first, last) = (made().min()?, made().max()?);
    (most.after(first) < last).then(|| {
        let apart = Elapsed::between(first, last).rough();
        format!(
            "its disks were captured {apart} apart, and {most} is the most: it is no restore point"
        )
    })
}

/// What all members agree on; what holds one of them, or makes it a copy, holds for all.
fn labels(members: &[Image]) -> BTreeMap<String, String> {
    let Some((first, others)) = members.split_first() else { return BTreeMap::new() };
    let mut labels = first.labels.clone();
    labels.retain(|label, value| others.iter().all(|other| other.labels.get(label) == Some(value)));
    labels.retain(|label, _| ![LABEL_DISK, LABEL_POINT].contains(&&**label));
    // Of two holds the one whose end nobody can read, and else the later end.
    let holds = members.iter().filter_map(|member| member.labels.get(LABEL_HOLD));
    let end = |hold: &str| hold.strip_prefix("until-").and_then(parse_stamp);
    let hold = holds.max_by_key(|hold| (end(hold).is_none(), end(hold), *hold));
    labels.extend(hold.map(|hold| (LABEL_HOLD.to_owned(), hold.clone())));
    let copy = members.iter().find_map(|member| member.labels.get(LABEL_COPY));
    labels.extend(copy.map(|copy| (LABEL_COPY.to_owned(), copy.clone())));
    labels
}

/// Who may use all members. Where they disagree on a role it is there once for each way, so that it
/// is never what a policy says.
fn sharing(members: &[Image]) -> Option<Vec<Grant>> {
    let all: Vec<&Vec<Grant>> =
        members.iter().map(|member| member.sharing.as_ref()).collect::<Option<_>>()?;
    let roles: BTreeSet<&String> =
        all.iter().flat_map(|grants| grants.iter().map(|grant| &grant.role)).collect();
    let mut grants = BTreeSet::new();
    for role in roles {
        for sharing in &all {
            let grant = sharing.iter().find(|grant| grant.role == *role).cloned();
            grants
                .insert(grant.unwrap_or_else(|| Grant { role: role.clone(), members: Vec::new() }));
        }
    }
    Some(grants.into_iter().collect())
}

/// The labels of a member after a change of its set. What is its own stays; marks of stillframe
/// that the members did not agree on, left by a run that was interrupted, go.
pub fn labels_after(
    member: &BTreeMap<String, String>,
    agreed: &BTreeMap<String, String>,
    set: &BTreeMap<String, String>,
    remove: &[String],
) -> BTreeMap<String, String> {
    let is_own = |label: &str| {
        [LABEL_SET, LABEL_DISK, LABEL_POINT, LABEL_BOOT, LABEL_HOLD, LABEL_COPY].contains(&label)
            || !label.starts_with(LABEL_PREFIX)
    };
    let mut labels = member.clone();
    labels.retain(|label, _| is_own(label) || agreed.contains_key(label));
    labels.retain(|label, _| !remove.contains(label));
    labels.extend(set.iter().map(|(label, value)| (label.clone(), value.clone())));
    labels
}

#[cfg(test)]
mod tests;
