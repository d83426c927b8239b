//! The queue of a receiver: messages go out one after the other, and again where that may help. One
//! that the receiver cannot take holds up those that are about something else for moments only.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Courier, Notices, SendError, locked, mail};
use crate::alert::{Notification, Occasion};
use crate::policy::meant::{Receiver, Way};
use crate::watch::Status;

/// So many messages wait; what comes then is dropped.
const WAITING_MAX: usize = 64;
/// The longest wait between two attempts.
const RETRY_MAX: Duration = Duration::from_mins(15);
/// What has not arrived so long after it was written is dropped.
const DELIVERY_MAX: Duration = Duration::from_hours(24);
/// What fails so often lets others go on without it.
const OVERTAKEN_AFTER: u32 = 3;

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
    letters: mpsc::UnboundedSender<Letter>,
    /// When those that have not arrived yet were written.
    pending: Arc<Mutex<Vec<Timestamp>>>,
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
        let (letters, coming) = mpsc::unbounded_channel();
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
            letters: Vec::new(),
            wait: retry,
            is_asked: false,
        };
        let task = tokio::spawn(delivery.run(coming));
        Self { goal, name, letters, pending, task }
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

    /// When the messages were written that have not arrived yet.
    pub(super) fn waiting(&self) -> Vec<Timestamp> {
        locked(&self.pending).clone()
    }

    /// What it is told of.
    pub(super) fn on(&self) -> BTreeSet<Occasion> {
        self.goal.borrow().receiver.on.clone()
    }

    /// Takes a message about some things, without waiting for anything.
    pub(super) fn put(
        &self,
        message: &Arc<Notification>,
        about: &Arc<BTreeSet<u64>>,
        notices: &Notices,
    ) {
        let name = &self.name;
        let mut pending = locked(&self.pending);
        let letter = Letter {
            message: Arc::clone(message),
            about: Arc::clone(about),
            came: Instant::now(),
            failures: 0,
            left: Vec::new(),
        };
        if pending.len() < WAITING_MAX && self.letters.send(letter).is_ok() {
            pending.push(message.at);
            notices.waits(name, 1);
        } else {
            notices.counted(name, "dropped");
            tracing::error!(receiver = name, "a message is dropped: too many wait");
        }
    }

    /// Takes no more messages, and gives those that wait so long to arrive. Back comes when those were
    /// written that have not.
    pub(super) async fn close(self, deadline: Instant, notices: &Notices) -> Vec<Timestamp> {
        let Self { name, letters, pending, mut task, .. } = self;
        drop(letters);
        if tokio::time::timeout_at(deadline, &mut task).await.is_ok() {
            return Vec::new();
        }
        task.abort();
        let lost = notices.gives_up(&name);
        tracing::error!(
            receiver = name,
            "{lost} messages are dropped, for watching has ended; what still holds of them, and what has ended, is told after the next start"
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

/// A message that has not arrived.
struct Letter {
    message: Arc<Notification>,
    /// What it is about: one that is about the same comes after it.
    about: Arc<BTreeSet<u64>>,
    came: Instant,
    failures: u32,
    /// The addresses that it has not reached, where it has reached others.
    left: Vec<String>,
}

/// Delivers to a receiver.
struct Delivery {
    name: String,
    /// Who that is at present.
    goals: watch::Receiver<Goal>,
    status: Arc<Status>,
    courier: Arc<dyn Courier>,
    retry: Duration,
    pending: Arc<Mutex<Vec<Timestamp>>>,
    /// What has not arrived, in the order in which it was written.
    letters: Vec<Letter>,
    /// How long the oldest waits after its next failure.
    wait: Duration,
    /// Whether the receiver has asked for patience: nothing is sent before that is over.
    is_asked: bool,
}

impl Delivery {
    async fn run(mut self, mut coming: mpsc::UnboundedReceiver<Letter>) {
        let (mut is_closed, mut again_at) = (false, Instant::now());
        while !(is_closed && self.letters.is_empty()) {
            let waits = !self.letters.is_empty();
            tokio::select! {
                letter = coming.recv(), if !is_closed => match letter {
                    Some(letter) => {
                        self.letters.push(letter);
                        if waits && !self.is_asked {
                            self.overtake().await;
                        } else if !waits {
                            again_at = self.deliver().await;
                        }
                    }
                    None => is_closed = true,
                },
                () = tokio::time::sleep_until(again_at), if waits => {
                    again_at = self.deliver().await;
                }
                // What was in the way may be mended.
                Ok(()) = self.goals.changed(), if waits => again_at = self.deliver().await,
            }
        }
    }

    /// Sends one after the other, until one does not arrive; back comes when that is sent again.
    async fn deliver(&mut self) -> Instant {
        let mut asked = None;
        while !self.letters.is_empty() {
            if let Err(error) = self.send(0).await {
                asked = error.after;
                break;
            }
            self.wait = self.retry;
        }
        // Who asks for patience has it for all, also for what comes meanwhile.
        self.is_asked = asked.is_some();
        if !self.is_asked {
            self.overtake().await;
        }
        self.expire();
        let wait = self.wait.max(asked.unwrap_or_default().min(RETRY_MAX));
        self.wait = (self.wait * 2).min(RETRY_MAX);
        Instant::now() + wait
    }

    /// Where the oldest fails again and again others go on without it, those first that failed least,
    /// until one of them fails as well: then it is not the message.
    async fn overtake(&mut self) {
        while self.letters.first().is_some_and(|first| first.failures >= OVERTAKEN_AFTER) {
            let may = |position: &usize| {
                let (before, rest) = self.letters.split_at(*position);
                before.iter().all(|letter| letter.about.is_disjoint(&rest[0].about))
            };
            let others = (1..self.letters.len()).filter(may);
            let next = others.min_by_key(|position| (self.letters[*position].failures, *position));
            let Some(next) = next else { return };
            if self.send(next).await.is_err() {
                return;
            }
        }
    }

    /// Sends one of those that wait; an error where it is to be sent again.
    async fn send(&mut self, position: usize) -> Result<(), SendError> {
        let (name, notices) = (self.name.as_str(), &self.status.notices);
        let Goal { mut receiver, base } = self.goals.borrow_and_update().clone();
        let letter = &mut self.letters[position];
        if let Way::Email(email) = &mut receiver.way
            && !letter.left.is_empty()
        {
            mail::narrow(email, &letter.left);
        }
        let sent = self.courier.send(&base, &receiver, &letter.message).await;
        let Err(error) = sent else {
            notices.counted(name, "sent");
            if letter.failures > 0 {
                tracing::info!(receiver = name, "the message has arrived after all");
            }
            self.settled(position);
            return Ok(());
        };
        notices.counted(name, "failed");
        if !error.is_passing {
            notices.counted(name, "dropped");
            tracing::error!(receiver = name, "a message is dropped: {error}");
            self.settled(position);
            return Ok(());
        }
        letter.failures += 1;
        if !error.left.is_empty() {
            letter.left.clone_from(&error.left);
        }
        if letter.failures == 1 {
            tracing::warn!(receiver = name, "a message did not arrive and is sent again: {error}");
        }
        Err(error)
    }

    /// Drops what was written too long ago.
    fn expire(&mut self) {
        while let Some(first) = self.letters.first()
            && first.came.elapsed() >= DELIVERY_MAX
        {
            let name = self.name.as_str();
            self.status.notices.counted(name, "dropped");
            let failures = first.failures;
            tracing::error!(
                receiver = name,
                "a message is dropped: it has not arrived for a day, after {failures} attempts"
            );
            self.settled(0);
        }
    }

    /// One of them waits no longer.
    fn settled(&mut self, position: usize) {
        let letter = self.letters.remove(position);
        let mut pending = locked(&self.pending);
        if let Some(one) = pending.iter().position(|at| *at == letter.message.at) {
            pending.remove(one);
        }
        drop(pending);
        self.status.notices.waits(&self.name, -1);
        self.status.notices.settled.notify_one();
    }
}
