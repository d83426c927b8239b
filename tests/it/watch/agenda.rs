//! Laws of the agenda, over generated policies and times.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use stillframe::agenda::{Agenda, Ended, Health, NextDue, next_due};
use stillframe::desired::{Due, desired};
use stillframe::elapsed::Elapsed;
use stillframe::inventory::{EngineInventory, Inventory};
use stillframe::name::Slot;
use stillframe::policy::{Policies, SourceFile, load};

use super::super::laws::{law, long_law};
use super::super::memory::{capabilities, instance};
use super::{kind, text};

const CRONS: [&str; 8] = [
    "0 2 * * *",
    "*/20 * * * *",
    "30 1,2 * * *",
    "0 */6 * * mon-fri",
    "15 * 25 10 *",
    "0 0 * * sun",
    "50 23 * * *",
    "0 3 1 * *",
];
const BLACKOUTS: [&str; 4] = [
    "",
    "  blackouts: [{cron: \"0 1 * * *\", duration: 3h, reason: trade}]\n",
    "  blackouts: [{from: 2026-10-24, until: 2026-10-26, reason: trade}]\n",
    "  paused: {creates: true, until: 2026-10-25, reason: moving}\n",
];

fn policies(cron: &str, zone: &str, jitter: u32, more: &str) -> Policies {
    let rest = format!(
        "  source: {{match: [{{names: [\"web-*\"]}}]}}\n  schedule: {{cron: \"{cron}\", timeZone: {zone}, \
         jitter: {jitter}m}}\n{more}"
    );
    let text = text(&["memory"], "", &[("one", "memory", &rest)]);
    let file = SourceFile { path: "stillframe.yaml".to_owned(), text };
    let loaded = load(vec![file], &[kind()]);
    loaded.policies.unwrap_or_else(|| panic!("{:?}", loaded.findings))
}

fn inventory(now: Timestamp) -> Inventory {
    let engine = EngineInventory {
        name: "memory".to_owned(),
        kind: "memory".to_owned(),
        identity: "here".to_owned(),
        gaps: Vec::new(),
        images_seen_before: None,
        capabilities: capabilities(),
        instances: (1..4).map(|number| instance(&format!("web-{number}"), &[])).collect(),
        images: Vec::new(),
    };
    Inventory { format_version: "1.0".to_owned(), observed_at: now, engines: vec![engine] }
}

/// Whoever sleeps until the agenda says misses no start: between an instant and what the agenda says
/// of it, nothing becomes due.
#[test]
fn nothing_becomes_due_before_the_agenda_wakes() {
    let worlds = (
        0..CRONS.len(),
        any::<bool>(),
        prop_oneof![Just(0_u32), 1..20_u32],
        0..BLACKOUTS.len(),
        0..(3 * 24 * 60_i64),
    );
    long_law(worlds, |(cron, berlin, jitter, blackout, minute)| {
        let zone = if berlin { "Europe/Berlin" } else { "America/New_York" };
        let policies = policies(CRONS[cron], zone, jitter, BLACKOUTS[blackout]);
        let first: Timestamp = "2026-10-23T12:00:00Z".parse().unwrap();
        let now = first + SignedDuration::from_mins(minute);
        let inventory = inventory(now);
        let due = |at: Timestamp| -> Vec<Option<Slot>> {
            let desired = desired(&policies, &inventory, at);
            let series = desired.engines.iter().flat_map(|engine| &engine.series);
            let slot = |due: &Due| match due {
                Due::Create { slot, .. } => Some(*slot),
                _ => None,
            };
            series.map(|series| slot(&series.due)).collect()
        };
        let next = next_due(&policies, &inventory.engines[0].instances, now);
        let at_now = due(now);
        let horizon = now + SignedDuration::from_hours(30);
        let until = next.map_or(horizon, |next| next.at.min(horizon));
        prop_assert!(until > now, "{next:?} is not after {now}");
        let last = until - SignedDuration::from_secs(1);
        let step = SignedDuration::from_secs(311);
        let between = (0..).map(|count| now + step * count).take_while(|at| *at < until);
        for at in between.chain([last]) {
            for (before, then) in at_now.iter().zip(due(at)) {
                let is_known = then.is_none() || *before == then;
                prop_assert!(is_known, "{then:?} is due at {at}, and the agenda says {next:?}");
            }
        }
        // And it does not wake for nothing, but where what kept it from creating ends.
        if let Some(next) = next.filter(|next| next.at < horizon && blackout == 0) {
            prop_assert_ne!(due(next.at), at_now, "nothing is new at {}", next.at);
            prop_assert!(next.latest >= next.at);
        }
        Ok(())
    });
}

/// What happens to an agenda.
#[derive(Debug, Clone)]
enum Step {
    Pass(i64),
    Ask,
    /// The oldest round under way ends so, and something is due after so long.
    End(Health, Option<i64>),
    Reload,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let health = prop_oneof![Just(Health::Well), Just(Health::Partly), Just(Health::Broken)];
    let due = prop::option::of(1..5_000_i64);
    prop::collection::vec(
        prop_oneof![
            4 => (1..4_000_i64).prop_map(Step::Pass),
            1 => (-4_000..0_i64).prop_map(Step::Pass),
            1 => Just(Step::Ask),
            4 => (health, due).prop_map(|(health, due)| Step::End(health, due)),
            1 => Just(Step::Reload),
        ],
        1..60,
    )
}

/// Rounds of one engine never overlap, who asks is heard, and nobody waits for longer than the period
/// of full looks or the longest wait after a failure.
#[test]
fn rounds_never_overlap_and_no_engine_is_forgotten() {
    law(steps(), |steps| {
        let names = ["a".to_owned(), "b".to_owned()];
        let every = Elapsed::hours(1);
        let mut now: Timestamp = "2026-10-23T12:00:00Z".parse().unwrap();
        let mut agenda = Agenda::new(names.clone(), every);
        let mut running: Vec<String> = Vec::new();
        let mut last: BTreeMap<String, Timestamp> = BTreeMap::new();
        let mut asked: BTreeSet<String> = names.iter().cloned().collect();
        for step in steps {
            match step {
                Step::Pass(seconds) => now += SignedDuration::from_secs(seconds),
                Step::Ask => {
                    agenda.ask_all();
                    asked.extend(names.iter().cloned());
                }
                Step::Reload => {
                    agenda.reload(names.clone(), every);
                    for engine in &running {
                        agenda.still_runs(engine);
                    }
                    asked.extend(names.iter().cloned());
                }
                Step::End(health, due) if !running.is_empty() => {
                    let engine = running.remove(0);
                    let at = |seconds: i64| now + SignedDuration::from_secs(seconds);
                    let due = due.map(|due| NextDue { at: at(due), latest: at(due + 600) });
                    agenda.ended(&engine, &Ended { health, due, ..Ended::broken() }, now);
                    last.insert(engine, now);
                }
                Step::End(..) => {}
            }
            let decision = agenda.decide(now);
            for engine in &decision.begin {
                prop_assert!(!running.contains(engine), "{engine} runs already");
                agenda.began(engine, now);
                running.push(engine.clone());
                last.insert(engine.clone(), now);
                asked.remove(engine);
            }
            prop_assert!(asked.iter().all(|engine| running.contains(engine)), "{asked:?} at {now}");
            for engine in names.iter().filter(|engine| !running.contains(engine)) {
                let waited = Elapsed::between(last[engine], now);
                prop_assert!(waited < every, "{engine} has waited {waited}");
            }
            let is_all = running.len() == names.len();
            prop_assert_eq!(agenda.decide(now).wake_at.is_none(), is_all);
            prop_assert!(agenda.decide(now).wake_at.is_none_or(|at| at > now));
            prop_assert!(agenda.decide(now).begin.is_empty());
        }
        Ok(())
    });
}
