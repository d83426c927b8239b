//! One series: what is to be made, and what happens to each of its points.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::action::{Action, Reason, ReasonCode};
use super::document::{Blocked, Change, Create, HeldBack, ImageRef, Kept, Missed, Update};
use crate::desired::{Due, Presence, Series, SeriesPoint};
use crate::elapsed::Elapsed;
use crate::inventory::{
    EngineInventory, Image, ImageState, Instance, LABEL_LET_GO, LABEL_MISSING, LABEL_STAGED, Stage,
};
use crate::name::{Key, Slot, stamp};
use crate::policy::meant::Pause;
use crate::retention::{CLOCK_SKEW, Fate};

/// A failed attempt is cleared away after this long, also when nothing newer is READY.
const FAILED_KEPT: Elapsed = Elapsed::days(7);

/// The part of a plan that is about one series.
pub(super) struct SeriesPlan<'a> {
    engine: &'a EngineInventory,
    series: &'a Series<'a>,
    /// The names of all images of the engine.
    names: &'a BTreeSet<&'a str>,
    now: Timestamp,
    /// What keeps everything of this series from being deprecated or deleted.
    obstacle: Option<Reason>,
    /// The image that this plan creates.
    created: Option<String>,
    pub(super) changes: Vec<Change>,
    pub(super) held_back: Vec<HeldBack>,
    pub(super) kept: Vec<Kept>,
    pub(super) missed: Vec<Missed>,
    pub(super) blocked: Vec<Blocked>,
}

impl<'a> SeriesPlan<'a> {
    pub(super) fn new(
        engine: &'a EngineInventory,
        series: &'a Series<'a>,
        names: &'a BTreeSet<&'a str>,
        now: Timestamp,
    ) -> Self {
        Self {
            engine,
            series,
            names,
            now,
            obstacle: obstacle(engine, series, now),
            created: None,
            changes: Vec::new(),
            held_back: Vec::new(),
            kept: Vec::new(),
            missed: Vec::new(),
            blocked: Vec::new(),
        }
    }

    pub(super) fn decide(mut self) -> Self {
        self.due();
        let newest_ready = self.series.newest_ready(self.now).map(|point| point.image.id.as_str());
        for point in &self.series.points {
            let is_newest = newest_ready == Some(point.image.id.as_str());
            match point.image.state {
                ImageState::Ready => self.ready(point, is_newest),
                ImageState::Failed => self.failed(point, newest_ready.is_some()),
                ImageState::Creating | ImageState::Deleting | ImageState::Unknown => {
                    self.keep(
                        point,
                        vec![Reason::new(ReasonCode::NotReady, state_detail(point.image))],
                    );
                }
            }
        }
        self.source_marks();
        self
    }

    // -- what is due

    fn due(&mut self) {
        let missed = self.series.missed.iter().copied();
        let last = match &self.series.due {
            Due::Missed { slot, .. } => Some(*slot),
            _ => None,
        };
        for slot in missed.chain(last) {
            let key = self.key(slot);
            let source_name = self.series.source_name().to_owned();
            self.missed.push(Missed { engine: self.engine.name.clone(), key, source_name });
        }
        let (Due::Create { slot, deadline, replaces }, Presence::Present(instance)) =
            (&self.series.due, self.series.state.presence)
        else {
            return;
        };
        match self.create(instance, *slot, *deadline, replaces.as_deref()) {
            Ok(change) => {
                self.created = Some(change.image.name.clone());
                self.changes.push(change);
            }
            Err(message) => self.blocked.push(Blocked {
                engine: self.engine.name.clone(),
                key: self.key(*slot),
                source_name: instance.name.clone(),
                message,
            }),
        }
    }

    fn create(
        &self,
        instance: &Instance,
        slot: Slot,
        deadline: Timestamp,
        replaces: Option<&str>,
    ) -> Result<Change, String> {
        let policy = self.series.policy;
        let capabilities = &self.engine.capabilities;
        let key = self.key(slot);
        let (taken, left): (Vec<_>, Vec<_>) = instance
            .disks
            .iter()
            .partition(|disk| policy.capture.disks.takes(&disk.name, disk.boot));
        if taken.is_empty() {
            let disks: Vec<&str> = instance.disks.iter().map(|disk| disk.name.as_str()).collect();
            return Err(match disks.as_slice() {
                [] => "the instance has no disk".to_owned(),
                disks => format!("`capture.disks` takes none of its disks: {}", disks.join(", ")),
            });
        }
        let name = key.image_name(&policy.naming.prefix(&key, &policy.schedule.zone));
        let replaced =
            self.series.points.iter().find(|point| Some(point.image.id.as_str()) == replaces);
        if replaced.is_none() && self.names.contains(name.as_str()) {
            return Err(format!(
                "an image named {name} exists already and is not stillframe's; rename or delete it"
            ));
        }
        let is_bound = |image: &Image| image.is_held(self.now) || !image.in_use_by.is_empty();
        if replaced.is_some_and(|point| is_bound(point.image)) {
            return Err(format!(
                "a failed attempt named {name} is held or in use; release or delete it"
            ));
        }
        let mut labels = policy.labels.clone();
        labels.extend(key.labels());
        let mut reasons = vec![Reason::new(
            ReasonCode::SlotDue,
            format!("slot {} is due until {}", minute(slot.instant()), minute(deadline)),
        )];
        if let Some(failed) = replaced {
            let message = failed.image.message.as_deref().unwrap_or("no reason given");
            reasons.push(Reason::new(
                ReasonCode::FailedAttempt,
                format!("in place of an attempt that failed: {message}"),
            ));
        }
        let location = if policy.location.is_empty() {
            capabilities.locations.first().cloned().unwrap_or_default()
        } else {
            policy.location.clone()
        };
        let create = Create {
            kind: policy.capture.kind,
            consistency: policy.capture.consistency,
            kms_key: policy.kms_key.clone(),
            disk_bytes: taken.iter().filter_map(|disk| disk.size_bytes).sum(),
            problems: taken.iter().filter_map(|disk| disk.problem.clone()).collect(),
            disks: taken.into_iter().map(|disk| disk.name.clone()).collect(),
            excluded_disks: left.into_iter().map(|disk| disk.name.clone()).collect(),
            labels,
            description: policy.naming.description(
                policy,
                instance,
                slot,
                capabilities.description_length_max,
            ),
            deadline,
            replaces: replaced.map(|point| image_ref(point.image)),
        };
        Ok(Change {
            action: Action::Create,
            engine: self.engine.name.clone(),
            key,
            source_name: instance.name.clone(),
            image: ImageRef {
                id: None,
                name,
                location,
                created_at: None,
                fingerprint: None,
                stored_bytes: None,
            },
            reasons,
            risk: None,
            newest_ready: None,
            waits_for: None,
            create: Some(create),
            update: None,
        })
    }

    // -- what happens to points

    fn ready(&mut self, point: &SeriesPoint<'_>, is_newest: bool) {
        match &point.fate_after {
            Fate::Kept(reasons) => {
                let reasons: Vec<Reason> = reasons.iter().map(Reason::from).collect();
                self.stay(point, is_newest, reasons);
            }
            Fate::LetGo(closest) => self.let_go(point, Reason::from(closest)),
        }
    }

    /// A point that is kept: its stage may still have to change.
    fn stay(&mut self, point: &SeriesPoint<'_>, is_newest: bool, reasons: Vec<Reason>) {
        let image = point.image;
        let (wanted, why) = self.wanted_stage(point, is_newest);
        let is_let_go = image.labels.contains_key(LABEL_LET_GO);
        let is_ours = image.labels.contains_key(LABEL_STAGED);
        if self.is_frozen() {
            return self.keep(point, reasons);
        }
        if is_let_go || (wanted < image.stage && is_ours) {
            let mut change = self.change(
                Action::Reactivate,
                point,
                Reason::new(ReasonCode::KeptAgain, kept_again(&reasons)),
            );
            let staged =
                (wanted > Stage::Active).then(|| (LABEL_STAGED.to_owned(), stamp(self.now)));
            let mut remove_labels = vec![LABEL_LET_GO.to_owned()];
            if staged.is_none() {
                remove_labels.push(LABEL_STAGED.to_owned());
            }
            remove_labels.retain(|label| image.labels.contains_key(label));
            // Who deprecated it without us meant it.
            let stage_after = if is_ours { wanted } else { image.stage };
            change.update = Some(Update {
                stage_before: image.stage,
                stage_after,
                set_labels: staged.into_iter().collect(),
                remove_labels,
            });
            self.changes.push(change);
        } else if let (true, Some(why)) = (wanted > image.stage, why) {
            let action =
                if wanted == Stage::Obsolete { Action::Obsolete } else { Action::Deprecate };
            let mut change = self.change(action, point, why);
            change.update = Some(Update {
                stage_before: image.stage,
                stage_after: wanted,
                set_labels: BTreeMap::from([(LABEL_STAGED.to_owned(), stamp(self.now))]),
                remove_labels: Vec::new(),
            });
            self.changes.push(change);
        } else {
            self.keep(point, reasons);
        }
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
    fn let_go(&mut self, point: &SeriesPoint<'_>, why: Reason) {
        let image = point.image;
        let grace = self.series.policy.lifecycle.grace;
        // A mark from the future is the mark of a clock that was wrong: it is made anew.
        let since = image.let_go_at().filter(|since| *since <= CLOCK_SKEW.after(self.now));
        let Some(since) = since else {
            if let Some(obstacle) = self.obstacle.clone() {
                return self.hold_back(Action::Deprecate, point, vec![obstacle, why]);
            }
            let mut change = self.change(Action::Deprecate, point, why);
            if point.fate.is_kept() {
                change.waits_for.clone_from(&self.created);
            }
            change.update = Some(Update {
                stage_before: image.stage,
                stage_after: image.stage.max(Stage::Deprecated),
                set_labels: BTreeMap::from([
                    (LABEL_LET_GO.to_owned(), stamp(self.now)),
                    (LABEL_STAGED.to_owned(), stamp(self.now)),
                ]),
                remove_labels: Vec::new(),
            });
            self.changes.push(change);
            return;
        };
        let until = grace.after(since);
        if until > self.now || point.fate.is_kept() {
            let detail = format!("let go, deleted after {}", minute(until));
            return self.keep(point, vec![Reason::new(ReasonCode::InGrace, detail), why]);
        }
        if let Some(obstacle) = self.obstacle.clone() {
            return self.hold_back(Action::Delete, point, vec![obstacle, why]);
        }
        if !image.in_use_by.is_empty() {
            let in_use =
                Reason::new(ReasonCode::InUse, format!("in use by {}", image.in_use_by.join(", ")));
            return self.hold_back(Action::Delete, point, vec![in_use, why]);
        }
        let passed = Reason::new(
            ReasonCode::GracePassed,
            format!("let go {}, grace {grace} passed", minute(since)),
        );
        let mut change = self.change(Action::Delete, point, why);
        change.reasons.push(passed);
        self.changes.push(change);
    }

    /// A failed attempt: cleared away once something newer is READY, or after a week.
    fn failed(&mut self, point: &SeriesPoint<'_>, has_ready: bool) {
        let is_replaced = matches!(&self.series.due, Due::Create { replaces, .. } if replaces.as_ref() == Some(&point.image.id));
        if is_replaced && self.created.is_some() {
            return;
        }
        if point.image.is_held(self.now) {
            return self.keep(point, vec![Reason::new(ReasonCode::Held, "held")]);
        }
        if !point.image.in_use_by.is_empty() {
            let users = point.image.in_use_by.join(", ");
            return self
                .keep(point, vec![Reason::new(ReasonCode::InUse, format!("in use by {users}"))]);
        }
        let newest_ready = self.series.newest_ready(self.now).map(|point| point.key.slot);
        let is_superseded = has_ready && newest_ready >= Some(point.key.slot);
        let is_old = FAILED_KEPT.after(point.image.created_at) < self.now;
        let why = Reason::new(ReasonCode::FailedAttempt, state_detail(point.image));
        if !is_superseded && !is_old {
            return self.keep(point, vec![Reason::new(ReasonCode::NotReady, why.detail)]);
        }
        if let Some(obstacle) =
            self.obstacle.clone().filter(|obstacle| obstacle.code != ReasonCode::Stalled)
        {
            return self.hold_back(Action::Delete, point, vec![obstacle, why]);
        }
        let change = self.change(Action::Delete, point, why);
        self.changes.push(change);
    }

    // -- the mark that a source is gone

    /// Writes on the newest image that the source is missing, and takes the mark away when it is
    /// back.
    fn source_marks(&mut self) {
        if self.is_paused_or_unseen() {
            return;
        }
        let series = self.series;
        match series.state.presence {
            Presence::Present(_) => {
                let reason = Reason::new(ReasonCode::SourceBack, "the source is back");
                for point in &series.points {
                    if point.image.labels.contains_key(LABEL_MISSING) {
                        self.relabel(point, &reason, |update| {
                            update.remove_labels.push(LABEL_MISSING.to_owned());
                        });
                    }
                }
            }
            Presence::Missing | Presence::Unselected(_) if series.state.marked_since.is_none() => {
                if let Some(newest) = series.newest_ready(self.now) {
                    let mark = stamp(self.now);
                    self.relabel(newest, &gone_reason(series), |update| {
                        update.set_labels.insert(LABEL_MISSING.to_owned(), mark);
                    });
                }
            }
            _ => {}
        }
    }

    /// Changes labels of a point: as a part of what is done to it anyway, or by itself.
    fn relabel(
        &mut self,
        point: &SeriesPoint<'_>,
        reason: &Reason,
        edit: impl FnOnce(&mut Update),
    ) {
        let id = &point.image.id;
        if let Some(change) =
            self.changes.iter_mut().find(|change| change.image.id.as_ref() == Some(id))
        {
            if let Some(update) = &mut change.update {
                change.reasons.push(reason.clone());
                edit(update);
            }
            return;
        }
        self.kept.retain(|kept| kept.id != *id);
        let mut change = self.change(Action::Relabel, point, reason.clone());
        let stage = point.image.stage;
        let mut update = Update { stage_before: stage, stage_after: stage, ..Update::default() };
        edit(&mut update);
        change.update = Some(update);
        self.changes.push(change);
    }

    // -- parts

    fn key(&self, slot: Slot) -> Key {
        Key { policy: self.series.policy.name.clone(), source: self.series.source.clone(), slot }
    }

    /// Whether nothing at all is to change on points that stay.
    fn is_frozen(&self) -> bool {
        self.obstacle.as_ref().is_some_and(|obstacle| obstacle.code != ReasonCode::Stalled)
    }

    fn is_paused_or_unseen(&self) -> bool {
        self.obstacle.as_ref().is_some_and(|obstacle| {
            matches!(obstacle.code, ReasonCode::Paused | ReasonCode::InventoryGap)
        })
    }

    fn change(&self, action: Action, point: &SeriesPoint<'_>, reason: Reason) -> Change {
        Change {
            action,
            engine: self.engine.name.clone(),
            key: point.key.clone(),
            source_name: self.source_name(point),
            image: image_ref(point.image),
            reasons: vec![reason],
            risk: None,
            newest_ready: None,
            waits_for: None,
            create: None,
            update: None,
        }
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
            image: image_ref(point.image),
            reasons,
        });
    }

    fn keep(&mut self, point: &SeriesPoint<'_>, reasons: Vec<Reason>) {
        self.kept.push(Kept {
            engine: self.engine.name.clone(),
            key: point.key.clone(),
            id: point.image.id.clone(),
            name: point.image.name.clone(),
            reasons,
        });
    }
}

/// What keeps everything of a series from being deprecated or deleted.
fn obstacle(engine: &EngineInventory, series: &Series<'_>, now: Timestamp) -> Option<Reason> {
    if let Some(gap) = engine.gaps.first() {
        let detail = format!("{} was not seen whole: {}", engine.name, gap.place);
        return Some(Reason::new(ReasonCode::InventoryGap, detail));
    }
    if let Some(pause) = series.policy.pause_at(now).filter(|pause| pause.deletes) {
        return Some(Reason::new(ReasonCode::Paused, describe_pause(pause)));
    }
    if series.state.is_gone() {
        let since = series.state.marked_since.unwrap_or(now);
        let until = series.policy.lifecycle.source_gone_grace.after(since);
        let grace = gone_reason(series).detail;
        return (until > now).then(|| {
            Reason::new(
                ReasonCode::SourceGoneGrace,
                format!("{grace}; nothing changes before {}", minute(until)),
            )
        });
    }
    if series.stalled {
        let detail = match series.newest_ready(now) {
            Some(point) => {
                format!("no new READY restore point since {}", minute(point.key.slot.instant()))
            }
            None => "no READY restore point".to_owned(),
        };
        return Some(Reason::new(ReasonCode::Stalled, detail));
    }
    None
}

fn gone_reason(series: &Series<'_>) -> Reason {
    match series.state.presence {
        Presence::Unselected(_) => Reason::new(
            ReasonCode::SourceUnselected,
            "the policy does not select the source any more",
        ),
        _ => Reason::new(ReasonCode::SourceMissing, "the source is not there any more"),
    }
}

/// What a policy does not do at present, for people.
pub(super) fn describe_pause(pause: &Pause) -> String {
    let what = match (pause.creates, pause.deletes) {
        (true, true) => "creates and deletes paused",
        (true, false) => "creates paused",
        _ => "deletes paused",
    };
    let until = pause.until.map(|until| format!(" until {}", minute(until))).unwrap_or_default();
    let reason = pause.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{what}{until}{reason}")
}

fn kept_again(reasons: &[Reason]) -> String {
    let why: Vec<&str> = reasons.iter().map(|reason| reason.detail.as_str()).collect();
    format!("kept again: {}", why.join(", "))
}

fn state_detail(image: &Image) -> String {
    let state = match image.state {
        ImageState::Creating => "is being made",
        ImageState::Ready => "is READY",
        ImageState::Failed => "failed",
        ImageState::Deleting => "is being deleted",
        ImageState::Unknown => "is in a state this version does not know",
    };
    match &image.message {
        Some(message) => format!("{state}: {message}"),
        None => state.to_owned(),
    }
}

fn image_ref(image: &Image) -> ImageRef {
    ImageRef {
        id: Some(image.id.clone()),
        name: image.name.clone(),
        location: image.location.clone(),
        created_at: Some(image.created_at),
        fingerprint: Some(image.fingerprint.clone()),
        stored_bytes: image.stored_bytes,
    }
}

/// `2026-11-21 02:00Z`.
fn minute(instant: Timestamp) -> String {
    let civil = jiff::tz::TimeZone::UTC.to_datetime(instant);
    format!("{} {:02}:{:02}Z", civil.date(), civil.hour(), civil.minute())
}
