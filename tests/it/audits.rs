//! The ledger and what an auditor reads of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stillframe::apply::{Ending, Listener, Stop};
use stillframe::clock::{Clock, FixedClock};
use stillframe::engine::Progress;
use stillframe::inventory::ImageState;
use stillframe::plan::Action;
use stillframe::reconcile::{Room, Round};

use super::engines::{Quiet, Yes, policies, room};
use super::memory::{MemoryEngine, instance};
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
fn a_run_that_only_makes_images_says_that_the_ledger_cannot_be_written() {
    for json in [&["--json"][..], &[]] {
        let datacenter = Datacenter::new();
        fs::create_dir_all(datacenter.path(LEDGER)).unwrap();
        let apply = ["apply", "--auto-approve", "--now", "2026-11-22T12:00:00Z"];
        let said = datacenter.run_to(5, &[&apply[..], json].concat());
        let told = if json.is_empty() { &said.out } else { &said.err };
        let note = "the ledger cannot be written, images are made all the same";
        assert!(told.contains(note), "{} {}", said.out, said.err);
        fs::remove_dir(datacenter.path(LEDGER)).unwrap();
        datacenter.run_to(0, &[&apply[..], json].concat());
    }
}

/// One machine, the restore point of a day, and the room of the next.
struct Days {
    engine: Arc<MemoryEngine>,
    directory: tempfile::TempDir,
}

impl Days {
    async fn new() -> Self {
        let engine = MemoryEngine::new(Self::clock(0));
        engine.add(instance("web-1", &[]));
        let days = Self { engine, directory: tempfile::tempdir().unwrap() };
        days.round(0, Arc::new(Quiet)).await;
        days
    }

    fn clock(day: i64) -> Arc<dyn Clock> {
        let first: jiff::Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        Arc::new(FixedClock(first + jiff::SignedDuration::from_hours(24 * day)))
    }

    fn room(&self, day: i64) -> Room {
        let spec = policies("  retention: {last: 1}\n  lifecycle: {grace: 0}\n");
        room(self.engine.clone(), Self::clock(day), spec, &self.directory)
    }

    async fn round(&self, day: i64, listener: Arc<dyn Listener>) -> Round {
        self.room(day).round(&Yes, listener, &Stop::default()).await
    }

    fn ledger(&self) -> PathBuf {
        self.directory.path().join("ledger.ndjson")
    }
}

/// There is no room for lines, as long as a directory is in the way.
fn fills(ledger: &Path) {
    fs::rename(ledger, ledger.with_extension("aside")).unwrap();
    fs::create_dir(ledger).unwrap();
}

fn has_room(ledger: &Path) {
    fs::remove_dir(ledger).unwrap();
    fs::rename(ledger.with_extension("aside"), ledger).unwrap();
}

fn ended(round: &Round, action: Action) -> &Ending {
    let mut outcomes = round.outcomes.iter();
    let outcome = outcomes.find(|one| round.plan.changes[one.change].action == action);
    &outcome.unwrap().ending
}

/// What is in its place would be taken away.
#[tokio::test]
async fn a_failed_attempt_is_not_cleared_away_without_a_line() {
    let days = Days::new().await;
    let fails = || {
        let mut world = days.engine.world.lock().unwrap();
        world.images.values_mut().for_each(|image| image.state = ImageState::Failed);
    };
    fails();
    fills(&days.ledger());
    let round = days.round(0, Arc::new(Quiet)).await;
    let Ending::Failed { message } = ended(&round, Action::Create) else { panic!("{round:#?}") };
    assert!(message.contains("not begun, because the ledger cannot be written"), "{message}");
    assert_eq!(days.engine.world.lock().unwrap().deleted, []);
    has_room(&days.ledger());
    let round = days.round(0, Arc::new(Quiet)).await;
    assert!(ended(&round, Action::Create).is_done(), "{round:#?}");
    assert_eq!((days.engine.world.lock().unwrap().deleted.len(), round.unwritten), (1, None));
}

/// Makes room for lines, or takes it, when something begins or has ended.
struct Meddling {
    ledger: PathBuf,
    begins: fn(&Path),
    ends: fn(&Path),
}

impl Listener for Meddling {
    fn began(&self, _: usize) {
        (self.begins)(&self.ledger);
    }

    fn progress(&self, _: usize, _: Progress) {}

    fn ended(&self, change: usize, _: &Ending) {
        if change == 0 {
            (self.ends)(&self.ledger);
        }
    }
}

/// A line about it would be one of a round that never began.
#[tokio::test]
async fn a_round_without_a_line_takes_nothing_away_though_there_is_room_again() {
    let days = Days::new().await;
    fills(&days.ledger());
    let (ledger, ends) = (days.ledger(), |_: &Path| {});
    let round = days.round(1, Arc::new(Meddling { ledger, begins: has_room, ends })).await;
    assert!(ended(&round, Action::Create).is_done(), "{round:#?}");
    let Ending::Failed { message } = ended(&round, Action::Deprecate) else { panic!("{round:#?}") };
    assert!(message.contains("not begun, because the ledger cannot be written"), "{message}");
    assert!(round.unwritten.is_some());
}

#[tokio::test]
async fn a_round_whose_end_is_not_in_the_ledger_says_so() {
    let engine = MemoryEngine::new(Days::clock(0));
    engine.add(instance("web-1", &[]));
    let days = Days { engine, directory: tempfile::tempdir().unwrap() };
    let (ledger, begins) = (days.ledger(), |_: &Path| {});
    let round = days.round(0, Arc::new(Meddling { ledger, begins, ends: fills })).await;
    assert!(ended(&round, Action::Create).is_done(), "{round:#?}");
    assert!(round.unwritten.unwrap().contains("the ledger cannot be written"));
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
