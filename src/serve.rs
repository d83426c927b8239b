//! Serves the API of a cloud over an embedded engine.
//!
//! This room carries requests between HTTP and a [`Service`]; what a request means is the affair of
//! the service, one folder per API. It listens on loopback addresses, on any other one only with a
//! token and TLS, and answers no web page: whoever reaches it may delete images.

pub mod access;
pub mod gce;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use clap::ValueEnum;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;

use access::{Access, AccessError, TlsListener, Token};

use crate::clock::Clock;
use crate::engine::local::LocalEngine;

/// The longest body that is read, in bytes.
const BODY_BYTES_MAX: usize = 8 << 20;

/// Whose API is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dialect {
    /// The Compute Engine API
    Gce,
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
    /// The body.
    pub body: Vec<u8>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The status of HTTP.
    pub status: u16,
    /// The body.
    pub content: Content,
}

/// The body of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// There is none.
    None,
    /// JSON.
    Json(Value),
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
    fn unauthenticated(&self) -> Reply;

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
    let Door { listener, access: Access { token, tls } } = door;
    let desk = Desk { service: Arc::clone(&service), token };
    let router = Router::new().fallback(handle).with_state(desk);
    let mut asked = stop.clone();
    let ending = Arc::clone(&service);
    let told = async move {
        // A sender that is gone tells to stop as well.
        let _ = asked.wait_for(|stop| *stop).await;
        ending.stop().await;
    };
    let ended = match tls {
        Some(config) => {
            let listener = TlsListener::new(listener, config).map_err(ServeError::Stopped)?;
            axum::serve(listener, router).with_graceful_shutdown(told).await
        }
        None => axum::serve(listener, router).with_graceful_shutdown(told).await,
    };
    ended.map_err(ServeError::Stopped)
}

async fn handle(State(desk): State<Desk>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if let Some(refusal) = refuse_web_page(&parts.headers, desk.token.is_some()) {
        return (StatusCode::FORBIDDEN, refusal).into_response();
    }
    if let Some(token) = &desk.token {
        let sent = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if !sent.is_some_and(|sent| token.is_in(sent)) {
            let asked = [(header::WWW_AUTHENTICATE, "Bearer")];
            return (asked, respond(desk.service.unauthenticated())).into_response();
        }
    }
    let Ok(body) = to_bytes(body, BODY_BYTES_MAX).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let text = |name: &str| {
        let value = parts.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let mut call = Call {
        method: parts.method.as_str().to_owned(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        content_type: text(header::CONTENT_TYPE.as_str()),
        body: body.to_vec(),
    };
    override_method(&mut call, &text("x-http-method-override"));
    respond(desk.service.answer(call).await)
}

fn respond(reply: Reply) -> Response {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let (kind, text) = match reply.content {
        Content::None => return status.into_response(),
        Content::Json(body) => ("application/json; charset=UTF-8".to_owned(), body.to_string()),
        Content::Text { kind, text } => (kind, text),
    };
    (status, [(header::CONTENT_TYPE, kind)], Body::from(text)).into_response()
}

/// A request that is too long for its address comes as a POST with the query in the body.
fn override_method(call: &mut Call, method: &str) {
    if call.method != "POST" || method.is_empty() {
        return;
    }
    call.method = method.to_ascii_uppercase();
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
            body: b"filter=name%3Da".to_vec(),
        };
        override_method(&mut call, "get");
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
