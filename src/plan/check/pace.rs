//! How often a source is captured, against what its engine takes.

use std::collections::{BTreeMap, BTreeSet};

use super::{Change, CheckRule, EngineCheck};
use crate::inventory::{EngineInventory, ImageState, LABEL_COPY, LABEL_STEP, Via};
use crate::name::{Key, Ownership};
use crate::plan::action::Action;
use crate::retention::CLOCK_SKEW;

const HOUR_MILLISECONDS: i64 = 3_600_000;

/// How old the captures of each source are, in milliseconds, and how many a plan adds.
#[derive(Debug, Default)]
pub(super) struct Paces<'a> {
    ages: BTreeMap<String, Vec<i64>>,
    coming: BTreeMap<&'a str, usize>,
    /// What is captured already: a step on the way to it is there.
    captured: BTreeSet<String>,
    /// What is captured in part: whoever makes it makes only the disks that are missing.
    begun: BTreeSet<String>,
}

fn text_of(key: &Key) -> String {
    format!("{} {} {}", key.policy, key.source, key.slot)
}

impl<'a> Paces<'a> {
    pub(super) fn new(
        engine: &EngineInventory,
        changes: &[&'a Change],
        now: jiff::Timestamp,
    ) -> Self {
        let mut paces = Self::default();
        let limits = &engine.capabilities.limits;
        if limits.source_interval_seconds.is_none() && limits.source_hourly.is_none() {
            return paces;
        }
        for image in &engine.images {
            let is_step = image.labels.contains_key(LABEL_STEP);
            if (is_step || image.state == ImageState::Begun)
                && let Ownership::Ours(key) = Key::from_labels(&image.labels)
            {
                let known = if is_step { &mut paces.captured } else { &mut paces.begun };
                known.insert(text_of(&key));
            }
        }
        let creates = changes.iter().filter(|change| change.action == Action::Create);
        for change in creates {
            if paces.is_captured(change) {
                continue;
            }
            *paces.coming.entry(change.key.source.as_str()).or_default() += 1;
        }
        let from_future = -1_000 * CLOCK_SKEW.as_seconds();
        for image in &engine.images {
            let age = now.as_millisecond() - image.created_at.as_millisecond();
            if age < from_future || image.labels.contains_key(LABEL_COPY) {
                continue;
            }
            let source = match (&image.source, Key::from_labels(&image.labels)) {
                (Some(source), _) => source.id.to_string(),
                (None, Ownership::Ours(key)) => key.source.to_string(),
                (None, _) => continue,
            };
            if paces.coming.contains_key(source.as_str()) {
                paces.ages.entry(source).or_default().push(age);
            }
        }
        paces
    }

    /// Whether what a create makes was captured before, or begun.
    fn is_captured(&self, change: &Change) -> bool {
        let is_via = change.create.as_ref().is_some_and(|create| create.via == Via::Snapshot);
        let key = text_of(&change.key);
        (is_via && self.captured.contains(&key)) || self.begun.contains(&key)
    }
}

impl EngineCheck<'_, '_> {
    /// A create comes neither too soon after another capture of its source nor as one too many in an
    /// hour.
    pub(super) fn pace(&mut self, change: &Change) {
        let limits = &self.seen.engine.capabilities.limits;
        let source = change.key.source.as_str();
        let Some(coming) = self.paces.coming.get(source).copied() else { return };
        if self.paces.is_captured(change) {
            return;
        }
        let younger = |milliseconds: i64| {
            let ages = self.paces.ages.get(source).into_iter().flatten();
            ages.filter(|age| **age < milliseconds).count()
        };
        let interval = limits.source_interval_seconds.and_then(|one| i64::try_from(one).ok());
        let is_too_soon =
            interval.is_some_and(|seconds| seconds > 0 && younger(1_000 * seconds) + coming > 1);
        let in_hour = younger(HOUR_MILLISECONDS) + coming;
        let is_one_too_many = limits.source_hourly.is_some_and(|most| in_hour as u64 > most.max(1));
        if is_too_soon || is_one_too_many {
            self.find(CheckRule::CreatePace, change, "its source is captured too often");
        }
    }
}
