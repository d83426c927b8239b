//! Where policies and engines come from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::unopened::{Neighbours, Open, Unopened};
use crate::apply::Ledger;
use crate::clock::Clock;
use crate::engine::{Engine, OpenError, open_each, shared_place};
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

/// Where policies and engines come from.
pub trait World: Send + Sync + 'static {
    /// Reads the policies as they are now. May block.
    fn read(&self) -> Reading;

    /// Opens what policies name. What was opened for the policies before is taken over where it
    /// still is what they mean.
    fn open(
        &self,
        policies: &Arc<Policies>,
        before: Option<(&Policies, &Opened)>,
    ) -> Result<Opened, WorldError>;
}

/// Reads on a thread that may block.
pub(super) async fn read(world: &Arc<dyn World>) -> Reading {
    let world = Arc::clone(world);
    let read = tokio::task::spawn_blocking(move || world.read()).await;
    read.unwrap_or_else(|error| Reading {
        policies: None,
        findings: vec![Finding::nowhere(
            Code::UnreadableFile,
            format!("reading ended unexpectedly: {error}"),
        )],
        files: Vec::new(),
    })
}

/// Policies in files, and the engines that they name.
pub struct Files {
    paths: Vec<PathBuf>,
    environment: Option<String>,
    endpoints: Vec<String>,
    clock: Arc<dyn Clock>,
    adjust: Adjust,
    neighbours: Arc<Neighbours>,
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
        Self { paths, environment, endpoints, clock, adjust, neighbours: Arc::default() }
    }

    /// Opens one engine of a configuration.
    fn opener(&self, name: &str, config: &Config, base: &Path) -> Open {
        let (mut own, base) = (config.clone(), base.to_owned());
        own.engines.retain(|one, _| one == name);
        let (name, clock) = (name.to_owned(), Arc::clone(&self.clock));
        Box::new(move || {
            let missing = || OpenError { engine: name.clone(), message: String::new() };
            open_each(&own, &base, &clock).pop().ok_or_else(missing)?
        })
    }

    /// The engines of policies. One that is configured as before is the one of before. One that
    /// cannot be opened is in the way of a change, and at a start of none but itself.
    fn engines(
        &self,
        policies: &Policies,
        before: Option<(&Policies, &Opened)>,
    ) -> Result<Vec<Arc<dyn Engine>>, WorldError> {
        let (config, base) = (&policies.config, base(policies)?);
        let mut engines: Vec<Arc<dyn Engine>> = Vec::new();
        let mut failed: Vec<OpenError> = Vec::new();
        for (name, opened) in config.engines.keys().zip(open_each(config, &base, &self.clock)) {
            let known = before.and_then(|(former, before)| {
                let known = before.engines.iter().find(|known| known.name() == name);
                known.filter(|_| same_settings(former, policies, name))
            });
            engines.push(match (opened, known) {
                (Ok(engine), Some(known)) => {
                    stays(&format!("the engine {name}"), &known.places(), &engine.places())?;
                    // It knows what it has asked for lately.
                    Arc::clone(known)
                }
                (Err(_), Some(known)) => Arc::clone(known),
                (Ok(engine), None) => engine,
                (Err(error), None) if before.is_some() => return Err(RoomError::from(error).into()),
                (Err(error), None) => {
                    failed.push(error);
                    Arc::new(Unopened::new(
                        name,
                        self.opener(name, config, &base),
                        &self.neighbours,
                    ))
                }
            });
        }
        let is_nothing_left = failed.len() == engines.len();
        let shared = shared_place(&engines);
        match shared.or(failed.into_iter().next().filter(|_| is_nothing_left)) {
            Some(error) => Err(RoomError::from(error).into()),
            None => Ok(engines),
        }
    }
}

/// Changes policies that were read; the error says what is in the way.
pub type Adjust = Box<dyn Fn(&mut Policies) -> Result<(), String> + Send + Sync>;

impl World for Files {
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
            Err(missing) => Reading {
                policies: None,
                findings: vec![Finding::nowhere(Code::UnreadableFile, missing.to_string())],
                files: Vec::new(),
            },
        }
    }

    fn open(
        &self,
        policies: &Arc<Policies>,
        before: Option<(&Policies, &Opened)>,
    ) -> Result<Opened, WorldError> {
        let engines = self.engines(policies, before)?;
        let ledger = files::joined(&base(policies)?, &policies.config.ledger);
        let mut opened = Opened { engines, ledger: Arc::new(Ledger::new(ledger)) };
        if let Some((former, before)) = before {
            keep_ledger(policies, former, before, &mut opened)?;
        }
        self.neighbours.are(&opened.engines);
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
