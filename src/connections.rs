//! Connections of servers: so many at once, and none for long that says nothing.
//!
//! Whoever reaches a port can open connections without showing anything, and each takes a file of the
//! process, which its work needs as well. So a request has a limited time to arrive, an answered
//! connection is kept open for a limited time, and where all places are taken a new connection gets
//! that of the one that has been silent for longest. A request that is being answered is let be.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::http::Extensions;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

/// What connections may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// So many are open at once.
    pub connections: usize,
    /// A request has arrived as a whole so long after the connection was opened, or after its first
    /// byte.
    pub request: Duration,
    /// A connection stays open so long after an answer without another request.
    pub idle: Duration,
}

/// Hands over connections of a listener within limits.
pub struct Limited<L> {
    listener: L,
    places: Arc<Places>,
}

struct Places {
    limits: Limits,
    taken: Mutex<Taken>,
    /// A place may be free, or may be made free.
    changed: Notify,
}

#[derive(Default)]
struct Taken {
    lines: BTreeMap<u64, Line>,
    /// The number of the next one.
    next: u64,
}

impl<L> Limited<L> {
    /// Limits the connections of a listener.
    pub fn new(listener: L, limits: Limits) -> Self {
        let (taken, changed) = (Mutex::default(), Notify::new());
        Self { listener, places: Arc::new(Places { limits, taken, changed }) }
    }
}

impl<L: Listener> Listener for Limited<L> {
    type Io = Connection<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, from) = self.listener.accept().await;
        loop {
            let changed = self.places.changed.notified();
            if let Some((number, line)) = self.places.take() {
                return (Connection::new(stream, number, line), from);
            }
            changed.await;
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place. Where there is none the connection that has been silent for longest is hung up,
    /// one after the other: it has to end before its place is free.
    fn take(self: &Arc<Self>) -> Option<(u64, Line)> {
        let mut taken = self.lock();
        if taken.lines.len() < self.limits.connections {
            let (number, line) = (taken.next, Line::new(Arc::clone(self)));
            taken.next += 1;
            taken.lines.insert(number, line.clone());
            return Some((number, line));
        }
        if !taken.lines.values().any(|line| line.lock().is_hung_up) {
            let silent = taken.lines.values().filter_map(|line| Some((line.silent_since()?, line)));
            if let Some((_, line)) = silent.min_by_key(|(since, _)| *since) {
                tracing::debug!("all connections are taken: the longest silent one is closed");
                line.hang_up();
            }
        }
        None
    }

    fn free(&self, number: u64) {
        self.lock().lines.remove(&number);
        self.changed.notify_one();
    }
}

/// What is known of a connection, for who answers its requests.
#[derive(Clone)]
pub struct Line(Arc<Known>);

struct Known {
    places: Arc<Places>,
    state: Mutex<State>,
}

struct State {
    /// Since when it is silent, or a request is on its way.
    since: Instant,
    /// Whether everything that was asked was answered.
    is_idle: bool,
    /// How many requests are being answered.
    answering: usize,
    /// Its place is for another one.
    is_hung_up: bool,
    /// Who carries it looks at all of this again when woken.
    waker: Option<Waker>,
}

impl Line {
    fn new(places: Arc<Places>) -> Self {
        let state = State {
            since: Instant::now(),
            is_idle: false,
            answering: 0,
            is_hung_up: false,
            waker: None,
        };
        Self(Arc::new(Known { places, state: Mutex::new(state) }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn silent_since(&self) -> Option<Instant> {
        let state = self.lock();
        (state.answering == 0).then_some(state.since)
    }

    fn hang_up(&self) {
        let mut state = self.lock();
        state.is_hung_up = true;
        wake(state);
    }

    /// Something has arrived.
    fn heard(&self) {
        let mut state = self.lock();
        if state.is_idle && state.answering == 0 {
            (state.is_idle, state.since) = (false, Instant::now());
        }
    }

    /// Something of an answer was taken.
    fn told(&self) {
        let mut state = self.lock();
        if state.is_idle {
            state.since = Instant::now();
        }
    }

    /// A request of it has arrived as a whole and is being answered, as long as this is held: that
    /// may take as long as it likes.
    pub fn answers(&self) -> Answering {
        self.lock().answering += 1;
        Answering(self.clone())
    }
}

/// Wakes who carries a connection, who looks at its state himself.
fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// A request is being answered.
pub struct Answering(Line);

impl Drop for Answering {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.answering -= 1;
        (state.is_idle, state.since) = (true, Instant::now());
        wake(state);
        self.0.0.places.changed.notify_one();
    }
}

impl<L: Listener> Connected<IncomingStream<'_, Limited<L>>> for Line {
    fn connect_info(stream: IncomingStream<'_, Limited<L>>) -> Self {
        stream.io().line().clone()
    }
}

/// A request is being answered from here on, as long as this is held: what the server knows of its
/// connection is among its extensions.
pub fn answering(extensions: &Extensions) -> Option<Answering> {
    extensions.get::<ConnectInfo<Line>>().map(|ConnectInfo(line)| line.answers())
}

/// A connection that ends when its time is over.
pub struct Connection<S> {
    stream: S,
    number: u64,
    line: Line,
    timer: Pin<Box<Sleep>>,
}

impl<S> Connection<S> {
    /// What is known of it.
    pub fn line(&self) -> &Line {
        &self.line
    }

    fn new(stream: S, number: u64, line: Line) -> Self {
        let timer = Box::pin(tokio::time::sleep(line.0.places.limits.request));
        Self { stream, number, line, timer }
    }

    /// Whether it has to end. Where not, it is looked at again in time.
    fn goes_on(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let limits = self.line.0.places.limits;
        let mut state = self.line.lock();
        let limit = if state.is_idle { limits.idle } else { limits.request };
        let until = state.since + limit;
        let is_over = state.answering == 0 && {
            if self.timer.deadline() != until {
                self.timer.as_mut().reset(until);
            }
            self.timer.as_mut().poll(context).is_ready()
        };
        if state.is_hung_up || is_over {
            return Err(io::ErrorKind::TimedOut.into());
        }
        state.waker = Some(context.waker().clone());
        Ok(())
    }
}

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        self.line.0.places.free(self.number);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.goes_on(context)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.line.heard();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.goes_on(context)?;
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if written.is_ready() {
            self.line.told();
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.goes_on(context)?;
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        if written.is_ready() {
            self.line.told();
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.goes_on(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.goes_on(context)?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::extract::Request;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::sync::mpsc;

    use super::*;

    const LIMITS: Limits =
        Limits { connections: 4, request: Duration::from_secs(30), idle: Duration::from_mins(2) };

    /// Connections of this process, so that time is the clock's that stands still.
    struct Pipes(mpsc::Receiver<DuplexStream>);

    impl Listener for Pipes {
        type Io = DuplexStream;
        type Addr = ();

        async fn accept(&mut self) -> (DuplexStream, ()) {
            match self.0.recv().await {
                Some(stream) => (stream, ()),
                None => std::future::pending().await,
            }
        }

        fn local_addr(&self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Server(mpsc::Sender<DuplexStream>);

    impl Server {
        fn start() -> Self {
            let (pipes, accepted) = mpsc::channel(64);
            let slow = |request: Request| async move {
                let _answering = answering(request.extensions());
                tokio::time::sleep(Duration::from_hours(1)).await;
                "slow"
            };
            let quick = |request: Request| async move {
                let _answering = answering(request.extensions());
                "quick"
            };
            let router = Router::new().route("/slow", get(slow)).route("/quick", get(quick));
            let router = router.into_make_service_with_connect_info::<Line>();
            let limited = Limited::new(Pipes(accepted), LIMITS);
            tokio::spawn(async move { axum::serve(limited, router).await });
            Self(pipes)
        }

        async fn connect(&self) -> DuplexStream {
            let (here, there) = duplex(1 << 16);
            self.0.send(there).await.unwrap();
            // It is taken up before the next one is.
            tokio::time::sleep(Duration::from_millis(1)).await;
            here
        }

        async fn ask(&self, path: &str) -> DuplexStream {
            let mut stream = self.connect().await;
            send(&mut stream, path).await;
            stream
        }
    }

    async fn send(stream: &mut DuplexStream, path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
    }

    /// The word that an answer ends with.
    async fn answer(stream: &mut DuplexStream, word: &str) {
        let mut text = String::new();
        while !text.ends_with(word) {
            let mut bytes = [0; 1024];
            let count = stream.read(&mut bytes).await.unwrap();
            assert!(count > 0, "it has ended: {text}");
            text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
    }

    async fn has_ended(stream: &mut DuplexStream) -> bool {
        let end = async { stream.read(&mut [0; 1024]).await.is_ok_and(|count| count == 0) };
        tokio::time::timeout(Duration::from_millis(1), end).await.unwrap_or(false)
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_keeps_nobody_out() {
        let server = Server::start();
        let mut silent = Vec::new();
        for _ in 0..20 {
            silent.push(server.connect().await);
        }
        let began = Instant::now();
        answer(&mut server.ask("/quick").await, "quick").await;
        assert!(began.elapsed() < seconds(1), "{:?}", began.elapsed());
        let mut open = 0;
        for stream in &mut silent {
            open += usize::from(!has_ended(stream).await);
        }
        assert!(open < LIMITS.connections, "{open} are open");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_has_a_limited_time_to_arrive() {
        let server = Server::start();
        let (mut silent, mut slow) = (server.connect().await, server.connect().await);
        for byte in "GET /quick HTTP/1.1".bytes().take(14) {
            assert!(!has_ended(&mut slow).await);
            slow.write_all(&[byte]).await.unwrap();
            tokio::time::sleep(seconds(2)).await;
        }
        assert!(!has_ended(&mut silent).await && !has_ended(&mut slow).await);
        tokio::time::sleep(seconds(3)).await;
        assert!(has_ended(&mut silent).await && has_ended(&mut slow).await);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answered_connection_stays_for_a_while_and_its_next_request_counts_anew() {
        let server = Server::start();
        let mut stream = server.ask("/quick").await;
        answer(&mut stream, "quick").await;
        tokio::time::sleep(seconds(119)).await;
        send(&mut stream, "/quick").await;
        answer(&mut stream, "quick").await;
        tokio::time::sleep(seconds(60)).await;
        stream.write_all(b"GET /quick").await.unwrap();
        tokio::time::sleep(seconds(29)).await;
        assert!(!has_ended(&mut stream).await);
        tokio::time::sleep(seconds(2)).await;
        assert!(has_ended(&mut stream).await, "half a request is not idle");
        let mut stream = server.ask("/quick").await;
        answer(&mut stream, "quick").await;
        tokio::time::sleep(seconds(121)).await;
        assert!(has_ended(&mut stream).await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_being_answered_is_let_be_and_others_wait_for_a_place() {
        let server = Server::start();
        let mut asked = Vec::new();
        for _ in 0..LIMITS.connections {
            asked.push(server.ask("/slow").await);
        }
        let began = Instant::now();
        // All places are taken until the first of them is answered and silent.
        answer(&mut server.ask("/quick").await, "quick").await;
        let waited = began.elapsed();
        assert!((seconds(3590)..seconds(3601)).contains(&waited), "{waited:?}");
        for stream in &mut asked[1..] {
            answer(stream, "slow").await;
        }
    }
}
