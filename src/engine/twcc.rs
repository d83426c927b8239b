//! TWCC VCS: images of the system disks of a project's sites, and snapshots of their data disks.
//!
//! `wire` has the API's own structs, `call` says what comes of requests, `http` sends them, `record`
//! reads and writes the ownership record, which is in the description of each image because the
//! service has no labels. An image is known by project, collection and number, so that no other of
//! the same name is ever meant: names are not unique here.

mod begin;
mod bind;
mod call;
mod change;
mod create;
mod examine;
mod http;
mod image;
mod observe;
mod record;
mod settings;
mod wait;
mod wire;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use async_trait::async_trait;
use serde_json::Value;

use http::Service;
use observe::Seen;
use settings::Settings;

use super::http::{Pause, RealTime};
use super::set::{APART, Patience};
use super::{
    Calls, CreateRequest, Created, Engine, EngineError, Examined, Settled, Wanted, Watcher,
};
use crate::clock::Clock;
use crate::elapsed::Elapsed;
use crate::inventory::{EngineInventory, Image};
use crate::plan::{ImageRef, Update};
use crate::policy::schema::simplify;
use crate::policy::{BadSetting, EngineKind};

/// The name of this kind of engine.
pub const KIND: &str = "twcc";

/// So long after its image has left the queue nobody knows whether somebody is at a set that is not
/// whole: what is missing is asked for within ten minutes, and shows at once.
const SET_PATIENCE: Elapsed = Elapsed::minutes(12);

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
    Ok(Arc::new(TwccEngine::open(name, settings, base, clock, Arc::new(RealTime))?))
}

/// An engine over a project of TWCC.
pub struct TwccEngine {
    name: String,
    settings: Settings,
    /// The project and the platform, and the endpoint where it is not TWCC's own.
    identity: String,
    endpoint: String,
    service: Service,
    /// What there was beside images when that was last looked at.
    seen: Mutex<Option<Arc<Seen>>>,
    /// What the service keeps otherwise than it was given. Then nothing more is asked for: each image
    /// would be one that nobody finds again.
    alters: OnceLock<String>,
    clock: Arc<dyn Clock>,
}

impl TwccEngine {
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
        let (place, is_default) = settings.endpoint()?;
        let key = settings.key(base);
        let mut identity = format!("{} on {}", settings.project, settings.platform());
        if !is_default {
            identity.push_str(&format!(" at {}", place.url));
        }
        let service = Service::new(
            &place,
            key,
            settings.platform(),
            &settings.project,
            pause,
            Arc::clone(&clock),
        )?;
        Ok(Self {
            name: name.to_owned(),
            settings,
            identity,
            endpoint: place.url.to_string(),
            service,
            seen: Mutex::new(None),
            alters: OnceLock::new(),
            clock,
        })
    }

    /// What may lie between the members of a set. Snapshots are asked for as soon as the image has
    /// left the queue, and the service says of each only when it was asked for.
    fn patience(&self) -> Patience {
        let queued = Elapsed::minutes(self.settings.queued_minutes());
        Patience {
            unfinished: Elapsed::seconds(SET_PATIENCE.as_seconds() + queued.as_seconds()),
            apart: Elapsed::seconds(APART.as_seconds() + queued.as_seconds()),
            completed: Some(APART),
        }
    }
}

#[async_trait]
impl Engine for TwccEngine {
    fn name(&self) -> &str {
        &self.name
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

    async fn delete(&self, image: &ImageRef) -> Result<(), EngineError> {
        self.remove(image).await
    }

    async fn settle(&self) -> Result<Settled, EngineError> {
        Ok(Settled::default())
    }

    async fn examine(&self, _: &Wanted) -> Vec<Examined> {
        self.look_into().await
    }

    fn places(&self) -> Vec<PathBuf> {
        let (platform, project) = (self.settings.platform(), &self.settings.project);
        vec![PathBuf::from(format!("{}{platform}/projects/{project}", self.endpoint))]
    }

    fn calls(&self) -> Option<Calls> {
        Some(self.service.calls())
    }
}
