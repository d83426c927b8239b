//! What becomes of an image if nothing changes: which rules keep it, when each lets go, when it will
//! be deprecated and deleted.
//!
//! The schedule goes on, every capture succeeds, the source stays. What is kept at a later instant is
//! asked of the real `retain`, over the points there are and the slots that can matter by then. It
//! only ever lets go more (law 13), so the instants are searched for, not walked to. A test holds the
//! answers against what the simulation does.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::outlook::{HORIZON, arrivals, next_meant, resumed};
use crate::desired::{Presence, STALLED_PERIODS, Series, SeriesPoint, desired};
use crate::elapsed::Elapsed;
use crate::inventory::{ImageState, Inventory, LABEL_HOLD};
use crate::name::{Slot, parse_stamp, spread};
use crate::policy::Policies;
use crate::policy::meant::{Hold, OnSourceGone, WhenStalled};
use crate::retention::{CLOCK_SKEW, Fate, Keep, Point, Retention, Rule, retain};

/// So many pauses in a row are waited for.
const PAUSES_MAX: usize = 1_000;

/// What becomes of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Forecast {
    /// The rules that keep it now, in their order, and when each lets go.
    pub rules: Vec<RuleEnd>,
    /// When it was or will be deprecated for good; absent where it never is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecated_at: Option<Timestamp>,
    /// When it will be deleted, by the first run at or after; absent where it never is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
    /// Why it is never deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub never: Option<Never>,
    /// What would change this.
    pub changed_by: Vec<Influence>,
}

/// A rule that keeps an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleEnd {
    /// The rule; absent for the newest ones that `atLeast` keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Rule>,
    /// When it lets go; absent where that lies beyond fifty years or needs restore points that
    /// never come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lets_go_at: Option<Timestamp>,
}

macro_rules! closed_list {
    ($(#[doc = $about:literal])+ $name:ident { $($variant:ident $word:literal $text:literal)* }) => {
        $(#[doc = $about])+
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
        )]
        #[serde(rename_all = "kebab-case")]
        pub enum $name {
            $(#[doc = $text] $variant,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The stable code.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }

            /// What it means, for people.
            pub fn text(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
    };
}

closed_list! {
    /// Why an image is never deleted if nothing changes.
    Never {
        NoRules "no-rules" "the policy has no rule that lets go of anything"
        Held "held" "a hold without an end keeps it"
        InUse "in-use" "an instance, a template or a family needs it"
        Paused "paused" "the deletes of its policy are paused without an end"
        NoNewPoints "no-new-points" "no newer restore points come, so nothing takes its place"
        SourceGoneKept "source-gone-kept" "its source is gone, and its policy says that restore points stay then"
        CopyMissing "copy-missing" "a location has no READY copy of it or of a newer one, and none will come"
        NotReady "not-ready" "it is not READY, and what is under way is left alone"
        InventoryGap "inventory-gap" "its engine was not seen whole, and nothing is deleted until it is"
        BeyondHorizon "beyond-horizon" "a rule keeps it for more than fifty years"
    }
}

closed_list! {
    /// What would change a forecast.
    Influence {
        MissedCaptures "missed-captures" "captures that fail or are paused postpone what rules that count let go"
        Stall "stall" "without a new READY restore point for too long, nothing of the series is deleted"
        Hold "hold" "a hold keeps it as long as it lasts"
        WiderPolicy "wider-policy" "a rule that is widened before the grace has passed brings it back"
        SourceGone "source-gone" "if the source goes, nothing changes for its grace, and then no new points take its place"
        Guard "guard" "a guard may refuse to delete it, until somebody overrides it"
        SourceBack "source-back" "if the source comes back, new restore points take its place"
    }
}

/// The forecasts of one series.
#[derive(Debug)]
pub struct Prospect<'p> {
    series: &'p Series<'p>,
    is_seen_whole: bool,
    now: Timestamp,
    /// Slots to come that can matter, with the instant at which each has its point.
    arrivals: Vec<(Slot, Timestamp)>,
    /// When the series begins to be stalled and when it ends, where it is or will be.
    stall: Option<(Timestamp, Option<Timestamp>)>,
    /// When all but the newest go because the source is gone, where the policy says so.
    expires_at: Option<Timestamp>,
}

/// The forecast of a restore point of ours; `None` where no policy keeps it, where it is not there and
/// for copies in other locations.
pub fn of_image(
    policies: &Policies,
    inventory: &Inventory,
    engine: &str,
    image: &str,
    now: Timestamp,
) -> Option<Forecast> {
    let desired = desired(policies, inventory, now);
    let engine = desired.engines.iter().find(|one| one.engine.name == engine)?;
    let holds = |series: &&Series<'_>| series.points.iter().any(|point| point.image.id == image);
    let series = engine.series.iter().find(holds)?;
    Prospect::new(series, engine.engine.is_complete(), now).of(image)
}

impl<'p> Prospect<'p> {
    /// Looks ahead for a series. `is_seen_whole` says whether its engine has no gaps.
    pub fn new(series: &'p Series<'p>, is_seen_whole: bool, now: Timestamp) -> Self {
        let policy = series.policy;
        let jitter = policy.schedule.jitter.as_seconds().unsigned_abs();
        let offset = spread(&policy.name, &series.source, jitter);
        let offset = Elapsed::seconds(i64::try_from(offset).unwrap_or(0));
        let is_there = matches!(series.state.presence, Presence::Present(_));
        let from = resumed(policy, now).filter(|_| is_there);
        let arrivals = from.map(|from| arrivals(series, from, offset, now)).unwrap_or_default();
        let lifecycle = &policy.lifecycle;
        let expires = lifecycle.on_source_gone == OnSourceGone::Expire && series.state.is_gone();
        let since = series.state.marked_since.unwrap_or(now);
        let expires_at = expires.then(|| lifecycle.source_gone_grace.after(since).max(now));
        let mut prospect = Self { series, is_seen_whole, now, arrivals, stall: None, expires_at };
        prospect.stall = prospect.stalled();
        prospect
    }

    /// When the series is stalled next.
    fn stalled(&self) -> Option<(Timestamp, Option<Timestamp>)> {
        if !matches!(self.series.state.presence, Presence::Present(_)) {
            return None;
        }
        let ends = self.arrivals.first().map(|(_, at)| *at);
        if self.series.stalled {
            return Some((self.now, ends));
        }
        let policy = self.series.policy;
        let newest = self.series.newest_ready(self.now)?.key.slot.instant();
        let begins = if let Some(limit) = policy.stalled_after {
            limit.after(newest)
        } else {
            let mut slot = next_meant(policy, newest)?;
            for _ in 1..STALLED_PERIODS {
                slot = next_meant(policy, slot.instant())?;
            }
            slot.instant()
        };
        ends.is_none_or(|ends| begins < ends).then_some((begins, ends))
    }

    /// The forecast of one of its images.
    pub fn of(&self, image: &str) -> Option<Forecast> {
        let point = self.series.points.iter().find(|point| point.image.id == image)?;
        let mut forecast = Forecast {
            rules: Vec::new(),
            deprecated_at: None,
            deleted_at: None,
            never: None,
            changed_by: self.influences(),
        };
        match point.image.state {
            ImageState::Ready => self.ready(point, &mut forecast),
            ImageState::Failed => self.failed(point, &mut forecast),
            _ => forecast.never = Some(Never::NotReady),
        }
        if forecast.never.is_some() {
            forecast.deleted_at = None;
        }
        Some(forecast)
    }

    fn ready(&self, point: &SeriesPoint<'_>, forecast: &mut Forecast) {
        let policy = self.series.policy;
        if policy.retention.effective().next().is_none() && self.expires_at.is_none() {
            forecast.never = Some(Never::NoRules);
            return;
        }
        let instants = self.instants(point);
        forecast.rules = self.rules(point, &instants);
        let Some(hold_ends) = self.hold_end(point) else {
            forecast.never = Some(Never::Held);
            return;
        };
        let since = point
            .image
            .let_go_at()
            .filter(|since| *since <= CLOCK_SKEW.after(self.now) && !point.fate.is_kept());
        let deprecated = if let Some(since) = since {
            since
        } else {
            let Some(let_go) = first(&instants, |at| !self.fate(point, at).is_kept()) else {
                let beyond = forecast.rules.iter().any(|end| end.lets_go_at.is_none())
                    && !self.arrivals.is_empty();
                forecast.never =
                    Some(if beyond { Never::BeyondHorizon } else { Never::NoNewPoints });
                return;
            };
            let round = self.unhindered(let_go.max(hold_ends)).map(|at| self.round_at(at));
            match round.and_then(|round| self.unhindered(round)) {
                Ok(at) => at,
                Err(never) => {
                    forecast.never = Some(never);
                    return;
                }
            }
        };
        forecast.deprecated_at = Some(deprecated);
        if !point.image.in_use_by.is_empty() {
            forecast.never = Some(Never::InUse);
            return;
        }
        let passed = policy.lifecycle.grace.after(deprecated).max(self.now);
        let Some(passed) = self.copied_at(point).map(|copied| copied.max(passed)) else {
            forecast.never = Some(Never::CopyMissing);
            return;
        };
        match self.unhindered(passed) {
            // Without a grace it is the next round that deletes.
            Ok(at) if policy.lifecycle.grace == Elapsed::ZERO && since.is_none() => {
                forecast.deleted_at = Some(self.round_at(Elapsed::seconds(1).after(at)));
            }
            Ok(at) => forecast.deleted_at = Some(at),
            Err(never) => forecast.never = Some(never),
        }
    }

    /// A failed attempt goes when something newer is READY, or after a week.
    fn failed(&self, point: &SeriesPoint<'_>, forecast: &mut Forecast) {
        if !point.image.in_use_by.is_empty() {
            forecast.never = Some(Never::InUse);
            return;
        }
        let policy = self.series.policy;
        if policy.retention.effective().next().is_none() && policy.removed.is_none() {
            forecast.never = Some(Never::NoRules);
            return;
        }
        let Some(hold_ends) = self.hold_end(point) else {
            forecast.never = Some(Never::Held);
            return;
        };
        let slot = point.key.slot;
        let newest = self.series.newest_ready(self.now).map(|newest| newest.key.slot);
        let superseded = if newest >= Some(slot) {
            Some(self.now)
        } else {
            self.arrivals.iter().find(|(coming, _)| *coming >= slot).map(|(_, at)| *at)
        };
        let week = Elapsed::days(7).after(point.image.created_at);
        let at = superseded.map_or(week, |at| at.min(week)).max(self.now).max(hold_ends);
        match self.unhindered(at) {
            Ok(at) => forecast.deleted_at = Some(at),
            Err(never) => forecast.never = Some(never),
        }
    }

    /// The rules that keep it now, and when each lets go.
    fn rules(&self, point: &SeriesPoint<'_>, instants: &[Timestamp]) -> Vec<RuleEnd> {
        let Fate::Kept(keeps) = self.fate(point, self.now) else { return Vec::new() };
        keeps
            .iter()
            .filter_map(|keep| match keep {
                Keep::Young { rule, .. } | Keep::Place { rule, .. } => Some(Some(*rule)),
                Keep::AtLeast { .. } => Some(None),
                _ => None,
            })
            .map(|rule| {
                let keeps_at = |at: Timestamp| match self.fate(point, at) {
                    Fate::Kept(keeps) => keeps.iter().any(|keep| match keep {
                        Keep::Young { rule: one, .. } | Keep::Place { rule: one, .. } => {
                            rule == Some(*one)
                        }
                        Keep::AtLeast { .. } => rule.is_none(),
                        _ => false,
                    }),
                    Fate::LetGo(_) => false,
                };
                RuleEnd { rule, lets_go_at: first(instants, |at| !keeps_at(at)) }
            })
            .collect()
    }

    /// The instants at which anything can change for a point, in order.
    fn instants(&self, point: &SeriesPoint<'_>) -> Vec<Timestamp> {
        let slot = point.key.slot.instant();
        let mut instants = vec![self.now];
        instants.extend(self.arrivals.iter().map(|(_, at)| *at));
        for (rule, count) in self.series.policy.retention.effective() {
            if let Some(limit) = rule.age_limit(count) {
                instants.push(Elapsed::seconds(1).after(limit.after(slot)));
            }
        }
        instants.extend(self.series.points.iter().filter_map(|point| self.hold_end(point)));
        instants.extend(self.expires_at);
        // A point of the future counts from here on.
        instants.push(CLOCK_SKEW.before(slot));
        instants.retain(|at| *at >= self.now && *at <= HORIZON.after(self.now));
        instants.sort_unstable();
        instants.dedup();
        instants
    }

    /// What the rules say of a point at an instant, a hold on itself left aside.
    fn fate(&self, of: &SeriesPoint<'_>, at: Timestamp) -> Fate {
        let mut points: Vec<Point<'_>> = vec![Point {
            slot: of.key.slot,
            id: &of.image.id,
            ready: of.image.state == ImageState::Ready,
            held: false,
        }];
        let others = self.series.points.iter().filter(|point| point.image.id != of.image.id);
        points.extend(others.map(|point| Point {
            slot: point.key.slot,
            id: &point.image.id,
            ready: point.image.state == ImageState::Ready,
            held: point.image.is_held(at) || self.hold_on(point, at).is_some(),
        }));
        let came = self.arrivals.iter().take_while(|(_, arrival)| *arrival <= at);
        points.extend(came.map(|(slot, _)| Point {
            slot: *slot,
            id: "",
            ready: true,
            held: false,
        }));
        let policy = self.series.policy;
        let newest = Retention { rules: BTreeMap::from([(Rule::Last, 1)]), at_least: 1 };
        let has_expired = self.expires_at.is_some_and(|expires| expires <= at);
        let retention = if has_expired { &newest } else { &policy.retention };
        let mut fates = retain(&points, retention, &policy.schedule.zone, at);
        fates.swap_remove(0)
    }

    fn hold_on(&self, point: &SeriesPoint<'_>, at: Timestamp) -> Option<&Hold> {
        let name = self.series.state.instance().map(|instance| instance.name.as_str());
        self.series.policy.hold_on(&point.key, point.image, name, at)
    }

    /// When the last hold on a point ends: now where there is none, `None` where one has no end.
    fn hold_end(&self, point: &SeriesPoint<'_>) -> Option<Timestamp> {
        let mut end = label_end(point, self.now)?;
        while let Some(hold) = self.hold_on(point, end) {
            end = hold.until?;
        }
        Some(end)
    }

    /// From when on every location holds a copy of a restore point or of a newer one; `None` where
    /// that never is so.
    fn copied_at(&self, point: &SeriesPoint<'_>) -> Option<Timestamp> {
        let series = self.series;
        let has_copy = |location: &str| {
            let copied = series
                .copies_in(location)
                .any(|copy| copy.is_ready(self.now) && copy.key.slot >= point.key.slot);
            let mut newer = series.points.iter().filter(|other| other.key.slot > point.key.slot);
            copied
                || newer.any(|newer| newer.is_ready(self.now) && newer.image.location == location)
        };
        let mut at = self.now;
        for location in series.policy.copies.iter().filter(|location| !has_copy(location)) {
            let mut kept = series.uncopied(location, None, self.now).into_iter();
            if !kept.any(|kept| kept.key.slot >= point.key.slot) {
                at = at.max(self.arrivals.first()?.1);
            }
        }
        Some(at)
    }

    /// The first instant from `at` on at which nothing stands in the way of letting go.
    fn unhindered(&self, at: Timestamp) -> Result<Timestamp, Never> {
        if !self.is_seen_whole {
            return Err(Never::InventoryGap);
        }
        let mut at = at.max(self.now);
        let policy = self.series.policy;
        match self.series.state.presence {
            Presence::Missing | Presence::Unselected(_) => {
                if policy.lifecycle.on_source_gone == OnSourceGone::Keep {
                    return Err(Never::SourceGoneKept);
                }
                let since = self.series.state.marked_since.unwrap_or(self.now);
                at = at.max(policy.lifecycle.source_gone_grace.after(since));
            }
            Presence::Unknown => return Err(Never::InventoryGap),
            Presence::Present(_) => {}
        }
        match self.stall.filter(|_| policy.when_stalled == WhenStalled::Keep) {
            Some((begins, ends)) if at >= begins => at = at.max(ends.ok_or(Never::NoNewPoints)?),
            _ => {}
        }
        for _ in 0..PAUSES_MAX {
            let pauses = policy.pauses_at(at);
            let Some(pause) = pauses.into_iter().find(|pause| pause.deletes) else {
                return Ok(at);
            };
            at = pause.until.ok_or(Never::Paused)?;
        }
        Err(Never::Paused)
    }

    /// The round in which something is seen: the next that a slot brings, or within a day.
    fn round_at(&self, at: Timestamp) -> Timestamp {
        // What is so now is seen now; what a restore point pushes out is let go in the round that
        // makes it.
        if at <= self.now || self.arrivals.iter().any(|(_, arrival)| *arrival == at) {
            return at;
        }
        let within = Elapsed::days(1).after(at);
        let schedule = &self.series.policy.schedule;
        let offset = self
            .arrivals
            .last()
            .map_or(Elapsed::ZERO, |(slot, arrival)| Elapsed::between(slot.instant(), *arrival));
        let before = Elapsed::seconds(1).before(offset.before(at));
        match schedule.next_slot(before) {
            Some(slot) if !self.arrivals.is_empty() => {
                offset.after(slot.instant()).min(within).max(at)
            }
            _ => at,
        }
    }

    fn influences(&self) -> Vec<Influence> {
        let mut all = vec![Influence::Hold, Influence::WiderPolicy, Influence::Guard];
        if self.series.state.is_gone() {
            all.push(Influence::SourceBack);
        } else {
            all.extend([Influence::MissedCaptures, Influence::Stall, Influence::SourceGone]);
        }
        all.sort_unstable();
        all
    }
}

/// The first instant at which it is so, where it stays so from then on.
fn first(instants: &[Timestamp], is_so: impl Fn(Timestamp) -> bool) -> Option<Timestamp> {
    instants.get(instants.partition_point(|at| !is_so(*at))).copied()
}

/// When the hold by a label ends: now where there is none, `None` where it has no end.
fn label_end(point: &SeriesPoint<'_>, now: Timestamp) -> Option<Timestamp> {
    if !point.image.is_held(now) {
        return Some(now);
    }
    let text = point.image.labels.get(LABEL_HOLD)?;
    text.strip_prefix("until-").and_then(parse_stamp)
}
