//! `stillframe key`

use anyhow::bail;
use clap::{Args, Subcommand};

use super::{Console, Exit, Global, setup};
use crate::clock::Clock;
use crate::engine::local::{KIND, LocalEngine};
use crate::reconcile;

/// Keys of embedded engines.
#[derive(Debug, Args)]
pub struct KeyCommand {
    #[command(subcommand)]
    verb: KeyVerb,
}

#[derive(Debug, Subcommand)]
enum KeyVerb {
    /// Make the key file of a key
    Create {
        /// The name of the key, as policies name it
        name: String,
        /// The engine, where there are several embedded ones
        #[arg(long)]
        engine: Option<String>,
    },
    /// Print the path of the key file of a key
    Path {
        /// The name of the key, as policies name it
        name: String,
        /// The engine, where there are several embedded ones
        #[arg(long)]
        engine: Option<String>,
    },
}

impl KeyCommand {
    pub(super) fn run(&self, global: &Global, console: &Console) -> anyhow::Result<Exit> {
        let (name, engine) = match &self.verb {
            KeyVerb::Create { name, engine } | KeyVerb::Path { name, engine } => (name, engine),
        };
        let engine = match local_engine(global, console, engine.as_deref()) {
            Ok(engine) => engine,
            Err(early) => return early.exit(),
        };
        let path = engine.keys().path(name);
        match &self.verb {
            KeyVerb::Create { .. } => {
                let users = engine.repositories().0;
                if let Some(home) = users.iter().find(|home| home.key == *name && !path.exists()) {
                    bail!(
                        "images of {} are encrypted under the key `{name}`, whose file {} is missing: \
                         put it back from a copy; a new key opens none of them",
                        home.location,
                        path.display()
                    );
                }
                let text = if engine.keys().create(name)? { "made" } else { "there already:" };
                console.print(&format!("{text} {}\n", path.display()));
            }
            KeyVerb::Path { .. } => console.print(&format!("{}\n", path.display())),
        }
        Ok(Exit::Success)
    }
}

/// The embedded engine of a name, or the only one there is.
pub(super) fn local_engine(
    global: &Global,
    console: &Console,
    name: Option<&str>,
) -> Result<LocalEngine, setup::Early> {
    let policies = setup::policies(global, console, false)?;
    let locals: Vec<_> =
        policies.config.engines.iter().filter(|(_, engine)| engine.kind == KIND).collect();
    let chosen = match (name, locals.as_slice()) {
        (None, [only]) => Ok(*only),
        (None, []) => Err(anyhow::anyhow!("the configuration has no embedded engine")),
        (None, _) => {
            Err(anyhow::anyhow!("there are several embedded engines; name one with --engine"))
        }
        (Some(name), _) => locals
            .into_iter()
            .find(|(known, _)| *known == name)
            .ok_or_else(|| anyhow::anyhow!("there is no embedded engine `{name}`")),
    };
    let open = |(name, engine): (&String, &crate::policy::meant::EngineConfig)| -> anyhow::Result<LocalEngine> {
        let clock: std::sync::Arc<dyn Clock> = setup::clock(None);
        match LocalEngine::open(name, &engine.settings, &reconcile::base(&policies)?, clock) {
            Ok(engine) => Ok(engine),
            Err(message) => bail!(message),
        }
    };
    chosen.and_then(open).map_err(setup::Early::Failed)
}
