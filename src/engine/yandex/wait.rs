//! Waits of captures: until when images may be asked for, who may ask to stop, and what is to be kept up
//! while a machine stands still.

use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::YandexEngine;
use super::image::Found;
use super::promise::Still;
use crate::elapsed::Elapsed;
use crate::engine::http::{Leave, Limit, Pause, go_on, steps};
use crate::engine::{EngineError, Watcher};

/// So long after the first image of a set another one may be asked for: a little less than they may
/// have been made apart.
pub(super) const ASKED_APART: Elapsed = Elapsed::minutes(9);

/// Until when the images of a restore point may be asked for.
pub(super) struct Pace {
    deadline: Timestamp,
    is_set: bool,
    /// When the first of them was begun.
    first: OnceLock<Timestamp>,
}

impl Pace {
    /// Of images of which some are there.
    pub(super) fn of(deadline: Timestamp, found: &[Option<Found>]) -> Self {
        let pace = Self { deadline, is_set: found.len() > 1, first: OnceLock::new() };
        let made = found.iter().flatten().map(|found| found.image.created_at).min();
        if let Some(made) = made {
            pace.note(made);
        }
        pace
    }

    pub(super) fn note(&self, now: Timestamp) {
        self.first.get_or_init(|| now);
    }

    /// The limit as it is now: the first image of a set draws that of the others closer.
    pub(super) fn limit<'a>(&self, watcher: &'a dyn Watcher) -> Limit<'a> {
        let apart = self.first.get().filter(|_| self.is_set).map(|first| ASKED_APART.after(*first));
        match apart.filter(|apart| *apart < self.deadline) {
            Some(until) => {
                let after = "it is too long after the first disk of its set";
                Limit { until, after, watcher }
            }
            None => Limit {
                until: self.deadline,
                after: "its deadline has passed; the next slot is the next one",
                watcher,
            },
        }
    }
}

/// Leave to wait for what was begun: as long as nobody asks to stop. Who waits while a machine stands
/// still puts off the promise that it runs again.
#[derive(Clone, Copy)]
pub(super) struct Waiting<'a> {
    pub(super) engine: &'a YandexEngine,
    pub(super) watcher: &'a dyn Watcher,
    pub(super) still: Option<&'a Still>,
}

#[async_trait]
impl Leave for Waiting<'_> {
    async fn pass(&self, time: Duration, pause: &dyn Pause) -> Result<(), EngineError> {
        for step in steps(time) {
            go_on(self.watcher)?;
            if let Some(still) = self.still {
                self.engine.put_off(still, self.watcher).await;
            }
            pause.pause(step).await;
        }
        go_on(self.watcher)
    }
}

/// Leave to ask for an image: as long as it may be asked for.
pub(super) struct Asked<'a> {
    pub(super) pace: &'a Pace,
    pub(super) waiting: Waiting<'a>,
}

#[async_trait]
impl Leave for Asked<'_> {
    async fn may_send(&self, _: bool) -> Result<(), EngineError> {
        self.pace.limit(self.waiting.watcher).check(self.waiting.engine.clock.now())
    }

    fn may_wait(&self, time: Duration, why: &str) -> Result<(), EngineError> {
        let now = self.waiting.engine.clock.now();
        self.pace.limit(self.waiting.watcher).may_wait(now, time, why)
    }

    fn tells(&self) -> bool {
        true
    }

    async fn pass(&self, time: Duration, pause: &dyn Pause) -> Result<(), EngineError> {
        self.waiting.pass(time, pause).await
    }
}
