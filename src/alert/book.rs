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
    /// Whether this process has said that it holds.
    #[serde(skip)]
    is_said: bool,
}

impl Told {
    /// A condition that holds since then, and that nobody was told of.
    pub fn new(condition: Condition, since: Timestamp) -> Self {
        Self { condition, since, told_at: None, is_said: false }
    }
}

/// What a round has changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Turn {
    /// What holds and was not said by this process, or is about another slot than what was.
    pub new: Vec<Condition>,
    /// What has ended.
    pub over: Vec<Condition>,
    /// The slots that were missed of sources that have never had a restore point: no plan knows of
    /// them, for nothing says since when there should be one.
    pub missed: Vec<Condition>,
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
    /// What people are being told has ended, and when that was written: it may not have arrived.
    leaving: BTreeMap<Subject, (Timestamp, Told)>,
    /// The engines that there are, once that was said: of others nothing holds.
    engines: Option<BTreeSet<String>>,
    /// Nobody is told of anything: nothing waits for that.
    is_unheard: bool,
}

impl Book {
    /// A book that knows what was told before.
    pub fn remembering(told: Vec<Told>) -> Self {
        let held = told.into_iter().map(|told| (told.condition.subject.clone(), told));
        Self { held: held.collect(), ..Self::default() }
    }

    /// What people take to hold: what they were told of and not yet that it has ended.
    pub fn told(&self) -> Vec<Told> {
        let held = self.held.values().filter(|told| told.told_at.is_some());
        let is_held =
            |subject: &Subject| self.held.get(subject).is_some_and(|told| told.told_at.is_some());
        let over = self.leaving.iter().filter(|(subject, _)| !is_held(subject));
        held.chain(over.map(|(_, (_, told))| told)).cloned().collect()
    }

    /// A round of an engine has ended. Where not all was seen, and as long as something may still
    /// fail again, nothing has recovered; what failed to be made has recovered when there is a newer
    /// restore point, or when none is wanted any more.
    pub fn round(&mut self, mut seen: Seen<'_>, now: Timestamp) -> Turn {
        if !self.knows(&seen.engine) {
            return Turn::default();
        }
        // Who has heard of it hears that it has ended, and nobody hears of it twice.
        let is_told =
            |subject: &Subject| self.held.get(subject).is_some_and(|told| told.told_at.is_some());
        let mended = std::mem::take(&mut seen.mended);
        let is_over = |subject: &Subject| mended.contains(subject) && is_told(subject);
        seen.conditions.retain(|condition| !is_over(&condition.subject));
        let missed = self.missed(&seen);
        seen.conditions.extend(missed.iter().cloned());
        seen.conditions.extend(self.breaches(&seen, now));
        let over = self.end_unseen(&seen);
        let mut new = Vec::new();
        for condition in seen.conditions {
            if self.holds(condition.clone(), now) {
                new.push(condition);
            }
        }
        Turn { new, over, missed }
    }

    /// Ends what a round has not found any more.
    fn end_unseen(&mut self, seen: &Seen<'_>) -> Vec<Condition> {
        let holds: BTreeSet<&Subject> =
            seen.conditions.iter().map(|condition| &condition.subject).collect();
        let is_made_good = |told: &Told| {
            let Condition { subject, newest: before, .. } = &told.condition;
            let found = seen.newest.get(&(&*subject.policy, &*subject.source));
            !subject.wants_newer() || found.is_none_or(|newest| newest > before)
        };
        let is_unheard = self.is_unheard;
        self.end(|told| {
            let subject = &told.condition.subject;
            // What is not seen nothing is deleted of, whatever a guard would say.
            let is_guarded = subject.occasion == Occasion::GuardRefusal;
            let is_unseen = !seen.is_complete && (is_guarded || !subject.source.is_empty());
            // That a slot was missed stays true: people are told, also where a newer one was made.
            let is_missed = subject.occasion == Occasion::MissedSlot;
            let is_untold = is_missed && told.told_at.is_none() && !is_unheard;
            subject.engine == seen.engine
                && subject.occasion != Occasion::InvalidPolicy
                && !(holds.contains(subject) || seen.open.contains(subject))
                && !(is_unseen || is_untold)
                && is_made_good(told)
        })
    }

    /// Slots that were missed of sources that have never had a restore point: a capture has failed, and
    /// now that of a later slot has as well.
    fn missed(&self, seen: &Seen<'_>) -> Vec<Condition> {
        let failed = seen.conditions.iter().filter(|condition| condition.subject.is_of_making());
        let missed = failed.filter_map(|condition| {
            let Subject { policy, source, .. } = &condition.subject;
            let has_one = seen.newest.get(&(&**policy, &**source)).is_some_and(Option::is_some);
            let before = self.held.get(&condition.subject)?.condition.slot?;
            if has_one || condition.slot? <= before {
                return None;
            }
            let occasion = Occasion::MissedSlot;
            let subject = Subject { occasion, detail: String::new(), ..condition.subject.clone() };
            Some(super::seen::missed(subject, &condition.source_name, before, 0))
        });
        missed.collect()
    }

    /// Objectives that are broken because captures have failed from the first one on.
    fn breaches(&self, seen: &Seen<'_>, now: Timestamp) -> Vec<Condition> {
        let known: BTreeSet<&Subject> =
            seen.conditions.iter().map(|condition| &condition.subject).collect();
        let failing = self.held.values().filter(|told| {
            told.condition.subject.engine == seen.engine && told.condition.subject.is_of_making()
        });
        let broken = failing.filter_map(|told| {
            let Condition { subject, source_name, .. } = &told.condition;
            let objective = seen.never.get(&(&*subject.policy, &*subject.source))?;
            if objective.after(told.since) > now {
                return None;
            }
            let occasion = Occasion::RpoBreach;
            let subject = Subject { occasion, detail: String::new(), ..subject.clone() };
            let since = told.since;
            let message = format!(
                "there is no restore point, and captures have failed since {since}, for longer than {objective}"
            );
            (!known.contains(&subject)).then(|| Condition::new(subject, source_name, message))
        });
        broken.collect()
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
            self.end(|told| told.condition.subject.occasion == Occasion::InvalidPolicy);
            return;
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
        self.leaving.retain(|subject, _| is_there(subject));
        self.engines = Some(names.clone());
    }

    /// Whether an engine is there. A round of one that was taken out ends after that.
    pub fn knows(&self, engine: &str) -> bool {
        self.engines.as_ref().is_none_or(|engines| engines.contains(engine))
    }

    /// Takes note of a condition; back comes whether that is to be said.
    fn holds(&mut self, condition: Condition, now: Timestamp) -> bool {
        let subject = condition.subject.clone();
        // What is back before anybody was told that it had ended has not ended.
        let known = self.over.remove(&subject).or_else(|| self.held.remove(&subject));
        let is_missed = subject.occasion == Occasion::MissedSlot;
        let is_new = known.as_ref().is_none_or(|known| {
            !known.is_said || (is_missed && known.condition.slot != condition.slot)
        });
        let told = match known {
            Some(known) => {
                // What there was when it began counts.
                let newest = known.condition.newest.or(condition.newest);
                Told { condition: Condition { newest, ..condition }, is_said: true, ..known }
            }
            None => Told { is_said: true, ..Told::new(condition, now) },
        };
        self.held.insert(subject, told);
        is_new
    }

    /// Ends what has ended; back comes what this process has said of it.
    fn end(&mut self, has_ended: impl Fn(&Told) -> bool) -> Vec<Condition> {
        let ended = self.held.extract_if(.., |_, told| has_ended(told));
        let mut said = Vec::new();
        for (subject, told) in ended {
            if told.is_said {
                said.push(told.condition.clone());
            }
            // What nobody was told of need not be called off.
            if told.told_at.is_some() {
                self.over.insert(subject, told);
            }
        }
        said
    }

    /// Whether there is anybody to tell.
    pub fn heard(&mut self, is_heard: bool) {
        self.is_unheard = !is_heard;
    }

    /// Only the messages that were written then still wait; back comes whether people have heard that
    /// more has ended.
    pub fn settle(&mut self, waiting: &BTreeSet<Timestamp>) -> bool {
        let before = self.leaving.len();
        self.leaving.retain(|_, (written_at, _)| waiting.contains(written_at));
        self.leaving.len() != before
    }

    /// What did not arrive was not told: after a restart it is told as new.
    pub fn untell(&mut self, told_at: &BTreeSet<Timestamp>) {
        for told in self.held.values_mut() {
            told.told_at = told.told_at.filter(|at| !told_at.contains(at));
        }
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
        for told in &digest.over {
            self.leaving.insert(told.condition.subject.clone(), (now, told.clone()));
        }
        let is_empty = digest.new.is_empty() && digest.still.is_empty() && digest.over.is_empty();
        (!is_empty).then_some(digest)
    }
}
