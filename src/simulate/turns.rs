//! Whose turn it is, where an engine takes only so many images of a source in a time: the one thing in
//! which the series of a source influence each other.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::series::World;
use super::{Decided, Run, Turn, Who};
use crate::desired::EngineDesired;
use crate::inventory::Limits;
use crate::name::SourceId;
use crate::plan::pace::{self, Candidate, Captures};

/// When sources were captured lately, by the positions of their engines.
#[derive(Debug, Default)]
pub(super) struct Lately {
    captures: BTreeMap<usize, Captures>,
    /// The positions of all series of a source: none is looked at without the others.
    together: BTreeMap<(usize, SourceId), Vec<usize>>,
}

impl Lately {
    /// As it was found. Engines without such limits are left out.
    pub(super) fn new(engines: &[EngineDesired<'_>], worlds: &[World<'_>], now: Timestamp) -> Self {
        let engines = engines.iter().map(|found| found.engine).enumerate();
        let limited = engines.filter(|(_, one)| pace::is_limited(&one.capabilities.limits));
        let mut lately = Self {
            captures: limited.map(|(index, one)| (index, pace::captures(one, now))).collect(),
            together: BTreeMap::new(),
        };
        for (index, world) in worlds.iter().enumerate() {
            if lately.captures.contains_key(&world.engine) {
                let source = (world.engine, world.source.clone());
                lately.together.entry(source).or_default().push(index);
            }
        }
        lately
    }

    /// All series of the sources that a round is for.
    pub(super) fn with_others(&self, whom: &mut BTreeSet<Who>, worlds: &[World<'_>]) {
        for series in self.together.values() {
            let is_meant = |index: &usize| {
                whom.contains(&Who::Series(*index))
                    || whom.contains(&Who::Policy(worlds[*index].policy_index))
            };
            if series.len() > 1 && series.iter().any(is_meant) {
                whom.extend(series.iter().map(|index| Who::Series(*index)));
            }
        }
    }

    /// A source was captured.
    pub(super) fn captured(&mut self, world: &World<'_>, limits: &Limits, now: Timestamp) {
        let Some(sources) = self.captures.get_mut(&world.engine) else { return };
        let captures = sources.entry(world.source.clone()).or_default();
        captures.retain(|at| !pace::is_over(limits, *at, now));
        captures.push(now);
    }
}

impl Run<'_> {
    /// Decides again where it is not the turn of a series, and comes back to it when it is.
    pub(super) fn take_turns(&mut self, taken: &mut [Turn], decided: &mut Decided) {
        let now = decided.now;
        let mut wanted: BTreeMap<(usize, SourceId), Vec<usize>> = BTreeMap::new();
        for (position, turn) in taken.iter().enumerate() {
            if turn.decision.wanted.is_some() {
                let world = &self.worlds[turn.index];
                wanted.entry((world.engine, world.source.clone())).or_default().push(position);
            }
        }
        for ((engine, source), positions) in wanted {
            let limits = &self.bare[engine].engine.capabilities.limits;
            let lately = self.lately.captures.get(&engine).and_then(|sources| sources.get(&source));
            let lately = lately.cloned().unwrap_or_default();
            let candidates = positions.iter().filter_map(|at| {
                let Turn { decision, index, .. } = &taken[*at];
                // What was decided is shared by series that were captured at other times.
                let last = self.worlds[*index].last_capture();
                Some(Candidate { last, ..decision.wanted.clone()? })
            });
            let candidates: Vec<Candidate> = candidates.collect();
            let turns = pace::turns(limits, &source, lately, &candidates, now);
            let deadlines: Vec<Timestamp> = candidates.iter().map(|one| one.deadline).collect();
            for (order, (position, at)) in positions.into_iter().zip(turns).enumerate() {
                if at <= now {
                    continue;
                }
                let index = taken[position].index;
                let decision = decided.later(self, index, at);
                taken[position] = Turn { index, decision, later: Some(at), is_ready: false };
                if at <= deadlines[order] {
                    self.due.insert((at, Who::Series(index)));
                }
            }
        }
    }
}

impl World<'_> {
    /// When the source was captured last for this policy.
    fn last_capture(&self) -> Option<Timestamp> {
        let originals = self.points.iter().filter(|point| !point.image.is_copy());
        originals.map(|point| point.image.created_at).max()
    }
}
