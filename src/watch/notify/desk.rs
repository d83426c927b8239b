//! The desk: waits until something is to be told, writes the messages and hands them to the queues.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::ping::Pinger;
use super::queue::Queue;
use super::{Courier, locked, memory};
use crate::alert::{Digest, Told, digest_of};
use crate::clock::Clock;
use crate::policy::meant::{Notify as Settings, Ping, Receiver};
use crate::report::clean;
use crate::watch::{Pace, Status};

/// The longest time without a look at the clock, which may have been set.
const LOOK: Duration = Duration::from_hours(1);
/// At the end what waits has so long to arrive.
const LAST_WORD: Duration = Duration::from_secs(5);

/// Who is told, and where things are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::watch) struct Orders {
    /// As it is configured.
    pub(in crate::watch) settings: Settings,
    /// The name of the configuration.
    pub(in crate::watch) name: String,
    /// What paths are relative to.
    pub(in crate::watch) base: PathBuf,
    /// The file in which it stands what was told.
    pub(in crate::watch) memory: PathBuf,
}

/// Tells people for as long as it lives.
pub(in crate::watch) struct Desk {
    office: Arc<Office>,
    task: JoinHandle<()>,
}

struct Office {
    status: Arc<Status>,
    clock: Arc<dyn Clock>,
    courier: Arc<dyn Courier>,
    pace: Pace,
    work: Mutex<Work>,
    /// The orders have changed.
    ordered: Notify,
}

#[derive(Default)]
struct Work {
    orders: Orders,
    queues: Vec<Queue>,
    pingers: Vec<Pinger>,
}

impl Desk {
    /// Begins.
    pub(in crate::watch) fn open(
        status: Arc<Status>,
        clock: Arc<dyn Clock>,
        courier: Arc<dyn Courier>,
        pace: Pace,
        orders: Orders,
    ) -> Self {
        if !orders.settings.receivers.is_empty() {
            status.notices.remember(memory::read(&orders.memory));
        }
        let (work, ordered) = (Mutex::default(), Notify::new());
        let office = Arc::new(Office { status, clock, courier, pace, work, ordered });
        office.follow(orders);
        let task = tokio::spawn(Arc::clone(&office).run());
        Self { office, task }
    }

    /// Follows other orders from now on.
    pub(in crate::watch) fn follow(&self, orders: Orders) {
        self.office.follow(orders);
    }

    /// Ends: what is to be told goes out, and has a moment to arrive, unless there is a hurry.
    pub(in crate::watch) async fn close(&self, is_urgent: bool) {
        self.task.abort();
        self.office.tell();
        let queues = std::mem::take(&mut locked(&self.office.work).queues);
        let deadline = Instant::now() + if is_urgent { Duration::ZERO } else { LAST_WORD };
        let notices = &self.office.status.notices;
        let closed = join_all(queues.into_iter().map(|queue| queue.close(deadline, notices))).await;
        let lost: BTreeSet<Timestamp> = closed.into_iter().flatten().collect();
        let has_settled = notices.settle(&lost);
        if has_settled || !lost.is_empty() {
            notices.untell(&lost);
            memory::write(&locked(&self.office.work).orders.memory, notices.told());
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.task.abort();
        let mut work = locked(&self.office.work);
        let notices = &self.office.status.notices;
        work.queues.drain(..).for_each(|queue| queue.abandon(notices, "watching has ended"));
        work.pingers.clear();
    }
}

impl Office {
    fn follow(&self, orders: Orders) {
        let mut work = locked(&self.work);
        let names: BTreeSet<&str> =
            orders.settings.receivers.iter().map(|receiver| receiver.name.as_str()).collect();
        // Who is new counts before anything is put into the queue; who is not is counted to the end.
        self.status.notices.expect(&names);
        // What waits for a receiver of the same name goes on waiting, for whoever that is now.
        let mut before = std::mem::take(&mut work.queues);
        for receiver in &orders.settings.receivers {
            let known = before.iter().position(|queue| queue.name() == receiver.name);
            let known = known.map(|position| before.swap_remove(position));
            work.queues.push(self.queue(known, receiver, &orders.base));
        }
        let notices = &self.status.notices;
        let why = "it is no receiver any more";
        for queue in before {
            queue.abandon(notices, why);
        }
        self.status.notices.receivers(&names);
        let mut before = std::mem::take(&mut work.pingers);
        for ping in &orders.settings.pings {
            let known = before.iter().position(|pinger| pinger.is_for(ping));
            let known = known.map(|position| before.swap_remove(position));
            work.pingers.push(self.pinger(known, ping, &orders.base));
        }
        *locked(&notices.beats) = work.pingers.iter().map(Pinger::beats).collect();
        work.orders = orders;
        drop(work);
        self.ordered.notify_one();
    }

    /// The queue of a receiver, which may be there already.
    fn queue(&self, known: Option<Queue>, receiver: &Receiver, base: &Path) -> Queue {
        let (receiver, base) = (receiver.clone(), base.to_owned());
        match known {
            Some(known) if known.is_open() => {
                known.follow(receiver, base);
                return known;
            }
            Some(known) => known.abandon(&self.status.notices, "its queue has broken down"),
            None => {}
        }
        let (status, courier) = (Arc::clone(&self.status), Arc::clone(&self.courier));
        Queue::new(receiver, base, status, courier, self.pace.retry)
    }

    fn pinger(&self, known: Option<Pinger>, ping: &Ping, base: &Path) -> Pinger {
        let (ping, base) = (ping.clone(), base.to_owned());
        if let Some(known) = known {
            known.follow(ping, base);
            return known;
        }
        let (status, courier) = (Arc::clone(&self.status), Arc::clone(&self.courier));
        Pinger::new(ping, base, status, courier, self.pace.retry)
    }

    async fn run(self: Arc<Self>) {
        loop {
            let next = self.next().map(|at| at.duration_since(self.clock.now()).unsigned_abs());
            tokio::select! {
                // What comes shortly after is told with it.
                () = self.status.notices.changed.notified() => {
                    tokio::time::sleep(self.pace.group).await;
                }
                () = self.ordered.notified() => {
                    self.settle();
                    continue;
                }
                () = self.status.notices.settled.notified() => {
                    self.settle();
                    continue;
                }
                () = tokio::time::sleep(next.unwrap_or(LOOK).min(LOOK)) => {}
            }
            self.tell();
        }
    }

    /// When something is told again; the past counts as now. Nothing is where there is nobody to tell.
    fn next(&self) -> Option<Timestamp> {
        let work = locked(&self.work);
        if work.queues.is_empty() {
            return None;
        }
        let repeat = work.orders.settings.repeat_interval;
        drop(work);
        let next = self.status.notices.next(repeat);
        next.map(|at| at.max(self.clock.now()))
    }

    /// Writes what is to be told, and hands it on.
    fn tell(&self) {
        let work = locked(&self.work);
        let Orders { settings, name, memory, .. } = &work.orders;
        if settings.receivers.is_empty() {
            return;
        }
        let now = self.clock.now();
        let notices = &self.status.notices;
        let Some(digest) = notices.take(settings.repeat_interval, now) else { return };
        let about = Arc::new(subjects(&digest));
        let mut written = BTreeMap::new();
        for queue in &work.queues {
            let on = queue.on();
            let message = written
                .entry(on.clone())
                .or_insert_with(|| digest_of(&digest, &on, name, clean, now).map(Arc::new));
            if let Some(message) = message {
                queue.put(message, &about, notices);
            }
        }
        notices.settle(&waiting(&work.queues));
        memory::write(memory, notices.told());
    }

    /// Remembers no longer what people have heard the end of.
    fn settle(&self) {
        let work = locked(&self.work);
        let notices = &self.status.notices;
        if notices.settle(&waiting(&work.queues)) {
            memory::write(&work.orders.memory, notices.told());
        }
    }
}

/// What a message is about, as numbers: there may be many.
fn subjects(digest: &Digest) -> BTreeSet<u64> {
    let told = digest.new.iter().chain(&digest.still).chain(&digest.over);
    let number = |told: &Told| {
        let mut hasher = DefaultHasher::new();
        told.condition.subject.hash(&mut hasher);
        hasher.finish()
    };
    told.map(number).collect()
}

/// When the messages were written that wait.
fn waiting(queues: &[Queue]) -> BTreeSet<Timestamp> {
    queues.iter().flat_map(Queue::waiting).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::clock::SystemClock;
    use crate::elapsed::Elapsed;
    use crate::policy::meant::{Exec, Occasion, Way};
    use crate::watch::Post;

    #[tokio::test]
    async fn where_nobody_is_told_nothing_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let office = Office {
            status: Arc::default(),
            clock: Arc::new(SystemClock),
            courier: Arc::new(Post::new(|_| None)),
            pace: Pace::default(),
            work: Mutex::default(),
            ordered: Notify::new(),
        };
        let exec = Exec {
            program: "true".to_owned(),
            arguments: Vec::new(),
            timeout: Elapsed::minutes(1),
        };
        let on = BTreeSet::from(Occasion::ALL);
        let receiver = Receiver { name: "ops".to_owned(), on, way: Way::Exec(exec) };
        let settings = Settings { receivers: vec![receiver], ..Settings::default() };
        let memory = directory.path().join("told.json");
        let orders = Orders { settings, memory, ..Orders::default() };
        office.follow(orders.clone());
        office.status.notices.round_failed("one", "broken".to_owned(), office.clock.now());
        office.tell();
        assert!(office.next().is_some());
        office.follow(Orders { settings: Settings::default(), ..orders });
        assert_eq!(office.next(), None, "what holds would be due for ever");
    }
}
