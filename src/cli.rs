//! The command line: one file per verb, and what they share.
//!
//! Results go to standard output, everything else to standard error. `--json` turns results into
//! JSON; colour is for terminals only.

mod adopt;
mod apply;
mod completions;
mod console;
mod doctor;
mod drift;
mod explain;
mod format;
mod import;
mod inventory;
#[cfg(feature = "local")]
mod key;
mod list;
mod man;
#[cfg(feature = "watch")]
mod notify;
mod plan;
mod progress;
mod report;
#[cfg(feature = "local")]
mod repository;
mod restore;
mod revision;
mod saved;
mod schedule;
#[cfg(feature = "serve")]
mod serve;
mod setup;
mod simulate;
#[cfg(feature = "otlp")]
mod telemetry;
mod test;
mod undo;
mod validate;
mod verify;
#[cfg(feature = "watch")]
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::files::Given;
use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

pub use console::Console;

/// How a run ended. The numbers are part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Nothing to do, or done.
    Success = 0,
    /// It failed.
    Failed = 1,
    /// Changes are pending (`--detailed-exitcode`).
    Pending = 2,
    /// A policy is not valid.
    InvalidPolicy = 3,
    /// A guard refused.
    Refused = 4,
    /// Some of it was done.
    Partly = 5,
    /// Something changed behind our back (`drift`).
    Drifted = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Declarative backup policies for virtual machines.
///
/// Policies in git say which restore points should exist; the images of an engine say which do.
/// stillframe plans the difference, shows it, and applies exactly that.
#[derive(Debug, Parser)]
#[command(name = "stillframe", version, propagate_version = true, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 nothing to do or done, 1 failed, 2 changes pending (--detailed-exitcode), \
                        3 invalid policy, 4 refused by a guard, 5 partly applied, 6 drifted (drift)"
)]
pub struct Cli {
    /// What is shared by all verbs.
    #[command(flatten)]
    pub global: Global,
    /// The verb.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Under what the options of all verbs stand in the help.
const GLOBAL_HEADING: &str = "Options of all verbs";

/// What is shared by all verbs.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Policy files, or directories with policy files
    #[arg(
        long,
        short,
        global = true,
        default_value = "policies",
        value_name = "PATH",
        num_args = 1,
        help_heading = GLOBAL_HEADING
    )]
    pub policies: Vec<PathBuf>,
    /// Put the overlay of this environment over the policies and the configuration
    #[arg(long, short, global = true, value_name = "NAME", help_heading = GLOBAL_HEADING)]
    pub environment: Option<String>,
    /// Where the service of engines is, in place of what the configuration says: a URL, for all of
    /// them that have an endpoint or for one
    #[arg(
        long,
        global = true,
        value_name = "[ENGINE=]URL",
        help_heading = GLOBAL_HEADING
    )]
    pub engine_endpoint: Vec<String>,
    /// When to use colour
    #[arg(
        long,
        global = true,
        default_value = "auto",
        value_name = "WHEN",
        help_heading = GLOBAL_HEADING
    )]
    pub color: Color,
    /// Log more: once for what is done, twice for how
    #[arg(long, short, global = true, action = clap::ArgAction::Count, help_heading = GLOBAL_HEADING)]
    pub verbose: u8,
    /// How log lines look
    #[arg(
        long,
        global = true,
        default_value = "text",
        value_name = "FORM",
        help_heading = GLOBAL_HEADING
    )]
    pub log_format: LogFormat,
}

impl Global {
    /// What is said of the configuration beside its files.
    fn given(&self) -> Given<'_> {
        Given { environment: self.environment.as_deref(), endpoints: &self.engine_endpoint }
    }
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On terminals, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Check the policies: every mistake at once, nothing is called unless --observe says so
    Validate(validate::Validate),
    /// Write policy files in their canonical form; comments stay
    Fmt(format::Format),
    /// Show what would be done
    Plan(plan::PlanCommand),
    /// Plan, ask, carry out
    Apply(apply::Apply),
    /// Take images that are there already and are nobody's into a policy
    ///
    /// Shows which images get labels and why others do not, asks, and sets the labels; nothing else
    /// changes, and the next plan deletes nothing for it. Images are meant by their name, by labels,
    /// or by both. They are named as the common scripts do it unless --name-pattern or only --label
    /// says otherwise.
    Adopt(adopt::Adopt),
    /// Make a disk that lies in object storage a restore point of a policy
    ///
    /// The engine fetches the disk by a signed URL, where it can (`explain engine`). Shows what would be
    /// made, what becomes of it by the policy's retention, and asks. Nothing is imported that the next
    /// plan would let go of, or for which it would let go of something else. The URL is a secret: no
    /// plan, log, ledger or message shows what it was signed with.
    Import(import::Import),
    /// Bring back what a saved plan has deprecated, as long as it is there
    Undo(undo::UndoCommand),
    /// Say that deletes of a class in a saved plan are meant
    Approve(saved::Approve),
    /// Write what the engines hold as a document that `plan --inventory` reads
    Inventory(inventory::InventoryCommand),
    /// List images
    List(list::List),
    /// Show everything an image records, or a saved plan
    Show(list::Show),
    /// Say why: a policy with its defaults, an image, a source, or the code of a finding
    Explain(explain::Explain),
    /// Write the disks and the description of an image into a directory
    Restore(restore::Restore),
    /// Read stored data back and check it
    Verify(verify::Verify),
    /// Examine each engine: settings, credentials, permissions, clock, directories, space, keys
    ///
    /// Says everything that is found at once, with what to do about it. Ends with 1 where something
    /// is wrong or could not be looked at.
    Doctor(doctor::Doctor),
    /// Print when schedules fire, or read the expression of another scheduler
    ///
    /// Without --cron: the schedules of all policies, which of them fire in the same minute, and how
    /// many captures come together. With --from and the name of a scheduler, --cron is in its
    /// notation and is printed as a crontab, or refused where no crontab says exactly the same.
    Schedule(schedule::ScheduleCommand),
    /// Run the tests of the policies: what the plan for a world and an instant must be
    Test(test::Test),
    /// Show what the policies will do over time: the real planner under a virtual clock
    Simulate(simulate::SimulateCommand),
    /// Keep doing it: every schedule, every change of the policies
    ///
    /// Runs until it is told to stop. Without --listen nothing is seen of it but its log lines.
    #[cfg(feature = "watch")]
    Watch(watch::WatchCommand),
    /// Who is told of what goes wrong
    #[cfg(feature = "watch")]
    Notify(notify::NotifyCommand),
    /// Show what changed behind our back: images deleted outside, labels taken away
    Drift(drift::DriftCommand),
    /// Report what was protected and deleted in a span of time, for auditors
    Report(report::ReportCommand),
    /// The ledger of what was done
    Ledger(report::LedgerCommand),
    /// Speak the API of a cloud over an embedded engine, for its own clients
    ///
    /// Prints the address when it is ready. Clients of the cloud work against it unchanged, once
    /// they are given the address and any credentials.
    #[cfg(feature = "serve")]
    Serve(serve::Serve),
    /// Keys of embedded engines
    #[cfg(feature = "local")]
    Key(key::KeyCommand),
    /// Repositories of embedded engines
    #[cfg(feature = "local")]
    Repository(repository::RepositoryCommand),
    /// Print what a shell completes commands with
    ///
    /// For bash write it to ~/.local/share/bash-completion/completions/stillframe, for zsh to a file
    /// `_stillframe` in a directory of $fpath, for fish to ~/.config/fish/completions/stillframe.fish;
    /// for PowerShell add it to the file that $PROFILE names.
    Completions(completions::Completions),
    /// Write the manual pages: one of the program and one of each verb
    Man(man::ManCommand),
}

impl Verb {
    /// Whether its log lines are what people see of it.
    #[cfg_attr(not(feature = "watch"), expect(clippy::unused_self, reason = "no such verb"))]
    fn says_what_it_does(&self) -> bool {
        #[cfg(feature = "watch")]
        let says = matches!(self, Self::Watch(_));
        #[cfg(not(feature = "watch"))]
        let says = false;
        says
    }
}

/// An instant given on the command line.
fn parse_instant(text: &str) -> Result<Timestamp, String> {
    // As in the files, a date is its beginning.
    let date = text.parse::<Date>().ok().filter(|_| text.len() == 10);
    date.and_then(|date| date.to_zoned(TimeZone::UTC).ok())
        .map(|begins| begins.timestamp())
        .or_else(|| text.parse::<Timestamp>().ok())
        .ok_or_else(|| {
            format!("`{text}` is not an instant; write one like 2026-11-21T02:00:00Z, or a date, which begins in UTC")
        })
}

/// A label given on the command line.
fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is not a label; write KEY=VALUE")),
    }
}

/// Runs the program and says how it ended.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Exit code 2 means pending changes, so a wrong command line is an ordinary failure.
            let exit = if error.use_stderr() { Exit::Failed } else { Exit::Success };
            print_wrong_command(&error);
            return exit.into();
        }
    };
    let _telemetry = setup::logging(&cli.global, cli.verb.says_what_it_does());
    let console = Console::new(cli.global.color);
    match run_verb(&cli, &console) {
        Ok(exit) => exit.into(),
        Err(error) => {
            console.error(&whole_message(&error));
            Exit::Failed.into()
        }
    }
}

/// What is wrong with the command line, without what a URL in it may have been signed with.
fn print_wrong_command(error: &clap::Error) {
    let text = error.render().to_string();
    let shown = without_queries(&text);
    if error.use_stderr() && shown != text {
        Console::new(Color::Auto).note(&shown);
    } else {
        let _ = error.print();
    }
}

/// A text without what follows the `?` of URLs in it.
fn without_queries(text: &str) -> String {
    let one = |word: &str| {
        let query = word.find("://").and_then(|at| Some(at + word[at..].find('?')?));
        let Some(query) = query else { return word.to_owned() };
        // Quotes may be in a query as well as around it.
        let end = word.trim_end_matches(|last: char| last.is_whitespace() || last == '\'').len();
        format!("{}?…{}", &word[..query], &word[end..])
    };
    text.split_inclusive(char::is_whitespace).map(one).collect()
}

/// An error and its causes, each said once: many errors name their cause themselves.
fn whole_message(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn run_verb(cli: &Cli, console: &Console) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime could not be started")?;
    let ended = runtime.block_on(async {
        match &cli.verb {
            Verb::Validate(verb) => verb.run(&cli.global, console).await,
            Verb::Fmt(verb) => verb.run(&cli.global, console),
            Verb::Plan(verb) => verb.run(&cli.global, console).await,
            Verb::Apply(verb) => verb.run(&cli.global, console).await,
            Verb::Adopt(verb) => verb.run(&cli.global, console).await,
            Verb::Import(verb) => verb.run(&cli.global, console).await,
            Verb::Undo(verb) => verb.run(&cli.global, console).await,
            Verb::Approve(verb) => verb.run(&cli.global, console),
            Verb::Inventory(verb) => verb.run(&cli.global, console).await,
            Verb::List(verb) => verb.run(&cli.global, console).await,
            Verb::Show(verb) => verb.run(&cli.global, console).await,
            Verb::Explain(verb) => verb.run(&cli.global, console).await,
            Verb::Restore(verb) => verb.run(&cli.global, console).await,
            Verb::Verify(verb) => verb.run(&cli.global, console).await,
            Verb::Doctor(verb) => verb.run(&cli.global, console).await,
            Verb::Schedule(verb) => verb.run(&cli.global, console),
            Verb::Test(verb) => verb.run(&cli.global, console),
            Verb::Simulate(verb) => verb.run(&cli.global, console).await,
            #[cfg(feature = "watch")]
            Verb::Watch(verb) => verb.run(&cli.global, console).await,
            #[cfg(feature = "watch")]
            Verb::Notify(verb) => verb.run(&cli.global, console).await,
            Verb::Drift(verb) => verb.run(&cli.global, console).await,
            Verb::Report(verb) => verb.run(&cli.global, console).await,
            Verb::Ledger(verb) => verb.run(&cli.global, console),
            #[cfg(feature = "serve")]
            Verb::Serve(verb) => verb.run(&cli.global, console).await,
            #[cfg(feature = "local")]
            Verb::Key(verb) => verb.run(&cli.global, console),
            #[cfg(feature = "local")]
            Verb::Repository(verb) => verb.run(&cli.global, console),
            Verb::Completions(verb) => verb.run(console),
            Verb::Man(verb) => verb.run(console),
        }
    });
    // Where a file system does not answer a thread never ends; what could end had time to.
    #[cfg(feature = "watch")]
    if matches!(cli.verb, Verb::Watch(_)) {
        runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    }
    ended
}
