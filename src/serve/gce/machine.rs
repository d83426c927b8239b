//! New instances out of machine images, their labels, and their end.
//!
//! Restoring writes disks into the engine's own directory and an instance file beside those that
//! people wrote. Nothing is started: the machine is TERMINATED until somebody says that it runs, and to
//! start or stop it changes what its file says. Only what was written here is changed or removed here; the
//! file that a person wrote is that person's.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Inner;
use super::answer::{Answer, Refusal};
use super::instance::{self, find, named};
use super::label::{self, Labels};
use super::link::Scope;
use super::operation::{Begun, Notice};
use super::overrides::{self, Overridden};
use super::request::Request;
use crate::engine::Store;
use crate::engine::local::LocalEngine;
use crate::engine::local::instance::{InstanceDocument, InstanceStatus};
use crate::inventory::{Image, ImageKind};
use crate::name::is_rfc1035_label;
use crate::serve::stock::{Machine, MadeDisk};

/// An instance to be made.
pub struct NewMachine {
    /// Its id.
    pub id: String,
    /// The image that it is made of.
    pub image: Image,
    /// Its description; the disks have no files yet.
    pub document: InstanceDocument,
    /// Its disks, in the same order.
    pub disks: Vec<MadeDisk>,
    /// Fields that never change: what it is made of.
    pub shown: Map<String, Value>,
    /// The names that are taken for it.
    pub links: Vec<String>,
}

impl Inner {
    /// Answers a request for instances.
    pub(super) async fn answer_instances(&self, request: &Request) -> Answer {
        match request.parts() {
            ("POST", None, None) => self.insert_instance(request).await,
            ("DELETE", Some(name), None) => self.delete_instance(request, name).await,
            ("POST", Some(name), Some("setLabels")) => {
                self.set_instance_labels(request, name).await
            }
            ("POST", Some(name), Some("setDiskAutoDelete")) => {
                self.set_auto_delete(request, name).await
            }
            ("POST", Some(name), Some("start")) => {
                self.turn(request, name, "start", InstanceStatus::Running).await
            }
            ("POST", Some(name), Some("stop")) => {
                self.turn(request, name, "stop", InstanceStatus::Terminated).await
            }
            _ => instance::answer(request, &self.links, &self.world().await?),
        }
    }

    async fn insert_instance(&self, request: &Request) -> Answer {
        let _gate = self.gate.lock().await;
        if let Some(operation) = self.operations.replayed(request)? {
            return Ok(operation.json(&self.links));
        }
        let machines = self.world().await?;
        let (new, warnings) = self.read_instance_order(request, &machines).await?;
        let link = self.links.link(&request.scope, "instances", &new.document.metadata.name);
        let begun = Begun {
            warnings,
            ..Begun::new(request.scope.clone(), "insert", link, Some(new.id.clone()))
        };
        let operation = self.operations.begin(request, begun, self.clock.now())?;
        let (id, links) = (operation.id, new.links.clone());
        self.reserve(links.iter().cloned());
        self.spawn(move |inner| async move {
            let came = inner.make_instance(new, id).await;
            inner.free(links);
            inner.end(id, came.map(|()| None));
        });
        Ok(operation.json(&self.links))
    }

    /// What a request for an instance asks for, checked.
    async fn read_instance_order(
        &self,
        request: &Request,
        machines: &[Machine],
    ) -> Result<(NewMachine, Vec<Notice>), Refusal> {
        let name = request.name_of_new()?;
        let zone = self.read_zone(machines, request)?;
        self.refuse_taken_instance(machines, &request.scope, name)?;
        let source = match request.text("sourceMachineImage")? {
            Some(source) => source,
            None => request.query("sourceMachineImage").ok_or_else(|| {
                Refusal::not_done("instances that are not made of a sourceMachineImage")
            })?,
        };
        let seen = self.seen().await?;
        let field = "resource.sourceMachineImage";
        let (image, mut warnings) = self.usable(&seen, ImageKind::MachineImage, field, source)?;
        let record = self.engine.record(&image.id).await?;
        let unreadable = || Refusal::unseen(format!("the record of {} is damaged", image.name));
        let mut document: InstanceDocument =
            serde_json::from_value(record["source_instance"].clone()).map_err(|_| unreadable())?;
        let captured: BTreeMap<&str, u64> = record["disks"]
            .as_array()
            .ok_or_else(unreadable)?
            .iter()
            .filter_map(|disk| Some((disk["deviceName"].as_str()?, disk["sizeBytes"].as_u64()?)))
            .collect();
        document.spec.disks.retain(|disk| captured.contains_key(disk.device_name.as_str()));
        let id = LocalEngine::new_id()?;
        document.metadata.id = Some(id.clone());
        name.clone_into(&mut document.metadata.name);
        document.spec.zone.clone_from(&zone);
        document.spec.status = InstanceStatus::Terminated;
        let Overridden { mut document, notices } =
            overrides::apply(request, &self.links, document, machines)?;
        warnings.extend(notices);
        let now = self.clock.now();
        let made_of = json!(self.link_of(image, &seen));
        let mut disks = Vec::new();
        let mut links = vec![self.links.link(&request.scope, "instances", name)];
        for spec in &mut document.spec.disks {
            let disk = format!("{name}-{}", spec.device_name);
            if !is_rfc1035_label(&disk) {
                let why = format!("Its disk would be called {disk}, which is too long.");
                return Err(Refusal::invalid("resource.name", name, &why));
            }
            self.refuse_taken_disk(machines, &request.scope, &disk)?;
            links.push(self.links.link(&request.scope, "disks", &disk));
            let mut shown = Map::new();
            shown.insert("sourceMachineImage".to_owned(), made_of.clone());
            shown.insert("sourceMachineImageId".to_owned(), json!(image.id));
            disks.push(MadeDisk {
                id: LocalEngine::new_id()?,
                name: disk,
                zone: zone.clone(),
                path: std::path::PathBuf::new(),
                created: now,
                labels: std::mem::take(&mut spec.labels),
                shown,
            });
        }
        let shown = Map::from_iter([("sourceMachineImage".to_owned(), made_of)]);
        Ok((NewMachine { id, image: image.clone(), document, disks, shown, links }, warnings))
    }

    fn refuse_taken_instance(
        &self,
        machines: &[Machine],
        scope: &Scope,
        name: &str,
    ) -> Result<(), Refusal> {
        let is_it = |machine: &&Machine| !machine.is_loose && machine.name() == name;
        match machines.iter().find(is_it) {
            Some(machine) if machine.scope() == *scope => {
                Err(Refusal::exists(&self.links.path(scope, "instances", name)))
            }
            Some(machine) => {
                Err(one_of_any_zone(&self.links.path(&machine.scope(), "instances", name)))
            }
            None => match self.reserved_instance(name) {
                Some(link) if link == self.links.link(scope, "instances", name) => {
                    Err(Refusal::exists(&self.links.path(scope, "instances", name)))
                }
                Some(link) => {
                    let path = link.find("projects/").map_or(&*link, |at| &link[at..]);
                    Err(one_of_any_zone(path))
                }
                None => Ok(()),
            },
        }
    }

    /// The link of an instance of that name that is being made, in whatever zone.
    fn reserved_instance(&self, name: &str) -> Option<String> {
        let end = format!("/instances/{name}");
        self.lock_reserved().iter().find(|link| link.ends_with(&end)).cloned()
    }

    /// The zone that a request is for, if there is one of that name.
    pub(super) fn read_zone(
        &self,
        machines: &[Machine],
        request: &Request,
    ) -> Result<String, Refusal> {
        match &request.scope {
            Scope::Zone(zone) if machines.iter().any(|machine| machine.zone() == zone) => {
                Ok(zone.clone())
            }
            scope => {
                let path = self.links.path(scope, "", "");
                Err(Refusal::not_found(&path))
            }
        }
    }

    async fn delete_instance(&self, request: &Request, name: &str) -> Answer {
        let _gate = self.gate.lock().await;
        if let Some(operation) = self.operations.replayed(request)? {
            return Ok(operation.json(&self.links));
        }
        let machines = self.world().await?;
        let machine = find(&machines, &named(request, name), &self.links)?;
        let link = machine.link(&self.links);
        if self.operations.is_busy(&link) {
            return Err(Refusal::not_ready(format!("The resource '{link}' is not ready")));
        }
        let made = self.stock.made(machine)?;
        let spec = &machine.local.document.spec;
        if spec.deletion_protection.unwrap_or(false) {
            return Err(Refusal::bad(format!(
                "Invalid resource usage: 'Resource cannot be deleted if it's protected against deletion. The resource is {link}.'"
            )));
        }
        let goes =
            |disk: &&crate::serve::stock::MachineDisk<'_>| disk.spec.auto_delete.unwrap_or(false);
        let disks = machine.disks();
        let going: Vec<MadeDisk> =
            disks.iter().filter(goes).filter_map(|disk| disk.made.cloned()).collect();
        let begun = Begun::new(request.scope.clone(), "delete", link, Some(machine.number()));
        let operation = self.operations.begin(request, begun, self.clock.now())?;
        let (id, key) = (operation.id, machine.seen.id.to_string());
        self.spawn(move |inner| async move {
            let came = inner.stock.remove_instance(&key, made, going).await.map_err(Refusal::from);
            inner.end(id, came.map(|()| None));
        });
        Ok(operation.json(&self.links))
    }

    async fn set_instance_labels(&self, request: &Request, name: &str) -> Answer {
        let _gate = self.gate.lock().await;
        if let Some(operation) = self.operations.replayed(request)? {
            return Ok(operation.json(&self.links));
        }
        let machines = self.world().await?;
        let machine = find(&machines, &named(request, name), &self.links)?;
        let labels: Labels = label::replace(request, &machine.seen.labels)?;
        let mut document = machine.local.document.clone();
        document.metadata.labels = labels;
        self.stock.rewrite(machine, document).await?;
        let begun = Begun::new(
            request.scope.clone(),
            "setLabels",
            machine.link(&self.links),
            Some(machine.number()),
        );
        self.done_at_once(request, begun)
    }

    async fn set_auto_delete(&self, request: &Request, name: &str) -> Answer {
        let _gate = self.gate.lock().await;
        if let Some(operation) = self.operations.replayed(request)? {
            return Ok(operation.json(&self.links));
        }
        let device = request.query("deviceName").ok_or_else(|| Refusal::required("deviceName"))?;
        request.query("autoDelete").ok_or_else(|| Refusal::required("autoDelete"))?;
        let machines = self.world().await?;
        let machine = find(&machines, &named(request, name), &self.links)?;
        let mut document = machine.local.document.clone();
        let mut disks = document.spec.disks.iter_mut();
        let disk = disks.find(|disk| disk.device_name == device).ok_or_else(|| {
            Refusal::invalid("deviceName", device, "The instance has no such disk.")
        })?;
        disk.auto_delete = Some(request.is_on("autoDelete"));
        self.stock.rewrite(machine, document).await?;
        let begun = Begun::new(
            request.scope.clone(),
            "setDiskAutoDelete",
            machine.link(&self.links),
            Some(machine.number()),
        );
        self.done_at_once(request, begun)
    }

    /// Says of an instance that it runs, or does not. Whoever asks for what is so already changes nothing, and
    /// is told that it is done.
    async fn turn(
        &self,
        request: &Request,
        name: &str,
        verb: &'static str,
        status: InstanceStatus,
    ) -> Answer {
        let _gate = self.gate.lock().await;
        if let Some(operation) = self.operations.replayed(request)? {
            return Ok(operation.json(&self.links));
        }
        let machines = self.world().await?;
        let machine = find(&machines, &named(request, name), &self.links)?;
        let link = machine.link(&self.links);
        if self.operations.is_busy(&link) {
            return Err(Refusal::not_ready(format!("The resource '{link}' is not ready")));
        }
        let mut document = machine.local.document.clone();
        if document.spec.status != status {
            document.spec.status = status;
            self.stock.rewrite(machine, document).await?;
        }
        let begun = Begun::new(request.scope.clone(), verb, link, Some(machine.number()));
        self.done_at_once(request, begun)
    }

    /// Everything that there is.
    pub(super) async fn world(&self) -> Result<Vec<Machine>, Refusal> {
        Ok(self.stock.world().await?)
    }
}

/// The refusal of a name that an instance of another zone has.
fn one_of_any_zone(other: &str) -> Refusal {
    Refusal {
        message: format!(
            "The resource '{other}' has this name; the embedded engine keeps a name for one instance of any zone"
        ),
        ..Refusal::exists("")
    }
}
