//! Opens engines, each on a thread of its own: one may never return where its store does not answer,
//! and the others do not wait for it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::engine::{Engine, OpenError, shared_among};

/// So long an engine may take to be opened before it counts as one that cannot be.
pub(super) const OPEN_MAX: Duration = Duration::from_secs(30);

/// An engine, and the places that are its own.
pub(super) type Sight = (Arc<dyn Engine>, Vec<PathBuf>);

/// Opens an engine. May block.
pub(super) type Open = Arc<dyn Fn() -> Result<Sight, OpenError> + Send + Sync>;

/// An engine that is being opened.
pub(super) struct Opening {
    engine: String,
    task: JoinHandle<Result<Sight, OpenError>>,
}

impl Opening {
    /// Begins.
    pub(super) fn begin(engine: &str, open: Open) -> Self {
        Self { engine: engine.to_owned(), task: tokio::task::spawn_blocking(move || open()) }
    }

    /// What comes of it until then; it goes on where that is nothing.
    pub(super) async fn until(
        mut self,
        deadline: Instant,
    ) -> Result<Result<Sight, OpenError>, Self> {
        match timeout_at(deadline, &mut self.task).await {
            Ok(Ok(opened)) => Ok(opened),
            Ok(Err(error)) => Ok(Err(self.failed(format!("it ended unexpectedly: {error}")))),
            Err(_) => Err(self),
        }
    }

    fn failed(&self, message: String) -> OpenError {
        OpenError { engine: self.engine.clone(), message }
    }

    /// What is told where it does not return.
    pub(super) fn hangs(&self) -> OpenError {
        let seconds = OPEN_MAX.as_secs();
        self.failed(format!("it has not answered for {seconds} s: is its store there?"))
    }
}

/// Openings that have not returned, by what they open: none is begun a second time.
#[derive(Default)]
pub(super) struct Openings(Mutex<BTreeMap<String, Opening>>);

impl Openings {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Opening>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens all of them at once.
    pub(super) async fn all(
        &self,
        engines: Vec<(String, (&str, Open))>,
    ) -> Vec<Result<Sight, OpenError>> {
        let deadline = Instant::now() + OPEN_MAX;
        let open_one = |(key, (engine, open)): (String, (&str, Open))| {
            let hanging = self.lock().remove(&key);
            (key, hanging.unwrap_or_else(|| Opening::begin(engine, open)))
        };
        let begun: Vec<(String, Opening)> = engines.into_iter().map(open_one).collect();
        let mut all = Vec::new();
        for (key, opening) in begun {
            all.push(match opening.until(deadline).await {
                Ok(opened) => opened,
                Err(opening) => {
                    let error = opening.hangs();
                    self.lock().insert(key, opening);
                    Err(error)
                }
            });
        }
        all
    }
}

/// The places of the engines that are in force, as they were when they were opened: what is opened
/// late shares a place with none of them, and nobody has to look at a store that does not answer.
#[derive(Default)]
pub(super) struct Neighbours(Mutex<Vec<(String, Vec<PathBuf>)>>);

impl Neighbours {
    fn lock(&self) -> MutexGuard<'_, Vec<(String, Vec<PathBuf>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These are in force now. One of which nothing was seen has the places that it had.
    pub(super) fn are(&self, mut engines: Vec<(String, Vec<PathBuf>)>) {
        let mut known = self.lock();
        for (name, places) in engines.iter_mut().filter(|(_, places)| places.is_empty()) {
            let before = known.iter().find(|(engine, _)| engine == name);
            *places = before.map(|(_, places)| places.clone()).unwrap_or_default();
        }
        *known = engines;
    }

    /// The places of an engine, where it was opened.
    pub(super) fn places(&self, engine: &str) -> Vec<PathBuf> {
        let engines = self.lock();
        let found = engines.iter().find(|(name, _)| name == engine);
        found.map(|(_, places)| places.clone()).unwrap_or_default()
    }

    /// An engine was opened late; the error says whose place it is over.
    pub(super) fn joins(&self, engine: &str, places: Vec<PathBuf>) -> Result<(), OpenError> {
        let mut engines = self.lock();
        let others = engines.iter().filter(|(name, _)| name != engine);
        // The last one is the one that is in the way.
        let all: Vec<_> = others.cloned().chain([(engine.to_owned(), places)]).collect();
        if let Some(error) = shared_among(&all) {
            return Err(error);
        }
        *engines = all;
        Ok(())
    }
}

#[cfg(test)]
#[cfg(feature = "local")]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Sender, channel};

    use super::*;
    use crate::clock::SystemClock;
    use crate::engine::local;
    use crate::watch::unopened::Unopened;

    /// Opens at once.
    fn quick(directory: &tempfile::TempDir) -> Open {
        let base = directory.path().to_owned();
        std::fs::create_dir_all(base.join("instances")).unwrap();
        let settings = serde_json::json!({"instances": "instances", "store": "store"});
        Arc::new(move || {
            let engine = local::open("one", &settings, &base, Arc::new(SystemClock)).unwrap();
            let places = engine.places();
            Ok((engine, places))
        })
    }

    /// Opens once that is said, and counts how often somebody has begun to.
    fn hung(quick: Open) -> (Sender<()>, Arc<AtomicUsize>, Open) {
        let (sender, said) = channel();
        let (said, begun) = (Mutex::new(said), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&begun);
        let open = move || {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = said.lock().unwrap().recv();
            quick()
        };
        (sender, begun, Arc::new(open))
    }

    /// Counts how often it has opened.
    fn counted(open: Open) -> (Arc<AtomicUsize>, Open) {
        let opened = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&opened);
        let open = move || {
            let opened = open();
            count.fetch_add(1, Ordering::SeqCst);
            opened
        };
        (opened, Arc::new(open))
    }

    /// Time does not pass by itself while a thread may block: it does from when something is so.
    async fn passing<T>(is_so: impl Fn() -> bool, work: impl Future<Output = T>) -> T {
        let passes = async {
            loop {
                if !is_so() {
                    tokio::task::yield_now().await;
                    continue;
                }
                tokio::time::advance(Duration::from_millis(10)).await;
                std::thread::yield_now();
            }
        };
        tokio::select! {
            done = work => done,
            () = passes => unreachable!(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_return_keeps_no_other_waiting_and_is_begun_once() {
        let directory = tempfile::tempdir().unwrap();
        let (answers, begun, hung) = hung(quick(&directory));
        let (count, quick) = counted(quick(&directory));
        let both = || {
            let hung = ("hung".to_owned(), ("hung", Arc::clone(&hung)));
            vec![hung, ("quick".to_owned(), ("quick", Arc::clone(&quick)))]
        };
        let openings = Openings::default();
        for times in 1..4 {
            let start = Instant::now();
            let is_open = || count.load(Ordering::SeqCst) == times;
            let mut opened = passing(is_open, openings.all(both())).await;
            assert!((OPEN_MAX..OPEN_MAX * 2).contains(&start.elapsed()));
            assert!(opened.pop().is_some_and(|quick| quick.is_ok()), "it does not wait");
            let Some(Err(error)) = opened.pop() else { panic!("it was opened") };
            assert_eq!(error.engine, "hung");
            assert!(error.message.contains("has not answered for 30 s"), "{}", error.message);
        }
        assert_eq!(begun.load(Ordering::SeqCst), 1);
        answers.send(()).unwrap();
        let opened = openings.all(both()).await;
        assert!(opened.iter().all(Result::is_ok));
        assert_eq!(begun.load(Ordering::SeqCst), 1, "what came of it was taken");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_opened_late_and_hangs_is_a_gap_and_holds_up_no_neighbour() {
        let directory = tempfile::tempdir().unwrap();
        let (answers, begun, hung) = hung(quick(&directory));
        let neighbours = Arc::default();
        let engine = Unopened::new("late", hung, &neighbours);
        for _ in 0..2 {
            let seen = passing(|| true, engine.observe()).await;
            assert!(seen.gaps[0].message.contains("has not answered"), "{seen:?}");
        }
        neighbours.are(Vec::new());
        assert_eq!(begun.load(Ordering::SeqCst), 1);
        answers.send(()).unwrap();
        assert_eq!(engine.observe().await.kind, "local");
    }
}
