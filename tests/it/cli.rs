//! What users see, as golden files: every verb on the example data centre, and wrong input.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Stdio;
use std::sync::Arc;

use stillframe::engine::kinds;
use stillframe::files::yaml_files;
use stillframe::policy::SourceFile;
use stillframe::policy::format::format;

use super::schemas::{assert_holds, validator};
use super::support::{Datacenter, NOW, golden, transcript};

const DB: &str = "db-4201-20261121-1115z-7tni6gfx";
const WEB: &str = "web-nightly-web-1-20261121-0200z-g3adfwll";

#[test]
fn a_first_day() {
    let datacenter = Datacenter::new();
    golden(
        "first-day.txt",
        &transcript(
            &datacenter,
            &[
                &["validate"],
                &["plan", "--now", NOW],
                &["apply", "--auto-approve", "--now", NOW],
                &["apply", "--auto-approve", "--now", NOW],
                &["plan", "--now", NOW, "--detailed-exitcode"],
                &["plan", "--now", "2026-11-22T12:00:00Z", "--detailed-exitcode"],
                &["list", "--now", NOW],
                &["list", "--now", NOW, "--source", "web-1"],
                &[
                    "list",
                    "--now",
                    NOW,
                    "--policy",
                    "db",
                    "--label",
                    "cost-center=4711",
                    "--state",
                    "ready",
                ],
                &["inventory"],
            ],
        ),
    );
}

#[test]
fn what_engines_can_do() {
    let datacenter = Datacenter::new();
    let mut asked: Vec<Vec<&str>> = vec![vec!["explain", "engine", "datacenter"]];
    // Whatever engines there are: a row that is wrong is seen here.
    let kinds = kinds().into_iter().map(|kind| kind.name);
    asked.extend(kinds.map(|kind| vec!["explain", "engine", kind, "--policies", "nowhere"]));
    asked.extend([
        vec!["explain", "engine", "yandex", "--json"],
        vec!["explain", "engine", "nothing-like-it"],
        vec!["explain", "engine"],
    ]);
    let asked: Vec<&[&str]> = asked.iter().map(Vec::as_slice).collect();
    golden("engines.txt", &transcript(&datacenter, &asked));
}

#[test]
fn reading_back() {
    let datacenter = Datacenter::new();
    datacenter.apply_at(NOW);
    golden(
        "reading-back.txt",
        &transcript(
            &datacenter,
            &[
                &["show", DB],
                &["show", "web-nightly-web-1-20261121-0200z"],
                &[
                    "restore",
                    DB,
                    "--to",
                    "back",
                    "--name",
                    "db-2",
                    "--machine-type",
                    "small-1",
                    "--label",
                    "a=b",
                ],
                &["restore", DB, "--to", "back"],
                &[
                    "restore",
                    DB,
                    "--to",
                    "back",
                    "--disk",
                    "data",
                    "--overwrite",
                    "--format",
                    "qcow2",
                ],
                &["restore", DB, "--to", "elsewhere", "--disk", "dta"],
                &["verify"],
                &["verify", WEB],
                &["repository", "list"],
                &["key", "path", "database"],
            ],
        ),
    );
    golden(
        "restored-instance.yaml",
        &fs::read_to_string(datacenter.path("back/instance.yaml")).unwrap(),
    );
}

#[test]
fn saying_why() {
    let datacenter = Datacenter::new();
    datacenter.apply_at(NOW);
    golden(
        "saying-why.txt",
        &transcript(
            &datacenter,
            &[
                &["explain", "policy", "db"],
                &["explain", "policy", "web"],
                &["explain", WEB, "--now", NOW],
                &["explain", "cache-1", "--now", NOW],
                &["explain", "db-1", "--now", NOW],
                &["explain", "bad-cron"],
                &["explain", "grace-passed"],
                &["explain", "nothing-like-it", "--now", NOW],
            ],
        ),
    );
}

/// The whole language in one example: what is included, what differs in an environment.
#[test]
fn a_fleet() {
    let datacenter = Datacenter::new();
    let fleet = ["--policies", "examples/fleet/policies"];
    let with = |arguments: &[&'static str]| -> Vec<&'static str> {
        fleet.iter().chain(arguments).copied().collect()
    };
    golden(
        "fleet.txt",
        &transcript(
            &datacenter,
            &[
                &with(&["validate", "--now", NOW]),
                &with(&["validate", "--now", NOW, "--environment", "stagin"]),
                &with(&["explain", "policy", "db", "--environment", "staging"]),
                &with(&["schedule", "--from", "2026-11-19T10:00:00Z", "--next", "4"]),
                &with(&["plan", "--now", "2026-12-24T11:30:00Z"]),
                &with(&["explain", "web-1", "--now", "2026-12-24T11:30:00Z"]),
                // On the day an exemption ends, the plan is made all the same.
                &with(&["validate", "--now", "2030-01-01T00:00:00Z"]),
                &with(&["plan", "--now", "2030-01-01T00:00:00Z"]),
            ],
        ),
    );
    datacenter.edit("examples/fleet/policies/stillframe.yaml", |text| {
        text.replace("include: [../teams]", "include: [../teams, ../tems]")
    });
    let run = datacenter.run_to(3, &with(&["validate"]));
    assert!(
        run.err.contains("error[bad-include]: there is no examples/fleet/policies/../tems"),
        "{}",
        run.err
    );
    assert!(run.err.contains("stillframe.yaml:14:23"), "{}", run.err);
}

#[test]
fn schedules() {
    let datacenter = Datacenter::new();
    let week: [&str; 4] = ["--from", "2026-10-24T00:00:00Z", "--until", "2026-10-26T00:00:00Z"];
    let with = |arguments: &[&'static str]| -> Vec<&'static str> {
        arguments.iter().copied().chain(week).collect()
    };
    golden(
        "schedule.txt",
        &transcript(
            &datacenter,
            &[
                &with(&["schedule"]),
                &with(&["schedule", "--cron", "30 2 * * *", "--time-zone", "Europe/Berlin"]),
                &with(&[
                    "schedule",
                    "--cron",
                    "30 2 * * *",
                    "--time-zone",
                    "Europe/Berlin",
                    "--json",
                ]),
                &with(&["schedule", "--cron", "0 22-2 * * ?"]),
                &with(&["schedule", "--cron", "0 2 * * *", "--time-zone", "Berlin"]),
                &[
                    "schedule",
                    "--cron",
                    "0 2 * * *",
                    "--from",
                    NOW,
                    "--until",
                    "2026-01-01T00:00:00Z",
                ],
            ],
        ),
    );
}

/// Captures begin where blackouts end, and not at all where they or a pause leave no time.
#[test]
fn schedules_count_what_begins() {
    let datacenter = Datacenter::new();
    datacenter.edit("policies/database.yaml", |text| {
        text.replace("\"15 */6 * * *\"", "\"0 2 * * *\"\n    jitter: 2h")
            .replace("timeZone: Europe/Berlin", "timeZone: UTC")
            .replace("names: [\"db-*\"]\n        zones: [\"hall-*\"]", "names: [\"*\"]")
            + "  blackouts: [{cron: \"0 1 * * *\", duration: 4h, reason: night}]\n"
    });
    let seen = datacenter.run_to(0, &["inventory", "--json"]).out;
    fs::write(datacenter.path("seen.json"), seen).unwrap();
    for other in ["web.yaml", "operations.yaml"] {
        fs::remove_file(datacenter.path("policies").join(other)).unwrap();
    }
    let engine = || {
        let span = ["--from", "2026-11-21T00:00:00Z", "--until", "2026-11-23T00:00:00Z"];
        let arguments = [&["schedule", "--inventory", "seen.json"][..], &span].concat();
        datacenter.json(0, &arguments)["together"]["engines"][0].clone()
    };
    let sources = datacenter.json(0, &["schedule", "--inventory", "seen.json"]);
    let sources = sources["policies"][0]["sources"].clone();
    assert!(sources.as_u64().unwrap() > 1, "{sources}");
    let held = engine();
    assert_eq!((&held["peak"], &held["peak_at"]), (&sources, &"2026-11-21T05:00:00Z".into()));
    datacenter.edit("policies/database.yaml", |text| {
        text.to_owned()
            + "  paused: {creates: true, deletes: false, until: 2026-11-22, reason: move}\n"
    });
    // The slot of the day before is still within its deadline when the pause ends.
    assert_eq!(engine()["peak_at"], "2026-11-22T00:00:00Z");
    datacenter.edit("policies/database.yaml", |text| {
        text.replace("until: 2026-11-22,", "until: 2026-12-22,")
    });
    assert_eq!(engine()["peak"], 0);
}

/// Clock changes, special days, what comes together, and the notations of other schedulers.
#[test]
fn schedules_seen_closer() {
    let datacenter = Datacenter::new();
    fs::write(
        datacenter.path("policies/monthly.yaml"),
        "apiVersion: stillframe/v1\nkind: BackupPolicy\nmetadata: {name: monthly}\n\
         spec:\n  source: {match: [{names: [\"*\"]}]}\n\
         \x20 schedule: {cron: \"0 2 * * sun#1,friL\", jitter: 30m}\n",
    )
    .unwrap();
    let seen = datacenter.run_to(0, &["inventory", "--json"]).out;
    fs::write(datacenter.path("seen.json"), seen).unwrap();
    let berlin = ["--time-zone", "Europe/Berlin"];
    let autumn = ["--from", "2026-10-24T12:00:00Z"];
    let spring = ["--from", "2026-03-28T12:00:00Z", "--next", "2"];
    let cron = |expression: &'static str, rest: [&[&'static str]; 2]| -> Vec<&'static str> {
        ["schedule", "--cron", expression].into_iter().chain(rest.concat()).collect()
    };
    let from = |scheduler: &'static str, expression: &'static str| -> Vec<&'static str> {
        let next = ["--from", "2026-10-24T00:00:00Z", "--next", "2"];
        ["schedule", "--from", scheduler, "--cron", expression].into_iter().chain(next).collect()
    };
    let with = |first: Vec<&'static str>, rest: &[&'static str]| -> Vec<&'static str> {
        first.into_iter().chain(rest.iter().copied()).collect()
    };
    let policies = ["schedule", "--from", "2026-10-24T00:00:00Z", "--next", "2"].to_vec();
    golden(
        "schedule-closer.txt",
        &transcript(
            &datacenter,
            &[
                &policies,
                &with(policies.clone(), &["--inventory", "seen.json", "--capture-time", "15m"]),
                &with(policies.clone(), &["--inventory", "seen.json", "--json"]),
                &cron("30 2 * * *", [&berlin, &spring]),
                &cron("0,30 2 * * *", [&berlin, &spring]),
                &cron("30 2 * * *", [&berlin, &autumn]),
                &with(
                    cron("30 * * * *", [&berlin, &["--from", "2026-10-25T00:00:00Z"]]),
                    &["--json"],
                ),
                &cron("0 2 L-2,LW * sun#1", [&[], &autumn]),
                &cron("0 2 5L * 1#6", [&[], &autumn]),
                &cron("0 2 30W 2 *", [&[], &autumn]),
                &with(from("aws", "cron(0 2 ? * MON-FRI *)"), &berlin),
                &from("aws", "rate(12 hours)"),
                &from("quartz", "0 0/15 22-2 ? * 6L"),
                &from("yandex", "0 9,18 ? * 1-5"),
                &with(from("yandex", "@daily"), &berlin),
                &from("systemd", "Mon *-*~07/1 02:30 Europe/Berlin"),
                &with(from("systemd", "Sun *-*-13"), &["--json"]),
                &from("systemd", "Fri *-*-13"),
                &with(from("systemd", "*-*-* 02:00:30"), &["--json"]),
                &["schedule", "--from", "aws"],
                &["schedule", "--from", "tomorrow"],
                &["schedule", "--next", "2", "--limit", "3"],
            ],
        ),
    );
}

#[test]
fn simulating() {
    let datacenter = Datacenter::new();
    datacenter.apply_at(NOW);
    let month: [&str; 5] = ["simulate", "--days", "30", "--now", NOW];
    let with = |arguments: &[&'static str]| -> Vec<&'static str> {
        month.iter().chain(arguments).copied().collect()
    };
    fs::create_dir(datacenter.path("before")).unwrap();
    for file in ["database.yaml", "web.yaml", "stillframe.yaml"] {
        fs::copy(datacenter.path("policies").join(file), datacenter.path("before").join(file))
            .unwrap();
    }
    datacenter.edit("before/database.yaml", |text| text.replace("last: 8", "last: 40"));
    golden(
        "simulate.txt",
        &transcript(
            &datacenter,
            &[
                &with(&[]),
                &with(&["--fail-rate", "20%", "--growth", "0.1", "--seed", "7", "--policy", "db"]),
                &with(&["--base", "policies"]),
                &with(&["--base", "before"]),
                &with(&["--base", "nothing-like-it"]),
                &with(&["--policy", "nothing"]),
                &with(&["--fail-rate", "2"]),
                &with(&["--fail-rate", "-1"]),
                &with(&["--growth", "-5%"]),
                &["simulate", "--days", "0"],
            ],
        ),
    );
    let svg = datacenter.run_to(0, &with(&["--format", "svg", "--base", "before"])).out;
    golden("simulate.svg", &svg);
    let json = datacenter.json(0, &month);
    assert_holds(&validator("simulation"), &json, "simulate --json");
    for series in json["series"].as_array().unwrap() {
        assert_eq!(series["track"]["ready"].as_array().unwrap().len(), 31, "{series}");
    }
    let other = datacenter.json(0, &month);
    assert_eq!(json, other);
    // Sources without any restore point have no ages at first.
    let empty = Datacenter::new().json(0, &month);
    assert_holds(&validator("simulation"), &empty, "simulate --json over nothing");
    assert_eq!(empty["series"][0]["track"]["newest_seconds"][0], serde_json::Value::Null);
    // With one slot a day each but the last failed capture is a missed slot.
    let arguments = [&month[..], &["--fail-rate", "100%", "--policy", "web-nightly"]].concat();
    let failing = Datacenter::new().json(0, &arguments);
    let sources = failing["policies"][0]["sources"].as_u64().unwrap();
    let totals = &failing["policies"][0]["totals"];
    let figures = ["created", "failed", "missed"].map(|figure| totals[figure].as_u64().unwrap());
    assert_eq!(figures, [0, 31 * sources, 30 * sources], "{totals}");
    // A date is its beginning in UTC.
    let day = |now: &'static str| datacenter.json(0, &["simulate", "--days", "1", "--now", now]);
    assert_eq!(day("2026-11-21"), day("2026-11-21T00:00:00Z"));
}

/// A revision of the repository the policies lie in, as a change under review has it.
#[test]
fn simulating_against_a_revision() {
    let datacenter = Datacenter::new();
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-C"])
            .arg(datacenter.path("."))
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    };
    git(&["init", "--quiet"]);
    git(&["add", "policies"]);
    git(&["commit", "--quiet", "--message", "before"]);
    datacenter.edit("policies/database.yaml", |text| text.replace("last: 8", "last: 40"));
    let run = |base: &'static str| {
        let arguments = ["simulate", "--days", "20", "--now", NOW, "--json", "--base", base];
        datacenter.run(&arguments)
    };
    let both: serde_json::Value = serde_json::from_str(&run("HEAD").out).unwrap();
    assert_holds(&validator("comparison"), &both, "simulate --base --json");
    let differences = both["differences"].as_array().unwrap();
    assert_eq!(differences.len(), 1, "{differences:?}");
    assert_eq!(differences[0]["policy"], "db");
    let ready = |side: &str| differences[0][side]["ready"].as_u64().unwrap();
    assert!(ready("before") < ready("after"), "{differences:?}");
    for (base, message) in [
        ("HEAD~1", "neither a directory nor a revision"),
        ("--output=x", "neither a directory nor a revision"),
    ] {
        let arguments = ["simulate", "--days", "20", "--now", NOW, &format!("--base={base}")];
        let wrong = datacenter.run_to(1, &arguments);
        assert!(wrong.err.contains(message), "{}", wrong.err);
    }
}

/// Every kind of mistake there is a code for, in two files, all found in one run.
#[test]
fn wrong_policies() {
    let datacenter = Datacenter::new();
    fs::write(
        datacenter.path("policies/stillframe.yaml"),
        include_str!("../data/wrong/stillframe.yaml"),
    )
    .unwrap();
    fs::write(datacenter.path("policies/wrong.yaml"), include_str!("../data/wrong/wrong.yaml"))
        .unwrap();
    fs::write(datacenter.path("policies/binary.yaml"), b"\xff\xfe").unwrap();
    golden(
        "wrong.txt",
        &transcript(&datacenter, &[&["validate"], &["plan"], &["apply", "--auto-approve"]]),
    );
    let json = datacenter.json(3, &["validate"]);
    golden("wrong.json", &format!("{}\n", serde_json::to_string_pretty(&json).unwrap()));
    golden("wrong.github.txt", &datacenter.run_to(3, &["validate", "--format", "github"]).out);
    let sarif = datacenter.run_to(3, &["validate", "--format", "sarif"]).out;
    let sarif: serde_json::Value = serde_json::from_str(&sarif).unwrap();
    let results = sarif["runs"][0]["results"].as_array().unwrap();
    assert_eq!(results.len(), json["findings"].as_array().unwrap().len());
    let rules = sarif["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap();
    let mut fingerprints = std::collections::BTreeSet::new();
    for (result, finding) in results.iter().zip(json["findings"].as_array().unwrap()) {
        assert_eq!(result["ruleId"], finding["code"]);
        let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(rules[index]["id"], result["ruleId"]);
        assert!(fingerprints.insert(result["partialFingerprints"].to_string()), "{result}");
    }
}

#[test]
fn without_a_configuration() {
    let datacenter = Datacenter::new();
    fs::remove_file(datacenter.path("policies/stillframe.yaml")).unwrap();
    let nowhere = ["--policies", "nowhere", "validate"];
    let nothing = ["--policies", "nothing", "validate"];
    fs::create_dir(datacenter.path("nothing")).unwrap();
    golden("no-configuration.txt", &transcript(&datacenter, &[&["validate"], &nowhere, &nothing]));
}

/// What is checked in is in its canonical form.
#[test]
fn the_examples_are_formatted() {
    let run = Datacenter::new().run_to(0, &["fmt", "--check", "policies", "examples/gce"]);
    assert_eq!((run.out.as_str(), run.err.as_str()), ("", ""));
    let root = super::support::project();
    for directory in ["policies", "examples"] {
        let files = yaml_files(&root.join(directory)).unwrap().into_iter();
        for path in files.filter(|path| !super::support::is_of_others(path)) {
            let text = fs::read_to_string(&path).unwrap();
            let file = SourceFile { path: path.display().to_string(), text: text.clone() };
            assert_eq!(format(&Arc::new(file)).unwrap(), text, "{}", path.display());
        }
    }
}

#[test]
fn formatting() {
    let datacenter = Datacenter::new();
    let loose = include_str!("../data/format/loose.yaml");
    let path = datacenter.path("policies/loose.yaml");
    fs::write(&path, loose).unwrap();
    fs::write(datacenter.path("policies/wrong.yaml"), "spec: [1\n").unwrap();
    fs::write(datacenter.path("policies/directive.yaml"), "%YAML 1.2\n---\na:   1\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    symlink("loose.yaml", datacenter.path("policies/link.yaml")).unwrap();
    let check: [&[&str]; 3] =
        [&["fmt", "--check"], &["fmt", "--check", "--json"], &["fmt", "--diff"]];
    let mut text = transcript(&datacenter, &check);
    assert_eq!(fs::read_to_string(&path).unwrap(), loose, "a check wrote something");
    let write: [&[&str]; 4] =
        [&["fmt", "policies/loose.yaml", "--check"], &["fmt"], &["fmt"], &["fmt", "nowhere"]];
    text.push_str(&transcript(&datacenter, &write));
    text.push_str(&transcript(&datacenter, &[&["fmt", "-", "policies"], &["fmt", "--json"]]));
    golden("format.txt", &text);
    fs::write(&path, loose).unwrap();
    let report = datacenter.run_to(3, &["fmt", "policies", "--json"]);
    assert!(report.out.contains("policies/link.yaml"), "{}", report.out);
    assert_eq!(fs::read_to_string(&path).unwrap(), loose, "a report wrote something");
    datacenter.run_to(3, &["fmt"]);
    let formatted = fs::read_to_string(&path).unwrap();
    golden("formatted.yaml", &formatted);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(fs::symlink_metadata(datacenter.path("policies/link.yaml")).unwrap().is_symlink());
    let left = fs::read_dir(datacenter.path("policies")).unwrap().count();
    assert_eq!(left, 11, "something was left beside the files");

    // Through a link the file itself is written.
    fs::write(&path, loose).unwrap();
    datacenter.run_to(0, &["fmt", "policies/link.yaml"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), formatted);
    assert!(fs::symlink_metadata(datacenter.path("policies/link.yaml")).unwrap().is_symlink());

    // Standard input becomes standard output.
    let through = |text: &str, arguments: &[&str]| {
        let mut command = datacenter.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(through(loose, &["fmt", "-"]), (Some(0), formatted.clone()));
    assert_eq!(through(&formatted, &["fmt", "-", "--check"]), (Some(0), String::new()));
    assert_eq!(through(loose, &["fmt", "-", "--check"]).0, Some(1));
    assert_eq!(through("a: [", &["fmt", "-"]), (Some(3), String::new()));
    // What is not understood comes back as it was.
    let directive = "%YAML 1.2\n---\na:   1\n";
    assert_eq!(through(directive, &["fmt", "-"]), (Some(0), directive.to_owned()));
}

#[test]
fn policies_behind_linked_directories_count_and_links_that_lead_nowhere_are_told() {
    let datacenter = Datacenter::new();
    let valid = datacenter.run_to(0, &["validate"]).out;
    fs::create_dir(datacenter.path("policies/..d1")).unwrap();
    let (from, to) = (datacenter.path("policies/web.yaml"), "policies/..d1/web.yaml");
    fs::rename(from, datacenter.path(to)).unwrap();
    symlink("..d1", datacenter.path("policies/teams")).unwrap();
    assert_eq!(datacenter.run_to(0, &["validate"]).out, valid, "no policy is left out");
    symlink("..", datacenter.path("policies/..d1/above")).unwrap();
    symlink("..data/db", datacenter.path("policies/db")).unwrap();
    let told = datacenter.run_to(3, &["validate"]).err;
    for line in [
        "error[unreadable-file]: cannot read policies/db: the link leads to ..data/db, which is not there",
        "error[unreadable-file]: cannot read policies/teams/above: the link leads to .., which it lies in",
        "= help: correct the link or take it away; names that begin with a dot are not read",
    ] {
        assert!(told.contains(line), "{told}");
    }
    assert_eq!(told.matches("error[").count(), 2, "each is told once: {told}");
}

#[test]
fn wrong_command_lines() {
    let datacenter = Datacenter::new();
    golden(
        "wrong-command-lines.txt",
        &transcript(
            &datacenter,
            &[
                &["aply"],
                &["apply"],
                &["plan", "--now", "yesterday"],
                &["plan", "--override", "everything"],
                &["plan", "--inventory", "nothing.json"],
                &["list", "--label", "x"],
            ],
        ),
    );
    // Without `trial: true` no round may be carried out at another time.
    datacenter.edit("policies/stillframe.yaml", |text| text.replace("trial: true", "trial: false"));
    let run = datacenter.run_to(1, &["apply", "--auto-approve", "--now", NOW]);
    assert!(run.err.contains("--now would write false times"), "{}", run.err);
    datacenter.run_to(0, &["apply", "--dry-run", "--now", NOW]);
}

#[test]
#[cfg(feature = "gce")]
fn each_engine_that_cannot_be_opened_is_told() {
    let datacenter = Datacenter::new();
    datacenter.edit("policies/stillframe.yaml", |text| {
        let others = "  engines:\n    near: {gce: {projects: [shop]}}\n    far: {gce: {projects: [other]}}\n";
        let text = text.replacen("  engines:\n", others, 1);
        text.replacen("  defaults:\n", "  defaults:\n    engine: datacenter\n", 1)
    });
    let missing = "/nonexistent/credentials.json";
    for command in ["plan", "inventory"] {
        let mut program = datacenter.command(&[command]);
        let output = program.env("GOOGLE_APPLICATION_CREDENTIALS", missing).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{told}");
        let lines: Vec<&str> = told.lines().filter(|line| line.contains(missing)).collect();
        let [far, near] = lines[..] else { panic!("{told}") };
        assert!(far.starts_with("error: engine far: "), "{told}");
        assert!(near.trim_start().starts_with("engine near: "), "{told}");
    }
}

/// What differs from machine to machine is left out.
fn examined(datacenter: &Datacenter, code: i32) -> String {
    let out = datacenter.run_to(code, &["doctor"]).out;
    let lines = out.lines().map(|line| match line.split_once(" GiB free at") {
        Some((before, after)) => {
            let before = before.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
            format!("{before}FREE GiB free at{after}\n")
        }
        None => format!("{line}\n"),
    });
    format!("$ stillframe doctor\n{}-- exit code {code}\n\n", lines.collect::<String>())
}

#[test]
fn everything_that_is_wrong_is_found_at_once() {
    let datacenter = Datacenter::new();
    let mut text = examined(&datacenter, 0);
    // Nothing was made by looking.
    assert!(!datacenter.path(".stillframe").exists());
    datacenter.apply_at(NOW);
    text.push_str(&examined(&datacenter, 0));
    fs::rename(
        datacenter.path(".stillframe/store/keys/default.key"),
        datacenter.path("elsewhere.key"),
    )
    .unwrap();
    fs::remove_file(datacenter.path("examples/datacenter/disks/web-1-boot.raw")).unwrap();
    fs::write(datacenter.path("examples/datacenter/instances/odd.yaml"), "kind: Odd\n").unwrap();
    let locations = datacenter.path(".stillframe/store/locations");
    fs::rename(locations.join("main"), locations.join("aside")).unwrap();
    fs::write(locations.join("main"), "no directory").unwrap();
    let ledger = datacenter.path(".stillframe/ledger.ndjson");
    fs::remove_file(&ledger).unwrap();
    fs::create_dir(&ledger).unwrap();
    text.push_str(&examined(&datacenter, 1));
    assert!(!datacenter.path(".stillframe/store/keys/default.key").exists());
    golden("doctor.txt", &text);
}

#[test]
fn roles_are_printed_without_looking_at_anything() {
    let datacenter = Datacenter::new();
    let directory = datacenter.path("policies");
    fs::remove_dir_all(directory).unwrap();
    golden(
        "roles.txt",
        &transcript(&datacenter, &[&["doctor", "--roles"], &["doctor", "--roles", "planner"]]),
    );
    for document in datacenter.run_to(0, &["doctor", "--roles"]).out.split("---\n") {
        let role: serde_json::Value = serde_yaml::from_str(document).unwrap();
        assert!(!role["includedPermissions"].as_array().unwrap().is_empty());
    }
}

#[cfg(feature = "watch")]
#[test]
fn what_receivers_would_get() {
    let datacenter = Datacenter::new();
    datacenter.edit("policies/stillframe.yaml", |text| {
        format!(
            "{}  watch:\n    notify:\n      receivers:\n        chat: {{slack: {{url: \"https://hooks.example.org/services/secret\"}}}}\n        \
             night: {{teams: {{urlFile: teams-url}}}}\n        \
             own: {{webhook: {{url: \"https://in.example.org/x\", body: '{{\"text\": \"{{{{title}}}}\"}}'}}}}\n        \
             program: {{exec: {{command: [./tell]}}}}\n        \
             room: {{matrix: {{homeserver: \"https://m.example.org\", room: \"!r:example.org\", tokenEnv: NO_SUCH}}}}\n",
            text.trim_end().to_owned() + "\n"
        )
    });
    fs::write(datacenter.path("policies/teams-url"), "https://teams.example.org/hidden\n").unwrap();
    fs::write(datacenter.path("policies/tell"), "#!/bin/sh\ncat > told.json\n").unwrap();
    let program = fs::Permissions::from_mode(0o755);
    fs::set_permissions(datacenter.path("policies/tell"), program).unwrap();
    golden(
        "notify.txt",
        &transcript(
            &datacenter,
            &[
                &["notify", "test", "--dry-run", "chat", "night", "own"],
                &["notify", "test", "--dry-run", "room"],
                &["notify", "test", "program"],
                &["notify", "test", "nobody"],
            ],
        ),
    );
    let told = fs::read_to_string(datacenter.path("told.json")).unwrap();
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_holds(&validator("notification"), &told, "a test message");
    let run = datacenter.json(0, &["notify", "test", "program"]);
    assert_eq!(run["receivers"][0]["arrived"], true);
    let without = Datacenter::new().run_to(1, &["notify", "test"]);
    assert!(without.err.contains("there is no receiver"), "{}", without.err);
}
