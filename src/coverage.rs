//! Coverage: how well each source is protected, and how long that lasts.
//!
//! In go policies, an inventory and `now`; out come, for each source, the restore points of each
//! policy that selects it, the age of the newest, and when the recovery point objective would be
//! broken. Pure, like all of this level: reports, alerts and the explanation of a source all say
//! the same.

use jiff::Timestamp;

use crate::desired::{Presence, Series, desired};
use crate::elapsed::Elapsed;
use crate::inventory::{Instance, Inventory};
use crate::name::Slot;
use crate::policy::{Policies, Policy};
use crate::simulate::forecast::next_runs;

/// How many coming runs are looked at.
const RUNS: usize = 2;

/// What one policy does for one source.
#[derive(Debug, Clone)]
pub struct Cover<'a> {
    /// The engine.
    pub engine: &'a str,
    /// The source.
    pub instance: &'a Instance,
    /// The policy.
    pub policy: &'a Policy,
    /// How many READY restore points there are that are not in the future, copies not counted.
    pub ready: usize,
    /// The newest READY one that is not in the future.
    pub newest: Option<Slot>,
    /// The oldest READY one.
    pub oldest: Option<Slot>,
    /// The coming runs that make a restore point: none while the policy is paused or blacked out.
    pub next: Vec<Run>,
    /// How it stands with the recovery point objective.
    pub rpo: Rpo,
}

/// A run that makes a restore point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The instant that the restore point stands for.
    pub slot: Slot,
    /// When it is made: later than its slot where jitter, a pause or a blackout says so.
    pub at: Timestamp,
}

/// How it stands with a recovery point objective.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rpo {
    /// The policy states none.
    None,
    /// It is broken since then; `None` where there is no restore point at all.
    Broken(Option<Timestamp>),
    /// It is met, and broken at that time even if the next run succeeds: that comes too late, or
    /// there is none.
    WillBreak(Timestamp),
    /// It is met. If the next run fails, it is broken at that time, before the run after it.
    AtRisk(Timestamp),
    /// It is met, also if the next run fails.
    Met,
}

impl Rpo {
    /// The word used in documents.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Broken(_) => "broken",
            Self::WillBreak(_) => "met-until-broken",
            Self::AtRisk(_) => "met-unless-next-fails",
            Self::Met => "met",
        }
    }

    /// When it was or would be broken.
    pub fn at(self) -> Option<Timestamp> {
        match self {
            Self::Broken(at) => at,
            Self::WillBreak(at) | Self::AtRisk(at) => Some(at),
            Self::None | Self::Met => None,
        }
    }
}

/// What is covered, in the order of engines, policies and sources.
pub fn coverage<'a>(
    policies: &'a Policies,
    inventory: &'a Inventory,
    now: Timestamp,
) -> Vec<Cover<'a>> {
    desired(policies, inventory, now)
        .engines
        .iter()
        .flat_map(|engine| engine.series.iter().map(|series| (engine.engine, series)))
        .filter_map(|(engine, series)| match series.state.presence {
            Presence::Present(instance) => Some(cover(&engine.name, instance, series, now)),
            _ => None,
        })
        .collect()
}

fn cover<'a>(
    engine: &'a str,
    instance: &'a Instance,
    series: &Series<'a>,
    now: Timestamp,
) -> Cover<'a> {
    let policy = series.policy;
    let ready = || series.points.iter().filter(|point| point.is_ready(now));
    let newest = series.newest_ready(now).map(|point| point.key.slot);
    let runs = next_runs(series, now, RUNS).into_iter();
    let next: Vec<Run> = runs.map(|(slot, at)| Run { slot, at }).collect();
    Cover {
        engine,
        instance,
        policy,
        ready: ready().count(),
        newest,
        oldest: ready().map(|point| point.key.slot).min(),
        rpo: rpo(policy.rpo, newest, &next, now),
        next,
    }
}

/// The newest restore point is `newest`, the coming runs are at `next`.
fn rpo(objective: Option<Elapsed>, newest: Option<Slot>, next: &[Run], now: Timestamp) -> Rpo {
    let Some(objective) = objective else { return Rpo::None };
    let Some(newest) = newest else { return Rpo::Broken(None) };
    let end = objective.after(newest.instant());
    if end <= now {
        return Rpo::Broken(Some(end));
    }
    // If the next run fails, the one after it is the first that can help.
    let in_time = next.iter().take_while(|run| run.at <= end).count();
    match in_time {
        0 => Rpo::WillBreak(end),
        1 => Rpo::AtRisk(end),
        _ => Rpo::Met,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + hour * 3_600).unwrap()
    }

    #[test]
    fn the_objective_outlives_one_failure_or_not() {
        let rpo = |hours: u32, newest: Option<i64>, next: &[i64]| {
            let run = |hour: &i64| Run { slot: Slot::at(at(*hour)), at: at(*hour) };
            let next: Vec<Run> = next.iter().map(run).collect();
            super::rpo(
                Some(Elapsed::hours(hours)),
                newest.map(|hour| Slot::at(at(hour))),
                &next,
                at(0),
            )
        };
        assert_eq!(rpo(26, Some(-10), &[14, 38]), Rpo::AtRisk(at(16)));
        assert_eq!(rpo(48, Some(-10), &[14, 38]), Rpo::Met);
        assert_eq!(rpo(47, Some(-10), &[14, 38]), Rpo::AtRisk(at(37)));
        assert_eq!(rpo(10, Some(-10), &[14, 38]), Rpo::Broken(Some(at(0))));
        assert_eq!(rpo(10, None, &[14]), Rpo::Broken(None));
        assert_eq!(rpo(480, Some(-10), &[]), Rpo::WillBreak(at(470)));
        assert_eq!(rpo(24, Some(-10), &[15, 39]), Rpo::WillBreak(at(14)));
        assert_eq!(super::rpo(None, None, &[], at(0)), Rpo::None);
    }
}
