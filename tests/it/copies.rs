//! Copies and drills of the embedded engine, through the program: what stands by itself, what is
//! left when things are interrupted or broken, and what waits for what.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread;

use serde_json::Value;

use super::local::{fill_disks, only_web, read};
use super::support::{Datacenter, NOW, Random, golden, transcript};

const STORE: &str = ".stillframe/store";

/// Only the web servers, with more in the `spec` of their policy.
fn datacenter(spec: &str) -> Datacenter {
    let datacenter = Datacenter::new();
    only_web(&datacenter);
    if !spec.is_empty() {
        add(&datacenter, spec);
    }
    datacenter
}

fn add(datacenter: &Datacenter, spec: &str) {
    datacenter.edit("policies/web.yaml", |text| format!("{text}{spec}"));
}

const COPIES: &str = "  storage: {copies: [vault]}\n";

fn day(day: u32) -> String {
    format!("2026-11-{day}T12:00:00Z")
}

/// All images, originals or copies.
fn images(datacenter: &Datacenter, copies: bool) -> Vec<Value> {
    let list = datacenter.json(0, &["list"]);
    let rows = list["images"].as_array().unwrap().iter();
    rows.filter(|row| row["copy"] == copies).map(|row| row["image"].clone()).collect()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap()
}

fn in_background(datacenter: &Datacenter) -> Child {
    datacenter
        .command(&["apply", "--auto-approve", "--now", NOW])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Every pack of a location's repository, the largest last.
fn packs(datacenter: &Datacenter, location: &str) -> Vec<PathBuf> {
    let data = datacenter.path(&format!("{STORE}/locations/{location}/default/data"));
    let mut packs: Vec<PathBuf> = fs::read_dir(data)
        .unwrap()
        .flat_map(|directory| fs::read_dir(directory.unwrap().path()).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    packs.sort_by_key(|path| fs::metadata(path).unwrap().len());
    packs
}

/// Nothing is left of what was interrupted.
fn assert_nothing_left(datacenter: &Datacenter) {
    let files =
        |relative: &str| fs::read_dir(datacenter.path(relative)).into_iter().flatten().count();
    assert_eq!(files(&format!("{STORE}/attempts")), 0);
    assert_eq!(files(&format!("{STORE}/scratch")), 0);
    for location in ["main", "vault"] {
        assert_eq!(files(&format!("{STORE}/locations/{location}/default/tmp")), 0);
        assert!(!datacenter.path(&format!("{STORE}/locations/{location}/default.dirty")).exists());
    }
}

#[test]
fn a_copy_stands_by_itself_and_stores_only_what_is_new() {
    let datacenter = datacenter(COPIES);
    let mut random = Random::new();
    fill_disks(&datacenter, 8, &mut random);
    datacenter.apply_at(&day(21));
    let disk = "examples/datacenter/disks/web-1-boot.raw";
    let file = File::options().write(true).open(datacenter.path(disk)).unwrap();
    file.write_all_at(&random.bytes(1 << 20), 5 << 20).unwrap();
    datacenter.apply_at(&day(22));
    let run = datacenter.run_to(0, &["plan", "--detailed-exitcode", "--now", &day(22)]);
    assert!(run.out.contains("Nothing to do. = 8 keep"), "{}", run.out);

    let (originals, copies) = (images(&datacenter, false), images(&datacenter, true));
    assert_eq!((originals.len(), copies.len()), (4, 4));
    let second = &copies[1];
    assert_eq!(text(second, "location"), "vault");
    let stored = second["stored_bytes"].as_u64().unwrap();
    assert!((1 << 20..(1 << 20) + 64 * 1024).contains(&stored), "{stored} bytes for one piece");
    assert_eq!(second["source"], originals[1]["source"]);
    assert_eq!(second["disk_bytes"], originals[1]["disk_bytes"]);
    let shown = datacenter.run_to(0, &["show", text(second, "name")]);
    let wanted = format!("copy of    {}", text(&originals[1], "name"));
    assert!(shown.out.contains(&wanted), "{}", shown.out);

    // Without the place of the originals, and without anything that is remembered of it.
    let main = datacenter.path(&format!("{STORE}/locations/main"));
    fs::rename(&main, datacenter.path("burnt")).unwrap();
    let run = datacenter.run_to(0, &["verify", text(second, "name")]);
    assert!(run.out.starts_with("sound"), "{}", run.out);
    datacenter.run_to(0, &["restore", text(second, "name"), "--to", "back"]);
    assert!(read(&datacenter, "back/boot.raw") == read(&datacenter, disk));
    assert!(
        read(&datacenter, "back/content.raw")
            == read(&datacenter, "examples/datacenter/disks/web-1-content.raw")
    );
    let plan = datacenter.json(1, &["plan", "--now", &day(22)]);
    assert_eq!(plan["summary"]["delete"], 0);
}

#[test]
fn a_copy_may_lie_under_a_key_of_its_policy() {
    let datacenter = datacenter(&format!("{COPIES}  encryption: {{kmsKey: web}}\n"));
    datacenter.apply_at(NOW);
    let copy = &images(&datacenter, true)[0];
    assert_eq!(text(copy, "kms_key"), "web");
    let key = datacenter.path(&format!("{STORE}/keys/web.key"));
    fs::rename(&key, datacenter.path("web.key")).unwrap();
    datacenter.run_to(1, &["verify", text(copy, "name")]);
    fs::rename(datacenter.path("web.key"), &key).unwrap();
    datacenter.run_to(0, &["verify", text(copy, "name")]);
}

/// How far a run has come: bytes and files below a directory.
fn progress(path: &std::path::Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    let below = fs::read_dir(path).into_iter().flatten().flatten();
    1 + metadata.len() / 4096 + below.map(|entry| progress(&entry.path())).sum::<u64>()
}

#[test]
fn copies_killed_at_any_moment_and_started_again() {
    let datacenter = datacenter("");
    let mut random = Random::new();
    fill_disks(&datacenter, 8, &mut random);
    datacenter.apply_at(NOW);
    add(&datacenter, COPIES);
    let vault = datacenter.path(&format!("{STORE}/locations/vault"));
    let forget = || {
        fs::remove_dir_all(&vault).unwrap();
        fs::remove_file(datacenter.path(&format!("{STORE}/repositories/vault@default.json")))
            .unwrap();
    };
    datacenter.apply_at(NOW);
    let (whole, size) =
        (progress(&vault), datacenter.bytes_under(&format!("{STORE}/locations/vault")));
    forget();
    let mut killed = 0;
    for round in 0..30 {
        let until = progress(&vault) + random.below(whole);
        let mut run = in_background(&datacenter);
        while run.try_wait().unwrap().is_none() && progress(&vault) < until {
            thread::yield_now();
        }
        run.kill().unwrap();
        killed += i32::from(!run.wait().unwrap().success());
        // What is there is whole, at every moment.
        datacenter.run_to(0, &["verify"]);
        assert_eq!(images(&datacenter, false).len(), 2, "{random}");
        if images(&datacenter, true).len() == 2 && round < 25 {
            forget();
        }
    }
    assert!(killed >= 10, "only {killed} of 30 runs were killed before they had ended; {random}");
    datacenter.apply_at(NOW);
    assert_eq!((images(&datacenter, false).len(), images(&datacenter, true).len()), (2, 2));
    datacenter.run_to(0, &["verify"]);
    assert_nothing_left(&datacenter);
    let now = datacenter.bytes_under(&format!("{STORE}/locations/vault"));
    assert!(now < size + size / 8, "{now} bytes where an undisturbed run leaves {size}; {random}");
}

#[test]
fn two_runs_at_once_make_one_copy_of_each() {
    let datacenter = datacenter(COPIES);
    fill_disks(&datacenter, 6, &mut Random::new());
    for _ in 0..3 {
        let runs: Vec<_> = (0..2).map(|_| in_background(&datacenter)).collect();
        for run in runs {
            let output = run.wait_with_output().unwrap();
            let told = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
        }
        datacenter.apply_at(NOW);
        assert_eq!((images(&datacenter, false).len(), images(&datacenter, true).len()), (2, 2));
        datacenter.run_to(0, &["verify"]);
        assert_nothing_left(&datacenter);
        fs::remove_dir_all(datacenter.path(".stillframe")).unwrap();
    }
}

#[test]
fn an_original_that_has_lost_packs_is_not_copied() {
    let datacenter = datacenter("");
    fill_disks(&datacenter, 4, &mut Random::new());
    datacenter.apply_at(NOW);
    add(&datacenter, COPIES);
    // The one with the piece that is all zero, which every disk needs.
    let pack = packs(&datacenter, "main").pop().unwrap();
    let aside = datacenter.path("pack");
    fs::rename(&pack, &aside).unwrap();
    let run = datacenter.run_to(1, &["apply", "--auto-approve", "--now", NOW]);
    assert!(run.out.contains("copying failed: cannot read"), "{}", run.out);
    let copies = images(&datacenter, true);
    assert_eq!(copies.len(), 2);
    assert!(copies.iter().all(|copy| copy["state"] == "FAILED"), "{copies:?}");
    // Given up, what the pack held is not even in the index, where nobody misses it.
    let repair = ["repository", "repair", "--location", "main", "--key", "default"];
    datacenter.run_to(0, &repair);
    let run = datacenter.run_to(1, &["apply", "--auto-approve", "--now", NOW]);
    assert!(run.out.contains("the stored image is not whole"), "{}", run.out);
    assert!(images(&datacenter, true).iter().all(|copy| copy["state"] == "FAILED"));
    // Taken in again. The failed attempts make room.
    fs::rename(&aside, &pack).unwrap();
    datacenter.run_to(0, &repair);
    datacenter.apply_at(NOW);
    let copies = images(&datacenter, true);
    assert_eq!(copies.len(), 2);
    assert!(copies.iter().all(|copy| copy["state"] == "READY"), "{copies:?}");
    datacenter.run_to(0, &["verify"]);
    assert_nothing_left(&datacenter);
}

#[test]
fn originals_go_only_with_their_copies() {
    let rules = "  retention: {last: 3}\n  lifecycle: {grace: 1d}\n";
    let datacenter = datacenter(&format!("{COPIES}{rules}"));
    let counts = || (images(&datacenter, false).len(), images(&datacenter, true).len());
    for date in 10..16 {
        datacenter.apply_at(&day(date));
        let run = datacenter.run_to(0, &["plan", "--detailed-exitcode", "--now", &day(date)]);
        assert!(run.out.contains("Nothing to do."), "{}", run.out);
    }
    // Of each server three and one in its grace, in both places.
    assert_eq!(counts(), (8, 8));
    // The vault has lost a pack: nothing is copied there, and what has no copy there stays.
    let pack = packs(&datacenter, "vault").pop().unwrap();
    fs::rename(&pack, datacenter.path("pack")).unwrap();
    for date in 16..22 {
        let run = datacenter.run_to(5, &["apply", "--auto-approve", "--now", &day(date)]);
        assert!(run.out.contains("packs of $DIR/.stillframe/store/locations/vault"), "{}", run.out);
    }
    let plan = datacenter.json(0, &["plan", "--now", &day(21)]);
    let held_back = plan["held_back"].as_array().unwrap();
    assert!(!held_back.is_empty());
    for held in held_back {
        assert_eq!(
            (&held["action"], &held["reasons"][0]["code"]),
            (&"delete".into(), &"copy-missing".into())
        );
    }
    // Of each server: the 15th has a copy, the 16th to the 21st have none.
    let originals = images(&datacenter, false);
    assert_eq!(originals.len(), 12, "{originals:?}");
    fs::rename(datacenter.path("pack"), &pack).unwrap();
    let applied = datacenter.apply_at(&day(21));
    assert_eq!(
        (
            applied["plan"]["summary"]["copy"].as_u64(),
            applied["plan"]["summary"]["delete"].as_u64()
        ),
        (Some(6), Some(0))
    );
    let plan = datacenter.json(0, &["plan", "--now", &day(21)]);
    assert!(plan["summary"]["delete"].as_u64() > Some(0), "{plan}");
    datacenter.run_to(0, &["verify"]);
}

// -- drills

const DRILL: &str = "  drill: {cron: \"0 6 * * *\", check: restore}\n";

#[test]
fn a_drill_is_said_recorded_and_leaves_nothing() {
    let datacenter = datacenter(DRILL);
    let run = datacenter.run_to(0, &["apply", "--auto-approve", "--now", NOW]);
    assert!(run.out.contains("✓ drill (2)"), "{}", run.out);
    assert!(run.out.contains("Applied: 2 created, 2 proven restorable."), "{}", run.out);
    let run = datacenter.run_to(0, &["apply", "--auto-approve", "--now", NOW]);
    assert!(run.out.contains("Nothing to do."), "{}", run.out);
    let original = &images(&datacenter, false)[0];
    assert_eq!(original["labels"]["stillframe-drilled"], "20261121t120000z");
    let ledger = fs::read_to_string(datacenter.path(".stillframe/ledger.ndjson")).unwrap();
    let drilled: Vec<Value> = ledger
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line["event"] == "change-ended" && line["drill"] == "restore")
        .collect();
    assert_eq!(drilled.len(), 2);
    assert_eq!(drilled[0]["image"], original["name"]);
    let shown = datacenter.run_to(0, &["show", text(original, "name")]);
    assert!(shown.out.contains("drilled    2026-11-21 12:00Z"), "{}", shown.out);
    assert_nothing_left(&datacenter);
}

#[test]
fn a_drill_finds_damage_and_says_so() {
    for check in ["verify", "restore"] {
        let datacenter = datacenter("");
        fill_disks(&datacenter, 4, &mut Random::new());
        datacenter.apply_at(NOW);
        add(&datacenter, &DRILL.replace("restore", check));
        for pack in packs(&datacenter, "main") {
            let mut bytes = fs::read(&pack).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&pack, bytes).unwrap();
        }
        for _ in 0..2 {
            // Nothing else was to be done.
            let run = datacenter.run_to(1, &["apply", "--auto-approve", "--now", NOW]);
            assert!(run.out.contains("failed: it could not be restored: "), "{}", run.out);
            for image in images(&datacenter, false) {
                assert!(image["labels"].get("stillframe-drilled").is_none(), "{image}");
            }
            assert_nothing_left(&datacenter);
        }
        // Beside something that was done, it is a part that was not.
        let run = datacenter.run_to(5, &["apply", "--auto-approve", "--now", &day(22)]);
        assert!(run.out.contains("Partly applied"), "{}", run.out);
    }
}

#[test]
fn what_a_killed_drill_leaves_is_cleared_away() {
    let datacenter = datacenter("");
    fill_disks(&datacenter, 24, &mut Random::new());
    datacenter.apply_at(NOW);
    add(&datacenter, DRILL);
    let scratch = datacenter.path(&format!("{STORE}/scratch"));
    let has_disks = || {
        let below = fs::read_dir(&scratch).into_iter().flatten().flatten();
        below.flat_map(|entry| fs::read_dir(entry.path()).into_iter().flatten()).count() > 0
    };
    let mut run = in_background(&datacenter);
    while run.try_wait().unwrap().is_none() && !has_disks() {
        thread::yield_now();
    }
    run.kill().unwrap();
    assert!(!run.wait().unwrap().success(), "the drill had ended before it could be killed");
    assert!(has_disks());
    datacenter.apply_at(NOW);
    assert_nothing_left(&datacenter);
    assert!(
        images(&datacenter, false)
            .iter()
            .all(|image| image["labels"]["stillframe-drilled"] == "20261121t120000z")
    );
}

#[test]
fn the_example_with_two_locations() {
    let datacenter = Datacenter::new();
    datacenter.edit("examples/two-locations/stillframe.yaml", |text| {
        text.replace("        createKeys: true", "        createKeys: true\n        trial: true")
    });
    // A Sunday: the drill is due at five, the restore point has been since a quarter past midnight.
    let now = "2026-11-22T04:30:00Z";
    let with = |arguments: &[&'static str]| -> Vec<&'static str> {
        [&["--policies", "examples/two-locations"], arguments].concat()
    };
    let commands = [
        with(&["apply", "--auto-approve", "--now", now]),
        with(&["apply", "--auto-approve", "--now", now]),
        with(&["list", "--now", now]),
        with(&["explain", "db-1", "--now", now]),
        with(&["apply", "--auto-approve", "--now", "2026-11-22T12:00:00Z"]),
        with(&["show", "orders-4201-20261121-2315z-udc52bto"]),
    ];
    let commands: Vec<&[&str]> = commands.iter().map(Vec::as_slice).collect();
    golden("two-locations.txt", &transcript(&datacenter, &commands));
}
