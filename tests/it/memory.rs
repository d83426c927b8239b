//! An engine in memory: for rounds by the thousand, and to hold the engine suite itself to account.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use stillframe::clock::Clock;
use stillframe::engine::{
    Author, CopyRequest, CreateRequest, Created, Engine, EngineError, Settled, Watcher,
};
use stillframe::inventory::{
    Capabilities, Consistency, Disk, DrillCheck, EngineInventory, Image, ImageKind, ImageSource,
    ImageState, ImportFormat, Instance, Limits, Stage,
};
use stillframe::name::{Key, Ownership, SourceId};
use stillframe::plan::{ImageRef, Update};

/// Instances and images in memory.
pub struct MemoryEngine {
    name: String,
    clock: Arc<dyn Clock>,
    pub world: Mutex<World>,
}

/// What a memory engine holds.
#[derive(Clone, Default)]
pub struct World {
    pub instances: BTreeMap<String, Instance>,
    pub images: BTreeMap<String, Image>,
    /// Who has made each image, by its id.
    authors: BTreeMap<String, Option<Author>>,
    next_id: u64,
    /// Ids of images that cannot be restored.
    pub damaged: BTreeSet<String>,
    /// What it takes before it refuses.
    pub limits: Limits,
    /// Names of images that were deleted, in order.
    pub deleted: Vec<Image>,
}

/// An instance with two disks.
pub fn instance(name: &str, labels: &[(&str, &str)]) -> Instance {
    let disk = |name: &str, boot| Disk {
        name: name.into(),
        boot,
        size_bytes: Some(1 << 30),
        kms_key: None,
        problem: None,
    };
    Instance {
        id: SourceId::parse(name).unwrap(),
        name: name.to_owned(),
        zone: "zone-a".to_owned(),
        labels: labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        status: "RUNNING".to_owned(),
        project: String::new(),
        machine_type: "small".to_owned(),
        disks: vec![disk("boot", true), disk("data", false)],
    }
}

/// A READY image of a key, made at its slot, with an id of its own.
pub fn image(id: &str, key: &Key) -> Image {
    Image {
        id: id.to_owned(),
        name: key.image_name(&key.default_prefix()),
        kind: ImageKind::MachineImage,
        state: ImageState::Ready,
        stage: Stage::Active,
        created_at: key.slot.instant(),
        location: String::new(),
        kms_key: None,
        family: None,
        sharing: None,
        labels: key.labels(),
        source: None,
        stored_bytes: None,
        disk_bytes: None,
        fingerprint: "f".to_owned(),
        disks: None,
        project: String::new(),
        in_use_by: Vec::new(),
        message: None,
    }
}

impl MemoryEngine {
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Self::named("memory", clock)
    }

    pub fn named(name: &str, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { name: name.to_owned(), clock, world: Mutex::new(World::default()) })
    }

    /// Another one of its name that holds the same.
    pub fn twin(&self) -> Arc<Self> {
        let twin = Self::named(&self.name, Arc::clone(&self.clock));
        twin.world.lock().unwrap().clone_from(&self.world.lock().unwrap());
        twin
    }

    pub fn add(&self, instance: Instance) {
        self.world.lock().unwrap().instances.insert(instance.name.clone(), instance);
    }
}

/// What a memory engine can do.
pub fn capabilities() -> Capabilities {
    Capabilities {
        consistencies: vec![Consistency::Crash, Consistency::Stopped],
        locations: vec!["local".to_owned(), "vault".to_owned()],
        copies: true,
        families: true,
        sharing: true,
        via_snapshot_kinds: vec![ImageKind::DiskImage],
        imports: BTreeMap::from([(ImageKind::DiskImage, vec![ImportFormat::Raw])]),
        drills: vec![DrillCheck::Verify, DrillCheck::Restore],
        ..Capabilities::default()
    }
}

fn fingerprint(image: &Image) -> String {
    format!("{:?}{:?}", image.stage, image.labels)
}

impl World {
    /// The image that has a name already: the one that was asked for, or another in its way.
    fn found(&self, name: &str, key: &Key, is_copy: bool) -> Result<Option<Created>, EngineError> {
        match self.images.values().find(|image| image.name == name) {
            None => Ok(None),
            Some(image)
                if image.ownership() == Ownership::Ours(key.clone())
                    && image.is_copy() == is_copy =>
            {
                let by = self.authors.get(&image.id).cloned().flatten();
                Ok(Some(Created::Found { image: image.clone(), by }))
            }
            Some(_) => Err(EngineError::NameTaken(name.to_owned())),
        }
    }

    fn bound(&self, image: &ImageRef) -> Result<Image, EngineError> {
        let found =
            image.id.as_ref().and_then(|id| self.images.get(id)).ok_or(EngineError::NotFound)?;
        if Some(&found.fingerprint) == image.fingerprint.as_ref() && found.name == image.name {
            Ok(found.clone())
        } else {
            Err(EngineError::Changed)
        }
    }
}

#[async_trait]
impl Engine for MemoryEngine {
    fn name(&self) -> &str {
        &self.name
    }

    async fn observe(&self) -> EngineInventory {
        let world = self.world.lock().unwrap();
        let mut images: Vec<Image> = world.images.values().cloned().collect();
        images.sort_by(|one, other| one.name.cmp(&other.name));
        EngineInventory {
            name: self.name.clone(),
            kind: "memory".to_owned(),
            identity: "here".to_owned(),
            gaps: Vec::new(),
            images_seen_before: None,
            capabilities: Capabilities { limits: world.limits.clone(), ..capabilities() },
            instances: world.instances.values().cloned().collect(),
            images,
        }
    }

    async fn create(
        &self,
        request: CreateRequest,
        _: Arc<dyn Watcher>,
    ) -> Result<Created, EngineError> {
        let mut world = self.world.lock().unwrap();
        if let Some(found) = world.found(&request.name, &request.key, false)? {
            return Ok(found);
        }
        let source = world.instances.values().find(|instance| instance.id == request.key.source);
        let source = source.ok_or_else(|| EngineError::Failed("no such instance".to_owned()))?;
        let source = ImageSource { id: source.id.clone(), name: source.name.clone() };
        world.next_id += 1;
        let mut image = Image {
            id: world.next_id.to_string(),
            name: request.name,
            kind: request.create.kind,
            state: ImageState::Ready,
            stage: Stage::Active,
            created_at: self.clock.now(),
            location: request.location,
            kms_key: request.create.kms_key,
            family: request.create.family,
            sharing: request.create.sharing,
            labels: request.create.labels,
            source: Some(source),
            stored_bytes: Some(1 << 20),
            disk_bytes: Some(2 << 30),
            fingerprint: String::new(),
            disks: None,
            project: String::new(),
            in_use_by: Vec::new(),
            message: None,
        };
        image.fingerprint = fingerprint(&image);
        world.authors.insert(image.id.clone(), request.by);
        world.images.insert(image.id.clone(), image.clone());
        Ok(Created::Made(image))
    }

    async fn copy(
        &self,
        request: CopyRequest,
        _: Arc<dyn Watcher>,
    ) -> Result<Created, EngineError> {
        let mut world = self.world.lock().unwrap();
        let copy = request.copy;
        if let Some(found) = world.found(&copy.name, &request.key, true)? {
            return Ok(found);
        }
        let original = world.bound(&request.image)?;
        world.next_id += 1;
        let mut image = Image {
            id: world.next_id.to_string(),
            name: copy.name,
            location: copy.location,
            kms_key: copy.kms_key,
            labels: copy.labels,
            stage: Stage::Active,
            sharing: copy.sharing,
            ..original
        };
        image.fingerprint = fingerprint(&image);
        world.authors.insert(image.id.clone(), request.by);
        world.images.insert(image.id.clone(), image.clone());
        Ok(Created::Made(image))
    }

    async fn drill(
        &self,
        image: &ImageRef,
        _: DrillCheck,
        _: Arc<dyn Watcher>,
    ) -> Result<(), EngineError> {
        let world = self.world.lock().unwrap();
        let image = world.bound(image)?;
        if world.damaged.contains(&image.id) {
            return Err(EngineError::Failed("it is damaged".to_owned()));
        }
        Ok(())
    }

    async fn update(&self, image: &ImageRef, update: &Update) -> Result<Image, EngineError> {
        let mut world = self.world.lock().unwrap();
        let mut changed = match world.bound(image) {
            Err(EngineError::Changed) => {
                let found = &world.images[image.id.as_ref().unwrap()];
                let is_done = found.stage == update.stage_after
                    && update.remove_labels.iter().all(|label| !found.labels.contains_key(label))
                    && update
                        .set_labels
                        .iter()
                        .all(|(label, value)| found.labels.get(label) == Some(value));
                return if is_done { Ok(found.clone()) } else { Err(EngineError::Changed) };
            }
            bound => bound?,
        };
        changed.stage = update.stage_after;
        changed.labels.retain(|label, _| !update.remove_labels.contains(label));
        changed.labels.extend(update.set_labels.clone());
        if update.sharing.is_some() {
            changed.sharing.clone_from(&update.sharing);
        }
        changed.fingerprint = fingerprint(&changed);
        world.images.insert(changed.id.clone(), changed.clone());
        Ok(changed)
    }

    async fn delete(&self, image: &ImageRef) -> Result<(), EngineError> {
        let mut world = self.world.lock().unwrap();
        let gone = world.bound(image)?;
        world.images.remove(&gone.id);
        world.deleted.push(gone);
        Ok(())
    }

    async fn settle(&self) -> Result<Settled, EngineError> {
        Ok(Settled::default())
    }
}
