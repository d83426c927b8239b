//! Who may use an image: policies are kept and given back; this server lets everybody do everything.

use data_encoding::BASE64URL;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Inner;
use super::answer::{Answer, Refusal};
use super::image::Kept;
use super::label::is_same;
use super::request::Request;
use crate::inventory::ImageKind;

/// The policy with what changes with every change of it.
fn with_etag(bindings: &Value) -> Value {
    let etag = BASE64URL.encode(&Sha256::digest(bindings.to_string().as_bytes())[..8]);
    let mut policy = json!({"version": 1, "etag": etag});
    if bindings.as_array().is_some_and(|bindings| !bindings.is_empty()) {
        policy["bindings"] = bindings.clone();
    }
    policy
}

impl Inner {
    /// Answers with the policy of an image.
    pub(super) async fn policy(&self, request: &Request, kind: ImageKind, name: &str) -> Answer {
        let seen = self.seen().await?;
        let image = self.find_image(&seen, kind, &request.scope, name)?;
        Ok(with_etag(&self.kept(image, &seen).bindings))
    }

    /// Replaces the policy of an image, if it is the one that the change was made over.
    pub(super) async fn set_policy(
        &self,
        request: &Request,
        kind: ImageKind,
        name: &str,
    ) -> Answer {
        let _gate = self.gate.lock().await;
        let seen = self.seen().await?;
        let image = self.find_image(&seen, kind, &request.scope, name)?;
        let kept = self.whole(image, &seen).await?;
        let body = Value::Object(request.body.clone());
        let policy = if body["policy"].is_object() { &body["policy"] } else { &body };
        let asked = policy["etag"].as_str().or_else(|| body["etag"].as_str());
        let current = with_etag(&kept.bindings);
        let current = current["etag"].as_str().unwrap_or_default();
        if asked.is_some_and(|etag| !is_same(etag, current)) {
            return Err(Refusal {
                status: 412,
                reason: "conditionNotMet",
                message: "The policy has changed since its etag was read".to_owned(),
            });
        }
        let bindings = policy.get("bindings").cloned().unwrap_or_else(|| json!([]));
        if !is_well_formed(&bindings) {
            let why = "Each binding has a role and a list of members.";
            return Err(Refusal::invalid("policy.bindings", &bindings.to_string(), why));
        }
        let shown = with_etag(&bindings);
        self.shelf.put(&image.id, Kept { bindings, ..kept })?;
        Ok(shown)
    }

    /// Answers with those of the permissions that the caller has: all of them.
    pub(super) async fn permissions(
        &self,
        request: &Request,
        kind: ImageKind,
        name: &str,
    ) -> Answer {
        let seen = self.seen().await?;
        self.find_image(&seen, kind, &request.scope, name)?;
        let asked = request.body.get("permissions").filter(|asked| !asked.is_null());
        let asked = asked.cloned().unwrap_or_else(|| json!([]));
        Ok(json!({"permissions": asked}))
    }
}

fn is_well_formed(bindings: &Value) -> bool {
    bindings.as_array().is_some_and(|bindings| {
        bindings.iter().all(|binding| {
            let members = binding["members"].as_array();
            binding["role"].is_string()
                && members.is_some_and(|members| members.iter().all(Value::is_string))
        })
    })
}
