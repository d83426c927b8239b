//! One round of one engine, and what is told of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use jiff::Timestamp;

use super::facts::{SourceFacts, is_unseen};
use super::{Delay, EngineFacts, RoundFacts, Status};
use crate::agenda::{Ended, Health, NextDue, next_due};
use crate::alert::{Condition, Occasion, Seen, Subject, Tried, Turn, conditions};
use crate::apply::{Ending, Listener, Outcome, Stop};
use crate::coverage::{Cover, coverage};
use crate::elapsed::Elapsed;
use crate::engine::{Progress, Settled};
use crate::name::{PolicyName, SourceId};
use crate::plan::guard::{Guard, Refusal, refuses};
use crate::plan::{Action, Change, Kept, Plan};
use crate::policy::Finding;
use crate::reconcile::{Approval, Room, Round};
use crate::report::overview::{RoundRow, carried_out, engine_overview, planned};
use crate::report::{clean, host_of};

/// A round that is to be carried out.
pub(super) struct RoundTask {
    pub(super) engine: String,
    pub(super) room: Arc<Room>,
    pub(super) delay: Arc<Delay>,
    pub(super) stop: Stop,
    pub(super) status: Arc<Status>,
}

/// A round that has ended.
pub(super) struct Finished {
    pub(super) engine: String,
    /// What that leaves; `None` where it was to stop before anything was seen: that says nothing of the
    /// engine.
    pub(super) ended: Option<Ended>,
}

impl RoundTask {
    pub(super) async fn run(self) -> Finished {
        let scribe = Arc::new(Scribe { engine: self.engine.clone(), changes: OnceLock::new() });
        let approval = Approved { scribe: Arc::clone(&scribe), status: Arc::clone(&self.status) };
        let awake = self.delay.awake();
        let round = self.room.round_unless_stopped(&approval, scribe, &self.stop).await;
        let ended = round.map(|round| self.look_back(&round, awake));
        if let Some(engine) = self.room.engines.first() {
            self.status.calls(&self.engine, engine.calls());
        }
        Finished { engine: self.engine, ended }
    }

    fn look_back(&self, round: &Round, awake: Elapsed) -> Ended {
        let now = self.room.clock.now();
        let seen = round.after.as_ref();
        let covers = seen.map(|seen| coverage(&self.room.policies, seen, now)).unwrap_or_default();
        let mut facts = EngineFacts::of(&self.room.policies, round, &covers, now);
        let tried = tried(round);
        let turn = self.status.notices.round(self.conditions(round, &tried, &covers, now), now);
        facts.round.missed_besides(&turn.missed);
        self.tell(&facts, round, &turn, &tried);
        if self.status.has_page() {
            self.show(&facts, round, now);
        }
        let instances = round.after.iter().flat_map(|seen| &seen.engines);
        let instances = instances.flat_map(|engine| &engine.instances).cloned();
        let instances: Vec<_> = instances.collect();
        let due = next_due(&self.room.policies, &instances, round.plan.now);
        let due =
            due.into_iter().chain(next_turn(&round.plan)).chain(self.next_delete(round, awake));
        let due = NextDue::first(due);
        let has_failed = RoundFacts::has_failed(round);
        let health = if is_unseen(&round.plan) {
            Health::Broken
        } else if has_failed || !round.plan.blocked.is_empty() {
            Health::Partly
        } else {
            Health::Well
        };
        self.status.facts(&self.engine, facts);
        let goes_on = round.outcomes.iter().any(|outcome| outcome.ending == Ending::UnderWay);
        // What cannot be captured as it is cannot be a minute later either.
        let is_lasting = health == Health::Partly && !has_failed;
        Ended { health, due, goes_on, is_lasting }
    }

    /// When deletes of the round, which began at a time `awake`, go that wait because the policies have
    /// changed.
    fn next_delete(&self, round: &Round, awake: Elapsed) -> Option<NextDue> {
        let waits = round.plan.refusals.iter().any(|one| one.guard == Guard::DeleteDelay);
        let at =
            self.delay.ends_at(&self.engine, awake, self.room.clock.now()).filter(|_| waits)?;
        Some(NextDue::without_deadline(at))
    }

    /// What the page says of it.
    fn show(&self, facts: &EngineFacts, round: &Round, now: Timestamp) {
        let results = facts
            .round
            .results
            .iter()
            .map(|((action, what), count)| format!("{} {}: {count}", action.word(), what));
        let row = RoundRow {
            engine: self.engine.clone(),
            began_at: facts.round.now,
            ended_at: Some(now),
            plan: facts.round.plan.clone(),
            planned: planned(&facts.round.summary),
            results: results.collect::<Vec<_>>().join(", "),
        };
        self.status.round_row(&self.engine, row);
        let Some(seen) = &round.after else { return };
        let before = self.status.overview_of(&self.engine);
        let (policies, plan) = (&self.room.policies, &round.plan);
        let overview = engine_overview(policies, seen, &self.engine, plan, before.as_deref(), now);
        if let Some(mut overview) = overview {
            overview.plan = carried_out(plan, &round.outcomes, &self.engine);
            self.status.overview(&self.engine, overview);
        }
    }

    /// What people are to know of a round.
    fn conditions<'a>(
        &self,
        round: &Round,
        tried: &[Tried],
        covers: &'a [Cover<'_>],
        now: Timestamp,
    ) -> Seen<'a> {
        let mut seen = conditions(&self.engine, &round.plan, tried, covers, now);
        // What the last look could not see has not recovered either.
        seen.is_complete = is_seen_whole(round);
        seen.conditions.extend(self.unseen_breaches(round, covers, now));
        for error in round.settled.iter().filter_map(|(_, settled)| settled.as_ref().err()) {
            let subject = Subject {
                occasion: Occasion::Failure,
                engine: self.engine.clone(),
                policy: String::new(),
                source: String::new(),
                detail: "space".to_owned(),
            };
            let message = format!("space could not be given back: {error}");
            seen.conditions.push(Condition::new(subject, "", message));
        }
        seen.conditions.extend(self.standing(round));
        seen.conditions.extend(self.unwritten(round));
        seen
    }

    /// Objectives of sources that this round could not see: their time goes on.
    fn unseen_breaches(
        &self,
        round: &Round,
        covers: &[Cover<'_>],
        now: Timestamp,
    ) -> Vec<Condition> {
        if is_seen_whole(round) {
            return Vec::new();
        }
        let seen: BTreeSet<(&PolicyName, &SourceId)> =
            covers.iter().map(|cover| (&cover.policy.name, &cover.instance.id)).collect();
        let known = self.status.known(&self.engine);
        let sources = known.iter().flat_map(|facts| &facts.sources);
        let is_unseen = |source: &&SourceFacts| {
            !seen.contains(&(&source.policy, &source.id))
                && self.room.policies.get(&source.policy).is_some()
        };
        let broken = sources.filter(is_unseen).filter_map(|source| {
            let (objective, at) = (source.rpo?, source.breach_at().filter(|at| *at <= now)?);
            let subject = Subject {
                occasion: Occasion::RpoBreach,
                engine: self.engine.clone(),
                policy: source.policy.to_string(),
                source: source.id.to_string(),
                detail: String::new(),
            };
            let message = format!(
                "the objective of {objective} is broken since {at}, as far as is known: the source cannot be seen"
            );
            Some(Condition::new(subject, &source.name, message))
        });
        broken.collect()
    }

    /// The ledger could not be written.
    fn unwritten(&self, round: &Round) -> Option<Condition> {
        let subject = Subject {
            occasion: Occasion::Failure,
            engine: self.engine.clone(),
            policy: String::new(),
            source: String::new(),
            detail: "ledger".to_owned(),
        };
        round.unwritten.clone().map(|note| Condition::new(subject, "", note))
    }

    /// Machines that were stopped for a capture and do not run again.
    fn standing(&self, round: &Round) -> Option<Condition> {
        let settled = round.settled.iter().flat_map(|(_, settled)| settled);
        let overdue: Vec<&str> = settled.flat_map(Settled::overdue).collect();
        let subject = Subject {
            occasion: Occasion::Failure,
            engine: self.engine.clone(),
            policy: String::new(),
            source: String::new(),
            detail: "standing".to_owned(),
        };
        (!overdue.is_empty()).then(|| Condition::new(subject, "", overdue.join("; ")))
    }

    /// Says what is new: gaps, refusals and what is in the way are told once, not with every round.
    fn tell(&self, facts: &EngineFacts, round: &Round, turn: &Turn, tried: &[Tried]) {
        let engine = &self.engine;
        let plan = &round.plan;
        let mut holds: BTreeMap<String, String> = BTreeMap::new();
        for gap in &facts.round.gaps {
            let text = format!("not seen: {gap}");
            holds.insert(text.clone(), text);
        }
        for refusal in plan.refusals.iter().filter(|refusal| !refusal.overridden) {
            holds.entry(kept_by(refusal)).or_insert_with(|| said_of(refusal));
        }
        let (new, over) = self.status.said(engine, holds);
        for text in new {
            tracing::warn!(engine, "{text}");
        }
        for text in over {
            tracing::info!(engine, "no longer: {text}");
        }
        if let Some(note) = &round.unwritten {
            tracing::error!(engine, "{note}");
        }
        // What has failed was said when it did.
        let failed: BTreeSet<Subject> = tried.iter().map(|one| one.subject(engine)).collect();
        let of_sources = |condition: &&Condition| {
            !condition.subject.source.is_empty() && !failed.contains(&condition.subject)
        };
        for condition in turn.new.iter().filter(of_sources) {
            let Condition { subject, source_name, message, .. } = condition;
            tracing::warn!(engine, policy = subject.policy, "{source_name}: {message}");
        }
        for condition in turn.over.iter().filter(of_sources) {
            let Condition { subject, source_name, message, .. } = condition;
            tracing::info!(engine, policy = subject.policy, "no longer: {source_name}: {message}");
        }
        let done = round.outcomes.iter().filter(|outcome| outcome.ending.is_settled()).count();
        let under_way = |outcome: &&Outcome| outcome.ending == Ending::UnderWay;
        let goes_on = round.outcomes.iter().filter(under_way).count();
        let left = round.outcomes.len() - done - goes_on;
        let short = plan.id.get(..crate::plan::guard::SHORT_ID).unwrap_or(&plan.id);
        if round.outcomes.is_empty() {
            tracing::debug!(engine, plan = short, "nothing to do");
        } else {
            let refused = refuses(&plan.refusals);
            tracing::info!(
                engine,
                plan = short,
                done,
                goes_on,
                not_done = left,
                refused,
                "round ended"
            );
        }
    }
}

/// What a refusal is called as long as it goes on: how much it keeps changes with every slot.
fn kept_by(refusal: &Refusal) -> String {
    let word = refusal.guard.word();
    match refusal.guard {
        // Each class is refused by itself.
        Guard::RiskClass => format!("{word} keeps images: {}", refusal.message),
        _ => format!("{word} keeps images"),
    }
}

fn said_of(refusal: &Refusal) -> String {
    let Refusal { guard, images, message, .. } = refusal;
    format!("{} keeps {} images: {message}{}", guard.word(), images.len(), guard.way_out())
}

/// Whether all of the engine was seen, before something was done and after.
fn is_seen_whole(round: &Round) -> bool {
    let mut after = round.after.iter().flat_map(|seen| &seen.engines);
    round.plan.engines.iter().all(|engine| engine.complete)
        && after.all(|engine| engine.gaps.is_empty())
}

/// What was tried and is not done.
fn tried(round: &Round) -> Vec<Tried> {
    let open = round.outcomes.iter().filter(|outcome| !outcome.ending.is_settled());
    let tried = open.filter_map(|outcome| {
        let change = round.plan.changes.get(outcome.change)?;
        let failure = match &outcome.ending {
            Ending::Failed { message } => Some(message.clone()),
            _ => None,
        };
        Some(Tried {
            action: change.action,
            policy: change.key.policy.clone(),
            source: change.key.source.clone(),
            source_name: change.source_name.clone(),
            slot: change.key.slot,
            failure,
        })
    });
    tried.collect()
}

/// When the first of those that wait for their source can be captured.
pub(super) fn next_turn(plan: &Plan) -> Option<NextDue> {
    NextDue::first(plan.waiting.iter().map(|one| NextDue { at: one.until, latest: one.deadline }))
}

/// Every plan is carried out: guards decide, and nobody is asked.
struct Approved {
    scribe: Arc<Scribe>,
    status: Arc<Status>,
}

#[async_trait]
impl Approval for Approved {
    async fn approve(&self, plan: &Plan) -> bool {
        let engine = &self.scribe.engine;
        let said =
            |kept: &Kept| Some(format!("{} is being made: {}", kept.name, kept.being_made()?));
        let holds = plan.kept.iter().filter_map(said).collect();
        for text in self.status.told(&format!("being made on {engine}"), holds).0 {
            tracing::warn!(engine, "{text}");
        }
        let _ = self.scribe.changes.set(plan.changes.iter().map(Title::of).collect());
        true
    }

    fn found(&self, findings: &[Finding]) {
        let engine = &self.scribe.engine;
        let holds = findings.iter().map(finding_text).collect();
        let (new, _) = self.status.told(&format!("findings of {engine}"), holds);
        for text in new {
            tracing::warn!(engine, "{text}");
        }
    }

    fn takes_time(&self) -> bool {
        false
    }
}

/// A finding in one line.
pub(super) fn finding_text(finding: &Finding) -> String {
    let place = finding.place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default();
    format!("{place}{} ({})", finding.message, finding.code)
}

/// What a change is called in log lines.
struct Title {
    action: Action,
    source: String,
    image: String,
}

impl Title {
    fn of(change: &Change) -> Self {
        let image = change.copy.as_ref().map_or(&change.image.name, |copy| &copy.name);
        let (source, image) = (change.source_name.clone(), image.clone());
        Self { action: change.action, source, image }
    }
}

/// Writes log lines about changes.
struct Scribe {
    engine: String,
    changes: OnceLock<Vec<Title>>,
}

impl Scribe {
    fn title(&self, change: usize) -> Option<&Title> {
        self.changes.get()?.get(change)
    }
}

impl Listener for Scribe {
    fn began(&self, change: usize) {
        let Some(Title { action, source, image }) = self.title(change) else { return };
        tracing::debug!(engine = self.engine, source, image, "{} begins", action.word());
    }

    fn progress(&self, _: usize, _: Progress) {}

    fn note(&self, text: &str) {
        tracing::warn!(engine = self.engine, "{text}");
    }

    fn ended(&self, change: usize, ending: &Ending) {
        let Some(Title { action, source, image }) = self.title(change) else { return };
        let (engine, action) = (&self.engine, action.word());
        match ending {
            Ending::Done { .. } => tracing::info!(engine, source, image, "{action}: done"),
            Ending::Found { by: Some(by), .. } => {
                let (host, on) = (clean(&by.host), host_of(by));
                let text = "another run has done it";
                tracing::info!(engine, source, image, host, "{action}: {text}, {on}");
            }
            Ending::Found { by: None, .. } => {
                tracing::info!(engine, source, image, "{action}: another run has done it");
            }
            Ending::Failed { message } => {
                tracing::error!(engine, source, image, "{action}: failed: {message}");
            }
            Ending::Skipped { message } => {
                tracing::warn!(engine, source, image, "{action}: not tried: {message}");
            }
            Ending::Needless { message } => {
                tracing::info!(engine, source, image, "{action}: not needed: {message}");
            }
            Ending::Refused => tracing::debug!(engine, source, image, "{action}: refused"),
            Ending::Left => {
                tracing::info!(engine, source, image, "{action}: left for the next round");
            }
            Ending::UnderWay => {
                tracing::debug!(engine, source, image, "{action}: waits for what is under way");
            }
            Ending::GivenUp => {
                tracing::warn!(
                    engine,
                    source,
                    image,
                    "{action}: given up; a service may still finish it, and the next run takes up what is there"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::Mutex;

    use super::*;
    use crate::apply::Doer;

    /// Keeps what is written.
    #[derive(Clone, Default)]
    struct Recorder(Arc<Mutex<Vec<u8>>>);

    impl Write for Recorder {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_guard_keeps_is_one_thing_however_much_it_is_and_says_the_way_out() {
        let refusal = |guard, count: usize, message: &str| Refusal {
            guard,
            engine: "one".to_owned(),
            message: message.to_owned(),
            images: vec![String::new(); count],
            override_flag: None,
            classes: BTreeSet::new(),
            overridden: false,
        };
        let (eight, nine) = (
            refusal(Guard::SeriesShare, 8, "8 of 11 restore points"),
            refusal(Guard::SeriesShare, 9, "9 of 12 restore points"),
        );
        assert_eq!(kept_by(&eight), kept_by(&nine));
        assert_ne!(kept_by(&eight), kept_by(&refusal(Guard::EngineShare, 8, "")));
        let said = said_of(&eight);
        assert!(
            said.starts_with("series-share keeps 8 images: 8 of 11 restore points; if"),
            "{said}"
        );
        assert!(said.contains("`--override`"), "{said}");
        let classes =
            ["rotation", "last"].map(|class| kept_by(&refusal(Guard::RiskClass, 1, class)));
        assert_ne!(classes[0], classes[1]);
    }

    #[test]
    fn a_line_says_who_has_done_what_another_run_has_done() {
        let recorder = Recorder::default();
        let writer = recorder.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .without_time()
            .with_writer(move || writer.clone())
            .finish();
        let title = Title {
            action: Action::Create,
            source: "web-1".to_owned(),
            image: "nightly-web-1".to_owned(),
        };
        let scribe = Scribe { engine: "one".to_owned(), changes: OnceLock::from(vec![title]) };
        let by = |host: &str, is_here| Some(Doer { host: host.to_owned(), is_here });
        tracing::subscriber::with_default(subscriber, || {
            // A host comes from a text of the cloud.
            for by in [by("ci-7", false), by("here", true), by("ci\u{202e}\u{1b}[2J", false), None]
            {
                scribe.ended(0, &Ending::Found { image: None, by });
            }
        });
        let said = String::from_utf8(recorder.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = said.lines().collect();
        for (line, text, host) in [
            (lines[0], "create: another run has done it, on ci-7 ", Some("host=\"ci-7\"")),
            (lines[1], "create: another run has done it, on this host ", Some("host=\"here\"")),
            (lines[2], "another run has done it, on ci\\u{202e}\\u{1b}[2J ", Some("host=")),
            (lines[3], "create: another run has done it ", None),
        ] {
            assert!(line.contains(text), "{line}");
            assert_eq!(line.contains("host="), host.is_some(), "{line}");
            assert!(host.is_none_or(|host| line.contains(host)), "{line}");
            assert!(!line.contains(['\u{202e}', '\u{1b}']), "{line}");
        }
        assert_eq!(lines.len(), 4);
    }
}
