//! Where policies and engines come from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::opening::{Neighbours, Open, Openings};
use super::unopened::Unopened;
use crate::apply::Ledger;
use crate::clock::Clock;
use crate::engine::{Engine, OpenError, OpenErrors, open_each, shared_among};
use crate::files::{self, Given};
use crate::policy::{Code, Config, Finding, Policies};
use crate::reconcile::{RoomError, base};

/// What came of reading the policies.
#[derive(Debug)]
pub struct Reading {
    /// The policies, where they are valid.
    pub policies: Option<Policies>,
    /// What was found.
    pub findings: Vec<Finding>,
    /// The files that were read, the links to directories on the way to them, and what is included,
    /// whether anything was there to be read or not.
    pub files: Vec<PathBuf>,
}

impl Reading {
    /// One of which nothing came.
    pub(super) fn failed(message: String) -> Self {
        let findings = vec![Finding::nowhere(Code::UnreadableFile, message)];
        Self { policies: None, findings, files: Vec::new() }
    }
}

/// What was opened for policies.
#[derive(Clone)]
pub struct Opened {
    /// The engines, in the order of their names.
    pub engines: Vec<Arc<dyn Engine>>,
    /// The ledger.
    pub ledger: Arc<Ledger>,
}

impl Opened {
    /// Whether it is the same as before.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let mut pairs = self.engines.iter().zip(&other.engines);
        self.engines.len() == other.engines.len()
            && pairs.all(|(one, other)| Arc::ptr_eq(one, other))
            && Arc::ptr_eq(&self.ledger, &other.ledger)
    }

    /// The engines that are not those of before, by whatever name.
    pub(super) fn others<'a>(&'a self, before: &Self) -> impl Iterator<Item = &'a str> {
        let is_known =
            |engine: &&Arc<dyn Engine>| before.engines.iter().any(|one| Arc::ptr_eq(one, engine));
        let others = self.engines.iter().filter(move |engine| !is_known(engine));
        others.map(|engine| engine.name())
    }
}

/// Why engines or the ledger cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// What rounds need is not there.
    #[error(transparent)]
    Room(#[from] RoomError),
    /// It was not looked at to the end.
    #[error("opening ended unexpectedly: {0}")]
    Ended(String),
    /// A relative path leads elsewhere than before, though nobody has changed it.
    #[error(
        "{what} would move from {before} to {after}, because its path is relative to a file behind a link \
         that was swapped: write an absolute path"
    )]
    Moved {
        /// What.
        what: String,
        /// Where it was.
        before: String,
        /// Where it would be.
        after: String,
    },
}

/// Where policies and engines come from. Either may take long, or never return where a file system
/// does not answer: who asks goes on meanwhile, and asks again.
#[async_trait]
pub trait World: Send + Sync + 'static {
    /// Reads the policies as they are now.
    async fn read(&self) -> Reading;

    /// Opens what policies name. What was opened for the policies before is taken over where it
    /// still is what they mean.
    async fn open(
        &self,
        policies: &Arc<Policies>,
        before: Option<(&Policies, &Opened)>,
    ) -> Result<Opened, WorldError>;
}

/// So many readings may be under way, because they hang, before no other is begun.
const HANGING_MAX: usize = 4;

/// Policies in files, and the engines that they name.
pub struct Files {
    sources: Arc<Sources>,
    clock: Arc<dyn Clock>,
    neighbours: Arc<Neighbours>,
    openings: Openings,
    /// A place for each reading that may hang.
    readings: Arc<Semaphore>,
    /// Why engines are not opened anew, as it was said.
    told: Mutex<BTreeMap<String, String>>,
}

/// Engines, and the places of each by its name.
type Found = (Vec<Arc<dyn Engine>>, Vec<(String, Vec<PathBuf>)>);

/// What is read.
struct Sources {
    paths: Vec<PathBuf>,
    environment: Option<String>,
    endpoints: Vec<String>,
    adjust: Adjust,
}

impl Files {
    /// Files and directories, what the command line says beside them, the clock of the engines, and what
    /// is different from the files for that.
    pub fn new(
        paths: Vec<PathBuf>,
        given: Given<'_>,
        clock: Arc<dyn Clock>,
        adjust: Adjust,
    ) -> Self {
        let (environment, endpoints) =
            (given.environment.map(str::to_owned), given.endpoints.to_vec());
        Self {
            sources: Arc::new(Sources { paths, environment, endpoints, adjust }),
            clock,
            neighbours: Arc::default(),
            openings: Openings::default(),
            readings: Arc::new(Semaphore::new(HANGING_MAX)),
            told: Mutex::default(),
        }
    }

    /// An engine stays as it was opened; why is said when it is new.
    fn stays_open(&self, engine: &str, why: Option<&OpenError>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(why) = why else {
            told.remove(engine);
            return;
        };
        if told.insert(engine.to_owned(), why.message.clone()).as_ref() != Some(&why.message) {
            tracing::warn!(engine, "it stays as it was opened: {}", why.message);
        }
    }

    /// Opens one engine of a configuration.
    fn opener(&self, name: &str, config: &Config, base: &Path) -> Open {
        let (mut own, base) = (config.clone(), base.to_owned());
        own.engines.retain(|one, _| one == name);
        let (name, clock) = (name.to_owned(), Arc::clone(&self.clock));
        Arc::new(move || {
            let missing = || OpenError { engine: name.clone(), message: String::new() };
            let engine = open_each(&own, &base, &clock).pop().ok_or_else(missing)??;
            let places = engine.places();
            Ok((engine, places))
        })
    }

    /// The engines of policies. One that is configured as before is the one of before. One that
    /// cannot be opened, or does not answer, is in the way of a change, and at a start of none but
    /// itself.
    async fn engines(
        &self,
        policies: &Policies,
        base: &Path,
        before: Option<(&Policies, &Opened)>,
    ) -> Result<Found, WorldError> {
        let config = &policies.config;
        let openers: Vec<(&str, Open)> = config
            .engines
            .keys()
            .map(|name| (name.as_str(), self.opener(name, config, base)))
            .collect();
        let keys = config.engines.iter().map(|(name, engine)| {
            format!("{name} {} {} {}", engine.kind, base.display(), engine.settings)
        });
        let opened = self.openings.all(keys.zip(openers.clone()).collect()).await;
        let (mut engines, mut places) = (Vec::new(), Vec::new());
        let (mut failed, mut in_the_way) = (Vec::new(), Vec::new());
        for ((name, opener), opened) in openers.into_iter().zip(opened) {
            let known = before.and_then(|(former, before)| {
                let known = before.engines.iter().find(|known| known.name() == name);
                known.filter(|_| same_settings(former, policies, name))
            });
            let (engine, own) = match (opened, known) {
                (Ok((_, is)), Some(known)) => {
                    stays(&format!("the engine {name}"), &self.neighbours.places(name), &is)?;
                    self.stays_open(name, None);
                    // It knows what it has asked for lately.
                    (Arc::clone(known), is)
                }
                (Err(error), Some(known)) => {
                    self.stays_open(name, Some(&error));
                    (Arc::clone(known), self.neighbours.places(name))
                }
                (Ok(opened), None) => opened,
                (Err(error), None) if before.is_some() => {
                    in_the_way.push(error);
                    continue;
                }
                (Err(error), None) => {
                    failed.push(error);
                    let unopened: Arc<dyn Engine> =
                        Arc::new(Unopened::new(name, opener, &self.neighbours));
                    (unopened, Vec::new())
                }
            };
            engines.push(engine);
            places.push((name.to_owned(), own));
        }
        if failed.len() == engines.len() {
            in_the_way.append(&mut failed);
        }
        in_the_way.extend(shared_among(&places));
        if in_the_way.is_empty() {
            Ok((engines, places))
        } else {
            Err(RoomError::from(OpenErrors(in_the_way)).into())
        }
    }
}

/// Changes policies that were read; the error says what is in the way.
pub type Adjust = Box<dyn Fn(&mut Policies) -> Result<(), String> + Send + Sync>;

impl Sources {
    fn read(&self) -> Reading {
        let given = Given { environment: self.environment.as_deref(), endpoints: &self.endpoints };
        match files::load(&self.paths, given, false, None) {
            Ok(read) => {
                let mut reading = Reading {
                    policies: read.loaded.policies,
                    findings: read.loaded.findings,
                    files: [read.files, read.links, read.included].concat(),
                };
                let adjusted = reading.policies.as_mut().map(|policies| (self.adjust)(policies));
                if let Some(Err(message)) = adjusted {
                    reading.policies = None;
                    reading.findings.push(Finding::nowhere(Code::UnreadableFile, message));
                }
                reading
            }
            Err(missing) => Reading::failed(missing.to_string()),
        }
    }
}

#[async_trait]
impl World for Files {
    async fn read(&self) -> Reading {
        let Ok(place) = Arc::clone(&self.readings).try_acquire_owned() else {
            let message = format!("{HANGING_MAX} readings have not returned: no other is begun");
            return Reading::failed(message);
        };
        let sources = Arc::clone(&self.sources);
        let read = tokio::task::spawn_blocking(move || {
            let _place = place;
            sources.read()
        });
        let failed = |error| Reading::failed(format!("reading ended unexpectedly: {error}"));
        read.await.unwrap_or_else(failed)
    }

    async fn open(
        &self,
        policies: &Arc<Policies>,
        before: Option<(&Policies, &Opened)>,
    ) -> Result<Opened, WorldError> {
        let own = Arc::clone(policies);
        let base = tokio::task::spawn_blocking(move || base(&own)).await;
        let base = base.map_err(|error| WorldError::Ended(error.to_string()))??;
        let (engines, places) = self.engines(policies, &base, before).await?;
        let ledger = files::joined(&base, &policies.config.ledger);
        let mut opened = Opened { engines, ledger: Arc::new(Ledger::new(ledger)) };
        if let Some((former, before)) = before {
            keep_ledger(policies, former, before, &mut opened)?;
        }
        self.neighbours.are(places);
        Ok(opened)
    }
}

/// The ledger of before, where it still is the one that is meant.
fn keep_ledger(
    policies: &Policies,
    former: &Policies,
    before: &Opened,
    opened: &mut Opened,
) -> Result<(), WorldError> {
    let is_same_file = former.config.file == policies.config.file;
    if is_same_file && former.config.ledger == policies.config.ledger {
        let (was, is) = (before.ledger.path().to_owned(), opened.ledger.path().to_owned());
        stays("the ledger", &[was], &[is])?;
        opened.ledger = Arc::clone(&before.ledger);
    }
    Ok(())
}

/// Whether an engine is configured as before.
fn same_settings(former: &Policies, policies: &Policies, engine: &str) -> bool {
    let of = |policies: &Policies| {
        let found = policies.config.engines.get(engine)?;
        Some((found.kind.clone(), found.settings.clone()))
    };
    // Relative paths are relative to the file: the other way round, moving it is meant.
    of(former) == of(policies) && former.config.file == policies.config.file
}

fn stays(what: &str, before: &[PathBuf], after: &[PathBuf]) -> Result<(), WorldError> {
    let Some((was, is)) = before.iter().zip(after).find(|(was, is)| was != is) else {
        return Ok(());
    };
    Err(WorldError::Moved {
        what: what.to_owned(),
        before: was.display().to_string(),
        after: is.display().to_string(),
    })
}
