//! New images and snapshots: what was asked for, captured by the engine while the client looks on.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Inner;
use super::answer::{Answer, Good, Refusal};
use super::fault::Fault;
use super::image::{Kept, Of, Status, description, required};
use super::request::Request;
use super::site::{self, Machine, time};
use crate::engine::local::{LocalEngine, Origin};
use crate::engine::{CreateRequest, Engine, EngineError, Progress, Watcher};
use crate::inventory::{Consistency, ImageKind, ImageState, Via};
use crate::name::{Key, PolicyName, Slot, SourceId};
use crate::plan::{Create, ImageRef};

/// So much is left of a description that is altered on purpose.
const OTHER_LENGTH: usize = 40;
/// What stands for a policy in the identity that the engine asks for. Nobody sees it.
const POLICY: &str = "serve";

/// Stops a capture where the server stops.
struct Watch(Arc<Inner>);

impl Watcher for Watch {
    fn progress(&self, _: Progress) {}

    fn is_cancelled(&self) -> bool {
        *self.0.stop.borrow()
    }
}

/// What is captured.
pub(super) struct Capture {
    source: SourceId,
    disks: Vec<String>,
    left: Vec<String>,
}

impl Capture {
    fn of(machine: &Machine, device: &str) -> Self {
        let all = machine.described.seen.disks.iter().map(|disk| disk.name.clone());
        let (disks, left) = all.partition(|name| name == device);
        Self { source: machine.described.seen.id.clone(), disks, left }
    }
}

/// Only machines that run or are stopped can be imaged.
fn ready(machine: &Machine) -> Result<(), Refusal> {
    match machine.status() {
        "Ready" | "NotReady" => Ok(()),
        _ => Err(Refusal::bad("Only Ready, NotReady site can be saved")),
    }
}

impl Inner {
    /// Begins an image of a server.
    pub(super) async fn save(&self, request: &Request, server: &str) -> Answer {
        let body = request.body()?;
        let _gate = self.gate.lock().await;
        let world = self.world().await?;
        let machine = site::find(&world, "server", server, |machine| machine.server)?;
        let name = required(&body, "name")?;
        let (os, os_version) = (required(&body, "os")?, required(&body, "os_version")?);
        let desc = description(&body)?;
        ready(machine)?;
        let device = machine.boot().ok_or_else(|| Refusal::bad("the server has no system disk"))?;
        let kept = Kept {
            number: self.next_number()?,
            snapshot: None,
            name,
            desc,
            os,
            os_version,
            server: machine.server,
            hostname: machine.name().to_owned(),
            created: self.clock.now(),
            status: Status::Queued,
            reason: String::new(),
            bytes: bytes_of(machine, &device),
        };
        let shown = json!({
            "id": kept.number,
            "name": kept.name,
            "platform": request.platform,
            "is_public": false,
            "create_time": time(kept.created),
            "disk_format": "raw",
            "project": super::PROJECT,
        });
        self.begin(request, kept, machine, &device)?;
        Ok(Good { status: 201, body: Some(shown) })
    }

    /// Begins a snapshot of a volume.
    pub(super) async fn snapshot(&self, request: &Request) -> Answer {
        let body = request.body()?;
        let _gate = self.gate.lock().await;
        let world = self.world().await?;
        let name = required(&body, "name")?;
        let Some(volume) = body.get("volume").and_then(Value::as_u64) else {
            return Err(Refusal::field("volume", "This field is required."));
        };
        let mut volumes = world.iter().flat_map(Machine::volumes);
        let volume = volumes.find(|one| one.number == volume).ok_or_else(|| {
            Refusal::field("volume", format!("Invalid pk \"{volume}\" - object does not exist."))
        })?;
        if volume.is_boot {
            return Err(Refusal::bad("a system disk has no snapshots"));
        }
        let machine = volume.machine;
        let kept = Kept {
            number: self.next_number()?,
            snapshot: Some(Of { volume: volume.number, name: volume.name() }),
            name,
            desc: description(&body)?,
            os: String::new(),
            os_version: String::new(),
            server: machine.server,
            hostname: machine.name().to_owned(),
            created: self.clock.now(),
            status: Status::Queued,
            reason: String::new(),
            bytes: bytes_of(machine, volume.device),
        };
        let project = (super::PROJECT, self.project.as_str());
        let shown = kept.json(project, &request.platform, false);
        self.begin(request, kept, machine, volume.device)?;
        Ok(Good::of(shown))
    }

    /// Begins a job, or what was asked for to become of one.
    fn begin(
        &self,
        request: &Request,
        mut kept: Kept,
        machine: &Machine,
        device: &str,
    ) -> Result<(), Refusal> {
        let fault = self.fault(request, Fault::is_of_job);
        match fault {
            Some(Fault::OtherName) => kept.name.push_str("-1"),
            Some(Fault::OtherDescription) => {
                kept.desc = kept.desc.chars().take(OTHER_LENGTH).collect();
            }
            Some(Fault::Hung) => kept.status = Status::Saving,
            _ => {}
        }
        self.shelf.put(&kept.number.to_string(), kept.clone())?;
        match fault {
            Some(Fault::Stuck) => {
                let capture = Capture::of(machine, device);
                self.stuck().insert(kept.number, capture);
                return Ok(());
            }
            Some(Fault::Hung) => return Ok(()),
            Some(Fault::FailedJob) => {
                let reason = "No valid host was found.".to_owned();
                let failed = Kept { status: Status::Error, reason, ..kept };
                return Ok(self.shelf.put(&failed.number.to_string(), failed)?);
            }
            Some(Fault::Vanishing) => {
                return Ok(self.shelf.remove(&kept.number.to_string())?);
            }
            Some(Fault::Duplicate) => {
                let again = Kept { number: self.next_number()?, ..kept.clone() };
                self.shelf.put(&again.number.to_string(), again.clone())?;
                self.run(again, Capture::of(machine, device));
            }
            _ => {}
        }
        self.run(kept, Capture::of(machine, device));
        Ok(())
    }

    fn stuck(&self) -> MutexGuard<'_, BTreeMap<u64, Capture>> {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins with all that was stuck and is still there.
    pub(super) fn revive(&self) {
        for (number, capture) in std::mem::take(&mut *self.stuck()) {
            let kept = self.shelf.get(&number.to_string());
            if let Some(kept) = kept.filter(|kept| kept.status == Status::Queued) {
                self.run(kept, capture);
            }
        }
    }

    fn run(&self, mut kept: Kept, capture: Capture) {
        self.spawn(move |inner| async move {
            kept.status = Status::Saving;
            if inner.advance(&kept, "").await {
                let came = inner.capture(&kept, capture).await;
                let (status, reason) = match came {
                    Ok(()) => (Status::Active, String::new()),
                    Err(error) => (Status::Error, error.to_string()),
                };
                kept.status = status;
                if inner.advance(&kept, &reason).await {
                    return;
                }
            }
            // It was deleted meanwhile.
            inner.delete(&kept).await;
        });
    }

    /// Writes down how far something is; not where it is to be deleted.
    async fn advance(&self, kept: &Kept, reason: &str) -> bool {
        let _gate = self.gate.lock().await;
        let id = kept.number.to_string();
        let Some(now) = self.shelf.get(&id).filter(|now| now.status != Status::Deleting) else {
            return false;
        };
        // Its description may have been changed since.
        let next = Kept { status: kept.status, reason: reason.to_owned(), ..now };
        if let Err(error) = self.shelf.put(&id, next) {
            tracing::error!("{error}");
        }
        true
    }

    /// Captures. What fails leaves nothing behind in the engine.
    async fn capture(self: &Arc<Self>, kept: &Kept, capture: Capture) -> Result<(), EngineError> {
        let stopped = |_| EngineError::Interrupted;
        let _permit = self.captures.acquire().await.map_err(stopped)?;
        let bad = |error: crate::name::NameError| EngineError::Failed(error.to_string());
        let policy = PolicyName::parse(POLICY).map_err(bad)?;
        let now = self.clock.now();
        let key = Key { policy, source: capture.source, slot: Slot::at(now) };
        let create = Create {
            kind: match kept.snapshot {
                Some(_) => ImageKind::Snapshot,
                None => ImageKind::DiskImage,
            },
            consistency: Consistency::Crash,
            kms_key: None,
            disks: capture.disks,
            disk_by_disk: false,
            one_instant: Vec::new(),
            companion: None,
            excluded_disks: capture.left,
            disk_bytes: 0,
            labels: BTreeMap::new(),
            description: String::new(),
            deadline: Timestamp::MAX,
            replaces: None,
            problems: Vec::new(),
            family: None,
            sharing: None,
            tier: None,
            via: Via::Disk,
        };
        let location = self.location.clone();
        let request = CreateRequest { key, name: kept.engine_name(), location, create, by: None };
        let watch = Arc::new(Watch(Arc::clone(self)));
        let id = LocalEngine::new_id()?;
        let made = self.engine.create_of(request, id, Origin::Instance, watch).await;
        if made.is_err() {
            let seen = self.engine.observe().await;
            let is_it = |image: &&crate::inventory::Image| {
                image.name == kept.engine_name() && image.state == ImageState::Failed
            };
            if let Some(image) = seen.images.iter().find(is_it)
                && let Err(error) = self.engine.delete(&ImageRef::of(image)).await
            {
                tracing::warn!("the failed image {} stays: {error}", image.name);
            }
        }
        made.map(|_| ())
    }
}

fn bytes_of(machine: &Machine, device: &str) -> u64 {
    let disks = &machine.described.seen.disks;
    disks.iter().find(|disk| disk.name == device).and_then(|disk| disk.size_bytes).unwrap_or(0)
}
