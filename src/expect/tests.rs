//! Histories and judgements over policies of a made-up engine.

use std::sync::Arc;

use super::{Reader, Runner};
use crate::inventory::Capabilities;
use crate::policy::{EngineKind, Loaded, SourceFile, load};

fn kind() -> EngineKind {
    EngineKind {
        check: |_| Vec::new(),
        name: "memory",
        settings_schema: serde_json::json!({"type": "object"}),
        capabilities: |_| Capabilities {
            copies: true,
            locations: vec!["near".to_owned(), "far".to_owned()],
            ..Capabilities::default()
        },
    }
}

/// The policy `p` for all sources, with this in its `spec`, and more in that of the configuration.
fn policies(spec: &str, config: &str) -> Loaded {
    let text = format!(
        "apiVersion: stillframe/v1\nkind: Config\nspec:\n  engines: {{one: {{memory: {{}}}}, two: {{memory: {{}}}}}}\n{config}\
         ---\napiVersion: stillframe/v1\nkind: BackupPolicy\nmetadata: {{name: p}}\nspec:\n  engine: one\n  \
         source: {{match: [{{names: [\"*\"]}}]}}\n{spec}"
    );
    let loaded = load(vec![SourceFile { path: "p.yaml".to_owned(), text }], &[kind()]);
    assert!(loaded.policies.is_some(), "{:?}", loaded.findings);
    loaded
}

/// What a case with these lines says of policies: failures, or findings.
fn run(loaded: &Loaded, case: &str) -> Vec<String> {
    let text = format!(
        "apiVersion: stillframe/v1\nkind: PolicyTest\nmetadata: {{name: t}}\nspec:\n  policy: p\n  engine: one\n  \
         sources: [{{name: a}}]\n  cases:\n    - name: c\n{case}"
    );
    let file = Arc::new(SourceFile { path: "t.test.yaml".to_owned(), text });
    let (suites, mut findings) = Reader::new().unwrap().read(&file);
    let mut failures = Vec::new();
    for suite in &suites {
        let mut runner = Runner::new(suite, loaded);
        for case in &suite.cases {
            let (verdict, found) = runner.run(case);
            findings.extend(found);
            failures.extend(verdict.into_iter().flat_map(|verdict| verdict.failures));
        }
    }
    let failures = failures.into_iter().map(|failure| failure.finding.message);
    failures.chain(findings.into_iter().map(|finding| finding.message)).collect()
}

#[track_caller]
fn holds(loaded: &Loaded, case: &str) {
    assert_eq!(run(loaded, case), Vec::<String>::new());
}

const NIGHTLY: &str = "  schedule: {cron: \"0 2 * * *\"}\n  retention: {last: 3}\n";

#[test]
fn graces_pass_between_slots_that_are_far_apart() {
    let weekly = policies(
        "  schedule: {cron: \"0 2 * * 0\"}\n  retention: {last: 2}\n  lifecycle: {grace: 1d}\n",
        "",
    );
    // The slots of November are 1, 8, 15, 22 and 29. What the 29th takes the place of has a day.
    holds(
        &weekly,
        "      given: {history: [{from: 2026-11-01, until: 2026-12-03}]}\n      now: 2026-12-03\n      \
         expect: {kept: [2026-11-22, 2026-11-29], inGrace: 0, nothing: true}\n",
    );
    holds(
        &weekly,
        "      given: {history: [{from: 2026-11-01, until: 2026-11-29T12:00:00Z}]}\n      now: 2026-11-29T12:00:00Z\n      \
         expect: {kept: [2026-11-22, 2026-11-29], inGrace: [2026-11-15]}\n",
    );
    holds(
        &weekly,
        "      given: {history: [{from: 2026-11-01, until: 2026-12-03, how: plain}]}\n      now: 2026-12-03\n      \
         expect: {kept: 2, deprecated: [2026-11-01, 2026-11-08, 2026-11-15]}\n",
    );
}

#[test]
fn every_source_has_its_slots_whatever_its_jitter() {
    let loaded =
        policies("  schedule: {cron: \"0 */6 * * *\", jitter: 2h}\n  retention: {days: 30}\n", "");
    holds(
        &loaded,
        "      given: {sources: [{name: b}, {name: c}], history: [{from: 2026-11-01, until: 2026-11-03}]}\n      \
         now: 2026-11-03T00:00:00Z\n      expect: {kept: 24, missed: 0}\n",
    );
}

#[test]
fn what_failed_and_what_was_not_made_is_as_it_would_be() {
    let loaded = policies(NIGHTLY, "");
    let given = "      given: {history: [{from: 2026-11-01, until: 2026-11-21, failed: [2026-11-19], \
                 missing: [2026-11-17]}]}\n      now: 2026-11-21\n";
    holds(
        &loaded,
        &format!(
            "{given}      expect: {{kept: [2026-11-16, 2026-11-18, 2026-11-20], stalled: []}}\n"
        ),
    );
    // The failed attempt was cleared away when the next succeeded.
    let now = "      given: {history: [{from: 2026-11-01, failed: [2026-11-19]}]}\n      now: 2026-11-19T12:00:00Z\n";
    holds(
        &loaded,
        &format!(
            "{now}      expect: {{created: {{slots: [2026-11-19], byReason: {{failed-attempt: 1}}}}}}\n"
        ),
    );
}

#[test]
fn copies_are_counted_where_they_are_asked_for() {
    let loaded = policies(&format!("{NIGHTLY}  storage: {{copies: [far]}}\n"), "");
    holds(
        &loaded,
        "      given: {history: [{from: 2026-11-10}]}\n      now: 2026-11-21\n      \
         expect: {kept: {count: 3}, copied: 0}\n",
    );
    holds(
        &loaded,
        "      given: {history: [{from: 2026-11-10}]}\n      now: 2026-11-21\n      \
         expect: {kept: {location: far, count: 3}}\n",
    );
    holds(
        &loaded,
        "      given: {images: [{source: a, slot: 2026-11-20T02:00:00Z}]}\n      now: 2026-11-20T12:00:00Z\n      \
         expect: {kept: 1, copied: {location: far, slots: [2026-11-20]}}\n",
    );
}

#[test]
fn restore_points_of_a_renamed_policy_are_those_of_the_new_name() {
    let loaded = policies(NIGHTLY, "  moved: [{from: old, to: p}]\n");
    holds(
        &loaded,
        "      source: a\n      given: {images: [{policy: old, slot: [2026-11-19T02:00:00Z, 2026-11-20T02:00:00Z]}]}\n      \
         now: 2026-11-20T12:00:00Z\n      expect: {kept: 2, nothing: true}\n",
    );
}

#[test]
fn a_source_is_where_its_engine_is() {
    let loaded = policies(NIGHTLY, "");
    let case = "      given: {sources: [{name: b, engine: two}], history: [{from: 2026-11-10}]}\n      now: 2026-11-21\n";
    holds(&loaded, &format!("{case}      expect: {{kept: 3, selected: [a], unprotected: [b]}}\n"));
    let wrong = "      given: {sources: [{name: b, engine: two}], history: [{from: 2026-11-10, source: b}]}\n      \
                 now: 2026-11-21\n      expect: {kept: 3}\n";
    assert_eq!(run(&loaded, wrong), ["p does not select b"]);
}

#[test]
fn what_guards_refuse_is_not_deleted() {
    let loaded = policies(NIGHTLY, "");
    let days: Vec<String> = (1..=12).map(|day| format!("2026-11-{day:02}T02:00:00Z")).collect();
    let case = format!(
        "      source: a\n      given:\n        images:\n          - {{slot: [{}], letGo: 2026-11-15}}\n          \
         - {{slot: [2026-11-18T02:00:00Z, 2026-11-19T02:00:00Z, 2026-11-20T02:00:00Z]}}\n      \
         now: 2026-11-20T12:00:00Z\n",
        days.join(", ")
    );
    holds(
        &loaded,
        &format!(
            "{case}      expect: {{deleted: 0, heldBack: 12, nothing: true, refused: [series-share, engine-share]}}\n"
        ),
    );
    assert_eq!(
        run(&loaded, &format!("{case}      expect: {{deleted: 12}}\n")),
        ["0 restore points are deleted, not 12"]
    );
}

#[test]
fn a_history_has_an_end() {
    let loaded = policies("  schedule: {cron: \"* * * * *\"}\n  retention: {last: 3}\n", "");
    let case = "      given: {history: [{from: 2020-01-01}]}\n      now: 2026-11-21\n      expect: {kept: 3}\n";
    assert_eq!(run(&loaded, case), ["over 20000 slots of p lie in this time"]);
}
