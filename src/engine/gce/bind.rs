//! Binds changes to what was seen.
//!
//! Labels have a fingerprint with which they are set, and numbers name what is deleted. But nothing binds a
//! delete or a deprecation to the labels that somebody has looked at. So an image is read right before
//! each attempt: a request that is over the rate waits for minutes, and somebody may set a hold meanwhile.

use async_trait::async_trait;
use futures_util::future::join_all;

use super::GceEngine;
use super::image::Found;
use crate::engine::EngineError;
use crate::engine::bound::{Judged, Looked, is_still};
use crate::engine::http::Leave;
use crate::inventory::Stage;

/// Leave to delete an image: as long as what is left of its set is as it was seen, and nobody needs it.
pub(super) struct Removal<'a> {
    pub(super) engine: &'a GceEngine,
    /// All that its restore point was made of.
    pub(super) members: &'a [Found],
    /// Which of them it is. Those before it have been deleted.
    pub(super) index: usize,
    /// When it was looked who needs them.
    pub(super) looked: &'a Looked,
}

impl<'a> Removal<'a> {
    /// What is deleted.
    pub(super) fn found(&self) -> &'a Found {
        &self.members[self.index]
    }
}

#[async_trait]
impl Leave for Removal<'_> {
    async fn may_send(&self, _: bool) -> Result<(), EngineError> {
        let began = self.engine.clock.now();
        if !self.looked.holds(began) {
            self.engine.refuse_needed(self.members).await?;
            self.looked.note(began);
        }
        // Last, for the look before takes its time. A hold on one of them holds all.
        let left = &self.members[self.index..];
        let looks = join_all(left.iter().map(|member| self.engine.at(&member.place))).await;
        for (index, (seen, now)) in left.iter().zip(looks).enumerate() {
            match now {
                // Another run is at it as well.
                Err(EngineError::NotFound) if index > 0 => {}
                Err(error) => return Err(error),
                Ok(now) if is_still(&now.image, &seen.image) => {}
                Ok(_) => return Err(EngineError::Changed),
            }
        }
        Ok(())
    }
}

/// Leave to set the stage of an image: as long as a plan would see in it what it has seen.
pub(super) struct Deprecation<'a> {
    pub(super) engine: &'a GceEngine,
    pub(super) found: &'a Found,
    /// The stage that it gets.
    pub(super) stage: Stage,
}

#[async_trait]
impl Leave for Deprecation<'_> {
    async fn may_send(&self, _: bool) -> Result<(), EngineError> {
        let now = Judged::of(&self.engine.at(&self.found.place).await?.image);
        let seen = Judged::of(&self.found.image);
        // It may have been carried out already, here or by another run.
        if now == seen || now == seen.at(self.stage) { Ok(()) } else { Err(EngineError::Changed) }
    }
}
