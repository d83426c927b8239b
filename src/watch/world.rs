//! Where policies and engines come from.

use std::path::PathBuf;
use std::sync::Arc;

use crate::apply::Ledger;
use crate::clock::Clock;
use crate::engine::Engine;
use crate::files;
use crate::policy::{Code, Finding, Policies};
use crate::reconcile::{Room, RoomError};

/// What came of reading the policies.
#[derive(Debug)]
pub struct Reading {
    /// The policies, where they are valid.
    pub policies: Option<Policies>,
    /// What was found.
    pub findings: Vec<Finding>,
    /// The files that were read.
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
    /// Files and directories.
    pub paths: Vec<PathBuf>,
    /// The environment whose overlay holds.
    pub environment: Option<String>,
    /// The clock of the engines.
    pub clock: Arc<dyn Clock>,
    /// What is different from the files, as the command line says.
    pub adjust: Adjust,
}

/// Changes policies that were read; the error says what is in the way.
pub type Adjust = Box<dyn Fn(&mut Policies) -> Result<(), String> + Send + Sync>;

impl World for Files {
    fn read(&self) -> Reading {
        match files::load(&self.paths, self.environment.as_deref(), false, None) {
            Ok(read) => {
                let mut reading = Reading {
                    policies: read.loaded.policies,
                    findings: read.loaded.findings,
                    files: read.files,
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
        let room = Room::open(Arc::clone(policies), Arc::clone(&self.clock), Vec::new())?;
        let mut opened = Opened { engines: room.engines, ledger: room.ledger };
        let Some((former, before)) = before else { return Ok(opened) };
        for engine in &mut opened.engines {
            let name = engine.name().to_owned();
            let known = before.engines.iter().find(|known| known.name() == name);
            let (Some(known), true) = (known, same_settings(former, policies, &name)) else {
                continue;
            };
            stays(&format!("the engine {name}"), &known.places(), &engine.places())?;
            // It knows what it has asked for lately.
            *engine = Arc::clone(known);
        }
        let is_same_file = former.config.file == policies.config.file;
        if is_same_file && former.config.ledger == policies.config.ledger {
            let (was, is) = (before.ledger.path().to_owned(), opened.ledger.path().to_owned());
            stays("the ledger", &[was], &[is])?;
            opened.ledger = Arc::clone(&before.ledger);
        }
        Ok(opened)
    }
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
