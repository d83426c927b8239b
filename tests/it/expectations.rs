//! `stillframe test`: tests of policies, those that hold, those that do not, and those that are none.

use std::fs;

use serde_json::Value;

use super::support::{Datacenter, golden, project, transcript};

/// The example data centre with a test among its policies.
fn with(name: &str) -> Datacenter {
    let datacenter = Datacenter::new();
    for test in ["database", "web", "operations"] {
        fs::remove_file(datacenter.path(&format!("policies/{test}.test.yaml"))).unwrap();
    }
    let from = project().join("tests/data/expectations").join(name);
    fs::copy(from, datacenter.path("policies").join(name)).unwrap();
    datacenter
}

fn names(document: &Value) -> Vec<&str> {
    let cases = document["cases"].as_array().unwrap();
    cases.iter().map(|case| case["case"].as_str().unwrap()).collect()
}

#[test]
fn the_examples_hold_without_any_engine() {
    let datacenter = Datacenter::new();
    // Nothing is opened: neither instances nor a store are there, and none is made.
    fs::remove_dir_all(datacenter.path("examples")).unwrap();
    let document = datacenter.json(0, &["test", "--junit", "junit.xml"]);
    assert_eq!(document["failed"], 0);
    assert!(document["passed"].as_u64().unwrap() >= 15, "{document}");
    assert!(!datacenter.path(".stillframe").exists());
    let junit = fs::read_to_string(datacenter.path("junit.xml")).unwrap();
    assert_eq!(junit.matches("<testcase ").count() as u64, document["passed"].as_u64().unwrap());
    assert_eq!(junit.matches("<testsuite ").count(), 3);
    assert!(!junit.contains("<failure"), "{junit}");
    // Each example policy has a test, so that none is there for show.
    let text = document.to_string();
    for test in ["database.test.yaml", "web.test.yaml", "operations.test.yaml"] {
        assert!(text.contains(test));
    }
}

#[test]
fn a_changed_policy_is_caught_by_its_test() {
    let run = |file: &str, from: &str, to: &str, filter: &str| {
        let datacenter = Datacenter::new();
        datacenter.edit(file, |text| text.replace(from, to));
        let document = datacenter.json(1, &["test", "--filter", filter]);
        assert_eq!(document["failed"], 1, "{from} -> {to}: {document}");
        assert_eq!(document["passed"], 0, "{from} -> {to}: {document}");
    };
    let database = "policies/database.yaml";
    run(database, "timeZone: Europe/Berlin", "timeZone: UTC", "six hours of the clock");
    run(database, "hall-*", "*", "only databases");
    run(database, "atLeast: 4", "atLeast: 2", "after a year without it");
    run("policies/web.yaml", "env: production", "env: [production, test]", "production only");
    run("policies/stillframe.yaml", "weekly: 8", "weekly: 7", "failed nights");
    run("policies/operations.yaml", "deprecateAfter: 7d", "deprecateAfter: 9d", "after a week");
}

#[test]
fn what_is_not_met_is_shown_with_what_there_is() {
    let datacenter = with("unmet.test.yaml");
    golden("expectations-unmet.txt", &transcript(&datacenter, &[&["test"]]));
    let document = datacenter.json(1, &["test", "--junit", "junit.xml"]);
    golden(
        "expectations-unmet.json",
        &format!("{}\n", serde_json::to_string_pretty(&document).unwrap()),
    );
    let junit = fs::read_to_string(datacenter.path("junit.xml")).unwrap();
    // Readers keep one failure of a case: all that is wrong stands in it.
    assert_eq!(junit.matches("<failure ").count(), 2, "{junit}");
    assert!(junit.contains("18 restore points are kept, not 3; 18 restore points"), "{junit}");
    assert!(
        junit.contains(r#"<testsuites name="stillframe test" tests="3" failures="2""#),
        "{junit}"
    );
}

#[test]
fn mistakes_in_tests_are_found_like_those_in_policies() {
    let broken = with("broken.test.yaml");
    golden("expectations-broken.txt", &transcript(&broken, &[&["test"]]));
    let validated = broken.json(3, &["validate"]);
    assert_eq!(validated["findings"], broken.json(3, &["test"])["findings"]);
    // A plan does not wait for its tests.
    broken.run_to(0, &["plan", "--now", super::support::NOW]);
    let astray = with("astray.test.yaml");
    golden("expectations-astray.txt", &transcript(&astray, &[&["test"], &["validate"]]));
    let document = astray.json(3, &["test", "--junit", "junit.xml"]);
    assert_eq!(names(&document), ["what is right is run all the same"]);
    let junit = fs::read_to_string(astray.path("junit.xml")).unwrap();
    assert_eq!(junit.matches("<error ").count(), 1, "{junit}");
}

#[test]
fn tests_and_policies_are_told_apart_by_their_names() {
    let datacenter = with("unmet.test.yaml");
    let text = fs::read_to_string(datacenter.path("policies/unmet.test.yaml")).unwrap();
    fs::write(datacenter.path("policies/unmet.yaml"), &text).unwrap();
    let run = datacenter.run_to(3, &["validate"]);
    assert!(run.err.contains("a test among policies"), "{}", run.err);
    assert!(run.err.contains("web.test.yaml"), "{}", run.err);
    // A file that is named is read whatever its name.
    fs::rename(datacenter.path("policies/unmet.yaml"), datacenter.path("unmet.yaml")).unwrap();
    assert_eq!(datacenter.json(1, &["test", "unmet.yaml"])["failed"], 2);
    // A file of policies among those that are named holds no tests and is none.
    datacenter.run_to(0, &["--policies", "policies", "validate"]);
}

#[test]
fn cases_are_chosen_by_their_names() {
    let datacenter = Datacenter::new();
    let listed = datacenter.run_to(0, &["test", "--list"]).out;
    assert!(listed.contains("policies/web.test.yaml: front ends > production only\n"), "{listed}");
    let document = datacenter.json(0, &["test", "--filter", "front ends > production"]);
    assert_eq!(names(&document), ["production only"]);
    assert_eq!(document["left_out"].as_u64().unwrap() + 1, listed.lines().count() as u64);
    // What runs nothing proves nothing.
    let run = datacenter.run_to(1, &["test", "--filter", "no such case"]);
    assert!(run.err.contains("no case contains `no such case`"), "{}", run.err);
    fs::create_dir(datacenter.path("empty")).unwrap();
    let run = datacenter.run_to(1, &["test", "empty"]);
    assert!(run.err.contains("there is no test"), "{}", run.err);
    let run = datacenter.run_to(1, &["test", "nowhere"]);
    assert!(run.err.contains("there is no nowhere"), "{}", run.err);
}

/// What is left of a year of rounds is what the rules say of all that was ever made.
#[test]
fn a_planned_history_ends_where_a_plain_one_is_judged() {
    let datacenter = Datacenter::new();
    let case = |how: &str| {
        format!(
            "    - name: {how}\n      given: {{history: [{{from: 2026-03-01, how: {how}}}]}}\n      \
             now: 2026-11-21T12:00:00Z\n      expect: {{kept: []}}\n"
        )
    };
    let text = format!(
        "apiVersion: stillframe/v1\nkind: PolicyTest\nmetadata: {{name: both}}\nspec:\n  policies: policies\n  \
         policy: web-nightly\n  source: web-1\n  sources:\n    - {{name: web-1, labels: {{role: web, env: production}}}}\n  \
         cases:\n{}{}",
        case("planned"),
        case("plain")
    );
    fs::write(datacenter.path("both.test.yaml"), text).unwrap();
    let document = datacenter.json(1, &["test", "both.test.yaml"]);
    let kept = |case: usize| document["cases"][case]["failures"][0]["unexpected"].clone();
    assert_eq!(kept(0).as_array().unwrap().len(), 19, "{document}");
    assert_eq!(kept(0), kept(1));
}

#[test]
fn policies_with_mistakes_can_be_tested_for_them() {
    let datacenter = Datacenter::new();
    let text = |expect: &str| {
        format!(
            "apiVersion: stillframe/v1\nkind: PolicyTest\nmetadata: {{name: mistakes}}\nspec:\n  cases:\n    \
             - name: all\n      now: 2026-11-21\n      expect: {expect}\n"
        )
    };
    datacenter.edit("policies/web.yaml", |text| text.replace("0 2 * * *", "0 25 * * *"));
    fs::write(datacenter.path("a.test.yaml"), text("{findings: [bad-cron]}")).unwrap();
    datacenter.run_to(0, &["test", "a.test.yaml"]);
    fs::write(datacenter.path("a.test.yaml"), text("{findings: []}")).unwrap();
    datacenter.run_to(1, &["test", "a.test.yaml"]);
    // Anything else cannot be said of policies that mean nothing.
    fs::write(datacenter.path("a.test.yaml"), text("{findings: [bad-cron], nothing: true}"))
        .unwrap();
    let run = datacenter.run_to(3, &["test", "a.test.yaml"]);
    assert!(run.err.contains("error[bad-cron]"), "{}", run.err);
}

#[test]
fn the_test_in_the_book_holds() {
    let page = include_str!("../../src/doc/testing-policies.md");
    let (_, rest) = page.split_once("```yaml\n").unwrap();
    let (text, _) = rest.split_once("```").unwrap();
    let datacenter = Datacenter::new();
    fs::write(datacenter.path("policies/book.test.yaml"), text).unwrap();
    let document = datacenter.json(0, &["test", "policies/book.test.yaml"]);
    assert_eq!(document["passed"], 2);
}
