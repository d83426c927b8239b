//! Opens the engines of a configuration, and says all that is in the way.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Engine, open_each};
use crate::clock::Clock;
use crate::policy::Config;

/// Why an engine could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("engine {engine}: {message}")]
pub struct OpenError {
    /// The name of the engine.
    pub engine: String,
    /// What is in the way, and what to do.
    pub message: String,
}

/// Why engines could not be opened: all of them, so that nobody mends one after the other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct OpenErrors(pub Vec<OpenError>);

impl From<OpenError> for OpenErrors {
    fn from(error: OpenError) -> Self {
        Self(vec![error])
    }
}

/// Opens the engines of a configuration, all or none. Paths in settings are relative to `base`.
pub fn open_all(
    config: &Config,
    base: &Path,
    clock: &Arc<dyn Clock>,
) -> Result<Vec<Arc<dyn Engine>>, OpenErrors> {
    let (mut engines, mut errors) = (Vec::new(), Vec::new());
    for opened in open_each(config, base, clock) {
        match opened {
            Ok(engine) => engines.push(engine),
            Err(error) => errors.push(error),
        }
    }
    errors.extend(shared_place(&engines));
    if errors.is_empty() { Ok(engines) } else { Err(OpenErrors(errors)) }
}

/// What is wrong where two engines would take each other's images for their own.
pub fn shared_place(engines: &[Arc<dyn Engine>]) -> Option<OpenError> {
    let places = |engine: &Arc<dyn Engine>| (engine.name().to_owned(), engine.places());
    shared_among(&engines.iter().map(places).collect::<Vec<_>>())
}

/// The same for names of engines with the places that are their own.
pub fn shared_among(engines: &[(String, Vec<PathBuf>)]) -> Option<OpenError> {
    for (index, (engine, places)) in engines.iter().enumerate() {
        for (other, taken) in &engines[..index] {
            if let Some(place) = places.iter().find(|place| taken.contains(place)) {
                return Some(OpenError {
                    engine: engine.clone(),
                    message: format!(
                        "{} belongs to the engine {other} as well, and each would take the images of the other for its own: what holds images goes into one engine",
                        place.display(),
                    ),
                });
            }
        }
    }
    None
}
