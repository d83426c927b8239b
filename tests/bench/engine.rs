//! The embedded engine against the operating system reading and writing the same bytes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use stillframe::clock::{Clock, FixedClock};
use stillframe::engine::local::LocalEngine;
use stillframe::engine::{CreateRequest, Engine, RestoreRequest, Store, Unwatched};
use stillframe::inventory::{Consistency, ImageKind, Via};
use stillframe::name::{Key, PolicyName, Slot, SourceId};
use stillframe::plan::Create;

use crate::MIB;

/// A row with the throughput, and how it compares with the baseline.
fn report(what: &str, took: Duration, mebibytes: u64, baseline: Option<Duration>) {
    let seconds = took.as_secs_f64();
    let ratio = baseline
        .map(|baseline| format!("{:.2}×", seconds / baseline.as_secs_f64()))
        .unwrap_or_default();
    println!("{what:<44} {seconds:>9.3} {:>10.0}  {ratio}", mebibytes as f64 / seconds);
}

/// splitmix64: the same bytes on every run.
struct Bytes(u64);

impl Bytes {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A block as disks have them: a third random, a third like text, a third zero.
    fn block(&mut self) -> Vec<u8> {
        let mut block = Vec::with_capacity(MIB as usize);
        while block.len() < MIB as usize {
            match self.next() % 3 {
                0 => (0..512).for_each(|_| block.extend_from_slice(&self.next().to_le_bytes())),
                1 => {
                    let word =
                        format!("line {:>6} of a log file, with some words\n", self.next() % 9999);
                    block.extend(word.bytes().cycle().take(4096));
                }
                _ => block.extend([0; 4096]),
            }
        }
        block.truncate(MIB as usize);
        block
    }
}

/// A disk of which every second block holds data, the rest are holes.
fn make_disk(path: &Path, mebibytes: u64, bytes: &mut Bytes) {
    let file = File::create(path).unwrap();
    file.set_len(mebibytes * MIB).unwrap();
    for block in (0..mebibytes).step_by(2) {
        file.write_all_at(&bytes.block(), block * MIB).unwrap();
    }
    file.sync_all().unwrap();
}

/// The same bytes read and written by the operating system.
fn copy(from: &Path, to: &Path) -> Duration {
    let began = Instant::now();
    let (mut from, mut to) = (File::open(from).unwrap(), File::create(to).unwrap());
    let mut buffer = vec![0; MIB as usize];
    loop {
        let length = from.read(&mut buffer).unwrap();
        if length == 0 {
            break;
        }
        to.write_all(&buffer[..length]).unwrap();
    }
    to.sync_all().unwrap();
    began.elapsed()
}

fn request(day: i64, disks: &[&str]) -> CreateRequest {
    let slot = Timestamp::from_second(1_800_000_000 + day * 86_400).unwrap();
    let key = Key {
        policy: PolicyName::parse("bench").unwrap(),
        source: SourceId::parse("machine").unwrap(),
        slot: Slot::at(slot),
    };
    CreateRequest {
        name: key.image_name("bench"),
        location: "local".to_owned(),
        create: Create {
            kind: ImageKind::MachineImage,
            consistency: Consistency::Crash,
            kms_key: None,
            disks: disks.iter().map(|disk| (*disk).to_owned()).collect(),
            disk_by_disk: false,
            one_instant: Vec::new(),
            companion: None,
            tier: None,
            via: Via::Disk,
            excluded_disks: Vec::new(),
            disk_bytes: 0,
            labels: key.labels(),
            description: String::new(),
            deadline: slot,
            replaces: None,
            problems: Vec::new(),
            family: None,
            sharing: None,
        },
        by: None,
        key,
    }
}

/// Captures, restores and verifies a machine with two disks.
pub fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(engine());
}

async fn engine() {
    let size: u64 =
        std::env::var("STILLFRAME_BENCH_MIB").map_or(1024, |text| text.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().canonicalize().unwrap();
    fs::create_dir(base.join("instances")).unwrap();
    let disks = ["boot", "data"];
    let mut bytes = Bytes(1);
    let mut description =
        "apiVersion: stillframe/v1\nkind: Instance\nmetadata: {name: machine}\nspec:\n  disks:\n"
            .to_owned();
    for disk in disks {
        make_disk(&base.join(format!("{disk}.raw")), size, &mut bytes);
        description.push_str(&format!("    - {{deviceName: {disk}, path: ../{disk}.raw}}\n"));
    }
    fs::write(base.join("instances/machine.yaml"), description).unwrap();
    let baseline = copy(&base.join("boot.raw"), &base.join("copy"))
        + copy(&base.join("data.raw"), &base.join("copy"));
    let total = 2 * size;
    report("copy both disks (read, write, sync)", baseline, total, None);

    let settings =
        serde_json::json!({"instances": "instances", "store": "store", "createKeys": true});
    let clock: Arc<dyn Clock> =
        Arc::new(FixedClock(Timestamp::from_second(1_800_000_000).unwrap()));
    let engine = LocalEngine::open("bench", &settings, &base, clock).unwrap();
    let capture = async |day: i64| {
        let began = Instant::now();
        let created = engine.create(request(day, &disks), Arc::new(Unwatched)).await.unwrap();
        (began.elapsed(), created.image().stored_bytes.unwrap())
    };
    let (first, stored) = capture(0).await;
    report("capture, first", first, total, Some(baseline));
    println!("{:<44} {:>9}  MiB stored", "", stored / MIB);
    for disk in disks {
        let file = File::options().write(true).open(base.join(format!("{disk}.raw"))).unwrap();
        for _ in 0..size / 100 {
            let block = bytes.next() % size;
            file.write_all_at(&bytes.block(), block * MIB).unwrap();
        }
    }
    let (second, stored) = capture(1).await;
    report("capture, 1 % of the blocks changed", second, total, Some(baseline));
    println!("{:<44} {:>9}  MiB stored", "", stored / MIB);
    let image = request(1, &disks).name;
    let began = Instant::now();
    let restore = RestoreRequest {
        image: image.clone(),
        to: base.join("back"),
        disks: Vec::new(),
        name: None,
        machine_type: None,
        labels: BTreeMap::new(),
        overwrite: false,
        qcow2: false,
    };
    engine.restore(restore, Arc::new(Unwatched)).await.unwrap();
    report("restore", began.elapsed(), total, Some(baseline));
    let began = Instant::now();
    engine.verify(Some(image), Arc::new(Unwatched)).await.unwrap();
    report("verify one image", began.elapsed(), total, Some(baseline));
    let began = Instant::now();
    let seen = engine.observe().await;
    report("observe", began.elapsed(), 0, None);
    assert_eq!(seen.images.len(), 2);
}
