//! What is in force: policies, and a room of its own for each engine.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::notify::Orders;
use super::world::{Opened, WorldError};
use super::{Delay, Watch};
use crate::apply::Underway;
use crate::policy::Policies;
use crate::policy::meant::Watch as Settings;
use crate::reconcile::{Caution, Recurrence, Room, base};

/// What is in force.
pub(super) struct InForce {
    pub(super) policies: Arc<Policies>,
    opened: Opened,
    rooms: BTreeMap<String, Arc<Room>>,
    pub(super) delay: Arc<Delay>,
    /// What goes on beside rounds, whatever is in force.
    pub(super) underway: Underway,
}

impl InForce {
    /// Opens what the policies name.
    pub(super) fn new(watch: &Watch, policies: Arc<Policies>) -> Result<Self, WorldError> {
        let opened = watch.world.open(&policies, None)?;
        let delay = Arc::new(Delay::new(Arc::clone(&policies)));
        let underway = Underway::default();
        let rooms = rooms(watch, &policies, &opened, &delay, &underway);
        Ok(Self { policies, opened, rooms, delay, underway })
    }

    /// Puts other policies in force; back comes whether they are any different. What only people read
    /// is, too; it causes no deletes, so none wait for it.
    pub(super) fn replace(
        &mut self,
        watch: &Watch,
        policies: Arc<Policies>,
    ) -> Result<bool, WorldError> {
        let opened = watch.world.open(&policies, Some((&self.policies, &self.opened)))?;
        let is_same = policies.digest == self.policies.digest
            && policies.reads_like(&self.policies)
            && opened.is_same(&self.opened);
        if is_same {
            return Ok(false);
        }
        let others = opened.others(&self.opened);
        self.delay.replace(Arc::clone(&policies), others);
        self.rooms = rooms(watch, &policies, &opened, &self.delay, &self.underway);
        (self.policies, self.opened) = (policies, opened);
        Ok(true)
    }

    /// The names of the engines.
    pub(super) fn engines(&self) -> Vec<String> {
        self.rooms.keys().cloned().collect()
    }

    /// The room of an engine.
    pub(super) fn room(&self, engine: &str) -> Option<Arc<Room>> {
        self.rooms.get(engine).cloned()
    }

    /// Who is told of what goes wrong.
    pub(super) fn orders(&self) -> Orders {
        Orders {
            settings: self.settings().notify.clone(),
            name: self.policies.config.name.clone().unwrap_or_default(),
            // Where the file has gone its engines could not have been opened.
            base: base(&self.policies).unwrap_or_default(),
            memory: self.opened.ledger.path().with_extension("told.json"),
        }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.policies.config.watch
    }
}

fn rooms(
    watch: &Watch,
    policies: &Arc<Policies>,
    opened: &Opened,
    delay: &Arc<Delay>,
    underway: &Underway,
) -> BTreeMap<String, Arc<Room>> {
    let is_only = opened.engines.len() == 1;
    let room = |engine: &Arc<dyn crate::engine::Engine>| Room {
        // Of many policies there is one copy where one is enough.
        policies: if is_only {
            Arc::clone(policies)
        } else {
            Arc::new(policies.of_engine(engine.name()))
        },
        engines: vec![Arc::clone(engine)],
        clock: Arc::clone(&watch.clock),
        author: watch.author.clone(),
        ledger: Arc::clone(&opened.ledger),
        overrides: Vec::new(),
        caution: Some(Arc::clone(delay) as Arc<dyn Caution>),
        recurrence: Some(Recurrence {
            underway: underway.clone(),
            limit: policies.config.watch.capture_limit,
        }),
    };
    let rooms = opened.engines.iter();
    rooms.map(|engine| (engine.name().to_owned(), Arc::new(room(engine)))).collect()
}
