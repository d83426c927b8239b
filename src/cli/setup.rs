//! What verbs begin with: policies, engines, clock and ledger.

use std::collections::BTreeSet;
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use jiff::Timestamp;
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt};

#[cfg(feature = "otlp")]
use super::telemetry::Telemetry;
use super::{Color, Console, Exit, Global, LogFormat};
use crate::clock::{Clock, FixedClock, SystemClock};
use crate::engine::{self, Author};
use crate::expect::{Reader, Suite};
use crate::files;
use crate::inventory::{FORMAT_VERSION, Inventory};
use crate::plan::guard::Override;
use crate::plan::{Plan, plan};
use crate::policy::{EngineKind, Finding, Loaded, Policies, given_endpoint, lint};
use crate::reconcile::{Room, guarded};
use crate::report::findings;
use crate::simulate::expense::budget;

/// Sets up logging on standard error. `RUST_LOG` says otherwise. What is sent elsewhere is sent as
/// long as what comes back lives.
pub(super) fn logging(global: &Global, says_what_it_does: bool) -> Telemetry {
    let level = match global.verbose + u8::from(says_what_it_does) {
        // What is read again while it is swapped is no news.
        0 => "warn,rustic_core=off,notify=error",
        1 => "info,rustic_core=warn,notify=error",
        2 => "debug,handlebars=info",
        _ => "trace,handlebars=info",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let lines = fmt::layer().with_writer(std::io::stderr);
    let colour = match global.color {
        Color::Auto => {
            anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never
        }
        Color::Always => true,
        Color::Never => false,
    };
    let lines = match global.log_format {
        LogFormat::Text => lines.with_target(false).with_ansi(colour).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    // Spans are for collectors of traces; a line says all there is to say.
    let lines = lines.with_filter(filter.and(filter_fn(|metadata| !metadata.is_span())));
    #[cfg(feature = "otlp")]
    let (sent, telemetry) = Telemetry::begin();
    #[cfg(not(feature = "otlp"))]
    let (sent, telemetry) = (Vec::new(), Telemetry);
    let layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> =
        iter::once(lines.boxed()).chain(sent).collect();
    tracing_subscriber::registry().with(layers).init();
    telemetry
}

/// Nothing is sent anywhere.
#[cfg(not(feature = "otlp"))]
#[derive(Debug)]
pub(super) struct Telemetry;

/// Why a verb ends before it has begun.
pub(super) enum Early {
    /// The policies have mistakes, which have been shown.
    Invalid,
    /// Something else.
    Failed(anyhow::Error),
}

impl Early {
    /// How the run ends.
    pub(super) fn exit(self) -> anyhow::Result<Exit> {
        match self {
            Self::Invalid => Ok(Exit::InvalidPolicy),
            Self::Failed(error) => Err(error),
        }
    }
}

/// Reads the policies and finds every mistake; with `origins`, each value with where it comes from.
pub(super) fn load_policies(global: &Global, origins: bool) -> anyhow::Result<Loaded> {
    load_policies_at(global, origins, None)
}

/// The same, with what the time says about them.
pub(super) fn load_policies_at(
    global: &Global,
    origins: bool,
    now: Option<Timestamp>,
) -> anyhow::Result<Loaded> {
    let read = files::load(&global.policies, global.given(), origins, now)?;
    let mut loaded = read.loaded;
    if let Some(policies) = &mut loaded.policies {
        override_endpoints(policies, &global.engine_endpoint)?;
    }
    Ok(loaded)
}

/// Puts other endpoints into the settings of engines; they are held to the same rules as those.
pub(super) fn override_endpoints(policies: &mut Policies, given: &[String]) -> anyhow::Result<()> {
    if given.is_empty() {
        return Ok(());
    }
    let kinds = engine::kinds();
    let has_endpoint = |kind: &str| {
        kinds.iter().find(|known| known.name == kind).is_some_and(EngineKind::has_endpoint)
    };
    for text in given {
        let (name, url) = given_endpoint(text);
        let mut is_used = false;
        for (known, engine) in &mut policies.config.engines {
            if name.is_none_or(|name| name == known) && has_endpoint(&engine.kind) {
                engine.settings["endpoint"] = url.into();
                is_used = true;
            }
        }
        match name {
            _ if is_used => {}
            Some(name) if policies.config.engines.contains_key(name) => {
                bail!("--engine-endpoint {text}: the engine {name} has no endpoint");
            }
            Some(name) => bail!("--engine-endpoint {text}: there is no engine {name}"),
            None => {
                bail!("--engine-endpoint {text}: no engine of the configuration has an endpoint")
            }
        }
    }
    Ok(())
}

/// Reads the tests among files and directories, and finds every mistake in them.
pub(super) fn read_tests(paths: &[PathBuf]) -> anyhow::Result<(Vec<Suite>, Vec<Finding>)> {
    let (files, mut findings) = files::read_tests(paths);
    if files.is_empty() {
        return Ok((Vec::new(), findings));
    }
    let reader = Reader::new().map_err(anyhow::Error::msg)?;
    let mut suites = Vec::new();
    for file in &files {
        let (found, mistakes) = reader.read(file);
        suites.extend(found);
        findings.extend(mistakes);
    }
    Ok((suites, findings))
}

/// Where tests stand beside the policies.
pub(super) fn test_paths(global: &Global) -> Vec<PathBuf> {
    let may_hold = |path: &&PathBuf| path.is_dir() || files::is_test(path);
    global.policies.iter().filter(may_hold).cloned().collect()
}

/// The policies; their mistakes are shown, as JSON where that is asked for.
pub(super) fn policies(global: &Global, console: &Console, json: bool) -> Result<Policies, Early> {
    let loaded = load_policies(global, true).map_err(Early::Failed)?;
    if let Some(policies) = loaded.policies {
        if loaded.findings.iter().any(|finding| !finding.is_error()) {
            console.note(&findings::text(&loaded.findings));
        }
        Ok(policies)
    } else {
        show_findings(&loaded.findings, console, json).map_err(Early::Failed)?;
        Err(Early::Invalid)
    }
}

/// Shows what the time and what the engines hold say about the policies.
pub(super) fn note_meaning(
    policies: &Policies,
    inventory: &Inventory,
    now: Timestamp,
    console: &Console,
) {
    let found = lint::in_round(policies, inventory, now);
    if !found.is_empty() {
        console.note(&findings::text(&found));
    }
}

/// How a run ends when exemptions have ended by then. That must not stop a backup of anything else,
/// so the round was carried out; but it is an error, and it is shown.
pub(super) fn with_exemptions(
    exit: Exit,
    policies: &Policies,
    now: Timestamp,
    console: &Console,
) -> Exit {
    let expired = policies.expired(now);
    if expired.is_empty() {
        return exit;
    }
    console.note(&findings::text(&expired));
    if matches!(exit, Exit::Success | Exit::Pending) { Exit::InvalidPolicy } else { exit }
}

/// Shows findings: as text on standard error, as JSON on standard output.
pub(super) fn show_findings(
    found: &[Finding],
    console: &Console,
    json: bool,
) -> anyhow::Result<()> {
    if json {
        console.json(&findings::json(found))?;
    } else {
        console.note(&findings::text(found));
    }
    Ok(())
}

/// The value of an environment variable that the configuration names.
#[cfg(feature = "watch")]
#[expect(clippy::disallowed_methods, reason = "settings name the variable that holds a secret")]
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The clock: the machine's, or the one that was given.
pub(super) fn clock(now: Option<Timestamp>) -> Arc<dyn Clock> {
    match now {
        Some(now) => Arc::new(FixedClock(now)),
        None => Arc::new(SystemClock),
    }
}

/// Refuses to carry anything out as if it were another time, but for trials: ages on images would be
/// wrong.
pub(super) fn refuse_false_times(
    room: &Room,
    now: Option<Timestamp>,
    dry_run: bool,
) -> anyhow::Result<()> {
    if now.is_none() || dry_run || room.engines.iter().all(|engine| engine.is_trial()) {
        return Ok(());
    }
    bail!(
        "--now would write false times on images; \
         it goes with --dry-run, or with engines that are set to `trial: true`"
    )
}

/// Everything a round is made of.
pub(super) fn room(
    global: &Global,
    console: &Console,
    json: bool,
    now: Option<Timestamp>,
    overrides: Vec<Override>,
) -> Result<Room, Early> {
    room_of(policies(global, console, json)?, now, overrides)
}

/// The same for policies that have been read.
pub(super) fn room_of(
    policies: Policies,
    now: Option<Timestamp>,
    overrides: Vec<Override>,
) -> Result<Room, Early> {
    Room::open(Arc::new(policies), clock(now), Author::here(), overrides)
        .map_err(|error| Early::Failed(error.into()))
}

/// What a verb that only looks begins with.
pub(super) struct Seen {
    pub(super) policies: Arc<Policies>,
    pub(super) inventory: Inventory,
    pub(super) now: Timestamp,
}

impl Seen {
    /// The plan over what was seen, with what the guards refuse.
    pub(super) fn plan(&self, overrides: &[Override]) -> Plan {
        let plan = plan(&self.policies, &self.inventory, self.now);
        let mut plan = guarded(plan, &self.policies, &self.inventory, overrides, self.now);
        plan.budget = budget(&self.policies, &self.inventory, &plan, self.now);
        plan
    }
}

/// The policies, what the engines hold, and the time: from the engines and the clock, or from a
/// document, which no engine is asked for.
pub(super) async fn seen(
    global: &Global,
    console: &Console,
    json: bool,
    now: Option<Timestamp>,
    inventory: Option<&Path>,
) -> Result<Seen, Early> {
    let Some(file) = inventory else {
        let room = room(global, console, json, now, Vec::new())?;
        let inventory = room.observe().await;
        let now = room.clock.now();
        return Ok(Seen { policies: room.policies, inventory, now });
    };
    let policies = Arc::new(policies(global, console, json)?);
    let inventory = read_inventory(file).map_err(Early::Failed)?;
    let now = now.unwrap_or(inventory.observed_at);
    Ok(Seen { policies, inventory, now })
}

pub(super) fn read_inventory(file: &Path) -> anyhow::Result<Inventory> {
    let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let inventory: Inventory = serde_json::from_slice(&text).with_context(|| {
        format!("{} is not an inventory (schemas/inventory.schema.json)", file.display())
    })?;
    let names: BTreeSet<&String> = inventory.engines.iter().map(|engine| &engine.name).collect();
    if names.len() < inventory.engines.len() {
        bail!("{} holds an engine twice", file.display());
    }
    let major = |version: &str| version.split('.').next().map(str::to_owned);
    if major(&inventory.format_version) != major(FORMAT_VERSION) {
        bail!(
            "{} has the format version {}, this program reads {FORMAT_VERSION}",
            file.display(),
            inventory.format_version
        );
    }
    Ok(inventory)
}

/// The engines that read images back, with their names.
pub(super) fn store_of<'a>(room: &'a Room, engine: &str) -> anyhow::Result<&'a dyn engine::Store> {
    let found = room.engines.iter().find(|one| one.name() == engine);
    match found.and_then(|engine| engine.store()) {
        Some(store) => Ok(store),
        None => bail!("the engine {engine} does not read images back"),
    }
}
