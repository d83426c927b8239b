//! Imports: which are taken and why others are not, what becomes of them, and what is shown of it.

use std::fs;

use jiff::SignedDuration;
use stillframe::import::{ImportError, Importing, Wanted, guard, import, place_label};
use stillframe::inventory::{
    Gap, GapScope, Image, ImageState, Inventory, LABEL_COPY, LABEL_HOLD, LABEL_IMPORTED,
    LABEL_LET_GO, LABEL_MISSING, LABEL_REMOVED, LABEL_STAGE, LABEL_STAGED, OWN_LABELS,
};
use stillframe::name::{Key, Ownership, PolicyName, Slot};
use stillframe::plan::{Action, ImageRef, Plan, ReasonCode, Update, plan};
use stillframe::policy::Policies;

use super::engines::policies;
use super::guards::{ago, image, inventory, now};
use super::memory;
use super::support::{Datacenter, golden, transcript};
use super::worlds::carry_out;

const CAPTURE: &str = "  capture: {kind: disk-image, disks: boot}\n";
const LAST: &str = "  retention: {last: 3}\n  lifecycle: {grace: 0h}\n";

/// A disk of `web-1` as it was so many hours ago.
fn wanted(hours: i64) -> Wanted {
    Wanted {
        policy: PolicyName::parse("nightly").unwrap(),
        source: "web-1".to_owned(),
        is_gone: false,
        device: None,
        at: now() - SignedDuration::from_hours(hours),
        from: "https://storage.example.net/b/web-1.qcow2".to_owned(),
    }
}

fn try_import(
    policies: &Policies,
    inventory: &Inventory,
    wanted: &Wanted,
) -> Result<Importing, ImportError> {
    let importers = ["memory".to_owned()];
    import(policies, inventory, wanted, &importers, now())
}

fn refusal(spec: &str, images: Vec<Image>, wanted: &Wanted) -> String {
    refusal_in(spec, &inventory(images), wanted)
}

fn refusal_in(spec: &str, inventory: &Inventory, wanted: &Wanted) -> String {
    try_import(&policies(spec), inventory, wanted).expect_err(spec).to_string()
}

/// What is imported, and what is there then.
fn imported(spec: &str, images: Vec<Image>, wanted: &Wanted) -> (Importing, Inventory) {
    let (policies, inventory) = (policies(spec), inventory(images));
    let importing = try_import(&policies, &inventory, wanted).unwrap();
    assert_eq!(guard(&importing.plan, &policies, &inventory), []);
    assert_eq!(importing.plan.changes.len(), 1);
    let mut after = inventory;
    carry_out(&mut after, &importing.plan.changes[0]);
    (importing, after)
}

fn with(capture: &str, rest: &str) -> String {
    format!("{capture}{rest}")
}

fn boot(rest: &str) -> String {
    with(CAPTURE, rest)
}

/// What a plan lets go of or takes away.
fn goes(plan: &Plan) -> Vec<&str> {
    let lets_go = |change: &&stillframe::plan::Change| {
        let update = change.update.as_ref();
        change.action == Action::Delete
            || update.is_some_and(|update| update.set_labels.contains_key(LABEL_LET_GO))
    };
    plan.changes.iter().filter(lets_go).map(|change| change.image.name.as_str()).collect()
}

#[test]
fn a_disk_becomes_a_restore_point_that_the_next_plan_keeps() {
    let days = vec![image("web-1", 0, None), image("web-1", 5, None)];
    let (importing, after) = imported(&boot(LAST), days, &wanted(60));
    let change = &importing.plan.changes[0];
    let create = change.create.as_ref().unwrap();
    assert_eq!((change.action, &change.key.source), (Action::Create, &change.key.source));
    assert_eq!(change.key.slot.instant(), now() - SignedDuration::from_hours(60));
    assert_eq!(change.image.name, change.key.image_name(&change.key.default_prefix()));
    let mut labels = change.key.labels();
    labels.insert(LABEL_IMPORTED.to_owned(), place_label(&wanted(60).from));
    assert_eq!(create.labels, labels);
    assert_eq!(
        (&create.disks[..], &create.excluded_disks[..]),
        (&["boot".to_owned()][..], &["data".to_owned()][..])
    );
    assert_eq!(change.reasons[0].code, ReasonCode::Imported);
    assert!(importing.placed.is_boot && !importing.placed.is_gone);
    let forecast = importing.forecast.unwrap();
    assert!(forecast.deprecated_at.is_some(), "{forecast:?}");
    assert_eq!(importing.notes, Vec::<String>::new());
    let next = plan(&policies(&boot(LAST)), &after, now());
    assert_eq!(goes(&next), Vec::<&str>::new());
    assert!(next.kept.iter().any(|kept| kept.name == change.image.name));
}

/// What was let go and is kept again has a grace of its own, which an import must not cost it.
#[test]
fn nothing_is_imported_without_which_something_would_be_brought_back() {
    let spec = boot("  retention: {last: 2}\n  lifecycle: {grace: 48h}\n");
    let images = vec![image("web-1", 0, None), image("web-1", 1, Some(1))];
    let without = plan(&policies(&spec), &inventory(images.clone()), now());
    assert_eq!(without.summary.reactivate, 1, "{:?}", without.changes);
    let said = refusal(&spec, images, &wanted(20));
    let part = "would let go of nightly-web-1-20261120-1200z-vis4ct6x, which it keeps now";
    assert!(said.contains(part), "{said}");
    // What goes anyhow is nothing to lose.
    let images = vec![image("web-1", 0, None), image("web-1", 2, Some(1))];
    let spec = boot("  retention: {last: 1, days: 1}\n  lifecycle: {grace: 48h}\n");
    imported(&spec, images, &wanted(20));
}

/// Whatever keeps the capture of a slot from beginning now.
#[test]
fn nothing_stands_for_a_slot_that_can_still_be_captured() {
    let paused = boot(
        "  retention: {last: 5}\n  paused: {creates: true, until: 2026-12-01, reason: moving}\n",
    );
    let said = refusal(&paused, vec![image("web-1", 1, None)], &wanted(1));
    assert!(said.contains("would not be made, which may begin until"), "{said}");
    // One that was captured, or is of before, is in nobody's way.
    imported(&paused, vec![image("web-1", 0, None)], &wanted(1));
    imported(&paused, vec![image("web-1", 1, None)], &wanted(20));
}

/// The copy that the next plan makes of it counts like the image itself.
#[test]
fn what_an_import_pushes_out_of_a_vault_is_not_lost() {
    let spec = boot(
        "  retention: {last: 3}\n  lifecycle: {grace: 48h}\n  storage: {location: local, copies: [vault]}\n",
    );
    let copy = |day: i64| {
        let mut copy = image("web-1", day, None);
        copy.id = format!("copy-{day}");
        copy.name = format!("copy-{day}");
        copy.location = "vault".to_owned();
        copy.labels.insert(LABEL_COPY.to_owned(), "yes".to_owned());
        copy
    };
    let only = vec![image("web-1", 0, None), copy(0), copy(1), copy(2)];
    let said = refusal(&spec, only.clone(), &wanted(20));
    assert!(said.contains("would let go of copy-2, which it keeps now"), "{said}");
    imported(&spec, only[..3].to_vec(), &wanted(20));
}

#[test]
fn what_cannot_be_imported_is_refused_with_the_reason() {
    let day = |days: i64| image("web-1", days, None);
    let later = Wanted { at: now() + SignedDuration::from_secs(1), ..wanted(0) };
    let of = |source: &str| Wanted { source: source.to_owned(), ..wanted(60) };
    let device = |device: &str| Wanted { device: Some(device.to_owned()), ..wanted(60) };
    let gone = |wanted: Wanted| Wanted { is_gone: true, ..wanted };
    let nobody = Wanted { policy: PolicyName::parse("nobody").unwrap(), ..wanted(60) };
    let all = with("  capture: {kind: disk-image}\n", LAST);
    let data = with("  capture: {kind: disk-image, disks: [nothing]}\n", LAST);
    let encrypted = boot("  encryption: {kmsKey: web}\n");
    for (spec, wanted, why) in [
        (boot(LAST), nobody, "there is no policy `nobody`"),
        (LAST.to_owned(), wanted(60), "makes machine-images, and what is imported is one disk"),
        (with("  capture: {kind: snapshot}\n", LAST), wanted(60), "makes snapshots"),
        (encrypted, wanted(60), "asks for the key web, and what is imported has no key"),
        (boot(LAST), later, "is in the future"),
        (boot(LAST), of("web-7"), "has no instance web-7, and nightly has no restore point of one"),
        (boot(LAST), gone(of("Web 7")), "not a source id"),
        (boot(LAST), gone(wanted(60)), "is there: leave --gone out"),
        (boot(LAST), of("db-1"), "nightly does not select db-1"),
        (boot(LAST), of("twin"), "2 instances are named twin: name one by its id (db-2, db-3)"),
        (
            all.clone(),
            wanted(60),
            "takes 2 of web-1: say which one it is with --device (boot, data)",
        ),
        (all, device("spare"), "takes boot, data, and not spare"),
        (boot(LAST), device("data"), "takes boot, and not data"),
        (data, wanted(60), "takes none"),
    ] {
        let mut there = inventory(vec![day(0)]);
        for (id, name) in [("db-1", "db-1"), ("db-2", "twin"), ("db-3", "twin")] {
            let mut instance = memory::instance(id, &[]);
            name.clone_into(&mut instance.name);
            there.engines[0].instances.push(instance);
        }
        let said = refusal_in(&spec, &there, &wanted);
        assert!(said.contains(why), "{why}: {said}");
    }
    // All that is in the way is said.
    let sealed = with("  capture: {kind: snapshot}\n  encryption: {kmsKey: web}\n", LAST);
    let later = Wanted { at: now() + SignedDuration::from_hours(1), ..wanted(0) };
    let taken = Wanted { device: Some("data".to_owned()), ..wanted(24) };
    for (spec, wanted, whys) in [
        (sealed, later, &["is in the future", "makes snapshots", "the key web"][..]),
        (boot(LAST), taken, &["stands for 20261120t120000z", "and not data"][..]),
    ] {
        let said = refusal(&spec, vec![day(0), day(1)], &wanted);
        assert!(said.starts_with(&format!("{} things are in the way:", whys.len())), "{said}");
        assert!(whys.iter().all(|why| said.contains(why)), "{said}");
    }
    // Over half a listing nobody knows what is there.
    let mut half = inventory(vec![day(0)]);
    half.engines[0].gaps.push(Gap {
        scope: GapScope::Images,
        place: "page 2".to_owned(),
        message: "cut off".to_owned(),
    });
    assert!(refusal_in(&boot(LAST), &half, &wanted(60)).contains("not seen whole (page 2"));
}

/// The label has nothing of the place that could be read, and room beside all that an image may get.
#[test]
fn an_image_says_where_it_is_from_and_has_room_for_that() {
    let (importing, _) = imported(&boot(LAST), vec![image("web-1", 0, None)], &wanted(60));
    let labels = &importing.plan.changes[0].create.as_ref().unwrap().labels;
    let label = &labels[LABEL_IMPORTED];
    assert!(label.len() == 16 && label.bytes().all(|byte| byte.is_ascii_hexdigit()), "{label}");
    assert_ne!(*label, place_label("https://storage.example.net/b/web-1.raw"));
    // Which disk a machine starts from, stages, a hold, marks, and that it is a copy.
    let marks = [
        stillframe::engine::set::LABEL_BOOT,
        LABEL_COPY,
        LABEL_HOLD,
        LABEL_LET_GO,
        LABEL_MISSING,
        LABEL_REMOVED,
        LABEL_STAGE,
        LABEL_STAGED,
    ];
    assert!(marks.iter().all(|mark| !labels.contains_key(*mark)));
    assert!(labels.len() + marks.len() <= OWN_LABELS, "{labels:?}");
}

#[test]
fn a_file_that_looks_like_something_else_is_noted() {
    for (file, is_other) in
        [("web-1.vhdx", true), ("web-1.raw.GZ", true), ("web-1.qcow2", false), ("web-1", false)]
    {
        let from = format!("https://storage.example.net/b.zip/{file}");
        let wanted = Wanted { from, ..wanted(60) };
        let (importing, _) = imported(&boot(LAST), vec![image("web-1", 0, None)], &wanted);
        let is_noted = importing.notes.iter().any(|note| note.contains("(raw)"));
        assert_eq!(is_noted, is_other, "{file}: {:?}", importing.notes);
    }
}

#[test]
fn an_engine_that_imports_nothing_says_which_do() {
    let mut policies = policies(&boot(LAST));
    policies.config.engines.get_mut("memory").unwrap().capabilities.imports.clear();
    let error = try_import(&policies, &inventory(Vec::new()), &wanted(60)).unwrap_err();
    let said = error.to_string();
    assert!(said.contains("imports nothing; kinds of engine that do: memory"), "{said}");
}

#[test]
fn a_slot_has_one_restore_point() {
    let of = |state: ImageState, edit: &dyn Fn(&mut Image)| {
        let mut there = image("web-1", 2, None);
        there.state = state;
        there.created_at = now();
        edit(&mut there);
        vec![image("web-1", 0, None), there]
    };
    let same = |_: &mut Image| {};
    let slot = wanted(48);
    for state in [ImageState::Ready, ImageState::Partial, ImageState::Deleting, ImageState::Unknown]
    {
        let said = refusal(&boot(LAST), of(state, &same), &slot);
        assert!(
            said.contains(&format!("({}) stands for 20261119t120000z", state.word())),
            "{said}"
        );
    }
    // What failed makes room; what is being made is taken up.
    let (importing, after) = imported(&boot(LAST), of(ImageState::Failed, &same), &slot);
    let create = importing.plan.changes[0].create.as_ref().unwrap();
    assert_eq!(create.replaces.as_ref().unwrap().id.as_deref(), Some("web-1-2"));
    assert_eq!(after.engines[0].images.len(), 2);
    let from = |from: &'static str| {
        move |image: &mut Image| {
            drop(image.labels.insert(LABEL_IMPORTED.to_owned(), place_label(from)));
        }
    };
    let this = from("https://storage.example.net/b/web-1.qcow2");
    let (importing, _) = imported(&boot(LAST), of(ImageState::Creating, &this), &slot);
    assert!(importing.notes[0].contains("it is taken up"), "{:?}", importing.notes);
    // But only what is made of the same file; nothing tells of what it was made of.
    let another = from("https://storage.example.net/b/web-2.qcow2");
    let said = refusal(&boot(LAST), of(ImageState::Creating, &another), &slot);
    assert!(said.contains("20261119t120000z of web-1 already, of another file"), "{said}");
    assert!(said.contains("web-1.qcow2 is not imported in its place"), "{said}");
    let said = refusal(&boot(LAST), of(ImageState::Creating, &same), &slot);
    assert!(said.contains("of a disk that is captured, not of a file"), "{said}");
    // What is there of it was imported before.
    let said = refusal(&boot(LAST), of(ImageState::Ready, &this), &slot);
    assert!(said.ends_with("already, of the same file"), "{said}");
    // But not what somebody holds, and not under another name.
    let held = |image: &mut Image| drop(image.labels.insert(LABEL_HOLD.to_owned(), "x".to_owned()));
    let other = |image: &mut Image| "by-hand".clone_into(&mut image.name);
    for images in [of(ImageState::Failed, &held), of(ImageState::Creating, &other)] {
        assert!(refusal(&boot(LAST), images, &slot).contains("stands for"));
    }
    // A copy is no restore point; its name is another one.
    let copy = |image: &mut Image| {
        image.labels.insert(LABEL_COPY.to_owned(), "yes".to_owned());
        "a-copy".clone_into(&mut image.name);
    };
    imported(&boot("  retention: {last: 9}\n"), of(ImageState::Ready, &copy), &slot);
    // Nor is the name free where something else has it.
    let foreign = |image: &mut Image| image.labels.clear();
    let said = refusal(&boot(LAST), of(ImageState::Ready, &foreign), &slot);
    assert!(said.contains("exists already and carries no labels of stillframe"), "{said}");
}

#[test]
fn nothing_is_let_go_for_it_and_it_is_not_let_go_itself() {
    let days = |days: &[i64]| days.iter().map(|day| image("web-1", *day, None)).collect::<Vec<_>>();
    let said = refusal(&boot(LAST), days(&[0, 1, 2, 3]), &wanted(36));
    assert!(said.contains("would let go of nightly-web-1-20261119-1200z"), "{said}");
    let said = refusal(&boot(LAST), days(&[0, 1, 2]), &wanted(24 * 9));
    assert!(said.contains("the next plan would let go of it: no rule keeps it"), "{said}");
    // A daily that it would be the newest of its day for.
    let daily = boot("  retention: {daily: 30, atLeast: 1}\n");
    let said = refusal(&daily, days(&[0, 1, 2]), &wanted(24 * 2 - 2));
    assert!(said.contains("would let go of nightly-web-1-20261119-1200z"), "{said}");
    imported(&daily, days(&[0, 1, 2]), &wanted(24 * 5));
    // What a stall holds would go once something new is there.
    let stalled = boot("  retention: {last: 1, stalledAfter: 2d}\n");
    let old = vec![image("web-1", 5, None), image("web-1", 6, Some(4))];
    let said = refusal(&stalled, old, &wanted(13));
    assert!(said.contains("would let go of"), "{said}");
    // A failed attempt of before is nothing to lose.
    let mut failed = image("web-1", 3, None);
    failed.state = ImageState::Failed;
    let images = vec![failed, image("web-1", 4, None), image("web-1", 0, None)];
    imported(&boot(LAST), images, &wanted(60));
    // Nor is a stage by age a loss.
    let aged = boot("  retention: {days: 90}\n  lifecycle: {deprecateAfter: 7d}\n");
    imported(&aged, days(&[0, 1]), &wanted(24 * 30));
}

#[test]
fn it_stands_for_no_capture_that_is_due() {
    let said = refusal(&boot(LAST), vec![image("web-1", 1, None)], &wanted(0));
    assert!(
        said.contains("the capture of 20261121t020000z that is due would not be made"),
        "{said}"
    );
    assert!(said.contains("`stillframe apply` first"), "{said}");
    imported(&boot(LAST), vec![image("web-1", 1, None)], &wanted(12));
}

#[test]
fn a_source_that_is_gone_has_to_be_known_or_said_to_be() {
    let of =
        |source: &str, is_gone: bool| Wanted { source: source.to_owned(), is_gone, ..wanted(60) };
    // Of one that the policy has restore points of.
    let known = vec![image("web-7", 1, None)];
    let (importing, after) = imported(&boot(LAST), known.clone(), &of("web-7", false));
    assert!(importing.placed.is_gone && importing.placed.is_boot);
    assert!(importing.notes[0].contains("nothing of it changes for 14d, and then the rules go on"));
    let next = plan(&policies(&boot(LAST)), &after, now());
    assert_eq!(goes(&next), Vec::<&str>::new());
    // Of one that never was there: its series begins, is marked, and is never emptied.
    let (_, after) = imported(&boot(LAST), Vec::new(), &of("old-web", true));
    let relabelled = plan(&policies(&boot(LAST)), &after, now());
    let of_it = |plan: &Plan| -> Vec<Action> {
        let changes = plan.changes.iter();
        let of_it = changes.filter(|change| change.key.source.as_str() == "old-web");
        of_it.map(|change| change.action).collect()
    };
    assert_eq!(of_it(&relabelled), [Action::Relabel]);
    for (gone, note) in [
        ("expire", "all but the newest of them expire"),
        ("keep", "no new one ever takes its place"),
    ] {
        let spec =
            boot(&format!("  retention: {{last: 3}}\n  lifecycle: {{onSourceGone: {gone}}}\n"));
        let (importing, mut after) = imported(&spec, Vec::new(), &of("old-web", true));
        assert!(importing.notes[0].contains(note), "{:?}", importing.notes);
        for days in 0..60 {
            let then = now() + SignedDuration::from_hours(24 * days);
            let next = plan(&policies(&spec), &after, then);
            let own = next.changes.iter().filter(|change| change.key.source.as_str() == "old-web");
            own.for_each(|change| carry_out(&mut after, change));
        }
        let left = after.engines[0].images.iter();
        let left = left.filter(|image| matches!(image.ownership(), Ownership::Ours(key) if key.source.as_str() == "old-web"));
        assert_eq!(left.count(), 1);
    }
    // Which disk it starts from is known of the policy alone.
    let data = with("  capture: {kind: disk-image, disks: [\"data*\"]}\n", LAST);
    let (importing, _) = imported(&data, known.clone(), &of("web-7", false));
    assert!(!importing.placed.is_boot);
    let spare = Wanted { device: Some("spare".to_owned()), ..of("web-7", false) };
    assert!(refusal(&data, known, &spare).contains("does not take spare"));
}

#[test]
fn a_family_does_not_go_back_in_time() {
    let spec = with(
        "  capture: {kind: disk-image, disks: boot, family: web}\n",
        "  retention: {last: 5}\n",
    );
    let mut member = image("web-2", 1, None);
    member.family = Some("web".to_owned());
    let family =
        |importing: &Importing| importing.plan.changes[0].create.as_ref().unwrap().family.clone();
    let images = vec![image("web-1", 3, None), member.clone()];
    let of = |hours: i64| imported(&spec, images.clone(), &wanted(hours)).0;
    let old = of(48);
    assert_eq!(family(&old), None);
    assert!(old.notes[0].contains("it gets no family"), "{:?}", old.notes);
    assert_eq!(family(&of(23)), Some("web".to_owned()));
}

type Edit<'a> = &'a dyn Fn(&mut Plan, &mut Inventory);

#[test]
fn the_guard_refuses_what_no_import_may_do() {
    let (policies, inventory) = (policies(&boot(LAST)), inventory(vec![image("web-1", 0, None)]));
    let good = try_import(&policies, &inventory, &wanted(60)).unwrap().plan;
    assert_eq!(guard(&good, &policies, &inventory), []);
    let key = good.changes[0].key.clone();
    let edits: [(&str, Edit<'_>); 16] = [
        ("another change", &|plan, _| plan.changes[0].action = Action::Delete),
        ("two", &|plan, _| plan.changes.push(plan.changes[0].clone())),
        ("no create", &|plan, _| plan.changes[0].create = None),
        ("labels beside", &|plan, _| plan.changes[0].update = Some(Update::default())),
        ("an image that is there", &|plan, _| plan.changes[0].image.id = Some("i".to_owned())),
        ("a key", &|plan, _| create(plan).kms_key = Some("k".to_owned())),
        ("another kind", &|plan, _| create(plan).kind = stillframe::inventory::ImageKind::Snapshot),
        ("labels of another key", &|plan, _| {
            let slot = Slot::at(ago(9));
            create(plan).labels = Key { slot, ..key.clone() }.labels();
        }),
        ("no labels", &|plan, _| create(plan).labels.clear()),
        ("the future", &|plan, _| plan.now = ago(30)),
        ("another engine", &|plan, _| plan.changes[0].engine = "elsewhere".to_owned()),
        ("a slot that is taken", &|_, inventory| {
            let mut taken = memory::image("taken", &key);
            taken.name = "taken".to_owned();
            inventory.engines[0].images.push(taken);
        }),
        ("what is made of another file", &|_, inventory| {
            let mut taken = memory::image("taken", &key);
            taken.name.clone_from(&good.changes[0].image.name);
            taken.state = ImageState::Creating;
            taken.labels.insert(LABEL_IMPORTED.to_owned(), place_label("https://h/other"));
            inventory.engines[0].images.push(taken);
        }),
        ("what is captured", &|plan, inventory| {
            let mut taken = memory::image("taken", &key);
            taken.name.clone_from(&good.changes[0].image.name);
            taken.state = ImageState::Creating;
            create(plan).labels.remove(LABEL_IMPORTED);
            inventory.engines[0].images.push(taken);
        }),
        ("room made by what is READY", &|plan, inventory| {
            let image = ImageRef::of(&inventory.engines[0].images[0]);
            create(plan).replaces = Some(image);
        }),
        ("half a listing", &|_, inventory| {
            let gap = Gap { scope: GapScope::Images, place: String::new(), message: String::new() };
            inventory.engines[0].gaps.push(gap);
        }),
    ];
    for (what, edit) in edits {
        let (mut plan, mut inventory) = (good.clone(), inventory.clone());
        edit(&mut plan, &mut inventory);
        assert!(!guard(&plan, &policies, &inventory).is_empty(), "{what}");
    }
}

fn create(plan: &mut Plan) -> &mut stillframe::plan::Create {
    plan.changes[0].create.as_mut().unwrap()
}

/// Whatever is accepted, the next plan lets go of nothing that the one before did not, over many
/// series and rules.
#[test]
fn whatever_is_accepted_costs_nothing() {
    let mut accepted = 0;
    for rules in [
        "{last: 4}",
        "{daily: 7}",
        "{weekly: 3, atLeast: 2}",
        "{days: 20}",
        "{hours: 100, monthly: 2}",
    ] {
        for pattern in 0..24_u32 {
            let spec = boot(&format!("  retention: {rules}\n  lifecycle: {{grace: 0h}}\n"));
            let policies = policies(&spec);
            let there = (0..14).filter(|day| (pattern * 7 + day * day * 3) % 5 > 1);
            let images: Vec<Image> = there
                .map(|day| {
                    let let_go = (day > 9 && pattern % 2 == 0).then_some(2);
                    image("web-1", i64::from(day), let_go)
                })
                .collect();
            let inventory = inventory(images);
            let before = plan(&policies, &inventory, now());
            for hours in [5, 30, 70, 100, 26 * 24] {
                let Ok(importing) = try_import(&policies, &inventory, &wanted(hours)) else {
                    continue;
                };
                accepted += 1;
                let mut after = inventory.clone();
                carry_out(&mut after, &importing.plan.changes[0]);
                let next = plan(&policies, &after, now());
                let (went, goes) = (goes(&before), goes(&next));
                assert!(goes.iter().all(|name| went.contains(name)), "{rules} {pattern} {hours}");
                let creates = |plan: &Plan| plan.summary.create;
                assert_eq!(creates(&before), creates(&next), "{rules} {pattern} {hours}");
            }
        }
    }
    assert!(accepted > 50, "{accepted}");
}

/// A folder with policies of its own, and a document of what it holds.
fn cloud() -> Datacenter {
    let datacenter = Datacenter::new();
    let write = |path: &str, text: &str| fs::write(datacenter.path(path), text).unwrap();
    fs::create_dir(datacenter.path("cloud")).unwrap();
    write(
        "cloud/stillframe.yaml",
        "apiVersion: stillframe/v1\nkind: Config\nspec:\n  engines:\n    memory:\n      yandex: {folders: [b1g], endpoint: \"http://127.0.0.1:9\", images: {minDiskGib: 20}}\n",
    );
    let policy = |name: &str, capture: &str, rest: &str| {
        write(
            &format!("cloud/{name}.yaml"),
            &format!(
                "apiVersion: stillframe/v1\nkind: BackupPolicy\nmetadata: {{name: {name}}}\nspec:\n  source: {{match: [{{names: [\"web-*\"]}}]}}\n  capture: {capture}\n  schedule: {{cron: \"{} 2 * * *\"}}\n  retention: {{last: 3, monthly: 12}}\n{rest}",
                name.len() * 2
            ),
        );
    };
    policy("nightly", "{kind: disk-image, disks: boot}", "  labels: {service: web}\n");
    policy("disks", "{kind: snapshot}", "");
    policy("sealed", "{kind: disk-image, disks: boot}", "  encryption: {kmsKey: abj1}\n");
    let mut seen = inventory((0..3).map(|day| image("web-1", day, None)).collect());
    for image in &mut seen.engines[0].images {
        image.kind = stillframe::inventory::ImageKind::DiskImage;
    }
    "yandex".clone_into(&mut seen.engines[0].kind);
    write("inventory.json", &serde_json::to_string(&seen).unwrap());
    write("url", &format!("{URL}\n"));
    fs::write(datacenter.path("disk"), vec![0xff; 100_000]).unwrap();
    write("open", "http://storage.example.net/b/web-1.qcow2?X-Amz-Signature=0a1b2c3d4e5f\n");
    datacenter
}

const URL: &str = "https://storage.example.net/b/web-1.qcow2?X-Amz-Credential=YCAJEabcdef&X-Amz-Signature=0a1b2c3d4e5f";

#[test]
fn what_is_shown_has_nothing_of_the_secret() {
    let datacenter = cloud();
    let of = |policy: &'static str, at: &'static str, more: &[&'static str]| {
        let begin = ["--policies", "cloud", "import", "--policy", policy, "--at", at];
        [&begin[..], more].concat()
    };
    let there: &[&str] =
        &["--source", "web-1", "--uri-file", "url", "--inventory", "inventory.json"];
    let plus = |more: &[&'static str]| [there, more].concat();
    let commands = [
        of("nightly", "2026-10-15T04:30:00Z", there),
        of("nightly", "2026-10-15", &plus(&["--windows", "--json"])),
        of("nightly", "2026-11-20T12:00:00Z", there),
        of("nightly", "2026-11-20T18:00:00Z", there),
        of("nightly", "2026-11-22", there),
        of("disks", "2026-10-15", there),
        of("sealed", "2026-10-15", there),
        of("nightly", "2026-10-15", &["--source", "web-1", "--uri-file", "open", "--dry-run"]),
        of(
            "nightly",
            "2026-10-15",
            &["--source", "web-1", "--uri-env", "NO_SUCH_URL", "--dry-run"],
        ),
        of(
            "nightly",
            "2026-10-15",
            &["--source", "web-1", "--uri", "X-Amz-Signature=0a1b2c3d4e5f"],
        ),
        // What is given in the wrong place is not repeated either.
        of("nightly", "2026-10-15", &["--source", "web-1", "--uri-file", URL]),
        of("nightly", "2026-10-15", &["--source", "web-1", "--uri-env", URL]),
        of("nightly", "2026-10-15", &["--source", "web-1", URL]),
        of("Nightly", "2026-10-15", &["--source", "web-1", "--uri-file", "disk"]),
        of("sealed", "2026-11-22", there),
        of("nightly", "2026-10-15", &["--source", "web-1"]),
        of("nightly", "2026-10-15", &["--source", "web-1", "--uri-file", "url"]),
        [
            &["import", "--policy", "web-nightly", "--at", "2026-10-15", "--dry-run"][..],
            &["--source", "web-1", "--uri-file", "url"],
        ]
        .concat(),
    ];
    let commands: Vec<&[&str]> = commands.iter().map(Vec::as_slice).collect();
    let shown = transcript(&datacenter, &commands);
    // What was typed is all there is of it.
    let typed = shown.lines().filter(|line| line.starts_with("$ ")).collect::<String>();
    let count = |text: &str, secret: &str| text.matches(secret).count();
    for secret in ["0a1b2c3d4e5f", "YCAJEabcdef", "X-Amz-"] {
        assert_eq!(count(&shown, secret), count(&typed, secret), "{shown}");
    }
    golden("import.txt", &shown);
}
