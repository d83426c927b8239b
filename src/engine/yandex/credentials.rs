//! IAM tokens: where they come from, and how they are renewed.
//!
//! A token is in a file or a variable that the settings name, or it is had: for the authorised key of a
//! service account from IAM, which is shown a JWT (PS256) that the key has signed, or from the metadata
//! service of the machine. No token and no key is ever part of a message or of what `Debug` shows.

use std::fmt;
use std::path::{Path, PathBuf};

use data_encoding::BASE64URL_NOPAD;
use jiff::{SignedDuration, Timestamp};
use reqwest::header::{HeaderMap, HeaderValue};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PSS_SHA256, RsaKeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;

use super::call::{CallError, Repeats};
use super::wire::{IamToken, MetadataToken};
use crate::engine::http::{Call, Http, Pause, Place, SecretSource};

/// Whom a JWT is for, unless the cloud is another one.
const AUDIENCE: &str = "https://iam.api.cloud.yandex.net/iam/v1/tokens";
/// How long a JWT is good for, which is as long as may be.
const JWT_TIME: SignedDuration = SignedDuration::from_hours(1);
/// A token that ends sooner is renewed. It is good for twelve hours at most.
const RENEWED_BEFORE: SignedDuration = SignedDuration::from_mins(10);
/// Where none was to be had, another one is asked for after that.
const ASKED_AGAIN_AFTER: SignedDuration = SignedDuration::from_mins(1);
/// Where the metadata service is, and what says that it is elsewhere.
const METADATA_HOST: &str = "169.254.169.254";
const METADATA_VARIABLE: &str = "YC_METADATA_ADDR";

/// Where the token comes from.
pub enum Credentials {
    /// No token is sent.
    None,
    /// A file or a variable.
    Secret(SecretSource),
    /// The authorised key of a service account.
    Key(Box<Key>),
    /// The metadata service of the machine.
    Machine {
        /// Where it is.
        place: Place,
    },
}

/// The authorised key of a service account.
pub struct Key {
    path: PathBuf,
    id: String,
    account: String,
    pair: RsaKeyPair,
}

/// The file with it, as it is written when the key is made.
#[derive(Deserialize)]
struct KeyFile {
    id: String,
    service_account_id: String,
    private_key: String,
}

impl Credentials {
    /// Reads an authorised key.
    pub fn of_key(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read the key in {}: {error}", path.display()))?;
        let wrong = |why: &str| {
            format!(
                "{} is no authorised key: {why}; write one with `yc iam key create --service-account-name NAME --output FILE`",
                path.display()
            )
        };
        // What serde says of a key could show a part of it.
        let file: KeyFile = serde_json::from_str(&text)
            .map_err(|_| wrong("it has no `id`, `service_account_id` and `private_key`"))?;
        // A line of warning may stand before the key.
        let der = PrivateKeyDer::from_pem_slice(file.private_key.as_bytes())
            .map_err(|_| wrong("its `private_key` is not PEM"))?;
        let pair = match &der {
            PrivateKeyDer::Pkcs8(key) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()),
            _ => return Err(wrong("its `private_key` is not RSA")),
        };
        let pair = pair.map_err(|error| wrong(&format!("its `private_key`: {error}")))?;
        Ok(Self::Key(Box::new(Key {
            path: path.to_owned(),
            id: file.id,
            account: file.service_account_id,
            pair,
        })))
    }

    /// The metadata service of this machine.
    #[expect(clippy::disallowed_methods, reason = "the cloud's own tools look there as well")]
    pub fn of_machine() -> Result<Self, String> {
        let host = std::env::var(METADATA_VARIABLE).ok().filter(|host| !host.is_empty());
        let host = host.unwrap_or_else(|| METADATA_HOST.to_owned());
        let url = format!("http://{host}/").parse();
        let url = url.map_err(|_| format!("{METADATA_VARIABLE} names no host: {host}"))?;
        // It is asked without TLS, because it is on the same host.
        Ok(Self::Machine { place: Place { url, is_loopback: true } })
    }

    /// Where it comes from, for people.
    pub fn place(&self) -> String {
        match self {
            Self::None => "no credentials: the endpoint is on this machine".to_owned(),
            Self::Secret(source) => source.to_string(),
            Self::Key(key) => format!("{} (an authorised key)", key.path.display()),
            Self::Machine { place } => {
                format!("the metadata service at {}", place.url.host_str().unwrap_or_default())
            }
        }
    }

    /// Whose rights a token has, as far as that can be known without asking.
    pub fn account(&self) -> Option<&str> {
        match self {
            Self::Key(key) => Some(&key.account),
            _ => None,
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Credentials({})", self.place())
    }
}

impl Key {
    /// What IAM is shown for a token.
    fn jwt(&self, audience: &str, now: Timestamp) -> Result<String, String> {
        let issued = now.as_second();
        let header = json!({"typ": "JWT", "alg": "PS256", "kid": self.id});
        let claims = json!({
            "iss": self.account, "aud": audience, "iat": issued, "exp": issued + JWT_TIME.as_secs(),
        });
        let encode = |part: &serde_json::Value| BASE64URL_NOPAD.encode(part.to_string().as_bytes());
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let mut signature = vec![0; self.pair.public().modulus_len()];
        self.pair
            .sign(&RSA_PSS_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .map_err(|_| format!("the key in {} signs nothing", self.path.display()))?;
        Ok(format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature)))
    }
}

/// A token that was had.
#[derive(Clone)]
struct Had {
    token: String,
    until: Timestamp,
    /// No other one is asked for before: the last time none was to be had.
    kept_until: Option<Timestamp>,
}

impl Had {
    /// Whether it is sent as it is.
    fn is_fresh(&self, now: Timestamp) -> bool {
        let renewed_at = self.until.saturating_sub(RENEWED_BEFORE).unwrap_or(Timestamp::MIN);
        now < renewed_at || self.kept_until.is_some_and(|kept| now < kept.min(self.until))
    }
}

/// Has tokens, and keeps each as long as it is good.
pub struct Tokens {
    pub(super) credentials: Credentials,
    /// One asks at a time; the others have the answer then.
    had: Mutex<Option<Had>>,
}

impl Tokens {
    /// Of these credentials. Nothing is asked yet.
    pub fn of(credentials: Credentials) -> Self {
        Self { credentials, had: Mutex::default() }
    }

    /// The token as it is now; `iam` is the way to where tokens are had.
    pub async fn token(&self, iam: &Http, pause: &dyn Pause) -> Result<Option<String>, CallError> {
        if let Credentials::None = self.credentials {
            return Ok(None);
        }
        if let Credentials::Secret(source) = &self.credentials {
            return source.read("IAM token").map(Some).map_err(CallError::Token);
        }
        let mut had = self.had.lock().await;
        if let Some(known) = had.as_ref().filter(|known| known.is_fresh(iam.now())) {
            return Ok(Some(known.token.clone()));
        }
        let new = match self.ask(iam, pause).await {
            Ok(new) => new,
            Err(error) => {
                let why = format!("no IAM token by {}: {error}", self.credentials.place());
                let now = iam.now();
                // The one before is good for some minutes more, and IAM may be back by then.
                let Some(known) = had.as_mut().filter(|known| now < known.until) else {
                    return Err(CallError::Token(why));
                };
                tracing::warn!("{why}; the one before is good until {}", known.until);
                known.kept_until = now.saturating_add(ASKED_AGAIN_AFTER).ok();
                return Ok(Some(known.token.clone()));
            }
        };
        let token = new.token.clone();
        *had = Some(new);
        Ok(Some(token))
    }

    /// A token in place of one that the service did not take; `None` where there is no other.
    pub async fn renewed(&self, refused: &str, iam: &Http, pause: &dyn Pause) -> Option<String> {
        {
            let mut had = self.had.lock().await;
            // Another one may have been had since.
            if had.as_ref().is_some_and(|had| had.token == refused) {
                *had = None;
            }
        }
        let token = self.token(iam, pause).await.ok().flatten()?;
        (token != refused).then_some(token)
    }

    async fn ask(&self, iam: &Http, pause: &dyn Pause) -> Result<Had, CallError> {
        let mut headers = HeaderMap::new();
        let (way, call) = match &self.credentials {
            Credentials::Key(key) => {
                let audience = audience(iam);
                let jwt = key.jwt(&audience, iam.now()).map_err(CallError::Token)?;
                let call = Call::post("iam/v1/tokens").with_body(&json!({"jwt": jwt}))?;
                (iam.clone(), call)
            }
            Credentials::Machine { place } => {
                headers.insert("Metadata-Flavor", HeaderValue::from_static("Google"));
                let path = "computeMetadata/v1/instance/service-accounts/default/token";
                (iam.to_place(place), Call::get(path))
            }
            Credentials::None | Credentials::Secret(_) => {
                return Err(CallError::Token("there is nothing to have a token for".to_owned()));
            }
        };
        let mut repeats = Repeats::default();
        let body = loop {
            let error = match way.attempt(&call, &headers).await {
                Ok(answer) if answer.is_success() => break answer.body,
                Ok(answer) => CallError::from_answer(&answer),
                Err(error) => error.into(),
            };
            // A token more does no harm.
            match repeats.pause(true, &error) {
                Some(time) => pause.pause(time).await,
                None => return Err(error),
            }
        };
        read(&body, iam.now())
    }
}

/// Whom a JWT is for: IAM where it is the cloud's own or an unnamed one on this machine.
fn audience(iam: &Http) -> String {
    let host = iam.endpoint().host_str().unwrap_or_default();
    if host.ends_with(".yandex.net") || host.ends_with(".yandexcloud.net") {
        return AUDIENCE.to_owned();
    }
    format!("{}iam/v1/tokens", iam.endpoint())
}

fn read(body: &[u8], now: Timestamp) -> Result<Had, CallError> {
    let none = || CallError::Token("what was given is no IAM token".to_owned());
    let is_token = |token: &str| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
    if let Ok(IamToken { iam_token: token, expires_at }) = serde_json::from_slice(body)
        && is_token(&token)
    {
        let until = expires_at.parse().map_err(|_| none())?;
        return Ok(Had { token, until, kept_until: None });
    }
    let MetadataToken { access_token: token, expires_in } =
        serde_json::from_slice(body).map_err(|_| none())?;
    if !is_token(&token) {
        return Err(none());
    }
    let until = now.saturating_add(SignedDuration::from_secs(i64::from(expires_in)));
    Ok(Had { token, until: until.map_err(|_| none())?, kept_until: None })
}

#[cfg(test)]
mod tests {
    use ring::signature::{RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};

    use super::*;

    #[test]
    fn a_jwt_is_signed_as_iam_reads_it() {
        let pem = include_str!("../../../tests/data/gce/key-for-tests.pem");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.json");
        let warning = "PLEASE DO NOT REMOVE THIS LINE! Yandex.Cloud SA Key ID <k1>\n";
        let file = json!({
            "id": "k1", "service_account_id": "a1", "key_algorithm": "RSA_2048",
            "private_key": format!("{warning}{pem}"),
        });
        std::fs::write(&path, file.to_string()).unwrap();
        let Credentials::Key(key) = Credentials::of_key(&path).unwrap() else {
            panic!("it is a key")
        };
        let now = "2026-11-21T12:00:00Z".parse().unwrap();
        let jwt = key.jwt(AUDIENCE, now).unwrap();
        let parts: Vec<&str> = jwt.split('.').collect();
        let part = |index: usize| BASE64URL_NOPAD.decode(parts[index].as_bytes()).unwrap();
        let read =
            |index: usize| serde_json::from_slice::<serde_json::Value>(&part(index)).unwrap();
        assert_eq!(read(0), json!({"typ": "JWT", "alg": "PS256", "kid": "k1"}));
        let issued = 1_795_262_400;
        assert_eq!(
            read(1),
            json!({"iss": "a1", "aud": AUDIENCE, "iat": issued, "exp": issued + 3600})
        );
        let public = UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, key.pair.public().as_ref());
        let signed = format!("{}.{}", parts[0], parts[1]);
        public.verify(signed.as_bytes(), &part(2)).unwrap();
        assert!(public.verify(b"something else", &part(2)).is_err());
        assert!(!format!("{:?}", Credentials::Key(key)).contains("PRIVATE"));
    }

    #[test]
    fn what_is_no_key_is_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.json");
        for text in [
            "{",
            r#"{"id": "k", "service_account_id": "a", "private_key": "secret-word"}"#,
            r#"{"private_key": {"secret-word": 1}}"#,
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Credentials::of_key(&path).unwrap_err();
            assert!(
                error.contains("yc iam key create") && !error.contains("secret-word"),
                "{error}"
            );
        }
    }

    #[test]
    fn tokens_are_read_as_either_place_gives_them() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let of_iam = read(br#"{"iamToken": "t1.a", "expiresAt": "2026-11-22T00:00:00.5Z"}"#, now);
        assert_eq!(of_iam.unwrap().token, "t1.a");
        let of_machine =
            read(br#"{"access_token": "t1.b", "expires_in": 60, "token_type": "Bearer"}"#, now);
        assert_eq!(of_machine.unwrap().until, now + SignedDuration::from_mins(1));
        for wrong in ["{}", "<html>", r#"{"iamToken": "a b"}"#, r#"{"iamToken": "a"}"#] {
            assert!(read(wrong.as_bytes(), now).is_err(), "{wrong}");
        }
    }
}
