//! Sends requests: token, limits, repeats, pages and operations.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use reqwest::header::{AUTHORIZATION, DATE, HeaderMap, HeaderValue};
use reqwest::{Client, Response, Url, redirect};
use serde::de::DeserializeOwned;

use super::call::{Call, CallError, Method, Repeats};
use super::credentials::Credentials;
use super::settings::Endpoint;
use super::wire::{AggregatedList, List, Operation, last_segment};
use crate::clock::Clock;
use crate::engine::Watcher;

/// The longest time until a connection stands.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// The longest time of a request, its answer included.
const REQUEST_TIME_MAX: Duration = Duration::from_mins(2);
/// The largest answer that is read, in bytes, unpacked.
const ANSWER_MAX: usize = 64 << 20;
/// The largest answer that is read of a refusal.
const REFUSAL_MAX: usize = 64 << 10;
/// The most pages of a list. The service has 500 resources on one.
const PAGES_MAX: usize = 10_000;
/// The first and the longest time between two looks at something that takes its time.
const LOOK_FIRST: Duration = Duration::from_millis(250);
const LOOK_LONGEST: Duration = Duration::from_secs(10);
/// How long an operation is waited for.
const OPERATION_TIME_MAX: Duration = Duration::from_hours(12);
/// Requests that wait for the same minute are spread over as many steps of `SPREAD_STEP`.
const SPREAD_STEPS: u32 = 20;
const SPREAD_STEP: Duration = Duration::from_millis(250);

/// Lets time pass.
#[async_trait]
pub trait Pause: Send + Sync {
    /// Comes back when it has passed.
    async fn pause(&self, time: Duration);
}

/// The time of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealTime;

#[async_trait]
impl Pause for RealTime {
    async fn pause(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

/// Pauses that grow, up to a sum.
pub(super) struct Looks {
    next: Duration,
    passed: Duration,
}

impl Looks {
    pub(super) fn new() -> Self {
        Self { next: LOOK_FIRST, passed: Duration::ZERO }
    }

    /// The next pause; `None` once they are over.
    pub(super) fn pause(&mut self) -> Option<Duration> {
        if self.passed > OPERATION_TIME_MAX {
            return None;
        }
        let pause = self.next;
        self.passed += pause;
        self.next = (self.next * 2).min(LOOK_LONGEST);
        Some(pause)
    }
}

/// Why the end of an operation was not seen.
#[derive(Debug)]
pub(super) enum WaitError {
    /// Somebody has asked to stop.
    Interrupted,
    /// It failed, or it cannot be asked for.
    Call(CallError),
}

/// The way to the API.
pub(super) struct Http {
    client: Client,
    endpoint: Url,
    pub(super) credentials: Arc<Credentials>,
    headers: HeaderMap,
    pub(super) pause: Arc<dyn Pause>,
    clock: Arc<dyn Clock>,
    /// Counts requests that have waited for a minute.
    waited: AtomicU32,
    /// Seconds that the clock of the service was ahead of ours when it answered last.
    ahead_seconds: AtomicI64,
}

impl Http {
    pub(super) fn new(
        endpoint: &Endpoint,
        credentials: Credentials,
        quota_project: Option<&str>,
        pause: Arc<dyn Pause>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, String> {
        // Another engine may have set it up already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut headers = HeaderMap::new();
        if let Some(project) = quota_project {
            let value = HeaderValue::from_str(project)
                .map_err(|_| "the quota project is not the id of a project".to_owned())?;
            headers.insert("x-goog-user-project", value);
        }
        let mut builder = Client::builder()
            .user_agent(concat!("stillframe/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIME_MAX)
            .timeout(REQUEST_TIME_MAX)
            .redirect(redirect::Policy::none())
            .referer(false);
        if endpoint.is_loopback {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| format!("cannot set up HTTP: {error}"))?;
        let endpoint = endpoint.url.clone();
        Ok(Self {
            client,
            endpoint,
            credentials: Arc::new(credentials),
            headers,
            pause,
            clock,
            waited: AtomicU32::new(0),
            ahead_seconds: AtomicI64::new(i64::MIN),
        })
    }

    /// The same way to another service.
    pub(super) fn to(&self, endpoint: Url) -> Self {
        Self {
            client: self.client.clone(),
            endpoint,
            credentials: Arc::clone(&self.credentials),
            headers: self.headers.clone(),
            pause: Arc::clone(&self.pause),
            clock: Arc::clone(&self.clock),
            waited: AtomicU32::new(0),
            ahead_seconds: AtomicI64::new(i64::MIN),
        }
    }

    /// Seconds that the clock of the service was ahead of ours, where it has said what time it is.
    pub(super) fn ahead_seconds(&self) -> Option<i64> {
        Some(self.ahead_seconds.load(Ordering::Relaxed)).filter(|ahead| *ahead != i64::MIN)
    }

    fn note_time(&self, response: &Response) {
        let date = response.headers().get(DATE).and_then(|value| value.to_str().ok());
        let date = date.and_then(|text| jiff::fmt::rfc2822::parse(text).ok());
        if let Some(date) = date {
            let ahead = date.timestamp().as_second() - self.clock.now().as_second();
            self.ahead_seconds.store(ahead, Ordering::Relaxed);
        }
    }

    /// Whether there is a token to send, where one is needed.
    pub(super) async fn ready(&self) -> Result<(), CallError> {
        self.credentials.token(self.pause.as_ref()).await.map(|_| ())
    }

    /// Sends a request, again where that is right, and reads the answer.
    pub(super) async fn send<T: DeserializeOwned>(&self, call: &Call) -> Result<T, CallError> {
        self.send_counted(call).await.0
    }

    /// The same, with whether an attempt may have been carried out before the one that was answered.
    pub(super) async fn send_counted<T: DeserializeOwned>(
        &self,
        call: &Call,
    ) -> (Result<T, CallError>, bool) {
        let mut repeats = Repeats::default();
        let mut was_open = false;
        let mut token = match self.credentials.token(self.pause.as_ref()).await {
            Ok(token) => token,
            Err(error) => return (Err(error), false),
        };
        let mut is_renewed = false;
        loop {
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
            match repeats.pause(call, &error, self.clock.now(), spread) {
                Some(time) => {
                    was_open |= error.is_open();
                    tracing::debug!("{error}; sent again in {time:?}");
                    self.pause.pause(time).await;
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

    /// What time it is to the service.
    pub(super) fn service_now(&self) -> Timestamp {
        let ahead = SignedDuration::from_secs(self.ahead_seconds().unwrap_or(0));
        let now = self.clock.now();
        now.saturating_add(ahead).unwrap_or(now)
    }

    fn url(&self, call: &Call) -> Result<Url, CallError> {
        let wrong = || CallError::Unreadable(format!("{} is no path", call.path.join("/")));
        if call.path.iter().any(|part| matches!(part.as_str(), "" | "." | "..")) {
            return Err(wrong());
        }
        let mut url = self.endpoint.clone();
        url.path_segments_mut().map_err(|()| wrong())?.pop_if_empty().extend(&call.path);
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        Ok(url)
    }

    async fn attempt(&self, call: &Call, token: Option<&str>) -> Result<Vec<u8>, CallError> {
        let url = self.url(call)?;
        let request = match call.method {
            Method::Get => self.client.get(url),
            Method::Post => self.client.post(url),
            Method::Delete => self.client.delete(url),
        };
        let mut headers = self.headers.clone();
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| CallError::Token("what was read is not an access token".to_owned()))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let request = request.headers(headers);
        let request = match &call.body {
            Some(body) => request.json(body),
            None => request,
        };
        let response = request.send().await.map_err(|error| unanswered(&error))?;
        self.note_time(&response);
        let status = response.status();
        if status.is_success() {
            return read(response, ANSWER_MAX).await;
        }
        if status.is_redirection() {
            return Err(CallError::Unreadable(format!("a redirection (HTTP {})", status.as_u16())));
        }
        let body = read(response, REFUSAL_MAX).await.unwrap_or_default();
        Err(CallError::from_answer(status.as_u16(), &body))
    }

    /// All pages of a list of that kind, up to the first that cannot be had, with why not.
    pub(super) async fn pages<P: Page>(
        &self,
        call: &Call,
        kind: &str,
    ) -> (Vec<P>, Option<CallError>) {
        let mut pages = Vec::new();
        let mut token = String::new();
        while pages.len() < PAGES_MAX {
            let call = if token.is_empty() {
                call.clone()
            } else {
                call.clone().with("pageToken", token.clone())
            };
            let page: P = match self.send(&call).await {
                Ok(page) => page,
                Err(error) => return (pages, Some(error)),
            };
            if page.kind() != kind {
                let message = format!("it is a {} and no {kind}", page.kind());
                return (pages, Some(CallError::Unreadable(message)));
            }
            let next = page.next_page_token().unwrap_or_default().to_owned();
            pages.push(page);
            if next.is_empty() {
                return (pages, None);
            }
            if next == token {
                let message = "the next page is the same page again".to_owned();
                return (pages, Some(CallError::Unreadable(message)));
            }
            token = next;
        }
        (pages, Some(CallError::Unreadable(format!("more than {PAGES_MAX} pages"))))
    }

    /// Waits until an operation of a project is done; one that has failed is an error. `progress`
    /// is told how far it is, in percent.
    pub(super) async fn finish(
        &self,
        project: &str,
        mut operation: Operation,
        watcher: &dyn Watcher,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), WaitError> {
        let scope = match (&operation.zone, &operation.region) {
            (Some(zone), _) => format!("zones/{}", last_segment(zone)),
            (None, Some(region)) => format!("regions/{}", last_segment(region)),
            (None, None) => "global".to_owned(),
        };
        let path = format!("projects/{project}/{scope}/operations/{}", operation.name);
        let fields = "name,status,progress,error,httpErrorStatusCode,httpErrorMessage";
        let call = Call::get(&path).with("fields", fields);
        let mut looks = Looks::new();
        while operation.status != "DONE" {
            progress(operation.progress.unwrap_or(0).min(100));
            if watcher.is_cancelled() {
                return Err(WaitError::Interrupted);
            }
            let Some(time) = looks.pause() else {
                let message = format!("the operation {} does not end", operation.name);
                return Err(WaitError::Call(CallError::Unanswered(message)));
            };
            self.pause.pause(time).await;
            operation = self.send(&call).await.map_err(WaitError::Call)?;
        }
        CallError::from_operation(&operation).map_or(Ok(()), |error| Err(WaitError::Call(error)))
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

/// The URL is left out: it says nothing that the request does not.
fn unanswered(error: &reqwest::Error) -> CallError {
    let kind = if error.is_timeout() {
        "it took too long"
    } else if error.is_connect() {
        "the connection does not stand"
    } else {
        "the connection broke"
    };
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(deeper) = cause.and_then(std::error::Error::source) {
        cause = Some(deeper);
    }
    CallError::Unanswered(cause.map_or_else(|| kind.to_owned(), |cause| format!("{kind}: {cause}")))
}

/// The body of an answer, which may not be longer than that.
async fn read(mut response: Response, most: usize) -> Result<Vec<u8>, CallError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unanswered(&error))? {
        if body.len() + chunk.len() > most {
            return Err(CallError::Unreadable(format!("it is longer than {most} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
