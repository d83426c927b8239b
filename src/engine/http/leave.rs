//! Leave to send a request: what is looked at right before each attempt, and how long is waited for the
//! next one.
//!
//! Between two attempts may lie hours, in which images get holds, deadlines pass and people ask to stop.
//! So who sends a request again asks for leave again.

use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use super::Pause;
use crate::clock::Clock;
use crate::elapsed::Elapsed;
use crate::engine::{EngineError, Watcher};

/// The longest time in which nobody looks whether to stop.
const STEP: Duration = Duration::from_secs(5);

/// What stands between a request and the service.
#[async_trait]
pub trait Leave: Send + Sync {
    /// Whether it may be sent now, asked right before each attempt. `was_open` says whether one before
    /// may have been carried out.
    async fn may_send(&self, _was_open: bool) -> Result<(), EngineError> {
        Ok(())
    }

    /// Whether it may be sent again after that time. `why` is what came of the attempt before.
    fn may_wait(&self, _time: Duration, _why: &str) -> Result<(), EngineError> {
        Ok(())
    }

    /// Whether that it waits is told by who gives leave.
    fn tells(&self) -> bool {
        false
    }

    /// Lets that time pass.
    async fn pass(&self, time: Duration, pause: &dyn Pause) -> Result<(), EngineError> {
        pause.pause(time).await;
        Ok(())
    }
}

/// Leave for what may be sent at any time, and is not interrupted.
pub struct Free;

impl Leave for Free {}

/// Leave as long as nobody asks to stop.
pub struct Watched<'a>(pub &'a dyn Watcher);

#[async_trait]
impl Leave for Watched<'_> {
    async fn may_send(&self, _: bool) -> Result<(), EngineError> {
        go_on(self.0)
    }

    fn may_wait(&self, time: Duration, why: &str) -> Result<(), EngineError> {
        tell(self.0, time, why);
        Ok(())
    }

    fn tells(&self) -> bool {
        true
    }

    async fn pass(&self, time: Duration, pause: &dyn Pause) -> Result<(), EngineError> {
        pause_watched(pause, time, self.0).await
    }
}

/// Leave for looks at what was asked for with another leave: they wait as that does, and nothing else
/// stands in their way.
pub struct Looking<'a>(pub &'a dyn Leave);

#[async_trait]
impl Leave for Looking<'_> {
    async fn pass(&self, time: Duration, pause: &dyn Pause) -> Result<(), EngineError> {
        self.0.pass(time, pause).await
    }
}

/// Until when something may be asked for.
pub struct Limit<'a> {
    /// The last time at which it may be.
    pub until: Timestamp,
    /// What is said after that.
    pub after: &'static str,
    /// Who may ask to stop.
    pub watcher: &'a dyn Watcher,
}

impl Limit<'_> {
    /// Whether something may be asked for at that time.
    pub fn check(&self, now: Timestamp) -> Result<(), EngineError> {
        go_on(self.watcher)?;
        if now > self.until { Err(EngineError::Busy(self.after.to_owned())) } else { Ok(()) }
    }

    /// Whether it may be asked for again after that time, which is told where it may.
    pub fn may_wait(&self, now: Timestamp, time: Duration, why: &str) -> Result<(), EngineError> {
        let waited = SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX);
        match self.check(now.saturating_add(waited).unwrap_or(Timestamp::MAX)) {
            Err(EngineError::Busy(after)) => {
                Err(EngineError::Busy(format!("{why}; by then {after}")))
            }
            checked => {
                checked?;
                tell(self.watcher, time, why);
                Ok(())
            }
        }
    }
}

/// Leave within a limit, by a clock.
pub struct Within<'a> {
    /// The limit.
    pub limit: Limit<'a>,
    /// What time it is.
    pub clock: &'a dyn Clock,
}

#[async_trait]
impl Leave for Within<'_> {
    async fn may_send(&self, _: bool) -> Result<(), EngineError> {
        self.limit.check(self.clock.now())
    }

    fn may_wait(&self, time: Duration, why: &str) -> Result<(), EngineError> {
        self.limit.may_wait(self.clock.now(), time, why)
    }

    fn tells(&self) -> bool {
        true
    }

    async fn pass(&self, time: Duration, pause: &dyn Pause) -> Result<(), EngineError> {
        pause_watched(pause, time, self.limit.watcher).await
    }
}

/// Lets time pass, and looks again and again whether to stop.
pub async fn pause_watched(
    pause: &dyn Pause,
    time: Duration,
    watcher: &dyn Watcher,
) -> Result<(), EngineError> {
    for step in steps(time) {
        go_on(watcher)?;
        pause.pause(step).await;
    }
    go_on(watcher)
}

/// A time in steps after each of which somebody looks around.
pub fn steps(time: Duration) -> impl Iterator<Item = Duration> + Send {
    let mut left = time;
    std::iter::from_fn(move || {
        let step = left.min(STEP);
        left -= step;
        (!step.is_zero()).then_some(step)
    })
}

/// An error where somebody asks to stop.
pub fn go_on(watcher: &dyn Watcher) -> Result<(), EngineError> {
    if watcher.is_cancelled() { Err(EngineError::Interrupted) } else { Ok(()) }
}

fn tell(watcher: &dyn Watcher, time: Duration, why: &str) {
    let seconds = Elapsed::seconds(i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
    watcher.waits(&format!("{why}; it is asked again in {seconds}"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Unwatched;

    #[test]
    fn a_long_time_passes_in_steps() {
        let of = |seconds| -> Vec<u64> {
            steps(Duration::from_secs(seconds)).map(|step| step.as_secs()).collect()
        };
        assert_eq!(of(12), [5, 5, 2]);
        assert_eq!(of(5), [5]);
        assert!(of(0).is_empty());
    }

    #[test]
    fn nobody_waits_for_what_is_too_late_then() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let until = at("2026-11-21T12:00:00Z");
        let limit = Limit { until, after: "it is over", watcher: &Unwatched };
        let wait = |now: &str| limit.may_wait(at(now), Duration::from_mins(10), "too many");
        assert_eq!(wait("2026-11-21T11:50:00Z"), Ok(()));
        let late = Err(EngineError::Busy("too many; by then it is over".to_owned()));
        assert_eq!(wait("2026-11-21T11:50:01Z"), late);
        assert_eq!(limit.check(until), Ok(()));
        let late = Err(EngineError::Busy("it is over".to_owned()));
        assert_eq!(limit.check(at("2026-11-21T12:00:01Z")), late);
    }
}
