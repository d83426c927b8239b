//! One image: asked for, and waited for until it shows, or until it is READY.

use std::sync::OnceLock;
use std::time::Duration;

use jiff::Timestamp;

use super::YandexEngine;
use super::call::CallError;
use super::create::is_wanted;
use super::image::Found;
use super::import::uri_of;
use super::insertion::Wanted;
use super::operation::Begun;
use super::promise::Still;
use super::room::Turn;
use super::service::{OPERATION_TIME_MAX, WaitError};
use super::wire;
use crate::elapsed::Elapsed;
use crate::engine::http::Looks;
use crate::engine::{EngineError, Watcher};
use crate::inventory::ImageState;

/// How often an image may not be there yet though the operation that made it is done.
const UNSEEN_MAX: u32 = 5;
/// So often something is asked for anew that was made before and is gone again.
const ANEW_MAX: u32 = 20;
/// So many failed imports of the same disk are passed over that ended right before it is asked for again.
const IMPORTS_FAILED_MAX: u32 = 3;

/// How long an image waits before it is asked for again where too much is under way.
const CROWDED_PAUSE: Duration = Duration::from_secs(10);
/// So long after the first image of a set another one may be asked for: a little less than they may
/// have been made apart.
pub(super) const ASKED_APART: Elapsed = Elapsed::minutes(9);

/// What came of asking for one image.
pub(super) struct Member {
    pub(super) found: Found,
    pub(super) is_made: bool,
    /// Its place among the operations, while one is under way.
    pub(super) turn: Option<Turn>,
    /// The operation, where its end was not waited for.
    pub(super) begun: Option<Begun>,
}

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

    fn note(&self, now: Timestamp) {
        self.first.get_or_init(|| now);
    }

    fn end(&self) -> Timestamp {
        let apart = self.first.get().filter(|_| self.is_set).map(|first| ASKED_APART.after(*first));
        apart.map_or(self.deadline, |apart| apart.min(self.deadline))
    }
}

/// How far the request for an image goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// Until its operation is done.
    Done,
    /// Until the service shows it.
    Shown,
}

/// How an image is asked for.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub(super) pace: &'a Pace,
    pub(super) until: Until,
    pub(super) watcher: &'a dyn Watcher,
}

impl YandexEngine {
    /// Asks for an image where there is none, until it is there; it need not be READY yet.
    pub(super) async fn member(
        &self,
        wanted: &Wanted,
        found: Option<Found>,
        turn: Option<Turn>,
        asking: Asking<'_>,
    ) -> Result<Member, EngineError> {
        let of = |found, is_made, turn, begun| Member { found, is_made, turn, begun };
        if let Some(found) = found {
            return Ok(of(found, false, None, None));
        }
        let turn = match turn {
            Some(turn) => turn,
            None => self.rooms.one(&wanted.folder).await,
        };
        let (mut attempt, mut passed) = (0, Duration::ZERO);
        // What became of another signature of the same disk says nothing of this one.
        let mut passed_over_max =
            if uri_of(&wanted.call).is_some() { IMPORTS_FAILED_MAX } else { 0 };
        loop {
            let begun = self.ask(&turn, &wanted.call, "", attempt).await;
            if let Ok(operation) = &begun.answer {
                asking.pace.note(self.clock.now());
                if let Some(found) = self.shown(wanted, operation, asking.until).await? {
                    return Ok(of(found, true, Some(turn), Some(begun)));
                }
            }
            let ended = self.end(begun, asking.watcher).await;
            match ended.result {
                Ok(operation) => match self.appeared(wanted, &operation).await? {
                    Some(found) => return Ok(of(found, true, Some(turn), None)),
                    // What was made under this key is gone again: it is asked for anew.
                    None if ended.was_done && attempt < ANEW_MAX => attempt = ended.attempt + 1,
                    None => {
                        return Err(EngineError::Failed(format!(
                            "{}: it is not there though the operation is done",
                            wanted.name
                        )));
                    }
                },
                Err(WaitError::Interrupted) => return Err(EngineError::Interrupted),
                // Nothing of it was carried out: it may be once others have ended.
                Err(WaitError::Call(error)) if error.is_crowded() => {
                    self.wait_for_others(asking, &mut passed, error).await?;
                    // Another run may have had more luck meanwhile.
                    if asking.until == Until::Done
                        && let Some(found) = self.named(wanted).await?
                        && is_begun(found.image.state)
                    {
                        return Ok(of(found, false, None, None));
                    }
                    attempt = ended.attempt + 1;
                }
                // Another run was faster, or it was made and what told of it was lost.
                Err(WaitError::Call(error))
                    if error.is_taken() || error.is_open() || error.is_gone() =>
                {
                    let Some(found) = self.named(wanted).await? else { return Err(error.into()) };
                    return Ok(of(found, false, None, None));
                }
                Err(WaitError::Call(_)) if ended.was_done && passed_over_max > 0 => {
                    passed_over_max -= 1;
                    attempt = ended.attempt + 1;
                }
                // Where a key is for one body only, another run may have asked under it with its own.
                Err(WaitError::Call(error)) => {
                    let found = self.named(wanted).await.unwrap_or_default();
                    let found = found.filter(|found| is_begun(found.image.state));
                    return found
                        .map_or(Err(error.into()), |found| Ok(of(found, false, None, None)));
                }
            }
        }
    }

    /// Waits a little for operations that somebody else has begun; an error where an image that is asked
    /// for later than that is of no use.
    async fn wait_for_others(
        &self,
        asking: Asking<'_>,
        passed: &mut Duration,
        error: CallError,
    ) -> Result<(), EngineError> {
        if asking.watcher.is_cancelled() {
            return Err(EngineError::Interrupted);
        }
        let later = self.clock.now().saturating_add(CROWDED_PAUSE).unwrap_or(Timestamp::MAX);
        if later > asking.pace.end() || *passed > OPERATION_TIME_MAX {
            return Err(error.into());
        }
        asking.watcher.waits("other operations of its folder");
        *passed += CROWDED_PAUSE;
        self.services.pause.pause(CROWDED_PAUSE).await;
        Ok(())
    }

    /// The image that is being made, where that is enough.
    async fn shown(
        &self,
        wanted: &Wanted,
        operation: &wire::Operation,
        until: Until,
    ) -> Result<Option<Found>, EngineError> {
        let id = operation.metadata.image();
        if until == Until::Done || operation.done || id.is_empty() {
            return Ok(None);
        }
        let found = self.find(wanted.collection, id).await?;
        if let Some(found) = &found {
            is_wanted(wanted, found)?;
        }
        Ok(found.filter(|found| is_begun(found.image.state)))
    }

    /// The image that an operation has made, by the id that it names. It may show a little later.
    async fn appeared(
        &self,
        wanted: &Wanted,
        operation: &wire::Operation,
    ) -> Result<Option<Found>, EngineError> {
        let id = operation.metadata.image();
        let mut looks = Looks::within(OPERATION_TIME_MAX);
        for _ in 0..=UNSEEN_MAX {
            let found = if id.is_empty() {
                self.named(wanted).await?
            } else {
                self.find(wanted.collection, id).await?
            };
            if let Some(found) = found {
                is_wanted(wanted, &found)?;
                return Ok(Some(found));
            }
            let Some(time) = looks.pause() else { break };
            self.services.pause.pause(time).await;
        }
        Ok(None)
    }

    /// Waits until an image is READY.
    pub(super) async fn until_ready(
        &self,
        wanted: &Wanted,
        found: Found,
        watcher: &dyn Watcher,
    ) -> Result<Found, EngineError> {
        let is_ready = |found: &Found| found.image.state == ImageState::Ready;
        self.until(wanted, found, is_ready, None, watcher).await
    }

    /// Waits until the service is done with an image, while a machine stands still where one does.
    pub(super) async fn until_made(
        &self,
        wanted: &Wanted,
        found: Found,
        still: Option<&Still>,
        watcher: &dyn Watcher,
    ) -> Result<Found, EngineError> {
        self.until(wanted, found, |found| found.is_made, still, watcher).await
    }

    async fn until(
        &self,
        wanted: &Wanted,
        mut found: Found,
        is_enough: fn(&Found) -> bool,
        still: Option<&Still>,
        watcher: &dyn Watcher,
    ) -> Result<Found, EngineError> {
        let failed = |why: &str| Err(EngineError::Failed(format!("{}: {why}", wanted.name)));
        let mut looks = Looks::within(OPERATION_TIME_MAX);
        loop {
            is_wanted(wanted, &found)?;
            if is_enough(&found) {
                return Ok(found);
            }
            match found.image.state {
                ImageState::Ready | ImageState::Creating | ImageState::Begun => {}
                ImageState::Failed | ImageState::Partial => {
                    let why = found.image.message.as_deref();
                    return failed(why.unwrap_or("the service could not make it"));
                }
                ImageState::Deleting => return failed("it is being deleted"),
                ImageState::Unknown => return failed("it is in a state that is not known"),
            }
            if watcher.is_cancelled() {
                return Err(EngineError::Interrupted);
            }
            if let Some(still) = still {
                self.put_off(still).await;
            }
            let Some(time) = looks.pause() else {
                return failed("it does not become READY");
            };
            self.services.pause.pause(time).await;
            let Some(now) = self.find(wanted.collection, &found.place.id).await? else {
                return failed("it is gone again");
            };
            found = now;
        }
    }
}

/// Whether the service is at an image, or done with it.
fn is_begun(state: ImageState) -> bool {
    matches!(state, ImageState::Creating | ImageState::Ready)
}
