//! A plan over a million images against decoding their inventory.

use std::process::Command;
use std::{env, fs};

use stillframe::inventory::Inventory;
use stillframe::plan::guard::guard;
use stillframe::plan::plan;

use crate::world;
use crate::{MIB, row, seconds, share, worked};

/// Planning may take so much of the time of decoding.
const TIME_LIMIT: f64 = 1.5;
/// Planning may need so many bytes for each image.
const MEMORY_LIMIT: f64 = 400.0;
/// How often everything is measured.
const ROUNDS: usize = 3;
/// The argument with which this program measures one round.
pub const ROUND: &str = "planning-round";

pub fn run() {
    let instances =
        env::var("STILLFRAME_BENCH_INSTANCES").map_or(100_000, |text| text.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("inventory.json");
    let document = serde_json::to_vec(&world::inventory(instances)).unwrap();
    fs::write(&file, &document).unwrap();
    println!(
        "{} images, {instances} instances, {} policies, {} MiB of JSON",
        instances * world::IMAGES,
        world::policies_of(instances),
        document.len() as u64 / MIB
    );
    drop(document);
    // Each in a process of its own, as the program runs: what a round has freed would make the next
    // one look different.
    for _ in 0..ROUNDS {
        let program = env::current_exe().unwrap();
        assert!(Command::new(program).arg(ROUND).arg(&file).status().unwrap().success());
    }
}

/// Decodes an inventory, plans over it and guards the plan, with the time and the memory of each.
pub fn round(file: &str) {
    let before = status("VmRSS");
    let document = fs::read(file).unwrap();
    let (baseline, inventory) = worked(|| serde_json::from_slice::<Inventory>(&document).unwrap());
    drop(document);
    let [engine] = inventory.engines.as_slice() else { panic!("one engine") };
    let images = engine.images.len();
    let policies = world::policies(world::policies_of(engine.instances.len()));
    let decoded = status("VmRSS");
    // Begins the measurement of the peak anew (proc(5)).
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let (took, made) = worked(|| plan(&policies, &inventory, world::now()));
    let (peak, after) = (status("VmHWM"), status("VmRSS"));
    let (guarding, refusals) = worked(|| guard(&made, &inventory, &policies, &[], world::now()));
    row("decode the inventory (baseline)", &seconds(baseline), None, None);
    row("plan over it", &seconds(took), Some(share(took, baseline)), Some(TIME_LIMIT));
    row("guard the plan", &seconds(guarding), Some(share(guarding, baseline)), None);
    let each = |bytes: u64| bytes as f64 / images as f64;
    let text = |bytes: u64| format!("{:.0} B", each(bytes));
    let used = Some(each(peak - decoded) / MEMORY_LIMIT);
    row("memory of planning at its peak, for each image", &text(peak - decoded), used, Some(1.0));
    row("  what is left of it as the plan", &text(after.saturating_sub(decoded)), None, None);
    row("  the inventory, decoded", &text(decoded - before), None, None);
    row("  the whole process at its peak", &text(peak), None, None);
    let summary = made.summary;
    println!(
        "  {} create, {} deprecate, {} delete, {} keep, {} unprotected, {} refusals",
        summary.create,
        summary.deprecate,
        summary.delete,
        summary.keep,
        summary.unprotected,
        refusals.len()
    );
    assert_eq!(made.engines[0].managed, images);
}

/// A figure of `/proc/self/status` in bytes.
fn status(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
