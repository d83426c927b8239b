//! A source: which policies protect it and which do not, and how long its protection lasts.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::coverage::{Cover, Rpo, Run, coverage};
use crate::elapsed::Elapsed;
use crate::inventory::{Instance, Inventory};
use crate::policy::select::Decision;
use crate::policy::{Policies, Policy};
use crate::report::{clean, minute, protection, protection_text, table};

/// What is said about a source.
pub(super) struct Source<'a> {
    pub(super) policies: &'a Policies,
    pub(super) inventory: &'a Inventory,
    pub(super) engine: &'a str,
    pub(super) instance: &'a Instance,
    pub(super) now: Timestamp,
}

impl<'a> Source<'a> {
    /// Each policy of the engine, whether it selects the source, and by what or why not.
    fn decisions(&self) -> Vec<(&'a Policy, bool, String)> {
        let of_engine = self.policies.policies.iter().filter(|policy| policy.engine == self.engine);
        of_engine
            .map(|policy| match policy.selection.decide(self.instance) {
                Decision::Selected(by) => (policy, true, format!("by {by}")),
                Decision::Excluded(by) => (policy, false, format!("excluded by {by}")),
                Decision::NotMatched => (policy, false, self.why_not(policy)),
            })
            .collect()
    }

    /// Why no condition of a policy holds; of several, each by itself.
    fn why_not(&self, policy: &Policy) -> String {
        let misses = policy.selection.any.iter().map(|condition| condition.misses(self.instance));
        let misses: Vec<String> = misses.map(|misses| misses.join(", ")).collect();
        misses.join("; and ")
    }

    fn covers(&self) -> Vec<Cover<'a>> {
        let mut covers = coverage(self.policies, self.inventory, self.now);
        covers.retain(|cover| cover.engine == self.engine && cover.instance.id == self.instance.id);
        covers
    }

    pub(super) fn json(&self) -> Value {
        let policies: Vec<Value> = self
            .decisions()
            .into_iter()
            .map(|(policy, selected, why)| json!({"policy": policy.name, "selected": selected, "why": why}))
            .collect();
        let objectives: Vec<Value> = self
            .covers()
            .iter()
            .map(|cover| {
                json!({
                    "policy": cover.policy.name,
                    "ready": cover.ready,
                    "newest_ready": cover.newest,
                    "age_seconds": cover
                        .newest
                        .map(|slot| Elapsed::between(slot.instant(), self.now).as_seconds()),
                    "rpo_seconds": cover.policy.rpo.map(Elapsed::as_seconds),
                    "state": cover.rpo.word(),
                    "broken_at": cover.rpo.at(),
                    "next": cover.next.iter().map(|run| run.slot).collect::<Vec<_>>(),
                    "runs": cover
                        .next
                        .iter()
                        .map(|run| json!({"slot": run.slot, "at": run.at}))
                        .collect::<Vec<_>>(),
                })
            })
            .collect();
        let mut protections = protection(self.policies, self.inventory, self.now);
        protections.retain(|one| one.source_id == self.instance.id);
        let exemptions: Vec<Value> = self
            .exemptions()
            .map(|one| json!({"owner": one.owner, "reason": one.reason, "until": one.until}))
            .collect();
        json!({
            "format_version": "1.2",
            "engine": self.engine,
            "source": self.instance,
            "policies": policies,
            "exemptions": exemptions,
            "unprotected": self.is_unprotected(),
            "objectives": objectives,
            "protected": protections,
        })
    }

    fn exemptions(&self) -> impl Iterator<Item = &'a crate::policy::meant::Exemption> {
        let all = self.policies.config.exemptions.iter();
        all.filter(|one| one.covers(self.engine, self.instance))
    }

    /// Whether no policy selects it, and nobody said that this is meant.
    fn is_unprotected(&self) -> bool {
        let is_selected = self.decisions().iter().any(|(_, selected, _)| *selected);
        !is_selected && self.exemptions().all(|exemption| exemption.has_ended(self.now))
    }

    pub(super) fn text(&self) -> String {
        let instance = self.instance;
        let labels: Vec<String> =
            instance.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let mut text = format!(
            "{} (id {}, zone {}, {})\n  labels {}\n",
            clean(&instance.name),
            instance.id,
            clean(&instance.zone),
            clean(&instance.status),
            clean(&labels.join(" "))
        );
        let decisions = self.decisions();
        let is_selected = decisions.iter().any(|(_, selected, _)| *selected);
        let rows: Vec<Vec<String>> = decisions
            .into_iter()
            .map(|(policy, selected, why)| {
                let mark = if selected { "+" } else { "-" };
                vec![mark.to_owned(), policy.name.to_string(), clean(&why)]
            })
            .collect();
        text.extend(table(&rows).iter().map(|line| format!("  {line}\n")));
        for exemption in self.exemptions() {
            let ended = if exemption.has_ended(self.now) { "exempt only" } else { "exempt" };
            text.push_str(&format!(
                "  ? {ended} until {}, {} answers for it: {}\n",
                minute(exemption.until),
                clean(&exemption.owner),
                clean(&exemption.reason)
            ));
        }
        let mut protections = protection(self.policies, self.inventory, self.now);
        protections.retain(|one| one.source_id == instance.id);
        if !protections.is_empty() {
            text.push_str(&protection_text(&protections, self.now));
            if self.is_unprotected() {
                text.push_str("  unprotected: no policy makes a new restore point\n");
            }
        } else if is_selected {
            text.push_str("  no READY restore point\n");
        } else {
            text.push_str("  unprotected: no READY restore point, and no policy makes one\n");
        }
        for cover in self.covers() {
            text.push_str(&format!("  {}\n", self.objective(&cover)));
        }
        text
    }

    /// A coming run by its slot, with its beginning where that is another minute.
    fn run(&self, run: Option<&Run>) -> String {
        let Some(Run { slot, at }) = run else { return "never".to_owned() };
        let (slot, at) = (minute(slot.instant()), minute((*at).max(self.now)));
        if slot == at { slot } else { format!("{slot} (begins {at})") }
    }

    /// How it stands with the objective of one policy, in a sentence.
    fn objective(&self, cover: &Cover<'_>) -> String {
        let name = &cover.policy.name;
        let newest = match cover.newest {
            Some(slot) => {
                let age = Elapsed::between(slot.instant(), self.now).rough();
                format!("newest READY {age} old")
            }
            None => "nothing READY".to_owned(),
        };
        let next = self.run(cover.next.first());
        let Some(rpo) = cover.policy.rpo else {
            return format!(
                "{name}: {newest}; next run {next}; no objective is stated (`objectives.rpo`)"
            );
        };
        match cover.rpo {
            Rpo::None | Rpo::Met => {
                format!("{name}: {newest}, objective {rpo} met; also if the run {next} fails")
            }
            Rpo::WillBreak(at) if cover.next.is_empty() => {
                format!(
                    "! {name}: {newest}, objective {rpo} met until {}; no run comes",
                    minute(at)
                )
            }
            Rpo::WillBreak(at) => format!(
                "! {name}: {newest}, objective {rpo} met until {}, before the run {next}",
                minute(at)
            ),
            Rpo::AtRisk(at) => format!(
                "{name}: {newest}, objective {rpo} met; broken {} if the run {next} fails",
                minute(at)
            ),
            Rpo::Broken(Some(at)) => {
                format!("! {name}: {newest}, objective {rpo} broken since {}", minute(at))
            }
            Rpo::Broken(None) => {
                format!("! {name}: {newest}, objective {rpo} broken; next run {next}")
            }
        }
    }
}
