//! Lint of meaning: what is valid, and probably not what was meant.
//!
//! Every warning has a code and can be allowed with a reason: in the policy
//! (`metadata.allow`), or for all policies in the configuration. `lint` needs the policies only,
//! [`at`] the time as well, [`over`] what the engines hold. A warning that is wrong costs more than
//! one that is missing: where something cannot be decided, nothing is said.

mod clock;
mod dated;
mod disks;
mod objective;
mod quota;
mod reach;
mod rhythm;
mod rules;
mod schedules;
mod seen;

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::finding::{Code, Finding, Place};
use super::meant::{Allowed, Origin, Policies, Policy};
use crate::inventory::Inventory;
use crate::name::PolicyName;
use rhythm::Rhythms;
use seen::View;

/// Policies in which something is wrong: what is missing of them would be taken for what they say.
#[derive(Debug, Default)]
pub(super) struct Unsound {
    /// Whether all of them are, by what they inherit.
    pub(super) all: bool,
    pub(super) names: BTreeSet<PolicyName>,
}

impl Unsound {
    fn has(&self, name: &PolicyName) -> bool {
        self.all || self.names.contains(name)
    }

    fn is_empty(&self) -> bool {
        !self.all && self.names.is_empty()
    }
}

/// What can be said of the policies alone and, where the time is known, by it. A mistake in one
/// policy hides nothing of the others.
pub(super) fn alone(
    policies: &Policies,
    unsound: &Unsound,
    now: Option<Timestamp>,
) -> Vec<Finding> {
    let mut rhythms = Rhythms::default();
    let mut changes = clock::Changes::default();
    let mut objectives = objective::Objectives::default();
    let mut useless = rules::Useless::default();
    let mut findings = Vec::new();
    let is_sound = |policy: &&Policy| !unsound.has(&policy.name);
    for policy in policies.policies.iter().filter(is_sound) {
        let Some(rhythm) = rhythms.of(&policy.schedule) else { continue };
        let engine = policies.config.engines.get(&policy.engine);
        let limits = engine.map(|engine| &engine.capabilities.limits);
        findings.extend(schedules::lint(policy, &rhythm, limits));
        findings.extend(objectives.lint(policy, &rhythm));
        findings.extend(changes.lint(policy, &rhythm));
        findings.extend(rules::lint(policy, &rhythm, &mut useless));
    }
    findings.extend(schedules::same_minute(policies.policies.iter().filter(is_sound)));
    findings.extend(now.map(|now| dated::lint(policies, now)).unwrap_or_default());
    findings
}

/// What the time says about the policies.
pub fn at(policies: &Policies, now: Timestamp) -> Vec<Finding> {
    late(policies, dated::lint(policies, now))
}

/// What can be said only over what the engines were seen to hold. Where they were not seen whole,
/// nothing is said to be missing.
pub fn over(policies: &Policies, inventory: &Inventory, now: Timestamp) -> Vec<Finding> {
    let views = View::all(policies, inventory);
    let mut findings = seen::lint(policies, &views, now);
    findings.extend(quota::lint(policies, &views));
    findings.extend(disks::lint(&views));
    findings.extend(schedules::beyond_limits(policies, &views));
    late(policies, findings)
}

/// What can be said in a round: over what was seen, at the time at which it was.
pub fn in_round(policies: &Policies, inventory: &Inventory, now: Timestamp) -> Vec<Finding> {
    let mut findings = at(policies, now);
    findings.extend(over(policies, inventory, now));
    findings
}

/// Whether anything would be said of policies of which nobody knows where their values come from.
/// To say it right, that has to be known.
pub(super) fn needs_origins(policies: &Policies, said: &[Finding]) -> bool {
    !without_allowed(policies, said.to_vec()).0.is_empty()
}

/// Adds what is [said of the policies alone](alone) to what was found before, takes out warnings that
/// are allowed, and says which allowances allow nothing.
pub(super) fn with_lint(
    policies: &Policies,
    mut findings: Vec<Finding>,
    said: Vec<Finding>,
    unsound: &Unsound,
) -> Vec<Finding> {
    findings.extend(said);
    let (mut kept, used) = without_allowed(policies, findings);
    let own = policies.policies.iter().flat_map(|policy| {
        let is_sound = !unsound.has(&policy.name);
        policy.allowed.iter().map(move |allowed| (allowed, is_sound))
    });
    let shared = policies.config.allowed.iter().map(|allowed| (allowed, unsound.is_empty()));
    for (allowed, is_sound) in own.chain(shared) {
        let code = allowed.code;
        let is_looked_for = !code.may_come_later() && (is_sound || !code.needs_soundness());
        if is_looked_for && !used.contains(&position(allowed)) {
            let message = format!("nothing of the kind `{code}` is found here");
            kept.push(
                Finding::new(Code::AllowsNothing, allowed.place.clone(), message)
                    .hint("take the entry out: it would hide a mistake that comes later"),
            );
        }
    }
    kept
}

/// What is not allowed, in order, each once.
fn late(policies: &Policies, findings: Vec<Finding>) -> Vec<Finding> {
    let (mut kept, _) = without_allowed(policies, findings);
    kept.sort_by(|one, other| one.sort_key().cmp(&other.sort_key()));
    kept.dedup();
    kept
}

/// What is not allowed, and where the allowances of the rest stand.
fn without_allowed(
    policies: &Policies,
    findings: Vec<Finding>,
) -> (Vec<Finding>, BTreeSet<(String, usize)>) {
    let mut used: BTreeSet<(String, usize)> = BTreeSet::new();
    let mut kept = Vec::new();
    for finding in findings {
        let own = finding.policy.as_ref().and_then(|name| policies.get(name));
        let own = own.map(|policy| policy.allowed.as_slice()).unwrap_or_default();
        let allows = |allowed: &&Allowed| allowed.code == finding.code;
        let by: Vec<_> =
            own.iter().chain(&policies.config.allowed).filter(allows).map(position).collect();
        if by.is_empty() || finding.is_error() {
            kept.push(finding);
        }
        used.extend(by);
    }
    (kept, used)
}

fn position(allowed: &Allowed) -> (String, usize) {
    (allowed.place.file.path.clone(), allowed.place.span.start)
}

/// A finding about a value of a policy, at its place.
fn about(policy: &Policy, code: Code, path: &str, message: impl Into<String>) -> Finding {
    Finding::new(code, place_of(policy, path), message).of(&policy.name)
}

/// Where a value of a policy is written; for one that is built in, the policy itself. Of a mapping
/// it is the place of the first value in it.
fn place_of(policy: &Policy, path: &str) -> Place {
    match origin_of(policy, path) {
        Some(Origin::Policy(place) | Origin::Overlay(place) | Origin::Defaults(place)) => {
            place.clone()
        }
        Some(Origin::BuiltIn) | None => policy.place.clone(),
    }
}

fn origin_of<'a>(policy: &'a Policy, path: &str) -> Option<&'a Origin> {
    let is_it = |found: &str| {
        found.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    policy.effective.iter().find(|value| is_it(&value.path)).map(|value| &value.origin)
}

/// Whether a value is written in the policy itself or for its environment. What is inherited is
/// meant for other policies too.
fn is_own(policy: &Policy, path: &str) -> bool {
    // Where nobody has looked, it may be: what is found then is looked at again (`load_with`).
    if policy.effective.is_empty() {
        return true;
    }
    matches!(origin_of(policy, path), Some(Origin::Policy(_) | Origin::Overlay(_)))
}
