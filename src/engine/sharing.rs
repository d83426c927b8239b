//! Who else may use images, as far as that is the same for all services: they are asked image by
//! image, so only for those whose policy says who may, and not for ever.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::Attention;
use crate::elapsed::Elapsed;
use crate::inventory::{Grant, Image, ImageState};
use crate::name::Ownership;

/// So many images are looked at in one look, the newest first.
const LOOKS_MAX: usize = 500;
/// So many of them side by side.
pub const SIDE_BY_SIDE: usize = 10;
/// So long after the first no more looks are begun: captures do not wait for it, and nothing that is
/// deleted hangs on it.
pub const LOOKS_FOR: Elapsed = Elapsed::minutes(3);

/// The roles that are looked at where these are given: the one that images are shared with is among
/// them.
pub fn roles<'a>(own: &str, given: impl IntoIterator<Item = &'a String>) -> BTreeSet<String> {
    given.into_iter().cloned().chain([own.to_owned()]).collect()
}

/// The roles of the policy of an image, where that says who may use it.
pub fn roles_of<'a>(attention: &'a Attention, image: &Image) -> Option<&'a BTreeSet<String>> {
    match image.ownership() {
        Ownership::Ours(key) => attention.sharing.get(&key.policy),
        Ownership::Foreign | Ownership::Broken(_) => None,
    }
}

/// The positions of the images of which it is looked at who may use them, the newest first.
pub fn looked_at<'a>(images: impl Iterator<Item = &'a Image>, attention: &Attention) -> Vec<usize> {
    if attention.sharing.is_empty() {
        return Vec::new();
    }
    let is_wanted =
        |image: &Image| image.state == ImageState::Ready && roles_of(attention, image).is_some();
    let mut wanted: Vec<(usize, &Image)> =
        images.enumerate().filter(|(_, image)| is_wanted(image)).collect();
    wanted.sort_by_key(|(_, image)| Reverse(image.created_at));
    if wanted.len() > LOOKS_MAX {
        tracing::warn!("who may use images is looked at for the newest {LOOKS_MAX} only");
        wanted.truncate(LOOKS_MAX);
    }
    wanted.into_iter().map(|(index, _)| index).collect()
}

/// Grants of single members by role, in the order in which grants are compared: each once.
pub fn grants(given: impl IntoIterator<Item = (String, String)>) -> Vec<Grant> {
    let mut by_role: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (role, member) in given {
        by_role.entry(role).or_default().insert(member);
    }
    let grant = |(role, members): (String, BTreeSet<String>)| Grant {
        role,
        members: members.into_iter().collect(),
    };
    by_role.into_iter().map(grant).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elapsed::Elapsed;
    use crate::inventory::{ImageKind, Stage};
    use crate::name::{Key, PolicyName, Slot, SourceId};

    fn image(policy: &str, minute: u32, state: ImageState) -> Image {
        let now = Elapsed::minutes(minute).after(jiff::Timestamp::UNIX_EPOCH);
        let policy = PolicyName::parse(policy).unwrap();
        let key = Key { policy, source: SourceId::parse("1").unwrap(), slot: Slot::at(now) };
        Image {
            id: minute.to_string(),
            name: minute.to_string(),
            kind: ImageKind::DiskImage,
            state,
            stage: Stage::Active,
            created_at: now,
            location: String::new(),
            kms_key: None,
            family: None,
            sharing: None,
            labels: key.labels(),
            source: None,
            stored_bytes: None,
            disk_bytes: None,
            fingerprint: String::new(),
            disks: None,
            project: String::new(),
            in_use_by: Vec::new(),
            message: None,
        }
    }

    #[test]
    fn only_what_can_be_used_and_is_shared_is_looked_at_the_newest_first() {
        let shared = PolicyName::parse("shared").unwrap();
        let attention = Attention { sharing: [(shared, BTreeSet::new())].into() };
        let mut images: Vec<Image> =
            (0..600).map(|minute| image("shared", minute, ImageState::Ready)).collect();
        images.push(image("own", 700, ImageState::Ready));
        images.push(image("shared", 701, ImageState::Creating));
        let foreign = Image { labels: BTreeMap::new(), ..image("shared", 702, ImageState::Ready) };
        images.push(foreign);
        let seen = looked_at(images.iter(), &attention);
        assert_eq!(seen.len(), LOOKS_MAX);
        assert_eq!(seen[..3], [599, 598, 597]);
        assert!(looked_at(images.iter(), &Attention::default()).is_empty());
    }

    #[test]
    fn who_is_given_a_role_twice_has_it_once() {
        let given = [("b", "y"), ("a", "x"), ("b", "x"), ("b", "y")];
        let given = given.map(|(role, member)| (role.to_owned(), member.to_owned()));
        let grant = |role: &str, members: &[&str]| Grant {
            role: role.to_owned(),
            members: members.iter().map(|one| (*one).to_owned()).collect(),
        };
        assert_eq!(grants(given), [grant("a", &["x"]), grant("b", &["x", "y"])]);
    }
}
