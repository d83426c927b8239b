//! The schedules of all policies, and what comes together among them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::runs::{Runs, wrapped};
use super::{Console, Exit, FORMAT_VERSION, Global, ScheduleCommand, Span, setup};
use crate::elapsed::Elapsed;
use crate::inventory::{Capabilities, Instance, Inventory};
use crate::name::{Slot, spread};
use crate::policy::select::Decision;
use crate::policy::{Policies, Policy};
use crate::report::{clean, count, minute, table};
use crate::schedule::load::{Collision, Peak, Starts, collisions};
use crate::schedule::{Crontab, Schedule};

/// How far is looked for what comes together: every weekday and every day of a month is in it.
const TOGETHER_MAX: Elapsed = Elapsed::days(35);
/// So many groups of policies are shown.
const GROUPS_SHOWN: usize = 10;
/// So many names of a group are shown.
const NAMES_SHOWN: usize = 6;

/// What comes together in a time.
struct Together<'a> {
    from: Timestamp,
    until: Timestamp,
    capture_time: Elapsed,
    policies: &'a [Policy],
    /// The sources of each policy, where they are known.
    sources: Vec<Option<Vec<&'a Instance>>>,
    collisions: Vec<Collision>,
    engines: Vec<EngineLoad>,
}

/// What comes together on one engine.
struct EngineLoad {
    name: String,
    captures_max: usize,
    /// Whether the sources of its policies are known.
    is_known: bool,
    peak: Option<Peak>,
}

/// The expressions of a schedule.
fn crontabs(schedule: &Schedule) -> Vec<&Crontab> {
    schedule.crontabs.iter().collect()
}

fn instants(schedule: &Schedule, from: Timestamp, until: Timestamp) -> Vec<Timestamp> {
    schedule.slots(from, until).map(Slot::instant).collect()
}

impl ScheduleCommand {
    pub(super) fn policies(
        &self,
        global: &Global,
        console: &Console,
        span: Span,
    ) -> anyhow::Result<Exit> {
        let policies = match setup::policies(global, console, self.json) {
            Ok(policies) => policies,
            Err(early) => return early.exit(),
        };
        let inventory = self.inventory.as_deref().map(setup::read_inventory).transpose()?;
        let runs: Vec<Runs<'_>> = policies
            .policies
            .iter()
            .map(|policy| {
                let schedule = &policy.schedule;
                let slots = schedule.slots(span.from, span.until).take(span.limit());
                let firings = slots.map(Slot::instant).collect();
                Runs::new(firings, &crontabs(schedule), &schedule.zone, span).held_by(policy)
            })
            .collect();
        let together = Together::new(&policies, inventory.as_ref(), span, self.capture_time);
        if self.json {
            console.json(&document(span, &runs, &together))?;
        } else {
            console.print(&text(&runs, &together));
        }
        Ok(Exit::Success)
    }
}

impl<'a> Together<'a> {
    fn new(
        policies: &'a Policies,
        inventory: Option<&'a Inventory>,
        span: Span,
        capture_time: Elapsed,
    ) -> Self {
        let from = span.from;
        let until = span.until.min(TOGETHER_MAX.after(from));
        let sources = policies.policies.iter().map(|policy| sources_of(policy, inventory));
        let mut together = Self {
            from,
            until,
            capture_time,
            policies: &policies.policies,
            sources: sources.collect(),
            collisions: Vec::new(),
            engines: Vec::new(),
        };
        let firings: Vec<Vec<Timestamp>> = together
            .policies
            .iter()
            .map(|policy| instants(&policy.schedule, from, until))
            .collect();
        together.collisions = collisions(&firings);
        let capabilities = capabilities(policies, inventory);
        let used: BTreeSet<&String> =
            together.policies.iter().map(|policy| &policy.engine).collect();
        for name in used {
            let limit = capabilities.get(name).map_or(1, |one| one.captures_max);
            together.engines.push(together.load(name, limit, &firings));
        }
        together
    }

    fn load(&self, name: &str, captures_max: usize, firings: &[Vec<Timestamp>]) -> EngineLoad {
        let of_engine = |policy: &&Policy| policy.engine == name;
        let jitter = self.policies.iter().filter(of_engine).map(|policy| policy.schedule.jitter);
        let length = Elapsed::between(self.from, self.until).as_seconds()
            + jitter.max().unwrap_or(Elapsed::ZERO).as_seconds();
        let mut starts = Starts::new(self.from, Elapsed::seconds(length));
        let mut is_known = true;
        for ((policy, sources), firings) in self.policies.iter().zip(&self.sources).zip(firings) {
            if policy.engine != name {
                continue;
            }
            let jitter = policy.schedule.jitter.as_seconds().unsigned_abs();
            let late = |source: &&Instance| {
                let seconds = spread(&policy.name, &source.id, jitter);
                Elapsed::seconds(i64::try_from(seconds).unwrap_or(0))
            };
            is_known &= sources.is_some();
            // A policy whose sources are not known counts as one capture, on time.
            let late: Vec<Elapsed> = sources
                .as_ref()
                .map_or_else(|| vec![Elapsed::ZERO], |list| list.iter().map(late).collect());
            for firing in firings {
                for late in &late {
                    starts.add(late.after(*firing));
                }
            }
        }
        let peak = starts.peak(self.capture_time, captures_max);
        EngineLoad { name: name.to_owned(), captures_max, is_known, peak }
    }

    fn names(&self, group: &Collision) -> Vec<&str> {
        group.members.iter().map(|member| self.policies[*member].name.as_str()).collect()
    }

    /// How many captures a group begins, where the sources of each of its policies are known.
    fn captures_of(&self, group: &Collision) -> Option<usize> {
        group.members.iter().map(|member| self.sources[*member].as_ref().map(Vec::len)).sum()
    }
}

/// The instances that a policy selects, where its engine is part of the inventory.
fn sources_of<'a>(policy: &Policy, inventory: Option<&'a Inventory>) -> Option<Vec<&'a Instance>> {
    let engine = inventory?.engines.iter().find(|engine| engine.name == policy.engine)?;
    let is_source =
        |instance: &&Instance| matches!(policy.selection.decide(instance), Decision::Selected(_));
    Some(engine.instances.iter().filter(is_source).collect())
}

/// What each engine can do: as it was seen, or else as it is configured.
fn capabilities<'a>(
    policies: &'a Policies,
    inventory: Option<&'a Inventory>,
) -> BTreeMap<&'a String, &'a Capabilities> {
    let configured =
        policies.config.engines.iter().map(|(name, engine)| (name, &engine.capabilities));
    let seen = inventory.into_iter().flat_map(|inventory| &inventory.engines);
    configured.chain(seen.map(|engine| (&engine.name, &engine.capabilities))).collect()
}

fn document(span: Span, runs: &[Runs<'_>], together: &Together<'_>) -> Value {
    let policies: Vec<Value> = together
        .policies
        .iter()
        .zip(runs)
        .zip(&together.sources)
        .map(|((policy, runs), sources)| {
            let mut value = json!({
                "policy": policy.name,
                "engine": policy.engine,
                "sources": sources.as_ref().map(Vec::len),
                "cron": policy.schedule.text(),
                "time_zone": policy.schedule.zone.name(),
            });
            runs.add_to(&mut value);
            value
        })
        .collect();
    let collisions = together.collisions.iter().map(|group| {
        json!({
            "policies": together.names(group),
            "captures": together.captures_of(group),
            "times": group.times,
            "first": group.first,
        })
    });
    let engines = together.engines.iter().map(|engine| {
        json!({
            "engine": engine.name,
            "captures_max": engine.captures_max,
            "sources_known": engine.is_known,
            "peak": engine.peak.map_or(0, |peak| peak.captures),
            "peak_at": engine.peak.map(|peak| peak.instant),
            "wait_max_seconds": engine.peak.map_or(0, |peak| peak.wait.as_seconds()),
        })
    });
    json!({
        "format_version": FORMAT_VERSION,
        "from": span.from,
        "until": span.end(),
        "policies": policies,
        "together": {
            "from": together.from,
            "until": together.until,
            "collisions": collisions.collect::<Vec<_>>(),
            "capture_seconds": together.capture_time.as_seconds(),
            "engines": engines.collect::<Vec<_>>(),
        },
    })
}

fn text(runs: &[Runs<'_>], together: &Together<'_>) -> String {
    let mut text = String::new();
    for (policy, runs) in together.policies.iter().zip(runs) {
        let schedule = &policy.schedule;
        text.push_str(&format!(
            "{}  {}  {}\n{}",
            policy.name,
            clean(&schedule.text()),
            schedule.zone.name(),
            runs.text()
        ));
    }
    if together.policies.is_empty() {
        return text;
    }
    text.push_str(&format!(
        "\nIn the same minute, {} to {}\n",
        minute(together.from),
        minute(together.until)
    ));
    if together.collisions.is_empty() {
        text.push_str("  no two policies\n");
    }
    for group in together.collisions.iter().take(GROUPS_SHOWN) {
        text.push_str(&wrapped("  ", &told(together, group)));
    }
    if together.collisions.len() > GROUPS_SHOWN {
        let more = together.collisions.len() - GROUPS_SHOWN;
        text.push_str(&format!("  and {} more; --json lists all\n", count(more, "group")));
    }
    text.push_str(&format!(
        "\nCaptures at once, if each takes {} (--capture-time)\n",
        together.capture_time
    ));
    let rows: Vec<Vec<String>> = together.engines.iter().map(row).collect();
    for line in table(&rows) {
        text.push_str(&format!("  {line}\n"));
    }
    if together.engines.iter().any(|engine| !engine.is_known) {
        let note = "where sources are not known, a policy counts as one capture: give --inventory \
                    with what `stillframe inventory --json` writes";
        text.push_str(&wrapped("  ", note));
    }
    text
}

fn told(together: &Together<'_>, group: &Collision) -> String {
    let names = together.names(group);
    let more = names.len().saturating_sub(NAMES_SHOWN);
    let mut listed = names.iter().take(NAMES_SHOWN).copied().collect::<Vec<_>>().join(", ");
    if more > 0 {
        listed.push_str(&format!(" and {more} more"));
    }
    let captures = together
        .captures_of(group)
        .map(|captures| format!(" with {}", count(captures, "capture")))
        .unwrap_or_default();
    let times = if group.times == 1 {
        format!("once, at {}", minute(group.first))
    } else {
        format!("{} times, first at {}", group.times, minute(group.first))
    };
    let policies = match names.len() {
        1 => "1 policy".to_owned(),
        number => format!("{number} policies"),
    };
    format!("{policies}{captures} {times}: {listed}")
}

fn row(engine: &EngineLoad) -> Vec<String> {
    let told = match engine.peak {
        None => "nothing starts".to_owned(),
        Some(peak) => {
            let wait = if peak.wait == Elapsed::ZERO {
                "none waits".to_owned()
            } else {
                format!("the longest wait is {}", peak.wait)
            };
            let captures = usize::try_from(peak.captures).unwrap_or(usize::MAX);
            format!(
                "{} at {}, of {} that may run at once; {wait}",
                count(captures, "capture"),
                minute(peak.instant),
                engine.captures_max
            )
        }
    };
    vec![engine.name.clone(), told]
}
