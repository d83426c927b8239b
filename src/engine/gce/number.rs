//! Projects by their numbers. The service names a project by its id or by its number, as whoever made a
//! resource has named it; what is compared has the id.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use serde::Deserialize;

use super::GceEngine;
use super::wire::identifier;
use crate::engine::http::Call;

/// A project, as far as it says what its number is.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Numbered {
    #[serde(deserialize_with = "identifier")]
    id: String,
}

/// The ids of projects by their numbers.
#[derive(Debug, Clone, Default)]
pub(super) struct Numbers {
    ids: BTreeMap<String, String>,
    /// Why those of some projects are not known.
    unknown: Option<String>,
}

impl Numbers {
    /// Why it is not known whether a path is of a project of this engine, where it is not.
    pub(super) fn doubt(&self, path: &str) -> Option<&str> {
        let (number, _) = numbered(path)?;
        self.unknown.as_deref().filter(|_| !self.ids.contains_key(number))
    }

    /// A path with the id of its project.
    pub(super) fn by_id(&self, path: &mut String) {
        let Some((number, rest)) = numbered(path) else { return };
        if let Some(id) = self.ids.get(number) {
            *path = format!("projects/{id}/{rest}");
        }
    }
}

/// The number of the project of a path, and what is behind it, where it has one.
fn numbered(path: &str) -> Option<(&str, &str)> {
    let (project, rest) = path.strip_prefix("projects/")?.split_once('/')?;
    let is_number = !project.is_empty() && project.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some((project, rest))
}

impl GceEngine {
    /// The numbers of the projects of this engine, where any of the paths names one by its number: one
    /// request for each project, once.
    pub(super) async fn numbers<'p>(
        &self,
        mut paths: impl Iterator<Item = &'p String> + Send,
    ) -> Numbers {
        if !paths.any(|path| numbered(path).is_some()) {
            return Numbers::default();
        }
        let known = self.numbers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = known {
            return known;
        }
        let mut numbers = Numbers::default();
        for project in self.settings.image_projects() {
            let call = Call::get(&format!("projects/{project}")).with("fields", "id");
            match self.http.send::<Numbered>(&call).await {
                Ok(Numbered { id }) => drop(numbers.ids.insert(id, project.clone())),
                Err(error) => {
                    numbers.unknown =
                        Some(format!("the number of {project} is not known: {error}"));
                }
            }
        }
        if numbers.unknown.is_none() {
            let mut known = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
            *known = Some(numbers.clone());
        }
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_by_number_is_one_by_id() {
        let ids = [("123".to_owned(), "shop".to_owned())].into();
        let numbers = Numbers { ids, unknown: Some("away".to_owned()) };
        for (path, wanted) in [
            ("projects/123/zones/z/disks/d", "projects/shop/zones/z/disks/d"),
            ("projects/124/zones/z/disks/d", "projects/124/zones/z/disks/d"),
            ("projects/shop/zones/123/disks/d", "projects/shop/zones/123/disks/d"),
            ("123", "123"),
        ] {
            let mut path = path.to_owned();
            numbers.by_id(&mut path);
            assert_eq!(path, wanted);
        }
        // Of a project that says nothing nobody knows whether it is the one of a path.
        assert_eq!(numbers.doubt("projects/124/zones/z/disks/d"), Some("away"));
        assert_eq!(numbers.doubt("projects/123/zones/z/disks/d"), None);
        assert_eq!(numbers.doubt("projects/shop/zones/z/disks/d"), None);
    }
}
