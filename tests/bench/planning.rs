//! A plan over a million images against decoding their inventory.

use std::path::Path;
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
/// The argument with which this program measures its own memory.
pub const MEMORY: &str = "measure-memory";

pub fn run() {
    let instances =
        env::var("STILLFRAME_BENCH_INSTANCES").map_or(100_000, |text| text.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("inventory.json");
    fs::write(&file, serde_json::to_vec(&world::inventory(instances)).unwrap()).unwrap();
    let policies = world::policies(world::policies_of(instances));
    let document = fs::read(&file).unwrap();
    println!(
        "{} images, {instances} instances, {} policies, {} MiB of JSON",
        instances * world::IMAGES,
        policies.policies.len(),
        document.len() as u64 / MIB
    );
    for _ in 0..ROUNDS {
        let (baseline, inventory) =
            worked(|| serde_json::from_slice::<Inventory>(&document).unwrap());
        row("decode the inventory (baseline)", &seconds(baseline), None, None);
        let (took, made) = worked(|| plan(&policies, &inventory, world::now()));
        row("plan over it", &seconds(took), Some(share(took, baseline)), Some(TIME_LIMIT));
        let (took, refusals) = worked(|| guard(&made, &inventory, &policies, &[], world::now()));
        row("guard the plan", &seconds(took), Some(share(took, baseline)), None);
        let summary = made.summary;
        assert_eq!(made.engines[0].managed, instances * world::IMAGES);
        println!(
            "  {} create, {} deprecate, {} delete, {} keep, {} unprotected, {} refusals",
            summary.create,
            summary.deprecate,
            summary.delete,
            summary.keep,
            summary.unprotected,
            refusals.len()
        );
    }
    drop(document);
    let status = Command::new(env::current_exe().unwrap()).arg(MEMORY).arg(&file).status().unwrap();
    assert!(status.success());
}

/// What the inventory takes in memory, and the most that planning takes beside it. In a process of
/// its own, so that nothing which was freed before is used again unseen.
pub fn memory(file: &str) {
    let file = Path::new(file);
    let before = status("VmRSS");
    let inventory: Inventory = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let images = inventory.engines[0].images.len();
    let policies = world::policies(world::policies_of(inventory.engines[0].instances.len()));
    let decoded = status("VmRSS");
    // Begins the measurement of the peak anew (proc(5)).
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let made = plan(&policies, &inventory, world::now());
    let (peak, after) = (status("VmHWM"), status("VmRSS"));
    let each = |bytes: u64| format!("{:.0} B", bytes as f64 / images as f64);
    let used = (peak - decoded) as f64 / images as f64;
    row("inventory in memory, for each image", &each(decoded - before), None, None);
    row("plan at its peak beside it, for each image", &each(peak - decoded), None, None);
    println!("  limit {MEMORY_LIMIT:.0} B: {:.2}×", used / MEMORY_LIMIT);
    row("what is left of that as the plan", &each(after.saturating_sub(decoded)), None, None);
    row("whole process at its peak, for each image", &each(peak), None, None);
    assert_eq!(made.engines[0].managed, images);
}

/// A figure of `/proc/self/status` in bytes.
fn status(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
