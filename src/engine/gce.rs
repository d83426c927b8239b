//! Google Compute Engine: machine images, disk images and snapshots of projects.
//!
//! `wire` has the API's own structs, `call` requests as values and what comes of them, `http` sends
//! them. An image is known by project, kind and number, so that no other of the same name is ever
//! meant. Who owns an image, and its stage where the service has none, is in its labels.

mod bind;
mod call;
mod change;
mod create;
mod credentials;
mod examine;
mod http;
mod image;
mod insertion;
mod number;
mod observe;
mod operation;
mod origin;
mod permission;
mod rhythm;
mod settings;
mod sharing;
mod told;
mod uses;
mod via;
mod wire;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::Value;

use http::Http;
use number::Numbers;
use rhythm::Rhythm;
use settings::Settings;

use super::http::{Ended, Pause, RealTime};
use super::set::{APART, Patience};
use super::{
    Attention, Calls, CopyRequest, CreateRequest, Created, Engine, EngineError, Examined, Role,
    Settled, Wanted, Watcher,
};
use crate::clock::Clock;
use crate::elapsed::Elapsed;
use crate::inventory::{EngineInventory, Image};
use crate::name::SourceId;
use crate::plan::{ImageRef, Update};
use crate::policy::schema::simplify;
use crate::policy::{BadSetting, EngineKind};

/// The name of this kind of engine.
pub const KIND: &str = "gce";

/// A set of snapshots counts as being made until so long after its youngest member. All members are
/// asked for at once; what is not there ten minutes after the first is made by nobody any more, and a
/// little less than that after it whoever is asked again makes it.
const SET_PATIENCE: Patience = Patience {
    unfinished: Elapsed::minutes(15),
    apart: APART,
    completed: Some(Elapsed::minutes(9)),
};

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

/// The smallest custom roles for those who use one.
pub fn roles() -> Vec<Role> {
    permission::roles()
}

/// Opens an engine of this kind.
pub fn open(
    name: &str,
    settings: &Value,
    base: &Path,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn Engine>, String> {
    Ok(Arc::new(GceEngine::open(name, settings, base, clock, Arc::new(RealTime))?))
}

/// An engine over projects of Compute Engine.
pub struct GceEngine {
    name: String,
    settings: Settings,
    /// The projects, and the endpoint where it is not Google's own.
    identity: String,
    endpoint: String,
    /// The project that requests are counted for, where one is named.
    quota_project: Option<String>,
    http: Http,
    /// Where each source was when it was last looked at.
    sources: Mutex<BTreeMap<SourceId, Source>>,
    /// What plans look at of some images only.
    attention: Mutex<Attention>,
    /// The projects by their numbers, once they were asked for.
    numbers: Mutex<Option<Numbers>>,
    /// The ids of requests whose operations this run has seen end.
    ended: Ended,
    rhythm: Rhythm,
    clock: Arc<dyn Clock>,
}

/// Where a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    project: String,
    zone: String,
    name: String,
}

impl Source {
    /// The path that images of it have.
    fn path(&self) -> String {
        format!("projects/{}/zones/{}/instances/{}", self.project, self.zone, self.name)
    }
}

impl GceEngine {
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
        let mut identity = settings.projects.join(", ");
        if !endpoint.is_default {
            identity.push_str(&format!(" at {}", endpoint.place.url));
        }
        if let Some(project) = &settings.images_project {
            identity.push_str(&format!(", images in {project}"));
        }
        let quota_project = settings.quota_project.clone().or(credentials.quota_project());
        let http =
            Http::new(&endpoint, credentials, quota_project.as_deref(), pause, Arc::clone(&clock))?;
        Ok(Self {
            name: name.to_owned(),
            settings,
            identity,
            endpoint: endpoint.place.url.to_string(),
            quota_project,
            http,
            sources: Mutex::new(BTreeMap::new()),
            attention: Mutex::default(),
            numbers: Mutex::default(),
            ended: Ended::default(),
            rhythm: Rhythm::default(),
            clock,
        })
    }

    /// Whether images of a project are this engine's.
    fn holds(&self, project: &str) -> bool {
        self.settings.image_projects().any(|known| known == project)
    }

    /// The project in which images of a project's instances are made.
    fn images_made_in<'a>(&'a self, project: &'a str) -> &'a str {
        self.settings.images_project.as_deref().unwrap_or(project)
    }

    fn attention(&self) -> Attention {
        self.attention.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn known_source(&self, id: &SourceId) -> Option<Source> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    fn knows_no_source(&self) -> bool {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn remember_sources(&self, sources: BTreeMap<SourceId, Source>) {
        *self.sources.lock().unwrap_or_else(PoisonError::into_inner) = sources;
    }
}

#[async_trait]
impl Engine for GceEngine {
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

    async fn update(&self, image: &ImageRef, update: &Update) -> Result<Image, EngineError> {
        self.change(image, update).await
    }

    async fn copy(
        &self,
        request: CopyRequest,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Created, EngineError> {
        self.copy_to(&request, watcher.as_ref()).await
    }

    async fn delete(&self, image: &ImageRef) -> Result<(), EngineError> {
        self.remove(image).await
    }

    async fn examine(&self, wanted: &Wanted) -> Vec<Examined> {
        self.look_into(wanted).await
    }

    fn places(&self) -> Vec<PathBuf> {
        let endpoint = self.settings.endpoint();
        let places = endpoint.map(|endpoint| self.settings.places(&endpoint)).unwrap_or_default();
        places.into_iter().map(PathBuf::from).collect()
    }

    async fn settle(&self) -> Result<Settled, EngineError> {
        Ok(Settled::default())
    }

    fn calls(&self) -> Option<Calls> {
        Some(self.http.calls())
    }
}
