//! Image families and the deprecation of disk images.

use std::cmp::Reverse;

use serde_json::{Map, Value, json};

use super::Inner;
use super::answer::{Answer, Refusal};
use super::image::{self, Kept};
use super::link::Scope;
use super::request::{Request, text_of};
use crate::engine::Engine;
use crate::inventory::{EngineInventory, Image, ImageKind, ImageState, Stage};
use crate::plan::{ImageRef, Update};

impl Inner {
    /// The newest image of a family that is not deprecated.
    pub(super) fn newest<'a>(
        &self,
        seen: &'a EngineInventory,
        family: &str,
    ) -> Result<(&'a Image, Kept), Refusal> {
        let candidates = seen.images.iter().filter_map(|image| {
            let kept = self.kept(image, seen);
            let is_it = image.kind == ImageKind::DiskImage
                && image.state == ImageState::Ready
                && image.stage == Stage::Active
                && kept.shown.get("family").and_then(Value::as_str) == Some(family);
            is_it.then_some((image, kept))
        });
        // In the order of lists: of two that nothing else tells apart, the first by name.
        let newest = candidates
            .max_by_key(|(image, kept)| (image.created_at, kept.sequence, Reverse(&image.name)));
        newest.ok_or_else(|| {
            let name = format!("family/{family}");
            Refusal::not_found(&self.links.path(&Scope::Global, "images", &name))
        })
    }

    /// Answers with the image of a family as a zone sees it: here, all zones see the same.
    pub(super) async fn family_view(&self, request: &Request) -> Answer {
        let ("GET", Some(family), None) = request.parts() else {
            return Err(request.not_done());
        };
        let seen = self.seen().await?;
        let (image, kept) = self.newest(&seen, family)?;
        Ok(json!({"image": image::json(image, &kept, &self.links)}))
    }

    /// Deprecates an image, or takes that back where the body is empty.
    pub(super) async fn deprecate(&self, request: &Request, name: &str) -> Answer {
        let _gate = self.gate.lock().await;
        if let Some(operation) = self.operations.replayed(request)? {
            return Ok(operation.json(&self.links));
        }
        let seen = self.seen().await?;
        let image = self.find_image(&seen, ImageKind::DiskImage, &request.scope, name)?;
        if image.state != ImageState::Ready {
            return Err(Refusal::not_ready(format!("The image {} is not ready", image.name)));
        }
        let (stage, deprecated) = self.read_deprecation(&request.body, "resource")?;
        self.set_stage(image, stage).await?;
        let kept = Kept { deprecated, ..self.whole(image, &seen).await? };
        self.shelf.put(&image.id, kept)?;
        self.done(request, "deprecate", ImageKind::DiskImage, image)
    }

    /// Takes an image to a stage, where it is not there yet.
    pub(super) async fn set_stage(&self, image: &Image, stage: Stage) -> Result<(), Refusal> {
        if image.stage == stage {
            return Ok(());
        }
        let update = Update {
            stage_before: image.stage,
            stage_after: stage,
            set_labels: image.labels.clone(),
            remove_labels: Vec::new(),
            replacement: None,
            sharing: None,
        };
        self.engine.update(&ImageRef::of(image), &update).await?;
        Ok(())
    }

    /// How an image is to be deprecated, as an object at a place of a body has it; not at all where that is
    /// empty.
    pub(super) fn read_deprecation(
        &self,
        body: &Map<String, Value>,
        within: &str,
    ) -> Result<(Stage, Option<Value>), Refusal> {
        let mut deprecated = Map::new();
        for date in ["deprecated", "obsolete", "deleted"] {
            if let Some(text) = text_of(body, within, date)? {
                deprecated.insert(date.to_owned(), json!(text));
            }
        }
        if let Some(text) = text_of(body, within, "replacement")? {
            let named = self.links.reference(&format!("{within}.replacement"), text, "images")?;
            let link = self.links.link(&named.scope, &named.collection, &named.name);
            deprecated.insert("replacement".to_owned(), json!(link));
        }
        let asked = text_of(body, within, "state")?;
        let stage = match asked {
            None | Some("ACTIVE") => Stage::Active,
            Some("DEPRECATED") => Stage::Deprecated,
            Some("OBSOLETE" | "DELETED") => Stage::Obsolete,
            Some(other) => {
                let why = "It is ACTIVE, DEPRECATED, OBSOLETE or DELETED.";
                return Err(Refusal::invalid(&format!("{within}.state"), other, why));
            }
        };
        if let Some(state) = asked {
            deprecated.insert("state".to_owned(), json!(state));
        }
        let is_empty = deprecated.is_empty();
        Ok((stage, (!is_empty).then_some(Value::Object(deprecated))))
    }
}
