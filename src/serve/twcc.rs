//! The VCS API of TWCC over an embedded engine: one project, whose sites are the instances of the
//! instance files, and whose images and snapshots are kept in the engine's repositories.
//!
//! Nothing is answered from what cannot be seen: where the engine reports a gap, so does the server.
//! Images that were not made through this API are not shown: they have no number here.

mod answer;
mod capture;
mod fault;
mod image;
mod request;
mod site;

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Arc, Mutex, Weak};

use async_trait::async_trait;
use axum::http::HeaderMap;
use jiff::fmt::rfc2822::DateTimePrinter;
use serde_json::{Value, json};
use tokio::sync::{OnceCell, Semaphore, watch};

use answer::{Answer, Good, Refusal};
use capture::Capture;
use fault::Fault;
use image::{Kept, Status};
use request::Request;
use site::Machine;

use super::fault::Faults;
use super::shelf::Shelf;
use super::{Call, Reply, ServeError, Service, alone_in};
use crate::clock::Clock;
use crate::engine::Engine;
use crate::engine::local::LocalEngine;
use crate::inventory::ImageState;

/// The number that the project has here.
const PROJECT: u64 = 101;
/// The first number of an image.
const FIRST_NUMBER: u64 = 1_000_001;
/// What the last number that was given out is kept under.
const NUMBER: &str = "last";
/// The solution that all sites are of.
const SOLUTION: u64 = 11;

/// The API over an embedded engine.
#[derive(Clone)]
pub struct Vcs {
    inner: Arc<Inner>,
}

struct Inner {
    engine: LocalEngine,
    clock: Arc<dyn Clock>,
    /// The code of the project.
    project: String,
    /// Where images are stored.
    location: String,
    /// Images and snapshots, by their numbers.
    shelf: Shelf<Kept>,
    /// The last number that was given out: none is used twice.
    numbers: Shelf<u64>,
    /// What a stopped server has left is looked after once, before anything else.
    recovered: OnceCell<()>,
    /// Held while something is changed.
    gate: tokio::sync::Mutex<()>,
    /// What goes wrong on purpose, where that was asked for.
    faults: Option<Faults<Fault>>,
    /// What stays QUEUED on purpose.
    stuck: Mutex<BTreeMap<u64, Capture>>,
    /// As many captures run at once.
    captures: Semaphore,
    /// How many jobs run.
    under_way: watch::Sender<usize>,
    /// What runs outlives the request that began it.
    own: Weak<Inner>,
    /// Is told when the server stops.
    stop: watch::Sender<bool>,
    /// Held as long as the server runs: what it remembers has one writer.
    _alone: File,
}

impl Vcs {
    /// Takes up what an earlier server over the same engine has left. With `faults`, clients may
    /// ask for faults.
    pub fn open(
        engine: LocalEngine,
        project: &str,
        clock: Arc<dyn Clock>,
        faults: bool,
    ) -> Result<Self, ServeError> {
        let directory = engine.directory().join("serve").join("twcc");
        let alone = alone_in(&directory)?;
        let shelf = Shelf::open(&directory.join("images")).map_err(ServeError::State)?;
        let numbers = Shelf::open(&directory.join("numbers")).map_err(ServeError::State)?;
        let captures = Semaphore::new(engine.captures().max(1));
        let location = engine.locations().into_iter().next().unwrap_or_default();
        let inner = Arc::new_cyclic(|own| Inner {
            engine,
            clock,
            project: project.to_owned(),
            location,
            shelf,
            numbers,
            recovered: OnceCell::new(),
            gate: tokio::sync::Mutex::default(),
            faults: faults.then(Faults::default),
            stuck: Mutex::default(),
            captures,
            under_way: watch::channel(0).0,
            own: Weak::clone(own),
            stop: watch::channel(false).0,
            _alone: alone,
        });
        Ok(Self { inner })
    }
}

#[async_trait]
impl Service for Vcs {
    async fn answer(&self, call: Call) -> Reply {
        let mut reply = answer::reply(self.inner.answer(&call).await);
        // The time of the images is that of this clock: clients compare the two.
        let now = DateTimePrinter::new().timestamp_to_rfc9110_string(&self.inner.clock.now());
        reply.headers.extend(now.ok().map(|now| ("date", now)));
        reply
    }

    fn unauthenticated(&self, _: &Call) -> Reply {
        answer::reply(Err(Refusal::unauthorized()))
    }

    /// Clients send the key, which is what stands for a token here.
    fn token_of<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        headers.get("x-api-key")?.to_str().ok()
    }

    async fn settle(&self) {
        let mut under_way = self.inner.under_way.subscribe();
        // The sender is there as long as the server is.
        let _ = under_way.wait_for(|jobs| *jobs == 0).await;
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
            faults.add(&call.body).map_err(Refusal::bad)?;
            return Ok(Good { status: 204, body: None });
        }
        let request = Request::read(call)?;
        self.recovered.get_or_try_init(|| self.recover()).await?;
        let fault = self.fault(&request, |fault| fault.is_of_request(request.is_list()));
        match fault {
            None => self.dispatch(&request).await,
            Some(Fault::Revival) => {
                self.revive();
                self.dispatch(&request).await
            }
            Some(Fault::OddWord) => {
                let mut good = self.dispatch(&request).await?;
                good.body.iter_mut().for_each(Fault::odd);
                Ok(good)
            }
            Some(fault) if fault.is_of_list() => {
                let mut good = self.dispatch(&request).await?;
                if let Some(Value::Array(entries)) = &mut good.body {
                    fault.edit(entries);
                }
                Ok(good)
            }
            Some(fault) => {
                if fault == Fault::ReplyLost {
                    self.dispatch(&request).await?;
                }
                Err(fault.refusal(&request.path))
            }
        }
    }

    async fn dispatch(&self, request: &Request) -> Answer {
        let is_other = |number: &str| number != PROJECT.to_string();
        if request.query("project").is_some_and(is_other) {
            return Err(Refusal::forbidden("the project is not one of the key"));
        }
        let is_common = request.platform.is_empty();
        match (request.collection.as_str(), request.method.as_str()) {
            ("images", _) if !is_common => self.answer_images(request, false).await,
            ("snapshots", _) if !is_common => self.answer_images(request, true).await,
            ("sites" | "servers" | "volumes", "GET") if !is_common => {
                self.answer_world(request).await
            }
            ("projects", "GET") if !is_common => self.answer_projects(request),
            ("project_quotas", "GET") if !is_common => Ok(Good::of(json!([{
                "project": self.project_json(&request.platform),
                "cpu": -1, "gpu": -1, "memory": -1,
            }]))),
            ("solutions", "GET") if is_common => Ok(Good::of(json!([solution()]))),
            _ => Err(Refusal::login(&request.path)),
        }
    }

    /// Sites, servers and volumes.
    async fn answer_world(&self, request: &Request) -> Answer {
        let world = self.world().await?;
        let platform = request.platform.as_str();
        let is_asked = |name: &str, number: u64| {
            request.query(name).is_none_or(|asked| asked == number.to_string())
        };
        let shown: Value = match (request.collection.as_str(), &request.id, &request.verb) {
            (_, _, Some(_)) => return Err(Refusal::login(&request.path)),
            ("sites", None, _) => {
                world.iter().map(|machine| machine.site_json(PROJECT, platform, false)).collect()
            }
            ("sites", Some(id), _) => site::find(&world, "site", id, |machine| machine.site)?
                .site_json(PROJECT, platform, true),
            ("servers", None, _) => world
                .iter()
                .filter(|machine| is_asked("site", machine.site))
                .map(|machine| machine.server_json(platform))
                .collect(),
            ("servers", Some(id), _) => {
                site::find(&world, "server", id, |machine| machine.server)?.server_json(platform)
            }
            (_, id, _) => {
                let project = (PROJECT, self.project.as_str());
                let volumes = world.iter().flat_map(Machine::volumes);
                let mut volumes = volumes.filter(|volume| {
                    is_asked("attached_host", volume.machine.server)
                        && request.query("name").is_none_or(|name| volume.name() == name)
                });
                match id {
                    None => volumes.map(|volume| volume.json(project, platform)).collect(),
                    Some(id) => volumes
                        .find(|volume| volume.number.to_string() == *id)
                        .ok_or_else(|| Refusal::not_found(&format!("volume {id}")))?
                        .json(project, platform),
                }
            }
        };
        Ok(Good::of(shown))
    }

    fn answer_projects(&self, request: &Request) -> Answer {
        let own = self.project_json(&request.platform);
        match (request.id.as_deref(), request.verb.as_deref(), request.below.as_deref()) {
            (None, ..) => {
                let is_it = request.query("name").is_none_or(|name| name == self.project);
                Ok(Good::of(if is_it { json!([own]) } else { json!([]) }))
            }
            (Some(_), Some("solutions"), Some(_)) => Ok(Good::of(solution())),
            _ => Err(Refusal::login(&request.path)),
        }
    }

    fn project_json(&self, platform: &str) -> Value {
        json!({
            "id": PROJECT,
            "name": self.project,
            "platform": platform,
            "matchLabels": [],
            "transparent_mode": false,
        })
    }

    /// All instances; an error where not all can be seen.
    async fn world(&self) -> Result<Vec<Machine>, Refusal> {
        let (described, gaps) = self.engine.described().await?;
        if let Some(gap) = gaps.first() {
            return Err(Refusal::unseen(format!("{}: {}", gap.place, gap.message)));
        }
        Ok(described.into_iter().map(Machine::new).collect())
    }

    /// What goes wrong on purpose with a request.
    fn fault(&self, request: &Request, can_be: impl Fn(Fault) -> bool) -> Option<Fault> {
        self.faults.as_ref()?.take(&request.method, &request.collection, can_be)
    }

    /// A number that was never given out before.
    fn next_number(&self) -> Result<u64, Refusal> {
        let number = self.numbers.get(NUMBER).map_or(FIRST_NUMBER, |last| last + 1);
        self.numbers.put(NUMBER, number)?;
        Ok(number)
    }

    /// Runs what outlives the request that began it.
    fn spawn<F: Future<Output = ()> + Send + 'static>(
        &self,
        work: impl FnOnce(Arc<Self>) -> F + Send + 'static,
    ) {
        let Some(own) = self.own.upgrade() else { return };
        own.under_way.send_modify(|jobs| *jobs += 1);
        tokio::spawn(async move {
            work(Arc::clone(&own)).await;
            own.give_back().await;
            own.under_way.send_modify(|jobs| *jobs -= 1);
        });
    }

    /// Gives back the space of what was deleted, once nothing else is under way.
    async fn give_back(&self) {
        if *self.under_way.borrow() > 1 || *self.stop.borrow() {
            return;
        }
        match self.engine.settle().await {
            Ok(settled) => settled.postponed.iter().for_each(|why| tracing::info!("{why}")),
            Err(error) => tracing::warn!("no space is given back: {error}"),
        }
    }

    /// What a stopped server was at comes to its end: what the engine has is there, what it has not
    /// could not be made, and what was to go goes. Where that cannot be seen, nothing is answered.
    async fn recover(&self) -> Result<(), Refusal> {
        let stored = self.stored().await?;
        for mut kept in self.shelf.all() {
            let image = stored.iter().find(|image| image.name == kept.engine_name());
            let is_stored = image.is_some_and(|image| image.state == ImageState::Ready);
            let status = match kept.status {
                Status::Deleting => {
                    self.delete(&kept).await;
                    continue;
                }
                Status::Saving | Status::Queued if is_stored => Status::Active,
                Status::Saving => Status::Error,
                // Somebody has deleted it.
                Status::Active if image.is_none() => {
                    if let Err(error) = self.shelf.remove(&kept.number.to_string()) {
                        tracing::warn!("{error}");
                    }
                    continue;
                }
                // What nobody has begun with is still in the queue, as it would be there.
                Status::Queued | Status::Error | Status::Active => continue,
            };
            if status == Status::Error {
                "the server was stopped before this had ended".clone_into(&mut kept.reason);
            }
            kept.status = status;
            if let Err(error) = self.shelf.put(&kept.number.to_string(), kept) {
                tracing::warn!("{error}");
            }
        }
        Ok(())
    }
}

/// What sites are made of.
fn solution() -> Value {
    json!({
        "id": SOLUTION,
        "name": "Ubuntu",
        "category": "os",
        "is_public": true,
        "create_time": "2020-01-01T00:00:00Z",
        "desc": "Ubuntu",
        "site_extra_prop": {
            "flavor": ["v.super"],
            "image": ["(public)Ubuntu 22.04"],
            "keypair": [],
            "private-network": ["default_network"],
            "floating-ip": ["nofloating"],
            "system-volume-type": ["local_disk"],
        },
    })
}
