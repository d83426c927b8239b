//! The policy language in its full depth: what is read, what is refused, and what plans make of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use stillframe::clock::FixedClock;
use stillframe::inventory::{
    Capabilities, Consistency, DrillCheck, Grant, Image, ImageKind, ImageState, Inventory,
    KeyChoice, LABEL_COPY, LABEL_DRILLED, LABEL_DRILLED_BEFORE, LABEL_MISSING, LABEL_REMOVED,
    LocationChoice, OWN_LABELS, QuotaUnit, RecordPlace,
};
use stillframe::name::{Key, Ownership, PolicyName, Slot, SourceId, stamp};
use stillframe::plan::check::check;
use stillframe::plan::guard::{guard, withheld};
use stillframe::plan::{Action, Change, Plan, ReasonCode, in_both, plan};
use stillframe::policy::meant::{LeasePlace, Origin};
use stillframe::policy::{EngineKind, Loaded, Policies, Reading, SourceFile, load_with};

use stillframe::simulate::expense::budget;
use stillframe::simulate::steady::steady_state;

use super::guards::{ago, inventory, now};
use super::memory;

fn capable(_: &serde_json::Value) -> Capabilities {
    Capabilities {
        copies: true,
        families: true,
        sharing: true,
        drills: vec![DrillCheck::Verify, DrillCheck::Restore],
        ..Capabilities::default()
    }
}

fn incapable(_: &serde_json::Value) -> Capabilities {
    Capabilities::default()
}

fn read(
    text: &str,
    environment: Option<&str>,
    capabilities: fn(&serde_json::Value) -> Capabilities,
) -> Loaded {
    let kind = |name| EngineKind {
        check: |_| Vec::new(),
        name,
        settings_schema: serde_json::json!({"type": "object"}),
        capabilities,
    };
    let file = SourceFile { path: "all.yaml".to_owned(), text: text.to_owned() };
    let reading = Reading { environment, origins: true, ..Reading::default() };
    load_with(vec![Arc::new(file)], &[kind("memory"), kind("other")], reading)
}

/// A configuration and the policy `nightly`, with more in the `spec` of each.
fn document(config: &str, policy: &str) -> String {
    format!(
        "apiVersion: stillframe/v1\nkind: Config\nspec:\n  engines: {{memory: {{memory: {{}}}}}}\n{config}---\n\
         apiVersion: stillframe/v1\nkind: BackupPolicy\nmetadata: {{name: nightly}}\nspec:\n  \
         source: {{match: [{{names: [\"web-*\"]}}]}}\n{policy}"
    )
}

const AT_TWO: &str = "  schedule: {cron: \"0 2 * * *\"}\n";

fn policies(config: &str, policy: &str) -> Policies {
    let loaded = read(&document(config, policy), None, capable);
    loaded.policies.unwrap_or_else(|| panic!("{:#?}", loaded.findings))
}

/// Code and underlined text of every finding.
fn findings(config: &str, policy: &str) -> Vec<(String, String)> {
    codes(&read(&document(config, policy), None, capable))
}

fn codes(loaded: &Loaded) -> Vec<(String, String)> {
    loaded
        .findings
        .iter()
        .filter(|finding| finding.code.word() != "keeps-everything")
        .map(|finding| {
            let place = finding.place.as_ref();
            let text = place.map(|place| place.file.text[place.span.clone()].to_owned());
            (finding.code.word().to_owned(), text.unwrap_or_default())
        })
        .collect()
}

#[track_caller]
fn finds(config: &str, policy: &str, wanted: &[(&str, &str)]) {
    let found = findings(config, policy);
    let found: Vec<(&str, &str)> =
        found.iter().map(|(code, text)| (code.as_str(), text.as_str())).collect();
    assert_eq!(found, wanted);
}

/// An image of the night so many days ago.
fn night(policy: &str, days: i64) -> Image {
    let key = Key {
        policy: PolicyName::parse(policy).unwrap(),
        source: SourceId::parse("web-1").unwrap(),
        slot: Slot::at(ago(days) - SignedDuration::from_hours(10)),
    };
    memory::image(&format!("{policy}-{days}"), &key)
}

fn copy(policy: &str, days: i64, location: &str) -> Image {
    let mut image = night(policy, days);
    let Ownership::Ours(key) = image.ownership() else { panic!() };
    image.id = format!("copy-{}", image.id);
    image.name = key.copy_name(&key.default_prefix(), location);
    location.clone_into(&mut image.location);
    image.labels.insert(LABEL_COPY.to_owned(), "yes".to_owned());
    image
}

fn let_go(mut image: Image, days: i64) -> Image {
    image.labels.insert("stillframe-let-go".to_owned(), stamp(ago(days)));
    // It was there by then.
    image.created_at = image.created_at.min(ago(days));
    image.stage = stillframe::inventory::Stage::Deprecated;
    image
}

/// Only the source `web-1`, on an engine that can do everything.
fn world(images: Vec<Image>) -> Inventory {
    let mut inventory = inventory(images);
    inventory.engines[0].capabilities = capable(&serde_json::Value::Null);
    inventory.engines[0].instances.truncate(1);
    inventory
}

fn ids(plan: &Plan, action: Action) -> Vec<&str> {
    of(plan, action).into_iter().filter_map(|change| change.image.id.as_deref()).collect()
}

fn of(plan: &Plan, action: Action) -> Vec<&Change> {
    plan.changes.iter().filter(|change| change.action == action).collect()
}

fn held_back(plan: &Plan) -> Vec<(&str, ReasonCode)> {
    let held = plan.held_back.iter();
    held.map(|held| (held.image.id.as_deref().unwrap(), held.reasons[0].code)).collect()
}

fn nothing_withheld(policies: &Policies, inventory: &Inventory, plan: &Plan, now: Timestamp) {
    let refusals = guard(plan, inventory, policies, &[], now);
    assert!(withheld(&refusals).is_empty(), "{refusals:?}");
}

#[test]
fn expressions_are_united_and_each_slot_is_one() {
    let policies =
        policies("", "  schedule: {cron: [\"0 2 * * *\", \"0 */12 * * *\", \"0 2 21 11 *\"]}\n");
    let schedule = &policies.policies[0].schedule;
    let slots: Vec<String> = schedule
        .slots(ago(0) - SignedDuration::from_hours(12), ago(-1))
        .map(|slot| slot.to_string())
        .collect();
    let wanted = [
        "20261121t000000z",
        "20261121t020000z",
        "20261121t120000z",
        "20261122t000000z",
        "20261122t020000z",
    ];
    assert_eq!(slots, wanted);
    assert_eq!(schedule.text(), "0 2 * * *; 0 */12 * * *; 0 2 21 11 *");
    finds("", "  schedule: {cron: [\"0 2 * * *\", \"0 25 * * *\"]}\n", &[("bad-cron", "25")]);
    finds(
        "",
        "  schedule: {cron: [\"0 2 * * *\", \"0 2 * * *\"]}\n",
        &[("bad-cron", "\"0 2 * * *\"")],
    );
}

#[test]
fn a_window_delays_what_its_deadline_allows_and_drops_the_rest() {
    // Every night from 01:00 to 04:00 in Berlin, which is 00:00 to 03:00 in UTC.
    let window = "  blackouts: [{cron: \"0 1 * * *\", duration: 3h, timeZone: Europe/Berlin, reason: batch}]\n";
    let policies = policies("", &format!("{AT_TWO}{window}"));
    let at = |text: &str| -> Timestamp { text.parse().unwrap() };
    let creates = |time: &str| {
        of(&plan(&policies, &world(vec![night("nightly", 1)]), at(time)), Action::Create).len()
    };
    assert_eq!(creates("2026-11-21T02:00:00Z"), 0);
    assert_eq!(creates("2026-11-21T02:59:59Z"), 0);
    assert_eq!(creates("2026-11-21T03:00:00Z"), 1);
    let during = plan(&policies, &world(vec![night("nightly", 1)]), at("2026-11-21T02:30:00Z"));
    let paused = during.schedules[0].paused.as_deref().unwrap();
    assert_eq!(paused, "creates blacked out until 2026-11-21 03:00Z: batch");
    // With a deadline inside the window there is no such slot, so none is missed either.
    let short = super::language::policies(
        "",
        &format!("  schedule: {{cron: \"0 2 * * *\", deadline: 30m}}\n{window}"),
    );
    let after = plan(&short, &world(vec![night("nightly", 3)]), now());
    assert_eq!((after.summary.create, after.summary.missed), (0, 0));
}

#[test]
fn a_freeze_is_neither_missed_nor_let_go() {
    let freeze = "  blackouts: [{from: 2026-11-15, until: 2026-11-21T10:00:00Z, deletes: true, reason: \"year end\"}]\n";
    for (config, policy) in [
        ("", format!("{AT_TWO}  retention: {{last: 2}}\n{freeze}")),
        (freeze, format!("{AT_TWO}  retention: {{last: 2}}\n")),
    ] {
        let policies = policies(config, &policy);
        let images: Vec<Image> = (6..12).map(|day| night("nightly", day)).collect();
        let inside = now() - SignedDuration::from_hours(24);
        let frozen = plan(&policies, &world(images.clone()), inside);
        assert!(frozen.changes.is_empty(), "{:#?}", frozen.changes);
        assert!(held_back(&frozen).iter().all(|(_, code)| *code == ReasonCode::Blackout));
        assert_eq!(held_back(&frozen).len(), 4);
        // The slot of today began inside; its deadline reaches beyond.
        let after = plan(&policies, &world(images), now());
        assert_eq!((after.summary.create, after.summary.missed), (1, 0));
    }
}

#[test]
fn blackouts_that_say_nothing_are_refused() {
    let with = |blackout: &str| format!("{AT_TWO}  blackouts: [{blackout}]\n");
    finds("", &with("{reason: x}"), &[("bad-blackout", "{reason: x}")]);
    finds(
        "",
        &with("{cron: \"0 1 * * *\", reason: x}"),
        &[("missing-key", "{cron: \"0 1 * * *\", reason: x}")],
    );
    finds("", &with("{cron: \"0 1 * * *\", duration: 0, reason: x}"), &[("bad-blackout", "0")]);
    finds(
        "",
        &with("{from: 2026-12-01, until: 2026-11-01, reason: x}"),
        &[("bad-blackout", "2026-11-01")],
    );
    finds(
        "",
        &with("{from: 2026-12-01, until: 2026-12-02, creates: false, reason: x}"),
        &[("bad-blackout", "{from: 2026-12-01, until: 2026-12-02, creates: false, reason: x}")],
    );
    finds(
        "",
        &with("{from: 2026-12-01, until: 2026-12-02, timeZone: Berlin, reason: x}"),
        &[("bad-time-zone", "Berlin")],
    );
    finds(
        "",
        &with("{from: 2026-12-01, until: 2026-12-02}"),
        &[("missing-key", "{from: 2026-12-01, until: 2026-12-02}")],
    );
}

#[test]
fn a_hold_of_the_policy_keeps_and_takes_no_place() {
    let hold = |until: &str| {
        format!(
            "{AT_TWO}  retention: {{last: 2}}\n  lifecycle: {{grace: 0}}\n  hold: [{{sources: [\"web-*\"], from: 2026-11-11, before: 2026-11-13, until: {until}, reason: case 4711}}]\n"
        )
    };
    let images: Vec<Image> =
        (0..12).map(|day| let_go(night("nightly", day), if day < 3 { -1 } else { 3 })).collect();
    let plan_now = plan(&policies("", &hold("2027-01-01")), &world(images.clone()), now());
    let deleted = ids(&plan_now, Action::Delete);
    assert!(!deleted.contains(&"nightly-10") && !deleted.contains(&"nightly-9"), "{deleted:?}");
    assert!(deleted.contains(&"nightly-8") && deleted.contains(&"nightly-11"), "{deleted:?}");
    let back = of(&plan_now, Action::Reactivate);
    assert!(
        back.iter().any(|change| change.reasons[0].detail.contains("held: case 4711")),
        "{back:#?}"
    );
    // Two more are kept by the rule: the held ones take no place.
    let kept: Vec<&str> = plan_now.kept.iter().map(|kept| kept.id.as_str()).collect();
    let stays = |id: &str| {
        kept.contains(&id) || back.iter().any(|change| change.image.id.as_deref() == Some(id))
    };
    assert!(stays("nightly-0") && stays("nightly-1"));
    // A hold that has ended holds nothing.
    let ended = policies("", &hold("2026-11-20"));
    let ended = plan(&ended, &world(images.clone()), now());
    assert!(ids(&ended, Action::Delete).contains(&"nightly-10"));
    // A planner that does not know of the hold is refused.
    let knows = policies("", &hold("2027-01-01"));
    let refusals = guard(&ended, &world(images), &knows, &[], now());
    let refused = withheld(&refusals);
    assert!(refused.contains(&("memory", "nightly-10")), "{refusals:?}");
}

#[test]
fn a_renamed_policy_keeps_its_series() {
    let moved = "  moved: [{from: oldest, to: old}, {from: old, to: nightly}]\n";
    let spec = format!("{AT_TWO}  retention: {{last: 4}}\n  lifecycle: {{grace: 1d}}\n");
    let policies = policies(moved, &spec);
    let images: Vec<Image> = (0..3)
        .map(|day| night("old", day))
        .chain((3..6).map(|day| let_go(night("oldest", day), 3)))
        .collect();
    let plan = plan(&policies, &world(images.clone()), now());
    // The slot of today has its point, under its old name.
    assert_eq!(plan.summary.create, 0);
    assert!(plan.orphans.is_empty());
    assert_eq!(ids(&plan, Action::Delete), ["oldest-5", "oldest-4"]);
    assert_eq!(ids(&plan, Action::Reactivate), ["oldest-3"]);
    nothing_withheld(&policies, &world(images.clone()), &plan, now());
    // Without the entry they are nobody's.
    let without = super::language::policies("", &spec);
    let plan = stillframe::plan::plan(&without, &world(images), now());
    assert_eq!((plan.orphans.len(), plan.summary.delete, plan.summary.create), (2, 0, 1));
}

#[test]
fn an_attempt_under_a_former_name_makes_no_room() {
    let moved = "  moved: [{from: old, to: nightly}]\n";
    let policies = policies(moved, &format!("{AT_TWO}  retention: {{last: 4}}\n"));
    let mut failed = night("old", 0);
    failed.state = ImageState::Failed;
    let inventory = world(vec![failed, night("old", 1)]);
    let plan = plan(&policies, &inventory, now());
    let create = of(&plan, Action::Create)[0].create.as_ref().unwrap();
    assert_eq!(create.replaces, None);
    nothing_withheld(&policies, &inventory, &plan, now());
}

#[test]
fn a_failed_copy_under_another_name_makes_no_room() {
    let moved = "  moved: [{from: old, to: nightly}]\n";
    let spec = format!("{AT_TWO}  retention: {{last: 4}}\n  storage: {{copies: [vault]}}\n");
    let policies = policies(moved, &spec);
    let mut failed = copy("nightly", 1, "vault");
    failed.state = ImageState::Failed;
    let inventory = world(vec![night("nightly", 0), night("old", 1), failed]);
    let plan = plan(&policies, &inventory, now());
    let copies = of(&plan, Action::Copy);
    assert_eq!(copies.len(), 2);
    assert!(copies.iter().all(|change| change.copy.as_ref().unwrap().replaces.is_none()));
    nothing_withheld(&policies, &inventory, &plan, now());
}

#[test]
fn moves_lead_somewhere() {
    finds("  moved: [{from: a, to: b}]\n", AT_TWO, &[("bad-move", "b")]);
    finds(
        "  moved: [{from: nightly, to: b}]\n",
        AT_TWO,
        &[("bad-move", "nightly"), ("bad-move", "b")],
    );
    finds(
        "  moved: [{from: a, to: b}, {from: b, to: a}]\n",
        AT_TWO,
        &[("bad-move", "b"), ("bad-move", "a")],
    );
    finds(
        "  moved: [{from: a, to: nightly}, {from: a, to: nightly}]\n",
        AT_TWO,
        &[("bad-move", "a")],
    );
    finds(
        "  moved: [{from: a, to: nightly}]\n  removed: [{policy: a, reason: x}]\n",
        AT_TWO,
        &[("bad-move", "a")],
    );
    finds("  moved: [{from: A, to: nightly}]\n", AT_TWO, &[("bad-name", "A")]);
    finds("  removed: [{policy: nightly, reason: x}]\n", AT_TWO, &[("bad-move", "nightly")]);
    finds(
        "  removed: [{policy: a, images: rules, reason: x}]\n",
        AT_TWO,
        &[("bad-removal", "rules")],
    );
    finds(
        "  removed: [{policy: a, engine: memry, reason: x}]\n",
        AT_TWO,
        &[("unknown-engine", "memry")],
    );
}

#[test]
fn what_becomes_of_a_removed_policy_is_said() {
    let marked = |mut images: Vec<Image>| {
        images[0].labels.insert(LABEL_REMOVED.to_owned(), stamp(ago(20)));
        images
    };
    let images = || -> Vec<Image> { (0..8).map(|day| let_go(night("gone", day), 3)).collect() };
    let planned = |entry: &str, images: Vec<Image>| {
        let policies = policies(
            &format!("  removed: [{{policy: gone, reason: \"moved away\"{entry}}}]\n"),
            AT_TWO,
        );
        let inventory = world(images);
        let plan = plan(&policies, &inventory, now());
        nothing_withheld(&policies, &inventory, &plan, now());
        plan
    };
    // Kept, and no orphans any more.
    let kept = planned("", marked(images()));
    assert!(
        kept.orphans.is_empty() && ids(&kept, Action::Delete).is_empty(),
        "{:#?}",
        kept.changes
    );
    // Expiring begins with a mark, waits, and leaves the newest.
    let first = planned(", images: expire", images());
    assert_eq!(ids(&first, Action::Relabel), ["gone-0"]);
    let change = of(&first, Action::Relabel)[0];
    assert_eq!(change.reasons[0].code, ReasonCode::PolicyRemoved);
    assert!(change.reasons[0].detail.contains("moved away"));
    assert!(ids(&first, Action::Delete).is_empty());
    let later = planned(", images: expire", marked(images()));
    assert_eq!(ids(&later, Action::Delete).len(), 7);
    assert!(!ids(&later, Action::Delete).contains(&"gone-0"));
    let longer = planned(", images: expire, grace: 30d", marked(images()));
    assert!(ids(&longer, Action::Delete).is_empty());
    let rules = planned(", images: rules, retention: {last: 3, atLeast: 2}", marked(images()));
    assert_eq!(ids(&rules, Action::Delete).len(), 5);
}

#[test]
fn a_source_that_was_gone_before_its_policy_waits_for_the_grace_of_the_removal() {
    let gone = "  removed: [{policy: gone, images: expire, grace: 30d, reason: x}]\n";
    let policies_without = policies(gone, AT_TWO);
    let mut images: Vec<Image> = (0..8).map(|day| let_go(night("gone", day), 3)).collect();
    images[0].labels.insert(LABEL_MISSING.to_owned(), stamp(ago(99)));
    let inventory = world(images);
    let made = plan(&policies_without, &inventory, now());
    nothing_withheld(&policies_without, &inventory, &made, now());
    assert!(ids(&made, Action::Delete).is_empty() && ids(&made, Action::Deprecate).is_empty());
    let change = of(&made, Action::Relabel)[0].update.clone().unwrap();
    assert_eq!(change.remove_labels, [LABEL_MISSING]);
    assert_eq!(change.set_labels.get(LABEL_REMOVED), Some(&stamp(now())));
    // And the other way round, where the policy is back and does not select the source any more.
    let back = AT_TWO.to_owned() + "  lifecycle: {onSourceGone: expire}\n";
    let policies_with = policies("", &back);
    let mut images: Vec<Image> = (0..8).map(|day| let_go(night("nightly", day), 3)).collect();
    images[0].labels.insert(LABEL_REMOVED.to_owned(), stamp(ago(99)));
    let mut inventory = world(images);
    inventory.engines[0].instances.clear();
    let made = plan(&policies_with, &inventory, now());
    nothing_withheld(&policies_with, &inventory, &made, now());
    assert!(ids(&made, Action::Delete).is_empty());
    let change = of(&made, Action::Relabel)[0];
    assert!(change.reasons.iter().any(|reason| reason.code == ReasonCode::PolicyBack));
    assert_eq!(change.update.as_ref().unwrap().remove_labels, [LABEL_REMOVED]);
}

#[test]
fn blackouts_hold_for_removed_policies_too() {
    let freeze = "  blackouts: [{from: 2026-11-20, until: 2026-11-25, deletes: true, reason: x}]\n";
    let removed = "  removed: [{policy: gone, images: expire, grace: 1d, reason: x}]\n";
    let mut images: Vec<Image> = (0..8).map(|day| let_go(night("gone", day), 3)).collect();
    images[0].labels.insert(LABEL_REMOVED.to_owned(), stamp(ago(20)));
    let deletes = |config: &str| {
        plan(&policies(config, AT_TWO), &world(images.clone()), now()).summary.delete
    };
    assert_eq!(deletes(removed), 7);
    assert_eq!(deletes(&format!("{freeze}{removed}")), 0);
}

#[test]
fn a_mark_is_written_and_taken_away_whatever_else_is_done() {
    let copied = format!("{AT_TWO}  retention: {{last: 4}}\n  storage: {{copies: [vault]}}\n");
    let policies_copied = policies("", &copied);
    // The source is back, and a copy is made of the image that is marked.
    let mut marked = night("nightly", 0);
    marked.labels.insert(LABEL_MISSING.to_owned(), stamp(ago(9)));
    let inventory = world(vec![marked]);
    let made = plan(&policies_copied, &inventory, now());
    nothing_withheld(&policies_copied, &inventory, &made, now());
    assert_eq!(ids(&made, Action::Copy), ["nightly-0"]);
    assert_eq!(ids(&made, Action::Relabel), ["nightly-0"]);
    // It is gone, and a copy is made.
    let mut inventory = world(vec![night("nightly", 0)]);
    inventory.engines[0].instances.clear();
    let made = plan(&policies_copied, &inventory, now());
    nothing_withheld(&policies_copied, &inventory, &made, now());
    assert_eq!(ids(&made, Action::Relabel), ["nightly-0"]);
    // The source is back, and the marked image would be let go for the one that is coming.
    let policies_one = policies("", &format!("{AT_TWO}  retention: {{last: 1}}\n"));
    let mut marked = night("nightly", 1);
    marked.labels.insert(LABEL_MISSING.to_owned(), stamp(ago(9)));
    let inventory = world(vec![marked]);
    let made = plan(&policies_one, &inventory, now());
    nothing_withheld(&policies_one, &inventory, &made, now());
    // It goes with the deprecation, or by itself where the capture fails.
    let coming = &of(&made, Action::Create)[0].image.name;
    let (let_go, back) = (of(&made, Action::Deprecate)[0], of(&made, Action::Relabel)[0]);
    for change in [let_go, back] {
        assert_eq!(change.image.id.as_deref(), Some("nightly-1"));
        assert_eq!(change.update.as_ref().unwrap().remove_labels, [LABEL_MISSING]);
    }
    assert_eq!((let_go.waits_for.as_ref(), let_go.unless.as_ref()), (Some(coming), None));
    assert_eq!((back.waits_for.as_ref(), back.unless.as_ref()), (None, Some(coming)));
    assert_eq!(back.reasons[1].detail, format!("only if {coming} does not become READY"));
    assert_eq!((made.summary.create, made.changes.len()), (1, 3));
}

#[test]
fn a_mark_goes_with_the_newest() {
    let spec = format!("{AT_TWO}  lifecycle: {{onSourceGone: expire}}\n");
    let policies = policies("", &spec);
    let mut before = night("nightly", 1);
    before.labels.insert(LABEL_MISSING.to_owned(), stamp(ago(9)));
    let mut inventory = world(vec![night("nightly", 0), before]);
    inventory.engines[0].instances.clear();
    let made = plan(&policies, &inventory, now());
    nothing_withheld(&policies, &inventory, &made, now());
    let change = of(&made, Action::Relabel)[0];
    assert_eq!(change.image.id.as_deref(), Some("nightly-0"));
    assert_eq!(change.update.as_ref().unwrap().set_labels[LABEL_MISSING], stamp(ago(9)));
}

#[test]
fn a_stall_is_not_forgotten_in_a_long_blackout() {
    let freeze = "  blackouts: [{from: 2026-11-18, until: 2026-11-25, creates: true, reason: x}]\n";
    let spec =
        "  schedule: {cron: \"*/5 * * * *\"}\n  retention: {days: 1}\n  lifecycle: {grace: 1d}\n";
    let policies = policies(freeze, spec);
    let images = (10..14).map(|day| let_go(night("nightly", day), 3)).collect();
    let inventory = world(images);
    let made = plan(&policies, &inventory, now());
    nothing_withheld(&policies, &inventory, &made, now());
    assert_eq!(made.summary.delete, 0);
    assert!(held_back(&made).iter().all(|(_, code)| *code == ReasonCode::Stalled));
    assert!(!held_back(&made).is_empty());
}

#[test]
fn originals_that_lie_where_copies_go_are_not_kept_for_their_copies() {
    let spec = format!(
        "{AT_TWO}  storage: {{location: main, copies: [vault]}}\n  lifecycle: {{onSourceGone: expire, sourceGoneGrace: 1d, grace: 1d}}\n"
    );
    let policies = policies("", &spec);
    let mut images: Vec<Image> = (0..3).map(|day| let_go(night("nightly", day), 3)).collect();
    for image in &mut images {
        "vault".clone_into(&mut image.location);
    }
    images[0].labels.insert(LABEL_MISSING.to_owned(), stamp(ago(20)));
    let mut inventory = world(images);
    inventory.engines[0].instances.clear();
    let made = plan(&policies, &inventory, now());
    nothing_withheld(&policies, &inventory, &made, now());
    assert_eq!(ids(&made, Action::Delete), ["nightly-2", "nightly-1"]);
}

#[test]
fn a_drill_is_remembered_when_the_one_that_was_drilled_goes() {
    let spec = format!("{AT_TWO}  retention: {{last: 2}}\n  drill: {{cron: \"0 6 1 * *\"}}\n");
    let policies = policies("", &spec);
    let mut drilled = night("nightly", 2);
    drilled.labels.insert(LABEL_DRILLED.to_owned(), stamp(ago(19)));
    let images = vec![night("nightly", 0), night("nightly", 1), drilled, night("nightly", 30)];
    let made = plan(&policies, &world(images.clone()), now());
    nothing_withheld(&policies, &world(images), &made, now());
    let change = of(&made, Action::Relabel)[0];
    assert_eq!(change.image.id.as_deref(), Some("nightly-0"));
    assert_eq!(change.update.as_ref().unwrap().set_labels[LABEL_DRILLED_BEFORE], stamp(ago(19)));
    // What the newest knows counts as much.
    let mut newest = night("nightly", 0);
    newest.labels.insert(LABEL_DRILLED_BEFORE.to_owned(), stamp(ago(19)));
    let images = vec![newest, night("nightly", 1), night("nightly", 30)];
    let made = plan(&policies, &world(images), now());
    assert_eq!((made.summary.drill, ids(&made, Action::Relabel)), (0, Vec::new()));
}

#[test]
fn many_files_are_read_as_few_are() {
    let file = |path: String, text: String| Arc::new(SourceFile { path, text });
    let config =
        "apiVersion: stillframe/v1\nkind: Config\nspec: {engines: {memory: {memory: {}}}}\n";
    let policy = |number: usize| {
        let wrong = if number % 7 == 3 { "  retention: {lats: 3}\n" } else { "" };
        let name = if number % 11 == 5 { 5 } else { number };
        format!(
            "apiVersion: stillframe/v1\nkind: BackupPolicy\nmetadata: {{name: p-{name}}}\nspec:\n  \
             source: {{match: [{{names: [\"web-{number}\"]}}]}}\n{AT_TWO}{wrong}"
        )
    };
    let found = |files: Vec<Arc<SourceFile>>| {
        let reading = Reading { origins: true, ..Reading::default() };
        let kind = EngineKind {
            check: |_| Vec::new(),
            name: "memory",
            settings_schema: serde_json::json!({"type": "object"}),
            capabilities: capable,
        };
        let loaded = load_with(files, &[kind], reading);
        loaded
            .findings
            .iter()
            .map(|finding| format!("{:?} {}", finding.code, finding.message))
            .collect::<Vec<_>>()
    };
    let config = file("a.yaml".to_owned(), config.to_owned());
    let each = (0..99).map(|number| file(format!("b-{number:02}.yaml"), policy(number)));
    let many = found([Arc::clone(&config)].into_iter().chain(each).collect());
    let all: Vec<String> = (0..99).map(policy).collect();
    let one = found(vec![config, file("b.yaml".to_owned(), all.join("---\n"))]);
    assert_eq!(many, one);
    assert!(many.len() > 20);
}

#[test]
fn a_source_that_is_gone_keeps_follows_the_rules_or_expires() {
    let planned = |choice: &str| {
        let spec = format!(
            "{AT_TWO}  retention: {{last: 5, atLeast: 3}}\n  lifecycle: {{grace: 1d, onSourceGone: {choice}}}\n"
        );
        let policies = policies("", &spec);
        let mut images: Vec<Image> = (30..40).map(|day| let_go(night("nightly", day), 3)).collect();
        images[0].labels.insert(LABEL_MISSING.to_owned(), stamp(ago(20)));
        let mut inventory = world(images);
        inventory.engines[0].instances.clear();
        let mut plan = plan(&policies, &inventory, now());
        plan.refusals = guard(&plan, &inventory, &policies, &[], now());
        plan
    };
    assert_eq!(ids(&planned("rules"), Action::Delete).len(), 5);
    let kept = planned("keep");
    assert_eq!(kept.summary.delete, 0);
    assert!(held_back(&kept).iter().all(|(_, code)| *code == ReasonCode::SourceGoneKept));
    assert!(!held_back(&kept).is_empty());
    let expired = planned("expire");
    assert_eq!(ids(&expired, Action::Delete).len(), 9);
    assert!(!ids(&expired, Action::Delete).contains(&"nightly-30"));
    // Below `atLeast`, but the floor of a source that expires is one.
    let floor = expired.refusals.iter().any(|refusal| refusal.guard.word() == "floor");
    assert!(!floor, "{:?}", expired.refusals);
}

#[test]
fn a_stalled_series_expires_only_where_that_is_asked_for() {
    let planned = |choice: &str| {
        let policies = policies(
            "",
            &format!(
                "{AT_TWO}  retention: {{days: 7, whenStalled: {choice}}}\n  lifecycle: {{grace: 0}}\n  capture: {{disks: [nowhere]}}\n"
            ),
        );
        let images: Vec<Image> = (5..12).map(|day| let_go(night("nightly", day), 3)).collect();
        let inventory = world(images);
        let plan = plan(&policies, &inventory, now());
        nothing_withheld(&policies, &inventory, &plan, now());
        plan
    };
    assert_eq!(planned("keep").summary.delete, 0);
    assert_eq!(planned("expire").summary.delete, 5);
    assert_eq!(planned("expire").summary.stalled, 1);
}

#[test]
fn what_a_location_would_let_go_at_once_is_not_copied() {
    let spec = format!("{AT_TWO}  retention: {{last: 2}}\n  storage: {{copies: [eu]}}\n");
    let policies = policies("", &spec);
    // The original of the copy is lost; the copy is still among the newest two there.
    let images = vec![night("nightly", 0), night("nightly", 8), copy("nightly", 1, "eu")];
    let lost = plan(&policies, &world(images), now());
    assert_eq!(ids(&lost, Action::Copy), ["nightly-0"]);
    // A hold on the original is none on its copy.
    let mut held = night("nightly", 9);
    held.labels.insert("stillframe-hold".to_owned(), "yes".to_owned());
    let images = vec![night("nightly", 0), night("nightly", 1), held];
    let held = plan(&policies, &world(images), now());
    assert_eq!(ids(&held, Action::Copy), ["nightly-1", "nightly-0"]);
}

#[test]
fn two_images_of_one_slot_are_copied_once() {
    let spec = format!("{AT_TWO}  storage: {{copies: [eu]}}\n");
    let policies = policies("", &spec);
    let mut twin = night("nightly", 0);
    twin.id = "twin".to_owned();
    twin.name = "twin".to_owned();
    let plan = plan(&policies, &world(vec![night("nightly", 0), twin]), now());
    // Without rules both stay; the one with the greater id stands for both.
    assert_eq!(ids(&plan, Action::Copy), ["twin"]);
}

#[test]
fn copies_are_made_and_originals_wait_for_them() {
    let spec = format!(
        "{AT_TWO}  retention: {{last: 3}}\n  lifecycle: {{grace: 1d}}\n  storage: {{copies: [vault]}}\n"
    );
    let policies = policies("", &spec);
    let originals = || {
        (0..5).map(
            |day| if day < 3 { night("nightly", day) } else { let_go(night("nightly", day), 3) },
        )
    };
    let bare = plan(&policies, &world(originals().collect()), now());
    let copies = of(&bare, Action::Copy);
    let sources: Vec<&str> =
        copies.iter().filter_map(|change| change.image.id.as_deref()).collect();
    assert_eq!(sources, ["nightly-2", "nightly-1", "nightly-0"]);
    let made = copies[0].copy.as_ref().unwrap();
    assert_eq!(made.location, "vault");
    assert_eq!(Key::from_labels(&made.labels), Ownership::Ours(copies[0].key.clone()));
    assert!(made.labels.contains_key(LABEL_COPY));
    assert_ne!(made.name, copies[0].image.name);
    assert_eq!(
        held_back(&bare),
        [("nightly-4", ReasonCode::CopyMissing), ("nightly-3", ReasonCode::CopyMissing)]
    );
    // A copy that is as new frees the one, a newer one both. Copies follow the same rules.
    let with = |days: &[i64]| {
        let images =
            originals().chain(days.iter().map(|day| copy("nightly", *day, "vault"))).collect();
        let inventory = world(images);
        let plan = plan(&policies, &inventory, now());
        nothing_withheld(&policies, &inventory, &plan, now());
        plan
    };
    assert_eq!(ids(&with(&[4]), Action::Delete), ["nightly-4"]);
    let all = with(&[0, 1, 2, 3]);
    assert_eq!(ids(&all, Action::Delete), ["nightly-4", "nightly-3"]);
    assert_eq!(ids(&all, Action::Deprecate), ["copy-nightly-3"]);
    assert!(of(&all, Action::Copy).is_empty());
    // A copy is no restore point of the schedule.
    let only_copy = plan(&policies, &world(vec![copy("nightly", 0, "vault")]), now());
    assert_eq!(only_copy.summary.create, 1);
}

#[test]
fn the_coming_point_is_copied_and_drilled_in_the_same_plan() {
    let spec = format!(
        "{AT_TWO}  retention: {{last: 2}}\n  storage: {{copies: [vault]}}\n  drill: {{cron: \"0 6 * * *\", check: restore}}\n"
    );
    let policies = policies("", &spec);
    let nights = || [night("nightly", 1), night("nightly", 2)];
    let copies = || [copy("nightly", 1, "vault"), copy("nightly", 2, "vault")];
    let made = plan(&policies, &world(nights().into_iter().chain(copies()).collect()), now());
    let create = of(&made, Action::Create)[0];
    let (to_vault, drilled) = (of(&made, Action::Copy)[0], of(&made, Action::Drill)[0]);
    for coming in [to_vault, drilled] {
        assert_eq!(coming.image, create.image);
        assert_eq!(coming.waits_for.as_ref(), Some(&create.image.name));
    }
    // What each of them displaces waits for it, and for nothing else.
    let copy_name = &to_vault.copy.as_ref().unwrap().name;
    let waits: Vec<(&str, &str)> = of(&made, Action::Deprecate)
        .into_iter()
        .map(|change| (change.image.id.as_deref().unwrap(), change.waits_for.as_deref().unwrap()))
        .collect();
    let mut wanted =
        [("nightly-2", create.image.name.as_str()), ("copy-nightly-2", copy_name.as_str())];
    wanted.sort_by_key(|(id, _)| waits.iter().position(|(other, _)| other == id));
    assert_eq!(waits, wanted);
    // Made by another run while a person looked at the plan, it is still what was approved.
    let images = nights().into_iter().chain(copies()).chain([night("nightly", 0)]);
    let mut inventory = world(images.collect());
    for image in &mut inventory.engines[0].images {
        image.location = if image.is_copy() { "vault" } else { &create.image.location }.to_owned();
    }
    let fresh = plan(&policies, &inventory, now());
    let (both, only_fresh) = in_both(&made, fresh.clone());
    let kinds = |changes: &[Change]| -> Vec<Action> {
        changes.iter().map(|change| change.action).collect()
    };
    assert_eq!(kinds(&both.changes)[..1], [Action::Copy], "{only_fresh:#?}");
    assert!(kinds(&both.changes).contains(&Action::Drill));
    // Where another name is in the way of the copy, nothing is let go for it.
    let mut in_the_way = night("other", 0);
    in_the_way.name.clone_from(copy_name);
    let images = nights().into_iter().chain(copies()).chain([in_the_way]);
    let blocked = plan(&policies, &world(images.collect()), now());
    assert_eq!(blocked.summary.blocked, 1);
    assert_eq!(ids(&blocked, Action::Deprecate), ["nightly-2"]);
}

#[test]
fn what_the_rules_would_let_go_at_once_is_not_copied() {
    let spec = format!("{AT_TWO}  retention: {{last: 2}}\n  storage: {{copies: [vault]}}\n");
    let reading = |spec: &str| policies("", spec);
    let policies = reading(&spec);
    let mut held = night("nightly", 5);
    held.labels.insert("stillframe-hold".to_owned(), "yes".to_owned());
    let images = || vec![night("nightly", 0), night("nightly", 1), held.clone()];
    let copied = |images: Vec<Image>, policies: &Policies| -> Vec<String> {
        let made = plan(policies, &world(images), now());
        of(&made, Action::Copy).iter().filter_map(|change| change.image.id.clone()).collect()
    };
    assert_eq!(copied(images(), &policies), ["nightly-1", "nightly-0"]);
    // A hold of the policy holds the copy too.
    let with_hold = |which: &str| format!("{spec}  hold: [{{{which}, reason: audit}}]\n");
    let by_source = reading(&with_hold("sources: web-1, before: 2026-11-17"));
    assert_eq!(copied(images(), &by_source), ["nightly-5", "nightly-1", "nightly-0"]);
    // One that holds this image by its name does not hold a copy, which has another.
    let by_name = reading(&with_hold(&format!("images: {}", held.name)));
    assert_eq!(copied(images(), &by_name), ["nightly-1", "nightly-0"]);
}

#[test]
fn what_expires_is_not_copied() {
    let lifecycle = "  lifecycle: {onSourceGone: expire, sourceGoneGrace: 1d}\n";
    let policies = policies("", &format!("{AT_TWO}{lifecycle}  storage: {{copies: [vault]}}\n"));
    // The label holds the newest and takes no place, so the one before it stays as the newest does.
    let mut newest = night("nightly", 0);
    newest.labels.insert("stillframe-hold".to_owned(), "yes".to_owned());
    let mut before = night("nightly", 1);
    before.labels.insert("stillframe-source-missing".to_owned(), stamp(ago(9)));
    let mut inventory = world(vec![newest, before]);
    inventory.engines[0].instances.clear();
    let plan = plan(&policies, &inventory, now());
    assert_eq!(ids(&plan, Action::Copy), ["nightly-0"]);
}

#[test]
fn what_an_engine_cannot_do_is_found_before_anything_is_called() {
    let spec = format!(
        "{AT_TWO}  storage: {{copies: [vault]}}\n  capture: {{kind: disk-image, family: web}}\n  \
         sharing: [{{role: reader, members: [\"group:ops\"]}}]\n  drill: {{cron: \"0 6 * * 0\", check: boot}}\n"
    );
    let found = codes(&read(&document("", &spec), None, incapable));
    let words: Vec<&str> = found.iter().map(|(code, _)| code.as_str()).collect();
    assert_eq!(words, ["missing-capability"; 4], "{found:?}");
    let family = format!("{AT_TWO}  capture: {{family: web}}\n");
    finds("", &family, &[("missing-capability", "web")]);
    let boot = format!("{AT_TWO}  drill: {{cron: \"0 6 * * 0\", check: boot}}\n");
    finds("", &boot, &[("missing-capability", "boot")]);
}

/// An engine that copies and archives some kinds only.
fn choosy(_: &serde_json::Value) -> Capabilities {
    Capabilities {
        copies: true,
        copied_kinds: vec![ImageKind::DiskImage],
        archived_kinds: vec![ImageKind::Snapshot],
        ..Capabilities::default()
    }
}

#[test]
fn what_an_engine_can_do_of_one_kind_only_is_found_for_the_others() {
    let found = |spec: &str| {
        let text = document("", &format!("{AT_TWO}{spec}"));
        codes(&read(&text, None, choosy)).into_iter().map(|(code, _)| code).collect::<Vec<_>>()
    };
    let none: [&str; 0] = [];
    assert_eq!(found("  storage: {copies: [vault]}\n"), ["missing-capability"]);
    assert_eq!(found("  storage: {copies: [vault]}\n  capture: {kind: disk-image}\n"), none);
    assert_eq!(found("  storage: {tier: archive}\n"), ["missing-capability"]);
    assert_eq!(found("  storage: {tier: standard}\n"), none);
    assert_eq!(found("  storage: {tier: archive}\n  capture: {kind: snapshot}\n"), none);
    assert_ne!(found("  storage: {tier: cold}\n"), none);
}

/// An engine that has a text instead of labels, one place, no key, and one kind that is as after a
/// power failure.
fn plain(_: &serde_json::Value) -> Capabilities {
    Capabilities {
        kinds: vec![ImageKind::DiskImage, ImageKind::Snapshot],
        consistencies: vec![Consistency::Crash, Consistency::Application],
        crash_only_kinds: vec![ImageKind::DiskImage],
        record: RecordPlace::Text,
        labels_max: OWN_LABELS,
        description_length_max: 20,
        key: KeyChoice::None,
        location_choice: LocationChoice::Fixed,
        ..Capabilities::default()
    }
}

#[test]
fn every_field_that_an_engine_may_lack_is_found_at_its_line() {
    let found = |spec: &str| {
        let capture = if spec.contains("capture") { "" } else { "  capture: {kind: snapshot}\n" };
        let text = document("", &format!("{AT_TWO}  retention: {{days: 3}}\n{capture}{spec}"));
        let loaded = read(&text, None, plain);
        let found = loaded.findings.iter().map(|finding| {
            let place = finding.place.as_ref().unwrap();
            (finding.code.word(), place.file.text[place.span.clone()].to_owned())
        });
        found.collect::<Vec<_>>()
    };
    for (spec, code, at) in [
        ("  capture: {kind: machine-image}\n", "missing-capability", "machine-image"),
        (
            "  capture: {kind: disk-image, consistency: application}\n",
            "missing-capability",
            "application",
        ),
        ("  capture: {kind: disk-image, family: web}\n", "missing-capability", "web"),
        ("  capture: {kind: disk-image, via: snapshot}\n", "missing-capability", "snapshot"),
        ("  storage: {location: eu}\n", "missing-capability", "eu"),
        ("  storage: {tier: archive}\n", "missing-capability", "archive"),
        ("  storage: {copies: [eu]}\n", "missing-capability", "copies"),
        ("  encryption: {kmsKey: mine}\n", "missing-capability", "mine"),
        ("  labels: {service: web}\n", "missing-capability", "labels"),
        ("  sharing: [{role: reader, members: [ops]}]\n", "missing-capability", "sharing"),
        ("  drill: {cron: \"0 6 * * 0\"}\n", "missing-capability", "drill"),
        (
            "  naming: {description: \"this one is far too long\"}\n",
            "out-of-range",
            "\"this one is far too long\"",
        ),
    ] {
        assert_eq!(found(spec), [(code, at.to_owned())], "{spec}");
    }
    for spec in [
        "",
        "  capture: {kind: snapshot, consistency: application}\n",
        "  capture: {kind: snapshot, via: disk}\n",
        "  storage: {location: \"\", tier: standard, copies: []}\n",
        "  labels: {}\n",
        "  naming: {description: \"as long as this is {{policy.name}}\"}\n",
    ] {
        assert_eq!(found(spec), [], "{spec}");
    }
}

#[test]
fn older_images_of_a_family_name_the_newest() {
    let spec = format!(
        "{AT_TWO}  retention: {{last: 9}}\n  lifecycle: {{deprecateAfter: 12h, obsoleteAfter: 58h}}\n  capture: {{kind: disk-image, family: web}}\n"
    );
    let policies = policies("", &spec);
    let images: Vec<Image> = (0..4)
        .map(|day| Image {
            family: Some("web".to_owned()),
            kind: ImageKind::DiskImage,
            ..night("nightly", day)
        })
        .collect();
    let plan = plan(&policies, &world(images), now());
    let steps: Vec<(Action, &str, &str)> = plan
        .changes
        .iter()
        .filter_map(|change| {
            let update = change.update.as_ref()?;
            Some((change.action, change.image.id.as_deref()?, update.replacement.as_deref()?))
        })
        .collect();
    let newest = night("nightly", 0).name;
    let wanted = [
        (Action::Deprecate, "nightly-2", newest.as_str()),
        (Action::Deprecate, "nightly-1", newest.as_str()),
        (Action::Obsolete, "nightly-3", newest.as_str()),
    ];
    assert_eq!(steps, wanted);
}

/// A family is of one project: what is newer in another one cannot be taken for it.
#[test]
fn the_image_that_stands_for_another_is_of_its_project() {
    let family = "  capture: {kind: disk-image, family: web}\n";
    let spec = format!("{AT_TWO}  retention: {{last: 1}}\n{family}");
    let policies = policies("", &spec);
    let of_project = |day: i64, project: &str| Image {
        family: Some("web".to_owned()),
        kind: ImageKind::DiskImage,
        project: project.to_owned(),
        ..night("nightly", day)
    };
    let replacements = |images: Vec<Image>, project: &str| {
        let mut inventory = world(images);
        project.clone_into(&mut inventory.engines[0].instances[0].project);
        let plan = plan(&policies, &inventory, now());
        assert_eq!(check(&plan, &inventory, &policies, now()), []);
        let lowered = plan.changes.into_iter().filter(|one| one.action == Action::Deprecate);
        let named = lowered.map(|one| (one.image.id.unwrap(), one.update.unwrap().replacement));
        named.collect::<Vec<_>>()
    };
    let (old, new) = (|project| of_project(2, project), |project| of_project(0, project));
    let none = [("nightly-2".to_owned(), None)];
    let newest = [("nightly-2".to_owned(), Some(night("nightly", 0).name))];
    assert_eq!(replacements(vec![old("a"), new("a")], "a"), newest);
    assert_eq!(replacements(vec![old("a"), new("b")], "b"), none);
    // Nor can what is made elsewhere, once it is there.
    let coming = replacements(vec![of_project(1, "a")], "a");
    assert!(
        matches!(&coming[..], [(_, Some(name))] if *name != night("nightly", 1).name),
        "{coming:?}"
    );
    assert_eq!(replacements(vec![of_project(1, "a")], "b"), [("nightly-1".to_owned(), None)]);
}

#[test]
fn who_may_use_an_image_is_brought_back_to_what_the_policy_says() {
    let spec = format!("{AT_TWO}  sharing: [{{role: reader, members: [\"b\", \"a\"]}}]\n");
    let policies = policies("", &spec);
    let grant = |members: &[&str]| {
        vec![Grant {
            role: "reader".to_owned(),
            members: members.iter().map(|member| (*member).to_owned()).collect(),
        }]
    };
    let right = Image { sharing: Some(grant(&["a", "b"])), ..night("nightly", 0) };
    let wrong = Image { sharing: Some(grant(&["a", "mallory"])), ..night("nightly", 1) };
    let unknown = night("nightly", 2);
    let made = plan(&policies, &world(vec![right, wrong, unknown]), now());
    assert_eq!(ids(&made, Action::Relabel), ["nightly-1"]);
    let update = made.changes[0].update.as_ref().unwrap();
    assert_eq!(update.sharing, Some(grant(&["a", "b"])));
    let create = plan(&policies, &world(Vec::new()), now());
    assert_eq!(create.changes[0].create.as_ref().unwrap().sharing, Some(grant(&["a", "b"])));
    let twice = format!("{AT_TWO}  sharing: [{{role: r, members: a}}, {{role: r, members: b}}]\n");
    finds("", &twice, &[("duplicate-key", "r")]);
}

#[test]
fn a_drill_tries_the_newest_point_once() {
    // Sundays at six in UTC: the last one was the 15th.
    let spec = format!("{AT_TWO}  drill: {{cron: \"0 6 * * 0\", check: restore}}\n");
    let policies = policies("", &spec);
    let old = || (0..9).map(|day| night("nightly", day)).collect::<Vec<_>>();
    let due = plan(&policies, &world(old()), now());
    assert_eq!(ids(&due, Action::Drill), ["nightly-0"]);
    let change = of(&due, Action::Drill)[0];
    assert_eq!(change.drill, Some(DrillCheck::Restore));
    assert!(change.update.as_ref().unwrap().set_labels.contains_key(LABEL_DRILLED));
    let drilled = |at: Timestamp| {
        let mut images = old();
        images[3].labels.insert(LABEL_DRILLED.to_owned(), stamp(at));
        plan(&policies, &world(images), now()).summary.drill
    };
    assert_eq!(drilled("2026-11-15T06:00:00Z".parse().unwrap()), 0);
    assert_eq!(drilled("2026-11-15T05:59:59Z".parse().unwrap()), 1);
    assert_eq!(drilled(ago(-3)), 1);
    // A series that began after the last drill waits for the next.
    let young = plan(&policies, &world((0..3).map(|day| night("nightly", day)).collect()), now());
    assert_eq!(young.summary.drill, 0);
}

#[test]
fn an_exemption_holds_until_its_day() {
    let exempt = |until: &str| {
        format!(
            "  exemptions: [{{source: \"db-*\", owner: ops, reason: rebuilt from code, until: {until}}}]\n"
        )
    };
    let mut inventory = world(Vec::new());
    inventory.engines[0].instances.push(memory::instance("db-1", &[]));
    let holds = policies(&exempt("2026-11-22"), AT_TWO);
    let plan_holds = plan(&holds, &inventory, now());
    assert_eq!((plan_holds.summary.exempt, plan_holds.summary.unprotected), (1, 0));
    assert_eq!(plan_holds.exempt[0].owner, "ops");
    assert!(holds.expired(now()).is_empty());
    let ended = policies(&exempt("2026-11-21"), AT_TWO);
    let plan_ended = plan(&ended, &inventory, now());
    assert_eq!((plan_ended.summary.exempt, plan_ended.summary.unprotected), (0, 1));
    let expired = ended.expired(now());
    assert_eq!(expired.len(), 1);
    assert!(expired[0].is_error() && expired[0].message.contains("ops answers for it"));
    finds(
        "  exemptions: [{source: \"[a\", owner: x, reason: why, until: soon}]\n",
        AT_TWO,
        &[("bad-pattern", "[a"), ("bad-time", "soon")]
            .map(|(code, text)| (code, if text == "[a" { "\"[a\"" } else { text })),
    );
}

#[test]
fn an_overlay_goes_over_policies_and_configuration() {
    let text = document(
        "  defaults: {retention: {days: 14, weekly: 8}, labels: {from: defaults}}\n",
        &format!("{AT_TWO}  lifecycle: {{grace: 3d}}\n  labels: {{own: \"yes\"}}\n"),
    ) + "---\napiVersion: stillframe/v1\nkind: Overlay\nmetadata: {name: staging}\nspec:\n  \
           config: {engines: {memory: {other: {}}}, guards: {engineCount: 7}}\n  policies:\n    \
           - {names: [\"*\"], spec: {retention: {days: 2}, schedule: {timeZone: Europe/Berlin}}}\n    \
           - {names: nightly, spec: {lifecycle: {grace: 1h}, labels: {own: \"no\"}}}\n";
    let without = read(&text, None, capable).policies.unwrap();
    let with = read(&text, Some("staging"), capable);
    let with = with.policies.unwrap_or_else(|| panic!("{:#?}", with.findings));
    let (before, after) = (&without.policies[0], &with.policies[0]);
    assert_eq!(before.retention.rules.len(), 2);
    assert_eq!(after.retention.rules.len(), 1, "retention is replaced as a whole");
    assert_eq!(after.schedule.zone.name(), "Europe/Berlin");
    assert_eq!(after.schedule.text(), before.schedule.text());
    assert_eq!(after.lifecycle.grace.to_string(), "1h");
    assert_eq!(after.labels["own"], "no");
    assert_eq!(after.labels["from"], "defaults");
    assert_eq!(with.config.engines["memory"].kind, "other");
    assert_eq!((without.config.guards.engine_count, with.config.guards.engine_count), (100, 7));
    assert_ne!(without.digest, with.digest);
    let origin = |path: &str| &after.effective.iter().find(|one| one.path == path).unwrap().origin;
    assert!(
        matches!(origin("lifecycle.grace"), Origin::Overlay(place) if place.to_string().starts_with("all.yaml:23:")),
        "{:?}",
        origin("lifecycle.grace")
    );
    assert!(matches!(origin("schedule.cron"), Origin::Policy(_)));
    assert!(matches!(origin("labels.from"), Origin::Defaults(_)));
}

#[test]
fn overlays_that_fit_nothing_are_told() {
    let overlay = |name: &str, entry: &str| {
        format!(
            "---\napiVersion: stillframe/v1\nkind: Overlay\nmetadata: {{name: {name}}}\nspec: {{policies: [{entry}]}}\n"
        )
    };
    let with = |overlays: &str, environment| {
        codes(&read(&(document("", AT_TWO) + overlays), Some(environment), capable))
    };
    let good = overlay("staging", "{names: nightly, spec: {labels: {a: b}}}");
    assert_eq!(with(&good, "stagin")[0].0, "unknown-environment");
    assert_eq!(with(&(good.clone() + &good), "staging")[0].0, "duplicate-overlay");
    assert_eq!(
        with(&overlay("staging", "{names: nigthly, spec: {labels: {a: b}}}"), "staging"),
        [("patches-nothing".to_owned(), "nigthly".to_owned())]
    );
    assert_eq!(with(&overlay("staging", "{names: nightly}"), "staging")[0].0, "missing-key");
    assert_eq!(
        with(&overlay("staging", "{names: nightly, spec: {lables: {a: b}}}"), "staging")[0].0,
        "unknown-key"
    );
    let bad = with(
        &overlay("staging", "{names: nightly, spec: {schedule: {cron: \"0 99 * * *\"}}}"),
        "staging",
    );
    assert_eq!(bad, [("bad-cron".to_owned(), "99".to_owned())]);
}

#[test]
fn a_warning_is_allowed_with_a_reason() {
    let all = |allow: &str| {
        let text = document("", AT_TWO).replace(
            "metadata: {name: nightly}",
            &format!("metadata: {{name: nightly, allow: [{allow}]}}"),
        );
        let loaded = read(&text, None, capable);
        let found: Vec<(String, String)> = loaded
            .findings
            .iter()
            .map(|finding| {
                let place = finding.place.as_ref().unwrap();
                (finding.code.word().to_owned(), place.file.text[place.span.clone()].to_owned())
            })
            .collect();
        found
    };
    assert_eq!(all("{code: keeps-everything, reason: growth is watched}"), []);
    let warned =
        |found: &[(String, String)], code: &str| found.iter().any(|(word, _)| word == code);
    assert!(warned(&all("{code: keeps-everythin, reason: x}"), "bad-allow"));
    assert!(warned(&all("{code: bad-cron, reason: x}"), "bad-allow"));
    assert!(warned(&all("{code: keeps-everything, reason: \" \"}"), "bad-allow"));
    assert!(warned(&all("{code: no-policies, reason: x}"), "allows-nothing"));
    assert!(warned(&all("{code: keeps-everything}"), "missing-key"));
}

#[test]
fn a_lease_that_nobody_could_ever_hold_is_found_where_it_stands() {
    for wrong in ["\"\"", "\" \"", "\"kubernetes:A\""] {
        finds(&format!("  watch: {{lease: {wrong}}}\n"), AT_TWO, &[("out-of-range", wrong)]);
    }
    let read = policies("  watch: {lease: here}\n", AT_TWO).config.watch.lease;
    assert_eq!(read, Some(LeasePlace::File("here".into())));
}

#[test]
fn prices_are_read_exactly_or_refused() {
    let table = |entry: &str| {
        format!("  prices: {{currency: USD, asOf: 2026-11-01, perGibMonth: [{entry}]}}\n")
    };
    let read = policies(
        &table("{location: \"us*\", kind: snapshot, price: 0.026}, {price: 0.05}"),
        AT_TWO,
    );
    let prices = read.config.prices.unwrap();
    assert_eq!(prices.rate("memory", "us-east", ImageKind::Snapshot), Some(26_000));
    assert_eq!(prices.rate("memory", "eu", ImageKind::Snapshot), Some(50_000));
    finds(&table("{price: 0.1234567}"), AT_TWO, &[("out-of-range", "0.1234567")]);
    finds(&table("{location: \"[a\", price: 1}"), AT_TWO, &[("bad-pattern", "\"[a\"")]);
    finds(&table("{location: us}"), AT_TWO, &[("missing-key", "{location: us}")]);
    let dated = table("{price: 1}").replace("2026-11-01", "yesterday");
    finds(&dated, AT_TWO, &[("bad-time", "yesterday")]);
}

#[test]
fn a_plan_shows_what_it_costs_and_what_quotas_it_takes() {
    let prices = "  prices: {currency: EUR, asOf: 2026-11-01, perGibMonth: [{price: 0.05}]}\n";
    let spec = format!("{AT_TWO}  retention: {{last: 3}}\n  lifecycle: {{grace: 0}}\n");
    let policies = policies(prices, &spec);
    let sized = |day| Image { stored_bytes: Some(1 << 30), ..night("nightly", day) };
    let mut foreign = sized(9);
    foreign.id = "foreign".to_owned();
    foreign.labels.clear();
    let mut inventory =
        world(vec![sized(1), sized(2), let_go(sized(3), 1), let_go(sized(4), 1), foreign]);
    let limits = &mut inventory.engines[0].capabilities.limits;
    limits.images.insert(ImageKind::MachineImage, 4);
    let plan = plan(&policies, &inventory, now());
    let budget = budget(&policies, &inventory, &plan, now()).unwrap();
    let costs = budget.costs.unwrap();
    assert_eq!(costs.now.to_string(), "0.20 EUR/month");
    // One is made, and the oldest goes.
    assert_eq!(ids(&plan, Action::Delete), ["nightly-4"]);
    assert_eq!(costs.after.to_string(), "0.20 EUR/month");
    assert!(costs.notes.iter().any(|note| note.contains("may free less")), "{:?}", costs.notes);
    let [quota] = budget.quotas.as_slice() else { panic!("{:?}", budget.quotas) };
    // The one that is not ours stays.
    assert_eq!((quota.limit, quota.now, quota.after), (4, 5, 5));
    let steady = steady_state(&policies.policies[0], now()).unwrap();
    assert_eq!((quota.long_run, steady.captured), (1 + steady.images(), 1));
    // What is made is there before the oldest goes, now and in the long run.
    assert_eq!((quota.peak, quota.long_run_peak), (6, quota.long_run + 1));
    assert!(!quota.is_endless && quota.is_over());
    // A limit of what there is after the round is too small for the round.
    let of = |inventory: &Inventory| {
        stillframe::simulate::expense::budget(&policies, inventory, &plan, now()).unwrap().quotas
    };
    let limited = |images: Option<u64>, bytes: Option<u64>| {
        let mut inventory = inventory.clone();
        let limits = &mut inventory.engines[0].capabilities.limits;
        let kind = ImageKind::MachineImage;
        limits.images = images.map(|most| (kind, most)).into_iter().collect();
        limits.stored_bytes = bytes.map(|most| (kind, most)).into_iter().collect();
        of(&inventory).remove(0)
    };
    assert!(limited(Some(5), None).is_over() && !limited(Some(6), None).is_over());
    // Bytes as well: five of a GiB, and one more while it is made.
    let bytes = limited(None, Some(5 << 30));
    assert_eq!((bytes.now, bytes.after, bytes.peak), (5 << 30, 5 << 30, 6 << 30));
    assert_eq!(bytes.unit, QuotaUnit::Bytes);
    assert_eq!(bytes.long_run_peak, quota.long_run_peak << 30);
    assert!(bytes.is_over() && !limited(None, Some(6 << 30)).is_over());
    let mut shown = plan.clone();
    shown.budget = Some(stillframe::plan::Budget { costs: None, quotas: vec![bytes] });
    let text = anstream::adapter::strip_str(&stillframe::report::plan_text(&shown)).to_string();
    let row = "! memory: 5.0 GiB of 5.0 GiB for machine-images now, 5.0 GiB after this plan, 4.0 GiB in the long run\n";
    assert!(text.contains(row), "{text}");
    assert!(text.contains("up to 6.0 GiB meanwhile: what goes for others goes last\n"), "{text}");
    let without = super::language::policies("", &spec);
    inventory.engines[0].capabilities.limits.images.clear();
    assert_eq!(stillframe::simulate::expense::budget(&without, &inventory, &plan, now()), None);
}

#[test]
fn quotas_are_of_the_project_in_which_images_are_made() {
    let spec = format!("{AT_TWO}  retention: {{last: 3}}\n  lifecycle: {{grace: 0}}\n");
    let policies = policies("", &spec);
    let of = |project: &str, image: Image| Image { project: project.to_owned(), ..image };
    let mut foreign = night("nightly", 9);
    foreign.id = "foreign".to_owned();
    foreign.labels.clear();
    // Images were made in `old` until yesterday, and are made in `new` from now on.
    let mut inventory = world(vec![
        of("old", night("nightly", 1)),
        of("old", night("nightly", 2)),
        of("old", let_go(night("nightly", 3), 1)),
        of("old", let_go(night("nightly", 4), 1)),
        of("new", foreign),
    ]);
    let engine = &mut inventory.engines[0];
    "new".clone_into(&mut engine.instances[0].project);
    let each = |limit| BTreeMap::from([(ImageKind::MachineImage, limit), (ImageKind::Snapshot, 9)]);
    let limits = [("old", each(2)), ("new", each(4)), ("other", each(6))];
    let limits = limits.map(|(project, each)| (project.to_owned(), each));
    engine.capabilities.limits.images_by_project = BTreeMap::from(limits);
    let plan = plan(&policies, &inventory, now());
    assert_eq!(ids(&plan, Action::Delete), ["nightly-4"]);
    assert_eq!(plan.summary.create, 1);
    let budget = budget(&policies, &inventory, &plan, now()).unwrap();
    let kept = steady_state(&policies.policies[0], now()).unwrap().images();
    let seen: Vec<_> = budget
        .quotas
        .iter()
        .map(|quota| (&*quota.project, quota.limit, quota.now, quota.after, quota.long_run))
        .collect();
    assert_eq!(seen, [("new", 4, 1, 2, 1 + kept), ("old", 2, 4, 3, 0)]);
}

#[test]
fn what_holds_for_all_policies_is_part_of_the_digest() {
    let digest = |config: &str| policies(config, AT_TWO).digest;
    let freeze = "  blackouts: [{from: 2026-12-01, until: 2026-12-02, reason: x}]\n";
    let removed = "  removed: [{policy: gone, reason: x}]\n";
    let digests = [
        digest(""),
        digest(freeze),
        digest(removed),
        digest("  moved: [{from: a, to: nightly}]\n"),
    ];
    let different: std::collections::BTreeSet<&String> = digests.iter().collect();
    assert_eq!(different.len(), digests.len());
}

#[test]
fn a_grant_without_members_hides_nothing_else() {
    finds(
        "",
        "  schedule: {cron: \"0 99 * * *\"}\n  sharing: [{role: r}]\n",
        &[("bad-cron", "99"), ("missing-key", "{role: r}")],
    );
}

#[test]
fn reasons_and_owners_say_something() {
    finds(
        "  exemptions: [{source: lab, owner: \"\", reason: \" \", until: 2030-01-01}]\n  \
         removed: [{policy: old, reason: \"\"}]\n  \
         blackouts: [{from: 2030-01-01, until: 2030-01-02, reason: \"\"}]\n",
        &format!("{AT_TWO}  hold: [{{sources: web-1, reason: \"\"}}]\n"),
        &[
            ("missing-key", "\"\""),
            ("missing-key", "\" \""),
            ("missing-key", "\"\""),
            ("missing-key", "\"\""),
            ("missing-key", "\"\""),
        ],
    );
}

#[test]
fn mistakes_show_in_what_is_not_in_use() {
    let overlay = "---\napiVersion: stillframe/v1\nkind: Overlay\nmetadata: {name: test}\nspec:\n  \
                   config: {defaults: {schedule: {timeZone: Mars/Olympus}}}\n  policies:\n    \
                   - {names: nightly, spec: {schedule: {cron: \"0 99 * * *\"}}}\n";
    let policy = format!("{AT_TWO}  engine: memory\n");
    let whole = document("", &policy) + overlay;
    let found = |environment| codes(&read(&whole, environment, capable));
    let wanted = [
        ("bad-time-zone".to_owned(), "Mars/Olympus".to_owned()),
        ("bad-cron".to_owned(), "99".to_owned()),
    ];
    assert_eq!(found(None), wanted);
    assert_eq!(found(Some("test")), wanted);
    // Defaults that the only policy does not inherit.
    finds("  defaults: {engine: dcc}\n", &policy, &[("unknown-engine", "dcc")]);
    finds(
        "  defaults: {storage: {copies: [asia]}}\n",
        &format!("{policy}  storage: {{copies: []}}\n"),
        &[],
    );
    // What is right where it is used is right: values are not held against those of others.
    let beside = overlay
        .replace("schedule: {timeZone: Mars/Olympus}", "lifecycle: {deprecateAfter: 9d}")
        .replace("schedule: {cron: \"0 99 * * *\"}", "lifecycle: {obsoleteAfter: 5d}");
    assert_eq!(codes(&read(&(document("", &policy) + &beside), None, capable)), []);
    let sound = overlay.replace("Mars/Olympus", "Europe/Berlin").replace("99", "9");
    assert_eq!(codes(&read(&(document("", &policy) + &sound), None, capable)), []);
}

#[test]
fn what_is_inherited_can_be_switched_off() {
    let defaults = "  defaults:\n    storage: {copies: [eu]}\n    lifecycle: {deprecateAfter: 5d, obsoleteAfter: 9d}\n";
    let inherited = policies(defaults, AT_TWO);
    assert_eq!(inherited.policies[0].copies, ["eu"]);
    assert!(inherited.policies[0].lifecycle.deprecate_after.is_some());
    let off = format!(
        "{AT_TWO}  storage: {{copies: []}}\n  lifecycle: {{deprecateAfter: never, obsoleteAfter: never}}\n"
    );
    let switched = policies(defaults, &off);
    let policy = &switched.policies[0];
    assert!(policy.copies.is_empty());
    assert_eq!((policy.lifecycle.deprecate_after, policy.lifecycle.obsolete_after), (None, None));
    assert!(policy.effective.iter().any(|value| {
        value.path == "storage.copies" && matches!(value.origin, Origin::Policy(_))
    }));
    // Only where it means something.
    finds("", &format!("{AT_TWO}  lifecycle: {{grace: never}}\n"), &[("bad-length", "never")]);
}

/// What is said of the policy `nightly` on an engine of this program.
fn on_engine(engine: &str, policy: &str) -> Vec<(String, String)> {
    let text = document("", &format!("{AT_TWO}{policy}"))
        .replace("{memory: {memory: {}}}", &format!("{{cloud: {{{engine}}}}}"));
    let file = SourceFile { path: "all.yaml".to_owned(), text };
    codes(&stillframe::policy::load(vec![file], &stillframe::engine::kinds()))
}

#[test]
fn what_a_service_would_refuse_is_a_finding_at_its_line() {
    let yandex = "yandex: {folders: [f]}";
    let gce = "gce: {projects: [p]}";
    let twcc = "twcc: {project: \"101\", apiKeyEnv: KEY}";
    let family =
        |name: &str| format!("  capture: {{kind: disk-image, disks: boot, family: {name}}}\n");
    let shared = |kind: &str, member: &str| {
        format!(
            "  capture: {{kind: {kind}}}\n  sharing: [{{role: roles/r, members: [\"group:g\", \"{member}\"]}}]\n"
        )
    };
    let disks = |disks: &str| format!("  capture: {{kind: disk-image, disks: {disks}}}\n");
    let short = [("bad-name".to_owned(), "db".to_owned())];
    assert_eq!(on_engine(yandex, &family("db")), short);
    assert_eq!(on_engine(yandex, &family("dbs")), []);
    assert_eq!(on_engine(gce, &family("db")), []);
    for (engine, kind, member) in [
        (yandex, "snapshot", "everybody"),
        (yandex, "snapshot", "system:allAuthenticatedUsers"),
        (yandex, "snapshot", "user:bob@example.com"),
        (yandex, "snapshot", "userAccount:"),
        (gce, "disk-image", "bob@example.com"),
        (gce, "disk-image", "userAccount:ajx"),
    ] {
        let nobody = [("missing-capability".to_owned(), member.to_owned())];
        let said = on_engine(engine, &shared(kind, member));
        let said: Vec<_> = said.into_iter().map(|(code, at)| (code, at.replace('"', ""))).collect();
        assert_eq!(said, nobody, "{engine}");
    }
    for (engine, kind, member) in [
        (yandex, "snapshot", "allAuthenticatedUsers"),
        (yandex, "snapshot", "userAccount:ajx"),
        (gce, "disk-image", "user:bob@example.com"),
        (gce, "disk-image", "allAuthenticatedUsers"),
    ] {
        assert_eq!(on_engine(engine, &shared(kind, member)), [], "{engine} {member}");
    }
    // The text alone tells that the disk which is always in an image is left out.
    assert_eq!(
        on_engine(twcc, &disks("[\"data*\"]")),
        [("missing-capability".to_owned(), "disks".to_owned())]
    );
    for well in ["all", "boot", "[system, \"data*\"]", "\"*\""] {
        assert_eq!(on_engine(twcc, &disks(well)), [], "{well}");
    }
}

#[test]
fn settings_with_which_an_engine_is_not_opened_are_findings_at_their_lines() {
    for (settings, at) in [
        ("yandex: {folders: [f], images: {pooled: true}}", &["true"][..]),
        ("yandex: {folders: [f], images: {pooled: true}, quota: {pooledImages: 1}}", &[]),
        ("yandex: {folders: [f], tokenFile: a, tokenEnv: B}", &["B"]),
        ("yandex: {folders: [f], credentials: anonymous}", &["anonymous"]),
        ("yandex: {folders: [f], credentials: anonymous, endpoint: \"http://127.0.0.1:1\"}", &[]),
        ("yandex: {folders: [f], endpoint: \"ftp://a\"}", &["\"ftp://a\""]),
        // Files are looked at when the engine is opened.
        ("yandex: {folders: [f], keyFile: nowhere.json}", &[]),
        ("gce: {projects: [p], tokenFile: a, tokenEnv: B}", &["B"]),
        (
            "gce: {projects: [p], tokenFile: a, credentials: application-default}",
            &["application-default"],
        ),
        ("gce: {projects: [p], delegates: [a@p.iam.gserviceaccount.com]}", &["delegates"]),
        ("gce: {projects: [p], tokenFile: a}", &[]),
        ("gce: {projects: [p, q, p], quotaProject: p}", &["p"]),
        ("gce: {projects: [p], quotaProject: No_Project}", &["No_Project"]),
        ("gce: {projects: [p], tokenFile: \"\"}", &["\"\""]),
        ("gce: {projects: [p], tokenEnv: \"\"}", &["\"\""]),
        ("gce: {projects: [p]}", &[]),
        ("twcc: {project: \"101\"}", &["twcc"]),
        ("twcc: {project: \"101\", apiKeyEnv: A, apiKeyFile: b}", &["A"]),
        ("twcc: {project: \"101\", apiKeyEnv: A}", &[]),
        // All that is wrong, each at its place.
        (
            "yandex: {folders: [f, g], imagesFolder: h, copyFolders: [g, h, v, v], keyFile: k, tokenEnv: B, credentials: metadata, endpoint: x, endpoints: {iam: i, compute: c}, images: {pooled: true}}",
            &["g", "h", "v", "B", "metadata", "x", "i", "c", "true"],
        ),
        (
            "gce: {projects: [p], tokenFile: a, tokenEnv: B, credentials: anonymous, impersonate: a@b, credentialsEndpoint: \"https://e/?x\"}",
            &["B", "anonymous", "anonymous", "a@b", "a@b", "\"https://e/?x\""],
        ),
        (
            "gce: {projects: [p], delegates: [a@b], credentialsEndpoint: \"https://e\", endpoint: \"https://10.0.0.1\"}",
            &["delegates", "\"https://e\"", "\"https://10.0.0.1\""],
        ),
        ("twcc: {project: \"101\", apiKeyEnv: A, apiKeyFile: b, endpoint: x}", &["A", "x"]),
    ] {
        let kind = if settings.starts_with("gce") { "machine-image" } else { "disk-image" };
        let said = on_engine(settings, &format!("  capture: {{kind: {kind}, disks: boot}}\n"));
        let wanted: Vec<_> =
            at.iter().map(|at| ("bad-settings".to_owned(), (*at).to_owned())).collect();
        assert_eq!(said, wanted, "{settings}");
    }
}

/// What the schema finds hides nothing of the rest, and has nothing found that is only a part of it.
#[test]
fn settings_are_judged_beside_what_the_schema_finds() {
    for (settings, wanted) in [
        (
            "yandex: {tokenFile: a, tokenEnv: B, colour: red, captures: 99}",
            &[
                ("missing-key", "yandex"),
                ("bad-settings", "B"),
                ("unknown-key", "colour"),
                ("out-of-range", "99"),
            ][..],
        ),
        ("gce: {tokenFile: a, tokenEnv: B}", &[("missing-key", "gce"), ("bad-settings", "B")]),
        ("twcc: {apiKeyFile: a, apiKeyEnv: B}", &[("missing-key", "twcc"), ("bad-settings", "B")]),
        // A key that cannot be read is not missing.
        ("twcc: {project: \"101\", apiKeyFil: a}", &[("unknown-key", "apiKeyFil")]),
        ("twcc: {project: \"101\", apiKeyFile: 5}", &[("wrong-type", "5")]),
        ("yandex: {folders: [f], credentials: anonymous, endpoint: 5}", &[("wrong-type", "5")]),
        (
            "yandex: {folders: [f], images: {pooled: true}, quota: {pooledImages: a}}",
            &[("wrong-type", "a")],
        ),
        // A key that is quite another one says nothing of it.
        (
            "twcc: {project: \"101\", colour: red}",
            &[("bad-settings", "twcc"), ("unknown-key", "colour")],
        ),
    ] {
        let said = on_engine(settings, "  capture: {kind: disk-image, disks: boot}\n");
        let of = |(code, at): &(&str, &str)| ((*code).to_owned(), (*at).to_owned());
        let mut wanted: Vec<(String, String)> = wanted.iter().map(of).collect();
        let mut said: Vec<_> = said;
        wanted.sort();
        said.sort();
        assert_eq!(said, wanted, "{settings}");
    }
}

/// Who gives another endpoint has the engine opened at that, and it is judged by it.
#[test]
fn settings_are_judged_with_the_endpoint_that_is_given() {
    let file = |path: &str, text: String| Arc::new(SourceFile { path: path.to_owned(), text });
    let codes = |settings: &str, endpoints: &[String]| -> Vec<String> {
        let config = format!(
            "apiVersion: stillframe/v1\nkind: Config\nspec:\n  engines:\n    cloud:\n      {settings}\n"
        );
        let reading = Reading { endpoints, ..Reading::default() };
        let kinds = stillframe::engine::kinds();
        let loaded = load_with(vec![file("stillframe.yaml", config)], &kinds, reading);
        let codes = loaded.findings.iter().map(|found| found.code.word().to_owned());
        codes.filter(|code| code != "no-policies").collect()
    };
    for settings in [
        "twcc: {project: \"101\"}",
        "yandex: {folders: [f], credentials: anonymous}",
        "gce: {projects: [p], credentials: anonymous}",
    ] {
        assert_eq!(codes(settings, &[]), ["bad-settings"], "{settings}");
        for (given, is_well) in [
            ("http://127.0.0.1:9", true),
            ("cloud=http://127.0.0.1:9", true),
            ("other=http://127.0.0.1:9", false),
        ] {
            let said = codes(settings, &[given.to_owned()]);
            assert_eq!(said.is_empty(), is_well, "{settings} {given}: {said:?}");
        }
    }
    // Only what the other endpoint mends is mended by it.
    let here = "http://127.0.0.1:9".to_owned();
    let twice = "twcc: {project: \"101\", apiKeyFile: a, apiKeyEnv: B, endpoint: x}";
    assert_eq!(codes(twice, &[]), ["bad-settings", "bad-settings"]);
    assert_eq!(codes(twice, std::slice::from_ref(&here)), ["bad-settings"]);
    assert_eq!(codes(twice, &["ftp://a".to_owned()]), ["bad-settings", "bad-settings"]);
    // What is wrong with a given one alone is told where the engine is opened.
    let without = "yandex: {folders: [f], tokenFile: a, tokenEnv: B}";
    assert_eq!(codes(without, &["ftp://a".to_owned()]), ["bad-settings"]);
    assert_eq!(codes("yandex: {folders: [f]}", &["ftp://a".to_owned()]), [""; 0]);
}

/// What is found in an overlay that is not in use stands there, all of it.
#[test]
fn settings_of_an_overlay_are_judged_as_well() {
    let file = |path: &str, text: &str| SourceFile { path: path.to_owned(), text: text.to_owned() };
    let config = file(
        "stillframe.yaml",
        "apiVersion: stillframe/v1\nkind: Config\nspec:\n  engines:\n    cloud:\n      twcc: {project: \"101\", apiKeyFile: a}\n",
    );
    let overlay = file(
        "there.yaml",
        "apiVersion: stillframe/v1\nkind: Overlay\nmetadata: {name: there}\nspec:\n  config:\n    engines:\n      cloud:\n        twcc:\n          apiKeyEnv: B\n          endpoint: x\n",
    );
    let loaded = stillframe::policy::load(vec![config, overlay], &stillframe::engine::kinds());
    let at: Vec<String> = loaded
        .findings
        .iter()
        .filter(|found| found.code.word() == "bad-settings")
        .map(|found| {
            let place = found.place.as_ref().unwrap();
            format!("{} {}", place.file.path, &place.file.text[place.span.clone()])
        })
        .collect();
    assert_eq!(at, ["there.yaml B", "there.yaml x"]);
}

/// Who opens an engine without a look at findings is told all of it, too.
#[test]
fn an_engine_that_is_not_opened_says_everything() {
    for (kind, settings, said) in [
        (
            "yandex",
            serde_json::json!({"folders": ["f"], "tokenFile": "a", "tokenEnv": "B", "endpoint": "x"}),
            ["`tokenFile` and `tokenEnv`", "not a URL"],
        ),
        (
            "gce",
            serde_json::json!({"projects": ["p"], "tokenFile": "a", "tokenEnv": "B", "endpoint": "x"}),
            ["`tokenFile` and `tokenEnv`", "not a URL"],
        ),
        (
            "twcc",
            serde_json::json!({"project": "1", "apiKeyFile": "a", "apiKeyEnv": "B", "endpoint": "x"}),
            ["`apiKeyFile` and `apiKeyEnv`", "not a URL"],
        ),
    ] {
        let clock = Arc::new(FixedClock(now()));
        let open = match kind {
            "yandex" => stillframe::engine::yandex::open,
            "gce" => stillframe::engine::gce::open,
            _ => stillframe::engine::twcc::open,
        };
        let error = open("cloud", &settings, Path::new("/"), clock).err().unwrap();
        for part in said {
            assert!(error.contains(part), "{kind}: {error}");
        }
    }
}

/// What the engines that there are say of themselves, at the lines of policies.
#[test]
fn what_an_engine_can_never_fit_is_found_at_its_line() {
    let of = |engine: &str, policy: &str| {
        let text = format!(
            "apiVersion: stillframe/v1\nkind: Config\nspec:\n  engines: {{cloud: {engine}}}\n---\n\
             apiVersion: stillframe/v1\nkind: BackupPolicy\nmetadata: {{name: nightly}}\nspec:\n{policy}{AT_TWO}"
        );
        let file = SourceFile { path: "all.yaml".to_owned(), text };
        let kinds = stillframe::engine::kinds();
        let loaded = load_with(vec![Arc::new(file)], &kinds, Reading::default());
        let hints = loaded.findings.iter().filter_map(|finding| finding.hint.clone());
        (codes(&loaded), hints.collect::<Vec<_>>().join("\n"))
    };
    let found = |code: &str, text: &str| vec![(code.to_owned(), text.to_owned())];
    let twcc = "{twcc: {project: GOV000001, endpoint: \"http://127.0.0.1:1\"}}";
    let match_labels = "  source: {match: [{labels: {role: web}}]}\n";
    let exclude_labels = "  source: {match: [{names: [w]}], exclude: [{labels: {role: web}}]}\n";
    for policy in [match_labels, exclude_labels] {
        let (codes, hint) = of(twcc, policy);
        assert_eq!(codes, found("missing-capability", "labels"), "{policy}");
        assert!(hint.contains("select by `names`"), "{hint}");
    }
    let names = "  source: {match: [{names: [w]}]}\n";
    assert_eq!(of(twcc, names).0, []);
    let yandex = "{yandex: {folders: [a, b], endpoint: \"http://127.0.0.1:1\"}}";
    assert_eq!(of(yandex, match_labels).0, []);
    let path = "projects/p/locations/l/keyRings/r/cryptoKeys/y";
    let keyed = |key: &str| format!("{names}  encryption: {{kmsKey: {key}}}\n");
    assert_eq!(of(yandex, &keyed(path)).0, found("bad-key", path));
    assert_eq!(of(yandex, &keyed("abj0123456789abcdefg")).0, []);
    let family =
        format!("{names}  capture: {{kind: disk-image, disks: boot, family: web-golden}}\n");
    let (codes, hint) = of(yandex, &family);
    assert_eq!(codes, found("missing-capability", "web-golden"));
    assert!(hint.contains("`imagesFolder`"), "{hint}");
}
