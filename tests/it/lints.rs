//! Lint of meaning: each warning where it belongs, and nowhere else.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::json;
use stillframe::inventory::{
    Capabilities, Disk, DrillCheck, EngineInventory, FORMAT_VERSION, Gap, GapScope, Image,
    ImageKind, Instance, Inventory, Limits,
};
use stillframe::name::SourceId;
use stillframe::policy::{
    Code, EngineKind, Finding, Loaded, Policies, Reading, Severity, SourceFile, lint, load,
    load_with,
};
use stillframe::report::findings;

use super::support::{Datacenter, NOW, golden, project, transcript};

const CONFIG: &str =
    "apiVersion: stillframe/v1\nkind: Config\nspec:\n  engines: {hall: {memory: {}}}\n";

/// An engine with the limits of a cloud, and a small quota.
fn kind() -> EngineKind {
    EngineKind {
        check: |_| Vec::new(),
        name: "memory",
        settings_schema: json!({"type": "object"}),
        capabilities: |_| capabilities(),
    }
}

fn capabilities() -> Capabilities {
    Capabilities {
        families: true,
        via_snapshot_kinds: vec![ImageKind::DiskImage],
        drills: vec![DrillCheck::Verify],
        limits: Limits {
            images: BTreeMap::from([(ImageKind::MachineImage, 32)]),
            image_disks: Some(2),
            image_bytes: Some(10 << 40),
            source_interval_seconds: Some(600),
            source_hourly: Some(6),
            ..Limits::default()
        },
        ..Capabilities::default()
    }
}

fn load_all(files: &[(&str, &str)]) -> Loaded {
    let file = |(path, text): &(&str, &str)| SourceFile {
        path: (*path).to_owned(),
        text: (*text).to_owned(),
    };
    load(files.iter().map(file).collect(), &[kind()])
}

/// A policy with these lines in its `spec`, beside what every policy has.
fn policy(name: &str, lines: &str) -> String {
    let source =
        if lines.contains("source:") { "" } else { "  source: {match: [{names: [\"*\"]}]}\n" };
    format!(
        "apiVersion: stillframe/v1\nkind: BackupPolicy\nmetadata: {{name: {name}}}\nspec:\n{source}{lines}"
    )
}

/// Code and underlined text of each finding.
fn said(findings: &[Finding]) -> Vec<(&'static str, String)> {
    let at = |finding: &Finding| {
        let place = finding.place.as_ref().unwrap();
        place.file.text[place.span.clone()].to_owned()
    };
    findings.iter().map(|finding| (finding.code.word(), at(finding))).collect()
}

/// What is said of a policy with this schedule and this retention, and more lines.
fn of_one(schedule: &str, retention: &str, more: &str) -> Vec<(&'static str, String)> {
    let more: String = more.split('\n').fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "  {line}");
        text
    });
    let lines = format!("  schedule: {{{schedule}}}\n  retention: {{{retention}}}\n{more}");
    said(&load_all(&[("c.yaml", CONFIG), ("p.yaml", &policy("p", &lines))]).findings)
}

/// Schedule, retention, more lines, and what is said: code and underlined text.
type Row<'a> = (&'a str, &'a str, &'a str, &'a [(&'a str, &'a str)]);

#[track_caller]
fn check(rows: &[Row<'_>]) {
    for (schedule, retention, more, wanted) in rows {
        let wanted: Vec<(&str, String)> =
            wanted.iter().map(|(code, at)| (*code, (*at).to_owned())).collect();
        assert_eq!(of_one(schedule, retention, more), wanted, "{schedule} | {retention} | {more}");
    }
}

const DAILY: &str = "cron: \"0 2 * * *\"";
const WEEKLY: &str = "cron: \"0 2 * * 0\"";
const HOURLY: &str = "cron: \"0 * * * *\"";

#[test]
fn rules_that_others_make_useless() {
    check(&[
        (DAILY, "days: 30, last: 5", "", &[("useless-rule", "5")]),
        (DAILY, "days: 7, hours: 24", "", &[("useless-rule", "24")]),
        (DAILY, "days: 7, weeks: 1", "", &[("useless-rule", "7")]),
        (DAILY, "last: 7, daily: 7", "", &[("useless-rule", "7")]),
        (DAILY, "daily: 7, hourly: 5", "", &[("useless-rule", "5")]),
        (DAILY, "last: 3, monthly: 12, atLeast: 4", "", &[("useless-rule", "3")]),
        (DAILY, "daily: 7, monthly: 1", "", &[("useless-rule", "1")]),
        (WEEKLY, "weekly: 8, days: 14", "", &[("useless-rule", "14")]),
        (HOURLY, "hours: 48, hourly: 24, daily: 7", "", &[("useless-rule", "24")]),
        // Each keeps something of its own.
        (DAILY, "days: 14, weekly: 8, monthly: 12, yearly: 3", "", &[]),
        (DAILY, "days: 30, last: 31", "", &[("useless-rule", "30")]),
        (DAILY, "days: 30, weekly: 8", "", &[]),
        (DAILY, "daily: 7, weekly: 2", "", &[]),
        (DAILY, "days: 30, atLeast: 5", "", &[]),
        (DAILY, "last: 1", "", &[]),
        (DAILY, "last: 7, atLeast: 7", "", &[]),
        ("cron: \"0 2 * * 1-5\"", "days: 3, last: 3", "", &[]),
        (
            "cron: \"15 */6 * * *\", timeZone: Europe/Berlin",
            "last: 8, daily: 14, monthly: 12, atLeast: 4",
            "",
            &[],
        ),
        // The 25 hours of a day in autumn make the difference.
        ("cron: \"0 5 * * *\", timeZone: Europe/Berlin", "days: 14, daily: 14", "", &[]),
        (DAILY, "days: 14, daily: 14", "", &[("useless-rule", "14")]),
    ]);
}

#[test]
fn rules_beside_a_schedule_they_do_not_fit() {
    check(&[
        (WEEKLY, "days: 1", "", &[("retention-below-period", "1")]),
        (
            WEEKLY,
            "days: 3, hours: 12, atLeast: 2",
            "",
            &[("retention-below-period", "3"), ("useless-rule", "12")],
        ),
        (WEEKLY, "days: 7", "", &[]),
        (DAILY, "days: 1", "", &[]),
        ("cron: \"0 2 * * 1-5\"", "days: 2", "", &[]),
        (DAILY, "hourly: 24", "", &[("tier-does-not-fill", "24")]),
        (WEEKLY, "daily: 7", "", &[("tier-does-not-fill", "7")]),
        ("cron: \"0 2 1 * *\"", "weekly: 4", "", &[("tier-does-not-fill", "4")]),
        ("cron: \"0 2 1 */3 *\"", "monthly: 4", "", &[("tier-does-not-fill", "4")]),
        (HOURLY, "hourly: 24", "", &[]),
        ("cron: \"0 */2 * * *\"", "hourly: 12", "", &[]),
        ("cron: \"0 2 * * 1,3,5\"", "daily: 7", "", &[]),
        ("cron: \"0 2 1,15 * *\"", "weekly: 4", "", &[]),
        (HOURLY, "last: 4, daily: 7", "", &[("last-below-day", "4")]),
        (HOURLY, "last: 24, daily: 7", "", &[]),
        (HOURLY, "last: 4, hourly: 24, daily: 7", "", &[("useless-rule", "4")]),
        (HOURLY, "last: 4", "", &[]),
        (DAILY, "days: 7", "lifecycle: {deprecateAfter: 14d}", &[("stage-never-comes", "14d")]),
        (
            DAILY,
            "days: 7",
            "lifecycle: {deprecateAfter: 3d, obsoleteAfter: 30d}",
            &[("stage-never-comes", "30d")],
        ),
        (DAILY, "days: 7", "lifecycle: {deprecateAfter: 6d}", &[]),
        (DAILY, "days: 7, monthly: 3", "lifecycle: {deprecateAfter: 60d}", &[]),
        (DAILY, "days: 7, atLeast: 30", "lifecycle: {deprecateAfter: 14d}", &[]),
        (
            DAILY,
            "days: 7",
            "lifecycle: {deprecateAfter: 14d}\nhold: [{sources: db, reason: law}]",
            &[],
        ),
    ]);
}

#[test]
fn schedules_that_do_not_run_as_was_meant() {
    let often = "\"*/5 * * * *\"";
    let at_night = |objective: &str, what: &str| {
        format!(
            "objectives: {{{objective}}}\nblackouts: [{{cron: \"0 1 * * *\", duration: 4h, {what}, reason: x}}]"
        )
    };
    check(&[
        ("cron: \"*/5 * * * *\"", "hours: 24", "", &[("runs-too-often", often)]),
        ("cron: [\"0 2 * * *\", \"4 2 * * 0\"]", "days: 24", "", &[("runs-too-often", "cron")]),
        ("cron: \"*/10 * * * *\"", "hours: 24", "", &[]),
        ("cron: [\"0 2 * * *\", \"10 2 * * 0\"]", "days: 24", "", &[]),
        ("cron: \"0 2 * * *\", deadline: 26h", "days: 7", "", &[("deadline-beyond-period", "26h")]),
        ("cron: \"0 2 * * *\", deadline: 25h", "days: 7", "", &[]),
        ("cron: \"0 8-18 * * 1-5\", deadline: 4h", "days: 7", "", &[]),
        ("cron: \"0 2 * 6 *\", deadline: 4d", "days: 7", "", &[]),
        (DAILY, "days: 7", "objectives: {rpo: 20h}", &[("objective-not-met", "20h")]),
        (
            "cron: \"0 2 * * 1-5\"",
            "days: 7",
            "objectives: {rpo: 26h}",
            &[("objective-not-met", "26h")],
        ),
        (DAILY, "days: 7", "objectives: {rpo: 24h}", &[]),
        // The age is counted from the slot to the beginning of the next run.
        (
            "cron: \"0 2 * * *\", jitter: 2h",
            "days: 7",
            "objectives: {rpo: 24h}",
            &[("objective-not-met", "24h")],
        ),
        ("cron: \"0 2 * * *\", jitter: 2h", "days: 7", "objectives: {rpo: 26h}", &[]),
        (DAILY, "days: 7", &at_night("rpo: 25h", "creates: true"), &[("objective-not-met", "25h")]),
        (DAILY, "days: 7", &at_night("rpo: 27h", "creates: true"), &[]),
        (DAILY, "days: 7", &at_night("rpo: 25h", "creates: false, deletes: true"), &[]),
        (
            "cron: \"0 2 * * *\", jitter: 2h",
            "days: 7",
            &at_night("rpo: 26h", "creates: true"),
            &[("objective-not-met", "26h")],
        ),
        // Slots that a blackout leaves out.
        (
            "cron: \"30 * * * *\"",
            "days: 7",
            &at_night("rpo: 4h", "creates: true"),
            &[("objective-not-met", "4h")],
        ),
        ("cron: \"30 * * * *\"", "days: 7", &at_night("rpo: 5h", "creates: true"), &[]),
        (WEEKLY, "days: 70, stalledAfter: 3d", "", &[("stalled-too-soon", "3d")]),
        (WEEKLY, "days: 70, stalledAfter: 3d, whenStalled: expire", "", &[]),
        (WEEKLY, "days: 70, stalledAfter: 7d", "", &[]),
    ]);
}

#[test]
fn blackouts_that_leave_no_time() {
    let night = "blackouts: [{cron: \"0 0 * * *\", duration: 6h, reason: x}]";
    let never = [("never-runs", "\"0 2 * * *\"")];
    check(&[
        ("cron: \"0 2 * * *\", deadline: 3h", "days: 7", night, &never),
        ("cron: \"0 2 * * *\", deadline: 5h", "days: 7", night, &[]),
        (DAILY, "days: 7", night, &[]),
        ("cron: \"0 2,12 * * *\", deadline: 3h", "days: 7", night, &[]),
        (
            "cron: \"0 2 * * *\", deadline: 3h",
            "days: 7",
            "blackouts: [{cron: \"0 0 * * 1-6\", duration: 6h, reason: x}]",
            &[],
        ),
        (
            "cron: \"0 2 * * *\", deadline: 3h",
            "days: 7",
            "blackouts: [{cron: \"0 0 * * *\", duration: 6h, creates: false, deletes: true, reason: x}]",
            &[],
        ),
        (
            "cron: \"0 2 1 1 *\", deadline: 3h",
            "days: 900",
            "blackouts: [{cron: \"0 0 * * 4\", duration: 1d, reason: x}]",
            &[],
        ),
        (
            "cron: \"0 2 * * *\", deadline: 3h",
            "days: 7",
            "blackouts: [{from: 2025-01-01, until: 2040-01-01, reason: x}]",
            &[],
        ),
        (
            "cron: \"0 * * * *\", deadline: 5m",
            "days: 7",
            "blackouts: [{cron: \"0 0 * * *\", duration: 25h, reason: x}]",
            &[("never-runs", "\"0 * * * *\"")],
        ),
    ]);
}

#[test]
fn clock_changes_in_the_hour_of_a_run() {
    let berlin = |cron: &str| format!("cron: {cron}, timeZone: Europe/Berlin");
    let touched = |cron: &str| of_one(&berlin(cron), "days: 70", "");
    let found = |at: &str| vec![("clock-change", at.to_owned())];
    assert_eq!(touched("\"30 2 * * *\""), found("30 2 * * *"));
    assert_eq!(touched("\"0 2 * * 0\""), found("0 2 * * 0"));
    assert_eq!(touched("[\"0 12 * * *\", \"59 2 * * *\"]"), found("59 2 * * *"));
    for cron in [
        "\"0 3 * * *\"",
        "\"59 1 * * *\"",
        "\"30 2 * * 1-6\"",
        "\"30 * * * *\"",
        "\"0 */6 * * *\"",
        "\"0 0-4,9 * * *\"",
    ] {
        assert_eq!(touched(cron), [], "{cron}");
    }
    // What follows the wall clock is not caught up: that counts where it leaves a longer gap.
    assert_eq!(touched("\"*/20 2 * * *\""), found("*/20 2 * * *"));
    assert_eq!(touched("\"30 */2 * * *\""), found("30 */2 * * *"));
    for cron in ["\"*/20 * * * *\"", "\"*/30 1-2 * * *\"", "[\"*/20 2 * * *\", \"0 * * * *\"]"] {
        assert_eq!(touched(cron), [], "{cron}");
    }
    assert_eq!(of_one("cron: \"30 2 * * *\"", "days: 7", ""), []);
    assert_eq!(of_one("cron: \"30 2 * * *\", timeZone: Asia/Tokyo", "days: 7", ""), []);
    // Clocks that change at midnight: 00:00 does not exist that day.
    assert_eq!(
        of_one("cron: \"0 0 * * *\", timeZone: America/Havana", "days: 7", ""),
        found("0 0 * * *")
    );
}

#[test]
fn policies_that_always_fire_together() {
    let lines = |jitter: &str| {
        format!("  schedule: {{cron: \"0 4 * * *\"{jitter}}}\n  retention: {{days: 7}}\n")
    };
    let (plain, spread) = (lines(""), lines(", jitter: 30m"));
    let three = |third: &str| {
        let text = format!(
            "{}---\n{}---\n{}",
            policy("a", &plain),
            policy("b", &plain),
            policy("c", third)
        );
        said(&load_all(&[("c.yaml", CONFIG), ("p.yaml", &text)]).findings)
    };
    assert_eq!(three(&plain), [("same-minute", "\"0 4 * * *\"".to_owned())]);
    assert_eq!(three(&spread), []);
    assert_eq!(three(&plain.replace("0 4", "5 4")), []);
    for same in [
        "00 4 * * 0-6",
        "0 6 * * *\", timeZone: \"Etc/GMT-2",
        "0 5 * * *\", timeZone: \"Africa/Lagos",
    ] {
        let third = plain.replace("0 4 * * *", same);
        assert_eq!(three(&third), [("same-minute", "\"0 4 * * *\"".to_owned())], "{same}");
    }
    for other in ["0 4 * * 0-5", "0 4 * * *\", timeZone: \"Africa/Lagos"] {
        assert_eq!(three(&plain.replace("0 4 * * *", other)), [], "{other}");
    }
}

#[test]
fn what_is_inherited_is_judged_where_it_stands() {
    let config = |defaults: &str| format!("{CONFIG}  defaults: {{retention: {{{defaults}}}}}\n");
    let weekly = policy("p", &format!("  schedule: {{{WEEKLY}}}\n"));
    let two = format!("{weekly}---\n{}", policy("q", &format!("  schedule: {{{DAILY}}}\n")));
    let said = |defaults: &str, policies: &str| {
        said(&load_all(&[("c.yaml", &config(defaults)), ("p.yaml", policies)]).findings)
    };
    // The defaults are for other policies too.
    assert_eq!(said("days: 14, weekly: 8", &two), []);
    assert_eq!(said("daily: 14", &two), []);
    // This is so for all of them, and is said once.
    assert_eq!(said("days: 14, hours: 24", &two), [("useless-rule", "24".to_owned())]);
    assert_eq!(said("days: 3", &two), [("retention-below-period", "3".to_owned())]);
}

#[test]
fn a_warning_can_be_allowed_with_a_reason() {
    let lines = format!("  schedule: {{{DAILY}}}\n  retention: {{days: 30, last: 5}}\n");
    let allowing = |code: &str| {
        policy("p", &lines).replace(
            "{name: p}",
            &format!("{{name: p, allow: [{{code: {code}, reason: the auditor asks for it}}]}}"),
        )
    };
    let said = |text: &str| said(&load_all(&[("c.yaml", CONFIG), ("p.yaml", text)]).findings);
    assert_eq!(said(&allowing("useless-rule")), []);
    let other = [("allows-nothing", "never-runs".to_owned()), ("useless-rule", "5".to_owned())];
    assert_eq!(said(&allowing("never-runs")), other);
    // What is found only over an inventory or with a clock may be there: nobody knows.
    assert_eq!(said(&allowing("matches-nothing")), [("useless-rule", "5".to_owned())]);
    assert_eq!(said(&allowing("has-ended")), [("useless-rule", "5".to_owned())]);
    // Where something is wrong, nothing was looked for.
    let wrong = allowing("useless-rule").replace("days: 30", "days: -1");
    assert_eq!(said(&wrong), [("out-of-range", "-1".to_owned())]);
    let config =
        CONFIG.replace("spec:", "metadata: {allow: [{code: useless-rule, reason: ours}]}\nspec:");
    let loaded = load_all(&[("c.yaml", &config), ("p.yaml", &policy("p", &lines))]);
    assert_eq!(loaded.findings, []);
}

fn policies(files: &[(&str, &str)]) -> Policies {
    let loaded = load_all(files);
    loaded.policies.unwrap_or_else(|| panic!("{:#?}", loaded.findings))
}

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

#[test]
fn what_has_ended_and_what_ends_soon() {
    let config = format!(
        "{CONFIG}  blackouts:\n    - {{from: 2025-12-20, until: 2026-01-02, reason: x}}\n    - {{from: 2026-12-20, until: 2027-01-02, reason: x}}\n  exemptions:\n    - {{source: a, owner: me, reason: x, until: 2026-11-30}}\n    - {{source: b, owner: me, reason: x, until: 2026-12-30}}\n"
    );
    let lines = format!(
        "  schedule: {{{DAILY}}}\n  retention: {{days: 7}}\n  paused: {{creates: true, until: 2026-11-01}}\n  hold:\n    - {{sources: a, until: 2026-11-21, reason: x}}\n    - {{sources: b, until: 2026-11-22, reason: x}}\n    - {{sources: c, reason: x}}\n"
    );
    let two = format!(
        "{}---\n{}",
        policy("p", &lines),
        policy("q", &lines.replace("2026-11-01", "2026-12-01"))
    );
    let policies = policies(&[("c.yaml", &config), ("p.yaml", &two)]);
    let found = said(&lint::at(&policies, now()));
    let texts: Vec<(&str, &str)> = found.iter().map(|(code, at)| (*code, at.as_str())).collect();
    assert_eq!(
        texts,
        [
            ("has-ended", "{from: 2025-12-20, until: 2026-01-02, reason: x}"),
            ("ends-soon", "2026-11-30"),
            ("has-ended", "2026-11-01"),
            ("has-ended", "{sources: a, until: 2026-11-21, reason: x}"),
            ("has-ended", "{sources: a, until: 2026-11-21, reason: x}"),
        ]
    );
    assert_eq!(lint::at(&policies, "2026-11-01T00:00:00Z".parse().unwrap()).len(), 2);
}

fn instance(name: &str, labels: &[(&str, &str)], disks: usize) -> Instance {
    let disk = |number: usize| Disk {
        name: format!("disk-{number}"),
        boot: number == 0,
        size_bytes: Some(1 << 30),
        kms_key: None,
        problem: None,
    };
    Instance {
        id: SourceId::parse(name).unwrap(),
        name: name.to_owned(),
        zone: "zone-a".to_owned(),
        labels: labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        status: "RUNNING".to_owned(),
        project: String::new(),
        machine_type: String::new(),
        disks: (0..disks).map(disk).collect(),
    }
}

fn inventory(instances: Vec<Instance>, images: Vec<Image>) -> Inventory {
    Inventory {
        format_version: FORMAT_VERSION.to_owned(),
        observed_at: now(),
        engines: vec![EngineInventory {
            name: "hall".to_owned(),
            kind: "memory".to_owned(),
            identity: "hall".to_owned(),
            gaps: Vec::new(),
            images_seen_before: None,
            capabilities: capabilities(),
            instances,
            images,
        }],
    }
}

fn image(policy: &str, source: &str, labels: &BTreeMap<String, String>) -> Image {
    serde_json::from_value(json!({
        "id": format!("{policy}-{source}"), "name": format!("{policy}-{source}"), "state": "READY",
        "created_at": "2026-11-20T02:00:00Z", "labels": labels,
    }))
    .unwrap()
}

/// An image that carries the key of a policy and a source.
fn owned(policy: &str, source: &str) -> Image {
    let key = stillframe::name::Key {
        policy: stillframe::name::PolicyName::parse(policy).unwrap(),
        source: SourceId::parse(source).unwrap(),
        slot: stillframe::name::Slot::at("2026-11-20T02:00:00Z".parse().unwrap()),
    };
    image(policy, source, &key.labels().into_iter().collect())
}

const PLAIN: &str = "  schedule: {cron: \"0 2 * * *\"}\n  retention: {days: 3}\n";

fn over(text: &str, inventory: &Inventory) -> Vec<(&'static str, String)> {
    over_with(CONFIG, text, inventory)
}

fn over_with(config: &str, text: &str, inventory: &Inventory) -> Vec<(&'static str, String)> {
    said(&lint::over(&policies(&[("c.yaml", config), ("p.yaml", text)]), inventory, now()))
}

fn selecting(name: &str, source: &str, more: &str) -> String {
    policy(name, &format!("  source: {{{source}}}\n{PLAIN}{more}"))
}

#[test]
fn a_mistake_in_one_policy_hides_nothing_of_others() {
    let config = format!(
        "{CONFIG}  exemptions:\n    - {{source: a, owner: me, reason: x, until: 2026-01-01}}\n    - {{source: b, owner: me, reason: x, until: 2026-11-30}}\n"
    );
    let lines = "  schedule: {cron: \"0 2 * * *\"}\n  retention: {days: 30, last: 5}\n";
    let ended = "  paused: {creates: true, until: 2026-11-01}\n";
    let wrong = policy("b", &lines.replace("0 2", "0 99"));
    let unknown = policy("c", &format!("{lines}  nonsense: 1\n"));
    let text = format!("{}---\n{wrong}---\n{unknown}", policy("a", &format!("{lines}{ended}")));
    let load_at = |config: &str| {
        let file = |path: &str, text: &str| {
            std::sync::Arc::new(SourceFile { path: path.to_owned(), text: text.to_owned() })
        };
        let reading = Reading { origins: true, now: Some(now()), ..Reading::default() };
        load_with(vec![file("c.yaml", config), file("p.yaml", &text)], &[kind()], reading)
    };
    let loaded = load_at(&config);
    assert!(loaded.policies.is_none());
    let found = said(&loaded.findings);
    let codes: Vec<&str> = found.iter().map(|(code, _)| *code).collect();
    for (code, count) in [
        ("bad-cron", 1),
        ("unknown-key", 1),
        ("expired-exemption", 1),
        ("ends-soon", 1),
        ("has-ended", 1),
        // Only of the policy in which nothing is wrong.
        ("useless-rule", 1),
    ] {
        assert_eq!(codes.iter().filter(|one| **one == code).count(), count, "{code} {codes:?}");
    }
    // What all inherit may be anything.
    let broken = format!("{config}  defaults: {{nonsense: 1}}\n");
    let found = said(&load_at(&broken).findings);
    assert!(found.iter().all(|(code, _)| *code != "useless-rule"), "{found:?}");
    assert!(found.iter().any(|(code, _)| *code == "has-ended"), "{found:?}");
}

#[test]
fn what_engines_are_seen_to_take() {
    let mut seen = inventory(vec![instance("web-1", &[], 1)], Vec::new());
    let often = policy(
        "p",
        "  schedule: {cron: \"*/10 * * * *\"}\n  retention: {hours: 2}\n  lifecycle: {grace: 0}\n",
    );
    assert_eq!(over(&often, &seen), []);
    seen.engines[0].capabilities.limits.source_interval_seconds = Some(3_600);
    assert_eq!(over(&often, &seen), [("runs-too-often", "\"*/10 * * * *\"".to_owned())]);
    let more = often.replace("*/10", "*/5");
    // That was said of the policies alone.
    assert_eq!(over(&more, &seen), []);
    let allowed = often.replace(
        "{name: p}",
        "{name: p, allow: [{code: runs-too-often, reason: the newest is enough}]}",
    );
    let files = [("c.yaml", CONFIG), ("p.yaml", allowed.as_str())];
    assert_eq!(said(&load_all(&files).findings), []);
    assert_eq!(over(&allowed, &seen), []);
}

#[test]
fn what_fits_nothing() {
    let mut seen = inventory(vec![instance("web-1", &[], 1), instance("db-1", &[], 1)], Vec::new());
    let nothing = selecting("p", "match: [{names: [wbe-1]}]", "");
    let entries = selecting(
        "p",
        "match: [{names: [web-1]}, {names: [wbe-2]}], exclude: [{names: [old-*]}, {labels: {backup: \"false\"}}]",
        "",
    );
    let unfit = [
        ("entry-matches-nothing", "{names: [wbe-2]}".to_owned()),
        ("entry-matches-nothing", "{names: [old-*]}".to_owned()),
    ];
    assert_eq!(over(&nothing, &seen), [("matches-nothing", "match".to_owned())]);
    assert_eq!(over(&entries, &seen), unfit);
    // Where some instances were not seen, nobody knows; images have nothing to do with it.
    let gap = |scope| Gap { scope, place: "zone-b".into(), message: "unreachable".into() };
    seen.engines[0].gaps = vec![gap(GapScope::Images)];
    assert_eq!(over(&entries, &seen), unfit);
    seen.engines[0].gaps = vec![gap(GapScope::Instances)];
    assert_eq!(over(&nothing, &seen), []);
    assert_eq!(over(&entries, &seen), []);
    // Nor of an engine that was not looked at.
    seen.engines.clear();
    assert_eq!(over(&nothing, &seen), []);
}

#[test]
fn what_fits_twice() {
    let seen = inventory(vec![instance("web-1", &[], 1), instance("db-1", &[], 1)], Vec::new());
    let all = |source: &str| {
        format!(
            "{}---\n{}",
            selecting("a", "match: [{names: [\"web-*\"]}]", ""),
            selecting("b", &format!("match: [{{names: [\"*\"]}}]{source}"), "")
        )
    };
    assert_eq!(over(&all(""), &seen), [("sources-overlap", "match".to_owned())]);
    assert_eq!(over(&all(", overlapsWith: a"), &seen), []);
    assert_eq!(
        over(&all(", overlapsWith: [\"x*\"]"), &seen),
        [("sources-overlap", "match".to_owned())]
    );
    let either =
        all("").replace("{name: b}", "{name: b, allow: [{code: sources-overlap, reason: moving}]}");
    assert_eq!(over(&either, &seen), []);
    let apart = all("").replace("\"*\"", "\"db-*\"");
    assert_eq!(over(&apart, &seen), []);
}

#[test]
fn exemptions_that_exempt_nothing() {
    let seen = inventory(vec![instance("web-1", &[], 1), instance("lab-1", &[], 1)], Vec::new());
    let config = |source: &str| {
        format!(
            "{CONFIG}  exemptions: [{{source: {source}, owner: me, reason: x, until: 2027-01-01}}]\n"
        )
    };
    let web = selecting("p", "match: [{names: [web-1]}]", "");
    let said = |source: &str| over_with(&config(source), &web, &seen);
    assert_eq!(said("lab-1"), []);
    assert_eq!(said("\"*-1\""), []);
    assert_eq!(said("web-1"), [("exempts-nothing", "2027-01-01".to_owned())]);
    assert_eq!(said("lba-1"), [("exempts-nothing", "2027-01-01".to_owned())]);
    let mut partly = seen.clone();
    partly.engines[0].gaps =
        vec![Gap { scope: GapScope::Instances, place: String::new(), message: String::new() }];
    assert_eq!(over_with(&config("lba-1"), &web, &partly), []);
}

#[test]
fn more_than_an_engine_takes() {
    let hosts =
        |count: usize| (0..count).map(|one| instance(&format!("web-{one}"), &[], 1)).collect();
    let all = policy("p", PLAIN);
    // Each source has the points of 0 to 3 days and one that waits out its grace, and one more when
    // it is captured.
    assert_eq!(over(&all, &inventory(hosts(5), Vec::new())), []);
    assert_eq!(over(&all, &inventory(hosts(6), Vec::new())), [("beyond-quota", "3".to_owned())]);
    let foreign: Vec<Image> =
        (0..3).map(|number| image("made-by-hand", &number.to_string(), &BTreeMap::new())).collect();
    assert_eq!(over(&all, &inventory(hosts(5), foreign)), [("beyond-quota", "3".to_owned())]);
    // One image per disk: the same sources hold twice as many.
    let two_disks: Vec<Instance> =
        (0..3).map(|number| instance(&format!("web-{number}"), &[], 2)).collect();
    let mut by_disk = inventory(two_disks, Vec::new());
    assert_eq!(over(&all, &by_disk), []);
    by_disk.engines[0].capabilities.per_disk_kinds = vec![ImageKind::MachineImage];
    assert_eq!(over(&all, &by_disk), [("beyond-quota", "3".to_owned())]);
    // Each project takes so many, and not all together.
    let mut apart = inventory(hosts(10), Vec::new());
    let engine = &mut apart.engines[0];
    let limits = &mut engine.capabilities.limits;
    let images = std::mem::take(&mut limits.images);
    limits.images_by_project = ["a", "b"].map(|name| (name.to_owned(), images.clone())).into();
    for (index, instance) in engine.instances.iter_mut().enumerate() {
        instance.project = if index % 2 == 0 { "a" } else { "b" }.to_owned();
    }
    assert_eq!(over(&all, &apart), []);
    "b".clone_into(&mut apart.engines[0].instances[0].project);
    assert_eq!(over(&all, &apart), [("beyond-quota", "3".to_owned())]);
    // Disk images are made from snapshots, as many at once as the engine takes.
    let via = policy("p", &format!("{PLAIN}  capture: {{kind: disk-image, via: snapshot}}\n"));
    let mut few = inventory(hosts(6), Vec::new());
    few.engines[0].capabilities.captures_max = 3;
    let of = |few: &mut Inventory, most: u64| {
        few.engines[0].capabilities.limits.images.insert(ImageKind::Snapshot, most);
        over(&via, few)
    };
    assert_eq!(of(&mut few, 3), []);
    assert_eq!(of(&mut few, 2), [("beyond-quota", "snapshot".to_owned())]);
    let wide = inventory(vec![instance("web-1", &[], 3)], Vec::new());
    let at_policy = vec![("beyond-image-limit", "match".to_owned())];
    assert_eq!(over(&all, &wide), at_policy);
    let boot = policy("p", &format!("{PLAIN}  capture: {{disks: boot}}\n"));
    assert_eq!(over(&boot, &wide), []);
    let mut large = inventory(vec![instance("web-1", &[], 1)], Vec::new());
    large.engines[0].instances[0].disks[0].size_bytes = Some((10 << 40) + 1);
    assert_eq!(over(&all, &large), at_policy);
}

/// An inventory whose engine takes so many images, and so many bytes of them.
fn taking(images: Option<u64>, bytes: Option<u64>, mut inventory: Inventory) -> Inventory {
    let limits = &mut inventory.engines[0].capabilities.limits;
    let kind = ImageKind::MachineImage;
    limits.images = images.map(|most| (kind, most)).into_iter().collect();
    limits.stored_bytes = bytes.map(|most| (kind, most)).into_iter().collect();
    inventory
}

#[test]
fn what_is_captured_is_there_before_anything_goes_for_it() {
    let hosts = |count: usize| -> Vec<Instance> {
        (0..count).map(|one| instance(&format!("web-{one}"), &[], 1)).collect()
    };
    let limit = |text: &str, images: u64, count: usize| {
        over(text, &taking(Some(images), None, inventory(hosts(count), Vec::new())))
    };
    let found = [("beyond-quota", "3".to_owned())];
    // Two sources hold five each in the long run, and each gets one more before one goes.
    let all = policy("p", PLAIN);
    assert_eq!(limit(&all, 10, 2), found);
    assert_eq!(limit(&all, 11, 2), found);
    assert_eq!(limit(&all, 12, 2), []);
    // What jitter spreads comes one after the other.
    let spread = policy("p", &PLAIN.replace("\"0 2 * * *\"", "\"0 2 * * *\", jitter: 1h"));
    assert_eq!(limit(&spread, 10, 2), found);
    assert_eq!(limit(&spread, 11, 2), []);
    // So does what two policies capture at different times; the larger one counts.
    let web = |name: &str, number: usize, at: &str| {
        let own = format!("match: [{{names: [web-{number}]}}]");
        selecting(name, &own, "").replace("0 2 * * *", at)
    };
    let apart = |at: &str| format!("{}---\n{}", web("a", 0, "0 2 * * *"), web("b", 1, at));
    assert_eq!(limit(&apart("0 5 * * *"), 10, 2), found);
    assert_eq!(limit(&apart("0 5 * * *"), 11, 2), []);
    assert_eq!(limit(&apart("0 2 * * *"), 11, 2), found);
}

#[test]
fn bytes_are_held_against_what_an_engine_takes() {
    let limit = |gib: u64, images: Vec<Image>| {
        let mut seen = inventory(vec![instance("web-1", &[], 1)], images);
        seen.engines[0].instances[0].disks[0].size_bytes = Some(100 << 30);
        taking(None, Some(gib << 30), seen)
    };
    let all = policy("p", PLAIN);
    let found = [("beyond-quota", "3".to_owned())];
    // A first one of 100 GiB, four of three each, and one more for a while.
    assert_eq!(over(&all, &limit(112, Vec::new())), found);
    assert_eq!(over(&all, &limit(115, Vec::new())), []);
    assert_eq!(over(&all, &limit(114, Vec::new())), found);
    // What is there says it better.
    let night = |day: i64, gib: u64| {
        let mut image = owned("p", "web-1");
        image.id = format!("{}-{day}", image.id);
        image.created_at += jiff::SignedDuration::from_hours(day * 24);
        image.stored_bytes = Some(gib << 30);
        image
    };
    let seen = || vec![night(0, 20), night(1, 7), night(2, 7)];
    assert_eq!(over(&all, &limit(20 + 5 * 7, seen())), []);
    assert_eq!(over(&all, &limit(20 + 5 * 7 - 1, seen())), found);
    let mut foreign = night(3, 1);
    foreign.labels.clear();
    assert_eq!(over(&all, &limit(20 + 5 * 7, [seen(), vec![foreign]].concat())), found);
    // Where each stores all of its disk, each is as large as the first.
    let mut whole = limit(599, Vec::new());
    whole.engines[0].capabilities.whole_kinds = vec![ImageKind::MachineImage];
    assert_eq!(over(&all, &whole), found);
    let mut whole = limit(600, Vec::new());
    whole.engines[0].capabilities.whole_kinds = vec![ImageKind::MachineImage];
    assert_eq!(over(&all, &whole), []);
    // Of what has no known size nothing is said.
    let mut unknown = limit(1, Vec::new());
    unknown.engines[0].instances[0].disks[0].size_bytes = None;
    assert_eq!(over(&all, &unknown), []);
}

#[test]
fn what_keeps_everything_comes_to_any_limit() {
    let endless = |name: &str, source: &str| {
        policy(name, &format!("  source: {{match: [{{names: [{source}]}}]}}\n  schedule: {{cron: \"0 2 * * *\"}}\n  retention: {{}}\n"))
            .replace(&format!("{{name: {name}}}"), &format!("{{name: {name}, allow: [{{code: keeps-everything, reason: x}}]}}"))
    };
    let hosts = || vec![instance("web-1", &[], 1), instance("web-2", &[], 1)];
    let one = endless("p", "\"web-*\"");
    let said = |text: &str, seen: &Inventory| -> Vec<String> {
        let policies = policies(&[("c.yaml", CONFIG), ("p.yaml", text)]);
        lint::over(&policies, seen, now())
            .into_iter()
            .map(|one| format!("{}: {}; {}", one.code.word(), one.message, one.label.unwrap()))
            .collect()
    };
    // It is said once, however it is limited.
    let seen = taking(Some(30), Some(1 << 40), inventory(hosts(), Vec::new()));
    assert_eq!(
        said(&one, &seen),
        [
            "beyond-quota: `p` lets go of no image of the kind machine-image, and `hall` takes 30; 2 more at each slot"
        ]
    );
    let two = format!("{}---\n{}", endless("p", "web-1"), endless("q", "web-2"));
    assert_eq!(
        said(&two, &seen),
        [
            "beyond-quota: `p` lets go of no image of the kind machine-image, and `hall` takes 30; 1 more at each slot; one other policy does so too"
        ]
    );
    assert_eq!(said(&one, &taking(None, None, inventory(hosts(), Vec::new()))), [""; 0]);
}

#[test]
fn what_no_policy_makes_any_more_counts() {
    let all = selecting("p", "match: [{names: [\"web-*\"]}]", "");
    let host = || vec![instance("web-1", &[], 1), instance("db-1", &[], 1)];
    let limit = |text: &str, images: Vec<Image>| {
        let config = format!("{CONFIG}  removed: [{{policy: removed, reason: x}}]\n");
        over_with(&config, text, &taking(Some(6), None, inventory(host(), images)))
            .into_iter()
            .filter(|(code, _)| *code == "beyond-quota")
            .count()
    };
    assert_eq!(limit(&all, Vec::new()), 0);
    // Those that the policy still makes are in the long run already.
    assert_eq!(limit(&all, vec![owned("p", "web-1")]), 0);
    // Of a policy that is gone, of one that was removed, of sources that are gone or that the policy
    // does not select any more, and those whose labels nobody can read.
    let mut broken = owned("p", "web-1");
    broken.labels.remove("stillframe-source");
    for image in [
        owned("gone", "web-1"),
        owned("removed", "web-1"),
        owned("p", "old"),
        owned("p", "db-1"),
        broken,
    ] {
        assert_eq!(limit(&all, vec![image.clone()]), 1, "{image:?}");
    }
    // What rules let go of some day does not stay, but for the newest.
    let old = |day: i64| {
        let mut image = owned("p", "old");
        let slot = "2026-11-20T02:00:00Z".parse::<Timestamp>().unwrap()
            - jiff::SignedDuration::from_hours(24 * day);
        let key = stillframe::name::Key {
            slot: stillframe::name::Slot::at(slot),
            ..match image.ownership() {
                stillframe::name::Ownership::Ours(key) => key,
                _ => unreachable!(),
            }
        };
        image.labels = key.labels().into_iter().collect();
        image.id = format!("old-{day}");
        image
    };
    let said = |gone: &str| {
        let text = all
            .replace("retention:", &format!("lifecycle: {{onSourceGone: {gone}}}\n  retention:"));
        let config = CONFIG;
        let seen = taking(Some(8), None, inventory(host(), (0..3).map(old).collect()));
        over_with(config, &text, &seen).len()
    };
    assert_eq!((said("keep"), said("rules")), (1, 0));
}

#[test]
fn disks_that_an_image_cannot_hold() {
    let of = |capture: &str, seen: &Inventory| {
        over(&policy("p", &format!("{PLAIN}  capture: {{{capture}}}\n")), seen)
    };
    let at = |text: &str| vec![("beyond-image-limit", text.to_owned())];
    let mut seen =
        inventory(vec![instance("web-1", &[], 2), instance("web-2", &[], 1)], Vec::new());
    let disks: Vec<String> =
        seen.engines[0].instances[0].disks.iter().map(|disk| disk.name.clone()).collect();
    seen.engines[0].capabilities.limits.images.clear();
    assert_eq!(of("kind: disk-image", &seen), []);
    seen.engines[0].capabilities.one_disk_kinds = vec![ImageKind::DiskImage];
    assert_eq!(of("kind: disk-image", &seen), at("disk-image"));
    assert_eq!(of("kind: disk-image, disks: all", &seen), at("all"));
    assert_eq!(of("kind: disk-image, disks: boot", &seen), []);
    assert_eq!(of("kind: snapshot", &seen), []);
    seen.engines[0].capabilities.boot_disk_kinds = vec![ImageKind::Snapshot];
    let data = &disks[1];
    assert_eq!(of(&format!("kind: snapshot, disks: [{data}]"), &seen), at("disks"));
    assert_eq!(of("kind: snapshot, disks: boot", &seen), []);
    // What takes no disk at all is another matter.
    assert_eq!(of("kind: snapshot, disks: [nothing]", &seen), []);
}

#[test]
fn disks_under_another_key_than_their_images_are_to_have() {
    let text = policy("p", &format!("{PLAIN}  encryption: {{kmsKey: abc}}\n"));
    let boot = text.replace("  encryption", "  capture: {disks: boot}\n  encryption");
    let mut seen = inventory(vec![instance("web-1", &[], 2)], Vec::new());
    assert_eq!(over(&text, &seen), []);
    seen.engines[0].capabilities.key = stillframe::inventory::KeyChoice::Inherited;
    let other = [("other-key", "abc".to_owned())];
    assert_eq!(over(&text, &seen), other);
    let disks = &mut seen.engines[0].instances[0].disks;
    disks[0].kms_key = Some("abc".to_owned());
    disks[1].kms_key = Some("xyz".to_owned());
    assert_eq!((over(&text, &seen), over(&boot, &seen)), (other.to_vec(), Vec::new()));
    seen.engines[0].instances[0].disks[1].kms_key = Some("abc".to_owned());
    assert_eq!(over(&text, &seen), []);
    // Nobody knows the key of a disk that was not looked at.
    let disk = &mut seen.engines[0].instances[0].disks[1];
    (disk.kms_key, disk.size_bytes) = (None, None);
    assert_eq!(over(&text, &seen), []);
}

#[test]
fn families_of_several_sources() {
    let two = inventory(vec![instance("web-1", &[], 1), instance("web-2", &[], 1)], Vec::new());
    let of = |source: &str| {
        selecting(
            "p",
            &format!("match: [{{names: [\"{source}\"]}}]"),
            "  capture: {kind: disk-image, family: web}\n",
        )
    };
    assert_eq!(over(&of("web-*"), &two), [("family-of-several", "web".to_owned())]);
    assert_eq!(over(&of("web-1"), &two), []);
}

#[test]
fn entries_that_have_done_their_work() {
    let hosts = || vec![instance("web-1", &[], 1)];
    let held = |hold: &str| policy("p", &format!("{PLAIN}  hold: [{hold}]\n"));
    let one = inventory(hosts(), vec![owned("p", "web-1")]);
    let holds = "{sources: web-1, reason: x}";
    assert_eq!(over(&held(holds), &one), []);
    let nothing = "{sources: wbe-1, reason: x}";
    assert_eq!(over(&held(nothing), &one), [("holds-nothing", nothing.to_owned())]);
    assert_eq!(over(&held("{sources: wbe-1, until: 2026-11-01, reason: x}"), &one), []);
    assert_eq!(over(&held(nothing), &inventory(hosts(), Vec::new())), []);
    assert_eq!(over(&held("{from: 2026-12-01, reason: x}"), &one), []);
    let mut partly = one.clone();
    partly.engines[0].gaps =
        vec![Gap { scope: GapScope::Images, place: String::new(), message: String::new() }];
    assert_eq!(over(&held(nothing), &partly), []);

    let config = format!(
        "{CONFIG}  moved: [{{from: old, to: p}}]\n  removed: [{{policy: gone, reason: x}}]\n"
    );
    let said = |inventory: &Inventory| over_with(&config, &policy("p", PLAIN), inventory);
    let both = vec![owned("old", "web-1"), owned("gone", "web-1")];
    assert_eq!(said(&inventory(hosts(), both)), []);
    let done = [("move-is-done", "old".to_owned()), ("move-is-done", "gone".to_owned())];
    assert_eq!(said(&one), done);
    assert_eq!(said(&partly), []);
    assert_eq!(said(&inventory(hosts(), Vec::new())), []);
}

/// All warnings of the lint, each as people see it.
#[test]
fn every_warning_as_it_is_shown() {
    let read =
        |name: &str| std::fs::read_to_string(project().join("tests/data/lint").join(name)).unwrap();
    let (config, text) = (read("stillframe.yaml"), read("policies.yaml"));
    let files = [("policies.yaml", text.as_str()), ("stillframe.yaml", config.as_str())];
    let loaded = load_all(&files);
    let mut found = loaded.findings;
    let policies = loaded.policies.unwrap();
    let hosts =
        vec![instance("web-1", &[], 1), instance("web-2", &[], 3), instance("db-1", &[], 1)];
    let mut seen = inventory(hosts, vec![owned("nightly", "web-1")]);
    seen.engines[0].capabilities.key = stillframe::inventory::KeyChoice::Inherited;
    found.extend(lint::in_round(&policies, &seen, now()));
    let shown: std::collections::BTreeSet<Code> =
        found.iter().map(|finding| finding.code).collect();
    let looked_for = Code::ALL
        .iter()
        .filter(|code| code.needs_inventory() || code.needs_clock() || code.needs_soundness());
    let missing: Vec<&str> =
        looked_for.filter(|code| !shown.contains(code)).map(|code| code.word()).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(found.iter().all(|finding| !finding.is_error()), "{found:#?}");
    let text = anstream::adapter::strip_str(&findings::text(&found)).to_string();
    golden("lints.txt", &text);
}

/// The page of the book about findings has every code with its line.
#[test]
fn the_book_lists_every_code() {
    let path = project().join("src/doc/findings.md");
    let book = std::fs::read_to_string(&path).unwrap();
    let begin = "<!-- made from the codes: BLESS=1 cargo nextest run lints:: -->\n";
    let (head, _) = book.split_once(begin).unwrap();
    let mut table = String::new();
    for (severity, title) in [(Severity::Error, "Errors"), (Severity::Warning, "Warnings")] {
        let _ = write!(table, "\n## {title}\n\n| code | what |\n|--|--|\n");
        for code in Code::ALL.iter().filter(|code| code.severity() == severity) {
            let looks = if code.needs_inventory() {
                " (over what the engines hold)"
            } else if code.needs_clock() {
                " (by the clock)"
            } else {
                ""
            };
            let _ = writeln!(table, "| `{}` | {}{looks} |", code.word(), code.title());
        }
    }
    let whole = format!("{head}{begin}{table}");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, whole).unwrap();
        return;
    }
    assert_eq!(book, whole, "write it with BLESS=1");
}

#[test]
fn every_code_has_a_page() {
    for code in Code::ALL {
        assert!(code.title().ends_with('.') && !code.title().contains('\n'), "{code}");
        assert!(code.page().ends_with('.') && code.page().len() > 20, "{code}");
        assert_ne!(code.page(), code.title(), "{code}");
    }
}

/// Warnings through the program: over a document, over the engines, in a plan, and denied.
#[test]
fn the_program_shows_and_denies_warnings() {
    let datacenter = Datacenter::new();
    let inventory = datacenter.run_to(0, &["inventory", "--json"]).out;
    std::fs::write(datacenter.path("inventory.json"), inventory).unwrap();
    // The examples are without fault.
    let observed: &[&str] = &["validate", "--observe", "--deny", "warnings", "--now", NOW];
    let offline: &[&str] = &["validate", "--inventory", "inventory.json", "--now", NOW];
    datacenter.run_to(0, observed);
    datacenter.run_to(0, offline);
    datacenter.edit("policies/web.yaml", |text| {
        text.replace("env: production", "env: prod")
            + "  retention: {days: 30, last: 5}\n  paused: {creates: true, until: 2026-11-01}\n"
    });
    let denied = |code: &'static str| vec!["validate", "--now", NOW, "--deny", code];
    golden(
        "lint-runs.txt",
        &transcript(
            &datacenter,
            &[
                observed,
                offline,
                &denied("useless-rule"),
                &denied("matches-nothing"),
                &denied("usless-rule"),
                &denied("bad-cron"),
                &["plan", "--inventory", "inventory.json", "--now", NOW],
                &["apply", "--dry-run", "--now", NOW],
                &["explain", "useless-rule"],
            ],
        ),
    );
    let json = datacenter.json(3, &denied("warnings"));
    assert_eq!(json["denied"], 2);
    assert_eq!(json["findings"][0]["policy"], "web-nightly");
    let sarif = datacenter.run_to(0, &["validate", "--now", NOW, "--format", "sarif"]).out;
    let sarif: serde_json::Value = serde_json::from_str(&sarif).unwrap();
    assert_eq!(sarif["runs"][0]["results"][0]["properties"]["policy"], "web-nightly");
}
