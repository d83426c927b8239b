//! Sends requests: token, limits, repeats, pages and operations.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde::de::DeserializeOwned;

use super::call::{CallError, Repeats};
use super::credentials::Credentials;
use super::settings::Endpoint;
use super::wire::{AggregatedList, List, Operation, last_segment};
use crate::clock::Clock;
use crate::engine::http::{self, Call, Free, Leave, Looking, Looks, Paging, Pause};
use crate::engine::{Calls, EngineError};

/// How long an operation is waited for.
pub(super) const OPERATION_TIME_MAX: Duration = Duration::from_hours(12);
/// Requests that wait for the same minute are spread over as many steps of `SPREAD_STEP`.
const SPREAD_STEPS: u32 = 20;
const SPREAD_STEP: Duration = Duration::from_millis(250);

/// Why the end of an operation was not seen.
#[derive(Debug)]
pub(super) enum WaitError {
    /// Somebody has asked to stop.
    Interrupted,
    /// It failed, or it cannot be asked for.
    Call(CallError),
}

impl From<CallError> for WaitError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Withheld(EngineError::Interrupted) => Self::Interrupted,
            error => Self::Call(error),
        }
    }
}

/// The way to the API.
pub(super) struct Http {
    way: http::Http,
    pub(super) credentials: Arc<Credentials>,
    headers: HeaderMap,
    pub(super) pause: Arc<dyn Pause>,
    /// Counts requests that have waited for a minute.
    waited: AtomicU32,
}

impl Http {
    pub(super) fn new(
        endpoint: &Endpoint,
        credentials: Credentials,
        quota_project: Option<&str>,
        pause: Arc<dyn Pause>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        if let Some(project) = quota_project {
            let value = HeaderValue::from_str(project)
                .map_err(|_| "the quota project is not the id of a project".to_owned())?;
            headers.insert("x-goog-user-project", value);
        }
        Ok(Self {
            way: http::Http::new(&endpoint.place, clock)?,
            credentials: Arc::new(credentials),
            headers,
            pause,
            waited: AtomicU32::new(0),
        })
    }

    /// The same way to another service.
    pub(super) fn to(&self, endpoint: Url) -> Self {
        Self {
            way: self.way.to(endpoint),
            credentials: Arc::clone(&self.credentials),
            headers: self.headers.clone(),
            pause: Arc::clone(&self.pause),
            waited: AtomicU32::new(0),
        }
    }

    /// Seconds that the clock of the service was ahead of ours, where it has said what time it is.
    pub(super) fn ahead_seconds(&self) -> Option<i64> {
        self.way.ahead_seconds()
    }

    /// What was asked of it, and of the services it leads to.
    pub(super) fn calls(&self) -> Calls {
        self.way.calls()
    }

    /// What time it is to the service.
    pub(super) fn service_now(&self) -> Timestamp {
        self.way.service_now()
    }

    /// Whether there is a token to send, where one is needed.
    pub(super) async fn ready(&self) -> Result<(), CallError> {
        self.credentials.token(self.pause.as_ref()).await.map(|_| ())
    }

    /// Sends a request, again where that is right, and reads the answer.
    pub(super) async fn send<T: DeserializeOwned>(&self, call: &Call) -> Result<T, CallError> {
        self.send_counted(call, &Free).await.0
    }

    /// The same as long as there is leave for each attempt, with whether one may have been carried out
    /// before the one that was answered.
    pub(super) async fn send_counted<T: DeserializeOwned>(
        &self,
        call: &Call,
        leave: &dyn Leave,
    ) -> (Result<T, CallError>, bool) {
        let mut repeats = Repeats::default();
        let mut was_open = false;
        let mut token = match self.credentials.token(self.pause.as_ref()).await {
            Ok(token) => token,
            Err(error) => return (Err(error), false),
        };
        let mut is_renewed = false;
        loop {
            // Last of all: whatever was waited for before, a token among it, has taken its time.
            if let Err(why) = leave.may_send(was_open).await {
                return (Err(CallError::Withheld(why)), was_open);
            }
            let error = match self.attempt(call, token.as_deref()).await {
                Ok(body) => {
                    let read = serde_json::from_slice(&body);
                    let read = read.map_err(|error| CallError::Unreadable(error.to_string()));
                    return (read, was_open);
                }
                Err(error) => error,
            };
            // A token may end at any time, and what was asked with it was not carried out.
            if let Some(refused) = token.as_deref().filter(|_| error.is_unknown_to() && !is_renewed)
                && let Some(other) = self.credentials.renewed(refused, self.pause.as_ref()).await
            {
                tracing::debug!("{error}; sent again with another token");
                (token, is_renewed) = (Some(other), true);
                continue;
            }
            let spread = SPREAD_STEP * (self.waited.fetch_add(1, Ordering::Relaxed) % SPREAD_STEPS);
            match repeats.pause(call, &error, self.way.now(), spread) {
                Some(time) => {
                    was_open |= error.is_open();
                    self.way.tell_wait(&error, time, leave.tells());
                    let passed = match leave.may_wait(time, &error.to_string()) {
                        Ok(()) => leave.pass(time, self.pause.as_ref()).await,
                        refused => refused,
                    };
                    if let Err(why) = passed {
                        return (Err(CallError::Withheld(why)), was_open);
                    }
                    // It may have taken longer than the token lasts.
                    token = match self.credentials.token(self.pause.as_ref()).await {
                        Ok(token) => token,
                        Err(error) => return (Err(error), was_open),
                    };
                }
                None => return (Err(error), was_open),
            }
        }
    }

    async fn attempt(&self, call: &Call, token: Option<&str>) -> Result<Vec<u8>, CallError> {
        let mut headers = self.headers.clone();
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| CallError::Token("what was read is no access token".to_owned()))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let answer = self.way.attempt(call, &headers).await?;
        if answer.is_success() {
            return Ok(answer.body);
        }
        let error = CallError::from_answer(answer.status, &answer.body);
        if error.is_rate() && answer.status != 429 {
            self.way.count_throttle();
        }
        Err(error)
    }

    /// All pages of a list of that kind, up to the first that cannot be had, with why not.
    pub(super) async fn pages<P: Page>(
        &self,
        call: &Call,
        kind: &str,
    ) -> (Vec<P>, Option<CallError>) {
        let mut pages = Vec::new();
        let mut paging = Paging::default();
        let mut call = call.clone();
        loop {
            let page: P = match self.send(&call).await {
                Ok(page) => page,
                Err(error) => return (pages, Some(error)),
            };
            if page.kind() != kind {
                let message = format!("it is a {} and no {kind}", page.kind());
                return (pages, Some(CallError::Unreadable(message)));
            }
            let next = paging.next(page.next_page_token());
            pages.push(page);
            match next {
                Ok(Some(token)) => call = call.with("pageToken", token),
                Ok(None) => return (pages, None),
                Err(error) => return (pages, Some(error.into())),
            }
        }
    }

    /// Waits until an operation of a project is done, for so long at most; how it ended. It is waited for
    /// as the leave says with which it was asked for. `progress` is told how far it is, in percent.
    pub(super) async fn finish(
        &self,
        project: &str,
        mut operation: Operation,
        most: Duration,
        leave: &dyn Leave,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Result<(), CallError>, WaitError> {
        let scope = match (&operation.zone, &operation.region) {
            (Some(zone), _) => format!("zones/{}", last_segment(zone)),
            (None, Some(region)) => format!("regions/{}", last_segment(region)),
            (None, None) => "global".to_owned(),
        };
        let path = format!("projects/{project}/{scope}/operations/{}", operation.name);
        let fields = "name,status,progress,error,httpErrorStatusCode,httpErrorMessage";
        let call = Call::get(&path).with("fields", fields);
        let mut looks = Looks::within(most);
        while operation.status != "DONE" {
            progress(operation.progress.unwrap_or(0).min(100));
            let Some(time) = looks.pause() else {
                let message = format!("the operation {} does not end", operation.name);
                return Err(WaitError::Call(CallError::Unanswered(message)));
            };
            leave.pass(time, self.pause.as_ref()).await.map_err(CallError::Withheld)?;
            operation = self.send_counted(&call, &Looking(leave)).await.0?;
        }
        Ok(CallError::from_operation(&operation).map_or(Ok(()), Err))
    }
}

/// A page of a list.
pub(super) trait Page: DeserializeOwned {
    /// What it is a page of: `compute#…List`.
    fn kind(&self) -> &str;

    /// Where the next one begins.
    fn next_page_token(&self) -> Option<&str>;
}

impl<T: DeserializeOwned> Page for List<T> {
    fn kind(&self) -> &str {
        &self.kind
    }

    fn next_page_token(&self) -> Option<&str> {
        self.next_page_token.as_deref()
    }
}

impl Page for AggregatedList {
    fn kind(&self) -> &str {
        &self.kind
    }

    fn next_page_token(&self) -> Option<&str> {
        self.next_page_token.as_deref()
    }
}
