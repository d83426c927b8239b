//! Situations in which a plan must do one thing and not the other.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use stillframe::apply::Stop;
use stillframe::clock::FixedClock;
use stillframe::elapsed::Elapsed;
use stillframe::inventory::{
    Capabilities, Consistency, Disk, Image, ImageKind, ImageSource, ImageState, Inventory,
    LABEL_HOLD, LABEL_LET_GO, LABEL_MISSING, LABEL_SET, LABEL_STAGED, Limits, Stage,
};
use stillframe::name::stamp;
use stillframe::plan::check::{CheckRule, check};
use stillframe::plan::guard::{Guard, guard, withheld};
use stillframe::plan::{Action, Change, Plan, ReasonCode, changed_since, in_both, plan};
use stillframe::policy::meant::Pause;
use stillframe::policy::{EngineKind, Policies, Risk, SourceFile, load};
use stillframe::reconcile::{Approval, Round};
use stillframe::report::{apply_text, plan_text};
use stillframe::review::{SAVED_VERSION, Saved, undo};
use stillframe::simulate::expense::budget;

use super::engines::policies;
use super::guards::{ago, image, inventory, now};
use super::memory;
use super::sim::SetClock;
use super::worlds::carry_out;

/// An image of a slot of the schedule: two in the morning, ten hours before `now`.
fn night(days: i64, let_go: Option<i64>) -> Image {
    let slot = ago(days) - SignedDuration::from_hours(10);
    let mut of_night = image("web-1", days, let_go);
    let stillframe::name::Ownership::Ours(mut key) = of_night.ownership() else { panic!() };
    key.slot = stillframe::name::Slot::at(slot);
    of_night.labels.extend(key.labels());
    of_night.name = key.image_name(&key.default_prefix());
    of_night.created_at = slot;
    of_night
}

fn nights(days: std::ops::Range<i64>) -> Vec<Image> {
    days.map(|day| night(day, None)).collect()
}

fn of(plan: &Plan, action: Action) -> Vec<&str> {
    plan.changes
        .iter()
        .filter(|change| change.action == action && change.source_name == "web-1")
        .filter_map(|change| change.image.id.as_deref())
        .collect()
}

fn planned(spec: &str, images: Vec<Image>) -> Plan {
    plan(&policies(spec), &inventory(images), now())
}

/// It is in the files, and keeps nothing where it was.
#[test]
fn images_of_a_policy_that_is_on_another_engine_now_are_said_to_be_that() {
    let mut policies = policies("  retention: {last: 5}\n");
    let seen = inventory(nights(0..3));
    policies.policies[0].engine = "elsewhere".to_owned();
    let said = plan_text(&plan(&policies, &seen, now()));
    assert!(said.contains("the policy is on another engine now; left alone"), "{said}");
    policies.policies.clear();
    let said = plan_text(&plan(&policies, &seen, now()));
    assert!(said.contains("no such policy in the files; left alone"), "{said}");
}

/// Two policies of `web-1` at two in the morning, one of which must begin within five minutes, on an
/// engine that makes one image of a source in ten minutes and six in an hour.
fn in_turns() -> (Policies, Inventory) {
    in_turns_with("5m")
}

fn in_turns_with(tight: &str) -> (Policies, Inventory) {
    let policy = |name: &str, deadline: &str| {
        format!(
            "---\napiVersion: stillframe/v1\nkind: BackupPolicy\nmetadata: {{name: {name}}}\nspec:\n  \
             source: {{match: [{{names: [web-1]}}], overlapsWith: [\"*\"]}}\n  \
             schedule: {{cron: \"0 2 * * *\"{deadline}}}\n  retention: {{last: 3}}\n"
        )
    };
    let text = format!(
        "apiVersion: stillframe/v1\nkind: Config\nspec:\n  engines: {{memory: {{memory: {{}}}}}}\n{}{}",
        policy("nightly", ""),
        policy("tight", &format!(", deadline: {tight}"))
    );
    let kind = EngineKind {
        check: |_| Vec::new(),
        name: "memory",
        settings_schema: serde_json::json!({"type": "object"}),
        capabilities: |_| super::memory::capabilities(),
    };
    let loaded = load(vec![SourceFile { path: "all.yaml".to_owned(), text }], &[kind]);
    let policies = loaded.policies.unwrap_or_else(|| panic!("{:?}", loaded.findings));
    let mut seen = inventory(Vec::new());
    seen.engines[0].instances.truncate(1);
    seen.engines[0].capabilities.limits =
        Limits { source_interval_seconds: Some(600), source_hourly: Some(6), ..Limits::default() };
    (policies, seen)
}

#[test]
fn a_source_is_captured_in_turns() {
    let (policies, mut seen) = in_turns();
    let at = |text: &str| -> Timestamp { text.parse().unwrap() };
    let begins = at("2026-11-21T02:00:30Z");
    let first = plan(&policies, &seen, begins);
    let made: Vec<&str> = first.changes.iter().map(|change| change.key.policy.as_str()).collect();
    assert_eq!((made, first.summary.waiting), (vec!["tight"], 1));
    let waiting = &first.waiting[0];
    assert_eq!(waiting.key.policy.as_str(), "nightly");
    assert_eq!(waiting.until, at("2026-11-21T02:10:30Z"));
    let text = plan_text(&first);
    assert!(
        text.contains("not before 2026-11-21 02:10:30Z: the engine makes of one source"),
        "{text}"
    );
    assert_eq!(check(&first, &seen, &policies, begins), []);
    // Both at once would be refused by the check.
    let mut both = first.clone();
    let mut other = both.changes[0].clone();
    other.key = waiting.key.clone();
    both.changes.push(other);
    let rules = check(&both, &seen, &policies, begins);
    assert!(rules.iter().any(|one| one.rule == CheckRule::CreatePace), "{rules:?}");
    // What has been made counts, whoever made it.
    let mut image = memory::image("made", &first.changes[0].key);
    image.created_at = begins;
    for is_ours in [true, false] {
        if !is_ours {
            let source = image.ownership();
            let stillframe::name::Ownership::Ours(key) = source else { panic!() };
            image.source = Some(ImageSource { id: key.source, name: "web-1".to_owned() });
            image.labels.clear();
            image.kind = ImageKind::Snapshot;
            "by-hand".clone_into(&mut image.name);
        }
        seen.engines[0].images = vec![image.clone()];
        let soon = plan(&policies, &seen, at("2026-11-21T02:10:29Z"));
        assert_eq!((soon.changes.len(), soon.waiting[0].until), (0, at("2026-11-21T02:10:30Z")));
        assert!(plan_text(&soon).contains("Nothing to do yet."));
        let then = plan(&policies, &seen, at("2026-11-21T02:10:30Z"));
        assert_eq!((then.summary.create, then.summary.waiting), (1, 0));
        assert_eq!(then.changes[0].key.policy.as_str(), "nightly");
    }
    // Too late for the one that cannot wait: that is said, and it takes no turn from the other.
    image.created_at = at("2026-11-21T01:57:00Z");
    seen.engines[0].images = vec![image.clone()];
    let late = plan(&policies, &seen, begins);
    assert_eq!((late.blocked.len(), late.waiting.len(), late.changes.len()), (1, 1, 0));
    assert!(late.blocked[0].message.starts_with("its turn comes at 2026-11-21 02:07Z, after"));
    assert_eq!(late.waiting[0].until, at("2026-11-21T02:07:00Z"));
    // Of the future nothing is known.
    image.created_at = at("2026-11-22T02:00:00Z");
    seen.engines[0].images = vec![image];
    assert_eq!(plan(&policies, &seen, begins).summary.create, 1);
}

/// Instants after the plan of 02:00:30, one in each turn of the source, in which nothing was captured.
fn turns_after() -> impl Iterator<Item = Timestamp> {
    let first: Timestamp = "2026-11-21T02:10:30Z".parse().unwrap();
    (0..12).map(move |turn| first + jiff::SignedDuration::from_mins(10 * turn))
}

fn captured_for(plan: &Plan) -> Vec<&str> {
    let creates = plan.changes.iter().filter(|change| change.action == Action::Create);
    creates.map(|change| change.key.policy.as_str()).collect()
}

#[test]
fn the_captures_of_a_saved_plan_keep_their_turn() {
    let (policies, seen) = in_turns_with("5h");
    let approved = plan(&policies, &seen, "2026-11-21T02:00:30Z".parse().unwrap());
    let first = captured_for(&approved)[0].to_owned();
    assert_eq!((captured_for(&approved).len(), approved.summary.waiting), (1, 1));
    let directory = tempfile::tempdir().unwrap();
    let saved = Saved {
        format_version: SAVED_VERSION.to_owned(),
        program: String::new(),
        commit: None,
        uncommitted: false,
        valid_until: "2026-11-22T00:00:00Z".parse().unwrap(),
        plan: approved,
        review: None,
    };
    let lots: BTreeSet<String> =
        turns_after().map(|now| captured_for(&plan(&policies, &seen, now))[0].to_owned()).collect();
    assert_eq!(lots.len(), 2, "lots are drawn anew, and fall on both");
    let clock = Arc::new(FixedClock(now()));
    let engine = memory::MemoryEngine::new(clock.clone());
    let room = super::engines::room(engine, clock, policies, &directory);
    for now in turns_after() {
        let within = room.plan_within(&saved, &seen, now);
        assert_eq!(captured_for(&within.plan), [&*first], "at {now}");
        assert!(within.new.is_empty() && within.gone.is_empty(), "at {now}: {within:?}");
        assert_eq!(within.plan.refusals, [], "at {now}");
    }
}

/// Says yes after a while.
struct Late(Arc<SetClock>, Timestamp);

#[async_trait::async_trait]
impl Approval for Late {
    async fn approve(&self, _: &Plan) -> bool {
        *self.0.0.lock().unwrap() = self.1;
        true
    }

    fn takes_time(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn what_was_shown_and_approved_keeps_its_turn() {
    // After an hour an answer comes too late.
    for now in turns_after().take(5) {
        let (policies, seen) = in_turns_with("5h");
        let clock = Arc::new(SetClock(Mutex::new("2026-11-21T02:00:30Z".parse().unwrap())));
        let engine = memory::MemoryEngine::new(clock.clone());
        {
            let mut world = engine.world.lock().unwrap();
            world.limits = seen.engines[0].capabilities.limits.clone();
            let instances = &seen.engines[0].instances;
            world.instances = instances.iter().map(|one| (one.name.clone(), one.clone())).collect();
        }
        let directory = tempfile::tempdir().unwrap();
        let room = super::engines::room(engine, clock.clone(), policies, &directory);
        let approval = Late(clock, now);
        let quiet = Arc::new(super::engines::Quiet);
        let round = room.round(&approval, quiet, &Stop::default()).await;
        assert!(round.not_approved.is_empty(), "at {now}: {:?}", round.not_approved);
        assert_eq!(captured_for(&round.plan), ["tight"], "at {now}");
        assert_eq!(round.outcomes.iter().filter(|one| one.ending.is_done()).count(), 1);
    }
}

#[test]
fn what_cannot_be_made_takes_no_turn() {
    let (policies, mut seen) = in_turns();
    let begins: Timestamp = "2026-11-21T02:00:30Z".parse().unwrap();
    let first = plan(&policies, &seen, begins);
    // The name of the one that would go first is taken.
    let mut image = memory::image("taken", &first.changes[0].key);
    image.name.clone_from(&first.changes[0].image.name);
    image.labels.clear();
    image.created_at = ago(30);
    seen.engines[0].images = vec![image];
    let other = plan(&policies, &seen, begins);
    assert_eq!((other.summary.create, other.summary.blocked, other.summary.waiting), (1, 1, 0));
    assert_eq!(other.changes[0].key.policy.as_str(), "nightly");
}

#[test]
fn where_nothing_can_be_made_nothing_is_let_go_for_it() {
    let spec = "  retention: {last: 1}\n  capture: {disks: [nowhere]}\n";
    let blocked = planned(spec, vec![night(1, None)]);
    assert_eq!(blocked.blocked.len(), 2);
    assert_eq!(of(&blocked, Action::Deprecate), [""; 0]);
    // Where it can be made, the older one waits for it.
    let made = planned("  retention: {last: 1}\n", vec![night(1, None)]);
    let change = made.changes.iter().find(|change| change.action == Action::Deprecate).unwrap();
    assert!(change.waits_for.is_some());
}

#[test]
fn a_point_that_was_brought_back_begins_its_grace_anew() {
    // Let go long ago, then the policy was widened to three: kept until the coming one is there.
    let images = vec![night(1, None), night(2, None), night(3, Some(2))];
    let plan = planned("  retention: {last: 3}\n  lifecycle: {grace: 1d}\n", images);
    assert_eq!(of(&plan, Action::Delete), [""; 0]);
    let change = plan.changes.iter().find(|change| change.action == Action::Deprecate).unwrap();
    assert!(change.waits_for.is_some());
    assert_eq!(change.update.as_ref().unwrap().set_labels[LABEL_LET_GO], stamp(now()));
}

/// A person has made an image active again that was let go: nothing goes that is not marked as going.
#[test]
fn what_somebody_has_made_active_again_is_let_go_anew() {
    let spec = "  retention: {last: 1}\n  lifecycle: {grace: 1d}\n";
    for state in [ImageState::Ready, ImageState::Partial] {
        let old = |stage: Stage| {
            let mut old = night(3, Some(3));
            (old.stage, old.state) = (stage, state);
            vec![night(0, None), old]
        };
        assert_eq!(of(&planned(spec, old(Stage::Deprecated)), Action::Delete), ["web-1-3"]);
        let mut seen = inventory(old(Stage::Active));
        let policies = policies(spec);
        let anew = plan(&policies, &seen, now());
        assert_eq!(
            (of(&anew, Action::Delete), of(&anew, Action::Deprecate)),
            (vec![], vec!["web-1-3"])
        );
        assert_eq!(check(&anew, &seen, &policies, now()), []);
        let change = anew.changes.iter().find(|one| one.action == Action::Deprecate).unwrap();
        let codes: Vec<ReasonCode> = change.reasons.iter().map(|reason| reason.code).collect();
        assert_eq!(codes[1..], [ReasonCode::DeprecationUndone]);
        assert!(plan_text(&anew).contains("somebody has taken the deprecation back since"));
        // The check holds the reason against what there is.
        let mut untold = anew.clone();
        untold.changes.iter_mut().for_each(|change| change.reasons.truncate(1));
        assert!(
            check(&untold, &seen, &policies, now()).iter().any(|one| one.rule == CheckRule::Reason)
        );
        // The grace begins anew, and is waited for.
        let update = change.update.clone().unwrap();
        let image = seen.engines[0].images.iter_mut().find(|image| image.id == "web-1-3").unwrap();
        image.labels.extend(update.set_labels);
        image.stage = update.stage_after;
        let later = |hours| plan(&policies, &seen, now() + SignedDuration::from_hours(hours));
        for (hours, deleted) in [(13, vec![]), (25, vec!["web-1-3"])] {
            let plan = later(hours);
            assert!(!of(&plan, Action::Deprecate).contains(&"web-1-3"));
            assert_eq!(of(&plan, Action::Delete), deleted);
        }
    }
}

/// An image that has the name of what is due may be that very restore point: nobody is told to delete it.
#[test]
fn what_has_the_name_of_what_is_due_is_said_with_what_to_do() {
    let said = |edit: fn(&mut Image)| {
        let mut there = night(0, None);
        edit(&mut there);
        let plan = planned("  retention: {last: 3}\n", vec![there, night(1, None)]);
        let of_source = plan.blocked.iter().find(|one| one.key.source.as_str() == "web-1");
        of_source.unwrap().message.clone()
    };
    let adopt = "`stillframe adopt --policy nightly` takes it into the policy again";
    let foreign = said(|image| image.labels.clear());
    assert!(foreign.contains("exists already and carries no labels of stillframe;"), "{foreign}");
    let broken = said(|image| drop(image.labels.remove("stillframe-key")));
    assert!(broken.contains("that do not fit together ("), "{broken}");
    for said in [&foreign, &broken] {
        assert!(said.contains(adopt) && said.contains("the next slot"), "{said}");
        assert!(!said.contains("rename") && !said.contains("delete"), "{said}");
    }
    let other = said(|image| {
        let stillframe::name::Ownership::Ours(key) = image.ownership() else { panic!() };
        let policy = stillframe::name::PolicyName::parse("weekly").unwrap();
        image.labels = stillframe::name::Key { policy, ..key }.labels();
    });
    assert!(other.contains(" of weekly, source web-1; look at it"), "{other}");
}

/// A round that has carried out nothing yet of what is left of an approved plan.
fn of_approved(plan: Plan, new: Vec<Change>, changed: BTreeSet<(String, String)>) -> Round {
    Round {
        plan,
        approved: true,
        not_approved: new,
        changed,
        outcomes: Vec::new(),
        unwritten: None,
        settled: Vec::new(),
        after: None,
    }
}

/// What was approved and has changed since is wanted all the same: it is said as that.
#[test]
fn what_has_changed_since_it_was_approved_is_not_called_new() {
    let spec = "  retention: {last: 1}\n";
    let approved = planned(spec, vec![night(0, None), night(1, None)]);
    let mut labelled = night(1, None);
    "another".clone_into(&mut labelled.fingerprint);
    let fresh = planned(spec, vec![night(0, None), labelled, night(2, None)]);
    let (both, new) = in_both(&approved, fresh);
    assert_eq!((of(&both, Action::Deprecate), new.len()), (vec![], 2));
    let changed = changed_since(&approved, &new);
    assert_eq!(changed, BTreeSet::from([("memory".to_owned(), "web-1-1".to_owned())]));
    let round = of_approved(both, new, changed);
    let text = apply_text(&round);
    let notes: Vec<&str> =
        text.lines().filter(|line| line.contains("since")).map(str::trim).collect();
    let wanted = [
        "new since the plan was approved; the next run shows it",
        "it has changed since the plan was approved, and is left alone; the next run shows it",
    ];
    assert_eq!(notes, wanted, "{text}");
}

/// What hangs on a capture that was not approved is left to the next plan with it, and the check finds nothing.
#[test]
fn what_waits_for_a_capture_that_was_not_approved_is_left_as_well() {
    let policies = policies("  retention: {last: 2}\n");
    let seen = inventory(vec![night(1, None), night(2, None), night(3, Some(2))]);
    let fresh = plan(&policies, &seen, now());
    let waits =
        |plan: &Plan| plan.changes.iter().filter(|change| change.waits_for.is_some()).count();
    assert_eq!(waits(&fresh), 1, "{:?}", fresh.changes);
    let (all, new) = in_both(&fresh, fresh.clone());
    assert_eq!((all.changes.len(), new.len()), (fresh.changes.len(), 0));
    let mut approved = fresh.clone();
    approved.changes.retain(|change| change.action != Action::Create);
    let (both, new) = in_both(&approved, fresh.clone());
    assert_eq!(waits(&both), 0, "{:?}", both.changes);
    assert_eq!(both.changes.len() + new.len(), fresh.changes.len());
    assert_eq!(of(&both, Action::Delete), ["web-1-3"], "what hangs on nothing is done");
    let changed = changed_since(&approved, &new);
    let text = apply_text(&of_approved(both, new, changed));
    assert!(text.contains("it hangs on a capture that was not approved"), "{text}");
    assert!(!text.contains("it has changed since"), "{text}");
}

/// Of a set of which one was made and the other failed there is one, whoever made it.
#[test]
fn of_a_set_that_is_not_whole_what_is_there_is_counted() {
    let mut begun = night(0, None);
    begun.state = ImageState::Creating;
    begun.labels.insert(LABEL_SET.to_owned(), "2".to_owned());
    begun.disks = Some(vec!["boot".to_owned()]);
    assert_eq!((begun.members(), begun.members_there()), (2, 1));
    let policies = policies("  retention: {last: 3}\n");
    let mut seen = inventory(vec![begun]);
    seen.engines[0].capabilities.limits.images.insert(ImageKind::MachineImage, 9);
    let mut shown = plan(&policies, &seen, now());
    shown.budget = budget(&policies, &seen, &shown, now());
    assert_eq!(shown.budget.as_ref().unwrap().quotas[0].now, 1);
    let text = plan_text(&shown);
    assert!(text.contains("» 1 begun and not READY yet"), "{text}");
    seen.engines[0].images[0].state = ImageState::Ready;
    assert_eq!(seen.engines[0].images[0].members_there(), 2);
}

#[test]
fn two_images_of_one_slot_are_one_point() {
    let mut twin = night(0, None);
    twin.id = "a-twin".to_owned();
    let images = vec![night(0, None), twin, night(1, Some(1)), night(2, Some(1))];
    let plan = planned("  retention: {last: 2, atLeast: 2}\n  lifecycle: {grace: 1d}\n", images);
    assert_eq!(of(&plan, Action::Delete), ["web-1-2"]);
    assert_eq!(of(&plan, Action::Reactivate), ["web-1-1"]);
    assert_eq!(of(&plan, Action::Deprecate), ["a-twin"]);
}

/// Somebody has copied one disk of a restore point with its labels, under an id that is the larger one: it
/// takes the place of nothing that holds more, and goes with it.
#[test]
fn what_holds_less_stands_for_nothing_that_holds_more() {
    let disks = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
    let of_disks = |id: &str, days, let_go, names: &[&str]| {
        let mut image = night(days, let_go);
        image.id = id.to_owned();
        image.disks = disks(names);
        image
    };
    let spec = "  retention: {last: 2}\n  lifecycle: {grace: 1d}\n";
    for days in [0, 1] {
        let whole = of_disks("a-whole", days, None, &["boot", "data"]);
        let part = of_disks("z-part", days, None, &["boot"]);
        let plan = planned(spec, vec![whole.clone(), part.clone(), night(1 - days, None)]);
        assert_eq!(of(&plan, Action::Deprecate), [""; 0], "{days}");
        // The other way round one of them is enough.
        let mut twin = of_disks("z-twin", days, None, &["data", "boot"]);
        let plan = planned(spec, vec![whole.clone(), twin.clone(), night(1 - days, None)]);
        assert_eq!(of(&plan, Action::Deprecate), ["a-whole"], "{days}");
        // Unless it is of another kind, or nobody knows what it holds.
        twin.kind = ImageKind::Snapshot;
        let plan = planned(spec, vec![whole.clone(), twin.clone(), night(1 - days, None)]);
        assert_eq!(of(&plan, Action::Deprecate), [""; 0], "{days}");
        twin.kind = whole.kind;
        twin.disks = None;
        let plan = planned(spec, vec![whole, twin, night(1 - days, None)]);
        assert_eq!(of(&plan, Action::Deprecate), [""; 0], "{days}");
    }
    // Once no rule keeps their slot, all of it goes.
    let gone = |id, names: &[&str]| of_disks(id, 5, Some(3), names);
    let images =
        vec![gone("a", &["boot", "data"]), gone("z", &["boot"]), night(0, None), night(1, None)];
    assert_eq!(of(&planned(spec, images), Action::Delete), ["a", "z"]);
}

/// The guard and the check find it by themselves.
#[test]
fn the_newest_goes_for_nothing_that_holds_less() {
    let disks = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
    let policies = policies("  retention: {last: 1}\n  lifecycle: {grace: 1d}\n");
    let mut whole = night(0, Some(3));
    whole.created_at = ago(5);
    whole.id = "a-whole".to_owned();
    whole.disks = disks(&["boot", "data"]);
    let mut part = night(0, None);
    part.id = "z-part".to_owned();
    part.disks = disks(&["boot", "data"]);
    let careless = plan(&policies, &inventory(vec![whole.clone(), part.clone()]), now());
    assert_eq!(of(&careless, Action::Delete), ["a-whole"]);
    part.disks = disks(&["boot"]);
    let seen = inventory(vec![whole, part]);
    let refusals = guard(&careless, &seen, &policies, &[], now());
    assert!(refusals.iter().any(|refusal| refusal.guard == Guard::Floor), "{refusals:?}");
    let found = check(&careless, &seen, &policies, now());
    assert!(found.iter().any(|finding| finding.rule == CheckRule::StillKept), "{found:?}");
}

/// Labels that were copied with an image are those of another one: it has its grace from now on.
#[test]
fn a_mark_that_is_older_than_its_image_is_none() {
    let policies = policies("  retention: {last: 1}\n  lifecycle: {grace: 1d}\n");
    let mut copied = night(5, Some(3));
    copied.created_at = ago(1);
    let seen = inventory(vec![night(0, None), copied.clone()]);
    let made = plan(&policies, &seen, now());
    assert_eq!(of(&made, Action::Delete), [""; 0]);
    assert_eq!(of(&made, Action::Deprecate), ["web-1-5"]);
    let change = made.changes.iter().find(|change| change.action == Action::Deprecate).unwrap();
    assert!(change.reasons.iter().any(|reason| reason.code == ReasonCode::OldMark));
    assert_eq!(check(&made, &seen, &policies, now()), []);
    // A planner that believed it would be refused, and found out.
    copied.created_at = ago(5);
    let believed = plan(&policies, &inventory(vec![night(0, None), copied]), now());
    assert_eq!(of(&believed, Action::Delete), ["web-1-5"]);
    let refusals = guard(&believed, &seen, &policies, &[], now());
    assert!(refusals.iter().any(|refusal| refusal.guard == Guard::DeprecateFirst));
    let found = check(&believed, &seen, &policies, now());
    let rule = CheckRule::DeprecateFirst;
    assert!(found.iter().any(|finding| finding.rule == rule), "{found:?}");
}

#[test]
fn an_image_that_is_listed_twice_makes_the_listing_incomplete() {
    let images = vec![night(0, None), night(0, None), night(5, Some(3))];
    let inventory = inventory(images);
    let policies = policies("  retention: {last: 1}\n  lifecycle: {grace: 1d}\n");
    let made = plan(&policies, &inventory, now());
    assert!(!made.engines[0].complete);
    assert_eq!(of(&made, Action::Delete), [""; 0]);
    // A planner that did not look would be refused.
    let mut careless = made.clone();
    let mut blind = inventory.clone();
    blind.engines[0].images.remove(0);
    careless.changes = plan(&policies, &blind, now()).changes;
    assert_eq!(of(&careless, Action::Delete), ["web-1-5"]);
    let refusals = guard(&careless, &inventory, &policies, &[], now());
    assert!(refusals.iter().any(|refusal| refusal.guard == Guard::InventoryGap));
}

#[test]
fn shares_count_only_points_that_protect() {
    let policies = policies("  retention: {last: 3}\n  lifecycle: {grace: 1d}\n");
    let mut images: Vec<Image> = (0..27).map(|day| night(day, (day > 2).then_some(3))).collect();
    let refused = |images: &[Image]| {
        let inventory = inventory(images.to_vec());
        let plan = plan(&policies, &inventory, now());
        withheld(&guard(&plan, &inventory, &policies, &[], now())).len()
    };
    assert_eq!(refused(&images), 24);
    // Failed attempts and points of a wrong clock make no share smaller.
    for day in 0..80 {
        let mut failed = night(200 + day, None);
        failed.state = ImageState::Failed;
        failed.created_at = now();
        images.push(failed);
        images.push(night(-200 - day, None));
    }
    assert!(refused(&images) >= 24);
}

#[test]
fn only_a_failed_attempt_makes_room() {
    let mut failed = night(0, None);
    failed.state = ImageState::Failed;
    let policies = policies("  retention: {last: 3}\n");
    let seen = inventory(vec![failed]);
    let made = plan(&policies, &seen, now());
    let create = made.changes.iter().find(|change| change.source_name == "web-1").unwrap();
    assert!(create.create.as_ref().unwrap().replaces.is_some());
    let refused = |edit: fn(&mut Image)| {
        let mut now_seen = seen.clone();
        edit(&mut now_seen.engines[0].images[0]);
        withheld(&guard(&made, &now_seen, &policies, &[], now())).len()
    };
    assert_eq!(refused(|_| {}), 0);
    assert_eq!(refused(|image| image.state = ImageState::Ready), 1);
    assert_eq!(refused(|image| image.fingerprint = "other".to_owned()), 1);
    assert_eq!(refused(|image| image.in_use_by.push("vm".to_owned())), 1);
}

#[test]
fn narrowing_a_policy_is_no_rotation() {
    let risks = |spec: &str, images: Vec<Image>| -> Vec<Risk> {
        planned(spec, images).changes.iter().filter_map(|change| change.risk).collect()
    };
    let month = || (0..30).map(|day| night(day, (day > 2).then_some(2))).collect::<Vec<_>>();
    for spec in
        ["  retention: {days: 3}\n", "  retention: {last: 3}\n", "  retention: {daily: 3}\n"]
    {
        let risks = risks(spec, month());
        assert_eq!(risks.len(), 27, "{spec}");
        assert!(risks.contains(&Risk::ShortensReach), "{spec}");
    }
    // What goes a day after the rule let go of it is an ordinary night.
    let ordinary = || (0..6).map(|day| night(day, (day > 3).then_some(1))).collect::<Vec<_>>();
    for spec in ["  retention: {days: 4}\n", "  retention: {last: 4}\n"] {
        assert!(!risks(spec, ordinary()).contains(&Risk::ShortensReach), "{spec}");
    }
}

#[test]
fn bringing_back_goes_no_further_and_takes_back_only_what_is_ours() {
    let spec = "  retention: {last: 9}\n  lifecycle: {deprecateAfter: 1d, obsoleteAfter: 2d}\n";
    let mut old = night(5, Some(1));
    old.stage = Stage::Deprecated;
    old.labels.insert(LABEL_STAGED.to_owned(), stamp(ago(1)));
    let stage_after = |images: Vec<Image>| {
        let plan = planned(spec, images);
        let back = plan.changes.iter().find(|change| change.action == Action::Reactivate).unwrap();
        back.update.as_ref().unwrap().stage_after
    };
    assert_eq!(stage_after(vec![night(0, None), old.clone()]), Stage::Deprecated);
    // A person has deprecated it: letting go of it does not make that ours.
    let mut by_hand = night(5, None);
    by_hand.stage = Stage::Deprecated;
    let let_go = planned("  retention: {last: 1}\n", vec![night(0, None), by_hand]);
    let change = let_go.changes.iter().find(|change| change.action == Action::Deprecate).unwrap();
    assert!(!change.update.as_ref().unwrap().set_labels.contains_key(LABEL_STAGED));
}

#[test]
fn a_mark_of_a_missing_source_goes_as_soon_as_it_is_back() {
    let mut marked = night(0, None);
    marked.labels.insert(LABEL_MISSING.to_owned(), stamp(ago(20)));
    // Also while nothing is to be deleted: it only keeps for longer.
    let spec = "  retention: {last: 3}\n  paused: {deletes: true}\n";
    assert_eq!(of(&planned(spec, vec![marked]), Action::Relabel), ["web-1-0"]);
}

#[test]
fn failed_attempts_stay_where_nothing_is_to_be_deleted() {
    let mut failed = night(3, None);
    failed.state = ImageState::Failed;
    let deleted = |spec: &str, others: Vec<Image>, failed: &Image| {
        let mut images = others;
        images.push(failed.clone());
        of(&planned(spec, images), Action::Delete).len()
    };
    assert_eq!(deleted("  retention: {last: 3}\n", nights(0..2), &failed), 1);
    assert_eq!(deleted("  retention: {}\n", nights(0..2), &failed), 0);
    assert_eq!(deleted("  retention: {last: 3}\n", nights(8..9), &failed), 0);
    let mut future = night(-9, None);
    future.state = ImageState::Failed;
    future.created_at = ago(30);
    assert_eq!(deleted("  retention: {last: 3}\n", nights(0..2), &future), 0);
}

/// A set that lacks a disk may be what an attempt has left, or a restore point that somebody has taken a
/// part of: it goes like what no rule keeps, and only once something newer is READY.
#[test]
fn what_is_partial_is_let_go_before_it_is_deleted() {
    let spec = "  retention: {last: 3}\n  lifecycle: {grace: 2d}\n";
    let part = |let_go: Option<i64>| {
        let mut part = night(3, let_go);
        part.state = ImageState::Partial;
        part
    };
    let with = |part: Image, others: Vec<Image>| {
        let mut images = others;
        images.push(part);
        let plan = planned(spec, images);
        let actions = [Action::Deprecate, Action::Delete, Action::Reactivate];
        let found = actions.into_iter().find(|action| of(&plan, *action).contains(&"web-1-3"));
        let removed = plan.changes.iter().find(|change| Some(change.action) == found);
        let removed = removed.and_then(|change| change.update.clone());
        (found, removed.map(|update| update.remove_labels).unwrap_or_default())
    };
    let lowered = |action| (Some(action), Vec::<String>::new());
    assert_eq!(with(part(None), nights(0..2)), lowered(Action::Deprecate));
    assert_eq!(with(part(Some(1)), nights(0..2)), (None, vec![]));
    assert_eq!(with(part(Some(3)), nights(0..2)), lowered(Action::Delete));
    // What stays after all begins anew when it is let go again.
    let mut held = part(Some(3));
    held.labels.insert(LABEL_HOLD.to_owned(), "yes".to_owned());
    let brought_back = |labels: &[&str]| {
        (Some(Action::Reactivate), labels.iter().map(|label| (*label).to_owned()).collect())
    };
    assert_eq!(with(held.clone(), nights(0..2)), brought_back(&[LABEL_LET_GO]));
    held.labels.remove(LABEL_LET_GO);
    assert_eq!(with(held, nights(0..2)), (None, vec![]));
    // However old it is, it may be the best there is.
    let mut only = part(Some(3));
    only.created_at = ago(30);
    assert_eq!(with(only.clone(), vec![]), brought_back(&[LABEL_LET_GO]));
    assert_eq!(with(only, nights(8..9)), brought_back(&[LABEL_LET_GO]));
}

/// What is left of the point of a day, and holds these disks.
fn part(day: i64, let_go: Option<i64>, disks: &[&str]) -> Image {
    let mut part = night(day, let_go);
    part.state = ImageState::Partial;
    part.disks = Some(disks.iter().map(|disk| (*disk).to_owned()).collect());
    part
}

#[test]
fn of_what_is_partial_the_newest_of_each_disk_stays() {
    let spec = "  retention: {last: 3}\n  lifecycle: {grace: 2d}\n";
    let both = &["boot", "data"][..];
    let let_go = |images: &[Image]| -> Vec<String> {
        let plan = planned(spec, images.to_vec());
        of(&plan, Action::Deprecate).into_iter().map(str::to_owned).collect()
    };
    let parts = [part(1, None, &["boot"]), part(2, None, both), part(3, None, both)];
    assert_eq!(let_go(&parts), ["web-1-3"]);
    let parts = [part(1, None, both), part(2, None, &["boot"]), part(3, None, &["data"])];
    assert_eq!(let_go(&parts), ["web-1-3", "web-1-2"]);
    // The disks of two were never seen together.
    let parts = [part(1, None, &["boot"]), part(2, None, &["data"]), part(3, None, both)];
    assert_eq!(let_go(&parts), [""; 0]);
    // What is there is said.
    let plan = planned(spec, vec![part(1, None, both), part(2, None, &["boot"])]);
    let change = plan.changes.iter().find(|one| one.action == Action::Deprecate).unwrap();
    let name = night(1, None).name;
    assert_eq!(change.reasons[0].code, ReasonCode::NewerRemainder);
    assert_eq!(
        change.reasons[0].detail,
        format!(
            "is not whole; {name} of 2026-11-20 02:00Z is newer and holds all that it does: boot"
        )
    );
    // Where it is not known which disks are left, everything stays.
    let mut unknown = [part(1, None, both), part(2, None, both)];
    unknown[0].disks = None;
    assert_eq!(let_go(&unknown), [""; 0]);
    unknown.reverse();
    assert_eq!(let_go(&unknown), [""; 0]);
    // A hold, and a source that is not to lose anything yet, keep it as anything else.
    let mut held = [part(1, None, both), part(2, None, both)];
    held[1].labels.insert(LABEL_HOLD.to_owned(), "yes".to_owned());
    assert_eq!(let_go(&held), [""; 0]);
    let mut gone = inventory(vec![part(1, None, both), part(2, None, both)]);
    gone.engines[0].instances.clear();
    let held_back = stillframe::plan::plan(&policies(spec), &gone, now());
    assert_eq!(of(&held_back, Action::Deprecate), [""; 0]);
    assert_eq!(held_back.held_back.len(), 1);
}

/// What would be cleared away for a new attempt stands for nothing.
#[test]
fn what_is_partial_does_not_go_for_what_may_be_replaced() {
    let both = &["boot", "data"][..];
    let images = vec![part(0, None, both), part(1, Some(1), both)];
    let mut policies = policies("  retention: {last: 3}\n  lifecycle: {grace: 1d}\n");
    policies.policies[0].schedule.deadline = Some(Elapsed::hours(13));
    let mut seen = inventory(images);
    seen.engines[0].instances.truncate(1);
    let later = |policies: &Policies, hours: i64| {
        plan(policies, &seen, now() + SignedDuration::from_hours(hours))
    };
    let due = later(&policies, 3);
    assert_eq!(of(&due, Action::Reactivate), ["web-1-1"]);
    assert!(due.changes.iter().any(|change| change.action == Action::Create));
    assert_eq!(of(&later(&policies, 4), Action::Delete), ["web-1-1"]);
    // Nothing is made at present, and may be later.
    let until = Some(now() + SignedDuration::from_hours(2));
    let pause = Pause { creates: true, deletes: false, until, reason: None, is_blackout: false };
    policies.policies[0].paused = Some(pause);
    let paused = later(&policies, 1);
    assert_eq!((paused.changes.len(), of(&paused, Action::Reactivate)), (1, vec!["web-1-1"]));
}

/// A source whose one disk cannot be captured leaves a part with each slot.
#[test]
fn a_disk_that_cannot_be_captured_costs_no_more_every_day() {
    let policies = policies("  retention: {last: 3}\n  lifecycle: {grace: 1d}\n");
    for ready in [None, Some(3)] {
        let mut seen = inventory(ready.map(|day| night(day, None)).into_iter().collect());
        seen.engines[0].instances.truncate(1);
        for hours in 0..24 * 20 {
            let now = now() + SignedDuration::from_hours(hours);
            let plan = plan(&policies, &seen, now);
            let refusals = guard(&plan, &seen, &policies, &[], now);
            assert!(refusals.is_empty(), "{refusals:#?}");
            for change in &plan.changes {
                carry_out(&mut seen, change);
                if change.action == Action::Create {
                    let made = seen.engines[0].images.last_mut().unwrap();
                    made.id = format!("{}-{hours}", made.id);
                    made.state = ImageState::Partial;
                    made.disks = Some(vec!["boot".to_owned()]);
                }
            }
            let parts = seen.engines[0].images.iter();
            let parts = parts.filter(|image| image.state == ImageState::Partial).count();
            assert!((1..=4).contains(&parts), "{parts} after {hours} hours");
        }
        let is_ready = |image: &&Image| image.state == ImageState::Ready;
        let left = seen.engines[0].images.iter().filter(is_ready).count();
        assert_eq!(left, usize::from(ready.is_some()));
    }
}

#[test]
fn what_is_partial_and_was_let_go_can_be_brought_back() {
    let spec = "  retention: {last: 3}\n  lifecycle: {grace: 2d}\n";
    let policies = policies(spec);
    let mut part = night(3, None);
    part.state = ImageState::Partial;
    let mut images = nights(0..2);
    images.push(part);
    let before = inventory(images);
    let lowered = plan(&policies, &before, now());
    assert_eq!(of(&lowered, Action::Deprecate), ["web-1-3"]);
    let mut after = before.clone();
    let update = lowered.changes.iter().find(|one| one.action == Action::Deprecate);
    let update = update.and_then(|change| change.update.clone()).unwrap();
    let part = after.engines[0].images.iter_mut().find(|one| one.state == ImageState::Partial);
    let part = part.unwrap();
    part.stage = update.stage_after;
    part.labels.extend(update.set_labels);
    let undone = undo(&lowered, plan(&policies, &after, now()), &after);
    assert_eq!((of(&undone.plan, Action::Reactivate), undone.already), (vec!["web-1-3"], 0));
    // A failed attempt holds nothing that could come back.
    let part = after.engines[0].images.iter_mut().find(|one| one.state == ImageState::Partial);
    part.unwrap().state = ImageState::Failed;
    let undone = undo(&lowered, plan(&policies, &after, now()), &after);
    assert_eq!((of(&undone.plan, Action::Reactivate), undone.already), (vec![], 1));
}

/// Somebody has removed a disk's snapshots from every set there is.
#[test]
fn guards_count_what_is_partial() {
    let policies = policies("  retention: {last: 30}\n  lifecycle: {grace: 1d}\n");
    let images = (0..24).map(|day| {
        let mut image = night(day, (day > 5).then_some(3));
        if day > 5 {
            image.state = ImageState::Partial;
        }
        image
    });
    let inventory = inventory(images.collect());
    let plan = plan(&policies, &inventory, now());
    assert_eq!(of(&plan, Action::Delete).len(), 18);
    assert_eq!(withheld(&guard(&plan, &inventory, &policies, &[], now())).len(), 18);
    // Without having been let go nothing that holds data is deleted, whoever plans that.
    let mut hasty = inventory.clone();
    hasty.engines[0].images.iter_mut().for_each(|image| drop(image.labels.remove(LABEL_LET_GO)));
    let refusals = guard(&plan, &hasty, &policies, &[], now());
    assert!(refusals.iter().any(|refusal| refusal.guard == Guard::DeprecateFirst));
}

#[test]
fn what_is_stalled_or_from_the_future_is_said() {
    let plan = planned("  retention: {last: 3}\n", vec![night(8, None), night(-9, None)]);
    assert_eq!((plan.summary.stalled, plan.summary.quarantined), (1, 1));
    assert!(
        plan.kept.iter().any(|kept| kept.reasons.iter().any(|r| r.code == ReasonCode::Quarantined))
    );
    assert_eq!(plan.missed.iter().map(|missed| missed.slots).collect::<Vec<_>>(), [7]);
}

#[test]
fn an_instant_within_a_second_counts_as_that_second() {
    let policies = policies("  retention: {last: 3}\n");
    let seen: Inventory = inventory(nights(0..3));
    let later = now() + SignedDuration::from_millis(999);
    assert_eq!(plan(&policies, &seen, later), plan(&policies, &seen, now()));
}

#[test]
fn a_disk_less_machine_is_blocked_and_said() {
    let mut seen = inventory(Vec::new());
    seen.engines[0].instances[0].disks = Vec::<Disk>::new();
    let plan = plan(&policies("  retention: {last: 3}\n"), &seen, now());
    assert_eq!(plan.summary.blocked, 1);
    assert!(plan.blocked[0].message.contains("no disk"));
}

#[test]
fn a_jitter_that_would_starve_sources_is_a_finding() {
    let findings = |schedule: &str| {
        let text = format!(
            "apiVersion: stillframe/v1\nkind: BackupPolicy\nmetadata: {{name: p}}\nspec:\n  \
             source: {{match: [{{names: [\"*\"]}}]}}\n  schedule: {{{schedule}}}\n  retention: {{last: 3}}\n"
        );
        let file = SourceFile { path: "p.yaml".to_owned(), text };
        let found = load(vec![file], &[]).findings;
        found.iter().filter(|finding| finding.message.contains("jitter")).count()
    };
    assert_eq!(findings("cron: \"*/5 * * * *\", jitter: 1h, deadline: 2h"), 1);
    assert_eq!(findings("cron: \"*/15 * * * *\", jitter: 1h"), 1);
    assert_eq!(findings("cron: \"0 2 * * 1\", jitter: 24h"), 1);
    assert_eq!(findings("cron: \"0 2 * * *\", jitter: 1h, deadline: 1h"), 1);
    assert_eq!(findings("cron: \"0 2 * * *\", jitter: 1h"), 0);
}

#[test]
fn a_failed_attempt_stays_until_something_as_new_is_ready() {
    let spec = "  retention: {last: 3}\n";
    let with = |state: ImageState, day: i64| {
        let mut image = night(day, None);
        image.state = state;
        image.created_at = ago(1);
        image
    };
    let making = with(ImageState::Creating, 0);
    let failed = with(ImageState::Failed, 1);
    let images = vec![making.clone(), failed.clone(), night(2, None)];
    assert_eq!(of(&planned(spec, images), Action::Delete), [""; 0]);
    let images = vec![night(0, None), failed, night(2, None)];
    assert_eq!(of(&planned(spec, images), Action::Delete), ["web-1-1"]);
}

#[test]
fn what_is_late_or_early_is_not_made() {
    let creates = |schedule: &str| {
        let text = format!(
            "apiVersion: stillframe/v1\nkind: Config\nspec:\n  engines: {{memory: {{memory: {{}}}}}}\n---\n\
             apiVersion: stillframe/v1\nkind: BackupPolicy\nmetadata: {{name: nightly}}\nspec:\n  \
             source: {{match: [{{names: [\"web-*\"]}}]}}\n  schedule: {schedule}\n  retention: {{last: 3}}\n"
        );
        let kind = EngineKind {
            check: |_| Vec::new(),
            name: "memory",
            settings_schema: serde_json::json!({"type": "object"}),
            capabilities: |_| stillframe::inventory::Capabilities::default(),
        };
        let file = SourceFile { path: "all.yaml".to_owned(), text };
        let policies = load(vec![file], &[kind]).policies.unwrap();
        plan(&policies, &inventory(vec![night(1, None)]), now()).summary.create
    };
    // It is noon.
    assert_eq!(creates("{cron: \"0 2 * * *\"}"), 2);
    assert_eq!(creates("{cron: \"0 2 * * *\", deadline: 10h}"), 2);
    assert_eq!(creates("{cron: \"0 2 * * *\", deadline: 9h59m}"), 0);
    let policy = stillframe::name::PolicyName::parse("nightly").unwrap();
    let starts = ["web-1", "web-2"].map(|source| {
        let source = stillframe::name::SourceId::parse(source).unwrap();
        stillframe::name::spread(&policy, &source, 12 * 3_600)
    });
    let begun = starts.iter().filter(|start| **start <= 2 * 3_600).count();
    assert!(begun < 2, "both have begun: {starts:?}");
    assert_eq!(creates("{cron: \"0 10 * * *\", jitter: 12h}"), begun);
}

#[test]
fn a_source_is_gone_since_the_earliest_mark() {
    let spec = "  retention: {last: 1}\n  lifecycle: {grace: 0, sourceGoneGrace: 14d}\n";
    let deletes = |marks: [i64; 2]| {
        let mut images = [night(3, Some(2)), night(4, Some(2)), night(5, Some(2))];
        for (image, days) in images.iter_mut().zip(marks) {
            image.labels.insert(LABEL_MISSING.to_owned(), stamp(ago(days)));
        }
        let mut seen = inventory(images.to_vec());
        seen.engines[0].instances.clear();
        plan(&policies(spec), &seen, now()).summary.delete
    };
    assert_eq!(deletes([1, 13]), 0);
    assert_eq!(deletes([1, 14]), 2);
    assert_eq!(deletes([14, 1]), 2);
}

/// A policy for a kind of image over machines with two disks, on an engine that is changed.
fn over_two_disks(kind: &str, change: impl FnOnce(&mut Capabilities)) -> Plan {
    let mut seen = inventory(Vec::new());
    change(&mut seen.engines[0].capabilities);
    let mut policies = policies(&format!("  capture: {{kind: {kind}}}\n"));
    policies.policies[0].location.clear();
    let plan = plan(&policies, &seen, now());
    assert_eq!(check(&plan, &seen, &policies, now()), []);
    plan
}

#[test]
fn a_kind_that_holds_one_disk_is_blocked_at_sources_of_several() {
    let one_disk = |can: &mut Capabilities| can.one_disk_kinds = vec![ImageKind::DiskImage];
    let plan = over_two_disks("disk-image", one_disk);
    assert_eq!((plan.summary.create, plan.summary.blocked), (0, 2));
    let message = "a disk-image holds one disk, and `capture.disks` takes 2: boot, data";
    assert_eq!(plan.blocked[0].message, message);
    assert_eq!(over_two_disks("snapshot", one_disk).summary.create, 2);
}

#[test]
fn a_kind_that_holds_the_boot_disk_is_blocked_without_it() {
    let policies = policies("  capture: {kind: disk-image, disks: [data]}\n");
    let mut seen = inventory(Vec::new());
    let free = plan(&policies, &seen, now());
    assert_eq!(free.summary.create, 2);
    seen.engines[0].capabilities.boot_disk_kinds = vec![ImageKind::DiskImage];
    let blocked = plan(&policies, &seen, now());
    assert_eq!((blocked.summary.create, blocked.summary.blocked), (0, 2));
    let message = "a disk-image of this engine always holds the disk that the machine starts from, and `capture.disks` takes only: data";
    assert_eq!(blocked.blocked[0].message, message);
    // A plan that makes it all the same is refused by the check.
    assert_eq!(check(&blocked, &seen, &policies, now()), []);
    let found = check(&free, &seen, &policies, now());
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn a_capture_disk_by_disk_says_so() {
    let per_disk = |can: &mut Capabilities| can.per_disk_kinds = vec![ImageKind::Snapshot];
    let is_said = |plan: &Plan| {
        plan.changes.iter().all(|change| change.create.as_ref().unwrap().disk_by_disk)
    };
    assert!(is_said(&over_two_disks("snapshot", per_disk)));
    assert!(!is_said(&over_two_disks("machine-image", per_disk)));
    let text = plan_text(&over_two_disks("snapshot", per_disk));
    assert!(
        text.contains("disk by disk: its 2 disks are crash-consistent each by itself"),
        "{text}"
    );
    let mut flushed = over_two_disks("snapshot", per_disk);
    for change in &mut flushed.changes {
        change.create.as_mut().unwrap().consistency = Consistency::Application;
    }
    let text = plan_text(&flushed);
    assert!(text.contains("its 2 disks are application-consistent each by itself"), "{text}");
}

/// What the plan says of the instants of a capture disk by disk, on an engine of a kind.
fn instants_on(engine: &str, settings: &serde_json::Value, kind: &str) -> String {
    let kinds = stillframe::engine::kinds();
    let its = kinds.into_iter().find(|kind| kind.name == engine).unwrap();
    let its = (its.capabilities)(settings);
    let plan = over_two_disks(kind, |can| {
        can.kinds = its.kinds;
        can.consistencies = its.consistencies;
        can.crash_only_kinds = its.crash_only_kinds;
        can.per_disk_kinds = its.per_disk_kinds;
        can.companions = its.companions;
    });
    let text = plan_text(&plan);
    let note = text.lines().find(|line| line.contains("of its own instant")).unwrap();
    note.split_once("of its own instant").unwrap().1.to_owned()
}

#[test]
fn a_plan_advises_only_what_its_engine_offers() {
    let gce = serde_json::json!({"projects": ["p"]});
    let yandex = serde_json::json!({"folders": ["f"]});
    let twcc = serde_json::json!({"project": "GOV000001"});
    let of_machine = "; with `kind: machine-image` all are of one instant";
    assert_eq!(instants_on("gce", &gce, "snapshot"), of_machine);
    let of_stopped = "; with `consistency: stopped` all are of one instant";
    assert_eq!(instants_on("yandex", &yandex, "snapshot"), of_stopped);
    assert_eq!(instants_on("twcc", &twcc, "disk-image"), "");
}

#[test]
fn a_capture_says_what_becomes_of_which_disk() {
    let twcc = stillframe::engine::kinds().into_iter().find(|kind| kind.name == "twcc").unwrap();
    let its = (twcc.capabilities)(&serde_json::json!({"project": "GOV000001"}));
    let plan = over_two_disks("disk-image", |can| {
        can.per_disk_kinds = its.per_disk_kinds;
        can.companions = its.companions;
    });
    let text = plan_text(&plan);
    let sentence = "disk by disk: the disk that it starts from becomes a disk-image, each other one a snapshot of its volume; its 2 disks are crash-consistent each by itself, of its own instant";
    assert_eq!(text.matches(sentence).count(), 2, "{text}");
    // Where all become the same there is nothing to tell apart.
    let per_disk = |can: &mut Capabilities| can.per_disk_kinds = vec![ImageKind::DiskImage];
    assert!(!plan_text(&over_two_disks("disk-image", per_disk)).contains("becomes a"));
}

#[test]
fn a_plan_names_where_images_of_a_zone_are_stored() {
    let stored = |locations: &[(&str, &str)]| {
        let owned = |text: &str| text.to_owned();
        let plan = over_two_disks("machine-image", |can| {
            can.locations.clear();
            can.default_locations =
                locations.iter().map(|(zone, place)| (owned(zone), owned(place))).collect();
        });
        plan.changes[0].image.location.clone()
    };
    assert_eq!(stored(&[]), "");
    assert_eq!(stored(&[("other-", "far")]), "");
    assert_eq!(stored(&[("z", "wide"), ("zone-", "near"), ("zone-b", "far")]), "near");
}
