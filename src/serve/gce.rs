//! The Compute Engine API over an embedded engine: one project, whose instances are those of the
//! instance files and whose images are those of the engine's repositories.
//!
//! Every change is validated while the request waits, then runs under an operation. Nothing is
//! answered from what cannot be seen: where the engine reports a gap, so does the server.

mod answer;
mod batch;
mod capture;
mod described;
mod disk;
mod family;
mod fault;
mod fields;
mod filter;
mod iam;
mod image;
mod instance;
mod label;
mod link;
mod machine;
mod object;
mod operation;
mod order;
mod origin;
mod overrides;
mod page;
mod patch;
mod place;
mod request;
mod restore;
mod shape;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use async_trait::async_trait;
use jiff::fmt::rfc2822::DateTimePrinter;
use serde_json::{Map, Value, json};
use tokio::sync::{OnceCell, Semaphore, watch};

use answer::{Answer, Refusal};
use capture::Pending;
use described::ResourceKind;
pub use described::schema as resource_schema;
use fault::Fault;
use fields::Fields;
use image::Kept;
use link::{Links, Scope};
use operation::{Begun, Operations};
use request::Request;

use super::fault::Faults;
use super::shelf::Shelf;
use super::stock::{Stock, StockError};
use super::{Call, Reply, ServeError, Service, alone_in};
use crate::clock::Clock;
use crate::engine::Engine;
use crate::engine::local::LocalEngine;
use crate::inventory::{EngineInventory, GapScope, ImageKind};

/// The API over an embedded engine.
#[derive(Clone)]
pub struct ComputeEngine {
    inner: Arc<Inner>,
}

struct Inner {
    engine: LocalEngine,
    clock: Arc<dyn Clock>,
    links: Links,
    operations: Operations,
    /// What is remembered of images, by their ids.
    shelf: Shelf<Kept>,
    /// What will be remembered of images that are being made, by their names.
    pending: Mutex<BTreeMap<String, Pending>>,
    /// What images record that were not made here, by their ids.
    records: Mutex<BTreeMap<String, Map<String, Value>>>,
    stock: Stock,
    /// The links of instances and disks that are being made.
    reserved: Mutex<BTreeSet<String>>,
    /// What a stopped server has left is looked after once, before anything else.
    recovered: OnceCell<()>,
    /// Held while a change is validated and begun, so that two do not take each other's place.
    gate: tokio::sync::Mutex<()>,
    /// What goes wrong on purpose, where that was asked for.
    faults: Option<Faults<Fault>>,
    /// As many captures run at once.
    captures: Semaphore,
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
            StockError::NotOurs(message) => Self { status: 403, reason: "forbidden", message },
            StockError::Engine(error) => error.into(),
            StockError::Shelf(error) => error.into(),
        }
    }
}

impl ComputeEngine {
    /// Takes up what an earlier server over the same engine has left. With `faults`, clients may
    /// ask for faults.
    pub fn open(
        engine: LocalEngine,
        project: &str,
        clock: Arc<dyn Clock>,
        faults: bool,
    ) -> Result<Self, ServeError> {
        let directory = engine.directory().join("serve").join("gce");
        let alone = alone_in(&engine.directory().join("serve"))?;
        let operations = Operations::open(&directory.join("operations"), clock.now())
            .map_err(ServeError::State)?;
        let shelf = Shelf::open(&directory.join("images")).map_err(ServeError::State)?;
        let stock = Stock::open(&engine, &directory).map_err(ServeError::State)?;
        let captures = Semaphore::new(engine.captures().max(1));
        let inner = Arc::new_cyclic(|own| Inner {
            engine,
            clock,
            links: Links { project: project.to_owned() },
            operations,
            shelf,
            pending: Mutex::default(),
            records: Mutex::default(),
            stock,
            reserved: Mutex::default(),
            recovered: OnceCell::new(),
            gate: tokio::sync::Mutex::default(),
            faults: faults.then(Faults::default),
            captures,
            own: Weak::clone(own),
            stop: watch::channel(false).0,
            _alone: alone,
        });
        Ok(Self { inner })
    }
}

#[async_trait]
impl Service for ComputeEngine {
    async fn answer(&self, call: Call) -> Reply {
        let mut reply = if call.method == "POST" && call.path.starts_with("/batch/compute/") {
            self.inner.batch(&call).await
        } else {
            answer::reply(self.inner.answer(&call).await)
        };
        // The time of the images is that of this clock: clients compare the two.
        let now = DateTimePrinter::new().timestamp_to_rfc9110_string(&self.inner.clock.now());
        reply.headers.extend(now.ok().map(|now| ("date", now)));
        reply
    }

    fn unauthenticated(&self, _: &Call) -> Reply {
        answer::reply(Err(Refusal {
            status: 401,
            reason: "authError",
            message: "Invalid Credentials: the server wants its token as a bearer".to_owned(),
        }))
    }

    async fn settle(&self) {
        self.inner.operations.until_idle().await;
    }

    async fn stop(&self) {
        self.inner.stop.send_replace(true);
        self.settle().await;
    }
}

impl Inner {
    async fn answer(&self, call: &Call) -> Answer {
        if (call.method.as_str(), call.path.as_str()) == ("POST", "/token") {
            // Who asks for a token before anything else gets one that nobody looks at.
            return Ok(json!({
                "access_token": "loopback",
                "expires_in": 3600,
                "token_type": "Bearer",
            }));
        }
        if let (Some(faults), "POST", "/faults") =
            (&self.faults, call.method.as_str(), call.path.as_str())
        {
            return faults.add(&call.body).map(|()| Value::Null).map_err(Refusal::bad);
        }
        let mut request = Request::read(call)?;
        if request.project != self.links.project {
            return Err(Refusal {
                status: 404,
                reason: "notFound",
                message: format!(
                    "The resource 'projects/{}' was not found; the project here is '{}'",
                    request.project, self.links.project
                ),
            });
        }
        self.recovered
            .get_or_init(|| async {
                self.stock.recover().await;
                let _gate = self.gate.lock().await;
                self.forget_gone().await;
            })
            .await;
        if self.fault(&request, |fault| fault == Fault::ShortPage).is_some() {
            request.query.push(("maxResults".to_owned(), "1".to_owned()));
        }
        let fault = self.fault(&request, Fault::is_of_request);
        let answer = match fault {
            None => self.dispatch(&request).await?,
            Some(Fault::SlowOperation) => self.operations.still_running(&request, &self.links)?,
            Some(fault) => {
                if fault == Fault::ReplyLost {
                    self.dispatch(&request).await?;
                }
                return Err(fault.refusal());
            }
        };
        match request.query("fields") {
            Some(fields) if request.method == "GET" => Ok(Fields::read(fields)?.of(answer)),
            _ => Ok(answer),
        }
    }

    async fn dispatch(&self, request: &Request) -> Answer {
        let links = &self.links;
        shape::check(request)?;
        self.refuse_nowhere(request).await?;
        match (&request.scope, request.collection.as_str()) {
            (Scope::Project, "") => {
                place::project(request, links, &self.world().await?, &self.seen().await?)
            }
            (Scope::Project, "zones") => place::zones(request, links, &self.world().await?),
            (Scope::Project, "regions") => {
                let others = self.other_regions().await?;
                place::regions(request, links, &self.world().await?, &others)
            }
            (Scope::Zone(_) | Scope::Aggregated, "instances") => {
                self.answer_instances(request).await
            }
            (Scope::Zone(_) | Scope::Aggregated, "disks") => self.answer_disks(request).await,
            (Scope::Zone(_), "imageFamilyViews") => self.family_view(request).await,
            (Scope::Region(_), "snapshots") => {
                self.answer_images(request, ImageKind::Snapshot).await
            }
            (Scope::Global, collection) if image::kind_of(collection).is_some() => {
                let kind = image::kind_of(collection).unwrap_or_default();
                self.answer_images(request, kind).await
            }
            (Scope::Global, "snapshotSettings") => {
                place::snapshot_settings(request, &self.seen().await?)
            }
            // Every disk is a file of a zone.
            (Scope::Region(_), "disks") => place::none(request, links, "disk"),
            (Scope::Global | Scope::Region(_) | Scope::Aggregated, "instanceTemplates") => {
                self.answer_described(request, ResourceKind::InstanceTemplate).await
            }
            (Scope::Region(_) | Scope::Aggregated, "resourcePolicies") => {
                self.answer_described(request, ResourceKind::ResourcePolicy).await
            }
            (_, "operations") => {
                self.operations.answer(request, links, self.stop.subscribe()).await
            }
            _ => Err(request.not_done()),
        }
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
    fn end(&self, id: u64, came: Result<Option<String>, Refusal>) {
        self.operations.end(id, came.map_err(Into::into), self.clock.now());
    }

    /// The operation of a change that is done already.
    fn done_at_once(&self, request: &Request, begun: Begun) -> Answer {
        let operation = self.operations.begin(request, begun, self.clock.now())?;
        self.end(operation.id, Ok(None));
        Ok(operation.json(&self.links))
    }

    /// Keeps names for what is being made.
    fn reserve(&self, links: impl IntoIterator<Item = String>) {
        self.lock_reserved().extend(links);
    }

    /// Gives names free again, now that what was made under them can be seen.
    fn free(&self, links: impl IntoIterator<Item = String>) {
        let mut reserved = self.lock_reserved();
        for link in links {
            reserved.remove(&link);
        }
    }

    fn is_reserved(&self, link: &str) -> bool {
        self.lock_reserved().contains(link)
    }

    fn lock_reserved(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
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
