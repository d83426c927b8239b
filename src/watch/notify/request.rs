//! Requests as values: what is sent over HTTP, without sending it.

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};

use super::courier::{Secrets, SendError, Signal};
use crate::alert::{Notification, Template, matrix, slack, teams};
use crate::policy::meant::{BodyFormat, Hook, Matrix, Ping, Way, Webhook, check_url, is_loopback};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// A request. It holds secrets and is shown nowhere.
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
    /// What must not be quoted.
    secrets: Vec<String>,
}

impl Request {
    /// Whether it goes to this machine.
    pub(super) fn is_loopback(&self) -> bool {
        let host = self.url.host_str().unwrap_or_default();
        is_loopback(host.trim_start_matches('[').trim_end_matches(']'))
    }

    /// What was answered, without what was sent as a secret.
    pub(super) fn masked(&self, answer: &str) -> String {
        let secrets = self.secrets.iter().filter(|secret| secret.len() >= 4);
        secrets.fold(answer.to_owned(), |answer, secret| answer.replace(secret.as_str(), "…"))
    }
}

/// The request that brings a message to a receiver.
pub(super) fn request(
    way: &Way,
    message: &Notification,
    secrets: &Secrets,
) -> Result<Request, SendError> {
    let post = |hook: &Hook, body: serde_json::Value| {
        let mut request = to(hook, secrets)?;
        request.headers.insert(CONTENT_TYPE, JSON);
        request.body = body.to_string();
        Ok(request)
    };
    match way {
        Way::Slack(hook) => post(hook, slack(message)),
        Way::Teams(hook) => post(hook, teams(message)),
        Way::Matrix(room) => in_room(room, message, secrets),
        Way::Webhook(webhook) => by_webhook(webhook, message, secrets),
        Way::Email(_) | Way::Exec(_) => Err(SendError::lasting("this is no request over HTTP")),
    }
}

fn to(hook: &Hook, secrets: &Secrets) -> Result<Request, SendError> {
    let text = secrets.read(&hook.url, "URL")?;
    let unusable = |reason: &str| SendError::lasting(format!("the URL cannot be used: {reason}"));
    check_url(&text, hook.plain_http).map_err(unusable)?;
    let url = Url::parse(&text).map_err(|_| unusable("it is not a URL"))?;
    // The same question to what is asked in the end: two readings of a URL may differ.
    check_url(url.as_str(), hook.plain_http).map_err(unusable)?;
    let hidden = url.path_segments().into_iter().flatten().map(str::to_owned);
    let hidden = hidden.chain(url.query().map(str::to_owned)).chain([text]).collect();
    Ok(Request {
        method: Method::POST,
        url,
        headers: HeaderMap::new(),
        body: String::new(),
        secrets: hidden,
    })
}

fn by_webhook(
    webhook: &Webhook,
    message: &Notification,
    secrets: &Secrets,
) -> Result<Request, SendError> {
    let mut request = to(&webhook.hook, secrets)?;
    let is_json = webhook.format == BodyFormat::Json;
    request.headers.insert(CONTENT_TYPE, if is_json { JSON } else { TEXT });
    for (name, header) in &webhook.headers {
        let value = secrets.read(&header.value, "value of a header")?;
        request.headers.insert(
            HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| SendError::lasting("a header has no name"))?,
            sensitive(&format!("{}{value}", header.prefix))?,
        );
        request.secrets.push(value);
    }
    request.body = match &webhook.body {
        None => {
            serde_json::to_string(message).map_err(|error| SendError::lasting(error.to_string()))?
        }
        Some(body) => Template::new(body, webhook.format)
            .and_then(|template| template.render(message))
            .map_err(|error| SendError::lasting(error.message))?,
    };
    Ok(request)
}

/// Source: spec.matrix.org, client-server API, `PUT /rooms/{roomId}/send/{eventType}/{txnId}`. The
/// same transaction id makes one message, however often it is sent.
fn in_room(room: &Matrix, message: &Notification, secrets: &Secrets) -> Result<Request, SendError> {
    let mut request = to(&room.homeserver, secrets)?;
    let token = secrets.read(&room.token, "access token")?;
    request.method = Method::PUT;
    request
        .url
        .path_segments_mut()
        .map_err(|()| SendError::lasting("the URL of the homeserver has no path"))?
        .pop_if_empty()
        .extend(["_matrix", "client", "v3", "rooms", &room.room, "send", "m.room.message"])
        .push(&message.id);
    request.headers.insert(CONTENT_TYPE, JSON);
    request.headers.insert(AUTHORIZATION, sensitive(&format!("Bearer {token}"))?);
    // What is said of the room and the message is no secret.
    request.secrets = vec![token];
    request.body = matrix(message).to_string();
    Ok(request)
}

/// The request of a ping.
/// Source: `healthchecks.io/docs/http_api`: `/start`, `/fail`, `rid`.
pub(super) fn ping_request(
    ping: &Ping,
    signal: Signal,
    round: &str,
    secrets: &Secrets,
) -> Result<Request, SendError> {
    let mut request = to(&ping.hook, secrets)?;
    let suffix = match signal {
        Signal::Start => Some("start"),
        Signal::Success => None,
        Signal::Fail => Some("fail"),
    };
    if let Some(suffix) = suffix {
        request
            .url
            .path_segments_mut()
            .map_err(|()| SendError::lasting("the URL has no path"))?
            .pop_if_empty()
            .push(suffix);
    }
    request.url.query_pairs_mut().append_pair("rid", round);
    Ok(request)
}

fn sensitive(text: &str) -> Result<HeaderValue, SendError> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| SendError::lasting("a value does not fit into a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use jiff::Timestamp;

    use super::*;
    use crate::alert::test_message;
    use crate::policy::meant::Secret;
    use crate::watch::notify::courier::Secrets;

    fn secrets() -> Secrets {
        Secrets::of(Path::new("/nowhere"), |name| {
            (name == "TOKEN").then(|| " s3cret-token\n".to_owned())
        })
    }

    fn hook(url: &str) -> Hook {
        Hook { url: Secret::Written(url.to_owned()), plain_http: false }
    }

    fn message() -> Notification {
        test_message("here", str::to_owned, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_room_gets_each_message_once_and_its_id_is_no_path() {
        let room = Matrix {
            homeserver: hook("https://matrix.example.org/base/"),
            room: "!a/b?c:example.org".to_owned(),
            token: Secret::Variable("TOKEN".to_owned()),
        };
        let message = message();
        let request = request(&Way::Matrix(room), &message, &secrets()).ok().unwrap();
        assert_eq!(
            request.url.as_str(),
            format!(
                "https://matrix.example.org/base/_matrix/client/v3/rooms/!a%2Fb%3Fc:example.org/send/\
                 m.room.message/{}",
                message.id
            )
        );
        assert_eq!(request.method, Method::PUT);
        assert_eq!(request.headers[AUTHORIZATION], "Bearer s3cret-token");
        assert_eq!(request.masked("no such s3cret-token"), "no such …");
    }

    #[test]
    fn pings_say_how_it_went_behind_the_path() {
        let url = |given: &str, signal| {
            let ping = Ping { hook: hook(given), engines: [].into() };
            ping_request(&ping, signal, "1-2", &secrets()).ok().unwrap().url.to_string()
        };
        assert_eq!(
            url("https://hc.example/uuid", Signal::Success),
            "https://hc.example/uuid?rid=1-2"
        );
        assert_eq!(
            url("https://hc.example/uuid/", Signal::Start),
            "https://hc.example/uuid/start?rid=1-2"
        );
        assert_eq!(
            url("https://hc.example/uuid?create=1", Signal::Fail),
            "https://hc.example/uuid/fail?create=1&rid=1-2"
        );
    }

    #[test]
    fn what_a_variable_holds_is_held_to_the_same_rules() {
        let url = Secret::Variable("TOKEN".to_owned());
        let said = request(&Way::Slack(Hook { url, plain_http: false }), &message(), &secrets());
        assert_eq!(said.err().unwrap().message, "the URL cannot be used: it is not a URL");
        let url = Secret::Variable("NOTHING".to_owned());
        let said = request(&Way::Slack(Hook { url, plain_http: false }), &message(), &secrets());
        assert_eq!(said.err().unwrap().message, "the variable NOTHING with the URL is not set");
        let said = request(&Way::Slack(hook("http://hooks.example.org/x")), &message(), &secrets());
        assert!(said.err().unwrap().message.contains("plainHttp"));
    }
}
