//! The message to a receiver: counts of everything, and the worst of it.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Digest, Occasion, Told};

/// The version of the JSON form; its first number changes when a reader must change.
pub const FORMAT_VERSION: &str = "1.0";
/// So many conditions stand in a message.
pub const WORST: usize = 20;
/// So many characters of what is said about one of them.
const MESSAGE_MAX: usize = 300;

/// Whether something is the matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Something is.
    Firing,
    /// All that this message is about has ended.
    Resolved,
    /// Nothing is: this is a test.
    Test,
}

/// How a condition stands.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It has not been told before.
    New,
    /// It still holds.
    Still,
    /// It has ended.
    Over,
}

impl Standing {
    fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Still => "still",
            Self::Over => "over",
        }
    }
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Notification {
    /// The version of this form.
    pub format_version: String,
    /// The same for the same message, however often it is sent.
    pub id: String,
    /// Whether something is the matter.
    pub status: Status,
    /// When it was written.
    pub at: Timestamp,
    /// The name of the configuration; empty where it has none.
    pub name: String,
    /// One line.
    pub title: String,
    /// A line for each condition, the worst first, and one for what is left out.
    pub text: String,
    /// How many there are of each kind.
    pub counts: Vec<Count>,
    /// The worst of them.
    pub conditions: Vec<Item>,
    /// How many are left out of `conditions`.
    pub left_out: usize,
}

/// How many conditions there are of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Count {
    /// The kind.
    pub occasion: Occasion,
    /// How they stand.
    pub standing: Standing,
    /// How many.
    pub count: usize,
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Item {
    /// What kind of condition it is.
    pub occasion: Occasion,
    /// How it stands.
    pub standing: Standing,
    /// The engine; empty where it is about none.
    pub engine: String,
    /// The policy; empty where it is about none.
    pub policy: String,
    /// The name of the source; empty where it is about none.
    pub source: String,
    /// The id of the source; empty where it is about none.
    pub source_id: String,
    /// Since when it holds or held.
    pub since: Timestamp,
    /// What is the matter.
    pub message: String,
    /// All of that in a line.
    pub line: String,
}

impl Occasion {
    /// What conditions of this kind are called.
    fn words(self, count: usize) -> &'static str {
        let (one, many) = match self {
            Self::RpoBreach => ("breach of an objective", "breaches of objectives"),
            Self::Stalled => ("stalled source", "stalled sources"),
            Self::MissedSlot => ("missed slot", "missed slots"),
            Self::Failure => ("failure", "failures"),
            Self::NotSeen => ("gap in what is seen", "gaps in what is seen"),
            Self::GuardRefusal => ("refusal of a guard", "refusals of guards"),
            Self::InvalidPolicy => ("invalid change of the policies", "invalid changes"),
            Self::Recovery => ("recovery", "recoveries"),
        };
        if count == 1 { one } else { many }
    }
}

/// The message to a receiver that is told of some kinds; `None` where none of it is for it. What
/// comes from outside goes through `clean` first.
pub fn digest_of(
    digest: &Digest,
    on: &BTreeSet<Occasion>,
    name: &str,
    clean: fn(&str) -> String,
    now: Timestamp,
) -> Option<Notification> {
    let is_told = |told: &&Told| on.contains(&told.condition.subject.occasion);
    let mut items: Vec<(Standing, &Told)> = Vec::new();
    for (standing, told) in [
        (Standing::New, &digest.new),
        (Standing::Still, &digest.still),
        (Standing::Over, &digest.over),
    ] {
        if standing == Standing::Over && !on.contains(&Occasion::Recovery) {
            continue;
        }
        items.extend(told.iter().filter(is_told).map(|told| (standing, told)));
    }
    if items.is_empty() {
        return None;
    }
    let mut counts: BTreeMap<(Standing, Occasion), usize> = BTreeMap::new();
    let mut hash = Sha256::new();
    for (standing, told) in &items {
        let subject = &told.condition.subject;
        *counts.entry((*standing, subject.occasion)).or_default() += 1;
        hash.update(format!("{}\n{subject:?}\n{}\n", standing.word(), told.since));
    }
    hash.update(now.to_string());
    let is_over = items.iter().all(|(standing, _)| *standing == Standing::Over);
    let name = clean(name);
    let worst: Vec<Item> =
        items.iter().take(WORST).map(|(standing, told)| item(*standing, told, clean)).collect();
    let left_out = items.len() - worst.len();
    let mut notification = Notification {
        format_version: FORMAT_VERSION.to_owned(),
        id: HEXLOWER.encode(&hash.finalize()[..16]),
        status: if is_over { Status::Resolved } else { Status::Firing },
        at: now,
        title: title(&name, &counts),
        text: String::new(),
        name,
        counts: counts
            .into_iter()
            .map(|((standing, occasion), count)| Count { occasion, standing, count })
            .collect(),
        conditions: worst,
        left_out,
    };
    notification.text = text(&notification);
    Some(notification)
}

fn item(standing: Standing, told: &Told, clean: fn(&str) -> String) -> Item {
    let subject = &told.condition.subject;
    let short = |text: &str| -> String {
        let text = clean(text);
        if text.chars().count() <= MESSAGE_MAX {
            return text;
        }
        text.chars().take(MESSAGE_MAX - 1).chain(['…']).collect()
    };
    let mut item = Item {
        occasion: subject.occasion,
        standing,
        engine: short(&subject.engine),
        policy: short(&subject.policy),
        source: short(&told.condition.source_name),
        source_id: short(&subject.source),
        since: told.since,
        message: short(&told.condition.message),
        line: String::new(),
    };
    let whom = match (item.source.is_empty(), item.engine.is_empty()) {
        (false, _) => format!("{} ({} on {}): ", item.source, item.policy, item.engine),
        (true, false) => format!("{}: ", item.engine),
        (true, true) => String::new(),
    };
    let (what, since) = (subject.occasion.words(1), item.since);
    let before = match standing {
        Standing::New => what.to_owned(),
        Standing::Still => format!("still {what}, since {since}"),
        Standing::Over => format!("no longer {what}, which began at {since}"),
    };
    item.line = format!("{before}: {whom}{}", item.message);
    item
}

fn title(name: &str, counts: &BTreeMap<(Standing, Occasion), usize>) -> String {
    let mut parts: Vec<String> = Vec::new();
    for (standing, before) in
        [(Standing::New, ""), (Standing::Still, "still "), (Standing::Over, "no longer ")]
    {
        let of = counts.iter().filter(|((one, _), _)| *one == standing);
        let words: Vec<String> = of
            .map(|((_, occasion), count)| format!("{count} {}", occasion.words(*count)))
            .collect();
        if !words.is_empty() {
            parts.push(format!("{before}{}", words.join(", ")));
        }
    }
    let begin =
        if name.is_empty() { "stillframe".to_owned() } else { format!("stillframe {name}") };
    format!("{begin}: {}", parts.join("; "))
}

fn text(notification: &Notification) -> String {
    let mut lines: Vec<&str> =
        notification.conditions.iter().map(|item| item.line.as_str()).collect();
    let more = format!("and {} more", notification.left_out);
    if notification.left_out > 0 {
        lines.push(&more);
    }
    lines.join("\n")
}

/// A message that only tries whether messages arrive.
pub fn test_message(name: &str, clean: fn(&str) -> String, now: Timestamp) -> Notification {
    let name = clean(name);
    let begin =
        if name.is_empty() { "stillframe".to_owned() } else { format!("stillframe {name}") };
    Notification {
        format_version: FORMAT_VERSION.to_owned(),
        id: HEXLOWER.encode(&Sha256::digest(format!("test\n{name}\n{now}"))[..16]),
        status: Status::Test,
        at: now,
        name,
        title: format!("{begin}: a test message"),
        text: "Messages about backups arrive here. Nothing is the matter.".to_owned(),
        counts: Vec::new(),
        conditions: Vec::new(),
        left_out: 0,
    }
}
