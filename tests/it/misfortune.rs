//! What happens to a store from outside: packs and snapshots that vanish, two stores on one
//! location, machines that are there twice, targets that are not free.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::local::{fill_disks, only_web, read};
use super::support::{Datacenter, Random};

const NOW: &str = "2026-11-21T12:00:00Z";
const NEXT: &str = "2026-11-22T12:00:00Z";
const REPOSITORY: &str = ".stillframe/store/locations/main/default";

fn web_only() -> Datacenter {
    let datacenter = Datacenter::new();
    only_web(&datacenter);
    datacenter
}

fn files_under(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files_under(&path)) } else { found.push(path) }
    }
    found.sort_by_key(|path| fs::metadata(path).unwrap().len());
    found
}

#[test]
fn what_a_lost_pack_held_is_stored_anew() {
    for cut in [false, true] {
        let datacenter = web_only();
        fill_disks(&datacenter, 4, &mut Random::new());
        datacenter.apply_at(NOW);
        let pack = files_under(&datacenter.path(REPOSITORY).join("data")).pop().unwrap();
        fs::set_permissions(&pack, fs::Permissions::from_mode(0o600)).unwrap();
        if cut {
            File::options().write(true).open(&pack).unwrap().set_len(1000).unwrap();
        } else {
            fs::remove_file(&pack).unwrap();
        }
        // What was lost must not be taken for stored, and a person may know where it is.
        let run = datacenter.run_to(1, &["apply", "--auto-approve", "--now", NEXT]);
        assert!(
            run.out.contains("1 packs of") && run.out.contains("repository repair"),
            "{}",
            run.out
        );
        let repair = ["repository", "repair", "--location", "main", "--key", "default"];
        let run = datacenter.run_to(0, &repair);
        assert!(run.out.contains("1 packs given up"), "{}", run.out);
        datacenter.run_to(0, &["apply", "--auto-approve", "--now", NEXT]);
        // The images of the first day are as they are, those of the second are whole.
        let verified = datacenter.json(1, &["verify"]);
        let damaged: Vec<&str> = verified["images"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|image| !image["damage"].as_array().unwrap().is_empty())
            .map(|image| image["image"].as_str().unwrap())
            .collect();
        assert!(
            !damaged.is_empty() && damaged.iter().all(|name| name.contains("20261121")),
            "{damaged:?}"
        );
        for source in ["web-1", "web-2"] {
            let newest = datacenter.ready(source).pop().unwrap();
            datacenter.run_to(0, &["restore", &newest, "--to", &newest]);
            for disk in ["boot", "content"] {
                let disk_file = format!("examples/datacenter/disks/{source}-{disk}.raw");
                let restored = read(&datacenter, &format!("{newest}/{disk}.raw"));
                assert!(restored == read(&datacenter, &disk_file), "{newest} {disk}");
            }
        }
    }
}

#[test]
fn packs_that_come_back_are_as_good_as_before() {
    let datacenter = web_only();
    fill_disks(&datacenter, 2, &mut Random::new());
    datacenter.apply_at(NOW);
    let (data, away) = (datacenter.path(REPOSITORY).join("data"), datacenter.path("away"));
    fs::rename(&data, &away).unwrap();
    fs::create_dir(&data).unwrap();
    // An empty directory is a disk that is not mounted, and is never repaired away.
    let repair = ["repository", "repair", "--location", "main", "--key", "default"];
    datacenter.run_to(1, &["apply", "--auto-approve", "--now", NEXT]);
    let run = datacenter.run_to(1, &repair);
    assert!(run.err.contains("is its disk mounted?"), "{}", run.err);
    fs::remove_dir_all(&data).unwrap();
    fs::rename(&away, &data).unwrap();
    datacenter.run_to(0, &["verify"]);
    // One that was given up and came back is taken in again.
    let pack = files_under(&data).pop().unwrap();
    let aside = datacenter.path("pack");
    fs::rename(&pack, &aside).unwrap();
    datacenter.run_to(0, &repair);
    datacenter.run_to(1, &["verify"]);
    fs::rename(&aside, &pack).unwrap();
    let run = datacenter.run_to(0, &repair);
    assert!(run.out.contains("1 taken in"), "{}", run.out);
    datacenter.run_to(0, &["verify"]);
    // A pack that is longer than it should be has lost nothing.
    fs::set_permissions(&pack, fs::Permissions::from_mode(0o600)).unwrap();
    let mut file = File::options().append(true).open(&pack).unwrap();
    std::io::Write::write_all(&mut file, b"x").unwrap();
    datacenter.apply_at(NEXT);
    datacenter.run_to(0, &["verify"]);
}

#[test]
fn a_repository_that_was_given_up_misses_nothing() {
    let datacenter = web_only();
    datacenter.apply_at(NOW);
    fs::remove_dir_all(datacenter.path(REPOSITORY)).unwrap();
    fs::remove_file(datacenter.path(REPOSITORY).with_extension("key.json")).unwrap();
    datacenter.run_to(1, &["apply", "--auto-approve", "--now", NEXT]);
    fs::remove_file(datacenter.path(".stillframe/store/repositories/main@default.json")).unwrap();
    datacenter.apply_at(NEXT);
    datacenter.run_to(0, &["list"]);
}

#[test]
fn nothing_is_cleared_away_while_images_are_missing() {
    let datacenter = web_only();
    fill_disks(&datacenter, 2, &mut Random::new());
    datacenter.apply_at(NOW);
    datacenter.apply_at(NEXT);
    let (there, away) = (datacenter.path(REPOSITORY).join("snapshots"), datacenter.path("away"));
    fs::rename(&there, &away).unwrap();
    fs::create_dir(&there).unwrap();
    fs::write(datacenter.path(REPOSITORY).with_extension("dirty"), b"").unwrap();
    let now = "2026-11-23T12:00:00Z";
    let run = datacenter.run_to(5, &["apply", "--auto-approve", "--now", now]);
    assert!(run.out.contains("4 images have gone from"), "{}", run.out);
    assert!(run.out.contains("no space is given back"), "{}", run.out);
    for file in files_under(&away) {
        fs::rename(&file, there.join(file.file_name().unwrap())).unwrap();
    }
    datacenter.run_to(0, &["verify"]);
    assert_eq!(datacenter.ready("web-1").len(), 3);
    // What is meant to be gone is forgotten as the message says.
    fs::remove_file(files_under(&there).pop().unwrap()).unwrap();
    let list = datacenter.json(1, &["list"]);
    let message = list["gaps"][0]["message"].as_str().unwrap();
    fs::remove_file(message.split("removing its file, like ").nth(1).unwrap()).unwrap();
    datacenter.run_to(0, &["list"]);
}

#[test]
fn a_key_is_never_made_where_images_were_encrypted_under_it() {
    let datacenter = Datacenter::new();
    datacenter.apply_at(NOW);
    let keys = datacenter.path(".stillframe/store/keys");
    let aside = datacenter.path("keys-aside");
    fs::rename(&keys, &aside).unwrap();
    datacenter.edit("policies/web.yaml", |text| format!("{text}  storage: {{location: vault}}\n"));
    datacenter.run_to(1, &["apply", "--auto-approve", "--now", NEXT]);
    assert!(!keys.join("default.key").exists());
    fs::rename(&aside, &keys).unwrap();
    datacenter.run_to(0, &["apply", "--auto-approve", "--now", NEXT]);
    datacenter.run_to(0, &["verify"]);
}

#[test]
fn a_location_that_is_not_mounted_takes_nothing_under_another_key() {
    let datacenter = Datacenter::new();
    datacenter.apply_at(NOW);
    let vault = datacenter.path(".stillframe/store/locations/vault");
    let aside = datacenter.path("vault-aside");
    fs::rename(&vault, &aside).unwrap();
    fs::create_dir(&vault).unwrap();
    datacenter
        .edit("policies/database.yaml", |text| text.replace("kmsKey: database", "kmsKey: other"));
    let run = datacenter.run_to(5, &["apply", "--auto-approve", "--now", NEXT]);
    assert!(run.out.contains("is its disk mounted?"), "{}", run.out);
    assert_eq!(fs::read_dir(&vault).unwrap().count(), 0);
}

#[test]
fn a_damaged_file_of_one_repository_hides_no_other() {
    let datacenter = Datacenter::new();
    datacenter.apply_at(NOW);
    fs::write(datacenter.path(".stillframe/store/repositories/vault@database.json"), b"").unwrap();
    let list = datacenter.json(1, &["list"]);
    assert_eq!(list["complete"], false);
    let image = datacenter.json(1, &["list", "--source", "web-1"])["images"][0]["image"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    datacenter.run_to(0, &["restore", &image, "--to", "back"]);
}

#[test]
fn a_snapshot_that_lost_its_record_is_no_shorter_list() {
    let datacenter = web_only();
    datacenter.apply_at(NOW);
    let password = datacenter.path("password");
    fs::write(&password, "secret\n").unwrap();
    let file = password.to_str().unwrap();
    datacenter.run_to(
        0,
        &[
            "repository",
            "add-password",
            "--location",
            "main",
            "--key",
            "default",
            "--password-file",
            file,
        ],
    );
    let mut restic = std::process::Command::new("restic");
    let repository = datacenter.path(REPOSITORY);
    restic.args(["--no-cache", "-q", "-r", repository.to_str().unwrap(), "-p", file]);
    restic.args(["tag", "--add", "seen", "latest"]).stdout(Stdio::null());
    let Ok(status) = restic.status() else {
        println!("not tried: the restic program is not installed");
        return;
    };
    assert!(status.success());
    let run = datacenter.run_to(1, &["list"]);
    assert!(run.err.contains("it has no record") || run.err.contains("have gone"), "{}", run.err);
}

#[test]
fn of_two_machines_with_one_name_none_counts() {
    let datacenter = web_only();
    datacenter.apply_at(NOW);
    let image = datacenter.ready("web-1").pop().unwrap();
    let inside = "examples/datacenter/instances/back";
    let run = datacenter.run_to(1, &["restore", &image, "--to", inside]);
    assert!(run.err.contains("--name"), "{}", run.err);
    datacenter.run_to(0, &["restore", &image, "--to", "back"]);
    fs::create_dir(datacenter.path(inside)).unwrap();
    for file in ["instance.yaml", "boot.raw", "content.raw"] {
        fs::copy(datacenter.path("back").join(file), datacenter.path(inside).join(file)).unwrap();
    }
    let run = datacenter.run_to(5, &["apply", "--auto-approve", "--now", NEXT]);
    assert!(run.out.contains("neither counts until one is changed"), "{}", run.out);
    let count = |source: &str| {
        datacenter.json(1, &["list", "--source", source])["images"].as_array().unwrap().len()
    };
    assert_eq!((count("web-1"), count("web-2")), (1, 2));
}

#[test]
fn an_instance_file_that_lost_what_it_held_is_a_gap() {
    type Loss = fn(&Path);
    let losses: [Loss; 3] = [
        |path| fs::write(path, b"").unwrap(),
        |path| {
            fs::remove_file(path).unwrap();
            symlink("nowhere", path).unwrap();
        },
        |path| {
            for file in files_under(path.parent().unwrap()) {
                fs::remove_file(file).unwrap();
            }
        },
    ];
    for loss in losses {
        let datacenter = web_only();
        loss(&datacenter.path("examples/datacenter/instances/web-1.yaml"));
        let plan = datacenter.json(1, &["plan", "--now", NOW]);
        assert_eq!(plan["engines"][0]["complete"], false);
    }
}

#[test]
fn a_disk_of_another_format_is_never_taken_for_raw() {
    let datacenter = Datacenter::new();
    datacenter.edit("examples/datacenter/instances/db-1.yaml", |text| {
        text.replace(", format: qcow2", "")
    });
    let run = datacenter.run_to(5, &["apply", "--auto-approve", "--now", NOW]);
    assert!(run.out.contains("is a qcow2 file; write `format: qcow2`"), "{}", run.out);
    assert_eq!(datacenter.ready("db-1").len(), 0);
    datacenter.edit("examples/datacenter/instances/db-1.yaml", |text| {
        text.replace("db-1-data.qcow2", "db-1-data.qcow2, format: raw")
    });
    datacenter.apply_at(NOW);
}

#[test]
fn a_pipe_in_place_of_a_disk_is_refused_and_waits_for_nobody() {
    let datacenter = web_only();
    let disk = datacenter.path("examples/datacenter/disks/web-1-content.raw");
    fs::remove_file(&disk).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &disk, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    for format in ["", ", format: qcow2"] {
        datacenter.edit("examples/datacenter/instances/web-1.yaml", |text| {
            text.replace("web-1-content.raw", &format!("web-1-content.raw{format} "))
        });
        let run = datacenter.run(&["apply", "--auto-approve", "--now", NOW]);
        assert!(matches!(run.code, Some(1 | 5)), "{}", run.out);
        assert!(run.out.contains("is not a file"), "{}", run.out);
    }
}

#[test]
fn a_restore_touches_only_what_is_its_own() {
    let datacenter = web_only();
    datacenter.apply_at(NOW);
    let image = datacenter.ready("web-1").pop().unwrap();
    let victim = datacenter.path("victim");
    fs::write(&victim, b"mine").unwrap();
    fs::create_dir(datacenter.path("back")).unwrap();
    for name in [".boot.raw.partial", ".instance.yaml.partial"] {
        symlink("../victim", datacenter.path("back").join(name)).unwrap();
    }
    datacenter.run_to(0, &["restore", &image, "--to", "back"]);
    assert_eq!(fs::read(&victim).unwrap(), b"mine");
    for name in ["boot.raw", "content.raw", "instance.yaml"] {
        let metadata = fs::symlink_metadata(datacenter.path("back").join(name)).unwrap();
        assert!(metadata.is_file());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{name}");
    }
    // Somebody else is at it.
    let directory = File::open(datacenter.path("back")).unwrap();
    directory.lock().unwrap();
    let run = datacenter.run_to(1, &["restore", &image, "--to", "back", "--overwrite"]);
    assert!(run.err.contains("another restore is writing"), "{}", run.err);
}

#[test]
fn what_a_restored_machine_says_can_be_read_again() {
    let datacenter = web_only();
    datacenter.edit("examples/datacenter/instances/web-1.yaml", |text| {
        text.replace(
            "{startup-script: systemctl start nginx}",
            "{at: \"22:30\", flag: \"no\", other: \"on\", number: \"0123\"}",
        )
    });
    datacenter.apply_at(NOW);
    let image = datacenter.ready("web-1").pop().unwrap();
    datacenter.run_to(0, &["restore", &image, "--to", "back"]);
    let text = String::from_utf8(read(&datacenter, "back/instance.yaml")).unwrap();
    assert!(text.contains("at: \"22:30\"") && text.contains("flag: \"no\""), "{text}");
    datacenter.edit("policies/stillframe.yaml", |text| {
        text.replace("../examples/datacenter/instances", "../back")
    });
    datacenter.run_to(0, &["inventory"]);
    let run = datacenter.run_to(1, &["restore", &image, "--to", "other", "--name", "Not A Name"]);
    assert!(run.err.contains("nothing was written"), "{}", run.err);
    assert!(!datacenter.path("other").exists());
}

#[test]
fn two_engines_never_share_a_store() {
    let datacenter = web_only();
    datacenter.edit("policies/stillframe.yaml", |text| {
        text.replace(
            "  defaults:",
            "    second:\n      local: {instances: ../examples/datacenter/instances, store: ../.stillframe/store}\n  defaults:",
        )
    });
    let run = datacenter.run(&["list"]);
    assert!(run.err.contains("belongs to the engine") || run.code == Some(3), "{}", run.err);
}

#[test]
fn a_store_that_cannot_be_written_can_be_read() {
    let datacenter = web_only();
    datacenter.apply_at(NOW);
    let image = datacenter.ready("web-1").pop().unwrap();
    let lock = datacenter.path(REPOSITORY).with_extension("data-lock");
    fs::set_permissions(&lock, fs::Permissions::from_mode(0o400)).unwrap();
    datacenter.run_to(0, &["restore", &image, "--to", "back"]);
    datacenter.run_to(0, &["verify"]);
}

#[test]
fn nothing_is_cleared_away_under_a_capture_of_another_store() {
    let datacenter = web_only();
    fill_disks(&datacenter, 2, &mut Random::new());
    datacenter.apply_at(NOW);
    // Another store with the same location and keys, as another machine or configuration has it.
    datacenter.edit("policies/stillframe.yaml", |text| {
        text.replace(
            "store: ../.stillframe/store",
            "store: ../other\n        keys: ../.stillframe/store/keys",
        )
        .replace("main: {}", "main: {path: ../.stillframe/store/locations/main}")
    });
    assert_eq!(datacenter.ready("web-1").len(), 1);
    fs::write(datacenter.path(REPOSITORY).with_extension("dirty"), b"").unwrap();
    let data = File::open(datacenter.path(REPOSITORY).with_extension("data-lock")).unwrap();
    data.lock_shared().unwrap();
    let run = datacenter.run_to(0, &["apply", "--auto-approve", "--now", NEXT]);
    assert!(run.out.contains("another run is at work, and does it at its end"), "{}", run.out);
    assert!(datacenter.path(REPOSITORY).with_extension("dirty").exists());
    drop(data);
    datacenter.apply_at(NEXT);
    assert!(!datacenter.path(REPOSITORY).with_extension("dirty").exists());
    datacenter.run_to(0, &["verify"]);
}

#[test]
fn a_device_that_is_written_while_it_is_read_makes_no_image() {
    let datacenter = web_only();
    let file = datacenter.path("device.img");
    File::create(&file).unwrap().set_len(64 << 20).unwrap();
    let losetup =
        |arguments: &[&str]| std::process::Command::new("losetup").args(arguments).output();
    let made = losetup(&["-f", "--show", file.to_str().unwrap()]);
    let device = match &made {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => {
            println!("not tried: no loop device can be made here ({made:?})");
            return;
        }
    };
    datacenter.edit("examples/datacenter/instances/web-1.yaml", |text| {
        text.replace("../disks/web-1-content.raw", &format!("{device}, format: block"))
    });
    let stop = std::sync::atomic::AtomicBool::new(false);
    let output = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let disk = File::options().write(true).open(&device).unwrap();
            let mut count = 0_u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                count += 1;
                for place in [0, (64 << 20) - 512] {
                    disk.write_all_at(&count.to_le_bytes(), place).unwrap();
                }
            }
        });
        let output = datacenter.run(&["apply", "--auto-approve", "--now", NOW]);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        writer.join().unwrap();
        output
    });
    let written = (output.code, output.out.contains("changed while it was read"));
    // Nobody writes any more: the device is captured, and comes back as it is.
    let quiet = datacenter.run(&["apply", "--auto-approve", "--now", NOW]);
    let image = datacenter.ready("web-1").pop();
    let restored = image.map(|image| {
        datacenter.run_to(0, &["restore", &image, "--to", "back", "--disk", "content"]);
        fs::read(datacenter.path("back/content.raw")).unwrap() == fs::read(&device).unwrap()
    });
    losetup(&["-d", &device]).unwrap();
    assert_eq!(written, (Some(5), true), "{}", output.out);
    assert_eq!((quiet.code, restored), (Some(0), Some(true)), "{}", quiet.out);
}
