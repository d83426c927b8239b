//! Who else may use images: the access bindings of single images.
//!
//! Only the roles that a policy gives are touched, and the role that images are shared with. Changes
//! are asked for one by one, so that what others have said stays.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::YandexEngine;
use super::call::CallError;
use super::image::{Found, Place};
use super::wire::{AccessBinding, Subject};
use crate::engine::EngineError;
use crate::engine::http::{Call, Free};
use crate::engine::sharing::{self, LOOKS_FOR, SIDE_BY_SIDE};
use crate::inventory::Grant;

/// The role that images are shared with.
const ROLE: &str = "compute.images.user";
/// Who everybody is, or everybody with an account: subjects of the type `system`.
const SYSTEM: [&str; 2] = ["allAuthenticatedUsers", "allUsers"];
/// Whom images can be shared with, as a policy writes it.
pub const MEMBERS: [&str; 7] = [
    SYSTEM[0],
    SYSTEM[1],
    "userAccount:",
    "serviceAccount:",
    "federatedUser:",
    "group:",
    "system:",
];
/// How often it is looked again whether all is as wanted.
const LOOKS: u32 = 3;

/// Somebody as a policy writes it: `allAuthenticatedUsers`, `serviceAccount:ID`, `userAccount:ID`, …
fn member(subject: &Subject) -> String {
    if subject.r#type == "system" && SYSTEM.contains(&subject.id.as_str()) {
        return subject.id.clone();
    }
    format!("{}:{}", subject.r#type, subject.id)
}

fn subject(member: &str) -> Result<Subject, EngineError> {
    if SYSTEM.contains(&member) {
        return Ok(Subject { id: member.to_owned(), r#type: "system".to_owned() });
    }
    match member.split_once(':') {
        // What is seen of it later has the short form, and would never be what the policy says.
        Some(("system", id)) if SYSTEM.contains(&id) => {
            Err(EngineError::Refused(format!("write `{member}` as `{id}`")))
        }
        Some((kind, id)) if !kind.is_empty() && !id.is_empty() => {
            Ok(Subject { id: id.to_owned(), r#type: kind.to_owned() })
        }
        _ => Err(EngineError::Refused(format!(
            "`{member}` is nobody: write `allAuthenticatedUsers`, `userAccount:ID`, `serviceAccount:ID`, `federatedUser:ID` or `group:ID`"
        ))),
    }
}

/// What bindings say of these roles.
fn grants(bindings: &[AccessBinding], roles: &BTreeSet<String>) -> Vec<Grant> {
    let looked_at = bindings.iter().filter(|binding| roles.contains(&binding.role_id));
    sharing::grants(looked_at.map(|one| (one.role_id.clone(), member(&one.subject))))
}

/// What is to be added and taken away.
fn deltas(seen: &[Grant], wanted: &[Grant]) -> Result<Vec<Value>, EngineError> {
    let pairs = |grants: &[Grant]| -> BTreeSet<(String, String)> {
        let all = grants.iter().flat_map(|grant| {
            grant.members.iter().map(|member| (grant.role.clone(), member.clone()))
        });
        all.collect()
    };
    let (seen, wanted) = (pairs(seen), pairs(wanted));
    let delta = |action: &str, (role, member): &(String, String)| {
        let Subject { id, r#type } = subject(member)?;
        let binding = json!({"roleId": role, "subject": {"id": id, "type": r#type}});
        Ok(json!({"action": action, "accessBinding": binding}))
    };
    let added = wanted.difference(&seen).map(|pair| delta("ADD", pair));
    added.chain(seen.difference(&wanted).map(|pair| delta("REMOVE", pair))).collect()
}

/// Whether all of these are somebody.
pub(super) fn check(wanted: &[Grant]) -> Result<(), EngineError> {
    let mut members = wanted.iter().flat_map(|grant| &grant.members);
    members.try_for_each(|member| subject(member).map(drop))
}

impl YandexEngine {
    async fn bindings(&self, place: &Place) -> Result<Vec<AccessBinding>, CallError> {
        let call = Call::get(&format!("{}:listAccessBindings", place.path()));
        let (pages, error) = self.services.pages(&call).await;
        match error {
            Some(error) => Err(error),
            None => Ok(pages.into_iter().flat_map(|page| page.access_bindings).collect()),
        }
    }

    /// Lets these use an image, and nobody else by these roles.
    pub(super) async fn share(&self, place: &Place, wanted: &[Grant]) -> Result<(), EngineError> {
        let roles = sharing::roles(ROLE, wanted.iter().map(|grant| &grant.role));
        for look in 0..LOOKS {
            let seen = grants(&self.bindings(place).await?, &roles);
            let deltas = deltas(&seen, wanted)?;
            if deltas.is_empty() {
                return Ok(());
            }
            let call = Call::post(&format!("{}:updateAccessBindings", place.path()))
                .with_body(&json!({"accessBindingDeltas": deltas}))?;
            let turn = self.rooms.one(&place.folder).await;
            // What is asked for is a difference: what others give or take meanwhile stays.
            self.carry_out(&turn, &call, &format!("{seen:?} {look}"), &Free).await.result?;
        }
        Err(EngineError::Busy("who may use it keeps changing; the next run tries again".to_owned()))
    }

    /// Who may use an image, where its policy says who may.
    pub(super) async fn sharing_of(&self, found: &Found) -> Option<Vec<Grant>> {
        let roles = sharing::roles(ROLE, sharing::roles_of(&self.attention(), &found.image)?);
        match self.bindings(&found.place).await {
            Ok(bindings) => Some(grants(&bindings, &roles)),
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

    fn grant(role: &str, members: &[&str]) -> Grant {
        let members = members.iter().map(|member| (*member).to_owned()).collect();
        Grant { role: role.to_owned(), members }
    }

    #[test]
    fn only_roles_of_the_policy_are_looked_at() {
        let bindings: Vec<AccessBinding> = serde_json::from_value(json!([
            {"roleId": "compute.images.user", "subject": {"id": "b", "type": "serviceAccount"}},
            {"roleId": "compute.images.user", "subject": {"id": "allAuthenticatedUsers", "type": "system"}},
            {"roleId": "admin", "subject": {"id": "c", "type": "userAccount"}},
        ]))
        .unwrap();
        let seen = grants(&bindings, &sharing::roles(ROLE, []));
        assert_eq!(seen, [grant(ROLE, &["allAuthenticatedUsers", "serviceAccount:b"])]);
        assert_eq!(grants(&bindings, &sharing::roles(ROLE, [&"admin".to_owned()])).len(), 2);
    }

    #[test]
    fn only_differences_are_asked_for() {
        let seen = [grant(ROLE, &["allAuthenticatedUsers", "userAccount:a"])];
        let wanted = [grant(ROLE, &["serviceAccount:b", "userAccount:a"])];
        let binding =
            |kind: &str, id: &str| json!({"roleId": ROLE, "subject": {"id": id, "type": kind}});
        let expected = [
            json!({"action": "ADD", "accessBinding": binding("serviceAccount", "b")}),
            json!({"action": "REMOVE", "accessBinding": binding("system", "allAuthenticatedUsers")}),
        ];
        assert_eq!(deltas(&seen, &wanted).unwrap(), expected);
        assert!(deltas(&wanted, &wanted).unwrap().is_empty());
        for nobody in
            ["everybody", "system:allUsers", "system:allAuthenticatedUsers", "userAccount:"]
        {
            assert!(check(&[grant(ROLE, &["userAccount:a", nobody])]).is_err(), "{nobody}");
        }
        let all = ["allAuthenticatedUsers", "system:group:organization:o:users", "group:g"];
        let bindings: Vec<AccessBinding> = all
            .iter()
            .map(|one| AccessBinding { role_id: ROLE.to_owned(), subject: subject(one).unwrap() })
            .collect();
        assert_eq!(grants(&bindings, &sharing::roles(ROLE, []))[0].members.len(), 3);
        let seen = grants(&bindings, &sharing::roles(ROLE, []));
        assert!(deltas(&seen, &[grant(ROLE, &all)]).unwrap().is_empty());
    }
}
