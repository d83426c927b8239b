//! Where a service is, and where a secret for it is, as settings say it.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use reqwest::Url;

/// Where a service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Scheme, host, port and path.
    pub url: Url,
    /// Whether it is this machine.
    pub is_loopback: bool,
}

impl Place {
    /// The place that a setting of that name holds. Elsewhere than on this machine only with TLS.
    pub fn parse(setting: &str, text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("`{setting}` {why}; write it like `http://127.0.0.1:8080`");
        let url = Url::parse(text).map_err(|_| wrong("is not a URL"))?;
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let is_loopback = host == "localhost"
            || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        match url.scheme() {
            "https" => {}
            "http" if is_loopback => {}
            "http" => {
                return Err(wrong(
                    "goes over the network without TLS, which would show the token to all on its way",
                ));
            }
            _ => return Err(wrong("is not an HTTP URL")),
        }
        let is_bare = url.username().is_empty() && url.password().is_none();
        if !is_bare || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("has more than scheme, host, port and path"));
        }
        Ok(Self { url, is_loopback })
    }

    /// The same, with the path that it has where the setting names only a host. It ends with `/`.
    #[must_use]
    pub fn below(mut self, path: &str) -> Self {
        if self.url.path() == "/" {
            self.url.set_path(path);
        }
        if !self.url.path().ends_with('/') {
            self.url.set_path(&format!("{}/", self.url.path()));
        }
        self
    }
}

/// Where a secret is that is not had from somewhere else: it is read afresh each time, and is never
/// part of a message.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
}

impl SecretSource {
    /// The secret as it is now: one word of printable characters. `what` names it in messages.
    pub fn read(&self, what: &str) -> Result<String, String> {
        let text = match self {
            Self::File(path) => std::fs::read_to_string(path).map_err(|error| {
                format!("cannot read the {what} in {}: {error}", path.display())
            })?,
            Self::Variable(name) => {
                variable(name).ok_or_else(|| format!("the variable {name} holds no {what}"))?
            }
        };
        let secret = text.trim();
        if !secret.is_empty() && secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(secret.to_owned());
        }
        Err(format!("what {self} holds is no {what}"))
    }
}

#[expect(clippy::disallowed_methods, reason = "settings name the variable that holds the secret")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl fmt::Display for SecretSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(formatter, "{}", path.display()),
            Self::Variable(name) => write!(formatter, "the variable {name}"),
        }
    }
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SecretSource({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_travels_in_the_open() {
        for text in [
            "http://example.com",
            "http://127.0.0.1.example.com",
            "http://10.0.0.1:80",
            "ftp://127.0.0.1",
            "https://me:secret@example.com",
            "https://example.com/?key=1",
            "127.0.0.1:8080",
        ] {
            assert!(Place::parse("endpoint", text).is_err(), "{text}");
        }
        for text in ["http://127.0.0.1:8080", "http://[::1]:1/x", "https://example.com"] {
            assert!(Place::parse("endpoint", text).is_ok(), "{text}");
        }
    }
}
