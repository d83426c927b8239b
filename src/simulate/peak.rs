//! The most that a policy had at once, over all its sources.

use super::series::World;

/// READY restore points, and images of the engine.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Numbers {
    pub(super) ready: u64,
    pub(super) images: u64,
}

impl Numbers {
    /// What a series has.
    pub(super) fn of(world: &World<'_>) -> Self {
        Self { ready: world.ready, images: world.held().all() }
    }

    fn plus(self, other: Self) -> Self {
        Self { ready: self.ready + other.ready, images: self.images + other.images }
    }

    fn minus(self, other: Self) -> Self {
        let less = u64::saturating_sub;
        Self { ready: less(self.ready, other.ready), images: less(self.images, other.images) }
    }

    fn most(self, other: Self) -> Self {
        Self { ready: self.ready.max(other.ready), images: self.images.max(other.images) }
    }
}

/// One policy.
#[derive(Debug, Clone, Copy, Default)]
struct OfPolicy {
    now: Numbers,
    /// What there was before the round under way, with all that it has made so far.
    round: Option<Numbers>,
    peak: Numbers,
}

/// All policies, by their positions.
pub(super) struct Peaks(Vec<OfPolicy>);

impl Peaks {
    pub(super) fn new(worlds: &[World<'_>], policies: usize) -> Self {
        let mut all = vec![OfPolicy::default(); policies];
        for world in worlds {
            let Some(of) = all.get_mut(world.policy_index) else { continue };
            of.now = of.now.plus(Numbers::of(world));
            of.peak = of.now;
        }
        Self(all)
    }

    /// Takes in what a round has done to a series, which had so much before, and whether it has a READY
    /// restore point more.
    pub(super) fn changed(&mut self, world: &World<'_>, had: Numbers, is_ready: bool) {
        let Some(of) = self.0.get_mut(world.policy_index) else { return };
        let made = Numbers { ready: u64::from(is_ready), images: world.made().all() };
        of.round = Some(of.round.unwrap_or(of.now).plus(made));
        of.now = of.now.minus(had).plus(Numbers::of(world));
    }

    /// A round is over: all that it has made was there before anything went for it.
    pub(super) fn round_ended(&mut self) {
        for of in &mut self.0 {
            let round = of.round.take().unwrap_or_default();
            of.peak = of.peak.most(round).most(of.now);
        }
    }

    /// The most that a policy had.
    pub(super) fn of(&self, policy: usize) -> Numbers {
        self.0.get(policy).map(|of| of.peak).unwrap_or_default()
    }
}
