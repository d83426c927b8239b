//! What there is of the engine's images, as its quotas count it: each disk of a set is one.

use super::series::World;
use super::taken::Taken;
use super::track::QuotaTrack;
use crate::desired::EngineDesired;
use crate::inventory::{Image, ImageKind};
use crate::name::Ownership;
use crate::policy::Policies;

/// By project and kind; few of both.
#[derive(Debug, Clone, Default)]
pub(super) struct Held(Vec<(String, ImageKind, Taken)>);

impl Held {
    /// Takes what an image takes in, or out.
    pub(super) fn count(&mut self, image: &Image, taken: Taken, is_in: bool) {
        let sum = self.at(&image.project, image.kind);
        *sum = if is_in { sum.plus(taken) } else { sum.minus(taken) };
    }

    fn at(&mut self, project: &str, kind: ImageKind) -> &mut Taken {
        let Self(held) = self;
        let fits = |(of, one, _): &(String, ImageKind, Taken)| *one == kind && of == project;
        let at = held.iter().position(fits).unwrap_or_else(|| {
            held.push((project.to_owned(), kind, Taken::default()));
            held.len() - 1
        });
        &mut held[at].2
    }

    fn add(&mut self, other: &Self) {
        for (project, kind, taken) in &other.0 {
            let sum = self.at(project, *kind);
            *sum = sum.plus(*taken);
        }
    }

    fn take(&mut self, other: &Self) {
        for (project, kind, taken) in &other.0 {
            let sum = self.at(project, *kind);
            *sum = sum.minus(*taken);
        }
    }

    /// All images.
    pub(super) fn all(&self) -> u64 {
        self.0.iter().map(|(_, _, taken)| taken.images).sum()
    }

    /// Those of a kind, in a project or in all.
    fn of(&self, wanted: &str, kind: ImageKind) -> Taken {
        let is_it = |(project, one, _): &&(String, ImageKind, Taken)| {
            *one == kind && (wanted.is_empty() || wanted == project)
        };
        self.0.iter().filter(is_it).fold(Taken::default(), |sum, (_, _, taken)| sum.plus(*taken))
    }
}

/// What is taken of one engine.
struct OfEngine {
    /// Now, with what no series counts: it stays.
    now: Held,
    /// What the round under way has made, beside what there was before it and has not gone for it
    /// first.
    made: Held,
    before: Option<Held>,
}

/// The quotas of all engines, and what is taken of each engine that has any.
pub(super) struct Quotas {
    engines: Vec<Option<OfEngine>>,
    tracks: Vec<(usize, QuotaTrack, u64)>,
}

impl Quotas {
    pub(super) fn new(
        engines: &[EngineDesired<'_>],
        worlds: &[World<'_>],
        policies: &Policies,
    ) -> Self {
        let mut tracks = Vec::new();
        let mut all = Vec::new();
        for (index, desired) in engines.iter().enumerate() {
            let engine = desired.engine;
            if engine.capabilities.limits.quotas().next().is_none() {
                all.push(None);
                continue;
            }
            let is_kept = |image: &Image| matches!(image.ownership(), Ownership::Ours(key) if policies.keeper(&key.policy).is_some_and(|policy| policy.engine == engine.name));
            let mut now = Held::default();
            for image in engine.images.iter().filter(|image| !is_kept(image)) {
                now.count(image, Taken::of(image), true);
            }
            worlds
                .iter()
                .filter(|world| world.engine == index)
                .for_each(|world| now.add(world.held()));
            tracks.extend(engine.capabilities.limits.quotas().map(|quota| {
                let track = QuotaTrack {
                    engine: engine.name.clone(),
                    project: quota.project.unwrap_or_default().to_owned(),
                    kind: quota.kind,
                    unit: quota.unit,
                    limit: quota.most,
                    used: Vec::new(),
                    peaks: Vec::new(),
                };
                (index, track, 0)
            }));
            all.push(Some(OfEngine { now, made: Held::default(), before: None }));
        }
        Self { engines: all, tracks }
    }

    /// Whether anything has to be counted of an engine.
    pub(super) fn counts(&self, engine: usize) -> bool {
        self.engines.get(engine).is_some_and(Option::is_some)
    }

    /// Takes in what a round has done to a series: what it had before, what was made of it, and what it
    /// has now.
    pub(super) fn changed(&mut self, engine: usize, had: &Held, made: &Held, has: &Held) {
        let Some(Some(of)) = self.engines.get_mut(engine) else { return };
        if of.before.is_none() {
            of.before = Some(of.now.clone());
        }
        of.made.add(made);
        of.now.take(had);
        of.now.add(has);
    }

    /// A round is over: all that it has made was there before anything went for it.
    pub(super) fn round_ended(&mut self) {
        for (engine, track, peak) in &mut self.tracks {
            let Some(Some(OfEngine { before: Some(before), made, .. })) = self.engines.get(*engine)
            else {
                continue;
            };
            let most =
                before.of(&track.project, track.kind).plus(made.of(&track.project, track.kind));
            *peak = (*peak).max(most.in_unit(track.unit));
        }
        for of in self.engines.iter_mut().flatten() {
            of.before = None;
            of.made = Held::default();
        }
    }

    /// Writes down the figures of a day.
    pub(super) fn sample(&mut self) {
        for (engine, track, peak) in &mut self.tracks {
            let Some(Some(of)) = self.engines.get(*engine) else { continue };
            let used = of.now.of(&track.project, track.kind).in_unit(track.unit);
            track.used.push(used);
            track.peaks.push(used.max(std::mem::take(peak)));
        }
    }

    /// Those that anything is counted against.
    pub(super) fn told(self) -> Vec<QuotaTrack> {
        let tracks = self.tracks.into_iter().map(|(_, track, _)| track);
        tracks.filter(|track| track.used.iter().any(|used| *used > 0)).collect()
    }
}
