//! Images of servers and snapshots of volumes, as the API has them and as the inventory does.

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use super::observe::Seen;
use super::record::{Record, firmer};
use super::wait::JOB_TIME_MAX;
use super::wire;
use crate::engine::set::{LABEL_DISK, LABEL_POINT};
use crate::inventory::{Image, ImageKind, ImageSource, ImageState, LABEL_HOLD, LABEL_SET};
use crate::name::{Key, Ownership};

/// Bytes of a gigabyte, as the API counts volumes.
pub const GIB: u64 = 1 << 30;
/// What the disk that a machine starts from is called. An image of a server holds it and no other.
pub const SYSTEM: &str = "system";

/// Where images of a kind are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Collection {
    /// Images of the system disks of servers.
    Images,
    /// Snapshots of volumes.
    Snapshots,
}

impl Collection {
    /// The word in paths.
    pub fn word(self) -> &'static str {
        match self {
            Self::Images => "images",
            Self::Snapshots => "snapshots",
        }
    }

    /// What stands before a number in the id of an image.
    fn letter(self) -> char {
        match self {
            Self::Images => 'i',
            Self::Snapshots => 's',
        }
    }
}

/// Where an image is, by its number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The code of the project.
    pub project: String,
    /// The collection.
    pub collection: Collection,
    /// The number, which is never used twice.
    pub number: u64,
}

impl Place {
    /// The id of the image in the inventory: `GOV000001/i42`. Members of a set are side by side,
    /// whatever they are.
    pub fn id(&self) -> String {
        format!("{}/{}{}", self.project, self.collection.letter(), self.number)
    }

    /// Reads what [`Place::id`] writes.
    pub fn parse(id: &str) -> Option<Self> {
        let (project, own) = id.split_once('/')?;
        let of = |collection: Collection| {
            let number = own.strip_prefix(collection.letter())?;
            let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
            let number = number.parse().ok().filter(|_| is_number)?;
            Some(Self { project: project.to_owned(), collection, number })
        };
        of(Collection::Images).or_else(|| of(Collection::Snapshots))
    }

    /// Its path below that of the platform.
    pub fn path(&self) -> String {
        format!("{}/{}", self.collection.word(), self.number)
    }
}

/// An image, and what of it the inventory does not show.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Where it is.
    pub place: Place,
    /// As the inventory has it.
    pub image: Image,
    /// What its description says.
    pub record: Record,
    /// The server or volume it was made of, as far as the service remembers.
    pub made_of: Option<u64>,
    /// Whether the service has not begun with it yet.
    pub is_queued: bool,
    /// What the service says that it is, in its own word.
    pub word: String,
    /// The number of the project that it is in, where the service says so.
    pub project: Option<u64>,
    /// Whether the service offers it to all.
    pub is_public: bool,
}

/// What images and snapshots have in common.
struct Common {
    name: String,
    description: String,
    status: String,
    reason: Option<String>,
    create_time: String,
    state: ImageState,
    bytes: Option<u64>,
    made_of: Option<u64>,
    project: Option<u64>,
    is_public: bool,
}

impl Common {
    fn found(self, place: Place) -> Result<Found, String> {
        let Some(created_at) = time(&self.create_time) else {
            return Err(format!(
                "{} {} does not say when it was made",
                place.collection.word(),
                place.number
            ));
        };
        let record = Record::read(&self.description, &self.name);
        let mut message = self.reason.filter(|reason| !reason.trim().is_empty());
        if record.is_damaged {
            message = Some("the record in its description is damaged; it is left alone".to_owned());
        }
        let mut hash = Sha256::new();
        for text in [&self.name, &self.description] {
            hash.update(text.len().to_be_bytes());
            hash.update(text);
        }
        let is_queued = self.status.eq_ignore_ascii_case("queued");
        let image = Image {
            id: place.id(),
            name: self.name,
            kind: match place.collection {
                Collection::Images => ImageKind::DiskImage,
                Collection::Snapshots => ImageKind::Snapshot,
            },
            state: self.state,
            stage: record.stage,
            created_at,
            location: String::new(),
            kms_key: None,
            family: None,
            sharing: None,
            labels: record.labels.clone(),
            source: None,
            stored_bytes: self.bytes,
            disk_bytes: self.bytes,
            fingerprint: data_encoding::HEXLOWER.encode(&hash.finalize()[..16]),
            disks: None,
            project: String::new(),
            in_use_by: Vec::new(),
            message,
        };
        Ok(Found {
            place,
            image,
            record,
            made_of: self.made_of,
            is_queued,
            word: self.status.to_ascii_uppercase(),
            project: self.project,
            is_public: self.is_public,
        })
    }
}

impl Found {
    /// An image of a server.
    pub fn image(project: &str, wire: wire::Image) -> Result<Self, String> {
        let status = wire.status.unwrap_or_default();
        let state = match status.to_ascii_uppercase().as_str() {
            _ if wire.is_deleted => ImageState::Deleting,
            "QUEUED" | "SAVING" => ImageState::Creating,
            "ACTIVE" => ImageState::Ready,
            "ERROR" => ImageState::Failed,
            "DELETING" | "DELETED" => ImageState::Deleting,
            _ => ImageState::Unknown,
        };
        let place =
            Place { project: project.to_owned(), collection: Collection::Images, number: wire.id };
        let common = Common {
            name: wire.name,
            description: wire.desc.unwrap_or_default(),
            status,
            reason: wire.status_reason,
            create_time: wire.create_time,
            state,
            bytes: wire.size.filter(|bytes| *bytes > 0),
            made_of: wire.server,
            project: wire.project,
            is_public: wire.is_public,
        };
        common.found(place)
    }

    /// A snapshot of a volume.
    pub fn snapshot(project: &str, wire: wire::Snapshot) -> Result<Self, String> {
        let status = wire.status.unwrap_or_default();
        let state = match status.to_ascii_uppercase().as_str() {
            "QUEUED" | "CREATING" => ImageState::Creating,
            "AVAILABLE" | "ACTIVE" => ImageState::Ready,
            "ERROR" | "ERROR_DELETING" => ImageState::Failed,
            "DELETING" | "DELETED" => ImageState::Deleting,
            _ => ImageState::Unknown,
        };
        let place = Place {
            project: project.to_owned(),
            collection: Collection::Snapshots,
            number: wire.id,
        };
        let common = Common {
            name: wire.name,
            description: wire.desc.unwrap_or_default(),
            status,
            reason: wire.status_reason,
            create_time: wire.create_time,
            state,
            bytes: None,
            made_of: wire.volume,
            project: wire.project,
            is_public: false,
        };
        common.found(place)
    }

    /// Whose restore point it is.
    pub fn key(&self) -> Option<Key> {
        match self.image.ownership() {
            Ownership::Ours(key) => Some(key),
            Ownership::Foreign | Ownership::Broken(_) => None,
        }
    }

    /// Whether it is of this restore point.
    pub fn is_of(&self, key: &Key) -> bool {
        self.key().as_ref() == Some(key)
    }

    /// Whether nobody has changed it since it was seen: name, time and description.
    pub fn is_still(&self, seen: &Self) -> bool {
        (&self.place, &self.image.name, self.image.created_at, &self.image.fingerprint)
            == (&seen.place, &seen.image.name, seen.image.created_at, &seen.image.fingerprint)
    }

    /// Which of several of one disk stands for all: the first that became READY, as in a set.
    pub fn rank(&self) -> (bool, Timestamp, &str) {
        (self.image.state != ImageState::Ready, self.image.created_at, &self.image.id)
    }

    /// The restore point that it is a member of.
    fn set(&self) -> Option<(&str, &str, Key)> {
        let point = self.image.labels.get(LABEL_POINT)?;
        Some((&self.place.project, point, self.key()?))
    }

    /// Fills in what other lists say: the source, that of the record or else the site of the server;
    /// who needs it; and of a snapshot the size of its volume.
    pub fn dress(&mut self, seen: &Seen) {
        let id = match self.image.ownership() {
            Ownership::Ours(key) => Some(key.source),
            _ if self.place.collection == Collection::Images => {
                self.made_of.and_then(|server| seen.site_of(server))
            }
            _ => None,
        };
        let named = id.and_then(|id| Some(ImageSource { name: seen.name_of(&id)?, id }));
        self.image.source = named;
        match self.place.collection {
            Collection::Images => self.image.in_use_by = seen.users(&self.image.name),
            Collection::Snapshots => {
                let bytes = self.made_of.and_then(|volume| seen.bytes_of(volume));
                (self.image.stored_bytes, self.image.disk_bytes) = (bytes, bytes);
            }
        }
    }

    /// Says what to do where the service has not begun with it for longer than that, or has begun and
    /// does not end.
    pub fn note_stuck(&mut self, patience: SignedDuration, now: Timestamp) -> bool {
        let begun = self.image.created_at.saturating_add(patience);
        let end = if self.is_queued { begun } else { begun.map(|begun| JOB_TIME_MAX.after(begun)) };
        let is_stuck = self.image.state == ImageState::Creating && end.is_ok_and(|end| end < now);
        if is_stuck {
            self.image.message = Some(self.stuck(self.key().as_ref(), self.made_of));
        }
        is_stuck
    }

    /// What to say of a job that the service never begins with or never ends, and what to tell its support.
    pub fn stuck(&self, key: Option<&Key>, server: Option<u64>) -> String {
        let site = key.map(|key| &key.source).or(self.image.source.as_ref().map(|of| &of.id));
        let site = site.map_or_else(|| "?".to_owned(), ToString::to_string);
        let server = server.map_or_else(|| "?".to_owned(), |server| server.to_string());
        let (name, since, word) = (&self.image.name, self.image.created_at, &self.word);
        let thing = match self.place.collection {
            Collection::Images => "image",
            Collection::Snapshots => "snapshot",
        };
        let what = if self.is_queued {
            format!("is QUEUED since {since} and does not begin")
        } else {
            format!("was asked for at {since}, is {word} and does not become ACTIVE")
        };
        format!(
            "{name} {what}; that does not end by itself, and it is not asked for again. \
             Tell the support of the service (isupport@twcc.ai): site {site}, server {server}, {thing} {}, {word}, asked for at {since}",
            self.place.number
        )
    }
}

/// A time as the service writes it; without a zone it is UTC.
pub fn time(text: &str) -> Option<Timestamp> {
    text.parse().ok().or_else(|| format!("{text}Z").parse().ok())
}

/// The record of the image of a set holds for its snapshots as well, which cannot be changed: stage,
/// marks and holds. Of two images the one that stands for both, and a hold of either. A snapshot whose
/// image is not there keeps its own.
pub fn share_records(found: &mut [Found]) {
    let (mut carriers, mut snapshots): (Vec<_>, Vec<_>) =
        found.iter_mut().partition(|one| one.place.collection == Collection::Images);
    carriers.sort_by(|one, other| one.rank().cmp(&other.rank()));
    for one in &mut snapshots {
        let set = one.set();
        let is_carrier = |carrier: &&Found| set.is_some() && carrier.set() == set;
        let of_set: Vec<&Found> =
            carriers.iter().map(|carrier| &**carrier).filter(is_carrier).collect();
        let Some(carrier) = of_set.first() else { continue };
        let hold = |one: &Found| one.image.labels.get(LABEL_HOLD).cloned();
        let hold = of_set.iter().map(|one| hold(one)).fold(hold(one), firmer);
        let own = [LABEL_SET, LABEL_DISK, LABEL_POINT];
        let mut labels = carrier.record.labels.clone();
        labels.retain(|label, _| !own.contains(&label.as_str()));
        let kept = one.record.labels.iter().filter(|(label, _)| own.contains(&label.as_str()));
        labels.extend(kept.map(|(label, value)| (label.clone(), value.clone())));
        labels.extend(hold.map(|hold| (LABEL_HOLD.to_owned(), hold)));
        one.image.stage = carrier.record.stage;
        one.image.labels = labels;
    }
}

/// A snapshot whose image is there, and has no record any more that could be read, is of a set of which nobody
/// knows what is to become of it: somebody has edited the description.
pub fn doubt_snapshots(found: &mut [Found]) {
    let images: Vec<&Found> =
        found.iter().filter(|one| one.place.collection == Collection::Images).collect();
    let is_doubtful = |one: &Found| {
        let point = one.image.labels.get(LABEL_POINT).filter(|_| one.set().is_some())?;
        let mut named = images.iter().filter(|image| image.image.name == *point).peekable();
        let image = *named.peek()?;
        named.all(|image| image.set() != one.set()).then(|| {
            format!(
                "the image {} of its set says nothing of it any more: was its description edited? as long as that is so, the snapshot is left alone",
                image.place.number
            )
        })
    };
    let doubts: Vec<Option<String>> =
        found
            .iter()
            .map(|one| {
                if one.place.collection == Collection::Snapshots { is_doubtful(one) } else { None }
            })
            .collect();
    for (one, doubt) in found.iter_mut().zip(doubts) {
        if doubt.is_some() {
            one.image.state = ImageState::Unknown;
            one.image.message = doubt;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::inventory::{LABEL_LET_GO, Stage};
    use crate::name::{PolicyName, Slot, SourceId};

    fn image(fields: &Value) -> Found {
        let mut wire =
            json!({"id": 7, "name": "n", "desc": "", "create_time": "2026-11-21T12:00:00Z"});
        wire.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        Found::image("GOV1", serde_json::from_value(wire).unwrap()).unwrap()
    }

    /// The description of a member.
    fn member(disk: &str, marks: &[(&str, &str)], stage: Stage) -> String {
        let key = Key {
            policy: PolicyName::parse("nightly").unwrap(),
            source: SourceId::parse("918628").unwrap(),
            slot: Slot::parse("20261121t020000z").unwrap(),
        };
        let mut labels = key.labels();
        for (label, value) in [(LABEL_SET, "2"), (LABEL_DISK, disk), (LABEL_POINT, "n")] {
            labels.insert(label.to_owned(), value.to_owned());
        }
        labels.extend(marks.iter().map(|(label, value)| ((*label).into(), (*value).into())));
        Record { labels, stage, ..Record::default() }.write("n").unwrap()
    }

    #[test]
    fn words_are_read_in_any_case_and_those_not_known_are_left_alone() {
        for (word, state) in [
            ("QUEUED", ImageState::Creating),
            ("saving", ImageState::Creating),
            ("Active", ImageState::Ready),
            ("ERROR", ImageState::Failed),
            ("deleting", ImageState::Deleting),
            ("RESTING", ImageState::Unknown),
            ("", ImageState::Unknown),
        ] {
            assert_eq!(image(&json!({"status": word})).image.state, state, "{word}");
        }
        assert_eq!(image(&json!({})).image.state, ImageState::Unknown);
        assert_eq!(
            image(&json!({"status": null, "server": null})).image.state,
            ImageState::Unknown
        );
    }

    #[test]
    fn an_id_says_where_an_image_is() {
        for id in ["GOV000001/i42", "ENT1/s7"] {
            assert_eq!(Place::parse(id).unwrap().id(), id);
        }
        for id in ["42", "GOV1/42", "GOV1/i", "GOV1/i+4", "GOV1/i4/5", "GOV1/x4", ""] {
            assert_eq!(Place::parse(id), None, "{id}");
        }
    }

    #[test]
    fn times_have_a_zone_a_fraction_or_neither() {
        for text in ["2026-11-21T12:00:00Z", "2026-11-21T12:00:00", "2026-11-21T20:00:00+08:00"] {
            assert_eq!(time(text).unwrap().to_string(), "2026-11-21T12:00:00Z", "{text}");
        }
        assert!(time("2026-11-21T12:00:00.123456Z").is_some());
        assert_eq!(time("yesterday"), None);
    }

    #[test]
    fn a_job_that_does_not_begin_says_what_to_tell_the_support() {
        let mut queued = image(&json!({"status": "QUEUED", "server": {"id": 365}}));
        // Whose it is, its record says, or the server that it is of.
        let id = SourceId::parse("1049").unwrap();
        queued.image.source = Some(ImageSource { id, name: "web".to_owned() });
        let hour = SignedDuration::from_hours(1);
        assert!(!queued.note_stuck(hour, "2026-11-21T13:00:00Z".parse().unwrap()));
        assert!(queued.note_stuck(hour, "2026-11-21T13:00:01Z".parse().unwrap()));
        let message = queued.image.message.unwrap();
        let parts =
            ["site 1049", "server 365", "image 7", "at 2026-11-21T12:00:00Z", "isupport@twcc.ai"];
        for part in parts {
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(queued.image.state, ImageState::Creating);
        // What has begun has half a day for it.
        let mut saving = image(&json!({"status": "saving", "server": {"id": 365}}));
        assert!(!saving.note_stuck(hour, "2026-11-22T01:00:00Z".parse().unwrap()));
        assert_eq!(saving.image.message, None);
        assert!(saving.note_stuck(hour, "2026-11-22T01:00:01Z".parse().unwrap()));
        let message = saving.image.message.unwrap();
        for part in ["is SAVING", "server 365", "image 7", "isupport@twcc.ai"] {
            assert!(message.contains(part), "{message}");
        }
        for word in ["ACTIVE", "ERROR", "NOVEL"] {
            let mut other = image(&json!({"status": word}));
            assert!(!other.note_stuck(hour, "2026-11-23T13:00:01Z".parse().unwrap()), "{word}");
        }
    }

    #[test]
    fn snapshots_follow_the_record_of_their_image() {
        let let_go = [(LABEL_LET_GO, "20261122t020000z")];
        let carrier = image(&json!({"desc": member(SYSTEM, &let_go, Stage::Deprecated)}));
        let snapshot = || {
            let wire = json!({"id": 8, "name": "n", "create_time": "2026-11-21T12:00:00Z",
                "desc": member("5", &[], Stage::Active), "volume": {"id": 5}});
            let wire = serde_json::from_value(wire).unwrap();
            Found::snapshot("GOV1", wire).unwrap()
        };
        let mut found = vec![snapshot(), carrier.clone()];
        share_records(&mut found);
        assert_eq!(found[0].image.stage, Stage::Deprecated);
        assert!(found[0].image.let_go_at().is_some());
        assert_eq!(found[0].image.labels[LABEL_DISK], "5");
        // Without its image it keeps its own.
        let mut alone = vec![snapshot()];
        share_records(&mut alone);
        assert_eq!(alone[0].image.let_go_at(), None);
        // Of two the first that became READY says what is, and each of them holds.
        let keep_me = [(LABEL_HOLD, "yes")];
        let of = |id: u32, status: &str, desc: &str| {
            image(&json!({"id": id, "status": status, "desc": desc}))
        };
        let (bare, held) =
            (member(SYSTEM, &[], Stage::Active), member(SYSTEM, &keep_me, Stage::Active));
        let marked = member(SYSTEM, &let_go, Stage::Deprecated);
        for (first, second, is_let_go) in [
            (of(6, "ACTIVE", &marked), of(9, "ACTIVE", &held), true),
            (of(6, "SAVING", &marked), of(9, "ACTIVE", &held), false),
            (of(6, "ACTIVE", &held), of(9, "ACTIVE", &marked), false),
        ] {
            for mut found in
                [vec![snapshot(), first.clone(), second.clone()], vec![second, snapshot(), first]]
            {
                share_records(&mut found);
                let one = found.iter().find(|one| one.place.number == 8).unwrap();
                assert_eq!(one.image.let_go_at().is_some(), is_let_go);
                assert_eq!(one.image.labels[LABEL_HOLD], "yes");
            }
        }
        let mut found = vec![snapshot(), of(6, "ACTIVE", &bare)];
        share_records(&mut found);
        assert!(!found[0].image.labels.contains_key(LABEL_HOLD));
    }

    #[test]
    fn a_snapshot_beside_an_image_without_its_record_is_left_alone() {
        let snapshot = || {
            let wire = json!({"id": 8, "name": "n", "create_time": "2026-11-21T12:00:00Z",
                "status": "AVAILABLE", "desc": member("5", &[], Stage::Active)});
            Found::snapshot("GOV1", serde_json::from_value(wire).unwrap()).unwrap()
        };
        let whole = member(SYSTEM, &[], Stage::Active);
        let doubted = |images: &[Found]| {
            let mut found = [&[snapshot()], images].concat();
            doubt_snapshots(&mut found);
            assert_eq!(found[1..], *images);
            found[0].image.state == ImageState::Unknown
        };
        let of = |desc: &str| image(&json!({"desc": desc}));
        for desc in ["", "by hand", &whole[..40], &format!("請保留{whole}")] {
            assert!(doubted(&[of(desc)]), "{desc}");
            // One that says what it is, is enough.
            assert!(!doubted(&[of(desc), image(&json!({"id": 9, "desc": whole}))]), "{desc}");
        }
        assert!(!doubted(&[of(&whole)]));
        assert!(!doubted(&[]));
        assert!(!doubted(&[image(&json!({"name": "another", "desc": ""}))]));
    }
}
