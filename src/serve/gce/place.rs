//! The project, its quotas, its zones and regions.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::Inner;
use super::answer::{Answer, Refusal};
use super::link::{Links, Scope, region_of};
use super::page;
use super::request::Request;
use crate::inventory::{EngineInventory, ImageKind};
use crate::serve::stock::{Machine, number_of};

/// The embedded engine has no quotas; clients that look for some find these.
const LIMIT: f64 = 100_000.0;

/// The instances: a disk that is attached to none is no instance.
fn instances(machines: &[Machine]) -> impl Iterator<Item = &Machine> {
    machines.iter().filter(|machine| !machine.is_loose)
}

/// Answers a request for the project.
pub fn project(
    request: &Request,
    links: &Links,
    machines: &[Machine],
    seen: &EngineInventory,
) -> Answer {
    if request.method != "GET" {
        return Err(request.not_done());
    }
    let quota =
        |metric: &str, usage: usize| json!({"metric": metric, "limit": LIMIT, "usage": usage});
    let of_images = |kind: ImageKind| {
        quota(metric(kind), seen.images.iter().filter(|image| image.kind == kind).count())
    };
    Ok(json!({
        "kind": "compute#project",
        "id": number_of(&links.project),
        "name": links.project,
        "selfLink": links.link(&Scope::Project, "", ""),
        "quotas": [
            of_images(ImageKind::Snapshot),
            of_images(ImageKind::DiskImage),
            of_images(ImageKind::MachineImage),
            quota("INSTANCES", instances(machines).count()),
        ],
    }))
}

/// What the quota of images of a kind is called.
pub fn metric(kind: ImageKind) -> &'static str {
    match kind {
        ImageKind::MachineImage => "MACHINE_IMAGES",
        ImageKind::DiskImage => "IMAGES",
        ImageKind::Snapshot => "SNAPSHOTS",
    }
}

/// Where snapshots are stored that do not say where: the first location of the engine.
pub fn snapshot_settings(request: &Request, seen: &EngineInventory) -> Answer {
    let ("GET", None, None) = request.parts() else { return Err(request.not_done()) };
    let Some(location) = seen.capabilities.locations.first() else {
        return Ok(json!({}));
    };
    let mut locations = serde_json::Map::new();
    locations.insert(location.clone(), json!({"name": location}));
    Ok(json!({"storageLocation": {"policy": "SPECIFIC_LOCATIONS", "locations": locations}}))
}

/// Answers a request for what the data centre knows nothing of.
pub fn none(request: &Request, links: &Links, kind: &str) -> Answer {
    match request.parts() {
        ("GET", None, None) => page::list(request, links, kind, Vec::new()),
        (_, Some(name), _) => {
            Err(Refusal::not_found(&links.path(&request.scope, &request.collection, name)))
        }
        _ => Err(request.not_done()),
    }
}

fn zone_names(machines: &[Machine]) -> BTreeSet<&str> {
    machines.iter().map(Machine::zone).collect()
}

fn zone_json(links: &Links, zone: &str) -> Value {
    json!({
        "kind": "compute#zone",
        "id": number_of(&format!("zone {zone}")),
        "name": zone,
        "description": zone,
        "status": "UP",
        "region": links.region(region_of(zone)),
        "selfLink": links.zone(zone),
    })
}

/// Answers a request for zones: those that instances are in.
pub fn zones(request: &Request, links: &Links, machines: &[Machine]) -> Answer {
    let zones = zone_names(machines);
    match request.parts() {
        ("GET", None, None) => {
            let shown = zones.into_iter().map(|zone| zone_json(links, zone)).collect();
            page::list(request, links, "zone", shown)
        }
        ("GET", Some(name), None) => match zones.get(name) {
            Some(zone) => Ok(zone_json(links, zone)),
            None => Err(Refusal::not_found(&links.path(&Scope::Project, "zones", name))),
        },
        _ => Err(request.not_done()),
    }
}

/// Answers a request for regions: those that zones are in, and `others` that something else is in.
pub fn regions(
    request: &Request,
    links: &Links,
    machines: &[Machine],
    others: &BTreeSet<String>,
) -> Answer {
    let mut regions: BTreeMap<&str, Vec<&str>> =
        others.iter().map(|region| (region.as_str(), Vec::new())).collect();
    for zone in zone_names(machines) {
        regions.entry(region_of(zone)).or_default().push(zone);
    }
    let shown = |region: &str, zones: &[&str]| {
        let is_here = |machine: &&Machine| region_of(machine.zone()) == region;
        let usage = instances(machines).filter(is_here).count();
        json!({
            "kind": "compute#region",
            "id": number_of(&format!("region {region}")),
            "name": region,
            "description": region,
            "status": "UP",
            "zones": zones.iter().map(|zone| links.zone(zone)).collect::<Vec<_>>(),
            "quotas": [{"metric": "INSTANCES", "limit": LIMIT, "usage": usage}],
            "selfLink": links.region(region),
        })
    };
    match request.parts() {
        ("GET", None, None) => {
            let all = regions.iter().map(|(region, zones)| shown(region, zones)).collect();
            page::list(request, links, "region", all)
        }
        ("GET", Some(name), None) => match regions.get(name) {
            Some(zones) => Ok(shown(name, zones)),
            None => Err(Refusal::not_found(&links.path(&Scope::Project, "regions", name))),
        },
        _ => Err(request.not_done()),
    }
}

impl Inner {
    /// Regions that something is in beside zones: snapshots, templates and resource policies.
    pub(super) async fn other_regions(&self) -> Result<BTreeSet<String>, Refusal> {
        let mut regions = self.described_regions().await?;
        regions.extend(self.snapshot_regions());
        Ok(regions)
    }

    /// Regions that snapshots are in, or will be.
    fn snapshot_regions(&self) -> BTreeSet<String> {
        let stored = self.shelf.all().into_iter().filter_map(|kept| kept.region);
        let pending = self.lock_pending();
        let coming = pending.values().filter_map(|pending| pending.kept.region.clone());
        stored.chain(coming).collect()
    }

    /// Refuses a list of a zone or a region that nothing is in: an empty one would say that it is there.
    pub(super) async fn refuse_nowhere(&self, request: &Request) -> Result<(), Refusal> {
        if request.parts() != ("GET", None, None) {
            return Ok(());
        }
        // An operation outlives the last thing of its zone.
        let is_busy = || self.operations.is_any_in(&request.scope);
        let (place, name, is_there) = match &request.scope {
            Scope::Zone(zone) => {
                let is_it = |machine: &Machine| machine.zone() == zone;
                ("zones", zone, is_busy() || self.world().await?.iter().any(is_it))
            }
            Scope::Region(region) => {
                let is_it = |machine: &Machine| region_of(machine.zone()) == region;
                let is_there = is_busy()
                    || self.snapshot_regions().contains(region)
                    || self.world().await?.iter().any(is_it)
                    || self.described_regions().await?.contains(region);
                ("regions", region, is_there)
            }
            _ => return Ok(()),
        };
        if is_there {
            return Ok(());
        }
        Err(Refusal::not_found(&self.links.path(&Scope::Project, place, name)))
    }
}
