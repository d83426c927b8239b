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
use super::told::{MESSAGE_LENGTH_MAX, chain, without_secrets};
use crate::engine::http::{Pause, SecretSource};

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
/// The type of credentials that act as another service account.
const IMPERSONATED: &str = "impersonated_service_account";
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
    /// A token that the settings name.
    Named(SecretSource),
    /// Application Default Credentials.
    Default(Box<DefaultCredentials>),
}

impl Credentials {
    /// The token as it is now.
    pub async fn token(&self, pause: &dyn Pause) -> Result<Option<String>, CallError> {
        match self {
            Self::None => Ok(None),
            Self::Default(credentials) => credentials.token(pause).await.map(Some),
            Self::Named(source) => source.read("access token").map(Some).map_err(CallError::Token),
        }
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
            Self::Named(source) => source.to_string(),
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
        let json = match &found {
            Found::File { json, .. } => Some(json),
            Found::Metadata { .. } => None,
        };
        refuse_endpoint(json, impersonation.as_ref())?;
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
        let mut is_kept = state.source.is_some();
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
            // What has failed may have stopped to renew; the next attempt begins anew. It may be of a
            // key that another one has taken the place of since: that is tried at once.
            let was_kept = std::mem::take(&mut is_kept);
            state.source = None;
            if !(missing.passes || was_kept) || tried >= attempts {
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
        let message = "what was given is no access token".to_owned();
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
        // The file as it is now: keys are rotated.
        let now = match &self.found {
            Found::File { path, .. } => Some(read(path)?),
            Found::Metadata { .. } => None,
        };
        refuse_endpoint(now.as_ref(), self.impersonation.as_ref())?;
        let built = match (&now, &self.impersonation) {
            (None, None) => mds::Builder::default().build_access_token_credentials(),
            (None, Some(wanted)) => {
                let source = mds::Builder::default().build().map_err(|error| chain(&error))?;
                chained(source, wanted)
            }
            (Some(json), None) => return of_file(json),
            (Some(json), Some(wanted)) if kind_of(json) == IMPERSONATED => {
                chained(of_file(json)?.into(), wanted)
            }
            (Some(json), Some(wanted)) => impersonated::Builder::new(wrapped(json, wanted))
                .with_scopes([SCOPE])
                .build_access_token_credentials(),
        };
        built.map_err(|error| chain(&error))
    }
}

/// Refuses a place of tokens that nothing would be asked at: only with credentials of a file that
/// impersonate nobody themselves does that place get into what is asked.
fn refuse_endpoint(
    json: Option<&Value>,
    impersonation: Option<&Impersonation>,
) -> Result<(), String> {
    let Some(endpoint) = impersonation.and_then(|one| one.endpoint.as_ref()) else {
        return Ok(());
    };
    match json {
        None => Err(format!(
            "`credentialsEndpoint: {endpoint}` goes with a credentials file only, and there is none"
        )),
        Some(json) if kind_of(json) == IMPERSONATED => Err(format!(
            "`credentialsEndpoint: {endpoint}` does not go with a credentials file of the type `{IMPERSONATED}`, \
             which says itself where tokens are had: leave it out, or name the file that is under its \
             `source_credentials` and put its service account into `delegates`"
        )),
        Some(_) => Ok(()),
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
        "type": IMPERSONATED,
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
        IMPERSONATED => {
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

    #[tokio::test]
    async fn a_key_that_was_replaced_is_read_anew() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.json");
        let pem = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/gce/key-for-tests.pem");
        let pem = std::fs::read_to_string(pem).unwrap();
        let write = |id: &str| {
            let json = json!({"type": "service_account", "project_id": "p", "private_key_id": id,
                "private_key": pem, "client_email": "a@p.iam.gserviceaccount.com",
                "token_uri": "http://127.0.0.1:1/never"});
            std::fs::write(&path, json.to_string()).unwrap();
            json
        };
        let id = |token: &str| -> String {
            let head = token.split('.').next().unwrap();
            let head = data_encoding::BASE64URL_NOPAD.decode(head.as_bytes()).unwrap();
            let head: Value = serde_json::from_slice(&head).unwrap();
            head["kid"].as_str().unwrap().to_owned()
        };
        let found = Found::File { path: path.clone(), json: write("first") };
        let credentials = Credentials::Default(Box::new(DefaultCredentials {
            found,
            impersonation: None,
            state: Mutex::default(),
        }));
        let pause = crate::engine::http::RealTime;
        let first = credentials.token(&pause).await.unwrap().unwrap();
        assert_eq!(id(&first), "first");
        write("second");
        let kept = credentials.token(&pause).await.unwrap().unwrap();
        assert_eq!(id(&kept), "first", "as long as the service takes it");
        let second = credentials.renewed(&first, &pause).await.unwrap();
        assert_eq!(id(&second), "second");
    }

    #[test]
    fn a_place_of_tokens_that_would_not_be_asked_is_refused() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.json");
        let user = json!({"type": "authorized_user", "client_id": "c", "client_secret": "s",
            "refresh_token": "r"});
        let by = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/by@p.iam.gserviceaccount.com:generateAccessToken";
        let chain = json!({"type": IMPERSONATED, "service_account_impersonation_url": by,
            "source_credentials": user});
        let built = |held: &Value, endpoint: Option<&str>| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let _inside = runtime.enter();
            std::fs::write(&path, held.to_string()).unwrap();
            let credentials = DefaultCredentials {
                // What was there when it was looked for may have been replaced since.
                found: Found::File { path: path.clone(), json: user.clone() },
                impersonation: Some(Impersonation {
                    account: "to@p.iam.gserviceaccount.com".to_owned(),
                    delegates: Vec::new(),
                    endpoint: endpoint.map(str::to_owned),
                }),
                state: Mutex::default(),
            };
            credentials.build().map(|_| ())
        };
        let elsewhere = Some("https://tokens.example.com/");
        assert_eq!(built(&user, elsewhere), Ok(()));
        assert_eq!(built(&chain, None), Ok(()));
        let refused = built(&chain, elsewhere).unwrap_err();
        assert!(
            refused
                .starts_with("`credentialsEndpoint: https://tokens.example.com/` does not go with")
                && refused.contains("put its service account into `delegates`"),
            "{refused}"
        );
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
