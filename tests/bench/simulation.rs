//! A year of a thousand sources.

use std::time::Instant;

use jiff::Timestamp;
use stillframe::inventory::{
    Capabilities, Disk, EngineInventory, FORMAT_VERSION, Instance, Inventory,
};
use stillframe::name::SourceId;
use stillframe::policy::{EngineKind, Policies, SourceFile, load};
use stillframe::simulate::steady::steady_state;
use stillframe::simulate::{Options, Share, Unwatched, simulate};

const SOURCES: usize = 1_000;
const DAYS: u32 = 365;

/// Prints how long a year takes, with captures that fail and without, and with guards that refuse.
pub fn run() {
    println!("{:<52} {:>9} {:>14}", "", "seconds", "restore points");
    for (what, engine_count, fail_rate) in [
        ("a year of 1,000 sources, daily, 30 days + 12 months", 5_000, 0),
        ("the same, 2 % of the captures fail", 5_000, 20_000),
        ("the same, all deletes refused (engineCount: 100)", 100, 0),
    ] {
        let policies = policies(engine_count);
        let start: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let options =
            Options { start, days: DAYS, fail_rate: Share(fail_rate), growth: Share(0), seed: 0 };
        let began = Instant::now();
        let simulation = simulate(&policies, &inventory(start), None, &options, &mut Unwatched);
        let ready = simulation.policies[0].track.ready.last().copied().unwrap();
        println!("{what:<52} {:>9.2} {ready:>14}", began.elapsed().as_secs_f64());
    }
    let policies = policies(100);
    let start: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    let began = Instant::now();
    let steady = steady_state(&policies.policies[0], start).unwrap();
    let seconds = began.elapsed().as_secs_f64();
    println!("{:<52} {seconds:>9.5} {:>14}", "what one series holds in the long run", steady.kept);
}

fn policies(engine_count: u32) -> Policies {
    let kind = EngineKind {
        check: |_| Vec::new(),
        name: "memory",
        settings_schema: serde_json::json!({"type": "object"}),
        capabilities: |_| Capabilities::default(),
    };
    let text = format!(
        "apiVersion: stillframe/v1\nkind: Config\nspec:\n  engines: {{memory: {{memory: {{}}}}}}\n  \
         guards: {{engineCount: {engine_count}}}\n\
         ---\napiVersion: stillframe/v1\nkind: BackupPolicy\nmetadata: {{name: nightly}}\nspec:\n  \
         source: {{match: [{{names: [\"*\"]}}]}}\n  \
         schedule: {{cron: \"0 2 * * *\", timeZone: Europe/Berlin}}\n  \
         retention: {{days: 30, monthly: 12}}\n"
    );
    load(vec![SourceFile { path: "all.yaml".to_owned(), text }], &[kind]).policies.unwrap()
}

fn inventory(observed_at: Timestamp) -> Inventory {
    let instances = (0..SOURCES).map(|number| Instance {
        id: SourceId::parse(&format!("vm-{number}")).unwrap(),
        name: format!("vm-{number}"),
        zone: String::new(),
        labels: std::collections::BTreeMap::new(),
        status: String::new(),
        project: String::new(),
        machine_type: String::new(),
        disks: vec![Disk {
            name: "boot".to_owned(),
            boot: true,
            size_bytes: Some(10 << 30),
            kms_key: None,
            problem: None,
        }],
    });
    Inventory {
        format_version: FORMAT_VERSION.to_owned(),
        observed_at,
        engines: vec![EngineInventory {
            name: "memory".to_owned(),
            kind: "memory".to_owned(),
            identity: "here".to_owned(),
            gaps: Vec::new(),
            images_seen_before: None,
            capabilities: Capabilities::default(),
            instances: instances.collect(),
            images: Vec::new(),
        }],
    }
}
