//! The queue of a receiver: messages go out one after the other, and again where that may help.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Courier, Notices, locked};
use crate::alert::{Notification, Occasion};
use crate::policy::meant::Receiver;
use crate::watch::Status;

/// So many messages wait; what comes then is dropped.
const WAITING_MAX: usize = 64;
/// The longest wait between two attempts.
const RETRY_MAX: Duration = Duration::from_mins(15);
/// What cannot be delivered for so long is dropped.
const DELIVERY_MAX: Duration = Duration::from_hours(24);

/// A receiver, and what its files are relative to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Goal {
    receiver: Receiver,
    base: PathBuf,
}

/// A receiver and what waits for it.
pub(super) struct Queue {
    goal: watch::Sender<Goal>,
    name: String,
    messages: mpsc::Sender<Arc<Notification>>,
    /// When those that have not arrived yet were written.
    pending: Arc<Mutex<VecDeque<Timestamp>>>,
    task: JoinHandle<()>,
}

impl Queue {
    /// Begins to deliver; `retry` is the first wait after a failure.
    pub(super) fn new(
        receiver: Receiver,
        base: PathBuf,
        status: Arc<Status>,
        courier: Arc<dyn Courier>,
        retry: Duration,
    ) -> Self {
        let (messages, waiting) = mpsc::channel(WAITING_MAX);
        let name = receiver.name.clone();
        let (goal, goals) = watch::channel(Goal { receiver, base });
        let pending = Arc::new(Mutex::default());
        let delivery = Delivery {
            name: name.clone(),
            goals,
            status,
            courier,
            retry,
            pending: Arc::clone(&pending),
        };
        let task = tokio::spawn(delivery.run(waiting));
        Self { goal, name, messages, pending, task }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it delivers still.
    pub(super) fn is_open(&self) -> bool {
        !self.task.is_finished()
    }

    /// Delivers what waits, and what comes, to this receiver from now on.
    pub(super) fn follow(&self, receiver: Receiver, base: PathBuf) {
        let goal = Goal { receiver, base };
        self.goal.send_if_modified(|before| {
            let is_other = *before != goal;
            *before = goal;
            is_other
        });
    }

    /// What it is told of.
    pub(super) fn on(&self) -> BTreeSet<Occasion> {
        self.goal.borrow().receiver.on.clone()
    }

    /// Takes a message, without waiting for anything.
    pub(super) fn put(&self, message: Arc<Notification>, notices: &Notices) {
        let name = &self.name;
        let mut pending = locked(&self.pending);
        let written_at = message.at;
        if self.messages.try_send(message).is_ok() {
            pending.push_back(written_at);
            notices.waits(name, 1);
        } else {
            notices.counted(name, "dropped");
            tracing::error!(receiver = name, "a message is dropped: too many wait");
        }
    }

    /// Takes no more messages, and gives those that wait so long to arrive. Back comes when those were
    /// written that have not.
    pub(super) async fn close(self, deadline: Instant, notices: &Notices) -> Vec<Timestamp> {
        let Self { name, messages, pending, mut task, .. } = self;
        drop(messages);
        if tokio::time::timeout_at(deadline, &mut task).await.is_ok() {
            return Vec::new();
        }
        task.abort();
        let lost = notices.gives_up(&name);
        tracing::error!(
            receiver = name,
            "{lost} messages are dropped, for watching has ended; what still holds of them is told after the next start"
        );
        let pending = std::mem::take(&mut *locked(&pending));
        pending.into_iter().collect()
    }

    /// Delivers nothing more.
    pub(super) fn abandon(self, notices: &Notices, why: &str) {
        self.task.abort();
        let lost = notices.gives_up(&self.name);
        if lost > 0 {
            let receiver = self.name.as_str();
            tracing::error!(receiver, "{lost} messages are dropped: {why}");
        }
    }
}

/// Delivers to a receiver.
struct Delivery {
    name: String,
    /// Who that is at present.
    goals: watch::Receiver<Goal>,
    status: Arc<Status>,
    courier: Arc<dyn Courier>,
    retry: Duration,
    pending: Arc<Mutex<VecDeque<Timestamp>>>,
}

impl Delivery {
    async fn run(mut self, mut waiting: mpsc::Receiver<Arc<Notification>>) {
        while let Some(message) = waiting.recv().await {
            self.deliver(&message).await;
            locked(&self.pending).pop_front();
            self.status.notices.waits(&self.name, -1);
        }
    }

    async fn deliver(&mut self, message: &Notification) {
        let (name, notices) = (self.name.as_str(), &self.status.notices);
        let began = Instant::now();
        let mut wait = self.retry;
        let mut is_told = false;
        loop {
            let Goal { receiver, base } = self.goals.borrow_and_update().clone();
            let error = match self.courier.send(&base, &receiver, message).await {
                Ok(()) => {
                    notices.counted(name, "sent");
                    if is_told {
                        tracing::info!(receiver = name, "the message has arrived after all");
                    }
                    return;
                }
                Err(error) => error,
            };
            notices.counted(name, "failed");
            if !error.is_passing || began.elapsed() >= DELIVERY_MAX {
                notices.counted(name, "dropped");
                tracing::error!(receiver = name, "a message is dropped: {error}");
                return;
            }
            if !is_told {
                tracing::warn!(
                    receiver = name,
                    "a message did not arrive and is sent again: {error}"
                );
                is_told = true;
            }
            let asked = error.after.unwrap_or_default().min(RETRY_MAX);
            tokio::select! {
                () = tokio::time::sleep(wait.max(asked)) => {}
                // What was in the way may be mended.
                Ok(()) = self.goals.changed() => {}
            }
            wait = (wait * 2).min(RETRY_MAX);
        }
    }
}
