//! What is there: instances with their disks and images of all kinds, over all projects. What was
//! not seen is a gap: a page that fails, a zone that does not answer, an entry that cannot be read.

use std::collections::{BTreeMap, BTreeSet};

use super::call::{Call, CallError};
use super::image::{Collection, Found, GIB, Wire};
use super::wire::{
    self, AggregatedList, DiskImage, List, MachineImage, Project, ScopedList, Snapshot, Warning,
    last_segment, resource_path,
};
use super::{GceEngine, KIND, Source};
use crate::inventory::{Disk, EngineInventory, Gap, GapScope, ImageKind, Instance};
use crate::name::SourceId;

/// Most that the service puts on a page.
const PAGE_LENGTH: &str = "500";
/// The warning of a zone in which there is nothing.
const NOTHING_HERE: &str = "NO_RESULTS_ON_PAGE";
/// What is asked for of each instance.
const INSTANCE_FIELDS: &str =
    "id,name,zone,labels,status,machineType,disks(deviceName,boot,source,type,diskSizeGb)";

/// What was seen of a project.
#[derive(Default)]
struct Seen {
    instances: Vec<wire::Instance>,
    /// Gigabytes of disks by their path.
    disks: BTreeMap<String, u64>,
    images: Vec<Found>,
    gaps: Vec<Gap>,
    limits: BTreeMap<ImageKind, u64>,
}

impl GceEngine {
    pub(super) async fn look(&self) -> EngineInventory {
        let mut inventory = EngineInventory {
            name: self.name.clone(),
            kind: KIND.to_owned(),
            identity: self.identity.clone(),
            gaps: Vec::new(),
            images_seen_before: None,
            capabilities: self.settings.capabilities(),
            instances: Vec::new(),
            images: Vec::new(),
        };
        let mut sources = BTreeMap::new();
        let mut images = Vec::new();
        for project in &self.settings.projects {
            // Without a token nothing is asked, and one message is enough.
            if let Err(error) = self.http.ready().await {
                let gaps = [GapScope::Instances, GapScope::Images];
                inventory
                    .gaps
                    .extend(gaps.into_iter().map(|scope| gap(scope, project, error.to_string())));
                continue;
            }
            let seen = self.look_at(project).await;
            inventory.gaps.extend(seen.gaps);
            // With several projects, how full each is is not how full all are.
            if self.settings.projects.len() == 1 {
                inventory.capabilities.limits.images = seen.limits;
            }
            for instance in seen.instances {
                match read_instance(&instance, &seen.disks) {
                    Ok(read) => {
                        sources.insert(read.id.clone(), source_of(project, &instance));
                        inventory.instances.push(read);
                    }
                    Err(message) => {
                        inventory.gaps.push(gap(GapScope::Instances, project, message));
                    }
                }
            }
            images.extend(seen.images);
        }
        let paths: BTreeMap<String, SourceId> =
            sources.iter().map(|(id, source)| (source.path(), id.clone())).collect();
        for found in &mut images {
            found.name_source(|id| sources.get(id).map(|source| source.name.clone()));
            found.find_source(|path| paths.get(path).cloned());
        }
        self.remember_sources(sources);
        inventory.images = images.into_iter().map(|found| found.image).collect();
        drop_repeated(&mut inventory);
        inventory
    }

    async fn look_at(&self, project: &str) -> Seen {
        let (instances, disks, machine_images, disk_images, snapshots, limits) = tokio::join!(
            self.aggregated(project, "instances", INSTANCE_FIELDS),
            self.aggregated(project, "disks", "selfLink,sizeGb"),
            self.images::<MachineImage>(project, Collection::MachineImages),
            self.images::<DiskImage>(project, Collection::Images),
            self.images::<Snapshot>(project, Collection::Snapshots),
            self.limits(project),
        );
        let mut seen = Seen { limits, ..Seen::default() };
        for (lists, gaps) in [instances, disks] {
            seen.gaps.extend(gaps);
            for list in lists {
                seen.instances.extend(list.instances.into_iter().flatten());
                let sized = list.disks.into_iter().flatten().filter_map(|disk| {
                    Some((resource_path(&disk.self_link).to_owned(), disk.size_gb?))
                });
                seen.disks.extend(sized);
            }
        }
        for (images, gaps) in [machine_images, disk_images, snapshots] {
            seen.images.extend(images);
            seen.gaps.extend(gaps);
        }
        seen
    }

    /// What all zones and regions have of instances or disks.
    async fn aggregated(
        &self,
        project: &str,
        what: &str,
        fields: &str,
    ) -> (Vec<ScopedList>, Vec<Gap>) {
        let call = Call::get(&format!("projects/{project}/aggregated/{what}"))
            .with("maxResults", PAGE_LENGTH)
            .with("fields", format!("kind,nextPageToken,unreachables,warning,items/*/{what}({fields}),items/*/warning"));
        let kind = match what {
            "instances" => "compute#instanceAggregatedList",
            _ => "compute#diskAggregatedList",
        };
        let (pages, error) = self.http.pages::<AggregatedList>(&call, kind).await;
        let mut gaps = Vec::new();
        let mut missing = |place: &str, message: String| {
            let place = format!("{project}/{place}");
            gaps.push(gap(GapScope::Instances, &place, format!("{what}: {message}")));
        };
        let mut lists = Vec::new();
        for page in pages {
            if let Some(message) = told(page.warning.as_ref()) {
                missing("all zones", message);
            }
            for place in &page.unreachables {
                missing(place_of(place), "it does not answer".to_owned());
            }
            let Some(items) = page.items else {
                missing("all zones", "the answer names no zone".to_owned());
                continue;
            };
            for (place, list) in items {
                let is_there = list.instances.is_some() || list.disks.is_some();
                if let Some(message) = told(list.warning.as_ref()) {
                    missing(&place, message);
                } else if !is_there && list.warning.is_none() {
                    missing(&place, "the answer says nothing of it".to_owned());
                }
                lists.push(list);
            }
        }
        if let Some(error) = error {
            missing("all zones", error.to_string());
        }
        (lists, gaps)
    }

    async fn images<T: Wire>(
        &self,
        project: &str,
        collection: Collection,
    ) -> (Vec<Found>, Vec<Gap>) {
        let call = Call::get(&collection.path(project))
            .with("maxResults", PAGE_LENGTH)
            .with("fields", format!("kind,nextPageToken,warning,items({})", collection.fields()));
        let (pages, error) = self.http.pages::<List<T>>(&call, collection.list_kind()).await;
        let place = format!("{project}/{}", collection.word());
        let mut messages: Vec<String> = error.iter().map(CallError::to_string).collect();
        let mut images = Vec::new();
        for page in pages {
            messages.extend(told(page.warning.as_ref()));
            for item in page.items {
                match item.found(project) {
                    Ok(found) => images.push(found),
                    Err(message) => messages.push(message),
                }
            }
        }
        let gaps = messages.into_iter().map(|message| gap(GapScope::Images, &place, message));
        (images, gaps.collect())
    }

    /// How many images of each kind the project may have. It is no gap where that is not told:
    /// nothing that is deleted depends on it.
    async fn limits(&self, project: &str) -> BTreeMap<ImageKind, u64> {
        let call = Call::get(&format!("projects/{project}")).with("fields", "quotas(metric,limit)");
        let quotas = match self.http.send::<Project>(&call).await {
            Ok(project) => project.quotas,
            Err(error) => {
                tracing::warn!("the quotas of {project} cannot be read: {error}");
                return BTreeMap::new();
            }
        };
        [ImageKind::MachineImage, ImageKind::DiskImage, ImageKind::Snapshot]
            .into_iter()
            .filter_map(|kind| {
                let metric = Collection::of(kind).metric();
                let quota = quotas.iter().find(|quota| quota.metric == metric)?;
                Some((kind, whole(quota.limit)?))
            })
            .collect()
    }

    /// Where a source is now. `fresh` asks again, whatever is remembered.
    pub(super) async fn locate(&self, id: &SourceId, fresh: bool) -> Result<Source, String> {
        if let Some(source) = self.known_source(id).filter(|_| !fresh) {
            return Ok(source);
        }
        let mut sources = BTreeMap::new();
        let mut unseen = Vec::new();
        for project in &self.settings.projects {
            let (lists, gaps) = self.aggregated(project, "instances", "id,name,zone").await;
            unseen.extend(gaps);
            for instance in lists.into_iter().flat_map(|list| list.instances.into_iter().flatten())
            {
                if let Ok(id) = SourceId::parse(&instance.id) {
                    sources.insert(id, source_of(project, &instance));
                }
            }
        }
        let found = sources.get(id).cloned();
        self.remember_sources(sources);
        found.ok_or_else(|| {
            let why = unseen.first().map(|gap| format!(" ({}: {})", gap.place, gap.message));
            format!("there is no instance with the id {id}{}", why.unwrap_or_default())
        })
    }
}

/// A limit as a whole number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range is looked at"
)]
fn whole(limit: f64) -> Option<u64> {
    (0.0..1e15).contains(&limit).then_some(limit as u64)
}

fn gap(scope: GapScope, place: &str, message: String) -> Gap {
    Gap { scope, place: place.to_owned(), message }
}

/// What a warning says, where it is one of something that was not seen.
fn told(warning: Option<&Warning>) -> Option<String> {
    let warning = warning.filter(|warning| warning.code != NOTHING_HERE)?;
    Some(format!("{} ({})", warning.message, warning.code))
}

/// `zones/us-central1-a` of a URL or of what is that already.
fn place_of(url: &str) -> &str {
    let at = url.find("zones/").or_else(|| url.find("regions/"));
    at.map_or(url, |at| &url[at..])
}

fn source_of(project: &str, instance: &wire::Instance) -> Source {
    Source {
        project: project.to_owned(),
        zone: last_segment(&instance.zone).to_owned(),
        name: instance.name.clone(),
    }
}

fn read_instance(
    instance: &wire::Instance,
    disks: &BTreeMap<String, u64>,
) -> Result<Instance, String> {
    let id =
        SourceId::parse(&instance.id).map_err(|error| format!("{}: {error}", instance.name))?;
    let mut attached: Vec<&wire::AttachedDisk> = instance.disks.iter().collect();
    attached.sort_by_key(|disk| !disk.boot);
    let disks = attached.into_iter().map(|disk| {
        let size = disks.get(resource_path(&disk.source)).copied().or(disk.disk_size_gb);
        let is_scratch = disk.r#type == "SCRATCH";
        let problem =
            "is part of the machine and cannot be captured; leave it out with `capture.disks`";
        Disk {
            name: disk.device_name.clone(),
            boot: disk.boot,
            size_bytes: size.map(|size| size * GIB),
            problem: is_scratch.then(|| format!("{} {problem}", disk.device_name)),
        }
    });
    Ok(Instance {
        id,
        name: instance.name.clone(),
        zone: last_segment(&instance.zone).to_owned(),
        labels: instance.labels.clone(),
        status: instance.status.clone(),
        machine_type: last_segment(&instance.machine_type).to_owned(),
        disks: disks.collect(),
    })
}

/// Puts everything in order. What has moved to the next page while pages were read is there twice;
/// two instances with one id are a reason to look closer.
fn drop_repeated(inventory: &mut EngineInventory) {
    inventory.images.sort_by(|one, other| (&one.name, &one.id).cmp(&(&other.name, &other.id)));
    inventory.images.dedup_by(|later, first| later.id == first.id);
    inventory.instances.sort_by(|one, other| (&one.id, &one.name).cmp(&(&other.id, &other.name)));
    inventory.instances.dedup();
    let mut seen = BTreeSet::new();
    let twice = inventory.instances.iter().find(|instance| !seen.insert(instance.id.clone()));
    if let Some(instance) = twice {
        let message = format!("the id {} was seen on two instances", instance.id);
        inventory.gaps.push(gap(GapScope::Instances, &instance.name, message));
        inventory.instances.dedup_by(|later, first| later.id == first.id);
    }
    inventory.gaps.sort();
    inventory.gaps.dedup();
}
