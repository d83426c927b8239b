//! The scripts that drive vendors' clients, as far as they go without any client.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Output};

use super::project;

/// Runs the script for Google's clients where these programs are and nothing else. Without Python it
/// ends after it has looked for gcloud.
fn gce(programs: &[&str], is_required: bool) -> Output {
    let directory = tempfile::tempdir().unwrap();
    for name in programs {
        let places = ["/bin", "/usr/bin"].map(|place| format!("{place}/{name}"));
        let there = places.iter().find(|path| fs::exists(path).unwrap());
        // Which program is called gcloud does not matter: it is not run.
        let there = there.map_or("/bin/sh", String::as_str);
        symlink(there, directory.path().join(name)).unwrap();
    }
    let mut command = Command::new("/bin/sh");
    command
        .arg(project().join("tests/clients/gce.sh"))
        .env_clear()
        .env("PATH", directory.path())
        .env("TMPDIR", directory.path());
    if is_required {
        command.env("REQUIRE_GCLOUD", "1");
    }
    command.output().unwrap()
}

#[test]
fn gcloud_that_must_be_tried_and_is_not_there_is_a_failure() {
    const TOOLS: [&str; 5] = ["dirname", "mktemp", "realpath", "rm", "sh"];
    let with_gcloud = [&TOOLS[..], &["gcloud"]].concat();
    let says = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let missing = gce(&TOOLS, true);
    assert!(!missing.status.success());
    assert!(
        says(&missing).starts_with("gcloud: not installed, and REQUIRE_GCLOUD=1"),
        "{missing:?}"
    );
    // On a laptop, or where it is, the script goes on: to Python, which is not there.
    for (programs, is_required) in [(&TOOLS[..], false), (&with_gcloud, true)] {
        let on = says(&gce(programs, is_required));
        assert!(on.contains("python3") && !on.contains("REQUIRE_GCLOUD"), "{on}");
    }
    let job = fs::read_to_string(project().join(".ci/clients")).unwrap();
    assert!(job.lines().any(|line| line == "REQUIRE_GCLOUD=1 tests/clients/gce.sh"), "{job}");
    assert!(job.lines().any(|line| line == "REQUIRE_TWCCLI=1 tests/clients/twcc.sh"), "{job}");
}

#[test]
fn python_that_must_be_there_for_twccli_and_is_not_is_a_failure() {
    let run = |is_required: bool| {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("/bin/sh");
        command.arg(project().join("tests/clients/twcc.sh")).env_clear();
        command.env("PATH", directory.path());
        if is_required {
            command.env("REQUIRE_TWCCLI", "1");
        }
        command.output().unwrap()
    };
    let missing = run(true);
    let says = String::from_utf8_lossy(&missing.stderr);
    assert!(!missing.status.success() && says.contains("REQUIRE_TWCCLI=1"), "{says}");
    let on = run(false);
    let says = String::from_utf8_lossy(&on.stdout);
    assert!(on.status.success() && says.contains("not tried"), "{says}");
}
