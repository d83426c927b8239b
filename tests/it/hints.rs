//! Mistakes that people make, and what they are told.

use stillframe::policy::{SourceFile, load};

/// Code, what is underlined, and the hint of every finding of a policy with this in its `spec`.
fn findings(spec: &str) -> Vec<(String, String, String)> {
    let text = format!(
        "apiVersion: stillframe/v1\nkind: BackupPolicy\nmetadata: {{name: p}}\nspec:\n{spec}"
    );
    let file = SourceFile { path: "p.yaml".to_owned(), text };
    load(vec![file], &[])
        .findings
        .into_iter()
        .filter(|finding| finding.code.word() != "missing-config")
        .map(|finding| {
            let place = finding.place.as_ref().unwrap();
            (
                finding.code.word().to_owned(),
                place.file.text[place.span.clone()].to_owned(),
                finding.hint.clone().unwrap_or_default(),
            )
        })
        .collect()
}

const SOURCE: &str = "  source: {match: [{names: [\"*\"]}]}\n";

/// One finding with this code, at this text, with a hint that says this.
#[track_caller]
fn check(lines: &str, code: &str, at: &str, hint: &str) {
    let found = findings(&format!("{SOURCE}{lines}"));
    let is_it = |(found_code, found_at, found_hint): &(String, String, String)| {
        found_code == code && found_at == at && found_hint.contains(hint)
    };
    assert!(found.iter().filter(|one| is_it(one)).count() == 1, "{found:#?}");
    let others = found.iter().filter(|one| !is_it(one) && one.0 != "keeps-everything").count();
    assert_eq!(others, 0, "{found:#?}");
}

const AT_TWO: &str = "  schedule: {cron: \"0 2 * * *\"}\n";

#[test]
fn numbers_that_readers_disagree_about_are_traps() {
    check(&format!("{AT_TWO}  retention: {{days: 010}}\n"), "yaml-trap", "010", "write 10");
    check(&format!("{AT_TWO}  retention: {{days: 0o17}}\n"), "yaml-trap", "0o17", "write 15");
    check(&format!("{AT_TWO}  retention: {{days: 1e3}}\n"), "wrong-type", "1e3", "write 1000");
    check(&format!("{AT_TWO}  retention: {{daily: 0x10}}\n"), "yaml-trap", "0x10", "write 16");
    check(&format!("{AT_TWO}  retention: {{daily: +3}}\n"), "yaml-trap", "+3", "write 3");
    check(&format!("{AT_TWO}  retention: {{days: 7d}}\n"), "wrong-type", "7d", "write 7");
}

#[test]
fn words_of_a_crontab_have_their_hints() {
    let cron = |text: &str| format!("  schedule: {{cron: \"{text}\"}}\n  retention: {{days: 9}}\n");
    check(&cron("0 2 * * mo"), "bad-cron", "mo", "did you mean `mon`?");
    check(&cron("0 2 * * xyz"), "bad-cron", "xyz", "names are sun, mon");
    check(&cron("0 L * * *"), "bad-cron", "L", "`L`, `W` and `#`");
    check(&cron("0 2 L5 * *"), "bad-cron", "L5", "`L` for the last day");
    check(&cron("0 2 * * 5#6"), "bad-cron", "6", "the first is `5#1`");
    check(&cron("0 2 * * 7-1"), "bad-cron", "7-1", "write `0-1`");
}

#[test]
fn what_is_no_yaml_says_what_it_most_often_is() {
    let unquoted = findings("  schedule: {cron: * * * * *}\n");
    assert!(unquoted.iter().any(|one| one.0 == "syntax-error"), "{unquoted:?}");
    let block = findings("  schedule:\n    cron: *\n");
    assert!(block[0].2.contains("quote the value"), "{block:?}");
    let indented =
        findings("  schedule:\n   cron: \"0 2 * * *\"\n  retention:\n      days: 3\n    last: 2\n");
    assert!(indented[0].2.contains("same column"), "{indented:?}");
}

#[test]
fn a_misspelt_key_is_not_missing_too() {
    check(
        "  schedul: {cron: \"0 2 * * *\"}\n  retention: {days: 9}\n",
        "unknown-key",
        "schedul",
        "did you mean `schedule`?",
    );
}

#[test]
fn a_pause_of_nothing_is_no_pause() {
    let spec = format!(
        "{SOURCE}{AT_TWO}  retention: {{days: 9}}\n  paused: {{creates: false, deletes: false}}\n"
    );
    assert_eq!(findings(&spec), []);
    check(
        &format!("{AT_TWO}  retention: {{days: 9}}\n  paused: true\n"),
        "wrong-type",
        "true",
        "creates: true",
    );
}

#[test]
fn templates_say_what_was_meant() {
    check(
        &format!(
            "{AT_TWO}  retention: {{days: 9}}\n  naming: {{description: \"{{{{policy.nme}}}}\"}}\n"
        ),
        "bad-template",
        "\"{{policy.nme}}\"",
        "did you mean `policy.name`?",
    );
}
