//! Laws 1 to 10 and 12 to 17 of retention.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use jiff::Timestamp;
use proptest::prelude::*;
use stillframe::elapsed::Elapsed;
use stillframe::inventory::Content;
use stillframe::name::Slot;
use stillframe::retention::{CLOCK_SKEW, Fate, Period, Point, Retention, Rule, retain};
use stillframe::schedule::Zone;

use super::law;

/// 2026-03-01: two years of slots before and after pass through clock changes of both halves of
/// the earth, a leap day and ISO week 53.
const MIDDLE: i64 = 1_772_323_200;
const DAY: i64 = 86_400;
const ZONES: [&str; 6] = [
    "UTC",
    "America/New_York",
    "Europe/Berlin",
    "Australia/Lord_Howe",
    "America/St_Johns",
    "Pacific/Apia",
];
const COUNTS: [Rule; 6] =
    [Rule::Last, Rule::Hourly, Rule::Daily, Rule::Weekly, Rule::Monthly, Rule::Yearly];

/// A point that owns its id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Owned {
    slot: i64,
    id: String,
    /// The first so many disks are in it; none where nobody knows.
    disks: usize,
    ready: bool,
    held: bool,
}

#[derive(Debug, Clone)]
struct World {
    points: Vec<Owned>,
    retention: Retention,
    zone: usize,
    now: i64,
}

impl World {
    fn now(&self) -> Timestamp {
        at(self.now)
    }

    fn zone(&self) -> Zone {
        Zone::find(ZONES[self.zone]).unwrap()
    }

    fn fates(&self) -> Vec<Fate> {
        let points: Vec<Point<'_>> = self.points.iter().map(Owned::point).collect();
        retain(&points, &self.retention, &self.zone(), self.now())
    }

    fn kept(&self) -> BTreeSet<Owned> {
        self.points
            .iter()
            .zip(self.fates())
            .filter(|(_, fate)| fate.is_kept())
            .map(|(point, _)| point.clone())
            .collect()
    }

    fn let_go(&self) -> BTreeSet<Owned> {
        self.points
            .iter()
            .zip(self.fates())
            .filter(|(_, fate)| !fate.is_kept())
            .map(|(point, _)| point.clone())
            .collect()
    }

    fn with_points(&self, points: impl IntoIterator<Item = Owned>) -> Self {
        Self { points: points.into_iter().collect(), ..self.clone() }
    }

    fn is_future(&self, point: &Owned) -> bool {
        at(point.slot) > CLOCK_SKEW.after(self.now())
    }

    /// READY points that are neither held nor in the future, the newest first.
    fn newest_first(&self) -> Vec<&Owned> {
        let mut points: Vec<&Owned> = self
            .points
            .iter()
            .filter(|point| point.ready && !point.held && !self.is_future(point))
            .collect();
        points.sort_by_key(|point| std::cmp::Reverse((point.slot, point.id.as_str())));
        points
    }
}

impl Owned {
    fn point(&self) -> Point<'_> {
        let slot = Slot::at(at(self.slot));
        Point { slot, id: &self.id, content: self.content(), ready: self.ready, held: self.held }
    }

    fn content(&self) -> Content<'_> {
        static DISKS: LazyLock<[String; 2]> = LazyLock::new(|| ["boot".into(), "data".into()]);
        Content {
            kind: "snapshot",
            disks: DISKS.get(..self.disks).filter(|disks| !disks.is_empty()),
        }
    }

    /// Whether a newer image of its slot has all that this one has.
    fn is_double(&self, newest_first: &[&Self]) -> bool {
        newest_first.iter().any(|other| {
            let has_all = match (self.disks, other.disks) {
                (0, 0) => true,
                (0, _) | (_, 0) => false,
                (own, others) => own <= others,
            };
            other.slot == self.slot && other.id > self.id && has_all
        })
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn points(count: usize) -> impl Strategy<Value = Vec<Owned>> {
    // Dense days and sparse years, so that periods hold many points or none.
    let slot = prop_oneof![
        (-3 * DAY..DAY).prop_map(|offset| MIDDLE + offset / 600 * 600),
        (-60 * DAY..2 * DAY).prop_map(|offset| MIDDLE + offset / 3600 * 3600),
        (-700 * DAY..60 * DAY).prop_map(|offset| MIDDLE + offset / 3600 * 3600),
    ];
    let point = (slot, "[ab]", 0_usize..3, prop::bool::weighted(0.85), prop::bool::weighted(0.1))
        .prop_map(|(slot, id, disks, ready, held)| Owned { slot, id, disks, ready, held });
    proptest::collection::vec(point, 0..count).prop_map(|mut points| {
        // Two points of one series differ in slot or id.
        points.sort_by(|one, other| (one.slot, &one.id).cmp(&(other.slot, &other.id)));
        points.dedup_by(|one, other| (one.slot, &one.id) == (other.slot, &other.id));
        points
    })
}

fn retentions(rules: &'static [Rule]) -> impl Strategy<Value = Retention> {
    (proptest::collection::btree_map(proptest::sample::select(rules), 0_u32..9, 0..4), 1_u32..4)
        .prop_map(|(rules, at_least)| Retention { rules, at_least })
}

fn worlds() -> impl Strategy<Value = World> {
    worlds_with(&Rule::ALL)
}

fn worlds_with(rules: &'static [Rule]) -> impl Strategy<Value = World> {
    (points(60), retentions(rules), 0..ZONES.len(), -2 * DAY..2 * DAY).prop_map(
        |(points, retention, zone, offset)| World { points, retention, zone, now: MIDDLE + offset },
    )
}

#[test]
fn law_01_total_and_independent_of_order() {
    law((worlds(), any::<prop::sample::Index>()), |(world, turn)| {
        let fates = world.fates();
        prop_assert_eq!(fates.len(), world.points.len());
        let mut turned = world.clone();
        if !turned.points.is_empty() {
            let middle = turn.index(turned.points.len());
            turned.points.rotate_left(middle);
            turned.points.reverse();
        }
        prop_assert_eq!(world.kept(), turned.kept());
        Ok(())
    });
}

#[test]
fn law_02_every_fate_has_a_reason_that_holds() {
    law(worlds(), |world| {
        for fate in world.fates() {
            match fate {
                Fate::Kept(reasons) => prop_assert!(!reasons.is_empty()),
                Fate::LetGo(closest) => {
                    prop_assert!(
                        world.retention.rules.get(&closest.rule).is_some_and(|count| *count > 0)
                    );
                }
            }
        }
        Ok(())
    });
}

#[test]
fn law_03_retaining_the_kept_again_keeps_all() {
    law(worlds(), |world| {
        let kept = world.kept();
        prop_assert_eq!(world.with_points(kept.clone()).kept(), kept);
        Ok(())
    });
}

#[test]
fn law_04_raising_a_count_loses_nothing() {
    law((worlds(), proptest::sample::select(&Rule::ALL[..]), 1_u32..9), |(world, rule, more)| {
        let kept = world.kept();
        let mut raised = world.clone();
        // A rule that was not there adds itself, unless it is the first: then nothing was let go.
        if world.retention.rules.values().any(|count| *count > 0) {
            *raised.retention.rules.entry(rule).or_default() += more;
            prop_assert!(kept.is_subset(&raised.kept()));
        }
        raised = world.clone();
        raised.retention.at_least += more;
        prop_assert!(kept.is_subset(&raised.kept()));
        Ok(())
    });
}

#[test]
fn law_05_a_hold_only_adds_and_takes_no_place() {
    law((worlds(), any::<prop::sample::Index>()), |(world, which)| {
        prop_assume!(!world.points.is_empty());
        let which = which.index(world.points.len());
        let mut held = world.clone();
        held.points[which].held = true;
        let strip = |points: BTreeSet<Owned>| -> BTreeSet<(i64, String)> {
            points.into_iter().map(|point| (point.slot, point.id)).collect()
        };
        prop_assert!(strip(world.kept()).is_subset(&strip(held.kept())));
        let mut without = held.clone();
        let gone = without.points.remove(which);
        let mut rest = strip(held.kept());
        rest.remove(&(gone.slot, gone.id));
        prop_assert_eq!(rest, strip(without.kept()));
        Ok(())
    });
}

#[test]
fn law_06_the_newest_are_kept_whatever_the_rules_say() {
    law(worlds(), |world| {
        let kept = world.kept();
        // Of two points of one slot, the one with the larger id stands for both.
        let mut newest = world.newest_first();
        newest.dedup_by_key(|point| point.slot);
        for point in newest.into_iter().take(world.retention.at_least.max(1) as usize) {
            prop_assert!(kept.contains(point));
        }
        Ok(())
    });
}

#[test]
fn law_07_no_rules_let_nothing_go() {
    law((worlds(), 0_u32..2), |(mut world, zeroes)| {
        world.retention.rules =
            Rule::ALL.into_iter().take(9 * zeroes as usize).map(|rule| (rule, 0)).collect();
        prop_assert_eq!(world.let_go(), BTreeSet::new());
        Ok(())
    });
}

#[test]
fn law_08_what_is_not_ready_changes_nothing() {
    law(worlds(), |world| {
        let ready = |points: BTreeSet<Owned>| {
            points.into_iter().filter(|point| point.ready).collect::<BTreeSet<_>>()
        };
        let only_ready =
            world.with_points(world.points.iter().filter(|point| point.ready).cloned());
        prop_assert_eq!(ready(world.kept()), only_ready.kept());
        prop_assert!(world.let_go().iter().all(|point| point.ready));
        Ok(())
    });
}

#[test]
fn law_09_a_new_point_lets_go_of_at_most_one_per_rule() {
    law(worlds(), |world| {
        let newest = world.points.iter().map(|point| point.slot).max().unwrap_or(MIDDLE);
        let mut later = world.clone();
        later.now = world.now.max(newest) + 1;
        let before = later.let_go();
        let mut with_new = later.clone();
        with_new.points.push(Owned {
            slot: later.now,
            id: "new".to_owned(),
            disks: 0,
            ready: true,
            held: false,
        });
        let newly: BTreeSet<i64> =
            with_new.let_go().difference(&before).map(|point| point.slot).collect();
        let counting = COUNTS
            .iter()
            .filter(|rule| later.retention.rules.get(rule).is_some_and(|count| *count > 0));
        // One for each counting rule and one for the floor.
        prop_assert!(newly.len() <= counting.count() + 1, "{newly:?}");
        Ok(())
    });
}

#[test]
fn law_10_duplicates_have_one_representative() {
    law(worlds_with(&[Rule::Daily, Rule::Monthly]), |mut world| {
        world.retention.at_least = 1;
        for point in &mut world.points {
            point.held = false;
        }
        let zone = world.zone();
        for (rule, period) in [(Rule::Daily, Period::Day), (Rule::Monthly, Period::Month)] {
            world.retention.rules = BTreeMap::from([(rule, 100)]);
            let kept = world.kept();
            let mut by_period: BTreeMap<i64, Vec<&Owned>> = BTreeMap::new();
            for point in world.newest_first() {
                by_period.entry(period.key(at(point.slot), &zone)).or_default().push(point);
            }
            for points in by_period.values() {
                // Of one slot, also what holds something that no newer one of it does.
                let wanted = points
                    .iter()
                    .filter(|point| point.slot == points[0].slot && !point.is_double(points));
                let kept = points.iter().filter(|point| kept.contains(**point));
                prop_assert!(kept.eq(wanted), "{points:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn law_12_shifting_by_whole_weeks_shifts_the_result() {
    let rules: &[Rule] = &[
        Rule::Hours,
        Rule::Days,
        Rule::Weeks,
        Rule::Last,
        Rule::Hourly,
        Rule::Daily,
        Rule::Weekly,
    ];
    law((worlds_with(rules), -500_i64..500), |(mut world, weeks)| {
        world.zone = 0;
        let shift = weeks * 7 * DAY;
        let mut shifted = world.clone();
        shifted.now += shift;
        for point in &mut shifted.points {
            point.slot += shift;
        }
        let back: BTreeSet<Owned> = shifted
            .kept()
            .into_iter()
            .map(|point| Owned { slot: point.slot - shift, ..point })
            .collect();
        prop_assert_eq!(world.kept(), back);
        Ok(())
    });
}

#[test]
fn law_13_what_is_let_go_stays_let_go() {
    law((worlds(), 0_i64..400 * DAY), |(world, later)| {
        let mut then = world.clone();
        then.now += later;
        prop_assert!(world.let_go().is_subset(&then.let_go()));
        Ok(())
    });
}

#[test]
fn law_14_rolling_is_one_shot() {
    // A year of captures, retained after each, against one retention at the end.
    law((worlds_with(&COUNTS), 3_i64..40), |(mut world, hours)| {
        let end = MIDDLE + 365 * DAY;
        let all: Vec<Owned> = (0..)
            .map(|step| MIDDLE + step * hours * 3600 * 7 / 5)
            .take_while(|slot| *slot <= end)
            .map(|slot| Owned { slot, id: String::new(), disks: 0, ready: true, held: false })
            .collect();
        let mut rolling = world.with_points([]);
        for point in all.iter().step_by(3) {
            rolling.now = point.slot;
            rolling.points.push(point.clone());
            rolling.points = rolling.kept().into_iter().collect();
        }
        world.points = all.into_iter().step_by(3).collect();
        world.now = rolling.now;
        prop_assert_eq!(rolling.kept(), world.kept());
        Ok(())
    });
}

#[test]
fn law_15_counts_let_nothing_go_by_waiting() {
    law((worlds_with(&COUNTS), 0_i64..4_000 * DAY), |(mut world, later)| {
        // Without points from the future, which would arrive by waiting.
        let now = world.now;
        world.points.retain(|point| point.slot <= now);
        let mut then = world.clone();
        then.now += later;
        prop_assert_eq!(world.kept(), then.kept());
        Ok(())
    });
}

#[test]
fn law_16_a_point_in_the_future_moves_no_other() {
    law((worlds(), 1_i64..900 * DAY), |(world, ahead)| {
        let future = Owned {
            slot: world.now + CLOCK_SKEW.as_seconds() + ahead,
            id: "future".to_owned(),
            disks: 0,
            ready: true,
            held: false,
        };
        let mut with_future = world.clone();
        with_future.points.push(future.clone());
        let mut kept = with_future.kept();
        prop_assert!(kept.remove(&future));
        prop_assert_eq!(kept, world.kept());
        Ok(())
    });
}

#[test]
fn law_17_period_keys_are_total_and_in_order() {
    let instants = proptest::collection::vec(0_i64..4_000_000_000, 1..200);
    // Close to one instant too, where clock changes are crossed step by step.
    let close = (0_i64..4_000_000_000, 60_i64..4_000)
        .prop_map(|(from, step)| (0..200).map(|count| from + count * step).collect());
    law(
        (prop_oneof![instants, close], 0..ZONES.len()),
        |(mut instants, zone): (Vec<i64>, usize)| {
            let zone = Zone::find(ZONES[zone]).unwrap();
            instants.sort_unstable();
            for period in [Period::Hour, Period::Day, Period::Week, Period::Month, Period::Year] {
                let keys: Vec<i64> =
                    instants.iter().map(|second| period.key(at(*second), &zone)).collect();
                prop_assert!(keys.is_sorted(), "{period:?} in {}: {keys:?}", zone.name());
            }
            Ok(())
        },
    );
}

#[test]
fn law_18_hiding_a_point_costs_no_other() {
    law((worlds(), any::<prop::sample::Index>()), |(world, which)| {
        prop_assume!(!world.points.is_empty());
        let mut hidden = world.clone();
        let gone = hidden.points.remove(which.index(world.points.len()));
        let mut kept = world.kept();
        kept.remove(&gone);
        prop_assert!(kept.is_subset(&hidden.kept()));
        Ok(())
    });
}

#[test]
fn ages_are_measured_from_the_slot() {
    law((worlds_with(&[Rule::Days]), 1_u32..40), |(mut world, days)| {
        world.retention = Retention { rules: BTreeMap::from([(Rule::Days, days)]), at_least: 1 };
        for point in world.let_go() {
            prop_assert!(Elapsed::between(at(point.slot), world.now()) > Elapsed::days(days));
        }
        Ok(())
    });
}
