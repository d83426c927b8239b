//! What a plan costs and how much of the quotas it takes: now, after it, and in the long run.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::budget::{SteadyTotals, steady_totals_of};
use super::size::Sizes;
use crate::cost::{Amount, Bill, MAY_FREE_LESS, Prices, after_plan, of_inventory};
use crate::desired::{Desired, desired};
use crate::inventory::{Image, ImageKind, Inventory};
use crate::name::{Ownership, PolicyName, SourceId};
use crate::plan::{Action, Budget, Change, Costs, Plan, QuotaUse};
use crate::policy::Policies;

/// The budget of a plan: nothing where no prices are written and no engine tells a limit.
pub fn budget(
    policies: &Policies,
    inventory: &Inventory,
    plan: &Plan,
    now: Timestamp,
) -> Option<Budget> {
    let prices = policies.config.prices.as_ref();
    let has_limits =
        inventory.engines.iter().any(|engine| !engine.capabilities.limits.images.is_empty());
    if prices.is_none() && !has_limits {
        return None;
    }
    let desired = desired(policies, inventory, now);
    let steady = steady_totals_of(&desired, prices, now);
    Some(Budget {
        costs: prices.map(|prices| costs(prices, inventory, plan, &desired, &steady)),
        quotas: quotas(policies, inventory, plan, &steady),
    })
}

fn costs(
    prices: &Prices,
    inventory: &Inventory,
    plan: &Plan,
    desired: &Desired<'_>,
    steady: &SteadyTotals,
) -> Costs {
    let sizes = sizes(desired);
    let size = |change: &Change| {
        let (sizes, has_points) = sizes.get(&(&change.key.policy, &change.key.source))?;
        let bytes = if *has_points { sizes.increment } else { sizes.first };
        (bytes > 0).then_some(bytes)
    };
    let (now, after) = (of_inventory(prices, inventory), after_plan(prices, inventory, plan, size));
    let long_run = steady.values().fold(Amount::default(), |sum, total| sum.plus(total.amount));
    let frees = plan.changes.iter().any(|change| change.action == Action::Delete);
    let mut notes: Vec<String> = left_out(&now, &after);
    let endless: u64 = steady.values().map(|total| total.endless_series).sum();
    if endless > 0 {
        notes.push(format!(
            "in the long run: {endless} series that never let go of anything are not counted"
        ));
    }
    let unknown: u64 =
        steady.values().map(|total| total.unsized_series + total.unpriced_images).sum();
    if unknown > 0 {
        notes
            .push("in the long run: images without a known size or a price are not counted".into());
    }
    if frees {
        notes.push(MAY_FREE_LESS.to_owned());
    }
    Costs {
        as_of: prices.as_of,
        now: prices.money(now.amount),
        after: prices.money(after.amount),
        long_run: prices.money(long_run),
        notes,
    }
}

fn left_out(now: &Bill, after: &Bill) -> Vec<String> {
    let (now, after) = (now.left_out(), after.left_out());
    match (now, after) {
        (now, after) if now == after => now.into_iter().collect(),
        (now, after) => {
            [now.map(|text| format!("now, {text}")), after.map(|text| format!("after it, {text}"))]
                .into_iter()
                .flatten()
                .collect()
        }
    }
}

/// What captures of each series store, and whether it has a point already.
fn sizes<'d>(desired: &'d Desired<'_>) -> BTreeMap<(&'d PolicyName, &'d SourceId), (Sizes, bool)> {
    let series = desired.engines.iter().flat_map(|engine| &engine.series);
    series
        .map(|series| {
            let images = series.points.iter().map(|point| point.image);
            let sizes = Sizes::of(images, series.policy, series.state.instance());
            ((&series.policy.name, &series.source), (sizes, !series.points.is_empty()))
        })
        .collect()
}

/// How much of each limit is taken. Images that are not ours count as well: they stay.
fn quotas(
    policies: &Policies,
    inventory: &Inventory,
    plan: &Plan,
    steady: &SteadyTotals,
) -> Vec<QuotaUse> {
    let mut quotas = Vec::new();
    for engine in &inventory.engines {
        for (kind, limit) in &engine.capabilities.limits.images {
            let of_kind = || engine.images.iter().filter(|image| image.kind == *kind);
            let is_managed = |ownership: &Ownership| matches!(ownership, Ownership::Ours(key) if policies.keeper(&key.policy).is_some());
            let others = of_kind().filter(|image| !is_managed(&image.ownership()));
            let others: u64 = others.map(Image::members).sum();
            let (mut made, mut gone) = (0_u64, 0_u64);
            for change in plan.changes.iter().filter(|change| change.engine == engine.name) {
                let (more, less) = counted(change, *kind, engine);
                made += more;
                gone += less;
            }
            let now = of_kind().map(Image::members).sum::<u64>();
            let total = steady.get(&(engine.name.clone(), *kind));
            quotas.push(QuotaUse {
                engine: engine.name.clone(),
                kind: *kind,
                limit: *limit,
                now,
                after: (now + made).saturating_sub(gone),
                long_run: others + total.map_or(0, |total| total.images),
                is_endless: total.is_some_and(|total| total.endless_series > 0),
            });
        }
    }
    quotas
}

/// How many images of a kind a change makes and takes away.
fn counted(
    change: &Change,
    kind: ImageKind,
    engine: &crate::inventory::EngineInventory,
) -> (u64, u64) {
    let image = |id: Option<&String>| engine.images.iter().find(|image| Some(&image.id) == id);
    let kind_of = |id: Option<&String>| image(id).map(|image| image.kind);
    let members_of = |id: Option<&String>| image(id).map_or(1, Image::members);
    match (change.action, &change.create, &change.copy) {
        (Action::Create, Some(create), _) if create.kind == kind => {
            let replaced = create.replaces.as_ref();
            (
                if create.disk_by_disk { create.disks.len() as u64 } else { 1 },
                replaced.map_or(0, |replaced| members_of(replaced.id.as_ref())),
            )
        }
        (Action::Copy, _, Some(copy)) => {
            let is_kind = kind_of(change.image.id.as_ref()).is_none_or(|found| found == kind);
            (u64::from(is_kind), u64::from(is_kind && copy.replaces.is_some()))
        }
        (Action::Delete, ..) if kind_of(change.image.id.as_ref()) == Some(kind) => {
            (0, members_of(change.image.id.as_ref()))
        }
        _ => (0, 0),
    }
}
