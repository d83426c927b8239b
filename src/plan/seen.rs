//! Which names and ids there are among a million images, without holding or sorting their texts.

use std::cell::OnceCell;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::inventory::Image;

/// The names of the images of an engine.
pub(super) struct Names<'a> {
    images: &'a [Image],
    /// Sorted, and made when a name is first asked for.
    hashes: OnceCell<Vec<u64>>,
}

impl<'a> Names<'a> {
    pub(super) fn of(images: &'a [Image]) -> Self {
        Self { images, hashes: OnceCell::new() }
    }

    /// Whether an image has this name.
    pub(super) fn contains(&self, name: &str) -> bool {
        let hashes = self.hashes.get_or_init(|| sorted_hashes(self.images, |image| &image.name));
        // Two names may have one hash: then the names themselves decide.
        hashes.binary_search(&hash(name)).is_ok()
            && self.images.iter().any(|image| image.name == name)
    }
}

/// The smallest id that is there twice.
pub(super) fn id_twice(images: &[Image]) -> Option<String> {
    let hashes = sorted_hashes(images, |image| &image.id);
    if hashes.windows(2).all(|pair| pair[0] != pair[1]) {
        return None;
    }
    let mut ids: Vec<&str> = images.iter().map(|image| image.id.as_str()).collect();
    ids.sort_unstable();
    ids.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0].to_owned())
}

fn sorted_hashes(images: &[Image], text: fn(&Image) -> &str) -> Vec<u64> {
    let mut hashes: Vec<u64> = images.iter().map(|image| hash(text(image))).collect();
    hashes.sort_unstable();
    hashes
}

/// The same for the same text on every run: nothing is seeded.
fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(ids: &[&str]) -> Vec<Image> {
        let image = |id: &&str| {
            serde_json::from_value(serde_json::json!({
                "id": id, "name": format!("name-{id}"), "state": "READY",
                "created_at": "2026-11-21T00:00:00Z",
            }))
        };
        ids.iter().map(image).collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn what_is_there_is_found() {
        let images = images(&["b", "a", "c"]);
        let names = Names::of(&images);
        assert!(names.contains("name-a") && names.contains("name-c"));
        assert!(!names.contains("name-d") && !names.contains("a"));
        assert!(!Names::of(&[]).contains("name-a"));
    }

    #[test]
    fn the_smallest_of_the_ids_that_are_there_twice_is_said() {
        assert_eq!(id_twice(&images(&["b", "a", "c"])), None);
        assert_eq!(id_twice(&images(&["c", "b", "a", "c", "b"])), Some("b".to_owned()));
        assert_eq!(id_twice(&[]), None);
    }
}
