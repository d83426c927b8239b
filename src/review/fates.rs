//! What becomes of each image, before and after: forecasts of the series that are not what they were.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::World;
use super::document::{Fate, FateChange, Orphaned, Shifted};
use super::meaning::is_same;
use crate::desired::{Presence, Series, SeriesPoint};
use crate::elapsed::Elapsed;
use crate::inventory::{EngineInventory, ImageState};
use crate::name::{LABEL_KEY, LABEL_PREFIX, LABEL_SOURCE, PolicyName, SourceId, spread};
use crate::plan::ImageRef;
use crate::simulate::forecast::{Forecast, Prospect, next_runs};

/// Parts of the configuration that hold for all policies and say what becomes of images.
const SHARED: [&str; 3] = ["blackouts", "moved", "removed"];

/// Images whose end is another.
#[derive(Default)]
pub(super) struct Fates {
    /// Deleted earlier, the first first.
    pub(super) losses: Vec<FateChange>,
    /// Deleted later or never.
    pub(super) gains: Vec<FateChange>,
    /// Deleted a run earlier, as it is when schedules move.
    pub(super) shifted: Shifted,
}

type SeriesKey<'a> = (&'a str, &'a PolicyName, &'a SourceId);
/// The forecasts of images, by their ids, where a policy looks after them.
type Forecasts<'a> = BTreeMap<(&'a str, &'a str), Forecast>;

pub(super) fn fates(before: &World<'_>, after: &World<'_>, now: Timestamp) -> Fates {
    let (old, new) = (series_of(before), series_of(after));
    let config =
        |world: &World<'_>| SHARED.map(|key| world.policies.written_config.get(key).cloned());
    let is_unchanged = |key: &SeriesKey<'_>| {
        let (Some((_, one)), Some((_, other))) = (old.get(key), new.get(key)) else { return false };
        shared_is_same(one, other)
    };
    let same_config = config(before) == config(after);
    let is_left_out = |key: &SeriesKey<'_>| same_config && is_unchanged(key);
    let mut ends: Forecasts<'_> = BTreeMap::new();
    let mut shared = Shared::default();
    for (_, (engine, series)) in old.iter().filter(|(key, _)| !is_left_out(key)) {
        shared.forecasts(engine, series, now, &mut ends);
    }
    // Of other policies, whatever their names.
    let mut shared = Shared::default();
    let mut found = Fates::default();
    for (_, (engine, series)) in new.iter().filter(|(key, _)| !is_left_out(key)) {
        let mut coming: Forecasts<'_> = BTreeMap::new();
        shared.forecasts(engine, series, now, &mut coming);
        weigh(engine, series, &ends, &coming, now, &mut found);
    }
    let order = |one: &FateChange, other: &FateChange| {
        let place = |change: &FateChange| {
            let image = (change.engine.clone(), change.image.name.clone(), change.image.id.clone());
            (change.after.deleted_at, change.slot, image)
        };
        place(one).cmp(&place(other))
    };
    found.losses.sort_by(order);
    found.gains.sort_by(order);
    found
}

fn kind(series: &Series<'_>) -> u8 {
    match series.state.presence {
        Presence::Present(_) => 0,
        Presence::Unselected(_) => 1,
        Presence::Missing => 2,
        Presence::Unknown => 3,
    }
}

fn shared_is_same(one: &Series<'_>, other: &Series<'_>) -> bool {
    is_same(one.policy, other.policy)
        && kind(one) == kind(other)
        && one.points.len() == other.points.len()
        && one.copies.len() == other.copies.len()
}

fn series_of<'w>(
    world: &'w World<'_>,
) -> BTreeMap<SeriesKey<'w>, (&'w EngineInventory, &'w Series<'w>)> {
    let engines = world.desired.engines.iter();
    let each =
        engines.flat_map(|engine| engine.series.iter().map(|series| (engine.engine, series)));
    each.map(|(engine, series)| {
        let key = (engine.name.as_str(), &series.policy.name, &series.source);
        (key, (engine, series))
    })
    .collect()
}

fn images<'s>(series: &'s Series<'s>) -> impl Iterator<Item = &'s SeriesPoint<'s>> {
    series.points.iter().chain(&series.copies)
}

/// Forecasts of series that are in the same state are the same: each is made once.
#[derive(Default)]
struct Shared {
    known: BTreeMap<String, Vec<Option<Forecast>>>,
}

impl Shared {
    fn forecasts<'w>(
        &mut self,
        engine: &'w EngineInventory,
        series: &'w Series<'w>,
        now: Timestamp,
        into: &mut Forecasts<'w>,
    ) {
        let make = || -> Vec<Option<Forecast>> {
            let prospect = Prospect::new(series, engine.is_complete(), now);
            let goes = |point: &SeriesPoint<'_>| point.image.state.holds_data();
            images(series)
                .map(|point| goes(point).then(|| prospect.of(&point.image.id)).flatten())
                .collect()
        };
        // What holds of the policy say hangs on names: such series are looked at one by one.
        let forecasts = if series.policy.holds.is_empty() {
            self.known.entry(state(engine, series)).or_insert_with(make).clone()
        } else {
            make()
        };
        for (point, forecast) in images(series).zip(forecasts) {
            if let Some(forecast) = forecast {
                into.insert((&engine.name, &point.image.id), forecast);
            }
        }
    }
}

/// All that a forecast takes from a series.
fn state(engine: &EngineInventory, series: &Series<'_>) -> String {
    let policy = series.policy;
    let jitter = policy.schedule.jitter.as_seconds().unsigned_abs();
    let mut text = format!(
        "{} {} {:?} {} {:?} {:?} {} {:?}",
        policy.name,
        engine.name,
        kind(series),
        spread(&policy.name, &series.source, jitter),
        series.state.marked_since,
        series.due,
        series.stalled,
        series.drill,
    );
    for point in images(series) {
        let image = point.image;
        let made = (image.state != ImageState::Ready).then_some(image.created_at);
        let own = image.labels.iter().filter(|(label, _)| {
            label.starts_with(LABEL_PREFIX) && ![LABEL_SOURCE, LABEL_KEY].contains(&label.as_str())
        });
        text.push_str(&format!(
            "\n{:?} {:?} {:?} {made:?} {} {:?} {:?}",
            point.key.slot,
            image.state,
            image.stage,
            image.location,
            image.in_use_by.is_empty(),
            own.collect::<Vec<_>>(),
        ));
    }
    text
}

/// Holds the ends of the images of a series against those they would have had.
fn weigh(
    engine: &EngineInventory,
    series: &Series<'_>,
    before: &Forecasts<'_>,
    after: &Forecasts<'_>,
    now: Timestamp,
    found: &mut Fates,
) {
    // Schedules that move by a run move what they delete; that is no loss.
    let period = series.policy.schedule.shortest_period().as_seconds();
    let a_run = Elapsed::seconds(period + period / 2);
    let is_earlier = |one: Option<Timestamp>, other: Option<Timestamp>| match (one, other) {
        (Some(one), Some(other)) => a_run.after(one) < other,
        (Some(_), None) => true,
        (None, _) => false,
    };
    for point in images(series) {
        let id = (engine.name.as_str(), point.image.id.as_str());
        let Some(end) = after.get(&id) else { continue };
        let was = before.get(&id);
        let (then, now_deleted) = (was.and_then(|was| was.deleted_at), end.deleted_at);
        let is_lost = is_earlier(now_deleted, then);
        if let (Some(one), Some(other), false) = (now_deleted, then, is_lost) {
            found.shifted.add(Elapsed::between(one, other));
        }
        if !is_lost && !is_earlier(then, now_deleted) {
            continue;
        }
        let mut change = FateChange {
            engine: engine.name.clone(),
            policy: series.policy.name.clone(),
            source: series.source.clone(),
            source_name: series.source_name().to_owned(),
            slot: point.key.slot,
            image: ImageRef::of(point.image),
            before: fate(was),
            after: fate(Some(end)),
            only_older_than_seconds: None,
            is_last: false,
        };
        if is_lost {
            left_behind(&mut change, point, series, engine, after, now);
            found.losses.push(change);
        } else {
            found.gains.push(change);
        }
    }
}

/// Says whether anything as old is left of a series when an image of it is deleted.
fn left_behind(
    change: &mut FateChange,
    point: &SeriesPoint<'_>,
    series: &Series<'_>,
    engine: &EngineInventory,
    ends: &Forecasts<'_>,
    now: Timestamp,
) {
    let Some(deleted_at) = change.after.deleted_at else { return };
    let stays = |other: &&SeriesPoint<'_>| {
        let end = ends.get(&(engine.name.as_str(), other.image.id.as_str()));
        other.image.id != point.image.id
            && end.is_some_and(|end| end.deleted_at.is_none_or(|at| at > deleted_at))
    };
    let oldest = images(series).filter(stays).map(|other| other.key.slot).min();
    let comes = || next_runs(series, now, 1).first().is_some_and(|(_, at)| *at <= deleted_at);
    match oldest {
        // Those that are made until then are all that is left.
        None if comes() => change.only_older_than_seconds = Some(0),
        None => change.is_last = true,
        Some(oldest) if oldest > point.key.slot => {
            let age = Elapsed::between(oldest.instant(), now);
            change.only_older_than_seconds = Some(age.as_seconds());
        }
        Some(_) => {}
    }
}

impl Shifted {
    fn add(&mut self, earlier: Elapsed) {
        if earlier > Elapsed::ZERO {
            self.images += 1;
            self.most_seconds = self.most_seconds.max(earlier.as_seconds());
        }
    }
}

fn fate(forecast: Option<&Forecast>) -> Fate {
    let Some(forecast) = forecast else {
        return Fate {
            rules: Vec::new(),
            held: false,
            deprecated_at: None,
            deleted_at: None,
            never: None,
        };
    };
    Fate {
        rules: forecast.rules.iter().map(|rule| rule.rule).collect(),
        held: !forecast.holds.is_empty(),
        deprecated_at: forecast.deprecated_at,
        deleted_at: forecast.deleted_at,
        never: forecast.never,
    }
}

/// Images that a policy looked after and none does any more.
pub(super) fn orphaned(before: &World<'_>, after: &World<'_>) -> Vec<Orphaned> {
    let mut found = Vec::new();
    for (old, new) in before.desired.engines.iter().zip(&after.desired.engines) {
        for (policy, images) in &new.orphans {
            let were = old.orphans.get(policy).map_or(0, Vec::len);
            if images.len() <= were {
                continue;
            }
            let keeper = after.policies.keeper(policy);
            found.push(Orphaned {
                engine: new.engine.name.clone(),
                policy: policy.clone(),
                images: images.len() - were,
                stored_bytes: images.iter().filter_map(|image| image.stored_bytes).sum(),
                moved_to: keeper.map(|keeper| keeper.engine.clone()),
            });
        }
    }
    found
}
