//! What there is to say of machines that a plan leaves as they are.

use super::super::text::clean;
use super::{Section, rows, section};
use crate::plan::Plan;

/// Machines that stand still because nobody has started them after a capture.
pub(super) fn overdue(plan: &Plan) -> Option<Section> {
    let cells = plan.engines.iter().flat_map(|engine| {
        engine.overdue.iter().map(|name| {
            let what = "stopped for a capture and not started again; the next apply starts it";
            vec![format!("! {}", clean(name)), engine.name.clone(), what.to_owned()]
        })
    });
    let cells: Vec<Vec<String>> = cells.collect();
    let title = format!("! machines that stand still ({})", cells.len());
    section(title, "delete", rows("delete", &cells))
}
