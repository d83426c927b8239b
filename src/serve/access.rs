//! Who may speak to the server: a token, compared without telling by its time how much was right,
//! and TLS, so that nobody else reads it on the way.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::connections::{Connection, Limited, Line};

/// The shortest token: anything shorter can be guessed.
const TOKEN_MIN: usize = 16;
/// How long a client may take to shake hands.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// How many clients may shake hands at once.
const HANDSHAKES_MAX: usize = 256;

/// Why access is not what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A file cannot be read.
    #[error("cannot read {}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// The token is none.
    #[error(
        "{} holds no token: write at least {TOKEN_MIN} characters on its first line, without spaces", .0.display()
    )]
    Token(PathBuf),
    /// Certificate and key do not go together.
    #[error("the TLS certificate {} cannot be used: {message}", path.display())]
    Certificate {
        /// The file with the certificate.
        path: PathBuf,
        /// Why.
        message: String,
    },
}

/// A token that clients must send. Only its hash is kept.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl Token {
    /// Reads the first line of a file.
    pub fn read(path: &Path) -> Result<Self, AccessError> {
        let text = fs::read_to_string(path).map_err(|error| AccessError::File {
            path: path.to_owned(),
            message: error.to_string(),
        })?;
        let token = text.lines().next().unwrap_or_default().trim();
        let is_one = token.len() >= TOKEN_MIN && token.bytes().all(|byte| byte.is_ascii_graphic());
        if is_one { Ok(Self::of(token)) } else { Err(AccessError::Token(path.to_owned())) }
    }

    fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Whether this is it. The time this takes depends on what was sent, not on what was expected.
    pub fn is(&self, sent: &str) -> bool {
        Self::of(sent).0.ct_eq(&self.0).into()
    }
}

/// The token that an `Authorization` header brings.
pub fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, sent) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| sent.trim())
}

/// Who may speak to the server, and how.
#[derive(Clone, Default)]
pub struct Access {
    /// What clients must send.
    pub token: Option<Token>,
    /// What they are answered under.
    pub tls: Option<Arc<ServerConfig>>,
}

/// Reads certificate and key, both PEM; the chain begins with the certificate of the server.
pub fn read_tls(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, AccessError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |error: &dyn std::fmt::Display| AccessError::File { path, message: error.to_string() }
    };
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain = chain.map_err(|error| unreadable(certificate)(&error))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key)(&error))?;
    let unusable =
        |message: String| AccessError::Certificate { path: certificate.to_owned(), message };
    if chain.is_empty() {
        return Err(unusable("it holds no certificate".to_owned()));
    }
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| unusable(error.to_string()))?;
    #[cfg(feature = "grpc-dialect")]
    config.alpn_protocols.push(b"h2".to_vec());
    config.alpn_protocols.push(b"http/1.1".to_vec());
    Ok(Arc::new(config))
}

/// A connection over TLS, within the limits of what it is carried over.
type Secured = TlsStream<Connection<TcpStream>>;

/// Hands over connections once hands were shaken; who is slow at that keeps nobody waiting.
pub struct TlsListener {
    address: SocketAddr,
    ready: mpsc::Receiver<(Secured, SocketAddr)>,
}

impl TlsListener {
    /// Begins to shake hands.
    pub fn new(mut listener: Limited<TcpListener>, config: Arc<ServerConfig>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (done, ready) = mpsc::channel(HANDSHAKES_MAX);
        let acceptor = TlsAcceptor::from(config);
        let places = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        tokio::spawn(async move {
            while let Ok(place) = Arc::clone(&places).acquire_owned().await {
                let (stream, from) = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = done.closed() => return,
                };
                let (acceptor, done) = (acceptor.clone(), done.clone());
                tokio::spawn(async move {
                    let shaken =
                        tokio::time::timeout(HANDSHAKE_TIME_MAX, acceptor.accept(stream)).await;
                    drop(place);
                    if let Ok(Ok(stream)) = shaken {
                        // Nobody waits any more where the server has stopped.
                        let _ = done.send((stream, from)).await;
                    }
                });
            }
        });
        Ok(Self { address, ready })
    }
}

impl Listener for TlsListener {
    type Io = Secured;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl Connected<IncomingStream<'_, TlsListener>> for Line {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        stream.io().get_ref().0.line().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_taken_from_the_header_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, "0123456789abcdef\nnotes\n").unwrap();
        let token = Token::read(&path).unwrap();
        let is_in = |header: &str| bearer(header).is_some_and(|sent| token.is(sent));
        assert!(is_in("Bearer 0123456789abcdef"));
        assert!(is_in("bearer 0123456789abcdef"));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Basic 0123456789abcdef",
            "0123456789abcdef",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
        ] {
            assert!(!is_in(wrong), "{wrong}");
        }
        for short in ["", "short", "0123456789 abcdef", "\n0123456789abcdef"] {
            fs::write(&path, short).unwrap();
            assert!(matches!(Token::read(&path), Err(AccessError::Token(_))), "{short}");
        }
        assert!(matches!(Token::read(Path::new("/nowhere")), Err(AccessError::File { .. })));
    }
}
