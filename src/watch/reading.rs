//! Reading what the files hold and opening what that names, beside the loop: either may never return
//! where a file system does not answer, and the loop has engines, slots and signals to look after.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use super::world::{Opened, Reading, WorldError};
use super::{Control, FileWatcher, Watch};
use crate::elapsed::Elapsed;
use crate::policy::Policies;
use crate::reconcile::base;

/// So long a reading may take before it counts as one that failed.
pub(super) const READ_MAX: Duration = Duration::from_mins(1);
/// So long what begins waits for a reading that may change it.
const SOON: Duration = Duration::from_secs(5);

/// Watches the files that were read. That looks at them, so it is done on a thread that may block, by
/// one at a time: where one does not return the others cost no thread.
#[derive(Clone)]
pub(super) struct Follower(Option<(FileWatcher, Arc<Mutex<()>>)>);

impl Follower {
    pub(super) fn new(files: Option<FileWatcher>) -> Self {
        Self(files.map(|files| (files, Arc::default())))
    }

    /// Watches these from now on.
    async fn follow(&self, paths: Vec<PathBuf>) {
        self.with(move |files| files.follow(&paths)).await;
    }

    /// How often it looks where it has to. Nobody waits for that.
    pub(super) fn poll_every(&self, every: Elapsed) {
        let own = self.clone();
        tokio::spawn(async move { own.with(move |files| files.poll_every(every)).await });
    }

    async fn with(&self, work: impl FnOnce(&FileWatcher) + Send + 'static) {
        let Some((files, turn)) = &self.0 else { return };
        let (files, turn) = (files.clone(), Arc::clone(turn).lock_owned().await);
        let done = tokio::task::spawn_blocking(move || {
            work(&files);
            drop(turn);
        });
        if let Err(error) = done.await {
            tracing::error!("the files are not watched: {error}");
        }
    }
}

/// What came of a reading.
pub(super) struct Read {
    pub(super) reading: Reading,
    /// What was opened for the policies, where they are valid.
    pub(super) opened: Option<Result<InHand, WorldError>>,
}

/// Policies with what was opened for them: they can be put in force without another look at files.
pub(super) struct InHand {
    pub(super) policies: Arc<Policies>,
    pub(super) opened: Opened,
    /// What paths are relative to.
    pub(super) base: PathBuf,
}

/// A reading under way.
pub(super) struct UnderWay {
    task: JoinHandle<Read>,
    /// When it counts as failed.
    until: Instant,
    /// Whether somebody has asked for it.
    is_asked: bool,
}

impl UnderWay {
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// Waits for it. What waits is let go of without harm.
    pub(super) async fn ended(under_way: &mut Option<Self>) -> Result<Read, JoinError> {
        match under_way {
            Some(reading) => (&mut reading.task).await,
            None => std::future::pending().await,
        }
    }
}

impl Drop for UnderWay {
    /// What does not return is not waited for.
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Begins to read; `before` is what is in force.
pub(super) fn begin(
    watch: &Watch,
    follower: &Follower,
    before: Option<(Arc<Policies>, Opened)>,
    is_asked: bool,
) -> UnderWay {
    watch.status.reading_began(watch.clock.now());
    let (world, follower) = (Arc::clone(&watch.world), follower.clone());
    let task = tokio::spawn(async move {
        let mut reading = world.read().await;
        follower.follow(reading.files.clone()).await;
        let Some(policies) = reading.policies.take().map(Arc::new) else {
            return Read { reading, opened: None };
        };
        let before = before.as_ref().map(|(policies, opened)| (&**policies, opened));
        let opened = match world.open(&policies, before).await {
            Ok(opened) => {
                let own = Arc::clone(&policies);
                let base = tokio::task::spawn_blocking(move || base(&own)).await;
                // Where the file has gone its engines could not have been opened.
                let base = base.ok().and_then(Result::ok).unwrap_or_default();
                Ok(InHand { policies, opened, base })
            }
            Err(error) => Err(error),
        };
        Read { reading, opened: Some(opened) }
    });
    UnderWay { task, until: Instant::now() + READ_MAX, is_asked }
}

/// What a reading is that ended in no way it should.
pub(super) fn broken(error: &JoinError) -> Read {
    Read { reading: Reading::failed(format!("reading ended unexpectedly: {error}")), opened: None }
}

/// What is told where one does not return.
pub(super) fn hangs(watch: &Watch) {
    let message = format!(
        "reading the policies and opening their engines has not returned for {} s: a file system that \
         does not answer, most of all",
        READ_MAX.as_secs()
    );
    watch.status.refused(&message, watch.clock.now());
}

/// The first reading: there is nothing to go on with until it has returned. `None` where watching is
/// to end before.
pub(super) async fn first(watch: &Watch, follower: &Follower) -> Option<Read> {
    let mut under_way = Some(begin(watch, follower, None, false));
    let until = Instant::now() + READ_MAX;
    let mut is_told = false;
    let look = watch.look();
    while !watch.bell.is_stopping() {
        watch.system.alive();
        if !is_told && Instant::now() >= until {
            hangs(watch);
            is_told = true;
        }
        let next = Instant::now() + look;
        let next = if is_told { next } else { next.min(until) };
        tokio::select! {
            // What was said meanwhile is heard by the loop.
            () = watch.bell.rung() => {}
            read = UnderWay::ended(&mut under_way) => {
                watch.status.reading_ended();
                return Some(read.unwrap_or_else(|error| broken(&error)));
            }
            () = tokio::time::sleep_until(next) => {}
        }
    }
    None
}

impl Control {
    /// Reads the files again, and waits a moment for it: what begins then is what they say.
    pub(super) async fn reload(&mut self) {
        let is_asked = std::mem::take(&mut self.is_asked);
        // The system hears of what somebody has asked for, and of what changes something.
        if is_asked {
            self.watch.system.reloading();
        }
        let before = self.force.before();
        self.reading = Some(begin(&self.watch, &self.follower, Some(before), is_asked));
        let soon = Instant::now() + SOON.min(self.watch.look());
        while self.reading.is_some() && !self.watch.bell.is_stopping() {
            tokio::select! {
                read = UnderWay::ended(&mut self.reading) => self.was_read(read),
                () = self.watch.bell.rung() => self.heed_bell(),
                () = tokio::time::sleep_until(soon) => break,
            }
        }
    }

    /// Files were read; what is not valid changes nothing.
    pub(super) fn was_read(&mut self, read: Result<Read, JoinError>) {
        let is_asked = self.reading.take().is_some_and(|reading| reading.is_asked);
        self.watch.status.reading_ended();
        let Read { reading, opened } = read.unwrap_or_else(|error| broken(&error));
        let now = self.watch.clock.now();
        self.watch.status.read(&reading, opened.is_some(), now);
        let lease = self.force.settings().lease.clone();
        let is_accepted = matches!(opened, Some(Ok(_)));
        let mut is_other = false;
        match opened {
            None => {}
            Some(Ok(in_hand)) => {
                is_other = self.force.replace(&self.watch, in_hand);
                self.watch.status.accepted(now);
            }
            Some(Err(error)) => self.watch.status.refused(&error.to_string(), now),
        }
        if is_other {
            if !is_asked {
                self.watch.system.reloading();
            }
            self.in_force_anew(lease.as_ref(), now);
        }
        if is_asked || is_other {
            self.watch.system.ready();
        }
        self.read_again(is_accepted);
    }

    /// One that does not return counts as failed: it is told, and another one is tried in a while.
    pub(super) fn give_up_reading(&mut self) {
        if self.reading.as_ref().is_none_or(|reading| Instant::now() < reading.until()) {
            return;
        }
        let is_asked = self.reading.take().is_some_and(|reading| reading.is_asked);
        hangs(&self.watch);
        if is_asked {
            self.watch.system.ready();
        }
        self.read_again(false);
    }
}
