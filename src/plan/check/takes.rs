//! What takes away: deletes, and marks that lead to them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::seen::{Point, Presence, Series};
use super::times::{Doing, deadline, is_free, moved};
use super::{CheckRule, EngineCheck, floor, has_rules, has_waited, let_go_since};
use crate::elapsed::Elapsed;
use crate::inventory::{ImageState, Stage};
use crate::plan::action::{Action, ReasonCode};
use crate::plan::document::Change;
use crate::policy::meant::{OnSourceGone, WhenStalled};
use crate::retention::CLOCK_SKEW;

/// A failed attempt goes after this many seconds, whatever has come since: a week.
const FAILED_KEPT: i64 = 7 * 86_400;

impl<'s> EngineCheck<'s, '_> {
    pub(super) fn delete(&mut self, change: &Change, series: &'s Series<'_>, point: &Point<'_>) {
        if !point.image.in_use_by.is_empty() {
            self.find(CheckRule::InUse, change, "it is in use");
        }
        if point.is_held {
            self.find(CheckRule::Held, change, "it is held");
        }
        let is_needless = self.is_needless(series, point);
        self.obstacles(change, series, is_needless);
        let codes: Vec<ReasonCode> = change.reasons.iter().map(|reason| reason.code).collect();
        if point.image.state.is_remainder() {
            if codes != [remainder_code(is_needless), ReasonCode::GracePassed] {
                self.find(CheckRule::Reason, change, "what is partial goes for being that");
            }
            self.was_let_go(change, series, point);
            return self.failed(change, series, point);
        }
        if point.image.state == ImageState::Failed {
            if codes != [ReasonCode::FailedAttempt] {
                self.find(CheckRule::Reason, change, "a failed attempt goes for being one");
            }
            return self.failed(change, series, point);
        }
        if !codes.starts_with(&[ReasonCode::NoRuleKeeps, ReasonCode::GracePassed]) {
            self.find(CheckRule::Reason, change, "it does not go because no rule keeps it");
        }
        if self.is_kept(series, point, false) {
            self.find(CheckRule::StillKept, change, "a rule keeps it");
        }
        self.was_let_go(change, series, point);
        if point.copy_in.is_none() {
            let lacks = |location: &&String| {
                let copied = series.newest.get(location.as_str());
                let stored = series.newest_stored.get(location.as_str());
                copied.is_none_or(|newest| *newest < point.slot)
                    && stored.is_none_or(|newest| *newest <= point.slot)
            };
            if let Some(location) = series.policy.copies.iter().find(lacks) {
                self.find(CheckRule::CopyGate, change, format!("{location} has no copy"));
            }
        }
    }

    fn was_let_go(&mut self, change: &Change, series: &Series<'_>, point: &Point<'_>) {
        let grace = series.policy.lifecycle.grace.as_seconds();
        let made = moved(point.image.created_at, -CLOCK_SKEW.as_seconds());
        let since = let_go_since(point.image).filter(|since| *since >= made);
        let ripe = since.map(|since| moved(since, grace));
        if ripe.is_none_or(|ripe| ripe > self.seen.now) {
            self.find(CheckRule::DeprecateFirst, change, "it was not let go for the whole grace");
        }
        if point.image.stage == Stage::Active {
            self.find(CheckRule::DeprecateFirst, change, "somebody has made it active again");
        }
    }

    /// What keeps everything of a series from going. What waits for a new point, and what is needless, goes
    /// from a series that is stalled as well.
    fn obstacles(&mut self, change: &Change, series: &'s Series<'_>, waits: bool) {
        let (policy, now) = (series.policy, self.seen.now);
        if !is_free(policy, Doing::Deletes, now) {
            self.find(CheckRule::Paused, change, "its policy deletes nothing at present");
        }
        match series.presence {
            Presence::There(_) => {
                let keeps = policy.when_stalled == WhenStalled::Keep;
                if keeps && !waits && self.is_stalled(series) {
                    self.find(CheckRule::Stalled, change, "its series is stalled");
                }
            }
            Presence::Unseen => {
                self.find(CheckRule::SourceGone, change, "nobody knows whether its source is gone");
            }
            Presence::Unselected | Presence::Missing => {
                if policy.lifecycle.on_source_gone == OnSourceGone::Keep {
                    self.find(CheckRule::SourceGone, change, "what is left of its source stays");
                } else if !has_waited(series, now) {
                    self.find(CheckRule::SourceGone, change, "its source is not gone for long");
                }
            }
        }
    }

    fn failed(&mut self, change: &Change, series: &Series<'_>, point: &Point<'_>) {
        let is_superseded = series.newest().is_some_and(|newest| newest >= point.slot);
        let is_old = moved(point.image.created_at, FAILED_KEPT) < self.seen.now;
        let stays = if point.image.state.is_remainder() {
            !self.is_needless(series, point)
        } else {
            !is_old
        };
        if !is_superseded && stays {
            self.find(CheckRule::FailedAttempt, change, "nothing newer is READY");
        }
        if point.slot > self.seen.horizon() {
            self.find(CheckRule::FailedAttempt, change, "it is dated in the future");
        }
        if !has_rules(series.policy) && series.policy.removed.is_none() {
            self.find(CheckRule::FailedAttempt, change, "its policy lets go of nothing");
        }
    }

    /// Whether what is partial is to go: something newer is READY in its place or holds all that it does,
    /// and nothing holds it.
    pub(super) fn goes(&self, series: &Series<'_>, point: &Point<'_>) -> bool {
        let has_newer = series.newest().is_some_and(|newest| newest >= point.slot);
        let has_ready = series.newest.contains_key(point.copy_in.unwrap_or_default());
        let is_superseded = (has_newer && has_ready) || self.is_needless(series, point);
        let lets_go = has_rules(series.policy) || series.policy.removed.is_some();
        let is_free = !point.is_held && point.image.in_use_by.is_empty();
        is_superseded && lets_go && is_free && point.slot <= self.seen.horizon()
    }

    /// Whether every disk of what is left of an original is in what is left of one that is newer, and that
    /// nothing takes the place of any more.
    fn is_needless(&self, series: &Series<'_>, point: &Point<'_>) -> bool {
        fn disks<'p>(point: &'p Point<'_>) -> BTreeSet<&'p str> {
            let disks = point.image.disks.iter().flatten().map(String::as_str);
            let is_left = point.image.state == ImageState::Partial && point.copy_in.is_none();
            if is_left && !point.is_step { disks.collect() } else { BTreeSet::new() }
        }
        let own = disks(point);
        let is_newer = |other: &Point<'_>| {
            other.slot > point.slot || other.slot == point.slot && other.image.id > point.image.id
        };
        let lasts = |other: &Point<'_>| deadline(series.policy, other.slot) < self.seen.now;
        !own.is_empty()
            && series
                .points
                .iter()
                .any(|other| is_newer(other) && own.is_subset(&disks(other)) && lasts(other))
    }

    /// Deprecate and obsolete: let go, or a step of the lifecycle.
    pub(super) fn lower(&mut self, change: &Change, series: &'s Series<'_>, point: &Point<'_>) {
        let code = change.reasons.first().map(|reason| reason.code);
        let lifecycle = &series.policy.lifecycle;
        match (change.action, code) {
            (Action::Deprecate, Some(ReasonCode::NoRuleKeeps)) => {
                self.let_go(change, series, point);
            }
            (
                Action::Deprecate,
                Some(code @ (ReasonCode::FailedAttempt | ReasonCode::NewerRemainder)),
            ) => {
                self.let_go_of_partial(change, series, point, code);
            }
            (Action::Deprecate, Some(ReasonCode::DeprecateAfter)) => {
                let limit = lifecycle.deprecate_after.map(Elapsed::as_seconds);
                self.step(change, series, point, limit, Stage::Deprecated);
            }
            (Action::Obsolete, Some(ReasonCode::ObsoleteAfter)) => {
                let limit = lifecycle.obsolete_after.map(Elapsed::as_seconds);
                self.step(change, series, point, limit, Stage::Obsolete);
            }
            _ => self.find(CheckRule::Reason, change, "it has no reason that belongs to it"),
        }
    }

    fn let_go(&mut self, change: &Change, series: &'s Series<'_>, point: &Point<'_>) {
        if point.is_held {
            self.find(CheckRule::Held, change, "it is held");
        }
        if point.image.state != ImageState::Ready {
            self.find(CheckRule::State, change, "only what is READY is let go");
        }
        let waits = change.waits_for.is_some();
        self.obstacles(change, series, waits);
        if self.is_kept(series, point, waits) {
            self.find(CheckRule::StillKept, change, "a rule keeps it");
        }
    }

    fn let_go_of_partial(
        &mut self,
        change: &Change,
        series: &'s Series<'_>,
        point: &Point<'_>,
        code: ReasonCode,
    ) {
        let is_needless = self.is_needless(series, point);
        if code != remainder_code(is_needless) {
            self.find(CheckRule::Reason, change, "what is partial goes for another reason");
        }
        if point.is_held {
            self.find(CheckRule::Held, change, "it is held");
        }
        if !point.image.state.is_remainder() || change.waits_for.is_some() {
            self.find(CheckRule::State, change, "only what is partial is let go for that");
        }
        self.obstacles(change, series, is_needless);
        self.failed(change, series, point);
    }

    /// A step of the lifecycle of what is kept.
    fn step(
        &mut self,
        change: &Change,
        series: &'s Series<'_>,
        point: &Point<'_>,
        limit: Option<i64>,
        stage: Stage,
    ) {
        let age = self.seen.now.as_second() - point.slot.as_second();
        if limit.is_none_or(|limit| age <= limit) {
            self.find(CheckRule::Age, change, "it is not old enough");
        }
        let newest = series.newest.get(point.copy_in.unwrap_or_default());
        // What it waits for is the newest then.
        let is_overtaken = self
            .coming_in(series, point.copy_in)
            .is_some_and(|(_, name)| change.waits_for.as_deref() == Some(name));
        if newest == Some(&point.slot) && series.stands_for_slot(point) && !is_overtaken {
            self.find(CheckRule::Age, change, "it is the newest");
        }
        if point.image.stage >= stage || point.image.state != ImageState::Ready {
            self.find(CheckRule::State, change, "it has come that far, or is not READY");
        }
        self.obstacles(change, series, true);
    }

    /// What stays once all deletes are done: the newest of every series, and one of every source.
    pub(super) fn left_behind(&mut self, changes: &[&Change]) {
        let deletes: Vec<&&Change> =
            changes.iter().filter(|change| change.action == Action::Delete).collect();
        let gone: BTreeSet<&str> =
            deletes.iter().filter_map(|change| change.image.id.as_deref()).collect();
        let mut done = BTreeSet::new();
        for change in deletes {
            let source = change.key.source.as_str();
            if done.insert((source, "", None)) {
                let ready = self.seen.ready.get(source).map_or(&[][..], Vec::as_slice);
                if !ready.is_empty() && ready.iter().all(|id| gone.contains(id)) {
                    self.find(
                        CheckRule::LastOfSource,
                        change,
                        "no READY image of its source is left",
                    );
                }
            }
            let Some(series) = self.seen.series_of(&change.key) else { continue };
            let copy_in = change.image.id.as_deref().and_then(|id| series.point(id)?.copy_in);
            if done.insert((source, series.policy.name.as_str(), Some(copy_in))) {
                self.left_of_series(change, series, copy_in, &gone);
            }
        }
    }

    fn left_of_series(
        &mut self,
        change: &Change,
        series: &Series<'_>,
        copy_in: Option<&str>,
        gone: &BTreeSet<&str>,
    ) {
        let ready = || series.points.iter().filter(|one| one.is_ready && one.copy_in == copy_in);
        let stays = |point: &Point<'_>| !gone.contains(point.image.id.as_str());
        if ready().next().is_some() && !ready().any(stays) {
            self.find(
                CheckRule::LastOfSeries,
                change,
                "no READY restore point of its series is left",
            );
        }
        // Held points stay by themselves and do not count.
        let mut slots: BTreeMap<Timestamp, bool> = BTreeMap::new();
        for point in ready().filter(|point| !point.is_held) {
            *slots.entry(point.slot).or_default() |= stays(point);
        }
        let floor = floor(series, self.seen.now);
        if !slots.values().rev().take(floor).all(|stays| *stays) {
            let message = format!("not all of the newest {floor} of its series are left");
            self.find(CheckRule::Floor, change, message);
        }
    }
}

/// Why what is partial goes, where what is left of a newer one holds all of it and where not.
fn remainder_code(is_needless: bool) -> ReasonCode {
    if is_needless { ReasonCode::NewerRemainder } else { ReasonCode::FailedAttempt }
}
