//! What changed behind our back: images as the last change of ours left them, and as they are.
//!
//! There is no state file: what is known of before is what the ledger says, and what is known of now
//! is what the engines show. Without a ledger there is nothing to compare with, and nothing is said.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::inventory::{Image, ImageState, Inventory, LABEL_HOLD, member_ids};
use crate::name::{LABEL_PREFIX, Ownership};
use crate::policy::Policies;

/// The version of the drift document. The first number changes when a reader must change.
pub const DRIFT_VERSION: &str = "1.0";

/// What changed behind our back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Drift {
    /// The version of this document.
    pub format_version: String,
    /// How many images the ledger knows that it did not delete itself.
    pub known: usize,
    /// Engines that were not seen whole: what is missing there may only not have been seen.
    pub not_seen_whole: Vec<String>,
    /// What is not as it was left, or not as the policy has it.
    pub items: Vec<Drifted>,
}

/// An image that is not as it was left.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Drifted {
    /// What is different.
    pub kind: DriftKind,
    /// The engine.
    pub engine: String,
    /// The name of the image.
    pub image: String,
    /// Its id.
    pub id: String,
    /// The policy it belongs to, or belonged to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// What it should be; absent where it should not be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What it is; absent where it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
}

/// What is different.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum DriftKind {
    /// It is gone, and stillframe did not delete it.
    DeletedOutside,
    /// A label that says whose it is was changed or taken away: it is not looked after any more.
    OwnershipLost,
    /// Another label that stillframe had set was changed or taken away.
    LabelChanged,
    /// It was deprecated, and somebody has undone that.
    DeprecationUndone,
    /// Who may use it is not what it was.
    SharingChanged,
    /// Its encryption key is not that of its policy.
    KeyDiffers,
    /// Its location is not that of its policy.
    LocationDiffers,
}

impl DriftKind {
    /// Every kind there is.
    pub const ALL: [Self; 7] = [
        Self::DeletedOutside,
        Self::OwnershipLost,
        Self::LabelChanged,
        Self::DeprecationUndone,
        Self::SharingChanged,
        Self::KeyDiffers,
        Self::LocationDiffers,
    ];

    /// The stable code.
    pub fn word(self) -> &'static str {
        match self {
            Self::DeletedOutside => "deleted-outside",
            Self::OwnershipLost => "ownership-lost",
            Self::LabelChanged => "label-changed",
            Self::DeprecationUndone => "deprecation-undone",
            Self::SharingChanged => "sharing-changed",
            Self::KeyDiffers => "key-differs",
            Self::LocationDiffers => "location-differs",
        }
    }

    /// What it means, for people.
    pub fn text(self) -> &'static str {
        match self {
            Self::DeletedOutside => "deleted, and not by stillframe",
            Self::OwnershipLost => "not known as ours any more: nobody looks after it",
            Self::LabelChanged => "a label is not what it was",
            Self::DeprecationUndone => "its deprecation was undone",
            Self::SharingChanged => "others may use it than before",
            Self::KeyDiffers => "encrypted under another key than its policy says",
            Self::LocationDiffers => "stored elsewhere than its policy says",
        }
    }
}

/// Compares what the lines of a ledger have left with what is there.
pub fn drift(lines: &[Value], policies: &Policies, inventory: &Inventory) -> Drift {
    let known = known(lines);
    let mut drift = Drift {
        format_version: DRIFT_VERSION.to_owned(),
        known: known.len(),
        not_seen_whole: Vec::new(),
        items: Vec::new(),
    };
    for engine in &inventory.engines {
        if !engine.is_complete() {
            drift.not_seen_whole.push(engine.name.clone());
        }
        let now: BTreeMap<&str, &Image> =
            engine.images.iter().map(|image| (image.id.as_str(), image)).collect();
        for ((_, id), was) in known.range((engine.name.clone(), String::new())..) {
            if was.engine != engine.name {
                break;
            }
            match now.get(id.as_str()) {
                Some(is) => compare(&engine.name, &was.image, is, &mut drift.items),
                None if engine.is_complete() => {
                    // Of a set one may be there that nobody knows by its labels any more.
                    let members = member_ids(id);
                    let is_lost = |image: &Image| {
                        members.contains(&image.id)
                            && !matches!(image.ownership(), Ownership::Ours(_))
                    };
                    let kind = if engine.images.iter().any(is_lost) {
                        DriftKind::OwnershipLost
                    } else {
                        DriftKind::DeletedOutside
                    };
                    drift.items.push(item(kind, &engine.name, &was.image, None, None));
                }
                None => {}
            }
        }
        for image in &engine.images {
            against_policy(&engine.name, image, policies, &mut drift.items);
        }
    }
    drift.items.sort();
    drift
}

/// An image as the last change of ours left it.
struct Known {
    engine: String,
    image: Image,
}

fn known(lines: &[Value]) -> BTreeMap<(String, String), Known> {
    let mut known = BTreeMap::new();
    for line in lines.iter().filter(|line| line["event"] == "change-ended") {
        let outcome = &line["outcome"];
        if !matches!(outcome["result"].as_str(), Some("done" | "found")) {
            continue;
        }
        let Some(engine) = line["engine"].as_str() else { continue };
        if line["action"] == "delete" {
            // A delete names no id of its own: the change before it does.
            let id = line["id"].as_str().unwrap_or_default();
            known.remove(&(engine.to_owned(), id.to_owned()));
        } else if let Ok(image) = serde_json::from_value::<Image>(outcome["image"].clone()) {
            let key = (engine.to_owned(), image.id.clone());
            known.insert(key, Known { engine: engine.to_owned(), image });
        }
    }
    known
}

fn item(
    kind: DriftKind,
    engine: &str,
    image: &Image,
    expected: Option<String>,
    found: Option<String>,
) -> Drifted {
    let policy = match image.ownership() {
        Ownership::Ours(key) => Some(key.policy.to_string()),
        Ownership::Foreign | Ownership::Broken(_) => None,
    };
    Drifted {
        kind,
        engine: engine.to_owned(),
        image: image.name.clone(),
        id: image.id.clone(),
        policy,
        expected,
        found,
    }
}

fn compare(engine: &str, was: &Image, is: &Image, items: &mut Vec<Drifted>) {
    let mut add = |kind, expected: Option<String>, found: Option<String>| {
        items.push(item(kind, engine, was, expected, found));
    };
    if was.ownership() != is.ownership() {
        add(DriftKind::OwnershipLost, None, None);
    }
    let identity = match was.ownership() {
        Ownership::Ours(key) => key.labels(),
        Ownership::Foreign | Ownership::Broken(_) => BTreeMap::new(),
    };
    let told =
        |label: &String, value: Option<&String>| value.map(|value| format!("{label}={value}"));
    // People hold images by a label of their own making.
    let is_ours = |label: &String| !identity.contains_key(label) && label != LABEL_HOLD;
    for (label, value) in was.labels.iter().filter(|(label, _)| is_ours(label)) {
        let now = is.labels.get(label);
        if now != Some(value) {
            add(DriftKind::LabelChanged, told(label, Some(value)), told(label, now));
        }
    }
    let is_new = |label: &&String| {
        label.starts_with(LABEL_PREFIX) && !was.labels.contains_key(*label) && is_ours(label)
    };
    for label in is.labels.keys().filter(is_new) {
        add(DriftKind::LabelChanged, None, told(label, is.labels.get(label)));
    }
    if is.stage < was.stage && is.state.holds_data() {
        let word = |image: &Image| Some(format!("{:?}", image.stage).to_uppercase());
        add(DriftKind::DeprecationUndone, word(was), word(is));
    }
    if let (Some(before), Some(now)) = (&was.sharing, &is.sharing)
        && before != now
    {
        let text = |grants: &Vec<crate::inventory::Grant>| {
            let texts: Vec<String> = grants
                .iter()
                .map(|grant| format!("{}: {}", grant.role, grant.members.join(", ")))
                .collect();
            Some(texts.join("; "))
        };
        add(DriftKind::SharingChanged, text(before), text(now));
    }
}

/// Key and location never change once an image is made: where they are not those of the policy, the
/// policy was changed since, or somebody else made the image.
fn against_policy(engine: &str, image: &Image, policies: &Policies, items: &mut Vec<Drifted>) {
    let Ownership::Ours(key) = image.ownership() else { return };
    let Some(policy) = policies.keeper(&key.policy).filter(|policy| policy.engine == engine) else {
        return;
    };
    if image.state != ImageState::Ready || policy.removed.is_some() {
        return;
    }
    if policy.kms_key.is_some() && image.kms_key != policy.kms_key {
        let (wanted, found) = (policy.kms_key.clone(), image.kms_key.clone());
        items.push(item(DriftKind::KeyDiffers, engine, image, wanted, found));
    }
    let is_there = if image.is_copy() {
        policy.copies.contains(&image.location)
    } else {
        policy.location.is_empty() || image.location == policy.location
    };
    if !is_there && !image.location.is_empty() {
        let wanted =
            if image.is_copy() { policy.copies.join(", ") } else { policy.location.clone() };
        let found = Some(image.location.clone());
        items.push(item(DriftKind::LocationDiffers, engine, image, Some(wanted), found));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::inventory::Stage;

    fn image(labels: &[(&str, &str)], stage: Stage) -> Image {
        let mut image: Image = serde_json::from_value(json!({
            "id": "7", "name": "n", "state": "READY", "created_at": "2026-11-21T00:00:00Z",
            "location": "us",
        }))
        .unwrap();
        image.stage = stage;
        let labels = labels.iter();
        image.labels =
            labels.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        image
    }

    fn kinds(was: &Image, is: &Image) -> Vec<&'static str> {
        let mut items = Vec::new();
        compare("e", was, is, &mut items);
        items.into_iter().map(|item| item.kind.word()).collect()
    }

    #[test]
    fn each_thing_that_changed_is_one_item() {
        let was = image(&[("team", "web"), ("stillframe-staged", "x")], Stage::Deprecated);
        assert_eq!(kinds(&was, &was), [""; 0]);
        let undone = image(&[("team", "web"), ("stillframe-staged", "x")], Stage::Active);
        assert_eq!(kinds(&was, &undone), ["deprecation-undone"]);
        let relabelled = image(&[("team", "db"), ("stillframe-let-go", "y")], Stage::Deprecated);
        let words = kinds(&was, &relabelled);
        // Two were changed or taken away, one of ours was put there.
        assert_eq!(words, ["label-changed"; 3]);
        // What others add for themselves is theirs.
        let more = image(
            &[("team", "web"), ("stillframe-staged", "x"), ("theirs", "z")],
            Stage::Deprecated,
        );
        assert_eq!(kinds(&was, &more), [""; 0]);
    }

    #[test]
    fn what_we_deleted_ourselves_is_not_missing() {
        let ended = |action: &str, id: &str| {
            json!({
                "event": "change-ended", "action": action, "engine": "e", "id": id,
                "outcome": {"result": "done", "image": (action == "create").then(|| json!({
                    "id": id, "name": id, "state": "READY", "created_at": "2026-11-21T00:00:00Z",
                }))},
            })
        };
        let lines = [ended("create", "1"), ended("create", "2"), ended("delete", "1")];
        let known = known(&lines);
        assert_eq!(known.keys().map(|(_, id)| id.as_str()).collect::<Vec<_>>(), ["2"]);
    }
}
