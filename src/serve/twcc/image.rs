//! Images of servers and snapshots of volumes. What the API shows of one is a file beside the
//! repositories; the engine has the bytes, under a name made of the number here, because names of
//! this API are not unique.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Inner;
use super::answer::{Answer, Good, Refusal};
use super::fault::Fault;
use super::request::Request;
use super::site::{time, user};
use crate::engine::Engine;
use crate::inventory::{GapScope, Image, ImageState};
use crate::plan::ImageRef;

/// The most characters of a description.
const DESCRIPTION_LENGTH_MAX: usize = 200;

/// How far something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// It was asked for.
    Queued,
    /// It is being made.
    Saving,
    /// It is there.
    Active,
    /// It could not be made.
    Error,
    /// It is being deleted.
    Deleting,
}

/// What a snapshot is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Of {
    /// The number of the volume.
    pub volume: u64,
    /// Its name.
    pub name: String,
}

/// An image or a snapshot, as the API knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its number.
    pub number: u64,
    /// What it is a snapshot of; an image of a server is of none.
    pub snapshot: Option<Of>,
    /// Its name.
    pub name: String,
    /// Its description.
    pub desc: String,
    /// What runs on its machine.
    pub os: String,
    /// Which version of that.
    pub os_version: String,
    /// The number of the server.
    pub server: u64,
    /// The name of the server.
    pub hostname: String,
    /// When it was asked for.
    pub created: Timestamp,
    /// How far it is.
    pub status: Status,
    /// What there is to say of that.
    pub reason: String,
    /// Bytes of its disk.
    pub bytes: u64,
}

impl Kept {
    /// What the engine calls it.
    pub fn engine_name(&self) -> String {
        format!("vcs-{}", self.number)
    }

    fn word(&self) -> &'static str {
        match (self.status, &self.snapshot) {
            (Status::Queued, None) => "QUEUED",
            (Status::Saving, None) => "SAVING",
            (Status::Active, None) => "ACTIVE",
            (Status::Queued | Status::Saving, Some(_)) => "CREATING",
            (Status::Active, Some(_)) => "AVAILABLE",
            (Status::Error, _) => "ERROR",
            (Status::Deleting, _) => "DELETING",
        }
    }

    /// As lists have it, and with `detail` as it is by itself.
    pub fn json(&self, project: (u64, &str), platform: &str, detail: bool) -> Value {
        let mut shown = json!({
            "id": self.number,
            "name": self.name,
            "desc": self.desc,
            "platform": platform,
            "status": self.word(),
            "create_time": time(self.created),
            "user": user(),
        });
        let mut set = |field: &str, value: Value| shown[field] = value;
        if let Some(of) = &self.snapshot {
            set("volume", json!({"id": of.volume.to_string(), "name": of.name}));
            set("is_bootable", json!(false));
            set("project", json!({"id": project.0, "name": project.1}));
            return shown;
        }
        set("is_public", json!(false));
        set("size", json!(if self.status == Status::Active { self.bytes } else { 0 }));
        set("server", json!({"id": self.server, "hostname": self.hostname}));
        set("project", json!({"id": project.0, "name": project.1}));
        if detail {
            set("ref_img_id", json!(format!("00000000-0000-4000-8000-{:012}", self.number)));
            set("base_image", Value::Null);
            set("is_enabled", json!(true));
            set("is_deleted", json!(false));
            set("delete_time", Value::Null);
            set("os", json!(self.os));
            set("os_version", json!(self.os_version));
            set("license_type", json!(""));
            set("status_reason", json!(self.reason));
        }
        shown
    }

    fn is_asked_for(&self, request: &Request) -> bool {
        let is = |name: &str, value: &str| request.query(name).is_none_or(|asked| asked == value);
        let at = |name: &str, fits: fn(Timestamp, Timestamp) -> bool| {
            let asked = request.query(name).and_then(|text| text.parse::<Timestamp>().ok());
            asked.is_none_or(|asked| fits(self.created, asked))
        };
        is("name", &self.name)
            && is("desc", &self.desc)
            && is("status", self.word())
            && (self.snapshot.is_some() || is("os", &self.os))
            && (self.snapshot.is_some() || is("os_version", &self.os_version))
            && is("user__username", "stillframe")
            && at("create_time_start", |created, asked| created >= asked)
            && at("create_time_end", |created, asked| created <= asked)
    }
}

/// What a description may be.
pub fn description(body: &Value) -> Result<String, Refusal> {
    let text = match body.get("desc") {
        None | Some(Value::Null) => "",
        Some(Value::String(text)) => text,
        Some(_) => return Err(Refusal::field("desc", "Not a valid string.")),
    };
    if text.chars().count() > DESCRIPTION_LENGTH_MAX {
        let why =
            format!("Ensure this field has no more than {DESCRIPTION_LENGTH_MAX} characters.");
        return Err(Refusal::field("desc", why));
    }
    Ok(text.to_owned())
}

/// A field that must be there.
pub fn required(body: &Value, field: &'static str) -> Result<String, Refusal> {
    match body.get(field) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        Some(Value::String(_)) => Err(Refusal::field(field, "This field may not be blank.")),
        _ => Err(Refusal::field(field, "This field is required.")),
    }
}

impl Inner {
    /// Answers a request for images or snapshots.
    pub(super) async fn answer_images(&self, request: &Request, snapshots: bool) -> Answer {
        let project = (super::PROJECT, self.project.as_str());
        match (request.method.as_str(), request.id.as_deref(), request.verb.as_deref()) {
            ("GET", None, None) => {
                let all = self.images(snapshots).await?;
                let shown = all.iter().filter(|kept| kept.is_asked_for(request));
                let shown = shown.map(|kept| kept.json(project, &request.platform, false));
                Ok(Good::of(Value::Array(shown.collect())))
            }
            ("GET", Some(id), None) => {
                Ok(Good::of(self.one(snapshots, id).await?.json(project, &request.platform, true)))
            }
            ("PUT", Some(server), Some("save")) if !snapshots => self.save(request, server).await,
            ("POST", None, None) if snapshots => self.snapshot(request).await,
            ("PATCH", Some(id), None) if !snapshots => {
                let _gate = self.gate.lock().await;
                let mut kept = self.one(snapshots, id).await?;
                let body = request.body()?;
                // What is not said stays as it is.
                if body.get("desc").is_some() {
                    kept.desc = description(&body)?;
                }
                self.shelf.put(&kept.number.to_string(), kept.clone())?;
                Ok(Good::of(kept.json(project, &request.platform, false)))
            }
            ("DELETE", Some(id), None) => {
                let _gate = self.gate.lock().await;
                let kept = self.one(snapshots, id).await?;
                match self.fault(request, Fault::is_of_delete) {
                    None => self.begin_delete(kept)?,
                    Some(fault) => self.never_delete(kept, fault)?,
                }
                Ok(Good { status: 204, body: None })
            }
            _ => Err(Refusal::login(&request.path)),
        }
    }

    async fn one(&self, snapshots: bool, id: &str) -> Result<Kept, Refusal> {
        let all = self.images(snapshots).await?;
        let what = if snapshots { "snapshot" } else { "image" };
        let found = all.into_iter().find(|kept| kept.number.to_string() == id);
        found.ok_or_else(|| Refusal::not_found(&format!("{what} {id}")))
    }

    /// All images or snapshots that are there, the oldest first. Those that were deleted behind the
    /// server's back are not.
    pub(super) async fn images(&self, snapshots: bool) -> Result<Vec<Kept>, Refusal> {
        let stored = self.stored().await?;
        let is_there = |kept: &Kept| {
            kept.status != Status::Active
                || stored.iter().any(|image| image.name == kept.engine_name())
        };
        let mut all = self.shelf.all();
        all.retain(|kept| kept.snapshot.is_some() == snapshots && is_there(kept));
        all.sort_by_key(|kept| kept.number);
        Ok(all)
    }

    /// All images that the engine has; an error where not all can be seen.
    pub(super) async fn stored(&self) -> Result<Vec<Image>, Refusal> {
        let seen = self.engine.observe().await;
        if let Some(gap) = seen.gaps.iter().find(|gap| gap.scope == GapScope::Images) {
            return Err(Refusal::unseen(format!("{}: {}", gap.place, gap.message)));
        }
        Ok(seen.images)
    }

    /// Begins to delete. What is being made is deleted when that has ended.
    pub(super) fn begin_delete(&self, mut kept: Kept) -> Result<(), Refusal> {
        let is_being_made = matches!(kept.status, Status::Saving | Status::Deleting);
        kept.status = Status::Deleting;
        self.shelf.put(&kept.number.to_string(), kept.clone())?;
        if !is_being_made {
            self.spawn(move |inner| async move { inner.delete(&kept).await });
        }
        Ok(())
    }

    /// What was to be deleted stays, on purpose.
    fn never_delete(&self, mut kept: Kept, fault: Fault) -> Result<(), Refusal> {
        kept.status = Status::Deleting;
        if fault == Fault::FailedDelete {
            kept.status = Status::Error;
            "Image is in use by a volume.".clone_into(&mut kept.reason);
        }
        Ok(self.shelf.put(&kept.number.to_string(), kept.clone())?)
    }

    /// Deletes what the engine has, and forgets the rest.
    pub(super) async fn delete(&self, kept: &Kept) {
        let deleted = async {
            let stored = self.stored().await?;
            let images = stored.iter().filter(|image| image.name == kept.engine_name());
            for image in images.filter(|image| image.state != ImageState::Creating) {
                self.engine.delete(&ImageRef::of(image)).await?;
            }
            self.shelf.remove(&kept.number.to_string())?;
            Ok::<_, Refusal>(())
        };
        if let Err(refusal) = deleted.await {
            tracing::warn!("the image {} stays: {:?}", kept.number, refusal.said);
            let mut kept = kept.clone();
            kept.status = Status::Error;
            "it could not be deleted".clone_into(&mut kept.reason);
            if let Err(error) = self.shelf.put(&kept.number.to_string(), kept) {
                tracing::error!("{error}");
            }
        }
    }
}
