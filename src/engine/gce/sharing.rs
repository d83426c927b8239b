//! Who else may use images: the IAM policies of single images.
//!
//! Only unconditional bindings of the roles that a policy gives are touched, and of the role that
//! images are shared with. Everything else of an IAM policy goes back as it came.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::GceEngine;
use super::call::CallError;
use super::image::{Found, Place};
use crate::engine::EngineError;
use crate::engine::http::Call;
use crate::engine::sharing::{self, LOOKS_FOR, SIDE_BY_SIDE};
use crate::inventory::Grant;

/// The role that disk images are shared with.
const ROLE: &str = "roles/compute.imageUser";
/// The version of IAM policies that keeps conditions.
const VERSION: &str = "3";
/// How often a policy is merged anew that somebody else has changed meanwhile.
const MERGES_MAX: u32 = 4;
/// The first pause before that.
const MERGE_PAUSE: Duration = Duration::from_millis(250);

/// What an IAM policy says of these roles without a condition.
fn grants(policy: &Value, roles: &BTreeSet<String>) -> Vec<Grant> {
    let bindings = policy["bindings"].as_array().into_iter().flatten();
    sharing::grants(bindings.filter(|binding| is_ours(binding, roles)).flat_map(|binding| {
        let role = binding["role"].as_str().unwrap_or_default();
        let members = binding["members"].as_array().into_iter().flatten();
        let members = members.filter_map(Value::as_str).map(Grant::member);
        members.map(move |member| (role.to_owned(), member))
    }))
}

fn is_ours(binding: &Value, roles: &BTreeSet<String>) -> bool {
    let role = binding["role"].as_str().unwrap_or_default();
    binding["condition"].is_null() && roles.contains(role)
}

/// An IAM policy that gives what is wanted, and says all else as before.
fn merged(mut policy: Value, wanted: &[Grant], roles: &BTreeSet<String>) -> Value {
    let mut bindings: Vec<Value> = policy["bindings"].as_array().cloned().unwrap_or_default();
    bindings.retain(|binding| !is_ours(binding, roles));
    let given = wanted.iter().filter(|grant| !grant.members.is_empty());
    bindings.extend(given.map(|grant| json!({"role": grant.role, "members": grant.members})));
    policy["bindings"] = json!(bindings);
    policy["version"] = json!(3);
    policy
}

impl GceEngine {
    async fn iam_policy(&self, place: &Place) -> Result<Value, CallError> {
        let path = format!("{}/getIamPolicy", place.path());
        self.http.send(&Call::get(&path).with("optionsRequestedPolicyVersion", VERSION)).await
    }

    /// Lets these use an image, and nobody else by these roles.
    pub(super) async fn share(&self, place: &Place, wanted: &[Grant]) -> Result<(), EngineError> {
        let roles = sharing::roles(ROLE, wanted.iter().map(|grant| &grant.role));
        for merge in 0..=MERGES_MAX {
            let policy = self.iam_policy(place).await?;
            if grants(&policy, &roles) == wanted {
                return Ok(());
            }
            if policy["etag"].as_str().is_none_or(str::is_empty) {
                let message =
                    "the service gives no etag of who may use it, so nothing can be bound to it";
                return Err(EngineError::Refused(message.to_owned()));
            }
            let body = json!({"policy": merged(policy, wanted, &roles)});
            let call = Call::post(&format!("{}/setIamPolicy", place.path())).with_body(&body)?;
            match self.http.send::<Value>(&call).await {
                Ok(_) => {}
                // The whole of it again, from reading on, as the service asks for.
                Err(error) if error.is_conflict() => {
                    self.http.pause.pause(MERGE_PAUSE * 2_u32.pow(merge)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(EngineError::Busy("who may use it keeps changing; the next run tries again".to_owned()))
    }

    /// Who may use an image, where its policy says who may.
    pub(super) async fn sharing_of(&self, found: &Found) -> Option<Vec<Grant>> {
        let roles = sharing::roles(ROLE, sharing::roles_of(&self.attention(), &found.image)?);
        match self.iam_policy(&found.place).await {
            Ok(policy) => Some(grants(&policy, &roles)),
            // Nothing that is deleted hangs on it.
            Err(error) => {
                tracing::warn!("who may use {} is not known: {error}", found.image.name);
                None
            }
        }
    }

    /// Fills in who may use images.
    pub(super) async fn look_at_sharing(&self, images: &mut [Found]) {
        let wanted = sharing::looked_at(images.iter().map(|it| &it.image), &self.attention());
        let until = LOOKS_FOR.after(self.clock.now());
        for some in wanted.chunks(SIDE_BY_SIDE) {
            if self.clock.now() > until {
                tracing::warn!("who may use images is not known of all: the service is slow");
                break;
            }
            let looks = join_all(some.iter().map(|index| self.sharing_of(&images[*index]))).await;
            for (index, sharing) in some.iter().zip(looks) {
                images[*index].image.sharing = sharing;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Value {
        json!({
            "version": 1, "etag": "e", "auditConfigs": [{"service": "x"}],
            "bindings": [
                {"role": "roles/compute.imageUser", "members": ["user:b@x", "user:a@x"]},
                {"role": "roles/compute.imageUser", "members": ["user:c@x"], "condition": {"expression": "true"}},
                {"role": "roles/compute.imageUser", "members": ["user:a@x"]},
                {"role": "roles/owner", "members": ["user:d@x"]},
            ],
        })
    }

    fn grant(role: &str, members: &[&str]) -> Grant {
        let members = members.iter().map(|member| (*member).to_owned()).collect();
        Grant { role: role.to_owned(), members }
    }

    #[test]
    fn only_what_is_given_without_a_condition_is_looked_at() {
        let seen = grants(&policy(), &sharing::roles(ROLE, []));
        assert_eq!(seen, [grant(ROLE, &["user:a@x", "user:b@x"])]);
        let owner = "roles/owner".to_owned();
        let seen = grants(&policy(), &sharing::roles(ROLE, [&owner]));
        assert_eq!(seen[1], grant("roles/owner", &["user:d@x"]));
    }

    #[test]
    fn everything_else_goes_back_as_it_came() {
        let wanted = [grant(ROLE, &["allAuthenticatedUsers"])];
        let after = merged(policy(), &wanted, &sharing::roles(ROLE, []));
        let expected = json!({
            "version": 3, "etag": "e", "auditConfigs": [{"service": "x"}],
            "bindings": [
                {"role": "roles/compute.imageUser", "members": ["user:c@x"], "condition": {"expression": "true"}},
                {"role": "roles/owner", "members": ["user:d@x"]},
                {"role": "roles/compute.imageUser", "members": ["allAuthenticatedUsers"]},
            ],
        });
        assert_eq!(after, expected);
        assert_eq!(grants(&after, &sharing::roles(ROLE, [])), wanted);
        // Nobody: what was there goes, and what has a condition stays.
        let nobody = merged(policy(), &[], &sharing::roles(ROLE, []));
        assert_eq!(grants(&nobody, &sharing::roles(ROLE, [])), []);
        assert_eq!(nobody["bindings"].as_array().unwrap().len(), 2);
        assert_eq!(merged(json!({"etag": "e"}), &wanted, &sharing::roles(ROLE, []))["version"], 3);
    }
}
