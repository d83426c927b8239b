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
    captures_per_minute: Option<u64>,
    /// Whether the sources of its policies are known.
    is_known: bool,
    peak: Option<Peak>,
}

/// The expressions of a schedule.
fn crontabs(schedule: &Schedule) -> Vec<&Crontab> {
    schedule.crontabs.iter().collect()
}

/// When the capture of a slot begins that is so much later by jitter: when no blackout and no pause
/// keeps the policy from it any more. `None` where that is too late.
fn begins(policy: &Policy, slot: Slot, late: Elapsed) -> Option<Timestamp> {
    let begin = late.after(slot.instant());
    if policy.paused.is_none() && policy.blackouts.is_empty() {
        return Some(begin);
    }
    let deadline = policy.schedule.deadline_of(slot);
    if policy.is_blacked_out(slot, deadline) {
        return None;
    }
    let mut at = begin;
    while at <= deadline {
        let pauses = policy.pauses_at(at).into_iter().filter(|pause| pause.creates);
        let Some(end) = pauses.map(|pause| pause.until.unwrap_or(Timestamp::MAX)).max() else {
            break;
        };
        at = end;
    }
    if at > deadline {
        return None;
    }
    // Only the newest slot that is due is made, and one that is blacked out is none.
    let after = Elapsed::seconds(1).after(slot.instant());
    let mut newer = policy.schedule.slots(after, Elapsed::seconds(1).after(late.before(at)));
    let is_meant = |slot: Slot| !policy.is_blacked_out(slot, policy.schedule.deadline_of(slot));
    let is_newest = at == begin || !newer.any(is_meant);
    is_newest.then_some(at)
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
        let slots: Vec<Vec<Slot>> = together
            .policies
            .iter()
            .map(|policy| policy.schedule.slots(from, until).collect())
            .collect();
        let on_time = together.policies.iter().zip(&slots).map(|(policy, slots)| {
            slots.iter().filter_map(|slot| begins(policy, *slot, Elapsed::ZERO)).collect()
        });
        together.collisions = collisions(&on_time.collect::<Vec<_>>());
        let capabilities = capabilities(policies, inventory);
        let used: BTreeSet<&String> =
            together.policies.iter().map(|policy| &policy.engine).collect();
        for name in used {
            together.engines.push(together.load(name, capabilities.get(name).copied(), &slots));
        }
        together
    }

    fn load(
        &self,
        name: &str,
        capabilities: Option<&Capabilities>,
        slots: &[Vec<Slot>],
    ) -> EngineLoad {
        let captures_max = capabilities.map_or(1, |one| one.captures_max);
        let captures_per_minute = capabilities.and_then(|one| one.limits.captures_per_minute);
        let mut begun: BTreeMap<Timestamp, usize> = BTreeMap::new();
        let mut is_known = true;
        for ((policy, sources), slots) in self.policies.iter().zip(&self.sources).zip(slots) {
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
            let mut captures: BTreeMap<Elapsed, usize> = BTreeMap::new();
            match sources {
                Some(list) => {
                    for source in list {
                        *captures.entry(late(source)).or_default() += 1;
                    }
                }
                None => drop(captures.insert(Elapsed::ZERO, 1)),
            }
            for slot in slots {
                for (late, count) in &captures {
                    if let Some(begin) = begins(policy, *slot, *late) {
                        *begun.entry(begin).or_default() += count;
                    }
                }
            }
        }
        let last = begun.keys().next_back().copied().unwrap_or(self.from);
        let length = Elapsed::between(self.from, Elapsed::seconds(1).after(last));
        let mut starts = Starts::new(self.from, length);
        for (begin, count) in begun {
            for _ in 0..count {
                starts.add(begin);
            }
        }
        let peak = starts.peak(self.capture_time, captures_max, captures_per_minute);
        EngineLoad { name: name.to_owned(), captures_max, captures_per_minute, is_known, peak }
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
            "captures_per_minute": engine.captures_per_minute,
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
            let rate = engine.captures_per_minute.map(|rate| format!(", {rate} begin in a minute"));
            format!(
                "{} at {}, of {} that may run at once{}; {wait}",
                count(captures, "capture"),
                minute(peak.instant),
                engine.captures_max,
                rate.unwrap_or_default()
            )
        }
    };
    vec![engine.name.clone(), told]
}
