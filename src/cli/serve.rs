//! `stillframe serve`

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::key::local_engine;
use super::{Console, Exit, Global, setup};
use crate::engine::Engine;
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
    /// The address to listen on, a loopback one; port 0 takes any that is free
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8470")]
    listen: SocketAddr,
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
        let listener = serve::listen(self.listen).await?;
        let service = serve::open(self.dialect, engine, &project, setup::clock(None), self.faults)?;
        let address = listener.local_addr().context("the address is not known")?;
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
        console.print(&format!("http://{address}\n"));
        console.note(&format!("serving the project {project}; Ctrl-C stops\n"));
        serve::serve(listener, Arc::clone(&service), stopped).await?;
        Ok(Exit::Success)
    }
}
