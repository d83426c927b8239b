//! What is seen from outside, as metrics in the text format of Prometheus.
//!
//! Written by hand: all of it is a function of one snapshot and the time, and the format is a page
//! long (<https://prometheus.io/docs/instrumenting/exposition_formats/>). Tests read it back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Display, Write};

use jiff::Timestamp;

use super::status::EngineStatus;
use super::{EngineFacts, Role, Snapshot, Tally};
use crate::name::SourceId;

/// The type of the body.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Every metric there is: its name, whether it only grows, and what it says.
pub const METRICS: [(&str, bool, &str); 38] = [
    ("stillframe_build_info", false, "The version of the program."),
    ("stillframe_role", false, "1 for what the process does: idle, standby or running."),
    ("stillframe_config_valid", false, "Whether the files hold what is in force."),
    ("stillframe_config_info", false, "1 for the digest of the policies in force."),
    (
        "stillframe_config_in_force_timestamp_seconds",
        false,
        "Since when the policies are in force.",
    ),
    ("stillframe_config_read_timestamp_seconds", false, "When the files were read last."),
    (
        "stillframe_config_reading_since_timestamp_seconds",
        false,
        "Since when the files are being read and their engines opened.",
    ),
    ("stillframe_config_mistakes", false, "Mistakes in the files."),
    ("stillframe_config_readings_total", true, "Readings of the files, by result."),
    ("stillframe_policy_rpo_seconds", false, "The recovery point objective of a policy."),
    ("stillframe_policy_paused", false, "1 for a policy that is paused."),
    (
        "stillframe_policy_paused_until_timestamp_seconds",
        false,
        "When the pause of a policy ends; +Inf where it does not.",
    ),
    (
        "stillframe_source_newest_ready_age_seconds",
        false,
        "The age of the newest READY restore point of a source.",
    ),
    (
        "stillframe_source_rpo_breach_seconds",
        false,
        "Until the objective is broken if no restore point comes; below 0 since when it is; -Inf without any restore point.",
    ),
    (
        "stillframe_source_next_timestamp_seconds",
        false,
        "When the next restore point of a source is made.",
    ),
    (
        "stillframe_source_missed_slots_total",
        true,
        "Slots that passed without a restore point, as rounds found them.",
    ),
    ("stillframe_images", false, "Images by policy and state; without a policy those of nobody's."),
    ("stillframe_stored_bytes", false, "Bytes that images of a policy take."),
    ("stillframe_instances", false, "Instances of an engine."),
    ("stillframe_instances_unprotected", false, "Instances that no policy protects."),
    ("stillframe_instances_exempt", false, "Instances that are meant to be without protection."),
    ("stillframe_engine_gaps", false, "What could not be seen of an engine."),
    ("stillframe_engine_seen_timestamp_seconds", false, "When an engine was seen last."),
    (
        "stillframe_engine_circuit_open",
        false,
        "1 where an engine is tried only now and then, because it cannot be seen.",
    ),
    (
        "stillframe_engine_retry_timestamp_seconds",
        false,
        "When an engine is tried again after a failure.",
    ),
    ("stillframe_rounds_total", true, "Rounds, by how they went."),
    ("stillframe_round_ended_timestamp_seconds", false, "When the last round of an engine ended."),
    (
        "stillframe_round_began_timestamp_seconds",
        false,
        "When the round of an engine began that is under way.",
    ),
    (
        "stillframe_under_way",
        false,
        "Captures, copies and drills that go on beside the rounds of an engine.",
    ),
    (
        "stillframe_under_way_since_timestamp_seconds",
        false,
        "When the oldest of them was taken up.",
    ),
    ("stillframe_round_changes", false, "Changes in the plan of the last round, by action."),
    ("stillframe_actions_total", true, "Actions, by what came of them."),
    (
        "stillframe_held_images",
        false,
        "Images that nothing was taken from in the last round, by the guard that refused it.",
    ),
    ("stillframe_api_requests_total", true, "Requests to the service of an engine."),
    (
        "stillframe_api_throttled_total",
        true,
        "Requests that the service refused because there were too many.",
    ),
    (
        "stillframe_notifications_total",
        true,
        "Messages to receivers: sent; failed, each attempt; dropped, those that will not arrive.",
    ),
    ("stillframe_notifications_waiting", false, "Messages that wait for a receiver."),
    ("stillframe_pings_total", true, "Pings, by what became of them."),
];

/// All metrics at an instant.
pub fn text(snapshot: &Snapshot, now: Timestamp) -> String {
    let mut samples = Samples::default();
    process(snapshot, &mut samples);
    notifications(&snapshot.tally, &mut samples);
    policies(snapshot, now, &mut samples);
    for (name, status) in &snapshot.engines {
        engine(name, status, &mut samples);
        if let Some(facts) = &status.facts {
            seen(name, facts, now, &mut samples);
        }
    }
    samples.text()
}

/// Samples by metric; those of one metric stand together.
#[derive(Default)]
struct Samples(BTreeMap<&'static str, String>);

impl Samples {
    fn add(&mut self, metric: &'static str, labels: &[(&str, &dyn Display)], value: f64) {
        let lines = self.0.entry(metric).or_default();
        lines.push_str(metric);
        for (position, (name, value)) in labels.iter().enumerate() {
            let begin = if position == 0 { '{' } else { ',' };
            // Writing into a text does not fail.
            let _ = write!(lines, "{begin}{name}=\"{}\"", escape(&value.to_string()));
        }
        if !labels.is_empty() {
            lines.push('}');
        }
        let value = match value {
            _ if value.is_nan() => "NaN".to_owned(),
            f64::INFINITY => "+Inf".to_owned(),
            f64::NEG_INFINITY => "-Inf".to_owned(),
            value => value.to_string(),
        };
        let _ = writeln!(lines, " {value}");
    }

    fn text(self) -> String {
        let mut text =
            String::with_capacity(self.0.values().map(String::len).sum::<usize>() + 4096);
        for (name, only_grows, help) in METRICS {
            let Some(lines) = self.0.get(name) else { continue };
            let kind = if only_grows { "counter" } else { "gauge" };
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{lines}");
        }
        text
    }
}

/// A label value: backslash, quote and line end are escaped.
fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for character in value.chars() {
        match character {
            '\\' => escaped.push_str("\\\\"),
            '"' => escaped.push_str("\\\""),
            '\n' => escaped.push_str("\\n"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[expect(clippy::cast_precision_loss, reason = "values of metrics are floats")]
fn number(value: u64) -> f64 {
    value as f64
}

#[expect(clippy::cast_precision_loss, reason = "values of metrics are floats")]
fn seconds(instant: Timestamp) -> f64 {
    instant.as_second() as f64
}

/// From one instant to another, below zero where that is earlier.
#[expect(clippy::cast_precision_loss, reason = "values of metrics are floats")]
fn between(from: Timestamp, to: Timestamp) -> f64 {
    (to.as_second() - from.as_second()) as f64
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

fn process(snapshot: &Snapshot, samples: &mut Samples) {
    samples.add("stillframe_build_info", &[("version", &env!("CARGO_PKG_VERSION"))], 1.0);
    for (role, word) in
        [(Role::Idle, "idle"), (Role::Standby, "standby"), (Role::Running, "running")]
    {
        samples.add("stillframe_role", &[("role", &word)], flag(snapshot.role == role));
    }
    let validity = &snapshot.validity;
    // Who stands by has read nothing, which is neither valid nor not.
    if validity.read_at.is_some() {
        samples.add("stillframe_config_valid", &[], flag(validity.is_valid));
    }
    let mistakes = u64::try_from(validity.mistakes.len()).unwrap_or(u64::MAX);
    samples.add("stillframe_config_mistakes", &[], number(mistakes));
    let (valid, invalid) = validity.readings;
    for (result, count) in [("valid", valid), ("invalid", invalid)] {
        samples.add("stillframe_config_readings_total", &[("result", &result)], number(count));
    }
    if !snapshot.digest.is_empty() {
        samples.add("stillframe_config_info", &[("digest", &snapshot.digest)], 1.0);
    }
    for (metric, instant) in [
        ("stillframe_config_in_force_timestamp_seconds", snapshot.since),
        ("stillframe_config_read_timestamp_seconds", validity.read_at),
        ("stillframe_config_reading_since_timestamp_seconds", snapshot.reading_since),
    ] {
        if let Some(instant) = instant {
            samples.add(metric, &[], seconds(instant));
        }
    }
}

fn notifications(tally: &Tally, samples: &mut Samples) {
    for ((receiver, result), count) in &tally.messages {
        let labels: [(&str, &dyn Display); 2] = [("receiver", receiver), ("result", result)];
        samples.add("stillframe_notifications_total", &labels, number(*count));
    }
    for (receiver, count) in &tally.waiting {
        samples.add("stillframe_notifications_waiting", &[("receiver", receiver)], number(*count));
    }
    for (result, count) in &tally.pings {
        samples.add("stillframe_pings_total", &[("result", result)], number(*count));
    }
}

fn policies(snapshot: &Snapshot, now: Timestamp, samples: &mut Samples) {
    for policy in snapshot.policies.iter() {
        let labels: [(&str, &dyn Display); 2] =
            [("engine", &policy.engine), ("policy", &policy.name)];
        if let Some(rpo) = policy.rpo_seconds {
            samples.add("stillframe_policy_rpo_seconds", &labels, number(rpo.unsigned_abs()));
        }
        // What is in force says of a pause that has ended what it said before.
        if let Some(until) = policy.paused.filter(|until| until.is_none_or(|until| now < until)) {
            samples.add("stillframe_policy_paused", &labels, 1.0);
            samples.add(
                "stillframe_policy_paused_until_timestamp_seconds",
                &labels,
                until.map_or(f64::INFINITY, seconds),
            );
        }
    }
}

fn engine(name: &str, status: &EngineStatus, samples: &mut Samples) {
    let own: [(&str, &dyn Display); 1] = [("engine", &name)];
    samples.add("stillframe_engine_circuit_open", &own, flag(status.is_open));
    if let Some(retry_at) = status.retry_at {
        samples.add("stillframe_engine_retry_timestamp_seconds", &own, seconds(retry_at));
    }
    if let Some(since) = status.round_since {
        samples.add("stillframe_round_began_timestamp_seconds", &own, seconds(since));
    }
    let load = u64::try_from(status.load.count).unwrap_or(u64::MAX);
    samples.add("stillframe_under_way", &own, number(load));
    if let Some(since) = status.load.since {
        samples.add("stillframe_under_way_since_timestamp_seconds", &own, seconds(since));
    }
    for (result, count) in &status.rounds {
        let labels: [(&str, &dyn Display); 2] = [("engine", &name), ("result", result)];
        samples.add("stillframe_rounds_total", &labels, number(*count));
    }
    for ((action, result), count) in &status.actions {
        let action = action.word();
        let labels: [(&str, &dyn Display); 3] =
            [("engine", &name), ("action", &action), ("result", result)];
        samples.add("stillframe_actions_total", &labels, number(*count));
    }
    for ((policy, source), count) in &status.missed {
        let labels: [(&str, &dyn Display); 3] =
            [("engine", &name), ("policy", policy), ("source_id", source)];
        samples.add("stillframe_source_missed_slots_total", &labels, number(*count));
    }
    if let Some(calls) = status.calls {
        samples.add("stillframe_api_requests_total", &own, number(calls.sent));
        samples.add("stillframe_api_throttled_total", &own, number(calls.throttled));
    }
}

/// What the last round has seen of an engine.
fn seen(name: &str, facts: &EngineFacts, now: Timestamp, samples: &mut Samples) {
    let own: [(&str, &dyn Display); 1] = [("engine", &name)];
    // Of what was never seen it is not known that it has none.
    if let Some(seen_at) = facts.seen_at {
        samples.add("stillframe_engine_seen_timestamp_seconds", &own, seconds(seen_at));
    }
    if let Some(instances) = facts.instances.filter(|_| facts.seen_at.is_some()) {
        let count = |ids: &BTreeSet<SourceId>| number(u64::try_from(ids.len()).unwrap_or(u64::MAX));
        samples.add("stillframe_instances", &own, number(instances));
        samples.add("stillframe_instances_unprotected", &own, count(&facts.unprotected));
        samples.add("stillframe_instances_exempt", &own, count(&facts.exempt));
    }
    let gaps = u64::try_from(facts.round.gaps.len()).unwrap_or(u64::MAX);
    samples.add("stillframe_engine_gaps", &own, number(gaps));
    samples.add("stillframe_round_ended_timestamp_seconds", &own, seconds(facts.round.ended_at));
    for (guard, count) in &facts.round.held {
        let guard = guard.word();
        let labels: [(&str, &dyn Display); 2] = [("engine", &name), ("guard", &guard)];
        samples.add("stillframe_held_images", &labels, number(*count));
    }
    let summary = &facts.round.summary;
    for (action, count) in [
        ("create", summary.create),
        ("copy", summary.copy),
        ("drill", summary.drill),
        ("reactivate", summary.reactivate),
        ("relabel", summary.relabel),
        ("deprecate", summary.deprecate),
        ("obsolete", summary.obsolete),
        ("delete", summary.delete),
    ] {
        let labels: [(&str, &dyn Display); 2] = [("engine", &name), ("action", &action)];
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        samples.add("stillframe_round_changes", &labels, number(count));
    }
    for (policy, stored) in &facts.stored {
        let policy = policy.as_ref().map(ToString::to_string).unwrap_or_default();
        for (state, count) in &stored.images {
            let labels: [(&str, &dyn Display); 3] =
                [("engine", &name), ("policy", &policy), ("state", state)];
            samples.add("stillframe_images", &labels, number(*count));
        }
        let labels: [(&str, &dyn Display); 2] = [("engine", &name), ("policy", &policy)];
        samples.add("stillframe_stored_bytes", &labels, number(stored.bytes));
    }
    for source in &facts.sources {
        let labels: [(&str, &dyn Display); 4] = [
            ("engine", &name),
            ("policy", &source.policy),
            ("source", &source.name),
            ("source_id", &source.id),
        ];
        if let Some(newest) = source.newest {
            let age = between(newest.instant(), now);
            samples.add("stillframe_source_newest_ready_age_seconds", &labels, age);
        }
        if source.rpo.is_some() {
            let left = source.breach_at().map_or(f64::NEG_INFINITY, |at| between(now, at));
            samples.add("stillframe_source_rpo_breach_seconds", &labels, left);
        }
        if let Some(next) = source.next {
            samples.add("stillframe_source_next_timestamp_seconds", &labels, seconds(next));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped() {
        let mut samples = Samples::default();
        samples.add("stillframe_instances", &[("engine", &"a\"b\\c\nd")], 2.0);
        assert!(samples.text().ends_with("stillframe_instances{engine=\"a\\\"b\\\\c\\nd\"} 2\n"));
    }

    #[test]
    fn names_are_in_order_of_the_format() {
        for (name, only_grows, help) in METRICS {
            let is_named = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(name.starts_with("stillframe_") && name.chars().all(is_named), "{name}");
            assert_eq!(name.ends_with("_total"), only_grows, "{name}");
            assert!(!help.contains('\n') && !help.contains('\\'), "{name}");
        }
    }
}
