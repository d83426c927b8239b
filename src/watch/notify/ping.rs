//! Pings: a service that hears nothing any more raises the alarm.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::{Courier, Signal};
use crate::policy::meant::Ping;
use crate::watch::Status;

/// So many beats wait to be told.
pub(super) const WAITING_MAX: usize = 64;
/// So often a ping is tried.
const ATTEMPTS: u32 = 3;

/// A round begins or has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Beat {
    /// Of which engine.
    pub(super) engine: String,
    /// When it began.
    pub(super) began: Timestamp,
    /// The engines that are not well, as their last rounds went, once it has ended.
    pub(super) unwell: Option<BTreeSet<String>>,
}

impl Beat {
    /// The same for the beginning and the end of a round: an UUID of no version.
    fn round(&self) -> String {
        let digest = Sha256::digest(format!("round\n{}\n{}", self.engine, self.began));
        let hex = data_encoding::HEXLOWER.encode(&digest[..16]);
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

/// A ping, and what its files are relative to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Goal {
    ping: Ping,
    base: PathBuf,
}

/// What a ping says of a beat, where it is for it: all is well only while all its engines are.
fn signal(ping: &Ping, beat: &Beat) -> Option<Signal> {
    let is_of_it = |engine: &String| ping.engines.is_empty() || ping.engines.contains(engine);
    if !is_of_it(&beat.engine) {
        return None;
    }
    let Some(unwell) = &beat.unwell else { return Some(Signal::Start) };
    Some(if unwell.iter().any(is_of_it) { Signal::Fail } else { Signal::Success })
}

/// Asks for the URL of a ping, one beat after the other, for as long as it lives.
pub(super) struct Pinger {
    goal: watch::Sender<Goal>,
    beats: mpsc::Sender<Beat>,
    task: JoinHandle<()>,
}

impl Pinger {
    /// Begins; `retry` is the first wait after a failure.
    pub(super) fn new(
        ping: Ping,
        base: PathBuf,
        status: Arc<Status>,
        courier: Arc<dyn Courier>,
        retry: Duration,
    ) -> Self {
        let (goal, goals) = watch::channel(Goal { ping, base });
        let (beats, waiting) = mpsc::channel(WAITING_MAX);
        let task = tokio::spawn(run(goals, waiting, status, courier, retry));
        Self { goal, beats, task }
    }

    /// Whether it asks for the URL of this ping.
    pub(super) fn is_for(&self, ping: &Ping) -> bool {
        self.goal.borrow().ping.hook == ping.hook && !self.task.is_finished()
    }

    /// Asks for this one from now on. What waits goes on waiting.
    pub(super) fn follow(&self, ping: Ping, base: PathBuf) {
        self.goal.send_replace(Goal { ping, base });
    }

    /// Where it hears of rounds.
    pub(super) fn beats(&self) -> mpsc::Sender<Beat> {
        self.beats.clone()
    }
}

impl Drop for Pinger {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    goals: watch::Receiver<Goal>,
    mut waiting: mpsc::Receiver<Beat>,
    status: Arc<Status>,
    courier: Arc<dyn Courier>,
    retry: Duration,
) {
    let mut is_failing = false;
    'beats: while let Some(beat) = waiting.recv().await {
        let round = beat.round();
        let mut sent = Ok(());
        for attempt in 1..=ATTEMPTS {
            let Goal { ping, base } = goals.borrow().clone();
            let Some(signal) = signal(&ping, &beat) else { continue 'beats };
            sent = courier.ping(&base, &ping, signal, &round).await;
            if sent.as_ref().err().is_none_or(|error| !error.is_passing) || attempt == ATTEMPTS {
                break;
            }
            tokio::time::sleep(retry * attempt).await;
        }
        match sent {
            Ok(()) => {
                status.notices.pinged("sent");
                if std::mem::take(&mut is_failing) {
                    tracing::info!("pings arrive again");
                }
            }
            Err(error) => {
                status.notices.pinged("failed");
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!("a ping did not arrive: {error}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_well_only_while_all_its_engines_are() {
        let url = crate::policy::meant::Secret::Written("https://hc.example".to_owned());
        let hook = crate::policy::meant::Hook { url, plain_http: false };
        let every = Ping { hook, engines: [].into() };
        let signal = |ping: &Ping, engine: &str, unwell: Option<&[&str]>| {
            let (engine, began) = (engine.to_owned(), Timestamp::UNIX_EPOCH);
            let unwell = unwell.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
            super::signal(ping, &Beat { engine, began, unwell })
        };
        assert_eq!(signal(&every, "a", None), Some(Signal::Start));
        assert_eq!(signal(&every, "a", Some(&[])), Some(Signal::Success));
        assert_eq!(signal(&every, "a", Some(&["b"])), Some(Signal::Fail));
        let own = Ping { engines: ["a".to_owned()].into(), ..every };
        assert_eq!(signal(&own, "a", Some(&["b"])), Some(Signal::Success));
        assert_eq!(signal(&own, "a", Some(&["a", "b"])), Some(Signal::Fail));
        assert_eq!((signal(&own, "b", None), signal(&own, "b", Some(&[]))), (None, None));
    }

    #[test]
    fn a_round_has_an_id_of_its_own() {
        let beat = |engine: &str, second| Beat {
            engine: engine.to_owned(),
            began: Timestamp::from_second(second).unwrap(),
            unwell: None,
        };
        let id = beat("a", 1).round();
        assert_eq!(id.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert_eq!(id, Beat { unwell: Some([].into()), ..beat("a", 1) }.round());
        assert_ne!(id, beat("b", 1).round());
        assert_ne!(id, beat("a", 2).round());
    }
}
