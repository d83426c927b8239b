//! What holds, what of it people know, and what they are told next.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Condition, Occasion, Seen, Subject, Tried};
use crate::elapsed::Elapsed;

/// A condition, since when it holds, and when people were told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The condition.
    pub condition: Condition,
    /// Since when it holds.
    pub since: Timestamp,
    /// When people were told last; `None` where they were not.
    pub told_at: Option<Timestamp>,
}

/// What people are told at once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Digest {
    /// What they do not know yet.
    pub new: Vec<Told>,
    /// What still holds and is told again.
    pub still: Vec<Told>,
    /// What has ended.
    pub over: Vec<Told>,
}

/// What holds at present. A book that is new knows of nothing that was told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Book {
    held: BTreeMap<Subject, Told>,
    over: BTreeMap<Subject, Told>,
    /// The engines that there are, once that was said: of others nothing holds.
    engines: Option<BTreeSet<String>>,
}

impl Book {
    /// A book that knows what was told before.
    pub fn remembering(told: Vec<Told>) -> Self {
        let held = told.into_iter().map(|told| (told.condition.subject.clone(), told));
        Self { held: held.collect(), ..Self::default() }
    }

    /// What holds and was told.
    pub fn told(&self) -> Vec<Told> {
        self.held.values().filter(|told| told.told_at.is_some()).cloned().collect()
    }

    /// A round of an engine has ended. Where not all was seen, and as long as something may still
    /// fail again, nothing has recovered; what failed to be made has recovered when there is a newer
    /// restore point, or when none is wanted any more.
    pub fn round(&mut self, seen: Seen<'_>, now: Timestamp) {
        let Seen { engine, is_complete, conditions, open, newest } = seen;
        if !self.knows(&engine) {
            return;
        }
        let holds: BTreeSet<Subject> =
            conditions.iter().map(|condition| condition.subject.clone()).collect();
        let is_made_good = |told: &Told| {
            let Condition { subject, newest: before, .. } = &told.condition;
            let found = newest.get(&(&*subject.policy, &*subject.source));
            !subject.is_of_making() || found.is_none_or(|newest| newest > before)
        };
        self.end(|told| {
            let subject = &told.condition.subject;
            // What is not seen nothing is deleted of, whatever a guard would say.
            let is_guarded = subject.occasion == Occasion::GuardRefusal;
            let is_unseen = !is_complete && (is_guarded || !subject.source.is_empty());
            subject.engine == engine
                && subject.occasion != Occasion::InvalidPolicy
                && !(holds.contains(subject) || open.contains(subject) || is_unseen)
                && is_made_good(told)
        });
        for condition in conditions {
            self.holds(condition, now);
        }
    }

    /// A round of an engine was not carried out.
    pub fn round_failed(&mut self, engine: &str, message: String, now: Timestamp) {
        if !self.knows(engine) {
            return;
        }
        let subject = Subject {
            occasion: Occasion::Failure,
            engine: engine.to_owned(),
            policy: String::new(),
            source: String::new(),
            detail: "round".to_owned(),
        };
        self.holds(Condition::new(subject, "", message), now);
    }

    /// Something has ended beside the rounds of an engine, well or not.
    pub fn ended(&mut self, engine: &str, tried: &Tried, now: Timestamp) {
        if !self.knows(engine) {
            return;
        }
        if let Some(condition) = tried.condition(engine) {
            self.holds(condition, now);
        } else {
            let subject = tried.subject(engine);
            self.end(|told| told.condition.subject == subject);
        }
    }

    /// The files were read, with these mistakes.
    pub fn policies(&mut self, mistakes: &[String], now: Timestamp) {
        let Some(first) = mistakes.first() else {
            return self.end(|told| told.condition.subject.occasion == Occasion::InvalidPolicy);
        };
        let more = match mistakes.len() {
            1 => String::new(),
            count => format!(", and {} more", count - 1),
        };
        let subject = Subject {
            occasion: Occasion::InvalidPolicy,
            engine: String::new(),
            policy: String::new(),
            source: String::new(),
            detail: String::new(),
        };
        let message = format!("what was in force stays: {first}{more}");
        self.holds(Condition::new(subject, "", message), now);
    }

    /// Only these engines are there.
    pub fn engines(&mut self, names: &BTreeSet<String>) {
        // What was taken out of the configuration has neither failed nor recovered.
        let is_there =
            |subject: &Subject| subject.engine.is_empty() || names.contains(&subject.engine);
        self.held.retain(|subject, _| is_there(subject));
        self.over.retain(|subject, _| is_there(subject));
        self.engines = Some(names.clone());
    }

    /// Whether an engine is there. A round of one that was taken out ends after that.
    pub fn knows(&self, engine: &str) -> bool {
        self.engines.as_ref().is_none_or(|engines| engines.contains(engine))
    }

    fn holds(&mut self, condition: Condition, now: Timestamp) {
        let subject = condition.subject.clone();
        // What is back before anybody was told that it had ended has not ended.
        let known = self.over.remove(&subject).or_else(|| self.held.remove(&subject));
        let told = match known {
            Some(known) => {
                // What there was when it began counts.
                let newest = known.condition.newest.or(condition.newest);
                Told { condition: Condition { newest, ..condition }, ..known }
            }
            None => Told { condition, since: now, told_at: None },
        };
        self.held.insert(subject, told);
    }

    fn end(&mut self, has_ended: impl Fn(&Told) -> bool) {
        let ended = self.held.extract_if(.., |_, told| has_ended(told));
        // What nobody was told of need not be called off.
        self.over.extend(ended.filter(|(_, told)| told.told_at.is_some()));
    }

    /// When something is to be told next, if nothing happens.
    pub fn next(&self, repeat: Elapsed) -> Option<Timestamp> {
        self.held.values().filter_map(|told| told.told_at).min().map(|at| repeat.after(at))
    }

    /// What is to be told now, which then counts as told. Reminders come together.
    pub fn take(&mut self, repeat: Elapsed, now: Timestamp) -> Option<Digest> {
        let mut digest = Digest {
            over: std::mem::take(&mut self.over).into_values().collect(),
            ..Digest::default()
        };
        let is_due =
            self.held.values().filter_map(|told| told.told_at).any(|at| repeat.after(at) <= now);
        for told in self.held.values_mut() {
            match told.told_at {
                None => digest.new.push(told.clone()),
                Some(_) if is_due => digest.still.push(told.clone()),
                // A clock that went back must not silence anything.
                Some(at) if at > now => {}
                Some(_) => continue,
            }
            told.told_at = Some(now);
        }
        let is_empty = digest.new.is_empty() && digest.still.is_empty() && digest.over.is_empty();
        (!is_empty).then_some(digest)
    }
}
