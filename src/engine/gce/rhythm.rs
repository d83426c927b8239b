//! How often and how much at once: so many creations of a region, so many images of a source.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::GceEngine;
use super::settings::{CREATIONS_MAX, SOURCE_HOURLY, SOURCE_INTERVAL_MINUTES};
use crate::elapsed::Elapsed;
use crate::engine::http::pause_watched;
use crate::engine::{EngineError, Watcher};
use crate::name::SourceId;

/// The shortest time between two images of one source.
pub(super) const INTERVAL: Elapsed = Elapsed::minutes(SOURCE_INTERVAL_MINUTES);
const HOUR: Elapsed = Elapsed::hours(1);
/// The longest that a capture waits for another one of its source; else the next run makes it.
const WAIT_MAX: Elapsed = Elapsed::minutes(15);

/// When sources have been captured lately, and what regions are at.
#[derive(Default)]
pub(super) struct Rhythm {
    captures: Mutex<BTreeMap<SourceId, Captures>>,
    regions: Mutex<BTreeMap<String, Arc<Semaphore>>>,
}

/// Captures of a source within the last hour.
#[derive(Debug, Default)]
struct Captures {
    /// Of images that were seen.
    seen: Vec<Timestamp>,
    /// That this run has asked for.
    asked: Vec<Timestamp>,
}

impl Rhythm {
    /// Takes note of all captures that were seen.
    pub(super) fn saw(
        &self,
        seen: impl IntoIterator<Item = (SourceId, Timestamp)>,
        now: Timestamp,
    ) {
        let mut captures = self.captures.lock().unwrap_or_else(PoisonError::into_inner);
        for times in captures.values_mut() {
            times.seen.clear();
        }
        for (source, at) in seen {
            if HOUR.after(at) > now {
                captures.entry(source).or_default().seen.push(at);
            }
        }
        captures.retain(|_, times| {
            // What was asked for and has been seen since is one.
            let is_seen = |at: Timestamp| times.seen.iter().any(|seen| is_of(*seen, at));
            times.asked.retain(|at| HOUR.after(*at) > now && !is_seen(*at));
            !times.seen.is_empty() || !times.asked.is_empty()
        });
    }

    /// When a source may be captured next. The time is taken: who asks next comes after.
    fn reserve(
        &self,
        source: &SourceId,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Timestamp, Timestamp> {
        let mut captures = self.captures.lock().unwrap_or_else(PoisonError::into_inner);
        let times = captures.entry(source.clone()).or_default();
        let start = next(&[times.seen.as_slice(), &times.asked].concat(), now);
        if start > until {
            return Err(start);
        }
        times.asked.push(start);
        Ok(start)
    }

    /// Gives back the time that was taken for a capture that was never begun.
    pub(super) fn give_back(&self, source: &SourceId, start: Timestamp) {
        let mut captures = self.captures.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(times) = captures.get_mut(source) else { return };
        if let Some(index) = times.asked.iter().position(|at| *at == start) {
            times.asked.remove(index);
        }
    }

    fn region(&self, region: &str, most: usize) -> Arc<Semaphore> {
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Semaphore::new(most));
        Arc::clone(regions.entry(region.to_owned()).or_insert_with(new))
    }
}

/// Whether an image made at `seen` may be the one that was asked for at `asked`.
fn is_of(seen: Timestamp, asked: Timestamp) -> bool {
    seen >= Elapsed::minutes(1).before(asked) && seen < INTERVAL.after(asked)
}

/// The first instant that is far enough from captures at these.
fn next(times: &[Timestamp], now: Timestamp) -> Timestamp {
    let mut times: Vec<Timestamp> = times.to_vec();
    times.sort();
    let after_last = times.last().map(|last| INTERVAL.after(*last));
    let hourly = usize::try_from(SOURCE_HOURLY).unwrap_or(usize::MAX);
    let of_hour = times.len().checked_sub(hourly).and_then(|at| times.get(at));
    [Some(now), after_last, of_hour.map(|at| HOUR.after(*at))]
        .into_iter()
        .flatten()
        .max()
        .unwrap_or(now)
}

/// The region of a zone: `us-central1-a` is in `us-central1`.
pub(super) fn region_of(zone: &str) -> &str {
    zone.rsplit_once('-').map_or(zone, |(region, _)| region)
}

impl GceEngine {
    /// Waits until a region takes so many creations more; they hold their places as long as what
    /// comes back lives.
    pub(super) async fn room_in(
        &self,
        zone: &str,
        creations: usize,
    ) -> Result<OwnedSemaphorePermit, EngineError> {
        let most = self.settings.captures().min(CREATIONS_MAX);
        let creations = u32::try_from(creations.min(most)).unwrap_or(u32::MAX);
        let region = self.rhythm.region(region_of(zone), most);
        let closed = |_| EngineError::Failed("the region takes nothing any more".to_owned());
        region.acquire_many_owned(creations).await.map_err(closed)
    }

    /// Waits until a source may be captured again, if that is before its deadline and not too long. What
    /// comes back is the time that is taken for that.
    pub(super) async fn wait_for_source(
        &self,
        source: &SourceId,
        deadline: Timestamp,
        watcher: &dyn Watcher,
    ) -> Result<Timestamp, EngineError> {
        let now = self.clock.now();
        let until = deadline.min(WAIT_MAX.after(now)).max(now);
        let start = self.rhythm.reserve(source, now, until).map_err(put_off)?;
        match self.wait_until(now, start, watcher).await {
            Ok(()) => Ok(start),
            Err(error) => {
                self.rhythm.give_back(source, start);
                Err(error)
            }
        }
    }

    async fn wait_until(
        &self,
        now: Timestamp,
        start: Timestamp,
        watcher: &dyn Watcher,
    ) -> Result<(), EngineError> {
        let time = Duration::try_from(start.duration_since(now)).unwrap_or_default();
        if !time.is_zero() {
            watcher.waits(&format!(
                "waits {} for the last image of the same source: {RULE}",
                Elapsed::between(now, start).rough()
            ));
        }
        pause_watched(self.http.pause.as_ref(), time, watcher).await
    }

    /// The service has refused a capture as too soon: waits once, where there is time.
    pub(super) async fn wait_once(
        &self,
        deadline: Timestamp,
        watcher: &dyn Watcher,
    ) -> Result<(), EngineError> {
        let now = self.clock.now();
        let start = INTERVAL.after(now);
        if start > deadline {
            return Err(put_off(start));
        }
        self.wait_until(now, start, watcher).await
    }
}

/// The rule of the service.
pub(super) const RULE: &str = "a source takes one image in 10 minutes and six in an hour";

fn put_off(start: Timestamp) -> EngineError {
    EngineError::Busy(format!("put off to the next run, not before {start}: {RULE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + 60 * minute).unwrap()
    }

    #[test]
    fn a_source_takes_one_in_ten_minutes_and_six_in_an_hour() {
        assert_eq!(next(&[], at(0)), at(0));
        assert_eq!(next(&[at(0)], at(3)), at(10));
        assert_eq!(next(&[at(0)], at(12)), at(12));
        let six: Vec<Timestamp> = (0..6).map(|one| at(10 * one)).collect();
        assert_eq!(next(&six, at(60)), at(60));
        assert_eq!(next(&[at(0), at(10), at(20), at(21), at(22), at(23)], at(33)), at(60));
    }

    #[test]
    fn who_asks_next_comes_after() {
        let rhythm = Rhythm::default();
        let source = SourceId::parse("1").unwrap();
        rhythm.saw([(source.clone(), at(-5)), (source.clone(), at(-90))], at(0));
        assert_eq!(rhythm.reserve(&source, at(0), at(15)), Ok(at(5)));
        assert_eq!(rhythm.reserve(&source, at(0), at(15)), Ok(at(15)));
        assert_eq!(rhythm.reserve(&source, at(0), at(15)), Err(at(25)));
        // What is seen of it later is the same capture.
        rhythm.saw(
            [(source.clone(), at(-5)), (source.clone(), at(6)), (source.clone(), at(15))],
            at(16),
        );
        assert_eq!(rhythm.reserve(&source, at(16), at(20)), Err(at(25)));
        // What was not taken stands in nobody's way.
        assert_eq!(rhythm.reserve(&source, at(0), at(30)), Ok(at(25)));
    }

    #[test]
    fn what_was_never_begun_takes_nobodys_time() {
        let rhythm = Rhythm::default();
        let source = SourceId::parse("1").unwrap();
        assert_eq!(rhythm.reserve(&source, at(0), at(15)), Ok(at(0)));
        assert_eq!(rhythm.reserve(&source, at(0), at(15)), Ok(at(10)));
        rhythm.give_back(&source, at(0));
        assert_eq!(rhythm.reserve(&source, at(0), at(15)), Err(at(20)), "the other one stays");
        rhythm.give_back(&source, at(10));
        assert_eq!(rhythm.reserve(&source, at(1), at(15)), Ok(at(1)));
        rhythm.give_back(&SourceId::parse("2").unwrap(), at(1));
        assert_eq!(rhythm.reserve(&source, at(1), at(15)), Ok(at(11)));
    }

    #[test]
    fn a_zone_is_in_its_region() {
        assert_eq!(region_of("us-central1-a"), "us-central1");
        assert_eq!(region_of("zone"), "zone");
    }
}
