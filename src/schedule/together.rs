//! What falls due together: at which slot of several schedules there is the most of something.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Schedule;
use crate::elapsed::Elapsed;
use crate::name::Slot;

/// Slots are looked for within it: clock changes and rare months come round.
const SPAN: Elapsed = Elapsed::days(400);
/// At most so many slots of each schedule are looked at, and so many schedules, those with the most.
const SLOTS_MAX: usize = 1_000;
const SCHEDULES_MAX: usize = 64;

/// The most that falls due at one slot of these schedules, each with how much falls due at each of its
/// own. What is not looked at counts by itself, and so does what `jitter` spreads.
pub fn most_at_once<'a>(
    those: impl IntoIterator<Item = (&'a Schedule, u64)>,
    from: Timestamp,
) -> u64 {
    let mut alike: BTreeMap<(String, &str), (&Schedule, u64)> = BTreeMap::new();
    let mut spread = 0;
    for (schedule, amount) in those.into_iter().filter(|(_, amount)| *amount > 0) {
        if schedule.jitter > Elapsed::ZERO {
            spread = amount.max(spread);
            continue;
        }
        let key = (schedule.text(), schedule.zone.name());
        let (_, sum) = alike.entry(key).or_insert((schedule, 0));
        *sum = sum.saturating_add(amount);
    }
    let mut sums: Vec<(&Schedule, u64)> = alike.into_values().collect();
    sums.sort_by_key(|(_, amount)| std::cmp::Reverse(*amount));
    let largest = sums.first().map_or(0, |(_, amount)| *amount).max(spread);
    if sums.len() < 2 {
        return largest;
    }
    let mut at: BTreeMap<Slot, u64> = BTreeMap::new();
    for (schedule, amount) in sums.into_iter().take(SCHEDULES_MAX) {
        for slot in schedule.slots(from, SPAN.after(from)).take(SLOTS_MAX) {
            let sum = at.entry(slot).or_default();
            *sum = sum.saturating_add(amount);
        }
    }
    at.into_values().max().unwrap_or(0).max(largest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{Crontab, Zone};

    #[test]
    fn what_is_due_at_one_slot_is_added_up() {
        let schedule = |text: &str, zone: &str| Schedule {
            crontabs: vec![Crontab::parse(text).unwrap()],
            zone: Zone::find(zone).unwrap(),
            deadline: None,
            jitter: Elapsed::ZERO,
        };
        let from = "2026-11-21T12:00:00Z".parse().unwrap();
        let daily = schedule("0 2 * * *", "UTC");
        let weekly = schedule("0 2 * * 0", "UTC");
        let later = schedule("0 3 * * *", "UTC");
        // In winter it is an hour later there.
        let abroad = schedule("0 3 * * *", "Europe/Berlin");
        let most = |those: &[(&Schedule, u64)]| most_at_once(those.iter().copied(), from);
        assert_eq!(most(&[]), 0);
        assert_eq!(most(&[(&daily, 3), (&daily.clone(), 4)]), 7);
        assert_eq!(most(&[(&daily, 3), (&later, 4)]), 4);
        let spread = Schedule { jitter: Elapsed::hours(2), ..daily.clone() };
        assert_eq!(most(&[(&spread, 3), (&spread.clone(), 5)]), 5);
        assert_eq!(most(&[(&spread, 5), (&daily, 3), (&daily.clone(), 1)]), 5);
        assert_eq!(most(&[(&daily, 3), (&weekly, 2), (&later, 4)]), 5);
        assert_eq!(most(&[(&daily, 3), (&abroad, 4), (&later, 0)]), 7);
    }
}
