//! A source: which policies protect it and which do not, and how long its protection lasts.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::coverage::{Cover, Rpo, coverage};
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
                    "next": cover.next,
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
            "format_version": "1.1",
            "engine": self.engine,
            "source": self.instance,
            "policies": policies,
            "exemptions": exemptions,
            "objectives": objectives,
            "protected": protections,
        })
    }

    fn exemptions(&self) -> impl Iterator<Item = &'a crate::policy::meant::Exemption> {
        let all = self.policies.config.exemptions.iter();
        all.filter(|one| one.covers(self.engine, self.instance))
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
        let next = cover.next.first().map(|slot| minute(slot.instant()));
        let next = next.unwrap_or_else(|| "never".to_owned());
        let Some(rpo) = cover.policy.rpo else {
            return format!(
                "{name}: {newest}; next run {next}; no objective is stated (`objectives.rpo`)"
            );
        };
        match cover.rpo {
            Rpo::None | Rpo::Met => {
                format!("{name}: {newest}, objective {rpo} met; also if the run {next} fails")
            }
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
