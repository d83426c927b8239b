//! Yandex Compute Cloud: snapshots and images of the disks of instances in folders.
//!
//! `wire` has the API's own structs, `call` what comes of requests, `service` sends them. An image is
//! known by folder, kind and id, so that no other of the same name is ever meant. Who owns an image,
//! what it was made of and its stage are in its labels, because the service remembers none of it.

mod bind;
mod call;
mod change;
mod copy;
mod create;
mod credentials;
mod examine;
mod image;
mod import;
mod insertion;
mod member;
mod observe;
mod operation;
mod promise;
mod rebuild;
mod room;
mod service;
mod settings;
mod sharing;
mod stopped;
mod via;
mod wait;
mod wire;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::Value;

use room::Rooms;
use service::Services;
use settings::Settings;
use wait::ASKED_APART;

use super::http::{Ended, Pause, RealTime};
use super::set::{APART, Patience};
use super::{
    Attention, Calls, CopyRequest, CreateRequest, Created, Engine, EngineError, Examined, Import,
    ImportRequest, Rebuild, RebuildRequest, Rebuilt, Settled, Wanted, Watcher,
};
use crate::clock::Clock;
use crate::elapsed::Elapsed;
use crate::inventory::{EngineInventory, Image};
use crate::name::SourceId;
use crate::plan::{ImageRef, Update};
use crate::policy::schema::simplify;
use crate::policy::{BadSetting, EngineKind};

/// The name of this kind of engine.
pub const KIND: &str = "yandex";

/// So long after it was begun an image counts as being made of which it is not proven that its machine
/// stood still.
const PROOF_PATIENCE: Elapsed = Elapsed::hours(1);
/// How long nobody knows whether somebody is at a set that is not whole: what is missing is asked for
/// within nine minutes after the first of its members, and shows at once.
const SET_PATIENCE: Patience =
    Patience { unfinished: Elapsed::minutes(12), apart: APART, completed: Some(ASKED_APART) };

/// What must be known of this kind of engine.
pub fn kind() -> EngineKind {
    let mut settings_schema = schemars::schema_for!(Settings).to_value();
    simplify(&mut settings_schema);
    EngineKind {
        name: KIND,
        settings_schema,
        capabilities: settings::capabilities,
        check: settings::check,
    }
}

/// Opens an engine of this kind.
pub fn open(
    name: &str,
    settings: &Value,
    base: &Path,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn Engine>, String> {
    Ok(Arc::new(YandexEngine::open(name, settings, base, clock, Arc::new(RealTime))?))
}

/// An engine over folders of Yandex Compute Cloud.
pub struct YandexEngine {
    name: String,
    settings: Settings,
    /// The folders, and the endpoint where it is not the cloud's own.
    identity: String,
    endpoint: String,
    services: Services,
    /// How much is asked for at once.
    rooms: Rooms,
    /// What each source was called when it was last looked at.
    names: Mutex<BTreeMap<SourceId, String>>,
    /// What plans look at of some images only.
    attention: Mutex<Attention>,
    /// The keys of requests whose operations this run has seen end.
    ended: Ended,
    clock: Arc<dyn Clock>,
}

impl YandexEngine {
    /// Opens the engine with these settings. Nothing is asked yet.
    pub fn open(
        name: &str,
        settings: &Value,
        base: &Path,
        clock: Arc<dyn Clock>,
        pause: Arc<dyn Pause>,
    ) -> Result<Self, String> {
        let settings = Settings::read(settings).map_err(|error| error.to_string())?;
        BadSetting::refuse(&settings.check())?;
        let endpoint = settings.endpoint()?;
        let credentials = settings.credentials(base, &endpoint)?;
        let mut identity = settings.folders.join(", ");
        if !settings.is_default_endpoint() {
            identity.push_str(&format!(" at {}", endpoint.url));
        }
        if let Some(folder) = &settings.images_folder {
            identity.push_str(&format!(", images in {folder}"));
        }
        if !settings.copy_folders().is_empty() {
            identity.push_str(&format!(", copies in {}", settings.copy_folders().join(", ")));
        }
        let address = endpoint.url.to_string();
        let services = Services::new(&settings, endpoint, credentials, pause, Arc::clone(&clock))?;
        Ok(Self {
            name: name.to_owned(),
            rooms: Rooms::default(),
            settings,
            identity,
            endpoint: address,
            services,
            names: Mutex::default(),
            attention: Mutex::default(),
            ended: Ended::default(),
            clock,
        })
    }

    fn attention(&self) -> Attention {
        self.attention.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn known_name(&self, id: &SourceId) -> Option<String> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    fn note_name(&self, id: &SourceId, name: &str) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert(id.clone(), name.to_owned());
    }

    fn knows_no_names(&self) -> bool {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn remember_names(&self, names: BTreeMap<SourceId, String>) {
        *self.names.lock().unwrap_or_else(PoisonError::into_inner) = names;
    }
}

#[async_trait]
impl Engine for YandexEngine {
    fn name(&self) -> &str {
        &self.name
    }

    fn attend(&self, attention: &Attention) {
        *self.attention.lock().unwrap_or_else(PoisonError::into_inner) = attention.clone();
    }

    async fn observe(&self) -> EngineInventory {
        self.look().await
    }

    async fn create(
        &self,
        request: CreateRequest,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Created, EngineError> {
        self.make(&request, watcher.as_ref()).await
    }

    async fn copy(
        &self,
        request: CopyRequest,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Created, EngineError> {
        self.copy_to(&request, watcher.as_ref()).await
    }

    async fn update(&self, image: &ImageRef, update: &Update) -> Result<Image, EngineError> {
        self.change(image, update).await
    }

    async fn delete(&self, image: &ImageRef) -> Result<(), EngineError> {
        self.remove(image).await
    }

    async fn settle(&self) -> Result<Settled, EngineError> {
        self.keep_promises().await
    }

    async fn examine(&self, wanted: &Wanted) -> Vec<Examined> {
        self.look_into(wanted).await
    }

    fn places(&self) -> Vec<PathBuf> {
        let folder = |folder| PathBuf::from(format!("{}folders/{folder}", self.endpoint));
        self.settings.image_folders().map(folder).collect()
    }

    fn calls(&self) -> Option<Calls> {
        Some(self.services.calls())
    }

    fn rebuild(&self) -> Option<&dyn Rebuild> {
        Some(self)
    }

    fn import(&self) -> Option<&dyn Import> {
        Some(self)
    }
}

#[async_trait]
impl Import for YandexEngine {
    async fn import(
        &self,
        request: ImportRequest,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Created, EngineError> {
        self.bring_in(&request, watcher.as_ref()).await
    }
}

#[async_trait]
impl Rebuild for YandexEngine {
    async fn rebuild(
        &self,
        request: RebuildRequest,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Rebuilt, EngineError> {
        self.make_again(&request, watcher.as_ref()).await
    }
}
