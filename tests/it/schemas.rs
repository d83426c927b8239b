//! `schemas/` hold what is written by hand and what the program prints.

use std::fs;
use std::path::PathBuf;

use jsonschema::Validator;
use serde_json::Value;
use stillframe::alert::Notification;
use stillframe::audit::Audit;
use stillframe::audit::drift::Drift;
use stillframe::engine;
use stillframe::expect::test_schema;
use stillframe::files::{read_tests, yaml_files};
use stillframe::inventory::Inventory;
use stillframe::plan::Plan;
use stillframe::plan::guard::Approval;
use stillframe::policy::schema::simplify;
use stillframe::policy::{config_schema, overlay_schema, policy_schema};
use stillframe::report::Diagnosis;
use stillframe::report::overview::Overview;
use stillframe::review::{Review, Saved};
use stillframe::simulate::{Comparison, Simulation};

use super::support::{Datacenter, NOW, golden, is_of_others, project};

fn of<T: schemars::JsonSchema>() -> Value {
    let mut schema = schemars::schema_for!(T).to_value();
    simplify(&mut schema);
    schema
}

/// Every schema there is, by the name of its file.
fn schemas() -> [(&'static str, Value); 18] {
    [
        ("policy", policy_schema()),
        ("config", config_schema(&engine::kinds())),
        ("overlay", overlay_schema(&engine::kinds())),
        ("test", test_schema()),
        ("instance", engine::local::instance::schema()),
        ("resource", stillframe::serve::gce::resource_schema()),
        ("inventory", of::<Inventory>()),
        ("plan", of::<Plan>()),
        ("simulation", of::<Simulation>()),
        ("comparison", of::<Comparison>()),
        ("doctor", of::<Diagnosis>()),
        ("review", of::<Review>()),
        ("saved-plan", of::<Saved>()),
        ("approval", of::<Approval>()),
        ("audit", of::<Audit>()),
        ("drift", of::<Drift>()),
        ("notification", of::<Notification>()),
        ("page", of::<Overview>()),
    ]
}

pub fn validator(name: &str) -> Validator {
    let text = fs::read_to_string(project().join(format!("schemas/{name}.schema.json"))).unwrap();
    jsonschema::validator_for(&serde_json::from_str(&text).unwrap()).unwrap()
}

pub fn assert_holds(validator: &Validator, document: &Value, what: &str) {
    let errors: Vec<String> = validator
        .iter_errors(document)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{what}\n{}", errors.join("\n"));
}

#[test]
fn the_files_are_what_the_types_say() {
    for (name, schema) in schemas() {
        let text = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
        golden(&format!("../../schemas/{name}.schema.json"), &text);
    }
}

#[test]
fn every_yaml_file_names_its_schema_and_holds_to_it() {
    let mut count = 0;
    for directory in ["policies", "examples"] {
        let directory = project().join(directory);
        let (tests, unreadable) = read_tests(std::slice::from_ref(&directory));
        assert_eq!(unreadable, []);
        let tests = tests.iter().map(|file| PathBuf::from(&file.path));
        for path in yaml_files(&directory).unwrap().into_iter().chain(tests) {
            if is_of_others(&path) {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let first = text.lines().next().unwrap();
            let schema = first
                .strip_prefix("# yaml-language-server: $schema=")
                .unwrap_or_else(|| panic!("{} has no modeline", path.display()));
            let schema = path.parent().unwrap().join(schema).canonicalize().unwrap();
            assert!(schema.starts_with(project().canonicalize().unwrap().join("schemas")));
            let name =
                schema.file_name().unwrap().to_str().unwrap().strip_suffix(".schema.json").unwrap();
            let validator = validator(name);
            for document in text.split("\n---\n") {
                let document: Value = serde_yaml::from_str(document).unwrap();
                assert_holds(&validator, &document, &path.display().to_string());
                count += 1;
            }
        }
    }
    assert!(count >= 13);
}

#[test]
fn what_the_program_prints_holds_to_the_schemas() {
    let datacenter = Datacenter::new();
    let (inventory, plan) = (validator("inventory"), validator("plan"));
    for day in 21..25 {
        let now = format!("2026-11-{day}T12:00:00Z");
        assert_holds(&plan, &datacenter.json(0, &["plan", "--now", &now]), "plan");
        assert_holds(&plan, &datacenter.apply_at(&now)["plan"], "plan in apply");
        assert_holds(&inventory, &datacenter.json(0, &["inventory"]), "inventory");
        assert_holds(&validator("doctor"), &datacenter.json(0, &["doctor"]), "doctor");
    }
}

#[test]
fn a_document_can_be_planned_over_without_an_engine() {
    let datacenter = Datacenter::new();
    datacenter.apply_at(NOW);
    let inventory = datacenter.json(0, &["inventory"]);
    fs::write(datacenter.path("seen.json"), inventory.to_string()).unwrap();
    let later = "2027-01-15T12:00:00Z";
    let with_engine = datacenter.json(0, &["plan", "--now", later]);
    fs::remove_dir_all(datacenter.path(".stillframe")).unwrap();
    fs::remove_dir_all(datacenter.path("examples")).unwrap();
    let without = datacenter.json(0, &["plan", "--inventory", "seen.json", "--now", later]);
    assert_eq!(with_engine, without);
    assert_eq!(without["summary"]["create"], 4);
    // The same inputs give the same bytes.
    let bytes = || {
        datacenter
            .command(&["plan", "--inventory", "seen.json", "--now", later, "--json"])
            .output()
            .unwrap()
            .stdout
    };
    assert_eq!(bytes(), bytes());
    // A document that is not one is refused with the reason.
    fs::write(datacenter.path("seen.json"), r#"{"format_version": "1.0", "observed_at": "2026-11-21T12:00:00Z", "engines": [{"name": "x"}]}"#).unwrap();
    let run = datacenter.run_to(1, &["plan", "--inventory", "seen.json"]);
    assert!(
        run.err.contains("is not an inventory") && run.err.contains("missing field `kind`"),
        "{}",
        run.err
    );
    fs::write(
        datacenter.path("seen.json"),
        r#"{"format_version": "2.0", "observed_at": "2026-11-21T12:00:00Z", "engines": []}"#,
    )
    .unwrap();
    let run = datacenter.run_to(1, &["plan", "--inventory", "seen.json"]);
    assert!(run.err.contains("has the format version 2.0"), "{}", run.err);
}
