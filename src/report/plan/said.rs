//! What there is to say of machines and images that a plan leaves as they are.

use super::super::text::{clean, grouped};
use super::{Section, rows, section};
use crate::plan::{Kept, Plan};

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

/// What another run makes, or has left to the service, where there is something to say of it.
pub(super) fn being_made(plan: &Plan) -> Option<Section> {
    said_of(plan, "» being made, with something to say of it", Kept::being_made)
}

/// What nobody touches because nobody knows what it is.
pub(super) fn not_known(plan: &Plan) -> Option<Section> {
    said_of(plan, "? no restore points as they are; left alone", Kept::not_known)
}

/// What is said of images that are kept.
fn said_of(plan: &Plan, title: &str, said: fn(&Kept) -> Option<&str>) -> Option<Section> {
    let mark = title.chars().next().unwrap_or('?');
    let cells = plan.kept.iter().filter_map(|kept| {
        let said = clean(said(kept)?);
        Some(vec![format!("{mark} {}", clean(&kept.name)), kept.engine.to_string(), said])
    });
    let cells: Vec<Vec<String>> = cells.collect();
    section(format!("{title} ({})", grouped(cells.len())), "held", rows("held", &cells))
}
