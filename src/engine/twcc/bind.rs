//! Binds changes to what was seen.
//!
//! The service knows no request that holds only for what somebody has looked at. So an image is read
//! right before each attempt to change or delete it, and while an attempt waits to be made again
//! somebody may write into its description: then it is not made again.

use super::TwccEngine;
use super::call::Repeats;
use super::image::Found;
use crate::engine::EngineError;
use crate::engine::http::Call;

/// What is to be as it was seen when something is changed.
pub(super) struct Bound<'a> {
    /// What is changed.
    pub(super) image: &'a Found,
    /// What says whether it may be: the image of its set.
    pub(super) carrier: Option<&'a Found>,
}

impl TwccEngine {
    /// Sends a change until it is answered, each time only while all is as it was seen, and says
    /// whether it may be the one that was carried out. Where it is done already it is not sent.
    pub(super) async fn send_bound(
        &self,
        bound: &Bound<'_>,
        call: &Call,
        is_done: &(dyn Fn(&Found) -> bool + Sync),
    ) -> Result<bool, EngineError> {
        let (mut repeats, mut was_open) = (Repeats::default(), false);
        loop {
            if let Some(is_ours) = self.is_ended(bound, is_done, was_open).await? {
                return Ok(is_ours);
            }
            let error = match self.service.once(call).await {
                Ok(_) => return Ok(true),
                Err(error) if error.is_gone() && was_open => return Ok(true),
                Err(error) if error.is_gone() => return Err(EngineError::NotFound),
                Err(error) => error,
            };
            was_open |= error.is_open();
            let Some(time) = repeats.pause(&error) else {
                // It may have been carried out all the same: only a look can tell.
                let has_ended =
                    was_open && matches!(self.is_ended(bound, is_done, true).await, Ok(Some(_)));
                return if has_ended { Ok(true) } else { Err(error.into()) };
            };
            tracing::debug!("{error}; looked at again in {time:?}");
            self.service.pause.pause(time).await;
        }
    }

    /// Whether there is nothing left to change, and if so, whether an attempt of ours may have done it.
    async fn is_ended(
        &self,
        bound: &Bound<'_>,
        is_done: &(dyn Fn(&Found) -> bool + Sync),
        was_open: bool,
    ) -> Result<Option<bool>, EngineError> {
        let now = match self.at(&bound.image.place).await {
            Err(EngineError::NotFound) if was_open => return Ok(Some(true)),
            now => now?,
        };
        if is_done(&now) {
            return Ok(Some(was_open));
        }
        let mut is_still = now.is_still(bound.image);
        if let Some(carrier) = bound.carrier.filter(|_| is_still) {
            is_still = match self.at(&carrier.place).await {
                Err(EngineError::NotFound) => false,
                now => now?.is_still(carrier),
            };
        }
        if is_still { Ok(None) } else { Err(EngineError::Changed) }
    }
}
