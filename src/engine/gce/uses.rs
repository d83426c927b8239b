//! What needs an image: disks and instances that were made of it, and templates that will make more.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::GceEngine;
use super::image::{Collection, Found, Place};
use super::number::Numbers;
use super::observe::TEMPLATE_FIELDS;
use super::wire::{ScopedList, last_segment, resource_path};
use crate::engine::EngineError;
use crate::inventory::{ImageState, Stage};

/// So many users of an image are named.
const NAMED_MAX: usize = 5;

/// Users by what they use.
#[derive(Debug, Default)]
pub(super) struct Uses {
    /// By collection and number.
    numbers: BTreeMap<(&'static str, String), BTreeSet<String>>,
    /// By path.
    paths: BTreeMap<String, BTreeSet<String>>,
    /// Of families, by path.
    families: BTreeMap<String, BTreeSet<String>>,
}

impl Uses {
    /// Reads what a zone or a region of a project has.
    pub(super) fn read(&mut self, project: &str, list: &ScopedList) {
        for disk in list.disks.iter().flatten() {
            let name =
                if disk.name.is_empty() { last_segment(&disk.self_link) } else { &disk.name };
            let user = format!("disk {name}");
            self.number(Collection::Images, &disk.source_image_id, &user);
            self.number(Collection::Snapshots, &disk.source_snapshot_id, &user);
            self.number(Collection::MachineImages, &disk.source_machine_image_id, &user);
        }
        for instance in list.instances.iter().flatten() {
            let user = format!("instance {}", instance.name);
            self.path(project, &instance.source_machine_image, &user);
        }
        for template in list.instance_templates.iter().flatten() {
            let user = format!("instance template {}", template.name);
            for disk in &template.properties.disks {
                self.path(project, &disk.initialize_params.source_image, &user);
                self.path(project, &disk.initialize_params.source_snapshot, &user);
            }
        }
    }

    /// The paths that somebody names.
    pub(super) fn named(&self) -> impl Iterator<Item = &String> {
        self.paths.keys().chain(self.families.keys())
    }

    /// The same with the ids of projects.
    pub(super) fn by_id(mut self, numbers: &Numbers) -> Self {
        for paths in [&mut self.paths, &mut self.families] {
            for (mut path, users) in std::mem::take(paths) {
                numbers.by_id(&mut path);
                paths.entry(path).or_default().extend(users);
            }
        }
        self
    }

    fn number(&mut self, collection: Collection, number: &str, user: &str) {
        if !number.is_empty() {
            let key = (collection.word(), number.to_owned());
            self.numbers.entry(key).or_default().insert(user.to_owned());
        }
    }

    fn path(&mut self, project: &str, url: &str, user: &str) {
        if url.is_empty() {
            return;
        }
        let path = match resource_path(url) {
            path if path.starts_with("projects/") => path.to_owned(),
            // Within the project of whoever names it.
            path => format!("projects/{project}/{}", path.trim_start_matches('/')),
        };
        let users =
            if path.contains("/images/family/") { &mut self.families } else { &mut self.paths };
        users.entry(path).or_default().insert(user.to_owned());
    }

    /// Who needs this image by number or name.
    fn of(&self, found: &Found) -> BTreeSet<String> {
        let Place { collection, number, .. } = &found.place;
        let by_number = self.numbers.get(&(collection.word(), number.clone()));
        let all = found.place.all();
        let paths =
            [&found.image.name, number].map(|last| self.paths.get(&format!("{all}/{last}")));
        by_number.into_iter().chain(paths.into_iter().flatten()).flatten().cloned().collect()
    }

    /// Fills in who needs images.
    pub(super) fn fill_in(&self, images: &mut [Found]) {
        // Who names a family takes the newest of it that is not deprecated. Of several of the same time
        // the service alone knows which that is: none of them is free.
        let mut newest: BTreeMap<String, Timestamp> = BTreeMap::new();
        let family = |found: &Found| {
            let image = &found.image;
            let is_active = image.state == ImageState::Ready && image.stage == Stage::Active;
            let family = image.family.as_ref().filter(|_| is_active)?;
            Some(format!("{}/family/{family}", found.place.all()))
        };
        for found in images.iter() {
            if let Some(path) = family(found) {
                let created = found.image.created_at;
                let best = newest.entry(path).or_insert(created);
                *best = (*best).max(created);
            }
        }
        for found in images.iter_mut() {
            let is_newest = |path: &String| newest.get(path) == Some(&found.image.created_at);
            let by_family = family(found).filter(is_newest);
            let by_family = by_family.and_then(|path| self.families.get(&path));
            let mut users = self.of(found);
            users.extend(by_family.into_iter().flatten().cloned());
            found.image.in_use_by = named(users);
        }
    }
}

/// The first of them, and how many there are besides.
fn named(users: BTreeSet<String>) -> Vec<String> {
    let more = users.len().saturating_sub(NAMED_MAX);
    let mut named: Vec<String> = users.into_iter().take(NAMED_MAX).collect();
    if more > 0 {
        named.push(format!("{more} more"));
    }
    named
}

impl GceEngine {
    /// Whether anything needs an image since the plan was made: two requests per project.
    pub(super) async fn refuse_used(&self, found: &Found) -> Result<(), EngineError> {
        let Place { collection, number, .. } = &found.place;
        let field = match collection {
            Collection::MachineImages => "sourceMachineImageId",
            Collection::Images => "sourceImageId",
            Collection::Snapshots => "sourceSnapshotId",
        };
        let (fields, filter) = (format!("name,selfLink,{field}"), format!("{field}={number}"));
        let name = &found.image.name;
        let instances = format!("sourceMachineImage eq \".*/machineImages/({name}|{number})\"");
        for project in self.settings.image_projects() {
            let disks = self.aggregated(project, "disks", &fields, Some(&filter));
            let others = async {
                match collection {
                    Collection::MachineImages => {
                        let fields = "name,sourceMachineImage";
                        self.aggregated(project, "instances", fields, Some(&instances)).await
                    }
                    // Templates are not filtered by what they hold of each disk.
                    Collection::Images | Collection::Snapshots => self.templates(project).await,
                }
            };
            let mut uses = Uses::default();
            for (lists, gaps) in <[_; 2]>::from(tokio::join!(disks, others)) {
                if let Some(gap) = gaps.first() {
                    let message =
                        format!("what needs it is not known: {}: {}", gap.place, gap.message);
                    return Err(EngineError::Failed(message));
                }
                for list in &lists {
                    uses.read(project, list);
                }
            }
            let numbers = self.numbers(uses.named()).await;
            if let Some(why) = uses.named().find_map(|path| numbers.doubt(path)) {
                return Err(EngineError::Failed(format!("what needs it is not known: {why}")));
            }
            let by = named(uses.by_id(&numbers).of(found));
            if !by.is_empty() {
                return Err(EngineError::Refused(format!("it is in use by {}", by.join(", "))));
            }
        }
        Ok(())
    }

    /// What the instance templates of a project need.
    pub(super) async fn templates(
        &self,
        project: &str,
    ) -> (Vec<ScopedList>, Vec<crate::inventory::Gap>) {
        self.aggregated(project, "instanceTemplates", TEMPLATE_FIELDS, None).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::gce::image::Wire;
    use crate::engine::gce::wire::DiskImage;
    use serde_json::json;

    fn image(number: u64, made: &str, state: &str) -> Found {
        let value = json!({
            "id": number.to_string(), "name": format!("image-{number}"), "status": "READY", "family": "web",
            "creationTimestamp": made, "deprecated": {"state": state},
        });
        serde_json::from_value::<DiskImage>(value).unwrap().found("p").unwrap()
    }

    #[test]
    fn users_are_found_by_number_name_and_family() {
        let list: ScopedList = serde_json::from_value(json!({
            "disks": [
                {"name": "d-1", "sourceImageId": "1"},
                {"name": "d-2", "sourceSnapshotId": "1"},
                {"selfLink": "https://x/compute/v1/projects/p/zones/z/disks/d-3", "sourceImageId": 1},
            ],
            "instanceTemplates": [
                {"name": "t-1", "properties": {"disks": [{"initializeParams": {"sourceImage": "global/images/image-2"}}]}},
                {"name": "t-2", "properties": {"disks": [{"initializeParams":
                    {"sourceImage": "https://www.googleapis.com/compute/v1/projects/p/global/images/family/web"}}]}},
            ],
        }))
        .unwrap();
        let mut uses = Uses::default();
        uses.read("p", &list);
        let mut images = [
            image(1, "2026-11-20T00:00:00Z", ""),
            image(2, "2026-11-21T00:00:00Z", "ACTIVE"),
            image(3, "2026-11-22T00:00:00Z", "DEPRECATED"),
        ];
        uses.fill_in(&mut images);
        let by: Vec<_> = images.iter().map(|found| found.image.in_use_by.join("; ")).collect();
        assert_eq!(by, ["disk d-1; disk d-3", "instance template t-1; instance template t-2", ""]);
    }

    #[test]
    fn of_two_images_of_one_time_none_is_free() {
        let list: ScopedList = serde_json::from_value(json!({"instanceTemplates": [
            {"name": "t", "properties": {"disks": [{"initializeParams": {"sourceImage": "global/images/family/web"}}]}},
        ]}))
        .unwrap();
        let mut uses = Uses::default();
        uses.read("p", &list);
        let at = "2026-11-21T00:00:00Z";
        let mut images = [
            image(9, at, ""),
            image(10, at, "ACTIVE"),
            image(11, at, "OBSOLETE"),
            image(8, "2026-11-20T23:59:59Z", ""),
        ];
        uses.fill_in(&mut images);
        let by: Vec<_> = images.iter().map(|found| found.image.in_use_by.join("; ")).collect();
        assert_eq!(by, ["instance template t", "instance template t", "", ""]);
    }

    #[test]
    fn many_users_are_counted() {
        let users = (0..8).map(|number| format!("disk {number}")).collect();
        assert_eq!(named(users)[4..], ["disk 4", "3 more"]);
    }
}
