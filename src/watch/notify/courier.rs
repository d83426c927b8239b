//! Sends messages: over HTTP, as mail, to a program.
//!
//! Secrets are read when they are needed, so that what is renewed holds at once, and stand in no
//! error: what services answer is quoted without them, and URLs are not quoted at all.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::RETRY_AFTER;
use reqwest::{Client, redirect};
use tokio::sync::OnceCell;

use super::request::{Request, ping_request, request};
use super::{mail, program};
use crate::alert::Notification;
use crate::files::joined;
use crate::policy::meant::{Ping, Receiver, Secret, Way};
use crate::report::clean;

/// The longest time until a connection stands.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// The longest time of a request, its answer included.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);
/// So much of an answer is read.
const ANSWER_MAX: usize = 4096;
/// So many characters of it are quoted.
const QUOTE_MAX: usize = 200;
/// The longest value of a file or a variable.
const SECRET_MAX: u64 = 64 << 10;

/// Why a message did not arrive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SendError {
    /// Why. No secret is in it.
    pub message: String,
    /// Whether it may arrive if it is sent again.
    pub is_passing: bool,
    /// When whoever refused it wants to be asked again.
    pub after: Option<Duration>,
    /// The addresses that it may reach if it is sent again to them alone; none where that is all.
    pub left: Vec<String>,
}

impl SendError {
    /// It may arrive another time.
    pub fn passing(message: impl Into<String>) -> Self {
        Self { message: message.into(), is_passing: true, after: None, left: Vec::new() }
    }

    /// It will not arrive another time either.
    pub fn lasting(message: impl Into<String>) -> Self {
        Self { message: message.into(), is_passing: false, after: None, left: Vec::new() }
    }
}

/// What a ping says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// A round begins.
    Start,
    /// All is well.
    Success,
    /// Something is not.
    Fail,
}

/// Sends what is to be sent.
#[async_trait]
pub trait Courier: Send + Sync + 'static {
    /// Sends a message. Files are relative to `base`.
    async fn send(
        &self,
        base: &Path,
        receiver: &Receiver,
        message: &Notification,
    ) -> Result<(), SendError>;

    /// Asks for a URL; `round` is the same for the beginning and the end of a round.
    async fn ping(
        &self,
        base: &Path,
        ping: &Ping,
        signal: Signal,
        round: &str,
    ) -> Result<(), SendError>;
}

/// Sends for real.
#[derive(Debug)]
pub struct Post {
    variables: fn(&str) -> Option<String>,
    /// For this machine, without a proxy, and for others.
    clients: [OnceCell<Client>; 2],
}

impl Post {
    /// `variables` reads the environment.
    pub fn new(variables: fn(&str) -> Option<String>) -> Self {
        Self { variables, clients: Default::default() }
    }

    /// What would be sent, for who wants to see it: the method, where it goes without what may be
    /// secret of it, and the body.
    pub fn preview(
        &self,
        base: &Path,
        receiver: &Receiver,
        message: &Notification,
    ) -> Result<(String, String), SendError> {
        let secrets = self.secrets(base);
        match &receiver.way {
            Way::Email(email) => Ok((
                format!("mail to {} by {}:{}", email.to.join(", "), email.host, email.port),
                mail::preview(email, message)?,
            )),
            Way::Exec(exec) => Ok((format!("run {}", exec.program), program::document(message)?)),
            way => {
                let request = request(way, message, &secrets)?;
                let host = request.url.host_str().unwrap_or_default();
                let target = format!("{} {}://{host}/…", request.method, request.url.scheme());
                Ok((target, request.body))
            }
        }
    }

    fn secrets(&self, base: &Path) -> Secrets {
        Secrets { base: base.to_owned(), variables: self.variables }
    }

    async fn carry(&self, request: Request) -> Result<(), SendError> {
        let client = self.clients[usize::from(request.is_loopback())]
            .get_or_try_init(|| async { client(request.is_loopback()) })
            .await?;
        let mut builder = client
            .request(request.method.clone(), request.url.clone())
            .headers(request.headers.clone());
        if !request.body.is_empty() {
            builder = builder.body(request.body.clone());
        }
        let mut response = builder.send().await.map_err(|error| unanswered(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let is_passing = matches!(status.as_u16(), 408 | 425 | 429) || status.is_server_error();
        let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let after = after.and_then(|text| text.parse().ok()).map(Duration::from_secs);
        let mut answer = Vec::new();
        while answer.len() < ANSWER_MAX
            && let Ok(Some(chunk)) = response.chunk().await
        {
            answer.extend_from_slice(&chunk);
        }
        let quote = request.masked(&String::from_utf8_lossy(&answer));
        let quote: String = clean(quote.trim()).chars().take(QUOTE_MAX).collect();
        let quote = if quote.is_empty() { quote } else { format!(": {quote}") };
        let message = if status.is_redirection() {
            format!(
                "it answered with a redirection (HTTP {}), which is not followed",
                status.as_u16()
            )
        } else {
            format!("it answered HTTP {}{quote}", status.as_u16())
        };
        Err(SendError { message, is_passing, after, left: Vec::new() })
    }
}

#[async_trait]
impl Courier for Post {
    async fn send(
        &self,
        base: &Path,
        receiver: &Receiver,
        message: &Notification,
    ) -> Result<(), SendError> {
        let secrets = self.secrets(base);
        match &receiver.way {
            Way::Email(email) => mail::send(email, message, &secrets).await,
            Way::Exec(exec) => program::run(exec, base, message).await,
            way => self.carry(request(way, message, &secrets)?).await,
        }
    }

    async fn ping(
        &self,
        base: &Path,
        ping: &Ping,
        signal: Signal,
        round: &str,
    ) -> Result<(), SendError> {
        self.carry(ping_request(ping, signal, round, &self.secrets(base))?).await
    }
}

fn client(is_loopback: bool) -> Result<Client, SendError> {
    // An engine may have set it up already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .user_agent(concat!("stillframe/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIME_MAX)
        .timeout(REQUEST_TIME_MAX)
        .pool_max_idle_per_host(0)
        .redirect(redirect::Policy::none())
        .referer(false);
    if is_loopback {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| SendError::passing(format!("cannot set up HTTP: {error}")))
}

/// The URL is left out: it may be a secret.
fn unanswered(error: &reqwest::Error) -> SendError {
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
    let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
    SendError::passing(clean(&format!("{kind}{cause}")))
}

/// Reads values that may be secret.
#[derive(Debug)]
pub(super) struct Secrets {
    base: PathBuf,
    variables: fn(&str) -> Option<String>,
}

impl Secrets {
    #[cfg(test)]
    pub(super) fn of(base: &Path, variables: fn(&str) -> Option<String>) -> Self {
        Self { base: base.to_owned(), variables }
    }

    /// The value of the moment; `what` it is, for people. Blanks around it do not belong to it.
    pub(super) fn read(&self, secret: &Secret, what: &str) -> Result<String, SendError> {
        let value = match secret {
            Secret::Written(text) => text.clone(),
            Secret::Variable(name) => (self.variables)(name).ok_or_else(|| {
                SendError::passing(format!("the variable {name} with the {what} is not set"))
            })?,
            Secret::File(path) => {
                let path = joined(&self.base, path);
                let failed = |error: std::io::Error| {
                    SendError::passing(format!(
                        "cannot read the {what} in {}: {error}",
                        path.display()
                    ))
                };
                let size = std::fs::metadata(&path).map_err(failed)?.len();
                if size > SECRET_MAX {
                    let message = format!("{} is too large for a {what}", path.display());
                    return Err(SendError::passing(message));
                }
                std::fs::read_to_string(&path).map_err(failed)?
            }
        };
        let value = value.trim();
        if value.is_empty() {
            return Err(SendError::passing(format!("the {what} is empty")));
        }
        Ok(value.to_owned())
    }
}
