//! The way to the services: where each is, tokens, repeats, pages and operations.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, OnceCell};

use super::call::{CallError, Repeats};
use super::credentials::{Credentials, Tokens};
use super::import::uri_of;
use super::settings::Settings;
use super::wire::{Endpoints, Operation, Page};
use crate::clock::Clock;
use crate::engine::http::{
    Call, Free, Http, HttpError, Leave, Looking, Looks, Method, Paging, Pause, Place,
};
use crate::engine::{Calls, EngineError};

/// How long an operation is waited for.
pub(super) const OPERATION_TIME_MAX: Duration = Duration::from_hours(12);
/// The most items of a page.
const PAGE_SIZE: &str = "1000";
/// The header that names a change, so that the service carries it out once.
const KEY_HEADER: &str = "idempotency-key";

/// Which service is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    Compute,
    Iam,
    Operation,
}

impl Service {
    const ALL: [Self; 3] = [Self::Compute, Self::Iam, Self::Operation];

    /// What the list of services calls it.
    fn id(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::Iam => "iam",
            Self::Operation => "operation",
        }
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

impl From<CallError> for WaitError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Withheld(EngineError::Interrupted) => Self::Interrupted,
            error => Self::Call(error),
        }
    }
}

/// The way to the services.
pub(super) struct Services {
    /// To where the list of services is.
    list: Http,
    endpoint: Place,
    /// Where services are that the settings name.
    named: BTreeMap<&'static str, Place>,
    /// Where all of them are, once that was asked for.
    ways: OnceCell<BTreeMap<&'static str, Http>>,
    /// One asks for that at a time.
    asking: Mutex<()>,
    pub(super) tokens: Tokens,
    pub(super) pause: Arc<dyn Pause>,
}

impl Services {
    pub(super) fn new(
        settings: &Settings,
        endpoint: Place,
        credentials: Credentials,
        pause: Arc<dyn Pause>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, String> {
        let list = Http::new(&endpoint, clock)?;
        let mut named = BTreeMap::new();
        for service in Service::ALL {
            if let Some(place) = settings.service(service.id())? {
                named.insert(service.id(), place);
            }
        }
        Ok(Self {
            list,
            endpoint,
            named,
            ways: OnceCell::new(),
            asking: Mutex::default(),
            tokens: Tokens::of(credentials),
            pause,
        })
    }

    /// The way to a service.
    pub(super) async fn way(&self, service: Service) -> Result<&Http, CallError> {
        if self.ways.get().is_none() {
            let _one = self.asking.lock().await;
            if self.ways.get().is_none() {
                // What could not be had now may be had the next time.
                let found = self.discover().await?;
                let _ = self.ways.set(found);
            }
        }
        let unknown = || {
            let message = format!("the list of services has no {}", service.id());
            CallError::Http(HttpError::Unreadable(message))
        };
        self.ways.get().and_then(|ways| ways.get(service.id())).ok_or_else(unknown)
    }

    /// Asks where the services are that the settings do not name.
    async fn discover(&self) -> Result<BTreeMap<&'static str, Http>, CallError> {
        let is_named = |service: &Service| self.named.contains_key(service.id());
        let listed = if Service::ALL.iter().all(is_named) {
            Endpoints::default()
        } else {
            let call = Call::get("endpoints");
            let body =
                self.repeated(&self.list, &call, &HeaderMap::new(), &Free, &mut false).await?;
            read(&body)?
        };
        let mut ways = BTreeMap::new();
        for service in Service::ALL {
            let place = if let Some(place) = self.named.get(service.id()) {
                Some(place.clone())
            } else {
                let found = listed.endpoints.iter().find(|one| one.id == service.id());
                found.map(|found| place_of(&found.address, &self.endpoint)).transpose()?
            };
            ways.extend(place.map(|place| (service.id(), self.list.to_place(&place))));
        }
        Ok(ways)
    }

    /// Whether there is a token to send, where one is needed.
    pub(super) async fn ready(&self) -> Result<(), CallError> {
        let iam = self.way(Service::Iam).await?;
        self.tokens.token(iam, self.pause.as_ref()).await.map(|_| ())
    }

    /// What was asked of all of them.
    pub(super) fn calls(&self) -> Calls {
        self.list.calls()
    }

    /// What time it is to the service.
    pub(super) async fn service_now(&self) -> Timestamp {
        match self.way(Service::Compute).await {
            Ok(way) => way.service_now(),
            Err(_) => self.list.now(),
        }
    }

    /// Seconds that the clock of the service was ahead of ours, where it has said what time it is.
    pub(super) fn ahead_seconds(&self) -> Option<i64> {
        self.ways.get()?.get(Service::Compute.id())?.ahead_seconds()
    }

    /// Sends a request that only reads.
    pub(super) async fn get<T: DeserializeOwned>(&self, call: &Call) -> Result<T, CallError> {
        self.get_while(call, &Free).await
    }

    /// The same as long as there is leave.
    pub(super) async fn get_while<T: DeserializeOwned>(
        &self,
        call: &Call,
        leave: &dyn Leave,
    ) -> Result<T, CallError> {
        self.send(Service::Compute, call, None, leave).await.0
    }

    /// Sends a request, again where that is right, and reads the answer. For each attempt there must
    /// be leave. Tells as well whether an attempt may have been carried out before the one that was
    /// answered.
    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        service: Service,
        call: &Call,
        key: Option<&str>,
        leave: &dyn Leave,
    ) -> (Result<T, CallError>, bool) {
        let mut was_open = false;
        let body = self.body(service, call, key, leave, &mut was_open).await;
        (body.and_then(|body| read(&body)), was_open)
    }

    async fn body(
        &self,
        service: Service,
        call: &Call,
        key: Option<&str>,
        leave: &dyn Leave,
        was_open: &mut bool,
    ) -> Result<Vec<u8>, CallError> {
        let way = self.way(service).await?;
        let iam = self.way(Service::Iam).await?;
        let pause = self.pause.as_ref();
        let mut is_renewed = false;
        let mut token = self.tokens.token(iam, pause).await?;
        loop {
            let headers = headers(token.as_deref(), key)?;
            let answer = self.repeated(way, call, &headers, leave, was_open).await;
            // A token may end at any time, and what was asked with it was not carried out.
            if let (Err(error), Some(refused)) = (&answer, &token)
                && error.is_unknown_to()
                && !is_renewed
                && let Some(other) = self.tokens.renewed(refused, iam, pause).await
            {
                tracing::debug!("{error}; sent again with another token");
                (token, is_renewed) = (Some(other), true);
                continue;
            }
            return answer;
        }
    }

    async fn repeated(
        &self,
        way: &Http,
        call: &Call,
        headers: &HeaderMap,
        leave: &dyn Leave,
        was_open: &mut bool,
    ) -> Result<Vec<u8>, CallError> {
        let is_repeatable = call.method == Method::Get || headers.contains_key(KEY_HEADER);
        let mut repeats = Repeats::default();
        loop {
            // Last of all: whatever was waited for before, a token among it, has taken its time.
            leave.may_send(*was_open).await.map_err(CallError::Withheld)?;
            let error = match way.attempt(call, headers).await {
                Ok(answer) if answer.is_success() => return Ok(answer.body),
                Ok(answer) => CallError::from_answer(&answer),
                Err(error) => error.into(),
            };
            let error = match uri_of(call) {
                Some(uri) => error.without_secret(&uri),
                None => error,
            };
            let Some(time) = repeats.pause(is_repeatable, &error) else { return Err(error) };
            *was_open |= error.is_open();
            way.tell_wait(&error, time, leave.tells());
            leave.may_wait(time, &error.to_string()).map_err(CallError::Withheld)?;
            leave.pass(time, self.pause.as_ref()).await.map_err(CallError::Withheld)?;
        }
    }

    /// All pages of a list, up to the first that cannot be had, with why not.
    pub(super) async fn pages(&self, call: &Call) -> (Vec<Page>, Option<CallError>) {
        self.pages_while(call, &Free).await
    }

    /// The same as long as there is leave.
    pub(super) async fn pages_while(
        &self,
        call: &Call,
        leave: &dyn Leave,
    ) -> (Vec<Page>, Option<CallError>) {
        let mut call = call.clone().with("pageSize", PAGE_SIZE);
        let mut pages = Vec::new();
        let mut paging = Paging::default();
        loop {
            let page: Page = match self.get_while(&call, leave).await {
                Ok(page) => page,
                Err(error) => return (pages, Some(error)),
            };
            let next = paging.next(Some(&page.next_page_token));
            pages.push(page);
            match next {
                Ok(Some(token)) => call = call.with("pageToken", token),
                Ok(None) => return (pages, None),
                Err(error) => return (pages, Some(error.into())),
            }
        }
    }

    /// Waits until an operation is done. What it says before is not final: an error may stand there
    /// while what was begun is taken back. One that is not done after so long is given up. It is
    /// waited for as the leave says with which it was asked for.
    pub(super) async fn finish(
        &self,
        mut operation: Operation,
        leave: &dyn Leave,
        limit: Duration,
    ) -> Result<Operation, WaitError> {
        let looking = Looking(leave);
        let call = Call::get(&format!("operations/{}", operation.id));
        let mut looks = Looks::within(limit);
        while !operation.done {
            let Some(time) = looks.pause() else {
                let message = format!("the operation {} does not end", operation.id);
                return Err(WaitError::Call(HttpError::Unanswered(message).into()));
            };
            leave.pass(time, self.pause.as_ref()).await.map_err(CallError::Withheld)?;
            let looked = self.send(Service::Operation, &call, None, &looking).await;
            operation = looked.0?;
        }
        match &operation.error {
            Some(error) => Err(WaitError::Call(CallError::from_operation(error))),
            None => Ok(operation),
        }
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, CallError> {
    let unreadable = |error: serde_json::Error| HttpError::Unreadable(error.to_string());
    Ok(serde_json::from_slice(body).map_err(unreadable)?)
}

fn headers(token: Option<&str>, key: Option<&str>) -> Result<HeaderMap, CallError> {
    let mut headers = HeaderMap::new();
    if let Some(token) = token {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| CallError::Token("what was read is no IAM token".to_owned()))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    if let Some(key) = key.and_then(|key| HeaderValue::from_str(key).ok()) {
        headers.insert(KEY_HEADER, key);
    }
    Ok(headers)
}

/// A host and port of the list of services. Only a list on this machine, which was had without TLS,
/// leads to services on this machine without it; nothing else is reached in the open.
fn place_of(address: &str, list: &Place) -> Result<Place, CallError> {
    let scheme = if list.url.scheme() == "http" { "http" } else { "https" };
    let text = format!("{scheme}://{address}");
    let place = Place::parse("endpoint", &text).map_err(HttpError::Unreadable)?;
    Ok(place.below("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_list_names_is_reached_as_the_list_was() {
        let of = |address: &str, list: &str| {
            place_of(address, &Place::parse("endpoint", list).unwrap())
                .map(|place| place.url.to_string())
        };
        assert_eq!(
            of("compute.api.cloud.yandex.net:443", "https://api.cloud.yandex.net").unwrap(),
            "https://compute.api.cloud.yandex.net/"
        );
        assert_eq!(
            of("127.0.0.1:8470", "http://127.0.0.1:8470").unwrap(),
            "http://127.0.0.1:8470/"
        );
        assert!(of("compute.example.com:80", "http://127.0.0.1:8470").is_err());
        assert!(of("a@b", "https://api.cloud.yandex.net").is_err());
    }
}
