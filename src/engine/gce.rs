//! Google Compute Engine: machine images, disk images and snapshots of projects.
//!
//! `wire` has the API's own structs, `call` requests as values and what comes of them, `http` sends
//! them. An image is known by project, kind and number, so that no other of the same name is ever
//! meant. Who owns an image, and its stage where the service has none, is in its labels.

mod call;
mod change;
mod create;
mod credentials;
mod examine;
mod http;
mod image;
mod observe;
mod permission;
mod settings;
mod told;
mod wire;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::Value;
use sha2::{Digest, Sha256};

pub use http::{Pause, RealTime};

use http::Http;
use settings::Settings;

use super::{
    CreateRequest, Created, Engine, EngineError, Examined, Role, Settled, Wanted, Watcher,
};
use crate::clock::Clock;
use crate::inventory::{EngineInventory, Image};
use crate::name::SourceId;
use crate::plan::{ImageRef, Update};
use crate::policy::EngineKind;
use crate::policy::schema::simplify;

/// The name of this kind of engine.
pub const KIND: &str = "gce";

/// What must be known of this kind of engine.
pub fn kind() -> EngineKind {
    let mut settings_schema = schemars::schema_for!(Settings).to_value();
    simplify(&mut settings_schema);
    EngineKind { name: KIND, settings_schema, capabilities: settings::capabilities }
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
    is_loopback: bool,
    /// The project that requests are counted for, where one is named.
    quota_project: Option<String>,
    http: Http,
    /// Where each source was when it was last looked at.
    sources: Mutex<BTreeMap<SourceId, Source>>,
    /// Keeps the requests of this engine apart from those of any other run.
    nonce: [u64; 2],
    requests: AtomicU64,
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
        let endpoint = settings.endpoint()?;
        let credentials = settings.credentials(base, &endpoint)?;
        let mut identity = settings.projects.join(", ");
        if !endpoint.is_default {
            identity.push_str(&format!(" at {}", endpoint.url));
        }
        let quota_project = settings.quota_project.clone().or(credentials.quota_project());
        let http = Http::new(&endpoint, credentials, quota_project.as_deref(), pause, clock)?;
        let random = || RandomState::new().build_hasher().finish();
        Ok(Self {
            name: name.to_owned(),
            settings,
            identity,
            endpoint: endpoint.url.to_string(),
            is_loopback: endpoint.is_loopback,
            quota_project,
            http,
            sources: Mutex::new(BTreeMap::new()),
            nonce: [random(), random()],
            requests: AtomicU64::new(0),
        })
    }

    /// A request id (UUID version 4): the same for all attempts of one request, and no other's. A
    /// later run must not be answered with what became of an earlier one.
    fn request_id(&self, name: &str) -> String {
        let mut hash = Sha256::new();
        for part in [self.nonce[0], self.nonce[1], self.requests.fetch_add(1, Ordering::Relaxed)] {
            hash.update(part.to_be_bytes());
        }
        hash.update(name);
        let digest = hash.finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let hex = data_encoding::HEXLOWER.encode(&bytes);
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    fn known_source(&self, id: &SourceId) -> Option<Source> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
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

    async fn examine(&self, wanted: &Wanted) -> Vec<Examined> {
        self.look_into(wanted).await
    }

    fn places(&self) -> Vec<PathBuf> {
        let project = |project| PathBuf::from(format!("{}projects/{project}", self.endpoint));
        self.settings.projects.iter().map(project).collect()
    }

    async fn settle(&self) -> Result<Settled, EngineError> {
        Ok(Settled::default())
    }
}
