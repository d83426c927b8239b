//! Holds a plan against what is expected of it.

use std::collections::BTreeSet;

use super::case::{Case, Expect, Fate, Points, Text};
use super::outcome::{Item, Outcome};
use super::slots::SlotPattern;
use crate::name::Slot;
use crate::plan::guard::Guard;
use crate::policy::finding::{Code, Finding};

/// So many items are named in a line; `missing` and `unexpected` of a failure hold all.
const NAMED_MAX: usize = 8;

/// An expectation that is not met.
#[derive(Debug)]
pub struct Failure {
    /// The keys that lead to it: `kept.count`.
    pub expectation: String,
    /// Where it stands, what was expected and what was got.
    pub finding: Finding,
    /// More about it, line by line.
    pub notes: Vec<String>,
    /// What should be there and is not.
    pub missing: Vec<String>,
    /// What is there and should not be.
    pub unexpected: Vec<String>,
}

/// Gathers the expectations of a case that are not met.
pub(super) struct Judge<'a> {
    text: &'a Text,
    case: &'a Case,
    outcome: &'a Outcome,
    failures: Vec<Failure>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(text: &'a Text, case: &'a Case, outcome: &'a Outcome) -> Self {
        Self { text, case, outcome, failures: Vec::new() }
    }

    pub(super) fn judge(mut self) -> Vec<Failure> {
        let Expect { points, missed, refused, nothing, sources, next, findings, .. } =
            &self.case.expect;
        for (fate, points) in points {
            self.points(*fate, points);
        }
        let outcome = self.outcome;
        if let Some(missed) = missed.filter(|missed| outcome.missed != *missed as usize) {
            let message = format!("{} were missed, not {missed}", slots(outcome.missed));
            self.fail("missed", message, &format!("{} were", outcome.missed));
        }
        if let Some(refused) = refused {
            let words = |guards: &[Guard]| -> Vec<String> {
                guards.iter().map(|guard| guard.word().to_owned()).collect()
            };
            self.set(
                "refused",
                "other guards refuse than expected",
                &words(refused),
                &words(&outcome.refused),
            );
        }
        if let Some(nothing) = nothing.filter(|nothing| *nothing != outcome.changes.is_empty()) {
            let message =
                if nothing { "the plan changes something" } else { "the plan changes nothing" };
            let label = if nothing {
                format!("{} changes", outcome.changes.len())
            } else {
                "no change".to_owned()
            };
            self.fail("nothing", message.to_owned(), &label).notes =
                listed("it does", &outcome.changes);
        }
        for (key, names) in sources {
            let got = outcome.sources.get(key).cloned().unwrap_or_default();
            self.set(key, &format!("other sources are {key} than expected"), names, &got);
        }
        if let Some(next) = next {
            self.next(next);
        }
        if let Some(findings) = findings {
            self.set("findings", "other findings than expected", findings, &outcome.findings);
        }
        // In the order of the text.
        self.failures
            .sort_by_key(|failure| failure.finding.place.as_ref().map(|place| place.span.start));
        self.failures
    }

    fn fail(&mut self, key: &str, message: String, label: &str) -> &mut Failure {
        let pointer = format!("{}/expect/{}", self.case.pointer, key.replace('.', "/"));
        self.fail_at(key, &pointer, message, label)
    }

    fn fail_at(&mut self, key: &str, pointer: &str, message: String, label: &str) -> &mut Failure {
        let place = self.text.place(pointer);
        let finding = Finding::new(Code::UnmetExpectation, place, message).label(label);
        self.failures.push(Failure {
            expectation: key.to_owned(),
            finding,
            notes: Vec::new(),
            missing: Vec::new(),
            unexpected: Vec::new(),
        });
        let last = self.failures.len() - 1;
        &mut self.failures[last]
    }

    /// Words that must be the same, each as often.
    fn set(&mut self, key: &str, message: &str, wanted: &[String], got: &[String]) {
        let mut unexpected = got.to_vec();
        let mut missing = Vec::new();
        for word in wanted {
            match unexpected.iter().position(|other| other == word) {
                Some(at) => drop(unexpected.remove(at)),
                None => missing.push(word.clone()),
            }
        }
        if missing.is_empty() && unexpected.is_empty() {
            return;
        }
        let label = if got.is_empty() { "there is none".to_owned() } else { got.join(", ") };
        self.fail(key, message.to_owned(), &label).differing(missing, unexpected);
    }

    fn next(&mut self, wanted: &[Slot]) {
        let texts = |slots: &[Slot]| -> Vec<String> { slots.iter().map(text).collect() };
        let (wanted, got) = (texts(wanted), texts(&self.outcome.next));
        for (position, slot) in wanted.iter().enumerate() {
            if got.get(position) != Some(slot) {
                let label = got
                    .get(position)
                    .map_or("there is none".to_owned(), |got| format!("it is {got}"));
                let pointer = format!("{}/expect/next/{position}", self.case.pointer);
                let message = format!("slot {} is not {slot}", position + 1);
                let failure = self.fail_at("next", &pointer, message, &label);
                failure.missing = vec![slot.clone()];
                failure.unexpected = got.get(position).cloned().into_iter().collect();
            }
        }
    }

    fn points(&mut self, fate: Fate, points: &Points) {
        let items: Vec<&'a Item> = self.outcome.items(fate, points.location.as_deref());
        self.counts(fate, points, &items);
        if let Some(patterns) = &points.slots {
            let named = |item: &Item| patterns.iter().any(|pattern| pattern.matches(item.slot));
            let unexpected: Vec<&Item> =
                items.iter().copied().filter(|item| !named(item)).collect();
            let missing = idle(patterns, &items);
            self.slots(fate, "slots", &missing, &unexpected);
        }
        let missing = idle(&points.has, &items);
        self.slots(fate, "has", &missing, &[]);
        let lacks = |item: &&Item| points.lacks.iter().any(|pattern| pattern.matches(item.slot));
        let unexpected: Vec<&Item> = items.iter().copied().filter(lacks).collect();
        self.slots(fate, "lacks", &[], &unexpected);
        let ends = [
            ("oldest", &points.oldest, items.iter().min_by_key(|item| item.slot)),
            ("newest", &points.newest, items.iter().max_by_key(|item| item.slot)),
        ];
        for (key, wanted, got) in ends {
            let Some(wanted) = wanted else { continue };
            if got.is_some_and(|got| wanted.matches(got.slot)) {
                continue;
            }
            let label = got.map_or("there is none".to_owned(), |got| format!("it is {}", got.text));
            let message = format!("the {key} that is {} is not {}", fate.word(), wanted.text);
            let notes = self.whereabouts(fate, wanted);
            self.fail(&format!("{}.{key}", fate.key()), message, &label).notes = notes;
        }
        self.reasons(fate, points, &items);
    }

    fn counts(&mut self, fate: Fate, points: &Points, items: &[&Item]) {
        let checks = [
            (
                "count",
                points.count,
                "",
                points.count.is_none_or(|count| items.len() == count as usize),
            ),
            (
                "atLeast",
                points.at_least,
                "at least ",
                points.at_least.is_none_or(|least| items.len() >= least as usize),
            ),
            (
                "atMost",
                points.at_most,
                "at most ",
                points.at_most.is_none_or(|most| items.len() <= most as usize),
            ),
        ];
        for (key, wanted, words, is_met) in checks {
            let (Some(wanted), false) = (wanted, is_met) else { continue };
            let message = format!(
                "{} {} {}, not {words}{wanted}",
                restore_points(items.len()),
                are(items.len()),
                fate.word()
            );
            let texts: Vec<String> = items.iter().map(|item| item.with_reasons()).collect();
            let mut notes = listed(fate.key(), &texts);
            notes.extend(self.refusals(fate));
            let failure = self.fail(
                &format!("{}.{key}", fate.key()),
                message,
                &format!("got {}", items.len()),
            );
            failure.notes = notes;
        }
    }

    fn slots(&mut self, fate: Fate, key: &str, missing: &[&SlotPattern], unexpected: &[&Item]) {
        if missing.is_empty() && unexpected.is_empty() {
            return;
        }
        let parts: Vec<String> = [
            (missing.len(), "missing"),
            (unexpected.len(), if key == "lacks" { "not meant to be there" } else { "unexpected" }),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
        let message = format!("other restore points are {} than expected", fate.word());
        let mut notes = Vec::new();
        for pattern in missing.iter().take(NAMED_MAX) {
            notes.extend(self.whereabouts(fate, pattern));
        }
        notes.extend(self.refusals(fate));
        let missing = missing.iter().map(|pattern| pattern.text.clone()).collect();
        let unexpected = unexpected.iter().map(|item| item.with_reasons()).collect();
        let failure = self.fail(&format!("{}.{key}", fate.key()), message, &parts.join(", "));
        failure.differing(missing, unexpected);
        failure.notes.extend(notes);
    }

    fn reasons(&mut self, fate: Fate, points: &Points, items: &[&Item]) {
        for (pattern, code) in &points.reasons {
            let pointer = format!(
                "{}/expect/{}/reasons/{}",
                self.case.pointer,
                fate.key(),
                crate::policy::yaml::escape(&pattern.text)
            );
            let key = format!("{}.reasons", fate.key());
            let named: Vec<&&Item> =
                items.iter().filter(|item| pattern.matches(item.slot)).collect();
            let others: Vec<String> = named
                .iter()
                .filter(|item| !item.reasons.contains(code))
                .map(|item| item.with_reasons())
                .collect();
            if named.is_empty() {
                let message =
                    format!("no restore point that is {} is {}", fate.word(), pattern.text);
                let notes = self.whereabouts(fate, pattern);
                let failure = self.fail_at(&key, &pointer, message, "there is none");
                failure.missing = vec![pattern.text.clone()];
                failure.notes = notes;
            } else if !others.is_empty() {
                let message = format!("not {} because of {}", fate.word(), code.word());
                let label = format!("{} of {} for other reasons", others.len(), named.len());
                self.fail_at(&key, &pointer, message, &label).differing(Vec::new(), others);
            }
        }
        for (code, wanted) in &points.by_reason {
            let with: Vec<String> = items
                .iter()
                .filter(|item| item.reasons.contains(code))
                .map(|item| item.text.clone())
                .collect();
            if with.len() == *wanted as usize {
                continue;
            }
            let pointer =
                format!("{}/expect/{}/byReason/{}", self.case.pointer, fate.key(), code.word());
            let message = format!(
                "{} {} {} because of {}, not {wanted}",
                restore_points(with.len()),
                are(with.len()),
                fate.word(),
                code.word()
            );
            let label = format!("got {}", with.len());
            let key = format!("{}.byReason", fate.key());
            self.fail_at(&key, &pointer, message, &label).notes = listed(code.word(), &with);
        }
    }

    /// What became of a restore point that is not where it was expected.
    fn whereabouts(&self, fate: Fate, pattern: &SlotPattern) -> Vec<String> {
        let mut notes = Vec::new();
        for (other, items) in self.outcome.fates() {
            let found: Vec<&Item> =
                items.iter().filter(|item| pattern.matches(item.slot)).collect();
            if let (true, Some(first)) = (other != fate, found.first()) {
                let more = if found.len() > 1 {
                    format!(", and {} more", found.len() - 1)
                } else {
                    String::new()
                };
                notes.push(format!("{} is {}: {}{more}", first.text, other.word(), first.detail));
            }
        }
        notes
    }

    /// What the guards refuse, where that can be why something is not deleted.
    fn refusals(&self, fate: Fate) -> Vec<String> {
        if fate == Fate::Deleted { self.outcome.refusals.clone() } else { Vec::new() }
    }
}

impl Failure {
    fn differing(&mut self, missing: Vec<String>, unexpected: Vec<String>) {
        self.notes.extend(listed("missing", &missing));
        self.notes.extend(listed("unexpected", &unexpected));
        self.missing = missing;
        self.unexpected = unexpected;
    }
}

/// Patterns that name none of the items.
fn idle<'p>(patterns: &'p [SlotPattern], items: &[&Item]) -> Vec<&'p SlotPattern> {
    let is_idle = |pattern: &&SlotPattern| !items.iter().any(|item| pattern.matches(item.slot));
    let mut seen = BTreeSet::new();
    patterns.iter().filter(is_idle).filter(|pattern| seen.insert(&pattern.text)).collect()
}

/// A line with some of the items, if there are any: those at both ends.
fn listed(what: &str, items: &[String]) -> Vec<String> {
    if items.is_empty() {
        return Vec::new();
    }
    let text = if items.len() <= NAMED_MAX {
        items.join(", ")
    } else {
        let (first, last) = (&items[..NAMED_MAX / 2], &items[items.len() - NAMED_MAX / 2..]);
        format!("{}, … {} more …, {}", first.join(", "), items.len() - NAMED_MAX, last.join(", "))
    };
    vec![format!("{what}: {text}")]
}

fn text(slot: &Slot) -> String {
    slot.instant().to_string()
}

fn are(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

fn restore_points(count: usize) -> String {
    if count == 1 { "1 restore point".to_owned() } else { format!("{count} restore points") }
}

fn slots(count: usize) -> String {
    if count == 1 { "1 slot".to_owned() } else { format!("{count} slots") }
}
