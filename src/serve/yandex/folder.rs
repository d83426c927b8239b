//! Folders: one for each location of the engine. That of the default one has the name that the server
//! was given, and each other one that name and its own.

use serde_json::json;

use super::answer::{Answer, Refusal};
use super::page;
use super::request::Request;

/// The cloud that the folders are in.
const CLOUD: &str = "local";

/// The folders.
pub struct Folders {
    /// The id of the folder of the default location.
    id: String,
    /// The locations, the default one first.
    locations: Vec<String>,
}

impl Folders {
    /// Folders for the locations of an engine, the default one first.
    pub fn new(id: &str, locations: Vec<String>) -> Self {
        Self { id: id.to_owned(), locations }
    }

    /// The id of the folder with the instances.
    pub fn home(&self) -> &str {
        &self.id
    }

    /// The id of the folder of a location.
    pub fn of(&self, location: &str) -> String {
        if self.locations.iter().skip(1).any(|other| other == location) {
            return format!("{}-{location}", self.id);
        }
        self.id.clone()
    }

    /// The location of a folder that a request names; an error where there is no such folder.
    pub fn location(&self, folder: Option<&str>) -> Result<&str, Refusal> {
        let folder = folder.ok_or_else(|| Refusal::invalid("folderId", "Field is required"))?;
        let mut locations = self.locations.iter();
        let found = locations.find(|location| self.of(location) == folder);
        found.map(String::as_str).ok_or_else(|| Refusal::not_found("Folder", folder))
    }

    /// Whether a folder that a request names is the one with the instances; an error where there is no
    /// such folder.
    pub fn is_home(&self, folder: Option<&str>) -> Result<bool, Refusal> {
        self.location(folder)?;
        Ok(folder == Some(self.id.as_str()))
    }

    /// Refuses to make instances and disks elsewhere than where they are.
    pub fn check_home(&self, folder: Option<&str>) -> Result<(), Refusal> {
        if self.is_home(folder)? {
            return Ok(());
        }
        let only = format!("instances and disks beyond the folder {}", self.id);
        Err(Refusal::not_done(&only))
    }

    /// Answers a request for the one cloud, or for the folders.
    pub fn answer(&self, request: &Request) -> Answer {
        let shown = if request.collection == "clouds" {
            vec![json!({"id": CLOUD, "name": CLOUD})]
        } else {
            let folder = |location: &String| {
                let id = self.of(location);
                json!({"id": id, "cloudId": CLOUD, "name": id, "status": "ACTIVE"})
            };
            self.locations.iter().map(folder).collect()
        };
        match request.parts() {
            ("GET", None, None) => page::list(request, &request.collection, shown),
            ("GET", Some(asked), None) => {
                let found = shown.into_iter().find(|one| one["id"] == asked);
                found.ok_or_else(|| Refusal::not_found("Folder or cloud", asked))
            }
            _ => Err(request.not_done()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_location_is_a_folder() {
        let locations = ["local", "vault", "far"].map(str::to_owned);
        let folders = Folders::new("p", locations.to_vec());
        assert_eq!(locations.each_ref().map(|one| folders.of(one)), ["p", "p-vault", "p-far"]);
        for (folder, location) in [("p", "local"), ("p-vault", "vault"), ("p-far", "far")] {
            assert_eq!(folders.location(Some(folder)).unwrap(), location);
        }
        for nowhere in ["p-local", "vault", "q", ""] {
            assert!(folders.location(Some(nowhere)).is_err(), "{nowhere}");
        }
        assert!(folders.is_home(Some("p")).unwrap() && !folders.is_home(Some("p-far")).unwrap());
        assert!(folders.check_home(Some("p-far")).is_err() && folders.location(None).is_err());
    }
}
