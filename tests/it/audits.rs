//! The ledger and what an auditor reads of it.

use std::collections::BTreeSet;
use std::fs;

use super::schemas::{assert_holds, validator};
use super::support::Datacenter;

const LEDGER: &str = ".stillframe/ledger.ndjson";

/// A data centre in which a week has passed, with deletions.
fn week() -> Datacenter {
    let datacenter = Datacenter::new();
    datacenter.edit("policies/web.yaml", |text| format!("{text}  retention: {{last: 2}}\n"));
    for day in 14..=21 {
        datacenter.apply_at(&format!("2026-11-{day}T12:00:00Z"));
    }
    datacenter
}

#[test]
fn a_report_says_what_was_deleted_and_what_is_protected() {
    let datacenter = week();
    let arguments =
        ["report", "--from", "2026-11-17", "--to", "2026-11-22", "--now", "2026-11-21T12:00:00Z"];
    let report = datacenter.json(0, &arguments);
    assert_holds(&validator("audit"), &report, "report --json");
    assert_eq!(report["rounds"], 5);
    assert_eq!(report["chain"]["whole"], true);
    let deletions = report["deletions"].as_array().unwrap();
    assert!(!deletions.is_empty());
    for one in deletions {
        assert!(one["at"].as_str().unwrap() >= "2026-11-17", "{one}");
        assert!(!one["reasons"].as_array().unwrap().is_empty(), "{one}");
    }
    assert!(!report["coverage"].as_array().unwrap().is_empty());
    let run = |format: &'static str| {
        let mut all = arguments.to_vec();
        all.extend(["--format", format]);
        datacenter.run_to(0, &all).out
    };
    let name = deletions[0]["image"].as_str().unwrap();
    for format in ["text", "markdown", "html", "csv"] {
        assert!(run(format).contains(name), "{format}: {}", run(format));
    }
    assert_eq!(run("csv").lines().count(), deletions.len() + 1);
    // Every day of the span has a point, so the objective of a day holds, and one of an hour does not.
    datacenter.edit("policies/web.yaml", |text| format!("{text}  objectives: {{rpo: 25h}}\n"));
    let report = datacenter.json(0, &arguments);
    assert!(report["compliance"].as_array().unwrap().iter().all(|one| one["breaches"] == 0));
    datacenter.edit("policies/web.yaml", |text| text.replace("rpo: 25h", "rpo: 23h"));
    let report = datacenter.json(0, &arguments);
    let compliance = &report["compliance"].as_array().unwrap()[0];
    assert_eq!(compliance["longest_seconds"], 86_400);
    assert!(compliance["breaches"].as_u64().unwrap() >= 4, "{compliance}");
}

#[test]
fn a_ledger_that_cannot_be_written_costs_no_restore_point_and_takes_nothing_away() {
    let datacenter = week();
    let names = || -> BTreeSet<String> {
        let list = datacenter.json(0, &["list", "--all"]);
        let images = list["images"].as_array().unwrap().iter();
        images.map(|row| row["image"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let before = names();
    fs::rename(datacenter.path(LEDGER), datacenter.path("aside")).unwrap();
    fs::create_dir(datacenter.path(LEDGER)).unwrap();
    let apply = ["apply", "--auto-approve", "--now", "2026-11-22T12:00:00Z"];
    let said = datacenter.run_to(5, &apply).out;
    assert!(said.contains("the ledger cannot be written, images are made all the same"), "{said}");
    assert!(said.contains("not begun, because the ledger cannot be written"), "{said}");
    let after = names();
    assert!(before.is_subset(&after) && before.len() < after.len(), "{before:?} {after:?}");
    fs::remove_dir(datacenter.path(LEDGER)).unwrap();
    fs::rename(datacenter.path("aside"), datacenter.path(LEDGER)).unwrap();
    datacenter.run_to(0, &apply);
    assert!(names().len() < after.len(), "what was not taken away is taken away later");
    datacenter.run_to(0, &["ledger", "verify"]);
}

#[test]
fn a_line_that_is_taken_out_is_noticed() {
    let datacenter = Datacenter::new();
    datacenter.apply_at("2026-11-20T12:00:00Z");
    datacenter.apply_at("2026-11-21T12:00:00Z");
    let whole = datacenter.json(0, &["ledger", "verify"]);
    assert_eq!(whole["whole"], true);
    let head = whole["ledger"]["head"].as_str().unwrap().to_owned();
    datacenter.run_to(0, &["ledger", "verify", "--head", &head]);
    let path = datacenter.path(LEDGER);
    let text = fs::read_to_string(&path).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    // The last one is gone: only who kept its digest knows.
    lines.pop();
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    datacenter.run_to(0, &["ledger", "verify"]);
    let cut = datacenter.run_to(1, &["ledger", "verify", "--head", &head]);
    assert!(cut.err.contains("cut off"), "{}", cut.err);
    lines.remove(2);
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    let broken = datacenter.run_to(1, &["ledger", "verify"]);
    assert!(broken.err.contains("line 3"), "{}", broken.err);
    let report = datacenter.run_to(1, &["report", "--to", "2026-11-22"]);
    assert!(report.out.contains("not whole"), "{}", report.out);
}
