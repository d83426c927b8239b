//! A world in memory: sources and images, and what a plan that is carried out makes of them.
//!
//! Captures take no time here, and nobody else is at it.

use jiff::Timestamp;

use super::case::Source;
use crate::inventory::{
    Disk, EngineInventory, FORMAT_VERSION, Image, ImageSource, ImageState, Instance, Inventory,
    LABEL_COPY, Stage,
};
use crate::name::{Key, SourceId};
use crate::plan::{Action, Change, ImageRef};
use crate::policy::meant::{Config, EngineConfig};
use crate::policy::{Policies, Policy};

/// What becomes of an attempt to create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// A READY restore point.
    Succeeds,
    /// A FAILED one.
    Fails,
    /// None at all.
    IsNotMade,
}

/// Sources and images.
#[derive(Debug, Clone)]
pub(super) struct World {
    inventory: Inventory,
    sources: Vec<(String, Source)>,
    images_made: usize,
}

/// An image before it has its id.
pub(super) struct NewImage<'a> {
    pub(super) engine: &'a str,
    pub(super) key: &'a Key,
    pub(super) policy: &'a Policy,
    pub(super) created_at: Timestamp,
    pub(super) state: ImageState,
    pub(super) location: Option<String>,
    pub(super) copy: bool,
}

impl World {
    /// Engines as they are configured, with sources by the engine that holds them.
    pub(super) fn new(config: &Config, sources: Vec<(String, Source)>) -> Self {
        let engine = |(name, engine): (&String, &EngineConfig)| EngineInventory {
            name: name.clone(),
            kind: engine.kind.clone(),
            identity: "test".to_owned(),
            gaps: Vec::new(),
            images_seen_before: None,
            capabilities: engine.capabilities.clone(),
            instances: Vec::new(),
            images: Vec::new(),
        };
        let inventory = Inventory {
            format_version: FORMAT_VERSION.to_owned(),
            observed_at: Timestamp::UNIX_EPOCH,
            engines: config.engines.iter().map(engine).collect(),
        };
        Self { inventory, sources, images_made: 0 }
    }

    /// What is seen at an instant.
    pub(super) fn at(&mut self, now: Timestamp) -> &Inventory {
        self.inventory.observed_at = now;
        for engine in &mut self.inventory.engines {
            let is_there = |source: &Source| source.gone.is_none_or(|gone| now < gone);
            engine.instances = self
                .sources
                .iter()
                .filter(|(name, source)| *name == engine.name && is_there(source))
                .map(|(_, source)| instance(source))
                .collect();
            engine.instances.sort_by(|one, other| one.id.cmp(&other.id));
            engine.images.sort_by(|one, other| (&one.name, &one.id).cmp(&(&other.name, &other.id)));
        }
        &self.inventory
    }

    /// Puts an image that is nobody's plan.
    pub(super) fn add(&mut self, new: &NewImage<'_>, edit: impl FnOnce(&mut Image)) {
        let policy = new.policy;
        let prefix = policy.naming.prefix(new.key, &policy.schedule.zone);
        let default = self.engine(new.engine).and_then(|engine| {
            let locations = &engine.capabilities.locations;
            let own = Some(&policy.location).filter(|location| !location.is_empty());
            own.or_else(|| locations.first()).cloned()
        });
        let location = new.location.clone().or(default).unwrap_or_default();
        let mut labels = policy.labels.clone();
        labels.extend(new.key.labels());
        let mut name = new.key.image_name(&prefix);
        if new.copy {
            name = new.key.copy_name(&prefix, &location);
            labels.insert(LABEL_COPY.to_owned(), "yes".to_owned());
        }
        let mut image = Image {
            id: String::new(),
            name,
            kind: policy.capture.kind,
            state: new.state,
            stage: Stage::Active,
            created_at: new.created_at,
            location,
            kms_key: policy.kms_key.clone(),
            family: policy.capture.family.clone(),
            sharing: policy.sharing.clone(),
            labels,
            source: self.image_source(new.engine, &new.key.source),
            stored_bytes: None,
            disk_bytes: None,
            fingerprint: String::new(),
            disks: None,
            project: String::new(),
            in_use_by: Vec::new(),
            message: None,
        };
        edit(&mut image);
        self.put(new.engine, image);
    }

    fn put(&mut self, engine: &str, mut image: Image) {
        self.images_made += 1;
        // Greater ids are newer, as engines have them.
        image.id = format!("image-{:07}", self.images_made);
        image.fingerprint.clone_from(&image.id);
        if let Some(engine) = self.engine_mut(engine) {
            engine.images.push(image);
        }
    }

    fn engine(&self, name: &str) -> Option<&EngineInventory> {
        self.inventory.engines.iter().find(|engine| engine.name == name)
    }

    fn engine_mut(&mut self, name: &str) -> Option<&mut EngineInventory> {
        self.inventory.engines.iter_mut().find(|engine| engine.name == name)
    }

    fn image_source(&self, engine: &str, id: &SourceId) -> Option<ImageSource> {
        let is_it = |(name, source): &&(String, Source)| name == engine && source.id == *id;
        let (_, source) = self.sources.iter().find(is_it)?;
        Some(ImageSource { id: id.clone(), name: source.name.clone() })
    }

    /// Carries out a change, and says whether it was.
    pub(super) fn carry_out(
        &mut self,
        change: &Change,
        policies: &Policies,
        attempt: Attempt,
        now: Timestamp,
    ) -> bool {
        let is_ready = |name: &String| {
            let is_it = |image: &Image| image.name == *name && image.state == ImageState::Ready;
            self.engine(&change.engine).is_some_and(|engine| engine.images.iter().any(is_it))
        };
        let is_missing = change.waits_for.as_ref().is_some_and(|name| !is_ready(name));
        if is_missing || change.unless.as_ref().is_some_and(is_ready) {
            return false;
        }
        match change.action {
            Action::Create | Action::Copy => self.make(change, policies, attempt, now),
            Action::Delete => self.remove(&change.engine, &change.image),
            Action::Deprecate
            | Action::Obsolete
            | Action::Reactivate
            | Action::Relabel
            | Action::Drill => self.update(change),
        }
    }

    fn make(
        &mut self,
        change: &Change,
        policies: &Policies,
        attempt: Attempt,
        now: Timestamp,
    ) -> bool {
        let state = match attempt {
            Attempt::Succeeds => ImageState::Ready,
            Attempt::Fails => ImageState::Failed,
            Attempt::IsNotMade => return false,
        };
        let Some(policy) = policies.keeper(&change.key.policy) else { return false };
        let create = change.create.as_ref();
        let copy = change.copy.as_ref();
        let replaced = create.and_then(|create| create.replaces.as_ref());
        if let Some(replaced) = replaced.or(copy.and_then(|copy| copy.replaces.as_ref())) {
            self.remove(&change.engine, replaced);
        }
        let new = NewImage {
            engine: &change.engine,
            key: &change.key,
            policy,
            created_at: now,
            state,
            location: Some(copy.map_or(&change.image.location, |copy| &copy.location).clone()),
            copy: copy.is_some(),
        };
        self.add(&new, |image| {
            let labels = create.map(|create| &create.labels).or(copy.map(|copy| &copy.labels));
            image.labels = labels.cloned().unwrap_or_default();
            image.name.clone_from(copy.map_or(&change.image.name, |copy| &copy.name));
        });
        true
    }

    fn remove(&mut self, engine: &str, image: &ImageRef) -> bool {
        let Some(engine) = self.engine_mut(engine) else { return false };
        let before = engine.images.len();
        engine.images.retain(|other| Some(&other.id) != image.id.as_ref());
        engine.images.len() < before
    }

    fn update(&mut self, change: &Change) -> bool {
        let Some(update) = &change.update else { return false };
        let engine = self.engine_mut(&change.engine);
        let images = engine.into_iter().flat_map(|engine| &mut engine.images);
        let is_it = |image: &&mut Image| Some(&image.id) == change.image.id.as_ref();
        let Some(image) = images.into_iter().find(is_it) else { return false };
        image.stage = update.stage_after;
        image.labels.retain(|label, _| !update.remove_labels.contains(label));
        image.labels.extend(update.set_labels.clone());
        if let Some(sharing) = &update.sharing {
            image.sharing = Some(sharing.clone());
        }
        image.fingerprint.push('+');
        true
    }
}

/// A source as an engine would show it.
pub(super) fn instance(source: &Source) -> Instance {
    let disk = |(position, name): (usize, &String)| Disk {
        name: name.clone(),
        boot: position == 0,
        size_bytes: Some(1 << 30),
        kms_key: None,
        problem: None,
    };
    Instance {
        id: source.id.clone(),
        name: source.name.clone(),
        zone: source.zone.clone(),
        labels: source.labels.clone(),
        status: "RUNNING".to_owned(),
        project: String::new(),
        machine_type: String::new(),
        disks: source.disks.iter().enumerate().map(disk).collect(),
    }
}
