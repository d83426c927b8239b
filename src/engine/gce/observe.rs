//! What is there: instances with their disks and images of all kinds, over all projects. What was
//! not seen is a gap: a page that fails, a zone that does not answer, an entry that cannot be read.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;

use super::call::CallError;
use super::image::{Collection, Found, GIB, Wire};
use super::origin::Origins;
use super::rhythm::region_of;
use super::uses::Uses;
use super::via::judge_steps;
use super::wire::{
    self, AggregatedList, DiskImage, List, MachineImage, Project, Region, ScopedList, Snapshot,
    SnapshotSettings, Warning, last_segment, resource_path,
};
use super::{GceEngine, KIND, SET_PATIENCE, Source};
use crate::engine::http::Call;
use crate::engine::set;
use crate::inventory::{Disk, EngineInventory, Gap, GapScope, ImageKind, Instance};
use crate::name::SourceId;

/// Most that the service puts on a page.
const PAGE_LENGTH: &str = "500";
/// The warning of a zone in which there is nothing.
const NOTHING_HERE: &str = "NO_RESULTS_ON_PAGE";
/// What is asked for of each instance.
const INSTANCE_FIELDS: &str = "id,name,zone,creationTimestamp,labels,status,machineType,disks(deviceName,boot,source,type,diskSizeGb),sourceMachineImage";

/// What is asked for of each disk.
const DISK_FIELDS: &str =
    "name,selfLink,sizeGb,sourceImageId,sourceSnapshotId,sourceMachineImageId";
/// What lists of instance templates are called.
const TEMPLATES: &str = "instanceTemplates";
/// What is asked for of each instance template.
pub(super) const TEMPLATE_FIELDS: &str =
    "name,properties/disks/initializeParams(sourceImage,sourceSnapshot)";
/// So many regions are asked side by side.
const REGIONS_AT_ONCE: usize = 10;
/// What a project says that has not said otherwise where snapshots are stored.
const NEAREST: &str = "NEAREST_MULTI_REGION";

/// What was seen of a project with instances.
#[derive(Default)]
struct Seen {
    instances: Vec<wire::Instance>,
    /// Gigabytes of disks by their path.
    disks: BTreeMap<String, u64>,
    gaps: Vec<Gap>,
}

/// What was seen of the images of a project.
#[derive(Default)]
struct SeenImages {
    images: Vec<Found>,
    gaps: Vec<Gap>,
    limits: BTreeMap<ImageKind, u64>,
    /// Whether it stores snapshots elsewhere than where all do, or does not say.
    is_stored_elsewhere: bool,
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
        let mut uses = Uses::default();
        let mut origins = Origins::default();
        for project in &self.settings.projects {
            // Without a token nothing is asked, and one message is enough.
            if let Err(error) = self.http.ready().await {
                let gaps = [GapScope::Instances, GapScope::Images];
                inventory
                    .gaps
                    .extend(gaps.into_iter().map(|scope| gap(scope, project, error.to_string())));
                continue;
            }
            let seen = self.look_at(project, &mut uses).await;
            inventory.gaps.extend(seen.gaps);
            for instance in seen.instances {
                match read_instance(&instance, &seen.disks) {
                    Ok(mut read) => {
                        self.images_made_in(project).clone_into(&mut read.project);
                        let source = source_of(project, &instance);
                        origins.add(&source, &instance, &read.id);
                        sources.insert(read.id.clone(), source);
                        inventory.instances.push(read);
                    }
                    Err(message) => {
                        inventory.gaps.push(gap(GapScope::Instances, project, message));
                    }
                }
            }
        }
        // What is made of images beside them needs them as well; nothing there is a source.
        for project in self.settings.projects_of_images_alone() {
            match self.http.ready().await {
                Ok(()) => inventory.gaps.extend(self.look_at(project, &mut uses).await.gaps),
                Err(error) => {
                    inventory.gaps.push(gap(GapScope::Instances, project, error.to_string()));
                }
            }
        }
        let regions: BTreeSet<&str> =
            sources.values().map(|source| region_of(&source.zone)).collect();
        // Each region takes so many; what the settings say is for all of them together.
        if self.settings.captures.is_none() {
            inventory.capabilities.captures_max *= regions.len().max(1);
        }
        let mut images = self.look_at_images(&mut inventory).await;
        let (origins, doubt) = self.name_by_ids(&mut images, origins, uses).await;
        inventory.gaps.extend(doubt.map(|why| gap(GapScope::Images, "who uses images", why)));
        for found in &mut images {
            found.name_source(|id| sources.get(id).map(|source| source.name.clone()));
            origins.fill_in(found);
        }
        let captured = images.iter().filter_map(|found| origins.capture_of(found));
        let now = self.clock.now();
        self.rhythm.saw(captured, now);
        judge_steps(&mut images, now);
        self.look_at_sharing(&mut images).await;
        self.remember_sources(sources);
        let images = images.into_iter().map(|found| found.image).collect();
        inventory.images = set::gathered(images, now, SET_PATIENCE);
        inventory.put_in_order();
        inventory
    }

    /// The images of all projects that may hold some.
    async fn look_at_images(&self, inventory: &mut EngineInventory) -> Vec<Found> {
        let mut images = Vec::new();
        let mut is_stored_elsewhere = false;
        let projects: Vec<&String> = self.settings.image_projects().collect();
        for project in &projects {
            if let Err(error) = self.http.ready().await {
                inventory.gaps.push(gap(GapScope::Images, project, error.to_string()));
                continue;
            }
            let seen = self.images_of(project).await;
            inventory.gaps.extend(seen.gaps);
            if !seen.limits.is_empty() {
                let limits = &mut inventory.capabilities.limits.images_by_project;
                limits.insert((*project).clone(), seen.limits);
            }
            is_stored_elsewhere |= seen.is_stored_elsewhere;
            images.extend(seen.images);
        }
        if is_stored_elsewhere {
            inventory.capabilities.default_locations.clear();
        }
        images
    }

    async fn look_at(&self, project: &str, uses: &mut Uses) -> Seen {
        let (instances, disks, templates) = tokio::join!(
            self.aggregated(project, "instances", INSTANCE_FIELDS, None),
            self.aggregated(project, "disks", DISK_FIELDS, None),
            self.templates(project),
        );
        let mut seen = Seen::default();
        for (lists, gaps) in [instances, disks, templates] {
            seen.gaps.extend(gaps);
            for list in lists {
                uses.read(project, &list);
                seen.instances.extend(list.instances.into_iter().flatten());
                let sized = list.disks.into_iter().flatten().filter_map(|disk| {
                    Some((resource_path(&disk.self_link).to_owned(), disk.size_gb?))
                });
                seen.disks.extend(sized);
            }
        }
        seen
    }

    async fn images_of(&self, project: &str) -> SeenImages {
        let [machines, disks, plain] =
            [Collection::MachineImages, Collection::Images, Collection::Snapshots]
                .map(|collection| collection.path(project));
        let (machine_images, disk_images, snapshots, regional, limits, is_stored_elsewhere) = tokio::join!(
            self.images::<MachineImage>(project, Collection::MachineImages, machines, None),
            self.images::<DiskImage>(project, Collection::Images, disks, None),
            self.snapshots_at(project, &plain, None),
            self.regional_snapshots(project),
            self.limits(project),
            self.is_stored_elsewhere(project),
        );
        let mut seen = SeenImages { limits, is_stored_elsewhere, ..SeenImages::default() };
        for (images, gaps) in [machine_images, disk_images, snapshots, regional] {
            seen.images.extend(images);
            seen.gaps.extend(gaps);
        }
        seen
    }

    /// The snapshots below a path, all or those that a filter lets through.
    pub(super) async fn snapshots_at(
        &self,
        project: &str,
        path: &str,
        filter: Option<&str>,
    ) -> (Vec<Found>, Vec<Gap>) {
        self.images::<Snapshot>(project, Collection::Snapshots, path.to_owned(), filter).await
    }

    /// The snapshots that are of one region each. There is no list over all regions.
    async fn regional_snapshots(&self, project: &str) -> (Vec<Found>, Vec<Gap>) {
        let call = Call::get(&format!("projects/{project}/regions"))
            .with("maxResults", PAGE_LENGTH)
            .with("fields", "kind,nextPageToken,warning,items(name)");
        let (pages, error) = self.http.pages::<List<Region>>(&call, "compute#regionList").await;
        // A service that has no regions has nothing in them.
        let error = error.filter(|error| !is_nothing_offered(&pages, error));
        let (mut found, mut gaps) = (Vec::new(), Vec::new());
        let names: Vec<String> =
            pages.into_iter().flat_map(|page| page.items).map(|region| region.name).collect();
        for some in names.chunks(REGIONS_AT_ONCE) {
            let looks = some.iter().map(|region| async move {
                let path = format!("projects/{project}/regions/{region}/snapshots");
                self.snapshots_at(project, &path, None).await
            });
            for (images, missing) in join_all(looks).await {
                found.extend(images);
                gaps.extend(missing);
            }
        }
        if let Some(error) = error {
            let place = format!("{project}/regions");
            gaps.push(gap(GapScope::Images, &place, error.to_string()));
        }
        (found, gaps)
    }

    /// Whether a project stores snapshots elsewhere than in the closest multi-region, or does not
    /// say. A plan then names no location.
    async fn is_stored_elsewhere(&self, project: &str) -> bool {
        let call = Call::get(&format!("projects/{project}/global/snapshotSettings"))
            .with("fields", "storageLocation/policy");
        match self.http.send::<SnapshotSettings>(&call).await {
            Ok(settings) => {
                let policy = settings.storage_location.policy;
                !policy.is_empty() && policy != NEAREST
            }
            Err(error) => {
                tracing::debug!("where {project} stores snapshots is not known: {error}");
                true
            }
        }
    }

    /// What all zones and regions have of instances or disks.
    pub(super) async fn aggregated(
        &self,
        project: &str,
        what: &str,
        fields: &str,
        filter: Option<&str>,
    ) -> (Vec<ScopedList>, Vec<Gap>) {
        // Lists of templates do not say so, and to ask for a field that is not there is a mistake.
        let unreachables = if what == TEMPLATES { "" } else { "unreachables," };
        let fields = format!(
            "kind,nextPageToken,{unreachables}warning,items/*/{what}({fields}),items/*/warning"
        );
        let mut call = Call::get(&format!("projects/{project}/aggregated/{what}"))
            .with("maxResults", PAGE_LENGTH)
            .with("fields", fields);
        if let Some(filter) = filter {
            call = call.with("filter", filter);
        }
        let kind = match what {
            "instances" => "compute#instanceAggregatedList",
            TEMPLATES => "compute#instanceTemplateAggregatedList",
            _ => "compute#diskAggregatedList",
        };
        let (pages, error) = self.http.pages::<AggregatedList>(&call, kind).await;
        // A service without templates has none.
        let error = error.filter(|error| what != TEMPLATES || !is_nothing_offered(&pages, error));
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
            let Some(items) = page.items.filter(|items| !items.is_empty()) else {
                missing("all zones", "the answer names no zone".to_owned());
                continue;
            };
            for (place, list) in items {
                let is_there = list.instances.is_some()
                    || list.disks.is_some()
                    || list.instance_templates.is_some();
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
        path: String,
        filter: Option<&str>,
    ) -> (Vec<Found>, Vec<Gap>) {
        let mut call = Call::get(&path)
            .with("maxResults", PAGE_LENGTH)
            .with("fields", format!("kind,nextPageToken,warning,items({})", collection.fields()));
        if let Some(filter) = filter {
            call = call.with("filter", filter);
        }
        let (pages, error) = self.http.pages::<List<T>>(&call, collection.list_kind()).await;
        let is_regional = path.contains("/regions/");
        let place = path.replacen("projects/", "", 1).replacen("/global/", "/", 1);
        // A region without snapshots of its own has none.
        let error = error.filter(|error| !is_regional || !is_nothing_offered(&pages, error));
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

    /// How many images of each kind a project may have that images are made in. It is no gap where that is not told:
    /// nothing that is deleted depends on it.
    async fn limits(&self, project: &str) -> BTreeMap<ImageKind, u64> {
        if !self.settings.made_in().any(|made_in| made_in == project) {
            return BTreeMap::new();
        }
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
        let unseen = self.look_for_sources().await;
        self.known_source(id).ok_or_else(|| {
            let why = unseen.first().map(|gap| format!(" ({}: {})", gap.place, gap.message));
            format!("there is no instance with the id {id}{}", why.unwrap_or_default())
        })
    }

    /// Looks where all sources are, where that was never done: what comes back names them.
    pub(super) async fn know_sources(&self) {
        if self.knows_no_source() {
            self.look_for_sources().await;
        }
    }

    async fn look_for_sources(&self) -> Vec<Gap> {
        let mut sources = BTreeMap::new();
        let mut unseen = Vec::new();
        for project in &self.settings.projects {
            let (lists, gaps) = self.aggregated(project, "instances", "id,name,zone", None).await;
            unseen.extend(gaps);
            for instance in lists.into_iter().flat_map(|list| list.instances.into_iter().flatten())
            {
                if let Ok(id) = SourceId::parse(&instance.id) {
                    sources.insert(id, source_of(project, &instance));
                }
            }
        }
        self.remember_sources(sources);
        unseen
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

/// Whether a list is one that the service does not know: no page of it was ever there.
fn is_nothing_offered<P>(pages: &[P], error: &CallError) -> bool {
    pages.is_empty() && error.is_not_offered()
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
            kms_key: None,
            problem: is_scratch.then(|| format!("{} {problem}", disk.device_name)),
        }
    });
    Ok(Instance {
        id,
        name: instance.name.clone(),
        zone: last_segment(&instance.zone).to_owned(),
        labels: instance.labels.clone(),
        status: instance.status.clone(),
        project: String::new(),
        machine_type: last_segment(&instance.machine_type).to_owned(),
        disks: disks.collect(),
    })
}
