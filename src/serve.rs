//! Serves the API of a cloud over an embedded engine.
//!
//! This room carries requests between HTTP and a [`Service`]; what a request means is the affair of
//! the service, one folder per API. It listens on loopback addresses, on any other one only with a
//! token and TLS, and answers no web page: whoever reaches it may delete images.

pub mod access;
pub mod fault;
pub mod gce;
mod jobs;
pub mod shelf;
mod stock;
pub mod twcc;
pub mod yandex;

use std::fs::{self, File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Response};
use clap::ValueEnum;
use http_body_util::{BodyExt, Full};
use percent_encoding::percent_decode_str;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use access::{Access, AccessError, TlsListener, Token};

use crate::clock::Clock;
use crate::connections::{Limited, Limits, Line, answering};
use crate::engine::local::LocalEngine;

/// The longest body that is read, in bytes.
const BODY_BYTES_MAX: usize = 8 << 20;

/// What connections may take: clients come back to theirs after minutes.
const LIMITS: Limits =
    Limits { connections: 256, request: Duration::from_secs(30), idle: Duration::from_mins(10) };

/// How long connections may stay open when what is under way has ended.
const LAST_WORD: Duration = Duration::from_secs(2);

/// Whose API is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dialect {
    /// The Compute Engine API
    Gce,
    /// The VCS API of TWCC
    Twcc,
    /// The API of Yandex Cloud
    Yandex,
}

/// Why the server does not begin, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address can be reached from elsewhere.
    #[error(
        "{0} can be reached from other machines, and whoever reaches the server may delete images: \
         that needs a token and TLS files (--token-file, --tls-cert, --tls-key); \
         or listen on 127.0.0.1 or [::1]"
    )]
    NotLoopback(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// Token or TLS files.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// What the server remembers cannot be read.
    #[error("{0}")]
    State(String),
    /// It ended.
    #[error("the server stopped: {0}")]
    Stopped(io::Error),
}

/// A request, as far as HTTP is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The method, in upper case.
    pub method: String,
    /// The path, as it was sent.
    pub path: String,
    /// The query, as it was sent.
    pub query: String,
    /// What kind of body it has.
    pub content_type: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl Call {
    /// What a header says; empty where it is missing or no text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The parts of the path, decoded.
    pub fn segments(&self) -> Vec<String> {
        let segments = self.path.split('/').filter(|segment| !segment.is_empty());
        segments.map(|one| percent_decode_str(one).decode_utf8_lossy().into_owned()).collect()
    }

    /// The names and values of the query, decoded, in order.
    pub fn pairs(&self) -> Vec<(String, String)> {
        let decode = |text: &str| {
            percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
        };
        let pairs = self.query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.map(|(key, value)| (decode(key), decode(value))).collect()
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The status of HTTP.
    pub status: u16,
    /// What is said beside it, by the names of headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub content: Content,
}

impl Reply {
    /// An answer with nothing beside it.
    pub fn new(status: u16, content: Content) -> Self {
        Self { status, headers: Vec::new(), content }
    }
}

/// The body of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// There is none.
    None,
    /// JSON.
    Json(Value),
    /// Bytes, with what is said behind them, by the names of headers.
    Bytes {
        /// The kind of the body, as HTTP names it.
        kind: String,
        /// The body.
        bytes: Vec<u8>,
        /// What is said behind it.
        trailers: Vec<(&'static str, String)>,
    },
    /// Something else.
    Text {
        /// The kind of the body, as HTTP names it.
        kind: String,
        /// The body.
        text: String,
    },
}

/// What answers requests.
#[async_trait]
pub trait Service: Send + Sync {
    /// Answers a request.
    async fn answer(&self, call: Call) -> Reply;

    /// What somebody is told who does not bring the token.
    fn unauthenticated(&self, call: &Call) -> Reply;

    /// The token that a request brings.
    fn token_of<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        access::bearer(headers.get(header::AUTHORIZATION)?.to_str().ok()?)
    }

    /// Is told that others than this machine can speak to it.
    fn reached_from_elsewhere(&self) {}

    /// Waits until nothing is under way.
    async fn settle(&self);

    /// Ends what is under way, so that it leaves nothing half done, and waits for that.
    async fn stop(&self);
}

/// Opens the service of a dialect over an embedded engine, which is served as a project. With
/// `faults`, clients may ask it to go wrong.
pub fn open(
    dialect: Dialect,
    engine: LocalEngine,
    project: &str,
    clock: Arc<dyn Clock>,
    faults: bool,
) -> Result<Arc<dyn Service>, ServeError> {
    match dialect {
        Dialect::Gce => Ok(Arc::new(gce::ComputeEngine::open(engine, project, clock, faults)?)),
        Dialect::Twcc => Ok(Arc::new(twcc::Vcs::open(engine, project, clock, faults)?)),
        Dialect::Yandex => Ok(Arc::new(yandex::Folder::open(engine, project, clock, faults)?)),
    }
}

/// Holds the directory of what a server remembers, as long as the file is kept: it has one writer.
fn alone_in(directory: &Path) -> Result<File, ServeError> {
    let failed = |error: &dyn std::fmt::Display| {
        ServeError::State(format!("cannot use {}: {error}", directory.display()))
    };
    fs::create_dir_all(directory).map_err(|error| failed(&error))?;
    let alone = File::create(directory.join("lock")).map_err(|error| failed(&error))?;
    match alone.try_lock() {
        Ok(()) => Ok(alone),
        Err(TryLockError::WouldBlock) => {
            Err(failed(&"another server is at work over the same engine"))
        }
        Err(TryLockError::Error(error)) => Err(failed(&error)),
    }
}

/// Where the server listens, and to whom.
pub struct Door {
    listener: TcpListener,
    access: Access,
}

impl Door {
    /// Where it is.
    pub fn address(&self) -> Result<SocketAddr, ServeError> {
        self.listener.local_addr().map_err(ServeError::Stopped)
    }

    /// How clients write that.
    pub fn scheme(&self) -> &'static str {
        if self.access.tls.is_some() { "https" } else { "http" }
    }
}

/// Listens on a loopback address; on any other one only with a token and TLS.
pub async fn listen(address: SocketAddr, access: Access) -> Result<Door, ServeError> {
    let is_guarded = access.token.is_some() && access.tls.is_some();
    if !address.ip().is_loopback() && !is_guarded {
        return Err(ServeError::NotLoopback(address));
    }
    let bound = TcpListener::bind(address).await;
    let listener = bound.map_err(|error| ServeError::Listen(address, error))?;
    Ok(Door { listener, access })
}

/// What each request is answered by.
#[derive(Clone)]
struct Desk {
    service: Arc<dyn Service>,
    token: Option<Token>,
}

/// Answers until told to stop, then ends what is under way.
pub async fn serve(
    door: Door,
    service: Arc<dyn Service>,
    stop: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    if !door.address()?.ip().is_loopback() {
        service.reached_from_elsewhere();
    }
    let Door { listener, access: Access { token, tls } } = door;
    let desk = Desk { service: Arc::clone(&service), token };
    let router = Router::new().fallback(handle).with_state(desk);
    let router = router.into_make_service_with_connect_info::<Line>();
    let listener = Limited::new(listener, LIMITS);
    let mut asked = stop.clone();
    let ending = Arc::clone(&service);
    let (all_ended, has_ended) = oneshot::channel();
    let told = async move {
        // A sender that is gone tells to stop as well.
        let _ = asked.wait_for(|stop| *stop).await;
        ending.stop().await;
        let _ = all_ended.send(());
    };
    let serving = async move {
        match tls {
            Some(config) => {
                let listener = TlsListener::new(listener, config)?;
                axum::serve(listener, router).with_graceful_shutdown(told).await
            }
            None => axum::serve(listener, router).with_graceful_shutdown(told).await,
        }
    };
    // Clients may keep connections open for as long as they like.
    let overdue = async move {
        let _ = has_ended.await;
        tokio::time::sleep(LAST_WORD).await;
    };
    tokio::select! {
        ended = serving => ended.map_err(ServeError::Stopped),
        () = overdue => Ok(()),
    }
}

async fn handle(State(desk): State<Desk>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    // HTTP/2 has the host in the address.
    if let (false, Some(host)) = (parts.headers.contains_key(header::HOST), parts.uri.authority())
        && let Ok(host) = HeaderValue::from_str(host.as_str())
    {
        parts.headers.insert(header::HOST, host);
    }
    if let Some(refusal) = refuse_web_page(&parts.headers, desk.token.is_some()) {
        return (StatusCode::FORBIDDEN, refusal).into_response();
    }
    let mut call = Call {
        method: parts.method.as_str().to_owned(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        content_type: String::new(),
        headers: parts.headers,
        body: Vec::new(),
    };
    call.content_type = call.header(header::CONTENT_TYPE.as_str()).to_owned();
    if let Some(token) = &desk.token
        && !desk.service.token_of(&call.headers).is_some_and(|sent| token.is(sent))
    {
        let asked = [(header::WWW_AUTHENTICATE, "Bearer")];
        return (asked, respond(desk.service.unauthenticated(&call))).into_response();
    }
    let Ok(body) = to_bytes(body, BODY_BYTES_MAX).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    call.body = body.to_vec();
    // Until here it had a limited time.
    let _answering = answering(&parts.extensions);
    override_method(&mut call);
    respond(desk.service.answer(call).await)
}

fn respond(reply: Reply) -> Response {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = AppendHeaders(reply.headers);
    let (kind, body) = match reply.content {
        Content::None => return (status, headers).into_response(),
        Content::Json(body) => {
            ("application/json; charset=UTF-8".to_owned(), Body::from(body.to_string()))
        }
        Content::Text { kind, text } => (kind, Body::from(text)),
        Content::Bytes { kind, bytes, trailers } => (kind, with_trailers(bytes, &trailers)),
    };
    (status, headers, [(header::CONTENT_TYPE, kind)], body).into_response()
}

/// A body with something behind it.
fn with_trailers(bytes: Vec<u8>, trailers: &[(&'static str, String)]) -> Body {
    let mut map = HeaderMap::new();
    for (name, value) in trailers {
        if let Ok(value) = HeaderValue::from_str(value) {
            map.insert(*name, value);
        }
    }
    let behind = async move { Some(Ok(map)) };
    Body::new(Full::new(Bytes::from(bytes)).with_trailers(behind))
}

/// A request that is too long for its address comes as a POST with the query in the body.
fn override_method(call: &mut Call) {
    let method = call.header("x-http-method-override").to_ascii_uppercase();
    if call.method != "POST" || method.is_empty() {
        return;
    }
    call.method = method;
    if call.content_type.starts_with("application/x-www-form-urlencoded") {
        call.query = String::from_utf8_lossy(&call.body).into_owned();
        call.body.clear();
    }
}

/// Programs send no `Origin` and name a loopback host; web pages in the browser of this machine,
/// which reach loopback addresses as well, do otherwise. A page does not know the token, so where
/// there is one the host may be any.
fn refuse_web_page(headers: &HeaderMap, has_token: bool) -> Option<&'static str> {
    if headers.contains_key(header::ORIGIN) {
        return Some("this server answers programs, not web pages\n");
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let is_loopback = has_token
        || name.is_empty()
        || name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    (!is_loopback).then_some("this server answers under loopback addresses alone\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
        of.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn programs_are_answered_and_web_pages_are_not() {
        for host in ["127.0.0.1:8080", "127.0.0.1", "localhost:1", "[::1]:8080"] {
            assert_eq!(refuse_web_page(&headers(&[("host", host)]), false), None, "{host}");
        }
        for host in ["evil.example:8080", "127.0.0.1.evil.example", "10.0.0.1"] {
            assert!(refuse_web_page(&headers(&[("host", host)]), false).is_some(), "{host}");
        }
        let from_page = headers(&[("host", "127.0.0.1"), ("origin", "https://evil.example")]);
        assert!(refuse_web_page(&from_page, false).is_some());
        assert!(refuse_web_page(&from_page, true).is_some());
        assert_eq!(refuse_web_page(&headers(&[("host", "backup.example")]), true), None);
    }

    #[test]
    fn a_long_query_may_come_in_the_body() {
        let mut call = Call {
            method: "POST".to_owned(),
            path: "/".to_owned(),
            query: String::new(),
            content_type: "application/x-www-form-urlencoded".to_owned(),
            headers: headers(&[("x-http-method-override", "get")]),
            body: b"filter=name%3Da".to_vec(),
        };
        override_method(&mut call);
        assert_eq!((call.method.as_str(), call.query.as_str()), ("GET", "filter=name%3Da"));
        assert!(call.body.is_empty());
    }

    #[tokio::test]
    async fn without_token_and_tls_only_loopback_addresses_are_listened_on() {
        let open = |address: &str| listen(address.parse().unwrap(), Access::default());
        let Err(error) = open("192.0.2.1:8080").await else { panic!("it listens") };
        assert!(error.to_string().contains("token and TLS files"), "{error}");
        assert!(open("127.0.0.1:0").await.is_ok());
    }
}
