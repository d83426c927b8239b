//! `stillframe serve`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::key::local_engine;
use super::{Console, Exit, Global, setup};
use crate::engine::Engine;
use crate::serve::access::{Access, AccessError, Token, read_tls};
use crate::serve::{self, Dialect};

/// Speak the API of a cloud over an embedded engine.
#[derive(Debug, Args)]
pub struct Serve {
    /// Whose API
    #[arg(long, value_name = "API")]
    dialect: Dialect,
    /// The engine, where there are several embedded ones
    #[arg(long, value_name = "NAME")]
    engine: Option<String>,
    /// The project that the engine is served as; its own name where this is left out
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// The address to listen on; any that is no loopback one needs a token and TLS; port 0 takes
    /// any that is free
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8470")]
    listen: SocketAddr,
    /// A file whose first line clients must send as a token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The TLS certificate of the server, with those that it is signed by (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key of the TLS certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Go wrong where a client asks for it with POST /faults: for tests of clients
    #[arg(long)]
    faults: bool,
}

impl Serve {
    pub(super) async fn run(&self, global: &Global, console: &Console) -> anyhow::Result<Exit> {
        let engine = match local_engine(global, console, self.engine.as_deref()) {
            Ok(engine) => engine,
            Err(early) => return early.exit(),
        };
        let project = self.project.clone().unwrap_or_else(|| engine.name().to_owned());
        let door = serve::listen(self.listen, self.access()?).await?;
        let service = serve::open(self.dialect, engine, &project, setup::clock(None), self.faults)?;
        let (scheme, address) = (door.scheme(), door.address()?);
        let (stop, stopped) = watch::channel(false);
        let mut interrupted =
            signal(SignalKind::interrupt()).context("no signal can be waited for")?;
        let mut ended = signal(SignalKind::terminate()).context("no signal can be waited for")?;
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupted.recv() => {}
                _ = ended.recv() => {}
            }
            stop.send_replace(true);
        });
        console.print(&format!("{scheme}://{address}\n"));
        console.note(&format!("serving the project {project}; Ctrl-C stops\n"));
        serve::serve(door, Arc::clone(&service), stopped).await?;
        Ok(Exit::Success)
    }

    fn access(&self) -> Result<Access, AccessError> {
        let token = self.token_file.as_deref().map(Token::read).transpose()?;
        let tls = match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => Some(read_tls(certificate, key)?),
            _ => None,
        };
        Ok(Access { token, tls })
    }
}
