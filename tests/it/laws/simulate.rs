//! What simulations and forecasts promise: they do what plans do, and say beforehand what will be.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use stillframe::desired::desired;
use stillframe::inventory::{
    Capabilities, EngineInventory, FORMAT_VERSION, Image, ImageState, Inventory, LABEL_HOLD,
};
use stillframe::name::{Key, PolicyName, Slot, SourceId, stamp};
use stillframe::plan::{Action, Change, Plan, guard, plan, still_wanted};
use stillframe::policy::{EngineKind, Policies, SourceFile, load};
use stillframe::simulate::forecast::{Never, Prospect};
use stillframe::simulate::steady::{bound, steady_state};
use stillframe::simulate::{
    Happening, Options, Share, Simulation, Unwatched, Watcher, compare, simulate,
};

use super::{law, long_law};
use crate::memory::{self, instance};

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// Everything that was carried out, in order.
#[derive(Default)]
struct Log(Vec<(Timestamp, Key, Action, String)>);

impl Watcher for Log {
    fn happened(&mut self, at: Timestamp, key: &Key, image: &str, action: Action) {
        self.0.push((at, key.clone(), action, image.to_owned()));
    }
}

fn options(start: Timestamp, days: u32, fail_rate: u32, seed: u64) -> Options {
    Options { start, days, fail_rate: Share(fail_rate), growth: Share(10_000), seed }
}

/// Some series, by policy and source.
type SeriesNames = BTreeSet<(PolicyName, SourceId)>;

/// Whole plans over whole inventories, guards and a second look, as apply does it. Which captures
/// fail is taken from the simulation, and so are its rounds: all at the start and at each slot, one
/// series where a grace ends.
struct Reference<'a> {
    policies: &'a Policies,
    inventory: Inventory,
    failed: BTreeSet<(Timestamp, PolicyName, SourceId)>,
    log: BTreeSet<(Timestamp, Key, Action)>,
    due: BTreeSet<(Timestamp, Option<(PolicyName, SourceId)>)>,
    made: usize,
}

impl Reference<'_> {
    fn plan(&self, now: Timestamp, whom: Option<&SeriesNames>) -> Plan {
        let mut plan = plan(self.policies, &self.inventory, now);
        if let Some(whom) = whom {
            plan.changes.retain(|change| {
                whom.contains(&(change.key.policy.clone(), change.key.source.clone()))
            });
        }
        plan
    }

    fn withheld(&self, plan: &Plan, now: Timestamp) -> BTreeSet<String> {
        let refusals = guard::guard(plan, &self.inventory, self.policies, &[], now);
        refusals.into_iter().flat_map(|refusal| refusal.images).collect()
    }

    fn round(&mut self, now: Timestamp, whom: Option<&SeriesNames>) {
        let approved = self.plan(now, whom);
        let mut withheld = self.withheld(&approved, now);
        let mut ready = BTreeSet::new();
        for change in approved.changes.iter().filter(|change| change.action == Action::Create) {
            if self.create(change, now) {
                ready.insert(change.image.name.clone());
            }
        }
        let fresh = plan(self.policies, &self.inventory, now);
        let wanted = still_wanted(&approved, &fresh, &self.inventory);
        withheld.extend(self.withheld(&approved, now));
        for (index, change) in approved.changes.iter().enumerate() {
            let id = change.image.id.clone().unwrap_or_default();
            let waits = change.waits_for.as_ref().is_some_and(|name| !ready.contains(name));
            if change.action == Action::Create
                || waits
                || !wanted.contains(&index)
                || (change.action == Action::Delete && withheld.contains(&id))
            {
                continue;
            }
            self.change(change, &id, now);
        }
    }

    fn create(&mut self, change: &Change, now: Timestamp) -> bool {
        let create = change.create.as_ref().unwrap();
        let images = &mut self.inventory.engines[0].images;
        if let Some(replaced) = &create.replaces {
            images.retain(|image| Some(&image.id) != replaced.id.as_ref());
        }
        let series = (now, change.key.policy.clone(), change.key.source.clone());
        let fails = self.failed.contains(&series);
        self.made += 1;
        let mut image = memory::image(&format!("made-{}", self.made), &change.key);
        image.name.clone_from(&change.image.name);
        image.labels.clone_from(&create.labels);
        image.created_at = now;
        image.state = if fails { ImageState::Failed } else { ImageState::Ready };
        images.push(image);
        self.log.insert((now, change.key.clone(), Action::Create));
        !fails
    }

    fn change(&mut self, change: &Change, id: &String, now: Timestamp) {
        self.log.insert((now, change.key.clone(), change.action));
        let images = &mut self.inventory.engines[0].images;
        if change.action == Action::Delete {
            images.retain(|image| image.id != *id);
            return;
        }
        let update = change.update.as_ref().unwrap();
        let image: &mut Image = images.iter_mut().find(|image| image.id == *id).unwrap();
        image.stage = update.stage_after;
        image.labels.retain(|label, _| !update.remove_labels.contains(label));
        image.labels.extend(update.set_labels.clone());
        let policy = self.policies.get(&change.key.policy).unwrap();
        let ends = policy.lifecycle.grace.after(now);
        if change.action == Action::Deprecate && ends > now {
            let series = (change.key.policy.clone(), change.key.source.clone());
            self.due.insert((ends, Some(series)));
        }
    }

    fn days(&mut self, start: Timestamp, days: u32) {
        let end = start + DAY * i32::try_from(days).unwrap();
        self.due.insert((start, None));
        // Every policy of these worlds runs at two, and the start is at noon.
        for day in 0..days {
            let slot = start + SignedDuration::from_hours(14 + 24 * i64::from(day));
            self.due.insert((slot, None));
        }
        while let Some((at, _)) = self.due.first().cloned().filter(|(at, _)| *at <= end) {
            let mut whom = BTreeSet::new();
            while self.due.first().is_some_and(|(other, _)| *other == at) {
                whom.insert(self.due.pop_first().unwrap().1);
            }
            // A round of all is one of each.
            let single: Option<SeriesNames> = whom.into_iter().collect();
            self.round(at, single.as_ref());
        }
    }
}

#[test]
fn a_simulation_does_what_whole_plans_would_do() {
    long_law(
        (
            crate::worlds::worlds().prop_map(crate::worlds::World::plain),
            0_u32..400_000,
            any::<u64>(),
        ),
        |(world, rate, seed)| {
            let (policies, inventory) = (world.policies(), world.inventory());
            let start = crate::worlds::now();
            let mut log = Log::default();
            let simulation =
                simulate(&policies, &inventory, None, &options(start, 12, rate, seed), &mut log);
            let failed = simulation
                .events
                .iter()
                .filter(|event| matches!(event.what, Happening::Failed { .. }))
                .map(|event| {
                    (event.at, event.policy.clone().unwrap(), event.source.clone().unwrap())
                })
                .collect();
            let mut reference = Reference {
                policies: &policies,
                inventory,
                failed,
                log: BTreeSet::new(),
                due: BTreeSet::new(),
                made: 0,
            };
            reference.days(start, 12);
            let simulated: BTreeSet<(Timestamp, Key, Action)> =
                log.0.into_iter().map(|(at, key, action, _)| (at, key, action)).collect();
            let differing: Vec<_> = simulated.symmetric_difference(&reference.log).collect();
            prop_assert!(differing.is_empty(), "{differing:#?}");
            let ready = reference.inventory.engines[0]
                .images
                .iter()
                .filter(|image| image.state == ImageState::Ready && !image.labels.is_empty())
                .count() as u64;
            let told: u64 =
                simulation.policies.iter().filter_map(|policy| policy.track.ready.last()).sum();
            prop_assert_eq!(told, ready);
            Ok(())
        },
    );
}

#[test]
fn a_simulation_is_a_function_of_its_inputs() {
    long_law(
        (
            crate::worlds::worlds().prop_map(crate::worlds::World::plain),
            0_u32..400_000,
            any::<u64>(),
        ),
        |(world, rate, seed)| {
            let (policies, inventory) = (world.policies(), world.inventory());
            let run = || {
                let options = options(crate::worlds::now(), 20, rate, seed);
                simulate(&policies, &inventory, None, &options, &mut Unwatched)
            };
            let (one, other) = (run(), run());
            prop_assert_eq!(
                serde_json::to_string(&one).unwrap(),
                serde_json::to_string(&other).unwrap()
            );
            prop_assert!(compare("the same", one, other).differences.is_empty());
            Ok(())
        },
    );
}

#[test]
fn no_source_loses_its_last_restore_point() {
    long_law(
        (
            crate::worlds::worlds().prop_map(crate::worlds::World::plain),
            0_u32..1_000_001,
            any::<u64>(),
        ),
        |(world, rate, seed)| {
            let (policies, inventory) = (world.policies(), world.inventory());
            let options = options(crate::worlds::now(), 40, rate, seed);
            let simulation = simulate(&policies, &inventory, None, &options, &mut Unwatched);
            for series in &simulation.series {
                let ready = &series.track.ready;
                prop_assert!(
                    ready.windows(2).all(|days| days[0] == 0 || days[1] > 0),
                    "{}: {ready:?}",
                    series.source
                );
            }
            Ok(())
        },
    );
}

/// One policy and one source with a history of its own.
#[derive(Debug, Clone)]
struct Solo {
    cron: &'static str,
    zone: &'static str,
    retention: BTreeMap<&'static str, u32>,
    at_least: u32,
    grace_hours: u32,
    jitter_minutes: u32,
    /// How many slots ago there are points, and for how many hours each is still held.
    history: BTreeMap<usize, Option<u32>>,
}

fn solos() -> impl Strategy<Value = Solo> {
    let rules = proptest::sample::select(vec![
        "hours", "days", "weeks", "last", "hourly", "daily", "weekly", "monthly",
    ]);
    let crons = vec!["0 2 * * *", "15 */6 * * *", "30 1 * * 1,4", "0 * * * *"];
    let zones = vec!["UTC", "Europe/Berlin", "America/New_York"];
    (
        (proptest::sample::select(crons), proptest::sample::select(zones)),
        proptest::collection::btree_map(rules, 1_u32..6, 1..4),
        1_u32..4,
        0_u32..72,
        prop_oneof![Just(0_u32), 1_u32..30],
        proptest::collection::btree_map(
            0_usize..12,
            prop_oneof![9 => Just(None), 1 => (1_u32..200).prop_map(Some)],
            0..10,
        ),
    )
        .prop_map(
            |((cron, zone), retention, at_least, grace_hours, jitter_minutes, history)| Solo {
                cron,
                zone,
                retention,
                at_least,
                grace_hours,
                jitter_minutes,
                history,
            },
        )
}

impl Solo {
    fn policies(&self) -> Policies {
        let kind = EngineKind {
            name: "memory",
            settings_schema: serde_json::json!({"type": "object"}),
            capabilities: |_| Capabilities::default(),
        };
        let rules: String =
            self.retention.iter().map(|(rule, count)| format!("{rule}: {count}, ")).collect();
        let text = format!(
            "apiVersion: stillframe/v1\nkind: Config\nspec:\n  engines: {{memory: {{memory: {{}}}}}}\n  \
             guards: {{seriesPercent: 100, enginePercent: 100, engineCount: 100000}}\n\
             ---\napiVersion: stillframe/v1\nkind: BackupPolicy\nmetadata: {{name: solo}}\nspec:\n  \
             source: {{match: [{{names: [\"*\"]}}]}}\n  \
             schedule: {{cron: \"{}\", timeZone: {}, jitter: {}m}}\n  \
             retention: {{{rules}atLeast: {}}}\n  lifecycle: {{grace: {}h}}\n",
            self.cron, self.zone, self.jitter_minutes, self.at_least, self.grace_hours
        );
        let loaded = load(vec![SourceFile { path: "all.yaml".to_owned(), text }], &[kind]);
        loaded.policies.unwrap_or_else(|| panic!("{:?}", loaded.findings))
    }

    fn inventory(&self, policies: &Policies, now: Timestamp) -> Inventory {
        let slots = policies.policies[0].schedule.last_slots(now, 12);
        let images = self.history.iter().map(|(ago, held)| {
            let key = Key {
                policy: PolicyName::parse("solo").unwrap(),
                source: SourceId::parse("web-1").unwrap(),
                slot: slots[*ago],
            };
            let mut image = memory::image(&format!("old-{ago:02}"), &key);
            if let Some(hours) = held {
                let until = now + SignedDuration::from_hours(i64::from(*hours));
                image.labels.insert(LABEL_HOLD.to_owned(), format!("until-{}", stamp(until)));
            }
            image
        });
        let engine = EngineInventory {
            name: "memory".to_owned(),
            kind: "memory".to_owned(),
            identity: "here".to_owned(),
            gaps: Vec::new(),
            images_seen_before: None,
            capabilities: Capabilities::default(),
            instances: vec![instance("web-1", &[])],
            images: images.collect(),
        };
        Inventory {
            format_version: FORMAT_VERSION.to_owned(),
            observed_at: now,
            engines: vec![engine],
        }
    }
}

/// When each image that was there at the start was deprecated for good and deleted.
fn ends(log: &Log) -> BTreeMap<String, (Option<Timestamp>, Option<Timestamp>)> {
    let mut ends: BTreeMap<String, (Option<Timestamp>, Option<Timestamp>)> = BTreeMap::new();
    for (at, _, action, image) in &log.0 {
        let end = ends.entry(image.clone()).or_default();
        match action {
            Action::Deprecate => end.0 = Some(*at),
            Action::Reactivate => end.0 = None,
            Action::Delete => end.1 = Some(*at),
            _ => {}
        }
    }
    ends
}

#[test]
fn forecasts_come_true() {
    const DAYS: u32 = 80;
    long_law(solos(), |solo| {
        let now = crate::worlds::now();
        let policies = solo.policies();
        let inventory = solo.inventory(&policies, now);
        let mut log = Log::default();
        simulate(&policies, &inventory, None, &options(now, DAYS, 0, 0), &mut log);
        let ends = ends(&log);
        let horizon = now + DAY * (i32::try_from(DAYS).unwrap() - 2);
        let desired = desired(&policies, &inventory, now);
        for series in &desired.engines[0].series {
            let prospect = Prospect::new(series, true, now);
            for point in &series.points {
                let forecast = prospect.of(&point.image.id).unwrap();
                let happened = ends.get(&point.image.id).copied().unwrap_or_default();
                prop_assert!(forecast.never.is_none(), "{:?}: {forecast:?}", point.image.id);
                for (what, said, was) in [
                    ("deprecated", forecast.deprecated_at, happened.0),
                    ("deleted", forecast.deleted_at, happened.1),
                ] {
                    let said = said.filter(|at| *at < horizon);
                    let was = was.filter(|at| *at < horizon + DAY);
                    let is_near = match (said, was) {
                        // A round may be a day away, or a slot of a rare schedule.
                        (Some(said), Some(was)) => {
                            (was - said).get_seconds().abs() <= DAY.as_secs()
                        }
                        (None, None) => true,
                        (None, Some(was)) => was >= horizon,
                        (Some(_), None) => false,
                    };
                    prop_assert!(
                        is_near,
                        "{} {what}: said {said:?}, was {was:?}\n{forecast:#?}",
                        point.image.id
                    );
                }
            }
        }
        Ok(())
    });
}

#[test]
fn rules_let_go_when_the_forecast_says() {
    law(solos(), |solo| {
        let now = crate::worlds::now();
        let policies = solo.policies();
        let inventory = solo.inventory(&policies, now);
        let desired = desired(&policies, &inventory, now);
        for series in &desired.engines[0].series {
            let prospect = Prospect::new(series, true, now);
            for point in &series.points {
                let forecast = prospect.of(&point.image.id).unwrap();
                let last = forecast.rules.iter().filter_map(|end| end.lets_go_at).max();
                // It is let go by the last of its rules, or was by all; never before.
                if let (Some(last), Some(deprecated)) = (last, forecast.deprecated_at) {
                    prop_assert!(deprecated >= last, "{forecast:#?}");
                }
                prop_assert!(forecast.deleted_at >= forecast.deprecated_at, "{forecast:#?}");
            }
        }
        Ok(())
    });
}

#[test]
fn what_holds_an_image_for_good_is_said() {
    let now = crate::worlds::now();
    let solo = Solo {
        cron: "0 2 * * *",
        zone: "UTC",
        retention: BTreeMap::from([("last", 3)]),
        at_least: 1,
        grace_hours: 24,
        jitter_minutes: 0,
        history: (0..4).map(|ago| (ago, None)).collect(),
    };
    let policies = solo.policies();
    let never = |policies: &Policies, edit: &dyn Fn(&mut EngineInventory)| {
        let mut inventory = solo.inventory(policies, now);
        edit(&mut inventory.engines[0]);
        let desired = desired(policies, &inventory, now);
        let series = &desired.engines[0].series[0];
        let whole = inventory.engines[0].is_complete();
        Prospect::new(series, whole, now).of("old-00").unwrap().never
    };
    let label = |engine: &mut EngineInventory, label: &str| {
        engine.images[0].labels.insert(label.to_owned(), "yes".to_owned());
    };
    assert_eq!(never(&policies, &|_| {}), None);
    assert_eq!(never(&policies, &|engine| label(engine, LABEL_HOLD)), Some(Never::Held));
    assert_eq!(
        never(&policies, &|engine| engine.images[0].in_use_by.push("vm".to_owned())),
        Some(Never::InUse)
    );
    assert_eq!(never(&policies, &|engine| engine.instances.clear()), Some(Never::NoNewPoints));
    assert_eq!(
        never(&policies, &|engine| engine.images[0].state = ImageState::Creating),
        Some(Never::NotReady)
    );
    let mut none = policies.clone();
    none.policies[0].retention.rules.clear();
    assert_eq!(never(&none, &|_| {}), Some(Never::NoRules));
}

#[test]
fn a_series_comes_to_its_steady_state() {
    long_law((solos(), 0_u32..12), |(mut solo, hour)| {
        // Rounds at each slot see every age in time, and the days of the simulation end in one.
        solo.cron = "0 */6 * * *";
        solo.zone = "UTC";
        solo.jitter_minutes = 0;
        solo.history.clear();
        solo.retention.retain(|rule, _| *rule != "monthly");
        solo.retention.entry("daily").or_insert(3);
        let policies = solo.policies();
        let start: Timestamp = "2026-11-21T06:00:00Z".parse().unwrap();
        let start = start + SignedDuration::from_hours(i64::from(hour / 6 * 6));
        let inventory = solo.inventory(&policies, start);
        let simulation: Simulation =
            simulate(&policies, &inventory, None, &options(start, 42, 0, 0), &mut Unwatched);
        let end = start + DAY * 42;
        let steady = steady_state(&policies.policies[0], end).unwrap();
        let track = &simulation.policies[0].track;
        let (ready, deprecated) = (*track.ready.last().unwrap(), *track.deprecated.last().unwrap());
        prop_assert_eq!(ready - deprecated, steady.kept);
        // What is let go is deleted in a round, not at the very instant.
        prop_assert!(deprecated.abs_diff(steady.in_grace) <= 1, "{deprecated} {steady:?}");
        let bound = bound(&policies.policies[0]).unwrap();
        prop_assert!(bound >= simulation.policies[0].totals.peak_ready, "{bound}");
        prop_assert!(bound >= steady.images());
        Ok(())
    });
}

#[test]
fn rare_rules_over_busy_schedules_are_foreseen_without_walking_there() {
    let mut solo = Solo {
        cron: "* * * * *",
        zone: "Europe/Berlin",
        retention: BTreeMap::from([("yearly", 10), ("last", 5)]),
        at_least: 1,
        grace_hours: 0,
        jitter_minutes: 0,
        history: BTreeMap::from([(0, None)]),
    };
    let now: Timestamp = "2026-12-31T22:59:30Z".parse().unwrap();
    let policies = solo.policies();
    let inventory = solo.inventory(&policies, now);
    let desired = desired(&policies, &inventory, now);
    let series = &desired.engines[0].series[0];
    let forecast = Prospect::new(series, true, now).of("old-00").unwrap();
    // The last minute of 2026 in Berlin stands for that year until 2036 has its first point.
    let ends: Vec<Option<Timestamp>> = forecast.rules.iter().map(|end| end.lets_go_at).collect();
    let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
    assert_eq!(
        ends,
        [at("2026-12-31T23:04:00Z"), at("2035-12-31T23:00:00Z"), at("2026-12-31T23:00:00Z")]
    );
    assert_eq!(forecast.deprecated_at, at("2035-12-31T23:00:00Z"));
    solo.retention = BTreeMap::from([("yearly", 10), ("last", 5), ("hours", 1)]);
    let steady = steady_state(&solo.policies().policies[0], now).unwrap();
    assert_eq!((steady.kept, steady.in_grace), (60 + 9, 0));
    assert_eq!(Slot::at(steady.reach.before(now)).to_string(), "20171231t225900z");
}
