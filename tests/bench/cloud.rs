//! A large project of a cloud, observed and planned over HTTP on a port of this machine.

#[allow(dead_code, reason = "tests use more of it")]
#[path = "../it/gce/fake.rs"]
mod fake;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use fake::Fake;
use serde_json::{Value, json};
use stillframe::clock::FixedClock;
use stillframe::engine::Engine;
use stillframe::engine::gce::GceEngine;
use stillframe::engine::http::RealTime;
use stillframe::inventory::{FORMAT_VERSION, Image, Instance, Inventory};
use stillframe::plan::plan;

use crate::{row, seconds, world};

const INSTANCES: usize = 2_000;
const IMAGES: usize = 10_000;
/// Pages of 500: four of instances, four of disks, twenty of machine images. Once each: images,
/// snapshots, the settings of snapshots, instance templates, the project, regions.
pub const CALLS_MAX: usize = 34;
/// What a release build may take.
const SECONDS_MAX: f64 = 3.0;
const PROJECT: &str = "p";

pub fn run() {
    let world = world::inventory(INSTANCES);
    let [seen] = world.engines.as_slice() else { panic!("one engine") };
    let fake = Fake::new(world::now());
    fill(&fake, &seen.instances, &seen.images[seen.images.len() - IMAGES..]);
    let policies = world::policies(world::policies_of(INSTANCES));
    let settings = json!({"projects": [PROJECT], "endpoint": format!("http://{}", fake.address)});
    let clock = Arc::new(FixedClock(world::now()));
    let pause = Arc::new(RealTime);
    let engine = GceEngine::open("memory", &settings, Path::new("/"), clock, pause).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();

    let began = Instant::now();
    let observed = runtime.block_on(engine.observe());
    let observing = began.elapsed();
    assert!(observed.is_complete(), "{:?}", observed.gaps);
    assert_eq!((observed.images.len(), observed.instances.len()), (IMAGES, INSTANCES));
    let inventory = Inventory {
        format_version: FORMAT_VERSION.to_owned(),
        observed_at: world::now(),
        engines: vec![observed],
    };
    let planned = plan(&policies, &inventory, world::now());
    let all = began.elapsed();

    let calls = fake.state().log.len();
    assert!(calls <= CALLS_MAX, "{calls} calls");
    println!(
        "{IMAGES} images, {INSTANCES} instances, {calls} calls, {} changes",
        planned.changes.len()
    );
    row("observe them over loopback", &seconds(observing), None, None);
    let all_seconds = all.as_secs_f64();
    row(
        "observe and plan (the limit is in seconds)",
        &seconds(all),
        Some(all_seconds),
        Some(SECONDS_MAX),
    );
}

fn fill(fake: &Fake, instances: &[Instance], images: &[Image]) {
    let mut state = fake.state();
    let url = |path: &str| format!("https://www.googleapis.com/compute/v1/{path}");
    let disk = |instance: &str, zone: &str| {
        let path = format!("projects/{PROJECT}/zones/{zone}/disks/{instance}-boot");
        let shown = json!({
            "deviceName": "boot", "boot": true, "type": "PERSISTENT", "diskSizeGb": "50",
            "source": url(&path),
        });
        (path, shown)
    };
    for instance in instances {
        let zone = format!("projects/{PROJECT}/zones/{}", instance.zone);
        let (path, attached) = disk(&instance.name, &instance.zone);
        let shown = json!({
            "id": instance.id.as_str(), "name": instance.name, "zone": url(&zone),
            "labels": instance.labels, "status": instance.status,
            "machineType": url(&format!("{zone}/machineTypes/{}", instance.machine_type)),
            "disks": [attached],
        });
        state.instances.insert(format!("{zone}/instances/{}", instance.name), shown);
        state.disks.insert(path.clone(), json!({"selfLink": url(&path), "sizeGb": "50"}));
    }
    let zones: std::collections::BTreeMap<&str, &str> =
        instances.iter().map(|one| (one.name.as_str(), one.zone.as_str())).collect();
    let shown = images.iter().map(|image| {
        let source = image.source.as_ref().unwrap();
        let zone = zones[source.name.as_str()];
        let shown: Value = json!({
            "project": PROJECT, "id": image.id, "name": image.name, "status": "READY",
            "creationTimestamp": image.created_at.to_string(), "labels": image.labels,
            "labelFingerprint": "AAAA", "storageLocations": [image.location],
            "totalStorageBytes": image.stored_bytes.unwrap().to_string(),
            "sourceInstance": url(&format!("projects/{PROJECT}/zones/{zone}/instances/{}", source.name)),
            "instanceProperties": {"disks": [disk(&source.name, zone).1]},
        });
        (image.id.parse().unwrap(), shown)
    });
    let shown = shown.collect();
    state.images.insert("machineImages".to_owned(), shown);
}
