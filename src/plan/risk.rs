//! What a delete costs, seen from the series it is taken from.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::action::{Action, Reason, ReasonCode};
use super::document::Change;
use crate::desired::{Series, SeriesPoint};
use crate::elapsed::Elapsed;
use crate::inventory::ImageState;
use crate::policy::Risk;
use crate::retention::{CLOCK_SKEW, Fate, Miss, Rule};

/// Gives each delete of a series its risk class, and says how far the series reaches afterwards.
pub(super) fn classify(series: &Series<'_>, changes: &mut [Change], now: Timestamp) {
    let deleted: BTreeSet<String> = changes
        .iter()
        .filter(|change| change.action == Action::Delete)
        .filter_map(|change| change.image.id.clone())
        .collect();
    if deleted.is_empty() {
        return;
    }
    let by_id: BTreeMap<&str, &SeriesPoint<'_>> =
        series.points.iter().map(|point| (point.image.id.as_str(), point)).collect();
    let horizon = CLOCK_SKEW.after(now);
    let ready = || {
        series.points.iter().filter(|point| {
            point.image.state == ImageState::Ready && point.key.slot.instant() <= horizon
        })
    };
    let oldest_left =
        ready().find(|point| !deleted.contains(&point.image.id)).map(|point| point.key.slot);
    let oldest_now = ready().next().map(|point| point.key.slot);
    let newest_left =
        ready().rfind(|point| !deleted.contains(&point.image.id)).map(|point| point.key.slot);
    for change in changes.iter_mut().filter(|change| change.action == Action::Delete) {
        change.newest_ready = newest_left;
        let point = change.image.id.as_ref().and_then(|id| by_id.get(id.as_str())).copied();
        let Some(point) = point.filter(|point| point.image.state == ImageState::Ready) else {
            change.risk = Some(Risk::Rotation);
            continue;
        };
        let Some(left) = oldest_left else {
            change.risk = Some(Risk::LastPoint);
            continue;
        };
        if series.state.is_gone() {
            change.risk = Some(Risk::SourceGone);
            continue;
        }
        let reach_after = Elapsed::between(left.instant(), now);
        let shortens = point.key.slot < left && !is_routine(series, point);
        change.risk = Some(if shortens { Risk::ShortensReach } else { Risk::Rotation });
        if let (true, Some(oldest)) = (shortens, oldest_now) {
            let reach = Elapsed::between(oldest.instant(), now).rough();
            change.reasons.push(Reason::new(
                ReasonCode::NoRuleKeeps,
                format!("reach {reach} → {}", reach_after.rough()),
            ));
        }
    }
}

/// Whether the oldest point of a series goes as it does on every ordinary day: no later than the
/// grace and two runs after the rule let go of it. Where a rule was narrowed, points go that are far
/// beyond it. The oldest of a weekly, monthly or yearly tier never goes as a matter of course.
fn is_routine(series: &Series<'_>, point: &SeriesPoint<'_>) -> bool {
    let Fate::LetGo(closest) = &point.fate else {
        return false;
    };
    let policy = series.policy;
    let slot = point.key.slot.instant();
    let next = policy.schedule.next_slot(slot);
    let period = next.map_or(Elapsed::days(1), |next| Elapsed::between(slot, next.instant()));
    let grace = policy.lifecycle.grace.as_seconds();
    match closest.miss {
        Miss::Expired { age, limit } => {
            age.as_seconds() - limit.as_seconds() <= grace + 2 * period.as_seconds()
        }
        Miss::Represented { .. } => is_short(closest.rule),
        Miss::Beyond { place, of } => {
            let places = i64::from(place) - i64::from(of);
            let step = match closest.rule {
                Rule::Hourly => period.as_seconds().max(Elapsed::hours(1).as_seconds()),
                Rule::Daily => period.as_seconds().max(Elapsed::days(1).as_seconds()),
                _ => period.as_seconds(),
            };
            is_short(closest.rule) && places <= grace / step.max(1) + 2
        }
    }
}

fn is_short(rule: Rule) -> bool {
    matches!(rule, Rule::Last | Rule::Hourly | Rule::Daily)
}
