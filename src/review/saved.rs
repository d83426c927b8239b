//! A plan that is kept: what was shown is what may be carried out.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Review;
use crate::inventory::Inventory;
use crate::plan::Plan;
use crate::policy::Policies;

/// The version of the saved document. The first number changes when a reader must change.
pub const SAVED_VERSION: &str = "1.0";

/// A plan with everything it is bound to. Its items are bound to ids, times and fingerprints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    /// The version of this document.
    pub format_version: String,
    /// The program that made it.
    pub program: String,
    /// The commit of the policies, where they lie in a repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Whether the policies differ from that commit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uncommitted: bool,
    /// After this instant nothing of it is carried out.
    pub valid_until: Timestamp,
    /// The plan.
    pub plan: Plan,
    /// What a change of the policies does, where the plan was made with a base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub review: Option<Review>,
}

impl Saved {
    /// Why nothing of it may be carried out any more: all reasons.
    pub fn outdated(
        &self,
        policies: &Policies,
        inventory: &Inventory,
        now: Timestamp,
    ) -> Vec<String> {
        let mut reasons = Vec::new();
        if now > self.valid_until {
            reasons.push(format!("it was valid until {}", self.valid_until));
        }
        if self.plan.now > now {
            reasons.push(format!("it was made for {}, which is still to come", self.plan.now));
        }
        if self.plan.policies_digest != policies.digest {
            let from = self.commit.as_ref().map(|commit| format!(" of commit {commit}"));
            reasons.push(format!(
                "it was made from other policies{}; these have the digest {}",
                from.unwrap_or_default(),
                policies.digest
            ));
        }
        for was in &self.plan.engines {
            let is = inventory.engines.iter().find(|engine| engine.name == was.name);
            match is {
                None => reasons.push(format!("there is no engine {} any more", was.name)),
                Some(is) if (&is.kind, &is.identity) != (&was.kind, &was.identity) => {
                    reasons.push(format!(
                        "the engine {} was {} {} and is {} {}",
                        was.name, was.kind, was.identity, is.kind, is.identity
                    ));
                }
                Some(_) => {}
            }
        }
        reasons
    }
}
