//! What simulations and forecasts promise: they do what plans do, and say beforehand what will be.

mod rich;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use stillframe::cost::{Amount, Prices, Rate, after_plan};
use stillframe::desired::desired;
use stillframe::elapsed::Elapsed;
use stillframe::inventory::{
    Capabilities, Disk, EngineInventory, FORMAT_VERSION, Image, ImageKind, ImageState, Inventory,
    LABEL_HOLD, LABEL_LET_GO, LABEL_SET, Limits,
};
use stillframe::name::{Key, PolicyName, Slot, SourceId, stamp};
use stillframe::plan::{Action, Change, ImageRef, Plan, guard, plan, still_wanted};
use stillframe::policy::meant::{Guards, OnSourceGone};
use stillframe::policy::select::Patterns;
use stillframe::policy::written::Texts;
use stillframe::policy::{EngineKind, Policies, SourceFile, load};
use stillframe::simulate::forecast::{Never, Prospect};
use stillframe::simulate::steady::{bound, steady_state};
use stillframe::simulate::{
    Happening, Options, Share, Simulation, Track, Unwatched, Watcher, compare, simulate,
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

/// Whom a round is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Whom {
    /// Every policy that is in the files.
    All,
    Policy(PolicyName),
    Series(PolicyName, SourceId),
}

/// Whole plans over whole inventories, guards and a second look, as apply does it. Which captures
/// fail is taken from the simulation, and so are its rounds: all at the start and at each slot,
/// removed policies once a day, one policy where a pause ends, one series where a grace ends.
struct Reference<'a> {
    policies: &'a Policies,
    inventory: Inventory,
    failed: BTreeSet<(Timestamp, PolicyName, SourceId)>,
    log: BTreeSet<(Timestamp, Key, Action)>,
    due: BTreeSet<(Timestamp, Whom)>,
    /// All series, where those of a source are looked at together.
    together: Vec<(PolicyName, SourceId)>,
}

impl Reference<'_> {
    /// With all series of the sources that a round is for, where the engine limits how often a source
    /// is captured.
    fn with_others(&self, whom: &BTreeSet<Whom>) -> BTreeSet<Whom> {
        let is_meant = |(policy, source): &&(PolicyName, SourceId)| {
            whom.contains(&Whom::Policy(policy.clone()))
                || whom.contains(&Whom::Series(policy.clone(), source.clone()))
                || (whom.contains(&Whom::All) && self.policies.get(policy).is_some())
        };
        let sources: BTreeSet<&SourceId> =
            self.together.iter().filter(is_meant).map(|(_, source)| source).collect();
        let others = self.together.iter().filter(|(_, source)| sources.contains(source));
        let others = others.map(|(policy, source)| Whom::Series(policy.clone(), source.clone()));
        whom.iter().cloned().chain(others).collect()
    }

    fn keeper(&self, key: &Key) -> PolicyName {
        self.policies.keeper(&key.policy).unwrap().name.clone()
    }

    fn plan(&self, now: Timestamp, whom: &BTreeSet<Whom>) -> Plan {
        let mut plan = plan(self.policies, &self.inventory, now);
        plan.changes.retain(|change| {
            let keeper = self.keeper(&change.key);
            let is_in_the_files = self.policies.get(&keeper).is_some();
            (whom.contains(&Whom::All) && is_in_the_files)
                || whom.contains(&Whom::Policy(keeper.clone()))
                || whom.contains(&Whom::Series(keeper, change.key.source.clone()))
        });
        plan
    }

    fn withheld(&self, plan: &Plan, now: Timestamp) -> BTreeSet<String> {
        let refusals = guard::guard(plan, &self.inventory, self.policies, &[], now);
        refusals.into_iter().flat_map(|refusal| refusal.images).collect()
    }

    fn round(&mut self, now: Timestamp, whom: &BTreeSet<Whom>) {
        let approved = self.plan(now, whom);
        for waiting in &approved.waiting {
            let (policy, source) = (self.keeper(&waiting.key), waiting.key.source.clone());
            let series = Whom::Series(policy, source);
            if whom.contains(&series) {
                self.due.insert((waiting.until, series));
            }
        }
        let mut withheld = self.withheld(&approved, now);
        let mut ready = BTreeSet::new();
        let mut is_first_look = true;
        for action in [Action::Create, Action::Copy, Action::Drill] {
            for change in approved.changes.iter().filter(|change| change.action == action) {
                is_first_look = false;
                if change.waits_for.as_ref().is_some_and(|name| !ready.contains(name)) {
                    continue;
                }
                match action {
                    Action::Create => {
                        if self.create(change, now) {
                            ready.insert(change.image.name.clone());
                        }
                    }
                    Action::Copy => {
                        ready.extend(change.copy.as_ref().map(|copy| copy.name.clone()));
                        self.copy(change, now);
                    }
                    _ => self.update(change, now),
                }
            }
        }
        let fresh = plan(self.policies, &self.inventory, now);
        let wanted = still_wanted(&approved, &fresh, &self.inventory);
        withheld.extend(self.withheld(&approved, now));
        for (index, change) in approved.changes.iter().enumerate() {
            let id = change.image.id.clone().unwrap_or_default();
            let waits = change.waits_for.as_ref().is_some_and(|name| !ready.contains(name))
                || change.unless.as_ref().is_some_and(|name| ready.contains(name));
            if matches!(change.action, Action::Create | Action::Copy | Action::Drill)
                || waits
                || !(is_first_look || wanted.contains(&index))
                || (change.action == Action::Delete && withheld.contains(&id))
            {
                continue;
            }
            self.change(change, &id, now);
        }
    }

    fn make_room(&mut self, replaced: Option<&ImageRef>) {
        if let Some(id) = replaced.and_then(|image| image.id.as_ref()) {
            self.inventory.engines[0].images.retain(|image| image.id != *id);
        }
    }

    fn create(&mut self, change: &Change, now: Timestamp) -> bool {
        let create = change.create.as_ref().unwrap();
        self.make_room(create.replaces.as_ref());
        let series = (now, change.key.policy.clone(), change.key.source.clone());
        let state =
            if self.failed.contains(&series) { ImageState::Failed } else { ImageState::Ready };
        let (name, location) = (&change.image.name, &change.image.location);
        self.make(change, name, location, &create.labels, state, now);
        state == ImageState::Ready
    }

    fn copy(&mut self, change: &Change, now: Timestamp) {
        let copy = change.copy.as_ref().unwrap();
        self.make_room(copy.replaces.as_ref());
        self.make(change, &copy.name, &copy.location, &copy.labels, ImageState::Ready, now);
    }

    fn make(
        &mut self,
        change: &Change,
        name: &str,
        location: &str,
        labels: &BTreeMap<String, String>,
        state: ImageState,
        now: Timestamp,
    ) {
        // Of two images of one slot the greater id counts as the newer: in the order of the names.
        let Key { policy, slot, .. } = &change.key;
        let id = format!("simulated-{slot}-{}-{policy}-{location}-{}", now, change.key.source);
        let mut image = memory::image(&id, &change.key);
        name.clone_into(&mut image.name);
        location.clone_into(&mut image.location);
        image.labels.clone_from(labels);
        image.created_at = now;
        image.state = state;
        self.inventory.engines[0].images.push(image);
        self.log.insert((now, change.key.clone(), change.action));
    }

    fn change(&mut self, change: &Change, id: &String, now: Timestamp) {
        if change.action == Action::Delete {
            self.log.insert((now, change.key.clone(), change.action));
            return self.inventory.engines[0].images.retain(|image| image.id != *id);
        }
        self.update(change, now);
        let policy = self.policies.keeper(&change.key.policy).unwrap();
        let ends = policy.lifecycle.grace.after(now);
        if change.action == Action::Deprecate && ends > now {
            let series = Whom::Series(policy.name.clone(), change.key.source.clone());
            self.due.insert((ends, series));
        }
    }

    fn update(&mut self, change: &Change, now: Timestamp) {
        self.log.insert((now, change.key.clone(), change.action));
        let update = change.update.as_ref().unwrap();
        let ImageRef { id, name, .. } = &change.image;
        let is_it = |image: &&mut Image| match id {
            Some(id) => image.id == *id,
            None => image.name == *name && !image.labels.is_empty(),
        };
        let image: &mut Image = self.inventory.engines[0].images.iter_mut().find(is_it).unwrap();
        image.stage = update.stage_after;
        image.labels.retain(|label, _| !update.remove_labels.contains(label));
        image.labels.extend(update.set_labels.clone());
        if let Some(sharing) = &update.sharing {
            image.sharing = Some(sharing.clone());
        }
    }

    fn days(&mut self, start: Timestamp, days: u32) {
        let end = start + DAY * i32::try_from(days).unwrap();
        self.due.insert((start, Whom::All));
        for day in 0..=days {
            let at = |hours: i64| start + SignedDuration::from_hours(hours + 24 * i64::from(day));
            // Every policy of these worlds runs at two, and the start is at noon.
            self.due.insert((at(14), Whom::All));
            let removed = self.policies.removed.iter();
            self.due.extend(removed.map(|policy| (at(0), Whom::Policy(policy.name.clone()))));
        }
        while let Some((at, _)) = self.due.first().cloned().filter(|(at, _)| *at <= end) {
            let mut whom = BTreeSet::new();
            while self.due.first().is_some_and(|(other, _)| *other == at) {
                whom.insert(self.due.pop_first().unwrap().1);
            }
            self.wait_for_pauses(at, &whom);
            self.round(at, &self.with_others(&whom));
        }
    }

    fn wait_for_pauses(&mut self, now: Timestamp, whom: &BTreeSet<Whom>) {
        for policy in self.policies.all() {
            for until in policy.pauses_at(now).iter().filter_map(|pause| pause.until) {
                for who in whom {
                    let again = match who {
                        Whom::All if policy.removed.is_none() => Whom::Policy(policy.name.clone()),
                        Whom::Policy(name) | Whom::Series(name, _) if *name == policy.name => {
                            who.clone()
                        }
                        _ => continue,
                    };
                    self.due.insert((until, again));
                }
            }
        }
    }
}

/// All series of an engine that limits how often a source is captured.
fn series(
    policies: &Policies,
    inventory: &Inventory,
    now: Timestamp,
) -> Vec<(PolicyName, SourceId)> {
    if inventory.engines[0].capabilities.limits == Limits::default() {
        return Vec::new();
    }
    let found = desired(policies, inventory, now);
    let series = found.engines.iter().flat_map(|engine| &engine.series);
    series.map(|series| (series.policy.name.clone(), series.source.clone())).collect()
}

/// Simulates twelve days and does the same with whole plans.
fn does_the_same(
    policies: &Policies,
    inventory: Inventory,
    rate: u32,
    seed: u64,
) -> Result<Simulation, TestCaseError> {
    let start = crate::worlds::now();
    let mut log = Log::default();
    let simulation =
        simulate(policies, &inventory, None, &options(start, 12, rate, seed), &mut log);
    let failed = simulation
        .events
        .iter()
        .filter(|event| matches!(event.what, Happening::Failed { .. }))
        .map(|event| (event.at, event.policy.clone().unwrap(), event.source.clone().unwrap()))
        .collect();
    let mut reference = Reference {
        policies,
        failed,
        log: BTreeSet::new(),
        due: BTreeSet::new(),
        together: series(policies, &inventory, start),
        inventory,
    };
    reference.days(start, 12);
    let simulated: BTreeSet<(Timestamp, Key, Action)> =
        log.0.into_iter().map(|(at, key, action, _)| (at, key, action)).collect();
    let differing: Vec<_> = simulated
        .symmetric_difference(&reference.log)
        .map(|one| (simulated.contains(one), one))
        .collect();
    prop_assert!(differing.is_empty(), "{differing:#?}");
    let images = &reference.inventory.engines[0].images;
    let ready = || {
        images.iter().filter(|image| image.state == ImageState::Ready && !image.labels.is_empty())
    };
    let last = |figures: fn(&Track) -> &Vec<u64>| -> u64 {
        simulation.policies.iter().filter_map(|policy| figures(&policy.track).last()).sum()
    };
    let originals = ready().filter(|image| !image.is_copy()).count() as u64;
    prop_assert_eq!(last(|track| &track.ready), originals);
    prop_assert_eq!(last(|track| &track.copies), ready().count() as u64 - originals);
    Ok(simulation)
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
            does_the_same(&world.policies(), world.inventory(), rate, seed)?;
            Ok(())
        },
    );
}

#[test]
fn sources_that_are_captured_in_turns_are_simulated_as_whole_plans_would_have_it() {
    long_law((rich::rich(), 0_u32..400_000, any::<u64>()), |(world, rate, seed)| {
        let mut inventory = world.inventory();
        inventory.engines[0].capabilities.limits = crate::worlds::pace();
        does_the_same(&world.policies(), inventory, rate, seed)?;
        Ok(())
    });
}

#[test]
fn the_whole_language_is_simulated_as_whole_plans_would_have_it() {
    long_law((rich::rich(), 0_u32..400_000, any::<u64>()), |(world, rate, seed)| {
        does_the_same(&world.policies(), world.inventory(), rate, seed)?;
        Ok(())
    });
}

/// Guards that refuse much, each by itself and together.
fn narrow() -> impl Strategy<Value = Guards> {
    (0_u32..60, 0_u32..30, 0_u32..6).prop_map(|(series_percent, engine_percent, engine_count)| {
        Guards { series_percent, engine_percent, engine_count, ..Guards::default() }
    })
}

#[test]
fn what_guards_refuse_waits_as_whole_plans_would_have_it() {
    long_law(
        (
            crate::worlds::worlds().prop_map(crate::worlds::World::plain),
            rich::rich(),
            narrow(),
            0_u32..400_000,
            (any::<bool>(), any::<u64>()),
        ),
        |(world, rich, guards, rate, (is_rich, seed))| {
            let (mut policies, inventory) = if is_rich {
                (rich.policies(), rich.inventory())
            } else {
                (world.policies(), world.inventory())
            };
            policies.config.guards = guards;
            does_the_same(&policies, inventory, rate, seed)?;
            Ok(())
        },
    );
}

/// Guards count what is left of a set among what goes, and so among what there is.
#[test]
fn what_is_partial_counts_where_it_goes() {
    use crate::worlds::{Gone, ImageSpec, More, PolicySpec, World};
    let spec = PolicySpec {
        retention: BTreeMap::from([("last", 30)]),
        at_least: 1,
        grace_hours: 24,
        paused: false,
        more: More::default(),
    };
    let night = |day| ImageSpec::plain(0, 0, day);
    let part = |day| ImageSpec { state: 11, let_go_hours_ago: Some(50), ..night(day) };
    let world = World {
        policies: vec![spec.clone(), spec],
        gone: Gone::default(),
        images: (0..10).map(night).chain((10..15).map(part)).collect(),
        foreign: 0,
        paced: false,
    };
    // Five of fifteen.
    for (series, engine, is_refused) in
        [(40, 100, false), (100, 40, false), (30, 100, true), (100, 30, true)]
    {
        let mut policies = world.policies();
        policies.config.guards.series_percent = series;
        policies.config.guards.engine_percent = engine;
        let simulation = does_the_same(&policies, world.inventory(), 0, 1).unwrap();
        let totals = &simulation.policies[0].totals;
        assert_eq!((totals.refused > 0, totals.deleted), (is_refused, 5), "{series} {engine}");
    }
}

/// Counts the images that planning looked at.
#[derive(Default)]
struct Looked(usize);

impl Watcher for Looked {
    fn planned(&mut self, images: usize) {
        self.0 += images;
    }
}

#[test]
fn what_guards_refuse_makes_no_later_day_dearer() {
    let solo = Solo {
        cron: "0 2 * * *",
        zone: "UTC",
        retention: BTreeMap::from([("days", 5), ("weekly", 2)]),
        at_least: 1,
        grace_hours: 24,
        jitter_minutes: 0,
        blackouts: BLACKOUTS[0],
        history: BTreeMap::new(),
    };
    let mut policies = solo.policies();
    policies.config.guards.engine_count = 0;
    let mut inventory = solo.inventory(&policies, crate::worlds::now());
    let web = inventory.engines[0].instances[0].clone();
    inventory.engines[0].instances = (0..20)
        .map(|number| {
            let id = SourceId::parse(&format!("{}-{number}", web.id)).unwrap();
            stillframe::inventory::Instance { id, ..web.clone() }
        })
        .collect();
    let looked = |days: u32| {
        let mut looked = Looked::default();
        let options = options(crate::worlds::now(), days, 50_000, 1);
        let simulation = simulate(&policies, &inventory, None, &options, &mut looked);
        let refused: u64 = simulation.policies.iter().map(|policy| policy.totals.refused).sum();
        assert!(refused > u64::from(days) * 20, "{refused}");
        looked.0
    };
    let (one, other) = (looked(100), looked(200));
    assert!(other < one * 5 / 2, "100 days looked at {one} images, 200 days at {other}");
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
    blackouts: &'static str,
    /// How many slots ago there are points, and for how many hours each is still held.
    history: BTreeMap<usize, Option<u32>>,
}

/// Among them one that delays slots, one that leaves slots out and one that lets nothing go.
const BLACKOUTS: [&str; 4] = [
    "[]",
    "[{cron: \"0 1 * * *\", duration: 3h, reason: night}]",
    "[{cron: \"0 0 * * sat\", duration: 50h, reason: weekend}]",
    "[{from: 2026-11-24, until: 2026-11-29, creates: false, deletes: true, reason: year end}]",
];

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
        (prop_oneof![Just(0_u32), 1_u32..30], proptest::sample::select(BLACKOUTS.to_vec())),
        proptest::collection::btree_map(
            0_usize..12,
            prop_oneof![9 => Just(None), 1 => (1_u32..200).prop_map(Some)],
            0..10,
        ),
    )
        .prop_map(
            |(
                (cron, zone),
                retention,
                at_least,
                grace_hours,
                (jitter_minutes, blackouts),
                history,
            )| Solo {
                cron,
                zone,
                retention,
                at_least,
                grace_hours,
                jitter_minutes,
                blackouts,
                history,
            },
        )
}

impl Solo {
    fn policies(&self) -> Policies {
        let kind = EngineKind {
            check: |_| Vec::new(),
            name: "memory",
            settings_schema: serde_json::json!({"type": "object"}),
            capabilities: |_| memory::capabilities(),
        };
        let rules: String =
            self.retention.iter().map(|(rule, count)| format!("{rule}: {count}, ")).collect();
        let text = format!(
            "apiVersion: stillframe/v1\nkind: Config\nspec:\n  engines: {{memory: {{memory: {{}}}}}}\n  \
             guards: {{seriesPercent: 100, enginePercent: 100, engineCount: 100000}}\n\
             ---\napiVersion: stillframe/v1\nkind: BackupPolicy\nmetadata: {{name: solo}}\nspec:\n  \
             source: {{match: [{{names: [\"*\"]}}]}}\n  \
             schedule: {{cron: \"{}\", timeZone: {}, jitter: {}m}}\n  \
             retention: {{{rules}atLeast: {}}}\n  lifecycle: {{grace: {}h}}\n  \
             blackouts: {}\n",
            self.cron,
            self.zone,
            self.jitter_minutes,
            self.at_least,
            self.grace_hours,
            self.blackouts
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
        // What is let go a day sooner may be so before the blackout and not after it, and then its
        // grace begins there.
        let grace = SignedDuration::from_hours(i64::from(solo.grace_hours));
        let (from, until) = (now + DAY, now + DAY * 9 + grace);
        let is_blacked_out =
            |at: Timestamp| solo.blackouts.contains("year end") && from <= at && at <= until;
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
                        // A round may be a day away, and the blackout of the deletes in between.
                        (Some(said), Some(was)) if is_blacked_out(said) && is_blacked_out(was) => {
                            true
                        }
                        (Some(said), Some(was)) => {
                            // Without a grace a second round deletes.
                            let rounds = 1 + i64::from(what == "deleted" && grace.is_zero());
                            (was - said).get_seconds().abs() <= rounds * DAY.as_secs()
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

/// Holds what forecasts say of this very instant against the plan for it.
fn agrees_with_the_plan(
    policies: &Policies,
    inventory: &Inventory,
    copies: bool,
) -> Result<(), TestCaseError> {
    let now = crate::worlds::now();
    let engine = &inventory.engines[0];
    let plan = plan(policies, inventory, now);
    let is_now = |at: Option<Timestamp>| at == Some(now);
    let desired = desired(policies, inventory, now);
    for series in &desired.engines[0].series {
        let prospect = Prospect::new(series, engine.is_complete(), now);
        for point in if copies { &series.copies } else { &series.points } {
            let id = &point.image.id;
            let forecast = prospect.of(id).unwrap();
            let is_it = |image: &ImageRef| image.id.as_ref() == Some(id);
            let replaces = |change: &Change| {
                let create = change.create.as_ref().and_then(|create| create.replaces.as_ref());
                let copy = change.copy.as_ref().and_then(|copy| copy.replaces.as_ref());
                create.or(copy).is_some_and(is_it)
            };
            if plan.changes.iter().any(replaces) {
                continue;
            }
            let change = plan.changes.iter().find(|change| {
                is_it(&change.image)
                    && change.unless.is_none()
                    && matches!(
                        change.action,
                        Action::Delete | Action::Deprecate | Action::Obsolete | Action::Relabel
                    )
            });
            let action = change.map(|change| change.action);
            let told = format!("{id}: {change:#?}\n{forecast:#?}");
            let is_let_go = change.is_some_and(|change| {
                let update = change.update.as_ref();
                update.is_some_and(|update| update.set_labels.contains_key(LABEL_LET_GO))
            });
            if point.image.let_go_at().is_none() {
                prop_assert_eq!(is_now(forecast.deprecated_at), is_let_go, "let go, {}", told);
            }
            prop_assert_eq!(
                is_now(forecast.deleted_at),
                action == Some(Action::Delete),
                "deleted, {}",
                told
            );
            let ages = |wanted: Action| action == Some(wanted) && !is_let_go;
            prop_assert_eq!(is_now(forecast.aged_at), ages(Action::Deprecate), "aged, {}", told);
            prop_assert_eq!(
                is_now(forecast.obsolete_at),
                ages(Action::Obsolete),
                "obsolete, {}",
                told
            );
        }
    }
    Ok(())
}

fn forecasts_of_now(copies: bool) {
    let age = || proptest::option::of(1_u32..8);
    law((rich::rich(), age(), age()), |(world, deprecate_after, obsolete_after)| {
        let mut policies = world.policies();
        for policy in &mut policies.policies {
            policy.lifecycle.deprecate_after = deprecate_after.map(Elapsed::days);
            policy.lifecycle.obsolete_after = obsolete_after.map(Elapsed::days);
        }
        agrees_with_the_plan(&policies, &world.inventory(), copies)
    });
}

#[test]
fn a_forecast_says_of_now_what_the_plan_does() {
    forecasts_of_now(false);
}

#[test]
fn a_forecast_of_a_copy_says_of_now_what_the_plan_does() {
    forecasts_of_now(true);
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
        blackouts: "[]",
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
fn what_becomes_of_a_source_that_is_gone_is_foreseen() {
    let now = crate::worlds::now();
    let solo = Solo {
        cron: "0 2 * * *",
        zone: "UTC",
        retention: BTreeMap::from([("last", 3)]),
        at_least: 1,
        grace_hours: 24,
        jitter_minutes: 0,
        blackouts: "[]",
        history: (0..4).map(|ago| (ago, None)).collect(),
    };
    for (choice, kept, other) in [
        (OnSourceGone::Rules, Some(Never::NoNewPoints), Some(Never::NoNewPoints)),
        (OnSourceGone::Keep, Some(Never::NoNewPoints), Some(Never::NoNewPoints)),
        (OnSourceGone::Expire, Some(Never::NoNewPoints), None),
    ] {
        let mut policies = solo.policies();
        policies.policies[0].lifecycle.on_source_gone = choice;
        let mut inventory = solo.inventory(&policies, now);
        inventory.engines[0].instances.clear();
        let mut log = Log::default();
        simulate(&policies, &inventory, None, &options(now, 40, 0, 0), &mut log);
        let desired = desired(&policies, &inventory, now);
        let prospect = Prospect::new(&desired.engines[0].series[0], true, now);
        let of = |id: &str| prospect.of(id).unwrap();
        assert_eq!((of("old-00").never, of("old-01").never), (kept, other), "{choice:?}");
        let fourth = of("old-03");
        assert_eq!(fourth.never.is_some(), choice == OnSourceGone::Keep);
        let happened = ends(&log);
        for id in ["old-00", "old-01", "old-03"] {
            let deleted = happened.get(id).and_then(|ends| ends.1);
            assert_eq!(of(id).deleted_at.is_some(), deleted.is_some(), "{choice:?} {id}");
            let apart = of(id).deleted_at.zip(deleted).map(|(said, was)| was - said);
            assert!(apart.is_none_or(|apart| apart.get_seconds().abs() <= DAY.as_secs()));
        }
    }
}

#[test]
fn holds_of_the_policy_are_foreseen() {
    let now = crate::worlds::now();
    let solo = Solo {
        cron: "0 2 * * *",
        zone: "UTC",
        retention: BTreeMap::from([("last", 2)]),
        at_least: 1,
        grace_hours: 0,
        jitter_minutes: 0,
        blackouts: "[]\n  hold: [{before: 2026-11-19, reason: books}, {from: 2026-11-20, before: 2026-11-21, until: 2026-12-24, reason: audit}]",
        history: (0..4).map(|ago| (ago, None)).collect(),
    };
    let policies = solo.policies();
    let inventory = solo.inventory(&policies, now);
    let desired = desired(&policies, &inventory, now);
    let prospect = Prospect::new(&desired.engines[0].series[0], true, now);
    // The slots are those of the 21st, the 20th, the 19th and the 18th.
    assert_eq!(prospect.of("old-03").unwrap().never, Some(Never::Held));
    let audited = prospect.of("old-01").unwrap();
    assert_eq!(audited.never, None);
    assert!(audited.deprecated_at >= Some("2026-12-24T00:00:00Z".parse().unwrap()), "{audited:#?}");
}

#[test]
fn copies_and_what_they_cost_are_counted_exactly() {
    const GIB: u64 = 1 << 30;
    let solo = Solo {
        cron: "0 2 * * *",
        zone: "UTC",
        retention: BTreeMap::from([("last", 3)]),
        at_least: 1,
        grace_hours: 0,
        jitter_minutes: 0,
        blackouts: "[]\n  storage: {copies: [vault]}\n  drill: {cron: \"0 3 * * wed\", check: verify}",
        history: BTreeMap::from([(0, None)]),
    };
    let policies = solo.policies();
    let now = crate::worlds::now();
    let mut inventory = solo.inventory(&policies, now);
    let engine = &mut inventory.engines[0];
    engine.capabilities = memory::capabilities();
    engine.images[0].stored_bytes = Some(100 * GIB);
    "local".clone_into(&mut engine.images[0].location);
    let rate = |location: &str, per_gib_month| Rate {
        engines: None,
        locations: Some(Patterns::new(&Texts(vec![location.to_owned()])).unwrap()),
        kind: None,
        per_gib_month,
    };
    let rates = vec![rate("local", 50_000), rate("vault", 10_000)];
    let prices = Prices::new("USD", jiff::civil::date(2026, 11, 1), rates);
    // What one plan brings: the copy that is missing.
    let now_plan = plan(&policies, &inventory, now);
    let bill = after_plan(&prices, &inventory, &now_plan, |_| None);
    assert_eq!(prices.money(bill.amount).micros, 100 * 60_000);
    // A new restore point, and its copy.
    let next = now + SignedDuration::from_hours(14);
    let next_plan = plan(&policies, &inventory, next);
    let bill = after_plan(&prices, &inventory, &next_plan, |_| Some(3 * GIB));
    assert_eq!((bill.images, prices.money(bill.amount).micros), (4, 103 * 60_000));
    let options = Options { growth: Share(0), ..options(now, 5, 0, 0) };
    let simulation = simulate(&policies, &inventory, Some(&prices), &options, &mut Unwatched);
    let policy = &simulation.policies[0];
    let increment = 100 * GIB / 100 * 3;
    let cost = |points: u64| Amount::of(100 * GIB + increment * points, 60_000).micros();
    // The first day is as it was found: no copy yet. Each day brings a point until three are kept;
    // what the first one holds beyond an ordinary one stays, here and there. What goes is deleted a
    // round after.
    let images = |day: usize| (policy.track.ready[day], policy.track.copies[day]);
    assert_eq!((images(0), images(1), images(2)), ((1, 0), (2, 2), (3, 3)));
    assert_eq!(policy.track.cost_micros[..3], [100 * 50_000, cost(1), cost(2)]);
    assert_eq!(images(5), (4, 4));
    assert_eq!(policy.track.cost_micros[5], cost(3));
    assert_eq!((policy.totals.created, policy.totals.copied, policy.totals.drilled), (5, 6, 1));
}

#[test]
fn sets_are_held_against_quotas_disk_by_disk() {
    let solo = Solo {
        cron: "0 2 * * *",
        zone: "UTC",
        retention: BTreeMap::from([("last", 3)]),
        at_least: 1,
        grace_hours: 0,
        jitter_minutes: 0,
        blackouts: "[]\n  capture: {kind: snapshot}",
        history: BTreeMap::from([(0, None)]),
    };
    let policies = solo.policies();
    let now = crate::worlds::now();
    let mut inventory = solo.inventory(&policies, now);
    let engine = &mut inventory.engines[0];
    let disk = engine.instances[0].disks[0].clone();
    let third = Disk { name: "third".to_owned(), boot: false, ..disk };
    engine.instances[0].disks.push(third);
    assert_eq!(engine.instances[0].disks.len(), 3);
    "p".clone_into(&mut engine.instances[0].project);
    engine.images[0].kind = ImageKind::Snapshot;
    "p".clone_into(&mut engine.images[0].project);
    engine.images[0].labels.insert(LABEL_SET.to_owned(), "3".to_owned());
    // One that is nobody's, one of another kind, and one in another project.
    for (project, kind) in
        [("p", ImageKind::Snapshot), ("p", ImageKind::DiskImage), ("q", ImageKind::Snapshot)]
    {
        let id = format!("{project}-{}", kind.word());
        let labels = BTreeMap::new();
        let project = project.to_owned();
        let foreign = Image { id, project, kind, labels, ..engine.images[0].clone() };
        engine.images.push(foreign);
    }
    engine.capabilities.per_disk_kinds = vec![ImageKind::Snapshot];
    let limits = |most| BTreeMap::from([(ImageKind::Snapshot, most), (ImageKind::MachineImage, 1)]);
    engine.capabilities.limits.images_by_project =
        [("p", limits(9)), ("q", limits(5))].map(|(name, most)| (name.to_owned(), most)).into();
    let options = Options { growth: Share(0), ..options(now, 5, 0, 0) };
    let simulation = simulate(&policies, &inventory, None, &options, &mut Unwatched);
    let policy = &simulation.policies[0];
    // Three points are kept; what goes is deleted a round after.
    assert_eq!(policy.track.ready, [1, 2, 3, 4, 4, 4]);
    assert_eq!(policy.track.images, [3, 6, 9, 12, 12, 12]);
    // The fifth was there before the first went.
    assert_eq!((policy.totals.peak_ready, policy.totals.peak_images), (5, 15));
    assert_eq!(simulation.series[0].track.images, policy.track.images);
    let quotas: Vec<_> =
        simulation.quotas.iter().map(|one| (&*one.project, one.limit, &one.used[..])).collect();
    assert_eq!(quotas, [("p", 9, &[4, 7, 10, 13, 13, 13][..]), ("q", 5, &[1; 6])]);
    let peaks: Vec<_> = simulation.quotas.iter().map(|one| &one.peaks[..]).collect();
    assert_eq!(peaks, [&[4, 7, 10, 13, 16, 16][..], &[1; 6]]);
    let text = stillframe::report::simulation::table(&simulation);
    assert!(text.contains("are one image for each disk: 3 → 12 images\n"), "{text}");
    let since = (now + SignedDuration::from_hours(48)).strftime("%Y-%m-%d").to_string();
    let over = format!("in p: up to 16 snapshots of 9, more than it takes since {since}\n");
    assert!(text.contains(&over) && text.contains("in q: up to 1 snapshots of 5\n"), "{text}");
    // Where each restore point is one image there is nothing more to say.
    inventory.engines[0].capabilities.per_disk_kinds.clear();
    inventory.engines[0].images[0].labels.remove(LABEL_SET);
    let plain = simulate(&policies, &inventory, None, &options, &mut Unwatched);
    assert_eq!(
        (plain.policies[0].track.images.len(), plain.policies[0].totals.peak_images),
        (0, 0)
    );
    assert_eq!(plain.quotas[0].used, [2, 3, 4, 5, 5, 5]);
}

#[test]
fn a_series_comes_to_its_steady_state() {
    long_law((solos(), 0_u32..12), |(mut solo, hour)| {
        // Rounds at each slot see every age in time, and the days of the simulation end in one.
        solo.cron = "0 */6 * * *";
        solo.zone = "UTC";
        solo.jitter_minutes = 0;
        solo.blackouts = BLACKOUTS[usize::from(hour % 2 == 1) * 2];
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
        blackouts: "[]",
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
