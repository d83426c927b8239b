//! Binds changes to what was seen.
//!
//! The service knows no request that holds only for what somebody has looked at, and labels go as a
//! whole. So what is changed is read right before each attempt: while one waits to be made again somebody
//! may set a hold or another label, stop or start a machine. Then it is not made again.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;

use super::YandexEngine;
use super::image::Found;
use super::wire;
use crate::engine::EngineError;
use crate::engine::bound::{Judged, Looked, is_still};
use crate::engine::http::{Leave, Pause};
use crate::inventory::Image;

/// Leave to delete an image: as long as what is left of its set is as it was seen, and nobody needs it.
pub(super) struct Removal<'a> {
    pub(super) engine: &'a YandexEngine,
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

/// Leave to set labels of an image: as long as nothing else would be lost with that. That it is `Busy`
/// says that labels are to be merged anew.
pub(super) struct Relabel<'a> {
    pub(super) engine: &'a YandexEngine,
    pub(super) found: &'a Found,
    pub(super) only: Only<'a>,
    /// The labels that it gets.
    pub(super) after: &'a BTreeMap<String, String>,
}

/// What stands in the way of setting labels beside labels that are to be merged.
#[derive(Clone, Copy)]
pub(super) struct Only<'a> {
    /// What a plan has looked at, where that decides.
    pub(super) judged: Option<&'a Judged>,
    /// What else is to be heard.
    pub(super) beside: &'a dyn Leave,
}

impl Only<'_> {
    /// Whether an image is still what was judged.
    pub(super) fn check(&self, now: &Image) -> Result<(), EngineError> {
        let is_other = self.judged.is_some_and(|judged| *judged != Judged::of(now));
        if is_other { Err(EngineError::Changed) } else { Ok(()) }
    }
}

#[async_trait]
impl Leave for Relabel<'_> {
    async fn may_send(&self, was_open: bool) -> Result<(), EngineError> {
        self.only.beside.may_send(was_open).await?;
        let now = self.engine.at(&self.found.place).await?.image;
        if now.labels == self.found.image.labels || now.labels == *self.after {
            return Ok(());
        }
        self.only.check(&now)?;
        Err(EngineError::Busy("others have changed its labels".to_owned()))
    }

    fn may_wait(&self, time: Duration, why: &str) -> Result<(), EngineError> {
        self.only.beside.may_wait(time, why)
    }

    fn tells(&self) -> bool {
        self.only.beside.tells()
    }

    async fn pass(&self, time: Duration, pause: &dyn Pause) -> Result<(), EngineError> {
        self.only.beside.pass(time, pause).await
    }
}

/// Leave to do something with an instance: as long as it is as it must be for that, and there is leave
/// by what else is to be heard.
pub(super) struct AsSeen<'a, F> {
    pub(super) engine: &'a YandexEngine,
    pub(super) id: &'a str,
    /// Whether it is, which may hang on whether an attempt before may have been carried out.
    pub(super) holds: F,
    pub(super) beside: &'a dyn Leave,
}

#[async_trait]
impl<F: Fn(&wire::Instance, bool) -> bool + Send + Sync> Leave for AsSeen<'_, F> {
    async fn may_send(&self, was_open: bool) -> Result<(), EngineError> {
        self.beside.may_send(was_open).await?;
        let now = self.engine.instance(self.id).await?;
        if (self.holds)(&now, was_open) { Ok(()) } else { Err(EngineError::Changed) }
    }

    fn may_wait(&self, time: Duration, why: &str) -> Result<(), EngineError> {
        self.beside.may_wait(time, why)
    }

    fn tells(&self) -> bool {
        self.beside.tells()
    }

    async fn pass(&self, time: Duration, pause: &dyn Pause) -> Result<(), EngineError> {
        self.beside.pass(time, pause).await
    }
}
