//! Identity: the key of a restore point, and the image name and ownership labels it is written in.
//!
//! In goes (policy, source id, slot); out come a name and labels, both pure functions of it, and
//! back from the labels comes the key. Nothing else in stillframe remembers what it has made.
//! This room must never look at an engine, a clock or a source's name: a source may be renamed
//! between two runs, and the identity of its restore points must not change with it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use data_encoding::{Encoding, Specification};
use jiff::{Timestamp, tz::TimeZone};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The longest name and label value the strictest engine takes (RFC 1035 labels, GCE labels).
pub const NAME_LENGTH_MAX: usize = 63;

/// Characters of the hash at the end of an image name: 40 bits.
const NAME_HASH_LENGTH: usize = 8;
/// Characters of the hash in the key label: 80 bits.
const LABEL_HASH_LENGTH: usize = 16;

/// Label that holds the name of the policy.
pub const LABEL_POLICY: &str = "stillframe-policy";
/// Label that holds the id of the source.
pub const LABEL_SOURCE: &str = "stillframe-source";
/// Label that holds the slot, as [`Slot`] displays itself.
pub const LABEL_SLOT: &str = "stillframe-slot";
/// Label that seals the other three: a hash over all of them.
pub const LABEL_KEY: &str = "stillframe-key";

/// All labels of stillframe begin with this; users may not write such keys.
pub const LABEL_PREFIX: &str = "stillframe-";

/// Why a text is not a name, an id, a slot or a set of ownership labels.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a policy name.
    #[error(
        "not a policy name: `{0}` (1 to 63 of a-z, 0-9 and `-`, beginning with a letter, not ending with `-`)"
    )]
    Policy(String),
    /// Not a source id.
    #[error("not a source id: `{0}` (1 to 63 of a-z, 0-9, `-` and `_`)")]
    Source(String),
    /// Not a slot.
    #[error("not a slot: `{0}` (written like 20261121t020000z)")]
    Slot(String),
    /// A label of the ownership record is missing.
    #[error("label `{0}` is missing")]
    Missing(&'static str),
    /// The labels parse, but the seal does not belong to them.
    #[error("label `stillframe-key` does not belong to the other ownership labels")]
    Seal,
}

/// The name of a policy: an RFC 1035 label, 1 to 63 of `a-z0-9-`.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
pub struct PolicyName(
    // Shared by its copies: there is one in the key of every image.
    #[schemars(with = "String", regex(pattern = r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"))] Arc<str>,
);

impl PolicyName {
    /// Checks the rule and keeps the text.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if is_rfc1035_label(text) {
            Ok(Self(text.into()))
        } else {
            Err(NameError::Policy(text.to_owned()))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The id of a source as its engine knows it: 1 to 63 of `a-z0-9-_`, so that it is a label value
/// on every engine. An engine whose own ids are wider maps them into this alphabet.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
pub struct SourceId(#[schemars(with = "String", regex(pattern = r"^[-_a-z0-9]{1,63}$"))] Arc<str>);

impl SourceId {
    /// Checks the rule and keeps the text.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if !text.is_empty() && is_label_value(text) {
            Ok(Self(text.into()))
        } else {
            Err(NameError::Source(text.to_owned()))
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! text_newtype {
    ($type:ty) => {
        impl fmt::Display for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(&text)
            }
        }
        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0.as_ref().to_owned()
            }
        }
    };
}
text_newtype!(PolicyName);
text_newtype!(SourceId);

/// One nominal instant of a schedule, in UTC and whole seconds.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Slot(Timestamp);

impl Slot {
    /// The slot at an instant; anything below a second is cut off.
    pub fn at(instant: Timestamp) -> Self {
        // A whole second inside the range of `Timestamp` is inside the range of `Timestamp`.
        Self(Timestamp::from_second(instant.as_second()).unwrap_or(instant))
    }

    /// The instant.
    pub fn instant(self) -> Timestamp {
        self.0
    }

    /// Reads what [`stamp`] writes: `20261121t020000z`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        parse_stamp(text).map(Self).ok_or_else(|| NameError::Slot(text.to_owned()))
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&stamp(self.0))
    }
}

/// The name of the snapshot that is a step on the way to an image: that of the image, cut where it is
/// long, and a hash of it. An RFC 1035 label where the name of the image is one.
pub fn step_name(image: &str) -> String {
    let hash = hash("step", "to", image, NAME_HASH_LENGTH);
    let tail = format!("-step-{hash}");
    let mut head = image;
    while head.len() > NAME_LENGTH_MAX - tail.len() {
        head = head.char_indices().next_back().map_or("", |(at, _)| &head[..at]);
    }
    format!("{}{tail}", head.trim_end_matches('-'))
}

/// An instant as a label value: `20261121t020000z`, sortable as text. Label values may hold
/// neither `:` nor upper case on the strictest engine.
pub fn stamp(instant: Timestamp) -> String {
    let civil = TimeZone::UTC.to_datetime(instant);
    format!(
        "{:04}{:02}{:02}t{:02}{:02}{:02}z",
        civil.year(),
        civil.month(),
        civil.day(),
        civil.hour(),
        civil.minute(),
        civil.second()
    )
}

/// Reads what [`stamp`] writes, and only that.
pub fn parse_stamp(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    if bytes.len() != 16 || bytes[8] != b't' || bytes[15] != b'z' {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<i16> {
        let digits = text.get(from..to)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let small = |from: usize| number(from, from + 2).and_then(|value| i8::try_from(value).ok());
    let civil = jiff::civil::DateTime::new(
        number(0, 4)?,
        small(4)?,
        small(6)?,
        small(9)?,
        small(11)?,
        small(13)?,
        0,
    )
    .ok()?;
    TimeZone::UTC.to_timestamp(civil).ok()
}

/// The identity of a restore point.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub struct Key {
    /// The policy that asked for it.
    pub policy: PolicyName,
    /// The instance it is of.
    pub source: SourceId,
    /// The nominal instant it stands for.
    pub slot: Slot,
}

/// What an image's labels say about who made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ownership {
    /// The labels parse back to a key: stillframe made it and may change it.
    Ours(Key),
    /// No label of ours: never touched.
    Foreign,
    /// Some labels of ours, but they do not parse back to a key: reported and never touched.
    Broken(NameError),
}

impl Key {
    /// The name of the image: `PREFIX-20261121-0200z-HASH`, at most 63 characters, an RFC 1035
    /// label. `prefix` is for people and is cut to fit; the hash alone keeps two keys apart.
    pub fn image_name(&self, prefix: &str) -> String {
        self.name_with(prefix, &self.hash(NAME_HASH_LENGTH))
    }

    fn name_with(&self, prefix: &str, hash: &str) -> String {
        let civil = TimeZone::UTC.to_datetime(self.slot.instant());
        let tail = format!(
            "-{:04}{:02}{:02}-{:02}{:02}z-{}",
            civil.year(),
            civil.month(),
            civil.day(),
            civil.hour(),
            civil.minute(),
            hash
        );
        let mut head = rfc1035_head(prefix);
        head.truncate(NAME_LENGTH_MAX - tail.len());
        let head = head.trim_end_matches('-');
        format!("{head}{tail}")
    }

    /// The name of a copy in another location: like that of the image, with a hash of its own.
    pub fn copy_name(&self, prefix: &str, location: &str) -> String {
        let slot = format!("{}\ncopy in {location}", self.slot);
        let hash = hash(self.policy.as_str(), self.source.as_str(), &slot, NAME_HASH_LENGTH);
        self.name_with(prefix, &hash)
    }

    /// The prefix of an image name where the policy gives none: `POLICY-SOURCE`.
    pub fn default_prefix(&self) -> String {
        format!("{}-{}", self.policy, self.source)
    }

    /// The series that the restore point belongs to.
    pub fn series(&self) -> (PolicyName, SourceId) {
        (self.policy.clone(), self.source.clone())
    }

    /// The four ownership labels.
    pub fn labels(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (LABEL_POLICY.to_owned(), self.policy.to_string()),
            (LABEL_SOURCE.to_owned(), self.source.to_string()),
            (LABEL_SLOT.to_owned(), self.slot.to_string()),
            (LABEL_KEY.to_owned(), self.hash(LABEL_HASH_LENGTH)),
        ])
    }

    /// Reads the ownership labels among an image's labels.
    pub fn from_labels(labels: &BTreeMap<String, String>) -> Ownership {
        let ours = [LABEL_POLICY, LABEL_SOURCE, LABEL_SLOT, LABEL_KEY];
        let texts = ours.map(|label| labels.get(label).map(String::as_str));
        if texts.iter().all(Option::is_none) {
            return Ownership::Foreign;
        }
        match Self::read(texts) {
            Ok(key) => Ownership::Ours(key),
            Err(error) => Ownership::Broken(error),
        }
    }

    fn read([policy, source, slot, seal]: [Option<&str>; 4]) -> Result<Self, NameError> {
        let policy = policy.ok_or(NameError::Missing(LABEL_POLICY))?;
        let name = PolicyName::parse(policy)?;
        let source = source.ok_or(NameError::Missing(LABEL_SOURCE))?;
        let id = SourceId::parse(source)?;
        let slot = slot.ok_or(NameError::Missing(LABEL_SLOT))?;
        let key = Self { policy: name, source: id, slot: Slot::parse(slot)? };
        let seal = seal.ok_or(NameError::Missing(LABEL_KEY))?;
        // A slot reads back only from the text that it writes.
        if seal == hash(policy, source, slot, LABEL_HASH_LENGTH) {
            Ok(key)
        } else {
            Err(NameError::Seal)
        }
    }

    /// The first characters of a SHA-256 over the key, in lower-case base32.
    fn hash(&self, length: usize) -> String {
        hash(self.policy.as_str(), self.source.as_str(), &self.slot.to_string(), length)
    }
}

/// The first characters of a SHA-256 over the texts of a key, in lower-case base32.
fn hash(policy: &str, source: &str, slot: &str, length: usize) -> String {
    let mut hash = Sha256::new();
    for part in ["stillframe/v1\n", policy, "\n", source, "\n", slot] {
        hash.update(part);
    }
    // Eight characters hold five bytes.
    let mut text = BASE32_LOWER.encode(&hash.finalize()[..length.div_ceil(8) * 5]);
    text.truncate(length);
    text
}

/// Spreads `(policy, source)` evenly and stably over `0..range`: the jitter of a source is the
/// same on every run.
pub fn spread(policy: &PolicyName, source: &SourceId, range: u64) -> u64 {
    if range == 0 {
        return 0;
    }
    let digest = Sha256::digest(format!("jitter\n{policy}\n{source}").as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first) % range
}

/// 1 to 63 of `a-z0-9-`, beginning with a letter, not ending with `-` (RFC 1035 label).
pub fn is_rfc1035_label(text: &str) -> bool {
    (1..=NAME_LENGTH_MAX).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && !text.ends_with('-')
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// Up to 63 of `a-z0-9-_`: a label value on the strictest engine.
pub fn is_label_value(text: &str) -> bool {
    text.len() <= NAME_LENGTH_MAX
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
}

/// A label key on the strictest engine: a label value that begins with a letter.
pub fn is_label_key(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_lowercase()) && is_label_value(text)
}

/// Any text as the head of an RFC 1035 label: lower case, other characters as `-`, a letter first.
fn rfc1035_head(text: &str) -> String {
    let mut head: String = text
        .chars()
        .map(|character| character.to_ascii_lowercase())
        .map(|character| if character.is_ascii_alphanumeric() { character } else { '-' })
        .collect();
    if !head.starts_with(|first: char| first.is_ascii_lowercase()) {
        head.insert_str(0, "i-");
    }
    head
}

/// RFC 4648 base32 in lower case without padding.
static BASE32_LOWER: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    // The specification is a constant with 32 distinct symbols, so this branch is never taken.
    specification.encoding().unwrap_or(data_encoding::BASE32_NOPAD)
});

#[cfg(test)]
mod tests {
    use super::*;

    fn key(policy: &str, source: &str, slot: &str) -> Key {
        Key {
            policy: PolicyName::parse(policy).unwrap(),
            source: SourceId::parse(source).unwrap(),
            slot: Slot::parse(slot).unwrap(),
        }
    }

    #[test]
    fn a_name_reads_as_policy_source_slot_and_hash() {
        let key = key("web-nightly", "4201", "20261121t020000z");
        assert_eq!(
            key.image_name(&key.default_prefix()),
            "web-nightly-4201-20261121-0200z-65ukvwyh"
        );
    }

    #[test]
    fn a_prefix_is_bent_into_a_label() {
        let key = key("p", "1", "20261121t020000z");
        for prefix in [
            "",
            "9lives",
            "Web Server",
            "ü",
            "-",
            "a-------------------------------------------------------z",
        ] {
            assert!(is_rfc1035_label(&key.image_name(prefix)), "{prefix}");
        }
    }

    #[test]
    fn a_slot_that_is_no_time_is_refused() {
        for text in [
            "20261321t020000z",
            "20260230t020000z",
            "20261121T020000Z",
            "20261121t020060z",
            "+0261121t020000z",
            "",
        ] {
            assert!(Slot::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn labels_that_were_edited_are_broken_not_ours() {
        let mut labels = key("p", "1", "20261121t020000z").labels();
        labels.insert(LABEL_POLICY.to_owned(), "q".to_owned());
        assert_eq!(Key::from_labels(&labels), Ownership::Broken(NameError::Seal));
        labels.remove(LABEL_KEY);
        assert_eq!(Key::from_labels(&labels), Ownership::Broken(NameError::Missing(LABEL_KEY)));
        assert_eq!(Key::from_labels(&BTreeMap::new()), Ownership::Foreign);
    }
}
