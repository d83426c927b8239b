//! A year in seconds: reloads, mistakes, failures, kills, clocks that are set and machines that sleep.
//! The restore points of each day are counted against the calendar.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use stillframe::clock::Clock;
use stillframe::elapsed::Elapsed;
use stillframe::engine::{Engine, Fault, Faulty};
use stillframe::name::Slot;
use stillframe::schedule::{Crontab, Schedule, Zone};

use super::super::memory::{MemoryEngine, instance};
use super::super::support::Random;
use super::{Running, Script, VirtualClock, slots, text};

/// Name, source, expression, zone, jitter in minutes.
type Written = (&'static str, &'static str, &'static str, &'static str, i64);

const DAILY: [Written; 2] = [
    ("berlin-nightly", "berlin-1", "30 2 * * *", "Europe/Berlin", 10),
    ("york-nights", "york-1", "30 1,2 * * *", "America/New_York", 0),
];
const HOURLY: [Written; 2] = [
    ("berlin-hourly", "berlin-2", "0 * * * *", "Europe/Berlin", 0),
    ("york-hourly", "york-2", "0 * * * *", "America/New_York", 10),
];

/// The policies with one of two retentions.
fn policies(written: &[Written], which: u64) -> String {
    let rule = ["last: 4", "last: 6"][(which % 2) as usize];
    let rest: Vec<String> = written
        .iter()
        .map(|(_, source, cron, zone, jitter)| {
            format!(
                "  source: {{match: [{{names: [{source}]}}]}}\n  schedule: {{cron: \"{cron}\", timeZone: \
                 {zone}, jitter: {jitter}m}}\n  retention: {{{rule}}}\n  lifecycle: {{grace: 1h}}\n"
            )
        })
        .collect();
    let policies: Vec<(&str, &str, &str)> = written
        .iter()
        .zip(&rest)
        .map(|((name, source, ..), rest)| {
            (*name, if source.starts_with("berlin") { "berlin" } else { "york" }, rest.as_str())
        })
        .collect();
    text(
        &["berlin", "york"],
        "  guards: {seriesPercent: 100, enginePercent: 100}\n  watch: {reconcileEvery: 1d}\n",
        &policies,
    )
}

/// How many restore points a policy makes on a day of its zone, by the calendar alone.
fn wanted(policy: &str, day: Date, zone: &TimeZone) -> usize {
    let begin = day.to_zoned(zone.clone()).unwrap().timestamp();
    let end = day.tomorrow().unwrap().to_zoned(zone.clone()).unwrap().timestamp();
    let hours = end.duration_since(begin).as_hours() as usize;
    match policy {
        "berlin-nightly" => 1,
        "york-nights" => 2,
        _ => hours,
    }
}

/// A world of two engines that fail now and then.
struct Year {
    written: &'static [Written],
    clock: Arc<VirtualClock>,
    engines: [Arc<MemoryEngine>; 2],
    script: Arc<Script>,
    random: Random,
    /// Stretches of time that the machine did not see: from, to.
    skipped: Vec<(Timestamp, Timestamp)>,
    _directory: tempfile::TempDir,
}

impl Year {
    fn new(written: &'static [Written], begin: &str) -> Self {
        let clock = VirtualClock::from(begin);
        let engines = ["berlin", "york"].map(|name| {
            let engine = MemoryEngine::named(name, clock.clone());
            for number in 1..3 {
                engine.add(instance(&format!("{name}-{number}"), &[]));
            }
            engine
        });
        // What is made to last there costs nothing.
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let opened: Vec<Arc<dyn Engine>> = engines.iter().map(|one| one.clone() as _).collect();
        let script = Script::new(&policies(written, 0), opened, directory.path());
        let random = Random::new();
        Self { written, clock, engines, script, random, skipped: Vec::new(), _directory: directory }
    }

    fn start(&self) -> Running {
        Running::start(self.script.clone(), self.clock.clone(), Duration::from_mins(10))
    }

    /// Something happens to it.
    async fn disturb(&mut self, mut running: Running) -> Running {
        match self.random.below(7) {
            0 => {
                self.script.write(&policies(self.written, self.random.next()));
                running.bell.files_changed();
            }
            1 => {
                let broken = policies(self.written, 0).replace("retention", "retenton");
                self.script.write(&broken);
                running.bell.files_changed();
                tokio::time::sleep(Duration::from_hours(7)).await;
                self.script.write(&policies(self.written, self.random.next()));
                running.bell.files_changed();
            }
            2 => {
                // Faults of engines, in the calls that come next.
                let faults = [
                    Fault::CreateFails,
                    Fault::CreateReplyLost,
                    Fault::DeleteFails,
                    Fault::UpdateFails,
                    Fault::ImagesCutOff,
                    Fault::InstancesCutOff,
                ];
                let failing = self.engines.iter().map(|engine| {
                    let script = (0..4).map(|_| faults[self.random.below(6) as usize]).collect();
                    Arc::new(Faulty::new(engine.clone(), script)) as Arc<dyn Engine>
                });
                let failing: Vec<_> = failing.collect();
                *self.script.engines.lock().unwrap() = failing;
                running.bell.reload();
            }
            3 => {
                running.kill().await;
                tokio::time::sleep(Duration::from_secs(self.random.below(600))).await;
                running = self.start();
            }
            4 => {
                running.stop().await;
                running = self.start();
            }
            5 => {
                // The clock is set forwards, or the machine was asleep.
                let from = self.clock.now();
                self.clock.step([1_200, 3 * 3_600][self.random.below(2) as usize]);
                self.skipped.push((from, self.clock.now()));
            }
            _ => self.clock.step(-2_400),
        }
        running
    }

    /// Slots that nobody could make: their time and the minutes in which a step is noticed lie in a
    /// stretch that was skipped.
    fn lost(&self, wanted: Slot, deadline: SignedDuration, start: SignedDuration) -> bool {
        let (start, deadline) = (wanted.instant() + start, wanted.instant() + deadline);
        let noticed = |to: Timestamp| to + SignedDuration::from_secs(630);
        self.skipped.iter().any(|(from, to)| start > *from && deadline < noticed(*to))
    }
}

/// Watches through a stretch of time in which something happens every so many hours, and counts.
async fn watch_through(written: &'static [Written], begin: &str, end: &str, hours: u64) {
    let mut year = Year::new(written, begin);
    let mut running = year.start();
    let until: Timestamp = end.parse().unwrap();
    let mut disturbances = 0;
    while year.clock.now() < until {
        let minutes = hours * 30 + year.random.below(hours * 60);
        let next = year.clock.now() + SignedDuration::from_mins(minutes as i64);
        year.clock.reach(next.min(until)).await;
        if next < until {
            running = year.disturb(running).await;
            disturbances += 1;
        }
    }
    running.stop().await;
    assert!(disturbances > 10, "{disturbances}");
    for (policy, source, cron, zone, _) in written {
        year.count(policy, source, cron, (begin, end), &TimeZone::get(zone).unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn every_slot_of_a_year_has_one_image() {
    watch_through(&DAILY, "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z", 60).await;
}

#[tokio::test(start_paused = true)]
async fn every_hour_of_the_nights_of_the_clock_changes_has_one_image() {
    watch_through(&HOURLY, "2026-03-04T00:00:00Z", "2026-04-02T00:00:00Z", 24).await;
    watch_through(&HOURLY, "2026-10-20T00:00:00Z", "2026-11-06T00:00:00Z", 24).await;
}

impl Year {
    /// Holds the restore points of each day against the calendar.
    fn count(&self, policy: &str, source: &str, cron: &str, span: (&str, &str), zone: &TimeZone) {
        let made: BTreeMap<_, _> = self.engines.iter().flat_map(|engine| slots(engine)).collect();
        let made = &made[&(policy.to_owned(), source.to_owned())];
        let slots: BTreeSet<Slot> = made.iter().copied().collect();
        assert_eq!(slots.len(), made.len(), "{policy} made a slot twice; {}", self.random);
        let date = |slot: &Slot| slot.instant().to_zoned(zone.clone()).date();
        let mut days: BTreeMap<Date, usize> = BTreeMap::new();
        for slot in &slots {
            *days.entry(date(slot)).or_default() += 1;
        }
        let lost = self.lost_of(policy, &slots, cron, span, zone);
        let day_of = |text: &str| text.parse::<Timestamp>().unwrap().to_zoned(TimeZone::UTC).date();
        // The first and the last day are not whole in every zone.
        let (mut day, end) = (day_of(span.0) + 1.day(), day_of(span.1) - 1.day());
        let mut missing = 0;
        while day < end {
            let lost: Vec<&Slot> = lost.iter().filter(|slot| date(slot) == day).collect();
            let count = days.get(&day).copied().unwrap_or(0);
            assert_eq!(
                count + lost.len(),
                wanted(policy, day, zone),
                "{policy} on {day}, of which {lost:?} were skipped; {}",
                self.random
            );
            missing += lost.len();
            day += 1.day();
        }
        println!("{policy}: {} images, {missing} skipped with the time", slots.len());
        assert!(missing * 20 < slots.len(), "{missing} of {} slots skipped", slots.len());
    }

    /// The slots that nobody could make and that were not made.
    fn lost_of(
        &self,
        policy: &str,
        made: &BTreeSet<Slot>,
        cron: &str,
        span: (&str, &str),
        zone: &TimeZone,
    ) -> Vec<Slot> {
        let schedule = Schedule {
            crontabs: vec![Crontab::parse(cron).unwrap()],
            zone: Zone::find(zone.iana_name().unwrap()).unwrap(),
            deadline: None,
            jitter: Elapsed::ZERO,
        };
        let jitter = self.written.iter().find(|written| written.0 == policy).unwrap().4;
        let slots = schedule.slots(span.0.parse().unwrap(), span.1.parse().unwrap());
        let is_lost = |slot: &Slot| {
            let deadline = schedule.deadline_of(*slot).duration_since(slot.instant());
            self.lost(*slot, deadline, SignedDuration::from_mins(jitter))
        };
        slots.filter(|slot| !made.contains(slot)).filter(is_lost).collect()
    }
}
