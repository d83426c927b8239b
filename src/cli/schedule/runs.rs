//! The firings of one schedule, with what is special about them.

use jiff::Timestamp;
use jiff::civil::DateTime;
use serde_json::{Value, json};

use super::Span;
use crate::elapsed::Elapsed;
use crate::name::Slot;
use crate::policy::Policy;
use crate::report::{clean, table};
use crate::schedule::notes::{ClockChange, Note, clock_changes, left_out, notes};
use crate::schedule::{Crontab, CrontabError, Zone};

/// Lines are not wider.
const WIDTH: usize = 100;

/// Firings, what is special about them, and the clock changes among them.
pub(super) struct Runs<'a> {
    firings: Vec<(Timestamp, Vec<Note>)>,
    /// Each with the local times for which nothing runs.
    changes: Vec<(ClockChange, Vec<DateTime>)>,
    zone: &'a Zone,
}

impl<'a> Runs<'a> {
    pub(super) fn new(
        firings: Vec<Timestamp>,
        crontabs: &[&Crontab],
        zone: &'a Zone,
        span: Span,
    ) -> Self {
        let last = firings.last().map(|last| Elapsed::seconds(1).after(*last));
        let is_whole = span.is_closed && firings.len() < span.limit();
        let end = if is_whole { Some(span.until) } else { last };
        let changes = end.map(|end| clock_changes(zone, span.from, end)).unwrap_or_default();
        let changes = changes
            .into_iter()
            .map(|change| {
                let all = crontabs.iter().flat_map(|crontab| left_out(crontab, &change));
                let mut times: Vec<DateTime> = all.collect();
                times.sort_unstable();
                times.dedup();
                (change, times)
            })
            .collect();
        let special = |instant: Timestamp| {
            crontabs.iter().flat_map(|crontab| notes(crontab, zone, instant)).collect()
        };
        let firings = firings.into_iter().map(|instant| (instant, special(instant))).collect();
        Self { firings, changes, zone }
    }

    /// Says of each firing whether the policy is kept from it, and until when.
    pub(super) fn held_by(mut self, policy: &Policy) -> Self {
        for (instant, notes) in &mut self.firings {
            let holds = policy.pauses_at(*instant).into_iter().find(|pause| pause.creates);
            let Some(pause) = holds else { continue };
            let slot = Slot::at(*instant);
            let deadline = policy.schedule.deadline_of(slot);
            let is_out = policy.is_blacked_out(slot, deadline)
                || pause.until.is_none_or(|until| until > deadline);
            let what = if pause.is_blackout { "blackout" } else { "paused" };
            let reason = pause.reason.unwrap_or_else(|| what.to_owned());
            let until = pause.until.filter(|_| !is_out);
            notes.push(Note::Held { until, reason: clean(&reason) });
        }
        self
    }

    pub(super) fn firings(&self) -> Vec<Timestamp> {
        self.firings.iter().map(|(instant, _)| *instant).collect()
    }

    /// UTC and local time of each firing, indented.
    pub(super) fn text(&self) -> String {
        let mut rows: Vec<(Timestamp, bool, String)> = Vec::new();
        for (instant, notes) in &self.firings {
            let notes: Vec<String> = notes.iter().map(ToString::to_string).collect();
            rows.push((*instant, true, notes.join("; ")));
        }
        for (change, times) in &self.changes {
            rows.push((change.instant, false, format!("({change}{})", left_out_text(times))));
        }
        rows.sort();
        let rows: Vec<Vec<String>> = rows
            .into_iter()
            .map(|(instant, _, note)| {
                vec![instant.to_string(), self.local(instant, "%a %Y-%m-%d %H:%M %Z"), note]
            })
            .collect();
        table(&rows).iter().map(|line| format!("  {line}\n")).collect()
    }

    /// Adds the firings to a document.
    pub(super) fn add_to(&self, document: &mut Value) {
        document["firings"] = json!(self.firings());
        document["runs"] = self
            .firings
            .iter()
            .map(|(instant, notes)| {
                json!({
                    "instant": instant,
                    "local": self.local(*instant, "%Y-%m-%dT%H:%M:%S%:z"),
                    "notes": notes.iter().map(note).collect::<Vec<_>>(),
                })
            })
            .collect();
        document["clock_changes"] = self
            .changes
            .iter()
            .map(|(change, times)| {
                json!({
                    "instant": change.instant,
                    "before": change.before,
                    "after": change.after,
                    "left_out": times,
                })
            })
            .collect();
    }

    fn local(&self, instant: Timestamp, format: &str) -> String {
        instant.to_zoned(self.zone.time_zone().clone()).strftime(format).to_string()
    }
}

fn left_out_text(times: &[DateTime]) -> String {
    match times {
        [] => String::new(),
        [only] => format!("; {} is skipped and left out", only.strftime("%H:%M")),
        [first, others @ ..] => format!(
            "; {} and {} more are skipped and left out",
            first.strftime("%H:%M"),
            others.len()
        ),
    }
}

fn note(note: &Note) -> Value {
    let mut value = json!({"kind": note.word(), "text": note.to_string()});
    match note {
        Note::Moved { wanted } => value["wanted"] = json!(wanted),
        Note::Doubled { second, once, .. } => {
            value["second"] = json!(second);
            value["once"] = json!(once);
        }
        Note::Held { until, reason } => {
            value["until"] = json!(until);
            value["reason"] = json!(reason);
        }
    }
    value
}

/// The mistakes of an expression, each underlined.
pub(super) fn underlined(text: &str, kind: &str, errors: &[CrontabError]) -> String {
    errors
        .iter()
        .map(|error| {
            let hint =
                error.hint.as_ref().map(|hint| format!("\n  help: {hint}")).unwrap_or_default();
            // What is shown in place of a control character is longer than it.
            let before: String = text.chars().take(error.column).collect();
            let marked: String = text.chars().skip(error.column).take(error.length).collect();
            format!(
                "{kind}: {}\n  {}\n  {}{}{}\n",
                clean(&error.message),
                clean(text),
                " ".repeat(clean(&before).chars().count()),
                "^".repeat(clean(&marked).chars().count().max(1)),
                clean(&hint).replace("\\u{a}", "\n"),
            )
        })
        .collect()
}

/// A sentence behind a word, broken into lines.
pub(super) fn wrapped(word: &str, sentence: &str) -> String {
    let mut text = String::new();
    let mut line = word.to_owned();
    for part in sentence.split(' ') {
        if line.chars().count() + part.chars().count() > WIDTH {
            text.push_str(line.trim_end());
            text.push('\n');
            line = " ".repeat(word.chars().count());
        }
        line.push_str(part);
        line.push(' ');
    }
    text.push_str(line.trim_end());
    text.push('\n');
    text
}
