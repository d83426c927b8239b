//! The API of Yandex Cloud over an embedded engine: a folder for each of its locations. The folder of
//! the default one has the instances of the instance files; images and snapshots are those of the
//! engine's repositories, each in the folder of its location.
//!
//! All services that a client looks for are one server: it tells its own address as that of each.
//! Every change is checked while the request waits, then runs under an operation. Nothing is answered
//! from what cannot be seen: where the engine reports a gap, so does the server.

mod answer;
mod capture;
mod fault;
mod fetched;
mod folder;
#[cfg(feature = "grpc-dialect")]
mod grpc;
mod image;
mod instance;
mod operation;
mod page;
mod request;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use async_trait::async_trait;
use jiff::SignedDuration;
use jiff::fmt::rfc2822::DateTimePrinter;
use serde_json::{Value, json};
use tokio::sync::{OnceCell, Semaphore, watch};

use answer::{Answer, Code, Refusal, reply};
use fault::Fault;
use folder::Folders;
use image::{Kept, Seen, kind_of};
use instance::Overlay;
use operation::{Operation, Operations};
use request::Request;

use super::fault::Faults;
use super::jobs::Job;
use super::shelf::{Shelf, ShelfError};
use super::stock::{Stock, StockError};
use super::{Call, Reply, ServeError, Service, alone_in};
use crate::clock::Clock;
use crate::engine::Engine;
use crate::engine::local::LocalEngine;
use crate::inventory::{EngineInventory, GapScope};

/// The services whose addresses clients ask for.
const SERVICES: [&str; 6] = ["compute", "endpoint", "iam", "kms", "operation", "resource-manager"];
/// How long a token is good for that nobody looks at.
const TOKEN_TIME: SignedDuration = SignedDuration::from_hours(12);

/// The API over an embedded engine.
#[derive(Clone)]
pub struct Folder {
    inner: Arc<Inner>,
    #[cfg(feature = "grpc-dialect")]
    translator: Arc<grpc::Translator>,
}

struct Inner {
    engine: LocalEngine,
    clock: Arc<dyn Clock>,
    folders: Folders,
    operations: Operations,
    /// What is remembered of images, by their ids.
    shelf: Shelf<Kept>,
    /// What was set of instances that people described, by their ids.
    overlays: Shelf<Overlay>,
    stock: Stock,
    /// Images that are being made, by their ids.
    pending: Mutex<BTreeMap<String, Seen>>,
    /// What a stopped server has left is looked after once, before anything else.
    recovered: OnceCell<()>,
    /// Held while a change is checked and begun, so that two do not take each other's place.
    gate: tokio::sync::Mutex<()>,
    /// What goes wrong on purpose, where that was asked for.
    faults: Option<Faults<Fault>>,
    /// As many captures run at once.
    captures: Semaphore,
    /// Where disks lie that were fetched, as long as their images are made.
    fetched: PathBuf,
    /// Whether others than this machine can speak to it.
    is_reached: AtomicBool,
    /// What runs under an operation outlives the request that began it.
    own: Weak<Inner>,
    /// Is told when the server stops.
    stop: watch::Sender<bool>,
    /// Held as long as the server runs: what it remembers has one writer.
    _alone: File,
}

impl From<StockError> for Refusal {
    fn from(error: StockError) -> Self {
        match error {
            StockError::Unseen(message) => Self::unseen(message),
            StockError::NotOurs(message) => Self::new(Code::PermissionDenied, message),
            StockError::Engine(error) => error.into(),
            StockError::Shelf(error) => error.into(),
        }
    }
}

impl From<ShelfError> for Refusal {
    fn from(error: ShelfError) -> Self {
        Self::new(Code::Internal, error.to_string())
    }
}

impl Folder {
    /// Takes up what an earlier server over the same engine has left. With `faults`, clients may
    /// ask for faults.
    pub fn open(
        engine: LocalEngine,
        folder: &str,
        clock: Arc<dyn Clock>,
        faults: bool,
    ) -> Result<Self, ServeError> {
        let alone = alone_in(&engine.directory().join("serve"))?;
        let directory = engine.directory().join("serve").join("yandex");
        let now = clock.now();
        let failed = ServeError::State;
        let operations = Operations::open(&directory.join("operations"), now).map_err(failed)?;
        let shelf = Shelf::open(&directory.join("images")).map_err(failed)?;
        let overlays = Shelf::open(&directory.join("overlays")).map_err(failed)?;
        let stock = Stock::open(&engine, &directory).map_err(failed)?;
        let captures = Semaphore::new(engine.captures().max(1));
        let folders = Folders::new(folder, engine.locations());
        // What a killed server was at is of no use to anybody.
        let fetched = directory.join("fetched");
        match std::fs::remove_dir_all(&fetched) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(failed(format!("cannot remove {}: {error}", fetched.display())));
            }
            _ => {}
        }
        let inner = Arc::new_cyclic(|own| Inner {
            engine,
            clock,
            folders,
            operations,
            shelf,
            overlays,
            stock,
            pending: Mutex::default(),
            recovered: OnceCell::new(),
            gate: tokio::sync::Mutex::default(),
            faults: faults.then(Faults::default),
            captures,
            fetched,
            is_reached: AtomicBool::new(false),
            own: Weak::clone(own),
            stop: watch::channel(false).0,
            _alone: alone,
        });
        Ok(Self {
            inner,
            #[cfg(feature = "grpc-dialect")]
            translator: Arc::new(grpc::Translator::new().map_err(failed)?),
        })
    }
}

impl Folder {
    /// What time it is to the service, by which clients tell what is old.
    fn with_date(&self, mut reply: Reply) -> Reply {
        let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&self.inner.clock.now());
        reply.headers.extend(date.ok().map(|date| ("date", date)));
        reply
    }

    /// Answers a call in gRPC.
    #[cfg(feature = "grpc-dialect")]
    async fn translated(&self, call: &Call) -> Reply {
        match self.translator.call(call) {
            Ok(translated) => {
                let answer = self.inner.answer(&translated.call).await;
                translated.reply(reply(answer))
            }
            Err((code, why)) => grpc::refused(code, &why),
        }
    }
}

#[async_trait]
impl Service for Folder {
    async fn answer(&self, call: Call) -> Reply {
        #[cfg(feature = "grpc-dialect")]
        if call.content_type.starts_with(grpc::CONTENT_TYPE) {
            return self.translated(&call).await;
        }
        self.with_date(reply(self.inner.answer(&call).await))
    }

    fn unauthenticated(&self, call: &Call) -> Reply {
        let message = "The token is invalid: the server wants its own as a bearer";
        let refusal = Refusal::new(Code::Unauthenticated, message);
        #[cfg(feature = "grpc-dialect")]
        if call.content_type.starts_with(grpc::CONTENT_TYPE) {
            return grpc::refusal(&refusal);
        }
        let _ = call;
        reply(Err(refusal))
    }

    fn reached_from_elsewhere(&self) {
        self.inner.is_reached.store(true, Ordering::Relaxed);
    }

    async fn settle(&self) {
        self.inner.operations.jobs.until_idle().await;
    }

    async fn stop(&self) {
        self.inner.stop.send_replace(true);
        self.settle().await;
    }
}

impl Inner {
    async fn answer(&self, call: &Call) -> Answer {
        if let (Some(faults), "POST", "/faults") =
            (&self.faults, call.method.as_str(), call.path.as_str())
        {
            let added = faults.add(&call.body);
            return added.map(|()| json!({})).map_err(|why| Refusal::invalid("fault", &why));
        }
        if call.path == "/computeMetadata/v1/instance/service-accounts/default/token" {
            let expires_in = TOKEN_TIME.as_secs();
            return Ok(
                json!({"access_token": "loopback", "expires_in": expires_in, "token_type": "Bearer"}),
            );
        }
        let mut request = Request::read(call)?;
        self.recovered
            .get_or_init(|| async {
                self.stock.recover().await;
                let _gate = self.gate.lock().await;
                self.forget_gone().await;
            })
            .await;
        let of_page = self.fault(&request, Fault::is_of_page);
        if of_page == Some(Fault::PageLoop) {
            // The page after each is the first, for ever.
            request.query.retain(|(field, _)| field != "pageToken");
        }
        if of_page.is_some() {
            request.query.push(("pageSize".to_owned(), "1".to_owned()));
        }
        let of_state = self.fault(&request, Fault::is_of_state);
        let is_of_request =
            |fault: Fault| !fault.is_of_page() && !fault.is_of_capture() && !fault.is_of_state();
        let id = request.id.clone().unwrap_or_default();
        let mut answer = match self.fault(&request, is_of_request) {
            None => self.dispatch(&request, call).await?,
            Some(Fault::SlowOperation) => {
                let operation = self.operations.find(&id)?;
                Operation { ended: None, ..operation }.json()
            }
            Some(Fault::EarlyError) => self.operations.find(&id)?.failing(),
            Some(fault) => {
                if fault == Fault::ReplyLost {
                    self.dispatch(&request, call).await?;
                }
                return Err(fault.refusal());
            }
        };
        if of_page == Some(Fault::PageLoop) {
            answer["nextPageToken"] = json!("bG9vcA");
        }
        if of_state.is_some() {
            let passing = match answer["status"].as_str() {
                Some("STOPPED") => "STOPPING",
                Some("RUNNING") => "STARTING",
                _ => "CREATING",
            };
            answer["status"] = json!(passing);
        }
        Ok(answer)
    }

    async fn dispatch(&self, request: &Request, call: &Call) -> Answer {
        match (request.service, request.collection.as_str()) {
            ("compute", "instances") => self.answer_instances(request).await,
            ("compute", "disks") => self.answer_disks(request).await,
            ("compute", "zones") => self.answer_zones(request).await,
            ("compute", collection) if kind_of(collection).is_some() => {
                self.answer_images(request, kind_of(collection).unwrap_or_default()).await
            }
            ("", "operations") => self.operations.answer(request),
            ("", "endpoints") => endpoints(request, call.header("host")),
            ("iam", "tokens") if request.method == "POST" => self.token(request),
            ("resource-manager", "clouds" | "folders") => self.folders.answer(request),
            _ => Err(request.not_done()),
        }
    }

    /// A token that nobody looks at.
    fn token(&self, request: &Request) -> Answer {
        let named = ["yandexPassportOauthToken", "jwt"].map(|field| request.text(field));
        let [oauth, jwt] = named;
        if oauth?.is_none() && jwt?.is_none() {
            return Err(Refusal::invalid("identity", "exactly one field must be set"));
        }
        let now = self.clock.now();
        let expires = now.saturating_add(TOKEN_TIME).unwrap_or(now);
        Ok(json!({"iamToken": "t1.loopback", "expiresAt": expires.to_string()}))
    }

    /// What goes wrong on purpose with a request.
    fn fault(&self, request: &Request, can_be: impl Fn(Fault) -> bool) -> Option<Fault> {
        let is_due = |fault: Fault| fault.is_for(request) && can_be(fault);
        self.faults.as_ref()?.take(&request.method, &request.collection, is_due)
    }

    /// Runs what outlives the request that began it.
    fn spawn<F: Future<Output = ()> + Send + 'static>(
        &self,
        work: impl FnOnce(Arc<Self>) -> F + Send + 'static,
    ) {
        if let Some(own) = self.own.upgrade() {
            tokio::spawn(work(own));
        }
    }

    /// Ends an operation.
    fn end(&self, operation: &Operation, came: Result<Value, Refusal>) {
        self.operations.end(&operation.name(), came, self.clock.now());
    }

    /// All that the engine holds; an error where not all images can be seen.
    async fn seen(&self) -> Result<EngineInventory, Refusal> {
        let mut seen = self.engine.observe().await;
        if let Some(gap) = seen.gaps.iter().find(|gap| gap.scope == GapScope::Images) {
            return Err(Refusal::unseen(format!("{}: {}", gap.place, gap.message)));
        }
        self.add_pending(&mut seen.images);
        Ok(seen)
    }
}

/// Every service is where the client has found this one.
fn endpoints(request: &Request, host: &str) -> Answer {
    let shown = |id: &str| json!({"id": id, "address": host});
    match request.parts() {
        ("GET", None, None) => {
            Ok(json!({"endpoints": SERVICES.iter().map(|id| shown(id)).collect::<Vec<_>>()}))
        }
        ("GET", Some(id), None) if SERVICES.contains(&id) => Ok(shown(id)),
        ("GET", Some(id), None) => Err(Refusal::not_found("Endpoint", id)),
        _ => Err(request.not_done()),
    }
}
