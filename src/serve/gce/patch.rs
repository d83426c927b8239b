//! What of a disk image can be changed by sending the image: what it is described as, its family, the
//! processors that it is for, and how it is deprecated (source: the reference of `images.patch`, and of
//! `gcloud compute images update`).
//!
//! A client may send back all of an image that it was given, with a change in it. What is as it was is
//! therefore let pass, and anything else refused: nothing is left out that somebody wanted changed.

use serde_json::{Value, json};

use super::Inner;
use super::answer::{Answer, Refusal};
use super::image::{self, Kept};
use super::label::{self, Labels};
use super::order::{read_architecture, read_description, read_family};
use super::request::Request;
use crate::inventory::{ImageKind, ImageState, Stage};

/// The fields that can be changed.
const CHANGEABLE: [&str; 4] = ["architecture", "deprecated", "description", "family"];
/// Where a body says how an image is deprecated.
const DEPRECATED: &str = "resource.deprecated";

impl Inner {
    /// Changes what a request has of a disk image. What it does not have stays; what it has as `null` or empty
    /// is taken away.
    pub(super) async fn patch(&self, request: &Request, name: &str) -> Answer {
        let _gate = self.gate.lock().await;
        if let Some(operation) = self.operations.replayed(request)? {
            return Ok(operation.json(&self.links));
        }
        let seen = self.seen().await?;
        let image = self.find_image(&seen, ImageKind::DiskImage, &request.scope, name)?;
        if image.state != ImageState::Ready {
            return Err(Refusal::not_ready(format!("The image {} is not ready", image.name)));
        }
        let mut kept = self.whole(image, &seen).await?;
        check_labels(request, &image.labels)?;
        check_rest(request, &image::json(image, &kept, &self.links))?;
        for (field, value) in [
            ("architecture", read_architecture(request)?),
            ("description", read_description(request)?),
            ("family", read_family(request)?),
        ] {
            match value {
                Some(value) => kept.shown.insert(field.to_owned(), json!(value)),
                None if request.body.contains_key(field) => kept.shown.remove(field),
                None => None,
            };
        }
        if let Some((stage, deprecated)) = self.read_change(request, &kept)? {
            self.set_stage(image, stage).await?;
            kept.deprecated = deprecated;
        }
        self.shelf.put(&image.id, kept)?;
        self.done(request, "patch", ImageKind::DiskImage, image)
    }

    /// How an image is to be deprecated: as it is, but for what a request has of that.
    fn read_change(
        &self,
        request: &Request,
        kept: &Kept,
    ) -> Result<Option<(Stage, Option<Value>)>, Refusal> {
        let change = match request.body.get("deprecated") {
            None => return Ok(None),
            Some(Value::Null) => return Ok(Some((Stage::Active, None))),
            Some(Value::Object(change)) => change,
            Some(other) => {
                let why = "It must be an object.";
                return Err(Refusal::invalid(DEPRECATED, &other.to_string(), why));
            }
        };
        let current = kept.deprecated.as_ref().and_then(Value::as_object).cloned();
        let mut whole = current.unwrap_or_default();
        whole.extend(change.clone());
        self.read_deprecation(&whole, DEPRECATED).map(Some)
    }
}

/// Labels are set by another method. They may be sent along as they are, and a fingerprint says that
/// they are.
fn check_labels(request: &Request, current: &Labels) -> Result<(), Refusal> {
    let given = label::fingerprint(current);
    let made_over = request.text("labelFingerprint")?;
    if made_over.is_some_and(|made_over| !label::is_same(made_over, &given)) {
        return Err(Refusal::stale_labels());
    }
    let is_there = request.body.get("labels").is_some_and(|labels| !labels.is_null());
    let labels = label::read(&request.body)?;
    if is_there && labels != *current {
        let why = "Labels are changed by setLabels.";
        return Err(Refusal::invalid("resource.labels", &json!(labels).to_string(), why));
    }
    Ok(())
}

/// Refuses what cannot be changed and is not as it is shown.
fn check_rest(request: &Request, shown: &Value) -> Result<(), Refusal> {
    let is_other = |field: &str| {
        !CHANGEABLE.contains(&field) && !["labels", "labelFingerprint"].contains(&field)
    };
    for (field, value) in request.body.iter().filter(|(field, _)| is_other(field)) {
        let is_same = match shown.get(field) {
            Some(current) => value.is_null() || value == current,
            None => is_empty(value),
        };
        if !is_same {
            let why = format!("Of an image, only these can be changed: {}.", CHANGEABLE.join(", "));
            return Err(Refusal::invalid(&format!("resource.{field}"), &value.to_string(), &why));
        }
    }
    Ok(())
}

/// Whether a value says nothing, as clients write fields that were never set.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(elements) => elements.is_empty(),
        Value::Object(object) => object.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}
