//! What is in force: policies, and a room of its own for each engine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::notify::Orders;
use super::reading::InHand;
use super::world::Opened;
use super::{Delay, Watch};
use crate::apply::Underway;
use crate::policy::Policies;
use crate::policy::meant::Watch as Settings;
use crate::reconcile::{Caution, Recurrence, Room};

/// What is in force.
pub(super) struct InForce {
    pub(super) policies: Arc<Policies>,
    opened: Opened,
    /// What paths are relative to.
    base: PathBuf,
    rooms: BTreeMap<String, Arc<Room>>,
    pub(super) delay: Arc<Delay>,
    /// What goes on beside rounds, whatever is in force.
    pub(super) underway: Underway,
}

impl InForce {
    /// The first policies.
    pub(super) fn new(watch: &Watch, in_hand: InHand) -> Self {
        let InHand { policies, opened, base } = in_hand;
        let delay = Arc::new(Delay::new(Arc::clone(&policies)));
        let underway = Underway::default();
        let rooms = rooms(watch, &policies, &opened, &delay, &underway);
        Self { policies, opened, base, rooms, delay, underway }
    }

    /// Puts other policies in force; back comes whether they are any different. What only people read
    /// is, too; it causes no deletes, so none wait for it.
    pub(super) fn replace(&mut self, watch: &Watch, in_hand: InHand) -> bool {
        let InHand { policies, opened, base } = in_hand;
        let is_same = policies.digest == self.policies.digest
            && policies.reads_like(&self.policies)
            && opened.is_same(&self.opened);
        if is_same {
            return false;
        }
        let others = opened.others(&self.opened);
        self.delay.replace(Arc::clone(&policies), others);
        self.rooms = rooms(watch, &policies, &opened, &self.delay, &self.underway);
        (self.policies, self.opened, self.base) = (policies, opened, base);
        true
    }

    /// What is in force, for who opens what comes after it.
    pub(super) fn before(&self) -> (Arc<Policies>, Opened) {
        (Arc::clone(&self.policies), self.opened.clone())
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
            base: self.base.clone(),
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
