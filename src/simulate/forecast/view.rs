//! One image among those that the rules weigh it with: the restore points of its series, or the
//! copies in its location.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;

use super::super::outlook::HORIZON;
use super::{Forecast, Influence, Never, Prospect, RuleEnd};
use crate::desired::{Presence, SeriesPoint};
use crate::elapsed::Elapsed;
use crate::inventory::{Content, ImageState, Stage};
use crate::name::Slot;
use crate::retention::{CLOCK_SKEW, Fate, Keep, Point, Retention, Rule, retain};

pub(super) struct View<'v, 'p> {
    prospect: &'v Prospect<'p>,
    point: &'v SeriesPoint<'p>,
    /// All that the rules weigh, itself among them.
    peers: Vec<&'v SeriesPoint<'p>>,
    /// What will be weighed with them, in the order in which it comes.
    arrivals: Cow<'v, [(Slot, Timestamp)]>,
}

impl<'v, 'p> View<'v, 'p> {
    pub(super) fn new(prospect: &'v Prospect<'p>, point: &'v SeriesPoint<'p>) -> Self {
        let series = prospect.series;
        // What is dated in the future gives way to what comes after it.
        let slot = point.key.slot.instant();
        let mut arrivals = if slot > CLOCK_SKEW.after(prospect.now) {
            Cow::Owned(prospect.coming(slot))
        } else {
            Cow::Borrowed(prospect.arrivals.as_slice())
        };
        if !point.image.is_copy() {
            return Self { prospect, point, peers: series.points.iter().collect(), arrivals };
        }
        let location = point.image.location.as_str();
        let peers: Vec<&SeriesPoint<'p>> = series.copies_in(location).collect();
        if series.policy.copies.iter().any(|copied| copied == location) {
            if let Some(at) = prospect.copied_up_at() {
                let at = prospect.next_round(at);
                let missing = prospect.uncopied(location).map(|slot| (slot, at));
                arrivals.to_mut().extend(missing);
                arrivals.to_mut().sort_by_key(|(slot, at)| (*at, *slot));
            }
            let is_there = |slot: Slot| {
                let mut copies = peers.iter();
                copies.any(|copy| copy.key.slot == slot && !copy.image.state.is_failed_attempt())
            };
            arrivals.to_mut().retain(|(slot, _)| !is_there(*slot));
        } else {
            arrivals = Cow::Owned(Vec::new());
        }
        Self { prospect, point, peers, arrivals }
    }

    pub(super) fn forecast(&self) -> Forecast {
        let mut forecast = Forecast {
            rules: Vec::new(),
            holds: self.prospect.holds(self.point),
            aged_at: None,
            obsolete_at: None,
            deprecated_at: None,
            deleted_at: None,
            never: None,
            changed_by: self.influences(),
        };
        let deleted = match self.point.image.state {
            ImageState::Ready => self.ready(&mut forecast),
            state if state.is_remainder() => self.partial(&mut forecast),
            state if state.is_failed_attempt() => self.failed(),
            _ => Err(Never::NotReady),
        };
        match deleted {
            Ok(at) => forecast.deleted_at = Some(at),
            Err(never) => forecast.never = Some(never),
        }
        self.age(&mut forecast);
        forecast
    }

    /// When it is deleted, by way of when it is let go.
    fn ready(&self, forecast: &mut Forecast) -> Result<Timestamp, Never> {
        let prospect = self.prospect;
        let policy = prospect.series.policy;
        let instants = self.instants();
        forecast.rules = self.rules(&instants);
        if policy.retention.effective().next().is_none() && prospect.expires_at.is_none() {
            return Err(Never::NoRules);
        }
        let hold_ends = prospect.hold_end(self.point).ok_or(Never::Held)?;
        let since = self.let_go_since();
        let deprecated = if let Some(since) = since {
            since
        } else {
            let let_go = first(&instants, |at| !self.fate(at).is_kept());
            let let_go = let_go.ok_or_else(|| self.never_let_go(forecast))?;
            let round = self.round_at(self.unhindered(let_go.max(hold_ends))?);
            self.unhindered(round)?
        };
        forecast.deprecated_at = Some(deprecated);
        if !self.point.image.in_use_by.is_empty() {
            return Err(Never::InUse);
        }
        let passed = policy.lifecycle.grace.after(deprecated).max(prospect.now);
        let copied = if self.point.image.is_copy() {
            prospect.now
        } else {
            prospect.copied_at(self.point).ok_or(Never::CopyMissing)?
        };
        let at = prospect.deletable(passed.max(copied))?;
        // Without a grace it is the next round that deletes.
        if policy.lifecycle.grace == Elapsed::ZERO && since.is_none() {
            return Ok(self.round_at(Elapsed::seconds(1).after(at)));
        }
        Ok(at)
    }

    /// The first instant from `at` on at which nothing stands in the way of letting go. What comes
    /// beside it ends a stall in the same round, anything else in the next.
    fn unhindered(&self, at: Timestamp) -> Result<Timestamp, Never> {
        let prospect = self.prospect;
        let location = &self.point.image.location;
        let is_copied = prospect.series.policy.copies.iter().any(|copied| copied == location);
        let ends = prospect.stall.and_then(|(_, ends)| ends);
        let comes_beside = self.arrivals.iter().any(|(_, arrival)| Some(*arrival) == ends);
        if self.point.image.is_copy() && is_copied && !comes_beside {
            prospect.deletable(at)
        } else {
            prospect.unhindered(at)
        }
    }

    /// Since when it is let go, if the next plan goes by that.
    fn let_go_since(&self) -> Option<Timestamp> {
        let since = self.point.image.going_since()?;
        let image = self.point.image;
        let is_kept = image.state == ImageState::Ready && self.point.fate.is_kept();
        let counts = since <= CLOCK_SKEW.after(self.prospect.now) && !is_kept;
        counts.then_some(since)
    }

    fn never_let_go(&self, forecast: &Forecast) -> Never {
        let has_endless = forecast.rules.iter().any(|end| end.lets_go_at.is_none());
        if has_endless && !self.arrivals.is_empty() {
            Never::BeyondHorizon
        } else {
            Never::NoNewPoints
        }
    }

    /// From when on nothing of its own keeps a failed attempt.
    fn freed(&self) -> Result<Timestamp, Never> {
        if !self.point.image.in_use_by.is_empty() {
            return Err(Never::InUse);
        }
        let policy = self.prospect.series.policy;
        if policy.retention.effective().next().is_none() && policy.removed.is_none() {
            return Err(Never::NoRules);
        }
        let hold_ends = self.prospect.hold_end(self.point).ok_or(Never::Held)?;
        Ok(hold_ends.max(CLOCK_SKEW.before(self.point.key.slot.instant())))
    }

    /// A failed attempt goes when something newer is READY, or after a week. What is partial is let go
    /// then, and does not go after a week.
    fn failed(&self) -> Result<Timestamp, Never> {
        let prospect = self.prospect;
        let freed = self.freed()?;
        let (slot, now) = (self.point.key.slot, prospect.now);
        let has_ready = self.peers.iter().any(|peer| peer.is_ready(now));
        let newest = prospect.series.newest_ready(now).map(|newest| newest.key.slot);
        let superseded = if has_ready && newest >= Some(slot) {
            Some(now)
        } else {
            // The round that makes the newer one does not see it yet.
            let newer = self.arrivals.iter().find(|(coming, _)| *coming >= slot);
            newer.map(|(_, at)| prospect.next_round(*at))
        };
        // What is partial may be the best there is, however old.
        let week = Elapsed::seconds(1).after(Elapsed::days(7).after(self.point.image.created_at));
        let week = (!self.point.image.state.holds_data()).then_some(week);
        let at = [superseded, week].into_iter().flatten().min().ok_or(Never::NoNewPoints)?;
        prospect.deletable(at.max(freed))
    }

    /// From when on what is left of a newer one holds all that is left of this one. A stall is not in the
    /// way of that.
    fn needless(&self) -> Result<Timestamp, Never> {
        let over = self.prospect.series.remainders_over(self.point).map(|(_, from)| from);
        let at = self.round_at(over.min().ok_or(Never::NoNewPoints)?);
        self.prospect.unfrozen(at.max(self.freed()?))
    }

    /// When what is partial is deleted, by way of when it is let go.
    fn partial(&self, forecast: &mut Forecast) -> Result<Timestamp, Never> {
        let prospect = self.prospect;
        let (superseded, needless) = (self.failed(), self.needless());
        let goes = |from: Timestamp| {
            let superseded = superseded.and_then(|at| prospect.deletable(at.max(from)));
            let needless = needless.and_then(|at| prospect.unfrozen(at.max(from)));
            match (superseded, needless) {
                (Ok(one), Ok(other)) => Ok(one.min(other)),
                (one, other) => other.or(one),
            }
        };
        let let_go = goes(prospect.now)?;
        // What stays for now is brought back first, and let go anew.
        let goes_now = let_go <= prospect.now;
        let deprecated = self.let_go_since().filter(|_| goes_now).unwrap_or(let_go);
        forecast.deprecated_at = Some(deprecated);
        let grace = prospect.series.policy.lifecycle.grace;
        let at = goes(grace.after(deprecated).max(prospect.now))?;
        // Without a grace it is the next round that deletes.
        if grace == Elapsed::ZERO && self.let_go_since().is_none() {
            return Ok(self.round_at(Elapsed::seconds(1).after(at)));
        }
        Ok(at)
    }

    /// When its age changes its stage while it is kept.
    fn age(&self, forecast: &mut Forecast) {
        let image = self.point.image;
        if image.state != ImageState::Ready || self.let_go_since().is_some() {
            return;
        }
        let lifecycle = &self.prospect.series.policy.lifecycle;
        if lifecycle.deprecate_after.is_none() && lifecycle.obsolete_after.is_none() {
            return;
        }
        // What the rules want gone does not age, whatever stands in the way of letting it go.
        let let_go = first(&self.instants(), |at| !self.fate(at).is_kept());
        let kept_until = let_go.zip(self.prospect.hold_end(self.point));
        let kept_until = kept_until.map(|(let_go, hold_ends)| let_go.max(hold_ends));
        let reached = |limit: Option<Elapsed>, stage: Stage| {
            let limit = limit.filter(|_| image.stage < stage)?;
            let old = Elapsed::seconds(1).after(limit.after(self.point.key.slot.instant()));
            let mut at = self.prospect.unfrozen(old.max(self.superseded_at()?)).ok()?;
            // It is brought back first.
            if image.let_go_at().is_some() {
                at = at.max(self.prospect.next_round(self.prospect.now));
            }
            let at = self.prospect.unfrozen(self.round_at(at)).ok()?;
            kept_until.is_none_or(|until| at < until).then_some(at)
        };
        let obsolete = reached(lifecycle.obsolete_after, Stage::Obsolete);
        let aged = reached(lifecycle.deprecate_after, Stage::Deprecated);
        forecast.obsolete_at = obsolete;
        forecast.aged_at = aged.filter(|aged| obsolete.is_none_or(|obsolete| *aged < obsolete));
    }

    /// From when on there is a newer one, which the round that makes it sees: the newest does not age.
    fn superseded_at(&self) -> Option<Timestamp> {
        let rank = |point: &SeriesPoint<'p>| (point.key.slot, point.image.id.clone());
        let own = rank(self.point);
        let mut peers = self.peers.iter().filter(|peer| peer.is_ready(self.prospect.now));
        if peers.any(|peer| rank(peer) > own) {
            return Some(self.prospect.now);
        }
        let newer = self.arrivals.iter().find(|(slot, _)| *slot > self.point.key.slot);
        newer.map(|(_, at)| *at)
    }

    /// The rules that keep it now, and when each lets go.
    fn rules(&self, instants: &[Timestamp]) -> Vec<RuleEnd> {
        let Fate::Kept(keeps) = self.fate(self.prospect.now) else { return Vec::new() };
        let rule_of = |keep: &Keep| match keep {
            Keep::Young { rule, .. } | Keep::Place { rule, .. } => Some(Some(*rule)),
            Keep::AtLeast { .. } => Some(None),
            _ => None,
        };
        keeps
            .iter()
            .filter_map(rule_of)
            .map(|rule| {
                let keeps_at = |at: Timestamp| match self.fate(at) {
                    Fate::Kept(keeps) => keeps.iter().any(|keep| rule_of(keep) == Some(rule)),
                    Fate::LetGo(_) => false,
                };
                RuleEnd { rule, lets_go_at: first(instants, |at| !keeps_at(at)) }
            })
            .collect()
    }

    /// The instants at which anything can change for it, in order.
    fn instants(&self) -> Vec<Timestamp> {
        let prospect = self.prospect;
        let now = prospect.now;
        let slot = self.point.key.slot.instant();
        let mut instants = vec![now];
        instants.extend(self.arrivals.iter().map(|(_, at)| *at));
        for (rule, count) in prospect.series.policy.retention.effective() {
            if let Some(limit) = rule.age_limit(count) {
                instants.push(Elapsed::seconds(1).after(limit.after(slot)));
            }
        }
        instants.extend(self.peers.iter().filter_map(|peer| prospect.hold_end(peer)));
        instants.extend(prospect.expires_at);
        // Points of the future count from here on.
        instants.extend(self.peers.iter().map(|peer| CLOCK_SKEW.before(peer.key.slot.instant())));
        instants.retain(|at| *at >= now && *at <= HORIZON.after(now));
        instants.sort_unstable();
        instants.dedup();
        instants
    }

    /// What the rules say of it at an instant, a hold on itself left aside.
    fn fate(&self, at: Timestamp) -> Fate {
        let prospect = self.prospect;
        let mut points: Vec<Point<'_>> = vec![Point {
            slot: self.point.key.slot,
            id: &self.point.image.id,
            content: self.point.image.content(),
            ready: self.point.image.state == ImageState::Ready,
            held: false,
        }];
        let others = self.peers.iter().filter(|peer| peer.image.id != self.point.image.id);
        points.extend(others.map(|peer| Point {
            slot: peer.key.slot,
            id: &peer.image.id,
            content: peer.image.content(),
            ready: peer.image.state == ImageState::Ready,
            held: peer.image.is_held(at) || prospect.hold_on(peer, at).is_some(),
        }));
        let came = self.arrivals.iter().take_while(|(_, arrival)| *arrival <= at);
        points.extend(came.map(|(slot, _)| Point {
            slot: *slot,
            id: "",
            content: Content::default(),
            ready: true,
            held: false,
        }));
        let policy = prospect.series.policy;
        let newest = Retention { rules: BTreeMap::from([(Rule::Last, 1)]), at_least: 1 };
        let has_expired = prospect.expires_at.is_some_and(|expires| expires <= at);
        let retention = if has_expired { &newest } else { &policy.retention };
        let mut fates = retain(&points, retention, &policy.schedule.zone, at);
        fates.swap_remove(0)
    }

    /// The round in which something is seen.
    fn round_at(&self, at: Timestamp) -> Timestamp {
        let prospect = self.prospect;
        // What is so now is seen now; what a restore point pushes out is let go in the round that
        // makes it.
        let comes_then = || self.arrivals.iter().any(|(_, arrival)| *arrival == at);
        if at <= prospect.now || prospect.arrivals.is_empty() || comes_then() {
            return at;
        }
        prospect.next_round(Elapsed::seconds(1).before(at))
    }

    fn influences(&self) -> Vec<Influence> {
        let series = self.prospect.series;
        let mut all = vec![Influence::Hold, Influence::WiderPolicy, Influence::Guard];
        match series.state.presence {
            _ if series.policy.removed.is_some() => all.push(Influence::PolicyBack),
            Presence::Missing => all.push(Influence::SourceBack),
            Presence::Unselected(_) => all.push(Influence::Reselected),
            Presence::Present(_) | Presence::Unknown => {
                all.extend([Influence::MissedCaptures, Influence::Stall, Influence::SourceGone]);
            }
        }
        if !self.point.image.is_copy() && !series.policy.copies.is_empty() {
            all.push(Influence::CopyGate);
        }
        all.sort_unstable();
        all
    }
}

/// The first instant at which it is so, where it stays so from then on.
fn first(instants: &[Timestamp], is_so: impl Fn(Timestamp) -> bool) -> Option<Timestamp> {
    instants.get(instants.partition_point(|at| !is_so(*at))).copied()
}
