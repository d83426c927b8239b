//! A round that another run has overtaken says who that was: on the screen, in JSON and in the ledger.

use serde_json::{Value, json};
use stillframe::apply::Doer;
use stillframe::report::{apply_text, done_by};

use super::*;

/// Another run that makes everything while a person looks at the plan.
struct Overtaken {
    engine: Arc<dyn Engine>,
    by: Option<Author>,
}

#[async_trait]
impl Approval for Overtaken {
    async fn approve(&self, plan: &Plan) -> bool {
        for change in &plan.changes {
            let Some(create) = change.create.clone() else { continue };
            let request = CreateRequest {
                key: change.key.clone(),
                name: change.image.name.clone(),
                location: change.image.location.clone(),
                create,
                by: self.by.clone(),
            };
            self.engine.create(request, Arc::new(Unwatched)).await.unwrap();
        }
        true
    }

    fn takes_time(&self) -> bool {
        false
    }
}

/// What comes of a round that was overtaken by a run of a host: what is shown, the outcomes as JSON, and
/// what the ledger says of them.
async fn overtaken_by(host: &str) -> (String, Vec<Value>, Vec<Value>) {
    let bench = Box::new(Local(Datacenter::new()));
    let case = Case { bench, directory: tempfile::tempdir().unwrap(), spec: "" };
    let engine = case.bench.open(clock(0));
    let approval = Overtaken { engine, by: Author::new(host) };
    let round = case.room(0).round(&approval, Arc::new(Quiet), &Stop::default()).await;
    let ledger = std::fs::read_to_string(case.directory.path().join("ledger.ndjson")).unwrap();
    let lines = ledger.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let ended = lines.filter(|line| line["event"] == "change-ended");
    let text = apply_text(&round);
    let lines = text.lines().take_while(|line| !line.is_empty());
    let mut text: String = lines.map(|line| format!("{line}\n")).collect();
    for change in &round.plan.changes {
        text = text.replace(&change.image.name, &format!("IMAGE OF {}", change.source_name));
    }
    let ended = ended.map(|line| line["outcome"].clone()).collect();
    let outcomes = round.outcomes.iter().map(|outcome| json!(outcome.ending)).collect();
    (text, outcomes, ended)
}

#[tokio::test]
async fn a_round_says_which_host_was_faster() {
    for (host, on, by) in [
        ("ci-7", ", on ci-7", json!({"host": "ci-7", "is_here": false})),
        (HOST, ", on this host", json!({"host": HOST, "is_here": true})),
        ("", "", Value::Null),
    ] {
        let (text, outcomes, ended) = overtaken_by(host).await;
        assert_eq!(
            text,
            format!(
                "= done by another run\n  = create IMAGE OF web-1{on}\n  = create IMAGE OF web-2{on}\n"
            )
        );
        assert_eq!((outcomes.len(), ended.len()), (2, 2));
        for outcome in outcomes.iter().chain(&ended) {
            assert_eq!((&outcome["result"], &outcome["by"]), (&json!("found"), &by), "{outcome}");
        }
    }
}

#[test]
fn a_host_that_comes_from_a_cloud_is_shown_harmlessly() {
    let by = |host: &str, is_here| done_by(&Doer { host: host.to_owned(), is_here });
    assert_eq!(by("ci-7", false), "done by another run, on ci-7");
    assert_eq!(by("ci-7", true), "done by another run on this host");
    assert_eq!(by("ci\u{202e}\u{1b}[2J", false), "done by another run, on ci\\u{202e}\\u{1b}[2J");
    // It does not come so far.
    assert_eq!(Author::read("nightly (by ci\u{202e}\u{1b}[2J)"), None);
}

/// What a plan is made over, and what images are bound to, is the same whoever has made them.
#[tokio::test]
async fn nothing_hangs_on_who_has_made_an_image() {
    let mut seen = Vec::new();
    for host in ["ci-7", "watch"] {
        let bench = Box::new(gce(ImageKind::MachineImage));
        let case = Case { bench, directory: tempfile::tempdir().unwrap(), spec: "" };
        let request = CreateRequest { by: Author::new(host), ..case.request(0) };
        case.bench.open(clock(0)).create(request, Arc::new(Unwatched)).await.unwrap();
        seen.push(case.observe(0).await.images);
    }
    assert_eq!(seen[0], seen[1]);
}
