//! From wall-clock minutes to instants, through clock changes as Vixie cron goes through them.
//!
//! A zone is a row of stretches with one offset each. Inside a stretch every matching wall-clock
//! minute is one instant. What makes clock changes special happens where a stretch begins:
//!
//! - the clock went forward: a job at a fixed time in the skipped hour runs once, right then;
//! - the clock went back: a job at a fixed time in the repeated hour has run already;
//! - a job with `*` in minute or hour follows the wall clock: nothing is caught up, nothing is
//!   left out.

use std::collections::VecDeque;

use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, civil};

use super::Zone;
use super::crontab::Crontab;
use crate::elapsed::{Elapsed, whole_second};

/// The instants at which a crontab fires, in order, each once.
pub struct Firings<'a> {
    crontab: &'a Crontab,
    zone: &'a TimeZone,
    from: Timestamp,
    until: Timestamp,
    /// Where the next stretch begins, and the offset before it; `None` when all are done.
    next: Option<Stretch>,
    /// Wall-clock minutes of the present stretch, which has the offset beside it.
    minutes: Option<(Box<dyn Iterator<Item = civil::DateTime> + 'a>, Offset)>,
    /// Firings that are already known, before those of `minutes`.
    ready: VecDeque<Timestamp>,
    last: Option<Timestamp>,
}

/// The beginning of a time with one offset.
#[derive(Clone, Copy)]
struct Stretch {
    begin: Timestamp,
    offset: Offset,
    /// The offset before `begin`; the same where nothing changed.
    offset_before: Offset,
}

impl<'a> Firings<'a> {
    /// All firings in `[from, until)`.
    pub fn new(crontab: &'a Crontab, zone: &'a Zone, from: Timestamp, until: Timestamp) -> Self {
        let zone = zone.time_zone();
        // Nothing fires within a second, so it makes no difference, and clock changes are exact.
        let whole = whole_second(from);
        let from = if whole < from { Elapsed::seconds(1).after(whole) } else { from };
        let next = (from < until).then(|| stretch_at(zone, from));
        Self { crontab, zone, from, until, next, minutes: None, ready: VecDeque::new(), last: None }
    }

    /// Enters the next stretch: says what fires at its very beginning and which minutes follow.
    fn enter(&mut self, stretch: Stretch) {
        let end = self.zone.following(stretch.begin.max(self.from)).next();
        let end_at = end.as_ref().map_or(self.until, |change| change.timestamp().min(self.until));
        self.next = end.filter(|change| change.timestamp() < self.until).map(|change| Stretch {
            begin: change.timestamp(),
            offset: change.offset(),
            offset_before: stretch.offset,
        });
        let skipped_from = stretch.offset_before.to_datetime(stretch.begin);
        let begins_at = stretch.offset.to_datetime(stretch.begin);
        let mut minutes_from = stretch.offset.to_datetime(stretch.begin.max(self.from));
        if !self.crontab.is_wildcard() {
            if stretch.begin >= self.from
                && self.crontab.minutes(skipped_from, begins_at).next().is_some()
            {
                self.ready.push_back(stretch.begin);
            }
            // Where the clock went back, wall-clock times before `skipped_from` have been.
            minutes_from = minutes_from.max(skipped_from);
        }
        let minutes = self.crontab.minutes(minutes_from, stretch.offset.to_datetime(end_at));
        self.minutes = Some((Box::new(minutes), stretch.offset));
    }
}

impl Iterator for Firings<'_> {
    type Item = Timestamp;

    fn next(&mut self) -> Option<Timestamp> {
        loop {
            let found = self.ready.pop_front().or_else(|| {
                let (minutes, offset) = self.minutes.as_mut()?;
                offset.to_timestamp(minutes.next()?).ok()
            });
            match found {
                // The minute in which a gap ends may itself match.
                Some(instant) if Some(instant) == self.last => {}
                Some(instant) => {
                    self.last = Some(instant);
                    return Some(instant);
                }
                None => {
                    let stretch = self.next.take()?;
                    self.enter(stretch);
                }
            }
        }
    }
}

/// The stretch that `instant` lies in.
fn stretch_at(zone: &TimeZone, instant: Timestamp) -> Stretch {
    let offset = zone.to_offset(instant);
    let after = instant.saturating_add(jiff::SignedDuration::from_secs(1)).unwrap_or(instant);
    match zone.preceding(after).next() {
        Some(change) => {
            let before = change.timestamp().saturating_sub(jiff::SignedDuration::from_secs(1));
            let offset_before = before.map_or(offset, |before| zone.to_offset(before));
            Stretch { begin: change.timestamp(), offset, offset_before }
        }
        None => Stretch { begin: instant, offset, offset_before: offset },
    }
}
