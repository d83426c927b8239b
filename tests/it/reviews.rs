//! What a change of the policies does, as its reviewer reads it: small repositories with a base and a
//! change, over one inventory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use jiff::Timestamp;
use jiff::civil::{Date, date};
use serde_json::Value;
use stillframe::engine::kinds;
use stillframe::inventory::{
    Capabilities, Disk, EngineInventory, FORMAT_VERSION, Image, ImageKind, ImageSource, ImageState,
    Instance, Inventory, Stage,
};
use stillframe::name::{Key, PolicyName, Slot, SourceId};
use tempfile::TempDir;

use super::schemas::{assert_holds, validator};
use super::support::{NOW, golden};

const CONFIG: &str = r#"apiVersion: stillframe/v1
kind: Config
metadata: {name: shop}
spec:
  engines:
    production:
      local: {instances: instances, store: store, locations: {us: {}, eu: {}}, defaultLocation: us}
    archive:
      local: {instances: archived, store: archive, locations: {us: {}}, defaultLocation: us}
  prices:
    currency: EUR
    asOf: "2026-11-01"
    perGibMonth: [{price: 0.05}]
"#;

const WEB: &str = r#"apiVersion: stillframe/v1
kind: BackupPolicy
metadata: {name: web-nightly, owner: team-web}
spec:
  engine: production
  source:
    match:
      - labels: {env: production}
  schedule: {cron: "0 2 * * *"}
  retention: {days: 30, monthly: 12, atLeast: 3}
"#;

const DB: &str = r#"apiVersion: stillframe/v1
kind: BackupPolicy
metadata: {name: db}
spec:
  engine: production
  source:
    match:
      - names: ["db-*"]
  schedule: {cron: "15 */6 * * *", timeZone: Europe/Berlin}
  retention: {hours: 48, daily: 14}
"#;

/// A repository with policies, and an inventory beside it.
struct Repository {
    directory: TempDir,
}

impl Repository {
    /// With a base that is committed.
    fn new() -> Self {
        let this = Self { directory: tempfile::tempdir().unwrap() };
        fs::create_dir(this.path("policies")).unwrap();
        for (file, text) in [("stillframe.yaml", CONFIG), ("web.yaml", WEB), ("db.yaml", DB)] {
            fs::write(this.path("policies").join(file), text).unwrap();
        }
        let inventory = serde_json::to_string(&inventory()).unwrap();
        fs::write(this.path("inventory.json"), inventory).unwrap();
        this.git(&["init", "--quiet", "--initial-branch", "main"]);
        this.git(&["add", "policies"]);
        this.git(&["commit", "--quiet", "--message", "base"]);
        this
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.directory.path().join(relative)
    }

    fn git(&self, arguments: &[&str]) {
        let time = "2026-11-01T00:00:00Z";
        let output = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-C"])
            .arg(self.directory.path())
            .args(arguments)
            .env("GIT_AUTHOR_DATE", time)
            .env("GIT_COMMITTER_DATE", time)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.path("policies").join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file} holds no `{from}`");
        fs::write(path, text.replace(from, to)).unwrap();
    }

    fn run(&self, code: i32, arguments: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_stillframe"))
            .args(arguments)
            .args(["--inventory", "inventory.json", "--now", NOW, "--base", "HEAD"])
            .current_dir(self.directory.path())
            .env_remove("RUST_LOG")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{text}\n{error}");
        text
    }

    fn json(&self, code: i32) -> Value {
        let review: Value =
            serde_json::from_str(&self.run(code, &["plan", "--format", "json"])).unwrap();
        assert_holds(&validator("review"), &review, "plan --base --format json");
        review
    }

    /// The comment that the reviewer reads, held against the recorded one; and the document.
    fn reviewed(&self, name: &str) -> Value {
        golden(&format!("reviews/{name}.md"), &self.run(0, &["plan", "--format", "markdown"]));
        self.json(0)
    }
}

fn instances() -> Vec<Instance> {
    ["web-1", "web-2", "web-3", "db-1", "db-2", "build-1"]
        .iter()
        .enumerate()
        .map(|(index, name)| Instance {
            id: SourceId::parse(&format!("{}", 4000 + index)).unwrap(),
            name: (*name).to_owned(),
            zone: "us-a".to_owned(),
            labels: if name.starts_with("web") {
                [("env".to_owned(), "production".to_owned())].into()
            } else {
                [].into()
            },
            status: "RUNNING".to_owned(),
            project: String::new(),
            machine_type: "small".to_owned(),
            disks: vec![Disk {
                name: "root".to_owned(),
                boot: true,
                size_bytes: Some(20 << 30),
                kms_key: None,
                problem: None,
            }],
        })
        .collect()
}

fn image(policy: &str, instance: &Instance, slot: Timestamp) -> Image {
    let policy = PolicyName::parse(policy).unwrap();
    let key = Key { policy, source: instance.id.clone(), slot: Slot::at(slot) };
    let name = key.image_name(&format!("{}-{}", key.policy, instance.name));
    Image {
        id: format!("id-{name}"),
        name,
        kind: ImageKind::MachineImage,
        state: ImageState::Ready,
        stage: Stage::Active,
        created_at: slot,
        location: "us".to_owned(),
        kms_key: None,
        family: None,
        sharing: None,
        labels: key.labels(),
        source: Some(ImageSource { id: instance.id.clone(), name: instance.name.clone() }),
        stored_bytes: Some(2 << 30),
        disk_bytes: Some(20 << 30),
        fingerprint: format!("{slot}"),
        disks: None,
        project: String::new(),
        in_use_by: Vec::new(),
        message: None,
    }
}

fn at(day: Date, hour: i8, minute: i8) -> Timestamp {
    day.at(hour, minute, 0, 0).to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp()
}

/// What the base has kept of the last year.
fn inventory() -> Inventory {
    let now: Timestamp = NOW.parse().unwrap();
    let today = date(2026, 11, 21);
    let instances = instances();
    let mut images = Vec::new();
    for instance in instances.iter().filter(|instance| instance.name.starts_with("web")) {
        let nights = (0..30).map(|days| today - jiff::Span::new().days(days));
        let last = |months: i32| {
            let month = today - jiff::Span::new().months(months);
            month.last_of_month()
        };
        let months = (2..12).map(last);
        images
            .extend(nights.chain(months).map(|day| image("web-nightly", instance, at(day, 2, 0))));
    }
    // 00:15, 06:15, 12:15 and 18:15 in Berlin, in winter and in summer.
    for instance in instances.iter().filter(|instance| instance.name.starts_with("db")) {
        let recent = (0..2).flat_map(|days| {
            let day = today - jiff::Span::new().days(days);
            [5, 11]
                .map(|hour| at(day, hour, 15))
                .into_iter()
                .chain((days > 0).then(|| at(day, 17, 15)))
        });
        let dailies = (2..14).map(|days| at(today - jiff::Span::new().days(days), 17, 15));
        images.extend(recent.chain(dailies).map(|slot| image("db", instance, slot)));
    }
    images.sort_by(|one, other| (&one.name, &one.id).cmp(&(&other.name, &other.id)));
    let capabilities = |settings: &str| -> Capabilities {
        let kinds = kinds();
        let local = kinds.iter().find(|kind| kind.name == "local").unwrap();
        (local.capabilities)(&serde_json::from_str(settings).unwrap())
    };
    let engine = |name: &str, settings: &str, instances, images| EngineInventory {
        name: name.to_owned(),
        kind: "local".to_owned(),
        identity: format!("/srv/{name}"),
        gaps: Vec::new(),
        images_seen_before: None,
        capabilities: capabilities(settings),
        instances,
        images,
    };
    let production = r#"{"instances": "i", "store": "s", "locations": {"us": {}, "eu": {}}, "defaultLocation": "us"}"#;
    let archive =
        r#"{"instances": "a", "store": "t", "locations": {"us": {}}, "defaultLocation": "us"}"#;
    Inventory {
        format_version: FORMAT_VERSION.to_owned(),
        observed_at: now,
        engines: vec![
            engine("archive", archive, Vec::new(), Vec::new()),
            engine("production", production, instances, images),
        ],
    }
}

fn count(review: &Value, pointer: &str) -> usize {
    review.pointer(pointer).unwrap().as_array().unwrap().len()
}

#[test]
fn retention_cut_from_thirty_days_to_seven() {
    let repository = Repository::new();
    repository.edit("web.yaml", "days: 30", "days: 7");
    let review = repository.reviewed("retention-cut");
    // The oldest of 30 nights would have gone in any case, the newest of October stays as a monthly.
    let losses = review["losses"].as_array().unwrap();
    assert!(losses.len() > 3 * 20, "{}", losses.len());
    assert!(losses.iter().all(|loss| loss["policy"] == "web-nightly"));
    assert_eq!(count(&review, "/sources"), 0);
    golden("reviews/retention-cut.txt", &repository.run(0, &["plan"]));
}

#[test]
fn a_mistyped_selector_that_drops_half_of_the_fleet() {
    let repository = Repository::new();
    repository.edit("web.yaml", "env: production", "env: prodction");
    let review = repository.reviewed("selector-typo");
    assert_eq!(review["verdict"]["sources_unprotected"], 3);
    let dropped = review["sources"].as_array().unwrap();
    assert!(dropped.iter().all(|source| source["after"].as_array().unwrap().is_empty()));
    // Nothing goes at once: the source counts as gone, and that has a grace.
    assert_eq!(count(&review, "/next_round/added"), 3);
}

#[test]
fn a_policy_that_is_renamed() {
    let repository = Repository::new();
    repository.edit("web.yaml", "name: web-nightly", "name: web");
    let alone = repository.reviewed("renamed");
    assert_eq!(alone["policies"][0]["fate"], "renamed");
    assert!(alone["verdict"]["orphaned"].as_u64().unwrap() > 100);
    repository.edit(
        "stillframe.yaml",
        "  prices:",
        "  moved: [{from: web-nightly, to: web}]\n  prices:",
    );
    let moved = repository.json(0);
    assert_eq!(moved["policies"][0]["fate"], "moved");
    assert_eq!(moved["verdict"]["orphaned"], 0);
    assert_eq!(count(&moved, "/losses"), 0);
}

#[test]
fn another_time_zone() {
    let repository = Repository::new();
    repository.edit(
        "web.yaml",
        r#"cron: "0 2 * * *""#,
        r#"cron: "0 2 * * *", timeZone: America/New_York"#,
    );
    let review = repository.reviewed("time-zone");
    // The point of the first of November belongs to October there, and takes the place of the last one.
    let losses = review["losses"].as_array().unwrap();
    assert_eq!(losses.len(), 3, "{losses:?}");
    assert!(losses.iter().all(|loss| loss["slot"] == "2026-10-31T02:00:00Z"));
    assert_eq!(count(&review, "/gains"), 3);
    let schedule = &review["policies"][0]["schedule"];
    assert_eq!(schedule["before"]["time_zone"], "UTC");
    assert_eq!(schedule["after"]["time_zone"], "America/New_York");
}

#[test]
fn what_was_shared_stays_shared() {
    let repository = Repository::new();
    let settings = r#"{"projects": ["shop"]}"#;
    let mut inventory = inventory();
    let production = inventory.engines.iter_mut().find(|engine| engine.name == "production");
    let production = production.unwrap();
    let kinds = kinds();
    let gce = kinds.iter().find(|kind| kind.name == "gce").unwrap();
    production.kind = "gce".to_owned();
    production.identity = "projects/shop".to_owned();
    production.capabilities = (gce.capabilities)(&serde_json::from_str(settings).unwrap());
    // One that failed is used by nobody.
    production.images[0].state = ImageState::Failed;
    let images = production.images.iter().filter(|image| image.name.starts_with("web-nightly"));
    let images = images.filter(|image| image.state == ImageState::Ready).count();
    let text = serde_json::to_string(&inventory).unwrap();
    fs::write(repository.path("inventory.json"), text).unwrap();
    let local = "local: {instances: instances, store: store, locations: {us: {}, eu: {}}, defaultLocation: us}";
    repository.edit("stillframe.yaml", local, "gce: {projects: [shop]}");
    let sharing =
        r#"  sharing: [{role: roles/compute.imageUser, members: ["group:ci@example.org"]}]"#;
    repository.edit("web.yaml", "  retention:", &format!("{sharing}\n  retention:"));
    repository.git(&["commit", "--quiet", "--all", "--message", "shared"]);

    repository.edit("web.yaml", &format!("{sharing}\n"), "");
    let review = repository.reviewed("sharing-removed");
    assert_eq!(review["verdict"]["still_shared"], images);
    assert_eq!(review["policies"][0]["still_shared"], images);
    assert_eq!(review["verdict"]["has_effect"], true);
    let annotations = repository.run(0, &["plan", "--format", "github"]);
    assert!(annotations.contains(&format!("{images} images that stay shared")), "{annotations}");

    repository.edit("web.yaml", "  retention:", "  sharing: []\n  retention:");
    assert_eq!(repository.json(0)["verdict"]["still_shared"], 0);
    fs::remove_file(repository.path("policies/web.yaml")).unwrap();
    assert_eq!(repository.json(0)["verdict"]["still_shared"], images);
}

#[test]
fn policies_that_a_revision_links_to() {
    let repository = Repository::new();
    let links = |links: &[(&str, &str)]| {
        for (target, link) in links {
            std::os::unix::fs::symlink(target, repository.path(link)).unwrap();
        }
    };
    fs::create_dir_all(repository.path("shared/teams")).unwrap();
    fs::rename(repository.path("policies/web.yaml"), repository.path("shared/teams/web.yaml"))
        .unwrap();
    fs::rename(repository.path("policies/db.yaml"), repository.path("shared/db.txt")).unwrap();
    fs::create_dir(repository.path("docs")).unwrap();
    fs::write(repository.path("docs/readme.md"), "nothing to be read").unwrap();
    links(&[
        ("../shared/teams", "policies/teams"),
        ("../shared/db.txt", "policies/db.yaml"),
        ("../docs", "policies/docs"),
    ]);
    repository.git(&["add", "--all"]);
    repository.git(&["commit", "--quiet", "--message", "shared"]);
    let same = repository.json(0);
    assert_eq!(same["verdict"]["same_meaning"], true, "{}", same["policies"]);
    for (file, from, to) in
        [("web.yaml", "days: 30", "days: 7"), ("../db.txt", "hours: 48", "hours: 24")]
    {
        let path = repository.path("shared/teams").join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from));
        fs::write(path, text.replace(from, to)).unwrap();
    }
    let review = repository.json(0);
    let changed = review["policies"].as_array().unwrap();
    let fates: Vec<_> = changed.iter().map(|one| (&one["policy"], &one["fate"])).collect();
    assert_eq!(
        serde_json::json!(fates),
        serde_json::json!([["db", "changed"], ["web-nightly", "changed"]])
    );
    assert_eq!(changed[1]["values"][0]["path"], "retention.days");
}

#[test]
fn another_engine() {
    let repository = Repository::new();
    repository.edit("db.yaml", "engine: production", "engine: archive");
    let review = repository.reviewed("another-engine");
    assert_eq!(review["verdict"]["sources_unprotected"], 2);
    assert_eq!(review["orphaned"][0]["moved_to"], "archive");
}

#[test]
fn a_monthly_tier_that_is_taken_out() {
    let repository = Repository::new();
    repository.edit("web.yaml", ", monthly: 12", "");
    let review = repository.reviewed("monthly-removed");
    assert!(review["verdict"]["lost_only_copies"].as_u64().unwrap() > 0);
    let losses = review["losses"].as_array().unwrap();
    assert!(losses.iter().all(|loss| !loss["only_older_than_seconds"].is_null()), "{losses:?}");
}

#[test]
fn another_label() {
    let repository = Repository::new();
    repository.edit("web.yaml", "{env: production}", "{environment: production}");
    let review = repository.reviewed("label-key");
    assert_eq!(review["verdict"]["sources_unprotected"], 3);
}

#[test]
fn two_policies_that_begin_to_overlap() {
    let repository = Repository::new();
    repository.edit("db.yaml", r#"names: ["db-*"]"#, r#"names: ["db-*", "web-1"]"#);
    let review = repository.reviewed("overlap");
    assert_eq!(review["verdict"]["sources_doubled"], 1);
}

/// A crontab that can never fire is a mistake of the policy, and nothing is planned with it. A pause
/// without an end comes to the same and is none.
#[test]
fn a_schedule_that_never_fires() {
    let repository = Repository::new();
    repository.edit("web.yaml", r#""0 2 * * *""#, r#""0 2 30 2 *""#);
    let wrong = repository.run(3, &["plan", "--format", "markdown"]);
    golden("reviews/never-fires-invalid.md", &wrong);
    repository.edit("web.yaml", r#""0 2 30 2 *""#, r#""0 2 * * *""#);
    repository.edit(
        "web.yaml",
        "  retention:",
        "  paused: {creates: true, reason: migration}\n  retention:",
    );
    let review = repository.reviewed("never-fires");
    assert_eq!(review["verdict"]["policies_stopped"], 1);
}

#[test]
fn a_harmless_comment() {
    let repository = Repository::new();
    repository.edit("web.yaml", "spec:", "# everybody asks why at two: nobody works then\nspec:");
    let review = repository.reviewed("comment");
    assert_eq!(review["verdict"]["same_meaning"], true);
    assert_eq!(review["verdict"]["has_effect"], false);
}

#[test]
fn the_page_for_a_browser_holds_everything_and_nothing_from_elsewhere() {
    let repository = Repository::new();
    repository.edit("web.yaml", "days: 30", "days: 7");
    let page = repository.run(0, &["plan", "--format", "html"]);
    let review = repository.json(0);
    for loss in review["losses"].as_array().unwrap() {
        assert!(page.contains(loss["image"]["name"].as_str().unwrap()));
    }
    for word in ["<script", "http://", "https://", "src=", "href="] {
        assert!(!page.contains(word), "{word}");
    }
}

#[test]
fn a_base_with_mistakes_is_said() {
    let repository = Repository::new();
    repository.edit("web.yaml", "days: 30", "days: thirty");
    repository.git(&["commit", "--quiet", "--all", "--message", "wrong"]);
    repository.edit("web.yaml", "days: thirty", "days: 30");
    repository.run(3, &["plan"]);
    assert!(Path::new(&repository.path("policies/web.yaml")).exists());
}

/// Keys of OpenSSH, made by `ssh-keygen -t ed25519` for these tests alone.
const KEY: &str = include_str!("../data/keys/anna");
const SIGNERS: &str = include_str!("../data/keys/signers");

impl Repository {
    /// Runs the program on what lies here, without a base.
    fn plain(&self, code: i32, arguments: &[&str]) -> (String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_stillframe"))
            .args(arguments)
            .current_dir(self.directory.path())
            .env_remove("RUST_LOG")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{text}\n{error}");
        (text, error)
    }
}

#[test]
fn a_saved_plan_is_shown_as_it_was_and_only_by_who_may_sign() {
    let repository = Repository::new();
    fs::write(repository.path("key"), KEY).unwrap();
    fs::write(repository.path("signers"), SIGNERS).unwrap();
    repository.edit("web.yaml", "days: 30", "days: 7");
    let shown =
        repository.run(0, &["plan", "--format", "markdown", "--out", "p.json", "--sign", "key"]);
    let saved: Value =
        serde_json::from_slice(&fs::read(repository.path("p.json")).unwrap()).unwrap();
    assert_holds(&validator("saved-plan"), &saved, "plan --out");
    assert_eq!(saved["valid_until"], "2026-11-22T12:00:00Z");
    assert_eq!(saved["uncommitted"], true);
    let again =
        repository.plain(0, &["show", "p.json", "--format", "markdown", "--signers", "signers"]);
    assert_eq!(again.0, shown);
    assert!(again.1.contains("signed by anna@example.org"), "{}", again.1);
    // What was changed after it was signed is not shown.
    let text = fs::read_to_string(repository.path("p.json")).unwrap();
    fs::write(repository.path("p.json"), text.replace("shop", "shap").replace("us", "eu")).unwrap();
    let wrong = repository.plain(1, &["show", "p.json", "--signers", "signers"]);
    assert!(wrong.1.contains("does not fit"), "{}", wrong.1);
    fs::remove_file(repository.path("p.json.sig")).unwrap();
    let wrong = repository.plain(1, &["show", "p.json", "--signers", "signers"]);
    assert!(wrong.1.contains("is not signed"), "{}", wrong.1);
    for text in ["{}", "[1]", "no", r#"{"format_version": "9.0"}"#] {
        fs::write(repository.path("other.json"), text).unwrap();
        let wrong = repository.plain(1, &["show", "other.json"]);
        assert!(wrong.1.contains("a saved plan"), "{text}: {}", wrong.1);
    }
}

#[test]
fn annotations_stand_at_the_lines_that_do_it() {
    let repository = Repository::new();
    repository.edit("web.yaml", "days: 30", "days: 7");
    let text = repository.run(0, &["plan", "--format", "github"]);
    assert!(
        text.starts_with("::warning file=policies/web.yaml,line=10,title=stillframe::"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 1);
}
