//! What `explain` says of images and sources, through the program: the same as the plan does.

use std::fs;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use stillframe::inventory::{
    EngineInventory, FORMAT_VERSION, Image, Inventory, LABEL_COPY, LABEL_HOLD,
};
use stillframe::name::{Key, PolicyName, Slot, SourceId};

use super::memory;
use super::support::Datacenter;

const NOW: &str = "2026-11-21T12:00:00Z";

/// The image of a policy and a source, so many days before the last slot.
fn image(policy: &str, source: &str, days_ago: i64) -> Image {
    let last: Timestamp = "2026-11-21T02:00:00Z".parse().unwrap();
    let key = Key {
        policy: PolicyName::parse(policy).unwrap(),
        source: SourceId::parse(source).unwrap(),
        slot: Slot::at(last - SignedDuration::from_hours(24 * days_ago)),
    };
    let mut image = memory::image(&format!("{policy}-{source}-{days_ago}"), &key);
    "main".clone_into(&mut image.location);
    image
}

/// A program that sees these sources and images and reads this configuration and policy.
struct World(Datacenter);

impl World {
    fn new(config: &str, policy: &str, sources: &[&str], images: Vec<Image>) -> Self {
        let datacenter = Datacenter::new();
        let text = format!(
            "apiVersion: stillframe/v1\nkind: Config\nspec:\n  engines:\n    dc: {{local: {{instances: inst, \
             store: store, locations: {{main: {{}}, vault: {{}}}}, defaultLocation: main, createKeys: true}}}}\n\
             {config}---\napiVersion: stillframe/v1\nkind: BackupPolicy\nmetadata: {{name: web}}\nspec:\n  \
             source: {{match: [{{names: \"web-*\"}}]}}\n  schedule: {{cron: \"0 2 * * *\"}}\n{policy}"
        );
        fs::create_dir(datacenter.path("world")).unwrap();
        fs::write(datacenter.path("world/all.yaml"), text).unwrap();
        let engine = EngineInventory {
            name: "dc".to_owned(),
            kind: "local".to_owned(),
            identity: "here".to_owned(),
            gaps: Vec::new(),
            images_seen_before: None,
            capabilities: memory::capabilities(),
            instances: sources.iter().map(|source| memory::instance(source, &[])).collect(),
            images,
        };
        let inventory = Inventory {
            format_version: FORMAT_VERSION.to_owned(),
            observed_at: NOW.parse().unwrap(),
            engines: vec![engine],
        };
        let text = serde_json::to_string(&inventory).unwrap();
        fs::write(datacenter.path("inventory.json"), text).unwrap();
        Self(datacenter)
    }

    fn arguments<'a>(what: &[&'a str]) -> Vec<&'a str> {
        let seen = ["--inventory", "inventory.json", "--now", NOW];
        [&["--policies", "world", "explain"], what, &seen].concat()
    }

    fn text(&self, what: &str) -> String {
        self.0.run_to(0, &Self::arguments(&[what])).out
    }

    fn json(&self, what: &str) -> Value {
        self.0.json(0, &Self::arguments(&[what]))
    }
}

#[test]
fn what_holds_an_image_is_told_also_while_it_ages() {
    let mut labelled = image("web", "web-1", 50);
    labelled.labels.insert(LABEL_HOLD.to_owned(), "until-20270101t000000z".to_owned());
    let images = vec![image("web", "web-1", 0), labelled, image("web", "web-1", 51)];
    let policy = "  retention: {days: 7}\n  lifecycle: {grace: 2d, obsoleteAfter: 20d}\n  \
                  hold: [{before: 2026-10-02, until: 2026-12-10, reason: quarter}]\n";
    let world = World::new("", policy, &["web-1"], images);
    for (id, reason, ends, kept) in [
        ("web-web-1-50", None, "2027-01-01T00:00:00Z", "held"),
        ("web-web-1-51", Some("quarter"), "2026-12-10T00:00:00Z", "held: quarter"),
    ] {
        let told = world.json(id);
        assert_eq!(told["fate"]["what"], "the next plan will obsolete it");
        assert_eq!(told["fate"]["kept_by"][0]["detail"], kept);
        let hold = &told["forecast"]["holds"][0];
        assert_eq!(hold.get("reason").and_then(Value::as_str), reason);
        assert_eq!(hold["ends_at"], ends);
        assert_eq!(told["forecast"]["obsolete_at"], NOW);
        assert!(told["forecast"]["deprecated_at"].as_str().unwrap() > ends);
    }
    let text = world.text("web-web-1-51");
    assert!(text.contains("  and keep it\n    held: quarter\n"), "{text}");
    assert!(text.contains("    hold: quarter  2026-12-10 00:00Z\n"), "{text}");
    // The one that is kept by its rule only ages later.
    let newest = world.json("web-web-1-0");
    assert!(newest["forecast"].get("obsolete_at").is_none(), "it is let go before");
}

#[test]
fn copies_have_a_future_and_originals_wait_for_them() {
    let mut copy = image("web", "web-1", 1);
    copy.id = "copy".to_owned();
    copy.name.push_str("-vault");
    "vault".clone_into(&mut copy.location);
    copy.labels.insert(LABEL_COPY.to_owned(), "yes".to_owned());
    let images = vec![image("web", "web-1", 0), image("web", "web-1", 1), copy];
    let policy = "  retention: {last: 3}\n  storage: {copies: [vault]}\n";
    let world = World::new("", policy, &["web-1"], images);
    let forecast = &world.json("copy")["forecast"];
    // The newest is still to be copied, then one comes with each slot.
    assert_eq!(forecast["rules"][0], json!({"rule": "last", "lets_go_at": "2026-11-23T02:00:00Z"}));
    assert_eq!(forecast["deleted_at"], "2026-11-24T02:00:00Z");
    let gate = json!("copy-gate");
    let influences =
        |id: &str| world.json(id)["forecast"]["changed_by"].as_array().unwrap().clone();
    assert!(influences("web-web-1-1").contains(&gate));
    assert!(!influences("copy").contains(&gate));
}

#[test]
fn steps_by_age_are_foreseen_apart_from_letting_go() {
    let images = vec![image("web", "web-1", 0), image("web", "web-1", 3)];
    let policy = "  retention: {days: 30}\n  \
                  lifecycle: {deprecateAfter: 5d, obsoleteAfter: 20d}\n";
    let world = World::new("", policy, &["web-1"], images);
    let forecast = &world.json("web-web-1-3")["forecast"];
    assert_eq!(forecast["aged_at"], "2026-11-24T02:00:00Z");
    assert_eq!(forecast["obsolete_at"], "2026-12-09T02:00:00Z");
    assert_eq!(forecast["deprecated_at"], "2026-12-19T02:00:00Z");
    let text = world.text("web-web-1-3");
    assert!(text.contains("deprecated for its age 2026-11-24 02:00Z, obsolete for its"), "{text}");
}

#[test]
fn a_removed_policy_lets_go_after_the_round_that_notes_it() {
    let config = "  removed: [{policy: ghost, images: expire, grace: 0, reason: over}]\n";
    let images = vec![image("ghost", "db-1", 0), image("ghost", "db-1", 1)];
    let world = World::new(config, "  retention: {last: 3}\n", &["db-1"], images);
    let told = world.json("ghost-db-1-1");
    assert_eq!(told["fate"]["what"], "kept");
    assert!(told["forecast"]["deprecated_at"].as_str().unwrap() > NOW);
    let text = world.text("ghost-db-1-1");
    assert!(text.contains("if the policy comes back"), "{text}");
    assert!(!text.contains("if the source comes back"), "{text}");
    // Its old images protect the source no longer.
    let source = world.text("db-1");
    assert!(source.contains("  unprotected: no policy makes a new restore point\n"), "{source}");
    assert_eq!(world.json("db-1")["unprotected"], true);
}

#[test]
fn what_is_dated_in_the_future_protects_nothing_and_gives_way_later() {
    let images = vec![image("web", "web-1", 0), image("web", "web-1", -33)];
    let policy = "  retention: {days: 7, monthly: 12}\n";
    let world = World::new("", policy, &["web-1"], images);
    let protected = &world.json("web-1")["protected"][0];
    assert_eq!(protected["newest"], "2026-11-21T02:00:00Z");
    assert_eq!(protected["ready"], 1);
    let forecast = &world.json("web-web-1--33")["forecast"];
    assert!(forecast.get("never").is_none(), "{forecast}");
    assert!(forecast["deleted_at"].as_str().unwrap() > "2026-12-24", "{forecast}");
}

#[test]
fn restore_points_under_an_old_name_are_of_one_series() {
    let images = vec![image("web", "web-1", 0), image("oldweb", "web-1", 1)];
    let config = "  moved: [{from: oldweb, to: web}]\n";
    let world = World::new(config, "  retention: {last: 3}\n", &["web-1"], images);
    let protected = &world.json("web-1")["protected"];
    assert_eq!(protected.as_array().unwrap().len(), 1, "{protected}");
    assert_eq!((&protected[0]["policy"], &protected[0]["ready"]), (&json!("web"), &json!(2)));
}

#[test]
fn an_objective_counts_only_runs_that_come() {
    let objective = |spec: &str| {
        let policy = format!("  retention: {{last: 3}}\n  objectives: {{rpo: 25h}}\n{spec}");
        let world = World::new("", &policy, &["web-1"], vec![image("web", "web-1", 0)]);
        (world.json("web-1")["objectives"][0].clone(), world.text("web-1"))
    };
    let (plain, _) = objective("");
    assert_eq!(plain["state"], "met-unless-next-fails");
    let (moved, text) =
        objective("  blackouts: [{cron: \"0 1 * * *\", duration: 4h, reason: night}]\n");
    assert_eq!(moved["state"], "met-until-broken");
    assert_eq!(moved["broken_at"], "2026-11-22T03:00:00Z");
    let wanted =
        "met until 2026-11-22 03:00Z, before the run 2026-11-22 02:00Z (begins 2026-11-22 05:00Z)";
    assert!(text.contains(wanted), "{text}");
    let paused = "  paused: {creates: true, until: 2026-12-01, reason: moving}\n";
    let (paused, text) = objective(paused);
    assert_eq!(paused["state"], "met-until-broken");
    assert!(text.contains("(begins 2026-12-01 00:00Z)"), "{text}");
    let (ended, text) = objective("  paused: {creates: true, reason: moving}\n");
    assert_eq!((&ended["state"], &ended["next"]), (&json!("met-until-broken"), &json!([])));
    assert!(text.contains("met until 2026-11-22 03:00Z; no run comes"), "{text}");
}

#[test]
fn a_policy_is_told_with_its_defaults_and_the_blackouts_of_all() {
    let config =
        "  blackouts: [{cron: \"0 1 * * *\", duration: 4h, deletes: true, reason: night}]\n";
    let own = "  retention: {last: 3}\n  \
               blackouts: [{from: 2026-12-20, until: 2026-12-27, reason: holidays}]\n";
    let world = World::new(config, own, &[], Vec::new());
    let told = world.0.json(0, &["--policies", "world", "explain", "policy", "web"]);
    let of = |path: &str| -> Vec<Value> {
        let values = told["values"].as_array().unwrap().iter();
        values.filter(|one| one["path"] == path).cloned().collect()
    };
    assert_eq!(of("retention.whenStalled")[0]["value"], "keep");
    assert_eq!(of("lifecycle.onSourceGone")[0]["value"], "rules");
    let blackouts = of("blackouts");
    assert_eq!(blackouts.len(), 2, "{blackouts:?}");
    let shared = json!([{
        "cron": "0 1 * * *", "duration": "4h", "timeZone": "UTC", "deletes": true, "reason": "night",
    }]);
    assert_eq!(blackouts[1]["value"], shared);
    assert!(blackouts[1]["origin"].as_str().unwrap().starts_with("configuration, "));
}

#[test]
fn a_source_that_is_gone_is_told_on_one_page() {
    let images = (0..5).map(|ago| image("web", "web-9", ago)).collect();
    let world = World::new("", "  retention: {last: 2}\n", &[], images);
    let text = world.text("web-9");
    assert!(text.starts_with("web-9 is not there any more; 5 images of it\n"), "{text}");
    let verdict = "  web: the next apply notes that it is gone; 14d later the rules go on, and at least 1 stay";
    assert!(text.contains(verdict), "{text}");
    assert!(!text.contains("what would change that"), "{text}");
    // No run is to come for it.
    let told = world.json("web-9");
    assert_eq!(told["protected"][0]["next"], Value::Null);
    assert_eq!(told["policies"][0]["on_source_gone"], "rules");
    assert_eq!(told["forecasts"].as_object().unwrap().len(), 5);
}
