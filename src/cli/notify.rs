//! `stillframe notify`

use std::sync::Arc;

use anyhow::bail;
use clap::{Args, Subcommand};
use serde::Serialize;
use tokio::task::JoinSet;

use super::{Console, Exit, Global, setup};
use crate::alert::test_message;
use crate::policy::meant::Receiver;
use crate::reconcile::base;
use crate::report::clean;
use crate::watch::{Courier, Post};

/// Who is told of what goes wrong.
#[derive(Debug, Args)]
pub struct NotifyCommand {
    #[command(subcommand)]
    verb: NotifyVerb,
}

#[derive(Debug, Subcommand)]
enum NotifyVerb {
    /// Send a test message to the receivers of the configuration
    ///
    /// Ends with 1 where one of them cannot be reached. Nothing is sent again.
    Test(TestMessage),
}

/// Send a test message to the receivers of the configuration.
#[derive(Debug, Args)]
struct TestMessage {
    /// The receivers; all where none is named
    #[arg(value_name = "RECEIVER")]
    receivers: Vec<String>,
    /// Show what would be sent and send nothing
    #[arg(long)]
    dry_run: bool,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// What came of a test message.
#[derive(Debug, Serialize)]
struct Sent {
    receiver: String,
    kind: &'static str,
    /// Whether it arrived; absent where nothing was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    arrived: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Where it would go, and what would be sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
}

impl NotifyCommand {
    pub(super) async fn run(&self, global: &Global, console: &Console) -> anyhow::Result<Exit> {
        let NotifyVerb::Test(test) = &self.verb;
        test.run(global, console).await
    }
}

impl TestMessage {
    async fn run(&self, global: &Global, console: &Console) -> anyhow::Result<Exit> {
        let policies = match setup::policies(global, console, self.json) {
            Ok(policies) => policies,
            Err(early) => return early.exit(),
        };
        let receivers = self.chosen(&policies.config.watch.notify.receivers)?;
        let base = base(&policies)?;
        let name = policies.config.name.clone().unwrap_or_default();
        let message = test_message(&name, clean, setup::clock(None).now());
        let post = Arc::new(Post::new(setup::variable));
        let mut sent = Vec::new();
        if self.dry_run {
            for receiver in receivers {
                let preview = post.preview(&base, &receiver, &message);
                sent.push(Sent {
                    kind: receiver.way.word(),
                    receiver: receiver.name,
                    arrived: None,
                    error: preview.as_ref().err().map(ToString::to_string),
                    target: preview.as_ref().ok().map(|(target, _)| target.clone()),
                    body: preview.ok().map(|(_, body)| body),
                });
            }
        } else {
            let mut tasks = JoinSet::new();
            for receiver in receivers {
                let (post, base, message) = (Arc::clone(&post), base.clone(), message.clone());
                tasks.spawn(async move {
                    let error = post.send(&base, &receiver, &message).await.err();
                    Sent {
                        kind: receiver.way.word(),
                        receiver: receiver.name,
                        arrived: Some(error.is_none()),
                        error: error.map(|error| error.to_string()),
                        target: None,
                        body: None,
                    }
                });
            }
            sent = tasks.join_all().await;
            sent.sort_by(|one, other| one.receiver.cmp(&other.receiver));
        }
        let has_failed = sent.iter().any(|one| one.error.is_some());
        self.show(&sent, console)?;
        Ok(if has_failed { Exit::Failed } else { Exit::Success })
    }

    /// The receivers that are meant.
    fn chosen(&self, known: &[Receiver]) -> anyhow::Result<Vec<Receiver>> {
        if known.is_empty() {
            bail!(
                "there is no receiver: write one under spec.watch.notify.receivers of the configuration"
            );
        }
        if self.receivers.is_empty() {
            return Ok(known.to_vec());
        }
        let find = |name: &String| {
            if let Some(receiver) = known.iter().find(|receiver| receiver.name == *name) {
                return Ok(receiver.clone());
            }
            let names: Vec<&str> = known.iter().map(|receiver| receiver.name.as_str()).collect();
            bail!("there is no receiver {}; there are {}", clean(name), names.join(", "))
        };
        self.receivers.iter().map(find).collect()
    }

    fn show(&self, sent: &[Sent], console: &Console) -> anyhow::Result<()> {
        if self.json {
            return console.json(&serde_json::json!({"format_version": "1.0", "receivers": sent}));
        }
        for one in sent {
            let Sent { receiver, kind, .. } = one;
            if let (Some(target), Some(body)) = (&one.target, &one.body) {
                let target = clean(target);
                console.print(&format!("{receiver} ({kind}): {target}\n"));
                // Mail has lines; what else is in a body is harmless in JSON, and cleaned in a text.
                for line in body.lines() {
                    console.print(&format!("  {}\n", clean(line)));
                }
                continue;
            }
            match &one.error {
                Some(error) => console.error(&format!("{receiver} ({kind}): {}", clean(error))),
                None => console.print(&format!("{receiver} ({kind}): sent\n")),
            }
        }
        Ok(())
    }
}
