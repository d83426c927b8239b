//! Access tokens: where they come from, and how they are renewed.
//!
//! A token is in a file or a variable that the settings name, or it is had from Application Default
//! Credentials, which `google-cloud-auth` knows how to use: a key, a user, workload identity
//! federation, impersonation, the metadata server. What is looked for where is decided here, so that
//! an error can say it. The crate sets no limits to waiting, so that is done here as well. No token
//! and no key is ever part of a message or of what `Debug` shows.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use google_cloud_auth::credentials::impersonated;
use google_cloud_auth::credentials::{
    AccessTokenCredentials, Credentials as SourceCredentials, external_account, mds,
    service_account, user_account,
};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::call::CallError;
use super::http::Pause;
use super::told::{MESSAGE_LENGTH_MAX, chain, without_secrets};

/// What a token may do is for IAM to say.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// Where another service account's tokens are had.
const IAM_ENDPOINT: &str = "https://iamcredentials.googleapis.com/";
/// Names a file with credentials.
const FILE_VARIABLE: &str = "GOOGLE_APPLICATION_CREDENTIALS";
/// Says where the metadata server is.
const METADATA_VARIABLE: &str = "GCE_METADATA_HOST";
/// Where the metadata server is.
const METADATA_HOST: &str = "metadata.google.internal";
/// Names the project that requests are counted for.
const QUOTA_VARIABLE: &str = "GOOGLE_CLOUD_QUOTA_PROJECT";
/// The file that `gcloud auth application-default login` writes.
const WELL_KNOWN: &str = "application_default_credentials.json";
/// How long a token is waited for; two requests may be needed, each tried more than once.
const TOKEN_TIME_MAX: Duration = Duration::from_secs(90);
/// How long the metadata server is waited for: it is on the same machine, or nowhere.
const METADATA_TIME_MAX: Duration = Duration::from_secs(2);
/// The same where its token is exchanged for another.
const METADATA_IMPERSONATION_TIME_MAX: Duration = Duration::from_secs(15);
/// How often a token is asked for, where it may come the next time.
const ATTEMPTS_MAX: u32 = 4;
/// The same of the metadata server, which starts a little later than a container may.
const METADATA_ATTEMPTS_MAX: u32 = 3;
/// The first pause between them.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// How long what was refused is not asked for again.
const REFUSED_FOR: Duration = Duration::from_secs(30);
/// Where the access token comes from.
pub enum Credentials {
    /// No token is sent.
    None,
    /// A file, which is read afresh for every request.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
    /// Application Default Credentials.
    Default(Box<DefaultCredentials>),
}

impl Credentials {
    /// The token as it is now.
    pub async fn token(&self, pause: &dyn Pause) -> Result<Option<String>, CallError> {
        let failed = |why: String| CallError::Token(why);
        let text = match self {
            Self::None => return Ok(None),
            Self::Default(credentials) => return credentials.token(pause).await.map(Some),
            Self::File(path) => std::fs::read_to_string(path).map_err(|error| {
                failed(format!("cannot read the token in {}: {error}", path.display()))
            })?,
            Self::Variable(name) => variable(name)
                .ok_or_else(|| failed(format!("the variable {name} holds no token")))?,
        };
        let token = text.trim();
        if is_token(token) {
            return Ok(Some(token.to_owned()));
        }
        Err(failed(format!("what {} holds is not an access token", self.place())))
    }

    /// A token in place of one that the service did not take; `None` where there is no other.
    pub async fn renewed(&self, refused: &str, pause: &dyn Pause) -> Option<String> {
        if let Self::Default(credentials) = self {
            credentials.forget(refused).await;
        }
        let token = self.token(pause).await.ok().flatten()?;
        (token != refused).then_some(token)
    }

    /// Where it comes from, for people.
    pub fn place(&self) -> String {
        match self {
            Self::None => "no credentials: the endpoint is on this machine".to_owned(),
            Self::File(path) => path.display().to_string(),
            Self::Variable(name) => format!("the variable {name}"),
            Self::Default(credentials) => credentials.place(),
        }
    }

    /// Whose rights a token has, as far as that can be known without asking.
    pub fn account(&self) -> Option<String> {
        match self {
            Self::Default(credentials) => credentials.account(),
            _ => None,
        }
    }

    /// The account of the machine, as its metadata server has it.
    pub async fn machine_account(&self) -> Option<String> {
        let Self::Default(credentials) = self else { return None };
        let Found::Metadata { host, .. } = &credentials.found else { return None };
        let host = host.as_deref().unwrap_or(METADATA_HOST);
        let url =
            format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/email");
        let request =
            reqwest::Client::builder().no_proxy().timeout(METADATA_TIME_MAX).build().ok()?;
        let request = request.get(url).header("Metadata-Flavor", "Google");
        let answer = request.send().await.ok()?.error_for_status().ok()?;
        let text = answer.text().await.ok()?;
        let is_account = text.len() <= MESSAGE_LENGTH_MAX && text.contains('@');
        is_account.then(|| without_secrets(&text))
    }

    /// The project that they say requests are to be counted for.
    pub fn quota_project(&self) -> Option<String> {
        let Self::Default(credentials) = self else { return None };
        let named = |text: &String| !text.is_empty();
        variable(QUOTA_VARIABLE).filter(named).or_else(|| {
            let Found::File { json, .. } = &credentials.found else { return None };
            json.get("quota_project_id").and_then(Value::as_str).map(str::to_owned)
        })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Credentials({})", self.place())
    }
}

/// Somebody else whose rights are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Impersonation {
    /// The service account.
    pub account: String,
    /// Service accounts on the way to it, each of which may act as the next.
    pub delegates: Vec<String>,
    /// Where its tokens are had, where that is not Google's own place; ends with `/`.
    pub endpoint: Option<String>,
}

/// What was found where Application Default Credentials are looked for.
enum Found {
    /// A file.
    File { path: PathBuf, json: Value },
    /// No file, so the metadata server, at the host that the environment says.
    Metadata { host: Option<String>, looked: PathBuf },
}

/// Application Default Credentials.
pub struct DefaultCredentials {
    found: Found,
    impersonation: Option<Impersonation>,
    /// One asks at a time; the others have the answer then.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Keeps a token and renews it before it ends.
    source: Option<AccessTokenCredentials>,
    /// The token that was given last.
    given: Option<String>,
    /// Why there was none, and when.
    refused: Option<(Instant, CallError)>,
}

/// A token that was not had.
struct Missing {
    message: String,
    /// Whether it may be had the next time.
    passes: bool,
}

impl DefaultCredentials {
    /// Looks where they are looked for. Nothing is asked yet.
    pub fn find(impersonation: Option<Impersonation>) -> Result<Self, String> {
        let named = variable(FILE_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        let path = named.clone().unwrap_or_else(well_known);
        let found = if named.is_some() || path.exists() {
            let json = read(&path).map_err(|why| match named {
                Some(_) => format!("{why}; the variable {FILE_VARIABLE} names that file"),
                None => why,
            })?;
            Found::File { path, json }
        } else {
            Found::Metadata { host: variable(METADATA_VARIABLE), looked: path }
        };
        if let (Found::Metadata { .. }, Some(endpoint)) =
            (&found, impersonation.as_ref().and_then(|one| one.endpoint.as_ref()))
        {
            return Err(format!(
                "`credentialsEndpoint: {endpoint}` goes with a credentials file only, and there is none"
            ));
        }
        Ok(Self { found, impersonation, state: Mutex::default() })
    }

    fn place(&self) -> String {
        match &self.found {
            Found::File { path, json } => format!("{} ({})", path.display(), kind_of(json)),
            Found::Metadata { host: Some(host), .. } => {
                format!("the metadata server at {host} ({METADATA_VARIABLE})")
            }
            Found::Metadata { host: None, .. } => "the metadata server".to_owned(),
        }
    }

    fn account(&self) -> Option<String> {
        let Found::File { json, .. } = &self.found else {
            return self.impersonation.as_ref().map(|one| one.account.clone());
        };
        let text = |name: &str| json.get(name).and_then(Value::as_str).filter(|it| !it.is_empty());
        let impersonated = text("service_account_impersonation_url").and_then(|url| {
            url.rsplit('/').next()?.strip_suffix(":generateAccessToken").map(str::to_owned)
        });
        let named = || {
            let name = text("client_email").or(text("account")).or(text("audience"));
            name.map(str::to_owned)
        };
        let impersonation = self.impersonation.as_ref().map(|one| one.account.clone());
        impersonation.or(impersonated).or_else(named)
    }

    /// The token as it is now, from where it is kept or from where it is had.
    async fn token(&self, pause: &dyn Pause) -> Result<String, CallError> {
        let mut state = self.state.lock().await;
        if let Some((since, error)) = &state.refused
            && since.elapsed() < REFUSED_FOR
        {
            return Err(error.clone());
        }
        let attempts = match self.found {
            Found::File { .. } => ATTEMPTS_MAX,
            Found::Metadata { .. } => METADATA_ATTEMPTS_MAX,
        };
        let mut tried = 0;
        loop {
            tried += 1;
            let missing = match self.attempt(&mut state).await {
                Ok(token) => {
                    state.refused = None;
                    state.given = Some(token.clone());
                    return Ok(token);
                }
                Err(missing) => missing,
            };
            // What has failed may have stopped to renew; the next attempt begins anew.
            state.source = None;
            if !missing.passes || tried >= attempts {
                let error = CallError::Token(self.explained(&missing.message));
                state.refused = Some((Instant::now(), error.clone()));
                return Err(error);
            }
            tracing::debug!("{}; asked again", missing.message);
            pause.pause(PAUSE_FIRST * 2u32.pow(tried - 1)).await;
        }
    }

    async fn attempt(&self, state: &mut State) -> Result<String, Missing> {
        let source = if let Some(source) = &state.source {
            source.clone()
        } else {
            let source = self.build().map_err(|message| Missing { message, passes: false })?;
            state.source.insert(source).clone()
        };
        let limit = match self.found {
            Found::Metadata { .. } if self.impersonation.is_none() => METADATA_TIME_MAX,
            Found::Metadata { .. } => METADATA_IMPERSONATION_TIME_MAX,
            Found::File { .. } => TOKEN_TIME_MAX,
        };
        let token = match timeout(limit, source.access_token()).await {
            Ok(Ok(token)) => token.token,
            Ok(Err(error)) => {
                let message = chain(&error);
                return Err(Missing { message, passes: error.is_transient() });
            }
            Err(_) => {
                let message = format!("no answer within {} seconds", limit.as_secs());
                return Err(Missing { message, passes: true });
            }
        };
        if is_token(&token) {
            return Ok(token);
        }
        let message = "what was given is not an access token".to_owned();
        Err(Missing { message, passes: false })
    }

    /// Forgets the token that the service did not take. Another one may have been had since.
    async fn forget(&self, refused: &str) {
        let mut state = self.state.lock().await;
        if state.given.as_deref() == Some(refused) {
            state.source = None;
        }
    }

    fn explained(&self, why: &str) -> String {
        let impersonation = self.impersonation.as_ref();
        let who = impersonation.map(|one| format!(" as {}", one.account)).unwrap_or_default();
        let place = self.place();
        match &self.found {
            Found::Metadata { host: None, looked } => format!(
                "no credentials{who}: {FILE_VARIABLE} names no file, there is no {}, and the metadata server \
                 of a machine in the cloud cannot be had ({why}); run `gcloud auth application-default login`, \
                 set {FILE_VARIABLE}, or name a token with `tokenFile`",
                looked.display()
            ),
            _ => format!("no access token{who} with {place}: {why}"),
        }
    }

    /// What keeps and renews tokens. Needs a runtime.
    fn build(&self) -> Result<AccessTokenCredentials, String> {
        let built = match (&self.found, &self.impersonation) {
            (Found::Metadata { .. }, None) => {
                mds::Builder::default().build_access_token_credentials()
            }
            (Found::Metadata { .. }, Some(wanted)) => {
                let source = mds::Builder::default().build().map_err(|error| chain(&error))?;
                chained(source, wanted)
            }
            (Found::File { json, .. }, None) => return of_file(json),
            (Found::File { json, .. }, Some(wanted))
                if kind_of(json) == "impersonated_service_account" =>
            {
                chained(of_file(json)?.into(), wanted)
            }
            (Found::File { json, .. }, Some(wanted)) => {
                impersonated::Builder::new(wrapped(json, wanted))
                    .with_scopes([SCOPE])
                    .build_access_token_credentials()
            }
        };
        built.map_err(|error| chain(&error))
    }
}

/// Acts as another service account by means of credentials.
fn chained(
    source: SourceCredentials,
    wanted: &Impersonation,
) -> Result<AccessTokenCredentials, google_cloud_auth::build_errors::Error> {
    impersonated::Builder::from_source_credentials(source)
        .with_target_principal(&wanted.account)
        .with_delegates(wanted.delegates.iter().map(|name| delegate(name)))
        .with_scopes([SCOPE])
        .build_access_token_credentials()
}

/// The same as a file would say it, which may say where as well.
fn wrapped(json: &Value, wanted: &Impersonation) -> Value {
    let endpoint = wanted.endpoint.as_deref().unwrap_or(IAM_ENDPOINT);
    let account = &wanted.account;
    let delegates: Vec<String> = wanted.delegates.iter().map(|name| delegate(name)).collect();
    json!({
        "type": "impersonated_service_account",
        "service_account_impersonation_url":
            format!("{endpoint}v1/projects/-/serviceAccounts/{account}:generateAccessToken"),
        "delegates": delegates,
        "source_credentials": json,
    })
}

/// A service account as the API wants it named.
fn delegate(name: &str) -> String {
    format!("projects/-/serviceAccounts/{name}")
}

/// The credentials that a file holds.
fn of_file(json: &Value) -> Result<AccessTokenCredentials, String> {
    let json = json.clone();
    let built = match kind_of(&json).as_str() {
        "service_account" => service_account::Builder::new(json)
            .with_access_specifier(service_account::AccessSpecifier::from_scopes([SCOPE]))
            .build_access_token_credentials(),
        "authorized_user" => user_account::Builder::new(json).build_access_token_credentials(),
        "impersonated_service_account" => {
            impersonated::Builder::new(json).with_scopes([SCOPE]).build_access_token_credentials()
        }
        "external_account" => external_account::Builder::new(json)
            .with_scopes([SCOPE])
            .build_access_token_credentials(),
        other => {
            return Err(format!(
                "credentials of the type `{other}` cannot be used; those that can: service_account, \
                 authorized_user, external_account, impersonated_service_account"
            ));
        }
    };
    built.map_err(|error| chain(&error))
}

/// What kind of credentials a file holds, in its own word.
fn kind_of(json: &Value) -> String {
    json.get("type").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Reads a file with credentials. What it holds is never part of a message.
fn read(path: &Path) -> Result<Value, String> {
    let text = std::fs::read(path).map_err(|error| {
        format!("the credentials in {} cannot be read: {error}", path.display())
    })?;
    let json: Value = serde_json::from_slice(&text).unwrap_or_default();
    if kind_of(&json).is_empty() {
        return Err(format!(
            "{} holds no credentials: it is no JSON with a `type`",
            path.display()
        ));
    }
    Ok(json)
}

/// Where `gcloud auth application-default login` writes.
fn well_known() -> PathBuf {
    let named = |name: &str| variable(name).filter(|text| !text.is_empty()).map(PathBuf::from);
    let directory = named("CLOUDSDK_CONFIG").unwrap_or_else(|| {
        if cfg!(windows) {
            named("APPDATA").unwrap_or_default().join("gcloud")
        } else {
            named("HOME").unwrap_or_default().join(".config/gcloud")
        }
    });
    directory.join(WELL_KNOWN)
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[expect(
    clippy::disallowed_methods,
    reason = "settings name the variable that holds the token, and where credentials are looked for is a convention of variables"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_shown() {
        let json =
            json!({"type": "service_account", "private_key": "SECRET", "client_email": "a@b"});
        let found = Found::File { path: "/key.json".into(), json };
        let credentials = Credentials::Default(Box::new(DefaultCredentials {
            found,
            impersonation: None,
            state: Mutex::default(),
        }));
        assert_eq!(format!("{credentials:?}"), "Credentials(/key.json (service_account))");
        assert_eq!(credentials.account().as_deref(), Some("a@b"));
    }

    #[test]
    fn impersonation_goes_where_it_is_told_to() {
        let wanted = Impersonation {
            account: "to@p.iam.gserviceaccount.com".to_owned(),
            delegates: vec!["by@p.iam.gserviceaccount.com".to_owned()],
            endpoint: None,
        };
        let json = wrapped(&json!({"type": "authorized_user"}), &wanted);
        assert_eq!(
            json["service_account_impersonation_url"],
            "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/to@p.iam.gserviceaccount.com:generateAccessToken"
        );
        assert_eq!(
            json["delegates"],
            json!(["projects/-/serviceAccounts/by@p.iam.gserviceaccount.com"])
        );
    }
}
