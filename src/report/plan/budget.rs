//! What a plan costs, and how much of the quotas it takes.

use super::super::text::{amount, clean};
use super::super::{Row, Section};
use super::section;
use crate::inventory::QuotaUnit;
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
    let number = |number: u64| amount(number, quota.unit);
    let (style, mark) = if quota.is_over() { ("held", "! ") } else { ("plain", "") };
    let endless = if quota.is_endless { " and growing" } else { "" };
    let place = match quota.project.as_str() {
        "" => quota.engine.clone(),
        project => format!("{} in {}", quota.engine, clean(project)),
    };
    let (now, limit, kind) = (number(quota.now), number(quota.limit), quota.kind.word());
    let now = match quota.unit {
        QuotaUnit::Images => format!("{now} {kind}s of {limit} now"),
        QuotaUnit::Bytes => format!("{now} of {limit} for {kind}s now"),
    };
    let mut row = Row::new(
        style,
        format!(
            "{mark}{place}: {now}, {} after this plan, {}{endless} in the long run",
            number(quota.after),
            number(quota.long_run)
        ),
    );
    if quota.on_the_way > 0 {
        let steps = number(quota.on_the_way);
        row.notes.push(format!("and up to {steps} for a while, of which disk images are made"));
    }
    if quota.peak > quota.now.max(quota.limit) {
        let most = number(quota.peak);
        row.notes.push(format!("up to {most} meanwhile: what goes for others goes last"));
    }
    if quota.long_run_peak > quota.long_run.max(quota.limit) {
        let most = number(quota.long_run_peak);
        row.notes.push(format!(
            "up to {most} for a while in the long run: captures are made before anything goes for them"
        ));
    }
    if quota.uncounted > 0 {
        row.notes.push("what has no known size is not counted".to_owned());
    }
    row
}
