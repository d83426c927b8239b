//! Lint of meaning: what is valid, and probably not what was meant.
//!
//! Every warning has a code and can be allowed with a reason: in the policy
//! (`metadata.allow`), or for all policies in the configuration.

use std::collections::BTreeSet;

use super::finding::{Code, Finding};
use super::meant::{Allowed, Policies};

/// Takes out warnings that are allowed, and says which allowances allow nothing.
pub(super) fn settle(policies: &Policies, findings: Vec<Finding>) -> Vec<Finding> {
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
    let own = policies.policies.iter().flat_map(|policy| &policy.allowed);
    for allowed in own.chain(&policies.config.allowed) {
        if !used.contains(&position(allowed)) && !allowed.code.needs_inventory() {
            let message = format!("nothing of the kind `{}` is found here", allowed.code);
            kept.push(
                Finding::new(Code::AllowsNothing, allowed.place.clone(), message)
                    .hint("take the entry out: it would hide a mistake that comes later"),
            );
        }
    }
    kept
}

fn position(allowed: &Allowed) -> (String, usize) {
    (allowed.place.file.path.clone(), allowed.place.span.start)
}
