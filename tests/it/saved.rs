//! What was approved is what runs: saved plans, approvals, and undoing.

use std::fs;

use serde_json::Value;
use stillframe::plan::guard::approval::Approval;

use super::schemas::{assert_holds, validator};
use super::support::Datacenter;

const TODAY: &str = "2026-11-21T12:00:00Z";
const TOMORROW: &str = "2026-11-22T12:30:00Z";

/// A data centre with ten days of restore points, and policies that keep two from now on.
fn narrowed(guards: &str) -> Datacenter {
    let datacenter = Datacenter::new();
    for day in 12..=21 {
        datacenter.apply_at(&format!("2026-11-{day}T12:00:00Z"));
    }
    datacenter.edit("policies/web.yaml", |text| format!("{text}  retention: {{last: 2}}\n"));
    if !guards.is_empty() {
        set_guards(&datacenter, guards);
    }
    datacenter
}

fn set_guards(datacenter: &Datacenter, guards: &str) {
    datacenter.edit("policies/stillframe.yaml", |text| {
        text.replace("guards: {seriesPercent: 30, engineCount: 50}", &format!("guards: {guards}"))
    });
}

fn saved(datacenter: &Datacenter, now: &str) -> Value {
    datacenter.run_to(0, &["plan", "--now", now, "--out", "plan.json", "--valid-for", "3d"]);
    serde_json::from_slice(&fs::read(datacenter.path("plan.json")).unwrap()).unwrap()
}

fn ids(changes: &Value, action: &str) -> Vec<String> {
    let changes = changes.as_array().unwrap().iter();
    let of = changes.filter(|change| change["action"] == action);
    let of = of.filter(|change| change["key"]["policy"] == "web-nightly");
    of.map(|change| change["image"]["id"].as_str().unwrap().to_owned()).collect()
}

fn stages(datacenter: &Datacenter) -> Vec<String> {
    let inventory = datacenter.json(0, &["inventory"]);
    let engines = inventory["engines"].as_array().unwrap();
    let images = engines.iter().flat_map(|engine| engine["images"].as_array().unwrap());
    images
        .filter(|image| image["stage"].as_str().unwrap_or("ACTIVE") != "ACTIVE")
        // Other policies rotate as they always do.
        .filter(|image| image["name"].as_str().unwrap().starts_with("web-nightly"))
        .map(|image| image["id"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn only_what_was_saved_is_carried_out() {
    let datacenter = narrowed("");
    let saved = saved(&datacenter, TODAY);
    assert_holds(&validator("saved-plan"), &saved, "plan --out");
    let wanted = ids(&saved["plan"]["changes"], "deprecate");
    assert!(wanted.len() > 10, "{wanted:?}");
    // A day later more is wanted: new points, and to let go of one more of each source.
    let round = datacenter.json(0, &["apply", "plan.json", "--auto-approve", "--now", TOMORROW]);
    assert_eq!(round["plan"]["id"], saved["plan"]["id"]);
    assert_eq!(ids(&round["plan"]["changes"], "deprecate"), wanted);
    assert_eq!(ids(&round["plan"]["changes"], "delete"), [""; 0]);
    let new = round["not_approved"].as_array().unwrap();
    assert!(new.iter().any(|change| change["action"] == "create"), "{new:?}");
    let mut now = stages(&datacenter);
    now.sort();
    let mut then = wanted.clone();
    then.sort();
    assert_eq!(now, then);
    // Carried out again there is nothing left of it.
    let again = datacenter.json(0, &["apply", "plan.json", "--auto-approve", "--now", TOMORROW]);
    assert_eq!(again["outcomes"].as_array().unwrap().len(), 0);
}

#[test]
fn nothing_is_done_under_other_policies_on_another_engine_or_too_late() {
    let datacenter = narrowed("");
    saved(&datacenter, TODAY);
    let refused = |now: &str, why: &str| {
        let round = datacenter.run(&["apply", "plan.json", "--auto-approve", "--now", now]);
        assert_eq!(round.code, Some(4), "{}{}", round.out, round.err);
        assert!(round.err.contains(why), "{}", round.err);
        assert_eq!(stages(&datacenter), [""; 0]);
    };
    refused("2026-11-24T12:00:01Z", "valid until 2026-11-24T12:00:00Z");
    // The base has moved: something else was merged meanwhile.
    datacenter.edit("policies/web.yaml", |text| text.replace("last: 2", "last: 1"));
    refused(TOMORROW, "made from other policies");
    datacenter.edit("policies/web.yaml", |text| text.replace("last: 1", "last: 2"));
    let text = fs::read_to_string(datacenter.path("plan.json")).unwrap();
    let mut other: Value = serde_json::from_str(&text).unwrap();
    other["plan"]["engines"][0]["identity"] = "/somewhere/else".into();
    fs::write(datacenter.path("plan.json"), other.to_string()).unwrap();
    refused(TOMORROW, "/somewhere/else");
}

#[test]
fn what_was_deprecated_comes_back_and_what_was_deleted_does_not() {
    let datacenter = narrowed("");
    saved(&datacenter, TODAY);
    datacenter.json(0, &["apply", "plan.json", "--auto-approve", "--now", TODAY]);
    let gone = stages(&datacenter);
    assert!(gone.len() > 10);
    let undone = datacenter.run_to(0, &["undo", "plan.json", "--auto-approve", "--now", TODAY]);
    assert!(undone.err.contains("revert the change"), "{}", undone.err);
    assert_eq!(stages(&datacenter), [""; 0]);
    let again = datacenter.json(0, &["undo", "plan.json", "--auto-approve", "--now", TODAY]);
    assert_eq!(again["outcomes"].as_array().unwrap().len(), 0);
    // With the old policies nothing is let go again.
    datacenter.edit("policies/web.yaml", |text| text.replace("  retention: {last: 2}\n", ""));
    let plan = datacenter.json(0, &["plan", "--now", TODAY]);
    assert_eq!(ids(&plan["changes"], "deprecate"), [""; 0]);
    // What has been deleted since is listed.
    datacenter.edit("policies/web.yaml", |text| format!("{text}  retention: {{last: 2}}\n"));
    set_guards(&datacenter, "{seriesPercent: 100, enginePercent: 100}");
    saved(&datacenter, TODAY);
    datacenter.json(0, &["apply", "plan.json", "--auto-approve", "--now", TODAY]);
    datacenter.json(0, &["apply", "--auto-approve", "--now", TOMORROW]);
    let late = datacenter.json(5, &["undo", "plan.json", "--auto-approve", "--now", TOMORROW]);
    assert!(late["lost"].as_array().unwrap().len() > 10, "{}", late["lost"]);
    assert!(late["lost"][0]["why"].as_str().unwrap().contains("for good"));
}

#[test]
fn an_approval_lets_through_its_images_and_no_more() {
    let guards = "{seriesPercent: 100, enginePercent: 100, refuse: [shortens-reach]}";
    let datacenter = narrowed(guards);
    datacenter.json(0, &["apply", "--auto-approve", "--now", TODAY]);
    let plan = datacenter.run_to(4, &["plan", "--now", TOMORROW, "--out", "plan.json"]);
    assert!(plan.out.contains("stillframe approve PLAN --class shortens-reach"), "{}", plan.out);
    let command = "stillframe approve plan.json --class shortens-reach";
    assert!(plan.err.contains(command), "{}", plan.err);
    let kept = datacenter.json(4, &["apply", "plan.json", "--auto-approve", "--now", TOMORROW]);
    let refused = |round: &Value| {
        let outcomes = round["outcomes"].as_array().unwrap().iter();
        outcomes.filter(|one| one["ending"]["result"] == "refused").count()
    };
    assert!(refused(&kept) > 0, "{kept}");
    let wrong =
        datacenter.run_to(1, &["approve", "plan.json", "--class", "last-point", "--now", TOMORROW]);
    assert!(wrong.err.contains("deletes nothing of the class"), "{}", wrong.err);
    datacenter.run_to(
        0,
        &["approve", "plan.json", "--class", "shortens-reach", "--by", "anna", "--now", TOMORROW],
    );
    let file = datacenter.path("plan.json.shortens-reach.approval");
    let text = fs::read_to_string(&file).unwrap();
    assert_holds(&validator("approval"), &serde_json::from_str(&text).unwrap(), "approve");
    // The run that was stopped has made newer points; the classes are those that were shown.
    // One image fewer was approved than the plan deletes: it is void.
    let mut approval: Approval = serde_json::from_str(&text).unwrap();
    approval.items.pop_first();
    fs::write(&file, serde_json::to_string(&approval).unwrap()).unwrap();
    let void = datacenter.run_to(4, &["apply", "plan.json", "--auto-approve", "--now", TOMORROW]);
    assert!(void.err.contains("the approval of shortens-reach is void"), "{}", void.err);
    fs::write(&file, text).unwrap();
    let done = datacenter.json(0, &["apply", "plan.json", "--auto-approve", "--now", TOMORROW]);
    assert_eq!(refused(&done), 0);
    let report = datacenter
        .json(0, &["report", "--from", "2026-11-22", "--to", "2026-11-23", "--now", TOMORROW]);
    let deletions = report["deletions"].as_array().unwrap();
    assert!(deletions.iter().any(|one| one["approved_by"][0] == "anna"), "{deletions:?}");
}

#[test]
fn without_a_signature_that_is_asked_for_nothing_is_done() {
    let datacenter = narrowed("");
    saved(&datacenter, TODAY);
    fs::write(datacenter.path("signers"), include_str!("../data/keys/signers")).unwrap();
    fs::write(datacenter.path("key"), include_str!("../data/keys/anna")).unwrap();
    let apply = [
        "apply",
        "plan.json",
        "--require-signature",
        "--signers",
        "signers",
        "--auto-approve",
        "--now",
        TODAY,
    ];
    let unsigned = datacenter.run_to(1, &apply);
    assert!(unsigned.err.contains("is not signed"), "{}", unsigned.err);
    assert_eq!(stages(&datacenter), [""; 0]);
    datacenter.run_to(0, &["plan", "--now", TODAY, "--out", "plan.json", "--sign", "key"]);
    datacenter.run_to(0, &apply);
    assert!(!stages(&datacenter).is_empty());
}

#[test]
fn what_changed_behind_our_back_is_drift() {
    let datacenter = Datacenter::new();
    datacenter.apply_at("2026-11-20T12:00:00Z");
    datacenter.apply_at(TODAY);
    let whole = datacenter.run_to(0, &["drift"]);
    assert!(whole.out.contains("as they were left"), "{}", whole.out);
    let seen = datacenter.json(0, &["inventory"]);
    let kinds = |edit: &dyn Fn(&mut Vec<Value>)| {
        let mut changed = seen.clone();
        edit(changed["engines"][0]["images"].as_array_mut().unwrap());
        fs::write(datacenter.path("seen.json"), changed.to_string()).unwrap();
        let found = datacenter.json(6, &["drift", "--inventory", "seen.json"]);
        assert_holds(&validator("drift"), &found, "drift");
        let items = found["items"].as_array().unwrap().iter();
        items.map(|item| item["kind"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&|images| drop(images.remove(0))), ["deleted-outside"]);
    let unlabel = |label: &'static str| {
        kinds(&|images| drop(images[0]["labels"].as_object_mut().unwrap().remove(label)))
    };
    assert_eq!(unlabel("stillframe-key"), ["ownership-lost"]);
    assert_eq!(unlabel("managed-in"), ["label-changed"]);
    assert_eq!(kinds(&|images| images[0]["location"] = "elsewhere".into()), ["location-differs"]);
    // What could not be seen is not missing.
    let mut partly = seen.clone();
    partly["engines"][0]["images"].as_array_mut().unwrap().remove(0);
    let gap = serde_json::json!([{"scope": "images", "place": "main", "message": "not mounted"}]);
    partly["engines"][0]["gaps"] = gap;
    fs::write(datacenter.path("seen.json"), partly.to_string()).unwrap();
    let found = datacenter.json(1, &["drift", "--inventory", "seen.json"]);
    assert_eq!(found["items"].as_array().unwrap().len(), 0);
}
