//! Asks for one image or snapshot, and never for a second one of the same.
//!
//! The service knows no request again and lets several images have one name. So after an answer that was
//! lost it is looked for what may have been made, and after each image it is looked once more: of two
//! runs at once, the later one steps back.

use jiff::Timestamp;

use super::TwccEngine;
use super::bind::Bound;
use super::call::{CallError, Repeats};
use super::change::is_going;
use super::create::{Capture, Wanted};
use super::http::read;
use super::image::{Found, Place};
use super::wire::{Begun, SaveRequest, SnapshotRequest};
use crate::elapsed::Elapsed;
use crate::engine::EngineError;
use crate::engine::http::{Call, Limit, Looks, Method};
use crate::inventory::ImageState;

/// So often it is looked for an image that may have been made, before that is given up.
const UNSEEN_MAX: usize = 5;
/// How long those looks are spread over at the most.
const UNSEEN_TIME_MAX: std::time::Duration = std::time::Duration::from_hours(1);
/// So far the time of an image that was just asked for may be from that of the request.
const JUST_NOW: Elapsed = Elapsed::minutes(2);

/// A member that is there or is being made.
pub(super) struct Member {
    pub(super) found: Found,
    /// Whether this run has asked for it.
    pub(super) is_made: bool,
    /// What this run has asked for beside it and could not take back yet.
    pub(super) twin: Option<Found>,
}

impl Member {
    /// One that was there.
    pub(super) fn there(found: Found) -> Self {
        Self { found, is_made: false, twin: None }
    }
}

impl TwccEngine {
    /// Asks for one member.
    pub(super) async fn begin(
        &self,
        capture: &Capture<'_>,
        wanted: &Wanted<'_>,
        limit: &Limit<'_>,
    ) -> Result<Member, EngineError> {
        let call = self.order(capture, wanted)?;
        let asked_at = self.service.now();
        let begun = match self.ask(&call, limit).await? {
            Ok(begun) => begun,
            // It may have been made all the same: asked for again, there might be two.
            Err(error) if error.is_open() => {
                let found = self.appeared(wanted).await?;
                let found = found.ok_or_else(|| {
                    EngineError::Failed(format!(
                        "{error}; it is not known whether {} was begun, and it is not asked for again: the next run looks",
                        wanted.name
                    ))
                })?;
                return Ok(Member::there(found));
            }
            Err(error) => return Err(error.into()),
        };
        let place = Place {
            project: self.settings.project.clone(),
            collection: wanted.collection(),
            number: begun.id,
        };
        let own = self.at(&place).await.map_err(|error| match error {
            EngineError::NotFound => {
                EngineError::Failed(format!("{}: it is gone again", wanted.name))
            }
            error => error,
        })?;
        if !wanted.is_it(&own) {
            return Err(self.refuse_altered(capture, wanted, &own, asked_at).await);
        }
        let first = self.first_of(wanted).await?.filter(|first| first.place != own.place);
        Ok(match first {
            Some(found) => {
                let twin = self.step_back(own).await;
                Member { found, is_made: false, twin }
            }
            None => Member { found: own, is_made: true, twin: None },
        })
    }

    /// Sends an order, and again where there were too many requests.
    async fn ask(
        &self,
        call: &Call,
        limit: &Limit<'_>,
    ) -> Result<Result<Begun, CallError>, EngineError> {
        let mut repeats = Repeats::default();
        loop {
            self.may_ask(limit)?;
            let error = match self.service.once(call).await.and_then(|answer| read(&answer)) {
                Ok(begun) => return Ok(Ok(begun)),
                Err(error) => error,
            };
            let Some(time) = repeats.pause_of_refused(&error) else { return Ok(Err(error)) };
            self.wait_to_ask(time, &error.to_string(), limit).await?;
        }
    }

    /// The request for one member.
    fn order(&self, capture: &Capture<'_>, wanted: &Wanted<'_>) -> Result<Call, EngineError> {
        let (name, desc) = (wanted.name, wanted.description.as_str());
        let call = if let Some(volume) = wanted.volume {
            let body = SnapshotRequest { name, desc, volume };
            self.service.call(Method::Post, "snapshots").with_body(&body)
        } else {
            let server = &capture.machine.server;
            let said = |text: &'_ Option<String>| text.clone().filter(|text| !text.is_empty());
            let (Some(os), Some(os_version)) = (said(&server.os), said(&server.os_version)) else {
                return Err(EngineError::Refused(format!(
                    "the service does not say which system runs on the server {} (`os`, `os_version`), and saves no image without",
                    server.id
                )));
            };
            let body = SaveRequest { name, desc, os: &os, os_version: &os_version };
            let path = format!("images/{}/save", server.id);
            self.service.call(Method::Put, &path).with_body(&body)
        };
        Ok(call?)
    }

    /// The service has made something else of what it was asked for. Nobody would find that again, and
    /// each run would make one more: it is deleted, and nothing more is asked for.
    async fn refuse_altered(
        &self,
        capture: &Capture<'_>,
        wanted: &Wanted<'_>,
        own: &Found,
        asked_at: Timestamp,
    ) -> EngineError {
        let number = own.place.number;
        let made_of = wanted.volume.unwrap_or(capture.machine.server.id);
        let is_of_now = JUST_NOW.before(asked_at) <= own.image.created_at
            && own.image.created_at <= JUST_NOW.after(self.service.now());
        let what = format!(
            "the service keeps another name or description of {} than it was given",
            wanted.name
        );
        let rest = if own.made_of == Some(made_of) && is_of_now {
            let call = self.service.call(Method::Delete, &own.place.path());
            let bound = Bound { image: own, carrier: None };
            match self.send_bound(&bound, &call, &is_going).await {
                Ok(_) | Err(EngineError::NotFound) => "it was deleted again".to_owned(),
                Err(error) => format!("it stays, because it cannot be deleted: {error}"),
            }
        } else {
            "it stays, because its server or its time is not that of the request".to_owned()
        };
        let message = format!("{what} ({} {number}): {rest}", own.place.collection.word());
        // Another capture may have seen it at the same time.
        let _ = self.alters.set(message.clone());
        EngineError::Failed(message)
    }

    /// The first there is of a member, by the time and the number that the service gave it.
    async fn first_of(&self, wanted: &Wanted<'_>) -> Result<Option<Found>, EngineError> {
        let mut all = self.all_images().await?;
        let is_alive =
            |found: &Found| !matches!(found.image.state, ImageState::Failed | ImageState::Deleting);
        all.retain(|found| wanted.is_it(found) && is_alive(found));
        all.sort_by_key(|found| (found.image.created_at, found.place.number));
        Ok(all.into_iter().next())
    }

    /// Takes back what this run has just asked for, because another one was first. What the service
    /// does not let go comes back.
    async fn step_back(&self, own: Found) -> Option<Found> {
        let call = self.service.call(Method::Delete, &own.place.path());
        let bound = Bound { image: &own, carrier: None };
        match self.send_bound(&bound, &call, &is_going).await {
            Ok(_) | Err(EngineError::NotFound) => None,
            Err(error) => {
                tracing::warn!(
                    "{} was made twice by two runs at once, and the second one ({}) stays for now: {error}",
                    own.image.name,
                    own.place.id()
                );
                Some(own)
            }
        }
    }

    /// The same once more for what could not be taken back before, now that the first one is READY.
    pub(super) async fn step_back_again(&self, capture: &Capture<'_>, twin: &Found) {
        let Some(now) = self.settled(twin, capture.watcher).await else { return };
        if now.is_still(twin) && now.image.state != ImageState::Deleting {
            self.step_back(now).await;
        }
    }

    /// The member that a lost answer was about. It may show a little later.
    async fn appeared(&self, wanted: &Wanted<'_>) -> Result<Option<Found>, EngineError> {
        let mut looks = Looks::within(UNSEEN_TIME_MAX);
        for _ in 0..UNSEEN_MAX {
            if let Some(found) = self.first_of(wanted).await? {
                return Ok(Some(found));
            }
            let Some(time) = looks.pause() else { break };
            self.service.pause.pause(time).await;
        }
        self.first_of(wanted).await
    }
}
