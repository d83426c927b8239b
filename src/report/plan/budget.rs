//! What a plan costs, and how much of the quotas it takes.

use super::super::text::{clean, grouped};
use super::super::{Row, Section};
use super::section;
use crate::plan::{Plan, QuotaUse};

pub(super) fn budget(plan: &Plan) -> Option<Section> {
    let budget = plan.budget.as_ref()?;
    let mut rows = Vec::new();
    if let Some(costs) = &budget.costs {
        let mut row = Row::new(
            "plain",
            format!(
                "{} now, {} after this plan, {} in the long run (prices of {})",
                costs.now, costs.after, costs.long_run, costs.as_of
            ),
        );
        row.notes.extend(costs.notes.iter().map(|note| clean(note)));
        rows.push(row);
    }
    rows.extend(budget.quotas.iter().map(quota));
    section("cost and quota".to_owned(), "heading", rows)
}

fn quota(quota: &QuotaUse) -> Row {
    let number = |number: u64| grouped(usize::try_from(number).unwrap_or(usize::MAX));
    // What is deleted goes last, and steps are there before.
    let most = match quota.on_the_way {
        0 => quota.long_run.max(quota.after),
        steps => quota.long_run.max(quota.after).max(quota.now) + steps,
    };
    let is_over = quota.is_endless || most > quota.limit;
    let (style, mark) = if is_over { ("held", "! ") } else { ("plain", "") };
    let endless = if quota.is_endless { " and growing" } else { "" };
    let place = match quota.project.as_str() {
        "" => quota.engine.clone(),
        project => format!("{} in {}", quota.engine, clean(project)),
    };
    let mut row = Row::new(
        style,
        format!(
            "{mark}{place}: {} {}s of {} now, {} after this plan, {}{endless} in the long run",
            number(quota.now),
            quota.kind.word(),
            number(quota.limit),
            number(quota.after),
            number(quota.long_run)
        ),
    );
    if quota.on_the_way > 0 {
        let steps = number(quota.on_the_way);
        row.notes.push(format!("and up to {steps} for a while, of which disk images are made"));
    }
    row
}
