//! Who is told of what goes wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::elapsed::Elapsed;

/// What people are told of, the worst first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Occasion {
    /// A recovery point objective is broken, or will be even if the next run succeeds.
    RpoBreach,
    /// A series has had no new restore point for too long.
    Stalled,
    /// A slot has passed without a restore point.
    MissedSlot,
    /// Something was tried and failed, or cannot be tried.
    Failure,
    /// Something of an engine cannot be seen.
    NotSeen,
    /// A guard keeps images from being deleted.
    GuardRefusal,
    /// A change of the policies is not valid.
    InvalidPolicy,
    /// Something of that has ended.
    Recovery,
}

impl Occasion {
    /// Every one there is.
    pub const ALL: [Self; 8] = [
        Self::RpoBreach,
        Self::Stalled,
        Self::MissedSlot,
        Self::Failure,
        Self::NotSeen,
        Self::GuardRefusal,
        Self::InvalidPolicy,
        Self::Recovery,
    ];
}

/// What the body of a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BodyFormat {
    /// JSON: values are escaped as texts of JSON.
    #[default]
    Json,
    /// Plain text.
    Text,
}

/// How mail is kept from others on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MailTls {
    /// The connection is made safe before anything is said.
    #[default]
    Starttls,
    /// The connection is safe from its beginning.
    Implicit,
    /// It is not, and does not leave this machine.
    None,
}

/// Who is told of what goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notify {
    /// The receivers, in the order of their names.
    pub receivers: Vec<Receiver>,
    /// What still holds is told again after this time.
    pub repeat_interval: Elapsed,
    /// What is asked for with each round.
    pub pings: Vec<Ping>,
}

impl Default for Notify {
    fn default() -> Self {
        Self { receivers: Vec::new(), repeat_interval: Elapsed::days(1), pings: Vec::new() }
    }
}

/// A receiver of messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receiver {
    /// Its name.
    pub name: String,
    /// What it is told of.
    pub on: BTreeSet<Occasion>,
    /// How messages reach it.
    pub way: Way,
}

/// How messages reach a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// A request with a body of one's own.
    Webhook(Webhook),
    /// As Slack takes them.
    Slack(Hook),
    /// As the Workflows of Microsoft Teams take them.
    Teams(Hook),
    /// Into a room of Matrix.
    Matrix(Matrix),
    /// Mail.
    Email(Email),
    /// A program.
    Exec(Exec),
}

impl Way {
    /// The word for it in the configuration.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Slack(_) => "slack",
            Self::Teams(_) => "teams",
            Self::Matrix(_) => "matrix",
            Self::Email(_) => "email",
            Self::Exec(_) => "exec",
        }
    }
}

/// A value that may be a secret. It is read when it is needed, and never shown.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// As it is written.
    Written(String),
    /// In a file, relative to the configuration.
    File(String),
    /// In an environment variable.
    Variable(String),
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Written(_) => formatter.write_str("Written(…)"),
            Self::File(path) => write!(formatter, "File({path})"),
            Self::Variable(name) => write!(formatter, "Variable({name})"),
        }
    }
}

/// A URL that takes messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// The URL.
    pub url: Secret,
    /// Whether it may be reached without TLS on other machines.
    pub plain_http: bool,
}

/// A request with a body of one's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Where it goes.
    pub hook: Hook,
    /// Headers by name.
    pub headers: BTreeMap<String, Header>,
    /// The template of the body; without one it is the whole message.
    pub body: Option<String>,
    /// What the body is.
    pub format: BodyFormat,
}

/// The value of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// What stands before the value.
    pub prefix: String,
    /// The value.
    pub value: Secret,
}

/// A room of Matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matrix {
    /// The homeserver.
    pub homeserver: Hook,
    /// The room.
    pub room: String,
    /// The access token.
    pub token: Secret,
}

/// Mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Email {
    /// The server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is kept from others.
    pub tls: MailTls,
    /// Who logs in, with the password.
    pub login: Option<(String, Secret)>,
    /// Who it is from.
    pub from: String,
    /// Who gets it.
    pub to: Vec<String>,
}

/// A program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    /// The program.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// It is ended after this time.
    pub timeout: Elapsed,
}

/// A URL that is asked for with each round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ping {
    /// The URL.
    pub hook: Hook,
    /// The engines whose rounds count; without any all do.
    pub engines: BTreeSet<String>,
}

/// Whether a URL may be used: its scheme is one of HTTP, and without TLS only where that is allowed.
/// Nothing of the URL is in the error.
pub fn check_url(url: &str, plain_http: bool) -> Result<(), &'static str> {
    let (scheme, rest) = url.split_once("://").ok_or("it is not a URL")?;
    let host = authority_host(rest);
    if host.is_empty() || url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("it is not a URL");
    }
    match scheme.to_ascii_lowercase().as_str() {
        "https" => Ok(()),
        "http" if plain_http || is_loopback(host) => Ok(()),
        "http" => Err("without TLS only this machine is reached; \
                       where that is meant, say `plainHttp: true`"),
        _ => Err("its scheme is neither https nor http"),
    }
}

/// The host in what follows the scheme of a URL.
fn authority_host(rest: &str) -> &str {
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    match host.strip_prefix('[') {
        Some(inside) => inside.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

/// Whether a host is this machine.
pub fn is_loopback(host: &str) -> bool {
    let is_address = |address: core::net::IpAddr| address.is_loopback();
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(is_address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_tls_only_this_machine_is_reached() {
        for (url, plain_http, is_good) in [
            ("https://hooks.example.org/a?b=c", false, true),
            ("http://hooks.example.org/a", false, false),
            ("http://hooks.example.org/a", true, true),
            ("http://127.0.0.1:8080/", false, true),
            ("http://[::1]:8080/", false, true),
            ("http://localhost/x", false, true),
            ("http://localhost.example.org/x", false, false),
            ("http://127.0.0.1@example.org/", false, false),
            ("http://user:pass@127.0.0.1/", false, true),
            ("http://example.org\\@127.0.0.1/", false, false),
            ("ftp://127.0.0.1/", true, false),
            ("file:///etc/passwd", true, false),
            ("hooks.example.org", true, false),
            ("https://", true, false),
            ("https://a b/", true, false),
        ] {
            assert_eq!(check_url(url, plain_http).is_ok(), is_good, "{url}");
        }
    }

    #[test]
    fn what_is_written_is_not_shown() {
        let shown = format!("{:?}", Secret::Written("hunter2".to_owned()));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
