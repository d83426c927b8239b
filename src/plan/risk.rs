//! What a delete costs, seen from the series it is taken from.

use jiff::Timestamp;

use super::action::{Action, Reason, ReasonCode};
use super::document::Change;
use crate::desired::Series;
use crate::elapsed::Elapsed;
use crate::inventory::ImageState;
use crate::policy::Risk;
use crate::retention::{Fate, Miss};

/// Gives each delete of a series its risk class, and says how far the series reaches afterwards.
pub(super) fn classify(series: &Series<'_>, changes: &mut [Change], now: Timestamp) {
    let deleted: Vec<String> = changes
        .iter()
        .filter(|change| change.action == Action::Delete)
        .filter_map(|change| change.image.id.clone())
        .collect();
    let ready = || series.points.iter().filter(|point| point.image.state == ImageState::Ready);
    let oldest_left =
        ready().find(|point| !deleted.contains(&point.image.id)).map(|point| point.key.slot);
    let oldest_now = ready().next().map(|point| point.key.slot);
    let newest_left =
        ready().rfind(|point| !deleted.contains(&point.image.id)).map(|point| point.key.slot);
    for change in changes.iter_mut().filter(|change| change.action == Action::Delete) {
        change.newest_ready = newest_left;
        let point =
            series.points.iter().find(|point| Some(&point.image.id) == change.image.id.as_ref());
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
        let shortens = point.key.slot < left && !is_routine(&point.fate, reach_after);
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

/// Whether the oldest point of a series goes as it does on every ordinary day: the series still
/// reaches about as far back as the rule promises. The oldest of a weekly, monthly or yearly tier
/// never goes as a matter of course.
fn is_routine(fate: &Fate, reach_after: Elapsed) -> bool {
    let Fate::LetGo(closest) = fate else {
        return false;
    };
    match closest.miss {
        // A tenth of the limit or two days: what a schedule with a missed run leaves.
        Miss::Expired { limit, .. } => {
            let slack = (limit.as_seconds() / 10).max(Elapsed::days(2).as_seconds());
            reach_after.as_seconds() + slack >= limit.as_seconds()
        }
        Miss::Beyond { .. } | Miss::Represented { .. } => {
            use crate::retention::Rule;
            matches!(closest.rule, Rule::Last | Rule::Hourly | Rule::Daily)
        }
    }
}
