//! HTTP as engines of services need it: requests as values, what comes of sending one, and what
//! time the service has.
//!
//! What the service means by an answer, and which request may be sent again, is the affair of each
//! engine. What must hold for all of them is here: no redirection is followed, because a secret would
//! go with it; an answer has a limit of time and of length; a lost answer is told from a refusal,
//! because what was asked for may have been done; nothing travels without TLS but on this machine.

mod ended;
mod leave;
mod place;
mod told;

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::{self, Display};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, Response, Url, redirect};
use serde::Serialize;
use serde_json::Value;
use tracing::Span;
use uuid::Uuid;

pub use ended::{Ended, is_earlier};
pub use leave::{Free, Leave, Limit, Looking, Watched, Within, go_on, pause_watched, steps};
pub use place::{Place, SecretSource};

use told::Told;

use super::{Calls, EngineError};
use crate::clock::Clock;

/// The longest time until a connection stands.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// The longest time of a request, its answer included.
const REQUEST_TIME_MAX: Duration = Duration::from_mins(2);
/// The largest answer that is read, in bytes, unpacked.
const ANSWER_MAX: usize = 64 << 20;
/// The largest answer that is read of a refusal.
const REFUSAL_MAX: usize = 64 << 10;
/// The most pages of a list.
pub const PAGES_MAX: usize = 10_000;
/// The first and the longest time between two looks at something that takes its time.
const LOOK_FIRST: Duration = Duration::from_millis(250);
const LOOK_LONGEST: Duration = Duration::from_secs(10);
/// The most characters of a message of a service that are passed on.
const MESSAGE_LENGTH_MAX: usize = 500;
/// The longest pause that a service may ask for before a request is sent again.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(10);

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
#[derive(Debug)]
pub struct Looks {
    next: Duration,
    passed: Duration,
    most: Duration,
}

impl Looks {
    /// Looks for so long.
    pub fn within(most: Duration) -> Self {
        Self { next: LOOK_FIRST, passed: Duration::ZERO, most }
    }

    /// The next pause; `None` once they are over.
    pub fn pause(&mut self) -> Option<Duration> {
        if self.passed > self.most {
            return None;
        }
        let pause = self.next;
        self.passed += pause;
        self.next = (self.next * 2).min(LOOK_LONGEST);
        Some(pause)
    }
}

/// What is done to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Read.
    Get,
    /// Make, or change.
    Post,
    /// Make, or put in the place of what is there.
    Put,
    /// Change.
    Patch,
    /// Delete.
    Delete,
}

/// A request. What is in its body may be secret and is not shown.
#[derive(Clone, PartialEq)]
pub struct Call {
    /// What is done.
    pub method: Method,
    /// The parts of the path below the endpoint. The last one is empty where the path ends with `/`.
    pub path: Vec<String>,
    /// The parameters, in order.
    pub query: Vec<(&'static str, String)>,
    /// The body.
    pub body: Option<Value>,
}

impl fmt::Debug for Call {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = self.body.as_ref().and_then(Value::as_object);
        let fields: Vec<&String> = fields.into_iter().flat_map(|fields| fields.keys()).collect();
        let mut shown = formatter.debug_struct("Call");
        shown.field("method", &self.method).field("path", &self.path).field("query", &self.query);
        shown.field("body", &fields).finish()
    }
}

impl Call {
    /// A request of any method. `path` has its parts between `/`.
    pub fn new(method: Method, path: &str) -> Self {
        let path = path.split('/').map(str::to_owned).collect();
        Self { method, path, query: Vec::new(), body: None }
    }

    /// A request to read. `path` has its parts between `/`.
    pub fn get(path: &str) -> Self {
        Self::new(Method::Get, path)
    }

    /// A request to make or change something.
    pub fn post(path: &str) -> Self {
        Self::new(Method::Post, path)
    }

    /// A request to delete something.
    pub fn delete(path: &str) -> Self {
        Self::new(Method::Delete, path)
    }

    /// The same with a parameter.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.retain(|(known, _)| *known != name);
        self.query.push((name, value.into()));
        self
    }

    /// The same with a body.
    pub fn with_body(mut self, body: &impl Serialize) -> Result<Self, HttpError> {
        let unreadable = |error: serde_json::Error| HttpError::Unreadable(error.to_string());
        self.body = Some(serde_json::to_value(body).map_err(unreadable)?);
        Ok(self)
    }

    fn url(&self, endpoint: &Url) -> Result<Url, HttpError> {
        let wrong = || HttpError::Unreadable(format!("{} is no path", self.path.join("/")));
        let (last, parts) = self.path.split_last().ok_or_else(wrong)?;
        let leads_elsewhere = |part: &String| matches!(part.as_str(), "." | "..");
        if parts.iter().any(String::is_empty) || self.path.iter().any(leads_elsewhere) {
            return Err(wrong());
        }
        let mut url = endpoint.clone();
        url.path_segments_mut().map_err(|()| wrong())?.pop_if_empty().extend(parts).push(last);
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        Ok(url)
    }
}

/// A UUID (version 5) of whatever is asked for: whoever asks for the same again, in this run or in
/// another one, has the same.
pub fn id_of(asked: &impl Serialize) -> String {
    let text = serde_json::to_string(asked).unwrap_or_default();
    Uuid::new_v5(&Uuid::NAMESPACE_URL, text.as_bytes()).hyphenated().to_string()
}

/// Why a request brought no answer that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// No answer came. It may have been carried out.
    #[error("no answer: {0}")]
    Unanswered(String),
    /// An answer came that is not what was asked for.
    #[error("the answer cannot be read: {0}")]
    Unreadable(String),
}

impl From<HttpError> for EngineError {
    fn from(error: HttpError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// An answer, whatever it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status of HTTP, which is no redirection.
    pub status: u16,
    /// How long the service asks to wait before a request is sent again.
    pub retry_after: Option<Duration>,
    /// The body; of a refusal, its beginning.
    pub body: Vec<u8>,
}

impl Answer {
    /// Whether the service has done what it was asked for.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// The way to a service. Clones share connections and counts.
#[derive(Clone)]
pub struct Http {
    /// To where the endpoint is.
    client: Client,
    /// To services of this machine, which no proxy is asked for, and to others.
    clients: [Client; 2],
    endpoint: Url,
    clock: Arc<dyn Clock>,
    counts: Arc<Counts>,
    /// Seconds that the clock of the service was ahead of ours when it answered last.
    ahead_seconds: Arc<AtomicI64>,
    told: Told,
}

/// What was asked of a service.
#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    throttled: AtomicU64,
}

impl Http {
    /// The way to a place. Nothing is asked yet.
    pub fn new(place: &Place, clock: Arc<dyn Clock>) -> Result<Self, String> {
        // Another engine may have set it up already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let clients = [client(true)?, client(false)?];
        Ok(Self {
            client: clients[usize::from(!place.is_loopback)].clone(),
            clients,
            endpoint: place.url.clone(),
            clock,
            counts: Arc::default(),
            ahead_seconds: Arc::new(AtomicI64::new(i64::MIN)),
            told: Told::default(),
        })
    }

    /// The same way to another service, whose clock is its own, and which is told of by itself.
    #[must_use]
    pub fn to(&self, endpoint: Url) -> Self {
        let ahead_seconds = Arc::new(AtomicI64::new(i64::MIN));
        Self { endpoint, ahead_seconds, told: Told::default(), ..self.clone() }
    }

    /// The same at another place, which is gone to as that wants it.
    #[must_use]
    pub fn to_place(&self, place: &Place) -> Self {
        let client = self.clients[usize::from(!place.is_loopback)].clone();
        Self { client, ..self.to(place.url.clone()) }
    }

    /// What paths are relative to.
    pub fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    /// Sends a request once. An answer that says no is an answer; one that leads elsewhere is not.
    #[tracing::instrument(name = "request", skip_all, fields(
        http.request.method = ?call.method,
        server.address = self.endpoint.host_str(),
        url.path = call.path.join("/"),
        http.response.status_code,
    ))]
    pub async fn attempt(&self, call: &Call, headers: &HeaderMap) -> Result<Answer, HttpError> {
        let url = call.url(&self.endpoint)?;
        let request = match call.method {
            Method::Get => self.client.get(url),
            Method::Post => self.client.post(url),
            Method::Put => self.client.put(url),
            Method::Patch => self.client.patch(url),
            Method::Delete => self.client.delete(url),
        };
        let request = request.headers(headers.clone());
        let request = match &call.body {
            Some(body) => request.json(body),
            None => request,
        };
        self.counts.sent.fetch_add(1, Ordering::Relaxed);
        let response = request.send().await.map_err(|error| unanswered(&error))?;
        self.note_time(&response);
        let status = response.status();
        Span::current().record("http.response.status_code", status.as_u16());
        if status.is_redirection() {
            return Err(HttpError::Unreadable(format!("a redirection (HTTP {})", status.as_u16())));
        }
        if status.as_u16() == 429 {
            self.count_throttle();
        }
        let retry_after = self.retry_after(&response);
        let body = if status.is_success() {
            read(response, ANSWER_MAX).await?
        } else {
            read(response, REFUSAL_MAX).await.unwrap_or_default()
        };
        Ok(Answer { status: status.as_u16(), retry_after, body })
    }

    /// What was asked for since it was opened.
    pub fn calls(&self) -> Calls {
        Calls {
            sent: self.counts.sent.load(Ordering::Relaxed),
            throttled: self.counts.throttled.load(Ordering::Relaxed),
        }
    }

    /// Counts an answer that says there were too many requests in other words than a 429.
    pub fn count_throttle(&self) {
        self.counts.throttled.fetch_add(1, Ordering::Relaxed);
    }

    /// Seconds that the clock of the service was ahead of ours, where it has said what time it is.
    pub fn ahead_seconds(&self) -> Option<i64> {
        Some(self.ahead_seconds.load(Ordering::Relaxed)).filter(|ahead| *ahead != i64::MIN)
    }

    /// What time it is here.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// What time it is to the service.
    pub fn service_now(&self) -> Timestamp {
        let ahead = SignedDuration::from_secs(self.ahead_seconds().unwrap_or(0));
        let now = self.clock.now();
        now.saturating_add(ahead).unwrap_or(now)
    }

    /// Says that a request is sent again after a time, and why. `is_told` where who waits says so.
    pub fn tell_wait(&self, why: &dyn Display, time: Duration, is_told: bool) {
        let service = self.endpoint.host_str().unwrap_or_default();
        self.told.tell(service, why, time, self.clock.now(), is_told);
    }

    fn note_time(&self, response: &Response) {
        let date = response.headers().get(DATE).and_then(|value| value.to_str().ok());
        let date = date.and_then(|text| jiff::fmt::rfc2822::parse(text).ok());
        if let Some(date) = date {
            let ahead = date.timestamp().as_second() - self.clock.now().as_second();
            self.ahead_seconds.store(ahead, Ordering::Relaxed);
        }
    }

    /// `Retry-After`, in seconds or as a date (RFC 9110, 10.2.3).
    fn retry_after(&self, response: &Response) -> Option<Duration> {
        let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
        let time = if let Ok(seconds) = text.parse() {
            Duration::from_secs(seconds)
        } else {
            let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
            Duration::try_from(date.duration_since(self.service_now())).unwrap_or_default()
        };
        Some(time.min(RETRY_AFTER_MAX))
    }
}

fn client(is_loopback: bool) -> Result<Client, String> {
    let builder = Client::builder()
        .user_agent(concat!("stillframe/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIME_MAX)
        .timeout(REQUEST_TIME_MAX)
        .redirect(redirect::Policy::none())
        .referer(false);
    let builder = if is_loopback { builder.no_proxy() } else { builder };
    builder.build().map_err(|error| format!("cannot set up HTTP: {error}"))
}

/// The pages of a list, as far as they have been read.
#[derive(Debug, Default)]
pub struct Paging {
    seen: BTreeSet<String>,
}

impl Paging {
    /// Where the next page begins; `None` after the last one. Pages that go round in a circle, or
    /// without end, are an error: a list that was cut short would look like a whole one.
    pub fn next(&mut self, token: Option<&str>) -> Result<Option<String>, HttpError> {
        let Some(token) = token.filter(|token| !token.is_empty()) else { return Ok(None) };
        if !self.seen.insert(token.to_owned()) {
            let message = "the next page is one that was read before".to_owned();
            return Err(HttpError::Unreadable(message));
        }
        if self.seen.len() >= PAGES_MAX {
            return Err(HttpError::Unreadable(format!("more than {PAGES_MAX} pages")));
        }
        Ok(Some(token.to_owned()))
    }
}

/// The URL is left out: it says nothing that the request does not.
fn unanswered(error: &reqwest::Error) -> HttpError {
    let kind = if error.is_timeout() {
        "it took too long"
    } else if error.is_connect() {
        "the connection does not stand"
    } else {
        "the connection broke"
    };
    let mut cause: Option<&dyn Error> = error.source();
    while let Some(deeper) = cause.and_then(Error::source) {
        cause = Some(deeper);
    }
    HttpError::Unanswered(cause.map_or_else(|| kind.to_owned(), |cause| format!("{kind}: {cause}")))
}

/// The body of an answer, which may not be longer than that.
async fn read(mut response: Response, most: usize) -> Result<Vec<u8>, HttpError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unanswered(&error))? {
        if body.len() + chunk.len() > most {
            return Err(HttpError::Unreadable(format!("it is longer than {most} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// As much of a message of a service as is passed on.
pub fn shortened(text: &str) -> String {
    if text.chars().count() <= MESSAGE_LENGTH_MAX {
        return text.to_owned();
    }
    text.chars().take(MESSAGE_LENGTH_MAX).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_below_its_endpoint() {
        let endpoint = Url::parse("https://example.com/v3/").unwrap();
        let url = |path: &str| Call::get(path).url(&endpoint).map(|url| url.to_string());
        assert_eq!(url("images/a b").unwrap(), "https://example.com/v3/images/a%20b");
        assert_eq!(url("sites/1/").unwrap(), "https://example.com/v3/sites/1/");
        assert_eq!(url("images/1:list").unwrap(), "https://example.com/v3/images/1:list");
        for path in ["..", "images/../1", "images//1", "images/.", "/images"] {
            assert!(url(path).is_err(), "{path}");
        }
    }

    #[test]
    fn pages_end_or_are_an_error() {
        let mut paging = Paging::default();
        assert_eq!(paging.next(Some("a")), Ok(Some("a".to_owned())));
        assert_eq!(paging.next(Some("b")), Ok(Some("b".to_owned())));
        assert!(paging.next(Some("a")).is_err());
        assert_eq!(Paging::default().next(Some("")), Ok(None));
        assert_eq!(Paging::default().next(None), Ok(None));
    }

    #[test]
    fn looks_grow_and_end() {
        let mut looks = Looks::within(Duration::from_mins(1));
        let pauses: Vec<Duration> = std::iter::from_fn(|| looks.pause()).collect();
        assert_eq!(pauses[0], Duration::from_millis(250));
        assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1] && pair[1] <= LOOK_LONGEST));
        let sum: Duration = pauses.iter().sum();
        assert!(sum > Duration::from_mins(1) && sum < Duration::from_secs(80), "{sum:?}");
    }
}
