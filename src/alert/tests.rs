use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::*;
use crate::elapsed::Elapsed;
use crate::name::{PolicyName, Slot, SourceId};
use crate::plan::Action;

const DAY: Elapsed = Elapsed::days(1);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn condition(occasion: Occasion, engine: &str, source: &str, detail: &str) -> Condition {
    let policy = if source.is_empty() { "" } else { "nightly" };
    Condition {
        subject: Subject {
            occasion,
            engine: engine.to_owned(),
            policy: policy.to_owned(),
            source: source.to_owned(),
            detail: detail.to_owned(),
        },
        source_name: source.to_owned(),
        message: format!("of {source}{detail}"),
        newest: None,
        slot: None,
    }
}

/// A round in which these sources failed to be captured.
fn failed(engine: &str, sources: &[&str]) -> Seen<'static> {
    let failure = |source: &&str| condition(Occasion::Failure, engine, source, "create");
    Seen {
        engine: engine.to_owned(),
        is_complete: true,
        conditions: sources.iter().map(failure).collect(),
        open: BTreeSet::new(),
        mended: BTreeSet::new(),
        never: BTreeMap::new(),
        // All of them have one that is new.
        newest: ["a", "b", "c", "d"].map(|source| (("nightly", source), Some(at(0)))).into(),
    }
}

/// What is told, each by how it stands and of which source or detail.
fn told(book: &mut Book, second: i64) -> Vec<String> {
    let Some(digest) = book.take(DAY, at(second)) else { return Vec::new() };
    let names = |mark: &str, told: &[Told]| -> Vec<String> {
        let name = |told: &Told| {
            let subject = &told.condition.subject;
            let name = if subject.source.is_empty() { &subject.detail } else { &subject.source };
            format!("{mark}{name}")
        };
        told.iter().map(name).collect()
    };
    [names("+", &digest.new), names("=", &digest.still), names("-", &digest.over)].concat()
}

#[test]
fn what_holds_is_told_once_again_after_a_while_and_when_it_ends() {
    let mut book = Book::default();
    book.round(failed("one", &["a", "b"]), at(0));
    assert_eq!(told(&mut book, 10), ["+a", "+b"]);
    book.round(failed("one", &["a", "b"]), at(60));
    assert_eq!(told(&mut book, 70), [""; 0]);
    assert_eq!(book.next(DAY), Some(at(10 + 86_400)));
    book.round(failed("one", &["b", "c"]), at(120));
    assert_eq!(told(&mut book, 130), ["+c", "-a"]);
    // Reminders come together.
    assert_eq!(told(&mut book, 86_409), [""; 0]);
    assert_eq!(told(&mut book, 86_410), ["=b", "=c"]);
    book.round(failed("one", &[]), at(90_000));
    assert_eq!(told(&mut book, 90_000), ["-b", "-c"]);
    assert_eq!(told(&mut book, 90_001), [""; 0]);
    assert_eq!(book.next(DAY), None);
}

#[test]
fn what_comes_and_goes_before_anybody_was_told_is_not_told() {
    let mut book = Book::default();
    book.round(failed("one", &["a"]), at(0));
    book.round(failed("one", &[]), at(1));
    assert_eq!(told(&mut book, 10), [""; 0]);
    book.round(failed("one", &["a"]), at(20));
    assert_eq!(told(&mut book, 20), ["+a"]);
    book.round(failed("one", &[]), at(21));
    book.round(failed("one", &["a"]), at(22));
    assert_eq!(told(&mut book, 30), [""; 0]);
    assert_eq!(book.told()[0].since, at(20), "it never ended");
}

#[test]
fn nothing_recovers_by_being_out_of_sight() {
    let mut book = Book::default();
    book.round(failed("one", &["a"]), at(0));
    told(&mut book, 0);
    let gap = condition(Occasion::NotSeen, "one", "", "zone-a");
    let unseen = Seen { is_complete: false, conditions: vec![gap], ..failed("one", &[]) };
    book.round(unseen.clone(), at(60));
    assert_eq!(told(&mut book, 60), ["+zone-a"]);
    // Another engine that is well says nothing about this one.
    book.round(failed("two", &[]), at(61));
    assert_eq!(told(&mut book, 61), [""; 0]);
    book.round(failed("one", &[]), at(120));
    assert_eq!(told(&mut book, 120), ["-a", "-zone-a"]);
}

#[test]
fn a_failure_lasts_until_it_is_made_good() {
    let mut book = Book::default();
    let failure = failed("one", &["a"]);
    let subject = failure.conditions[0].subject.clone();
    book.round(failure, at(0));
    told(&mut book, 0);
    // It is being tried again.
    let open = Seen { open: [subject].into(), ..failed("one", &[]) };
    book.round(open, at(60));
    assert_eq!(told(&mut book, 60), [""; 0]);
    // It is too late for it: nothing is tried any more, and nothing is there.
    let none = Seen { newest: [(("nightly", "a"), None)].into(), ..failed("one", &[]) };
    book.round(none, at(120));
    assert_eq!(told(&mut book, 120), [""; 0]);
    book.round(failed("one", &[]), at(180));
    assert_eq!(told(&mut book, 180), ["-a"]);
    // Nor is anything wanted of a source that is gone.
    book.round(failed("one", &["a"]), at(240));
    told(&mut book, 240);
    book.round(Seen { newest: BTreeMap::new(), ..failed("one", &[]) }, at(300));
    assert_eq!(told(&mut book, 300), ["-a"]);
}

/// A round that finds a slot of a source missed, and has made a newer restore point or not.
fn missed(slot: i64, newest: Option<i64>) -> Seen<'static> {
    let subject = condition(Occasion::MissedSlot, "one", "a", "").subject;
    let missed = super::seen::missed(subject.clone(), "a", at(slot), 0);
    let is_mended = newest.is_some_and(|newest| newest > slot);
    Seen {
        conditions: vec![missed],
        mended: is_mended.then_some(subject).into_iter().collect(),
        newest: [(("nightly", "a"), newest.map(at))].into(),
        ..failed("one", &[])
    }
}

/// With a deadline until the next slot, that a slot is missed is found in the round that makes the next.
#[test]
fn a_missed_slot_is_told_also_where_the_next_is_made_at_once() {
    let mut book = Book::default();
    let turn = book.round(missed(0, Some(60)), at(60));
    assert_eq!(turn.new.len(), 1);
    // Another round comes before anybody is told.
    let well = || Seen { newest: [(("nightly", "a"), Some(at(60)))].into(), ..failed("one", &[]) };
    assert_eq!(book.round(well(), at(65)).over, []);
    assert_eq!(told(&mut book, 70), ["+a"]);
    let turn = book.round(well(), at(120));
    assert_eq!(turn.over[0].message, "no restore point for 2027-01-15T08:00:00Z");
    assert_eq!(told(&mut book, 120), ["-a"]);
    assert_eq!(told(&mut book, 130), [""; 0]);
}

/// Who is told from later on hears nothing of slots that were missed and made good long before.
#[test]
fn where_nobody_is_told_a_missed_slot_waits_for_nobody() {
    let mut book = Book::default();
    book.heard(false);
    book.round(missed(0, Some(60)), at(60));
    let well = || Seen { newest: [(("nightly", "a"), Some(at(60)))].into(), ..failed("one", &[]) };
    assert_eq!(book.round(well(), at(120)).over.len(), 1);
    book.heard(true);
    book.round(well(), at(180));
    assert_eq!(told(&mut book, 190), [""; 0]);
}

#[test]
fn a_missed_slot_that_was_told_ends_with_the_round_that_makes_a_newer_one() {
    let mut book = Book::default();
    book.round(missed(0, None), at(30));
    assert_eq!(told(&mut book, 40), ["+a"]);
    // The next fails as well, and is not too late yet: nothing has recovered.
    book.round(Seen { newest: [(("nightly", "a"), None)].into(), ..failed("one", &[]) }, at(60));
    assert_eq!(told(&mut book, 70), [""; 0]);
    // Another slot is said and is the same matter to people.
    assert_eq!(book.round(missed(60, None), at(90)).new.len(), 1);
    assert_eq!(told(&mut book, 100), [""; 0]);
    assert_eq!(book.round(missed(60, None), at(91)).new, []);
    let turn = book.round(missed(60, Some(120)), at(120));
    assert_eq!((turn.new.len(), turn.over.len()), (0, 1));
    assert_eq!(told(&mut book, 120), ["-a"]);
}

/// Nothing says since when a source should have restore points that never had one: captures do that fail.
#[test]
fn a_source_that_never_had_a_restore_point_misses_slots_and_breaks_its_objective() {
    let never = |slot: i64| {
        let mut seen = failed("one", &["a"]);
        seen.conditions[0].slot = Some(at(slot));
        Seen {
            newest: [(("nightly", "a"), None)].into(),
            never: [(("nightly", "a"), Elapsed::minutes(2))].into(),
            ..seen
        }
    };
    let occasions = |book: &mut Book, second: i64| -> Vec<Occasion> {
        let digest = book.take(DAY, at(second)).unwrap_or_default();
        digest.new.iter().map(|told| told.condition.subject.occasion).collect()
    };
    let mut book = Book::default();
    assert_eq!(book.round(never(0), at(1)).missed, []);
    assert_eq!(book.round(never(0), at(30)).missed, [], "it is the same slot");
    assert_eq!(occasions(&mut book, 30), [Occasion::Failure]);
    let missed = book.round(never(60), at(61)).missed;
    assert_eq!(missed[0].slot, Some(at(0)));
    assert_eq!(occasions(&mut book, 70), [Occasion::MissedSlot]);
    // What was told is known after a restart, and so is since when captures fail.
    let mut book = Book::remembering(book.told());
    book.round(never(120), at(121));
    assert_eq!(occasions(&mut book, 130), [Occasion::RpoBreach]);
    let made = Seen { newest: [(("nightly", "a"), Some(at(180)))].into(), ..failed("one", &[]) };
    assert_eq!(book.round(made, at(181)).over.len(), 3);
    assert_eq!(told(&mut book, 190), ["-a", "-a", "-a"]);
}

#[test]
fn what_did_not_arrive_is_told_after_a_restart() {
    let mut book = Book::default();
    book.round(failed("one", &["a"]), at(0));
    told(&mut book, 10);
    book.round(failed("one", &["a", "b"]), at(60));
    told(&mut book, 70);
    book.untell(&[at(70)].into());
    let mut book = Book::remembering(book.told());
    book.round(failed("one", &["a", "b"]), at(120));
    assert_eq!(told(&mut book, 120), ["+b"]);
}

#[test]
fn an_end_is_remembered_until_it_has_arrived_and_once() {
    let known = |book: &Book| -> Vec<String> {
        book.told().into_iter().map(|told| told.condition.subject.source).collect()
    };
    let mut book = Book::default();
    book.round(failed("one", &["a"]), at(0));
    assert_eq!(told(&mut book, 10), ["+a"]);
    book.round(failed("one", &[]), at(60));
    assert_eq!((told(&mut book, 70), known(&book)), (vec!["-a".to_owned()], vec!["a".to_owned()]));
    // It fails again before anybody has heard of that.
    book.round(failed("one", &["a"]), at(120));
    assert_eq!((told(&mut book, 130), known(&book)), (vec!["+a".to_owned()], vec!["a".to_owned()]));
    book.round(failed("one", &[]), at(180));
    assert_eq!(told(&mut book, 190), ["-a"]);
    assert!(!book.settle(&[at(190)].into()));
    assert_eq!(known(&book), ["a"]);
    let mut other = book.clone();
    other.engines(&["two".to_owned()].into());
    assert_eq!(known(&other), [""; 0], "its engine was taken out");
    assert!(book.settle(&BTreeSet::new()));
    assert_eq!(known(&book), [""; 0]);
}

#[test]
fn what_ends_beside_rounds_counts() {
    let tried = |failure: Option<&str>| Tried {
        action: Action::Create,
        policy: PolicyName::parse("nightly").unwrap(),
        source: SourceId::parse("a").unwrap(),
        source_name: "a".to_owned(),
        slot: Slot::at(at(0)),
        failure: failure.map(str::to_owned),
    };
    let mut book = Book::default();
    book.ended("one", &tried(Some("no space")), at(0));
    assert_eq!(told(&mut book, 0), ["+a"]);
    book.ended("two", &tried(None), at(1));
    assert_eq!(told(&mut book, 1), [""; 0]);
    book.ended("one", &tried(None), at(2));
    assert_eq!(told(&mut book, 2), ["-a"]);
}

#[test]
fn policies_and_rounds_are_told_of_apart() {
    let mut book = Book::default();
    book.policies(&["a.yaml:1:1: x".to_owned(), "b.yaml:2:2: y".to_owned()], at(0));
    book.round_failed("one", "no ledger".to_owned(), at(0));
    let digest = book.take(DAY, at(0)).unwrap();
    assert_eq!(
        digest.new.iter().map(|told| told.condition.message.as_str()).collect::<Vec<_>>(),
        ["no ledger", "what was in force stays: a.yaml:1:1: x, and 1 more"]
    );
    book.round(failed("one", &[]), at(60));
    assert_eq!(told(&mut book, 60), ["-round"]);
    book.policies(&[], at(61));
    assert_eq!(told(&mut book, 61), ["-"]);
}

#[test]
fn a_restart_repeats_nothing_and_calls_off_what_has_ended() {
    let mut book = Book::default();
    book.round(failed("one", &["a", "b"]), at(0));
    book.round(failed("gone", &["c"]), at(0));
    told(&mut book, 0);
    let written = serde_json::to_string(&book.told()).unwrap();
    let mut book = Book::remembering(serde_json::from_str(&written).unwrap());
    book.engines(&["one".to_owned()].into());
    book.round(failed("one", &["b", "d"]), at(60));
    assert_eq!(told(&mut book, 60), ["+d", "-a"]);
}

#[test]
fn a_clock_that_went_back_silences_nothing() {
    let mut book = Book::default();
    book.round(failed("one", &["a"]), at(1_000_000));
    assert_eq!(told(&mut book, 1_000_000), ["+a"]);
    assert_eq!(told(&mut book, 0), [""; 0]);
    assert_eq!(told(&mut book, 86_400), ["=a"]);
}

fn message(digest: &Digest, on: &[Occasion]) -> Option<Notification> {
    digest_of(digest, &on.iter().copied().collect(), "here", str::to_uppercase, at(0))
}

#[test]
fn ten_thousand_broken_sources_are_one_message() {
    let names: Vec<String> = (0..10_000).map(|number| format!("s{number}")).collect();
    let sources: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut seen = failed("one", &sources);
    seen.conditions.push(condition(Occasion::RpoBreach, "one", "z", ""));
    seen.conditions.push(condition(Occasion::GuardRefusal, "one", "", "floor"));
    let mut book = Book::default();
    book.round(seen, at(0));
    let digest = book.take(DAY, at(0)).unwrap();
    let message = message(&digest, &Occasion::ALL).unwrap();
    assert_eq!(
        message.title,
        "stillframe HERE: 1 breach of an objective, 10000 failures, 1 refusal of a guard"
    );
    assert_eq!((message.conditions.len(), message.left_out), (WORST, 10_002 - WORST));
    assert_eq!(message.conditions[0].occasion, Occasion::RpoBreach, "the worst first");
    assert_eq!(message.text.lines().count(), WORST + 1);
    assert!(serde_json::to_string(&message).unwrap().len() < 20_000);
    assert!(slack(&message).to_string().len() < 20_000);
    assert!(teams(&message).to_string().len() < 28_000, "more is refused");
}

#[test]
fn a_receiver_is_told_of_what_it_wants() {
    let mut book = Book::default();
    book.round(failed("one", &["a"]), at(0));
    let digest = book.take(DAY, at(0)).unwrap();
    assert_eq!(message(&digest, &[Occasion::MissedSlot, Occasion::Recovery]), None);
    assert_eq!(message(&digest, &[Occasion::Failure]).unwrap().status, Status::Firing);
    book.round(failed("one", &[]), at(1));
    let digest = book.take(DAY, at(1)).unwrap();
    assert_eq!(message(&digest, &[Occasion::Failure]), None, "not of recoveries");
    let over = message(&digest, &[Occasion::Failure, Occasion::Recovery]).unwrap();
    assert_eq!(over.status, Status::Resolved);
    assert!(over.title.starts_with("stillframe HERE: no longer 1 failure"), "{}", over.title);
}

#[test]
fn names_are_cleaned_and_short_and_the_id_is_that_of_the_message() {
    let mut book = Book::default();
    book.round(failed("one", &["a"]), at(0));
    let digest = book.take(DAY, at(0)).unwrap();
    let on = Occasion::ALL.into_iter().collect();
    let message = |now| digest_of(&digest, &on, "", |text| text.repeat(400), now).unwrap();
    let item = &message(at(0)).conditions[0];
    assert_eq!(item.source.chars().count(), 300);
    assert_eq!(message(at(0)).id, message(at(0)).id);
    assert_ne!(message(at(0)).id, message(at(1)).id);
}

#[test]
fn chats_read_no_markup_in_names() {
    let mut seen = failed("one", &["a"]);
    seen.conditions[0].source_name = "<!channel> & [x](http://x) *b*".to_owned();
    let mut book = Book::default();
    book.round(seen, at(0));
    let digest = book.take(DAY, at(0)).unwrap();
    let on = Occasion::ALL.into_iter().collect();
    let message = digest_of(&digest, &on, "", str::to_owned, at(0)).unwrap();
    let slack = slack(&message);
    let text = slack["blocks"][1]["text"]["text"].as_str().unwrap();
    assert!(text.contains("&lt;!channel&gt; &amp;") && !text.contains('<'), "{text}");
    assert_eq!(slack["blocks"][1]["text"]["verbatim"], true);
    let teams = teams(&message);
    let body = teams["attachments"][0]["content"]["body"].as_array().unwrap();
    let is_run = |block: &serde_json::Value| {
        block["type"] == "RichTextBlock" && block["inlines"][0]["type"] == "TextRun"
    };
    assert!(body.iter().all(is_run), "only runs are shown as they are: {body:?}");
    assert_eq!(matrix(&message)["msgtype"], "m.text", "nobody is notified of m.notice");
    assert!(matrix(&message).get("formatted_body").is_none());
}

#[test]
fn a_guard_that_says_nothing_because_nothing_is_seen_has_not_given_way() {
    let mut book = Book::default();
    let refused = || Seen {
        conditions: vec![condition(Occasion::GuardRefusal, "one", "", "share")],
        ..failed("one", &[])
    };
    book.round(refused(), at(0));
    assert_eq!(told(&mut book, 10), ["+share"]);
    book.round(Seen { is_complete: false, ..failed("one", &[]) }, at(60));
    assert_eq!(told(&mut book, 70), [""; 0], "no plan of deletes could be made");
    book.round(refused(), at(120));
    assert_eq!(told(&mut book, 130), [""; 0]);
    book.round(failed("one", &[]), at(180));
    assert_eq!(told(&mut book, 190), ["-share"]);
}

#[test]
fn what_ends_after_its_engine_was_taken_out_is_not_told() {
    let mut book = Book::default();
    book.engines(&["two".to_owned()].into());
    book.round(failed("one", &["a"]), at(0));
    book.round_failed("one", "broken".to_owned(), at(0));
    assert_eq!(told(&mut book, 10), [""; 0]);
    book.round(failed("two", &["b"]), at(20));
    assert_eq!(told(&mut book, 30), ["+b"]);
}
