//! Imports: images of disks that the service fetches from Object Storage by a signed URL.
//!
//! What holds for other images holds for these: looked for first, asked for once, waited for until they
//! are READY. The URL is in the body of one request and nowhere else: what the service says of it is
//! passed on without what is secret, and the key of the request is a function of where the disk lies, so
//! that the same disk under another signature is the same request.

use serde_json::{Value, json};

use super::YandexEngine;
use super::call::CallError;
use super::image::Collection;
use super::insertion::{self, Said, Wanted};
use super::settings::DESCRIPTION_MAX;
use super::sharing;
use crate::engine::author::signed;
use crate::engine::http::Call;
use crate::engine::set::LABEL_BOOT;
use crate::engine::{CreateRequest, Created, EngineError, ImportRequest, ImportUri, Watcher};
use crate::import::place_label;
use crate::inventory::{ImageKind, LABEL_IMPORTED};
use crate::name::is_rfc1035_label;

/// The field of a request that holds a URL.
const URI: &str = "uri";
/// The field of a request that is for people.
const DESCRIPTION: &str = "description";

impl YandexEngine {
    pub(super) async fn bring_in(
        &self,
        request: &ImportRequest,
        watcher: &dyn Watcher,
    ) -> Result<Created, EngineError> {
        let made = self.make_of_uri(request, watcher).await;
        made.map_err(|error| without_secret(error, &request.uri))
    }

    async fn make_of_uri(
        &self,
        request: &ImportRequest,
        watcher: &dyn Watcher,
    ) -> Result<Created, EngineError> {
        let wanted = self.wanted_of_uri(request).await?;
        let create = &request.create;
        let wanted = [wanted];
        let found = self.look_for(&wanted, create, watcher).await?;
        let created = self.all(&wanted, found, create, watcher).await?;
        match &create.create.sharing {
            Some(sharing) => self.shared(created, sharing).await,
            None => Ok(created),
        }
    }

    /// The image that is asked for.
    async fn wanted_of_uri(&self, request: &ImportRequest) -> Result<Wanted, EngineError> {
        let CreateRequest { key, name, create, by, .. } = &request.create;
        let description = signed(by.as_ref(), &create.description, DESCRIPTION_MAX);
        let refused = |message: &str| Err(EngineError::Refused(message.to_owned()));
        if !is_rfc1035_label(name) {
            return refused(&format!("{name} is no name of an image"));
        }
        if create.kind != ImageKind::DiskImage {
            return refused("what is imported is a disk image");
        }
        if create.kms_key.is_some() {
            return refused("what is imported has no key: an image has the key of its disk");
        }
        sharing::check(create.sharing.as_deref().unwrap_or_default())?;
        let images = self.settings.images.clone().unwrap_or_default();
        let (folder, is_windows) = if request.is_gone {
            (self.folder_of_nobody()?, false)
        } else {
            let instance = self.instance(key.source.as_str()).await?;
            self.note_name(&key.source, instance.called());
            let folder = self.settings.images_folder_of(&instance.folder_id).to_owned();
            let mut labels = images.windows.iter();
            let has =
                |(label, value): (&String, &String)| instance.labels.get(label) == Some(value);
            (folder, !images.windows.is_empty() && labels.all(has))
        };
        let mut labels = create.labels.clone();
        let place = place_label(request.uri.open());
        labels.insert(LABEL_IMPORTED.to_owned(), place.clone());
        if request.is_boot {
            labels.insert(LABEL_BOOT.to_owned(), "yes".to_owned());
        }
        let said = Said {
            folder: &folder,
            name,
            description: &description,
            labels,
            family: create.family.as_deref(),
            images,
            is_windows: request.is_windows || (is_windows && request.is_boot),
            // Of a file nobody knows it.
            disk_bytes: 0,
        };
        Ok(Wanted {
            collection: Collection::Images,
            call: call_for(&request.uri, &said)?,
            folder: folder.clone(),
            name: name.clone(),
            point: name.clone(),
            key: key.clone(),
            disk: String::new(),
            device: create.disks.first().cloned().unwrap_or_default(),
            members: 1,
            is_step: false,
            is_copy: false,
            imported: Some(place),
        })
    }

    /// The folder for images of an instance that is in none.
    fn folder_of_nobody(&self) -> Result<String, EngineError> {
        match (&self.settings.images_folder, &self.settings.folders[..]) {
            (Some(folder), _) | (None, [folder]) => Ok(folder.clone()),
            (None, _) => Err(EngineError::Refused(
                "its source is not there, so nothing says which of the folders it belongs to: set `imagesFolder`"
                    .to_owned(),
            )),
        }
    }
}

/// The request: like that for an image of a disk, with a URL in its place.
fn call_for(uri: &ImportUri, said: &Said<'_>) -> Result<Call, CallError> {
    let mut call = insertion::image("", said)?;
    if let Some(Value::Object(body)) = &mut call.body {
        body.remove("diskId");
        body.insert(URI.to_owned(), json!(uri.secret()));
    }
    Ok(call)
}

/// The URL of a request, where it has one.
pub(super) fn uri_of(call: &Call) -> Option<ImportUri> {
    ImportUri::parse(call.body.as_ref()?.get(URI)?.as_str()?).ok()
}

/// The body of a request without what is secret in it, and without what is only said: a URL that is
/// signed anew asks for the same, and so does another host, which is named in the description.
pub(super) fn asked_for(call: &Call) -> Option<Value> {
    let mut body = call.body.clone();
    if let Some(Value::Object(body)) = &mut body {
        body.remove(DESCRIPTION);
        if let Some(uri) = uri_of(call) {
            body.insert(URI.to_owned(), json!(uri.open()));
        }
    }
    body
}

fn without_secret(error: EngineError, uri: &ImportUri) -> EngineError {
    let clean = |text: String| uri.without_secret(&text);
    match error {
        EngineError::Busy(text) => EngineError::Busy(clean(text)),
        EngineError::Refused(text) => EngineError::Refused(clean(text)),
        EngineError::Failed(text) => EngineError::Failed(clean(text)),
        error @ (EngineError::NotFound
        | EngineError::NameTaken(_)
        | EngineError::Changed
        | EngineError::Interrupted) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_has_the_url_and_its_key_does_not() {
        let uri = ImportUri::parse("https://h/b/x.qcow2?X-Amz-Signature=0123456789abcdef").unwrap();
        let said = Said {
            folder: "f",
            name: "n",
            family: Some("web"),
            is_windows: true,
            ..Said::default()
        };
        let call = call_for(&uri, &said).unwrap();
        let body = call.body.clone().unwrap();
        assert_eq!(body["uri"], uri.secret());
        assert!(body.get("diskId").is_none());
        assert!(!format!("{call:?}").contains("0123456789"), "{call:?}");
        assert_eq!((&body["family"], &body["os"]), (&json!("web"), &json!({"type": "WINDOWS"})));
        assert_eq!(asked_for(&call).unwrap()["uri"], "https://h/b/x.qcow2");
        let again =
            ImportUri::parse("https://h/b/x.qcow2?X-Amz-Signature=fedcba9876543210").unwrap();
        assert_eq!(asked_for(&call_for(&again, &said).unwrap()), asked_for(&call));
        let other = insertion::image("disk", &said).unwrap();
        let mut body = other.body.clone();
        body.as_mut().unwrap().as_object_mut().unwrap().remove(DESCRIPTION);
        assert_eq!(asked_for(&other), body);
        // Whoever asks for it.
        let of_another = Said { description: "nightly (by ci)", ..said };
        let of_another = insertion::image("disk", &of_another).unwrap();
        assert_ne!(of_another.body, other.body);
        assert_eq!(asked_for(&of_another), asked_for(&other));
    }
}
