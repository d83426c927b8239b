//! One image: asked for, and waited for until it shows, or until it is READY.

use std::time::Duration;

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
use super::wait::{Asked, Pace, Waiting};
use super::wire;
use crate::engine::http::{Leave, Looks, go_on};
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
/// What came of asking for one image.
pub(super) struct Member {
    pub(super) found: Found,
    pub(super) is_made: bool,
    /// Its place among the operations, while one is under way.
    pub(super) turn: Option<Turn>,
    /// The operation, where its end was not waited for.
    pub(super) begun: Option<Begun>,
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
    /// The machine that stands still for it.
    pub(super) still: Option<&'a Still>,
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
        let waiting = Waiting { engine: self, watcher: asking.watcher, still: asking.still };
        let leave = Asked { pace: asking.pace, waiting };
        let (mut attempt, mut passed) = (0, Duration::ZERO);
        // What became of another signature of the same disk says nothing of this one.
        let mut passed_over_max =
            if uri_of(&wanted.call).is_some() { IMPORTS_FAILED_MAX } else { 0 };
        loop {
            let begun = self.ask(&turn, &wanted.call, "", attempt, &leave).await;
            if let Ok(operation) = &begun.answer {
                asking.pace.note(self.clock.now());
                let until = asking.until;
                if let Some(found) = self.shown(wanted, operation, until, &waiting).await? {
                    return Ok(of(found, true, Some(turn), Some(begun)));
                }
            }
            let ended = self.end(begun, &leave).await;
            match ended.result {
                Ok(operation) => match self.appeared(wanted, &operation, &waiting).await? {
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
                    self.wait_for_others(&leave, &mut passed, error).await?;
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
                    if error.is_taken()
                        || error.is_open()
                        || error.is_gone()
                        || (error.is_withheld() && ended.was_begun) =>
                {
                    let found = self.named_while(wanted, &waiting).await;
                    go_on(asking.watcher)?;
                    let Some(found) = found? else { return Err(error.into()) };
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
        leave: &Asked<'_>,
        passed: &mut Duration,
        error: CallError,
    ) -> Result<(), EngineError> {
        if *passed > OPERATION_TIME_MAX {
            return Err(error.into());
        }
        leave.may_wait(CROWDED_PAUSE, &error.to_string())?;
        *passed += CROWDED_PAUSE;
        leave.pass(CROWDED_PAUSE, self.services.pause.as_ref()).await
    }

    /// The image that is being made, where that is enough.
    async fn shown(
        &self,
        wanted: &Wanted,
        operation: &wire::Operation,
        until: Until,
        leave: &dyn Leave,
    ) -> Result<Option<Found>, EngineError> {
        let id = operation.metadata.image();
        if until == Until::Done || operation.done || id.is_empty() {
            return Ok(None);
        }
        let found = self.find_while(wanted.collection, id, leave).await?;
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
        leave: &dyn Leave,
    ) -> Result<Option<Found>, EngineError> {
        let id = operation.metadata.image();
        let mut looks = Looks::within(OPERATION_TIME_MAX);
        for _ in 0..=UNSEEN_MAX {
            let found = if id.is_empty() {
                self.named_while(wanted, leave).await?
            } else {
                self.find_while(wanted.collection, id, leave).await?
            };
            if let Some(found) = found {
                is_wanted(wanted, &found)?;
                return Ok(Some(found));
            }
            let Some(time) = looks.pause() else { break };
            leave.pass(time, self.services.pause.as_ref()).await?;
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
        let leave = Waiting { engine: self, watcher, still };
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
            let Some(time) = looks.pause() else {
                return failed("it does not become READY");
            };
            leave.pass(time, self.services.pause.as_ref()).await?;
            let id = &found.place.id;
            let Some(now) = self.find_while(wanted.collection, id, &leave).await? else {
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
