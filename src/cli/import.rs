//! `stillframe import`

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};
use async_trait::async_trait;
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::apply::{LateListener, Shown, exit_of, listen_for_interrupts};
use super::explain::forecast_text;
use super::{Console, Exit, Global, parse_instant, setup};
use crate::apply::{Outcome, Stop};
use crate::engine::{Engine, ImportUri, Importer, importers};
use crate::import::{ImportError, Importing, Wanted, examine, guard, import};
use crate::inventory::Inventory;
use crate::name::PolicyName;
use crate::plan::guard::refuses;
use crate::plan::{Change, Plan, of_changes, plan};
use crate::policy::{Finding, Policies};
use crate::reconcile::{Approval, Room, Round};
use crate::report::{apply_text, clean, plan_text, settled_text};

/// The most bytes that are read of a file with a URL.
const FILE_MAX: u64 = 64 << 10;

/// Make a disk that lies in object storage a restore point of a policy.
#[allow(clippy::struct_excessive_bools, reason = "each is an option of its own")]
#[derive(Debug, Args)]
pub struct Import {
    /// The policy that gets it
    #[arg(long, value_name = "NAME")]
    policy: String,
    /// The instance that it is of: its name or its id
    #[arg(long, value_name = "INSTANCE")]
    source: String,
    /// The source is gone, or was never on the engine: --source is the id of its series
    #[arg(long)]
    gone: bool,
    /// The disk of the instance that it is of, where the policy takes several
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// When the disk was as it is in the file
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    at: Timestamp,
    #[command(flatten)]
    place: Place,
    /// Windows starts from it
    #[arg(long)]
    windows: bool,
    /// Do not ask
    #[arg(long)]
    auto_approve: bool,
    /// Show the plan and stop
    #[arg(long)]
    dry_run: bool,
    /// Print plan, outcomes and what becomes of the image as JSON
    #[arg(long)]
    json: bool,
    /// Only show what would be made over this document, without asking the engines
    #[arg(long, value_name = "FILE")]
    inventory: Option<PathBuf>,
    /// As if it were this instant; only with --dry-run or --inventory, or where every engine is for
    /// trials
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    now: Option<Timestamp>,
}

/// Where the URL is. Whoever has it can read the disk.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Place {
    /// A file that holds the signed URL of the disk (QCOW2, RAW or VMDK)
    #[arg(long, value_name = "FILE")]
    uri_file: Option<PathBuf>,
    /// The environment variable that holds the URL
    #[arg(long, value_name = "NAME")]
    uri_env: Option<String>,
    /// The URL itself, which the list of processes and the history of the shell show
    #[arg(long, value_name = "URL", value_parser = Hidden::of)]
    uri: Option<Hidden>,
}

/// A text that is shown nowhere: what is wrong with it is said by who reads it.
#[derive(Clone)]
struct Hidden(String);

impl Hidden {
    #[expect(clippy::unnecessary_wraps, reason = "what reads an argument may fail")]
    fn of(text: &str) -> Result<Self, std::convert::Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("…")
    }
}

impl Place {
    /// What is given may be the URL itself by mistake, so no message repeats what holds one.
    fn read(&self) -> anyhow::Result<ImportUri> {
        let (option, text) = match self {
            Self { uri_file: Some(file), .. } => ("--uri-file", read_file(file)?),
            Self { uri_env: Some(name), .. } if is_url(name) => {
                bail!("--uri-env takes the name of a variable that holds the URL, not the URL")
            }
            Self { uri_env: Some(name), .. } => {
                let text = variable(name);
                ("--uri-env", text.with_context(|| format!("the variable {name} is not set"))?)
            }
            Self { uri, .. } => {
                ("--uri", uri.as_ref().map(|uri| uri.0.clone()).unwrap_or_default())
            }
        };
        ImportUri::parse(&text).with_context(|| option.to_owned())
    }
}

/// Whether a text may be a URL, also one without its scheme.
fn is_url(text: &str) -> bool {
    text.contains("://") || text.contains('?')
}

/// The beginning of a file that is longer than any URL: it may be the disk itself by mistake.
fn read_file(path: &Path) -> anyhow::Result<String> {
    if is_url(&path.to_string_lossy()) {
        bail!("--uri-file takes a file that holds the URL, not the URL");
    }
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_MAX).read_to_end(&mut text));
    read.with_context(|| format!("cannot read {}", path.display()))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[expect(clippy::disallowed_methods, reason = "the cli reads the environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl Import {
    pub(super) async fn run(&self, global: &Global, console: &Console) -> anyhow::Result<Exit> {
        let (uri, wanted) = self.wanted()?;
        if let Some(file) = &self.inventory {
            let policies = match setup::policies(global, console, self.json) {
                Ok(policies) => policies,
                Err(early) => return early.exit(),
            };
            let inventory = setup::read_inventory(file)?;
            let now = self.now.unwrap_or(inventory.observed_at);
            let importing = guarded(&policies, &inventory, &wanted, now)?;
            return self.only_shown(&importing, console);
        }
        let asks = !self.auto_approve && !self.dry_run;
        if asks && !console.is_interactive() {
            bail!("nobody can be asked here; add --auto-approve, or --dry-run to only look");
        }
        if asks && self.json {
            bail!(
                "--json goes with --auto-approve or --dry-run: a question would stand in the document"
            );
        }
        let mut room = match setup::room(global, console, self.json, self.now, Vec::new()) {
            Ok(room) => room,
            Err(early) => return early.exit(),
        };
        setup::refuse_false_times(&room, self.now, self.dry_run)?;
        // Said before anything is looked at.
        let policy = examine(&room.policies, &wanted, &importers(), room.clock.now())?;
        let name = policy.engine.clone();
        let engine = room.engines.iter_mut().find(|engine| engine.name() == name);
        let engine = engine.with_context(|| format!("the engine {name} is not open"))?;
        let importer = Arc::new(Importer::new(Arc::clone(engine), uri, self.windows));
        *engine = Arc::clone(&importer) as Arc<dyn Engine>;
        self.round(&room, &importer, &wanted, console).await
    }

    /// What the arguments say, or all that is wrong with them.
    fn wanted(&self) -> anyhow::Result<(ImportUri, Wanted)> {
        let names = [("--policy", Some(&self.policy)), ("--source", Some(&self.source))];
        for (option, name) in names.into_iter().chain([("--device", self.device.as_ref())]) {
            if name.is_some_and(|name| is_url(name)) {
                bail!("{option} takes a name, not the URL");
            }
        }
        match (self.place.read(), PolicyName::parse(&self.policy)) {
            (Ok(uri), Ok(policy)) => {
                let wanted = Wanted {
                    policy,
                    source: self.source.clone(),
                    is_gone: self.gone,
                    device: self.device.clone(),
                    at: self.at,
                    from: uri.open().to_owned(),
                };
                Ok((uri, wanted))
            }
            (Err(uri), Err(policy)) => {
                bail!(ImportError::of(vec![format!("{uri:#}"), policy.to_string()]))
            }
            (Err(uri), Ok(_)) => Err(uri),
            (Ok(_), Err(policy)) => Err(policy.into()),
        }
    }

    /// One round that imports: observe, plan, guard, ask, apply, report.
    async fn round(
        &self,
        room: &Room,
        importer: &Importer,
        wanted: &Wanted,
        console: &Console,
    ) -> anyhow::Result<Exit> {
        let stop = Stop::default();
        let listener = Arc::new(LateListener::new(*console));
        listen_for_interrupts(Arc::clone(&listener), stop.clone());
        let last: Mutex<Option<anyhow::Result<Importing>>> = Mutex::new(None);
        let planned = |inventory: &Inventory, now: Timestamp, _: Option<&Plan>| {
            let importing = guarded(&room.policies, inventory, wanted, now);
            // Where nothing may be imported there is a plan of nothing.
            let (placed, plan) = match &importing {
                Ok(it) if refuses(&it.plan.refusals) => {
                    let refusals = it.plan.refusals.clone();
                    (None, Plan { refusals, ..of_changes(it.plan.clone(), Vec::new()) })
                }
                Ok(it) => (Some(it.placed.clone()), it.plan.clone()),
                Err(_) => (None, of_changes(plan(&room.policies, inventory, now), Vec::new())),
            };
            importer.place(placed);
            *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(importing);
            plan
        };
        let answer = if self.dry_run { Some(false) } else { self.auto_approve.then_some(true) };
        let shown = Shown {
            console: *console,
            json: self.json,
            answer,
            overrides: Vec::new(),
            listener: Arc::clone(&listener),
        };
        let told = Told { shown, last: &last, verb: self };
        let round = room.round_of(&planned, &told, listener, &stop).await;
        let importing = last.into_inner().unwrap_or_else(PoisonError::into_inner);
        let importing = importing.context("nothing was planned")??;
        self.report(&importing, &round, console)?;
        Ok(exit_of(&round, self.dry_run))
    }

    fn report(
        &self,
        importing: &Importing,
        round: &Round,
        console: &Console,
    ) -> anyhow::Result<()> {
        if self.json {
            let came = Came {
                plan: &round.plan,
                approved: round.approved,
                outcomes: &round.outcomes,
                not_approved: &round.not_approved,
            };
            return console.json(&self.document(importing, &came));
        }
        if round.approved {
            console.print(&format!("\n{}", apply_text(round)));
        } else if !self.dry_run {
            console.print(&format!("Nothing was done.\n{}", settled_text(&round.settled)));
        }
        Ok(())
    }

    fn only_shown(&self, importing: &Importing, console: &Console) -> anyhow::Result<Exit> {
        if self.json {
            let plan = &importing.plan;
            let came = Came { plan, approved: false, outcomes: &[], not_approved: &[] };
            console.json(&self.document(importing, &came))?;
        } else {
            console.print(&self.text(importing));
        }
        Ok(if refuses(&importing.plan.refusals) { Exit::Refused } else { Exit::Success })
    }

    fn document(&self, importing: &Importing, came: &Came<'_>) -> Value {
        json!({
            "format_version": "1.0",
            "plan": came.plan,
            "forecast": importing.forecast,
            "notes": self.notes(importing),
            "approved": came.approved,
            "outcomes": came.outcomes,
            "not_approved": came.not_approved,
        })
    }

    fn notes(&self, importing: &Importing) -> Vec<String> {
        let windows = "it is made as an image that Windows starts from (--windows)";
        let windows = self.windows.then(|| windows.to_owned());
        importing.notes.iter().cloned().chain(windows).collect()
    }

    /// The plan, and what becomes of the image.
    fn text(&self, importing: &Importing) -> String {
        let mut text = plan_text(&importing.plan);
        if let Some(create) = importing.plan.changes.iter().find_map(|one| one.create.as_ref()) {
            text.push_str("\nWhat it gets\n");
            for (label, value) in &create.labels {
                text.push_str(&format!("  {}={}\n", clean(label), clean(value)));
            }
            let family = create.family.as_ref();
            let family = family.map(|family| format!("  family {}\n", clean(family)));
            text.push_str(&family.unwrap_or_default());
        }
        if let Some(forecast) = &importing.forecast {
            text.push_str(&format!("\nWhat becomes of it\n{}", forecast_text(forecast)));
        }
        let notes = self.notes(importing);
        if !notes.is_empty() {
            text.push('\n');
        }
        text.extend(notes.iter().map(|note| format!("! {}\n", clean(note))));
        text
    }
}

/// What came of a round, as far as there was one.
struct Came<'a> {
    plan: &'a Plan,
    approved: bool,
    outcomes: &'a [Outcome],
    not_approved: &'a [Change],
}

/// What is imported, with what the guard refuses.
fn guarded(
    policies: &Policies,
    inventory: &Inventory,
    wanted: &Wanted,
    now: Timestamp,
) -> anyhow::Result<Importing> {
    let mut importing = import(policies, inventory, wanted, &importers(), now)?;
    importing.plan.refusals = guard(&importing.plan, policies, inventory);
    Ok(importing)
}

/// Shows the plan and what becomes of the image, and asks.
struct Told<'a> {
    shown: Shown,
    last: &'a Mutex<Option<anyhow::Result<Importing>>>,
    verb: &'a Import,
}

#[async_trait]
impl Approval for Told<'_> {
    async fn approve(&self, plan: &Plan) -> bool {
        let text = {
            let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            match &*last {
                Some(Ok(importing)) => self.verb.text(importing),
                _ => return false,
            }
        };
        self.shown.show(&text);
        self.shown.decide(plan).await
    }

    fn found(&self, found: &[Finding]) {
        self.shown.found(found);
    }

    fn takes_time(&self) -> bool {
        self.shown.takes_time()
    }

    fn shows_only(&self) -> bool {
        self.shown.shows_only()
    }
}
