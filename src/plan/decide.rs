//! One series: what is to be made, and what happens to each of its points.

mod coming;
mod copies;
mod drill;
mod due;
mod failed;
mod gone;
mod otherwise;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

pub(crate) use due::name_taken;
use gone::obstacle;

use super::Telling;
use super::action::{Action, Reason, ReasonCode};
use super::document::{
    BEING_MADE, Blocked, Change, HeldBack, ImageRef, Kept, Missed, NOT_KNOWN, Update, Waiting,
};
use crate::desired::{Due, Series, SeriesPoint};
use crate::elapsed::Elapsed;
use crate::inventory::{
    EngineInventory, Image, ImageState, LABEL_HOLD, LABEL_LET_GO, LABEL_STAGED, Stage,
};
use crate::name::{Key, Slot, stamp};
use crate::policy::meant::Pause;
use crate::retention::{CLOCK_SKEW, Fate};

/// The part of a plan that is about one series.
pub(super) struct SeriesPlan<'a> {
    engine: &'a EngineInventory,
    engine_name: Arc<str>,
    series: &'a Series<'a>,
    /// Whether the engine holds an image of a name.
    is_taken: &'a dyn Fn(&str) -> bool,
    now: Timestamp,
    telling: Telling,
    /// When the source can be captured, where that is not now.
    pub(super) turn: Option<Timestamp>,
    /// What keeps everything of this series from being deprecated or deleted.
    pub(super) obstacle: Option<Reason>,
    /// The image that this plan creates.
    created: Option<String>,
    /// The copies of it that this plan makes, by their locations.
    coming_copies: BTreeMap<&'a str, String>,
    pub(super) changes: Vec<Change>,
    pub(super) held_back: Vec<HeldBack>,
    pub(super) kept: Vec<Kept>,
    pub(super) missed: Vec<Missed>,
    pub(super) blocked: Vec<Blocked>,
    pub(super) waiting: Option<Waiting>,
}

impl<'a> SeriesPlan<'a> {
    pub(super) fn new(
        engine: &'a EngineInventory,
        series: &'a Series<'a>,
        is_taken: &'a dyn Fn(&str) -> bool,
        now: Timestamp,
        telling: Telling,
    ) -> Self {
        Self {
            engine,
            engine_name: engine.name.as_str().into(),
            series,
            is_taken,
            now,
            telling,
            turn: None,
            obstacle: obstacle(engine, series, now),
            created: None,
            coming_copies: BTreeMap::new(),
            changes: Vec::new(),
            held_back: Vec::new(),
            kept: Vec::new(),
            missed: Vec::new(),
            blocked: Vec::new(),
            waiting: None,
        }
    }

    pub(super) fn decide(mut self) -> Self {
        self.due();
        self.name_coming_copies();
        self.points();
        if self.created.is_some() && self.may_be_otherwise() {
            let telling = Telling::Changes;
            let mut without = Self::new(self.engine, self.series, self.is_taken, self.now, telling);
            without.points();
            self.add_otherwise(without.changes);
        }
        self
    }

    /// What happens to what is there, and to what is coming.
    fn points(&mut self) {
        let newest_ready = self.series.newest_ready(self.now).map(|point| point.image.id.as_str());
        let coming = self.created.clone();
        for point in &self.series.points {
            self.point(point, newest_ready, coming.as_deref());
        }
        let newest_copies = self.series.newest_copies(self.now);
        for copy in &self.series.copies {
            let newest = newest_copies.get(copy.image.location.as_str());
            let coming = self.coming_beside(copy);
            self.point(copy, newest.map(|newest| newest.image.id.as_str()), coming.as_deref());
        }
        for step in &self.series.steps {
            self.step(step, newest_ready.is_some());
        }
        self.copies();
        self.source_marks();
        self.sharing();
        self.drill();
    }

    /// One image, the newest of its kind that is READY, and the name of the one that is coming.
    fn point(&mut self, point: &SeriesPoint<'_>, newest_ready: Option<&str>, coming: Option<&str>) {
        let is_newest = newest_ready == Some(point.image.id.as_str());
        match point.image.state {
            ImageState::Ready => self.ready(point, is_newest, coming),
            state if state.is_failed_attempt() => {
                self.failed(point, newest_ready.is_some());
            }
            state => {
                let mut detail = state_detail(point.image);
                if state == ImageState::Unknown && newest_ready.is_none() {
                    detail.push_str("; there is no READY one of its source beside it");
                }
                self.keep(point, vec![Reason::new(ReasonCode::NotReady, detail)]);
            }
        }
    }

    fn ready(&mut self, point: &SeriesPoint<'_>, is_newest: bool, coming: Option<&str>) {
        // What is let go for the coming point stays where that cannot be made.
        let fate = if coming.is_some() { &point.fate_after } else { &point.fate };
        match fate {
            Fate::Kept(keeps) => {
                let labels = &point.image.labels;
                let is_lowered = [LABEL_LET_GO, LABEL_STAGED].map(|one| labels.contains_key(one));
                let mut reasons: Vec<Reason> =
                    if self.telling == Telling::All || is_lowered.contains(&true) {
                        keeps.iter().map(Reason::from).collect()
                    } else {
                        Vec::new()
                    };
                let held = reasons.iter_mut().find(|reason| reason.code == ReasonCode::Held);
                if let (Some(held), Some(why)) = (held, point.hold) {
                    held.detail = format!("held: {why}");
                }
                // What is coming is the newest then.
                let newer = coming.filter(|_| is_newest && self.is_overtaken(point));
                self.stay(point, is_newest && newer.is_none(), reasons, newer);
            }
            Fate::LetGo(closest) => self.let_go(point, Reason::from(closest), coming),
        }
    }

    /// A point that is kept: its stage may still have to change. What is coming may be the newest in its
    /// place.
    fn stay(
        &mut self,
        point: &SeriesPoint<'_>,
        is_newest: bool,
        reasons: Vec<Reason>,
        newer: Option<&str>,
    ) {
        let image = point.image;
        let (wanted, why) = self.wanted_stage(point, is_newest);
        let is_let_go = image.labels.contains_key(LABEL_LET_GO);
        let is_ours = image.labels.contains_key(LABEL_STAGED);
        if self.is_frozen() {
            return self.keep(point, reasons);
        }
        if is_let_go || (wanted < image.stage && is_ours) {
            self.bring_back(point, wanted, kept_again(&reasons));
        } else if let (true, Some(why)) = (wanted > image.stage, why) {
            let action =
                if wanted == Stage::Obsolete { Action::Obsolete } else { Action::Deprecate };
            let mut change = self.change(action, point, why);
            change.update = Some(Update {
                stage_before: image.stage,
                stage_after: wanted,
                set_labels: BTreeMap::from([(LABEL_STAGED.to_owned(), stamp(self.now))]),
                replacement: newer
                    .filter(|_| self.can_replace(image))
                    .map(str::to_owned)
                    .or_else(|| self.replacement(image)),
                ..Update::default()
            });
            self.changes.push(change);
        } else {
            self.keep(point, reasons);
        }
    }

    /// Brings back what was let go, or is of a later stage than it is to be.
    fn bring_back(&mut self, point: &SeriesPoint<'_>, wanted: Stage, why: String) {
        let image = point.image;
        let is_ours = image.labels.contains_key(LABEL_STAGED);
        let mut change =
            self.change(Action::Reactivate, point, Reason::new(ReasonCode::KeptAgain, why));
        // Bringing back never takes further: a step of the lifecycle is a change of its own.
        let back_to = wanted.min(image.stage);
        let staged = (is_ours && back_to > Stage::Active)
            .then(|| (LABEL_STAGED.to_owned(), stamp(self.now)));
        let mut remove_labels = vec![LABEL_LET_GO.to_owned()];
        if staged.is_none() {
            remove_labels.push(LABEL_STAGED.to_owned());
        }
        remove_labels.retain(|label| image.labels.contains_key(label));
        // Who deprecated it without us meant it.
        let stage_after = if is_ours { back_to } else { image.stage };
        change.update = Some(Update {
            stage_before: image.stage,
            stage_after,
            set_labels: staged.into_iter().collect(),
            remove_labels,
            ..Update::default()
        });
        self.changes.push(change);
    }

    /// The stage of a kept point by its age.
    fn wanted_stage(&self, point: &SeriesPoint<'_>, is_newest: bool) -> (Stage, Option<Reason>) {
        if is_newest {
            return (Stage::Active, None);
        }
        let lifecycle = &self.series.policy.lifecycle;
        let age = Elapsed::between(point.key.slot.instant(), self.now);
        let older = |limit: Option<Elapsed>| limit.filter(|limit| age > *limit);
        let detail = |limit: Elapsed| format!("{} old, limit {limit}", age.rough());
        if let Some(limit) = older(lifecycle.obsolete_after) {
            (Stage::Obsolete, Some(Reason::new(ReasonCode::ObsoleteAfter, detail(limit))))
        } else if let Some(limit) = older(lifecycle.deprecate_after) {
            (Stage::Deprecated, Some(Reason::new(ReasonCode::DeprecateAfter, detail(limit))))
        } else {
            (Stage::Active, None)
        }
    }

    /// A point that no rule keeps: deprecated first, deleted when the grace has passed.
    fn let_go(&mut self, point: &SeriesPoint<'_>, why: Reason, coming: Option<&str>) {
        let image = point.image;
        let grace = self.series.policy.lifecycle.grace;
        // A mark from the future is the mark of a clock that was wrong. One on a point that is kept
        // until the coming one is there has been overtaken, and so has one on a point that somebody has
        // made active again: all are made anew.
        let is_kept = image.state == ImageState::Ready && point.fate.is_kept();
        let since =
            image.going_since().filter(|since| *since <= CLOCK_SKEW.after(self.now) && !is_kept);
        let Some(since) = since else {
            // The point that this plan creates ends the stall: what is let go waits for it.
            let ends_stall = self.is_stalled() && coming.is_some();
            if let Some(obstacle) = self.obstacle_to(&why).filter(|_| !ends_stall) {
                return self.hold_back(Action::Deprecate, point, vec![obstacle, why]);
            }
            let mut change = self.change(Action::Deprecate, point, why);
            change.reasons.extend(taken_back(image));
            if ends_stall || is_kept {
                change.waits_for = coming.map(str::to_owned);
            }
            let stage_after = image.stage.max(Stage::Deprecated);
            let mut set_labels = BTreeMap::from([(LABEL_LET_GO.to_owned(), stamp(self.now))]);
            // Who deprecated it before meant it: that is not ours to take back.
            if stage_after > image.stage {
                set_labels.insert(LABEL_STAGED.to_owned(), stamp(self.now));
            }
            let coming = change.waits_for.clone();
            change.update = Some(Update {
                stage_before: image.stage,
                stage_after,
                set_labels,
                replacement: coming
                    .filter(|_| self.can_replace(image))
                    .or_else(|| self.replacement(image)),
                ..Update::default()
            });
            self.changes.push(change);
            return;
        };
        let until = grace.after(since);
        if until > self.now {
            let detail = format!("let go, deleted after {}", minute(until));
            return self.keep(point, vec![Reason::new(ReasonCode::InGrace, detail), why]);
        }
        if let Some(obstacle) = self.obstacle_to(&why) {
            return self.hold_back(Action::Delete, point, vec![obstacle, why]);
        }
        if !image.in_use_by.is_empty() {
            let in_use =
                Reason::new(ReasonCode::InUse, format!("in use by {}", image.in_use_by.join(", ")));
            return self.hold_back(Action::Delete, point, vec![in_use, why]);
        }
        // Of what is partial there is nothing to copy.
        let missing = (image.state == ImageState::Ready).then(|| self.missing_copy(point));
        if let Some(location) = missing.flatten() {
            let detail = format!("no READY copy of it or of a newer one in {location}");
            let missing = Reason::new(ReasonCode::CopyMissing, detail);
            return self.hold_back(Action::Delete, point, vec![missing, why]);
        }
        let passed = Reason::new(
            ReasonCode::GracePassed,
            format!("let go {}, grace {grace} passed", minute(since)),
        );
        let mut change = self.change(Action::Delete, point, why);
        change.reasons.push(passed);
        self.changes.push(change);
    }

    /// Whether what this plan creates takes the place of an image.
    fn is_replaced(&self, image: &Image) -> bool {
        let Due::Create { replaces, .. } = &self.series.due else { return false };
        self.created.is_some() && replaces.as_ref() == Some(&image.id)
    }

    fn key(&self, slot: Slot) -> Key {
        Key { policy: self.series.policy.name.clone(), source: self.series.source.clone(), slot }
    }

    /// Whether nothing at all is to change on points that stay.
    fn is_frozen(&self) -> bool {
        self.obstacle.as_ref().is_some_and(|obstacle| obstacle.code != ReasonCode::Stalled)
    }

    /// What keeps a point from going that goes for this reason. What is wholly there in a newer one is
    /// worth nothing to a series that makes no READY points, and there would be more of it with each slot.
    fn obstacle_to(&self, why: &Reason) -> Option<Reason> {
        let is_needless = why.code == ReasonCode::NewerRemainder;
        self.obstacle.clone().filter(|_| !(is_needless && self.is_stalled()))
    }

    fn is_stalled(&self) -> bool {
        self.obstacle.as_ref().is_some_and(|obstacle| obstacle.code == ReasonCode::Stalled)
    }

    fn is_paused_or_unseen(&self) -> bool {
        self.obstacle.as_ref().is_some_and(|obstacle| {
            matches!(
                obstacle.code,
                ReasonCode::Paused | ReasonCode::Blackout | ReasonCode::InventoryGap
            )
        })
    }

    fn change(&self, action: Action, point: &SeriesPoint<'_>, reason: Reason) -> Change {
        Change {
            action,
            engine: self.engine.name.clone(),
            key: point.key.clone(),
            source_name: self.source_name(point),
            image: ImageRef::of(point.image),
            reasons: vec![reason],
            risk: None,
            newest_ready: None,
            waits_for: None,
            unless: None,
            create: None,
            update: None,
            copy: None,
            drill: None,
        }
    }

    /// Whether what this plan creates is of the family of an image: a family is of one project.
    fn can_replace(&self, image: &Image) -> bool {
        let instance = self.series.state.instance();
        self.series.policy.capture.family.is_some()
            && instance.is_some_and(|instance| instance.project == image.project)
    }

    /// The newest READY image of the family in the same project, which people are told to take instead of
    /// this one.
    fn replacement(&self, image: &Image) -> Option<String> {
        let family = self.series.policy.capture.family.as_ref()?;
        let is_good = |other: &&Image| {
            other.family.as_ref() == Some(family)
                && other.project == image.project
                && other.state == ImageState::Ready
                && other.stage == Stage::Active
                && other.let_go_at().is_none()
                && other.id != image.id
        };
        let newest = self.engine.images.iter().filter(is_good);
        newest.max_by_key(|other| (other.created_at, &other.id)).map(|other| other.name.clone())
    }

    fn source_name(&self, point: &SeriesPoint<'_>) -> String {
        match (self.series.source_name(), &point.image.source) {
            ("", Some(source)) => source.name.clone(),
            ("", None) => self.series.source.to_string(),
            (name, _) => name.to_owned(),
        }
    }

    fn hold_back(&mut self, action: Action, point: &SeriesPoint<'_>, reasons: Vec<Reason>) {
        self.held_back.push(HeldBack {
            action,
            engine: self.engine.name.clone(),
            key: point.key.clone(),
            source_name: self.source_name(point),
            image: ImageRef::of(point.image),
            reasons,
        });
    }

    fn keep(&mut self, point: &SeriesPoint<'_>, reasons: Vec<Reason>) {
        if self.telling == Telling::Changes {
            return;
        }
        self.kept.push(Kept {
            engine: Arc::clone(&self.engine_name),
            key: point.key.clone(),
            id: point.image.id.clone(),
            name: point.image.name.clone(),
            reasons,
        });
    }
}

/// What a policy does not do at present, for people.
pub(super) fn describe_pause(pause: &Pause) -> String {
    let what = match (pause.creates, pause.deletes) {
        (true, true) => "creates and deletes",
        (true, false) => "creates",
        _ => "deletes",
    };
    let verb = if pause.is_blackout { "blacked out" } else { "paused" };
    let until = pause.until.map(|until| format!(" until {}", minute(until))).unwrap_or_default();
    let reason = pause.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{what} {verb}{until}{reason}")
}

/// That the mark of an image does not count: it was given the labels of another one, or somebody has made
/// it active again.
fn taken_back(image: &Image) -> Option<Reason> {
    let since = image.let_go_at()?;
    if image.has_old_mark() {
        let detail = format!(
            "its labels say that it was let go {}, before it was made: they are those of another image, \
             and its grace begins now",
            minute(since)
        );
        return Some(Reason::new(ReasonCode::OldMark, detail));
    }
    if image.stage > Stage::Active {
        return None;
    }
    let detail = format!(
        "let go {}, and somebody has taken the deprecation back since: the grace begins anew; \
         a hold (`{LABEL_HOLD}`) keeps it",
        minute(since)
    );
    Some(Reason::new(ReasonCode::DeprecationUndone, detail))
}

fn kept_again(reasons: &[Reason]) -> String {
    let why: Vec<&str> = reasons.iter().map(|reason| reason.detail.as_str()).collect();
    format!("kept again: {}", why.join(", "))
}

fn state_detail(image: &Image) -> String {
    let state = match image.state {
        ImageState::Creating => BEING_MADE,
        ImageState::Begun => "is begun",
        ImageState::Ready => "is READY",
        ImageState::Failed => "failed",
        ImageState::Partial => "is not whole",
        ImageState::Deleting => "is being deleted",
        ImageState::Unknown => NOT_KNOWN,
    };
    match &image.message {
        Some(message) => format!("{state}: {message}"),
        None => state.to_owned(),
    }
}

/// `2026-11-21 02:00Z`.
fn minute(instant: Timestamp) -> String {
    let civil = jiff::tz::TimeZone::UTC.to_datetime(instant);
    format!("{} {:02}:{:02}Z", civil.date(), civil.hour(), civil.minute())
}
