//! How many images of the engine there are, as its quotas count them: each disk of a set is one.

use std::collections::BTreeMap;

use super::series::World;
use super::track::QuotaTrack;
use crate::desired::EngineDesired;
use crate::inventory::{Image, ImageKind};
use crate::name::Ownership;
use crate::policy::Policies;

/// Images by project and kind; few of both.
#[derive(Debug, Clone, Default)]
pub(super) struct Held(Vec<(String, ImageKind, u64)>);

impl Held {
    /// Takes an image that is so many of the engine in, or out.
    pub(super) fn count(&mut self, image: &Image, members: u64, is_in: bool) {
        let Self(held) = self;
        let fits = |(project, kind, _): &(String, ImageKind, u64)| {
            *kind == image.kind && *project == image.project
        };
        let at = held.iter().position(fits).unwrap_or_else(|| {
            held.push((image.project.clone(), image.kind, 0));
            held.len() - 1
        });
        let number = &mut held[at].2;
        *number = if is_in { *number + members } else { number.saturating_sub(members) };
    }

    /// All of them.
    pub(super) fn all(&self) -> u64 {
        self.0.iter().map(|(_, _, number)| number).sum()
    }

    /// Those of a kind, in a project or in all.
    fn of(&self, wanted: Option<&str>, kind: ImageKind) -> u64 {
        let is_it = |(project, one, _): &&(String, ImageKind, u64)| {
            *one == kind && wanted.is_none_or(|wanted| wanted == project)
        };
        self.0.iter().filter(is_it).map(|(_, _, number)| number).sum()
    }
}

/// The quotas of all engines, each with what no series counts: it stays.
pub(super) struct Quotas(Vec<Quota>);

struct Quota {
    /// The position of the engine.
    engine: usize,
    /// Images that no policy looks after.
    others: u64,
    track: QuotaTrack,
}

impl Quotas {
    pub(super) fn new(engines: &[EngineDesired<'_>], policies: &Policies) -> Self {
        let mut quotas = Vec::new();
        for (index, desired) in engines.iter().enumerate() {
            let engine = desired.engine;
            let mut others = Held::default();
            if engine.capabilities.limits.counts().next().is_some() {
                let is_kept = |image: &Image| matches!(image.ownership(), Ownership::Ours(key) if policies.keeper(&key.policy).is_some_and(|policy| policy.engine == engine.name));
                for image in engine.images.iter().filter(|image| !is_kept(image)) {
                    others.count(image, image.members(), true);
                }
            }
            quotas.extend(engine.capabilities.limits.counts().map(|(project, kind, limit)| {
                Quota {
                    engine: index,
                    others: others.of(project, kind),
                    track: QuotaTrack {
                        engine: engine.name.clone(),
                        project: project.unwrap_or_default().to_owned(),
                        kind,
                        limit,
                        images: Vec::new(),
                    },
                }
            }));
        }
        Self(quotas)
    }

    /// Writes down the figures of a day.
    pub(super) fn sample(&mut self, worlds: &[World<'_>]) {
        if self.0.is_empty() {
            return;
        }
        let mut sums: BTreeMap<usize, Held> = BTreeMap::new();
        for world in worlds {
            let sum = sums.entry(world.engine).or_default();
            for (project, kind, number) in &world.held().0 {
                let there = sum.0.iter_mut().find(|(of, one, _)| of == project && one == kind);
                match there {
                    Some((_, _, sum)) => *sum += number,
                    None => sum.0.push((project.clone(), *kind, *number)),
                }
            }
        }
        for Quota { engine, others, track } in &mut self.0 {
            let wanted = Some(track.project.as_str()).filter(|project| !project.is_empty());
            let held = sums.get(engine).map_or(0, |held| held.of(wanted, track.kind));
            track.images.push(*others + held);
        }
    }

    /// Those that anything is counted against.
    pub(super) fn told(self) -> Vec<QuotaTrack> {
        let tracks = self.0.into_iter().map(|quota| quota.track);
        tracks.filter(|track| track.images.iter().any(|images| *images > 0)).collect()
    }
}
