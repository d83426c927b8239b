//! Sends requests: key, platform, project, repeats.

use std::sync::Arc;

use jiff::Timestamp;
use reqwest::header::{HeaderMap, HeaderValue};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::call::{CallError, Repeats};
use super::wire::Project;
use crate::clock::Clock;
use crate::engine::Calls;
use crate::engine::http::{Answer, Call, Http, Method, Pause, Place, SecretSource};

/// Where the key goes.
const KEY_HEADER: &str = "x-api-key";
/// Where the platform is named beside the path.
const PLATFORM_HEADER: &str = "x-api-host";

/// The way to a project on a platform.
pub(super) struct Service {
    way: Http,
    key: Option<SecretSource>,
    platform: String,
    project: String,
    /// The number of the project on the platform, once it is known.
    number: OnceCell<u64>,
    pub(super) pause: Arc<dyn Pause>,
}

/// What a list holds, and what of it could not be read.
pub(super) struct Listed<T> {
    pub(super) items: Vec<T>,
    pub(super) unread: Option<String>,
}

impl Service {
    pub(super) fn new(
        place: &Place,
        key: Option<SecretSource>,
        platform: &str,
        project: &str,
        pause: Arc<dyn Pause>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, String> {
        Ok(Self {
            way: Http::new(place, clock)?,
            key,
            platform: platform.to_owned(),
            project: project.to_owned(),
            number: OnceCell::new(),
            pause,
        })
    }

    /// Where the key is.
    pub(super) fn key_place(&self) -> Option<String> {
        self.key.as_ref().map(ToString::to_string)
    }

    /// What was asked for so far.
    pub(super) fn calls(&self) -> Calls {
        self.way.calls()
    }

    /// What time it is to the service.
    pub(super) fn now(&self) -> Timestamp {
        self.way.service_now()
    }

    /// Seconds that the clock of the service is ahead, where it has said what time it is.
    pub(super) fn ahead_seconds(&self) -> Option<i64> {
        self.way.ahead_seconds()
    }

    /// A request below the path of the platform. All paths end with `/`: without it the gateway
    /// leads elsewhere.
    pub(super) fn call(&self, method: Method, path: &str) -> Call {
        Call::new(method, &format!("{}/{path}/", self.platform))
    }

    /// The key as it is now, in the form that the service gives it.
    pub(super) fn key(&self) -> Result<Option<String>, CallError> {
        let Some(source) = &self.key else { return Ok(None) };
        let key = source.read("API key").map_err(CallError::Key)?;
        let groups: Vec<&str> = key.split('-').collect();
        let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
        let is_hex = |group: &&str| group.bytes().all(|byte| byte.is_ascii_hexdigit());
        if lengths == [8, 4, 4, 4, 12] && groups.iter().all(is_hex) {
            return Ok(Some(key));
        }
        let message = format!("what {source} holds is no API key (8-4-4-4-12 hexadecimal digits)");
        Err(CallError::Key(message))
    }

    /// Asks for something, again where that is right, and reads the answer.
    pub(super) async fn read<T: DeserializeOwned>(&self, call: &Call) -> Result<T, CallError> {
        let mut repeats = Repeats::default();
        loop {
            let error = match self.once(call).await {
                Ok(answer) => return read(&answer),
                Err(error) => error,
            };
            let Some(time) = repeats.pause(&error) else { return Err(error) };
            self.way.tell_wait(&error, time, false);
            self.pause.pause(time).await;
        }
    }

    /// Sends a request one time. What changes something is sent again by nobody who has not looked in
    /// between.
    pub(super) async fn once(&self, call: &Call) -> Result<Answer, CallError> {
        let mut headers = HeaderMap::new();
        let header = |text: &str| {
            HeaderValue::from_str(text)
                .map_err(|_| CallError::Key("what was read is no API key".to_owned()))
        };
        headers.insert(PLATFORM_HEADER, header(&self.platform)?);
        if let Some(key) = self.key()? {
            let mut value = header(&key)?;
            value.set_sensitive(true);
            headers.insert(KEY_HEADER, value);
        }
        let answer = self.way.attempt(call, &headers).await?;
        if answer.is_success() { Ok(answer) } else { Err(CallError::from_answer(&answer)) }
    }

    /// The number that the project has on this platform.
    pub(super) async fn project(&self) -> Result<u64, CallError> {
        let look = async {
            let call = self.call(Method::Get, "projects").with("name", self.project.clone());
            let projects: Vec<Project> = self.read(&call).await?;
            let is_it = |project: &&Project| project.name.eq_ignore_ascii_case(&self.project);
            projects.iter().find(is_it).map(|project| project.id).ok_or_else(|| {
                let (project, platform) = (&self.project, &self.platform);
                let message =
                    format!("there is no project {project} on {platform}, or the key is not of it");
                CallError::Answered { status: 404, message, retry_after: None }
            })
        };
        self.number.get_or_try_init(|| look).await.copied()
    }

    /// A list of the project. The service has no pages: it is the whole list.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&'static str, String)],
    ) -> Result<Listed<T>, CallError> {
        let number = self.project().await?;
        let mut call = self.call(Method::Get, path).with("project", number.to_string());
        for (name, value) in query {
            call = call.with(name, value.clone());
        }
        let entries: Vec<Value> = self.read(&call).await?;
        let mut listed = Listed { items: Vec::with_capacity(entries.len()), unread: None };
        for entry in entries {
            match serde_json::from_value(entry) {
                Ok(item) => listed.items.push(item),
                Err(error) => {
                    listed.unread = Some(format!("an entry of {path} cannot be read: {error}"));
                }
            }
        }
        Ok(listed)
    }

    /// The same where a list that cannot be read as a whole is of no use.
    pub(super) async fn whole<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&'static str, String)],
    ) -> Result<Vec<T>, CallError> {
        let listed = self.list(path, query).await?;
        match listed.unread {
            None => Ok(listed.items),
            Some(message) => Err(CallError::Unreadable(message)),
        }
    }
}

/// What an answer holds.
pub(super) fn read<T: DeserializeOwned>(answer: &Answer) -> Result<T, CallError> {
    serde_json::from_slice(&answer.body).map_err(|error| CallError::Unreadable(error.to_string()))
}
