//! `stillframe simulate`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use jiff::Timestamp;
use serde::Serialize;

use super::{Console, Exit, Global, parse_instant, progress, revision, setup};
use crate::inventory::Inventory;
use crate::name::PolicyName;
use crate::policy::Policies;
use crate::report::{clean, simulation};
use crate::simulate::{Options, Share, Simulation, Watcher, compare, simulate};

/// The most days: ten years.
const DAYS_MAX: i64 = 3_660;
/// A bar is shown only where it takes longer than this.
const PATIENCE: Duration = Duration::from_secs(1);

/// Show what the policies will do over time: the real planner under a virtual clock.
#[derive(Debug, Args)]
pub struct SimulateCommand {
    /// For how many days
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=DAYS_MAX))]
    days: u32,
    /// The share of captures that fail, like 0.02 or 2%
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = parse_fail_rate, allow_hyphen_values = true)]
    fail_rate: Share,
    /// The share by which what a capture stores grows every thirty days
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = Share::parse, allow_hyphen_values = true)]
    growth: Share,
    /// The seed of the chance by which captures fail
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    seed: u64,
    /// Begin at this instant instead of now, or instead of when the inventory was seen
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    now: Option<Timestamp>,
    /// Simulate over this document instead of asking the engines
    #[arg(long, value_name = "FILE")]
    inventory: Option<PathBuf>,
    /// Show what differs from the policies of a git revision or a directory
    #[arg(long, value_name = "REVISION|DIRECTORY")]
    base: Option<String>,
    /// Show one policy; the guards look at all of them
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// As what to show it
    #[arg(long, value_name = "FORM", default_value = "table")]
    format: Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Write it to a file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// As what a simulation is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table for people.
    Table,
    /// Every series, day by day.
    Json,
    /// A chart.
    Svg,
}

fn parse_fail_rate(text: &str) -> Result<Share, String> {
    let share = Share::parse(text)?;
    if share.0 > 1_000_000 { Err("no more than all can fail".to_owned()) } else { Ok(share) }
}

impl SimulateCommand {
    pub(super) async fn run(&self, global: &Global, console: &Console) -> anyhow::Result<Exit> {
        let format = if self.json { Format::Json } else { self.format };
        let json = format == Format::Json;
        let (policies, inventory, start) = match self.world(global, console, json).await {
            Ok(world) => world,
            Err(early) => return early.exit(),
        };
        let name = self.policy_name(&policies)?;
        let options = Options {
            start,
            days: self.days,
            fail_rate: self.fail_rate,
            growth: self.growth,
            seed: self.seed,
        };
        let run = |policies: &Policies, message: &str| {
            let mut bar = Bar::new(console, self.days, message);
            let mut simulation =
                simulate(policies, &inventory, policies.config.prices.as_ref(), &options, &mut bar);
            if let Some(name) = &name {
                only(&mut simulation, name);
            }
            simulation
        };
        let Some(base) = &self.base else {
            let simulation = run(&policies, "simulating");
            self.write(console, format, &simulation, |format| match format {
                Format::Svg => simulation::chart(&simulation, None),
                _ => simulation::table(&simulation),
            })?;
            return Ok(Exit::Success);
        };
        let loaded = revision::load_base(base, global, false)?.loaded;
        let Some(before) = loaded.policies else {
            console.error(&format!("the policies of {} have mistakes", clean(base)));
            setup::show_findings(&loaded.findings, console, json)?;
            return Ok(Exit::InvalidPolicy);
        };
        let before = run(&before, "simulating the base");
        let both = compare(base.clone(), before, run(&policies, "simulating"));
        self.write(console, format, &both, |format| match format {
            Format::Svg => simulation::chart(&both.after, Some((&both.base, &both.before))),
            _ => simulation::comparison(&both),
        })?;
        Ok(Exit::Success)
    }

    /// The policies, the inventory and when to begin.
    async fn world(
        &self,
        global: &Global,
        console: &Console,
        json: bool,
    ) -> Result<(Policies, Inventory, Timestamp), setup::Early> {
        let seen = setup::seen(global, console, json, self.now, self.inventory.as_deref()).await?;
        Ok((Arc::unwrap_or_clone(seen.policies), seen.inventory, seen.now))
    }

    fn policy_name(&self, policies: &Policies) -> anyhow::Result<Option<PolicyName>> {
        let Some(text) = &self.policy else { return Ok(None) };
        match policies.all().find(|policy| policy.name.as_str() == text) {
            Some(policy) => Ok(Some(policy.name.clone())),
            None => bail!("there is no policy `{}`", clean(text)),
        }
    }

    fn write(
        &self,
        console: &Console,
        format: Format,
        value: &impl Serialize,
        text: impl Fn(Format) -> String,
    ) -> anyhow::Result<()> {
        // A year of a thousand sources is millions of numbers: no line for each.
        let written = match format {
            Format::Json => serde_json::to_string(value)? + "\n",
            other => text(other),
        };
        let Some(file) = &self.out else {
            console.print(&written);
            return Ok(());
        };
        std::fs::write(file, anstream::adapter::strip_str(&written).to_string())
            .with_context(|| format!("cannot write {}", file.display()))
    }
}

/// Leaves one policy in a simulation.
fn only(simulation: &mut Simulation, name: &PolicyName) {
    simulation.policies.retain(|policy| policy.policy == *name);
    simulation.series.retain(|series| series.policy == *name);
    simulation.events.retain(|event| event.policy.as_ref().is_none_or(|policy| policy == name));
}

/// A bar over the days, once it has taken a while.
struct Bar {
    shown: Option<ProgressBar>,
    shows: bool,
    days: u32,
    began: Instant,
    message: String,
}

impl Bar {
    fn new(console: &Console, days: u32, message: &str) -> Self {
        let shows = console.shows_progress();
        Self { shown: None, shows, days, began: Instant::now(), message: message.to_owned() }
    }
}

impl Watcher for Bar {
    fn progress(&mut self, days: u32) {
        if !self.shows || (self.shown.is_none() && self.began.elapsed() < PATIENCE) {
            return;
        }
        let bar = self.shown.get_or_insert_with(|| progress::days(self.days, &self.message));
        bar.set_position(u64::from(days));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}
