//! `stillframe doctor`

use std::path::Path;

use anyhow::bail;
use clap::Args;

use super::{Console, Exit, Global, setup};
use crate::engine::{self, Examined, Role, Task, Topic, Verdict, Wanted};
use crate::files::{self, Writable, writable};
use crate::inventory::Via;
use crate::policy::{Policies, Policy};
use crate::reconcile;
use crate::report::{Diagnosis, EngineDiagnosis, diagnosis_text};

/// Examine each engine.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Only what this task needs must be there: plan, create, create-via-snapshot, delete, share; all where it is left out
    #[arg(long = "for", value_name = "TASK", value_parser = parse_task)]
    tasks: Vec<Task>,
    /// Print the smallest roles as YAML, all or that of a task, and look at nothing
    #[arg(long, value_name = "TASK", value_parser = parse_task, num_args = 0..=1)]
    #[expect(clippy::option_option, reason = "the option may be given without a value")]
    roles: Option<Option<Task>>,
    /// Print as JSON (schemas/doctor.schema.json)
    #[arg(long, conflicts_with = "roles")]
    json: bool,
}

fn parse_task(text: &str) -> Result<Task, String> {
    // The name of who does it says the same.
    let word = match text {
        "planner" => "plan",
        "creator" => "create",
        "deleter" => "delete",
        "sharer" => "share",
        word => word,
    };
    let words = || Task::ALL.map(Task::word).join(", ");
    let task = Task::ALL.into_iter().find(|task| task.word() == word);
    task.ok_or_else(|| format!("`{text}` is not a task; there are {}", words()))
}

impl Doctor {
    pub(super) async fn run(&self, global: &Global, console: &Console) -> anyhow::Result<Exit> {
        if let Some(task) = self.roles {
            return print_roles(task, console);
        }
        let policies = match setup::policies(global, console, self.json) {
            Ok(policies) => policies,
            Err(early) => return early.exit(),
        };
        let base = reconcile::base(&policies)?;
        let diagnosis = examine(&policies, &base, &self.tasks).await;
        if self.json {
            console.json(&diagnosis)?;
        } else {
            console.print(&diagnosis_text(&diagnosis));
        }
        Ok(if diagnosis.well { Exit::Success } else { Exit::Failed })
    }
}

/// What must be possible on an engine: what was asked for, else all that its policies want.
fn wanted(policies: &Policies, engine: &str, tasks: &[Task]) -> Wanted {
    if !tasks.is_empty() {
        return Wanted { tasks: tasks.iter().copied().collect() };
    }
    let any = |wants: fn(&Policy) -> bool| {
        policies.all().any(|policy| policy.engine == engine && wants(policy))
    };
    let is_wanted = |task: &Task| match task {
        Task::Share => any(|policy| policy.sharing.is_some()),
        Task::ViaSnapshot => any(|policy| policy.capture.via == Via::Snapshot),
        Task::Plan | Task::Create | Task::Delete => true,
    };
    Wanted { tasks: Task::ALL.into_iter().filter(is_wanted).collect() }
}

async fn examine(policies: &Policies, base: &Path, tasks: &[Task]) -> Diagnosis {
    let opened = engine::open_each(&policies.config, base, &setup::clock(None));
    let mut general = vec![ledger(&files::joined(base, &policies.config.ledger))];
    let there: Vec<_> = opened.iter().filter_map(|one| one.as_ref().ok().cloned()).collect();
    general.extend(
        engine::shared_place(&there)
            .map(|error| Examined::new(Topic::Settings, Verdict::Wrong, error.to_string())),
    );
    // All at once: each may have to wait for somebody else.
    let looks: Vec<_> = opened
        .into_iter()
        .zip(policies.config.engines.keys())
        .map(|(opened, name)| {
            let wanted = wanted(policies, name, tasks);
            tokio::spawn(async move {
                match opened {
                    Ok(engine) => engine.examine(&wanted).await,
                    Err(error) => {
                        vec![Examined::new(Topic::Settings, Verdict::Wrong, error.message)]
                    }
                }
            })
        })
        .collect();
    let mut engines = Vec::new();
    for ((name, config), look) in policies.config.engines.iter().zip(looks) {
        let examined = look.await.unwrap_or_else(|error| {
            let message = format!("the engine stopped unexpectedly: {error}");
            vec![Examined::new(Topic::Settings, Verdict::Unknown, message)]
        });
        engines.push(EngineDiagnosis::new(name, &config.kind, examined));
    }
    Diagnosis::new(general, engines)
}

/// Whether the ledger can be written, without which nothing is carried out.
fn ledger(path: &Path) -> Examined {
    let directory = path.parent().unwrap_or(path);
    let of = |verdict, message: String| Examined::new(Topic::Ledger, verdict, message);
    let appended = std::fs::OpenOptions::new().append(true).open(path);
    match (writable(directory), appended) {
        (_, Ok(_)) => of(Verdict::Well, format!("{} can be written", path.display())),
        (Ok(Writable::Is), Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            of(Verdict::Well, format!("{} will be made", path.display()))
        }
        (Ok(Writable::WillBe(_)), Err(_)) => {
            of(Verdict::Note, format!("{} will be made with its directory", path.display()))
        }
        (Err(error), _) | (_, Err(error)) => {
            of(Verdict::Wrong, format!("{} cannot be written: {error}", path.display()))
                .with_remedy("nothing is carried out that cannot be recorded")
        }
    }
}

/// Prints roles as the command line of their service takes them, one or all.
fn print_roles(task: Option<Task>, console: &Console) -> anyhow::Result<Exit> {
    let roles: Vec<Role> = engine::roles()
        .into_iter()
        .filter(|role| task.is_none_or(|task| role.task == task))
        .collect();
    if roles.is_empty() {
        bail!("no engine of this program has a role for that");
    }
    let mut documents = Vec::new();
    for role in &roles {
        documents.push(format!("# {}\n{}", role.made_with, serde_yaml::to_string(role)?));
    }
    console.print(&documents.join("---\n"));
    Ok(Exit::Success)
}
