//! The settings of an engine of this kind.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use reqwest::Url;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::call::CallError;
use crate::files::joined;
use crate::inventory::{Capabilities, Consistency, Deprecation, ImageKind, KeyChoice, Limits};

/// Where the API is.
const ENDPOINT_DEFAULT: &str = "https://compute.googleapis.com/compute/v1/";
/// What is behind the host where an endpoint names only a host.
const API_PATH: &str = "/compute/v1/";
/// So many creations a region takes at once.
const CAPTURES_MAX: usize = 20;
/// The shortest time between two images of one source, in seconds.
const SOURCE_INTERVAL_SECONDS: u64 = 600;
/// The most images of one source within an hour.
const SOURCE_HOURLY: u64 = 6;

/// Google Compute Engine: machine images, disk images and snapshots of projects.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "GceEngineSettings", extend("required" = ["projects"]))]
pub struct Settings {
    /// The ids of the projects whose instances are protected. Images are made in the project of
    /// their instance.
    #[schemars(
        length(min = 1),
        inner(regex(pattern = r"^([-a-z0-9.]{1,63}:)?[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"))
    )]
    pub projects: Vec<String>,
    /// Where the API is, where that is not Google's own place: `http://127.0.0.1:8080`. Without TLS
    /// only on this machine.
    pub endpoint: Option<String>,
    /// The project that requests are counted for.
    pub quota_project: Option<String>,
    /// A file with an access token, relative to this file. It is read afresh for every request.
    pub token_file: Option<String>,
    /// The environment variable with an access token.
    pub token_env: Option<String>,
    /// How many captures run at once. The default is 20, which is what a region takes.
    #[schemars(range(min = 1, max = 200))]
    pub captures: Option<u32>,
}

impl Settings {
    /// Reads settings that hold to the schema.
    pub fn read(settings: &Value) -> Result<Self, serde_json::Error> {
        serde_json::from_value(settings.clone())
    }

    /// What an engine with these settings can do.
    pub fn capabilities(&self) -> Capabilities {
        Capabilities {
            kinds: vec![ImageKind::MachineImage, ImageKind::DiskImage, ImageKind::Snapshot],
            consistencies: vec![Consistency::Crash, Consistency::Application],
            deprecation: Deprecation::Label,
            key: KeyChoice::Settable,
            locations: Vec::new(),
            labels_max: 64,
            description_length_max: 2048,
            captures_max: self.captures.map_or(CAPTURES_MAX, |captures| captures as usize),
            families: true,
            limits: Limits {
                source_interval_seconds: Some(SOURCE_INTERVAL_SECONDS),
                source_hourly: Some(SOURCE_HOURLY),
                ..Limits::default()
            },
            ..Capabilities::default()
        }
    }

    /// Where the API is.
    pub fn endpoint(&self) -> Result<Endpoint, String> {
        Endpoint::parse(self.endpoint.as_deref().unwrap_or(ENDPOINT_DEFAULT))
    }

    /// Where the token comes from.
    pub fn credentials(&self, base: &Path, endpoint: &Endpoint) -> Result<Credentials, String> {
        match (&self.token_file, &self.token_env) {
            (Some(_), Some(_)) => Err("name one of `tokenFile` and `tokenEnv`, not both".to_owned()),
            (Some(file), None) => Ok(Credentials::File(joined(base, file))),
            (None, Some(name)) => Ok(Credentials::Variable(name.clone())),
            (None, None) if endpoint.is_loopback => Ok(Credentials::None),
            (None, None) => {
                Err("name the access token with `tokenFile` or `tokenEnv`: only an endpoint on this machine goes without".to_owned())
            }
        }
    }
}

/// What settings can do; those that do not hold to the schema can do nothing.
pub fn capabilities(settings: &Value) -> Capabilities {
    Settings::read(settings).unwrap_or_default().capabilities()
}

/// Where the API is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// What paths are relative to; ends with `/`.
    pub url: Url,
    /// Whether it is this machine.
    pub is_loopback: bool,
    /// Whether it is Google's own place.
    pub is_default: bool,
}

impl Endpoint {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("`endpoint` {why}; write it like `http://127.0.0.1:8080`");
        let mut url = Url::parse(text).map_err(|_| wrong("is not a URL"))?;
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
        if url.path() == "/" {
            url.set_path(API_PATH);
        } else if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        let is_default = url.as_str() == ENDPOINT_DEFAULT;
        Ok(Self { url, is_loopback, is_default })
    }
}

/// Where the access token comes from. The token itself is nowhere kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// No token is sent.
    None,
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
}

impl Credentials {
    /// The token as it is now.
    pub fn token(&self) -> Result<Option<String>, CallError> {
        let failed = |why: String| CallError::Token(why);
        let text = match self {
            Self::None => return Ok(None),
            Self::File(path) => std::fs::read_to_string(path).map_err(|error| {
                failed(format!("cannot read the token in {}: {error}", path.display()))
            })?,
            Self::Variable(name) => variable(name)
                .ok_or_else(|| failed(format!("the variable {name} holds no token")))?,
        };
        let token = text.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            let place = match self {
                Self::File(path) => path.display().to_string(),
                Self::Variable(name) => name.clone(),
                Self::None => String::new(),
            };
            return Err(failed(format!("what {place} holds is not an access token")));
        }
        Ok(Some(token.to_owned()))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the settings name the variable that holds the token"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_host_or_a_whole_path() {
        for (text, url) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/compute/v1/"),
            ("http://[::1]:8080/", "http://[::1]:8080/compute/v1/"),
            ("http://localhost:1/compute/beta", "http://localhost:1/compute/beta/"),
            ("https://example.com/x/", "https://example.com/x/"),
        ] {
            assert_eq!(Endpoint::parse(text).unwrap().url.as_str(), url);
        }
        assert!(Endpoint::parse(ENDPOINT_DEFAULT).unwrap().is_default);
    }

    #[test]
    fn a_token_never_travels_in_the_open() {
        for text in [
            "http://example.com",
            "http://127.0.0.1.example.com",
            "http://10.0.0.1:80",
            "ftp://127.0.0.1",
            "https://me:secret@example.com",
            "https://example.com/?key=1",
            "127.0.0.1:8080",
        ] {
            assert!(Endpoint::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_this_machine_goes_without_a_token() {
        let base = Path::new("/etc");
        let at = |endpoint: Option<&str>| Settings {
            endpoint: endpoint.map(str::to_owned),
            ..Settings::default()
        };
        let credentials =
            |settings: &Settings| settings.credentials(base, &settings.endpoint().unwrap());
        assert!(credentials(&at(None)).unwrap_err().contains("tokenFile"));
        assert_eq!(credentials(&at(Some("http://127.0.0.1:1"))), Ok(Credentials::None));
        let both = Settings {
            token_file: Some("a".to_owned()),
            token_env: Some("B".to_owned()),
            ..at(None)
        };
        assert!(credentials(&both).is_err());
        let file = Settings { token_file: Some("../token".to_owned()), ..at(None) };
        assert_eq!(credentials(&file), Ok(Credentials::File("/token".into())));
    }
}
