//! Waits: until a job has begun, until it has ended, and until something may be asked for.

use std::time::Duration;

use jiff::Timestamp;

use super::TwccEngine;
use super::create::{Capture, Wanted};
use super::image::Found;
use crate::elapsed::{Elapsed, whole_second};
use crate::engine::http::{Limit, Looks, pause_watched};
use crate::engine::set::APART;
use crate::engine::{EngineError, Watcher};
use crate::inventory::ImageState;

/// How long a job is waited for that has begun.
pub(super) const JOB_TIME_MAX: Elapsed = Elapsed::hours(12);
/// How long a second image is waited for that is to be taken back.
const TWIN_TIME_MAX: Duration = Duration::from_mins(15);

/// How far a job is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// The service has begun with it.
    Begun,
    /// It is READY.
    Ready,
}

/// How far a job has come.
pub(super) struct Reached {
    pub(super) found: Found,
    /// When it was seen in the queue last, or else was asked for: what it holds is younger.
    pub(super) queued_at: Timestamp,
}

impl Reached {
    /// Says so where a disk is that of a later time than it was asked for.
    pub(super) fn note_late(&self, watcher: &dyn Watcher) {
        let asked = self.found.image.created_at;
        if APART.after(asked) < self.queued_at {
            watcher.waits(&format!(
                "{} was QUEUED for {}: it holds what the disk was after {}",
                self.found.image.name,
                Elapsed::between(asked, self.queued_at).rough(),
                whole_second(self.queued_at)
            ));
        }
    }
}

impl TwccEngine {
    /// A restore point may begin until its deadline, which is one of our clock. The limit is one of the
    /// clock of the service.
    pub(super) fn deadline<'a>(&self, capture: &Capture<'a>) -> Limit<'a> {
        let ahead = self.service.now().duration_since(self.clock.now());
        let deadline = capture.request.create.deadline;
        Limit {
            until: deadline.saturating_add(ahead).unwrap_or(deadline),
            after: "its deadline has passed; the next slot is the next one",
            watcher: capture.watcher,
        }
    }

    /// Whether something may be asked for now.
    pub(super) fn may_ask(&self, limit: &Limit<'_>) -> Result<(), EngineError> {
        limit.check(self.service.now())
    }

    /// Waits before something is asked for again, if that may still be then.
    pub(super) async fn wait_to_ask(
        &self,
        time: Duration,
        why: &str,
        limit: &Limit<'_>,
    ) -> Result<(), EngineError> {
        limit.may_wait(self.service.now(), time, why)?;
        pause_watched(self.service.pause.as_ref(), time, limit.watcher).await
    }

    /// Waits until a member is as far as that. One that the service does not begin with is not waited
    /// for for ever.
    pub(super) async fn until(
        &self,
        capture: &Capture<'_>,
        wanted: &Wanted<'_>,
        mut found: Found,
        goal: Goal,
    ) -> Result<Reached, EngineError> {
        let failed = |why: &str| Err(EngineError::Failed(format!("{}: {why}", wanted.name)));
        let mut queue =
            Looks::within(Duration::try_from(self.settings.queued()).unwrap_or_default());
        let mut job = Looks::within(Duration::from_secs(JOB_TIME_MAX.as_seconds().unsigned_abs()));
        let mut queued_at = found.image.created_at;
        loop {
            let said = found.image.message.clone();
            match found.image.state {
                ImageState::Ready => return Ok(Reached { found, queued_at }),
                ImageState::Creating if goal == Goal::Begun && !found.is_queued => {
                    return Ok(Reached { found, queued_at });
                }
                // A word that is not known may be one on the way.
                ImageState::Creating | ImageState::Begun | ImageState::Unknown => {}
                ImageState::Failed | ImageState::Partial => {
                    return failed(&said.unwrap_or_else(|| "the service could not make it".into()));
                }
                ImageState::Deleting => return failed("it is being deleted"),
            }
            let since = found.image.created_at;
            let pause = if found.is_queued {
                queued_at = self.service.now().max(since);
                queue.pause().filter(|_| !self.is_past(since))
            } else {
                job.pause().filter(|_| self.service.now() < JOB_TIME_MAX.after(queued_at))
            };
            let Some(time) = pause else {
                let server = capture.machine.server.id;
                return Err(EngineError::Failed(found.stuck(Some(wanted.key), Some(server))));
            };
            if capture.watcher.is_cancelled() {
                return Err(EngineError::Interrupted);
            }
            self.service.pause.pause(time).await;
            found = match self.at(&found.place).await {
                Err(EngineError::NotFound) => return failed("it is gone again"),
                found => found?,
            };
            if !wanted.is_it(&found) {
                return Err(EngineError::NameTaken(wanted.name.to_owned()));
            }
        }
    }

    /// Waits until a second image is made, or has failed, or is gone; not for too long.
    pub(super) async fn settled(&self, found: &Found, watcher: &dyn Watcher) -> Option<Found> {
        let mut looks = Looks::within(TWIN_TIME_MAX);
        loop {
            let now = self.at(&found.place).await.ok()?;
            if now.image.state != ImageState::Creating || watcher.is_cancelled() {
                return Some(now);
            }
            let Some(time) = looks.pause() else { return Some(now) };
            self.service.pause.pause(time).await;
        }
    }

    fn is_past(&self, since: Timestamp) -> bool {
        let end = since.saturating_add(self.settings.queued());
        end.is_ok_and(|end| end < self.service.now())
    }
}
