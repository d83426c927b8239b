//! The page, health, readiness and metrics over HTTP.
//!
//! Loopback addresses answer whoever asks. Others are listened on only with a token, or behind a proxy
//! that marks what it lets through: names of machines and policies are nobody else's business.

mod token;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use data_encoding::HEXLOWER;
use jiff::Timestamp;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

pub use token::{Token, TokenError};

use super::{Bell, Role, Snapshot, Status, metrics};
use crate::clock::Clock;
use crate::connections::{Limited, Limits, Line, answering};
use crate::report::clean;
use crate::report::overview::{self, EngineOverview, Overview};

/// What connections may take: rounds need files as well.
const LIMITS: Limits =
    Limits { connections: 64, request: Duration::from_secs(30), idle: Duration::from_mins(2) };

/// Who is answered.
#[derive(Debug, Clone)]
pub enum Access {
    /// Whoever reaches a loopback address.
    Loopback,
    /// Whoever shows this token, as `Authorization: Bearer TOKEN`.
    Token(Arc<Token>),
    /// What a proxy lets through and marks with a header of this name.
    Proxy(HeaderName),
}

/// Why it is not answered.
#[derive(Debug, thiserror::Error)]
pub enum OutsideError {
    /// The address can be reached from elsewhere.
    #[error(
        "{0} can be reached from other machines: give a token with --token-file, or name the header \
         that a proxy in front of it sets with --behind-proxy; or listen on 127.0.0.1 or [::1]"
    )]
    NotLoopback(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// It ended.
    #[error("the endpoints stopped: {0}")]
    Stopped(io::Error),
}

/// What requests are answered from.
#[derive(Clone)]
struct Outside {
    status: Arc<Status>,
    clock: Arc<dyn Clock>,
    access: Access,
}

/// Listens on an address, if who is answered allows it.
pub async fn listen(address: SocketAddr, access: &Access) -> Result<TcpListener, OutsideError> {
    if matches!(access, Access::Loopback) && !address.ip().is_loopback() {
        return Err(OutsideError::NotLoopback(address));
    }
    TcpListener::bind(address).await.map_err(|error| OutsideError::Listen(address, error))
}

/// Answers until watching has ended.
pub async fn serve(
    listener: TcpListener,
    status: Arc<Status>,
    clock: Arc<dyn Clock>,
    access: Access,
    ended: Bell,
) -> Result<(), OutsideError> {
    let outside = Outside { status, clock, access };
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/page.json", get(document))
        .layer(middleware::from_fn_with_state(outside.clone(), may_see))
        // The page itself says nothing; what it shows it asks for.
        .route("/", get(page))
        // What says nothing but whether it lives is for whoever looks after the process.
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .layer(middleware::from_fn(let_be))
        .with_state(outside);
    let router = router.into_make_service_with_connect_info::<Line>();
    let told = async move { ended.ended().await };
    let serving = axum::serve(Limited::new(listener, LIMITS), router);
    serving.with_graceful_shutdown(told).await.map_err(OutsideError::Stopped)
}

/// What is being answered is not ended for others.
async fn let_be(request: Request, next: Next) -> Response {
    let _answering = answering(request.extensions());
    next.run(request).await
}

async fn may_see(State(outside): State<Outside>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let is_let_in = match &outside.access {
        Access::Loopback => is_local(headers),
        Access::Token(token) => bears(headers, &token.now().await),
        Access::Proxy(name) => headers.contains_key(name),
    };
    if is_let_in { next.run(request).await } else { refusal(&outside.access) }
}

fn refusal(access: &Access) -> Response {
    match access {
        Access::Token(_) => {
            let how = [(header::WWW_AUTHENTICATE, "Bearer")];
            (StatusCode::UNAUTHORIZED, how, "a token is needed\n").into_response()
        }
        _ => (StatusCode::FORBIDDEN, "not from here\n").into_response(),
    }
}

/// Compares digests, which take the same time whatever differs.
fn bears(headers: &HeaderMap, token: &str) -> bool {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|text| text.strip_prefix("Bearer ")).unwrap_or_default();
    !token.is_empty() && Sha256::digest(given) == Sha256::digest(token)
}

/// A page of another site in the browser of this machine reaches loopback addresses under a name of
/// its own; programs, and people who type the address, do not.
fn is_local(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.is_empty()
        || name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

async fn metrics(State(outside): State<Outside>) -> Response {
    let (status, clock) = (Arc::clone(&outside.status), Arc::clone(&outside.clock));
    // Of many sources it is long: others are not to wait for it.
    let text = tokio::task::spawn_blocking(move || metrics::text(&status.snapshot(), clock.now()));
    match text.await {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The page: nothing of another site may hold it in a frame, and it runs nothing but its own script.
async fn page(headers: HeaderMap) -> Response {
    static SHELL: LazyLock<(String, String)> = LazyLock::new(|| {
        let shell = overview::shell();
        let tag = format!("\"{}\"", HEXLOWER.encode(&Sha256::digest(&shell)[..16]));
        (shell, tag)
    });
    let (shell, tag) = &*SHELL;
    tagged(&headers, tag, "text/html; charset=utf-8", || shell.clone())
}

/// What the page shows.
async fn document(State(outside): State<Outside>, headers: HeaderMap) -> Response {
    let (status, clock) = (Arc::clone(&outside.status), Arc::clone(&outside.clock));
    let snapshot = status.snapshot();
    // A start of this process begins to count anew.
    let tag = format!("\"{}-{}\"", status.started(), snapshot.page_version);
    if snapshot.engines.values().all(|engine| engine.overview.is_none()) {
        let again = [(header::RETRY_AFTER, "5")];
        let why = "no round has ended yet\n";
        return (StatusCode::SERVICE_UNAVAILABLE, again, why).into_response();
    }
    let now = clock.now();
    let text = tokio::task::spawn_blocking(move || {
        tagged(&headers, &tag, "application/json", || {
            // What is written here can always be written.
            serde_json::to_string(&overview_of(&snapshot, now)).unwrap_or_default()
        })
    });
    text.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

fn overview_of(snapshot: &Snapshot, now: Timestamp) -> Overview {
    let mut overview = Overview::new(now, &snapshot.name, &snapshot.digest);
    overview.mistakes = snapshot.validity.mistakes.iter().map(|text| clean(text)).collect();
    overview.policies = snapshot.policy_rows.to_vec();
    for row in &mut overview.policies {
        row.pass(now);
    }
    let engines = snapshot.engines.values();
    let seen = engines.clone().filter_map(|engine| engine.overview.as_ref());
    overview.engines = seen.map(|seen| EngineOverview::clone(seen)).collect();
    // What could not be seen since is as it was, but for the time that has passed.
    let rows = overview.engines.iter_mut().flat_map(|engine| &mut engine.sources);
    rows.for_each(|row| row.pass(now));
    let unseen = snapshot.engines.iter().filter(|(_, engine)| engine.overview.is_none());
    overview.unseen = unseen.map(|(name, _)| clean(name)).collect();
    overview.rounds = engines.flat_map(|engine| engine.history.iter().cloned()).collect();
    overview.rounds.sort_by_key(|round| std::cmp::Reverse(round.began_at));
    overview
}

/// An answer that is not sent again to who has it.
fn tagged(
    headers: &HeaderMap,
    tag: &str,
    kind: &'static str,
    body: impl FnOnce() -> String,
) -> Response {
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let is_known = known.is_some_and(|known| known.split(',').any(|one| one.trim() == tag));
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, kind)], body()).into_response()
    };
    let policy = format!("{}; frame-ancestors 'none'", *overview::CONTENT_POLICY);
    for (name, value) in [
        (header::ETAG, tag),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, policy.as_str()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

async fn health(State(outside): State<Outside>) -> Response {
    if outside.status.is_alive() {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the loop does not turn\n").into_response()
    }
}

/// Ready is whoever has policies in force and works, or stands by to take over.
async fn ready(State(outside): State<Outside>) -> Response {
    let snapshot = outside.status.snapshot();
    let role = match snapshot.role {
        Role::Idle => "idle",
        Role::Standby => "standby",
        Role::Running => "running",
    };
    let is_ready = snapshot.role != Role::Idle;
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut body = json!({"ready": is_ready, "role": role, "policies": snapshot.policies.len()});
    // Who stands by has read nothing, which is neither valid nor not.
    if snapshot.validity.read_at.is_some() {
        body["valid"] = snapshot.validity.is_valid.into();
    }
    if let Some(since) = snapshot.reading_since {
        body["readingSince"] = since.to_string().into();
    }
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (status, kind, format!("{body}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
        of.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_the_token_opens() {
        assert!(bears(&headers(&[("authorization", "Bearer secret")]), "secret"));
        for wrong in ["Bearer secre", "Bearer secrets", "secret", "Basic secret", "Bearer "] {
            assert!(!bears(&headers(&[("authorization", wrong)]), "secret"), "{wrong}");
        }
        assert!(!bears(&headers(&[]), "secret"));
        assert!(!bears(&headers(&[("authorization", "Bearer ")]), ""), "no token is no token");
    }

    #[test]
    fn pages_of_other_sites_see_nothing() {
        assert!(is_local(&headers(&[("host", "127.0.0.1:9090")])));
        assert!(is_local(&headers(&[("host", "[::1]:9090")])));
        assert!(!is_local(&headers(&[("host", "evil.example:9090")])));
    }

    #[test]
    fn what_is_not_seen_grows_older_and_what_was_never_seen_is_named() {
        let at = |minute: i64| Timestamp::from_second(minute * 60).unwrap();
        let row = |name: &str, state: &str, breach: i64| overview::SourceRow {
            policy: "p".to_owned(),
            name: name.to_owned(),
            id: name.to_owned(),
            zone: String::new(),
            state: state.to_owned(),
            breach_at: (breach > 0).then(|| at(breach)),
            next: None,
            points: Vec::new(),
            deletes: Vec::new(),
        };
        let sources = vec![
            row("a", "met", 10),
            row("b", "met-unless-next-fails", 20),
            row("c", "none", 0),
            row("d", "gone", 5),
        ];
        let seen = EngineOverview {
            name: "one".to_owned(),
            policies_digest: String::new(),
            seen_at: at(1),
            instances: 4,
            instances_unseen: false,
            instances_unseen_since: None,
            images: 4,
            gaps: vec!["everything: no answer".to_owned()],
            sources,
            unprotected: Vec::new(),
            exempt: Vec::new(),
            plan: overview::PlanRow::default(),
            drills: Vec::new(),
        };
        let policy = |name: &str, until: Option<i64>| overview::PolicyRow {
            name: name.to_owned(),
            engine: "one".to_owned(),
            owner: String::new(),
            schedule: String::new(),
            retention: String::new(),
            objective: String::new(),
            paused: "paused".to_owned(),
            paused_until: until.map(at),
        };
        let mut snapshot = Snapshot {
            policy_rows: Arc::new(vec![policy("a", Some(30)), policy("b", None)]),
            ..Snapshot::default()
        };
        snapshot.engines.entry("one".to_owned()).or_default().overview = Some(Arc::new(seen));
        snapshot.engines.entry("mute".to_owned()).or_default();
        let states = |now| -> Vec<String> {
            let overview = overview_of(&snapshot, at(now));
            assert_eq!(overview.unseen, ["mute"]);
            overview.engines[0].sources.iter().map(|row| row.state.clone()).collect()
        };
        assert_eq!(states(9), ["met", "met-unless-next-fails", "none", "gone"]);
        assert_eq!(states(10), ["broken", "met-unless-next-fails", "none", "gone"]);
        assert_eq!(states(60), ["broken", "broken", "none", "gone"]);
        let paused = |now| -> Vec<String> {
            overview_of(&snapshot, at(now)).policies.into_iter().map(|row| row.paused).collect()
        };
        assert_eq!(paused(29), ["paused", "paused"]);
        assert_eq!(paused(30), ["", "paused"], "a pause without an end goes on");
    }

    #[tokio::test]
    async fn other_addresses_need_a_token_or_a_proxy() {
        let address: SocketAddr = "192.0.2.1:0".parse().unwrap();
        let refused = listen(address, &Access::Loopback).await.unwrap_err();
        assert!(matches!(refused, OutsideError::NotLoopback(_)), "{refused}");
        // Allowed, but no address of this machine.
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "0123456789abcdef").unwrap();
        let token = Access::Token(Arc::new(Token::open(file.path().to_owned()).unwrap()));
        assert!(matches!(listen(address, &token).await, Err(OutsideError::Listen(..))));
        assert!(listen("127.0.0.1:0".parse().unwrap(), &Access::Loopback).await.is_ok());
    }
}
