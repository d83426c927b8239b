//! `stillframe watch`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use axum::http::HeaderName;
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Console, Exit, Global, setup};
use crate::apply::timer;
use crate::elapsed::Elapsed;
use crate::engine::Author;
use crate::policy::Policies;
use crate::policy::meant::LeasePlace;
use crate::report::findings;
use crate::watch::{
    self, Access, Bell, FileWatcher, Files, Lease, Pace, Post, Status, System, Token, Watch,
    WatchError,
};

/// Keep doing it: every schedule, every change of the policies.
#[derive(Debug, Args)]
pub struct WatchCommand {
    /// Show the page at /, and answer /healthz, /readyz and /metrics, on this address; port 0 takes any
    /// that is free
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Answer those who show the token in this file, also on addresses that others can reach
    #[arg(long, value_name = "FILE", requires = "listen", conflicts_with = "behind_proxy")]
    token_file: Option<PathBuf>,
    /// Answer what a proxy lets through, which sets this header and takes it from everybody else
    #[arg(long, value_name = "HEADER", requires = "listen")]
    behind_proxy: Option<HeaderName>,
    /// How long what is under way may go on after SIGTERM; the configuration says it otherwise
    #[arg(long, value_name = "LENGTH", value_parser = parse_length)]
    grace: Option<Elapsed>,
    /// Work only while holding this lease, so that of several one works: a lock file, or
    /// kubernetes:NAMESPACE/NAME
    #[arg(long, value_name = "FILE|kubernetes:NAME", value_parser = LeasePlace::parse)]
    lease: Option<LeasePlace>,
    /// Look at the files now and then instead of being told of changes
    #[arg(long)]
    poll: bool,
}

fn parse_length(text: &str) -> Result<Elapsed, String> {
    Elapsed::parse(text).map_err(|error| error.to_string())
}

impl WatchCommand {
    pub(super) async fn run(&self, global: &Global, console: &Console) -> anyhow::Result<Exit> {
        // Mistakes are shown as everywhere; what is watched afterwards is read anew.
        let loaded = setup::load_policies(global, false)?;
        let Some(policies) = loaded.policies else {
            console.note(&findings::text(&loaded.findings));
            return Ok(Exit::InvalidPolicy);
        };
        let lease = match &self.lease {
            Some(place) => Some(place.clone()),
            None => Lease::of(&policies)?,
        };
        drop(policies);
        let (bell, status, system) = (Bell::default(), Arc::new(Status::default()), System::new());
        listen_for_signals(&bell)?;
        let clock = setup::clock(None);
        let access = self.access()?;
        if let Some(address) = self.listen {
            let listener = watch::listen(address, &access).await?;
            status.keep_page();
            let address = listener.local_addr().context("the address is not known")?;
            console.print(&format!("http://{address}\n"));
            let (status, clock, bell) = (Arc::clone(&status), Arc::clone(&clock), bell.clone());
            tokio::spawn(async move {
                if let Err(error) = watch::serve(listener, status, clock, access, bell).await {
                    tracing::error!("{error}");
                }
            });
        }
        let lease = match lease {
            None => None,
            Some(place) => match Lease::wait(&place, &clock, &bell, &status, system).await? {
                Some(lease) => Some(lease),
                None => return Ok(Exit::Success),
            },
        };
        let files = FileWatcher::new(global.policies.clone(), bell.clone(), self.poll);
        let endpoints = global.engine_endpoint.clone();
        let adjust = move |policies: &mut Policies| {
            setup::override_endpoints(policies, &endpoints).map_err(|error| error.to_string())
        };
        let (named, given) = (global.policies.clone(), global.given());
        let world = Files::new(named, given, Arc::clone(&clock), Box::new(adjust));
        let watch = Watch {
            world: Arc::new(world),
            clock,
            bell: bell.clone(),
            status,
            system,
            pace: Pace::default(),
            author: Author::here(),
            identity: watch::identity(),
            grace: self.grace.map(timer),
            files: Some(files),
            courier: Arc::new(Post::new(setup::variable)),
        };
        let ended = watch.run().await;
        bell.end();
        if let Some(lease) = lease {
            lease.release().await?;
        }
        match ended {
            // Its log says each mistake. Valid they were when it began to stand by.
            Err(error @ WatchError::Invalid) => {
                console.error(&error.to_string());
                Ok(Exit::InvalidPolicy)
            }
            other => other.map(|()| Exit::Success).map_err(Into::into),
        }
    }

    fn access(&self) -> anyhow::Result<Access> {
        if let Some(header) = &self.behind_proxy {
            return Ok(Access::Proxy(header.clone()));
        }
        let Some(file) = &self.token_file else { return Ok(Access::Loopback) };
        Ok(Access::Token(Arc::new(Token::open(file.clone())?)))
    }
}

/// SIGTERM and Ctrl-C end, SIGHUP reads everything again.
fn listen_for_signals(bell: &Bell) -> anyhow::Result<()> {
    let listen = |kind| signal(kind).context("no signal can be waited for");
    let mut terminate: Signal = listen(SignalKind::terminate())?;
    let mut interrupt: Signal = listen(SignalKind::interrupt())?;
    let mut hang_up: Signal = listen(SignalKind::hangup())?;
    let bell = bell.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                Some(()) = terminate.recv() => bell.stop(),
                Some(()) = interrupt.recv() => bell.stop(),
                Some(()) = hang_up.recv() => bell.reload(),
                else => break,
            }
        }
    });
    Ok(())
}
